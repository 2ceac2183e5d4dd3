"""Variants of one list in one job: each has what it would have alone, and what is done stays done."""

import copy
import subprocess
import sys

import pytest
import torch
from test_evaluation import COMMON, settings_of

from cdfss import CdfssError
from cdfss.backbones.memory import Memory
from cdfss.backbones.network import Backbone, build
from cdfss.data import episodes
from cdfss.evaluation import evaluate, results
from cdfss.methods import calling
from cdfss.methods.contract import Given, Settings
from cdfss.methods.hsnet.method import Method as HSNetMethod
from cdfss.methods.trivial import Copy

COMPUTE = {"device": "cpu", "compile": False, "episodes_at_once": "auto"}
KINDS = ("rows", "predictions", "cost")
MIXTURE = ["copy", "ridge", "baseline", "apm_m_acpa", "cumulative", "fine_tuning"]
LIGHT = ["copy", "foreground"]


@pytest.fixture
def job(data, checkpoint, tmp_path):
    """Runs variants by name; rows and predictions as bytes, by variant."""
    episodes.save(data[1], tmp_path / "episodes.parquet", {})
    inputs = tmp_path / "index.parquet", tmp_path / "episodes.parquet"

    def run(names, kept="kept", changed=None):
        variants = {}
        for name in names:
            settings = {**COMMON, "method": name, "settings": {}}
            if name == "ridge":
                settings |= {"precision": "float32", "backbone": "efficientnet_lite0"}
            elif name not in LIGHT:
                settings = settings_of(name)
            settings = settings | {"variant": name, "shard": 0, "shards": 1} | (changed or {}).get(name, {})
            source = checkpoint if settings["method"] == "hsnet" else None
            variants[name] = {"settings": settings, "checkpoint": source, "weights": None}
        paths = {kind: [tmp_path / "made" / kind / f"{name}.parquet" for name in names] for kind in KINDS}
        for kind in KINDS:
            for path in paths[kind]:
                path.unlink(missing_ok=True)
        evaluate.run(variants, *inputs, *paths.values(), tmp_path / kept, COMPUTE)
        return {
            name: [paths[kind][number].read_bytes() for kind in ("rows", "predictions")]
            for number, name in enumerate(names)
        }

    return run


@pytest.fixture
def segmented(monkeypatch):
    """Methods that were handed a batch, one after the other."""
    names, segment = [], calling.segment

    def counted(name, *others):
        names.append(name)
        return segment(name, *others)

    monkeypatch.setattr(calling, "segment", counted)
    return names


def test_a_variant_among_others_has_the_rows_and_masks_that_it_has_alone(job):
    together = job(MIXTURE)
    for name in MIXTURE:
        assert job([name], kept=f"kept_{name}")[name] == together[name], name


def test_rows_below_a_folder_are_read_once_though_jobs_keep_them_too(job, tmp_path):
    job(LIGHT, kept="kept/rows/disks/1shot-seed0/0")
    rows = results.load(tmp_path)
    assert sorted(rows["variant"].unique()) == sorted(LIGHT)
    assert not rows.duplicated(["variant", "episode"]).any()


def test_pictures_pass_a_shared_network_once(job, monkeypatch):
    passed, maps = [], type(build("efficientnet_lite0")).maps
    monkeypatch.setattr(
        type(build("efficientnet_lite0")),
        "maps",
        lambda *given: passed.append(len(given[-1])) or maps(*given),
    )
    job(["baseline"], kept="alone")
    alone = len(passed)
    job(["baseline", "apm_m_acpa", "leave_one_out"])
    # No more for three than for one, and less where an episode shows the pictures of one before it.
    assert 0 < len(passed) - alone <= alone


def test_what_is_kept_is_not_computed_again(job, segmented):
    first = job(["copy", "baseline"])
    assert len(segmented) == 8
    segmented.clear()
    assert job(["baseline", "copy", "foreground"])["baseline"] == first["baseline"]
    assert segmented == ["foreground"] * 4
    segmented.clear()
    job(["copy", "foreground"], changed={"copy": {"seed": 0, "settings": {}, "shards": 1, "note": "other"}})
    assert segmented == ["copy"] * 4


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet", None])
def test_a_kept_file_that_is_broken_or_of_another_kind_is_made_anew(content, job, segmented, tmp_path):
    first = job(["copy"])
    path = tmp_path / "kept" / "copy" / "rows.parquet"
    other = (tmp_path / "kept" / "copy" / "cost.parquet").read_bytes()
    path.unlink()  # not written into: it is the output too
    path.write_bytes(other if content is None else content)
    segmented.clear()
    assert job(["copy"]) == first
    assert len(segmented) == 4


