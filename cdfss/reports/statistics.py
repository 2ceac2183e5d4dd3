"""Bootstrap intervals over episodes, paired differences, spread over seeds (no torch).

Episodes are drawn again, RESAMPLES times. The draws depend on domain and queries alone. Variants
are evaluated on the same list, so a draw takes the same episodes of every variant, and the interval
of a difference is a paired one.
"""

import zlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from cdfss.data import metrics
from cdfss.errors import CdfssError
from cdfss.evaluation import results

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles


def draws(class_id, *key) -> np.ndarray:
    """Weight of each of N episodes in each of RESAMPLES resamples: (RESAMPLES, N) float64.

    Of a class of n episodes n - 1 are drawn, and their weights add up to n: with n draws intervals
    would be too narrow by the square root of (n - 1) / n, which is much for small classes (Rao and
    Wu 1988, resampling inference with complex survey data). Classes of a single episode are drawn
    from each other in the same way, the only such class together with the smallest other one. A
    list of one episode gives nan: nothing is known of its chance.

    Args:
        class_id: (N,).
        key: numbers and strings that say which list it is; the same key, the same draws.
    """
    class_id = np.asarray(class_id)
    seeds = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in key]
    generator = np.random.default_rng([0, *seeds])
    _, place, sizes = np.unique(class_id, return_inverse=True, return_counts=True)
    single = sizes == 1
    if single.sum() == 1 and len(sizes) > 1:
        single[np.where(single, len(class_id), sizes).argmin()] = True
    stratum = np.where(single[place], -1, place)
    weights = np.full((RESAMPLES, len(class_id)), np.nan if len(class_id) == 1 else 1.0)
    for one in np.unique(stratum):
        (members,) = np.nonzero(stratum == one)
        size = len(members)
        if size > 1:
            drawn = generator.multinomial(size - 1, np.full(size, 1 / size), RESAMPLES)
            weights[:, members] = drawn * (size / (size - 1))
    return weights


def draws_of(rows: pd.DataFrame) -> np.ndarray:
    """`draws` of a list of episodes: the same for every variant, and for lists of the same queries."""
    return draws(rows["class_id"], rows["domain"].iloc[0], "\n".join(rows["query"]))


def resampled_miou(intersection, union, class_id, weights) -> np.ndarray:
    """mIoU in 0..1 of every resample, (RESAMPLES,): mean over classes of IoU from weighted sums.

    Args:
        intersection, union: of the foreground, (N,), pixels.
        weights: `draws` of these episodes. A class whose only episode has the weight 2 counts twice.
    """
    class_id = np.asarray(class_id)
    both = np.stack([intersection, union], 1).astype(np.float64)
    total, drawn = 0.0, 0.0
    for one in np.unique(class_id):
        (members,) = np.nonzero(class_id == one)
        sums = weights[:, members] @ both[members]
        counts = weights[:, members].mean(1)  # 1 for a class of several episodes
        total = total + counts * sums[:, 0] / np.maximum(sums[:, 1], 1)
        drawn = drawn + counts
    return total / drawn


def resampled_mean(values, weights) -> np.ndarray:
    """Mean of a measurement over the episodes of every resample: (N,) or (N, n) -> (RESAMPLES[, n])."""
    return weights @ np.asarray(values, np.float64) / weights.shape[1]


def interval(value, replicates: np.ndarray) -> np.ndarray:
    """Ends of a 95 % interval: percentiles of the replicates, shifted to have the value as mean.

    IoU is a ratio of sums, and of a class of ten episodes it changes a little, on average, when
    they are drawn again. Over 240 classes such shifts do not cancel as chance does, so that bare
    percentiles could leave out the value itself. The interval is thus about lists of this size.

    Args:
        value: a number, or (n,).
        replicates: (RESAMPLES,), or (RESAMPLES, n).

    Returns:
        (2,), or (2, n).
    """
    return np.percentile(replicates, INTERVAL, axis=0) - replicates.mean(axis=0) + value


