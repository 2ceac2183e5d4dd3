"""mIoU on filtered pictures (paper figure 1)."""

import numpy as np
import pandas as pd

from cdfss.evaluation.measurement import NO_FILTER, filter_name
from cdfss.reports import statistics
from cdfss.reports.figures.style import SMALL, lacking, legend, panels
from cdfss.reports.tables.quoted import published_of

BANDS = ("all", "high", "low")  # the paper's order


def filtering(filtered: pd.DataFrame | None, settings: dict):
    """The source model's mIoU when frequencies of the pictures are removed, 3 x 3 per domain.

    Colour is the paired difference from no filter; a star marks one whose p, adjusted by Holm for all
    that the figure shows, is below `statistics.SIGNIFICANT`.

    Args:
        filtered: rows of `measurement.FILTERED`; None if the run has no model.
        settings: `Shown.table_settings`.
    """
    if filtered is None:
        return lacking("a variant of HSNet")
    cells = filter_name(filtered["amplitude"], filtered["phase"])
    estimates = statistics.list_miou_estimates(filtered.assign(cell=cells), settings["stated"], "cell")
    paper = published_of("Fig. 1", filtered["shot"].iloc[0])
    figure, axes = panels(settings, height=1.75)
    changes = {key: estimate - estimates[NO_FILTER, key[1]] for key, estimate in estimates.items()}
    compared = [key for key in changes if key[0] != NO_FILTER]
    adjusted = statistics.holm([changes[key].p for key in compared])
    stars = {key for key, p in zip(compared, adjusted, strict=True) if p < statistics.SIGNIFICANT}
    limit = max(1.0, *(abs(change.value) for change in changes.values()))
    for axis, domain in zip(axes[0], settings["domains"], strict=True):
        names = [[filter_name(amplitude, phase) for phase in BANDS] for amplitude in BANDS]
        grid = [[changes[name, domain].value for name in line] for line in names]
        image = axis.imshow(grid, cmap="PuOr", vmin=-limit, vmax=limit)
        for y, line in enumerate(names):
            for x, name in enumerate(line):
                text = f"{estimates[name, domain].value:.1f}" + "*" * ((name, domain) in stars)
                if settings["published"] and (name, domain) in paper:
                    text += f"\n({paper[name, domain]:.1f})"
                dark = abs(grid[y][x]) > 0.6 * limit
                axis.text(
                    x, y, text, ha="center", va="center", fontsize=SMALL, color="white" if dark else "black"
                )
        axis.set_xticks(range(3), BANDS)
        axis.set_yticks(range(3), BANDS)
        axis.set_xlabel("phase kept")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    axes[0, 0].set_ylabel("amplitude kept")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label(f"{filtered['shot'].iloc[0]}-shot mIoU − no filter, points")
    if np.isnan(adjusted).all():
        note = "No stars: too few episodes, or that change."
    else:
        note = f"*: p < {statistics.SIGNIFICANT:g}, adjusted by Holm for all {len(compared)} differences."
    legend(figure, [], note)
    return figure
