"""Boxes, connected components and the surroundings of a body, in arrays (I, J, K).

What a prediction needs is computed from runs: lines of voxels of one value along the last axis, of
which there are far fewer than voxels. With NumPy alone this is about as fast as labelling voxels,
and it needs no library whose import takes longer than a small scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE_MM = 5.0  # spacing of the grid on which the body is searched
SLAB_VOXELS = 2**22  # of an array whose runs are found at once
# The neighbouring rows (i, j) of a row that come after it.
_NEXT_ROWS = ((0, 1), (1, -1), (1, 0), (1, 1))


def bounding_box(mask: NDArray[Any]) -> tuple[slice, slice, slice] | None:
    """The smallest box that contains all true voxels of (I, J, K); None if there are none."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(hit):
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return box[0], box[1], box[2]


def connected_components(
    mask: NDArray[Any], connectivity: int = 26
) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask.

    Args:
        mask: (I, J, K); true voxels are foreground.
        connectivity: 6 (faces), 18 (faces and edges) or 26 (faces, edges and corners).

    Returns:
        (I, J, K) with 0 outside and 1..count inside, and the count.

    >>> connected_components(np.array([[[1, 0, 1, 1]]]))[1]
    2
    """
    from scipy import ndimage

    out = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask)
    if box is None:
        return out, 0
    # Only the bounding box of the mask is searched.
    near = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    count = ndimage.label(mask[box], near, output=out[box])
    return out, int(count)


def component_sizes(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Voxels of each connected component (26 neighbours) of a mask (I, J, K); empty without any.

    >>> component_sizes(np.array([[[True, False, True, True]]])).tolist()
    [1, 2]
    """
    found = _Runs.of(_with_long_rows(mask)[0])
    sizes = np.bincount(found.components(), weights=found.ends - found.starts)
    return sizes[sizes > 0].astype(np.int64)


def keep_largest(labels: NDArray[Any], value: int) -> int:
    """Set all but the largest 26-connected component of ``value`` to background, in place.

    Returns:
        The number of removed voxels; 0 if the structure is absent or one connected component.
    """
    mask = labels == value
    box = bounding_box(mask)
    if box is None:
        return 0
    # Of equal components the first is kept, however the array lies in memory.
    near, found = labels[box], _Runs.of(mask[box])
    component = found.components()
    lengths = found.ends - found.starts
    stray = component != np.bincount(component, weights=lengths).argmax()
    if not stray.any():
        return 0
    for row, start, end in zip(*(a[stray].tolist() for a in found.lines), strict=True):
        near[(*divmod(row, near.shape[1]), slice(start, end))] = 0
    return int(lengths[stray].sum())


def boxes(labels: NDArray[Any]) -> dict[int, tuple[slice, ...]]:
    """The bounding box of each value above 0 in a label map (I, J, K) of integers; {} without any.

    >>> boxes(np.array([[[0, 3, 3]], [[0, 0, 3]]]))
    {3: (slice(0, 2, None), slice(0, 1, None), slice(1, 3, None))}
    """
    array, order = _with_long_rows(labels)
    found = _Runs.of(array)
    if not len(found.values):
        return {}
    # The runs of each value in turn, then the first and last place of each along each axis.
    sorting = np.argsort(found.values, kind="stable")
    rows, starts, ends = (line[sorting] for line in found.lines)
    values, firsts = np.unique(found.values[sorting], return_index=True)
    i, j = np.divmod(rows, array.shape[1])
    low = [np.minimum.reduceat(place, firsts) for place in (i, j, starts)]
    high = [np.maximum.reduceat(place, firsts) for place in (i + 1, j + 1, ends)]
    own = [int(np.flatnonzero(np.array(order) == axis)[0]) for axis in range(3)]
    return {
        int(value): tuple(slice(int(low[axis][n]), int(high[axis][n])) for axis in own)
        for n, value in enumerate(values)
    }


