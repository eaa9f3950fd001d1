"""What truths show that no scan can: masks that are drawn into their images, and structures whose
order differs from that of the other cases.

Works on arrays and on summaries of cases; reads no files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ...core.grid import Grid
from ...core.labels import IGNORED

Centres = Mapping[int, tuple[float, float, float]]

FEWEST_VOXELS = 30  # of a mask that may be drawn into its image
SEEN = 1000  # voxels of a mask that are looked at first
MOST_VOXELS = 2_000_000  # of a truth whose centres are computed; of larger ones every n-th
MOST_STRUCTURES = 30  # whose order is compared
FEWEST_CASES = 8  # with both structures
# Two structures have an order if in this share of the cases the line between them is within acos
# ALONG of one axis.
ORDERED, ALONG = 0.9, 0.8


def is_drawn(image: NDArray[np.generic], label: NDArray[np.integer]) -> bool:
    """Whether an image (C, I, J, K) has, in some channel, one value inside each structure of its
    mask (I, J, K), and none of these values outside: it repeats the mask.

    >>> mask = np.zeros((1, 8, 8), np.uint8)
    >>> mask[:, 1:7, 1:7] = 1
    >>> is_drawn(mask[None] * 255, mask)
    True
    """
    inside = (label > 0) & (label != IGNORED)
    count = int(np.count_nonzero(inside))
    if count < FEWEST_VOXELS or count == label.size:
        return False
    most = len(np.unique(label[inside][:: max(1, count // SEEN)])) + 1
    for channel in image:
        values = channel[inside]
        if len(np.unique(values[:: max(1, count // SEEN)])) > most:
            continue
        found = np.unique(values)
        if len(found) <= most and not np.isin(channel[~inside], found).any():
            return True
    return False


def centres_of(label: NDArray[np.integer], grid: Grid) -> dict[int, tuple[float, float, float]]:
    """Value -> centroid in RAS+ mm of each structure of a label map (I, J, K)."""
    step = max(1, math.ceil((label.size / MOST_VOXELS) ** (1 / 3)))
    thin = label[::step, ::step, ::step]
    at = np.nonzero((thin > 0) & (thin != IGNORED))
    values = thin[at].astype(np.int64)
    counts = np.bincount(values)
    sums = [np.bincount(values, weights=step * axis.astype(float)) for axis in at]
    found = {}
    for value in np.flatnonzero(counts).tolist():
        place = grid.to_mm(np.array([[axis[value] / counts[value] for axis in sums]]))[0]
        found[value] = (float(place[0]), float(place[1]), float(place[2]))
    return found


def content_of(label: NDArray[np.integer]) -> str:
    """Hash of a mask (I, J, K) within its bounding box and of its place; "" for one of few voxels,
    or one that fills its box, which may be equal by chance.
    """
    inside = label > 0
    if int(np.count_nonzero(inside)) < FEWEST_VOXELS:
        return ""
    ends = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {n}))) for n in range(3)]
    low, high = [int(e[0]) for e in ends], [int(e[-1]) + 1 for e in ends]
    box = label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if box.all():
        return ""
    digest = hashlib.sha256(str((low, box.shape)).encode())
    digest.update(np.ascontiguousarray(box, dtype=np.int64).data)
    return digest.hexdigest()


def reversed_orders(
    centres: Mapping[str, Centres], apart: Sequence[frozenset[int]] = ()
) -> dict[tuple[int, int], list[str]]:
    """Pairs of structures -> the cases, at most half of them, in which their order is the opposite
    of that of the others; only pairs that have an order (``ORDERED``).

    Args:
        centres: case -> the centroids of its structures.
        apart: pairs that are judged elsewhere, such as left and right.
    """
    values = sorted({value for of_case in centres.values() for value in of_case})
    if len(values) > MOST_STRUCTURES:
        return {}
    found: dict[tuple[int, int], list[str]] = {}
    for one, other in combinations(values, 2):
        cases = [case for case, of in centres.items() if one in of and other in of]
        if len(cases) < FEWEST_CASES or frozenset((one, other)) in apart:
            continue
        lines = np.array([np.subtract(centres[c][other], centres[c][one]) for c in cases])
        lines /= np.maximum(np.linalg.norm(lines, axis=1, keepdims=True), 1e-9)
        along = lines @ np.linalg.eigh(lines.T @ lines)[1][:, -1]
        if np.mean(np.abs(along) > ALONG) < ORDERED:
            continue
        odd = along > ALONG if (along > 0).sum() <= (along < 0).sum() else along < -ALONG
        if odd.any():
            found[one, other] = [case for case, is_odd in zip(cases, odd, strict=True) if is_odd]
    return found
