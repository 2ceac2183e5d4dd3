"""The workflow's own files: beside the package where it is developed, inside of it in a wheel."""

import shutil
from pathlib import Path

from cdfss.errors import CdfssError

PACKAGE = Path(__file__).parents[1]
SNAKEFILE = """# The workflow of the installed cdfss; rules of your own go below.
from cdfss import snakefile


include: snakefile()


rule everything:
    default_target: True
    input:
        rules.all.input,
"""


def folder() -> Path:
    """The folder with `Snakefile`, `workflow/`, `config/`, `profiles/` and `envs/`.

    Raises:
        CdfssError: where the package was installed without them.
    """
    for place in (PACKAGE / "project", PACKAGE.parent):
        if (place / "Snakefile").is_file() and (place / "workflow" / "rules").is_dir():
            return place
    raise CdfssError(f"{PACKAGE} was installed without the workflow's files; install cdfss from its wheel")


def snakefile() -> str:
    """Path of the workflow's Snakefile, for `include:` or `module:` in another; raises as `folder`."""
    return str(folder() / "Snakefile")


def begin(place: str | Path) -> list[Path]:
    """Write configurations, profiles and a Snakefile for runs of one's own; returns what was written.

    Args:
        place: made if it is not there; files in it stay as they are.

    Raises:
        CdfssError: when a file that would be written is there, or `place` is none that can be written to.
    """
    place, source = Path(place), folder()
    wanted = [
        file.relative_to(source)
        for part in ("config", "profiles")
        for file in sorted((source / part).rglob("*"))
        if file.is_file()
    ]
    there = [str(place / file) for file in [Path("Snakefile"), *wanted] if (place / file).exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise CdfssError(f"{there[0]}{more} would be overwritten; name a folder that is new or empty")
    try:
        for file in wanted:
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, place / file)
        (place / "Snakefile").write_text(SNAKEFILE)
    except OSError as error:
        raise CdfssError(f"{place} cannot be written to ({error}); name another folder") from error
    return [place / file for file in [Path("Snakefile"), *wanted]]
