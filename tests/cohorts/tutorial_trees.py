"""The folders that the five published systems work on, imitated: names, formats and values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tests.cohorts.imitate import box, dicom_series, nifti, png

SHAPE = (12, 10, 6)
SLICES = range(SHAPE[2])
TISSUES = (1, 2, 3)
TUMOUR = (1, 2, 4)
GREYS = {0: 30, 1: 91, 2: 137, 3: 215}  # viridis, converted to grey


def mr(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(1, 200, SHAPE).astype(np.int16)


def ct(n: int) -> np.ndarray:
    """Tissue in HU inside air."""
    array = np.full(SHAPE, -1000, np.int16)
    array[1:-1, 1:-1] = np.random.default_rng(n).integers(-50, 250, (10, 8, 6))
    return array


def mask(values: Iterable[int], n: int = 0) -> np.ndarray:
    """Boxes with these values, in every slice but the first and the last."""
    out = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        out[2 + 2 * place : 4 + 2 * place, 3 : 6 + n % 3, 1:5] = value
    return out


def liver_volumes(root: Path) -> None:
    """3-D liver CT: the tutorial's four folders."""
    for part, cases in (("Train", (1, 2, 3, 4)), ("Test", (5, 6))):
        for n in cases:
            nifti(root / f"{part}Volumes" / f"patient_{n:03d}.nii.gz", ct(n))
            nifti(root / f"{part}Segmentation" / f"patient_{n:03d}.nii.gz", mask([1], n))


def liver_groups(root: Path) -> None:
    """3-D liver CT: DICOM in groups of slices; groups without liver were removed."""
    for n, parts in ((1, (0, 1)), (2, (1, 3)), (3, (0,))):
        for part in parts:
            name = f"liver_{n}_{part}"
            dicom_series(root / "images" / name, ct(10 * n + part))
            dicom_series(root / "labels" / name, mask([1], n).astype(np.int16))


def oasis(n: int, session: int = 1) -> str:
    return f"OAS1_{n:04d}_MR{session}_mpr_n4_anon_111_t88_masked_gfc"


def brain_volumes(root: Path) -> None:
    """Brain: processed volumes and tissues of OASIS-1 in two folders; one person came twice."""
    for n, session in ((1, 1), (2, 1), (2, 2), (3, 1)):
        name = oasis(n, session)
        nifti(root / "Oasis_Data_Processed" / f"{name}.nii", mr(3 * n + session))
        nifti(root / "Oasis_Labels_Processed" / f"{name}_fseg.nii", mask(TISSUES, n))


def drawn(path: Path, labels: np.ndarray, colours: str = "viridis") -> None:
    """A slice as ``matplotlib.pyplot.imsave`` draws it: scaled by its own highest label."""
    from matplotlib.image import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, labels.T.astype(float), cmap=colours)


def _grey(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = np.vectorize(GREYS.get)(labels).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(greys.T)).save(path)


def brain_slices(
    root: Path, *, coloured: bool, view: str = "Coronal", colours: str = "viridis"
) -> None:
    """Brain: slices of a view, with labels in the colours of a scale or as the grey of viridis."""
    for part, cases in (("Train", (1, 2, 3)), ("Val", (4,)), ("Test", (5,))):
        for n in cases:
            labels = mask(TISSUES, n)
            for k in SLICES:
                name = f"{oasis(n)}_slice{k}.png"
                png(root / f"{part}Data" / view / name, mr(n)[:, :, k].astype(np.uint8))
                draw = partial(drawn, colours=colours) if coloured else _grey
                draw(root / f"{part}Labels" / view / name, labels[:, :, k])


def mr_slices(root: Path) -> None:
    """Liver MR: DICOM slices of all patients in one folder, PNG masks with all organs of CHAOS and
    others of the liver alone."""
    for part, cases in (("train", (1, 2, 3)), ("val", (5,))):
        for n in cases:
            place, name = root / "data" / part, f"T1_Patient{n}_No"
            dicom_series(place / "Data", mr(n), modality="MR", name=name + "{n}.dcm")
            labels = mask((63, 126), n)
            for k in SLICES:
                png(place / "Ground" / f"{name}{k}.png", labels[:, :, k])
                liver = (labels[:, :, k] == 63).astype(np.uint8) * 255
                png(place / "Ground" / "Liver" / f"{name}{k}.png", liver)


def mr_pictures(root: Path) -> None:
    """Liver MR: the slices as PNG with 8 bits, next to those of 16, and masks of the liver."""
    for part, cases in (("train", (1, 2, 3)), ("val", (5,))):
        for n in cases:
            for k in SLICES:
                place, name = root / "data" / part, f"T1_Patient{n}_No{k}.png"
                png(place / "Data_8bit" / name, mr(n)[:, :, k].astype(np.uint8))
                png(place / "Ground" / name, mask([255], n)[:, :, k])


def chaos_mr(root: Path) -> None:
    """Liver MR: the challenge's own tree."""
    for n in (1, 2, 3):
        place = root / "MR" / str(n) / "T1DUAL"
        for phase in ("InPhase", "OutPhase"):
            dicom_series(place / "DICOM_anon" / phase, mr(n), modality="MR")
        labels = mask((63, 126, 189, 252), n)
        for k in SLICES:
            png(place / "Ground" / f"i{k:04d}.png", labels[:, :, k])


