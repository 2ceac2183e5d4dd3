"""A small run with every stage, what runs of it, how to end that, and what must be the same afterwards."""

import base64
import functools
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import yaml
from conftest import serving, write_picture

from cdfss.data import synthetic
from cdfss.data.formats import deepglobe, isic2018

from .conftest import Project, prepared

CONFIGURATION = """
name: s
title: Survival
device: cpu
image_size: 64
backbone: efficientnet_lite0
shots: [1]
data:
  shapes: {format: pascal, root: shapes}
  landcover: {format: deepglobe, root: tiles}
  lesions: {format: isic2018, download: local}
source:
  data: shapes
  validation: {data: lesions, split: test, episodes: 10}
  epochs: 8
  batch_size: 8
  learning_rate: 0.003
compute: {threads: 1}
domains:
  landcover: {episodes: 6}
  lesions: {episodes: 6}
adaptation: {steps: 2, learning_rate: 3.0}
analysis: {episodes: 2}
variants:
  foreground: {method: foreground}
  copy: {method: copy}
  baseline: {}
  apm_s_acpa: {modules: [apm_s, acpa]}
"""
RUN = ("--cores", "2", "--configfile", "c.yaml")
ARCHIVE = "/lesions.zip"
POLL = 0.05  # seconds between looks at what runs
TILES = 12  # so that cutting them takes about a second
PIECE = 1 << 14  # bytes that the server sends at once

# The job of each stage: its script, and what its log is of.
STAGES = {
    "download": r"^download\.py",
    "preparation": r"^index\.py .*landcover",  # cuts tiles
    "training": r"^source\.py",
    "evaluation": r"^evaluate\.py evaluate/",  # not those of predictors without a model
    "measurement": r"^measure_",
    "tables": r"^table\.py",
    "page": r"^page\.py",
}
KINDS = ("group", "snakemake", "job")


@functools.cache
def served() -> dict[str, bytes]:
    """Files of the local source of lesions: generated pictures and a note that lengthens the archive."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"folder": folder, "name": "l", "synthetic": "lesions", "format": "isic2018"}
        synthetic.generate(settings, Path(folder) / "complete.json")
        raw = Path(folder) / "l" / "synthetic-lesions" / "raw"
        stored = io.BytesIO()
        with zipfile.ZipFile(stored, "w") as file:
            for path in sorted(raw.rglob("*.*")):
                if path.suffix != ".csv":
                    name = zipfile.ZipInfo(path.relative_to(raw).as_posix())
                    file.writestr(name, path.read_bytes())
            note = zipfile.ZipInfo(f"{isic2018.IMAGES}/LICENSE.txt")
            file.writestr(note, np.random.RandomState(0).bytes(700_000))
        return {ARCHIVE: stored.getvalue(), "/class_id.csv": (raw / "class_id.csv").read_bytes()}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content, begin = served()[self.path], 0
        if self.headers.get("Range"):
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.server.begins.append((self.path, begin))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        with suppress(OSError):  # the other end was killed
            for place in range(begin, len(content), PIECE):
                while self.path == ARCHIVE and place >= self.server.limit:
                    threading.Event().wait(POLL)
                self.wfile.write(content[place : place + PIECE])

    def log_message(self, *_):
        pass


def server():
    """A server of `served` that notes where it began, and sends the archive only up to byte `limit`."""
    return serving(_Handler, begins=[], limit=size())


def size() -> int:
    """Bytes of the archive."""
    return len(served()[ARCHIVE])


def make(folder, url: str) -> Project:
    """The project with its configuration, source pictures, and the server's files as a source."""
    project = Project(folder)
    project.write("c.yaml", CONFIGURATION)
    registry = folder / "cdfss" / "data" / "registry.yaml"
    entries = yaml.safe_load(registry.read_text())
    files = []
    for path, place in ((ARCHIVE, {"unpack": "."}), ("/class_id.csv", {"save": "class_id.csv"})):
        digest = hashlib.sha256(served()[path]).hexdigest()
        files.append({"http": url + path, "hash": f"sha256:{digest}", "size_mb": 1} | place)
    entries["isic2018"]["sources"]["local"] = files
    registry.write_text(yaml.safe_dump(entries))
    _write_shapes(folder / "shapes")
    _write_tiles(folder / "tiles")
    return project


