"""Losses, each with its paper. The module knows logits, targets and a ``Loss``; it does not know
networks, scans or training.

Shapes: logits (B, L, *space) of any float dtype, *space 2-D or 3-D, L classes with 0 for
background. Probabilities are (B, L, *space) and sum to 1 over L. A target is class indices (B,
*space) int64, or one-hot (B, L, *space) of any dtype; ``as_indices`` refuses anything else with a
ValueError. A loss is a scalar, computed in float32; of float64 in float64.

There are three kinds of terms (``extend``). Overlaps (Dice, generalised Dice, Tversky) compare
whole structures and are computed from probabilities. Means over voxels are computed from logits;
the weight of a voxel depends on its true class and on whether it is at a boundary. Terms of the
third kind, from outside the package, are computed from the logits themselves.

A batch may be divided among processes (``Share``): the losses of its parts add up to its loss, and
so do their gradients. Overlaps of the batch use the sums of all parts; a term of the third kind is
the mean over the samples of that of each part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.plan import Loss
from ..extend.parts import LossTerm, StructureTerm, VoxelTerm
from ..extend.registers import LOSSES, running

SMOOTH = 1e-5  # added to numerator and denominator: the overlap of two empty structures is 1
FEW = 8  # classes; below this number another memory order is faster

Sums = tuple[Tensor, Tensor, Tensor]  # per class, (L,) each: sum(p g), sum(p), sum(g)


@dataclass(frozen=True)
class Share:
    """The part of a batch that one rank computes.

    Args:
        samples: of this part. A rank whose part is empty computes the first sample, which counts
            for nothing.
        of: samples of the batch; 0 if the part is the whole batch.
        add: the sum of a tensor over the parts, differentiable.
        first: whether this part is the first of its process, which counts the batch.
    """

    samples: int = 0
    of: int = 0
    add: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    first: Callable[[], bool] = field(default=lambda: True)

    @property
    def fraction(self) -> float:
        """Of the batch, by which the mean over the part is weighted."""
        return self.samples / self.of if self.of else 1.0

    @property
    def counts(self) -> float:
        """1, or 0 for an empty part."""
        return float(self.samples > 0 or not self.of)

    def total(self, x: Tensor) -> Tensor:
        """The sum over all parts."""
        return self.add(x if self.counts else x * 0) if self.of else x

    def size(self, x: Tensor) -> int:
        """The number of elements of the batch that ``x`` (B, ...) is the part of."""
        return x.numel() // len(x) * self.of if self.of else x.numel()


WHOLE = Share()


# ---- every term ----

# The package's terms, one for each of ``Loss.TERMS``. Terms of the same kind are added in this
# order. Terms from elsewhere are in ``Loss.custom``.
OWN: dict[str, LossTerm | VoxelTerm | StructureTerm] = {
    "cross_entropy": VoxelTerm(
        lambda logs, t, w, loss: _cross_entropy(logs, t, w),
        "Cross-entropy; with weights the weighted logistic loss (Roy 2019).",
    ),
    "binary_cross_entropy": VoxelTerm(
        lambda logs, t, w, loss: _binary_cross_entropy(logs, t, w),
        "Cross-entropy of each structure against the rest.",
    ),
    "focal": VoxelTerm(
        lambda logs, t, w, loss: _focal(logs, t, w, loss.focal_gamma), "Focal loss (Lin 2017)."
    ),
    "dice": StructureTerm(
        lambda sums, loss: _dice(sums),
        "Soft Dice (Drozdzal 2016; with squares, Milletari 2016).",
        squares=True,
    ),
    "generalised_dice": StructureTerm(
        lambda sums, loss: _generalised_dice(sums), "Generalised Dice (Sudre 2017)."
    ),
    "tversky": StructureTerm(
        lambda sums, loss: _tversky(
            sums,
            loss.tversky_false_positives,
            loss.tversky_false_negatives,
        ),
        "Tversky loss (Salehi 2017).",
    ),
}
# The terms that compare whole structures.
OVERLAPS = {name: term for name, term in OWN.items() if isinstance(term, StructureTerm)}
FUSED = {"dice", "cross_entropy"}  # a loss of only these is computed by ``_DiceAndCrossEntropy``
if _lacking := ", ".join(sorted(OWN.keys() ^ set(Loss.TERMS))):
    raise ImportError(f"core.plan.Loss.TERMS or training.losses.OWN lacks the term {_lacking}")
for _name, _term in OWN.items():
    LOSSES.add(_name, _term)


# ---- the whole loss ----


def deeply_supervised(
    outputs: Tensor | list[Tensor],
    target: Tensor,
    loss: Loss,
    cost: Callable[[Tensor, Tensor, Loss, Share], Tensor] | None = None,
    share: Share = WHOLE,
) -> Tensor:
    """The loss summed over all output resolutions, finest first; each has half the weight of the
    one before, and the weights sum to 1 (Lee 2015; Isensee 2021). Targets are resampled by nearest
    neighbour.

    Args:
        cost: (logits, target, loss, share) -> loss at one resolution, which checks the target
            itself (``overlapping.combined``); None computes ``combined``.
        share: the part of a batch that this is.
    """
    outputs = outputs if isinstance(outputs, list) else [outputs]
    # The target is checked once, at full resolution.
    indices = as_indices(target, outputs[0], loss.ignore) if cost is None else target
    weights = [0.5**n for n in range(len(outputs))]
    total = _as_float(outputs[0]).new_zeros(())
    for weight, logits in zip(weights, outputs, strict=True):
        total = total + weight / sum(weights) * (cost or _combined)(
            logits, _shrunk(indices, tuple(logits.shape[2:])), loss, share
        )
    return total


def combined(logits: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """The weighted sum of the terms of ``loss``; the default is Dice + cross-entropy (Isensee
    2021). All terms share one softmax. With ``loss.ignore``, the index L marks voxels that count in
    no term; means are over the other voxels.
    """
    return _combined(logits, as_indices(target, logits, loss.ignore), loss)


def _combined(logits: Tensor, target: Tensor, loss: Loss, share: Share = WHOLE) -> Tensor:
    active = _active(loss)
    if active.keys() <= FUSED and not loss.squared:
        apply: Any = _DiceAndCrossEntropy.apply
        fused: Tensor = apply(logits, target, loss, share)
        return fused
    # The general form: one softmax, then the terms of each kind.
    valid, target = _known(target, logits.shape[1]) if loss.ignore else (None, target)
    logs = _log_probabilities(logits)
    total = logs.new_zeros(())
    over_voxels = [(w, t) for w, t in active.values() if isinstance(t, VoxelTerm)]
    over_structures = [(w, t) for w, t in active.values() if isinstance(t, StructureTerm)]
    over_logits = {n: (w, t) for n, (w, t) in active.items() if isinstance(t, LossTerm)}
    if over_voxels:
        total = total + _over_voxels(over_voxels, logs, target, loss, valid, share)
    if over_structures:
        p = logs.exp() if valid is None else logs.exp() * valid[:, None]
        total = total + _over_structures(over_structures, p, target, loss, valid, share)
    if over_logits and valid is not None:
        words = f"the loss term {', '.join(over_logits)} cannot leave out ignored voxels"
        raise ValueError(f"{words}; register a term over voxels or over structures")
    for name, (weight, term) in over_logits.items():
        with running(LOSSES, name):
            total = total + weight * term.cost(_as_float(logits), target)
    return total * share.fraction if share.of else total


def _active(loss: Loss) -> dict[str, tuple[float, LossTerm | VoxelTerm | StructureTerm]]:
    """Weight and term by name: those of the package in their order, then others; terms with weight
    0 are left out.

    Raises:
        ValueError: a subclass of ``Loss`` declares a term that is not in ``OWN``.
        PartError: a term of ``loss.custom`` is not registered.
    """
    unknown = [name for name in loss.TERMS if name not in OWN]
    if unknown:
        words = f"{type(loss).__name__} has the terms {', '.join(unknown)}"
        raise ValueError(f"{words}, which training.losses.OWN does not compute")
    own = {name: (w, term) for name, term in OWN.items() if (w := getattr(loss, name))}
    return own | {name: (w, LOSSES[name]) for name, w in loss.custom.items() if w}


class _DiceAndCrossEntropy(torch.autograd.Function):
    """The loss of most plans, with its gradient in closed form: a few passes over the class scores,
    classes last in memory, instead of about thirty with autograd.

    Let p = softmax(z), t = 1 for the true class and 0 for the others, a + b t the derivative of the
    Dice term with respect to p, and w the weight of a voxel in the cross-entropy. The gradient with
    respect to z is p (a + b t - sum(p (a + b t))) + w (p - t). At an ignored voxel w is 0, p counts
    in no sum, and the gradient is 0.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, loss: Loss, share: Share) -> Tensor:
        z = _as_float(logits)
        samples, classes = z.shape[:2]
        valid, target = _known(target, classes) if loss.ignore else (None, target)
        weights = (
            _voxel_weights(z, target, loss.class_weights, loss.boundary, valid, share)
            if loss.cross_entropy
            else None
        )
        # Cross-entropy from log-probabilities; then probabilities in the same memory.
        p = _log_probabilities_last(z)
        costs = -p.gather(-1, target[..., None])[..., 0]
        total = loss.cross_entropy * _weighted_mean(costs, weights)
        p.exp_()
        if valid is not None:
            p.mul_(valid[..., None])  # then it counts in no sum, and its gradient is 0
        # The Dice term, and its derivative by p per sample and class: a, and b for the true class.
        a, b = z.new_zeros((2, samples, classes))
        if loss.dice:
            # The probability of the true class, in the memory of the costs, which are used up.
            chosen = costs.neg_().exp_().flatten(1)
            ones = None if valid is None else valid.to(p.dtype).flatten(1)
            chosen = chosen if ones is None else chosen * ones
            true, both = (
                _by_class(target.flatten(1), each, classes).to(p.dtype) for each in (ones, chosen)
            )
            found = p.flatten(1, -2).sum(1)
            weight = share.fraction * loss.dice
            if loss.batch_dice:
                true, both, found = (sums.sum(0, keepdim=True) for sums in (true, both, found))
                # Its derivative is that of the whole batch, of which each part has its own voxels.
                true, both, found = share.total(torch.stack([true, both, found]))
                weight = share.counts * loss.dice
            first = 0 if loss.background else 1
            # Dice = above / below per class; its derivative by p follows from the quotient rule.
            above, below = (2 * both + SMOOTH)[:, first:], (true + found + SMOOTH)[:, first:]
            total = total + loss.dice * (1 - (above / below).mean())
            a[:, first:] = weight / above.numel() * above / below.square()
            b[:, first:] = weight / above.numel() * -2 / below
        ctx.save_for_backward(p, target, weights, a, b)
        ctx.cross_entropy, ctx.dtype = share.fraction * loss.cross_entropy, logits.dtype
        return total * share.fraction if share.of else total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        p, target, weights, a, b = ctx.saved_tensors
        w = (
            grad
            * ctx.cross_entropy
            / target.numel()
            * (1 if weights is None else weights.flatten(1))
        )
        p, true = p.flatten(1, -2), target.flatten(1)  # (B, V, L), (B, V)
        # The part of the sum over the classes that belongs to the true class.
        along = b.gather(1, true) * p.gather(2, true[..., None])[..., 0]
        mean = torch.matmul(p, a[..., None])[..., 0] + along
        # All classes as if none were true; then add the part of the true class.
        dz = (grad * a)[:, None] - (grad * mean - w)[..., None]
        dz.mul_(p).scatter_add_(2, true[..., None], (grad * along - w)[..., None])
        return dz.reshape(*target.shape, -1).movedim(-1, 1).to(ctx.dtype), None, None, None


