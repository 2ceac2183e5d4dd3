"""`cdfss check-method` and `cdfss check-module`."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command("check-method")
@click.argument("method")
@click.option("--checkpoint", type=FILE, help="Source model, for a method that needs one.")
@click.option("--backbone", help="Frozen network; the default is in docs/how-to/own-method.md.")
@click.option("--weights", type=FILE, help="File of its ImageNet weights.")
def check_method(method: str, checkpoint: Path | None, backbone: str | None, weights: Path | None) -> None:
    """Check that a method keeps the contract.

    METHOD is a name, folder/file.py:Class or module:Class.
    """
    from cdfss.methods import conformance
    from cdfss.methods.contract import Given

    with_files = None
    if checkpoint or backbone:
        import torch

        with_files = Given(
            conformance.SIZE,
            device=torch.device("cpu"),
            backbone=backbone or conformance.BACKBONE,
            weights=weights,
            checkpoint=checkpoint,
        )
    for line in conformance.check(method, with_files):
        click.echo(f"  {line}")
    click.echo(f"{method} keeps the contract")


@click.command("check-module")
@click.argument("module")
def check_module(module: str) -> None:
    """Check that a module keeps the contract.

    MODULE is a name, folder/file.py:Class or module:Class.
    """
    from cdfss.methods.modules.conformance import check  # which imports torch

    for line in check(module):
        click.echo(f"  {line}")
    click.echo(f"{module} keeps the contract")
