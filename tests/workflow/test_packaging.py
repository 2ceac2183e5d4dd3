"""What is installed: a wheel that holds the workflow, and the workflow as a part of another one."""

import os
import subprocess
import sys
import zipfile

import pytest

from .conftest import ROOT
from .test_plan import SMALL, own_data

MODULE = """
from cdfss import snakefile


module cdfss:
    snakefile:
        snakefile()
    config:
        config


use rule * from cdfss


onstart:
    cdfss.onstart()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel is unpacked, as pip does."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    parts = ["cdfss", "Snakefile", "workflow", "config", "profiles", "envs", "pyproject.toml", "setup.py"]
    parts += ["README.md", "LICENSE", "MANIFEST.in"]
    source.mkdir()
    for part in parts:
        subprocess.run(["cp", "-r", str(ROOT / part), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(place), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(place / "site")
    return place / "site"


class Folder:
    """An empty folder in which commands of the installed package run."""

    def __init__(self, folder, installed):
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(self, *command):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def folder(installed, tmp_path):
    return Folder(tmp_path, installed)


def test_a_folder_begun_by_an_installed_package_plans_the_papers_run_and_the_demo(folder, installed):
    where = "import cdfss; print(cdfss.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=folder.folder,
        env=folder.environment,
        capture_output=True,
        text=True,
    )
    assert found.stdout.startswith(str(installed))
    folder.run("cdfss", "init", ".")
    assert "everything" in folder.run("snakemake", "-n", "--quiet", "rules")
    planned = folder.run("snakemake", "-n", "--quiet", "rules", "--configfile", "config/demo.yaml")
    assert "generate" in planned


@pytest.mark.parametrize("snakefile", ["init", "module"])
def test_the_installed_workflow_runs_in_a_folder_of_its_own(folder, snakefile):
    own_data(folder)
    (folder.folder / "small.yaml").write_text(SMALL)
    if snakefile == "init":
        folder.run("cdfss", "init", ".")
    else:
        (folder.folder / "Snakefile").write_text(MODULE)
    printed = folder.run(
        "snakemake", "results/table1.md", "--cores", "2", "--configfile", "small.yaml", "--quiet", "rules"
    )
    assert (folder.folder / "results" / "table1.md").is_file(), printed
    assert "nothing is wrong" in folder.run("cdfss", "verify")


def test_as_a_module_a_configuration_without_a_name_adds_to_the_papers(folder):
    (folder.folder / "Snakefile").write_text(MODULE.replace("        config\n", "        {'shots': [5]}\n"))
    planned = folder.run("snakemake", "-n", "--quiet", "rules")
    assert "evaluate_untrained           4" in planned
