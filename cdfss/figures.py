"""Figures from histories, evaluation rows and stored predictions (no torch)."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from cdfss import results
from cdfss.datasets import index
from cdfss.datasets.index import Index
from cdfss.files import replacing

# Okabe and Ito's colours, told apart with any colour vision.
SUPPORT, TRUTH, PREDICTION = "#0072B2", "#009E73", "#D55E00"


def save(figure, paths) -> None:
    """Write a figure to every path (SVG, PNG) and close it."""
    for path in map(Path, paths):
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150, bbox_inches="tight")
    plt.close(figure)


def training_history(history: pd.DataFrame):
    """Loss and mIoU of the source training by epoch; the chosen epoch is marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(history["epoch"], history["train_loss"], color=SUPPORT)
    left.set(xlabel="epoch", ylabel="cross-entropy (source)", title="Source training loss")
    for column, colour, label in (
        ("train_miou", SUPPORT, "source, training"),
        ("validation_miou", PREDICTION, "validation"),
    ):
        right.plot(history["epoch"], 100 * history[column], color=colour, label=label)
    best = history.loc[history["validation_miou"].idxmax()]
    right.plot(best["epoch"], 100 * best["validation_miou"], "o", color=PREDICTION, label="chosen")
    right.set(xlabel="epoch", ylabel="mIoU, %", title="1-shot mIoU")
    right.legend(frameon=False)
    return figure


def episode_grid(
    pictures: Index, rows: pd.DataFrame, predictions: dict[str, dict[int, np.ndarray]], titles: dict
):
    """Worst, median and best episode of a domain by the first variant's IoU: support, truth, masks.

    Args:
        rows: evaluation rows of one domain, shot and seed.
        predictions: masks (S, S) by variant and episode.
        titles: by variant, in column order; IoUs of all variants are printed above their masks.
    """
    iou = rows.set_index(["variant", "episode"])
    iou = iou["intersection_foreground"] / iou["union_foreground"].clip(lower=1)
    first = next(iter(titles))
    ranked = iou[first].sort_values(kind="stable").index
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    at = rows[rows["variant"] == first].set_index("episode")
    place = pictures.rows.set_index(["image", "class_id"], drop=False)
    size = next(iter(predictions[first].values())).shape[0]
    columns = 2 + len(titles)
    figure, axes = plt.subplots(
        len(chosen), columns, figsize=(1.9 * columns, 2.1 * len(chosen)), layout="constrained"
    )
    for line, (name, episode) in zip(axes, chosen.items(), strict=True):
        row = at.loc[episode]
        support, support_mask, _ = pictures.read(place.loc[(row["supports"][0], row["class_id"])], size)
        query, truth, _ = pictures.read(place.loc[(row["query"], row["class_id"])], size)
        _show(line[0], support, support_mask, SUPPORT)
        line[0].set_title(f"support: {row['class_name']}", fontsize=8)
        _show(line[1], query, truth, TRUTH)
        line[1].set_title(f"query {episode} ({name})", fontsize=8)
        for axis, (variant, title) in zip(line[2:], titles.items(), strict=True):
            _show(axis, query, predictions[variant][episode], PREDICTION)
            axis.set_title(f"{title}\nIoU {100 * iou[variant, episode]:.1f} %", fontsize=8)
    handles = [
        Patch(color=colour, label=label)
        for colour, label in (
            (SUPPORT, "support mask"),
            (TRUTH, "ground truth"),
            (PREDICTION, "prediction"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _show(axis, picture: np.ndarray, mask: np.ndarray, colour: str) -> None:
    """A picture with a mask: tinted, outlined, the rest slightly faded."""
    tint = np.array(matplotlib.colors.to_rgb(colour))
    shown = picture / 255
    inside = np.asarray(mask, bool)[..., None]
    axis.imshow(np.where(inside, 0.55 * shown + 0.45 * tint, 0.9 * shown + 0.05))
    if 0 < inside.sum() < inside.size:
        axis.contour(inside[..., 0], [0.5], colors=[colour], linewidths=1)
    axis.set_axis_off()


def episode_grid_of_files(index_path, rows_paths, prediction_paths, titles: dict):
    """`episode_grid` from files; the variant is the folder two above each predictions file."""
    by_variant: dict[str, list] = {variant: [] for variant in titles}
    for path in prediction_paths:
        by_variant[Path(path).parts[-3]].append(path)
    predictions = {v: results.load_predictions(paths) for v, paths in by_variant.items()}
    return episode_grid(index.load(index_path), results.load(rows_paths), predictions, titles)
