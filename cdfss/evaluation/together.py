"""Variants that one job evaluates or measures together, on one list and one device.

They share pictures, networks and features; each has files of its own, with what they would hold if it had
a job of its own.
"""

import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from cdfss.backbones.facts import facts_of
from cdfss.errors import CdfssError
from cdfss.evaluation.kept import Found, Kept
from cdfss.methods import calling, known, source
from cdfss.methods.contract import Given, Method, Shared
from cdfss.running import devices
from cdfss.running.files import file_hash

EVERY = 60.0  # seconds after which what a variant has so far is saved
SAME = ("domain", "shot", "seed", "image_size", "precision")  # settings that variants of a job share


@dataclass
class Member:
    """A variant of a job, and how far it is.

    Attributes:
        settings: of the variant, as `Jobs` has them.
        checkpoint, weights: files, or None.
        episodes: numbers of those that it is to have, in order.
        kept: its files that survive the job.
        facts: what its files are made from and with.
        records: what they hold, by kind of file.
        method: built only if there is something to compute.
        failed: why no more can be made of it.
    """

    settings: dict
    checkpoint: str | Path | None
    weights: str | Path | None
    episodes: list[int]
    kept: Kept
    facts: dict = field(default_factory=dict)
    records: dict[str, list[dict]] = field(default_factory=dict)
    method: Method | None = None
    failed: Exception | None = None
    saved: int = -1  # records that the kept files hold
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return self.settings.get("variant", self.settings["method"])

    @property
    def needs_device(self) -> bool:
        return known.find(self.settings["method"]).needs != "nothing"

    @property
    def lacking(self) -> set[int]:
        """Episodes that it has not yet."""
        return set(self.episodes) - {record["episode"] for of in self.records.values() for record in of}

    @contextmanager
    def trying(self):
        """Keep an error of a block for the end of the job, since other variants can go on."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, CdfssError) and not devices.ran_out_of_memory(error):
                traceback.print_exc()
            # Tracebacks hold what the method had in memory.
            error.__cause__ = error.__context__ = None
            self.failed, self.method = error.with_traceback(None), None
            print(f"{self.words()}; other variants of this job go on", flush=True)

    def words(self) -> str:
        """What went wrong, for people."""
        told = isinstance(self.failed, CdfssError)
        said = str(self.failed) if told else f"{type(self.failed).__name__}: {self.failed}"
        if devices.ran_out_of_memory(self.failed):
            said = f"out of memory ({said.splitlines()[0]}); {devices.SMALLER}"
        return f"variant {self.name}: {said}"

    def take(self, found: Found) -> None:
        """Begin with what was kept, nothing or some or all."""
        self.records = found.records
        self.saved = found.number

    def save(self, every: float = 0.0) -> None:
        """Write to the kept files what is new, in the order of the list.

        Args:
            every: seconds that must have passed since the last time.
        """
        number, now = sum(map(len, self.records.values())), time.monotonic()
        if number == self.saved or now - self.saved_at < every or (self._goes_on and self.lacking):
            return
        place = {episode: number for number, episode in enumerate(self.episodes)}
        for records in self.records.values():
            records.sort(key=lambda record: place[record["episode"]])
        self.kept.save(self.records, self.facts)
        self.saved, self.saved_at = number, now

    @property
    def _goes_on(self) -> bool:
        return self.method is not None and self.method.settings.goes_on


def run(
    variants: dict[str, dict],
    kept: str | Path,
    schemas: dict[str, pa.Schema],
    paths: dict[str, list],
    episodes_of: Callable[[dict], list[int]],
    origin: Callable[[dict], dict],
    compute: dict,
    work: Callable[[list[Member]], None],
) -> None:
    """Make the files of all variants, as far as they are not kept from an earlier job.

    Args:
        variants: by name, "settings", "checkpoint" and "weights" of each.
        kept: folder for what survives the job, in a folder for each variant.
        schemas: of the files, by kind.
        paths: of the files to write, by kind, in the order of the variants.
        episodes_of: numbers of the episodes that settings ask for, in order.
        origin: facts of files of these settings, but for what they are computed with.
        compute: `Jobs.compute_settings`.
        work: adds records to members that have their method.

    Raises:
        CdfssError: when variants do not belong to one list; and when some failed, once the others are
            finished and kept: names them and says why.
    """
    _check(variants)
    wanted, of_files = cache(lambda: devices.wanted(compute["device"])), cache(_of_files)
    members, unfinished = [], []
    for name, one in variants.items():
        settings = one["settings"]
        member = Member(
            settings,
            one["checkpoint"],
            one["weights"],
            episodes_of(settings),
            Kept(Path(kept) / name, schemas),
        )
        members.append(member)
        with member.trying():
            member.facts = origin(settings)
            if member.needs_device:
                more = of_files(member.checkpoint, member.weights)
                member.facts |= _of_settings(settings) | more | {"device": wanted()}
            found = member.kept.load(member.facts)
            if found.facts and found.episodes == set(member.episodes):
                member.take(found)
            else:
                unfinished.append((member, found))
    if unfinished:
        _compute(unfinished, compute, work)
    if failed := [member for member in members if member.failed]:
        raise CdfssError("; ".join(member.words() for member in failed)) from failed[0].failed
    for number, member in enumerate(members):
        member.kept.give({kind: of_kind[number] for kind, of_kind in paths.items()})


def _compute(unfinished: list[tuple[Member, Found]], compute: dict, work) -> None:
    """Build the methods of unfinished members and let them work; however that ends, it is saved."""
    members = [member for member, _ in unfinished]
    with ExitStack() as stack:
        stack.callback(_save, members)
        device = None
        if of_device := [member for member in members if member.needs_device]:
            from cdfss.running.precision import precision

            device = stack.enter_context(devices.device(compute["device"]))
            stack.enter_context(precision(of_device[0].settings["precision"], device))
        shared = Shared(several=len(members) > 1)
        for member, found in unfinished:
            with member.trying():
                given = _given(member, device, compute["compile"], shared)
                member.facts |= _of_device(given) if given.device else {}
                member.method = calling.build(member.settings["method"], member.settings["settings"], given)
                nothing = Found({kind: [] for kind in member.kept.schemas}, None)
                goes_on = member.method.settings.goes_on
                member.take(found if found.may_go_on(member.facts) and not goes_on else nothing)
        if building := [member for member in members if not member.failed]:
            work(building)


def _save(members: list[Member]) -> None:
    for member in members:
        if member.records:  # else it failed before it began
            member.save()


def _check(variants: dict[str, dict]) -> None:
    for key in SAME:
        found = {name: one["settings"][key] for name, one in variants.items() if key in one["settings"]}
        if len(set(found.values())) > 1:
            raise CdfssError(f"variants of one job differ in {key}: {found}; give them jobs of their own")


def _given(member: Member, device, compile: bool, shared: Shared) -> Given:
    given = {"image_size": member.settings["image_size"], "seed": member.settings["seed"], "shared": shared}
    if not member.needs_device:
        return Given(**given)
    given |= {"device": device, "backbone": member.settings.get("backbone"), "compile": compile}
    return Given(**given, checkpoint=member.checkpoint, weights=member.weights)


def _of_settings(settings: dict) -> dict:
    return {key: settings[key] for key in ("precision", "backbone") if key in settings}


def _of_files(checkpoint, weights) -> dict:
    """What files say of numbers that were made with them."""
    found = {} if weights is None else {"weights": file_hash(weights)[:16]}
    if checkpoint is not None:
        found["checkpoint"] = source.identity(checkpoint)
        found["training"] = source.training(checkpoint)
    return found


def _of_device(given: Given) -> dict:
    """On what numbers are computed, and by which libraries."""
    import torch

    found = {"torch": torch.__version__, "device": given.device.type}
    if given.backbone is not None:
        library = facts_of(given.backbone).library
        found[library] = version(library)
    if given.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(given.device)
    return found
