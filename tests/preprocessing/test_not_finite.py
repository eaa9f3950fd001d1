"""NaN and infinite voxels are background: one rule for checks, repair, training and prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.cohorts.imitate import AFFINE, SHAPE, box, nifti
from tests.plans import small_plan

from delineate.commands.check import check
from delineate.commands.options import CheckOptions
from delineate.core.grid import Grid
from delineate.core.plan import Channel, Normalisation
from delineate.core.volume import Volume, with_finite_voxels
from delineate.formats.files import read
from delineate.preprocessing.prepare import prepare, trace


def scan() -> np.ndarray:
    rng = np.random.default_rng(3)
    inside = np.zeros(SHAPE, bool)
    inside[2:9, 2:8, 1:5] = True
    return np.where(inside, rng.normal(50, 9, SHAPE), -7.0).astype(np.float32)


def spoilt() -> np.ndarray:
    out = scan()
    out[:, :, 0], out[0, 0, 5], out[1, 2, 3] = np.nan, np.inf, -np.inf
    return out


def test_the_value_is_that_of_the_corners_or_the_lowest_one():
    assert np.array_equal(with_finite_voxels(spoilt()), np.where(np.isfinite(spoilt()), scan(), -7))
    whole = scan()
    assert with_finite_voxels(whole) is whole
    integers = np.zeros(SHAPE, np.int16)
    assert with_finite_voxels(integers) is integers
    uneven = np.arange(24, dtype=float).reshape(2, 3, 4) + 5
    uneven[0, 0, 0] = np.nan
    assert with_finite_voxels(uneven)[0, 0, 0] == 6
    assert not with_finite_voxels(np.full(SHAPE, np.nan)).any()


@pytest.mark.parametrize("kind", ["robust", "standard", "range", "none"])
@pytest.mark.parametrize("inside", ["all", "nonzero"])
@pytest.mark.parametrize("crop", ["none", "nonzero", "not_zero", "body"])
def test_a_scan_with_nan_is_prepared_as_if_they_were_background(kind, inside, crop):
    rule = Normalisation(kind=kind, inside=inside)
    plan = small_plan(channels=(Channel(name="MR", normalise=rule),), crop=crop)
    grid = Grid(SHAPE, AFFINE)
    first, record = prepare(Volume(spoilt(), grid), plan)
    other, same = prepare(Volume(with_finite_voxels(spoilt()), grid), plan)
    assert torch.equal(first, other) and first.isfinite().all()
    assert record == same == trace(Volume(spoilt(), grid), plan)


def test_a_repair_fills_them_and_the_case_stays_usable(tmp_path):
    for n in range(3):
        nifti(tmp_path / "c" / "images" / f"c{n}.nii.gz", spoilt() if n == 1 else scan() + n)
        nifti(tmp_path / "c" / "labels" / f"c{n}.nii.gz", box())
    report = check(tmp_path / "c", tmp_path / "out", CheckOptions(fix=tmp_path / "fixed"))
    assert len(report.usable) == 3 and report.mended == 1
    filled = read(tmp_path / "fixed" / "images" / "c1.nii.gz")
    assert np.array_equal(filled.array, with_finite_voxels(spoilt()))
    assert np.array_equal(read(tmp_path / "fixed" / "labels" / "c1.nii.gz").array, box())
