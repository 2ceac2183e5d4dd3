"""Edited pictures and changed code: what is noticed, made again, refused; and equal bytes."""

import json
import os
import re
import shutil

import pandas as pd
import pytest
import yaml
from conftest import square_mask, write_picture
from PIL import Image, ImageOps

from cdfss.reports.tables.writing import RECIPE

from .conftest import Project, prepared
from .test_plan import SMALL, own_data

ROWS = "results/small/rows/mine/{}/1shot-seed0/0.parquet"
KEPT = "results/small/kept/rows/mine/1shot-seed0/0"


@pytest.fixture(scope="session")
def run_once(tmp_path_factory):
    """A finished run of predictors without a model, on pictures whose masks differ."""
    project = Project(tmp_path_factory.mktemp("once") / "project")
    own_data(project)
    for number in range(4):
        mask = square_mask()
        mask[: 5 + 4 * number] = 255
        write_picture(project.folder / "mine" / "masks" / f"{number}.png", mask=mask)
    project.run("--cores", "2", "--configfile", project.write("c.yaml", SMALL))
    return project.folder


@pytest.fixture
def finished(project, run_once):
    """The configuration of the same run, copied with all times."""
    shutil.rmtree(project.folder)
    shutil.copytree(run_once, project.folder, symlinks=True)
    assert project.jobs("--configfile", "c.yaml") == {}
    return "c.yaml"


def table(project):
    return pd.read_csv(project.folder / "results" / "table1.csv").set_index(["variant", "domain"])["miou"]


def masks(project):
    return sorted((project.folder / "mine" / "masks").iterdir())


def invert(project):
    for path in masks(project):
        with Image.open(path) as image:
            ImageOps.invert(image.convert("L")).save(path)


def test_edited_pictures_are_noticed_and_all_rows_of_them_are_made_again(project, finished):
    before = table(project)
    invert(project)
    jobs = project.jobs("--configfile", finished)
    assert (jobs["index"], jobs["episodes"], jobs["evaluate_on_processor"]) == (1, 1, 1)
    assert "generate" not in jobs
    project.run("--cores", "2", "--configfile", finished)
    after = table(project)
    assert (after != before).all()
    assert project.jobs("--configfile", finished) == {}
    # By the pictures as they are now: everything foreground hits their share of foreground.
    index = pd.read_parquet(project.folder / "results/small/index/mine/test.parquet")
    rows = pd.read_parquet(project.folder / ROWS.format("foreground")).set_index("query")
    share = rows["intersection_foreground"] / rows["union_foreground"]
    for image, foreground in zip(index["image"], index["foreground"]):
        if image in share.index:
            assert share[image].mean() == pytest.approx(foreground, abs=0.05)


def test_a_job_that_failed_is_not_forgotten(project, finished):
    """Snakemake notes the new settings of a job that failed too; what is there from before would do."""
    whole = project.folder / "mine" / "images" / "1.jpg"
    content = whole.read_bytes()
    invert(project)
    whole.write_bytes(content[:100])
    for target in ([], [], ["results/table1.md"]):
        output = project.run("--cores", "2", *target, "--configfile", finished, check=False)
        assert "images/1.jpg: image cannot be read" in output
    whole.write_bytes(content)
    before = table(project)
    project.run("--cores", "2", "--configfile", finished)
    assert (table(project) != before).all()
    assert project.jobs("--configfile", finished) == {}
    # Nor are evaluations, of which a single table is asked for.
    script = project.folder / "workflow" / "scripts" / "evaluate.py"
    works = script.read_text()
    more = project.write("more.yaml", SMALL.replace("episodes: 4", "episodes: 9"))
    script.write_text("raise SystemExit(1)\n")
    project.run("--cores", "2", "results/table1.md", "--configfile", more, check=False)
    script.write_text(works)
    project.run("--cores", "2", "results/table1.md", "--configfile", more)
    assert (pd.read_csv(project.folder / "results" / "table1.csv")["episodes"] == 9).all()


def test_a_page_asked_for_alone_shows_figures_of_the_same_pictures(project, finished):
    figure = project.folder / "results" / "small" / "figures" / "class_iou.png"
    before = figure.read_bytes()
    invert(project)
    project.run("--cores", "2", "results/index.html", "--configfile", finished)
    assert figure.read_bytes() != before
    figure.write_bytes(before)
    output = project.run(
        "--cores", "2", "results/index.html", "--configfile", finished, "-R", "page", check=False
    )
    assert "pictures mine differ" in output
    assert str(figure.relative_to(project.folder)) in output


def test_what_snakemake_has_forgotten_is_said(project, finished):
    shutil.rmtree(project.folder / ".snakemake")
    invert(project)
    output = project.run("-n", "--configfile", finished)
    assert "pictures of mine (test) have changed since they were indexed" in output
    assert "run the same command again with -R index" in output
    project.run("--cores", "2", "--configfile", finished, "-R", "index")
    assert "have changed" not in project.run("-n", "--configfile", finished)


def with_variants(project, **variants):
    values = yaml.safe_load(SMALL)
    values["variants"] |= variants
    return project.write("variants.yaml", yaml.safe_dump(values, sort_keys=False))


