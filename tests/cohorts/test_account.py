"""Every file of a folder is accounted for: used as what, or not used and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.cohorts.imitate import box, dicom_series, nifti, noise, png

from delineate.cohorts.discovery.account import account_for, lines
from delineate.cohorts.discovery.layouts import discover
from delineate.commands.check import check
from delineate.core.errors import FormatError
from delineate.core.manifest import Manifest


def told(root) -> list[str]:
    return lines(account_for(discover(root).manifest))


def test_every_file_beside_and_inside_a_cohort_has_a_line(tmp_path):
    for n in range(3):
        nifti(tmp_path / "images" / f"c{n}.nii.gz", noise(n))
        nifti(tmp_path / "labels" / f"c{n}.nii.gz", box())
        nifti(tmp_path / "uncertain" / f"case{n}" / "mask.nii.gz", box())
    for name, text in (
        ("README.md", "read me"),
        ("labels.csv", "value,name\n1,liver\n"),
        ("coco.json", json.dumps({"images": [], "annotations": []})),
        ("images/patients.xlsx", ""),
        ("train.py", ""),
        (".hidden", ""),
    ):
        (tmp_path / name).write_text(text)
    assert told(tmp_path) == [
        "3 .nii.gz in images: used as image",
        "3 .nii.gz in labels: used as label",
        "1 .csv: used as settings",
        "3 .nii.gz in uncertain/case*: not used, masks that belong to no case (such as "
        "uncertain/case0/mask.nii.gz)",
        "1 .json: not used, polygons (COCO) that belong to no case (such as coco.json)",
        "1 .md: not used, documents (such as README.md)",
        "1 .py: not used, programs (such as train.py)",
        "1 .xlsx in images: not used, tables (such as images/patients.xlsx)",
    ]


def test_no_file_is_counted_twice_or_lost(tmp_path):
    """The files of a series and of a folder of slices belong to their case."""
    for n in range(2):
        dicom_series(tmp_path / "images" / f"p{n}", noise(n))
        for k in range(6):
            png(tmp_path / "labels" / f"p{n}" / f"{k}.png", box()[..., k])
    groups = account_for(discover(tmp_path).manifest)
    counted = {(one.use, one.count) for one in groups}
    assert counted == {("image", 12), ("label", 12)}


def test_the_account_is_shown_and_kept_with_the_cohort(tmp_path):
    for n in range(3):
        png(tmp_path / "c" / "images" / f"{n}.png", noise(n, (12, 10), np.uint8))
        png(tmp_path / "c" / "masks" / f"{n}.png", box()[..., 2] * 255)
    (tmp_path / "c" / "notes.txt").write_text("x")
    check(tmp_path / "c", tmp_path / "out")
    kept = Manifest.load(tmp_path / "out" / "manifest.jsonl").files
    assert [one["use"] for one in kept] == ["image", "label", ""]
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["files"] == list(kept)


def test_a_single_file_that_is_no_scan_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(FormatError, match="unrecognised format"):
        discover(tmp_path / "note.txt")
    assert account_for(discover(nifti(tmp_path / "one.nii.gz", noise(0))).manifest) == []
