import copy
import json
import math
from pathlib import Path

import pytest
import yaml

from cdfss import CdfssError, configuration
from cdfss.backbones.facts import facts_of
from cdfss.configuration import preflight, reference
from cdfss.configuration.jobs import Jobs, with_files
from cdfss.configuration.shown import Shown
from cdfss.evaluation import results
from cdfss.running.provenance import digest

ROOT = Path(__file__).parent.parent
BASE = {
    "name": "x",
    "data": {"pascal": {"format": "pascal"}, "fss1000": {"format": "fss1000"}},
    "domains": {"fss1000": {"episodes": 10}},
    "variants": {"baseline": {}, "apm_s": {"modules": ["apm_s"]}},
}


def changed(**changes):
    """BASE with keys replaced; two underscores go a level down."""
    values = copy.deepcopy(BASE)
    for place, value in changes.items():
        *path, last = place.split("__")
        section = values
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shotz": [1]}, "shotz is not a key; did you mean 'shots'?"),
        (
            {"variants__apm_s": {"modulse": []}},
            "variants.apm_s.modulse is not a key; did you mean 'modules'?",
        ),
        ({"shots": [1, -5]}, "shots.1 is -5; it should be greater than or equal to 1"),
        ({"shots": [1, 1]}, "[1, 1] names a value twice"),
        ({"domains__isic": {}}, "domains.isic: 'isic' is not in data; there are pascal, fss1000"),
        ({"source__validation": {"data": "voc"}}, "source.validation.data: 'voc' is not in data"),
        (
            {"variants__bad": {"modules": ["apm"]}},
            "variants.bad.modules.0: module 'apm' is unknown; did you mean",
        ),
        (
            {"variants__bad": {"masker": "M", "attention": True, "hidden": 4}},
            "modules go by name now; write modules: [apm_m, {acpa: {hidden: 4}}]",
        ),
        ({"variants__bad": {"modules": ["acpa", "acpa"]}}, "each can be there once"),
        (
            {"variants__bad": {"modules": "apm_s"}},
            "variants.bad.modules: it is 'apm_s'; expected a list, as in [apm_s, acpa]",
        ),
        (
            {"variants__bad": {"modules": {"acpa": {}}, "method": "fptrans"}},
            "variants.bad.modules: it is {'acpa': {}}; expected a list",
        ),
        ({"variants__bad": {"modules": None}}, "variants.bad.modules: it is None; expected a list"),
        (
            {"variants__bad": {"method": "patnet", "test_time_rate": {"fss1000": 1, "voc": 1}}},
            "variants.bad.test_time_rate.voc: 'voc' is not in domains; there are fss1000",
        ),
        (
            {"variants__bad": {"method": "patnet", "test_time_rate": {}}},
            "variants.bad.test_time_rate has no value for domain 'fss1000'",
        ),
        (
            {"variants__bad": {"modules": [{"acpa": {"width": 4}}]}},
            "settings are not as it wants them: width",
        ),
        ({"variants__bad": {"steps": 3}}, "variants.bad: steps is 3, but there is nothing to tune"),
        ({"variants__bad": {"method": "copy", "modules": ["apm_s"]}}, "variants.bad.modules is not a key"),
        ({"variants__bad": {"trained": ["apm_s"]}}, "trained names 'apm_s', which the variant does not"),
        ({"variants__bad": {"trained": ["learner", "learner"]}}, "which names a part twice"),
        ({"variants__bad": {"trained": []}}, "variants.bad.trained is []"),
        ({"variants__bad": {"method": "copy", "steps": 5}}, "variants.bad.steps is not a key"),
        (
            {"variants__bad": {"trained": ["decoder"]}},
            "trained names 'decoder', which the variant does not have; there are backbone",
        ),
        ({"variants__bad": {"reset": "always"}}, "reset is 'always'; it should be 'episode' or 'never'"),
        ({"data__mine": {"format": "folder"}}, "data.mine: format 'folder' cannot be downloaded; set root"),
        ({"data__mine": {"format": "fodler"}}, "data.mine.format is 'fodler'; it should be 'pascal'"),
        (
            {"adaptation__learning_rate": {"voc": 1}},
            "adaptation.learning_rate.voc: 'voc' is not in domains",
        ),
        ({"adaptation__learning_rate": -1}, "adaptation.learning_rate is -1"),
        ({"backbone": "alexnet"}, "backbone is 'alexnet'; it should be 'resnet18'"),
        ({"device": "tpu"}, "device is 'tpu'; it should be 'auto', 'cpu' or 'cuda'"),
        ({"analysis": {"radius": 100}}, "analysis.radius is 100; it should be less than or equal to 1.5"),
        ({"adaptation__learning_rate": float("inf")}, "adaptation.learning_rate is inf"),
        ({"variants__apm-s": {"modules": ["apm_s"]}}, "names have letters, digits and _"),
        ({"variants": {}}, "variants is {}"),
        ({"name": "a b"}, "name is 'a b'"),
    ],
)
def test_mistakes_name_the_key_what_was_given_and_what_is_allowed(changes, message):
    with pytest.raises(CdfssError) as error:
        configuration.parse(changed(**changes))
    assert message in str(error.value)


