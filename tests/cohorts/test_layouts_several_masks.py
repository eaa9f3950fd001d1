"""Several masks of one image: folders of structures and of images; layouts that fit only a part."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.cohorts.imitate import box, grow, nifti, noise, png
from tests.cohorts.test_layouts_pictures import film, mask, photo, sizes
from tests.cohorts.test_layouts_volumes import found_in, names, rows, says

from delineate.cohorts.discovery.drafts import draft
from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_label
from delineate.core.errors import LayoutError


def test_a_folder_for_each_structure(tmp_path):
    for split, first in (("train", 0), ("test", 5)):
        for n in range(first, first + 2):
            photo(tmp_path / split / "images" / f"p{n}.jpg", n)
            # The cup is inside the disc, and is drawn over it.
            mask(tmp_path / split / "masks" / "disc" / f"p{n}.png", (4, 4), (4, 7), (7, 4), (7, 7))
            mask(tmp_path / split / "masks" / "cup_mask" / f"p{n}_mask.png", (5, 5))
    found = found_in(tmp_path, "parallel-folders")
    assert names(found) == {1: "disc", 2: "cup"}
    assert [row[3:] for row in rows(found)] == [("test", 2)] * 2 + [(None, 2)] * 2
    assert sizes(found, "p0") == {"disc": 27, "cup": 9}


def test_a_folder_for_each_volume_or_picture(tmp_path):
    for n in range(3):
        nifti(tmp_path / "volumes" / "images" / f"P{n}.nii.gz", noise(n))
        photo(tmp_path / "cells" / "images" / f"c{n}.png", n)
        for name, at in (("liver", (1, 1, 1)), ("left kidney", (7, 5, 1))):
            nifti(tmp_path / "volumes" / "labels" / f"P{n}" / f"{name}.nii.gz", box(at=at))
        for k in range(n + 1):
            mask(tmp_path / "cells" / "masks" / f"c{n}" / f"{k}.png", (4 * k, 4))
    volumes = found_in(tmp_path / "volumes", "parallel-folders")
    assert names(volumes) == {1: "left kidney", 2: "liver"}
    assert volumes.manifest.labels.named("left kidney").side == "left"
    cells = found_in(tmp_path / "cells", "parallel-folders")
    assert names(cells) == {1: "foreground"}
    assert [sizes(cells, f"c{n}") for n in range(3)] == [{"foreground": 9 * n} for n in (1, 2, 3)]


def test_folders_of_two_observers_are_refused(tmp_path):
    for n in range(3):
        photo(tmp_path / "images" / f"{n}.png", n)
        mask(tmp_path / "masks" / "anna" / f"{n}.png", (4, 4))
        mask(tmp_path / "masks" / "ben" / f"{n}.png", (5, 5))
    with pytest.raises(LayoutError, match=r"anna and ben overlap \(44% .* two observers"):
        discover(tmp_path)


def test_classes_with_one_number_are_groups(tmp_path):
    for split in ("Train", "Test"):
        for group in ("COVID-19", "Non-COVID", "Normal"):
            for n in range(2):
                name, seed = f"{group.lower()}_{split}{n}.png", n + len(group) * len(split)
                film(tmp_path / "Lungs" / split / group / "images" / name, seed)
                mask(tmp_path / "Lungs" / split / group / "lung masks" / name, (seed % 9, 4))
    manifest = draft(tmp_path).manifest
    assert len(manifest.with_truth()) == 12
    assert {case.group for case in manifest} == {"COVID-19", "Non-COVID", "Normal"}


def test_trainval_is_for_training(tmp_path):
    for split, count in (("trainval", 3), ("test", 2)):
        for n in range(count):
            film(tmp_path / f"{split}-image" / f"{split}{n}.jpg", n)
            mask(tmp_path / f"{split}-mask" / f"{split}{n}.png")
    found = found_in(tmp_path, "parallel-folders")
    assert [row[3] for row in rows(found)] == ["test"] * 2 + [None] * 3


# ---- layouts that fit only a part ----


def test_a_layout_without_any_mask_is_refused_if_there_are_masks(tmp_path):
    # The masks are a folder above the images.
    for n in range(3):
        for name in ("FLAIR", "T1"):
            nifti(tmp_path / str(n) / "pre" / f"{name}.nii.gz", noise(n))
        nifti(tmp_path / str(n) / "segm.nii.gz", box())
    with pytest.raises(LayoutError, match=r"modality-files fits, but no case has a mask, although"):
        discover(tmp_path)
    assert len(draft(tmp_path).manifest.with_truth()) == 3


def test_scans_without_masks_remain_a_cohort(tmp_path):
    for n in range(2):
        for name in ("flair", "t1"):
            nifti(tmp_path / f"P{n}" / f"P{n}_{name}.nii.gz", noise(n))
        nifti(tmp_path / f"P{n}" / f"P{n}_brainmask.nii.gz", box())
    assert len(discover(tmp_path).manifest) == 2


def test_masks_whose_names_do_not_say_so_are_no_images(tmp_path):
    for n in range(2):
        place = tmp_path / f"IBSR_{n:02d}"
        nifti(place / f"IBSR_{n:02d}_ana.nii.gz", noise(n))
        nifti(place / f"IBSR_{n:02d}_ana_brain.nii.gz", box())
        nifti(place / f"IBSR_{n:02d}_seg_ana.nii.gz", box())
    found = found_in(tmp_path, "suffix-pairs")
    assert len(found.manifest) == 2 and says(found, "unused", "1 masks without an image")


def test_kits_2021(tmp_path):
    for n in range(3):
        place = tmp_path / "data" / f"case_{n:05d}"
        grow(place, "imaging.nii.gz", "aggregated_AND_seg.nii.gz", (1, 2))
        grow(place, "", "aggregated_MAJ_seg.nii.gz", (1, 2))
        grow(place / "segmentations", "", "kidney_instance-1_annotation-1.nii.gz")
    found = found_in(tmp_path, "kits")
    (label,) = found.manifest.cases[0].label
    assert Path(label.path).name == "aggregated_MAJ_seg.nii.gz"
    assert names(found) == {1: "kidney", 2: "kidney tumour"}


def test_published_labels_of_test_cases_of_the_decathlon(tmp_path):
    grow(tmp_path, "imagesTr/w1.nii.gz imagesTs/w2.nii.gz", "labelsTr/w1.nii.gz labelsTs/w2.nii.gz")
    lists = {
        "labels": {"0": "background", "1": "liver"},
        "training": [{"image": "./imagesTr/w1.nii.gz", "label": "./labelsTr/w1.nii.gz"}],
        "test": ["./imagesTs/w2.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(lists))
    found = found_in(tmp_path, "decathlon")
    assert [row[3:] for row in rows(found)] == [(None, 1), ("test", 1)]


# ---- drafts ----


def test_a_mask_with_all_structures_is_preferred_to_its_parts(tmp_path):
    for n in range(4):
        name = f"corona{n}.nii.gz"
        lung, lesion = box(at=(1 + n, 1, 1)), box(value=2, at=(5, 5, 2))
        nifti(tmp_path / "CT" / name, noise(n))
        nifti(tmp_path / "Lung_Mask" / name, lung)
        nifti(tmp_path / "Infection_Mask" / name, (lesion > 0).astype(np.uint8))
        nifti(tmp_path / "Lung_and_Infection_Mask" / name, np.maximum(lung, lesion))
    made = draft(tmp_path)
    assert len(made.manifest.labels) == 2 and len(made.manifest.with_truth()) == 4
    assert [line.split(":")[0] for line in made.left_out] == [
        "Infection_Mask/{id}.nii.gz",
        "Lung_Mask/{id}.nii.gz",
    ]


def test_instances_with_the_extent_of_a_mask_are_left_out(tmp_path):
    for n in range(4):
        photo(tmp_path / "bladder" / "tissue images" / f"{n}.png", n)
        cells = np.zeros((16, 16), np.uint8)
        for place, value in enumerate(range(1, 26)):
            row, column = 3 * (place // 5), 3 * (place % 5)
            cells[row : row + 2, column : column + 2] = value
        png(tmp_path / "bladder" / "label masks" / f"{n}.tif", np.roll(cells, n, 0))
        png(
            tmp_path / "bladder" / "mask binary" / f"{n}.png",
            np.roll(cells > 0, n, 0) * np.uint8(255),
        )
    made = draft(tmp_path)
    assert made.manifest.labels.names == ["foreground"]
    (left,) = made.left_out
    assert left == "bladder/label masks/{id}.tif: 4 masks with the extent of the others"


# ---- collections ----


def test_cell_tracking(tmp_path):
    for sequence in ("01", "02"):
        for n in range(4):
            film(tmp_path / "Fluo" / sequence / f"t{n:03d}.tif", n)
            for place, value in (("ST/SEG/man_seg", 3), ("GT/TRA/man_track", 9)):
                mask(tmp_path / "Fluo" / f"{sequence}_{place}{n:03d}.tif", (1, 1), value=value)
        mask(tmp_path / "Fluo" / f"{sequence}_GT/SEG/man_seg002.tif", (1, 1), (5, 5), value=4)
        (tmp_path / "Fluo" / f"{sequence}_GT/TRA/man_track.txt").write_text("1 0 3 0\n")
    found = found_in(tmp_path, "cell-tracking")
    assert rows(found)[3:5] == [("01_t003", "01", "", None, 1), ("02_t000", "02", "", None, 1)]
    # Frame 2 has gold truth.
    assert [sizes(found, f"01_t00{n}") for n in (1, 2)] == [{"cell": 9}, {"cell": 18}]


def test_isles_2018(tmp_path):
    for n in range(2):
        for k, name in enumerate(("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax", "CT_4DPWI", "OT")):
            inner = f"SMIR.Brain.XX.O.{name}.{345562 + 10 * n + k}"
            array = box() if name == "OT" else noise(k)
            nifti(tmp_path / "TRAINING" / f"case_{n}" / inner / f"{inner}.nii", array)
    found = found_in(tmp_path, "isles-2018")
    assert found.manifest.channels == ("CT", "CBF", "CBV", "MTT", "Tmax")
    assert rows(found)[0] == ("case_0", "case_0", "", None, 1)


def test_prostate158(tmp_path):
    for split, n in (("train", 20), ("train", 21), ("valid", 30)):
        files = "t2.nii.gz adc.nii.gz dwi.nii.gz"
        place = tmp_path / split / f"{n:03d}"
        grow(place, files, "t2_anatomy_reader1.nii.gz", (1, 2))
        grow(place, files, "t2_tumor_reader1.nii.gz adc_tumor_reader1.nii.gz", (1,))
    found = found_in(tmp_path, "prostate158")
    assert found.manifest.channels == ("T2", "ADC", "DWI")
    assert names(found) == {1: "central gland", 2: "peripheral zone"}
    assert [row[3] for row in rows(found)] == ["train", "train", "val"]


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_array_files(tmp_path, ending):
    for case in ("case0005", "case0006"):
        for n in range(2):
            path = tmp_path / "train_npz" / f"{case}_slice{n:03d}.{ending}"
            image, label = noise(n, (14, 10)).astype(np.float32), box(2)[..., 1].astype(np.float32)
            save_arrays(path, image=image, label=np.resize(label, (14, 10)), scribble=label)
    found = found_in(tmp_path, "array-files")
    assert rows(found)[1] == ("case0005_slice001", "case0005", "", None, 1)
    case = found.manifest.cases[0]
    assert read_label(case, found.manifest).array.shape == (14, 10, 1)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def test_array_stacks_in_folders_for_images_and_for_masks(tmp_path):
    for fold in (1, 2):
        cells = np.zeros((20, 16, 16, 3))
        cells[:, 2:5, 2:5, 0], cells[:, 8:11, 8:11, 1] = 7, 3
        cells[..., 2] = cells[..., :2].sum(axis=-1) == 0
        for name, array in (
            (f"images/fold{fold}/images.npy", noise(fold, (20, 16, 16, 3)).astype(float)),
            (f"masks/fold{fold}/masks.npy", cells),
        ):
            path = tmp_path / f"Fold {fold}" / name
            path.parent.mkdir(parents=True)
            np.save(path, array)
        np.save(tmp_path / f"Fold {fold}" / "images" / f"fold{fold}" / "types.npy", ["Breast"] * 20)
    found = found_in(tmp_path, "array-stacks")
    assert len(found.manifest) == 40 and len(found.manifest.channels) == 3
    assert len(found.manifest.labels) == 2  # the last channel is the background of the others
    assert says(found, "siblings", "Fold 1 (20), Fold 2 (20)")


@pytest.mark.parametrize("channels_first", [True, False])
def test_arrays_with_as_many_modalities_as_one_hot_classes(tmp_path, channels_first):
    truth = np.resize(np.arange(4), (2, 5, 7, 6))
    arrays = noise(0, (2, 5, 7, 6, 4)), np.eye(4, dtype=np.uint8)[truth]
    for name, array in zip(("images", "labels"), arrays, strict=True):
        np.save(tmp_path / f"{name}.npy", np.moveaxis(array, -1, 1) if channels_first else array)
    manifest = found_in(tmp_path, "array-stacks").manifest
    assert len(manifest.channels) == 4 and len(manifest.labels) == 3
    assert np.array_equal(read_label(manifest.cases[1], manifest).array, truth[1])
