"""What cells of pictures have in common: nearest cells of supports, and a query's own alike cells.

Functions without state. E episodes, n queries, N cells of a picture, M cells of all supports, D features.
Cells are unit vectors, so that their products are cosines.
"""

import torch
from torch import Tensor


def matching(
    cells: Tensor, supports: Tensor, foreground: Tensor, background: Tensor, nearest: int
) -> Tensor:
    """How much nearer cells are to the supports' foreground than to their background.

    The mean cosine to the `nearest` cells of the foreground less that to those of the background. A cell
    of the supports is of the class that fills half of it or more; of a class that fills no half of any
    cell, those are taken that it fills most.

    Args:
        cells: (E, n, N, D).
        supports: (E, M, D).
        foreground, background: shares of the supports' cells, (E, M), in 0..1; a rest is unknown.

    Returns:
        (E, n, N) in -2..2.
    """
    cosines = cells @ supports[:, None].transpose(-1, -2)  # (E, n, N, M)
    found = []
    for share in (foreground, background):
        inside = share >= share.amax(-1, keepdim=True).clamp(max=0.5)  # (E, M), never empty
        best = cosines.masked_fill(~inside[:, None, None], -torch.inf)
        best = best.topk(min(nearest, best.shape[-1]), -1).values
        there = best.isfinite()  # a class may have fewer cells
        found.append(torch.where(there, best, 0).sum(-1) / there.sum(-1))
    return found[0] - found[1]


def affinities(cells: Tensor, neighbours: int, width: float) -> Tensor:
    """Weights of a graph whose nodes are the cells of a picture, exp((cosine - 1) / width).

    A cell is joined to those that are most like it, wherever they lie, and to those that it is most
    alike for; never to itself.

    Args:
        cells: (..., N, D).

    Returns:
        (..., N, N), symmetric.
    """
    cosines = cells @ cells.transpose(-1, -2)
    weights = ((cosines - 1) / width).exp()
    weights.diagonal(dim1=-2, dim2=-1).zero_()
    neighbours = min(neighbours, weights.shape[-1] - 1)
    least = weights.topk(neighbours, -1).values[..., -1:]  # (..., N, 1)
    return weights * ((weights >= least) | (weights >= least.transpose(-1, -2)))


def propagated(scores: Tensor, weights: Tensor, strength: float) -> Tensor:
    """Scores that agree along the edges of a graph (Zhou et al., NIPS 2003, by a random walk).

    With the weights A, their sums d_i over each row and D = diag(d), the f that

        minimise  sum_i d_i (f_i - s_i)^2 + strength / 2 sum_ij A_ij (f_i - f_j)^2,

    which is the solution of (D + strength (D - A)) f = D s.

    Args:
        scores: (..., N).
        weights: (..., N, N), symmetric.
    """
    sums = weights.sum(-1)
    system = torch.diag_embed((1 + strength) * sums) - strength * weights
    factor = torch.linalg.cholesky(system)
    return torch.cholesky_solve((sums * scores)[..., None], factor)[..., 0]
