"""Batches of patches. A batch is a pure function of (plan, cases, seed, step): nothing to save,
nothing to replay.

That is what makes resuming exact: after a kill, step n draws what step n would have drawn. Reading
runs in threads ahead of the training step; an error there names its case and is raised in the loop.
"""

from __future__ import annotations

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

AHEAD = 3  # batches kept ready

# Image (B, C, *patch) float32, label (B, *patch) int64; patch has two axes in 2-D.
Batch = tuple[Tensor, Tensor]


def draw_batch(plan: Plan, cases: Sequence[StoredCase], seed: int, step: int) -> Batch:
    """The batch of ``step``."""
    rng = np.random.default_rng([seed, step])
    pairs = [
        _draw_sample(plan, cases, rng, forced=n < round(plan.foreground * plan.batch))
        for n in range(plan.batch)
    ]
    image, label = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return (image[..., 0], label[..., 0]) if plan.dims == 2 else (image, label)


def _pinned(plan: Plan, cases: Sequence[StoredCase], seed: int, step: int) -> Batch:
    image, label = draw_batch(plan, cases, seed, step)
    return image.pin_memory(), label.pin_memory()


def _draw_sample(
    plan: Plan, cases: Sequence[StoredCase], rng: np.random.Generator, forced: bool
) -> Batch:
    case = cases[int(rng.integers(len(cases)))]
    try:
        if plan.batch == 1:
            forced = bool(rng.random() < plan.foreground)
        centre = _centre(case, plan, rng, forced)
        spatial = augment.draw(plan, rng, case.spacing_mm, case.shape)
        image, label = augment.sample_patch(case, centre, plan.patch, spatial)
        if int(label.max()) >= plan.network.classes:
            raise TrainingError(
                f"the prepared case has class {int(label.max())}, the plan has 0 to "
                f"{plan.network.classes - 1}; prepare it anew",
                case=case.id,
            )
        if plan.sided_axis in spatial.flips and plan.labels.is_sided:
            label = torch.from_numpy(plan.labels.swap_table()[label.numpy()])
        return augment.change_intensity(image, plan.augmentation, plan.dims, rng), label.long()
    except DelineateError:
        raise
    except Exception as error:
        raise TrainingError(
            f"reading a patch failed ({type(error).__name__}: {error})", case=case.id
        ) from error


def _centre(case: StoredCase, plan: Plan, rng: np.random.Generator, forced: bool) -> list[int]:
    """A voxel of a class chosen evenly among those present, or any; moved so that the patch stays
    inside where it fits.
    """
    shape = case.shape
    wanted = [int(rng.integers(n)) for n in shape]
    if forced and case.points:
        points = case.points[sorted(case.points)[int(rng.integers(len(case.points)))]]
        wanted = [int(v) for v in points[int(rng.integers(len(points)))]]
    return [
        min(max(w, p // 2), n - p + p // 2) if n >= p else n // 2
        for w, n, p in zip(wanted, shape, plan.patch, strict=True)
    ]


def batches(
    plan: Plan,
    cases: Sequence[StoredCase],
    seed: int,
    first: int,
    threads: int = 1,
    pinned: bool = False,
) -> Generator[Batch, None, None]:
    """Endless batches from step ``first`` on, drawn ahead in ``threads``; close the iterator to
    stop them.

    ``pinned`` ones go to a GPU while it computes.
    """
    own = torch.get_num_threads()
    # A patch is many small operations: one thread each, since handing them to several costs more
    # than it saves (measured:
    # 9 ms a batch against up to 260 ms where the cores are busy). The number is each thread's own;
    # the training step keeps its.
    pool = ThreadPoolExecutor(
        threads, thread_name_prefix="patches", initializer=torch.set_num_threads, initargs=(1,)
    )
    waiting: deque[Future[Batch]] = deque()
    step = first
    try:
        while True:
            while len(waiting) < AHEAD + threads:
                waiting.append(
                    pool.submit(_pinned if pinned else draw_batch, plan, cases, seed, step)
                )
                step += 1
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(own)
