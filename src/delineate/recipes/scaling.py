"""From a recipe's full setting to what a machine can do in a given time: one option, ``--budget``, decides.

What shrinks, in this order: the patch and the widths of the network, until memory holds them and enough steps fit. What changes with the
number of steps: the learning rate of Adam, which moves a weight by about the rate a step, so that fewer steps need longer ones; and the
end of the run, which a budget always anneals. Structure, loss, preparing and augmentation stay the recipe's. Every change leaves its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ..core.plan import Network, Plan
from ..steps.plan import Choice, Machine, Triple, largest_that_fits, measure_step

LEAST_WIDTH = 16  # narrower networks are no faster on matrix units (measured)
FASTEST_ADAM = 1e-3
AVERAGED = 0.99  # decay of the averaged weights in a short run
LEAST_EPOCHS = 20

Probe = Callable[[Network, Triple, int], float]


def scaled(plan: Plan, machine: Machine, *, budget_s: float | None, epochs: int | None, probe: Probe | None = None) -> Plan:
    """The full setting ``plan`` (which ends after epochs) as this machine can run it.

    Args:
        budget_s: seconds of training for all views together; None keeps the full network wherever memory holds it.
        epochs: instead of the full number.

    Raises:
        PlanError: not even the smallest version fits the memory.
    """
    if plan.schedule.epochs is None:
        raise ValueError("a full setting ends after epochs")
    each_s = None if budget_s is None else budget_s / max(1, len(plan.views))
    choices = list(_versions(plan))
    (network, patch, batch), step_s, why = largest_that_fits(choices, each_s, machine, probe or partial(measure_step, device=machine.device))
    reasons = dict(plan.reasons)
    if (network, patch, batch) != choices[0]:
        reasons["scaling"] = (
            f"{network.widths[0]} instead of {plan.network.widths[0]} wide, patch {_shown(patch)} instead of {_shown(plan.patch)}, "
            f"batch {batch} instead of {plan.batch}: what {machine} can do{why}"
        )
    plan = plan.replace(network=network, patch=patch, batch=batch, reasons=reasons)
    if each_s is not None:
        return _by_the_clock(plan, each_s, step_s)
    return plan if epochs is None else plan.replace(schedule=plan.schedule.model_dump() | {"epochs": epochs})


def _versions(plan: Plan) -> Iterator[Choice]:
    """(network, patch, batch) from the full setting down."""
    seen: list[Choice] = []
    shrinks = (
        [(1, 1), (0.5, 1), (0.25, 1), (0.25, 0.5)]
        if plan.dims == 2
        else [(1, 1), (1, 0.75), (1, 0.5), (0.5, 0.75), (0.5, 0.5), (0.25, 0.5), (0.25, 0.375)]
    )
    for width, side in shrinks:
        for batch in dict.fromkeys((plan.batch, max(2, plan.batch // 2)) if width * side < 0.3 and plan.batch > 2 else (plan.batch,)):
            choice = (_narrower(plan.network, width), _smaller(plan.patch, side, plan.network.divisor), batch)
            if choice not in seen and not (plan.views and side < 1):  # a view sees whole slices
                seen.append(choice)
                yield choice


def _narrower(network: Network, factor: float) -> Network:
    """All widths times ``factor``, in eights, none below ``LEAST_WIDTH`` unless it was."""
    least = min(LEAST_WIDTH, *network.widths)
    if network.kind == "denseunet":
        least = min(least, network.growth)
    widths = tuple(max(least, round(w * factor / 8) * 8) if factor < 1 else w for w in network.widths)
    changes = {"widths": widths} | (
        {"growth": max(least, round(network.growth * factor / 8) * 8)} if network.kind == "denseunet" and factor < 1 else {}
    )
    return network.model_copy(update=changes)


def _smaller(patch: Triple, factor: float, divisor: Triple) -> Triple:
    a, b, c = (n if n == 1 else max(2 * d, round(n * factor / d) * d) if n > 2 * d else n for n, d in zip(patch, divisor, strict=True))
    return a, b, c


def _by_the_clock(plan: Plan, budget_s: float, step_s: float) -> Plan:
    """The schedule of a run that ends at ``budget_s``: epochs as many as the full setting where they stay long enough, annealed at the end."""
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
        f"{budget_s:.0f} s a network at about {step_s:.2f} s a step: about {steps:.0f} of the full setting's {full_steps} steps; "
        "annealed, and the weights averaged, because a run by the clock has no time to settle"
    )
    optimiser = plan.optimiser
    if optimiser.kind != "sgd" and steps < full_steps:
        rate = max(optimiser.learning_rate, min(FASTEST_ADAM, optimiser.learning_rate * full_steps / steps))
        if rate > optimiser.learning_rate:
            reasons["optimiser"] = (
                f"rate {rate:.1e} instead of {optimiser.learning_rate:.0e}: Adam's steps are about as long as its rate, and there are fewer"
            )
            optimiser = optimiser.model_copy(update={"learning_rate": rate})
    return plan.replace(schedule=schedule, optimiser=optimiser.model_dump(), reasons=reasons)


def _shown(patch: Triple) -> str:
    return "x".join(map(str, patch))
