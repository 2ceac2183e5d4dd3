"""The trust report as one file for a browser, its pictures inside."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

if TYPE_CHECKING:
    from cdfss.segmentation.trust import Report

SIDE = 220  # pixels of the longer side of an overlay
SHOWN = 12  # queries with a picture at either end of the order by confidence


def support(picture: np.ndarray, mask: np.ndarray, found: np.ndarray) -> bytes:
    """JPEG of a support (S, S, 3) twice, side by side: with its mask, and with what was predicted."""
    from cdfss.reports.figures.style import PREDICTION, SUPPORT, tinted

    given, predicted = (_small(tinted(picture, m, c)) for m, c in ((mask, SUPPORT), (found, PREDICTION)))
    gap = np.full((len(given), 4, 3), 255, np.uint8)
    return _jpeg(np.concatenate([given, gap, predicted], 1))


def query(
    picture: np.ndarray, probabilities: np.ndarray, colours: dict[str, tuple[int, int, int]]
) -> bytes:
    """JPEG of a query (H, W, 3) with the masks of all classes, from probabilities (C, H, W)."""
    from cdfss.reports.figures.style import PREDICTION, tinted

    shown = _small(picture)
    label = np.where(probabilities.max(0) >= 0.5, probabilities.argmax(0) + 1, 0).astype(np.uint8)
    label = np.array(Image.fromarray(label).resize(shown.shape[1::-1], Image.Resampling.NEAREST))
    for number, rgb in enumerate(colours.values(), 1):
        colour = PREDICTION if len(colours) == 1 else "#" + "".join(f"{value:02x}" for value in rgb)
        if (label == number).any():
            # Outside of a mask `tinted` fades, which would add up over the classes.
            shown = np.where((label == number)[..., None], tinted(shown, label == number, colour), shown)
    return _jpeg(shown)


def render(report: "Report", thresholds: tuple[float, float]) -> str:
    """The page of a report.

    Args:
        thresholds: between which confidence is what stays of a mask.
    """
    environment = Environment(
        loader=PackageLoader("cdfss.segmentation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    labels = list(dict.fromkeys(one.label for one in report.scores))
    methods = list(dict.fromkeys(one.method for one in report.scores))
    of = {(one.method, one.label): one for one in report.scores}
    order = sorted(report.confidence, key=lambda one: one.value)
    shown = order if len(order) <= 2 * SHOWN else [*order[:SHOWN], *order[-SHOWN:]]
    left_out = {(row.method, row.label, row.support): row.iou for row in report.loo}
    return environment.get_template("trust.html").render(
        report=report,
        low=thresholds[0],
        high=thresholds[1],
        labels=labels,
        methods=methods,
        scores=of,
        supports=_supports(report),
        left_out=left_out,
        order=order,
        shown=shown,
        hidden=len(order) - len(shown),
        image=lambda *key: _inline(report.pictures[key]) if key in report.pictures else None,
        tiles=lambda label, name: [
            _inline(data)
            for (kind, of_label, tile), data in report.pictures.items()
            if kind == "support" and of_label == label and (tile == name or tile.startswith(f"{name} at "))
        ],
    )


def _supports(report: "Report") -> list[tuple[str, list]]:
    """By class, its supports as (name, IoU, balanced error or None, suspicious), the worst first."""
    found = []
    for label in dict.fromkeys(row.label for row in report.loo):
        told = [one for one in report.disagreement if one.label == label]
        lines: list[tuple[str, float | None, float | None, bool]] = [
            (one.support, one.iou, one.error, one.suspicious) for one in told
        ]
        known = {one.support for one in told}
        lines += [
            (row.support, row.iou, None, False)
            for row in report.loo
            if row.label == label and row.method == report.best and row.support not in known
        ]
        found.append((label, lines))
    return found


def _small(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the longer side at SIDE."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    shape = max(1, round(scale * width)), max(1, round(scale * height))
    return np.array(Image.fromarray(np.ascontiguousarray(picture)).resize(shape, Image.Resampling.LANCZOS))


def _jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return file.getvalue()


def _inline(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
