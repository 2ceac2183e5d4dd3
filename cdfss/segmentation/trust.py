"""How far to trust what was learnt from k labelled pictures, told from these and from the queries alone.

Nobody has the queries' masks. What can be known: how well each support is predicted from the others, how
firm predictions are, and which pictures are unlike all that are labelled. docs/explanation/trust.md says
how often each of these was right on pictures whose masks are known.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cdfss.data.metrics import counts
from cdfss.errors import CdfssError
from cdfss.methods import known
from cdfss.methods.contract import Given, Shared
from cdfss.segmentation import BACKBONE, trust_page
from cdfss.segmentation.fitting import Fitted, at_size, device_of, helps, resized
from cdfss.segmentation.supports import Support, Supports


@dataclass(frozen=True)
class Candidate:
    """A method that may be taken.

    Attributes:
        title: name in the report.
        method: of `cdfss.methods.known`.
        settings: as plain values, those that are not its defaults.
    """

    title: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


# Of equally good ones the first is taken: the default, which takes seconds too, then the cheaper.
CANDIDATES = (
    Candidate("ridge", "ridge"),
    Candidate("prototypes", "prototypes"),
    Candidate("propagation", "propagation"),
)
WITH_CHECKPOINT = (
    Candidate("hsnet", "hsnet"),
    Candidate("hsnet with modules", "hsnet", {"modules": ["apm_m", "acpa"]}),
)
TRIVIAL = (Candidate("foreground", "foreground"), Candidate("copy", "copy"))
TIE = 0.02  # of mean IoU; what differs less is as good
FOLDS = 10  # parts in which supports are left out, where there are more of them
LOW, HIGH = 0.3, 0.7  # thresholds around 0.5 between which a firm mask does not change
SUSPECT = 0.12  # of `balanced_error` above the median of the class; see docs/explanation/trust.md
LEAST_TO_ACCUSE = 3  # supports; of two, either may be the wrong one
# Of ridge on pictures that had no part in any choice here (docs/explanation/trust.md): how far the mean of
# leave-one-out was from the mean IoU of queries, and that on a changed copy of the only support above it.
OFF_BY, ALONE_TOO_HIGH = 0.07, 0.17
LABEL_NEXT = 10  # queries that are named at most
OF_A_TILE = re.compile(r" at \d+, \d+$")


@dataclass(frozen=True)
class LeftOut:
    """How well a candidate predicts a support that it was not shown.

    Attributes:
        method: title of the candidate.
        label: name of the class.
        support: name of the picture.
        iou: of foreground, in 0..1; None where the picture does not show the class, or the others cannot be
            learnt from.
    """

    method: str
    label: str
    support: str
    iou: float | None


@dataclass(frozen=True)
class Score:
    """A candidate's mean over the supports of a class.

    Attributes:
        mean, least, most: IoU in 0..1; None of no support.
        number: supports that it is of.
        interval: 95 %, None where `why_none` says why there is none.
    """

    method: str
    label: str
    number: int
    mean: float | None
    least: float | None
    most: float | None
    interval: tuple[float, float] | None
    why_none: str


@dataclass(frozen=True)
class Disagreement:
    """How badly a support is predicted from the others, by the best method.

    Attributes:
        label: name of the class.
        support: name of the picture.
        iou: of foreground, in 0..1.
        error: `balanced_error` of the same prediction; 0.5 is chance.
        suspicious: whether that is more than SUSPECT above the median of the class, where there are enough
            supports to say so.
    """

    label: str
    support: str
    iou: float
    error: float
    suspicious: bool


@dataclass(frozen=True)
class Confidence:
    """How firm the prediction of a query is.

    Attributes:
        value: in 0..1, the mean of `classes` over those that were found; 0 where none was.
        classes: by name of class; None where nothing of it was found.
    """

    query: str
    value: float
    classes: dict[str, float | None]


@dataclass(frozen=True)
class Report:
    """What is known of a model without any mask but the supports'.

    Attributes:
        method: title of the method that was fitted.
        best: title of the candidate that predicts left-out supports best.
        why: the sentence that says so.
        scores: of candidates and trivial predictors by class, in this order.
        loo: the numbers behind them.
        confidence: of queries, in their order.
        disagreement: of supports, the worst first.
        label_next: names of queries, the most useful first.
        remarks: what people should know, in sentences.
        colours: of each class in overlays of queries, RGB.
        pictures: JPEG files of overlays by ("support" or "query", class, name).
    """

    method: str
    best: str
    why: str
    scores: tuple[Score, ...]
    loo: tuple[LeftOut, ...]
    confidence: tuple[Confidence, ...]
    disagreement: tuple[Disagreement, ...]
    label_next: tuple[str, ...]
    remarks: tuple[str, ...]
    colours: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    pictures: dict[tuple[str, str, str], bytes] = field(default_factory=dict, repr=False)

    def to_json(self) -> str:
        """All but the pictures. Keys stay what they are; new ones may come."""
        told = {
            "version": 1,
            "method": self.method,
            "best": self.best,
            "why": self.why,
            "scores": [asdict(one) for one in self.scores],
            "leave_one_out": [asdict(one) for one in self.loo],
            "confidence": [asdict(one) for one in self.confidence],
            "disagreement": [asdict(one) for one in self.disagreement],
            "label_next": self.label_next,
            "remarks": self.remarks,
        }
        return json.dumps(told, indent=1, ensure_ascii=False)

    def to_html(self) -> str:
        """A page of its own, pictures included; it needs no network and no script."""
        return trust_page.render(self, (LOW, HIGH))


def confidence(probabilities: np.ndarray) -> float | None:
    """How firm a mask is: what stays of it when the threshold goes from LOW to HIGH, an IoU in 0..1.

    Args:
        probabilities: of foreground, (H, W) in 0..1.

    Returns:
        None where not even LOW is reached: nothing was found.
    """
    wide = int((probabilities >= LOW).sum())
    return int((probabilities >= HIGH).sum()) / wide if wide else None


def choose(
    supports: Supports,
    *,
    backbone: str,
    size: int,
    checkpoint: str | Path | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> tuple[Candidate, str]:
    """The candidate that predicts left-out supports best, and the sentence that says so.

    Args:
        supports: at any size.
        others: as `segmenter.fit_supports`. With a checkpoint, of HSNet, HSNet is a candidate too, without
            modules and with; its modules are tuned once for each support that is left out.

    Raises:
        CdfssError: where no candidate can be fitted to what is left.
    """
    candidates = (*CANDIDATES, *(WITH_CHECKPOINT if checkpoint else ()))
    given = _given(backbone, size, weights, checkpoint, device, seed)
    tried = Trials(at_size(supports, size), given, candidates)
    best = tried.best
    return best, tried.why


def report(
    supports: Supports,
    how: Mapping[str, Any],
    queries: Iterable[tuple[str, np.ndarray]] = (),
    candidates: Sequence[Candidate] | None = None,
    *,
    predict: Callable[[np.ndarray], np.ndarray] | None = None,
    device: str = "auto",
) -> Report:
    """What can be said of a method that was fitted to supports.

    Args:
        supports: as the method sees them, (S, S).
        how: of the fitted `Segmenter`: method, settings, backbone, weights, checkpoint, size, seed.
        queries: names and pictures (H, W, 3) uint8, read one after the other.
        candidates: by default CANDIDATES, where HSNet was fitted those WITH_CHECKPOINT too. What was fitted
            is always added.
        predict: of a picture the probabilities (C, H, W), as the `Segmenter` gives them. By default the
            method is fitted anew, and sees each query whole.
        device: as `fit_supports`.

    Raises:
        CdfssError: as `choose`.
    """
    fitted = _fitted(how)
    path = {what: how.get(what) and how[what]["path"] for what in ("weights", "checkpoint")}
    if candidates is None:
        kind = known.find(how["method"])
        of_hsnet = kind.needs == "source" and kind.host == "hsnet"
        candidates = (*CANDIDATES, *(WITH_CHECKPOINT if of_hsnet else ()))
    if fitted not in candidates:
        candidates = (*candidates, fitted)
    given = _given(
        how["backbone"] or BACKBONE,
        how["size"],
        path["weights"],
        path["checkpoint"],
        device,
        how["seed"],
    )
    tried = Trials(supports, given, candidates)
    if predict is None:
        predict = _predictor(supports, fitted, given)
    seen = _Queries(supports, given)
    pictures = tried.pictures()
    firm = []
    for name, picture in queries:
        probabilities = predict(picture)
        classes = {label: confidence(p) for label, p in zip(supports.classes, probabilities, strict=True)}
        found = [value for value in classes.values() if value is not None]
        firm.append(Confidence(name, float(np.mean(found)) if found else 0.0, classes))
        seen.add(name, picture)
        pictures["query", "", name] = trust_page.query(picture, probabilities, supports.colours)
    return Report(
        method=fitted.title,
        best=tried.best.title,
        why=tried.why,
        scores=tried.scores,
        loo=tried.rows,
        confidence=tuple(firm),
        disagreement=tried.disagreement,
        label_next=seen.next(firm),
        remarks=tuple(dict.fromkeys([*tried.remarks, *how.get("remarks", ())])),
        colours=dict(supports.colours),
        pictures=pictures,
    )


class Trials:
    """Candidates, each fitted to some of the supports to predict the others.

    Attributes:
        rows: `LeftOut` of every candidate, trivial predictor, class and support.
    """

    def __init__(self, supports: Supports, given: Given, candidates: Sequence[Candidate]):
        self.supports, self.candidates = supports, tuple(candidates)
        self.rows: tuple[LeftOut, ...] = ()
        self._shown: dict[tuple[str, str], list[tuple[Support, np.ndarray]]] = {}
        for label, of in supports.classes.items():
            rounds = folds(of)
            for candidate in (*self.candidates, *TRIVIAL):
                self._try(candidate, given, label, rounds)

    def _try(self, candidate: Candidate, given: Given, label: str, rounds: list["Fold"]) -> None:
        rows, shown = [], []
        for fold in rounds:
            found = predicted(candidate, given, fold)
            for name in dict.fromkeys(map(picture_of, fold.left)):
                places = [n for n, one in enumerate(fold.left) if picture_of(one) == name]
                iou = None
                if found is not None:
                    iou = iou_of([fold.left[n] for n in places], [*found[places]])
                    shown += [(fold.left[n], found[n]) for n in places]
                rows.append(LeftOut(candidate.title, label, name, iou))
        order = list(dict.fromkeys(map(picture_of, self.supports.classes[label])))
        self.rows += tuple(sorted(rows, key=lambda row: order.index(row.support)))
        self._shown[candidate.title, label] = shown

    def ious(self, title: str, label: str) -> list[float]:
        """Of one candidate or trivial predictor and one class."""
        return [r.iou for r in self.rows if (r.method, r.label) == (title, label) and r.iou is not None]

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Of all candidates and trivial predictors, by class."""
        return tuple(
            _score(one.title, label, self.ious(one.title, label))
            for label in self.supports.classes
            for one in (*self.candidates, *TRIVIAL)
        )

    @property
    def remarks(self) -> list[str]:
        """What people should know, in sentences."""
        return _said_of(self.supports)

    def mean(self, title: str) -> float:
        """Mean IoU over classes; -1 where nothing could be tried."""
        of_classes = [self.ious(title, label) for label in self.supports.classes]
        found = [np.mean(ious) for ious in of_classes if ious]
        return float(np.mean(found)) if found else -1.0

    @cached_property
    def best(self) -> Candidate:
        """The first of those whose mean is within TIE of the largest."""
        most = max(self.mean(one.title) for one in self.candidates)
        if most < 0:
            raise CdfssError(
                "trust: nothing can be told by leaving supports out: no candidate can learn from the rest. "
                "Add supports whose masks hold both the class and what it is not, or name a method"
            )
        return next(one for one in self.candidates if self.mean(one.title) >= most - TIE)

    @cached_property
    def why(self) -> str:
        """How `best` was chosen, and what it must be held against."""
        means = {one.title: self.mean(one.title) for one in (*self.candidates, *TRIVIAL)}
        title = self.best.title
        others = ", ".join(
            f"{name} {value:.3f}" for name, value in means.items() if name != title and value >= 0
        )
        by = "on changed copies of the one labelled picture" if self.alone else "on left-out supports"
        text = f"Take {title}: {by} its mean IoU is {means[title]:.3f} ({others})."
        if any(means[one.title] > means[title] for one in self.candidates):
            text += f" Within {TIE} of each other they count as equal, and the simplest is taken."
        for trivial in TRIVIAL:
            beaten = []
            for label in self.supports.classes:
                ious, mine = self.ious(trivial.title, label), self.ious(title, label)
                if mine and np.mean(ious) >= np.mean(mine) - TIE:
                    beaten.append(label)
            if beaten:
                text += (
                    f" But {trivial.title}, which looks at no picture, is as good for {', '.join(beaten)}: "
                    "there is no sign that anything of use was learnt there."
                )
        return text

    @property
    def alone(self) -> bool:
        """Whether every class is shown by one picture only."""
        return all(len(_showing(of)) == 1 for of in self.supports.classes.values())

    @cached_property
    def disagreement(self) -> tuple[Disagreement, ...]:
        """Of supports that show their class, the worst first; nothing of a class with a single one."""
        found = []
        for label, of in self.supports.classes.items():
            if len(_showing(of)) < 2:
                continue
            shown = self._shown[self.best.title, label]
            tried = {name: [both for both in shown if picture_of(both[0]) == name] for name in _showing(of)}
            errors = {name: balanced_error(*zip(*both)) for name, both in tried.items() if both}
            limit = np.median(list(errors.values())) + SUSPECT if errors else 0.0
            told = len(errors) >= LEAST_TO_ACCUSE
            found += [
                # There is an IoU: these pictures show their class.
                Disagreement(
                    label, name, iou_of(*zip(*tried[name])) or 0.0, error, bool(told and error > limit)
                )
                for name, error in errors.items()
            ]
        return tuple(sorted(found, key=lambda one: -one.error))

    def pictures(self) -> dict[tuple[str, str, str], bytes]:
        """Overlays of the supports as the best candidate predicts them: mask and prediction."""
        return {
            ("support", label, one.name): trust_page.support(one.picture, one.mask, found >= 0.5)
            for label in self.supports.classes
            for one, found in self._shown[self.best.title, label]
        }


