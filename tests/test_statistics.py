"""Intervals and paired differences, against plain loops and known distributions."""

import time

import numpy as np
import pandas as pd
import pytest

from cdfss import CdfssError
from cdfss.data import metrics
from cdfss.reports import statistics
from cdfss.reports.statistics import Estimate


def test_a_resample_draws_one_less_than_a_class_has_and_weighs_them_up():
    class_id = np.array([3, 1, 1, 3, 3, 7, 9])
    weights = statistics.draws(class_id, "lungs", "a")
    assert weights.shape == (statistics.RESAMPLES, 7)
    for one, number in ((1, 2), (3, 3)):
        assert np.allclose(weights[:, class_id == one].sum(1), number)
        assert (np.round(weights[:, class_id == one] * (number - 1) / number, 9) % 1 == 0).all()
    # Classes of one episode are drawn from each other.
    assert set(np.unique(weights[:, 5])) == {0, 2}
    assert (weights[:, 5] + weights[:, 6] == 2).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.1)
    assert (weights == statistics.draws(class_id, "lungs", "a")).all()
    assert (weights != statistics.draws(class_id, "lungs", "b")).any()
    assert (weights != statistics.draws(class_id, "cells", "a")).any()


def test_lists_of_the_same_queries_take_the_same_draws():
    first = rows()[:3]
    assert (statistics.draws_of(first) == statistics.draws_of(first.assign(seed=5, shot=5))).all()
    assert (statistics.draws_of(first) != statistics.draws_of(first.assign(query=["x", "y", "w"]))).any()


def test_resampled_miou_is_that_of_the_episodes_drawn():
    generator = np.random.RandomState(0)
    class_id = np.arange(20) % 3
    union = generator.randint(50, 100, (20, 2))
    intersection = generator.randint(0, 50, (20, 2))
    weights = statistics.draws(class_id, 0)
    found = statistics.resampled_miou(intersection[:, 1], union[:, 1], class_id, weights)
    sizes = np.bincount(class_id)[class_id]
    for number in (0, 7, 1999):
        times = np.round(weights[number] * (sizes - 1) / sizes).astype(int)
        chosen = np.repeat(np.arange(20), times)
        assert len(chosen) == 20 - 3
        assert found[number] == pytest.approx(
            metrics.mean_iou(intersection[chosen], union[chosen], class_id[chosen])
        )


@pytest.mark.parametrize(("classes", "each"), [(40, 1), (30, 2), (10, 5), (2, 40)])
def test_intervals_are_as_wide_as_lists_differ(classes, each):
    """The spread of the bootstrap is that of mIoU over new lists of the same classes."""
    generator = np.random.RandomState(0)
    class_id = np.repeat(np.arange(classes), each)
    values, widths = [], []
    for number in range(150):
        iou = generator.beta(2, 2, classes * each)
        union = np.full(len(iou), 1000)
        one = statistics.resampled_miou(1000 * iou, union, class_id, np.ones((1, len(iou))))
        values.append(one[0])
        if number < 20:
            weights = statistics.draws(class_id, number)
            widths.append(statistics.resampled_miou(1000 * iou, union, class_id, weights).std())
    assert np.mean(widths) == pytest.approx(np.std(values), rel=0.2)


def test_of_a_single_episode_no_interval_is_known():
    weights = statistics.draws([4], 0)
    estimate = Estimate(3.0, statistics.resampled_mean([3.0], weights))
    assert np.isnan(estimate.columns("x")["x_low"])


def test_intervals_of_a_mean_are_those_of_the_normal_distribution():
    values = np.random.RandomState(0).randn(400)
    drawn = statistics.draws(np.zeros(400), 0)
    low, high = Estimate(values.mean(), statistics.resampled_mean(values, drawn)).interval
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # Of 100 lists of 60 episodes the interval of the mean leaves out the true mean in about 5.
    generator, missed = np.random.RandomState(1), 0
    for number in range(100):
        values = generator.rand(60)
        drawn = statistics.draws(np.arange(60) % 3, number)
        low, high = Estimate(values.mean(), statistics.resampled_mean(values, drawn)).interval
        missed += not low <= 0.5 <= high
    assert 1 <= missed <= 14


def test_differences_are_paired():
    first, second = np.random.RandomState(0).rand(2, 50)
    drawn = statistics.draws(np.zeros(50), 0)
    estimates = [
        Estimate(v.mean(), statistics.resampled_mean(v, drawn)) for v in (first, first + 0.1, second)
    ]
    paired = (estimates[1] - estimates[0]).columns("gain")
    assert paired == pytest.approx({"gain": 0.1, "gain_low": 0.1, "gain_high": 0.1})
    other = (estimates[2] - estimates[0]).columns("gain")
    replicates = statistics.resampled_mean(second - first, drawn)
    by_hand = np.percentile(replicates, (2.5, 97.5)) - replicates.mean() + (second - first).mean()
    assert (other["gain_low"], other["gain_high"]) == pytest.approx(by_hand)
    mean = Estimate.mean(estimates)
    assert mean.value == pytest.approx((2 * first + second).mean() / 3 + 0.1 / 3)
    replicates = statistics.resampled_mean((2 * first + second + 0.1) / 3, drawn)
    assert mean.replicates == pytest.approx(replicates)


def lists_where_large_objects_are_easy(classes=120, each=5):
    """Endless lists of (class_id, intersection, union): drawing such episodes again lowers mIoU."""
    generator, class_id = np.random.RandomState(0), np.repeat(np.arange(classes), each)
    while True:
        union = generator.lognormal(0, 1, classes * each)
        yield class_id, union * union / (union + 1), union


