"""Source training of FPTrans: encoder, prompts and purifier, beside a frozen copy of the encoder.

Published (config.py, configs/pascal_vit.yml and pascal_deit.yml): SGD with a constant rate of 1e-3, batches
of 4, 60 epochs with ViT and 30 with DeiT, at 480 px. Epochs, batch, rate and size are the run's here.
"""

import torch
from torch import nn

from cdfss.methods import training
from cdfss.methods.fptrans import checkpoints
from cdfss.methods.fptrans.background import Draws, DrawsAlone
from cdfss.methods.fptrans.losses import VOID, boundary_cross_entropy, boundary_weights, pairwise
from cdfss.methods.fptrans.model import FPTrans, logits_of, resize_logits

MOMENTUM, DECAY = 0.9, 5e-5  # sgd_momentum and weight_decay of config.py
PAIRWISE = 0.02  # weight of that loss (pair_lossW)


class Trainee(training.Trainee):
    """FPTrans, all of which is trained but the frozen copy."""

    def __init__(self, settings, weights, device):
        self.backbone, self.seed = settings["backbone"], settings["seed"]
        self.model = FPTrans.on(self.backbone, weights, settings["image_size"]).to(device)
        self.trained = nn.ModuleDict({"encoder": self.model.encoder, "purifier": self.model.purifier})
        self.trained.train()
        self.optimiser = torch.optim.SGD(
            self.trained.parameters(), settings["learning_rate"], MOMENTUM, weight_decay=DECAY
        )

    def loss(self, batch, generator):
        query, mask, void, supports, support_mask = batch
        masks, target = support_mask[:, None], mask.long().masked_fill(void, VOID)
        with torch.random.fork_rng([query.device] if query.is_cuda else []):
            torch.manual_seed(generator.randint(2**31))  # for dropout
            prepared = self.model.prepare(supports[:, None], masks, Draws(generator, generator))
            maps, prompts = self.model.encode(query, supports[:, None], prepared)
            maps = self.model.purifier(maps)
            by_prompts = self.model.prompt_logits(maps, prompts)
        logits, by_prompts = (
            resize_logits(found, mask.shape[-2:]) for found in (logits_of(maps, prepared), by_prompts)
        )
        weights = boundary_weights(target)
        loss = sum(boundary_cross_entropy(found, target, weights) for found in (logits, by_prompts))
        return loss + PAIRWISE * pairwise(maps, masks, target), logits

    def logits(self, batch):
        query, _, _, supports, support_mask = batch
        self.trained.eval()
        logits = self.model(
            query, supports[:, None], support_mask[:, None], DrawsAlone(len(query), self.seed)
        )
        self.trained.train()
        return logits

    def save(self, path, state, facts):
        checkpoints.save(path, state, self.backbone, facts)
