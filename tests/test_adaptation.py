import copy
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import balanced, episode_of, small_hsnet
from reference import VARIANTS, disks, fill, images, numbers, relative_error

from cdfss import CdfssError, HSNet, adapt
from cdfss.data import metrics
from cdfss.methods import frequency
from cdfss.methods.hsnet.adaptation import RULES, Adam, Segmentation, support_pairs, vote
from cdfss.methods.hsnet.step import Runner
from cdfss.running.precision import precision as in_precision


@pytest.mark.parametrize("variant", VARIANTS)
def test_adaptation_equals_the_published_one(variant):
    theirs = numbers("adaptation")
    model = fill(HSNet(**VARIANTS[variant]), theirs["decoder2.2.bias"]).eval()
    query = images("adapt/query", 1, 400)
    supports, masks = images("adapt/support", 5, 400), disks("adapt/support_mask", 5, 400)
    with torch.no_grad():
        logits = model(query, supports[:1], masks[:1], resize=False)
    assert relative_error(logits, theirs[f"{variant}/logits_before"]) < 1e-4
    if variant == "baseline":
        adapted = adapt(model, supports[:1], masks[:1], 0, 0.0)
    else:
        adapted = adapt(model, supports[:1], masks[:1], 10, float(theirs[f"{variant}/lr"]))
        assert relative_error(adapted.losses, theirs[f"{variant}/losses"]) < 1e-5
        with torch.no_grad():
            logits = adapted.model(query, supports[:1], masks[:1], resize=False)
        assert relative_error(logits, theirs[f"{variant}/logits_after"]) < 1e-4
    for name, values in masks_of(adapted.model).items():
        mask = values.detach()
        expected = theirs[f"{variant}/{name}_mean_std"]
        assert [float(mask.mean()), float(mask.std())] == pytest.approx(expected.tolist(), abs=1e-3)
    foreground = int(adapted.predict(query).sum())
    assert foreground == pytest.approx(int(theirs[f"{variant}/pred_1shot_foreground"]), rel=5e-3)
    voted = adapt(adapted.model, supports, masks, 0, 0.0).predict(query)
    assert int(voted.sum()) == pytest.approx(int(theirs[f"{variant}/pred_5shot_foreground"]), rel=5e-3)
    intersection, union = metrics.counts(voted, disks("adapt/query_mask", 1, 400))
    ours = [intersection[0, 1], union[0, 1]]
    assert ours == pytest.approx(theirs[f"{variant}/pred_5shot_intersection_union"].tolist(), rel=5e-3)


def masks_of(model):
    """Parameters of a model's APM by name; none without."""
    return next((dict(model.part(key)) for key in model.chain.parts if key.startswith("apm")), {})


def phases(model):
    return masks_of(model)["mask_phase"]


def plain(model, supports, masks, steps, rate, trained, pairs):
    """The literal adaptation: the whole model again in every step, all parameters of `trained`."""
    model = copy.deepcopy(model)
    parameters = [p for part in trained for p in model.part(part).requires_grad_(True).parameters()]
    optimiser = torch.optim.Adam(parameters, rate)
    losses = []
    for _ in range(steps):
        total = 0
        for query, support in pairs:
            maps, others = (model.backbone(supports[[number]]) for number in (query, support))
            logits = model.segment(maps, others, masks[[support]])
            logits = F.interpolate(logits, supports.shape[-2:], mode="bilinear", align_corners=True)
            total = total + F.cross_entropy(logits, masks[[query]].long()) / len(pairs)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    return losses, model


def same_parameters(ours, theirs, trained, rate):
    # Adam divides by the gradient's size: where that is rounding, steps differ, by less than a step.
    for part in trained:
        pairs = zip(ours.part(part).parameters(), theirs.part(part).parameters())
        apart = torch.cat([(a - b).detach().abs().flatten() for a, b in pairs])
        if apart.mean() > 0.01 * rate or apart.max() > rate:
            return False
    return True


SELF = [(0, 0), (1, 1), (2, 2)]
OTHERS = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


