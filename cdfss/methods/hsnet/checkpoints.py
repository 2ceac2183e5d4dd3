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

from cdfss.backbones.facts import facts_of
from cdfss.backbones.weights import read_tensors, weights_of
from cdfss.errors import CdfssError
from cdfss.methods.frequency import AmplitudePhaseMasker
from cdfss.methods.hsnet.model import HSNet
from cdfss.methods.source import write_identity
from cdfss.running.files import file_hash, replacing
from cdfss.running.provenance import made_with

FORMAT = "cdfss-hsnet-1"
PUBLISHED_NAMES = {  # beginning of a name of ours -> of the published files
    "learner.": "hpn_learner.",
    "backbone.network.": "backbone.",
    "masker.": "apm.",
    "attention.squeeze.": "acpa.phase_attn.0.",
    "attention.excite.": "acpa.phase_attn.2.",
}
MASKS = ("apm.mask_amplitude", "apm.mask_phase")


def save(path: str | Path, state: dict[str, Tensor], backbone: str, facts: dict) -> None:
    """Write a checkpoint.

    Args:
        state: tensors under `learner.*` and maybe `backbone.network.*`.
        facts: more metadata.
    """
    # One entry: several would be written in a random order, and equal models in unequal files.
    facts = {"format": FORMAT, "backbone": backbone, **made_with("torch"), **facts}
    metadata = {"cdfss": json.dumps(facts, sort_keys=True)}
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata)


def load(path: str | Path, backbone: str) -> dict[str, Tensor]:
    """State of a source model, from a checkpoint of ours or a published file, with our names.

    Args:
        backbone: the one that is configured; a file made with another is refused.

    Raises:
        CdfssError: when the file is missing, unreadable, or of another network.
    """
    path, name = Path(path), f"source.checkpoint: {path}"
    if not path.is_file():
        raise CdfssError(f"{name} is not a file")
    ours = path.suffix == ".safetensors"
    entries = _read_ours(path, backbone, name) if ours else _read_published(path, name)
    if any(key.startswith(("apm.", "acpa.")) for key in entries):
        raise CdfssError(
            f"{name} holds APM or ACPA besides HSNet; the source model comes without them. "
            "cdfss.methods.hsnet.checkpoints.load_published reads such files"
        )
    with torch.device("meta"):
        expected = HSNet(backbone).state_dict()
    if ours and not any(key.startswith("backbone.") for key in entries):
        expected = {key: value for key, value in expected.items() if key.startswith("learner.")}
    _check(entries, expected if ours else _published(expected), backbone, name)
    return entries if ours else _ours(entries)


def load_published(source: str | Path | dict[str, Tensor], backbone: str = "resnet50") -> HSNet:
    """A ready model from a published file: HSNet, HSNet trained as PATNet does, HSNet with APM/ACPA.

    Names may begin with `module.` (saved from a `DataParallel` model). What the model has is read off the
    names and shapes: APM-S or APM-M from `apm.*`, ACPA and its width from `acpa.*`; masks of side n
    belong to an image size of 400 px for n = 13, else 32 n.

    Args:
        source: a .pt file, or the state dict itself.
        backbone: a name of `cdfss.backbones.facts.PYRAMIDS`.

    Returns:
        The model in evaluation mode, backbone and learner frozen.

    Raises:
        CdfssError: when the file is missing, holds more than tensors, or is of another network:
            the first missing, unexpected and misshapen entries are named.
    """
    if isinstance(source, dict):
        name = "load_published: the given state dict"
        entries = _without_classifier(source, name)
    else:
        path, name = Path(source), f"load_published: {source}"
        if not path.is_file():
            raise CdfssError(f"{name} is not a file")
        entries = _read_published(path, name)
    arguments = _modules(entries)
    with torch.device("meta"):
        expected = HSNet(backbone, **arguments).state_dict()
    _check(entries, _published(expected), backbone, name)
    model = HSNet(backbone, **arguments).eval()
    if model.masker is not None:
        masker = AmplitudePhaseMasker.from_published(*(entries[key] for key in MASKS))
        entries |= _published({f"masker.{key}": value for key, value in masker.state_dict().items()})
    model.load_state_dict(_ours(entries), strict=False)  # checked above; batch counters may be absent
    model.learner.requires_grad_(False)
    return model


