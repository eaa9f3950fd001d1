"""A dry run prints what would be done and writes nothing; `--set` is part of a run's request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.scans import rename_in_json
from typer.testing import CliRunner

from delineate.cli import app
from delineate.core.bundle import Bundle
from delineate.core.errors import OutputError, UsageError
from delineate.execution.claims import CLAIM, claimed

GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1"


@pytest.fixture
def place(tmp_path) -> Path:
    """The cohort, a plan, a split, and a finished and a killed run."""
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    rename_in_json(tmp_path, "@ROOT@", tmp_path)
    return tmp_path


def tree(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in root.rglob("*")}


def called(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def training(place: Path, model: str, *more: str) -> list[str | Path]:
    given = ("--plan", place / "plan.json", "--split", place / "split.json", "--epochs", "4")
    return ["train", place / "cohort", "-o", place / model, *given, "--device", "cpu", *more]


@pytest.mark.parametrize(
    ("words", "sides"),
    [
        (["3/2"], (2, 1, 2)),  # a fifth, at least one, of the three for training validates
        (["60/20/20"], (3, 1, 1)),
        (["4/1", "--folds", "4"], (3, 1, 1)),
        (["4/1", "--folds", "4", "--fold", "2", "--seed", "3"], (3, 1, 1)),
    ],
)
def test_a_split_by_ratio(place, words, sides):
    given = ["--plan", place / "plan.json", "--epochs", "4", "--device", "cpu", "--split", *words]
    code, text = called("train", place / "cohort", "-o", place / "n", *given, "--dry-run", "--json")
    found = json.loads(text)
    assert (code, found["training"], found["validation"], found["testing"]) == (0, *sides)


def test_a_ratio_that_does_not_fit_is_refused(place):
    with pytest.raises(UsageError, match="adds up to 20, but there are 5 patients"):
        called("plan", place / "cohort", "-o", place / "new.json", "--split", "16/4")
    with pytest.raises(UsageError, match="validation cases excludes --folds and --fold"):
        called(*training(place, "new.model", "--folds", "2"))
    assert not (place / "new.json").exists() and not (place / "new.model.run").exists()


@pytest.mark.parametrize(
    ("model", "state"),
    [("new.model", "new"), ("killed/m.model", "continues"), ("finished/m.model", "finished")],
)
def test_a_dry_training_writes_nothing(place, model, state):
    before = tree(place)
    code, text = called(*training(place, model, "--dry-run", "--json"))
    found = json.loads(text)
    assert code == 0 and found["state"] == state
    assert (found["training"], found["validation"], found["testing"]) == (3, 1, 1)
    assert found["structures"] == ["left part", "right part"] and found["networks"] == 1
    assert found["plan"]["delineate_plan"] and found["seconds"] > 0
    # 4 cases of 16 x 14 x 12 voxels, int16 and one byte of label
    assert found["store_bytes"] == 4 * 16 * 14 * 12 * 3
    assert found["model_bytes"] > 1000 and found["free_bytes"] > 0 and found["memory_bytes"] > 0
    assert tree(place) == before


def test_a_dry_training_for_people(place):
    before = tree(place)
    code, text = called(*training(place, "new.model", "--dry-run", "--set", "loss.focal=1"))
    assert code == 0 and "cases: 3 for training, 1 for validation, 1 for testing" in text
    assert "loss.focal: 1: given with --set" in text
    assert "for prepared cases" in text and "are free" in text and "not usable" not in text
    with pytest.raises(UsageError, match=r"the nearest is loss\.focal"):
        called(*training(place, "new.model", "--dry-run", "--set", "loss.focl=1"))
    assert tree(place) == before


def test_a_run_is_not_continued_with_another_plan(place):
    before = tree(place)
    for more in (["--dry-run"], []):
        with pytest.raises(UsageError, match=r"changes: \[\] before, \['loss.focal=1'\] now"):
            called(*training(place, "killed/m.model", "--set", "loss.focal=1", *more))
    with pytest.raises(UsageError, match="--set is written like"):
        called(*training(place, "new.model", "--set", "loss.focal"))
    assert tree(place) == before


def test_a_run_has_one_trainer(place):
    with claimed(place / "killed/m.model.run" / CLAIM):
        with pytest.raises(UsageError, match="is being trained now"):
            called(*training(place, "killed/m.model"))
        with pytest.raises(UsageError, match="is being trained now"):
            called(*training(place, "killed/m.model", "--overwrite"))


def test_a_cleaned_run_says_what_training_does_again(place):
    done = CliRunner().invoke(app, [str(w) for w in training(place, "finished/m.model")])
    assert done.exit_code == 0 and "train on, which prepares its cases again" in done.stderr


def test_a_dry_prediction_writes_nothing(place):
    (place / "scans").mkdir()
    for name in ("c0", "c1"):
        shutil.copy(place / f"cohort/images/{name}.nii.gz", place / "scans")
    (place / "scans/bad.nii.gz").touch()
    bundle = Bundle.load(place / "small.model")
    Bundle(bundle.plan, bundle.members, {"scores": {"predict_s": 2.5}}).save(place / "s.model")
    words = ["predict", place / "s.model", place / "scans", "-o", place / "out", "--device", "cpu"]
    before = tree(place)
    code, text = called(*words, "--dry-run", "--json")
    found = json.loads(text)
    assert code == 0
    cases = {case["id"]: case for case in found["cases"]}
    assert cases["c0"]["inputs"] == {"image": str(place / "scans/c0.nii.gz")}
    assert cases["c0"]["outputs"] == [str(place / "out/c0.nii.gz")]
    assert cases["c0"]["existing"] == [] and found["seconds"] == 2.5 * len(cases)
    assert tree(place) == before
    _, text = called(*words, "--dry-run")
    assert "would be segmented; about" in text and "c0.nii.gz" in text
    assert tree(place) == before
    # what a prediction has written is replaced; what it has not written is refused
    (place / "out").mkdir()
    (place / "out/c0.nii.gz").touch()
    with pytest.raises(OutputError, match="exists already"):
        called(*words, "--dry-run")
    record = {"delineate_predictions": 2, "cases": {"c0": {}}}
    (place / "out/predictions.json").write_text(json.dumps(record))
    assert "replaces 1 file" in called(*words, "--dry-run")[1]
