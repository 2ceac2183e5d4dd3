"""Whether a class keeps the contract for methods: one check for ours and for anyone's own."""

from collections.abc import Iterator

import numpy as np

from cdfss.errors import CdfssError
from cdfss.methods import calling, known, own
from cdfss.methods.contract import COUNTS, Given, Settings

ALIKE = 1e-4  # probabilities of a batch and of one by one; sums of floating point numbers differ
FLIPPED = 0.005  # share of pixels whose mask may differ then: those at the threshold
SIZE, EPISODES = 64, 3
BACKBONE = "efficientnet_lite0"  # whose weights are installed


def check(name: str, given: Given | None = None, settings: dict | None = None) -> list[str]:
    """Run a method on drawn episodes, and see whether it does what the contract says.

    Args:
        name: as `known.find` takes it.
        given: what the method is given; by default what it needs on a processor, with the frozen network
            whose weights are installed. A method that needs the source model must be given it.
        settings: as plain values; default settings otherwise.

    Returns:
        What was checked, a line each.

    Raises:
        CdfssError: at the first thing that is not as the contract says: what was found, what is expected.
    """
    found = known.find(name)
    given = _given(name, found.needs) if given is None else given
    return list(_checks(name, found, given, settings or {}))


def described_settings(name: str, what: str, settings: type[Settings]) -> str:
    """Names of the settings of a method or module, in words.

    Raises:
        CdfssError: for one without a description.
    """
    fields = settings.model_fields
    undescribed = [key for key, field in fields.items() if not field.description]
    if undescribed:
        raise CdfssError(
            f"{what} {name!r}: setting {undescribed[0]} has no description; write "
            f"{undescribed[0]}: ... = Field(..., description=...)"
        )
    return ", ".join(fields) or "none"


def _given(name: str, needs: str) -> Given:
    if needs == "nothing":
        return Given(SIZE)
    if needs == "source":
        raise CdfssError(
            f"method {name!r} needs a source-trained model; say which file with --checkpoint, and of which "
            "backbone with --backbone"
        )
    import torch

    backbone = BACKBONE if needs == "backbone" else None
    return Given(SIZE, device=torch.device("cpu"), backbone=backbone)


def _checks(name: str, found, given: Given, settings: dict) -> Iterator[str]:
    described = described_settings(name, "method", found.Settings)
    yield f"needs {found.needs}; settings: {described}"

    method = calling.build(name, settings, given)
    most = method.most_at_once
    if most is not None and (type(most) is not int or most < 1):
        raise CdfssError(
            f"method {name!r}: most_at_once is {most!r}; expected a number of at least 1, or None"
        )
    for k in (found.least_supports, found.least_supports + 2):
        drawn = episodes(given.image_size, k)
        supports, masks, queries, truths = drawn
        kept = [array.copy() for array in drawn]
        first = _segment(name, method, *drawn)
        for what, before, after in zip(("supports", "masks", "queries", "queries' masks"), kept, drawn):
            if not np.array_equal(before, after):
                raise CdfssError(f"method {name!r} changed the {what} that it was given; work on a copy")
        calling.parameters(name, method)
        yield f"{k}-shot: probabilities in 0..1 and masks of the queries' size, what it was given untouched"

        again = _segment(name, calling.build(name, settings, given), *drawn)
        _alike(name, again, first, 0.0, "for the same input the second time")
        yield f"{k}-shot: the same input gives the same output"

        if method.settings.goes_on:
            continue
        alone = [
            calling.segment(name, method, *(array[e : e + 1] for array in drawn))
            for e in reversed(range(EPISODES))
        ]
        alone = _together(reversed(alone))
        _alike(name, alone, first, ALIKE, "for episodes one by one, in another order")
        yield f"{k}-shot: a batch gives what episodes give one by one, in any order"

        for kind, value in (("empty", False), ("full", True)):
            _ends_in_words(name, method, supports, np.full_like(masks, value), queries, truths, kind)
        if k == found.least_supports:
            yield "an empty or a full support mask is segmented, or refused in words"

        both = _of_two_queries(name, method, *drawn)
        _alike(
            name, both, tuple(part[:2] for part in first), ALIKE, "for two queries of one episode at once"
        )
        if k == found.least_supports:
            yield "several queries of one episode give what each gives alone"
            yield from _kept(name, method, calling.build(name, settings, given), *drawn)


def _ends_in_words(name, method, supports, masks, queries, truths, kind: str) -> None:
    try:
        _segment(name, method, supports, masks, queries, truths)
    except Exception as error:
        if isinstance(error, CdfssError) and not isinstance(error, calling.BrokenContract):
            return
        raise CdfssError(
            f"method {name!r}: support masks that are {kind} end in: {error}; segment something, or raise "
            "a CdfssError that says what was found and what to do"
        ) from error


