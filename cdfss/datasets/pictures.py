"""Reading images and masks from files, at a square size (HSNet data/dataset.py)."""

from pathlib import Path

import numpy as np
from PIL import Image

VOID = 255  # value of pixels in index masks that belong to no class and do not count

# Land-cover tiles and dermoscopy pictures are large but not bombs.
Image.MAX_IMAGE_PIXELS = None


def read_image(path: str | Path, size: int) -> np.ndarray:
    """RGB picture resized bilinearly, without keeping its aspect: (size, size, 3) uint8."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def read_mask(path: str | Path, value: int | None, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and void of a mask file, each (size, size) bool, resized to the nearest pixel.

    Args:
        value: class value in an index mask (255 is void); None for a binary mask.
    """
    if value is None:
        foreground = binary_foreground(path)
        void = np.zeros_like(foreground)
    else:
        values = index_values(path)
        foreground, void = values == value, values == VOID
    return nearest(foreground, size), nearest(void, size)


def binary_foreground(path: str | Path) -> np.ndarray:
    """(H, W) bool of a binary mask file: grey values from 128, or 1 where there are only 0 and 1."""
    with Image.open(path) as image:
        grey = np.array(image.convert("L"))
    return grey >= 128 if grey.max() > 1 else grey == 1


def index_values(path: str | Path) -> np.ndarray:
    """(H, W) uint8 of an index mask file (palette or grey)."""
    with Image.open(path) as image:
        values = np.array(image)
    if values.ndim != 2:
        raise ValueError(f"is a colour picture (mode {image.mode}); expected class values")
    return values


def nearest(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) -> (size, size) by the rule of torch's mode='nearest', float32 scale included."""
    rows, columns = (
        np.minimum((np.arange(size, dtype=np.float32) * np.float32(side / size)).astype(int), side - 1)
        for side in mask.shape
    )
    return mask[rows[:, None], columns]
