"""Every pair of formats that ``convert`` joins: the same voxels, by the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from tests.calls import run
from tests.formats.dicom.objects import ct, write
from tests.segmentations import segmentation

from delineate.core.labels import LabelSet, as_whole_numbers
from delineate.core.volume import Volume
from delineate.formats import dicom, files

HU = np.random.default_rng(5).integers(-1024, 2000, (12, 10, 4)).astype(np.int16)
MASK = np.zeros(HU.shape, np.uint8)
MASK[2:7, 2:8, 1:3] = 1
MASK[8:11, 3:6, 1:4] = 2
STUDY = {
    "FrameOfReferenceUID": "1.2.3.9",
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
    "RescaleType": "HU",
    "SeriesInstanceUID": "1.2.3.5",
    **dict.fromkeys(
        ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"), ""
    ),
    **dict.fromkeys(("StudyDate", "StudyTime", "ReferringPhysicianName", "Manufacturer"), ""),
}
NAMES = LabelSet.from_names({1: "liver", 2: "spleen"})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """The same scan and masks in every format."""
    folder = tmp_path_factory.mktemp("pairs")
    slices = [ct(HU[..., k].T.copy(), k, SliceThickness=2.5, **STUDY) for k in range(4)]
    write(folder / "dicom", *slices)
    scan = files.read(folder / "dicom")
    masks = Volume(MASK, scan.grid, "label")
    for ending in ("nii.gz", "nrrd", "mha"):
        files.write(scan, folder / f"scan.{ending}")
        files.write(masks, folder / f"mask.{ending}", labels=NAMES)
    (found,) = dicom.find_series(folder / "dicom")
    given = [pydicom.dcmread(one.path) for one in dicom.layout(found)[1]]
    made = segmentation(given, MASK.transpose(2, 1, 0), names=["liver", "spleen"])
    made.save_as(folder / "mask.seg.dcm")
    code, text = run(
        *("convert", folder / "mask.nii.gz", folder / "mask.rtstruct.dcm"),
        *("--like", folder / "dicom"),
    )
    assert code == 0, text
    return folder


def read(path: Path) -> np.ndarray:
    return files.read(path).reorient("LPS").array


@pytest.mark.parametrize(
    ("source", "target", "options"),
    [
        ("dicom", "a.nii.gz", ()),
        ("dicom", "a.nrrd", ()),
        ("dicom", "a.mha", ()),
        ("dicom", "a", ("--format", "dicom")),
        ("dicom", "a.dcm", ()),
        ("scan.nii.gz", "a", ("--format", "dicom", "--modality", "CT")),
        ("scan.nii.gz", "a", ("--format", "dicom")),
        ("scan.nrrd", "a", ("--format", "dicom", "--like", "dicom")),
        ("scan.mha", "a.dcm", ("--modality", "MR")),
        ("scan.nii.gz", "a.nrrd", ()),
        ("scan.nrrd", "a.mha", ()),
        ("scan.mha", "a.nii.gz", ()),
    ],
)
def test_images(inputs: Path, tmp_path: Path, source: str, target: str, options):
    given = [
        inputs / word if before == "--like" else word
        for before, word in zip(("", *options), options, strict=False)
    ]
    code, text = run("convert", inputs / source, tmp_path / target, *given)
    assert code == 0, text
    np.testing.assert_array_equal(read(tmp_path / target), HU)
    grid = files.read_grid(inputs / "dicom")
    assert files.read_grid(tmp_path / target).reorient("LPS")[0].distance_mm(grid) < 1e-4


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((f"mask.{kind}", "a.rtstruct.dcm") for kind in ("nii.gz", "nrrd", "mha", "seg.dcm")),
        ("mask.nii.gz", "a.seg.dcm"),
        ("mask.rtstruct.dcm", "a.seg.dcm"),
        *(("mask.seg.dcm", f"a.{kind}") for kind in ("nii.gz", "nrrd", "mha", "seg.nrrd")),
        *(("mask.rtstruct.dcm", f"a.{kind}") for kind in ("nii.gz", "nrrd", "mha", "seg.nrrd")),
    ],
)
def test_masks(inputs: Path, tmp_path: Path, source: str, target: str):
    code, text = run(*("convert", inputs / source, tmp_path / target, "--like", inputs / "dicom"))
    assert code == 0, text
    if target.endswith("dcm"):
        code, text = run(
            *("convert", tmp_path / target, tmp_path / "b.nii.gz", "--like", inputs / "dicom")
        )
        assert code == 0, text
        target = "b.nii.gz"
    np.testing.assert_array_equal(as_whole_numbers(read(tmp_path / target)), MASK)


@pytest.mark.parametrize(("form", "ending"), [("png", "png"), ("tiff", "tif")])
@pytest.mark.parametrize(("bits", "top"), [(8, 255), (16, 65535)])
def test_pictures(inputs: Path, tmp_path: Path, form: str, ending: str, bits: int, top: int):
    code, text = run(
        *("convert", inputs / "dicom", tmp_path / "a", "--format", form),
        *("--window", "-160,240", "--bits", bits),
    )
    assert code == 0, text
    pixels = np.array(Image.open(tmp_path / "a" / f"slice_0002.{ending}"))
    expected = np.rint((np.clip(HU[..., 2].T.astype(float), -160, 240) + 160) * (top / 400))
    assert pixels.dtype == f"uint{bits}" and np.abs(pixels - expected).max() <= 1
    code, text = run(
        *("convert", inputs / "dicom", tmp_path / "b", "--format", form),
        *("--window", "-160,240", "--view", "coronal", "--bits", bits),
    )
    assert code == 0, text
    seen = np.array(Image.open(tmp_path / "b" / f"slice_0000.{ending}"))
    # Seen from the front, the head up; slices are counted towards the front.
    expected = np.rint((np.clip(HU[:, -1, ::-1].T.astype(float), -160, 240) + 160) * (top / 400))
    assert seen.shape == (4, 12) and np.abs(seen - expected).max() <= 1


@pytest.mark.parametrize(
    ("source", "target", "options", "words"),
    [
        ("dicom", "a.png", (), "holds one slice, found 4; give a folder"),
        ("dicom", "a.tif", ("--window", "0,9"), "holds one slice, found 4; give a folder"),
        ("dicom", "a", ("--format", "png"), "state a window (convert --window -200,200)"),
        ("dicom", "a.nii.gz", ("--format", "png"), "--format is for a folder"),
        ("dicom", "a", ("--format", "gif"), "--format is dicom, png or tiff"),
        ("dicom", "a.nii.gz", ("--view", "axial"), "--view is for slices"),
        ("dicom", "a", ("--view", "side", "--format", "png"), "axial, coronal, sagittal"),
        ("dicom", "a.nii.gz", ("--modality", "CT"), "--modality is for images"),
        ("dicom", "a.dcm", ("--window", "0,9"), "--window is for PNG and TIFF"),
        ("dicom", "a.dcm", ("--split-slices", "2"), "--split-slices writes volumes"),
        ("mask.seg.dcm", "a.dcm", (), "NAME.seg.dcm and NAME.rtstruct.dcm hold labels"),
    ],
)
def test_pairs_that_need_more(inputs: Path, tmp_path: Path, source, target, options, words):
    code, text = run("convert", inputs / source, tmp_path / target, *options)
    assert code == 2 and words in " ".join(text.split()), text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_series_of_like_is_not_replaced(inputs: Path, tmp_path: Path):
    line = ("convert", inputs / "scan.nii.gz", tmp_path / "s", "--format", "dicom")
    assert run(*line, "--modality", "CT")[0] == 0
    before = (tmp_path / "s" / "slice_0001.dcm").read_bytes()
    code, text = run(*line, "--like", tmp_path / "s", "--overwrite")
    assert code == 2 and "is read by this command" in text
    assert (tmp_path / "s" / "slice_0001.dcm").read_bytes() == before
