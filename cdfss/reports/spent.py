"""What a run has taken: seconds and memory of its jobs by rule, room on the disk by folder."""

import os
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from cdfss.data import tracking
from cdfss.data.index import load as load_index
from cdfss.errors import CdfssError

COLUMNS = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "memory_mb"}  # as Snakemake calls them


def of_jobs(folder: str | Path) -> pd.DataFrame:
    """Every job of a run that has ended, in the order in which they did.

    Args:
        folder: results/<name>, where Snakemake writes a benchmark of every job in `benchmarks/`. Of a job
            that ran several times it is the last one's.

    Returns:
        Columns rule, name (what tells it from others of its rule), ended (seconds since 1970), seconds,
        cpu_seconds (of all threads), memory_mb (the most that it and its processes held); empty where
        nothing has ended.

    Raises:
        CdfssError: when a file is no benchmark.
    """
    place = Path(folder, "benchmarks")
    lines = [pd.DataFrame(columns=["rule", "name", "ended", *COLUMNS.values()])]
    for file in sorted(place.rglob("*.tsv"), key=lambda file: file.stat().st_mtime):
        try:
            measured = pd.read_csv(file, sep="\t")[list(COLUMNS)].rename(columns=COLUMNS)
        except (OSError, ValueError, KeyError) as error:
            raise CdfssError(f"{file} is no benchmark of Snakemake ({error}); delete it") from error
        named = {"rule": Path(file.relative_to(place).parts[0]).stem, "name": file.stem}
        named["ended"] = file.stat().st_mtime
        lines.append(measured.apply(pd.to_numeric, errors="coerce").assign(**named))
    return pd.concat(lines[1:] or lines, ignore_index=True)


def by_rule(folder: str | Path) -> pd.DataFrame:
    """Jobs of a run by rule, in the order in which the rules first ended a job.

    Args:
        folder: as `of_jobs`.

    Returns:
        Index rule; columns jobs, seconds (of all jobs), longest (seconds of a job), cpu_seconds (of all
        jobs and their threads), memory_mb (the most that a job and its processes held). What Snakemake
        could not measure, as in a job of less than a moment, does not count.

    Raises:
        CdfssError: when there are no benchmarks, or one is none.
    """
    ended = of_jobs(folder)
    if not any(Path(folder, "benchmarks").rglob("*.tsv")):
        raise CdfssError(
            f"{Path(folder, 'benchmarks')} holds no benchmark (.tsv); give the folder of a run, "
            "results/<name>, in which a job has ended"
        )
    jobs = ended.groupby("rule", sort=False)
    return pd.DataFrame(
        {
            "jobs": jobs.size(),
            "seconds": jobs["seconds"].sum(),
            "longest": jobs["seconds"].max(),
            "cpu_seconds": jobs["cpu_seconds"].sum(min_count=1),
            "memory_mb": jobs["memory_mb"].max(),
        }
    )


def by_folder(folder: str | Path) -> pd.DataFrame:
    """Folders of a run and of the data sets that it has indexed, where they are.

    Args:
        folder: as `by_rule`.

    Returns:
        Index folder; columns files, mb (as they fill the disk, in 1e6 bytes).
    """
    places = [path for path in sorted(Path(folder).iterdir()) if path.is_dir()]
    for index in sorted(Path(folder, "index").rglob("*.parquet")):
        if index.name.endswith(".files.parquet"):
            continue
        raw = tracking.root_recorded(index)
        places += [Path(raw)] * (raw is not None)
        try:
            root = load_index(index).root
        except CdfssError:
            continue  # the job that reads it says so
        if raw is None or not root.is_relative_to(raw):
            places.append(root)
    sizes = {str(path): _size(path) for path in places if path.is_dir()}
    return pd.DataFrame.from_dict(sizes, "index", columns=["files", "mb"])


def _size(folder: Path) -> tuple[int, float]:
    """Files in and below a folder and the room that they take, in 1e6 bytes."""
    number = blocks = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            number += 1
            blocks += os.lstat(os.path.join(parent, name)).st_blocks
    return number, 512 * blocks / 1e6


def report(folder: str | Path) -> str:
    """Both as tables in text; raises as `by_rule`."""
    rules, folders = by_rule(folder), by_folder(folder)
    here = os.getcwd() + os.sep
    lines = [
        (rule, f"{row.jobs:,.0f}", *(_number(value) for value in row[1:]))
        for rule, row in zip(rules.index, rules.itertuples(index=False))
    ]
    total = ("all", f"{rules['jobs'].sum():,}", _number(rules["seconds"].sum()), "")
    lines.append((*total, _number(rules["cpu_seconds"].sum()), ""))
    head = ("rule", "jobs", "seconds", "longest", "on the processor, s", "most memory, MB")
    room = [
        (path.removeprefix(here), f"{row.files:,.0f}", _number(row.mb))
        for path, row in zip(folders.index, folders.itertuples(index=False))
    ]
    room.append(("all", f"{folders['files'].sum():,}", _number(folders["mb"].sum())))
    tables = (lines, head), (room, ("folder", "files", "on the disk, MB"))
    return "\n\n".join(
        tabulate(
            rows, names, "github", disable_numparse=True, colalign=["left"] + ["right"] * len(names[1:])
        )
        for rows, names in tables
    )


def _number(value: float) -> str:
    return "not measured" if pd.isna(value) else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"
