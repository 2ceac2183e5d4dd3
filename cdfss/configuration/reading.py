"""Configurations from files and plain values, checked."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cdfss.configuration.jobs import Jobs
from cdfss.configuration.mistakes import in_words
from cdfss.configuration.schema import Configuration
from cdfss.configuration.shown import Shown
from cdfss.errors import CdfssError

DEFAULT = Path("config/config.yaml")


def parse(values: dict[str, Any]) -> Configuration:
    """A checked configuration from plain values.

    Raises:
        CdfssError: one line per mistake: the key, what was given, what is allowed.
    """
    try:
        run = Configuration.model_validate(values)
    except ValidationError as error:
        lines = in_words(error, values)
        raise CdfssError("configuration:\n" + "\n".join(f"  {line}" for line in lines)) from error
    _ = Shown(Jobs(run)).primary  # which may name what table 1 cannot show
    return run


def load(path: str | Path) -> Configuration:
    """A checked configuration from a YAML file; one without a name adds to the default, as in the workflow.

    The default is config/config.yaml in the current folder.
    """
    values = _read(Path(path))
    if "name" not in values:
        if not DEFAULT.is_file():
            raise CdfssError(
                f"configuration: {path} has no name, so it adds to {DEFAULT}, which is not in "
                f"{Path.cwd()}; give it a name, or work in the project's folder"
            )
        values = with_default(values, DEFAULT)
    return parse(values)


def with_default(values: dict[str, Any], default: str | Path) -> dict[str, Any]:
    """Plain values as they are, or added to those of a file where they have no name.

    Raises:
        CdfssError: when the file cannot be read.
    """
    return values if "name" in values else _added(_read(Path(default)), values)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        raise CdfssError(
            f"configuration: {path} is no UTF-8 text (byte {error.start} is "
            f"{error.object[error.start]:#x}); save it as UTF-8 in your editor"
        ) from error
    except FileNotFoundError as error:
        raise CdfssError(
            f"configuration: cannot read {path}: it is not in {Path.cwd()}; work in the folder of the run, "
            "or begin one with cdfss init"
        ) from error
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise CdfssError(f"configuration: cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise CdfssError(f"configuration: {path} holds no keys")
    return values


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key that is there twice, of which only the last would count."""

    def construct_mapping(self, node, deep=False):
        seen: dict = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise yaml.YAMLError(
                    f"{key.value!r} is there twice, in lines {seen[key.value]} and "
                    f"{key.start_mark.line + 1}; join the two, since only the last would count"
                )
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def check_file(path: str | Path) -> dict[str, Any]:
    """The keys of a configuration file, which Snakemake reads less strictly.

    Raises:
        CdfssError: when it cannot be read, or holds a key twice.
    """
    return _read(Path(path))


def _added(base: dict, more: dict) -> dict:
    """`base` with the keys of `more`, section by section, as Snakemake adds configuration files."""
    both = dict(base)
    for key, value in more.items():
        sections = isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = _added(base[key], value) if sections else value
    return both