@pytest.mark.parametrize(("kind", "pairs", "size"), [("self", SELF, 96), ("leave_one_out", OTHERS, 101)])
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "baseline"])
def test_adaptation_from_kept_parts_equals_the_plain_one(variant, kind, pairs, size):
    model = small_hsnet(size, **VARIANTS[variant])
    _, supports, masks = episode_of(3, size)
    trained = model.chain.tunable
    ours = adapt(model, supports, masks, 4, 0.05, pairs=kind)
    losses, theirs = plain(model, supports, masks, 4, 0.05, trained, pairs)
    assert ours.losses.tolist() == pytest.approx(losses, rel=1e-5)
    assert same_parameters(ours.model, theirs, trained, 0.05)


@pytest.mark.parametrize(
    "trained", [["learner"], ["backbone"], ["learner", "backbone"], ["apm_s", "learner"]]
)
@pytest.mark.parametrize(("kind", "pairs"), [("self", SELF), ("leave_one_out", OTHERS)])
def test_fine_tuning_equals_the_plain_one(trained, kind, pairs):
    # In float64 (masks only compute in float32, so without them where they are not trained): Adam's
    # steps do not depend on a gradient's size, so that those which are all rounding would grow.
    model = small_hsnet(80, modules=["apm_s"] if "apm_s" in trained else []).double()
    query, supports, masks = (part.double() for part in episode_of(3, 80))
    before = copy.deepcopy(model.state_dict())
    ours = adapt(model, supports, masks, 3, 1e-4, trained=trained, pairs=kind)
    losses, theirs = plain(model, supports, masks, 3, 1e-4, trained, pairs)
    assert ours.losses.tolist() == pytest.approx(losses, rel=1e-5)
    assert same_parameters(ours.model, theirs, trained, 1e-4)
    for part in {"learner", "backbone", *trained}:
        moved = any(
            not torch.equal(a, b)
            for a, b in zip(ours.model.part(part).parameters(), model.part(part).parameters())
        )
        assert moved == (part in trained)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert ours.losses[-1] < ours.losses[0]
    # What is predicted is what the tuned model says, its own support features included.
    votes = sum(theirs(query, s[None], m[None]).argmax(1) for s, m in zip(supports, masks))
    assert (ours.predict(query) != vote(votes)).float().mean() < 0.01


@pytest.mark.parametrize("kind", ["self", "leave_one_out"])
@pytest.mark.parametrize("part", ["acpa", "learner", "backbone"])
def test_gradients_are_the_slope_of_the_loss(part, kind):
    """Against finite differences: a library's backward pass may be wrong in a way that all paths share."""
    model = small_hsnet(80, modules=["acpa"]).double()
    _, supports, masks = (p.double() for p in episode_of(2, 80))
    adapted = adapt(model, supports, masks, 1, 1e-9, trained=[part], pairs=kind)
    gradients = [mean / (1 - Adam.BETAS[0]) for mean in adapted.optimiser.means]
    square = float(sum((g**2).sum() for g in gradients))

    @torch.no_grad()
    def loss(step):
        moved = copy.deepcopy(model)
        for parameter, gradient in zip(moved.part(part).parameters(), gradients):
            parameter += step * gradient
        pairs = support_pairs(2, kind)
        logits = [
            moved(supports[[query]], supports[[support]], masks[[support]]) for query, support in pairs
        ]
        targets = [masks[[query]].long() for query, _ in pairs]
        return F.cross_entropy(torch.cat(logits), torch.cat(targets)).item()

    step = 1e-9 / square  # changes the loss by 1e-9
    assert (loss(step) - loss(-step)) / (2 * step) == pytest.approx(square, rel=1e-3)


def test_a_trained_backbone_keeps_its_batch_statistics():
    model, (_, supports, masks) = small_hsnet(64), episode_of(1, 64)
    tuned = adapt(model, supports, masks, 2, 1e-3, trained=["backbone"]).model
    for ours, theirs in zip(model.backbone.buffers(), tuned.backbone.buffers()):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("modules", [["apm_m"], ["apm_m", "acpa"]])