def test_all_mistakes_are_listed_at_once():
    with pytest.raises(CdfssError) as error:
        configuration.parse(changed(shots=[0], device="tpu", nonsense=1))
    assert len(str(error.value).splitlines()) == 4


def test_a_missing_key_is_described():
    values = changed()
    del values["name"]
    with pytest.raises(CdfssError, match="name is missing: folder of this run"):
        configuration.parse(values)


@pytest.mark.parametrize("text", ["[1, 2", "just text", ""])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CdfssError, match=r"c\.yaml"):
        configuration.load(tmp_path / "c.yaml")


def test_shipped_configurations_are_valid(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in (ROOT / "config").glob("*.yaml"):
        configuration.load(path)


def test_a_title_of_two_lines_is_refused():
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    values["variants"]["baseline"]["title"] = "Base\nline"
    with pytest.raises(CdfssError, match=r"variants\.baseline\.title.*has line breaks"):
        configuration.parse(values)


def test_an_empty_entry_has_the_defaults_and_a_domain_of_ones_own_joins_the_papers():
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    values["variants"]["baseline"] = None
    values["data"]["mine"] = {"format": "folder", "root": "mine"}
    values["domains"]["mine"] = None
    values["adaptation"]["learning_rate"]["mine"] = 0.01
    run = configuration.parse(values)
    assert run.published
    assert run.variants["baseline"].settings.modules == ()
    assert run.domains["mine"].episodes is not None
    values["domains"]["mine"] = {"title": "ISIC 2018"}
    with pytest.raises(CdfssError, match=r"domains\.mine\.title is 'ISIC 2018', as that of isic2018"):
        configuration.parse(values)


def test_the_default_is_the_papers_run():
    run = configuration.load(ROOT / "config" / "config.yaml")
    assert list(run.domains) == ["fss1000", "deepglobe", "isic2018", "chestxray"]
    assert [d.episodes for d in run.domains.values()] == [2400, 600, 600, 600]
    assert Jobs(run).source_variants == ["baseline", "apm_s", "apm_s_acpa", "apm_m", "apm_m_acpa"]
    trained_nowhere = ["foreground", "copy", "prototypes", "ridge", "propagation"]
    assert list(run.variants) == [*trained_nowhere, *Jobs(run).source_variants]
    assert run.shots == [1, 5]
    rates = {
        d: Jobs(run).evaluation_settings(d, "apm_s", 1, 0)["settings"]["learning_rate"] for d in run.domains
    }
    assert rates == {"fss1000": 1e-2, "deepglobe": 1e-5, "isic2018": 1e-2, "chestxray": 1e-1}
    assert Jobs(run).evaluation_settings("isic2018", "apm_s", 1, 0)["settings"]["steps"] == 60
    assert Jobs(run).evaluation_settings("isic2018", "baseline", 1, 0)["settings"]["steps"] == 0


def test_a_file_that_adds_needs_the_default(tmp_path, monkeypatch):
    (tmp_path / "more.yaml").write_text("shots: [1]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdfssError, match=r"more\.yaml has no name, so it adds to config/config\.yaml"):
        configuration.load("more.yaml")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text((ROOT / "config" / "config.yaml").read_text())
    assert configuration.load("more.yaml").shots == [1]


def test_the_extended_run_adds_to_the_papers_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    paper = configuration.load(ROOT / "config" / "config.yaml")
    extended = configuration.load(ROOT / "config" / "extended.yaml")
    assert list(extended.variants)[: len(paper.variants)] == list(paper.variants)
    assert extended.name == paper.name
    for variant in paper.variants:  # rows are shared
        for domain in paper.domains:
            settings = [Jobs(run).evaluation_settings(domain, variant, 5, 0) for run in (paper, extended)]
            assert settings[0] == settings[1]
    cumulative = Jobs(extended).evaluation_settings("isic2018", "apm_s_cumulative", 1, 0)["settings"]
    assert (cumulative["steps"], cumulative["reset"]) == (1, "never")
    tuned = Jobs(extended).evaluation_settings("isic2018", "fine_tuning", 1, 0)["settings"]
    assert (tuned["trained"], tuned["learning_rate"]) == (["learner", "backbone"], 1e-4)
    shown = Shown(Jobs(extended))
    assert shown.baseline == "baseline"
    assert [shown.kind_of(f"baseline_{rule}") for rule in ("majority", "mean")] == ["vote", "vote"]
    zero = Jobs(extended).evaluation_settings("isic2018", "apm_acpa_zero", 1, 0)["settings"]
    assert (zero["steps"], zero["learning_rate"]) == (0, None)
    assert zero["modules"] == [{"apm_s": {}}, {"acpa": {"hidden": 8}}]


def test_a_list_that_is_adapted_through_is_not_split():
    run = configuration.parse(
        changed(shards=4, variants__through={"modules": ["apm_s"], "steps": 1, "reset": "never"})
    )
    assert Jobs(run).shards_of("apm_s") == 4
    assert Jobs(run).shards_of("through") == 1


def test_variants_that_need_the_same_are_a_family_whatever_their_order():
    variants = {
        "through": {"modules": ["apm_s"], "steps": 1, "reset": "never"},
        "copy": {"method": "copy"},
        "ridge": {"method": "ridge"},
        "patnet": {"method": "patnet"},
        "baseline": {},
        "apm_s": {"modules": ["apm_s"]},
    }
    families = {
        "evaluate": ["apm_s", "baseline", "through"],
        "evaluate_patnet": ["patnet"],
        "evaluate_on_processor": ["copy"],
        "evaluate_untrained": ["ridge"],
    }
    for given in (variants, dict(reversed(variants.items()))):
        assert Jobs(configuration.parse(changed(variants=given))).families == families
    split = Jobs(configuration.parse(changed(variants=variants, shards=2)))
    families["evaluate"].remove("through")
    assert split.families == families | {"evaluate_in_order": ["through"]}
    assert [rule for rule in split.families if not split.on_device(rule)] == ["evaluate_on_processor"]


def test_each_variant_is_handed_the_weights_of_its_backbone():
    settings = {"a": {"backbone": "resnet50"}, "b": {}, "c": {"backbone": "efficientnet_lite0"}}
    weights = [f"data/backbones/{facts_of(name).weights}" for name in ("resnet18", "resnet50")]
    found = with_files(settings, "m.safetensors", weights)
    assert {name: variant["weights"] for name, variant in found.items()} == {
        "a": weights[1],
        "b": None,
        "c": None,
    }
    assert all(found[name]["settings"] is settings[name] for name in settings)
    assert {variant["checkpoint"] for variant in found.values()} == {"m.safetensors"}


def test_shards_are_named_that_give_every_core_or_gpu_a_job():
    jobs = Jobs(configuration.parse(changed(shots=[1, 5], variants__ridge={"method": "ridge"})))

    def warned(gpus, limit, cores):
        return [line for line in preflight.warnings(jobs, gpus, limit, cores) if "shards" in line]

    # Two lists, and two families on each.
    assert warned(0, 1, 4) == []
    assert "4 evaluation jobs for 5 cores; with shards: 2 " in warned(0, 1, 5)[0]
    assert (
        "4 evaluation jobs for 16 cores; with shards: 4 in the configuration there are 16"
        in warned(0, 1, 16)[0]
    )
    assert "4 evaluation jobs for 6 GPUs; with shards: 2 " in warned(1, 6, 2)[0]
    assert warned(1, 2, 64) == []
    assert warned(0, 1, None) == []  # jobs run elsewhere
    # There is nothing to compute in a shard without an episode.
    assert "with shards: 10 in the configuration there are 40" in warned(0, 1, 1000)[0]


def test_results_of_older_code_name_the_rules_that_make_them_again(tmp_path):
    jobs = Jobs(
        configuration.parse(
            changed(variants__copy={"method": "copy"}, variants__patnet={"method": "patnet"})
        )
    )
    for number, (kind, method, rules) in enumerate(
        [
            ("rows", "hsnet", "evaluate"),
            ("rows", "patnet", "evaluate_patnet"),
            ("rows without a model", "copy", "evaluate_on_processor"),
            ("measurements", "hsnet", "features filtering"),
        ]
    ):
        folder = tmp_path / str(number)
        facts = {"kind": kind, "method": method, "code": "older"}
        results.save([], folder / "rows" / "0.parquet", facts)
        (line,) = preflight.older_code(jobs, folder)
        assert line.endswith(f"-R {rules}"), line


def test_one_variants_rate_changes_that_variants_settings_alone():
    first = configuration.parse(changed())
    second = configuration.parse(changed(variants__apm_s={"modules": ["apm_s"], "learning_rate": 0.5}))
    for variant in first.variants:
        same = Jobs(first).evaluation_settings("fss1000", variant, 1, 0) == Jobs(
            second
        ).evaluation_settings("fss1000", variant, 1, 0)
        assert same == (variant != "apm_s")
    assert Jobs(first).source_settings(0) == Jobs(second).source_settings(0)


def test_each_seed_of_the_source_training_is_a_model_of_its_own():
    jobs = Jobs(configuration.parse(changed(source__seeds=[4, 0], variants__ridge={"method": "ridge"})))
    assert jobs.sources == jobs.sources_of("apm_s") == [4, 0]
    assert jobs.sources_of("ridge") == [None]
    assert Shown(jobs).table_settings()["sources"] == [4, 0]
    usual = Jobs(configuration.parse(changed())).source_settings(0)
    assert jobs.source_settings(0) == usual
    assert jobs.source_settings(4) == usual | {"seed": 4}
    assert "seeds" not in usual
    # Measurements and what is filtered are of the first.
    assert jobs.analysis_settings("fss1000", "apm_s")["source"] == 4
    assert jobs.filtering_settings("fss1000")["source"] == 4
    assert jobs.evaluation_settings("fss1000", "apm_s", 1, 0, 0)["source"] == 0
    assert "source" not in jobs.evaluation_settings("fss1000", "ridge", 1, 0, None)
    given = Jobs(configuration.parse(changed(source__checkpoint="m.pt")))
    assert given.sources == given.sources_of("apm_s") == [None]
    assert "source" not in given.analysis_settings("fss1000", "apm_s") | given.filtering_settings("fss1000")


HOSTS = {
    "variants__patnet": {"method": "patnet", "modules": ["apm_s"]},
    "variants__fptrans": {"method": "fptrans"},
}


def test_each_host_has_a_source_training_of_its_own():
    run = configuration.parse(changed(source__patnet={"epochs": 7}, **HOSTS))
    jobs = Jobs(run)
    assert jobs.models == [("hsnet", 0), ("patnet", 0), ("fptrans", 0)]
    assert jobs.sources_of("patnet") == jobs.sources_of("fptrans") == jobs.sources == [0]
    hsnet, patnet, fptrans = (jobs.source_settings(0, host) for host, _ in jobs.models)
    assert hsnet == Jobs(configuration.parse(changed())).source_settings(0)  # as if there were no others
    assert patnet == hsnet | {"epochs": 7, "host": "patnet"}
    assert fptrans == hsnet | {
        "host": "fptrans",
        "backbone": "vit_base_patch16_384",
        "epochs": 60,
        "batch_size": 4,
    }
    of_rows = {name: jobs.evaluation_settings("fss1000", name, 1, 0, 0) for name in run.variants}
    assert of_rows["fptrans"]["backbone"] == "vit_base_patch16_384"
    assert [of_rows[name].get("host") for name in ("baseline", "patnet", "fptrans")] == [
        None,
        "patnet",
        "fptrans",
    ]
    # The paper's tables and figures of features are about HSNet.
    shown = Shown(jobs)
    assert (shown.kind_of("patnet"), shown.kind_of("fptrans")) == ("other", "transformer")
    assert shown.baseline == "baseline"
    assert not {"patnet", "fptrans"} & set(shown.analysed)


def test_a_given_model_of_one_host_leaves_the_training_of_the_others():
    run = configuration.parse(changed(source__checkpoint="m.pt", **HOSTS))
    jobs = Jobs(run)
    assert jobs.models == [("hsnet", None), ("patnet", 0), ("fptrans", 0)]
    assert jobs.sources_of("apm_s") == [None]
    assert (run.source.data, "trn") in jobs.indexes
    all_given = {"checkpoint": "m.pt", "patnet": {"checkpoint": "p.pt"}, "fptrans": {"checkpoint": "f.pth"}}
    jobs = Jobs(configuration.parse(changed(**{f"source__{k}": v for k, v in all_given.items()}, **HOSTS)))
    assert jobs.sources == [None]
    assert (run.source.data, "trn") not in jobs.indexes
    missing = [line for line in preflight.problems(jobs) if "is not a file; set it to a trained" in line]
    assert [line.split(":")[0].removeprefix("- ") for line in missing] == [
        "source.checkpoint",
        "source.patnet.checkpoint",
        "source.fptrans.checkpoint",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source__fptrans": {"backbone": "resnet50"}},
            "leave out the variants that need its source model",
        ),
        ({"backbone": "vit_base_patch16_384"}, "variants that need its source model: baseline, apm_s"),
        (
            {"source__seeds": [0, 1], "source__patnet": {"checkpoint": "p.pt"}},
            "source.patnet.checkpoint is one model that is trained",
        ),
        ({"variants__bad": {"method": "fptrans", "modules": ["acpa"]}}, "FPTrans has no place for it"),
    ],
)
def test_mistakes_about_hosts_are_told(changes, message):
    with pytest.raises(CdfssError, match=message):
        configuration.parse(changed(**HOSTS, **changes))


