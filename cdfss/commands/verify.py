"""`cdfss verify`."""

from pathlib import Path

import click

from cdfss.commands.main import as_json, print_json, progress


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="results")
@as_json
@click.pass_context
def verify(context: click.Context, folder: Path, as_json: bool) -> None:
    """Make every table again from its rows, and compare.

    Every table in FOLDER (results by default) is made again from its rows and compared cell by cell; every
    file that says so is compared with the pictures, episodes and source model that it was made from. Needs
    no GPU and changes nothing. Exit code 1 where something is wrong.
    """
    from cdfss.reports import verify

    found = verify.verify(folder, progress)
    if as_json:
        wrong = [{"file": file, "wrong": words} for file, words in found.wrong]
        print_json({"wrong": wrong, "looked at": found.looked_at, "left out": found.left_out})
    else:
        for file, words in found.wrong:
            click.echo(f"{click.style(file, bold=True)}: {words}")
        for line in found.left_out:
            click.echo(f"not compared: {line}")
        compared = ", ".join(f"{number:,} {what}" for what, number in found.looked_at.items())
        result = f"{len(found.wrong)} findings" if found.wrong else "nothing is wrong"
        if found.left_out:
            result += f" in what was compared, and {len(found.left_out)} could not be (above)"
        click.echo(f"{folder}: {result}; compared: {compared or 'nothing'}")
    context.exit(int(bool(found.wrong)))
