"""The configuration: the one source of every key, its type, unit, default and allowed values.

`config/README.md` and `config/schema.json` are generated from here (`cdfss reference`). The
settings of methods stand where the methods are (`cdfss.methods`).
"""

from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    create_model,
    model_validator,
)

from cdfss.backbones.facts import BACKBONES
from cdfss.errors import CdfssError
from cdfss.methods import contract, hosts, known, own
from cdfss.methods.contract import Count, Name, Positive
from cdfss.methods.modules.settings import RATE, STEPS, Tuned

FORMATS = ("pascal", "fss1000", "deepglobe", "isic2018", "chestxray", "folder")
SCENES = ("everyday", "objects", "landcover", "lesions", "lungs")
SOURCE_SPLIT = "trn"  # of the data set that the source model is trained on
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # rows hold it as int32, NumPy's generator takes 32 bits


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError(f"{values} names a value twice")
    return values


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _one_line(text: str) -> str:
    if any(sign in text for sign in "\n\r\t"):
        raise ValueError(f"{text!r} has line breaks or tabs, which headings of tables cannot have")
    return text


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
        description="which registered source to download, see `cdfss datasets`; default: first",
    )
    splits: Folder | None = Field(
        None,
        description="folder with the split lists of pascal (fold0.txt ...) or fss1000 (trn.txt ...); "
        "default: beside the data (see docs/explanation/data.md), else downloaded",
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


PLACE = {"root", "splits", "download", "synthetic", "on_bad_pair"}


class Validation(Section):
    """Episodes that choose the best source checkpoint."""

    data: Name = Field("fss1000", description="a key of `data`")
    split: Literal["trn", "val", "test"] = Field("val", description="split of that data set")
    episodes: Count = Field(2400, description="number of 1-shot episodes after every epoch")


class OfHost(Section):
    """Source training of another host than HSNet, where it differs."""

    backbone: Literal[tuple(BACKBONES)] | None = Field(
        None, description="its network; empty: `backbone` of the run"
    )
    epochs: Count | None = Field(None, description="empty: source.epochs")
    batch_size: Count | None = Field(None, description="episodes per step; empty: source.batch_size")
    learning_rate: Positive | None = Field(None, description="empty: source.learning_rate")
    checkpoint: Folder | None = Field(
        None, description="a trained model of it instead: .safetensors of ours, or a published file"
    )


class OfFPTrans(OfHost):
    """Source training of FPTrans: stochastic gradient descent on the whole transformer."""

    backbone: Literal[tuple(BACKBONES)] | None = Field(
        "vit_base_patch16_384", description="a vision transformer; empty: `backbone` of the run"
    )
    epochs: Count | None = Field(60, description="as published for ViT (30 for DeiT)")
    batch_size: Count | None = Field(4, description="episodes per step, as published")
    learning_rate: Positive | None = Field(1e-3, description="of its gradient descent, as published")


class Source(Section):
    """Source training of HSNet, and of other hosts where these differ."""

    data: Name = Field("pascal", description="a key of `data`")
    validation: Validation = Validation()
    epochs: Count = Field(30, description="passes over the source; the paper does not state it")
    batch_size: Count = Field(20, description="episodes per step")
    learning_rate: Positive = Field(1e-3, description="of Adam")
    seeds: Seeds = Field(
        [0],
        description="of the learner's weights, the order and the supports; with each a source model is "
        "trained and evaluated",
    )
    checkpoint: Folder | None = Field(
        None, description="a trained HSNet instead: .safetensors of ours, or a published .pt"
    )
    patnet: OfHost = OfHost()
    fptrans: OfFPTrans = OfFPTrans()

    def of(self, host: str) -> OfHost:
        """What is configured of a host's training, with HSNet's where it is left empty."""
        own = {"checkpoint": self.checkpoint} if host == "hsnet" else getattr(self, host).model_dump()
        common = {key: getattr(self, key) for key in ("epochs", "batch_size", "learning_rate")}
        return OfHost(**common | {key: value for key, value in own.items() if value is not None})

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values):
        if isinstance(values, dict) and "seed" in values:
            raise ValueError(f"`seed` is called `seeds` now and is a list; write seeds: [{values['seed']}]")
        return values


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
        description="torch.compile for whole steps of an adaptation of modules; no gain on a processor; "
        "needs a C++ compiler and torch 2.14",
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
    """Defaults that a variant whose modules are tuned may override."""

    steps: int = Field(STEPS, ge=0, description="Adam steps per episode (paper 5.1)")
    learning_rate: Positive | dict[Name, Positive] = Field(
        RATE, description="of Adam: one number, or one per domain"
    )