def test_rivals_and_modules_of_ones_own_have_kinds_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from cdfss.methods.modules.contract import Module\n\n\n"
        "class Mine(Module):\n    def change(self, parameters, maps):\n        return 2 * maps\n"
    )
    variants = {
        "dff": {"modules": ["dff"]},
        "arp": {"modules": ["arp"]},
        "oracle": {"title": "MMC", "modules": ["mmc_oracle"]},
        "mine": {"modules": ["mine.py:Mine", "apm_s"]},
        "both": {"modules": ["apm_m", "gfnet"]},
        "gfnet_zero": {"modules": ["gfnet"], "steps": 0},
        "gfnet_through": {"modules": ["gfnet"], "steps": 1, "reset": "never"},
        "gfnet_whole": {"modules": ["gfnet"], "trained": ["learner"]},
    }
    run = configuration.parse(changed(**{f"variants__{name}": v for name, v in variants.items()}))
    jobs, shown = Jobs(run), Shown(Jobs(run))
    kinds = {name: shown.kind_of(name) for name in variants}
    assert kinds == {
        "dff": "frequency",
        "arp": "frequency",
        "oracle": "correlation",
        "mine": "own",
        "both": "modules",
        "gfnet_zero": "inserted",
        "gfnet_through": "cumulative",
        "gfnet_whole": "fine_tuning",
    }
    assert shown.by_subject["frequency"] == ["baseline", "dff", "arp", "apm_s", "both"]
    assert shown.by_subject["correlation"] == ["baseline", "oracle", "apm_s", "both"]
    assert shown.table_settings()["variants"]["oracle"]["title"] == "MMC (sees the query's mask)"
    assert shown.pictured["oracle"] == "MMC (sees the query's mask)"
    # What the file of a module does is among the settings of jobs, whichever method it is in.
    before = jobs.evaluation_settings("fss1000", "mine", 1, 0)
    assert "code" not in jobs.evaluation_settings("fss1000", "dff", 1, 0)
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace("2 *", "3 *"))
    after = Jobs(run).evaluation_settings("fss1000", "mine", 1, 0)
    assert before["code"] != after["code"]
    assert {**before, "code": ""} == {**after, "code": ""}


