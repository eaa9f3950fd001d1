"""The first stage sees a case in one window, of voxels as isotropic as whole steps allow."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plans import small_plan

from delineate.planning.first_stage import VOXELS, first_stage

CASES = [
    ((78, 103, 77), (1.88, 1.85, 1.85), (2, 2, 2)),
    ((272, 272, 200), (1.5, 1.5, 1.5), (4, 4, 4)),
    ((320, 320, 60), (0.8, 0.8, 5.0), (5, 5, 1)),
]


@pytest.mark.parametrize(("shape", "spacing", "steps"), CASES)
def test_a_case_is_one_window_of_nearly_isotropic_voxels(shape, spacing, steps):
    plan = small_plan(spacing_mm=spacing)
    stage = first_stage(plan, shape)
    assert tuple(np.rint(np.divide(stage.spacing_mm, spacing))) == steps
    small = [-(-n // step) for n, step in zip(shape, steps, strict=True)]
    assert np.prod(small) <= VOXELS and all(p >= n for p, n in zip(stage.patch, small, strict=True))
    assert stage.network.classes == 2 and plan.replace(low_resolution=stage).has_finder


def test_there_is_none_where_a_patch_covers_much_of_a_case_or_in_2d():
    assert first_stage(small_plan(), (24, 24, 24)) is None
    assert first_stage(small_plan(2), (512, 512, 300)) is None
