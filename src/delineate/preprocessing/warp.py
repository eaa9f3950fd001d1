"""Sampling a volume on a transformed grid in one pass: rotation, zoom, shift, mirroring, elastic
displacement, crop and type conversion together.

The code is compiled on first use and kept in numba's cache. It is faster than torch, which reads
the eight neighbours of a 3-D voxel one by one and only from float32. It releases the interpreter
lock, so threads run in parallel. Shapes: image (C, I, J, K), label (I, J, K). The transformation is
a matrix, an origin and a coarse field of displacements, all in voxels: this module knows no grids
and no augmentation settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def warp(
    image: NDArray[Any],
    label: NDArray[Any],
    step: NDArray[np.float32],
    matrix: NDArray[np.float64],
    origin: Sequence[float] | NDArray[np.float64],
    shape: Sequence[int],
    field: NDArray[np.float32] | None = None,
    part: Sequence[slice] | None = None,
    corner: Sequence[int] = (0, 0, 0),
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Sample image (trilinear) and label (nearest) on a grid of ``shape``, whose voxel (a, b, c) is
    at ``origin + matrix @ (a, b, c)``; 0 outside the volume.

    Args:
        image: (C, I, J, K), any real dtype except float16, any strides.
        label: (I, J, K).
        step: (C,) factors of the image values.
        matrix: (3, 3) steps of the grid's axes in voxels of the volume.
        origin: (3,) position of the first voxel of the grid, in voxels of the volume.
        shape: (A, B, C) of the grid.
        field: (3, a, b, c) displacements in voxels, at knots that span the grid from its first to
            its last voxel; interpolated linearly. None: no displacement.
        part: only this box of the grid.
        corner: (3,) if the arrays are a box of the volume, the voxel of the volume that is their
            first; the result is bit for bit the same.

    Returns:
        (C, *shape) float32 and (*shape) of the label's dtype; the shape of ``part`` if given.
    """
    # The part of the grid that is computed, and its outputs.
    first, size = (0, 0, 0), tuple(shape)
    if part is not None:
        first, size = tuple(s.start for s in part), tuple(s.stop - s.start for s in part)
    moved = np.empty((image.shape[0], *size), np.float32)
    classes = np.empty(size, label.dtype)
    # A single knot of 0 means no displacement.
    knots = (
        np.zeros((3, 1, 1, 1), np.float32)
        if field is None
        else np.ascontiguousarray(field, dtype=np.float32)
    )
    _warp(
        image,
        label,
        np.asarray(step, np.float32),
        np.asarray(matrix, np.float32),
        np.asarray(origin, np.float32),
        np.array(corner),
        np.array(first),
        np.array(shape),
        knots,
        moved,
        classes,
    )
    return moved, classes


@njit(cache=True, nogil=True, fastmath={"nsz", "arcp", "contract", "reassoc"})
def _warp(  # type: ignore[no-untyped-def]
    image, label, step, matrix, origin, corner, first, shape, knots, moved, classes
):
    _, size_i, size_j, size_k = image.shape
    _, len_a, len_b, len_c = moved.shape
    half = np.float32(0.5)
    last = knots.shape[3] - 1
    displaced = knots.shape[1] * knots.shape[2] * knots.shape[3] > 1
    row = np.zeros((3, last + 1), np.float32)  # the field's knots along the current row
    knots_per_voxel = np.float32(last) / np.float32(max(1, shape[2] - 1))
    for a in range(len_a):
        for b in range(len_b):
            # Everything that is the same along a row of the grid is computed once.
            fa, fb = np.float32(first[0] + a), np.float32(first[1] + b)
            if displaced:
                _row_of_knots(knots, fa, shape[0], fb, shape[1], row)
            begin_x = origin[0] + matrix[0, 0] * fa + matrix[0, 1] * fb
            begin_y = origin[1] + matrix[1, 0] * fa + matrix[1, 1] * fb
            begin_z = origin[2] + matrix[2, 0] * fa + matrix[2, 1] * fb
            for c in range(len_c):
                # Position in the volume, in voxels.
                fc = np.float32(first[2] + c)
                x, y, z = (
                    begin_x + matrix[0, 2] * fc,
                    begin_y + matrix[1, 2] * fc,
                    begin_z + matrix[2, 2] * fc,
                )
                if displaced:
                    dx, dy, dz = _displacement(row, fc * knots_per_voxel, last)
                    x += dx
                    y += dy
                    z += dz
                # Lower neighbour and fractions. They are computed from the position in the whole
                # volume and then shifted, so that rounding does not depend on ``corner``.
                i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                u, v, w = x - np.float32(i), y - np.float32(j), z - np.float32(k)
                i, j, k = i - corner[0], j - corner[1], k - corner[2]
                # Nearest neighbour, for the label, and upper neighbour.
                p, q, r = i + int(u >= half), j + int(v >= half), k + int(w >= half)
                i2, j2, k2 = min(i + 1, size_i - 1), min(j + 1, size_j - 1), min(k + 1, size_k - 1)
                within = _contains(size_i, size_j, size_k, i, j, k)
                # A single slice has no upper neighbour.
                if within and (i2 > i or u == 0) and (j2 > j or v == 0) and (k2 > k or w == 0):
                    _read_inside(image, step, (i, j, k), (i2, j2, k2), (u, v, w), moved, (a, b, c))
                    classes[a, b, c] = label[p, q, r]
                else:
                    _read_edge(image, step, (i, j, k), (u, v, w), moved, (a, b, c))
                    inside = _contains(size_i, size_j, size_k, p, q, r)
                    classes[a, b, c] = label[p, q, r] if inside else 0


