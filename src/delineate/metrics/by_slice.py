"""Overlap per slice: voxel counts of two label maps in each slice along one axis.

The counts are sparse, because most structures occur in few slices: a structure has an entry for a
slice only if it is in the truth or the prediction there. In the other slices its measures are not
defined (see ``overlap``); they can be counted as the slices without an entry. The module reads no
files and knows no grid and no structure names.
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

# Slices copied at once: if a slice is scattered in memory, one at a time takes ten times as long.
TOGETHER = 16


@dataclass(frozen=True)
class SliceCounts:
    """Counts per slice and structure; all arrays are (n,), with one entry for each structure
    present in a slice.

    Args:
        slices: number of slices of the volume, empty ones included.
        index: the slice, from 0.
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
        """Only the entries of these label values."""
        kept = np.isin(self.value, list(values))
        return SliceCounts(
            self.slices, *(a[kept] for a in (self.index, self.value, self.tp, self.fp, self.fn))
        )

    def measure(self, name: str) -> Floats:
        """(n,) the measure ``name`` of ``overlap.MEASURES``, which must be a ratio, for every
        entry.
        """
        unknown = np.full(len(self.tp), np.nan)
        return overlap.MEASURES[name][1](Counts((), self.tp, self.fp, self.fn, unknown, unknown))


def count_slices(prediction: NDArray[Any], truth: NDArray[Any], axis: int = 2) -> SliceCounts:
    """Count TP, FP and FN in every slice along ``axis``.

    Args:
        prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535. Both may
            have no foreground; then there are no entries.
        axis: 0, 1 or 2.

    Raises:
        GeometryError: the shapes differ.
        LabelError: a value is not a whole number or is outside 0..65535.
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
        for k, pair in _non_empty_slices(p, t, start)
    ]
    # One entry per slice and structure; slice numbers count from the start of the whole volume.
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


def _non_empty_slices(
    p: NDArray[Any], t: NDArray[Any], start: int
) -> Iterator[tuple[int, tuple[NDArray[Any], NDArray[Any]]]]:
    """The non-empty slices among the ``TOGETHER`` slices from ``start``, each with its position in
    that block.
    """
    block_p, block_t = (np.ascontiguousarray(a[start : start + TOGETHER]) for a in (p, t))
    yield from (
        (k, (a, b))
        for k, (a, b) in enumerate(zip(block_p, block_t, strict=True))
        if a.any() or b.any()
    )
