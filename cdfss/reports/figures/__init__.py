"""The figures, one function each (no torch).

Each takes tables of numbers (rows, measurements, the training history) and, where it shows variants,
`Shown.table_settings`, and returns a matplotlib figure; those with pictures read them by an
index. `style.save` writes SVG and PNG. What a run lacks is written into its figure.
"""

from cdfss.evaluation import measurement, results
from cdfss.reports.figures import features, filtering, rows


def of_files(name: str, row_files, feature_files, filtered_files, indexes, cost_files, settings: dict):
    """The figure of a name in `catalogue.FIGURES` from files; those that it does not need are not read.

    Raises:
        CdfssError: when a file is damaged.
    """
    if name == "filtering":
        return filtering.filtering(measurement.load(filtered_files), settings)
    if name == "heat_maps":
        return features.heat_maps(measurement.load(feature_files), indexes, settings)
    if name == "iou_by_seconds":
        return rows.iou_by_seconds(results.with_cost(results.load(row_files), cost_files), settings)
    if hasattr(rows, name):
        return getattr(rows, name)(results.load_listed(row_files), settings)
    return getattr(features, name)(measurement.load(feature_files), settings)
