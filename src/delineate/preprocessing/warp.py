"""Reading a volume along a moved grid, in one pass: rotate, zoom, shift, mirror, displace, crop and
convert at once.

Compiled on first use and kept in numba's cache: torch reads the eight neighbours of a 3-D voxel one
by one and from float32 alone. The interpreter's lock is free meanwhile, so threads run side by
side. Shapes: image (C, I, J, K), label (I, J, K); where to read is told as a matrix, an origin and
a coarse field of displacements.
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
    """Image (trilinear) and label (nearest) at the voxels ``origin + matrix @ (a, b, c)`` of a grid
    of ``shape``; 0 outside the volume.

    Args:
        image: (C, I, J, K), any real dtype but float16, any strides.
        label: (I, J, K).
        step: (C,) what the image's values are multiplied with.
        matrix: (3, 3) steps of the grid's axes in voxels of the volume.
        origin: (3,) where the grid's first voxel reads.
        shape: (A, B, C) of the grid.
        field: (3, a, b, c) displacements in voxels at knots that span the grid from its first to
            its last voxel, interpolated linearly.
        part: only this box of the grid.
        corner: (3,) voxel of the volume that the arrays' first one is, where they are a box of it;
            the result is bit for bit the same.

    Returns:
        (C, *shape) float32 and (*shape) of the label's dtype; the part's shape where one is given.
    """
    first, size = (0, 0, 0), tuple(shape)
    if part is not None:
        first, size = tuple(s.start for s in part), tuple(s.stop - s.start for s in part)
    moved = np.empty((image.shape[0], *size), np.float32)
    classes = np.empty(size, label.dtype)
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
def _warp(image, label, step, matrix, origin, corner, first, shape, knots, moved, classes):  # type: ignore[no-untyped-def]
    channels, size_i, size_j, size_k = image.shape
    _, len_a, len_b, len_c = moved.shape
    one, half = np.float32(1), np.float32(0.5)
    last = knots.shape[3] - 1
    displaced = knots.shape[1] * knots.shape[2] * knots.shape[3] > 1
    row = np.zeros((3, last + 1), np.float32)  # the field's knots along the row at hand
    knots_a_voxel = np.float32(last) / np.float32(max(1, shape[2] - 1))
    for a in range(len_a):
        for b in range(len_b):
            fa, fb = np.float32(first[0] + a), np.float32(first[1] + b)
            if displaced:
                _row_of_knots(knots, fa, shape[0], fb, shape[1], row)
            begin_x = origin[0] + matrix[0, 0] * fa + matrix[0, 1] * fb
            begin_y = origin[1] + matrix[1, 0] * fa + matrix[1, 1] * fb
            begin_z = origin[2] + matrix[2, 0] * fa + matrix[2, 1] * fb
            for c in range(len_c):
                fc = np.float32(first[2] + c)
                x, y, z = (
                    begin_x + matrix[0, 2] * fc,
                    begin_y + matrix[1, 2] * fc,
                    begin_z + matrix[2, 2] * fc,
                )
                if displaced:
                    at = fc * knots_a_voxel
                    n = min(int(at), max(0, last - 1))
                    t, m = at - np.float32(n), min(n + 1, last)
                    x += row[0, n] + t * (row[0, m] - row[0, n])
                    y += row[1, n] + t * (row[1, m] - row[1, n])
                    z += row[2, n] + t * (row[2, m] - row[2, n])
                i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                u, v, w = x - np.float32(i), y - np.float32(j), z - np.float32(k)
                i, j, k = i - corner[0], j - corner[1], k - corner[2]
                p, q, r = i + int(u >= half), j + int(v >= half), k + int(w >= half)
                i2, j2, k2 = min(i + 1, size_i - 1), min(j + 1, size_j - 1), min(k + 1, size_k - 1)
                within = i >= 0 and j >= 0 and k >= 0 and i < size_i and j < size_j and k < size_k
                # A single slice has no next one.
                if within and (i2 > i or u == 0) and (j2 > j or v == 0) and (k2 > k or w == 0):
                    for n in range(channels):
                        low = (
                            np.float32(image[n, i, j, k]) * (one - w)
                            + np.float32(image[n, i, j, k2]) * w
                        )
                        beside = (
                            np.float32(image[n, i, j2, k]) * (one - w)
                            + np.float32(image[n, i, j2, k2]) * w
                        )
                        above = (
                            np.float32(image[n, i2, j, k]) * (one - w)
                            + np.float32(image[n, i2, j, k2]) * w
                        )
                        far = (
                            np.float32(image[n, i2, j2, k]) * (one - w)
                            + np.float32(image[n, i2, j2, k2]) * w
                        )
                        moved[n, a, b, c] = step[n] * (
                            (low * (one - v) + beside * v) * (one - u)
                            + (above * (one - v) + far * v) * u
                        )
                    classes[a, b, c] = label[p, q, r]
                    continue
                for n in range(channels):  # at an edge: what is outside is 0
                    value = np.float32(0)
                    for near in range(8):
                        ci, cj, ck = i + (near >> 2), j + ((near >> 1) & 1), k + (near & 1)
                        if (
                            ci >= 0
                            and cj >= 0
                            and ck >= 0
                            and ci < size_i
                            and cj < size_j
                            and ck < size_k
                        ):
                            share = (
                                (u if near & 4 else one - u)
                                * (v if near & 2 else one - v)
                                * (w if near & 1 else one - w)
                            )
                            value += share * np.float32(image[n, ci, cj, ck])
                    moved[n, a, b, c] = step[n] * value
                inside = p >= 0 and q >= 0 and r >= 0 and p < size_i and q < size_j and r < size_k
                classes[a, b, c] = label[p, q, r] if inside else 0


@njit(cache=True, nogil=True)
def _row_of_knots(knots, fa, len_a, fb, len_b, row):  # type: ignore[no-untyped-def]
    """Displacements at the field's knots along the grid's last axis, for its row (fa, fb)."""
    _, many_a, many_b, many_c = knots.shape
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
