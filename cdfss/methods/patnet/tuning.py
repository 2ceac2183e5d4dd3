"""PATNet's tuning of its references at test time, on the query itself (its `finetune_reference`).

The loss compares prototypes of support and query that are not transformed, so that the references act
on it through the query's predicted mask alone. The published mask is an argmax, of which there is no
gradient; a soft mask, the mean probability of foreground, has one.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.methods.adam import Adam
from cdfss.methods.hsnet.adaptation import Adaptation
from cdfss.methods.hsnet.hypercorrelation import SupportPlane, resize_masks
from cdfss.methods.hsnet.model import COARSE, FINE, MIDDLE, resize_logits
from cdfss.methods.patnet.model import PATNet
from cdfss.methods.patnet.transformation import masked_mean


def divergence(
    query: Sequence[Tensor], query_mask: Tensor, support: Sequence[Tensor], support_mask: Tensor
) -> Tensor:
    """Kullback-Leibler divergence (B,) of the query's foreground prototypes from the support's.

    Prototypes are made distributions by a softmax over channels; the sum over the maps.

    Args:
        query, support: maps (B, C, h, w).
        query_mask, support_mask: (B, S, S) in 0..1.
    """
    total = 0.0
    for ours, theirs in zip(query, support, strict=True):
        ours, theirs = (_foreground(*pair) for pair in ((ours, query_mask), (theirs, support_mask)))
        divergences = F.kl_div(ours.log_softmax(-1), theirs.softmax(-1), reduction="none")
        total = total + divergences.sum(-1)
    return total


def _foreground(maps: Tensor, mask: Tensor) -> Tensor:
    mask = resize_masks(mask, maps.shape[-2:])
    return masked_mean(maps * mask, mask)


def of_first_reference(model: PATNet, pyramid: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The maps that the loss compares: those that share the first reference, blocks 0 to 3."""
    numbers = [number for level in model.reference_numbers for number in level]
    maps = [m for level in pyramid for m in level]
    return [m for m, number in zip(maps, numbers, strict=True) if number == 0]


def tune(
    adaptation: Adaptation,
    query: Tensor,
    steps: int,
    learning_rate: float,
    soft: bool,
    truth: Tensor | None = None,
) -> tuple[Adaptation, Tensor]:
    """Tune the references to each query by itself, by Adam from their present values.

    Args:
        adaptation: of a PATNet to the supports; left unchanged.
        query: normalised pictures (B, 3, S, S), as `Adaptation.segment` takes them.
        soft: whether the query's mask is the mean probability over the supports; else it is the
            predicted mask, as published, of which there is no gradient, so that no step is made.
        truth: masks of the queries (B, S, S), for modules that are shown them.

    Returns:
        An adaptation for these queries alone, whose references are (B, 2, width); and the losses (B, n)
        before the steps, one loss where there is no gradient.
    """
    tuned = copy.copy(adaptation)
    model = tuned.model = _fork(adaptation.model, len(query))
    optimiser = Adam(model.used_references, learning_rate)
    with torch.no_grad():
        pyramid = model.features(query)
        pyramid[COARSE] = model.filtered(pyramid[COARSE])
        supports = list(tuned.supports(len(query)))
        maps = [of_first_reference(model, p) for p in (pyramid, *(support for support, _ in supports))]
        kept = [_coordinates(model, pyramid, *support, truth) for support in supports] if soft else []
    losses = []
    for _ in range(steps):
        with torch.enable_grad():
            if soft:
                logits = [resize_logits(_logits(model, parts), query.shape[-2:]) for parts in kept]
                mask = sum(one.softmax(1)[:, 1] for one in logits) / len(logits)
            else:
                mask = tuned.segment(query, truth).masks.float()
            divergences = [divergence(maps[0], mask, m, s[1]) for m, s in zip(maps[1:], supports)]
            loss = sum(divergences) / len(divergences)
        losses.append(loss.detach())
        if not loss.requires_grad:
            break
        # Of the sum it is each query's own, since none depends on another's references.
        optimiser.step(torch.autograd.grad(loss.sum(), optimiser.parameters))
    return tuned, torch.stack(losses, 1)


def _coordinates(model: PATNet, query, support, mask: Tensor, truth: Tensor | None) -> list[tuple]:
    """What the correlations of the three strides are made from, whatever the references are."""
    parts = []
    for level in (FINE, MIDDLE, COARSE):
        plane = SupportPlane.of(mask, support[level][0].shape[-2:])
        parts.append((level, *model.coordinates(level, query[level], support[level], plane, truth), plane))
    return parts


def _logits(model: PATNet, parts: list[tuple]) -> Tensor:
    """Logits (B, 2, s, s) from `_coordinates`, by the present references."""
    return model.learner.mix(*(model.learner.squeeze(part[0], model.correlated(*part)) for part in parts))


def _fork(model: PATNet, queries: int) -> PATNet:
    """A model with references of its own for each query, all else shared."""
    shared = {id(child): child for name, child in model.named_children() if name != "references"}
    fork = copy.deepcopy(model, memo=shared)
    for layer in fork.references:
        layer.weight = nn.Parameter(layer.weight.detach().repeat(queries, 1, 1))
    return fork
