"""SRIP, spectral restricted isometry (Bansal et al., NeurIPS 2018; a rival of paper table 9)."""

from pydantic import Field

from cdfss.methods import contract
from cdfss.methods.modules.contract import Module


class OrthogonalLayer(Module):
    """A 1 x 1 convolution W, which starts at the identity, with a penalty that keeps it near to orthogonal.

    The penalty is weight * sigma^2, sigma being the largest singular value of W^T W - I by one power
    iteration. The published one is of all layers of a network in training; here the network is frozen, and
    this layer is added.
    """

    family = "correlation"
    learns = True

    class Settings(contract.Settings):
        weight: float = Field(
            1e-6,
            ge=0,
            allow_inf_nan=False,
            description="of the penalty in the loss (1e-6 in the published code for ImageNet)",
        )

    def parameters(self, channels, height, width):
        import torch

        return {"layer": torch.eye(channels)[None]}

    def change(self, parameters, prepared):
        import torch

        # Not a product by broadcasting, which would have a layer, and its gradient, for every map.
        changed = torch.einsum("ecd,...edp->...ecp", parameters["layer"], prepared.flatten(-2))
        return changed.reshape(prepared.shape)

    def penalty(self, parameters):
        import torch
        from torch.nn import functional as F

        from cdfss.running.precision import float32_product

        layer = parameters["layer"].float()  # (1 or E, C, C)
        drawn = torch.randn(layer.shape[-1], 1, generator=torch.Generator().manual_seed(0))

        def deviation(vector):  # (W^T W - I) v, whose terms nearly cancel
            return float32_product(layer.mT, float32_product(layer, vector)) - vector

        start = drawn.to(layer.device).expand(len(layer), -1, -1)
        reached = deviation(F.normalize(deviation(start), dim=-2))  # the matrix is symmetric
        return self.settings.weight * reached.square().sum((-2, -1))
