"""``convert`` to NAME.seg.dcm and NAME.rtstruct.dcm, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.calls import run
from tests.formats.dicom.objects import ct, write
from tests.structure_sets import CLOSED, write_structure_set

from delineate.cohorts.phantom import dicom as phantom_dicom
from delineate.cohorts.phantom.cohort import LABELS, make_scan
from delineate.core.labels import as_whole_numbers
from delineate.core.volume import Volume
from delineate.formats import files

FRAME = {"FrameOfReferenceUID": "1.2.3.9"}


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """A folder with a small CT as DICOM, and its labels as NIfTI with names."""
    scan = make_scan(1, seed=3, size=(48, 10))
    phantom_dicom.write_patient(tmp_path / "p", scan.image, scan.label, scan.storage)
    files.write(scan.label, tmp_path / "mask.nii.gz", labels=LABELS)
    return tmp_path


def test_masks_become_contours_and_masks_again(patient: Path):
    ct, made = patient / "p" / "DICOM_anon", patient / "mask.rtstruct.dcm"
    code, text = run("convert", patient / "mask.nii.gz", made, "--like", ct)
    assert code == 0, text
    roi = pydicom.dcmread(made).StructureSetROISequence
    assert [one.ROIName for one in roi] == LABELS.names
    # How the masks were made is not known.
    assert {one.ROIGenerationAlgorithm for one in roi} == {""}
    code, text = run("convert", made, patient / "again.nii.gz", "--like", ct)
    assert code == 0, text
    again, masks = files.read(patient / "again.nii.gz"), files.read(patient / "mask.nii.gz")
    moved = as_whole_numbers(masks.reorient(again.grid.codes).array)
    np.testing.assert_array_equal(as_whole_numbers(again.array), moved)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("BINARY", ()),
        ("LABELMAP", ("--seg-type", "labelmap", "--seg-syntax", "rle")),
        ("FRACTIONAL", ("--seg-type", "FRACTIONAL", "--seg-syntax", "deflated")),
    ],
)
def test_masks_become_segments_and_masks_again(patient: Path, kind: str, words: tuple[str, ...]):
    ct, made = patient / "p" / "DICOM_anon", patient / "mask.seg.dcm"
    line = ("convert", patient / "mask.nii.gz", made, "--like", ct, *words)
    code, text = run(*line)
    assert code == 0, text
    seg = pydicom.dcmread(made)
    assert (seg.SegmentationType, seg.Manufacturer) == (kind, "delineate")
    assert [one.SegmentLabel for one in seg.SegmentSequence if one.SegmentNumber] == LABELS.names
    code, text = run("convert", made, patient / "again.nii.gz", "--like", ct)
    assert code == 0, text
    again, masks = files.read(patient / "again.nii.gz"), files.read(patient / "mask.nii.gz")
    moved = as_whole_numbers(masks.reorient(again.grid.codes).array)
    np.testing.assert_array_equal(as_whole_numbers(again.array), moved)
    # The same result is written again, and nothing else replaced.
    first = made.read_bytes()
    assert run(*line)[0] == 0 and made.read_bytes() == first
    made.write_bytes(b"mine")
    code, text = run(*line)
    assert code == 2 and "exists already; --overwrite replaces it" in text


def test_like_names_one_series_of_a_folder(patient: Path):
    ct = patient / "p" / "DICOM_anon"
    other = patient / "p" / "other"
    other.mkdir()
    for n, path in enumerate(ct.iterdir()):
        one = pydicom.dcmread(path)
        uid, one.SeriesInstanceUID = one.SeriesInstanceUID, "1.2.3.77"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.77.{n}"
        one.save_as(other / path.name)
    for ending in ("seg", "rtstruct"):
        made = patient / f"mask.{ending}.dcm"
        for chosen in (uid, "1.2.3.77"):
            like = f"{patient / 'p'}#{chosen}"
            code, text = run(
                "convert", patient / "mask.nii.gz", made, "--like", like, "--overwrite"
            )
            assert code == 0, text
            named = {one.value for one in pydicom.dcmread(made).iterall() if one.VR == "UI"}
            assert named & {uid, "1.2.3.77"} == {chosen}
        like = f"{patient / 'p'}#1.2.3.78"
        code, text = run("convert", patient / "mask.nii.gz", made, "--like", like, "--overwrite")
        assert code == 2 and "no series 1.2.3.78 here; found:" in " ".join(text.split()), text
    words = ("--like", f"{patient / 'p'}#{uid}", "--series", "1.2.3.77", "--overwrite")
    code, text = run("convert", patient / "mask.nii.gz", patient / "mask.seg.dcm", *words)
    assert code == 2 and "give one" in text


def test_what_a_segmentation_cannot_be(patient: Path):
    ct, made = patient / "p" / "DICOM_anon", patient / "mask.seg.dcm"
    line = ("convert", patient / "mask.nii.gz", made, "--like", ct)
    code, text = run(*line, "--seg-syntax", "rle")
    assert code == 2 and "one bit for each pixel" in text
    code, text = run(*line, "--seg-type", "surface")
    assert code == 2 and "--seg-type is one of" in text
    line = ("convert", patient / "mask.nii.gz", patient / "m.rtstruct.dcm", "--like", ct)
    code, text = run(*line, "--seg-type", "LABELMAP")
    assert code == 2 and "are for NAME.seg.dcm" in text
    assert not made.exists()


def test_the_same_result_is_written_again_and_nothing_else(patient: Path):
    ct, made = patient / "p" / "DICOM_anon", patient / "mask.rtstruct.dcm"
    line = ("convert", patient / "mask.nii.gz", made, "--like", ct)
    assert run(*line)[0] == 0
    first = made.read_bytes()
    assert run(*line)[0] == 0
    assert made.read_bytes() == first
    made.write_bytes(b"mine")
    code, text = run(*line)
    assert code == 2 and "exists already; --overwrite replaces it" in text
    assert made.read_bytes() == b"mine"
    assert run(*line, "--overwrite")[0] == 0
    assert made.read_bytes() == first


def test_values_that_are_too_long_are_cut_with_a_note(patient: Path):
    ct, made = patient / "p" / "DICOM_anon", patient / "mask.rtstruct.dcm"
    for path in ct.iterdir():
        one = pydicom.dcmread(path)
        with pytest.warns(UserWarning, match="exceeds the maximum length"):
            one.StudyID = "A STUDY OF 21 LETTERS"
        one.save_as(path)
    code, text = run("convert", patient / "mask.nii.gz", made, "--like", ct)
    assert code == 0
    assert "StudyID has 21 characters and is cut to the 16 allowed" in text
    assert pydicom.dcmread(made).StudyID == "A STUDY OF 21 LE"


def test_small_contours_are_left_out_by_their_area(tmp_path: Path):
    write(tmp_path / "ct", *(ct(np.zeros((9, 9), np.int16), k, **FRAME) for k in range(3)))
    mask = np.zeros((9, 9, 3), np.uint8)
    mask[1:5, 1:5, 1] = mask[7, 7, 1] = 1  # 16 pixels without corners, and one
    masks = Volume(mask, files.read_grid(tmp_path / "ct"), "label")
    files.write(masks, tmp_path / "m.nii.gz")
    line = (
        "convert",
        tmp_path / "m.nii.gz",
        tmp_path / "m.rtstruct.dcm",
        "--like",
        tmp_path / "ct",
    )
    code, text = run(*line, "--smallest", "2")
    assert code == 0 and "1 contours of less than 2 mm2 are left out" in text, text
    drawn = pydicom.dcmread(tmp_path / "m.rtstruct.dcm").ROIContourSequence
    assert [len(one.ContourSequence) for one in drawn] == [1]
    code, text = run("convert", tmp_path / "m.nii.gz", tmp_path / "n.nii", "--smallest", "2")
    assert code == 2 and "--smallest is for NAME.rtstruct.dcm" in text


def test_refusals_are_one_sentence(patient: Path):
    code, text = run("convert", patient / "mask.nii.gz", patient / "mask.rtstruct.dcm")
    assert code == 2 and "needs --like FOLDER" in text
    scan = make_scan(2, seed=4, size=(40, 8))
    phantom_dicom.write_patient(patient / "q", scan.image, scan.label, scan.storage)
    code, text = run(
        *("convert", patient / "mask.nii.gz", patient / "mask.rtstruct.dcm"),
        *("--like", patient / "q" / "DICOM_anon"),
    )
    assert code == 2 and "not on the slices of the series" in text


def test_info_lists_the_rois_and_their_contours(tmp_path: Path):
    square = np.array([(0, 0, 5.0), (4, 0, 5), (4, 4, 5), (0, 4, 5)])
    rois = {
        "liver": [(square, CLOSED), (square + np.array([0, 0, 2]), CLOSED)],
        "mark": [(square[:1], "POINT")],
    }
    write_structure_set(tmp_path / "rs.dcm", rois)
    code, text = run("info", tmp_path / "rs.dcm", "--json")
    found = json.loads(text)
    assert code == 0 and found["format"] == "DICOM RTSTRUCT"
    assert found["frames_of_reference"] == ["1.2.3"]
    assert found["rois"] == [
        {"number": 1, "name": "liver", "contours": {CLOSED: 2}, "points": 8},
        {"number": 2, "name": "mark", "contours": {"POINT": 1}, "points": 1},
    ]
    code, text = run("info", tmp_path / "rs.dcm")
    assert code == 0 and "liver" in text and "mark" in text


def test_the_area_rule_counts_pixels_that_are_half_inside(tmp_path: Path):
    write(tmp_path / "ct", *(ct(np.zeros((6, 8), np.int16), k) for k in range(3)))
    # A block, and a strip over the centres of column 5 that covers a fifth of its pixels.
    boxes = ((0.5, 2.5, 0.5, 3.5), (4.9, 5.1, 0.5, 3.5))
    contours = [
        (np.array([(-x, -y, 2.5) for x, y in ((a, c), (b, c), (b, d), (a, d))]), CLOSED)
        for a, b, c, d in boxes
    ]
    write_structure_set(tmp_path / "rs.dcm", {"liver": contours}, series="1.2.3")
    columns = {}
    for rule in ("centre", "area"):
        out = tmp_path / f"{rule}.nii.gz"
        line = ("convert", tmp_path / "rs.dcm", out, "--like", tmp_path / "ct", "--rule", rule)
        code, text = run(*line)
        assert code == 0, text
        inside = files.read(out).reorient("LPS").array > 0
        assert inside[:, 1:4, 1].all(axis=1).any()
        columns[rule] = np.flatnonzero(inside.any(axis=(1, 2))).tolist()
    assert columns == {"centre": [1, 2, 5], "area": [1, 2]}
