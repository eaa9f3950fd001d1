"""Plans and untrained models of a given size for benchmarks. Speed and memory do not depend on the
trained weights.
"""

from __future__ import annotations

from delineate.core.bundle import Bundle, Member
from delineate.core.labels import LabelSet
from delineate.core.plan import Channel, Network, Normalisation, Plan, Schedule, Structure


def model_plan(labels: int, spacing_mm: float = 1.5, width: int = 16, patch: int = 96) -> Plan:
    """A 3-D plan for CT with ``labels`` structures; ``width`` is the number of base channels."""
    network = Network(
        dims=3,
        channels=1,
        classes=labels + 1,
        widths=tuple(min(width * 2**n, 320) for n in range(5)),
        strides=((2, 2, 2),) * 4,
        kernels=((3, 3, 3),) * 5,
    )
    structures = tuple(
        Structure(**d)
        for d in LabelSet.from_names({v: f"structure {v}" for v in range(1, labels + 1)}).to_json()
    )
    rule = Normalisation(kind="window", low=-200, high=300, mean=50, std=100)
    return Plan(
        channels=(Channel(name="CT", normalise=rule),),
        structures=structures,
        spacing_mm=(spacing_mm,) * 3,
        patch=(patch,) * 3,
        network=network,
        schedule=Schedule(epochs=1),
    )


def untrained(plan: Plan) -> Bundle:
    """A bundle with random weights."""
    from delineate.networks.build import build, weights_of

    return Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),))
