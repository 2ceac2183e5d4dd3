"""Fit a method to every episode of a list, predict its query, count pixels (HSNet test.py; paper 5.1)."""

import collections
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version

import numpy as np
import pandas as pd

from cdfss.backbones.facts import facts_of
from cdfss.data import metrics
from cdfss.data.episodes import identity, load_of, shard
from cdfss.data.index import Index
from cdfss.data.index import load as load_index
from cdfss.errors import CdfssError
from cdfss.evaluation import results
from cdfss.methods import calling, known, source
from cdfss.methods.contract import Given, Method
from cdfss.running import devices, provenance
from cdfss.running.files import file_hash
from cdfss.running.progress import Progress

MOST_AT_ONCE = 64  # episodes


class OneByOne:
    """Episodes are handed to a method one by one, whatever happens."""

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
    method: Method,
    at_once: "OneByOne" = ONE_BY_ONE,
    readers: int = 1,
    gpu: str | None = None,
) -> tuple[list[dict], list[dict], dict[int, np.ndarray]]:
    """Rows, what they cost, and predicted masks (S, S) bool by episode, of a list of episodes.

    Args:
        settings: `Jobs.evaluation_settings`.
        at_once: says how many episodes are handed to the method.
        readers: threads that read pictures while the method works.
        gpu: name of the one that the method computes on.
    """
    rows, costs, masks = [], [], {}
    title = f"{settings['domain']}, {settings['variant']}, {settings['shot']}-shot: episodes"
    progress = Progress(title, len(episodes))
    device = "cpu" if method.given.device is None else method.given.device.type
    rate = settings["settings"].get("learning_rate")  # of anyone's own method it may be anything
    of_list = {key: settings.get(key) for key in ("domain", "variant", "shot", "seed", "source")}
    coming = _read_ahead(index, episodes, settings["image_size"], readers, at_once, method.looks)
    waiting: list = []
    while True:
        waiting += itertools.islice(coming, max(0, at_once.number - len(waiting)))
        if not waiting:
            break
        batch = waiting[: at_once.number]
        listed, pictures = zip(*batch)
        queries, truths, voids, own, supports, support_masks = map(np.stack, zip(*pictures))
        lacked = None
        try:
            found = calling.segment(settings["method"], method, supports, support_masks, queries, truths)
        except (RuntimeError, MemoryError) as error:
            if not devices.ran_out_of_memory(error):
                raise
            lacked = str(error).split("\n")[0]
        if lacked is not None:  # the error is gone here, and with it the batch that its traceback held
            at_once.too_large(len(batch), lacked)
            continue
        waiting = waiting[len(batch) :]
        at_once.done()
        cost = {
            "seconds": found.fit_seconds + found.predict_seconds,
            "fit_seconds": found.fit_seconds,
            "predict_seconds": found.predict_seconds,
            "peak_memory_mb": devices.peak_memory_mb(device),
            "device": gpu or device,
        }
        added, tuned = calling.parameters(settings["method"], method)
        intersections, unions = metrics.counts(found.masks, truths, voids)
        for number, episode in enumerate(listed):
            key = of_list | {"episode": episode.episode}
            losses = found.losses[number]
            if not np.isfinite(losses).all():
                print(f"episode {episode.episode}: the loss is not finite; is the learning rate too high?")
            costs.append(key | cost)
            rows.append(
                {
                    **key,
                    "class_id": episode.class_id,
                    "class_name": episode.class_name,
                    "query": episode.query,
                    "supports": list(episode.supports),
                    **results.count_columns(intersections[number], unions[number]),
                    **results.count_columns(
                        *metrics.counts_at_own_size(found.masks[number], own[number]), "original_"
                    ),
                    "first_loss": float(losses[0]) if len(losses) else None,
                    "last_loss": float(losses[-1]) if len(losses) else None,
                    "steps": len(losses),
                    "learning_rate": rate if isinstance(rate, int | float) else None,
                    "parameters_added": added,
                    "parameters_tuned": tuned,
                    **{what: int(values[number]) for what, values in found.counts.items()},
                }
            )
            masks[episode.episode] = found.masks[number]
            progress.step()
    return rows, costs, masks


def _read_ahead(
    index: Index, episodes: pd.DataFrame, size: int, readers: int, at_once: OneByOne, looks: bool
):
    """Episodes in order with their pictures, a batch of them read by other threads before its turn.

    Yields (episode, (query (S, S, 3), truth, void (S, S), own (2, S, S), supports (k, S, S, 3), masks
    (k, S, S))), where `own` is the query's mask at its own size (`Index.read_whole_mask`).
    """

    black = np.zeros((size, size, 3), np.uint8)

    def read(episode):
        rows = [index.rows.loc[row] for row in (episode.query_row, *episode.support_rows)]
        pictures = [index.read_image(row, size) if looks else black for row in rows]
        query = pictures[0], *index.read_whole_mask(rows[0], size)
        masks = [index.read_mask(row, size)[0] for row in rows[1:]]
        return *query, np.stack(pictures[1:]), np.stack(masks)

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


