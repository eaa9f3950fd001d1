"""From a recipe's full setting to what a machine can do in a given time: one option, ``--budget``,
decides.

What shrinks, step by step, until memory holds it and enough steps fit: the widths of the network,
the resolution (a patch sees as much of the patient with fewer voxels; a smaller patch at full
resolution would see a detail without its place), the batch. What changes with the number of steps:
the learning rate of Adam, which moves a weight by about the rate a step, so that fewer steps need
longer ones; and the end of the run, which a budget always anneals. Structure, loss, preparing and
augmentation stay the recipe's. Every change leaves its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ...core.plan import Network, Optimiser, Plan
from ..rules import (
    Machine,
    NetworkChoice,
    Triple,
    largest_that_fits,
    measure_step,
    steps_wanted,
)

LEAST_WIDTH = 16  # narrower networks are no faster on matrix units (measured)
# and two to three times as fast without, in 3-D (V-Net on 64³: 3.2 s a step 16 wide, 1.0 s 8 wide)
LEAST_WIDTH_WITHOUT = 8
FASTEST_ADAM = 1e-3
# of SGD's rate (training Dice of QuickNAT's coronal view after 120 steps: 0.29 at a tenth, 0.38 at
# a fifth)
ADAM_FOR_SGD = 0.2
# of the full number of steps; with fewer SGD learns only the large structures (measured on 27 brain
# structures)
SGD_SHARE = 0.3
AVERAGED = 0.99  # decay of the averaged weights in a short run
LEAST_EPOCHS = 20
LEAST_BATCH = 4  # batch norm learns from the batch
FEWEST_STEPS = 900
PATIENCE_2D = 1.25  # a slice teaches less than a patch of a volume
SHRINKS_2D = ((1, 1), (0.5, 1), (0.25, 1), (0.25, 0.75), (0.25, 0.5))  # of widths, of resolution
SHRINKS_3D = ((1, 1), (1, 0.75), (1, 0.5), (0.5, 0.75), (0.5, 0.5), (0.25, 0.5))

Probe = Callable[[Network, Triple, int], float]


def scaled(
    plan: Plan,
    machine: Machine,
    *,
    budget_s: float | None,
    epochs: int | None,
    probe: Probe | None = None,
) -> Plan:
    """The full setting ``plan`` (which ends after epochs) as this machine can run it.

    Args:
        budget_s: seconds of training for all views together; None keeps the full network wherever
            memory holds it.
        epochs: instead of the full number.

    Raises:
        PlanError: not even the smallest version fits the memory.
    """
    if plan.schedule.epochs is None:
        raise ValueError("a full setting ends after epochs")
    each_s = None if budget_s is None else budget_s / max(1, len(plan.views))
    versions = list(_versions(plan, machine))
    patience = PATIENCE_2D if plan.dims == 2 else 1.0
    measure = probe or partial(measure_step, device=machine.device)
    chosen, step_s, why = largest_that_fits(
        [choice for choice, _ in versions],
        each_s,
        machine,
        measure,
        patience * steps_wanted(each_s, FEWEST_STEPS),
    )
    share = next(share for choice, share in versions if choice == chosen)
    plan = _in_size(plan, chosen, share, f"what {machine} can do{why}")
    if each_s is not None:
        return _by_the_clock(plan, each_s, step_s)
    return (
        plan
        if epochs is None
        else plan.replace(schedule=plan.schedule.model_dump() | {"epochs": epochs})
    )


def _versions(plan: Plan, machine: Machine) -> Iterator[tuple[NetworkChoice, float]]:
    """(network, patch, batch) from the full setting down, each with its resolution as a share of
    the full one.
    """
    seen: list[NetworkChoice] = []
    shrinks = [
        (width, share, LEAST_WIDTH)
        for width, share in (SHRINKS_2D if plan.dims == 2 else SHRINKS_3D)
    ]
    if plan.dims == 3 and not machine.matrix_units:
        shrinks.append((0.125, 0.5, LEAST_WIDTH_WITHOUT))
    for width, share, least in shrinks:
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


def _in_size(plan: Plan, choice: NetworkChoice, share: float, why: str) -> Plan:
    """The plan with another network, patch and batch, at ``share`` of its resolution; with the
    reason where anything changed.
    """
    network, patch, batch = choice
    now_and_full = (
        ("width", network.widths[0], plan.network.widths[0]),
        ("resolution", f"{100 * share:.0f} %", "100 %"),
        ("batch", batch, plan.batch),
    )
    changes = [f"{what} {now} instead of {full}" for what, now, full in now_and_full if now != full]
    spacing = [None if s is None else round(s / share, 4) for s in plan.spacing_mm]
    views = [
        view.model_dump()
        | {"patch": _coarser(view.patch, share, _along(plan.network.divisor, view.axis))}
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


def _along(divisor: Triple, axis: int) -> Triple:
    """The divisor of a view's patch in the prepared grid's axes: 1 along the axis it slices."""
    a, b = divisor[:2]
    return ((1, a, b), (a, 1, b), (a, b, 1))[axis]


def _narrower(network: Network, factor: float, least: int = LEAST_WIDTH) -> Network:
    """All widths times ``factor``, in eights, none below ``least`` unless it was; dropout in
    proportion.

    A share of few feature maps is most of what a network knows: at 16 instead of 64, QuickNAT with
    its 0.2 learnt nothing small (measured).
    """
    if factor == 1:
        return network
    dense = network.kind == "denseunet"
    least = min(least, *network.widths, *((network.growth,) if dense else ()))
    widths = tuple(max(least, round(w * factor / 8) * 8) for w in network.widths)
    growth = {"growth": max(least, round(network.growth * factor / 8) * 8)} if dense else {}
    return network.model_copy(
        update={"widths": widths, "dropout": round(network.dropout * factor, 3), **growth}
    )


def _coarser(patch: Triple, share: float, divisor: Triple) -> Triple:
    """The patch that sees as much at ``share`` of the resolution."""
    if share == 1:
        return patch
    a, b, c = (
        n if n == 1 else max(1, -int(-n * share // d)) * d
        for n, d in zip(patch, divisor, strict=True)
    )
    return a, b, c


def _by_the_clock(plan: Plan, budget_s: float, step_s: float) -> Plan:
    """The schedule of a run that ends at ``budget_s``: epochs as many as the full setting where
    they stay long enough, annealed at the end.
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
        f"{budget_s:.0f} s a network at about {step_s:.2f} s a step: about {steps:.0f} of the "
        f"full setting's {full_steps} steps; "
        "annealed, and the weights averaged, because a run by the clock has no time to settle"
    )
    optimiser, words = _optimiser(plan.optimiser, steps / full_steps)
    if words:
        reasons["optimiser"] = words
    if optimiser.kind != plan.optimiser.kind:
        schedule["kind"] = "cosine"
    return plan.replace(schedule=schedule, optimiser=optimiser.model_dump(), reasons=reasons)


