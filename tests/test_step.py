"""A step as a function of tensors: recorded and replayed, it is the plain one."""

import copy

import plain
import pytest
import torch
from conftest import balanced, episode_of, small_hsnet
from on_device import AllPositions
from reference import VARIANTS
from torch.utils._python_dispatch import TorchDispatchMode

from cdfss.methods.hsnet.adaptation import Adaptation
from cdfss.methods.hsnet.step import Recording, Runner


class Tape(TorchDispatchMode):
    """Stands in for a CUDA graph: kernels with the tensors they read and write, and nothing of Python.

    What is no tensor stays as it was when it was recorded, as in a graph.
    """

    def __init__(self):
        super().__init__()
        self.kernels = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.kernels.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        for func, args, kwargs, out in self.kernels:
            found = func(*args, **kwargs)
            for there, new in zip(_listed(out), _listed(found), strict=True):
                if isinstance(there, torch.Tensor) and there is not new:
                    there.copy_(new)


def _listed(values):
    return values if isinstance(values, tuple | list) else [values]


def record(call):
    call()  # a warm-up
    with Tape() as tape:
        results = call()
    record.made += 1
    for tensor in (t for _, _, _, out in tape.kernels for t in _listed(out) if isinstance(t, torch.Tensor)):
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)  # a replay that leaves something out shows
    return results, tape.replay


@pytest.fixture(autouse=True)
def _none_recorded():
    record.made = 0


def episodes_of(number, shots=2, seed=0):
    """Different supports and masks of E episodes."""
    _, supports, masks = episode_of(shots)
    rolled = range(seed, seed + number)
    return (torch.stack([t.roll(5 * e, -2) for e in rolled]) for t in (supports, masks))


def model_of(variant):
    query, supports, masks = episode_of()
    model = balanced(small_hsnet(**VARIANTS[variant]), query, supports, masks)
    model.learner.requires_grad_(False)
    return model


def tuned(model, runner, episodes, steps=3, rate=0.05, **how):
    adaptation = Adaptation(model, *episodes, rate, runner=runner, **how)
    for _ in range(steps):
        adaptation.step()
    return adaptation


