"""Adapt to every episode of a list, predict its query, count pixels (HSNet test.py; paper 5.1)."""

import platform
import time
from importlib.metadata import version

import numpy as np
import pandas as pd

from cdfss import metrics, results
from cdfss.configuration import digest
from cdfss.datasets.index import Index
from cdfss.datasets.index import load as load_index
from cdfss.episodes import load as load_episodes
from cdfss.episodes import shard
from cdfss.files import file_hash
from cdfss.progress import Progress


def evaluate(
    settings: dict, index: Index, episodes: pd.DataFrame, predictor, device: str = "cpu", **origin
) -> tuple[list[dict], dict[int, np.ndarray], dict]:
    """Rows, predicted masks and facts of a list of episodes.

    Args:
        settings: `Configuration.evaluation_settings`.
        predictor: a function of (query picture (S, S, 3) uint8, support pictures (k, S, S, 3)
            uint8, support masks (k, S, S) bool) that returns the mask (S, S) of 0 and 1 and the
            adaptation losses (steps,).
        device, origin: more facts for the file's metadata.
    """
    rows, masks = [], {}
    title = f"{settings['domain']}, {settings['variant']}, {settings['shot']}-shot: episodes"
    progress = Progress(title, len(episodes))
    steps = settings.get("steps", 0)
    for episode in episodes.itertuples():
        query, truth, void = index.read(index.rows.loc[episode.query_row], settings["image_size"])
        supports = [index.read(index.rows.loc[row], settings["image_size"]) for row in episode.support_rows]
        begin = time.perf_counter()
        mask, losses = predictor(
            query, np.stack([s[0] for s in supports]), np.stack([s[1] for s in supports])
        )
        seconds = time.perf_counter() - begin
        if not np.isfinite(losses).all():
            print(f"episode {episode.episode}: the loss is not finite; is the learning rate too high?")
        intersection, union = metrics.counts(mask, truth, void)
        rows.append(
            {
                **{key: settings[key] for key in ("domain", "variant", "shot", "seed")},
                "episode": episode.episode,
                "class_id": episode.class_id,
                "class_name": episode.class_name,
                "query": episode.query,
                "supports": list(episode.supports),
                "intersection_background": int(intersection[0]),
                "intersection_foreground": int(intersection[1]),
                "union_background": int(union[0]),
                "union_foreground": int(union[1]),
                "first_loss": float(losses[0]) if steps else None,
                "last_loss": float(losses[-1]) if steps else None,
                "steps": steps,
                "learning_rate": settings.get("learning_rate"),
                "seconds": seconds,
            }
        )
        masks[episode.episode] = mask
        progress.step()
    facts = {
        "settings": settings,
        "settings_digest": digest(settings),
        "cdfss": version("cdfss"),
        "python": platform.python_version(),
        "device": device,
        "precision": "float32",
        **origin,
    }
    return rows, masks, facts


def predict_foreground(query, supports, masks):
    """The trivial predictor that calls every pixel foreground."""
    return np.ones(query.shape[:2], np.uint8), []


def predict_copy(query, supports, masks):
    """The trivial predictor that copies the support mask (k > 1: pixels in at least half of them)."""
    return (2 * masks.sum(0) >= len(masks)).astype(np.uint8), []


TRIVIAL = {"foreground": predict_foreground, "copy": predict_copy}


def predict_hsnet(model, settings: dict, device):
    """A predictor that tunes `model` to the supports as `settings` say and segments the query.

    With reset "never" it goes on from one call to the next, Adam's moments included.
    """
    import torch

    from cdfss.adaptation import adapt
    from cdfss.pictures import normalise

    how = {key: settings[key] for key in ("trained", "pairs") if key in settings}
    steps, rate = settings["steps"], settings["learning_rate"] or 0.0
    start, optimiser = model, None

    def predict(query, supports, masks):
        nonlocal start, optimiser
        facts = model.backbone.facts
        images = normalise(torch.from_numpy(supports).to(device), facts)
        labels = torch.from_numpy(masks).to(device).float()
        adapted = adapt(start, images, labels, steps, rate, **how, optimiser=optimiser)
        if settings.get("reset") == "never":
            start, optimiser = adapted.model, adapted.optimiser
        query = normalise(torch.from_numpy(query)[None].to(device), facts)
        return adapted.predict(query)[0].cpu().numpy().astype(np.uint8), adapted.losses.tolist()

    return predict


def build_model(settings: dict, checkpoint, weights, device):
    """The source model with the variant's modules; ACPA's first weights depend on the seed alone."""
    import torch

    from cdfss import checkpoints

    model = checkpoints.build(
        checkpoint,
        settings["backbone"],
        weights,
        masker=settings["masker"],
        attention=settings["attention"],
        hidden=settings["hidden"],
        image_size=settings["image_size"],
    )
    if model.attention is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings["seed"])
            model.attention.squeeze.reset_parameters()
            model.attention.excite.reset_parameters()
    return model.to(device)


def save(rows, masks, facts, rows_path, predictions_path) -> None:
    """Write what `evaluate` returns."""
    results.save_predictions(masks, predictions_path)
    results.save(rows, rows_path, facts)


def run(settings, index_path, episodes_path, checkpoint, weights, rows, predictions, device) -> None:
    """The job of one (domain, variant, shot, seed, shard): files in, files out."""
    import torch

    from cdfss import devices

    with devices.device(device) as chosen:
        model = build_model(settings, checkpoint, weights, chosen)
        origin = {"checkpoint_sha256": file_hash(checkpoint), "torch": torch.__version__}
        if chosen.type == "cuda":
            origin["gpu"] = torch.cuda.get_device_name(chosen)
        origin["threads"] = torch.get_num_threads()
        predictor = predict_hsnet(model, settings, chosen)
        listed = _listed(settings, episodes_path)
        index = load_index(index_path)
        save(*evaluate(settings, index, listed, predictor, chosen.type, **origin), rows, predictions)


def run_trivial(settings, index_path, episodes_path, rows, predictions) -> None:
    """The same job for a predictor without a model."""
    predictor = TRIVIAL[settings["predictor"]]
    index, listed = load_index(index_path), _listed(settings, episodes_path)
    save(*evaluate(settings, index, listed, predictor), rows, predictions)


def _listed(settings, path) -> pd.DataFrame:
    return shard(load_episodes(path), settings["shard"], settings["shards"])
