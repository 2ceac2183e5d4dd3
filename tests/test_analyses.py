"""Analyses on cases whose answer is known, and against independent calculations."""

import math

import numpy as np
import pytest
import torch

from cdfss import CdfssError
from cdfss.evaluation import analyses
from cdfss.methods.hsnet.information import correlations, gaussian_information


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fill", analyses.FILLS)
@pytest.mark.parametrize("size", [(3, 16, 16), (2, 3, 15, 15)])
def test_a_filter_that_keeps_everything_is_the_identity(size, fill):
    x = pictures(*size)
    assert torch.equal(analyses.filter_pictures(x, "all", "all", 0.1, fill), x)
    # All frequencies are within 1.5 of zero, and all but none are beyond.
    assert torch.allclose(analyses.filter_pictures(x, "low", "low", 1.5, fill), x, atol=1e-6)
    assert torch.allclose(analyses.filter_pictures(x, "low", "all", 1.5, fill), x, atol=1e-6)


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.5, 1.0])
def test_low_and_high_amplitudes_add_up_to_the_picture(radius):
    x = pictures(3, 20, 20)
    low, high = (analyses.filter_pictures(x, band, "all", radius, "zero") for band in ("low", "high"))
    assert torch.allclose(low + high, x, atol=1e-6)
    if radius == 0:
        assert torch.allclose(low, x.mean((-2, -1), keepdim=True).expand_as(x), atol=1e-6)
    assert torch.allclose(high.mean((-2, -1)), torch.zeros(3), atol=1e-6)


def test_a_wave_is_low_or_high_by_its_frequency():
    # 4 cycles over 32 pixels: 4 / 16 of the highest frequency along an axis.
    wave = torch.cos(2 * math.pi * 4 * torch.arange(32) / 32).expand(1, 32, 32)
    assert torch.allclose(analyses.filter_pictures(wave, "low", "all", 0.25, "zero"), wave, atol=1e-5)
    assert analyses.filter_pictures(wave, "low", "all", 0.24, "zero").abs().max() < 1e-5
    assert analyses.filter_pictures(wave, "high", "all", 0.25, "zero").abs().max() < 1e-5


def test_removed_amplitudes_become_their_mean_and_removed_phases_zero():
    x = pictures(1, 12, 12)
    amplitude = torch.fft.fft2(x)[0].abs()
    rows = torch.fft.fftfreq(12, 0.5)
    low = rows[:, None] ** 2 + rows**2 <= 0.5**2
    filled = torch.fft.fft2(analyses.filter_pictures(x, "low", "all", 0.5, "mean"))[0]
    assert torch.allclose(filled.abs()[low], amplitude[low], atol=1e-4)
    # The kept phases of the real Nyquist bins aside, each removed amplitude is the mean of them.
    assert torch.allclose(filled.abs()[~low], amplitude[~low].mean().expand_as(amplitude[~low]), atol=1e-3)
    zero_phase = torch.fft.fft2(analyses.filter_pictures(x, "all", "low", 0.5, "zero"))[0]
    assert zero_phase.angle()[~low].abs().max() < 1e-3
    assert torch.allclose(zero_phase.abs(), amplitude, atol=1e-4)


def test_unknown_bands_are_refused():
    with pytest.raises(CdfssError, match="expected bands of all, low, high"):
        analyses.filter_pictures(pictures(3, 8, 8), "middle", "all", 0.1, "zero")


def information_by_hand(a, b, bins):
    """Plug-in mutual information of two channels by NumPy's own two-dimensional histogram."""
    joint, _, _ = np.histogram2d(a, b, bins)
    joint = joint / joint.sum()
    product = joint.sum(1, keepdims=True) @ joint.sum(0, keepdims=True)
    there = joint > 0
    return (joint[there] * np.log(joint[there] / product[there])).sum()


