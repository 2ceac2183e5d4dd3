"""Source training of a host model in the manner of PATNet (paper 5.1; HSNet train.py).

Plain resize, no augmentation, every (image, class) entry of the source once an epoch as query with a
random other image of its class as support, void pixels as background. The checkpoint is the epoch with
the best 1-shot mIoU on the validation episodes. What is built, what of it is trained, and how a step
goes, is the host's: its `Trainee`, found by `cdfss.methods.hosts`.
"""

import importlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cdfss.backbones.normalisation import normalise
from cdfss.backbones.weights import weights_of
from cdfss.data import index, metrics
from cdfss.data.episodes import sample
from cdfss.data.index import Index
from cdfss.methods import hosts
from cdfss.methods import source as source_model
from cdfss.running import devices, provenance
from cdfss.running.files import replacing
from cdfss.running.precision import precision
from cdfss.running.progress import Progress, clock
from cdfss.running.provenance import digest

FETCH_EVERY = 16  # steps whose numbers come from the device together, since each fetch waits for it
SAVE_EVERY = 120.0  # seconds between saved states within an epoch


class Trainee:
    """A host model while it is trained on the source. A host derives its own, with these attributes.

    A batch is what `Batches` gives: what the model takes of the queries, their masks and voids (B, S, S),
    what it takes of the supports, and their masks (B, S, S).

    Attributes:
        model: on the device, in training mode. Its `features` makes of normalised images (B, 3, S, S)
            what no step changes, as a tensor or nested lists of tensors (B, ...); its `facts` say how
            images are normalised.
        trained: the parts that steps change; the checkpoint is made of their best state.
        optimiser: of the parameters of `trained`.
    """

    model: nn.Module
    trained: nn.Module
    optimiser: torch.optim.Optimizer

    def __init__(self, settings: dict, weights: str | Path | None, device: torch.device):
        """Build the model; torch's generator stands at the seed of the training.

        Args:
            settings: `Jobs.source_settings`.
            weights: published file of the backbone, or "imagenet" for installed ones.
        """
        raise NotImplementedError

    def loss(self, batch, generator: np.random.RandomState) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and logits of its queries (B, 2, S, S).

        Args:
            generator: for what a step draws; it depends on seed, epoch and step alone.
        """
        raise NotImplementedError

    def logits(self, batch) -> Tensor:
        """Logits (B, 2, S, S) of the queries of a batch, for validation: nothing is left to chance."""
        raise NotImplementedError

    def save(self, path: str | Path, state: dict[str, Tensor], facts: dict) -> None:
        """Write a checkpoint from a state of `trained`, and more facts into its metadata."""
        raise NotImplementedError


class Pairs(Dataset):
    """(query row, support row) pairs of an index as uint8 pictures and masks."""

    def __init__(self, pictures: Index, pairs: np.ndarray, size: int):
        self.pictures, self.pairs, self.size = pictures, pairs, size

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, item):
        """query (S, S, 3), its mask and void (S, S), support (S, S, 3) and its mask (S, S)."""
        query, support = (
            self.pictures.read(self.pictures.rows.loc[row], self.size) for row in self.pairs[item]
        )
        return (*query, *support[:2])


class Batches:
    """Batches of pairs as (query features, mask, void, support features, support mask) on the device.

    Where the features of all pictures, `model.features`, fit into `cache` bytes they are computed once,
    picture by picture: resizing is all that happens to a picture, so they never change, and one at a
    time they do not depend on the batch they come in. Elsewhere worker processes load pictures and each
    batch is passed through the frozen network.
    """

    def __init__(
        self, model: nn.Module, pictures: Index, rows, size: int, cache: float, workers: int = 0, log=print
    ):
        self.model, self.pictures, self.size, self.workers = model, pictures, size, workers
        self.device = next(model.parameters()).device
        self.kept: dict[int, tuple] | None = None
        with torch.no_grad():
            probe = model.features(torch.zeros(1, 3, size, size, device=self.device))
        features = sum(t.numel() * t.element_size() for t in _tensors(probe))
        self.needed = (features + 2 * size**2) * len(set(rows))
        if self.needed <= cache:
            self.kept = {}
            needed = f"{self.needed / 1e9:.2f} GB"
            log(f"{pictures.name}: features of {len(set(rows))} entries are kept ({needed})")

    def __call__(self, pairs: np.ndarray, batch_size: int):
        if self.kept is None:
            loader = DataLoader(
                Pairs(self.pictures, pairs, self.size),
                batch_size,
                num_workers=self.workers,
                multiprocessing_context="fork" if self.workers else None,
            )
            for batch in loader:
                query, mask, void, support, support_mask = (part.to(self.device) for part in batch)
                yield self._features(query), mask, void, self._features(support), support_mask
            return
        for begin in range(0, len(pairs), batch_size):
            batch = pairs[begin : begin + batch_size]
            query, mask, void = self._stack([self._entry(int(row)) for row in batch[:, 0]])
            support, support_mask, _ = self._stack([self._entry(int(row)) for row in batch[:, 1]])
            yield query, mask, void, support, support_mask

    def _features(self, pictures: torch.Tensor):
        return self.model.features(normalise(pictures, self.model.facts))

    def _entry(self, row: int):
        if row not in self.kept:
            picture, mask, void = map(
                torch.from_numpy, self.pictures.read(self.pictures.rows.loc[row], self.size)
            )
            picture, mask, void = (part.to(self.device) for part in (picture, mask, void))
            self.kept[row] = self._features(picture[None]), mask, void
        return self.kept[row]

    @staticmethod
    def _stack(entries):
        features, masks, voids = zip(*entries)
        return _joined(features), torch.stack(masks), torch.stack(voids)


def _tensors(features) -> list[Tensor]:
    """All tensors of nested lists."""
    if isinstance(features, Tensor):
        return [features]
    return [tensor for part in features for tensor in _tensors(part)]


def _joined(features):
    """Features of several pictures, nested alike, as those of a batch."""
    if isinstance(features[0], Tensor):
        return torch.cat(features)
    return [_joined(parts) for parts in zip(*features)]


def draw_epoch(rows: pd.DataFrame, seed: int, epoch: int) -> np.ndarray:
    """(N, 2) query and support rows of one epoch: every entry once, in random order.

    Depends on seed and epoch alone, so that a resumed epoch is the same.
    """
    generator = np.random.RandomState([seed, epoch])
    members = {c: group.index.to_numpy() for c, group in rows.groupby("class_id")}
    pairs = np.empty((len(rows), 2), int)
    order = generator.permutation(len(rows))
    for place, (query, class_id) in enumerate(zip(rows.index[order], rows["class_id"].iloc[order])):
        others = members[class_id][members[class_id] != query]
        pairs[place] = query, generator.choice(others)
    return pairs


def train(
    settings: dict,
    source: Index,
    validation: Index,
    episodes: pd.DataFrame,
    weights: str | None,
    checkpoint: str | Path,
    history: str | Path,
    state_folder: str | Path,
    device: torch.device,
    cache: float = 0.0,
    workers: int = 0,
) -> pd.DataFrame:
    """Train, resuming from `state_folder` when it holds the state of the same training.

    Args:
        settings: `Jobs.source_settings`; "host" names one of `hosts.HOSTS`, HSNet if it is not there.
        source: all of its rows are trained on.
        episodes: 1-shot validation episodes of `validation`.
        weights: published file of the backbone, or "imagenet" for installed ones.
        checkpoint, history: files to write, the history as parquet: epoch, train_loss,
            train_miou, validation_miou (0..1).
        cache: bytes of frozen features that may be kept, of source and validation together.
        workers: processes that load pictures where features are not kept; 0 loads in this one.

    Returns:
        The history.
    """
    found = importlib.import_module(hosts.of(settings).training).Trainee
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        trainee = found(settings, weights, device)
    model = trainee.model
    state = _State(Path(state_folder) / "state.pt", trainee.trained, trainee.optimiser)
    rows = source.rows
    validation_pairs = np.array([[e.query_row, e.support_rows[0]] for e in episodes.itertuples()])
    size = settings["image_size"]
    batches = Batches(model, source, rows.index, size, cache, workers)
    cache -= batches.needed if batches.kept is not None else 0
    validation_batches = Batches(model, validation, validation_pairs.ravel(), size, cache, workers)
    steps = -(-len(rows) // settings["batch_size"])
    progress = Progress("source training, batches", settings["epochs"] * steps)
    progress.skip(state.epoch * steps + state.step)
    while state.epoch < settings["epochs"]:
        begin = time.monotonic() - state.seconds
        saved = time.monotonic()
        pairs = draw_epoch(rows, settings["seed"], state.epoch)
        left = pairs[state.step * settings["batch_size"] :]
        class_ids = rows["class_id"].loc[pairs[:, 0]].to_numpy()
        waiting: list[Tensor] = []
        for batch in batches(left, settings["batch_size"]):
            step = state.step + len(waiting)
            generator = np.random.RandomState([settings["seed"], state.epoch, step])
            waiting.append(_step(trainee, batch, generator))
            late = time.monotonic() - saved > SAVE_EVERY
            if late or len(waiting) == FETCH_EVERY:
                state.fetch(waiting, class_ids)
            progress.step(f"epoch {state.epoch + 1}, loss {state.last:.3f}")
            if late:
                state.seconds = time.monotonic() - begin
                state.save()
                saved = time.monotonic()
        state.fetch(waiting, class_ids)
        validated = validate(trainee, validation_batches, validation_pairs, settings["batch_size"])
        state.finish_epoch(validated)
        state.save()
        print(
            f"epoch {state.epoch} of {settings['epochs']}, {clock(time.monotonic() - begin)}: loss "
            f"{state.history[-1]['train_loss']:.4f}, "
            f"source mIoU {100 * state.history[-1]['train_miou']:.1f}, validation mIoU "
            f"{100 * validated:.1f}, best {100 * state.best:.1f} (epoch {state.best_epoch})",
            flush=True,
        )
    frame = pd.DataFrame(state.history)
    facts = {"settings": settings, "device": device.type, "source": source.identity}
    facts |= {
        "validation": validation.identity,
        "kind": "training",
        "code": hosts.code_of(settings),
    }
    best = {"epoch": state.best_epoch, "validation_miou": state.best}
    trainee.save(checkpoint, state.best_state, facts | best)
    facts |= provenance.made_with("torch") | {
        "checkpoint": source_model.identity(checkpoint),
        "training": source_model.training(checkpoint),
    }
    with replacing(history) as temporary:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(provenance.with_facts(table, facts), temporary)
    return frame


def _step(trainee: Trainee, batch, generator: np.random.RandomState) -> Tensor:
    """A step, and on the device its loss and then the `_counts` of its B queries, (1 + 4 B,) float64."""
    _, mask, void, _, _ = batch
    loss, logits = trainee.loss(batch, generator)
    trainee.optimiser.zero_grad()
    loss.backward()
    trainee.optimiser.step()
    counts = _counts(logits.detach().argmax(1), mask, void)
    return torch.cat([loss.detach().double().view(1), counts.double().flatten()])


def _counts(prediction: Tensor, truth: Tensor, void: Tensor) -> Tensor:
    """`metrics.counts` on the device, (B, 2, 2): intersection and union, of background and foreground."""
    found = []
    for label in (0, 1):
        predicted, true = (prediction == label) & ~void, (truth == label) & ~void
        found.append(torch.stack([(predicted & true).sum((1, 2)), (predicted | true).sum((1, 2))], 1))
    return torch.stack(found, 2)


@torch.no_grad()
def validate(trainee: Trainee, batches: Batches, pairs: np.ndarray, batch_size: int) -> float:
    """1-shot mIoU (0..1) of (query, support) rows (N, 2)."""
    counted = []
    for batch in batches(pairs, batch_size):
        _, mask, void, _, _ = batch
        counted.append(_counts(trainee.logits(batch).argmax(1), mask, void))
    intersections, unions = torch.cat(counted).cpu().numpy().transpose(1, 0, 2)  # one wait
    class_ids = batches.pictures.rows["class_id"].loc[pairs[:, 0]].to_numpy()
    return metrics.mean_iou(intersections, unions, class_ids)


class _State:
    """All that a training is between two steps; kept in one file."""

    def __init__(self, path: Path, trained: nn.Module, optimiser):
        self.path, self.trained, self.optimiser = path, trained, optimiser
        self.epoch = self.step = self.seen = 0
        self.seconds = self.loss = 0.0
        self.last = float("nan")  # the loss of the last step that is known
        self.counts: dict[int, np.ndarray] = {}  # class -> foreground intersection and union
        self.history: list[dict] = []
        self.best, self.best_epoch, self.best_state = -1.0, 0, {}
        self._load()

    PLAIN = ("epoch", "step", "seen", "seconds", "loss", "history", "best", "best_epoch")

    def fetch(self, steps: list[Tensor], class_ids: np.ndarray) -> None:
        """Count steps by what `_step` gave, in one wait, and empty their list.

        Args:
            class_ids: of all queries of the epoch, in order.
        """
        for numbers in torch.cat(steps).cpu().split([len(step) for step in steps]) if steps else []:
            self.last = numbers[0].item()
            intersection, union = numbers[1:].long().view(-1, 2, 2).numpy().transpose(1, 0, 2)
            self.add(self.last, intersection, union, class_ids[self.seen : self.seen + len(union)])
        steps.clear()

    def add(self, loss: float, intersection, union, class_ids) -> None:
        self.step += 1
        self.seen += len(class_ids)
        self.loss += loss * len(class_ids)
        for c, i, u in zip(class_ids.tolist(), intersection[:, 1], union[:, 1], strict=True):
            self.counts[c] = self.counts.get(c, np.zeros(2, int)) + np.array((i, u))

    def finish_epoch(self, validated: float) -> None:
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "train_loss": self.loss / self.seen,
                "train_miou": float(np.mean([i / max(u, 1) for i, u in self.counts.values()])),
                "validation_miou": validated,
            }
        )
        if validated > self.best:
            self.best, self.best_epoch = validated, self.epoch
            self.best_state = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}
        self.step = self.seen = 0
        self.seconds = self.loss = 0.0
        self.counts = {}

    def save(self) -> None:
        values = {name: getattr(self, name) for name in self.PLAIN}
        values["counts"] = {c: v.tolist() for c, v in self.counts.items()}
        values["trained"] = self.trained.state_dict()
        values["optimiser"] = self.optimiser.state_dict()
        values["best_state"] = self.best_state
        with replacing(self.path) as temporary:
            torch.save(values, temporary)
            if self.path.exists():
                os.replace(self.path, self.before)

    @property
    def before(self) -> Path:
        """The state before the last one, for when that turns out to be broken."""
        return self.path.with_name("before.pt")

    def _load(self) -> None:
        """Take the last state that can be read; a broken one is set aside."""
        for path in (self.path, self.before):
            if not path.is_file():
                continue
            try:
                self._take(torch.load(path, map_location="cpu", weights_only=True))
                return
            except Exception as error:  # torch and pickle raise many kinds for a broken file
                if isinstance(error, OSError) or devices.ran_out_of_memory(error):
                    raise  # of the machine; the file may well be whole
                aside = path.with_suffix(".broken")
                os.replace(path, aside)
                print(
                    f"the state of the source training cannot be read ({type(error).__name__}) and was set "
                    f"aside as {aside}; going on from an earlier one, or from the start",
                    flush=True,
                )

    def _take(self, values: dict) -> None:
        plain = {name: values[name] for name in self.PLAIN}
        counts = {c: np.array(v) for c, v in values["counts"].items()}
        best = values["best_state"]
        self.trained.load_state_dict(values["trained"])
        self.optimiser.load_state_dict(values["optimiser"])
        self.__dict__ |= plain
        self.counts, self.best_state = counts, best
        print(f"resuming source training after epoch {self.epoch}, batch {self.step}", flush=True)


def run(
    settings,
    source_path,
    validation_path,
    weights,
    checkpoint,
    identity,
    history,
    state_folder,
    compute,
    threads,
    source_pictures=None,
    validation_pictures=None,
) -> None:
    """The job of the source training: files in, files out.

    The state is kept in a folder named by everything that the training depends on, and removed
    once the checkpoint is written.

    Args:
        compute: `Jobs.compute_settings`.
        source_pictures, validation_pictures: as `index.load`.
    """
    source = index.load(source_path, source_pictures)
    validation = index.load(validation_path, validation_pictures)
    wanted = settings["validation"]
    listed = sample(
        validation, split=wanted["split"], shot=1, seed=settings["seed"], number=wanted["episodes"]
    )
    inputs = [source.identity, validation.identity, hosts.code_of(settings)]
    key = digest([settings, inputs, torch.__version__])
    folder = Path(state_folder) / key
    with devices.device(compute["device"]) as chosen, precision(settings["precision"], chosen):
        train(
            settings,
            source,
            validation,
            listed,
            weights_of(settings["backbone"], weights),
            checkpoint,
            history,
            folder,
            chosen,
            cache=1e9 * compute["cache_gb"],
            workers=threads - 1 if chosen.type == "cuda" else 0,
        )
    source_model.write_identity(checkpoint, identity)
    shutil.rmtree(folder)
