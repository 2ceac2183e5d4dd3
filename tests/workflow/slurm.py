"""A real Slurm of one node with two pretended GPUs, for as long as a test needs it.

Controller, node daemon and munge run in a temporary folder, on ports and with a key of their own, and
listen to this machine alone. Outside of the folder a Slurm has to have its files in /etc/slurm, and a
host name that resolves; both are as they were afterwards.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ETC = Path("/etc/slurm")
HOSTS = Path("/etc/hosts")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "scancel", "setpriv")

CONFIGURATION = """
ClusterName=cdfss
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Without cgroups this is how Slurm itself ends what takes more memory than it asked for.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# How long squeue tells how a job ended, which is all that tells it without an accounting database.
MinJobAge=300
KillWait=2
# A time limit is looked at every half minute, and counts in whole minutes.
OverTimeLimit=0
GresTypes=gpu
SchedulerParameters=sched_interval=1,bf_interval=1
# The node has the memory and the cores that it says, whatever this machine has.
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:fake:2
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
GENERIC_RESOURCES = """
AutoDetect=off
NodeName=localhost Name=gpu Type=fake File={folder}/dev/nvidia[0-1]
"""


def why_not():
    """Why this machine cannot have such a Slurm; None where it can."""
    if not sys.platform.startswith("linux"):
        return f"Slurm runs on Linux, not on {sys.platform}"
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return (
            f"Slurm is not installed ({', '.join(missing)} missing; on Debian: "
            "apt-get install slurmd slurmctld slurm-client munge)"
        )
    if os.geteuid() != 0:
        return "starting a Slurm for the test needs root"
    if any(path.exists() and not _ours(path) for path in (ETC / "slurm.conf", ETC / "gres.conf")):
        return f"this machine has a Slurm of its own ({ETC}/slurm.conf), which the test does not touch"
    return None


@contextmanager
def slurm():
    """Start a Slurm and stop it again; skips the test with the reason where that is not possible.

    One at a time on a machine: others wait. Yields a `Cluster`.
    """
    if reason := why_not():
        pytest.skip(reason)
    with ExitStack() as stack:
        lock = stack.enter_context(open(Path(tempfile.gettempdir()) / "cdfss-slurm.lock", "w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(tempfile.mkdtemp(prefix="cdfss-slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_host_name_resolves())
        _write(folder)
        stack.enter_context(_linked(folder))
        yield stack.enter_context(_running(folder))


class Cluster:
    """A running Slurm, asked with its own commands."""

    def __init__(self, folder):
        self.folder = folder

    def jobs(self):
        """What Slurm says of all jobs of its life, by number: dictionaries as of `scontrol show job`."""
        found = {}
        for line in _ask("scontrol", "--oneliner", "show", "jobs").splitlines():
            facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "JobId" in facts:
                found[int(facts["JobId"])] = facts
        return found

    def cancel(self, number):
        _ask("scancel", str(number))

    def update(self, number, **facts):
        """Change a job as an administrator may."""
        _ask("scontrol", "update", f"JobId={number}", *(f"{key}={value}" for key, value in facts.items()))

    def log(self):
        return "\n".join((self.folder / f"{name}.log").read_text() for name in ("slurmctld", "slurmd"))


def _path():
    """Debian keeps daemons where a user's PATH does not look."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _ours(path):
    """Whether a link is one that a killed test has left behind."""
    return path.is_symlink() and Path(os.readlink(path)).parent.name.startswith("cdfss-slurm-")


def _ask(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


def _free_ports(number):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _write(folder):
    for name in ("state", "spool", "dev"):
        (folder / name).mkdir()
    # Slurm gives GPUs to jobs by device files, and never opens them; any will do that are named alike.
    for number, device in enumerate(("/dev/null", "/dev/zero")):
        (folder / "dev" / f"nvidia{number}").symlink_to(device)
    controller, node = _free_ports(2)
    facts = {"controller": controller, "node": node, "folder": folder, "host": socket.gethostname()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**facts))
    (folder / "gres.conf").write_text(GENERIC_RESOURCES.format(**facts))
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))


@contextmanager
def _host_name_resolves():
    """Slurm's commands look up the name of their own machine, which a new container may not know."""
    host, before = socket.gethostname(), HOSTS.read_bytes() if HOSTS.exists() else None
    try:
        socket.gethostbyname(host)
    except OSError:
        with HOSTS.open("a") as file:
            file.write(f"\n127.0.0.1 {host} # for the test of cdfss on Slurm\n")
    else:
        yield
        return
    try:
        yield
    finally:  # in place: in a container the file may be a mount, which cannot be replaced
        HOSTS.unlink() if before is None else HOSTS.write_bytes(before)


@contextmanager
def _linked(folder):
    """The variable SLURM_CONF is not enough, for Snakemake's plugin takes it from the jobs."""
    there = ETC.is_dir()
    ETC.mkdir(parents=True, exist_ok=True)
    links = [ETC / name for name in ("slurm.conf", "gres.conf")]
    for link in links:
        link.unlink(missing_ok=True)  # of a test that was killed
        link.symlink_to(folder / link.name)
    try:
        yield
    finally:
        for link in links:
            link.unlink()
        if not there:
            ETC.rmdir()


@contextmanager
def _running(folder):
    """munged, slurmctld and slurmd; ended in turn, with all processes of jobs that are left."""
    commands = {
        # --force: its socket lies in a folder below /tmp, which it would rather not have
        "munged": [
            *("munged", "--foreground", "--force", f"--key-file={folder}/munge.key"),
            *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
        ],
        "slurmctld": ["slurmctld", "-D"],
        "slurmd": ["slurmd", "-D", "-N", "localhost"],
    }
    environment = os.environ | {"PATH": _path()}
    environment = {key: v for key, v in environment.items() if not key.startswith(("SLURM_", "SBATCH_"))}
    daemons = {}
    try:
        for name, command in commands.items():
            with open(folder / f"{name}.out", "w") as out:
                daemons[name] = subprocess.Popen(
                    # so that none outlives a test that is killed
                    ["setpriv", "--pdeathsig", "TERM", *command],
                    stdout=out,
                    stderr=out,
                    env=environment,
                    start_new_session=True,
                )
            if name == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), daemons, folder)
        _wait(lambda: "idle" in _ask("sinfo", "-h", "-o", "%T", check=False), daemons, folder)
        yield Cluster(folder)
    finally:
        if "slurmd" in daemons:
            _ask("scancel", "--quiet", "--partition=main", check=False)
            _wait(lambda: not _ask("squeue", "-h", check=False).strip(), daemons, folder, fail=False)
        for daemon in reversed(daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.send_signal(signal.SIGKILL)
                daemon.wait()


def _wait(done, daemons, folder, fail=True, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return
        dead = [name for name, daemon in daemons.items() if daemon.poll() is not None]
        if dead:
            break
        time.sleep(0.2)
    if fail:
        logs = "\n".join(f"{p.name}:\n{p.read_text()[-2000:]}" for p in sorted(folder.glob("*.[ol]*")))
        pytest.fail(f"the Slurm of the test does not start:\n{logs}")
