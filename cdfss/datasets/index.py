"""The index contract: one row per (image, class), the same for every raw format.

Columns of `index.parquet`, rows in the protocol's order (split lists or classes, then paths as
strings): image, mask (paths relative to `root`), mask_value (class value in an index mask, null
for a binary mask), class_id (from 0), class_name, split, height, width (pixels), foreground
(fraction of the picture). File metadata: name, format, root and what was counted on the way.
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cdfss.datasets import chestxray, deepglobe, folder, fss1000, isic2018, pascal
from cdfss.datasets.listing import Listing, Pair, Problem
from cdfss.datasets.pictures import (
    VOID,
    binary_foreground,
    index_values,
    read_image,
    read_mask,
)
from cdfss.errors import CdfssError
from cdfss.files import replacing
from cdfss.progress import Progress

READERS = {
    "pascal": pascal,
    "fss1000": fss1000,
    "deepglobe": deepglobe,
    "isic2018": isic2018,
    "chestxray": chestxray,
    "folder": folder,
}

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("mask", pa.string()),
        ("mask_value", pa.int16()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("foreground", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Index:
    """A data set's index in memory.

    Attributes:
        rows: DataFrame with the columns of SCHEMA.
        root: folder that the paths are relative to.
    """

    name: str
    format: str
    root: Path
    rows: pd.DataFrame

    def of_split(self, split: str) -> pd.DataFrame:
        """Rows of one split in order.

        Raises:
            CdfssError: when the split is empty.
        """
        rows = self.rows[self.rows["split"] == split]
        if rows.empty:
            there = ", ".join(sorted(self.rows["split"].unique()))
            raise CdfssError(f"{self.name}: split {split!r} is empty; there are {there}")
        return rows

    def row(self, image: str, class_id: int):
        """The row of a picture, by its path, and class.

        Raises:
            CdfssError: when there is none.
        """
        found = self.rows[(self.rows["image"] == image) & (self.rows["class_id"] == class_id)]
        if found.empty:
            raise CdfssError(
                f"{self.name}: the index has no picture {image} of class {class_id}, which rows name; they "
                "are of other data. Make them again: snakemake -R evaluate evaluate_trivial features"
            )
        return found.iloc[0]

    def read(self, row, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture (S, S, 3) uint8, foreground (S, S) bool and void (S, S) bool of a row.

        Raises:
            CdfssError: when a file is no longer what was indexed.
        """
        value = None if pd.isna(row["mask_value"]) else int(row["mask_value"])
        try:
            image = read_image(self.root / row["image"], size)
            return image, *read_mask(self.root / row["mask"], value, size)
        except Exception as error:  # PIL raises many kinds
            raise CdfssError(
                f"{self.name}: {row['image']} or its mask {row['mask']} in {self.root} cannot be read "
                f"any more ({error}); it could when the index was made. Restore it, or make the index "
                "again: snakemake -R index"
            ) from error


def load(path: str | Path) -> Index:
    """Read an index file."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"cdfss"])
    return Index(facts["name"], facts["format"], Path(facts["root"]), table.to_pandas())


def save(index: Index, path: str | Path, notes: dict) -> None:
    """Write an index file; `notes` go into its metadata."""
    facts = {"name": index.name, "format": index.format, "root": str(index.root), **notes}
    table = pa.Table.from_pandas(index.rows, SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({"cdfss": json.dumps(facts)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def root_of(settings: dict) -> Path:
    """Where a data set's raw files are, or will be after download or generation."""
    if settings["root"] is not None:
        return Path(settings["root"])
    return Path(settings["folder"]) / settings["name"] / "raw"


def list_raw(settings: dict) -> Listing:
    """Pairs of a raw data set by names and lists alone, without opening a picture.

    Raises:
        CdfssError: when the folder or its layout is not there.
    """
    root = root_of(settings)
    _must_exist(root, settings)
    return READERS[settings["format"]].list_pairs(root, settings)


