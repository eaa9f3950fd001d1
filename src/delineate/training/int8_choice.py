"""Decides whether a model predicts in 8-bit integers where the processor has hardware for them;
decided on validation cases, never on test cases.

The bounds of the layers' inputs are found on windows of validation cases (see ``inference.int8``).
Whole prepared cases are then segmented with float and with rounded networks. INT8 is chosen if it
costs almost no Dice and both masks agree almost everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.bundle import Bundle, Member, Weights
from ..core.plan import Plan
from ..core.store import StoredCase
from ..inference import engine as infer
from ..inference import int8
from ..inference import openvino as compiled
from ..networks.build import filled
from . import validation as scoring
from .postprocessing import MAY_LOSE
from .window_overlap import MAY_COST

MUST_AGREE = 0.998  # the mean Dice between the masks of both
FEWEST_CASES = 2
CALIBRATION_CASES = 4
SEED = 0


@dataclass(frozen=True)
class Int8Choice:
    """Whether to use INT8, and what was measured.

    Args:
        bounds: of each member, by its name; empty if nothing was measured.
        dice: mean Dice over structures, then cases, with float and with rounded networks.
        worst: the largest loss of a case.
        agreement: mean Dice between the masks of both.
        cases: those that were measured.
    """

    bounds: dict[str, Weights] = field(default_factory=dict, repr=False)
    dice: tuple[float, float] = (float("nan"), float("nan"))
    worst: float = float("nan")
    agreement: float = float("nan")
    cases: tuple[str, ...] = ()

    @property
    def chosen(self) -> bool:
        """False if nothing was measured."""
        cost = self.dice[0] - self.dice[1]
        return cost < MAY_COST and self.worst < MAY_LOSE and self.agreement > MUST_AGREE

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the card."""
        return {
            "default": self.chosen,
            "dice": list(self.dice),
            "worst_loss": self.worst,
            "agreement": self.agreement,
            "cases": len(self.cases),
        }

    @property
    def reason(self) -> str:
        """Why, in words."""
        plain, rounded = self.dice
        return (
            f"{'INT8 where a CPU has units for it' if self.chosen else 'no INT8'}: on "
            f"{len(self.cases)} validation cases mean Dice {rounded:.4f} instead of {plain:.4f}, "
            f"and the masks agree at {self.agreement:.4f}"
        )


def choose(
    bundle: Bundle, device: torch.device, cases: Sequence[StoredCase], limit_s: float
) -> Int8Choice:
    """Measure INT8 of the first member; all members receive bounds.

    Args:
        bundle: a plan without views and cascade.
        device: of the measurement; a CPU needs OpenVINO.
        cases: validation cases of the first member. With fewer than two nothing is measured.
        limit_s: seconds for predicting the cases; if two do not fit, nothing is chosen.

    Returns:
        An empty choice if nothing could be measured.
    """
    if len(cases) < FEWEST_CASES or (device.type == "cpu" and not compiled.available()):
        return Int8Choice()
    bounds = {one.name: observed(bundle.plan, one, device, cases) for one in bundle.members}
    if not all(bounds.values()):
        return Int8Choice()
    first = replace(bundle.members[0], bounds=bounds[bundle.members[0].name])
    plain = infer.Engine.from_bundle(Bundle(bundle.plan, (first,)), device, "float")
    rounded = _rounded(bundle.plan, first, device)
    used, rows = [], []
    for case in scoring.within(cases, limit_s, least=1):
        used.append(case.id)
        rows.append(_compared(plain, rounded, case))
    found = np.array(rows)
    # A case without any structure, in the reference and in both predictions, has no Dice.
    found = found[np.isfinite(found).all(axis=1)]
    if len(found) < FEWEST_CASES:
        return Int8Choice()
    before, after, agreement = (round(float(value), 6) for value in found.mean(axis=0))
    worst = round(float((found[:, 0] - found[:, 1]).max()), 6)
    return Int8Choice(bounds, (before, after), worst, agreement, tuple(used))


def observed(
    plan: Plan, member: Member, device: torch.device, cases: Sequence[StoredCase]
) -> Weights:
    """The bounds of a member's layers, from windows of some cases."""
    module = filled(plan.network, member.weights).to(device)
    engine = infer.Engine(plan, ((module, 1.0),), device, torch.float32)
    draws = np.random.default_rng(SEED)
    with int8.RangeObserver(module, SEED) as observer, torch.inference_mode():
        for window in _windows(engine, cases[:CALIBRATION_CASES], draws):
            infer.logits_of(module, window, plan.dims, torch.float32)
    return observer.bounds()


def _windows(
    engine: infer.Engine, cases: Sequence[StoredCase], draws: np.random.Generator
) -> Iterator[torch.Tensor]:
    for case in cases:
        for _, window in infer.drawn_windows(torch.from_numpy(case.values()), engine, draws):
            yield window


def _rounded(plan: Plan, member: Member, device: torch.device) -> infer.Engine:
    """The rounded network: in integers on a CPU; elsewhere the same rounding in floats."""
    if device.type == "cpu":
        return infer.Engine.from_bundle(Bundle(plan, (member,)), device, "int8")
    module: nn.Module = int8.rounded(filled(plan.network, member.weights), member.bounds)
    return infer.Engine(plan, ((module.to(device), 1.0),), device, infer.fast_dtype(device))


@torch.inference_mode()
def _compared(plain: infer.Engine, rounded: infer.Engine, case: StoredCase) -> list[float]:
    """Mean Dice over the structures: float to reference, rounded to reference, rounded to
    float.
    """
    plan, overlap = plain.plan, plain.plan.inference.overlap
    totals = [torch.zeros((), dtype=torch.int64) for _ in range(3)]
    # Slab by slab, so that no case is held in memory.
    for (own, truth), (other, _) in zip(
        scoring.march(plain, case, overlap), scoring.march(rounded, case, overlap), strict=True
    ):
        pairs = ((own, truth), (other, truth), (other, scoring.decided(plan, own)))
        for index, (slab, reference) in enumerate(pairs):
            totals[index] = totals[index] + scoring.slab_counts(plan, slab, reference).cpu()
    return [scoring.dice(np.asarray(total.numpy()), plan.structures)[1] for total in totals]
