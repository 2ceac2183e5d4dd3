"""Several runs in one folder, and what a killed one leaves."""

import json
import os
import subprocess
import sys

import pytest

ENTER = """
import sys
from cdfss.running import runs
print(*runs.enter(elsewhere={elsewhere}), sep="\\n", flush=True)
if sys.argv[1:]:
    runs.LOCKS.mkdir(parents=True, exist_ok=True)
    (runs.LOCKS / "0.output.lock").touch()
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def enter(tmp_path):
    """Enter the folder with a process of its own: one that ends, or one that locks it and stays."""
    begun = []

    def run(*arguments, elsewhere=False):
        command = [sys.executable, "-c", ENTER.format(elsewhere=elsewhere), *arguments]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if not arguments:
            return process.communicate()[0].strip()
        begun.append(process)
        while "locked" not in process.stdout.readline():
            assert process.poll() is None
        return process

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def records(folder):
    return sorted((folder / ".snakemake" / "cdfss" / "runs").glob("*.json"))


def locked(folder):
    return (folder / ".snakemake" / "locks" / "0.output.lock").exists()


def test_a_second_run_is_told_who_is_at_work(enter, tmp_path):
    assert enter() == ""
    first = enter("--cores", "8")
    said = enter()
    assert said.startswith(f"'snakemake --cores 8' (process {first.pid} on {os.uname().nodename}, since 2")
    assert said.endswith(f"is at work in this folder. Wait for its end, or end it with: kill {first.pid}")
    assert locked(tmp_path)


def test_the_lock_of_a_killed_run_is_released_with_a_word(enter, tmp_path):
    first = enter("--cores", "8")
    first.kill()
    first.wait()
    assert locked(tmp_path)
    assert enter().endswith("was killed; the lock that it left is released")
    assert not locked(tmp_path)
    assert enter() == ""


def test_a_lock_stays_while_another_run_lives_or_may(enter, tmp_path):
    first, second = enter("one"), enter("two")
    first.kill()
    first.wait()
    said = enter()
    assert f"(process {second.pid} on" in said
    assert "released" not in said
    assert locked(tmp_path)
    second.kill()
    second.wait()
    (record, *_) = records(tmp_path)
    elsewhere = json.loads(record.read_text()) | {"machine": "login2", "process": 7}
    (record.parent / "login2-7.json").write_text(json.dumps(elsewhere))
    said = enter()
    assert "(process 7 on login2, since 2" in said
    assert "snakemake --unlock" in said
    assert locked(tmp_path)


def test_jobs_of_a_killed_run_may_live_on_a_cluster(enter, tmp_path):
    first = enter("--jobs", "100", elsewhere=True)
    first.kill()
    first.wait()
    assert "squeue --me" in enter()
    assert "squeue --me" in enter()
    assert locked(tmp_path)


def test_records_of_ended_runs_do_not_pile_up(enter, tmp_path):
    for _ in range(3):
        enter()
    assert len(records(tmp_path)) == 1


def test_a_broken_record_and_a_folder_that_may_not_be_written_to_stop_nothing(enter, tmp_path):
    folder = tmp_path / ".snakemake" / "cdfss" / "runs"
    folder.mkdir(parents=True)
    (folder / "x-1.json").write_text("{")
    assert enter() == ""
    (folder / "x-1.json").unlink()
    folder.rename(folder.with_name("other"))
    folder.write_text("")  # in the place of the folder
    assert enter() == ""
