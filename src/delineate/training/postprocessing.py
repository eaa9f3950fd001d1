"""Which structures are better for keeping only their largest piece; decided on validation cases,
never on test cases.

A structure is chosen where the mean Dice rises and no case loses more than a little (Isensee 2021,
section on postprocessing). Works on prepared grids and class indices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.store import StoredCase
from ..inference import engine as infer
from ..preprocessing.regions import keep_largest
from . import validation as scoring

MAY_LOSE = 0.01  # Dice that a single case may lose
MUST_GAIN = 0.0005  # mean Dice that it must bring


def choose(engine: infer.Engine, cases: Sequence[StoredCase], limit_s: float) -> tuple[str, ...]:
    """Names of the structures whose largest component alone does better.

    Args:
        cases: validation cases; those that can be predicted in ``limit_s`` seconds are asked, at
            least two, else nothing is chosen.
    """
    if len(cases) < 2:
        return ()
    structures = engine.plan.structures
    gains: list[list[float]] = [[] for _ in structures]
    began = time.monotonic()
    for done, case in enumerate(cases):
        if done >= 2 and time.monotonic() - began > limit_s * done / (done + 1):
            break
        found, truth = _predicted(engine, case)
        for index, gain in enumerate(gains, start=1):
            before = _dice(found, truth, index)
            kept = found.copy()
            if np.isfinite(before) and keep_largest(kept, index):
                gain.append(_dice(kept, truth, index) - before)
            elif np.isfinite(before):
                gain.append(0.0)
    return tuple(
        s.name
        for s, gain in zip(structures, gains, strict=True)
        if gain and np.mean(gain) > MUST_GAIN and min(gain) > -MAY_LOSE
    )


@torch.inference_mode()
def _predicted(engine: infer.Engine, case: StoredCase) -> tuple[NDArray[Any], NDArray[Any]]:
    """(prediction, truth) as class indices uint16, both with the marching axis first."""
    pairs = [
        (slab.argmax(0).cpu().numpy().astype(np.uint16), truth.cpu().numpy().astype(np.uint16))
        for slab, truth in scoring.march(engine, case, engine.plan.inference.overlap)
    ]
    found, truth = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return found, truth


def _dice(a: NDArray[Any], b: NDArray[Any], value: int) -> float:
    one, other = a == value, b == value
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")
