"""The Brain Imaging Data Structure, imitated: sessions, derivatives, tables and spaces."""

from __future__ import annotations

import json

import pytest
from tests.cohorts.imitate import box, grow, nifti, noise
from tests.cohorts.test_layouts_volumes import found_in, names, rows, says

from delineate.cohorts.discovery.layouts import find
from delineate.core.errors import LayoutError

SESSIONS = [("01", "1"), ("01", "2"), ("02", "1"), ("03", "1")]


def raw(root, suffixes=("T1w", "T2w"), sessions=SESSIONS, more=""):
    """Images with side files; returns the part of each name up to the suffix, with its folder."""
    bases = []
    for subject, session in sessions:
        ses = f"_ses-{session}" if session else ""
        folder = f"sub-{subject}/" + (f"ses-{session}/" if session else "") + "anat/"
        bases.append(f"{folder}sub-{subject}{ses}{more}")
    for n, base in enumerate(bases):
        for k, suffix in enumerate(suffixes):
            nifti(root / f"{base}_{suffix}.nii.gz", noise(10 * n + k))
            (root / f"{base}_{suffix}.json").write_text("{}")
    (root / "dataset_description.json").write_text(json.dumps({"BIDSVersion": "1.8.0"}))
    return bases


def test_bids_with_sessions_derivatives_and_tables(tmp_path):
    bases = raw(tmp_path)
    manual = tmp_path / "derivatives" / "manual"
    for base in bases[:-1]:
        grow(manual, "", f"{base}_space-orig_desc-manual_dseg.nii.gz", (1, 2))
    (manual / "desc-manual_dseg.tsv").write_text(
        "index\tname\tcolor\n0\tbackground\t#000000\n1\tanterior\t#ff0000\n2\tposterior\t#00ff00\n"
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tgroup\nsub-01\t30\tpatient\nsub-02\t40\tcontrol\nsub-03\t5\tn/a\n"
    )
    (tmp_path / "README").write_text("text")
    found = found_in(tmp_path, "bids")
    assert rows(found) == [
        ("sub-01_ses-1", "sub-01", "patient", None, 1),
        ("sub-01_ses-2", "sub-01", "patient", None, 1),
        ("sub-02_ses-1", "sub-02", "control", None, 1),
        ("sub-03_ses-1", "sub-03", "", None, 0),
    ]
    assert found.manifest.channels == ("T1w", "T2w") and found.manifest.modality == "MR"
    assert names(found) == {1: "anterior", 2: "posterior"}
    assert says(found, "unpaired", "no mask of this session")


def test_bids_channels_are_the_images_on_the_grid_of_the_mask(tmp_path):
    bases = raw(tmp_path / "rawdata", ("T1w",), [("01", ""), ("02", "")])
    for base in bases:
        nifti(tmp_path / "rawdata" / f"{base}_FLAIR.nii.gz", noise(3, (6, 5, 6)))
        nifti(tmp_path / "rawdata" / f"{base}_bold.nii.gz", noise(9))
        grow(tmp_path / "derivatives" / "lesions", "", f"{base}_label-lesion_mask.nii.gz")
        brain = f"{base}_desc-brain_mask.nii.gz"
        grow(tmp_path / "derivatives" / "fmriprep", "", brain)
    found = found_in(tmp_path, "bids")
    assert found.manifest.channels == ("T1w",) and says(found, "unused", "FLAIR")
    assert names(found) == {1: "lesion"} and len(found.manifest) == 2


def test_bids_one_mask_per_structure_and_per_run(tmp_path):
    for base in raw(tmp_path / "a", ("T1w",), [("01", ""), ("02", "")]):
        for n, label in enumerate(("GM", "WM")):
            mask = box(at=(2 + 4 * n, 3, 1))
            nifti(
                tmp_path / "a" / "derivatives" / "seg" / f"{base}_label-{label}_mask.nii.gz", mask
            )
    found = found_in(tmp_path / "a", "bids")
    assert names(found) == {1: "GM", 2: "WM"} and [r[4] for r in rows(found)] == [2, 2]
    for run in ("_run-1", "_run-2"):
        for base in raw(tmp_path / "b", ("T1w",), [("01", ""), ("02", "")], run):
            grow(tmp_path / "b" / "derivatives" / "seg", "", f"{base}_dseg.nii.gz")
    found = found_in(tmp_path / "b", "bids")
    assert [r[:2] for r in rows(found)][:2] == [
        ("sub-01_run-1", "sub-01"),
        ("sub-01_run-2", "sub-01"),
    ]
    images = [case.images[0].path for case in found.manifest]
    assert all(case.id in image for case, image in zip(found.manifest, images, strict=True))


def test_bids_masks_of_a_template_space_belong_to_images_of_that_space(tmp_path):
    derived = tmp_path / "derivatives" / "prep"
    for base in raw(tmp_path, ("T1w",), [("01", ""), ("02", "")]):
        space = f"{base}_space-MNI152NLin6Asym"
        nifti(derived / f"{space}_desc-preproc_T1w.nii.gz", noise(5, (8, 8, 6)))
        nifti(derived / f"{space}_dseg.nii.gz", box(shape=(8, 8, 6)))
    found = found_in(tmp_path, "bids")
    assert found.manifest.channels == ("desc-preproc_T1w",)
    assert all("MNI152" in case.path for case in found.manifest)


def test_bids_masks_that_name_their_image(tmp_path):
    for base in raw(tmp_path, ("T1w", "T2w"), [("unf01", ""), ("unf02", "")]):
        grow(tmp_path / "derivatives" / "labels", "", f"{base}_T2w_seg-manual.nii.gz")
    assert found_in(tmp_path, "bids").manifest.channels == ("T2w",)


def test_bids_with_masks_of_several_kinds_is_refused_with_the_list(tmp_path):
    for base in raw(tmp_path, ("T1w",), [("01", ""), ("02", "")]):
        for pipeline in ("fast", "samseg"):
            grow(tmp_path / "derivatives" / pipeline, "", f"{base}_dseg.nii.gz")
    with pytest.raises(LayoutError, match=r"several kinds: fast/dseg .2 files., samseg/dseg"):
        find(tmp_path)
