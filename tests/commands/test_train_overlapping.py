"""Structures that overlap from the command line: train, predict, evaluate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.cohorts.imitate import nifti
from tests.plans import small_network
from typer.testing import CliRunner

from delineate.cli.command_line import app
from delineate.cohorts.discovery.layouts import find
from delineate.core.plan import Augmentation, Channel, Loss, Optimiser, Plan, Schedule, Structure

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

SHAPE = (16, 16, 16)


def run(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output or done.exception


@pytest.mark.rounds
def test_regions_from_training_to_scores(tmp_path):
    """nnU-Net's regions with voxels of unknown truth, and one label map as output."""
    root = tmp_path / "c"
    for n in range(4):
        truth = np.zeros(SHAPE, np.uint8)
        truth[3:13, 3:13, 2 + n : 12 + n], truth[6:11, 5:11, 4 + n : 9 + n] = 1, 2
        image = truth * 2.0 + np.random.default_rng(n).normal(0, 0.2, SHAPE)
        truth[:, :, :2] = 3
        nifti(root / "imagesTr" / f"c{n}_0000.nii.gz", image.astype(np.float32))
        nifti(root / "labelsTr" / f"c{n}.nii.gz", truth)
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    meta = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(meta | {"regions_class_order": [1, 2]}))
    cohort = find(root)
    plan = Plan(
        channels=(Channel(name="MR"),),
        structures=tuple(Structure(**d) for d in cohort.labels.to_json()),
        spacing_mm=(None, None, None),
        patch=SHAPE,
        network=small_network(classes=2, overlapping=True),
        loss=Loss(cross_entropy=0, binary_cross_entropy=1),
        optimiser=Optimiser(learning_rate=1e-2),
        schedule=Schedule(epochs=1, steps_per_epoch=120, ema=0.9),
        augmentation=Augmentation.none(),
    )
    (tmp_path / "plan.json").write_text(plan.to_json())
    model, out = tmp_path / "m.model", tmp_path / "p"
    run("train", root, "-o", model, "--plan", tmp_path / "plan.json", "--device", "cpu")
    baseline = json.loads((tmp_path / "m.model.run" / "baseline.json").read_text())
    assert set(baseline) == {"whole", "core"} and min(baseline.values()) > 0.2
    run("predict", model, root, "-o", out, "--device", "cpu")
    run("evaluate", out, root, "-o", tmp_path / "s")
    record = json.loads((out / "predictions.json").read_text())
    assert [entry["parts"] for entry in record["labels"]] == [[1, 2], [2]]
    scores = json.loads((tmp_path / "s" / "scores.json").read_text())
    assert min(scores["pooled"][name]["dice"] for name in ("whole", "core")) > 0.5
