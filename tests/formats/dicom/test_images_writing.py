"""Image volumes that are written as DICOM: the same voxels for every reader, valid, derived."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from objects import ct, write

from delineate.core.errors import GeometryError, OutputError, UsageError
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import dicom, files
from delineate.formats.dicom.images import write_images

SHAPE = (9, 7, 5)
RNG = np.random.default_rng(3)
HU = RNG.integers(-1024, 3072, SHAPE).astype(np.int16)
REAL = RNG.normal(0, 700, SHAPE).astype(np.float32)
RED = {"channels": ["red", "green", "blue"]}


def affine(kind: str = "plain") -> np.ndarray:
    """Voxels of 0.7 x 1.3 x 4 mm."""
    out = np.diag([-0.7, -1.3, 4.0, 1.0])
    out[:3, 3] = -10, 22.123456, 33.5
    if kind == "oblique":
        turn = np.array([[0.8, -0.6, 0], [0.36, 0.48, -0.8], [0.48, 0.64, 0.6]])
        out[:3, :3] = turn @ out[:3, :3]
    if kind == "tilted":
        out[:3, 2] = 0, 0.9, 4
    if kind == "left-handed":
        out[:3, 0] *= -1
    if kind == "not rectangular":
        out[:3, 1] = 0.3, -1.3, 0
    if kind == "leaning":
        out[:3, 2] = 0, 5, 4
    return out


def volume(array: np.ndarray, unit: str = "a.u.", kind: str = "plain", **meta) -> Volume:
    grid = Grid(array.shape[-3:], affine(kind), allow_shear=True)
    return Volume(array, grid, unit, meta=meta)


def same_place(one: Volume, codes: str) -> np.ndarray:
    return one.reorient(codes).array


def refuse_errors(path: Path) -> None:
    if validator := shutil.which("dciodvfy"):
        done = subprocess.run([validator, path], capture_output=True, text=True)
        text = done.stdout + done.stderr
        assert "Error" not in text, text


def compare_dcm2niix(place: Path, again: Volume) -> None:
    """Compare the voxels and their places with those of dcm2niix, if it is installed."""
    if not (program := shutil.which("dcm2niix")):
        return
    out = place.parent / "dcm2niix"
    out.mkdir()
    subprocess.run([program, "-f", "x", "-o", out, place], check=True, capture_output=True)
    (path,) = out.glob("x*.nii")
    seen = files.read(path).reorient(again.grid.codes)
    assert seen.grid.distance_mm(again.grid) < 1e-3
    np.testing.assert_allclose(seen.array, again.array, atol=1e-3)


CASES = {
    "CT": (volume(HU, "HU"), "", "HU", 0),
    "oblique CT": (volume(HU, "HU", "oblique"), "", "HU", 0),
    "real MR on tilted slices": (volume(REAL, kind="tilted"), "MR", "a.u.", 0.06),
    "MR against the slices": (volume(np.abs(HU), kind="left-handed"), "MR", "a.u.", 0),
    "MR far from 0": (volume(HU.astype(np.int32) + 100_000), "MR", "a.u.", 0),
    "activity": (volume(np.abs(REAL), "Bq/ml"), "", "Bq/ml", 0.03),
    "SUV": (volume(REAL / 100, "SUV", "oblique"), "", "SUV", 6e-4),
    "other": (volume(REAL, kind="oblique"), "US", "a.u.", 0.06),
    "colours": (
        volume(np.abs(HU[None] + [[[[0]]], [[[1]]], [[[2]]]]).astype(np.uint8), **RED),
        "",
        "a.u.",
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_voxels_are_read(tmp_path: Path, name: str):
    given, modality, unit, most = CASES[name]
    done = write_images(given, tmp_path / "s", modality=modality)
    again = files.read(tmp_path / "s")
    assert again.unit == unit
    assert again.grid.reorient(given.grid.codes)[0].distance_mm(given.grid) < 1e-4
    error = np.abs(same_place(again, given.grid.codes).astype(float) - given.array).max()
    assert error <= most and bool(error) == any("scaled to 16 bits" in n for n in done.notes)
    refuse_errors(done.paths[0])
    if name not in ("colours", "real MR on tilted slices"):  # dcm2niix resamples tilted slices
        compare_dcm2niix(tmp_path / "s", again)
    one = pydicom.dcmread(done.paths[0])
    assert one.ImageType[0] == "DERIVED" and one.PatientName == "Anonymous^"
    if name != "colours":
        itk = pytest.importorskip("SimpleITK")
        seen = itk.ReadImage(list(map(str, done.paths)))
        np.testing.assert_allclose(itk.GetArrayFromImage(seen).T, again.array, atol=1e-3)
        assert seen.GetSpacing()[:2] == pytest.approx(again.spacing_mm[:2])
        corner = seen.TransformIndexToPhysicalPoint((SHAPE[0] - 1, SHAPE[1] - 1, 0))
        ours = again.grid.to_mm((SHAPE[0] - 1, SHAPE[1] - 1, 0)) * (-1, -1, 1)
        assert corner == pytest.approx(ours, abs=1e-4)


def test_colours_keep_their_names_from_nifti_through_dicom_to_nifti(tmp_path: Path):
    given = CASES["colours"][0]
    files.write(given, tmp_path / "a.nii.gz")
    write_images(files.read(tmp_path / "a.nii.gz"), tmp_path / "s")
    files.write(files.read(tmp_path / "s"), tmp_path / "b.nii.gz")
    again = files.read(tmp_path / "b.nii.gz")
    assert again.meta["channels"] == ["red", "green", "blue"]
    assert np.array_equal(same_place(again, given.grid.codes), given.array)


@pytest.mark.parametrize("name", ["oblique CT", "real MR on tilted slices", "activity"])
def test_one_file_has_all_slices_as_frames(tmp_path: Path, name: str):
    given, modality, unit, most = CASES[name]
    done = write_images(given, tmp_path / "s.dcm", modality=modality)
    assert done.paths == (tmp_path / "s.dcm",)
    again = files.read(tmp_path / "s.dcm")
    assert again.unit == unit and again.grid.reorient(given.grid.codes)[0].matches(given.grid, 1e-4)
    assert np.abs(same_place(again, given.grid.codes) - given.array.astype(float)).max() <= most
    refuse_errors(tmp_path / "s.dcm")
    (tmp_path / "m").mkdir()
    shutil.copy(tmp_path / "s.dcm", tmp_path / "m")
    if "tilted" not in name:
        compare_dcm2niix(tmp_path / "m", again)
    whole = pydicom.dcmread(tmp_path / "s.dcm")
    assert whole.NumberOfFrames == 5 and "Legacy Converted" in whole.SOPClassUID.name
    before = (tmp_path / "s.dcm").read_bytes()
    write_images(given, tmp_path / "s.dcm", modality=modality)
    assert (tmp_path / "s.dcm").read_bytes() == before


def test_uids_follow_from_the_content(tmp_path: Path):
    def uids(name: str, one: Volume, **options) -> set[str]:
        done = write_images(one, tmp_path / name, **options)
        return {pydicom.dcmread(path).SOPInstanceUID for path in done.paths}

    given = CASES["CT"][0]
    first = uids("a", given)
    assert len(first) == 5 and uids("b", given) == first
    assert (tmp_path / "a/slice_0003.dcm").read_bytes() == (
        tmp_path / "b/slice_0003.dcm"
    ).read_bytes()
    changed = given.array.copy()
    changed[0, 0, 0] += 1
    others = [
        uids("c", given.with_array(changed)),
        uids("d", volume(HU, "HU", "tilted")),
        uids("e", given, modality="MR"),
        uids("f.dcm", given),
    ]
    assert not first & set.union(*others) and len(set.union(*others)) == 16


def test_a_series_gives_patient_study_and_frame_of_reference(tmp_path: Path):
    stated = {
        "StudyInstanceUID": "1.2.3.4",
        "FrameOfReferenceUID": "1.2.3.9",
        "PatientName": "A^B",
        "StudyDate": "20240229",
        "SpecificCharacterSet": "ISO_IR 100",
    }
    slices = [ct(np.zeros((20, 30), np.int16), k, **stated) for k in range(8)]
    write(tmp_path / "ct", *slices)
    (like,) = dicom.find_series(tmp_path / "ct")
    grid = dicom.layout(like)[0]
    inside = Volume(HU, grid.crop((3, 4, 1), (12, 11, 6)))
    done = write_images(inside, tmp_path / "in", like=like)
    assert done.notes == ("the modality is that of the series, CT",)
    one = pydicom.dcmread(done.paths[0])
    assert {name: one[name].value for name in stated} == stated
    assert one.PatientID == "P1" and one.SeriesInstanceUID != like.uid and one.Modality == "CT"
    refuse_errors(done.paths[0])
    outside = Volume(HU, grid.crop((3, 4, 10), (12, 11, 15)), "HU")
    done = write_images(outside, tmp_path / "out", like=like)
    assert done.notes == (
        "the image is not inside the series, so it has a frame of reference of its own",
    )
    one = pydicom.dcmread(done.paths[0])
    assert one.FrameOfReferenceUID != "1.2.3.9" and one.StudyInstanceUID == "1.2.3.4"
    # Another frame of reference is another content.
    for other in slices:
        other.FrameOfReferenceUID = "1.2.3.8"
    write(tmp_path / "other", *slices)
    (like,) = dicom.find_series(tmp_path / "other")
    moved = pydicom.dcmread(write_images(inside, tmp_path / "in2", like=like).paths[0])
    first = pydicom.dcmread(tmp_path / "in" / "slice_0000.dcm")
    assert moved.FrameOfReferenceUID == "1.2.3.8"
    assert moved.SOPInstanceUID != first.SOPInstanceUID


def test_a_map_of_a_ct_is_not_in_hu(tmp_path: Path):
    iodine = volume(np.abs(HU), modality="CT")
    done = write_images(iodine, tmp_path / "s")
    assert pydicom.dcmread(done.paths[0]).RescaleType == "UNSPECIFIED"
    assert files.read(tmp_path / "s").unit == "a.u."
    refuse_errors(done.paths[0])


def test_channels_become_series(tmp_path: Path):
    both = volume(np.stack([HU, HU + 1]), kind="oblique")
    done = write_images(both, tmp_path / "s", modality="MR")
    assert [done.paths[0].name, done.paths[-1].name] == ["1_slice_0000.dcm", "2_slice_0004.dcm"]
    first, second = sorted(dicom.find_series(tmp_path / "s"), key=lambda one: one.number)
    assert first.study == second.study and first.uid != second.uid
    difference = dicom.read_series(second).array - dicom.read_series(first).array
    assert (difference == 1).all()


def test_voxels_that_are_not_finite_are_counted(tmp_path: Path):
    holes = np.where(REAL > 1000, np.nan, REAL)
    done = write_images(volume(holes), tmp_path / "s", modality="MR")
    count = int((REAL > 1000).sum())
    assert f"{count} voxels that are not finite have the value of the background" in done.notes
    assert np.isfinite(files.read(tmp_path / "s").array).all()


def test_a_picture_has_no_position(tmp_path: Path):
    picture = volume(np.abs(HU[..., :1]), place_known=False)
    done = write_images(picture, tmp_path / "p.dcm")
    one = pydicom.dcmread(done.paths[0])
    assert one.SOPClassUID.name == "Secondary Capture Image Storage"
    assert "ImagePositionPatient" not in one
    refuse_errors(done.paths[0])
    np.testing.assert_array_equal(files.read(tmp_path / "p.dcm").array, picture.array)
    with pytest.raises(GeometryError, match="a picture has no position"):
        write_images(picture, tmp_path / "q.dcm", modality="CT")


@pytest.mark.parametrize(
    ("given", "target", "options", "error", "words"),
    [
        (volume(HU, kind="not rectangular"), "s", {}, GeometryError, "no rectangles"),
        (volume(HU, kind="leaning"), "s", {}, GeometryError, "51.3 degrees off the normal"),
        (volume(HU), "s.dcm", {}, UsageError, "several slices in one file are of modality"),
        (volume(np.stack([HU, HU])), "s.dcm", {}, UsageError, "each of the 2 channels"),
        (volume(HU), "s", {"modality": "ct scan"}, UsageError, "a modality is a term"),
        (CASES["colours"][0], "s", {"modality": "MR"}, UsageError, "have no colours"),
    ],
)
def test_refusals_leave_no_file(tmp_path: Path, given, target, options, error, words):
    with pytest.raises(error, match=words):
        write_images(given, tmp_path / target, **options)
    assert not list(tmp_path.rglob("*.dcm"))


def test_other_files_are_kept(tmp_path: Path):
    given, other = CASES["CT"][0], volume(HU + 1, "HU")
    write_images(given, tmp_path / "s")
    write_images(given, tmp_path / "s")
    with pytest.raises(OutputError, match="exists already; --overwrite"):
        write_images(other, tmp_path / "s")
    np.testing.assert_array_equal(
        same_place(files.read(tmp_path / "s"), given.grid.codes), given.array
    )
    write_images(other, tmp_path / "s", overwrite=True)
    (tmp_path / "s" / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other files \(note.txt\)"):
        write_images(other, tmp_path / "s", overwrite=True)


def test_a_series_survives_nifti(tmp_path: Path):
    """DICOM -> NIfTI -> DICOM -> NIfTI on the axes of the first series."""
    orientation = [-0.8, -0.36, -0.48, 0.6, -0.48, -0.64]
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [
        ct(
            HU[..., k].T.copy(),
            ImageOrientationPatient=orientation,
            ImagePositionPatient=[float(v) for v in (5, 6, 7) + 3.1 * k * normal],
            PixelSpacing=[0.71, 0.93],
            RescaleSlope=1,
            RescaleIntercept=-3,
            FrameOfReferenceUID="1.2.3.9",
        )
        for k in range(5)
    ]
    write(tmp_path / "a", *slices)
    files.write(files.read(tmp_path / "a"), tmp_path / "a.nii.gz")
    (like,) = dicom.find_series(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_images(files.read(tmp_path / "a.nii.gz"), tmp_path / "b", like=like)
    files.write(files.read(tmp_path / "b"), tmp_path / "b.nii.gz")
    first, second = files.read(tmp_path / "a.nii.gz"), files.read(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(first.array, second.array)
    assert first.grid.distance_mm(second.grid) < 1e-4
