"""Trained models as files: what is the same for every host."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.running.files import replacing
from cdfss.running.provenance import made_with


def write(path: str | Path, kind: str, state: dict[str, Tensor], backbone: str, facts: dict) -> None:
    """Write a checkpoint of ours: safetensors with metadata `cdfss`, as JSON.

    Args:
        kind: of file, such as "cdfss-hsnet-1".
        facts: more metadata.
    """
    # One entry: several would be written in a random order, and equal models in unequal files.
    facts = {"format": kind, "backbone": backbone, **made_with("torch"), **facts}
    metadata = {"cdfss": json.dumps(facts, sort_keys=True)}
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata)


def read(path: Path, kind: str, backbone: str, name: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint of ours.

    Args:
        kind: that it must be of.
        backbone: that it must have been trained with.
        name: of the file, in errors.

    Raises:
        CdfssError: when it cannot be read, or is of another kind or backbone.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("cdfss", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a handle, no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CdfssError(f"{name}: cannot read it: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != kind:
        raise CdfssError(f"{name} is no {kind} file")
    if facts.get("backbone") != backbone:
        raise CdfssError(f"{name} was trained with {facts.get('backbone')}, configured is {backbone}")
    return state


def state_dict_of(entries, name: str) -> dict[str, Tensor]:
    """A published state dict, without `module.` before its names.

    Raises:
        CdfssError: when it is none.
    """
    if not isinstance(entries, dict):
        raise CdfssError(f"{name} holds a {type(entries).__name__}; expected a state dict of tensors")
    for key, value in entries.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise CdfssError(
                f"{name}: entry {key!r} is a {type(value).__name__}; expected a state dict: "
                "names and tensors, nothing else"
            )
    return {key.removeprefix("module."): value for key, value in entries.items()}


def check(state: dict[str, Tensor], expected: dict[str, Tensor], model: str, name: str) -> None:
    """Refuse a state that differs in names or shapes, or holds values that are no numbers.

    Args:
        model: what it should hold, in errors.
    """
    # Files from before 2018 have no batch counters; they are not used in evaluation mode.
    missing = sorted(k for k in expected.keys() - state.keys() if not k.endswith("num_batches_tracked"))
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} {list(state[key].shape)}, expected {list(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if expected[key].shape != state[key].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    wrong = [f"{len(keys)} {kind} (first {keys[0]})" for kind, keys in kinds.items() if keys]
    if wrong:
        raise CdfssError(f"{name} does not hold {model}: entries {'; '.join(wrong)}")
    cast = sorted(
        f"{key} ({value.dtype})"
        for key, value in state.items()
        if not value.is_floating_point() and not key.endswith("num_batches_tracked")
    )
    if cast:
        raise CdfssError(
            f"{name} holds entries of other kinds than floating point: {', '.join(cast[:3])}; weights "
            "would change if they were converted"
        )
    broken = sorted(key for key, value in state.items() if not value.isfinite().all())
    if broken:
        raise CdfssError(
            f"{name} holds values that are not finite in {len(broken)} entries, first {broken[0]}"
        )
