"""What would raise, or wait, on a GPU does so on a pretended one (no GPU needed)."""

import contextlib
import itertools

import numpy as np
import on_device
import pandas as pd
import pytest
import test_fptrans
import torch
from conftest import episode_of, small_hsnet
from on_device import (
    ADAPTATIONS,
    CPU,
    adaptation,
    assert_same,
    assert_same_rows,
    evaluated,
    measured,
    source_training,
)
from pretended import GPU, gpu
from reference import VARIANTS
from test_evaluation import SIZE, Stand, method_of, settings_of
from test_fptrans import backbone  # noqa: F401 (a fixture)

from cdfss import CdfssError, adapt
from cdfss.data import episodes
from cdfss.evaluation import evaluate, measurement, results
from cdfss.methods import calling, conformance, training
from cdfss.methods.adam import moved
from cdfss.methods.contract import Given
from cdfss.methods.fptrans import checkpoints as fptrans_checkpoints
from cdfss.methods.fptrans.training import Trainee
from cdfss.methods.hsnet.adaptation import Adaptation
from cdfss.methods.hsnet.training import Trainee as HSNetTrainee
from cdfss.running import devices


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_adaptation_keeps_to_one_device(name):
    here = adaptation(name, CPU)
    with gpu():
        assert_same(here, adaptation(name, GPU), 1e-6, 1e-5)


@pytest.mark.parametrize("name", ["baseline", "apm_s", "apm_m_acpa", "leave one out"])
def test_batches_keep_to_one_device(name):
    here = adaptation(name, CPU, episodes=3)
    with gpu():
        assert_same(here, adaptation(name, GPU, episodes=3), 1e-6, 1e-5)


@pytest.mark.parametrize("missing", ["update", "gradient of one parameter"])
def test_a_missing_update_is_noticed(missing, monkeypatch):
    """Of the comparison with a GPU itself: losses alone would not show it."""
    here = adaptation("apm_s_acpa", CPU)
    numbers = itertools.count()

    def broken(parameter, gradient, *rest):
        number = next(numbers) % len(here["gradients"])
        lost = missing == "update" or number == 1
        return moved(parameter, torch.zeros_like(gradient) if lost else gradient, *rest)

    monkeypatch.setattr("cdfss.methods.hsnet.step.moved", broken)
    with pytest.raises(AssertionError, match="moved"):
        assert_same(
            here | {"gradients": []}, adaptation("apm_s_acpa", CPU) | {"gradients": []}, 0.01, 0.1, 1.0
        )


# Kernels of a step of two episodes, as many as it may have; how many there are does not depend on E.
@pytest.mark.parametrize(
    ("variant", "how", "shots", "most"),
    [
        ("apm_s", {}, 1, 400),
        ("apm_m_acpa", {}, 1, 480),
        ("apm_m_acpa", {}, 3, 480),
        ("apm_m_acpa", {"mutual_information": 0.1}, 2, 540),
        ("apm_s", {"pairs": "leave_one_out"}, 2, 450),
        ("apm_s", {"pairs": "leave_one_out"}, 3, 900),  # two turns
        ("apm_m_acpa", {"rates": True}, 1, 490),
    ],
)
def test_a_step_never_waits_for_the_gpu_and_takes_as_many_kernels_for_many_episodes(
    variant, how, shots, most
):
    """Else it cannot be captured in a CUDA graph."""
    how = dict(how)
    rates = how.pop("rates", False)
    _, supports, masks = episode_of(shots)
    model = small_hsnet(**VARIANTS[variant])
    model.learner.requires_grad_(False)
    found = []
    with gpu() as counted:
        model.to(GPU)
        for number in (1, 16):
            pair = (torch.stack([t] * number).to(GPU) for t in (supports, masks))
            rate = torch.full((number,), 0.05, dtype=torch.float64, device=GPU) if rates else 0.05
            adaptation = Adaptation(model, *pair, rate, **how)
            adaptation.step()  # the first makes what is kept
            counted.waits.clear()
            counted.kernels.clear()
            adaptation.step()
            assert not counted.waits
            found.append(sum(counted.kernels.values()))
    assert found[1] <= found[0] + 20
    assert 0 < found[0] <= most


def test_a_step_of_source_training_waits_for_positions_inside_masks_alone():
    torch.manual_seed(0)
    settings = {"backbone": "efficientnet_lite0", "image_size": 64, "learning_rate": 1e-3}
    pictures, generator = on_device.Pictures(), np.random.RandomState(0)
    with gpu() as counted:
        trainee = HSNetTrainee(settings, "imagenet", GPU)
        batches = training.Batches(trainee.model, pictures, range(4), 64, 2e9, log=lambda line: None)
        (batch,) = batches(np.array([[0, 1], [2, 3]]), 2)
        training._step(trainee, batch, generator)
        counted.waits.clear()
        counted.kernels.clear()
        training._step(trainee, batch, generator)
        # Their numbers and their windows, at three strides; neither loss nor counts.
        assert dict(counted.waits) == {"to the processor": 3, "aten.nonzero.default": 6}


