"""HSNet's learner: squeezes hypercorrelations and decodes them (HSNet sections 4.2 and 4.3)."""

import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.methods.hsnet.convolution4d import CenterPivotConv4d
from cdfss.methods.hsnet.hypercorrelation import Hypercorrelation


class HypercorrelationLearner(nn.Module):
    """Squeezes three hypercorrelations with 4-D convolutions, mixes them top-down, decodes in 2-D.

    Names and order of the layers are those of the published files.

    Args:
        layers: number of maps at stride 8, 16 and 32.
    """

    def __init__(self, layers: tuple[int, int, int]):
        super().__init__()
        fine, middle, coarse = layers
        widths = (16, 64, 128)
        self.encoder_layer4 = _encoder(coarse, widths, kernels=(3, 3, 3), strides=(2, 2, 2))
        self.encoder_layer3 = _encoder(middle, widths, kernels=(5, 3, 3), strides=(4, 2, 2))
        self.encoder_layer2 = _encoder(fine, widths, kernels=(5, 5, 3), strides=(4, 4, 2))
        mix = {"widths": (128, 128, 128), "kernels": (3, 3, 3), "strides": (1, 1, 1)}
        self.encoder_layer4to3 = _encoder(128, **mix)
        self.encoder_layer3to2 = _encoder(128, **mix)
        self.decoder1 = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.decoder2 = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1)
        )

    def squeeze(self, level: int, correlation: Hypercorrelation) -> Tensor:
        """Correlations of one stride -> (B, 128, m, m, h, w), support first, m = ceil(S / 256)."""
        encoder = (self.encoder_layer2, self.encoder_layer3, self.encoder_layer4)[level]
        first, *others = encoder
        x = first.of_correlation(correlation)
        for layer in others:
            x = layer(x)
        return x

    def mix(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """Squeezed encodings of the three strides -> logits (B, 2, 2 h, 2 w), h at stride 8."""
        mixed = self.encoder_layer4to3(middle + _resize_query_plane(coarse, middle.shape[-2:]))
        mixed = self.encoder_layer3to2(fine + _resize_query_plane(mixed, fine.shape[-2:]))
        decoded = self.decoder1(mixed.mean((2, 3)))  # (B, 64, h, w)
        size = [2 * side for side in decoded.shape[-2:]]
        decoded = F.interpolate(decoded, size, mode="bilinear", align_corners=True)
        return self.decoder2(decoded)

    def compile_mixing(self) -> None:
        """Let torch.compile make code for the mixing layers and the decoder, at their first use."""
        import torch._dynamo  # slow to import

        # A form for each part, with and without gradients and for each size of a batch. Since torch 2.7
        # another name is the documented one, and this one means the same.
        torch._dynamo.config.cache_size_limit = 64
        for layers in (self.encoder_layer4to3, self.encoder_layer3to2, self.decoder1, self.decoder2):
            layers.compile(dynamic=False)


def _encoder(channels: int, widths, kernels, strides) -> nn.Sequential:
    blocks = []
    for width, kernel, stride in zip(widths, kernels, strides, strict=True):
        blocks += [
            CenterPivotConv4d(channels, width, kernel, stride),
            nn.GroupNorm(4, width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*blocks)


def _resize_query_plane(x: Tensor, size) -> Tensor:
    """(B, C, hs, ws, hq, wq) -> (B, C, hs, ws, *size), bilinear with aligned corners."""
    planes = F.interpolate(x.flatten(1, 3), tuple(size), mode="bilinear", align_corners=True)
    return planes.view(*x.shape[:4], *size)
