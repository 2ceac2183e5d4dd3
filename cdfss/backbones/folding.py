"""The form of a frozen convolutional network that computes the same in less time."""

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """A copy whose batch normalisations are folded into the convolutions before them, channels last.

    A normalisation belongs to the convolution that was made just before it, in the same block: so it is in
    torchvision's and timm's networks. Its running statistics are taken as they are. The copy's weights need
    no gradient and do not follow those of `network`.
    """
    network = copy.deepcopy(network).eval()
    for block in list(network.modules()):
        children = list(block.named_children())
        for (name, convolution), (after, normalisation) in itertools.pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                setattr(block, name, fuse_conv_bn_eval(convolution, normalisation))
                # timm's holds the activation that follows it.
                setattr(block, after, getattr(normalisation, "act", nn.Identity()))
    return network.requires_grad_(False).to(memory_format=torch.channels_last)
