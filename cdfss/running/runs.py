"""Who is at work in a folder: a record of each run of the workflow, and the lock that a killed one left."""

import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

RECORDS = Path(".snakemake/cdfss/runs")  # each file is locked by its process for as long as that lives
LOCKS = Path(".snakemake/locks")  # of Snakemake: there while a run is at work, or after it was killed


def enter(elsewhere: bool) -> list[str]:
    """Record this process as a run in the working folder; what there is to say of other runs in it.

    The lock of a run of this machine that was killed is released.

    Args:
        elsewhere: whether jobs run on other machines, where they may outlive this process.
    """
    mine = {
        "machine": socket.gethostname(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M"),
        "command": " ".join(["snakemake", *sys.argv[1:]]),
        "elsewhere": elsewhere,
    }
    with suppress(OSError):  # a folder that may not be written to; Snakemake says so
        _hold(mine)
    lines, killed = [], []
    for path, run in _others():
        here = run["machine"] == mine["machine"]
        if here and _is_locked(path):
            lines.append(
                f"{_name(run)} is at work in this folder. Wait for its end, or end it with: "
                f"kill {run['process']}"
            )
        elif not _snakemake_holds():
            path.unlink(missing_ok=True)
        elif here and not run["elsewhere"]:
            killed.append((path, run))
        else:
            lines.append(
                f"{_name(run)} is at work in this folder, or was killed. If killed, and no job of it is "
                "left on the cluster (squeue --me): snakemake --unlock, then the same command again"
            )
    if killed and not lines:
        shutil.rmtree(LOCKS, ignore_errors=True)
        for path, run in killed:
            path.unlink(missing_ok=True)
            lines.append(f"{_name(run)} was killed; the lock that it left is released")
    return lines


def at_work() -> list[dict]:
    """Records, as `enter` writes them, of this machine's runs that are at work in the working folder."""
    here = socket.gethostname()
    return [run for path, run in _others() if run["machine"] == here and _is_locked(path)]


def _others() -> Iterator[tuple[Path, dict]]:
    """Records in the working folder that are not of this process."""
    for path in sorted(RECORDS.glob("*.json")):
        try:
            run = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # it ended, or begins, just now
        if path not in _held:
            yield path, run


_held: dict[Path, int] = {}  # records of this process, open and locked


def _hold(run: dict) -> None:
    """Write the record of this process and lock it until the process ends, however it does."""
    path = RECORDS / f"{run['machine']}-{run['process']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of an earlier process of this number
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.write(file, json.dumps(run).encode())
    _held[path] = file


def _is_locked(path: Path) -> bool:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _snakemake_holds() -> bool:
    return any(LOCKS.glob("*.lock"))


def _name(run: dict) -> str:
    return f"{run['command']!r} (process {run['process']} on {run['machine']}, since {run['since']})"
