"""Background as several regions of a support, and all that FPTrans leaves to chance."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

REGIONS = 5  # of the background of a support (published config.py, bg_num)


class Draws:
    """What FPTrans draws for a batch: the first point of each support's background, and its prompts.

    Args:
        points, prompts: generators; the published ones are RandomState(1289) and RandomState(1234).
    """

    def __init__(self, points: np.random.RandomState, prompts: np.random.RandomState):
        self._points, self._prompts = points, prompts

    def first_points(self, numbers: np.ndarray) -> np.ndarray:
        """One of so many points of each support, (B, k) -> (B, k)."""
        drawn = [self._points.choice(number) for number in numbers.ravel()]
        return np.reshape(drawn, numbers.shape)

    def groups(self, batch: int, each: int, bank: int) -> np.ndarray:
        """Groups of prompts out of a bank, none twice as long as there are enough, (B, each)."""
        number = batch * each
        return self._prompts.choice(bank, number, replace=number > bank).reshape(batch, each)


class DrawsAlone:
    """Draws of which each item of a batch gets those that it would get alone.

    Args:
        batch: B.
        seed: all that they depend on.
    """

    def __init__(self, batch: int, seed: int):
        self._each = [
            Draws(np.random.RandomState([1289, seed]), np.random.RandomState([1234, seed]))
            for _ in range(batch)
        ]

    def first_points(self, numbers: np.ndarray) -> np.ndarray:
        """As `Draws.first_points`."""
        return np.concatenate([own.first_points(n[None]) for own, n in zip(self._each, numbers)])

    def groups(self, batch: int, each: int, bank: int) -> np.ndarray:
        """As `Draws.groups`."""
        return np.concatenate([own.groups(1, each, bank) for own in self._each])


def regions(background: Tensor, draws: Draws | DrawsAlone) -> Tensor:
    """Cut the background of every support into REGIONS: the positions nearest to each of as many centres.

    The first centre is drawn, each further one is the position that is farthest from those before, both by
    distance in the plane. Where fewer positions than regions are background, the first ones are added.

    Args:
        background: (B, k, h, w) bool.

    Returns:
        (B, k, h, w) int64, the number of the region; -1 for no background.
    """
    there = background.cpu().numpy().copy()
    flat = there.reshape(*there.shape[:2], -1)
    few = flat.sum(-1) < REGIONS
    flat[few, :REGIONS] = True
    firsts = draws.first_points(flat.sum(-1))
    found = np.full(there.shape, -1)
    for support in np.ndindex(*there.shape[:2]):
        points = np.argwhere(there[support])
        found[support][there[support]] = _nearest_centres(points, firsts[support])
    return torch.from_numpy(found).to(background.device)


def _nearest_centres(points: np.ndarray, first: int) -> np.ndarray:
    """Numbers of the centres that points (N, 2) are nearest to, the lowest where several are."""
    centre, nearest, labels = first, np.full(len(points), np.inf), np.zeros(len(points), int)
    for number in range(REGIONS):
        distances = ((points - points[centre]) ** 2).sum(1)
        labels[distances < nearest] = number
        nearest = np.minimum(nearest, distances)
        centre = int(nearest.argmax())
    return labels


def means_of(maps: Tensor, labels: Tensor, numbers: Sequence[int] = range(REGIONS)) -> Tensor:
    """Mean of maps (B, k, C, h, w) over each region of each support, (B, k * REGIONS, C)."""
    belongs = torch.stack([labels == number for number in numbers], 2).to(maps.dtype)  # (B, k, R, h, w)
    sums = torch.einsum("bkchw,bkrhw->bkrc", maps, belongs)
    return (sums / belongs.sum((3, 4)).clamp(min=1)[..., None]).flatten(1, 2)