class Estimate:
    """A number and its bootstrap replicates, the same number of every resample.

    Differences and means of estimates go replicate by replicate, so they are paired.

    Attributes:
        value: float.
        replicates: (RESAMPLES,).
        limits: what the number can be at all; ends of its interval are within.
    """

    def __init__(self, value: float, replicates: np.ndarray, limits=(-np.inf, np.inf)):
        self.value, self.replicates, self.limits = float(value), replicates, limits

    @property
    def interval(self) -> tuple[float, float]:
        """`interval` of the number, within its limits."""
        low, high = np.clip(interval(self.value, self.replicates), *self.limits)
        return float(low), float(high)

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.replicates - other.replicates)

    @classmethod
    def mean(cls, estimates: Iterable["Estimate"]) -> "Estimate":
        estimates = list(estimates)
        values = [estimate.value for estimate in estimates]
        replicates = np.mean([estimate.replicates for estimate in estimates], axis=0)
        return cls(np.mean(values), replicates, estimates[0].limits)

    def columns(self, name: str) -> dict[str, float]:
        """`name`, `name_low` and `name_high`: the value and its 95 % interval."""
        low, high = self.interval
        return {name: self.value, f"{name}_low": low, f"{name}_high": high}


UNKNOWN = Estimate(np.nan, np.full(RESAMPLES, np.nan))


def mean_and_interval(rows: pd.DataFrame, values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of a measurement over the episodes of one list, and the ends of its 95 % interval.

    Args:
        rows: the N episodes (class_id, domain, query).
        values: (N, n).

    Returns:
        Three arrays (n,).
    """
    mean = np.mean(values, axis=0)
    return mean, *interval(mean, resampled_mean(values, draws_of(rows)))


def one_list(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one (domain, variant, shot, seed) in the list's order.

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


def same_lists(rows: pd.DataFrame, within: str, where: str) -> dict[str, pd.DataFrame]:
    """Rows of one list by the column `within`, each `one_list`.

    Raises:
        CdfssError: when they are of different episodes, so that differences would not be paired; names
            both.
    """
    lists = {name: one_list(part) for name, part in rows.groupby(within, sort=False)}
    names = list(lists)
    for name in names[1:]:
        first, other = (
            [[*map(list, part["supports"])], part[["episode", "class_id", "query"]].to_numpy().tolist()]
            for part in (lists[names[0]], lists[name])
        )
        if first != other:
            raise CdfssError(
                f"rows: {names[0]} and {name} were evaluated on different episodes of {where}; "
                "evaluate both on one list"
            )
    return lists


def miou_estimates(rows: pd.DataFrame) -> dict[tuple[str, str, int, int], Estimate]:
    """mIoU in percent by (variant, domain, shot, seed).

    Raises:
        CdfssError: when an episode is there twice, or variants have different episodes.
    """
    estimates = {}
    for (domain, shot, seed), group in rows.groupby(["domain", "shot", "seed"], sort=False):
        lists = same_lists(group, "variant", f"{domain}, {shot}-shot, seed {seed}")
        first = next(iter(lists.values()))
        class_id, weights = first["class_id"].to_numpy(), draws_of(first)
        for variant, part in lists.items():
            intersection, union = results.counts(part)
            value = metrics.mean_iou(intersection, union, class_id)
            resampled = resampled_miou(intersection[:, 1], union[:, 1], class_id, weights)
            estimates[variant, domain, shot, seed] = Estimate(100 * value, 100 * resampled, (0, 100))
    return estimates


def list_miou_estimates(rows: pd.DataFrame, within: str = "variant") -> dict[tuple[str, str], Estimate]:
    """mIoU in percent by (`within`, domain), as `miou_estimates`, of one list a domain.

    Raises:
        CdfssError: as `miou_estimates`, and when a domain has several lists.
    """
    _must_be_one_list_a_domain(rows)
    estimates = miou_estimates(rows.assign(variant=rows[within]))
    return {(name, domain): estimate for (name, domain, _, _), estimate in estimates.items()}


def _must_be_one_list_a_domain(rows: pd.DataFrame) -> None:
    lists = rows[["domain", "shot", "seed"]].drop_duplicates()
    several = lists[lists.duplicated("domain", keep=False)]
    if len(several):
        named = "; ".join(
            f"{d}, {shot}-shot, seed {seed}" for d, shot, seed in several.itertuples(index=False)
        )
        raise CdfssError(f"measurements of several lists of a domain, expected one: {named}")


def mean_estimates(
    rows: pd.DataFrame, column: str, within: str = "variant"
) -> dict[tuple[str, str], Estimate]:
    """Mean of a measurement by (`within`, domain) over the episodes of one list a domain.

    Raises:
        CdfssError: as `list_miou_estimates`.
    """
    _must_be_one_list_a_domain(rows)
    estimates = {}
    for domain, group in rows.groupby("domain", sort=False):
        lists = same_lists(group, within, domain)
        weights = draws_of(next(iter(lists.values())))
        for name, part in lists.items():
            estimates[name, domain] = Estimate(part[column].mean(), resampled_mean(part[column], weights))
    return estimates
