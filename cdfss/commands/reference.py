"""`cdfss reference`."""

from pathlib import Path

import click

from cdfss.errors import CdfssError


@click.command()
def reference() -> None:
    """Write config/README.md and config/schema.json from the configuration's models."""
    from cdfss.configuration import reference

    if not Path("config").is_dir():
        raise CdfssError(f"there is no folder config in {Path.cwd()}; run this in the project's folder")
    Path("config/README.md").write_text(reference.reference())
    Path("config/schema.json").write_text(reference.schema())
