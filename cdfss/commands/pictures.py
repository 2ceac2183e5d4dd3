"""Options of the commands that work on a person's own pictures, and what they mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cdfss.segmentation import BACKBONE, METHOD, SIZE

FILE = click.Path(dir_okay=False, path_type=Path)
Key = int | tuple[int, int, int]


class _Key(click.ParamType):
    """A value of a label map, or a colour of one as #rrggbb."""

    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Key:
        text = str(value).strip()
        if text.isdecimal():
            return int(text)
        digits = text.removeprefix("#")
        try:
            if len(digits) == 6:
                red, green, blue = bytes.fromhex(digits)
                return red, green, blue
        except ValueError:
            pass
        self.fail(f"{text!r} is neither a whole number nor a colour as #rrggbb", param, context)


class _Pair(click.ParamType):
    """KEY=VALUE."""

    def __init__(self, name: str, key: click.ParamType | None, value: Callable[[str], Any]):
        self.name, self.key, self.value = name, key, value

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        key, sign, rest = str(value).partition("=")
        if not sign or not key.strip() or not rest.strip():
            self.fail(f"{value!r} is not {self.name}", param, context)
        return (
            self.key.convert(key, param, context) if self.key else key.strip(),
            self.value(rest.strip()),
        )


def _plain(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise click.BadParameter(f"{text!r} is no plain value: {error}") from error


LABELLED = (
    click.option(
        "--masks",
        multiple=True,
        help="Folder, files or globs of masks, where they do not lie with the pictures.",
    ),
    click.option(
        "--labels",
        type=click.Choice(["binary", "map"]),
        help="Masks of one foreground (the default), or maps with a value or colour for each class.",
    ),
    click.option("--unknown", type=_Key(), help="Value or colour of pixels without a label, such as 255."),
    click.option(
        "--names",
        multiple=True,
        type=_Pair("VALUE=NAME", _Key(), str),
        help="Name of a class by its value or colour in label maps, as 1=road or #ff0000=road; again for "
        "each.",
    ),
    click.option(
        "--value-range",
        type=(float, float),
        metavar="BLACK WHITE",
        help="Values of black and white in pictures of more than 8 bits.",
    ),
)
FITTED = (
    click.option(
        "--method",
        default=METHOD,
        show_default=True,
        help="What learns from the labelled pictures; auto takes the best by leaving out one at a time.",
    ),
    click.option(
        "--setting",
        "settings",
        multiple=True,
        type=_Pair("KEY=VALUE", None, _plain),
        help="A setting of the method; again for each, as modules=[apm_m].",
    ),
    click.option("--backbone", default=BACKBONE, show_default=True, help="Frozen network."),
    click.option(
        "--weights", type=FILE, help="File of its published weights; the default's are installed."
    ),
    click.option("--checkpoint", type=FILE, help="Source-trained model, for methods that need one."),
    click.option(
        "--size", default=SIZE, show_default=True, help="Pixels a side at which the model sees pictures."
    ),
    click.option(
        "--tile",
        type=click.IntRange(min=1),
        help="Pixels a side of the tiles that large pictures are cut into; default: as large as the "
        "supports.",
    ),
)
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)


def options(*groups: Any) -> Callable:
    """All options of groups, as one decorator."""

    def decorate(command: Callable) -> Callable:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def read(supports: tuple[str, ...], given: dict[str, Any]) -> Any:
    """`segmentation.supports.Supports` by the options of LABELLED."""
    from cdfss.segmentation import supports as reading

    return reading.read(list(supports), list(given["masks"]) or None, **meaning(given))


def meaning(given: dict[str, Any]) -> dict[str, Any]:
    """What masks mean, by the options of LABELLED."""
    keys = ("labels", "unknown", "value_range")
    return {key: given[key] for key in keys} | {"names": _once("--names", given["names"]) or None}


def _once(option: str, pairs: tuple[tuple[Any, Any], ...]) -> dict[Any, Any]:
    """Pairs of KEY=VALUE by key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise click.UsageError(f"{option} says twice what {twice} is; expected it once")
    return found


def fitted(supports: Any, given: dict[str, Any]) -> Any:
    """A `Segmenter` by the options of FITTED and DEVICE."""
    from cdfss.segmentation import segmenter

    keys = ("method", "backbone", "weights", "checkpoint", "size", "tile", "device")
    return segmenter.fit_supports(
        supports,
        settings=_once("--setting", given["settings"]) or None,
        **{key: given[key] for key in keys},
    )


def write_report(report: Any, page: Path) -> list[Path]:
    """Write a report as a page and, beside it, as JSON."""
    from cdfss.running.files import replacing

    written = []
    for path, text in ((page, report.to_html()), (page.with_suffix(".json"), report.to_json())):
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8")
        written.append(path)
    return written
