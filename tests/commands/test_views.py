"""A plan with views through the whole verb: train, go on after a kill, predict with all views and
with one, start from another model.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tests.calls import call
from tests.plans import small_network, small_plan
from tests.scans import write_cohort

from delineate.commands.options import TrainOptions
from delineate.commands.train.train import train
from delineate.core.bundle import Bundle
from delineate.core.errors import UsageError
from delineate.core.plan import Augmentation, Channel, Plan, Schedule, View
from delineate.formats import files

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

VIEWS = (
    View(axis=2, patch=(16, 8, 1), weight=0.4),
    View(axis=1, patch=(12, 1, 16), weight=0.4),
    View(axis=0, patch=(1, 16, 12), weight=0.2, merge_sides=True),
)
SMALL = {
    "widths": (4, 8),
    "strides": ((2, 2, 1),),
    "kernels": ((3, 3, 1),) * 2,
    "norm": "batch",
    "dropout": 0.2,
}


def plan_of(**changes) -> Plan:
    base = {
        "channels": (Channel(name="MR"),),
        "patch": (16, 8, 1),
        "spacing_mm": (1.5, 1.5, 2.0),
        "network": small_network(2, **SMALL),
        "schedule": Schedule(epochs=3, steps_per_epoch=6),
        "augmentation": Augmentation.none(),
        "views": VIEWS,
    }
    return small_plan(2, **{**base, **changes})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = write_cohort(tmp_path_factory.mktemp("data") / "cohort", 5)
    (folder.parent / "split.json").write_text(
        json.dumps({"train": ["c0", "c1", "c2"], "val": ["c3"], "test": ["c4"]})
    )
    return folder


def options_for(cohort: Path, plan: Plan, folder: Path, **more) -> TrainOptions:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(plan.to_json())
    split = {} if "folds" in more else {"split": str(cohort.parent / "split.json")}
    given = {"plan": str(folder / "plan.json"), "device": "cpu", "epochs": 3, **split, **more}
    return TrainOptions(**given)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    command = [
        "train",
        str(cohort),
        "-o",
        "m.model",
        "--plan",
        "plan.json",
        "--split",
        str(cohort.parent / "split.json"),
        "--epochs",
        "3",
    ]
    (folder / "plan.json").write_text(plan_of().to_json())
    done = call(*command, cwd=folder)
    assert done.returncode == 3, done.stderr  # what so short a training learns is not usable
    return folder


def test_there_is_a_network_for_every_view(trained):
    bundle = Bundle.load(trained / "m.model")
    assert [(m.name, m.view, m.weight) for m in bundle.members] == [
        ("fold_0_axial", "axial", 0.4),
        ("fold_0_coronal", "coronal", 0.4),
        ("fold_0_sagittal", "sagittal", 0.2),
    ]
    heads = {m.view: m.weights["heads.0.bias"].shape for m in bundle.members}
    # The sagittal network learns both sides as one.
    assert heads == {
        "axial": (3,),
        "coronal": (3,),
        "sagittal": (2,),
    }
    run = trained / "m.model.run"
    assert sorted(p.parent.name for p in run.glob("fold_0/*/log.jsonl")) == [
        "axial",
        "coronal",
        "sagittal",
    ]
    card = json.loads((run / "card.json").read_text())
    assert set(card["validation"]) == set(card["training_s"]) == {m.name for m in bundle.members}
    assert list(card["validation"]["fold_0_sagittal"]["val_dice"]) == ["part"]
    assert card["scores"]["what"] == "test"
    report = (run / "report.html").read_text()
    assert all(f"Fold 0 {view}" in report for view in ("axial", "coronal", "sagittal"))


@pytest.mark.rounds
def test_predicting_with_one_view_and_with_all(trained, cohort):
    scan = str(cohort / "images" / "c4.nii.gz")
    masks = {}
    for name, more in (
        ("all", []),
        ("axial", ["--views", "axial"]),
        ("two", ["--views", "axial,Sagittal"]),
    ):
        done = call("predict", "m.model", scan, "-o", name, *more, cwd=trained)
        assert done.returncode == 0, done.stderr
        masks[name] = files.read(trained / name / "c4.nii.gz")
        assert masks[name].grid == files.read(scan).grid
    record = json.loads((trained / "two/predictions.json").read_text())
    assert record["views"] == ["axial", "sagittal"] and "views" not in json.loads(
        (trained / "all/predictions.json").read_text()
    )
    assert not np.array_equal(masks["all"].array, masks["axial"].array)
    assert np.array_equal(
        masks["all"].array, files.read(trained / "m.model.run/test/predictions/c4.nii.gz").array
    )
    wrong = call("predict", "m.model", scan, "-o", "none", "--views", "oblique", cwd=trained)
    assert (
        wrong.returncode == 2
        and "axial, coronal, sagittal" in wrong.stderr
        and not (trained / "none").exists()
    )


@pytest.mark.rounds
def test_a_killed_run_goes_on_bit_for_bit_and_never_loses_a_view(trained, cohort, tmp_path):
    asked = json.dumps(vars(options_for(cohort, plan_of(), tmp_path)))
    code = textwrap.dedent(f"""
        import json, os, signal
        from delineate.commands.options import TrainOptions
        from delineate.commands.train.train import train
        def tell(stage, done, total, note):
            if stage == "train fold 0 coronal" and done > 0.5:
                os.kill(os.getpid(), signal.SIGKILL)
        asked = TrainOptions(**json.loads('''{asked}'''))
        train({str(cohort)!r}, {str(tmp_path / "m.model")!r}, asked, progress=tell)
    """)
    killed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    early = Bundle.load(tmp_path / "m.model")
    assert {"axial"} <= {m.view for m in early.members} < {"axial", "coronal", "sagittal"}
    counts = []
    train(
        cohort,
        tmp_path / "m.model",
        options_for(cohort, plan_of(), tmp_path),
        progress=lambda stage, done, total, note: counts.append(
            len(Bundle.load(tmp_path / "m.model").members)
        ),
    )
    assert min(counts) == len(early.members) and max(counts) == 3
    assert Bundle.load(tmp_path / "m.model").id == Bundle.load(trained / "m.model").id
    card = json.loads((tmp_path / "m.model.run/card.json").read_text())
    assert set(card["validation"]) == {"fold_0_axial", "fold_0_coronal", "fold_0_sagittal"}


@pytest.mark.rounds
def test_folds_and_views_and_starting_weights(trained, cohort, tmp_path):
    said: list[str] = []
    options = options_for(
        cohort,
        plan_of(schedule=Schedule(epochs=1, steps_per_epoch=2)),
        tmp_path,
        folds=2,
        epochs=1,
        init=str(trained / "m.model"),
    )
    done = train(cohort, tmp_path / "m", options, say=said.append)
    bundle = Bundle.load(tmp_path / "m")
    assert [(m.fold, m.view) for m in bundle.members] == [
        (f, v) for f in (0, 1) for v in ("axial", "coronal", "sagittal")
    ]
    assert done.scores["what"] == "cross-validation" and done.scores["cases"] == 5
    record = json.loads((done.run / "validation/predictions/predictions.json").read_text())
    # For each case the three views of one fold.
    assert len({entry["bundle"] for entry in record["cases"].values()}) == 2
    starts = [line for line in said if "starts from" in line]
    assert (
        len(starts) == 6
        and "fold 1 sagittal" in starts[-1]
        and "starts from fold_0_sagittal" in starts[-1]
    )
    assert all("not replaced" not in line for line in starts)


def test_other_classes_leave_the_classifier_and_another_network_is_refused(
    trained, cohort, tmp_path
):
    plain = plan_of(views=(), patch=(16, 8, 1), schedule=Schedule(epochs=1, steps_per_epoch=2))
    from_sagittal = Bundle.load(trained / "m.model")
    Bundle(from_sagittal.plan, from_sagittal.members[2:]).save(tmp_path / "sagittal.model")
    said: list[str] = []
    train(
        cohort,
        tmp_path / "m",
        options_for(cohort, plain, tmp_path, epochs=1, init=str(tmp_path / "sagittal.model")),
        say=said.append,
    )
    line = next(line for line in said if "starts from fold_0_sagittal" in line)
    own = len(Bundle.load(tmp_path / "m").members[0].weights)
    assert f"{own - 2} of {own} tensors fit" in line and line.endswith(
        "not replaced: heads.0.weight, heads.0.bias"
    )
    wide = plain.replace(network=small_network(2, **SMALL | {"widths": (6, 10)}).model_dump())
    with pytest.raises(UsageError, match="no weights of its 2-D unet"):
        train(
            cohort,
            tmp_path / "w",
            options_for(
                cohort, wide, tmp_path / "wide", epochs=1, init=str(tmp_path / "sagittal.model")
            ),
        )
    assert not (
        tmp_path / "w.run" / "plan.json"
    ).exists()  # the mended command needs no --overwrite
