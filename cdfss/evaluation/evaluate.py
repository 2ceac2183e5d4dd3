"""Fit a method to every episode of a list, predict its query, count pixels (HSNet test.py; paper 5.1)."""

import collections
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cdfss.data import metrics
from cdfss.data.episodes import identity, load_of, shard
from cdfss.data.index import Index
from cdfss.data.index import load as load_index
from cdfss.errors import CdfssError
from cdfss.evaluation import results, together
from cdfss.methods import calling, known
from cdfss.methods.contract import Method
from cdfss.running import devices, provenance
from cdfss.running.progress import Progress

MOST_AT_ONCE = 64  # episodes
SCHEMAS = {"rows": results.SCHEMA, "predictions": results.PREDICTIONS, "cost": results.COST}


class OneByOne:
    """Episodes are handed to a method one by one, whatever happens."""

    number = 1

    def too_large(self, episodes: int, error: str) -> None:
        """A batch of so many episodes did not fit into the memory.

        Raises:
            CdfssError: always, since there is nothing smaller.
        """
        raise CdfssError(f"out of memory with a single episode ({error}); {devices.SMALLER}")

    def begin(self) -> None:
        """A batch comes."""

    def done(self) -> None:
        """A batch is done."""


ONE_BY_ONE = OneByOne()


class Evaluation:
    """One method on a list, batch by batch.

    Args:
        settings: `Jobs.evaluation_settings`.
        at_once: says how many episodes are handed to the method.
        gpu: name of the one that the method computes on.
        records: to which rows, cost and predictions are added, as their files hold them.
    """

    def __init__(
        self,
        settings: dict,
        method: Method,
        at_once: "OneByOne" = ONE_BY_ONE,
        gpu: str | None = None,
        records: dict[str, list[dict]] | None = None,
    ):
        self.settings, self.method, self.at_once = settings, method, at_once
        self.records = {kind: [] for kind in SCHEMAS} if records is None else records
        self.device = "cpu" if method.given.device is None else method.given.device.type
        self.gpu = gpu

    def take(self, waiting: list) -> None:
        """Segment episodes with their pictures, as `blocks` yields them, in batches.

        The seconds in `cost` are what the variant took: of what several variants of a job share, such as
        features of the backbone, those of the first one that needed it.
        """
        while waiting:
            self.at_once.begin()
            batch = waiting[: self.at_once.number]
            lacked = None
            try:
                self._take(batch)
            except (RuntimeError, MemoryError) as error:
                if not devices.ran_out_of_memory(error):
                    raise
                lacked = str(error).split("\n")[0]
            if lacked is not None:  # the error is gone, and with it the batch that its traceback held
                self.at_once.too_large(len(batch), lacked)
                continue
            self.at_once.done()
            waiting = waiting[len(batch) :]

    def _take(self, batch: list) -> None:
        settings, method = self.settings, self.method
        listed, pictures = zip(*batch)
        queries, truths, voids, own, supports, support_masks = map(np.stack, zip(*pictures))
        try:
            found = calling.segment(settings["method"], method, supports, support_masks, queries, truths)
            added, tuned = calling.parameters(settings["method"], method)
        finally:
            method.forget()
        cost = {
            "seconds": found.fit_seconds + found.predict_seconds,
            "fit_seconds": found.fit_seconds,
            "predict_seconds": found.predict_seconds,
            "peak_memory_mb": devices.peak_memory_mb(self.device),
            "device": self.gpu or self.device,
        }
        set_rate = settings["settings"].get("learning_rate")  # of anyone's own method it may be anything
        set_rate = set_rate if isinstance(set_rate, int | float) else None
        of_list = {key: settings.get(key) for key in ("domain", "variant", "shot", "seed", "source")}
        intersections, unions = metrics.counts(found.masks, truths, voids)
        for number, episode in enumerate(listed):
            key = of_list | {"episode": episode.episode}
            losses = found.losses[number]
            if not np.isfinite(losses).all():
                print(
                    f"{settings['variant']}, episode {episode.episode}: the loss is not finite; is the "
                    "learning rate too high?"
                )
            self.records["cost"].append(key | cost)
            self.records["predictions"].append(
                {"episode": episode.episode, "mask": results.encoded(found.masks[number])}
            )
            self.records["rows"].append(
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
                    "learning_rate": set_rate if found.rates is None else float(found.rates[number]),
                    "parameters_added": added,
                    "parameters_tuned": tuned,
                    **{what: int(values[number]) for what, values in found.counts.items()},
                }
            )


def evaluate(
    settings: dict,
    index: Index,
    episodes: pd.DataFrame,
    method: Method,
    at_once: "OneByOne" = ONE_BY_ONE,
    readers: int = 1,
    gpu: str | None = None,
) -> tuple[list[dict], list[dict], dict[int, np.ndarray]]:
    """Rows, what they cost, and predicted masks (S, S) bool by episode, of one method on a list.

    Args:
        settings, at_once, gpu: as `Evaluation`.
        readers: threads that read pictures while the method works.
    """
    one = Evaluation(settings, method, at_once, gpu)
    progress = Progress(_title(settings, settings["variant"]), len(episodes))
    size = settings["image_size"]
    for block in blocks(index, episodes, size, readers, lambda: at_once.number, method.looks):
        one.take(block)
        progress.step(steps=len(block))
    masks = {record["episode"]: results.decoded(record["mask"]) for record in one.records["predictions"]}
    return one.records["rows"], one.records["cost"], masks


