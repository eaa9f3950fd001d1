"""A volume cut into consecutive groups of slices, and such groups put together again by where their
voxels stand.

Nothing is resampled; arrays are (I, J, K) or (C, I, J, K). It knows no files: volumes name theirs
by ``source``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError
from ..core.grid import Grid
from ..core.volume import Volume

# of the smallest spacing: how far two grids may differ and still be one; headers round below that
SAME_PLACE = 0.05
SAME_ANGLE_DEG = 0.05


def split(volume: Volume, slices: int) -> list[Volume]:
    """Consecutive groups of ``slices`` along the last axis (views), each on its own grid; the last
    may be shorter.

    Raises:
        ValueError: ``slices`` is below 1.
    """
    if slices < 1:
        raise ValueError(f"groups of at least 1 slice, found {slices}")
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
    """The one volume that ``parts`` (in any order) make along one of their axes; one part is given
    back as it is.

    The dtype is that of the parts, or the smallest that holds all of theirs.

    Raises:
        GeometryError: no part, a part without a place, another orientation, spacing or extent, a
            gap, or an overlap; with the files' names and the distance in mm.
    """
    if not parts:
        raise GeometryError("no volumes to merge")
    first = parts[0]
    placeless = [p.source for p in parts if len(parts) > 1 and not p.meta.get("place_known", True)]
    if placeless:
        raise GeometryError(
            f"{placeless[0]} does not say where its voxels stand, so it cannot be merged by "
            "geometry"
        )
    for other in parts[1:]:
        _refuse_another_grid(first, other)
    # (part, axis): where each begins in the first one's indices.
    starts = np.array([first.grid.to_index(p.grid.affine[:3, 3]) for p in parts])
    axis = int(np.argmax(np.abs(starts).max(axis=0)))
    order = np.argsort(starts[:, axis], kind="stable")
    ordered, begins = [parts[n] for n in order], starts[order]
    for n in range(1, len(ordered)):
        _refuse_aside(ordered[0], ordered[n], begins[n] - begins[0], axis)
        _refuse_not_next(
            ordered[n - 1], ordered[n], float(begins[n, axis] - begins[n - 1, axis]), axis
        )
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


def _refuse_another_grid(first: Volume, other: Volume) -> None:
    """Orientation, spacing, channels: what all parts share whichever axis they follow one another
    along.
    """
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
    cosines = np.clip(
        np.sum(first.grid.affine[:3, :3] / a * (other.grid.affine[:3, :3] / b), axis=0), -1, 1
    )
    angle_deg = float(np.rad2deg(np.arccos(cosines)).max())
    if angle_deg > SAME_ANGLE_DEG:
        raise GeometryError(
            f"{pair} differ in orientation: their axes are {angle_deg:.2f} degrees apart"
        )


def _refuse_aside(first: Volume, other: Volume, offset: NDArray[np.float64], axis: int) -> None:
    """Across the axis both begin and end at the same place."""
    across = [a for a in range(3) if a != axis]
    spacing_mm = np.array(first.grid.spacing_mm)
    aside_mm = float(np.linalg.norm((offset * spacing_mm)[across]))
    if aside_mm > SAME_PLACE * spacing_mm.min():
        raise GeometryError(
            f"{_pair(first, other)} do not stand in line: {aside_mm:.3g} mm apart across the "
            "axis they follow one another along"
        )
    sizes = [tuple(v.grid.shape[a] for a in across) for v in (first, other)]
    if sizes[0] != sizes[1]:
        raise GeometryError(
            f"{_pair(first, other)} differ in size across the axis they follow one another "
            f"along: {sizes[0]} and {sizes[1]} voxels"
        )


def _refuse_not_next(before: Volume, after: Volume, step: float, axis: int) -> None:
    """``after`` begins where ``before`` ends; ``step`` is from start to start in voxels."""
    spacing_mm = before.grid.spacing_mm[axis]
    missing_mm = (step - before.grid.shape[axis]) * spacing_mm
    if abs(missing_mm) <= SAME_PLACE * min(before.grid.spacing_mm):
        return
    slices = abs(missing_mm) / spacing_mm
    if missing_mm > 0:
        raise GeometryError(
            f"a gap of {missing_mm:.3g} mm ({slices:.3g} slices) between {_pair(before, after)}: "
            "a part is missing, or does not belong"
        )
    raise GeometryError(
        f"{_pair(before, after)} overlap by {-missing_mm:.3g} mm ({slices:.3g} slices)"
    )


def _pair(a: Volume, b: Volume) -> str:
    return f"{a.source or 'a volume'} and {b.source or 'another'}"


def _mm(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.5g}" for v in values)
