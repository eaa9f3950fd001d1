"""A coarse pass is chosen where it leaves out windows and costs no accuracy on validation cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.inference.test_coarse import Bright, engine_of, plan_with_finder

from delineate.core.plan import Inference, Schedule
from delineate.core.store import StoredCase, class_points
from delineate.inference.coarse import may_save
from delineate.training import coarse_choice
from delineate.training.coarse_choice import CoarseChoice, choose

# 5 x 5 x 1 windows of 16 with half overlap.
SHAPE = (48, 44, 16)


class Nothing(torch.nn.Module):
    def forward(self, x):
        return torch.cat([torch.full_like(x, 9.0), torch.zeros_like(x)], 1)


def case(number: int, shape=SHAPE) -> StoredCase:
    label = np.zeros(shape, np.uint8)
    label[5 + number : 12 + number, 6:13, 4:11] = 1
    label[7 + number : 10 + number, 8:11, 6:9] = 2
    points = class_points(label, 3, np.random.default_rng(0))
    return StoredCase(f"c{number}", label[None].astype(np.float32), label, points)


def plan_before():
    return plan_with_finder().replace(inference=Inference().model_dump())


def test_a_coarse_pass_that_costs_no_dice_is_chosen():
    plan, cases = plan_before(), [case(n) for n in range(3)]
    assert may_save(plan, cases)
    found = choose(engine_of(plan, Bright(0.05)), cases, 60)
    assert found.chosen and found.dice == (1.0, 1.0) and found.cases == ("c0", "c1", "c2")
    before, after = found.windows
    work = coarse_choice.finder_windows(plan)
    assert before == 3 * 25 and after < 0.6 * before and 0.9 < work < 1  # fewer classes alone
    assert found.reason.startswith(f"a coarse pass: {after:.0f} windows instead of 75")
    # It is used with a lower probability than needed.
    assert plan.replace(inference={"coarse": found.threshold}).inference.coarse == 0.3
    assert found.to_json()["chosen"] is True


def test_what_a_window_covers_is_not_missed():
    """The coarse pass finds the bright half of each structure, at any threshold."""
    plan, cases = plan_before(), [case(n) for n in range(2)]
    found = choose(engine_of(plan, Bright(1.5)), cases, 60)
    assert not found.missed and found.chosen and found.dice == (1.0, 1.0)


def test_a_case_without_structures_in_which_nothing_is_found_is_not_missed():
    plan, empty = plan_before(), case(2)
    nothing = np.zeros_like(empty.label)
    cases = [case(0), case(1), StoredCase("e", nothing[None].astype(np.float32), nothing, {})]
    found = choose(engine_of(plan, Bright(0.05)), cases, 60)
    assert not found.missed and found.chosen


def test_one_that_misses_structures_or_saves_little_is_not_chosen():
    plan, cases = plan_before(), [case(n) for n in (1, 3)]
    found = choose(engine_of(plan, Nothing()), cases, 60)
    assert not found.chosen and found.missed == 2 and "misses structures of 2 of 2" in found.reason
    # It finds everything everywhere.
    found = choose(engine_of(plan, Bright(-1.0)), cases, 60)
    assert not found.chosen and found.threshold and found.reason.startswith("no coarse pass: ")
    fit = {"threshold": 0.1, "dice": (0.9, 0.9), "worst": 0.0, "windows": (100, 80)}
    assert CoarseChoice(**fit).chosen
    for changed in ({"windows": (100, 81)}, {"dice": (0.9, 0.8994)}, {"worst": 0.01}):
        assert not CoarseChoice(**fit | changed).chosen


def test_nothing_is_measured_without_evidence():
    engine = engine_of(plan_before(), Bright(0.05))
    for cases in ([], [case(0)], [case(n, (16, 16, 16)) for n in range(1)]):
        assert choose(engine, cases, 60) == CoarseChoice()
    wide = np.ones(SHAPE, np.uint8)
    points = class_points(wide, 3, np.random.default_rng(0))
    assert not may_save(engine.plan, [StoredCase("w", wide[None], wide, points)])


def test_shrunk_cases_keep_every_structure_and_ignored_voxels_are_background():
    one = case(0)
    one.label[5, 6, 4] = 3  # ignored
    small = coarse_choice.shrunk_case(one, plan_before())
    assert small.shape == (24, 22, 8) and small.spacing_mm == (2.0, 2.0, 2.0)
    assert set(np.unique(small.label)) == {0, 1} and set(small.points) == {1}
    inside = np.argwhere((one.label > 0) & (one.label < 3)) // 2
    assert small.label[tuple(inside.T)].all() and not small.label[12:].any()


@pytest.mark.rounds
def test_the_network_of_a_coarse_pass_is_trained_once_and_finds_structures(tmp_path):
    plan = plan_before()
    stage = plan.low_resolution.replace(
        schedule=Schedule(epochs=4, steps_per_epoch=40, ema=0.9),
        patch=(24, 24, 8),
        optimiser={"kind": "adamw", "learning_rate": 0.01},
    )
    plan = plan.replace(low_resolution=stage)
    cases, device = [case(n) for n in range(5)], torch.device("cpu")

    def trained() -> dict[str, np.ndarray]:
        folder = tmp_path / "finder"
        return coarse_choice.fit(plan, cases, cases[:2], folder, device, None, print)

    weights = trained()
    np.testing.assert_equal(trained(), weights)
    engine = engine_of(plan, Bright(0.05))
    own = coarse_choice.with_finder(engine, plan, weights)
    found = choose(own, cases, 60)
    assert found.chosen and found.dice == (1.0, 1.0)
