"""Batch norm's statistics, measured anew for the weights that are to be judged.

What batch norm gathers while training belongs to other weights than the averaged ones, is as noisy
as the batches are small, and was taken with dropout at work, which changes the variance that the
next layer sees (Li 2019, "Understanding the disharmony between dropout and batch normalization").
So before the averaged weights are validated or kept, training batches go through them with
everything but the statistics in evaluation mode (Izmailov 2018, "Averaging weights", section 3.2;
Wu 2021, "Rethinking batch in batch normalization"). Without batch norm nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice

import torch
from torch import nn

from ..core.plan import Plan
from ..core.store import StoredCase
from ..inference import engine as infer
from .patches import batches

SAMPLES = 64  # patches that the statistics are taken from, in batches of the plan's size
STREAM = (
    1_000_003  # added to a training's seed: its calibration draws other batches than it learns from
)


def calibrate(
    module: nn.Module,
    plan: Plan,
    cases: Sequence[StoredCase],
    seed: int,
    step: int,
    device: torch.device,
) -> None:
    """Replace the running statistics of ``module``, which is and stays in evaluation mode.

    Args:
        seed, step: of the training; the batches are a pure function of both, so that a resumed run
            calibrates alike.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    with closing(batches(plan, cases, seed + STREAM, step)) as stream:
        for image, _ in islice(stream, -(-SAMPLES // plan.batch)):
            shaped = image.to(device)[..., None] if plan.dims == 2 else image.to(device)
            infer.forward(module, shaped, plan.dims, infer.fast_dtype(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
