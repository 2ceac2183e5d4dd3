"""Regions of a mask as polygons along the edges of its pixels, with their holes.

A region is a set of pixels that share edges. Rings are simple: where two pixels of a region meet in nothing
but a corner, that corner is cut, so that no ring touches itself. Rasterised by the centres of pixels, the
polygons are the mask again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

# Directions of edges, each a turn to the right of the one before, as a picture is seen: x right, y down.
EAST, SOUTH, WEST, NORTH = range(4)
STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


@dataclass
class Region:
    """Pixels of a mask that share edges.

    Attributes:
        pixels: their number.
        box: x, y, width and height in pixels.
        inside: (height, width) bool, the pixels of the box that are of the region.
        outer: ring around them, (n, 2) corners x, y, the first not repeated; in these coordinates its area
            by the shoelace formula is positive.
        holes: rings around what is left out, whose area is negative.
    """

    pixels: int
    box: tuple[int, int, int, int]
    inside: np.ndarray
    outer: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    holes: list[np.ndarray] = field(default_factory=list)


def number_of(mask: np.ndarray) -> int:
    """How many regions a mask (H, W) bool has."""
    return int(ndimage.label(mask)[1])


def regions(mask: np.ndarray) -> list[Region]:
    """Regions of a mask (H, W) bool, in the order of their first pixels, row by row.

    Coordinates are in pixels, x right and y down from the upper left corner of the picture.
    """
    labels, _ = ndimage.label(mask)
    found = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[rows, columns] == label
        box = (columns.start, rows.start, *inside.shape[::-1])
        found.append(Region(int(inside.sum()), box, inside))
    for label, ring in _rings(mask, labels):
        if _area(ring) > 0:
            found[label - 1].outer = ring
        else:
            found[label - 1].holes.append(ring)
    return found


def _rings(mask: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Label of the region and (n, 2) corners of every closed line of edges."""
    x, y, direction, label = _edges(mask, labels)
    if not len(x):
        return
    following, shared = _successors(x, y, direction, mask.shape)
    turns = direction[following] != direction  # others lie within a straight line
    corner = np.stack([x, y], 1) + STEPS[direction]
    # Where two lines of edges meet in a corner, both cut it, half a pixel before and after.
    cut = np.where(shared[:, None], 0.5, 0)
    points = np.stack([corner - cut * STEPS[direction], corner + cut * STEPS[direction[following]]], 1)
    used = np.stack([turns, turns & shared], 1)
    for line in _lines(following.tolist()):
        ring = points[line][used[line]]
        yield int(label[line[0]]), ring[(ring != np.roll(ring, 1, axis=0)).any(1)]


def _lines(following: list[int]) -> Iterator[list[int]]:
    """Numbers of edges along every closed line, in order."""
    seen = bytearray(len(following))
    for start in range(len(following)):
        line, edge = [], start
        while not seen[edge]:
            seen[edge] = 1
            line.append(edge)
            edge = following[edge]
        if line:
            yield line


def _edges(mask: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Edges between a mask and what is not: x, y of their beginnings, direction, label of their region.

    The mask lies to the right of each.
    """
    parts = []
    padded = np.pad(mask, 1)
    for direction in range(4):
        # The neighbour that is not of the mask lies above an edge to the east, and so on.
        row, column = {EAST: (-1, 0), SOUTH: (0, 1), WEST: (1, 0), NORTH: (0, -1)}[direction]
        neighbour = padded[1 + row : 1 + row + mask.shape[0], 1 + column : 1 + column + mask.shape[1]]
        rows, columns = np.nonzero(mask & ~neighbour)
        x = columns + (direction in (SOUTH, WEST))
        y = rows + (direction in (WEST, NORTH))
        parts.append((x, y, np.full(len(x), direction), labels[rows, columns]))
    return tuple(np.concatenate(each) for each in zip(*parts))


def _successors(x, y, direction, shape) -> tuple[np.ndarray, np.ndarray]:
    """Number of the edge after each, and whether two lines of edges meet where it ends.

    There the line turns right, which keeps it at the same pixel.
    """
    width = shape[1] + 1
    keys = (y * width + x) * 4 + direction  # of where an edge begins
    order = np.argsort(keys)
    ordered = keys[order]
    ends = (y + STEPS[direction, 1]) * width + x + STEPS[direction, 0]

    def beginning(turn):  # number of the edge that begins there in a direction, or -1
        wanted = ends * 4 + (direction + turn) % 4
        place = np.searchsorted(ordered, wanted).clip(max=len(ordered) - 1)
        return np.where(ordered[place] == wanted, order[place], -1)

    right, straight, left = beginning(1), beginning(0), beginning(3)
    following = np.where(right >= 0, right, np.where(straight >= 0, straight, left))
    return following, (right >= 0) & (left >= 0)


def _area(ring: np.ndarray) -> float:
    """Signed area of a ring by the shoelace formula."""
    following = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum() / 2)
