"""Where windows lie: every voxel is in one, neighbours share enough, and none could be left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.inference.test_engine import Pointwise, engine
from tests.plans import small_plan

from delineate.core.errors import UsageError
from delineate.core.plan import Inference
from delineate.inference import placement, predictor
from delineate.inference.engine import slabs

OVERLAPS = (*placement.OVERLAPS, 0.0, 0.1, 0.9)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_the_fewest_windows_that_cover_a_line_and_share_enough(overlap):
    for window, length in ((16, 16), (16, 17), (16, 40), (17, 200), (128, 300), (5, 3), (1, 9)):
        starts = placement.starts(length, window, overlap)
        seen = np.zeros(length, int)
        for start in starts:
            seen[start : start + window] += 1
        assert seen.all() and starts[0] == 0 and starts[-1] == max(0, length - window)
        if len(starts) == 1:
            continue
        # Positions are rounded to voxels, so that a step may be half a voxel too long.
        most = max(1.0, window * (1 - overlap))
        assert max(np.diff(starts)) <= most + 1
        # With one window less, the steps would be too long.
        assert len(starts) == 2 or (length - window) / (len(starts) - 2) > most


@pytest.mark.parametrize("shape", [(272, 272, 200), (129, 128, 500), (60, 56, 40)])
def test_a_grid_with_half_overlap_is_that_of_nnu_net(shape):
    """nnU-Net 2: ``compute_steps_for_sliding_window`` with a step of half a window."""
    window = (128, 128, 96)
    expected = []
    for n, w in zip(shape, window, strict=True):
        count = int(np.ceil(max(0, n - w) / (w * 0.5))) + 1
        step = max(0, n - w) / (count - 1) if count > 1 else 0
        expected.append([int(np.round(step * i)) for i in range(count)])
    assert list(placement.grid(shape, window, 0.5)) == expected
    assert placement.OVERLAPS[0] == Inference().overlap == 0.5


def test_less_overlap_needs_fewer_windows():
    counts = [placement.count((272, 272, 200), (128,) * 3, o) for o in placement.OVERLAPS]
    assert counts == [48, 18, 18]
    counts = [placement.count((230, 300, 410), (96, 96, 160), o) for o in placement.OVERLAPS]
    assert counts == [120, 80, 48]


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_weights_add_up_at_any_overlap(overlap):
    x = torch.randn(1, 40, 33, 21, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(torch.cat([x * 0, x, -x]), 0)
    shown = []

    class Counting(Pointwise):
        def forward(self, x):
            shown.append(len(x))
            return super().forward(x)

    found = torch.cat(list(slabs(x, engine(3, Counting()), Inference(overlap=overlap))), 1)
    along = int(np.argmin([found.shape[1] != n for n in x.shape[1:]]))
    assert (found - expected.movedim(along + 1, 1)).abs().max() < 1e-5
    assert sum(shown) == placement.count(x.shape[1:], (16, 16, 16), overlap)


def test_an_overlap_that_was_asked_for_is_used_and_others_are_refused():
    plan = small_plan(inference=Inference(overlap=0.375, mirror=(0,)))
    assert predictor.settings_of(plan, None, None) == plan.inference
    assert predictor.settings_of(plan, False, 0.25) == Inference(overlap=0.25)
    for wrong in (-0.1, 0.95, 1.0, 50.0, float("nan")):
        with pytest.raises(UsageError, match=r"--overlap is a fraction from 0 to 0\.9"):
            predictor.settings_of(plan, None, wrong)
