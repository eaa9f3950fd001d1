"""Layouts without a name of their own, structures, patients, ambiguity, and refusals that teach."""

from __future__ import annotations

import numpy as np
import pytest
from tests.cohorts.imitate import AFFINE, box, dicom_series, nifti, noise, png, slices

from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.discovery.tree import (
    match_names,
    patient_from_id,
    patients_of_parts,
)
from delineate.cohorts.reading import read_image, read_label
from delineate.core.errors import InputError, LabelError, LayoutError, UsageError
from delineate.core.labels import LabelMapping
from delineate.core.manifest import Manifest


def pairs(root, images="images", labels="labels", count=3, value=1):
    for n in range(count):
        nifti(root / images / f"P{n}_1.nii.gz", noise(n))
        nifti(root / labels / f"P{n}_1.nii.gz", box(value))


# ---- parallel folders ----


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "labels"),
        ("imagesTr", "labelsTr"),
        ("Data", "Ground"),
        ("image", "label"),
        ("img", "mask"),
        ("TrainVolumes", "TrainSegmentation"),
        ("scans", "segmentations"),
        ("train_images", "train_masks"),
    ],
)
def test_names_of_parallel_folders(tmp_path, images, labels):
    pairs(tmp_path, images, labels)
    manifest = find(tmp_path)
    assert (manifest.layout, len(manifest), manifest.labels.names) == (
        "parallel-folders",
        3,
        ["liver" if labels in ("Ground", "TrainSegmentation") else "foreground"],
    )
    assert all(c.split is None and len(c.label) == 1 for c in manifest)


def test_train_and_test_folders(tmp_path):
    pairs(tmp_path, "TrainVolumes", "TrainSegmentation")
    pairs(tmp_path, "TestVolumes", "TestSegmentation", count=1)
    manifest = find(tmp_path, patient="^(.+)$")
    assert sorted((c.id, c.split) for c in manifest) == [
        ("P1_1", None),
        ("P2_1", None),
        ("test_P0_1", "test"),
        ("train_P0_1", None),
    ]


def test_unpaired_files_on_both_sides(tmp_path):
    pairs(tmp_path)
    (tmp_path / "labels" / "P0_1.nii.gz").unlink()
    (tmp_path / "images" / "P2_1.nii.gz").unlink()
    found = discover(tmp_path)
    assert [(c.id, len(c.label)) for c in found.manifest] == [("P0_1", 0), ("P1_1", 1)]
    told = {(f.case, f.kind, f.severity) for f in found.findings if f.kind == "unpaired"}
    assert told == {("P0_1", "unpaired", "warning"), ("P2_1", "unpaired", "error")}


def test_two_folders_of_labels_are_refused(tmp_path):
    pairs(tmp_path)
    pairs(tmp_path, labels="masks")
    with pytest.raises(LayoutError, match=r"labels, masks"):
        find(tmp_path)


def test_malc_real(real_data):
    found = discover(real_data / "malc")
    manifest = found.manifest
    assert (manifest.layout, len(manifest)) == ("parallel-folders", 15)
    assert 130 < len(manifest.labels) < 150
    assert manifest.labels.named("Left Hippocampus").value == 48
    assert any("tissues" in f.message for f in found.findings if f.kind == "unused")
    assert len(manifest.labels.pairs) > 50


def test_chaos_t1_png_real(real_data):
    manifest = find(real_data / "chaos_t1_png")
    assert {s: sum(c.split == s for c in manifest) for s in ("train", "val", None)} == {
        "train": 500,
        "val": 31,
        None: 0,
    }
    assert manifest.named("P13_T1_00028").patient == "P13"
    assert manifest.named("Aug_No_7").patient == "Aug_No_7"
    assert manifest.labels.names == ["liver"]
    case = manifest.named("P13_T1_00028")
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    assert image.array.shape == (1, 256, 256, 1)
    assert set(np.unique(label.array)) == {0, 1}


def test_em_membrane_real(real_data):
    manifest = find(real_data / "em_membrane")
    assert [c.id for c in manifest][:3] == ["0", "1", "2"]
    assert manifest.mapping.values == ((255, 1),)
    assert set(np.unique(read_label(manifest.cases[3], manifest).array)) == {0, 1}


