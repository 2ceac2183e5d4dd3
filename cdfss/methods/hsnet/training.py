"""Source training of HSNet (HSNet train.py): Adam on the learner, cross-entropy on query masks."""

import torch
import torch.nn.functional as F
from torch import nn

from cdfss.methods import training
from cdfss.methods.hsnet import checkpoints
from cdfss.methods.hsnet.model import HSNet, resize_logits


class Trainee(training.Trainee):
    """HSNet whose learner is trained; its backbone is frozen."""

    network = HSNet

    def __init__(self, settings, weights, device):
        self.model = self.network(settings["backbone"], weights, image_size=settings["image_size"])
        self.model.to(device).train()
        self.trained = nn.ModuleDict({part: getattr(self.model, part) for part in self.model.SOURCE_PARTS})
        self.optimiser = torch.optim.Adam(self.trained.parameters(), lr=settings["learning_rate"])

    def loss(self, batch, generator):
        logits = self.logits(batch)
        return F.cross_entropy(logits, batch[1].long()), logits

    def logits(self, batch):
        query, mask, _, support, support_mask = batch
        return resize_logits(self.model.segment(query, support, support_mask), mask.shape[-2:])

    def save(self, path, state, facts):
        checkpoints.save(path, state, self.model.backbone_name, facts, self.network)
