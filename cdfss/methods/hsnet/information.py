"""Correlations of channels, and the loss on their mutual information (paper table 5)."""

import torch
from torch import Tensor

from cdfss.running.precision import float32_product


def mean_of_pairs(matrix: Tensor) -> Tensor:
    """Mean of symmetric matrices (..., c, c) without the diagonal, (...); nan for a single channel."""
    channels = matrix.shape[-1]
    own = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (matrix.sum((-2, -1)) - own) / (channels * (channels - 1))


def correlations(values: Tensor) -> Tensor:
    """Correlation of every two of c channels over n positions, (..., c, n) -> (..., c, c).

    0 where a channel is constant, that is where it varies by no more than rounding.
    """
    values = values.float()
    centred = values - values.mean(-1, keepdim=True)
    length = centred.norm(dim=-1, keepdim=True)
    rounding = 1e-6 * values.norm(dim=-1, keepdim=True)
    unit = centred / length.clamp(min=torch.finfo(torch.float32).tiny) * (length > rounding)
    return float32_product(unit, unit.mT)


def gaussian_information(maps: Tensor) -> Tensor:
    """Mean mutual information of two channels if they were jointly normal, in nats; has gradients.

    -log(1 - r²) / 2 for their correlation r over the positions, the mean over all pairs: the loss
    that paper table 5 compares with, whose form the paper does not state.

    Args:
        maps: (..., C, h, w).

    Returns:
        (...).
    """
    squared = correlations(maps.flatten(-2)).square().clamp(max=0.9999)
    return mean_of_pairs(-torch.log1p(-squared) / 2)
