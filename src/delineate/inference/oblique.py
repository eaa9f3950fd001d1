"""Oblique slices: a 2-D network sees a scan in planes that are tilted about both axes of its
slices, and the probabilities of all directions are averaged.

A tilted plane is a shear: every line of voxels along the slice axis is shifted by a linear function
of its place in the slice, with linear interpolation. The same shift brings the probabilities back,
slab by slab, so that only the average is kept for the whole scan (in ``planes``).

Shapes: scan (C, I, J, K); slabs (L, d, I, J) along K.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from ..core.plan import Inference, Plan
from ..preprocessing import arrays
from . import engine as infer
from .engine import Engine
from .planes import Planes, planes

STEEPEST_DEG = 45.0
Tilt = tuple[int, float]  # axis of the slice (0 or 1), and slices per voxel along it


def refuse_unfit(plan: Plan, degrees: float) -> None:
    """Raise UsageError if a model of ``plan`` cannot see planes tilted by ``degrees``."""
    if not 0 <= degrees <= STEEPEST_DEG:
        raise UsageError(f"--oblique is an angle from 0 to {STEEPEST_DEG:g}, found {degrees:g}")
    if degrees and (plan.dims != 2 or plan.views or plan.network.overlapping):
        found = (
            "structures that overlap"
            if plan.network.overlapping
            else f"{len(plan.views)} views, which are directions already"
            if plan.views
            else f"{plan.dims} dimensions"
        )
        raise UsageError(
            f"--oblique is for 2-D models of one view whose structures exclude each other; this "
            f"one has {found}"
        )


def slabs(
    scan: Any,
    engine: Engine,
    inference: Inference | None,
    memory_bytes: int | None,
    spacing_mm: Sequence[float],
    degrees: float,
) -> Generator[Any, None, None]:
    """As ``engine.slabs``, averaged over the plain slices and four tilts of ``degrees``."""
    scan = infer.own_kind(scan, engine)
    kind = arrays.kind_of(scan)
    i, j, k = scan.shape[1:]
    logits = (inference or engine.plan.inference).average == "logits"
    steep = [math.tan(math.radians(degrees)) * s / spacing_mm[2] for s in spacing_mm[:2]]
    tilts: list[Tilt] = [(0, 0.0), *((a, sign * steep[a]) for a in (0, 1) for sign in (1, -1))]
    with planes(
        k, engine.plan.network.classes, (i, j), engine.device, memory_bytes, kind
    ) as average:
        for tilt in tilts:
            tilted, start = _tilted(scan, tilt)
            for slab in infer.slabs(tilted, engine, inference, memory_bytes):
                _add(
                    average,
                    arrays.softmax(arrays.float32(slab), 0) if logits else slab,
                    start,
                    tilt,
                    k,
                )
                start += slab.shape[1]
            del tilted
        for _, held in average.walk(0, k):
            scores = arrays.float32(arrays.axis_moved(arrays.moved(held, engine.device), 1, 0))
            mean = scores / scores.sum(0)[None]
            if logits:
                arrays.clip(mean, 1e-7, None)
            yield arrays.logarithm(mean) if logits else mean


def _shifts(length: int, slope: float) -> NDArray[np.float64]:
    """(length,) the shift of each line, in slices; 0 in the middle."""
    return np.asarray(slope * (np.arange(length) - (length - 1) / 2), np.float64)


def _tilted(scan: Any, tilt: Tilt) -> tuple[Any, int]:
    """The scan in tilted planes (C, I, J, K'), and the number of its first plane: all planes that
    touch the scan; outside, the last voxel of the line is repeated.
    """
    axis, slope = tilt
    count = scan.shape[3]
    shifts = _shifts(scan.shape[1 + axis], slope)
    more = math.ceil(float(np.abs(shifts).max()))
    place = np.arange(-more, count + more) + shifts[:, None]  # (N, K')
    low = np.floor(place).astype(np.int64)
    shape = [1, 1, 1, place.shape[1]]
    shape[1 + axis] = len(place)

    def at(index: NDArray[np.int64]) -> Any:
        return arrays.along(scan, np.clip(index, 0, count - 1).reshape(shape), 3)

    share = arrays.like(scan, (place - low).astype(np.float32).reshape(shape))
    return arrays.between(at(low), at(low + 1), share), -more


def _add(average: Planes, slab: Any, start: int, tilt: Tilt, count: int) -> None:
    """Add tilted planes (L, d, I, J), the first of which is ``start``, where they are in the scan.

    Lines whose shifts have the same whole part are added together: a tilted plane falls between two
    planes, and each gets its share.
    """
    axis, slope = tilt
    shifts = _shifts(slab.shape[2 + axis], slope)
    whole = np.floor(shifts)
    for step in sorted(set(whole.tolist())):
        first, last = (int(n) for n in np.flatnonzero(whole == step)[[0, -1]] + (0, 1))
        here = slice(first, last)
        near = arrays.like(slab, (shifts - whole)[here].astype(np.float32))
        share = near[:, None] if axis == 0 else near[None, :]
        lines = (slice(None), slice(None), *((here,) if axis == 0 else (slice(None), here)))
        part = slab[lines]
        for above, weight in ((0, 1 - share), (1, share)):
            begin = start + int(step) + above
            low, high = max(begin, 0), min(begin + slab.shape[1], count)
            if low >= high:
                continue
            weighted = arrays.axis_moved(part * weight, 1, 0)
            for plane, held in average.walk(low, high):
                added = weighted[plane - begin : plane - begin + len(held)]
                held[lines] += arrays.as_in(held, added)
