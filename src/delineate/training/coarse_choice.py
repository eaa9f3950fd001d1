"""Trains the network that finds the part of a scan that has structures, and decides whether a model
uses it; decided on validation cases, never on test cases.

The network learns from prepared cases that are shrunk as ``inference.coarse`` shrinks scans. A
shrunk voxel is a structure if any of its voxels is. The probability above which a voxel counts is
so low that no validation case loses a voxel of its truth, with one voxel of the margin to spare.
Whole cases are then segmented with all windows and with those of the part. The coarse pass is
chosen if it costs almost no Dice and saves enough windows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core import atomic
from ..core.bundle import Weights
from ..core.plan import Plan
from ..core.progress import Say
from ..core.store import StoredCase, class_points
from ..inference import coarse, placement
from ..inference import engine as infer
from ..networks.build import build, filled
from . import loop
from . import validation as scoring
from .postprocessing import MAY_LOSE
from .window_overlap import MAY_COST

FEWEST_CASES = 2
MOST_CASES = 200  # that the network learns from
READING_SHARE = 0.25  # of its time, for shrinking them
# Probabilities, from which the largest that misses nothing is chosen, and then the next one.
THRESHOLDS = (0.5, 0.3, 0.15, 0.08, 0.04, 0.02, 0.01)


@dataclass(frozen=True)
class CoarseChoice:
    """Whether to use the coarse pass, and what was measured.

    Args:
        threshold: for ``Inference.coarse``; 0 if the network misses structures at any.
        missed: cases of which it misses some at the lowest one.
        dice: mean Dice over structures, then cases, with all windows and with those of the part.
        worst: the largest loss of a case.
        windows: of all cases, before and after; the work of the coarse pass is counted as windows.
        cases: those that were measured; empty if nothing was.
    """

    threshold: float = 0.0
    missed: int = 0
    dice: tuple[float, float] = (float("nan"), float("nan"))
    worst: float = float("nan")
    windows: tuple[float, float] = (0.0, 0.0)
    cases: tuple[str, ...] = ()

    @property
    def chosen(self) -> bool:
        before, after = self.windows
        cost = self.dice[0] - self.dice[1]
        is_equal = cost < MAY_COST and self.worst < MAY_LOSE
        return self.threshold > 0 and is_equal and after <= coarse.MOST_WINDOWS * before

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the card."""
        return {
            "chosen": self.chosen,
            "threshold": self.threshold,
            "missed": self.missed,
            "dice": list(self.dice),
            "worst_loss": self.worst,
            "windows": list(self.windows),
            "cases": len(self.cases),
        }

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self.missed:
            return (
                f"no coarse pass: it misses structures of {self.missed} of {len(self.cases)} "
                "validation cases"
            )
        before, after = self.windows
        return (
            f"{'a coarse pass' if self.chosen else 'no coarse pass'}: {after:.0f} windows instead "
            f"of {before:.0f} on {len(self.cases)} validation cases, mean Dice "
            f"{self.dice[1]:.4f} instead of {self.dice[0]:.4f}"
        )


def fit(
    plan: Plan,
    training: Sequence[StoredCase],
    validating: Sequence[StoredCase],
    folder: Path,
    device: torch.device,
    limit_s: float | None,
    say: Say,
) -> Weights:
    """The weights of the first stage of ``plan``, trained in ``folder``; a training that was
    finished there is not repeated.

    Raises:
        StopSignal, TrainingError: see ``loop.fit``.
    """
    stage = plan.low_resolution
    assert stage is not None
    # Evenly spaced, and no more than can be read in a part of the time.
    most = np.linspace(0, len(training) - 1, min(len(training), MOST_CASES)).astype(int)
    chosen = [training[n] for n in np.random.default_rng(plan.seed).permutation(most)]
    reading_s = float("inf") if limit_s is None else READING_SHARE * limit_s
    shrunk = [shrunk_case(one, plan) for one in scoring.within(chosen, reading_s, FEWEST_CASES)]
    reading_s = float("inf") if limit_s is None else READING_SHARE * limit_s / 2
    held = [shrunk_case(one, plan) for one in scoring.within(validating, reading_s, FEWEST_CASES)]
    job = loop.TrainingJob(
        stage,
        shrunk,
        held,
        atomic.make_folder(folder),
        device,
        plan.seed,
        None if limit_s is None else time.monotonic() + limit_s,
        say=say,
    )
    return loop.fit(job)


def shrunk_case(case: StoredCase, plan: Plan) -> StoredCase:
    """A prepared case as the first stage of ``plan`` sees it, in memory."""
    steps = coarse.steps_of(plan)
    label = np.asarray(case.label[:])
    inside = (label > 0) & (label < plan.codes)
    classes = _any(inside, steps).astype(np.uint8)
    a, b, c = (one * step for one, step in zip(case.spacing_mm, steps, strict=True))
    return StoredCase(
        case.id,
        coarse.shrunk(case.values(), steps),
        classes,
        class_points(classes, 2, np.random.default_rng(0)),
        (a, b, c),
    )


