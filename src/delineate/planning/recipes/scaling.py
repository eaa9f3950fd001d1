"""From the full setting of a recipe to what a machine can do in a given time. One option,
``--budget``, decides.

The setting is reduced step by step until it fits the memory and enough training steps fit the
budget: first the channels of the network, then the resolution (a patch covers the same part of the
patient with fewer voxels; a smaller patch at full resolution would show details without their
surroundings), last the batch. Two settings change with the number of steps. The learning rate of
Adam grows when there are fewer steps, because an Adam step moves a weight by about the learning
rate. The end of a run with a budget is always annealed. Network family, loss, preprocessing and
augmentation are not changed. Every change adds its reason to the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ...core.grid import rounded_mm
from ...core.manifest import Manifest
from ...core.plan import Network, Optimiser, Plan
from ..capacity import (
    LEAST_EPOCHS,
    Machine,
    NetworkChoice,
    Triple,
    fitting_memory,
    largest_that_fits,
    measure_step,
    steps_wanted,
)
from ..fingerprint import Fingerprint
from ..rules import Planner

LEAST_WIDTH = 16  # fewer base channels are no faster with AMX, AVX512-BF16 or a GPU (measured)
# Without them they are two to three times as fast in 3-D (V-Net on 64³: 3.2 s per step with 16 base
# channels, 1.0 s with 8).
LEAST_WIDTH_WITHOUT = 8
FASTEST_ADAM = 1e-3
# Learning rate of AdamW as a fraction of SGD's (training Dice of QuickNAT's coronal view after 120
# steps: 0.29 at a tenth, 0.38 at a fifth).
ADAM_FOR_SGD = 0.2
# Fraction of the full number of steps. With fewer steps SGD learns only the large structures
# (measured on 27 brain structures).
SGD_SHARE = 0.3
AVERAGED = 0.99  # decay of the averaged weights in a short run
LEAST_BATCH = 4  # batch norm needs several samples
FEWEST_STEPS = 900
PATIENCE_2D = 1.25  # more steps in 2-D: a slice contains less information than a 3-D patch
# Factors of the channels and of the resolution, in the order in which they are tried.
SHRINKS_2D = ((1, 1), (0.5, 1), (0.25, 1), (0.25, 0.75), (0.25, 0.5))
SHRINKS_3D = ((1, 1), (1, 0.75), (1, 0.5), (0.5, 0.75), (0.5, 0.5), (0.25, 0.5))

Probe = Callable[[Network, Triple, int], float]


def planner(full_plan: Callable[[Fingerprint, Manifest, int], Plan]) -> Planner:
    """The planner of a recipe: its full setting, scaled to machine, budget and epochs.

    Args:
        full_plan: (fingerprint, manifest, seed) -> the full setting, which ends after epochs. It
            decides whether the network is 2-D or 3-D; ``dims`` of the planner has no effect.
    """

    def plan(
        found: Fingerprint,
        manifest: Manifest,
        machine: Machine,
        *,
        budget_s: float | None,
        epochs: int | None,
        seed: int,
        dims: int | None = None,
    ) -> Plan:
        full = full_plan(found, manifest, seed)
        return scaled(full, machine, budget_s=budget_s, epochs=epochs)

    return plan


def scaled(
    plan: Plan,
    machine: Machine,
    *,
    budget_s: float | None,
    epochs: int | None,
    probe: Probe | None = None,
) -> Plan:
    """The full setting ``plan`` (which ends after epochs), reduced to what this machine can run.

    Args:
        budget_s: seconds of training, all views together; None keeps the full network if it fits
            the memory.
        epochs: instead of the full number.
        probe: (network, patch, batch) -> seconds of one training step; if None, the step is
            measured on this machine.

    Raises:
        PlanError: not even the smallest version fits the memory.
    """
    if plan.schedule.epochs is None:
        raise ValueError("a full setting ends after epochs")
    # The views train one after the other and share the budget.
    each_s = None if budget_s is None else budget_s / max(1, len(plan.views))
    versions = list(_versions(plan, machine))
    choices = [choice for choice, _ in versions]
    if each_s is None:
        # No time depends on the steps, so none is measured.
        plan = _version(plan, fitting_memory(choices, machine)[0], versions, f"{machine}")
        if epochs is None:
            return plan
        return plan.replace(schedule=plan.schedule.model_dump() | {"epochs": epochs})
    patience = PATIENCE_2D if plan.dims == 2 else 1.0
    measure = probe or partial(measure_step, device=machine.device)
    wanted = patience * steps_wanted(each_s, FEWEST_STEPS)
    chosen, step_s, why = largest_that_fits(choices, each_s, machine, measure, wanted)
    return _with_budget(_version(plan, chosen, versions, f"{machine}{why}"), each_s, step_s)


def _version(
    plan: Plan,
    chosen: NetworkChoice,
    versions: Sequence[tuple[NetworkChoice, float]],
    reason: str,
) -> Plan:
    """The plan in the chosen version."""
    share = next(share for choice, share in versions if choice == chosen)
    return _resized(plan, chosen, share, f"the largest version for {reason}")


def _versions(plan: Plan, machine: Machine) -> Iterator[tuple[NetworkChoice, float]]:
    """(network, patch, batch) from large to small, each with its resolution as a fraction of the
    full one.
    """
    seen: list[NetworkChoice] = []
    shrinks = [
        (width, share, LEAST_WIDTH)
        for width, share in (SHRINKS_2D if plan.dims == 2 else SHRINKS_3D)
    ]
    if plan.dims == 3 and not machine.matrix_units:
        shrinks.append((0.125, 0.5, LEAST_WIDTH_WITHOUT))
    for width, share, least in shrinks:
        # Only the smallest versions also halve the batch.
        small = width * share < 0.2
        for batch in (
            (plan.batch, max(LEAST_BATCH, plan.batch // 2))
            if small and plan.batch > LEAST_BATCH
            else (plan.batch,)
        ):
            choice = (
                _narrower(plan.network, width, least),
                _coarser(plan.patch, share, plan.network.divisor),
                batch,
            )
            if choice not in seen:
                seen.append(choice)
                yield choice, share


def _resized(plan: Plan, choice: NetworkChoice, share: float, why: str) -> Plan:
    """The plan with another network, patch and batch, at the fraction ``share`` of its resolution;
    with the reason ``why`` if anything changed.
    """
    network, patch, batch = choice
    now_and_full = (
        ("base channels", network.widths[0], plan.network.widths[0]),
        ("resolution", f"{100 * share:.0f} %", "100 %"),
        ("batch", batch, plan.batch),
    )
    changes = [f"{what} {now} instead of {full}" for what, now, full in now_and_full if now != full]
    # A lower resolution means a larger spacing and a smaller patch, for each view as well.
    spacing = [None if s is None else rounded_mm(s / share) for s in plan.spacing_mm]
    views = [
        view.model_dump()
        | {"patch": _coarser(view.patch, share, _view_divisor(plan.network.divisor, view.axis))}
        for view in plan.views
    ]
    reasons = plan.reasons | ({"scaling": f"{', '.join(changes)}: {why}"} if changes else {})
    return plan.replace(
        network=network.model_dump(),
        patch=patch,
        batch=batch,
        spacing_mm=spacing,
        views=views,
        reasons=reasons,
    )


def _view_divisor(divisor: Triple, axis: int) -> Triple:
    """The divisor of a view's patch on the preprocessed grid: 1 along its slice axis."""
    a, b = divisor[:2]
    return ((1, a, b), (a, 1, b), (a, b, 1))[axis]


