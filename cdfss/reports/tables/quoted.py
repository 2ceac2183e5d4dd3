"""Printed values, of the paper and of others, which were not computed here."""

from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from cdfss.reports.tables.writing import as_cells

QUOTED = (
    'Values marked "quoted" are printed in papers and were not computed here; they have no intervals, and '
    "their protocols may differ. Their averages are computed here from the printed values. The paper's "
    "stand beside the variants that have its names (config/config.yaml): ResNet-50, 400 px, 60 steps."
)


def published(table: str, metric: str = "mIoU") -> pd.DataFrame:
    """Printed values: method, domain, shot, value, note.

    Args:
        table: of the paper ("1" to "10", "Fig. 1"), or "other papers".
    """
    values = _all()
    values = values[(values["table"] == table) & (values["metric"] == metric)]
    values = values.astype({"shot": int, "value": float})
    return values[["method", "domain", "shot", "value", "note"]].reset_index(drop=True)


@cache
def _all() -> pd.DataFrame:
    with resources.files("cdfss.reports.tables").joinpath("published.csv").open() as file:
        return pd.read_csv(file, dtype={"table": str}, keep_default_na=False)


def published_of(table: str, shot: int, metric: str = "mIoU") -> pd.Series:
    """Printed values for a number of shots, by (method, domain)."""
    values = published(table, metric)
    return values[values["shot"] == shot].set_index(["method", "domain"])["value"]


def quoted_lines(values: pd.DataFrame, settings: dict, shot: int) -> list[list[str]]:
    """A line of quoted mIoU and its average for each method that has a value in one of the domains."""
    lines = []
    for method, group in values[values["shot"] == shot].groupby("method", sort=False):
        by_domain = group.set_index("domain")["value"]
        printed = [by_domain.get(domain, np.nan) for domain in settings["domains"]]
        if np.isnan(printed).all():
            continue
        lines.append([f"quoted: {method}", *as_cells([*printed, np.mean(printed)], ".2f")])
    return lines
