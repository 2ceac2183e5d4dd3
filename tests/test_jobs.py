"""What surrounds every job: its log, its threads, errors for people."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cdfss import CdfssError
from cdfss.running import stopping
from cdfss.running.jobs import job

FAILURES = {
    "a mistake": (CdfssError("x is y; do z"), 1, "error: x is y; do z\n"),
    "memory": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nmore"),
        1,
        "error: out of memory ([enforce fail] DefaultCPUAllocator: can't allocate memory: you tried); use",
    ),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on\n"),
    "a defect": (ValueError("odd"), 1, "Traceback"),
}


def run(log, line, error):
    """A job that prints a line and fails."""
    with job(log):
        print(line)
        raise error


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_ends_in_the_log_as_people_need_it(name, tmp_path, capsys):
    error, status, words = FAILURES[name]
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "logs" / "j.log", "begun", error)
    assert ended.value.code == status
    log = (tmp_path / "logs" / "j.log").read_text()
    assert log.startswith(f"begun\n{words}")
    assert ("Traceback" in log) == (name == "a defect")
    assert words in capsys.readouterr().err
    assert sys.stdout.__class__.__name__ != "_Tee"


def test_secrets_of_the_environment_reach_no_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef")
    monkeypatch.setenv("MY_PASSWORD", "open sesame")
    monkeypatch.setenv("SHORT_TOKEN", "a")  # would take all letters a out of the log
    with pytest.raises(SystemExit):
        run(tmp_path / "j.log", "key 0123456789abcdef", ValueError("open sesame"))
    for text in ((tmp_path / "j.log").read_text(), "".join(capsys.readouterr())):
        assert "0123456789abcdef" not in text
        assert "open sesame" not in text
        assert "key ***" in text
        assert "Traceback" in text


def test_threads_are_those_of_the_job_whatever_the_machine_has(tmp_path):
    script = (
        "from cdfss.running.jobs import job\n"
        f"with job({str(tmp_path / 'j.log')!r}, 3):\n"
        "    import torch, os\n"
        "    print(torch.get_num_threads(), os.environ['OPENBLAS_NUM_THREADS'])\n"
        "    print(os.environ['MKL_DYNAMIC'])\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "3", "FALSE"]


LEAVING = """
import atexit, os, sys
from cdfss.running.jobs import job
class Slow:
    def __del__(self):
        os.write(1, b"taken down\\n")
slow = Slow()
atexit.register(print, "tidied up")
with job(sys.argv[1]):
    print("done")
    sys.exit(int(sys.argv[2])) if sys.argv[2] != "0" else None
"""


@pytest.mark.parametrize("status", [0, 3])
def test_a_job_of_snakemake_ends_without_taking_python_down_and_others_go_on(tmp_path, status):
    def output(**environment):
        command = [sys.executable, "-c", LEAVING, str(tmp_path / "j.log"), str(status)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout

    assert output(**{stopping.RUN: stopping.this_run()}) == "done\ntidied up\n"
    assert output().endswith("done\ntidied up\ntaken down\n")


POOL = """
import sys
from cdfss.data.listing import in_processes
from cdfss.running.jobs import job
with job(sys.argv[1]):
    print(len(list(in_processes(abs, range(200), 2, "mine"))))
    next(iter(in_processes(abs, range(200), 2, "mine")))