def test_an_added_variant_is_computed_alone_and_its_absence_loses_nothing(project, finished):
    kept = project.folder / KEPT
    rows = [ROWS.format(variant) for variant in ("copy", "foreground", "again")]

    def inode(variant):
        return (kept / variant / "rows.parquet").stat().st_ino

    first = {variant: inode(variant) for variant in ("copy", "foreground")}
    more = with_variants(project, again={"method": "copy"})
    for name, targets in ((more, rows), (finished, rows[:2]), (more, rows)):
        project.run("--cores", "2", *targets, "--configfile", name)
        assert {variant: inode(variant) for variant in first} == first
        assert (project.folder / rows[0]).stat().st_ino == first["copy"]
        assert project.jobs(*targets, "--configfile", name) == {}
        first |= {"again": inode("again")}
    # What is kept of a variant goes with its rows.
    assert {path.name for path in kept.iterdir()} == {"copy", "foreground", "again"}
    for variant in ("again", "copy"):
        (project.folder / ROWS.format(variant)).unlink()
    project.run("--cores", "2", *rows[:2], "--configfile", finished)
    assert {path.name for path in kept.iterdir()} == {"copy", "foreground"}
    assert (project.folder / rows[0]).stat().st_ino == inode("copy") == first["copy"]


def test_deleted_rows_come_back_from_what_is_kept_or_are_computed_again(project, finished):
    rows = project.folder / ROWS.format("copy")
    before, inode = rows.read_bytes(), (project.folder / KEPT / "copy" / "rows.parquet").stat().st_ino
    arguments = ("--cores", "2", ROWS.format("copy"), "--configfile", finished)
    rows.unlink()
    project.run(*arguments)
    assert (rows.read_bytes(), rows.stat().st_ino) == (before, inode)
    # As the docs say, what is forced is computed where nothing is kept.
    project.run(*arguments, "-R", "evaluate_on_processor")
    assert rows.stat().st_ino == inode
    (project.folder / "results" / "small" / "kept").rename(project.folder / "aside")
    project.run(*arguments, "-R", "evaluate_on_processor")
    assert rows.stat().st_ino != inode
    assert rows.read_bytes() == before


@pytest.mark.parametrize("how", ["added", "removed"])
def test_added_and_removed_pictures_are_noticed(how, project, finished):
    if how == "added":
        write_picture(project.folder / "mine" / "images" / "9.jpg", seed=9)
        write_picture(project.folder / "mine" / "masks" / "9.png", mask=square_mask())
    else:
        (project.folder / "mine" / "images" / "3.jpg").unlink()
        (project.folder / "mine" / "masks" / "3.png").unlink()
    assert project.jobs("--configfile", finished)["index"] == 1
    project.run("--cores", "2", "--configfile", finished)
    assert project.jobs("--configfile", finished) == {}


def test_touched_and_copied_pictures_run_nothing(project, finished):
    for path in (project.folder / "mine").rglob("*.*"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**10))
    assert project.jobs("--configfile", finished) == {}
    shutil.copytree(project.folder / "mine", project.folder / "moved", copy_function=shutil.copyfile)
    shutil.rmtree(project.folder / "mine")
    name = project.write("moved.yaml", SMALL.replace("root: mine", "root: moved"))
    assert project.jobs("--configfile", name) == {}
    # Nor does a new row find other pictures than the old ones did.
    values = yaml.safe_load((project.folder / name).read_text())
    values["variants"]["again"] = {"method": "copy"}
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    assert project.jobs("--configfile", name)["evaluate_on_processor"] == 1
    project.run("--cores", "2", "--configfile", name)
    after = table(project)
    assert after["again", "mine"] == after["copy", "mine"]


def test_a_table_refuses_rows_of_other_pictures_and_says_which_to_make_again(project, finished):
    old = project.folder / ROWS.format("copy")
    kept = old.read_bytes()
    invert(project)
    project.run("--cores", "2", "--configfile", finished)
    now = old.read_bytes()
    old.write_bytes(kept)  # as a run that knew nothing of the change would have left it
    os.utime(old, (1e9, 1e9))
    output = project.run("--cores", "2", "--configfile", finished, "-R", "table", check=False)
    assert "pictures of mine differ" in output
    assert f"The older 1: {ROWS.format('copy')}. Delete these and run the same command again" in output
    assert "Traceback" not in output
    old.unlink()
    project.run("--cores", "2", "--configfile", finished)
    assert old.read_bytes() == now


