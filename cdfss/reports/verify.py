"""Whether results are what they say they are: tables made again from their rows, and every file's origin.

A table's `.origin.json` names the files that it was made from, with their sha256, and the settings that it
was made with; files of rows name pictures, episodes and source model by what stands for their content.
"""

import csv
import io
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from cdfss.data import episodes, tracking
from cdfss.errors import CdfssError, again
from cdfss.methods import source
from cdfss.reports import tables
from cdfss.reports.tables.writing import RECIPE
from cdfss.running import provenance
from cdfss.running.files import file_hash, hash_if_there

KINDS = ("csv", "md", "tex", "html")
TOLERANCE = 1e-9  # relative; last digits of sums depend on the processor
CELLS = 10  # of a table that are named, if more differ
PARTS = ("rows", "predictions", "cost", "analysis")  # folders of a run with files of jobs


@dataclass
class Report:
    """What was found.

    Attributes:
        wrong: file and what is wrong with it, in words.
        looked_at: how many of what were compared.
        left_out: what could not be compared, and why.
    """

    wrong: list[tuple[str, str]] = field(default_factory=list)
    looked_at: Counter = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)


def verify(folder: str | Path, say=lambda line: None) -> Report:
    """Compare everything below a folder of results with what is recorded of it.

    Args:
        folder: `results`, in which the tables lie, and below it a folder of each run.
        say: takes a line before what may take long.

    Raises:
        CdfssError: when there is nothing to compare.
    """
    folder, report = Path(folder), Report()
    origins = sorted(folder.glob("table*.origin.json"))
    lone = {file for kind in KINDS for file in folder.glob(f"table*.{kind}")}
    runs = [path for path in sorted(folder.glob("*")) if any((path / part).is_dir() for part in PARTS)]
    of_one_run = any((folder / part).is_dir() for part in PARTS)
    if not (origins or lone) and (of_one_run or not runs):
        raise CdfssError(
            f"{folder} holds neither tables nor runs; give the folder of results in which table1.md lies"
        )
    read: dict[str | Path, dict] = {}
    for origin in origins:
        say(f"making {origin.name.removesuffix('.origin.json')} again")
        lone -= {_beside(origin, kind) for kind in KINDS}
        if recorded := _table(origin, report):
            read[origin] = recorded
    for file in sorted(lone):
        report.wrong.append((str(file), "has no .origin.json beside it, so nothing says what it is of"))
    try:
        provenance.summaries_must_agree(read)
    except CdfssError as error:
        report.wrong.append((str(folder), str(error)))
    for run in runs:
        say(f"reading the files of {run}")
        _run(run, report, say)
    return report


def _beside(origin: Path, kind: str) -> Path:
    return origin.with_name(f"{origin.name.removesuffix('.origin.json')}.{kind}")


