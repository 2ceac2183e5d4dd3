"""Generated data sets, written in the raw formats of the real ones.

A source of everyday things (20 classes) and four target domains whose shift resembles the real
ones: other objects, land-cover tiles, skin lesions, lungs in grey. The demo has a few small pictures
of each; with a `scale` there are as many as the real data sets have, or that share of them, each as
large as real ones are. Everything follows from the seeds below; the same files come out every time.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from cdfss.data import scenes
from cdfss.data.formats import deepglobe, isic2018
from cdfss.data.listing import in_processes
from cdfss.data.places import home
from cdfss.errors import CdfssError
from cdfss.running.files import free_bytes, replacing
from cdfss.running.progress import Progress

# The demo's.
SIZE = 160  # pixels of a picture's side, but for land-cover tiles
SOURCE_PICTURES = 200
OBJECT_PICTURES = 10  # of each class, as in FSS-1000
VALIDATION_CLASSES, TEST_CLASSES = 6, 10
TILES = 4
TILE = 960  # pixels; cut 6 x 6 this gives pieces of 160
LESIONS = {"nevus": 16, "melanoma": 14, "seborrheic_keratosis": 12}
LUNGS = 40

# The real data sets', of which `scale` takes a share. Sizes are width and height in pixels.
FULL_PICTURES, FULL_ENTRIES = 10_582, 13_680  # VOC's and SBD's; the entries of the published lists
FULL_PICTURE = (500, 375)
FULL_CLASSES = {"trn": 520, "val": 240, "test": 240}
FULL_OBJECT = (224, 224)
FULL_TILES = 803
FULL_TILE = (2448, 2448)
DRAWN_TILE = 288  # pixels, before it is enlarged
FULL_LESIONS = {"nevus": 1867, "melanoma": 519, "seborrheic_keratosis": 208}
FULL_LESION = ((1022, 767), (3008, 2000), (4288, 2848))  # in turn; those of the cameras differ as much
FULL_LUNGS = {"CHNCXR": 566, "MCUCXR": 138}  # of Shenzhen and of Montgomery
FULL_LUNG = {"CHNCXR": (3000, 3000), "MCUCXR": (4892, 4020)}
FULL_MB = {
    "everyday": 950,
    "objects": 310,
    "landcover": 1350,
    "lesions": 7200,
    "lungs": 5500,
}  # on the disk
LEAST = 6  # pictures that a class keeps, whatever the scale


def generate(settings: dict, marker: str | Path, threads: int = 1) -> None:
    """Write the raw files of `settings["synthetic"]` to `places.home`, then `marker`.

    Args:
        settings: `Jobs.raw_settings`.
        threads: processes that draw pictures where there is a scale; the files do not depend on it.

    Raises:
        CdfssError: when the kind of pictures cannot be written in the configured format, or does not
            fit on the disk.
    """
    kind, scale = settings["synthetic"], settings.get("scale")
    written_format, write_few, write_full = WRITERS[kind]
    if settings["format"] != written_format:
        raise CdfssError(
            f"data.{settings['name']}.format is {settings['format']!r}; synthetic {kind!r} is written "
            f"in the format {written_format!r}"
        )
    raw, unfinished = (home(settings) / name for name in ("raw", "raw.partial"))
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed job
    needed, free = 1e6 * FULL_MB[kind] * (scale or 0), free_bytes(unfinished)
    if needed > free:
        raise CdfssError(
            f"data.{settings['name']}: about {needed / 1e9:.2g} GB will be generated, and "
            f"{free / 1e9:.2g} GB are free where {raw} is to be; make room, or lower scale"
        )
    unfinished.mkdir(parents=True)
    if scale is None:
        number = write_few(unfinished)
    else:
        number = write_full(unfinished, scale, partial(_drawn, settings["name"], threads))
    shutil.rmtree(raw, ignore_errors=True)  # whatever else lay there
    os.replace(unfinished, raw)
    print(f"{settings['name']}: {number} generated pictures in {raw}")
    with replacing(marker) as temporary:
        temporary.write_text(json.dumps({"synthetic": kind, "pictures": number}) + "\n")


def _write(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 92} if path.suffix == ".jpg" else {}
    Image.fromarray(picture).save(path, **options)


def _write_everyday(raw: Path) -> int:
    """PASCAL VOC layout: JPEGImages, SegmentationClassAug with void borders, four lists."""
    rng = np.random.RandomState(20241)
    names = list(scenes.EVERYDAY)
    entries = []
    for number in range(SOURCE_PICTURES):
        # Colours differ from picture to picture, as those of cars and sofas do: else the finest features
        # would be enough, and the source model would not look at the stride-32 maps, on which modules act.
        looks = {name: scenes.Look(100 + i, rng) for i, name in enumerate(names)}
        chosen = [names[number % len(names)]]
        chosen += list(rng.choice([n for n in names if n not in chosen], rng.randint(1, 3), replace=False))
        picture, masks = scenes.things(rng, scenes.EVERYDAY, looks, chosen[::-1], SIZE)
        labels = scenes.labels_of(masks, [names.index(name) + 1 for name in chosen[::-1]])
        image = f"{2007 + number % 5}_{number:06d}"
        for value in set(np.unique(labels).tolist()) - {0}:
            if (labels == value).mean() > 0.015:
                entries.append((value, image))
        _write(scenes.to_bytes(picture), raw / "JPEGImages" / f"{image}.jpg")
        _write(scenes.with_void_borders(labels), raw / "SegmentationClassAug" / f"{image}.png")
    _write_folds(raw, entries)
    return SOURCE_PICTURES


def _write_objects(raw: Path) -> int:
    """FSS-1000 layout: a folder a class with numbered pictures, lists of classes."""
    rng = np.random.RandomState(20242)
    names = list(scenes.OBJECTS)
    looks = {name: scenes.Look(200 + i) for i, name in enumerate(names)}
    for name in names:
        for number in range(1, OBJECT_PICTURES + 1):
            others = [n for n in names if n != name]
            chosen = [*rng.choice(others, rng.randint(0, 3), replace=False), name]
            picture, masks = scenes.things(rng, scenes.OBJECTS, looks, chosen, SIZE)
            _write(scenes.to_bytes(picture), raw / name / f"{number}.jpg")
            _write(scenes.to_bytes(masks[-1].astype(float)), raw / name / f"{number}.png")
    val, test = names[:VALIDATION_CLASSES], names[VALIDATION_CLASSES:][:TEST_CLASSES]
    _write_splits(raw, {"trn": [], "val": val, "test": test})
    return len(names) * OBJECT_PICTURES


def _write_landcover(raw: Path) -> int:
    """DeepGlobe's raw layout: large tiles with colour masks; the reader cuts and filters them."""
    rng = np.random.RandomState(20243)
    for number in range(TILES):
        tile, classes = scenes.land(rng, TILE)
        _write(scenes.to_bytes(tile), raw / "train" / f"{1000 + 137 * number}_sat.jpg")
        _write(_colours(classes), raw / "train" / f"{1000 + 137 * number}_mask.png")
    return TILES


