"""Figures draw the numbers they are given, say what a run lacks, and are files that open."""

import xml.etree.ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_rows import feature_rows, filtered_rows, row, table_settings
from PIL import Image

from cdfss.data import index, metrics
from cdfss.evaluation import analyses, measurement, results
from cdfss.reports import catalogue, gallery, statistics
from cdfss.reports.figures import episodes, features, filtering, rows, style, training

VARIANTS = {
    "copy": {"method": "copy", "title": "Copy"},
    "baseline": {"title": "Baseline"},
    "apm_s": {"title": "APM-S", "modules": ["apm_s"]},
    "apm_m": {"title": "APM-M", "modules": ["apm_m", "acpa"]},
    "fast": {"title": "Fast", "modules": ["apm_s"], "learning_rate": 0.5, "main": False},
}
SETTINGS = table_settings(VARIANTS, shots=[1, 5])
ANALYSED = ("baseline", "apm_s", "apm_m")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def measured():
    return pd.DataFrame(feature_rows(SETTINGS, ANALYSED))


@pytest.fixture(scope="module")
def evaluated():
    generator = np.random.RandomState(0)
    return pd.DataFrame(
        row(generator, domain, variant, shot, 0, episode)
        for domain in SETTINGS["domains"]
        for variant in VARIANTS
        for shot in (1, 5)
        for episode in range(8)
    )


def band_of(axis, number):
    """Lower and upper end of the shaded band of a curve, (n,) each."""
    ys = axis.collections[number].get_paths()[0].vertices[:, 1]
    n = (len(ys) - 3) // 2
    return ys[1 : n + 1], ys[n + 2 : 2 * n + 2][::-1]


def line_of(axis, label):
    (line,) = (line for line in axis.get_lines() if line.get_label() == label)
    return np.array(line.get_xdata()), np.array(line.get_ydata())


def stacked(measured, column, domain, variant):
    mine = measured[(measured["domain"] == domain) & (measured["variant"] == variant)]
    return np.stack(mine[column])


def test_channels_of_pure_noise_are_flat(monkeypatch):
    generator = np.random.RandomState(0)
    lines = feature_rows(SETTINGS, ("baseline",), episodes=12)
    for line in lines:
        line["magnitudes"] = generator.rand(400)
    noise = pd.DataFrame(lines)
    _, drawn = line_of(features.channel_magnitudes(noise, SETTINGS).axes[0], "Baseline")
    assert np.abs(drawn - 1).max() < 0.2
    assert abs(drawn[:12].mean() - drawn[-12:].mean()) < 0.05
    # Ranks of the very episodes that are shown make a slope of it.
    monkeypatch.setattr(
        features, "cross_ranked", lambda values, *_: values[:, values.mean(0).argsort()[::-1]]
    )
    _, sorted_by_itself = line_of(features.channel_magnitudes(noise, SETTINGS).axes[0], "Baseline")
    assert sorted_by_itself[0] - sorted_by_itself[-1] > 0.5


def test_each_half_of_a_class_is_ranked_by_the_other():
    values = np.array([[1.0, 2, 3], [6, 5, 4], [1, 9, 2], [3, 1, 2]])
    ranked = features.cross_ranked(values, [7, 7, 8, 8], [0, 1, 0, 1])
    # Episodes 0 and 2 against 1 and 3, of which the means are 4.5, 3, 3 and 1, 5.5, 2.5.
    assert ranked[0].tolist() in ([1, 2, 3], [1, 3, 2])
    assert ranked[1].tolist() == [5, 4, 6]
    assert ranked[3].tolist() == [1, 2, 3]


def test_a_single_episode_has_no_ranks():
    lines = pd.DataFrame(feature_rows(SETTINGS, ("baseline",), episodes=1))
    assert (
        "second measured episode"
        in features.channel_magnitudes(lines, SETTINGS).axes[0].texts[0].get_text()
    )


