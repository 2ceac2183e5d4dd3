"""What the workflow plans, refuses and runs again; nothing heavy is computed here."""

import itertools
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import square_mask, write_picture

from cdfss.reports.catalogue import TABLES

from .conftest import ROOT

SMALL = """
name: small
title: Small
image_size: 64
backbone: efficientnet_lite0
shots: [1]
data:
  source: {format: pascal, synthetic: everyday}
  mine: {format: folder, root: mine}
source:
  data: source
  validation: {data: source, split: trn, episodes: 2}
  epochs: 1
domains:
  mine: {episodes: 4}
adaptation: {steps: 1, learning_rate: 0.01}
variants:
  copy: {method: copy}
  foreground: {method: foreground}
"""


def own_data(project, pictures=4):
    for number in range(pictures):
        write_picture(project.folder / "mine" / "images" / f"{number}.jpg", seed=number)
        write_picture(project.folder / "mine" / "masks" / f"{number}.png", mask=square_mask())


def with_models(project):
    values = yaml.safe_load(SMALL)
    values["variants"] = {"baseline": {}, "apm_s": {"modules": ["apm_s"]}, "apm_m": {"modules": ["apm_m"]}}
    return project.write("models.yaml", yaml.safe_dump(values, sort_keys=False))


def test_the_papers_run_is_planned_with_nothing_there(project):
    before = os.times()
    jobs = project.jobs()
    after = os.times()
    # Of the processor, for a busy machine is none of the plan's fault.
    seconds = after.children_user + after.children_system
    assert seconds - before.children_user - before.children_system < 30
    # One for each list of all variants that need the same.
    families = ("evaluate", "evaluate_untrained", "evaluate_on_processor")
    assert [jobs[family] for family in families] == [4 * 2] * 3
    assert jobs["episodes"] == 4 * 2
    assert jobs["pictures"] == 4 * 2 + 2  # of each list, and what a source model is trained and tried on
    assert (jobs["download"], jobs["index"]) == (5, 6)  # FSS-1000's test and validation split
    assert jobs["source"] == jobs["backbone"] == jobs["page"] == 1
    assert (jobs["table"], jobs["figure"], jobs["episode_grid"]) == (9, 11, 8)
    assert (jobs["features"], jobs["filtering"]) == (4, 4)
    jobs = project.jobs("results/table1.md")
    assert (jobs["evaluate"], jobs["table"]) == (8, 1)
    assert {"features", "filtering", "figure"}.isdisjoint(jobs)
    assert "evaluate" not in project.jobs("results/table3.md")
    assert project.jobs("--cores", "8", "--resources", "gpu=2")["evaluate"] == 8
    assert not (project.folder / "data").exists()


def test_every_shipped_configuration_is_planned(project):
    for path in sorted((project.folder / "config").glob("*.yaml")):
        assert project.jobs("--configfile", path)["table"] == 9


def test_a_file_without_a_name_adds_to_the_papers_run(project):
    jobs = project.jobs("--configfile", "config/extended.yaml")
    hosts = ("evaluate", "evaluate_untrained", "evaluate_patnet", "evaluate_fptrans")
    assert [jobs[family] for family in hosts] == [4 * 2] * 4
    assert jobs["evaluate_on_processor"] == 4 * 2
    assert jobs["features"] == 4
    assert (jobs["source"], jobs["backbone"]) == (3, 2)
    # Table 1 is about the main variants alone, of which FPTrans has none.
    jobs = project.jobs("results/table1.md", "--configfile", "config/extended.yaml")
    assert "evaluate_patnet" in jobs
    assert "evaluate_fptrans" not in jobs
    assert project.jobs("--config", "name=other")["evaluate"] == 8
    roots = project.write("roots.yaml", "shots: [1]\ndata: {chestxray: {root: lungs}}\n")
    jobs = project.jobs("--configfile", roots)
    assert (jobs["evaluate"], jobs["download"]) == (4, 4)


