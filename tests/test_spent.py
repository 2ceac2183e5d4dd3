"""What a run has taken: benchmarks by rule, room by folder."""

import pytest

from cdfss import CdfssError
from cdfss.commands.main import main
from cdfss.data import index
from cdfss.reports import spent

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(folder, name, *lines):
    path = folder / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{s}\t0:00:01\t{rss}\t9\t9\t9\t0\t0\t50\t{cpu}\n" for s, rss, cpu in lines]
    path.write_text(HEAD + "".join(lines))


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / "results" / "mine"
    benchmark(run, "evaluate/a-1shot", (10.0, 500.0, 8.0))
    benchmark(run, "evaluate/b-1shot", (30.0, 200.0, 25.0))
    benchmark(run, "page", (0.1, "NA", "NA"))  # over before Snakemake looked
    return run


def test_jobs_are_summed_by_rule(folder):
    rules = spent.by_rule(folder)
    assert rules.loc["evaluate"].to_dict() == {
        "jobs": 2,
        "seconds": 40,
        "longest": 30,
        "cpu_seconds": 33,
        "memory_mb": 500,
    }
    assert rules.loc["page", ["jobs", "seconds"]].tolist() == [1, 0.1]
    assert rules.loc["page", ["cpu_seconds", "memory_mb"]].isna().all()


def test_folders_of_the_run_and_of_its_data_are_measured(folder, settings, folder_data):
    index.build(settings(folder_data), folder / "index" / "mine" / "test.parquet", 1, lambda line: None)
    (folder / "rows").mkdir()
    (folder / "rows" / "a.parquet").write_bytes(bytes(3_000_000))
    folders = spent.by_folder(folder)
    assert folders.loc[str(folder / "rows")].tolist() == [1, pytest.approx(3, abs=0.1)]
    assert folders.loc[str(folder_data), "files"] == 24
    # What is gone, or moved, takes no room.
    folder_data.rename(folder_data.with_name("moved"))
    assert str(folder_data) not in spent.by_folder(folder).index


def test_the_command_prints_both_and_says_what_was_not_measured(folder, capsys):
    assert main(["spent", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "evaluate",
        "2",
        "40",
        "30",
        "33",
        "500",
    ]
    assert any(line.startswith("| page ") and line.count("not measured") == 2 for line in lines)
    assert any(str(folder / "benchmarks") in line for line in lines)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_benchmarks_is_said(there, tmp_path, capsys):
    folder = tmp_path / "results" / "mine"
    if there:
        (folder / "benchmarks").mkdir(parents=True)
    assert main(["spent", str(folder)]) == 1
    assert f"error: {folder}/benchmarks holds no benchmark" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "a\tb\n1\t2\n", "\0\0"])
def test_a_file_that_is_no_benchmark_is_named(text, folder):
    (folder / "benchmarks" / "evaluate" / "a-1shot.tsv").write_text(text)
    with pytest.raises(CdfssError, match=r"a-1shot\.tsv is no benchmark"):
        spent.by_rule(folder)
