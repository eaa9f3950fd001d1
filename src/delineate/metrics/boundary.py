"""Boundary IoU: the overlap of two masks near their boundaries only, so that the interior of a
large structure does not hide errors along its contour.

Cheng et al. (Boundary IoU, CVPR 2021) keep the pixels of each mask within d of its own contour and
compute the IoU of the two bands. Their d is a number of pixels of a photograph (erosion with eight
neighbours) and is 2 % of the image diagonal. Here d is a distance in mm:

    a voxel of the mask is within d of its boundary if the centre of some voxel outside the mask is
    at most d mm from its own centre

On a square grid the two definitions agree if d is one diagonal step; otherwise the band here is
rounder, and it means the same at any spacing. Everything beyond the array is outside, as in the
original. Along an axis whose spacing is above d no voxel is near the boundary: for thick slices
only the contour within each slice counts.

    truth      prediction   boundary_iou
    empty      empty        NaN
    one of the two empty    0

It reads no files and knows no structure names.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError, UsageError
from .overlap import foreground_box
from .surface import ROUNDING_MM

FAR_MM = 1e9  # slice spacing of a 2-D image, so that no other slice is within reach


def boundary_iou(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    distance_mm: float = 2.0,
) -> float:
    """IoU of the parts of both masks within ``distance_mm`` of their own boundary; defined in the
    module docstring.

    Memory beyond the input: four bytes per voxel of the foreground's bounding box, and 8 bytes per
    voxel of the slices within reach of a slice.

    Args:
        prediction, truth: (I, J, K) or (I, J); non-zero is inside. A 2-D image, (I, J, 1) too,
            has its boundary in the plane.
        spacing_mm: voxel size along each axis.
        distance_mm: at least the smallest spacing (of a 2-D image, in the plane), so that every
            mask has voxels near its boundary.

    Returns:
        0 to 1; 0 if exactly one mask is empty, NaN if both are.

    Raises:
        GeometryError: the shapes differ, or the spacing is not one positive number per axis.
        UsageError: the distance is less than the smallest spacing.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    box = foreground_box(prediction, truth)
    # A volume whose foreground is one slice must not become a 2-D image: pad the last axis.
    if prediction.shape[2:] != (1,):
        box = (*box[:2], *(slice(max(0, b.start - 1), b.stop + 1) for b in box[2:]))
    with ThreadPoolExecutor(2) as pool:
        p, t = pool.map(
            lambda mask: near_boundary(mask[box], spacing_mm, distance_mm), (prediction, truth)
        )
    union = np.count_nonzero(p | t)
    return np.count_nonzero(p & t) / union if union else float("nan")


def near_boundary(
    mask: NDArray[Any], spacing_mm: Sequence[float], distance_mm: float
) -> NDArray[np.bool_]:
    """The voxels of a mask within ``distance_mm`` of its boundary; arguments as in
    ``boundary_iou``.

    Returns:
        The shape of the mask, bool; all False if the mask is empty.

    Raises:
        GeometryError: the spacing is not one positive number per axis.
        UsageError: the distance is less than the smallest spacing.
    """
    if (
        mask.ndim not in (2, 3)
        or len(spacing_mm) != mask.ndim
        or not all(s > 0 for s in spacing_mm)
    ):
        raise GeometryError(
            "a mask has two or three axes with one positive spacing each, found shape "
            f"{mask.shape} and spacing {tuple(spacing_mm)}"
        )
    flat = mask.ndim == 2 or mask.shape[2] == 1
    in_plane = list(spacing_mm[:2] if flat else spacing_mm)
    if not distance_mm + ROUNDING_MM >= min(in_plane):
        raise UsageError(
            "the distance to the boundary must be at least the smallest spacing, "
            f"{min(in_plane):g} mm; found {distance_mm:g} mm"
        )
    # An empty rim makes everything beyond the array outside. A 2-D image becomes one slice.
    solid = np.pad(
        mask.reshape((1, *mask.shape[:2]) if flat else mask.shape) != 0,
        [(0 if flat else 1,) * 2, (1, 1), (1, 1)],
    )
    slice_spacing = [FAR_MM] if flat else []
    near = _within_distance(
        solid,
        np.array([*slice_spacing, *in_plane], dtype=np.float64),
        (distance_mm + ROUNDING_MM) ** 2,
    )
    return np.asarray(near[slice(None) if flat else slice(1, -1), 1:-1, 1:-1].reshape(mask.shape))


def two_percent_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """The distance of the original paper in mm: 2 % of the image diagonal, for a volume of its
    diagonal in space.
    """
    return 0.02 * float(np.hypot.reduce([n * s for n, s in zip(shape, spacing_mm, strict=True)]))


@njit(cache=True, nogil=True)
def _within_distance(solid, spacing, limit):  # type: ignore[no-untyped-def]
    """(I, J, K) bool: which voxels of ``solid``, a mask with an empty rim, lie within a squared
    distance ``limit`` (mm2) of a voxel outside.

    The squared distance splits into a part within the slice and a part along i. Only the in-slice
    parts of the slices within reach are kept, in a ring buffer.
    """
    size_i, size_j, size_k = solid.shape
    reach = int(np.sqrt(limit) / spacing[0])
    ring, near = np.empty((2 * reach + 1, size_j, size_k)), np.zeros(solid.shape, np.bool_)
    for i in range(size_i + reach):
        if i < size_i:
            _within_slice(solid[i], spacing[1:], limit, ring[i % len(ring)])
        # Slice i - reach is complete: all slices within its reach are in the buffer.
        at = i - reach
        for j in range(size_j if at >= 0 else 0):
            first, end = _row_extent(solid[at, j])
            for other in range(
                max(0, at - reach), min(size_i, at + reach + 1) if first < end else 0
            ):
                along_i, in_slice = ((other - at) * spacing[0]) ** 2, ring[other % len(ring), j]
                for k in range(first, end):
                    near[at, j, k] |= solid[at, j, k] & (in_slice[k] + along_i <= limit)
    return near


@njit(nogil=True)
def _row_extent(row):  # type: ignore[no-untyped-def]
    """Index of the first voxel inside and one past the last; equal if the row is empty."""
    first, end = 0, len(row)
    while first < end and not row[first]:
        first += 1
    while end > first and not row[end - 1]:
        end -= 1
    return first, end


@njit(nogil=True)
def _within_slice(solid, spacing, limit, out):  # type: ignore[no-untyped-def]
    """Write into ``out`` (J, K) the squared distance within one slice to the nearest voxel
    outside; exact up to ``limit``, and some value above ``limit`` beyond it.
    """
    size_j, size_k = solid.shape
    # Along each row: steps to the nearest voxel outside, from the left and then from the right.
    along = np.empty((size_j, size_k))
    for j in range(size_j):
        steps = 1 << 30
        for k in range(size_k):
            steps = steps + 1 if solid[j, k] else 0
            along[j, k] = (steps * spacing[1]) ** 2
        steps = 1 << 30
        for k in range(size_k - 1, -1, -1):
            steps = steps + 1 if solid[j, k] else 0
            along[j, k] = min(along[j, k], (steps * spacing[1]) ** 2)
    # Across rows: the minimum over the rows within reach.
    out[:] = along
    reach = int(np.sqrt(limit) / spacing[0])
    for j in range(size_j):
        first, end = _row_extent(solid[j])
        for other in range(max(0, j - reach), min(size_j, j + reach + 1) if first < end else 0):
            squared = ((other - j) * spacing[0]) ** 2
            for k in range(first, end):
                out[j, k] = min(out[j, k], along[other, k] + squared)