def save_published(model: HSNet, path: str | Path) -> None:
    """Write a model with the entries of the published files, for the published network itself.

    Scripts that wrap it in `DataParallel` before they load want `module.` before every name. The
    unused ImageNet classifier is an entry of those files; it is written as zeros.

    Raises:
        CdfssError: for a backbone that the published code does not have.
    """
    import torchvision

    backbone = model.backbone_name
    if facts_of(backbone).library != "torchvision":
        raise CdfssError(f"save_published: the published code knows no backbone like {backbone!r}")
    published = _published(model.state_dict())
    if model.masker is not None:
        published |= dict(zip(MASKS, model.masker.to_published(), strict=True))
    published = {key: value.cpu() for key, value in published.items()}
    with torch.device("meta"):
        network = torchvision.models.get_model(backbone).state_dict()
    for key, value in network.items():
        if key.startswith(("fc.", "classifier.")):  # one stored zero, seen as many
            published[f"backbone.{key}"] = torch.zeros(1).expand(value.shape)
    with replacing(path) as temporary:
        torch.save(published, temporary)


def build(path: str | Path, backbone: str, weights: str | Path | None, **arguments) -> HSNet:
    """HSNet with the state of a checkpoint, in evaluation mode, the learner frozen.

    Args:
        weights: ImageNet file of the backbone, used when the checkpoint holds no backbone; None
            for EfficientNet-Lite0.
        arguments: masker, attention, hidden, image_size of HSNet.
    """
    state = load(path, backbone)
    stock = not any(key.startswith("backbone.") for key in state)
    model = HSNet(backbone, weights_of(backbone, weights) if stock else None, **arguments).eval()
    model.load_state_dict(state, strict=False)
    model.learner.requires_grad_(False)
    return model


def take(source: str | Path, backbone: str, checkpoint: str | Path, identity: str | Path) -> None:
    """Check a user's checkpoint and write it, with its identity, where a training would have."""
    save(checkpoint, load(source, backbone), backbone, {"taken_from_sha256": file_hash(source)})
    write_identity(checkpoint, identity)


def _published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of ours under the published names."""
    return {_renamed(key, PUBLISHED_NAMES): value for key, value in state.items()}


def _ours(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published entries under our names."""
    names = {published: ours for ours, published in PUBLISHED_NAMES.items()}
    return {_renamed(key, names): value for key, value in entries.items()}


def _renamed(key: str, names: dict[str, str]) -> str:
    prefix = next(prefix for prefix in names if key.startswith(prefix))
    return names[prefix] + key.removeprefix(prefix)


def _read_ours(path: Path, backbone: str, name: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("cdfss", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a handle, no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CdfssError(f"{name}: cannot read it: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CdfssError(f"{name} is no {FORMAT} file")
    if facts.get("backbone") != backbone:
        raise CdfssError(f"{name} was trained with {facts.get('backbone')}, configured is {backbone}")
    return state


def _read_published(path: Path, name: str) -> dict[str, Tensor]:
    return _without_classifier(read_tensors(path, name), name)


def _without_classifier(entries, name: str) -> dict[str, Tensor]:
    """A published state dict without `module.` and the classifier, which is in the files and not used."""
    if not isinstance(entries, dict):
        raise CdfssError(f"{name} holds a {type(entries).__name__}; expected a state dict of tensors")
    for key, value in entries.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise CdfssError(
                f"{name}: entry {key!r} is a {type(value).__name__}; expected a state dict: "
                "names and tensors, nothing else"
            )
    stripped = {key.removeprefix("module."): value for key, value in entries.items()}
    classifier = ("backbone.fc.", "backbone.classifier.")
    return {key: value for key, value in stripped.items() if not key.startswith(classifier)}


def _modules(entries: dict[str, Tensor]) -> dict:
    """Arguments of HSNet for the masker and attention that published entries hold."""
    arguments = {}
    if any(key.startswith("apm.") for key in entries):
        shape = entries[MASKS[0]].shape if MASKS[0] in entries else ()
        side = shape[-1] if len(shape) == 4 else 13
        arguments["masker"] = "M" if len(shape) == 4 and shape[1] > 1 else "S"
        arguments["image_size"] = 400 if side == 13 else 32 * side
    if any(key.startswith("acpa.") for key in entries):
        weight = entries.get("acpa.phase_attn.0.weight")
        arguments["attention"] = True
        arguments["hidden"] = len(weight) if weight is not None and weight.dim() == 2 else 8
    return arguments


def _check(state: dict[str, Tensor], expected: dict[str, Tensor], backbone: str, name: str) -> None:
    """Refuse a state that differs in names or shapes, or holds values that are no numbers."""
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
        raise CdfssError(f"{name} does not hold HSNet with {backbone}: entries {'; '.join(wrong)}")
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
