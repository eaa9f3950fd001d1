"""Scores of a network during training: voxel counts, the Dice computed from them, and validation
on whole preprocessed cases, slab by slab.

Works on class indices (0 background) and preprocessed arrays; knows no files. ``counts`` are (3, L)
int64: the number of voxels of each class in the reference, in the prediction, and in both at the
same position. Counts of several batches or cases are added.
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
from ..extend.parts import StructureTerm, VoxelTerm
from ..inference import coarse
from ..inference import engine as infer
from . import overlapping
from .losses import OWN, class_after_class, combined
from .patches import Batch
from .ranks import ALONE, Ranks

Counts = NDArray[np.int64]
VALIDATION_OVERLAP = 0.25  # maximum overlap of windows: more is much slower, with similar scores


@torch.no_grad()
def counts(truth: Tensor, predicted: Tensor, classes: int, ignore: bool = False) -> Tensor:
    """(3, L) int64 from two tensors of class indices with the same shape, on their device, without
    making the host wait for it. With ``ignore``, voxels whose true index is L are not counted.

    On a CPU this is one counting pass, whatever the number of classes. A GPU counts class by class:
    see ``losses``.
    """
    if ignore:
        # Ignored voxels become a class of their own on both sides, which is left out.
        outside = truth.new_tensor(classes)
        return counts(truth, predicted.where(truth < classes, outside), classes + 1)[:, :classes]
    if truth.device.type == "cpu":
        table = torch.bincount(
            (truth * classes + predicted).flatten(), minlength=classes * classes
        ).reshape(classes, classes)  # reference x prediction
        return torch.stack([table.sum(1), table.sum(0), table.diag()])
    return _class_after_class(truth, predicted, classes)


def slab_counts(plan: Plan, slab: Tensor, truth: Tensor) -> Tensor:
    """The counts of a slab of probabilities (L, *size) and its reference (*size), on their
    device.
    """
    ignore = plan.loss.ignore
    if plan.network.overlapping:
        return overlapping.counts(truth[None], slab[None] > 0.5, ignore)
    return counts(truth, slab.argmax(0), plan.network.classes, ignore)


def decided(plan: Plan, slab: Tensor) -> Tensor:
    """Class indices, or codes of structures that overlap, int64 (*size) of probabilities (L,
    *size).
    """
    if not plan.network.overlapping:
        return slab.argmax(0)
    bits = torch.stack([(one > 0.5).long() << n for n, one in enumerate(slab)])
    return bits.sum(0)


def within(cases: Sequence[StoredCase], limit_s: float, least: int) -> Iterator[StoredCase]:
    """The first cases that can be worked on in ``limit_s`` seconds, as they are asked for; at
    least ``least``.
    """
    began = time.monotonic()
    for done, case in enumerate(cases):
        # Stop if another case, as slow as the mean of those so far, would exceed the limit.
        if done >= least and time.monotonic() - began > limit_s * done / (done + 1):
            return
        yield case


def _class_after_class(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    # Reference and prediction in one pass, then the voxels where they agree.
    pair = torch.stack([truth.flatten(), predicted.flatten()])
    return torch.cat(
        [
            class_after_class(pair, None, classes),
            class_after_class(pair[:1], pair[:1] == pair[1:], classes),
        ]
    )


def dice(found: Counts, structures: Sequence[Structure]) -> tuple[dict[str, float], float]:
    """Dice of each structure by name, and their mean. A Dice is NaN if neither reference nor
    prediction has a voxel; the mean leaves it out.
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
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Dice of each structure, pooled over whole preprocessed cases, and a validation loss.

    Args:
        limit_s: stop after the case during which this limit is reached (at least one case is
            evaluated).
        ranks: divide the cases among themselves; all have the same result.

    Returns:
        ``val_dice`` name -> Dice (NaN if neither reference nor prediction has a voxel),
        ``val_dice_mean``, ``val_loss``, ``val_cases``. The loss is a weighted sum of cross-entropy
        and 1 - mean Dice: the weight of the first is that of all voxel terms in the plan's loss,
        the weight of the second that of all structure terms. The training loss itself cannot be
        computed from averaged windows. An undefined mean Dice adds nothing to the loss.
    """
    engine = infer.Engine(plan, ((module, 1.0),), device, infer.fast_dtype(device))
    with ranks.agreeing():
        sums = _case_sums(engine, cases[ranks.rank :: ranks.size], limit_s)
    total, nats, voxels, done = (ranks.sum(one) for one in sums)
    # The plan's weights of both kinds of terms, applied to what can be computed here.
    named, mean = dice(total.cpu().numpy(), plan.structures)
    by_voxel, by_region = _weights(plan.loss)
    loss = by_voxel * float(nats) / max(int(voxels), 1) + (
        by_region * (1 - mean) if np.isfinite(mean) else 0.0
    )
    return {"val_dice": named, "val_dice_mean": mean, "val_loss": loss, "val_cases": int(done)}


def _case_sums(
    engine: infer.Engine, cases: Sequence[StoredCase], limit_s: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Over whole cases, on the device of the engine: voxel counts (3, L), the sum of -log p of the
    true class, the number of voxels, and that of cases.
    """
    plan, began = engine.plan, time.monotonic()
    device = torch.device(str(engine.device))
    classes, ignore = plan.network.classes, plan.loss.ignore
    exact = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
    columns, done = len(plan.structures) + 1, 0
    total, nats, voxels = (
        torch.zeros((3, columns), dtype=torch.int64, device=device),
        torch.zeros((), dtype=exact, device=device),
        torch.zeros((), dtype=torch.int64, device=device),
    )
    # Accumulate on the device; the results are read once, at the end.
    for case in cases:
        for slab, truth in march(engine, case, min(plan.inference.overlap, VALIDATION_OVERLAP)):
            known = truth < plan.codes if ignore else torch.ones_like(truth, dtype=torch.bool)
            total += slab_counts(plan, slab, truth)
            if plan.network.overlapping:
                true = overlapping.members(truth[None], classes)[0]
                chosen = slab.where(true, 1 - slab).float().clamp_min(1e-6).log().mean(0)
            else:
                chosen = slab.gather(0, (truth * known)[None])[0].float().clamp_min(1e-6).log()
            nats -= (chosen * known).sum()
            voxels += known.sum()
        done += 1
        if limit_s is not None and time.monotonic() - began > limit_s:
            break
    return total, nats, voxels, torch.tensor(done, device=device)