def _write_lesions(raw: Path) -> int:
    """ISIC 2018's flat layout with class_id.csv."""
    rng = np.random.RandomState(20244)
    table = []
    kinds = [kind for kind, number in LESIONS.items() for _ in range(number)]
    for place, kind in enumerate(rng.permutation(kinds)):
        name = f"ISIC_{1000000 + 7 * place:07d}"
        picture, mask = scenes.lesion(rng, kind, SIZE)
        _write(scenes.to_bytes(picture), raw / isic2018.IMAGES / f"{name}.jpg")
        _write(scenes.to_bytes(mask.astype(float)), raw / isic2018.MASKS / f"{name}_segmentation.png")
        table.append((name, kind))
    _write_table(raw, table)
    return len(table)


def _write_lungs(raw: Path) -> int:
    """Chest X-ray layout: grey pictures, masks with and without the ending _mask."""
    rng = np.random.RandomState(20245)
    for number in range(LUNGS):
        picture, mask = scenes.chest(rng, SIZE)
        shenzhen = number % 3 != 0
        name = f"{'CHNCXR' if shenzhen else 'MCUCXR'}_{number + 1:04d}_{number % 2}"
        _write(scenes.to_bytes(picture), raw / "CXR_png" / f"{name}.png")
        ending = "_mask" if shenzhen else ""
        _write(scenes.to_bytes(mask.astype(float)), raw / "masks" / f"{name}{ending}.png")
    return LUNGS


# What readers want to know of the files besides.


def _write_folds(raw: Path, entries: list[tuple[int, str]]) -> None:
    """Lists of (class from 1, picture) of PASCAL, five classes each, and the names of the classes."""
    (raw / "classes.txt").write_text("\n".join(scenes.EVERYDAY) + "\n")
    (raw / "splits").mkdir(exist_ok=True)
    for fold in range(4):
        mine = sorted(e for e in entries if 5 * fold < e[0] <= 5 * fold + 5)
        lines = [f"{image}__{value:02d}" for value, image in mine]
        (raw / "splits" / f"fold{fold}.txt").write_text("\n".join(lines) + "\n")


