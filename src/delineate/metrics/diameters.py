"""Diameters of a structure within a slice, as they are measured by hand in follow-up.

The long axis is the largest distance between two points of the outline on one slice, and the slice
is the one on which it is largest; the short axis is the extent across it on that slice. Outlines
run midway between pixels inside and outside, so a single pixel is as long as its longer side. The
module knows no structures and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Diameters:
    """Axes in mm, and the slice (k) on which they are."""

    long_mm: float
    short_mm: float
    slice: int


def diameters(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Diameters:
    """The diameters of a mask (I, J, K) on its slices k; of parts, the distance may span several.

    Args:
        mask: (I, J, K).
        spacing_mm: of I and J (further values are not used).

    Returns:
        NaN and slice -1 of an empty mask.

    A box of 5 x 3 pixels of 1 x 2 mm:

    >>> box = np.zeros((9, 9, 2), bool)
    >>> box[2:7, 3:6, 1] = True
    >>> found = diameters(box, (1, 2, 5))
    >>> round(found.long_mm, 2), round(found.short_mm, 2), found.slice
    (7.21, 6.66, 1)
    """
    best = Diameters(math.nan, math.nan, -1)
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        points = _extremes(mask[:, :, k]) * np.asarray(spacing_mm[:2], float)
        reach = float(np.linalg.norm(np.ptp(points, axis=0)))
        if best.slice >= 0 and reach <= best.long_mm:
            continue
        long_mm, across = _longest(points)
        if best.slice < 0 or long_mm > best.long_mm:
            best = Diameters(long_mm, float(np.ptp(points @ across)), int(k))
    return best


def _extremes(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(points, 2) the points of the outline of (I, J) that can be ends of its diameters."""
    columns = np.flatnonzero(inside.any(axis=0))
    rows = inside[:, columns]
    first = rows.argmax(axis=0)
    last = inside.shape[0] - 1 - rows[::-1].argmax(axis=0)
    around = (
        (first - 0.5, 0),
        (last + 0.5, 0),
        *((e, s) for e in (first, last) for s in (-0.5, 0.5)),
    )
    return np.concatenate([np.column_stack([i, columns + shift]) for i, shift in around])


def _longest(points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The largest distance between two points, and the direction across it."""
    from scipy.spatial import ConvexHull

    corners = points[ConvexHull(points).vertices]
    ways = corners[:, None] - corners[None]
    lengths = np.linalg.norm(ways, axis=-1)
    i, j = np.unravel_index(int(lengths.argmax()), lengths.shape)
    way = ways[i, j] / lengths[i, j]
    return float(lengths[i, j]), np.array([-way[1], way[0]])
