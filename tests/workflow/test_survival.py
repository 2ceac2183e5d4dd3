"""Runs that are killed at seeded points of every stage, told to stop, or find no room, and then go on."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import textwrap
import time
from contextlib import suppress
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from cdfss.data.download import CHUNK

from . import survival
from .survival import KINDS, POLL, STAGES, Run
from .test_plan import SMALL, own_data

BRIEF = ("tables", "page")  # whose jobs work for tenths of a second: they are killed as they begin
SEED = int(os.environ.get("CDFSS_KILL_SEED", "0"))


@pytest.fixture(autouse=True)
def nothing_left_running(tmp_path):
    """A test that fails leaves no run behind, nor a job that it has stopped."""
    yield
    for process in survival.alive(tmp_path / "project"):
        with suppress(psutil.Error):
            process.kill()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A finished run, one for all processes of a test: its folder, contents and seconds of each job."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = base / "undisturbed" / "project"
    seconds = folder / "seconds.json"
    with (base / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others wait for the one that makes it
        if not seconds.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            with survival.server() as server:
                run = Run(survival.make(folder, server.url))
                seen = {}
                while not run.ended():
                    for name, process in run.jobs().items():
                        with suppress(psutil.Error):
                            seen.setdefault(name, []).append(survival.computed(process))
                    time.sleep(POLL)
            assert run.wait() == 0, run.output
            seconds.write_text(json.dumps({stage: of_the_shortest(stage, seen) for stage in STAGES}))
    return SimpleNamespace(
        folder=folder, contents=survival.contents(folder), seconds=json.loads(seconds.read_text())
    )


def of_the_shortest(stage, seen):
    """What the shortest job of a stage had computed when its log was first seen open, and last."""
    logged = (at for name, at in seen.items() if re.search(STAGES[stage], name) and name.endswith(".log"))
    return min(((min(at), max(at)) for at in logged), key=lambda ends: ends[1])


def drawn_points(seed):
    """By stage: kinds of kill in random order, each with the share of a job's work that is done by then."""
    drawn = random.Random(seed)
    points = {}
    for stage in STAGES:
        shares = [drawn.uniform(0.05, 0.8) for _ in KINDS]
        # These go on where they were killed: a download has to come further, others have less to do.
        if stage == "download":
            shares = [(third + drawn.uniform(0.3, 0.6)) / 3 for third in range(3)]
        if stage in ("training", "evaluation", "measurement"):
            shares = [share / 2 for share in shares]
        if stage == "preparation":  # jobs of a second or less, of which there are few
            shares = [share / 4 for share in shares]
        points[stage] = list(zip(drawn.sample(KINDS, len(KINDS)), shares))
    return points


class Chain:
    """One run that is killed again and again."""

    def __init__(self, project, server, points, seconds):
        self.project, self.server, self.seconds = project, server, seconds
        self.points = {stage: list(of_stage) for stage, of_stage in points.items()}
        self.hits, self.finished, self.kept = [], {}, [0]

    def go_on(self):
        """Run until the run is killed or ends; False if nothing of it was killed and it ended well."""
        run, hits, end = Run(self.project), len(self.hits), time.monotonic() + 600
        while not run.ended():
            assert time.monotonic() < end, run.output
            self.server.limit = self.sent_at_most()
            for name, job in run.jobs().items():
                stage = next((s for s in STAGES if re.search(STAGES[s], name)), None)
                if self.points.get(stage) and self.comes_to_its_point(run, stage, job):
                    self.kill(run, stage, job)
                    break
            time.sleep(POLL)
        if len(self.hits) > hits:
            return True
        assert run.wait() == 0, run.output
        return False

    def comes_to_its_point(self, run, stage, job):
        """Whether a job is where it shall be killed; near it, it goes in small steps and stops."""
        share = self.points[stage][0][1]
        if stage == "download":  # which waits more than it computes, and goes on where it was killed
            return self.downloaded() >= share * survival.size() and bool(survival.log_of(job))
        if stage in BRIEF:
            return survival.stop_at(job, lambda: bool(survival.log_of(job)))
        first, last = self.seconds[stage]
        with suppress(psutil.NoSuchProcess):
            if survival.computed(job) > first + share * (last - first) - 0.5:
                return survival.stop_at(job, survival.point(job, share, first, last))
        return False

    def sent_at_most(self):
        """Bytes of the archive that come: no download ends before the one to be killed is killed."""
        points = self.points["download"]
        return points[0][1] * survival.size() + CHUNK + survival.PIECE if points else survival.size()

    def downloaded(self):
        """Bytes of the archive that are on the disk, of one that is not whole."""
        return sum(path.stat().st_size for path in self.project.folder.rglob("*.zip.part"))

    def kill(self, run, stage, job):
        kind, share = self.points[stage].pop(0)
        log, said = survival.log_of(job), len(run.output)
        assert log, "it is no running job"
        assert not run.ended(), run.output
        run.signal(kind, job, signal.SIGKILL)
        if kind == "job":  # Snakemake goes on with others, and says that this one failed
            while "Error in rule" not in run.output[said:]:
                assert not run.ended(), run.output
                time.sleep(POLL)
        else:
            with suppress(psutil.NoSuchProcess):
                job.resume()
            assert run.wait() == -signal.SIGKILL
            survival.seconds_until_gone(run.folder, 10)
        self.kept.append(self.downloaded())
        self.hits.append((stage, kind, log, round(share, 2)))
        for path, state in survival.finished(run.folder).items():
            self.finished.setdefault(path, state)


