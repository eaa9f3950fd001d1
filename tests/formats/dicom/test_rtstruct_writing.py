"""Structure sets that are written: the same voxels again, on every grid, for every reader."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from objects import at, ct, enhanced, write
from scipy import ndimage

from delineate.core.errors import GeometryError, OutputError
from delineate.core.labels import Label, LabelSet
from delineate.core.volume import Volume
from delineate.formats import dicom
from delineate.formats.dicom.rtstruct import read_rtstruct, write_rtstruct
from delineate.formats.polygons import inside_polygon

ALGORITHM = {"algorithm_name": "test network", "algorithm_version": "1.0"}
SHAPE = (30, 26, 9)  # columns, rows, slices
LABELS = LabelSet(
    (
        Label(1, "liver", (221, 130, 101)),
        Label(2, "left kidney", (0, 114, 178), side="left"),
        Label(5, "tumour", (240, 228, 66)),
    )
)
SPACING = {"PixelSpacing": [0.7, 1.3]}
# Orientation and the way from slice to slice, in mm.
GRIDS = {
    "anisotropic": ([1, 0, 0, 0, 1, 0], (0, 0, 4)),
    "oblique": ([0.8, 0.36, 0.48, -0.6, 0.48, 0.64], (0, -3 * 0.8, 3 * 0.6)),
    "tilted": ([1, 0, 0, 0, 1, 0], (0, 0.9, 4)),
    "against the slices": ([1, 0, 0, 0, -1, 0], (0, 0, -2)),
}
STUDY = {"FrameOfReferenceUID": "1.2.840.9", "StudyDate": "20240229", "StudyTime": "081500"}


def series(folder: Path, grid: str = "anisotropic") -> dicom.Series:
    orientation, step = GRIDS[grid]
    slices = [
        ct(
            np.zeros(SHAPE[1::-1], np.int16),
            ImageOrientationPatient=orientation,
            ImagePositionPatient=[10 + k * step[0], -200 + k * step[1], 30 + k * step[2]],
            InstanceNumber=k + 1,
            **SPACING,
            **STUDY,
        )
        for k in range(SHAPE[2])
    ]
    write(folder, *slices)
    (found,) = dicom.find_series(folder)
    return found


def labelled(one: dicom.Series, seed: int = 0) -> Volume:
    """Irregular structures with holes, islands, and some voxels of their own."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), (2, 2, 1))
    array = np.zeros(SHAPE, np.uint8)
    for value, low, high in ((1, 0.3, 0.6), (2, 0.6, 0.9), (5, 0.9, 1)):
        array[(noise > np.quantile(noise, low)) & (noise <= np.quantile(noise, high))] = value
    array[0, 0, 3] = array[-1, -1, 4] = 1
    return Volume(array, dicom.layout(one)[0], "label")


@pytest.mark.parametrize("grid", GRIDS)
def test_the_same_voxels_are_drawn_again(tmp_path: Path, grid: str):
    one = series(tmp_path / "ct", grid)
    masks = labelled(one)
    assert write_rtstruct(masks, LABELS, one, tmp_path / "s.dcm", **ALGORITHM) == []
    again = read_rtstruct(tmp_path / "s.dcm", masks.grid)
    assert again.meta["names"] == {1: "liver", 2: "left kidney", 3: "tumour"}
    assert again.meta["notes"] == ()
    np.testing.assert_array_equal(again.array, np.array([0, 1, 2, 0, 0, 3])[masks.array])


def test_structures_that_overlap_are_kept_apart(tmp_path: Path):
    one = series(tmp_path / "ct")
    nested = LabelSet.from_names({1: "whole", 2: "core"}, overlapping=True)
    array = np.zeros(SHAPE, np.uint8)
    array[5:20, 5:20, 2:7] = 1  # bit of the first structure
    array[8:12, 8:12, 3:5] = 3
    masks = Volume(array, dicom.layout(one)[0], "label")
    write_rtstruct(masks, nested, one, tmp_path / "s.dcm", **ALGORITHM)
    again = read_rtstruct(tmp_path / "s.dcm", masks.grid)
    np.testing.assert_array_equal(again.array, [array > 0, array == 3])


def test_a_hole_is_joined_by_a_keyhole(tmp_path: Path):
    """Readers that fill each contour, without exclusive or, keep the hole too."""
    one = series(tmp_path / "ct")
    array = np.zeros(SHAPE, np.uint8)
    array[4:20, 4:20, 4], array[8:15, 8:15, 4], array[10:12, 10:12, 4] = 1, 0, 1
    masks = Volume(array, dicom.layout(one)[0], "label")
    write_rtstruct(masks, LABELS, one, tmp_path / "s.dcm", **ALGORITHM)
    (drawn,) = pydicom.dcmread(tmp_path / "s.dcm").ROIContourSequence
    assert len(drawn.ContourSequence) == 2  # the ring in one contour, and the island
    filled = np.zeros(SHAPE[1::-1], bool)
    for contour in drawn.ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3) * (-1, -1, 1)
        filled |= inside_polygon(masks.grid.to_index(points)[:, :2] + 0.5, *filled.shape)
    np.testing.assert_array_equal(filled.T, array[:, :, 4] > 0)


