"""Cosine similarity to prototypes of foreground and background, on one feature map.

Functions without state. B pictures, C channels, N cells, P background prototypes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def prototypes(cells: Tensor, shares: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Unit vectors that stand for foreground and for the parts of the background.

    Background is many things: its prototypes are the means of the cells nearest to each of `number`
    centres. Each centre is the cell farthest from those before it, the first that farthest from the mean.

    Args:
        cells: unit vectors (N, C) of all supports.
        shares: of foreground (N,), in 0..1.

    Returns:
        (C,) and (P, C) with P <= number.
    """
    foreground = F.normalize((shares[:, None] * cells).sum(0), dim=0)
    inside = shares <= shares.min().clamp(min=0.5)  # at least the cells that the object fills least
    background, weights = cells[inside], (1 - shares[inside]).clamp(min=1e-6)
    nearest = background @ F.normalize((weights[:, None] * background).sum(0), dim=0)  # cosine
    centres = []
    for _ in range(min(number, len(background))):
        centres.append(background[nearest.argmin()])
        similarity = background @ centres[-1]
        nearest = similarity if len(centres) == 1 else torch.maximum(nearest, similarity)
    belongs = (background @ torch.stack(centres).T).argmax(1)
    members = F.one_hot(belongs, len(centres)).to(weights) * weights[:, None]  # (n, P)
    means = members.T @ background
    return foreground, F.normalize(means[members.sum(0) > 0], dim=1)


def scores(m: Tensor, foreground: Tensor, background: Tensor, size: int) -> Tensor:
    """Cosine to the foreground minus that to the nearest background, per pixel.

    Args:
        m: unit channel vectors (B, C, h, w).

    Returns:
        (B, size, size) in -2..2.
    """
    to_foreground = torch.einsum("bchw,c->bhw", m, foreground)
    to_background = torch.einsum("bchw,pc->bphw", m, background).amax(1)
    difference = (to_foreground - to_background)[:, None]
    return F.interpolate(difference, (size, size), mode="bilinear", align_corners=False)[:, 0]


def overlap(predicted: Tensor, truth: Tensor) -> float:
    """Foreground IoU of bool masks, counts summed over all."""
    return float((predicted & truth).sum()) / max(float((predicted | truth).sum()), 1.0)
