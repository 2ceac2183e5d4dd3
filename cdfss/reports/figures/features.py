"""What adaptation does to features (paper figures 2, 3, 6, 7, 8, 9).

All take `measured`, rows of `measurement.FEATURES` or None if the run measures none, and
`Shown.table_settings`. An episode in which an adaptation diverged has no features and is left out
of all variants that a figure shows, as in tables 3 and 4; mIoU by step counts it as it was predicted.
"""

import numpy as np
import pandas as pd

from cdfss.data import index
from cdfss.evaluation import measurement, results
from cdfss.reports import statistics
from cdfss.reports.figures.episodes import show_mask
from cdfss.reports.figures.style import (
    COLUMN,
    PALE,
    SMALL,
    SUPPORT,
    TINY,
    TRUTH,
    baseline_at_0,
    lacking,
    legend,
    looks,
    meaning,
    panels,
    picture_grid,
    plain,
    points_label,
    title_of,
    without_marker,
)

NO_MODEL = "a main variant of HSNet"
RANKS = 48  # points of a curve of channels by rank
ONE_EPISODE = "one episode measured;\nranks need another"
UNIT = {"vmin": 0, "vmax": 1}


def groups(measured: pd.DataFrame, settings: dict):
    """(domain number, variant, rows) in the configuration's order."""
    for number, domain in enumerate(settings["domains"]):
        for variant in settings["variants"]:
            rows = measured[(measured["domain"] == domain) & (measured["variant"] == variant)]
            if len(rows):
                yield number, variant, rows


def _ended_well(measured: pd.DataFrame) -> pd.DataFrame:
    """Rows of the episodes in which no variant diverged."""
    kept, _ = measurement.finite(measured, ["cka"], "variant")
    return kept


def _curves(measured, settings, column: str, xs, transform=lambda rows, values: values, positive=False):
    """A panel per domain with a curve per variant: mean over episodes of an array column.

    `transform` takes the rows of a list and their arrays, (N, n), and returns what is averaged, (N, n).
    """
    figure, axes = panels(settings, sharey=True)
    styles, ends = looks(settings), []
    for number, variant, rows in groups(_ended_well(measured), settings):
        look = without_marker(styles[variant])
        values = transform(rows, np.stack(rows[column]))
        mean, low, high = statistics.mean_and_interval(rows, values, settings["stated"], positive)
        axis, places = axes[0, number], xs(len(mean))
        axis.plot(places, mean, label=title_of(settings, variant), **look)
        axis.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0)
        ends.append(low)
    legend(figure, axes, meaning("Shaded", np.concatenate(ends), settings) if ends else "")
    return figure, axes[0]


def channel_magnitudes(measured: pd.DataFrame | None, settings: dict):
    """Channels by magnitude, largest first, over the mean of all channels (paper figure 2).

    Ranks are those of other episodes than the values (`cross_ranked`).
    """
    if measured is None:
        return lacking(NO_MODEL)
    measured = _ended_well(measured)
    of_domain = measured.groupby("domain")["episode"].transform("nunique")
    if (of_domain < 2).all():
        return lacking("a second measured episode, in which channels are ranked")

    def ranked(rows, values):
        values = cross_ranked(values / values.mean(1, keepdims=True), rows["class_id"], rows["episode"])
        return np.stack([values[:, group].mean(1) for group in _neighbours(channels)], 1)

    def places(_):
        return [group.mean() + 1 for group in _neighbours(channels)]

    channels = len(measured["magnitudes"].iloc[0])
    several = measured[of_domain > 1]
    figure, axes = _curves(several, settings, "magnitudes", places, ranked, positive=True)
    for axis, domain in zip(axes, settings["domains"], strict=True):
        axis.set(xlabel="channel, by rank", yscale="log")
        axis.axhline(1, color=PALE, linewidth=0.5, zorder=0)
        if domain in set(measured.loc[of_domain < 2, "domain"]):
            axis.text(0.5, 0.55, ONE_EPISODE, transform=axis.transAxes, ha="center", fontsize=SMALL)
    # Not down to where the bands of the weakest channels may reach, by many decades.
    drawn = np.concatenate([line.get_ydata() for axis in axes for line in axis.get_lines()])
    axes[0].set_ylim(bottom=drawn[drawn > 0].min() / 2)
    axes[0].set_ylabel("mean magnitude / mean of all")
    return figure


