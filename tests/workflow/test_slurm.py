"""The workflow on a real Slurm of one node, through profiles/slurm.

The node's two GPUs are pretended: Slurm counts them out as it does real ones and tells each job its own
in CUDA_VISIBLE_DEVICES, but nothing can compute on them. So jobs ask for a GPU, as the profile says, and
compute on the processor (`device: cpu`); what a job was given is read from its own processes, by what
the kernel says of their environment. Nothing in the jobs is replaced: they are cancelled, stopped and run
out of memory from outside, as on a cluster.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from cdfss.configuration.jobs import evaluation_rule
from cdfss.methods import known

from .slurm import ETC, slurm, why_not
from .test_changes import contents
from .test_plan import SMALL, own_data

RUN = """
name: cluster
title: On a cluster
image_size: 48
backbone: efficientnet_lite0
shots: [1]
data:
  everyday: {format: pascal, synthetic: everyday}
  lesions: {format: isic2018, synthetic: lesions}
source:
  data: everyday
  validation: {data: everyday, split: trn, episodes: 2}
  epochs: 4
  batch_size: 40
domains:
  lesions: {episodes: 3}
adaptation: {steps: 1, learning_rate: 0.01}
analysis: {episodes: 2}
compute: {threads: 1}
variants:
  copy: {method: copy}
  foreground: {method: foreground}
  baseline: {}
  apm_s: {modules: [apm_s]}
"""
FOLDER = "results/cluster"
TARGETS = [
    *(f"results/table{number}.md" for number in (1, 3)),
    f"{FOLDER}/figures/filtering.png",
    f"{FOLDER}/figures/episodes-lesions-1shot.png",
]
# What profiles/slurm/README.md tells people to adapt, for this Slurm; and the key of its table for
# clusters without an accounting database.
PLACES = {
    "slurm_partition: cpu": "slurm_partition: main",
    "slurm_partition: gpu": "slurm_partition: main",
    "device: cuda": "device: cpu",
    "cores: 8": "cores: 2",
    "# slurm-status-command: squeue": "slurm-status-command: squeue",
}


@pytest.fixture
def cluster():
    with slurm() as started:
        yield started


def profile(project):
    """Adapt the profile as its README says; returns what makes Snakemake use it, and look often."""
    path = project.folder / "profiles" / "slurm" / "config.yaml"
    text = path.read_text()
    for before, after in PLACES.items():
        assert before in text
        text = text.replace(before, after)
    # As the README says memory of one rule is changed: here to what is not enough at first.
    text = text.replace("  filtering:\n", "  filtering:\n    mem_mb: 500 * 10 ** (attempt - 1)\n")
    path.write_text(text)
    return "--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"


class Watcher(threading.Thread):
    """Looks at all jobs several times a second, and does something to the first of a kind.

    Args:
        accidents: by beginning of Slurm's comment on a job ("rule_source"): called with its number as
            long as it runs, until it returns something true.

    Attributes:
        first: by number what Slurm said of a job when it was first seen to run.
        devices: by number the values of CUDA_VISIBLE_DEVICES in processes of its scripts.
        struck: the number of the job that an accident happened to, by kind.
    """

    def __init__(self, cluster, **accidents):
        super().__init__(daemon=True)
        self.cluster, self.accidents = cluster, accidents
        self.first, self.devices, self.struck, self.fault = {}, {}, {}, None
        self.ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()
        if self.fault:
            raise self.fault

    def run(self):
        try:
            while not self.ended.wait(0.2):
                self._look()
        except Exception as fault:
            self.fault = fault

    def _look(self):
        jobs = {n: facts for n, facts in self.cluster.jobs().items() if facts["JobState"] == "RUNNING"}
        for number, facts in jobs.items():
            self.first.setdefault(number, facts)
            for _, environment in processes(number):
                self.devices.setdefault(number, set()).add(environment.get("CUDA_VISIBLE_DEVICES"))
        for kind, accident in self.accidents.items():
            mine = [n for n, facts in jobs.items() if facts["Comment"].startswith(kind)]
            if mine and kind not in self.struck and accident(mine[0]):
                self.struck[kind] = mine[0]


def processes(job):
    """(process, environment) of the scripts of a job, not of the Snakemakes around them."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b".snakemake/scripts/" not in (folder / "cmdline").read_bytes():
                continue
            words = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        if environment.get("SLURM_JOB_ID") == str(job):
            yield int(folder.name), environment