def test_reference_and_schema_are_up_to_date():
    hint = "run `make reference`"
    assert (ROOT / "config" / "README.md").read_text() == reference.reference(), hint
    assert (ROOT / "config" / "schema.json").read_text() == reference.schema(), hint


SECTIONS = ("source", "patnet", "fptrans", "adaptation", "analysis", "compute", "validation", "primary")


def test_the_reference_explains_every_key():
    text = reference.reference()
    schema = json.loads(reference.schema())
    keys = [key for section in schema["$defs"].values() for key in section["properties"]]
    for key in [*keys, *schema["properties"]]:
        assert f"{key}`" in text or key in SECTIONS


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_how_jobs_compute_is_part_of_their_settings_only_where_numbers_depend_on_it():
    def settings(compute):
        run = configuration.parse(changed(compute=compute))
        return Jobs(run).evaluation_settings("fss1000", "apm_s", 1, 0), Jobs(run).source_settings(0)

    usual = settings({})
    assert settings({"compile": True, "episodes_at_once": 8, "cache_gb": 0}) == usual
    for ours, theirs in zip(settings({"precision": "bfloat16"}), usual):
        assert {key for key in ours if ours[key] != theirs[key]} == {"precision"}
    run = configuration.parse(changed(compute={"episodes_at_once": 8, "cache_gb": 0.5}))
    expected = {"device": "auto", "compile": False, "episodes_at_once": 8, "cache_gb": 0.5}
    assert Jobs(run).compute_settings() == expected
    threads = configuration.parse(changed(compute={"threads": 8}))
    assert Jobs(threads).source_settings(0)["threads"] == 8  # the last digits of a training depend on it
    assert Jobs(threads).compute_settings() == Jobs(configuration.parse(changed())).compute_settings()
    for wrong in ({"precision": "float16"}, {"episodes_at_once": 0}, {"episodes_at_once": "all"}):
        with pytest.raises(CdfssError, match=f"compute.{next(iter(wrong))}"):
            settings(wrong)