def test_adaptation_goes_on_with_the_moments_of_the_last_one(modules):
    model, (_, supports, masks) = small_hsnet(modules=modules), episode_of()
    whole = adapt(model, supports, masks, 5, 0.1)
    first = adapt(model, supports, masks, 2, 0.1)
    moments = [mean.clone() for mean in first.optimiser.means]
    second = adapt(first.model, supports, masks, 3, 0.1, optimiser=first.optimiser)
    assert torch.equal(torch.cat([first.losses, second.losses]), whole.losses)
    assert torch.equal(phases(second.model), phases(whole.model))
    assert all(torch.equal(a, b) for a, b in zip(moments, first.optimiser.means))
    anew = adapt(first.model, supports, masks, 3, 0.1)
    assert not torch.equal(phases(anew.model), phases(whole.model))


def test_leaving_one_out_of_one_is_the_self_pair():
    assert support_pairs(1, "leave_one_out") == support_pairs(1, "self") == [(0, 0)]
    assert support_pairs(3, "self") == SELF
    assert support_pairs(3, "leave_one_out") == OTHERS


def test_before_the_first_step_both_kinds_of_masks_are_one_module():
    query, supports, masks = episode_of()
    for attention in ([], ["acpa"]):
        logits = []
        for masker in ("apm_s", "apm_m"):
            model = small_hsnet(modules=[masker, *attention])
            logits.append(adapt(model, supports, masks, 0, 0.1).model(query, supports[:1], masks[:1]))
        assert torch.equal(*logits)


def test_adaptation_leaves_the_given_model_as_it_was():
    model = small_hsnet(modules=["apm_m", "acpa"])
    before = copy.deepcopy(model.state_dict())
    adapted = adapt(model, *episode_of()[1:], 3, 0.1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.equal(phases(adapted.model), phases(model))
    assert adapted.model.learner is model.learner


def test_adaptation_goes_on_from_the_present_values():
    model, (_, supports, masks) = small_hsnet(modules=["apm_s"]), episode_of()
    first = adapt(model, supports, masks, 4, 0.1)
    again = adapt(first.model, supports, masks, 1, 0.1)
    assert again.losses[0] < first.losses[0]


def test_adam_is_torchs_adam():
    torch.manual_seed(0)
    ours = [torch.randn(4, 5), torch.randn(3)]
    theirs = [value.clone().requires_grad_() for value in ours]
    optimiser, reference = Adam(ours, 0.03), torch.optim.Adam(theirs, 0.03)
    for _ in range(20):
        gradients = [torch.randn_like(value) for value in ours]
        optimiser.step(gradients)
        for parameter, gradient in zip(theirs, gradients):
            parameter.grad = gradient
        reference.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs))


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("no part 'apm_s' to train; it has learner, backbone", {"trained": ["apm_s"]}),
        ("no part 'decoder'", {"trained": ["decoder"]}),
        ("each named once", {"trained": ["learner", "learner"]}),
        ("each named once", {"trained": "learner"}),
        ("nothing is left to tune", {"trained": []}),
        ("pairs='all'; expected 'self' or 'leave_one_out'", {"pairs": "all"}),
    ],
)
def test_parts_and_pairs_that_are_not_there_are_refused(message, arguments):
    with pytest.raises(CdfssError, match=message):
        adapt(small_hsnet(), *episode_of()[1:], 1, 0.1, **arguments)


def test_wrong_supports_steps_and_optimisers_are_refused():
    model, (_, supports, masks) = small_hsnet(modules=["apm_s"]), episode_of()
    for arguments, message in (
        ((supports, 255 * masks, 1), "other values than 0 and 1"),
        ((supports[:0], masks[:0], 1), "k of at least 1"),
        ((supports, masks, -1), "steps=-1"),
    ):
        with pytest.raises(CdfssError, match=message):
            adapt(model, *arguments, 0.1)
    other = adapt(model, supports, masks, 1, 0.1, trained=["learner"]).optimiser
    with pytest.raises(CdfssError, match="other parts"):
        adapt(model, supports, masks, 1, 0.1, optimiser=other)


