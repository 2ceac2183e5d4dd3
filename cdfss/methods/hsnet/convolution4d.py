"""Centre-pivot 4-D convolution (HSNet, section 4.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.methods.hsnet.hypercorrelation import Hypercorrelation


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
        self._kept = None  # the last dense form of frozen weights, and what it was made from

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, hs, ws, hq, wq) -> (B, O, ceil(hs / stride), ceil(ws / stride), hq, wq).

        With the query plane last nearly everything works on views of x.
        """
        query_plane = self._over_query(x)
        shape = query_plane.shape
        batch, channels, hs, ws, hq, wq = x.shape
        if hs * ws <= self.conv2.weight[0, 0].numel():
            # The plane is smaller than the kernel: one dense product does less work.
            matrix = self._dense(hs, ws).expand(batch, -1, -1)
            x = x.reshape(batch, channels * hs * ws, hq * wq)
            return torch.baddbmm(query_plane.reshape(batch, -1, hq * wq), matrix, x).view(shape)
        support_plane = F.conv3d(
            x.reshape(batch, channels, hs, ws, hq * wq),
            self.conv2.weight[..., None],  # (O, I, k, k, 1)
            stride=(self.support_stride, self.support_stride, 1),
            padding=(self.padding, self.padding, 0),
        )
        return query_plane + support_plane.view(shape)

    def of_correlation(self, correlation: Hypercorrelation) -> Tensor:
        """The same convolution of correlations kept at some positions of the support plane.

        Returns (B, O, ceil(hs / stride), ceil(ws / stride), hq, wq). Only outputs that reach a
        position are computed; the others are the bias.
        """
        values, plane = correlation.values, correlation.plane
        if plane.positions is None:
            return self(values.unflatten(2, plane.size))
        batch, channels, n, hq, wq = values.shape
        outputs = len(self.conv1.weight)
        windows = plane.windows(2 * self.padding + 1, self.support_stride)
        # Every tap of every channel under every window, as rows of all values.
        starts = windows.items[:, None] * channels + torch.arange(channels, device=values.device)
        rows = (starts[:, :, None] * n + windows.taps[:, None]).flatten(1)  # (R, I * k * k)
        columns = values.flatten(3).flatten(0, 2).index_select(0, rows.flatten())
        columns = columns.view(*rows.shape, hq * wq)
        # Not weight @ columns, which copies the columns to make one product of them.
        weight = self.conv2.weight.flatten(1).expand(len(rows), -1, -1)
        planes = torch.bmm(weight, columns)  # (R, O, hq * wq)

        below = windows.taps[windows.centred, windows.taps.shape[1] // 2]
        centres = values[windows.items[windows.centred], :, below]  # (M, I, hq, wq)
        centres = F.conv2d(centres, self.conv1.weight, padding=self.padding).flatten(2)
        planes = planes.index_add_(0, windows.centred, centres.to(planes.dtype))

        x = planes.new_zeros(batch, outputs, windows.outputs, hq * wq)
        starts = windows.items[:, None] * outputs + torch.arange(outputs, device=values.device)
        rows = starts * windows.outputs + windows.places[:, None]  # (R, O), of x
        x = x.flatten(0, 2).index_copy_(0, rows.flatten(), planes.flatten(0, 1)).view_as(x)
        x += (self.conv1.bias + self.conv2.bias)[:, None, None]
        hs, ws = (-(-side // self.support_stride) for side in plane.size)
        return x.view(batch, outputs, hs, ws, hq, wq)

    def _over_query(self, x: Tensor) -> Tensor:
        """conv1 at the strided support positions, plus both biases."""
        x = x[:, :, :: self.support_stride, :: self.support_stride]
        batch, channels, hs, ws, hq, wq = x.shape
        planes = x.flatten(2, 3).transpose(1, 2).reshape(batch * hs * ws, channels, hq, wq)
        bias = self.conv1.bias + self.conv2.bias
        planes = F.conv2d(planes, self.conv1.weight, bias, padding=self.padding)
        return planes.view(batch, hs * ws, -1, hq, wq).transpose(1, 2).unflatten(2, (hs, ws))

    def _dense(self, hs: int, ws: int) -> Tensor:
        """conv2 without bias on a plane (hs, ws) as a matrix (O * hs' * ws', I * hs * ws).

        Kept for the next call where the weights are frozen, as in all steps of an adaptation.
        """
        weight = self.conv2.weight
        # The compiler is asked first: it cannot follow the question after inference mode.
        if torch.compiler.is_compiling() or weight.requires_grad or torch.is_inference_mode_enabled():
            return self._make_dense(hs, ws)
        # The version counts writes in place, but for those through `.data`.
        made_from = (hs, ws, weight.data_ptr(), weight._version)
        if self._kept is None or self._kept[0] != made_from:
            self._kept = made_from, self._make_dense(hs, ws)
        return self._kept[1]

    def _make_dense(self, hs: int, ws: int) -> Tensor:
        weight = self.conv2.weight
        out_channels, in_channels = weight.shape[:2]
        (out_hs, rows), (out_ws, columns) = self._taps(hs), self._taps(ws)
        # dense[o, i, y', y, x', x] is the kernel's entry that carries (y, x) to (y', x').
        padded = F.pad(weight, (0, 1, 0, 1))  # one more row and column of zeros: beyond the kernel
        dense = padded[:, :, rows[:, :, None, None], columns]
        dense = dense.permute(0, 2, 4, 1, 3, 5)
        return dense.reshape(out_channels * out_hs * out_ws, in_channels * hs * ws)

    def _taps(self, side: int) -> tuple[int, Tensor]:
        """Output positions of an axis, and the kernel's index (kernel if none) of output and input."""
        kernel = self.conv2.weight.shape[-1]
        outputs = -(-side // self.support_stride)
        device = self.conv2.weight.device  # indices of the processor would have to be sent at each use
        first = self.support_stride * torch.arange(outputs, device=device)[:, None] - self.padding
        taps = torch.arange(side, device=device) - first
        return outputs, torch.where((taps >= 0) & (taps < kernel), taps, kernel)
