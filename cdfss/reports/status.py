"""How far a run is: its jobs by rule, what runs and what failed, and the time left by what has ended."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cdfss.reports import spent

STATES = ["done", "running", "failed", "stopped", "waiting"]
FAILED = re.compile(r"^(error: .*|\w*(?:Error|Exception)\b.*)$", re.M)
INTERRUPTED = "interrupted; run the same command again"
LEFT = re.compile(r"(\d+):(\d\d):(\d\d) left")
NODE = re.compile(r'^\s*(\d+)\[label = "(.*?)", .*style="(.*?)"\];$', re.M)
EDGE = re.compile(r"^\s*(\d+) -> (\d+)$", re.M)


@dataclass(frozen=True)
class Job:
    """A job of a run.

    Attributes:
        rule: of the workflow.
        shot: number of shots, as "5shot"; empty where that is no matter of it.
        done: whether it need not run.
    """

    rule: str
    shot: str
    done: bool


@dataclass(frozen=True)
class Begun:
    """A job that has begun and not ended well.

    Attributes:
        rule: of the workflow.
        log: its file.
        state: "running", "failed" or "stopped" (interrupted or killed).
        why: the error of a failed one.
        seconds: since it began.
        left: seconds that it says it still takes; None where it says nothing.
    """

    rule: str
    log: Path
    state: str
    why: str
    seconds: float
    left: float | None


@dataclass(frozen=True)
class Time:
    """Time that a run still takes.

    Attributes:
        seconds: if as many jobs run at once as did so far; None where nothing is known.
        at_once: jobs that ran at once so far, on average while any did.
        unknown: rules that have jobs left of which none has ended.
    """

    seconds: float | None
    at_once: float
    unknown: list[str]


def jobs_of(dag: str) -> list[Job]:
    """Jobs by the graph that `snakemake --dag` prints; without the target, which is none."""
    labels, done = {}, {}
    for number, label, style in NODE.findall(dag):
        labels[number], done[number] = label.split("\\n"), "dashed" in style
    before: dict[str, list[str]] = {}
    for first, then in EDGE.findall(dag):
        before.setdefault(then, []).append(first)
    targets = set(labels) - {first for firsts in before.values() for first in firsts}

    def shots(number):  # a job's label has what is not in the labels of those before it
        own = {line for line in labels[number] if line.startswith("shot: ")}
        return own or {shot for first in before.get(number, []) for shot in shots(first)}

    found = []
    for number, (rule, *_) in labels.items():
        if number not in targets or len(labels) == 1:
            mine = shots(number)
            shot = f"{mine.pop().removeprefix('shot: ')}shot" if len(mine) == 1 else ""
            found.append(Job(rule, shot, done[number]))
    return found


def begun(folder: str | Path, at_work: bool, now: float | None = None) -> list[Begun]:
    """Jobs that have begun and not ended well, by the logs of their last attempts, which then stay.

    Args:
        folder: results/<name>.
        at_work: whether a run is at work in this folder, so that a job that has begun may go on.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    newest: dict[Path, Path] = {}
    place = Path(folder, "logs")
    for attempt in sorted(place.rglob("*.attempt*.log"), key=lambda file: file.stat().st_mtime):
        newest[attempt.with_name(re.sub(r"\.attempt\d+\.log$", ".log", attempt.name))] = attempt
    found = []
    for log, attempt in newest.items():
        # It has run again since, and left no log of that attempt: it ended well.
        if log.is_file() and log.stat().st_mtime > attempt.stat().st_mtime + 1:
            continue
        rule = re.sub(r"\d+$", "", Path(log.relative_to(place).parts[0]).stem)
        text = attempt.read_text("utf-8", "replace")
        errors, said = FAILED.findall(text), LEFT.findall(text)
        state, why = ("running" if at_work else "stopped"), ""
        if INTERRUPTED in text:
            state = "stopped"
        elif errors:
            state, why = "failed", errors[-1].removeprefix("error: ")
        left = None
        if said:
            hours, minutes, seconds = map(int, said[-1])
            left = 3600.0 * hours + 60 * minutes + seconds
        found.append(Begun(rule, attempt, state, why, max(now - attempt.stat().st_ctime, 0.0), left))
    return found


def by_rule(jobs: Iterable[Job], begun: Iterable[Begun]) -> pd.DataFrame:
    """Numbers of jobs: index rule, columns `STATES` and all."""
    counted: dict[str, dict[str, int]] = {}
    for job in jobs:
        of_rule = counted.setdefault(job.rule, dict.fromkeys([*STATES, "all"], 0))
        of_rule["done" if job.done else "waiting"] += 1
        of_rule["all"] += 1
    for one in begun:
        of_rule = counted.get(one.rule, {})
        if of_rule.get("waiting"):
            of_rule["waiting"] -= 1
            of_rule[one.state] += 1
    return pd.DataFrame.from_dict(counted, "index", columns=[*STATES, "all"])


def time_left(jobs: Iterable[Job], begun: Iterable[Begun], ended: pd.DataFrame) -> Time:
    """Time that is left, by what jobs of the same rule and number of shots took.

    Args:
        ended: `spent.of_jobs`.
    """
    taken = ended.dropna(subset=["seconds"])
    shot = taken["name"].str.extract(r"(\d+shot)", expand=False).fillna("")
    same, alike = (taken.groupby(key)["seconds"].mean() for key in ([taken["rule"], shot], "rule"))
    running: dict[str, list[Begun]] = {}
    for one in begun:
        if one.state == "running":
            running.setdefault(one.rule, []).append(one)
    total, known, unknown = 0.0, False, []
    for job in jobs:
        if job.done:
            continue
        mine = running.get(job.rule, [])
        now = mine.pop() if mine else None
        usual = same.get((job.rule, job.shot), alike.get(job.rule))
        if usual is not None:
            total, known = total + max(usual - (now.seconds if now else 0.0), 0.0), True
        elif now is not None and now.left is not None:
            total, known = total + now.left, True
        else:
            unknown.append(job.rule)
    at_once = _at_once(taken)
    seconds = total / at_once if known or not unknown else None
    return Time(seconds, at_once, list(dict.fromkeys(unknown)))


def _at_once(ended: pd.DataFrame) -> float:
    """Jobs that ran at once, on average over the time in which any did."""
    spans = sorted(zip(ended["ended"] - ended["seconds"], ended["ended"]))
    busy, until = 0.0, float("-inf")
    for begin, end in spans:
        busy += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return max(float(ended["seconds"].sum()) / busy, 1.0) if busy else 1.0


def of_run(folder: str | Path, dag: str, at_work: bool) -> tuple[pd.DataFrame, list[Begun], Time]:
    """`by_rule`, `begun` and `time_left` of a run.

    Args:
        folder: results/<name>.
        dag: what `snakemake --dag` prints.
        at_work: as `begun`.

    Raises:
        CdfssError: as `spent.of_jobs`.
    """
    jobs, now = jobs_of(dag), begun(folder, at_work)
    return by_rule(jobs, now), now, time_left(jobs, now, spent.of_jobs(folder))
