"""How often the intervals of `cdfss.reports.statistics` hold the truth, by simulation; a few minutes.

Episodes are drawn from populations that look like real ones: classes of different difficulty and size, IoU
that reaches both ends of 0..1 within a class, large objects easier, so that sums are skewed. The truth is
the mean over many lists of the same size. Prints Markdown tables, those of docs/explanation/statistics.md.
"""

import sys
from collections.abc import Iterator

import numpy as np

from cdfss.reports.statistics import EpisodeList, Estimate, Measured

LISTS = {
    "1 x 600": [600],
    "3 x 200": [200] * 3,
    "6 x 100": [100] * 6,
    "240 x 10": [10] * 240,
    "1 x 60": [60],
    "3 x 20": [20] * 3,
    "6 x 10": [10] * 6,
    "60 x 2": [2] * 60,
    "1 x 30": [30],
    "3 x 10": [10] * 3,
    "6 x 5": [5] * 6,
    "1 x 20": [20],
    "10 x 2": [2] * 10,
    "1 x 10": [10],
    "4, 3, 3": [4, 3, 3],
    "3 x 2": [2] * 3,
}
# (pictures, episodes, shots) of lists that share pictures.
SHARED = ((60, 600, 1), (60, 600, 5), (60, 60, 1), (60, 60, 5), (20, 60, 1), (20, 600, 5))
SPARSE = 0.03  # of the episodes change in a sparse difference
# Spread of IoU within a class (concentration of a beta distribution) and of the logarithm of sizes.
POPULATIONS = ((2.0, 0.5), (2.0, 1.0), (6.0, 0.7))
QUERY_EFFECT, NOISE = 1.0, 0.5  # log odds of IoU: standard deviation of pictures, of episodes


def unshared(sizes: list[int]) -> EpisodeList:
    """A list of classes of these sizes, each picture in it once."""
    number = sum(sizes)
    pictures = np.arange(2 * number).reshape(number, 2)
    return EpisodeList(("x", 1, 0), np.arange(number), np.repeat(np.arange(len(sizes)), sizes), pictures)


class Population:
    """Classes to draw lists from: intersections and unions (N,) of three variants on the same episodes.

    The second differs from the first a little in every episode, the third much in few.
    """

    def __init__(self, classes: int, spread: tuple[float, float], generator: np.random.Generator):
        self.generator, (self.concentration, self.sizes) = generator, spread
        self.difficulty = generator.beta(2, 2, classes) * 0.6 + 0.2
        self.scale = np.exp(generator.normal(0, 0.7, classes))

    def draw(self, list_: EpisodeList) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        generator, number = self.generator, len(list_.class_id)
        middle = self.difficulty[list_.class_id]
        iou = generator.beta(middle * self.concentration, (1 - middle) * self.concentration)
        size = self.scale[list_.class_id] * np.exp(generator.normal(0, self.sizes, number))
        size *= 0.5 + iou
        smooth = iou + generator.normal(0.03, 0.08, number) * 2 * np.sqrt(iou * (1 - iou))
        few = np.where(generator.random(number) < SPARSE, generator.random(number), iou)
        for values in (iou, smooth, few):
            values = np.clip(values, 0, 1)
            union = 1000 * size * (1 + 0.7 * (1 - values))
            yield values * union, union


def numbers_of(list_: EpisodeList, drawn) -> dict[str, Estimate]:
    """mIoU, and its smooth and sparse difference, in percent."""
    estimates = [
        Estimate([(1.0, Measured.ratio(list_, None, *one).scaled(100))], (0, 100)) for one in drawn
    ]
    first, smooth, sparse = estimates
    return {"mIoU": first, "smooth difference": smooth - first, "sparse difference": sparse - first}


