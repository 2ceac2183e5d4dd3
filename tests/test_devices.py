import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cdfss import CdfssError, configuration
from cdfss.configuration import preflight
from cdfss.configuration.jobs import Jobs
from cdfss.running import devices
from cdfss.running.precision import precision

# Locks are those of the whole machine, and several processes run these tests at once.
CARDS = {f"GPU-{digit * 8}-0000-0000-0000-{os.getpid():012d}": digit for digit in "abc"}
A, B, C = CARDS
MIG = f"MIG-11111111-0000-0000-0000-{os.getpid():011d}"
LISTED = "".join(f"GPU {n}: NVIDIA Test (UUID: {uuid})\n" for n, uuid in enumerate(CARDS))
DIVIDED = f"""GPU 0: NVIDIA A100 (UUID: {A})
  MIG 1g.5gb      Device  0: (UUID: {MIG}1)
  MIG 1g.5gb      Device  1: (UUID: {MIG}2)
GPU 1: NVIDIA Test (UUID: {B})
"""


class Smi:
    """A fake nvidia-smi in front of the path: what it lists, used memory by UUID, how it fails."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        folder.mkdir()
        script = folder / "nvidia-smi"
        script.write_text(
            f"#!/bin/sh\n[ -e {folder}/fault ] && cat {folder}/fault >&2 && exit 18\n"
            f'[ "$1" = -L ] && exec cat {folder}/listed\nexec cat {folder}/memory\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        self.lists(LISTED)
        self.uses()

    def lists(self, text):
        (self.folder / "listed").write_text(text)
        devices.survey.cache_clear()

    def uses(self, **used):
        lines = [f"{uuid}, {used.get(letter, 10)}, 40000\n" for uuid, letter in CARDS.items()]
        (self.folder / "memory").write_text("".join(lines))

    def fails(self, text):
        (self.folder / "fault").write_text(text)
        devices.survey.cache_clear()


@pytest.fixture
def smi(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield Smi(tmp_path / "smi", monkeypatch)
    devices.survey.cache_clear()


@pytest.fixture
def nothing(monkeypatch):
    """A machine without a GPU."""
    monkeypatch.setattr(devices, "survey", lambda: devices.Survey(()))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


HOLD = """
import sys, time
from cdfss.running import devices
with devices.claim(devices.visible(), patience=0.02) as gpu:
    begin = time.monotonic()
    time.sleep(0.3)
    with open(sys.argv[1], "a") as file:
        file.write(f"{gpu.name} {begin} {time.monotonic()}\\n")
"""


def test_sixteen_processes_never_share_a_device_whatever_they_call_it(smi, tmp_path):
    """By number, by UUID and its beginning, with and without a scheduler, with a /tmp of their own."""
    names = [None, "0,1,2", "2", B, "GPU-aaaa", f"{C},{A}", "1", "GPU-cccccccc"] * 2
    jobs = []
    for number, listed in enumerate(names):
        (tmp_path / str(number)).mkdir()
        environment = os.environ | {"TMPDIR": str(tmp_path / str(number))}
        environment |= {"CUDA_VISIBLE_DEVICES": listed} if listed else {}
        environment |= {"SLURM_JOB_ID": str(number)} if number % 3 == 0 else {}
        command = [sys.executable, "-c", HOLD, str(tmp_path / "log")]
        jobs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for job in jobs:
        assert job.wait(240) == 0, job.stderr.read()
    held = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(held) == 16
    assert {name for name, *_ in held} == set(CARDS)
    for uuid in CARDS:
        times = sorted((float(begin), float(end)) for name, begin, end in held if name == uuid)
        assert len(times) >= 4  # those that named this one alone
        for (_, end), (begin, _) in itertools.pairwise(times):
            assert end <= begin


class Waiting:
    """The module `time`, as far as it is used, whose `sleep` does something instead."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, instead):
        self.sleep = lambda seconds: instead()


