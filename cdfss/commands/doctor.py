"""`cdfss doctor`."""

from dataclasses import asdict
from pathlib import Path

import click

from cdfss.commands.main import as_json, configfile, print_json

COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


@click.command()
@configfile
@as_json
@click.pass_context
def doctor(context: click.Context, configfile: Path | None, as_json: bool) -> None:
    """What is installed and found here, and the next command.

    Python, packages, torch, devices, cores, memory, disk, weights of backbones; the data sets of a
    configuration, whole or not. Exit code 1 where nothing would work.
    """
    from cdfss import configuration
    from cdfss.configuration import doctor
    from cdfss.configuration.jobs import Jobs

    lines, of_data, jobs = doctor.machine(), [], None
    if configfile or configuration.DEFAULT.is_file():
        jobs = Jobs(configuration.load(configfile or configuration.DEFAULT))
        of_data = doctor.data(jobs)
        lines += [*doctor.weights(jobs.run.folder), *of_data]
    wrong = any(line.state == "wrong" for line in lines)
    then = doctor.next_command(configfile, wrong, jobs, of_data)
    if as_json:
        print_json({"found": list(map(asdict, lines)), "next": then})
    else:
        width = max(len(line.what) for line in lines)
        for line in lines:
            state = click.style(f"{line.state:5}", fg=COLOURS[line.state])
            click.echo(f"{state} {line.what:{width}}  {line.found}")
        click.echo(f"\nnext: {then}")
    context.exit(int(wrong))
