"""Selects the structures of which only the largest connected component is kept; decided on
validation cases, never on test cases.

A structure is chosen if its mean Dice increases and no case loses more than a small amount (Isensee
2021, section on postprocessing). Works on preprocessed grids and class indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.plan import Plan
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
    for case in scoring.within(cases, limit_s, least=2):
        found, truth = _predicted(engine, case)
        known = truth < engine.plan.codes  # the others are ignored
        # The change of each structure's Dice by removing its smaller components; a Dice that is
        # undefined (no voxel in prediction and reference) does not count.
        for index, gain in enumerate(gains):
            mask, true = (_mask(engine.plan, side, index) for side in (found, truth))
            true &= known
            before, kept = _dice(mask & known, true), mask.astype(np.uint8)
            if np.isfinite(before) and keep_largest(kept, 1):
                gain.append(_dice((kept > 0) & known, true) - before)
            elif np.isfinite(before):
                gain.append(0.0)
    return tuple(
        s.name
        for s, gain in zip(structures, gains, strict=True)
        if gain and np.mean(gain) > MUST_GAIN and min(gain) > -MAY_LOSE
    )


@torch.inference_mode()
def _predicted(engine: infer.Engine, case: StoredCase) -> tuple[NDArray[Any], NDArray[Any]]:
    """(prediction, reference) as class indices or codes uint16, both with the marching axis
    first.
    """
    pairs = [
        tuple(
            side.cpu().numpy().astype(np.uint16)
            for side in (scoring.decided(engine.plan, slab), truth)
        )
        for slab, truth in scoring.march(engine, case, engine.plan.inference.overlap)
    ]
    found, truth = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return found, truth


def _mask(plan: Plan, array: NDArray[Any], index: int) -> NDArray[np.bool_]:
    """The voxels of structure ``index`` (from 0) in class indices or codes."""
    if plan.network.overlapping:
        return np.asarray(array >> index & 1, dtype=bool)
    return np.asarray(array == index + 1)


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")
