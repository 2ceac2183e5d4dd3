"""Notice pictures that were edited, added or removed since they were indexed.

Beside every index lies a record of the files that it was made from: size, time and hash of each, and
a key that stands for their content. A plan compares names, sizes and times with it, and content
where times alone differ. The key of what has not changed stays the same, wherever it lies by now, so
that nothing runs again; else it becomes another, and exactly what depends on these pictures does.
"""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cdfss.data.listing import is_utf8
from cdfss.data.places import home, root_of
from cdfss.data.readers import base_of, pairs_of, raw_files
from cdfss.errors import CdfssError
from cdfss.running.files import file_hash, replacing

FIRST = "as first indexed"
SCHEMA = pa.schema(
    [
        ("file", pa.string()),  # below the raw root; or what an entry of the list says
        ("size", pa.int64()),  # bytes
        ("time", pa.int64()),  # of the last change, nanoseconds
        ("sha256", pa.string()),
    ]
)


def record_path(index_path: str | Path) -> Path:
    """The record that lies beside an index. No output of a rule: it outlives the index it is of."""
    path = Path(index_path)
    return path.with_name(f"{path.stem}.files.parquet")


def key(settings: dict, index_path: str | Path) -> str:
    """What the pictures of an index are: the recorded key, or another if their content has changed.

    Args:
        settings: `Jobs.index_settings` and `Jobs.place_of`.
    """
    record, present = _load(record_path(index_path)), look(settings)
    if record is not None and settings["root"] is None:
        # From another source, or generated at another scale: one key before the files come and after.
        origin = home(settings).name
        if Path(root_recorded(index_path)).parent.name != origin:
            return f"{FIRST}, {origin}"
    if record is None:
        # An index without a record is of nobody knows what.
        known = present is None or not Path(index_path).exists()
        return FIRST if known else digest(present)
    before, files = record
    unchanged = present is None or _same(settings, index_path, files, present)
    return before if unchanged else digest(present)


def recorded(index_path: str | Path) -> str | None:
    """The key of the pictures as they were when they were indexed; None without a record."""
    record = _load(record_path(index_path))
    return None if record is None else record[0]


def _same(settings: dict, index_path, before: pd.DataFrame, present: pd.DataFrame) -> bool:
    """Whether files are those of the record; by their content where times differ, or they lie elsewhere."""
    named = ["file", "size"]
    if not before[named].equals(present[named]):
        return False
    root, moved = root_of(settings), root_recorded(index_path) != _absolute(settings)
    compared = (present["time"] != before["time"]) | (moved & (present["size"] >= 0))
    known = before.set_index("file")["sha256"]
    try:
        return all(known[file] == file_hash(root / file) for file in present.loc[compared, "file"])
    except OSError:
        return False


def write(settings: dict, index_path: str | Path, before: pd.DataFrame | None, known: dict[str, str]):
    """Record the files that an index was made from.

    Args:
        settings: as `key`.
        before: `look` as it was before the first of them was read.
        known: sha256 by path below the raw root, of files that the index job has read.

    Raises:
        CdfssError: when files changed on the way, as while they are copied.
    """
    after = look(settings)
    if before is None or after is None or not before.equals(after):
        raise CdfssError(
            f"{settings['name']}: files in {root_of(settings)} changed while they were indexed. Run the "
            "same command again once they are all there"
        )
    root = root_of(settings)

    def sha256(file, size):
        try:
            return known.get(file) or (file_hash(root / file) if size >= 0 else "")
        except OSError:  # a bad one, that was left out
            return ""

    hashes = [sha256(*pair) for pair in zip(before["file"], before["size"])]
    _save(before.assign(sha256=hashes), index_path, key(settings, index_path), settings)


def refresh(settings: dict, index_path: str | Path) -> None:
    """Let the record of unchanged pictures say where they lie now, and their times."""
    record, present = _load(record_path(index_path)), look(settings)
    if record is None or present is None:
        return
    before, files = record
    moved = root_recorded(index_path) != _absolute(settings)
    if (moved or not files["time"].equals(present["time"])) and _same(settings, index_path, files, present):
        _save(present.assign(sha256=files["sha256"]), index_path, before, settings)


def root_recorded(index_path: str | Path) -> str | None:
    """The raw root that a record is of; None without one."""
    try:
        return _facts(record_path(index_path))["root"]
    except _DAMAGED:
        return None


def _absolute(settings: dict) -> str:
    return str(root_of(settings).resolve())


def _save(files: pd.DataFrame, index_path, key: str, settings: dict) -> None:
    facts = {"key": key, "root": _absolute(settings)}
    table = pa.Table.from_pandas(files, SCHEMA, preserve_index=False)
    with replacing(record_path(index_path)) as temporary:
        pq.write_table(table.replace_schema_metadata({"cdfss": json.dumps(facts)}), temporary)


def _facts(path: Path) -> dict:
    return json.loads(pq.read_schema(path).metadata[b"cdfss"])


_DAMAGED = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


def _load(path: Path) -> tuple[str, pd.DataFrame] | None:
    try:
        return _facts(path)["key"], pq.read_table(path, partitioning=None).to_pandas()
    except _DAMAGED:
        return None


def digest(files: pd.DataFrame) -> str:
    """16 hexadecimal digits that stand for names, sizes and times of files, as `look` gives them."""
    text = files[["file", "size", "time"]].to_csv(index=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def look(settings: dict) -> pd.DataFrame | None:
    """Files that the index of a split depends on, as they are now; None where there is no folder.

    Those of the pairs that the format's reader finds, with their classes, in its order; where pieces
    have to be made first, those that they are made from.

    Args:
        settings: as `key`.

    Returns:
        Columns file, size and time of SCHEMA.
    """
    root = root_of(settings)
    try:
        if not root.is_dir():
            return None
        pairs = pairs_of(settings)
        files = raw_files(settings) if pairs is None else []
    except (OSError, CdfssError):  # which the index job will name
        return None
    names = [os.path.relpath(file, root) for file in files]
    lines = [(name, *_stat(root / name)) for name in names if is_utf8(name)]
    base, seen = Path() if pairs is None else Path(os.path.relpath(base_of(settings), root)), set()
    for pair in pairs or []:
        # What a list says of a picture is no file; it has a size of -1.
        said = f"{pair.image}: {pair.mask} {pair.class_id} {pair.class_name} {pair.mask_value}"
        lines.append((said, -1, 0))
        for file in (pair.image, pair.mask):
            if file not in seen:
                seen.add(file)
                lines.append(((base / file).as_posix(), *_stat(root / base / file)))
    return pd.DataFrame(lines, columns=SCHEMA.names[:3])


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -2, 0
    return found.st_size, found.st_mtime_ns
