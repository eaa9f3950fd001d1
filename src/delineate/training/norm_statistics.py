"""Batch norm statistics, measured again for the averaged weights before they are validated.

The running statistics of a training do not fit the averaged weights: they belong to other weights,
they are noisy if the batches are small, and they were measured with dropout active, which changes
the variance of the next layer's input (Li 2019, "Understanding the disharmony between dropout and
batch normalization"). So before the averaged weights are validated or kept, they process training
batches with everything except the statistics in evaluation mode (Izmailov 2018, "Averaging
weights", section 3.2; Wu 2021, "Rethinking batch in batch normalization"). Networks without batch
norm are not changed.
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

SAMPLES = 64  # for statistics of weights that are kept
# Added to the seed of the training: the calibration draws other batches than the training.
STREAM = 1_000_003


def calibrate(
    module: nn.Module,
    plan: Plan,
    cases: Sequence[StoredCase],
    seed: int,
    step: int,
    device: torch.device,
    samples: int = SAMPLES,
) -> None:
    """Replace the running statistics of ``module``, which is in evaluation mode before and after.

    Args:
        samples: patches from which they are computed, in batches of the plan's size.
        seed, step: of the training. The batches are a pure function of both, so that a resumed run
            has the same statistics.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    # Only the batch norm layers are in training mode, with empty statistics.
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # equal weight of all batches
        layer.train()
    # Forward passes alone update the statistics.
    with closing(batches(plan, cases, seed + STREAM, step)) as stream:
        for image, _ in islice(stream, -(-samples // plan.batch)):
            shaped = image.to(device)[..., None] if plan.dims == 2 else image.to(device)
            infer.forward(module, shaped, plan.dims, infer.fast_dtype(device))
    # Back to evaluation mode, with the momentum of the training.
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
