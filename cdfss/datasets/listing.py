"""What a reader finds in a raw data set: pairs of image and mask, and what is wrong.

A reader is a function `list_pairs(root, settings) -> Listing`. It looks at names and lists only;
`cdfss.datasets.index` then opens every picture. Readers never drop anything in silence.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cdfss.errors import CdfssError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Pair:
    """One (image, class) with its mask; paths are relative to the data set's root.

    Attributes:
        mask_value: class value in an index mask; None for a binary mask.
        class_id: from 0, unique in the data set.
    """

    image: Path
    mask: Path
    class_id: int
    class_name: str
    split: str = "test"
    mask_value: int | None = None


@dataclass(frozen=True)
class Problem:
    """A file, or the lack of one, that cannot be used."""

    path: Path
    what: str

    def __str__(self):
        return f"{self.path}: {self.what}"


@dataclass
class Listing:
    """Pairs in the protocol's order (classes in order, then paths as strings), and problems."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


def base_of(root: Path, required: tuple[str, ...], inside: tuple[str, ...]) -> Path:
    """The folder at or below `root` that holds all `required` entries.

    Args:
        inside: folder names under which an archive or a PATNet tree may hold the data set.

    Raises:
        CdfssError: says where it looked and what it expected.
    """
    for candidate in (root, *(root / name for name in inside)):
        if all((candidate / name).exists() for name in required):
            return candidate
    raise CdfssError(
        f"{root}: expected {' and '.join(required)} here"
        + (f" or in {', '.join(inside)}" if inside else "")
        + "; check data.<name>.root (docs/data.md shows the layout)"
    )


def pictures_in(folder: Path, listing: Listing, root: Path) -> list[Path]:
    """Image files of a folder, sorted as strings; anything else is a problem of the listing."""
    found = []
    for path in sorted(folder.iterdir(), key=str):
        if path.is_dir():
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            listing.problems.append(Problem(path.relative_to(root), "is not a picture"))
    return found


def match_masks(
    images: list[Path], masks: dict[str, Path], listing: Listing, root: Path
) -> list[tuple[Path, Path]]:
    """Pair images with masks by key; lone images and lone masks become problems.

    Args:
        masks: by the stem of the image that they belong to.
    """
    pairs = []
    left = dict(masks)
    for image in images:
        mask = left.pop(image.stem, None)
        if mask is None:
            listing.problems.append(Problem(image.relative_to(root), "image without a mask"))
        else:
            pairs.append((image, mask))
    for mask in left.values():
        listing.problems.append(Problem(mask.relative_to(root), "mask without an image"))
    return pairs


def split_folder(settings: dict, base: Path, required: str, places: tuple[str, ...]) -> Path:
    """The folder that holds a data set's split lists.

    Args:
        required: a file that must be in it.
        places: where to look, relative to `base`, when the setting is empty.

    Raises:
        CdfssError: says where it looked.
    """
    given = settings.get("splits")
    candidates = [Path(given)] if given else [base / place for place in places]
    for candidate in candidates:
        if (candidate / required).is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise CdfssError(
        f"data.{settings['name']}.splits: no {required} in {looked}; set it to the folder with the "
        "split lists (docs/data.md says where they are published)"
    )
