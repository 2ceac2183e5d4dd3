"""Masks at two sizes: at that of a prediction, and as pixel counts of their own for each position of it."""

from collections.abc import Iterator

import numpy as np

from cdfss.data.pictures import Reading, nearest, whole_mask


def read_whole_mask(
    file, value: int | None, size: int, reading: Reading
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mask at `size` and at its own size, decoded once for both.

    Returns:
        Foreground (S, S) bool, void (S, S) bool, and (2, S, S) int32: pixels of background and
        foreground, void left out, that get their value from each position of a prediction (S, S)
        when it is brought to the mask's own size (nearest).

    Raises:
        ValueError: as `pictures.read_mask`.
    """
    foreground, void = whole_mask(file, value, reading)
    own = np.empty((2, size, size), np.int32)
    own[1] = pixels_by_position(foreground, size)
    if void is None:
        own[0] = pixels_of_positions(foreground.shape, size) - own[1]
        return nearest(foreground, size), np.zeros((size, size), bool), own
    own[0] = pixels_by_position(~foreground & ~void, size)
    return nearest(foreground, size), nearest(void, size), own


def _positions(side: int, size: int) -> np.ndarray:
    """(side,) position of a prediction's `size` that each pixel takes, by the rule of `nearest`."""
    return np.minimum((np.arange(side, dtype=np.float32) * np.float32(size / side)).astype(int), size - 1)


def pixels_of_positions(shape: tuple[int, int], size: int) -> np.ndarray:
    """(S, S) int: how many pixels of a picture of a shape (H, W) take their value from each position."""
    return np.outer(*(np.bincount(_positions(side, size), minlength=size) for side in shape))


def pixels_by_position(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bool -> (S, S) int32: how many true pixels take their value from each position of (S, S)."""
    (rows, row_starts), (columns, column_starts) = (
        np.unique(_positions(side, size), return_index=True) for side in mask.shape
    )
    sums = np.add.reduceat(mask, column_starts, axis=1, dtype=np.int32)  # first along the memory: quicker
    found = np.zeros((size, size), np.int32)  # of a smaller mask, some positions give no pixel its value
    found[rows[:, None], columns] = np.add.reduceat(sums, row_starts, axis=0)
    return found


def bits_to_bytes(*masks: np.ndarray) -> bytes:
    """Masks (S, S) bool one after the other, a bit a pixel, each row of them from a byte of its own."""
    return b"".join(np.packbits(mask, axis=-1).tobytes() for mask in masks)


def bits_from_bytes(content, size: int) -> np.ndarray:
    """(N, S, S) bool of what `bits_to_bytes` gives."""
    packed = np.frombuffer(content, np.uint8).reshape(-1, size, -(-size // 8))
    return np.unpackbits(packed, axis=-1, count=size).view(bool)


def own_to_bytes(own: np.ndarray, shape: tuple[int, int]) -> bytes:
    """Counts at a mask's own size, as `read_whole_mask` gives them, in few bytes.

    Foreground, then background unless it is all the rest, each as the positions that have all of their
    pixels, those that have some, and the numbers of these in the smallest type that takes them.

    Args:
        shape: of the mask, (H, W).
    """
    size = own.shape[-1]
    most = pixels_of_positions(shape, size)
    kinds = own[1:] if (own.sum(0) == most).all() else own[::-1]
    content = b""
    for counts in kinds:
        some = (counts > 0) & (counts < most)
        content += bits_to_bytes(counts == most, some) + counts[some].astype(_type_for(most)).tobytes()
    return content


def own_from_bytes(content, shape: tuple[int, int], size: int) -> np.ndarray:
    """(2, S, S) int32 of what `own_to_bytes` gives."""
    most = pixels_of_positions(shape, size)
    kinds = list(_counts(memoryview(content), most))
    own = np.empty((2, size, size), np.int32)
    own[1] = kinds[0]
    own[0] = kinds[1] if len(kinds) > 1 else most - own[1]
    return own


def _counts(content: memoryview, most: np.ndarray) -> Iterator[np.ndarray]:
    size, kind = len(most), _type_for(most)
    bits = 2 * size * -(-size // 8)
    while len(content):
        every, some = bits_from_bytes(content[:bits], size)
        counts = np.where(every, most, 0)
        end = bits + int(some.sum()) * kind.itemsize
        counts[some] = np.frombuffer(content[bits:end], kind)
        yield counts
        content = content[end:]


def _type_for(most: np.ndarray) -> np.dtype:
    return np.min_scalar_type(int(most.max()))