def _neighbours(channels: int) -> list[np.ndarray]:
    """Ranks, from 0, in RANKS groups, or each alone where there are fewer.

    A curve of single ranks jumps by whole decades where few episodes are measured.
    """
    return np.array_split(np.arange(channels), min(channels, RANKS))


def cross_ranked(values: np.ndarray, class_id, episode) -> np.ndarray:
    """Each episode's channels, largest first by the mean over other episodes than it.

    Episodes are split in two halves, every second one of each class. The order of each half's mean is
    applied to the other half, so that channels which differ by chance alone give a flat curve: an order
    taken from the very values that it sorts would make a slope of noise.

    Args:
        values: (N, C), N at least 2.
        class_id, episode: (N,).
    """
    half = np.empty(len(values), int)
    half[np.lexsort([episode, class_id])] = np.arange(len(values)) % 2
    ranked = np.empty_like(values)
    for one in (0, 1):
        ranked[half == one] = values[half == one][:, values[half != one].mean(0).argsort()[::-1]]
    return ranked


def phase_differences(measured: pd.DataFrame | None, settings: dict):
    """Amplitude-weighted differences of two channels' phases (paper figures 3 and 8)."""
    if measured is None:
        return lacking(NO_MODEL)
    figure, axes = _curves(
        measured, settings, "phases", lambda n: (np.arange(n) + 0.5) / n, lambda _, v: v * v.shape[1]
    )
    for axis in axes:
        axis.set_xticks([0, 0.5, 1], ["0", "π/2", "π"])
        axis.set_xlabel("phase difference, rad")
        axis.axhline(1, color=PALE, linewidth=0.5, zorder=0)
    axes[0].set_ylabel("weight / even spread")
    return figure


def channel_correlations(measured: pd.DataFrame | None, settings: dict):
    """Cumulative shares of channel pairs by absolute correlation (paper figure 6)."""
    if measured is None:
        return lacking(NO_MODEL)
    figure, axes = _curves(
        measured,
        settings,
        "correlations",
        lambda n: np.arange(1, n + 1) / n,
        lambda _, values: 100 * values.cumsum(1),
    )
    for axis in axes:
        axis.set(xlabel="absolute correlation", xlim=(0, 1), ylim=(0, 100))
    axes[0].set_ylabel("channel pairs up to it, %")
    return figure


def learnt_masks(measured: pd.DataFrame | None, settings: dict):
    """Factors that the masks of modules such as APM became, lowest frequency centred (paper figure 9).

    Means over episodes and channels, drawn twice: raw, from 0 to 1, and stretched from the
    smallest to the largest value.
    """
    if measured is None:
        return lacking(NO_MODEL)
    masked = _ended_well(measured[measured["factors"].str.len() > 0])
    variants = [name for name in settings["variants"] if name in set(masked["variant"])]
    if not variants:
        return lacking("a main variant with APM")
    firsts = masked.drop_duplicates("variant").set_index("variant")["factors"]
    rows = [(variant, n, part) for variant in variants for n, part in enumerate(firsts[variant])]
    columns = 2 * len(settings["domains"])
    figure, axes = picture_grid(len(rows), columns, 8, 0.95 * len(rows) + 0.9)
    for y, (variant, n, part) in enumerate(rows):
        axes[y, 0].set_ylabel(f"{title_of(settings, variant, COLUMN)}\n{part}", fontsize=SMALL)
        for number, domain in enumerate(settings["domains"]):
            mine = masked[(masked["variant"] == variant) & (masked["domain"] == domain)]
            if mine.empty:
                continue
            size = mine["height"].iloc[0], mine["width"].iloc[0]
            factor = np.stack([maps[n] for maps in mine["factor_maps"]]).mean(0).reshape(size)
            raw, stretched = axes[y, 2 * number : 2 * number + 2]
            image = raw.imshow(factor, vmin=0, vmax=1, cmap="cividis")
            stretched.imshow(factor, cmap="cividis")
            stretched.set_title(_span(factor), fontsize=TINY, pad=2)
    for number, title in enumerate(settings["domains"].values()):
        axes[0, 2 * number].set_title(f"{plain(title, COLUMN)}\nraw", fontsize=SMALL)
        top = axes[0, 2 * number + 1]
        top.set_title(f"stretched\n{top.get_title()}", fontsize=TINY, pad=2)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.3, aspect=40, pad=0.01)
    bar.set_label("factor on a frequency (raw)")
    return figure