def test_variants_are_shown_where_they_belong():
    run = configuration.load("config/demo.yaml")
    shown = Shown(Jobs(run))
    kinds = {name: shown.kind_of(name) for name in run.variants}
    assert kinds["foreground"] == kinds["copy"] == "trivial"
    assert kinds["ridge"] == kinds["prototypes"] == "other"
    assert list(shown.pictured) == [
        "baseline",
        "prototypes",
        "ridge",
        "propagation",
        "apm_s",
        "apm_s_acpa",
        "apm_m",
        "apm_m_acpa",
    ]
    assert kinds["baseline"] == "baseline" == shown.baseline
    assert kinds["apm_s"] == kinds["apm_m_acpa"] == kinds["apm_s_rate_high"] == "modules"
    assert kinds["apm_zero"] == "inserted"
    assert kinds["acpa"] == "attention"
    assert (kinds["gfnet"], kinds["whitening"]) == ("frequency", "correlation")
    assert kinds["apm_s_cumulative"] == "cumulative"
    assert kinds["fine_tuning"] == "fine_tuning"
    assert kinds["mi_loss"] == "information"
    assert shown.rate_families == [["apm_s", "apm_s_rate_high"]]
    modules = ["apm_s", "apm_s_acpa", "apm_m", "apm_m_acpa"]
    without_source = ["foreground", "copy", "prototypes", "ridge", "propagation"]
    assert shown.by_subject["main"] == [*without_source, "baseline", *modules]
    assert shown.by_subject["alternatives"] == ["baseline", "fine_tuning", "mi_loss", *modules]
    assert shown.by_subject["rates"] == ["baseline", "apm_s", "apm_s_rate_high"]
    assert "apm_s_rate_high" not in shown.by_subject["insertion"] + shown.by_subject["cost"]
    assert shown.by_subject["insertion"][2:5] == ["baseline", "apm_zero", "acpa"]
    assert shown.analysed == ["baseline", *modules]
    assert json.loads(json.dumps(shown.table_settings())) == shown.table_settings()


