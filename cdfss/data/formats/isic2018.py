"""ISIC 2018 task 1: dermoscopic lesions in three classes.

Layouts: PATNet's, with the images in folders 1, 2, 3 (taken as classes 0, 1, 2), or the
challenge's flat folder with `class_id.csv` (ID, Class) and the order of `class_order`. Masks are
`ISIC2018_Task1_Training_GroundTruth/<id>_segmentation.png` in both.
"""

import csv
from pathlib import Path

from cdfss.data.listing import (
    Listing,
    Pair,
    Problem,
    base_of,
    match_masks,
    permitted,
    pictures_in,
    read_lines,
    stays_inside,
)
from cdfss.errors import CdfssError

IMAGES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"


@permitted()
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
    masks = _pictures_but_notes(base / MASKS, listing, root)
    every = [image for of_class in images for image in of_class]
    mask_of = dict(match_masks(every, masks, listing, root, _image_stem))
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


def _image_stem(mask: Path) -> str:
    return mask.stem.removesuffix("_segmentation")


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
            "docs/explanation/data.md says where the table is published"
        )
    class_of = _read_table(table)
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
        if stays_inside(name):
            problem = Problem((base / IMAGES / name).relative_to(root), f"is in {table.name} but missing")
        else:
            problem = Problem(table.relative_to(root), f"{name!r} is not the name of a picture")
        listing.problems.append(problem)
    return images


def _read_table(table: Path) -> dict[str, str]:
    """Diagnosis of every picture by its name.

    Raises:
        CdfssError: names the line.
    """
    lines = csv.DictReader(line + "\n" for line in read_lines(table))
    class_of = {}
    try:
        for row in lines:
            name, diagnosis = row.get("ID"), row.get("Class")
            if name is None or diagnosis is None:
                found = ", ".join(repr(column) for column in lines.fieldnames)
                raise CdfssError(
                    f"{table}: line {lines.line_num} lacks ID or Class; expected both, named in the first "
                    f"line, which names {found}"
                )
            diagnosis = diagnosis.strip().replace(" ", "_")
            if class_of.setdefault(name.strip(), diagnosis) != diagnosis:
                raise CdfssError(
                    f"{table}: line {lines.line_num} has {name!r} again, with another class; keep one"
                )
    except csv.Error as error:
        raise CdfssError(f"{table}: line {lines.line_num} cannot be read: {error}") from error
    if not class_of:
        raise CdfssError(f"{table}: names no picture; expected columns ID and Class")
    return class_of
