"""Backbones of torchvision: those of the published checkpoints, whose names their networks keep.

Maps are taken before their last ReLU, as the published code does.
"""

import torchvision
from torch import Tensor, nn

from cdfss.backbones.network import Backbone


class _Torchvision(Backbone):
    def entries(self, published):
        return {
            key: value for key, value in published.items() if not key.startswith(("fc.", "classifier."))
        }


class ResNet(_Torchvision):
    """The sum of every residual block from stage 2 on, before its ReLU."""

    def __init__(self, name: str):
        network = getattr(torchvision.models, name)(weights=None)
        network.fc = nn.Identity()  # the classifier is not used
        super().__init__(name, network)

    def maps(self, network, images):
        x = network.maxpool(network.bn1(network.conv1(images)).relu_())
        maps = []
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                total = _residual_sum(block, x)
                if stage is not network.layer1:
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


class VGG16(_Torchvision):
    """Convolutions of stages 4 and 5 before their ReLU, and the last pooling."""

    LAYERS = (17, 19, 21, 24, 26, 28, 30)  # indices in torchvision's `features`

    def __init__(self, name: str):
        network = torchvision.models.vgg16(weights=None)
        network.classifier = nn.Identity()
        for module in network.features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # or it would overwrite the map before it
        super().__init__(name, network)

    def maps(self, network, images):
        maps = []
        for index, layer in enumerate(network.features):
            images = layer(images)
            if index in self.LAYERS:
                maps.append(images)
        return maps


def of_torchvision(name: str) -> Backbone:
    """A backbone of torchvision with random weights."""
    return (VGG16 if name == "vgg16" else ResNet)(name)
