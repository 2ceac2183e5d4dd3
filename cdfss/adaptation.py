"""Adaptation of a model to the labelled supports of one episode (paper section 4.4)."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.hsnet import COARSE, FINE, MIDDLE, HSNet, resize_logits

PARTS = ("masker", "attention", "learner", "backbone")
PAIRS_AT_ONCE = 5  # in a step; more are summed up in turns, which bounds the memory


@dataclass
class Adapted:
    """A model tuned to k supports.

    Attributes:
        model: the tuned model; what was not trained is shared with the model it came from.
        losses: (steps,) cross-entropy before each step.
        optimiser: Adam as the last step left it.
    """

    model: HSNet
    losses: Tensor
    optimiser: "Adam"
    support_features: list[list[Tensor]]
    support_masks: Tensor

    @torch.no_grad()
    def predict(self, query: Tensor) -> Tensor:
        """Masks (B, S, S) in {0, 1} for normalised query images (B, 3, S, S).

        Each support votes with its own prediction; a pixel is foreground when at least half of
        the largest number of votes that any pixel got say so (HSNet, k-shot inference).
        """
        features = self.model.features(query)
        votes = torch.zeros(len(query), *query.shape[-2:], dtype=torch.long, device=query.device)
        for shot in range(len(self.support_masks)):
            support = [
                [m[shot : shot + 1].expand(len(query), -1, -1, -1) for m in maps]
                for maps in self.support_features
            ]
            mask = self.support_masks[shot : shot + 1].expand(len(query), -1, -1)
            logits = self.model.segment(features, support, mask)
            background, foreground = resize_logits(logits, query.shape[-2:]).unbind(1)
            votes = votes + (foreground > background)
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
    *,
    trained: Sequence[str] | None = None,
    pairs: str = "self",
    optimiser: "Adam | None" = None,
) -> Adapted:
    """Tune a model, from its present values, on the supports alone.

    Adam on the cross-entropy at image size between a support's mask and its prediction from
    another labelled support (or from itself), averaged over the pairs and their pixels. While
    backbone and learner are frozen only the stride-32 maps change between steps, so everything
    else (backbone, the two finer encodings, spectra) is computed once.

    Args:
        model: left unchanged.
        support_images: normalised, (k, 3, S, S).
        support_masks: (k, S, S) in {0, 1}.
        steps: number of Adam steps; 0 keeps the present values.
        learning_rate: of Adam.
        trained: parts of PARTS that are tuned; None for masker and attention, those the model has.
            A trained backbone keeps its batch statistics.
        pairs: "self", every support is its own query (k pairs, the paper's way), or
            "leave_one_out", every support is predicted from each other one (k (k - 1) pairs; the
            self-pair for k = 1).
        optimiser: `Adapted.optimiser` of an adaptation of the same parts, to go on with its
            moments; None starts anew.

    Raises:
        CdfssError: when shapes differ, a part or kind of pairs is unknown or not there, or steps
            are asked of a model with nothing to tune.
    """
    k, _, *size = support_images.shape
    if k == 0 or support_masks.shape != (k, *size):
        raise CdfssError(
            f"adapt: support images are {list(support_images.shape)}, masks "
            f"{list(support_masks.shape)}; expected (k, 3, S, S) and (k, S, S) with k of at least 1"
        )
    if not ((support_masks == 0) | (support_masks == 1)).all():
        raise CdfssError("adapt: support masks hold other values than 0 and 1; threshold them first")
    if steps < 0:
        raise CdfssError(f"adapt: steps={steps}; expected 0 or more")
    listed = support_pairs(k, pairs)
    if trained is None:
        trained = [part for part in ("masker", "attention") if getattr(model, part) is not None]
    if isinstance(trained, str) or len(set(trained)) != len(trained):
        raise CdfssError(f"adapt: trained={trained!r}; expected a list of parts, each named once")
    for part in trained:
        if part not in PARTS or getattr(model, part) is None:
            there = ", ".join(part for part in PARTS if getattr(model, part) is not None)
            raise CdfssError(f"adapt: the model has no part {part!r} to train; it has {there}")
    if steps > 0 and not trained:
        raise CdfssError(
            "adapt: nothing is left to tune: trained names no part, or the model has neither masker "
            "nor attention; trained=['learner'] or ['backbone'] tunes the rest"
        )
    tuned, parameters = _fork(model, trained)
    if optimiser is not None and [m.shape for m in optimiser.means] != [p.shape for p in parameters]:
        raise CdfssError("adapt: the optimiser is of an adaptation of other parts than those trained now")
    features = tuned.features(support_images)
    losses = torch.zeros(steps)
    optimiser = Adam(parameters, learning_rate, optimiser)
    if steps > 0:
        if {"learner", "backbone"} & set(trained):
            images = support_images if "backbone" in trained else None
            turns = _whole_model(tuned, images, features, support_masks, listed)
        else:
            turns = _coarse_alone(tuned, features, support_masks, listed)
        losses = torch.stack([_step(optimiser, turns, len(listed)) for _ in range(steps)]).cpu()
        if "backbone" in trained:
            features = tuned.features(support_images)
    return Adapted(tuned, losses, optimiser, features, support_masks)


def support_pairs(k: int, kind: str) -> list[tuple[int, int]]:
    """(query, support) numbers of the pairs that k supports are tuned on.

    Raises:
        CdfssError: for a kind other than "self" and "leave_one_out".
    """
    if kind not in ("self", "leave_one_out"):
        raise CdfssError(f"adapt: pairs={kind!r}; expected 'self' or 'leave_one_out'")
    if kind == "self" or k == 1:
        return [(i, i) for i in range(k)]
    return [(i, j) for i in range(k) for j in range(k) if i != j]


@dataclass
class _Turn:
    """Some of the pairs: how to get their logits (n, 2, s, s), and the masks (n, S, S) to hit."""

    logits: Callable[[], Tensor]
    target: Tensor


def _step(optimiser: "Adam", turns: list[_Turn], pairs: int) -> Tensor:
    """One step on the mean loss over all pairs; returns it."""
    total, gradients = 0.0, None
    for turn in turns:
        logits = resize_logits(turn.logits(), turn.target.shape[-2:])
        loss = F.cross_entropy(logits, turn.target) * (len(turn.target) / pairs)
        # Not backward(): it would also fill gradients of parts that are shared and frozen.
        part = torch.autograd.grad(loss, optimiser.parameters)
        gradients = part if gradients is None else [a + b for a, b in zip(gradients, part)]
        total = total + loss.detach()
    optimiser.step(gradients)
    return total


def _coarse_alone(model: HSNet, features, masks: Tensor, pairs) -> list[_Turn]:
    """Turns for trained masker and attention: all but the stride-32 maps is kept."""
    coarse = torch.cat(features[COARSE])  # (L * k, C, h, w)
    spectrum = None if model.masker is None else model.masker.spectrum(coarse)
    layers = len(features[COARSE])
    turns = []
    for begin in range(0, len(pairs), PAIRS_AT_ONCE):
        queries, supports = (list(part) for part in zip(*pairs[begin : begin + PAIRS_AT_ONCE]))
        with torch.no_grad():
            fine, middle = (
                torch.cat(
                    [_encode(model, level, features, masks, *pair) for pair in zip(queries, supports)]
                )
                for level in (FINE, MIDDLE)
            )

        def logits(queries=queries, supports=supports, fine=fine, middle=middle):
            maps = coarse if spectrum is None else model.masker.mask(*spectrum).to(coarse.dtype)
            maps = maps.unflatten(0, (layers, -1))
            query, support = (maps[:, _span(part)].flatten(0, 1) for part in (queries, supports))
            encoded = model.squeeze_coarse(query, support, masks[supports])
            return model.learner.mix(fine, middle, encoded)

        turns.append(_Turn(logits, masks[queries].long()))
    return turns


def _span(numbers: list[int]) -> list[int] | slice:
    """The same numbers as a slice where they follow each other: a view instead of a copy."""
    span = range(numbers[0], numbers[0] + len(numbers))
    return slice(span.start, span.stop) if numbers == list(span) else numbers


def _encode(model: HSNet, level: int, features, masks: Tensor, query: int, support: int) -> Tensor:
    """Encoding of one stride for one pair: one at a time, since the stride-8 correlations are large."""
    query_maps, support_maps = (
        [m[number : number + 1] for m in features[level]] for number in (query, support)
    )
    return model.squeeze(level, query_maps, support_maps, masks[support : support + 1])


def _whole_model(model: HSNet, images: Tensor | None, features, masks: Tensor, pairs) -> list[_Turn]:
    """Turns, a pair each, that compute all again: the learner trains; with `images` the backbone too."""

    def pyramid(number):
        if images is not None:
            return model.backbone(images[number : number + 1])
        return [[m[number : number + 1] for m in maps] for maps in features]

    def logits(query, support):
        maps = pyramid(query)
        others = maps if support == query else pyramid(support)
        return model.segment(maps, others, masks[support : support + 1])

    return [_Turn(lambda q=q, s=s: logits(q, s), masks[q : q + 1].long()) for q, s in pairs]


class Adam:
    """Adam with torch's defaults and, number for number, its arithmetic.

    torch.optim loads the compiler on first use, which takes longer than a small adaptation.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, parameters: list[Tensor], learning_rate: float, before: "Adam | None" = None):
        """Moments start at zero, or at copies of those of `before`."""
        self.parameters, self.learning_rate = parameters, learning_rate
        if before is None:
            self.steps = 0
            self.means = [torch.zeros_like(parameter) for parameter in parameters]
            self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        else:
            self.steps = before.steps
            self.means = [mean.clone() for mean in before.means]
            self.squares = [square.clone() for square in before.squares]

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


def _fork(model: HSNet, trained: Sequence[str]) -> tuple[HSNet, list[Tensor]]:
    """A model with copies of the trained parts, all else shared, and the parameters to tune."""
    shared = [getattr(model, part) for part in PARTS if part not in trained]
    fork = copy.deepcopy(model, memo={id(module): module for module in shared if module is not None})
    parameters = []
    for part in trained:
        parameters += getattr(fork, part).requires_grad_(True).parameters()
    return fork, parameters
