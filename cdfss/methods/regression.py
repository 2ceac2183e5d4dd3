"""Ridge regression in closed form from feature maps to soft masks, for E episodes at once.

Small functions without state. E episodes, n pictures or views, D features, N cells of all supports.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def share(channels: list[int], most: int) -> int:
    """The most channels that every map may keep, so that all together keep no more than `most`."""
    return max(s for s in range(max(channels) + 1) if sum(min(c, s) for c in channels) <= most)


def projection(channels: int, kept: int) -> Tensor:
    """A fixed Gaussian matrix (kept, channels), which nearly preserves angles (Johnson, Lindenstrauss)."""
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(kept, channels, generator=generator) / kept**0.5


def directions(maps: list[Tensor], most: int) -> list[Tensor]:
    """Unit channel vectors of maps (B, C, h, w), on at most `most` channels in all.

    How long a vector is depends on the map and the picture; where it points tells what is seen.
    """
    kept = share([m.shape[1] for m in maps], most)
    shorter = []
    for m in maps:
        if m.shape[1] > kept:
            matrix = projection(m.shape[1], kept).to(m)
            m = torch.einsum("kc,bchw->bkhw", matrix, m)
        shorter.append(F.normalize(m, dim=1))
    return shorter


def cells_of(maps: list[Tensor], side: int) -> Tensor:
    """Maps (B, C, h, w) -> one row of features per cell, (B, side * side, D).

    Finer maps are averaged over a cell, coarser ones interpolated.
    """
    resized = [resized_to(m, side) for m in maps]
    return torch.cat(resized, 1).flatten(2).transpose(1, 2)  # (B, D, side, side) -> (B, cells, D)


def resized_to(m: Tensor, side: int) -> Tensor:
    """(B, C, h, w) -> (B, C, side, side)."""
    if m.shape[-1] > side:
        return F.adaptive_avg_pool2d(m, side)
    return F.interpolate(m, (side, side), mode="bilinear", align_corners=False)


LEAST_MASS = 1e-6  # cells; less is none, but for rounding


class Moments(NamedTuple):
    """Sums over the cells of pictures, by class (0 background, 1 foreground): all that a solve needs.

    They add up, so that supports can be left out and queries added without going back to the cells.
    """

    mass: Tensor  # (..., 2) number of cells
    first: Tensor  # (..., 2, D) sum of x
    second: Tensor  # (..., 2, D, D) sum of x x'

    def sum(self, dim: int) -> "Moments":
        """Of all pictures along a leading dimension."""
        return Moments(*(part.sum(dim) for part in self))

    def plus(self, other: "Moments", times: float = 1.0) -> "Moments":
        """With the cells of other pictures, each counted so many times."""
        return Moments(*(part + times * more for part, more in zip(self, other)))


def moments(cells: Tensor, foreground: Tensor, background: Tensor) -> Moments:
    """Of cells (..., N, D) that count as foreground and background by weights (..., N) in 0..1.

    A cell that an object fills by a third counts a third for foreground and two thirds for background,
    so that an object smaller than a cell does not vanish.
    """
    parts = []
    for weights in (background, foreground):
        weighted = cells * weights[..., None]  # (..., N, D)
        parts.append((weights.sum(-1), weighted.sum(-2), weighted.transpose(-1, -2) @ cells))
    mass, first, second = zip(*parts)
    return Moments(torch.stack(mass, -1), torch.stack(first, -2), torch.stack(second, -3))


def solve(of: Moments, penalty: float | Tensor) -> tuple[Tensor, Tensor]:
    """Weights w (..., D) and offset c (...) of the linear score x w + c of ridge regression.

    Targets are -1 and +1, and both classes weigh alike however small the object: with a cell's weight
    v_i in its class, divided by twice the class's mass,

        minimise  sum_i v_i (z_i u + c - y_i)^2 + penalty |u|^2,    z = (x - m) / d,

    where m and d are the weighted mean and standard deviation of each feature; c is not penalised.
    With m1, m0 the means of the classes, m = (m1 + m0) / 2, and S the weighted covariance of z,

        u = (S + penalty I)^-1 (m1 - m0) / (2 d),    w = u / d,    c = -m w.

    `penalty`, one number or (...), is in units of a feature's variance, since the diagonal of S is 1.
    """
    of = of._replace(mass=of.mass.clamp(min=LEAST_MASS))
    means = of.first / of.mass[..., None]  # (..., 2, D)
    mean, apart = means.mean(-2), (means[..., 1, :] - means[..., 0, :]) / 2
    covariance = (of.second / of.mass[..., None, None]).mean(-3) - mean[..., None] * mean[..., None, :]
    deviation = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-12).sqrt()
    covariance = covariance / deviation[..., None] / deviation[..., None, :]
    penalty = torch.as_tensor(penalty).to(covariance)[..., None]
    covariance.diagonal(dim1=-2, dim2=-1).add_(penalty)
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve((apart / deviation)[..., None], factor)[..., 0] / deviation
    return weights, -(mean * weights).sum(-1)


def others(of: Moments) -> Moments:
    """For each of k pictures the moments of all others, (E, k, ...)."""
    return Moments(*(part.sum(1, keepdim=True) - part for part in of))


def squared_errors(of: Moments, weights: Tensor, offset: Tensor) -> Tensor:
    """Mean of (x w + c - y)^2 over the cells of each class (..., 2), y = -1 and +1, from their moments."""
    of = of._replace(mass=of.mass.clamp(min=LEAST_MASS))
    mean = of.first / of.mass[..., None]
    second = of.second / of.mass[..., None, None]
    rest = offset[..., None] - torch.tensor([-1.0, 1.0]).to(offset)  # (..., 2)
    linear = torch.einsum("...cd,...d->...c", mean, weights)
    square = torch.einsum("...d,...cdf,...f->...c", weights, second, weights)
    return square + 2 * rest * linear + rest**2


def best_penalties(of: Moments, penalties: tuple[float, ...]) -> Tensor:
    """For each episode the penalty (E,) with which supports are told best from the others.

    That is the least squared error on supports left out, both classes alike. Supports that hold a class
    alone, or lack one, say nothing about it; the first penalty serves where no support says anything.

    Args:
        of: moments (E, k, ...) of single supports.
    """
    rest = others(of)
    # Both classes in the others, and the one that is judged in the support itself.
    judged = (rest.mass > LEAST_MASS).all(-1, keepdim=True) & (of.mass > LEAST_MASS)  # (E, k, 2)
    errors = []
    for penalty in penalties:
        error = squared_errors(of, *solve(rest, penalty))  # (E, k, 2)
        errors.append(torch.where(judged, error, 0).sum((1, 2)))
    return torch.tensor(penalties).to(of.mass)[torch.stack(errors).argmin(0)]


def confident(scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Which scores (N,) lie in the upper half of those above a threshold, and the lower half of the rest.

    Both are empty where a side is: then nothing tells the classes of these scores apart.
    """
    above = scores > threshold
    if above.all() or not above.any():
        return np.zeros_like(above), np.zeros_like(above)
    return scores >= np.median(scores[above]), scores <= np.median(scores[~above])


