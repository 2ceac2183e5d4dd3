import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

ROOT = Path(__file__).parent.parent.parent
PARTS = ("Snakefile", "workflow", "config", "profiles", "envs", "cdfss", "pyproject.toml")


@pytest.fixture
def project(tmp_path):
    """A copy of the project without results, with a function that runs snakemake in it."""
    return Project(tmp_path / "project")


class Project:
    def __init__(self, folder):
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / part)

    def run(self, *arguments, check=True, **environment):
        """Run snakemake; returns its output, both streams together."""
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        if check:
            assert done.returncode == 0, done.stdout
        else:
            assert done.returncode != 0, done.stdout
        return done.stdout

    def jobs(self, *arguments):
        """Numbers of planned jobs by rule."""
        lines = self.run("-n", *arguments).splitlines()
        begin = next((i for i, line in enumerate(lines) if line.startswith("Job stats:")), None)
        if begin is None:
            return {}
        jobs = {}
        for line in lines[begin + 3 :]:
            if not line.strip():
                break
            rule, number = line.split()
            jobs[rule] = int(number)
        return jobs

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return name


def prepared(results):
    """Prepared pictures below results, by folder: their rows in order, for it depends on the order of jobs
    which file holds them."""
    found = {}
    for path in sorted(Path(results).glob("*/pictures/*/*/*.arrow")):
        with pa.OSFile(str(path)) as file:
            rows = pa.ipc.open_file(file).read_all().to_pylist()
        found.setdefault(path.parent.relative_to(results).as_posix(), []).extend(rows)
    return {folder: sorted(map(repr, rows)) for folder, rows in found.items()}
