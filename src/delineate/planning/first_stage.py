"""The first stage of a plan: a small network that finds, in a whole scan at a low resolution, the
part that has structures (see ``inference.coarse``).

It knows one class, any structure, and sees a case in one window. It is planned where a patch covers
a small part of a case; whether it is trained and used is decided later
(``training.coarse_choice``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import PlanError
from ..core.grid import rounded_mm
from ..core.plan import Inference, Loss, Network, Plan, Schedule, Structure
from .candidates import topology

COVERS = 1 / 4  # a patch that covers more of a case leaves too few windows to choose from
VOXELS = 2**18  # of a median case at the low resolution
WIDTH, DEEPEST = 8, 64  # feature maps at full resolution, and at most
STEPS, STEPS_PER_EPOCH = 400, 50
SHARE = 0.04  # of a budget, at most
FOUND = "any structure"


def first_stage(plan: Plan, shape: Sequence[int]) -> Plan | None:
    """The plan of the first stage; None if one is of no use, or the cases are too small for it.

    Args:
        plan: of the network that segments.
        shape: of the median preprocessed case.
    """
    if plan.dims == 2 or None in plan.spacing_mm or np.prod(plan.patch) >= COVERS * np.prod(shape):
        return None
    own = [float(s) for s in plan.spacing_mm if s is not None]
    steps = _steps(own, shape)
    spacing = [s * step for s, step in zip(own, steps, strict=True)]
    small = [-(-n // step) for n, step in zip(shape, steps, strict=True)]
    try:
        patch, strides, kernels = topology(small, spacing, 2 * VOXELS, 3)
    except PlanError:
        return None
    strides, kernels = strides[:4], kernels[:5]
    budget_s = plan.schedule.budget_s
    schedule = Schedule(
        budget_s=None if budget_s is None else SHARE * budget_s,
        epochs=None if budget_s is not None else STEPS // STEPS_PER_EPOCH,
        steps=None if budget_s is None else STEPS,
        steps_per_epoch=STEPS_PER_EPOCH,
    )
    network = Network(
        dims=3,
        channels=plan.network.channels,
        classes=2,
        widths=tuple(min(WIDTH * 2**n, DEEPEST) for n in range(len(strides) + 1)),
        strides=strides,
        kernels=kernels,
        convs=(1, *(2 for _ in strides)),
        decoder_convs=1,
    )
    return plan.replace(
        structures=[Structure(value=1, name=FOUND, colour=(200, 200, 200))],
        spacing_mm=[rounded_mm(s) for s in spacing],
        patch=patch,
        network=network,
        output="label map",
        loss=Loss(),
        schedule=schedule,
        inference=Inference(overlap=0.25),
        reasons={},
    )


def _steps(spacing: Sequence[float], shape: Sequence[int]) -> list[int]:
    """How many voxels of each axis become one, so that a case has ``VOXELS`` at most and its
    voxels are as isotropic as whole steps allow.
    """
    finest, most = min(spacing), 1
    while True:
        steps = [max(1, round(most * finest / s)) for s in spacing]
        if np.prod([-(-n // step) for n, step in zip(shape, steps, strict=True)]) <= VOXELS:
            return steps
        most += 1