def test_a_killed_holder_gives_its_device_back_and_is_named_before(smi, capsys, monkeypatch):
    script = (
        "from cdfss.running import devices; import time\n"
        "with devices.claim(devices.visible()):\n print(1, flush=True); time.sleep(600)"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"1\n"
    with monkeypatch.context() as patch:  # kill it at the first wait
        patch.setattr(devices, "time", Waiting(lambda: (holder.kill(), holder.wait())))
        with devices.claim(devices.visible(), patience=0.01) as gpu:
            assert gpu.name == B
    assert f"waiting for a GPU: {B} (NVIDIA Test), held by process {holder.pid}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, [A, B, C]),
        ("2,0", [C, A]),
        ("0,0", [A]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,9,0", [B]),
        ("1, GPU-unknown, 0", [B]),
        ("GPU-bbbb,GPU-aaaaaaaa-0000", [B, A]),
        (C, [C]),
    ],
    ids=list("0123456789"),
)
def test_cuda_visible_devices_is_honoured(smi, monkeypatch, listed, expected):
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [gpu.name for gpu in devices.visible()] == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, [f"{MIG}1", f"{MIG}2", B]),
        ("0", [f"{MIG}1", f"{MIG}2"]),
        (f"{MIG}2", [f"{MIG}2"]),
        (A, [f"{MIG}1", f"{MIG}2"]),
        ("1", [B]),
    ],
    ids=list("01234"),
)
def test_the_parts_of_a_divided_card_are_devices(smi, monkeypatch, listed, expected):
    smi.lists(DIVIDED)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [gpu.name for gpu in devices.visible()] == expected
    assert "MIG 1g.5gb" not in str(devices.visible()[-1]) or listed != "1"


def test_the_emptiest_comes_first_and_what_others_fill_is_named_and_avoided(smi, capsys, monkeypatch):
    monkeypatch.setattr(devices, "SETTLED", 0.0)
    smi.uses(a=39000, b=9000, c=500)
    with devices.claim(devices.visible()) as first:
        assert first.name == C
        with devices.claim(devices.visible()) as second:
            assert second.name == B
            assert capsys.readouterr().err == ""

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(devices, "time", Waiting(lambda: smi.uses(a=100)))
                with devices.claim(devices.visible()) as third:
                    assert third.name == A
    assert (
        f"{A} (NVIDIA Test): other programs use 38 of 39 GiB of its memory; it is avoided for now"
        in capsys.readouterr().err
    )


def test_filled_devices_are_taken_in_the_end_if_there_is_no_other(smi, capsys, monkeypatch):
    smi.uses(a=39000, b=38000, c=39500)
    monkeypatch.setattr(devices, "FILLED_FOR", 0.0)
    with devices.claim(devices.visible()) as gpu:
        assert gpu.name == B  # the emptiest
    assert f"other programs fill all GPUs; taking {B} (NVIDIA Test) all the same" in capsys.readouterr().err


def test_auto_takes_a_gpu_where_there_is_one(smi):
    assert devices.wanted("auto") == "cuda"
    assert devices.wanted("cpu") == "cpu"


def test_auto_says_that_it_uses_the_processor(nothing, capsys):
    with devices.device("auto") as chosen:
        assert chosen.type == "cpu"
    assert "no GPU here" in capsys.readouterr().err


def test_cuda_refuses_to_start_without(nothing):
    with pytest.raises(CdfssError, match="device: cuda is configured, but this machine shows no GPU"):
        devices.wanted("cuda")