@dataclass(frozen=True)
class _Runs:
    """The runs of all values above 0, in order.

    Args:
        rows: the row i J + j of each.
        starts, ends: along k, the end exclusive.
        values: of each.
        size: J, the rows of a plane.
    """

    rows: NDArray[np.intp]
    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    values: NDArray[Any]
    size: int

    @classmethod
    def of(cls, array: NDArray[Any]) -> _Runs:
        """Those of (I, J, K), found plane by plane so that little memory is taken."""
        planes = max(1, SLAB_VOXELS // max(1, math.prod(array.shape[1:])))
        length = max(1, array.shape[2])
        parts = []
        for first in range(0, len(array), planes):
            flat = np.ascontiguousarray(array[first : first + planes]).reshape(-1, array.shape[2])
            begins = np.ones(flat.shape, bool)
            np.not_equal(flat[:, 1:], flat[:, :-1], out=begins[:, 1:])
            at = np.flatnonzero(begins)
            values, ends = flat.reshape(-1)[at], np.append(at[1:], flat.size)
            kept = np.flatnonzero(values > 0)
            rows, starts = np.divmod(at[kept], length)
            lengths = ends[kept] - at[kept]
            parts.append((rows + first * array.shape[1], starts, starts + lengths, values[kept]))
        none = np.zeros(0, np.intp)
        parts = parts or [(none, none, none, none.astype(array.dtype))]
        rows, starts, ends, values = (np.concatenate(one) for one in zip(*parts, strict=True))
        return cls(rows, starts, ends, values, array.shape[1])

    @property
    def lines(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        return self.rows, self.starts, self.ends

    def components(self) -> NDArray[np.intp]:
        """For each run the index of the first run of its connected component, whatever the values;
        26 neighbours.
        """
        parents = np.arange(len(self.rows))
        first, second = self._touching()
        while len(first):
            # The higher parent of two touching runs gets the lower one; then all find their roots.
            roots = parents[first], parents[second]
            low, high = np.minimum(*roots), np.maximum(*roots)
            apart = low != high
            first, second, low, high = first[apart], second[apart], low[apart], high[apart]
            np.minimum.at(parents, high, low)
            while (parents != (found := parents[parents])).any():
                parents = found
        return parents

    def _touching(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of all pairs of runs in neighbouring rows that touch, also at a corner."""
        # A position in any row as one number, so that one search covers all rows.
        length = int(self.ends.max(initial=0)) + 2
        start_keys, end_keys = self.rows * length + self.starts, self.rows * length + self.ends
        pairs = []
        for down, along in _NEXT_ROWS:
            j = self.rows % self.size + along
            own = np.flatnonzero((j >= 0) & (j < self.size))
            there = (self.rows[own] + down * self.size + along) * length
            # From the first run there that ends at or after the start, to the last that starts at
            # or before the end.
            low = np.searchsorted(end_keys, there + self.starts[own], "left")
            high = np.searchsorted(start_keys, there + self.ends[own], "right")
            counts = np.maximum(high - low, 0)
            offsets = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
            pairs.append((np.repeat(own, counts), np.repeat(low, counts) + offsets))
        first, second = zip(*pairs, strict=True)
        return np.concatenate(first), np.concatenate(second)


def _with_long_rows(array: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...]]:
    """The array with the axes in the order in which it lies in memory, and that order."""
    order = tuple(int(n) for n in np.argsort([-abs(s) for s in array.strides], kind="stable"))
    return array.transpose(order), order


def far_from_body(
    values: NDArray[Any], threshold: float, spacing_mm: tuple[float, float, float], margin_mm: float
) -> NDArray[np.bool_]:
    """Voxels at least ``margin_mm`` outside the body.

    The body is found on a coarse grid with steps of a few mm, and the margin is rounded up. It
    consists of the largest connected component above ``threshold``, all other components of at
    least a fiftieth of its size, and all voxels between two of these along at least two axes. So
    lungs and bowel gas are inside, even if the end of the scan cuts them open.

    Args:
        values: (I, J, K), in any unit.
        threshold: a value of this unit between air and soft tissue.
        spacing_mm: along I, J, K.
        margin_mm: distance from the body.

    Returns:
        (I, J, K) bool; all False if no value is above the threshold.
    """
    # Tissue on the coarse grid.
    steps = [max(1, round(COARSE_MM / s)) for s in spacing_mm]
    tissue = values[:: steps[0], :: steps[1], :: steps[2]] > threshold
    components, count = connected_components(tissue)
    if not count:
        return np.zeros(values.shape, bool)
    # Ignore small components, such as noise and cables.
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    body = (sizes >= sizes.max() / 50)[components]
    # Fill cavities: voxels between body voxels along at least two of the three axes.
    inside = (
        sum(
            (_between(body, axis).astype(np.uint8) for axis in range(3)),
            np.zeros(body.shape, np.uint8),
        )
        >= 2
    )
    # Widen by the margin, rounded up, and repeat each coarse voxel over the fine ones.
    near = body | inside
    for axis, (step, spacing) in enumerate(zip(steps, spacing_mm, strict=True)):
        near = _widened(near, axis, 1 + int(np.ceil(margin_mm / (step * spacing))))
    coarse = [np.arange(n) // step for n, step in zip(values.shape, steps, strict=True)]
    far: NDArray[np.bool_] = ~near[np.ix_(*coarse)]
    return far


def _between(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """True from the first to the last true voxel of each line along ``axis``."""
    behind = np.logical_or.accumulate(mask, axis)
    ahead = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    return behind & ahead


def _widened(mask: NDArray[np.bool_], axis: int, reach: int) -> NDArray[np.bool_]:
    """True within ``reach`` voxels of a true voxel along ``axis``."""
    lines = np.moveaxis(mask, axis, -1)
    # A window contains a true voxel if the running sum increases across it.
    total = np.zeros((*lines.shape[:-1], lines.shape[-1] + 1), np.int32)
    np.cumsum(lines, axis=-1, out=total[..., 1:])
    at, last = np.arange(lines.shape[-1]), lines.shape[-1]
    wide = total[..., np.minimum(at + reach + 1, last)] > total[..., np.maximum(at - reach, 0)]
    return np.moveaxis(wide, -1, axis)
