"""Pictures as they are given (paths, arrays, Pillow's images), for `cdfss.data.pictures` to decode."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from cdfss.data.pictures import Reading, whole_image
from cdfss.errors import CdfssError

Picture = str | os.PathLike | np.ndarray | Image.Image


class Own(Reading):
    """How a person's own pictures are read, and what messages on them advise."""

    limit_key = "the limit in megapixels"
    range_key = "value_range (--value-range)"
    too_large = "cut it into smaller pictures"


def own_reading(value_range: tuple[float, float] | None = None) -> Reading:
    """How own pictures are read; up to 1000 megapixels, which are 3 GB in memory.

    Raises:
        CdfssError: when black is not below white.
    """
    if value_range is not None and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise CdfssError(
            f"value_range is {list(value_range)}; expected black below white, such as [0, 4095]"
        )
    return Own(own=True, value_range=value_range, max_megapixels=1000)


def decoded(source: Picture, reading: Reading) -> np.ndarray:
    """(H, W, 3) uint8 of a file, an array or Pillow's image.

    Raises:
        ValueError: says in one line what is wrong with it.
    """
    return whole_image(source_of(source, is_mask=False), reading)


def source_of(given: Picture, is_mask: bool) -> str | Image.Image:
    """What `cdfss.data.pictures` reads: the name of a file that is there, or an image.

    Raises:
        ValueError: says in one line what is wrong with it.
    """
    if isinstance(given, Image.Image):
        return given
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if path.is_dir():
            raise ValueError("is a folder; expected a picture")
        if not path.exists():
            raise ValueError("there is no such file")
        if path.stat().st_size == 0:
            raise ValueError("is an empty file")
        return str(path)
    values = np.asarray(given)  # of a tensor too
    if values.dtype.kind not in "buif":
        raise ValueError(f"is a {type(given).__name__}; expected a path, an array or an image of Pillow")
    one_of_several = (
        values.ndim == 3 and values.shape[0] == 1 and (is_mask or values.shape[2] not in (3, 4))
    )
    if one_of_several or (values.ndim == 3 and values.shape[2] == 1):
        values = values[0] if one_of_several else values[..., 0]
    expected = "(H, W)" if is_mask else "(H, W, 3) or (H, W)"
    if values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[2] not in (3, 4):
        raise ValueError(
            f"has the shape {values.shape}, channels first; expected {expected}: transpose it (1, 2, 0)"
        )
    if (
        values.ndim not in (2, 3)
        or (values.ndim == 3 and values.shape[2] not in (3, 4))
        or values.size == 0
    ):
        raise ValueError(f"has the shape {values.shape}; expected {expected}")
    return Image.fromarray(
        np.ascontiguousarray(_mask_values(values) if is_mask else _picture_values(values))
    )


def _mask_values(values: np.ndarray) -> np.ndarray:
    """An array of a mask in a type that Pillow knows."""
    if values.dtype.kind == "b" or values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255 and (values == np.floor(values)).all()):
        raise ValueError(
            f"has values from {low:.6g} to {high:.6g}; expected bool, or whole numbers from 0 to 255 (a "
            "probability: compare it with 0.5)"
        )
    return values.astype(np.uint8)


def _picture_values(values: np.ndarray) -> np.ndarray:
    """An array of a picture in a type that Pillow knows."""
    if values.dtype == np.uint8 or (values.dtype == np.uint16 and values.ndim == 2):
        return values
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(255 * values).astype(np.uint8)
    raise ValueError(
        f"is an array of {values.dtype} with values from {low:.6g} to {high:.6g}; expected uint8 (0 to "
        "255), float from 0 to 1, or grey in uint16"
    )


def each(given) -> list:
    """One picture, or several, as a list."""
    if isinstance(given, str | os.PathLike | Image.Image):
        return [given]
    if isinstance(given, list | tuple):
        return list(given)
    if not hasattr(given, "shape"):
        raise CdfssError(
            f"got a {type(given).__name__}; expected a path, an array, an image of Pillow, or a list"
        )
    # (H, W) or (H, W, 3) is one; (N, H, W), (N, H, W, 3) are several.
    several = given.ndim == 4 or (given.ndim == 3 and given.shape[2] not in (1, 3, 4))
    return list(given) if several else [given]


def name_of(picture: Picture, number: int) -> str:
    file = picture if isinstance(picture, str | os.PathLike) else getattr(picture, "filename", "")
    return Path(file).stem if file else f"image {number}"


def title_of(source: Picture, otherwise: str = "picture") -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else otherwise