def test_a_chosen_rate_stands_beside_those_set_by_hand_and_in_tables():
    values = yaml.safe_load(Path("config/demo.yaml").read_text())
    auto = {"modules": ["apm_s"], "learning_rate": "auto", "main": False}
    values["variants"] = {
        "baseline": {},
        "apm_s": {"modules": ["apm_s"]},
        "high": {"modules": ["apm_s"], "learning_rate": 0.9, "main": False},
        "auto": auto,
        "alone": auto | {"modules": ["apm_m"]},
        "alone_too": auto | {"modules": ["apm_m"], "title": "again"},
    }
    jobs = Jobs(configuration.parse(values))
    shown = Shown(jobs)
    assert jobs.evaluation_settings("lesions", "auto", 1, 0)["settings"]["learning_rate"] == "auto"
    assert shown.rate_families == [["apm_s", "high", "auto"]]
    assert shown.table_settings()["choosing"] == ["auto", "alone", "alone_too"]
    assert shown.by_subject["alternatives"] == ["baseline", "apm_s", "auto", "alone", "alone_too"]
    assert "auto" in shown.by_subject["cost"]
    assert "high" not in shown.by_subject["cost"]
    values["adaptation"]["learning_rate"] = "auto"
    with pytest.raises(CdfssError, match=r"adaptation\.learning_rate is 'auto'"):
        configuration.parse(values)


