"""Losses of FPTrans's source training (published core/losses.py and run.py)."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from cdfss.methods.fptrans.model import resize_masks

VOID = 255  # in targets: neither foreground nor background


def boundary_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy, weighted; void pixels weigh in the mean, but cost nothing.

    Args:
        logits: (B, 2, S, S).
        target: (B, S, S), 1 for foreground, 0 or VOID elsewhere.
        weights: `boundary_weights` of the target.
    """
    losses = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")
    return (losses * weights).sum() / weights.sum()


def boundary_weights(target: Tensor, sigma: float = 5.0) -> Tensor:
    """1 + exp(-d / sigma^2) for pixels that are d pixels from the object's boundary, (B, S, S).

    Boundary are the object's pixels with one of another kind, or the picture's edge, among their eight
    neighbours, and those neighbours.
    """
    masks = target == 1
    inside = masks.float()[:, None]
    neighbours = F.conv2d(inside, inside.new_ones(1, 1, 3, 3), padding=1)[:, 0]  # with the pixel itself
    boundary = ((neighbours > 0) & ~masks) | (masks & (neighbours < 9))
    weights = [
        1 + np.exp(-distance_transform_edt(~one) / sigma**2) if one.any() else np.ones(one.shape)
        for one in boundary.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(weights)).to(masks.device, torch.float32)


def pairwise(maps: Tensor, supports: Tensor, query: Tensor, scale: float = 10.0) -> Tensor:
    """Whether positions of supports and query are of one class, told from the cosine of their features.

    Binary cross-entropy with logits `scale` times the cosine, over pairs of a position of a support and one
    of the query, of which at least one is foreground and none is void.

    Args:
        maps: purified, (B, k + 1, C, h, w); the query's is the last.
        supports: targets of the supports, (B, k, S, S): 1 for foreground, 0 for background, or VOID.
        query: that of the query, (B, S, S).
    """
    supports, query = resize_masks(supports, maps.shape[-2:]), resize_masks(query[:, None], maps.shape[-2:])
    maps = F.normalize(maps, dim=2)
    cosines = torch.einsum("bkchw,bcij->bkhwij", maps[:, :-1], maps[:, -1])
    cosines = cosines.flatten(4).flatten(1, 3)  # (B, khw, hw)
    mine, other = supports.flatten(1)[:, :, None], query.flatten(1)[:, None]
    seen = (mine != VOID) & (other != VOID) & ((mine == 1) | (other == 1))
    losses = F.binary_cross_entropy_with_logits(scale * cosines, (mine == other).float(), reduction="none")
    return (losses * seen).sum() / (seen.sum() + 1e-6)
