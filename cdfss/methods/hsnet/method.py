"""HSNet, with modules on its deepest maps or without, as a method."""

from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from cdfss.methods import contract
from cdfss.methods.contract import Given, Prediction
from cdfss.methods.modules import known
from cdfss.methods.modules.settings import Tuned


class Settings(Tuned):
    """HSNet with the modules named here, tuned to the supports of an episode."""

    modules: known.Modules = Field(
        (),
        description="modules on the stride-32 maps, in order: names, or name: {settings}, see below; "
        "or your own as folder/file.py:Class or module:Class (docs/how-to/own-method.md)",
    )
    trained: list[str] | None = Field(
        None,
        min_length=1,
        description="parts that are tuned; default all modules that have parameters. Besides these there "
        "are learner (PATNet's with its references) and backbone: full fine-tuning (paper table 5)",
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

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values):
        old = sorted({"masker", "attention", "hidden"} & set(values)) if isinstance(values, dict) else []
        if old:
            masker, attention = values.get("masker"), values.get("attention")
            hidden = values.get("hidden")
            acpa = "acpa" if hidden is None else f"{{acpa: {{hidden: {hidden}}}}}"
            wanted = [f"apm_{str(masker).lower()}"] * bool(masker) + [acpa] * bool(attention)
            raise ValueError(
                f"{' and '.join(old)}: modules go by name now; write modules: [{', '.join(wanted)}]"
            )
        return values

    @model_validator(mode="after")
    def _consistent(self):
        keys = list(self._modules)
        if self.trained is not None and len(set(self.trained)) != len(self.trained):
            raise ValueError(f"trained is {self.trained}, which names a part twice")
        for part in self.trained or []:
            if part not in known.WHOLE and part not in keys:
                raise ValueError(
                    f"trained names {part!r}, which the variant does not have; there are "
                    f"{', '.join([*keys, *sorted(known.WHOLE)])}"
                )
            if part in keys and not self._modules[part].learns:
                raise ValueError(f"trained names {part!r}, which has no parameters")
        if self.mutual_information and not {*known.by_place(self._modules)[0], "backbone"} & set(
            self.tuned_parts
        ):
            raise ValueError(
                "mutual_information is of maps before the support mask and before the first module that "
                "looks at pairs; it changes nothing where neither the backbone nor a module there is tuned"
            )
        whole = sorted(known.WHOLE & set(self.tuned_parts))
        if self.learning_rate == "auto" and (whole or self.goes_on):
            why = f"{whole[0]} is tuned" if whole else "reset is never"
            raise ValueError(
                "learning_rate is auto, which is for modules that are tuned anew in every episode, but "
                f"{why}; give it a number"
            )
        if self.steps and not self.tuned_parts:
            raise ValueError(
                f"steps is {self.steps}, but there is nothing to tune: no module has parameters, and "
                "trained names no part"
            )
        return self

    @property
    def tuned_parts(self) -> list[str]:
        """Parts of the model that steps change."""
        return super().tuned_parts if self.trained is None else self.trained

    def of_domain(self, domain, defaults):
        """As of all that is tuned; how only where there are steps."""
        settings = super().of_domain(domain, defaults) | {"trained": self.tuned_parts}
        idle = set() if settings["steps"] else {"trained", "pairs", "reset", "mutual_information"}
        if self.vote == "published":  # which is that of all rows made before there were others
            idle.add("vote")
        return {key: value for key, value in settings.items() if key not in idle}

    @property
    def goes_on(self):
        return self.reset == "never"


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
        alone = known.WHOLE & set(settings.tuned_parts) or settings.goes_on
        self.most_at_once = 1 if alone else None

    @staticmethod
    def _network():
        """The class of the model."""
        from cdfss.methods.hsnet.model import HSNet

        return HSNet

    def _source_model(self):
        """The source model with the variant's modules, whose first weights depend on the seed alone."""
        given, network = self.given, self._network()
        files = given.checkpoint, given.backbone, given.weights
        key = network, *files, given.image_size, given.device
        source = given.shared.once(key, self._made_source_model)
        return source.with_modules(self.settings.modules, given.seed)

    def _made_source_model(self):
        """The source model alone, on the device; its backbone is that of other methods, if it is stock."""
        from cdfss.methods.hsnet import checkpoints

        given = self.given
        model = checkpoints.build(
            given.checkpoint,
            given.backbone,
            lambda: given.network,
            self._network(),
            image_size=given.image_size,
        )
        given.shared.remembering(model.backbone)
        return model.to(given.device)

    @cached_property
    def _trial_runner(self):
        from cdfss.methods.hsnet.step import Runner

        return Runner(self.given.compile)

    @cached_property
    def tuning(self) -> dict:
        """How `adaptation.Adaptation` takes what the settings say, but for steps and rate."""
        from cdfss.methods.hsnet.step import Runner

        settings = self.settings
        return {
            "trained": settings.tuned_parts,
            "pairs": settings.pairs,
            "mutual_information": settings.mutual_information,
            "vote": settings.vote,
            "runner": Runner(self.given.compile),
        }

    def fit(self, pictures, masks):
        before, self._adapted = self._adapted if self.settings.goes_on else None, None
        supports = self._supports(pictures, masks)
        self._adapted = self._adapt(*supports, self.rate_for(*supports), self.settings.steps_taken, before)

    def _supports(self, pictures, masks):
        """Normalised pictures (E, k, 3, S, S) and masks (E, k, S, S) of 0 and 1, on the device."""
        import torch

        from cdfss.backbones.normalisation import normalise

        images = normalise(torch.from_numpy(pictures).to(self.given.device).flatten(0, 1), self._facts)
        masks_there = torch.from_numpy(masks).to(self.given.device).float()
        return images.unflatten(0, masks.shape[:2]), masks_there

    def _adapt(self, images, masks, rate, steps, before=None):
        """`adaptation.Adaptation` to E episodes after some steps, from another one on if given."""
        from cdfss.methods.hsnet.adaptation import adapt

        return adapt(
            before.model if before else self.model,
            images,
            masks,
            steps,
            rate,
            **self.tuning,
            optimiser=before.optimiser if before else None,
        )

    def rate_for(self, images, masks):
        """The learning rate of episodes: a number, or (E,) chosen from their supports.

        Args:
            images, masks: (E, k, 3, S, S) normalised and (E, k, S, S) of 0 and 1.
        """
        return self.settings.rate_for(self._trial, images, masks)

    def _trial(self, fold):
        from cdfss.methods.hsnet.adaptation import Adaptation

        # A runner of its own: with fewer supports, its steps have other shapes.
        how = self.tuning | {"runner": self._trial_runner}
        first = Adaptation(self.model, fold.supports, fold.masks, self.settings.rate, **how)

        def predicted(rates):
            adaptation = first if rates is None else first.anew(rates)
            for _ in range(0 if rates is None else self.settings.steps_taken):
                adaptation.step()
            return [
                adaptation.segment(query, truth).probabilities
                for query, truth in zip(fold.queries.unbind(1), fold.truths.unbind(1))
            ]

        return predicted

    def predict(self, pictures, truths=None):
        import torch

        from cdfss.backbones.normalisation import normalise

        found = []
        for number in range(pictures.shape[1]):  # a query of each episode
            queries = torch.from_numpy(pictures[:, number]).to(self.given.device)
            shown = None if truths is None else torch.from_numpy(truths[:, number]).to(self.given.device)
            found.append(self._segmented(normalise(queries, self._facts), shown))

        def of_all(name):
            return torch.stack([getattr(one, name) for one in found], 1).cpu().numpy()

        masks, probabilities = of_all("masks"), of_all("probabilities")
        counts = {name: of_all(name) for name in contract.COUNTS}
        return Prediction(probabilities.astype(np.float32), masks.astype(bool), counts)

    def learnt(self):
        return self._adapted.optimiser.values() if self.settings.steps_taken else {}

    def recall(self, pictures, masks, learnt):
        supports = self._supports(pictures, masks)
        self._adapted = self._adapt(*supports, self.settings.rate, steps=0)
        self._adapted.resume(learnt)

    def forget(self):
        if not self.settings.goes_on:
            self._adapted = None

    def _segmented(self, queries, truths):
        """`adaptation.Segmentation` of normalised queries (E, 3, S, S), and of their masks for oracles."""
        return self._adapted.segment(queries, truths)

    @property
    def losses(self):
        return self._adapted.losses.numpy()

    @property
    def rates(self):
        if not self.settings.chooses_rate:
            return None
        return self._adapted.optimiser.learning_rate.cpu().numpy()

    @property
    def parameters(self):
        def count(parts):
            return sum(p.numel() for part in parts for p in self.model.part(part).parameters())

        tuned = self.settings.tuned_parts if self.settings.steps_taken else []
        return count(self.model.chain.tunable), count(tuned)

    @property
    def _facts(self):
        return self.model.backbone.facts
