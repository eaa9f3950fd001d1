"""Losses, each with its paper. They take logits and class indices, and refuse anything else.

Shapes: logits (B, L, *space) of any float dtype, target (B, *space) int64 class indices 0..L-1, 0 background.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.plan import Loss

SMOOTH = 1e-5


class _SumOverTruth(torch.autograd.Function):
    """Per class the sum of its probabilities over the voxels that truly are of it: (L,) from (B, L, *space) and (B, *space).

    The one-hot tensor of the textbook form is as large as the probabilities, for each of several passes; here the forward pass
    is a gather and a count, and the gradient a scatter, whatever the number of classes.
    """

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(target)
        ctx.like = (probabilities.shape, probabilities.dtype, probabilities.device)
        chosen = probabilities.gather(1, target[:, None])
        return torch.bincount(target.flatten(), weights=chosen.flatten(), minlength=probabilities.shape[1]).to(probabilities.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (target,) = ctx.saved_tensors
        shape, dtype, device = ctx.like
        return torch.zeros(shape, dtype=dtype, device=device).scatter_(1, target[:, None], grad[target][:, None]), None


def soft_dice(probabilities: Tensor, target: Tensor, batch: bool = True) -> Tensor:
    """1 - mean soft Dice of the foreground classes (Milletari 2016 with the plain sum in the denominator, Drozdzal 2016).

    Args:
        probabilities: (B, L, *space) float32 that sum to 1 over L.
        target: (B, *space) class indices.
        batch: add up over the batch before dividing, which keeps classes that one sample lacks well behaved.
    """
    groups = [(probabilities, target)] if batch else list(zip(torch.split(probabilities, 1), torch.split(target, 1), strict=True))
    dice = []
    for p, t in groups:
        both: Tensor = _SumOverTruth.apply(p, t)  # type: ignore[no-untyped-call]
        total = p.sum((0, *range(2, p.ndim))) + torch.bincount(t.flatten(), minlength=p.shape[1])
        dice.append(((2 * both + SMOOTH) / (total + SMOOTH))[1:])
    return 1 - torch.stack(dice).mean()


def dice_and_cross_entropy(logits: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """``loss.dice`` x soft Dice + ``loss.cross_entropy`` x cross-entropy (Isensee 2021); one softmax serves both."""
    _refuse_other_than_indices(logits, target)
    logs = logits.float().log_softmax(1)
    total = logs.new_zeros(())
    if loss.cross_entropy:
        total = total + loss.cross_entropy * functional.nll_loss(logs, target)
    if loss.dice:
        total = total + loss.dice * soft_dice(logs.exp(), target, loss.batch_dice)
    return total


def deeply_supervised(outputs: Tensor | list[Tensor], target: Tensor, loss: Loss) -> Tensor:
    """The loss at every resolution, each half as heavy as the one above it (Lee 2015; Isensee 2021); targets by nearest neighbour."""
    outputs = outputs if isinstance(outputs, list) else [outputs]
    weights = [0.5**n for n in range(len(outputs))]
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for weight, logits in zip(weights, outputs, strict=True):
        total = total + weight / sum(weights) * dice_and_cross_entropy(logits, _shrunk(target, tuple(logits.shape[2:])), loss)
    return total


def _shrunk(target: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(target.shape[1:]) == size:
        return target
    return functional.interpolate(target[:, None].float(), size=size, mode="nearest")[:, 0].long()


def _refuse_other_than_indices(logits: Tensor, target: Tensor) -> None:
    if target.dtype != torch.int64 or target.ndim != logits.ndim - 1:
        raise ValueError(
            f"a target is class indices (B, *space) of int64, found {tuple(target.shape)} of {target.dtype} for logits {tuple(logits.shape)}"
        )
    if target.numel() and not (int(target.min()) >= 0 and int(target.max()) < logits.shape[1]):
        raise ValueError(f"class indices lie in 0..{logits.shape[1] - 1}, found {int(target.min())}..{int(target.max())}")
