"""Resampling between a sheared grid and the orthogonal grid around it (``Grid.orthogonal``).

The slices of both grids are in the same planes, so every slice is resampled within its plane and
nothing is mixed across slices. Images are interpolated by cubic splines, labels get the nearest
voxel, so a boundary moves by at most half the spacing in the slice. If no grid is sheared, arrays
are returned as they are. This module knows no plans and no files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.grid import Grid
from ..core.volume import Volume, padding_of

DECIMALS = 7  # of voxel indices


def image_on(
    array: NDArray[Any],
    grid: Grid,
    target: Grid,
    order: int = 3,
    outside: float | None = None,
) -> NDArray[Any]:
    """Intensities (I, J, K) on ``grid``, resampled to ``target``.

    Args:
        array: finite values.
        grid, target: a sheared grid and its orthogonal grid, in either order; equal grids return
            ``array`` itself.
        order: of the spline: 3 cubic, 1 linear.
        outside: the value of voxels outside ``grid``; None is ``padding_of`` the array.

    Returns:
        (I, J, K) float32 in Fortran order.

    >>> step = np.array([[1.0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    >>> sheared = Grid((1, 3, 2), step, allow_shear=True)
    >>> image_on(np.array([[[1.0, 4], [2, 5], [3, 6]]]), sheared, sheared.orthogonal())[0, :, 1]
    array([1., 1., 4., 5., 6., 1.], dtype=float32)
    """
    if grid == target:
        return array
    value = padding_of(array) if outside is None else outside
    return _by_slice(array, grid, target, order, value, np.dtype(np.float32))


def labels_on(array: NDArray[Any], grid: Grid, target: Grid) -> NDArray[Any]:
    """Label values (I, J, K) on ``grid``, resampled to ``target`` by nearest neighbour; 0 outside.

    The grids are as for ``image_on``. The dtype is kept.
    """
    return array if grid == target else _by_slice(array, grid, target, 0, 0, array.dtype)


def orthogonal(volume: Volume, labels: bool = False) -> Volume:
    """The volume on its orthogonal grid; itself if it is not sheared.

    Args:
        labels: use the nearest voxel, else linear interpolation, which is for display: values that
            are not finite stay local.
    """
    target = volume.grid.orthogonal()
    if target == volume.grid:
        return volume
    moved = [
        labels_on(one, volume.grid, target) if labels else image_on(one, volume.grid, target, 1)
        for one in volume.channels_array
    ]
    return replace(
        volume, array=np.stack(moved) if volume.array.ndim == 4 else moved[0], grid=target
    )


def _by_slice(
    array: NDArray[Any],
    grid: Grid,
    target: Grid,
    order: int,
    outside: float,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """(I, J, K) on ``target``, resampled slice by slice with the spline of ``order``."""
    from scipy import ndimage

    # SciPy does not interpolate bool; its bytes are 0 and 1.
    if dtype.kind == "b":
        return _by_slice(
            array.view(np.uint8), grid, target, order, outside, np.dtype(np.uint8)
        ).view(dtype)
    # The slices are those of the sheared grid; the other one shares their planes.
    across = (grid if grid.is_sheared else target).slice_axis
    axes = [*(axis for axis in range(3) if axis != across), across]
    out = np.empty(target.shape, dtype, order="F")
    source, slices = array.transpose(axes), out.transpose(axes)
    # Index in the target -> index in the source, the axis of the slices last.
    steps = (np.linalg.inv(grid.affine) @ target.affine)[np.ix_([*axes, 3], [*axes, 3])]
    # Rounded, so that a voxel at the edge is not outside by the last digit.
    matrix = np.round(steps[:2, :2], DECIMALS)
    for k in range(slices.shape[2]):
        ndimage.affine_transform(
            source[..., k],
            matrix,
            offset=np.round(steps[:2, 2] * k + steps[:2, 3], DECIMALS),
            output_shape=slices.shape[:2],
            output=slices[..., k],
            order=order,
            mode="constant" if order else "grid-constant",
            cval=outside,
        )
    return out
