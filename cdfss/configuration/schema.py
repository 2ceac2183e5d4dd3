"""The configuration: the one source of every key, its type, unit, default and allowed values.

`config/README.md` and `config/schema.json` are generated from here (`python -m cdfss reference`).
"""

import difflib
import json
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cdfss.backbones.facts import BACKBONES, why_not_hsnet
from cdfss.errors import CdfssError
from cdfss.running.provenance import digest

FORMATS = ("pascal", "fss1000", "deepglobe", "isic2018", "chestxray", "folder")
SCENES = ("everyday", "objects", "landcover", "lesions", "lungs")
DEFAULT = Path("config/config.yaml")
SOURCE_SPLIT = "trn"  # of the data set that the source model is trained on
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # rows hold it as int32, NumPy's generator takes 32 bits
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _one_line(text: str) -> str:
    if any(sign in text for sign in "\n\r\t"):
        raise ValueError(f"{text!r} has line breaks or tabs, which headings of tables cannot have")
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
Title = Annotated[str, AfterValidator(_one_line)]


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} names a home folder that is not known; write the whole path") from error


Folder = Annotated[Path, AfterValidator(_at_home)]  # with ~ for the home folder


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, values):
        return {} if values is None else values  # `baseline:` with nothing below it


class Data(Section):
    """A data set: its raw format and where it comes from."""

    format: Literal[FORMATS] = Field(description="raw format, one of the readers")
    root: Folder | None = Field(
        None,
        description="folder of an existing copy, used as it is; nothing is downloaded or copied",
    )
    synthetic: Literal[SCENES] | None = Field(
        None, description="generate this kind of pictures in the raw format instead (the demo)"
    )
    download: str | None = Field(
        None,
        description="which registered source to download, see `python -m cdfss datasets`; default: first",
    )
    splits: Folder | None = Field(
        None,
        description="folder with the split lists of pascal (fold0.txt ...) or fss1000 (trn.txt ...); "
        "default: beside the data (see docs/data.md), else downloaded",
    )
    class_order: tuple[str, str, str] = Field(
        ("nevus", "seborrheic_keratosis", "melanoma"),
        description="isic2018 only: diagnosis of class 0, 1, 2 where class_id.csv decides; folders "
        "1, 2, 3 of an existing copy are taken as they are",
    )
    on_bad_pair: Literal["stop", "skip"] = Field(
        "stop", description="stop with a list of all bad files, or skip them and count them"
    )
    value_range: tuple[Finite, Finite] | None = Field(
        None,
        description="folder only: values of black and white in grey pictures of 16 or 32 bits, such as "
        "[0, 4095] for 12 bits; empty: 0 and 65535 where values reach 4096, 0 and 1 for floating point",
    )
    max_megapixels: float = Field(
        200.0,
        gt=0,
        allow_inf_nan=False,
        description="millions of pixels above which a picture is bad and not decoded; one of 200 takes "
        "1 to 3 GB of memory in each thread of the index",
    )

    @model_validator(mode="after")
    def _one_origin(self):
        if self.root is not None and self.synthetic is not None:
            raise ValueError("root and synthetic exclude each other; remove one")
        if self.format == "folder" and self.root is None and self.synthetic is None:
            raise ValueError("format 'folder' cannot be downloaded; set root to your folder")
        if sorted(self.class_order) != sorted(Data.model_fields["class_order"].default):
            raise ValueError(
                f"class_order is {list(self.class_order)}; expected an order of "
                f"{sorted(Data.model_fields['class_order'].default)}"
            )
        if self.value_range is not None:
            if self.format != "folder":
                raise ValueError(
                    f"value_range is for format 'folder' alone, and this is {self.format!r}, which is read "
                    "as its publishers do; remove it"
                )
            black, white = self.value_range
            if not black < white:
                raise ValueError(f"value_range is [{black:g}, {white:g}]; expected black below white")
        return self


_PLACE = {"root", "splits", "download", "synthetic", "on_bad_pair"}


class Validation(Section):
    """Episodes that choose the best source checkpoint."""

    data: Name = Field("fss1000", description="a key of `data`")
    split: Literal["trn", "val", "test"] = Field("val", description="split of that data set")
    episodes: Count = Field(2400, description="number of 1-shot episodes after every epoch")


class Source(Section):
    """Source training of HSNet."""

    data: Name = Field("pascal", description="a key of `data`")
    validation: Validation = Validation()
    epochs: Count = Field(30, description="passes over the source; the paper does not state it")
    batch_size: Count = Field(20, description="episodes per step")
    learning_rate: Rate = Field(1e-3, description="of Adam")
    seed: Seed = Field(0, description="of the learner's weights, the order and the supports")
    checkpoint: Folder | None = Field(
        None, description="a trained HSNet instead: .safetensors of ours, or a published .pt"
    )


class Compute(Section):
    """How jobs compute. What changes results, precision and of the training threads, runs jobs again."""

    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="of convolutions and matrix products, in training and evaluation: float32; tf32 "
        "rounds their inputs to 10 bits on NVIDIA GPUs (elsewhere it is float32); bfloat16 to 7 bits "
        "and computes most else in it. FFT, angle, polar, loss and Adam are always float32",
    )
    compile: bool = Field(
        False,
        description="compile the mixing layers and decoder with torch.compile, unless the "
        "learner is tuned; needs a C++ compiler",
    )
    episodes_at_once: Literal["auto"] | Count = Field(
        "auto",
        description="episodes adapted as one batch on a GPU; auto: as many as fit into its free memory "
        "(fewer once they no longer do). On a processor episodes go one by one, so that rows do not "
        "depend on it",
    )
    threads: Count = Field(
        4,
        description="of the source training on a processor. The last digits of its numbers depend on how "
        "many threads share a sum, so they are fixed here and not what `--cores` leaves",
    )
    cache_gb: float = Field(
        2.0,
        ge=0,
        allow_inf_nan=False,
        description="GB of frozen features that source training may keep, so that an epoch after the "
        "first needs no backbone; used where those of all pictures fit (40 MB a picture at 400 px)",
    )


class Domain(Section):
    """A target domain; its key is a key of `data`."""

    title: Title | None = Field(None, description="heading in tables; default the key")
    split: Literal["trn", "val", "test"] = Field("test", description="split of the data set")
    episodes: Count = Field(600, description="test episodes; FSS-1000's full list has 2,400")


class Adaptation(Section):
    """Defaults that a variant may override."""

    steps: int = Field(60, ge=0, description="Adam steps per episode (paper 5.1)")
    learning_rate: Rate | dict[Name, Rate] = Field(
        1e-2, description="of Adam: one number, or one per domain"
    )


class Variant(Section):
    """A way to predict: HSNet with the modules named here, or a predictor without a model."""

    title: Title | None = Field(None, description="row heading in tables; default the key")
    predictor: Literal["hsnet", "foreground", "copy"] = Field(
        "hsnet",
        description="hsnet; or everything foreground; or the support mask copied onto the query "
        "(k > 1: pixels in at least half of the masks)",
    )
    masker: Literal["S", "M"] | None = Field(
        None, description="APM: S one mask for all channels, M one per channel"
    )
    attention: bool = Field(False, description="ACPA after APM")
    hidden: Count = Field(8, description="width of ACPA's bottleneck (8 in the published code)")
    steps: int | None = Field(None, ge=0, description="default adaptation.steps")
    learning_rate: Rate | dict[Name, Rate] | None = Field(
        None, description="default adaptation.learning_rate"
    )
    trained: list[Literal["masker", "attention", "learner", "backbone"]] | None = Field(
        None,
        min_length=1,
        description="parts that are tuned; default masker and attention, those that the variant has. "
        "learner and backbone: full fine-tuning (paper table 5)",
    )
    pairs: Literal["self", "leave_one_out"] = Field(
        "self",
        description="what the loss is averaged over: every support predicted from itself, or from "
        "each of the other supports (the same for 1 shot)",
    )
    reset: Literal["episode", "never"] = Field(
        "episode",
        description="tune anew in every episode, or go on from the last one, in the order of the "
        "list (one job a list, whatever `shards` says)",
    )

    mutual_information: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="weight in the loss of the channels' mutual information, as if they were normal "
        "(paper table 5)",
    )
    main: bool = Field(
        True,
        description="show it in table 1 and, if it has a model, the episode pictures and the figures of "
        "features; false leaves it to the tables and figures that are about such variants (the baseline is "
        "always shown)",
    )

    @model_validator(mode="after")
    def _consistent(self):
        if self.predictor != "hsnet":
            useless = self.model_fields_set - {"title", "predictor", "main"}
            if useless:
                raise ValueError(
                    f"predictor {self.predictor!r} has no model for {', '.join(sorted(useless))}"
                )
        if self.trained is not None and len(set(self.trained)) != len(self.trained):
            raise ValueError(f"trained is {self.trained}, which names a part twice")
        for part, there in (("masker", self.masker), ("attention", self.attention)):
            if part in (self.trained or []) and not there:
                raise ValueError(f"trained names {part!r}, which the variant does not have")
        if self.mutual_information and not {"masker", "backbone"} & set(self.tuned_parts):
            raise ValueError(
                "mutual_information changes nothing where neither masker nor backbone is tuned"
            )
        if self.steps and not self.tuned_parts:
            raise ValueError(
                f"steps is {self.steps}, but there is nothing to tune: neither masker nor attention, "
                "and trained names no part"
            )
        return self

    @property
    def tuned_parts(self) -> list[str]:
        """Parts of the model that steps change."""
        if self.trained is not None:
            return self.trained
        return ["masker"] * (self.masker is not None) + ["attention"] * self.attention