class Variant(Section):
    """A row of the tables: a method and its settings, which stand beside these keys."""

    title: Title | None = Field(None, description="row heading in tables; default the key")
    method: str = Field(
        "hsnet",
        description=f"{', '.join(known.METHODS)}; or your own: folder/file.py:Class, or "
        "module:Class of an installed one (docs/how-to/own-method.md)",
    )
    backbone: Literal[tuple(BACKBONES)] | None = Field(
        None,
        description="frozen network of a method that needs no source model, default `backbone` of the run",
    )
    main: bool = Field(
        True,
        description="show it in table 1 and, if it looks at pictures, in the episode pictures and in the "
        "figures of features if it is HSNet's; false leaves it to the tables and figures that are about "
        "such variants (the baseline is always shown)",
    )

    @model_validator(mode="after")
    def _backbone_has_a_use(self):
        needs = self.method_class.needs
        if self.backbone is not None and needs != "backbone":
            why = (
                "uses its source model's (`backbone` of the run, or source.<host>.backbone)"
                if needs == "source"
                else "needs no backbone"
            )
            raise ValueError(f"backbone is {self.backbone!r}, but method {self.method!r} {why}; remove it")
        return self

    @property
    def method_class(self) -> type[contract.Method]:
        """The method's class."""
        return known.find(self.method)

    @cached_property
    def settings(self) -> contract.Settings:
        """The method's settings."""
        given = self.model_dump(exclude=set(Variant.model_fields), exclude_unset=True)
        return self.method_class.Settings.model_validate(given)


@cache
def variant_of(method: str) -> type[Variant]:
    """Keys of a variant with a method: those of all variants, and the method's settings.

    Raises:
        CdfssError: as `known.find`.
    """
    given = known.find(method).Settings
    return create_model("Variant", __base__=(Variant, given), __doc__=given.__doc__)


def _checked_variant(values) -> Variant:
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"it is {values!r}; expected keys of a variant")
    if "predictor" in values:
        raise ValueError(f"`predictor` is called `method` now; write method: {values['predictor']}")
    method = values.get("method", Variant.model_fields["method"].default)
    if not isinstance(method, str):
        raise ValueError(f"method is {method!r}; expected a name, such as ridge, or folder/file.py:Class")
    try:
        keys = variant_of(method)
        with own.told(method, "method", passes=ValidationError):
            return keys.model_validate(values)
    except CdfssError as error:
        raise ValueError(str(error)) from error


class _OwnVariant(Variant):
    """A variant of anyone's own method, whose settings no schema can know."""

    model_config = ConfigDict(extra="allow")
    method: Annotated[str, Field(pattern=":")]


def _for_editors():
    """What a variant may be, for the JSON schema."""
    default = Variant.model_fields["method"].default
    ours = (
        create_model(
            f"Variant_{name}",
            __base__=variant_of(name),
            method=(Literal[name], name if name == default else ...),
        )
        for name in known.METHODS
    )
    return Union[*ours, _OwnVariant]


AnyVariant = Annotated[Variant, PlainValidator(_checked_variant, json_schema_input_type=_for_editors())]


class Analysis(Section):
    """What is measured in features, beside the evaluation, on the first of `shots` and of both `seeds`."""

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


