"""HSNet, with the paper's modules or without, as a method."""

from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from cdfss.methods import contract
from cdfss.methods.contract import Count, Given, Name, Positive, Prediction

PARTS_OF_WHOLE = {"learner", "backbone"}
STEPS, RATE = 60, 1e-2  # of Adam (paper 5.1); where neither the variant nor the run says otherwise


class Settings(contract.Settings):
    """HSNet with the modules named here, tuned to the supports of an episode."""

    masker: Literal["S", "M"] | None = Field(
        None, description="APM: S one mask for all channels, M one per channel"
    )
    attention: bool = Field(False, description="ACPA after APM")
    hidden: Count = Field(8, description="width of ACPA's bottleneck (8 in the published code)")
    steps: int | None = Field(None, ge=0, description="default adaptation.steps")
    learning_rate: Positive | dict[Name, Positive] | None = Field(
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
    vote: Literal["published", "majority", "mean"] = Field(
        "published",
        description="how the predictions from k supports become one mask: published, foreground by at "
        "least half of the largest number of votes that any pixel got; majority, by at least half of the "
        "k; mean, by a mean probability of at least 0.5 (the same for 1 shot)",
    )

    @model_validator(mode="after")
    def _consistent(self):
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

    def of_domain(self, domain, defaults):
        """Steps and rate of one domain; none of what concerns steps where there are none."""
        steps = defaults["steps"] if self.steps is None else self.steps
        settings = {"masker": self.masker, "attention": self.attention, "hidden": self.hidden}
        settings |= {"steps": steps if self.tuned_parts else 0, "learning_rate": None}
        if settings["steps"]:
            rate = self.learning_rate or defaults["learning_rate"]
            settings["learning_rate"] = rate[domain] if isinstance(rate, dict) else rate
            settings |= {"trained": self.tuned_parts, "pairs": self.pairs, "reset": self.reset}
            settings["mutual_information"] = self.mutual_information
        if self.vote != "published":  # which is that of all rows made before there were others
            settings["vote"] = self.vote
        derived = self.model_dump(mode="json", exclude=set(Settings.model_fields))
        return settings | derived  # with what a method that is derived from this one has besides

    @property
    def goes_on(self):
        return self.reset == "never"

    @property
    def steps_taken(self) -> int:
        """Steps in every episode."""
        if not self.tuned_parts:
            return 0
        return STEPS if self.steps is None else self.steps


class Method(contract.Method):
    """HSNet (`cdfss.methods.hsnet.model`) that is tuned to the supports as the settings say.

    With reset "never" it goes on from one `fit` to the next, Adam's moments included.
    """

    needs = "source"
    batched = True
    Settings = Settings

    def __init__(self, settings: Settings, given: Given):
        super().__init__(settings, given)
        self.model = self._source_model()
        self._adapted = None
        # More than modules is tuned, or each episode goes on from the last.
        alone = PARTS_OF_WHOLE & set(settings.tuned_parts) or settings.goes_on
        self.most_at_once = 1 if alone else None

    def _source_model(self):
        """The source model with the variant's modules; ACPA's first weights depend on the seed alone."""
        import torch

        from cdfss.methods.hsnet import checkpoints

        settings, given = self.settings, self.given
        model = checkpoints.build(
            given.checkpoint,
            given.backbone,
            given.weights,
            masker=settings.masker,
            attention=settings.attention,
            hidden=settings.hidden,
            image_size=given.image_size,
        )
        if model.attention is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(given.seed)
                model.attention.squeeze.reset_parameters()
                model.attention.excite.reset_parameters()
        if given.compile:
            model.learner.compile_mixing()
        return model.to(given.device)

    @cached_property
    def tuning(self) -> dict:
        """How `adaptation.Adaptation` takes what the settings say, but for the steps."""
        settings = self.settings
        return {
            "learning_rate": settings.learning_rate or RATE,
            "trained": settings.tuned_parts,
            "pairs": settings.pairs,
            "mutual_information": settings.mutual_information,
            "vote": settings.vote,
        }

    def fit(self, pictures, masks):
        import torch

        from cdfss.backbones.normalisation import normalise
        from cdfss.methods.hsnet.adaptation import adapt

        before, self._adapted = self._adapted if self.settings.goes_on else None, None
        images = normalise(torch.from_numpy(pictures).to(self.given.device).flatten(0, 1), self._facts)
        self._adapted = adapt(
            before.model if before else self.model,
            images.unflatten(0, masks.shape[:2]),  # (E, k, 3, S, S)
            torch.from_numpy(masks).to(self.given.device).float(),
            self.settings.steps_taken,
            **self.tuning,
            optimiser=before.optimiser if before else None,
        )

    def predict(self, pictures):
        import torch

        from cdfss.backbones.normalisation import normalise

        found = []
        for number in range(pictures.shape[1]):  # a query of each episode
            queries = torch.from_numpy(pictures[:, number]).to(self.given.device)
            found.append(self._adapted.segment(normalise(queries, self._facts)))

        def of_all(name):
            return torch.stack([getattr(one, name) for one in found], 1).cpu().numpy()

        masks, probabilities = of_all("masks"), of_all("probabilities")
        counts = {name: of_all(name) for name in contract.COUNTS}
        return Prediction(probabilities.astype(np.float32), masks.astype(bool), counts)

    @property
    def losses(self):
        return self._adapted.losses.numpy()

    @property
    def parameters(self):
        def count(parts):
            parts = [getattr(self.model, part) for part in parts]
            return sum(p.numel() for part in parts if part is not None for p in part.parameters())

        tuned = self.settings.tuned_parts if self.settings.steps_taken else []
        return count(["masker", "attention"]), count(tuned)

    @property
    def _facts(self):
        return self.model.backbone.facts