def test_folders_of_dicom_and_slices_as_entries(tmp_path):
    for n in range(2):
        dicom_series(tmp_path / "images" / f"c{n}", noise(n))
        slices(tmp_path / "labels" / f"c{n}", box(255))
    manifest = find(tmp_path)
    assert len(manifest) == 2
    image = read_image(manifest.cases[1], manifest)
    assert int(read_label(manifest.cases[1], manifest, image.grid).array.sum()) == 27


def test_colour_pictures_are_channels_and_colour_labels_structures(tmp_path):
    for n in range(2):
        rgb = np.random.default_rng(n).integers(0, 255, (3, 8, 6)).astype(np.uint8)
        truth = np.zeros((3, 8, 6), np.uint8)
        truth[0, :2], truth[1, 4:] = 255, 128
        png(tmp_path / "images" / f"{n}.png", rgb)
        png(tmp_path / "labels" / f"{n}.png", truth)
    manifest = find(tmp_path)
    assert manifest.channels == ("red", "green", "blue")
    assert manifest.labels.names == ["colour 008000", "colour ff0000"]
    label = read_label(manifest.cases[0], manifest)
    assert np.bincount(label.array.ravel()).tolist() == [12, 24, 12]
    (tmp_path / "l.yaml").write_text('liver: "#ff0000"\n')
    chosen = find(tmp_path, labels=tmp_path / "l.yaml")
    assert np.bincount(read_label(chosen.cases[0], chosen).array.ravel()).tolist() == [36, 12]


def test_matching_names():
    assert match_names(["a", "b"], ["b", "a"]) == {"a": "a", "b": "b"}
    assert match_names(["a_0000", "b_0000"], ["a", "b"]) == {"a_0000": "a", "b_0000": "b"}
    assert match_names(["liver_1", "liver_10"], ["liver_10_seg", "liver_1_seg"]) == {
        "liver_1": "liver_1_seg",
        "liver_10": "liver_10_seg",
    }
    assert match_names(["scan007", "scan012"], ["truth_7", "truth_12"]) == {
        "scan007": "truth_7",
        "scan012": "truth_12",
    }
    assert match_names(["x", "y"], ["p", "q"]) == {}
    assert match_names(["1_2", "12"], ["1-2"]) == {"1_2": "1-2"}


# ---- one folder ----


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("liver-orig{n:03d}.nii", "liver-seg{n:03d}.nii"),
        ("{n}orig.nii.gz", "{n}liver.nii.gz"),
        ("c{n}.nii.gz", "c{n}_seg.nii.gz"),
        ("c{n}.nii.gz", "c{n}_mask.nii.gz"),
        ("c{n}.nii.gz", "c{n}-label.nii.gz"),
        ("scan-{n}.nii", "segmentation-{n}.nii"),
        ("c{n}_image.nii.gz", "c{n}_label.nii.gz"),
    ],
)
def test_suffix_pairs(tmp_path, image, label):
    for n in range(3):
        nifti(tmp_path / image.format(n=n), noise(n))
        nifti(tmp_path / label.format(n=n), box())
    found = discover(tmp_path)
    assert (found.manifest.layout, len(found.manifest)) == ("suffix-pairs", 3)
    for n, case in enumerate(found.manifest):
        assert case.images[0].path.endswith(image.format(n=n))
        assert case.label[0].path.endswith(label.format(n=n))
    (tmp_path / label.format(n=1)).unlink()
    (tmp_path / image.format(n=2)).unlink()
    nifti(tmp_path / image.format(n=5), noise(5))
    again = discover(tmp_path)
    assert sum(f.kind == "unpaired" for f in again.findings) == 3


def test_equal_names_with_other_endings(tmp_path):
    for n in range(4):
        scan = np.random.default_rng(n).integers(0, 255, (40, 30)).astype(np.uint8)
        png(tmp_path / f"{n}.bmp", scan)
        png(tmp_path / f"{n}.png", np.pad(np.full((20, 10), 255 * (n > 0), np.uint8), 10))
    manifest = find(tmp_path)
    assert (manifest.layout, len(manifest)) == ("ending-pairs", 4)
    assert all(c.path.endswith(".bmp") and c.label[0].path.endswith(".png") for c in manifest)
    # Pictures of one kind are no pairs.
    for n in range(4):
        png(tmp_path / f"{n}.png", np.random.default_rng(n).integers(0, 255, (40, 30), np.uint8))
    with pytest.raises(LayoutError, match="differ only in their extension"):
        find(tmp_path)


