"""Which GPU a job computes on, and in which precision.

Snakemake's `--resources gpu=N` limits how many GPU jobs run at once but gives none of them a
device. Here each takes a slot: a lock file per device, held by the operating system until the
process ends, however it ends.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from cdfss.errors import CdfssError

# A scheduler that has given this job a single device of its own is not second-guessed.
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "KUBERNETES_SERVICE_HOST")


def visible() -> list[str]:
    """Names of the GPUs this process may use: entries of CUDA_VISIBLE_DEVICES, or 0, 1, ...

    Needs no torch, so that planning stays quick.
    """
    present = _present()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not present:
        return present
    names = []
    for name in (entry.strip() for entry in listed.split(",")):
        # CUDA ignores an invalid entry and all after it.
        if not name or name == "-1" or (name.isdigit() and name not in present):
            break
        names.append(name)
    return names


def _present() -> list[str]:
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        return re.findall(r"^GPU (\d+):", answer.stdout, re.M)
    return sorted((p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*")), key=int)


def wanted(device: str) -> str:
    """ "cuda" or "cpu" for a configured device.

    Raises:
        CdfssError: when "cuda" is configured and there is none.
    """
    if device == "cpu":
        return "cpu"
    if visible():
        return "cuda"
    if device == "cuda":
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = f" (CUDA_VISIBLE_DEVICES is {listed!r})" if listed is not None else ""
        raise CdfssError(
            f"device: cuda is configured, but this machine shows no GPU{hidden}; set device: auto "
            "or cpu to compute on the processor"
        )
    return "cpu"


def lock_folder(job: str | None = None) -> Path:
    """Where this user's lock files are: of the machine, or of a scheduler's job."""
    ending = "" if job is None else "-" + re.sub(r"[^A-Za-z0-9]", "_", job)
    return Path(tempfile.gettempdir()) / f"cdfss-devices-{os.getuid()}{ending}"


@contextmanager
def slot(names: list[str], folder: Path | None = None, patience: float = 0.2):
    """Hold one of the devices `names`; yields its position in `names`. Waits until one is free.

    Args:
        folder: of the lock files, one for the whole machine by default.
        patience: seconds between attempts.
    """
    folder = folder or lock_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = False
    while True:
        for position, name in enumerate(names):
            file = open(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock", "w")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            with file:  # closing gives the lock back; so does the end of the process
                yield position
            return
        if not told:
            print(f"waiting for one of the GPUs {', '.join(names)}", file=sys.stderr, flush=True)
            told = True
        time.sleep(patience)


@contextmanager
def device(configured: str):
    """The torch device of this job: a GPU of its own, or the processor, and says which.

    Raises:
        CdfssError: when "cuda" is configured and there is none, or torch cannot use it.
    """
    import torch

    if wanted(configured) == "cpu":
        why = "no GPU here" if configured == "auto" else "configured"
        print(f"device: cpu ({why}), {torch.get_num_threads()} threads", file=sys.stderr, flush=True)
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        raise CdfssError(
            "device: this machine has a GPU, but the installed torch cannot use it "
            f"(torch {torch.__version__}, CUDA {torch.version.cuda}); install a matching torch or "
            "set device: cpu"
        )
    names = visible()
    job = next((os.environ[key] for key in SCHEDULERS if key in os.environ), None)
    if job is not None and len(names) == 1:
        yield _announce(torch, torch.device("cuda", 0))
        return
    # Within a scheduler's job of several GPUs the slots are that job's own.
    with slot(names, lock_folder(job)) as position:
        chosen = torch.device("cuda", position)
        torch.cuda.set_device(chosen)
        yield _announce(torch, chosen)


def _announce(torch, chosen):
    name = torch.cuda.get_device_name(chosen)
    print(f"device: {chosen} ({name})", file=sys.stderr, flush=True)
    return chosen


@contextmanager
def precision(name: str, chosen):
    """Compute convolutions and matrix products in a precision of `configuration.Compute`.

    torch's own default lets cuDNN round to TF32; here "float32" is float32 everywhere.

    Args:
        chosen: the torch device.
    """
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    tf32 = name == "tf32" and chosen.type == "cuda"
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        # No cache: it would keep weights as they were at the first step for as long as this lasts.
        with torch.autocast(chosen.type, torch.bfloat16, enabled=name == "bfloat16", cache_enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def peak_memory_mb(kind: str) -> float:
    """Most memory in MB so far: on "cuda" what torch has allocated, else what the process has held."""
    if kind == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # not getrusage, which starts at what the parent process had
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024 / 1e6
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6