class Primary(Section):
    """The one comparison that the run is about: mean over the domains, for each number of shots."""

    variant: Name | None = Field(
        None, description="a main variant; default the last main one with APM whose modules are tuned"
    )
    against: Name | None = Field(None, description="another main variant; default the baseline")


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
        description="frozen network (docs/explanation/backbones.md); HSNet needs one that has strides 8, "
        "16 and 32",
    )
    seeds: Seeds = Field(
        [0],
        description="of the episode lists, and of all that methods draw, such as first weights of modules",
    )
    shots: Annotated[list[Count], AfterValidator(_distinct)] = Field(
        [1, 5], min_length=1, description="supports per episode"
    )
    shards: Count = Field(
        1,
        description="jobs that an episode list is split into, for each family of variants",
    )
    data: dict[Name, Data] = Field(description="data sets by name")
    source: Source = Source()
    domains: dict[Name, Domain] = Field(min_length=1, description="target domains, in table order")
    adaptation: Adaptation = Adaptation()
    analysis: Analysis = Analysis()
    primary: Primary = Primary()
    variants: dict[Name, AnyVariant] = Field(min_length=1, description="rows of the tables, in order")

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
        for key in ("variant", "against"):
            name = getattr(self.primary, key)
            if name is not None:
                _known(f"primary.{key}", name, self.variants, "variants")
        for name, entry in self.variants.items():
            least = entry.method_class.least_supports
            few = [shot for shot in self.shots if shot < least]
            if few:
                raise ValueError(
                    f"shots is {self.shots}: variants.{name} with method {entry.method!r} needs at least "
                    f"{least} supports; remove {', '.join(map(str, few))}, or the variant"
                )
        for host in hosts.HOSTS:
            built = [name for name in self.variants if self.host_of(name) == host]
            if built and len(self.source.seeds) > 1 and self.source.of(host).checkpoint is not None:
                raise ValueError(
                    f"source.seeds is {self.source.seeds}, but {hosts.key_of(host)}.checkpoint is one "
                    "model that is trained already; remove one of the two"
                )
            if built and (reason := hosts.HOSTS[host].why_not(self.backbone_of_host(host))):
                raise ValueError(
                    f"{reason}, or leave out the variants that need its source model: {', '.join(built)}"
                )
        for kind, entries in (("variants", self.variants), ("domains", self.domains)):
            titles: dict[str, str] = {}
            for name, entry in entries.items():
                other = titles.setdefault(entry.title or name, name)
                if other != name:
                    raise ValueError(
                        f"{kind}.{name}.title is {entry.title or name!r}, as that of {other}; tables and "
                        "figures could not tell them apart"
                    )
        rates = {"adaptation.learning_rate": self.adaptation.learning_rate}
        for name, entry in self.variants.items():
            if isinstance(entry.settings, Tuned):  # anyone's own may mean something else by it
                rates |= {f"variants.{name}.{key}": rate for key, rate in entry.settings.rates.items()}
        for place, rate in rates.items():
            if isinstance(rate, dict):
                for domain in rate:
                    _known(f"{place}.{domain}", domain, self.domains, "domains")
                for domain in self.domains:
                    if domain not in rate:
                        raise ValueError(f"{place} has no value for domain {domain!r}")
        return self

    def backbone_of(self, variant: str) -> str | None:
        """The frozen network of a variant, if its method needs one."""
        if host := self.host_of(variant):
            return self.backbone_of_host(host)
        entry = self.variants[variant]
        return (entry.backbone or self.backbone) if entry.method_class.needs == "backbone" else None

    def host_of(self, variant: str) -> str | None:
        """The host whose source model a variant needs; None if it needs none."""
        method = self.variants[variant].method_class
        return method.host if method.needs == "source" else None

    def backbone_of_host(self, host: str) -> str:
        """The network of a host's source model."""
        return self.source.of(host).backbone or self.backbone


def _known(place: str, name: str, known, where: str) -> None:
    if name not in known:
        raise ValueError(f"{place}: {name!r} is not in {where}; there are {', '.join(known)}")
