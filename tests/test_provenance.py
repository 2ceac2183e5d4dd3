"""Files say what they were made from, and those that do not belong together are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_rows import row, table_settings
from PIL import Image

from cdfss import CdfssError
from cdfss.evaluation import results
from cdfss.methods import hosts
from cdfss.reports import page, tables
from cdfss.reports.figures import style
from cdfss.running import provenance
from cdfss.running.files import replacing

FACTS = {"index": "i1", "episodes": "e1", "checkpoint": "c1", "code": "k1", "kind": "rows"}
FACTS |= {"method": "hsnet", "method_codes": {"hsnet": "h1"}}
SETTINGS = {"domain": "lungs", "variant": "baseline", "shot": 1, "seed": 0, "image_size": 64}
SETTINGS |= {"precision": "float32", "backbone": "resnet50", "steps": 0, "shard": 0, "shards": 1}


def rows_file(folder, variant="baseline", seconds=0, settings=None, **facts):
    """A file of rows with these facts, changed so many seconds ago."""
    generator = np.random.RandomState(0)
    path = folder / f"{variant}-{len(list(folder.iterdir()))}.parquet"
    facts = FACTS | facts | {"settings": SETTINGS | {"variant": variant} | (settings or {})}
    results.save([row(generator, "lungs", variant, 1, 0, e) for e in range(3)], path, facts)
    os.utime(path, (1e9 - seconds, 1e9 - seconds))
    return path


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"index": "i2"}, "pictures of lungs"),
        ({"episodes": "e2"}, "episode lists of lungs, 1, 0"),
        ({"checkpoint": "c2"}, "source models"),
        ({"code": "k2"}, "versions of the code of rows"),
        ({"method_codes": {"hsnet": "h2"}}, "versions of the method of hsnet"),
        ({"settings": {"image_size": 96}}, "image sizes"),
        ({"settings": {"precision": "tf32"}}, "precisions"),
        ({"settings": {"backbone": "vgg16"}}, "backbones"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused_with_the_older_files(change, what, tmp_path):
    new = rows_file(tmp_path)
    old = rows_file(tmp_path, "apm_s", seconds=60, **change)
    with pytest.raises(CdfssError) as error:
        results.load([old, new])
    text = str(error.value)
    assert f"{what} differ" in text
    assert f"The older 1: {old}. Delete these and run the same command again" in text
    with pytest.raises(CdfssError, match="differ"):
        provenance.summary([new, old])
    assert len(results.load([new])) == len(results.load([old])) == 3


def test_shards_of_one_list_with_other_settings_are_refused(tmp_path):
    rows_file(tmp_path, settings={"shard": 0, "steps": 5})
    rows_file(tmp_path, settings={"shard": 1, "steps": 6})
    with pytest.raises(CdfssError, match="settings of lungs, baseline, 1, 0 differ"):
        results.load(tmp_path)


def of_source(seed, checkpoint, training="t1"):
    return {"settings": {"source": seed}, "checkpoint": checkpoint, "training": training}


def test_source_models_differ_between_the_seeds_of_one_training_alone(tmp_path):
    first, other = (rows_file(tmp_path, **of_source(seed, f"c{seed}")) for seed in (0, 1))
    measured = rows_file(tmp_path, "apm_s", **of_source(1, "c1"))
    provenance.must_agree(provenance.facts_of([first, other, measured]))
    assert provenance.summary([first, other])["made from"]["checkpoint of rows"] == [
        "source seed 0 c0",
        "source seed 1 c1",
    ]
    for change, what in (
        (of_source(1, "c2"), "source models of source seed 1"),
        (of_source(2, "c2", "t2"), "source trainings"),  # of other epochs, say
        (of_source(None, "c2", "given"), "source trainings"),
    ):
        wrong = rows_file(tmp_path, "apm_m", seconds=60, **change)
        with pytest.raises(CdfssError) as error:
            provenance.must_agree(provenance.facts_of([first, other, measured, wrong]))
        assert f"{what} differ" in str(error.value)
        assert f"The older 1: {wrong}. Delete these" in str(error.value)


def test_each_host_has_one_model_and_each_module_code_of_its_own(tmp_path):
    def of_host(name, host, checkpoint):
        facts = {"checkpoint": checkpoint, "training": f"of {checkpoint}", "method_codes": {host: "1"}}
        settings = {"variant": name, "host": host, "backbone": f"of {host}"}
        return rows_file(tmp_path, name, settings=settings, **facts)

    files = [of_host("a", "patnet", "p"), of_host("b", "fptrans", "f")]
    provenance.must_agree(provenance.facts_of(files))
    found = provenance.summary(files)["made from"]
    assert found["checkpoint of rows"] == ["fptrans f", "patnet p"]
    assert found["training of rows"] == ["fptrans of f", "patnet of p"]
    files.append(of_host("c", "patnet", "other"))
    with pytest.raises(CdfssError, match="source models of patnet differ"):
        provenance.must_agree(provenance.facts_of(files))

    def with_modules(name, **codes):
        return rows_file(tmp_path, name, settings={"variant": name}, method_codes=codes)

    files = [with_modules("d", hsnet="1", apm_s="2"), with_modules("e", hsnet="1", dff="3")]
    provenance.must_agree(provenance.facts_of(files))
    assert provenance.summary(files)["made from"]["methods"] == ["apm_s 2", "dff 3", "hsnet 1"]
    for other, what in (({"hsnet": "1", "dff": "4"}, "dff"), ({"hsnet": "5"}, "hsnet")):
        with pytest.raises(CdfssError, match=f"versions of the method of {what} differ"):
            provenance.must_agree(provenance.facts_of([*files, with_modules("f", **other)]))


def test_shards_of_one_list_and_source_seed_with_other_settings_are_refused(tmp_path):
    for seed, steps in ((0, 5), (1, 5), (1, 6)):
        facts = of_source(seed, f"c{seed}")
        facts["settings"] |= {"steps": steps, "shard": steps}
        rows_file(tmp_path, **facts)
    with pytest.raises(CdfssError, match="settings of lungs, baseline, 1, 0, source seed 1 differ"):
        results.load(tmp_path)


def test_rows_with_and_without_a_model_and_of_several_domains_belong_together(tmp_path):
    rows_file(tmp_path)
    trivial = {key: SETTINGS[key] for key in ("domain", "shot", "seed", "image_size")}
    path = tmp_path / "copy.parquet"
    facts = {"index": "i1", "episodes": "e1", "code": "k1", "kind": "rows"}
    facts |= {"method": "copy", "method_codes": {"copy": "t1"}}
    lines = [row(np.random.RandomState(0), "lungs", "copy", 1, 0, e) for e in range(3)]
    results.save(lines, path, facts | {"settings": trivial | {"variant": "copy"}})
    other = [row(np.random.RandomState(0), "cells", "baseline", 1, 0, 0)]
    more = {"index": "i2", "episodes": "e2", "settings": SETTINGS | {"domain": "cells"}}
    results.save(other, tmp_path / "cells.parquet", FACTS | more)
    assert len(results.load(tmp_path)) == 7


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", None])
def test_a_damaged_file_is_named_with_what_to_do(content, tmp_path):
    path = rows_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    for call in (results.load, provenance.read_schema, provenance.read_table):
        with pytest.raises(CdfssError, match=r"baseline-0\.parquet cannot be read .* Delete it and run"):
            call(path)


def test_the_digest_of_the_code_goes_by_what_it_does():
    source = b'"""About."""\nimport os\n\n\ndef f(x):\n    """Doubles."""\n    return 2 * x  # twice\n'
    same = b"import os\ndef f(x):\n\n    return (2 *\n        x)\n"
    for other, equal in (
        (same, True),
        (same.replace(b"2", b"3"), False),
        (same.replace(b"x", b"y"), False),
    ):
        assert (provenance._meaning(source) == provenance._meaning(other)) == equal
    strings = (b"f('a')\n", b"f(b'a')\n", b"f(None)\n", b"f(True)\n", b"f(1)\n", b"f(1.5)\n", b"f()\n")
    assert len({json.dumps(provenance._meaning(s)) for s in strings}) == len(strings)


def modules_behind(*modules):
    """Modules of the package whose change changes the digest of these."""
    found = set()

    def counted(file):
        found.add(".".join(file.relative_to(provenance.PACKAGE).with_suffix("").parts))
        return original(file)

    original = provenance._code_of
    provenance._code_of = counted
    try:
        provenance.code.__wrapped__(*modules)
    finally:
        provenance._code_of = original
    return found


def test_every_module_that_decides_numbers_counts():
    """And no other: a new method changes no rows of old ones."""
    rows = {"evaluation.evaluate", "data.metrics", "data.pictures", "methods.calling", "methods.contract"}
    hsnet = {f"methods.hsnet.{name}" for name in ("method", "model", "learner", "hypercorrelation")}
    hsnet |= {f"methods.hsnet.{name}" for name in ("convolution4d", "adaptation", "information")}
    hsnet |= {"methods.hsnet.checkpoints", "methods.frequency", "running.precision"}
    assert modules_behind(*provenance.CODE["rows"]) >= rows
    assert not modules_behind(*provenance.CODE["rows"], "methods.trivial") & hsnet - {"running.precision"}
    found = modules_behind("methods.hsnet.method")
    assert found >= hsnet
    assert not {name for name in found if name.startswith(("data.formats", "reports", "configuration"))}
    assert not found & {"methods.trivial", "methods.ridge", "methods.prototypes", "methods.known"}
    assert "methods.hsnet.training" not in found
    assert modules_behind(*provenance.CODE["measurements"]) >= {
        "evaluation.analyses",
        "methods.hsnet.information",
    }
    training = modules_behind(*provenance.CODE["training"])
    assert training >= {"methods.training", "data.episodes"}
    assert not training & hsnet - {"running.precision"}  # these come with the host
    assert modules_behind("methods.hsnet.training") >= {"methods.hsnet.learner", "methods.training"}
    assert (
        hosts.code_of({})
        == hosts.code_of({"host": "hsnet"})
        != provenance.code(*provenance.CODE["training"])
    )


def test_the_commit_is_that_of_the_package_and_not_of_where_it_is_used(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    found = provenance.commit()
    script = "from cdfss.running import provenance; print(provenance.commit())"
    environment = os.environ | {"PYTHONPATH": str(provenance.PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == str(found)
    if (provenance.PACKAGE.parent / ".git").exists():
        assert len(found.removesuffix("+changes")) == 12


@pytest.fixture
def settings():
    return table_settings({"copy": {"method": "copy"}, "baseline": {}}, ("lungs",), shots=[1])


def written(folder, run, **facts):
    """Table 1 of a run in all of its files."""
    (folder / "rows").mkdir(parents=True)
    paths = [
        rows_file(folder / "rows", v, device="cpu", torch="2.14", **facts) for v in ("baseline", "copy")
    ]
    table = tables.of_files(1, paths, [], [], [], run)
    files = {kind: folder / f"table1.{kind}" for kind in ("md", "csv", "tex", "html", "origin")}
    tables.write(table, files)
    return files


def test_tables_say_what_they_were_made_from(tmp_path, settings):
    files = written(tmp_path, settings)
    for kind in ("md", "tex", "html"):
        text = files[kind].read_text()
        for words in ("pictures lungs i1", "checkpoint of rows c1", "code rows k1", "torch of rows 2.14"):
            assert words in text, (kind, words)
    origin = json.loads(files["origin"].read_text())
    assert origin["made from"]["pictures"] == ["lungs i1"]
    assert origin["made from"]["device of rows"] == ["cpu"]
    assert origin["cdfss"]


def test_a_table_does_not_depend_on_how_its_list_was_split(tmp_path, settings):
    whole = written(tmp_path / "whole", settings)
    split = written(tmp_path / "split", settings, settings={"shard": 3, "shards": 4})
    for kind in set(whole) - {"origin"}:
        assert whole[kind].read_bytes() == split[kind].read_bytes()
    # But for the names and hashes of the files themselves.
    origins = [json.loads(files["origin"].read_text()) for files in (whole, split)]
    assert len({json.dumps({k: v for k, v in o.items() if k != "made again from"}) for o in origins}) == 1


def test_a_page_refuses_tables_of_other_models_or_pictures(tmp_path, settings):
    one = written(tmp_path / "one", settings)["html"]
    for change in ({"checkpoint": "c2"}, {"index": "i2"}, {"code": "k2"}):
        other = written(tmp_path / str(change), settings, **change)["html"]
        with pytest.raises(CdfssError, match="do not belong together"):
            page.write([one, other], [], [], settings, tmp_path / "index.html")
        assert not (tmp_path / "index.html").exists()
    trained = written(tmp_path / "trained", settings, **of_source(0, "c1"))["html"]
    for number, change in enumerate((of_source(0, "c2"), of_source(1, "c1", "t2"), {"training": "given"})):
        other = written(tmp_path / f"source {number}", settings, **change)["html"]
        with pytest.raises(CdfssError, match="do not belong together"):
            page.write([trained, other], [], [], settings, tmp_path / "index.html")
    other = written(tmp_path / "another seed", settings, **of_source(1, "c2"))["html"]
    page.write([trained, other], [], [], settings, tmp_path / "index.html")
    page.write([one, one], [], [], settings, tmp_path / "index.html")
    one.write_text(one.read_text()[:3000])
    with pytest.raises(CdfssError, match=r"table1\.html cannot be read .* Delete it"):
        page.write([one], [], [], settings, tmp_path / "index.html")


def test_figures_say_what_they_were_made_from_and_refuse_a_mixture(tmp_path):
    (tmp_path / "rows").mkdir()
    paths = [tmp_path / "f.png", tmp_path / "f.svg"]
    one = rows_file(tmp_path / "rows", device="cpu")
    style.save(style.lacking("nothing"), paths, [one])
    with Image.open(paths[0]) as image:
        assert "pictures lungs i1" in image.text["Description"]
    assert "pictures lungs i1" in paths[1].read_text()
    other = rows_file(tmp_path / "rows", "apm_s", index="i2")
    with pytest.raises(CdfssError, match="pictures of lungs differ"):
        style.save(style.lacking("nothing"), paths, [one, other])


def test_a_full_disk_and_a_folder_that_may_not_be_written_are_said(tmp_path, monkeypatch):
    def fails(error):
        with replacing(tmp_path / "x.pt"):
            raise error

    with pytest.raises(
        CdfssError, match=r"x\.pt cannot be written: the disk.* is full \(\d+ MB are free\)"
    ):
        fails(OSError(28, "No space left on device"))
    with pytest.raises(RuntimeError, match="iostream"):
        fails(RuntimeError("basic_ios::clear: iostream error"))
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr("cdfss.running.files.shutil.disk_usage", lambda place: usage)
    with pytest.raises(CdfssError, match="is full"):
        fails(RuntimeError("basic_ios::clear: iostream error"))
    with pytest.raises(CdfssError, match=r"may not be written to .*change its owner or rights"):
        fails(PermissionError(13, "Permission denied", str(tmp_path / ".x")))
    with pytest.raises(PermissionError):  # of another file, that the block reads
        fails(PermissionError(13, "Permission denied", "/elsewhere"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_the_rights_that_new_files_have(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "x") as temporary:
            Path(temporary).unlink()
            Path(temporary).touch(0o600)  # as some libraries do
        assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