def test_a_rank_of_magnitudes_is_one_channel():
    baseline = feature_rows(SETTINGS, ("baseline",))
    for line in baseline:
        # Channel 3 is the largest on average, but not in the first episode.
        line["magnitudes"] = np.full(20, 0.1, np.float32)
        line["magnitudes"][3], line["magnitudes"][5] = (0.1, 1.0) if line["episode"] == 0 else (2.0, 0.5)
    figure = features.channel_magnitudes(pd.DataFrame(baseline), SETTINGS)
    _, drawn = line_of(figure.axes[0], "Baseline")
    values = stacked(pd.DataFrame(baseline), "magnitudes", "lungs", "baseline")
    assert drawn[:2] == pytest.approx((values / values.mean(1, keepdims=True)).mean(0)[[3, 5]])


def test_phase_differences_are_shares_over_an_even_spread(measured):
    figure = features.phase_differences(measured, SETTINGS)
    xs, drawn = line_of(figure.axes[0], "Baseline")
    assert np.allclose(drawn, 50 * stacked(measured, "phases", "lungs", "baseline").mean(0))
    assert drawn.mean() == pytest.approx(1, rel=1e-5)
    many = pd.DataFrame(feature_rows(SETTINGS, ("baseline",), episodes=40))
    mine = many[many["domain"] == "lungs"]
    _, low, high = statistics.mean_and_interval(mine, 50 * np.stack(mine["phases"]))
    figure = features.phase_differences(many, SETTINGS)
    assert np.allclose(band_of(figure.axes[0], 0), (low, high))
    assert "Shaded: 95 % interval" in figure.legends[0].get_title().get_text()
    assert 0 < xs[0] < xs[-1] < 1
    assert "rad" in figure.axes[0].get_xlabel()


def test_correlations_are_cumulative_and_end_at_all_pairs(measured):
    figure = features.channel_correlations(measured, SETTINGS)
    _, drawn = line_of(figure.axes[0], "APM-M")
    assert drawn[-1] == pytest.approx(100, rel=1e-5)
    assert (np.diff(drawn) >= 0).all()


def test_learnt_masks_are_means_raw_and_stretched(measured):
    figure = features.learnt_masks(measured, SETTINGS)
    images = [axis.images[0] for axis in figure.axes if axis.images]
    mine = measured[(measured["variant"] == "apm_s") & (measured["domain"] == "lungs")]
    expected = np.mean([maps[0] for maps in mine["factor_maps"]], 0).reshape(3, 3)
    assert np.allclose(images[0].get_array(), expected)
    assert images[0].get_clim() == (0, 1)
    assert images[1].get_clim() == pytest.approx((expected.min(), expected.max()))
    assert f"{expected.min():.3f} to {expected.max():.3f}" in figure.axes[1].get_title()


def test_an_episode_that_diverged_is_left_out_of_all_variants(measured):
    mine = measured.copy()
    bad = (mine["variant"] == "apm_s") & (mine["domain"] == "lungs") & (mine["episode"] == 2)
    mine.loc[bad, "cka"] = np.nan
    lost_maps = [np.full(9, np.nan, np.float32)] * 2
    for column, lost in (("factor_maps", lost_maps), ("phases", np.full(50, np.nan, np.float32))):
        values = zip(bad, mine[column], strict=True)
        mine[column] = pd.Series([lost if is_bad else kept for is_bad, kept in values], mine.index)
    kept = mine[~((mine["domain"] == "lungs") & (mine["episode"] == 2))]
    for draw in (features.learnt_masks, features.phase_differences):
        for axis, expected in zip(draw(mine, SETTINGS).axes, draw(kept, SETTINGS).axes, strict=True):
            for image, other in zip(axis.images, expected.images, strict=True):
                assert np.array_equal(image.get_array(), other.get_array())
            for line, other in zip(axis.get_lines(), expected.get_lines(), strict=True):
                assert np.array_equal(line.get_ydata(), other.get_ydata())
                assert np.isfinite(line.get_ydata()).all()


