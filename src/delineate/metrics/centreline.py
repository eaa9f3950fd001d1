"""Centrelines of masks by thinning, and clDice, which asks of vessels and airways whether they hang
together and not how thick they are.

``skeleton`` takes voxels off a mask from six sides in turn until none can go (Lee, Kashyap & Chu,
CVGIP 56, 1994). A voxel can go if

    it lies on that side's border     the voxel beside it in that direction is outside
    it is no end of a line            it has more than one neighbour over faces, edges and corners
    it is simple                      without it there are as many components (26), cavities and
                                      tunnels (6) as with it

All voxels of one side's border are found first and then taken off one after the other, each asked
once more whether it is simple. Lee et al. ask there only whether its neighbours hang together,
which can change a tunnel; here the whole question
is asked (Bertrand & Malandain, Pattern Recognition Letters 15, 1994), so that the topology is kept:
the same components, cavities and tunnels are left, and nothing simple but ends of lines. A flat
image is thinned from its four sides, its mask hanging together over edges and corners (8) and its
background over edges (4).

Thinning counts voxels and not mm: where spacings differ much, the line is not midway in mm. A
skeleton has spurs where the mask is rough.

It knows no file, no spacing and no name of a structure. Legend: a word holds a voxel and its
neighbours as 27 bits, 9 i + 3 j + k, itself bit 13.
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

# (axis, direction); another order leaves another, equally thin line.
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
    """What ``cl_dice`` found.

    Args:
        precision: share of the prediction's centreline inside the truth; NaN where the prediction
            is empty.
        sensitivity: share of the truth's centreline inside the prediction; NaN where the truth is
            empty.
        dice: their harmonic mean, clDice; NaN where both are empty, 0 where one is.
    """

    precision: float
    sensitivity: float
    dice: float


def cl_dice(prediction: NDArray[Any], truth: NDArray[Any]) -> ClDice:
    """Centreline Dice (Shit et al., CVPR 2021), from the skeletons of ``skeleton``.

    With V the voxels of a mask and S those of its skeleton: precision |S_P n V_T| / |S_P|,
    sensitivity |S_T n V_P| / |S_T|, dice 2 x precision x sensitivity / (precision + sensitivity).
    Where neither line lies in the other mask it is 0. Other thinnings give other lines and so other
    figures, though the topology is the same: name the implementation beside the figure.

        truth      prediction   precision   sensitivity   dice
        empty      empty        NaN         NaN           NaN
        empty      something    0           NaN           0
        something  empty        NaN         0             0

    Args:
        prediction, truth: (I, J, K) or (I, J); anything but zero is inside.

    Raises:
        GeometryError: the shapes differ, or there are neither two nor three axes.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    _refuse_other_axes(prediction)
    with ThreadPoolExecutor(2) as pool:
        precision, sensitivity = pool.map(_share_inside, (prediction, truth), (truth, prediction))
    filled = [share for share in (precision, sensitivity) if not np.isnan(share)]
    if not filled:
        return ClDice(precision, sensitivity, float("nan"))
    agree = len(filled) == 2 and sum(filled) > 0
    return ClDice(
        precision,
        sensitivity,
        2 * precision * sensitivity / (precision + sensitivity) if agree else 0.0,
    )