def assert_equal(mine, theirs):
    torch.testing.assert_close(mine.losses, theirs.losses, rtol=1e-5, atol=1e-6)
    for kind in ("means", "squares"):
        for a, b in zip(getattr(mine.optimiser, kind), getattr(theirs.optimiser, kind), strict=True):
            assert (a - b).norm() < 1e-3 * b.norm()
    for a, b in zip(mine.optimiser.parameters, theirs.optimiser.parameters, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()
    assert mine.optimiser.steps == theirs.optimiser.steps


@pytest.mark.parametrize("how", [{}, {"pairs": "leave_one_out"}, {"mutual_information": 0.1}])
@pytest.mark.parametrize("variant", ["apm_s", "apm_m_acpa"])
def test_a_recorded_step_serves_the_episodes_that_follow(variant, how):
    model, runner = model_of(variant), Runner(record=record)
    for seed in (0, 3):
        ours = tuned(model, runner, episodes_of(2, 3, seed), **how)
        assert_equal(ours, tuned(model, AllPositions(), episodes_of(2, 3, seed), **how))
    assert record.made == 1


def test_a_recorded_step_serves_other_rates_of_episodes():
    model, runner = model_of("apm_s"), Runner(record=record)
    for own in ((0.05, 0.5), (0.01, 0.0)):
        own = torch.tensor(own, dtype=torch.float64)
        ours = tuned(model, runner, episodes_of(2), rate=own)
        assert_equal(ours, tuned(model, AllPositions(), episodes_of(2), rate=own))
    assert record.made == 1


def test_adaptations_that_take_turns_keep_their_own_state():
    model, runner = model_of("apm_s_acpa"), Runner(record=record)
    pair = [Adaptation(model, *episodes_of(2, 2, seed), 0.05, runner=runner) for seed in (0, 3)]
    for _ in range(3):
        for adaptation in pair:
            adaptation.step()
    for adaptation, seed in zip(pair, (0, 3), strict=True):
        assert_equal(adaptation, tuned(model, AllPositions(), episodes_of(2, 2, seed)))
    assert record.made == 1


def test_a_recording_goes_on_with_moments_and_parameters_that_are_not_tuned():
    model = model_of("apm_m_acpa")
    before = tuned(model, AllPositions(), episodes_of(2), trained=["apm_m"])

    def on(runner):
        first = tuned(before.model, runner, episodes_of(2), trained=["apm_m"], optimiser=before.optimiser)
        return tuned(first.model, runner, episodes_of(2, seed=3), trained=["acpa"])

    assert_equal(on(Runner(record=record)), on(AllPositions()))


def test_other_numbers_of_episodes_let_go_of_the_recording():
    model, runner = model_of("apm_s"), Runner(record=record)
    tuned(model, runner, episodes_of(2))
    kept = runner._kept
    Adaptation(model, *episodes_of(1), 0.05, runner=runner)
    assert kept is not None
    assert runner._kept is None


def test_a_recording_holds_what_layers_keep():
    """A graph reads memory that it does not hold; the next plane would free it."""
    model, runner = model_of("apm_s"), Runner(record=record)
    ours = tuned(model, runner, episodes_of(2))
    held = [layer.get("_kept") for layer in runner._kept[1]._read]
    layers = [layer for layer in model.modules() if getattr(layer, "_kept", None)]
    assert layers
    assert all(any(kept is layer._kept for kept in held) for layer in layers)
    assert ours.losses.isfinite().all()


def test_results_of_a_replay_that_reads_old_inputs_are_noticed(monkeypatch):
    """Of these tests themselves: the stand-in is no better than a recording that copies nothing in."""
    model, runner = model_of("apm_s"), Runner(record=record)

    @torch.no_grad()
    def call(self, *inputs):
        self._replay()
        return self._results

    monkeypatch.setattr(Recording, "__call__", call)
    with pytest.raises(AssertionError):
        assert_equal(tuned(model, runner, episodes_of(2)), tuned(model, AllPositions(), episodes_of(2)))


def test_the_whole_model_is_tuned_plainly_and_says_so_once(capsys):
    model, runner = model_of("apm_s"), Runner(record=record)
    _, supports, masks = episode_of(1)
    for _ in range(2):
        tuned(model, runner, (supports, masks), 2, 1e-4, trained=["learner"])
    assert capsys.readouterr().out == "steps are not captured in a CUDA graph: learner is tuned\n"
    assert record.made == 0


@pytest.mark.parametrize("kept", ["positions of the masks", "all positions"])
def test_a_step_equals_that_of_the_plain_path(kept):
    model = model_of("apm_m_acpa")
    _, supports, masks = episode_of(2)
    for number, mask in enumerate(masks):
        mask[38:, 32 : 96 - number] = 1
    runner = Runner(record=record if kept == "all positions" else None)
    ours = tuned(copy.deepcopy(model), runner, (supports, masks))
    _, losses = plain.adapt(model, supports, masks, 3, 0.05)
    assert ours.losses.tolist() == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("words", ["operation not permitted when stream is capturing", "out of memory"])
def test_a_capture_that_fails_leaves_the_plain_step_but_a_lack_of_memory_is_told(words, capsys):
    def fails(call):
        raise torch.OutOfMemoryError(words) if "memory" in words else RuntimeError(words)

    model, runner = model_of("apm_s"), Runner(record=fails)
    if "memory" in words:
        with pytest.raises(torch.OutOfMemoryError):
            tuned(model, runner, episodes_of(2))
        return
    assert_equal(tuned(model, runner, episodes_of(2)), tuned(model, AllPositions(), episodes_of(2)))
    assert capsys.readouterr().out == f"steps are not captured in a CUDA graph: {words}\n"
