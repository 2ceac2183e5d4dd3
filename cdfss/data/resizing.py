"""The job that decodes pictures and masks of an index once, at the size of a run (`resized`)."""

import fcntl
import json
import secrets
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from cdfss.data import episodes
from cdfss.data.index import Index
from cdfss.data.index import load as load_index
from cdfss.data.listing import in_processes
from cdfss.data.masks import bits_to_bytes, own_to_bytes
from cdfss.data.resized import SCHEMA, Resized, facts_of, key_of, schema_of, sha256
from cdfss.errors import CdfssError
from cdfss.running import provenance
from cdfss.running.files import free_bytes, replacing
from cdfss.running.progress import Progress

BATCH = 32_000_000  # bytes of pictures that are written at once


def run(settings: dict, index_path, episodes_path, folder, path: str | Path, threads: int = 1) -> None:
    """The job of one list, or of all pictures of an index: an index in, prepared pictures and a marker out.

    Args:
        settings: `Jobs.picture_settings`.
        episodes_path: the list whose pictures are prepared; None for all of the index.
        folder: of the prepared pictures, of all lists of the index. It outlives the job, so that another
            list adds only what is new in it, and may be deleted at any time.
        path: of the marker, a small file; `resized.load` finds the pictures by it.
        threads: processes that decode.

    Raises:
        CdfssError: when there is no room; or as `Index.read`.
    """
    index, size = load_index(index_path), settings["image_size"]
    rows = index.rows
    if episodes_path is not None:
        rows = rows.loc[rows_of(episodes.load_of(episodes_path, index))]
    prepare(index, rows, size, folder, threads)
    marker = {"folder": str(folder), "index": index.identity, "image_size": size}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(marker), "utf-8")


def rows_of(listed: pd.DataFrame) -> list[int]:
    """Rows of the index that episodes of a list show, in its order."""
    shown = ((episode.query_row, *episode.support_rows) for episode in listed.itertuples())
    return sorted({int(row) for of_episode in shown for row in of_episode})


def prepare(
    index: Index, rows: pd.DataFrame, size: int, folder: str | Path, threads: int = 1, log=print
) -> None:
    """Add pictures and masks of rows of an index to a folder, as far as it does not hold them.

    Files of another index, size or version are removed from the folder. One job at a time writes there.

    Args:
        size: pixels of a side.
        threads: processes that decode.
        log: takes lines of text.

    Raises:
        CdfssError: when there is no room; or as `Index.read`.
    """
    folder, name = Path(folder), index.name
    with _alone(folder, lambda: log(f"{name}: another job prepares pictures in {folder}; waiting for it")):
        _clear(folder, facts_of(index.identity, size))
        tasks = _tasks(index, rows, size, Resized(folder, index.identity, size))
        if not tasks:
            log(f"{name}: all of {len(rows):,} entries are prepared already, in {folder}")
            return
        needed, free = sum(_bytes(kind, row, size) for _, kind, row, _ in tasks), free_bytes(folder)
        pictures = sum(kind == "image" for _, kind, _, _ in tasks)
        log(
            f"{name}: {pictures:,} pictures and {len(tasks) - pictures:,} masks at {size} px take about "
            f"{_in_words(needed)} in {folder}, where {_in_words(free)} are free"
        )
        if needed > free:
            raise CdfssError(
                f"{name}: pictures at {size} px need about {_in_words(needed)} in {folder}, where "
                f"{_in_words(free)} are free. Make room there, or lower image_size or the number of "
                "episodes"
            )
        with replacing(folder / f"{secrets.token_hex(4)}.arrow") as temporary:
            _write(tasks, temporary, facts_of(index.identity, size), name, threads)


def _in_words(number: int) -> str:
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


@contextmanager
def _alone(folder: Path, wait):
    """Hold a folder for one job, made if it is not there; `wait` is called before waiting for another."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        with suppress(OSError):  # without locks of the file system jobs may do the same work
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear(folder: Path, wanted: dict) -> None:
    """Remove what a killed job has left, and files that `Resized` would not take."""
    for path in folder.glob(".*.partial"):
        path.unlink()
    for path in folder.glob("*.arrow"):
        with suppress(CdfssError):
            if provenance.facts(schema_of(path)) == wanted:
                continue
        path.unlink()


def _tasks(index: Index, rows: pd.DataFrame, size: int, there: Resized) -> list[tuple]:
    """What is to be decoded, each once: the index without rows, the kind, a row, and the size."""
    reader, tasks = replace(index, rows=None, resized=None), {}
    for row in rows.to_dict("records"):
        for kind in ("image", "mask"):
            key = key_of(kind, row)
            if not there.holds(key):
                tasks.setdefault(key, (reader, kind, row, size))
    return list(tasks.values())


def _bytes(kind: str, row: dict, size: int) -> int:
    """About how many bytes a row takes; of masks at their own size the edges alone are not known."""
    if kind == "image":
        return 3 * size**2
    planes = 3 if pd.isna(row["mask_value"]) else 6  # an index mask may have void
    return planes * size * -(-size // 8) + size


def _decode(task) -> tuple:
    """A row of SCHEMA."""
    index, kind, row, size = task
    own = None
    if kind == "image":
        pixels = index.read_image(row, size).tobytes()
    else:
        foreground, void, counts = index.read_whole_mask(row, size)
        pixels = bits_to_bytes(foreground, *([void] if void.any() else []))
        own = own_to_bytes(counts, (row["height"], row["width"]))
    return *key_of(kind, row), pixels, own, sha256(pixels, own)


def _write(tasks: list[tuple], path: Path, facts: dict, name: str, threads: int) -> None:
    schema = provenance.with_facts(SCHEMA.empty_table(), facts).schema
    progress = Progress(f"{name}: preparing pictures and masks", len(tasks))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        batch, held = [], 0
        for row in in_processes(_decode, tasks, threads, name, "pictures"):
            batch.append(row)
            held += len(row[3]) + len(row[4] or b"")
            progress.step()
            if held >= BATCH:
                writer.write_batch(_batch(batch, schema))
                batch, held = [], 0
        if batch:
            writer.write_batch(_batch(batch, schema))


def _batch(rows: list[tuple], schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows), schema)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
