"""Losses, each with its paper. This file knows logits, truth and a ``Loss``; nothing of networks,
scans or training.

Shapes: logits (B, L, *space) of any float dtype, *space 2-D or 3-D, L classes with 0 for
background. Probabilities are (B, L, *space) and sum to 1 over L. A target is class indices (B,
*space) int64, or one-hot (B, L, *space) of any dtype; ``as_indices`` refuses anything else with a
ValueError. A loss is a scalar, computed in float32; of float64 in float64.

There are two kinds. Overlaps (Dice, generalised Dice, Tversky) compare whole structures; they take
probabilities. The others are means over voxels; they take logits, and weigh each voxel by its true
class and by whether it lies at a boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.plan import Loss

SMOOTH = 1e-5  # voxels added above and below, so that the overlap of nothing with nothing is 1
FEW = 8  # classes

Sums = tuple[Tensor, Tensor, Tensor]  # per class, (L,) each: sum(p g), sum(p), sum(g)


# ---- every term ----


@dataclass(frozen=True)
class VoxelTerm:
    """A mean over voxels: its cost of log-probabilities, target, voxels' weights and ``Loss``."""

    cost: Callable[[Tensor, Tensor, Tensor | None, Loss], Tensor]


@dataclass(frozen=True)
class StructureTerm:
    """A comparison of structures: its cost of their sums and ``Loss``.

    ``Loss.squared`` is only for a term that ``squares``.
    """

    cost: Callable[[list[Sums], Loss], Tensor]
    squares: bool = False


Term = VoxelTerm | StructureTerm
# How each term of ``Loss`` is computed, in the order in which terms of a kind are added up.
TERMS: dict[str, Term] = {
    "cross_entropy": VoxelTerm(lambda logs, t, w, loss: _cross_entropy(logs, t, w)),
    "binary_cross_entropy": VoxelTerm(lambda logs, t, w, loss: _binary_cross_entropy(logs, t, w)),
    "focal": VoxelTerm(lambda logs, t, w, loss: _focal(logs, t, w, loss.focal_gamma)),
    "dice": StructureTerm(lambda sums, loss: _dice(sums), squares=True),
    "generalised_dice": StructureTerm(lambda sums, loss: _generalised_dice(sums)),
    "tversky": StructureTerm(
        lambda sums, loss: _tversky(
            sums,
            loss.tversky_false_positives,
            loss.tversky_false_negatives,
        )
    ),
}
FUSED = {"dice", "cross_entropy"}  # alone they have a faster way, ``_DiceAndCrossEntropy``
if _lacking := ", ".join(sorted(TERMS.keys() ^ set(Loss.TERMS))):
    raise ImportError(f"core.plan.Loss.TERMS or training.losses.TERMS lacks the term {_lacking}")


# ---- the whole loss ----


def deeply_supervised(outputs: Tensor | list[Tensor], target: Tensor, loss: Loss) -> Tensor:
    """The loss at every resolution, each half as heavy as the one above it (Lee 2015; Isensee
    2021); targets by nearest neighbour.
    """
    outputs = outputs if isinstance(outputs, list) else [outputs]
    indices = as_indices(target, outputs[0])
    weights = [0.5**n for n in range(len(outputs))]
    total = _as_float(outputs[0]).new_zeros(())
    for weight, logits in zip(weights, outputs, strict=True):
        total = total + weight / sum(weights) * _combined(
            logits, _shrunk(indices, tuple(logits.shape[2:])), loss
        )
    return total


