"""A user's own domain: one class a folder, with images/ and masks/ in it.

Layout: `<class>/images/<name>.*` with `<class>/masks/<name>.*`, or images/ and masks/ directly in
the root for a single class. A mask is a picture whose grey values of 128 and above are foreground;
masks that hold only the values 0 and 1 are taken as such.
"""

from pathlib import Path

from cdfss.datasets.listing import Listing, Pair, Problem, match_masks, pictures_in
from cdfss.errors import CdfssError


def list_pairs(root: Path, settings: dict) -> Listing:
    """Classes in order of name, images as strings in order."""
    listing = Listing()
    if (root / "images").is_dir():
        classes = [root]
    else:
        classes = [path for path in sorted(root.iterdir(), key=str) if path.is_dir()]
        for path in sorted(root.iterdir(), key=str):
            if path.is_file():
                listing.problems.append(Problem(path.relative_to(root), "is not a class folder"))
    if not classes:
        raise CdfssError(f"{root}: expected images/ and masks/ here, or a folder with both for every class")
    for class_id, folder in enumerate(classes):
        missing = [name for name in ("images", "masks") if not (folder / name).is_dir()]
        for name in missing:
            listing.problems.append(Problem((folder / name).relative_to(root), "folder is missing"))
        if missing:
            continue
        images = pictures_in(folder / "images", listing, root)
        masks = {path.stem: path for path in pictures_in(folder / "masks", listing, root)}
        for image, mask in match_masks(images, masks, listing, root):
            listing.pairs.append(
                Pair(image.relative_to(root), mask.relative_to(root), class_id, folder.name)
            )
    return listing