class Analysis(Section):
    """What is measured in features, beside the evaluation, on the first of `shots` and of `seeds`."""

    episodes: Count = Field(
        60, description="of each domain's list, as many of each class as can be; all if it is shorter"
    )
    radius: float = Field(
        0.1,
        ge=0,
        le=1.5,
        description="of the low frequencies in the filtering of pictures, as a share of the highest "
        "one along an axis; the corners are at 1.41; the paper states none",
    )
    fill: Literal["zero", "mean"] = Field(
        "zero",
        description="what amplitudes that are filtered out become: 0, or their mean; phases become 0",
    )


class Configuration(Section):
    """A run: what is trained, adapted, evaluated and tabulated."""

    name: Name = Field(description="folder of this run's intermediate results, results/<name>")
    title: Title = Field("", description="printed in the heading of every table")
    published: bool = Field(
        False,
        description="show values of the paper, and of others, beside ours in the tables; the paper's are "
        "those of domains and variants that have the names of config.yaml",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU where there is one; cuda refuses to start without"
    )
    compute: Compute = Compute()
    folder: Folder = Field(Path("data"), description="where downloads and generated data go")
    scale: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the real number of pictures, each as large as real ones, that every "
        "`synthetic` data set gets (a class keeps 6); empty: the demo's few small ones",
    )
    image_size: int = Field(400, ge=32, description="pixels; pictures are resized to squares")
    backbone: Literal[tuple(BACKBONES)] = Field(
        "resnet50",
        description="frozen network (docs/backbones.md); HSNet needs one that has strides 8, 16 and 32",
    )
    seeds: list[Seed] = Field(
        [0], min_length=1, description="of the episode lists and of ACPA's first weights"
    )
    shots: list[Count] = Field([1, 5], min_length=1, description="supports per episode")
    shards: Count = Field(1, description="jobs that an episode list is split into")
    data: dict[Name, Data] = Field(description="data sets by name")
    source: Source = Source()
    domains: dict[Name, Domain] = Field(min_length=1, description="target domains, in table order")
    adaptation: Adaptation = Adaptation()
    analysis: Analysis = Analysis()
    variants: dict[Name, Variant] = Field(min_length=1, description="rows of the tables, in order")

    @field_validator("seeds", "shots")
    @classmethod
    def _distinct(cls, values):
        if len(set(values)) != len(values):
            raise ValueError(f"{values} names a value twice")
        return values

    @model_validator(mode="after")
    def _references(self):
        _known("source.data", self.source.data, self.data, "data")
        _known("source.validation.data", self.source.validation.data, self.data, "data")
        for domain in self.domains:
            _known(f"domains.{domain}", domain, self.data, "data")
            if domain == "average":
                raise ValueError(
                    "domains.average: tables use this name for the mean over domains; rename it"
                )
        reason = why_not_hsnet(self.backbone) if self.models else None
        if reason:
            raise ValueError(f"{reason}, or leave out the variants of HSNet: {', '.join(self.models)}")
        for kind, entries in (("variants", self.variants), ("domains", self.domains)):
            titles: dict[str, str] = {}
            for name, entry in entries.items():
                other = titles.setdefault(entry.title or name, name)
                if other != name:
                    raise ValueError(
                        f"{kind}.{name}.title is {entry.title or name!r}, as that of {other}; tables and "
                        "figures could not tell them apart"
                    )
        rates = {"adaptation": self.adaptation.learning_rate}
        rates |= {f"variants.{name}": v.learning_rate for name, v in self.variants.items()}
        for place, rate in rates.items():
            if isinstance(rate, dict):
                for domain in rate:
                    _known(f"{place}.learning_rate.{domain}", domain, self.domains, "domains")
                for domain in self.domains:
                    if domain not in rate:
                        raise ValueError(f"{place}.learning_rate has no value for domain {domain!r}")
        return self

    @cached_property
    def models(self) -> dict[str, Variant]:
        """Variants that need the source model."""
        return {name: v for name, v in self.variants.items() if v.predictor == "hsnet"}

    # What each kind of job depends on, as plain values: the workflow hands exactly these to the
    # job and runs it again when they change, so nothing a job uses can escape notice.

    def index_settings(self, data: str, split: str) -> dict[str, Any]:
        """What the index of a split depends on, besides its pictures. Not on where these lie."""
        settings = self.data[data].model_dump(mode="json", exclude=_PLACE)
        settings |= {"name": data, "split": split, **self._scale_of(data)}
        # Masks of one's own that vanish when they are made smaller are found when they are indexed.
        return settings | ({"image_size": self.image_size} if settings["format"] == "folder" else {})

    def place_of(self, data: str) -> dict[str, Any]:
        """Where a data set's files lie, and what to do about bad ones: no matter of what they hold."""
        settings = self.data[data].model_dump(mode="json", include={"format", *_PLACE})
        return settings | {"name": data, "folder": str(self.folder), **self._scale_of(data)}

    def raw_settings(self, data: str) -> dict[str, Any]:
        """What a download or generation depends on."""
        settings = self.place_of(data)
        keys = ("name", "folder", "format", "download", "synthetic", "scale")
        return {key: settings[key] for key in keys if key in settings}

    def _scale_of(self, data: str) -> dict[str, float]:
        """The scale, where it says what a data set holds."""
        there = self.data[data].synthetic is not None and self.scale is not None
        return {"scale": self.scale} if there else {}

    @cached_property
    def indexes(self) -> list[tuple[str, str]]:
        """(data set, split) of every index that the run reads."""
        pairs = [(name, domain.split) for name, domain in self.domains.items()]
        if self.source.checkpoint is None and self.models:
            pairs += [(self.source.data, SOURCE_SPLIT)]
            pairs += [(self.source.validation.data, self.source.validation.split)]
        return list(dict.fromkeys(pairs))

    def episode_settings(self, domain: str, shot: int, seed: int) -> dict[str, Any]:
        entry = self.domains[domain]
        return {"split": entry.split, "number": entry.episodes, "shot": shot, "seed": seed}

    def source_settings(self) -> dict[str, Any]:
        settings = self.source.model_dump(mode="json", exclude={"checkpoint"})
        settings |= {"threads": self.compute.threads}
        return settings | {"backbone": self.backbone, **self._numbers()}

    def evaluation_settings(self, domain: str, variant: str, shot: int, seed: int) -> dict:
        entry = self.variants[variant]
        settings = {"domain": domain, "variant": variant, "shot": shot, "seed": seed}
        settings |= {"predictor": entry.predictor}
        if entry.predictor != "hsnet":
            return settings | {"image_size": self.image_size}
        settings |= {"backbone": self.backbone, "masker": entry.masker, **self._numbers()}
        settings |= {"attention": entry.attention, "hidden": entry.hidden}
        steps, rate = 0, None
        if entry.tuned_parts:
            steps = self.adaptation.steps if entry.steps is None else entry.steps
        settings |= {"steps": steps, "learning_rate": None}
        if steps:
            rate = entry.learning_rate or self.adaptation.learning_rate
            rate = rate[domain] if isinstance(rate, dict) else rate
            settings |= {"learning_rate": rate, "trained": entry.tuned_parts}
            settings |= {"pairs": entry.pairs, "reset": entry.reset}
            if entry.mutual_information:
                settings |= {"mutual_information": entry.mutual_information}
        return settings

    def analysis_settings(self, domain: str, variant: str) -> dict:
        """What the measurements of a variant's features depend on."""
        settings = self.evaluation_settings(domain, variant, self.shots[0], self.seeds[0])
        return settings | {"episodes": self.analysis.episodes}

    def filtering_settings(self, domain: str) -> dict:
        """What the evaluation of the source model on filtered pictures depends on."""
        settings = {"domain": domain, "shot": self.shots[0], "seed": self.seeds[0]}
        settings |= {"backbone": self.backbone, "masker": None, "attention": False, "hidden": 1}
        return settings | self._numbers() | self.analysis.model_dump()

    def _numbers(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "precision": self.compute.precision}

    def compute_settings(self) -> dict[str, Any]:
        """How a training or evaluation computes, as far as its numbers do not depend on it."""
        return {"device": self.device, **self.compute.model_dump(exclude={"precision", "threads"})}

    def shards_of(self, variant: str) -> int:
        """Jobs that an episode list of a variant is split into; order matters without reset."""
        return 1 if self.variants[variant].reset == "never" else self.shards

    @cached_property
    def analysed(self) -> list[str]:
        """Variants whose features are measured: main ones with a model, each episode anew."""
        models = [name for name in self.shown["main"] if name in self.models]
        return [name for name in models if self.variants[name].reset == "episode"]

    @cached_property
    def pictured(self) -> dict[str, str]:
        """Titles of the variants whose predictions are shown, by name, in the order shown.

        Main ones with a model, else others rather than none.
        """
        main = self.shown["main"] or list(self.variants)
        names = [name for name in main if name in self.models] or main
        return {name: self.variants[name].title or name for name in names}

    def kind_of(self, variant: str) -> str:
        """What a variant is, for the tables that are about one kind: an entry of KINDS."""
        entry = self.variants[variant]
        if entry.predictor != "hsnet":
            return "trivial"
        settings = self.evaluation_settings(next(iter(self.domains)), variant, 1, 0)
        if not settings["steps"]:
            return "inserted" if entry.masker or entry.attention else "baseline"
        if entry.mutual_information:
            return "information"
        if {"learner", "backbone"} & set(entry.tuned_parts):
            return "fine_tuning"
        if entry.reset == "never":
            return "cumulative"
        return "modules" if entry.masker else "attention"

    @cached_property
    def rate_families(self) -> list[list[str]]:
        """Variants that differ in nothing but learning rate, in groups of two or more."""
        families: dict[str, list[str]] = {}
        for name in self.variants:
            settings = self.evaluation_settings(next(iter(self.domains)), name, 1, 0)
            if settings.get("learning_rate"):
                same = {k: v for k, v in settings.items() if k not in ("variant", "learning_rate")}
                families.setdefault(digest(same), []).append(name)
        return [members for members in families.values() if len(members) > 1]

    @cached_property
    def shown(self) -> dict[str, list[str]]:
        """Names of the variants that tables and figures show, by what those are about.

        The baseline is in every list, since others are compared with it.
        """
        kinds = {name: self.kind_of(name) for name in self.variants}
        in_sweep = {name for members in self.rate_families for name in members}
        aside = {
            name
            for members in self.rate_families
            if any(self.variants[other].main for other in members)
            for name in members
            if not self.variants[name].main
        }
        main = [name for name, v in self.variants.items() if v.main or name == self.baseline]
        inserted = ("trivial", "baseline", "inserted", "attention", "modules", "cumulative")
        tuned = [name for name in main if kinds[name] == "modules"]

        def of(*wanted):
            return [name for kind in wanted for name in kinds if kinds[name] == kind and name not in aside]

        return {
            "main": main,
            "insertion": of(*inserted),
            "alternatives": of("baseline", "fine_tuning", "information") + tuned,
            "cost": [name for name in kinds if name not in aside],
            "rates": [name for name in kinds if name in in_sweep or name == self.baseline],
        }

    @cached_property
    def baseline(self) -> str | None:
        """The variant that others are compared with: the first that is the source model as it is."""
        as_it_is = [name for name in self.variants if self.kind_of(name) == "baseline"]
        untuned = [name for name in as_it_is if not self.variants[name].tuned_parts]
        return next(iter(untuned + as_it_is), None)

    def table_settings(self) -> dict[str, Any]:
        """What tables and figures need to know of the run, as plain values."""
        return {
            "run": self.name,
            "title": self.title,
            "published": self.published,
            "image_size": self.image_size,
            "domains": {name: d.title or name for name, d in self.domains.items()},
            "variants": {
                name: {
                    "title": v.title or name,
                    "main": v.main,
                    "kind": self.kind_of(name),
                }
                for name, v in self.variants.items()
            },
            "shown": self.shown,
            "baseline": self.baseline,
            "rate_families": self.rate_families,
            "shots": self.shots,
            "seeds": self.seeds,
        }


