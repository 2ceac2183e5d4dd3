"""What the paper looks at in features and pictures (paper tables 1, 6, 7, figures 1, 2, 3, 6, 7).

Feature maps are those of one picture at stride 32, real, (C, h, w). Where measurements compare pairs
of channels, PAIRED channels at even distances stand for all: the mean over their pairs differs from
that over all pairs by far less than two pictures differ. (The loss takes all pairs.)
"""

import math

import torch
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.methods.hsnet.hypercorrelation import SupportPlane, correlate
from cdfss.methods.hsnet.information import correlations, mean_of_pairs

PAIRED = 128  # channels, 8,128 pairs
BINS = 10  # of a channel's values; the paper does not state its estimator
SHIFTS = 4
PHASE_BINS = 50  # 0 to pi, paper figure 3
CORRELATION_BINS = 100  # absolute correlation, 0 to 1
BANDS = ("all", "low", "high")
FILLS = ("zero", "mean")


def filter_pictures(pictures: Tensor, amplitude: str, phase: str, radius: float, fill: str) -> Tensor:
    """Keep all, the low or the high frequencies of amplitude and of phase (paper figure 1).

    Low are frequencies up to `radius` from zero, as a share of the highest one along an axis (half
    a cycle a pixel); high are all others. What is left is transformed back; values may then lie
    outside the range they had. With fill "zero" and phases kept, low plus high is the picture.

    Args:
        pictures: real, (..., S, S); every plane on its own.
        amplitude, phase: "all", "low" or "high".
        radius: 0 keeps the mean alone; the corners are at 1.41.
        fill: what removed amplitudes become: "zero", or "mean", their own mean over the plane.
            Removed phases become 0 either way.

    Returns:
        Pictures of the same shape; the same ones where all is kept.

    Raises:
        CdfssError: for another band or fill.
    """
    if amplitude not in BANDS or phase not in BANDS or fill not in FILLS:
        raise CdfssError(
            f"filter: amplitude {amplitude!r}, phase {phase!r}, fill {fill!r}; expected bands of "
            f"{', '.join(BANDS)} and a fill of {', '.join(FILLS)}"
        )
    if amplitude == phase == "all":
        return pictures
    rows, columns = (torch.fft.fftfreq(size, 0.5, device=pictures.device) for size in pictures.shape[-2:])
    low = rows[:, None] ** 2 + columns**2 <= radius**2
    kept = {"all": torch.ones_like(low), "low": low, "high": ~low}
    spectrum = torch.fft.fft2(pictures)
    amplitudes, phases = spectrum.abs(), spectrum.angle()
    removed = ~kept[amplitude]
    filling = torch.zeros(())
    if fill == "mean":
        filling = (amplitudes * removed).sum((-2, -1), keepdim=True) / removed.sum().clamp(min=1)
    amplitudes = torch.where(removed, filling.to(amplitudes), amplitudes)
    return torch.fft.ifft2(torch.polar(amplitudes, phases * kept[phase])).real