def build(settings: dict, path: str | Path, threads: int = 1, log=print) -> Index:
    """Prepare a raw data set where its format asks for it, open every pair, write the index.

    Args:
        settings: `Configuration.index_settings`.
        path: of the index file.
        threads: processes that open pictures.
        log: takes lines of text.

    Raises:
        CdfssError: lists all bad files, unless on_bad_pair is "skip".
    """
    reader = READERS[settings["format"]]
    name, root = settings["name"], root_of(settings)
    _must_exist(root, settings)
    problems, notes = [], {}
    if hasattr(reader, "prepare"):
        prepared = Path(settings["folder"]) / name / "prepared"
        root, problems, notes = reader.prepare(
            root.resolve(), prepared.resolve(), settings | {"threads": threads}, log
        )
    root = root.resolve()
    listing = reader.list_pairs(root, settings)
    rows, bad = _open_all(listing.pairs, root, name, threads)
    problems = problems + listing.problems + bad
    if settings["format"] == "folder":  # the public sets are taken as published
        rows, empty = _without_empty_masks(rows)
        problems += empty
    rows, small = _without_small_classes(rows)
    problems += small
    notes = notes | listing.notes | {"bad": len(problems), "pairs": len(rows)}
    report = "\n".join(f"  {problem}" for problem in problems)
    if problems and settings["on_bad_pair"] == "stop":
        raise CdfssError(
            f"{name}: {len(problems)} bad files in {root}:\n{report}\nMend or remove them, or set "
            f"data.{name}.on_bad_pair: skip to leave them out and count them"
        )
    if problems:
        log(f"{name}: left out {len(problems)} bad files:\n{report}")
    if not rows:
        raise CdfssError(f"{name}: no usable pair of image and mask in {root}")
    index = Index(name, settings["format"], root, pd.DataFrame(rows, columns=SCHEMA.names))
    save(index, path, notes)
    counted = ", ".join(f"{key.replace('_', ' ')} {number}" for key, number in notes.items())
    log(f"{name}: {index.rows['class_id'].nunique()} classes, {counted}")
    return index


def _must_exist(root: Path, settings: dict) -> None:
    if not root.is_dir():
        raise CdfssError(f"data.{settings['name']}.root: {root} is not a folder")


def _open_all(pairs: list[Pair], root: Path, name: str, threads: int) -> tuple[list, list[Problem]]:
    """Index rows of all pairs that can be used, and problems; one file is opened once."""
    files: dict[tuple[Path, Path], list[Pair]] = {}
    for pair in pairs:
        files.setdefault((pair.image, pair.mask), []).append(pair)
    measured, problems = {}, []
    with ProcessPoolExecutor(threads, multiprocessing.get_context("fork")) as pool:
        tasks = [(root, *key, [pair.mask_value for pair in group]) for key, group in files.items()]
        progress = Progress(f"{name}: opening pictures", len(tasks))
        results = pool.map(_measure, tasks, chunksize=16)
        for (key, group), result in zip(files.items(), results, strict=True):
            progress.step()
            if isinstance(result, str):
                bad = key[1] if result.startswith("mask ") else key[0]
                problems.append(Problem(bad, result))
                continue
            height, width, shares = result
            for pair, share in zip(group, shares, strict=True):
                if pair.mask_value is not None and share == 0:
                    problems.append(Problem(pair.mask, f"has no pixel of class {pair.class_name}"))
                else:
                    measured[pair] = (height, width, share)
    rows = [
        (
            p.image.as_posix(),
            p.mask.as_posix(),
            p.mask_value,
            p.class_id,
            p.class_name,
            p.split,
            *measured[p],
        )
        for p in pairs
        if p in measured
    ]
    return rows, problems


def _measure(task) -> tuple[int, int, list[float]] | str:
    """Height, width and foreground fractions of one pair, or what is wrong with it."""
    root, image_path, mask_path, values = task
    try:
        height, width = read_image_size(root / image_path)
    except Exception as error:  # PIL raises many kinds for a bad file
        return f"image cannot be read: {error}"
    try:
        read = binary_foreground if values == [None] else index_values
        labels = read(root / mask_path)
    except Exception as error:
        return f"mask cannot be read: {error}"
    if labels.shape != (height, width):
        return (
            f"mask is {labels.shape[1]} x {labels.shape[0]} pixels, its image {image_path} "
            f"{width} x {height}; download the data set again or remove the pair"
        )
    if values == [None]:
        return height, width, [float(labels.mean())]
    valid = max(int((labels != VOID).sum()), 1)
    return height, width, [float((labels == value).sum() / valid) for value in values]


def read_image_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture that has been decoded to its end."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image.height, image.width


def _without_empty_masks(rows: list) -> tuple[list, list[Problem]]:
    """A user's masks without foreground, as label masks of low values would give."""
    mask_at, share_at = SCHEMA.names.index("mask"), SCHEMA.names.index("foreground")
    problems = [
        Problem(Path(row[mask_at]), "has no foreground; foreground is grey from 128, or 1 beside 0")
        for row in rows
        if row[share_at] == 0
    ]
    return [row for row in rows if row[share_at] > 0], problems


def _without_small_classes(rows: list) -> tuple[list, list[Problem]]:
    """Classes of a single picture cannot make an episode: a support must differ from the query."""
    name_at, class_at = SCHEMA.names.index("class_name"), SCHEMA.names.index("class_id")
    numbers: dict[int, int] = {}
    for row in rows:
        numbers[row[class_at]] = numbers.get(row[class_at], 0) + 1
    small = {class_id for class_id, number in numbers.items() if number < 2}
    problems = [
        Problem(Path(row[0]), f"is the only usable picture of class {row[name_at]}; at least 2 are needed")
        for row in rows
        if row[class_at] in small
    ]
    return [row for row in rows if row[class_at] not in small], problems