@pytest.mark.parametrize("cache", [0.0, 2e9])
def test_source_training_keeps_to_one_device(cache):
    here = source_training(CPU, cache)
    with gpu():
        assert_same(here, source_training(GPU, cache), 1e-6, 1e-5)


COMPUTE = {"device": "cpu", "compile": False, "episodes_at_once": 3}


@pytest.fixture
def job(monkeypatch, data, tmp_path):
    """Runs jobs from files to files on the processor and then on the pretended GPU."""
    episodes.save(data[1], tmp_path / "episodes.parquet", {})
    inputs = tmp_path / "index.parquet", tmp_path / "episodes.parquet"

    def run(call):
        call(CPU, *inputs)
        monkeypatch.setattr(devices, "device", lambda configured: contextlib.nullcontext(GPU))
        with gpu():
            call(GPU, *inputs)

    return run


@pytest.mark.parametrize(
    "variant", ["baseline", "apm_m_acpa", "leave_one_out", "cumulative", "fine_tuning"]
)
def test_the_evaluation_job_keeps_to_one_device(variant, job, checkpoint, tmp_path):
    rows = {}

    def call(device, *files):
        folder = tmp_path / device.type
        rows[device] = evaluated(folder, settings_of(variant), files, checkpoint, COMPUTE)

    job(call)
    assert_same_rows(rows[CPU], rows[GPU], 1e-4, 3)
    assert results.facts(tmp_path / GPU.type / "rows.parquet")["device"] == GPU.type


@pytest.mark.parametrize("kind", ["features", "filtering"])
def test_measuring_jobs_keep_to_one_device(kind, job, checkpoint, tmp_path):
    settings = settings_of("apm_m_acpa" if kind == "features" else "baseline") | {"episodes": 2}
    settings |= {"radius": 0.1, "fill": "mean"}

    def call(device, index, listed):
        path = tmp_path / f"{device.type}.parquet"
        measured(kind, settings, (index, listed), checkpoint, path, COMPUTE)

    job(call)
    here, there = (measurement.load(tmp_path / f"{kind}.parquet") for kind in ("cpu", GPU.type))
    for column in here.columns:
        for mine, theirs in zip(here[column], there[column], strict=True):
            if np.asarray(mine).dtype.kind in "iuf":
                np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-3, err_msg=column)


def test_the_training_job_keeps_to_one_device(monkeypatch, data, tmp_path):
    # A folder data set has one split, which here is source and validation.
    settings = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "seed": 0, "image_size": 64}
    settings |= {"backbone": "efficientnet_lite0", "precision": "float32"}
    settings |= {"split": "test", "validation": {"split": "test", "episodes": 4}}
    compute = {"device": "cpu", "compile": False, "cache_gb": 1.0, "threads": 1}

    def call(device):
        folder = tmp_path / device.type
        files = [folder / name for name in ("c.safetensors", "c.json", "h.parquet", "state")]
        training.run(settings, *[tmp_path / "index.parquet"] * 2, None, *files, compute, 1)
        return pd.read_parquet(folder / "h.parquet")

    here = call(CPU)
    monkeypatch.setattr(devices, "device", lambda configured: contextlib.nullcontext(GPU))
    with gpu():
        there = call(GPU)
    pd.testing.assert_frame_equal(here, there, rtol=1e-3)


def test_prediction_keeps_to_one_device(checkpoint):
    settings = settings_of("apm_m_acpa") | {"image_size": 64}
    random = np.random.RandomState(0)
    masks = np.zeros((3, 2, 64, 64), bool)
    masks[..., 10:40, 20:50] = True
    pictures = (random.randint(0, 256, (3, *k, 64, 64, 3)).astype(np.uint8) for k in ((), (2,)))
    with gpu():
        method = method_of(settings, checkpoint, GPU)
        queries, supports = pictures
        found = calling.segment("hsnet", method, supports, masks, queries)
    assert found.masks.shape == (3, 64, 64)
    assert found.losses.shape == (3, 2)


@pytest.mark.parametrize(
    "error",
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2 GiB"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        (MemoryError, "Unable to allocate 8 GiB"),
    ],
)
def test_memory_of_a_batch_is_free_before_the_next_try(error, data, monkeypatch):
    """`empty_cache` while the traceback holds the batch's tensors would free nothing."""
    import weakref

    held, alive = [], []

    def segment(masks):
        batch = torch.zeros(len(masks), 9)
        held.append(weakref.ref(batch))
        if len(masks) > 1:
            kind, words = error
            raise kind(words)
        return masks[:, 0]

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    settings = settings_of("apm_m_acpa")
    at_once = evaluate.BatchSize(Stand(segment), 1)
    at_once.number = 4
    rows = evaluate.evaluate(settings, *data, Stand(segment), at_once)[0]
    assert len(rows) == 4
    assert alive == [False, False]


