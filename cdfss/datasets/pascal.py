"""PASCAL VOC 2012 with the labels of SBD: the source domain, all 20 classes (PATNet, fold 4).

Layout: `JPEGImages/<id>.jpg`, `SegmentationClassAug/<id>.png` (class values, 255 void), lists
`fold0.txt` .. `fold3.txt` with lines `<id>__<class from 01>`. Where SegmentationClassAug is
missing it is made from VOC's SegmentationClass and SBD's `cls/<id>.mat`.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from cdfss.datasets.listing import Listing, Pair, Problem, base_of, split_folder
from cdfss.files import replacing

CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
INSIDE = ("VOC2012", "VOCdevkit/VOC2012", "voc/VOCdevkit/VOC2012")


def prepare(root: Path, prepared: Path, settings: dict, log) -> tuple[Path, list[Problem], dict]:
    """Nothing to do where SegmentationClassAug exists; else write it to `prepared` from SBD.

    In `prepared`, JPEGImages is a link to the pictures, so that nothing is copied.
    """
    base = base_of(root, ("JPEGImages",), INSIDE)
    if (base / "SegmentationClassAug").is_dir():
        return base, [], {}
    sbd = base_of(root, ("cls",), ("dataset", "benchmark_RELEASE/dataset", "sbd/benchmark_RELEASE/dataset"))
    shutil.rmtree(prepared, ignore_errors=True)  # of another root, or of a killed job
    target = prepared / "SegmentationClassAug"
    target.mkdir(parents=True)
    link = prepared / "JPEGImages"
    link.symlink_to((base / "JPEGImages").resolve(), target_is_directory=True)
    problems = []
    own = {path.stem: path for path in (base / "SegmentationClass").glob("*.png")}
    extra = {path.stem: path for path in (sbd / "cls").glob("*.mat")}
    log(f"{settings['name']}: writing {len(own | extra)} label files from VOC and SBD")
    for name in sorted(own | extra):
        output = target / f"{name}.png"
        try:
            labels = _voc_labels(own[name]) if name in own else _sbd_labels(extra[name])
        except Exception as error:  # scipy and PIL raise many kinds for a bad file
            problems.append(Problem((own | extra)[name], f"cannot be read: {error}"))
            continue
        with replacing(output) as temporary:
            Image.fromarray(labels).save(temporary, format="PNG")
    return prepared, problems, {"labels_from_voc": len(own), "labels_from_sbd": len(extra.keys() - own)}


def _voc_labels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _sbd_labels(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    return loadmat(path)["GTcls"]["Segmentation"][0][0].astype(np.uint8)


def list_pairs(root: Path, settings: dict) -> Listing:
    """Entries of the four lists in their order of class, then as strings; split "trn"."""
    listing = Listing()
    base = base_of(root, ("JPEGImages", "SegmentationClassAug"), INSIDE)
    folder = split_folder(
        settings,
        base,
        "fold0.txt",
        ("splits", "../splits", "../../splits/pascal/trn", "../../../splits/pascal/trn"),
    )
    if (base / "classes.txt").is_file():
        names = (base / "classes.txt").read_text().split("\n")
        names = [line.strip() for line in names if line.strip()]
    else:
        names = CLASSES
    entries = set()
    for fold in range(4):
        path = folder / f"fold{fold}.txt"
        if not path.is_file():
            listing.problems.append(Problem(path, "list is missing"))
            continue
        for number, line in enumerate(path.read_text().split("\n"), 1):
            if not line.strip():
                continue
            name, _, value = line.strip().rpartition("__")
            if not name or not value.isdigit() or not 1 <= int(value) <= len(names):
                listing.problems.append(
                    Problem(path, f"line {number} is {line!r}; expected <image>__<01..{len(names)}>")
                )
                continue
            entries.add((int(value), name))
    for value, name in sorted(entries):
        image = base / "JPEGImages" / f"{name}.jpg"
        mask = base / "SegmentationClassAug" / f"{name}.png"
        missing = [path for path in (image, mask) if not path.is_file()]
        for path in missing:
            listing.problems.append(Problem(path.relative_to(root), "is in the list but missing"))
        if not missing:
            listing.pairs.append(
                Pair(
                    image.relative_to(root),
                    mask.relative_to(root),
                    value - 1,
                    names[value - 1],
                    "trn",
                    value,
                )
            )
    return listing
