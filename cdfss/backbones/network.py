"""Frozen backbones (HSNet, section 4.1; paper/published code)."""

from itertools import islice

import torch
from torch import Tensor, nn

from cdfss.backbones.facts import facts_of
from cdfss.backbones.folding import folded


class Backbone(nn.Module):
    """A frozen network that maps images (B, 3, S, S) to maps of features, some at each stride.

    The parameters need no gradient and the module stays in evaluation mode whatever its parent
    does, so batch statistics never change. While that is so, a convolutional network computes in its
    `folded` form; once its parameters want gradients, as in whole-model fine-tuning, as it is.
    """

    convolutional = True

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.name, self.facts = name, facts_of(name)
        self.network = network
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
        maps = self.maps(self._fastest(), images)
        for m in maps:
            if m.requires_grad:
                # torch (2.6 to 2.14 at least) misreads, in the backward pass of batch normalisation in
                # evaluation mode, a gradient of one picture that lies in memory as (h, w, C), and
                # correlations send such.
                m.register_hook(Tensor.contiguous)
        rest = iter(maps)
        return [list(islice(rest, number)) for number in self.facts.layers]

    def _fastest(self) -> nn.Module:
        tensors = [*self.network.parameters(), *self.network.buffers()]
        if not self.convolutional or any(t.requires_grad or t.is_inference() for t in tensors):
            return self.network
        # The version counts writes in place, but for those through `.data`.
        made_from = [(t.data_ptr(), t._version) for t in tensors]
        if self._folded[0] != made_from:
            with torch.inference_mode(False):  # kept for calls that need gradients, whoever comes first
                self._folded = made_from, folded(self.network)
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
