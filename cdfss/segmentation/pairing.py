"""Which mask belongs to which picture, in every way that a person has them: nothing is opened here."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cdfss.data.formats import folder as folders_of_classes
from cdfss.data.listing import (
    IMAGE_SUFFIXES,
    MASK_ENDINGS,
    Listing,
    Problem,
    contents,
    is_left_behind,
    is_utf8,
    match_masks,
    permitted,
    pictures_in,
    stem_of_mask,
)
from cdfss.errors import CdfssError

Paths = str | os.PathLike | Sequence[str | os.PathLike]

RECORD = "made.jsonl"  # what a run writes of each picture; masks lie beside it
LOSSY = {".jpg", ".jpeg", ".webp"}  # what pictures are saved as, and masks are not
LAYOUT = (
    "images/ and masks/ with the same names, a folder with both for every class, or pictures beside their "
    "masks (a.jpg with a.png or a_mask.png)"
)


@dataclass(frozen=True)
class Labelled:
    """A picture with its mask.

    Attributes:
        class_name: of the folder that both lie in; None where the masks alone tell classes.
    """

    image: Path
    mask: Path
    class_name: str | None = None


@dataclass
class Found:
    """Pairs in order of class, then of their paths as strings, and files that cannot be used.

    Attributes:
        place: what was looked through, for messages.
    """

    place: str
    pairs: list[Labelled] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def take(self, listing: Listing, root: Path) -> None:
        """Problems of a listing whose paths are relative to `root`."""
        self.problems += [Problem(root / problem.path, problem.what) for problem in listing.problems]


@permitted()
def find(supports: Paths, masks: Paths | None = None) -> Found:
    """Pairs of picture and mask.

    Args:
        supports: a folder, files or globs of pictures; with their masks among them if `masks` is None.
            Several folders are classes then.
        masks: a folder, files or globs.

    Raises:
        CdfssError: when there is no such path, or nothing in it that could be a pair.
    """
    place = _shown(supports) if masks is None else f"{_shown(supports)} with {_shown(masks)}"
    found = Found(place)
    if masks is not None:
        images, drawn = (
            _files(given, found, what) for given, what in ((supports, "picture"), (masks, "mask"))
        )
        found.pairs = _matched(images, drawn, found)
    elif folders := _all_folders(supports):
        _in_folders(folders, found)
    else:
        found.pairs = _beside(_files(supports, found, "picture"), found)
    if not found.pairs and not found.problems:
        raise CdfssError(f"{place}: holds no pictures ({_suffixes()}); expected {LAYOUT}")
    return found


def files(given: Paths, what: str = "picture") -> list[Path]:
    """Pictures that paths, folders and globs name, each once, in order; sub-folders are looked through.

    In a folder, files of other kinds are passed over, masks/ beside images/, and folders that hold masks of
    an earlier run.

    Raises:
        CdfssError: names a path or a glob that leads to nothing, and a name that is no text.
    """
    chosen: dict[Path, Path] = {}
    for path in _expanded(given, what):
        if path.is_dir():
            inside = (Path(at) / name for at, _, names in _walk(path) for name in sorted(names))
            new = [file for file in inside if _is_picture(file)]
            if not new:
                raise CdfssError(
                    f"{path}: holds no pictures ({_suffixes()}); give the folder that holds them"
                )
        else:
            new = [path]
        for file in new:
            if not is_utf8(str(file)):
                raise CdfssError(str(Problem(file, "its name is not UTF-8; rename it")))
            chosen.setdefault(file.resolve(), file)
    return list(chosen.values())


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Like os.walk, in order of names, without what systems leave behind, masks beside images, and masks of
    earlier runs."""
    for at, inner, names in os.walk(root):
        if RECORD in names and at != str(root):
            inner.clear()
            continue
        beside = {"masks"} if "images" in inner else set()
        inner[:] = sorted(name for name in inner if name not in beside and not is_left_behind(name))
        yield at, inner, names


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_left_behind(path.name)


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _listed(given: Paths) -> list[str]:
    return (
        [os.fspath(given)] if isinstance(given, str | os.PathLike) else [os.fspath(each) for each in given]
    )


def _shown(given: Paths) -> str:
    names = _listed(given)
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _expanded(given: Paths, what: str) -> list[Path]:
    """Paths as they are, and what globs stand for."""
    paths = []
    for name in _listed(given):
        if not name:
            raise CdfssError(f"an empty name was given for a {what}; expected a folder, a file or a glob")
        if os.path.exists(name):
            paths.append(Path(name))
        elif glob.has_magic(name):
            matching = sorted(Path(path) for path in glob.glob(name, recursive=True))
            matching = [path for path in matching if path.is_dir() or _is_picture(path)]
            if not matching:
                raise CdfssError(
                    f"{name}: matches no {what}; check the folder and the ending (their case too)"
                )
            paths += matching
        else:
            raise CdfssError(f"{name}: there is no such file or folder{_nearest_there(Path(name))}")
    if not paths:
        raise CdfssError(f"no {what} was given; expected a folder, a file or a glob")
    return paths


def _nearest_there(path: Path) -> str:
    """What the nearest folder that exists holds, for a message on a path that does not."""
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    names = sorted(entry.name for entry in there.iterdir() if not is_left_behind(entry.name))
    holds = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"; {there} holds {holds or 'nothing'}"


def _all_folders(given: Paths) -> list[Path]:
    """The paths, if all of them are folders."""
    paths = _expanded(given, "picture")
    return paths if all(path.is_dir() for path in paths) else []


