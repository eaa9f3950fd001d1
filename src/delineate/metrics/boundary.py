"""Boundary IoU: the overlap of two masks near their boundaries alone, so that a large body's inside
does not hide what its outline misses.

Cheng et al. (Boundary IoU, CVPR 2021) take of each mask the pixels within d of its own contour, and
the IoU of what remains. There, d counts the pixels of a photograph, in steps to any of eight
neighbours (an eroded mask), and is 2 % of the
image's diagonal. Here it is a distance in mm:

    a voxel of the mask is within d of its boundary if the centre of some voxel outside the mask is
    at most d mm from its own

which on a square grid is the same for a d of one diagonal step, and otherwise rounder, and which
means the same at any spacing. What lies beyond the array is outside, as in the original. Across an
axis whose spacing is above d nothing is near: of thick slices only the outline within each counts.

    truth      prediction   boundary_iou
    empty      empty        NaN
    one of both empty       0

It knows no file and no name of a structure.
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

FAR_MM = 1e9  # between slices where there is but one


def boundary_iou(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    distance_mm: float = 2.0,
) -> float:
    """IoU of the parts of both masks within ``distance_mm`` of their own boundary; see the head of
    this file.

    Memory beyond the input: four bytes a voxel of the block that holds the masks, and 8 for each
    voxel of the slices within reach of one.

    Args:
        prediction, truth: (I, J, K) or (I, J); anything but zero is inside. A flat image, (I, J, 1)
            too, has its boundary in the plane.
        spacing_mm: of each axis.
        distance_mm: at least the smallest spacing (in the plane), so that every mask has voxels
            near its boundary.

    Raises:
        GeometryError: shapes differ, or the spacing is not one positive number an axis.
        UsageError: the distance is less than the smallest spacing.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    box = foreground_box(prediction, truth)
    if prediction.shape[2:] != (1,):  # a block of one slice of a volume is no flat image
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
    """The voxels of a mask within ``distance_mm`` of its boundary, from the inside; arguments as of
    ``boundary_iou``.

    Returns:
        The same shape, bool.

    Raises:
        GeometryError: the spacing is not one positive number an axis.
        UsageError: the distance is less than the smallest spacing.
    """
    if (
        mask.ndim not in (2, 3)
        or len(spacing_mm) != mask.ndim
        or not all(s > 0 for s in spacing_mm)
    ):
        raise GeometryError(
            "a mask has two or three axes with a positive spacing each, found shape "
            f"{mask.shape} and spacing {tuple(spacing_mm)}"
        )
    flat = mask.ndim == 2 or mask.shape[2] == 1
    in_plane = list(spacing_mm[:2] if flat else spacing_mm)
    if not distance_mm + ROUNDING_MM >= min(in_plane):
        raise UsageError(
            f"a distance to the boundary is at least the smallest spacing, {min(in_plane):g} mm; "
            f"found {distance_mm:g} mm"
        )
    solid = np.pad(
        mask.reshape((1, *mask.shape[:2]) if flat else mask.shape) != 0,
        [(0 if flat else 1,) * 2, (1, 1), (1, 1)],
    )
    across = [FAR_MM] if flat else []
    near = _near(
        solid, np.array([*across, *in_plane], dtype=np.float64), (distance_mm + ROUNDING_MM) ** 2
    )
    return np.asarray(near[slice(None) if flat else slice(1, -1), 1:-1, 1:-1].reshape(mask.shape))


def two_percent_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """The original's distance, 2 % of the image's diagonal, in mm; of a volume, of its diagonal
    through space.
    """
    return 0.02 * float(np.hypot.reduce([n * s for n, s in zip(shape, spacing_mm, strict=True)]))


@njit(cache=True, nogil=True)
def _near(solid, spacing, limit):  # type: ignore[no-untyped-def]
    """Which voxels of ``solid``, with an empty rim, lie within a squared distance of one outside;
    only slices within reach are kept at a time.
    """
    size_i, size_j, size_k = solid.shape
    reach = int(np.sqrt(limit) / spacing[0])
    kept, near = np.empty((2 * reach + 1, size_j, size_k)), np.zeros(solid.shape, np.bool_)
    for i in range(size_i + reach):
        if i < size_i:
            _within_slice(solid[i], spacing[1:], limit, kept[i % len(kept)])
        at = i - reach
        for j in range(size_j if at >= 0 else 0):
            first, end = _filled(solid[at, j])
            for other in range(
                max(0, at - reach), min(size_i, at + reach + 1) if first < end else 0
            ):
                squared, beside = ((other - at) * spacing[0]) ** 2, kept[other % len(kept), j]
                for k in range(first, end):
                    near[at, j, k] |= solid[at, j, k] & (beside[k] + squared <= limit)
    return near


@njit(nogil=True)
def _filled(row):  # type: ignore[no-untyped-def]
    """The first voxel inside and the end of the last; equal where there is none."""
    first, end = 0, len(row)
    while first < end and not row[first]:
        first += 1
    while end > first and not row[end - 1]:
        end -= 1
    return first, end


@njit(nogil=True)
def _within_slice(solid, spacing, limit, out):  # type: ignore[no-untyped-def]
    """(J, K) squared distance in a slice to the nearest voxel outside; right up to ``limit``, and
    above it anything above it.
    """
    size_j, size_k = solid.shape
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
    out[:] = along
    reach = int(np.sqrt(limit) / spacing[0])
    for j in range(size_j):
        first, end = _filled(solid[j])
        for other in range(max(0, j - reach), min(size_j, j + reach + 1) if first < end else 0):
            squared = ((other - j) * spacing[0]) ** 2
            for k in range(first, end):
                out[j, k] = min(out[j, k], along[other, k] + squared)
