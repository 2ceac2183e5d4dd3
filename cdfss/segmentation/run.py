"""Segment many pictures: what it takes is said before, a killed run goes on, a bad picture ends nothing."""

import csv
import fcntl
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import psutil

from cdfss.data.listing import IMAGE_SUFFIXES
from cdfss.data.pictures import opened
from cdfss.errors import CdfssError
from cdfss.running.files import file_hash, forbidden, replacing
from cdfss.running.progress import clock
from cdfss.running.provenance import digest
from cdfss.segmentation import WRITES, outputs, tiles
from cdfss.segmentation.pairing import RECORD
from cdfss.segmentation.sources import own_reading
from cdfss.segmentation.supports import Query

if TYPE_CHECKING:
    from cdfss.segmentation.segmenter import Segmenter

USUAL = ("overlays", "areas")
OF_ALL = ("report.html", "report.json")  # what a command writes of a model beside the masks
UNSAFE = '/\\:*?"<>|'  # in names of folders on one system or another

# Seconds a megapixel: for reading a picture and writing what is of it, for its polygons, and for the
# probability of a class.
SECONDS_OF_FILES, SECONDS_OF_POLYGONS, SECONDS_OF_PROBABILITY = 0.15, 0.2, 0.2
# Bytes a pixel: picture, decoder, label map, numbers of regions; a class's probability, in parts and whole.
BYTES, BYTES_OF_PROBABILITY = 16, 8


@dataclass(frozen=True)
class Work:
    """What it takes to segment a picture.

    Attributes:
        views: how often the model looks, once for each tile.
        seconds: of everything but the views.
        memory: bytes that are needed at once.
    """

    views: int
    seconds: float
    memory: int


