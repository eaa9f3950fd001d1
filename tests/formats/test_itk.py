"""NRRD and MetaImage as SimpleITK and the DICOM segmentation tools write them."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from delineate.core.errors import FormatError
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files, itk


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_voxel_stands_where_itk_puts_it(tmp_path, grid, asymmetric, ending):
    image = sitk.GetImageFromArray(asymmetric.transpose(2, 1, 0))
    flip = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin((flip @ grid.affine[:3, 3]).tolist())
    image.SetDirection((flip @ grid.affine[:3, :3] / grid.spacing_mm).ravel().tolist())
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path))
    volume = files.read(path)
    np.testing.assert_array_equal(volume.array, asymmetric)
    for index in ((0, 0, 0), (2, 3, 1), tuple(n - 1 for n in grid.shape)):
        np.testing.assert_allclose(
            flip @ image.TransformIndexToPhysicalPoint(index), volume.grid.to_mm(index), atol=1e-4
        )


@pytest.mark.parametrize(
    ("lines", "spacing_mm", "is_known"),
    [
        ("ElementSpacing = 1 2 3\n", (1, 2, 3), True),
        ("ElementSize = 1 2 3\nDistanceUnits = ?\n", (1, 2, 3), True),
        ("ElementSpacing = 1 2 3\nDistanceUnits = cm\n", (10, 20, 30), True),
        ("ElementSpacing = 1 2 3\nDistanceUnits = um\n", (0.001, 0.002, 0.003), True),
        ("", (1, 1, 1), False),
    ],
)
def test_units_of_length_and_no_spacing(tmp_path, lines, spacing_mm, is_known):
    header = f"NDims = 3\nDimSize = 2 1 1\nElementType = MET_UCHAR\nOffset = 5 0 0\n{lines}"
    (tmp_path / "a.mha").write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + b"\1\2")
    volume = files.read(tmp_path / "a.mha")
    np.testing.assert_allclose(volume.spacing_mm, spacing_mm)
    np.testing.assert_allclose(volume.grid.affine[0, 3], -5 * spacing_mm[0])
    assert volume.meta["spacing_known"] is volume.meta["place_known"] is is_known


def test_flat_images_and_vectors(tmp_path):
    sitk.WriteImage(
        sitk.GetImageFromArray(np.arange(12, dtype=np.int16).reshape(3, 4)), str(tmp_path / "a.mha")
    )
    volume = files.read(tmp_path / "a.mha")
    assert volume.array.shape == (4, 3, 1)
    np.testing.assert_array_equal(volume.array[..., 0], np.arange(12).reshape(3, 4).T)
    sitk.WriteImage(
        sitk.GetImageFromArray(np.arange(24, dtype=np.uint8).reshape(3, 4, 2), isVector=True),
        str(tmp_path / "b.nrrd"),
    )
    colours = files.read(tmp_path / "b.nrrd")
    assert colours.array.shape == (2, 4, 3, 1)
    assert colours.array[1, 3, 2, 0] == 23


def test_segment_names_are_written_and_read(tmp_path, grid):
    labels = LabelSet.from_names({1: "liver", 4: "left kidney"})
    files.write(
        Volume(np.zeros(grid.shape, np.uint8), grid, "label"), tmp_path / "a.nrrd", labels=labels
    )
    segments = files.read(tmp_path / "a.nrrd").meta["segments"]
    assert segments["Segment1_Name"] == "left kidney"
    assert segments["Segment1_LabelValue"] == "4"


def test_a_missing_data_file_is_told(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(FormatError, match=r"a\.mhd"):
        files.read(tmp_path / "a.mhd")


def test_real_masks_stand_on_the_ct_they_were_drawn_on(real_data):
    mask = files.read(real_data / "dicom_seg/liver_seg.nrrd")
    scan = files.read(real_data / "dicom_seg/ct-3slice")
    assert int((mask.array > 0).sum()) == 107098
    assert scan.grid.spacing_mm[2] == pytest.approx(1.0)
    moved, _ = mask.grid.reorient(scan.grid.codes)
    assert moved.distance_mm(scan.grid) < 0.05
    inside = scan.array[mask.reorient(scan.grid.codes).array > 0]
    assert 30 < np.median(inside) < 200
    assert scan.unit == "HU"


def test_a_function_of_intensities_is_noted_and_not_applied(tmp_path):
    header = "NDims = 2\nDimSize = 2 1\nElementType = MET_UCHAR\n"
    function = "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = 5\n"
    for name, words in (
        ("a.mha", function),
        ("b.mha", function.replace("2", "1").replace("5", "0")),
    ):
        (tmp_path / name).write_bytes(
            f"{header}{words}ElementDataFile = LOCAL\n".encode() + b"\1\2"
        )
    volume = files.read(tmp_path / "a.mha")
    assert "2 times the values, and 5 more" in volume.meta["notes"][0]
    np.testing.assert_array_equal(volume.array.ravel(), [1, 2])
    assert "notes" not in files.read(tmp_path / "b.mha").meta


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("Offset = 1 1\nPosition = 2 2\n", "Offset and Position state the same with different"),
        ("ElementSpacing = 1 1\nElementSpacing = 3 3\n", "ElementSpacing is stated twice"),
        ("BinaryDataByteOrderMSB = maybe\n", "BinaryDataByteOrderMSB is 'maybe'"),
        ("Offset = 1 1\nImagePosition = 2 2\n", "Offset and ImagePosition state the same"),
        ("BinaryDataByteOrderMSB = F\nElementByteOrderMSB = T\n", "state two byte orders"),
        ("HeaderSize = 5\n", "HeaderSize 5; allowed"),
        ("CompressedData = True\nHeaderSize = -1\n", "HeaderSize -1; allowed"),
        ("BinaryData = False\nCompressedData = True\n", "CompressedData of numbers"),
    ],
)
def test_a_header_that_contradicts_itself(tmp_path, lines, found):
    header = f"NDims = 2\nDimSize = 2 1\nElementType = MET_UCHAR\n{lines}ElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + b"\1\2")
    with pytest.raises(FormatError, match=found):
        files.read(tmp_path / "a.mha")


def test_a_word_of_truth_is_known_by_its_first_letter(tmp_path):
    header = "NDims = 2\nDimSize = 1 1\nElementType = MET_USHORT\nElementByteOrderMSB = T\n"
    (tmp_path / "a.mha").write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + b"\1\2")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.mha")))
    assert files.read(tmp_path / "a.mha").array.ravel() == theirs.ravel() == [258]


SLICES = np.arange(24, dtype="<u2").reshape(4, 3, 2) + 1  # (z, y, x)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("", "LIST\ns1\ns2\ns3\ns4"),
        ("", "LIST 1\n" + "\n".join(f"r{n}" for n in range(12))),
        ("", "s%d 1 4 1"),
        ("", "s%d 1"),
        ("", "s%01d"),
        ("HeaderSize = 5\n", "h"),
        ("HeaderSize = -1\n", "h"),
        ("HeaderSize = 5\nCompressedData = True\nCompressedDataSize = {size}\n", "z"),
        ("ImagePosition = 5 6 7\n", "h"),
    ],
)
def test_data_files_as_itk_finds_them(tmp_path, lines, names):
    packed = zlib.compress(SLICES.tobytes())
    for n, one in enumerate(SLICES, start=1):
        (tmp_path / f"s{n}").write_bytes(one.tobytes())
    for n, one in enumerate(SLICES.reshape(12, 2)):
        (tmp_path / f"r{n}").write_bytes(one.tobytes())
    (tmp_path / "h").write_bytes(b"12345" * ("HeaderSize" in lines) + SLICES.tobytes())
    (tmp_path / "z").write_bytes(b"12345" + packed)
    header = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_USHORT\n"
    path = tmp_path / "a.mhd"
    path.write_text(f"{header}{lines.format(size=len(packed))}ElementDataFile = {names}\n")
    ours, theirs = files.read(path), itk.from_image(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(ours.array.T, SLICES)
    np.testing.assert_array_equal(theirs.array.T, SLICES)
    np.testing.assert_allclose(ours.grid.affine, theirs.grid.affine)
    assert len(files.companions(path)) == {"L": names.count("\n"), "s": 4}.get(names[0], 1)


def test_a_pattern_may_count_down(tmp_path):
    for n in (3, 2):
        (tmp_path / f"s{n}").write_bytes(bytes([n]))
    header = "NDims = 3\nDimSize = 1 1 2\nElementType = MET_UCHAR\nElementDataFile = s%d 3 2 -1\n"
    (tmp_path / "a.mhd").write_text(header)
    assert files.read(tmp_path / "a.mhd").array.ravel().tolist() == [3, 2]


@pytest.mark.parametrize(
    ("lines", "modality", "found"),
    [
        ("Modality = MET_MOD_MR\n", "MR", ""),
        ("Modality = MET_MOD_CT\nAnatomicalOrientation = RAI\n", "CT", ""),
        ("Modality = MET_MOD_OTHER\nCenterOfRotation = 9 9 9\n", "", ""),
        ("Modality = slow\n", "", "the modality 'slow', which is not known"),
        ("AnatomicalOrientation = LPI\n", "", "begin at LPI .* read as RAI, as by ITK"),
        (
            "TransformMatrix = -1 0 0 0 -1 0 0 0 1\nAnatomicalOrientation = RAI\n",
            "",
            "begin at RAI .* read as LPI, which TransformMatrix states",
        ),
        ("TransformMatrix = 0.6 0.8 0 -0.8 0.6 0 0 0 1\nAnatomicalOrientation = ALI\n", "", ""),
        ("Rotation = 0 1 0 1 0 0 0 0 1\nCenterOfRotation = 9 9 9\n", "", "CenterOfRotation of 9 9"),
        ("Rotation = 0 1 0 1 0 0 0 0 1\nCenterOfRotation = 0 0 0\n", "", ""),
        ("ElementMin = 0\nElementMax = 1\n", "", "values from 0 to 1 .* they are 1 to 2"),
        ("ElementMin = 0\nElementMax = 0\n", "", ""),
        ("ObjectType = Tube\n", "", "object of the type 'Tube'; it is read as an image"),
        ("elementSpacing = 2 2 2\n", "", "elementSpacing, which is not read: it is no ElementS"),
    ],
)
def test_modality_and_what_a_metaimage_states_besides(tmp_path, lines, modality, found):
    header = f"NDims = 3\nDimSize = 2 1 1\nElementType = MET_UCHAR\n{lines}"
    (tmp_path / "a.mha").write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + b"\1\2")
    volume = files.read(tmp_path / "a.mha")
    assert volume.meta["modality"] == modality
    notes = volume.meta.get("notes", [])
    assert len(notes) == bool(found) and (not found or re.search(found, notes[0]))


def test_an_oblique_image_of_itk_has_no_note(tmp_path):
    image = sitk.Image(2, 2, 2, sitk.sitkUInt8)
    for seed in range(20):
        turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
        image.SetDirection(turned.ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / "a.mha"))
        assert "notes" not in files.read(tmp_path / "a.mha").meta