def _table(origin: Path, report: Report) -> dict | None:
    """Compare one table with its rows; returns its origin."""
    try:
        recorded = json.loads(origin.read_text())
        number, recipe = recorded["table"], recorded.get(RECIPE)
        if recipe is not None:
            settings = recipe.pop("settings")
            inputs = {kind: [origin.parent / path for path in hashes] for kind, hashes in recipe.items()}
            recorded_hashes = {path: value for hashes in recipe.values() for path, value in hashes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        report.wrong.append((str(origin), f"cannot be read ({error!r}); {again('table')}"))
        return None
    for kind in KINDS:
        if not _beside(origin, kind).is_file():
            report.wrong.append((str(_beside(origin, kind)), f"is missing; {again('table')}"))
    if recipe is None:
        words = (
            f"was made by version {recorded.get('cdfss', 'unknown')}, which did not record from which files"
        )
        report.left_out.append(f"{origin}: {words}; {again('table')}")
        return recorded
    missing = [path for path in recorded_hashes if not (origin.parent / path).is_file()]
    for path, recorded_hash in recorded_hashes.items():
        file = origin.parent / path
        if path in missing:
            report.wrong.append((str(file), f"is missing, and table {number} was made from it"))
        elif (found := hash_if_there(file)) != recorded_hash:
            words = f"sha256 {found[:12]}…, not {recorded_hash[:12]}…, of which table {number} was made"
            report.wrong.append((str(file), f"is another file than it was: {words}"))
    if missing:
        return recorded
    try:
        table = tables.of_files(
            number, inputs["rows"], inputs["features"], inputs["filtered"], inputs["cost"], settings
        )
    except CdfssError as error:
        report.wrong.append((str(origin), f"table {number} cannot be made again: {error}"))
        return recorded
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # settings that no run writes
        report.wrong.append((str(origin), f"does not say how table {number} is made ({error!r})"))
        return recorded
    report.looked_at["tables"] += 1
    report.looked_at["files that tables were made from"] += len(recorded_hashes)
    report.wrong += [(str(origin), words) for words in _other_origin(recorded, table.origin)]
    said = {key: value for key, value in recorded.items() if key not in ("table", RECIPE)}
    with tempfile.TemporaryDirectory() as place:
        paths: dict[str, str | Path] = {kind: Path(place, f"table.{kind}") for kind in (*KINDS, "origin")}
        tables.write(replace(table, origin=said, recipe={}), paths)
        for kind in KINDS:
            file = _beside(origin, kind)
            if file.is_file():
                _compare(file, Path(paths[kind]), kind, report, recorded)
    return recorded


def _other_origin(recorded: dict, found: dict) -> Iterator[str]:
    """In what a table's files are not what its origin says of them."""
    said, is_so = (origin.get("made from", {}) for origin in (recorded, found))
    for what in sorted(set(said) | set(is_so)):
        if said.get(what) != is_so.get(what):
            yield f"says {what}: {said.get(what, 'nothing')}; its files say {is_so.get(what, 'nothing')}"


def _compare(file: Path, remade: Path, kind: str, report: Report, recorded: dict) -> None:
    """Name the cells of a table's file that are not those of the table made again."""
    try:
        there, wanted = file.read_text(), remade.read_text()
    except (OSError, ValueError) as error:
        report.wrong.append((str(file), f"cannot be read ({error})"))
        return
    there_cells, wanted_cells = list(_cells(there, kind)), list(_cells(wanted, kind))
    report.looked_at["cells"] += len(wanted_cells)
    found, expected = dict(there_cells), dict(wanted_cells)
    differing = [
        f"{place}: {found.get(place, 'nothing')!r}, made again {expected.get(place, 'nothing')!r}"
        for place in dict.fromkeys([*expected, *found])
        if not _same(found.get(place), expected.get(place))
    ]
    if differing:
        more = f"; and {len(differing) - CELLS} more" if len(differing) > CELLS else ""
        by = f"made by {recorded.get('cdfss', '?')}, commit {recorded.get('commit', 'unknown')}"
        report.wrong.append((str(file), f"{'; '.join(differing[:CELLS])}{more} ({by})"))


def _cells(text: str, kind: str) -> Iterator[tuple[str, str]]:
    """Cells of a table's file, each with its place in words."""
    if kind == "csv":
        rows = list(csv.reader(io.StringIO(text)))
        for number, row in enumerate(rows, 1):
            for name, value in zip(rows[0] + ["?"] * len(row), row):
                yield f"line {number}, {name}", value
        return
    separator = {"md": r"(?<!\\)\|", "tex": r"(?<!\\)&", "html": r"(?<=>)(?=<)"}[kind]
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in re.split(separator, line)]
        for column, value in enumerate(cells, 1):
            yield f"line {number}, cell {column}" if len(cells) > 1 else f"line {number}", value


