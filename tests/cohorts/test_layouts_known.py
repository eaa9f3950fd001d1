"""Layouts of known collections: real data where it is at hand, else files imitated faithfully."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.cohorts.imitate import (
    SHAPE,
    analyze_big_endian_4d,
    box,
    dicom_series,
    nifti,
    noise,
    slices,
)

from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.reading import read_image, read_label
from delineate.core.errors import LayoutError, UsageError
from delineate.extend import LAYOUTS


def kinds(found, severity="error"):
    return {(f.case, f.kind) for f in found.findings if f.severity == severity}


def counts(case, manifest):
    label = read_label(case, manifest, read_image(case, manifest).grid)
    return {
        manifest.labels.names[manifest.labels.values.index(v)]: int((label.array == v).sum())
        for v in np.unique(label.array)
        if v
    }


# ---- Decathlon ----


def decathlon(root, cases=("a_01", "a_02"), **more):
    for n, case in enumerate(cases):
        nifti(root / "imagesTr" / f"{case}.nii.gz", noise(n))
        nifti(root / "labelsTr" / f"{case}.nii.gz", box(1 + n % 2))
    data = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases
        ],
        "test": [],
        **more,
    }
    (root / "dataset.json").write_text(json.dumps(data))


def test_decathlon_real(real_data):
    manifest = find(real_data / "hippocampus")
    assert (manifest.layout, len(manifest), manifest.modality) == ("decathlon", 208, "MR")
    assert manifest.labels.names == ["Anterior", "Posterior"]
    case = manifest.named("hippocampus_001")
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    assert image.array.shape == (1, 35, 51, 35)
    assert (label.unit, label.array.dtype, label.array.shape) == ("label", np.uint8, (35, 51, 35))


def test_decathlon_with_test_cases_and_missing_files(tmp_path):
    decathlon(
        tmp_path,
        ("a_01", "a_02", "a_03"),
        test=["./imagesTs/a_09.nii.gz", "./imagesTs/gone.nii.gz"],
    )
    nifti(tmp_path / "imagesTs" / "a_09.nii.gz", noise(9))
    (tmp_path / "imagesTr" / "a_01.nii.gz").unlink()
    (tmp_path / "labelsTr" / "a_02.nii.gz").unlink()
    (tmp_path / "imagesTr" / "._a_03.nii.gz").write_bytes(b"left by a file manager")
    found = discover(tmp_path)
    assert [(c.id, len(c.label), c.split) for c in found.manifest] == [
        ("a_02", 0, None),
        ("a_03", 1, None),
        ("a_09", 0, "test"),
    ]
    assert kinds(found) == {("a_01", "missing"), ("a_02", "missing")}


def test_decathlon_channels_in_one_file(tmp_path):
    decathlon(tmp_path, modality={"0": "FLAIR", "1": "T1w"})
    for n, case in enumerate(("a_01", "a_02")):
        nifti(
            tmp_path / "imagesTr" / f"{case}.nii.gz", np.stack([noise(n), noise(n + 10)], axis=-1)
        )
    manifest = find(tmp_path)
    assert manifest.channels == ("FLAIR", "T1w")
    assert len(manifest.cases[0].images) == 1
    image = read_image(manifest.cases[0], manifest)
    assert np.array_equal(image.array, np.stack([noise(0), noise(10)]))


# ---- nnU-Net raw ----


def nnunet(root, ending=".nii.gz", labels=None, version=2):
    for n, case in enumerate(("la_003", "la_007")):
        for channel in range(2):
            nifti(root / "imagesTr" / f"{case}_{channel:04d}{ending}", noise(10 * n + channel))
        nifti(root / "labelsTr" / f"{case}{ending}", box(1 + n))
    nifti(root / "imagesTs" / f"la_009_0000{ending}", noise(90))
    nifti(root / "imagesTs" / f"la_009_0001{ending}", noise(91))
    data = {
        2: {
            "channel_names": {"0": "CT", "1": "PET"},
            "labels": {"background": 0, "liver": 1, "tumour": 2},
            "numTraining": 2,
            "file_ending": ending,
        },
        1: {
            "modality": {"0": "CT", "1": "PET"},
            "labels": {"0": "background", "1": "liver", "2": "tumour"},
            "numTraining": 2,
            "training": [
                {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
                for c in ("la_003", "la_007")
            ],
        },
    }[version]
    (root / "dataset.json").write_text(json.dumps(data | ({"labels": labels} if labels else {})))


@pytest.mark.parametrize(("ending", "version"), [(".nii.gz", 2), (".nii", 2), (".nii.gz", 1)])
def test_nnunet_raw(tmp_path, ending, version):
    nnunet(tmp_path, ending, version=version)
    manifest = find(tmp_path)
    assert manifest.layout == "nnunet-raw"
    assert manifest.channels == ("CT", "PET")
    assert manifest.labels.names == ["liver", "tumour"]
    assert [(c.id, c.split, len(c.label)) for c in manifest] == [
        ("la_003", None, 1),
        ("la_007", None, 1),
        ("la_009", "test", 0),
    ]
    assert np.array_equal(
        read_image(manifest.cases[1], manifest).array, np.stack([noise(10), noise(11)])
    )
    assert counts(manifest.cases[1], manifest) == {"tumour": 27}


def test_nnunet_raw_missing_channel_and_unpaired(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "imagesTr" / "la_003_0001.nii.gz").unlink()
    nifti(tmp_path / "labelsTr" / "la_050.nii.gz", box())
    (tmp_path / "labelsTr" / "la_007.nii.gz").unlink()
    found = discover(tmp_path)
    assert kinds(found) >= {("la_003", "missing"), ("la_050", "unpaired")}
    assert ("la_007", "unpaired") in kinds(found, "warning")
    assert [c.id for c in found.manifest] == ["la_007", "la_009"]


def test_nnunet_regions_overlap_unless_plain_values_are_chosen(tmp_path):
    nnunet(tmp_path, labels={"background": 0, "whole": [1, 2], "core": [2]})
    found = find(tmp_path)
    assert found.labels.overlapping and [b.parts for b in found.labels] == [(1, 2), (2,)]
    assert not found.labels.can_be_painted and found.labels.values == [3, 4]
    label = read_label(found.cases[1], found)
    assert int(found.labels.inside(label.array, found.labels.named("core")).sum()) == 27
    (tmp_path / "l.yaml").write_text("core: 2\n")
    assert counts(*(lambda m: (m.cases[1], m))(find(tmp_path, labels=tmp_path / "l.yaml"))) == {
        "core": 27
    }


# ---- one folder a case ----


def test_brats_real(real_data):
    found = discover(real_data / "brats2013")
    manifest = found.manifest
    assert (manifest.layout, manifest.channels, manifest.modality) == (
        "modality-files",
        ("Flair", "T1c"),
        "MR",
    )
    assert manifest.patients == [f"brats_2013_pat000{n}" for n in (3, 4, 5, 6)]
    assert manifest.labels.values == [1, 2, 3, 4]
    assert any("brainmask" in f.message for f in found.findings)
    case = manifest.cases[0]
    image = read_image(case, manifest)
    assert image.array.shape == (2, 240, 240, 155)
    assert set(np.unique(read_label(case, manifest, image.grid).array)) <= {0, 1, 2, 3, 4}


def test_brats_2020_style_and_a_missing_modality(tmp_path):
    for n in range(1, 4):
        folder = tmp_path / f"BraTS20_Training_{n:03d}"
        for m, key in enumerate(("flair", "t1", "t1ce", "t2")):
            nifti(folder / f"{folder.name}_{key}.nii.gz", noise(10 * n + m))
        nifti(folder / f"{folder.name}_seg.nii.gz", box((1, 2, 4)[n - 1]))
    (tmp_path / "BraTS20_Training_002" / "BraTS20_Training_002_t1ce.nii.gz").unlink()
    found = discover(tmp_path)
    assert found.manifest.channels == ("flair", "t1", "t1ce", "t2")
    assert [c.id for c in found.manifest] == ["BraTS20_Training_001", "BraTS20_Training_003"]
    assert kinds(found) == {("BraTS20_Training_002", "missing")}
    assert found.manifest.labels.names == [
        "necrotic and non-enhancing tumour core",
        "enhancing tumour",
    ]


def totalsegmentator(root):
    for n in range(3):
        folder = root / f"s{n:04d}"
        nifti(folder / "ct.nii.gz", noise(n))
        nifti(folder / "segmentations" / "liver.nii.gz", box(1))
        if n:
            nifti(folder / "segmentations" / "kidney_left.nii.gz", box(1, at=(8, 3, 1)))
    (root / "meta.csv").write_text(
        "image_id;age;split\ns0000;60;train\ns0001;61;val\ns0002;62;test\n"
    )


def test_totalsegmentator(tmp_path):
    totalsegmentator(tmp_path)
    manifest = find(tmp_path)
    assert (manifest.layout, manifest.modality, manifest.labels.names) == (
        "totalsegmentator",
        "CT",
        ["kidney_left", "liver"],
    )
    assert [c.split for c in manifest] == ["train", "val", "test"]
    assert counts(manifest.cases[0], manifest) == {"liver": 27}
    assert counts(manifest.cases[2], manifest) == {"kidney_left": 27, "liver": 27}


def test_totalsegmentator_overlap_goes_to_the_later_structure(tmp_path):
    totalsegmentator(tmp_path)
    nifti(tmp_path / "s0001" / "segmentations" / "kidney_left.nii.gz", box(1, at=(4, 3, 1)))
    manifest = find(tmp_path)
    assert counts(manifest.named("s0001"), manifest) == {"kidney_left": 18, "liver": 27}


def test_totalsegmentator_case_without_image(tmp_path):
    totalsegmentator(tmp_path)
    (tmp_path / "s0001" / "ct.nii.gz").unlink()
    found = discover(tmp_path)
    assert kinds(found) == {("s0001", "missing")}
    assert [c.id for c in found.manifest] == ["s0000", "s0002"]


# ---- DICOM trees ----


def test_chaos_ct_real(real_data):
    manifest = find(real_data / "chaos_ct")
    assert (manifest.layout, manifest.modality, manifest.labels.names) == ("chaos", "CT", ["liver"])
    case = manifest.cases[0]
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    assert image.array.shape == (1, 512, 512, 78)
    assert image.grid.spacing_mm[2] == pytest.approx(2.0)  # the gap, not SliceThickness 3.2
    assert label.grid == image.grid
    inside = image.array[0][label.array == 1]
    # Enhanced liver in HU: fails when the slices stand in the wrong order.
    assert 60 < np.median(inside) < 160


def chaos_mr(root, patients=("1", "2")):
    truth = box(63) + box(126, at=(8, 3, 1)) + box(252, at=(8, 6, 1))
    for n, patient in enumerate(patients):
        for phase, seed in (("InPhase", 0), ("OutPhase", 1)):
            dicom_series(
                root / patient / "T1DUAL" / "DICOM_anon" / phase, noise(2 * n + seed), modality="MR"
            )
        slices(root / patient / "T1DUAL" / "Ground", truth)
        dicom_series(
            root / patient / "T2SPIR" / "DICOM_anon", noise(50 + n, (9, 8, 4)), modality="MR"
        )
        slices(root / patient / "T2SPIR" / "Ground", box(189, (9, 8, 4)))


def test_chaos_mr(tmp_path):
    chaos_mr(tmp_path)
    found = discover(tmp_path)
    manifest = found.manifest
    assert (manifest.layout, manifest.channels, manifest.modality) == (
        "chaos-mr",
        ("T1DUAL InPhase", "T1DUAL OutPhase"),
        "MR",
    )
    assert manifest.labels.names == ["liver", "right kidney", "left kidney", "spleen"]
    assert read_image(manifest.cases[0], manifest).array.shape == (2, *SHAPE)
    assert counts(manifest.cases[0], manifest) == {"liver": 27, "right kidney": 27, "spleen": 27}
    assert any(f.kind == "unused" and "T2SPIR" in f.message for f in found.findings)


def test_chaos_mr_other_sequences_on_request(tmp_path):
    chaos_mr(tmp_path)
    inphase = find(tmp_path, layout="chaos-mr-inphase")
    assert inphase.channels == ("T1DUAL InPhase",)
    t2 = find(tmp_path, layout="chaos-mr-t2")
    assert (t2.channels, t2.patients) == (("T2SPIR",), ["1", "2"])
    assert counts(t2.cases[0], t2) == {"left kidney": 27}


def test_chaos_mr_without_out_of_phase(tmp_path):
    chaos_mr(tmp_path)
    for path in (tmp_path / "2" / "T1DUAL" / "DICOM_anon" / "OutPhase").iterdir():
        path.unlink()
    found = discover(tmp_path)
    assert kinds(found) == {("2", "missing")}
    assert [c.id for c in found.manifest] == ["1"]


def test_chaos_tree_with_grey_ranges_and_slices_against_names(tmp_path):
    """PATIENT/DICOM_anon + PATIENT/Ground with the grey values of CHAOS MR: file names run against
    z.
    """
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:4, 1:4, 0:2], truth[6:8, 5:7, 4:6] = 63, 252
    for patient in ("P1", "P2"):
        folder = dicom_series(tmp_path / patient / "DICOM_anon", noise(1), name="tmp{n:04d}.dcm")
        for k, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"i{99 - k:04d}.dcm")
        slices(tmp_path / patient / "Ground", truth[:, :, ::-1])
    manifest = find(tmp_path)
    assert manifest.labels.names == ["liver", "right kidney", "left kidney", "spleen"]
    case = manifest.cases[0]
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    assert np.array_equal(image.array[0], noise(1))
    assert np.array_equal(label.array == 1, truth == 63)
    assert np.array_equal(label.array == 4, truth == 252)


def test_chaos_truth_with_too_few_slices_names_the_case(tmp_path):
    for patient in ("P1", "P2"):
        dicom_series(tmp_path / patient / "DICOM_anon", noise(1))
        slices(tmp_path / patient / "Ground", box(255))
    (tmp_path / "P2" / "Ground" / "slice_003.png").unlink()
    manifest = find(tmp_path)
    with pytest.raises(Exception, match=r"case P2.*5 slices.*6 slices"):
        read_label(manifest.named("P2"), manifest)


@pytest.mark.parametrize("nested", [False, True])
def test_ircad(tmp_path, nested):
    for n in (1, 2):
        folder = tmp_path / f"3Dircadb1.{n}"
        inner = ("PATIENT_DICOM", "MASKS_DICOM") if nested else ("", "")
        dicom_series(folder / "PATIENT_DICOM" / inner[0], noise(n), name="image_{n}")
        dicom_series(folder / "MASKS_DICOM" / inner[1] / "liver", box(255), name="image_{n}")
        if n == 2:
            dicom_series(
                folder / "MASKS_DICOM" / inner[1] / "leftkidney",
                box(255, at=(8, 3, 1)),
                name="image_{n}",
            )
    manifest = find(tmp_path)
    assert (manifest.layout, manifest.modality, manifest.patients) == (
        "3d-ircadb",
        "CT",
        ["3Dircadb1.1", "3Dircadb1.2"],
    )
    assert manifest.labels.names == ["left kidney", "liver"]
    assert manifest.labels.named("left kidney").side == "left"
    assert counts(manifest.cases[1], manifest) == {"left kidney": 27, "liver": 27}


def test_ircad_one_patient_without_masks(tmp_path):
    dicom_series(tmp_path / "PATIENT_DICOM", noise(1), name="image_{n}")
    found = discover(tmp_path)
    assert len(found.manifest) == 1
    assert kinds(found, "warning") == {(tmp_path.name, "unpaired")}


@pytest.mark.parametrize("disc", ["", "disc1"])
def test_oasis1(tmp_path, disc):
    truth = box(1) + box(2, at=(6, 3, 1)) + box(3, at=(6, 6, 1))
    for scan in ("OAS1_0001_MR1", "OAS1_0001_MR2", "OAS1_0002_MR1"):
        base = tmp_path / disc / scan
        analyze_big_endian_4d(
            base / "PROCESSED/MPRAGE/T88_111" / f"{scan}_mpr_n4_anon_111_t88_masked_gfc.img",
            noise(1),
        )
        analyze_big_endian_4d(
            base / "PROCESSED/MPRAGE/T88_111" / f"{scan}_mpr_n4_anon_111_t88_gfc.img", noise(2)
        )
        analyze_big_endian_4d(
            base / "FSL_SEG" / f"{scan}_mpr_n4_anon_111_t88_masked_gfc_fseg.img", truth
        )
    (tmp_path / disc / "OAS1_0003_MR1" / "PROCESSED").mkdir(parents=True)
    found = discover(tmp_path)
    manifest = found.manifest
    assert (manifest.layout, manifest.patients, len(manifest)) == (
        "oasis-1",
        ["OAS1_0001", "OAS1_0002"],
        3,
    )
    assert kinds(found) == {("OAS1_0003_MR1", "missing")}
    assert counts(manifest.cases[0], manifest) == {"CSF": 27, "grey matter": 27, "white matter": 27}
    assert sorted(np.unique(read_image(manifest.cases[0], manifest).array)) == sorted(
        np.unique(noise(1))
    )


def test_an_unknown_layout_name_lists_what_there_is(tmp_path):
    with pytest.raises(UsageError, match=r"decathlon"):
        find(tmp_path, layout="nonsense")
    decathlon(tmp_path)
    with pytest.raises(LayoutError, match=r"does not have the layout oasis-1"):
        find(tmp_path, layout="oasis-1")


ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([\w-]+)` \| ([^|]+) \| (\d+) \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.M)


def test_every_layout_has_rows_in_the_documentation_and_each_row_a_test():
    text = (ROOT / "docs" / "reference" / "layouts.md").read_text(encoding="utf-8")
    tree, _, tested = text.partition("## What each layout was tested on")
    rows = ROW.findall(tested)
    assert tested.count("\n| `") == len(rows) >= 30
    own = {name for name in LAYOUTS.names() if LAYOUTS.is_own(name)}
    assert own == {name for name, *_ in rows}
    assert [n for n in own if f"`{n}`" not in tree and f"--layout {n}`" not in tree] == []
    for name, files, _, path, test in rows:
        assert files.startswith(("real: ", "imitated")), name
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), (name, test)