def _write_splits(raw: Path, splits: dict[str, list[str]]) -> None:
    """Lists of classes of FSS-1000."""
    (raw / "splits").mkdir(exist_ok=True)
    for split, names in splits.items():
        (raw / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _colours(classes: np.ndarray) -> np.ndarray:
    """(H, W) of DeepGlobe's classes -> (H, W, 3) uint8, its colours."""
    table = np.zeros((len(deepglobe.CODES), 3), np.uint8)
    for code, label in deepglobe.CODES.items():
        table[label] = [255 * (code >> bit & 1) for bit in (2, 1, 0)]
    return table[classes]


def _write_table(raw: Path, table: list[tuple[str, str]]) -> None:
    """class_id.csv of ISIC 2018."""
    with (raw / "class_id.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ID", "Class"), *table])


# The same at full size. Pictures are drawn small and enlarged, each from a generator of its own, so
# that it is the same one whichever process draws it.


def _drawn(name: str, threads: int, draw: Callable, tasks: list) -> list:
    """What `draw` returns for every task, in order, from as many processes as `threads`."""
    progress, results = Progress(f"{name}: drawing pictures", len(tasks)), []
    for result in in_processes(draw, tasks, threads, name, "generate"):
        results.append(result)
        progress.step()
    return results


def _scaled(number: int, scale: float, least: int = LEAST) -> int:
    return max(least, round(scale * number))


def _enlarge(picture: np.ndarray, size: tuple[int, int], path: Path, rng, grain: float) -> None:
    """Write a picture in 0..1 at `size`, with as much grain as makes its file as large as real ones."""
    image = Image.fromarray(scenes.to_bytes(picture)).resize(size, Image.Resampling.BICUBIC)
    noise = Image.frombytes(image.mode, size, rng.bytes(len(image.mode) * size[0] * size[1]))
    _save(Image.blend(image, noise, grain), path)


def _enlarge_mask(mask: np.ndarray, size: tuple[int, int], path: Path) -> None:
    """Write a mask at `size`: bool (H, W) in black and white, uint8 (H, W) or (H, W, 3) as it is."""
    mask = scenes.to_bytes(mask) if mask.dtype == bool else mask
    _save(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), path)


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".jpg":
            image.save(temporary, format="JPEG", quality=95)
        else:
            image.save(temporary, format="PNG", compress_level=1)  # of 9, the fastest