def _log_probabilities_last(z: Tensor) -> Tensor:
    """(B, *space, L) in that memory order. If the classes are few, torch's softmax over the last
    axis is slower than a softmax over axis 1 with two copies.
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
    valid: Tensor | None,
    share: Share,
) -> Tensor:
    """Weighted sum of the voxel terms."""
    weights = _voxel_weights(logs, target, loss.class_weights, loss.boundary, valid, share)
    total = logs.new_zeros(())
    for weight, term in terms:
        total = total + weight * term.cost(logs, target, weights, loss)
    return total


def _over_structures(
    terms: list[tuple[float, StructureTerm]],
    p: Tensor,
    target: Tensor,
    loss: Loss,
    valid: Tensor | None,
    share: Share,
) -> Tensor:
    """Weighted sum of the structure terms; ``p`` is 0 at voxels that are not ``valid``."""
    total = p.new_zeros(())
    for weight, term in terms:
        squared = loss.squared and term.squares
        sums = _sums(p, target, loss.batch_dice, loss.background, squared, valid)
        if loss.batch_dice:
            sums = [
                (share.total(both), share.total(found), share.total(true))
                for both, found, true in sums
            ]
        total = total + weight * term.cost(sums, loss)
    return total


def _shrunk(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """Class indices (B, *size), by nearest neighbour."""
    if tuple(target.shape[1:]) == size:
        return target
    return functional.interpolate(target[:, None].float(), size=size, mode="nearest")[:, 0].long()


def _as_float(x: Tensor) -> Tensor:
    """float32, or float64 unchanged: half precision is too coarse for sums over a volume, and
    gradient checks need double precision.
    """
    return x if x.dtype == torch.float64 else x.float()


def _log_probabilities(logits: Tensor) -> Tensor:
    return _as_float(logits).log_softmax(1)


# ---- targets ----


def as_indices(target: Tensor, like: Tensor, ignore: bool = False) -> Tensor:
    """The target as class indices (B, *space) int64, from either of its two forms.

    The values of indices on a GPU are not checked, because the host would have to wait for the
    device at every step. The caller checks them before they are sent there.

    Args:
        target: class indices (B, *space) int64, or one-hot (B, L, *space) of any dtype.
        like: the corresponding logits or probabilities (B, L, *space).
        ignore: whether indices may also be L, for ignored voxels.

    Raises:
        ValueError: ``target`` has neither form (soft masks, 0 and 255, float indices, indices out
            of range, no class or two classes at a voxel, another shape); or ``like`` has fewer than
            two classes, is not a batch of images, or is empty.
    """
    if (
        like.ndim not in (4, 5)
        or like.shape[1] < 2
        or not like.numel()
        or not like.is_floating_point()
    ):
        raise ValueError(
            "logits must be floats (B, L, *space) with at least two classes and 2 or 3 spatial "
            f"axes, not empty; found {_shown(like)}"
        )
    # The shape decides which of the two forms it is.
    if target.shape == like.shape:
        return _from_one_hot(target)
    if target.shape != like[:, 0].shape or target.dtype != torch.int64:
        allowed = f"class indices {tuple(like[:, 0].shape)} of int64 or one-hot {tuple(like.shape)}"
        raise ValueError(f"a target must be {allowed}, found {_shown(target)}")
    if target.device.type == "cpu":
        low, high = (int(v) for v in torch.aminmax(target))
        most = like.shape[1] - 1 + ignore
        if low < 0 or high > most:
            raise ValueError(f"class indices must be 0..{most}, found {low}..{high}")
    return target


def _known(target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(B, *space) bool: the voxels that are not ignored; and class indices with 0 at all others."""
    valid = target < classes
    return valid, target * valid


