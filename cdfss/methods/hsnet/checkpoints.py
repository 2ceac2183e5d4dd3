"""Trained models as files: ours (safetensors with metadata) and the published ones (.pt).

Our files hold the learner under `learner.*` and, where it is not the stock ImageNet network, the
backbone under `backbone.network.*`. Metadata `cdfss`, as JSON: format, backbone, and what made it.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cdfss.backbones.facts import facts_of
from cdfss.backbones.network import Backbone
from cdfss.backbones.weights import read_tensors, weights_of
from cdfss.errors import CdfssError
from cdfss.methods.checkpoints import check, read, state_dict_of, write
from cdfss.methods.frequency import AmplitudePhaseMasker
from cdfss.methods.hsnet.model import HSNet
from cdfss.methods.source import write_identity
from cdfss.running.files import file_hash, replacing

PUBLISHED_NAMES = {  # beginning of a name of ours -> of the published files
    "learner.": "hpn_learner.",
    "backbone.network.": "backbone.",
    "chain.apm_s.": "apm.",
    "chain.apm_m.": "apm.",
    "chain.acpa.squeeze": "acpa.phase_attn.0.weight",
    "chain.acpa.excite": "acpa.phase_attn.2.weight",
    "references.0.": "reference_layer1.",
    "references.1.": "reference_layer2.",
    "references.2.": "reference_layer3.",
}
MASKS = ("apm.mask_amplitude", "apm.mask_phase")
WEIGHTS = ("acpa.phase_attn.0.weight", "acpa.phase_attn.2.weight")


def save(
    path: str | Path,
    state: dict[str, Tensor],
    backbone: str,
    facts: dict,
    network: type[HSNet] = HSNet,
) -> None:
    """Write a checkpoint.

    Args:
        state: tensors under `learner.*` (and the network's other SOURCE_PARTS) and maybe
            `backbone.network.*`.
        facts: more metadata.
        network: whose state it is.
    """
    write(path, network.FORMAT, state, backbone, facts)


def load(path: str | Path, backbone: str, network: type[HSNet] = HSNet) -> dict[str, Tensor]:
    """State of a source model, from a checkpoint of ours or a published file, with our names.

    Args:
        backbone: the one that is configured; a file made with another is refused.
        network: the one that is configured; likewise.

    Raises:
        CdfssError: when the file is missing, unreadable, or of another network.
    """
    path, name = Path(path), f"{network.KEY}: {path}"
    if not path.is_file():
        raise CdfssError(f"{name} is not a file")
    ours = path.suffix == ".safetensors"
    entries = read(path, network.FORMAT, backbone, name) if ours else _read_published(path, name)
    if any(key.startswith(("apm.", "acpa.")) for key in entries):
        raise CdfssError(
            f"{name} holds APM or ACPA besides {network.__name__}; the source model comes without them. "
            "cdfss.methods.hsnet.checkpoints.load_published reads such files"
        )
    with torch.device("meta"):
        expected = network(backbone).state_dict()
    if ours and not any(key.startswith("backbone.") for key in entries):
        expected = {key: value for key, value in expected.items() if not key.startswith("backbone.")}
    check(entries, expected if ours else _published(expected), f"{network.__name__} with {backbone}", name)
    return entries if ours else _ours(entries, expected)


def load_published(
    source: str | Path | dict[str, Tensor], backbone: str = "resnet50", network: type[HSNet] = HSNet
) -> HSNet:
    """A ready model from a published file: HSNet, with or without APM and ACPA, PATNet.

    Names may begin with `module.` (saved from a `DataParallel` model). What the model has is read off the
    names and shapes: APM-S or APM-M from `apm.*`, ACPA and its width from `acpa.*`; masks of side n
    belong to an image size of 400 px for n = 13, else 32 n.

    Args:
        source: a .pt file, or the state dict itself.
        backbone: a name of `cdfss.backbones.facts.PYRAMIDS`.
        network: HSNet or PATNet.

    Returns:
        The model in evaluation mode, backbone and learner (and PATNet's references) frozen.

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
    modules, image_size = _modules(entries)
    model = network(backbone, modules=modules, image_size=image_size).eval()
    check(entries, _published(model.state_dict()), f"{network.__name__} with {backbone}", name)
    if MASKS[0] in entries:
        masker = AmplitudePhaseMasker.from_published(*(entries[key] for key in MASKS))
        entries |= {f"apm.{key}": value for key, value in masker.state_dict().items()}
    entries |= {key: entries[key][None] for key in WEIGHTS if key in entries}
    # Checked above; batch counters may be absent.
    model.load_state_dict(_ours(entries, model.state_dict()), strict=False)
    return _frozen(model)


def save_published(model: HSNet, path: str | Path) -> None:
    """Write a model with the entries of the published files, for the published network itself.

    Scripts that wrap it in `DataParallel` before they load want `module.` before every name. The
    unused ImageNet classifier is an entry of those files; it is written as zeros.

    Raises:
        CdfssError: for a backbone or a module that the published code does not have.
    """
    import torchvision

    backbone = model.backbone_name
    if facts_of(backbone).library != "torchvision":
        raise CdfssError(f"save_published: the published code knows no backbone like {backbone!r}")
    maskers = ([], ["apm_s"], ["apm_m"])
    if list(model.chain.parts) not in [[*masker, *acpa] for masker in maskers for acpa in ([], ["acpa"])]:
        raise CdfssError(
            "save_published: the published code knows APM-S or APM-M, and ACPA behind it, alone or "
            f"together; the model has {', '.join(model.chain.parts)}"
        )
    published = _published(model.state_dict())
    if MASKS[0] in published:
        masker = AmplitudePhaseMasker(published[MASKS[0]].shape)
        masker.load_state_dict({key.removeprefix("apm."): published[key] for key in MASKS})
        published |= dict(zip(MASKS, masker.to_published(), strict=True))
    published = {key: value.cpu() for key, value in published.items()}
    with torch.device("meta"):
        network = torchvision.models.get_model(backbone).state_dict()
    for key, value in network.items():
        if key.startswith(("fc.", "classifier.")):  # one stored zero, seen as many
            published[f"backbone.{key}"] = torch.zeros(1).expand(value.shape)
    with replacing(path) as temporary:
        torch.save(published, temporary)


def build(
    path: str | Path,
    backbone: str,
    weights: str | Path | Callable[[], Backbone] | None,
    network: type[HSNet] = HSNet,
    **arguments,
) -> HSNet:
    """HSNet, or PATNet, with the state of a checkpoint, in evaluation mode, what it holds frozen.

    Args:
        weights: ImageNet file of the backbone, used when the checkpoint holds no backbone; None
            for EfficientNet-Lite0. Or what gives the backbone then, which the model shares with others.
        arguments: modules, image_size, seed of HSNet.
    """
    state = load(path, backbone, network)
    stock = not any(key.startswith("backbone.") for key in state)
    if stock and callable(weights):
        model = network(weights(), **arguments).eval()
    else:
        model = network(backbone, weights_of(backbone, weights) if stock else None, **arguments).eval()
    model.load_state_dict(state, strict=False)
    return _frozen(model)


def take(
    source: str | Path,
    backbone: str,
    checkpoint: str | Path,
    identity: str | Path,
    network: type[HSNet] = HSNet,
) -> None:
    """Check a user's checkpoint and write it, with its identity, where a training would have."""
    state = load(source, backbone, network)
    save(checkpoint, state, backbone, {"taken_from_sha256": file_hash(source)}, network)
    write_identity(checkpoint, identity)


def _frozen(model: HSNet) -> HSNet:
    for part in model.SOURCE_PARTS:
        getattr(model, part).requires_grad_(False)
    return model


def _published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of ours under the published names, and in their shapes."""
    renamed = {_renamed(key, PUBLISHED_NAMES): value for key, value in state.items()}
    return renamed | {key: renamed[key][0] for key in WEIGHTS if key in renamed}


def _ours(entries: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published entries under the names that a state of ours has."""
    names = {_renamed(key, PUBLISHED_NAMES): key for key in expected}
    return {names[key]: value for key, value in entries.items()}


def _renamed(key: str, names: dict[str, str]) -> str:
    prefix = next(prefix for prefix in names if key.startswith(prefix))
    return names[prefix] + key.removeprefix(prefix)


def _read_published(path: Path, name: str) -> dict[str, Tensor]:
    return _without_classifier(read_tensors(path, name), name)


def _without_classifier(entries, name: str) -> dict[str, Tensor]:
    """A published state dict without `module.` and the classifier, which is in the files and not used."""
    stripped = state_dict_of(entries, name)
    classifier = ("backbone.fc.", "backbone.classifier.")
    return {key: value for key, value in stripped.items() if not key.startswith(classifier)}


def _modules(entries: dict[str, Tensor]) -> tuple[list, int]:
    """Modules that published entries hold, and the image size that they are for."""
    modules, image_size = [], 400
    if any(key.startswith("apm.") for key in entries):
        shape = entries[MASKS[0]].shape if MASKS[0] in entries else ()
        side = shape[-1] if len(shape) == 4 else 13
        modules.append("apm_m" if len(shape) == 4 and shape[1] > 1 else "apm_s")
        image_size = 400 if side == 13 else 32 * side
    if any(key.startswith("acpa.") for key in entries):
        weight = entries.get(WEIGHTS[0])
        hidden = len(weight) if weight is not None and weight.dim() == 2 else 8
        modules.append({"acpa": {"hidden": hidden}})
    return modules, image_size
