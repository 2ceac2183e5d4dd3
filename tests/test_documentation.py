"""Every command and every Python example of README and site: run, planned, or listed with why it is not.

A page is followed from top to bottom in an empty folder of its own that has what its reader has: the
workflow, and pictures. Blocks with a title are files and are written, and run where they are tests;
Python without a title is run; of `bash` each line is a command:

    cdfss ...       is run, in this process
    snakemake ...   is planned (`-n`), since what it would do takes minutes to days
    make ...        is looked at (`make -n`), as it would install, train or test for minutes
    python FILE     is run, of a file that the page has written
    all else        has to be in NOT_RUN
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from made_rows import row
from PIL import Image

from cdfss.commands.main import cli
from cdfss.data import scenes
from cdfss.evaluation import results
from cdfss.methods import known
from cdfss.methods.modules import known as known_modules

ROOT = Path(__file__).parent.parent
PAGES = [
    path.relative_to(ROOT)
    for path in (
        ROOT / "README.md",
        *ROOT.glob("CONTRIBUTING.md"),
        ROOT / "config" / "README.md",
        *sorted((ROOT / "profiles").glob("*/README.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
]
LANGUAGES = {"bash", "python", "yaml", "text", "dockerfile"}

# Commands that are not run, and why.
NOT_RUN = {
    "pip install .": "asks the package index for 2 GB; .ci/run installs",
    "python3 -m venv .venv": "the tests run in such an environment; .ci/run makes one",
    ". .venv/bin/activate": "changes the shell that it is given in, and nothing else",
    ".venv/bin/pip install -e '.[slurm]'": "as pip install .",
    "snakemake --report results/report.zip": "needs a finished run; .ci/run makes the demo's",
}
# Commands that end with another exit code than 0, the code, and what they say.
ENDS = {
    "cdfss check config/config.yaml": (1, "data.chestxray: needs a Kaggle account"),
    "cdfss verify results": (1, "does not say what it was made from"),  # rows of `folder`
    "cdfss check mine.yaml": (1, "data.chestxray: needs a Kaggle account"),
}

# What `cdfss segment` and `cdfss fit` get besides: at 400 px a report takes half a minute.
SMALL = ["--size", "64"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `title` is the file that it is."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}, line {self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> list[Block]:
    text = (ROOT / page).read_text("utf-8")
    found = []
    for match in re.finditer(r"^( *)```(\S*)(.*)\n((?:.*\n)*?)\1```$", text, re.M):
        title = re.search(r'title="([^"]*)"', match[3])
        line = text[: match.start()].count("\n") + 1
        found.append(Block(page, line, match[2], title and title[1], textwrap.dedent(match[4])))
    return found


def inline_commands(page: Path) -> Iterator[str]:
    """What stands in single backticks and begins with `cdfss ` or `snakemake `."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
    for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text):
        code = " ".join(code.split()).removeprefix(".venv/bin/")
        if code.startswith(("cdfss ", "snakemake ")):
            yield code


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Pictures as a reader has them: labelled and new ones, and a folder of two classes."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.RandomState(0)

    def write(picture, mask, name, *, pictures, masks=None):
        (folder / pictures).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes.to_bytes(picture)).save(folder / pictures / f"{name}.jpg")
        if masks:
            (folder / masks).mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * mask).astype(np.uint8)).save(folder / masks / f"{name}.png")

    for number in range(2):
        picture, mask = scenes.lesion(rng, "nevus", 96)
        for pictures, masks in (
            ("labelled/images", "labelled/masks"),
            ("scans", "traced"),
            ("classes/nevus/images", "classes/nevus/masks"),
            ("pictures/nevus/images", "pictures/nevus/masks"),
        ):
            write(picture, mask, f"{number}", pictures=pictures, masks=masks)
        other, of_other = scenes.lesion(rng, "melanoma", 96)
        write(
            other,
            of_other,
            f"m{number}",
            pictures="classes/melanoma/images",
            masks="classes/melanoma/masks",
        )
        for name, shown, labels in ((f"{number}", picture, 1 * mask), (f"m{number}", other, 2 * of_other)):
            labels[:4] = 255  # unknown
            write(shown, labels / 255, name, pictures="maps/images", masks="maps/masks")
        write(*scenes.lesion(rng, "nevus", 128), f"a{number}", pictures="new")
    return folder


