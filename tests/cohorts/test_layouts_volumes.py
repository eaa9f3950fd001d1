"""Layouts of public volume collections, imitated: names, formats, values and files next to them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.cohorts.imitate import AFFINE, SHAPE, box, grow, mhd, nifti, noise, png

from delineate.cohorts.discovery.account import account_for
from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_image, read_label
from delineate.core.errors import GeometryError, LayoutError
from delineate.extend.findings import DiscoveredCohort


def found_in(root: Path, layout: str, errors: int = 0) -> DiscoveredCohort:
    """The cohort, which must have this layout; every case can be read and every file has a use or a
    reason."""
    found = discover(root)
    manifest = found.manifest
    assert manifest.layout == layout
    problems = [f for f in found.findings if f.severity == "error"]
    assert len(problems) == errors, problems
    for case in manifest:
        image = read_image(case, manifest)
        assert len(image.array) == len(manifest.channels)
        if case.label:
            assert read_label(case, manifest, image.grid).array.any()
    groups = account_for(manifest, found.settings)
    files = [p for p in root.rglob("*") if p.is_file()]
    assert sum(group.count for group in groups) == len(files)
    assert all(group.use or group.why != "an unknown kind" for group in groups), groups
    return found


def rows(found: DiscoveredCohort) -> list[tuple]:
    """id, patient, group, split and number of masks of each case."""
    return [(c.id, c.patient, c.group, c.split, len(c.label)) for c in found.manifest]


def names(found: DiscoveredCohort) -> dict[int, str]:
    return dict(zip(found.manifest.labels.values, found.manifest.labels.names, strict=True))


def says(found: DiscoveredCohort, kind: str, words: str) -> bool:
    return any(f.kind == kind and words in f.message for f in found.findings)


# ---- heart ----


def test_acdc(tmp_path):
    for n, (folder, group) in enumerate(
        [("training", "DCM"), ("training", "NOR"), ("testing", "DCM")]
    ):
        case = f"patient{n + 1:03d}"
        place = tmp_path / "database" / folder / case
        frames = f"{case}_frame01 {case}_frame12".split()
        grow(
            place,
            " ".join(f"{f}.nii.gz" for f in frames),
            " ".join(f"{f}_gt.nii.gz" for f in frames),
            (1, 2, 3),
        )
        nifti(place / f"{case}_4d.nii.gz", np.stack([noise(k) for k in range(3)], -1))
        (place / "Info.cfg").write_text(
            f"ED: 1\nES: 12\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\n"
        )
        (place / "MANDATORY_CITATION.md").write_text("cite")
    found = found_in(tmp_path, "acdc")
    assert rows(found)[::2] == [
        ("patient001_frame01", "patient001", "DCM", None, 1),
        ("patient002_frame01", "patient002", "NOR", None, 1),
        ("patient003_frame01", "patient003", "DCM", "test", 1),
    ]
    assert names(found) == {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    assert found.manifest.modality == "MR" and says(found, "unused", "4d")
    assert len(found.settings) == 3


def test_mms2(tmp_path):
    for case in ("001", "002"):
        views = [f"{case}/{case}_{v}_{f}" for v in ("SA", "LA") for f in ("ED", "ES")]
        grow(
            tmp_path / "dataset",
            " ".join(f"{v}.nii.gz" for v in views),
            " ".join(f"{v}_gt.nii.gz" for v in views),
            (1, 2, 3),
        )
    found = found_in(tmp_path, "mms2")
    assert [r[:2] for r in rows(found)] == [
        ("001_SA_ED", "001"),
        ("001_SA_ES", "001"),
        ("002_SA_ED", "002"),
        ("002_SA_ES", "002"),
    ]
    assert names(found)[1] == "left ventricle"
    assert says(found, "unused", "--layout mms2-la")
    other = discover(tmp_path / "dataset", layout="mms2-la").manifest
    assert [case.id for case in other][:2] == ["001_LA_ED", "001_LA_ES"] and len(other) == 4


def test_mm_whs(tmp_path):
    for kind in ("ct", "mr"):
        base = f"{kind}_train/{kind}_train_1001"
        grow(
            tmp_path / kind,
            f"{base}_image.nii.gz {kind}_test/{kind}_test_2001_image.nii.gz",
            f"{base}_label.nii.gz",
            (205, 420, 500, 550, 600, 820, 850),
        )
        found = found_in(tmp_path / kind, f"mm-whs-{kind}")
        assert rows(found) == [
            (f"{kind}_train_1001", f"{kind}_train_1001", "", None, 1),
            (f"{kind}_test_2001", f"{kind}_test_2001", "", "test", 0),
        ]
        assert found.manifest.modality == kind.upper() and names(found)[500] == "left ventricle"


def test_atria_2018(tmp_path):
    for case in ("0RZDK210BSMWAA6467LU", "4DU3YSZ9BVIL0ZKOL8O3"):
        grow(tmp_path / "Training Set" / case, "lgemri.nrrd", "laendo.nrrd lawall.nrrd", (255,))
    found = found_in(tmp_path, "atria-2018")
    assert names(found) == {1: "left atrium"} and len(found.manifest.patients) == 2


# ---- abdomen ----


def test_kits(tmp_path):
    for n in range(3):
        case = tmp_path / "dataset" / f"case_{n:05d}"
        grow(case, "imaging.nii.gz", "segmentation.nii.gz", (1, 2, 3))
        grow(case, "", "instances/kidney_instance-1_annotation-1.nii.gz")
    grow(tmp_path / "dataset", "case_00300/imaging.nii.gz")
    (tmp_path / "dataset" / "kits23.json").write_text("[]")
    found = found_in(tmp_path, "kits")
    assert names(found) == {1: "kidney", 2: "kidney tumour", 3: "kidney cyst"}
    assert [r[0] for r in rows(found) if not r[4]] == ["case_00300"]
    assert says(found, "unpaired", "case_00300")


def test_lits(tmp_path):
    for n in range(4):
        grow(
            tmp_path / f"Training Batch {1 + n // 2}",
            f"volume-{n}.nii",
            f"segmentation-{n}.nii",
            (1, 2),
        )
    grow(tmp_path / "Test Batch", "test-volume-0.nii")
    found = found_in(tmp_path, "lits")
    assert rows(found)[:-1] == [
        ("volume-0", "volume-0", "Batch 1", None, 1),
        ("volume-1", "volume-1", "Batch 1", None, 1),
        ("volume-2", "volume-2", "Batch 2", None, 1),
        ("volume-3", "volume-3", "Batch 2", None, 1),
    ]
    assert rows(found)[-1] == ("test-volume-0", "test-volume-0", "Batch", "test", 0)
    assert names(found) == {1: "liver", 2: "liver tumour"}


def test_btcv(tmp_path):
    grow(
        tmp_path / "RawData",
        "Training/img/img0001.nii.gz Training/img/img0002.nii.gz Testing/img/img0061.nii.gz",
        "Training/label/label0001.nii.gz Training/label/label0002.nii.gz",
        tuple(range(1, 14)),
    )
    found = found_in(tmp_path, "btcv")
    assert [(r[0], r[3], r[4]) for r in rows(found)] == [
        ("img0001", None, 1),
        ("img0002", None, 1),
        ("img0061", "test", 0),
    ]
    assert names(found)[6] == "liver" and names(found)[13] == "left adrenal gland"


def test_flare(tmp_path):
    grow(
        tmp_path / "22" / "FLARE22_LabeledCase50",
        "images/FLARE22_Tr_0001_0000.nii.gz images/FLARE22_Tr_0002_0000.nii.gz",
        "labels/FLARE22_Tr_0001.nii.gz labels/FLARE22_Tr_0002.nii.gz",
        tuple(range(1, 14)),
    )
    found = found_in(tmp_path / "22", "flare")
    assert names(found)[13] == "left kidney" and len(found.manifest) == 2
    grow(
        tmp_path / "21",
        "TrainingImg/train_000_0000.nii.gz ValidationImg/val_001_0000.nii.gz",
        "TrainingMask/train_000.nii.gz",
        (1, 2, 3, 4),
    )
    found = found_in(tmp_path / "21", "flare")
    assert [(r[0], r[3]) for r in rows(found)] == [("train_000", None), ("val_001", "val")]
    assert names(found) == {1: "liver", 2: "kidney", 3: "spleen", 4: "pancreas"}


def test_abdomenct_1k(tmp_path):
    grow(
        tmp_path,
        "AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz "
        "AbdomenCT-1K-ImagePart2/Case_00301_0000.nii.gz",
        "Mask/Case_00001.nii.gz Mask/Case_00301.nii.gz",
        (1, 2, 3, 4),
    )
    found = found_in(tmp_path, "abdomenct-1k")
    assert [r[0] for r in rows(found)] == ["Case_00001", "Case_00301"]


def test_promise12(tmp_path):
    for part, n in (("TrainingData_Part1", 0), ("TrainingData_Part2", 25), ("TestData", 30)):
        mhd(tmp_path / part / f"Case{n:02d}.mhd", noise(n))
        if part != "TestData":
            mhd(tmp_path / part / f"Case{n:02d}_segmentation.mhd", box().astype(np.int8))
    found = found_in(tmp_path, "promise12")
    assert [(r[0], r[3], r[4]) for r in rows(found)] == [
        ("Case00", None, 1),
        ("Case25", None, 1),
        ("Case30", "test", 0),
    ]
    assert names(found) == {1: "prostate"}


# ---- thorax, head and neck ----


def test_luna16(tmp_path):
    for n in range(4):
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.1050{n}"
        mhd(tmp_path / f"subset{n // 2}" / f"{uid}.mhd", noise(n))
        mask = box(3) + box(4, at=(6, 3, 1)) + box(5, at=(9, 7, 1), size=2)
        mhd(tmp_path / "seg-lungs-LUNA16" / f"{uid}.mhd", mask, packed=True)
    mhd(tmp_path / "seg-lungs-LUNA16" / "1.3.6.1.9.mhd", mask, packed=True)
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    found = found_in(tmp_path, "luna16", errors=1)  # the mask without a scan
    assert Counter(r[2] for r in rows(found)) == {"subset0": 2, "subset1": 2}
    assert names(found) == {3: "lung (3)", 4: "lung (4)", 5: "trachea"}
    assert found.manifest.modality == "CT"


def test_segthor(tmp_path):
    for n in (1, 2):
        grow(
            tmp_path / "train" / f"Patient_{n:02d}",
            f"Patient_{n:02d}.nii.gz",
            "GT.nii.gz",
            (1, 2, 3, 4),
        )
    grow(tmp_path / "test", "Patient_41.nii.gz")
    found = found_in(tmp_path, "segthor")
    assert names(found) == {1: "oesophagus", 2: "heart", 3: "trachea", 4: "aorta"}
    assert [r[0] for r in rows(found)] == ["Patient_01", "Patient_02"]


def test_hecktor(tmp_path):
    cases = ["CHUM-001", "CHUP-002", "MDA-003"]
    grow(
        tmp_path / "22",
        " ".join(f"imagesTr/{c}__{m}.nii.gz" for c in cases for m in ("CT", "PT"))
        + " imagesTs/MDA-400__CT.nii.gz imagesTs/MDA-400__PT.nii.gz",
        " ".join(f"labelsTr/{c}.nii.gz" for c in cases),
        (1, 2),
    )
    found = found_in(tmp_path / "22", "hecktor")
    assert found.manifest.channels == ("CT", "PET")
    assert [(r[0], r[2], r[3]) for r in rows(found)] == [
        ("CHUM-001", "CHUM", None),
        ("CHUP-002", "CHUP", None),
        ("MDA-003", "MDA", None),
        ("MDA-400", "MDA", "test"),
    ]
    assert names(found) == {1: "primary tumour", 2: "lymph nodes"}
    grow(
        tmp_path / "21",
        "hecktor_nii/CHGJ007_ct.nii.gz hecktor_nii/CHGJ007_pt.nii.gz",
        "hecktor_nii/CHGJ007_gtvt.nii.gz",
    )
    found = found_in(tmp_path / "21", "hecktor")
    assert names(found) == {1: "primary tumour"}


# ---- brain lesions ----


def test_hecktor_resamples_pet_to_the_grid_of_ct(tmp_path):
    """A ramp along each axis in mm is the same ramp on another grid, wherever PET has values."""
    finer = AFFINE @ np.diag([0.5, 0.5, 1, 1])
    finer[:3, 3] = AFFINE[:3, 3] - 1.5
    shape = (34, 30, 9)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    ramp = (points @ finer[:3, :3].T + finer[:3, 3]) @ [1.0, 2.0, 3.0] + 500
    for case in ("CHUM-001", "CHUM-002"):
        grow(tmp_path, f"imagesTr/{case}__CT.nii.gz", f"labelsTr/{case}.nii.gz", (1, 2))
        nifti(tmp_path / "imagesTr" / f"{case}__PT.nii.gz", ramp.astype(np.float32), finer)
    found = found_in(tmp_path, "hecktor")
    image = read_image(found.manifest.cases[0], found.manifest)
    points = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    expected = (points @ AFFINE[:3, :3].T + AFFINE[:3, 3]) @ [1.0, 2.0, 3.0] + 500
    inside = image.array[1] > 0
    assert inside.mean() > 0.5 and np.abs(image.array[1] - expected)[inside].max() < 0.01
    assert image.meta["resampled"] == 1
    # A channel of the same shape elsewhere, or elsewhere altogether, is an error as before.
    far = AFFINE.copy()
    far[0, 3] += 500
    nifti(tmp_path / "imagesTr" / "CHUM-001__PT.nii.gz", ramp.astype(np.float32), far)
    with pytest.raises(GeometryError, match="not on the grid of channel CT"):
        read_image(found.manifest.cases[0], found.manifest)


def test_atlas_2(tmp_path):
    for site, subject, ses in (
        ("R001", "sub-r001s001", "ses-1"),
        ("R002", "sub-r002s001", "ses-1"),
        ("R002", "sub-r002s001", "ses-2"),
    ):
        base = f"{site}/{subject}/{ses}/anat/{subject}_{ses}_space-MNI152NLin2009aSym"
        grow(
            tmp_path / "Training", f"{base}_T1w.nii.gz", f"{base}_label-L_desc-T1lesion_mask.nii.gz"
        )
    base = "R100/sub-r100s1/ses-1/anat/sub-r100s1_ses-1_space-MNI152NLin2009aSym"
    grow(tmp_path / "Testing", f"{base}_T1w.nii.gz")
    (tmp_path / "dataset_description.json").write_text('{"Name": "ATLAS"}')
    found = found_in(tmp_path, "atlas-2")
    assert [r[1:4] for r in rows(found) if r[3] is None] == [
        ("sub-r001s001", "R001", None),
        ("sub-r002s001", "R002", None),
        ("sub-r002s001", "R002", None),
    ]
    assert rows(found)[-1][2:] == ("R100", "test", 0) and names(found) == {1: "stroke lesion"}


def test_isles_2022(tmp_path):
    for n in (1, 2):
        s, ses = f"sub-strokecase{n:04d}", "ses-0001"
        grow(
            tmp_path,
            f"{s}/{ses}/dwi/{s}_{ses}_dwi.nii.gz {s}/{ses}/dwi/{s}_{ses}_adc.nii.gz "
            f"{s}/{ses}/anat/{s}_{ses}_FLAIR.nii.gz",
            f"derivatives/{s}/{ses}/{s}_{ses}_msk.nii.gz",
        )
        (tmp_path / s / ses / "dwi" / f"{s}_{ses}_dwi.json").write_text("{}")
        # FLAIR has a grid of its own: thicker slices of the same head.
        thick = AFFINE @ np.diag([1, 1, 2, 1])
        flair = tmp_path / s / ses / "anat" / f"{s}_{ses}_FLAIR.nii.gz"
        nifti(flair, noise(n, (*SHAPE[:2], SHAPE[2] // 2)), thick)
    found = found_in(tmp_path, "isles-2022")
    assert found.manifest.channels == ("DWI", "ADC", "FLAIR")
    image = read_image(found.manifest.cases[0], found.manifest)
    assert image.array.shape == (3, *SHAPE) and image.meta["resampled"] == 1
    assert rows(found)[0][:2] == ("sub-strokecase0001_ses-0001", "sub-strokecase0001")


def test_msseg_2016(tmp_path):
    for site, n in (("Center_01", 1), ("Center_07", 1)):
        place = tmp_path / "Training" / site / f"Patient_{n:02d}"
        keys = ("FLAIR", "T1", "T2", "DP", "GADO")
        grow(
            place,
            " ".join(
                f"Preprocessed_Data/{k}_preprocessed.nii.gz Raw_Data/{k}.nii.gz" for k in keys
            ),
            "Masks/Consensus.nii.gz Masks/ManualSegmentation_1.nii.gz",
        )
    found = found_in(tmp_path, "msseg-2016")
    assert [(r[0], r[2]) for r in rows(found)] == [
        ("Center_01_Patient_01", "Center_01"),
        ("Center_07_Patient_01", "Center_07"),
    ]
    assert found.manifest.channels == ("FLAIR", "T1", "T1 post-contrast", "T2", "PD")
    assert len(found.manifest.patients) == 2


def test_msseg_2(tmp_path):
    for case in ("013", "015"):
        grow(
            tmp_path / case,
            "flair_time01_on_middle_space.nii.gz flair_time02_on_middle_space.nii.gz",
            "ground_truth.nii.gz ground_truth_expert1.nii.gz",
        )
    found = found_in(tmp_path, "msseg-2")
    assert found.manifest.channels == ("FLAIR baseline", "FLAIR follow-up")
    assert names(found) == {1: "new lesion"}


def test_isbi_ms_2015(tmp_path):
    for visit in ("01", "02"):
        base = f"preprocessed/training01_{visit}"
        grow(
            tmp_path / "training" / "training01",
            " ".join(f"{base}_{k}_pp.nii" for k in ("flair", "mprage", "t2", "pd")),
            f"masks/training01_{visit}_mask1.nii masks/training01_{visit}_mask2.nii",
        )
    found = found_in(tmp_path, "isbi-ms-2015")
    assert [r[:2] for r in rows(found)] == [
        ("training01_01", "training01"),
        ("training01_02", "training01"),
    ]


def test_wmh_2017(tmp_path):
    for site, n in (("Utrecht", 0), ("Singapore", 50), ("Amsterdam/GE3T", 100)):
        grow(
            tmp_path / "training" / site / str(n),
            "pre/FLAIR.nii.gz pre/T1.nii.gz pre/3DT1.nii.gz "
            "orig/FLAIR.nii.gz orig/T1.nii.gz orig/3DT1.nii.gz",
            "wmh.nii.gz",
            (1, 2),
        )
    found = found_in(tmp_path, "wmh-2017")
    assert {(r[0], r[2]) for r in rows(found)} == {
        ("Utrecht_0", "Utrecht"),
        ("Singapore_50", "Singapore"),
        ("GE3T_100", "GE3T"),
    }
    assert names(found) == {1: "white matter hyperintensity", 2: "other pathology"}


def test_brats_2015(tmp_path):
    for grade, case in (
        ("HGG", "brats_2013_pat0001_1"),
        ("HGG", "brats_tcia_pat105_0001"),
        ("LGG", "brats_2013_pat0001_1"),
    ):
        place = tmp_path / "BRATS2015_Training" / grade / case
        keys = ("MR_Flair", "MR_T1", "MR_T1c", "MR_T2")
        grow(
            place,
            " ".join(
                f"VSD.Brain.XX.O.{k}.5451{n}/VSD.Brain.XX.O.{k}.5451{n}.mha"
                for n, k in enumerate(keys)
            ),
            "VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517.mha",
            (1, 2, 3, 4),
        )
        (place / "VSD.Brain.XX.O.MR_T1.54511" / "license_CC_BY_NC_SA_3_0.txt").write_text("licence")
    found = found_in(tmp_path, "brats-2015")
    assert found.manifest.channels == ("FLAIR", "T1", "T1 post-contrast", "T2")
    assert [(r[0], r[2]) for r in rows(found)] == [
        ("HGG_brats_2013_pat0001_1", "HGG"),
        ("HGG_brats_tcia_pat105_0001", "HGG"),
        ("LGG_brats_2013_pat0001_1", "LGG"),
    ]
    assert names(found) == {
        1: "necrosis",
        2: "oedema",
        3: "non-enhancing tumour",
        4: "enhancing tumour",
    }
    assert len(found.manifest.patients) == 3


# ---- spines ----


@pytest.mark.parametrize("year", [2019, 2020])
def test_verse(tmp_path, year):
    names_of = {
        2019: ["sub-verse004/sub-verse004", "sub-verse400/sub-verse400_split-verse253"],
        2020: ["sub-gl003/sub-gl003_dir-ax", "sub-verse500/sub-verse500_dir-sag"],
    }[year]
    root = tmp_path / f"dataset-verse{year - 2000}training"
    for name in names_of:
        grow(root / "rawdata", f"{name}_ct.nii.gz")
        grow(root / "derivatives", "", f"{name}_seg-vert_msk.nii.gz", (1, 8, 20, 28))
        (root / "derivatives" / f"{name}_seg-vb_ctd.json").write_text("[]")
        png(root / "derivatives" / f"{name}_seg-vert_snp.png", noise(1)[:, :, 0].astype("u1"))
    found = found_in(tmp_path, "verse")
    assert [r[0] for r in rows(found)] == [name.split("/")[1] for name in names_of]
    assert [r[1] for r in rows(found)] == [name.split("/")[0] for name in names_of]
    assert names(found) == {
        1: "vertebra C1",
        8: "vertebra T1",
        20: "vertebra L1",
        28: "vertebra T13",
    }


def test_verse_as_one_folder(tmp_path):
    for name in ("verse004", "GL003"):
        grow(tmp_path, f"{name}.nii.gz", f"{name}_seg.nii.gz", (20, 21))
        (tmp_path / f"{name}_ctd.json").write_text("[]")
    assert names(found_in(tmp_path, "verse")) == {20: "vertebra L1", 21: "vertebra L2"}


# ---- FreeSurfer ----


@pytest.mark.parametrize("table", [False, True])
def test_freesurfer(tmp_path, table):
    subjects = ["bert", "s1_tp1", "s1_tp1.long.s1", "s1_tp2.long.s1", "s1", "fsaverage"]
    for subject in subjects:
        volumes = "mri/T1.mgz mri/orig.mgz mri/brainmask.mgz"
        grow(
            tmp_path / subject, volumes, "mri/aparc+aseg.mgz mri/aseg.mgz", (17, 53, 1035), np.uint8
        )
        for side in (
            "surf/lh.white",
            "stats/aseg.stats",
            "label/lh.aparc.annot",
            "touch/x.touch",
            "mri/transforms/talairach.xfm",
            "scripts/recon-all.log",
        ):
            (tmp_path / subject / side).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / subject / side).write_bytes(b"\xff\xff\xfe")
    if table:
        text = "#No. Label Name: R G B A\n0 Unknown 0 0 0 0\n17 Left-Hippo 220 216 20 0\n"
        (tmp_path / "FreeSurferColorLUT.txt").write_text(text)
    found = found_in(tmp_path, "freesurfer")
    assert [r[:2] for r in rows(found)] == [
        ("bert", "bert"),
        ("s1_tp1", "s1"),
        ("s1_tp1.long.s1", "s1"),
        ("s1_tp2.long.s1", "s1"),
    ]
    left = "Left-Hippo" if table else "Left-Hippocampus"
    assert names(found) == {17: left, 53: "Right-Hippocampus", 1035: "ctx-lh-insula"}
    assert found.manifest.cases[0].path.endswith("T1.mgz") and says(found, "unused", "fsaverage")
    assert found.manifest.labels.pairs == ([] if table else [(17, 53)])


# ---- lists and tables ----


def test_amos(tmp_path):
    sides = {"Tr": ["0001", "0004", "0507"], "Va": ["0010", "0510"], "Ts": ["0002"]}
    for side, numbers in sides.items():
        labels = "" if side == "Ts" else " ".join(f"labels{side}/amos_{n}.nii.gz" for n in numbers)
        grow(tmp_path, " ".join(f"images{side}/amos_{n}.nii.gz" for n in numbers), labels, (1, 2))
    pairs = {
        side: [
            {"image": f"./images{side}/amos_{n}.nii.gz", "label": f"./labels{side}/amos_{n}.nii.gz"}
            for n in numbers
        ]
        for side, numbers in sides.items()
    }
    data = {
        "name": "AMOS",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen", "2": "right kidney"},
        "training": pairs["Tr"],
        "validation": pairs["Va"],
        "test": [{"image": pair["image"]} for pair in pairs["Ts"]],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    found = found_in(tmp_path, "amos")
    assert [(r[0], r[2], r[3], r[4]) for r in rows(found)] == [
        ("amos_0001", "CT", "train", 1),
        ("amos_0004", "CT", "train", 1),
        ("amos_0507", "MR", "train", 1),
        ("amos_0010", "CT", "val", 1),
        ("amos_0510", "MR", "val", 1),
        ("amos_0002", "CT", "test", 0),
    ]
    assert found.manifest.modality == "" and says(found, "modality", "2 are MR")


def brats(root, form, keys, values, count=3, mask="seg", mark="_"):
    for n in range(1, count + 1):
        case = form.format(n)
        images = " ".join(f"{case}/{case}{mark}{key}.nii.gz" for key in keys.split())
        grow(root, images, f"{case}/{case}{mark}{mask}.nii.gz", values)


def test_brats_2020_with_grades_and_a_renamed_mask(tmp_path):
    root = tmp_path / "MICCAI_BraTS2020_TrainingData"
    brats(root, "BraTS20_Training_{:03d}", "flair t1 t1ce t2", (1, 2, 4))
    last = root / "BraTS20_Training_003"
    (last / f"{last.name}_seg.nii.gz").rename(last / "W39_1998.09.19_Segm.nii.gz")
    (root / "name_mapping.csv").write_text(
        "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,BraTS19_CBICA_AAB_1,BraTS20_Training_001\nLGG,NA,BraTS20_Training_002\n"
    )
    (root / "survival_info.csv").write_text("Brats20ID,Age\n")
    found = found_in(tmp_path, "modality-files")
    assert [(r[2], r[4]) for r in rows(found)] == [("HGG", 1), ("LGG", 1), ("", 1)]
    assert says(found, "unpaired", "W39_1998.09.19_Segm") and len(found.manifest.patients) == 3
    core = "necrotic and non-enhancing tumour core"
    assert names(found) == {1: core, 2: "oedema", 4: "enhancing tumour"}


@pytest.mark.parametrize(
    ("form", "values", "expected"),
    [
        ("BraTS-GLI-{:05d}-000", (1, 2, 3), ["necrosis", "oedema", "enhancing tumour"]),
        (
            "BraTS-MET-{:05d}-000",
            (1, 2, 3),
            ["non-enhancing tumour core", "oedema", "enhancing tumour"],
        ),
        ("BraTS-GoAT-{:05d}", (1, 2, 3), ["necrosis", "oedema", "enhancing tumour"]),
        # The values of PED changed in 2024; without the fourth, both editions are possible.
        (
            "BraTS-PED-{:05d}-000",
            (1, 2, 3, 4),
            ["enhancing tumour", "non-enhancing tumour", "cyst", "oedema"],
        ),
        ("BraTS-PED-{:05d}-000", (1, 2, 3), ["label 1", "label 2", "label 3"]),
    ],
)
def test_brats_since_2023(tmp_path, form, values, expected):
    root = tmp_path / "ASNR-MICCAI-BraTS2023-Challenge-TrainingData"
    brats(root, form, "t1c t1n t2f t2w", values, mark="-")
    found = found_in(tmp_path, "modality-files")
    assert list(names(found).values()) == expected and len(found.manifest.patients) == 3
    assert says(found, "names", "another meaning in each edition") == ("label 1" in expected)


def test_brats_2021_and_the_meningiomas_of_radiotherapy(tmp_path):
    brats(tmp_path / "a", "BraTS2021_{:05d}", "flair t1 t1ce t2", (1, 2, 4))
    found = found_in(tmp_path / "a", "modality-files")
    assert len(found.manifest.patients) == 3 and names(found)[1] == "necrosis"
    brats(tmp_path / "b", "BraTS-MEN-RT-{:04d}-1", "t1c", (1,), mask="gtv")
    found = found_in(tmp_path / "b", "modality-files")
    assert found.manifest.channels == ("t1c",) and names(found) == {1: "gross tumour volume"}
    assert [r[1] for r in rows(found)] == [
        "BraTS-MEN-RT-0001",
        "BraTS-MEN-RT-0002",
        "BraTS-MEN-RT-0003",
    ]


def test_mms(tmp_path):
    cine = np.stack([noise(k) for k in range(4)], -1)
    mask = np.stack([box() if k in (1, 3) else box() * 0 for k in range(4)], -1)
    for folder, case in (
        ("Training/Labeled", "A0S9V9"),
        ("Training/Labeled", "B3F0V9"),
        ("Testing", "C6U4W8"),
    ):
        nifti(tmp_path / folder / case / f"{case}_sa.nii.gz", cine)
        nifti(tmp_path / folder / case / f"{case}_sa_gt.nii.gz", mask)
    table = tmp_path / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
    with pytest.raises(LayoutError, match="External code, ED and ES"):
        discover(tmp_path, layout="mms")
    table.write_text(
        ",External code,VendorName,Vendor,Centre,ED,ES\n0,A0S9V9,Siemens,A,1,1,3\n"
        "1,B3F0V9,Philips,B,2,1,3\n2,C6U4W8,GE,C,3,1,3\n"
    )
    found = found_in(tmp_path, "mms")
    assert rows(found)[0] == ("A0S9V9_ED", "A0S9V9", "A", None, 1)
    assert rows(found)[-1] == ("C6U4W8_ES", "C6U4W8", "C", "test", 1)
    assert np.array_equal(read_image(found.manifest.cases[1], found.manifest).array[0], noise(3))
    assert names(found) == {1: "left ventricle"}