def test_a_failing_nvidia_smi_is_not_taken_for_no_gpu(smi, monkeypatch, capsys, tmp_path):
    smi.fails("Failed to initialize NVML: Driver/library version mismatch")
    words = "nvidia-smi fails with code 18: Failed to initialize NVML: Driver/library version mismatch"
    with pytest.raises(CdfssError, match=f"device: cuda is configured, but {words}"):
        devices.wanted("cuda")
    monkeypatch.setattr(devices, "_nodes", lambda: [tmp_path / "nvidia0"])
    with pytest.raises(
        CdfssError, match=f"this machine has a GPU .*nvidia0.*, but {words}.*Repair the driver"
    ):
        devices.wanted("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # nobody wants one
    assert devices.wanted("auto") == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(devices, "_nodes", lambda: [])  # a log-in node with the tools of the driver
    with devices.device("auto") as chosen:
        assert chosen.type == "cpu"
    assert words in capsys.readouterr().err


def test_a_hanging_nvidia_smi_is_said(smi, monkeypatch):
    (smi.folder / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    devices.survey.cache_clear()
    monkeypatch.setattr(devices, "SMI_TIMEOUT", 0.2)
    with pytest.raises(CdfssError, match=r"nvidia-smi gives no answer .*timed out"):
        devices.wanted("cuda")


class FakeCuda:
    """torch.cuda as far as a device is chosen; remembers what was visible when it was first asked."""

    def __init__(self, monkeypatch, uuids=(), count=None):
        self.seen, self.uuids, self.count = [], uuids, count or max(1, len(uuids))
        for name in ("is_available", "device_count", "get_device_properties", "set_device"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def is_available(self):
        self.seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return True

    def device_count(self):
        return self.count

    def get_device_properties(self, position):
        known = {"uuid": self.uuids[position].removeprefix("GPU-")} if self.uuids else {}
        return type("Properties", (), known)

    def set_device(self, device):
        pass


def test_a_device_is_claimed_before_cuda_starts_with_a_scheduler_too(smi, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    cuda = FakeCuda(monkeypatch)
    with devices.device("auto") as chosen:
        assert chosen == torch.device("cuda", 0)
        assert cuda.seen == [B]
        with devices._lock(devices.visible()[0]) as ours:
            assert not ours
    with devices._lock(devices.visible()[0]) as ours:
        assert ours
    assert f"device: cuda:0, {B}" in capsys.readouterr().err


def test_where_cuda_had_started_the_claimed_device_is_found_by_its_uuid(smi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    FakeCuda(monkeypatch, [A, B, C])
    with devices.device("auto") as chosen:
        assert chosen == torch.device("cuda", 1)
    FakeCuda(monkeypatch, [A, C])
    with (
        pytest.raises(CdfssError, match=f"set CUDA_VISIBLE_DEVICES={B} before the process starts"),
        devices.device("auto"),
    ):
        pass


def test_a_precision_ends_with_its_block():
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    for name, tf32, dtype in (
        ("float32", False, torch.float32),
        ("tf32", False, torch.float32),  # a processor has none
        ("bfloat16", False, torch.bfloat16),
    ):
        with precision(name, torch.device("cpu")):
            assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def run_of(**more):
    values = {"data": {"mine": {"format": "folder", "root": "mine"}}, "domains": {"mine": {}}}
    values |= {"name": "x", "variants": {"apm_s": {"modules": ["apm_s"]}}, "backbone": "efficientnet_lite0"}
    return Jobs(
        configuration.parse(values | {"source": {"data": "mine", "validation": {"data": "mine"}}} | more)
    )


def test_more_gpus_than_there_are_are_refused_with_the_command_to_use(smi, monkeypatch):
    run = run_of()
    assert "gpu=4" not in preflight.problems(run, limit=3)[0]
    (line,) = preflight.problems(run, limit=4)
    assert "--resources gpu=4 asks for more GPUs than the 3 that this machine shows" in line
    assert "--resources gpu=3" in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert f"--resources gpu=1: {B}" in preflight.problems(run, limit=2)[0]
    assert "gpu=" not in preflight.problems(run, here=False, limit=100)[0]  # a cluster has others


def test_gpus_that_are_asked_for_and_not_there_are_refused(nothing):
    (line,) = preflight.problems(run_of(), limit=2)
    assert "--resources gpu=2 asks for GPUs, and this machine shows none" in line
    assert "leave it out to compute on the processor" in line
    assert "gpu" not in preflight.problems(run_of(device="cpu"), limit=2)[0]


def test_compiling_without_a_compiler_is_refused_before_the_first_job(monkeypatch):
    run = run_of(device="cpu", compute={"compile": True})
    monkeypatch.setenv("CXX", "mine++")
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    assert "needs a C++ compiler, and mine++ is not found" in preflight.problems(run)[0]
    assert "compiler" not in preflight.problems(run, here=False)[0]  # the cluster may have one
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "compiler" not in preflight.problems(run)[0]


def test_what_the_driver_shows_without_nvidia_smi_is_used(tmp_path, monkeypatch):
    # A container sees all cards of its machine there, and the device files of those that it may use.
    monkeypatch.setattr(devices, "_nodes", lambda: [Path("/dev/nvidia0"), Path("/dev/nvidia2")])
    for minor, (bus, uuid) in enumerate((("0000:02:00.0", B), ("0000:03:00.0", C), ("0000:01:00.0", A))):
        folder = tmp_path / "gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t NVIDIA Test\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"
        )
    path = devices.Path
    monkeypatch.setattr(
        devices, "Path", lambda name: tmp_path / "gpus" if name.startswith("/proc") else path(name)
    )
    assert [gpu.name for gpu in devices._from_files()] == [A, B]