def test_a_prediction_in_inference_mode_does_not_spoil_an_adaptation():
    model, (query, supports, masks) = small_hsnet(modules=["apm_s"]), episode_of()
    model.learner.requires_grad_(False)
    frequency.inverse_transform.cache_clear()
    with torch.inference_mode():
        model(query, supports[:1], masks[:1])
    losses = adapt(model, supports, masks, 2, 0.1).losses
    assert losses.tolist() == adapt(small_hsnet(modules=["apm_s"]), supports, masks, 2, 0.1).losses.tolist()


def test_double_precision_is_adapted_too():
    _, supports, masks = episode_of()
    exact = adapt(small_hsnet(modules=["apm_m", "acpa"]), supports, masks, 2, 0.1)
    other = adapt(
        small_hsnet(modules=["apm_m", "acpa"]).double(), supports.double(), masks.double(), 2, 0.1
    )
    assert other.losses.tolist() == pytest.approx(exact.losses.tolist(), rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("name", "losses_apart", "pixels_apart"), [("tf32", 0, 0), ("bfloat16", 0.001, 0.01)]
)
def test_other_precisions_agree(variant, name, losses_apart, pixels_apart):
    """On a processor tf32 is float32. bfloat16: losses to 0.1 %, masks to 1 % of the pixels."""
    query, supports, masks = episode_of()
    steps = 0 if variant == "baseline" else 3
    model = balanced(small_hsnet(**VARIANTS[variant]), query, supports, masks)
    results = []
    for precision in ("float32", name):
        with in_precision(precision, torch.device("cpu")):
            adapted = adapt(model, supports, masks, steps, 0.05)
            results.append((adapted.losses.numpy(), adapted.predict(query)))
    (losses, mask), (other_losses, other_mask) = results
    assert np.abs(other_losses - losses).max(initial=0) <= losses_apart * losses.max(initial=0)
    assert (other_mask != mask).float().mean() <= pixels_apart
    assert 0.1 < mask.float().mean() < 0.9


@pytest.mark.parametrize("trained", [["learner"], ["backbone"], ["apm_m", "acpa"]])
def test_weights_that_move_are_used_in_bfloat16_too(trained):
    _, supports, masks = episode_of()
    model = small_hsnet(modules=["apm_m", "acpa"])
    rate = 0.1 if "apm_m" in trained else 1e-3
    losses = []
    for precision in ("float32", "bfloat16"):
        with in_precision(precision, torch.device("cpu")):
            losses.append(adapt(model, supports, masks, 6, rate, trained=trained).losses)
    moved = losses[0][0] - losses[0][-1]
    assert moved > 0
    assert losses[1][0] - losses[1][-1] == pytest.approx(moved.item(), rel=0.2)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_steps_agree_or_are_refused_in_words():
    import torch._dynamo

    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        with pytest.raises(CdfssError, match=r"compute\.compile: false, or a later torch"):
            Runner(compiled=True)
        return
    query, supports, masks = episode_of()
    model = balanced(small_hsnet(modules=["apm_m", "acpa"]), query, supports, masks)
    model.learner.requires_grad_(False)
    found = [
        adapt(model, supports, masks, 3, 0.05, runner=runner)
        for runner in (Runner(), Runner(compiled=True))
    ]
    assert found[1].losses.tolist() == pytest.approx(found[0].losses.tolist(), rel=1e-5)
    assert (found[1].predict(query) != found[0].predict(query)).float().mean() < 0.001


def test_nothing_to_tune_is_refused():
    with pytest.raises(CdfssError, match="nothing is left to tune"):
        adapt(small_hsnet(), *episode_of()[1:], 1, 0.1)


def test_masks_of_another_size_are_refused():
    with pytest.raises(CdfssError, match="expected \\(k, 3, S, S\\) and \\(k, S, S\\)"):
        adapt(small_hsnet(modules=["apm_s"]), torch.randn(2, 3, 96, 96), torch.zeros(1, 96, 96), 1, 0.1)


