"""Adaptation of the frequency modules to the labelled supports of one episode (paper section 4.4)."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.hsnet import COARSE, FINE, MIDDLE, HSNet, resize_logits


@dataclass
class Adapted:
    """A model tuned to k supports.

    Attributes:
        model: the tuned model; backbone and learner are shared with the model it came from.
        losses: (steps,) cross-entropy before each step.
    """

    model: HSNet
    losses: Tensor
    support_features: list[list[Tensor]]
    support_masks: Tensor

    @torch.no_grad()
    def predict(self, query: Tensor) -> Tensor:
        """Masks (B, S, S) in {0, 1} for normalised query images (B, 3, S, S).

        Each support votes with its own prediction; a pixel is foreground when at least half of
        the largest number of votes that any pixel got say so (HSNet, k-shot inference).
        """
        features = self.model.features(query)
        votes = 0
        for shot in range(len(self.support_masks)):
            support = [
                [m[shot : shot + 1].expand(len(query), -1, -1, -1) for m in maps]
                for maps in self.support_features
            ]
            mask = self.support_masks[shot : shot + 1].expand(len(query), -1, -1)
            logits = self.model.segment(features, support, mask)
            votes = votes + resize_logits(logits, query.shape[-2:]).argmax(1)
        return vote(votes)


def vote(votes: Tensor) -> Tensor:
    """Vote counts (B, S, S) -> masks (B, S, S) in {0, 1}: votes / max(1, most votes) >= 0.5."""
    most = votes.flatten(1).max(1).values.clamp(min=1)
    return (2 * votes >= most[:, None, None]).long()


def adapt(
    model: HSNet,
    support_images: Tensor,
    support_masks: Tensor,
    steps: int,
    learning_rate: float,
) -> Adapted:
    """Tune masker and attention, from their present values, on the supports alone.

    Every support is its own query; the loss is the cross-entropy against its mask at image size,
    averaged over the k self-pairs and their pixels; Adam. Only the stride-32 maps change between
    steps, so everything else (backbone, the two finer encodings, spectra) is computed once.

    Args:
        model: left unchanged.
        support_images: normalised, (k, 3, S, S).
        support_masks: (k, S, S) in {0, 1}.
        steps: number of Adam steps; 0 keeps the present values.
        learning_rate: of Adam.

    Raises:
        CdfssError: when steps are asked of a model without masker and attention, or shapes differ.
    """
    k, _, *size = support_images.shape
    if support_masks.shape != (k, *size):
        raise CdfssError(
            f"adapt: support images are {list(support_images.shape)}, masks "
            f"{list(support_masks.shape)}; expected (k, 3, S, S) and (k, S, S)"
        )
    tuned = _fork(model)
    modules = [module for module in (tuned.masker, tuned.attention) if module is not None]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    if steps > 0 and not parameters:
        raise CdfssError("adapt: the model has neither masker nor attention, nothing can be tuned")

    features = tuned.features(support_images)
    adapted = Adapted(tuned, torch.zeros(steps), features, support_masks)
    if steps == 0:
        return adapted
    target = support_masks.long()
    with torch.no_grad():
        fine, middle = (
            tuned.squeeze(level, features[level], features[level], support_masks)
            for level in (FINE, MIDDLE)
        )
    coarse = torch.cat(features[COARSE])  # (L * k, C, h, w)
    if tuned.masker is not None:
        spectrum = tuned.masker.spectrum(coarse)
    optimiser = Adam(parameters, learning_rate)
    losses = []
    for _ in range(steps):
        if tuned.masker is not None:
            coarse = tuned.masker.mask(*spectrum)
        squeezed = tuned.squeeze_coarse(coarse, coarse, support_masks)
        logits = resize_logits(tuned.learner.mix(fine, middle, squeezed), size)
        loss = F.cross_entropy(logits, target)
        # Not backward(): it would also fill gradients of the shared, frozen learner.
        optimiser.step(torch.autograd.grad(loss, parameters))
        losses.append(loss.detach())
    adapted.losses = torch.stack(losses).cpu()
    return adapted


class Adam:
    """Adam with torch's defaults and, number for number, its arithmetic.

    torch.optim loads the compiler on first use, which takes longer than a small adaptation.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, parameters: list[Tensor], learning_rate: float):
        self.parameters, self.learning_rate, self.steps = parameters, learning_rate, 0
        self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, gradients) -> None:
        """Move every parameter in place by its gradient."""
        self.steps += 1
        first, second = self.BETAS
        size = self.learning_rate / (1 - first**self.steps)
        scale = math.sqrt(1 - second**self.steps)
        for parameter, gradient, mean, square in zip(
            self.parameters, gradients, self.means, self.squares, strict=True
        ):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            parameter.addcdiv_(mean, (square.sqrt() / scale).add_(self.EPSILON), value=-size)


def _fork(model: HSNet) -> HSNet:
    """A model with its own masker and attention that shares everything else."""
    shared = {id(module): module for module in (model.backbone, model.learner)}
    return copy.deepcopy(model, memo=shared)
