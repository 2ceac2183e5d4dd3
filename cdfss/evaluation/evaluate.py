"""Adapt to every episode of a list, predict its query, count pixels (HSNet test.py; paper 5.1)."""

import collections
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cdfss.data import metrics
from cdfss.data.episodes import identity, load_of, shard
from cdfss.data.index import Index
from cdfss.data.index import load as load_index
from cdfss.errors import CdfssError
from cdfss.evaluation import results
from cdfss.running import devices, provenance
from cdfss.running.files import file_hash
from cdfss.running.progress import Progress

MOST_AT_ONCE = 64  # episodes
ADAPTATION_KEYS = ("trained", "pairs", "mutual_information")  # of the settings, as `adapt` takes them


class OneByOne:
    """Episodes are handed to a predictor one by one, whatever happens."""

    number = 1

    def too_large(self, episodes: int, error: str) -> None:
        """A batch of so many episodes did not fit into the memory.

        Raises:
            CdfssError: always, since there is nothing smaller.
        """
        raise CdfssError(f"out of memory with a single episode ({error}); {devices.SMALLER}")

    def done(self) -> None:
        """A batch is done."""


ONE_BY_ONE = OneByOne()


def evaluate(
    settings: dict,
    index: Index,
    episodes: pd.DataFrame,
    predictor,
    at_once: "OneByOne" = ONE_BY_ONE,
    readers: int = 1,
    device: str = "cpu",
    gpu: str | None = None,
    parameters: tuple[int, int] = (0, 0),
    masks_alone: bool = False,
) -> tuple[list[dict], list[dict], dict[int, np.ndarray]]:
    """Rows, what they cost, and predicted masks (S, S) of 0 and 1 by episode, of a list of episodes.

    Args:
        settings: `Configuration.evaluation_settings`.
        predictor: a function of E query pictures (E, S, S, 3) uint8, their supports
            (E, k, S, S, 3) uint8 and support masks (E, k, S, S) bool that returns masks (E, S, S) of
            0 and 1 and the adaptation losses (E, steps).
        at_once: says how many episodes are handed to the predictor.
        readers: threads that read pictures while episodes are adapted.
        device: "cpu" or "cuda".
        gpu: its name.
        parameters: numbers of those added to the source model and of those tuned.
        masks_alone: the predictor looks at no picture, so that none is read; it is handed black ones.
    """
    rows, costs, masks = [], [], {}
    title = f"{settings['domain']}, {settings['variant']}, {settings['shot']}-shot: episodes"
    progress = Progress(title, len(episodes))
    steps = settings.get("steps", 0)
    coming = _read_ahead(index, episodes, settings["image_size"], readers, at_once, masks_alone)
    waiting: list = []
    while True:
        waiting += itertools.islice(coming, max(0, at_once.number - len(waiting)))
        if not waiting:
            break
        batch = waiting[: at_once.number]
        listed, pictures = zip(*batch)
        queries, truths, voids, supports, support_masks = map(np.stack, zip(*pictures))
        begin, lacked = time.perf_counter(), None
        try:
            predicted, losses = predictor(queries, supports, support_masks)
        except (RuntimeError, MemoryError) as error:
            if not devices.ran_out_of_memory(error):
                raise
            lacked = str(error).split("\n")[0]
        if lacked is not None:  # the error is gone here, and with it the batch that its traceback held
            at_once.too_large(len(batch), lacked)
            continue
        waiting = waiting[len(batch) :]
        seconds = (time.perf_counter() - begin) / len(batch)
        at_once.done()
        peak = devices.peak_memory_mb(device)
        intersections, unions = metrics.counts(predicted, truths, voids)
        for number, episode in enumerate(listed):
            loss = losses[number]
            if not np.isfinite(loss).all():
                print(f"episode {episode.episode}: the loss is not finite; is the learning rate too high?")
            of_list = {key: settings[key] for key in ("domain", "variant", "shot", "seed")}
            of_list["episode"] = episode.episode
            costs.append(of_list | {"seconds": seconds, "peak_memory_mb": peak, "device": gpu or device})
            rows.append(
                {
                    **of_list,
                    "class_id": episode.class_id,
                    "class_name": episode.class_name,
                    "query": episode.query,
                    "supports": list(episode.supports),
                    **results.count_columns(intersections[number], unions[number]),
                    "first_loss": float(loss[0]) if steps else None,
                    "last_loss": float(loss[-1]) if steps else None,
                    "steps": steps,
                    "learning_rate": settings.get("learning_rate"),
                    "parameters_added": parameters[0],
                    "parameters_tuned": parameters[1],
                }
            )
            masks[episode.episode] = predicted[number]
            progress.step()
    return rows, costs, masks


