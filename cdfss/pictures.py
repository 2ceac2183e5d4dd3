"""From uint8 pictures to the backbone's input."""

import torch
from torch import Tensor

from cdfss.backbone_facts import BackboneFacts


def normalise(pictures: Tensor, facts: BackboneFacts) -> Tensor:
    """(B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32, scaled to 0..1, minus mean, over std."""
    mean = torch.tensor(facts.mean, device=pictures.device).view(3, 1, 1)
    std = torch.tensor(facts.std, device=pictures.device).view(3, 1, 1)
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std
