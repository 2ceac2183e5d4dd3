"""Pictures of episodes: support, truth, predictions (paper figure 5)."""

from dataclasses import dataclass

import numpy as np
from matplotlib.patches import Patch

from cdfss.data import index
from cdfss.evaluation import results
from cdfss.reports.catalogue import words
from cdfss.reports.figures.style import (
    COLUMN,
    PREDICTION,
    SMALL,
    SUPPORT,
    TRUTH,
    picture_grid,
    plain,
    tinted,
)
from cdfss.running import provenance


@dataclass
class Episode:
    """One episode as it is shown; pictures are (S, S, 3) uint8, masks (S, S) bool.

    Attributes:
        supports: pictures and masks.
        query: picture and ground truth.
        predictions: masks by variant.
        iou: in percent, by variant.
    """

    domain: str
    number: int
    class_name: str
    supports: list[tuple[np.ndarray, np.ndarray]]
    query: tuple[np.ndarray, np.ndarray]
    predictions: dict[str, np.ndarray]
    iou: dict[str, float]


def load_episodes(
    index_path, rows_paths, prediction_paths, variants, number: int, besides=(), prepared=None
) -> list[Episode]:
    """`number` episodes at even distances by the first variant's IoU, from the worst to the best.

    Args:
        rows_paths, prediction_paths: of one domain, shot and seed.
        variants: names.
        besides: numbers of episodes that must be among them.
        prepared: the `pictures` of `index.load`.
    """
    rows, pictures, first = results.load(rows_paths), index.load(index_path, prepared), next(iter(variants))
    made = provenance.facts_of([*rows_paths, *prediction_paths])
    provenance.must_agree(made)
    provenance.must_be_of(pictures.identity, made)
    iou = 100 * results.iou(rows).set_index(["variant", "episode"])["iou"]
    chosen = {*results.ranked_episodes(rows, first, number), *besides}
    chosen = sorted(chosen, key=lambda episode: (iou[first, episode], episode))
    masks = results.predictions_by_variant(prediction_paths, variants, chosen)
    at = rows[rows["variant"] == first].set_index("episode")
    size = masks[first][chosen[0]].shape[0]

    def read(image, class_id):
        picture, mask, _ = pictures.read(pictures.row(image, class_id), size)
        return picture, mask

    return [
        Episode(
            at.at[episode, "domain"],
            episode,
            at.at[episode, "class_name"],
            [read(image, at.at[episode, "class_id"]) for image in at.at[episode, "supports"]],
            read(at.at[episode, "query"], at.at[episode, "class_id"]),
            {variant: masks[variant][episode] for variant in variants},
            {variant: iou[variant, episode] for variant in variants},
        )
        for episode in chosen
    ]


def episode_grid(index_path, rows_paths, prediction_paths, titles: dict, prepared=None):
    """Worst, median and best episode of a domain by the first variant's IoU: support, truth, masks.

    Args:
        index_path, rows_paths, prediction_paths, prepared: as `load_episodes`.
        titles: by variant, in column order; IoUs of all variants are printed above their masks.
    """
    shown = load_episodes(index_path, rows_paths, prediction_paths, titles, 3, prepared=prepared)
    columns = 2 + len(titles)
    figure, axes = picture_grid(len(shown), columns, 7, 1.25 * len(shown) + 0.3)
    names = {1: ("only",), 2: ("worst", "best"), 3: ("worst", "median", "best")}[len(shown)]
    for line, name, episode in zip(axes, names, shown, strict=True):
        show_mask(line[0], *episode.supports[0], SUPPORT)
        line[0].set_title(f"support\n{plain(words(episode.class_name), COLUMN)}", fontsize=SMALL)
        show_mask(line[1], *episode.query, TRUTH)
        line[1].set_title(f"query {episode.number}\n{name}", fontsize=SMALL)
        for axis, (variant, title) in zip(line[2:], titles.items(), strict=True):
            show_mask(axis, episode.query[0], episode.predictions[variant], PREDICTION)
            axis.set_title(f"{plain(title, COLUMN)}\nIoU {episode.iou[variant]:.1f} %", fontsize=SMALL)
    handles = [
        Patch(color=colour, label=label)
        for colour, label in (
            (SUPPORT, "support mask"),
            (TRUTH, "ground truth"),
            (PREDICTION, "prediction"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
    return figure


def show_mask(axis, picture: np.ndarray, mask: np.ndarray, colour: str) -> None:
    """A picture (S, S, 3) uint8 with a mask (S, S)."""
    axis.imshow(tinted(picture, mask, colour))
    axis.set_axis_off()
