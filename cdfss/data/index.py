"""The index contract: one row per (image, class), the same for every raw format.

Columns of `index.parquet`, rows in the protocol's order (split lists or classes, then paths as
strings): image, mask (paths relative to `root`), mask_value (class value in an index mask, null
for a binary mask), class_id (from 0), class_name, split, height, width (pixels), foreground
(fraction of the picture), image_sha256, mask_sha256 (of the files). File metadata: name, format,
root, how pictures are read, the index's identity, what was counted on the way, and what two people
compare (`Prepared`).
"""

import hashlib
import io
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cdfss.running import provenance
from cdfss.data import tracking
from cdfss.data.listing import Pair, Problem, in_processes
from cdfss.data.masks import read_whole_mask
from cdfss.data.pictures import (
    VOID,
    Reading,
    binary_foreground,
    file_bytes,
    image_size,
    index_values,
    nearest,
    read_image,
    read_mask,
)
from cdfss.data.places import prepared, root_of
from cdfss.data.readers import READERS, base_of
from cdfss.data.resized import Resized, value_of
from cdfss.data.resized import load as load_resized
from cdfss.errors import CdfssError, again
from cdfss.running.files import replacing, replacing_folder
from cdfss.running.progress import Progress

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
        ("image_sha256", pa.string()),
        ("mask_sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Prepared:
    """What two people compare to know whether they prepared the same data.

    Attributes:
        classes: (name, entries) of each class, by class id; an entry is a pair of image and class.
        pictures: different ones, by the content of their files.
        digest: 16 hexadecimal digits that stand for names, sizes and decoded masks of all entries. Not for
            where they lie, their order or class names, how masks are compressed, or the colours of
            pictures. None in an index of version 0.2 or before.
    """

    classes: tuple[tuple[str, int], ...]
    pictures: int
    digest: str | None

    @property
    def entries(self) -> int:
        """Pairs of image and class."""
        return sum(number for _, number in self.classes)

    @property
    def in_words(self) -> str:
        """Entries of each class; of more than 20 classes, how many classes have how many."""
        if len(self.classes) <= 20:
            return ", ".join(f"{name} {number:,}" for name, number in self.classes)
        numbers = Counter(number for _, number in self.classes)
        counted = ", ".join(f"{many} with {number:,}" for number, many in numbers.most_common())
        return f"{len(self.classes)} classes: {counted}"

    @classmethod
    def of(cls, rows: pd.DataFrame, masks: dict[str, str] | None) -> "Prepared":
        """Counted in an index's rows.

        Args:
            masks: by path, the sha256 of the decoded mask.
        """
        entries = rows.groupby("class_id", sort=True)["class_name"].agg(["first", "size"])
        digest = None
        if masks is not None:
            columns = zip(rows["image"], rows["height"], rows["width"], rows["mask"], rows["mask_value"])
            lines = sorted(
                f"{Path(image).name} {height} {width} {'' if pd.isna(value) else int(value)} {masks[mask]}"
                for image, height, width, mask, value in columns
            )
            digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
        classes = tuple((name, int(number)) for name, number in entries.itertuples(index=False))
        return cls(classes, rows["image_sha256"].nunique(), digest)


def load_prepared(path: str | Path) -> tuple[Prepared, dict]:
    """What an index file says of its data, and all of its metadata.

    Raises:
        CdfssError: as `load`.
    """
    index = load(path)
    found = provenance.facts(provenance.read_schema(path))
    return replace(Prepared.of(index.rows, None), digest=found.get("digest")), found


@dataclass(frozen=True)
class Index:
    """A data set's index in memory.

    Attributes:
        rows: DataFrame with the columns of SCHEMA.
        root: folder that the paths are relative to.
        reading: how its pictures are read.
        resized: pictures and masks at one size that are read from there and not from their files.
    """

    name: str
    format: str
    root: Path
    rows: pd.DataFrame
    reading: Reading = field(default_factory=Reading)
    resized: Resized | None = None

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits that stand for classes, order and content of all pictures.

        Not for where they lie, so that a copy has the same.
        """
        rows = self.rows.astype(object).where(self.rows.notna(), None)
        lines = rows[[name for name in SCHEMA.names if name != "foreground"]].itertuples(name=None)
        text = repr((self.reading.own, self.reading.value_range)) + "\n".join(map(str, lines))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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
                f"are of other data. To make them anew, {again('evaluate', 'evaluate_on_processor', 'features')}"
            )
        return found.iloc[0]

    def read(self, row, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture (S, S, 3) uint8, foreground (S, S) bool and void (S, S) bool of a row.

        From `resized` where they are there at this size, and else from the files.

        Raises:
            CdfssError: when a file is no longer what was indexed, by its content.
        """
        return self.read_image(row, size), *self.read_mask(row, size)

    def read_image(self, row, size: int) -> np.ndarray:
        """The picture of `read` alone."""
        found = self._resized("image", row, size)
        return self._decoded("image", row, read_image, size) if found is None else found

    def read_mask(self, row, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Foreground and void of `read` alone."""
        found = self._resized("mask", row, size)
        return self._decoded("mask", row, read_mask, value_of(row), size) if found is None else found

    def read_whole_mask(self, row, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`read_mask`, and the mask at its own size, decoded once for both (`masks.read_whole_mask`)."""
        found = self._resized("whole_mask", row, size)
        if found is None:
            return self._decoded("mask", row, read_whole_mask, value_of(row), size)
        return found

    def _resized(self, what: str, row, size: int):
        """What `resized` has of a row; None where it has nothing of it, or not at this size."""
        if self.resized is None or self.resized.size != size:
            return None
        return getattr(self.resized, what)(row)

    def _decoded(self, kind: str, row, read, *how):
        """What `read` makes of a file's content, unchanged since it was indexed."""
        try:
            return read(self._content(row[kind], row[f"{kind}_sha256"]), *how, self.reading)
        except (ValueError, OSError) as error:
            raise CdfssError(f"{self.name}: {row[kind]} cannot be read: {error}") from error

    def _content(self, path: str, sha256: str) -> io.BytesIO:
        try:
            content = file_bytes(self.root / path, self.reading)
        except (ValueError, OSError) as error:
            raise self._changed(path, f"cannot be read any more ({error})") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._changed(path, "has another content than when it was indexed")
        return io.BytesIO(content)

    def _changed(self, path: str, what: str) -> CdfssError:
        return CdfssError(
            f"{self.name}: {path} in {self.root} {what}. Restore it; or to make the index anew, and what "
            f"depends on it, {again('index')}"
        )


def load(path: str | Path, pictures: str | Path | None = None) -> Index:
    """Read an index file.

    Its pictures are looked for where they lay when it was made, or when a run last found them unchanged.

    Args:
        pictures: the file that the job `pictures` ends with; what that has prepared is read then.

    Raises:
        CdfssError: when it is damaged, of an older version, or names files outside of its root; and as
            `resized.load`.
    """
    table = provenance.read_table(path)
    facts, rows = provenance.facts(table.schema), table.to_pandas()
    if "reading" not in facts or set(SCHEMA.names) - set(rows.columns):
        raise CdfssError(
            f"{path} was made by an older version of cdfss, or is no index. To make it anew, "
            f"{again('index')}"
        )
    for file in pd.concat([rows["image"], rows["mask"]]).unique():
        if file.startswith(("/", "\\")) or ".." in Path(file).parts:
            raise CdfssError(
                f"{path} names {file!r}, which lies outside of its root; it was edited. To make it "
                f"anew, {again('index')}"
            )
    # Pieces that were made from raw files lie where they did relative to the index, if all was moved.
    beside = (Path(path).parent / facts["beside"]).resolve()
    root = beside if facts["below"] is None and beside.is_dir() else Path(facts["root"])
    moved = tracking.root_recorded(path)
    if facts["below"] is not None and moved is not None:
        root = Path(moved) / facts["below"]
    index = Index(facts["name"], facts["format"], root, rows, Reading(**facts["reading"]))
    if pictures is None:
        return index
    return replace(index, resized=load_resized(pictures, index.identity, index.name))


def save(index: Index, path: str | Path, facts: dict) -> None:
    """Write an index file; `facts` go into its metadata."""
    facts = {"name": index.name, "format": index.format, "root": str(index.root), **facts}
    facts |= {"reading": asdict(index.reading), "identity": index.identity}
    facts |= {"beside": os.path.relpath(index.root, Path(path).parent.resolve())}
    facts |= provenance.made_with("numpy", "pillow")
    table = pa.Table.from_pandas(index.rows, SCHEMA, preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(provenance.with_facts(table, facts), temporary)


def build(settings: dict, path: str | Path, threads: int = 1, log=print) -> Index:
    """Prepare a raw data set where its format asks for it, open every pair of a split, write the index.

    Args:
        settings: `Jobs.index_settings` and `Jobs.place_of`; without a split all.
        path: of the index file; a record of the files is written beside it (`tracking`).
        threads: processes that open pictures.
        log: takes lines of text.

    Raises:
        CdfssError: lists all bad files, unless on_bad_pair is "skip".
    """
    reader, name, split = READERS[settings["format"]], settings["name"], settings.get("split")
    raw, base, before = root_of(settings).resolve(), base_of(settings), tracking.look(settings)
    problems, notes, root = [], {}, base and base.resolve()
    if root is None:
        root = prepared(settings).resolve()
        problems, notes = _prepare(raw, root, before, settings | {"threads": threads}, log)
    listing = reader.list_pairs(root, settings)
    pairs = [pair for pair in listing.pairs if split in (None, pair.split)]
    if listing.pairs and not pairs:
        there = ", ".join(sorted({pair.split for pair in listing.pairs}))
        raise CdfssError(f"{name}: split {split!r} is empty; there are {there}")
    rows, bad, masks = _open_all(pairs, root, settings, threads)
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
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    index = Index(name, settings["format"], root, frame, Reading.of(settings))
    below = None if base is None else os.path.relpath(root, raw)
    known = {}
    if below is not None:
        for kind in ("image", "mask"):
            files = (Path(below, file).as_posix() for file in frame[kind])
            known |= dict(zip(files, frame[f"{kind}_sha256"]))
    tracking.write(settings, path, before, known)
    depends = {key: value for key, value in settings.items() if key not in ("root", "folder")}
    compared = Prepared.of(frame, masks)
    save(index, path, {**notes, "below": below, "settings": depends, "digest": compared.digest})
    counted = ", ".join(f"{key.replace('_', ' ')} {number}" for key, number in notes.items())
    log(f"{name}: {index.rows['class_id'].nunique()} classes, {counted}")
    of_split = "all splits" if split is None else f"split {split}"
    log(
        f"{name}, {of_split}: {compared.entries:,} entries of {compared.pictures:,} pictures "
        f"({compared.in_words}); names, sizes and masks {compared.digest}"
    )
    return index


def _prepare(
    raw: Path, root: Path, files: pd.DataFrame | None, settings: dict, log
) -> tuple[list[Problem], dict]:
    """Make what a format has to make from raw files, in `root`, or leave what was made from the same ones.

    Another run may be reading it: it is exchanged as a whole, and only where the raw files changed.

    Args:
        files: `tracking.look`.
    """
    marker = "complete.json"
    made_from = {
        "files": None if files is None else tracking.digest(files),
        "code": provenance.code(
            "data.formats.deepglobe", "data.formats.pascal", "data.listing", "data.pictures"
        ),
    }
    try:
        known = json.loads((root / marker).read_text("utf-8"))
        if known["made from"] == made_from:
            return [Problem(Path(path), what) for path, what in known["problems"]], known["notes"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not whole
    with replacing_folder(root) as partial:
        problems, notes = READERS[settings["format"]].prepare(raw, partial, settings, log)
        known = {"made from": made_from, "notes": notes}
        known["problems"] = [[str(problem.path), problem.what] for problem in problems]
        with replacing(partial / marker) as temporary:
            temporary.write_text(json.dumps(known), "utf-8")
    return problems, notes


def _open_all(
    pairs: list[Pair], root: Path, settings: dict, threads: int
) -> tuple[list, list[Problem], dict[str, str]]:
    """Index rows of all pairs that can be used, and problems; one file is opened once.

    Args:
        settings: `Jobs.index_settings`; with format "folder", `image_size` is the size at
            which masks must still have foreground.

    Returns:
        Rows with the columns of SCHEMA; problems; by path, the sha256 of each decoded mask.

    Raises:
        CdfssError: when a process was killed.
    """
    files: dict[tuple[Path, Path], list[Pair]] = {}
    for pair in pairs:
        files.setdefault((pair.image, pair.mask), []).append(pair)
    reading = Reading.of(settings)
    size = settings.get("image_size") if reading.own else None
    tasks = [
        (root, *key, [pair.mask_value for pair in group], reading, size) for key, group in files.items()
    ]
    measured, problems, masks = {}, [], {}
    progress = Progress(f"{settings['name']}: opening pictures", len(tasks))
    results = in_processes(_measure, tasks, threads, settings["name"])
    for (key, group), result in zip(files.items(), results, strict=True):
        progress.step()
        if isinstance(result, str):
            bad = key[1] if result.startswith("mask ") else key[0]
            problems.append(Problem(bad, result))
            continue
        height, width, shares, *hashes, decoded = result
        masks[key[1].as_posix()] = decoded
        for pair, share in zip(group, shares, strict=True):
            if pair.mask_value is not None and share == 0:
                problems.append(Problem(pair.mask, f"has no pixel of class {pair.class_name}"))
            else:
                measured[pair] = (height, width, share, *hashes)
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
    return rows, problems, masks


def _measure(task) -> tuple[int, int, list[float], str, str, str] | str:
    """What one pair of files holds, or in one line what is wrong with it.

    Args:
        task: root, paths of image and mask, class values, how to read, and the size at which the mask
            must still have foreground, or None.

    Returns:
        Height and width in pixels, the foreground fraction for each class value, the sha256 of both
        files, and that of the decoded mask.
    """
    root, image_path, mask_path, values, reading, size = task
    try:
        content = file_bytes(root / image_path, reading)
        image_hash = hashlib.sha256(content).hexdigest()
        height, width = image_size(io.BytesIO(content), reading)
    except Exception as error:  # the system's too
        return f"image cannot be read: {error}"
    try:
        content = file_bytes(root / mask_path, reading)
        mask_hash = hashlib.sha256(content).hexdigest()
        labels = (binary_foreground if values == [None] else index_values)(io.BytesIO(content), reading)
    except Exception as error:
        return f"mask cannot be read: {error}"
    if labels.shape != (height, width):
        advice = "download the data set again"
        if reading.own:
            advice = "save both as they are to be seen, without an orientation in EXIF,"
        return (
            f"mask is {labels.shape[1]} x {labels.shape[0]} pixels, its image {image_path} "
            f"{width} x {height}; {advice} or remove the pair"
        )
    if values == [None]:
        if size and labels.any() and not nearest(labels, size).any():
            return (
                f"mask is lost: its {labels.sum()} foreground pixels vanish at {size} px; cut both "
                "pictures to a part around them, raise image_size, or remove the pair"
            )
        decoded = hashlib.sha256(np.packbits(labels)).hexdigest()  # an eighth is quicker to hash
        return height, width, [float(labels.mean())], image_hash, mask_hash, decoded
    valid = max(int((labels != VOID).sum()), 1)
    shares = [float((labels == value).sum() / valid) for value in values]
    return height, width, shares, image_hash, mask_hash, hashlib.sha256(labels).hexdigest()


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