KINDS = {
    "trivial": "predictors without a model",
    "baseline": "the source model as it is",
    "inserted": "modules inserted, not tuned",
    "attention": "ACPA alone, tuned",
    "modules": "modules tuned in every episode",
    "cumulative": "modules tuned through the list, no reset",
    "fine_tuning": "learner or backbone tuned",
    "information": "mutual information in the loss",
}


def _known(place: str, name: str, known, where: str) -> None:
    if name not in known:
        raise ValueError(f"{place}: {name!r} is not in {where}; there are {', '.join(known)}")


def parse(values: dict[str, Any]) -> Configuration:
    """A checked configuration from plain values.

    Raises:
        CdfssError: one line per mistake: the key, what was given, what is allowed.
    """
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        lines = [_explain(item) for item in _of_one_branch(error.errors())]
        raise CdfssError("configuration:\n" + "\n".join(f"  {line}" for line in lines)) from error


def load(path: str | Path) -> Configuration:
    """A checked configuration from a YAML file; one without a name adds to the default, as in the workflow.

    The default is config/config.yaml in the current folder.
    """
    values = _read(Path(path))
    if "name" not in values:
        if not DEFAULT.is_file():
            raise CdfssError(
                f"configuration: {path} has no name, so it adds to {DEFAULT}, which is not in "
                f"{Path.cwd()}; give it a name, or work in the project's folder"
            )
        values = _added(_read(DEFAULT), values)
    return parse(values)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        raise CdfssError(
            f"configuration: {path} is no UTF-8 text (byte {error.start} is "
            f"{error.object[error.start]:#x}); save it as UTF-8 in your editor"
        ) from error
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise CdfssError(f"configuration: cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise CdfssError(f"configuration: {path} holds no keys")
    return values


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key that is there twice, of which only the last would count."""

    def construct_mapping(self, node, deep=False):
        seen: dict = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise yaml.YAMLError(
                    f"{key.value!r} is there twice, in lines {seen[key.value]} and "
                    f"{key.start_mark.line + 1}; join the two, since only the last would count"
                )
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def check_file(path: str | Path) -> dict[str, Any]:
    """The keys of a configuration file, which Snakemake reads less strictly.

    Raises:
        CdfssError: when it cannot be read, or holds a key twice.
    """
    return _read(Path(path))


def _added(base: dict, more: dict) -> dict:
    """`base` with the keys of `more`, section by section, as Snakemake adds configuration files."""
    both = dict(base)
    for key, value in more.items():
        sections = isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = _added(base[key], value) if sections else value
    return both


def _explain(item) -> str:
    """One mistake in one line, with the nearest known key for an unknown one."""
    where = [str(part) for part in item["loc"] if not _internal(part)]
    key = ".".join(where)
    if item["type"] == "extra_forbidden":
        known = _keys_at(where[:-1])
        near = difflib.get_close_matches(where[-1], known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key} is not a key; {hint}known here: {', '.join(known)}"
    if item["type"] == "missing":
        return f"{key} is missing: {_describe(where)}"
    if item["type"] == "string_pattern_mismatch":
        return f"{key} is {item['input']!r}; names have letters, digits and _ (a title may have any)"
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} is {item['input']!r}; {message}"


def _of_one_branch(items: list) -> list:
    """Mistakes without those about the other forms that a value might have had, such as a mapping."""
    kinds = {"dict_type", "float_type", "int_type", "literal_error", "float_parsing"}
    kept: dict[tuple, dict] = {}
    for item in items:
        place = tuple(part for part in item["loc"] if not _internal(part))
        other = kept.get(place)
        if other is None or (other["type"] in kinds and item["type"] not in kinds):
            kept[place] = item
    within = {place[:length] for place in kept for length in range(len(place))}
    return [item for place, item in kept.items() if place not in within or item["type"] not in kinds]


def _internal(part) -> bool:
    """Parts of pydantic's locations that are no keys: the branches of a union, dict-key marks."""
    return isinstance(part, str) and (
        "[" in part or part in ("float", "dict", "int") or part.startswith("constrained-")
    )


def _walk(where: list[str]):
    """The model and the field at a key, or (model, None)."""
    model, field = Configuration, None
    for part in where:
        if model is None:
            break
        if part not in model.model_fields:
            continue  # a name in a dict, or an index
        field = model.model_fields[part]
        model = _section_of(field.annotation)
    return model, field


def _section_of(annotation):
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _keys_at(where: list[str]) -> list[str]:
    model, _ = _walk(where)
    return list(model.model_fields) if model else []


def _describe(where: list[str]) -> str:
    _, field = _walk(where)
    return field.description if field and field.description else "it is required"


def schema() -> str:
    """JSON schema of the configuration, for editors."""
    return json.dumps(Configuration.model_json_schema(), indent=1) + "\n"


def reference() -> str:
    """config/README.md: every key with its meaning, type, default and allowed values."""
    head = resources.files("cdfss.configuration").joinpath("reference_head.md").read_text()
    lines = [head.rstrip(), ""]
    for title, prefix, model in (
        ("Top level", "", Configuration),
        ("A data set", "data.<name>.", Data),
        ("Source training", "source.", Source),
        ("Validation of the source training", "source.validation.", Validation),
        ("How jobs compute", "compute.", Compute),
        ("A target domain", "domains.<name>.", Domain),
        ("Adaptation", "adaptation.", Adaptation),
        ("Analyses", "analysis.", Analysis),
        ("A variant", "variants.<name>.", Variant),
    ):
        lines += [f"## {title}", "", "| key | meaning | allowed | default |", "|-|-|-|-|"]
        properties = model.model_json_schema(mode="validation")["properties"]
        for key, field in model.model_fields.items():
            if _section_of(field.annotation) and not field.description:
                continue
            default = "required" if field.is_required() else f"`{json.dumps(_plain(field.default))}`"
            if isinstance(field.default, Section):
                default = "below"
            lines.append(
                f"| `{prefix}{key}` | {field.description} | {_allowed(properties[key])} | {default} |"
            )
        lines.append("")
    return "\n".join(lines)


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _allowed(property_: dict) -> str:
    """Allowed values of a JSON schema property in words."""
    if "anyOf" in property_:
        return " or ".join(dict.fromkeys(_allowed(option) for option in property_["anyOf"]))
    if "enum" in property_:
        return ", ".join(f"`{value}`" for value in property_["enum"])
    if "const" in property_:
        return f"`{property_['const']}`"
    kind = property_.get("type", "section")
    if kind == "null":
        return "empty"
    if kind == "array":
        items = property_.get("items") or property_.get("prefixItems", [{}])[0]
        return f"list of {_allowed(items)}"
    if kind == "object":
        values = property_.get("additionalProperties") or property_.get("patternProperties")
        first = values if isinstance(values, dict) and "$ref" not in values else {}
        if first and "type" not in first:
            first = next(iter(first.values()))
        return f"name: {_allowed(first)}" if first.get("type") else "name: section"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
    words = names.get(kind, kind)
    for sign, key in (("≥", "minimum"), (">", "exclusiveMinimum"), ("≤", "maximum")):
        if key in property_:
            words += f" {sign} {property_[key]}"
    return words
