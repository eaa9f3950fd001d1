"""Values of DICOM pixels: bits, rescale, lookup tables, and what is stated but not applied."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from objects import ct, write

from delineate.cohorts.reading import read_image
from delineate.core.errors import FormatError
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.volume import without_padding
from delineate.formats import files

U16 = np.uint16


def read(folder, *objects):
    write(folder, *objects)
    return files.read(folder)


def row(volume, k=0):
    return volume.array[:, 0, k].tolist()


def test_bits_above_the_stored_ones_are_masked(tmp_path):
    # An overlay in bit 15, and the sign of 12 bits without its extension.
    overlay = ct(np.array([[0x8007, 0x1FFF]], U16), BitsStored=12, HighBit=11)
    volume = read(tmp_path / "a", overlay)
    assert row(volume) == [7, 4095] and "bits above BitsStored are set" in volume.meta["notes"][0]
    signed = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
    negative = ct(np.array([[0x0FFF, 0x7800]], U16), **signed)
    assert row(read(tmp_path / "b", negative)) == [-1, -2048]
    plain = ct(np.array([[0x0FFF, 0xFFFF, 0x07FF]], U16), **signed)
    volume = read(tmp_path / "c", plain)
    assert row(volume) == [-1, -1, 2047] and "notes" not in volume.meta


def test_values_in_the_highest_bits(tmp_path):
    high = {"BitsStored": 12, "HighBit": 15}
    shifted = ct(np.array([[0x0010, 0xFFFF]], U16), **high)
    assert row(read(tmp_path / "a", shifted)) == [1, 4095]
    negative = ct(np.array([[0xFFF5, 0x8000]], U16), **high, PixelRepresentation=1)
    assert row(read(tmp_path / "b", negative)) == [-1, -2048]
    middle = ct(np.array([[0xF0F7, 0x0018]], U16), BitsStored=8, HighBit=10)
    assert row(read(tmp_path / "c", middle)) == [0x1E, 3]
    with pytest.raises(FormatError, match="HighBit 15 does not fit"):
        read(tmp_path / "d", ct(np.zeros((1, 2), np.uint8), HighBit=15))


def test_rescale_of_each_slice(tmp_path):
    pixels = np.array([[0, 10, 200]], U16)
    first = ct(pixels, RescaleSlope="1", RescaleIntercept="-1024")
    second = ct(pixels, 1, RescaleSlope="2", RescaleIntercept="5")
    volume = read(tmp_path / "a", first, second)
    assert (row(volume), row(volume, 1)) == ([-1024, -1014, -824], [5, 25, 405])
    assert volume.array.dtype == np.int16
    third = ct(pixels, 2, RescaleSlope="0.5", RescaleIntercept="0.25")
    volume = read(tmp_path / "b", first, second, third)
    assert (row(volume, 1), row(volume, 2)) == ([5, 25, 405], [0.25, 5.25, 100.25])
    assert volume.array.dtype == np.float32


def test_a_slope_of_0_is_1_with_a_note(tmp_path):
    volume = read(tmp_path, ct(np.array([[3, 4]], U16), RescaleSlope="0", RescaleIntercept="-1"))
    assert row(volume) == [2, 3]
    assert volume.meta["notes"] == ["RescaleSlope is 0, which is read as 1"]


def test_a_slope_without_an_intercept_and_one_beyond_all_numbers(tmp_path):
    volume = read(tmp_path / "a", ct(np.array([[3, 4]], U16), RescaleSlope="2"))
    assert row(volume) == [6, 8]
    (note,) = volume.meta["notes"]
    assert note == "RescaleSlope is stated without RescaleIntercept, which is read as 0"
    huge = ct(np.array([[3, 4]], U16), RescaleSlope="1e38", RescaleIntercept="0")
    with pytest.raises(FormatError, match=r"RescaleSlope 1e\+38 .* no number of 32 bits holds"):
        read(tmp_path / "b", huge)


def test_modality_lookup_table(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [3, 10, 16], "HU"
    table.LUTData = np.array([100, 250, 60000], U16).tobytes()
    table["LUTData"].VR = "OW"
    # Stored values outside the table get its ends (PS3.3 C.11.1.1.1).
    volume = read(tmp_path, ct(np.array([[9, 10, 11, 12, 13]], U16), ModalityLUTSequence=[table]))
    assert row(volume) == [100, 100, 250, 60000, 60000]
    # No values at all are no table.
    assert row(read(tmp_path / "b", ct(np.array([[9, 10]], U16), ModalityLUTSequence=[]))) == [
        9,
        10,
    ]
    table.LUTDescriptor = [4, 10, 16]
    with pytest.raises(FormatError, match="lookup table states 4 values and has 3"):
        read(tmp_path / "c", ct(np.array([[9, 10]], U16), ModalityLUTSequence=[table]))


def test_photometric_interpretations_that_are_none(tmp_path):
    pixels = np.array([[9, 10]], U16)
    for n, (given, shown) in enumerate((("FOO", "FOO"), (None, "missing"))):
        one = ct(pixels, PhotometricInterpretation=given)
        volume = read(tmp_path / str(n), one)
        assert row(volume) == [9, 10]
        assert volume.meta["notes"] == [
            f"PhotometricInterpretation is {shown}; the pixels are read as grey"
        ]
    (note,) = read(tmp_path / "c", ct(pixels, PhotometricInterpretation="monochrome1")).meta[
        "notes"
    ]
    assert note.startswith("MONOCHROME1")


@pytest.mark.parametrize(
    ("vr", "descriptor", "pixels", "values"),
    [
        # The first value has the sign of the pixels, and no difference wraps around.
        ("SS", [30, -10, 16], np.int16([-11, -10, -9, 32767]), [100, 100, 101, 129]),
        ("US", [30, 65526, 16], np.int16([-11, -10, -9, 32767]), [100, 100, 101, 129]),
        ("US", [300, 10, 16], np.uint8([5, 10, 11, 255]), [100, 100, 101, 345]),
        # 0 entries are 65536.
        ("SS", [0, -32768, 16], np.int16([-32768, 0, 32767]), [0, 32768, 65535]),
    ],
)
def test_lookup_tables_of_signed_pixels(tmp_path, vr, descriptor, pixels, values):
    table = pydicom.Dataset()
    table.add_new(0x00283002, vr, descriptor)
    table.ModalityLUTType = "HU"
    begin = 100 if descriptor[0] else 0
    table.LUTData = np.arange(begin, begin + (descriptor[0] or 65536)).astype(U16).tobytes()
    table["LUTData"].VR = "OW"
    assert row(read(tmp_path, ct(pixels[None], ModalityLUTSequence=[table]))) == values


def test_padding_is_marked_and_filled_by_what_prepares(tmp_path):
    # -2000 stated as an unsigned value, as some scanners do.
    pixels = np.array([[-2000, 24, 1000]], np.int16)
    padded = ct(pixels, RescaleSlope="1", RescaleIntercept="-24")
    padded.add_new(0x00280120, "US", 63536)
    volume = read(tmp_path / "a", padded)
    assert (row(volume), volume.meta["padding"]) == ([-2024, 0, 976], [-2024, -2024])
    filled = without_padding(volume)
    assert row(filled) == [-1024, 0, 976]
    assert "padding" not in filled.meta
    case = Case("a", "P1", (Source(str(tmp_path / "a")),))
    image = read_image(case, Manifest((case,), ("CT",)))
    assert image.array[0, :, 0, 0].tolist() == [-1024, 0, 976]

    # A range, stored unsigned: 60000 to 63536.
    over = ct(np.array([[60000, 63536, 1000]], U16), RescaleSlope="1", RescaleIntercept="-1000")
    over.PixelPaddingValue, over.PixelPaddingRangeLimit = 63536, 60000
    volume = read(tmp_path / "b", over)
    assert volume.meta["padding"] == [59000, 62536]
    assert row(volume) == [59000, 62536, 0]  # what ``convert`` writes
    assert row(without_padding(volume)) == [-1024, -1024, 0]  # also where the dtype was uint16

    # In MR the background is 0; a value of tissue in CT may be tissue.
    mr = ct(np.array([[-7, 5]], np.int16), Modality="MR", PixelPaddingValue=-7)
    assert row(without_padding(read(tmp_path / "c", mr))) == [0, 5]
    water = ct(np.array([[0, 5]], np.int16), RescaleSlope="1", PixelPaddingValue=0)
    assert read(tmp_path / "d", water).meta["padding"] is None


def test_padding_that_differs_between_slices_is_not_marked(tmp_path):
    pixels = np.array([[-2000, 24]], np.int16)
    first = ct(pixels, PixelPaddingValue=-2000)
    second = ct(pixels, 1, PixelPaddingValue=-2000, RescaleSlope="2")
    third = ct(pixels, 2)
    assert read(tmp_path / "a", first, second).meta["padding"] is None
    assert "padding" not in read(tmp_path / "b", first, third).meta


def test_what_is_stated_and_not_applied(tmp_path):
    one = ct(np.array([[4, 5]], U16), Modality="MR", PhotometricInterpretation="MONOCHROME1")
    one.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
    one.add_new(0x2005100E, "FL", 0.5)
    unit, item = pydicom.Dataset(), pydicom.Dataset()
    unit.CodeValue, item.MeasurementUnitsCodeSequence = "mm2/s", [unit]
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.25, 1.0
    one.RealWorldValueMappingSequence = [item]
    volume = read(tmp_path, one)
    assert row(volume) == [4, 5]
    assert volume.meta["philips_scale"] == 0.5
    assert volume.meta["real_world"] == [{"slope": 0.25, "intercept": 1.0, "unit": "mm2/s"}]
    assert volume.meta["notes"] == [
        "MONOCHROME1: low values are bright; the stored values are kept"
    ]


def test_scales_that_differ_between_slices_are_noted(tmp_path):
    slices = [ct(np.array([[4, 5]], U16), k, Modality="MR") for k in range(3)]
    for one, slope in zip(slices, (0.25, 0.25, 0.5), strict=True):
        item = pydicom.Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
        one.RealWorldValueMappingSequence = [item]
        one.PixelPaddingValue = 7
    slices[0].PixelPaddingValue = 6
    volume = read(tmp_path, *slices)
    assert not {"real_world", "padding"} & set(volume.meta)
    assert volume.meta["notes"] == [
        "1 of 3 files state another real-world value map than the first; none is applied",
        "2 of 3 files state another PixelPaddingValue than the first; none is marked as padding",
    ]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"PatientOrientation": ["L", "P"]}, ""),
        ({"PatientOrientation": ["LH", "PF"]}, ""),
        ({"PatientOrientation": ["R", "P"]}, "PatientOrientation states rows towards R"),
        ({"PatientOrientation": ["LE", "V"], "AnatomicalOrientationType": "QUADRUPED"}, ""),
        ({"PresentationLUTShape": "IDENTITY"}, ""),
        ({"PresentationLUTShape": "INVERSE"}, "PresentationLUTShape is INVERSE"),
    ],
)
def test_sides_and_shapes_that_are_not_read_are_noted(tmp_path, fields, found):
    notes = read(tmp_path, ct(np.array([[4, 5]], U16), **fields)).meta.get("notes", [])
    assert len(notes) == bool(found) and all(found in one for one in notes)


def test_bytes_behind_the_element_with_the_pixels_are_noted(tmp_path):
    write(tmp_path, ct(np.array([[4, 5]], U16)))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b"rest of a file")
    (note,) = files.read(tmp_path).meta["notes"]
    assert note == "14 bytes follow the element with the pixels, which are not read"


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({"RescaleSlope": "1"}, "HU"),
        ({"RescaleSlope": "1", "RescaleType": "HU"}, "HU"),
        ({"RescaleSlope": "1", "RescaleType": "MGML"}, "a.u."),  # iodine
        ({}, "a.u."),
        ({"RescaleSlope": "1", "Modality": "PT", "Units": "BQML"}, "Bq/ml"),
        ({"RescaleSlope": "1", "Modality": "PT", "Units": "GML"}, "SUV"),
        ({"RescaleSlope": "1", "Modality": "PT", "Units": "CNTS"}, "a.u."),
    ],
)
def test_units(tmp_path, fields, unit):
    assert read(tmp_path, ct(np.ones((2, 2), U16), **fields)).unit == unit
    assert files.describe(tmp_path)["series"][0]["unit"] == unit


def test_what_some_slices_state_is_noted_with_their_number(tmp_path):
    write(
        tmp_path,
        *(ct(np.full((4, 4), k, np.int16), k, Units="BQML", Modality="PT") for k in range(3)),
        ct(
            *(np.full((4, 4), 3, np.int16), 3),
            PhotometricInterpretation="MONOCHROME1",
            Units="CNTS",
            Modality="PT",
        ),
    )
    notes = files.read(tmp_path).meta["notes"]
    assert any("1 of 4 files: MONOCHROME1" in note for note in notes)
    assert "the slices are in different units: BQML (3 slices), CNTS (1 slices)" in notes


def test_rescales_that_differ_within_a_series_are_used_and_noted(tmp_path):
    scaled = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    every = [ct(np.full((1, 2), 7, U16), k, **scaled) for k in range(4)]
    every[3].RescaleIntercept = 0
    write(tmp_path, *every)
    volume = files.read(tmp_path)
    assert volume.array[0, 0].tolist() == [-1017, -1017, -1017, 7]
    assert volume.meta["notes"] == [
        "the slices have different rescales, each is used: slope 1 and intercept -1024 (3 slices), "
        "slope 1 and intercept 0 (1 slices)"
    ]
    for one in every:  # every slice of PET has one
        one.Modality = "PT"
    write(tmp_path, *every)
    assert "notes" not in files.read(tmp_path).meta


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "NumberOfFrames"])
def test_a_number_that_cannot_be_read_is_refused_and_has_no_default(tmp_path, name):
    slices = [ct(np.full((4, 4), k, np.int16), k) for k in range(4)]
    slices[3].add(pydicom.DataElement(pydicom.datadict.tag_for_keyword(name), "LO", "1,5"))
    write(tmp_path, *slices)
    with pytest.raises(FormatError, match=rf"{name} is not a number \(1 of 4 files\)"):
        files.read(tmp_path)


@pytest.mark.parametrize(
    ("stated", "held", "note"),
    [
        (24, 24, None),
        (
            40,
            24,
            "the pixels have a length of 40 bytes, but the file ends after 24; all 24 bytes that "
            "its size needs are there",
        ),
        (26, 26, "2 bytes follow the last pixel, which are not read"),
    ],
)
def test_a_length_of_the_pixels_that_is_not_theirs_is_noted(tmp_path, stated, held, note):
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    (path,) = write(tmp_path, ct(pixels))
    raw = path.read_bytes()
    at = len(raw) - 24 - 4
    path.write_bytes(raw[:at] + stated.to_bytes(4, "little") + raw[at + 4 :] + bytes(held - 24))
    volume = files.read(path)
    np.testing.assert_array_equal(volume.array[..., 0], pixels.T)
    assert volume.meta.get("notes") == (note and [note])


def test_the_origin_of_a_scan_is_what_all_headers_state(tmp_path):
    def of(folder, second=None, **stated):
        one = np.zeros((2, 2), U16)
        two = ct(one, 1, **stated | (second or {}))
        return read(tmp_path / folder, ct(one, **stated), two).meta.get("about", {})

    stated = {"Manufacturer": "ACME", "ManufacturerModelName": "Ray 7", "StudyDate": "20190203"}
    person = {"PatientSex": "F", "PatientAge": "057Y", "PatientName": "Doe^Jane"}
    found = {"scanner": "ACME Ray 7", "year": 2019, "sex": "F", "age": 57}
    assert of("a", **stated, **person) == found
    odd = {"PatientSex": "X", "PatientAge": "057", "StudyDate": "", "Manufacturer": ""}
    assert of("b", **odd, ManufacturerModelName="") == {}
    baby = {"ManufacturerModelName": "Acme One", "PatientAge": "018M", "StudyDate": ""}
    assert of("c", Manufacturer="ACME", **baby) == {"scanner": "Acme One", "age": 1}
    # Files that differ state nothing.
    assert of("d", {"PatientSex": "M"}, **stated, **person) == {}
