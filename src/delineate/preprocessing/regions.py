"""Boxes, connected components and the surroundings of a body, in arrays (I, J, K).

What a prediction needs is computed from runs: lines of voxels of one value along the last axis, of
which there are far fewer than voxels. With NumPy alone this is about as fast as labelling voxels,
and it needs no library whose import takes longer than a small scan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE_MM = 5.0  # spacing of the grid on which the body is searched
# With fewer voxels for each run, as in noise, SciPy labels voxels faster than NumPy joins runs;
# with fewer voxels in all, its import takes longer than that.
VOXELS_OF_A_RUN, FEWEST_VOXELS = 16, 2**19
SLAB_VOXELS = 2**21  # of an array whose runs are found at once
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
    sizes = _components(_with_long_rows(mask)[0])[2]
    return sizes[sizes > 0]


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
    near, inside = labels[box], mask[box]
    parts, roots, sizes = _components(inside)
    largest = sizes.argmax()
    # The runs are found again, because those of a whole scan may need several times its memory.
    for (_, _, runs), own in zip(_slabs(inside), parts, strict=True):
        stray = roots[own] != largest
        for row, start, end in zip(*(a[stray].tolist() for a in runs.lines), strict=True):
            near[(*divmod(row, near.shape[1]), slice(start, end))] = 0
    return int(sizes.sum() - sizes[largest])


def boxes(labels: NDArray[Any]) -> dict[int, tuple[slice, ...]]:
    """The bounding box of each value above 0 in a label map (I, J, K) of integers; {} without any.

    >>> boxes(np.array([[[0, 3, 3]], [[0, 0, 3]]]))
    {3: (slice(0, 2, None), slice(0, 1, None), slice(1, 3, None))}
    """
    array, order = _with_long_rows(labels)
    own = [order.index(axis) for axis in range(3)]
    found: dict[int, tuple[slice, ...]] = {}
    for _, _, runs in _slabs(array):
        for value, box in runs.boxes().items():
            known = found.get(value, box)
            found[value] = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop))
                for a, b in zip(known, box, strict=True)
            )
    return {value: tuple(found[value][axis] for axis in own) for value in sorted(found)}


@dataclass(frozen=True)
class _Runs:
    """The runs of all values above 0 in some planes of an array (I, J, K), in order.

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
    def of(cls, array: NDArray[Any], first: int = 0) -> _Runs:
        """Those of (I, J, K), whose first plane is ``first``."""
        flat = np.ascontiguousarray(array).reshape(-1, array.shape[2])
        begins = np.ones(flat.shape, bool)
        np.not_equal(flat[:, 1:], flat[:, :-1], out=begins[:, 1:])
        at = np.flatnonzero(begins)
        values, ends = flat.reshape(-1)[at], np.append(at[1:], flat.size)
        kept = np.flatnonzero(values > 0)
        rows, starts = np.divmod(at[kept], max(1, array.shape[2]))
        lengths = ends[kept] - at[kept]
        rows += first * array.shape[1]
        return cls(rows, starts, starts + lengths, values[kept], array.shape[1])

    @property
    def lines(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        return self.rows, self.starts, self.ends

    def __getitem__(self, which: slice | NDArray[Any]) -> _Runs:
        return replace(
            self,
            rows=self.rows[which],
            starts=self.starts[which],
            ends=self.ends[which],
            values=self.values[which],
        )

    def boxes(self) -> dict[int, tuple[slice, ...]]:
        """The bounding box of each value, along i, j and k."""
        if not len(self.values):
            return {}
        # The runs of each value in turn, then the first and last place of each along each axis.
        sorted_runs = self[np.argsort(self.values, kind="stable")]
        values, firsts = np.unique(sorted_runs.values, return_index=True)
        i, j = np.divmod(sorted_runs.rows, self.size)
        low = [np.minimum.reduceat(place, firsts) for place in (i, j, sorted_runs.starts)]
        high = [np.maximum.reduceat(place, firsts) for place in (i + 1, j + 1, sorted_runs.ends)]
        return {
            int(value): tuple(slice(int(low[axis][n]), int(high[axis][n])) for axis in range(3))
            for n, value in enumerate(values)
        }

    def touching(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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


def _slabs(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any], _Runs]]:
    """A few planes of (I, J, K) at a time: the first plane, the voxels and their runs.

    So noise, with nearly as many runs as voxels, needs little memory.
    """
    planes = max(1, SLAB_VOXELS // max(1, math.prod(array.shape[1:])))
    for first in range(0, len(array), planes):
        slab = array[first : first + planes]
        yield first, slab, _Runs.of(slab, first)


def _components(
    mask: NDArray[np.bool_],
) -> tuple[list[NDArray[np.int32]], NDArray[np.intp], NDArray[np.int64]]:
    """The connected components (26 neighbours) of a mask (I, J, K), in parts of a slab each.

    Returns:
        For each run of each slab the number of its part; for each part the lowest number of its
        component, so that components are in the order of first runs; and the voxels of each
        component by that number, 0 for other parts.
    """
    numbers: list[NDArray[np.int32]] = []
    voxels: list[NDArray[Any]] = [np.zeros(0)]
    links: list[NDArray[np.intp]] = [np.zeros((2, 0), np.intp)]
    # The runs of the last plane so far, and their numbers.
    total, end = 0, None
    for first, slab, runs in _slabs(mask):
        own, count = _parts(slab, runs, first)
        numbers.append((own + total).astype(np.int32))
        voxels.append(np.bincount(own, weights=runs.ends - runs.starts, minlength=count))
        total += count
        # Parts that continue from the plane before this slab.
        plane = runs.rows // runs.size
        if end is not None and len(plane):
            begin = plane == plane[0]
            links.append(_across(*end, runs[begin], numbers[-1][begin], total))
        if len(plane):
            last = plane == plane[-1]
            end = runs[last], numbers[-1][last]
    roots = _joined(total, *np.concatenate(links, axis=1))
    sizes = np.bincount(roots, weights=np.concatenate(voxels), minlength=total)
    return numbers, roots, sizes.astype(np.int64)


def _parts(slab: NDArray[np.bool_], runs: _Runs, first: int) -> tuple[NDArray[np.intp], int]:
    """For each run of a slab, whose first plane is ``first``, the number of its connected component
    within it, in the order of first runs; and their count.
    """
    if slab.size < FEWEST_VOXELS or slab.size > len(runs.rows) * VOXELS_OF_A_RUN:
        parts, own = np.unique(_joined(len(runs.rows), *runs.touching()), return_inverse=True)
        return own, len(parts)
    from scipy import ndimage

    labels, count = ndimage.label(slab, np.ones((3, 3, 3)))
    i, j = np.divmod(runs.rows, runs.size)
    return labels[i - first, j, runs.starts] - 1, int(count)


def _across(
    end: _Runs, end_numbers: NDArray[np.int32], begin: _Runs, numbers: NDArray[np.int32], count: int
) -> NDArray[np.intp]:
    """(2, n) numbers of the parts that touch across two planes, by each plane's runs and
    their numbers, which are below ``count``.
    """
    both = replace(
        end,
        rows=np.concatenate([end.rows, begin.rows]),
        starts=np.concatenate([end.starts, begin.starts]),
        ends=np.concatenate([end.ends, begin.ends]),
    )
    own = np.concatenate([end_numbers, numbers])
    first, second = (own[one].astype(np.int64) for one in both.touching())
    # Each pair as one number is sorted many times faster than pairs.
    keys = np.unique(first * (count + 1) + second)
    return np.array(np.divmod(keys, count + 1))


def _joined(count: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each of ``count`` things the lowest one that it is joined with by the pairs."""
    parents = np.arange(count)
    while len(first):
        # The higher parent of a pair gets the lower one; then all find their roots.
        roots = parents[first], parents[second]
        low, high = np.minimum(*roots), np.maximum(*roots)
        apart = low != high
        first, second, low, high = first[apart], second[apart], low[apart], high[apart]
        np.minimum.at(parents, high, low)
        while (parents != (found := parents[parents])).any():
            parents = found
    return parents


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