# The next four functions are inlined in ``_warp``, so that its floating-point settings apply to
# them and calls cost no time.


@njit(cache=True, nogil=True, inline="always")
def _displacement(row, at, last):  # type: ignore[no-untyped-def]
    """Displacement at position ``at`` of a row of knots (3, last + 1), interpolated linearly."""
    n = min(int(at), max(0, last - 1))
    t, m = at - np.float32(n), min(n + 1, last)
    return (
        row[0, n] + t * (row[0, m] - row[0, n]),
        row[1, n] + t * (row[1, m] - row[1, n]),
        row[2, n] + t * (row[2, m] - row[2, n]),
    )


@njit(cache=True, nogil=True, inline="always")
def _contains(size_i, size_j, size_k, i, j, k):  # type: ignore[no-untyped-def]
    """Whether (i, j, k) is a voxel of an array of this size."""
    return i >= 0 and j >= 0 and k >= 0 and i < size_i and j < size_j and k < size_k


@njit(cache=True, nogil=True, inline="always")
def _read_inside(image, step, lower, upper, fraction, moved, at):  # type: ignore[no-untyped-def]
    """Trilinear interpolation of all channels if all eight neighbours are in the volume."""
    i, j, k = lower
    i2, j2, k2 = upper
    u, v, w = fraction
    a, b, c = at
    one = np.float32(1)
    for n in range(image.shape[0]):
        # Along K at the four combinations of I and J, then along J, then along I.
        low = np.float32(image[n, i, j, k]) * (one - w) + np.float32(image[n, i, j, k2]) * w
        low_j2 = np.float32(image[n, i, j2, k]) * (one - w) + np.float32(image[n, i, j2, k2]) * w
        high = np.float32(image[n, i2, j, k]) * (one - w) + np.float32(image[n, i2, j, k2]) * w
        high_j2 = np.float32(image[n, i2, j2, k]) * (one - w) + np.float32(image[n, i2, j2, k2]) * w
        moved[n, a, b, c] = step[n] * (
            (low * (one - v) + low_j2 * v) * (one - u) + (high * (one - v) + high_j2 * v) * u
        )


@njit(cache=True, nogil=True, inline="always")
def _read_edge(image, step, lower, fraction, moved, at):  # type: ignore[no-untyped-def]
    """Trilinear interpolation of all channels at an edge: voxels outside the volume are 0."""
    i, j, k = lower
    u, v, w = fraction
    a, b, c = at
    one = np.float32(1)
    channels, size_i, size_j, size_k = image.shape
    for n in range(channels):
        value = np.float32(0)
        for near in range(8):  # its three bits choose lower or upper neighbour along I, J, K
            ci, cj, ck = i + (near >> 2), j + ((near >> 1) & 1), k + (near & 1)
            if _contains(size_i, size_j, size_k, ci, cj, ck):
                share = (
                    (u if near & 4 else one - u)
                    * (v if near & 2 else one - v)
                    * (w if near & 1 else one - w)
                )
                value += share * np.float32(image[n, ci, cj, ck])
        moved[n, a, b, c] = step[n] * value


@njit(cache=True, nogil=True)
def _row_of_knots(knots, fa, len_a, fb, len_b, row):  # type: ignore[no-untyped-def]
    """Displacements of the row (fa, fb) of the grid at the knots along its last axis, to ``row``.

    Bilinear interpolation of the field along the first two axes.
    """
    _, many_a, many_b, many_c = knots.shape
    # Position of the row among the knots, its lower and upper neighbours, and the fractions.
    at_a = fa * (np.float32(many_a - 1) / np.float32(max(1, len_a - 1)))
    at_b = fb * (np.float32(many_b - 1) / np.float32(max(1, len_b - 1)))
    i, j = min(int(at_a), max(0, many_a - 2)), min(int(at_b), max(0, many_b - 2))
    u, v = at_a - np.float32(i), at_b - np.float32(j)
    p, q = min(i + 1, many_a - 1), min(j + 1, many_b - 1)
    for n in range(3):
        for c in range(many_c):
            here = knots[n, i, j, c] + v * (knots[n, i, q, c] - knots[n, i, j, c])
            far = knots[n, p, j, c] + v * (knots[n, p, q, c] - knots[n, p, j, c])
            row[n, c] = here + u * (far - here)