def _kept(name, method, other, supports, masks, queries, truths) -> Iterator[str]:
    """What `learnt` gives serves another one of the same method; and unknown pixels are taken."""
    given = supports[0], masks[0], queries[:1], truths[:1]
    support, mask, query, truth = (part[None] for part in given) if method.batched else given

    def predicted(of):
        return _together([calling.checked(name, calling.predict(of, query, truth), query.shape[:-1])])

    with own.told(name, "method", calling.BrokenContract):
        method.fit(support, mask)
        expected, learnt = predicted(method), method.learnt()
    if not isinstance(learnt, dict) or not all(isinstance(v, np.ndarray) for v in learnt.values()):
        raise CdfssError(f"method {name!r}: learnt returned {learnt!r:.200}; expected arrays by names")
    if learnt:
        with own.told(name, "method", calling.BrokenContract):
            other.recall(support, mask, learnt)
        _alike(name, predicted(other), expected, 0.0, "after recall of what another one had learnt")
        yield "what was learnt can be kept, and taken up again"
    if method.takes_unknown:
        unknown = np.zeros_like(mask)
        unknown[..., : mask.shape[-1] // 4] = True
        with own.told(name, "method", calling.BrokenContract):
            method.fit(support, mask & ~unknown, unknown)
            predicted(method)
        yield "unknown pixels of supports are taken"


def _segment(name, method, *episodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_together` of the episodes, in batches as large as the method takes."""
    number = method.most_at_once or EPISODES
    parts = [[array[begin : begin + number] for array in episodes] for begin in range(0, EPISODES, number)]
    return _together(calling.segment(name, method, *part) for part in parts)


def _together(parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and masks (E, S, S) and counts (E, all of COUNTS), -1 for what is not counted."""
    found = []
    for part in parts:
        masks = part.masks.reshape(-1, *part.masks.shape[-2:])
        counts = [part.counts.get(what, np.full(len(masks), -1)).reshape(-1) for what in COUNTS]
        found.append((part.probabilities.reshape(masks.shape), masks, np.stack(counts, 1)))
    return tuple(map(np.concatenate, zip(*found)))


def _of_two_queries(name, method, supports, masks, queries, truths):
    """`_together` of two queries, each with its own supports, beside another query."""
    found = []  # of the second time: predicting must not change what was learnt
    for episode in range(2):
        order = [episode, 1 - episode]
        given = supports[episode], masks[episode], queries[order], truths[order]
        support, mask, query, truth = (part[None] for part in given) if method.batched else given
        method.fit(support, mask)
        calling.predict(method, query, truth)
        both = _together([calling.checked(name, calling.predict(method, query, truth), query.shape[:-1])])
        found.append([part[0] for part in both])
    return tuple(map(np.stack, zip(*found)))


def _alike(name: str, found, expected, tolerance: float, when: str) -> None:
    """Compare probabilities, masks and counts; without a tolerance all must be the same."""
    flipped = float((found[1] != expected[1]).mean())
    if flipped > (FLIPPED if tolerance else 0):
        raise CdfssError(
            f"method {name!r}: {when}, masks differ in {100 * flipped:.2g} % of pixels; expected the same"
        )
    difference = float(np.abs(found[0] - expected[0]).max())
    if difference > tolerance:
        raise CdfssError(
            f"method {name!r}: {when}, probabilities differ by up to {difference:.2g}; expected at most "
            f"{tolerance:g}"
        )
    for what, mine, expects in zip(COUNTS, found[2].T, expected[2].T):
        pixels = found[1][0].size if tolerance and what.endswith("pixels") else 0
        if (np.abs(mine - expects) > FLIPPED * pixels).any():
            raise CdfssError(
                f"method {name!r}: {when}, {what} is {mine.tolist()} (-1: not counted); expected "
                f"{expects.tolist()}"
            )


def episodes(size: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Drawn episodes: discs of one colour on a ground of another, both with texture.

    Returns:
        supports (E, k, S, S, 3) uint8, their masks (E, k, S, S) bool, queries (E, S, S, 3) uint8, their
        masks (E, S, S) bool.
    """
    generator = np.random.RandomState(k)
    rows, columns = np.mgrid[:size, :size]
    pictures = np.empty((EPISODES, k + 1, size, size, 3), np.uint8)
    masks = np.empty((EPISODES, k + 1, size, size), bool)
    for episode in range(EPISODES):
        colours = generator.randint(40, 216, (2, 3))
        for number in range(k + 1):
            centre, radius = generator.uniform(0.3, 0.7, 2) * size, generator.uniform(0.15, 0.28) * size
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
            texture = generator.randint(-30, 31, (size, size, 3))
            pictures[episode, number] = np.clip(colours[disc.astype(int)] + texture, 0, 255)
            masks[episode, number] = disc
    return pictures[:, :k], masks[:, :k], pictures[:, k], masks[:, k]
