"""DeepGlobe land cover: satellite tiles cut into 6 x 6 pieces, one binary mask per class.

Raw layout: `<tile>_sat.jpg` with `<tile>_mask.png` (colours), also in `train/`. Prepared layout,
as PATNet publishes it: `<1..6>/test/origin/<tile>_sat_<row><column>.jpg` with
`<1..6>/test/groundtruth/<same name>.png`. Steps as in PATNet data/preprocess.py.
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
    in_processes,
    is_left_behind,
    match_masks,
    permitted,
    pictures_in,
)
from cdfss.data.pictures import Reading, opened
from cdfss.running.files import replacing

CLASSES = ("agriculture", "urban", "rangeland", "forest", "water", "barren")
# Colour of each class as bits R G B (values of 128 and above count as 1, as the data set's own
# notes ask), unknown last.
CODES = {0b110: 0, 0b011: 1, 0b101: 2, 0b010: 3, 0b001: 4, 0b111: 5, 0b000: 6}
GRID = 6  # pieces per side
LEAST_SHARE = 0.048  # of a piece that its rarest colour must exceed
INSIDE = ("Deepglobe", "deepglobe", "train", "Deepglobe/train")


@permitted()
def ready(root: Path) -> Path | None:
    """The folder that has the prepared layout, or None where tiles have to be cut first."""
    places = (root, root / "Deepglobe", root / "deepglobe")
    return next((base for base in places if (base / "1" / "test" / "origin").is_dir()), None)


def _tiles_folder(root: Path) -> Path:
    for base in (root, *(root / name for name in INSIDE)):
        if any(not is_left_behind(path.name) for path in base.glob("*_sat.jpg")):
            return base
    return base_of(root, ("1/test/origin (prepared) or *_sat.jpg (raw tiles)",), INSIDE)


@permitted()
def raw_files(root: Path, settings: dict) -> list[Path]:
    """What `prepare` reads."""
    return pictures_in(_tiles_folder(root), Listing(), root)


@permitted()
def prepare(root: Path, prepared: Path, settings: dict, log) -> tuple[list[Problem], dict]:
    """Cut the tiles into `prepared`."""
    tiles_folder = _tiles_folder(root)
    listing = Listing()
    pictures = pictures_in(tiles_folder, listing, root)
    tiles = [path for path in pictures if path.stem.endswith("_sat")]
    masks = [path for path in pictures if path.stem.endswith("_mask")]
    pairs = match_masks(tiles, masks, listing, root, lambda mask: mask.stem.removesuffix("_mask") + "_sat")
    log(f"{settings['name']}: cutting {len(pairs)} tiles into {GRID} x {GRID} pieces")
    shutil.rmtree(prepared, ignore_errors=True)  # of another root, or of a killed job
    for name in range(1, 7):
        for kind in ("origin", "groundtruth"):
            (prepared / str(name) / "test" / kind).mkdir(parents=True)
    notes = {"pieces_kept": 0, "pieces_of_one_colour": 0, "pieces_with_a_rare_colour": 0}
    tasks = [(*pair, prepared, Reading.of(settings)) for pair in pairs]
    results = in_processes(_cut, tasks, settings.get("threads", 1), settings["name"])
    for (tile, _), result in zip(pairs, results, strict=True):
        if isinstance(result, str):
            listing.problems.append(Problem(tile.relative_to(root), result))
            continue
        for key, number in result.items():
            notes[key] += number
    return listing.problems, {"tiles": len(pairs)} | notes


def class_map(mask: np.ndarray) -> np.ndarray:
    """(H, W) class from 0, 6 for unknown, of a colour mask (H, W, 3).

    Raises:
        ValueError: names the colours that belong to no class and how many pixels have them.
    """
    bits = (mask[..., :3] >= 128).astype(np.uint8)
    code = bits[..., 0] * 4 + bits[..., 1] * 2 + bits[..., 2]
    table = np.full(8, 255, np.uint8)
    for value, name in CODES.items():
        table[value] = name
    classes = table[code]
    if (classes == 255).any():
        colours, numbers = np.unique(mask[classes == 255][:, :3], axis=0, return_counts=True)
        shown = ", ".join(f"({r}, {g}, {b})" for r, g, b in colours[:3].tolist())
        raise ValueError(f"has {numbers.sum()} pixels of unknown colour, as {shown}")
    return classes


def keeps(classes: np.ndarray) -> str | None:
    """Why a piece (h, w) of classes is left out, or None when it is kept (unknown is a colour)."""
    shares = np.bincount(classes.ravel(), minlength=7) / classes.size
    shares = shares[shares > 0]
    if len(shares) == 1:
        return "pieces_of_one_colour"
    if shares.min() <= LEAST_SHARE:
        return "pieces_with_a_rare_colour"
    return None


def _cut(task: tuple[Path, Path, Path, Reading]) -> dict[str, int] | str:
    """Cut one tile; returns what became of its pieces, or what is wrong with it."""
    image_path, mask_path, prepared, reading = task
    try:
        with opened(image_path, reading) as image:
            tile = np.array(image.convert("RGB"))
        with opened(mask_path, reading) as image:
            mask = np.array(image.convert("RGB"))
    except ValueError as error:
        return f"cannot be read: {error}"
    height, width = tile.shape[:2]
    if mask.shape != tile.shape:
        return (
            f"is {width} x {height} pixels, its mask {mask_path.name} "
            f"{mask.shape[1]} x {mask.shape[0]}; download the data set again or remove the pair"
        )
    if height < GRID or width < GRID:
        return f"is {width} x {height} pixels, too small to be cut {GRID} x {GRID}"
    try:
        classes = class_map(mask)
    except ValueError as error:
        return f"its mask {mask_path.name} {error}"
    outcome = {"pieces_kept": 0, "pieces_of_one_colour": 0, "pieces_with_a_rare_colour": 0}
    for row in range(GRID):
        for column in range(GRID):
            piece = (
                slice(row * height // GRID, (row + 1) * height // GRID),
                slice(column * width // GRID, (column + 1) * width // GRID),
            )
            reason = keeps(classes[piece])
            outcome[reason or "pieces_kept"] += 1
            if reason is None:
                name = f"{image_path.stem}_{row}{column}"
                _write_piece(prepared, name, tile[piece], classes[piece])
    return outcome


def _write_piece(prepared: Path, name: str, tile: np.ndarray, classes: np.ndarray) -> None:
    for label in set(np.unique(classes).tolist()) - {6}:
        folder = prepared / str(label + 1) / "test"
        with replacing(folder / "groundtruth" / f"{name}.png") as temporary:
            mask = (classes == label).astype(np.uint8) * 255
            Image.fromarray(mask).save(temporary, format="PNG")
        with replacing(folder / "origin" / f"{name}.jpg") as temporary:
            Image.fromarray(tile).save(temporary, format="JPEG", quality=95)


@permitted()
def list_pairs(root: Path, settings: dict) -> Listing:
    """Pieces of the six class folders, class ids 0..5."""
    listing = Listing()
    for class_id, class_name in enumerate(CLASSES):
        folder = root / str(class_id + 1) / "test"
        if not (folder / "origin").is_dir():
            listing.problems.append(Problem(folder.relative_to(root) / "origin", "folder is missing"))
            continue
        images = pictures_in(folder / "origin", listing, root)
        masks = []
        if (folder / "groundtruth").is_dir():
            masks = pictures_in(folder / "groundtruth", listing, root)
        for image, mask in match_masks(images, masks, listing, root):
            listing.pairs.append(
                Pair(image.relative_to(root), mask.relative_to(root), class_id, class_name)
            )
    return listing
