"""Estimate whether a scan can be segmented within a memory limit, and how much memory is left for
the sums of class scores.

The estimate counts the arrays that exist at the same time. They are added to the memory that the
process holds once its networks have run (measured, not estimated):

    reading, preprocessing   the scan; a partly resampled copy; the preprocessed scan
    inference, restoring     the preprocessed scan; the sums of scores (or, in a file, one part of
                             them); the logits of a batch, plain and mirrored; slabs; labels

On a GPU: the preprocessed scan, windows, logits, sums and slabs. All figures are in bytes; a scan
of any dtype counts 4 bytes a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.grid import Grid
from ..core.plan import Plan
from ..preprocessing import arrays
from ..preprocessing.prepare import CHUNK_VOXELS
from . import engine as infer
from .planes import SLAB_BYTES

MARGIN = 1.1  # allocators round up
SLACK_BYTES = 2**27  # for file formats and the interpreter
# Arrays of CHUNK_VOXELS float32: a class interpolated along each axis in turn, the best so far.
RESTORE_COPIES = 6


@dataclass(frozen=True)
class MemoryLimits:
    """The memory that may be used, in bytes; None means no limit."""

    ram_bytes: int | None = None
    vram_bytes: int | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes needed in each phase of one scan, without the sums of scores; ``on_gpu`` is GPU
    memory.
    """

    reading: int
    inferring: int
    on_gpu: int


def need_of(grid: Grid, plan: Plan, engine: infer.Engine) -> MemoryEstimate:
    """The memory that a scan on ``grid`` needs. Cropping is ignored; it only reduces the need."""
    grid = grid.orthogonal()  # a sheared scan becomes larger
    # Arrays of reading and preprocessing.
    prepared = prepared_shape(grid, plan)
    scan = 4 * len(plan.channels) * int(np.prod(grid.shape))
    preprocessed = (
        4
        * len(plan.channels)
        * int(np.prod(np.maximum(prepared, sorted(plan.patch)[-1] if plan.views else 1)))
    )
    # While resampling, some axes have the old length and some the new one.
    partly = max(
        4 * int(np.prod(prepared)) * n // m for n, m in zip(grid.shape, prepared, strict=True)
    )
    # Arrays of inference and restoring.
    window = int(np.prod(plan.patch)) * infer.windows_at_once(engine)
    logits = 4 * plan.network.classes * window
    slabs = 3 * SLAB_BYTES
    labels = int(np.prod(grid.shape)) * (1 if plan.network.classes <= 256 else 2)
    work = 3 * infer.WORK_BYTES + RESTORE_COPIES * 4 * CHUNK_VOXELS
    # On a GPU, logits and slabs are in its memory, not in RAM.
    gpu = engine.device.type != "cpu"
    return MemoryEstimate(
        int(MARGIN * (scan + partly + preprocessed)) + SLACK_BYTES,
        int(MARGIN * (preprocessed + labels + work + (0 if gpu else 2 * logits + slabs)))
        + SLACK_BYTES,
        int(MARGIN * (preprocessed + 2 * logits + slabs + work + 4 * len(plan.channels) * window))
        if gpu
        else 0,
    )


def prepared_shape(grid: Grid, plan: Plan) -> tuple[int, int, int]:
    """The shape of a preprocessed scan in the order of the grid's axes, without cropping."""
    spacing = [
        own if target is None else target
        for own, target in zip(grid.spacing_mm, _spacing_along(grid, plan), strict=True)
    ]
    return grid.respace(spacing).shape


def _spacing_along(grid: Grid, plan: Plan) -> Sequence[float | None]:
    """The plan's spacing in the order of the grid's axes; None along an axis that keeps its own."""
    # The letters by which a plan's orientation may name each of the grid's axes.
    own = (
        [next(pair for pair in ("LR", "AP", "SI") if code in pair) for code in grid.codes]
        if plan.is_oriented
        else list("ijk")
    )
    back: list[float | None] = [None, None, None]
    for letter, target in zip(plan.orientation, plan.spacing_mm, strict=True):
        back[next(n for n, axis in enumerate(own) if letter in axis)] = target
    return back


def memory_for_sums(
    limits: MemoryLimits, need: MemoryEstimate, engine: infer.Engine, case: str = ""
) -> int | None:
    """Bytes available for the sums of scores, where the network runs; None if there is no limit.

    Raises:
        InputError: the scan needs more than the limit; the message gives the smallest limit that
            works.
    """
    # GPU memory: the limit less what is held and what the scan needs.
    if engine.device.type != "cpu" and limits.vram_bytes is not None:
        held = _held_bytes(engine.device)
        _refuse(limits.vram_bytes, held + need.on_gpu, "--vram", case)
        most = limits.vram_bytes - held - need.on_gpu
    else:
        most = None
    if limits.ram_bytes is None:
        return most
    # RAM: what is left of its limit bounds the sums, unless a GPU limit does.
    base = resident_bytes()
    _refuse(limits.ram_bytes, base + max(need.reading, need.inferring), "--ram", case)
    left = limits.ram_bytes - base - need.inferring
    return left if most is None else most


def _refuse(limit: int, least: int, option: str, case: str) -> None:
    if least > limit:
        raise InputError(
            f"needs {least / 2**30:.2f}G of memory, {option} allows {limit / 2**30:.2f}G; the "
            "smallest limit that works is "
            f"{option} {np.ceil(least / 2**30 * 20) / 20:.2f}G",
            case=case or None,
        )


def _held_bytes(device: Any) -> int:
    """Memory of a GPU that this process uses now."""
    import torch

    if device.type == "mps":
        return int(torch.mps.current_allocated_memory())
    return int(torch.cuda.memory_allocated(device))


def warm_up(engine: infer.Engine) -> None:
    """Run every network once, so that the memory it holds can be measured."""
    for one in (
        [own for _, _, own in engine.by_view(engine.plan.inference)] if engine.views else [engine]
    ):
        shape = (one.plan.network.channels, *one.plan.patch)
        x = infer.own_kind(np.zeros(shape, np.float32), one)[None]
        x = arrays.moved(x, one.device)
        for network, _ in one.members:
            infer.logits_of(network, x, one.plan.dims, one.dtype)


def resident_bytes() -> int:
    """RAM that this process uses now, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)
