"""Hypercorrelations: cosine similarities of all query and support positions (HSNet, section 4.1).

A support position outside the mask correlates to exactly 0 with everything, so only those inside
are computed and kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # added to the norms, HSNet model/base/correlation.py


def resize_masks(masks: Tensor, size) -> Tensor:
    """Masks (B, S, S) at the size (hs, ws) of features: (B, 1, hs, ws), bilinear with aligned corners."""
    return F.interpolate(masks[:, None].float(), tuple(size), mode="bilinear", align_corners=True)


@dataclass
class Windows:
    """The windows of a convolution over the support planes of a batch that hold a position at all.

    Attributes:
        outputs: number of windows of one plane.
        items, places: (R,), batch item and number in the plane of every such window.
        taps: (R, kernel * kernel), row of the item's values under each tap; its last row, which is
            0, under the taps without a position.
        centred: (M,), those of the R windows that have a position under their centre.
    """

    outputs: int
    items: Tensor
    places: Tensor
    taps: Tensor
    centred: Tensor


@dataclass
class SupportPlane:
    """Where the support masks of a batch let anything through, at the size (hs, ws) of one stride.

    Masks do not change, so it is made once for all steps of an adaptation.

    Attributes:
        mask: (B, 1, hs, ws), the masks resized, bilinear with aligned corners.
        positions: (B, n), numbers of the positions inside each mask, row by row, then `hs * ws`,
            which is nowhere, once or more. None where masks cover most of the planes: all
            positions, in their order.
    """

    mask: Tensor
    positions: Tensor | None
    _windows: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, mask: Tensor, size) -> "SupportPlane":
        """Masks (B, S, S) at a size (hs, ws)."""
        resized = resize_masks(mask, size)
        inside = (resized > 0).flatten(1)
        most, total = torch.stack([inside.sum(1).max(), inside.sum()]).tolist()
        nowhere = inside.shape[1]
        if 2 * total > inside.numel():
            return cls(resized, None)
        numbers = torch.arange(nowhere, device=mask.device).expand_as(inside)
        numbers = numbers.masked_fill(~inside, nowhere).sort(1).values
        return cls(resized, F.pad(numbers[:, :most], (0, 1), value=nowhere))

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.mask.shape[-2:])

    def windows(self, kernel: int, stride: int) -> Windows:
        """Windows of an odd kernel, padded by half its width, on `positions`; made once."""
        if (kernel, stride) not in self._windows:
            self._windows[kernel, stride] = self._make_windows(kernel, stride)
        return self._windows[kernel, stride]

    def _make_windows(self, kernel: int, stride: int) -> Windows:
        (hs, ws), (batch, n), margin = self.size, self.positions.shape, kernel // 2
        height, width = hs + 2 * margin, ws + 2 * margin
        places = (self.positions // ws + margin) * width + self.positions % ws + margin
        places = torch.where(self.positions < hs * ws, places, height * width)  # nowhere: one past the end
        rows = torch.arange(n, device=places.device).expand(batch, -1)
        numbered = torch.full((batch, height * width + 1), n - 1, device=places.device)
        numbered = numbered.scatter_(1, places, rows)[:, :-1].unflatten(1, (height, width))
        taps = numbered.unfold(1, kernel, stride).unfold(2, kernel, stride).flatten(3).flatten(1, 2)
        items, places = (taps < n - 1).any(2).nonzero(as_tuple=True)
        outputs, taps = taps.shape[1], taps[items, places]
        centred = (taps[:, taps.shape[1] // 2] < n - 1).nonzero()[:, 0]
        return Windows(outputs, items, places, taps, centred)


@dataclass
class Hypercorrelation:
    """The correlations of L maps of one stride.

    Attributes:
        values: (B, L, n, hq, wq) at the positions of the plane; 0 at all others.
    """

    values: Tensor
    plane: SupportPlane


def correlate(query: Tensor, support: Tensor, plane: SupportPlane) -> Tensor:
    """Cosine similarity, negative values cut to 0.

    query (B, C, hq, wq), masked support (B, C, hs, ws) -> (B, n, hq, wq) at the plane's positions.
    """
    hq, wq = query.shape[-2:]
    query, support = query.flatten(2), support.flatten(2)  # (B, C, positions)
    if plane.positions is not None:
        somewhere = plane.positions < support.shape[2]
        index = plane.positions.where(somewhere, 0)[:, None].expand(-1, support.shape[1], -1)
        support = support.gather(2, index) * somewhere[:, None]
    # The norms divide the products, which are mostly fewer than the features.
    norms = (support.norm(dim=1)[:, :, None] + EPSILON) * (query.norm(dim=1, keepdim=True) + EPSILON)
    return ((support.transpose(1, 2) @ query).clamp(min=0) / norms).unflatten(2, (hq, wq))


def hypercorrelation(
    query: Sequence[Tensor], support: Sequence[Tensor], plane: SupportPlane
) -> Hypercorrelation:
    """Correlate L maps of one stride, query and masked support (B, C, h, w)."""
    values = [correlate(q, s, plane) for q, s in zip(query, support, strict=True)]
    return Hypercorrelation(torch.stack(values, dim=1), plane)
