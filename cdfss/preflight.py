"""What can be known to be wrong before the first job: data that is missing, classes too small."""

import os
import shutil
import sys
from pathlib import Path

from cdfss import devices
from cdfss.backbone_facts import BACKBONES
from cdfss.configuration import Configuration
from cdfss.datasets import download, index
from cdfss.errors import CdfssError


def needed_data(run: Configuration) -> list[str]:
    """Data sets that the run reads."""
    names = list(run.domains)
    if run.source.checkpoint is None and run.models:
        names += [run.source.data, run.source.validation.data]
    return list(dict.fromkeys(names))


def missing(run: Configuration) -> list[str]:
    """Every data set or file that is needed, not there and not to be had without the user."""
    lines = []
    for name in needed_data(run):
        settings = run.index_settings(name)
        if run.data[name].synthetic is not None:
            continue
        if run.data[name].root is not None:
            if not Path(settings["root"]).is_dir():
                lines.append(
                    f"data.{name}.root: {settings['root']} is not a folder; set it to your copy of the "
                    "data set, or remove it to download the data set (docs/data.md)"
                )
            continue
        if _complete(settings):
            continue
        try:
            reason = download.obstacle(settings)
        except CdfssError as error:
            reason = str(error)
        if reason:
            lines.append(reason)
    checkpoint = run.source.checkpoint
    if checkpoint is not None and not checkpoint.is_file():
        lines.append(f"source.checkpoint: {checkpoint} is not a file; set it to a trained model")
    return lines


def _complete(settings: dict) -> bool:
    return (Path(settings["folder"]) / settings["name"] / "complete.json").is_file()


def problems(run: Configuration, here: bool = True) -> list[str]:
    """Everything that would make a job of this run fail and can be seen now; empty if nothing.

    Args:
        here: whether jobs run on this machine, so that a GPU that is asked for must be in it.
    """
    if here:
        try:
            devices.wanted(run.device)
        except CdfssError as error:
            return [str(error)]
        compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # torch's
        if run.compute.compile and shutil.which(compiler) is None:
            return [
                f"compute.compile: true needs a C++ compiler, and {compiler} is not found; install it, or "
                "set CXX to another"
            ]
    lines = missing(run)
    if lines:
        return [f"{len(lines)} of the inputs are missing:", *(f"- {line}" for line in lines)]
    for name in needed_data(run):
        settings = run.index_settings(name)
        # Without a root of the user's, files are only worth a look once all of them are there.
        if settings["root"] is not None or _complete(settings):
            lines += _problems_of(run, name, settings)
    return lines


def _problems_of(run: Configuration, name: str, settings: dict) -> list[str]:
    """A layout that no reader knows, or classes too small for the shots, by file names alone."""
    try:
        if settings["format"] in ("deepglobe", "pascal"):
            return []  # may first have to be cut or converted; the index job looks
        pairs = index.list_raw(settings).pairs
    except CdfssError as error:
        return [str(error)]
    if name not in run.domains:
        return []
    split, sizes = run.domains[name].split, {}
    for pair in pairs:
        if pair.split == split:
            sizes[pair.class_name] = sizes.get(pair.class_name, 0) + 1
    if not sizes:
        there = ", ".join(sorted({pair.split for pair in pairs})) or "none"
        return [f"domains.{name}.split is {split!r}; its splits are {there}"]
    least = max([2, *run.shots])
    small = [f"{c} ({n})" for c, n in sizes.items() if n < least]
    if small:
        return [
            f"shots is {run.shots}: classes of {name} must have at least {least} pictures, too few have "
            f"{', '.join(small[:10])}; allowed for {name} are shots up to {min(sizes.values())}"
        ]
    return []


def warnings(run: Configuration, gpus: int, gpus_limited: bool) -> list[str]:
    """What the user should know about a plan before it runs.

    Args:
        gpus: that one training or evaluation job asks for.
        gpus_limited: whether the number of GPUs in use at once is limited.
    """
    lines = []
    if not gpus and run.device == "auto":
        lines.append("device: auto finds no GPU here; training and evaluation use the processor")
    if gpus and not gpus_limited and devices.visible():
        lines.append(
            f"no --resources gpu=N given: GPU jobs will start on every free core and wait for one of "
            f"{len(devices.visible())} GPUs; give gpu={len(devices.visible())}"
        )
    lines += [f"missing: {line}" for line in missing(run)]
    return lines


def backbone_file(run: Configuration) -> str | None:
    """Path of the backbone's ImageNet weights, or None where they are an installed package."""
    weights = BACKBONES[run.backbone].weights
    return None if weights is None else f"{run.folder}/backbones/{weights}"
