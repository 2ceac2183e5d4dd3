"""From uint8 pictures to the backbone's input, and back."""

import torch
from torch import Tensor

from cdfss.backbones.facts import BackboneFacts


def normalise(pictures: Tensor, facts: BackboneFacts) -> Tensor:
    """(B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32, scaled to 0..1, minus mean, over std."""
    return normalised(pictures.permute(0, 3, 1, 2).float() / 255, facts)


def normalised(pictures: Tensor, facts: BackboneFacts) -> Tensor:
    """(B, 3, S, S) in 0..1 -> minus mean, over std."""
    mean, std = _mean_and_std(facts, pictures.device)
    return (pictures - mean) / std


def unnormalised(pictures: Tensor, facts: BackboneFacts) -> Tensor:
    """The way back: (B, 3, S, S) in 0..1 from normalised ones."""
    mean, std = _mean_and_std(facts, pictures.device)
    return pictures * std + mean


def _mean_and_std(facts: BackboneFacts, device) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(numbers, device=device).view(3, 1, 1) for numbers in (facts.mean, facts.std))
