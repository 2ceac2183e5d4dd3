"""`cdfss check`: a configuration, or labelled pictures."""

from pathlib import Path
from typing import Any

import click

from cdfss.commands import pictures
from cdfss.commands.main import as_json, print_json
from cdfss.segmentation import SIZE


@click.command()
@click.argument("what", nargs=-1, required=True)
@click.option(
    "--sheet",
    type=pictures.FILE,
    default="contact-sheet.png",
    show_default=True,
    help="Where pictures are shown as the model sees them, with their masks.",
)
@click.option("--size", default=SIZE, show_default=True, help="Pixels a side at which it sees them.")
@pictures.options(pictures.LABELLED, [as_json])
@click.pass_context
def check(context: click.Context, what: tuple[str, ...], sheet: Path, size: int, **given: Any) -> None:
    """Check a configuration and its data, or labelled pictures.

    WHAT is a configuration (.yaml), as `snakemake --configfile` takes it; or labelled pictures, as `cdfss
    segment --supports` takes them. Exit code 1 where something is wrong.
    """
    of_run = len(what) == 1 and Path(what[0]).suffix.lower() in (".yaml", ".yml")
    found = _configuration(Path(what[0])) if of_run else _pictures(what, sheet, size, given)
    problems = found["problems"]
    if given["as_json"]:
        print_json(found)
    else:
        lines = [*problems, *(f"note: {remark}" for remark in found.get("remarks", []))]
        lines += found.get("classes", [])
        if not problems:
            lines.append(f"{' '.join(what)}: nothing is wrong")
        if "sheet" in found:
            lines.append(f"wrote {found['sheet']}: pictures as the model sees them")
        click.echo("\n".join(lines))
    context.exit(int(bool(problems)))


def _configuration(file: Path) -> dict[str, Any]:
    from cdfss import configuration
    from cdfss.configuration import preflight
    from cdfss.configuration.jobs import Jobs

    return {"file": file, "problems": preflight.problems(Jobs(configuration.load(file)))}


def _pictures(what: tuple[str, ...], sheet: Path, size: int, given: dict[str, Any]) -> dict[str, Any]:
    from cdfss.segmentation import check

    masks = list(given["masks"]) or None
    checked = check.check(list(what), masks, size=size, **pictures.meaning(given))
    problems, remarks = list(map(str, checked.problems)), list(map(str, checked.remarks))
    found: dict[str, Any] = {"pictures": checked.place, "problems": problems, "remarks": remarks}
    if checked.supports is not None:
        check.write_sheet(sheet, checked)
        found["classes"] = [line for line in checked.lines() if line.startswith("class ")]
        found["sheet"] = sheet
    return found
