"""Pictures of a dozen episodes of a domain, for the page of the run."""

import json
from pathlib import Path

from PIL import Image

from cdfss.evaluation import results
from cdfss.reports import statistics
from cdfss.reports.figures.episodes import Episode, load_episodes
from cdfss.reports.figures.style import PREDICTION, SUPPORT, TRUTH, tinted
from cdfss.running import provenance
from cdfss.running.files import replacing

EPISODES = 12
SIDE = 200  # pixels


def write(
    index_path, rows_paths, prediction_paths, titles: dict[str, str], path: str | Path, prepared=None
) -> None:
    """Write JPEG files and, last, the gallery.json beside them that says what they show.

    The episodes are at even distances by the IoU of the first variant, worst first, and among them those
    that move a variant's difference from the first one most (`most_moving`).

    Args:
        index_path, rows_paths, prediction_paths, prepared: as `load_episodes`.
        titles: by variant, in the order shown.
        path: of gallery.json.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):  # of other episodes, or of a job that was killed
        old.unlink()
    moving = most_moving(results.load(rows_paths), list(titles))
    shown = load_episodes(index_path, rows_paths, prediction_paths, titles, EPISODES, moving, prepared)
    told = {"domain": shown[0].domain, "shot": len(shown[0].supports), "first": next(iter(titles.values()))}
    told["origin"] = provenance.summary([*rows_paths, *prediction_paths])
    told |= {"variants": titles, "episodes": []}
    for episode in shown:
        pictures = _write_pictures(episode, titles, folder)
        told["episodes"].append(pictures | {"moves": moving.get(episode.number, [])})
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told))


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
    """Write the JPEG files of an episode; what gallery.json says of it."""
    parts = [
        (f"support{shot}", *support, SUPPORT, f"support {shot}", None)
        for shot, support in enumerate(episode.supports, 1)
    ]
    parts.append(("truth", *episode.query, TRUTH, "query with truth", None))
    parts += [
        (f"by-{variant}", episode.query[0], episode.predictions[variant], PREDICTION, title, variant)
        for variant, title in titles.items()
    ]
    pictures = []
    for name, picture, mask, colour, text, variant in parts:
        file = f"{episode.number}-{name}.jpg"
        image = Image.fromarray(tinted(picture, mask, colour))
        image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(folder / file, quality=88)
        pictures.append({"file": file, "text": text, "variant": variant, "iou": episode.iou.get(variant)})
    return {"episode": episode.number, "class_name": episode.class_name, "pictures": pictures}
