"""`cdfss completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    For bash, add to ~/.bashrc: eval "$(cdfss completion bash)"
    """
    of_shell = get_completion_class(shell)
    assert of_shell is not None
    click.echo(of_shell(context.find_root().command, {}, "cdfss", "_CDFSS_COMPLETE").source())