def _files(given: Paths, found: Found, what: str) -> list[Path]:
    """Files that are named, and those in folders that are, but not in folders below."""
    chosen: dict[Path, Path] = {}
    for path in _expanded(given, what):
        for file in _pictures(path, found) if path.is_dir() else [path]:
            chosen.setdefault(file.resolve(), file)
    return list(chosen.values())


def _pictures(folder: Path, found: Found) -> list[Path]:
    listing = Listing()
    pictures = pictures_in(folder, listing, folder, subfolders_are_wrong=True)
    found.take(listing, folder)
    return pictures


def _matched(images: list[Path], masks: list[Path], found: Found) -> list[Labelled]:
    """Pairs by stem; a single picture and a single mask belong together whatever their names."""
    if len(images) == len(masks) == 1:
        pairs = [(images[0], masks[0])]
    else:
        listing = Listing()
        images, masks = ([path.absolute() for path in paths] for paths in (images, masks))
        pairs = match_masks(images, masks, listing, Path("/"), stem_of_mask(images))
        found.take(listing, Path("/"))
    return [Labelled(image, mask) for image, mask in pairs]


def _in_folders(paths: list[Path], found: Found) -> None:
    """Pairs of one folder; several are classes, as those that a shell makes of labelled/* are."""
    parents = {path.parent for path in paths}
    if len(parents) == 1 and {path.name for path in paths} == set(folders_of_classes.INSIDE):
        _in_folder(parents.pop(), found)
    elif len(paths) == 1:
        _in_folder(paths[0], found)
    else:
        for path in paths:
            first = len(found.pairs)
            _in_folder(path, found)
            for number, pair in enumerate(found.pairs[first:], first):
                found.pairs[number] = replace(pair, class_name=pair.class_name or path.name)


def _in_folder(root: Path, found: Found) -> None:
    """Pairs of a folder in one of the layouts of LAYOUT."""
    listing = Listing()
    inner, pictures = contents(root, listing, root)
    inside = {path.name for path in inner}
    if not inside & set(folders_of_classes.INSIDE):
        if any(_is_picture(path) for path in pictures):
            found.pairs += _beside(_pictures(root, found), found)
            return
        if not inner:
            raise CdfssError(f"{root}: holds no pictures ({_suffixes()}); expected {LAYOUT}")
        if not any((path / name).is_dir() for path in inner for name in folders_of_classes.INSIDE):
            found.take(listing, root)
            for path in inner:
                beside = _pictures(path, found)
                if not beside:
                    found.problems.append(Problem(path, f"is a folder without pictures; expected {LAYOUT}"))
                found.pairs += _beside(beside, found, path.name)
            return
    listing = folders_of_classes.list_pairs(root, {"name": root.name})
    several = not inside & set(folders_of_classes.INSIDE)
    for pair in listing.pairs:
        found.pairs.append(
            Labelled(root / pair.image, root / pair.mask, pair.class_name if several else None)
        )
    found.take(listing, root)


def _beside(paths: list[Path], found: Found, class_name: str | None = None) -> list[Labelled]:
    """Pairs of pictures and masks that lie together: a.jpg with a.png, a_mask.png or the like."""
    stems = {(path.parent, path.stem) for path in paths}
    images_of: dict[tuple[Path, str], list[Path]] = {}  # by folder and stem
    masks_of: dict[tuple[Path, str], list[Path]] = {}  # of those that are called as masks are
    for path in paths:
        whose = [(path.parent, stem) for stem in _shorter(path.stem) if (path.parent, stem) in stems]
        if whose:
            masks_of.setdefault(whose[0], []).append(path)
        else:
            images_of.setdefault((path.parent, path.stem), []).append(path)
    pairs = []
    for (parent, stem), images in images_of.items():
        masks = masks_of.pop((parent, stem), [])
        if not masks and len(images) == 2:
            images, masks = _told_by_ending(images)
        if len(images) == len(masks) == 1:
            pairs.append(Labelled(images[0], masks[0], class_name))
        elif len(images) > 1 or len(masks) > 1:
            names = ", ".join(path.name for path in [*images, *masks])
            what = (
                f"{names}: which is picture and which mask is not clear; keep {stem}_mask.png for the mask"
            )
            found.problems.append(Problem(images[0], what))
        elif _shorter(stem):
            what = f"mask without an image; expected {_shorter(stem)[0]}.jpg or the like beside it"
            found.problems.append(Problem(images[0], what))
        else:
            what = f"image without a mask; expected {stem}.png (of a .jpg) or {stem}_mask.png beside it"
            found.problems.append(Problem(images[0], what))
    for masks in masks_of.values():  # of what is called as a mask is itself, such as a_mask_mask.png
        found.problems += [
            Problem(path, "mask without an image; rename it, or remove it") for path in masks
        ]
    return pairs


def _told_by_ending(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Picture and mask of two files of a stem: pictures are lossy, masks PNG; else both may be pictures."""
    lossy = [path for path in paths if path.suffix.lower() in LOSSY]
    others = [path for path in paths if path.suffix.lower() != ".png"]
    images = lossy if len(lossy) == 1 else others
    if len(images) != 1:
        return paths, []
    return images, [path for path in paths if path not in images]


def _shorter(stem: str) -> list[str]:
    """Stems of pictures that a mask of this stem could belong to, but its own."""
    return [stem.removesuffix(ending) for ending in MASK_ENDINGS if stem.endswith(ending)]
