"""`cdfss estimate`."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from cdfss.commands.main import as_json, configfile, print_json


@click.command()
@configfile
@click.option("--cores", type=click.IntRange(min=1), help="That jobs may use; default: all here.")
@click.option("--gpus", type=click.IntRange(min=0), help="That jobs may use; default: all here.")
@as_json
def estimate(configfile: Path | None, cores: int | None, gpus: int | None, as_json: bool) -> None:
    """Hours and room on the disk that a run will take, before it starts.

    From what was measured elsewhere, scaled by picture size, backbone, variants and episodes to the speed
    of a matrix product on this machine. As if nothing of the run were made yet; cdfss status says what is
    left.
    """
    from cdfss import configuration
    from cdfss.configuration import estimate as of
    from cdfss.configuration.jobs import Jobs
    from cdfss.running import devices, files

    jobs = Jobs(configuration.load(configfile or configuration.DEFAULT))
    if gpus is None:
        gpus = 0 if jobs.run.device == "cpu" else len(devices.visible())
    found = of.estimate(jobs, of.rate_of_core(), cores or os.cpu_count() or 1, gpus)
    free = files.free_bytes(Path.cwd()) / 1e6
    if as_json:
        print_json(asdict(found) | {"free_mb": free})
        return
    work = sum(part.work for part in found.parts)
    low, high = found.hours / found.factor, found.hours * found.factor
    click.echo(f"{jobs.run.name}: about {_time(found.hours)}, between {_time(low)} and {_time(high)}\n")
    for part in found.parts:
        share = f"{part.work / 1e6:8.3f} P multiply-adds" if part.work else " " * 24
        click.echo(f"  {_time(part.hours):>10}  {share}  {part.what}")
    click.echo(f"  {'':10}  {work / 1e6:8.3f} P in all\n")
    click.echo(f"disk: about {sum(found.disk.values()) / 1000:.1f} GB ({free / 1000:.0f} GB are free here)")
    for what, size in sorted(found.disk.items(), key=lambda pair: -pair[1]):
        click.echo(f"  {size:10,.0f} MB  {what}")
    click.echo("")
    for note in found.notes:
        click.echo(f"note: {note}")


def _time(hours: float) -> str:
    if hours < 1:
        minutes = max(round(60 * hours), 1)
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
