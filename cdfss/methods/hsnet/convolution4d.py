"""Centre-pivot 4-D convolution (HSNet, section 4.2).

Encodings are (B, hs, ws, hq, wq, C): channels last, in which processors convolve fastest, and a support
position is a contiguous plane of the query, so that everything below works on views but for one copy.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.methods.hsnet.hypercorrelation import Hypercorrelation
from cdfss.running.precision import float32_product


class CenterPivotConv4d(nn.Module):
    """A 4-D convolution kept to the two 2-D planes through its centre.

    `conv1` slides over the query plane at every (strided) support position, `conv2` over the
    support plane at every query position; the results are added.

    Args:
        in_channels, out_channels: channels of input and output.
        kernel: odd width of both 2-D kernels, in positions.
        support_stride: stride over the support plane; the query plane keeps its size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, support_stride: int):
        super().__init__()
        self.support_stride = support_stride
        self.padding = kernel // 2
        # Conv2d modules hold weights (O, I, k, k) and biases as the published files have them.
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel, padding=self.padding)
        self.conv2 = nn.Conv2d(
            in_channels, out_channels, kernel, stride=support_stride, padding=self.padding
        )
        self._kept: dict = {}  # other forms of frozen weights, each with what it was made from

    def forward(self, x: Tensor) -> Tensor:
        """(B, hs, ws, hq, wq, I) -> (B, ceil(hs / stride), ceil(ws / stride), hq, wq, O)."""
        strided = self._strided(x)
        planes = _convolved(strided.flatten(0, 2), self.conv1.weight, self._bias, self.padding)
        return planes.unflatten(0, strided.shape[:3]) + self._over_support(x)

    def of_resized(self, x: Tensor, size) -> Tensor:
        """The convolution, without biases, of x with its query plane resized to `size`.

        The resize is bilinear with aligned corners, and linear: products over channels are done before
        it, of fewer positions.

        x (B, hs, ws, h, w, I) -> (B, ceil(hs / stride), ceil(ws / stride), *size, O).
        """
        over_support = resize_query_plane(self._over_support(x), size)
        strided = self._strided(x)
        planes = strided.flatten(0, 2)  # (N, h, w, I)
        number, height, width, _ = planes.shape
        channels, _, kernel, _ = self.conv1.weight.shape
        rows = _shifted_resizes(height, size[0], kernel, x.device, x.dtype)
        columns = _shifted_resizes(width, size[1], kernel, x.device, x.dtype)
        columns = columns.flatten(1).expand(number * height, -1, -1)  # (N * h, W, w * k)
        # For each row of the kernel: the products of its taps, (N, h, w, k * O), spread over the columns.
        spread = []
        for taps in self._form("taps", self._taps_of_rows):
            products = (planes @ taps).view(number * height, width * kernel, channels)
            spread.append(torch.bmm(columns, products).view(number, height, -1))
        spread = torch.cat(spread, 1)  # (N, k * h, W * O), and over the rows
        rows = rows.transpose(1, 2).flatten(1).expand(number, -1, -1)  # (N, H, k * h)
        planes = torch.bmm(rows, spread).view(*strided.shape[:3], *size, channels)
        return planes + over_support

    def of_correlation(self, correlation: Hypercorrelation) -> Tensor:
        """The same convolution of correlations kept at some positions of the support plane.

        Returns (B, ceil(hs / stride), ceil(ws / stride), hq, wq, O). Only outputs that reach a
        position are computed; the others are the bias.
        """
        values, plane = correlation.values, correlation.plane
        if plane.positions is None:
            return self(values.unflatten(2, plane.size).permute(0, 2, 3, 4, 5, 1))
        batch, channels, n, hq, wq = values.shape
        outputs = len(self.conv1.weight)
        windows = plane.windows(2 * self.padding + 1, self.support_stride)
        # Every tap of every channel under every window, as rows of all values.
        starts = windows.items[:, None] * channels + torch.arange(channels, device=values.device)
        rows = (starts[:, :, None] * n + windows.taps[:, None]).flatten(1)  # (R, I * k * k)
        columns = values.flatten(3).flatten(0, 2).index_select(0, rows.flatten())
        columns = columns.view(*rows.shape, hq * wq)
        # Not columns.mT @ weight, which copies the columns to make one product of them.
        weight = self.conv2.weight.flatten(1).expand(len(rows), -1, -1)
        planes = torch.bmm(columns.mT, weight.mT)  # (R, hq * wq, O)

        below = windows.taps[windows.centred, windows.taps.shape[1] // 2]
        centres = values[windows.items[windows.centred], :, below]  # (M, I, hq, wq)
        centres = _convolved(centres.permute(0, 2, 3, 1), self.conv1.weight, None, self.padding)
        planes = planes.index_add_(0, windows.centred, centres.flatten(1, 2).to(planes.dtype))

        x = planes.new_zeros(batch * windows.outputs, hq * wq, outputs)
        x = x.index_copy_(0, windows.items * windows.outputs + windows.places, planes) + self._bias
        hs, ws = (-(-side // self.support_stride) for side in plane.size)
        return x.view(batch, hs, ws, hq, wq, outputs)

    def _strided(self, x: Tensor) -> Tensor:
        """x at the support positions that are the centre of a window."""
        stride = self.support_stride
        return x if stride == 1 else x[:, ::stride, ::stride]  # of a slice the gradient is a copy

    @property
    def _bias(self) -> Tensor:
        return self.conv1.bias + self.conv2.bias

    def _over_support(self, x: Tensor) -> Tensor:
        """conv2 without its bias."""
        batch, hs, ws, hq, wq, channels = x.shape
        if hs * ws <= self.conv2.weight[0, 0].numel():
            # The plane is smaller than the kernel: one dense product does less work.
            dense = self._form((hs, ws), lambda: self._make_dense(hs, ws))
            x = x.flatten(1, 2).permute(0, 2, 3, 1, 4).reshape(batch, hq, wq, hs * ws * channels)
            side, other = (-(-n // self.support_stride) for n in (hs, ws))
            return (x @ dense).unflatten(3, (side, other, -1)).permute(0, 3, 4, 1, 2, 5)
        x = x.flatten(3, 4).permute(0, 4, 1, 2, 3)  # (B, I, hs, ws, hq * wq)
        y = _conv3d(x, self.conv2.weight[..., None], self.support_stride, self.padding)
        return y.permute(0, 2, 3, 4, 1).unflatten(3, (hq, wq))

    def _form(self, key, make: Callable[[], Tensor]) -> Tensor:
        """Another form of weights, kept for the next call where they are frozen, as in all steps."""
        weights = self.conv1.weight, self.conv2.weight
        # The compiler is asked first: it cannot follow the question after inference mode.
        if (
            torch.compiler.is_compiling()
            or any(weight.requires_grad for weight in weights)
            or torch.is_inference_mode_enabled()
        ):
            return make()
        # The version counts writes in place, but for those through `.data`.
        made_from = [(weight.data_ptr(), weight._version) for weight in weights]
        if key not in self._kept or self._kept[key][0] != made_from:
            self._kept[key] = made_from, make()
        return self._kept[key][1]

    def _taps_of_rows(self) -> list[Tensor]:
        """conv1's kernel row by row, each (I, k * O)."""
        return list(self.conv1.weight.permute(2, 1, 3, 0).flatten(2).contiguous())

    def _make_dense(self, hs: int, ws: int) -> Tensor:
        """conv2 without bias on a plane (hs, ws) as a matrix (hs * ws * I, hs' * ws' * O)."""
        weight = self.conv2.weight
        rows, columns = self._taps(hs), self._taps(ws)
        # dense[o, i, y', y, x', x] is the kernel's entry that carries (y, x) to (y', x'). As a product with
        # zeros and ones: the gradient of an index is added up by threads in whichever order they come.
        carried = rows[:, :, None, None, :, None] & columns[:, :, None, :]  # (y', y, x', x, k, k)
        carried = carried.flatten(4).flatten(0, 3).to(weight.dtype)
        dense = float32_product(weight.flatten(2), carried.mT)
        dense = dense.unflatten(2, (*rows.shape[:2], *columns.shape[:2])).permute(3, 5, 1, 2, 4, 0)
        return dense.flatten(3).flatten(0, 2)

    def _taps(self, side: int) -> Tensor:
        """(outputs, side, k): whether a tap of an axis carries an input position to an output."""
        kernel = self.conv2.weight.shape[-1]
        outputs = -(-side // self.support_stride)
        device = self.conv2.weight.device  # indices of the processor would have to be sent at each use
        first = self.support_stride * torch.arange(outputs, device=device)[:, None] - self.padding
        taps = torch.arange(side, device=device) - first
        return taps[..., None] == torch.arange(kernel, device=device)


def resize_query_plane(x: Tensor, size) -> Tensor:
    """(B, hs, ws, hq, wq, C) -> (B, hs, ws, *size, C), bilinear with aligned corners."""
    planes = x.flatten(0, 2).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, tuple(size), mode="bilinear", align_corners=True)
    return planes.permute(0, 2, 3, 1).unflatten(0, x.shape[:3])


def _convolved(planes: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Planes (N, h, w, I) -> (N, h, w, O)."""
    return F.conv2d(planes.permute(0, 3, 1, 2), weight, bias, padding=padding).permute(0, 2, 3, 1)


def _conv3d(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """x (B, I, hs, ws, P), weight (O, I, k, k, 1) -> (B, O, hs', ws', P)."""
    strides, paddings = (stride, stride, 1), (padding, padding, 0)
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # What F.conv3d calls for most shapes. For a batch of one it takes its own code, which is
        # three to six times slower.
        return torch.ops.aten.mkldnn_convolution(x, weight, None, paddings, strides, (1, 1, 1), 1)
    return F.conv3d(x, weight, stride=strides, padding=paddings)


@functools.lru_cache(32)
def _shifted_resizes(before: int, after: int, kernel: int, device: torch.device, dtype) -> Tensor:
    """(after, before, kernel): a bilinear resize of an axis, then each shift that a kernel makes.

    Entry (i, j, t) is what position j gives, under tap t, to position i of the resized axis.
    """
    with torch.inference_mode(False):  # kept for calls that need gradients, whoever comes first
        unit = torch.eye(before)[:, None]  # (before, 1, before)
        resized = F.interpolate(unit, after, mode="linear", align_corners=True)[:, 0].mT  # (after, before)
        padded = F.pad(resized, (0, 0, kernel // 2, kernel // 2))
        shifted = torch.stack([padded[t : t + after] for t in range(kernel)], 2)
        return shifted.to(device, dtype)