def test_images_without_truth(tmp_path):
    for n in range(3):
        nifti(tmp_path / f"liver_{n}.nii.gz", noise(n))
    manifest = find(tmp_path)
    assert (manifest.layout, len(manifest), len(manifest.with_truth())) == ("plain-images", 3, 0)
    with pytest.raises(InputError, match=r"has no ground truth"):
        read_label(manifest.cases[0], manifest)


def test_images_without_truth_in_channels(tmp_path):
    for n in range(2):
        for c in range(2):
            nifti(tmp_path / f"k_{n}_{c:04d}.nii.gz", noise(2 * n + c))
    manifest = find(tmp_path)
    assert [(c.id, len(c.images)) for c in manifest] == [("k_0", 2), ("k_1", 2)]
    assert np.array_equal(read_image(manifest.cases[1], manifest).array[1], noise(3))


def test_four_digits_may_count_cases(tmp_path):
    """``case_0000`` ... are cases, not the channels of one case, with labels and without."""
    for n in range(5):
        nifti(tmp_path / "images" / f"case_{n:04d}.nii.gz", noise(n))
        nifti(tmp_path / "labels" / f"case_{n:04d}.nii.gz", box())
    assert [c.id for c in find(tmp_path)] == [f"case_{n:04d}" for n in range(5)]
    assert len(find(tmp_path / "images")) == 5


def test_channels_in_parallel_folders_without_a_dataset_json(tmp_path):
    for n in range(2):
        for c in range(3):
            nifti(tmp_path / "images" / f"k{n}_{c:04d}.nii.gz", noise(3 * n + c))
        nifti(tmp_path / "labels" / f"k{n}.nii.gz", box())
    manifest = find(tmp_path)
    assert [(c.id, len(c.images), len(c.label)) for c in manifest] == [("k0", 3, 1), ("k1", 3, 1)]


def test_a_file_a_series_and_folders_of_series(tmp_path):
    path = nifti(tmp_path / "one" / "scan.nii.gz", noise(1))
    assert [c.id for c in find(path)] == ["scan"]
    series = dicom_series(tmp_path / "dicoms" / "a", noise(1), patient="X1")
    dicom_series(tmp_path / "dicoms" / "b", noise(2), patient="X2")
    assert [(c.id, c.patient) for c in find(series)] == [("a", "X1")]
    assert [(c.id, c.patient) for c in find(tmp_path / "dicoms")] == [("a", "X1"), ("b", "X2")]
    dicom_series(series, noise(3), patient="X1", name="z{n}.dcm")
    manifest = find(series)
    assert len(manifest) == 2
    assert {tuple(read_image(c, manifest).array.ravel()[:3]) for c in manifest} == {
        tuple(noise(1).ravel()[:3]),
        tuple(noise(3).ravel()[:3]),
    }


# ---- choosing structures ----


def test_choosing_and_merging_on_malc(real_data, tmp_path):
    (tmp_path / "l.yaml").write_text(
        "labels:\n  hippocampus left: 48\n  right one: Right Hippocampus\n  white matter: [44, "
        "45]\n"
    )
    manifest = find(real_data / "malc", labels=tmp_path / "l.yaml")
    own = find(real_data / "malc")
    assert manifest.labels.names == ["hippocampus left", "right one", "white matter"]
    chosen, all_of = (read_label(m.cases[0], m).array for m in (manifest, own))
    assert np.array_equal(chosen == 1, all_of == 48)
    assert np.array_equal(chosen == 2, all_of == 47)
    assert np.array_equal(chosen == 3, (all_of == 44) | (all_of == 45))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x: Liver Left\n", "cohort has no structure"),
        ("- 1\n", "expected 'labels:'"),
        ("labels: {a: 1}\nrest: drop\n", "expected"),
        ("labels: {a: 1}\nwhat: 1\n", "unknown key what"),
        ("a: 1.5\n", "structure a"),
        ('a: 1\nb: "#ff0000"\n', "mix"),
    ],
)
def test_bad_choices_teach(tmp_path, text, told):
    pairs(tmp_path / "data")
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(LabelError, match=told):
        find(tmp_path / "data", labels=tmp_path / "l.yaml")


