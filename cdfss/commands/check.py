"""`cdfss check`: a configuration."""

from pathlib import Path

import click

from cdfss.commands.main import as_json, print_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@as_json
@click.pass_context
def check(context: click.Context, file: Path, as_json: bool) -> None:
    """Check a configuration and its data; exit code 1 where something is wrong.

    FILE is a configuration, as `snakemake --configfile` takes it.
    """
    from cdfss import configuration
    from cdfss.configuration import preflight
    from cdfss.configuration.jobs import Jobs

    found = preflight.problems(Jobs(configuration.load(file)))
    if as_json:
        print_json({"file": file, "problems": found})
    else:
        click.echo("\n".join(found) or f"{file}: nothing is wrong")
    context.exit(int(bool(found)))
