"""2-D images, clips and colours, and objects that are refused by their kind."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from objects import UPRIGHT, image, write
from pydicom.uid import MPEG2MPML, UID

from delineate.core.errors import FormatError, GeometryError
from delineate.formats import dicom, files

ROOT = "1.2.840.10008.5.1.4.1.1."
GREY = np.array([[1, 2, 3], [4, 5, 6]], np.uint16)  # 2 rows, 3 columns
COLOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


def radiograph(sop_class="1", modality="CR", pixels=GREY, **fields):
    return image(pixels, sop_class=ROOT + sop_class, modality=modality, **fields)


def read(folder, *objects):
    write(folder, *objects)
    return files.read(folder)


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1", "CR"),
        ("1.1", "DX"),
        ("1.2", "MG"),
        ("6.1", "US"),
        ("7", "OT"),
        ("12.1", "XA"),
        ("77.1.4", "XC"),
        ("77.1.5.1", "OP"),
    ],
)
def test_an_image_is_a_picture_with_one_slice(tmp_path, sop_class, modality):
    volume = read(tmp_path, radiograph(sop_class, modality, PixelSpacing=[0.2, 0.1]))
    assert volume.array[..., 0].T.tolist() == GREY.tolist()
    # Columns to the left, rows to the back, as pictures have; the spacing of rows comes first.
    assert (volume.spacing_mm, volume.grid.codes) == ((0.1, 0.2, 1.0), "LPS")
    assert (volume.meta["spacing_known"], volume.meta["place_known"]) == (True, False)
    assert volume.meta["modality"] == modality
    assert files.read_grid(tmp_path).matches(volume.grid)


def region(down, across, **fields):
    one = pydicom.Dataset()
    one.PhysicalUnitsXDirection = one.PhysicalUnitsYDirection = 3
    one.PhysicalDeltaX, one.PhysicalDeltaY, one.RegionDataType = across, down, 1
    for name, value in fields.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    ("fields", "spacing_mm", "by"),
    [
        ({}, (1, 1, 1), ""),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.1, 0.2, 1), "ImagerPixelSpacing"),
        ({"PixelSpacing": [0.3, 0.3], "ImagerPixelSpacing": [0.4, 0.4]}, (0.3, 0.3, 1), None),
        ({"NominalScannedPixelSpacing": [0.2, 0.1]}, (0.1, 0.2, 1), "NominalScannedPixelSpacing"),
        # cm in one pixel; a trace over time has no spacing in mm.
        (
            {
                "SequenceOfUltrasoundRegions": [
                    region(0.02, 0.01),
                    region(1, 0.1, RegionDataType=3, PhysicalUnitsXDirection=4),
                ]
            },
            (0.1, 0.2, 1),
            "ultrasound region",
        ),
        # Two scales in one picture.
        ({"SequenceOfUltrasoundRegions": [region(0.02, 0.01), region(0.03, 0.01)]}, (1, 1, 1), ""),
    ],
)
def test_what_states_the_spacing(tmp_path, fields, spacing_mm, by):
    volume = read(tmp_path, radiograph("6.1", "US", **fields))
    assert volume.spacing_mm == pytest.approx(spacing_mm)
    assert volume.meta.get("spacing_by") == by
    assert volume.meta["spacing_known"] == (by != "")


def test_frames_of_a_clip_are_images(tmp_path):
    clip = np.arange(32, dtype=np.uint8).reshape(4, 2, 4)
    write(tmp_path, radiograph("3.1", "US", clip))
    found = dicom.find_series(tmp_path)
    assert [one.part for one in found] == ["frame1", "frame2", "frame3", "frame4"]
    assert [dicom.read_series(one).array[..., 0].T.tolist() for one in found] == clip.tolist()


def test_images_of_one_series_are_not_a_volume(tmp_path):
    write(tmp_path, radiograph(), radiograph(pixels=GREY + 1))
    found = dicom.find_series(tmp_path)
    assert [one.part for one in found] == ["image1", "image2"]
    assert dicom.read_series(found[1]).array[0, 0, 0] == 2


def test_colours_are_channels(tmp_path):
    volume = read(tmp_path / "rgb", radiograph("77.1.4", "XC", COLOUR))
    assert volume.meta["channels"] == ["red", "green", "blue"]
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array[..., 0].transpose(2, 1, 0), COLOUR)
    planar = radiograph("77.1.4", "XC", COLOUR, PlanarConfiguration=1)
    planar.PixelData = COLOUR.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(read(tmp_path / "planar", planar).array, volume.array)
    # Full-range YCbCr of pure red (PS3.3 C.7.6.3.1.2): 76, 85, 255.
    red = np.array([[[76, 85, 255], [128, 128, 128]]], np.uint8)
    converted = radiograph("3.1", "US", red, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(
        read(tmp_path / "ybr", converted).array[:, 0, 0, 0], [254, 0, 0], atol=1
    )


def test_palette_is_expanded(tmp_path):
    one = radiograph("6.1", "US", np.array([[0, 1, 2]], np.uint8))
    one.PhotometricInterpretation = "PALETTE COLOR"
    tables = {"Red": (0, 255, 9, 5), "Green": (0, 128, 8, 5), "Blue": (0, 1, 7, 5)}
    for name, values in tables.items():
        setattr(one, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(one, f"{name}PaletteColorLookupTableData", bytes(values))
    volume = read(tmp_path, one)
    assert volume.array[:, :, 0, 0].T.tolist() == [[0, 0, 0], [255, 128, 1], [9, 8, 7]]


def test_a_colour_stack_is_a_volume(tmp_path):
    place = {"ImageOrientationPatient": UPRIGHT, "PixelSpacing": [1, 1]}
    stack = [
        radiograph("7", "OT", COLOUR + n, ImagePositionPatient=[0, 0, 2 * n], **place)
        for n in range(3)
    ]
    volume = read(tmp_path, *stack)
    assert volume.array.shape == (3, 2, 2, 3)
    assert volume.array[:, 1, 1, 2].tolist() == [12, 22, 32]
    assert volume.meta["place_known"]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (radiograph("77.1.6", "SM", COLOUR), "a whole-slide image; OpenSlide and wsidicom"),
        (radiograph("77.1.1.1", "ES", COLOUR, NumberOfFrames=3), r"a video \(MPEG-2\); FFmpeg"),
        (
            image(GREY, ImageOrientationPatient=UPRIGHT, PixelSpacing=[1, 1]),
            "ImagePositionPatient is missing",
        ),
        (
            image(
                GREY,
                ImagePositionPatient=[0, 0, 0],
                PixelSpacing=[1, 1],
                ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0],
            ),
            "is not two unit vectors at right angles",
        ),
        (image(GREY, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localisers"),
    ],
)
def test_refused(tmp_path, one, reason):
    if "video" in reason:
        one.file_meta.TransferSyntaxUID = MPEG2MPML
        one.PixelData = pydicom.encaps.encapsulate([b"1234"])
        one["PixelData"].is_undefined_length = True
    with pytest.raises((FormatError, GeometryError), match=reason):
        read(tmp_path, one)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [("102", "MPEG-4"), ("106.1", "MPEG-4"), ("100.1", "MPEG-2"), ("107", "HEVC"), ("108", "HEVC")],
)
def test_videos_by_their_syntax(tmp_path, syntax, name):
    one = radiograph("77.1.4.1", "XC", COLOUR)
    one.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.4.{syntax}")
    one.PixelData = pydicom.encaps.encapsulate([b"1234"])
    one["PixelData"].is_undefined_length = True
    with pytest.raises(FormatError, match=rf"a video \({name}\)"):
        read(tmp_path, one)


def test_slices_without_position_are_no_volume(tmp_path):
    slices = [image(GREY, PixelSpacing=[1, 1]) for _ in range(3)]
    with pytest.raises(GeometryError, match=r"ImagePositionPatient is missing .* 3 of 3 files"):
        read(tmp_path, *slices)


def test_images_without_pixels(tmp_path):
    one = image(GREY)
    del one.PixelData
    with pytest.raises(FormatError, match="a DICOM image without pixel data"):
        read(tmp_path / "a", one)
    one.PixelDataProviderURL = "https://pacs/1"
    with pytest.raises(FormatError, match="its pixels are on a server"):
        read(tmp_path / "b", one)
    del one.PixelDataProviderURL
    item = pydicom.Dataset()
    item.EncryptedContent = b"1234"
    one.EncryptedAttributesSequence = [item]
    with pytest.raises(FormatError, match="its pixels are encrypted"):
        read(tmp_path / "c", one)
