"""HSNet's learner: squeezes hypercorrelations and decodes them (HSNet sections 4.2 and 4.3)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.methods.hsnet.convolution4d import CenterPivotConv4d, resize_query_plane
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
        """Correlations of one stride -> (B, m, m, h, w, 128), support first, m = ceil(S / 256)."""
        first, *others = (self.encoder_layer2, self.encoder_layer3, self.encoder_layer4)[level]
        return _through(others, first.of_correlation(correlation))

    def mix(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """Squeezed encodings of the three strides -> logits (B, 2, 2 h, 2 w), h at stride 8."""
        mixed = middle + resize_query_plane(coarse, middle.shape[3:5])
        mixed = _through(self.encoder_layer4to3, mixed, mixing=True)
        mixed = fine + resize_query_plane(mixed, fine.shape[3:5])
        return self._decoded(_through(self.encoder_layer3to2, mixed, mixing=True))

    def prepare(self, fine: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """The share of the two finer encodings in the first layers of mixing, which are linear."""
        return self.encoder_layer3to2[0](fine), self.encoder_layer4to3[0](middle)

    def mix_prepared(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """`mix` of `prepare`d encodings, for many coarse ones with the same finer ones."""
        mixed = coarse
        for layers, share in ((self.encoder_layer4to3, middle), (self.encoder_layer3to2, fine)):
            first, *others = layers
            mixed = share + first.of_resized(mixed, share.shape[3:5])
            mixed = _through(others, mixed, mixing=True)
        return self._decoded(mixed)

    def _decoded(self, mixed: Tensor) -> Tensor:
        """(B, m, m, h, w, 128) -> logits (B, 2, 2 h, 2 w)."""
        decoded = self.decoder1(mixed.mean((1, 2)).permute(0, 3, 1, 2))  # (B, 64, h, w)
        size = [2 * side for side in decoded.shape[-2:]]
        decoded = F.interpolate(decoded, size, mode="bilinear", align_corners=True)
        return self.decoder2(decoded)


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


def _through(layers: Iterable[nn.Module], x: Tensor, mixing: bool = False) -> Tensor:
    """Layers of an encoder on (B, hs, ws, hq, wq, C)."""
    for layer in layers:
        if isinstance(layer, nn.GroupNorm):
            normalised = (_varying if mixing else _normalised)(layer, x.flatten(1, 2))
            x = normalised.unflatten(1, x.shape[1:3])
        else:
            x = layer(x)
    return x


def _normalised(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """The normalisation of (B, n, h, w, C), over all but B within each group of channels."""
    # Channels first: channels last, torch sums up value by value, and where many values are the same, as
    # outside of a mask, variances lose two digits.
    planes = layer(x.permute(0, 4, 1, 2, 3).contiguous())
    return planes.permute(0, 2, 3, 4, 1).contiguous()


def _varying(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """The same without a copy, for values that differ everywhere."""
    with torch.no_grad():
        # torch takes variances as differences of sums. A common shift of a group changes nothing else,
        # gradients included.
        means = x.flatten(1, 3).mean(1).unflatten(1, (layer.num_groups, -1))
        means = means.mean(2, keepdim=True).expand_as(means).flatten(1)[:, None, None, None]
    return layer((x - means).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
