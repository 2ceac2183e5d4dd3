"""Settings that methods share which tune modules to the supports of an episode."""

from typing import Literal

from pydantic import Field, model_validator

from cdfss.methods import contract, own
from cdfss.methods.contract import Name, Positive
from cdfss.methods.modules import known

STEPS, RATE = 60, 1e-2  # of Adam (paper 5.1); where neither the variant nor the run says otherwise


class Tuned(contract.Settings):
    """Modules of a host model, and how they are tuned."""

    modules: known.Modules = Field((), description="modules on the host's maps, in order")
    steps: int | None = Field(None, ge=0, description="default adaptation.steps")
    learning_rate: Positive | dict[Name, Positive] | Literal["auto"] | None = Field(
        None,
        description="default adaptation.learning_rate; auto: one for each episode, chosen from its "
        "supports alone (docs/explanation/methods.md)",
    )

    @model_validator(mode="after")
    def _each_once(self):
        known.by_key(self.modules)
        return self

    @property
    def _modules(self) -> dict:
        """Classes of the modules, by their names in the chain."""
        return {key: known.find(name) for key, name in known.by_key(self.modules).items()}

    @property
    def rates(self) -> dict[str, float | dict | str | None]:
        """Settings that hold learning rates, one number, one a domain or "auto", by their names."""
        return {"learning_rate": self.learning_rate}

    @property
    def families(self) -> set[str]:
        """What its modules are, of `modules.contract.FAMILIES`."""
        return {module.family for module in self._modules.values()}

    @property
    def oracle(self):
        return any(module.oracle for module in self._modules.values())

    def codes(self):
        return {name: known.code_of(name) for entry in self.modules for name in entry}

    @property
    def own_code(self):
        return any(own.is_own(name) for entry in self.modules for name in entry)

    @property
    def tuned_parts(self) -> list[str]:
        """Parts of the model that steps change."""
        return [key for key, module in self._modules.items() if module.learns]

    def of_domain(self, domain, defaults):
        """All settings, those of derived classes too, with steps and rate of one domain."""
        steps = defaults["steps"] if self.steps is None else self.steps
        settings = self.model_dump(mode="json")
        settings |= {"steps": steps if self.tuned_parts else 0, "learning_rate": None}
        if settings["steps"]:
            rate = self.learning_rate or defaults["learning_rate"]
            settings["learning_rate"] = rate[domain] if isinstance(rate, dict) else rate
        return settings

    @property
    def rate(self) -> float:
        """Of all episodes; where it is chosen, that of what looks at a model before its first step."""
        return RATE if self.learning_rate in (None, "auto") else self.learning_rate

    @property
    def chooses_rate(self) -> bool:
        """Whether each episode has a rate of its own, chosen from its supports."""
        return self.learning_rate == "auto" and self.steps_taken > 0

    def rate_for(self, trial, supports, masks):
        """The learning rate of episodes: `rate`, or chosen by `rates.choose`, whose arguments these are."""
        if not self.chooses_rate:
            return self.rate
        from cdfss.methods.rates import choose

        return choose(trial, supports, masks)

    @property
    def steps_taken(self) -> int:
        """Steps in every episode."""
        if not self.tuned_parts:
            return 0
        return STEPS if self.steps is None else self.steps