def of_kind(jobs, kind):
    return [jobs[n] for n in sorted(jobs) if jobs[n]["Comment"].startswith(kind)]


def memory(facts):
    """MB that a job asked for."""
    number, unit = re.fullmatch(r"([\d.]+)([MG])", facts["MinMemoryNode"]).groups()
    return float(number) * (1 if unit == "M" else 1024)


def minutes(facts):
    days, clock = ("0-" + facts["TimeLimit"]).split("-")[-2:]
    hours, minutes, _ = map(int, clock.split(":"))
    return 24 * 60 * int(days) + 60 * hours + minutes


def test_a_run_survives_what_happens_on_clusters_and_ends_in_the_bytes_of_a_local_one(project, cluster):
    name = project.write("c.yaml", RUN)
    log = project.folder / FOLDER / "logs" / "source" / "0.log"

    def cancel(job):
        """Once a state of the training is on disk."""
        if any((project.folder / FOLDER / "source" / "0" / "state").glob("*/state.pt")):
            cluster.cancel(job)
            return True

    def hang(job):
        """As on a file system that does not answer, until the time is over; a minute is the shortest."""
        begun = (project.folder / FOLDER / "logs" / "features" / "lesions.log").exists()
        for process, _ in processes(job) if begun else ():
            os.kill(process, signal.SIGSTOP)
            cluster.update(job, TimeLimit="1")
            return True

    with Watcher(cluster, rule_source=cancel, rule_features=hang) as seen:
        project.run(*TARGETS, *profile(project), "--configfile", name)
    jobs = cluster.jobs()

    # Each is tried again, with more memory and time than before.
    for kind, state in (
        ("rule_source", "CANCELLED"),
        ("rule_features", "TIMEOUT"),
        ("rule_filtering", "FAILED"),
    ):
        ended_badly = [
            n for n in jobs if jobs[n]["JobState"] != "COMPLETED" and jobs[n]["Comment"].startswith(kind)
        ]
        assert [jobs[n]["JobState"] for n in ended_badly] == [state]
        first = seen.first[ended_badly[0]]
        (again,) = (jobs[n] for n in jobs if n > ended_badly[0] and jobs[n]["Comment"] == first["Comment"])
        assert again["JobState"] == "COMPLETED"
        assert memory(again) > memory(first)
        assert minutes(again) > minutes(first)
    assert len([n for n in jobs if jobs[n]["JobState"] != "COMPLETED"]) == 3
    assert "resuming source training after epoch" in log.read_text()
    (slurms_own,) = (project.folder / ".snakemake" / "slurm_logs" / "rule_filtering").rglob("*.log")
    assert "exceeded memory limit" in slurms_own.read_text()
    # The log of each attempt that did not end well is there.
    logs = project.folder / FOLDER / "logs"
    kept = {path.relative_to(logs).as_posix() for path in logs.rglob("*.attempt*.log")}
    assert kept == {
        f"{name}.attempt1.log" for name in ("source/0", "features/lesions", "filtering/lesions")
    }

    # Each job has seen one device, its own.
    on_gpu = {n: facts for n, facts in jobs.items() if "gpu" in facts.get("TresPerJob", "")}
    rules = ("rule_source", "rule_evaluate_", "rule_features", "rule_filtering")
    assert all(facts["Comment"].startswith(rules) for facts in on_gpu.values())
    assert len(on_gpu) == 2 + 1 + 2 + 2
    assert all(len(seen.devices[n]) == 1 for n in on_gpu)
    assert {*itertools.chain(*(seen.devices[n] for n in on_gpu))} == {"0", "1"}
    together = [
        (a, b)
        for a, b in itertools.combinations(on_gpu, 2)
        if max(jobs[n]["StartTime"] for n in (a, b)) < min(jobs[n]["EndTime"] for n in (a, b))
    ]
    assert together
    assert all(seen.devices[a] != seen.devices[b] for a, b in together)

    # Jobs of seconds go together, in no more cores than a job may have.
    assert len(of_kind(jobs, "rule_simple")) == len(of_kind(jobs, "rule_report")) == 1
    assert all(int(facts["NumCPUs"]) <= 2 for facts in jobs.values())

    found = contents(project)
    assert any(path.endswith("apm_s/1shot-seed0-source0/0.parquet") for path in found)
    shutil.rmtree(project.folder / "results")
    project.run("--cores", "2", *TARGETS, "--configfile", name)
    assert contents(project) == found


