"""Every episode of a list by its IoU, and pictures of some of them, for the page of the run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cdfss.evaluation import results
from cdfss.reports import statistics
from cdfss.reports.figures.episodes import Episode, load_episodes
from cdfss.reports.figures.style import PREDICTION, SUPPORT, TRUTH, layer
from cdfss.running import provenance
from cdfss.running.files import replacing

EPISODES = 12
QUERY, SUPPORTS = 320, 200  # pixels of a side at most; masks are not made smaller


def write(
    index_path, rows_paths, prediction_paths, titles: dict[str, str], path: str | Path, prepared=None
) -> None:
    """Write pictures and, last, the gallery.json beside them that says what they show.

    It has every episode's IoU (`of_list`). Pictures are of EPISODES at even distances by the IoU of the
    first variant, worst first; among them those that stand out (`outstanding`) and those that move a
    variant's difference from the first one most (`most_moving`). A picture is a JPEG file, and each mask a
    transparent PNG file to lie on it.

    Args:
        index_path, rows_paths, prediction_paths, prepared: as `load_episodes`.
        titles: by variant, in the order shown.
        path: of gallery.json.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.jpg"), *folder.glob("*.png")]:  # of others, or of a job that was killed
        old.unlink()
    rows = results.load(rows_paths)
    moving = most_moving(rows, list(titles))
    besides = {*moving, *outstanding(rows, list(titles))}
    shown = load_episodes(index_path, rows_paths, prediction_paths, titles, EPISODES, besides, prepared)
    told = {"domain": shown[0].domain, "shot": len(shown[0].supports), "first": next(iter(titles.values()))}
    told["origin"] = provenance.summary([*rows_paths, *prediction_paths])
    told |= {"variants": titles, "list": of_list(rows, list(titles)), "episodes": []}
    for episode in shown:
        pictures = _write_pictures(episode, titles, folder)
        told["episodes"].append(pictures | {"moves": moving.get(episode.number, [])})
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told))


def _iou(rows: pd.DataFrame, variants: list[str]) -> pd.DataFrame:
    """IoU in percent, a line for each episode and a column for each variant."""
    by_variant = results.iou(rows).pivot(index="episode", columns="variant", values="iou")
    return 100 * by_variant[variants]


def of_list(rows: pd.DataFrame, variants: list[str]) -> dict:
    """All N episodes of one domain, shot and seed, short: a page may hold thousands.

    Returns:
        `episode`, their numbers; `classes`, names; `class`, the place of each one's among these; `iou`, by
        variant, in hundredths of a percent.
    """
    iou = _iou(rows, variants)
    names = rows.drop_duplicates("episode").set_index("episode")["class_name"].loc[iou.index]
    place, classes = pd.factorize(names, sort=True)
    return {
        "episode": iou.index.tolist(),
        "classes": list(classes),
        "class": place.tolist(),
        "iou": {name: np.rint(100 * iou[name]).astype(int).tolist() for name in variants},
    }


def outstanding(rows: pd.DataFrame, variants: list[str]) -> set[int]:
    """Worst, median and best episode of each variant, and those where it gains and loses most.

    Args:
        rows: of one domain, shot and seed.
        variants: names; gains and losses are against the first.
    """
    iou, found = _iou(rows, variants), set()
    for variant in variants:
        found |= {*results.ranked_episodes(rows, variant, 3)}
        change = (iou[variant] - iou[variants[0]]).round(6)  # what is the same but for rounding is the same
        found |= {int(at) for at in (change.idxmin(), change.idxmax()) if change[at]}
    return found


def most_moving(rows, variants: list[str]) -> dict[int, list[dict]]:
    """By episode, the variants whose difference from the first changes most without it.

    Args:
        rows: of one domain, shot and seed.

    Returns:
        Of each such variant a dict: `variant`; `with` and `without`, the differences in points.
    """
    estimates = {name: estimate for (name, *_), estimate in statistics.miou_estimates(rows).items()}
    moving = {}
    for variant in variants[1:]:
        change = estimates[variant] - estimates[variants[0]]
        if change.influential:
            told = {"variant": variant, "with": change.value, "without": float(change.without)}
            moving.setdefault(int(change.influential[-1]), []).append(told)
    return moving


def _write_pictures(episode: Episode, titles: dict[str, str], folder: Path) -> dict:
    """Write the files of an episode; what gallery.json says of it."""
    number = episode.number

    def mask(name, pixels, colour, **how):
        layer(pixels, colour, **how).save(folder / f"{number}-{name}.png", optimize=True, bits=2)
        return f"{number}-{name}.png"

    supports = [
        {
            "file": _picture(picture, SUPPORTS, folder / f"{number}-support{shot}.jpg"),
            "mask": mask(f"support{shot}", pixels, SUPPORT),
        }
        for shot, (picture, pixels) in enumerate(episode.supports, 1)
    ]
    query, truth = episode.query
    return {
        "episode": number,
        "class_name": episode.class_name,
        "supports": supports,
        "query": _picture(query, QUERY, folder / f"{number}-query.jpg"),
        "truth": mask("truth", truth, TRUTH),
        "outline": mask("outline", truth, TRUTH, inside=False),
        "predictions": {
            variant: {
                "mask": mask(f"by-{variant}", episode.predictions[variant], PREDICTION),
                "iou": episode.iou[variant],
            }
            for variant in titles
        },
    }


def _picture(picture: np.ndarray, side: int, path: Path) -> str:
    """Write a picture (S, S, 3) uint8 at no more than this side; the name of its file."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(path, quality=85)
    return path.name
