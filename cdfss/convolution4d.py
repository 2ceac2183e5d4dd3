"""Centre-pivot 4-D convolution (HSNet, section 4.2)."""

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

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, hq, wq, hs, ws) -> (B, O, hq, wq, ceil(hs / stride), ceil(ws / stride))."""
        batch, channels, hq, wq, hs, ws = x.shape
        stride, padding = self.support_stride, self.padding
        # 3-D convolutions on views: a plane is convolved, the other plane is one long third axis.
        query_plane = F.conv3d(
            x[..., ::stride, ::stride].reshape(batch, channels, hq, wq, -1),
            self.conv1.weight[..., None],  # (O, I, k, k, 1)
            self.conv1.bias,
            padding=(padding, padding, 0),
        )
        support_plane = F.conv3d(
            x.reshape(batch, channels, hq * wq, hs, ws),
            self.conv2.weight[:, :, None],  # (O, I, 1, k, k)
            self.conv2.bias,
            stride=(1, stride, stride),
            padding=(0, padding, padding),
        )
        shape = (batch, -1, hq, wq, *support_plane.shape[-2:])
        return query_plane.reshape(shape) + support_plane.reshape(shape)
