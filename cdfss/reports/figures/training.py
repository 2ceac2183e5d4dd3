"""The source training (no figure of the paper)."""

import matplotlib.pyplot as plt
import pandas as pd

from cdfss.reports.figures.style import COLOURS, SMALL, WIDTH
from cdfss.running import provenance


def of_files(paths):
    """`training_history` of the files of all source models.

    Raises:
        CdfssError: when a file is damaged.
    """
    tables = [provenance.read_table(path) for path in paths]
    return training_history(
        {provenance.facts(table.schema)["settings"]["seed"]: table.to_pandas() for table in tables}
    )


def training_history(histories: dict[int, pd.DataFrame]):
    """Loss and mIoU of the source training by epoch; the chosen epoch is marked.

    Args:
        histories: by seed, which is written beside the chosen epoch where there are several.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4), layout="constrained")
    training, validation = COLOURS[:2]
    for number, (seed, history) in enumerate(histories.items()):
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
        if len(histories) > 1:
            place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": SMALL}
            right.annotate(f"seed {seed}", chosen, **place)
    left.set(xlabel="epoch", ylabel="cross-entropy (source)", title="Source training loss")
    right.set(xlabel="epoch", ylabel="mIoU, %", title="1-shot mIoU")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure
