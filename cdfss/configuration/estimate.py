"""What a run will take, before it starts: hours and room on the disk, from what was measured elsewhere.

Work is counted in G (1e9) multiply-adds, as in the page on performance, and divided by what this machine
reaches in a matrix product. Everything is scaled from measurements at 400 px.
"""

import math
from dataclasses import dataclass, replace

from cdfss.configuration.jobs import Jobs
from cdfss.configuration.preflight import needed_data, weights_file
from cdfss.configuration.schema import SOURCE_SPLIT
from cdfss.data import download, places, readers
from cdfss.errors import CdfssError
from cdfss.methods.modules.known import WHOLE
from cdfss.reports import prepared

SIZE = 400  # pixels at which all of this was counted
# G multiply-adds of a pass at SIZE, counted with torch's FlopCounterMode over the maps that are used.
PASS = {
    "resnet18": 5.9,
    "resnet34": 11.9,
    "resnet50": 13.2,
    "resnet101": 25.1,
    "vgg16": 48.9,
    "efficientnet_lite0": 1.1,
    "convnext_tiny": 15.4,
    "vit_small_patch16_384": 17.1,
    "vit_base_patch16_384": 60.8,
    "deit_base_distilled_patch16_384": 60.9,
    "vit_small_patch14_reg4_dinov2": 24.8,
    "vit_base_patch14_reg4_dinov2": 85.4,
    "vit_small_patch16_dinov3": 17.2,
    "vit_base_patch16_dinov3": 61.2,
}
# Of HSNet's correlations and learner at SIZE, ResNet-50, 1 shot: a step of tuned modules; a prediction and
# an episode of source training, without their passes (docs, performance).
STEP, PREDICTION, TRAINING = 18.9, 15.3, 43.5
CALL = 1.2  # of a step or prediction, however small: what is no product (the demo's 0.03 s)
WHOLE_STEP = 5.0  # times a step of modules, where the learner or the backbone is tuned (as timed in demos)
# Methods without steps, G at SIZE: for a support and for a query, from seconds of the demo's rows.
UNTRAINED = {"ridge": (25.0, 20.0), "propagation": (56.0, 56.0), "prototypes": (3.5, 0.7)}
SIDE = 512  # of the product that tells a core's rate: short enough not to be interrupted
SHARE = 0.75  # of a product's rate that steps, predictions and training reach (0.68 to 0.92)
GPU_RATE = 5000.0  # G multiply-adds a second in this mix: an assumption, not measured
START = {"device": 4.0, "other": 3.0}  # seconds until a job has imported what it needs
SHOWN = 3.0  # processor seconds of a table, figure, gallery or grid
DRAW = 0.05  # processor seconds to generate one at full size
READ, READ_SMALL = 0.15, 0.02  # processor seconds to index and prepare a picture and its mask; of the demo
FACTOR = {"cpu": 2.0, "gpu": 4.0}  # by which hours may be off, either way
ASSUMED = 300  # pictures of a data set of which nothing is known
MB_OF_PICTURE, MB_OF_PREDICTION, MB_OF_ROW = 0.54, 0.002, 0.0006  # at SIZE; with masks; with their copies
MB_OF_MODEL = 60.0  # a source model and the state of its training
MB_OF_FIGURES = 40.0  # figures and gallery of a domain and number of shots, at most


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        what: in words.
        work: G multiply-adds on a device.
        seconds: of one core, besides.
        hours: of the run that both take, with all that is given at work.
    """

    what: str
    work: float
    seconds: float
    hours: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        parts: of its time.
        hours: with all that is given at work.
        factor: by which these may be off, either way.
        disk: MB by what fills it.
        notes: what was assumed.
    """

    parts: list[Part]
    hours: float
    factor: float
    disk: dict[str, float]
    notes: list[str]


def rate_of_core() -> float:
    """G multiply-adds a second of a matrix product on one core of this machine, the fastest of some."""
    import time

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = torch.randn(SIDE, SIDE)
        best, end = math.inf, time.perf_counter() + 0.5
        while time.perf_counter() < end:
            begin = time.perf_counter()
            one @ one
            best = min(best, time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return SIDE**3 / best / 1e9


def estimate(jobs: Jobs, rate: float, cores: int, gpus: int = 0) -> Estimate:
    """Hours and disk of a run, with nothing of it made yet.

    Args:
        rate: G multiply-adds a second of a product on one core (`rate_of_core`).
        cores: that jobs may use at once.
        gpus: that they may use at once; 0 computes on the processor.
    """
    run = jobs.run
    notes: list[str] = []
    entries = {pair: _number(jobs, *pair, "entries", notes) for pair in jobs.indexes}
    parts = [_data(jobs, entries), *_training(jobs, entries), *_evaluation(jobs), *_analysis(jobs)]
    lists = len(run.domains) * len(run.shots)
    parts.append(Part("tables, figures and the page", 0.0, SHOWN * (20 + 2 * lists)))
    device_rate = GPU_RATE if gpus else rate * SHARE
    for place, part in enumerate(parts):
        at_once = _at_once(jobs, part, cores, gpus)
        hours = part.work / device_rate / at_once / 3600 + part.seconds / cores / 3600
        parts[place] = replace(part, hours=hours)
    if gpus:
        notes.append(
            f"a GPU is taken to sustain {GPU_RATE / 1000:.0f} T multiply-adds a second: not measured"
        )
    else:
        notes.append(
            f"one core of this machine makes a matrix product at {rate:.0f} G multiply-adds a second"
        )
    factor = FACTOR["gpu" if gpus else "cpu"]
    return Estimate(parts, sum(part.hours for part in parts), factor, _disk(jobs, notes), notes)


def _scale(size: int) -> float:
    """Of what a pass takes, by the number of positions."""
    return (size / SIZE) ** 2


def _pairs_scale(size: int) -> float:
    """Of what correlations take: positions of the query times squeezed ones of the support."""
    return _scale(size) * math.ceil(size / 256) ** 4 / math.ceil(SIZE / 256) ** 4


def _number(jobs: Jobs, data: str, split: str, kind: str, notes: list[str]) -> int:
    """Pictures of a split, or its entries (of a picture and a class): as they lie there, else as published,
    else an assumption.
    """
    settings = jobs.index_settings(data, split) | jobs.place_of(data)
    try:
        pairs = readers.pairs_of(settings) if places.is_there(settings) else None
    except (CdfssError, OSError):
        pairs = None
    if pairs is not None:
        return len(pairs if kind == "entries" else {pair.image for pair in pairs})
    real = settings["synthetic"] is None or jobs.run.scale  # generated as large as the real one
    published = prepared.published().get(settings["format"], []) if real else []
    mine = [one for one in published if one.get("split", split) == split]
    of_kind = [one[kind] for one in mine if kind in one] or [
        one["entries"] for one in mine if "entries" in one
    ]
    if of_kind:
        return math.ceil(max(of_kind) * (1.0 if settings["synthetic"] is None else jobs.run.scale or 1.0))
    notes.append(f"{data} ({split}) is not there yet; {ASSUMED} pictures are assumed")
    return ASSUMED


def _data(jobs: Jobs, entries: dict) -> Part:
    demo = {name for name, data in jobs.run.data.items() if data.synthetic and not jobs.run.scale}
    made = DRAW if jobs.run.scale else 0.0
    each = [number * (READ_SMALL if name in demo else READ + made) for (name, _), number in entries.items()]
    return Part("index and pictures", 0.0, sum(each))


def _training(jobs: Jobs, entries: dict) -> list[Part]:
    """A part for each source model that is trained."""
    run, parts = jobs.run, []
    for host, seed in jobs.models:
        if seed is None:
            continue
        epochs = run.source.of(host).epochs or run.source.epochs
        one_pass = PASS[run.backbone_of_host(host)] * _scale(run.image_size)
        learner = _pairs_scale(run.image_size)
        episodes = entries[run.source.data, SOURCE_SPLIT] * epochs
        validated = epochs * run.source.validation.episodes
        work = episodes * (CALL + 2 * one_pass + TRAINING * learner)
        work += validated * (CALL + 2 * one_pass + PREDICTION * learner)
        parts.append(Part(f"source training of {host}, seed {seed}", work, START["device"]))
    return parts


def _evaluation(jobs: Jobs) -> list[Part]:
    """A part for each family of variants."""
    run, parts = jobs.run, []
    for family, variants in jobs.families.items():
        work = seconds = 0.0
        for domain, shot in ((domain, shot) for domain in run.domains for shot in run.shots):
            episodes = run.domains[domain].episodes * len(run.seeds)
            sources = len(jobs.sources_of(variants[0]))
            on_device = jobs.on_device(family)
            seconds += len(run.seeds) * sources * START["device" if on_device else "other"]
            seconds += 0.0 if on_device else 0.01 * episodes * len(variants)
            if on_device:
                each = (_of_episode(jobs, name, domain, shot) for name in variants)
                work += episodes * sources * sum(each)
        parts.append(Part(f"{family}: {len(variants)} variants", work, seconds))
    return parts


def _of_episode(jobs: Jobs, variant: str, domain: str, shot: int, steps: int | None = None) -> float:
    """G multiply-adds of fitting a variant to k supports and predicting a query."""
    run, size = jobs.run, jobs.run.image_size
    entry = run.variants[variant]
    backbone = run.backbone_of(variant)
    passes = PASS[backbone] * _scale(size) * (shot + 1) if backbone else 0.0
    if run.host_of(variant) is None:
        of_support, of_query = UNTRAINED.get(entry.method, UNTRAINED["ridge"])
        return passes + (shot * of_support + of_query) * _scale(size)
    settings = entry.settings.of_domain(domain, run.adaptation.model_dump())
    taken = settings.get("steps") or 0
    pairs = shot * (shot - 1) if settings.get("pairs") == "leave_one_out" and shot > 1 else shot
    tuned = WHOLE & set(getattr(entry.settings, "tuned_parts", []))
    of_step = STEP * (WHOLE_STEP if tuned else 1.0)
    calls = CALL * (taken + 1)
    return passes + calls + _pairs_scale(size) * (taken * pairs * of_step + shot * PREDICTION)


def _analysis(jobs: Jobs) -> list[Part]:
    """Measurements in features and on filtered pictures, of which HSNet's variants are measured."""
    from cdfss.configuration.shown import Shown

    run = jobs.run
    analysed = Shown(jobs).analysed
    if not jobs.source_variants or not analysed:
        return []
    work = seconds = 0.0
    for domain, entry in run.domains.items():
        episodes = min(run.analysis.episodes, entry.episodes)
        work += 2 * episodes * sum(_of_episode(jobs, name, domain, run.shots[0]) for name in analysed)
        seconds += 2 * START["device"]
    return [Part("measurements in features", work, seconds)]


def _at_once(jobs: Jobs, part: Part, cores: int, gpus: int) -> int:
    """Cores or GPUs that a part can keep busy at once, of so many; a training takes one GPU."""
    run, places = jobs.run, gpus or cores
    if part.what.startswith("source training"):
        return 1 if gpus else min(run.compute.threads, cores)
    lists = len(run.domains) * len(run.shots) * len(run.seeds)
    family = part.what.partition(":")[0]
    if family in jobs.families:
        split = 1 if family.endswith("_in_order") else run.shards
        lists *= split * len(jobs.sources_of(jobs.families[family][0]))
    elif part.what.startswith("measurements"):
        lists = 2 * len(run.domains)
    return max(1, min(lists, places))


def _disk(jobs: Jobs, notes: list[str]) -> dict[str, float]:
    """MB by what fills the disk, once all is made."""
    run = jobs.run
    pictures = {pair: _number(jobs, *pair, "pictures", []) for pair in jobs.indexes}
    found: dict[str, float] = {}
    for name in needed_data(jobs):
        settings = jobs.place_of(name)
        if settings["root"] is not None:
            continue
        if settings["synthetic"] is not None:
            size = 0.05 * sum(n for (data, _), n in pictures.items() if data == name)
            found[f"data set {name}, generated"] = size
            continue
        sizes = [file["size_mb"] for file in download.source_of(settings)]
        known = sum(size for size in sizes if size)
        if not all(sizes):
            notes.append(f"the size of {name} is not published for every file; it takes more than is said")
        found[f"data set {name}, unpacked"] = known
        found["archives until they are unpacked"] = max(
            found.get("archives until they are unpacked", 0.0), known
        )
    if run.scale:
        notes.append("generated data sets at full size take 15 GB, which is not in this")
    for backbone in jobs.backbones:
        if weights_file(run, backbone):
            from cdfss.backbones.facts import facts_of

            found[f"weights of {backbone}"] = float(facts_of(backbone).megabytes)
    lists = len(run.shots) * len(run.seeds)
    episodes = sum(domain.episodes for domain in run.domains.values()) * lists
    files = sum(len(jobs.sources_of(name)) for name in run.variants)
    found["pictures at the run's size"] = MB_OF_PICTURE * _scale(run.image_size) * sum(pictures.values())
    found["rows and predictions"] = (
        episodes * files * (MB_OF_ROW + MB_OF_PREDICTION * _scale(run.image_size))
    )
    found["source models"] = MB_OF_MODEL * sum(seed is not None for _, seed in jobs.models)
    found["figures and gallery"] = MB_OF_FIGURES * len(run.domains) * len(run.shots) / 8 + 30
    return {what: size for what, size in found.items() if size}
