"""Given models of PATNet; its files are read and written as HSNet's (`cdfss.methods.hsnet.checkpoints`)."""

from functools import partial

from cdfss.methods.hsnet import checkpoints
from cdfss.methods.patnet.model import PATNet

take = partial(checkpoints.take, network=PATNet)