def test_other_errors_of_a_batch_are_not_taken_for_a_lack_of_memory(data):
    def fails(masks):
        raise RuntimeError("shapes differ")

    settings = settings_of("apm_m_acpa")
    with pytest.raises(RuntimeError, match="shapes differ"):
        evaluate.evaluate(settings, *data, Stand(fails))

    def too_large(masks):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    with pytest.raises(CdfssError, match=r"single episode \(\[enforce fail\].*use a smaller image_size"):
        evaluate.evaluate(settings, *data, Stand(too_large))


@pytest.mark.parametrize("trained", [["learner"], ["backbone"], ["apm_s"]])
def test_an_adaptation_that_is_done_with_leaves_no_memory_behind(trained):
    """Not even until the collector of cycles runs, which a GPU's memory does not wake."""
    import gc
    import weakref

    _, supports, masks = episode_of()
    model = small_hsnet(modules=["apm_s"])
    gc.collect()
    gc.disable()
    try:
        adapted = adapt(model, supports, masks, 1, 0.01, trained=trained)
        dead = weakref.ref(adapted)
        adapted.step()
        del adapted
        assert dead() is None
    finally:
        gc.enable()


def products_in(call):
    """(shapes, precision) of every matrix product that a call computes, gradients included."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Look(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.name().startswith(("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")):
                tensors = [a for a in args if isinstance(a, torch.Tensor)]
                low = (
                    torch.get_float32_matmul_precision() != "highest" or tensors[-1].dtype != torch.float32
                )
                seen.append(([tuple(t.shape) for t in tensors], low))
            return func(*args, **(kwargs or {}))

    with Look():
        call()
    return seen


@pytest.mark.parametrize("kind", ["tf32", "bfloat16"])
def test_inverse_transform_and_correlations_stay_float32(kind):
    """TF32 is not switched off by switching autocast off, and gradients are computed later."""
    _, supports, masks = episode_of(1)
    model = small_hsnet(modules=["apm_s"])
    model.learner.requires_grad_(False)
    before = torch.get_float32_matmul_precision()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16", cache_enabled=False)
    try:
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        with autocast:
            adaptation = Adaptation(model, supports, masks, 0.05, mutual_information=0.1)
            adaptation.step()
            products = products_in(adaptation.step)
    finally:
        torch.set_float32_matmul_precision(before)
    side = -(-SIZE // 32)
    transform = {2 * side * side, side * side}
    channels = model.backbone.facts.coarse_channels

    def is_transform(shapes):
        return len(shapes[-1]) == 2 and set(shapes[-1]) == transform

    def is_correlation(shapes):
        forth = [(channels, side * side), (side * side, channels)]
        return (channels, channels) in [s[-2:] for s in shapes] or [s[-2:] for s in shapes] == forth

    exact = [low for shapes, low in products if is_transform(shapes) or is_correlation(shapes)]
    assert len(exact) >= 4  # forth and back of both
    assert not any(exact), products
    assert any(low for shapes, low in products if not is_transform(shapes) and not is_correlation(shapes))


@pytest.mark.usefixtures("backbone")
def test_fptrans_keeps_to_one_device(tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    fptrans_checkpoints.save(checkpoint, test_fptrans.small_model().state_dict(), test_fptrans.BACKBONE, {})
    settings = {"backbone": test_fptrans.BACKBONE, "image_size": 64, "learning_rate": 1e-3, "seed": 0}

    def call(device):
        given = Given(64, device=device, backbone=test_fptrans.BACKBONE, checkpoint=checkpoint)
        method = calling.build("fptrans", test_fptrans.TUNED[0], given)
        found = calling.segment("fptrans", method, *conformance.episodes(64, 2)[:3])
        torch.manual_seed(0)
        trainee = Trainee(settings, None, device)
        query, supports, masks = (t.to(device) for t in test_fptrans.episode_of_size(64)[:3])
        batch = query, masks[:, 0] > 0, masks[:, 0] > 1, supports[:, 0], masks[:, 0]
        loss, _ = trainee.loss(batch, np.random.RandomState(0))
        loss.backward()
        with torch.no_grad():
            return found.probabilities, found.losses, loss.item(), trainee.logits(batch).cpu()

    here = call(CPU)
    with gpu():
        there = call(GPU)
    for mine, theirs in zip(here, there):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-3)
