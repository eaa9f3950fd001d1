"""Losses, counts and masks of structures that may overlap.

Each structure has a sigmoid of its own and there is no background class. A target holds codes: bit
n of a voxel is set if it belongs to structure n; the code after the last one (2**L) marks ignored
voxels. Shapes: logits (B, L, *space) of any float dtype; targets (B, *space) int64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..core.plan import Loss
from . import losses
from .losses import WHOLE, Share


def members(codes: Tensor, structures: int) -> Tensor:
    """(B, L, *space) bool: whether each voxel belongs to each structure, of codes (B, *space)."""
    return torch.stack([codes >> n & 1 for n in range(structures)], 1) > 0


def combined(logits: Tensor, target: Tensor, loss: Loss, share: Share = WHOLE) -> Tensor:
    """The weighted sum of the terms of ``loss``, each over the structures one by one: overlaps from
    the probabilities (see ``losses``), and the binary cross-entropy as mean over voxels and
    structures (Isensee 2021 for regions). ``class_weights`` are those of the structures; ``share``
    is the part of a batch that this is.

    Raises:
        ValueError: the loss has a term that compares classes, or weights of boundaries.
    """
    if unfit := loss.unfit_for_overlaps():
        raise ValueError(f"structures that overlap cannot have the loss terms {', '.join(unfit)}")
    z = logits if logits.dtype == torch.float64 else logits.float()
    structures = z.shape[1]
    valid = (target < 2**structures) if loss.ignore else torch.ones_like(target, dtype=torch.bool)
    # An ignored voxel belongs to no structure, and its probability counts in no sum.
    true = (members(target, structures) & valid[:, None]).to(z.dtype)
    total = z.new_zeros(())
    if loss.binary_cross_entropy:
        costs = functional.binary_cross_entropy_with_logits(z, true, reduction="none")
        weights = valid[:, None].to(z.dtype)
        if loss.class_weights:
            weights = weights * z.new_tensor(loss.class_weights).view(1, -1, *[1] * (z.ndim - 2))
        count = share.total(valid.sum()).clamp(1) * structures
        cost = loss.binary_cross_entropy * (costs * weights).sum() / count
        total = total + (cost * share.counts if share.of else cost)
    terms = {name: weight for name in losses.OVERLAPS if (weight := getattr(loss, name))}
    if terms:
        p = z.sigmoid() * valid[:, None]
        for name, weight in terms.items():
            squares = loss.squared and name == "dice"
            sums = _sums(p, true, loss.batch_dice, squares, share)
            cost = weight * losses.OVERLAPS[name].cost(sums, loss)
            total = total + (cost * share.fraction if share.of else cost)
    return total


def _sums(p: Tensor, true: Tensor, batch: bool, squared: bool, share: Share) -> list[losses.Sums]:
    """sum(p g), sum(p) or sum(p^2), sum(g) of each structure, for the batch or for each sample."""
    axes = tuple(range(2, p.ndim))
    found = ((p * true).sum(axes), (p.square() if squared else p).sum(axes), true.sum(axes))
    if batch:
        both, predicted, there = (share.total(one.sum(0)) for one in found)
        return [(both, predicted, there)]
    return [(both, predicted, there) for both, predicted, there in zip(*found, strict=True)]


def counts(truth: Tensor, predicted: Tensor, ignore: bool = False) -> Tensor:
    """(3, L + 1) int64, the counts of ``validation.counts`` with an empty background in front, of
    codes (B, *space) and masks (B, L, *space) bool.
    """
    structures = predicted.shape[1]
    true = members(truth, structures)
    if ignore:
        valid = (truth < 2**structures)[:, None]
        true, predicted = true & valid, predicted & valid
    axes = (0, *range(2, predicted.ndim))
    found = torch.stack([one.sum(axes) for one in (true, predicted, true & predicted)])
    return functional.pad(found, (1, 0))
