"""FSS-1000: 1000 classes of 10 pictures, classes split 520 / 240 / 240 (PATNet data/splits/fss).

Layout: `<class>/<number>.jpg` with `<class>/<number>.png`; lists trn.txt, val.txt, test.txt of
class names.
"""

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
    split_folder,
    stays_inside,
)

SPLITS = ("trn", "val", "test")


@permitted()
def list_pairs(root: Path, settings: dict) -> Listing:
    """Classes of each list in order of name; class ids count on over trn, val and test."""
    listing = Listing()
    base = base_of(root, (), ())
    for name in ("FSS-1000", "fewshot_data/fewshot_data", "fewshot_data"):
        if (root / name).is_dir():
            base = root / name
            break
    folder = split_folder(
        settings, base, "test.txt", ("splits", "../splits", "../splits/fss", "../../splits")
    )
    class_id = 0
    for split in SPLITS:
        path = folder / f"{split}.txt"
        names = read_lines(path) if path.is_file() else []
        for name in sorted({line.strip() for line in names if line.strip()}):
            if stays_inside(name):
                _list_class(base / name, root, class_id, split, listing)
            else:
                listing.problems.append(Problem(path, f"{name!r} is not the name of a class folder"))
            class_id += 1
    return listing


def _list_class(folder: Path, root: Path, class_id: int, split: str, listing: Listing) -> None:
    if not folder.is_dir():
        listing.problems.append(Problem(folder.relative_to(root), "class is listed but missing"))
        return
    pictures = pictures_in(folder, listing, root)
    images = [path for path in pictures if path.suffix.lower() in (".jpg", ".jpeg")]
    masks = [path for path in pictures if path.suffix.lower() == ".png"]
    for image, mask in match_masks(images, masks, listing, root):
        listing.pairs.append(
            Pair(image.relative_to(root), mask.relative_to(root), class_id, folder.name, split)
        )
