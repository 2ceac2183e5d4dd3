"""Hypercorrelations: cosine similarities of all query and support positions (HSNet, section 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # added to the norms, HSNet model/base/correlation.py


def mask_support(maps: Tensor, mask: Tensor) -> Tensor:
    """Support maps (B, C, h, w) times the mask (B, S, S), resized bilinearly with aligned corners."""
    mask = F.interpolate(mask[:, None].float(), maps.shape[-2:], mode="bilinear", align_corners=True)
    return maps * mask


def correlate(query: Tensor, support: Tensor) -> Tensor:
    """Cosine similarity, negative values cut to 0.

    query (B, C, hq, wq), support (B, C, hs, ws) -> (B, hs, ws, hq, wq). A support position of
    zeros (outside the mask) correlates to exactly 0.
    """
    batch, _, hq, wq = query.shape
    hs, ws = support.shape[-2:]
    query = query.flatten(2)  # (B, C, hq * wq)
    support = support.flatten(2).transpose(1, 2)  # (B, hs * ws, C)
    # The norms divide the products, which are far fewer than the features.
    norms = (support.norm(dim=2, keepdim=True) + EPSILON) * (query.norm(dim=1, keepdim=True) + EPSILON)
    return ((support @ query).clamp(min=0) / norms).view(batch, hs, ws, hq, wq)


def hypercorrelation(query: list[Tensor], support: list[Tensor]) -> Tensor:
    """Stack the correlations of L maps of one stride to (B, L, hs, ws, hq, wq)."""
    return torch.stack([correlate(q, s) for q, s in zip(query, support, strict=True)], dim=1)
