"""What each kind of job depends on, as plain values.

The workflow hands exactly these to the job and runs it again when they change, so nothing that a job
uses can escape notice.
"""

from functools import cache, cached_property
from typing import Any

from cdfss.configuration.schema import PLACE, SOURCE_SPLIT, Compute, Configuration
from cdfss.methods import known, own


class Jobs:
    """The jobs of a run."""

    def __init__(self, run: Configuration):
        self.run = run

    @cached_property
    def source_variants(self) -> list[str]:
        """Variants that need the source model."""
        return self._needing("source")

    @property
    def sources(self) -> list[int | None]:
        """Seeds of the source models; None is a model that was given, `source.checkpoint`."""
        return [None] if self.run.source.checkpoint else self.run.source.seeds

    def sources_of(self, variant: str) -> list[int | None]:
        """Those of `sources` that a variant is evaluated with; [None] if it needs none."""
        return self.sources if variant in self.source_variants else [None]

    @cached_property
    def device_variants(self) -> list[str]:
        """Variants that compute on a device."""
        return self._needing("device", "backbone", "source")

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
        if self.run.source.checkpoint is None and self.source_variants:
            pairs += [(self.run.source.data, SOURCE_SPLIT)]
            pairs += [(self.run.source.validation.data, self.run.source.validation.split)]
        return list(dict.fromkeys(pairs))

    def episode_settings(self, domain: str, shot: int, seed: int) -> dict[str, Any]:
        entry = self.run.domains[domain]
        return {"split": entry.split, "number": entry.episodes, "shot": shot, "seed": seed}

    def source_settings(self, seed: int) -> dict[str, Any]:
        settings = self.run.source.model_dump(mode="json", exclude={"checkpoint", "seeds"})
        settings |= {"seed": seed, "threads": self.run.compute.threads}
        return settings | {"backbone": self.run.backbone, **self._numbers()}

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
        if own.is_own(entry.method):
            settings["code"] = self._code_of(entry.method)
        if entry.method_class.needs != "nothing":
            settings["precision"] = self.run.compute.precision
        if source is not None:
            settings["source"] = source
        backbone = self.run.backbone_of(variant)
        return settings | ({"backbone": backbone} if backbone else {})

    @cache  # noqa: B019 (as long as the run)
    def _code_of(self, method: str) -> str:
        return known.code_of(method)

    def analysis_settings(self, domain: str, variant: str) -> dict:
        """What the measurements of a variant's features depend on."""
        first = self.run.shots[0], self.run.seeds[0], self.sources[0]
        settings = self.evaluation_settings(domain, variant, *first)
        return settings | {"episodes": self.run.analysis.episodes}

    def filtering_settings(self, domain: str) -> dict:
        """What the evaluation of the source model on filtered pictures depends on."""
        settings = {"domain": domain, "shot": self.run.shots[0], "seed": self.run.seeds[0]}
        settings |= {"method": "hsnet", "settings": {"steps": 0}, "backbone": self.run.backbone}
        if self.sources[0] is not None:
            settings["source"] = self.sources[0]
        return settings | self._numbers() | self.run.analysis.model_dump()

    def _numbers(self) -> dict[str, Any]:
        return {"image_size": self.run.image_size, "precision": self.run.compute.precision}

    def compute_settings(self) -> dict[str, Any]:
        """How a training or evaluation computes, as far as its numbers do not depend on it."""
        return compute_settings(self.run.model_dump(include={"device", "compute"}))

    def shards_of(self, variant: str) -> int:
        """Jobs that an episode list of a variant is split into; order matters without reset."""
        return 1 if self.run.variants[variant].settings.goes_on else self.run.shards


def compute_settings(values: dict[str, Any]) -> dict[str, Any]:
    """`Jobs.compute_settings` of a configuration's plain values, which were checked with the plan.

    A job needs no more of them, and does not look at other variants, whose own methods take time to import.
    """
    compute = Compute.model_validate(values.get("compute") or {})
    device = values.get("device", Configuration.model_fields["device"].default)
    return {"device": device, **compute.model_dump(exclude={"precision", "threads"})}
