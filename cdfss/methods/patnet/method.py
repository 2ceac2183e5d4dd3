"""PATNet, with the paper's modules or without, as a method."""

from typing import Literal

from pydantic import Field

from cdfss.errors import CdfssError
from cdfss.methods.contract import Count, Name, Positive
from cdfss.methods.hsnet import method as hsnet


class Settings(hsnet.Settings):
    """PATNet with HSNet's settings, and its tuning at test time."""

    test_time: Literal["none", "published", "soft"] = Field(
        "none",
        description="tuning of the references on each query by itself: none, as in the published test "
        "script; published, the published loss, whose mask is an argmax: there is no gradient and nothing "
        "changes; soft, the same loss with the soft predicted mask, which has one. It sees the query, not "
        "its mask",
    )
    test_time_steps: Count = Field(
        10,
        description="steps of Adam a query, each time from the fitted references (not stated)",
    )
    test_time_rate: Positive | dict[Name, Positive] = Field(
        1e-3,
        description="learning rate of these steps, or one a domain (PATNet: 1e-3 for DeepGlobe and ISIC, "
        "5e-5 for Chest X-ray and FSS-1000)",
    )

    @property
    def rates(self):
        return super().rates | {"test_time_rate": self.test_time_rate}

    def of_domain(self, domain, defaults):
        """Steps and rate at test time only where they are used."""
        settings = super().of_domain(domain, defaults)
        rate = settings.pop("test_time_rate")
        steps = settings.pop("test_time_steps")
        if self.test_time != "soft":
            return settings
        if isinstance(rate, dict):
            if domain not in rate:
                raise CdfssError(
                    f"test_time_rate has no value for domain {domain!r}; it has {', '.join(rate) or 'none'}"
                )
            rate = rate[domain]
        return settings | {"test_time_steps": steps, "test_time_rate": rate}


class Method(hsnet.Method):
    """PATNet (`cdfss.methods.patnet.model`) that is tuned to the supports, and maybe to each query."""

    host = "patnet"
    Settings = Settings

    @staticmethod
    def _network():
        from cdfss.methods.patnet.model import PATNet

        return PATNet

    @property
    def parameters(self):
        """Those of HSNet, and the references where they are tuned to each query."""
        added, tuned = super().parameters
        with_learner = self.settings.steps_taken and "learner" in self.settings.tuned_parts
        if self.settings.test_time == "soft" and not with_learner:
            tuned += sum(weight.numel() for weight in self.model.used_references)
        return added, tuned

    def _segmented(self, queries, truths):
        if self.settings.test_time == "none":
            return super()._segmented(queries, truths)
        from cdfss.methods.patnet.tuning import tune

        rate, soft = self.settings.test_time_rate, self.settings.test_time == "soft"
        tuned, _ = tune(self._adapted, queries, self.settings.test_time_steps, rate, soft, truths)
        return tuned.segment(queries, truths)
