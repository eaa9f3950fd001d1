"""Predict on DICOM series: padding, notes, archives and their segmentations."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from tests.calls import run
from tests.formats.dicom.objects import ct, write
from tests.plans import small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.manifest import Source
from delineate.core.plan import Channel, Normalisation
from delineate.formats import files
from delineate.formats.label_files import read_label_file
from delineate.networks.build import build, weights_of
from delineate.preprocessing.prepare import prepare

PLAN = small_plan(
    3, channels=(Channel(name="CT", normalise=Normalisation(kind="none")),), spacing_mm=(1, 1, 2.5)
)
OUTSIDE = np.hypot(*np.mgrid[-8:8, -8:8]) > 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model."""
    path = tmp_path_factory.mktemp("model") / "m.model"
    Bundle(PLAN, (Member("fold_0", weights_of(build(PLAN.network, 3)), 0),)).save(path)
    return path


def series(folder, outside, dtype=np.int16, intercept=-24, first=1, **fields):
    """Sixteen slices of tissue, with ``outside`` around the field of view."""
    rng = np.random.default_rng(0)
    uid, frame = generate_uid(), generate_uid()
    slices = []
    for k in range(16):
        pixels = rng.integers(1000, 1100, OUTSIDE.shape)
        pixels[OUTSIDE] = outside
        own = {"SeriesInstanceUID": uid, "FrameOfReferenceUID": frame, "SliceThickness": 2.5}
        one = ct(
            pixels.astype(dtype),
            k,
            RescaleSlope="1",
            RescaleIntercept=str(intercept),
            InstanceNumber=k + first,
            **own | fields,
        )
        slices.append(one)
    return write(folder, *slices)


def predicted(model, scan, out, *words):
    code, text = run(
        "predict", model, scan, "-o", out, "--device", "cpu", "--backend", "torch", *words
    )
    assert code == 0, text
    return json.loads((out / "predictions.json").read_text())["cases"], text


@pytest.mark.parametrize(
    ("outside", "dtype", "intercept", "padding"),
    [
        (-2000, np.int16, -24, -2000),
        (63536, np.uint16, -24, 63536),
        # As some scanners do, the sign of the attribute is not that of the pixels.
        (-2000, np.int16, -24, 63536),
        # All tissue is positive, so that the volume has no negative value.
        (63536, np.uint16, 0, 63536),
    ],
)
def test_padding_is_air_for_the_network(tmp_path, model, outside, dtype, intercept, padding):
    paths = series(tmp_path / "ct", outside, dtype, intercept)
    for path in paths:
        one = pydicom.dcmread(path)
        one.add_new(0x00280120, "US" if padding > 0 else "SS", padding)
        one.save_as(path, enforce_file_format=True)
    air = series(tmp_path / "air", -1024 - intercept, np.int16, intercept)[0].parent
    scan = files.read(tmp_path / "ct")
    x, _ = prepare(scan, PLAN)
    expected, _ = prepare(files.read(air), PLAN)
    assert float(x.min()) == -1024 and bool((x == expected).all())
    for name in ("ct", "air"):
        predicted(model, tmp_path / name, tmp_path / f"{name}_out", "--probabilities")
    found = [
        files.read(next((tmp_path / f"{n}_out/probabilities").iterdir())) for n in ("ct", "air")
    ]
    np.testing.assert_array_equal(found[0].array, found[1].array)


def test_notes_are_in_the_table_and_the_record(tmp_path, model):
    series(tmp_path / "ct", -1000, first=3)
    shutil.copy(tmp_path / "ct/a.dcm", tmp_path / "ct/copy.dcm")
    cases, text = predicted(model, tmp_path / "ct", tmp_path / "out")
    notes = cases["ct"]["notes"]
    assert "InstanceNumber begins at 3: slices may be missing at an end" in notes
    assert any("copy.dcm" in note for note in notes)
    shown = " ".join(text.split())
    assert all(f"ct: note: {note}" in shown for note in notes)


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_series_in_an_archive(tmp_path, model, ending):
    pytest.importorskip("highdicom")
    own = {"StudyDate": "20240101", "StudyTime": "1200", "PatientName": "A", "StudyID": "1"}
    paths = [
        *series(tmp_path / "a", -1000, SeriesNumber=2, **own),
        *series(tmp_path / "b", -1000, SeriesNumber=5, **own),
    ]
    target = tmp_path / f"scans.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(target, "w") as out:
            for path in paths:
                out.write(path, path.relative_to(tmp_path))
    else:
        with tarfile.open(target, "w:gz") as out:
            for path in paths:
                out.add(path, path.relative_to(tmp_path))
    cases, _ = predicted(model, target, tmp_path / "out", "--dicom-seg")
    assert sorted(cases) == ["scans_2", "scans_5"]
    for name, folder in (("scans_2", "a"), ("scans_5", "b")):
        mask = files.read(tmp_path / f"out/{name}.nii.gz")
        assert mask.grid.matches(files.read_grid(tmp_path / folder))
        seg = Source(str(tmp_path / f"out/{name}.seg.dcm"), like=str(tmp_path / folder))
        assert mask.array.any() and np.array_equal(read_label_file(seg).array, mask.array)