def test_mutual_information_is_that_of_the_joint_histogram():
    maps = pictures(5, 9, 9) + pictures(1, 9, 9, seed=1)
    flat = maps.flatten(1).numpy()
    by_hand = [information_by_hand(flat[i], flat[j], 10) for i in range(5) for j in range(i)]
    assert analyses.mutual_information(maps) == pytest.approx(np.mean(by_hand), rel=1e-4)


def test_mutual_information_of_equal_channels_is_their_entropy_and_of_shifted_ones_chance():
    # 100 values, 10 in each bin: the entropy of one channel is log 10, and so is what two equal share.
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    one = order.float().view(1, 10, 10)
    assert analyses.mutual_information(one.expand(6, 10, 10)) == pytest.approx(math.log(10), rel=1e-5)
    scaled = one * torch.tensor([1.0, 0.2, 7.0]).view(3, 1, 1)
    assert analyses.mutual_information(scaled) == pytest.approx(math.log(10), rel=1e-5)
    assert analyses.chance_information(scaled) < 0.6 * math.log(10)
    independent = pictures(40, 60, 60, seed=5)
    # The bias of 10 x 10 cells and 3,600 positions is about 81 / 7,200.
    assert analyses.mutual_information(independent) == pytest.approx(81 / 7200, rel=0.1)
    assert analyses.chance_information(independent) == pytest.approx(81 / 7200, rel=0.1)
    twice = [analyses.chance_information(maps) for maps in (one.expand(6, 10, 10), scaled.repeat(2, 1, 1))]
    assert twice[0] == pytest.approx(twice[1])
    assert analyses.mutual_information(torch.ones(4, 5, 5)) == pytest.approx(0, abs=1e-6)


def test_chance_of_smooth_channels_is_what_independent_ones_give():
    maps = pictures(100, 26, 26, seed=3)
    smooth = torch.nn.functional.avg_pool2d(maps[None], 7, 1)[0]
    for independent in (maps, smooth):
        found = analyses.mutual_information(independent)
        assert analyses.chance_information(independent) == pytest.approx(found, rel=0.1)
    # With shuffled positions a good part of what smooth channels seem to share would not be chance.
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([c.flatten()[torch.randperm(400, generator=generator)] for c in smooth])
    assert analyses.mutual_information(shuffled.view(smooth.shape)) < 0.8 * found


def test_constant_channels_have_no_correlation_and_no_information():
    maps = torch.tensor([0.1, 0.3, 0.7]).view(3, 1, 1).repeat(1, 7, 7)
    assert (correlations(maps.flatten(1)) == 0).all()
    assert gaussian_information(maps) == 0


def test_gaussian_information_of_known_correlations():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 40000, generator=generator)
    r = 0.6
    pair = torch.stack([x[0], r * x[0] + math.sqrt(1 - r**2) * x[1]]).view(2, 200, 200)
    assert gaussian_information(pair) == pytest.approx(-0.5 * math.log(1 - r**2), abs=0.01)
    assert gaussian_information(torch.randn(2, 200, 200, generator=generator)) < 1e-3
    batch = torch.stack([pair, pair.flip(0) * 3])
    assert torch.allclose(gaussian_information(batch), gaussian_information(pair))
    assert torch.isfinite(gaussian_information(torch.ones(3, 4, 4)))


def test_gaussian_information_has_the_gradient_of_its_slope():
    maps = pictures(4, 5, 5).double().requires_grad_()
    (gradient,) = torch.autograd.grad(gaussian_information(maps), maps)
    direction = pictures(4, 5, 5, seed=3).double()
    with torch.no_grad():
        ends = [gaussian_information(maps + sign * 1e-2 * direction) for sign in (1, -1)]
    assert float((gradient * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=0.02)


def test_cka_of_equal_rotated_and_orthogonal_features():
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    assert analyses.cka(x, x) == pytest.approx(1)
    assert analyses.cka(x, 3 * x @ rotation) == pytest.approx(1)
    # Columns of one are orthogonal to all of the other's, and centred.
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(30, 1), x], 1).double())
    assert analyses.cka(basis[:, 1:4], basis[:, 4:]) == pytest.approx(0, abs=1e-12)
    assert analyses.cka(x, torch.ones(30, 2)) == 0
    with pytest.raises(CdfssError, match="30 and 29 examples"):
        analyses.cka(x, x[1:])


