"""Pictures and masks of an index at one size, decoded once, for all jobs to read.

They lie in a folder of Arrow IPC files, uncompressed, that are mapped into memory. Each file holds rows
that no other there holds; a row is what one read needs:

kind: "image" or "mask".
file: path below the index's root.
mask_value: class value in an index mask; null for a picture and a binary mask.
pixels: of a picture (S, S, 3) uint8, as `Index.read_image` gives it from the raw file; of a mask its
    foreground and, where it has any, its void, packed (`masks.bits_to_bytes`).
own: of a mask, its counts at its own size (`masks.own_to_bytes`); null for a picture.
sha256: of pixels and own, which every read compares.

File metadata: the index's identity, the image size, and the code that decides the bytes. Files of
others in the folder are not taken. What is in none is read from the raw files.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cdfss.data import masks
from cdfss.errors import CdfssError
from cdfss.running import provenance

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("file", pa.string()),
        ("mask_value", pa.int16()),
        ("pixels", pa.binary()),
        ("own", pa.binary()),
        ("sha256", pa.binary(32)),
    ]
)

_IN_WORDS = {"index": "index", "image_size": "image size", "code": "version of cdfss"}
# Makes them anew without anything else.
ANEW = "run the same command once with -R pictures --until pictures"


def facts_of(identity: str, size: int) -> dict:
    """What files must say of themselves to be taken.

    Args:
        identity: `Index.identity`.
        size: pixels of a side.
    """
    code = provenance.code("data.masks", "data.pictures", "data.resized")
    return {"index": identity, "image_size": size, "code": code}


def key_of(kind: str, row) -> tuple[str, str, int | None]:
    """What a row of the index is found by here.

    Args:
        kind: "image" or "mask".
    """
    return kind, row[kind], value_of(row) if kind == "mask" else None


def value_of(row) -> int | None:
    """The class value of a row of the index in an index mask; None for a binary mask."""
    return None if pd.isna(row["mask_value"]) else int(row["mask_value"])


def sha256(pixels, own) -> bytes:
    """The hash of a row."""
    found = hashlib.sha256(pixels)
    found.update(own or b"")
    return found.digest()


def schema_of(path: Path) -> pa.Schema:
    """Schema of one of the files, whose end says that it is whole.

    Raises:
        CdfssError: when it is damaged.
    """
    return _open(path).schema


def _open(path: Path) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from error


def _damaged(path: Path, what: str) -> CdfssError:
    return CdfssError(
        f"{path}, pictures that were prepared for jobs, is damaged ({what}). Delete it: raw files are then "
        f"read in its place; or to make it anew, delete it and {ANEW}"
    )


class Resized:
    """Pictures and masks of an index at one size, as far as they are prepared. For several threads, and
    for processes that are forked from this one.

    Args:
        folder: of the files; there may be none.
        identity: `Index.identity`.
        size: pixels of a side.
        log: takes a line of text that says which files are not taken.

    Raises:
        CdfssError: when a file is damaged.
    """

    def __init__(self, folder: str | Path, identity: str, size: int, log=print):
        self.folder, self.size = Path(folder), size
        self._places: dict[tuple, tuple] = {}
        wanted, others = facts_of(identity, size), []
        for path in sorted(self.folder.glob("*.arrow")):
            found = provenance.facts(schema_of(path))
            if found == wanted:
                self._add(path)
                continue
            differs = [what for name, what in _IN_WORDS.items() if found.get(name) != wanted[name]]
            others.append(f"{path} is of another {' and '.join(differs)}")
        if others:
            log(f"{'; '.join(others)} than this job reads: not taken. To make them anew, {ANEW}")

    def _add(self, path: Path) -> None:
        try:
            table = _open(path).read_all()
            keys = zip(*(table[name].to_pylist() for name in ("kind", "file", "mask_value")), strict=True)
            columns = path, table["pixels"], table["own"], table["sha256"]
        except (pa.ArrowException, ValueError, OSError, KeyError) as error:
            raise _damaged(path, " ".join(str(error).split())[:200]) from error
        self._places |= {key: (*columns, number) for number, key in enumerate(keys)}

    def __len__(self):
        return len(self._places)

    def holds(self, key: tuple) -> bool:
        """Whether there is a row.

        Args:
            key: `key_of`.
        """
        return key in self._places

    def image(self, row) -> np.ndarray | None:
        """(S, S, 3) uint8 of a row of the index; None where it is not here.

        Raises:
            CdfssError: when its bytes are not what was written.
        """
        found = self._checked(key_of("image", row))
        return found and np.frombuffer(found[0], np.uint8).reshape(self.size, self.size, 3).copy()

    def mask(self, row) -> tuple[np.ndarray, np.ndarray] | None:
        """Foreground and void (S, S) bool of a row of the index; as `image`."""
        found = self._checked(key_of("mask", row))
        return found and self._bits(found[0])

    def whole_mask(self, row) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """What `masks.read_whole_mask` gives of a row of the index; as `image`."""
        found = self._checked(key_of("mask", row))
        if found is None:
            return None
        shape = int(row["height"]), int(row["width"])
        return *self._bits(found[0]), masks.own_from_bytes(found[1], shape, self.size)

    def _bits(self, content) -> tuple[np.ndarray, np.ndarray]:
        foreground, *void = masks.bits_from_bytes(content, self.size)
        return foreground, void[0] if void else np.zeros_like(foreground)

    def _checked(self, key: tuple) -> tuple | None:
        """Pixels and own counts of a row, where they lie in the file."""
        place = self._places.get(key)
        if place is None:
            return None
        path, *columns, number = place
        pixels, own, written = (column[number].as_buffer() for column in columns)
        if sha256(pixels, own) != written.to_pybytes():
            raise _damaged(path, f"{key[1]} in it has another hash than when it was written")
        return pixels, own


def load(marker: str | Path, identity: str, name: str) -> Resized:
    """What was prepared, by the file that the job `pictures` ends with.

    Args:
        identity, name: of the index.

    Raises:
        CdfssError: when it is of another index, or damaged.
    """
    try:
        found = json.loads(Path(marker).read_text("utf-8"))
        folder, of, size = found["folder"], found["index"], int(found["image_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise provenance.damaged(marker, error) from error
    if of != identity:
        raise CdfssError(
            f"{marker} is of other pictures of {name} than the index holds. To prepare those of the index, "
            f"{ANEW}"
        )
    prepared = Resized(folder, identity, size)
    if not len(prepared):
        print(f"{name}: no prepared pictures in {folder}; raw files are read, which takes longer")
    return prepared
