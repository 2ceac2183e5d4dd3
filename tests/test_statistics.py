"""Intervals and paired differences, against plain loops, known distributions and simulated lists."""

import time

import coverage
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cdfss import CdfssError
from cdfss.data import metrics
from cdfss.evaluation import results
from cdfss.reports import statistics
from cdfss.reports.statistics import EpisodeList, Estimate, Measured


def list_of(class_id, shared=False):
    """A list of these classes; `shared`: queries from five pictures, supports from five others."""
    number = len(class_id)
    pictures = np.arange(2 * number).reshape(number, 2)
    if shared:
        pictures = np.stack([np.arange(number) % 5, 5 + np.arange(number) // 5 % 5], 1)
    return EpisodeList(("lungs", 1, 0), np.arange(number), np.asarray(class_id), pictures)


def counts(number, seed=0):
    generator = np.random.RandomState(seed)
    union = generator.randint(50, 100, number)
    return generator.randint(0, 50, number), union


def rows(variant="a", episodes=24, classes=3, drawn=0, **changes):
    """Rows of one variant on one list."""
    intersection, union = counts(episodes, sum(map(ord, variant)) + drawn)
    frame = pd.DataFrame(
        {
            "domain": "lungs",
            "shot": 1,
            "seed": 0,
            "source": np.nan,
            "variant": variant,
            "episode": np.arange(episodes),
            "class_id": np.arange(episodes) % classes,
            "query": [f"{number}.png" for number in range(episodes)],
            "supports": [["s.png"]] * episodes,
            "intersection_background": 1,
            "intersection_foreground": intersection,
            "union_background": 1,
            "union_foreground": union,
        }
    )
    return frame.assign(**changes)


def miou_of(frame):
    return 100 * metrics.mean_iou(*results.counts(frame), frame["class_id"])


def estimates_of(*frames, **how):
    found = statistics.miou_estimates(pd.concat(frames, ignore_index=True), **how)
    return {name: estimate for (name, *_), estimate in found.items()}


# How often intervals hold the truth; benchmarks/coverage.py has all lists of
# docs/explanation/statistics.md.


@pytest.mark.parametrize("name", ["1 x 60", "3 x 10", "6 x 5", "60 x 2"])
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    found = coverage.coverage(coverage.LISTS[name], lists=600, truths=1000)
    for number in ("mIoU", "smooth difference"):
        held, given = found[number]
        assert 0.92 <= held <= 0.98  # of 600, a standard error of 0.9 points
        assert given > 0.85
    assert np.isnan(found["sparse difference"][0])


@pytest.mark.parametrize("name", ["4, 3, 3", "3 x 2", "1 x 10"])
def test_lists_of_which_none_would_hold_have_no_interval(name):
    found = coverage.coverage(coverage.LISTS[name], lists=60, truths=20)
    assert all(given == 0 for _, given in found.values())


def test_intervals_for_new_pictures_hold_where_those_for_new_lists_do_not():
    found = coverage.of_new_pictures(pictures=30, episodes=150, shot=1, lists=300)
    for number in ("mIoU", "difference"):
        assert found[f"{number}, lists"] < 0.8
        assert 0.92 <= found[f"{number}, pictures"] <= 0.99


# The jackknife against plain loops.


def by_leaving_out(number, class_id):
    """Variance, degrees of freedom, as the docs state them: strata are classes, single ones together."""
    class_id = np.asarray(class_id)
    sizes = {c: (class_id == c).sum() for c in class_id}
    variance, parts = 0.0, []
    for one in sorted(set(class_id)):
        if sizes[one] > 1:
            members = np.nonzero(class_id == one)[0]
            without = np.array([number(np.delete(np.arange(len(class_id)), gone)) for gone in members])
            of_class = (len(members) - 1) / len(members) * ((without - without.mean()) ** 2).sum()
            variance += of_class
            parts.append((of_class, len(members) - 1))
    return variance, variance**2 / sum(v**2 / f for v, f in parts)


@pytest.mark.parametrize("sizes", [[24], [10, 14], [3, 8, 2, 11]])
def test_spread_of_miou_and_of_its_difference_is_that_of_leaving_one_out(sizes):
    class_id = np.repeat(np.arange(len(sizes)), sizes)
    list_ = list_of(class_id)
    drawn = [counts(24, seed) for seed in (1, 2)]
    terms = [Measured.ratio(list_, None, *one) for one in drawn]

    def miou(pair, kept):
        chosen = class_id[kept]
        return np.mean(
            [
                pair[0][kept][chosen == c].sum() / pair[1][kept][chosen == c].sum()
                for c in np.unique(class_id)
            ]
        )

    first, second = (Estimate([(1.0, term)]) for term in terms)
    variance, freedom = by_leaving_out(lambda kept: miou(drawn[0], kept), class_id)
    assert first.value == pytest.approx(miou(drawn[0], np.arange(24)))
    assert first.spread_for("lists") == pytest.approx((np.sqrt(variance), freedom))
    variance, freedom = by_leaving_out(lambda kept: miou(drawn[1], kept) - miou(drawn[0], kept), class_id)
    gain = second - first
    assert gain.spread_for("lists") == pytest.approx((np.sqrt(variance), freedom))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert gain.interval == pytest.approx((gain.value - half, gain.value + half))  # no shift


def test_classes_of_one_episode_are_a_stratum_together():
    class_id = np.arange(30)
    intersection, union = counts(30)
    estimate = Estimate([(1.0, Measured.ratio(list_of(class_id), None, intersection, union))])
    ious = intersection / union
    assert estimate.value == pytest.approx(ious.mean())
    assert estimate.spread_for("lists") == pytest.approx((ious.std(ddof=1) / np.sqrt(30), 29))
    # With others beside them their share is that of their number among the classes.
    class_id[:10] = 99
    estimate = Estimate([(1.0, Measured.ratio(list_of(class_id), None, intersection, union))])
    variance, _ = by_leaving_out(
        lambda kept: intersection[kept][kept < 10].sum() / union[kept][kept < 10].sum() / 21, class_id
    )
    expected = np.sqrt(variance + (20 / 21) ** 2 * ious[10:].var(ddof=1) / 20)
    assert estimate.spread_for("lists")[0] == pytest.approx(expected)


def test_the_only_class_of_one_episode_leaves_no_interval():
    class_id = np.array([0] * 20 + [1])
    estimate = Estimate([(1.0, Measured.ratio(list_of(class_id), None, *counts(21)))])
    assert estimate.reason == "a class has a single episode"
    assert np.isnan(estimate.interval).all()


def test_the_interval_of_a_mean_is_student_s_and_of_strata_that_of_surveys():
    values = np.random.RandomState(0).randn(24)
    estimate = Estimate([(1.0, Measured.mean(list_of(np.zeros(24)), None, values))])
    expected = stats.t.interval(0.95, 23, values.mean(), stats.sem(values))
    assert estimate.interval == pytest.approx(expected)
    assert estimate.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    class_id = np.repeat([0, 1], [6, 18])
    estimate = Estimate([(1.0, Measured.mean(list_of(class_id), None, values))])
    parts = [(6 / 24) ** 2 * values[:6].var(ddof=1) / 6, (18 / 24) ** 2 * values[6:].var(ddof=1) / 18]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 17)
    assert estimate.spread_for("lists") == pytest.approx((np.sqrt(sum(parts)), freedom))


def test_an_average_is_as_uncertain_as_its_lists_together():
    frames = [rows(v, domain=d) for v in "ab" for d in ("lungs", "cells")]
    found = statistics.miou_estimates(pd.concat(frames, ignore_index=True))
    for make in (
        lambda d: found["a", d, 1, 0],
        lambda d: found["b", d, 1, 0] - found["a", d, 1, 0],
    ):
        errors = [make(domain).spread_for()[0] for domain in ("lungs", "cells")]
        mine = Estimate.mean(found["a", d, 1, 0] for d in ("lungs", "cells"))
        if make("lungs").value != found["a", "lungs", 1, 0].value:
            mine = Estimate.mean(found["b", d, 1, 0] for d in ("lungs", "cells")) - mine
        assert mine.spread_for()[0] == pytest.approx(np.hypot(*errors) / 2)


def test_an_interval_of_miou_stays_within_what_it_can_be():
    union = np.full(30, 100)
    intersection = np.full(30, 99)
    intersection[0] = 40
    estimate = estimates_of(
        rows(episodes=30, classes=1, intersection_foreground=intersection, union_foreground=union)
    )["a"]
    low, high = estimate.interval
    error, freedom = estimate.spread_for()
    assert estimate.value + stats.t.ppf(0.975, freedom) * error > 100
    assert low < estimate.value < high < 100


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_equal_episodes_leave_no_doubt(share):
    _, union = counts(24)
    term = Measured.ratio(list_of(np.arange(24) % 3), None, share * union, union).scaled(100)
    assert Estimate([(1.0, term)], (0, 100)).interval == pytest.approx((100 * share, 100 * share))


# Differences.


def test_differences_are_paired():
    first = rows("a")
    second = rows("b", intersection_foreground=first["intersection_foreground"] + 7)
    second["union_foreground"] = first["union_foreground"]
    found = estimates_of(first, second)
    alone, paired = found["b"].spread_for()[0], (found["b"] - found["a"]).spread_for()[0]
    assert paired < alone / 3
    assert (found["b"] - found["a"]).value == pytest.approx(miou_of(second) - miou_of(first))


def test_a_difference_of_one_episode_has_no_interval_and_says_what_it_is_without_it():
    first = rows("a", episodes=60)
    second = first.assign(variant="b")
    second.loc[17, "intersection_foreground"] += 45
    gain = estimates_of(first, second)["b"] - estimates_of(first, second)["a"]
    assert gain.value > 0
    assert (gain.changed, gain.episodes) == (1, 60)
    assert gain.reason == "it comes down to about 1 of 60 episodes"
    assert np.isnan([*gain.interval, gain.p]).all()
    assert gain.influential == ("lungs", 1, 0, 17)
    assert gain.without == pytest.approx(0)


def test_what_a_difference_is_without_an_episode_is_calculated_again():
    class_id = np.array([*np.arange(20) % 3, 7])  # the last class goes with its episode
    first, second = (rows(name, episodes=21, class_id=class_id) for name in "ab")
    found = estimates_of(first, second)
    gain = found["b"] - found["a"]
    moves = {
        number: miou_of(second.drop(number)) - miou_of(first.drop(number)) - gain.value
        for number in range(21)
    }
    most = max(moves, key=lambda number: abs(moves[number]))
    assert gain.influential == ("lungs", 1, 0, most)
    assert gain.without == pytest.approx(gain.value + moves[most])


def test_what_episodes_bring_adds_up_to_the_difference():
    list_ = list_of(np.arange(24) % 3)
    first, second = (Measured.ratio(list_, None, *counts(24, seed)) for seed in (0, 1))
    assert first.steps_to(second).sum() == pytest.approx(second.value - first.value)
    same = Measured.ratio(
        list_, None, *[np.where(np.arange(24) < 5, b, a) for a, b in zip(counts(24), counts(24, 1))]
    )
    assert (first.steps_to(same)[5:] == 0).all()
    values = np.random.RandomState(0).rand(2, 24)
    first, second = (Measured.mean(list_, None, one) for one in values)
    assert first.steps_to(second) == pytest.approx((values[1] - values[0]) / 24)


@pytest.mark.parametrize(("changed", "given"), [(4, False), (7, False), (12, True)])
def test_a_difference_needs_several_episodes(changed, given):
    list_ = list_of(np.zeros(60))
    union = np.full(60, 100)
    first = Measured.ratio(list_, None, np.full(60, 50), union)
    second = Measured.ratio(list_, None, np.where(np.arange(60) < changed, 60, 50), union)
    gain = Estimate([(1.0, second)]) - Estimate([(1.0, first)])
    assert gain.effective == pytest.approx(changed)
    assert np.isnan(gain.interval).all() != given


def test_a_difference_of_nothing_has_no_interval():
    first = rows("a")
    found = estimates_of(first, first.assign(variant="b"))
    gain = found["b"] - found["a"]
    assert (gain.value, gain.changed, gain.influential, gain.without) == (0, 0, None, 0)
    assert gain.reason == "no episode changed"
    # Nor does rounding leave a sign.
    generator = np.random.RandomState(0)
    lists = [rows("a", domain=name, drawn=generator.randint(99)) for name in "wxyz"]
    both = [*lists, *(frame.assign(variant="b") for frame in lists)]
    found = statistics.miou_estimates(pd.concat(both, ignore_index=True))
    means = [Estimate.mean(found[name, domain, 1, 0] for domain in "wxyz") for name in "ab"]
    assert f"{(means[1] - means[0]).value:+.2f}" == "+0.00"


def test_numbers_of_different_lists_are_not_subtracted():
    first, second = estimates_of(rows("a"))["a"], estimates_of(rows("a", domain="cells"))["a"]
    with pytest.raises(CdfssError, match=r"of different lists: .*lungs.* and .*cells"):
        _ = first - second


def test_p_is_what_the_interval_says():
    first, second = rows("a", episodes=40), rows("b", episodes=40)
    gain = estimates_of(first, second)["b"] - estimates_of(first, second)["a"]
    error, freedom = gain.spread_for()
    assert gain.p == pytest.approx(2 * stats.t.sf(abs(gain.value) / error, freedom))
    low, high = gain.interval
    assert (gain.p < 0.05) == (low > 0 or high < 0)


def test_holm_adjusts_as_published():
    # By hand: sorted 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.4 x 1, never falling.
    assert statistics.holm([0.03, 0.4, 0.01, 0.02]) == pytest.approx([0.06, 0.4, 0.04, 0.06])
    assert statistics.holm([0.5, 0.6]) == pytest.approx([1, 1])
    adjusted = statistics.holm([np.nan, 0.04, np.nan])
    assert adjusted[1] == pytest.approx(0.04)
    assert np.isnan(adjusted[[0, 2]]).all()
    assert len(statistics.holm([])) == 0


# Readings.


def test_new_pictures_are_less_certain_than_new_lists_where_pictures_are_shared():
    generator = np.random.RandomState(0)
    list_ = list_of(np.zeros(100), shared=True)
    by_query = generator.rand(5)[list_.pictures[:, 0]]
    estimate = Estimate([(1.0, Measured.mean(list_, None, by_query + 0.01 * generator.rand(100)))])
    (error, freedom), few = estimate.spread_for("lists"), estimate.spread_for("pictures")
    # Five queries: the spread is that of five numbers, whatever the number of episodes.
    assert few[0] == pytest.approx(np.unique(by_query.round(6)).std() / np.sqrt(5), rel=0.5)
    assert few[0] > 3 * error
    assert few[1] <= 5 < freedom
    assert estimate.reason_for("pictures") == "10 pictures of lungs are fewer than 20"
    assert estimate.reason_for("lists") == ""


def test_lists_of_a_domain_share_its_pictures():
    # Two seeds of the same queries are no new pictures: the average of both is as uncertain as one.
    values = np.random.RandomState(0).rand(40)
    lists = [
        EpisodeList.of(
            rows(episodes=40, classes=1, seed=seed, supports=[[f"{n} {seed}"] for n in range(40)])
        )
        for seed in (0, 1)
    ]
    one, both = (
        Estimate.mean(Estimate([(1.0, Measured.mean(list_, None, values))]) for list_ in chosen)
        for chosen in (lists[:1], lists)
    )
    assert both.spread_for("pictures")[0] == pytest.approx(one.spread_for("pictures")[0], rel=0.02)
    assert both.spread_for("lists")[0] == pytest.approx(one.spread_for("lists")[0] / np.sqrt(2))


def test_pictures_are_told_apart_by_name_in_every_role():
    frame = rows(episodes=3, query=["a", "b", "a"], supports=[["b"], ["c"], ["c"]])
    assert EpisodeList.of(frame).pictures.tolist() == [["a", "b"], ["b", "c"], ["a", "c"]]


def test_several_source_trainings_are_averaged_and_their_spread_counts_in_its_own_reading():
    frames = [rows("a", source=source, drawn=source) for source in (0, 1, 2)] + [rows("b")]
    found = estimates_of(*frames)
    values = [miou_of(frame) for frame in frames[:3]]
    assert found["a"].value == pytest.approx(np.mean(values))
    assert list(found["a"].by_source.values()) == pytest.approx(values)
    assert found["a"].episodes == 24
    error, freedom = found["a"].spread_for("lists")
    both = found["a"].spread_for("training")
    expected = np.hypot(error, np.std(values, ddof=1) / np.sqrt(3))
    assert both[0] == pytest.approx(expected)
    of_training = np.var(values, ddof=1) / 3
    assert both[1] == pytest.approx(expected**4 / (error**4 / freedom + of_training**2 / 2))
    # Against what needs no training the spread stays, the difference is of means.
    for gain, sign in ((found["a"] - found["b"], 1), (found["b"] - found["a"], -1)):
        assert gain.value == pytest.approx(sign * (np.mean(values) - miou_of(frames[3])))
        assert sign * np.array(list(gain.by_source.values())) == pytest.approx(
            np.array(values) - miou_of(frames[3])
        )
        assert sum(map(np.sum, gain._steps.values())) == pytest.approx(gain.value)
    assert found["b"].reason_for("training") == "there is one source training"


def test_differences_of_variants_are_those_of_the_same_source_training():
    first = [rows("a", source=source, drawn=source) for source in (0, 1)]
    second = [frame.assign(variant="b") for frame in first]  # nothing changes within a training
    gain = estimates_of(*first, *second)["b"] - estimates_of(*first, *second)["a"]
    assert (gain.value, gain.changed) == (pytest.approx(0), 0)
    assert list(gain.by_source.values()) == pytest.approx([0, 0])


def test_what_is_stated_is_a_matter_of_the_domain():
    frames = [rows("a", episodes=60, domain=d, query=[f"{n % 20}" for n in range(60)]) for d in ("x", "y")]
    found = statistics.miou_estimates(pd.concat(frames, ignore_index=True), {"y": "pictures"})
    x, y = (found["a", domain, 1, 0] for domain in ("x", "y"))
    assert x.interval == x.interval_for("lists")
    assert y.interval == y.interval_for("pictures") != y.interval_for("lists")
    both = Estimate.mean([x, y]).spread_for()[0]
    assert both == pytest.approx(np.hypot(x.spread_for("lists")[0], y.spread_for("pictures")[0]) / 2)


# From rows.


def test_miou_of_rows_in_any_order():
    frame = rows()
    found = estimates_of(frame)["a"]
    assert found.value == pytest.approx(miou_of(frame))
    assert estimates_of(frame.sample(frac=1, random_state=0))["a"].interval == pytest.approx(found.interval)


def test_variants_of_different_episodes_are_not_compared():
    for change in ({"query": "w"}, {"supports": [["u"]] * 24}, {"class_id": 0}):
        with pytest.raises(
            CdfssError, match="a and b were evaluated on different episodes of lungs, 1-shot"
        ):
            estimates_of(rows("a"), rows("b", **change))
    with pytest.raises(CdfssError, match="episode 1 of lungs, a, 1-shot is there twice"):
        estimates_of(rows("a", episode=[0, 1, 1, *range(3, 24)]))


def test_class_iou_is_that_of_the_class_alone():
    first, second = rows("a", episodes=72), rows("b", episodes=72)
    found = statistics.class_iou_estimates(pd.concat([first, second]))
    mine = first[first["class_id"] == 2]
    iou = mine["intersection_foreground"].sum() / mine["union_foreground"].sum()
    assert found["a", "lungs", 1, 0, 2].value == pytest.approx(100 * iou)
    low, high = found["a", "lungs", 1, 0, 2].interval
    assert low < 100 * iou < high
    assert found["a", "lungs", 1, 0, 2].episodes == 24


def test_means_of_measurements_are_of_one_list_a_domain():
    frame = pd.concat([rows("a"), rows("b")]).assign(x=np.random.RandomState(0).rand(48))
    found = statistics.mean_estimates(frame, "x")
    gain = found["b", "lungs"] - found["a", "lungs"]
    assert gain.value == pytest.approx(frame["x"][24:].mean() - frame["x"][:24].mean())
    other = frame.assign(seed=1)
    for make in (lambda f: statistics.mean_estimates(f, "x"), statistics.list_miou_estimates):
        with pytest.raises(
            CdfssError, match="several lists of a domain, expected one: lungs, 1-shot, seed 0"
        ):
            make(pd.concat([frame, other]))


def test_bands_of_positive_means_never_reach_zero():
    values = np.random.RandomState(0).lognormal(0, 3, (24, 2))
    mean, low, high = statistics.mean_and_interval(rows(), values)
    assert (low < 0).any()
    mean, low, high = statistics.mean_and_interval(rows(), values, positive=True)
    assert (low > 0).all()
    assert mean / low == pytest.approx(high / mean)
    assert mean == pytest.approx(values.mean(0))


def test_rounding_at_the_end_of_the_scale_is_no_doubt():
    frame = rows(episodes=60)
    frame["intersection_foreground"] = frame["union_foreground"]
    assert estimates_of(frame)["a"].interval == pytest.approx((100, 100))


def test_means_are_over_source_trainings():
    frames = [rows("a", source=source).assign(x=float(source)) for source in (0, 1)]
    assert statistics.mean_estimates(pd.concat(frames), "x")["a", "lungs"].value == 0.5


def test_a_support_that_repeats_is_no_second_picture():
    def error(supports):
        frame = rows(episodes=40, classes=1, supports=supports)
        return estimates_of(frame)["a"].spread_for("pictures")[0]

    once = error([[f"s{n}", f"t{n}"] for n in range(40)])
    assert error([[f"s{n}", f"s{n}"] for n in range(40)]) == pytest.approx(once, rel=0.02)


def test_what_is_not_known_stays_unknown():
    known = estimates_of(rows())["a"]
    for one in (statistics.UNKNOWN, Estimate.mean([known, statistics.UNKNOWN]), known - statistics.UNKNOWN):
        assert np.isnan([one.value, *one.interval]).all()


def test_the_paper_s_rows_take_seconds():
    # FSS-1000: 2,400 episodes of 240 classes, five variants.
    frame = pd.concat([rows(name, episodes=2400, classes=240) for name in "abcde"])
    begin = time.process_time()
    found = estimates_of(frame)
    for name in "bcde":
        (found[name] - found["a"]).columns("gain")
    assert time.process_time() - begin < 20
