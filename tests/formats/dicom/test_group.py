"""Which planes of one SeriesInstanceUID are a volume, and how volumes are named."""

from __future__ import annotations

import numpy as np
import pytest
from objects import CT, ct, image, write

from delineate.core.errors import FormatError, GeometryError
from delineate.formats import dicom, files


def slices(count=4, start=0, value=0, **fields):
    """CT slices with their number as value, one after the other from the origin."""
    return [
        ct(np.full((3, 4), value + k, np.int16), k, InstanceNumber=k + 1, **fields)
        for k in range(start, start + count)
    ]


def parts(folder, *objects):
    """Part -> the first voxel of each slice."""
    write(folder, *objects)
    found = dicom.find_series(folder)
    return {one.part: dicom.read_series(one).array[0, 0].tolist() for one in found}


def test_what_differs_by_slice_divides_no_stack(tmp_path):
    stack = slices()
    for k, one in enumerate(stack):
        one.AcquisitionNumber, one.ContentTime, one.AcquisitionTime = k, f"12000{k}", f"11000{k}"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if k < 2 else ["DERIVED", "PRIMARY"]
        one.ConvolutionKernel = "B30" if k % 2 else "B70"
    assert parts(tmp_path, *stack) == {"": [0, 1, 2, 3]}
    assert dicom.find_series(tmp_path)[0].notes == ()


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"EchoNumbers": 1}, {"EchoNumbers": 2}, ("echo1", "echo2")),
        ({"EchoTime": 2.3}, {"EchoTime": 4.6}, ("te2.3", "te4.6")),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, ("b0", "b1000")),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, ("b30f", "b70f")),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, ("t001", "t002")),
        ({"AcquisitionNumber": 3}, {"AcquisitionNumber": 4}, ("acq3", "acq4")),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "WATER"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "FAT"]},
            ("water", "fat"),
        ),
    ],
)
def test_equal_positions_are_volumes_by_what_differs(tmp_path, one, other, names):
    first, second = names
    found = parts(tmp_path, *slices(**one), *slices(value=10, **other))
    assert found == {first: [0, 1, 2, 3], second: [10, 11, 12, 13]}
    with pytest.raises(
        FormatError, match="2 volumes of 1 series, choose one as FOLDER#SERIES_UID/"
    ):
        files.read(tmp_path)
    volume = files.read(f"{tmp_path}#1.2.3/{second}")
    assert (volume.array[0, 0, 0], volume.meta["part"]) == (10, second)


@pytest.mark.parametrize(
    ("field", "values", "names"),
    [
        ("PatientID", ("A", "B"), ("patient1", "patient2")),
        ("PatientName", ("Doe^J", "Roe^X"), ("patient1", "patient2")),
        ("IssuerOfPatientID", ("A", "B"), ("issuer1", "issuer2")),
        ("Modality", ("CT", "MR"), ("ct", "mr")),
        ("FrameOfReferenceUID", ("1.2", "1.3"), ("frame1", "frame2")),
        ("ComplexImageComponent", ("MAGNITUDE", "PHASE"), ("magnitude", "phase")),
    ],
)
def test_two_things_are_never_one_volume(tmp_path, field, values, names):
    """The halves would be one even stack."""
    # Names count where there is no ID.
    more = {"PatientID": ""} if field == "PatientName" else {}
    lower = slices(2, **more | {field: values[0]})
    upper = slices(2, start=2, **more | {field: values[1]})
    assert parts(tmp_path, *lower, *upper) == {names[0]: [0, 1], names[1]: [2, 3]}
    with pytest.raises(FormatError, match="2 volumes of 1 series"):
        files.read(tmp_path)


def test_time_points_without_an_attribute_are_in_the_order_of_their_numbers(tmp_path):
    again = slices(value=10)
    for k, one in enumerate(again):
        one.InstanceNumber = 5 + k
    assert parts(tmp_path, *again, *slices()) == {"t001": [0, 1, 2, 3], "t002": [10, 11, 12, 13]}
    assert dicom.find_series(tmp_path)[0].notes == (
        "2 volumes at the same positions are in the order of their instance number",
    )


def test_an_interrupted_time_series_mixes_no_time_points(tmp_path):
    """The second volume lacks its first slice, the third its last two."""
    planes = []
    for time in range(3):
        for k, one in enumerate(slices(value=10 * time)):
            one.InstanceNumber = 4 * time + k + 1
            planes.append(one)
    kept = [one for n, one in enumerate(planes) if n not in (4, 10, 11)]
    assert parts(tmp_path, *kept) == {
        "t001": [0, 1, 2, 3],
        "t002": [11, 12, 13],
        "t003": [20, 21],
    }
    assert dicom.find_series(tmp_path)[2].notes[-1] == (
        "has 2 of the 4 slices of the other volumes"
    )
    # Without numbers that prove the order, they are refused.
    for one in kept:
        one.InstanceNumber = 1
    write(tmp_path, *kept)
    with pytest.raises(FormatError, match="9 slices at 4 positions, up to 3 at one"):
        files.read(tmp_path)


