"""The overlap of windows is the least that costs no accuracy on validation cases."""

from __future__ import annotations

import numpy as np
import torch
from tests.plans import small_plan

from delineate.core.store import StoredCase
from delineate.inference.engine import Engine
from delineate.training import window_overlap

SHAPE = (26, 16, 16)  # three windows of 16 with half overlap, two with less


class Exact(torch.nn.Module):
    """Finds the structures everywhere."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), (x == 1) * 9.0, (x == 2) * 9.0], 1)


class BlindAtItsEdges(Exact):
    """Finds nothing within 5 voxels of the ends of a window."""

    def forward(self, x):
        inner = torch.zeros_like(x)
        inner[:, :, 5:-5] = 1
        return super().forward(x) * inner * 1e3


def case(number: int, shape=SHAPE) -> StoredCase:
    label = np.zeros(shape, np.uint8)
    label[6:-6, 2:8, 2:8] = 1
    label[6:-6, 9:14, 3 + number : 9 + number] = 2
    return StoredCase(f"c{number}", label[None].astype(np.float32), label, {})


def chosen(module, cases, **changes) -> window_overlap.OverlapChoice:
    engine = Engine(small_plan(**changes), ((module, 1.0),), torch.device("cpu"), torch.float32)
    return window_overlap.choose(engine, cases, 60)


def test_windows_that_cost_no_dice_are_left_out():
    found = chosen(Exact(), [case(n) for n in range(3)])
    # 0.25 needs as many windows as 0.375, and is no gain.
    assert found.overlap == 0.375 and found.cases == ("c0", "c1", "c2")
    assert [found.measured[o]["windows"] for o in (0.5, 0.375, 0.25)] == [9, 6, 6]
    assert found.measured[0.375] == {"dice": 1.0, "worst": 0.0, "windows": 6}
    assert "6 windows instead of 9 with 0.5, on 3 validation cases" in found.reason
    assert found.to_json()["measured"]["0.375"]["dice"] == 1.0


def test_windows_that_accuracy_needs_are_kept():
    found = chosen(BlindAtItsEdges(), [case(n) for n in range(2)])
    assert found.overlap == 0.5
    assert found.measured[0.5]["dice"] - found.measured[0.375]["dice"] > 0.01


def test_nothing_is_chosen_without_evidence():
    # One case is too few; cases of one window are segmented equally with any overlap.
    for cases in ([], [case(0)], [case(n, (16, 16, 16)) for n in range(3)]):
        assert chosen(Exact(), cases) == window_overlap.OverlapChoice(0.5, {})
    small = case(1, (16, 16, 16))
    assert chosen(Exact(), [small, case(0), case(2)]).cases == ("c0", "c2")


def test_a_case_that_loses_much_keeps_the_overlap():
    measured = {
        0.5: {"dice": 0.9, "worst": 0.0, "windows": 9},
        0.375: {"dice": 0.8999, "worst": 0.02, "windows": 6},
        0.25: {"dice": 0.8994, "worst": 0.001, "windows": 4},
    }
    assert window_overlap._least(measured) == 0.5
    measured[0.25]["dice"] = 0.8996
    assert window_overlap._least(measured) == 0.25
