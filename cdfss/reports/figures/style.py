"""What all figures share: sizes, colours, panels, files."""

import json
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.ndimage import binary_erosion

from cdfss.reports import statistics
from cdfss.running import provenance
from cdfss.running.files import replacing

# Okabe and Ito's colours, told apart with any colour vision.
SUPPORT, TRUTH, PREDICTION = "#0072B2", "#009E73", "#D55E00"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), "-.")
MARKERS = "osD^vP"
TRIVIAL_MARKERS = "+1"
GREY, PALE = "#777777", "#bbbbbb"  # what has no colour of its own; lines of reference
COLUMN = 17  # signs above one of seven pictures in a row
WIDTH = 6.75  # inches, two columns of a paper; still readable when shrunk to a text width of 5.5
SMALL, TINY = 6.5, 5.5  # points
COLUMNS_OF_LEGEND, SIGNS_OF_LEGEND = 5, 130
BARS = {"fmt": "none", "elinewidth": 0.6, "capsize": 1.5}  # error bars without their points
matplotlib.rcParams.update(
    {
        "font.size": 7.5,
        "axes.titlesize": 8,
        "axes.labelsize": 7.5,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": 7,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.1,
        "lines.markersize": 3.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "cdfss",  # the same figure, the same file
    }
)


def save(figure, paths, made_from=()) -> None:
    """Write a figure to every path (SVG, PNG), saying in it what it was made from, and close it.

    Args:
        made_from: files whose `provenance.summary` it is.

    Raises:
        CdfssError: when these do not belong together.
    """
    origin = provenance.summary(made_from)
    for path in map(Path, paths):
        with replacing(path) as temporary:
            metadata = {"Description": provenance.in_words(origin)}
            # A page compares it with that of its tables.
            metadata |= {"Date": None} if path.suffix == ".svg" else {"Comment": json.dumps(origin)}
            figure.savefig(
                temporary, format=path.suffix[1:], dpi=200, bbox_inches="tight", metadata=metadata
            )
    plt.close(figure)


def tinted(picture: np.ndarray, mask: np.ndarray, colour: str) -> np.ndarray:
    """A picture (S, S, 3) uint8 with a mask (S, S): tinted inside, outlined, slightly faded outside."""
    mask, colour = np.asarray(mask, bool), 255 * np.array(to_rgb(colour))
    shown = np.where(mask[..., None], 0.55 * picture + 0.45 * colour, 0.9 * picture + 0.05 * 255)
    return np.where(edge_of(mask)[..., None], colour, shown).round().astype(np.uint8)


