"""Trained FPTrans as files: ours (safetensors with metadata) and the published ones (.pth).

Our files hold the encoder with its prompts under `encoder.*` and the purifier under `purifier.*`; and the
frozen copy under `frozen.*`, where it is not the stock pretrained network.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cdfss.backbones.facts import how_to_get
from cdfss.backbones.weights import read_tensors
from cdfss.errors import CdfssError
from cdfss.methods.checkpoints import check, read, state_dict_of, write
from cdfss.methods.fptrans.model import FPTrans
from cdfss.methods.source import write_identity
from cdfss.running.files import file_hash

FORMAT = "cdfss-fptrans-1"
KEY = "source.fptrans.checkpoint"  # of a configuration that gives such a file
PUBLISHED_NAMES = {  # beginning of a name of ours -> of the published files
    "encoder.network.": "encoder.backbone.",
    "encoder.prompts": "encoder.backbone.prompt_tokens",
    "purifier.": "purifier.",
    "frozen.": "original_encoder.",
}


def save(path: str | Path, state: dict[str, Tensor], backbone: str, facts: dict) -> None:
    """Write a checkpoint.

    Args:
        state: tensors under `encoder.*`, `purifier.*` and maybe `frozen.*`.
        facts: more metadata.
    """
    write(path, FORMAT, state, backbone, facts)


def build(path: str | Path, backbone: str, weights: str | Path | None) -> FPTrans:
    """FPTrans with the state of a checkpoint of ours or a published file, frozen, in evaluation mode.

    Args:
        backbone: the one that is configured; a file made with another is refused.
        weights: pretrained ones of the backbone, used when the checkpoint holds no frozen copy.

    Raises:
        CdfssError: when the file is missing, unreadable, or of another network, or weights are needed.
    """
    state = load(path, backbone)
    stock = not any(key.startswith("frozen.") for key in state)
    if stock and weights is None:
        raise CdfssError(
            f"{KEY}: {path} holds no frozen copy of {backbone}; {how_to_get(backbone, 'a file')}"
        )
    model = _model_for(state, backbone, weights if stock else None)
    model.load_state_dict(state, strict=False)  # checked by load
    return model.requires_grad_(False).eval()


def load(path: str | Path, backbone: str) -> dict[str, Tensor]:
    """State of a source model, with our names, from a checkpoint of ours or a published file.

    Raises:
        CdfssError: as `build`.
    """
    path, name = Path(path), f"{KEY}: {path}"
    if not path.is_file():
        raise CdfssError(f"{name} is not a file")
    ours = path.suffix == ".safetensors"
    state = read(path, FORMAT, backbone, name) if ours else of_published(_read_published(path, name))
    with torch.device("meta"):
        expected = _model_for(state, backbone, None).state_dict()
    if not any(key.startswith("frozen.") for key in state):
        expected = {key: value for key, value in expected.items() if not key.startswith("frozen.")}
    check(state, expected, f"FPTrans with {backbone}", name)
    return state


def take(source: str | Path, backbone: str, checkpoint: str | Path, identity: str | Path) -> None:
    """Check a user's checkpoint and write it, with its identity, where a training would have."""
    save(checkpoint, load(source, backbone), backbone, {"taken_from_sha256": file_hash(source)})
    write_identity(checkpoint, identity)


def of_published(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published entries under our names; what belongs to no such file stays as it is."""
    longest_first = sorted(PUBLISHED_NAMES.items(), key=lambda names: -len(names[1]))

    def ours(key: str) -> str:
        for own, published in longest_first:
            if key.startswith(published):
                return own + key.removeprefix(published)
        return key

    return {ours(key): value for key, value in entries.items()}


def _read_published(path: Path, name: str) -> dict[str, Tensor]:
    # Beside the state such a file holds scores, which are NumPy's numbers.
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([*names, np.dtype, np.dtypes.Float64DType]):
        entries = read_tensors(path, name)
    if isinstance(entries, dict):
        entries = entries.get("model_state", entries.get("state_dict", entries))
    return state_dict_of(entries, name)


def _model_for(state: dict[str, Tensor], backbone: str, weights: str | Path | None) -> FPTrans:
    """A model whose grid of positions and bank of prompts are those of a state, as far as it has them."""
    with torch.device("meta"):
        network: nn.Module = FPTrans.on(backbone, None, 224).encoder.network
    prompts, positions = state.get("encoder.prompts"), state.get("encoder.network.pos_embed")
    arguments = {} if prompts is None else {"groups": len(prompts)}
    number = network.patch_embed.num_patches
    if positions is not None and positions.dim() == 3:
        number = positions.shape[1] - (0 if network.no_embed_class else network.num_prefix_tokens)
    side = math.isqrt(max(number, 1)) * network.patch_embed.patch_size[0]
    return FPTrans.on(backbone, weights, side, **arguments)