def _write_shapes(root: Path) -> None:
    """Squares in six classes and colours, in the layout of PASCAL VOC."""
    lists = {fold: [] for fold in range(4)}
    for number in range(48):
        value = number % 6 * 3 + 1
        mask = np.zeros((64, 64), np.uint8)
        mask[number * 7 % 24 :, number * 11 % 24 :][:40, :40] = value
        picture = np.random.RandomState(number).randint(0, 120, (64, 64, 3)).astype(np.uint8)
        picture[mask > 0] = picture[mask > 0] // 2 + np.array([130, 5 * value, 60], np.uint8)
        write_picture(root / "JPEGImages" / f"{number:02d}.jpg", mask=picture)
        write_picture(root / "SegmentationClassAug" / f"{number:02d}.png", mask=mask)
        lists[(value - 1) // 5].append(f"{number:02d}__{value:02d}")
    (root / "splits").mkdir()
    for fold, lines in lists.items():
        (root / "splits" / f"fold{fold}.txt").write_text("\n".join(lines) + "\n")


def _write_tiles(root: Path) -> None:
    """Satellite tiles of half-and-half pieces, in DeepGlobe's raw layout."""
    colours = np.array([[code >> 2 & 1, code >> 1 & 1, code & 1] for code in list(deepglobe.CODES)[:6]])
    for number in range(TILES):
        classes = np.random.RandomState(number).randint(0, 6, (6, 12)).repeat(96, 0).repeat(48, 1)
        mask = (255 * colours[classes]).astype(np.uint8)
        noise = np.random.RandomState(number).randint(0, 90, mask.shape)
        write_picture(root / f"{number}_mask.png", mask=mask)
        write_picture(root / f"{number}_sat.jpg", mask=(mask // 2 + noise).astype(np.uint8))


class Run:
    """A running Snakemake in a project, in a process group of its own."""

    def __init__(self, project: Project, *arguments):
        self.folder = project.folder
        with (self.folder / "output.txt").open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *(arguments or RUN)],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, seconds: float = 200.0) -> int:
        """Exit status."""
        return self.process.wait(seconds)

    def signal(self, kind: str, job: psutil.Process, number: int) -> None:
        """Send a signal to the whole process group, Snakemake alone, or one job alone."""
        if kind == "group":
            os.killpg(self.process.pid, number)
        elif kind == "snakemake":
            self.process.send_signal(number)
        else:
            job.send_signal(number)

    def jobs(self) -> dict[str, psutil.Process]:
        """Running jobs by script and log: "evaluate.py evaluate/a.log"."""
        found = {}
        for process in alive(self.folder):
            with suppress(OSError, psutil.Error):
                script = _script(process.pid)
                if script is None or script == _script(process.ppid()):  # Snakemake, or of a job's pool
                    continue
                found[f"{script} {log_of(process)}"] = process
        return found

    def stopped_job(self, stage: str, share: float, seconds: dict) -> psutil.Process:
        """The first job of a stage that is seen, stopped where it has opened its log and done that share.

        Args:
            seconds: of each stage, what a job has `computed` at the beginning and at the end.
        """
        end = time.monotonic() + 120
        while time.monotonic() < end and not self.ended():
            for name, job in self.jobs().items():
                if re.search(STAGES[stage], name) and stop_at(job, point(job, share, *seconds[stage])):
                    return job
            time.sleep(POLL)
        raise AssertionError(f"no job of {stage} was seen\n{self.output}")


def point(job: psutil.Process, share: float, first: float, last: float):
    """A function that says whether a job has opened its log and done a share of its work."""
    return lambda: bool(log_of(job)) and computed(job) >= first + share * (last - first)


def _script(number: int) -> str | None:
    """The workflow's script that a Python process runs."""
    line = Path(f"/proc/{number}/cmdline").read_bytes().decode()
    found = re.search(r"\.snakemake/scripts/tmp\w+\.(\w+\.py)", line)
    return found[1] if found and "python" in line.split("\0")[0] else None


def log_of(process: psutil.Process) -> str:
    """The log that a job has open, below logs/; empty before it is opened and after the job's end."""
    logs = [""]
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{process.pid}/fd"):
            with suppress(OSError):
                logs.append(os.readlink(entry.path).partition("/logs/")[2])
    return max(logs)  # "a.log" is after "a.attempt1.log"


def computed(job: psutil.Process) -> float:
    """Seconds of the processor that a job and its pool have had; no load of the machine changes them."""
    times = list(job.cpu_times()[:4])  # of its own, and of children that have ended
    for other in alive(job.cwd()):
        with suppress(psutil.NoSuchProcess):
            if other.ppid() == job.pid:
                times += other.cpu_times()[:2]
    return sum(times)


def stop_at(job: psutil.Process, reached) -> bool:
    """Let a job go on in small steps until `reached()`, and stop it there; False if it ended before."""
    with suppress(psutil.NoSuchProcess):
        while job.status() != psutil.STATUS_ZOMBIE:
            job.suspend()
            while job.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                time.sleep(0.001)  # what is told to stop goes on for a moment
            if reached():
                return True
            job.resume()
            time.sleep(0.01)
    return False


def alive(folder) -> list[psutil.Process]:
    """Processes that work in a folder."""
    found, place = [], str(folder)
    for number in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError, psutil.Error):
            if os.readlink(f"/proc/{number}/cwd") == place:
                found.append(psutil.Process(int(number)))
    return found


