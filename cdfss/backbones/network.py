"""Frozen backbones (HSNet, section 4.1; paper/published code)."""

from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from cdfss.backbones.facts import facts_of
from cdfss.backbones.folding import folded
from cdfss.backbones.memory import Memory


class Backbone(nn.Module):
    """A frozen network that maps images (B, 3, S, S) to maps of features, some at each stride.

    The parameters need no gradient and the module stays in evaluation mode whatever its parent
    does, so batch statistics never change. While that is so, a convolutional network computes in its
    `folded` form; once its parameters want gradients, as in whole-model fine-tuning, as it is.

    Attributes:
        memory: of maps that it gave; None for none. Copies of the network have none.
    """

    convolutional = True

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.name, self.facts = name, facts_of(name)
        self.network = network
        self.memory: Memory | None = None
        self.requires_grad_(False)
        self.eval()
        self._folded: tuple = (None, None)  # what it was made from, and the network

    def __getstate__(self):
        return super().__getstate__() | {"_folded": (None, None)}  # a copy makes its own

    def train(self, mode: bool = True):
        return super().train(False)

    def maps(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """All feature maps of `network`, which is this one's or its folded form, fine to coarse."""
        raise NotImplementedError

    def entries(self, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `network` takes of a file of published weights, under the names that it has there.

        What belongs to no such file stays as it is, for the caller to refuse.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """Images (B, 3, S, S) -> for each stride of the facts a list of maps (B, C, h, w).

        h and w are S / stride, rounded as the network does.
        """
        tensors = [*self.network.parameters(), *self.network.buffers()]
        if any(t.requires_grad or t.is_inference() for t in tensors):
            maps = self.maps(self.network, images)
        else:
            # The version counts writes in place, but for those through `.data`.
            weights = tuple((t.data_ptr(), t._version) for t in tensors)
            network = self._fastest(weights)
            if self.memory is None or images.requires_grad:
                maps = self.maps(network, images)
            else:
                maps = self.memory.maps(weights, images, partial(self.maps, network))
        for m in maps:
            if m.requires_grad:
                # torch (2.6 to 2.14 at least) misreads, in the backward pass of batch normalisation in
                # evaluation mode, a gradient of one picture that lies in memory as (h, w, C), and
                # correlations send such.
                m.register_hook(Tensor.contiguous)
        rest = iter(maps)
        return [list(islice(rest, number)) for number in self.facts.layers]

    def _fastest(self, weights: tuple) -> nn.Module:
        """The form of the network that computes; `weights` tell when they change."""
        if not self.convolutional:
            return self.network
        if self._folded[0] != weights:
            with torch.inference_mode(False):  # kept for calls that need gradients, whoever comes first
                self._folded = weights, folded(self.network)
        return self._folded[1]


def build(name: str) -> Backbone:
    """A backbone with random weights.

    Raises:
        CdfssError: for a name that is not in BACKBONES.
    """
    # Only the library that is needed: timm takes seconds to import.
    if facts_of(name).library == "torchvision":
        from cdfss.backbones.torchvision import of_torchvision as make
    else:
        from cdfss.backbones.timm import of_timm as make
    return make(name)