def test_a_mistake_is_tried_as_often_as_the_profile_says_and_no_more(project, cluster):
    own_data(project)
    (project.folder / "mine" / "images" / "1.jpg").write_text("no picture")
    arguments = (*profile(project), "--configfile", project.write("c.yaml", SMALL))
    path = project.folder / "profiles" / "slurm" / "config.yaml"
    path.write_text(path.read_text().replace("retries: 2", "retries: 1"))  # which is quicker
    output = project.run(*arguments, check=False)
    assert "images/1.jpg: image cannot be read" in output
    jobs = cluster.jobs()
    assert [facts["JobState"] for facts in jobs.values()] == ["FAILED"] * 2
    first, second = (jobs[n] for n in sorted(jobs))
    assert memory(second) == 2 * memory(first)
    assert minutes(second) == 2 * minutes(first)
    logs = sorted((project.folder / "results" / "small" / "logs").rglob("*.attempt*.log"))
    assert [path.name for path in logs] == [f"mine-test.attempt{n}.log" for n in (1, 2)]
    assert all("images/1.jpg: image cannot be read" in path.read_text() for path in logs)


def test_ctrl_c_leaves_no_job_behind(project, cluster):
    own_data(project)
    target = "results/small/index/mine/test.parquet"
    arguments = (target, *profile(project), "--configfile", project.write("c.yaml", SMALL))
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments], cwd=project.folder, stderr=subprocess.DEVNULL
    )
    while not any(facts["JobState"] == "RUNNING" for facts in cluster.jobs().values()):
        assert run.poll() is None
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) != 0
    end = time.monotonic() + 30
    while states := {facts["JobState"] for facts in cluster.jobs().values()} - {"CANCELLED"}:
        assert time.monotonic() < end, states
        time.sleep(0.2)
    project.run(*arguments)
    assert (project.folder / target).exists()


def test_the_slurm_of_a_failed_test_is_stopped_and_its_links_are_gone():
    started = []

    def fails():
        with slurm() as cluster:
            started.append(cluster.folder)
            assert (ETC / "slurm.conf").is_symlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not (ETC / "slurm.conf").exists()
    assert not started[0].exists()
    assert str(started[0]) not in subprocess.check_output(["ps", "-eo", "args"], text=True)


def test_why_there_is_no_slurm_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(f"{slurm.__module__}._path", lambda: str(tmp_path))
    assert "Slurm is not installed" in why_not() or not sys.platform.startswith("linux")


def test_the_profile_names_rules_that_there_are(project):
    values = yaml.safe_load((project.folder / "profiles" / "slurm" / "config.yaml").read_text())
    planned = {*project.jobs("--configfile", "config/extended.yaml", "--config", "shards=2")}
    named = {*values["groups"], *values["set-resources"]}
    methods = map(known.find, ("copy", "ridge", "hsnet", "patnet", "fptrans"))
    families = [evaluation_rule(method) for method in methods]
    families += [f"{family}_in_order" for family in families]
    assert {rule for rule in named if rule.startswith("evaluate")} == {*families}
    assert named - {*families} <= planned
    assert {rule for rule in planned if rule.startswith("evaluate")} <= {*families}
    assert {*values["groups"].values()} == {*values["group-components"]}