@dataclass(frozen=True)
class Fold:
    """Supports of a class that are learnt from, and those that are predicted."""

    learnt: list[Support]
    left: list[Support]


def picture_of(support: Support) -> str:
    """Name of the picture of a support, which may be a tile of it."""
    return OF_A_TILE.sub("", support.name)


def _showing(supports: list[Support]) -> list[str]:
    """Names of pictures that show the class, in order."""
    return list(dict.fromkeys(picture_of(one) for one in supports if one.mask.any()))


def folds(supports: list[Support]) -> list[Fold]:
    """Each picture left out once, tiles of one together; of more than FOLDS several at a time.

    Where a single picture shows the class, a changed copy of it stands for others.
    """
    showing = _showing(supports)
    if len(showing) == 1:
        alone = [one for one in supports if picture_of(one) == showing[0] and one.mask.any()]
        return [Fold(supports, [changed(one) for one in alone])]
    absent = [
        name for name in dict.fromkeys(picture_of(one) for one in supports) if name not in set(showing)
    ]
    names = [*showing, *absent]  # so that no fold holds all that show it
    parts = min(len(names), FOLDS)
    left = [set(names[number::parts]) for number in range(parts)]
    return [
        Fold(
            [one for one in supports if picture_of(one) not in out],
            [one for one in supports if picture_of(one) in out],
        )
        for out in left
    ]


