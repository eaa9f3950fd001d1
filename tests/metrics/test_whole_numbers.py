"""Masks stored as floats: every metric sees the same whole numbers, and none accepts what is no
mask.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from tests.scans import AFFINE, mask, scan

from delineate.cohorts.discovery.layouts import find
from delineate.commands.check import check
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.core.errors import LabelError
from delineate.core.labels import as_whole_numbers
from delineate.extend import METRICS
from delineate.metrics import confusion, overlap, surface
from delineate.metrics.selection import MetricSelection

BELOW = 1 - 1e-3  # what a program that scales masks may leave of 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("off", [-9e-3, -1e-6, 0.0, 9e-3])
def test_values_near_a_whole_number_are_that_number(dtype, off):
    array = mask().astype(dtype)
    found = as_whole_numbers((array + off * (array > 0)).astype(dtype))
    assert found.dtype.kind == "i" and np.array_equal(found, mask())


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.37, "0.37"), (1.011, "1.011"), (-2.4, "-2.4"), (np.nan, "1 voxel"), (np.inf, "1 voxel")],
)
def test_what_is_no_whole_number_is_refused_with_file_and_value(value, said):
    array = mask().astype(np.float64)
    array[5, 6, 7] = value
    with pytest.raises(LabelError, match="whole numbers") as refused:
        as_whole_numbers(array, "masks/a.nii.gz")
    assert said in str(refused.value) and "masks/a.nii.gz" in str(refused.value)


def test_the_ends_of_the_rule():
    assert as_whole_numbers(np.zeros((0, 3))).shape == (0, 3)
    assert as_whole_numbers(np.array([True, False])).dtype == np.uint8
    kept = np.array([1, 2], np.int16)
    assert as_whole_numbers(kept) is kept
    assert as_whole_numbers(np.array([5e9])).tolist() == [5_000_000_000]


def test_every_metric_counts_the_same_voxels_of_floats():
    """Truncated instead of rounded, a mask a little below whole numbers loses its structures one
    value down.
    """
    truth, prediction = mask(0), mask(1)
    soft = prediction.astype(np.float32) * BELOW
    spacing = (1.0, 1.5, 2.0)
    own = [name for name in METRICS.names() if METRICS.is_own(name)]
    chosen = MetricSelection.of(surface.SurfaceSettings(), own)
    whole = chosen.measure(prediction, truth, [1, 2], spacing)
    floats = chosen.measure(soft, truth.astype(np.float64), [1, 2], spacing)
    assert set(whole) == set(floats) and len(whole) > 8
    for name, values in whole.items():
        np.testing.assert_array_equal(floats[name], values, err_msg=name)
    direct = surface.measure(soft, truth, [1, 2], spacing, surface.SurfaceSettings())
    np.testing.assert_array_equal(direct["hd95_mm"], whole["hd95_mm"])
    np.testing.assert_array_equal(
        overlap.dice(overlap.count(soft, truth)), overlap.dice(overlap.count(prediction, truth))
    )
    np.testing.assert_array_equal(
        confusion.confusion(soft, truth).voxels, confusion.confusion(prediction, truth).voxels
    )
    with pytest.raises(LabelError, match=r"0\.6"):
        surface.measure(prediction * 0.6, truth, [1, 2], spacing, surface.SurfaceSettings())


def test_an_evaluation_of_floats_is_that_of_whole_numbers(tmp_path):
    for n in range(2):
        scan(tmp_path / "truth" / f"c{n}.nii.gz", mask(n))
        scan(tmp_path / "whole" / f"c{n}.nii.gz", mask(n + 1))
        scan(tmp_path / "floats" / f"c{n}.nii.gz", mask(n + 1).astype(np.float32) * BELOW)
    whole, floats = (
        evaluate(
            tmp_path / name,
            tmp_path / "truth",
            options=EvaluateOptions(also=("lesions", "centreline", "boundary")),
        )
        for name in ("whole", "floats")
    )
    assert (
        len(whole.scores.rows) > 40
        and floats.scores.to_csv() == whole.scores.to_csv()
        and floats.slices.to_csv() == whole.slices.to_csv()
    )
    assert [c.truth_sha256 for c in floats.cases] == [c.truth_sha256 for c in whole.cases]
    turned = evaluate(tmp_path / "truth", tmp_path / "floats")  # the truth as floats
    assert (
        turned.scores.to_csv() == evaluate(tmp_path / "truth", tmp_path / "whole").scores.to_csv()
    )


def test_a_probability_map_is_one_named_failure(tmp_path):
    for n in range(3):
        scan(tmp_path / "truth" / f"c{n}.nii.gz", mask(n))
        scan(
            tmp_path / "pred" / f"c{n}.nii.gz",
            mask(n).astype(np.float32) * (0.6 if n == 1 else 1.0),
        )
    found = evaluate(tmp_path / "pred", tmp_path / "truth")
    assert found.exit_code == 1 and set(found.failures) == {"c1"} and len(found.cases) == 2
    assert (
        "pred/c1.nii.gz" in found.failures["c1"]
        and "0.6" in found.failures["c1"]
        and "0.01" in found.failures["c1"]
    )


def test_one_mask_a_structure_is_no_probability(tmp_path):
    """A voxel of 0.3 in such a file was part of the structure."""
    for n in range(3):
        base = tmp_path / f"s{n}"
        scan(
            base / "ct.nii.gz",
            np.random.default_rng(n).integers(-90, 90, (20, 18, 16)).astype(np.int16),
        )
        for name, value in (("liver", 1), ("spleen", 2)):
            array = (mask(n) == value).astype(np.float32)
            array *= 0.3 if n == 2 and name == "spleen" else BELOW
            (base / "segmentations").mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), base / "segmentations" / f"{name}.nii.gz")
    assert find(tmp_path).layout == "totalsegmentator"
    checked = check(tmp_path)
    wrong = [f for f in checked.findings if f.severity == "error"]
    assert (
        [f.case for f in wrong] == ["s2"]
        and "spleen.nii.gz" in wrong[0].message
        and "0.3" in wrong[0].message
    )
    assert [c.id for c in checked.usable] == ["s0", "s1"]


@pytest.mark.parametrize("scale", [255, 65535])
def test_a_scaled_mask_is_no_empty_mask(scale):
    with pytest.raises(LabelError, match="look scaled"):
        as_whole_numbers(mask().astype(np.float64) / scale)
    assert not as_whole_numbers(mask() * 1e-9).any()
    assert as_whole_numbers(np.zeros((0, 3), np.float32)).size == 0
