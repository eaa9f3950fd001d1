"""Overlap slice by slice: what two volumes share in each slice along one axis.

Kept sparse, because most structures stand in few slices: only what is in the truth or the
prediction of a slice has an entry, and a structure that is in neither is not defined there (see
``overlap``), so that it can be counted as the slices without an entry. It knows no file, no grid
and no name of a structure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError
from . import overlap
from .overlap import Counts, Floats, Ints

# slices copied at once: where they lie scattered in memory, one at a time takes ten times as long
TOGETHER = 16


@dataclass(frozen=True)
class SliceCounts:
    """What was counted, slice by slice; arrays (n,) with an entry for each structure of each slice
    that holds it.

    Args:
        slices: how many slices the volume has, empty ones included.
        index: which slice, from 0.
        value: the structure's label value.
        tp, fp, fn: pixels.
    """

    slices: int
    index: Ints
    value: Ints
    tp: Ints
    fp: Ints
    fn: Ints

    def of(self, values: Iterable[int]) -> SliceCounts:
        """Only the entries of these structures."""
        kept = np.isin(self.value, list(values))
        return SliceCounts(
            self.slices, *(a[kept] for a in (self.index, self.value, self.tp, self.fp, self.fn))
        )

    def measure(self, name: str) -> Floats:
        """(n,) the measure ``name`` of ``overlap.MEASURES`` (one that is a ratio) of every
        entry.
        """
        unknown = np.full(len(self.tp), np.nan)
        return overlap.MEASURES[name][1](Counts((), self.tp, self.fp, self.fn, unknown, unknown))


def count_slices(prediction: NDArray[Any], truth: NDArray[Any], axis: int = 2) -> SliceCounts:
    """Count every slice along ``axis``.

    Args:
        prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535. Both may
            be empty of foreground.
        axis: 0, 1 or 2.

    Raises:
        GeometryError: the shapes differ.
        LabelError: a value that is not a whole number or lies outside 0..65535.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    box = overlap.foreground_box(prediction, truth)
    p, t = (np.moveaxis(a[box], axis, 0) for a in (prediction, truth))
    found = [
        (start + k, overlap.count(*pair))
        for start in range(0, len(p), TOGETHER)
        for k, pair in _filled(p, t, start)
    ]
    index = (box[axis].start or 0) + np.repeat(
        [k for k, _ in found], [len(c.values) for _, c in found]
    ).astype(np.int64)
    columns = [
        [c.values for _, c in found],
        *([getattr(c, name) for _, c in found] for name in ("tp", "fp", "fn")),
    ]
    return SliceCounts(
        prediction.shape[axis],
        index,
        *(np.concatenate(c).astype(np.int64) if c else np.zeros(0, np.int64) for c in columns),
    )


def _filled(
    p: NDArray[Any], t: NDArray[Any], start: int
) -> Iterator[tuple[int, tuple[NDArray[Any], NDArray[Any]]]]:
    """Those of the next ``TOGETHER`` slices that hold anything, each with its place among them."""
    block_p, block_t = (np.ascontiguousarray(a[start : start + TOGETHER]) for a in (p, t))
    yield from (
        (k, (a, b))
        for k, (a, b) in enumerate(zip(block_p, block_t, strict=True))
        if a.any() or b.any()
    )
