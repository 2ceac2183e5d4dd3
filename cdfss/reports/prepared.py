"""What a run's data holds beside what is published of it, and why they differ as far as that is known."""

from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from cdfss.data import index

# Units in the order of the columns, and how they are headed.
UNITS = {"raw": "raw files", "pictures": "pictures", "entries": "entries"}


@cache
def published() -> dict[str, list[dict]]:
    """Published counts by raw format: what, source, numbers by unit (UNITS), and split if it is of one."""
    return yaml.safe_load(resources.files("cdfss.data").joinpath("published.yaml").read_text("utf-8"))


def as_markdown() -> str:
    """The table of published counts in docs/explanation/data.md."""
    lines = [f"| format | split | {' | '.join(UNITS.values())} | what | source |", "|-|-|-|-|-|-|-|"]
    for name, counts in published().items():
        for count in counts:
            numbers = (f"{count[unit]:,}" if unit in count else "" for unit in UNITS)
            cells = [f"`{name}`", count.get("split", "all"), *numbers, count["what"], count["source"]]
            lines.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def of_run(paths, titles: dict[str, str]) -> list[dict]:
    """What the page shows of each index: heading, digest, classes, columns, lines of counts, and notes.

    Args:
        paths: of index files.
        titles: of data sets, by name.

    Raises:
        CdfssError: as `index.load`.
    """
    found = []
    for path in paths:
        ours, facts = index.load_prepared(path)
        split = facts.get("settings", {}).get("split") or Path(path).stem
        theirs = [c for c in published().get(facts["format"], []) if c.get("split", split) == split]
        here = _numbers(ours, facts)
        lines = [{"what": "here", "numbers": here, "source": ""}]
        lines += [{"what": c["what"], "numbers": c, "source": c["source"]} for c in theirs]
        units = [unit for unit in UNITS if any(unit in line["numbers"] for line in lines)]
        found.append(
            {
                "heading": f"{titles.get(facts['name'], facts['name'])}, split {split}",
                "digest": ours.digest,
                "classes": ours.in_words.replace("_", " "),
                "columns": [UNITS[unit] for unit in units],
                "lines": [line | {"cells": _cells(line["numbers"], units)} for line in lines],
                "notes": _notes(here, theirs, facts),
            }
        )
    return found


def _numbers(ours: index.Prepared, facts: dict) -> dict[str, int]:
    """Our counts by unit; of raw files only where the format counts them."""
    found = {"pictures": ours.pictures, "entries": ours.entries}
    if "tiles" in facts:
        found["raw"] = facts["tiles"]
    if "images_never_segmented" in facts:
        found["raw"] = ours.entries + facts["images_never_segmented"]
    return found


def _cells(numbers: dict, units: list[str]) -> list[str]:
    return [f"{numbers[unit]:,}" if unit in numbers else "" for unit in units]


def _notes(here: dict[str, int], theirs: list[dict], facts: dict) -> list[str]:
    """Why the counts differ, or which they are equal to."""
    notes = []
    drawn = facts.get("settings", {}).get("synthetic")
    if drawn:
        notes.append("The pictures are drawn by this program (synthetic); they are not the published ones.")
    if facts.get("bad"):
        notes.append(f"Bad files that were left out (on_bad_pair: skip): {facts['bad']:,}.")
    if "tiles" in facts:
        notes.append(
            f"Of the pieces of {facts['tiles']:,} tiles {facts['pieces_kept']:,} are kept: "
            f"{facts['pieces_of_one_colour']:,} have labels of one colour, and of "
            f"{facts['pieces_with_a_rare_colour']:,} the rarest colour covers 4.8 % or less."
        )
    elif facts["format"] == "deepglobe":
        notes.append("The pieces were cut and chosen elsewhere, by a threshold that is not known here.")
    if facts.get("images_never_segmented"):
        notes.append(f"Pictures without a mask, which are left out: {facts['images_never_segmented']:,}.")
    if drawn:
        return notes
    if not theirs:
        return [*notes, "Nothing is published of this data set."]
    fewer = []
    for unit, number in sorted(here.items(), key=lambda entry: list(UNITS).index(entry[0])):
        others = [count for count in theirs if unit in count]
        same = "; ".join(count["source"] for count in others if count[unit] == number)
        if same:
            notes.append(f"As many {UNITS[unit]} as in: {same}.")
        elif others and number < min(count[unit] for count in others):
            fewer.append(UNITS[unit])
        elif others:
            notes.append(f"As many {UNITS[unit]} are in none of the sources.")
    if fewer:
        units = " and ".join(filter(None, (", ".join(fewer[:-1]), fewer[-1])))
        notes.append(f"Fewer {units} than in any source: a part of the set, or prepared otherwise.")
    return notes