def threshold(scores: np.ndarray, own: float, prior: float) -> float:
    """Where to cut the scores of a picture, from these scores alone.

        t = own * otsu(scores) + prior * log((1 - p) / p),    p the share of scores above own * otsu(scores)

    0 is midway between the classes of the supports, Otsu's threshold midway between those of the query:
    the first fails where the query's features lie elsewhere, the second where it sees two classes in the
    background; so between them (`own`). Both take the classes for equally frequent, as the regression
    does; the second term is Bayes' correction for the share that the picture itself shows.
    """
    start = own * otsu(scores)
    share = np.clip((scores > start).mean(), 0.002, 0.998)  # the correction stays finite
    return float(start + prior * np.log((1 - share) / share))


def scores(maps: list[Tensor], weights: Tensor, offset: Tensor, size: int) -> Tensor:
    """Linear scores of every pixel: each map is weighed where it is coarse, then interpolated.

    Interpolation is linear too, so this is what the interpolated features would give, at the cost of
    one channel.

    Args:
        maps: (E, n, C, h, w) each.
        weights: (E, n, D) in the order of the maps.
        offset: (E, n).

    Returns:
        (E, n, size, size).
    """
    total = offset[..., None, None]
    parts = weights.split([m.shape[2] for m in maps], dim=-1)
    for m, part in zip(maps, parts):
        total = total + F.interpolate(
            torch.einsum("enchw,enc->enhw", m, part), (size, size), mode="bilinear", align_corners=False
        )
    return total


def otsu(values: np.ndarray) -> float:
    """The threshold between two classes of values that separates them best (Otsu 1979), without bins.

    Half way between two neighbours in order; a single value is its own threshold.
    """
    values = np.sort(np.asarray(values, np.float64).ravel())
    number = np.arange(1, len(values))
    below = np.cumsum(values)[:-1]
    # Variance between the classes, times the squared number of values.
    between = (values.mean() * number - below) ** 2 / (number * (len(values) - number))
    between = np.where(values[1:] > values[:-1], between, -1.0)
    best = int(between.argmax())
    if between[best] < 0:
        return float(values[0])
    return float((values[best] + values[best + 1]) / 2)
