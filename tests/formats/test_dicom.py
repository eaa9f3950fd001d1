"""DICOM series: real slices written by pydicom on awkward grids, every refusal, and the scans of
many vendors.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from delineate.core.errors import FormatError, GeometryError
from delineate.core.grid import Grid
from delineate.core.manifest import Source
from delineate.formats import dicom, disk, files
from delineate.formats.disk import STILL_NS

CT = "1.2.840.10008.5.1.4.1.1.2"
FLIP = np.diag([-1.0, -1.0, 1.0])


def write_series(folder, array, grid, *, slope=1, intercept=-1024, uid=None, shuffle=True, **extra):
    """``array`` (I, J, K) as one file a slice with shuffled names; returns the datasets and paths
    in the order of k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    names = (
        np.random.default_rng(3).permutation(array.shape[2])
        if shuffle
        else np.arange(array.shape[2])
    )
    unit = FLIP @ grid.affine[:3, :3] / grid.spacing_mm
    paths = []
    for k in range(array.shape[2]):
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CT
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.Modality, one.PatientID, one.SeriesInstanceUID, one.StudyInstanceUID = (
            "CT",
            "P1",
            uid,
            generate_uid(),
        )
        one.SeriesNumber, one.SeriesDescription, one.SliceThickness, one.ImageType = (
            7,
            "portal venous",
            9.9,
            ["ORIGINAL", "PRIMARY", "AXIAL"],
        )
        one.ImagePositionPatient = (FLIP @ grid.to_mm((0, 0, k))).round(6).tolist()
        one.ImageOrientationPatient = [*unit[:, 0].round(8).tolist(), *unit[:, 1].round(8).tolist()]
        one.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[0]]  # between rows first
        one.Columns, one.Rows = array.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = str(slope), str(intercept)
        for name, value in extra.items():
            setattr(one, name, value)
        one.PixelData = np.ascontiguousarray(array[:, :, k].T).astype(np.int16).tobytes()
        path = folder / f"im{names[k]:03d}.dcm"
        one.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def change(path, **fields):
    dataset = pydicom.dcmread(path)
    for name, value in fields.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)