def test_the_docs_example_of_ones_own_pictures_is_planned(project):
    page = (ROOT / "docs" / "how-to" / "own-pictures.md").read_text()
    (block,) = re.findall(r'```yaml title="mine.yaml"\n(.*?)```', page, re.S)
    mine = project.write("mine.yaml", block.replace("root: pictures", "root: mine"))
    for kind in ("images", "masks"):  # as the page says: <folder>/<class>/
        write_picture(project.folder / "mine" / "roof" / kind / "0.png", mask=square_mask())
    jobs = project.jobs("results/table1.md", "--configfile", mine)
    assert (jobs["evaluate"], jobs["evaluate_on_processor"]) == (5 * 2, 5 * 2)


def test_added_variants_come_after_those_of_the_default(project):
    own_data(project)
    project.write("config/config.yaml", SMALL)
    more = project.write("more.yaml", "variants: {again: {method: copy}}\n")
    project.run("--cores", "2", "results/table1.csv", "--configfile", more)
    table = (project.folder / "results" / "table1.csv").read_text()
    places = [table.index(name) for name in ("copy", "foreground", "again")]
    assert places == sorted(places)


def test_only_lists_that_start_anew_are_split_into_shards(project):
    own_data(project)
    values = yaml.safe_load(SMALL) | {"shards": 2}
    values["variants"] = {
        "apm_s": {"modules": ["apm_s"]},
        "through": {"modules": ["apm_s"], "steps": 1, "reset": "never"},
    }
    name = project.write("sharded.yaml", yaml.safe_dump(values, sort_keys=False))
    jobs = project.jobs("--configfile", name)
    assert (jobs["evaluate"], jobs["evaluate_in_order"]) == (2, 1)


def test_a_dry_run_warns_of_what_is_missing(project, monkeypatch):
    for key in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    output = project.run("-n", KAGGLE_CONFIG_DIR=str(project.folder))
    assert "missing: data.chestxray: needs a Kaggle account" in output


def test_unlocking_says_nothing_of_what_is_missing(project):
    assert "missing" not in project.run("--unlock", KAGGLE_CONFIG_DIR=str(project.folder))


def test_another_working_folder_takes_the_default_beside_the_workflow(project, tmp_path):
    more = project.write("more.yaml", "shots: [1]\n")
    arguments = ("--directory", tmp_path / "elsewhere", "--configfile", more)
    assert project.jobs(*arguments)["evaluate"] == 4


def test_a_run_stops_before_its_first_job_and_lists_everything_missing(project, monkeypatch):
    values = yaml.safe_load((project.folder / "config" / "config.yaml").read_text())
    values["data"]["isic2018"]["root"] = "/nowhere/isic"
    values["data"]["fss1000"]["root"] = "/nowhere/fss"
    for key in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    name = project.write("c.yaml", yaml.safe_dump(values))
    output = project.run(
        "--cores", "1", "--configfile", name, check=False, KAGGLE_CONFIG_DIR=str(project.folder)
    )
    refusal = output[output.index("WorkflowError") :]
    assert "3 of the inputs are missing" in refusal
    assert "data.fss1000.root: /nowhere/fss is not a folder" in refusal
    assert "data.isic2018.root: /nowhere/isic is not a folder" in refusal
    assert "data.chestxray: needs a Kaggle account" in refusal
    assert "Traceback" not in output
    assert "localrule" not in output
    assert not re.search(r"^rule \w+:", output, re.M)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shotz": [1]}, "shotz is not a key; did you mean 'shots'?"),
        ({"shots": [-1]}, "shots.0 is -1"),
        ({"domains": {"isic": {}}}, "domains.isic: 'isic' is not in data"),
        ({"variants": {"a": {"modules": ["q"]}}}, "variants.a.modules.0: module 'q' is unknown"),
        ({"name": "a b"}, "name is 'a b'"),
    ],
)
def test_a_wrong_configuration_is_one_message_even_in_a_dry_run(project, change, message):
    name = project.write("c.yaml", yaml.safe_dump(yaml.safe_load(SMALL) | change))
    output = project.run("-n", "--configfile", name, check=False, CUDA_VISIBLE_DEVICES="")
    assert message in output
    assert "Traceback" not in output


