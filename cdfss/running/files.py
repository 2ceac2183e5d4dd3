"""Writing files so that a half-written one can never be taken for a result."""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from cdfss.errors import CdfssError

# Numbers of a system's errors: no room, no right to write.
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
LEAST_FREE = 1 << 20  # bytes; with less a library's error that names no reason is taken for a full disk


@contextmanager
def replacing(path: str | Path):
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    After an error, or a kill, `path` is as it was before.

    Raises:
        CdfssError: when the disk is full or the folder may not be written to; when `path` is a
            folder, or below a file.
    """
    path = Path(path)
    if path.is_dir():
        raise CdfssError(f"{path} is a folder, and a file is to be written; name a file")
    above = _nearest(path.parent)
    if not above.is_dir():
        raise CdfssError(f"{path} cannot be written: {above} is a file; name a folder that it is to lie in")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _said(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode  # some libraries make files that only their owner can read
            yield temporary
            temporary.chmod(mode)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path):
    """Give an empty temporary folder beside `path`; put it in the place of `path` when the block ends well.

    Temporary folders in the same place, for whatever path, are removed where their process was
    killed, and left where it runs: it holds a lock file. Without locks of the file system all are left.

    Raises:
        CdfssError: as `replacing`.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    lock = partial.with_name(f"{partial.name}.lock")
    with _said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob("*.partial.lock"):
            with suppress(OSError), other.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other.with_suffix(""), ignore_errors=True)
                other.unlink()
        with lock.open("w") as file:
            try:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                partial.mkdir()
                yield partial
                shutil.rmtree(path, ignore_errors=True)
                os.replace(partial, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                lock.unlink(missing_ok=True)


@contextmanager
def _said(path: Path):
    """Turn errors of a full or forbidden disk, when `path` is written, into a CdfssError for people."""
    try:
        yield
    except CdfssError:
        raise
    except Exception as error:  # torch, safetensors and Arrow have errors of their own for a full disk
        reason = _unwritable(error, path.parent)
        if reason is None:
            raise
        raise CdfssError(f"{path} cannot be written: {reason}; then run the same command again") from error


def _unwritable(error: Exception, folder: Path) -> str | None:
    """Why a folder of the user's cannot be written to and what to do, or None where that is not it."""
    there, free = _nearest(folder), free_bytes(folder)
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL or "No space left" in str(error) or (number is None and free < LEAST_FREE):
        return f"the disk, or your share of it, is full ({free / 1e6:.0f} MB are free); make room on it"
    if number in FORBIDDEN and str(error.filename).startswith(str(folder)):
        return _forbidden(there, error)
    return None


def _forbidden(folder: Path, error: OSError) -> str:
    advice = "change its owner or rights"
    if error.errno == errno.EROFS:
        advice = "mount its disk for writing (a system takes that away after errors; then see to the disk)"
    return f"{folder} may not be written to ({error.strerror}); {advice}"


def forbidden(folder: Path) -> str | None:
    """Why a folder, or the nearest above it that exists, takes no file and what to do; None if it does."""
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return _forbidden(there, error) if error.errno in FORBIDDEN else None


def _nearest(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that `path` is on, or will be."""
    return shutil.disk_usage(_nearest(path)).free


def hash_if_there(path: str | Path) -> str:
    """`file_hash`, or an empty text for a file that cannot be read."""
    try:
        return file_hash(path)
    except OSError:
        return ""


def file_hash(path: str | Path, kind: str = "sha256") -> str:
    """Hexadecimal hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