def seconds_until_gone(folder, limit: float) -> float:
    """Seconds until nothing works in a folder any more."""
    begin = time.monotonic()
    while left := alive(folder):
        waited = time.monotonic() - begin
        assert waited < limit, f"after {waited:.0f} s there are still {left}"
        time.sleep(0.02)
    return time.monotonic() - begin


# What is finished, and what is the same.


def results(folder) -> list[Path]:
    """Files that jobs have made; no logs, benchmarks, states of jobs, prepared pictures, or hidden ones in
    the making."""
    apart = {"logs", "benchmarks", "state", "kept", "pictures"}
    paths = [p for p in (folder / "results").rglob("*") if not apart & {*p.relative_to(folder).parts}]
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def _job(path: str) -> str:
    """What the outputs of one job have in common."""
    path = re.sub(r"/(rows|predictions|cost)/", "/", path)
    return re.sub(r"\.(origin\.)?\w+$", "", re.sub(r"/source/(\d+)/\w+", r"/source/\1/", path))


def finished(folder) -> dict[str, tuple[int, int]]:
    """Outputs of the jobs that Snakemake knows to have finished: inode, and time of the last change."""
    marks = (folder / ".snakemake" / "incomplete").rglob("*")
    going_on = {_job(base64.b64decode(path.name).decode()) for path in marks if path.is_file()}
    known = (folder / ".snakemake" / "metadata").rglob("*")
    paths = [base64.b64decode(path.name).decode() for path in known if path.is_file()]
    stats = {p: (folder / p).stat() for p in paths if _job(p) not in going_on and (folder / p).exists()}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def contents(folder) -> dict:
    """All results by path, and all data, so that two runs can be compared.

    The bytes, but for what differs by nature and is taken out: seconds and memory in `cost` and
    table 6, and the hashes of such files; the figure of seconds; on the page the whole table 6; where a
    data set lies and the times of its files.
    """
    found = prepared(folder / "results")
    for path in results(folder):
        name = path.relative_to(folder).as_posix()
        if "/cost/" in name:
            frame = pd.read_parquet(path)
            frame = frame.drop(columns=[c for c in frame if c.endswith("seconds") or c == "peak_memory_mb"])
            found[name] = frame.to_csv(), pq.read_schema(path).metadata[b"cdfss"]
        elif path.name == "table6.csv":
            columns = ("seconds", "fit_seconds", "predict_seconds", "factor", "peak_memory")
            frame = pd.read_csv(path)
            found[name] = frame.drop(columns=[c for c in frame if c.startswith(columns)]).to_csv()
        elif path.name == "table6.origin.json":
            origin = json.loads(path.read_text())
            origin["made again from"]["cost"] = sorted(origin["made again from"]["cost"])  # no hashes
            found[name] = origin
        elif path.name.startswith("table6."):
            found[name] = re.sub(r"[-:\s]+", " ", re.sub(r"\d[\d.,e+-]*", "#", path.read_text()))
        elif path.stem == "iou_by_seconds":
            found[name] = path.suffix
        elif path.name == "index.html":
            found[name] = re.sub(
                r'<article class="table" id="table6".*?</article>', "", path.read_text(), flags=re.S
            )
        elif "/index/" in name and path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            facts = json.loads(table.schema.metadata[b"cdfss"])
            facts = {key: value for key, value in facts.items() if key not in ("root", "beside")}
            rows = table.to_pandas().drop(columns="time", errors="ignore")
            found[name] = rows.to_csv(), facts
        else:
            found[name] = path.read_bytes()
    for path in sorted((folder / "data").rglob("*")):
        if path.is_file():
            name = re.sub(r"prepared-\w+", "prepared", path.relative_to(folder).as_posix())
            content = path.read_bytes()
            if path.suffix == ".json":  # addresses, and of what files with what times pieces were made
                content = re.sub(rb"127\.0\.0\.1:\d+", b"server", content)
                content = re.sub(rb'"files": "\w+"', b"", content)
            found[name] = content
    return found


def differences(one: dict, other: dict) -> list[str]:
    """Names of what is missing in one of two contents, or differs."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def locks(folder) -> list[str]:
    """Snakemake's locks in a folder."""
    return [path.name for path in (folder / ".snakemake" / "locks").rglob("*") if path.is_file()]


def leftovers(folder) -> list[str]:
    """What runs that were killed leave behind, and a finished one should not.

    But for a hidden file beside its place, which a job that was killed in the moment of writing leaves.
    """
    places = [*(folder / "results").rglob("*"), *(folder / "data").rglob("*")]
    names = [place.relative_to(folder).as_posix() for place in places if not place.name.startswith(".")]
    words = r"\.partial|\.part$|/archives$|/state/.|\.lock$|\.broken"
    return [name for name in names if re.search(words, name)] + locks(folder)