def test_the_baseline_is_the_one_by_the_published_rule_for_votes():
    values = yaml.safe_load(Path("config/demo.yaml").read_text())
    values["variants"] = {
        "majority": {"vote": "majority"},
        "mean": {"vote": "mean", "main": False},
        "baseline": {"vote": "published"},
        "apm_s": {"modules": ["apm_s"]},
        "apm_s_majority": {"modules": ["apm_s"], "vote": "majority"},
        "apm_s_fast": {"modules": ["apm_s"], "vote": "majority", "learning_rate": 0.9, "main": False},
    }
    jobs = Jobs(configuration.parse(values))
    shown = Shown(jobs)
    kinds = [shown.kind_of(name) for name in jobs.run.variants]
    assert kinds == ["vote", "vote", "baseline", "modules", "modules", "modules"]
    assert shown.baseline == "baseline"
    assert shown.by_subject["insertion"] == ["baseline", "majority", "mean", "apm_s", "apm_s_majority"]
    assert shown.by_subject["main"] == ["majority", "baseline", "apm_s", "apm_s_majority"]
    assert shown.by_subject["alternatives"] == ["baseline", "apm_s", "apm_s_majority"]
    assert shown.by_subject["cost"] == ["baseline", "apm_s", "apm_s_majority"]
    assert shown.rate_families == [["apm_s_majority", "apm_s_fast"]]
    by_rule = shown.table_settings()["variants"]
    assert [name for name in by_rule if by_rule[name]["published_vote"]] == ["baseline", "apm_s"]
    del values["variants"]["baseline"]
    assert Shown(Jobs(configuration.parse(values))).baseline == "majority"  # rather than none


def test_rows_depend_on_the_rule_for_votes_where_it_is_another_than_before():
    values = yaml.safe_load(Path("config/demo.yaml").read_text())
    values["variants"] = {"baseline": {}, "mean": {"vote": "mean"}}
    jobs = Jobs(configuration.parse(values))
    usual, mean = (jobs.evaluation_settings("lungs", v, 5, 0)["settings"] for v in values["variants"])
    assert mean == usual | {"vote": "mean"}
    assert "vote" not in usual  # rows of before there was a choice stay
    method = jobs.run.variants["mean"].method_class
    assert [method.Settings.model_validate(s).vote for s in (usual, mean)] == ["published", "mean"]
    values["variants"] = {"wrong": {"vote": "most"}}
    with pytest.raises(CdfssError, match=r"variants\.wrong\.vote is 'most'"):
        configuration.parse(values)


def test_variants_that_differ_in_more_than_their_rate_are_no_family():
    values = yaml.safe_load(Path("config/demo.yaml").read_text())
    values["variants"] = {
        "a": {"modules": ["apm_s"], "learning_rate": 0.1},
        "b": {"modules": ["apm_s"], "learning_rate": 0.2, "steps": 3},
        "c": {"modules": ["apm_m"], "learning_rate": 0.2},
        "d": {"modules": ["apm_s"], "learning_rate": 0.2, "reset": "never"},
        "e": {"modules": ["apm_s"], "learning_rate": 0.3, "title": "E", "main": False},
    }
    assert Shown(Jobs(configuration.parse(values))).rate_families == [["a", "e"]]