def test_choice_of_ranges_and_rest(tmp_path):
    for n in range(2):
        truth = np.full((8, 6), 30, np.uint8)
        truth[2:5], truth[6:] = 130, 250
        png(tmp_path / "images" / f"{n}.png", noise(n, (8, 6), np.uint8))
        png(tmp_path / "labels" / f"{n}.png", truth)
    (tmp_path / "l.yaml").write_text("kidney: 110-135\nspleen: 250\n")
    manifest = find(tmp_path, labels=tmp_path / "l.yaml")
    assert np.bincount(read_label(manifest.cases[0], manifest).array.ravel()).tolist() == [
        18,
        18,
        12,
    ]
    (tmp_path / "l.yaml").write_text("labels: {kidney: 110-135}\nrest: refuse\n")
    manifest = find(tmp_path, labels=tmp_path / "l.yaml")
    with pytest.raises(LabelError, match=r"case 0: .*30, 250"):
        read_label(manifest.cases[0], manifest)


# ---- patients ----


def test_patients():
    assert [
        patient_from_id(n)
        for n in (
            "P13_T1_00028",
            "OAS1_0001_MR2",
            "sub-03_T1w",
            "brats_2013_pat0003_1",
            "patient001_frame01",
            "Aug_No_3",
            "hippocampus_001",
        )
    ] == ["P13", "OAS1_0001", "sub-03", "brats_2013_pat0003", "patient001", "", ""]


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00002-000", "BraTS-GLI-00002"),
        ("BraTS-MET-00123-101", "BraTS-MET-00123"),
        ("BraTS20_Training_001", ""),
        ("BraTS2021_00495", ""),
        ("002_S_0413", "002_S_0413"),
        ("ADNI_002_S_0413_m12", "ADNI_002_S_0413"),
        ("anna_baseline", "anna"),
        ("anna_followup", "anna"),
        ("anna-follow-up2", "anna"),
        ("anna_fu1", "anna"),
        ("x12_tp2", "x12"),
        ("x12_timepoint-02", "x12"),
        ("x12_week-044", "x12"),
        ("x12_pre", "x12"),
        ("bus_0001-l", "bus_0001"),
        ("knee_07_r", "knee_07"),
        ("case_00001", ""),
        ("volume-12", ""),
        ("atom_7", ""),
    ],
)
def test_visits_are_one_patient(case, patient):
    assert patient_from_id(case) == patient


def test_numbered_parts_are_one_patient(tmp_path):
    ids = ["liver_1_0", "liver_1_1", "liver_2_0", "liver_10_0", "liver_10_1", "liver_10_2"]
    found = patients_of_parts(ids)
    assert [found[case] for case in ids] == ["liver_1"] * 2 + ["liver_2"] + ["liver_10"] * 3
    # Parts without a structure were removed; names without a number.
    for parts in (
        ["liver_1_1", "liver_2_0", "liver_2_3", "liver_3_0"],
        ["anna_0", "anna_1", "ben_0", "carl_0", "carl_2"],
    ):
        assert patients_of_parts(parts) == {one: one.rpartition("_")[0] for one in parts}
    for other in (
        ["site_1_1", "site_1_2", "site_2_1"],  # the first number is a hospital
        ["c_1_7", "c_1_9", "c_2_3"],  # the second one does not count
        ["c_1_1", "c_2_1"],  # each patient once
        ["c_1_1", "c_1_2", "d"],
        [f"{kind}_{n}" for kind in ("benign", "malignant", "normal") for n in range(9)],
        [f"case_{n}" for n in range(9)],
    ):
        assert patients_of_parts(other) == {}
    for name in ids:
        nifti(tmp_path / "images" / f"{name}.nii.gz", noise(1))
        nifti(tmp_path / "labels" / f"{name}.nii.gz", box())
    found = discover(tmp_path)
    assert found.manifest.patients == ["liver_1", "liver_10", "liver_2"]
    note = next(f.message for f in found.findings if f.kind == "patient")
    assert note.startswith("3 patients, 2 with several scans, from the first number")


def test_patient_pattern(tmp_path):
    pairs(tmp_path)
    nifti(tmp_path / "images" / "P0_2.nii.gz", noise(8))
    assert len(find(tmp_path, patient=r"^(P\d)").patients) == 3
    assert len(find(tmp_path, patient=r"(.+)").patients) == 4
    with pytest.raises(LayoutError, match=r"case P0_1: .*does not match"):
        find(tmp_path, patient=r"^(Q\d)")
    with pytest.raises(UsageError, match=r"exactly one"):
        find(tmp_path, patient=r"P\d")
    with pytest.raises(UsageError, match=r"not a regular expression"):
        find(tmp_path, patient=r"(P")