def _read_ahead(
    index: Index, episodes: pd.DataFrame, size: int, readers: int, at_once: OneByOne, masks_alone: bool
):
    """Episodes in order with their pictures, a batch of them read by other threads before its turn.

    Yields (episode, (query (S, S, 3), truth, void (S, S), supports (k, S, S, 3), masks (k, S, S))).
    """

    black = np.zeros((size, size, 3), np.uint8)

    def read(episode):
        rows = [index.rows.loc[row] for row in (episode.query_row, *episode.support_rows)]
        pictures = [black if masks_alone else index.read_image(row, size) for row in rows]
        query, *supports = [(picture, *index.read_mask(row, size)) for picture, row in zip(pictures, rows)]
        return *query, np.stack([s[0] for s in supports]), np.stack([s[1] for s in supports])

    with ThreadPoolExecutor(readers) as reader:
        waiting = collections.deque()
        try:
            for episode in episodes.itertuples():
                waiting.append((episode, reader.submit(read, episode)))
                if len(waiting) > at_once.number:
                    listed, pictures = waiting.popleft()
                    yield listed, pictures.result()
            for listed, pictures in waiting:  # the last ones
                yield listed, pictures.result()
        finally:
            reader.shutdown(cancel_futures=True)


def predict_foreground(queries, supports, masks):
    """The trivial predictor that calls every pixel foreground."""
    return np.ones(queries.shape[:3], np.uint8), np.empty((len(queries), 0))


def predict_copy(queries, supports, masks):
    """The trivial predictor that copies the support mask (k > 1: pixels in at least half of them)."""
    return (2 * masks.sum(1) >= masks.shape[1]).astype(np.uint8), np.empty((len(queries), 0))


TRIVIAL = {"foreground": predict_foreground, "copy": predict_copy}


def predict_hsnet(model, settings: dict, device):
    """A predictor that tunes `model` to the supports as `settings` say and segments the query.

    With reset "never" it goes on from one call to the next, Adam's moments included.
    """
    import torch

    from cdfss.backbones.normalisation import normalise
    from cdfss.methods.hsnet.adaptation import adapt

    how = {key: settings[key] for key in ADAPTATION_KEYS if key in settings}
    steps, rate = settings["steps"], settings["learning_rate"] or 0.0
    facts = model.backbone.facts
    start, optimiser = model, None

    def predict(queries, supports, masks):
        nonlocal start, optimiser
        images = normalise(torch.from_numpy(supports).to(device).flatten(0, 1), facts)
        images = images.unflatten(0, masks.shape[:2])
        labels = torch.from_numpy(masks).to(device).float()
        adapted = adapt(start, images, labels, steps, rate, **how, optimiser=optimiser)
        if settings.get("reset") == "never":
            start, optimiser = adapted.model, adapted.optimiser
        queries = normalise(torch.from_numpy(queries).to(device), facts)
        predicted = adapted.predict(queries).cpu().numpy().astype(np.uint8)
        return predicted, adapted.losses.numpy()

    return predict


class BatchSize(OneByOne):
    """How many episodes to adapt at once.

    Args:
        settings: `Configuration.evaluation_settings`.
        wanted: `compute.episodes_at_once`. With "auto" the first episode goes alone and tells how much
            memory each takes. On a processor, whose cores one episode keeps busy, each goes alone: the
            last digits of a batch are others, and its rows would depend on the number.
        device: the torch device.
    """

    def __init__(self, settings: dict, wanted: int | str, device):
        import torch

        self.device = device
        whole = {"learner", "backbone"} & set(settings.get("trained", []))  # more than modules is tuned
        goes_on = settings.get("reset") == "never"  # each from the last
        alone = bool(whole) or goes_on or device.type == "cpu"
        self.measures = wanted == "auto" and device.type == "cuda" and not alone
        self.number = 1 if wanted == "auto" or alone else wanted
        if self.measures:
            self.before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)

    def done(self) -> None:
        """A batch is done; the first one decides where memory is measured."""
        import torch

        if not self.measures:
            return
        self.measures = False
        episode = torch.cuda.max_memory_allocated(self.device) - self.before
        torch.cuda.empty_cache()
        self.number = that_fit(torch.cuda.mem_get_info(self.device)[0], episode)
        print(f"{self.number} episodes at once ({episode / 1e9:.2f} GB each)", flush=True)

    def too_large(self, episodes: int, error: str) -> None:
        """A batch of so many episodes did not fit: halve. Larger masks take more memory.

        Raises:
            CdfssError: when a single one does not fit.
        """
        import torch

        if episodes == 1:
            super().too_large(episodes, error)
        self.measures, self.number = False, episodes // 2
        torch.cuda.empty_cache()
        print(f"out of memory with {episodes} episodes at once; going on with {self.number}", flush=True)


