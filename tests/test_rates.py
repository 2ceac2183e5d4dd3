"""Learning rates of episodes by themselves: each its own, chosen from its supports and nothing else."""

import numpy as np
import pytest
import torch
from conftest import small_hsnet
from test_evaluation import SIZE, method_of, settings_of

from cdfss import CdfssError, adapt
from cdfss.evaluation import evaluate
from cdfss.methods import calling, rates
from cdfss.methods.adam import Adam
from cdfss.methods.hsnet.adaptation import Adaptation
from cdfss.methods.hsnet.method import Settings

AUTO = {"modules": ["apm_s"], "steps": 2, "learning_rate": "auto"}


def episodes_of(number, k, size=96, seed=0):
    """Supports (E, k, 3, S, S) and masks (E, k, S, S), all different."""
    draw = torch.Generator().manual_seed(seed)
    masks = torch.zeros(number, k, size, size)
    for place, mask in enumerate(masks.flatten(0, 1)):
        mask[size // 8 : size // 2 + 1 + place, size // 4 + place : -size // 4] = 1
    return torch.randn(number, k, 3, size, size, generator=draw), masks


def tuned(model, episodes, rate, steps=3):
    return adapt(model, *episodes, steps, rate).optimiser.parameters


def test_each_episode_of_a_batch_moves_by_its_own_rate():
    model, episodes = small_hsnet(96, modules=["apm_m", "acpa"]), episodes_of(3, 2)
    own = (0.5, 0.0, 0.01)
    mixed = tuned(model, episodes, torch.tensor(own, dtype=torch.float64))
    for number, rate in enumerate(own):
        for ours, theirs in zip(mixed, tuned(model, episodes, rate), strict=True):
            assert torch.equal(ours[number], theirs[number])
    assert not any(torch.equal(parameter[0], parameter[1]) for parameter in mixed)


def test_adam_with_rates_is_adam_with_each():
    def after(rate):
        parameters = [torch.ones(2, 3, 1), torch.ones(2, 5)]
        optimiser = Adam(parameters, rate)
        for number in range(3):
            optimiser.step([torch.full_like(p, 0.3 - number) for p in parameters])
        return parameters

    for parameter, slow, fast in zip(after(torch.tensor([0.1, 1.0])), after(0.1), after(1.0), strict=True):
        torch.testing.assert_close(parameter, torch.stack([slow[0], fast[1]]))


def test_rates_must_be_one_for_each_episode():
    for wrong in (torch.tensor([0.1]), torch.tensor(0.1)):
        with pytest.raises(CdfssError, match=r"learning rates are .*expected a number, or one for each"):
            Adaptation(small_hsnet(96, modules=["apm_s"]), *episodes_of(2, 1), wrong)


def test_anew_is_an_adaptation_that_took_no_steps():
    model, episodes = small_hsnet(96, modules=["apm_s"]), episodes_of(2, 1)
    first = adapt(model, *episodes, 2, 0.5)
    again = first.anew(torch.tensor([0.1, 0.1], dtype=torch.float64))
    assert again.losses.shape == (2, 0)
    for _ in range(3):
        again.step()
    for ours, theirs in zip(again.optimiser.parameters, tuned(model, episodes, 0.1), strict=True):
        assert torch.equal(ours, theirs)
    assert first.losses.shape == (2, 2)


def chosen(levels, k=1):
    """Rates where each candidate's probability, everywhere and for each episode, is (candidates, E)."""
    supports, masks = episodes_of(len(levels[0]), k, 8)

    def trial(fold):
        def predicted(tried):
            number = 0 if tried is None else rates.CANDIDATES.index(tried[0].item())
            level = torch.tensor(levels[number]).view(-1, 1, 1)
            return [level * truth + (1 - level) * (1 - truth) for truth in fold.truths.unbind(1)]

        return predicted

    return rates.choose(trial, supports, masks).tolist()


def test_the_best_rate_of_each_episode_is_taken_and_of_equal_ones_none():
    assert len(rates.CANDIDATES) == 4
    assert rates.CANDIDATES[0] == 0
    levels = [[0.6, 0.9, 0.7], [0.7, 0.2, 0.7], [0.9, 0.3, 0.7], [0.8, 0.1, float("nan")]]
    for k in (1, 3):
        assert chosen(levels, k) == [rates.CANDIDATES[2], 0.0, 0.0]
    levels[0][2] = float("nan")
    assert chosen(levels)[2] == rates.CANDIDATES[1]


@pytest.mark.parametrize("k", [2, 3])
def test_each_support_is_a_query_once_and_is_left_out_then(k):
    supports, masks = episodes_of(2, k, 8)
    found = list(rates.folds(supports, masks))
    for number, fold in enumerate(found):
        assert torch.equal(fold.queries, supports[:, number : number + 1])
        assert torch.equal(fold.truths, masks[:, number : number + 1])
        others = [n for n in range(k) if n != number]
        assert torch.equal(fold.supports, supports[:, others])
        assert torch.equal(fold.masks, masks[:, others])
    assert len(found) == k


def test_a_single_support_is_asked_for_in_changed_views_whose_masks_moved_along():
    masks = episodes_of(2, 1, 64)[1]
    pictures = masks[:, :, None].expand(-1, -1, 3, -1, -1)  # white where the object is
    (fold,) = rates.folds(pictures, masks)
    assert torch.equal(fold.supports, pictures)
    for number, view in enumerate(rates.VIEWS):
        seen = (fold.queries[:, number, 0] - view.brightness) / view.contrast
        truth = fold.truths[:, number]
        assert set(truth.unique().tolist()) == {0.0, 1.0}
        assert ((seen > 0.5) == (truth == 1)).float().mean() > 0.98
        assert (truth != masks[:, 0]).float().mean() > 0.02


def overlaps_seen(monkeypatch, method, supports, masks, queries, truths):
    """Rates of episodes, and every overlap that they were chosen by."""
    seen, original = [], rates.overlap
    monkeypatch.setattr(rates, "overlap", lambda *how: seen.append(original(*how)) or seen[-1])
    found = calling.segment("hsnet", method, supports, masks, queries, truths)
    monkeypatch.undo()
    return found, torch.stack(seen)


@pytest.mark.parametrize("k", [1, 2])
def test_no_pixel_of_a_query_reaches_the_rate(monkeypatch, checkpoint, k):
    settings = settings_of("baseline") | {"settings": AUTO}
    method, draw = method_of(settings, checkpoint), np.random.RandomState(0)
    supports = draw.randint(0, 256, (2, k, SIZE, SIZE, 3)).astype(np.uint8)
    masks = episodes_of(2, k, SIZE)[1].numpy() > 0

    def of(supports, query, truth):
        queries = np.full((2, SIZE, SIZE, 3), query, np.uint8)
        truths = np.full((2, SIZE, SIZE), truth)
        return overlaps_seen(monkeypatch, method, supports, masks, queries, truths)

    found, overlaps = of(supports, 0, False)
    other_query, same_overlaps = of(supports, 255, True)
    assert torch.equal(overlaps, same_overlaps)
    assert np.array_equal(found.rates, other_query.rates)
    assert not np.array_equal(found.probabilities, other_query.probabilities)
    _, other_overlaps = of(255 - supports, 0, False)
    assert not torch.equal(overlaps, other_overlaps)


def test_rows_hold_the_rate_that_was_chosen_and_what_it_led_to(monkeypatch, checkpoint, data):
    settings = settings_of("baseline") | {"settings": AUTO}
    wanted = iter([0.5, 0.0])
    monkeypatch.setattr(
        rates, "choose", lambda trial, *supports: torch.tensor([next(wanted)], dtype=torch.float64)
    )
    rows, _, masks = evaluate.evaluate(settings, data[0], data[1].iloc[:2], method_of(settings, checkpoint))
    assert [row["learning_rate"] for row in rows] == [0.5, 0.0]
    assert rows[1]["first_loss"] == rows[1]["last_loss"]
    assert rows[0]["first_loss"] != rows[0]["last_loss"]
    by_hand = settings | {"settings": AUTO | {"learning_rate": 0.5}}
    theirs, _, their_masks = evaluate.evaluate(
        by_hand, data[0], data[1].iloc[:1], method_of(by_hand, checkpoint)
    )
    assert theirs[0] == rows[0]
    assert np.array_equal(masks[rows[0]["episode"]], their_masks[rows[0]["episode"]])


@pytest.mark.parametrize(
    ("more", "why"),
    [({"reset": "never"}, "reset is never"), ({"trained": ["learner"]}, "learner is tuned")],
)
def test_what_has_no_episode_of_its_own_cannot_choose(more, why):
    with pytest.raises(ValueError, match=f"tuned anew in every episode, but {why}; give it a number"):
        Settings(**AUTO, **more)
    with pytest.raises(ValueError, match="learning_rate"):
        Settings(modules=["apm_s"], learning_rate="automatic")


def test_settings_of_a_domain_say_that_the_rate_is_chosen():
    defaults = {"steps": 60, "learning_rate": {"lungs": 0.1}}
    found = Settings(modules=["apm_s"], learning_rate="auto").of_domain("lungs", defaults)
    assert found["learning_rate"] == "auto"
    assert Settings.model_validate(found).chooses_rate
    idle = Settings(modules=["apm_s"], learning_rate="auto", steps=0)
    assert idle.of_domain("lungs", defaults)["learning_rate"] is None
    assert not idle.chooses_rate