def _from_one_hot(target: Tensor) -> Tensor:
    # Only 0 and 1, and exactly one 1 per voxel.
    on = target == 1
    strange = target[~on & (target != 0)]
    if strange.numel():
        values = ", ".join(f"{v:g}" for v in sorted(set(strange[:1000].tolist()))[:3])
        raise ValueError(
            "a target with the shape of the logits must be one-hot, with only 0 and 1; found "
            f"{values} in {_shown(target)}"
        )
    low, high = (int(v) for v in torch.aminmax(on.sum(1)))
    if (low, high) != (1, 1):
        raise ValueError(
            f"a one-hot target must have one class at every voxel, found {low}..{high} classes in "
            f"{_shown(target)}; class indices have no axis 1"
        )
    return on.to(torch.uint8).max(1).indices


def _shown(x: Tensor) -> str:
    return f"{tuple(x.shape)} of {x.dtype}"


# ---- overlaps, from probabilities ----


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
        batch: sum over the batch before dividing, which keeps the Dice stable for classes that are
            missing in a sample; otherwise the mean of the Dice of each sample.
        squared: sum(p^2) + sum(g^2) in the denominator, as in V-Net.
        background: include class 0 in the mean.

    A class that is in neither target nor prediction has Dice 1; one that is only in the prediction
    has a Dice near 0.
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

    The volume is that in the batch; with ``batch`` False, that in each sample, followed by the mean
    over the samples. An absent class would have infinite weight. It gets the weight of the smallest
    class present, so that false positives still have a cost. The paper includes the background, as
    ``background`` does; one structure without background gives the soft Dice.
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
    """1 - mean over the classes of TP / (TP + a FP + b FN): Tversky loss (Salehi 2017, whose best
    values were a = 0.3, b = 0.7).

    If both are 0.5 it is the soft Dice, if both are 1 the soft Jaccard index. ``batch`` and
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
        # The smallest class that is present; absent classes get its weight.
        smallest = true.where(true > 0, true.max()).min().clamp(min=1)
        # Weights relative to the smallest class: at most 1, so that SMOOTH is small compared with
        # the terms.
        weights = (smallest / true.where(true > 0, smallest)).square().to(both.dtype)
        dice.append(
            (2 * (weights * both).sum() + SMOOTH) / ((weights * (found + true)).sum() + SMOOTH)
        )
    return 1 - torch.stack(dice).mean()


def _tversky(groups: list[Sums], false_positives: float, false_negatives: float) -> Tensor:
    smooth = SMOOTH / 2  # the result is exactly the soft Dice for 0.5 and 0.5
    index = [
        (both + smooth)
        / (both + false_positives * (found - both) + false_negatives * (true - both) + smooth)
        for both, found, true in groups
    ]
    return 1 - torch.stack(index).mean()


def _sums(
    p: Tensor,
    target: Tensor,
    batch: bool,
    background: bool,
    squared: bool = False,
    valid: Tensor | None = None,
) -> list[Sums]:
    """The sums per class for the overlaps, one group for the batch or one per sample; with
    ``squared`` the second sum is sum(p^2). Voxels that are not ``valid``, where p is 0, are no true
    voxels of any class.
    """
    # Each group holds (sum(p g), sum(p) or sum(p^2), sum(g)), without background unless included.
    first = 0 if background else 1
    groups, counted = [], None if valid is None else valid.to(p.dtype)
    for n in range(1 if batch else len(p)):
        part = slice(None) if batch else slice(n, n + 1)
        q, t = p[part], target[part]
        ones = None if counted is None else counted[part].flatten()[None]
        both: Tensor = _SumOverTruth.apply(q, t)  # type: ignore[no-untyped-call]
        found = (q.square() if squared else q).sum((0, *range(2, q.ndim)))
        true = _by_class(t.flatten()[None], ones, q.shape[1])[0]
        groups.append((both[first:], found[first:], true[first:]))
    return groups


def _by_class(target: Tensor, values: Tensor | None, classes: int) -> Tensor:
    """(N, L): for each class, the sum of ``values`` (N, V) over the voxels of that class in
    ``target`` (N, V); without values, the number of these voxels.
    """
    return (_counted if target.device.type == "cpu" else class_after_class)(target, values, classes)


def _counted(target: Tensor, values: Tensor | None, classes: int) -> Tensor:
    """``_by_class`` by counting, by far the fastest on a CPU. On a GPU, ``bincount`` first reads
    the largest index; the host waits for it, and the device is idle.
    """
    # A separate range of indices for each row.
    index = target + classes * torch.arange(len(target), device=target.device)[:, None]
    return torch.bincount(
        index.flatten(), None if values is None else values.flatten(), len(target) * classes
    ).reshape(-1, classes)


def class_after_class(target: Tensor, values: Tensor | None, classes: int) -> Tensor:
    """``_by_class`` one class at a time, which does not make the host wait for a GPU."""
    hits = (target == index for index in range(classes))
    return torch.stack([(hit if values is None else values * hit).sum(1) for hit in hits], 1)


class _SumOverTruth(torch.autograd.Function):
    """For each class, the sum of its probabilities over the voxels where it is the true class: (L,)
    from (B, L, *space) and (B, *space).

    The textbook form needs several passes over a one-hot tensor as large as the probabilities. Here
    the forward pass is a gather and a count, and the gradient a scatter, whatever the number of
    classes.
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