def coverage(sizes: list[int], lists: int, truths: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Share of `lists` lists whose interval holds the truth, and share that have one, by number.

    Args:
        truths: lists that the truth is the mean of, of each population.
    """
    generator = np.random.default_rng(seed)
    list_ = unshared(sizes)
    held: dict[str, list[bool]] = {}
    asked = 0
    for spread in POPULATIONS:
        for _ in range(4):  # sets of classes
            population = Population(len(sizes), spread, generator)
            truth = _truth(population, list_, truths)
            for _ in range(lists // (4 * len(POPULATIONS))):
                asked += 1
                for name, estimate in numbers_of(list_, population.draw(list_)).items():
                    low, high = estimate.interval
                    found = held.setdefault(name, [])
                    if not np.isnan(low):
                        found.append(low <= truth[name] <= high)
    return {name: (np.mean(h) if h else np.nan, len(h) / asked) for name, h in held.items()}


def _truth(population: Population, list_: EpisodeList, lists: int) -> dict[str, float]:
    values = []
    for _ in range(lists):
        first, smooth, sparse = (Measured.ratio(list_, None, *one).value for one in population.draw(list_))
        values.append((first, smooth - first, sparse - first))
    names = ("mIoU", "smooth difference", "sparse difference")
    return dict(zip(names, 100 * np.mean(values, 0)))


def of_new_pictures(pictures: int, episodes: int, shot: int, lists: int, seed: int = 0) -> dict[str, float]:
    """Share of intervals of both readings that hold the truth about new pictures, of one class.

    IoU depends on the query's picture, less on those of the supports, and on chance.
    """
    generator = np.random.default_rng(seed)
    held: dict[str, list] = {}
    drawn, readings = [], ("lists", "pictures")
    for _ in range(lists):
        numbers = np.array([generator.choice(pictures, shot + 1, replace=False) for _ in range(episodes)])
        list_ = EpisodeList(("x", shot, 0), np.arange(episodes), np.zeros(episodes, int), numbers)
        query, supports = numbers[:, 0], numbers[:, 1:]
        size = 1000 * np.exp(generator.normal(0, 0.7, pictures))[query]
        odds, estimates = 0.5, []
        for share in (1.0, 0.3):  # of the second variant only what is not the same
            effect = generator.normal(0, share * QUERY_EFFECT, pictures)[query]
            effect += generator.normal(0, share * 0.5 * QUERY_EFFECT, pictures)[supports].mean(1)
            odds = odds + effect + generator.normal(0, share * NOISE, episodes)
            iou = 1 / (1 + np.exp(-odds))
            union = size * (1 + 0.7 * (1 - iou))
            term = Measured.ratio(list_, None, iou * union, union).scaled(100)
            estimates.append(Estimate([(1.0, term)], (0, 100)))
        first, second = estimates
        drawn.append({"mIoU": first, "difference": second - first})
    truth = {name: np.mean([one[name].value for one in drawn]) for name in drawn[0]}
    for one in drawn:
        for name, estimate in one.items():
            for reading in readings:
                low, high = estimate.interval_for(reading)
                held.setdefault(f"{name}, {reading}", []).append(low <= truth[name] <= high)
    return {name: np.mean(found) for name, found in held.items()}


def _cell(held: float, given: float) -> str:
    if not given:
        return "none"
    return f"{100 * held:.1f}" + ("" if given > 0.995 else f" ({100 * given:.0f})")


def main() -> None:
    lists = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    print("| classes x episodes | mIoU | smooth difference | sparse difference |\n|-|-|-|-|", flush=True)
    for name, sizes in LISTS.items():
        found = coverage(sizes, lists, max(400, 120_000 // sum(sizes)))
        print(f"| {name} | {' | '.join(_cell(*pair) for pair in found.values())} |", flush=True)
    heads = ["pictures, episodes, shots", "mIoU", "difference", "mIoU as for new lists", "difference"]
    print(f"\n| {' | '.join(heads)} |\n{'|-' * len(heads)}|")
    for pictures, episodes, shot in SHARED:
        found = of_new_pictures(pictures, episodes, shot, lists)
        order = ("mIoU, pictures", "difference, pictures", "mIoU, lists", "difference, lists")
        cells = " | ".join(f"{100 * found[name]:.1f}" for name in order)
        print(f"| {pictures}, {episodes}, {shot} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
