"""The group of all commands, and what they share: mistakes in words, JSON, exit codes.

`cdfss --help` must answer at once, so a command's module imports no more than click before it is run.
"""

import difflib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from cdfss.errors import CdfssError

# Sections of the help: name of each command, its module and what it is called there.
SECTIONS = {
    "Your own pictures": {
        "segment": "segment:segment",
        "fit": "fit:fit",
        "check": "check:check",
    },
    "Reproduce and evaluate": {
        "init": "init:init",
        "doctor": "doctor:doctor",
        "estimate": "estimate:estimate",
        "status": "status:status",
        "spent": "spent:spent",
        "verify": "verify:verify",
        "datasets": "datasets:datasets",
    },
    "Build on it": {
        "check-method": "contracts:check_method",
        "check-module": "contracts:check_module",
        "reference": "reference:reference",
        "completion": "completion:completion",
    },
}
PLACES = {name: place for section in SECTIONS.values() for name, place in section.items()}


class Mistake(click.ClickException):
    """What a user can mend: `error: ...` on stderr and exit code 1, without a traceback."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class Stopped(click.ClickException):
    """Ctrl-C, and whether the same command goes on; the exit code is the one that shells know."""

    exit_code = 130

    def show(self, file: Any = None) -> None:
        click.echo(f"stopped{self.message}", err=True)


class Commands(click.Group):
    """Commands whose modules are imported when they are named."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(PLACES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in PLACES:
            return None
        module, attribute = PLACES[name].split(":")
        return getattr(importlib.import_module(f"cdfss.commands.{module}"), attribute)

    def resolve_command(self, context: click.Context, arguments: list[str]) -> Any:
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            near = difflib.get_close_matches(arguments[0], PLACES, n=1)
            asked = f"; did you mean {near[0]}?" if near else "; cdfss --help lists them"
            raise click.UsageError(f"{arguments[0]!r} is no command{asked}", context) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for section, places in SECTIONS.items():
            with formatter.section(section):
                found = ((name, self.get_command(context, name)) for name in places)
                formatter.write_dl([(name, of_it.get_short_help_str(80)) for name, of_it in found if of_it])

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CdfssError as error:
            raise Mistake(str(error)) from error
        except KeyboardInterrupt as error:
            raise Stopped("") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", package_name="cdfss", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Cross-domain few-shot segmentation: your own pictures, the paper's tables, your own method.

    Exit codes: 0 all is well, 1 a mistake or a finding, 2 a command line that is not understood,
    130 stopped with Ctrl-C.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


configfile = click.option(
    "--configfile", type=click.Path(path_type=Path), help="Of the run; by default config/config.yaml."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")


def print_json(values: Any) -> None:
    """Print plain values as JSON; paths become texts."""
    click.echo(json.dumps(values, indent=2, default=str, ensure_ascii=False))


def progress(line: str) -> None:
    """A line on how far a command is, where a person is looking; not in a pipe or a log."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True)


def rewrite(line: str) -> None:
    """The same, to be written over by the next one."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True, nl=False)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    try:
        cli.main(arguments, prog_name="cdfss")
    except SystemExit as end:  # which click ends every command with
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