def test_a_patient_on_both_sides_of_a_split_is_refused_with_a_hint(tmp_path):
    pairs(tmp_path / "train", count=1)
    nifti(tmp_path / "val" / "images" / "P0_2.nii.gz", noise(5))
    nifti(tmp_path / "val" / "labels" / "P0_2.nii.gz", box())
    with pytest.raises(LayoutError, match=r"patient P0 is in split .*--patient"):
        find(tmp_path)
    assert [c.split for c in find(tmp_path, patient="(.+)")] == ["train", "val"]


# ---- what is not a cohort ----


def test_nothing_and_no_layout(tmp_path):
    with pytest.raises(InputError, match=r"no such file"):
        find(tmp_path / "gone")
    with pytest.raises(LayoutError, match=r"the folder is empty"):
        find(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a").mkdir()
    with pytest.raises(LayoutError, match=r"1 folders \(a\) and 1 files \(1 \.txt\).*--draft"):
        find(tmp_path)


def test_the_one_cohort_below_is_found_with_a_note_and_several_are_refused(tmp_path):
    pairs(tmp_path / "download" / "set")
    found = discover(tmp_path)
    assert len(found.manifest) == 3
    assert any(f.kind == "descended" and "download/set" in f.message for f in found.findings)
    pairs(tmp_path / "download" / "other")
    with pytest.raises(LayoutError, match=r"several cohorts were found"):
        find(tmp_path)


@pytest.mark.rounds
def test_the_cohorts_of_the_real_data_are_several(real_data):
    with pytest.raises(LayoutError, match=r"several cohorts were found"):
        find(real_data)


def test_a_manifest_is_loaded_as_it_is(tmp_path):
    pairs(tmp_path)
    manifest = find(tmp_path)
    (tmp_path / "x.jsonl").write_text(manifest.to_jsonl())
    assert find(tmp_path / "x.jsonl") == manifest
    (tmp_path / "images" / "P1_1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case P1_1: .*does not exist"):
        find(tmp_path / "x.jsonl")


# ---- reading cases ----


def test_wrong_channel_count_and_wrong_place_name_the_case(tmp_path):
    pairs(tmp_path)
    nifti(tmp_path / "images" / "P1_1.nii.gz", np.stack([noise(1), noise(2)], axis=-1))
    moved = AFFINE.copy()
    moved[0, 3] += 7
    nifti(tmp_path / "labels" / "P2_1.nii.gz", box(), moved)
    coarse = AFFINE @ np.diag([4 / 3, 1, 1, 1])
    nifti(tmp_path / "labels" / "P0_1.nii.gz", box(1, (9, 10, 6)), coarse)
    manifest = find(tmp_path)
    with pytest.raises(InputError, match=r"case P1_1: .*found 2 channel\(s\), expected 1"):
        read_image(manifest.named("P1_1"), manifest)
    for case, told in (
        ("P2_1", r"case P2_1: .*7\.00 mm"),
        ("P0_1", r"case P0_1: .*\(9, 10, 6\) instead of \(12, 10, 6\)"),
    ):
        image = read_image(manifest.named(case), manifest)
        with pytest.raises(InputError, match=told):
            read_label(manifest.named(case), manifest, image.grid)


def test_undeclared_value_names_case_and_file(tmp_path):
    pairs(tmp_path)
    found = find(tmp_path)
    nifti(tmp_path / "labels" / "P1_1.nii.gz", box(9))
    with pytest.raises(LabelError, match=r"case P1_1: .*P1_1\.nii\.gz.*undeclared label values 9"):
        read_label(found.named("P1_1"), found)
    assert isinstance(found, Manifest)
    assert found.mapping == LabelMapping()


def test_a_series_in_a_folder_named_like_every_other_takes_the_patient_folder_s_name(real_data):
    assert [c.id for c in find(real_data / "chaos_ct" / "DICOM_anon")] == ["chaos_ct"]
    assert [c.id for c in find(real_data / "hippocampus_dicom")] == ["hippocampus_dicom"]
