"""Files that a command reads by a detour: through a manifest, a link inside a folder, a header that
names others.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from tests.scans import scan, write_cohort

from delineate.cohorts.discovery.originals import originals
from delineate.commands import convert, report
from delineate.commands.options import ConvertOptions
from delineate.commands.train.request import Request
from delineate.commands.train.run import open_run
from delineate.core.errors import DelineateError, OutputError, UsageError
from delineate.core.grid import Grid
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.outputs import Originals
from delineate.core.volume import Volume
from delineate.formats import files


@pytest.mark.parametrize("way", ["manifest", "link to a file", "link to a folder"])
def test_training_anew_removes_no_cohort_that_lies_in_the_runs_folder(tmp_path, way):
    inside = tmp_path / "m.model.run" / "cohort"
    write_cohort(inside, 2)
    images = sorted((inside / "images").iterdir())
    data = tmp_path / "data"
    if way == "manifest":
        data = tmp_path / "manifest.jsonl"
        cases = tuple(Case(p.name, p.name, (Source(str(p)),)) for p in images)
        data.write_text(Manifest(cases, ("image",)).to_jsonl())
    elif way == "link to a folder":
        data.mkdir()
        (data / "images").symlink_to(inside / "images")
    else:
        (data / "images").mkdir(parents=True)
        for path in images:
            (data / "images" / path.name).symlink_to(path)
    model = tmp_path / "m.model"
    request = Request(data=str(data), epochs=1)
    (tmp_path / "m.model.run" / "request.json").write_text(json.dumps(vars(request)))
    for overwrite in (True, False):  # without a plan, the run is started anew too
        with pytest.raises(OutputError, match="which this command reads"):
            open_run(request, model, overwrite)
    assert all(path.is_file() for path in images)


def test_merging_keeps_a_part_of_the_same_grid_but_other_voxels(tmp_path):
    grid = Grid((4, 4, 2), np.eye(4))
    upper = np.eye(4)
    upper[2, 3] = 2
    for name, value, affine in (("a", 1, np.eye(4)), ("b", 2, upper)):
        array = np.full(grid.shape, value, np.int16)
        files.write(Volume(array, Grid((4, 4, 2), affine)), tmp_path / f"{name}.nii.gz")
    whole = convert.convert(
        [tmp_path], tmp_path / "whole.nii.gz", ConvertOptions(merge=True)
    ).written[0]
    assert convert.convert([tmp_path], whole, ConvertOptions(merge=True)).written == (
        whole,
    )  # its own result
    other = files.read(whole)
    files.write(other.with_array(other.array + 5), whole)
    before = whole.read_bytes()
    with pytest.raises(OutputError, match="differs from the merged volume"):
        convert.convert([tmp_path], whole, ConvertOptions(merge=True))
    assert whole.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "last", "parts"),
    [
        ("a.mhd", "ElementDataFile = LIST\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("a.mhd", "ElementDataFile = s%d.raw 1 2 1\n", ["s1.raw", "s2.raw"]),
        ("a.mha", "ElementDataFile = s1.raw\n", ["s1.raw"]),
        ("a.mhd", "ElementDataFile = LOCAL\n", []),
        ("a.nrrd", "data file: s1.raw\n", ["s1.raw"]),
        ("a.nhdr", "data file: LIST\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("a.nhdr", "datafile: s%01d.raw 1 2 1\r\n", ["s1.raw", "s2.raw"]),
    ],
)
@pytest.mark.parametrize("padding", [0, 9000])
def test_the_files_that_a_header_names(tmp_path, name, last, parts, padding):
    start = "NRRD0004\n" if name[2] == "n" else "ObjectType = Image\n"
    comment = ("# " if name[2] == "n" else "Comment = ") + "x" * padding + "\n"
    (tmp_path / name).write_text(start + comment + last)
    for part in ("s1.raw", "s2.raw"):
        (tmp_path / part).write_bytes(b"0")
    assert [p.name for p in files.companions(tmp_path / name)] == parts


def test_an_inode_that_a_deleted_original_left_is_free(tmp_path):
    scan(tmp_path / "gone.nii.gz")
    kept = Originals([tmp_path / "gone.nii.gz"])
    kept.refuse([tmp_path / "x"])
    (tmp_path / "x").write_text("")
    kept.refuse([tmp_path / "x"])  # fills what is known
    number = os.stat(tmp_path / "gone.nii.gz").st_ino
    (tmp_path / "gone.nii.gz").rename(tmp_path / "renamed.nii.gz")
    assert os.stat(tmp_path / "renamed.nii.gz").st_ino == number
    kept.refuse([tmp_path / "renamed.nii.gz"])


def test_lists_beside_the_scans_of_a_manifest_are_read(tmp_path):
    write_cohort(tmp_path / "coh", 2)
    (tmp_path / "coh" / "labels.csv").write_text("value,name\n1,x\n")
    path = next((tmp_path / "coh" / "images").iterdir())
    manifest = Manifest((Case("a", "a", (Source(str(path)),)),), ("image",))
    with pytest.raises(OutputError):
        originals([manifest]).refuse([tmp_path / "coh" / "labels.csv"])


def test_a_segmentation_below_a_series_may_be_written_again(tmp_path):
    (tmp_path / "series" / "out").mkdir(parents=True)
    (tmp_path / "series" / "out" / "montage.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "series" / "slice.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    kept = Originals([tmp_path / "series"], files.is_slice_of)
    kept.refuse([tmp_path / "series" / "out" / "montage.png"])
    with pytest.raises(OutputError):
        kept.refuse([tmp_path / "series" / "slice.png"])


def test_a_report_is_a_page(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "clock.json").write_text("{}")
    scan(tmp_path / "precious.nii.gz")
    before = (tmp_path / "precious.nii.gz").read_bytes()
    with pytest.raises(UsageError, match="must end in"):
        report.report(tmp_path / "run", tmp_path / "precious.nii.gz")
    assert (tmp_path / "precious.nii.gz").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "message", "shown"),
    [
        ("a", "a file is damaged here", False),
        ("scans", "none of the scans/x is whole", True),
        ("in/a.nii", "in/a.nii is damaged", False),
        ("in/a.nii", "in/a.nii.gz is damaged", True),
    ],
)
def test_a_path_is_named_unless_the_message_names_it(path, message, shown):
    text = str(DelineateError(message, path=path))
    assert text.startswith(f"{path}: ") is shown


def test_a_run_among_the_data_is_started_anew(tmp_path):
    data = write_cohort(tmp_path / "coh", 2)
    run = data / "m.model.run"
    run.mkdir()
    cases = (Case("a", "a", (Source(str(run / "mended.nii.gz")),)),)
    (run / "manifest.jsonl").write_text(Manifest(cases, ("image",)).to_jsonl())
    open_run(Request(data=str(data), epochs=1), data / "m.model", True)
    assert not (run / "manifest.jsonl").exists() and len(list(data.rglob("*.nii.gz"))) == 4
