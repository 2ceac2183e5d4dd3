"""Hypercorrelations: cosine similarities of all query and support positions (HSNet, section 4.1).

A support position outside the mask correlates to exactly 0 with everything, so only those inside
are computed and kept.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # added to the norms, HSNet model/base/correlation.py


@dataclass
class Hypercorrelation:
    """The correlations of L maps of one stride.

    Attributes:
        values: (B, L, n, hq, wq) of the n support positions inside any mask of the batch.
        positions: (n,), their numbers in the support plane, row by row.
        plane: (hs, ws), size of the support plane; it is 0 elsewhere.
    """

    values: Tensor
    positions: Tensor
    plane: tuple[int, int]


def resize_mask(mask: Tensor, size) -> Tensor:
    """Masks (B, S, S) as (B, 1, h, w), bilinear with aligned corners."""
    return F.interpolate(mask[:, None].float(), tuple(size), mode="bilinear", align_corners=True)


def mask_support(maps: Tensor, mask: Tensor) -> Tensor:
    """Support maps (B, C, h, w) times the mask (B, S, S), resized."""
    return maps * resize_mask(mask, maps.shape[-2:])


def inside(mask: Tensor, size) -> Tensor:
    """Numbers (n,) of the positions of a plane (h, w) inside any of the masks (B, S, S), resized."""
    return (resize_mask(mask, size) > 0).any(0).flatten().nonzero()[:, 0]


def correlate(query: Tensor, support: Tensor, positions: Tensor) -> Tensor:
    """Cosine similarity, negative values cut to 0.

    query (B, C, hq, wq), masked support (B, C, hs, ws), n of its positions -> (B, n, hq, wq).
    """
    hq, wq = query.shape[-2:]
    query = query.flatten(2)  # (B, C, hq * wq)
    support = support.flatten(2).transpose(1, 2)[:, positions]  # (B, n, C)
    # The norms divide the products, which are mostly fewer than the features.
    norms = (support.norm(dim=2, keepdim=True) + EPSILON) * (query.norm(dim=1, keepdim=True) + EPSILON)
    return ((support @ query).clamp(min=0) / norms).unflatten(2, (hq, wq))


def hypercorrelation(query: list[Tensor], support: list[Tensor], mask: Tensor) -> Hypercorrelation:
    """Correlate L maps of one stride, query and masked support (B, C, h, w), masks (B, S, S)."""
    plane = tuple(support[0].shape[-2:])
    positions = inside(mask, plane)
    values = [correlate(q, s, positions) for q, s in zip(query, support, strict=True)]
    return Hypercorrelation(torch.stack(values, dim=1), positions, plane)