def test_a_batch_of_queries_is_predicted_as_one_by_one():
    model = small_hsnet(modules=["apm_s"])
    _, supports, masks = episode_of()
    queries = torch.randn(3, 3, 96, 96)
    adapted = adapt(model, supports, masks, 1, 0.1)
    together = adapted.predict(queries)
    assert all(torch.equal(adapted.predict(q[None])[0], m) for q, m in zip(queries, together))


def test_votes_need_half_of_the_most_votes():
    votes = torch.tensor([[[0, 1], [2, 4]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]])
    assert vote(votes).tolist() == [[[0, 0], [1, 1]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]]


def batch_of(episodes, k, size):
    """Queries (E, 3, S, S), supports (E, k, 3, S, S) and masks (E, k, S, S) that cover other shares."""
    torch.manual_seed(2)
    masks = torch.zeros(episodes, k, size, size)
    for number, mask in enumerate(masks.flatten(0, 1)):
        mask[size // 5 : size // 2 + 7 * number % (size // 3), size // 3 + number : -size // 4] = 1
    queries, supports = torch.randn(episodes, 3, size, size), torch.randn(episodes, k, 3, size, size)
    return queries, supports, masks


@pytest.mark.parametrize(
    ("shot", "kind", "size"), [(1, "self", 101), (3, "leave_one_out", 96), (6, "self", 96)]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_of_episodes_is_adapted_as_one_by_one(variant, shot, kind, size):
    queries, supports, masks = batch_of(3, shot, size)
    model = balanced(small_hsnet(size, **VARIANTS[variant]), queries[:1], supports[0], masks[0])
    steps = 0 if variant == "baseline" else 3
    together = adapt(model, supports, masks, steps, 0.05, pairs=kind)
    predicted = together.predict(queries)
    assert together.losses.shape == (3, steps)
    first = adapt(model, supports, masks, min(steps, 1), 0.05, pairs=kind).optimiser.means
    for number in range(3):
        episode = supports[number], masks[number]
        alone = adapt(model, *episode, steps, 0.05, pairs=kind)
        assert together.losses[number].tolist() == pytest.approx(alone.losses.tolist(), rel=1e-5)
        apart = predicted[number] != alone.predict(queries[number : number + 1])[0]
        assert apart.float().mean() < 0.001
        # Gradients that nearly cancel are mostly rounding; another episode's would be far apart.
        gradients = adapt(model, *episode, min(steps, 1), 0.05, pairs=kind).optimiser.means
        for ours, theirs in zip(first, gradients, strict=True):
            ours = ours[number].reshape(theirs.shape)
            assert (ours - theirs).norm() <= 0.01 * theirs.norm() + 1e-8


def test_batches_of_full_fine_tuning_or_of_too_few_queries_are_refused():
    queries, supports, masks = batch_of(2, 1, 64)
    with pytest.raises(CdfssError, match="one episode at a time"):
        adapt(small_hsnet(64), supports, masks, 1, 0.1, trained=["learner"])
    with pytest.raises(CdfssError, match="1 queries for 2 episodes"):
        adapt(small_hsnet(64), supports, masks, 0, 0.1).predict(queries[:1])
    alone = adapt(small_hsnet(64, modules=["apm_s"]), supports[0], masks[0], 1, 0.1).optimiser
    tuned = adapt(small_hsnet(64, modules=["apm_s", "acpa"]), supports, masks, 0, 0.1).model
    with pytest.raises(CdfssError, match="tuned to 2 episodes, the supports are of one"):
        adapt(tuned, supports[0], masks[0], 1, 0.1)
    with pytest.raises(CdfssError, match="tuned to 2 episodes, the supports are of 3"):
        adapt(tuned, *batch_of(3, 1, 64)[1:], 1, 0.1)
    with pytest.raises(CdfssError, match="another number of episodes"):
        adapt(small_hsnet(64, modules=["apm_s"]), supports, masks, 1, 0.1, optimiser=alone)


@pytest.mark.parametrize("modules", [["apm_m"], ["apm_m", "acpa"]])
def test_a_batch_goes_on_from_its_own_values(modules):
    model = small_hsnet(modules=modules)
    _, supports, masks = batch_of(3, 2, 96)
    whole = adapt(model, supports, masks, 4, 0.1)
    first = adapt(model, supports, masks, 2, 0.1)
    second = adapt(first.model, supports, masks, 2, 0.1, optimiser=first.optimiser)
    assert torch.equal(torch.cat([first.losses, second.losses], 1), whole.losses)
    assert torch.equal(phases(second.model), phases(whole.model))
    assert not torch.equal(phases(whole.model)[0], phases(whole.model)[1])


def test_pictures_of_another_size_than_modules_are_for_are_refused():
    with pytest.raises(CdfssError, match="make the model for the image size"):
        adapt(small_hsnet(64, modules=["apm_s"]), *episode_of(1, 96)[1:], 1, 0.1)


def test_steps_may_be_asked_for_where_gradients_are_off():
    model, (_, supports, masks) = small_hsnet(modules=["apm_s"]), episode_of()
    with torch.no_grad():
        losses = adapt(model, supports, masks, 2, 0.1).losses
    assert losses.tolist() == adapt(model, supports, masks, 2, 0.1).losses.tolist()


@pytest.mark.parametrize("trained", [["apm_m", "acpa"], ["learner", "backbone"]])
def test_mutual_information_is_added_to_the_loss(trained):
    from cdfss.methods.hsnet.information import gaussian_information

    query, supports, masks = episode_of()
    model = balanced(small_hsnet(modules=["apm_m", "acpa"]), query, supports, masks)
    rate = 0.1 if "apm_m" in trained else 1e-3
    plain, weighted = (
        adapt(model, supports, masks, 8, rate, trained=trained, mutual_information=weight)
        for weight in (0.0, 0.5)
    )

    def information(of):
        with torch.no_grad():
            return gaussian_information(of.filtered([of.features(supports)[2][-1]])[0]).mean()

    assert weighted.losses[0] - plain.losses[0] == pytest.approx(0.5 * float(information(model)), rel=1e-3)
    assert information(weighted.model) < information(plain.model)


def test_mutual_information_of_a_batch_is_that_of_each_episode():
    query, supports, masks = episode_of()
    model = balanced(small_hsnet(modules=["apm_s"]), query, supports, masks)
    batch = torch.stack([supports, supports.flip(0)]), torch.stack([masks, masks.flip(0)])
    together = adapt(model, *batch, 3, 0.1, mutual_information=1.0)
    for number in range(2):
        alone = adapt(model, batch[0][number], batch[1][number], 3, 0.1, mutual_information=1.0)
        assert torch.allclose(together.losses[number], alone.losses, rtol=1e-4)


def test_a_negative_weight_of_mutual_information_is_refused():
    _, supports, masks = episode_of()
    with pytest.raises(CdfssError, match="mutual_information=-1; expected a weight of 0 or more"):
        adapt(small_hsnet(modules=["apm_s"]), supports, masks, 1, 0.1, mutual_information=-1)


# Three pixels with every vote, three with three, three with two, and one with one.
OF_FIVE = [5, 5, 5, 3, 3, 3, 2, 2, 2, 1]
# The same once one support less sees the first three: half of the most votes is 2 then, not 2.5.
OF_FOUR = [4, 4, 4, 3, 3, 3, 2, 2, 2, 1]


def segmentation_of(votes, rule, k=5, probabilities=None):
    votes = torch.tensor(votes)[:, None]  # (B, 1, pixels)
    probabilities = votes / k if probabilities is None else torch.tensor(probabilities)[:, None]
    return Segmentation.of(votes, probabilities, k, rule, torch.zeros(len(votes)))


@pytest.mark.parametrize(
    ("rule", "foreground"), [("published", [6, 9]), ("majority", [6, 6]), ("mean", [6, 6])]
)
def test_only_the_published_rule_moves_its_threshold_with_the_most_votes(rule, foreground):
    found = segmentation_of([OF_FIVE, OF_FOUR], rule)
    assert found.masks.sum((1, 2)).tolist() == foreground
    # What is counted does not depend on the rule.
    assert found.most_votes.tolist() == [5, 4]
    assert found.voted_pixels.tolist() == [0, 3]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
def test_without_a_moved_threshold_the_published_rule_is_a_majority(k):
    """One pixel with all k votes, or none with any: of an even k, half of the supports are a majority."""
    for votes in (list(range(k + 1)), [0] * 4):
        published, majority = (segmentation_of([votes], rule, k) for rule in ("published", "majority"))
        assert published.masks.tolist() == majority.masks.tolist()
        assert majority.masks[0, 0].tolist() == [int(n >= k / 2) for n in votes]
        assert published.voted_pixels.tolist() == [0]


def test_the_mean_is_of_probabilities_and_not_of_votes():
    votes, probabilities = [[1, 2, 1, 0]], [[0.6, 0.45, 0.5, 0.5]]
    assert segmentation_of(votes, "mean", 3, probabilities).masks.tolist() == [[[1, 0, 0, 0]]]
    assert segmentation_of(votes, "majority", 3).masks.tolist() == [[[0, 1, 0, 0]]]
    # At exactly one half a vote of half of the supports decides.
    assert segmentation_of(votes, "mean", 2, probabilities).masks.tolist() == [[[1, 0, 1, 0]]]


def predicting(logits, **how):
    """An adaptation whose supports (k, of one episode) predict these logits (k, 2, S, S), and a query."""
    k, size = len(logits), logits.shape[-1]
    query, supports, masks = episode_of(k, size)
    adapted = adapt(small_hsnet(size), supports, masks, 0, 0.0, **how)
    turns = iter(logits)
    adapted.model.compare = lambda *_: next(turns)[None]
    return adapted, query


def test_votes_and_mean_are_of_what_each_support_predicts():
    logits = torch.zeros(3, 2, 64, 64)
    logits[:, 0] = 1  # background, but for
    logits[:, :, 0, 0] = torch.tensor([0.0, 0.1])  # all
    logits[:2, :, 0, 1] = torch.tensor([0.0, 0.1])  # two, of whom the third is surer
    logits[2, :, 0, 1] = torch.tensor([3.0, 0.0])
    logits[0, :, 0, 2] = torch.tensor([0.0, 4.0])  # one, surer than both others
    for rule, expected in (("published", [1, 1, 0]), ("majority", [1, 1, 0]), ("mean", [1, 0, 1])):
        adapted, query = predicting(logits, vote=rule)
        found = adapted.segment(query)
        assert found.masks[0, 0, :3].tolist() == expected
        assert found.masks[0].sum() == sum(expected)
        assert (found.most_votes.tolist(), found.voted_pixels.tolist()) == ([3], [0])
    # Without the pixel that all see two votes are the most, and one is half of them.
    logits[2, :, 0, 0] = torch.tensor([1.0, 0.0])
    for rule, expected in (("published", [1, 1, 1]), ("majority", [1, 1, 0])):
        adapted, query = predicting(logits, vote=rule)
        found = adapted.segment(query)
        assert found.masks[0, 0, :3].tolist() == expected
        assert (found.most_votes.tolist(), found.voted_pixels.tolist()) == ([2], [1])


def test_for_one_support_all_rules_are_one_whatever_is_rounded():
    """Ties, and differences that a sigmoid or a subtraction rounds away."""
    torch.manual_seed(3)
    logits = torch.randn(1, 2, 64, 64)
    logits[0, 1, :16] = logits[0, 0, :16]  # ties
    close = logits[0, 0, 16:48]
    logits[0, 1, 16:32] = torch.nextafter(close[:16], torch.tensor(9.0))
    logits[0, 1, 32:48] = torch.nextafter(close[16:], torch.tensor(-9.0))
    logits[0, :, 32:40] *= 1e-30
    masks = []
    for rule in RULES:
        adapted, query = predicting(logits, vote=rule)
        masks.append(adapted.predict(query))
    assert all(torch.equal(masks[0], mask) for mask in masks[1:])
    assert torch.equal(masks[0][0], (logits[0, 1] > logits[0, 0]).long())
    assert not masks[0][0, :16].any()
    assert masks[0][0, 16:32].all()


def test_an_unknown_rule_is_refused():
    with pytest.raises(CdfssError, match="vote='most'; expected 'published', 'majority' or 'mean'"):
        adapt(small_hsnet(), *episode_of()[1:], 0, 0.1, vote="most")


def differing(queries, supports, masks):
    """A model whose supports do not agree on what is foreground."""
    model = balanced(small_hsnet(96, modules=["apm_s"]), queries[:1], supports[0], masks[0])
    with torch.no_grad():
        model.learner.decoder2[2].weight *= 20
    return balanced(model, queries[:1], supports[0], masks[0])


@pytest.mark.parametrize("rule", ["published", "majority", "mean"])
def test_votes_of_a_batch_are_those_of_one_by_one(rule):
    queries, supports, masks = batch_of(3, 4, 96)
    masks[1, 0] = masks[2, :3] = 0
    masks[1, 0, 10:40, 10:40] = masks[2, :3, 10:40, 10:40] = 1  # between positions of stride 32
    model = differing(queries, supports, masks)
    together = adapt(model, supports, masks, 1, 0.05, vote=rule).segment(queries)
    assert together.supports_unseen.tolist() == [0, 1, 3]
    assert len(set(together.most_votes.tolist()) | {0}) > 1
    for number in range(3):
        alone = adapt(model, supports[number], masks[number], 1, 0.05, vote=rule)
        found = alone.segment(queries[[number]])
        assert found.most_votes.tolist() == together.most_votes[[number]].tolist()
        assert found.supports_unseen.tolist() == together.supports_unseen[[number]].tolist()
        assert found.voted_pixels[0] == pytest.approx(together.voted_pixels[number].item(), abs=5)
        assert (found.masks[0] != together.masks[number]).float().mean() < 0.001
        both = alone.segment(queries)  # several queries of one episode
        assert both.supports_unseen.tolist() == [together.supports_unseen[number]] * 3
        assert both.most_votes[number] == found.most_votes[0]
        # By hand, from what each support says alone.
        votes = [
            adapt(alone.model, supports[number, s : s + 1], masks[number, s : s + 1], 0, 0.0).predict(
                queries[[number]]
            )
            for s in range(4)
        ]
        votes = torch.stack(votes).sum(0)
        assert votes.max() == found.most_votes[0]
        assert int((vote(votes) != vote(votes, 4)).sum()) == found.voted_pixels[0]


@pytest.mark.parametrize("pairs", ["self", "leave_one_out"])
@pytest.mark.parametrize("variant", ["apm_s", "apm_m_acpa"])
def test_modules_cannot_act_where_no_support_is_seen(variant, pairs):
    """A fifth of the picture, but between the positions of stride 32, which are at 0, 47.5 and 95."""
    query, supports, masks = episode_of(2)
    masks[:] = 0
    masks[:, 3:45, 3:45] = 1
    model = small_hsnet(**VARIANTS[variant])
    adapted = adapt(model, supports, masks, 2, 0.5, pairs=pairs)
    assert all(not mean.any() for mean in adapted.optimiser.means)  # the gradients
    assert torch.equal(phases(adapted.model), phases(model))
    found = adapted.segment(query)
    assert found.supports_unseen.tolist() == [2]
    with torch.no_grad():
        phases(adapted.model).add_(3 * torch.randn_like(phases(adapted.model)))
    moved = adapted.segment(query)
    without = adapt(small_hsnet(), supports, masks, 0, 0.0).segment(query)
    for other in (moved, without):
        assert torch.equal(other.probabilities, found.probabilities)
    # One position more, and they act.
    masks[0, 47, 47] = 1
    adapted = adapt(model, supports, masks, 2, 0.5, pairs=pairs)
    assert any(mean.any() for mean in adapted.optimiser.means)
    found = adapted.segment(query)
    assert found.supports_unseen.tolist() == [1]
    assert not torch.equal(found.probabilities, without.probabilities)
