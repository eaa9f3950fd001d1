"""The check verb from end to end: tables, files, mended copies."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "cohort"))
from tests.cohorts.imitate import AFFINE, SHAPE, box, nifti, noise, png

from delineate.cohorts.discovery.layouts import find
from delineate.cohorts.reading import read_image, read_label
from delineate.commands.check import check, table
from delineate.commands.options import CheckOptions
from delineate.core.errors import LayoutError, OutputError
from delineate.core.manifest import Manifest
from delineate.formats.disk import STILL_NS


def cohort(root, count=4):
    for n in range(count):
        nifti(root / "images" / f"c{n}.nii.gz", noise(n).astype(np.float32))
        nifti(root / "labels" / f"c{n}.nii.gz", box(1 + n % 2))


def shown(checked) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(table(checked))
    return text.getvalue()


def hashes(root) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_a_split_is_printed_and_written(tmp_path):
    cohort(tmp_path / "d", 6)
    nifti(tmp_path / "d/images/c1.nii.gz", np.zeros(SHAPE, np.float32))  # not usable
    checked = check(tmp_path / "d", tmp_path / "out", CheckOptions(split="4/2", seed=1))
    lists = json.loads((tmp_path / "out/split.json").read_text())
    sides = {c.id: c.split for c in Manifest.load(tmp_path / "out/manifest.jsonl")}
    assert lists["about"] == "4/2, seed 1" and lists["val"] == []
    assert sides == {c: side for side in ("train", "test") for c in lists[side]}
    assert len(sides) == 5 and "c1" not in sides
    text = shown(checked)
    assert "split 4/2, seed 1:" in text and f"test: {len(lists['test'])} patients" in text
    again = check(tmp_path / "d", None, CheckOptions(split=tmp_path / "out/split.json"))
    assert again.usable == checked.usable


def test_files_table_and_usable_cases(tmp_path):
    cohort(tmp_path / "d")
    nifti(tmp_path / "d/images/c1.nii.gz", np.zeros(SHAPE, np.float32))
    told = []
    checked = check(tmp_path / "d", tmp_path / "out", progress=lambda *at: told.append(at))
    assert [c.id for c in checked.usable] == ["c0", "c2", "c3"]
    assert len(checked.manifest) == 4
    assert checked.findings[0].kind == "constant"
    written = json.loads((tmp_path / "out/findings.json").read_text())
    assert (written["cases"], written["usable"], written["count"]["error"]) == (4, 3, 1)
    assert Manifest.load(tmp_path / "out/manifest.jsonl") == checked.usable
    assert told[-1] == ("check", 4, 4, "c3")
    text = shown(checked)
    assert "parallel-folders: 4 cases (4 with truth) of 4 patients; 3 usable" in text
    assert "c1: all voxels of channel 0 have the value 0" in text


def test_a_finding_of_many_cases_is_one_line(tmp_path):
    cohort(tmp_path / "d", 6)
    for n in range(5):
        nifti(tmp_path / f"d/images/c{n}.nii.gz", np.full(SHAPE, 7 * (n == 4), np.float32))
    checked = check(tmp_path / "d", None)
    assert sum(f.kind == "constant" for f in checked.findings) == 5
    text = shown(checked)
    assert "c0 and 3 more: all voxels of channel 0 have the value 0" in text
    assert "c4: all voxels of channel 0 have the value 7" in text
    assert "more in findings.json" not in text.split("constant")[1].split("note")[0]


def test_hippocampus_is_flagged_quickly_and_goes_on(real_data):
    begun = time.perf_counter()
    checked = check(real_data / "hippocampus")
    seconds = time.perf_counter() - begun
    kinds = {f.kind: f.severity for f in checked.findings}
    assert kinds["dtype"] == kinds["intensity"] == "warning"
    assert len(checked.usable) == 208
    assert "1.56166e+06" in shown(checked)
    assert seconds < 60  # some two seconds on a quiet machine


def test_processes_give_the_same_as_one(tmp_path):
    cohort(tmp_path / "d", 10)
    (tmp_path / "d/images/c3.nii.gz").write_bytes(gzip.compress(b"no image"))
    one, two = (
        check(tmp_path / "d", options=CheckOptions(workers=1)),
        check(tmp_path / "d", options=CheckOptions(workers=2)),
    )
    assert one.findings == two.findings
    assert any(f.case == "c3" and f.severity == "error" for f in two.findings)


def broken(root):
    """c0 is right; c1 has a default affine, c2 a coarse label, c3 rounding, c4 is elsewhere, c5
    truncated.
    """
    cohort(root, 6)
    nifti(root / "labels/c1.nii.gz", box(2), np.diag([0.8, 1.1, 2.5, 1]))
    coarse = AFFINE @ np.diag([2, 2, 1, 1])
    coarse[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, :3] @ [0.5, 0.5, 0]
    nifti(root / "labels/c2.nii.gz", box(1, (6, 5, 6), (1, 1, 1), 2), coarse)
    rounded = AFFINE.copy()
    rounded[0, 3] += 0.2
    nifti(root / "labels/c3.nii.gz", box(2), rounded)
    far = AFFINE.copy()
    far[0, 3] += 500
    nifti(root / "labels/c4.nii.gz", box(1), far)
    path = root / "images/c5.nii.gz"
    path.write_bytes(path.read_bytes()[:300])


def test_fix_writes_mended_copies_and_leaves_originals(tmp_path):
    broken(tmp_path / "d")
    before = hashes(tmp_path / "d")
    checked = check(tmp_path / "d", tmp_path / "out", CheckOptions(fix=tmp_path / "fixed"))
    assert hashes(tmp_path / "d") == before
    assert checked.mended == 3
    assert [c.id for c in checked.usable] == ["c0", "c1", "c2", "c3"]
    log = {
        e["case"]: e for e in json.loads((tmp_path / "fixed/changes.json").read_text())["changes"]
    }
    assert {case: e["ways"] for case, e in log.items()} == {
        "c1": ["copy affine"],
        "c2": ["resample"],
        "c3": ["copy affine"],
    }
    assert log["c2"]["voxels_before"] == {"1": 8}
    assert log["c2"]["voxels_after"] == {"1": 32}
    mended = find(tmp_path / "fixed")
    assert mended == checked.usable
    for case in mended:
        image = read_image(case, mended)
        label = read_label(case, mended, image.grid)
        assert np.array_equal(image.array[0], noise(int(case.id[1])))
        assert label.grid == image.grid
    label = read_label(mended.named("c2"), mended).array
    assert np.array_equal(np.argwhere(label).min(axis=0), [2, 2, 1])
    again = check(tmp_path / "fixed")
    assert not any(f.severity == "error" for f in again.findings)


def test_fix_remaps_values_of_every_label(tmp_path):
    for n in range(3):
        png(tmp_path / "d/images" / f"{n}.png", noise(n, (8, 6), np.uint8))
        png(tmp_path / "d/labels" / f"{n}.png", box(255, (8, 6, 1), (1, 1, 0))[..., 0])
    checked = check(tmp_path / "d", options=CheckOptions(fix=tmp_path / "fixed"))
    assert checked.mended == 3
    assert checked.usable.mapping.to_json() == {"rest": "refuse"}
    label = read_label(checked.usable.cases[0], checked.usable)
    assert sorted(np.unique(label.array)) == [0, 1]
    plain = find(tmp_path / "fixed", layout="parallel-folders")
    assert len(plain) == 3


def test_fix_refuses_the_originals_own_folder(tmp_path):
    broken(tmp_path / "d")
    before = hashes(tmp_path / "d")
    with pytest.raises(OutputError, match="this one contains originals"):
        check(tmp_path / "d", options=CheckOptions(fix=tmp_path / "d"))
    assert hashes(tmp_path / "d") == before


def test_an_empty_folder_is_one_sentence(tmp_path):
    with pytest.raises(LayoutError, match="the folder is empty"):
        check(tmp_path)


def test_label_without_image_names_the_case(tmp_path):
    cohort(tmp_path / "d")
    (tmp_path / "d/images/c2.nii.gz").unlink()
    checked = check(tmp_path / "d")
    (error,) = [f for f in checked.findings if f.severity == "error"]
    assert (error.case, error.kind) == ("c2", "unpaired")
    assert "label c2.nii.gz has no image" in error.message


def test_values_that_can_only_be_ct_are_called_ct(tmp_path):
    for n in range(3):
        image = np.random.default_rng(n).normal(40, 300, SHAPE).clip(-1024, 1500)
        image[0] = -1024
        nifti(tmp_path / "ct/images" / f"c{n}.nii.gz", image.astype(np.int16))
        nifti(tmp_path / "ct/labels" / f"c{n}.nii.gz", box(1))
    checked = check(tmp_path / "ct")
    assert checked.manifest.modality == checked.usable.modality == "CT"
    assert [f.kind for f in checked.findings if f.kind == "modality"] == ["modality"]
    nifti(tmp_path / "ct/images/c1.nii.gz", noise(1))
    assert check(tmp_path / "ct").manifest.modality == ""


def test_each_mask_is_opened_to_recognise_it_and_to_read_it(tmp_path, monkeypatch):
    for n in range(3):
        png(tmp_path / "d" / "images" / f"c{n}.png", noise(n)[..., 0].astype(np.uint8))
        png(tmp_path / "d" / "labels" / f"c{n}.png", 255 * box(1)[..., SHAPE[2] // 2])
    opened, counts = Path.open, Counter()

    def counted(path, *words, **options):
        counts[path.parent.name] += path.suffix == ".png"
        return opened(path, *words, **options)

    time.sleep(2 * STILL_NS / 1e9)  # files that were just written are read again
    monkeypatch.setattr(Path, "open", counted)
    checked = check(tmp_path / "d", None, CheckOptions())
    assert len(checked.usable.cases) == 3
    assert counts["labels"] == 6
