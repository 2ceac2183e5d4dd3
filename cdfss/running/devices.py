"""Which GPU a job computes on.

Snakemake's `--resources gpu=N` limits how many GPU jobs run at once but gives none of them a device,
and a scheduler may give several processes the same ones. So each job claims a device: a lock that
the operating system holds for the whole machine until the job is done, or its process ends, however.
Nothing here needs torch before a device is claimed, since CUDA looks at CUDA_VISIBLE_DEVICES once.
"""

import errno
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cdfss.errors import CdfssError

LEAST_FREE = 0.25  # of a device's memory; with less it counts as filled by other programs
SETTLED = 3.0  # seconds that the driver may take to free what a job that has ended held
FILLED_FOR = 20.0  # seconds after which a filled device is taken if there is no other
SMI_TIMEOUT = 60.0  # seconds; the driver may have to start first


@dataclass(frozen=True)
class Gpu:
    """A device that CUDA can compute on: a card, or a MIG device of one.

    Attributes:
        name: what CUDA_VISIBLE_DEVICES takes: the full UUID, or the number where no UUID is known.
        number: of its card, in the order of nvidia-smi.
        model: for people.
        card: UUID of its card; of a card its own.
    """

    name: str
    number: int
    model: str
    card: str = ""

    def __str__(self):
        return f"{self.name} ({self.model})"

    def answers_to(self, entry: str) -> bool:
        """Whether an entry of CUDA_VISIBLE_DEVICES means it: a number, a UUID or the beginning of one.

        Numbers are taken in the order of nvidia-smi (CUDA_DEVICE_ORDER=PCI_BUS_ID), as people and
        schedulers do; a card's number or UUID means all of its MIG devices.
        """
        if entry.isdigit():
            return int(entry) == self.number
        return self.name == entry or (
            len(entry) > 4 and any(n.startswith(entry) for n in (self.name, self.card))
        )


@dataclass(frozen=True)
class Survey:
    """The GPUs of this machine, and why nvidia-smi could not tell, if it could not."""

    gpus: tuple[Gpu, ...]
    fault: str | None = None


@cache
def survey() -> Survey:
    """Look for GPUs: nvidia-smi, or without it what the driver shows in the file system."""
    if shutil.which("nvidia-smi") is None:
        return Survey(_from_files())
    try:
        answer = _smi("-L")
    except _SmiFault as fault:
        return Survey((), str(fault))
    gpus: list[Gpu] = []
    card, divided = None, []
    for line in answer.splitlines():
        if found := re.match(r"GPU (\d+): (.+?) \(UUID: (\S+?)\)", line):
            # CUDA knows the UUIDs of boards with a built-in GPU by no name.
            name = found[3] if found[3].startswith("GPU-") else found[1]
            card = Gpu(name, int(found[1]), found[2], name)
            gpus.append(card)
        elif card and (found := re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+?)\)", line)):
            # CUDA cannot use a card that is divided, only its parts.
            divided.append(card)
            gpus.append(Gpu(found[2], card.number, f"{card.model} MIG {found[1]}", card.name))
    return Survey(tuple(gpu for gpu in gpus if gpu not in divided))


class _SmiFault(Exception):
    """nvidia-smi gave no answer."""


def _smi(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SMI_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _SmiFault(f"nvidia-smi gives no answer ({error})") from error
    words = " ".join((done.stdout + done.stderr).split())
    if done.returncode and "No devices" not in words:
        raise _SmiFault(f"nvidia-smi fails with code {done.returncode}: {words[:300] or 'no words'}")
    return done.stdout


def _from_files() -> tuple[Gpu, ...]:
    gpus, nodes = [], {path.name for path in _nodes()}
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):  # in the order of PCI
        facts = dict(re.findall(r"^(.+?):\s*(.*)$", path.read_text(errors="replace"), re.M))
        if f"nvidia{facts.get('Device Minor', '').strip()}" not in nodes:
            continue  # a container sees what its machine has, and may use what it has device files of
        uuid, number = facts.get("GPU UUID", "").strip(), len(gpus)
        name = uuid if re.fullmatch(r"GPU-[0-9a-f-]+", uuid) else str(number)
        gpus.append(Gpu(name, number, facts.get("Model", "GPU").strip(), name))
    return tuple(gpus) or tuple(Gpu(str(n), n, "GPU", str(n)) for n, _ in enumerate(nodes))