def changed(support: Support) -> Support:
    """A support mirrored, a quarter of each side cut off around its object, and darker."""
    from cdfss.data.pictures import nearest

    size = len(support.mask)
    side = 3 * size // 4
    top, left = (int(np.clip(np.mean(at) - side / 2, 0, size - side)) for at in np.nonzero(support.mask))
    window = slice(top, top + side), slice(left, left + side)
    if not support.mask[window].any():
        window = slice(None), slice(None)
    picture = resized(np.ascontiguousarray(support.picture[window][:, ::-1]), size)

    def cut(mask):
        return nearest(np.ascontiguousarray(mask[window][:, ::-1]), size)

    unknown = None if support.unknown is None else cut(support.unknown)
    return Support(support.name, (0.8 * picture + 20).astype(np.uint8), cut(support.mask), unknown)


def predicted(candidate: Candidate, given: Given, fold: Fold) -> np.ndarray | None:
    """Probabilities of what is left, (n, S, S); None where the method cannot learn from the rest."""
    kind = known.find(candidate.method)
    learnt = [one for one in fold.learnt if helps(kind, one)]
    masks = [one.mask for one in learnt]
    both = any(mask.any() for mask in masks) and not all(mask.all() for mask in masks)
    if len(learnt) < kind.least_supports or not (both or (learnt and not kind.looks)):
        return None
    fitted = Fitted(candidate.method, dict(candidate.settings), given, learnt)
    # One by one, as queries come.
    return np.concatenate([fitted.probabilities(one.picture[None]) for one in fold.left])


