"""Rotten cases are named failures in the exit code of every command, and cost no other case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.faults.batch import KINDS, hashes, kinds, small_model
from tests.calls import run
from tests.scans import mask, scan

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

GOOD = ("c0", "c1", "c2")
CHOSEN = (
    "empty",
    "sform with NaN",
    "a named pipe called a.nii.gz",
    "a link to nothing",
    "an empty folder",
)
ROTTEN = {f"r{n}": what for n, what in enumerate(CHOSEN)}


def cohort(folder: Path, rotten: str) -> Path:
    """images/ and labels/ of three sound cases and ``ROTTEN`` ones, whose part is in ``rotten``."""
    make = {one.what: one.make for one in kinds()}
    for part in ("images", "labels"):
        for n, name in enumerate((*GOOD, *ROTTEN)):
            path = folder / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in ROTTEN and part == rotten:
                make[ROTTEN[name]](path)
            else:
                scan(path, mask(n) if part == "labels" else None, seed=n)
    return folder


def test_twenty_kinds_are_known():
    assert len(kinds()) == len(set(KINDS)) == 20


@pytest.mark.parametrize("rotten", ["images", "labels"])
def test_check_and_plan_name_each(tmp_path, rotten):
    data = cohort(tmp_path / "data", rotten)
    code, _ = run("check", data, "-o", tmp_path / "checked")
    found = json.loads((tmp_path / "checked/findings.json").read_text())
    named = {one["case"] for one in found["findings"] if one["severity"] == "error"}
    assert code == 1 and named == set(ROTTEN) and found["usable"] == len(GOOD)
    code, printed = run("plan", data, "-o", tmp_path / "plan.json")
    assert code == 1 and (tmp_path / "plan.json").is_file()
    failed = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert all(any(name in line for line in failed) for name in ROTTEN)
    assert not any(name in line for line in failed for name in GOOD)


def test_predict_gives_the_same_masks_as_without_them(tmp_path):
    data = cohort(tmp_path / "data", "images") / "images"
    (tmp_path / "clean").mkdir()
    for name in GOOD:
        (tmp_path / "clean" / f"{name}.nii.gz").hardlink_to(data / f"{name}.nii.gz")
    model = small_model(tmp_path / "small.model")
    assert run("predict", model, tmp_path / "clean", "-o", tmp_path / "a")[0] == 0
    code, _ = run("predict", model, data, "-o", tmp_path / "b")
    cases = json.loads((tmp_path / "b/predictions.json").read_text())["cases"]
    assert code == 1 and {name for name in cases if "error" in cases[name]} == set(ROTTEN)
    assert len(hashes(tmp_path / "b")) == len(GOOD)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.parametrize("side", ["predictions", "truths"])
def test_evaluate_names_each(tmp_path, side):
    rotten = cohort(tmp_path / "data", "labels") / "labels"
    for n, name in enumerate((*GOOD, *ROTTEN)):
        scan(tmp_path / "sound" / f"{name}.nii.gz", mask(n))
    pair = (rotten, tmp_path / "sound")
    given = pair if side == "predictions" else pair[::-1]
    code, printed = run("evaluate", *given, "-o", tmp_path / "scores")
    found = json.loads((tmp_path / "scores/scores.json").read_text())
    assert code == 1 and set(found["failures"]) == set(ROTTEN), printed
    assert {row["case"] for row in found["rows"]} == set(GOOD)
