"""The class with the largest interpolated score, cell by cell: ``restore`` for many classes.

A cell is the box between eight neighbouring voxels of the prepared grid. Linear interpolation never
leaves the range of its sources, so a class that is the largest at all eight corners is the largest
everywhere in the cell, and nothing is interpolated there. In the other cells the classes that are
the largest at a corner are interpolated first, then only those classes whose largest corner reaches
the smallest score that was found. So the time per class is that of reading its scores once.

The loops are compiled on first use and kept in numba's cache, and they run on threads, row by row.
Shapes: scores (L, A, B) of one plane, results (d', A', B'). This module knows no grids: it receives
the weights of each axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from . import arrays

if TYPE_CHECKING:
    from torch import Tensor

    from .arrays import Array

ROWS = 16  # rows of a plane that one thread reads at once, so that they stay in the cache
HALF_SCALE = np.float32(
    2.0**112
)  # from the bits of a half, moved to those of a float, to its value


def largest(near: Sequence[Array], weights: Sequence[Array | None], tie: float) -> Any:
    """The class with the largest linearly interpolated score at each output voxel.

    Args:
        near: consecutive planes (L, d, A, B) on the CPU, any float dtype, in one or more parts.
        weights: for the marching axis, A and B the (n_out, n_in) weights, at most two neighbours
            for each output; None for an axis that is not resampled.
        tie: scores closer than this are equal; the class that comes first is the largest.

    Returns:
        (d', A', B') class indices, uint8 for at most 256 classes, else int16.
    """
    planes = [part[:, n] for part in near for n in range(part.shape[1])]
    classes, *size = planes[0].shape
    k, a, b = (_Axis.of(w, n) for w, n in zip(weights, (len(planes), *size), strict=True))
    out = np.empty((len(k.low), len(a.low), len(b.low)), np.uint8 if classes <= 256 else np.int16)
    # Two planes and the largest class at each of their voxels.
    scores = np.empty((2, classes, *size), np.float32)
    tops, kept = np.empty((2, *size), np.int32), [-1, -1]
    rows = [(n, min(n + ROWS, size[0])) for n in range(0, size[0], ROWS)]
    with ThreadPoolExecutor(arrays.threads()) as pool:
        for low in np.unique(k.low):
            high = min(low + k.reach, len(planes) - 1)
            for index in {int(low), int(high)} - set(kept):
                slot = index % 2
                read = _reader(planes[index], tie)
                kept[slot] = index
                list(pool.map(partial(_top, read, scores[slot], tops[slot]), rows))
            made = slice(k.first[low], k.first[low + 1])
            ends = scores[low % 2], scores[high % 2], tops[low % 2], tops[high % 2]
            along = k.share[made], out[made]
            cell = a.first, a.share, a.reach, b.first, b.share, b.reach
            list(pool.map(partial(_cells_of, (*ends, *along, *cell)), rows))
    return arrays.like(near[0], out)


@dataclass(frozen=True)
class _Axis:
    """Linear interpolation along one axis: output n is between the inputs ``low[n]`` and ``low[n] +
    reach``, at ``share[n]`` of the way; the cell of input i has the outputs ``first[i]`` to
    ``first[i + 1]``.
    """

    low: NDArray[np.int64]
    share: NDArray[np.float32]
    first: NDArray[np.int64]
    reach: int

    @classmethod
    def of(cls, weights: Array | None, length: int) -> _Axis:
        dense = np.eye(length, dtype=np.float32) if weights is None else arrays.to_numpy(weights)
        low = (dense > 0).argmax(axis=1)
        share = 1 - np.take_along_axis(dense, low[:, None], axis=1)[:, 0]
        first = np.searchsorted(low, np.arange(length + 1))
        return cls(low, share, first, int((share > 0).any()))


def _reader(plane: Array, tie: float) -> Callable[[NDArray[np.float32], int, int], None]:
    """A function that writes rows of a plane (L, A, B) as float32, each class lowered by ``tie``
    times its index.
    """
    lower = (np.arange(len(plane)) * tie).astype(np.float32)
    if not isinstance(plane, np.ndarray) and _is_half(plane):
        stride_l, stride_a, _ = plane.stride()
        span = stride_l * (plane.shape[0] - 1) + stride_a * (plane.shape[1] - 1) + plane.shape[2]
        bits = plane.as_strided((span,), (1,)).numpy().view(np.uint16)
        return lambda out, start, stop: _read_half(
            bits, stride_l, stride_a, lower, out, out.view(np.uint32), start, stop
        )
    values = arrays.to_numpy(arrays.float32(plane))

    def read(out: NDArray[np.float32], start: int, stop: int) -> None:
        np.subtract(values[:, start:stop], lower[:, None, None], out=out[:, start:stop])

    return read


def _is_half(plane: Tensor) -> bool:
    return str(plane.dtype) == "torch.float16" and plane.stride(2) == 1


def _top(read: Any, scores: NDArray[Any], tops: NDArray[Any], rows: tuple[int, int]) -> None:
    read(scores, *rows)
    _largest_class(scores, tops, *rows)


def _cells_of(given: tuple[Any, ...], rows: tuple[int, int]) -> None:
    _cells(*given, *rows)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def _read_half(  # type: ignore[no-untyped-def]
    bits, stride_l, stride_a, lower, out, as_bits, start, stop
):
    """Half-precision values as float32: their bits are moved, then scaled. ``as_bits`` is ``out``
    as integers.
    """
    for c in range(out.shape[0]):
        for a in range(start, stop):
            begin, row, to = c * stride_l + a * stride_a, out[c, a], as_bits[c, a]
            for b in range(len(row)):
                half = np.uint32(bits[begin + b])
                infinite = np.uint32(0x7F800000 if half & 0x7C00 == 0x7C00 else 0)
                to[b] = ((half & 0x7FFF) << 13) | ((half & 0x8000) << 16) | infinite
            for b in range(len(row)):
                row[b] = row[b] * HALF_SCALE - lower[c]


@njit(cache=True, nogil=True)
def _largest_class(scores, tops, start, stop):  # type: ignore[no-untyped-def]
    """Write to ``tops`` (A, B) the class with the largest score at each voxel of the rows."""
    best = np.empty(scores.shape[2], np.float32)
    for a in range(start, stop):
        top = tops[a]
        best[:], top[:] = scores[0, a], 0
        for c in range(1, scores.shape[0]):
            row = scores[c, a]
            for b in range(len(row)):
                larger = row[b] > best[b]
                best[b] = row[b] if larger else best[b]
                top[b] = c if larger else top[b]


@njit(cache=True, nogil=True)
def _cells(  # type: ignore[no-untyped-def]
    low,
    high,
    top_low,
    top_high,
    share_k,
    out,
    first_a,
    share_a,
    reach_a,
    first_b,
    share_b,
    reach_b,
    start,
    stop,
):
    """Fill ``out`` (d', A', B') for the cells between two planes whose first row is in
    start..stop.
    """
    size_l, size_a, size_b = low.shape
    peaks = np.empty((size_l, size_b), np.float32)
    mixed = np.empty(size_b, np.bool_)
    best, corners = (
        np.empty((len(share_k), np.diff(first_a).max(), np.diff(first_b).max()), np.float32),
        np.empty(8, np.int32),
    )
    for a in range(start, stop):
        rows = out[:, first_a[a] : first_a[a + 1]]
        if rows.shape[1] == 0:
            continue
        a2 = min(a + reach_a, size_a - 1)
        if _mixed(top_low[a], top_low[a2], top_high[a], top_high[a2], reach_b, mixed):
            _peaks(low, high, a, a2, reach_b, peaks)
        along_a = share_a[first_a[a] : first_a[a + 1]]
        for b in range(size_b):
            box = rows[:, :, first_b[b] : first_b[b + 1]]
            if not mixed[b]:
                box[:] = top_low[a, b]
                continue
            b2 = min(b + reach_b, size_b - 1)
            found = best[:, : box.shape[1], : box.shape[2]]
            found[:] = -np.inf
            box[:] = top_low[a, b]
            shares = share_k, along_a, share_b[first_b[b] : first_b[b + 1]]
            # The classes that are the largest at a corner, then those that may be larger between.
            corners[0], corners[1] = top_low[a, b], top_low[a, b2]
            corners[2], corners[3] = top_low[a2, b], top_low[a2, b2]
            corners[4], corners[5] = top_high[a, b], top_high[a, b2]
            corners[6], corners[7] = top_high[a2, b], top_high[a2, b2]
            floor = np.float32(-np.inf)
            for n in range(8):
                if corners[n] not in corners[:n]:
                    floor = _contest(low, high, corners[n], a, a2, b, b2, shares, found, box)
            for c in range(size_l):
                if peaks[c, b] >= floor and c not in corners:
                    floor = _contest(low, high, c, a, a2, b, b2, shares, found, box)


@njit(cache=True, nogil=True)
def _mixed(one, two, three, four, reach, mixed):  # type: ignore[no-untyped-def]
    """Mark the cells of a row whose corners have different classes; False if there are none."""
    size, some = len(one), False
    for b in range(size):
        b2 = min(b + reach, size - 1)
        mixed[b] = (
            (one[b] != two[b])
            | (one[b] != three[b])
            | (one[b] != four[b])
            | (one[b] != one[b2])
            | (one[b] != two[b2])
            | (one[b] != three[b2])
            | (one[b] != four[b2])
        )
        some |= mixed[b]
    return some


@njit(cache=True, nogil=True)
def _peaks(low, high, a, a2, reach, peaks):  # type: ignore[no-untyped-def]
    """Write to ``peaks`` (L, B) the largest score at the corners of each cell of a row."""
    size = low.shape[2]
    column = np.empty(size, np.float32)
    for c in range(low.shape[0]):
        one, two, three, four, row = low[c, a], low[c, a2], high[c, a], high[c, a2], peaks[c]
        for b in range(size):
            column[b] = max(max(one[b], two[b]), max(three[b], four[b]))
        row[size - 1] = column[size - 1]
        for b in range(size - 1):
            row[b] = max(column[b], column[b + reach])


@njit(cache=True, nogil=True)
def _contest(low, high, c, a, a2, b, b2, shares, best, box):  # type: ignore[no-untyped-def]
    """Write class ``c`` to ``box`` where its interpolated score is larger than ``best``; return the
    smallest value of ``best``.
    """
    share_k, share_a, share_b = shares
    floor = np.float32(np.inf)
    for k in range(len(share_k)):
        one = low[c, a, b] + (high[c, a, b] - low[c, a, b]) * share_k[k]
        two = low[c, a, b2] + (high[c, a, b2] - low[c, a, b2]) * share_k[k]
        three = low[c, a2, b] + (high[c, a2, b] - low[c, a2, b]) * share_k[k]
        four = low[c, a2, b2] + (high[c, a2, b2] - low[c, a2, b2]) * share_k[k]
        for i in range(len(share_a)):
            left, right = one + (three - one) * share_a[i], two + (four - two) * share_a[i]
            for j in range(len(share_b)):
                score = left + (right - left) * share_b[j]
                if score > best[k, i, j] or (score == best[k, i, j] and c < box[k, i, j]):
                    best[k, i, j], box[k, i, j] = score, c
                floor = min(floor, best[k, i, j])
    return floor
