"""Intervals of mIoU and of means, paired differences, what single episodes do to them (no torch).

The jackknife leaves out one episode at a time. Variants are evaluated on the same list, so what is left
out is left out of every variant, and the interval of a difference is a paired one. What an interval is
about is one of three READINGS; `benchmarks/coverage.py` simulates how often each holds the truth.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from cdfss.errors import CdfssError
from cdfss.evaluation import results

COVERAGE = 0.95
SIGNIFICANT = 0.05  # p values below
READINGS = {
    "lists": "new lists of this size, drawn from these pictures",
    "pictures": "new pictures of these domains",
    "training": "the mean over other source trainings",
}

# Below these no interval is given, since none holds the truth as often as it says
# (docs/explanation/statistics.md).
LEAST_EPISODES = 20
LEAST_PICTURES = 20
LEAST_CHANGES = 8  # that a difference comes down to, see `Difference.effective`


@dataclass(frozen=True)
class EpisodeList:
    """The N episodes that a number is about, whichever variant it is of.

    Attributes:
        key: (domain, shot, seed); equal keys, equal episodes.
        episode, class_id: (N,).
        pictures: (N, 1 + k) names of the query's and the supports' pictures.
    """

    key: tuple[str, int, int]
    episode: np.ndarray
    class_id: np.ndarray
    pictures: np.ndarray

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "EpisodeList":
        """The list of `one_list` rows."""
        first = rows.iloc[0]
        key = (first["domain"], int(first["shot"]), int(first["seed"]))
        pictures = [[query, *supports] for query, supports in zip(rows["query"], rows["supports"])]
        episode, class_id = rows["episode"].to_numpy(), rows["class_id"].to_numpy()
        return cls(key, episode, class_id, np.array(pictures, dtype=object))

    @property
    def domain(self) -> str:
        return self.key[0]

    @cached_property
    def stratum(self) -> np.ndarray:
        """(N,) from 0: episodes of a class are a stratum; all classes of one episode are one together."""
        _, place, sizes = np.unique(self.class_id, return_inverse=True, return_counts=True)
        return np.unique(np.where(sizes[place] == 1, -1, place), return_inverse=True)[1]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Episodes of each stratum."""
        return np.bincount(self.stratum)

    @property
    def size(self) -> np.ndarray:
        """(N,) episodes of each one's stratum."""
        return self.sizes[self.stratum]

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Values (N,) less the mean of their stratum."""
        return values - (np.bincount(self.stratum, values) / self.sizes)[self.stratum]


@dataclass(frozen=True)
class Measured:
    """A number of one variant on one list: a ratio of sums in every class, averaged, or a plain mean.

    Attributes:
        source: seed of the source training; None for what has none.
        value: of the whole list.
        deviations: (N,) how much each episode pulls: of a mean its distance from the mean of its
            stratum, times the stratum's share; of a ratio the same of its jackknife pseudo-values.
        moves: (N,) how much the value moves when the episode is left out; nan where nothing remains.
        parts: (N, 2) what an episode brings: numerator, denominator.
        totals: (N, 2) sums of these over the episode's class, or over the list for a mean.
        share: (N,) weight of that class in the value.
    """

    list: EpisodeList
    source: int | None
    value: float
    deviations: np.ndarray
    moves: np.ndarray
    parts: np.ndarray
    totals: np.ndarray
    share: np.ndarray

    @classmethod
    def ratio(cls, list_: EpisodeList, source, numerator, denominator) -> "Measured":
        """Mean over classes of sum(numerator) / sum(denominator), as mIoU is. Both (N,), not negative."""
        parts = np.stack([numerator, denominator], 1).astype(np.float64)
        _, place, sizes = np.unique(list_.class_id, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(place, column) for column in parts.T], 1)
        classes, counted = len(sums), sizes[place]
        ratios = sums[:, 0] / np.maximum(sums[:, 1], 1)
        value = ratios.mean()
        rest = sums[place] - parts
        without = np.where(counted > 1, rest[:, 0] / np.maximum(rest[:, 1], 1), np.nan)
        # Several episodes: pseudo-values of the class's ratio. A single one: its own ratio.
        pulls = np.where(counted > 1, -(counted - 1) * without, ratios[place]) / classes
        pulls = np.where(counted > 1, pulls, pulls * list_.size)
        gone = (value * classes - ratios[place]) / (classes - 1) if classes > 1 else np.nan
        moves = np.where(counted > 1, (without - ratios[place]) / classes, gone - value)
        share = np.full(len(parts), 1 / classes)
        return cls(list_, source, value, list_.centred(pulls), moves, parts, sums[place], share)

    @classmethod
    def mean(cls, list_: EpisodeList, source, values) -> "Measured":
        """Mean of a measurement (N,) over the episodes."""
        values = np.asarray(values, np.float64)
        number, value = len(values), values.mean()
        moves = (value - values) / (number - 1) if number > 1 else np.full(1, np.nan)
        parts = np.stack([values, np.ones(number)], 1)
        totals = np.broadcast_to(parts.sum(0), parts.shape)
        deviations = list_.centred(values) * list_.size / number
        return cls(list_, source, value, deviations, moves, parts, totals, np.ones(number))

    def scaled(self, factor: float) -> "Measured":
        """The same in another unit."""
        return Measured(
            self.list,
            self.source,
            self.value * factor,
            self.deviations * factor,
            self.moves * factor,
            self.parts,
            self.totals,
            self.share * factor,
        )

    def steps_to(self, other: "Measured") -> np.ndarray:
        """What each episode brings to the difference `other` - this, (N,); they add up to it.

        With r = a / b in a class, r' - r = sum((a'_i - a_i) - m (b'_i - b_i)) / B, where m and B are the
        means of both ratios and of both denominators. An episode that is the same in both brings 0.
        """
        ratios = [t[:, 0] / np.maximum(t[:, 1], 1) for t in (self.totals, other.totals)]
        denominator = np.maximum((self.totals[:, 1] + other.totals[:, 1]) / 2, 1)
        change = other.parts - self.parts
        return self.share * (change[:, 0] - np.mean(ratios, 0) * change[:, 1]) / denominator


class Estimate:
    """A number from one list or several, with its interval.

    Attributes:
        value: float; nan of no terms.
        terms: (weight, `Measured`) pairs whose weighted sum it is.
        limits: what the number can be at all; its interval is within.
        stated: by domain, which of READINGS `interval` is about, "lists" where nothing is said.
    """

    def __init__(self, terms, limits=(-np.inf, np.inf), stated: dict[str, str] | None = None):
        self.terms = [(float(weight), term) for weight, term in terms]
        self.value = sum(weight * term.value for weight, term in self.terms) if self.terms else np.nan
        self.limits, self.stated = limits, stated or {}

    @classmethod
    def mean(cls, estimates: Iterable["Estimate"]) -> "Estimate":
        estimates = list(estimates)
        if not all(one.terms for one in estimates):
            return UNKNOWN
        terms = [(w / len(estimates), term) for one in estimates for w, term in one.terms]
        return cls(terms, estimates[0].limits, estimates[0].stated)

    def __sub__(self, other: "Estimate") -> "Difference":
        return Difference(self, other)

    @cached_property
    def _lists(self) -> dict[Hashable, tuple[EpisodeList, np.ndarray]]:
        """Each list, and the deviations of its episodes in this number."""
        found: dict[Hashable, tuple[EpisodeList, np.ndarray]] = {}
        for weight, term in self.terms:
            _, before = found.get(term.list.key, (None, 0.0))
            found[term.list.key] = term.list, before + weight * term.deviations
        return found

    @property
    def episodes(self) -> int:
        """Of all its lists."""
        return sum(len(list_.episode) for list_, _ in self._lists.values())

    @cached_property
    def by_source(self) -> dict[int, float]:
        """The number by seed of the source training; empty where it depends on none."""
        seeds = sorted({term.source for _, term in self.terms if term.source is not None})
        values = dict.fromkeys(seeds, 0.0)
        for seed in seeds:
            for weight, term in self.terms:
                if term.source is None:
                    values[seed] += weight * term.value
                elif term.source == seed:
                    values[seed] += weight * len(seeds) * term.value
        return values

    def reason_for(self, reading: str) -> str:
        """Why there is no interval of one of READINGS, in words; "" where there is one."""
        if np.isnan(self.value):
            return "it is not known"
        if self.episodes < LEAST_EPISODES:
            return f"{self.episodes} episodes are fewer than {LEAST_EPISODES}"
        if any((list_.size == 1).any() for list_, _ in self._lists.values()):
            return "a class has a single episode"
        if reading == "training" and len(self.by_source) < 2:
            return "there is one source training"
        if reading == "pictures":
            counts = {}
            for list_, _ in self._lists.values():
                counts.setdefault(list_.domain, set()).update(list_.pictures.ravel())
            domain, pictures = min(counts.items(), key=lambda item: len(item[1]))
            if len(pictures) < LEAST_PICTURES:
                return f"{len(pictures)} pictures of {domain} are fewer than {LEAST_PICTURES}"
        return ""

    @cached_property
    def reason(self) -> str:
        """Why `interval` is not known."""
        readings = {self.stated.get(list_.domain, "lists") for list_, _ in self._lists.values()} or {
            "lists"
        }
        return next(filter(None, map(self.reason_for, sorted(readings))), "")

    def spread_for(self, reading: str | None = None) -> tuple[float, float]:
        """Standard error, and its degrees of freedom (Satterthwaite), of a reading or as `stated`."""
        sums: dict[str, list] = {}
        for list_, deviations in self._lists.values():
            sums.setdefault(list_.domain, []).append((list_, deviations))
        parts = []
        for domain, of_domain in sums.items():
            about = reading or self.stated.get(domain, "lists")
            if about == "pictures":
                parts.append(_of_pictures(of_domain))
            else:
                parts += [part for list_, deviations in of_domain for part in _of_strata(list_, deviations)]
        if reading == "training" and len(self.by_source) > 1:
            seeds = np.array(list(self.by_source.values()))
            parts.append((seeds.var(ddof=1) / len(seeds), len(seeds) - 1))
        return _combined(parts)

    def interval_for(self, reading: str | None = None) -> tuple[float, float]:
        """Ends of the 95 % interval of a reading, or as `stated`; nan where there is none."""
        if self.reason if reading is None else self.reason_for(reading):
            return np.nan, np.nan
        error, freedom = self.spread_for(reading)
        low, high = self.limits
        if error <= 1e-9 * max(1.0, abs(self.value)) or not low < self.value < high:
            return self.value, self.value
        half = stats.t.ppf((1 + COVERAGE) / 2, freedom) * error
        if not np.isfinite([low, high]).all():
            return self.value - half, self.value + half
        # On the scale of log odds, which no end of an interval leaves, and on which means are less skewed.
        share = (self.value - low) / (high - low)
        half = half / (high - low) / (share * (1 - share))
        odds = np.log(share / (1 - share)) + np.array([-half, half])
        ends = low + (high - low) / (1 + np.exp(-odds))
        return float(ends[0]), float(ends[1])

    @property
    def interval(self) -> tuple[float, float]:
        """`interval_for` what is stated."""
        return self.interval_for()

    @property
    def p(self) -> float:
        """Two-sided p value of 0, of what `interval` is about; nan where there is none."""
        if self.reason:
            return np.nan
        error, freedom = self.spread_for()
        return float(2 * stats.t.sf(abs(self.value) / error, freedom)) if error else float(self.value == 0)

    def columns(self, name: str) -> dict:
        """What the .csv of a table says of it.

        `name`, the ends of its interval `name_low` and `name_high`, and `name_why`, why there is none.
        """
        low, high = self.interval
        return {name: self.value, f"{name}_low": low, f"{name}_high": high, f"{name}_why": self.reason}

    def readings(self, name: str) -> dict[str, float]:
        """Ends of the intervals of all READINGS: `name_lists_low` and so on."""
        found = {reading: self.interval_for(reading) for reading in READINGS}
        return {
            f"{name}_{reading}_{end}": value
            for reading, ends in found.items()
            for end, value in zip(("low", "high"), ends)
        }


class Difference(Estimate):
    """`mine` - `other`, paired: of the same episodes, and source trainings where both have some.

    Raises:
        CdfssError: when they are not of the same lists.
    """

    def __init__(self, mine: Estimate, other: Estimate):
        if not (mine.terms and other.terms):
            mine = other = UNKNOWN
        super().__init__([*mine.terms, *((-w, term) for w, term in other.terms)], stated=mine.stated)
        lists = [sorted({term.list.key for _, term in one.terms}) for one in (mine, other)]
        if lists[0] != lists[1]:
            raise CdfssError(f"difference of numbers of different lists: {lists[0]} and {lists[1]}")
        pairs = [
            (min(w, v), one, another)
            for w, another in mine.terms
            for v, one in other.terms
            if one.list.key == another.list.key
            and (one.source == another.source or None in (one.source, another.source))
        ]
        self._steps: dict[Hashable, np.ndarray] = {}
        self._changed: dict[Hashable, np.ndarray] = {}
        for weight, one, another in pairs:
            key = one.list.key
            self._steps[key] = self._steps.get(key, 0.0) + weight * one.steps_to(another)
            self._changed[key] = self._changed.get(key, False) | (one.parts != another.parts).any(1)
        if self.terms and not self.changed:
            self.value = 0.0  # not what rounding leaves of it, which may have a sign

    @property
    def changed(self) -> int:
        """Episodes that are not the same in both."""
        return int(sum(changed.sum() for changed in self._changed.values()))

    @cached_property
    def effective(self) -> float:
        """Episodes that the difference comes down to: (sum |d|)^2 / sum d^2 of what each brings.

        It is m where m episodes change alike, 1 where one alone does, 0.64 N for N that change by chance.
        """
        steps = np.concatenate(list(self._steps.values())) if self._steps else np.zeros(1)
        squares = (steps**2).sum()
        return float(np.abs(steps).sum() ** 2 / squares) if squares else 0.0

    @cached_property
    def _moves(self) -> dict[Hashable, np.ndarray]:
        moves: dict[Hashable, np.ndarray] = {}
        for weight, term in self.terms:
            moves[term.list.key] = moves.get(term.list.key, 0.0) + weight * term.moves
        return moves

    @cached_property
    def influential(self) -> tuple[str, int, int, int] | None:
        """(domain, shot, seed, episode) of the one without which the difference moves most, if any."""
        best, most = None, 0.0
        for key, moves in self._moves.items():
            moves = np.nan_to_num(np.abs(moves))
            if moves.max() > most:
                best, most = (*key, int(self._lists[key][0].episode[moves.argmax()])), moves.max()
        return best

    @property
    def without(self) -> float:
        """The difference without `influential`."""
        if self.influential is None:
            return self.value
        *key, episode = self.influential
        list_ = self._lists[tuple(key)][0]
        return self.value + float(self._moves[tuple(key)][list_.episode == episode][0])

    def columns(self, name: str) -> dict:
        """As of an estimate; `name_p`; `name_changed` of `name_episodes`; `name_without` the episode
        `name_influential` (domain, shot, seed, episode).
        """
        more = {"p": self.p, "changed": self.changed, "episodes": self.episodes, "without": self.without}
        more["influential"] = " ".join(map(str, self.influential or ()))
        return super().columns(name) | {f"{name}_{key}": value for key, value in more.items()}

    def reason_for(self, reading: str) -> str:
        why = super().reason_for(reading)
        if why:
            return why
        if not self.changed:
            return "no episode changed"
        if self.effective < LEAST_CHANGES:
            return f"it comes down to about {self.effective:.0f} of {self.episodes} episodes"
        return ""


UNKNOWN = Estimate([])


def _of_strata(list_: EpisodeList, deviations: np.ndarray) -> list[tuple[float, int]]:
    """Variance and degrees of freedom of each stratum of a list."""
    squares = np.bincount(list_.stratum, deviations**2)
    return [(v / (n * (n - 1)), n - 1) for v, n in zip(squares, list_.sizes) if n > 1]


def _of_pictures(lists: Sequence[tuple[EpisodeList, np.ndarray]]) -> tuple[float, float]:
    """Variance and degrees of freedom for new pictures of one domain; its lists share pictures.

    Episodes of one picture go up and down together. Summed over the queries' pictures, squares of sums
    hold that; summed over all pictures of an episode, of 1 + k, they hold the supports' too, but count
    an episode's own chance k times too often. Each is too small in some case (the second where every
    support is in most episodes), so the larger is taken, and never less than for new lists. A picture
    that is in many episodes, or large, makes for fewer degrees of freedom.
    """
    numbers, names = pd.factorize(np.concatenate([list_.pictures.ravel() for list_, _ in lists]))
    used = len(names)
    of_queries, of_all, own, extra, classes, begin = np.zeros(used), np.zeros(used), 0.0, 0.0, set(), 0
    for list_, deviations in lists:
        # Squares of these add up to the variance for new lists.
        scaled = deviations / np.sqrt(list_.size * np.maximum(list_.size - 1, 1))
        end = begin + list_.pictures.size
        pictures = numbers[begin:end].reshape(list_.pictures.shape)  # (N, 1 + k), the query first
        of_queries += np.bincount(pictures[:, 0], scaled, used)
        for picture in pictures.T:
            of_all += np.bincount(picture, scaled, used)
        own += (scaled**2).sum()
        # How often an episode's own square is counted there: k + 1 times, more where supports repeat.
        times = (pictures[:, :, None] == pictures[:, None, :]).sum((1, 2))
        extra += ((times - 1) * scaled**2).sum()
        classes |= set(list_.class_id)
        begin = end
    few = used / (used - 1) if used > 1 else np.nan
    squares = of_queries**2
    variance = max((of_all**2).sum() - extra, squares.sum(), own) * few
    heavy = squares.sum() ** 2 / (squares**2).sum() if squares.any() else np.inf
    return float(variance), float(max(min(used - len(classes), heavy), 1))


def _combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error of a sum of independent parts (variance, degrees of freedom), and its own freedom."""
    variances, freedoms = (
        (np.array(column, float) for column in zip(*parts)) if parts else (np.zeros(1),) * 2
    )
    variance = variances.sum()
    used = variances > 0
    if not used.any():
        return 0.0, 1.0
    return float(np.sqrt(variance)), float(variance**2 / (variances[used] ** 2 / freedoms[used]).sum())


