"""The tables, from evaluation rows and measurements alone (no torch, no pictures)."""

from dataclasses import replace
from functools import partial

from cdfss.evaluation import measurement, results
from cdfss.reports.tables.cost import cost_table
from cdfss.reports.tables.features import information_table, similarity_table
from cdfss.reports.tables.miou import (
    alternatives_table,
    insertion_table,
    main_table,
    rivals_table,
    transformer_table,
)
from cdfss.reports.tables.writing import Section, Table, write
from cdfss.running import provenance

__all__ = [
    "Section",
    "Table",
    "alternatives_table",
    "cost_table",
    "information_table",
    "insertion_table",
    "main_table",
    "of_files",
    "rivals_table",
    "similarity_table",
    "transformer_table",
    "write",
]


def of_files(number: int, rows, features, filtered, cost, settings: dict) -> Table:
    """A table of the catalogue from files; of those that it does not need the list is empty.

    Raises:
        CdfssError: when a file is damaged, or they do not belong together (`provenance.must_agree`).
    """
    files = {"rows": rows, "features": features, "filtered": filtered, "cost": cost}
    origin = provenance.summary([*rows, *features, *filtered, *cost])
    if number == 3:
        table = information_table(measurement.load(filtered), measurement.load(features), settings)
    elif number == 4:
        table = similarity_table(measurement.load(features), settings)
    elif number == 6:
        table = cost_table(results.with_cost(results.load(rows), cost), settings)
    else:
        of_rows = {1: main_table, 2: insertion_table, 5: alternatives_table, 7: transformer_table}
        make = of_rows.get(number) or partial(rivals_table, number)
        table = make(results.load_listed(rows), settings)
    return replace(table, origin=origin, recipe={"settings": settings, **files})
