"""Selects the structures of which only the largest connected component is kept; decided on
validation cases, never on test cases.

A structure is chosen if its mean Dice increases and no case loses more than a small amount (Isensee
2021, section on postprocessing). Works on preprocessed grids and class indices.
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

MAY_LOSE = 0.01  # largest loss of Dice allowed in a single case
MUST_GAIN = 0.0005  # smallest gain of mean Dice required


def choose(engine: infer.Engine, cases: Sequence[StoredCase], limit_s: float) -> tuple[str, ...]:
    """Names of the structures that should keep only their largest component.

    Args:
        cases: validation cases. With fewer than two, nothing is chosen.
        limit_s: seconds for predicting the cases; at least two are predicted, and those that do not
            fit the limit are left out.
    """
    if len(cases) < 2:
        return ()
    structures = engine.plan.structures
    gains: list[list[float]] = [[] for _ in structures]
    began = time.monotonic()
    for done, case in enumerate(cases):
        # Stop if another case, as slow as the mean of those so far, would exceed the limit.
        if done >= 2 and time.monotonic() - began > limit_s * done / (done + 1):
            break
        found, truth = _predicted(engine, case)
        known = truth < engine.plan.network.classes  # the others are ignored
        # The change of each structure's Dice by removing its smaller components; a Dice that is
        # undefined (no voxel in prediction and reference) does not count.
        for index, gain in enumerate(gains, start=1):
            before = _dice(found, truth, index, known)
            kept = found.copy()
            if np.isfinite(before) and keep_largest(kept, index):
                gain.append(_dice(kept, truth, index, known) - before)
            elif np.isfinite(before):
                gain.append(0.0)
    return tuple(
        s.name
        for s, gain in zip(structures, gains, strict=True)
        if gain and np.mean(gain) > MUST_GAIN and min(gain) > -MAY_LOSE
    )


@torch.inference_mode()
def _predicted(engine: infer.Engine, case: StoredCase) -> tuple[NDArray[Any], NDArray[Any]]:
    """(prediction, reference) as class indices uint16, both with the marching axis first."""
    pairs = [
        (slab.argmax(0).cpu().numpy().astype(np.uint16), truth.cpu().numpy().astype(np.uint16))
        for slab, truth in scoring.march(engine, case, engine.plan.inference.overlap)
    ]
    found, truth = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return found, truth


def _dice(a: NDArray[Any], b: NDArray[Any], value: int, known: NDArray[np.bool_]) -> float:
    one, other = (a == value) & known, b == value
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")
