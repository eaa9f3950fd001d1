"""Flags of predictions by the commands: a short model and planted scans."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.cohorts.imitate import nifti
from tests.plans import small_plan
from typer.testing import CliRunner

from delineate.cli.command_line import app
from delineate.core.plan import Channel, Schedule

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

SHAPE = (20, 16, 16)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code in (0, 3), done.output or done.exception
    return done.stdout


def image(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright structure on one side, and a gradient."""
    rng, truth = np.random.default_rng(seed), np.zeros(SHAPE, np.uint8)
    truth[3:9, 4:12, 3 + seed % 2 : 12] = 1
    truth[12:16, 4:10, 3:10] = 2
    at = np.arange(SHAPE[0])[:, None, None]
    return (100 + 5 * at + 80 * (truth > 0) + rng.normal(0, 4, SHAPE)).astype(np.float32), truth


def test_planted_scans_are_flagged_in_table_record_and_report(tmp_path):
    data = tmp_path / "c"
    for seed in range(9):
        for folder, array in zip(("imagesTr", "labelsTr"), image(seed), strict=True):
            nifti(data / folder / f"c{seed}.nii.gz", array)
    meta = {"labels": {"0": "background", "1": "left part", "2": "right part"}}
    (data / "dataset.json").write_text(json.dumps(meta | {"modality": {"0": "MR"}}))
    plan = small_plan(
        channels=(Channel(name="MR"),),
        spacing_mm=(None, None, None),
        schedule=Schedule(epochs=1, steps_per_epoch=10),
    )
    (tmp_path / "plan.json").write_text(plan.to_json())
    model = tmp_path / "m.model"
    run("train", data, "-o", model, "--plan", tmp_path / "plan.json", "--device", "cpu")
    good, _ = image(50)
    planted = {
        "constant": np.full(SHAPE, 7, np.float32),
        "lost": np.full(SHAPE, np.nan, np.float32),
        "mirrored": good[::-1].copy(),
        "short": good[:, :, :8].copy(),
    }
    for name, array in planted.items():
        nifti(tmp_path / "scans" / f"{name}.nii.gz", array)
    affine = nib.load(tmp_path / "scans" / "mirrored.nii.gz").affine @ np.diag([1, 1, 2.0, 1])
    nib.save(nib.Nifti1Image(good, affine), tmp_path / "scans" / "stretched.nii.gz")
    text = run("predict", model, tmp_path / "scans", "-o", tmp_path / "out", "--device", "cpu")
    cases = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]
    kinds = {name: {flag["kind"] for flag in case["flags"]} for name, case in cases.items()}
    assert "constant" in kinds["constant"] and "not finite" in kinds["lost"]
    assert "mirrored" in kinds["mirrored"]
    assert "size" in kinds["short"] and "spacing" in kinds["stretched"]
    for name, flags in kinds.items():
        assert all(f"{name}: {kind}: " in text for kind in flags)
    # The report of the training lists those of its own validation cases, as far as there are any.
    assert 'id="flags"' in (tmp_path / "m.model.run" / "report.html").read_text()


@pytest.mark.rounds
def test_a_real_model_flags_every_fault_and_hardly_any_good_scan(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    flags = importlib.import_module("flags")
    found = flags.measured("phantom", "2m", 10, 1, tmp_path)
    assert found["good"]["flagged"] <= 0.05 * found["good"]["scans"]
    for fault in flags.FAULTS:
        # The distances of the slices of the phantom differ by more than twice.
        least = 9 if fault == "wrong spacing" else 10
        assert found[fault]["flagged"] >= least, (fault, found[fault])
