"""What the values of masks mean: one foreground, or a class for each value or colour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from cdfss.data.pictures import SEVERAL, Reading, binary_foreground, index_values, label_colours, opened
from cdfss.errors import CdfssError
from cdfss.segmentation.sources import Picture, source_of

Colour = tuple[int, int, int]
Key = int | Colour  # what stands for a class in a label map

BACKGROUND = {"background", "bg"}  # what 0 and black may be called
MOST_CLASSES = 64  # values or colours of a label map; photographs have more
_TOO_MANY = (
    "; expected one for each class. Photographs, smooth edges and lossy files have as many: save the label "
    "map without loss and without smoothing (PNG)"
)
_CLASSES = "are these classes? Then say --labels map (in Python, name them: names={1: 'road', 2: 'water'})"


@dataclass(frozen=True)
class Labels:
    """What the values of masks mean, as `labels_of` checks it.

    Attributes:
        kind: "binary" for one foreground, "map" for a value or a colour for each class.
        names: of classes by value (1 to 255) or by colour.
        unknown: value or colour of pixels of which nothing is said.
    """

    kind: Literal["binary", "map"]
    names: Mapping[Key, str] = field(default_factory=dict)
    unknown: Key | None = None

    @property
    def by_colour(self) -> bool:
        """Whether names, or what is unknown, are colours."""
        return any(isinstance(key, tuple) for key in (*self.names, self.unknown))


def labels_of(kind: str | None, names: Mapping[Key, str] | None, unknown: Key | None) -> Labels:
    """What a person says of masks; without a kind they are binary, but for names of several classes.

    Raises:
        CdfssError: says which of the three cannot be, and what is expected.
    """
    if kind not in ("binary", "map", None):
        raise CdfssError(f"labels is {kind!r}; expected 'binary' or 'map'")
    known = _names(names)
    if unknown is not None and not _is_colour(unknown) and not _is_value(unknown):
        raise CdfssError(f"unknown is {unknown!r}; expected a value from 0 to 255, such as 255")
    if unknown is not None and unknown in known:
        raise CdfssError(f"{shown(unknown)} is unknown and {known[unknown]!r}; choose one")
    if known and unknown is not None and _is_colour(next(iter(known))) != _is_colour(unknown):
        kinds = "colours" if _is_colour(next(iter(known))) else "values"
        raise CdfssError(
            f"names are of {kinds}, such as {shown(next(iter(known)))}, and unknown is {shown(unknown)}; "
            "expected both in the same way"
        )
    if kind == "binary" and len(known) > 1:
        raise CdfssError(
            f"labels is 'binary', and names holds {len(known)} classes; expected one name, or 'map'"
        )
    if kind == "binary" or (kind is None and (not known or (len(known) == 1 and {*known} <= {1, 255}))):
        return Labels("binary", known, unknown)
    return Labels("map", known, unknown)


def label_map(mask: Picture, meaning: Labels, reading: Reading) -> np.ndarray:
    """(H, W) uint8 of values, or (H, W, 3) uint8 of colours, which may all be grey.

    Raises:
        ValueError: says in one line what is wrong with it.
    """
    source = source_of(mask, is_mask=True)
    by_colour = meaning.by_colour
    with opened(source, reading) as image:
        mode = image.mode
    if mode in ("1", "L", "F") or mode.startswith("I") or (mode == "P" and not by_colour):
        values = index_values(source, reading)
        number = np.count_nonzero(np.bincount(values.ravel()))
        if number > MOST_CLASSES:
            raise ValueError(f"has {number} values{_TOO_MANY}")
        return values
    colours = label_colours(source, reading)
    few = Image.fromarray(colours).getcolors(MOST_CLASSES)
    if few is None:
        raise ValueError(f"has more than {MOST_CLASSES} colours{_TOO_MANY}")
    if meaning.names and not by_colour:
        if is_grey(colours):
            return np.ascontiguousarray(colours[..., 0])
        found = ", ".join(shown(colour) for _, colour in sorted(few, reverse=True)[:4])
        raise ValueError(f"has colours ({found}), and the names are of values; name the colours")
    return colours


def is_grey(values: np.ndarray) -> bool:
    """Whether (H, W) or (H, W, 3) holds no colour."""
    return values.ndim == 2 or bool((values == values[..., :1]).all())


def binary(mask: Picture, meaning: Labels, reading: Reading) -> tuple[np.ndarray, np.ndarray | None]:
    """Foreground and unknown pixels, (H, W) bool each; None where there are none.

    Raises:
        ValueError: says in one line what is wrong with it.
    """
    if meaning.unknown is None:
        source = source_of(mask, is_mask=True)
        try:
            foreground = binary_foreground(source, reading)
        except ValueError as error:
            raise ValueError(_or_classes(mask, str(error), reading)) from error
        if not foreground.any():
            _must_be_empty(mask, reading)
        return foreground, None
    values = label_map(mask, meaning, reading)
    areas = _areas_in_words(values)
    unknown = areas.pop(shown(meaning.unknown), None)
    areas.pop(_background(areas), None)
    if len(areas) > 1:
        found = _some(list(areas))
        raise ValueError(f"has {found} beside {shown(meaning.unknown)} for unknown; {_CLASSES}")
    return next(iter(areas.values()), np.zeros(values.shape[:2], bool)), unknown


def _or_classes(mask: Picture, said: str, reading: Reading) -> str:
    """What to say of a mask that is not binary: its values may be classes."""
    if SEVERAL not in said:
        return said
    try:
        keys = list(_areas_in_words(label_map(mask, Labels("map"), reading)))
    except ValueError:
        return said
    return f"has {_some(keys)}: {_CLASSES}; else {SEVERAL}"


def _must_be_empty(mask: Picture, reading: Reading) -> None:
    """Refuse a mask of a dark value, which would count as a picture without the class."""
    try:
        areas = _areas_in_words(label_map(mask, Labels("map"), reading))
    except ValueError:
        return
    areas.pop(_background(areas), None)
    if areas:
        raise ValueError(
            f"has {_some(list(areas))} and no foreground (from 128, or 1 beside 0); {_CLASSES}; else save "
            "it with 255 for foreground"
        )


def _areas_in_words(values: np.ndarray) -> dict[str, np.ndarray]:
    """`areas_of` by what is shown of a value or a colour."""
    values = values[..., 0] if values.ndim == 3 and is_grey(values) else values
    return {shown(key): area for key, area in areas_of(values)}


def _background(areas: dict[str, np.ndarray]) -> str:
    return shown((0, 0, 0)) if shown((0, 0, 0)) in areas else shown(0)


def _some(keys: list[str]) -> str:
    listed = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    return f"the {'colours' if keys[0].startswith('#') else 'values'} {listed}"


def areas_of(values: np.ndarray) -> list[tuple[Key, np.ndarray]]:
    """Each value of (H, W), or colour of (H, W, 3), with its pixels, (H, W) bool."""
    if values.ndim == 2:
        return [(int(value), values == value) for value in np.flatnonzero(np.bincount(values.ravel()))]
    codes = values @ np.array([1 << 16, 1 << 8, 1])
    return [
        ((int(code) >> 16, int(code) >> 8 & 255, int(code) & 255), codes == code)
        for code in np.unique(codes)
    ]


def _names(names: Any) -> dict[Key, str]:
    """Names by value or colour, checked, without background."""
    if names is None:
        return {}
    if not isinstance(names, Mapping) or not names:
        raise CdfssError(f"names is {names!r}; expected names by value, such as {{1: 'road', 2: 'water'}}")
    kept: dict[Key, str] = {}
    for key, name in names.items():
        key = tuple(map(int, key)) if isinstance(key, tuple) else key
        if not (_is_colour(key) or _is_value(key)):
            raise CdfssError(
                f"names: {key!r} is no value from 1 to 255 and no colour such as (255, 0, 0); expected one "
                "of these before a name"
            )
        if not isinstance(name, str) or not name.strip():
            raise CdfssError(f"names: {shown(key)} is called {name!r}; expected a word")
        if key in (0, (0, 0)):
            if name.strip().casefold() not in BACKGROUND:
                raise CdfssError(
                    f"names: {shown(key)} is background in label maps, and is called {name!r}; a "
                    "class needs another value or colour"
                )
        elif name.strip() in kept.values():
            raise CdfssError(
                f"names: {name!r} stands for several values; give each class a name of its own"
            )
        else:
            kept[key if isinstance(key, tuple) else int(key)] = name.strip()
    if len({_is_colour(key) for key in kept}) > 1:
        raise CdfssError("names: some are of values and some of colours; expected one or the other")
    return kept


def _is_colour(key: Any) -> bool:
    return isinstance(key, tuple) and len(key) == 3 and all(0 <= int(part) <= 255 for part in key)


def _is_value(key: Any) -> bool:
    return isinstance(key, int | np.integer) and not isinstance(key, bool) and 0 <= int(key) <= 255


def shown(key: object) -> str:
    """A value as it is, a colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*key) if isinstance(key, tuple) else str(key)
