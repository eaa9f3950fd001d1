"""The part of a scan that has structures is found at a low resolution, and windows are run of it
alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.plans import small_plan

from delineate.core.errors import UsageError
from delineate.core.plan import Inference, Plan
from delineate.inference import coarse
from delineate.inference.engine import Engine, marching_axis
from delineate.inference.predictor import refuse_coarse, settings_of
from delineate.planning.first_stage import FOUND

SHAPE = (48, 44, 37)


class Bright(torch.nn.Module):
    """A class for each threshold that intensities exceed."""

    def __init__(self, *thresholds: float):
        super().__init__()
        self.thresholds = thresholds
        self.windows = 0

    def forward(self, x):
        self.windows += len(x)
        above = [(x > t) * (9.0 + 3 * n) for n, t in enumerate(self.thresholds)]
        return torch.cat([torch.full_like(x, 4.0), *above], 1)


def plan_with_finder(**changes) -> Plan:
    plan = small_plan(**changes)
    structure = plan.structures[0].model_dump() | {"name": FOUND, "side": None}
    stage = plan.replace(
        structures=[structure],
        spacing_mm=(2.0, 2.0, 2.0),
        network=plan.network.model_dump() | {"classes": 2, "overlapping": False},
    )
    return plan.replace(low_resolution=stage, inference={"coarse": 0.5})


def engine_of(plan: Plan, finder: torch.nn.Module, own: torch.nn.Module | None = None) -> Engine:
    device, kind = torch.device("cpu"), torch.float32
    stage = Engine(plan.low_resolution, ((finder, 1.0),), device, kind)
    return Engine(plan, ((own or Bright(0.5, 1.5), 1.0),), device, kind, finder=stage)


def scan_of(shape=SHAPE) -> np.ndarray:
    scan = np.zeros((1, *shape), np.float32)
    scan[:, 5:12, 6:13, 4:11] = 1
    scan[:, 7:10, 8:11, 6:9] = 2
    scan[:, -8:-4, 8:12, 6:9] = 1
    return scan


def segmented(engine: Engine, scan, part) -> np.ndarray:
    found = [np.asarray(slab) for slab in coarse.slabs(scan, engine, part=part)]
    return np.concatenate(found, 1)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_windows_without_structures_are_not_run_and_are_background(kind):
    own = Bright(0.5, 1.5)
    engine, scan = engine_of(plan_with_finder(), Bright(0.05), own), kind(scan_of())
    part = coarse.find(scan, engine, engine.plan.inference)
    # Two structures far apart: the windows between them are not run either.
    counts = part.counts(SHAPE, engine.plan, 0.5)
    assert part.box[0] == (0, 48) and counts["run"] < counts["all"] / 10
    found = segmented(engine, scan, part)
    assert own.windows == counts["run"]
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)  # probabilities everywhere
    np.testing.assert_array_equal(found.argmax(0), segmented(engine, scan, None).argmax(0))


@pytest.mark.parametrize("shape", [(13, 44, 33), (48, 19, 31), (20, 16, 70)])
def test_scans_shorter_than_windows_and_odd_sizes(shape):
    engine, scan = engine_of(plan_with_finder(), Bright(0.05)), scan_of(shape)
    part = coarse.find(scan, engine, engine.plan.inference)
    for (low, high), n, size in zip(part.box, shape, engine.plan.patch, strict=True):
        assert low >= 0 and high <= n and high - low >= min(n, size)
    both = [segmented(engine, scan, one) for one in (part, None)]
    np.testing.assert_array_equal(*(one.argmax(0) for one in both))


def test_a_window_that_is_run_does_not_mix_with_one_that_is_not():
    """A structure that the coarse pass misses is segmented all the same where a window covers it,
    also where windows that are not run would overlap that window.
    """
    engine, scan = engine_of(plan_with_finder(), Bright(0.9)), scan_of()
    dim = (slice(6, 10), slice(8, 12), slice(14, 16))
    scan[0][dim] = 0.6  # below the threshold of the coarse pass alone
    part = coarse.find(scan, engine, engine.plan.inference)
    counts = part.counts(SHAPE, engine.plan, 0.5)
    assert 1 < counts["run"] < counts["all"]
    covered = part.covered(SHAPE, engine.plan, 0.5)
    both = [segmented(engine, scan, one) for one in (part, None)]
    axis = marching_axis(SHAPE, engine.plan)
    both = [np.moveaxis(one, 1, 1 + axis) for one in both]
    np.testing.assert_allclose(both[0][:, covered], both[1][:, covered], atol=1e-5)
    assert (both[0][0][~covered] == 1).all() and not covered.all()
    assert covered[dim].all() and (both[0].argmax(0)[dim] == 1).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("memory", [None, 2**21, 10_000])
def test_some_windows_with_little_memory(kind, memory):
    engine, scan = engine_of(plan_with_finder(), Bright(0.05)), kind(scan_of())
    part = coarse.find(scan, engine, engine.plan.inference)
    stream = coarse.slabs(scan, engine, memory_bytes=memory, part=part)
    found = np.concatenate([np.asarray(slab) for slab in stream], 1)
    np.testing.assert_allclose(found, segmented(engine, kind(scan_of()), part), atol=2e-3)


def test_structures_that_overlap_are_absent_outside():
    plan = plan_with_finder()
    network = plan.network.model_dump() | {"overlapping": True, "classes": 2}
    plan = plan.replace(network=network)
    engine = engine_of(plan, Bright(0.05), lambda x: torch.cat([x * 9 - 4, x * 9 - 13], 1))
    scan = scan_of()
    part = coarse.find(scan, engine, plan.inference)
    found = segmented(engine, scan, part) > 0.5
    assert found.any() and not found[:, :, 30:].any()
    np.testing.assert_array_equal(found, segmented(engine, scan, None) > 0.5)


def test_all_windows_are_run_if_nothing_is_found_or_nothing_can_be_saved():
    engine = engine_of(plan_with_finder(), Bright(5.0))
    assert coarse.find(scan_of(), engine, engine.plan.inference) is None
    assert coarse.find(scan_of((16, 16, 16)), engine, engine.plan.inference) is None
    assert coarse.find(scan_of(), engine, Inference()) is None


def test_a_coarse_pass_is_switched_off_and_refused_where_there_is_none():
    plan = plan_with_finder()
    assert settings_of(plan, None, None).coarse == 0.5
    assert settings_of(plan, None, None, True).coarse == 0.5
    assert settings_of(plan, None, None, False).coarse == 0
    with pytest.raises(UsageError, match="no coarse pass"):
        settings_of(small_plan(), None, None, True)
    for needs in ({"probabilities": True}, {"samples": 5}):
        with pytest.raises(UsageError, match="need all of them"):
            refuse_coarse(plan, True, **needs)
    with pytest.raises(ValueError, match=r"inference\.coarse needs"):
        small_plan(inference=Inference(coarse=0.5))