def _write_full_everyday(raw: Path, scale: float, drawn: Callable) -> int:
    """As many pictures of two things, evenly spread, as there are more entries than pictures."""
    pictures = _scaled(FULL_PICTURES, scale, LEAST * len(scenes.EVERYDAY))
    pairs = round(pictures * (FULL_ENTRIES / FULL_PICTURES - 1))
    tasks = [(raw, n, (n + 1) * pairs // pictures > n * pairs // pictures) for n in range(pictures)]
    entries = [entry for found in drawn(_draw_everyday, tasks) for entry in found]
    _write_folds(raw, entries)
    return pictures


def _draw_everyday(task: tuple[Path, int, bool]) -> list[tuple[int, str]]:
    """One picture, of two things or one; returns its entries."""
    raw, number, is_pair = task
    rng, names = np.random.RandomState([20251, number]), list(scenes.EVERYDAY)
    looks = {name: scenes.Look(100 + i) for i, name in enumerate(names)}
    shares = [0.0]
    while min(shares) <= 0.015:  # until one thing does not hide the other
        first, second = number % len(names), rng.randint(1, len(names))
        values = [first, (first + second) % len(names)][: 1 + is_pair]
        chosen = [names[value] for value in values]
        picture, masks = scenes.things(rng, scenes.EVERYDAY, looks, chosen, SIZE)
        labels = scenes.labels_of(masks, [value + 1 for value in values])
        shares = [(labels == value + 1).mean() for value in values]
    image = f"{2007 + number % 5}_{number:06d}"
    labels = scenes.with_void_borders(labels)
    _enlarge(picture, FULL_PICTURE, raw / "JPEGImages" / f"{image}.jpg", rng, 0.08)
    _enlarge_mask(labels, FULL_PICTURE, raw / "SegmentationClassAug" / f"{image}.png")
    return [(value + 1, image) for value in values]


def _write_full_objects(raw: Path, scale: float, drawn: Callable) -> int:
    """The shapes again and again, each time of another look and as another class."""
    shapes, splits, tasks = list(scenes.OBJECTS), {}, []
    for split, number in FULL_CLASSES.items():
        splits[split] = []
        for _ in range(_scaled(number, scale, 2)):
            look = len(tasks) // OBJECT_PICTURES
            name = f"{shapes[look % len(shapes)]}_{look:03d}"
            splits[split].append(name)
            tasks += [(raw, name, look, n) for n in range(1, OBJECT_PICTURES + 1)]
    drawn(_draw_object, tasks)
    _write_splits(raw, splits)
    return len(tasks)


def _draw_object(task: tuple[Path, str, int, int]) -> None:
    raw, name, look, number = task
    rng, shape = np.random.RandomState([20252, look, number]), name.rpartition("_")[0]
    looks = {shape: scenes.Look(200 + look)}
    picture, masks = scenes.things(rng, scenes.OBJECTS, looks, [shape], SIZE)
    _enlarge(picture, FULL_OBJECT, raw / name / f"{number}.jpg", rng, 0.08)
    _enlarge_mask(masks[0], FULL_OBJECT, raw / name / f"{number}.png")


def _write_full_landcover(raw: Path, scale: float, drawn: Callable) -> int:
    tiles = _scaled(FULL_TILES, scale, 2)
    drawn(_draw_tile, [(raw, number) for number in range(tiles)])
    return tiles


def _draw_tile(task: tuple[Path, int]) -> None:
    raw, number = task
    rng, name = np.random.RandomState([20253, number]), f"{1000 + 137 * number}"
    # Most tiles are nearly of one class, and most pieces are left out. The first two have all classes,
    # however few tiles there are.
    tile, classes = scenes.land(rng, DRAWN_TILE, 1 + number % 2 if number >= 2 else 12)
    _enlarge(tile, FULL_TILE, raw / "train" / f"{name}_sat.jpg", rng, 0.04)
    _enlarge_mask(_colours(classes), FULL_TILE, raw / "train" / f"{name}_mask.png")


def _write_full_lesions(raw: Path, scale: float, drawn: Callable) -> int:
    kinds = [kind for kind, number in FULL_LESIONS.items() for _ in range(_scaled(number, scale))]
    kinds = np.random.RandomState(20254).permutation(kinds).tolist()
    table = drawn(_draw_lesion, [(raw, place, kind) for place, kind in enumerate(kinds)])
    _write_table(raw, table)
    return len(table)


def _draw_lesion(task: tuple[Path, int, str]) -> tuple[str, str]:
    """One lesion; returns its line of the table."""
    raw, place, kind = task
    rng, name = np.random.RandomState([20254, place]), f"ISIC_{7 * place:07d}"
    size = FULL_LESION[place % len(FULL_LESION)]
    picture, mask = scenes.lesion(rng, kind, SIZE)
    _enlarge(picture, size, raw / isic2018.IMAGES / f"{name}.jpg", rng, 0.1)
    _enlarge_mask(mask, size, raw / isic2018.MASKS / f"{name}_segmentation.png")
    return name, kind


def _write_full_lungs(raw: Path, scale: float, drawn: Callable) -> int:
    origins = [origin for origin, number in FULL_LUNGS.items() for _ in range(_scaled(number, scale))]
    drawn(_draw_chest, [(raw, number, origin) for number, origin in enumerate(origins)])
    return len(origins)


def _draw_chest(task: tuple[Path, int, str]) -> None:
    raw, number, origin = task
    rng, name = np.random.RandomState([20255, number]), f"{origin}_{number + 1:04d}_{number % 2}"
    ending = "_mask" if origin == "CHNCXR" else ""
    picture, mask = scenes.chest(rng, SIZE)
    _enlarge(picture, FULL_LUNG[origin], raw / "CXR_png" / f"{name}.png", rng, 0.03)
    _enlarge_mask(mask, FULL_LUNG[origin], raw / "masks" / f"{name}{ending}.png")


# By kind: the format that it is written in, and the writers of the demo's pictures and of a share of all.
WRITERS = {
    "everyday": ("pascal", _write_everyday, _write_full_everyday),
    "objects": ("fss1000", _write_objects, _write_full_objects),
    "landcover": ("deepglobe", _write_landcover, _write_full_landcover),
    "lesions": ("isic2018", _write_lesions, _write_full_lesions),
    "lungs": ("chestxray", _write_lungs, _write_full_lungs),
}