def iou_of(supports: Sequence[Support], probabilities: Sequence[np.ndarray]) -> float | None:
    """Foreground IoU of the n tiles of a picture, (S, S) each; None where it does not show the class."""
    if not any(one.mask.any() for one in supports):
        return None
    intersection, union = 0, 0
    for one, found in zip(supports, probabilities, strict=True):
        both = counts(found >= 0.5, one.mask, one.unknown)
        intersection, union = intersection + int(both[0][1]), union + int(both[1][1])
    return intersection / union if union else None


def balanced_error(supports: Sequence[Support], probabilities: Sequence[np.ndarray]) -> float:
    """Mean of the shares of foreground and of background that are predicted wrongly, in 0..1.

    Args:
        supports: the n tiles of a picture.
        probabilities: n times (S, S).
    """
    wrong, pixels = np.zeros(2), np.zeros(2)
    for one, found in zip(supports, probabilities, strict=True):
        told = True if one.unknown is None else ~one.unknown
        for label in (0, 1):
            of_label = (one.mask == label) & told
            pixels[label] += of_label.sum()
            wrong[label] += (of_label & ((found >= 0.5) != label)).sum()
    return float((wrong[pixels > 0] / pixels[pixels > 0]).mean()) if pixels.any() else 0.0


def _score(title: str, label: str, values: list[float]) -> Score:
    if not values:
        why = "the others cannot be learnt from"
        return Score(title, label, 0, None, None, None, None, why)
    interval, why = _interval(values)
    return Score(title, label, len(values), float(np.mean(values)), min(values), max(values), interval, why)


