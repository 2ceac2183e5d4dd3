"""What is installed and found on this machine, and what to do next."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from cdfss import configuration
from cdfss.backbones.facts import BACKBONES
from cdfss.configuration import preflight
from cdfss.configuration.jobs import Jobs
from cdfss.data import download, places
from cdfss.errors import CdfssError
from cdfss.running import devices, files, provenance

GB = 1e9
LEAST_MEMORY, LEAST_DISK = 4 * GB, 2 * GB  # bytes; an evaluation at 400 px takes 2 GB, the demo less


@dataclass(frozen=True)
class Line:
    """Something that was looked at.

    Attributes:
        what: such as "memory".
        found: in words.
        state: "ok"; "note", what some uses need and is not there; "wrong", what nothing works without.
    """

    what: str
    found: str
    state: str = "ok"


def machine() -> list[Line]:
    """Python, packages, processor, memory, disk, devices."""
    lines = [
        Line("cdfss", f"{provenance.made_with()['cdfss']}, {provenance.PACKAGE}"),
        Line("Python", f"{platform.python_version()}, {sys.executable}"),
        *_packages(),
        _torch(),
        _devices(),
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines.append(Line("cores", f"{cores} for this process, {os.cpu_count()} in the machine"))
    memory = psutil.virtual_memory()
    words = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB are free"
    small = memory.available < LEAST_MEMORY
    lines.append(Line("memory", words, "note" if small else "ok"))
    free = files.free_bytes(Path.cwd())
    lines.append(Line("disk", f"{free / GB:.0f} GB are free here", "note" if free < LEAST_DISK else "ok"))
    if reason := files.forbidden(Path("results")):
        lines.append(Line("this folder", reason, "wrong"))
    return lines


def _packages() -> list[Line]:
    """Packages that are missing or older than they may be; one line if all is well."""
    from packaging.requirements import Requirement

    wrong, number = [], 0
    try:
        wanted_texts = metadata.requires("cdfss") or []
    except metadata.PackageNotFoundError:
        return [Line("packages", "cdfss is used from its folder, not installed: not looked at", "note")]
    for text in wanted_texts:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        number += 1
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(Line(wanted.name, f"is not installed; pip install '{wanted}'", "wrong"))
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(Line(wanted.name, f"{found} is too old; pip install '{wanted}'", "wrong"))
    return wrong or [Line("packages", f"all {number} are installed, none too old")]


def _torch() -> Line:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Line("torch", f"cannot be imported ({error}); install it again", "wrong")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "for processors alone"
    return Line("torch", f"{torch.__version__}, {built}, {torch.get_num_threads()} threads")


def _devices() -> Line:
    try:
        kind = devices.wanted("auto")
    except CdfssError as error:
        return Line("devices", str(error), "wrong")
    if kind == "cpu":
        return Line("devices", f"the processor; {devices.no_gpu()}")
    import torch

    named = "; ".join(map(str, devices.visible()))
    if not torch.cuda.is_available():
        return Line("devices", f"{named}, which the installed torch cannot use", "wrong")
    return Line("devices", named)


def weights(folder: str | Path) -> list[Line]:
    """Backbones whose weights are here.

    Args:
        folder: of data, `folder` of a configuration.
    """
    there: list[str] = []
    missing: list[str] = []
    for name, facts in BACKBONES.items():
        file = None if facts.weights is None else Path(folder, "backbones", facts.weights)
        (there if file is None or file.is_file() else missing).append(name)
    lines = [Line("weights", f"of {', '.join(there)}")]
    place = Path(folder, "backbones")
    if missing:
        lines.append(
            Line("other weights", f"are taken from {place}, where they are not: {', '.join(missing)}")
        )
    return lines


def data(jobs: Jobs) -> list[Line]:
    """Data sets of a run, found or not, whole or not."""
    lines = []
    for name in preflight.needed_data(jobs):
        settings = jobs.place_of(name)
        if settings["root"] is not None:
            try:
                there = places.is_there(settings)
            except CdfssError as error:
                lines.append(Line(name, str(error), "note"))
                continue
            if there:
                lines.append(_whole(jobs, name, f"{settings['root']}"))
            else:
                lines.append(Line(name, f"{settings['root']} is not a folder", "note"))
            continue
        home, made = places.home(settings), settings["synthetic"] is not None
        if places.marker(settings).is_file():
            lines.append(_whole(jobs, name, f"{home}, complete"))
            continue
        begun = "is there in part, and goes on" if home.is_dir() else "is not there, and comes"
        reason = None if made else download.obstacle(settings)
        how = "with the first run" if reason is None else f"once this is done:\n{reason}"
        kind = "generated" if made else "download"
        lines.append(Line(name, f"{kind}: {begun} {how} ({home})", "note" if reason else "ok"))
    return lines


def _whole(jobs: Jobs, name: str, place: str) -> Line:
    """A data set that is there, or what is wrong with its files."""
    problems = preflight.problems_of_data(jobs, name)
    return Line(name, "; ".join(dict.fromkeys(problems)), "note") if problems else Line(name, place)


def next_command(file: Path | None, wrong: bool, jobs: Jobs | None, of_data: list[Line]) -> str:
    """The command that a person would most likely run next.

    Args:
        file: configuration that was asked about; None for the default.
        wrong: whether something is that nothing works without.
        jobs: of the configuration; None where there is none here.
        of_data: what `data` found of it.
    """
    if wrong:
        return "mend what is wrong, then: cdfss doctor"
    if jobs is None:
        return "cdfss segment --supports labelled/ --queries new/ --out masks/, or: cdfss init my-run"
    given = f" --configfile {file}" if file else ""
    if preflight.missing(jobs) or any(line.state == "note" for line in of_data):
        return f"cdfss check {file or configuration.DEFAULT}"
    if Path("results", jobs.run.name).is_dir():
        return f"cdfss status{given}"
    place = "" if shutil.which("snakemake") else f"{Path(sys.executable).parent}/"
    return f"{place}snakemake -n{given}"
