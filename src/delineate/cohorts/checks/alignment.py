"""Whether the boundaries of masks follow the edges of their images, and the cases in which they do
only after a shift.

``fit_of`` measures one case: the mean change of intensity across the boundary of the mask, where it
is and at many shifts. ``shifted`` compares all cases. Works on arrays; reads no files. A cohort
whose masks follow no edges (a tumour without a border) is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

POINTS = 600  # of a boundary; in each, the intensities on both sides are compared
FEWEST_POINTS = 50
GREYS = 256  # ranks of intensities, so that no bright part dominates
AT_HOME = (-1, 0, 1)  # voxels: a mask one voxel off the edge is no shift
AROUND = (-12, -6, 0, 6, 12)  # shifts that show what is usual by chance
SEARCHED = tuple(range(-12, 13, 3))
REFINED = 3  # the best of those, from which neighbours are searched
DOUBTFUL = 3.0  # a case that fits better is not compared with shifts
# The fit of the better cases of a cohort whose masks follow edges: of volumes, and of slices, whose
# short boundaries fit by chance more often.
CLEAR, CLEAR_FLAT = 4.0, 6.0
FITS = 0.5  # of that fit, at least
# Where masks follow edges so well, one that does so much less is off wherever it belongs.
VERY_CLEAR, ABSENT = 8.0, 0.35
BETTER = 1.6  # times the fit where it is: a shift that explains a case
DECIDED = 0.9  # of the cases fit or do not
FEWEST_CASES = 8


@dataclass(frozen=True)
class Fit:
    """By how much the boundary of a mask differs from shifted ones, in standard deviations.

    Args:
        here: where the mask is.
        best: at the best of many shifts; equal to ``here`` if that is good enough.
        shift: in voxels, that of ``best``.
        flat: whether the mask is a single slice.
    """

    here: float
    best: float
    shift: tuple[int, ...] = (0, 0, 0)
    flat: bool = False


def fit_of(image: NDArray[np.generic], label: NDArray[np.integer]) -> Fit | None:
    """The fit of a mask (I, J, K) to the first channel of an image (C, I, J, K); None if its
    boundary is too short.
    """
    places, axes = _boundary(label)
    if len(places) < FEWEST_POINTS:
        return None
    ranks, places = _ranks(image[0], places)
    home = _contrasts(ranks, places, axes, _shifts(AT_HOME, label))
    around = _contrasts(ranks, places, axes, [s for s in _shifts(AROUND, label) if any(s)])
    flat = label.shape[2] == 1
    middle, spread = float(np.median(around)), float(around.std()) + 1e-9
    here = (float(home.max()) - middle) / spread
    if here >= DOUBTFUL:
        return Fit(here, here, flat=flat)
    wide = [s for s in _shifts(SEARCHED, label) if any(s)]
    rough = _contrasts(ranks, places, axes, wide)
    near = [
        tuple(int(a + b) for a, b in zip(wide[at], step, strict=True))
        for at in np.argsort(-rough)[:REFINED]
        for step in _shifts(AT_HOME, label)
    ]
    near = [shift for shift in near if max(map(abs, shift)) > max(AT_HOME)]
    found = _contrasts(ranks, places, axes, near)
    at = int(found.argmax())
    return Fit(here, (float(found[at]) - middle) / spread, near[at], flat)


def _shifts(steps: Sequence[int], label: NDArray[np.integer]) -> list[tuple[int, ...]]:
    """All combinations of steps along the axes of a label; none across a single slice."""
    return list(product(steps, steps, steps if label.shape[2] > 1 else (0,)))


def _boundary(label: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At most ``POINTS`` voxels whose next one along an axis has another value, (n, 3), and the
    axis of each, (n,).
    """
    places, axes = [], []
    for axis in range(3):
        before = [slice(None)] * 3
        after = [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        found = np.argwhere(label[tuple(before)] != label[tuple(after)])
        places.append(found)
        axes.append(np.full(len(found), axis))
    every, along = np.concatenate(places), np.concatenate(axes)
    chosen = np.linspace(0, len(every) - 1, min(POINTS, len(every))).astype(int)
    return every[chosen], along[chosen]


def _ranks(
    channel: NDArray[np.generic], places: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """The part of a channel that shifted boundaries touch as ranks (0 to 255), and the places in
    it. What lies outside repeats the border.
    """
    reach = max(SEARCHED) + 2
    low, high = places.min(axis=0) - reach, places.max(axis=0) + reach + 2
    ends = np.clip(low, 0, channel.shape), np.clip(high, 0, channel.shape)
    part = channel[tuple(slice(a, b) for a, b in zip(*ends, strict=True))]
    values = np.nan_to_num(part.astype(np.float32))
    some = values.reshape(-1)[:: max(1, values.size // 20_000)]
    limits = np.unique(np.quantile(some, np.linspace(0, 1, GREYS)))
    ranks = np.interp(values, limits, np.linspace(0, 255, len(limits))).astype(np.int16)
    missing = zip(ends[0] - low, high - ends[1], strict=True)
    return np.pad(ranks, [(int(a), int(b)) for a, b in missing], mode="edge"), places - low


def _contrasts(
    ranks: NDArray[np.int16],
    places: NDArray[np.int64],
    axes: NDArray[np.int64],
    shifts: Sequence[tuple[int, ...]],
) -> NDArray[np.float64]:
    """The mean difference of ranks across a boundary at each shift, (len(shifts),)."""
    strides = np.array([ranks.shape[1] * ranks.shape[2], ranks.shape[2], 1])
    flat = np.ascontiguousarray(ranks).reshape(-1)
    near = places @ strides
    far = near + strides[axes]
    found = np.empty(len(shifts))
    for n, by in enumerate(np.array(shifts) @ strides):
        found[n] = np.abs(flat[near + by] - flat[far + by]).mean()
    return found


def shifted(fits: Mapping[str, Fit]) -> list[str]:
    """The cases whose masks do not follow the edges of their images, in a cohort in which the
    others clearly do.
    """
    if len(fits) < FEWEST_CASES:
        return []
    here = np.array([fit.here for fit in fits.values()])
    usual = float(np.quantile(here, 0.75))
    if usual < (CLEAR_FLAT if any(fit.flat for fit in fits.values()) else CLEAR):
        return []
    clear = here >= FITS * usual
    absent = ABSENT * usual if usual >= VERY_CLEAR else -np.inf
    off = {
        case
        for case, fit in fits.items()
        if fit.here < absent or (fit.here < FITS * usual and fit.best > BETTER * max(fit.here, 1.0))
    }
    if len(off) + clear.sum() < DECIDED * len(fits):
        return []
    return [case for case in fits if case in off]
