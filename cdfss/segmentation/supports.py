"""Labelled pictures by class, whatever way a person's masks are written."""

import colorsys
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cdfss.data.listing import Problem
from cdfss.data.pictures import Reading, opened
from cdfss.errors import CdfssError
from cdfss.segmentation import pairing
from cdfss.segmentation.labels import (
    MOST_CLASSES,
    Colour,
    Key,
    Labels,
    areas_of,
    binary,
    is_grey,
    label_map,
    labels_of,
    shown,
)
from cdfss.segmentation.sources import Picture, decoded, each, name_of, own_reading, source_of, title_of

FOREGROUND = "foreground"  # a class that nobody has named
SHOWN = 10  # problems in a message
# Okabe and Ito's, told apart with any colour vision, and bright enough on grey pictures.
COLOURS = (
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
)


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
        value_range: values of black and white with which pictures of more than 8 bits were read.
    """

    classes: dict[str, list[Support]]
    values: dict[str, int]
    colours: dict[str, Colour]
    complete: bool
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Query:
    """A picture to segment.

    Attributes:
        name: of its outputs, unique among the queries.
        path: of its file.
    """

    name: str
    path: Path


def read(
    supports: pairing.Paths,
    masks: pairing.Paths | None = None,
    *,
    labels: Literal["binary", "map"] | None = None,
    unknown: Key | None = None,
    names: Mapping[Key, str] | None = None,
    value_range: tuple[float, float] | None = None,
) -> Supports:
    """Labelled pictures from files.

    Args:
        supports: a folder with images/ and masks/ (for every class a folder with both), or with pictures
            beside their masks; several folders, of a class each; or files or globs of pictures.
        masks: folder, files or globs of masks, paired with pictures by name.
        labels: "binary" for masks of one foreground, "map" for label maps with a value or a colour for
            each class; None takes masks as binary, unless `names` holds several classes.
        unknown: value (or colour) of pixels of which nothing is said, such as 255.
        names: of classes by their value (1 to 255) or colour in label maps.
        value_range: values of black and white in pictures of more than 8 bits.

    Raises:
        CdfssError: lists every file that cannot be used, with what to do.
    """
    meaning, reading = labels_of(labels, names, unknown), own_reading(value_range)
    found = pairing.find(supports, masks)
    if found.problems:
        raise CdfssError(listed(found.place, found.problems))
    return _read(found.place, of_pairs(found), meaning, reading)


def of_arrays(
    pictures: Picture | Sequence[Picture],
    masks: Picture | Sequence[Picture] | Mapping[str, Picture | Sequence[Picture]],
    names: Mapping[Key, str] | None = None,
    unknown: Key | None = None,
    value_range: tuple[float, float] | None = None,
) -> Supports:
    """Labelled pictures from arrays, paths or Pillow's images.

    Args:
        pictures: one or several, each (H, W, 3) or (H, W) uint8; uint16; or float from 0 to 1.
        masks: one for each picture: (H, W) bool, 0 and 1, 0 and 255, or an integer label map; or by name
            of class such masks of one foreground, with None where a picture is not labelled for it.
        names: of classes by their value in label maps; arrays of small whole numbers need none.
        unknown: value of pixels of which nothing is said.
        value_range: values of black and white in pictures of more than 8 bits.

    Raises:
        CdfssError: says which picture or mask cannot be used, and what to do.
    """
    pictures = each(pictures)
    of_class = dict(masks) if isinstance(masks, Mapping) else {None: masks}
    if not pictures:
        raise CdfssError("images is empty; expected at least one labelled picture")
    if not of_class:
        raise CdfssError("masks is empty; expected masks for at least one class")
    given_items = []
    for name, given in of_class.items():
        given = each(given)
        if len(given) != len(pictures):
            whose = "" if name is None else f" of class {name!r}"
            raise CdfssError(
                f"{len(pictures)} images and {len(given)} masks{whose}; expected a mask for each image, in "
                "the same order"
            )
        for number, (picture, mask) in enumerate(zip(pictures, given)):
            if mask is not None:
                given_items.append((name_of(picture, number), picture, mask, name))
    maps = None in of_class and names is None and any(_holds_classes(mask) for _, _, mask, _ in given_items)
    meaning = labels_of("map" if maps else None, names, unknown)
    return _read("images and masks", given_items, meaning, own_reading(value_range))


def _holds_classes(mask: Picture) -> bool:
    """Whether an array is a label map: whole numbers of which several, small ones, are not 0."""
    values = mask if isinstance(mask, np.ndarray) else np.zeros(1)
    if values.dtype.kind not in "iu" or values.ndim != 2:
        return False
    found = np.setdiff1d(values, [0])
    return len(found) > 1 and found[0] > 0 and np.setdiff1d(found, [255])[-1] <= MOST_CLASSES


def queries(paths: pairing.Paths, leave_out: str | os.PathLike | None = None) -> list[Query]:
    """Pictures to segment: those of folders and the folders in them, files, or globs.

    A query is called as its file without the ending. Where several are called the same, their folder stands
    in front, or the ending behind.

    Args:
        leave_out: a folder whose pictures are no queries, where outputs of an earlier run lie.

    Raises:
        CdfssError: when there are none, or two cannot be told apart.
    """
    found = pairing.files(paths)
    if leave_out is not None:
        away = Path(leave_out).resolve()
        found = [path for path in found if away not in path.resolve().parents]
        if not found:
            raise CdfssError(
                f"{leave_out}: is where all of the pictures lie, and where masks are to be written; choose "
                "another folder for these"
            )
    names = {path: path.stem for path in found}
    for folders, ending in ((1, False), (0, True), (1, True), (2, True), (3, True), (4, True)):
        times = Counter(name.casefold() for name in names.values())
        same = [path for path, name in names.items() if times[name.casefold()] > 1]
        names |= {path: _told_apart(path, folders, ending) for path in same}
    times = Counter(name.casefold() for name in names.values())
    for path, name in names.items():
        if times[name.casefold()] > 1:
            raise CdfssError(
                f"{path}: several pictures would be written as {name!r}; rename it, or segment it in a run "
                "of its own"
            )
    return [Query(name, path) for path, name in names.items()]


def _told_apart(path: Path, folders: int, ending: bool) -> str:
    """The stem of a file with the names of folders above it in front, and its ending behind."""
    above = path.absolute().parts[-1 - folders : -1]
    return "_".join([*above, path.stem, *([path.suffix[1:]] if ending else [])])


def read_query(query: Query | Picture, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """(H, W, 3) uint8, upright, at its own size.

    Raises:
        CdfssError: says in one line what is wrong with the picture.
    """
    source = query.path if isinstance(query, Query) else query
    try:
        return decoded(source, own_reading(value_range))
    except ValueError as error:
        raise CdfssError(f"{title_of(source)}: {error}") from error


def listed(place: str, problems: Iterable[Problem]) -> str:
    """A message of all problems, one a line; files that have the same one stand together."""
    files: dict[str, list[str]] = {}
    for problem in problems:
        files.setdefault(problem.what, []).append(str(problem).removesuffix(f": {problem.what}"))
    lines = []
    for what, paths in files.items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        lines.append(f"{', '.join(paths[:3])}{more}: {what}")
    if len(lines) == 1:
        return lines[0]
    number = sum(map(len, files.values()))
    more = f"\n  and {len(lines) - SHOWN} more; see them with: cdfss check" if len(lines) > SHOWN else ""
    return (
        f"{place}: {number} files cannot be used" + "".join(f"\n  {line}" for line in lines[:SHOWN]) + more
    )


@dataclass(frozen=True)
class Item:
    """A decoded pair.

    Attributes:
        name: of the picture.
        class_name: None where masks tell classes, or there is one.
        title: of the mask, for messages.
        source: path, array or image of the picture, and of the mask.
        picture: (H, W, 3) uint8.
        mask: (H, W) bool; or a label map of values (H, W) or of colours (H, W, 3), uint8.
        unknown: (H, W) bool, of binary masks.
    """

    name: str
    class_name: str | None
    title: str
    source: tuple[Picture, Picture]
    picture: np.ndarray
    mask: np.ndarray
    unknown: np.ndarray | None = None


Given = tuple[str, Picture, Picture, str | None]  # name, picture, mask, class


def of_pairs(found: pairing.Found) -> list[Given]:
    """Pairs of files, to decode."""
    return [(pair.image.stem, pair.image, pair.mask, pair.class_name) for pair in found.pairs]


def _named_apart(given: list[Given]) -> list[Given]:
    """Different pictures of a class under different names: their folder in front, or a number behind.

    Names tell pictures apart where one is left out to be predicted from the others.
    """
    named: list[Given] = []
    taken: set[tuple[str | None, str]] = set()
    for name, picture, mask, class_name in given:
        ways = [name]
        if isinstance(picture, str | os.PathLike):
            ways += [_told_apart(Path(picture), folders, True) for folders in (1, 2, 3, 4)]
        ways += [f"{name} ({number})" for number in range(2, len(given) + 2)]
        name = next(way for way in ways if (class_name, way) not in taken)
        taken.add((class_name, name))
        named.append((name, picture, mask, class_name))
    return named


def decode(given: list[Given], meaning: Labels, reading: Reading) -> tuple[list[Item], list[Problem]]:
    """Pictures and masks that can be used, and what is wrong with others."""
    given, problems = _named_apart(given), []
    pictures: dict = {}  # of a picture in several classes there is one array
    items = []
    for name, picture, mask, class_name in given:
        key = picture if isinstance(picture, str | os.PathLike) else id(picture)
        title = title_of(picture, name)
        try:
            if key not in pictures:
                pictures[key] = decoded(picture, reading)
            title, unknown = title_of(mask, f"mask of {name}"), None
            if meaning.kind == "map":
                values = label_map(mask, meaning, reading)
            else:
                values, unknown = binary(mask, meaning, reading)
            _must_fit(pictures[key], values)
        except ValueError as error:
            problems.append(Problem(Path(title), str(error)))
            continue
        items.append(Item(name, class_name, title, (picture, mask), pictures[key], values, unknown))
    return items, problems


def by_class(place: str, items: list[Item], meaning: Labels) -> Supports:
    """Items as supports of each class.

    Raises:
        CdfssError: when a class shows nothing, or what values mean is not clear.
    """
    if (meaning.kind == "map" or meaning.names) and any(item.class_name is not None for item in items):
        raise CdfssError(
            f"{place}: every class has masks of its own here, and names or labels='map' (--labels map) are "
            "for masks that hold several; leave them out, or put all masks into one folder"
        )
    found = (_of_label_maps if meaning.kind == "map" else _of_binary)(place, items, meaning)
    if len(found.classes) > 255:
        raise CdfssError(f"{place}: has {len(found.classes)} classes; a label map holds 255 at most")
    return found


def _read(place: str, given: list[Given], meaning: Labels, reading: Reading) -> Supports:
    items, problems = decode(given, meaning, reading)
    if problems:
        raise CdfssError(listed(place, problems))
    return replace(by_class(place, items, meaning), value_range=reading.value_range)


def _of_binary(place: str, items: list[Item], meaning: Labels) -> Supports:
    unnamed = next(iter(meaning.names.values()), FOREGROUND)
    classes: dict[str, list[Support]] = {}
    for item in items:
        name = unnamed if item.class_name is None else str(item.class_name)
        support = Support(item.name, item.picture, item.mask, item.unknown)
        classes.setdefault(name, []).append(support)
    complete = len(classes) == 1
    for name, supports in classes.items():
        _must_show(place, name, supports)
        empty = [] if complete else [support.name for support in supports if not support.mask.any()]
        if empty:
            raise CdfssError(
                f"{place}: masks of class {name!r} are without foreground: {', '.join(empty[:5])}; draw "
                "them, or remove the pairs"
            )
    values = {name: number for number, name in enumerate(classes, 1)}
    return Supports(classes, values, _colours(list(classes)), complete)


def _of_label_maps(place: str, items: list[Item], meaning: Labels) -> Supports:
    """Supports of all classes from label maps: of colours if one of them has any, else of values."""
    in_colours = meaning.by_colour or not all(is_grey(item.mask) for item in items)
    found: dict[Key | None, dict[int, np.ndarray]] = {}  # (H, W) bool, then by number of the item
    for number, item in enumerate(items):
        for key, area in areas_of(_in_one_way(item, in_colours)):
            found.setdefault(key, {})[number] = area
    unknown = found.pop(meaning.unknown, {})
    found.pop((0, 0, 0) if in_colours else 0, None)
    keys: list = list(meaning.names) or sorted(found)
    _must_be_classes(found, keys, items, meaning)
    if not keys:
        raise CdfssError(f"{place}: the label maps hold nothing but background (0, black)")
    classes: dict[str, list[Support]] = {}
    for key in keys:
        name, areas = meaning.names.get(key, shown(key)), found.get(key, {})
        classes[name] = []
        for number, item in enumerate(items):
            mask = areas.get(number, np.zeros(item.picture.shape[:2], bool))
            classes[name].append(Support(item.name, item.picture, mask, unknown.get(number)))
        _must_show(place, name, classes[name], shown(key))
    values = {name: key for name, key in zip(classes, keys) if isinstance(key, int)}
    colours = {name: key for name, key in zip(classes, keys) if isinstance(key, tuple)}
    if in_colours:
        return Supports(classes, {name: number for number, name in enumerate(classes, 1)}, colours, True)
    return Supports(classes, values, _palette(items[0], values) or _colours(list(classes)), True)


def _in_one_way(item: Item, in_colours: bool) -> np.ndarray:
    """A label map as colours (H, W, 3), or as values (H, W)."""
    if not in_colours:
        return item.mask if item.mask.ndim == 2 else np.ascontiguousarray(item.mask[..., 0])
    if item.mask.ndim == 3:
        return item.mask
    if item.mask.any():
        raise CdfssError(
            f"{item.title}: holds class values in grey, and names or other masks are in colours; save all "
            "label maps in the same way"
        )
    return np.zeros(item.picture.shape, np.uint8)


def _must_be_classes(found: dict, keys: list, items: list[Item], meaning: Labels) -> None:
    """Refuse values that have no name where others have, and 255, which often is no class."""
    for key, areas in found.items():
        where = items[next(iter(areas))].title
        if key not in keys:
            raise CdfssError(
                f"{where}: has {shown(key)}, which is not among the names "
                f"({', '.join(map(shown, keys))}); name "
                f"it, or say unknown={shown(key)} (--unknown {shown(key)}) if it marks what nobody knows"
            )
        if key == 255 and not meaning.names:
            others = ", ".join(str(key) for key in keys if key != 255)
            advice = f"name the classes if it is one beside {others}" if others else "say labels='binary'"
            raise CdfssError(
                f"{where}: has the value 255; say unknown=255 (--unknown 255) if it marks what nobody "
                f"knows, or {advice}"
            )


def _must_fit(picture: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a mask of another size than its picture."""
    height, width = picture.shape[:2]
    if mask.shape[:2] == (height, width):
        return
    found = f"is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {width} x {height}"
    if mask.shape[:2] == (width, height):
        raise ValueError(
            f"{found}: one of the two is turned, perhaps because the camera says so in the picture "
            "(EXIF); turn the mask as the picture is seen"
        )
    raise ValueError(f"{found}; draw it on this picture, or bring it to the same size (nearest pixel)")


