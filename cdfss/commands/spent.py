"""`cdfss spent`."""

from pathlib import Path

import click

from cdfss.commands.main import as_json, print_json


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@as_json
def spent(folder: Path, as_json: bool) -> None:
    """What a run took: time and memory by rule, disk by folder.

    FOLDER is results/<name>.
    """
    from cdfss.reports import spent

    if as_json:
        rules, folders = spent.by_rule(folder), spent.by_folder(folder)
        tables = {"rules": rules.rename_axis("rule"), "folders": folders.rename_axis("folder")}
        print_json({key: _plain(table.reset_index()) for key, table in tables.items()})
        return
    click.echo(spent.report(folder))


def _plain(table) -> list[dict]:
    """Rows as plain values; what was not measured is null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
