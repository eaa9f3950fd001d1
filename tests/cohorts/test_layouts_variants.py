"""Variants of layouts: other names of folders, masks that count objects, further masks, images
without masks, and patients with several scans. Names are those of published collections.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cohorts.imitate import box, dicom_series, grow, nifti, noise
from tests.cohorts.test_layouts_pictures import film, mask, photo, save, sizes
from tests.cohorts.test_layouts_volumes import found_in, names, rows, says

from delineate.cohorts.discovery.drafts import draft
from delineate.cohorts.discovery.layouts import discover, find
from delineate.core.errors import LayoutError


def cells(path: Path, number: int, dtype=np.uint16) -> Path:
    """A picture of ``number`` cells that are numbered from 1, at most 16."""
    array = np.zeros((24, 24), dtype)
    for n in range(number):
        row, column = divmod(n, 4)
        array[1 + 6 * row : 5 + 6 * row, 1 + 6 * column : 5 + 6 * column] = n + 1
    return save(array, path)


def eye(path: Path, disc: int, cup: int, back: int) -> Path:
    array = np.full((16, 16), back, np.uint8)
    array[4:12, 4:12] = disc
    array[6:9, 6:9] = cup
    return save(array, path)


def patients(found) -> int:
    return len(found.manifest.patients)


# ---- names of folders ----


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("{s}/{n}_A.png", "{s}_labels/{n}_A_L.png"),  # CamVid
        ("{s}/Original/{n}_A.png", "{s}/Ground truth/{n}_A.png"),  # FIVES
        ("{s}_im/im000{n}.png", "{s}_label/label000{n}.png"),  # Lucchi
        ("{s}Dataset/images/{n}.png", "{s}Dataset/gts/{n}.png"),
    ],
)
def test_folders_of_a_split_with_other_names(tmp_path, images, labels):
    for n, split in enumerate(("train", "train", "train", "test", "test")):
        photo(tmp_path / images.format(s=split, n=n), n)
        mask(tmp_path / labels.format(s=split, n=n))
    found = found_in(tmp_path, "parallel-folders")
    assert sorted(str(row[3]) for row in rows(found)) == ["None"] * 3 + ["test"] * 2
    assert len(found.manifest.with_truth()) == 5
    assert len(draft(tmp_path).manifest.with_truth()) == 5


def test_jpeg_masks_in_pure_colours_and_a_test_set_without_masks(tmp_path):
    # BKAI-IGH: red and green polyps, saved as JPEG.
    for n in range(4):
        photo(tmp_path / f"train/c{n}a.jpeg", n)
        array = np.zeros((48, 48, 3), np.uint8)
        array[8:24, 8:24] = (255, 0, 0)
        if n % 2:
            array[24:40, 20:40] = (0, 255, 0)
        (tmp_path / "train_gt").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / f"train_gt/c{n}a.jpeg", quality=85)
        save(
            np.random.default_rng(n).integers(0, 255, (48, 48, 3)).astype(np.uint8),
            tmp_path / f"train/c{n}a.jpeg",
        )
    photo(tmp_path / "test/t1.jpeg", 9)
    found = found_in(tmp_path, "parallel-folders")
    assert names(found) == {1: "colour 00ff00", 2: "colour ff0000"}
    assert abs(sizes(found, "c1a")["colour ff0000"] - 256) < 40
    assert abs(sizes(found, "c1a")["colour 00ff00"] - 320) < 40
    assert [row[3:] for row in rows(found)] == [(None, 1)] * 4 + [("test", 0)]
    assert says(found, "values", "JPEG changed")
    assert draft(tmp_path).manifest.labels.names == found.manifest.labels.names


def test_parts_of_a_test_set_are_groups(tmp_path):
    for n in range(3):
        photo(tmp_path / f"TrainDataset/image/{n}.png", n)
        mask(tmp_path / f"TrainDataset/mask/{n}.png")
    for part in ("CVC-300", "Kvasir"):
        photo(tmp_path / f"TestDataset/{part}/images/7.png", ord(part[0]))
        mask(tmp_path / f"TestDataset/{part}/masks/7.png")
    found = found_in(tmp_path, "parallel-folders")
    assert [(row[2], row[3]) for row in rows(found)][3:] == [
        ("CVC-300", "test"),
        ("Kvasir", "test"),
    ]


def test_folders_named_after_structures(tmp_path):
    for n in range(3):
        photo(tmp_path / f"images/N-{n}-L.png", n)
        mask(tmp_path / f"disc/N-{n}-L.png", (4, 4), (4, 7), (7, 4), (7, 7))
        mask(tmp_path / f"cup/N-{n}-L.png", (5, 5))
        film(tmp_path / f"overlay/N-{n}-L.png", n)
    found = discover(tmp_path)
    assert sizes(found, "N-1-L") == {"disc": 27, "cup": 9} and names(found) == {1: "disc", 2: "cup"}
    assert says(found, "unused", "overlay")


def test_a_folder_of_masks_with_several_values_is_no_structure(tmp_path):
    for n in range(3):
        grow(
            tmp_path, f"imagesTr/x_{n}_0000.nii.gz", f"vessel_seg_labelsTr/x_{n}.nii.gz", (1, 2, 3)
        )
        grow(tmp_path, f"other/images/{n}.nii.gz", f"other/vessel/{n}.nii.gz", (1, 2, 3))
    for root in (tmp_path, tmp_path / "other"):
        with pytest.raises(LayoutError, match="draft"):
            find(root)
    assert len(draft(tmp_path / "other").manifest.labels) == 3


def test_labels_in_a_format_that_cannot_be_read_are_named(tmp_path):
    for n in range(2):
        photo(tmp_path / f"Images/train_{n}.png", n)
        (tmp_path / "Labels").mkdir(exist_ok=True)
        (tmp_path / f"Labels/train_{n}.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    found = discover(tmp_path)
    assert says(found, "unpaired", "2 .mat") and not found.manifest.with_truth().cases


# ---- one folder ----


def test_images_with_a_word_of_their_own_and_a_test_set(tmp_path):
    for n in range(3):
        photo(tmp_path / f"train/{n + 10}_sat.jpg", n)
        mask(tmp_path / f"train/{n + 10}_mask.png")
    photo(tmp_path / "test/90_sat.jpg", 9)
    found = found_in(tmp_path, "suffix-pairs")
    assert [row[3:] for row in rows(found)] == [(None, 1)] * 3 + [("test", 0)]


def test_further_masks_of_the_same_images_are_a_note(tmp_path):
    for video in ("video01", "video12"):
        for clip in ("00080", "00160"):
            for n in range(2):
                stem = tmp_path / video / f"{video}_{clip}" / f"frame_{n}_endo"
                photo(stem.with_name(stem.name + ".png"), n + int(clip) + ord(video[-1]))
                for word in ("mask", "color_mask", "watershed_mask"):
                    mask(stem.with_name(f"{stem.name}_{word}.png"), (n, 2), value=11)
    found = discover(tmp_path)
    assert not [f for f in found.findings if f.severity == "error"]
    assert says(found, "unused", "color, watershed")
    # Clips of one video are of one patient, in the draft too.
    assert patients(found) == 2 == len(draft(tmp_path).manifest.patients)
    assert {Path(c.label[0].path).name for c in draft(tmp_path).manifest} == {
        "frame_0_endo_mask.png",
        "frame_1_endo_mask.png",
    }


def test_masks_are_no_images_if_the_names_do_not_pair(tmp_path):
    for n in range(3):
        film(tmp_path / f"a{n}x{n}.png", n)
        mask(tmp_path / f"b{n + 7}y.png")
    with pytest.raises(LayoutError, match=r"no case has a mask, although 3 .* look like masks"):
        find(tmp_path)
    assert len(discover(tmp_path, truth=False).manifest) == 6


# ---- values ----


def test_masks_that_count_objects_have_one_structure(tmp_path):
    for n, number in enumerate((5, 9, 7)):
        film(tmp_path / f"train/{n:03d}_img.png", n)
        save(
            np.random.default_rng(n).integers(1, 250, (24, 24)).astype(np.uint8),
            tmp_path / f"train/{n:03d}_img.png",
        )
        cells(tmp_path / f"train/{n:03d}_masks.png", number)
    found = found_in(tmp_path, "suffix-pairs")
    assert names(found) == {1: "foreground"} and says(found, "values", "count the objects")
    assert sizes(found, "001") == {"foreground": 9 * 16}


@pytest.mark.parametrize("channel", [0, 2])
def test_shades_of_one_colour_that_count_objects_have_one_structure(tmp_path, channel):
    for n, number in enumerate((5, 9, 7)):
        picture = np.random.default_rng(n).integers(1, 250, (24, 24))
        save(picture.astype(np.uint8), tmp_path / f"images/{n}.png")
        counted = np.asarray(Image.open(cells(tmp_path / "x.png", number)))
        rgba = np.zeros((*counted.shape, 4), np.uint8)
        rgba[..., channel], rgba[..., 3] = counted, 255
        save(rgba, tmp_path / f"masks/{n}.png")
    (tmp_path / "x.png").unlink()
    found = found_in(tmp_path, "parallel-folders")
    assert names(found) == {1: "foreground"} and says(found, "values", "count the objects")
    assert sizes(found, "1") == {"foreground": 9 * 16}


def test_structures_in_varying_subsets_are_no_objects(tmp_path):
    for n, number in enumerate((5, 9, 7)):
        film(tmp_path / f"images/{n}.png", n)
        array = np.asarray(Image.open(cells(tmp_path / "x.png", number))).copy()
        array[:4] = np.where(array[:4] > 0, 12 - n, 0)  # not from 1 on, and in several components
        save(array.astype(np.uint8), tmp_path / f"labels/{n}.png")
    (tmp_path / "x.png").unlink()
    assert len(find(tmp_path).labels) > 5


def test_a_cup_of_zero_in_a_disc_on_a_white_background(tmp_path):
    for n in range(3):
        photo(tmp_path / f"images/g{n}.jpg", n)
        eye(tmp_path / f"gts/g{n}.bmp", disc=128, cup=0, back=255)
    found = found_in(tmp_path, "parallel-folders")
    assert sizes(found, "g1") == {"label 128": 64 - 9, "label 0": 9}
    assert says(found, "values", "255 is the background and 0 a structure")


# ---- patients ----


@pytest.mark.parametrize(
    "form",
    [
        "images/{n}_{m}.nii.gz masks/{n}_{m}.nii.gz",
        "imagesTr/x_{m}_00{n}_0000.nii.gz labelsTr/x_{m}_00{n}.nii.gz",
    ],
)
def test_scans_of_one_patient_in_several_sequences(tmp_path, form):
    image, label = form.split()
    for n in (1, 2, 3):
        for seed, sequence in enumerate(("ct", "mr") if "imagesTr" in form else ("t1", "t2")):
            grow(tmp_path, image.format(n=n, m=sequence), label.format(n=n, m=sequence))
            nifti(tmp_path / image.format(n=n, m=sequence), noise(10 * n + seed))
    found = discover(tmp_path)
    assert (len(found.manifest), patients(found)) == (6, 3)


def test_folders_of_many_volumes_are_no_patients(tmp_path):
    for first in (1, 201):
        for n in range(first, first + 11):
            nifti(tmp_path / f"{first}-{first + 199}/{n}.img.nii.gz", noise(n))
            nifti(tmp_path / f"{first}-{first + 199}/{n}.label.nii.gz", box())
    found = discover(tmp_path)
    assert patients(found) == 22 and {row[2] for row in rows(found)} == {"1-200", "201-400"}
    assert len(draft(tmp_path).manifest.patients) == 22


def test_array_stacks_of_several_sites_are_different_cases(tmp_path):
    for seed, site in enumerate(("siteA", "siteB")):
        (tmp_path / site).mkdir()
        rng = np.random.default_rng(seed)
        np.save(tmp_path / site / "images.npy", rng.integers(0, 200, (9, 16, 16)).astype(np.uint8))
        np.save(tmp_path / site / "masks.npy", np.stack([box(1, (16, 16, 6))[:, :, 2]] * 9))
    found = discover(tmp_path)
    assert (len(found.manifest), patients(found)) == (18, 4)
    assert {row[2] for row in rows(found)} == {"siteA", "siteB"}


# ---- volumes ----


def test_a_validation_list_with_a_short_name(tmp_path):
    grow(tmp_path, "imagesTr/word_1.nii.gz imagesVal/word_2.nii.gz")
    grow(tmp_path, "", "labelsTr/word_1.nii.gz labelsVal/word_2.nii.gz")
    entry = {
        part: [
            {"image": f"./images{end}/word_{n}.nii.gz", "label": f"./labels{end}/word_{n}.nii.gz"}
        ]
        for part, end, n in (("training", "Tr", 1), ("val", "Val", 2))
    }
    described = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, **entry}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert [row[3] for row in rows(found_in(tmp_path, "decathlon"))] == ["train", "val"]


def test_the_channel_on_the_grid_of_the_masks_is_the_first(tmp_path):
    # autoPET: the CT has more voxels than its resampled copy, the PET and the mask.
    for n in range(3):
        case = tmp_path / f"PETCT_{n}" / f"0{n}-PET-CT"
        nifti(case / "CT.nii.gz", noise(n, (24, 10, 6)))
        for seed, name in enumerate(("CTres", "SUV")):
            nifti(case / f"{name}.nii.gz", noise(10 * n + seed))
        nifti(case / "SEG.nii.gz", box())
    found = discover(tmp_path)
    assert found.manifest.channels == ("CTres", "CT", "SUV")
    drafted = draft(tmp_path)
    assert drafted.manifest.channels == ("CTres", "SUV")


def test_camus(tmp_path):
    for n in (1, 2):
        for view in ("2CH", "4CH"):
            stem = f"database_nifti/patient{n:04d}/patient{n:04d}_{view}"
            grow(tmp_path, f"{stem}_ED.nii.gz {stem}_ES.nii.gz {stem}_half_sequence.nii.gz")
            labels = f"{stem}_ED_gt.nii.gz {stem}_ES_gt.nii.gz {stem}_half_sequence_gt.nii.gz"
            grow(tmp_path, "", labels, (1, 2, 3))
            (tmp_path / f"database_nifti/patient{n:04d}/Info_{view}.cfg").write_text(
                "ED: 1\nImageQuality: Good\n"
            )
    found = found_in(tmp_path, "camus")
    assert (len(found.manifest), patients(found)) == (8, 2)
    assert {row[2] for row in rows(found)} == {"Good"}
    assert list(names(found).values()) == ["left ventricle", "myocardium", "left atrium"]


def test_a_draft_needs_a_description_of_arrays(tmp_path):
    (tmp_path / "Dataset/P1").mkdir(parents=True)
    np.save(tmp_path / "Dataset/P1/data.npy", np.zeros((4, 5, 6), np.float32))
    with pytest.raises(LayoutError, match=r"Dataset/P1/data\.npy is an array.*spacing_mm"):
        draft(tmp_path)


def test_a_draft_keeps_another_sequence_out_of_the_channel(tmp_path):
    for n in range(3):
        nifti(tmp_path / f"source_training/c_{n}_ceT1.nii.gz", noise(n))
        nifti(tmp_path / f"source_training/c_{n}_tumour.nii.gz", box())
        nifti(tmp_path / f"target_training/c_{n + 9}_hrT2.nii.gz", noise(n + 9))
    assert len(draft(tmp_path).manifest) == 3


# ---- collections whose trees have a form of their own ----


def test_rim_one_dl(tmp_path):
    for n, (split, group) in enumerate((("training", "glaucoma"), ("test", "normal"))):
        name = f"{group}/r{n + 1}_Im00{n}"
        for part in ("partitioned_randomly", "partitioned_by_hospital"):
            photo(tmp_path / f"RIM-ONE_DL_images/{part}/{split}_set/{name}.png", n)
        for structure in ("Disc", "Cup"):
            masks = tmp_path / "RIM-ONE_DL_reference_segmentations"
            mask(masks / f"{name}-1-{structure}-T.png")
    found = found_in(tmp_path, "rim-one-dl")
    assert len(found.manifest) == 2 and {row[2] for row in rows(found)} == {"glaucoma", "normal"}
    assert list(names(found).values()) == ["optic disc", "optic cup"]


def test_les_av_has_arteries_and_veins(tmp_path):
    for n in (275, 276):
        photo(tmp_path / f"images/{n}.png", n)
        vessels = np.zeros((16, 16, 3), np.uint8)
        vessels[2:5, :, 0], vessels[9:12, :, 2] = 255, 255
        save(vessels, tmp_path / f"arteries-and-veins/{n}.png")
        mask(tmp_path / f"vessel-segmentations/{n}.png")
        mask(tmp_path / f"masks/{n}_mask.png")
    found = found_in(tmp_path, "les-av")
    assert list(names(found).values()) == ["arteries", "veins"]


def test_ucsf_pdgm(tmp_path):
    for n in (4, 5):
        stem = f"UCSF-PDGM-{n:04d}_nifti/UCSF-PDGM-{n:04d}"
        for channel in ("T1", "T1c", "T2", "FLAIR", "T1_bias", "ADC", "SWI", "ASL"):
            grow(tmp_path, f"{stem}_{channel}.nii.gz")
        grow(tmp_path, "", f"{stem}_brain_segmentation.nii.gz")
        grow(tmp_path, "", f"{stem}_tumor_segmentation.nii.gz", (1, 2, 4))
    found = found_in(tmp_path, "ucsf-pdgm")
    assert found.manifest.channels == ("FLAIR", "T1", "T1 post-contrast", "T2")
    assert list(names(found).values()) == ["necrosis", "oedema", "enhancing tumour"]


def test_toothfairy_has_a_published_spacing(tmp_path):
    for n in (1, 2, 3):
        folder = tmp_path / f"Dataset/P{n}"
        folder.mkdir(parents=True)
        np.save(folder / "data.npy", noise(n))
        np.save(folder / "gt_sparse.npy", box())
        if n < 3:
            np.save(folder / "gt_alpha.npy", box())
    found = found_in(tmp_path, "toothfairy")
    assert len(found.manifest) == 3 and len(found.manifest.with_truth()) == 2
    image = found.manifest.cases[0].images[0]
    assert (image.spacing_mm, image.axes) == ((0.3, 0.3, 0.3), "SPL")
    assert says(found, "spacing", "0.3 mm")


def test_camus_with_half_cycles_only(tmp_path):
    for n in (1, 2):
        stem = f"patient{n:04d}/patient{n:04d}_2CH_half_sequence"
        grow(tmp_path, f"{stem}.nii.gz", f"{stem}_gt.nii.gz", (1, 2, 3))
    found = found_in(tmp_path, "camus")
    assert (len(found.manifest), patients(found)) == (2, 2)


def test_further_versions_of_a_scan_are_no_cases(tmp_path):
    for n in range(3):
        stem = f"IBSR_{n:02d}/IBSR_{n:02d}"
        grow(tmp_path, f"{stem}_ana.nii.gz {stem}_ana_strip.nii.gz", f"{stem}_seg_ana.nii.gz")
    found = found_in(tmp_path, "suffix-pairs")
    assert len(found.manifest.with_truth()) == len(found.manifest) == 3
    assert says(found, "unused", "further versions of the same images were not used: strip")


def test_glioma_collections_with_a_mask_of_few_cases(tmp_path):
    for n in (2, 6):
        case = f"UPENN-GBM-{n:05d}_11"
        for channel in ("FLAIR", "T1", "T1GD", "T2"):
            grow(tmp_path / "upenn", f"images_structural/{case}/{case}_{channel}.nii.gz")
        grow(tmp_path / "upenn", "", f"automated_segm/{case}_automated_approx_segm.nii.gz", (1, 2))
        stem = f"MU-Glioma-Post/PatientID_{n:04d}/Timepoint_1/PatientID_{n:04d}_Timepoint_1"
        channels = " ".join(f"{stem}_brain_{c}.nii.gz" for c in ("t1c", "t1n", "t2f", "t2w"))
        grow(tmp_path / "mu", channels, f"{stem}_tumorMask.nii.gz", (1, 2, 3, 4))
    grow(tmp_path / "upenn", "", "images_segm/UPENN-GBM-00002_11_segm.nii.gz", (1, 2, 4))
    upenn, mu = (discover(tmp_path / name).manifest for name in ("upenn", "mu"))
    assert (upenn.layout, len(upenn), len(upenn.with_truth())) == ("upenn-gbm", 2, 1)
    assert (mu.layout, mu.channels[0], list(mu.patients)) == (
        "mu-glioma-post",
        "FLAIR",
        ["PatientID_0002", "PatientID_0006"],
    )


def test_shifts_ms(tmp_path):
    for split in ("train", "eval_in"):
        place = f"best/{split}"
        grow(tmp_path, f"{place}/flair/1_FLAIR_isovox.nii.gz", f"{place}/gt/1_gt_isovox.nii.gz")
        grow(tmp_path, f"{place}/t1/1_T1_isovox.nii.gz", f"{place}/fg_mask/1_isovox_fg_mask.nii.gz")
    found = found_in(tmp_path, "shifts-ms")
    assert [case.id for case in found.manifest] == ["eval_in_1", "train_1"]


@pytest.mark.parametrize(
    ("layout", "scan", "label"),
    [
        ("rsna-2022-spine", "1.2.826.0.1.3680043.1000{n}", "1.2.826.0.1.3680043.1000{n}"),
        ("rsna-2023-abdomen", "100{n}/2000{n}", "2000{n}"),
    ],
)
def test_series_with_a_mask_named_after_them(tmp_path, layout, scan, label):
    for n in (1, 2):
        dicom_series(tmp_path / "train_images" / scan.format(n=n), noise(n), name="{n}.dcm")
    nifti(tmp_path / f"segmentations/{label.format(n=1)}.nii", box())
    found = discover(tmp_path).manifest
    assert (found.layout, len(found), len(found.with_truth())) == (layout, 2, 1)


def test_labels_of_nnunet_with_the_number_of_a_channel(tmp_path):
    grow(tmp_path, "imagesTr/A_0000.nii.gz imagesTr/B_0000.nii.gz")
    grow(tmp_path, "", "labelsTr/A_0000.nii.gz labelsTr/B_0000.nii.gz")
    facts = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    found = found_in(tmp_path, "nnunet-raw")
    assert len(found.manifest.with_truth()) == 2 and says(found, "names", "_0000")
