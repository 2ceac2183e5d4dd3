"""What surrounds every job: its log, its threads, errors for people."""

import os
import subprocess
import sys

import pytest

from cdfss import CdfssError
from cdfss.jobs import job

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
        "from cdfss.jobs import job\n"
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