def _interval(values: list[float]) -> tuple[tuple[float, float] | None, str]:
    """95 % interval of a mean as `reports.statistics` states it, or why it states none."""
    from cdfss.reports.statistics import LEAST_EPISODES, EpisodeList, Estimate, Measured

    number = len(values)
    if number < LEAST_EPISODES:
        return None, f"{number} numbers are fewer than {LEAST_EPISODES}"
    names = np.arange(number).astype(str).astype(object)
    list_ = EpisodeList(("supports", 1, 0), np.arange(number), np.zeros(number, int), names[:, None])
    ends = Estimate([(1, Measured.mean(list_, None, values))], (0, 1)).interval
    return (float(ends[0]), float(ends[1])), ""


def _said_of(supports: Supports) -> list[str]:
    """What the numbers of classes can say, once for all of which the same holds."""
    from cdfss.reports.statistics import LEAST_EPISODES

    said: dict[str, list[str]] = {}
    for label, of in supports.classes.items():
        showing = _showing(of)
        texts = []
        if len(showing) == 1:
            texts.append(
                "one picture shows it. Its IoU is that of a mirrored, enlarged and darker copy, which is "
                f"easier than any other picture: {ALONE_TOO_HIGH} too high on average where the truth is "
                "known, and weak evidence for a choice. Label a second one."
            )
        elif len(showing) < LEAST_EPISODES:
            texts.append(
                f"{len(showing)} numbers, one for each picture that was left out. Their mean is a hint and "
                f"no measurement: below {LEAST_EPISODES} no interval holds. Where the truth is known, such "
                f"means of 3 to 5 were off by {OFF_BY} on average."
            )
        if len(showing) == 2:
            texts.append("of two pictures that disagree, either may be the wrong one.")
        if len({picture_of(one) for one in of}) > FOLDS:
            texts.append(f"pictures were left out in {FOLDS} parts, not one by one.")
        for text in texts:
            said.setdefault(text, []).append(label)
    return [f"{', '.join(labels)}: {text}" for text, labels in said.items()]


