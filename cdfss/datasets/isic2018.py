"""ISIC 2018 task 1: dermoscopic lesions in three classes.

Layouts: PATNet's, with the images in folders 1, 2, 3 (taken as classes 0, 1, 2), or the
challenge's flat folder with `class_id.csv` (ID, Class) and the order of `class_order`. Masks are
`ISIC2018_Task1_Training_GroundTruth/<id>_segmentation.png` in both.
"""

import csv
from pathlib import Path

from cdfss.datasets.listing import Listing, Pair, Problem, base_of, match_masks, pictures_in
from cdfss.errors import CdfssError

IMAGES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"


def list_pairs(root: Path, settings: dict) -> Listing:
    """Images of each class as strings in order, class ids 0..2."""
    listing = Listing()
    base = base_of(root, (IMAGES, MASKS), ("ISIC", "isic"))
    order = [str(name) for name in settings["class_order"]]
    folders = [base / IMAGES / number for number in "123"]
    if all(folder.is_dir() for folder in folders):
        images = [pictures_in(folder, listing, root) for folder in folders]
    else:
        images = _by_table(base, root, order, listing)
    masks = {
        path.stem.removesuffix("_segmentation"): path
        for path in _pictures_but_notes(base / MASKS, listing, root)
    }
    every = [image for of_class in images for image in of_class]
    mask_of = dict(match_masks(every, masks, listing, root))
    for class_id, of_class in enumerate(images):
        for image in of_class:
            if image in mask_of:
                listing.pairs.append(
                    Pair(
                        image.relative_to(root),
                        mask_of[image].relative_to(root),
                        class_id,
                        order[class_id],
                    )
                )
    return listing


def _pictures_but_notes(folder: Path, listing: Listing, root: Path) -> list[Path]:
    """Pictures; the two notes that the official archives carry are no problem."""
    found = pictures_in(folder, listing, root)
    notes = {"ATTRIBUTION.txt", "LICENSE.txt"}
    listing.problems = [p for p in listing.problems if p.path.name not in notes]
    return found


def _by_table(base: Path, root: Path, order: list[str], listing: Listing) -> list[list[Path]]:
    table = base / "class_id.csv"
    if not table.is_file():
        raise CdfssError(
            f"{base}: expected class_id.csv beside {IMAGES}, or the images in folders 1, 2, 3; "
            "docs/data.md says where the table is published"
        )
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"ID", "Class"} <= set(rows[0]):
        raise CdfssError(f"{table}: expected columns ID and Class")
    class_of = {row["ID"]: row["Class"].strip().replace(" ", "_") for row in rows}
    images = [[] for _ in order]
    for image in _pictures_but_notes(base / IMAGES, listing, root):
        diagnosis = class_of.pop(image.stem, None)
        if diagnosis is None:
            listing.problems.append(Problem(image.relative_to(root), f"is not in {table.name}"))
        elif diagnosis not in order:
            listing.problems.append(
                Problem(image.relative_to(root), f"class {diagnosis!r} is none of {', '.join(order)}")
            )
        else:
            images[order.index(diagnosis)].append(image)
    for name in class_of:
        listing.problems.append(
            Problem((base / IMAGES / name).relative_to(root), f"is in {table.name} but missing")
        )
    return images
