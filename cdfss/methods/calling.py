"""Fit a method to episodes and let it predict their queries, whatever it is, and check what it says."""

import time
from dataclasses import dataclass

import numpy as np

from cdfss.errors import CdfssError
from cdfss.methods import known, own
from cdfss.methods.contract import COUNTS, Method, Prediction
from cdfss.running import devices

TOLERANCE = 1e-5  # that a probability may lie outside 0..1


class BrokenContract(CdfssError):
    """A method does not what `contract.Method` says, or fails where it is somebody's own."""


@dataclass
class Segmented:
    """What a method made of E episodes.

    Attributes:
        masks: of the queries, (E, S, S) bool.
        probabilities: of foreground, (E, S, S) float32 in 0..1.
        losses: before each step, (E, steps).
        rates: learning rates that the method chose, (E,); None where it did not.
        counts: (E,) whole numbers by names of `contract.COUNTS`, of those that the method counts.
        fit_seconds, predict_seconds: of an episode.
    """

    masks: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    counts: dict[str, np.ndarray]
    fit_seconds: float
    predict_seconds: float
    rates: np.ndarray | None = None


def build(name: str, settings: dict, given) -> Method:
    """A method by its name.

    Args:
        settings: as plain values.
        given: `contract.Given`.

    Raises:
        CdfssError: for wrong settings; and what the method says of what it is given.
    """
    found = known.find(name)
    checked_settings = own.checked_settings(name, "method", found.Settings, settings)
    with own.told(name, "method", BrokenContract):
        return found(checked_settings, given)


def segment(
    name: str,
    method: Method,
    supports: np.ndarray,
    masks: np.ndarray,
    queries: np.ndarray,
    truths: np.ndarray | None = None,
) -> Segmented:
    """Fit to the supports of E episodes and predict a query of each.

    Args:
        name: of the method, for errors.
        supports: (E, k, S, S, 3) uint8.
        masks: (E, k, S, S) bool.
        queries: (E, S, S, 3) uint8.
        truths: their masks (E, S, S) bool, which are shown to an oracle, and to nothing else.

    Raises:
        CdfssError: for fewer supports than the method needs; for an oracle without truths.
        BrokenContract: when what the method returns is not what the contract says, and when a user's
            own method fails: with the line of its file.
    """
    if masks.shape[1] < method.least_supports:
        raise CdfssError(
            f"method {name!r} needs at least {method.least_supports} supports, and was given "
            f"{masks.shape[1]}"
        )
    if truths is None:
        if is_oracle(method):
            raise CdfssError(
                f"method {name!r} is an oracle, which is shown the queries' masks, and got none"
            )
        truths = np.zeros(queries.shape[:-1], bool)
    if method.batched:
        turns = [(supports, masks, queries[:, None], truths[:, None])]
    else:
        episodes = zip(supports, masks, queries, truths, strict=True)
        turns = [(s, m, q[None], t[None]) for s, m, q, t in episodes]
    predictions, losses, rates, seconds = [], [], [], np.zeros(2)
    for support, mask, query, truth in turns:
        begin = time.perf_counter()
        with own.told(name, "method", BrokenContract):
            method.fit(support, mask)
            devices.wait_for(method.given.device)
            fitted = time.perf_counter()
            prediction = predict(method, query, truth)
            devices.wait_for(method.given.device)
            seconds += fitted - begin, time.perf_counter() - fitted
            predictions.append(checked(name, prediction, query.shape[:-1]))
            losses.append(_losses(name, method, mask.shape[:1] if method.batched else ()))
            rates.append(method.rates)
    size = queries.shape[:-1]
    counted = [list(p.counts) for p in predictions]
    if other := [names for names in counted if set(names) != set(counted[0])]:
        raise BrokenContract(
            f"method {name!r}: predict counted {counted[0]} for one episode and {other[0]} for another; "
            "expected the same for all"
        )
    return Segmented(
        np.concatenate([p.masks for p in predictions]).reshape(size),
        np.concatenate([p.probabilities for p in predictions]).reshape(size),
        np.concatenate(losses),
        {what: np.concatenate([p.counts[what].reshape(-1) for p in predictions]) for what in counted[0]},
        *(seconds / len(queries)),
        None if rates[0] is None else np.concatenate([np.reshape(one, -1) for one in rates]),
    )