def test_cka_is_the_alignment_of_centred_gram_matrices():
    x, y = pictures(12, 5), pictures(12, 7, seed=1)
    centre = torch.eye(12) - 1 / 12
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    assert analyses.cka(x, y) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())), rel=1e-4)
    maps = pictures(9, 4, 4), pictures(9, 4, 4, seed=2)
    assert analyses.support_query_cka(*maps) == pytest.approx(
        analyses.cka(maps[0].flatten(1), maps[1].flatten(1))
    )


def test_correlations_are_those_of_numpy():
    maps = pictures(6, 7, 7, seed=2) + pictures(1, 7, 7, seed=3)
    expected = np.corrcoef(maps.flatten(1).numpy())
    assert np.allclose(correlations(maps.flatten(1)), expected, atol=1e-5)
    histogram = analyses.correlation_histogram(maps)
    absolute = np.abs(expected[np.triu_indices(6, 1)])
    counted, _ = np.histogram(absolute, analyses.CORRELATION_BINS, (0, 1))
    assert np.allclose(histogram, counted / counted.sum(), atol=1e-6)
    assert analyses.correlation_histogram(maps[:1].expand(3, 7, 7))[-1] == 1


def test_phase_differences_of_equal_and_of_opposite_channels():
    one = pictures(1, 8, 8)
    equal = analyses.phase_histogram(one.expand(4, 8, 8))
    assert equal.shape == (analyses.PHASE_BINS,)
    assert equal[0] == pytest.approx(1)
    opposite = analyses.phase_histogram(torch.cat([one, -one]))
    assert opposite[-1] == pytest.approx(1)


def test_phase_differences_are_weighted_by_amplitudes():
    maps = pictures(3, 6, 6)
    spectrum = np.fft.fft2(maps.numpy().astype(np.float64)).reshape(3, -1)
    expected = np.zeros(analyses.PHASE_BINS)
    for i in range(3):
        for j in range(i):
            for a, b in zip(spectrum[i], spectrum[j]):
                difference = abs(np.angle(a / b))
                weight = abs(a) * abs(b) / max(abs(abs(a) - abs(b)), 0.005 * (abs(a) + abs(b)))
                expected[min(int(difference / math.pi * 50), 49)] += weight
    found = analyses.phase_histogram(maps).numpy()
    # Real bins lie on the edges 0 and pi, where rounding may move them to the neighbour.
    assert np.abs(found.cumsum() - (expected / expected.sum()).cumsum()).max() < 0.02
    assert found.sum() == pytest.approx(1)


def test_magnitudes_and_activation_are_means_of_absolute_values():
    maps = torch.tensor([[[1.0, -3.0]], [[0.0, 2.0]]])
    assert analyses.magnitudes(maps).tolist() == [2, 1]
    assert analyses.activation(maps).tolist() == [[0.5, 2.5]]


def test_similarity_finds_the_support_foreground_in_the_query():
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(2, 16, 4, 4, generator=generator)
    mask = torch.zeros(4, 4)
    mask[1, 2] = 1
    query = torch.randn(2, 16, 4, 4, generator=generator)
    query[:, :, 3, 0] = 2 * support[:, :, 1, 2]
    heat = analyses.similarity(query, support, mask)
    assert heat[3, 0] == pytest.approx(1, abs=1e-3)
    assert heat.flatten().sort().values[-2] < 0.9
    assert analyses.similarity(query, support, torch.zeros(4, 4)).abs().max() == 0


def test_channels_at_even_distances_stand_for_all():
    maps = pictures(1000, 2, 2)
    some = analyses.some_channels(maps)
    assert some.shape == (analyses.PAIRED, 4)
    assert torch.equal(some[0], maps[0].flatten())
    assert analyses.some_channels(maps[:5]).shape == (5, 4)
