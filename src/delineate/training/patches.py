"""Batches of patches. A batch is a pure function of (plan, cases, seed, step).

This makes resuming exact: after a killed run, step n draws the same batch as it would have drawn,
and no random state is saved. Threads read ahead of the training step. An error in a thread names
its case and is raised in the training loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DelineateError, TrainingError
from ..core.plan import Plan
from ..core.store import StoredCase
from . import augmentation as augment

STAND_IN = (8, 8)  # voxels of a patch that is changed only for the numbers this draws
AHEAD = 3  # batches prepared in advance, plus one per thread

# Image (B, C, *patch) float32, label (B, *patch) int64; patch has two axes in 2-D.
Batch = tuple[Tensor, Tensor]


def draw_batch(
    plan: Plan, cases: Sequence[StoredCase], seed: int, step: int, part: slice = slice(None)
) -> Batch:
    """The batch of ``step``, or these samples of it. ``plan.foreground`` is the fraction of its
    samples that are centred on a structure.
    """
    # One random stream per step, used by its samples in order.
    rng = np.random.default_rng([seed, step])
    wanted = range(plan.batch)[part]
    pairs = []
    for n in range(wanted.stop):
        forced = n < round(plan.foreground * plan.batch)
        if n in wanted:
            pairs.append(draw_sample(plan, cases, rng, forced))
        else:
            _pass_over(plan, cases, rng, forced)
    image, label = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return (image[..., 0], label[..., 0]) if plan.dims == 2 else (image, label)


def _pinned(
    plan: Plan, cases: Sequence[StoredCase], seed: int, step: int, part: slice = slice(None)
) -> Batch:
    image, label = draw_batch(plan, cases, seed, step, part)
    return image.pin_memory(), label.pin_memory()


def draw_sample(
    plan: Plan, cases: Sequence[StoredCase], rng: np.random.Generator, forced: bool = False
) -> Batch:
    """One augmented patch of one case drawn from ``cases``: image (C, *patch) float32 and label
    (*patch) int64, patch with three axes; ``forced`` centres it on a structure. The label holds
    class indices, or codes of structures that overlap; the number after the last marks ignored
    voxels.
    """
    case = cases[int(rng.integers(len(cases)))]
    try:
        centre, spatial = _placed(case, plan, rng, forced)
        image, label = augment.sample_patch(case, centre, plan.patch, spatial)
        if int(label.max()) >= plan.codes + plan.loss.ignore:
            raise TrainingError(
                f"the preprocessed case has class {int(label.max())}, the plan has 0 to "
                f"{plan.codes - 1}; preprocess it again",
                case=case.id,
            )
        # After a left-right flip a left structure is a right one.
        if plan.sided_axis in spatial.flips and plan.labels.is_sided:
            swapped = np.append(plan.labels.swap_codes(), plan.codes)
            label = torch.from_numpy(swapped[label.numpy()])
        image, label = augment.change_intensity(image, label, plan, rng)
        return image, label.long()
    except DelineateError:
        raise
    except Exception as error:
        raise TrainingError(
            f"reading a patch failed ({type(error).__name__}: {error})", case=case.id
        ) from error


def _placed(
    case: StoredCase, plan: Plan, rng: np.random.Generator, forced: bool
) -> tuple[list[int], augment.Spatial]:
    """Where a sample is read, and how it is deformed."""
    # A batch of one sample cannot hold a fraction of foreground samples: draw instead.
    if plan.batch == 1:
        forced = bool(rng.random() < plan.foreground)
    centre = _centre(case, plan, rng, forced)
    return centre, augment.draw(plan, rng, case.spacing_mm, case.shape)


def _pass_over(
    plan: Plan, cases: Sequence[StoredCase], rng: np.random.Generator, forced: bool
) -> None:
    """Advance the random stream as ``draw_sample`` does, without reading the patch."""
    # What a registered change draws may depend on the patch.
    if any(plan.augmentation.custom.values()):
        draw_sample(plan, cases, rng, forced)
        return
    _placed(cases[int(rng.integers(len(cases)))], plan, rng, forced)
    size = (*STAND_IN, 1 if plan.dims == 2 else STAND_IN[0])
    image = torch.arange(math.prod(size), dtype=torch.float32).reshape(size)
    augment.change_intensity(
        image.expand(len(plan.channels), *size), torch.zeros(size, dtype=torch.int64), plan, rng
    )


def _centre(case: StoredCase, plan: Plan, rng: np.random.Generator, forced: bool) -> list[int]:
    """The centre of a patch: if ``forced``, a voxel of a class drawn uniformly from those present,
    else any voxel. It is moved so that the patch is inside the volume if it fits, and is the
    middle of the volume along an axis that is too short.
    """
    # Any voxel; if forced, a voxel of a random class replaces it.
    shape = case.shape
    voxel = [int(rng.integers(n)) for n in shape]
    if forced and case.points:
        points = case.points[sorted(case.points)[int(rng.integers(len(case.points)))]]
        voxel = [int(v) for v in points[int(rng.integers(len(points)))]]
    return [
        min(max(v, p // 2), n - p + p // 2) if n >= p else n // 2
        for v, n, p in zip(voxel, shape, plan.patch, strict=True)
    ]


def batches(
    plan: Plan,
    cases: Sequence[StoredCase],
    seed: int,
    first: int,
    threads: int = 1,
    pinned: bool = False,
    part: slice = slice(None),
) -> Generator[Batch, None, None]:
    """Endless batches from step ``first`` on, or these samples of each, drawn ahead in
    ``threads``. Close the iterator to stop the threads.

    ``pinned`` batches can be copied to a GPU while it computes.
    """
    own = torch.get_num_threads()
    # A patch is many small operations. Each runs on one thread, because distributing it costs more
    # than it saves (measured: 9 ms per batch, against up to 260 ms if the cores are busy). The
    # setting is local to each reading thread; the training step keeps its own number of threads.
    pool = ThreadPoolExecutor(
        threads, thread_name_prefix="patches", initializer=torch.set_num_threads, initargs=(1,)
    )
    waiting: deque[Future[Batch]] = deque()
    step = first
    try:
        while True:
            # Keep the queue full; batches leave it in the order of their steps.
            while len(waiting) < AHEAD + threads:
                waiting.append(
                    pool.submit(_pinned if pinned else draw_batch, plan, cases, seed, step, part)
                )
                step += 1
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(own)
