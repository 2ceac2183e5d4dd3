"""Backbones of timm: convolutional pyramids and vision transformers.

timm gives the architectures alone: it is never asked for weights, which it would fetch itself.
"""

import timm
import torch
import torch.nn.functional as F
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from cdfss.backbones.facts import PATCHES
from cdfss.backbones.network import Backbone

HEADS = ("head.", "head_dist.")  # entries of the classifiers, which are not used


def whole(images: Tensor, stride: int) -> Tensor:
    """Images (B, 3, S, S), bilinearly resized to the next multiple of the stride if S is none."""
    size = [-(-side // stride) * stride for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


class _InOrder(Backbone):
    """A network whose weights are published with other names, one to one in the order of timm's."""

    def __init__(self, name: str, network: nn.Module, heads: dict[str, nn.Module]):
        names = list(network.state_dict())
        for part, stand_in in heads.items():
            setattr(network, part, stand_in)  # what comes after the last map
        super().__init__(name, network)
        self.names = names

    def entries(self, published):
        if len(published) != len(self.names):
            return published
        renamed = dict(zip(self.names, published.values()))
        used = self.network.state_dict().keys()
        return {key: value for key, value in renamed.items() if key in used}


class EfficientNetLite0(_InOrder):
    """EfficientNet-Lite0: block outputs from stride 8 on.

    The blocks end in a linear projection, so nothing has to be undone before a ReLU. The single
    320-channel block and the head are left out: a masker is shared by all stride-32 maps, which
    must therefore have equally many channels.
    """

    FIRST, LAST = 2, 5  # stages whose outputs are maps

    def __init__(self, name: str):
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        heads = {part: nn.Identity() for part in ("conv_head", "bn2", "global_pool", "classifier")}
        super().__init__(name, network, heads | {"blocks": network.blocks[: self.LAST + 1]})
        # torch's own first weights, as in version 0.1 of this package: what is drawn next, the learner's
        # first weights, stays what it was for a seed.
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()

    def maps(self, network, images):
        x = network.bn1(network.conv_stem(images))
        maps = []
        for number, stage in enumerate(network.blocks):
            for block in stage:
                x = block(x)
                if number >= self.FIRST:
                    maps.append(x)
        return maps


class ConvNeXt(_InOrder):
    """ConvNeXt: the residual sum of every block from stage 2 on, which no ReLU follows.

    Its strided convolutions pad nothing, so pictures are first resized to a multiple of 32 pixels: or
    maps would be smaller than the ceil(S / 32) positions of the other pyramids.
    """

    def __init__(self, name: str):
        network = timm.create_model(name, pretrained=False)
        super().__init__(name, network, {"head": nn.Identity()})

    def entries(self, published):
        found = super().entries(published)
        # torchvision's file has the scales of channels as (C, 1, 1).
        return {key: value.flatten() if key.endswith(".gamma") else value for key, value in found.items()}

    def maps(self, network, images):
        x = network.stem(whole(images, 32))
        maps = []
        for number, stage in enumerate(network.stages):
            x = stage.downsample(x)
            for block in stage.blocks:
                x = block(x)
                if number > 0:
                    maps.append(x)
        return maps


class Transformer(Backbone):
    """ViT, DeiT, DINOv2, DINOv3: the patch tokens after each of the last four blocks, as maps.

    Each is normalised by the network's last layer normalisation, as in DINOv2's own segmentation
    (`get_intermediate_layers(n=4, norm=True)`): sums of blocks are on no common scale. Class,
    distillation and register tokens are left out. Pictures of any side S are taken: S is first resized
    to a multiple of the patch's side, and position embeddings are interpolated.
    """

    convolutional = False

    def __init__(self, name: str):
        network = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        super().__init__(name, network)

    def maps(self, network, images):
        images = whole(images, *self.facts.strides)
        return network.forward_intermediates(images, PATCHES, norm=True, intermediates_only=True)

    def entries(self, published):
        kept = {key: value for key, value in published.items() if not key.startswith(HEADS)}
        positions = self.network.pos_embed  # None for DINOv3
        if positions is None and "storage_tokens" in kept:
            # The file's biases of query, key and value are all zero, and timm's network has none.
            kept = {key: value for key, value in kept.items() if not key.endswith(".qkv.bias")}
            return eva.checkpoint_filter_fn(kept, self.network)
        dinov2 = {"mask_token", "register_tokens", "cls_token", "pos_embed"} <= kept.keys()
        # One of another size stays as it is: timm would quietly interpolate its positions.
        if dinov2 and positions is not None and kept["pos_embed"].shape[1] == positions.shape[1] + 1:
            return vision_transformer.checkpoint_filter_fn(kept, self.network)
        return kept


def of_timm(name: str) -> Backbone:
    """A backbone of timm with random weights."""
    pyramids = {"efficientnet_lite0": EfficientNetLite0, "convnext_tiny": ConvNeXt}
    return pyramids.get(name, Transformer)(name)