def edge_of(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (S, S) bool that its outline is drawn with, a hundredth of S wide."""
    return mask & ~binary_erosion(mask, iterations=max(1, len(mask) // 100), border_value=1)


def layer(mask: np.ndarray, colour: str, inside: bool = True) -> Image.Image:
    """A mask (S, S) as a transparent picture that does to one below it what `tinted` does.

    Args:
        inside: else nothing but the outline is drawn.
    """
    mask, colour = np.asarray(mask, bool), [round(255 * part) for part in to_rgb(colour)]
    image = Image.fromarray(mask.astype(np.uint8) + edge_of(mask))  # 0 outside, 1 inside, 2 outline
    image.putpalette([127, 127, 127, *colour, *colour])
    image.info["transparency"] = bytes([26, 115, 255] if inside else [0, 0, 255])  # 255 is opaque
    return image


def lacking(text: str):
    """A figure that says what the run lacks, in place of one that cannot be drawn."""
    figure, axis = plt.subplots(figsize=(WIDTH / 2, 1), layout="constrained")
    axis.set_axis_off()
    axis.text(0.5, 0.5, f"Not in this run: {text}", ha="center", va="center", wrap=True)
    return figure


def looks(settings: dict) -> dict[str, dict]:
    """Colour, line and marker of every variant: black for the baseline, grey without a model."""
    styles, number, trivial = {}, 0, 0
    for name, variant in settings["variants"].items():
        if name == settings["baseline"]:
            styles[name] = {"color": "black", "linestyle": LINES[1], "marker": "x"}
        elif variant["kind"] == "trivial":
            marker = TRIVIAL_MARKERS[trivial % len(TRIVIAL_MARKERS)]
            styles[name] = {"color": GREY, "linestyle": LINES[2 + trivial % 2], "marker": marker}
            trivial += 1
        else:
            turn, colour = divmod(number, len(COLOURS))
            # Other pairs of colour and marker at each turn: figures of points have no lines.
            line, marker = LINES[turn % len(LINES)], MARKERS[(number + turn) % len(MARKERS)]
            styles[name] = {"color": COLOURS[colour], "linestyle": line, "marker": marker}
            number += 1
    return styles


def without_marker(look: dict) -> dict:
    """Colour and line of one of `looks`."""
    return {key: look[key] for key in ("color", "linestyle")}


def plain(text: str, width: int = 26) -> str:
    """A user's own text, of which nothing is a formula, in lines of at most `width` signs."""
    text = textwrap.fill(text, width)
    # What begins with an underscore is left out of legends.
    return ("\u200a" if text.startswith("_") else "") + text.replace("$", r"\$")


def title_of(settings: dict, variant: str, width: int = 40) -> str:
    """Title of a variant, in lines of at most `width` signs."""
    return plain(settings["variants"][variant]["title"], width)


def panels(settings: dict, rows: int = 1, height: float = 1.7, **keywords):
    """A figure with `rows` rows of a panel per domain: figure, axes (rows, domains)."""
    number = len(settings["domains"])
    figure, axes = plt.subplots(
        rows,
        number,
        figsize=(max(WIDTH * number / 4, WIDTH / 2), height * rows + 0.5),
        squeeze=False,
        layout="constrained",
        **keywords,
    )
    for axis, title in zip(axes[0], settings["domains"].values(), strict=True):
        axis.set_title(plain(title))
    return figure, axes


def picture_grid(rows: int, columns: int, in_width: int, height: float):
    """A figure for pictures, `in_width` of which fill WIDTH: figure, axes (rows, columns) without ticks.

    Args:
        height: of the figure, inches.
    """
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH * max(columns, 4) / in_width, height),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def meaning(mark: str, ends, settings: dict) -> str:
    """What the shadings or bars of a figure are, to stand in it.

    Args:
        mark: what is drawn, "Shaded".
        settings: `Shown.table_settings`.
        ends: of all intervals, any shape; nan where a list has none.
    """
    known = np.isfinite(np.asarray(ends, float))
    if not known.any():
        return "No intervals: too few episodes, or that change."
    about = statistics.in_words(settings["stated"], settings["domains"])
    return f"{mark}: 95 % interval, {about}." + (
        "" if known.all() else " Where none is drawn, too few episodes, or that change."
    )


def bars(estimates) -> np.ndarray:
    """Lengths of error bars below and above the values of n estimates, (2, n); nan where there are none."""
    ends = np.array([estimate.interval for estimate in estimates]).T
    return np.abs(ends - [estimate.value for estimate in estimates])


def points_label(shot: int, baseline: str | None) -> str:
    """Label of an axis of mIoU, or of its differences where there is a baseline."""
    return f"{shot}-shot mIoU − baseline,\npoints" if baseline else f"{shot}-shot mIoU, %"


def baseline_at_0(axis, level, title: str, look: dict) -> None:
    """In a panel of differences: the baseline as the line at 0, its own level in the panel's title."""
    axis.axhline(0, **without_marker(look), zorder=0, label=title)
    axis.set_title(f"{axis.get_title()}\nbaseline {level.value:.1f} %", fontsize=plt.rcParams["font.size"])


def legend(figure, axes, note: str = "") -> None:
    """One legend below all panels, each label once, headed by a note; the figure grows by what it needs."""
    entries = {}
    for axis in np.ravel(axes):
        for handle, label in zip(*axis.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if entries or note:
        lines = [line for label in entries for line in label.split("\n")]
        width, height = figure.get_size_inches()
        room = int(SIGNS_OF_LEGEND * width / WIDTH)
        longest = max(map(len, lines), default=0)
        columns = max(1, min(room // (longest + 5), COLUMNS_OF_LEGEND, len(entries)))
        tallest = max((label.count("\n") + 1 for label in entries), default=0)
        rows = -(-len(entries) // columns)
        note = textwrap.fill(note, room)
        figure.set_size_inches(width, height + 0.13 * (rows * tallest + len(note.splitlines()) - 1))
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            title=note or None,
            title_fontsize=SMALL,
        )