@pytest.fixture
def upright() -> Grid:
    """An ordinary CT of 8 slices."""
    return Grid(
        (6, 5, 8), np.array([[-0.7, 0, 0, 10], [0, -0.9, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
    )


@pytest.fixture
def numbered(upright) -> np.ndarray:
    return np.arange(np.prod(upright.shape), dtype=np.int16).reshape(upright.shape)


# ---- what is read ----


def test_every_voxel_stands_where_its_slice_says(tmp_path, grid, asymmetric):
    write_series(tmp_path, asymmetric, grid)
    volume = files.read(tmp_path)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    found = np.rint(volume.grid.to_index(grid.to_mm(index))).astype(int)
    assert np.abs(volume.grid.to_mm(found) - grid.to_mm(index)).max() < 1e-4
    np.testing.assert_array_equal(volume.array[tuple(np.moveaxis(found, -1, 0))], asymmetric - 1024)
    assert volume.array.dtype == np.int16
    assert volume.unit == "HU"
    assert volume.meta | {"series": "", "study": ""} == {
        "modality": "CT",
        "patient": "P1",
        "series": "",
        "study": "",
        "spacing_known": True,
        "description": "portal venous",
        "place_known": True,
    }
    assert files.read_grid(tmp_path) == volume.grid
    # Measured: SliceThickness says 9.9.
    assert volume.grid.spacing_mm[2] == pytest.approx(grid.spacing_mm[2], abs=1e-5)


def test_rescale_is_applied_slice_by_slice(tmp_path, upright, numbered):
    paths = write_series(tmp_path, numbered, upright, slope=1, intercept=0)
    change(paths[2], RescaleSlope="0.5", RescaleIntercept="10")
    volume = files.read(tmp_path)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array[:, :, 2], numbered[:, :, 2] * 0.5 + 10)
    np.testing.assert_allclose(volume.array[:, :, 3], numbered[:, :, 3])


def test_values_beyond_int16_are_not_wrapped(tmp_path, upright, numbered):
    write_series(tmp_path, numbered * 100, upright, slope=3, intercept=0)
    volume = files.read(tmp_path)
    assert volume.array.max() == int(numbered.max()) * 300
    assert volume.array.dtype == np.int32 or volume.array.dtype == np.uint16


def test_one_slice_takes_its_thickness(tmp_path, upright, numbered):
    write_series(tmp_path, numbered[:, :, :1], upright)
    volume = files.read(tmp_path)
    assert volume.grid.shape == (6, 5, 1)
    assert volume.grid.spacing_mm[2] == pytest.approx(9.9)
    assert files.read(tmp_path / "im000.dcm").grid == volume.grid


def test_a_file_without_preamble_is_told_from_content(tmp_path, upright, numbered):
    for path in write_series(tmp_path, numbered, upright):
        raw = pydicom.dcmread(path)
        del raw.file_meta
        raw.preamble = None
        pydicom.dcmwrite(
            path.with_suffix(""),
            raw,
            implicit_vr=True,
            little_endian=True,
            enforce_file_format=False,
        )
        path.unlink()
    assert next(iter(tmp_path.iterdir())).read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(files.read(tmp_path).array, numbered - 1024)


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path, upright, numbered):
    write_series(tmp_path / "a", numbered, upright, uid="1.2.3")
    write_series(tmp_path / "b", numbered + 1, upright, uid="1.2.4")
    with pytest.raises(
        FormatError,
        match=r"(?s)2 series in one folder, choose one as FOLDER#SERIES_UID: .*1\.2\.3.*1\.2\.4",
    ):
        files.read(tmp_path)
    assert files.read(f"{tmp_path}#1.2.4").array.min() == -1023
    assert files.read(Source(str(tmp_path), series="1.2.3")).array.min() == -1024
    with pytest.raises(FormatError, match="no series 9 here"):
        files.read(f"{tmp_path}#9")
    assert [s.uid for s in dicom.find_series(tmp_path)] == ["1.2.3", "1.2.4"]


def test_the_only_usable_series_is_taken(tmp_path, upright, numbered):
    write_series(tmp_path / "a", numbered, upright, uid="1.2.3")
    write_series(
        tmp_path / "scout",
        numbered[:, :, :2],
        upright,
        uid="1.2.4",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    assert files.read(tmp_path).meta["series"] == "1.2.3"
    found = {s["uid"]: s for s in files.describe(tmp_path)["series"]}
    assert "localisers" in found["1.2.4"]["refused"]
    assert found["1.2.3"]["shape"] == [6, 5, 8]
    assert found["1.2.3"]["unit"] == "HU"


# ---- what is refused, each with its reason ----


def refused(folder, kind, reason):
    with pytest.raises(kind, match=reason) as caught:
        files.read(folder)
    assert str(folder) in str(caught.value)
    assert reason.split(".*")[0] in dicom.problem_of(dicom.find_series(folder)[0])


def test_uneven_gap(tmp_path, upright, numbered):
    paths = write_series(tmp_path, numbered, upright)
    paths[4].unlink()
    refused(
        tmp_path,
        GeometryError,
        rf"uneven gaps: 1 of 6 differ from 2.50 mm: 5.00 mm between {paths[3].name} and "
        rf"{paths[5].name}",
    )


def test_a_slice_slightly_off_its_place(tmp_path, upright, numbered):
    paths = write_series(tmp_path, numbered, upright)
    x, y, z = pydicom.dcmread(paths[3]).ImagePositionPatient
    change(paths[3], ImagePositionPatient=[x + 0.2, y, z])
    refused(tmp_path, GeometryError, f"uneven positions: {paths[3].name} is 0.20 mm")


def test_duplicate_slices_and_time_points(tmp_path, upright, numbered):
    paths = write_series(tmp_path / "a", numbered, upright)
    shutil.copy(paths[2], tmp_path / "a/copy.dcm")
    volume = files.read(tmp_path / "a")
    np.testing.assert_array_equal(volume.array, numbered - 1024)
    assert volume.meta["notes"] == [
        f"1 file is an exact copy and is not counted ({paths[2].name} of copy.dcm)"
    ]
    change(tmp_path / "a/copy.dcm", PixelData=bytes(60))
    refused(tmp_path / "a", FormatError, f"copy.dcm and {paths[2].name} have the same SOPInstance")
    write_series(tmp_path / "b/1", numbered, upright, uid="1.2.3")
    write_series(tmp_path / "b/2", numbered, upright, uid="1.2.3")
    refused(tmp_path / "b", FormatError, "16 slices at 8 positions, up to 2 at one, and no attr")


def test_tilted_gantry(tmp_path, upright, numbered):
    paths = write_series(tmp_path, numbered, upright)
    for k, path in enumerate(paths):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[x, y + k * 2.5 * np.tan(np.deg2rad(12)), z])
    volume = files.read(tmp_path)
    assert volume.grid.shear_deg == pytest.approx(12, abs=0.01)
    np.testing.assert_array_equal(volume.array, numbered - 1024)
    # Every slice is where its own header puts it.
    for path in tmp_path.iterdir():
        header = pydicom.dcmread(path)
        x, y, z = header.ImagePositionPatient
        k = round(float(volume.grid.to_index((-x, -y, z))[2]))
        np.testing.assert_array_equal(volume.array[..., k].T + 1024, header.pixel_array)
        np.testing.assert_allclose(volume.grid.to_mm((0, 0, k)), (-x, -y, z), atol=1e-3)
    for k, path in enumerate(paths):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[x, y + k * 6.0, z])
    refused(tmp_path, GeometryError, "off the normal of their planes")


