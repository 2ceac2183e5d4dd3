"""Pictures as people hand them over in Python: paths, arrays, Pillow's images."""

from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from cdfss.data import pictures
from cdfss.errors import CdfssError

Picture: TypeAlias = str | Path | np.ndarray | Image.Image


def picture(given: Picture, name: str = "picture") -> np.ndarray:
    """A picture as (H, W, 3) uint8, upright.

    Args:
        given: a path; an array (H, W, 3) or grey (H, W), uint8, or floating point in 0..1; or an image of
            Pillow's.
        name: for errors.

    Raises:
        CdfssError: says what came and what is expected.
    """
    if isinstance(given, (str, Path)):
        return _read(Path(given))
    if isinstance(given, Image.Image):
        try:
            return np.array(pictures._rgb(given, pictures.Reading(own=True)))
        except ValueError as error:
            raise CdfssError(f"{name} {error}") from error
    if not isinstance(given, np.ndarray):
        raise CdfssError(
            f"{name} is a {type(given).__name__}; expected a path, an array (H, W, 3) of uint8, or an "
            "image of Pillow's"
        )
    return _of_array(given, name)


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise CdfssError(f"{path} {what}; expected a picture's file")
    try:
        with pictures.opened(path, pictures.Reading(own=True)) as image:
            return np.array(pictures._rgb(image, pictures.Reading(own=True)))
    except (ValueError, OSError) as error:
        raise CdfssError(f"{path} {error}") from error


def _of_array(values: np.ndarray, name: str) -> np.ndarray:
    shape = list(values.shape)
    if values.ndim == 3 and values.shape[2] == 4:
        raise CdfssError(f"{name} has the shape {shape}, with alpha; give its first three channels, RGB")
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        raise CdfssError(
            f"{name} has the shape {shape}, channels first; expected (H, W, 3): give it as "
            "np.moveaxis(picture, 0, -1)"
        )
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3)) or 0 in shape:
        raise CdfssError(f"{name} has the shape {shape}; expected (H, W, 3), or (H, W) of grey values")
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise CdfssError(
                f"{name} holds floating point numbers from {low:.6g} to {high:.6g}; expected 0 to 1, or "
                "uint8 from 0 to 255"
            )
        values = np.rint(255 * values).astype(np.uint8)
    if values.dtype != np.uint8:
        raise CdfssError(
            f"{name} is of type {values.dtype}; expected uint8 from 0 to 255, or floating point numbers in "
            "0..1: which values are black and white is not clear else"
        )
    if values.ndim == 2:
        values = values[..., None]
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
