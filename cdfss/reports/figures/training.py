"""The source training (no figure of the paper)."""

import matplotlib.pyplot as plt
import pandas as pd

from cdfss.methods import hosts
from cdfss.reports.figures.style import COLOURS, SMALL, WIDTH
from cdfss.running import provenance


def of_files(paths):
    """`training_history` of the files of all source models.

    Raises:
        CdfssError: when a file is damaged.
    """
    histories: dict[str, dict[int, pd.DataFrame]] = {}
    for path in paths:
        table = provenance.read_table(path)
        settings = provenance.facts(table.schema)["settings"]
        histories.setdefault(hosts.of(settings).title, {})[settings["seed"]] = table.to_pandas()
    return training_history(histories)


def training_history(histories: dict[str, dict[int, pd.DataFrame]]):
    """Loss and mIoU of the source trainings by epoch, a row for each host; chosen epochs are marked.

    Args:
        histories: by host and seed, which is written beside the chosen epoch where there are several.
    """
    rows = len(histories)
    figure, axes = plt.subplots(rows, 2, figsize=(WIDTH, 2.4 * rows), layout="constrained", squeeze=False)
    for (left, right), (host, by_seed) in zip(axes, histories.items(), strict=True):
        _of_host(left, right, by_seed)
        left.set(xlabel="epoch", ylabel="loss (source)", title=f"{host}: source training loss")
        right.set(xlabel="epoch", ylabel="mIoU, %", title="1-shot mIoU")
        right.legend(frameon=False)
        for axis in (left, right):
            axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _of_host(left, right, by_seed: dict[int, pd.DataFrame]) -> None:
    training, validation = COLOURS[:2]
    for number, (seed, history) in enumerate(by_seed.items()):
        left.plot(history["epoch"], history["train_loss"], ".-", color=training)
        for column, colour, label in (
            ("train_miou", training, "source, training"),
            ("validation_miou", validation, "validation"),
        ):
            label = None if number else label
            right.plot(history["epoch"], 100 * history[column], ".-", color=colour, label=label)
        best = history.loc[history["validation_miou"].idxmax()]
        chosen = (best["epoch"], 100 * best["validation_miou"])
        right.plot(*chosen, "o", color=validation, label=None if number else "chosen")
        if len(by_seed) > 1:
            place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": SMALL}
            right.annotate(f"seed {seed}", chosen, **place)