def test_a_job_that_was_killed_goes_on_where_it_was(job, segmented, monkeypatch):
    first = job(["copy", "baseline", "cumulative"], kept="other")
    predict, calls = HSNetMethod.predict, []

    def killed(self, *given):
        calls.append(self)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return predict(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(HSNetMethod, "predict", killed)
        with pytest.raises(KeyboardInterrupt):
            job(["copy", "baseline", "cumulative"])
    segmented.clear()
    # copy and baseline had three episodes; the one that goes on through the list begins again
    assert job(["copy", "baseline", "cumulative"]) == first
    assert segmented.count("copy") == 1
    assert segmented.count("hsnet") == 1 + 4


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("no such thing"), "variant baseline: TypeError: no such thing"),
        (torch.OutOfMemoryError("CUDA out of memory"), "variant baseline: out of memory with a single"),
    ],
)
def test_a_variant_that_fails_does_not_lose_the_others(error, said, job, segmented, monkeypatch):
    def fails(self, *given):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(HSNetMethod, "predict", fails)
        with pytest.raises(CdfssError, match=said):
            job(["baseline", "copy", "foreground"])
    assert segmented.count("copy") == segmented.count("foreground") == 4
    segmented.clear()
    job(["baseline", "copy", "foreground"])
    assert set(segmented) == {"hsnet"}


def test_variants_of_other_lists_are_refused(job):
    with pytest.raises(CdfssError, match="differ in seed"):
        job(["copy", "foreground"], changed={"copy": {"seed": 1}})


def test_a_job_with_nothing_left_to_do_imports_no_torch_and_takes_no_device(job, tmp_path, checkpoint):
    job(["baseline"])
    settings = settings_of("baseline") | {"variant": "baseline", "shard": 0, "shards": 1}
    variants = {"baseline": {"settings": settings, "checkpoint": str(checkpoint), "weights": None}}
    places = [str(tmp_path / name) for name in ("index.parquet", "episodes.parquet")]
    paths = [[str(tmp_path / "again" / kind)] for kind in KINDS]
    code = (
        "import sys; from cdfss.evaluation import evaluate\n"
        f"evaluate.run({variants!r}, *{places!r}, *{paths!r}, {str(tmp_path / 'kept')!r}, {COMPUTE!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert len(results.load(tmp_path / "again" / "rows")) == 4


@pytest.fixture
def network():
    """A small network with a memory, and how often it computed."""

    class Counting(Backbone):
        computed = 0

        def maps(self, network, images):
            self.computed += 1
            return [network(images)]

    made = Counting("efficientnet_lite0", torch.nn.Conv2d(3, 2, 1))
    made.memory = Memory()
    return made


def test_a_network_remembers_the_maps_of_the_same_pictures_alone(network):
    pictures = torch.rand(2, 3, 8, 8)
    first = network(pictures)[0][0]
    with torch.inference_mode():
        assert torch.equal(network(pictures.clone())[0][0], first)
    assert network.computed == 1
    other = pictures.clone()
    other[1, 2, 7, 7] += 1e-6
    assert not torch.equal(network(other)[0][0], first)
    network(pictures[:1])
    assert network.computed == 3
    with torch.autocast("cpu", torch.bfloat16):
        assert network(pictures)[0][0].dtype == torch.bfloat16
    pictures += 1  # whoever asked may write over them
    assert not torch.equal(network(pictures)[0][0], first)


def test_a_network_does_not_remember_what_is_no_longer_so(network):
    pictures = torch.rand(2, 3, 8, 8)
    first = network(pictures)[0][0].clone()
    network(pictures)[0][0].mul_(2)
    assert torch.equal(network(pictures)[0][0], first)
    with torch.no_grad():
        network.network.weight.mul_(2)
    assert not torch.equal(network(pictures)[0][0], first)
    tuned = copy.deepcopy(network).requires_grad_(True)
    assert tuned.memory is None
    assert tuned(pictures)[0][0].requires_grad


def test_a_memory_is_bounded(network, monkeypatch):
    for number in range(3 * Memory.MOST):
        network(torch.full((1, 3, 8, 8), float(number)))
    assert len(network.memory._seen) == Memory.MOST
    monkeypatch.setattr(Memory, "BYTES", 100)
    network(torch.rand(1, 3, 8, 8))
    assert network.memory._seen == []


def test_what_was_learnt_is_let_go_of_when_a_batch_is_done(data):
    forgotten = []
    method = type("Forgetting", (Copy,), {"forget": lambda self: forgotten.append(self)})
    settings = {**COMMON, "method": "copy", "settings": {}, "image_size": 32}
    evaluate.evaluate(settings, *data, method(Settings(), Given(32)))
    assert len(forgotten) == 4