def test_cuda_is_planned_anywhere_but_a_local_run_refuses_to_start_without(project):
    own_data(project)
    name = project.write("c.yaml", SMALL + "device: cuda\n")
    assert project.jobs("--configfile", name)["evaluate_on_processor"] == 1
    output = project.run("--cores", "1", "--configfile", name, check=False, CUDA_VISIBLE_DEVICES="")
    assert "device: cuda is configured, but this machine shows no GPU" in output
    assert not (project.folder / "results").exists()


def test_more_shots_than_pictures_in_a_class_are_refused_before_any_job(project):
    own_data(project, 3)
    name = project.write("c.yaml", SMALL.replace("shots: [1]", "shots: [1, 5]"))
    output = project.run("--cores", "1", "--configfile", name, check=False)
    assert "shots is [1, 5]: classes of mine must have at least 5 pictures" in output
    assert "mine (3)" in output
    assert not (project.folder / "results").exists()


def test_a_run_without_a_model_ends_in_a_table_and_starts_nothing_twice(project):
    own_data(project)
    name = project.write("c.yaml", SMALL)
    assert "source" not in project.jobs("--configfile", name)
    project.run("--cores", "2", "--configfile", name)
    table = (project.folder / "results" / "table1.md").read_text()
    assert table.startswith("# Small: ")
    assert "100.00" in table  # all masks are the same square: copying it is perfect
    assert (project.folder / "results" / "small" / "figures" / "episodes-mine-1shot.png").exists()
    assert "Nothing to be done" in project.run("--cores", "2", "--configfile", name)

    # A touched script or picture runs nothing again; a deleted figure comes back with the page alone.
    for path in (project.folder / "workflow" / "scripts").rglob("*.py"):
        path.touch()
    assert project.jobs("--configfile", name) == {}
    figures = project.folder / "results" / "small" / "figures"
    rows = "../rows/mine/copy/1shot-seed0/0.parquet"
    for file, rule in (
        ("episodes-mine-1shot.svg", "episode_grid"),
        ("class_iou.png", "figure"),
    ):
        (figures / file).unlink()
        # With the page, which refuses figures of another state than its tables.
        assert project.jobs("--configfile", name) == {rule: 1, "page": 1, "all": 1, "total": 3}
        project.run("--cores", "2", "--configfile", name)
    assert "Nothing to be done" in project.run("--cores", "2", "--configfile", name)

    (figures / rows).unlink()
    assert project.jobs("--configfile", name)["evaluate_on_processor"] == 1

    # What a run without a model cannot show is said, in tables, figures and on the page.
    results = project.folder / "results"
    for number in TABLES:
        text = (results / f"table{number}.md").read_text()
        assert "Not in this " in text or number == 6
    page = (results / "index.html").read_text()
    assert "Not in this run: a variant of HSNet." in page
    assert (figures / "filtering.png").exists()


def test_bad_pictures_stop_the_index_with_a_list_and_no_traceback(project):
    own_data(project)
    (project.folder / "mine" / "images" / "1.jpg").write_text("no picture")
    (project.folder / "mine" / "masks" / "2.png").unlink()
    output = project.run("--cores", "1", "--configfile", project.write("c.yaml", SMALL), check=False)
    assert "images/1.jpg: image cannot be read" in output
    assert "images/2.jpg: image without a mask" in output
    assert "Traceback" not in output
    assert "on_bad_pair: skip" in (project.folder / "results/small/logs/index/mine-test.log").read_text()