def ircad(root: Path) -> None:
    """2-D liver CT: 3D-IRCADb as published, with a mask for each of many structures."""
    for n in (1, 2, 3):
        place = root / f"3Dircadb1.{n}"
        dicom_series(place / "PATIENT_DICOM", ct(n), name="image_{n}")
        names = ("liver", "livertumor01", "bone", "leftkidney", "venacava")
        for organ in names:
            at = {"liver": (2, 3, 1), "livertumor01": (3, 4, 2)}.get(organ, (8, 3, 1))
            one = box(255, at=at, size=1 if organ == "livertumor01" else 3).astype(np.int16)
            dicom_series(place / "MASKS_DICOM" / organ, one, name="image_{n}")


def raw_pairs(root: Path, image: str, label: str) -> None:
    """2-D liver CT: pairs of files in raw/train and raw/test."""
    for part, cases in (("train", (1, 2, 3, 4)), ("test", (5, 6))):
        for n in cases:
            nifti(root / "raw" / part / image.format(n), ct(n))
            nifti(root / "raw" / part / label.format(n), mask([1], n))


def slice_arrays(root: Path) -> None:
    """2-D liver CT: slices of all patients in one array, cast to 8 bits, with an axis of channels
    in the masks."""
    root.mkdir(parents=True, exist_ok=True)
    for part, cases in (("train", (1, 2, 3, 4)), ("test", (5, 6))):
        images = np.concatenate([np.moveaxis(ct(n), 2, 0) for n in cases])
        masks = np.concatenate([np.moveaxis(mask([1], n), 2, 0) for n in cases])
        np.save(root / f"imgs_{part}.npy", images.astype(np.uint8))
        np.save(root / f"imgs_mask_{part}.npy", masks)
        np.save(root / f"imgs_id_{part}.npy", np.arange(len(images)))


def _tumour(folder: Path, case: str, n: int, mark: str = "_") -> None:
    for k, name in enumerate(("flair", "t1", "t1ce", "t2")):
        nifti(folder / f"{case}{mark}{name}.nii.gz", mr(10 * n + k))


def brats_grades(root: Path) -> None:
    """Brain tumours, 2018: a folder a case below its grade."""
    for n, (grade, case) in enumerate(
        (("HGG", "Brats18_2013_10_1"), ("HGG", "Brats18_CBICA_AAB_1"), ("LGG", "Brats18_2013_0_1"))
    ):
        _tumour(root / grade / case, case, n)
        nifti(root / grade / case / f"{case}_seg.nii.gz", mask(TUMOUR, n))


def brats_cases(root: Path) -> None:
    """Brain tumours, 2020 to 2021: a folder a case."""
    for n in (1, 2, 3):
        case = f"BraTS20_Training_{n:03d}"
        _tumour(root / case, case, n)
        nifti(root / case / f"{case}_seg.nii.gz", mask(TUMOUR, n))


def brats_2015(root: Path) -> None:
    """Brain tumours, 2015: a folder a sequence."""
    for n in (1, 2, 3):
        case = root / "HGG" / f"brats_2013_pat{n:04d}_1"
        for k, name in enumerate(("MR_Flair", "MR_T1", "MR_T1c", "MR_T2")):
            folder = f"VSD.Brain.XX.O.{name}.{54512 + 10 * n + k}"
            nifti(case / folder / f"{folder}.nii.gz", mr(10 * n + k))
        folder = f"VSD.Brain_3more.XX.O.OT.{54517 + 10 * n}"
        nifti(case / folder / f"{folder}.nii.gz", mask((1, 2, 3, 4), n))


def brats_flat(root: Path, names: str, images: str = "images", labels: str = "labels") -> None:
    """Brain tumours: all sequences of all cases in one folder, and the masks in another."""
    for n in (1, 2, 3):
        case = f"BraTS20_Training_{n:03d}"
        for k, name in enumerate(names.split()):
            nifti(root / images / f"{case}_{name}.nii.gz", mr(10 * n + k))
        nifti(root / labels / f"{case}_seg.nii", mask(TUMOUR, n))


def brats_one_folder(root: Path) -> None:
    """Brain tumours: all sequences and masks of all cases in one folder."""
    for n in (1, 2, 3):
        case = f"BraTS20_Training_{n:03d}"
        _tumour(root, case, n)
        nifti(root / f"{case}_seg.nii.gz", mask(TUMOUR, n))


def brats_arrays(root: Path) -> None:
    """Brain tumours: all cases in one array, with the sequences as the last axis."""
    for part, cases in (("train", (1, 2, 3)), ("test", (4,))):
        (root / part).mkdir(parents=True)
        images = [np.stack([mr(10 * n + k) for k in range(4)], -1) for n in cases]
        np.save(root / part / "images.npy", np.array(images, np.float32))
        np.save(root / part / "labels.npy", np.array([mask((1, 2, 3), n) for n in cases], int))
