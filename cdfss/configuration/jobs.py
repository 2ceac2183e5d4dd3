"""What each kind of job depends on, as plain values.

The workflow hands exactly these to the job and runs it again when they change, so nothing that a job
uses can escape notice.
"""

from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cdfss.backbones.facts import facts_of
from cdfss.configuration.schema import PLACE, SOURCE_SPLIT, Compute, Configuration
from cdfss.methods import known
from cdfss.methods.contract import Method
from cdfss.running.provenance import digest


class Jobs:
    """The jobs of a run."""

    def __init__(self, run: Configuration):
        self.run = run

    @cached_property
    def source_variants(self) -> list[str]:
        """Variants that need the source model."""
        return self._needing("source")

    @cached_property
    def models(self) -> list[tuple[str, int | None]]:
        """Host and seed of every source model; None is one that was given, `source.checkpoint`."""
        hosts = dict.fromkeys(map(self.run.host_of, self.source_variants))
        return [(host, seed) for host in hosts for seed in self.seeds_of(host)]

    def seeds_of(self, host: str) -> list[int | None]:
        """Seeds of a host's source models; [None] is a given one."""
        return [None] if self.run.source.of(host).checkpoint else self.run.source.seeds

    @property
    def sources(self) -> list[int | None]:
        """Seeds that rows may be told apart by; [None] where all source models were given."""
        trained = [seed for _, seed in self.models if seed is not None]
        return list(dict.fromkeys(trained)) or ([None] if self.models else self.run.source.seeds)

    def sources_of(self, variant: str) -> list[int | None]:
        """Seeds of the source models that a variant is evaluated with; [None] if it needs none."""
        host = self.run.host_of(variant)
        return self.seeds_of(host) if host else [None]

    @cached_property
    def families(self) -> dict[str, list[str]]:
        """Variants that one job evaluates on a list, by the name of the job's rule.

        They need the same files and are split alike. In the order of their names, so that another order in
        the configuration is no change.
        """
        families: dict[str, list[str]] = {}
        for name in sorted(self.run.variants):
            families.setdefault(self.family_of(name), []).append(name)
        return families

    @cache  # noqa: B019 (as long as the run)
    def family_of(self, variant: str) -> str:
        """Rule whose jobs evaluate a variant."""
        entry = self.run.variants[variant]
        apart = entry.settings.goes_on and self.run.shards > 1
        return evaluation_rule(entry.method_class) + ("_in_order" if apart else "")

    def on_device(self, family: str) -> bool:
        """Whether the variants of a family compute on a device."""
        return self.run.variants[self.families[family][0]].method_class.needs != "nothing"

    def _needing(self, *needs: str) -> list[str]:
        return [name for name, entry in self.run.variants.items() if entry.method_class.needs in needs]

    @cached_property
    def backbones(self) -> list[str]:
        """Frozen networks that the run uses."""
        used = map(self.run.backbone_of, self.run.variants)
        return list(dict.fromkeys(name for name in used if name))

    def index_settings(self, data: str, split: str) -> dict[str, Any]:
        """What the index of a split depends on, besides its pictures. Not on where these lie."""
        settings = self.run.data[data].model_dump(mode="json", exclude=PLACE)
        settings |= {"name": data, "split": split, **self._scale_of(data)}
        # Masks of one's own that vanish when they are made smaller are found when they are indexed.
        return settings | ({"image_size": self.run.image_size} if settings["format"] == "folder" else {})

    def place_of(self, data: str) -> dict[str, Any]:
        """Where a data set's files lie, and what to do about bad ones: no matter of what they hold."""
        settings = self.run.data[data].model_dump(mode="json", include={"format", *PLACE})
        return settings | {"name": data, "folder": str(self.run.folder), **self._scale_of(data)}

    def raw_settings(self, data: str) -> dict[str, Any]:
        """What a download or generation depends on."""
        settings = self.place_of(data)
        keys = ("name", "folder", "format", "download", "synthetic", "scale")
        return {key: settings[key] for key in keys if key in settings}

    def _scale_of(self, data: str) -> dict[str, float]:
        """The scale, where it says what a data set holds."""
        there = self.run.data[data].synthetic is not None and self.run.scale is not None
        return {"scale": self.run.scale} if there else {}

    @cached_property
    def indexes(self) -> list[tuple[str, str]]:
        """(data set, split) of every index that the run reads."""
        pairs = [(name, domain.split) for name, domain in self.run.domains.items()]
        if any(seed is not None for _, seed in self.models):
            pairs += [(self.run.source.data, SOURCE_SPLIT)]
            pairs += [(self.run.source.validation.data, self.run.source.validation.split)]
        return list(dict.fromkeys(pairs))

    def picture_settings(self) -> dict[str, Any]:
        """What prepared pictures depend on besides the index and the list that they are of."""
        return {"image_size": self.run.image_size}

    def episode_settings(self, domain: str, shot: int, seed: int) -> dict[str, Any]:
        entry = self.run.domains[domain]
        return {"split": entry.split, "number": entry.episodes, "shot": shot, "seed": seed}

    def source_settings(self, seed: int, host: str = "hsnet") -> dict[str, Any]:
        """What a source training depends on."""
        own = self.run.source.of(host).model_dump(mode="json", exclude={"backbone", "checkpoint"})
        settings = self.run.source.model_dump(mode="json", include={"data", "validation"}) | own
        settings |= {"seed": seed, "threads": self.run.compute.threads, **_host(host)}
        return settings | {"backbone": self.run.backbone_of_host(host), **self._numbers()}

    def evaluation_settings(
        self, domain: str, variant: str, shot: int, seed: int, source: int | None = None
    ) -> dict:
        """What the rows of a variant on one list depend on; of a user's own method also its files.

        Args:
            source: one of `sources_of` the variant.
        """
        entry = self.run.variants[variant]
        settings = {"domain": domain, "variant": variant, "shot": shot, "seed": seed}
        settings |= {"image_size": self.run.image_size, "method": entry.method}
        settings["settings"] = entry.settings.of_domain(domain, self.run.adaptation.model_dump())
        if known.is_own(entry.method, entry.settings):
            settings["code"] = self._code_of(variant)
        if entry.method_class.needs != "nothing":
            settings["precision"] = self.run.compute.precision
        if source is not None:
            settings["source"] = source
        backbone = self.run.backbone_of(variant)
        settings |= {"backbone": backbone} if backbone else {}
        return settings | _host(self.run.host_of(variant) or "hsnet")

    @cache  # noqa: B019 (as long as the run)
    def _code_of(self, variant: str) -> str:
        entry = self.run.variants[variant]
        return digest(known.codes_of(entry.method, entry.settings.model_dump(mode="json")))

    def analysis_settings(self, domain: str, variant: str) -> dict:
        """What the measurements of a variant's features depend on."""
        first = self.run.shots[0], self.run.seeds[0], self.sources_of(variant)[0]
        settings = self.evaluation_settings(domain, variant, *first)
        return settings | {"episodes": self.run.analysis.episodes}

    def filtering_settings(self, domain: str) -> dict:
        """What the evaluation of the source model on filtered pictures depends on."""
        settings = {"domain": domain, "shot": self.run.shots[0], "seed": self.run.seeds[0]}
        settings |= {"method": "hsnet", "settings": {"steps": 0}, "backbone": self.run.backbone}
        if (first := self.seeds_of("hsnet")[0]) is not None:
            settings["source"] = first
        return settings | self._numbers() | self.run.analysis.model_dump()

    def _numbers(self) -> dict[str, Any]:
        return {"image_size": self.run.image_size, "precision": self.run.compute.precision}

    def compute_settings(self) -> dict[str, Any]:
        """How a training or evaluation computes, as far as its numbers do not depend on it."""
        return compute_settings(self.run.model_dump(include={"device", "compute"}))

    def shards_of(self, variant: str) -> int:
        """Jobs that an episode list of a variant is split into; order matters without reset."""
        return 1 if self.run.variants[variant].settings.goes_on else self.run.shards


