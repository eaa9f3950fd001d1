"""Coarse first: the part of a scan that has structures, found by a small network at a low
resolution.

The prepared scan is shrunk by whole steps, and the plan's first stage (``Plan.low_resolution``, two
classes) gives each voxel the probability of any structure. What is above ``Inference.coarse``, and
``MARGIN`` around it, is the part. Windows are placed over its box as over a scan of that size;
those that do not reach the part are not run, and what no window covers is background. Whether this
costs accuracy is measured (``training.coarse_choice``). Sizes are in voxels of the preprocessed
grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.plan import Inference, Plan
from ..core.store import StoredCase
from ..preprocessing import arrays
from . import engine as infer
from . import placement

if TYPE_CHECKING:
    from ..preprocessing.arrays import Array
    from .engine import Engine

MOST_WINDOWS = 0.8  # of all, or a coarse pass is not worth it
MARGIN = 2  # voxels of the low resolution around what was found
PLANES = 16  # of background, in a slab

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a scan of which windows are run.

    Args:
        mask: (i, j, k) bool at the low resolution, with the margin.
        steps: voxels of the scan for each of ``mask``, along each axis.
        box: first voxel, and that after the last, along each axis of the scan; at least a window
            long, where the scan is.
    """

    mask: NDArray[np.bool_]
    steps: Triple
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box in the scan."""
        return tuple(slice(*ends) for ends in self.box)

    def reaches(self, corner: Sequence[int], size: Sequence[int]) -> bool:
        """Whether a window at ``corner`` of the box, which may begin before it, has a voxel of the
        part.
        """
        here = []
        for first, n, step, (low, high) in zip(corner, size, self.steps, self.box, strict=True):
            start, stop = max(low, low + first), min(high, low + first + n)
            here.append(slice(start // step, -(-stop // step)))
        return bool(self.mask[tuple(here)].any())

    def corners(self, plan: Plan, overlap: float) -> list[Triple]:
        """The windows that are run: where they begin in the box, or before it if it is shorter."""
        shape = [high - low for low, high in self.box]
        missing = [max(0, p - n) // 2 for p, n in zip(plan.patch, shape, strict=True)]
        grid = placement.grid(shape, plan.patch, overlap)
        (a, b, c), corners = missing, itertools.product(*grid)
        moved = [(i - a, j - b, k - c) for i, j, k in corners]
        return [corner for corner in moved if self.reaches(corner, plan.patch)]

    def windows(self, plan: Plan, overlap: float) -> int:
        """The number of windows that are run."""
        return len(self.corners(plan, overlap))

    def covered(self, shape: Sequence[int], plan: Plan, overlap: float) -> NDArray[np.bool_]:
        """(I, J, K) the voxels of a scan of ``shape`` that are in a window that is run."""
        seen = np.zeros(tuple(shape), bool)
        for corner in self.corners(plan, overlap):
            inside = (
                slice(max(0, low + first), low + first + n)
                for first, n, (low, _) in zip(corner, plan.patch, self.box, strict=True)
            )
            seen[tuple(inside)] = True
        return seen

    def counts(self, shape: Sequence[int], plan: Plan, overlap: float) -> dict[str, int]:
        """The windows that are run, and all of a scan of ``shape``."""
        return {
            "run": self.windows(plan, overlap),
            "all": placement.count(shape, plan.patch, overlap),
        }


def steps_of(plan: Plan) -> Triple:
    """Voxels of the scan along each axis for one of the first stage of a plan that has a finder."""
    stage = plan.low_resolution
    assert stage is not None
    a, b, c = (
        max(1, round((low or 1.0) / (own or 1.0)))
        for low, own in zip(stage.spacing_mm, plan.spacing_mm, strict=True)
    )
    return a, b, c


def shrunk(scan: NDArray[Any], steps: Triple) -> NDArray[np.float32]:
    """(C, i, j, k) float32 means of ``steps`` voxels of (C, I, J, K); the last voxels repeat at the
    ends.

    >>> shrunk(np.arange(5.0).reshape(1, 5, 1, 1), (2, 1, 1)).ravel()
    array([0.5, 2.5, 4. ], dtype=float32)
    """
    means = scan
    # Axis by axis, the last first: each sum reads fewer voxels.
    for axis, step in reversed(list(enumerate(steps, 1))):
        if step > 1:
            pads = [(0, 0)] * 4
            pads[axis] = (0, -means.shape[axis] % step)
            if pads[axis][1]:
                means = np.pad(means, pads, mode="edge")
            shape = (*means.shape[:axis], -1, step, *means.shape[axis + 1 :])
            means = means.reshape(shape).mean(axis + 1, dtype=np.float32)
    return np.asarray(means, np.float32)


def scores(scan: Array, engine: Engine) -> NDArray[np.float32]:
    """(i, j, k) the probability of any structure in the shrunk scan, by the engine's finder."""
    finder = engine.finder
    assert finder is not None
    small = shrunk(arrays.to_numpy(scan), steps_of(engine.plan))
    axis = infer.marching_axis(small.shape[1:], finder.plan)
    with closing(infer.slabs(small, finder)) as stream:
        found = [arrays.to_numpy(arrays.float32(slab[1])) for slab in stream]
    return np.moveaxis(np.concatenate(found), 0, axis)