def test_mixed_series(tmp_path, upright, numbered):
    paths = write_series(tmp_path, numbered, upright)
    change(paths[1], ImageOrientationPatient=[1, 0, 0, 0, 0, 1])
    refused(tmp_path, GeometryError, "uneven gaps")
    change(paths[1], Columns=5, PixelData=bytes(50))
    refused(tmp_path, GeometryError, "uneven gaps")
    # At an end, it leaves a whole stack.
    (tmp_path / "end").mkdir()
    paths = write_series(tmp_path / "end", numbered, upright)
    change(paths[7], ImageOrientationPatient=[1, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(files.read(tmp_path / "end").array, numbered[..., :7] - 1024)
    assert sorted(s.part for s in dicom.find_series(tmp_path / "end")) == ["axial", "coronal"]


@pytest.mark.parametrize(
    "field", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_missing_geometry(tmp_path, upright, numbered, field):
    change(write_series(tmp_path, numbered, upright)[5], **{field: None})
    refused(tmp_path, GeometryError, f"{field} is missing or unreadable in 1 of 8 files")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"NumberOfFrames": 2}, "frames without positions"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "a mosaic that does not state"),
        ({"SamplesPerPixel": 4}, "pixels of 4 samples"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localisers"),
    ],
)
def test_kinds_of_a_later_version(tmp_path, upright, numbered, fields, reason):
    write_series(tmp_path, numbered, upright, **fields)
    refused(tmp_path, FormatError, reason)


def test_pixels_that_are_missing_or_cut(tmp_path, upright, numbered):
    paths = write_series(tmp_path, numbered, upright)
    change(paths[4], PixelData=bytes(10))
    with pytest.raises(FormatError, match=paths[4].name):
        files.read(tmp_path)
    change(paths[4], PixelData=None)
    with pytest.raises(FormatError, match="without pixel data"):
        files.read(tmp_path)


def test_an_unreadable_header_is_told(tmp_path, upright, numbered):
    path = write_series(tmp_path, numbered, upright)[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        FormatError, match=rf"of its 8 files, 1 is damaged or truncated \({path.name}: it ends"
    ):
        files.read(tmp_path)  # the lowest slice: without it the stack would look whole


# ---- real scans ----


def test_chaos_gap_is_measured_and_order_is_by_place(real_data):
    folder = real_data / "chaos_ct/DICOM_anon"
    volume = files.read(folder)
    assert volume.grid.shape == (512, 512, 78)
    assert volume.grid.spacing_mm == pytest.approx((0.7265625, 0.7265625, 2.0))
    lowest = pydicom.dcmread(folder / "i0077,0000b.dcm")  # z falls as names rise
    assert volume.grid.to_mm((0, 0, 0))[2] == pytest.approx(float(lowest.ImagePositionPatient[2]))
    np.testing.assert_array_equal(volume.array[:, :, 0], lowest.pixel_array.T.astype(int) - 1000)
    assert volume.array.dtype == np.int16
    assert volume.unit == "HU"


