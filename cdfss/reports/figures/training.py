"""The source training (no figure of the paper)."""

import matplotlib.pyplot as plt
import pandas as pd

from cdfss.reports.figures.style import COLOURS, WIDTH


def training_history(history: pd.DataFrame):
    """Loss and mIoU of the source training by epoch; the chosen epoch is marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4), layout="constrained")
    training, validation = COLOURS[:2]
    left.plot(history["epoch"], history["train_loss"], ".-", color=training)
    left.set(xlabel="epoch", ylabel="cross-entropy (source)", title="Source training loss")
    for column, colour, label in (
        ("train_miou", training, "source, training"),
        ("validation_miou", validation, "validation"),
    ):
        right.plot(history["epoch"], 100 * history[column], ".-", color=colour, label=label)
    best = history.loc[history["validation_miou"].idxmax()]
    right.plot(best["epoch"], 100 * best["validation_miou"], "o", color=validation, label="chosen")
    right.set(xlabel="epoch", ylabel="mIoU, %", title="1-shot mIoU")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure
