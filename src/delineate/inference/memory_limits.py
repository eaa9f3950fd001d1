"""Whether a scan can be delineated within a stated memory, and how much of it sums of class scores
may take.

Counted are the arrays that are alive together, beside what the process holds once its networks have
run (measured, not guessed):

    reading, preparing   the scan, the same partly resampled, prepared
    inferring, restoring prepared; sums of scores (or one piece of them, in a file); a window's
    logits, plain and mirrored; slabs; labels

On a GPU: the prepared scan, windows, logits, sums and slabs there. Bytes everywhere; 4 bytes a
voxel for a scan of any kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..core.errors import InputError
from ..core.grid import Grid
from ..core.plan import Plan
from ..preprocessing.prepare import CHUNK_VOXELS
from . import engine as infer
from .planes import SLAB_BYTES

MARGIN = 1.1  # allocators round up
SLACK_BYTES = 2**27  # file formats, interpreter
# of CHUNK_VOXELS float32: a class interpolated along one axis after the other, the best so far
RESTORE_COPIES = 6


@dataclass(frozen=True)
class MemoryLimits:
    """What may be used, in bytes; None is no limit."""

    ram_bytes: int | None = None
    vram_bytes: int | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of the phases of one scan, without the sums of scores; ``on_gpu`` those of the
    device.
    """

    reading: int
    inferring: int
    on_gpu: int


def need_of(grid: Grid, plan: Plan, engine: infer.Engine) -> MemoryEstimate:
    """What a scan on ``grid`` will need; before cropping, which only makes it less."""
    spacing = [
        own if wanted is None else wanted
        for own, wanted in zip(grid.spacing_mm, _along(grid, plan), strict=True)
    ]
    prepared = grid.respace(spacing).shape
    scan = 4 * len(plan.channels) * int(np.prod(grid.shape))
    ready = (
        4
        * len(plan.channels)
        * int(np.prod(np.maximum(prepared, sorted(plan.patch)[-1] if plan.views else 1)))
    )
    partly = max(
        4 * int(np.prod(prepared)) * n // m for n, m in zip(grid.shape, prepared, strict=True)
    )
    window = int(np.prod(plan.patch)) * infer.windows_at_once(engine)
    logits = 4 * plan.network.classes * window
    slabs = 3 * SLAB_BYTES
    labels = int(np.prod(grid.shape)) * (1 if plan.network.classes <= 256 else 2)
    work = 3 * infer.WORK_BYTES + RESTORE_COPIES * 4 * CHUNK_VOXELS
    gpu = engine.device.type != "cpu"
    return MemoryEstimate(
        int(MARGIN * (scan + partly + ready)) + SLACK_BYTES,
        int(MARGIN * (ready + labels + work + (0 if gpu else 2 * logits + slabs))) + SLACK_BYTES,
        int(MARGIN * (ready + 2 * logits + slabs + work + 4 * len(plan.channels) * window))
        if gpu
        else 0,
    )


def _along(grid: Grid, plan: Plan) -> Sequence[float | None]:
    """The plan's spacing along the grid's own axes."""
    own = (
        [next(pair for pair in ("LR", "AP", "SI") if code in pair) for code in grid.codes]
        if plan.is_oriented
        else list("ijk")
    )
    back: list[float | None] = [None, None, None]
    for letter, wanted in zip(plan.orientation, plan.spacing_mm, strict=True):
        back[next(n for n, axis in enumerate(own) if letter in axis)] = wanted
    return back


def memory_for_sums(
    limits: MemoryLimits, need: MemoryEstimate, engine: infer.Engine, case: str = ""
) -> int | None:
    """Bytes that sums of scores may take; None where nothing is limited.

    Raises:
        InputError: the limit cannot be kept; says with which it could.
    """
    if engine.device.type != "cpu" and limits.vram_bytes is not None:
        held = torch.cuda.memory_allocated(engine.device)
        _refuse(limits.vram_bytes, held + need.on_gpu, "--vram", case)
        most = limits.vram_bytes - held - need.on_gpu
    else:
        most = None
    if limits.ram_bytes is None:
        return most
    base = resident_bytes()
    _refuse(limits.ram_bytes, base + max(need.reading, need.inferring), "--ram", case)
    left = limits.ram_bytes - base - need.inferring
    return left if most is None else most


def _refuse(limit: int, least: int, option: str, case: str) -> None:
    if least > limit:
        raise InputError(
            f"needs {least / 2**30:.2f}G of memory, {option} allows {limit / 2**30:.2f}G; the "
            "smallest that works is "
            f"{option} {np.ceil(least / 2**30 * 20) / 20:.2f}G",
            case=case or None,
        )


def warm_up(engine: infer.Engine) -> None:
    """Run every network once, so that what it holds is there to be measured."""
    for one in (
        [own for _, _, own in engine.by_view(engine.plan.inference)] if engine.views else [engine]
    ):
        x = torch.zeros(1, one.plan.network.channels, *one.plan.patch, device=one.device)
        for network, _ in one.members:
            infer.logits_of(network, x, one.plan.dims, one.dtype)


def resident_bytes() -> int:
    """Memory of this process that is in RAM now."""
    import psutil

    return int(psutil.Process().memory_info().rss)