def holm(p: Sequence[float]) -> np.ndarray:
    """p values adjusted by Holm (1979): below 0.05 where the difference holds beside all the others.

    Args:
        p: of one family of comparisons; nan, of which there is none, stays nan and does not count.
    """
    p = np.asarray(p, float)
    adjusted = np.full(len(p), np.nan)
    (known,) = np.nonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return adjusted


def in_words(stated: dict[str, str], titles: dict[str, str]) -> str:
    """What intervals are about, where domains have different READINGS by domain.

    Args:
        stated: READINGS by domain.
        titles: of domains.
    """
    domains = {reading: [titles[d] for d in titles if stated[d] == reading] for reading in READINGS}
    domains = {reading: names for reading, names in domains.items() if names}
    return "; ".join(
        READINGS[reading] + (f" ({', '.join(names)})" if len(domains) > 1 else "")
        for reading, names in domains.items()
    )


def mean_and_interval(
    rows: pd.DataFrame, values, stated: dict[str, str] | None = None, positive: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of a measurement over the episodes of one list, and the ends of its 95 % interval.

    Args:
        rows: the N episodes.
        values: (N, n).
        stated: as `miou_estimates`.
        positive: the mean is; its interval is symmetric on a log axis, and never reaches 0.

    Returns:
        Three arrays (n,); the ends are nan where no interval is known (`Estimate.reason`).
    """
    rows, values = rows.reset_index(drop=True), np.asarray(values, np.float64)
    list_ = EpisodeList.of(rows)
    found = [Estimate([(1.0, Measured.mean(list_, None, column))], stated=stated) for column in values.T]
    mean = np.array([one.value for one in found])
    ends = np.array([one.interval for one in found])
    if positive:
        factor = np.exp((ends[:, 1] - mean) / np.maximum(mean, np.finfo(float).tiny))
        return mean, mean / factor, mean * factor
    return mean, ends[:, 0], ends[:, 1]


def one_list(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one (domain, variant, shot, seed) and source training in the list's order.

    Raises:
        CdfssError: when an episode is there twice, which would count it twice.
    """
    twice = rows[rows.duplicated("episode")]
    if len(twice):
        first = twice.iloc[0]
        raise CdfssError(
            f"rows: episode {first.episode} of {first.domain}, {first.variant}, {first.shot}-shot is "
            "there twice; pass the rows of one run only"
        )
    return rows.sort_values("episode")


def same_lists(rows: pd.DataFrame, within: Sequence[str], where: str) -> dict[tuple, pd.DataFrame]:
    """Rows of one list by the columns `within`, each `one_list`.

    Raises:
        CdfssError: when they are of different episodes, so that differences would not be paired; names
            both.
    """
    lists = {name: one_list(part) for name, part in rows.groupby(list(within), sort=False, dropna=False)}
    names = list(lists)
    for name in names[1:]:
        first, other = (
            [[*map(list, part["supports"])], part[["episode", "class_id", "query"]].to_numpy().tolist()]
            for part in (lists[names[0]], lists[name])
        )
        if first != other:
            raise CdfssError(
                f"rows: {names[0][0]} and {name[0]} were evaluated on different episodes of {where}; "
                "evaluate both on one list"
            )
    return lists


def _by_list(rows: pd.DataFrame, within: str):
    """(name, list, source, rows) of every `within` and source training on every list."""
    rows = rows if "source" in rows else rows.assign(source=np.nan)
    for (domain, shot, seed), group in rows.groupby(["domain", "shot", "seed"], sort=False):
        lists = same_lists(group, [within, "source"], f"{domain}, {shot}-shot, seed {seed}")
        list_ = EpisodeList.of(next(iter(lists.values())))
        for (name, source), part in lists.items():
            yield name, list_, None if pd.isna(source) else int(source), part


def _over_sources(terms: dict[tuple, list[Measured]], limits, stated) -> dict[tuple, Estimate]:
    """The mean over source trainings of each."""
    return {
        key: Estimate([(1 / len(found), term) for term in found], limits, stated)
        for key, found in terms.items()
    }


def _percent_iou(list_: EpisodeList, source: int | None, rows: pd.DataFrame) -> Measured:
    intersection, union = results.counts(rows)
    return Measured.ratio(list_, source, intersection[:, 1], union[:, 1]).scaled(100)


def miou_estimates(
    rows: pd.DataFrame, stated: dict[str, str] | None = None, within: str = "variant"
) -> dict[tuple[str, str, int, int], Estimate]:
    """mIoU in percent by (`within`, domain, shot, seed), of several source trainings their mean.

    Args:
        stated: by domain, what intervals are about (READINGS).

    Raises:
        CdfssError: when an episode is there twice, or variants have different episodes.
    """
    terms: dict[tuple, list[Measured]] = {}
    for name, list_, source, part in _by_list(rows, within):
        terms.setdefault((name, *list_.key), []).append(_percent_iou(list_, source, part))
    return _over_sources(terms, (0, 100), stated)


def class_iou_estimates(
    rows: pd.DataFrame, stated: dict[str, str] | None = None
) -> dict[tuple[str, str, int, int, int], Estimate]:
    """Foreground IoU in percent by (variant, domain, shot, seed, class_id), as `miou_estimates`."""
    terms: dict[tuple, list[Measured]] = {}
    for (domain, shot, seed, class_id), of_class in rows.groupby(
        ["domain", "shot", "seed", "class_id"], sort=False
    ):
        for name, list_, source, part in _by_list(of_class, "variant"):
            key = (name, domain, shot, seed, class_id)
            terms.setdefault(key, []).append(_percent_iou(list_, source, part))
    return _over_sources(terms, (0, 100), stated)


def list_miou_estimates(
    rows: pd.DataFrame, stated: dict[str, str] | None = None, within: str = "variant"
) -> dict[tuple[str, str], Estimate]:
    """mIoU in percent by (`within`, domain), as `miou_estimates`, of one list a domain.

    Raises:
        CdfssError: as `miou_estimates`, and when a domain has several lists.
    """
    _must_be_one_list_a_domain(rows)
    found = miou_estimates(rows, stated, within)
    return {(name, domain): estimate for (name, domain, *_), estimate in found.items()}


def _must_be_one_list_a_domain(rows: pd.DataFrame) -> None:
    lists = rows[["domain", "shot", "seed"]].drop_duplicates()
    several = lists[lists.duplicated("domain", keep=False)]
    if len(several):
        named = "; ".join(
            f"{d}, {shot}-shot, seed {seed}" for d, shot, seed in several.itertuples(index=False)
        )
        raise CdfssError(f"measurements of several lists of a domain, expected one: {named}")


def mean_estimates(
    rows: pd.DataFrame, column: str, stated: dict[str, str] | None = None, within: str = "variant"
) -> dict[tuple[str, str], Estimate]:
    """Mean of a measurement by (`within`, domain) over the episodes of one list a domain.

    Raises:
        CdfssError: as `list_miou_estimates`.
    """
    _must_be_one_list_a_domain(rows)
    terms: dict[tuple, list[Measured]] = {}
    for name, list_, source, part in _by_list(rows, within):
        terms.setdefault((name, list_.domain), []).append(Measured.mean(list_, source, part[column]))
    return _over_sources(terms, (-np.inf, np.inf), stated)