def test_an_interval_of_many_small_classes_is_about_lists_of_their_size():
    lists = lists_where_large_objects_are_easy()

    def estimate(weights=None):
        class_id, intersection, union = next(lists)
        ones = np.ones((1, len(union)))
        value = statistics.resampled_miou(intersection, union, class_id, ones)[0]
        drawn = statistics.draws(class_id, 0)
        return Estimate(value, statistics.resampled_miou(intersection, union, class_id, drawn))

    found = [estimate() for _ in range(60)]
    shifts = np.array([(one.replicates.mean() - one.value) / one.replicates.std() for one in found])
    assert np.median(shifts) < -1.5  # so bare percentiles would hardly hold the value itself
    mean = np.mean([one.value for one in found])
    held = sum(one.interval[0] <= mean <= one.interval[1] for one in found)
    assert all(one.interval[0] < one.value < one.interval[1] for one in found)
    assert held >= 52


def test_the_only_class_of_one_episode_is_drawn_with_the_smallest_other():
    class_id = np.array([0, 0, 0, 1, 1, 2])
    weights = statistics.draws(class_id, 0)
    assert weights[:, 5].std() > 0
    assert np.allclose(weights[:, :3].sum(1), 3)
    assert np.allclose(weights[:, 3:].sum(1), 3)


@pytest.mark.parametrize("sizes", [[2, 1], [10, 1], [10, 10, 10, 1], [1, 1, 1], [5] * 20 + [1]])
def test_equal_episodes_leave_no_doubt(sizes):
    class_id = np.repeat(np.arange(len(sizes)), sizes)
    union = np.random.RandomState(0).randint(50, 500, len(class_id)).astype(float)
    weights = statistics.draws(class_id, 0)
    assert statistics.resampled_miou(0.8 * union, union, class_id, weights) == pytest.approx(0.8)


def test_an_interval_stays_within_what_miou_can_be():
    estimate = Estimate(98.0, np.linspace(60, 100, 2000), (0, 100))
    assert estimate.interval[1] == 100
    assert Estimate.mean([estimate, estimate]).interval[1] == 100
    assert (estimate - Estimate(0.0, np.zeros(2000))).interval[1] > 100


def test_means_of_measurements_are_paired_and_of_one_list_a_domain():
    frame = rows().assign(x=[0.1, 0.7, 0.4, 0.3, 0.9, 0.6])
    estimates = statistics.mean_estimates(frame, "x")
    gain = (estimates["b", "lungs"] - estimates["a", "lungs"]).columns("gain")
    assert gain == pytest.approx({"gain": 0.2, "gain_low": 0.2, "gain_high": 0.2})
    other = frame.assign(seed=1)
    for make in (lambda f: statistics.mean_estimates(f, "x"), statistics.list_miou_estimates):
        with pytest.raises(
            CdfssError, match="several lists of a domain, expected one: lungs, 1-shot, seed 0"
        ):
            make(pd.concat([frame, other]))


def rows(**changes):
    frame = pd.DataFrame(
        {
            "domain": "lungs",
            "shot": 1,
            "seed": 0,
            "variant": ["a"] * 3 + ["b"] * 3,
            "episode": [0, 1, 2] * 2,
            "class_id": [0, 1, 0] * 2,
            "query": ["x", "y", "z"] * 2,
            "supports": [["s"], ["t"], ["s"]] * 2,
            "intersection_background": 1,
            "intersection_foreground": [1, 2, 3, 2, 2, 3],
            "union_background": 1,
            "union_foreground": 4,
        }
    )
    return frame.assign(**changes)


def test_miou_of_lists_in_any_order():
    estimates = statistics.miou_estimates(rows())
    assert estimates["a", "lungs", 1, 0].value == pytest.approx(100 * (4 / 8 + 2 / 4) / 2)
    shuffled = statistics.miou_estimates(rows().sample(frac=1, random_state=0))
    for key, estimate in estimates.items():
        assert shuffled[key].value == estimate.value
        assert (shuffled[key].replicates == estimate.replicates).all()


def test_variants_of_different_episodes_are_not_compared():
    with pytest.raises(CdfssError, match="a and b were evaluated on different episodes of lungs, 1-shot"):
        statistics.miou_estimates(rows(query=["x", "y", "z", "x", "y", "w"]))
    others = rows()
    others.at[4, "supports"] = ["u"]
    with pytest.raises(CdfssError, match="a and b were evaluated on different episodes of lungs, 1-shot"):
        statistics.miou_estimates(others)
    with pytest.raises(CdfssError, match="episode 1 of lungs, a, 1-shot is there twice"):
        statistics.miou_estimates(rows(episode=[0, 1, 1, 0, 1, 2]))


def test_the_paper_s_rows_take_seconds():
    # FSS-1000: 2,400 episodes of 240 classes, five variants.
    number = 2400
    part = pd.DataFrame({"episode": range(number), "class_id": np.arange(number) // 10})
    part = part.assign(domain="fss1000", shot=1, seed=0, query=part["episode"].astype(str))
    part["supports"] = [[str(number)] for number in range(number)]
    counts = np.random.RandomState(0).randint(0, 1000, (number, 4))
    for place, kind in enumerate(("intersection", "union")):
        part[f"{kind}_background"] = counts[:, place]
        part[f"{kind}_foreground"] = counts[:, place] + 1000 * place
    frame = pd.concat([part.assign(variant=name) for name in "abcde"])
    begin = time.process_time()
    statistics.miou_estimates(frame)
    assert time.process_time() - begin < 20
