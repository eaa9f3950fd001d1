"""The pixels inside polygons, exactly, and the polygons around pixels.

x is the column and y the row. (0, 0) is the upper left corner of the first pixel, whose centre is
(0.5, 0.5). Several polygons are combined by exclusive or (even-odd), so that one inside another is
a hole. An edge counts for the pixels whose centres are right of it or on it: polygons with a common
edge share no pixel and leave none out. This module knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Points",
    "Rule",
    "area_of",
    "inside_polygon",
    "inside_polygons",
    "outlines",
    "points_inside",
    "signed_area",
    "windings",
]

Points = NDArray[np.float64]  # (corners, 2): x, y
Rule = Literal["centre", "area"]
MOST_PIXELS = 1e12  # a coordinate, beyond which no crossing could be computed
CROSSINGS = 1 << 20  # of edges with rows of pixels, computed at a time
PARTS = 8  # of a pixel along each axis, whose centres stand for its area


def inside_polygon(polygon: Points, rows: int, columns: int) -> NDArray[np.bool_]:
    """(rows, columns) the pixels whose centres are inside, by the even-odd rule.

    Args:
        polygon: (corners, 2) x and y; the last corner is joined to the first.
    """
    return inside_polygons([polygon], rows, columns)


def inside_polygons(
    polygons: Sequence[Points], rows: int, columns: int, rule: Rule = "centre"
) -> NDArray[np.bool_]:
    """(rows, columns) the pixels that are inside an odd number of polygons; none without polygons.

    Args:
        polygons: (corners, 2) x and y each; the last corner is joined to the first.
        rule: "centre" counts a pixel if its centre is inside; "area" if at least half of its
            ``PARTS`` x ``PARTS`` parts are, by their centres.

    Raises:
        ValueError: a coordinate beyond ``MOST_PIXELS``.

    >>> square = np.array([[1.0, 0.4], [3.0, 0.4], [3.0, 2.4], [1.0, 2.4]])
    >>> inside_polygons([square], 3, 4).astype(int)
    array([[0, 1, 1, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    >>> inside_polygons([square, square], 3, 4).any()
    np.False_
    """
    if rule == "area":
        fine = [polygon * PARTS for polygon in polygons]
        parts = inside_polygons(fine, rows * PARTS, columns * PARTS)
        count = parts.reshape(rows, PARTS, columns, PARTS).sum(axis=(1, 3))
        return np.asarray(2 * count >= PARTS**2)
    if not polygons:
        return np.zeros((rows, columns), bool)
    # Each crossing toggles the pixels from its column on. Only whether their number is odd counts,
    # so it may run over.
    crossings = np.zeros(rows * (columns + 1), np.uint8)
    for place, _ in _crossings(polygons, rows, columns):
        np.add.at(crossings, place, np.uint8(1))
    toggles = crossings.reshape(rows, columns + 1)[:, :columns] & 1
    np.bitwise_xor.accumulate(toggles, axis=1, out=toggles)
    return toggles.view(bool)


def windings(polygon: Points, rows: int, columns: int) -> NDArray[np.int64]:
    """(rows, columns) how often the polygon runs around the centre of each pixel, negative in the
    other direction: 0 and 1, or 0 and -1, if it does not cross itself.

    >>> windings(np.array([[0.0, 0.0], [4.0, 2.0], [4.0, 0.0], [0.0, 2.0]]), 2, 4)
    array([[ 1,  0,  0, -1],
           [ 1,  0,  0, -1]])
    """
    turns = np.zeros(rows * (columns + 1), np.int64)
    for place, is_upward in _crossings([polygon], rows, columns):
        np.add.at(turns, place, np.where(is_upward, 1, -1))
    return np.cumsum(turns.reshape(rows, columns + 1)[:, :columns], axis=1)


def _crossings(
    polygons: Sequence[Points], rows: int, columns: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Where edges cross the centres of rows of pixels, some at a time: the first pixel whose centre
    is at the crossing or right of it, as row * (columns + 1) + column; and whether the edge runs
    up the rows.
    """
    starts = np.concatenate(polygons)
    if not (np.abs(starts) < MOST_PIXELS).all():
        raise ValueError(f"a coordinate is not finite, or beyond {MOST_PIXELS:g} pixels")
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    # Each edge runs down the rows, so that a common edge has the same crossings in both polygons.
    turned = (starts[:, 1] > ends[:, 1])[:, None]
    starts, ends = np.where(turned, ends, starts), np.where(turned, starts, ends)
    # The rows whose centre y satisfies start <= y < end.
    first = np.clip(np.ceil(starts[:, 1] - 0.5), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(ends[:, 1] - 0.5), 0, rows).astype(np.int64)
    for some in _blocks(last - first):
        counts = (last - first)[some]
        edge = np.repeat(np.arange(some.start, some.stop), counts)
        row = np.arange(len(edge)) + np.repeat(first[some] - np.cumsum(counts) + counts, counts)
        (x1, y1), (x2, y2) = starts[edge].T, ends[edge].T
        x = x1 + (row + 0.5 - y1) * (x2 - x1) / (y2 - y1)
        column = np.clip(np.ceil(x - 0.5), 0, columns).astype(np.int64)
        yield row * (columns + 1) + column, turned[edge, 0]


def _blocks(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Edges in turn, with about ``CROSSINGS`` together; an edge alone may have more."""
    ends, first = np.cumsum(counts), 0
    while first < len(counts):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + CROSSINGS, "right")), first + 1)
        yield slice(first, last)
        first = last


def points_inside(points: Points, polygon: Points) -> NDArray[np.bool_]:
    """(points,) whether each point is inside the polygon, by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y1 <= y) != (y2 <= y)
        if crosses.any():
            inside ^= crosses & (x >= x1 + (y - y1) * (x2 - x1) / (y2 - y1 or 1.0))
    return inside


def signed_area(polygon: Points) -> float:
    """The area, negative if the corners run the other way; the area of a hole that a keyhole joins
    to the outline is subtracted.

    >>> signed_area(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]]))
    6.0
    """
    # Relative to the first corner, so that far coordinates lose no digits.
    x, y = (polygon - polygon[0]).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def area_of(polygons: Sequence[Points]) -> float:
    """The area inside an odd number of polygons that do not cross each other: that of a polygon
    inside an odd number of others is subtracted.

    >>> outer = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]])
    >>> area_of([outer, outer / 2 + 0.2]), area_of([])
    (4.5, 0.0)
    """
    boxes = np.array([[*one.min(axis=0), *-one.max(axis=0)] for one in polygons])
    total = 0.0
    for n, one in enumerate(polygons):
        # Only a polygon whose box encloses the box of this one can enclose it.
        around = np.flatnonzero((boxes <= boxes[n]).all(axis=1)).tolist()
        # Corners may touch the other polygon: most of them decide.
        depth = sum(
            2 * int(points_inside(one, polygons[m]).sum()) > len(one) for m in around if m != n
        )
        total += abs(signed_area(one)) * (-1) ** depth
    return total


# ---- polygons around pixels ----


def outlines(mask: NDArray[np.bool_]) -> list[Points]:
    """The outlines of a mask: one polygon for each part, none for an empty mask.

    Corners lie halfway between the centre of a pixel inside and of one outside, so that
    ``inside_polygons`` gives the mask back exactly. Holes are joined to the outline around them by
    a keyhole: a line of no width that runs there and back (DICOM PS3.3 C.8.8.6.3).

    Args:
        mask: (rows, columns).

    >>> ring = np.ones((3, 3), bool)
    >>> ring[1, 1] = False
    >>> [one.shape for one in outlines(ring)]
    [(14, 2)]
    >>> (inside_polygons(outlines(ring), 3, 3) == ring).all()
    np.True_
    """
    from contourpy import FillType, contour_generator

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Values at pixel centres, with a margin outside.
    heights = np.pad(part.astype(np.float64), 1)
    generator = contour_generator(z=heights, fill_type=FillType.OuterOffset)
    corner = np.array([columns[0] - 0.5, rows[0] - 0.5])
    found = []
    for points, offsets in zip(*generator.filled(0.5, np.inf), strict=True):
        # Each ring repeats its first point at its end.
        rings = [
            _without_straight(points[begin : end - 1]) + corner for begin, end in pairwise(offsets)
        ]
        found.append(_keyholed(rings[0], rings[1:]))
    return found


def _without_straight(ring: Points) -> Points:
    """A ring without the points at which it does not turn."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.asarray(ring[turn != 0])


def _keyholed(outer: Points, holes: Sequence[Points]) -> Points:
    """One polygon of an outline and the holes in it, each joined where it is nearest."""
    whole = outer
    for hole in sorted(holes, key=lambda hole: _between(outer, hole).min()):
        distances = _between(whole, hole)
        at, begin = np.unravel_index(int(distances.argmin()), distances.shape)
        there = np.roll(hole, -int(begin), axis=0)
        # To the hole, around it, and back to the same corner.
        whole = np.concatenate([whole[: at + 1], there, there[:1], whole[at:]])
    return whole


def _between(one: Points, other: Points) -> NDArray[np.float64]:
    """(points of one, points of the other) squared distances."""
    return np.asarray(((one[:, None] - other[None]) ** 2).sum(axis=-1))
