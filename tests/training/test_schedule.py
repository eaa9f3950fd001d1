from __future__ import annotations

import numpy as np
import pytest

from delineate.core.plan import Schedule
from delineate.training.schedule import Clock, rate


def test_a_constant_rate_rises_once_and_stays():
    schedule = Schedule(kind="constant", epochs=10, warmup=0.1)
    assert [rate(schedule, p) for p in (0.05, 0.1, 0.5, 0.999, 1.0)] == [0.5, 1, 1, 1, 1]


def test_divided_by_ten_every_ten_epochs():
    """The original's schedule of 40 epochs, and the same shape by the clock."""
    schedule = Schedule(
        kind="step", epochs=40, steps_per_epoch=7, warmup=0, drop_every=0.25, drop_to=0.1
    )
    clock = Clock(schedule)
    for epoch in range(40):
        for step in (7 * epoch, 7 * epoch + 6):
            assert rate(schedule, clock.progress(step)) == pytest.approx(0.1 ** (epoch // 10))
    by_clock = Schedule(kind="step", budget_s=60, warmup=0, drop_every=0.25, drop_to=0.1)
    assert [rate(by_clock, s / 60) for s in (0, 14.9, 15.1, 31, 59)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001]
    )


@pytest.mark.parametrize("epochs", [3, 10, 30, 70, 90])
def test_no_drop_comes_a_step_late_by_rounding(epochs):
    schedule = Schedule(
        kind="step", epochs=epochs, steps_per_epoch=1, warmup=0, drop_every=1 / epochs, drop_to=0.5
    )
    assert [rate(schedule, Clock(schedule).progress(n)) for n in range(epochs)] == pytest.approx(
        [0.5**n for n in range(epochs)]
    )


def test_a_single_drop_needs_no_second():
    schedule = Schedule(kind="step", epochs=10, warmup=0.1, drop_every=0.6, drop_to=0.2)
    assert [rate(schedule, p) for p in (0.05, 0.3, 0.59, 0.6, 0.99)] == pytest.approx(
        [0.5, 1, 1, 0.2, 0.2]
    )


@pytest.mark.parametrize("kind", ["cosine", "poly", "constant", "step"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_any_share_of_warm_up_works(kind, warmup):
    rates = [rate(Schedule(kind=kind, epochs=5, warmup=warmup), p) for p in np.linspace(0, 1, 51)]
    assert np.isfinite(rates).all() and min(rates) >= 0 and max(rates) <= 1
    assert rates[0] == (1.0 if warmup == 0 else 0.02)


def test_steps_end_a_budget_early_but_not_its_extension():
    schedule = Schedule(budget_s=1000, steps=200)
    assert Clock(schedule).progress(50) == pytest.approx(0.25, abs=1e-3)
    assert Clock(schedule).progress(200) == 1.0
    # On a slow machine the clock ends it.
    assert Clock(schedule, spent_s=500).progress(50) == pytest.approx(0.5, abs=1e-3)
    assert Clock(schedule, spent_s=500, origin_s=400).progress(250) < 0.2
    with pytest.raises(ValueError, match="budget_s"):
        Schedule(epochs=3, steps=200)
