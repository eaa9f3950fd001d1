"""Optimisers: those of torch, and Muon, which torch has only for 2-D matrices.

Norms and biases have no weight decay; with Muon, the heads have none either. The state of an
optimiser consists of tensors, so that checkpoints can store it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.plan import Optimiser
from ..extend.parts import OptimiserKind
from ..extend.registers import OPTIMISERS
from .ranks import ALONE, Ranks

MUON_MOMENTUM = 0.95
# Root mean square of an update at learning rate 1. It is the usual value of AdamW, so that both use
# the same learning rates (Liu 2025).
MUON_SHARE = 0.2
BETAS, EPSILON = (0.9, 0.999), 1e-8


def make_optimiser(
    module: nn.Module,
    plan: Optimiser,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
) -> torch.optim.Optimizer:
    """The optimiser of the plan; norms and biases have no weight decay. ``dtype``: the type in
    which large matrices may be multiplied. ``ranks`` share what can be shared.
    """
    made = OPTIMISERS[plan.kind].make(module, plan, dtype)
    if isinstance(made, Muon):
        made.ranks = ranks
    return made


def _groups(module: nn.Module, plan: Optimiser) -> list[dict[str, Any]]:
    """The parameters in two groups: with and without weight decay."""
    # Norms and biases are vectors; kernels have more axes.
    decayed = [p for p in module.parameters() if p.ndim > 1]
    spared = [p for p in module.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]


def _sgd(module: nn.Module, plan: Optimiser, dtype: torch.dtype) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        _groups(module, plan),
        lr=plan.learning_rate,
        momentum=plan.momentum,
        nesterov=plan.nesterov and plan.momentum > 0,
    )


def _adamw(module: nn.Module, plan: Optimiser, dtype: torch.dtype) -> torch.optim.Optimizer:
    groups = _groups(module, plan)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, amsgrad=plan.amsgrad)


def _adam(module: nn.Module, plan: Optimiser, dtype: torch.dtype) -> torch.optim.Optimizer:
    groups = _groups(module, plan)
    return torch.optim.Adam(groups, lr=plan.learning_rate, amsgrad=plan.amsgrad)


def _muon(module: nn.Module, plan: Optimiser, dtype: torch.dtype) -> torch.optim.Optimizer:
    return Muon(
        module.parameters(),
        plan.learning_rate,
        plan.weight_decay,
        torch.bfloat16 if dtype == torch.bfloat16 else torch.float32,
    )


for _name, _make, _definition in (
    ("sgd", _sgd, "SGD with momentum."),
    ("adamw", _adamw, "AdamW (Loshchilov 2019)."),
    ("adam", _adam, "Adam (Kingma 2015)."),
    ("muon", _muon, "Muon (Jordan 2024)."),
):
    OPTIMISERS.add(_name, OptimiserKind(_make, _definition))


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz steps (Jordan 2024) for kernels larger than one
    voxel; Adam for everything else.

    A kernel (out, in, *size) is treated as the matrix (out, in x size). All singular values of its
    momentum become about 1: directions that are rare in the gradients are learnt as fast as common
    ones. Kernels of one voxel, including the heads, have no neighbours to mix.

    Weight decay applies only to the kernels larger than one voxel. A norm follows them, so their
    scale only determines by what angle a step rotates them; decay keeps this angle constant over
    the training. No norm follows a head: decay would keep its scores small, and rare structures
    would never be found (28 brain structures, 6 minutes: Dice 0.61 with decay of the heads, 0.83
    with decay of the kernels only, 0.82 without any).

    Args:
        dtype: of the largest matrix product; bfloat16 if the device has hardware for it.

    ``ranks`` divide the matrices among themselves.
    """

    ranks: Ranks = ALONE

    def __init__(
        self, parameters: Any, lr: float, weight_decay: float, dtype: torch.dtype = torch.float32
    ):
        self.dtype = dtype
        own = list(parameters)
        matrices = [p for p in own if p.ndim > 2 and p.shape[2:].numel() > 1]
        taken = set(map(id, matrices))
        others = [p for p in own if id(p) not in taken]
        groups = [
            {"params": matrices, "weight_decay": weight_decay, "matrices": True},
            {"params": others, "weight_decay": 0.0, "matrices": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; ``closure`` computes the loss again, as in torch's interface."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                # Decoupled weight decay (Loshchilov 2019), then the update.
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
                updates = self._orthogonal(moved) if group["matrices"] else self._adam(moved)
                torch._foreach_add_(moved, updates, alpha=-group["lr"])
        return loss

    def _orthogonal(self, moved: Sequence[Tensor]) -> list[Tensor]:
        """Updates of Muon; advances the momentum."""
        grads = _gradients(moved)
        momenta = [self._slots(p, "momentum")["momentum"] for p in moved]
        torch._foreach_lerp_(momenta, grads, 1 - MUON_MOMENTUM)
        ahead = torch._foreach_lerp(grads, momenta, MUON_MOMENTUM)  # Nesterov momentum
        # The factor makes the root mean square of the update MUON_SHARE for every shape.
        return self.ranks.divided(
            ahead,
            lambda u: (
                _with_equal_singular_values(u.flatten(1), self.dtype).view_as(u)
                * (MUON_SHARE * max(u.shape[0], u[0].numel()) ** 0.5)
            ),
        )

    def _adam(self, moved: Sequence[Tensor]) -> list[Tensor]:
        """Updates of Adam (Kingma 2015) with bias correction; advances the moments."""
        grads, slots = _gradients(moved), [self._slots(p, "mean", "square") for p in moved]
        means, squares = [s["mean"] for s in slots], [s["square"] for s in slots]
        torch._foreach_lerp_(means, grads, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, grads, grads, 1 - BETAS[1])
        updates = []
        for slot, mean, square in zip(slots, means, squares, strict=True):
            slot["step"] += 1
            first, second = (1 - beta ** float(slot["step"]) for beta in BETAS)
            updates.append(mean / first / ((square / second).sqrt() + EPSILON))
        return updates

    def _slots(self, parameter: Tensor, *names: str) -> dict[str, Tensor]:
        """The state of ``parameter``; zeros before its first step."""
        kept = self.state[parameter]
        if not kept:
            kept.update({name: torch.zeros_like(parameter) for name in names}, step=torch.zeros(()))
        return kept  # type: ignore[no-any-return]


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _with_equal_singular_values(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest matrix whose singular values are all about 1 (0.7 to 1.2), by five steps of a
    quintic iteration (Jordan 2024).

    Every step multiplies by a polynomial of x x', so all five are computed on this small square
    matrix, and the large matrix is read twice instead of ten times. The last product is computed in
    ``dtype``.
    """
    # Make the square matrix as small as possible, and all singular values at most 1.
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).float()
    x = x / x.norm().clamp_min(1e-12)
    square = x @ x.mT
    # Accumulate the product of the polynomials; ``square`` is x x' after each step.
    unit = torch.eye(len(square), device=square.device)
    factor = unit
    for _ in range(5):
        step = 3.4445 * unit - 4.7750 * square + 2.0315 * (square @ square)
        factor, square = step @ factor, step @ square @ step
    found: Tensor = (factor.to(dtype) @ x.to(dtype)).to(matrix.dtype)
    return found.mT if tall else found
