"""Splitting a volume into consecutive groups of slices, and merging such groups by their geometry.

Nothing is resampled; arrays are (I, J, K) or (C, I, J, K). This module knows no files; messages
name a volume by its ``source``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError
from ..core.grid import Grid
from ..core.volume import Volume

# Two grids are the same if they differ by at most this fraction of the smallest spacing; rounding
# errors in headers are smaller.
SAME_PLACE = 0.05
SAME_ANGLE_DEG = 0.05


def split(volume: Volume, slices: int) -> list[Volume]:
    """Consecutive groups of ``slices`` along the last axis (views), each on its own grid; the last
    may be shorter.

    Raises:
        ValueError: ``slices`` is below 1.
    """
    if slices < 1:
        raise ValueError(f"groups need at least 1 slice, found {slices}")
    i, j, k = volume.grid.shape
    parts = []
    for start in range(0, k, slices):
        stop = min(k, start + slices)
        grid = volume.grid.crop((0, 0, start), (i, j, stop))
        parts.append(
            Volume(volume.array[..., start:stop], grid, volume.unit, volume.source, volume.meta)
        )
    return parts


def merged(parts: Sequence[Volume]) -> Volume:
    """Merge ``parts``, in any order, along one of their axes; a single part is returned unchanged.

    The dtype is that of the parts, or the smallest that holds all of theirs.

    Raises:
        GeometryError: no part, a part of unknown position, different orientation, spacing or
            extent, a gap, or an overlap; with the names of the files and the distance in mm.
    """
    if not parts:
        raise GeometryError("no volumes to merge")
    first = parts[0]
    unplaced = [p.source for p in parts if len(parts) > 1 and not p.meta.get("place_known", True)]
    if unplaced:
        raise GeometryError(
            f"{unplaced[0]} does not state the position of its voxels, so it cannot be merged by "
            "geometry"
        )
    for other in parts[1:]:
        _check_same_grid(first, other)
    # (part, axis): the first voxel of each part, as an index of the first part.
    starts = np.array([first.grid.to_index(p.grid.affine[:3, 3]) for p in parts])
    # The parts follow one another along the axis with the largest offsets.
    axis = int(np.argmax(np.abs(starts).max(axis=0)))
    order = np.argsort(starts[:, axis], kind="stable")
    ordered, begins = [parts[n] for n in order], starts[order]
    for n in range(1, len(ordered)):
        _check_aligned(ordered[0], ordered[n], begins[n] - begins[0], axis)
        _check_adjacent(
            ordered[n - 1], ordered[n], float(begins[n, axis] - begins[n - 1, axis]), axis
        )
    # The merged grid starts at the first part.
    array = (
        np.concatenate([p.array for p in ordered], axis=axis - 3)
        if len(ordered) > 1
        else first.array
    )
    shape = array.shape[-3:]
    grid = Grid(
        (shape[0], shape[1], shape[2]),
        ordered[0].grid.affine,
        allow_shear=ordered[0].grid.allow_shear,
    )
    return Volume(array, grid, first.unit, ordered[0].source, ordered[0].meta)


def _check_same_grid(first: Volume, other: Volume) -> None:
    """Raise if two parts differ in channels, unit, orientation or spacing."""
    pair = _pair(first, other)
    if first.channels != other.channels or first.unit != other.unit:
        raise GeometryError(
            f"{pair} differ in channels or unit: {first.channels} of {first.unit}, "
            f"{other.channels} of {other.unit}"
        )
    if first.grid.codes != other.grid.codes:
        raise GeometryError(
            f"{pair} differ in orientation: {first.grid.codes} and {other.grid.codes}"
        )
    a, b = np.array(first.grid.spacing_mm), np.array(other.grid.spacing_mm)
    if not np.allclose(a, b, rtol=1e-3, atol=0):
        raise GeometryError(f"{pair} differ in spacing: {_mm(a)} and {_mm(b)} mm")
    # Axes with equal codes may still differ by a small angle.
    cosines = np.clip(
        np.sum(first.grid.affine[:3, :3] / a * (other.grid.affine[:3, :3] / b), axis=0), -1, 1
    )
    angle_deg = float(np.rad2deg(np.arccos(cosines)).max())
    if angle_deg > SAME_ANGLE_DEG:
        raise GeometryError(
            f"{pair} differ in orientation: their axes are {angle_deg:.2f} degrees apart"
        )


def _check_aligned(first: Volume, other: Volume, offset: NDArray[np.float64], axis: int) -> None:
    """Raise unless both parts start and end at the same place across the merging axis."""
    across = [a for a in range(3) if a != axis]
    spacing_mm = np.array(first.grid.spacing_mm)
    aside_mm = float(np.linalg.norm((offset * spacing_mm)[across]))
    if aside_mm > SAME_PLACE * spacing_mm.min():
        raise GeometryError(
            f"{_pair(first, other)} are not aligned: {aside_mm:.3g} mm apart across the axis along "
            "which they are merged"
        )
    sizes = [tuple(v.grid.shape[a] for a in across) for v in (first, other)]
    if sizes[0] != sizes[1]:
        raise GeometryError(
            f"{_pair(first, other)} differ in size across the axis along which they are merged: "
            f"{sizes[0]} and {sizes[1]} voxels"
        )


def _check_adjacent(before: Volume, after: Volume, step: float, axis: int) -> None:
    """Raise unless ``after`` starts where ``before`` ends; ``step`` is from start to start in
    voxels.
    """
    # Positive: a gap; negative: an overlap.
    spacing_mm = before.grid.spacing_mm[axis]
    missing_mm = (step - before.grid.shape[axis]) * spacing_mm
    if abs(missing_mm) <= SAME_PLACE * min(before.grid.spacing_mm):
        return
    slices = abs(missing_mm) / spacing_mm
    if missing_mm > 0:
        raise GeometryError(
            f"a gap of {missing_mm:.3g} mm ({slices:.3g} slices) between {_pair(before, after)}: "
            "a part is missing, or one does not belong here"
        )
    raise GeometryError(
        f"{_pair(before, after)} overlap by {-missing_mm:.3g} mm ({slices:.3g} slices)"
    )


def _pair(a: Volume, b: Volume) -> str:
    return f"{a.source or 'a volume'} and {b.source or 'another'}"


def _mm(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.5g}" for v in values)
