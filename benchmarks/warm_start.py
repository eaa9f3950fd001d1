"""How fast a network learns from random weights, from those of a first stage, and from a mixture of
both (Ash & Adams 2020).

    python benchmarks/warm_start.py FIRST.model SECOND.model.run [--view coronal] [--steps 150]

``train_recipe.py brain-quicknat --keep FOLDER`` creates both: FOLDER/tissues.model and
FOLDER/fine.model.run. Every start uses the same batches of the second stage's training cases. The
result is the training Dice in each fifth of the steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from delineate.core.bundle import Bundle
from delineate.core.plan import Plan
from delineate.core.store import Store, StoredCase
from delineate.networks.build import build, load_weights
from delineate.training import losses
from delineate.training import validation as scoring
from delineate.training.optimisers import make_optimiser
from delineate.training.patches import batches
from delineate.training.schedule import rate
from measure import keep

PARTS = 5


def learn(module: nn.Module, plan: Plan, cases: list[StoredCase], steps: int) -> list[float]:
    """Train; the mean training Dice of each of ``PARTS`` parts of the steps."""
    optimiser, found, total = make_optimiser(module, plan.optimiser), [], None
    module.train()
    stream = batches(plan, cases, seed=1, first=0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.optimiser.learning_rate * rate(plan.schedule, step / steps)
        image, label = next(stream)
        torch.manual_seed(step)
        logits = module(image)
        loss = losses.deeply_supervised(logits, label, plan.loss)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), plan.optimiser.clip_norm)
        optimiser.step()
        counted = scoring.counts(label, logits.argmax(1), logits.shape[1]).numpy()
        total = counted if total is None else total + counted
        if (step + 1) % (steps // PARTS) == 0:
            found.append(round(scoring.dice(total, plan.structures)[1], 3))
            total = None
    stream.close()
    return found


def mixed(share: float, given: dict[str, np.ndarray]) -> Callable[[nn.Module], None]:
    """A start with ``share`` of the first stage's weights plus 1 - ``share`` of random weights.

    Weights that do not fit stay random.
    """

    def start(module: nn.Module) -> None:
        drawn = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        left = load_weights(module, given, strict=False)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name not in left and parameter.ndim > 1:
                    parameter.mul_(share).add_(drawn[name], alpha=1 - share)

    return start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--view", default="coronal")
    parser.add_argument("--steps", type=int, default=150)
    a = parser.parse_args()
    whole = Plan.load(a.run / "plan.json")
    view = whole.named_views()[a.view]
    plan, table = (
        whole.seen(view),
        whole.labels.merge_table() if view.merge_sides else np.arange(whole.network.classes),
    )
    store = Store(a.run / "store")
    ids = sorted(path.name for path in (a.run / "store").iterdir() if store.has(path.name))
    cases = [store.open(name).loaded().seen(view.order, table) for name in ids]
    given = dict(next(m for m in Bundle.load(a.first).members if m.view == a.view).weights)
    starts = {"drawn": None, "taken over": mixed(1.0, given), "half of each": mixed(0.5, given)}
    found = {}
    for name, start in starts.items():
        module = build(plan.network, seed=1)
        if start is not None:
            start(module)
        found[name] = learn(module, plan, cases, a.steps)
    keep(
        "warm_start",
        {
            "view": a.view,
            "steps": a.steps,
            "cases": len(cases),
            "training Dice of each fifth": found,
        },
    )


if __name__ == "__main__":
    main()
