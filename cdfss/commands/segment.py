"""`cdfss segment`."""

from pathlib import Path
from typing import Any

import click

from cdfss.commands import pictures
from cdfss.commands.main import Stopped, as_json, print_json, progress, rewrite
from cdfss.segmentation import WRITES

OF_A_FIT = (
    *("masks", "labels", "unknown", "names", "value_range"),
    *("method", "settings", "backbone", "size", "tile", "save"),
)
REPORTED = 200  # queries that a report looks at, evenly chosen


@click.command()
@click.option(
    "--supports",
    multiple=True,
    help="Labelled pictures: a folder with images/ and masks/ (or such a folder for each class, or "
    "pictures beside their masks), files or globs; again for more.",
)
@click.option(
    "--queries", multiple=True, required=True, help="Pictures to segment: folder, files or globs."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder that masks are written to."
)
@click.option("--model", type=pictures.FILE, help="What `cdfss fit` saved, instead of --supports.")
@click.option("--save", type=pictures.FILE, help="Save what was learnt, for --model.")
@click.option(
    "--write",
    "writes",
    multiple=True,
    type=click.Choice([*WRITES, "masks"]),
    help="What is written besides masks; again for each. Default: overlays and areas; masks for no more.",
)
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="How far to trust the masks, told from the supports: report.html and report.json.",
)
@pictures.options(pictures.LABELLED, pictures.FITTED, [pictures.DEVICE, as_json])
@click.pass_context
def segment(
    context: click.Context,
    supports: tuple[str, ...],
    queries: tuple[str, ...],
    out: Path,
    model: Path | None,
    save: Path | None,
    writes: tuple[str, ...],
    report: bool,
    **given: Any,
) -> None:
    """Segment pictures from one or a few labelled ones.

    \b
    cdfss segment --supports labelled/ --queries new/ --out masks/
    cdfss segment --model mine.cdfss --queries new/ --out masks/

    Masks are as large as their pictures: 0 and 255 for one class, a label map for several. The same command
    goes on where it was stopped. Exit code 1 where a picture fails.
    """
    if bool(supports) == bool(model):
        raise click.UsageError("give --supports, labelled pictures, or --model, what cdfss fit saved")
    if model:
        _must_not_fit(context)
    try:
        found = _segment(supports, queries, out, model, save, writes, report, given)
    except KeyboardInterrupt as error:
        raise Stopped("; the same command goes on where it was") from error
    if given["as_json"]:
        print_json(found)
    else:
        click.echo(_in_words(out, found))
    for message in found["failed"].values():
        click.echo(f"error: {message}", err=True)
    context.exit(int(bool(found["failed"])))


def _must_not_fit(context: click.Context) -> None:
    """Refuse options of a fit beside a model, which is fitted already."""
    of_fit = {option.name: option for option in context.command.params if isinstance(option, click.Option)}
    for name in OF_A_FIT:
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            option = of_fit[name].opts[0]
            raise click.UsageError(f"{option} is of a fit, and --model is fitted already; leave one out")


def _segment(supports, queries, out, model, save, writes, wants_report, given) -> dict[str, Any]:
    from cdfss.running.progress import clock
    from cdfss.segmentation import run, segmenter
    from cdfss.segmentation import supports as reading

    wanted = reading.queries(list(queries), leave_out=out)
    if model:
        files = {key: given[key] for key in ("checkpoint", "weights")}
        learnt = segmenter.load(model, given["device"], **files)
    else:
        learnt = pictures.fitted(pictures.read(supports, given), given)
    for remark in learnt.how["remarks"]:
        progress(f"note: {remark}")
    if save:
        learnt.save(save)

    def step(done: int, total: int, left: float) -> None:
        rewrite(f"{done} of {total} pictures, {clock(left)} left")

    summary = run.segment_all(
        learnt,
        wanted,
        out,
        [name for name in writes if name != "masks"] if writes else run.USUAL,
        say=progress,
        progress=step,
    )
    written = list(summary.files)
    page = out / "report.html"
    if wants_report and not model and (summary.made or not page.is_file()):
        seen = [query for query in wanted if query.name not in summary.failed]
        seen = seen[:: -(-len(seen) // REPORTED) or 1]
        progress(f"comparing methods on the supports, and looking at {len(seen)} pictures, for {page}")
        written += pictures.write_report(learnt.report(seen), page)
    return {
        "out": str(out),
        "method": learnt.how["method"],
        "classes": learnt.values,
        "remarks": learnt.how["remarks"],
        "made": summary.made,
        "kept": summary.kept,
        "failed": summary.failed,
        "seconds": round(summary.seconds, 2),
        "files": list(map(str, written)),
        "saved": None if save is None else str(save),
    }


def _in_words(out: Path, found: dict[str, Any]) -> str:
    kept = f", {len(found['kept'])} from an earlier run" if found["kept"] else ""
    made = f"{len(found['made'])} mask{'' if len(found['made']) == 1 else 's'}"
    lines = [f"{out}: {made} by {found['method']} in {found['seconds']:.1f} s{kept}"]
    if len(found["classes"]) > 1:
        lines.append("values: " + ", ".join(f"{value} {name}" for name, value in found["classes"].items()))
    lines += [f"note: {remark}" for remark in found["remarks"]]
    lines += [f"wrote {file}" for file in (*found["files"], *filter(None, [found["saved"]]))]
    return "\n".join(lines)
