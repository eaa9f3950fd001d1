"""Centrelines of masks by thinning, and clDice, which measures whether the connections of vessels
and airways are preserved, and not how thick they are.

``skeleton`` removes voxels from a mask from six sides in turn until none can be removed (Lee,
Kashyap & Chu, CVGIP 56, 1994). A voxel can be removed if

    it is on the border of that side  its neighbour in that direction is outside
    it is not the end of a line       more than one of its 26 neighbours is inside
    it is simple                      its removal keeps the number of components (26-connected),
                                      and of cavities and tunnels (6-connected background)

All candidates of one side are found first and then removed one after the other, each after a second
test that it is still simple. Lee et al. only test at this point whether its neighbours are still
connected, which can change a tunnel. Here the full test is repeated (Bertrand & Malandain, Pattern
Recognition Letters 15, 1994), so the topology is preserved: the skeleton has the same components,
cavities and tunnels as the mask, and its only simple voxels are the ends of lines. A 2-D image is
thinned from its four sides, with an 8-connected mask and a 4-connected background.

Thinning counts voxels, not mm: if the spacing is very uneven, the line is not midway in mm. The
skeleton of a mask with a rough surface has spurs.

The module reads no files and knows no spacing and no structure names. Legend: a word holds a voxel
and its neighbours as 27 bits; the bit of a neighbour is 9 i + 3 j + k, and bit 13 is the voxel
itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError
from .overlap import foreground_box

# (axis, direction); another order gives another, equally thin line.
SIDES = (
    (1, -1),
    (1, 1),
    (2, 1),
    (2, -1),
    (0, 1),
    (0, -1),
)


@dataclass(frozen=True)
class ClDice:
    """The result of ``cl_dice``.

    Args:
        precision: share of the prediction's centreline inside the truth; NaN if the prediction is
            empty.
        sensitivity: share of the truth's centreline inside the prediction; NaN if the truth is
            empty.
        dice: clDice, their harmonic mean; NaN if both masks are empty, 0 if exactly one is.
    """

    precision: float
    sensitivity: float
    dice: float


def cl_dice(prediction: NDArray[Any], truth: NDArray[Any]) -> ClDice:
    """Centreline Dice (Shit et al., CVPR 2021), computed with ``skeleton``.

    With V the voxels of a mask and S those of its skeleton: precision (topology precision) =
    |S_P n V_T| / |S_P|, sensitivity (topology sensitivity) = |S_T n V_P| / |S_T|, and dice =
    2 x precision x sensitivity / (precision + sensitivity). If neither skeleton meets the other
    mask, dice is 0. Other thinning algorithms give other skeletons and so other values, even with
    the same topology: report the implementation together with the value.

        truth      prediction   precision   sensitivity   dice
        empty      empty        NaN         NaN           NaN
        empty      something    0           NaN           0
        something  empty        NaN         0             0

    Args:
        prediction, truth: (I, J, K) or (I, J); non-zero is inside.

    Raises:
        GeometryError: the shapes differ, or the arrays do not have two or three axes.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    _check_axes(prediction)
    with ThreadPoolExecutor(2) as pool:
        precision, sensitivity = pool.map(
            _share_of_skeleton_inside, (prediction, truth), (truth, prediction)
        )
    defined = [share for share in (precision, sensitivity) if not np.isnan(share)]
    if not defined:
        return ClDice(precision, sensitivity, float("nan"))
    agree = len(defined) == 2 and sum(defined) > 0
    return ClDice(
        precision,
        sensitivity,
        2 * precision * sensitivity / (precision + sensitivity) if agree else 0.0,
    )


