"""`cdfss datasets`."""

import click

from cdfss.commands.main import as_json, print_json


@click.command()
@as_json
def datasets(as_json: bool) -> None:
    """List the registered data sets, their sources, licences and citations."""
    from cdfss.data import places

    found = places.registry()
    if as_json:
        print_json(found)
        return
    for name, entry in found.items():
        click.echo(f"{name}: {entry['title']}\n  home: {entry['home']}\n  licence: {entry['licence']}")
        click.echo(f"  cite: {entry['citation']}")
        for source, files in entry["sources"].items():
            kinds = sorted({kind for file in files for kind in ("http", "drive", "kaggle") if kind in file})
            sizes = [file["size_mb"] for file in files]
            size = f"{sum(sizes) / 1000:.1f} GB" if all(sizes) else "size not published"
            click.echo(f"  download: {source} ({', '.join(kinds)}; {size})")