def that_fit(free: int, episode: int) -> int:
    """Episodes of `episode` bytes that half of `free` bytes hold, since masks differ: 1 to MOST_AT_ONCE."""
    return max(1, min(MOST_AT_ONCE, int(0.5 * free) // max(episode, 1)))


def build_model(settings: dict, checkpoint, weights, device):
    """The source model with the variant's modules; ACPA's first weights depend on the seed alone."""
    import torch

    from cdfss.methods.hsnet import checkpoints

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


def parameters_of(model, settings: dict) -> tuple[int, int]:
    """Numbers of parameters that masker and attention add, and of those that are tuned."""

    def count(parts):
        parts = [getattr(model, part) for part in parts]
        return sum(p.numel() for part in parts if part is not None for p in part.parameters())

    return count(["masker", "attention"]), count(settings.get("trained", []))


def origin(settings: dict, index: Index, listed: pd.DataFrame, kind: str = "rows") -> dict:
    """What a file's numbers were made from and with, for its metadata.

    Args:
        listed: the whole list of episodes.
        kind: of `provenance.CODE`.
    """
    made_from = {"index": index.identity, "episodes": identity(listed), "settings": settings}
    code = {"kind": kind, "code": provenance.code(kind)}
    return made_from | code | provenance.made_with("numpy", "pillow") | {"device": "cpu"}


def origin_of_model(settings: dict, checkpoint, weights, device) -> dict:
    """What there is to say besides, of numbers that the model of a checkpoint gave on a torch device.

    Args:
        weights: ImageNet file of the backbone; None where they are an installed package.
    """
    import torch

    from cdfss.methods.hsnet import checkpoints

    found = {"checkpoint": checkpoints.identity(checkpoint), "torch": torch.__version__}
    found |= {"device": device.type, "precision": settings["precision"]}
    if weights is not None:
        found["weights"] = file_hash(weights)[:16]
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def save(evaluated, facts: dict, rows_path, predictions_path, cost_path) -> None:
    """Write what `evaluate` returns, each file with its facts."""
    rows, costs, masks = evaluated
    results.save_predictions(masks, predictions_path, facts)
    results.save(costs, cost_path, facts, results.COST)
    results.save(rows, rows_path, facts)


def run(
    settings,
    index_path,
    episodes_path,
    checkpoint,
    weights,
    rows,
    predictions,
    cost,
    compute,
    readers: int = 1,
) -> None:
    """The job of one (domain, variant, shot, seed, shard): files in, files out.

    Args:
        compute: `Configuration.compute_settings`.
        readers: threads that read pictures beside a GPU.
    """
    from cdfss.running.precision import precision

    with devices.device(compute["device"]) as chosen, precision(settings["precision"], chosen):
        model = build_model(settings, checkpoint, weights, chosen)
        if compute["compile"]:
            model.learner.compile_mixing()
        index = load_index(index_path)
        listed = load_of(episodes_path, index)
        facts = origin(settings, index, listed) | origin_of_model(settings, checkpoint, weights, chosen)
        predictor = predict_hsnet(model, settings, chosen)
        listed = shard(listed, settings["shard"], settings["shards"])
        how = {
            "at_once": BatchSize(settings, compute["episodes_at_once"], chosen),
            # On a processor adaptation needs the cores, and reading is a small part of it.
            "readers": readers if chosen.type == "cuda" else 1,
            "device": chosen.type,
            "gpu": facts.get("gpu"),
            "parameters": parameters_of(model, settings),
        }
        save(evaluate(settings, index, listed, predictor, **how), facts, rows, predictions, cost)


def run_trivial(settings, index_path, episodes_path, rows, predictions, cost) -> None:
    """The same job for a predictor without a model."""
    index = load_index(index_path)
    listed = load_of(episodes_path, index)
    facts = origin(settings, index, listed, "rows without a model")
    predictor = TRIVIAL[settings["predictor"]]
    listed = shard(listed, settings["shard"], settings["shards"])
    evaluated = evaluate(settings, index, listed, predictor, masks_alone=True)
    save(evaluated, facts, rows, predictions, cost)
