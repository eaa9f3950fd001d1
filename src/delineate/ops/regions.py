"""Boxes and connected components of label arrays (I, J, K)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def bounding_box(mask: NDArray[Any]) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds every true voxel of (I, J, K); None where there is none."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(hit):
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return box[0], box[1], box[2]


def keep_largest(labels: NDArray[Any], value: int) -> int:
    """Set all but the largest 26-connected component of ``value`` to background, in place.

    Returns:
        How many voxels were removed; 0 where the structure is absent or in one piece.
    """
    import cc3d

    mask = labels == value
    box = bounding_box(mask)
    if box is None:
        return 0
    components, count = cc3d.connected_components(np.ascontiguousarray(mask[box]), connectivity=26, return_N=True)
    if count < 2:
        return 0
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    stray = (components > 0) & (components != sizes.argmax())
    labels[box][stray] = 0
    return int(stray.sum())
