"""Radiographs and ultrasound in DICOM, with masks in DICOM or as pictures."""

from __future__ import annotations

import numpy as np
import pytest
from tests.cohorts.test_layouts_volumes import found_in, names, rows
from tests.formats.dicom.objects import image

from delineate.cohorts.checks.doctor import examine
from delineate.cohorts.discovery.layouts import find
from delineate.cohorts.reading import read_image, read_label

DX, CAPTURE = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.7"
SIDE = 24


def picture(path, n, **fields):
    pixels = np.random.default_rng(n).integers(0, 4000, (SIDE, SIDE), np.uint16)
    place = {"sop_class": DX, "modality": "DX", "SeriesInstanceUID": f"1.2.{n + 1}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    one = image(pixels, PatientID=f"P{n}", PixelSpacing=[0.2, 0.1], **place, **fields)
    one.save_as(path, enforce_file_format=True)


def mask(path, n, smoothed=False, **fields):
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[4:16, 4 : 12 + n] = 255
    if smoothed:
        pixels[3, 4:16] = np.arange(20, 260, 20)
    place = {"sop_class": CAPTURE, "modality": "OT", "SeriesInstanceUID": f"1.3.{n + 1}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    image(pixels, PatientID=f"P{n}", **place, **fields).save_as(path, enforce_file_format=True)
    return pixels > 127


@pytest.mark.parametrize(
    ("layout", "scan", "truth"),
    [
        ("suffix-pairs", "p{}.dcm", "p{}_mask.dcm"),
        ("suffix-pairs", "p{}/image.dcm", "p{}/mask.dcm"),
        ("parallel-folders", "images/p{}.dcm", "labels/p{}.dcm"),
    ],
)
def test_masks_in_dicom_have_the_grid_of_their_image(tmp_path, layout, scan, truth):
    masks = {}
    for n in range(3):
        picture(tmp_path / scan.format(n), n)
        masks[f"p{n}"] = mask(tmp_path / truth.format(n), n, smoothed=True)
    found = found_in(tmp_path, layout)
    assert [r[1] for r in rows(found)] == ["P0", "P1", "P2"] or "/" in scan.format(0)
    assert names(found) == {1: "foreground"}
    for case in found.manifest:
        scanned = read_image(case, found.manifest)
        # The place of a radiograph is not known, and a mask on its grid does not tell it.
        assert "place_from" not in scanned.meta
        assert scanned.spacing_mm[:2] == pytest.approx((0.1, 0.2))
        label = read_label(case, found.manifest, scanned.grid)
        np.testing.assert_array_equal(label.array[..., 0], masks[case.id].T)
        findings = examine((case, found.manifest)).findings
        assert not [one for one in findings if one.kind in ("geometry", "values")]


def test_a_mask_with_another_spacing_than_its_image_is_an_error(tmp_path):
    for n in range(2):
        picture(tmp_path / f"p{n}.dcm", n)
        mask(tmp_path / f"p{n}_mask.dcm", n, PixelSpacing=[0.2, 0.1] if n else [0.4, 0.4])
    found = find(tmp_path)
    findings = [one for case in found for one in examine((case, found)).findings]
    assert [one.case for one in findings if one.severity == "error"] == ["p0"]
