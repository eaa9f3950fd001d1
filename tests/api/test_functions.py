"""Functions of the Python interface: the commands, with options as keywords."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from tests.scans import rename_in_json, write_cohort

import delineate as dl
from delineate.api import keywords
from delineate.commands import options
from delineate.core.errors import GeometryError, InputError, LabelError, OutputError, UsageError

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1"
KINDS = [name for name in vars(keywords) if name.endswith("Keywords")]


@pytest.mark.parametrize("name", KINDS)
def test_keywords_are_the_fields_of_the_options(name):
    kind = getattr(options, name.replace("Keywords", "Options"))
    hints = get_type_hints(kind)
    assert get_type_hints(getattr(keywords, name)) == {
        one.name: hints[one.name] for one in fields(kind)
    }


MOVED = np.zeros((4, 4))
MOVED[2, 3] = 2.0


def mask(value: int = 1) -> np.ndarray:
    found = np.zeros((9, 8, 7), np.uint8)
    found[3:6, 3:6, 2:5] = value
    return found


def test_anything_with_a_mask_is_scored_against_anything_with_a_mask(tmp_path):
    affine = np.diag([1.0, 1, 2, 1])
    truth = dl.Volume.from_numpy(mask(), affine, unit="label")
    shifted = dl.Volume.from_numpy(np.roll(mask(), 1, 0), affine, unit="label")
    truth.save(tmp_path / "t.nii.gz")
    shifted.save(tmp_path / "p.nii.gz")
    files = dl.evaluate(tmp_path / "p.nii.gz", str(tmp_path / "t.nii.gz"), labels={1: "liver"})
    expected = [(row.metric, pytest.approx(row.value), row.unit) for row in files.scores]
    prediction = dl.Prediction(shifted, dl.LabelSet.from_names({1: "liver"}))
    for one in (shifted, shifted.to_nibabel(), shifted.to_sitk(), (shifted.numpy(), affine)):
        for other in (truth, truth.to_nibabel(), tmp_path / "t.nii.gz"):
            found = dl.evaluate(one, other, labels={1: "liver"})
            assert [(row.metric, row.value, row.unit) for row in found.scores] == expected
    # A prediction names its structures.
    found = dl.evaluate(prediction, truth)
    assert found.labels.names == ["liver"] and found.scores.mean("dice") == pytest.approx(2 / 3)
    other = dl.Prediction(truth, dl.LabelSet.from_names({1: "spleen"}))
    with pytest.raises(LabelError, match="contradict"):
        dl.evaluate(prediction, other)
    with pytest.raises(GeometryError, match=r"differ by 2\.00 mm"):
        dl.evaluate(shifted, (truth.numpy(), affine + MOVED))
    with pytest.raises(UsageError, match="found int"):
        dl.evaluate(3, truth)
    done = dl.evaluate(prediction, truth, tmp_path / "out")
    assert dl.Scores.from_csv(tmp_path / "out/scores.csv") == done.scores
    assert (tmp_path / "out/report.html").is_file()


def test_one_scan_is_predicted_in_memory_and_files_into_a_folder(tmp_path):
    model = dl.load(GOLDEN / "small.model", device="cpu")
    scan = GOLDEN / "cohort/images/c4.nii.gz"
    found = dl.predict(model, scan)
    again = dl.predict(GOLDEN / "small.model", dl.read(scan).to_nibabel(), device="cpu")
    assert type(found) is dl.Prediction and np.array_equal(found.numpy(), again.numpy())
    for one in (model, GOLDEN / "small.model"):
        done = dl.predict(one, scan, tmp_path / "o", device="cpu")
        assert not done.failures
        assert np.array_equal(dl.read(tmp_path / "o/c4.nii.gz").numpy(), found.numpy())
    with pytest.raises(UsageError, match="form, dicom_seg cannot be used; allowed are mirror"):
        dl.predict(model, scan, form="nrrd", dicom_seg=True)
    with pytest.raises(UsageError, match="device cannot be used"):
        dl.predict(model, scan, device="cpu")  # it has its device already
    with pytest.raises(UsageError, match="a scan in memory needs no out"):
        dl.predict(model, dl.read(scan), tmp_path / "o")
    with pytest.raises(TypeError, match="colour"):
        dl.predict(model, scan, colour="red")


@pytest.fixture
def run(tmp_path):
    shutil.copytree(GOLDEN / "finished" / "m.model.run", tmp_path / "m.model.run")
    shutil.copy(GOLDEN / "finished" / "m.model", tmp_path / "m.model")
    shutil.copytree(GOLDEN / "cohort", tmp_path / "cohort")
    rename_in_json(tmp_path / "m.model.run", "@ROOT@", tmp_path)
    return tmp_path / "m.model.run"


def test_a_run_is_opened_by_its_folder_or_its_model(run, tmp_path):
    for found in (dl.Run(run), dl.Run(str(tmp_path / "m.model"))):
        assert found.folder == run and found.path == tmp_path / "m.model"
        assert found.model.id == dl.load(found.path).id and found.plan == found.model.plan
        assert [line["step"] for line in found.log] == [3, 6, 9, 12]
        assert {line["network"] for line in found.log} == {"fold_0"}
        assert found.scores.mean("dice") == pytest.approx(found.card["scores"]["dice_mean"])
        assert "test Dice 0.077 on 1 case" in repr(found) and found.verdict == "unknown"
    assert dl.report(found, tmp_path / "r.html") == found.report(tmp_path / "r.html")
    assert len(dl.compare([found, run / "test"], names=("a", "b")).runs) == 2
    with pytest.raises(InputError, match="is no run"):
        dl.Run(tmp_path / "cohort")


def test_a_cohort_in_memory_is_planned_and_trained(tmp_path, run):
    cohort = dl.Cohort.find(tmp_path / "cohort").split(0.6, 0.2, 0.2, seed=1)
    plan = dl.Plan.load(run / "plan.json")
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert dl.plan(cohort, epochs=2, device="cpu").spacing_mm == (1.0, 1.5, 2.0)
    said: list[str] = []
    done = dl.train(
        cohort, tmp_path / "n.model", epochs=1, plan=tmp_path / "plan.json", say=said.append
    )
    assert not done.failures and done.model.plan.schedule.epochs == 1
    kept = dl.Cohort.load(done.folder / "manifest.jsonl")
    assert {c.id: c.split for c in kept} == {c.id: c.split for c in cohort}
    assert any("1 for testing" in text for text in said) and len(done.log) == 3
    with pytest.raises(OutputError, match="holds another cohort"):
        dl.train(cohort.where("train"), tmp_path / "n.model", epochs=1)


def test_a_check_gives_a_cohort(tmp_path):
    write_cohort(tmp_path / "c", 4)
    report = dl.check(tmp_path / "c", workers=1)
    assert type(report.cohort) is dl.Cohort and len(report.cohort) == 4
    assert repr(report).startswith("CheckReport(4 cases, 4 usable; 0 errors")
    assert not list(tmp_path.glob("*.check"))