def test_long_titles_leave_the_panels_their_size(evaluated):
    titles = [f"{number}: " + "a rather long title " * 4 for number in range(9)]
    variants = {f"v{number}": {"title": title} for number, title in enumerate(titles)}
    settings = table_settings(variants, shots=[1])
    mine = evaluated[(evaluated["variant"] == "copy") & (evaluated["shot"] == 1)]
    figure = rows.class_iou(pd.concat(mine.assign(variant=name) for name in variants), settings)
    figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().height / figure.dpi > 0.8
    legend = figure.legends[0].get_window_extent()
    assert legend.width <= figure.bbox.width
    assert legend.y1 < figure.axes[0].get_window_extent().y0


def test_a_variant_that_always_diverged_is_not_drawn(measured):
    mine = measured[measured["domain"] == "lungs"].copy()
    mine.loc[mine["variant"] == "apm_m", "cka"] = np.nan
    settings = table_settings(VARIANTS, ("lungs",), shots=[1])
    figure = features.channel_magnitudes(mine, settings)
    assert "APM-M" not in [line.get_label() for line in figure.axes[0].get_lines()]
    titles = [axis.get_ylabel() for axis in features.learnt_masks(mine, settings).axes]
    assert "APM-S\namplitude" in titles
    assert "APM-M\namplitude" not in titles


def test_iou_by_step_is_the_paired_difference_from_the_baseline():
    measured = pd.DataFrame(feature_rows(SETTINGS, ANALYSED, episodes=40))
    grows = [np.array([3, 9, 20]) + number % 7 for number in measured["episode"]]
    tuned = measured["variant"] == "apm_s"
    measured.loc[tuned, "step_intersection"] = pd.Series(grows, measured.index)[tuned]
    figure = features.iou_by_step(measured, SETTINGS)
    steps, drawn = line_of(figure.axes[0], "APM-S")
    assert steps.tolist() == [0, 2, 5]
    mine = measured[measured["domain"] == "lungs"]
    changes = []
    for at in range(3):
        both = [measurement.after_step(mine[mine["variant"] == "apm_s"], at)]
        both.append(measurement.after_step(mine[mine["variant"] == "baseline"]))
        estimates = statistics.list_miou_estimates(pd.concat(both))
        changes.append(estimates["apm_s", "lungs"] - estimates["baseline", "lungs"])
    assert drawn == pytest.approx([change.value for change in changes])
    assert np.allclose(band_of(figure.axes[0], 0), np.transpose([change.interval for change in changes]))
    assert "baseline 7.5 %" in figure.axes[0].get_title()