def skeleton(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The centreline of a mask; see the head of this file. A flat image may have two axes or a last
    one of length 1.

    Memory beyond the result is a few bytes for each voxel of the block that holds the mask.

    Args:
        mask: (I, J, K) or (I, J); anything but zero is inside, and what lies beyond the array is
            outside.

    Returns:
        The same shape, bool; empty where the mask is.

    Raises:
        GeometryError: there are neither two nor three axes.
    """
    _refuse_other_axes(mask)
    out, box = np.zeros(mask.shape, np.bool_), foreground_box(mask)
    out[box] = _thinned(mask[box], _is_flat(mask))
    return out


def _share_inside(mask: NDArray[Any], other: NDArray[Any]) -> float:
    """The share of the centreline of ``mask`` that lies inside ``other``; NaN where there is
    none.
    """
    box = foreground_box(mask)
    line = _thinned(mask[box], _is_flat(mask))
    return float((other[box][line] != 0).mean()) if line.any() else float("nan")


def _refuse_other_axes(mask: NDArray[Any]) -> None:
    if mask.ndim not in (2, 3):
        raise GeometryError(f"a mask has two or three axes, found shape {mask.shape}")


def _is_flat(mask: NDArray[Any]) -> bool:
    return mask.ndim == 2 or mask.shape[2] == 1


def _thinned(block: NDArray[Any], flat: bool) -> NDArray[np.bool_]:
    """The skeleton of a block outside which there is nothing."""
    deep = block.reshape((1, *block.shape[:2])) if flat else block
    solid = np.zeros([n + 2 for n in deep.shape], np.uint8)
    inner = solid[1:-1, 1:-1, 1:-1]
    inner[...] = deep != 0
    steps = [s // solid.itemsize for s in solid.strides]
    beside = np.array([steps[axis] * direction for axis, direction in SIDES if axis or not flat])
    _thin(solid.reshape(-1), beside, steps[0], steps[1])
    return inner.astype(np.bool_).reshape(block.shape)


# ---- thinning ----


@njit(cache=True, nogil=True)
def _thin(solid, beside, step_i, step_j):  # type: ignore[no-untyped-def]
    """Takes voxels off ``solid`` (flat, with an empty rim), from the side of each of ``beside`` in
    turn, until none goes.

    Only voxels with an outside neighbour are looked at: ``border`` holds them in rising order, and
    grows by those that are laid bare.
    """
    listed = np.zeros(len(solid), np.uint8)
    border = _bare(solid, beside, listed)
    changed = True
    while changed:
        changed = False
        for side in beside:
            ready, count = np.empty(len(border), np.int64), 0
            for at in border:
                if not solid[at + side]:
                    word = _word(solid, at, step_i, step_j)
                    if not _is_end(word) and _is_simple(word):
                        ready[count] = at
                        count += 1
            if count:
                border = _merged(
                    border, _take_off(solid, ready[:count], beside, step_i, step_j, listed), solid
                )
                changed = True


@njit(nogil=True)
def _bare(solid, beside, listed):  # type: ignore[no-untyped-def]
    """(n,) voxels inside with a neighbour outside, in rising order; marked in ``listed``."""
    count = 0
    for at in range(len(solid)):
        if solid[at]:
            for step in beside:
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
def _take_off(solid, ready, beside, step_i, step_j, listed):  # type: ignore[no-untyped-def]
    """Takes off what is simple still; returns what is laid bare, in rising order."""
    fresh, bare = np.empty(len(ready) * len(beside), np.int64), 0
    for at in ready:
        if _is_simple(_word(solid, at, step_i, step_j)):
            solid[at] = 0
            for step in beside:
                if solid[at + step] and not listed[at + step]:
                    listed[at + step] = 1
                    fresh[bare] = at + step
                    bare += 1
    return np.sort(fresh[:bare])


@njit(nogil=True)
def _merged(border, fresh, solid):  # type: ignore[no-untyped-def]
    """Both in rising order, without what is outside by now."""
    out, n, next_fresh = np.empty(len(border) + len(fresh), np.int64), 0, 0
    for at in border:
        while next_fresh < len(fresh) and fresh[next_fresh] < at:
            out[n] = fresh[next_fresh]
            n += 1
            next_fresh += 1
        if solid[at]:
            out[n] = at
            n += 1
    rest = len(fresh) - next_fresh
    out[n : n + rest] = fresh[next_fresh:]
    return out[: n + rest]


# ---- a voxel among its neighbours ----

FULL = (1 << 27) - 1
CENTRE = 1 << 13
# In the order of a word's bits.
OFFSETS = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
FACES = sum(1 << n for n, o in enumerate(OFFSETS) if sum(map(abs, o)) == 1)
FACES_AND_EDGES = sum(1 << n for n, o in enumerate(OFFSETS) if 1 <= sum(map(abs, o)) <= 2)
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
    """Whether taking a voxel off leaves the topology as it is (Bertrand & Malandain 1994).

    Its neighbours inside are one piece (26); and those outside that it touches over a face are one
    piece, hanging together over the faces of the neighbours over faces and edges.
    """
    inside, outside = word & ~CENTRE, ~word & FACES_AND_EDGES
    touched = outside & FACES
    if inside == 0 or touched == 0:
        return False
    piece, before = inside & -inside, 0
    while piece != before:
        before = piece
        piece |= (piece & NOT_LAST_K) << 1 | (piece & NOT_FIRST_K) >> 1
        piece |= (piece & NOT_LAST_J) << 3 | (piece & NOT_FIRST_J) >> 3
        piece |= piece << 9 | piece >> 9
        piece &= inside
    if piece != inside:
        return False
    piece, before = touched & -touched, 0
    while piece != before:
        before = piece
        piece |= (
            (piece & NOT_LAST_K) << 1
            | (piece & NOT_FIRST_K) >> 1
            | (piece & NOT_LAST_J) << 3
            | (piece & NOT_FIRST_J) >> 3
            | piece << 9
            | piece >> 9
        )
        piece &= outside
    return touched & ~piece == 0