@torch.no_grad()
def on_patches(
    plan: Plan, module: nn.Module, drawn: Sequence[Batch], device: torch.device
) -> dict[str, Any]:
    """``patch_loss``, the loss of the training at full resolution, and from the pooled counts
    ``patch_dice`` by name and ``patch_dice_mean``, over batches of patches.
    """
    costs, found = [], []
    dtype = infer.fast_dtype(device)
    for image, label in drawn:
        image, label = image.to(device), label.to(device)
        flat = image[..., None] if plan.dims == 2 else image
        logits = infer.logits_of(module, flat, plan.dims, dtype).float()
        logits = logits[..., 0] if plan.dims == 2 else logits
        if plan.network.overlapping:
            costs.append(overlapping.combined(logits, label, plan.loss))
            found.append(overlapping.counts(label, logits > 0, plan.loss.ignore))
        else:
            costs.append(combined(logits, label, plan.loss))
            chosen, classes = logits.argmax(1), plan.network.classes
            found.append(counts(label, chosen, classes, plan.loss.ignore))
    total = torch.stack(found).sum(0).cpu().numpy()
    mean = float(torch.stack(costs).mean())
    named, mean_dice = dice(total, plan.structures)
    return {"patch_loss": mean, "patch_dice": named, "patch_dice_mean": mean_dice}


def _weights(loss: Loss) -> tuple[float, float]:
    """Total weights in the loss of the voxel terms and of the structure terms of the package."""
    voxels = sum(getattr(loss, name) for name, t in OWN.items() if isinstance(t, VoxelTerm))
    structures = sum(getattr(loss, name) for name, t in OWN.items() if isinstance(t, StructureTerm))
    return voxels, structures


def march(
    engine: infer.Engine, case: StoredCase, overlap: float, part: coarse.Part | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities (L, d, A, B) of a stored case in finished slabs, each with its reference (d, A,
    B) int64, without test-time mirroring.

    The marching axis comes first in both, and the depths d add up to its length. Windows are run of
    ``part`` alone, if it is given.
    """
    # Slabs arrive in order along the marching axis; cut the reference to the same slices.
    axis = infer.marching_axis(case.shape, engine.plan)
    scan = torch.from_numpy(case.values())
    truth, start = np.moveaxis(np.asarray(case.label[:]), axis, 0), 0
    for slab in coarse.slabs(scan, engine, Inference(overlap=overlap), part=part):
        here = truth[start : start + slab.shape[1]]
        yield slab, torch.from_numpy(here.astype(np.int64)).to(str(engine.device))
        start += slab.shape[1]