def test_small_lists_are_drawn_without_intervals_and_say_so(measured):
    import warnings

    few = measured[measured["episode"] < 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # as of means of nothing
        for draw in (features.iou_by_step, features.phase_differences, features.channel_magnitudes):
            figure = draw(few, SETTINGS)
            figure.draw_without_rendering()
            assert (
                figure.legends[0].get_title().get_text()
                == "No intervals: too few episodes, or that change."
            )


def test_filtering_writes_miou_and_colours_differences():
    filtered = pd.DataFrame(filtered_rows(SETTINGS))
    figure = filtering.filtering(filtered, SETTINGS)
    mine = filtered[filtered["domain"] == "lungs"]

    def miou(amplitude, phase):
        cell = mine[(mine["amplitude"] == amplitude) & (mine["phase"] == phase)]
        return 100 * metrics.mean_iou(*results.counts(cell), cell["class_id"])

    axis = figure.axes[0]
    texts = [text.get_text().strip("*") for text in axis.texts]
    assert texts[0] == f"{miou('all', 'all'):.1f}"
    assert texts[5] == f"{miou('high', 'low'):.1f}"
    drawn = np.array(axis.images[0].get_array())
    assert drawn[0, 0] == 0
    assert drawn[1, 2] == pytest.approx(miou("high", "low") - miou("all", "all"))


def test_a_star_marks_a_filter_whose_adjusted_p_is_small(monkeypatch):
    lines = filtered_rows(SETTINGS, episodes=40)
    for line in lines:
        change = {
            ("low", "high"): 20 + line["episode"] % 3,
            ("high", "high"): (-1) ** (line["episode"] // 2),
        }
        line["union_foreground"] = 100
        line["intersection_foreground"] = 40 + change.get((line["amplitude"], line["phase"]), 0)
    figure = filtering.filtering(pd.DataFrame(lines), SETTINGS)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[7].endswith("*")  # amplitude low, phase high
    assert sum("*" in text for text in texts) == 1
    monkeypatch.setattr(statistics, "holm", lambda p: [1.0] * len(p))
    adjusted = filtering.filtering(pd.DataFrame(lines), SETTINGS)
    assert not any("*" in text.get_text() for text in adjusted.axes[0].texts)


def test_iou_by_learning_rate_joins_variants_that_differ_in_it(evaluated):
    figure = rows.iou_by_learning_rate(evaluated, SETTINGS)
    rates, drawn = line_of(figure.axes[1], "APM-S")
    assert rates.tolist() == [0.01, 0.5]
    for variant, value in zip(("apm_s", "fast"), drawn, strict=True):
        of = {"variant": variant, "domain": "cells", "shot": 1}
        mine = evaluated[(evaluated[list(of)] == pd.Series(of)).all(axis=1)]
        base = evaluated[(evaluated[list(of)] == pd.Series(of | {"variant": "baseline"})).all(axis=1)]
        level, reference = (metrics.mean_iou(*results.counts(r), r["class_id"]) for r in (mine, base))
        assert value == pytest.approx(100 * (level - reference))
    assert figure.axes[0].get_xscale() == "log"
    mine = evaluated[evaluated["shot"] == 1]
    longer = pd.concat([mine.assign(episode=mine["episode"] + 8 * n) for n in range(5)])
    estimates = statistics.miou_estimates(longer)
    bars = rows.iou_by_learning_rate(longer, SETTINGS).axes[1].containers[0].lines[2][0].get_segments()
    for variant, bar in zip(("apm_s", "fast"), bars, strict=True):
        change = estimates[variant, "cells", 1, 0] - estimates["baseline", "cells", 1, 0]
        assert bar[:, 1] == pytest.approx(change.interval)


def test_a_rate_that_each_episode_chooses_is_a_level_beside_those_set_by_hand(evaluated):
    chosen = {"auto": {"title": "Chosen", "modules": ["apm_s"], "learning_rate": "auto", "main": False}}
    settings = table_settings(VARIANTS | chosen, shots=[1])
    mine = evaluated[evaluated["variant"] == "fast"].assign(variant="auto", learning_rate=0.0)
    figure = rows.iou_by_learning_rate(pd.concat([evaluated, mine]), settings)
    axis = figure.axes[1]
    rates, drawn = line_of(axis, "APM-S")
    assert rates.tolist() == [0.01, 0.5]
    _, level = line_of(axis, "Chosen")
    assert level == pytest.approx([drawn[1]] * 2)
    assert len(axis.get_xticks()) == 2


def test_class_iou_has_a_point_a_class_and_variant(evaluated):
    figure = rows.class_iou(evaluated, SETTINGS)
    _, drawn = line_of(figure.axes[2], "Copy")
    mine = evaluated[(evaluated["variant"] == "copy") & (evaluated["domain"] == "lungs")]
    mine = mine[mine["shot"] == 5]
    ious = metrics.class_iou(*results.counts(mine), mine["class_id"])
    assert drawn == pytest.approx([100 * ious[0], 100 * ious[1]])
    assert "Fast" not in [line.get_label() for line in figure.axes[0].get_lines()]
    assert [text.get_text() for text in figure.axes[2].get_xticklabels()] == ["class 0", "class 1"]


def test_class_iou_is_averaged_over_seeds_as_in_the_tables(evaluated):
    settings = table_settings(VARIANTS, shots=[1], seeds=[0, 1])
    one = evaluated[(evaluated["shot"] == 1) & (evaluated["variant"] == "copy")]
    other = one.assign(seed=1, union_foreground=one["union_foreground"] * 50)
    both = pd.concat([one, other, evaluated[evaluated["variant"] != "copy"].query("shot == 1")])
    _, drawn = line_of(rows.class_iou(both, settings).axes[0], "Copy")
    expected = []
    for class_id in (0, 1):
        mine = one[(one["domain"] == "lungs") & (one["class_id"] == class_id)]
        iou = mine["intersection_foreground"].sum() / mine["union_foreground"].sum()
        expected.append(100 * iou * (1 + 1 / 50) / 2)
    assert drawn == pytest.approx(expected)


def test_many_classes_are_drawn_by_rank(evaluated):
    many = evaluated.assign(class_id=evaluated["episode"] + 100 * (evaluated["episode"] > 3))
    many = pd.concat([many, many.assign(class_id=many["class_id"] + 1000, episode=many["episode"] + 8)])
    figure = rows.class_iou(many, SETTINGS)
    xs, drawn = line_of(figure.axes[0], "Baseline")
    assert len(xs) == 16
    assert (np.diff(drawn) <= 0).all()


def test_paired_episodes_are_on_the_same_episode_and_ties_are_ties(evaluated):
    mine = evaluated[evaluated["domain"] == "lungs"].copy()
    base, tuned = (mine["variant"].eq(v) & mine["shot"].eq(5) for v in ("baseline", "apm_s"))
    mine.loc[base | tuned, "union_foreground"] = 100
    mine.loc[base, "intersection_foreground"] = 40
    mine.loc[tuned, "intersection_foreground"] = [40, 40, 41, 39, 45, 45, 45, 30]
    settings = table_settings(VARIANTS, ("lungs",), shots=[1, 5])
    figure = rows.paired_episodes(mine.sample(frac=1, random_state=0), settings)
    assert [axis.get_ylabel().split("\n")[1][:6] for axis in figure.axes] == ["1-shot", "5-shot"] * 2
    assert figure.axes[1].texts[0].get_text() == "better 38, worse 12, same 50 %"
    tied, others = (np.array(points.get_offsets()) for points in figure.axes[1].collections)
    assert tied[:, 1].tolist() == [40, 40, 41, 39]  # one pixel of 100 is no change for the better
    assert others.tolist() == [[40, 45]] * 3 + [[40, 30]]


def test_what_a_run_lacks_is_written_into_its_figure(evaluated):
    lone = table_settings({"copy": {"method": "copy"}}, shots=[1])
    figures = [filtering.filtering(None, lone), rows.iou_by_learning_rate(None, lone)]
    figures += [rows.paired_episodes(evaluated, lone), rows.class_iou(None, lone)]
    names = (
        "channel_magnitudes",
        "phase_differences",
        "channel_correlations",
        "learnt_masks",
        "iou_by_step",
    )
    figures += [getattr(features, name)(None, lone) for name in names]
    figures.append(features.heat_maps(None, [], lone))
    plain = table_settings({"baseline": {}}, shots=[1])
    figures.append(features.learnt_masks(pd.DataFrame(feature_rows(plain, ("baseline",))), plain))
    for figure in figures:
        assert figure.axes[0].texts[0].get_text().startswith("Not in this run: ")


def test_the_grid_shows_worst_median_and_best_episode(pictured):
    figure = episodes.episode_grid(*pictured, {"baseline": "Baseline", "apm_s": "APM-S"})
    titles = [axis.get_title() for axis in figure.axes]
    assert "query 0\nworst" in titles
    assert "query 3\nbest" in titles
    assert "Baseline\nIoU 0.0 %" in titles
    assert "APM-S\nIoU 51.7 %" in titles


def test_heat_maps_outline_the_truth_of_the_median_episode(pictured, measured):
    settings = table_settings(VARIANTS, ("lungs",), shots=[1])
    images = index.load(pictured[0]).rows["image"]
    mine = measured[measured["domain"] == "lungs"].assign(class_id=0)
    mine["query"] = [images[episode] for episode in mine["episode"]]
    mine["supports"] = [[images[0]]] * len(mine)
    figure = features.heat_maps(mine, [pictured[0]], settings)
    drawn = [axis.images[0] for axis in figure.axes if axis.images]
    # IoU is the same in all episodes, so the median is the third of six by number.
    heat = mine[(mine["variant"] == "apm_s") & (mine["episode"] == 2)]["activation"].iloc[0]
    assert np.allclose(drawn[2].get_array(), heat.reshape(3, 3))
    assert len(drawn) == 2 + 2 * 3  # support and query, then two kinds of three variants
    assert drawn[-1].get_clim() == (0, 1)


def test_the_gallery_says_what_its_pictures_show(pictured, tmp_path):
    import json

    gallery.write(
        *pictured, {"baseline": "Baseline", "apm_s": "APM-S"}, tmp_path / "gallery" / "gallery.json"
    )
    told = json.loads((tmp_path / "gallery" / "gallery.json").read_text())
    assert [episode["episode"] for episode in told["episodes"]] == [0, 1, 2, 3]
    shown = told["episodes"][2]
    assert list(shown["predictions"]) == ["baseline", "apm_s"]
    assert shown["predictions"]["baseline"]["iou"] == pytest.approx(100 * 20 / 60)
    pictures = [shown["query"], *(support["file"] for support in shown["supports"])]
    for file in pictures:
        with Image.open(tmp_path / "gallery" / file) as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")  # as the run saw it, not enlarged
    masks = [(shown["predictions"]["apm_s"]["mask"], 64), (shown["supports"][0]["mask"], 64)]
    for file, side in masks:
        with Image.open(tmp_path / "gallery" / file) as image:
            assert image.size == (side, side)
    # The prediction of episode 2 (`pictured`), under which the picture is seen.
    with Image.open(tmp_path / "gallery" / shown["predictions"]["apm_s"]["mask"]) as image:
        alpha = np.array(image.convert("RGBA"))[..., 3]
    inside = np.zeros((64, 64), bool)
    inside[10:36, 10:30] = True
    assert np.array_equal(alpha > 26, inside)
    assert (alpha[11:35, 11:29] == 115).all()


def test_the_gallery_lists_every_episode_with_the_iou_of_each_variant(pictured, tmp_path, monkeypatch):
    import json

    monkeypatch.setattr(gallery, "EPISODES", 1)
    monkeypatch.setattr(gallery, "most_moving", lambda rows, variants: {})
    gallery.write(*pictured, {"baseline": "Baseline", "apm_s": "APM-S"}, tmp_path / "g" / "gallery.json")
    told = json.loads((tmp_path / "g" / "gallery.json").read_text())
    assert told["list"] == {
        "episode": [0, 1, 2, 3],
        "classes": ["class 0", "class 1"],
        "class": [0, 1, 0, 1],
        "iou": {"baseline": [0, 1667, 3333, 5000], "apm_s": [167, 1833, 3500, 5167]},
    }
    assert [episode["episode"] for episode in told["episodes"]] == [0, 1, 3]  # worst, median, best


def test_episodes_that_stand_out_are_each_variants_own(pictured):
    rows = results.load(pictured[1])
    apm_s = rows["variant"] == "apm_s"
    # Percent: of the baseline 0, 16.7, 33.3, 50; of APM-S 20, 0, 40, 50.
    rows.loc[apm_s, "intersection_foreground"] = rows[apm_s]["episode"].map({0: 12, 1: 0, 2: 24, 3: 30})
    assert gallery.outstanding(rows, ["baseline"]) == {0, 1, 3}
    assert gallery.outstanding(rows, ["apm_s"]) == {1, 0, 3}
    rows.loc[apm_s, "intersection_foreground"] = rows[apm_s]["episode"].map({0: 0, 1: 10, 2: 60, 3: 30})
    assert 2 in gallery.outstanding(rows, ["baseline", "apm_s"])


def test_the_gallery_holds_the_episode_that_moves_a_difference_most(pictured, tmp_path, monkeypatch):
    import json

    monkeypatch.setattr(gallery, "outstanding", lambda rows, variants: set())
    monkeypatch.setattr(gallery, "EPISODES", 1)
    lines = results.load(pictured[1])
    far = lines["variant"].eq("apm_s") & lines["episode"].eq(2)
    lines.loc[far, "intersection_foreground"] = 60
    monkeypatch.setattr(results, "load", lambda paths: lines)
    gallery.write(*pictured, {"baseline": "Baseline", "apm_s": "APM-S"}, tmp_path / "g" / "gallery.json")
    told = json.loads((tmp_path / "g" / "gallery.json").read_text())
    assert [episode["episode"] for episode in told["episodes"]] == [0, 2]
    (move,) = told["episodes"][1]["moves"]
    assert (move["variant"], told["episodes"][0]["moves"]) == ("apm_s", [])
    assert move["with"] == pytest.approx(100 * (1 + 1 + 40 + 1) / 240)
    assert move["without"] == pytest.approx(100 * 3 / 180)


def test_a_mask_is_tinted_inside_and_outlined():
    picture = np.full((50, 50, 3), 100, np.uint8)
    mask = np.zeros((50, 50), bool)
    mask[10:40, 10:40] = True
    shown = style.tinted(picture, mask, "#ff0000")
    assert shown[10, 10].tolist() == [255, 0, 0]
    assert shown[25, 25].tolist() == [170, 55, 55]
    assert shown[0, 0].tolist() == [103, 103, 103]


def test_the_price_is_mean_miou_against_median_seconds(evaluated):
    lines = evaluated.copy()
    lines.loc[lines["variant"] == "copy", "seconds"] = 0.0  # shorter than the clock shows
    figure = rows.iou_by_seconds(lines, SETTINGS)
    assert [axis.get_title() for axis in figure.axes] == ["1-shot", "5-shot"]
    for axis, shot in zip(figure.axes, (1, 5)):
        points = {bars.get_label(): bars.lines[0] for bars in axis.containers}
        assert set(points) == {"Copy", "Baseline", "APM-S", "APM-M"}  # a rate has its own figure
        mine = lines[(lines["variant"] == "apm_m") & (lines["shot"] == shot)]
        miou = [metrics.mean_iou(*results.counts(m), m["class_id"]) for _, m in mine.groupby("domain")]
        assert points["APM-M"].get_xdata()[0] == pytest.approx(mine["seconds"].median())
        assert points["APM-M"].get_ydata()[0] == pytest.approx(100 * np.mean(miou))
        assert points["Copy"].get_xdata()[0] > 0
        assert points["APM-M"].get_markerfacecolor() == "white"  # needs a source model
        assert points["Copy"].get_markerfacecolor() != "white"
        assert axis.get_xscale() == "log"


def test_files_open_and_are_the_same_every_time(tmp_path, measured):
    paths = [tmp_path / "a.svg", tmp_path / "b.svg", tmp_path / "a.png"]
    style.save(features.channel_correlations(measured, SETTINGS), [paths[0], paths[2]])
    style.save(features.channel_correlations(measured, SETTINGS), [paths[1]])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert xml.etree.ElementTree.parse(paths[0]).getroot().tag.endswith("svg")
    with Image.open(paths[2]) as image:
        assert image.width > 600


def test_variants_look_different():
    looks = style.looks(table_settings({f"v{n}": {"modules": ["apm_s"], "steps": n} for n in range(1, 25)}))
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == 24
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 24


def test_every_figure_has_a_function_and_a_caption():
    for name, entry in catalogue.FIGURES.items():
        module = filtering if "filtered" in entry.needs else features if "features" in entry.needs else rows
        assert callable(getattr(module, name))
        assert entry.caption.endswith(".")
    assert f"in {analyses.PHASE_BINS} bins" in catalogue.FIGURES["phase_differences"].caption
    assert rows.CLASSES_BY_NAME == 12
    assert f"in {features.RANKS} groups" in catalogue.FIGURES["channel_magnitudes"].caption
    assert f"less than {rows.TIE:g} points" in catalogue.FIGURES["paired_episodes"].caption
    assert "More than twelve classes" in catalogue.FIGURES["class_iou"].caption


def test_class_iou_is_the_mean_over_source_models(evaluated):
    mine = evaluated[(evaluated["shot"] == 1) & evaluated["variant"].isin(("copy", "baseline"))]
    trained = mine["variant"] == "baseline"
    better = mine[trained].assign(intersection_foreground=mine["union_foreground"], source=1)
    both = pd.concat([mine.assign(source=np.where(trained, 0, np.nan)), better]).astype({"source": "Int32"})
    settings = table_settings({name: VARIANTS[name] for name in ("copy", "baseline")}, shots=[1])
    axis, once = (rows.class_iou(lines, settings).axes[0] for lines in (both, mine))
    for label in ("Copy", "Baseline"):
        (_, drawn), (_, before) = (line_of(a, label) for a in (axis, once))
        assert drawn == pytest.approx(before if label == "Copy" else (before + 100) / 2)


def test_paired_episodes_are_of_the_first_source_model(evaluated):
    trained = evaluated["variant"] != "copy"
    mine = evaluated.assign(source=np.where(trained, 3, np.nan))
    other = mine[trained].assign(source=1, intersection_foreground=0)
    both = pd.concat([other, mine]).astype({"source": "Int32"})
    figures = [rows.paired_episodes(f, SETTINGS | {"sources": [3, 1]}) for f in (mine, both)]
    points = [np.concatenate([of.get_offsets() for of in figure.axes[0].collections]) for figure in figures]
    assert len(points[0]) == 8
    assert np.array_equal(*points)


def test_the_training_history_marks_the_best_epoch():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "train_miou": [0.1, 0.2, 0.3]}
    )
    one = history.assign(validation_miou=[0.2, 0.5, 0.4])
    figure = training.training_history({"HSNet": {0: one}})
    xs, ys = line_of(figure.axes[1], "chosen")
    assert (xs[0], ys[0]) == (2, 50)
    assert not figure.axes[1].texts
    # Of several trainings each has its curves, and its seed beside the chosen epoch.
    figure = training.training_history(
        {"HSNet": {0: one, 7: history.assign(validation_miou=[0.2, 0.3, 0.6])}}
    )
    assert [len(axis.get_lines()) for axis in figure.axes] == [2, 6]
    assert [(text.get_text(), *text.xy) for text in figure.axes[1].texts] == [
        ("seed 0", 2, 50),
        ("seed 7", 3, 60),
    ]
    assert len(figure.axes[1].get_legend().get_texts()) == 3


def test_titles_are_no_formulas(tmp_path, evaluated):
    settings = table_settings({"baseline": {"title": "costs $x_$ y"}}, shots=[1])
    figure = rows.class_iou(evaluated, settings)
    assert r"costs \$x_\$ y" in [line.get_label() for line in figure.axes[0].get_lines()]
    style.save(figure, [tmp_path / "a.png"])
