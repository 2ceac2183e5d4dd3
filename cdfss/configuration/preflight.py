"""What can be known to be wrong before the first job: data that is missing, classes too small."""

import os
import shutil
import sys
from pathlib import Path

from cdfss.backbones.facts import facts_of
from cdfss.configuration.jobs import Jobs
from cdfss.configuration.schema import Configuration
from cdfss.data import download, places, readers, tracking
from cdfss.errors import CdfssError, again
from cdfss.methods import hosts, known
from cdfss.running import devices, files, provenance


def needed_data(jobs: Jobs) -> list[str]:
    """Data sets that the run reads."""
    return list(dict.fromkeys(name for name, _ in jobs.indexes))


def missing(jobs: Jobs) -> list[str]:
    """Every data set or file that is needed, not there and not to be had without the user."""
    lines = []
    for name in needed_data(jobs):
        settings = jobs.place_of(name)
        if jobs.run.data[name].synthetic is not None:
            continue
        if jobs.run.data[name].root is not None:
            try:
                there = places.is_there(settings)
            except CdfssError as error:
                lines.append(str(error))
                continue
            if not there:
                lines.append(
                    f"data.{name}.root: {settings['root']} is not a folder; set it to your copy of the "
                    "data set, or remove it to download the data set (docs/explanation/data.md)"
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
    for host in dict.fromkeys(host for host, _ in jobs.models):
        checkpoint = jobs.run.source.of(host).checkpoint
        if checkpoint is not None and not checkpoint.is_file():
            key = hosts.key_of(host)
            lines.append(f"{key}.checkpoint: {checkpoint} is not a file; set it to a trained model")
    for backbone in jobs.backbones:
        weights = weights_file(jobs.run, backbone)
        if weights and (reason := download.backbone_obstacle(backbone, weights)):
            lines.append(reason)
    return lines


def _complete(settings: dict) -> bool:
    return places.marker(settings).is_file()


def problems(jobs: Jobs, here: bool = True, limit: int | None = None) -> list[str]:
    """Everything that would make a job of this run fail and can be seen now; empty if nothing.

    Args:
        here: whether jobs run on this machine, so that a GPU that is asked for must be in it.
        limit: GPUs that jobs may use at once, `--resources gpu=N`.
    """
    if here:
        try:
            devices.wanted(jobs.run.device)
        except CdfssError as error:
            return [str(error)]
        gpus = [] if jobs.run.device == "cpu" else devices.visible()
        if jobs.run.device != "cpu" and limit is not None and limit > max(1, len(gpus)):
            if not gpus:
                return [
                    f"--resources gpu={limit} asks for GPUs, and this machine shows none; leave it out to "
                    "compute on the processor"
                ]
            named = "; ".join(map(str, gpus))
            return [
                f"--resources gpu={limit} asks for more GPUs than the {len(gpus)} that this machine shows; "
                f"use --resources gpu={len(gpus)}: {named}"
            ]
        # What torch makes its code with: for a processor in C++, for a GPU with Triton, in C.
        if gpus:
            language, variable, compilers = "C", "CC", ["gcc", "clang"]
        else:
            language, variable = "C++", "CXX"
            compilers = ["clang++" if sys.platform == "darwin" else "g++"]
        compilers = [os.environ[variable]] if os.environ.get(variable) else compilers
        if jobs.run.compute.compile and not any(map(shutil.which, compilers)):
            return [
                f"compute.compile: true needs a {language} compiler, and {' or '.join(compilers)} is not "
                f"found; install it, or set {variable} to another"
            ]
    lines = [
        line for line in map(files.forbidden, (Path("results"), Path("results", jobs.run.name))) if line
    ]
    if lines:
        return [f"{lines[0]}; then run the same command again"]
    lines = missing(jobs)
    if lines:
        return [f"{len(lines)} of the inputs are missing:", *(f"- {line}" for line in lines)]
    return [line for name in needed_data(jobs) for line in problems_of_data(jobs, name)]


def problems_of_data(jobs: Jobs, data: str) -> list[str]:
    """What is wrong with a data set that is there, by file names alone; empty if nothing."""
    lines = []
    for split in [split for name, split in jobs.indexes if name == data]:
        settings = jobs.index_settings(data, split) | jobs.place_of(data)
        # Without a root of the user's, files are only worth a look once all of them are there.
        if settings["root"] is not None or _complete(settings):
            lines += _problems_of(jobs, data, split, settings)
    return lines


def _problems_of(jobs: Jobs, name: str, split: str, settings: dict) -> list[str]:
    """A layout that no reader knows, an empty split, too few pictures, by file names alone."""
    try:
        pairs = readers.pairs_of(settings | {"split": None})
    except CdfssError as error:
        return [str(error)]
    if pairs is None:
        return []  # has first to be cut or converted; the index job looks
    sizes: dict[str, int] = {}
    for pair in pairs:
        if pair.split == split:
            sizes[pair.class_name] = sizes.get(pair.class_name, 0) + 1
    if not sizes:
        there = ", ".join(sorted({pair.split for pair in pairs})) or "none"
        domain = jobs.run.domains.get(name)
        key = f"domains.{name}.split" if domain and domain.split == split else "source.validation.split"
        return [f"{key} is {split!r}; the splits of {name} are {there}"]
    if name not in jobs.run.domains or jobs.run.domains[name].split != split:
        return []
    least = max([2, *jobs.run.shots])
    small = [f"{c} ({n})" for c, n in sizes.items() if n < least]
    if small:
        return [
            f"shots is {jobs.run.shots}: classes of {name} must have at least {least} pictures, too few "
            f"have {', '.join(small[:10])}; allowed for {name} are shots up to {min(sizes.values())}"
        ]
    if settings["format"] == "fss1000" and jobs.run.domains[name].episodes > sum(sizes.values()):
        return [
            f"domains.{name}.episodes is {jobs.run.domains[name].episodes}; split {split!r} has "
            f"{sum(sizes.values())} pictures and each is a query once, so at most that many"
        ]
    return []


def warnings(jobs: Jobs, gpus: int, limit: int | None, cores: int | None = None) -> list[str]:
    """What the user should know about a plan before it runs.

    Args:
        gpus: that one training or evaluation job asks for.
        limit: GPUs that jobs may use at once, `--resources gpu=N`.
        cores: that jobs may use at once, `--cores N`; None where they run elsewhere.
    """
    lines, there = [], len(devices.visible())
    if not gpus and jobs.run.device == "auto":
        lines.append(f"device: auto: {devices.no_gpu()}; training and evaluation use the processor")
    if gpus and limit is not None and limit < there:
        lines.append(f"{limit} of {there} GPUs will be in use at once; --resources gpu={there} uses all")
    lines += _idle(jobs, limit, "GPUs") if gpus else _idle(jobs, cores, "cores")
    lines += [f"missing: {line}" for line in missing(jobs)]
    return lines


def _idle(jobs: Jobs, places: int | None, named: str) -> list[str]:
    """A line where there are fewer evaluation jobs than places for them: the `shards` that fill these."""
    run = jobs.run
    most = min(domain.episodes for domain in run.domains.values())

    def number(shards: int) -> int:
        lists = len(run.domains) * len(run.shots) * len(run.seeds)
        total = 0
        for rule, variants in jobs.families.items():
            if jobs.on_device(rule):
                split = 1 if rule.endswith("_in_order") else shards
                total += lists * len(jobs.sources_of(variants[0])) * split
        return total

    now = number(run.shards)
    if places is None or not 0 < now < places or run.shards >= most:
        return []
    enough = next((s for s in range(run.shards + 1, most) if number(s) >= places), most)
    return [
        f"{now} evaluation jobs for {places} {named}; with shards: {enough} in the configuration there are "
        f"{number(enough)} (before the first run: rows of other shards are not taken over)"
    ]


SEEN = 300  # files whose code is looked at in a plan; tables look at all of theirs


def older_code(jobs: Jobs, folder: str | Path) -> list[str]:
    """What results were made by other code than this, and how to make them again; empty if nothing was.

    Args:
        folder: results of the run.
    """
    files = [
        file for part in ("rows", "analysis") for file in sorted(Path(folder, part).rglob("*.parquet"))
    ]
    files = files[:: -(-len(files) // SEEN) or 1] + list(Path(folder, "source").glob("*/history.parquet"))
    older: dict[tuple, int] = {}
    for file in files:
        try:
            found = provenance.facts(provenance.read_schema(file))
        except CdfssError:
            continue  # the job that reads it says so
        if _is_of_now(found):
            continue
        key = (found.get("kind", "rows"), found.get("method"))
        older[key] = older.get(key, 0) + 1
    if not older:
        return []
    named = ", ".join(
        f"{number} of {kind}{f' of {method}' if method and kind == 'rows' else ''}"
        for (kind, method), number in older.items()
    )
    return [
        f"{folder} holds results of another version of cdfss than this one ({named}). They are not made "
        "again by themselves, and tables refuse to mix them with new ones. To make them anew, "
        + again(*dict.fromkeys(rule for key in older for rule in _rules_of(jobs, *key)))
    ]


def _is_of_now(found: dict) -> bool:
    """Whether a file's facts name the code that would make it now."""
    kind, method = found.get("kind"), found.get("method")
    if kind not in provenance.CODE:
        return False
    if kind == "training":
        settings = found.get("settings", {})
        return settings.get("host", "hsnet") in hosts.HOSTS and found.get("code") == hosts.code_of(settings)
    if found.get("code") != provenance.code(*provenance.CODE[kind]):
        return False
    settings = found.get("settings", {})
    if method not in known.METHODS or "code" in settings:
        return True  # code of the user's is among the settings of its jobs, which run again
    try:
        return found.get("method_codes") == known.codes_of(method, settings.get("settings", {}))
    except ValueError:  # settings of another version
        return False


def _rules_of(jobs: Jobs, kind: str, method: str | None) -> list[str]:
    """Rules of a run that make files of a kind; of rows of a method that it no longer has, all of them."""
    if kind in ("measurements", "training"):
        return {"measurements": ["features", "filtering"], "training": ["source"]}[kind]
    of_method = [name for name, entry in jobs.run.variants.items() if entry.method == method]
    families = jobs.families.items()
    return [rule for rule, names in families if set(names) & set(of_method)] or list(jobs.families)


def stale_indexes(jobs: Jobs, index_file, pictures_of) -> list[str]:
    """Indexes whose pictures have changed since, and what to do should the plan not know it.

    Snakemake remembers with what a job has run in a folder of its own, which may be deleted or older.

    Args:
        index_file, pictures_of: give the path of an index, and its settings and `tracking.key`, by data
            set and split.
    """
    return [
        f"pictures of {data} ({split}) have changed since they were indexed. If the plan holds no job "
        f"`index`, {again('index')}"
        for data, split in jobs.indexes
        if tracking.recorded(index_file(data, split)) not in (None, pictures_of(data, split)[1])
    ]


def weights_file(run: Configuration, backbone: str) -> str | None:
    """Path of a backbone's published weights, or None where they are an installed package."""
    weights = facts_of(backbone).weights
    return None if weights is None else f"{run.folder}/backbones/{weights}"
