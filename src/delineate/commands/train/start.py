"""What a network of a training takes over from another model (``--init``): its architecture, if
both are of one family, and all weights that fit.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ...core.bundle import Bundle, Weights
from ...core.errors import UsageError
from ...core.plan import Network, Plan

# The share of the given weights in a first stage's kernels if the structures are different
# (benchmarks/warm_start.py).
OTHER_TASK = 0.5


def like_its_start(plan: Plan, init: str) -> Plan:
    """The plan with the network of the model it starts from, except channels and classes, if both
    are of one family and the patches allow it.

    A second stage of the same recipe keeps the first stage's resolution too: filters recognise
    structures at the size at which they were trained.
    """
    if not init:
        return plan
    first = Bundle.load(init).plan
    own, given = plan.network, first.network
    if (given.kind, given.dims, given.divisor) != (own.kind, own.dims, own.divisor):
        return plan
    wanted = given.model_copy(
        update={"channels": own.channels, "classes": own.classes, "dropout": own.dropout}
    )
    changes: dict[str, Any] = {"network": wanted.model_dump()} if wanted != own else {}
    if plan.recipe and first.recipe == plan.recipe and first.spacing_mm != plan.spacing_mm:
        changes |= {
            "spacing_mm": first.spacing_mm,
            "patch": first.patch,
            "views": [view.model_dump() for view in first.views],
        }
    if not changes:
        return plan
    reasons = plan.reasons | {
        "network": f"the {given.kind} of the model it starts from, with {given.widths[0]} to "
        f"{given.widths[-1]} channels, at its resolution"
    }
    return plan.replace(**changes, reasons=reasons)


def starting_weights(
    init: str, plan: Plan, network: Network, view: str, seed: int
) -> tuple[Weights, str]:
    """The weights of the model ``init`` that fit ``network``, and a sentence about them.

    They are those of the member of the same view, else of the first member. For the same
    structures they are used as they are. For others every kernel is the mean of the given and the
    drawn one: a network that has converged on one task learns another more slowly than a new one;
    a mixed one does not (shrink and perturb, Ash & Adams 2020).

    Args:
        init: the model to start from.
        plan: of the training, for its structures.
        network: the network to train, drawn with ``seed``.
        view: "" for a plan without views.

    Raises:
        UsageError: no convolution fits, so the model would be no start.
    """
    from ...networks.build import build, load_weights, weights_of

    bundle = Bundle.load(init)
    giver = next((m for m in bundle.members if m.view == view), bundle.members[0])
    module = build(network, seed=seed)
    drawn = weights_of(module)
    left = load_weights(module, giver.weights, strict=False)
    taken = [name for name in drawn if name not in left]
    if not any(drawn[name].ndim > 1 for name in taken):
        given = bundle.plan.network
        raise UsageError(
            f"no weights of its {given.dims}-D {given.kind} fit the {plan.dims}-D "
            f"{plan.network.kind} of this plan; start from a model of the same family and widths",
            path=init,
        )
    same = [x.name for x in bundle.plan.labels] == [x.name for x in plan.labels]
    words = f"starts from {giver.name} of {init}: {len(taken)} of {len(drawn)} tensors fit"
    if not same:
        words += ", averaged half and half with drawn weights because the structures are different"
    if left:
        more = f" and {len(left) - 6} more" if len(left) > 6 else ""
        words += f"; not replaced: {', '.join(left[:6])}{more}"
    share = 1.0 if same else OTHER_TASK
    return {name: _mixed(giver.weights[name], drawn[name], share) for name in taken}, words


def _mixed(given: NDArray[Any], drawn: NDArray[Any], share: float) -> NDArray[Any]:
    """Kernels are averaged; vectors (of norms, and biases) are used as given."""
    if share == 1 or given.ndim < 2:
        return given
    return (share * given + (1 - share) * drawn).astype(given.dtype)