def test_scouts_colour_and_pages_are_set_aside(tmp_path):
    scout = slices(1, start=9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    colour = image(np.zeros((3, 4, 3), np.uint8))
    page = image(np.zeros((3, 4), np.int16), ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    assert parts(tmp_path, *slices(), *scout, colour, page) == {"": [0, 1, 2, 3]}
    assert [(p.name, why) for p, why in dicom.find_series(tmp_path)[0].set_aside] == [
        ("e.dcm", "a localiser"),
        ("f.dcm", "a colour image"),
        ("g.dcm", "has no position and orientation"),
    ]
    assert "e.dcm is set aside: a localiser" in files.read(tmp_path).meta["notes"]


def test_a_single_image_in_another_plane_does_not_hide_the_stack(tmp_path):
    other = ct(np.ones((3, 4), np.int16), 0, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    write(tmp_path, *slices(), other)
    assert files.read(tmp_path).array.shape == (4, 3, 4)
    # A gap in the stack is refused; the single image is not read in its place.
    (tmp_path / "b.dcm").unlink()
    with pytest.raises(GeometryError, match="uneven gaps"):
        files.read(tmp_path)


def test_missing_ends_are_noted(tmp_path):
    write(tmp_path, *slices(3, start=1, ImagesInAcquisition=5, SOPClassUID=CT))
    assert files.read(tmp_path).meta["notes"] == [
        "ImagesInAcquisition is 5, but 3 images are here: slices may be missing at an end",
        "InstanceNumber begins at 2: slices may be missing at an end",
    ]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"NumberOfSlices": 5}, "5 slices are stated, but 3 are here: some may be missing"),
        (
            {"NumberOfSeriesRelatedInstances": 4},
            "NumberOfSeriesRelatedInstances is 4, but 3 files are here",
        ),
        (
            {"GantryDetectorTilt": 15},
            "GantryDetectorTilt is 15 degrees, but the slices are stacked 0.00 degrees off the "
            "normal of their planes",
        ),
    ],
)
def test_what_headers_state_about_the_stack_is_compared_with_it(tmp_path, fields, note):
    write(tmp_path, *slices(3, **fields))
    assert files.read(tmp_path).meta["notes"] == [note]


def test_points_in_time_that_are_missing_are_noted(tmp_path):
    stacks = [slices(3, value=10 * t, TemporalPositionIdentifier=t) for t in (1, 2)]
    for one in (several := [one for stack in stacks for one in stack]):
        one.NumberOfTemporalPositions = 4
    write(tmp_path, *several)
    for one in dicom.find_series(tmp_path):
        assert "NumberOfTemporalPositions is 4, but 2 are here" in one.notes


