"""`cdfss fit`."""

from pathlib import Path
from typing import Any

import click

from cdfss.commands import pictures
from cdfss.commands.main import as_json, print_json, progress


@click.command()
@click.option(
    "--supports", multiple=True, required=True, help="Labelled pictures, as `cdfss segment` takes them."
)
@click.option("--save", type=pictures.FILE, required=True, help="File to write, such as mine.cdfss.")
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="How far to trust it, told from the supports: a page and JSON beside the file.",
)
@pictures.options(pictures.LABELLED, pictures.FITTED, [pictures.DEVICE, as_json])
def fit(supports: tuple[str, ...], save: Path, report: bool, **given: Any) -> None:
    """Learn from labelled pictures once, to segment many later.

    \b
    cdfss fit --supports labelled/ --save mine.cdfss
    cdfss segment --model mine.cdfss --queries new/ --out masks/

    The file holds the labelled pictures as the model sees them, and what made it; it is safe to load.
    """
    learnt = pictures.fitted(pictures.read(supports, given), given)
    learnt.save(save)
    written = [save]
    if report:
        page = save.with_name(f"{save.stem}-report.html")
        progress(f"comparing methods on the supports, for {page}")
        written += pictures.write_report(learnt.report(), page)
    if given["as_json"]:
        print_json({"how": learnt.how, "classes": learnt.values, "files": list(map(str, written))})
        return
    number = sum(map(len, learnt.supports.classes.values()))
    classes = ", ".join(learnt.classes)
    click.echo(f"{learnt.how['method']} learnt {classes} from {number} labelled pictures")
    for remark in learnt.how["remarks"]:
        click.echo(f"note: {remark}")
    for file in written:
        click.echo(f"wrote {file}")
