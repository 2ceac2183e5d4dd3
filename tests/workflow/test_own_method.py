"""A user's own method, as docs/how-to/own-method.md has it: in tables, seen when it changes, told
of mistakes."""

import re

import pandas as pd
import pytest

from .conftest import ROOT
from .test_plan import SMALL, own_data

DOCS = (ROOT / "docs" / "how-to" / "own-method.md").read_text()


@pytest.fixture
def mine(project):
    """A run of the docs' example beside a predictor without a model; gives the names of both files."""
    own_data(project)
    (project.folder / "my_methods").mkdir()
    (code,) = re.findall(r'```python title="my_methods/nearest.py"\n(.*?)```', DOCS, re.S)
    file = project.write("my_methods/nearest.py", code)
    (variant,) = (b for b in re.findall(r"```yaml.*?\n(.*?)```", DOCS, re.S) if "  nearest:" in b)
    text = SMALL.replace("  foreground: {method: foreground}\n", variant.removeprefix("variants:\n"))
    text += "  aside: {method: my_methods/nearest.py:Nearest, sharpness: 5, main: false}\n"
    return project.folder / file, project.write("small.yaml", text)


def test_ones_own_method_is_in_tables_and_page_and_a_change_of_it_runs_its_jobs_again(mine, project):
    file, name = mine
    project.run("--cores", "2", "--configfile", name)
    results = project.folder / "results"
    for number in (1, 6):
        assert "Nearest colour" in (results / f"table{number}.md").read_text()
    miou = pd.read_csv(results / "table1.csv").set_index(["variant", "domain"])
    assert 0 <= miou.loc[("nearest", "mine"), "miou"] <= 100
    assert miou.loc[("nearest", "mine"), "miou_why"] == "4 episodes are fewer than 20"
    assert "Nearest colour" in (results / "index.html").read_text()
    rows = pd.read_parquet(results / "small/rows/mine/nearest/1shot-seed0/0.parquet")
    assert len(rows) == 4
    assert rows["first_loss"].isna().all()
    # A change of its file runs its jobs again, and no others.
    copied = project.folder / "results/small/rows/mine/copy/1shot-seed0/0.parquet"
    before = copied.stat().st_ino
    file.write_text(file.read_text().replace("near - far", "far - near"))
    jobs = project.jobs("--configfile", name)
    assert (jobs["evaluate_on_processor"], "index" in jobs, "episodes" in jobs) == (1, False, False)
    old = pd.read_csv(project.folder / "results" / "table1.csv").set_index("variant")["miou"]
    project.run("--cores", "2", "--configfile", name)
    new = pd.read_csv(project.folder / "results" / "table1.csv").set_index("variant")["miou"]
    assert new["nearest"].iloc[0] != old["nearest"].iloc[0]
    assert new["copy"].iloc[0] == old["copy"].iloc[0]
    assert copied.stat().st_ino == before
    assert project.jobs("--configfile", name) == {}
    # What shows others than a changed variant stays, although the same job makes their rows.
    (project.folder / name).write_text(
        (project.folder / name).read_text().replace("sharpness: 5", "sharpness: 6")
    )
    figure = results / "small" / "figures" / "class_iou.png"
    made = figure.stat().st_mtime_ns
    project.run("--cores", "2", "--configfile", name)
    assert figure.stat().st_mtime_ns == made
    assert copied.stat().st_ino == before
    assert "Nothing to be done" in project.run("--cores", "2", "--configfile", name)


def test_a_mistake_in_it_ends_in_a_message_with_file_and_line(mine, project):
    file, name = mine
    works = file.read_text()
    file.write_text(works.replace("pictures[masks].mean(0)", "pictures[mask].mean(0)"))
    line = file.read_text().split("pictures[mask]")[0].count("\n") + 1
    output = project.run("--cores", "2", "--configfile", name, check=False)
    assert "method 'my_methods/nearest.py:Nearest' failed: NameError: name 'mask' is not defined" in output
    assert f"(my_methods/nearest.py, line {line}:" in output
    file.write_text(works.replace("import numpy", "import nampy", 1))
    output = project.run("-n", "--configfile", name, check=False)
    assert "cannot be imported: ModuleNotFoundError: No module named 'nampy'" in output
    assert "Traceback" not in output
    file.write_text(works)
    project.run("--cores", "2", "results/table1.md", "--configfile", name)


def test_a_method_of_an_installed_module_is_found(mine, project):
    file, name = mine
    text = (project.folder / name).read_text().replace("my_methods/nearest.py:", "somewhere.nearest:")
    package = project.folder / "lib" / "somewhere"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "nearest.py").write_text(file.read_text())
    name = project.write("installed.yaml", text)
    path = {"PYTHONPATH": str(project.folder / "lib")}
    project.run("--cores", "2", "results/table1.md", "--configfile", name, **path)
    assert "Nearest colour" in (project.folder / "results" / "table1.md").read_text()
