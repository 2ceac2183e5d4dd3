"""The command line: what a person types, reads and pipes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import square_mask, write_picture
from made_rows import row, table_settings
from PIL import Image
from test_spent import benchmark

from cdfss import configuration
from cdfss.commands import status as status_command
from cdfss.commands.main import PLACES, cli, main
from cdfss.configuration import estimate
from cdfss.configuration.jobs import Jobs
from cdfss.evaluation import results
from cdfss.reports import status, tables


def run(*arguments, **how):
    return CliRunner().invoke(cli, list(map(str, arguments)), prog_name="cdfss", **how)


@pytest.mark.parametrize("name", PLACES)
def test_every_command_says_what_it_does(name):
    done = run(name, "--help")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) > 4
    assert name in run("--help").stdout


def test_help_comes_before_anything_slow_is_imported():
    code = (
        "import sys; from cdfss.commands.main import main; main(['--help'])\n"
        "sys.exit(', '.join({'torch', 'numpy', 'pandas', 'pydantic', 'snakemake'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "check" in done.stdout


def test_a_mistake_is_a_line_on_stderr_and_no_traceback(tmp_path):
    done = run("check", tmp_path / "none.yaml")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: configuration: cannot read")
    assert "begin one with cdfss init" in done.stderr


def test_a_command_that_is_not_there_is_answered_with_the_nearest():
    done = run("chek")
    assert done.exit_code == 2
    assert "did you mean check?" in done.stderr


def test_json_is_for_programs():
    assert json.loads(run("datasets", "--json").stdout)["pascal"]["licence"]
    done = run("check", "config/demo.yaml", "--json")
    assert json.loads(done.stdout) == {"file": "config/demo.yaml", "problems": []}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_each_shell(shell):
    assert "_CDFSS_COMPLETE" in run("completion", shell).stdout


def test_completion_knows_the_commands():
    environment = {"_CDFSS_COMPLETE": "bash_complete", "COMP_WORDS": "cdfss check", "COMP_CWORD": "1"}
    done = run(env=environment)
    assert {"plain,check", "plain,check-method"} <= set(done.stdout.splitlines())


def test_ctrl_c_ends_in_a_line(monkeypatch):
    from cdfss.data import places

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "registry", interrupted)
    done = run("datasets")
    assert (done.exit_code, done.stderr) == (130, "stopped\n")


# A person's own pictures.


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with two labelled pictures and two others, in which commands run."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        write_picture(tmp_path / "labelled" / "images" / f"{number}.png", (64, 48), seed=number)
        write_picture(tmp_path / "labelled" / "masks" / f"{number}.png", mask=square_mask((64, 48)))
        write_picture(tmp_path / "new" / f"q{number}.png", (80, 50), seed=9 + number)
    return tmp_path


SEGMENT = ("segment", "--supports", "labelled", "--queries", "new", "--out", "masks", "--size", "64")


def test_pictures_are_segmented_and_the_same_command_goes_on(own):
    done = run(*SEGMENT, "--write", "polygons", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")  # quiet in a pipe
    assert (found["made"], found["kept"], found["failed"]) == (["q0", "q1"], [], {})
    with Image.open("masks/q0.png") as mask:
        assert mask.size == (80, 50)
    assert os.path.exists("masks/polygons/q0.geojson")
    assert "<html" in Path("masks/report.html").read_text().lower()
    assert json.loads(Path("masks/report.json").read_text())["confidence"][0]["query"] == "q0"
    again = run(*SEGMENT, "--write", "polygons")
    assert "0 masks by ridge" in again.stdout
    assert "2 from an earlier run" in again.stdout


def test_a_bad_picture_ends_in_exit_code_1_and_the_others_are_made(own):
    (own / "new" / "bad.png").write_bytes(b"no picture")
    done = run(*SEGMENT, "--no-report")
    assert done.exit_code == 1
    assert "bad.png" in done.stderr
    assert "2 masks" in done.stdout


def test_what_is_fitted_once_segments_the_same(own):
    assert run(*SEGMENT, "--no-report").exit_code == 0
    fitted = run("fit", "--supports", "labelled", "--size", "64", "--save", "mine.cdfss", "--no-report")
    assert fitted.exit_code == 0, fitted.stderr
    with_model = ("segment", "--model", "mine.cdfss", "--queries", "new", "--out")
    assert run(*with_model, "others").exit_code == 0
    assert Path("others/q0.png").read_bytes() == Path("masks/q0.png").read_bytes()
    refused = run(*with_model, "others", "--method", "ridge")
    assert (refused.exit_code, "fitted already" in refused.stderr) == (2, True)


def test_ctrl_c_says_that_the_same_command_goes_on(own, monkeypatch):
    from cdfss.segmentation import run as segmentation

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(segmentation, "segment_all", interrupted)
    done = run(*SEGMENT)
    assert (done.exit_code, done.stderr) == (130, "stopped; the same command goes on where it was\n")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "give --supports"),
        (("--supports", "labelled", "--unknown", "grey"), "neither a whole number nor a colour"),
        (("--supports", "labelled", "--names", "road"), "is not VALUE=NAME"),
        (("--supports", "labelled", "--setting", "steps"), "is not KEY=VALUE"),
        (("--supports", "labelled", "--tile", "0"), "0 is not in the range"),
    ],
)
def test_a_command_line_that_is_not_understood_ends_in_exit_code_2(own, more, words):
    done = run("segment", "--queries", "new", "--out", "masks", *more)
    assert done.exit_code == 2
    assert words in done.stderr


def test_labelled_pictures_are_checked_and_shown(own):
    done = run("check", "labelled", "--size", "64")
    assert done.exit_code == 0, done.output
    assert os.path.exists("contact-sheet.png")
    (own / "labelled" / "masks" / "1.png").unlink()
    done = run("check", "labelled", "--json")
    assert done.exit_code == 1
    assert "1.png" in json.loads(done.stdout)["problems"][0]


# A machine and a run.


def test_the_doctor_names_what_is_missing_and_the_next_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "cdfss init" in run("doctor").stdout
    data = {"a": {"format": "fss1000", "root": "nowhere"}}
    values = {"name": "x", "image_size": 64, "backbone": "efficientnet_lite0", "data": data}
    values |= {"domains": {"a": {}}, "variants": {"copy": {"method": "copy"}}}
    values["source"] = {"data": "a", "validation": {"data": "a"}}
    (tmp_path / "x.yaml").write_text(json.dumps(values))
    found = json.loads(run("doctor", "--configfile", "x.yaml", "--json").stdout)
    assert {"what": "a", "found": "nowhere is not a folder", "state": "note"} in found["found"]
    assert found["next"] == "cdfss check x.yaml"


def test_the_doctor_looks_into_a_folder_of_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    data = {"a": {"format": "fss1000", "root": "empty"}}
    values = {"name": "x", "image_size": 64, "backbone": "efficientnet_lite0", "data": data}
    values |= {"domains": {"a": {}}, "variants": {"copy": {"method": "copy"}}}
    values["source"] = {"data": "a", "validation": {"data": "a"}}
    (tmp_path / "x.yaml").write_text(json.dumps(values))
    found = json.loads(run("doctor", "--configfile", "x.yaml", "--json").stdout)
    (line,) = (line for line in found["found"] if line["what"] == "a")
    assert line["state"] == "note"
    assert "data.a.splits: no test.txt in empty" in line["found"]
    assert found["next"] == "cdfss check x.yaml"


def paper(**changed):
    values = configuration.check_file("config/config.yaml")
    return Jobs(configuration.parse(values | changed))


def test_the_estimate_of_the_papers_run_is_the_counted_work():
    found = estimate.estimate(paper(), rate=50, cores=2)
    assert sum(part.work for part in found.parts) / 1e6 == pytest.approx(155, rel=0.05)
    assert max(found.parts, key=lambda part: part.hours).what.startswith("evaluate: ")
    assert sum(part.hours for part in found.parts) == pytest.approx(found.hours)
    on_gpus = estimate.estimate(paper(), rate=50, cores=8, gpus=8)
    assert on_gpus.hours < found.hours / 20
    assert any("not measured" in note for note in on_gpus.notes)


def test_more_gpus_do_not_shorten_a_training():
    def training(gpus):
        parts = estimate.estimate(paper(), rate=50, cores=8, gpus=gpus).parts
        (hours,) = (part.hours for part in parts if part.what.startswith("source training"))
        return hours

    assert training(8) == training(1)


def test_the_estimate_follows_size_and_backbone():
    def hours(**changed):
        return estimate.estimate(paper(**changed), rate=50, cores=2).hours

    assert hours(image_size=200) < hours() / 4
    assert hours(backbone="resnet101") > hours()


DAG = """digraph snakemake_dag {
	0[label = "all", color = "0.0 0.6 0.85", style="rounded"];
	1[label = "evaluate\\nof_source: ", color = "0.0 0.6 0.85", style="rounded,dashed"];
	2[label = "episodes\\ndomain: a\\nshot: 1", color = "0.0 0.6 0.85", style="rounded,dashed"];
	3[label = "evaluate\\nof_source: ", color = "0.0 0.6 0.85", style="rounded"];
	4[label = "episodes\\ndomain: a\\nshot: 5", color = "0.0 0.6 0.85", style="rounded,dashed"];
	5[label = "evaluate\\nof_source: ", color = "0.0 0.6 0.85", style="rounded"];
	6[label = "page", color = "0.0 0.6 0.85", style="rounded"];
	1 -> 0
	2 -> 1
	3 -> 0
	4 -> 3
	5 -> 0
	2 -> 5
	1 -> 6
	6 -> 0
}
"""


def test_the_status_tells_done_failed_and_time_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "mine"
    benchmark(folder, "evaluate/a-1shot-seed0", (10.0, 500.0, 8.0))
    benchmark(folder, "episodes/a-1shot-seed0", (1.0, 500.0, 8.0))
    log = folder / "logs" / "evaluate" / "a-5shot-seed0.attempt1.log"
    log.parent.mkdir(parents=True)
    log.write_text("device: cpu\nerror: the disk is full\n")
    table, begun, left = status.of_run(folder, DAG, at_work=False)
    counted = {"done": 1, "running": 0, "failed": 1, "stopped": 0, "waiting": 1, "all": 3}
    assert table.loc["evaluate"].to_dict() == counted
    assert "all" not in table.index
    assert begun[0].why == "the disk is full"
    # Two evaluations, of which one of each number of shots would take as long as the one that has ended.
    assert left.seconds * left.at_once == pytest.approx(20)
    assert left.unknown == ["page"]
    monkeypatch.setattr(status_command, "_dag", lambda file: DAG)
    values = {"name": "mine", "image_size": 64, "data": {"a": {"format": "fss1000"}}, "domains": {"a": {}}}
    values |= {
        "source": {"data": "a", "validation": {"data": "a"}},
        "variants": {"copy": {"method": "copy"}},
    }
    (tmp_path / "x.yaml").write_text(json.dumps(values))
    shown = run("status", "--configfile", "x.yaml").stdout
    assert "3 of 6 jobs are done (50 %)" in shown
    assert "time left: more than 0:00:" in shown
    assert "not in it, since none of these jobs has ended: page" in shown
    assert "the disk is full" in shown
    assert re.search(r"to go on: snakemake --cores \d+ --configfile x.yaml\n", shown)


def test_a_job_that_says_its_time_is_running(tmp_path):
    log = tmp_path / "logs" / "source" / "0.attempt1.log"
    log.parent.mkdir(parents=True)
    log.write_text("epoch: 3 of 10, 1.2/s, 0:01:40 left\n")
    (one,) = status.begun(tmp_path, at_work=True)
    assert (one.rule, one.state, one.left) == ("source", "running", 100)
    log.write_text("Traceback (most recent call last):\nValueError: no\n")
    assert status.begun(tmp_path, at_work=True)[0].state == "failed"
    # Another attempt ended well, and left no log of its own.
    later = log.with_name("0.log")
    later.write_text("done\n")
    os.utime(log, (1, 1))
    assert status.begun(tmp_path, at_work=True) == []


# Results and what they were made from.


@pytest.fixture
def made(tmp_path):
    """Results with table 1, made from files of rows."""
    variants = {"foreground": {"method": "foreground"}, "baseline": {"title": "Baseline"}}
    generator, files = np.random.RandomState(0), []
    for variant in variants:
        lines = [row(generator, "lungs", variant, 1, 0, episode) for episode in range(24)]
        files.append(tmp_path / "results" / "x" / "rows" / "lungs" / variant / "0.parquet")
        facts = {
            "code": "a",
            "kind": "rows",
            "index": "i",
            "settings": {"domain": "lungs", "variant": variant},
        }
        results.save(lines, files[-1], facts)
    settings = table_settings(variants, domains=("lungs",), shots=[1])
    folder = tmp_path / "results"
    write_table(folder, files, settings)
    return folder, files, settings


def write_table(folder, files, settings):
    paths = {kind: folder / f"table1.{kind}" for kind in ("md", "csv", "tex", "html")}
    paths["origin"] = folder / "table1.origin.json"
    tables.write(tables.of_files(1, files, [], [], [], settings), paths)


def findings(folder):
    done = run("verify", folder, "--json")
    wrong = [(one["file"], one["wrong"]) for one in json.loads(done.stdout)["wrong"]]
    assert done.exit_code == int(bool(wrong))
    return wrong


def test_results_that_are_what_they_say_pass(made):
    folder, _, _ = made
    assert findings(folder) == []
    assert "nothing is wrong; compared: 1 tables" in run("verify", folder).stdout


@pytest.mark.parametrize("kind", ["csv", "md", "tex", "html"])
def test_a_table_edited_by_hand_is_named_with_the_cell(made, kind):
    folder, _, _ = made
    file = folder / f"table1.{kind}"
    of_numbers = file if kind == "csv" else folder / "table1.md"
    number = re.search(r"\b\d\d\.\d+\b", of_numbers.read_text())[0]
    file.write_text(file.read_text().replace(number, "99.9", 1))
    ((named, words),) = findings(folder)
    assert named == str(file)
    assert "99.9" in words
    assert "line" in words


def test_tampered_rows_are_named_with_the_cells_that_they_change(made):
    folder, files, _ = made
    table = pq.read_table(files[1], partitioning=None)
    place = table.column_names.index("intersection_foreground")
    changed = table.set_column(place, table.field(place), [[0] * len(table)])
    pq.write_table(changed, files[1])
    wrong = dict(findings(folder))
    assert "is another file than it was" in wrong[str(files[1])]
    assert "made again" in wrong[str(folder / "table1.csv")]


def test_damaged_and_missing_files_are_named(made):
    folder, files, _ = made
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].unlink()
    (folder / "table1.tex").unlink()
    wrong = findings(folder)
    words = {file: [w for f, w in wrong if f == file] for file, _ in wrong}
    assert any("cannot be read" in text for text in words[str(files[0])])
    assert "is missing, and table 1 was made from it" in words[str(files[1])]
    assert "is missing" in words[str(folder / "table1.tex")][0]


def test_mixed_versions_are_named(made):
    folder, files, _ = made
    table = pq.read_table(files[1], partitioning=None)
    facts = json.loads(table.schema.metadata[b"cdfss"]) | {"code": "b"}
    pq.write_table(table.replace_schema_metadata({"cdfss": json.dumps(facts)}), files[1])
    wrong = dict(findings(folder))
    assert "versions of the code" in wrong[str(folder / "table1.origin.json")]
    assert "versions of the code" in wrong[str(folder / "x")]


def test_a_table_of_an_older_version_is_said_to_be_left_out(made):
    folder, _, _ = made
    file = folder / "table1.origin.json"
    found = json.loads(file.read_text())
    found.pop("made again from")
    file.write_text(json.dumps(found))
    said = run("verify", folder).stdout
    assert "not compared" in said
    assert "nothing is wrong in what was compared, and 1 could not be" in said
    assert "1 tables" not in said


def test_an_origin_that_its_rows_contradict_is_named(made):
    folder, _, _ = made
    file = folder / "table1.origin.json"
    told = json.loads(file.read_text())
    told["made from"]["code"] = ["rows b"]
    file.write_text(json.dumps(told))
    wrong = dict(findings(folder))
    assert "says code: ['rows b']; its files say ['rows a']" in wrong[str(file)]


@pytest.mark.parametrize("recipe", ["x", {}, {"settings": {}, "rows": {}}, {"settings": {}, "rows": ["a"]}])
def test_a_damaged_origin_is_a_finding(made, recipe):
    folder, _, _ = made
    file = folder / "table1.origin.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"made again from": recipe}))
    assert str(file) in dict(findings(folder))


def test_a_folder_without_results_is_refused(tmp_path):
    done = run("verify", tmp_path)
    assert (done.exit_code, "neither tables nor runs" in done.stderr) == (1, True)


def test_the_folder_of_one_run_is_refused_since_tables_lie_beside_it(tmp_path):
    (tmp_path / "x" / "rows").mkdir(parents=True)
    (tmp_path / "x" / "kept" / "rows").mkdir(parents=True)
    done = run("verify", tmp_path / "x")
    assert (done.exit_code, "in which table1.md lies" in done.stderr) == (1, True)


def test_init_overwrites_nothing(tmp_path):
    assert run("init", tmp_path / "mine").exit_code == 0
    assert (tmp_path / "mine" / "config" / "config.yaml").is_file()
    done = run("init", tmp_path / "mine")
    assert (done.exit_code, "would be overwritten" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--names", "1=a", "--names", "1=b"], "--names says twice"),
        (["--unknown", "²"], "neither a whole number"),
        (["--save", "."], "is a directory"),
    ],
)
def test_what_is_said_twice_or_cannot_be_is_no_command_line(more, words, capsys):
    assert main(["fit", "--supports", "x", "--save", "y.cdfss", *more]) == 2
    assert words in capsys.readouterr().err
