"""Boxes, connected components and the surroundings of a body, in arrays (I, J, K)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE_MM = 5.0  # of the grid on which a body is looked for


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
    components, count = cc3d.connected_components(
        np.ascontiguousarray(mask[box]), connectivity=26, return_N=True
    )
    if count < 2:
        return 0
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    stray = (components > 0) & (components != sizes.argmax())
    labels[box][stray] = 0
    return int(stray.sum())


def far_from_body(
    values: NDArray[Any], threshold: float, spacing_mm: tuple[float, float, float], margin_mm: float
) -> NDArray[np.bool_]:
    """Voxels at least ``margin_mm`` outside the body, to within a coarse grid's step of a few mm on
    the safe side.

    The body is what is above ``threshold`` and hangs together, with every further piece of a
    fiftieth of the largest one's size, and all that lies between two voxels of it along at least
    two axes: lungs and bowel gas are inside, whichever end of the scan cuts them open.

    Args:
        values: (I, J, K), in any unit.
        threshold: in that unit, between air and soft tissue.

    Returns:
        (I, J, K) bool; all False where nothing is above the threshold.
    """
    import cc3d

    steps = [max(1, round(COARSE_MM / s)) for s in spacing_mm]
    tissue = values[:: steps[0], :: steps[1], :: steps[2]] > threshold
    pieces, count = cc3d.connected_components(
        np.ascontiguousarray(tissue), connectivity=26, return_N=True
    )
    if not count:
        return np.zeros(values.shape, bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    body = (sizes >= sizes.max() / 50)[pieces]
    inside = (
        sum(
            (_between(body, axis).astype(np.uint8) for axis in range(3)),
            np.zeros(body.shape, np.uint8),
        )
        >= 2
    )
    near = body | inside
    for axis, (step, spacing) in enumerate(zip(steps, spacing_mm, strict=True)):
        near = _widened(near, axis, 1 + int(np.ceil(margin_mm / (step * spacing))))
    coarse = [np.arange(n) // step for n, step in zip(values.shape, steps, strict=True)]
    far: NDArray[np.bool_] = ~near[np.ix_(*coarse)]
    return far


def _between(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Between the first and the last true voxel of each line along ``axis``, these included."""
    behind = np.logical_or.accumulate(mask, axis)
    ahead = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    return behind & ahead


def _widened(mask: NDArray[np.bool_], axis: int, reach: int) -> NDArray[np.bool_]:
    """True within ``reach`` voxels of a true voxel along ``axis``."""
    lines = np.moveaxis(mask, axis, -1)
    total = np.zeros((*lines.shape[:-1], lines.shape[-1] + 1), np.int32)
    np.cumsum(lines, axis=-1, out=total[..., 1:])
    at, last = np.arange(lines.shape[-1]), lines.shape[-1]
    wide = total[..., np.minimum(at + reach + 1, last)] > total[..., np.maximum(at - reach, 0)]
    return np.moveaxis(wide, -1, axis)
