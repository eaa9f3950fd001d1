"""Trees of an archive: series of DICOM files with masks in or next to their folders."""

from __future__ import annotations

import pytest
from tests.cohorts.imitate import box, dicom_series, nifti, noise
from tests.cohorts.test_layouts_volumes import found_in, names, rows, says

from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.reading import read_label
from delineate.core.errors import LayoutError
from delineate.formats import files

SMALL = (10, 9, 5)


def series(folder, seed, shape=SMALL, **more):
    return dicom_series(folder, noise(seed, shape), **more)


def mask(path, like, at=(2, 3, 1), value=1):
    """A mask on the grid of the series in the folder ``like``."""
    grid = files.read_grid(like)
    return nifti(path, box(value, grid.shape, at, 2), grid.affine)


def test_masks_in_and_next_to_the_series(tmp_path):
    one = series(tmp_path / "P01" / "20200101" / "3_CT", 1, patient="anonymous")
    mask(one / "liver_mask.nii.gz", one)
    series(tmp_path / "P01" / "20200101" / "1_Scout", 2, (10, 9, 2), patient="anonymous")
    two = series(tmp_path / "P02" / "20200202" / "CT", 3, patient="anonymous")
    mask(two.parent / "segmentation.nii.gz", two)
    # A converted scan is no mask, and of two series the mask has the grid of one.
    nifti(two.parent / "converted.nii.gz", noise(3, SMALL), files.read_grid(two).affine)
    series(two.parent / "thin", 4, (20, 18, 5), patient="anonymous")
    three = series(tmp_path / "P03" / "CT", 5, patient="anonymous")
    mask(tmp_path / "P03" / "masks" / "m.nii.gz", three)
    series(tmp_path / "P04" / "study" / "CT", 6, patient="anonymous")
    (tmp_path / "P04" / "report.pdf").write_bytes(b"%PDF")
    found = found_in(tmp_path, "hospital")
    assert rows(found) == [
        ("P01", "P01", "", None, 1),
        ("P02", "P02", "", None, 1),
        ("P03", "P03", "", None, 1),
        ("P04", "P04", "", None, 0),
    ]
    assert found.manifest.cases[1].path == str(two) and found.manifest.modality == "CT"
    assert says(found, "unpaired", "no mask in or next to")


def test_one_mask_per_structure_and_two_studies(tmp_path):
    for patient, study in (("A", "s1"), ("A", "s2"), ("B", "s1")):
        folder = series(tmp_path / patient / study / "CT", len(patient + study))
        mask(folder / "liver.nii.gz", folder)
        mask(folder / "spleen.nii.gz", folder, (6, 3, 1))
    found = found_in(tmp_path, "hospital")
    assert [r[:2] for r in rows(found)] == [("A_s1_CT", "A"), ("A_s2_CT", "A"), ("B", "B")]
    assert names(found) == {1: "liver", 2: "spleen"}


def test_a_mask_of_several_possible_series_is_an_error_with_their_names(tmp_path):
    for patient in ("A", "B"):
        one = series(tmp_path / patient / "s" / "venous", 1)
        mask(one / "m_mask.nii.gz", one)
    series(tmp_path / "B" / "s" / "arterial", 2)
    mask(tmp_path / "B" / "s" / "tumour_mask.nii.gz", one)
    found = found_in(tmp_path, "hospital", errors=1)
    assert says(found, "unpaired", "several series: arterial, venous")


def test_masks_of_two_modalities_are_cases_of_one_channel_or_chosen(tmp_path):
    for patient, modality in (("A", "CT"), ("B", "MR")):
        folder = series(tmp_path / patient / "s" / modality, 1, modality=modality)
        mask(folder / "m_mask.nii.gz", folder)
    found = discover(tmp_path)
    assert [(c.id, c.modality) for c in found.manifest] == [("A", "CT"), ("B", "MR")]
    assert (found.manifest.channels, found.manifest.modality) == (("image",), "")
    assert says(found, "modality", "(1 CT, 1 MR)")
    chosen = find(tmp_path, modality="MRI")
    assert [c.id for c in chosen] == ["B"]
    assert (chosen.channels, chosen.modality) == (("MR",), "MR")
    with pytest.raises(
        LayoutError, match=r"no case has the modality PT; found: CT \(1 cases\), MR"
    ):
        find(tmp_path, modality="PT")


def test_masks_that_are_dicom_series_in_folders_of_their_own(tmp_path):
    for patient in ("A", "B"):
        one = series(tmp_path / "one" / patient / "image", 1, patient=patient)
        dicom_series(one.parent / "mask", box(1, SMALL, (2, 3, 1), 2), patient=patient)
        # One series for each structure, of the series in the same examination.
        for study in ("s1", "s2"):
            one = series(tmp_path / "more" / patient / study / "CT", 2, patient=patient)
            for name, at in (("liver", (2, 3, 1)), ("spleen", (6, 3, 1))):
                dicom_series(one.parent / "masks" / name, box(1, SMALL, at, 2), patient=patient)
    found = found_in(tmp_path / "one", "hospital")
    assert rows(found) == [("A", "A", "", None, 1), ("B", "B", "", None, 1)]
    case = found.manifest.cases[0]
    assert case.path.endswith("image") and case.label[0].path.endswith("mask")
    assert read_label(case, found.manifest).array.sum() == 8
    found = found_in(tmp_path / "more", "hospital")
    assert [r[0] for r in rows(found)] == ["A_s1_CT", "A_s2_CT", "B_s1_CT", "B_s2_CT"]
    assert names(found) == {1: "liver", 2: "spleen"}
    assert [len(case.label) for case in found.manifest] == [2] * 4


def test_scans_without_masks_are_not_this_layout(tmp_path):
    folder = series(tmp_path / "A" / "CT", 1)
    nifti(folder / "scan.nii.gz", noise(1, SMALL), files.read_grid(folder).affine)
    with pytest.raises(LayoutError):
        find(tmp_path, layout="hospital")
