"""INT8 becomes a model's default only where it costs almost nothing on validation cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.plans import small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.store import StoredCase
from delineate.inference import int8
from delineate.inference import openvino as compiled
from delineate.networks.build import build, weights_of
from delineate.training import int8_choice

SHAPE = (26, 16, 16)
CPU = torch.device("cpu")


def bundle() -> Bundle:
    plan = small_plan()
    plan = plan.replace(network=plan.network.model_dump() | {"widths": (16, 32, 32)})
    torch.manual_seed(0)
    return Bundle(plan, (Member("fold_0", weights_of(build(plan.network))),), {})


def case(number: int, model: Bundle) -> StoredCase:
    """Noise, and as reference what the network finds in it."""
    draws = np.random.default_rng(number)
    image = draws.normal(size=(1, *SHAPE)).astype(np.float32)
    blank = StoredCase(f"c{number}", image, np.zeros(SHAPE, np.uint8), {})
    engine = int8_choice.infer.Engine.from_bundle(model, CPU, backend="torch")
    slabs = int8_choice.scoring.march(engine, blank, 0.5)
    with torch.inference_mode():
        found = torch.cat([int8_choice.scoring.decided(model.plan, slab) for slab, _ in slabs])
    axis = int8_choice.infer.marching_axis(SHAPE, model.plan)
    label = np.moveaxis(found.numpy().astype(np.uint8), 0, axis)
    return replace(blank, label=label)


@pytest.fixture(scope="module", autouse=True)
def _in_float32() -> Iterator[None]:
    """On a processor with units for bfloat16, torch and OpenVINO find other masks in noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_choice.infer, "fast_precision", lambda device: "float32")
        yield


@pytest.fixture(scope="module")
def model() -> Bundle:
    return bundle()


@pytest.fixture(scope="module")
def cases(model) -> list[StoredCase]:
    return [case(number, model) for number in range(3)]


@pytest.mark.skipif(not compiled.available(), reason="INT8 needs OpenVINO")
def test_int8_is_measured_against_the_float_network(model, cases):
    found = int8_choice.choose(model, CPU, cases, 60)
    assert found.cases == ("c0", "c1", "c2")
    assert set(found.bounds) == {"fold_0"} and found.bounds["fold_0"]
    # The reference is the float network's own mask, so both Dice values are known.
    assert found.dice[0] > 0.999
    assert found.dice[1] == pytest.approx(found.agreement, abs=1e-3) and found.agreement > 0.9
    # Noise has no clear structures: rounding changes more voxels than is allowed.
    assert found.chosen == (found.agreement > 0.998 and found.dice[0] - found.dice[1] < 0.0005)
    assert found.to_json()["default"] == found.chosen and found.to_json()["cases"] == 3
    assert "3 validation cases" in found.reason


def test_little_evidence_or_time_chooses_nothing(model, cases):
    assert not int8_choice.choose(model, CPU, cases[:1], 60).bounds
    assert [one.id for one in int8_choice.scoring.within(cases, 0.0, least=1)] == ["c0"]
    assert not int8_choice.Int8Choice().chosen


@pytest.mark.parametrize(
    ("dice", "worst", "agreement", "chosen"),
    [
        ((0.9, 0.8996), 0.001, 0.9985, True),
        ((0.9, 0.8994), 0.001, 0.9985, False),
        ((0.9, 0.9001), 0.02, 0.9985, False),
        ((0.9, 0.9001), 0.001, 0.9975, False),
    ],
)
def test_each_limit_holds(dice, worst, agreement, chosen):
    assert int8_choice.Int8Choice({}, dice, worst, agreement, ("a", "b")).chosen == chosen


def test_small_networks_are_not_measured(model):
    plan = model.plan
    assert not int8_choice.infer.gains_by_int8(plan)
    network = plan.network.model_dump() | {"widths": (64, 128, 128)}
    large = plan.replace(network=network, patch=(96, 96, 96))
    before = int8_choice.infer._operations.cache_info().misses
    assert int8_choice.infer.gains_by_int8(large) and int8_choice.infer.gains_by_int8(large)
    # The network is built once.
    assert int8_choice.infer._operations.cache_info().misses == before + 1


def test_operations_are_those_of_layers_that_can_be_rounded():
    module = torch.nn.Sequential(
        torch.nn.Conv3d(1, 16, 3, padding=1), torch.nn.Conv3d(16, 8, 3, padding=1)
    )
    assert int8.operations(module, torch.zeros(1, 1, 4, 4, 4)) == 64 * 8 * 16 * 27