def part_of(found: NDArray[np.bool_], plan: Plan, shape: Sequence[int]) -> Part | None:
    """The part around what was ``found`` (i, j, k) in a scan of ``shape``; None if that is
    nothing.
    """
    if not found.any():
        return None
    from scipy import ndimage  # takes long to import, and most models have no coarse pass

    mask, steps = ndimage.maximum_filter(found, 2 * MARGIN + 1), steps_of(plan)
    box = []
    for axis in range(3):
        seen = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        n, size = int(shape[axis]), plan.patch[axis]
        low, high = int(seen[0]) * steps[axis], min(n, (int(seen[-1]) + 1) * steps[axis])
        # A shorter box would be padded with zeros where the scan goes on.
        if high - low < size:
            low = max(0, min(low - (size - high + low) // 2, n - size))
            high = min(n, low + size)
        box.append((low, high))
    return Part(mask, steps, (box[0], box[1], box[2]))


def may_save(plan: Plan, cases: Sequence[StoredCase]) -> bool:
    """Whether a perfect coarse pass would save enough windows of the cases, by their points."""
    before = after = 0
    steps = steps_of(plan)
    for case in cases:
        whole = placement.count(case.shape, plan.patch, plan.inference.overlap)
        found = np.zeros([-(-n // s) for n, s in zip(case.shape, steps, strict=True)], bool)
        for points in case.points.values():
            found[tuple((points // steps).T)] = True
        part = part_of(found, plan, case.shape)
        before += whole
        after += whole if part is None else part.windows(plan, plan.inference.overlap)
    return before > 0 and after <= MOST_WINDOWS * before


def find(scan: Array, engine: Engine, inference: Inference) -> Part | None:
    """The part of a scan (C, I, J, K) of which windows are run; None for all of it: ``inference``
    asks for no coarse pass, there is one window, or nothing was found.
    """
    if not inference.coarse or engine.finder is None:
        return None
    if placement.count(scan.shape[1:], engine.plan.patch, inference.overlap) == 1:
        return None
    return part_of(scores(scan, engine) >= inference.coarse, engine.plan, scan.shape[1:])


def slabs(
    scan: Array,
    engine: Engine,
    inference: Inference | None = None,
    memory_bytes: int | None = None,
    part: Part | None = None,
) -> Generator[Any, None, None]:
    """As ``engine.slabs``, with background outside ``part``."""
    if part is None:
        yield from infer.slabs(scan, engine, inference, memory_bytes)
        return
    axis = infer.marching_axis(scan.shape[1:], engine.plan)
    across = [a for a in range(3) if a != axis]
    low, high = part.box[axis]
    size = (scan.shape[1 + across[0]], scan.shape[1 + across[1]])
    inside = (slice(None), slice(None), *(part.slices[a] for a in across))
    stream = infer.slabs(
        scan[(slice(None), *part.slices)],
        engine,
        inference,
        memory_bytes,
        axis=axis,
        wanted=lambda corner: part.reaches(corner, engine.plan.patch),
    )
    with closing(stream):
        slab = next(stream)
        yield from _background(slab, low, size, engine)
        for scored in itertools.chain([slab], stream):
            for whole in _background(scored, scored.shape[1], size, engine, scored.shape[1]):
                whole[inside] = scored
                yield whole
        yield from _background(slab, scan.shape[1 + axis] - high, size, engine)


def _background(
    like: Any, planes: int, size: tuple[int, int], engine: Engine, most: int = PLANES
) -> Iterator[Any]:
    """Slabs (L, d, *size) of background, whose depths add up to ``planes``, on the device of
    ``like``.
    """
    classes = int(like.shape[0])
    for _ in range(math.ceil(planes / most)):
        depth = min(most, planes)
        slab = arrays.zeros(like, (classes, depth, *size))
        if not engine.plan.network.overlapping:
            slab[0] = 1
        yield slab
        planes -= depth