def some_channels(maps: Tensor) -> Tensor:
    """At most PAIRED channels of maps (C, h, w) at even distances, as (c, h * w) float32."""
    channels = len(maps)
    number = min(channels, PAIRED)
    return maps[torch.arange(number, device=maps.device) * channels // number].flatten(1).float()


def mutual_information(maps: Tensor, bins: int = BINS) -> float:
    """Mean mutual information of two channels, in nats (paper tables 1 and 6).

    A channel's values at its positions are counted in `bins` bins of equal width between its
    smallest and its largest value; the information of the two counts is that of their joint
    frequencies. Positive factors on channels (ACPA) do not change it. With h * w of about 50 to 200
    positions it is far above 0 for independent channels too: `chance_information` says how far.

    Args:
        maps: (C, h, w).
    """
    return _information(some_channels(maps), bins)


def chance_information(maps: Tensor, bins: int = BINS) -> float:
    """`mutual_information` once every channel is shifted by an offset of its own, in nats.

    The offsets are drawn over the whole map, which goes on at its other side; the mean of SHIFTS
    such draws. A channel keeps its values and how smooth it is, and with them the estimator's bias:
    shuffled positions would give less chance to smooth maps than they have, and masks change how
    smooth maps are. What two channels share is gone but where their offsets are nearly the same.

    Args:
        maps: (C, h, w).
    """
    values = some_channels(maps)
    channels, (height, width) = len(values), maps.shape[1:]
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(SHIFTS):
        down, right = (torch.randint(n, (channels, 1, 1), generator=generator) for n in (height, width))
        rows = (torch.arange(height)[:, None] - down) % height
        columns = (torch.arange(width) - right) % width
        places = (rows * width + columns).flatten(1).to(values.device)  # (c, h * w)
        found.append(_information(values.gather(1, places), bins))
    return sum(found) / SHIFTS


def _information(values: Tensor, bins: int) -> float:
    if not values.isfinite().all():
        return math.nan
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    width = (high - low).clamp(min=torch.finfo(values.dtype).tiny)
    codes = ((values - low) / width * bins).long().clamp(max=bins - 1)
    channels, positions = values.shape
    member = torch.nn.functional.one_hot(codes, bins).transpose(1, 2).flatten(0, 1).float()
    joint = (member @ member.T / positions).view(channels, bins, channels, bins)
    entropies = -torch.xlogy(joint, joint).sum((1, 3))  # on the diagonal those of single channels
    single = entropies.diagonal()
    return float(mean_of_pairs(single[:, None] + single - entropies))


def correlation_histogram(maps: Tensor) -> Tensor:
    """Shares of channel pairs by absolute correlation (paper figure 6): (CORRELATION_BINS,), sum 1.

    Args:
        maps: (C, h, w).
    """
    matrix = correlations(some_channels(maps))
    first, second = torch.triu_indices(*matrix.shape, offset=1, device=matrix.device)
    pairs = matrix[first, second].abs()
    return _histogram(pairs, torch.ones_like(pairs), 1.0, CORRELATION_BINS)


def phase_histogram(maps: Tensor) -> Tensor:
    """Differences of two channels' phases at the same frequency (paper figures 3 and 8).

    A difference is taken the short way round, 0 to pi, and has the weight a b / |a - b| of the two
    amplitudes a and b. Where they are nearly equal that grows without bound, so |a - b| counts as
    at least a hundredth of (a + b) / 2.

    Args:
        maps: (C, h, w).

    Returns:
        Shares of the whole weight in PHASE_BINS bins of equal width from 0 to pi, sum 1.
    """
    values = some_channels(maps).unflatten(1, tuple(maps.shape[1:]))
    spectrum = torch.fft.fft2(values).flatten(1)
    amplitudes, phases = spectrum.abs(), spectrum.angle()
    first, second = torch.triu_indices(len(values), len(values), offset=1, device=maps.device)
    difference = (phases[first] - phases[second]).abs()
    difference = torch.minimum(difference, 2 * math.pi - difference)
    a, b = amplitudes[first], amplitudes[second]
    least = (0.005 * (a + b)).clamp(min=torch.finfo(torch.float32).tiny)
    return _histogram(difference, a * b / torch.maximum((a - b).abs(), least), math.pi, PHASE_BINS)


def _histogram(values: Tensor, weights: Tensor, highest: float, bins: int) -> Tensor:
    """Shares of the weights by value, 0 to highest: (bins,), sum 1; nan where a value is not finite."""
    if not values.isfinite().all():
        return torch.full((bins,), math.nan)
    place = (values.flatten() / highest * bins).long().clamp(0, bins - 1)
    counted = torch.zeros(bins, dtype=torch.float64, device=values.device)
    counted.index_add_(0, place, weights.flatten().double())
    return (counted / counted.sum().clamp(min=torch.finfo(torch.float64).tiny)).float()


def magnitudes(maps: Tensor) -> Tensor:
    """Mean absolute value of every channel over its positions (paper figure 2): (C, h, w) -> (C,)."""
    return maps.abs().mean((-2, -1))


def cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same n examples, 0 to 1.

    ||Y'X||² / (||X'X|| ||Y'Y||) with centred columns (Kornblith et al. 2019, equation 3): 1 for
    features equal up to rotation and scale, 0 for orthogonal ones; 0 where one is constant.

    Args:
        first: (n, p).
        second: (n, q).

    Raises:
        CdfssError: when the numbers of examples differ.
    """
    if len(first) != len(second):
        raise CdfssError(f"cka: {len(first)} and {len(second)} examples; expected the same ones in both")
    x, y = (features.double() - features.double().mean(0) for features in (first, second))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).square().sum() / scale) if scale != 0 else 0.0


def support_query_cka(support: Tensor, query: Tensor) -> float:
    """`cka` of the features of two pictures (paper table 7): (C, h, w) twice.

    The examples are the channels, which mean the same in both pictures, as positions do not; the
    features of a channel are its values at the positions. The paper does not state its examples.
    """
    return cka(support.flatten(1), query.flatten(1))


def activation(maps: Tensor) -> Tensor:
    """Mean absolute value over the channels (paper figure 7): (C, h, w) -> (h, w)."""
    return maps.abs().mean(0)


def similarity(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """How alike each query position is to the support's foreground, as the correlation sees it.

    The largest cosine similarity with a position inside the mask, at least 0, mean over the maps.

    Args:
        query: (L, C, h, w).
        support: (L, C, h, w).
        mask: (S, S), 1 for foreground.

    Returns:
        (h, w), 0 to 1; 0 where the mask is empty.
    """
    plane = SupportPlane.of(mask[None], support.shape[-2:])
    each = [correlate(q[None], s[None] * plane.mask[0], plane)[0].amax(0) for q, s in zip(query, support)]
    return torch.stack(each).mean(0)
