"""How well a network does while it trains: counts of voxels, the Dice from them, whole prepared
cases slab by slab.

Works on class indices (0 background) and prepared arrays; knows no files. ``counts`` are (3, L)
int64: how many voxels of each class the truth has, the prediction has, and both have at the same
place. Counts of several batches or cases are simply added.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.plan import Inference, Loss, Plan, Structure
from ..core.store import StoredCase
from ..inference import engine as infer
from .losses import TERMS, StructureTerm, VoxelTerm, class_after_class

Counts = NDArray[np.int64]
VALIDATION_OVERLAP = 0.25  # of windows, at most: more changes a score little and takes much longer


@torch.no_grad()
def counts(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(3, L) int64 from two tensors of class indices of one shape, on their device, which the host
    does not wait for.

    On a CPU it is one pass of counting, whatever the number of classes; ``losses`` says why not
    elsewhere.
    """
    if truth.device.type == "cpu":
        table = torch.bincount(
            (truth * classes + predicted).flatten(), minlength=classes * classes
        ).reshape(classes, classes)  # truth x prediction
        return torch.stack([table.sum(1), table.sum(0), table.diag()])
    return _class_after_class(truth, predicted, classes)


def _class_after_class(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    pair = torch.stack([truth.flatten(), predicted.flatten()])
    return torch.cat(
        [
            class_after_class(pair, None, classes),
            class_after_class(pair[:1], pair[:1] == pair[1:], classes),
        ]
    )


def dice(found: Counts, structures: Sequence[Structure]) -> tuple[dict[str, float], float]:
    """Dice of each structure by name, and their mean; NaN where neither truth nor prediction has a
    voxel, which the mean leaves out.
    """
    truth, predicted, both = found[:, 1:]
    total = truth + predicted
    values = np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)
    mean = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return {s.name: float(v) for s, v in zip(structures, values, strict=True)}, mean


def evaluate(
    plan: Plan,
    module: nn.Module,
    cases: Sequence[StoredCase],
    device: torch.device,
    limit_s: float | None = None,
) -> dict[str, Any]:
    """Dice of each structure pooled over whole prepared cases, and the loss there.

    Args:
        limit_s: stop after the case during which this many seconds have passed (at least one case
            is done).

    Returns:
        ``val_dice`` name -> Dice (NaN where neither truth nor prediction has a voxel),
        ``val_dice_mean``, ``val_loss``, ``val_cases``. The loss is the cross-entropy and 1 - mean
        Dice, each as heavy as its kind of terms is in the plan's loss: the training loss itself
        cannot be had from averaged windows. A Dice that is undefined costs nothing.
    """
    engine = infer.Engine(plan, ((module, 1.0),), device, infer.fast_dtype(device))
    classes, began = plan.network.classes, time.monotonic()
    total, nats, voxels, done = (
        torch.zeros((3, classes), dtype=torch.int64, device=device),
        torch.zeros((), dtype=torch.float64, device=device),
        0,
        0,
    )
    for case in cases:
        for slab, truth in march(engine, case, min(plan.inference.overlap, VALIDATION_OVERLAP)):
            total += counts(truth, slab.argmax(0), classes)
            nats -= slab.gather(0, truth[None]).float().clamp_min(1e-6).log().sum()
            voxels += truth.numel()
        done += 1
        if limit_s is not None and time.monotonic() - began > limit_s:
            break
    named, mean = dice(total.cpu().numpy(), plan.structures)
    by_voxel, by_region = _weights(plan.loss)
    loss = by_voxel * float(nats) / max(voxels, 1) + (
        by_region * (1 - mean) if np.isfinite(mean) else 0.0
    )
    return {"val_dice": named, "val_dice_mean": mean, "val_loss": loss, "val_cases": done}


def _weights(loss: Loss) -> tuple[float, float]:
    """How heavy the loss' terms are that are sums over voxels, and those that compare regions."""
    weights = dict.fromkeys((VoxelTerm, StructureTerm), 0.0)
    for name, term in TERMS.items():
        weights[type(term)] += getattr(loss, name)
    return weights[VoxelTerm], weights[StructureTerm]


def march(
    engine: infer.Engine, case: StoredCase, overlap: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities (L, d, A, B) of a stored case in finished slabs, and the truth (d, A, B) int64
    there, without test-time mirroring.

    The marching axis comes first in both, and the depths add up to its length.
    """
    axis = infer.marching_axis(case.shape, engine.plan)
    scan = torch.from_numpy(case.values())
    truth, start = np.moveaxis(np.asarray(case.label[:]), axis, 0), 0
    for slab in infer.slabs(scan, engine, Inference(overlap=overlap)):
        here = truth[start : start + slab.shape[1]]
        yield slab, torch.from_numpy(here.astype(np.int64)).to(engine.device)
        start += slab.shape[1]
