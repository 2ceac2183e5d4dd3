import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import array, numbers

from cdfss import AmplitudePhaseMasker, CdfssError, MaskModule, PhaseAttention
from cdfss.methods.frequency import mean_phase

CASES = {
    "s_odd": ((2, 6, 13, 13), "S"),
    "m_odd": ((2, 6, 13, 13), "M"),
    "s_even": ((3, 4, 12, 10), "S"),
    "m_even": ((3, 4, 12, 10), "M"),
    "m_mixed": ((1, 5, 7, 8), "M"),
}


@pytest.mark.parametrize("case", CASES)
def test_masker_equals_the_published_outputs(case):
    shape, kind = CASES[case]
    theirs = numbers("apm")
    mask_shape = (1, 1 if kind == "S" else shape[1], *shape[2:])
    masker = AmplitudePhaseMasker(mask_shape)
    maps = torch.from_numpy(array(f"apm/{case}/x", shape))
    assert np.abs(masker(maps).detach().numpy() - theirs[f"{case}/output_at_init"]).max() < 1e-4
    for name in ("amplitude", "phase"):
        published = 2 * array(f"apm/{case}/{name}", mask_shape)
        # The published masks are shifted over the channels too.
        ours = np.roll(published, -(mask_shape[1] // 2), axis=1)
        getattr(masker, f"mask_{name}").data = torch.from_numpy(ours.copy())
    assert np.abs(masker(maps).detach().numpy() - theirs[f"{case}/output"]).max() < 1e-4


def test_usage_of_the_published_modules_runs():
    maps = torch.randn(2, 16, 13, 13)
    assert MaskModule([1, 1, 13, 13])(maps).shape == maps.shape
    assert MaskModule([1, 16, 13, 13])(maps).shape == maps.shape
    assert PhaseAttention(16)(maps).shape == maps.shape


def test_parameter_counts_of_the_paper():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(AmplitudePhaseMasker((1, 1, 13, 13))) == 338
    assert count(AmplitudePhaseMasker((1, 2048, 13, 13))) == 692_224
    assert count(PhaseAttention(2048)) == 32_768


@pytest.mark.parametrize(
    ("case", "shape", "hidden"),
    [("odd", (3, 32, 13, 13), 8), ("even", (2, 16, 12, 10), 4), ("mixed", (2, 16, 7, 8), 16)],
)
def test_attention_equals_the_published_outputs(case, shape, hidden):
    theirs = numbers("acpa")
    maps = torch.from_numpy(array(f"acpa/{case}/x", shape))
    attention = PhaseAttention(shape[1], hidden)
    attention.squeeze.weight.data = torch.from_numpy(3 * array(f"acpa/{case}/w1", (hidden, shape[1])))
    attention.excite.weight.data = torch.from_numpy(3 * array(f"acpa/{case}/w2", (shape[1], hidden)))
    assert np.abs(mean_phase(maps).numpy() - theirs[f"{case}/mean_phase"]).max() < 1e-4
    assert np.abs(attention(maps).detach().numpy() - theirs[f"{case}/output"]).max() < 1e-4


@settings(max_examples=40)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_mean_phase_is_that_of_the_fourier_transform(height, width, seed):
    maps = torch.from_numpy(np.random.RandomState(seed).standard_normal((2, 3, height, width)))
    spectrum = torch.fft.fft2(maps)
    # A self-conjugate bin is real: rounding must not turn its phase pi into -pi.
    imaginary = torch.where(spectrum.imag.abs() < 1e-9, 0.0, spectrum.imag)
    phase = torch.complex(spectrum.real, imaginary).angle()
    assert torch.allclose(mean_phase(maps), phase.mean((-2, -1)), atol=1e-9)


def test_mean_phase_counts_conjugate_bins_as_cancelled_even_where_they_are_real():
    """A support mask over one position: bins are real that are not self-conjugate."""
    maps = torch.zeros(1, 1, 13, 13)
    maps[..., 0, 0] = -1.0
    assert mean_phase(maps).item() == pytest.approx(math.pi / 169)
    # The FFT gives all of them +pi, since it has no negative zeros: 169 bins instead of one.
    assert torch.fft.fft2(maps).angle().mean().item() == pytest.approx(math.pi, rel=1e-3)


def test_an_open_mask_passes_everything_and_a_closed_one_nothing():
    maps = torch.randn(1, 4, 5, 6)
    masker = AmplitudePhaseMasker((1, 1, 5, 6))
    masker.mask_amplitude.data.fill_(40.0)
    masker.mask_phase.data.fill_(40.0)
    assert torch.allclose(masker(maps), maps, atol=1e-5)
    masker.mask_amplitude.data.fill_(-40.0)
    assert masker(maps).abs().max() < 1e-5


def test_centre_of_the_mask_is_the_mean():
    maps = torch.randn(1, 2, 5, 4)
    masker = AmplitudePhaseMasker((1, 1, 5, 4))
    masker.mask_amplitude.data.fill_(-40.0)
    masker.mask_amplitude.data[0, 0, 2, 2] = 40.0
    masker.mask_phase.data.fill_(40.0)
    mean = maps.mean((-2, -1), keepdim=True).expand_as(maps)
    assert torch.allclose(masker(maps), mean, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (1, 3, 3), (1, 0, 3, 3)])
def test_masker_refuses_other_shapes(shape):
    with pytest.raises(CdfssError, match="expected \\[1, 1, h, w\\]"):
        AmplitudePhaseMasker(shape)


def test_masker_refuses_maps_of_another_size():
    with pytest.raises(CdfssError, match="maps are \\[1, 2, 8, 8\\]"):
        AmplitudePhaseMasker((1, 1, 7, 7))(torch.randn(1, 2, 8, 8))


def test_attention_weight_is_the_same_for_the_whole_channel():
    maps = torch.rand(1, 4, 3, 3) + 1
    ratio = PhaseAttention(4)(maps) / maps
    assert torch.allclose(ratio, ratio.mean((-2, -1), keepdim=True).expand_as(ratio))
    assert math.isclose(ratio.max().item(), 0.5, abs_tol=1e-6)  # no negative bin: sigmoid(0)