def test_chaos_liver_masks_stand_on_the_liver(real_data):
    scan = files.read(real_data / "chaos_ct/DICOM_anon")
    source = Source(str(real_data / "chaos_ct/Ground"), like=str(real_data / "chaos_ct/DICOM_anon"))
    mask = files.read(source)
    assert mask.grid == scan.grid == files.read_grid(source)
    inside = scan.array[mask.array > 0]
    assert 120 < inside.mean() < 160
    assert inside.std() < 45
    upside_down = scan.array[mask.array[:, :, ::-1] > 0]
    assert upside_down.std() > 200  # what a wrong order would look like


@pytest.mark.parametrize("patient", ["STS_008", "STS_019", "STS_025", "STS_042"])
@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_sarcoma_series_equal_an_independent_conversion(real_data, patient, modality):
    ours = files.read(real_data / f"sarcoma/dicom/{patient}/{modality}/image")
    theirs = files.read(real_data / f"sarcoma/nifti/{patient}/{modality}_image.nii.gz")
    moved = theirs.reorient(ours.grid.codes)
    assert moved.grid.distance_mm(ours.grid) < 0.05
    np.testing.assert_allclose(
        moved.array, ours.array, rtol=1e-4, atol=1e-4 * float(np.abs(ours.array).max())
    )


def test_time_points_equal_the_reference_conversion(real_data):
    source = real_data / "dicom/dcm_qa_nih/In/20180918GE/mr_0004"
    found = dicom.find_series(source)
    assert [one.part for one in found] == [f"t{n:03d}" for n in range(1, 11)]
    theirs = files.read(real_data / "dicom/dcm_qa_nih/Ref/DCM2NIIX_regression_test_4.nii")
    for n, one in enumerate(found):
        ours = dicom.read_series(one)
        volume = theirs.with_array(theirs.array[n]).reorient(ours.grid.codes)
        assert volume.grid.distance_mm(ours.grid) < 0.05
        np.testing.assert_array_equal(volume.array, ours.array)
    with pytest.raises(FormatError, match="10 volumes of 1 series, choose one as"):
        files.read(source)
    assert files.read(f"{source}#{found[3].id}").meta["part"] == "t004"


@pytest.mark.parametrize("kind", ["", "_jpegls", "_j2k", "_jpeg"])
def test_compressed_syntaxes_give_the_same_pixels(real_data, kind):
    plain = files.read(real_data / "dicom/vendors/generic/compressed_rle/001")
    packed = files.read(real_data / f"dicom/vendors/generic/compressed{kind}/001")
    np.testing.assert_array_equal(packed.array, plain.array)
    assert packed.grid == plain.grid


def test_objects_without_images_are_left_out_and_named(real_data):
    series, others = dicom.find(real_data / "sarcoma/dicom/STS_008")
    assert sorted(s.modality for s in series) == ["CT", "MR", "PT"]
    assert [what for _, what in others] == ["RTSTRUCT"] * 3
    with pytest.raises(FormatError, match=r"without images \(RTSTRUCT\)"):
        files.read(real_data / "sarcoma/dicom/STS_008/CT/mask")


def test_a_run_opens_each_file_for_its_header_and_for_its_pixels(
    tmp_path, upright, numbered, monkeypatch
):
    paths = write_series(tmp_path, numbered, upright)
    time.sleep(2 * STILL_NS / 1e9)  # files that were just written are read again
    opened, counts = disk.opened, Counter()

    def counted(path):
        counts[Path(path).name] += 1
        return opened(path)

    monkeypatch.setattr(disk, "opened", counted)
    for _ in range(3):
        assert len(dicom.find_series(tmp_path)) == 1
    (series,) = dicom.find_series(tmp_path)
    first = dicom.read_series(series)
    assert set(counts.values()) == {2}
    change(paths[0], RescaleIntercept="5")  # a file that changes is read again
    assert not np.array_equal(files.read(tmp_path).array, first.array)