def _must_show(place: str, name: str, supports: list[Support], key: str | None = None) -> None:
    """Refuse a class whose masks are all empty, or full."""
    what = repr(name) if key in (None, name) else f"{name!r} ({key})"
    if not any(support.mask.any() for support in supports):
        raise CdfssError(
            f"{place}: none of {len(supports)} masks shows class {what}; check the masks (foreground is "
            "grey from 128, or 1 beside 0) and the names of classes"
        )
    if all(support.mask.all() for support in supports):
        raise CdfssError(
            f"{place}: masks of class {what} are nothing but foreground; background is needed too. Check "
            "the masks (white is foreground), or add a picture that shows something else"
        )


def _colours(names: Sequence[str]) -> dict[str, Colour]:
    """A colour for each class: those of COLOURS, then hues far from one another."""
    more = range(len(names) - len(COLOURS))
    hues = (colorsys.hsv_to_rgb((0.13 + 0.618034 * number) % 1, 0.75, 0.95) for number in more)
    made = [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues]
    return dict(zip(names, [*COLOURS, *made]))


def _palette(item: Item, values: dict[str, int]) -> dict[str, Colour]:
    """Colours of classes in the palette of a mask, if it has a colour of its own for each."""
    with opened(source_of(item.source[1], is_mask=True), own_reading()) as image:
        flat = image.getpalette("RGB") if image.mode == "P" else None
    if not flat or len(flat) < 3 * (max(values.values()) + 1):
        return {}
    palette = list(zip(flat[::3], flat[1::3], flat[2::3]))
    colours = {name: palette[value] for name, value in values.items()}
    distinct = len(set(colours.values())) == len(colours)
    return colours if distinct and all(len(set(colour)) > 1 for colour in colours.values()) else {}