def _title(settings: dict, what: str) -> str:
    return f"{settings['domain']}, {what}, {settings['shot']}-shot: episodes"


def blocks(
    index: Index,
    episodes: pd.DataFrame,
    size: int,
    readers: int,
    number: Callable[[], int],
    looks: bool = True,
):
    """Blocks of episodes in order with their pictures, the next one read by other threads before its turn.

    Yields lists of (episode, (query (S, S, 3), truth, void (S, S), own (2, S, S), supports (k, S, S, 3),
    masks (k, S, S))), where `own` is the query's mask at its own size (`Index.read_whole_mask`).

    Args:
        number: of episodes in a block, as it is then; 0 ends it.
        looks: whether anyone looks at pictures; else they are black, and are not read.
    """
    black = np.zeros((size, size, 3), np.uint8)

    def read(episode):
        rows = [index.rows.loc[row] for row in (episode.query_row, *episode.support_rows)]
        pictures = [index.read_image(row, size) if looks else black for row in rows]
        query = pictures[0], *index.read_whole_mask(rows[0], size)
        masks = [index.read_mask(row, size)[0] for row in rows[1:]]
        return *query, np.stack(pictures[1:]), np.stack(masks)

    with ThreadPoolExecutor(readers) as reader:
        coming, waiting = episodes.itertuples(), collections.deque()

        def ask():
            for episode in itertools.islice(coming, max(0, number() - len(waiting))):
                waiting.append((episode, reader.submit(read, episode)))

        try:
            ask()
            while waiting and number():
                ask()  # there may be more in a block than when it was asked for
                block = [waiting.popleft() for _ in range(min(number(), len(waiting)))]
                block = [(listed, pictures.result()) for listed, pictures in block]
                ask()
                yield block
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

    def begin(self) -> None:
        """A batch comes; before the first one the memory is looked at, if that is measured."""
        if self.measures:
            import torch

            self.before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)

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


def run(
    variants: dict[str, dict],
    index_path,
    episodes_path,
    rows: list,
    predictions: list,
    cost: list,
    kept,
    compute: dict,
    readers: int = 1,
    pictures=None,
) -> None:
    """The job of all variants of one (domain, shot, seed, source, shard): files in, files out.

    Pictures are read once for all, and what variants share is computed once (`cdfss.evaluation.together`).

    Args:
        variants: by name; of each "settings", `Jobs.evaluation_settings` with shard and shards, and the
            files "checkpoint" and "weights", None where the method does not need them.
        rows, predictions, cost: paths to write, in the order of the variants.
        kept: folder in which finished and unfinished variants survive a job that is killed or repeated.
            What is there and would be made alike now is taken from there.
        compute: `Jobs.compute_settings`.
        readers: threads that read pictures beside a GPU.
        pictures: as `index.load`.

    Raises:
        CdfssError: when a variant fails, once the others are finished and kept; and as `load_index` and
            `load_of`.
    """
    index = load_index(index_path, pictures)
    listed = load_of(episodes_path, index)

    def of_shard(settings):
        return shard(listed, settings["shard"], settings["shards"])["episode"].tolist()

    together.run(
        variants,
        kept,
        SCHEMAS,
        {"rows": rows, "predictions": predictions, "cost": cost},
        of_shard,
        lambda settings: origin(settings, index, listed, "rows"),
        compute,
        lambda members: _evaluate(members, index, listed, compute["episodes_at_once"], readers),
    )


def _evaluate(members: list, index: Index, listed: pd.DataFrame, wanted: int | str, readers: int) -> None:
    """Evaluate members of a job on what they lack."""
    lacking = {member.name: member.lacking for member in members}
    evaluations = {
        member.name: Evaluation(
            member.settings,
            member.method,
            BatchSize(member.method, wanted),
            member.facts.get("gpu"),
            member.records,
        )
        for member in members
    }

    def number():
        at_work = [evaluations[member.name].at_once.number for member in members if not member.failed]
        return max(at_work, default=0)

    first = members[0].settings
    what = members[0].name if len(members) == 1 else f"{len(members)} variants"
    progress = Progress(_title(first, what), sum(map(len, lacking.values())))
    # On a processor the methods need the cores, and reading is a small part of it.
    readers = readers if any(member.facts["device"] == "cuda" for member in members) else 1
    looks = any(member.method.looks for member in members)
    union = listed[listed["episode"].isin(set().union(*lacking.values()))]
    for block in blocks(index, union, first["image_size"], readers, number, looks):
        for member in members:
            mine = [episode for episode in block if episode[0].episode in lacking[member.name]]
            if member.failed or not mine:
                continue
            with member.trying():
                evaluations[member.name].take(mine)
                progress.step(steps=len(mine))
                member.save(together.EVERY)
            if member.failed:
                del evaluations[member.name]
