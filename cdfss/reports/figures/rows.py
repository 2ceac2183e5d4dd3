"""What evaluation rows show beyond the paper: learning rates, classes, single episodes.

All take evaluation rows, None if the run has none for them, and `Shown.table_settings`.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cdfss.evaluation import results
from cdfss.reports import statistics
from cdfss.reports.catalogue import words
from cdfss.reports.figures.style import (
    BARS,
    GREY,
    SMALL,
    TINY,
    WIDTH,
    bars,
    baseline_at_0,
    lacking,
    legend,
    looks,
    meaning,
    panels,
    plain,
    points_label,
    title_of,
    without_marker,
)
from cdfss.reports.statistics import Estimate

CLASSES_BY_NAME = 12  # more are drawn by rank
TIE = 0.1  # percentage points


def iou_by_learning_rate(rows: pd.DataFrame | None, settings: dict):
    """mIoU against learning rate, for variants that differ in nothing else.

    As paired difference from the baseline's; without a baseline, mIoU itself. Filled markers: the rate of
    the main variant, that is the paper's in the paper's run. A rate that is chosen in each episode is a
    level.
    """
    families = settings["rate_families"]
    if not families or rows is None:
        return lacking("variants that differ in their learning rate alone. config/extended.yaml has some.")
    shot = settings["shots"][0]
    estimates = statistics.miou_estimates(rows[rows["shot"] == shot], settings["stated"])
    over_seeds = {
        (name, domain): Estimate.mean(estimates[name, domain, shot, seed] for seed in settings["seeds"])
        for name, domain, *_ in estimates
    }
    rates = rows.groupby(["variant", "domain"])["learning_rate"].first()
    figure, axes = panels(settings)
    styles, baseline, ends = looks(settings), settings["baseline"], []
    for axis, domain in zip(axes[0], settings["domains"], strict=True):
        if baseline:
            level, title = over_seeds[baseline, domain], title_of(settings, baseline)
            baseline_at_0(axis, level, title, styles[baseline])
        for members in families:
            for name in [n for n in members if n in settings["choosing"]]:
                level_of = over_seeds[name, domain] - level if baseline else over_seeds[name, domain]
                look = {**without_marker(styles[name]), "linestyle": "--"}
                axis.axhline(level_of.value, **look, label=title_of(settings, name))
            members = [name for name in members if name not in settings["choosing"]]
            # The curve is named after its main variant: in the paper's run the one with the paper's rate.
            lead = next((name for name in members if settings["variants"][name]["main"]), members[0])
            look, title = styles[lead], title_of(settings, lead)
            ordered = [name for _, name in sorted((rates[name, domain], name) for name in members)]
            xs = [rates[name, domain] for name in ordered]
            mine = [over_seeds[name, domain] for name in ordered]
            if baseline:
                mine = [estimate - level for estimate in mine]
            ys = [estimate.value for estimate in mine]
            ends.append(bars(mine))
            axis.plot(xs, ys, **without_marker(look), label=title)
            axis.errorbar(xs, ys, ends[-1], ecolor=look["color"], **BARS)
            points = zip(ordered, xs, ys, strict=True)
            # Main variants last: a sweep may go through their rate.
            for name, x, y in sorted(points, key=lambda p: settings["variants"][p[0]]["main"]):
                filled = look["color"] if settings["variants"][name]["main"] else "white"
                axis.plot(x, y, marker=look["marker"], color=look["color"], markerfacecolor=filled)
        axis.set(xscale="log", xlabel="learning rate")
        swept = {name for members in families for name in members} - set(settings["choosing"])
        shown = sorted({rates[name, domain] for name in swept})
        axis.set_xticks(shown, [f"{rate:g}".replace("e-0", "e-") for rate in shown], fontsize=TINY)
        axis.minorticks_off()
    axes[0, 0].set_ylabel(points_label(shot, baseline))
    legend(figure, axes, meaning("Bars", np.concatenate(ends, axis=1), settings))
    return figure


def iou_by_seconds(rows: pd.DataFrame, settings: dict):
    """Mean mIoU over the domains against seconds an episode; a panel per number of shots.

    Args:
        rows: with cost (`results.with_cost`).
    """
    estimates = statistics.miou_estimates(rows, settings["stated"])
    figure, axes = plt.subplots(
        1, len(settings["shots"]), figsize=(WIDTH, 2.9), squeeze=False, sharey=True, layout="constrained"
    )
    styles, ends = looks(settings), []
    for axis, shot in zip(axes[0], settings["shots"], strict=True):
        for name in settings["shown"]["cost"]:
            mine = Estimate.mean(
                estimates[name, domain, shot, seed]
                for domain in settings["domains"]
                for seed in settings["seeds"]
            )
            of_it = rows[(rows["variant"] == name) & (rows["shot"] == shot)]
            # Less than a clock shows, and 0 has no logarithm.
            seconds = max(of_it["seconds"].median(), 1e-5)
            needs_source = settings["variants"][name]["needs"] == "source"
            ends.append(bars([mine]))
            axis.errorbar(
                seconds,
                mine.value,
                yerr=ends[-1],
                **styles[name] | {"linestyle": "none"},
                markerfacecolor="white" if needs_source else styles[name]["color"],
                markersize=5,
                elinewidth=0.6,
                label=title_of(settings, name),
            )
        axis.set(xscale="log", xlabel="seconds an episode", title=f"{shot}-shot")
    axes[0, 0].set_ylabel("mIoU, %")
    legend(figure, axes, meaning("Bars", ends, settings))
    return figure


def class_iou(rows: pd.DataFrame | None, settings: dict):
    """Foreground IoU of each class, counts summed over its episodes; a row of panels per number of shots.

    With several seeds, of lists or of the source training, the mean over them, as in the tables.

    Up to CLASSES_BY_NAME classes are named; more are drawn by rank, each variant by its own. A rank is no
    class, so that ranks have no intervals.
    """
    if rows is None:
        return lacking("a main variant")
    shots = settings["shots"]
    figure, axes = panels(settings, len(shots), 1.75, sharey=True)
    styles, ends = looks(settings), []
    variants = settings["shown"]["main"]
    estimates = statistics.class_iou_estimates(rows[rows["variant"].isin(variants)], settings["stated"])
    for line, shot in zip(axes, shots, strict=True):
        line[0].set_ylabel(f"{shot}-shot IoU, %")
        for axis, domain in zip(line, settings["domains"], strict=True):
            mine = rows[(rows["shot"] == shot) & (rows["domain"] == domain)]
            names = mine.drop_duplicates("class_id").set_index("class_id")["class_name"].sort_index()
            by_name = len(names) <= CLASSES_BY_NAME
            for number, variant in enumerate(variants):
                keys = [
                    [(variant, domain, shot, seed, c) for seed in settings["seeds"]] for c in names.index
                ]
                shown = [Estimate.mean(estimates[key] for key in of if key in estimates) for of in keys]
                ys = np.array([estimate.value for estimate in shown])
                look, label = styles[variant], title_of(settings, variant)
                if by_name:
                    aside = (number - (len(variants) - 1) / 2) * 0.7 / len(variants)
                    xs = np.arange(len(ys)) + aside
                    axis.plot(xs, ys, **(look | {"linestyle": "none"}), label=label)
                    ends.append(bars(shown))
                    axis.errorbar(xs, ys, ends[-1], ecolor=look["color"], **BARS)
                else:
                    ranked = np.sort(ys)[::-1]
                    axis.plot(np.arange(1, len(ys) + 1), ranked, **without_marker(look), label=label)
            if by_name:
                slanted = (
                    {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(names) > 1 else {}
                )
                shown = [plain(words(name)) for name in names]
                axis.set_xticks(range(len(names)), shown, fontsize=SMALL, **slanted)
                axis.set_xlim(-0.6, len(names) - 0.4)
            else:
                axis.set_xlabel(f"{len(names)} classes, by rank (no intervals)")
            axis.set_ylim(0, 100)
    legend(figure, axes, meaning("Bars", np.concatenate(ends, axis=1), settings) if ends else "")
    return figure


def paired_episodes(rows: pd.DataFrame | None, settings: dict):
    """Foreground IoU of every episode against the baseline's on the same episode.

    A row of panels per main variant with modules and number of shots; first seed and source model. Points
    of episodes that are the `same` are grey.
    """
    baseline = settings["baseline"]
    kinds = {name: variant["kind"] for name, variant in settings["variants"].items()}
    variants = [name for name in settings["shown"]["main"] if kinds[name] not in ("trivial", "baseline")]
    if baseline is None or not variants:
        return lacking("a baseline and a main variant to compare with it")
    rows = results.of_source(rows, settings["sources"][0])
    mine = results.iou(rows[rows["seed"] == settings["seeds"][0]])
    mine = mine.set_index(["variant", "domain", "shot", "episode"]).sort_index()
    lines = [(variant, shot) for variant in variants for shot in settings["shots"]]
    figure, axes = panels(settings, len(lines), 1.45, sharex=True, sharey=True)
    styles = looks(settings)
    for line, (variant, shot) in zip(axes, lines, strict=True):
        line[0].set_ylabel(f"{title_of(settings, variant, 24)}\n{shot}-shot IoU, %", fontsize=SMALL)
        for axis, domain in zip(line, settings["domains"], strict=True):
            before, after = (mine.loc[(name, domain, shot)] for name in (baseline, variant))
            tied = same(before, after)
            better = (after["iou"] > before["iou"]) & ~tied
            size = 9 if len(before) < 100 else 3
            for points, colour in ((tied, GREY), (~tied, styles[variant]["color"])):
                xs, ys = (100 * of["iou"][points] for of in (before, after))
                axis.scatter(xs, ys, s=size, alpha=0.5, color=colour, linewidths=0)
            axis.plot([0, 100], [0, 100], color=GREY, linewidth=0.6, zorder=0)
            shares = [("better", better), ("worse", ~better & ~tied), ("same", tied)]
            text = ", ".join(f"{name} {100 * of.mean():.0f}" for name, of in shares) + " %"
            axis.text(0.03, 0.98, text, transform=axis.transAxes, va="top", fontsize=SMALL)
            axis.set(xlim=(-2, 102), ylim=(-2, 120), xticks=[0, 50, 100], yticks=[0, 50, 100])
    for axis in axes[-1]:
        axis.set_xlabel(f"{title_of(settings, baseline, 24)} IoU, %")
    legend(
        figure, [], f"Grey: same, that is less than {TIE:g} points or one pixel apart. Shares of episodes."
    )
    return figure


def same(before: pd.DataFrame, after: pd.DataFrame) -> pd.Series:
    """Whether predictions of the same episodes are as good: less than TIE or one pixel apart.

    Args:
        before, after: `results.iou` of the same episodes, in the same order.
    """
    # A pixel that is predicted otherwise changes IoU by at most 1 / union, of the larger union.
    pixel = 1 / np.maximum(before["union_foreground"], after["union_foreground"]).clip(lower=1)
    change = (after["iou"] - before["iou"]).abs()
    return (change < TIE / 100) | (change <= pixel * (1 + 1e-9))