def _narrower(network: Network, factor: float, least: int = LEAST_WIDTH) -> Network:
    """The network with its channels times ``factor``, in multiples of 8, not below ``least`` unless
    they already were; dropout is scaled by the same factor.

    With few feature maps, dropout removes most of what a network has learnt: with 16 instead of 64
    channels and dropout 0.2, QuickNAT learnt no small structure (measured).
    """
    if factor == 1:
        return network
    # A dense network also has a growth rate, which shrinks with the channels.
    dense = network.kind == "denseunet"
    least = min(least, *network.widths, *((network.growth,) if dense else ()))
    widths = tuple(max(least, round(w * factor / 8) * 8) for w in network.widths)
    growth = {"growth": max(least, round(network.growth * factor / 8) * 8)} if dense else {}
    return network.model_copy(
        update={"widths": widths, "dropout": round(network.dropout * factor, 3), **growth}
    )


def _coarser(patch: Triple, share: float, divisor: Triple) -> Triple:
    """The patch that covers the same region at the fraction ``share`` of the resolution."""
    if share == 1:
        return patch
    # Round up to a divisible size; the slice axis stays 1.
    a, b, c = (
        n if n == 1 else max(1, -int(-n * share // d)) * d
        for n, d in zip(patch, divisor, strict=True)
    )
    return a, b, c


def _with_budget(plan: Plan, budget_s: float, step_s: float) -> Plan:
    """The plan with a schedule that ends after ``budget_s``, annealed at the end. The epochs are
    shorter if a run would otherwise have fewer than ``LEAST_EPOCHS``.
    """
    full = plan.schedule
    assert full.epochs is not None
    steps = max(1.0, budget_s / step_s)
    full_steps = full.epochs * full.steps_per_epoch
    schedule = full.model_dump() | {
        "epochs": None,
        "budget_s": budget_s,
        "steps_per_epoch": int(max(5, min(full.steps_per_epoch, steps / LEAST_EPOCHS))),
        "kind": "cosine" if full.kind == "constant" else full.kind,
        "warmup": 0.03,
        "ema": max(full.ema, AVERAGED),
    }
    reasons = dict(plan.reasons)
    reasons["schedule"] = (
        f"{budget_s:.0f} s per network at about {step_s:.2f} s per step: about {steps:.0f} of the "
        f"{full_steps} steps of the full setting; the learning rate is annealed and the weights "
        "are averaged, because a run with a time budget has no time to settle"
    )
    # A change from SGD to AdamW also replaces a stepped schedule.
    optimiser, words = _optimiser(plan.optimiser, steps / full_steps)
    if words:
        reasons["optimiser"] = words
    if optimiser.kind != plan.optimiser.kind:
        schedule["kind"] = "cosine"
    return plan.replace(schedule=schedule, optimiser=optimiser.model_dump(), reasons=reasons)


def _optimiser(full: Optimiser, share: float) -> tuple[Optimiser, str]:
    """The optimiser of a run with the fraction ``share`` of the full number of steps, and the
    reason for a change; "" if nothing changes.
    """
    if full.kind == "sgd":
        if share > SGD_SHARE:
            return full, ""
        words = (
            f"AdamW instead of SGD: {100 * share:.0f} % of the steps are too few for SGD at "
            "any safe learning rate"
        )
        # Decoupled weight decay (Loshchilov 2019), as much per step as with SGD. As part of the
        # gradient, which Adam normalises, it reduced the layers that the current task does not need
        # to a tenth within 600 steps, and a second stage could not start from them.
        decay = full.weight_decay / ADAM_FOR_SGD
        return Optimiser(
            kind="adamw",
            learning_rate=ADAM_FOR_SGD * full.learning_rate,
            weight_decay=decay,
            clip_norm=full.clip_norm,
        ), words
    # Adam: the learning rate grows as the number of steps falls, up to a limit.
    rate = max(full.learning_rate, min(FASTEST_ADAM, full.learning_rate / share))
    if rate == full.learning_rate:
        return full, ""
    words = (
        f"learning rate {rate:.1e} instead of {full.learning_rate:.0e}: there are fewer steps, and "
        "a step of Adam moves a weight by about the learning rate"
    )
    return full.model_copy(update={"learning_rate": rate}), words