def combined(logits: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """The sum of the terms of ``loss``, each times its weight; Dice + cross-entropy is the default
    (Isensee 2021). One softmax serves all.
    """
    return _combined(logits, as_indices(target, logits), loss)


def _combined(logits: Tensor, target: Tensor, loss: Loss) -> Tensor:
    active = _active(loss)
    if active.keys() <= FUSED and not loss.squared:
        return _DiceAndCrossEntropy.apply(logits, target, loss)  # type: ignore[no-any-return, no-untyped-call]
    logs = _log_probabilities(logits)
    total = logs.new_zeros(())
    over_voxels = [(w, t) for w, t in active.values() if isinstance(t, VoxelTerm)]
    over_structures = [(w, t) for w, t in active.values() if isinstance(t, StructureTerm)]
    if over_voxels:
        total = total + _over_voxels(over_voxels, logs, target, loss)
    if over_structures:
        total = total + _over_structures(over_structures, logs.exp(), target, loss)
    return total


def _active(loss: Loss) -> dict[str, tuple[float, Term]]:
    """Weight and term by name, in the order of ``TERMS``; those of weight 0 are left out.

    Raises:
        ValueError: a class made from ``Loss`` declares a term that is not in ``TERMS``.
    """
    unknown = [name for name in loss.TERMS if name not in TERMS]
    if unknown:
        words = f"{type(loss).__name__} has the terms {', '.join(unknown)}"
        raise ValueError(f"{words}, which training.losses.TERMS does not compute")
    return {name: (w, term) for name, term in TERMS.items() if (w := getattr(loss, name))}


class _DiceAndCrossEntropy(torch.autograd.Function):
    """The loss of most plans, its gradient in closed form: a few passes over the class scores,
    classes last in memory, where autograd takes thirty.

    With p = softmax(z), a + b [c is true] the derivative of the Dice term by p, and w the weight of
    a voxel in the cross-entropy, the gradient is p (a + b [c is true] - sum(p (a + b [c is true])))
    + w (p - [c is true]).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, loss: Loss) -> Tensor:
        z = _as_float(logits)
        samples, classes = z.shape[:2]
        weights = (
            _voxel_weights(z, target, loss.class_weights, loss.boundary)
            if loss.cross_entropy
            else None
        )
        p = _log_probabilities_last(z)
        costs = -p.gather(-1, target[..., None])[..., 0]
        total = loss.cross_entropy * _weighted_mean(costs, weights)
        p.exp_()
        a, b = z.new_zeros((2, samples, classes))
        if loss.dice:
            chosen = costs.neg_().exp_().flatten(1)
            true, both = (
                _by_class(target.flatten(1), each, classes).to(p.dtype) for each in (None, chosen)
            )
            found = p.flatten(1, -2).sum(1)
            if loss.batch_dice:
                true, both, found = (sums.sum(0, keepdim=True) for sums in (true, both, found))
            first = 0 if loss.background else 1
            above, below = (2 * both + SMOOTH)[:, first:], (true + found + SMOOTH)[:, first:]
            total = total + loss.dice * (1 - (above / below).mean())
            a[:, first:] = loss.dice / above.numel() * above / below.square()
            b[:, first:] = loss.dice / above.numel() * -2 / below
        ctx.save_for_backward(p, target, weights, a, b)
        ctx.cross_entropy, ctx.dtype = loss.cross_entropy, logits.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        p, target, weights, a, b = ctx.saved_tensors
        w = (
            grad
            * ctx.cross_entropy
            / target.numel()
            * (1 if weights is None else weights.flatten(1))
        )
        p, true = p.flatten(1, -2), target.flatten(1)  # (B, V, L), (B, V)
        # Where the true class is, its share of the sum.
        along = b.gather(1, true) * p.gather(2, true[..., None])[..., 0]
        mean = torch.matmul(p, a[..., None])[..., 0] + along
        dz = (grad * a)[:, None] - (grad * mean - w)[..., None]
        dz.mul_(p).scatter_add_(2, true[..., None], (grad * along - w)[..., None])
        return dz.reshape(*target.shape, -1).movedim(-1, 1).to(ctx.dtype), None, None


def _log_probabilities_last(z: Tensor) -> Tensor:
    """(B, *space, L) in that memory order. Of a few values the library does a softmax of the last
    axis slower than copies and one of the first.
    """
    return (
        z.contiguous().log_softmax(1).movedim(1, -1).contiguous()
        if z.shape[1] < FEW
        else z.movedim(1, -1).log_softmax(-1)
    )


def _over_voxels(
    terms: list[tuple[float, VoxelTerm]],
    logs: Tensor,
    target: Tensor,
    loss: Loss,
) -> Tensor:
    weights = _voxel_weights(logs, target, loss.class_weights, loss.boundary)
    total = logs.new_zeros(())
    for weight, term in terms:
        total = total + weight * term.cost(logs, target, weights, loss)
    return total


def _over_structures(
    terms: list[tuple[float, StructureTerm]],
    p: Tensor,
    target: Tensor,
    loss: Loss,
) -> Tensor:
    total = p.new_zeros(())
    for weight, term in terms:
        squared = loss.squared and term.squares
        sums = _sums(p, target, loss.batch_dice, loss.background, squared)
        total = total + weight * term.cost(sums, loss)
    return total


def _shrunk(target: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(target.shape[1:]) == size:
        return target
    return functional.interpolate(target[:, None].float(), size=size, mode="nearest")[:, 0].long()


def _as_float(x: Tensor) -> Tensor:
    """float32, but float64 as it is: half precision cannot add up a volume, and gradients are
    checked in double.
    """
    return x if x.dtype == torch.float64 else x.float()


def _log_probabilities(logits: Tensor) -> Tensor:
    return _as_float(logits).log_softmax(1)


# ---- what a target may be ----


def as_indices(target: Tensor, like: Tensor) -> Tensor:
    """The target as class indices (B, *space) int64, whichever of its two forms it has.

    Indices on a GPU are not looked at one by one: the host would have to wait for the device, at
    every step. Who sends them there has done so.

    Args:
        target: class indices (B, *space) int64, or one-hot (B, L, *space) of any dtype.
        like: the logits or probabilities (B, L, *space) it belongs to.

    Raises:
        ValueError: ``target`` is neither (soft masks, 0 and 255, float indices, indices out of
            range, no or two classes at a voxel, another shape); or ``like`` has fewer than two
            classes, is no batch of images, or is empty.
    """
    if (
        like.ndim not in (4, 5)
        or like.shape[1] < 2
        or not like.numel()
        or not like.is_floating_point()
    ):
        raise ValueError(
            "logits are floats (B, L, *space) with two classes or more and 2 or 3 axes of "
            f"space, not empty; found {_shown(like)}"
        )
    if target.shape == like.shape:
        return _from_one_hot(target)
    if target.shape != like[:, 0].shape or target.dtype != torch.int64:
        allowed = f"class indices {tuple(like[:, 0].shape)} of int64 or one-hot {tuple(like.shape)}"
        raise ValueError(f"a target is {allowed}, found {_shown(target)}")
    if target.device.type == "cpu":
        low, high = (int(v) for v in torch.aminmax(target))
        if low < 0 or high >= like.shape[1]:
            raise ValueError(f"class indices lie in 0..{like.shape[1] - 1}, found {low}..{high}")
    return target


def _from_one_hot(target: Tensor) -> Tensor:
    on = target == 1
    strange = target[~on & (target != 0)]
    if strange.numel():
        values = ", ".join(f"{v:g}" for v in sorted(set(strange[:1000].tolist()))[:3])
        raise ValueError(
            f"a target of the logits' shape is one-hot and holds 0 and 1 alone, found {values} "
            f"in {_shown(target)}"
        )
    low, high = (int(v) for v in torch.aminmax(on.sum(1)))
    if (low, high) != (1, 1):
        raise ValueError(
            f"a one-hot target has one class at every voxel, found {low}..{high} of them in "
            f"{_shown(target)}; class indices lack axis 1"
        )
    return on.to(torch.uint8).max(1).indices


def _shown(x: Tensor) -> str:
    return f"{tuple(x.shape)} of {x.dtype}"


# ---- overlaps, of probabilities ----


def soft_dice(
    probabilities: Tensor,
    target: Tensor,
    batch: bool = True,
    squared: bool = False,
    background: bool = False,
) -> Tensor:
    """1 - mean over the classes of 2 sum(p g) / (sum(p) + sum(g)): soft Dice (Drozdzal 2016; with
    squares, Milletari 2016).

    Args:
        batch: add up over the batch before dividing, which keeps classes that one sample lacks well
            behaved; otherwise every sample has a Dice of its own, and their mean counts.
        squared: sum(p^2) + sum(g^2) below, as in V-Net.
        background: class 0 counts among the classes.

    A class that is neither there nor found has Dice 1; one that is found but not there, near 0.
    """
    return _dice(
        _sums(
            _as_float(probabilities), as_indices(target, probabilities), batch, background, squared
        )
    )


def generalised_dice(
    probabilities: Tensor, target: Tensor, batch: bool = True, background: bool = False
) -> Tensor:
    """1 - 2 sum_l w_l sum(p g) / sum_l w_l (sum(p) + sum(g)) with w_l = 1 / volume_l^2: generalised
    Dice (Sudre 2017).

    The volume is that in the batch; with ``batch`` False that in each sample, and their mean
    counts. An absent class would weigh infinitely much. It weighs as the smallest class present, so
    that finding it still costs. The paper counts the background too, as ``background`` does; one
    structure without it gives the soft Dice.
    """
    return _generalised_dice(
        _sums(_as_float(probabilities), as_indices(target, probabilities), batch, background)
    )


def tversky(
    probabilities: Tensor,
    target: Tensor,
    false_positives: float = 0.3,
    false_negatives: float = 0.7,
    batch: bool = True,
    background: bool = False,
) -> Tensor:
    """1 - mean over the classes of TP / (TP + a FP + b FN): Tversky loss (Salehi 2017, who found a
    = 0.3, b = 0.7 the best).

    With both 0.5 it is the soft Dice, with both 1 the soft Jaccard index. ``batch`` and
    ``background`` as for ``soft_dice``.
    """
    sums = _sums(_as_float(probabilities), as_indices(target, probabilities), batch, background)
    return _tversky(sums, false_positives, false_negatives)


def _dice(groups: list[Sums]) -> Tensor:
    return (
        1
        - torch.stack(
            [(2 * both + SMOOTH) / (found + true + SMOOTH) for both, found, true in groups]
        ).mean()
    )


def _generalised_dice(groups: list[Sums]) -> Tensor:
    dice = []
    for both, found, true in groups:
        smallest = true.where(true > 0, true.max()).min().clamp(min=1)
        # 1 at most, so that SMOOTH stays small beside them.
        weights = (smallest / true.where(true > 0, smallest)).square().to(both.dtype)
        dice.append(
            (2 * (weights * both).sum() + SMOOTH) / ((weights * (found + true)).sum() + SMOOTH)
        )
    return 1 - torch.stack(dice).mean()


def _tversky(groups: list[Sums], false_positives: float, false_negatives: float) -> Tensor:
    smooth = SMOOTH / 2  # so that it is Dice to the last digit where it should be
    index = [
        (both + smooth)
        / (both + false_positives * (found - both) + false_negatives * (true - both) + smooth)
        for both, found, true in groups
    ]
    return 1 - torch.stack(index).mean()


def _sums(
    p: Tensor, target: Tensor, batch: bool, background: bool, squared: bool = False
) -> list[Sums]:
    """Per class the sums that overlaps are made of, for the batch or for each of its samples; with
    ``squared`` the second is sum(p^2).
    """
    first = 0 if background else 1
    groups = []
    for q, t in (
        [(p, target)] if batch else zip(torch.split(p, 1), torch.split(target, 1), strict=True)
    ):
        both: Tensor = _SumOverTruth.apply(q, t)  # type: ignore[no-untyped-call]
        found = (q.square() if squared else q).sum((0, *range(2, q.ndim)))
        true = _by_class(t.flatten()[None], None, q.shape[1])[0]
        groups.append((both[first:], found[first:], true[first:]))
    return groups


def _by_class(target: Tensor, values: Tensor | None, classes: int) -> Tensor:
    """(N, L) per class the sum of ``values`` (N, V) over the voxels that ``target`` (N, V) says are
    of it; their number without values.
    """
    return (_counted if target.device.type == "cpu" else class_after_class)(target, values, classes)


def _counted(target: Tensor, values: Tensor | None, classes: int) -> Tensor:
    """By far the fastest on a CPU. On a GPU it would ask for the largest index first, for which the
    host waits, and leave the device idle.
    """
    index = target + classes * torch.arange(len(target), device=target.device)[:, None]
    return torch.bincount(
        index.flatten(), None if values is None else values.flatten(), len(target) * classes
    ).reshape(-1, classes)


def class_after_class(target: Tensor, values: Tensor | None, classes: int) -> Tensor:
    """The same (N, L) without making the host wait for a GPU."""
    hits = (target == index for index in range(classes))
    return torch.stack([(hit if values is None else values * hit).sum(1) for hit in hits], 1)


class _SumOverTruth(torch.autograd.Function):
    """Per class the sum of its probabilities over the voxels that truly are of it: (L,) from (B, L,
    *space) and (B, *space).

    The one-hot tensor of the textbook form is as large as the probabilities, for each of several
    passes; here the forward pass is a gather and a count, and the gradient a scatter, whatever the
    number of classes.
    """

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(target)
        ctx.like = (probabilities.shape, probabilities.dtype, probabilities.device)
        chosen = probabilities.gather(1, target[:, None])
        return _by_class(target.flatten()[None], chosen.flatten()[None], probabilities.shape[1])[
            0
        ].to(probabilities.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (target,) = ctx.saved_tensors
        shape, dtype, device = ctx.like
        return torch.zeros(shape, dtype=dtype, device=device).scatter_(
            1, target[:, None], grad[target][:, None]
        ), None


# ---- means over voxels, of logits ----


def cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Sequence[float] = (), boundary: float = 0.0
) -> Tensor:
    """Mean over voxels of -w log p, p that of the true class: cross-entropy, and with weights the
    weighted logistic loss (Roy 2019).

    Args:
        class_weights: one for each class, background first; none: 1 for all.
        boundary: what a voxel weighs more for lying at a boundary; see ``boundary_weights``. Roy's
            code adds 2.

    The weights are not divided by their sum: a batch of rare classes is a heavy one, as in the
    paper.
    """
    logs, target = _log_probabilities(logits), as_indices(target, logits)
    return _cross_entropy(logs, target, _voxel_weights(logs, target, class_weights, boundary))


def binary_cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Sequence[float] = (), boundary: float = 0.0
) -> Tensor:
    """Mean over voxels and structures of -w (y log p + (1 - y) log(1 - p)), each structure against
    all the rest; p by softmax.

    With one structure it is the binary cross-entropy with the difference of the two logits for its
    logit (Ronneberger's U-Net as most tutorials train it). The background has no term of its own:
    it is what no structure claims. Weights as in ``cross_entropy``.
    """
    logs, target = _log_probabilities(logits), as_indices(target, logits)
    return _binary_cross_entropy(
        logs, target, _voxel_weights(logs, target, class_weights, boundary)
    )


def focal(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    class_weights: Sequence[float] = (),
    boundary: float = 0.0,
) -> Tensor:
    """Mean over voxels of -w (1 - p)^gamma log p, p that of the true class: focal loss (Lin 2017)
    for several classes.

    ``class_weights`` are the paper's alpha; its division by the number of objects has no meaning
    for voxels. ``gamma`` 0 is ``cross_entropy``.
    """
    logs, target = _log_probabilities(logits), as_indices(target, logits)
    return _focal(logs, target, _voxel_weights(logs, target, class_weights, boundary), gamma)


def boundary_weights(target: Tensor, weight: float = 1.0) -> Tensor:
    """``weight`` where a neighbour along any axis has another class, 0 elsewhere (Roy 2019): both
    sides of every boundary.

    The original's code asks for a central difference across slices or rows: it sees no boundary
    between columns, and none of a structure one voxel thick.

    Args:
        target: (B, *space) int64 class indices, 2-D or 3-D; samples are not neighbours, and the
            edge of the array is no boundary.

    Returns:
        (B, *space) float32.

    Raises:
        ValueError: ``target`` is something else.
    """
    if target.dtype != torch.int64 or target.ndim not in (3, 4):
        raise ValueError(
            "boundaries are those of class indices (B, *space) of int64, 2-D or 3-D; found "
            f"{_shown(target)}"
        )
    beside = torch.zeros_like(target, dtype=torch.bool)
    for axis in range(1, target.ndim):
        differs, last = target.diff(dim=axis) != 0, target.shape[axis] - 1
        beside.narrow(axis, 0, last).logical_or_(differs)
        beside.narrow(axis, 1, last).logical_or_(differs)
    return beside.float() * weight


def _voxel_weights(
    logs: Tensor, target: Tensor, class_weights: Sequence[float], boundary: float
) -> Tensor | None:
    """(B, *space) of the logits' dtype; None where all voxels weigh 1."""
    if class_weights and len(class_weights) != logs.shape[1]:
        raise ValueError(
            f"{logs.shape[1]} classes have as many class weights, background first, or none; "
            f"found {len(class_weights)}"
        )
    if not class_weights and not boundary:
        return None
    weights = torch.tensor(
        class_weights or [1.0] * logs.shape[1], dtype=logs.dtype, device=logs.device
    )[target]
    return weights + boundary_weights(target, boundary) if boundary else weights


def _cross_entropy(logs: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return functional.nll_loss(logs, target)
    return _weighted_mean(functional.nll_loss(logs, target, reduction="none"), weights)


def _binary_cross_entropy(logs: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    true = target[:, None]
    # Log p where a class is true, log(1 - p) where it is not.
    right = _log_of_the_rest(logs).scatter(1, true, logs.gather(1, true))
    return _weighted_mean(-right[:, 1:].mean(1), weights)


def _log_of_the_rest(logs: Tensor) -> Tensor:
    """log(1 - p) of every class, (B, L, *space), exact also where p rounds to 1.

    Only the likeliest class can come near 1: its rest is added up from the others' logarithms. Of
    two classes each is the other's.
    """
    if logs.shape[1] == 2:
        return logs.flip(1)
    # Argmax is several times slower on a CPU.
    likeliest = logs.detach().max(1, keepdim=True).indices
    rest = logs.scatter(1, likeliest, -torch.inf).logsumexp(1, keepdim=True)
    return torch.log1p(-logs.exp().scatter(1, likeliest, 0)).scatter(1, likeliest, rest)


def _focal(logs: Tensor, target: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    log = logs.gather(1, target[:, None])[:, 0]
    doubt = -torch.expm1(log)
    # A voxel without any doubt would have an infinite slope for gamma below 1.
    return _weighted_mean(doubt.clamp(min=torch.finfo(log.dtype).eps) ** gamma * -log, weights)


def _weighted_mean(per_voxel: Tensor, weights: Tensor | None) -> Tensor:
    return (per_voxel if weights is None else per_voxel * weights).mean()
