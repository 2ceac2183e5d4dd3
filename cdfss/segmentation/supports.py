"""Labelled pictures by class, whatever way a person's masks are written."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Support:
    """A labelled picture, for one class.

    Attributes:
        name: stem of its file, for messages and reports.
        picture: (H, W, 3) uint8, upright, at its own size.
        mask: (H, W) bool, true for foreground.
        unknown: (H, W) bool, pixels of which nothing is said; None where there are none.
    """

    name: str
    picture: np.ndarray
    mask: np.ndarray
    unknown: np.ndarray | None = None


@dataclass(frozen=True)
class Supports:
    """Labelled pictures of one or several classes.

    Attributes:
        classes: supports by name of class, in order.
        values: of each class in label maps, 1 to 255; 0 is background.
        colours: of each class, RGB, for overlays and palettes.
        complete: whether every picture is labelled for every class, as in label maps: it is then in the
            lists of all, and its mask is empty where it does not show a class.
    """

    classes: dict[str, list[Support]]
    values: dict[str, int]
    colours: dict[str, tuple[int, int, int]]
    complete: bool
