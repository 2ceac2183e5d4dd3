"""PASCAL VOC 2012 with the labels of SBD: the source domain, all 20 classes (PATNet, fold 4).

Layout: `JPEGImages/<id>.jpg`, `SegmentationClassAug/<id>.png` (class values, 255 void), lists
`fold0.txt` .. `fold3.txt` with lines `<id>__<class from 01>`. Where SegmentationClassAug is
missing it is made from VOC's SegmentationClass and SBD's `cls/<id>.mat`.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from cdfss.data.listing import (
    Listing,
    Pair,
    Problem,
    base_of,
    is_left_behind,
    permitted,
    read_lines,
    split_folder,
    stays_inside,
)
from cdfss.data.pictures import Reading, opened
from cdfss.errors import CdfssError
from cdfss.running.files import replacing

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
PLACES = ("splits", "../splits", "../../splits/pascal/trn", "../../../splits/pascal/trn")  # of the lists


@permitted()
def ready(root: Path) -> Path | None:
    """The folder that has SegmentationClassAug, or None where it has to be made first."""
    base = base_of(root, ("JPEGImages",), INSIDE)
    return base if (base / "SegmentationClassAug").is_dir() else None


def _sources(root: Path, settings: dict) -> tuple[Path, Path, Path | None]:
    """Folders of VOC and of SBD, and of the split lists if they are beside VOC or configured."""
    base = base_of(root, ("JPEGImages",), INSIDE)
    sbd = base_of(root, ("cls",), ("dataset", "benchmark_RELEASE/dataset", "sbd/benchmark_RELEASE/dataset"))
    try:
        return base, sbd, split_folder(settings, base, "fold0.txt", PLACES)
    except CdfssError:
        return base, sbd, None  # they may yet be beside the prepared folder


@permitted()
def raw_files(root: Path, settings: dict) -> list[Path]:
    """What `prepare` and the lists are made from."""
    base, sbd, lists = _sources(root, settings)
    own, extra = _labels_in(base / "SegmentationClass", ".png"), _labels_in(sbd / "cls", ".mat")
    pictures = _labels_in(base / "JPEGImages", ".jpg")
    texts = [] if lists is None else sorted(lists.glob("fold?.txt"))
    return [*own.values(), *extra.values(), *(pictures[n] for n in own | extra if n in pictures), *texts]


@permitted()
def prepare(root: Path, prepared: Path, settings: dict, log) -> tuple[list[Problem], dict]:
    """Write SegmentationClassAug to `prepared` from VOC's own labels and SBD.

    JPEGImages there is a link to the pictures, so that nothing is copied, and so are the split lists.
    """
    base, sbd, lists = _sources(root, settings)
    shutil.rmtree(prepared, ignore_errors=True)  # of another root, or of a killed job
    target = prepared / "SegmentationClassAug"
    target.mkdir(parents=True)
    for name, folder in (("JPEGImages", base / "JPEGImages"), ("splits", lists)):
        if folder is not None:
            (prepared / name).symlink_to(folder.resolve(), target_is_directory=True)
    problems = []
    own = _labels_in(base / "SegmentationClass", ".png")
    extra = _labels_in(sbd / "cls", ".mat")
    reading = Reading.of(settings)
    log(f"{settings['name']}: writing {len(own | extra)} label files from VOC and SBD")
    for name in sorted(own | extra):
        output = target / f"{name}.png"
        try:
            labels = _voc_labels(own[name], reading) if name in own else _sbd_labels(extra[name])
        except Exception as error:  # scipy and PIL raise many kinds for a bad file
            problems.append(Problem((own | extra)[name], f"cannot be read: {error}"))
            continue
        with replacing(output) as temporary:
            Image.fromarray(labels).save(temporary, format="PNG")
    return problems, {"labels_from_voc": len(own), "labels_from_sbd": len(extra.keys() - own)}


def _labels_in(folder: Path, suffix: str) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob(f"*{suffix}") if not is_left_behind(path.name)}


def _voc_labels(path: Path, reading: Reading) -> np.ndarray:
    with opened(path, reading) as image:
        return np.array(image)


def _sbd_labels(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    return loadmat(path)["GTcls"]["Segmentation"][0][0].astype(np.uint8)


@permitted()
def list_pairs(root: Path, settings: dict) -> Listing:
    """Entries of the four lists in their order of class, then as strings; split "trn"."""
    listing = Listing()
    base = base_of(root, ("JPEGImages", "SegmentationClassAug"), INSIDE)
    folder = split_folder(
        settings,
        base,
        "fold0.txt",
        PLACES,
    )
    if (base / "classes.txt").is_file():
        names = [line.strip() for line in read_lines(base / "classes.txt") if line.strip()]
        if not names:
            raise CdfssError(f"{base}/classes.txt: names no class; expected one a line, or no such file")
    else:
        names = CLASSES
    entries = set()
    for fold in range(4):
        path = folder / f"fold{fold}.txt"
        if not path.is_file():
            listing.problems.append(Problem(path, "list is missing"))
            continue
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            name, _, value = line.strip().rpartition("__")
            known = value.isdecimal() and len(value) <= 3 and 1 <= int(value) <= len(names)
            if not known or not stays_inside(name):
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
