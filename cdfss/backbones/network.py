"""Frozen backbones (HSNet, section 4.1; paper/published code)."""

from itertools import islice

from torch import Tensor, nn

from cdfss.backbones.facts import facts_of


class Backbone(nn.Module):
    """A frozen network that maps images (B, 3, S, S) to maps of features, some at each stride.

    The parameters need no gradient and the module stays in evaluation mode whatever its parent
    does, so batch statistics never change.
    """

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.name, self.facts = name, facts_of(name)
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True):
        return super().train(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """All feature maps, fine to coarse."""
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
        maps = self.maps(images)
        for m in maps:
            if m.requires_grad:
                # torch (2.6 to 2.14 at least) misreads, in the backward pass of batch normalisation in
                # evaluation mode, a gradient of one picture that lies in memory as (h, w, C), and
                # correlations send such.
                m.register_hook(Tensor.contiguous)
        rest = iter(maps)
        return [list(islice(rest, number)) for number in self.facts.layers]


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
