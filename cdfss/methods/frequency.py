"""Amplitude-phase masker (APM) and adaptive channel phase attention (ACPA), paper section 4.

Both act on real feature maps (..., C, h, w). FFT, angle and polar always run in float32. The functions
are what models use (`cdfss.methods.modules`); the layers are the same on their own.
"""

import functools
import math

import torch
from torch import Tensor, nn

from cdfss.errors import CdfssError
from cdfss.running.precision import float32_product

# Positions up to which the inverse transform is faster as one real matrix product than as an FFT.
DENSE_UP_TO = 256


@functools.cache  # for good: a CUDA graph reads it without holding it
def inverse_transform(height: int, width: int, device: torch.device) -> Tensor:
    """(2 h w, h w): real and imaginary parts of a spectrum -> real part of its inverse transform."""
    with torch.inference_mode(False):  # kept for calls that need gradients, whoever comes first
        unit = torch.eye(height * width, dtype=torch.complex128).view(-1, height, width)
        waves = torch.fft.ifft2(unit).flatten(1)
        return torch.cat([waves.real, -waves.imag]).float().to(device)


def spectrum(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and phase of real maps (..., C, h, w), in their shape, float32, not centred.

    For maps that do not change between steps it is computed once, outside the loop.
    """
    found = torch.fft.fft2(maps.float())
    return found.abs(), found.angle()


def masked(amplitude: Tensor, phase: Tensor, mask_amplitude: Tensor, mask_phase: Tensor) -> Tensor:
    """Real maps (..., C, h, w), float32, from a `spectrum` times the sigmoid of masks (paper 4.2).

    The masks, (1 or E, 1 or C, h, w), have the lowest frequency in the centre. They are shifted instead of
    the spectrum: same product, far fewer numbers moved.
    """
    factors = torch.cat([mask_amplitude, mask_phase]).float().sigmoid()
    for_amplitude, for_phase = torch.fft.ifftshift(factors, dim=(-2, -1)).chunk(2)
    amplitude, phase = amplitude * for_amplitude, phase * for_phase
    height, width = amplitude.shape[-2:]
    if height * width > DENSE_UP_TO:
        return torch.fft.ifft2(torch.polar(amplitude, phase)).real
    parts = torch.cat([(amplitude * phase.cos()).flatten(-2), (amplitude * phase.sin()).flatten(-2)], -1)
    maps = float32_product(parts, inverse_transform(height, width, amplitude.device))
    return maps.unflatten(-1, (height, width))


def weighted_by_phase(maps: Tensor, squeeze: Tensor, excite: Tensor) -> Tensor:
    """Maps (..., C, h, w) with every channel times a weight in (0, 1) (paper 4.3).

    Average phase (C) -> squeeze (hidden, C) -> ReLU -> excite (C, hidden) -> sigmoid. Of E episodes, maps
    (..., E, C, h, w), both may be (1 or E, ...).
    """
    phase = mean_phase(maps)[..., None, :]
    hidden = (phase @ squeeze.mT).relu()
    weights = (hidden @ excite.mT).sigmoid()  # (..., 1, C)
    return maps * weights.mT[..., None]


class AmplitudePhaseMasker(nn.Module):
    """APM: scale amplitude and phase of a feature map's spectrum by learnt factors (paper 4.2).

    A map's centred spectrum has its amplitude multiplied by sigmoid(mask_amplitude) and its
    phase by sigmoid(mask_phase); the real part of the inverse transform is returned.

    Args:
        shape: (1, 1, h, w) for one mask shared by all channels (APM-S) or (1, C, h, w) for one
            mask per channel (APM-M). Masks are parameters of this shape, lowest frequency in
            the centre (h // 2, w // 2), all ones at the start (factor sigmoid(1) = 0.731).

    Raises:
        CdfssError: when shape is not (1, channels, h, w) with positive sizes.
    """

    def __init__(self, shape):
        super().__init__()
        shape = tuple(int(size) for size in shape)
        if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
            raise CdfssError(
                f"AmplitudePhaseMasker: shape is {list(shape)}; expected [1, 1, h, w] for one mask "
                "for all channels (APM-S) or [1, c, h, w] for one mask per channel (APM-M)"
            )
        self.mask_amplitude = nn.Parameter(torch.ones(shape))
        self.mask_phase = nn.Parameter(torch.ones(shape))

    @classmethod
    def from_published(cls, amplitude: Tensor, phase: Tensor) -> "AmplitudePhaseMasker":
        """A masker from the two masks (1, 1 or C, h, w) of a published file.

        The published code centres the spectrum over all four axes, so that its mask row c acts on
        channel (c + C // 2) mod C; ours acts on channel c.
        """
        if amplitude.shape != phase.shape:
            raise CdfssError(
                f"AmplitudePhaseMasker: published masks are {list(amplitude.shape)} for amplitude and "
                f"{list(phase.shape)} for phase; expected equal shapes"
            )
        masker = cls(amplitude.shape)
        with torch.no_grad():
            masker.mask_amplitude.copy_(_roll_channels(amplitude, -1))
            masker.mask_phase.copy_(_roll_channels(phase, -1))
        return masker

    def to_published(self) -> tuple[Tensor, Tensor]:
        """Copies of the amplitude and phase mask in the published layout; undoes `from_published`."""
        return _roll_channels(self.mask_amplitude, 1), _roll_channels(self.mask_phase, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Masked maps (..., C, h, w) for real maps of this shape, which the masks are broadcast to.

        Raises:
            CdfssError: when the masks are of other sizes.
        """
        expected, there = self.mask_amplitude.shape, (1, *maps.shape)[-4:]
        if there[-2:] != expected[-2:] or any(e not in (1, m) for e, m in zip(expected[:2], there)):
            raise CdfssError(
                f"AmplitudePhaseMasker: maps are {list(maps.shape)}, the masks {list(expected)}; "
                "height and width must be equal and the masks have one channel or as many as the "
                "maps. Make the masker for the image size that it is used with"
            )
        return masked(*spectrum(maps), self.mask_amplitude, self.mask_phase).to(maps.dtype)


def _roll_channels(mask: Tensor, direction: int) -> Tensor:
    return mask.detach().roll(direction * (mask.shape[1] // 2), dims=1)


class PhaseAttention(nn.Module):
    """ACPA: weights on channels from the average phase of each channel (paper 4.3).

    Average phase (C) -> linear to `hidden`, no bias -> ReLU -> linear to C, no bias -> sigmoid.

    Args:
        channels: C of the maps.
        hidden: width of the bottleneck (8 in the published code).

    Raises:
        CdfssError: when channels or hidden is below 1.
    """

    def __init__(self, channels: int, hidden: int = 8):
        super().__init__()
        if channels < 1 or hidden < 1:
            raise CdfssError(
                f"PhaseAttention: channels={channels}, hidden={hidden}; both must be at least 1"
            )
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (..., C, h, w) with every channel multiplied by its weight in (0, 1)."""
        return weighted_by_phase(maps, self.squeeze.weight, self.excite.weight)


def mean_phase(maps: Tensor) -> Tensor:
    """Average phase in radians of each channel of real maps (..., C, h, w), as (..., C), without FFT.

    Conjugate bins of a real map's spectrum have opposite phases and cancel. What remains are the
    self-conjugate bins: the mean and, for even sizes, the Nyquist bins. They are real, so each
    adds 0, or pi when negative.
    """
    height, width = maps.shape[-2:]
    alternate_rows = 1 - 2 * (torch.arange(height, device=maps.device) % 2)
    alternate_columns = 1 - 2 * (torch.arange(width, device=maps.device) % 2)
    rows = maps.sum(-1)  # (..., C, h)
    bins = [rows.sum(-1)]
    if height % 2 == 0:
        bins.append((rows * alternate_rows).sum(-1))
    if width % 2 == 0:
        columns = maps.sum(-2)  # (..., C, w)
        bins.append((columns * alternate_columns).sum(-1))
        if height % 2 == 0:
            checkerboard = alternate_rows[:, None] * alternate_columns
            bins.append((maps * checkerboard).sum((-2, -1)))
    negative = torch.stack([value < 0 for value in bins]).sum(0)
    return negative.to(maps.dtype) * (math.pi / (height * width))


MaskModule = AmplitudePhaseMasker  # its name in the published code