STAND_IN = """
import itertools
import pathlib
import pyarrow
import pyarrow.parquet
from cdfss.running import provenance
variants = snakemake.params.get("variants") or {"": None}
for path, settings in zip(map(pathlib.Path, snakemake.output), itertools.cycle(variants.values())):
    folder = path if not path.suffix else path.parent
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":  # with what a plan reads of it
        table = pyarrow.table({"x": ["x"]})
        pyarrow.parquet.write_table(provenance.with_facts(table, {"settings": settings}), path)
    else:
        (path / "x" if not path.suffix else path).write_bytes(b"x")
"""


def finish(project, name):
    """Run with stand-ins for the finished files, recorded with the parameters of a configuration."""
    for path in (project.folder / "workflow" / "scripts").rglob("*.py"):
        if path.name not in ("generate.py", "index.py"):
            path.write_text(STAND_IN)
    project.run("--cores", "2", "--configfile", name)
    assert project.jobs("--configfile", name) == {}


def test_one_variants_learning_rate_plans_that_variant_alone(project):
    own_data(project)
    name = with_models(project)
    values = yaml.safe_load((project.folder / name).read_text())
    values["variants"]["acpa"] = {"modules": ["acpa"], "main": False}
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    assert project.jobs("--configfile", name)["evaluate"] == 1
    finish(project, name)
    values["variants"]["apm_s"]["learning_rate"] = 0.5
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    jobs = project.jobs("--configfile", name)
    assert (jobs["evaluate"], jobs["features"]) == (1, 1)
    assert {"source", "index", "episodes", "filtering"}.isdisjoint(jobs)
    values["variants"]["apm_s"].pop("learning_rate")
    # What its job makes besides stays as it is, and with it all that shows only others.
    values["variants"]["acpa"]["learning_rate"] = 0.5
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    jobs = project.jobs("--configfile", name)
    assert jobs == {"evaluate": 1, "table": 2, "figure": 1, "page": 1, "all": 1, "total": 6}
    values["variants"]["acpa"].pop("learning_rate")
    # In another order they are the same.
    values["variants"] = dict(reversed(values["variants"].items()))
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    assert {"evaluate", "features"}.isdisjoint(project.jobs("--configfile", name))
    values["variants"] = dict(reversed(values["variants"].items()))
    # The filter's radius concerns the filtered pictures and what shows them.
    values["analysis"] = {"radius": 0.2}
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    jobs = project.jobs("--configfile", name)
    assert jobs == {"filtering": 1, "table": 1, "figure": 1, "page": 1, "all": 1, "total": 5}
    values.pop("analysis")
    # Nor is a change missed where a variant was added that the table does not show.
    values["variants"]["apm_s"]["learning_rate"] = 0.5
    values["variants"]["both"] = {"modules": ["apm_s", "acpa"], "main": False}
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    assert project.jobs("results/table1.md", "--configfile", name)["evaluate"] == 1
    values["variants"].pop("both")
    values["variants"]["apm_s"].pop("learning_rate")
    # A touched checkpoint loses no finished evaluation.
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    (project.folder / "results" / "small" / "source" / "0" / "checkpoint.safetensors").touch()
    assert project.jobs("--configfile", name) == {}