@dataclass
class Summary:
    """What a run did.

    Attributes:
        made, kept: names of queries that were segmented now, and of those that an earlier run had.
        failed: by name of query, what is wrong with it.
        seconds: of the whole run.
        files: of all queries together, such as areas.csv.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)


def segment_all(
    segmenter: "Segmenter",
    queries: Sequence[Query],
    out: str | Path,
    write: Collection[str] = USUAL,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int, float], None] = lambda done, total, left: None,
) -> Summary:
    """Segment pictures, each at its own size, into `out`.

    Masks are `<name>.png` there, what else is written in folders of its own; `made.jsonl` has a line for
    each picture. What an earlier run of the same model made of the same content is kept.

    Args:
        write: names of WRITES.
        say: takes lines for people: before the first picture what the run will take, then what fails.
        progress: takes the number of pictures that are done, of all, and seconds left, after each.

    Raises:
        CdfssError: when nothing can be written to `out`, or masks would overwrite what is not theirs.
    """
    begin, out = time.monotonic(), Path(out)
    _check(queries, out, write)
    model = model_hash(segmenter)
    summary = Summary()

    def fail(query, error):
        summary.failed[query.name] = _told(query, error)
        say(summary.failed[query.name])

    with _recording(out) as record:
        waiting: list[tuple[Query, str, Work]] = []
        for query in queries:
            try:
                content = file_hash(query.path)
                if record.has(query.name, content, model, write):
                    summary.kept.append(query.name)
                    continue
                try:
                    work = _work(query, segmenter, write)
                except ValueError:  # what is there was made of an earlier content
                    record.clear(query.name, content, model)
                    raise
                waiting.append((query, content, work))
            except (OSError, ValueError) as error:
                fail(query, error)
        view = _seconds_of_view(segmenter) if sum(work.views for *_, work in waiting) > 1 else 0.0
        for line in _beforehand(waiting, len(summary.kept), view):
            say(line)
        expected = [view * work.views + work.seconds for *_, work in waiting]
        before, started = len(queries) - len(waiting), time.monotonic()
        progress(before, len(queries), sum(expected))
        for number, (query, content, _) in enumerate(waiting, 1):
            record.clear(query.name, content, model)
            try:
                made = _segment(segmenter, query, out, write)
            except (_Unsegmented, MemoryError) as error:
                fail(query, error)
            else:
                record.add(made | {"sha256": content, "model": model})
                summary.made.append(query.name)
            pace = (time.monotonic() - started) / max(sum(expected[:number]), 1e-9)
            progress(before + number, len(queries), pace * sum(expected[number:]))
        summary.files = _together(segmenter, record, model, write)
    summary.seconds = time.monotonic() - begin
    return summary


def model_hash(segmenter: "Segmenter") -> str:
    """Of what a segmenter was made from, how its classes are written, and how pictures are read."""
    return digest([segmenter.how, segmenter.values, segmenter.colours])


def _check(queries: Sequence[Query], out: Path, write: Collection[str]) -> None:
    if unknown := [name for name in write if name not in WRITES]:
        raise CdfssError(f"write holds {unknown[0]!r}; expected of {', '.join(WRITES)}")
    if not queries:
        raise CdfssError("there are no queries; give at least one picture")
    if out.exists() and not out.is_dir():
        raise CdfssError(f"{out}: is a file, and masks are to be written into a folder; name another")
    if reason := forbidden(out):
        raise CdfssError(f"{out}: {reason}")
    if out.is_dir() and not (out / RECORD).exists():
        others = sorted(path.name for path in out.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if others:
            raise CdfssError(
                f"{out}: holds pictures that no earlier run wrote ({', '.join(others[:3])}), and masks "
                "would lie among them or overwrite them; name another folder for the masks"
            )
    pictures = {query.path.resolve() for query in queries}
    for query in queries:
        mask = out / f"{query.name}.png"
        if mask.resolve() in pictures:
            raise CdfssError(
                f"{mask}: is to be segmented, and its mask would overwrite it; name another folder"
            )


NEEDED = {"name", "file", "sha256", "model", "write", "files", "height", "width", "areas"}  # of a line


class _Record:
    """What runs made in a folder: a line of JSON for each picture, the last one of a name counts."""

    def __init__(self, out: Path, file: TextIO):
        self.out, self.file = out, file
        self.made: dict[str, dict] = {}
        file.seek(0)
        content = file.read()
        for line in content.split("\n"):  # splitlines would split names that hold other separators
            try:
                made = json.loads(line)
                if made.keys() >= NEEDED:
                    self._take(made)
            except (ValueError, AttributeError, TypeError):  # the last line of a run that was killed
                continue
        if content and not content.endswith("\n"):
            file.write("\n")

    def has(self, name: str, content: str, model: str, write: Collection[str]) -> bool:
        """Whether all that is to be written of a picture is there, made by the model from that content."""
        made = self.made.get(name)
        return (
            made is not None
            and self._is_of(made, content, model)
            and set(write) <= set(made["write"])
            and all((self.out / path).exists() for path in made["files"])
        )

    @staticmethod
    def _is_of(made: dict, content: str, model: str) -> bool:
        return (made["sha256"], made["model"]) == (content, model)

    def clear(self, name: str, content: str, model: str) -> None:
        """Remove what another model made under a name, or this one of another content.

        Not all of it is written anew, and the rest would lie beside new masks as if it were of them.
        """
        made = self.made.get(name)
        if made is None or self._is_of(made, content, model):
            return
        within = self.out.resolve()
        for path in [*made["files"], *(OF_ALL if made["model"] != model else ())]:
            file = self.out / path
            if within in file.resolve().parents:
                file.unlink(missing_ok=True)

    def add(self, made: dict) -> None:
        """Note what was made; what an earlier run made of the same beside it is still there."""
        earlier = self.made.get(made["name"])
        if earlier is not None and self._is_of(earlier, made["sha256"], made["model"]):
            made = earlier | made
            for key in ("write", "files"):
                made[key] = list(dict.fromkeys([*made[key], *earlier[key]]))
        self.file.write(json.dumps(made, ensure_ascii=False) + "\n")
        self.file.flush()
        self._take(made)

    def _take(self, made: dict) -> None:
        self.made.pop(made["name"], None)  # so that the last one added is the last in order
        self.made[made["name"]] = made

    def of(self, model: str) -> list[dict]:
        """What a model made that is still there, in order of name; of a picture once, by its last name."""
        by_file = {m["file"]: m for m in self.made.values() if m["model"] == model}
        there = [m for m in by_file.values() if (self.out / m["files"][0]).exists()]
        return sorted(there, key=lambda made: made["name"])


@contextmanager
def _recording(out: Path) -> Iterator[_Record]:
    """The record of a folder, which this run alone may write while the block lasts.

    Raises:
        CdfssError: while another run writes there.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / RECORD).is_dir():
        raise CdfssError(f"{out / RECORD}: is a folder, and a file of what is made goes there; remove it")
    with (out / RECORD).open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CdfssError(
                f"{out}: another run is writing there; wait until it ends, or name another folder"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield _Record(out, file)


def _work(query: Query, segmenter: "Segmenter", write: Collection[str]) -> Work:
    """By the size that a picture's header says."""
    with opened(query.path, own_reading()) as image:
        width, height = image.size
    tile = segmenter.how["tile"]
    views = 1
    if tiles.is_large((height, width), tile):
        views = len(tiles.starts(height, tile)) * len(tiles.starts(width, tile))
    pixels = height * width
    of_classes = len(segmenter.classes) if _needs_probabilities(write) else 0
    seconds = SECONDS_OF_FILES + SECONDS_OF_PROBABILITY * of_classes
    seconds += SECONDS_OF_POLYGONS * bool({"polygons", "coco"} & set(write))
    return Work(views, pixels / 1e6 * seconds, pixels * (BYTES + BYTES_OF_PROBABILITY * of_classes))


def _seconds_of_view(segmenter: "Segmenter") -> float:
    """Seconds in which the model answers a small picture, the second time: the first one warms up."""
    side = min(segmenter.how["size"], segmenter.how["tile"])
    picture = np.full((side, side, 3), 127, np.uint8)
    for _ in range(2):
        begin = time.monotonic()
        segmenter.predict(picture)
    return time.monotonic() - begin


def _beforehand(waiting: list[tuple[Query, str, Work]], kept: int, view: float) -> Iterator[str]:
    """What a run will take, in words."""
    if kept:
        yield f"{kept} pictures were segmented before and are kept"
    if not waiting:
        return
    works = [work for *_, work in waiting]
    views, seconds = (
        sum(work.views for work in works),
        sum(view * work.views + work.seconds for work in works),
    )
    largest, memory = max(
        ((query.path, work.memory) for query, _, work in waiting), key=lambda pair: pair[1]
    )
    in_tiles = f" in {views} tiles" if views > len(waiting) else ""
    yield (
        f"{len(waiting)} pictures to segment{in_tiles}: about {clock(max(seconds, 1))}, and "
        f"{max(memory, 1e8) / 1e9:.1f} GB of memory besides the model's"
    )
    free = psutil.virtual_memory().available
    if memory > free:
        yield (
            f"{largest} alone needs about {memory / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; end "
            "other programs, write no probabilities, or cut it into smaller pictures"
        )


def _needs_probabilities(write: Collection[str]) -> bool:
    return "probabilities" in write or "probabilities-float" in write


class _Unsegmented(CdfssError):
    """A picture that cannot be read or segmented; others may."""


def _segment(segmenter: "Segmenter", query: Query, out: Path, write: Collection[str]) -> dict:
    """Segment a picture and write what is wanted; what the record says of it.

    Raises:
        _Unsegmented: for this picture.
        CdfssError: when nothing can be written.
    """
    probabilities = None
    try:
        picture = segmenter.read(query)
        if _needs_probabilities(write):
            probabilities = segmenter.probabilities(picture)
            labels = segmenter.labels(probabilities)
        else:
            labels = segmenter.predict(picture)  # in strips, which takes less memory
    except CdfssError as error:
        raise _Unsegmented(str(error)) from error
    return _write(segmenter, query, picture, labels, probabilities, out, write)


def _told(query: Query, error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"{query.path}: needs more memory than there is; cut it into smaller pictures"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said if said.startswith(str(query.path)) else f"{query.path}: {said}"


def _write(segmenter: "Segmenter", query: Query, picture, labels, probabilities, out: Path, write) -> dict:
    """Write all that is wanted of a picture; what the record says of it."""
    name, values, colours = query.name, segmenter.values, segmenter.colours
    made: dict = {"name": name, "file": str(query.path), "write": sorted(write), "files": [f"{name}.png"]}
    made |= {"height": labels.shape[0], "width": labels.shape[1]}

    def path(*parts: str) -> Path:
        made["files"].append("/".join(parts))
        return out.joinpath(*parts)

    if "overlays" in write:
        outputs.write_overlay(path("overlays", f"{name}.jpg"), picture, labels, values, colours)
    for kind, ending in (("probabilities", "png"), ("probabilities-float", "tif")):
        if kind in write:
            folders = _folders(segmenter.classes)
            for of_class, probability in zip(segmenter.classes, probabilities):
                parts = ("probabilities", *folders[of_class], f"{name}.{ending}")
                outputs.write_probability(path(*parts), probability)
    if {"polygons", "coco"} & set(write):
        regions = outputs.regions_of(labels, values)
        if "polygons" in write:
            features = outputs.geojson(name, labels.shape, regions, values)
            outputs.write_json(path("polygons", f"{name}.geojson"), features)
        if "coco" in write:
            made["coco"] = outputs.annotations(labels.shape, regions, values)
    made["areas"] = outputs.areas(name, str(query.path), labels, values)
    outputs.write_mask(
        out / f"{name}.png", labels, values, colours
    )  # the last, so that it means all is there
    return made


def _folders(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Folder of each class's probabilities: its name, as files may be called; none for a single class."""
    if len(classes) == 1:
        return {classes[0]: ()}
    safe = [
        "".join("_" if sign in UNSAFE or sign < " " else sign for sign in name).strip(". ")
        for name in classes
    ]
    if len({name.casefold() for name in safe}) < len(safe) or "" in safe:
        safe = [f"{number} {name}".strip() for number, name in enumerate(safe, 1)]
    return {name: (folder,) for name, folder in zip(classes, safe)}


def _together(segmenter: "Segmenter", record: _Record, model: str, write: Collection[str]) -> list[Path]:
    """Write what is of all pictures that the model segmented in this folder.

    What an earlier run wrote of this kind is brought up to date too, or removed.
    """
    made, files = record.of(model), []
    table, whole = record.out / "areas.csv", record.out / "coco.json"
    if "areas" in write or table.exists():
        files.append(table)
        with replacing(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, outputs.AREAS)
            rows.writeheader()
            rows.writerows(row for entry in made for row in entry["areas"])
    if "coco" in write or (whole.exists() and all("coco" in entry for entry in made)):
        files.append(whole)
        outputs.write_json(
            files[-1], outputs.coco([entry for entry in made if "coco" in entry], segmenter.values)
        )
    else:
        whole.unlink(missing_ok=True)
    return files
