"""Convert a series with uneven gaps: what was changed is recorded next to the output."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.cohorts.imitate import dicom_series, noise
from tests.structure_sets import CLOSED, polygon_on, write_structure_set

from delineate.commands.convert import convert
from delineate.commands.options import ConvertOptions
from delineate.core.errors import OutputError
from delineate.formats import files

SHAPE = (8, 6, 7)


@pytest.fixture
def gapped(tmp_path):
    folder = dicom_series(tmp_path / "scan", noise(1, SHAPE), uid="1.2.3", frame="1.2.4")
    write_structure_set(tmp_path / "rs.dcm", {"GTV": drawn(folder)}, series="1.2.3", frame="1.2.4")
    next(path for path in folder.iterdir() if "4" in path.stem).unlink()
    return folder


def drawn(folder):
    grid = files.read_grid(folder)
    corners = [(0.5, 0.5), (4.5, 0.5), (4.5, 3.5), (0.5, 3.5)]
    return [(polygon_on(grid, corners, k), CLOSED) for k in (1, 2)]


def record(path):
    facts = json.loads(path.read_text())
    return {key: facts[key] for key in ("file", "fix_series", "interpolated_slices", "axis")}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.nii.gz", {}, {"a.json": ("a.nii.gz", [4], 2)}),
        ("a.nrrd", {"orientation": "IRA"}, {"a.json": ("a.nrrd", [2], 0)}),
        ("a.nii", {"split_slices": 4}, {"a_00.json": ("a_00.nii", [], 2)}),
        ("a", {"form": "dicom"}, {"a/1_ct.json": ("1_ct", [4], 2)}),
    ],
)
def test_the_record_lists_the_interpolated_slices_of_the_file(
    tmp_path, gapped, name, options, expected
):
    done = convert([gapped], tmp_path / name, ConvertOptions(fix_series="fill", **options))
    assert any("fixed by fill" in note for note in done.notes)
    for path, (file, slices, axis) in expected.items():
        assert tmp_path / path in done.records
        facts = {"file": file, "fix_series": "fill", "interpolated_slices": slices, "axis": axis}
        assert record(tmp_path / path) == facts


def test_runs_and_labels_have_records_and_even_series_have_none(tmp_path, gapped):
    convert([gapped], tmp_path / "run.nii.gz", ConvertOptions(fix_series="run"))
    assert record(tmp_path / "run.json")["interpolated_slices"] == []
    options = ConvertOptions(fix_series="fill")
    done = convert([tmp_path / "rs.dcm"], tmp_path / "labels.nii.gz", options)
    assert record(tmp_path / "labels.json")["interpolated_slices"] == [4]
    assert any("its series is fixed by fill" in note for note in done.notes)
    even = dicom_series(tmp_path / "even", noise(1, SHAPE), uid="1.2.5")
    convert([even], tmp_path / "even.nii.gz", options)
    assert not (tmp_path / "even.json").exists()
    assert np.array_equal(
        files.read(tmp_path / "even.nii.gz").array, files.read(even).reorient("LPS").array
    )


def test_another_record_is_not_replaced(tmp_path, gapped):
    (tmp_path / "a.json").write_text('{"mine": 1}')
    options = ConvertOptions(fix_series="fill")
    with pytest.raises(OutputError, match="exists already"):
        convert([gapped], tmp_path / "a.nii.gz", options)
    assert not (tmp_path / "a.nii.gz").exists()
