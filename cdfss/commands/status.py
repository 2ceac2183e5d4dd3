"""`cdfss status`."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import click

from cdfss.commands.main import as_json, configfile, print_json, progress
from cdfss.errors import CdfssError


@click.command()
@configfile
@as_json
def status(configfile: Path | None, as_json: bool) -> None:
    """How far a run is, what failed, and the time left.

    Works in the folder in which the run was started, while it runs and after it. The time left is that of
    finished jobs of the same rule and number of shots.
    """
    from tabulate import tabulate

    from cdfss import configuration
    from cdfss.reports import status
    from cdfss.running import runs
    from cdfss.running.progress import clock

    run = configuration.load(configfile or configuration.DEFAULT)
    at_work = runs.at_work()
    progress("asking snakemake what is there")
    table, begun, left = status.of_run(Path("results", run.name), _dag(configfile), bool(at_work))
    done, number = int(table["done"].sum()), int(table["all"].sum())
    failed = [one for one in begun if one.state == "failed" and table["failed"].get(one.rule, 0)]
    if as_json:
        print_json(
            {
                "run": run.name,
                "at work": [record["command"] for record in at_work],
                "done": done,
                "jobs": number,
                "rules": table.to_dict("index"),
                "failed": [{"rule": one.rule, "log": one.log, "why": one.why} for one in failed],
                "left": asdict(left),
            }
        )
        return
    share = f"{done} of {number} jobs are done ({100 * done / max(number, 1):.0f} %)"
    who = "; ".join(f"{record['command']}, since {record['since']}" for record in at_work)
    click.echo(f"{run.name}: {share}; {f'at work: {who}' if who else 'no run is at work in this folder'}\n")
    shown = table.loc[:, table.any()].astype(str).replace("0", "")
    click.echo(tabulate(shown.reset_index(), ["rule", *shown.columns], "github", showindex=False))
    for one in failed:
        click.echo(f"\nfailed: {one.rule}, {one.log}: {one.why}")
    if done == number:
        return
    if not at_work:
        given = f" --configfile {configfile}" if configfile else ""
        click.echo(f"\nto go on: snakemake --cores {os.cpu_count()}{given}")
    if left.seconds is None:
        click.echo("\ntime left: unknown, since no job of what is left has ended")
        return
    about = "more than" if left.unknown else "about"
    click.echo(
        f"\ntime left: {about} {clock(left.seconds)} as jobs took so far, {left.at_once:.1f} at once"
    )
    if left.unknown:
        click.echo(f"not in it, since none of these jobs has ended: {', '.join(left.unknown)}")


def _dag(configfile: Path | None) -> str:
    """The graph of jobs that `snakemake --dag` prints; it starts and changes nothing.

    Raises:
        CdfssError: where there is no Snakefile, or Snakemake refuses.
    """
    if not Path("Snakefile").is_file():
        raise CdfssError(
            f"{Path.cwd()} holds no Snakefile; work in the folder of the run, or begin one with cdfss init"
        )
    given = ["--configfile", str(configfile)] if configfile else []
    command = [sys.executable, "-m", "snakemake", "--dag", "--nolock", *given]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        words = [line for line in asked.stderr.splitlines() if line.strip()][-5:]
        raise CdfssError("snakemake --dag fails:\n  " + "\n  ".join(words))
    return asked.stdout