"""


def test_a_job_of_snakemake_with_processes_of_its_own_ends(tmp_path):
    environment = os.environ | {stopping.RUN: stopping.this_run()}
    for number in range(8):  # it was now and then that one waited for ever
        command = [sys.executable, "-c", POOL, str(tmp_path / f"{number}.log")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr


def test_attempts_that_did_not_end_well_keep_their_logs(tmp_path, capsys):
    log = tmp_path / "logs" / "j.log"
    for line in ("first", "second"):
        with pytest.raises(SystemExit):
            run(log, line, CdfssError("no"))
        log.unlink()  # as Snakemake does before the next attempt
    with job(log):
        print("third")
    names = sorted(path.name for path in log.parent.iterdir())
    assert names == ["j.attempt1.log", "j.attempt2.log", "j.log"]
    assert (log.parent / "j.attempt1.log").read_text() == "first\nerror: no\n"
    assert "second" in (log.parent / "j.attempt2.log").read_text()
    assert log.read_text().splitlines()[0].endswith("j.attempt*.log beside this log")
    assert log.read_text().endswith("third\n")


# A job with two workers that tidies up, or one that does not react; it says when it is at work.
WAITING = """
import sys, time
from cdfss.data.listing import in_processes
from cdfss.running.jobs import job
def work(number):
    print("at work\\n", end="", flush=True)
    time.sleep(60)
with job(sys.argv[1]):
    try:
        list(in_processes(work, [1, 2], 2, "mine"))
    finally:
        print("tidied up", flush=True)
"""
STUBBORN = """
import sys, time
from cdfss.running.jobs import job
with job(sys.argv[1]):
    try:
        print("at work\\n", end="", flush=True)
        time.sleep(60)
    finally:
        time.sleep(60)
"""


def begin(script, log, **environment):
    """A process in a session of its own that runs a job, and its children, once all are at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(log)],
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for _ in range(script.count("1, 2") + 1):
        assert process.stdout.readline() == "at work\n"
    return process, [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def ended(processes):
    """Whether all processes end soon."""
    return psutil.wait_procs(processes, stopping.GRACE + 5)[1] == []


@pytest.mark.parametrize("whole", [False, True], ids=["job", "group"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_job_and_its_workers_in_words(name, whole, tmp_path):
    process, everyone = begin(WAITING, tmp_path / "j.log", CDFSS_RUN=stopping.this_run())
    number = getattr(signal, name)
    (os.killpg if whole else os.kill)(process.pid, number)
    output = process.communicate(timeout=stopping.GRACE + 5)[0]
    assert ended(everyone)
    assert "Traceback" not in output
    assert output.endswith("tidied up\ninterrupted; run the same command again to go on\n")
    assert process.returncode == 128 + number


# A job to which a signal comes while its log is being opened.
EARLY = """
import os, sys
from cdfss.running import jobs
def opened(*_):
    os.kill(os.getpid(), int(sys.argv[3]))
setattr(getattr(jobs, sys.argv[2]), "__init__", opened)
with jobs.job(sys.argv[1]):
    print("at work")
"""


@pytest.mark.parametrize("opened", ["_Log", "_Tee"])
@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_that_comes_before_there_is_a_log_is_said_too(number, opened, tmp_path):
    command = [sys.executable, "-c", EARLY, str(tmp_path / "j.log"), opened, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "interrupted; run the same command again to go on\n"


def test_a_job_that_does_not_end_is_ended(tmp_path):
    process, everyone = begin(STUBBORN, tmp_path / "j.log")
    process.terminate()
    assert process.wait(stopping.GRACE + 5) == -signal.SIGKILL
    assert ended(everyone)


def test_a_job_ends_with_its_snakemake_and_workers_with_their_job(tmp_path):
    snakemake = subprocess.Popen(["sleep", "60"])
    name = f"{stopping.this_run().split()[0]} {snakemake.pid}"
    process, everyone = begin(WAITING, tmp_path / "j.log", CDFSS_RUN=name)
    assert len(everyone) == 3
    time.sleep(2 * stopping.LOOK)
    assert process.poll() is None
    snakemake.kill()
    snakemake.wait()
    assert ended(everyone)
    process, everyone = begin(WAITING, tmp_path / "k.log")
    process.kill()
    process.wait()
    assert ended(everyone)


def test_a_job_of_a_run_on_another_machine_does_not_watch_a_process_of_this_one(tmp_path):
    process, everyone = begin(WAITING, tmp_path / "j.log", CDFSS_RUN="elsewhere 1999999999")
    time.sleep(3 * stopping.LOOK)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate()
    assert ended(everyone)
