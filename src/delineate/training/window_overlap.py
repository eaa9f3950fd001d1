"""Selects the overlap of a model's windows; decided on validation cases, never on test cases.

Less overlap means fewer windows and a faster prediction. Whole prepared cases are segmented with
each of ``placement.OVERLAPS``. The least is chosen that costs almost no Dice. Only cases whose
windows change with the overlap are evidence: the others are segmented equally with each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.plan import Plan
from ..core.store import StoredCase
from ..inference import engine as infer
from ..inference import placement
from . import validation as scoring
from .postprocessing import MAY_LOSE

# The largest cost in mean Dice; a single case may lose ``MAY_LOSE``.
MAY_COST = 0.0005
FEWEST_CASES = 2


@dataclass(frozen=True)
class OverlapChoice:
    """The overlap to use, and what was measured.

    Args:
        overlap: one of ``placement.OVERLAPS``, or that of the plan if nothing was measured.
        measured: overlap -> ``dice`` (mean over structures, then cases), ``worst`` (the largest
            loss of a case) and ``windows`` (of all cases); empty if nothing was measured.
        cases: those that were measured.
    """

    overlap: float
    measured: dict[float, dict[str, float]]
    cases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the card."""
        measured = {f"{overlap:g}": found for overlap, found in self.measured.items()}
        return {"chosen": self.overlap, "measured": measured, "cases": len(self.cases)}

    @property
    def reason(self) -> str:
        """Why, in words."""
        most = max(self.measured)
        before, now = self.measured[most], self.measured[self.overlap]
        return (
            f"{self.overlap:g}: {now['windows']:.0f} windows instead of {before['windows']:.0f} "
            f"with {most:g}, on {len(self.cases)} validation cases, mean Dice {now['dice']:.4f} "
            f"instead of {before['dice']:.4f}"
        )


def choose(engine: infer.Engine, cases: Sequence[StoredCase], limit_s: float) -> OverlapChoice:
    """The least overlap whose mean Dice is less than ``MAY_COST`` below that of the largest one.

    Args:
        engine: of a plan without views.
        cases: validation cases. With fewer than two whose windows depend on the overlap, the plan's
            is kept.
        limit_s: seconds for predicting the cases; at least two are predicted, and those that do not
            fit the limit are left out.
    """
    plan, overlaps = engine.plan, placement.OVERLAPS
    kept = OverlapChoice(plan.inference.overlap, {})
    differing = [case for case in cases if depends(plan, case.shape)]
    if len(differing) < FEWEST_CASES:
        return kept
    within = scoring.within(differing, limit_s, FEWEST_CASES)
    rows = [_mean_dice(engine, case) for case in within]
    found = np.array(rows)
    # A case without any structure, in the reference and in all predictions, has no Dice.
    found = found[np.isfinite(found).all(axis=1)]
    if len(found) < FEWEST_CASES:
        return kept
    used = differing[: len(rows)]
    measured = {
        overlap: {
            "dice": round(float(dice.mean()), 6),
            "worst": round(float((found[:, 0] - dice).max()), 6),
            "windows": sum(placement.count(case.shape, plan.patch, overlap) for case in used),
        }
        for overlap, dice in zip(overlaps, found.T, strict=True)
    }
    return OverlapChoice(_least(measured), measured, tuple(case.id for case in used))


def depends(plan: Plan, shape: Sequence[int]) -> bool:
    """Whether the windows of a prepared scan of this shape depend on the overlap."""
    most, *less = (placement.count(shape, plan.patch, overlap) for overlap in placement.OVERLAPS)
    return any(count < most for count in less)


def _least(measured: dict[float, dict[str, float]]) -> float:
    """The least overlap that costs almost no Dice, and needs fewer windows than any larger one that
    does not either.
    """
    chosen = max(measured)
    best = measured[chosen]["dice"]
    for overlap in sorted(measured, reverse=True)[1:]:
        own = measured[overlap]
        cheap = best - own["dice"] < MAY_COST and own["worst"] < MAY_LOSE
        if cheap and own["windows"] < measured[chosen]["windows"]:
            chosen = overlap
    return chosen


@torch.inference_mode()
def _mean_dice(engine: infer.Engine, case: StoredCase) -> list[float]:
    """The mean Dice over the structures with each overlap; equal grids are predicted once."""
    plan, known = engine.plan, dict[Any, float]()
    found = []
    for overlap in placement.OVERLAPS:
        grid = str(placement.grid(case.shape, plan.patch, overlap))
        if grid not in known:
            known[grid] = scoring.dice(_counts(engine, case, overlap), plan.structures)[1]
        found.append(known[grid])
    return found


def _counts(engine: infer.Engine, case: StoredCase, overlap: float) -> NDArray[np.int64]:
    """Voxel counts (3, L) of a whole case; see ``validation``."""
    plan, total = engine.plan, torch.zeros((), dtype=torch.int64)
    for slab, truth in scoring.march(engine, case, overlap):
        total = total + scoring.slab_counts(plan, slab, truth).cpu()
    return np.asarray(total.numpy())