def _same(one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    try:
        return math.isclose(float(one), float(other), rel_tol=TOLERANCE)
    except ValueError:
        return False


def _run(run: Path, report: Report, say) -> None:
    """Compare a run's files with the indexes, lists and source models that they name."""
    indexes = _facts_below(run / "index", report, skip=".files.parquet")
    identities: dict[str, set[str]] = {}
    for found in indexes.values():
        identities.setdefault(found.get("name", ""), set()).add(found.get("identity", ""))
    lists = _lists(run, report)
    models = _models(run, report)
    made: dict[str | Path, dict] = {}
    for part in PARTS:
        made |= _facts_below(run / part, report)
    for file, found in made.items():
        wrong = list(_unlike(found, identities, lists, models))
        report.wrong += [(str(file), words) for words in wrong]
    try:
        provenance.must_agree({file: found for file, found in made.items() if found})
    except CdfssError as error:
        report.wrong.append((str(run), str(error)))
    for index in indexes:
        say(f"hashing the pictures of {index}")
        _pictures(Path(index), report)


def _facts_below(folder: Path, report: Report, skip: str = "-") -> dict[str | Path, dict]:
    """What the parquet files of a folder say of themselves; damaged and silent ones are named."""
    facts: dict[str | Path, dict] = {}
    for file in sorted(folder.rglob("*.parquet")):
        if file.name.endswith(skip):
            continue
        report.looked_at["files of jobs"] += 1
        try:
            facts[file] = provenance.facts(provenance.read_table(file).schema)
        except CdfssError as error:
            report.wrong.append((str(file), str(error).removeprefix(f"{file} ")))
            continue
        if not facts[file]:
            report.wrong.append((str(file), "does not say what it was made from: an older version made it"))
    return facts


def _lists(run: Path, report: Report) -> dict[tuple, str]:
    """What stands for each list of episodes, by domain, shot and seed."""
    found = {}
    for file in sorted((run / "episodes").rglob("*.parquet")):
        try:
            table = provenance.read_table(file)
            settings = provenance.facts(table.schema)["settings"]
            place = (file.parent.name, settings["shot"], settings["seed"])
            found[place] = episodes.identity(table.to_pandas())
        except (CdfssError, KeyError, TypeError, ValueError) as error:
            report.wrong.append((str(file), f"is no list of episodes ({error})"))
    return found


def _models(run: Path, report: Report) -> set[str]:
    """What stands for each source model that is there; one that its small file does not name is wrong."""
    found = set()
    for file in sorted((run / "source").glob("*/checkpoint.safetensors")):
        report.looked_at["source models"] += 1
        try:
            mine = source.identity(file)
            said = json.loads(file.with_suffix(".json").read_text())["identity"]
        except (CdfssError, OSError, ValueError, KeyError) as error:
            report.wrong.append((str(file), f"cannot be compared with checkpoint.json: {error}"))
            continue
        found.add(mine)
        if mine != said:
            report.wrong.append((str(file), f"holds the model {mine}; checkpoint.json says {said}"))
    return found


def _unlike(
    found: dict, identities: dict[str, set[str]], lists: dict[tuple, str], models: set[str]
) -> Iterator[str]:
    """In what a file's facts are not those of the run's other files, as far as these are there."""
    settings = found.get("settings", {})
    domain = settings.get("domain")
    if domain in identities and found.get("index") not in identities[domain]:
        yield f"was made from other pictures ({found.get('index')}) than the index of {domain} holds"
    place = (domain, settings.get("shot"), settings.get("seed"))
    if place in lists and found.get("episodes") != lists[place]:
        yield f"was made from another list of episodes ({found.get('episodes')}) than is there"
    if models and "checkpoint" in found and found["checkpoint"] not in models:
        yield f"was made with a source model ({found['checkpoint']}) that is not there"


def _pictures(index: Path, report: Report) -> None:
    """Compare raw pictures and masks with the hashes that were recorded when they were indexed."""
    root = tracking.root_recorded(index)
    if root is None or not Path(root).is_dir():
        report.left_out.append(f"pictures of {index}: {root or 'their folder'} is not there any more")
        return
    record: pd.DataFrame = provenance.read_table(tracking.record_path(index)).to_pandas()
    files = record[record["size"] >= 0]
    report.looked_at["pictures and masks"] += len(files)
    for name, size, sha256 in files[["file", "size", "sha256"]].itertuples(index=False):
        file = Path(root, name)
        try:
            same = file.stat().st_size == size and (not sha256 or file_hash(file) == sha256)
        except OSError as error:
            report.wrong.append((str(file), f"is missing ({error.strerror}), and {index} names it"))
            continue
        if not same:
            report.wrong.append((str(file), f"is another file than {index} was made from"))