def test_a_private_attribute_in_another_block_of_its_creator(tmp_path):
    several = [*slices(3), *slices(3, value=10)]
    for n, one in enumerate(several):
        one.add_new(0x00190010, "LO", "SOMEONE ELSE")
        one.add_new(0x0019100C, "IS", str(n))
        one.add_new(0x00190011, "LO", "SIEMENS MR HEADER")
        one.add_new(0x0019110C, "IS", str(1000 * (n // 3)))
    assert parts(tmp_path, *several) == {"b0": [0, 1, 2], "b1000": [10, 11, 12]}


def notes_of_every_second(folder, **fields):
    """Notes about slices 2.5 mm thick and 5 mm apart."""
    write(folder, *slices(7, **{"SliceThickness": 2.5} | fields)[::2])
    return files.read(folder).meta.get("notes")


def test_every_second_slice_missing_is_noted(tmp_path):
    numbers = "3 of the InstanceNumbers from 1 to 7 are missing: slices may be missing"
    gaps = "the slices are 5 mm apart, 2 times {}: every second slice may be missing"
    named = ("SpacingBetweenSlices", "SliceThickness")
    assert notes_of_every_second(tmp_path / "a", SpacingBetweenSlices=2.5) == [
        numbers,
        gaps.format(named[0]),
    ]
    assert notes_of_every_second(tmp_path / "b") == [numbers, gaps.format(named[1])]
    # Thin slices acquired with gaps, and a writer that states the space between slices.
    assert notes_of_every_second(tmp_path / "c", SpacingBetweenSlices=5) == [numbers]
    assert notes_of_every_second(tmp_path / "d", SpacingBetweenSlices=1, SliceThickness=4) == [
        numbers
    ]
    # Numbers that count something else say nothing.
    scattered = [1, 100, 110, 120]
    stack = slices(4)
    for one, n in zip(stack, scattered, strict=True):
        one.InstanceNumber = n
    write(tmp_path / "e", *stack)
    assert "notes" not in files.read(tmp_path / "e").meta


@pytest.mark.parametrize(
    ("field", "values", "names"),
    [
        ("ConvolutionKernel", ("B30f", "B70f"), ("b30f", "b70f")),
        ("EchoNumbers", (1, 2), ("echo1", "echo2")),
        ("DiffusionBValue", (0.0, 800.0), ("b0", "b800")),
        ("ImageType", (["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY"]), None),
    ],
)
def test_stacks_between_each_other_are_two_and_those_above_each_other_are_noted(
    tmp_path, field, values, names
):
    """All slices would be one even stack."""
    between, above = slices(6), slices(6)
    for k in range(6):
        setattr(between[k], field, values[k % 2])
        setattr(above[k], field, values[k // 3])
    found = parts(tmp_path / "between", *between)
    assert sorted(found.values()) == [[0, 2, 4], [1, 3, 5]]
    assert names is None or tuple(found) == names
    assert parts(tmp_path / "above", *above) == {"": [0, 1, 2, 3, 4, 5]}
    (series,) = dicom.find_series(tmp_path / "above")
    assert "the slices of this stack differ" in " ".join(series.notes)


def test_acquisitions_between_each_other_are_noted(tmp_path):
    stack = slices(6)
    for k, one in enumerate(stack):
        one.AcquisitionNumber = k % 2
    write(tmp_path, *stack)
    assert files.read(tmp_path).meta["notes"] == [
        "the slices of this stack differ: acq0 (3), acq1 (3)"
    ]


@pytest.mark.parametrize(
    ("field", "values", "note"),
    [
        ("PatientName", ("Doe^J", "Roe^X"), "its files state 2 names of one PatientID"),
        ("PatientBirthDate", ("19500101", "19610101"), "its files state 2 dates of birth of one"),
        ("PatientSex", ("F", "M"), "its files state 2 sexes of one PatientID"),
        ("PatientPosition", ("HFS", "FFS"), "several values of PatientPosition: FFS, HFS"),
    ],
)
def test_several_persons_of_one_patient_id_are_noted_and_not_named(tmp_path, field, values, note):
    lower, upper = (slices(2, start=2 * n, **{field: value}) for n, value in enumerate(values))
    assert parts(tmp_path, *lower, *upper) == {"": [0, 1, 2, 3]}
    (series,) = dicom.find_series(tmp_path)
    assert len(series.notes) == 1 and note in series.notes[0]


def test_several_studies_are_noted(tmp_path):
    upper = slices(2, start=2, StudyInstanceUID="1.2.4")
    assert parts(tmp_path / "b", *slices(2), *upper) == {"": [0, 1, 2, 3]}
    assert dicom.find_series(tmp_path / "b")[0].notes == ("its files are of 2 studies",)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"PatientID": ""}, "1 of its 4 files state no PatientID, as the others do"),
        ({"PixelRepresentation": 0}, "3 of 4 slices have signed pixels (PixelRepresentation)"),
        (
            {"LossyImageCompression": "01"},
            "1 of 4 files: the pixels were compressed with loss (LossyImageCompression)",
        ),
    ],
)
def test_one_file_unlike_the_others_is_noted(tmp_path, fields, note):
    stack = slices()
    for name, value in fields.items():
        setattr(stack[1], name, value)
    write(tmp_path, *stack)
    assert files.read(tmp_path).meta["notes"] == [note]


def test_words_of_any_character_set_and_small_letters(tmp_path):
    named = slices(SpecificCharacterSet=["", "ISO 2022 IR 87"], SeriesDescription="\u8179\u90e8")
    write(tmp_path / "a", *named)
    assert files.read(tmp_path / "a").meta["description"] == "\u8179\u90e8"
    write(tmp_path / "b", *slices(ImageType=["ORIGINAL", "PRIMARY", "localizer"]))
    with pytest.raises(FormatError, match="localisers"):
        files.read(tmp_path / "b")


def test_what_is_stated_twice_is_refused(tmp_path):
    paths = write(tmp_path, *slices(RescaleSlope="1", RescaleIntercept="-1024"))
    data = paths[2].read_bytes()
    at = data.index(b"\x28\x00\x52\x10DS")
    again = data[at : at + 8] + b"0".ljust(data[at + 6])
    paths[2].write_bytes(data[:at] + again + data[at:])
    with pytest.raises(FormatError, match=r"RescaleIntercept is stated twice, .* \(1 of 4 files"):
        files.read(tmp_path)
    write(tmp_path, *slices(RescaleSlope=["1", "2"], RescaleIntercept="0"))
    with pytest.raises(FormatError, match="RescaleSlope is not a number"):
        files.read(tmp_path)