def test_another_seed_of_the_source_plans_its_training_and_evaluations_alone(project):
    own_data(project)
    values = yaml.safe_load((project.folder / with_models(project)).read_text())
    values["variants"] = {"copy": {"method": "copy"}, "baseline": {}, "apm_s": {"modules": ["apm_s"]}}

    def seeds(*given):
        values["source"]["seeds"] = list(given)
        return project.write("c.yaml", yaml.safe_dump(values, sort_keys=False))

    def of_models(name):
        jobs = project.jobs("--configfile", name)
        return {rule: jobs.get(rule, 0) for rule in ("source", "evaluate", "evaluate_on_processor")}

    assert of_models(seeds(0)) == {"source": 1, "evaluate": 1, "evaluate_on_processor": 1}
    assert of_models(seeds(0, 7)) == {"source": 2, "evaluate": 2, "evaluate_on_processor": 1}
    finish(project, seeds(0, 7))
    results = project.folder / "results" / "small"
    assert {path.name for path in (results / "source").iterdir()} == {"0", "7"}
    assert {path.name for path in (results / "rows" / "mine" / "apm_s").iterdir()} == {
        "1shot-seed0-source0",
        "1shot-seed0-source7",
    }
    assert [path.name for path in (results / "rows" / "mine" / "copy").iterdir()] == ["1shot-seed0"]
    # What is of the first source model, measurements and pictures of episodes, stays as it is.
    jobs = project.jobs("--configfile", seeds(0, 7, 2))
    of_rows = {"source": 1, "evaluate": 1, "training_history": 1, "page": 1, "all": 1}
    assert of_rows.items() <= jobs.items()
    assert set(jobs) == {*of_rows, "table", "figure", "total"}
    assert of_models(seeds(0)) == {"source": 0, "evaluate": 0, "evaluate_on_processor": 0}
    assert of_models(seeds(0, 5)) == {"source": 1, "evaluate": 1, "evaluate_on_processor": 0}


def test_each_host_is_trained_by_itself_or_given(project):
    own_data(project)
    values = yaml.safe_load((project.folder / with_models(project)).read_text())
    values["variants"] = {"baseline": {}, "patnet": {"method": "patnet"}}

    def plan(**source):
        changed = values | {"source": values["source"] | source}
        return project.jobs("--configfile", project.write("c.yaml", yaml.safe_dump(changed)))

    jobs = plan()
    evaluating = ("evaluate", "evaluate_patnet")
    assert [jobs[rule] for rule in ("source", *evaluating)] == [2, 1, 1]
    assert "given_source" not in jobs
    (project.folder / "m.safetensors").touch()
    jobs = plan(patnet={"checkpoint": "m.safetensors"})
    assert [jobs[rule] for rule in ("source", "given_source", *evaluating)] == [1, 1, 1, 1]
    finish(project, "c.yaml")
    sources = project.folder / "results" / "small" / "source"
    assert {path.name for path in sources.iterdir()} == {"0", "patnet-given"}
    assert plan(patnet={"checkpoint": "m.safetensors"}) == {}
    # A change of one host's training touches nothing of another's.
    jobs = plan(patnet={"epochs": 3})
    assert (jobs["source"], jobs["evaluate_patnet"], "evaluate" in jobs) == (1, 1, False)
    jobs = plan(patnet={"checkpoint": "m.safetensors"}, epochs=9)
    assert (jobs["source"], jobs["evaluate"], "evaluate_patnet" in jobs) == (1, 1, False)


SLOW = """
import pathlib, time
begin = time.monotonic()
time.sleep(1)
for path in map(pathlib.Path, snakemake.output):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
with open("times", "a") as file:
    file.write(f"{begin} {time.monotonic()}\\n")
"""


def test_gpu_jobs_are_limited_to_the_gpus_that_there_are(project):
    own_data(project)
    name = with_models(project)
    smi = project.folder / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'GPU 0: Test (UUID: GPU-00000000-0000-0000-0000-000000000000)'\n")
    smi.chmod(0o755)
    path = f"{smi.parent}:{os.environ['PATH']}"
    several = ("--cores", "4", "--configfile", name, "--resources", "gpu=2")
    output = project.run(*several, check=False, PATH=path)
    assert "--resources gpu=2 asks for more GPUs than the 1 that this machine shows" in output
    assert "use --resources gpu=1: GPU-00000000" in output
    assert not (project.folder / "results").exists()
    for script in (project.folder / "workflow" / "scripts").rglob("*.py"):
        script.write_text(SLOW.replace("\ntime.sleep(1)", "").replace('"times"', "'/dev/null'"))
    (project.folder / "workflow" / "scripts" / "evaluate.py").write_text(SLOW)
    # Without the default profile nothing limits them but the workflow itself.
    values = yaml.safe_load((project.folder / name).read_text()) | {"shards": 3}
    project.write(name, yaml.safe_dump(values, sort_keys=False))
    rows = [f"results/small/rows/mine/apm_s/1shot-seed0-source0/{shard}.parquet" for shard in range(3)]
    project.run("--cores", "16", *rows, "--workflow-profile", "none", "--configfile", name, PATH=path)
    times = sorted(
        tuple(map(float, line.split())) for line in (project.folder / "times").read_text().split("\n")[:-1]
    )
    assert len(times) == 3
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))


