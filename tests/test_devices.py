import itertools
import multiprocessing
import os
import signal
import time

import pytest
import torch

from cdfss import CdfssError, configuration, devices, preflight


def hold(names, folder, log, together):
    """Hold a slot until `together` says so, write down when it was held; runs in its own process."""
    with devices.slot(names, folder, patience=0.01) as position:
        begin = time.monotonic()
        together.wait()
        with log.open("a") as file:
            file.write(f"{position} {begin} {time.monotonic()}\n")


def test_many_processes_never_share_a_device(tmp_path):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    names = ["0", "1", "GPU-aa/bb"]
    # Nobody gives a device back before three are held: however slowly the processes start, three
    # are in use at once, and a fourth would be seen to share one.
    three = context.Barrier(3, timeout=120)
    jobs = [context.Process(target=hold, args=(names, tmp_path, log, three)) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(240)
        assert job.exitcode == 0
    held = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    assert len(held) == 6
    assert {int(position) for position, *_ in held} == {0, 1, 2}
    for position in (0, 1, 2):
        times = sorted(times for p, *times in held if p == position)
        for (_, end), (begin, _) in itertools.pairwise(times):
            assert end <= begin


def test_a_killed_holder_gives_its_device_back(tmp_path):
    context = multiprocessing.get_context("spawn")
    met = context.Barrier(2, timeout=120)
    holder = context.Process(target=hold_for_ever, args=(tmp_path, met))
    holder.start()
    met.wait()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with devices.slot(["0"], tmp_path, patience=0.01) as position:
        assert position == 0


def hold_for_ever(folder, met):
    with devices.slot(["0"], folder, patience=0.01):
        met.wait()
        time.sleep(3600)


@pytest.fixture
def gpus(monkeypatch):
    def present(*names):
        monkeypatch.setattr(devices, "_present", lambda: list(names))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return present


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("1,9,0", ["1"]),
        ("GPU-x", ["GPU-x"]),
    ],
)
def test_cuda_visible_devices_is_honoured(gpus, monkeypatch, listed, expected):
    gpus("0", "1", "2")
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert devices.visible() == expected


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    gpus("0")
    assert devices.wanted("auto") == "cuda"
    assert devices.wanted("cpu") == "cpu"
    gpus()
    assert devices.wanted("auto") == "cpu"


def test_cuda_refuses_to_start_without(gpus):
    gpus()
    with pytest.raises(CdfssError, match="device: cuda is configured, but this machine shows no GPU"):
        devices.wanted("cuda")


def test_auto_says_that_it_uses_the_processor(gpus, capsys):
    gpus()
    with devices.device("auto") as chosen:
        assert chosen.type == "cpu"
    assert "no GPU here" in capsys.readouterr().err


def test_a_precision_ends_with_its_block():
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    for name, tf32, dtype in (
        ("float32", False, torch.float32),
        ("tf32", False, torch.float32),  # a processor has none
        ("bfloat16", False, torch.bfloat16),
    ):
        with devices.precision(name, torch.device("cpu")):
            assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def test_compiling_without_a_compiler_is_refused_before_the_first_job(monkeypatch):
    values = {"data": {"mine": {"format": "folder", "root": "mine"}}, "domains": {"mine": {}}}
    values |= {"name": "x", "variants": {"copy": {"predictor": "copy"}}, "device": "cpu"}
    values |= {"source": {"data": "mine", "validation": {"data": "mine"}}, "compute": {"compile": True}}
    run = configuration.parse(values)
    monkeypatch.setenv("CXX", "mine++")
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    assert "needs a C++ compiler, and mine++ is not found" in preflight.problems(run)[0]
    assert "compiler" not in preflight.problems(run, here=False)[0]  # the cluster may have one
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "compiler" not in preflight.problems(run)[0]
