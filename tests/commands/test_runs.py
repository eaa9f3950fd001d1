"""Runs below a folder: what is listed, and what `clean` deletes and leaves."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from delineate.cli import app
from delineate.commands import runs as step
from delineate.commands.info import info
from delineate.commands.report import report
from delineate.core.errors import InputError, UsageError
from delineate.evaluation.training_verdict import Reason, Verdict
from delineate.execution.claims import CLAIM, claimed
from delineate.viewer.sources import find

GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1"


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder with a finished and a killed run, both with a store."""
    root = tmp_path / "models"
    shutil.copytree(GOLDEN / "finished", root / "a" / "finished")
    shutil.copytree(GOLDEN / "killed", root / "killed")
    store = root / "a/finished/m.model.run/store"
    shutil.copytree(root / "killed/m.model.run/store", store)
    return root


def called(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def files_in(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


def test_runs_are_listed(models):
    killed, finished = sorted(step.runs(models), key=lambda run: run.state, reverse=True)
    assert (killed.state, finished.state) == ("stopped", "finished")
    assert finished.dice_of == "test" and finished.dice == pytest.approx(0.0766, abs=1e-4)
    assert killed.dice_of == "validation" and 0 < killed.dice < 1
    assert finished.epochs == 4 and finished.steps == 12
    store = sum(p.stat().st_size for p in (finished.folder / "store").rglob("*") if p.is_file())
    assert finished.store_bytes == store < finished.size_bytes
    assert step.runs(finished.folder) == [finished]
    code, text, _ = called("runs", models)
    assert code == 0 and "finished" in text and "stopped" in text and "verdict" not in text
    assert max(map(len, text.splitlines())) <= 100
    code, text, _ = called("runs", models, "--json")
    assert {run["state"] for run in json.loads(text)} == {"stopped", "finished"}
    (models / "empty").mkdir()
    code, text, err = called("runs", models / "empty")
    assert code == 0 and not text and "no runs" in err
    with pytest.raises(InputError, match="is not a folder"):
        step.runs(models / "nothing")


def test_a_verdict_is_shown_if_there_is_one(models):
    path = models / "a/finished/m.model.run/card.json"
    reason = Reason("steps", "only 8 of 600 wanted steps", "not usable")
    verdict = Verdict("not usable", "test Dice 0.048 on 40 cases", (reason,)).to_json()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verdict": verdict}))
    text = called("runs", models)[1]
    assert "verdict" in text and "not usable" in text
    assert max(map(len, text.splitlines())) <= 100
    words = "not usable: only 8 of 600 wanted steps; test Dice 0.048 on 40 cases"
    assert words in called("info", path.parent)[1]
    listed = json.loads(called("runs", models, "--json")[1])
    assert [run["verdict"]["level"] for run in listed] == ["not usable", "unknown"]


def test_a_run_is_running_while_its_process_lives(models):
    run = models / "killed/m.model.run"
    with claimed(run / CLAIM):
        assert step.summarise(run).state == "running"
    assert step.summarise(run).state == "stopped"


def test_clean_deletes_the_stores_of_finished_runs_only(models, tmp_path):
    before = files_in(models)
    with pytest.raises(UsageError, match="nothing was deleted; --yes deletes without asking"):
        called("clean", models)
    assert files_in(models) == before
    code, _, err = called("clean", models, "--yes")
    assert code == 0 and "kept, the run is stopped" in err and "freed in 1 runs" in err
    gone = before - files_in(models)
    assert gone and all(name.startswith("a/finished/m.model.run/store/") for name in gone)
    # a cleaned run still reports, and there is nothing more to clean
    assert report(models / "a/finished/m.model.run").is_file()
    code, text, err = called("clean", models / "a/finished/m.model", "--yes", "--json")
    assert code == 0 and json.loads(text) == [] and "kept, it has no prepared cases" in err


def test_clean_leaves_running_runs_and_links(models, tmp_path):
    run = models / "a/finished/m.model.run"
    with claimed(run / CLAIM):
        chosen, kept = step.cleanable([run])
        assert not chosen and "the run is running" in kept[0]
    chosen, _ = step.cleanable([run])
    with claimed(run / CLAIM):  # continued after the question
        assert step.clean(chosen) == [] and (run / "store").is_dir()
    outside = tmp_path / "outside"
    shutil.move(run / "store", outside)
    os.symlink(outside, run / "store")
    chosen, kept = step.cleanable([run])
    assert not chosen and "it is a link" in kept[0] and files_in(outside)
    # a link in a store is removed, not followed
    (run / "store").unlink()
    (run / "store").mkdir()
    os.symlink(outside, run / "store" / "c9")
    assert len(step.clean(step.cleanable([models])[0])) == 1
    assert not (run / "store").exists() and files_in(outside)
    with pytest.raises(InputError):
        step.cleanable([models / "nothing"])


def test_info_on_a_run(models):
    found = info(models / "killed/m.model.run")
    assert (found["kind"], found["state"]) == ("delineate run", "stopped")
    assert found["request"]["epochs"] == 4
    json.dumps(found)
    code, text, _ = called("info", models / "a/finished/m.model.run")
    assert code == 0 and "state: finished" in text and "epochs: 4" in text


def test_view_finds_the_run_of_a_model(models):
    model = models / "a/finished/m.model"
    assert find([model]).title == find([Path(f"{model}.run")]).title
    shutil.rmtree(f"{model}.run")
    with pytest.raises(
        InputError, match=r"is a model; .* its run m\.model\.run, which is not next"
    ):
        find([model])


def test_damaged_contents_of_a_run(models):
    run = models / "a/finished/m.model.run"
    (run / "fold_0/log.jsonl").write_text('{"epoch": "x", "step": null, "val_dice_mean": [1]}\n')
    (run / "card.json").write_text('{"scores": {"dice_mean": "x"}, "log_lines": {}}')
    found = step.summarise(run)
    assert (found.epochs, found.steps, found.dice_of) == (0, 0, "")
    (run / "findings.json").write_text('{"findings": ["x"]}')
    with pytest.raises(InputError, match=r"m\.model\.run: is damaged or not a run"):
        report(run, models / "a.html")
    (run / "card.json").write_text("[1]")
    with pytest.raises(InputError, match=r"card\.json: is not a JSON object"):
        report(run, models / "a.html")