# ---- means over voxels, from logits ----


def cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Sequence[float] = (), boundary: float = 0.0
) -> Tensor:
    """Mean over voxels of -w log p, with p the probability of the true class: cross-entropy, and
    with weights the weighted logistic loss (Roy 2019).

    Args:
        class_weights: one per class, background first; empty: 1 for all.
        boundary: weight added at boundaries, see ``boundary_weights``; 2 in Roy's code.

    The weights are not divided by their sum: as in the paper, a batch with many voxels of rare
    classes has a larger loss.
    """
    logs, target = _log_probabilities(logits), as_indices(target, logits)
    return _cross_entropy(logs, target, _voxel_weights(logs, target, class_weights, boundary))


def binary_cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Sequence[float] = (), boundary: float = 0.0
) -> Tensor:
    """Mean over voxels and structures of -w (y log p + (1 - y) log(1 - p)), each structure against
    the rest; p by softmax.

    With one structure it is the binary cross-entropy whose logit is the difference of the two
    logits (Ronneberger's U-Net as trained in most tutorials). The background has no term of its
    own. Weights as in ``cross_entropy``.
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
    """Mean over voxels of -w (1 - p)^gamma log p, with p the probability of the true class: focal
    loss (Lin 2017) for several classes.

    ``class_weights`` are alpha in the paper; its division by the number of objects does not apply
    to voxels. With ``gamma`` 0 it is ``cross_entropy``.
    """
    logs, target = _log_probabilities(logits), as_indices(target, logits)
    return _focal(logs, target, _voxel_weights(logs, target, class_weights, boundary), gamma)


def boundary_weights(target: Tensor, weight: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """``weight`` at voxels with a neighbour of another class along any axis, 0 elsewhere (Roy
    2019); both sides of a boundary get it.

    The original code uses central differences across slices or rows. It misses boundaries between
    columns, and those of structures one voxel thick.

    Args:
        target: (B, *space) int64 class indices, 2-D or 3-D; samples are not neighbours, and the
            edge of the array is not a boundary.
        valid: (B, *space) bool; a voxel that is not valid has no boundary. None: all are.

    Returns:
        (B, *space) float32.

    Raises:
        ValueError: ``target`` has another dtype or number of axes.
    """
    if target.dtype != torch.int64 or target.ndim not in (3, 4):
        raise ValueError(
            "boundary weights need class indices (B, *space) of int64, 2-D or 3-D; found "
            f"{_shown(target)}"
        )
    at_boundary = torch.zeros_like(target, dtype=torch.bool)
    # A difference between two neighbours marks both.
    for axis in range(1, target.ndim):
        differs, last = target.diff(dim=axis) != 0, target.shape[axis] - 1
        if valid is not None:
            differs &= valid.narrow(axis, 0, last) & valid.narrow(axis, 1, last)
        at_boundary.narrow(axis, 0, last).logical_or_(differs)
        at_boundary.narrow(axis, 1, last).logical_or_(differs)
    return at_boundary.float() * weight


def _voxel_weights(
    logs: Tensor,
    target: Tensor,
    class_weights: Sequence[float],
    boundary: float,
    valid: Tensor | None = None,
    share: Share = WHOLE,
) -> Tensor | None:
    """(B, *space) in the dtype of the logits; None if all weights are 1.

    Voxels that are not ``valid`` get 0, and the others are scaled so that a mean over all voxels is
    the mean over the valid ones, of all parts of the batch.
    """
    if class_weights and len(class_weights) != logs.shape[1]:
        raise ValueError(
            f"{logs.shape[1]} classes need {logs.shape[1]} class weights, background first, or "
            f"none; found {len(class_weights)}"
        )
    if not class_weights and not boundary and valid is None:
        return None
    weights = torch.tensor(
        class_weights or [1.0] * logs.shape[1], dtype=logs.dtype, device=logs.device
    )[target]
    if boundary:
        weights = weights + boundary_weights(target, boundary, valid)
    if valid is None:
        return weights
    return weights * (valid * (share.size(valid) / share.total(valid.sum()).clamp(1)))


def _cross_entropy(logs: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return functional.nll_loss(logs, target)
    return _weighted_mean(functional.nll_loss(logs, target, reduction="none"), weights)


def _binary_cross_entropy(logs: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    true = target[:, None]
    # log p for the true class, log(1 - p) for the others.
    right = _log_of_the_rest(logs).scatter(1, true, logs.gather(1, true))
    return _weighted_mean(-right[:, 1:].mean(1), weights)


def _log_of_the_rest(logs: Tensor) -> Tensor:
    """log(1 - p) of every class, (B, L, *space), accurate even if p rounds to 1.

    Only the most probable class can be near 1: its 1 - p is summed from the logarithms of the other
    classes. With two classes, the 1 - p of each is the p of the other.
    """
    if logs.shape[1] == 2:
        return logs.flip(1)
    # The most probable class uses the sum of the others; for the others, log1p(-p) is accurate.
    # (``argmax`` is several times slower than ``max`` on a CPU.)
    likeliest = logs.detach().max(1, keepdim=True).indices
    rest = logs.scatter(1, likeliest, -torch.inf).logsumexp(1, keepdim=True)
    return torch.log1p(-logs.exp().scatter(1, likeliest, 0)).scatter(1, likeliest, rest)


def _focal(logs: Tensor, target: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    log = logs.gather(1, target[:, None])[:, 0]
    doubt = -torch.expm1(log)
    # Without the lower limit, the gradient is infinite at p = 1 if gamma is below 1.
    return _weighted_mean(doubt.clamp(min=torch.finfo(log.dtype).eps) ** gamma * -log, weights)


def _weighted_mean(per_voxel: Tensor, weights: Tensor | None) -> Tensor:
    return (per_voxel if weights is None else per_voxel * weights).mean()