def test_a_run_killed_at_points_of_every_stage_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    with survival.server() as server:
        project = survival.make(tmp_path / "project", server.url)
        chain = Chain(project, server, drawn_points(SEED), undisturbed.seconds)
        while chain.go_on():
            pass
    print(f"seed {SEED}, {len(chain.hits)} kills:", *chain.hits, sep="\n")
    # A job of a second may be over before its point, on a quick machine; not those of a stage.
    left = {stage: points for stage, points in chain.points.items() if points}
    assert {stage for stage, *_ in chain.hits} == {*STAGES}, left
    assert len(chain.hits) >= 18, left
    assert project.jobs("--configfile", "c.yaml") == {}
    assert survival.differences(survival.contents(project.folder), undisturbed.contents) == []
    last = survival.finished(project.folder)
    assert len(chain.finished) > 40  # there was something to lose
    assert [path for path, state in chain.finished.items() if last.get(path) != state] == []
    assert survival.leftovers(project.folder) == []
    # A download goes on where it was killed, by its own three kills and by those of jobs beside it.
    begins = [begin for path, begin in server.begins if path == survival.ARCHIVE]
    assert begins == sorted(begins)
    assert len({*begins}) >= 4, begins
    assert {*begins} <= {*chain.kept}, (begins, chain.kept)


# What is removed from a copy of the finished run so that it goes on with a stage, and what is then made.
STARTS = {
    "training": (["s/source"], "results/s/source/0/history.parquet"),
    "evaluation": (["s/*/*/apm_s_acpa", "s/kept", "table1.*"], "results/table1.md"),
    "tables": (["table1.*"], "results/table1.md"),
}


