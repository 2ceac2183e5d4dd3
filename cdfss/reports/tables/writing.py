"""What every table is: sections of cells, numbers in long form, notes; and its four files."""

import json
import os
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
from cdfss.running.files import file_hash, replacing

RECIPE = "made again from"  # key of a table's .origin.json
AVERAGE = "average"
CHANGED = "episodes changed; without one"
GAINS = (
    "Lines that begin with a minus sign: paired difference on the same episodes, with its interval. "
    f"*: below {statistics.SIGNIFICANT} by a two-sided t test after Holm's correction for all such "
    "differences of the table. Below each: how many episodes are not the same in both, and the difference "
    "without the one episode that moves it most."
)


class Link(str):
    """The text of a cell that leads to an episode's picture on the page of the run.

    Attributes:
        target: `page.anchor_of` the episode.
    """

    target: str

    def __new__(cls, text: str, target: str):
        link = super().__new__(cls, text)
        link.target = target
        return link


def about_intervals(settings: dict) -> str:
    """The note on what the intervals of a table are about."""
    about = statistics.in_words(settings["stated"], settings["domains"])
    trainings = len(settings["sources"])
    of_training = (
        f"the source training, of which there are {trainings} (lines and columns of their own)"
        if trainings > 1
        else "the source training, of which there is one"
    )
    shared = "pictures" in settings["stated"].values()
    together = "; for new pictures, episodes that share one are taken together" if shared else ""
    return (
        "In brackets: 95 % interval, from leaving out one episode at a time within each class (classes of "
        f"a single episode together{together}) and Student's t. It is about {about}. Not in it: the "
        f"chance of {of_training}, of modules' first weights, of the order of a list that is tuned "
        "through. "
        "A number without brackets has no interval that would hold: of fewer than "
        f"{statistics.LEAST_EPISODES} episodes, or a difference that comes down to fewer than "
        f"{statistics.LEAST_CHANGES}; columns *_why of the .csv say which, and others there have the "
        "intervals of other readings."
    )


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
        number: of `catalogue.TABLES`.
        title: of the run, then of the table.
        numbers: what the .csv file holds, unrounded.
        notes: what must be known to read it; what the run lacks.
        origin: `provenance.summary` of the files that it was made from.
        recipe: what `of_files` made it from, so that it can be made again: settings, and files by kind.
    """

    number: int
    title: str
    numbers: pd.DataFrame
    sections: list[Section]
    notes: list[str]
    origin: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)


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
        found = {"table": table.number, **table.origin}
        if table.recipe:
            found[RECIPE] = _recorded(table.recipe, Path(paths["origin"]).parent)
        temporary.write_text(json.dumps(found, indent=1) + "\n")


def _recorded(recipe: dict, folder: Path) -> dict:
    """A recipe as it is written: of each file the sha256 by its path from the table's folder."""

    def hashes(paths):
        return {Path(os.path.relpath(path, folder)).as_posix(): file_hash(path) for path in paths}

    return {key: value if key == "settings" else hashes(value) for key, value in recipe.items()}


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
    """A number and its interval as text, from `Estimate.columns`; nothing for a missing one.

    A star where `adjust` found it to differ from 0.
    """
    if np.isnan(cell[name]):
        return ""
    star = "*" if cell.get(f"{name}_p_holm", np.nan) < statistics.SIGNIFICANT else ""
    if np.isnan(cell[f"{name}_low"]):
        return format(cell[name], form)
    low, high = (format(cell[f"{name}_{end}"], form) for end in ("low", "high"))
    return f"{format(cell[name], form)} [{low}, {high}]{star}"


def says_it_twice(line: dict, settings: dict) -> bool:
    """Whether a line is of the only domain, of which the average says the same."""
    return len(settings["domains"]) == 1 and line["domain"] != AVERAGE


def adjust(lines: list[dict], names: Iterable[str], apart=lambda line: False) -> None:
    """Give lines `name_p_holm` for the `Difference.columns` of these names, one family of comparisons.

    Args:
        apart: whether a line's differences are not of the family, as the primary comparison is not, nor
            what `says_it_twice`.
    """
    cells = [(line, name) for name in names for line in lines if f"{name}_p" in line and not apart(line)]
    for (line, name), p in zip(cells, statistics.holm([line[f"{name}_p"] for line, name in cells])):
        line[f"{name}_p_holm"] = p


def changes(cell, name: str, form: str, settings: dict) -> str:
    """How many episodes a difference is of, and what it is without one; leads to that one's picture."""
    if np.isnan(cell[name]):
        return ""
    text = " of ".join(f"{cell[f'{name}_{key}']:.0f}" for key in ("changed", "episodes"))
    if not cell[f"{name}_influential"]:
        return text
    if not np.isnan(cell[f"{name}_without"]):
        text += f"; {format(cell[f'{name}_without'], form)}"
    domain, shot, seed, episode = cell[f"{name}_influential"].split()
    shown = cell.get("variant") in settings["pictured"] and int(seed) == settings["seeds"][0]
    return Link(text, page.anchor_of(domain, int(shot), int(episode))) if shown else text