def _span(factor: np.ndarray) -> str:
    """Smallest and largest value; where three decimals do not tell them apart, middle and distance."""
    low, high = factor.min(), factor.max()
    if high - low >= 0.002:
        return f"{low:.3f} to {high:.3f}"
    return f"{(low + high) / 2:.3f} ± {(high - low) / 2:.1g}"


def heat_maps(measured: pd.DataFrame | None, index_paths, settings: dict):
    """Where a query's features are active, and alike the support's foreground (paper figure 7).

    One query per domain: it is the median episode by the first variant's IoU, so it is not chosen by hand.

    Args:
        index_paths: index files, in the order of the domains.
    """
    if measured is None:
        return lacking(NO_MODEL)
    measured = _ended_well(measured)
    variants = [name for name in settings["variants"] if name in set(measured["variant"])]
    columns, lines = 1 + len(variants), 2 * len(settings["domains"])
    figure, axes = picture_grid(lines, columns, 6, 1.12 * lines + 0.3)
    for number, (domain, path) in enumerate(zip(settings["domains"], index_paths, strict=True)):
        title, mine = plain(settings["domains"][domain], COLUMN), measured[measured["domain"] == domain]
        if mine.empty:
            continue
        first = next(name for name in variants if (mine["variant"] == name).any())
        median = results.median_episode(measurement.after_step(mine), first)
        chosen = mine[(mine["variant"] == first) & (mine["episode"] == median)].iloc[0]
        pictures = index.load(path)
        support, (query, truth, _) = (
            pictures.read(pictures.row(image, chosen["class_id"]), settings["image_size"])
            for image in (chosen["supports"][0], chosen["query"])
        )
        kinds = (
            ("support", *support[:2], SUPPORT, "activation", "query\nactivation", {}),
            ("query", query, truth, TRUTH, "similarity", "query\nsimilarity", UNIT),
        )
        for (what, picture, mask, colour, column, label, limits), line in zip(
            kinds, axes[2 * number : 2 * number + 2]
        ):
            show_mask(line[0], picture, mask, colour)
            line[0].set_title(f"{title}\n{what}", fontsize=SMALL)
            line[1].set_ylabel(label, fontsize=SMALL)
            for variant, axis in zip(variants, line[1:], strict=True):
                row = mine[(mine["variant"] == variant) & (mine["episode"] == median)]
                if row.empty:
                    continue
                row = row.iloc[0]
                heat = row[column].reshape(row["height"], row["width"])
                extent = (0, settings["image_size"], settings["image_size"], 0)
                axis.imshow(heat, cmap="cividis", extent=extent, interpolation="bilinear", **limits)
                axis.contour(truth, [0.5], colors="white", linewidths=0.7)
                if number == 0 and what == "support":
                    axis.set_title(title_of(settings, variant, COLUMN), fontsize=SMALL)
    return figure


def iou_by_step(measured: pd.DataFrame | None, settings: dict):
    """mIoU on the way of the adaptation, as paired difference from the baseline's.

    Step 0 is insertion alone. Without a baseline, mIoU itself.
    """
    if measured is None:
        return lacking(NO_MODEL)
    baseline = settings["baseline"] if settings["baseline"] in set(measured["variant"]) else None
    figure, axes = panels(settings)
    styles, ends = looks(settings), []
    for number, variant, rows in groups(measured, settings):
        axis, look, domain = axes[0, number], styles[variant], rows["domain"].iloc[0]
        reference = measured[(measured["variant"] == baseline) & (measured["domain"] == domain)]
        if variant == baseline:
            (level,) = statistics.list_miou_estimates(
                measurement.after_step(rows), settings["stated"]
            ).values()
            baseline_at_0(axis, level, title_of(settings, baseline), look)
            continue
        steps, points = rows["step"].iloc[0], []
        for at in range(len(steps)):
            both = pd.concat([measurement.after_step(rows, at), measurement.after_step(reference)])
            estimates = statistics.list_miou_estimates(both, settings["stated"])
            point = estimates[variant, domain]
            points.append(point - estimates[baseline, domain] if len(reference) else point)
        ys, (low, high) = [point.value for point in points], np.transpose([p.interval for p in points])
        ends.append(low)
        axis.plot(steps, ys, **look, label=title_of(settings, variant))
        # With edges: bands of several variants overlap, and that of a variant without steps is a line.
        axis.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0.5)
    for axis in axes[0]:
        axis.set_xlabel("adaptation step")
    axes[0, 0].set_ylabel(points_label(measured["shot"].iloc[0], baseline))
    legend(figure, axes, meaning("Shaded", np.concatenate(ends), settings) if ends else "")
    return figure
