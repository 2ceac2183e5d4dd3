"""`cdfss init`."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Begin a folder for runs of the workflow.

    It gets configurations, profiles and a small Snakefile. What was there is not touched; a file that would
    be overwritten ends the command.
    """
    from cdfss.configuration import project

    written = project.begin(folder)
    click.echo(f"{folder}: {len(written)} files; config/config.yaml is the paper's run, key by key in")
    click.echo(f"config/README.md. See what it would do, or try the demo:\n\n  cd {folder}")
    click.echo("  snakemake -n\n  snakemake --cores 2 --configfile config/demo.yaml")