def test_a_mutual_information_that_changes_nothing_is_refused():
    values = yaml.safe_load(Path("config/demo.yaml").read_text())
    for modules in (["acpa"], ["arp", "apm_s"]):
        values["variants"] = {"a": {"modules": modules, "mutual_information": 1}}
        with pytest.raises(CdfssError, match="it changes nothing where neither the backbone nor a module"):
            configuration.parse(values)


def test_a_rate_without_a_main_variant_keeps_its_place():
    values = yaml.safe_load(Path("config/demo.yaml").read_text())
    fine_tuning = values["variants"]["fine_tuning"]
    values["variants"]["fine_tuning_low"] = fine_tuning | {"title": "low", "learning_rate": 1e-5}
    run = configuration.parse(values)
    shown = Shown(Jobs(run))
    assert {"fine_tuning", "fine_tuning_low"} <= set(shown.by_subject["alternatives"]) & set(
        shown.by_subject["cost"]
    )
    assert ["fine_tuning", "fine_tuning_low"] in shown.rate_families


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {"a": {"title": "X"}, "b": {"title": "X"}}}, "variants.b.title is 'X', as that of a"),
        ({"variants": {"a": {"title": "b"}, "b": {}}}, "variants.b.title is 'b', as that of a"),
        ({"data": {"average": {"format": "fss1000"}}, "domains": {"average": {}}}, "domains.average: "),
    ],
)
def test_names_that_tables_could_not_tell_apart_are_refused(change, message):
    values = copy.deepcopy(BASE)
    values["data"] |= change.pop("data", {})
    with pytest.raises(CdfssError, match=message):
        configuration.parse(values | change)


def test_a_key_that_is_there_twice_is_refused_with_both_lines(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nshots: [1]\nvariants:\n  a: {}\nshots: [5]\n")
    with pytest.raises(CdfssError, match="'shots' is there twice, in lines 2 and 5"):
        configuration.load(path)
    path.write_text("name: x\ndomains:\n  m: {episodes: 3, title: M, episodes: 4}\n")
    with pytest.raises(CdfssError, match="'episodes' is there twice, in lines 3 and 3"):
        configuration.load(path)


@pytest.mark.parametrize(
    "content", [b"title: caf\xe9\n", b"\xff\xfen\x00", b"name: x\x00y\n", b"a: [", b"- 1\n", b""]
)
def test_a_file_that_is_no_configuration_is_named(content, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(CdfssError, match=r"configuration: .*c\.yaml"):
        configuration.load(path)
    with pytest.raises(CdfssError, match="cannot read"):
        configuration.load(tmp_path)


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    run = configuration.parse(changed(folder="~/data", source__checkpoint="~/m.pt"))
    assert str(run.folder) == "/home/me/data"
    assert str(run.source.checkpoint) == "/home/me/m.pt"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seeds": [2**31]}, "seeds.0 is 2147483648; it should be less than 2147483648"),
        ({"source__seeds": [2**32]}, "source.seeds.0 is 4294967296; it should be less than 2147483648"),
        (
            {"source__seeds": []},
            "source.seeds is []; List should have at least 1 item after validation, not 0",
        ),
        ({"source__seeds": [1, 1]}, "source.seeds: [1, 1] names a value twice"),
        ({"source__seed": 3}, "source: `seed` is called `seeds` now and is a list; write seeds: [3]"),
        (
            {"source": {"seeds": [0, 1], "checkpoint": "m.pt"}},
            "source.seeds is [0, 1], but source.checkpoint is one model that is trained already; "
            "remove one of the two",
        ),
        ({"source__learning_rate": math.inf}, "source.learning_rate is inf; it should be a finite number"),
        ({"compute__cache_gb": math.inf}, "compute.cache_gb is inf; it should be a finite number"),
        ({"adaptation__learning_rate": -1}, "adaptation.learning_rate is -1; it should be greater than 0"),
        ({"shots": [0]}, "shots.0 is 0; it should be greater than or equal to 1"),
    ],
)
def test_a_wrong_number_is_one_line(change, line):
    with pytest.raises(CdfssError) as error:
        configuration.parse(changed(**change))
    assert str(error.value).split("\n") == ["configuration:", f"  {line}"]
