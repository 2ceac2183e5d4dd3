"""PATNet's transformation of feature maps (PATNet section 4.2; its model/patnet.py), by coordinates.

With the support's prototypes of background and foreground as unit rows C (2, channels) and learnt
references as unit rows R (2, width), a feature f becomes (pinv(C) R)^T f = R^T a, a = pinv(C)^T f. Two
numbers a position hold all of it, and since the product of two such features is a^T (R R^T) b, cosines
depend on R through R R^T alone: with U^T U = R R^T the two-channel map U a has the norms and products of
the transformed map of any width. No matrix of channels x channels is ever made.
"""

import torch
from torch import Tensor

from cdfss.running.precision import float32_product

EPSILON = 1e-6  # added to the norms of rows and to the masks' means
CUT = 1e-15  # singular values below this share of the largest count as 0, torch.pinverse


def prototypes(background: Tensor, foreground: Tensor, mask: Tensor) -> Tensor:
    """Masked means of a support map, background first, (B, 2, C).

    Args:
        background, foreground: the map (B, C, h, w) times 1 - mask, and times mask.
        mask: (B, 1, h, w) in 0..1, of the map's size.
    """
    return torch.stack([masked_mean(background, 1 - mask), masked_mean(foreground, mask)], 1)


def masked_mean(masked: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, C) of a map over a mask (B, 1, h, w) in 0..1, which it is multiplied by, (B, C, h, w)."""
    return masked.mean((2, 3)) / (mask.mean((2, 3)) + EPSILON)


def coordinates(prototypes: Tensor, *maps: Tensor) -> list[Tensor]:
    """Coordinates a (B, 2, h, w) of maps (B, C, h, w) with respect to prototypes (B, 2, C)."""
    inverse = torch.linalg.pinv(unit_rows(prototypes), rtol=CUT).mT  # (B, 2, C)
    return [float32_product(inverse, m.flatten(2)).unflatten(2, m.shape[2:]) for m in maps]


def root(reference: Tensor) -> Tensor:
    """U (2, 2) of a reference (2, width), or (B, 2, 2) of one for each item, (B, 2, width)."""
    return torch.linalg.qr(unit_rows(reference).mT).R


def turned(root: Tensor, coordinates: Tensor) -> Tensor:
    """Two-channel maps U a (B, 2, h, w), whose norms and products are those of the transformed maps."""
    values = coordinates.flatten(2)
    return float32_product(root.expand(len(values), 2, 2), values).unflatten(2, coordinates.shape[2:])


def transformed(reference: Tensor, coordinates: Tensor) -> Tensor:
    """The transformed maps themselves (B, width, h, w), of a reference (2, width) or (B, 2, width)."""
    values = unit_rows(reference).mT @ coordinates.flatten(2)
    return values.unflatten(2, coordinates.shape[2:])


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (..., C) divided by their lengths + EPSILON, so that a row of zeros stays one."""
    return rows / (rows.norm(dim=-1, keepdim=True) + EPSILON)
