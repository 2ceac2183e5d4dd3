"""What every table is: sections of cells, numbers in long form, notes; and its four files."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from cdfss.reports import page, statistics
from cdfss.reports.catalogue import TABLES
from cdfss.running import provenance
from cdfss.running.files import replacing

AVERAGE = "average"
INTERVALS = (
    f"In brackets: 95 % bootstrap interval over episodes, drawn again {statistics.RESAMPLES:,} times "
    "within each class (classes of a single episode from each other). It is about other lists of this size "
    "from these pictures; the chance of source training, of which there is one model, is not in it."
)
GAINS = "Lines that begin with a minus sign: paired difference on the same episodes, with its interval."


@dataclass
class Section:
    """Part of a table: cells as text, the first of each line its heading.

    Attributes:
        roles: of each line: "row"; "detail" of the row above; "quoted"; "total".
    """

    heading: str
    columns: list[str]
    lines: list[list[str]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)

    def add(self, line: list[str], role: str = "row") -> None:
        self.lines.append(line)
        self.roles.append(role)


@dataclass
class Table:
    """A table for people, and its numbers in long form.

    Attributes:
        number: 1 to 6.
        title: of the run, then of the table.
        numbers: what the .csv file holds, unrounded.
        notes: what must be known to read it; what the run lacks.
        origin: `provenance.summary` of the files that it was made from.
    """

    number: int
    title: str
    numbers: pd.DataFrame
    sections: list[Section]
    notes: list[str]
    origin: dict = field(default_factory=dict)


def write(table: Table, paths: dict[str, str | Path]) -> None:
    """Write a table as Markdown, CSV (long form), LaTeX (booktabs) and a page that sorts; and its origin.

    Args:
        paths: by "md", "csv", "tex", "html" and "origin" (JSON, since a CSV file has no place for it).
    """
    markdown = [f"# {_markdown(table.title)}", ""]
    latex = ["% needs \\usepackage{booktabs}"]
    for section in table.sections:
        align = ["left"] + ["right"] * (len(section.columns) - 1)
        if section.heading:
            markdown += [f"## {_markdown(section.heading)}", ""]
        columns = [_markdown(text) for text in section.columns]
        lines = [[_markdown(text) for text in line] for line in section.lines]
        markdown += [tabulate(lines, columns, "pipe", disable_numparse=True, colalign=align), ""]
        caption = f"{table.title}. {section.heading}" if section.heading else table.title
        body = tabulate(
            section.lines, section.columns, "latex_booktabs", disable_numparse=True, colalign=align
        )
        for sign, command in LATEX_SIGNS.items():
            body = body.replace(sign, command)
        latex += ["\\begin{table}", "\\centering", f"\\caption{{{_latex(caption)}}}", body, "\\end{table}"]
    notes = [*table.notes, provenance.in_words(table.origin)] if table.origin else table.notes
    markdown += [f"- {_markdown(note)}" for note in notes]
    latex += [f"% {' '.join(note.split())}" for note in notes]
    with replacing(paths["md"]) as temporary:
        temporary.write_text("\n".join(markdown) + "\n")
    with replacing(paths["tex"]) as temporary:
        temporary.write_text("\n".join(latex) + "\n")
    with replacing(paths["html"]) as temporary:
        temporary.write_text(page.of_table(table))
    with replacing(paths["csv"]) as temporary:
        numbers = table.numbers if len(table.numbers) else pd.DataFrame(columns=["variant", "domain"])
        numbers.to_csv(temporary, index=False)
    with replacing(paths["origin"]) as temporary:
        temporary.write_text(json.dumps({"table": table.number, **table.origin}, indent=1) + "\n")


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*<`])", r"\\\1", text)


# What tabulate leaves, and LaTeX does not know or prints as another sign.
LATEX_SIGNS = {"−": "$-$", "×": "$\\times$", "|": "\\textbar{}"}


def _latex(text: str) -> str:
    """Text in a caption."""
    special = {sign: f"\\{sign}" for sign in "%&_#${}"}
    special |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    special |= {"<": "\\textless{}", ">": "\\textgreater{}"}
    special |= LATEX_SIGNS
    return "".join(special.get(sign, sign) for sign in " ".join(text.split()))


def title_of(number: int, settings: dict) -> str:
    """The run's title first, so that a demo is seen to be one."""
    title = f"Table {number}. {TABLES[number].heading}"
    return f"{settings['title']}: {title}" if settings["title"] else title


def as_cells(values: Iterable[float], form: str) -> list[str]:
    """Numbers as text, nothing for a missing one."""
    return ["" if np.isnan(value) else format(value, form) for value in values]


def columns_of(settings: dict) -> dict[str, list[str]]:
    """The domains of each column: one each, then all for the average."""
    domains = list(settings["domains"])
    return {**{domain: [domain] for domain in domains}, AVERAGE: domains}


def with_interval(cell, name: str, form: str = ".2f") -> str:
    """A number and its interval as text, from `Estimate.columns`; nothing for a missing one."""
    if np.isnan(cell[name]):
        return ""
    if np.isnan(cell[f"{name}_low"]):  # of a single episode
        return format(cell[name], form)
    low, high = (format(cell[f"{name}_{end}"], form) for end in ("low", "high"))
    return f"{format(cell[name], form)} [{low}, {high}]"
