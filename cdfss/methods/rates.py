"""Learning rates that are chosen from the labelled supports of an episode alone."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = (0.0, 1e-2, 1e-1, 1.0)  # of equal ones the first; 0 leaves modules as they are


class View(NamedTuple):
    """A changed picture, as a camera or another day may give it.

    Attributes:
        mirrored: left and right.
        degrees: by which it is turned.
        zoom: what is seen is so many times as large.
        contrast: factor on normalised pictures.
        brightness: added to them.
    """

    mirrored: bool
    degrees: float
    zoom: float
    contrast: float
    brightness: float


VIEWS = (
    View(True, 10, 0.9, 1.2, 0.2),
    View(False, -15, 1.3, 0.8, -0.2),
    View(True, 30, 0.75, 0.6, 0.4),
)


class Fold(NamedTuple):
    """Some labelled supports of E episodes, and labelled queries that are none of them.

    Attributes:
        supports, masks: (E, j, 3, S, S) normalised and (E, j, S, S) of 0 and 1.
        queries, truths: (E, n, 3, S, S) and (E, n, S, S).
    """

    supports: Tensor
    masks: Tensor
    queries: Tensor
    truths: Tensor


# From a fold to a function of rates (E,) float64, or of None for no steps, which adapts to the fold's
# supports and gives the probability of foreground of each of its queries, n of (E, S, S).
Trial = Callable[[Fold], Callable[[Tensor | None], list[Tensor]]]


def choose(trial: Trial, supports: Tensor, masks: Tensor) -> Tensor:
    """The rate of CANDIDATES of each episode (E,), float64, that does best where it was not tuned.

    Args:
        supports, masks: (E, k, 3, S, S) normalised and (E, k, S, S) of 0 and 1.
    """
    candidates = torch.tensor(CANDIDATES, dtype=torch.float64, device=masks.device)
    overlaps = torch.zeros(len(candidates), len(masks), device=masks.device)
    for fold in folds(supports, masks.float()):
        predicted = trial(fold)
        for number, rate in enumerate(CANDIDATES):
            # A tensor, so that steps that are recorded serve all rates.
            found = predicted(candidates[number].repeat(len(masks)) if rate else None)
            for probabilities, truth in zip(found, fold.truths.unbind(1), strict=True):
                overlaps[number] += overlap(probabilities, truth)
    # A rate that led to no numbers is the worst.
    return candidates[overlaps.nan_to_num(nan=-1.0).argmax(0)]


def overlap(probabilities: Tensor, truth: Tensor) -> Tensor:
    """IoU (E,) of probabilities (E, S, S) of foreground, as soft masks, with the truth.

    Cross-entropy would choose the largest rate for most single supports, whose views have it in common.
    """
    both = probabilities.float() * truth
    either = probabilities.float() + truth - both
    return both.sum((1, 2)) / either.sum((1, 2)).clamp(min=1e-6)


def folds(supports: Tensor, masks: Tensor) -> Iterator[Fold]:
    """Each support left out in turn; a single one with changed views of itself as queries."""
    k = masks.shape[1]
    if k == 1:
        seen = [changed(supports[:, 0], masks[:, 0], view) for view in VIEWS]
        yield Fold(supports, masks, *(torch.stack(both, 1) for both in zip(*seen)))
        return
    for out in range(k):
        rest = [number for number in range(k) if number != out]
        kept = (torch.stack([tensor[:, number] for number in rest], 1) for tensor in (supports, masks))
        yield Fold(*kept, supports[:, out : out + 1], masks[:, out : out + 1])


def changed(pictures: Tensor, masks: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Normalised pictures (E, 3, S, S) and masks (E, S, S) in a view, mirrored where it ends."""
    turn, side = math.radians(view.degrees), -1 if view.mirrored else 1
    cosine, sine = math.cos(turn) / view.zoom, math.sin(turn) / view.zoom
    matrix = torch.tensor([[side * cosine, -sine, 0.0], [side * sine, cosine, 0.0]])
    where = F.affine_grid(matrix[None], (1, 1, *masks.shape[-2:]), align_corners=False)
    where = where.to(masks.device).expand(len(masks), -1, -1, -1)
    how = {"padding_mode": "reflection", "align_corners": False}
    seen = F.grid_sample(pictures, where.to(pictures.dtype), mode="bilinear", **how)
    truth = F.grid_sample(masks[:, None], where.to(masks.dtype), mode="nearest", **how)[:, 0]
    return seen * view.contrast + view.brightness, truth