def _nodes() -> list[Path]:
    """Device files of cards: there where there is a GPU, whatever nvidia-smi says."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def visible() -> list[Gpu]:
    """GPUs that this process may use: all, or those that CUDA_VISIBLE_DEVICES allows, in its order."""
    gpus, listed = survey().gpus, os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return list(gpus)
    allowed: dict[Gpu, None] = {}
    for entry in (entry.strip() for entry in listed.split(",")):
        found = [gpu for gpu in gpus if gpu.answers_to(entry)]
        if not found and gpus and re.match("(GPU|MIG)-", entry) and not any("-" in g.name for g in gpus):
            found = [Gpu(entry, -1, "GPU", entry)]  # UUIDs are not known here: taken at its word
        if not found:
            break  # CUDA ignores an invalid entry and all after it
        allowed |= dict.fromkeys(found)
    return list(allowed)


def wanted(device: str) -> str:
    """ "cuda" or "cpu" for a configured device.

    Raises:
        CdfssError: when "cuda" is configured and no GPU can be seen, or "auto" on a machine that has
            one whose driver fails.
    """
    if device == "cpu":
        return "cpu"
    if visible():
        return "cuda"
    listed, fault = os.environ.get("CUDA_VISIBLE_DEVICES"), survey().fault
    hidden = f" (CUDA_VISIBLE_DEVICES is {listed!r})" if listed is not None else ""
    if device == "cuda":
        raise CdfssError(
            f"device: cuda is configured, but {fault or f'this machine shows no GPU{hidden}'}; set device: "
            "auto or cpu to compute on the processor"
        )
    if fault and _nodes() and (listed is None or re.match(r"\s*[0-9GM]", listed)):
        raise CdfssError(
            f"device: auto: this machine has a GPU ({_nodes()[0]}), but {fault}. Repair the driver (often "
            "a restart of the machine), or set device: cpu to compute on the processor"
        )
    return "cpu"


def no_gpu() -> str:
    """Why "auto" computes on the processor, for people."""
    fault = survey().fault
    return f"no GPU to be seen, {fault}" if fault else "no GPU here"


@contextmanager
def claim(pool: list[Gpu], patience: float = 1.0):
    """Hold one device of a pool, the emptiest first; yields it. Waits until one is free.

    Devices that other programs fill are named and passed over as long as there is another to have.

    Args:
        patience: seconds between attempts.
    """
    begin, said = time.monotonic(), set()

    def say(key, text, *arguments):
        if key not in said:
            said.add(key)
            print(text(*arguments), file=sys.stderr, flush=True)

    memory, desperate = _memory(), False
    order = sorted(pool, key=lambda gpu: -_free_share(memory, gpu))
    while True:
        held, filled, waited = [], [], time.monotonic() - begin
        for gpu in order:
            with _lock(gpu) as ours:
                if not ours:
                    held.append(gpu)
                    continue
                memory = _memory()  # as it is now that no job of ours is there
                if desperate or _free_share(memory, gpu) >= LEAST_FREE:
                    yield gpu
                    return
                filled.append(gpu)
                if waited >= SETTLED:
                    say(gpu, _filled, gpu, memory)
        desperate = len(filled) == len(order) and waited >= FILLED_FOR
        if desperate:
            say("all", "other programs fill all GPUs; taking {} all the same".format, filled[0])
            continue
        if held:
            say("held", _waiting, held)
        time.sleep(patience)


def _waiting(held: list[Gpu]) -> str:
    return f"waiting for a GPU: {'; '.join(f'{gpu}, held by {_holder(gpu)}' for gpu in held)}"


def _filled(gpu: Gpu, memory: dict) -> str:
    used, total = (megabytes / 1024 for megabytes in memory[gpu.name])
    return f"{gpu}: other programs use {used:.0f} of {total:.0f} GiB of its memory; it is avoided for now"


def _address(gpu: Gpu) -> str:
    return f"\0cdfss/{gpu.name}"


@contextmanager
def _lock(gpu: Gpu):
    """Hold a name that only one process of the machine can have; yields whether it is ours.

    Unlike a file a socket needs no folder that all processes see (schedulers give each job a /tmp of
    its own), belongs to no user, and nothing of it is left behind.

    Raises:
        CdfssError: when the system gives no sockets.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(_address(gpu))
            lock.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CdfssError(
                    f"device: {gpu} cannot be locked ({error.strerror}), so that two jobs could share it; "
                    "let this process make local sockets, or set device: cpu"
                ) from error
            yield False
        else:
            yield True