def choose(engine: infer.Engine, cases: Sequence[StoredCase], limit_s: float) -> CoarseChoice:
    """Whether the engine's finder is used, and from which probability on.

    Args:
        engine: with a finder; of a plan whose ``inference`` has no coarse pass yet.
        cases: validation cases. With fewer than two that have several windows, nothing is measured.
        limit_s: seconds for predicting the cases; at least two are predicted.
    """
    plan = engine.plan
    overlap = plan.inference.overlap
    large = [one for one in cases if placement.count(one.shape, plan.patch, overlap) > 1]
    if len(large) < FEWEST_CASES:
        return CoarseChoice()
    used = list(scoring.within(large, limit_s / 4, FEWEST_CASES))
    found = [_Found.of(engine, case) for case in used]
    missed = sum(one.needs == 0 for one in found)
    if missed:
        return CoarseChoice(missed=missed, cases=tuple(case.id for case in used))
    least = THRESHOLDS.index(min(one.needs for one in found))
    threshold = THRESHOLDS[min(least + 1, len(THRESHOLDS) - 1)]
    rows = [
        _compared(engine, case, one.scores >= threshold)
        for case, one in zip(scoring.within(used, limit_s / 2, FEWEST_CASES), found, strict=False)
    ]
    dice = np.array([row[:2] for row in rows])
    # A case without any structure, in the reference and in both predictions, has no Dice.
    dice = dice[np.isfinite(dice).all(axis=1)]
    if len(dice) < FEWEST_CASES:
        return CoarseChoice()
    before, after = (sum(row[n] for row in rows) for n in (2, 3))
    with_finder = after + len(rows) * finder_windows(plan)
    means = dice.mean(axis=0)
    return CoarseChoice(
        threshold,
        0,
        (round(float(means[0]), 6), round(float(means[1]), 6)),
        round(float((dice[:, 0] - dice[:, 1]).max()), 6),
        (before, round(with_finder, 2)),
        tuple(case.id for case in used[: len(rows)]),
    )


def finder_windows(plan: Plan) -> float:
    """The work of a coarse pass in one window, in windows of the plan's network."""
    stage = plan.low_resolution
    assert stage is not None
    works = []
    for one in (stage, plan):
        size = infer.traced_shape(one.network, one.patch) or (one.network.channels, *one.patch)
        module = build(one.network).eval()
        scale = float(np.prod(one.patch) / np.prod(size[1:]))
        works.append(_multiplications(module, torch.zeros(1, *size)) * scale)
    return works[0] / works[1]


def _multiplications(module: nn.Module, x: torch.Tensor) -> int:
    """Those of the convolutions in one pass of ``x``."""
    total = 0

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        total += output.numel() * weight[0].numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        module(x)
    return total


@dataclass(frozen=True, eq=False)
class _Found:
    """``scores`` (i, j, k) of one case, and the largest threshold with which nothing is missed; 0
    if there is none.
    """

    scores: NDArray[np.float32] = field(repr=False)
    needs: float

    @classmethod
    @torch.inference_mode()
    def of(cls, engine: infer.Engine, case: StoredCase) -> _Found:
        plan, scores = engine.plan, coarse.scores(case.values(), engine)
        label = np.asarray(case.label[:])
        truth = (label > 0) & (label < plan.codes)
        for threshold in THRESHOLDS:
            part, missed = coarse.part_of(scores >= threshold, plan, case.shape), truth
            if part is not None:
                # What a window covers is not missed, even where the coarse pass itself is wrong.
                missed = truth & ~part.covered(case.shape, plan, plan.inference.overlap)
            if not missed.any():
                return cls(scores, threshold)
        return cls(scores, 0.0)


def _any(mask: NDArray[np.bool_], steps: Sequence[int]) -> NDArray[np.bool_]:
    """(i, j, k) whether any of the voxels that become one is True."""
    pads = [(0, -n % step) for n, step in zip(mask.shape, steps, strict=True)]
    (i, j, k), (a, b, c) = (whole := np.pad(mask, pads)).shape, steps
    return np.asarray(whole.reshape(i // a, a, j // b, b, k // c, c).any((1, 3, 5)))


@torch.inference_mode()
def _compared(
    engine: infer.Engine, case: StoredCase, found: NDArray[np.bool_]
) -> tuple[float, float, int, int]:
    """Mean Dice over the structures, and windows, of all and of the part."""
    plan, overlap = engine.plan, engine.plan.inference.overlap
    before = placement.count(case.shape, plan.patch, overlap)
    part = coarse.part_of(found, plan, case.shape)
    whole = _dice(engine, case, None)
    if part is None:
        return whole, whole, before, before
    return whole, _dice(engine, case, part), before, part.windows(plan, overlap)


def _dice(engine: infer.Engine, case: StoredCase, part: coarse.Part | None) -> float:
    plan, total = engine.plan, torch.zeros((), dtype=torch.int64)
    for slab, truth in scoring.march(engine, case, plan.inference.overlap, part):
        total = total + scoring.slab_counts(plan, slab, truth).cpu()
    return scoring.dice(np.asarray(total.numpy()), plan.structures)[1]


def with_finder(engine: infer.Engine, plan: Plan, weights: Weights) -> infer.Engine:
    """The engine with the trained first stage of ``plan``."""
    stage = plan.low_resolution
    assert stage is not None
    device = torch.device(str(engine.device))
    module = filled(stage.network, weights).to(device)
    finder = infer.Engine(stage, ((module, 1.0),), device, infer.fast_dtype(device))
    return replace(engine, plan=plan, finder=finder)
