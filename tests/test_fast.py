"""The path that runs equals the plain one, which is written out in benchmarks/plain.py."""

import copy

import plain
import pytest
import torch
from conftest import balanced, episode_of
from reference import VARIANTS

from cdfss import HSNet, adapt


def agree(backbone, variant, shot, size):
    torch.manual_seed(0)
    model = HSNet(backbone, image_size=size, **VARIANTS[variant]).eval()
    model.learner.requires_grad_(False)
    query, supports, masks = episode_of(shot, size)
    # Over several stride-32 positions: with one alone the FFT of the plain path has real bins, whose
    # phase is a matter of the sign of zero (docs/explanation/fidelity.md).
    for number, mask in enumerate(masks):
        mask[2 * size // 5 :, size // 3 : size - number] = 1
    balanced(model, query, supports, masks)
    steps = 0 if variant == "baseline" else 3
    ours = adapt(model, supports, masks, steps, 0.05)
    if steps:
        _, losses = plain.adapt(model, supports, masks, steps, 0.05)
        assert ours.losses.tolist() == pytest.approx(losses, rel=1e-4)
    with torch.no_grad():
        fast = ours.model(query, supports[:1], masks[:1])
        literal = plain.logits(ours.model, query, supports[:1], masks[:1])
    assert (fast - literal).abs().max() < 1e-4 * literal.abs().max()
    apart = ours.predict(query)[0] != plain.predict(ours.model, query, supports, masks)
    assert apart.float().mean() < 0.002


@pytest.mark.parametrize("size", [96, 128])
@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_shot_and_size_equals_the_plain_path(variant, shot, size):
    agree("resnet18", variant, shot, size)


@pytest.mark.parametrize(
    ("backbone", "variant"),
    [("resnet50", "apm_m_acpa"), ("vgg16", "apm_m"), ("efficientnet_lite0", "apm_m_acpa")],
)
def test_every_kind_of_backbone_equals_the_plain_path(backbone, variant):
    agree(backbone, variant, 1, 96)


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_masks_that_cover_nothing_or_everything_equal_the_plain_path(share):
    torch.manual_seed(0)
    model = HSNet("resnet18", image_size=96).eval()
    query, supports, _ = episode_of(1, 96)
    mask = torch.zeros(1, 96, 96)
    mask[:, :, : round(96 * share)] = 1
    with torch.no_grad():
        fast, literal = model(query, supports, mask), plain.logits(model, query, supports, mask)
    assert (fast - literal).abs().max() < 1e-4 * literal.abs().max()


def test_source_training_has_the_gradients_of_the_plain_path():
    """A batch whose masks differ: positions of all of them are correlated for each."""
    torch.manual_seed(0)
    ours = HSNet("resnet18", image_size=96)
    theirs = copy.deepcopy(ours)
    query, supports, masks = episode_of(3, 96)
    queries = torch.cat([query, query.flip(-1), query.flip(-2)])
    target = masks.flip(0).long()
    losses = [
        torch.nn.functional.cross_entropy(logits, target)
        for logits in (ours(queries, supports, masks), plain.logits(theirs, queries, supports, masks))
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    gradients = [
        torch.autograd.grad(loss, list(model.learner.parameters()))
        for loss, model in zip(losses, (ours, theirs))
    ]
    for a, b in zip(*gradients):
        assert (a - b).norm() < 1e-3 * b.norm() + 1e-7
