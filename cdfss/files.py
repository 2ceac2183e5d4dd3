"""Writing files so that a half-written one can never be taken for a result."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path):
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    After an error, or a kill, `path` is as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_hash(path: str | Path, kind: str = "sha256") -> str:
    """Hexadecimal hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
