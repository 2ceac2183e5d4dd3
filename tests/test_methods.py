"""The contract for methods: what is given, what must come back, and anyone's own method."""

import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cdfss import CdfssError, configuration
from cdfss.commands.main import main
from cdfss.configuration import schema
from cdfss.configuration.jobs import Jobs
from cdfss.configuration.shown import Shown
from cdfss.evaluation import evaluate, results
from cdfss.methods import calling, conformance, hosts, known, own
from cdfss.methods.contract import COUNTS, Given, Prediction
from cdfss.running import provenance

DOCS = Path(__file__).parents[1] / "docs" / "how-to" / "own-method.md"
MINE = """
    import numpy as np
    from pydantic import Field
    from cdfss.methods import contract

    class Mine(contract.Method):
        class Settings(contract.Settings):
            level: float = Field(0.5, ge=0, le=1, description="what every pixel gets")

        def fit(self, pictures, masks):
            pass

        def predict(self, pictures):
            return contract.Prediction(np.full(pictures.shape[:-1], self.settings.level, np.float32))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes mine.py into the working folder, with changes of MINE, and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(*changes, name="mine"):
        text = textwrap.dedent(MINE)
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        Path(f"{name}.py").write_text(text)
        known.find.cache_clear()
        schema.variant_of.cache_clear()
        return f"{name}.py:Mine"

    return write


def test_the_example_of_the_docs_is_twenty_lines_and_needs_its_refusal_of_one_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r'```python title="my_methods/nearest.py"\n(.*?)```', DOCS.read_text(), re.S)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    Path("my_methods").mkdir()
    file = Path("my_methods/nearest.py")
    file.write_text(code)
    assert any("a batch gives what" in line for line in conformance.check("my_methods/nearest.py:Nearest"))
    begin, end = code.index("        if masks.all()"), code.index("        self.foreground")
    file.write_text(code[:begin] + code[end:])
    known.find.cache_clear()
    with pytest.raises(CdfssError, match=r"support masks that are empty end in: .* outside 0"):
        conformance.check("my_methods/nearest.py:Nearest")


@pytest.mark.parametrize("name", [n for n in known.METHODS if known.find(n).needs != "source"])
def test_our_methods_keep_the_contract(name):
    conformance.check(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"modules": ["apm_m", "acpa"], "steps": 2, "learning_rate": 0.1},
        {"modules": ["apm_s"], "steps": 1, "pairs": "leave_one_out"},
        {"trained": ["learner"], "steps": 1, "learning_rate": 1e-4},
        {"modules": ["apm_s"], "steps": 1, "reset": "never"},
        {"steps": 0, "vote": "mean"},
    ],
)
def test_hsnet_keeps_the_contract(settings, checkpoint):
    given = Given(64, 0, torch.device("cpu"), "efficientnet_lite0", None, checkpoint)
    conformance.check("hsnet", given, settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("self.settings.level, np.float32", "np.nan"), r"4096 probabilities outside 0\.\.1, first nan"),
        (("self.settings.level, np.float32", "1.5"), r"outside 0\.\.1, first 1\.5"),
        (("pictures.shape[:-1]", "pictures.shape[1:3]"), r"of shape \[64, 64\] for queries of"),
        (("pictures.shape[:-1]", "(2, *pictures.shape[1:3])"), r"shape \[2, 64, 64\] for queries of \[1,"),
        ((", np.float32))", ").astype(int))"), "probabilities of type int64; expected floating point"),
        (("return contract.Prediction(", "return ("), "predict returned ndarray; expected a"),
        (("        pass", "        pictures[:] = 0"), "changed the supports that it was given"),
        (("        pass", "        self.settings = None"), r"AttributeError.*mine\.py, line 14"),
        (("        pass", "        import sys; sys.exit(0)"), r"failed: SystemExit: 0 \(mine\.py, line 11"),
        (("        pass", "        1 / 0"), r"ZeroDivisionError.*mine\.py, line 11: 1 / 0"),
        (('description="what every pixel gets"', "title=''"), "setting level has no description"),
        (("level: float", "title: float"), "a setting is called title, which every variant"),
        (("contract.Method", "object"), r"Mine is no method in mine\.py; expected a class"),
        (("import numpy as np", "import nampy as np"), r"cannot be imported: ModuleNotFoundError.*line 2"),
        (("Settings(contract.Settings):", "Settings(contract.Settings:"), "SyntaxError"),
        (("class Settings(contract.Settings)", "class Settings"), "must be derived from"),
        (("self.settings.level, ", "np.random.rand(), "), "for the same input the second time"),
        (("        pass", "        self.n = getattr(self, 'n', 0) + 1; self.settings = "
          "self.Settings(level=min(1, self.n / 99))"), "for episodes one by one, in another order"),
        (("        pass", "        pass\n\n    def learnt(self):\n        return {'n': np.ones(1)}"),
          r"NotImplementedError: Mine has no recall"),
        (("        pass", "        pass\n\n    def learnt(self):\n        return 5"), "learnt returned 5"),
        (("        pass", "        pass\n\n    takes_unknown = True"), r"TypeError: .*fit.. takes 3 pos"),
    ],
)  # fmt: skip
def test_a_method_that_breaks_the_contract_is_told_what_and_where(change, message, mine):
    with pytest.raises(CdfssError, match=message):
        conformance.check(mine(change))


def test_the_check_on_the_command_line(mine, capsys):
    assert main(["check-method", mine()]) == 0
    assert "keeps the contract" in capsys.readouterr().out
    assert main(["check-method", mine(("        pass", "        1 / 0"))]) == 1
    assert "mine.py, line 11" in capsys.readouterr().err
    assert main(["check-method", "hsnet"]) == 1
    assert "needs a source-trained model" in capsys.readouterr().err
    assert main(["check-method", "rigde"]) == 1
    assert "did you mean 'ridge'?" in capsys.readouterr().err


def run_of(variant, **more):
    values = {"name": "x", "data": {"fss1000": {"format": "fss1000"}}, "domains": {"fss1000": {}}}
    values["source"] = {"data": "fss1000", "validation": {"data": "fss1000"}}
    return Jobs(configuration.parse(values | {"variants": {"mine": variant}} | more))


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"method": "rigde"}, r"variants\.mine: method 'rigde' is unknown; did you mean 'ridge'\?"),
        ({"predictor": "copy"}, r"variants\.mine: `predictor` is called `method` now; write method: copy"),
        ({"method": 3}, r"variants\.mine: method is 3; expected a name"),
        ({"method": "no.py:Mine"}, r"there is no file no\.py \(working folder: /"),
        ({"method": "no_such:Mine"}, "there is no module no_such that Python can import"),
        ({"method": "mine.py:Yours"}, r"there is no Yours in mine\.py"),
        ({"method": "mine.py:Mine", "levle": 1}, "levle is not a key; did you mean 'level'"),
        ({"method": "mine.py:Mine", "level": 2}, r"variants\.mine\.level is 2; it should be less than"),
        ({"method": "copy", "modules": ["apm_s"]}, r"variants\.mine\.modules is not a key"),
        (
            {"method": "copy", "backbone": "vgg16"},
            "backbone is 'vgg16', but method 'copy' needs no backbone",
        ),
        ({"backbone": "vgg16"}, "uses its source model's"),
    ],
)
def test_mistakes_about_methods_are_told_before_the_first_job(variant, message, mine):
    mine()
    with pytest.raises(CdfssError, match=message):
        run_of(variant)


def test_settings_without_a_default_or_with_keys_of_their_own_are_told_by_name(mine):
    inner = "class In(BaseModel, extra='forbid'):\n            size: int = 1\n        "
    name = mine(
        ("from pydantic import Field", "from pydantic import BaseModel, Field"),
        (
            "        level: float",
            f"        {inner}part: In = Field(In(), description='p')\n        level: float",
        ),
        ("Field(0.5,", "Field("),
    )
    with pytest.raises(CdfssError, match=r"variants\.mine\.level is missing: what every pixel gets"):
        run_of({"method": name})
    with pytest.raises(
        CdfssError, match=r"part\.sise is not a key; did you mean 'size'\? known here: size$"
    ):
        run_of({"method": name, "level": 1, "part": {"sise": 1}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("level: float", "settings: float"), "a setting is called settings, which every variant has"),
        (("Field(0.5,", "Field(0.5, alias='lambda',"), "setting level has an alias"),
        (("class Mine(contract.Method):", "class Mine(contract.Method):\n    least_supports = None"),
         "least_supports is None; expected a number of at least 1"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_variants_are_refused_in_words(change, message, mine):
    with pytest.raises(CdfssError, match=message):
        known.find(mine(change))


def test_what_cannot_be_read_of_a_prediction_or_of_losses_is_the_methods_mistake(mine):
    needs_gradient = "__import__('torch').ones(pictures.shape[:-1], requires_grad=True)"
    whole = "np.full(pictures.shape[:-1], self.settings.level, np.float32)"
    for name in (
        mine((whole, f"{needs_gradient}, np.ones(pictures.shape[:-1], bool)"), name="first"),
        mine(("        pass", f"        self.losses = {needs_gradient}"), name="second"),
    ):
        method = calling.build(name, {}, Given(64))
        with pytest.raises(calling.BrokenContract, match="failed: RuntimeError: Can't call numpy"):
            calling.segment(name, method, *conformance.episodes(64, 1))


def test_a_change_of_the_file_or_of_what_it_imports_beside_it_is_seen(mine):
    name = mine()

    def code():
        return run_of({"method": name}).evaluation_settings("fss1000", "mine", 1, 0)["code"]

    Path("helper.py").write_text("x = 1\n")
    Path("other.py").write_text("x = 1\n")
    first = code()
    Path("other.py").write_text("x = 2\n")
    assert code() == first
    mine(("import numpy as np\n", "import numpy as np\nimport helper\n"))
    second = code()
    Path("helper.py").write_text("x = 2\n")
    assert len({first, second, code()}) == 3


def test_a_change_of_what_is_imported_in_a_package_is_seen(mine, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    package = Path("parts")
    (package / "deep").mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "a.py": "from parts.b import x\nfrom . import deep\n",
        "b.py": "x = 1\n",
        "c.py": "x = 1\n",
        "deep/__init__.py": "from .. import c\n",
        "other.py": "x = 1\n",
    }.items():
        (package / file).write_text(text)
    name = mine(("import numpy as np\n", "import numpy as np\nfrom parts import a\n"))
    (package / "own.py").write_text(Path("mine.py").read_text())
    for method in (name, "parts.own:Mine"):
        for file in ("__init__.py", "a.py", "b.py", "c.py", "deep/__init__.py", "other.py"):
            before = known.code_of(method)
            text = (package / file).read_text()
            (package / file).write_text(f"# changed\n{text}")
            assert (known.code_of(method) == before) == (file == "other.py"), (method, file)
            (package / file).write_text(text)


def test_two_files_beside_methods_that_are_called_alike_are_refused(mine, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    mine(("import numpy as np\n", "import numpy as np\nimport level_of_it\n"))
    for folder in ("first", "second"):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text(Path("mine.py").read_text())
        Path(folder, "level_of_it.py").write_text("")
    known.find("first/mine.py:Mine")
    with pytest.raises(CdfssError, match=r"Python knows another level_of_it \(.*first/level_of_it\.py\)"):
        known.find("second/mine.py:Mine")
    sys.modules.pop("level_of_it")
    Path("statistics.py").write_text("")
    name = mine(("import numpy as np\n", "import numpy as np\nimport statistics\n"))
    with pytest.raises(CdfssError, match="Python knows another statistics"):
        known.find(name)


def test_a_file_that_ends_python_and_a_package_that_fails_are_mistakes_in_words(mine, monkeypatch):
    name = mine(("import numpy as np\n", "import sys\nsys.exit(3)\n"))
    with pytest.raises(CdfssError, match=r"cannot be imported: SystemExit: 3 \(mine\.py, line 3"):
        known.find(name)
    monkeypatch.syspath_prepend(Path.cwd())
    Path("failing").mkdir()
    Path("failing/__init__.py").write_text("1 / 0\n")
    with pytest.raises(CdfssError, match=r"package of failing\.part cannot be imported: ZeroDivisionError"):
        known.find("failing.part:Mine")


def test_a_change_of_a_method_of_ours_that_ones_own_builds_on_is_seen(mine, monkeypatch):
    found = []
    for code in ("before", "after"):
        monkeypatch.setattr(
            provenance, "code", lambda *modules, code=code: code if "methods.ridge" in modules else ""
        )
        alone = own.code_of(mine())
        built_on = mine(
            ("import numpy as np\n", "import numpy as np\nfrom cdfss.methods.ridge import Ridge\n")
        )
        found.append((alone, own.code_of(built_on)))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_ones_own_takes_what_it_needs_and_no_more(mine):
    for needs, device, backbone in (
        ("nothing", False, False),
        ("device", True, False),
        ("backbone", True, True),
    ):
        name = mine(
            ("class Mine(contract.Method):", f"class Mine(contract.Method):\n    needs = '{needs}'")
        )
        jobs = run_of({"method": name})
        settings = jobs.evaluation_settings("fss1000", "mine", 1, 0)
        assert ("precision" in settings, "backbone" in settings) == (device, backbone)
        assert jobs.source_variants == []
        assert jobs.indexes == [("fss1000", "test")]  # and no training on a source


def test_fewer_supports_than_a_method_needs_are_refused(mine):
    name = mine(("class Mine(contract.Method):", "class Mine(contract.Method):\n    least_supports = 2"))
    message = (
        r"shots is \[1, 5\]: variants\.mine with method 'mine\.py:Mine' needs at least 2 supports; remove 1"
    )
    with pytest.raises(CdfssError, match=message):
        run_of({"method": name})
    run_of({"method": name}, shots=[2, 5])
    method = calling.build(name, {}, Given(64))
    with pytest.raises(CdfssError, match="needs at least 2 supports, and was given 1"):
        calling.segment(name, method, *conformance.episodes(64, 1))
    assert any(line.startswith("4-shot") for line in conformance.check(name))


def test_probabilities_of_one_half_are_foreground():
    probabilities = np.array([[[0.4999, 0.5, 0.5001]]], np.float32)
    assert Prediction(probabilities).masks.tolist() == [[[False, True, True]]]


def test_losses_of_a_wrong_shape_are_refused(mine):
    name = mine(("        pass", "        self.losses = np.zeros((2, 2))"))
    method = calling.build(name, {}, Given(64))
    with pytest.raises(CdfssError, match=r"losses have the shape \[2, 2\]; expected \['steps'\]"):
        calling.segment(name, method, *conformance.episodes(64, 1))


LEVEL = "self.settings.level, np.float32)"
COUNTED = f"{LEVEL}, None, "  # before the counts


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("[3]", "predict returned counts of list; expected a dictionary with names of most_votes, "),
        (
            "{'pixels': [3]}",
            r"returned counts of \['pixels'\]; expected a dictionary with names of most_vo",
        ),
        ("{'most_votes': [0.5]}", r"most_votes of type float64 and shape \[1\]; expected a whole number"),
        ("{'most_votes': 3}", r"most_votes of type int64 and shape \[\]; expected .* every query, \[1\]"),
        ("{'most_votes': [-1]}", "most_votes of -1; expected 0 or more"),
        ("{'most_votes': ['a']}", "most_votes of type <U1"),
    ],
)
def test_counts_that_are_no_whole_numbers_of_queries_are_refused(counts, message, mine):
    name = mine((LEVEL, COUNTED + counts))
    with pytest.raises(calling.BrokenContract, match=message):
        conformance.check(name)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (
            "{'most_votes': [2] * len(pictures)} if self.n % 2 else {}",
            "predict counted .*'most_votes'.* for one",
        ),
        (
            "{'most_votes': [self.n] * len(pictures)}",
            "for episodes one by one, .* most_votes is .*; expected",
        ),
        ("{'voted_pixels': [9 * self.n] * len(pictures)}", "for episodes one by one, .* voted_pixels is"),
    ],
)
def test_counts_that_hang_on_other_episodes_break_the_contract(count, message, mine):
    name = mine((LEVEL, COUNTED + count), ("        pass", "        self.n = getattr(self, 'n', 0) + 1"))
    with pytest.raises(CdfssError, match=message):
        conformance.check(name)


def test_counts_of_ones_own_method_come_to_its_episodes(mine):
    """Of a batch and one by one, some of them or none; a row has a column for each."""
    name = mine(
        (LEVEL, COUNTED + "{'most_votes': self.sums[..., None].repeat(pictures.shape[-4], -1)}"),
        ("        pass", "        self.sums = masks.sum((-3, -2, -1))"),
        ("class Mine(contract.Method):", "class Mine(contract.Method):\n    batched = True"),
    )
    assert conformance.check(name)
    episodes = conformance.episodes(64, 2)
    found = calling.segment(name, calling.build(name, {}, Given(64)), *episodes)
    assert list(found.counts) == ["most_votes"]
    assert found.counts["most_votes"].tolist() == episodes[1].sum((1, 2, 3)).tolist()
    alone = mine(
        (LEVEL, COUNTED + "{'most_votes': [self.sums] * len(pictures)}"),
        ("        pass", "        self.sums = masks.sum()"),
        name="alone",
    )
    one_by_one = calling.segment(alone, calling.build(alone, {}, Given(64)), *episodes)
    assert one_by_one.counts["most_votes"].tolist() == found.counts["most_votes"].tolist()
    silent = mine(name="silent")
    assert calling.segment(silent, calling.build(silent, {}, Given(64)), *episodes).counts == {}
    assert set(COUNTS) <= set(results.SCHEMA.names)


@pytest.mark.parametrize("parameters", ["3", "None", "(1, 'b')", "(1.5, 2)"])
def test_parameters_that_are_no_two_numbers_are_refused(parameters, mine):
    name = mine(
        ("class Mine(contract.Method):", f"class Mine(contract.Method):\n    parameters = {parameters}")
    )
    with pytest.raises(CdfssError, match=r"parameters is .*; expected two whole numbers"):
        conformance.check(name)


def test_a_learning_rate_of_ones_own_may_be_anything(mine):
    for kind, value in (("str", "fast"), ("dict[str, float]", {"head": 1.0})):
        name = mine(
            ("level: float", f"learning_rate: {kind} = Field(..., description='r')\n        level: float")
        )
        jobs = run_of({"method": name, "learning_rate": value}, shots=[1])
        assert Shown(jobs).rate_families == []


def test_rows_of_a_method_that_changed_after_the_plan_are_refused(mine):
    name = mine()
    settings = run_of({"method": name}).evaluation_settings("fss1000", "mine", 1, 0)
    listed = pd.DataFrame({"episode": []})
    index = type("Index", (), {"identity": "x"})()
    mine(("pass", "pass  # changed"))
    with pytest.raises(CdfssError, match="its files, or its modules', changed after this run"):
        evaluate.origin(settings, index, listed, "rows")


def test_settings_of_a_method_that_is_derived_from_hsnet_reach_its_jobs(mine):
    Path("derived.py").write_text(
        "from pydantic import Field\nfrom cdfss.methods.hsnet.method import Method as HSNet\n\n"
        "class Derived(HSNet):\n    class Settings(HSNet.Settings):\n"
        "        width: int = Field(3, description='w')\n"
    )
    jobs = run_of({"method": "derived.py:Derived", "modules": ["apm_s"], "width": 4})
    settings = jobs.evaluation_settings("fss1000", "mine", 1, 0)["settings"]
    assert (settings["modules"], settings["width"]) == ([{"apm_s": {}}], 4)
    assert known.find("derived.py:Derived").Settings.model_validate(settings).width == 4


def test_settings_of_a_method_that_is_derived_from_fptrans_reach_its_jobs(mine):
    Path("tuned.py").write_text(
        "from pydantic import Field\nfrom cdfss.methods.fptrans.method import Method as FPTrans\n\n"
        "class Tuned(FPTrans):\n    class Settings(FPTrans.Settings):\n"
        "        width: int = Field(3, description='w')\n"
    )
    jobs = run_of({"method": "tuned.py:Tuned", "width": 4})
    settings = jobs.evaluation_settings("fss1000", "mine", 1, 0)["settings"]
    assert settings == {"modules": [], "steps": 0, "learning_rate": None, "width": 4}


def test_ones_own_method_may_have_fptrans_as_host_without_its_settings(mine):
    host = "class Mine(contract.Method):\n    needs, host = 'source', 'fptrans'"
    name = mine(("class Mine(contract.Method):", host))
    assert Shown(run_of({"method": name})).kind_of("mine") == "other"


def test_settings_whose_own_check_fails_are_told_with_its_line(mine):
    name = mine(
        ("import Field\n", "import Field, model_validator\n"),
        (
            "    def fit(",
            "        @model_validator(mode='after')\n        def _check(self):\n            1 / 0\n\n"
            "    def fit(",
        ),
    )
    message = r"method 'mine\.py:Mine' failed: ZeroDivisionError: .*mine\.py, line 12: 1 / 0"
    with pytest.raises(CdfssError, match=f"variants.mine: {message}"):
        run_of({"method": name})
    with pytest.raises(CdfssError, match=message):
        calling.build(name, {}, Given(64))


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("hsnet", r"source\.checkpoint"),
        ("patnet", r"source\.patnet\.checkpoint"),
        ("fptrans", r"source\.fptrans\.checkpoint"),
    ],
)
def test_a_given_model_that_cannot_be_taken_is_named_with_its_key(host, key, tmp_path):
    backbone = "vit_small_patch16_384" if host == "fptrans" else "resnet18"
    files = tmp_path / "c.safetensors", tmp_path / "c.json"
    with pytest.raises(CdfssError, match=rf"^{key}: .*no\.pt is not a file"):
        hosts.take(host, tmp_path / "no.pt", backbone, *files)


def test_masks_of_ones_own_are_compared_as_well(mine):
    name = mine(
        ("        pass", "        self.fits = getattr(self, 'fits', 0) + 1"),
        ("level, np.float32)", "level, np.float32), np.full(pictures.shape[:-1], self.fits % 2 == 0)"),
    )
    with pytest.raises(CdfssError, match=r"masks differ in .* % of pixels"):
        conformance.check(name)