@pytest.fixture
def begun(undisturbed, project):
    """The finished run without what comes from a stage on, and the target that it has to make again."""

    def begin(stage):
        shutil.rmtree(project.folder)
        shutil.copytree(undisturbed.folder, project.folder, symlinks=True)
        removed, target = STARTS[stage]
        for pattern in removed:
            for path in list((project.folder / "results").glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return project, ("--cores", "2", target, "--configfile", "c.yaml")

    return begin


def assert_as_undisturbed(project, arguments, undisturbed):
    """The same command makes what lacks, and all is as if nothing had happened."""
    project.run(*arguments)
    assert survival.differences(survival.contents(project.folder), undisturbed.contents) == []
    assert survival.leftovers(project.folder) == []


@pytest.mark.parametrize("stage", ["training", "evaluation"])
def test_a_signal_ends_a_run_within_seconds_and_the_same_command_goes_on(stage, begun, undisturbed):
    drawn = random.Random(f"{SEED} {stage}")
    project, arguments = begun(stage)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for kind in ("snakemake", "group"):
            run = Run(project, *arguments)
            job = run.stopped_job(stage, drawn.uniform(0, 0.3), undisturbed.seconds)
            job.resume()
            run.signal(kind, job, number)
            assert run.wait(20) != 0, run.output  # `stopping.GRACE`, and what a busy machine takes
            assert survival.seconds_until_gone(project.folder, 10) < 10
            assert "run the same command again" in run.output
            assert "Traceback" not in run.output
            assert survival.locks(project.folder) == []
    assert_as_undisturbed(project, arguments, undisturbed)


def test_an_evaluation_that_was_killed_goes_on_after_the_episodes_that_it_has_kept(begun):
    project, _ = begun("evaluation")
    code = project.folder / "cdfss" / "evaluation" / "together.py"
    assert "EVERY = 60.0" in code.read_text()
    code.write_text(code.read_text().replace("EVERY = 60.0", "EVERY = 0.0"))
    text = survival.CONFIGURATION.replace("landcover: {episodes: 6}", "landcover: {episodes: 30}")
    cost = "results/s/cost/landcover/apm_s_acpa/1shot-seed0-source0/0.parquet"
    arguments = ("--cores", "2", cost, "--configfile", project.write("more.yaml", text))
    place = project.folder / "results/s/kept/rows/landcover/1shot-seed0-source0/0/apm_s_acpa"
    run = Run(project, *arguments)
    while not (place / "cost.parquet").exists():
        assert not run.ended(), run.output
        time.sleep(POLL)
    run.signal("group", None, signal.SIGKILL)
    run.wait()
    survival.seconds_until_gone(project.folder, 10)
    kept = pd.read_parquet(place / "cost.parquet")
    assert 0 < len(kept) < 30
    project.run(*arguments)
    found = pd.read_parquet(project.folder / cost)
    assert len(found) == 30
    # No second computation takes the same seconds.
    pd.testing.assert_frame_equal(found[: len(kept)], kept, check_exact=True)


@pytest.fixture
def small_disk():
    """Mounts a small file system in the place of the results of a project."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system of a test's own")
    mounted = []

    def mount(project, megabytes):
        results, aside = project.folder / "results", project.folder / "aside"
        results.rename(aside)
        results.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", results], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(results)
        shutil.copytree(aside, results, dirs_exist_ok=True)
        shutil.rmtree(aside)
        return results

    yield mount
    for results in mounted:
        subprocess.run(["umount", "--lazy", results], check=True)


def fill(folder, room):
    """Fill a file system but for that many bytes; returns the file to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
        file.truncate(file.tell() - room)
    return filler


@pytest.mark.parametrize(
    ("stage", "room"),
    [("training", 1 << 18), ("training", 0), ("evaluation", 0), ("tables", 0)],
    ids=["training", "training-log", "evaluation", "tables"],
)
def test_a_disk_that_gets_full_is_said_and_once_there_is_room_the_same_command_goes_on(
    stage, room, begun, undisturbed, small_disk
):
    project, arguments = begun(stage)
    results = small_disk(project, 200)
    run = Run(project, *arguments)
    job = run.stopped_job(stage, 0, undisturbed.seconds)
    filler = fill(results, room)
    job.resume()
    assert run.wait() == 1
    filler.unlink()
    there = survival.contents(project.folder)
    assert [name for name in there if undisturbed.contents.get(name) != there[name]] == []
    assert_as_undisturbed(project, arguments, undisturbed)
    assert re.search(r"error: results/\S+ cannot be written: the disk, .* is full", run.output), run.output
    assert "make room on it; then run the same command again" in run.output
    assert "Traceback" not in run.output


def test_results_that_may_not_be_written_to_are_said(begun, undisturbed, small_disk):
    project, arguments = begun("tables")
    results = small_disk(project, 200)
    subprocess.run(["mount", "-o", "remount,ro", results], check=True)
    output = project.run(*arguments, check=False)
    subprocess.run(["mount", "-o", "remount,rw", results], check=True)
    assert "results may not be written to (Read-only file system); mount its disk for writing" in output
    assert "then run the same command again" in output
    assert "Traceback" not in output
    assert_as_undisturbed(project, arguments, undisturbed)


def test_a_clock_that_jumps_runs_nothing_again(undisturbed, project):
    shutil.rmtree(project.folder)
    shutil.copytree(undisturbed.folder, project.folder, symlinks=True)
    drawn, day = random.Random(SEED), 24 * 3600
    for path in survival.results(project.folder):
        now = path.stat().st_mtime + drawn.uniform(-day, day)
        os.utime(path, (now, now))
    assert project.jobs("--configfile", "c.yaml") == {}


LARGE = """
import pyarrow.parquet
table = pyarrow.parquet.read_table(snakemake.output[0])
table = table.replace_schema_metadata(table.schema.metadata | {"more": "x" * 3_000_000})
pyarrow.parquet.write_table(table, snakemake.output[0])
"""


def test_a_large_file_that_was_only_touched_runs_nothing_again(project):
    """Snakemake alone compares the content of files up to 1 MB; an index of 10,000 pictures is larger."""
    own_data(project)
    script = project.folder / "workflow" / "scripts" / "index.py"
    script.write_text(script.read_text() + textwrap.indent(LARGE, "    "))  # still in the job
    index = project.folder / "results" / "small" / "index" / "mine" / "test.parquet"
    target = "results/small/rows/mine/copy/1shot-seed0/0.parquet"
    arguments = (target, "--configfile", project.write("c.yaml", SMALL))
    project.run("--cores", "2", *arguments)
    assert index.stat().st_size > 2e6
    for hours in (-24, 24):
        later = time.time() + 3600 * hours
        os.utime(index, (later, later))
        assert project.jobs(*arguments) == {}
    with index.open("ab") as file:  # it is the content that counts
        file.write(b"x")
    os.utime(index, (later, later))
    assert "evaluate_on_processor" in project.jobs(*arguments)