class _Queries:
    """What queries look like to the backbone, as one vector each, beside the supports'."""

    def __init__(self, supports: Supports, given: Given):
        self._given = given
        self._names: list[str] = []
        self._vectors: list[np.ndarray] = []
        pictures = {id(one.picture): one.picture for of in supports.classes.values() for one in of}
        self._labelled = [self._vector(picture) for picture in pictures.values()]

    def add(self, name: str, picture: np.ndarray) -> None:
        self._names.append(name)
        self._vectors.append(self._vector(resized(picture, self._given.image_size)))

    def next(self, firm: list[Confidence]) -> tuple[str, ...]:
        """Names of at most LABEL_NEXT queries, see `most_typical`."""
        if not self._names:
            return ()
        chosen = most_typical(np.array(self._labelled), np.array(self._vectors), LABEL_NEXT)
        return tuple(self._names[number] for number in chosen)

    def _vector(self, picture: np.ndarray) -> np.ndarray:
        """(S, S, 3) uint8 -> mean features of the last two strides, each of length 1."""
        import torch
        import torch.nn.functional as F

        from cdfss.backbones.normalisation import normalise

        network = self._given.network
        image = torch.from_numpy(np.ascontiguousarray(picture))[None].to(self._given.device)
        with torch.inference_mode():
            maps = [of_stride[-1].float() for of_stride in network(normalise(image, network.facts))[-2:]]
            parts = [F.normalize(m.mean((2, 3)), dim=1)[0] for m in maps]
        return torch.cat(parts).cpu().numpy()


def most_typical(labelled: np.ndarray, queries: np.ndarray, number: int) -> list[int]:
    """Queries after whose labelling all queries are most like some labelled picture, in order.

    Each is the one that raises sum_i max_j cos(query i, labelled j) most, of vectors about their mean
    (facility location, greedily).

    Args:
        labelled: (k, D).
        queries: (n, D).

    Returns:
        min(n, number) places in `queries`.
    """
    both = np.concatenate([labelled, queries])
    both = both - both.mean(0)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
    labelled, queries = both[: len(labelled)], both[len(labelled) :]
    alike = queries @ queries.T
    nearest = (queries @ labelled.T).max(1)
    chosen: list[int] = []
    for _ in range(min(number, len(queries))):
        gains = np.maximum(nearest[:, None], alike).sum(0)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        nearest = np.maximum(nearest, alike[:, chosen[-1]])
    return chosen


def _given(backbone, size, weights, checkpoint, device, seed) -> Given:
    """What candidates are given: one network, which sees each picture once."""
    from cdfss.backbones.memory import EachPicture

    given = Given(size, seed, device_of(device), backbone, weights, checkpoint, shared=Shared(True))
    given.network.memory = EachPicture()
    return given


def _fitted(how: Mapping[str, Any]) -> Candidate:
    """What was fitted, one of the candidates where it is the same."""
    default = known.find(how["method"]).Settings().model_dump(mode="json")
    changes = {key: value for key, value in how["settings"].items() if default.get(key) != value}
    if not changes:
        return next(
            (one for one in CANDIDATES if one.method == how["method"]),
            Candidate(how["method"], how["method"]),
        )
    return Candidate(f"{how['method']}, as fitted", how["method"], how["settings"])


def _predictor(supports: Supports, fitted: Candidate, given: Given) -> Callable[[np.ndarray], np.ndarray]:
    methods = []
    for of in supports.classes.values():
        learnt = [one for one in of if helps(known.find(fitted.method), one)]
        methods.append(Fitted(fitted.method, dict(fitted.settings), given, learnt))

    def predict(picture: np.ndarray) -> np.ndarray:
        seen = resized(picture, given.image_size)[None]
        return np.concatenate([one.probabilities(seen) for one in methods])

    return predict
