"""What a person should know of labelled pictures before a model sees them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from cdfss.data.listing import Problem
from cdfss.data.pictures import UPRIGHT, nearest, opened
from cdfss.errors import CdfssError
from cdfss.running.files import replacing
from cdfss.segmentation import SIZE, outputs, pairing
from cdfss.segmentation.labels import Key, labels_of
from cdfss.segmentation.sources import own_reading
from cdfss.segmentation.supports import Item, Supports, by_class, decode, of_pairs

PANEL, ACROSS = 320, 5  # pixels of a picture of the sheet, and pictures in a row
MOST_SHOWN = 60  # pictures of a sheet
FEW = 16  # pixels at the working size, below which an object is hardly seen


@dataclass
class Checked:
    """What was found.

    Attributes:
        place: what was looked through.
        problems: why the pictures cannot be used as they are.
        remarks: what is read, but may not be meant.
        supports: by class; None if there are problems.
        size: S, pixels, at which a model sees pictures.
    """

    place: str
    problems: list[Problem] = field(default_factory=list)
    remarks: list[Problem] = field(default_factory=list)
    supports: Supports | None = None
    size: int = SIZE

    def lines(self) -> list[str]:
        """All of it in words, a line each."""
        found = [f"{problem}" for problem in self.problems]
        found += [f"note: {remark}" for remark in self.remarks]
        if self.supports is not None:
            for name, of in self.supports.classes.items():
                shares = [support.mask.mean() for support in of]
                found.append(
                    f"class {name}: {len(of)} pictures, {100 * min(shares):.3g} to {100 * max(shares):.3g} "
                    "% of their pixels"
                )
        return found


def check(
    supports: pairing.Paths,
    masks: pairing.Paths | None = None,
    *,
    labels: Literal["binary", "map"] | None = None,
    unknown: Key | None = None,
    names: Mapping[Key, str] | None = None,
    value_range: tuple[float, float] | None = None,
    size: int = SIZE,
) -> Checked:
    """Look at labelled pictures as `supports.read` would read them, whose arguments these are.

    Args:
        size: S, pixels, at which a model sees pictures.

    Raises:
        CdfssError: when there is nothing to look at.
    """
    meaning, reading = labels_of(labels, names, unknown), own_reading(value_range)
    found = pairing.find(supports, masks)
    items, problems = decode(of_pairs(found), meaning, reading)
    checked = Checked(found.place, found.problems + problems, size=size)
    for item in items:
        checked.remarks += [Problem(Path(path), what) for path, what in _remarks(item)]
    checked.remarks += _same(items)
    if not checked.problems:
        try:
            checked.supports = by_class(found.place, items, meaning)
        except CdfssError as error:
            place, _, what = str(error).partition(": ")
            checked.problems.append(Problem(Path(place), what))
    if checked.supports is not None:
        for name, what in _at_size(checked.supports, size):
            checked.remarks.append(Problem(Path(name), what))
    return checked


def _remarks(item: Item) -> Iterator[tuple[str, str]]:
    """What the files of a pair are, where that is not what most are."""
    for path, is_mask in zip(item.source, (False, True)):
        with opened(str(path), own_reading()) as image:
            mode, kind, turn = image.mode, image.format, image.getexif().get(0x0112)
        if turn in UPRIGHT:
            yield str(path), f"is turned as its camera says (EXIF orientation {turn})"
        if not is_mask and (mode.startswith("I") or mode == "F"):
            low, high = item.picture.min(), item.picture.max()
            yield (
                str(path),
                f"has more than 8 bits; as 8 bits its values are {low} to {high}: value_range "
                "(--value-range) says what is black and white",
            )
        if is_mask and kind == "JPEG":
            yield str(path), "is a mask in a lossy file, whose edges are not exact; save masks as PNG"
    if item.mask.dtype == bool and not item.mask.any():
        yield item.title, "has no foreground: the picture counts as one without the class"
    if item.mask.dtype == bool and item.mask.all():
        yield item.title, "is nothing but foreground"


def _same(items: list[Item]) -> list[Problem]:
    """Pictures that are there twice in a class, and different pictures with one mask."""
    found: list[Problem] = []
    pictures: dict[tuple, Item] = {}
    masks: dict[tuple, Item] = {}
    for item in items:
        picture, mask = _hash(item.picture), _hash(item.mask)
        first = pictures.setdefault((item.class_name, picture), item)
        if first is not item:
            what = f"is the same picture as {first.source[0]}; it counts twice"
            found.append(Problem(Path(str(item.source[0])), what))
        first = masks.setdefault((item.class_name, mask), item)
        if (
            first is not item
            and item.mask.any()
            and not item.mask.all()
            and _hash(first.picture) != picture
        ):
            what = (
                f"is the same mask as {first.title}, of another picture; one of them may be the wrong file"
            )
            found.append(Problem(Path(item.title), what))
    return found


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def _at_size(supports: Supports, size: int) -> Iterator[tuple[str, str]]:
    """Objects that a model does not see, or hardly."""
    advice = f"at size {size}; take a larger --size, or --tile with less than the picture's side"
    for name, of in supports.classes.items():
        for support in of:
            objects, number = ndimage.label(support.mask)
            if not number:
                continue
            pixels = np.bincount(nearest(objects, size).ravel(), minlength=number + 1)[1:]
            gone = int((pixels == 0).sum())
            whose = f"of class {name} " if len(supports.classes) > 1 else ""
            if gone == number:
                yield support.name, f"the foreground {whose}vanishes {advice}"
            elif 2 * gone >= number:  # fewer are specks of drawing
                yield support.name, f"{gone} of {number} objects {whose}vanish {advice}"
            elif pixels.sum() < FEW:
                yield support.name, f"the foreground {whose}is {pixels.sum()} pixels {advice}"


def write_sheet(path: str | Path, checked: Checked) -> int:
    """A PNG of what a model sees: each picture at S x S, with its mask outlined, by class.

    Returns:
        How many pictures it shows, MOST_SHOWN at most.

    Raises:
        CdfssError: while there are problems.
    """
    if checked.supports is None:
        raise CdfssError(f"{checked.place}: has problems, without which it can be shown; mend these first")
    shown = [(name, support) for name, of in checked.supports.classes.items() for support in of][
        :MOST_SHOWN
    ]
    text = 22
    across = min(ACROSS, len(shown))
    rows = -(-len(shown) // across)
    sheet = Image.new("RGB", (across * (PANEL + 8) + 8, rows * (PANEL + text + 8) + 8), "white")
    for number, (name, support) in enumerate(shown):
        x, y = 8 + number % across * (PANEL + 8), 8 + number // across * (PANEL + text + 8)
        title = f"{support.name} ({name})" if len(checked.supports.classes) > 1 else support.name
        outputs.draw_text(sheet, (x, y), title, PANEL)
        colour = {name: checked.supports.colours[name]}
        sheet.paste(_panel(support, name, colour, checked.size), (x, y + text))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return len(shown)


def _panel(support, name: str, colours: dict, size: int) -> Image.Image:
    """A support as a model sees it, then at the size of a panel."""
    seen = Image.fromarray(support.picture).resize((size, size), Image.Resampling.BILINEAR)
    mask = nearest(support.mask, size).astype(np.uint8)
    drawn = outputs.overlay(np.array(seen), mask, {name: 1}, colours)
    return Image.fromarray(drawn).resize((PANEL, PANEL), Image.Resampling.LANCZOS)
