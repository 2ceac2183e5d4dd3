"""The tables, from evaluation rows and measurements alone (no torch, no pictures)."""

from cdfss import measurement, results
from cdfss.tables.cost import cost_table
from cdfss.tables.features import information_table, similarity_table
from cdfss.tables.miou import alternatives_table, insertion_table, main_table
from cdfss.tables.writing import Section, Table, write

__all__ = [
    "Section",
    "Table",
    "alternatives_table",
    "cost_table",
    "information_table",
    "insertion_table",
    "main_table",
    "of_files",
    "similarity_table",
    "write",
]


def of_files(number: int, rows, features, filtered, settings: dict) -> Table:
    """Table 1 to 6 from files; of those that it does not need the list is empty."""
    if number == 3:
        return information_table(measurement.load(filtered), measurement.load(features), settings)
    if number == 4:
        return similarity_table(measurement.load(features), settings)
    of_rows = {1: main_table, 2: insertion_table, 5: alternatives_table, 6: cost_table}
    return of_rows[number](results.load_listed(rows), settings)
