"""Sibling folders of one layout are one cohort, and their names are groups, patients or splits."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from tests.cohorts.imitate import box, nifti, noise, png

from delineate.cohorts.discovery.layouts import discover, find
from delineate.core.errors import LayoutError
from delineate.core.manifest import Manifest


def pair(folder, name, seed, label=True):
    nifti(folder / f"{name}.nii.gz", noise(seed))
    if label:
        nifti(folder / f"{name}_seg.nii.gz", box())


def note(found, kind):
    return [f.message for f in found.findings if f.kind == kind]


def test_classes_become_the_group_and_stratify_folds(tmp_path):
    for grade, count in (("HGG", 6), ("LGG", 3)):
        for n in range(count):
            case = tmp_path / "Data_Training" / grade / f"Brats18_{grade}{n}_1"
            for seed, key in enumerate(("flair", "t1", "t1ce", "t2")):
                nifti(case / f"{case.name}_{key}.nii.gz", noise(10 * n + seed + count))
            nifti(case / f"{case.name}_seg.nii.gz", box())
    found = discover(tmp_path)
    manifest = found.manifest
    assert Counter(case.group for case in manifest) == {"HGG": 6, "LGG": 3}
    assert len(manifest.patients) == 9 and manifest.channels == ("flair", "t1", "t1ce", "t2")
    assert any("HGG (6), LGG (3)" in text for text in note(found, "siblings"))
    # Every fold has the same share of each group, and so has every side of a split.
    for seed in range(5):
        folds = Counter((c.group, c.fold) for c in manifest.with_folds(3, seed))
        assert set(folds.values()) == {1, 2} and len(folds) == 6
    sides = Counter((c.group, c.split) for c in manifest.split(2 / 3, 0, 1 / 3))
    assert sides == {
        ("HGG", "train"): 4,
        ("LGG", "train"): 2,
        ("HGG", "test"): 2,
        ("LGG", "test"): 1,
    }
    again = Manifest.from_jsonl(manifest.to_jsonl())
    assert again.cases == manifest.cases


def test_batches_with_numbers_are_groups_and_training_is_no_split_of_its_own(tmp_path):
    for n in range(4):
        batch = tmp_path / f"Training Batch {1 + n // 2}"
        nifti(batch / f"volume-{n}.nii", noise(n))
        nifti(batch / f"segmentation-{n}.nii", box())
    manifest = find(tmp_path)
    assert [(c.group, c.split) for c in manifest] == [("Batch 1", None)] * 2 + [
        ("Batch 2", None)
    ] * 2


def test_numbered_folders_are_patients_with_the_split_above_them(tmp_path):
    for split, n in (("training", 1), ("training", 2), ("testing", 3)):
        for visit in (1, 2):
            pair(tmp_path / split / f"P{n:02d}", f"visit{visit}", 10 * n + visit)
    found = discover(tmp_path)
    assert [(c.id, c.patient, c.split, c.group) for c in found.manifest][::2] == [
        ("P03_visit1", "P03", "test", ""),
        ("P01_visit1", "P01", None, ""),
        ("P02_visit1", "P02", None, ""),
    ]
    assert any("patient" in text for text in note(found, "siblings"))


def test_sites_with_patients_and_one_scan_each(tmp_path):
    for site in ("site_a", "site_b"):
        for n in (1, 2):
            pair(tmp_path / site / f"{n:03d}", "scan", n + 10 * len(site) + ord(site[-1]))
    manifest = find(tmp_path)
    assert [(c.id, c.patient, c.group) for c in manifest] == [
        (f"{site}_{n:03d}", f"{site}_{n:03d}", site)
        for site in ("site_a", "site_b")
        for n in (1, 2)
    ]


@pytest.mark.parametrize("other", ["names", "formats", "channels", "copies"])
def test_folders_that_may_be_different_data_sets_are_refused_with_the_reason(tmp_path, other):
    pair(tmp_path / "liver", "l1", 1)
    pair(tmp_path / "liver", "l2", 2)
    reason = {
        "names": "modalities",
        "formats": "formats differ",
        "channels": "channels differ|layouts differ",
        "copies": "same names of cases",
    }[other]
    if other == "names":
        (tmp_path / "liver").rename(tmp_path / "CT")
        pair(tmp_path / "MR", "m1", 3)
    elif other == "formats":
        png(tmp_path / "skin" / "s1.png", noise(3)[:, :, 0].astype("u1"))
        png(tmp_path / "skin" / "s1_mask.png", box()[:, :, 2])
    elif other == "channels":
        for key in ("flair", "t1", "seg"):
            nifti(
                tmp_path / "brain" / "b1" / f"b1_{key}.nii.gz", box() if key == "seg" else noise(4)
            )
    else:
        pair(tmp_path / "resampled", "l1", 5)
        pair(tmp_path / "resampled", "l2", 6)
    with pytest.raises(LayoutError, match=rf"several cohorts.*({reason})"):
        find(tmp_path)


def test_a_validation_set_without_masks_next_to_grades(tmp_path):
    places = ["Training/HGG", "Training/HGG", "Training/LGG", "Validation"]
    for n, place in enumerate(places):
        case = tmp_path / f"BraTS_2018_Data_{place}" / f"Brats18_X{n}_1"
        for seed, key in enumerate(("flair", "t1")):
            nifti(case / f"{case.name}_{key}.nii.gz", noise(10 * n + seed))
        if place != "Validation":
            nifti(case / f"{case.name}_seg.nii.gz", box())
    manifest = find(tmp_path)
    assert [(c.group, c.split, len(c.label)) for c in manifest] == [
        ("HGG", None, 1),
        ("HGG", None, 1),
        ("LGG", None, 1),
        ("", "val", 0),
    ]


def test_data_sets_with_a_dataset_json_each_are_not_joined(tmp_path):
    for task in ("Task04_Hippocampus", "Task05_Prostate"):
        for name in ("imagesTr", "labelsTr"):
            nifti(tmp_path / task / name / "c_1.nii.gz", noise(1) if name == "imagesTr" else box())
        pairs = [{"image": "./imagesTr/c_1.nii.gz", "label": "./labelsTr/c_1.nii.gz"}]
        data = {"labels": {"0": "background", "1": "x"}, "training": pairs}
        (tmp_path / task / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(LayoutError, match="each is a data set of its own"):
        find(tmp_path)


def square(shape):
    """A mask of one structure as a picture."""
    return box(255, (*shape, 1), (2, 3, 0))[..., 0]


def test_folders_of_numbered_slices_are_patients(tmp_path):
    """As in SenNet: a kidney in each folder, with training and test in folders of their own."""
    places = {"train/kidney_1_dense": 4, "train/kidney_2": 5, "test/kidney_5": 3}
    for seed, (place, count) in enumerate(places.items()):
        for n in range(count):
            name = f"{n + seed:04d}.tif"
            png(tmp_path / place / "images" / name, noise(n, (9 + seed, 8), np.uint8))
            if "train" in place:
                png(tmp_path / place / "labels" / name, square((9 + seed, 8)))
    found = find(tmp_path)
    assert Counter(case.patient for case in found) == {
        "kidney_1_dense": 4,
        "kidney_2": 5,
        "kidney_5": 3,
    }


@pytest.mark.parametrize(
    "change", ["sizes", "gaps", "words", "years", "sites"], ids=lambda name: f"other {name}"
)
def test_numbered_pictures_that_are_no_slices_are_patients_of_their_own(tmp_path, change):
    names = {"years": ("2019", "2020"), "sites": ("site_1", "site_2")}.get(change, ("p1", "p2"))
    for place in names:
        for n in range(4):
            name = {"gaps": f"{3 * n:04d}", "words": f"{n}_{'abcd'[n]}"}.get(change, f"{n:04d}")
            shape = (9 + n * (change == "sizes"), 8)
            png(tmp_path / "train" / place / "images" / f"{name}.png", noise(n, shape, np.uint8))
            png(tmp_path / "train" / place / "labels" / f"{name}.png", square(shape))
    for n in range(3):
        picture = tmp_path / "test" / names[0] / "images" / f"{n + 5000}.png"
        png(picture, noise(n, (9, 8), np.uint8))
    assert len(find(tmp_path).patients) == 11