def test_an_existing_checkpoint_replaces_the_training(project):
    own_data(project)
    values = yaml.safe_load((project.folder / with_models(project)).read_text())
    values["source"]["checkpoint"] = "trained.safetensors"
    name = project.write("c.yaml", yaml.safe_dump(values, sort_keys=False))
    output = project.run("--cores", "1", "--configfile", name, check=False)
    assert "source.checkpoint: trained.safetensors is not a file" in output
    (project.folder / "trained.safetensors").write_bytes(b"x")
    jobs = project.jobs("--configfile", name)
    assert jobs["index"] == jobs["given_source"] == 1
    assert jobs["evaluate"] == 1
    assert "generate" not in jobs
    assert "1shot-seed0/0.parquet" in project.run("-n", "--configfile", name)
    assert project.jobs("results/small/source/given/checkpoint.safetensors", "--configfile", name)


def test_every_rule_states_its_log_benchmark_threads_memory_and_time():
    assert len(list((ROOT / "workflow" / "rules").glob("*.smk"))) == 7
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", path.read_text(), flags=re.M)[1:]:
            name = rule.split(":")[0].strip() or path.stem
            for directive in ("message", "log", "benchmark", "threads", "conda", "script"):
                assert re.search(rf"^ +{directive}:", rule, re.M), f"{name} has no {directive}"
            assert "mem_mb=" in rule
            assert "runtime=" in rule
        assert not re.search(r"^ +run:", path.read_text(), re.M)


def test_scripts_hold_no_logic():
    for path in (ROOT / "workflow" / "scripts").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(for|if|while|def|class|try|lambda)\b", text, re.M), path.name
        assert "with job(snakemake.log[0]" in text


def test_environment_and_package_ask_for_the_same():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs" / "cdfss.yaml").read_text())["dependencies"]
    assert environment[-1]["pip"] == project["dependencies"]
    assert f"python {project['requires-python']}" in environment


def test_lint_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_interrupted_generation_does_not_stop_the_next_run(project):
    own_data(project)
    values = yaml.safe_load(SMALL)
    values["data"]["lungs"] = {"format": "chestxray", "synthetic": "lungs"}
    values["domains"] = {"lungs": {"episodes": 2}}
    (project.folder / "data" / "lungs" / "synthetic-lungs" / "raw").mkdir(parents=True)
    name = project.write("c.yaml", yaml.safe_dump(values))
    project.run("--cores", "2", "--configfile", name)
    # How bad files are treated concerns nothing where there are none.
    values["data"]["lungs"]["on_bad_pair"] = "skip"
    project.write(name, yaml.safe_dump(values))
    assert project.jobs("--configfile", name) == {}


def test_every_rule_on_a_gpu_has_its_partition_in_the_slurm_profile():
    on_gpu = set()
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", path.read_text(), flags=re.M)[1:]:
            if "gpu=GPUS" in rule:
                on_gpu.add(rule.split(":")[0].strip() or path.stem)
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    placed = {rule for rule, asked in profile["set-resources"].items() if asked.get("gpu")}
    assert on_gpu == {"source", "evaluation", "features", "filtering"}
    # Names of evaluation rules: test_slurm.test_the_profile_names_rules_that_there_are.
    assert placed >= {"source", "evaluate", "features", "filtering"}