def test_each_contour_names_its_slice_and_fits_the_standard(tmp_path: Path):
    one = series(tmp_path / "ct")
    write_rtstruct(labelled(one), LABELS, one, tmp_path / "s.dcm", **ALGORITHM)
    written = pydicom.dcmread(tmp_path / "s.dcm")
    assert written.file_meta.TransferSyntaxUID.is_implicit_VR
    places = {}
    for path in one.files:
        source = pydicom.dcmread(path)
        places[source.SOPInstanceUID] = float(source.ImagePositionPatient[2])
    for drawn in written.ROIContourSequence:
        for contour in drawn.ContourSequence:
            (image,) = contour.ContourImageSequence
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints >= 3
            assert set(points[:, 2]) == {places[image.ReferencedSOPInstanceUID]}
            assert max(len(str(value)) for value in contour.ContourData) <= 16
    assert [roi.ROIName for roi in written.StructureSetROISequence] == LABELS.names
    colours = [list(roi.ROIDisplayColor) for roi in written.ROIContourSequence]
    assert colours == [[221, 130, 101], [0, 114, 178], [240, 228, 66]]
    seen = written.RTROIObservationsSequence
    assert [item.RTROIInterpretedType for item in seen] == ["ORGAN", "ORGAN", ""]
    codes = [item.RTROIIdentificationCodeSequence[0].CodeValue for item in seen]
    assert codes == ["10200004", "64033007", "108369006"]
    (frame,) = written.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    assert {
        image.ReferencedSOPInstanceUID
        for image in study.RTReferencedSeriesSequence[0].ContourImageSequence
    } == set(places)
    assert dicom.references(tmp_path / "s.dcm").names(one)
    if validator := shutil.which("dciodvfy"):
        done = subprocess.run([validator, tmp_path / "s.dcm"], capture_output=True, text=True)
        assert "Error" not in done.stdout + done.stderr


def test_the_uid_follows_from_the_content(tmp_path: Path):
    one = series(tmp_path / "ct")
    masks = labelled(one)

    def uids(name: str, volume: Volume = masks, labels: LabelSet = LABELS, **words):
        write_rtstruct(volume, labels, one, tmp_path / name, **ALGORITHM | words)
        written = pydicom.dcmread(tmp_path / name)
        return written.SOPInstanceUID, written.SeriesInstanceUID

    first = uids("a.dcm")
    assert uids("b.dcm") == first
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    array = masks.array.copy()
    array[0, 0, 3] = 0
    renamed = LabelSet(tuple(Label(v.value, v.name + " 2", v.colour) for v in LABELS))
    others = [
        uids("c.dcm", masks.with_array(array)),
        uids("d.dcm", labels=renamed),
        uids("e.dcm", algorithm_version="1.1"),
    ]
    assert len({first, *others}) == 4


def test_small_contours_are_left_out_on_request(tmp_path: Path):
    one = series(tmp_path / "ct")
    array = np.zeros(SHAPE, np.uint8)
    array[3:9, 3:9, 4] = 1
    array[20, 20, 4] = array[20, 20, 5] = 1
    masks = Volume(array, dicom.layout(one)[0], "label")
    notes = write_rtstruct(masks, LABELS, one, tmp_path / "s.dcm", smallest_mm2=5.0, **ALGORITHM)
    assert "liver: 2 contours of less than 5 mm2 are left out" in notes
    array[20, 20] = 0
    again = read_rtstruct(tmp_path / "s.dcm", masks.grid)
    np.testing.assert_array_equal(again.array, array)


def test_refusals_leave_no_file(tmp_path: Path):
    one = series(tmp_path / "ct")
    masks = labelled(one)
    with pytest.raises(OutputError, match="no structure has a voxel"):
        empty = masks.with_array(np.zeros(SHAPE, np.uint8))
        write_rtstruct(empty, LABELS, one, tmp_path / "s.dcm", **ALGORITHM)
    with pytest.raises(GeometryError, match="not on the slices of the series"):
        smaller = Volume(masks.array[1:], masks.grid.crop((1, 0, 0), SHAPE), "label")
        write_rtstruct(smaller, LABELS, one, tmp_path / "s.dcm", **ALGORITHM)
    assert not (tmp_path / "s.dcm").exists()


def test_frames_are_referred_to_by_their_number(tmp_path: Path):
    pixels = np.zeros((5, 12, 10), np.uint16)
    write(tmp_path / "e", enhanced(pixels, [at(0, 0, 3 * k) for k in range(5)], **STUDY))
    (one,) = dicom.find_series(tmp_path / "e")
    array = np.zeros((10, 12, 5), np.uint8)
    array[2:6, 3:9, 1:4] = 1
    masks = Volume(array, dicom.layout(one)[0], "label")
    write_rtstruct(masks, LABELS, one, tmp_path / "s.dcm", **ALGORITHM)
    written = pydicom.dcmread(tmp_path / "s.dcm")
    numbers = [
        contour.ContourImageSequence[0].ReferencedFrameNumber
        for contour in written.ROIContourSequence[0].ContourSequence
    ]
    assert numbers == [2, 3, 4]
    again = read_rtstruct(tmp_path / "s.dcm", masks.grid)
    np.testing.assert_array_equal(again.array, array)
