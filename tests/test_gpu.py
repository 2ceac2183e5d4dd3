"""A GPU gives the numbers of the processor; skipped where there is none.

The same calls run on a pretended GPU in test_pretended_gpu.py; here are the kernels, the memory and
the compiler of a real one.
"""

import os

import numpy as np
import pytest
import torch
from conftest import balanced, episode_of, small_hsnet
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
from test_evaluation import method_of, settings_of

from cdfss import adapt
from cdfss.data import episodes
from cdfss.evaluation import evaluate, measurement, results
from cdfss.methods.hsnet.step import Recording, Runner
from cdfss.running.precision import precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
CUDA = torch.device("cuda")
# Allowed differences of losses, of gradients and of masks, from runs on a processor with other kernels and
# with inputs of products rounded as TF32 does; no GPU was measured. In the lower precisions gradients of
# single parameters differ by as much as they are large, so that there only the others are compared.
APART = {"float32": (1e-4, 5e-3, 0.01), "tf32": (1e-3, np.inf, 0.02), "bfloat16": (1e-2, np.inf, 0.02)}


def assert_learnt(found):
    assert all(np.abs(moved).max() > 0 for moved in found["moved"])


@pytest.mark.parametrize("kind", APART)
@pytest.mark.parametrize("name", ADAPTATIONS)
def test_adaptation_on_a_gpu_equals_that_on_the_processor(name, kind):
    there = adaptation(name, CUDA, kind=kind)
    assert_same(adaptation(name, CPU), there, *APART[kind])
    assert_learnt(there)


@pytest.mark.parametrize("name", ["baseline", "apm_m_acpa", "leave one out"])
def test_batches_on_a_gpu_equal_those_on_the_processor(name):
    assert_same(adaptation(name, CPU, 5), adaptation(name, CUDA, 5), *APART["float32"])


@pytest.mark.parametrize("cache", [0.0, 2e9])
@pytest.mark.parametrize("kind", APART)
def test_source_training_on_a_gpu_equals_that_on_the_processor(cache, kind):
    there = source_training(CUDA, cache, kind)
    assert_same(source_training(CPU, cache), there, *APART[kind])
    assert_learnt(there)


def test_compiled_steps_on_a_gpu_agree():
    query, supports, masks = (t.to(CUDA) for t in episode_of())
    model = balanced(small_hsnet(modules=["apm_m", "acpa"]).to(CUDA), query, supports, masks)
    model.learner.requires_grad_(False)
    with precision("float32", CUDA):
        plain = adapt(model, supports, masks, 3, 0.05)
        predicted = plain.predict(query)
        compiled = adapt(model, supports, masks, 3, 0.05, runner=Runner(compiled=True))
        assert compiled.losses.tolist() == pytest.approx(plain.losses.tolist(), rel=1e-4)
        assert (compiled.predict(query) != predicted).float().mean() < 0.01


@pytest.mark.parametrize("pairs", ["self", "leave_one_out"])
def test_captured_steps_serve_the_episodes_that_follow(pairs, capsys):
    query, supports, masks = episode_of(3)
    model = balanced(small_hsnet(modules=["apm_m", "acpa"]), query, supports, masks)
    model.learner.requires_grad_(False)
    batches = [[torch.stack([t, t.roll(n, -2)]) for t in (supports, masks)] for n in (5, 9)]
    runner = Runner()
    with precision("float32", CUDA):
        here = [adapt(model, *batch, 3, 0.05, pairs=pairs) for batch in batches]
        model = model.to(CUDA)
        moved = [[t.to(CUDA) for t in batch] for batch in batches]
        there = [adapt(model, *batch, 3, 0.05, pairs=pairs, runner=runner) for batch in moved]
    assert isinstance(runner._kept[1], Recording)
    assert "not captured" not in capsys.readouterr().out
    for mine, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(theirs.losses, mine.losses, rtol=1e-4, atol=0)
        for a, b in zip(mine.optimiser.means, theirs.optimiser.means, strict=True):
            assert (a.cpu() - b.cpu()).norm() < 0.02 * a.cpu().norm()


@pytest.fixture
def files(data, tmp_path, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):  # which a job sets for its process
        monkeypatch.setenv(
            name, os.environ.get(name, "0" if name == "CUDA_VISIBLE_DEVICES" else "PCI_BUS_ID")
        )
    episodes.save(data[1], tmp_path / "episodes.parquet", {})
    return tmp_path / "index.parquet", tmp_path / "episodes.parquet"


@pytest.mark.parametrize(
    "variant", ["baseline", "apm_m_acpa", "leave_one_out", "cumulative", "fine_tuning"]
)
def test_the_evaluation_job_gives_the_rows_of_the_processor(variant, files, checkpoint, tmp_path):
    settings = settings_of(variant)
    rows = []
    for device, at_once in (("cpu", 1), ("cuda", "auto")):
        compute = {"device": device, "compile": False, "episodes_at_once": at_once}
        rows.append(evaluated(tmp_path / device, settings, files, checkpoint, compute))
    assert_same_rows(*rows, 1e-3, 100)
    facts = results.facts(tmp_path / "cuda" / "rows.parquet")
    assert facts["device"] == "cuda"
    assert facts["gpu"] == torch.cuda.get_device_name(0)


@pytest.mark.parametrize("kind", ["features", "filtering"])
def test_measuring_jobs_give_the_numbers_of_the_processor(kind, files, checkpoint, tmp_path):
    settings = settings_of("apm_m_acpa" if kind == "features" else "baseline")
    settings |= {"episodes": 2, "radius": 0.1, "fill": "zero"}
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.parquet"
        compute = {"device": device, "compile": False}
        measured(kind, settings, files, checkpoint, path, compute)
    here, there = (measurement.load(tmp_path / f"{device}.parquet") for device in ("cpu", "cuda"))
    for column in ("support_information", "query_information", *(["cka"] if kind == "features" else [])):
        np.testing.assert_allclose(there[column], here[column], rtol=0.02, err_msg=column)


def test_a_batch_that_does_not_fit_is_halved(data, checkpoint, capsys):
    # At this size an episode takes many times the smallest piece of memory that torch asks for.
    settings = settings_of("apm_m_acpa") | {"image_size": 384}
    method = method_of(settings, checkpoint, CUDA)
    whole = evaluate.evaluate(settings, *data, method)[0]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    begin = torch.cuda.memory_allocated()
    evaluate.evaluate(settings, data[0], data[1].iloc[:1], method)
    one = torch.cuda.max_memory_allocated() - begin
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    try:  # room for two and a half episodes
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2.5 * one) / total)
        at_once = evaluate.BatchSize(method, 4)
        rows = evaluate.evaluate(settings, *data, method, at_once)[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory with 4 episodes at once" in capsys.readouterr().out
    assert [row["query"] for row in rows] == [row["query"] for row in whole]
