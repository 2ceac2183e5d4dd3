"""Centre-pivot 4-D convolution (HSNet, section 4.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        """(B, I, hq, wq, hs, ws) -> (B, O, hq, wq, ceil(hs / stride), ceil(ws / stride))."""
        query_plane = self._over_query(x)
        support_plane = self._over_support(x)
        return query_plane + support_plane

    def _over_query(self, x: Tensor) -> Tensor:
        """conv1 at the strided support positions, which become part of the batch."""
        batch, channels, hq, wq, _, _ = x.shape
        x = x[..., :: self.support_stride, :: self.support_stride].permute(0, 4, 5, 1, 2, 3)
        hs, ws = x.shape[1:3]
        x = self.conv1(x.reshape(batch * hs * ws, channels, hq, wq))
        return x.view(batch, hs, ws, -1, hq, wq).permute(0, 3, 4, 5, 1, 2)

    def _over_support(self, x: Tensor) -> Tensor:
        """conv2 at all query positions."""
        batch, channels, hq, wq, hs, ws = x.shape
        stride, padding = self.support_stride, self.padding
        if hs * ws <= self.conv2.weight[0, 0].numel():
            # The plane is smaller than the kernel: one dense product does less work.
            matrix, out_hs, out_ws = self._dense(hs, ws)
            x = x.permute(0, 1, 4, 5, 2, 3).reshape(batch, channels * hs * ws, hq * wq)
            x = (matrix @ x).view(batch, -1, out_hs, out_ws, hq, wq).permute(0, 1, 4, 5, 2, 3)
            return x + self.conv2.bias.view(-1, 1, 1, 1, 1)
        x = F.conv3d(
            x.reshape(batch, channels, hq * wq, hs, ws),  # a view: nothing is copied
            self.conv2.weight[:, :, None],  # (O, I, 1, k, k)
            self.conv2.bias,
            stride=(1, stride, stride),
            padding=(0, padding, padding),
        )
        return x.view(batch, -1, hq, wq, *x.shape[-2:])

    def _dense(self, hs: int, ws: int) -> tuple[Tensor, int, int]:
        """conv2 without bias on a plane (hs, ws) as a matrix (O * hs' * ws', I * hs * ws), and hs', ws'.

        Kept for the next call where the weights are frozen, as in all steps of an adaptation.
        """
        weight = self.conv2.weight
        if weight.requires_grad:
            return self._make_dense(hs, ws)
        made_from = (hs, ws, weight.data_ptr(), weight._version)  # the version counts writes in place
        if self._kept is None or self._kept[0] != made_from:
            self._kept = made_from, self._make_dense(hs, ws)
        return self._kept[1]

    def _make_dense(self, hs: int, ws: int) -> tuple[Tensor, int, int]:
        weight = self.conv2.weight
        out_channels, in_channels = weight.shape[:2]
        (out_hs, rows), (out_ws, columns) = self._taps(hs), self._taps(ws)
        # dense[o, i, y', y, x', x] is the kernel's entry that carries (y, x) to (y', x').
        padded = F.pad(weight, (0, 1, 0, 1))  # one more row and column of zeros: beyond the kernel
        dense = padded[:, :, rows[:, :, None, None], columns]
        dense = dense.permute(0, 2, 4, 1, 3, 5)
        return dense.reshape(out_channels * out_hs * out_ws, in_channels * hs * ws), out_hs, out_ws

    def _taps(self, side: int) -> tuple[int, Tensor]:
        """Output positions of an axis, and the kernel's index (kernel if none) of output and input."""
        kernel = self.conv2.weight.shape[-1]
        outputs = -(-side // self.support_stride)
        first = self.support_stride * torch.arange(outputs)[:, None] - self.padding
        taps = torch.arange(side) - first
        return outputs, torch.where((taps >= 0) & (taps < kernel), taps, kernel)