def skeleton(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The skeleton (centreline) of a mask; the algorithm is in the module docstring. A 2-D image
    may have two axes or a last axis of length 1.

    Memory beyond the result is a few bytes per voxel of the mask's bounding box.

    Args:
        mask: (I, J, K) or (I, J); non-zero is inside, and everything beyond the array is outside.

    Returns:
        The shape of the mask, bool; all False if the mask is empty.

    Raises:
        GeometryError: the array does not have two or three axes.
    """
    _check_axes(mask)
    out, box = np.zeros(mask.shape, np.bool_), foreground_box(mask)
    out[box] = _skeleton_of_block(mask[box], _is_flat(mask))
    return out


def _share_of_skeleton_inside(mask: NDArray[Any], other: NDArray[Any]) -> float:
    """The share of the skeleton of ``mask`` inside ``other``; NaN if ``mask`` is empty."""
    box = foreground_box(mask)
    line = _skeleton_of_block(mask[box], _is_flat(mask))
    return float((other[box][line] != 0).mean()) if line.any() else float("nan")


def _check_axes(mask: NDArray[Any]) -> None:
    if mask.ndim not in (2, 3):
        raise GeometryError(f"a mask has two or three axes, found shape {mask.shape}")


def _is_flat(mask: NDArray[Any]) -> bool:
    return mask.ndim == 2 or mask.shape[2] == 1


def _skeleton_of_block(block: NDArray[Any], flat: bool) -> NDArray[np.bool_]:
    """The skeleton of the mask in a block; everything beyond the block is outside."""
    volume = block.reshape((1, *block.shape[:2])) if flat else block
    # An empty rim, so that the 26 neighbours of every voxel exist.
    solid = np.zeros([n + 2 for n in volume.shape], np.uint8)
    inner = solid[1:-1, 1:-1, 1:-1]
    inner[...] = volume != 0
    # Neighbours as offsets into the flattened array.
    steps = [s // solid.itemsize for s in solid.strides]
    sides = np.array([steps[axis] * direction for axis, direction in SIDES if axis or not flat])
    _thin(solid.reshape(-1), sides, steps[0], steps[1])
    return inner.astype(np.bool_).reshape(block.shape)


# ---- thinning ----


@njit(cache=True, nogil=True)
def _thin(solid, sides, step_i, step_j):  # type: ignore[no-untyped-def]
    """Remove voxels from ``solid`` (flattened, with an empty rim) in place, from each of ``sides``
    in turn, until none can be removed.

    Only voxels with an outside neighbour are examined: ``border`` holds their positions in rising
    order, and voxels that a removal exposes are added to it.
    """
    listed = np.zeros(len(solid), np.uint8)
    border = _border_voxels(solid, sides, listed)
    changed = True
    while changed:
        changed = False
        for side in sides:
            # Find all candidates of this side before any is removed: the line stays in the middle.
            candidates, count = np.empty(len(border), np.int64), 0
            for at in border:
                if not solid[at + side]:
                    word = _word(solid, at, step_i, step_j)
                    if not _is_end(word) and _is_simple(word):
                        candidates[count] = at
                        count += 1
            if count:
                border = _merged(
                    border,
                    _remove_simple(solid, candidates[:count], sides, step_i, step_j, listed),
                    solid,
                )
                changed = True


@njit(nogil=True)
def _border_voxels(solid, sides, listed):  # type: ignore[no-untyped-def]
    """(n,) positions of voxels inside with a neighbour outside, in rising order; marked in
    ``listed``.
    """
    count = 0
    for at in range(len(solid)):
        if solid[at]:
            for step in sides:
                if not solid[at + step]:
                    listed[at] = 1
                    count += 1
                    break
    out, n = np.empty(count, np.int64), 0
    for at in range(len(solid)):
        if listed[at]:
            out[n] = at
            n += 1
    return out


@njit(nogil=True)
def _remove_simple(  # type: ignore[no-untyped-def]
    solid, candidates, sides, step_i, step_j, listed
):
    """Remove the candidates that are still simple; return the positions of the voxels that this
    exposes, in rising order.
    """
    exposed, count = np.empty(len(candidates) * len(sides), np.int64), 0
    for at in candidates:
        # An earlier removal may have made this voxel necessary for the topology.
        if _is_simple(_word(solid, at, step_i, step_j)):
            solid[at] = 0
            for step in sides:
                if solid[at + step] and not listed[at + step]:
                    listed[at + step] = 1
                    exposed[count] = at + step
                    count += 1
    return np.sort(exposed[:count])


@njit(nogil=True)
def _merged(border, exposed, solid):  # type: ignore[no-untyped-def]
    """Both lists of positions as one in rising order, without the voxels that were removed."""
    out, n, next_exposed = np.empty(len(border) + len(exposed), np.int64), 0, 0
    for at in border:
        while next_exposed < len(exposed) and exposed[next_exposed] < at:
            out[n] = exposed[next_exposed]
            n += 1
            next_exposed += 1
        if solid[at]:
            out[n] = at
            n += 1
    rest = len(exposed) - next_exposed
    out[n : n + rest] = exposed[next_exposed:]
    return out[: n + rest]


# ---- the 26 neighbours of a voxel ----

FULL = (1 << 27) - 1
CENTRE = 1 << 13
# Offsets of the neighbours, in the order of a word's bits.
OFFSETS = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
FACES = sum(1 << n for n, o in enumerate(OFFSETS) if sum(map(abs, o)) == 1)
FACES_AND_EDGES = sum(1 << n for n, o in enumerate(OFFSETS) if 1 <= sum(map(abs, o)) <= 2)
# Masks that keep a shift by one row or one voxel from running over the edge of the 3 x 3 x 3 block.
NOT_FIRST_J, NOT_LAST_J = (
    sum(1 << n for n, o in enumerate(OFFSETS) if o[1] != end) for end in (-1, 1)
)
NOT_FIRST_K, NOT_LAST_K = (
    sum(1 << n for n, o in enumerate(OFFSETS) if o[2] != end) for end in (-1, 1)
)


@njit(nogil=True)
def _word(solid, at, step_i, step_j):  # type: ignore[no-untyped-def]
    """A voxel and its 26 neighbours as bits."""
    word = 0
    for i in range(3):
        for j in range(3):
            row = at + (i - 1) * step_i + (j - 1) * step_j
            word |= (solid[row - 1] | solid[row] << 1 | solid[row + 1] << 2) << (9 * i + 3 * j)
    return word


@njit(nogil=True)
def _is_end(word):  # type: ignore[no-untyped-def]
    """Whether a voxel has exactly one neighbour."""
    others = word & ~CENTRE
    return others != 0 and others & (others - 1) == 0


@njit(nogil=True)
def _is_simple(word):  # type: ignore[no-untyped-def]
    """Whether the removal of a voxel preserves the topology (Bertrand & Malandain 1994).

    Two conditions: its neighbours inside are one component (26-connected); and its face neighbours
    outside are one component, connected over faces within the 18 face and edge neighbours.
    """
    inside, outside = word & ~CENTRE, ~word & FACES_AND_EDGES
    touched = outside & FACES
    if inside == 0 or touched == 0:
        return False
    # Grow one component of the inside by all 26 neighbours: one axis after the other.
    part, before = inside & -inside, 0
    while part != before:
        before = part
        part |= (part & NOT_LAST_K) << 1 | (part & NOT_FIRST_K) >> 1
        part |= (part & NOT_LAST_J) << 3 | (part & NOT_FIRST_J) >> 3
        part |= part << 9 | part >> 9
        part &= inside
    if part != inside:
        return False
    # Grow one component of the outside over faces: all axes from the same state.
    part, before = touched & -touched, 0
    while part != before:
        before = part
        part |= (
            (part & NOT_LAST_K) << 1
            | (part & NOT_FIRST_K) >> 1
            | (part & NOT_LAST_J) << 3
            | (part & NOT_FIRST_J) >> 3
            | part << 9
            | part >> 9
        )
        part &= outside
    return touched & ~part == 0