def test_changed_code_is_said_and_runs_nothing_by_itself(project, finished):
    assert "another version of cdfss" not in project.run("-n", "--configfile", finished)
    code = project.folder / "cdfss" / "data" / "metrics.py"
    code.write_text(code.read_text() + "\n# a comment is no change\n")
    assert "another version of cdfss" not in project.run("-n", "--configfile", finished)
    code.write_text(code.read_text().replace("for label in (0, 1):", "for label in range(2):"))
    output = project.run("-n", "--configfile", finished)
    assert "Nothing to be done" in output
    assert (
        "results of another version of cdfss than this one (1 of rows of copy, 1 of rows of foreground)"
        in output
    )
    assert "run the same command again with -R evaluate_on_processor" in output
    # Rows of both versions are not mixed: the job that makes one of a list anew takes none of the older.
    (project.folder / ROWS.format("copy")).unlink()
    project.run("--cores", "2", "--configfile", finished)
    assert "another version of cdfss" not in project.run("-n", "--configfile", finished)
    code.write_text(code.read_text().replace("for label in range(2):", "for label in [0, 1]:"))
    assert "another version of cdfss" in project.run("-n", "--configfile", finished)
    project.run("--cores", "2", "--configfile", finished, "-R", "evaluate_on_processor")
    assert "another version of cdfss" not in project.run("-n", "--configfile", finished)


def contents(project):
    """Bytes of all results that hold no seconds, by path."""
    folder = project.folder / "results"
    apart = ("cost", "logs", "benchmarks", "kept")  # and what shows them: table 6, a figure and the page
    return prepared(folder) | {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not {*path.relative_to(folder).parts} & {*apart, "pictures"}
        and not path.name.startswith(("table6", "iou_by_seconds", "index.html"))
        and not path.name.endswith(".files.parquet")
    }


def without_recipe(path, content):
    """A result but for the names of the files that a table was made from."""
    if not path.endswith(".origin.json"):
        return content
    return {key: value for key, value in json.loads(content).items() if key != RECIPE}


def test_the_same_bytes_whatever_cores_and_order(project, finished):
    runs = []
    for cores in (2, 1):
        shutil.rmtree(project.folder / "results")
        project.run("--cores", cores, "--configfile", finished)
        runs.append(contents(project))
    first, again = runs
    assert again == first
    # In shards the rows are other files, but tables and figures are the same.
    shutil.rmtree(project.folder / "results")
    name = project.write("sharded.yaml", SMALL + "shards: 3\n")
    project.run("--cores", "2", "--configfile", name)
    sharded = contents(project)
    parts = [p for p in sharded if "rows/" in p]
    assert len(parts) == 6
    for path, content in first.items():
        if path.startswith(("table", "small/figures", "small/index", "small/episodes", "small/gallery")):
            assert without_recipe(path, sharded[path]) == without_recipe(path, content), path
    for variant in ("copy", "foreground"):
        folder = project.folder / "results" / "small" / "rows" / "mine" / variant / "1shot-seed0"
        together = pd.concat([pd.read_parquet(file) for file in sorted(folder.iterdir())])
        (project.folder / "whole.parquet").write_bytes(
            first[f"small/rows/mine/{variant}/1shot-seed0/0.parquet"]
        )
        whole = pd.read_parquet(project.folder / "whole.parquet")
        pd.testing.assert_frame_equal(together.reset_index(drop=True), whole)


def test_a_model_gives_the_same_bytes_whatever_cores_batches_and_shards(project):
    own_data(project)
    values = yaml.safe_load(SMALL) | {"variants": {"baseline": {}, "apm_s": {"modules": ["apm_s"]}}}
    values["compute"] = {"threads": 2}
    found = []
    for cores, batch, shards in ((2, "auto", 1), (1, 3, 2)):
        values["compute"]["episodes_at_once"], values["shards"] = batch, shards
        name = project.write("c.yaml", yaml.safe_dump(values, sort_keys=False))
        project.run("--cores", cores, "results/table1.csv", "--configfile", name)
        results = project.folder / "results"
        files = (
            "table1.md",
            "table1.csv",
            "small/source/0/checkpoint.safetensors",
            "small/source/0/history.parquet",
        )
        rows = [
            pd.concat(
                [pd.read_parquet(f) for f in sorted((results / "small/rows/mine" / v).rglob("*.parquet"))]
            )
            for v in values["variants"]
        ]
        found.append(([(results / file).read_bytes() for file in files], rows))
        shutil.rmtree(results)
    (first, rows), (second, others) = found
    assert first == second
    for mine, theirs in zip(rows, others, strict=True):
        pd.testing.assert_frame_equal(mine, theirs.reset_index(drop=True), check_exact=True)


def test_prepared_pictures_may_be_deleted_and_a_variant_be_added_without_running_others_again(project):
    own_data(project)
    name = project.write("small.yaml", SMALL.replace("  foreground: {method: foreground}\n", ""))
    rows = [f"results/small/rows/mine/{v}/1shot-seed0/0.parquet" for v in ("copy", "foreground")]
    output = project.run("--cores", "2", rows[0], "--configfile", name)
    assert re.search(r"pictures and \d masks at 64 px take about .* are free", output)
    seconds = project.folder / rows[0].replace("rows", "cost")  # which no second run gives again
    before = seconds.read_bytes()
    shutil.rmtree(project.folder / "results" / "small" / "pictures")
    project.write(name, SMALL)
    output = project.run("--cores", "2", *rows, "--configfile", name)
    assert "no prepared pictures" in output
    output = project.run(
        "--cores", "2", *rows, "--configfile", name, "-R", "pictures", "--until", "pictures"
    )
    assert "64 px take about" in output
    assert project.jobs(*rows, "--configfile", name) == {}
    assert seconds.read_bytes() == before
