"""Where a data set's files come from and where they are put.

What is downloaded, generated or prepared has a folder of its own for every origin, so that files of
different sources, generators or roots never lie beside each other.
"""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from cdfss.errors import CdfssError


@cache
def registry() -> dict:
    """The registry of public data sets by format."""
    return yaml.safe_load(resources.files("cdfss.data").joinpath("registry.yaml").read_text("utf-8"))


def source_name(settings: dict) -> str:
    """The registered source that a data set is downloaded from: the configured one, or the first."""
    return settings["download"] or next(iter(registry()[settings["format"]]["sources"]))


def home(settings: dict) -> Path:
    """Folder of a data set that is downloaded or generated: `<folder>/<name>/<origin>`.

    Args:
        settings: `Jobs.raw_settings`.
    """
    kind = settings["synthetic"]
    scale = settings.get("scale")
    generated = f"synthetic-{kind}" if scale is None else f"synthetic-{kind}-{scale}"
    origin = source_name(settings) if kind is None else generated
    return Path(settings["folder"]) / settings["name"] / origin


def marker(settings: dict) -> Path:
    """The file that says that all of `home` is there."""
    return home(settings) / "complete.json"


def root_of(settings: dict) -> Path:
    """Where a data set's raw files are, or will be after download or generation."""
    return home(settings) / "raw" if settings["root"] is None else Path(settings["root"])


def is_there(settings: dict) -> bool:
    """Whether `root_of` is a folder.

    Raises:
        CdfssError: when it may not be looked at.
    """
    root = root_of(settings)
    try:
        return root.is_dir()
    except PermissionError as error:
        raise CdfssError(
            f"data.{settings['name']}.root: {root} may not be looked at ({error.strerror}); give yourself "
            "the right to enter this folder and those above it"
        ) from error


def prepared(settings: dict) -> Path:
    """Where what is made from the raw files of a format is put: a folder of its own for every root."""
    root = hashlib.sha256(str(root_of(settings).resolve()).encode()).hexdigest()[:8]
    return Path(settings["folder"]) / settings["name"] / f"prepared-{root}"