class BatchSize(OneByOne):
    """How many episodes a method is handed at once.

    Args:
        method: what they are handed to.
        wanted: `compute.episodes_at_once`. With "auto" the first episode goes alone and tells how much
            memory each takes. On a processor, whose cores one episode keeps busy, each goes alone: the
            last digits of a batch are others, and its rows would depend on the number.
    """

    def __init__(self, method: Method, wanted: int | str):
        self.device = device = method.given.device
        most = method.most_at_once or MOST_AT_ONCE
        alone = not method.batched or method.settings.goes_on or most == 1
        alone = alone or device is None or device.type == "cpu"
        self.measures = wanted == "auto" and not alone
        self.number = 1 if wanted == "auto" or alone else min(wanted, most)
        self.most = most
        if self.measures:
            import torch

            self.before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)

    def done(self) -> None:
        """A batch is done; the first one decides where memory is measured."""
        if not self.measures:
            return
        import torch

        self.measures = False
        episode = torch.cuda.max_memory_allocated(self.device) - self.before
        torch.cuda.empty_cache()
        self.number = min(that_fit(torch.cuda.mem_get_info(self.device)[0], episode), self.most)
        print(f"{self.number} episodes at once ({episode / 1e9:.2f} GB each)", flush=True)

    def too_large(self, episodes: int, error: str) -> None:
        """A batch of so many episodes did not fit: halve. Larger masks take more memory.

        Raises:
            CdfssError: when a single one does not fit.
        """
        if episodes == 1:
            super().too_large(episodes, error)
        import torch

        self.measures, self.number = False, episodes // 2
        torch.cuda.empty_cache()
        print(f"out of memory with {episodes} episodes at once; going on with {self.number}", flush=True)


def that_fit(free: int, episode: int) -> int:
    """Episodes of `episode` bytes that half of `free` bytes hold, since masks differ: 1 to MOST_AT_ONCE."""
    return max(1, min(MOST_AT_ONCE, int(0.5 * free) // max(episode, 1)))


def origin(settings: dict, index: Index, listed: pd.DataFrame, kind: str) -> dict:
    """What a file's numbers were made from and with, for its metadata.

    Args:
        settings: of the job.
        listed: the whole list of episodes.
        kind: of `provenance.CODE`.

    Raises:
        CdfssError: when a user's own method is not what the run was planned with: it would be taken for it.
    """
    made_from = {"index": index.identity, "episodes": identity(listed), "settings": settings}
    code = {"kind": kind, "code": provenance.code(*provenance.CODE[kind])}
    method = settings["method"]
    codes = known.codes_of(method, settings["settings"])
    code |= {"method": method, "method_codes": codes}
    if settings.get("code", digest := provenance.digest(codes)) != digest:
        raise CdfssError(
            f"method {method!r}: its files, or its modules', changed after this run was planned; run the "
            "same command again"
        )
    return made_from | code | provenance.made_with("numpy", "pillow") | {"device": "cpu"}


def origin_of_given(given: Given, precision: str) -> dict:
    """What there is to say besides, of numbers of a method that computes on a device."""
    import torch

    found = {"torch": torch.__version__, "device": given.device.type, "precision": precision}
    if given.backbone is not None:
        found["backbone"] = given.backbone
        library = facts_of(given.backbone).library
        found |= {library: version(library)}
    if given.weights is not None:
        found["weights"] = file_hash(given.weights)[:16]
    if given.checkpoint is not None:
        found["checkpoint"] = source.identity(given.checkpoint)
        found["training"] = source.training(given.checkpoint)
    if given.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(given.device)
    return found


def save(evaluated, facts: dict, rows_path, predictions_path, cost_path) -> None:
    """Write what `evaluate` returns, each file with its facts."""
    rows, costs, masks = evaluated
    results.save_predictions(masks, predictions_path, facts)
    results.save(costs, cost_path, facts, results.COST)
    results.save(rows, rows_path, facts)


def run(
    settings: dict,
    index_path,
    episodes_path,
    checkpoint,
    weights,
    rows,
    predictions,
    cost,
    compute: dict,
    readers: int = 1,
) -> None:
    """The job of one (domain, variant, shot, seed, source, shard): files in, files out.

    Args:
        settings: `Jobs.evaluation_settings`, shard and shards.
        checkpoint, weights: None for a method that does not need them.
        compute: `Jobs.compute_settings`.
        readers: threads that read pictures beside a GPU.
    """
    with ExitStack() as stack:
        given = given_of(settings, checkpoint, weights, compute, stack)
        method = calling.build(settings["method"], settings["settings"], given)
        index = load_index(index_path)
        listed = load_of(episodes_path, index)
        facts = origin(settings, index, listed, "rows")
        if given.device is not None:
            facts |= origin_of_given(given, settings["precision"])
        how = {
            "at_once": BatchSize(method, compute["episodes_at_once"]),
            # On a processor the method needs the cores, and reading is a small part of it.
            "readers": readers if facts["device"] == "cuda" else 1,
            "gpu": facts.get("gpu"),
        }
        listed = shard(listed, settings["shard"], settings["shards"])
        save(evaluate(settings, index, listed, method, **how), facts, rows, predictions, cost)


def given_of(settings: dict, checkpoint, weights, compute: dict, stack: ExitStack) -> Given:
    """What the run gives to a method; a device is held, and its precision set, until the stack ends."""
    given = {"image_size": settings["image_size"], "seed": settings["seed"]}
    if known.find(settings["method"]).needs == "nothing":
        return Given(**given)
    from cdfss.running.precision import precision

    chosen = stack.enter_context(devices.device(compute["device"]))
    stack.enter_context(precision(settings["precision"], chosen))
    given |= {"device": chosen, "backbone": settings.get("backbone"), "weights": weights}
    return Given(**given, checkpoint=checkpoint, compile=compute["compile"])