def _holder(gpu: Gpu) -> str:
    """The process that holds a device, for people."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_address(gpu))
            size = struct.calcsize("3i")
            process, _, _ = struct.unpack(
                "3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            )
        except OSError:
            return "another process"
    return f"process {process}"


def _memory() -> dict[str, tuple[float, float]]:
    """Used and whole memory of cards in MiB by UUID, as far as nvidia-smi knows."""
    if shutil.which("nvidia-smi") is None:
        return {}
    try:
        answer = _smi("--query-gpu=uuid,memory.used,memory.total", "--format=csv,noheader,nounits")
    except _SmiFault:
        return {}
    known = {}
    for line in answer.splitlines():
        uuid, *numbers = (part.strip() for part in line.split(","))
        if len(numbers) == 2 and all(number.isdigit() for number in numbers) and int(numbers[1]):
            known[uuid] = tuple(map(float, numbers))
    return known


def _free_share(memory: dict[str, tuple[float, float]], gpu: Gpu) -> float:
    """Free share of a device's memory, 0..1; 1 where it is not known, as of MIG devices."""
    used, total = memory.get(gpu.name, (0.0, 1.0))
    return 1 - used / total


@contextmanager
def device(configured: str):
    """The torch device of this job: a GPU of its own, or the processor, and says which.

    On a GPU CUDA_VISIBLE_DEVICES is set to it, for good: CUDA starts once in a process.

    Raises:
        CdfssError: when "cuda" is configured and there is none, or torch cannot use it.
    """
    if wanted(configured) == "cpu":
        import torch

        why = no_gpu() if configured == "auto" else "configured"
        print(f"device: cpu ({why}), {torch.get_num_threads()} threads", file=sys.stderr, flush=True)
        yield torch.device("cpu")
        return
    with claim(visible()) as gpu:
        os.environ |= {"CUDA_VISIBLE_DEVICES": gpu.name, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        import torch

        if not torch.cuda.is_available():
            raise CdfssError(
                f"device: this machine has {gpu}, but the installed torch cannot use it (torch "
                f"{torch.__version__}, CUDA {torch.version.cuda}). Install a torch that fits the driver, "
                "start a container with access to the GPU (--gpus, --nv), or set device: cpu"
            )
        chosen = torch.device("cuda", _position(torch, gpu))
        torch.cuda.set_device(chosen)
        print(f"device: {chosen}, {gpu}", file=sys.stderr, flush=True)
        yield chosen


def _position(torch, gpu: Gpu) -> int:
    """torch's number of a claimed device: 0, but where CUDA had looked at the devices before.

    How many torch counts goes by the variable as it is now, what CUDA shows by what it was then; so the
    UUIDs decide.
    """
    if not gpu.name.startswith("GPU-"):  # a MIG device, or one whose UUID is not known
        return 0
    for position in range(max(1, torch.cuda.device_count())):
        uuid = getattr(torch.cuda.get_device_properties(position), "uuid", None)
        if uuid is None or f"GPU-{str(uuid).removeprefix('GPU-')}" == gpu.name:
            return position
    raise CdfssError(
        f"device: CUDA was in use in this process before {gpu} was chosen, and shows another one; set "
        f"CUDA_VISIBLE_DEVICES={gpu.name} before the process starts"
    )


SMALLER = "use a smaller image_size, hidden or source.batch_size, fewer shots, or a device with more memory"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of a GPU or of the machine was not enough."""
    if isinstance(error, MemoryError):
        return True
    words = str(error)
    # cuBLAS, cuDNN and the processor's allocator have no kind of error of their own.
    return isinstance(error, RuntimeError) and any(
        sign in words
        for sign in (
            "out of memory",
            "ALLOC_FAILED",
            "CUBLAS_STATUS_NOT_INITIALIZED",  # of cublasCreate, which needs room of its own
            "unable to find an engine to execute",  # of cuDNN, none of whose ways fits
            "can't allocate memory",
            "not enough memory",
        )
    )


def wait_for(device) -> None:
    """Wait until a torch device has done what it was told; None and a processor always have."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


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
