"""FPTrans, with modules on its maps or without, as a method."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from cdfss.methods import contract
from cdfss.methods.contract import Given, Prediction
from cdfss.methods.modules import known
from cdfss.methods.modules.settings import Tuned


class Settings(Tuned):
    """FPTrans with the modules named here, tuned to the supports of an episode."""

    modules: known.Modules = Field(
        (),
        description="modules on maps of supports and query, in order, as for hsnet; but none that stands "
        "behind the support mask or looks at pairs, since FPTrans averages over masks instead",
    )
    place: Literal["tokens", "purified"] = Field(
        "tokens",
        description="of the modules: tokens, on the patches after the last block, S / 16 wide, where HSNet "
        "has them too, between what extracts features and what is trained to compare them; purified, "
        "behind the purifier, S / 8 wide, just before the proxies",
    )

    @model_validator(mode="after")
    def _before_the_mask(self):
        for key, module in self._modules.items():
            if module.after_mask or module.of_pairs:
                raise ValueError(
                    f"module {key!r} stands behind the support mask or looks at pairs; FPTrans has no "
                    "place for it, since it masks no maps but averages over masks"
                )
        if self.steps and not self.tuned_parts:
            raise ValueError(
                f"steps is {self.steps}, but there is nothing to tune: no module has parameters"
            )
        return self

    def of_domain(self, domain, defaults):
        """As of all that is tuned; no place where there is no module."""
        settings = super().of_domain(domain, defaults)
        if not self.modules:
            del settings["place"]
        return settings


class Method(contract.Method):
    """FPTrans (`cdfss.methods.fptrans.model`). All supports make one prediction together, as published.

    What is drawn depends on the seed alone, and is the same for each episode and query.
    """

    needs = "source"
    host = "fptrans"
    batched = True
    Settings = Settings

    def __init__(self, settings: Settings, given: Given):
        super().__init__(settings, given)
        from cdfss.methods.fptrans import checkpoints
        from cdfss.methods.fptrans.adaptation import chain_for

        files = given.checkpoint, given.backbone, given.weights
        key = checkpoints.FORMAT, *files, given.device
        self.model = given.shared.once(key, lambda: checkpoints.build(*files).to(given.device))
        chain = chain_for(self.model, settings.modules, settings.place, given.image_size, given.seed)
        self.chain = chain.to(given.device)

    def fit(self, pictures, masks):
        supports = self._supports(pictures, masks)
        rate = self.settings.rate_for(self._trial, *supports)
        self._adapted = self._tuned(*supports, rate, self.settings.steps_taken)

    def learnt(self):
        return self._adapted.optimiser.values() if self.settings.steps_taken else {}

    def recall(self, pictures, masks, learnt):
        self._adapted = self._tuned(*self._supports(pictures, masks), self.settings.rate, steps=0)
        self._adapted.optimiser.restore(learnt)

    def _supports(self, pictures, masks):
        """Normalised pictures (E, k, 3, S, S) and masks (E, k, S, S) on the device."""
        import torch

        return self._images(pictures), torch.from_numpy(masks).to(self.given.device)

    def _tuned(self, supports, masks, rate, steps: int):
        """`adaptation.Adaptation` to E episodes after some steps."""
        from cdfss.methods.fptrans.adaptation import Adaptation

        how = self.settings.place, supports, masks, self.given.seed, rate
        adaptation = Adaptation(self.model, self.chain, *how)
        for _ in range(steps):
            adaptation.step()
        return adaptation

    def _trial(self, fold):
        def predicted(rates):
            steps = 0 if rates is None else self.settings.steps_taken
            adaptation = self._tuned(fold.supports, fold.masks, rates, steps)
            found = [adaptation.segment(query) for query in fold.queries.unbind(1)]
            return [(logits[:, 1] - logits[:, 0]).sigmoid() for logits in found]

        return predicted

    def predict(self, pictures):
        import torch

        queries = self._images(pictures).unbind(1)  # one of each episode
        logits = torch.stack([self._adapted.segment(one) for one in queries], 1)
        background, foreground = logits.unbind(2)
        probabilities = (foreground - background).sigmoid().cpu().numpy()
        return Prediction(probabilities, (foreground > background).cpu().numpy())

    def forget(self):
        self._adapted = None

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
        added = sum(p.numel() for p in self.chain.parameters())
        return added, added if self.settings.steps_taken else 0

    def _images(self, pictures: np.ndarray):
        """(E, n, S, S, 3) uint8 -> normalised (E, n, 3, S, S) on the device."""
        import torch

        from cdfss.backbones.normalisation import normalise

        there = torch.from_numpy(pictures).to(self.given.device)
        return normalise(there.flatten(0, 1), self.model.facts).unflatten(0, there.shape[:2])