def _optimiser(full: Optimiser, share: float) -> tuple[Optimiser, str]:
    """The optimiser of a run of ``share`` of the full number of steps, and why it is another; ""
    where it is the same.
    """
    if full.kind == "sgd":
        if share > SGD_SHARE:
            return full, ""
        words = (
            f"AdamW instead of SGD: {100 * share:.0f} % of the steps are too few for SGD at "
            "any rate that is safe"
        )
        # Decay of its own (Loshchilov 2019), as much a step as SGD's: as a part of the gradient,
        # which Adam brings to one length, it shrank
        # the layers that the task at hand does not need, to a tenth within 600 steps, and a second
        # stage then found nothing to start from.
        decay = full.weight_decay / ADAM_FOR_SGD
        return Optimiser(
            kind="adamw",
            learning_rate=ADAM_FOR_SGD * full.learning_rate,
            weight_decay=decay,
            clip_norm=full.clip_norm,
        ), words
    rate = max(full.learning_rate, min(FASTEST_ADAM, full.learning_rate / share))
    if rate == full.learning_rate:
        return full, ""
    words = (
        f"rate {rate:.1e} instead of {full.learning_rate:.0e}: Adam's steps are about as "
        "long as its rate, and there are fewer"
    )
    return full.model_copy(update={"learning_rate": rate}), words
