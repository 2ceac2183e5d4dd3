"""Large pictures in overlapping tiles, whose predictions are blended without a seam."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from cdfss.segmentation.supports import Support, Supports

LARGE = 1.5  # sides of a tile; a picture with a longer side is seen in tiles, a smaller one whole
OVERLAP = 0.25  # of a tile's side, at least, that two neighbours share
MOST = 16  # tiles of the supports of a class: all at once they take 0.17 GB each at 400 pixels (ridge)


def is_large(shape: tuple[int, int], tile: int) -> bool:
    """Whether a picture of this shape (H, W) is seen in tiles of a side, in pixels."""
    return max(shape) > LARGE * tile


def starts(side: int, tile: int) -> list[int]:
    """First pixels of the tiles along a side, evenly spread; the last one ends where the side does."""
    if side <= tile:
        return [0]
    number = math.ceil((side - OVERLAP * tile) / (tile - OVERLAP * tile))
    return [round(place) for place in np.linspace(0, side - tile, number)]


def weights(side: int, tile: int) -> np.ndarray:
    """(tiles, side) float32: what each tile counts at each pixel along a side; columns add up to 1.

    A tile counts less and less towards an edge that lies within the picture.
    """
    first, tile = np.array(starts(side, tile))[:, None], min(side, tile)
    pixels = np.arange(side) + 0.5
    ramp = max(OVERLAP * tile, 1)
    rising = np.where(first > 0, (pixels - first) / ramp, 1)
    falling = np.where(first + tile < side, (first + tile - pixels) / ramp, 1)
    inside = (pixels > first) & (pixels < first + tile)
    raw = np.where(inside, np.minimum(np.minimum(rising, falling), 1), 0)
    return (raw / raw.sum(0)).astype(np.float32)


def blended(
    shape: tuple[int, int], tile: int, predict: Callable[[slice, slice], np.ndarray]
) -> Iterator[np.ndarray]:
    """Predictions of a large picture in strips (C, rows, W), from top to bottom, as they are finished.

    No more than a row of tiles is kept at a time, however high the picture is.

    Args:
        shape: of the picture, (H, W).
        tile: side of a tile, pixels; a shorter side of the picture bounds it.
        predict: rows and columns of a tile -> its prediction (C, h, w) float32.
    """
    (height, width), (down, across) = shape, (weights(side, tile) for side in shape)
    tops, lefts = starts(height, tile), starts(width, tile)
    kept, done = np.empty(0, np.float32), 0  # (C, rows, W) sums from row `done` on
    for number, top in enumerate(tops):
        rows = slice(top, min(top + tile, height))
        for place, left in enumerate(lefts):
            columns = slice(left, min(left + tile, width))
            found = predict(rows, columns)
            if not kept.size:
                kept = np.zeros((len(found), rows.stop - rows.start, width), np.float32)
            share = down[number, rows, None] * across[place, None, columns]
            kept[:, top - done :, columns] += found * share
        end = tops[number + 1] if number + 1 < len(tops) else height
        yield kept[:, : end - done]
        rest = kept[:, end - done :]
        if end < height:
            more = np.zeros((len(rest), end + tile - rows.stop, width), np.float32)
            kept = np.concatenate([rest, more], 1)
        done = end


def cut(supports: Supports, tile: int) -> tuple[Supports, list[str]]:
    """Supports in tiles where they are large, so that they look as queries do, and what people should know.

    Of a class at most MOST are taken: those first that show most of both, the class and what it is not; and
    of tiles without it no more than of those with it.
    """
    pieces: dict[tuple, np.ndarray] = {}  # a picture of several classes stays one array

    def parts(one: Support) -> list[Support]:
        if not is_large(one.mask.shape, tile):
            return [one]
        found = []
        for top in starts(one.mask.shape[0], tile):
            for left in starts(one.mask.shape[1], tile):
                place = slice(top, top + tile), slice(left, left + tile)
                picture = pieces.setdefault((id(one.picture), top, left), one.picture[place])
                unknown = None if one.unknown is None else one.unknown[place]
                found.append(Support(f"{one.name} at {left}, {top}", picture, one.mask[place], unknown))
        return found

    classes, remarks = {}, []
    for label, of in supports.classes.items():
        all_parts = [part for one in of for part in parts(one)]
        with_it = sorted(
            (part for part in all_parts if part.mask.any()),
            key=lambda part: -min(part.mask.sum(), (~part.mask).sum()),
        )[:MOST]
        without = [part for part in all_parts if not part.mask.any()]
        room = min(len(with_it), MOST - len(with_it))
        taken = {id(part) for part in with_it + without[:: max(1, len(without) // max(room, 1))][:room]}
        classes[label] = [part for part in all_parts if id(part) in taken]
        if len(all_parts) > len(of):
            remarks.append(
                f"{label}: {len(of)} supports are seen in {len(classes[label])} of {len(all_parts)} tiles"
            )
    return replace(supports, classes=classes), remarks