def evaluation_rule(method: type[Method]) -> str:
    """Rule of the workflow whose jobs evaluate a method's variants; "_in_order" is added where those that
    go on from episode to episode are apart, because the lists of others are split.
    """
    if method.needs == "nothing":
        return "evaluate_on_processor"
    if method.needs != "source":
        return "evaluate_untrained"
    return "evaluate" if method.host == "hsnet" else f"evaluate_{method.host}"


def with_files(settings: dict[str, dict], checkpoint: str | None, weights: list[str]) -> dict[str, dict]:
    """Variants as a job is handed them: settings, checkpoint and weights of each, by name.

    Args:
        settings: of each; those with a "backbone" need its weights.
        checkpoint: of the source model, the same for all; None where they need none.
        weights: files of frozen networks, by the names that they are published under.
    """
    by_name = {Path(file).name: str(file) for file in weights}
    found = {}
    for name, of_variant in settings.items():
        backbone = of_variant.get("backbone")
        file = by_name.get(facts_of(backbone).weights) if backbone else None
        found[name] = {"settings": of_variant, "checkpoint": checkpoint, "weights": file}
    return found


def _host(name: str) -> dict[str, str]:
    """A host as a setting; HSNet's jobs are older than that there were others, and name none."""
    return {} if name == "hsnet" else {"host": name}


def compute_settings(values: dict[str, Any]) -> dict[str, Any]:
    """`Jobs.compute_settings` of a configuration's plain values, which were checked with the plan.

    A job needs no more of them, and does not look at other variants, whose own methods take time to import.
    """
    compute = Compute.model_validate(values.get("compute") or {})
    device = values.get("device", Configuration.model_fields["device"].default)
    return {"device": device, **compute.model_dump(exclude={"precision", "threads"})}