@pytest.fixture
def folder(tmp_path, drawn, monkeypatch):
    """Where a page is followed: the workflow, pictures, and rows and times of a run."""
    for part in ("Snakefile", "workflow", "config", "profiles", "envs", "cdfss", "pyproject.toml"):
        (tmp_path / part).symlink_to(ROOT / part)
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    generator = np.random.RandomState(0)
    lines = [row(generator, "lungs", "baseline", 1, 0, episode) for episode in range(3)]
    results.save(lines, tmp_path / "results/paper/rows/lungs/baseline/1shot-seed0/0.parquet", {})
    times = tmp_path / "results/paper/benchmarks/evaluate/lungs.tsv"
    times.parent.mkdir(parents=True)
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    times.write_text(head + "9.5\t0:00:09\t500\t9\t9\t9\t0\t0\t50\t8.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for key in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    known.find.cache_clear()
    known_modules.find.cache_clear()
    return tmp_path


def run_cdfss(words: list[str]) -> None:
    small = SMALL if words[0] in ("segment", "fit") and "--model" not in words else []
    code, says = ENDS.get(shlex.join(["cdfss", *words]), (0, ""))
    done = CliRunner().invoke(cli, [*words, *small], prog_name="cdfss")
    if not (done.exception is None or isinstance(done.exception, SystemExit)):
        raise done.exception
    assert done.exit_code == code, done.output
    assert says in done.output


def plan(words: list[str], capfd) -> None:
    """A dry run of Snakemake in this process: starting others would take most of the time."""
    from snakemake.cli import main

    # What it sets is for its jobs, and not for tests that come after.
    with mock.patch.dict(os.environ), pytest.raises(SystemExit) as ended:
        main([*words, *([] if {"-n", "--lint"} & set(words) else ["-n"])])
    said = capfd.readouterr()
    assert ended.value.code in (0, None), said.err[-3000:]


def follow(command: list[str], capfd) -> None:
    program = Path(command[0]).name if command[0].startswith(".venv/bin/") else command[0]
    if shlex.join(command) in NOT_RUN:
        return
    assert not {"|", "&&", ";", ">"} & set(command), "one command a line, please"
    if program == "cdfss":
        run_cdfss(command[1:])
    elif program == "snakemake":
        plan(command[1:], capfd)
    elif program == "make":
        done = subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif program == "python" and len(command) == 2:
        runpy.run_path(command[1], run_name="__main__")
    else:
        pytest.fail("nothing here runs it; say in NOT_RUN why not")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_can_be_followed_from_top_to_bottom(page, folder, capfd):
    names: dict = {"__name__": "__example__"}
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block.place}: of which language is this block?"
        try:
            if block.title:
                file = folder / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
            if block.language == "yaml":
                yaml.safe_load(block.text)
            elif block.language == "python":
                code = compile(block.text, block.place, "exec")
                if not block.title:
                    exec(code, names)
                elif block.title.startswith("test_"):
                    for name, test in runpy.run_path(block.title).items():
                        if name.startswith("test_"):
                            test()
            elif block.language == "bash":
                for command in block.commands:
                    try:
                        follow(command, capfd)
                    except (Exception, pytest.fail.Exception) as error:
                        raise AssertionError(f"{shlex.join(command)}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}") from error


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_and_is_kept_without_outputs(notebook, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    read = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in read.cells), "outputs grow old; clear them"
    NotebookClient(read, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_tables_of_this_file_name_commands_that_are_there():
    found = {
        shlex.join(command)
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "bash"
        for command in block.commands
    }
    assert set(NOT_RUN) | set(ENDS) <= found


def test_a_command_that_nobody_runs_is_no_documentation(capfd):
    for command in (["curl", "somewhere"], ["cdfss", "no-such-command"], ["make", "no-such-target"]):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            follow(command, capfd)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_within_sentences_have_names_and_options_that_exist(page):
    from snakemake.cli import get_argument_parser

    options = set(get_argument_parser()._option_string_actions)
    for code in inline_commands(page):
        words = code.replace("=", " ").split()
        given = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        if words[0] == "snakemake":
            assert given <= options | {"-R"}, code
            continue
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None or words[1].startswith("-"), code
        of_it = command or cli
        known = {name for option in of_it.params for name in (*option.opts, *option.secondary_opts)}
        assert given <= known | {"--help", "-h"}, code


def test_pages_that_code_and_configurations_name_are_there():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = []
    for name in listed.stdout.splitlines():
        if name.endswith((".py", ".smk", ".yaml", ".json", ".md", ".toml")) and (ROOT / name).is_file():
            text = (ROOT / name).read_text("utf-8").replace("INSID3, docs/data.md", "")
            pages = re.findall(r"(?<![\w/])docs/[\w/-]+\.(?:md|png|ipynb)", text)
            missing += [f"{name}: {page}" for page in pages if not (ROOT / page).exists()]
    assert missing == []


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
    assert links
