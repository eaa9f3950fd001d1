"""Each check finds what it is for, and is silent on what is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.cohorts.imitate import AFFINE, SHAPE, box, dicom_series, nifti, noise

from delineate.cohorts.checks import doctor
from delineate.cohorts.checks.across_cases import compare
from delineate.cohorts.checks.across_truths import check_absent
from delineate.cohorts.discovery.layouts import find

SIDED = "labels:\n  left kidney: 1\n  right kidney: 2\n  left lung: 3\n"


def smooth(seed, low=0.0, high=200.0, shape=SHAPE):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def cohort(root, count=3, image=smooth, label=lambda n: box(1), affine=lambda n: AFFINE):
    for n in range(count):
        nifti(root / "images" / f"c{n:02d}.nii.gz", image(n), affine(n))
        nifti(root / "labels" / f"c{n:02d}.nii.gz", label(n), affine(n))


def examined(root, **options):
    manifest = find(root, **options)
    return [doctor.examine((c, replace(manifest, cases=()))) for c in manifest], manifest


def told(examinations, kind):
    return [f for e in examinations for f in e.findings if f.kind == kind]


def test_a_good_cohort_is_left_in_peace(tmp_path):
    cohort(tmp_path, 9)
    all_of, _ = examined(tmp_path)
    assert [f for e in all_of for f in e.findings] == []
    assert compare(all_of) == []
    assert all_of[0].voxels == {1: 27}
    assert all_of[0].grid.shape == SHAPE


def test_constant_and_not_finite_images(tmp_path):
    cohort(tmp_path)
    nifti(tmp_path / "images/c00.nii.gz", np.full(SHAPE, 7.0, np.float32))
    bad = smooth(1)
    bad[3, 4, 2], bad[5, 5, 5] = np.nan, np.inf
    nifti(tmp_path / "images/c01.nii.gz", bad)
    all_of, _ = examined(tmp_path)
    assert [(f.case, f.severity, f.data["value"]) for f in told(all_of, "constant")] == [
        ("c00", "error", 7.0)
    ]
    assert [(f.case, f.severity, f.data["voxels"]) for f in told(all_of, "not-finite")] == [
        ("c01", "warning", 2)
    ]
    assert all_of[1].channels[0].high < 200
    nifti(tmp_path / "images/c01.nii.gz", np.where(np.arange(SHAPE[2]) > 0, np.nan, bad))
    nifti(tmp_path / "images/c02.nii.gz", np.full(SHAPE, np.nan, np.float32))
    severities = {f.case: f.severity for f in told(examined(tmp_path)[0], "not-finite")}
    assert severities == {"c01": "warning", "c02": "error"}


@pytest.mark.parametrize(
    ("shift", "severity", "mend"),
    [
        (0.05, "note", "copy affine"),
        (0.3, "error", "copy affine"),
        (1.2, "error", "resample"),
        (60.0, "error", None),
    ],
)
def test_place_of_the_label(tmp_path, shift, severity, mend):
    cohort(tmp_path)
    moved = AFFINE.copy()
    moved[1, 3] += shift
    nifti(tmp_path / "labels/c01.nii.gz", box(1), moved)
    all_of, _ = examined(tmp_path)
    (finding,) = told(all_of, "geometry")
    assert (finding.case, finding.severity, finding.mend) == ("c01", severity, mend)
    assert finding.data["distance_mm"] == pytest.approx(shift, abs=1e-3)
    assert f"{shift:.2f} mm" in finding.message


def test_label_without_affine_and_label_of_another_shape(tmp_path):
    cohort(tmp_path)
    nifti(tmp_path / "labels/c00.nii.gz", box(1), np.eye(4))
    coarse = AFFINE @ np.diag([2, 2, 1, 1])
    nifti(tmp_path / "labels/c02.nii.gz", box(1, (6, 5, 6), (1, 1, 1), 2), coarse)
    all_of, _ = examined(tmp_path)
    assert [(f.case, f.mend) for f in told(all_of, "geometry")] == [
        ("c00", "copy affine"),
        ("c02", "resample"),
    ]
    assert "(6, 5, 6) instead of (12, 10, 6)" in told(all_of, "geometry")[1].message


def test_empty_labels_and_undeclared_values(tmp_path):
    cohort(tmp_path, label=lambda n: box(1) if n else np.zeros(SHAPE, np.uint8))
    manifest = find(tmp_path)
    nifti(tmp_path / "labels/c02.nii.gz", box(7))
    all_of = [doctor.examine((c, manifest)) for c in manifest]
    assert [(f.case, f.severity) for f in told(all_of, "empty")] == [("c00", "warning")]
    (values,) = told(all_of, "values")
    assert (values.case, values.severity, values.data["values"]) == ("c02", "error", [0.0, 7.0])
    assert "undeclared label values 7" in values.message


def test_unreadable_files_become_findings(tmp_path):
    cohort(tmp_path)
    whole = (tmp_path / "images/c01.nii.gz").read_bytes()
    (tmp_path / "images/c01.nii.gz").write_bytes(whole[: len(whole) // 2])
    manifest = find(tmp_path)
    (tmp_path / "labels/c02.nii.gz").write_bytes(b"")
    all_of = [doctor.examine((c, manifest)) for c in manifest]
    assert [(f.case, f.severity) for f in told(all_of, "unreadable")] == [
        ("c01", "error"),
        ("c02", "error"),
    ]
    assert "truncated" in told(all_of, "unreadable")[0].message


# ---- sides ----


def sided(left_x, right_x, lung=None):
    """Structures at voxel i; with AFFINE x falls as i rises, so the patient's left (small x) has
    large i.
    """
    out = box(1, at=(left_x, 3, 1), size=2) + box(2, at=(right_x, 3, 1), size=2)
    return out if lung is None else out + box(3, at=(lung, 7, 1), size=2)


def test_sides_of_pairs(tmp_path):
    cohort(tmp_path / "d", 4, label=lambda n: sided(2, 9) if n == 2 else sided(9, 2))
    (tmp_path / "l.yaml").write_text(SIDED)
    all_of, _ = examined(tmp_path / "d", labels=tmp_path / "l.yaml")
    (finding,) = told(all_of, "side")
    assert (finding.case, finding.severity, finding.data["names"]) == (
        "c02",
        "warning",
        ["left kidney", "right kidney"],
    )
    assert finding.data["mm"] == pytest.approx(7 * 0.8)
    assert [f for f in compare(all_of) if f.kind == "side"] == []


def test_sides_hold_under_any_axis_order(tmp_path):
    turned = AFFINE[:, [2, 1, 0, 3]]  # i runs upwards, k along x
    cohort(
        tmp_path / "d",
        2,
        image=lambda n: smooth(n, shape=SHAPE[::-1]),
        label=lambda n: sided(9, 2).transpose(2, 1, 0),
        affine=lambda n: turned,
    )
    (tmp_path / "l.yaml").write_text(SIDED)
    all_of, _ = examined(tmp_path / "d", labels=tmp_path / "l.yaml")
    assert told(all_of, "side") == []


def test_a_sided_structure_alone_is_judged_by_the_body(tmp_path):
    wide = (60, 10, 6)
    cohort(
        tmp_path / "d",
        2,
        image=lambda n: smooth(n, shape=wide),
        label=lambda n: box(3, wide, (5 if n else 50, 3, 1)),
    )
    (tmp_path / "l.yaml").write_text(SIDED)
    all_of, _ = examined(tmp_path / "d", labels=tmp_path / "l.yaml")
    assert [(f.case, f.data["names"]) for f in told(all_of, "side")] == [("c01", ["left lung"])]


def test_sides_exchanged_everywhere_point_at_the_names(tmp_path):
    cohort(tmp_path / "d", 4, label=lambda n: sided(2, 9))
    (tmp_path / "l.yaml").write_text(SIDED)
    all_of, _ = examined(tmp_path / "d", labels=tmp_path / "l.yaml")
    (finding,) = [f for f in compare(all_of) if f.kind == "side"]
    assert "4 of 4 cases" in finding.message


def test_real_brains_have_their_sides_right_and_a_flipped_one_is_seen(real_data, tmp_path):
    (tmp_path / "l.yaml").write_text(
        "labels:\n  Left Hippocampus: 48\n  Right Hippocampus: 47\n  Left Putamen: 58\n  Right "
        "Putamen: 57\n"
    )
    manifest = find(real_data / "malc", labels=tmp_path / "l.yaml")
    case = manifest.cases[0]
    assert told([doctor.examine((case, manifest))], "side") == []
    import nibabel as nib

    label = nib.load(case.label[0].path)
    nifti(tmp_path / "m.nii.gz", np.asarray(label.dataobj)[::-1].copy(), label.affine)
    flipped = replace(case, label=(replace(case.label[0], path=str(tmp_path / "m.nii.gz")),))
    assert len(told([doctor.examine((flipped, manifest))], "side")[0].data["names"]) == 4


# ---- the cohort ----


def test_mixed_types_and_extreme_intensities_of_hippocampus(real_data):
    manifest = find(real_data / "hippocampus")
    chosen = replace(manifest, cases=manifest.cases[::4])
    all_of = [doctor.examine((c, chosen)) for c in chosen]
    found = {f.kind: f for f in compare(all_of)}
    assert set(found["dtype"].data["count"]) == {"uint8", "float32"}
    assert found["dtype"].severity == found["intensity"].severity == "warning"
    assert found["intensity"].data["max_high"] > 1000 * found["intensity"].data["max_low"]
    assert not any(f.severity == "error" for e in all_of for f in e.findings)


def test_duplicates_and_one_patient_under_two_ids(tmp_path):
    cohort(tmp_path / "d", 4, image=lambda n: smooth(0 if n == 3 else n))
    all_of, _ = examined(tmp_path / "d")
    found = {f.kind: f for f in compare(all_of)}
    assert found["duplicate"].data["cases"] == ["c00", "c03"]
    assert found["patient"].data["patients"] == ["c00", "c03"]
    same, _ = examined(tmp_path / "d", patient="^(c)")
    assert {f.kind for f in compare(same)} == {"duplicate"}


def test_one_dicom_patient_id_in_two_patients(tmp_path):
    for n, name in enumerate(("A", "B", "C")):
        dicom_series(tmp_path / name / "DICOM_anon", noise(n), patient="7" if n < 2 else "8")
    all_of, _ = examined(tmp_path)
    (finding,) = [f for f in compare(all_of) if f.kind == "patient"]
    assert finding.data == {"patient_id": "7", "patients": {"A": ["A"], "B": ["B"]}}


def test_outlier_spacing_and_size(tmp_path):
    thick = AFFINE @ np.diag([1, 1, 4, 1])
    cohort(tmp_path, 12, affine=lambda n: thick if n == 5 else AFFINE)
    nifti(tmp_path / "images/c07.nii.gz", smooth(7, shape=(60, 10, 6)))
    all_of, _ = examined(tmp_path)
    found = [(f.case, f.kind) for f in compare(all_of)]
    assert ("c05", "spacing") in found
    assert ("c07", "size") in found
    assert ("c07", "spacing") not in found
    few = [f for f in compare(all_of[:6]) if f.kind == "spacing"]
    assert few == []


def test_structures_that_no_case_holds(tmp_path):
    cohort(tmp_path / "d")
    (tmp_path / "l.yaml").write_text("a: 1\nb: 2\n")
    all_of, manifest = examined(tmp_path / "d", labels=tmp_path / "l.yaml")
    (finding,) = check_absent(all_of, manifest.labels)
    assert finding.data["names"] == ["b"]
