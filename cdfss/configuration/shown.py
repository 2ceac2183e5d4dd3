"""What tables, figures and the page show of a run."""

from functools import cached_property
from typing import Any

from cdfss.configuration.jobs import Jobs
from cdfss.errors import CdfssError
from cdfss.methods.fptrans.method import Method as FPTrans
from cdfss.methods.hsnet.method import Method as HSNet
from cdfss.methods.modules.known import WHOLE
from cdfss.methods.modules.settings import Tuned
from cdfss.running.provenance import digest

SEES_TRUTH = " (sees the query's mask)"


class Shown:
    """What is shown of a run."""

    def __init__(self, jobs: Jobs):
        self.jobs, self.run = jobs, jobs.run

    @cached_property
    def analysed(self) -> list[str]:
        """Variants whose features are measured: main ones of HSNet, each episode anew."""
        main = [(name, self.run.variants[name]) for name in self.by_subject["main"]]
        return [n for n, v in main if self._is_hsnet(n) and not v.settings.goes_on]

    def _is_hsnet(self, variant: str) -> bool:
        """Whether a variant is of HSNet, which the paper's tables and figures are about."""
        return self._is_of(variant, "hsnet", HSNet)

    def _is_of(self, variant: str, host: str, method: type) -> bool:
        """Whether a variant is of a host, by its method or one derived from it."""
        return self.run.host_of(variant) == host and issubclass(
            self.run.variants[variant].method_class, method
        )

    @cached_property
    def pictured(self) -> dict[str, str]:
        """Titles of the variants whose predictions are shown, by name, in the order shown.

        Main ones that look at pictures, else others rather than none. The first, by which episodes are
        sorted and chosen, is the baseline if there is one.
        """
        main = self.by_subject["main"] or list(self.run.variants)
        names = [name for name in main if self.run.variants[name].method_class.looks] or main
        names.sort(key=lambda name: name != self.baseline)
        return {name: self.title_of(name) for name in names}

    def title_of(self, variant: str) -> str:
        """A variant's title; it says so where the method is shown the masks of queries."""
        entry = self.run.variants[variant]
        return (entry.title or variant) + (SEES_TRUTH if entry.settings.oracle else "")

    def kind_of(self, variant: str) -> str:
        """What a variant is, for the tables that are about one kind: an entry of `catalogue.KINDS`."""
        return "baseline" if variant == self.baseline else self._kind_of(variant)

    def _kind_of(self, variant: str) -> str:
        """The same, whether or not there is another baseline."""
        entry = self.run.variants[variant]
        if self._is_of(variant, "fptrans", FPTrans):
            return "transformer_modules" if entry.settings.modules else "transformer"
        if not self._is_hsnet(variant):
            return "other" if entry.method_class.looks else "trivial"
        settings = entry.settings
        first = next(iter(self.run.domains))
        if not self.jobs.evaluation_settings(first, variant, 1, 0)["settings"]["steps"]:
            if not settings.modules:
                return "baseline" if settings.vote == "published" else "vote"
            if settings.tuned_parts:
                return "inserted"
        if settings.mutual_information:
            return "information"
        if WHOLE & set(settings.tuned_parts):
            return "fine_tuning"
        if settings.goes_on:
            return "cumulative"
        # What has a module of one's own is about that, whatever stands beside it, then what has APM.
        of_families = (
            ("other", "own"),
            ("frequency masker", "modules"),
            ("frequency", "frequency"),
            ("correlation", "correlation"),
        )
        return next((kind for family, kind in of_families if family in settings.families), "attention")

    @cached_property
    def rate_families(self) -> list[list[str]]:
        """Variants that differ in nothing but learning rate, set or chosen, in groups of two or more."""
        families: dict[str, list[str]] = {}
        for name in self.run.variants:
            settings = self.jobs.evaluation_settings(next(iter(self.run.domains)), name, 1, 0)
            rate = settings["settings"].get("learning_rate")
            if isinstance(rate, int | float) or name in self.choosing:
                same = {k: v for k, v in settings.items() if k != "variant"}
                same["settings"] = settings["settings"] | {"learning_rate": None}
                families.setdefault(digest(same), []).append(name)
        chosen = set(self.choosing)
        return [names for names in families.values() if len(names) > 1 and set(names) - chosen]

    @cached_property
    def choosing(self) -> list[str]:
        """Variants whose learning rate is chosen in each episode, from its supports."""
        entries = self.run.variants.items()
        return [
            n for n, v in entries if isinstance(v.settings, Tuned) and v.settings.learning_rate == "auto"
        ]

    @cached_property
    def by_subject(self) -> dict[str, list[str]]:
        """Names of the variants that tables and figures show, by what those are about.

        The baseline is in every list, since others are compared with it.
        """
        kinds = {name: self.kind_of(name) for name in self.run.variants}
        in_sweep = {name for members in self.rate_families for name in members}
        aside = {
            name
            for members in self.rate_families
            if any(self.run.variants[other].main for other in members)
            for name in members
            if not self.run.variants[name].main and name not in self.choosing
        }
        main = [name for name, v in self.run.variants.items() if v.main or name == self.baseline]
        inserted = ("trivial", "baseline", "vote", "inserted", "attention", "modules", "cumulative")
        modules = [name for name in kinds if kinds[name] == "modules"]
        tuned = [name for name in main if name in modules]
        chosen = [name for name in modules if name in self.choosing and name not in main]

        def of(*wanted):
            return [name for kind in wanted for name in kinds if kinds[name] == kind and name not in aside]

        return {
            "main": main,
            "insertion": of(*inserted),
            "alternatives": of("baseline", "fine_tuning", "information") + tuned + chosen,
            "frequency": of("baseline", "frequency") + tuned,
            "correlation": of("baseline", "correlation") + tuned,
            "transformer": of("transformer", "transformer_modules"),
            # Other votes on the same predictions cost what the baseline does.
            "cost": [name for name in kinds if name not in aside and kinds[name] != "vote"],
            "rates": [name for name in kinds if name in in_sweep or name == self.baseline],
        }

    @cached_property
    def baseline(self) -> str | None:
        """The variant that others are compared with: the first that is the source model as it is.

        One with another rule for votes where there is none with the published one.
        """
        for kind in ("baseline", "vote"):
            as_it_is = [name for name in self.run.variants if self._kind_of(name) == kind]
            untuned = [name for name in as_it_is if not self.run.variants[name].settings.tuned_parts]
            if as_it_is:
                return next(iter(untuned + as_it_is))
        return None

    @cached_property
    def primary(self) -> dict[str, str] | None:
        """The comparison that the run is about; by default of the last main variant with APM, tuned.

        Raises:
            CdfssError: when one is asked for that table 1 cannot show.
        """
        asked = self.run.primary
        modules = [name for name in self.by_subject["main"] if self.kind_of(name) == "modules"]
        found = {
            "variant": asked.variant or next(iter(modules[::-1]), None),
            "against": asked.against or self.baseline,
        }
        wanted = {key: name for key, name in found.items() if getattr(asked, key)}
        for key, name in found.items():
            if name is None and wanted:
                lacks = "a main variant with APM that is tuned" if key == "variant" else "a baseline"
                raise CdfssError(
                    f"configuration:\n  primary.{key}: this run has not {lacks}, which it would be by "
                    f"default; name one of {', '.join(self.by_subject['main'])}"
                )
        for key, name in wanted.items():
            if name not in self.by_subject["main"]:
                raise CdfssError(
                    f"configuration:\n  primary.{key}: {name!r} is not a main variant, so that table 1 "
                    f"lacks it; set main: true there, or name one of {', '.join(self.by_subject['main'])}"
                )
        if wanted and found["variant"] == found["against"]:
            raise CdfssError(
                f"configuration:\n  primary compares {found['variant']!r} with itself; name two variants"
            )
        return found if all(found.values()) and found["variant"] != found["against"] else None

    def table_settings(self) -> dict[str, Any]:
        """What tables and figures need to know of the run, as plain values."""
        return {
            "run": self.run.name,
            "title": self.run.title,
            "published": self.run.published,
            "image_size": self.run.image_size,
            "domains": {name: d.title or name for name, d in self.run.domains.items()},
            "variants": {
                name: {
                    "title": self.title_of(name),
                    "main": v.main,
                    "kind": self.kind_of(name),
                    "needs": v.method_class.needs,
                    "published_vote": getattr(v.settings, "vote", "") == "published",
                }
                for name, v in self.run.variants.items()
            },
            "shown": self.by_subject,
            "baseline": self.baseline,
            "primary": self.primary,
            "pictured": list(self.pictured),
            # A person's own pictures are few, and others will come; published lists are what others use.
            "stated": {
                name: "pictures" if self.run.data[name].format == "folder" else "lists"
                for name in self.run.domains
            },
            "rate_families": self.rate_families,
            "choosing": self.choosing,
            "shots": self.run.shots,
            "seeds": self.run.seeds,
            "sources": self.jobs.sources,
        }
