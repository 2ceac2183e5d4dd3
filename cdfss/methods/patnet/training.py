"""Source training of PATNet (its train.py): HSNet's, with the references trained like the learner."""

from cdfss.methods.hsnet import training
from cdfss.methods.patnet.model import PATNet


class Trainee(training.Trainee):
    """PATNet whose learner and references are trained; its backbone is frozen."""

    network = PATNet
