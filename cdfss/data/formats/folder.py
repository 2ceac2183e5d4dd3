"""A user's own domain: one class a folder, with images/ and masks/ in it.

Layout: `<class>/images/<name>.*` with `<class>/masks/<name>.*`, or images/ and masks/ directly in
the root for a single class. A mask may also be called `<name>_mask.*` or the like. It is a picture
whose grey values of 128 and above are foreground; masks that hold only the values 0 and 1 are taken as
such. `cdfss.data.pictures` says what else a mask may be.
"""

from pathlib import Path

from cdfss.data.listing import (
    IMAGE_SUFFIXES,
    Listing,
    Pair,
    Problem,
    contents,
    match_masks,
    permitted,
    pictures_in,
    stem_of_mask,
)
from cdfss.errors import CdfssError

INSIDE = ("images", "masks")


@permitted()
def list_pairs(root: Path, settings: dict) -> Listing:
    """Classes in order of name, images as strings in order."""
    listing = Listing()
    folders, files = contents(root, listing, root)
    if any(path.name in INSIDE for path in folders):
        # Named as the data set is, so that a copy of the folder is the same class.
        _list_class(root, folders, files, (0, settings["name"]), listing, root)
        return listing
    for path in files:
        listing.problems.append(Problem(path.relative_to(root), "is not a class folder"))
    if not folders:
        raise CdfssError(f"{root}: expected images/ and masks/ here, or a folder with both for every class")
    for number, folder in enumerate(folders):
        _list_class(folder, *contents(folder, listing, root), (number, folder.name), listing, root)
    return listing


def _list_class(
    folder: Path,
    folders: list[Path],
    files: list[Path],
    of_class: tuple[int, str],
    listing: Listing,
    root: Path,
) -> None:
    """Add the pairs of a class folder that holds `folders` and `files`, and what is wrong with it.

    Args:
        of_class: number and name of the class.
    """

    def report(path, what):
        listing.problems.append(Problem(path.relative_to(root), what))

    there = [path.name for path in folders]
    missing = [name for name in INSIDE if name not in there]
    if len(missing) == 2:
        found = f"holds {', '.join(there)}" if there else "holds no folder"
        report(folder, f"{found}; expected images/ and masks/ in a class folder. Rename, or remove it")
        return
    for name in missing:
        report(folder / name, "folder is missing")
    aside = [path for path in folders if path.name not in INSIDE]
    aside += [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    for path in aside:
        report(
            path,
            "lies beside images/ and masks/ and would not be read; where there are several classes, give "
            "each a folder with images/ and masks/ in it, else move this away",
        )
    if missing:
        return
    images = pictures_in(folder / "images", listing, root, subfolders_are_wrong=True)
    masks = pictures_in(folder / "masks", listing, root, subfolders_are_wrong=True)
    for image, mask in match_masks(images, masks, listing, root, stem_of_mask(images)):
        listing.pairs.append(Pair(image.relative_to(root), mask.relative_to(root), *of_class))
