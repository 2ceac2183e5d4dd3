"""Host models: source-trained models that methods build on (no torch)."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from cdfss.backbones.facts import why_not_fptrans, why_not_hsnet
from cdfss.errors import CdfssError
from cdfss.running import provenance


@dataclass(frozen=True)
class Host:
    """What a plan must know of a host model.

    Attributes:
        title: its name in texts.
        training: module of its source training, which has its `training.Trainee`.
        checkpoints: module that takes a given model, with `take`.
        why_not: why it cannot be built on a backbone of this name; None where it can.
    """

    title: str
    training: str
    checkpoints: str
    why_not: Callable[[str], str | None]


def _host(title: str, folder: str, why_not) -> Host:
    place = f"cdfss.methods.{folder}"
    return Host(title, f"{place}.training", f"{place}.checkpoints", why_not)


HOSTS = {
    "hsnet": _host("HSNet", "hsnet", why_not_hsnet),
    "patnet": _host("PATNet", "patnet", why_not_hsnet),
    "fptrans": _host("FPTrans", "fptrans", why_not_fptrans),
}


def key_of(host: str) -> str:
    """Where a configuration has a host's source training."""
    return "source" if host == "hsnet" else f"source.{host}"


def of(settings: dict) -> Host:
    """The host that settings of a source training name with "host"; HSNet where they name none.

    Raises:
        CdfssError: for a name that is not in HOSTS.
    """
    name = settings.get("host", "hsnet")
    if name not in HOSTS:
        raise CdfssError(f"host: {name!r} is unknown; known are {', '.join(HOSTS)}")
    return HOSTS[name]


def code_of(settings: dict) -> str:
    """16 hexadecimal digits that stand for the code of a source training: its loop and its host's own."""
    own = of(settings).training.removeprefix("cdfss.")
    return provenance.code(*provenance.CODE["training"], own)


def take(host: str, source: str, backbone: str, checkpoint: str, identity: str) -> None:
    """Check a user's checkpoint and write it, with its identity, where a training would have.

    Raises:
        CdfssError: when the file is missing, unreadable, or of another network.
    """
    module = importlib.import_module(of({"host": host}).checkpoints)
    module.take(source, backbone, checkpoint, identity)