def predict(method: Method, queries: np.ndarray, truths: np.ndarray) -> Prediction:
    """What a method says of queries; an oracle is shown their masks."""
    return method.predict(queries, truths) if is_oracle(method) else method.predict(queries)


def is_oracle(method: Method) -> bool:
    """Whether a method is shown the masks of queries."""
    # A user's own may have lost its settings: the error is to be that of its file.
    return getattr(method.settings, "oracle", False)


def checked(name: str, prediction: Prediction, shape: tuple[int, ...]) -> Prediction:
    """A prediction as bool and float32 arrays of this shape.

    Raises:
        BrokenContract: says what came and what is allowed.
    """
    if not isinstance(prediction, Prediction):
        raise BrokenContract(
            f"method {name!r}: predict returned {type(prediction).__name__}; expected a "
            "cdfss.methods.contract.Prediction of probabilities"
        )
    found = {"probabilities": np.asarray(prediction.probabilities), "masks": np.asarray(prediction.masks)}
    for what, values in found.items():
        if values.shape != tuple(shape):
            raise BrokenContract(
                f"method {name!r}: predict returned {what} of shape {list(values.shape)} for queries of "
                f"{list(shape)}; expected one value a pixel of every query"
            )
    probabilities, masks = found["probabilities"], found["masks"]
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise BrokenContract(
            f"method {name!r}: predict returned probabilities of type {probabilities.dtype}; expected "
            "floating point numbers in 0..1"
        )
    bad = ~((probabilities >= -TOLERANCE) & (probabilities <= 1 + TOLERANCE))  # true for NaN too
    if bad.any():
        raise BrokenContract(
            f"method {name!r}: predict returned {bad.sum()} probabilities outside 0..1, first "
            f"{probabilities[bad][0]}; expected numbers in 0..1"
        )
    if masks.dtype != bool:
        raise BrokenContract(
            f"method {name!r}: predict returned masks of type {masks.dtype}; expected bool"
        )
    counts = _checked_counts(name, prediction.counts, tuple(shape[:-2]))
    return Prediction(probabilities.astype(np.float32, copy=False), masks, counts)


def _checked_counts(name: str, counts, queries: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Counts of queries, (n,) or (E, n), as int64 arrays."""
    if not isinstance(counts, dict) or set(counts) - set(COUNTS):
        said = sorted(map(str, counts)) if isinstance(counts, dict) else type(counts).__name__
        raise BrokenContract(
            f"method {name!r}: predict returned counts of {said}; expected a dictionary with names of "
            f"{', '.join(COUNTS)}, or none"
        )
    checked = {}
    for what, values in counts.items():
        values = np.asarray(values)
        if values.shape != queries or not np.issubdtype(values.dtype, np.integer):
            raise BrokenContract(
                f"method {name!r}: predict returned {what} of type {values.dtype} and shape "
                f"{list(values.shape)}; expected a whole number of every query, {list(queries)}"
            )
        if (values < 0).any():
            raise BrokenContract(
                f"method {name!r}: predict returned {what} of {values.min()}; expected 0 or more"
            )
        checked[what] = values.astype(np.int64)
    return checked


def parameters(name: str, method: Method) -> tuple[int, int]:
    """Numbers of parameters that a method adds and that it tunes."""
    with own.told(name, "method", BrokenContract):
        found = method.parameters
    if not (
        isinstance(found, tuple) and len(found) == 2 and all(isinstance(n, int | np.integer) for n in found)
    ):
        raise BrokenContract(
            f"method {name!r}: parameters is {found!r}; expected two whole numbers, of those that are "
            "added to the source model and of those that are tuned"
        )
    return found


def _losses(name: str, method: Method, episodes: tuple[int, ...]) -> np.ndarray:
    """Losses of the last fit, (E, steps)."""
    if method.losses is None:
        return np.empty((*(episodes or (1,)), 0))
    losses = np.asarray(method.losses)
    if losses.ndim != 1 + len(episodes) or losses.shape[:-1] != episodes:
        raise BrokenContract(
            f"method {name!r}: losses have the shape {list(losses.shape)}; expected {[*episodes, 'steps']}"
        )
    return losses if episodes else losses[None]
