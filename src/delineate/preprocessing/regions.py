"""Boxes, connected components and the surroundings of a body, in arrays (I, J, K)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE_MM = 5.0  # spacing of the grid on which the body is searched


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


def keep_largest(labels: NDArray[Any], value: int) -> int:
    """Set all but the largest 26-connected component of ``value`` to background, in place.

    Returns:
        The number of removed voxels; 0 if the structure is absent or one connected component.
    """
    mask = labels == value
    box = bounding_box(mask)
    if box is None:
        return 0
    components, count = connected_components(mask[box])
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
