"""Trained models as files: ours (safetensors with metadata) and the published ones (.pt).

Our files hold the learner under `learner.*` and, where it is not the stock ImageNet network, the
backbone under `backbone.network.*`. Metadata `cdfss`, as JSON: format, backbone, and what made it.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cdfss.backbone_facts import BACKBONES
from cdfss.errors import CdfssError
from cdfss.files import file_hash, replacing
from cdfss.hsnet import HSNet

FORMAT = "cdfss-hsnet-1"


def save(path: str | Path, state: dict[str, Tensor], backbone: str, facts: dict) -> None:
    """Write a checkpoint.

    Args:
        state: tensors under `learner.*` and maybe `backbone.network.*`.
        facts: more metadata.
    """
    # One entry: several would be written in a random order, and equal models in unequal files.
    metadata = {"cdfss": json.dumps({"format": FORMAT, "backbone": backbone, **facts}, sort_keys=True)}
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata)


def load(path: str | Path, backbone: str) -> dict[str, Tensor]:
    """State of a checkpoint of ours or of a published file, with our names.

    Args:
        backbone: the one that is configured; a file made with another is refused.

    Raises:
        CdfssError: when the file is missing, unreadable, or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise CdfssError(f"source.checkpoint: {path} is not a file")
    state = _load_ours(path, backbone) if path.suffix == ".safetensors" else _load_published(path)
    _check(state, path, backbone)
    return state


def _load_ours(path: Path, backbone: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("cdfss", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a handle, no dict)
    except SafetensorError as error:
        raise CdfssError(f"source.checkpoint: cannot read {path}: {error}") from error
    if facts.get("format") != FORMAT:
        raise CdfssError(f"source.checkpoint: {path} is no {FORMAT} file")
    if facts["backbone"] != backbone:
        raise CdfssError(
            f"source.checkpoint: {path} was trained with {facts['backbone']}, configured is {backbone}"
        )
    return state


def _load_published(path: Path) -> dict[str, Tensor]:
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
        items = {key.removeprefix("module."): value for key, value in published.items()}
    except Exception as error:  # torch raises many kinds for a bad or unsafe file
        raise CdfssError(f"source.checkpoint: cannot read {path} as a file of tensors: {error}") from error
    state = {}
    for key, value in items.items():
        if key.startswith("hpn_learner."):
            state["learner." + key.removeprefix("hpn_learner.")] = value
        elif key.startswith(("backbone.fc.", "backbone.classifier.")):
            continue  # the classifier is in the files and not used
        elif key.startswith("backbone."):
            state["backbone.network." + key.removeprefix("backbone.")] = value
        else:
            state[key] = value  # of another network; the check names it
    return state


def _check(state: dict[str, Tensor], path: Path, backbone: str) -> None:
    with torch.device("meta"):
        expected = HSNet(backbone).state_dict()
    if not any(key.startswith("backbone.") for key in state):
        expected = {k: v for k, v in expected.items() if k.startswith("learner.")}
    wrong = list(expected.keys() ^ state.keys())
    wrong += [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
    if wrong:
        raise CdfssError(
            f"source.checkpoint: {path} does not hold HSNet with {backbone}: {len(wrong)} entries "
            f"are missing, unexpected or of another shape, first {min(wrong)}"
        )


def build(path: str | Path, backbone: str, weights: str | Path | None, **arguments) -> HSNet:
    """HSNet with the state of a checkpoint, in evaluation mode, the learner frozen.

    Args:
        weights: ImageNet file of the backbone, used when the checkpoint holds no backbone; None
            for EfficientNet-Lite0.
        arguments: masker, attention, hidden, image_size of HSNet.
    """
    state = load(path, backbone)
    if any(key.startswith("backbone.") for key in state):
        weights = None
    elif BACKBONES[backbone].weights is None:
        weights = "imagenet"
    model = HSNet(backbone, weights, **arguments).eval()
    model.load_state_dict(state, strict=False)
    model.learner.requires_grad_(False)
    return model


def sha256(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    return file_hash(path)


def write_identity(checkpoint: str | Path, path: str | Path) -> None:
    """Write the small file by which jobs see whether a checkpoint changed."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"sha256": sha256(checkpoint)}) + "\n")


def take(source: str | Path, backbone: str, checkpoint: str | Path, identity: str | Path) -> None:
    """Check a user's checkpoint and write it, with its identity, where a training would have."""
    save(checkpoint, load(source, backbone), backbone, {})
    write_identity(checkpoint, identity)
