"""Nearest prototype by cosine similarity: the training-free baseline of work on DINO features."""

import numpy as np
from pydantic import Field

from cdfss.methods import contract


class Settings(contract.Settings):
    """One configuration for all domains and shots."""

    background: int = Field(5, ge=1, description="background prototypes (FPTrans takes 5)")
    sharpness: float = Field(
        20.0,
        gt=0,
        description="factor of the difference of cosines before the logistic function (FPTrans: 20)",
    )


class Prototypes(contract.Method):
    """Compares every position to prototypes, on the map that serves the supports themselves best."""

    needs = "backbone"
    batched = True
    negatives = True
    Settings = Settings

    def fit(self, pictures: np.ndarray, masks: np.ndarray) -> None:
        """Choose a map and take prototypes: pictures (E, k, S, S, 3) uint8 and masks (E, k, S, S) bool."""
        import torch

        from cdfss.running.precision import float32

        contract.refuse_one_class(masks)
        self.chosen_ = []  # per episode: number of the map, foreground (C,), background (P, C)
        with torch.inference_mode():
            for supports, truth in zip(pictures, torch.from_numpy(masks).to(self.given.device)):
                maps = self._maps(supports)
                others = self._maps(supports[:, :, ::-1]) if len(truth) == 1 else maps
                with float32(self.given.device):
                    trials = [self._trial(m, other, truth) for m, other in zip(maps, others)]
                    number = int(np.argmax(trials))
                    self.chosen_.append((number, *self._prototypes(maps[number], truth)))

    def predict(self, pictures: np.ndarray) -> contract.Prediction:
        """Segment n queries of each episode: pictures (E, n, S, S, 3) uint8."""
        import torch

        from cdfss.methods import similarity
        from cdfss.running.precision import float32

        size, found = pictures.shape[2], []
        with torch.inference_mode():
            for queries, (number, *prototypes) in zip(pictures, self.chosen_):
                maps = self._maps(queries)
                with float32(self.given.device):
                    found.append(similarity.scores(maps[number], *prototypes, size))
            probabilities = torch.sigmoid(self.settings.sharpness * torch.stack(found)).cpu().numpy()
        return contract.Prediction(probabilities)

    def _maps(self, pictures: np.ndarray) -> list:
        """Unit channel vectors (k, C, h, w) of all maps of pictures (k, S, S, 3)."""
        import torch
        import torch.nn.functional as F

        from cdfss.backbones.normalisation import normalise

        network = self.given.network
        images = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.given.device)
        strides = network(normalise(images, network.facts))
        return [F.normalize(m.float(), dim=1) for of_stride in strides for m in of_stride]

    def _prototypes(self, m, truth) -> tuple:
        """Of a map (k, C, h, w), with masks (k, S, S) bool."""
        from cdfss.methods import regression, similarity

        shares = regression.resized_to(truth.float()[:, None], m.shape[-1])  # (k, 1, h, w)
        cells = m.flatten(2).transpose(1, 2).flatten(0, 1)  # (k, C, h, w) -> (k * h * w, C)
        return similarity.prototypes(cells, shares.flatten(), self.settings.background)

    def _trial(self, m, other, truth) -> float:
        """How well a map (k, C, h, w) finds the mask of each support, by the others; IoU.

        A single support stands for its mirrored copy, whose map is `other`.
        """
        import torch

        from cdfss.methods import similarity

        size = truth.shape[-1]
        if len(truth) == 1:
            found = similarity.scores(other, *self._prototypes(m, truth), size) > 0
            return similarity.overlap(found, truth.flip(-1))
        found, true = [], []
        for left in range(len(truth)):
            rest = [i for i in range(len(truth)) if i != left]
            if truth[rest].any() and not truth[rest].all():
                found.append(
                    similarity.scores(m[left, None], *self._prototypes(m[rest], truth[rest]), size)
                )
                true.append(truth[left, None])
        return similarity.overlap(torch.cat(found) > 0, torch.cat(true)) if found else 0.0
