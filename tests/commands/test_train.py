"""The training verb from a folder to a bundle, on small real files; long runs are measured in
benchmarks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.scans import write_cohort

from delineate.cohorts.splitting import read_split
from delineate.commands.options import PredictOptions, TrainOptions
from delineate.commands.predict import predict
from delineate.commands.train import held_out
from delineate.commands.train.model_file import ModelFile
from delineate.commands.train.planned import NetworkJob, PlannedRun
from delineate.commands.train.preparation import prepare_cohort
from delineate.commands.train.request import Request, request_of
from delineate.commands.train.run import TrainingRun, open_run
from delineate.commands.train.sides import settle_cohort
from delineate.commands.train.start import starting_weights
from delineate.commands.train.train import _choose_prediction, train
from delineate.core.bundle import Bundle
from delineate.core.errors import InputError, LayoutError, UsageError
from delineate.core.manifest import Manifest
from delineate.core.plan import Plan
from delineate.formats import files
from delineate.networks.build import build, weights_of
from delineate.planning import rules as plan_step


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", 8)


@pytest.fixture(scope="module")
def plan_file(cohort, tmp_path_factory) -> Path:
    """A small plan, so that tests are quick: the rules' own choice is tested in test_plan."""
    from delineate.cohorts.discovery.layouts import find

    manifest = find(cohort)
    machine = plan_step.Machine("cpu", 2, 8 << 30)
    made = plan_step.make_plan(
        plan_step.fingerprint(manifest, workers=1),
        manifest,
        machine,
        epochs=2,
        probe=lambda *_: 0.1,
    )
    widths = tuple(min(8 * 2**n, 16) for n in range(len(made.network.widths)))
    made = made.replace(
        network=made.network.model_dump() | {"widths": widths},
        schedule=made.schedule.model_dump() | {"steps_per_epoch": 6},
    )
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(made.to_json())
    return path


@pytest.fixture(scope="module")
def trained(cohort, plan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "split.json").write_text(
        json.dumps({"train": [f"c{n}" for n in range(5)], "val": ["c5"], "test": ["c6", "c7"]})
    )
    options = TrainOptions(
        epochs=8, plan=plan_file, split=folder / "split.json", device="cpu", tensorboard=True
    )
    return options, train(cohort, folder / "m.model", options)


def test_event_files_say_what_the_log_says(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, done = trained
    events = EventAccumulator(str(done.run / "fold_0" / "tensorboard"))
    events.Reload()
    log = [
        json.loads(line) for line in (done.run / "fold_0" / "log.jsonl").read_text().splitlines()
    ]
    found = [(e.step, e.value) for e in events.Scalars("loss")]
    assert [step for step, _ in found] == [line["step"] for line in log]
    assert [value for _, value in found] == pytest.approx([line["loss"] for line in log], rel=1e-6)
    tags = set(events.Tags()["scalars"])
    assert {"val_dice_mean", "train_dice_mean", "learning_rate"} <= tags and not {
        "step",
        "epoch",
        "progress",
    } & tags
    assert sum(tag.startswith("val_dice/") for tag in tags) == len(Bundle.load(done.model).labels)


def test_without_the_package_event_files_are_refused_before_anything_begins(
    cohort, tmp_path, monkeypatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
    )
    with pytest.raises(UsageError, match=r"pip install \"delineate-imaging\[tensorboard\]\""):
        train(cohort, tmp_path / "m.model", TrainOptions(tensorboard=True))
    assert not list(tmp_path.iterdir())


def test_its_split_can_be_passed_back(trained):
    options, done = trained
    kept, given = (json.loads(p.read_text()) for p in (done.run / "split.json", options.split))
    assert {side: sorted(kept[side]) for side in given} == given
    assert read_split(str(done.run / "split.json")).has_validation


def test_it_leaves_a_model_scores_and_a_report(trained):
    _, done = trained
    bundle = Bundle.load(done.model)
    assert bundle.plan.schedule.epochs == 8 and [m.name for m in bundle.members] == ["fold_0"]
    assert (
        done.scores["what"] == "test"
        and done.scores["cases"] == 2
        and 0 < done.scores["dice_mean"] <= 1
    )
    assert not done.failures
    assert (done.run / "report.html").stat().st_size > 10_000
    card = json.loads((done.run / "card.json").read_text())
    # 48 steps are too few: the verdict says so wherever the model is shown.
    assert done.verdict.level == "not usable" and "trivial mask" in done.verdict.words
    assert card["verdict"] == bundle.card["verdict"] == done.verdict.to_json()
    assert "train again with more --epochs" in done.verdict.words
    page = (done.run / "report.html").read_text()
    assert page.index("Verdict: not usable") < page.index('class="figures"')
    assert card["id"] == bundle.id and card["cases"] == 6 and card["peak_memory_mb"] > 0
    drawn = json.loads((done.run / "test" / "scores.json").read_text())["montages"]
    assert [entry["what"] for entry in drawn] == ["best", "worst"] and all(
        (done.run / "test" / entry["file"]).is_file() for entry in drawn
    )
    assert bundle.card["scores"]["dice_mean"] == pytest.approx(done.scores["dice_mean"])


def test_no_test_case_is_prepared_or_shapes_anything(trained):
    _, done = trained
    assert {p.name for p in (done.run / "store").iterdir()} == {f"c{n}" for n in range(6)}


def test_predictions_stand_on_the_input_s_grid(trained, cohort, tmp_path):
    _, done = trained
    result = predict(
        done.model,
        [cohort / "images" / "c6.nii.gz"],
        tmp_path / "out",
        PredictOptions(device="cpu"),
    )
    source, mask = (
        files.read(cohort / "images" / "c6.nii.gz"),
        files.read(tmp_path / "out" / "c6.nii.gz"),
    )
    assert mask.grid == source.grid and set(np.unique(mask.array)) <= {0, 1, 2}
    record = json.loads((tmp_path / "out/predictions.json").read_text())
    assert record["bundle"] == Bundle.load(done.model).id and not result.failures
    counted = float((mask.array == 1).sum()) * mask.grid.voxel_ml
    assert next(iter(record["cases"]["c6"]["volumes_ml"].values())) == pytest.approx(
        counted, abs=1e-3
    )
    assert np.array_equal(mask.array, files.read(done.run / "test/predictions/c6.nii.gz").array)


def test_the_same_command_again_is_finished_and_another_is_refused(trained, cohort):
    options, done = trained
    said: list[str] = []
    again = train(cohort, done.model, options, say=said.append)
    assert "finished" in said[-2] and said[-1] == f"verdict: {done.verdict.words}"
    assert again.verdict == done.verdict and again.scores["dice_mean"] == pytest.approx(
        done.scores["dice_mean"]
    )
    with pytest.raises(UsageError, match="epochs: 8 before, 9 now"):
        train(cohort, done.model, replace(options, epochs=9))


def test_a_finished_run_without_its_report_gets_it(trained, cohort):
    """A power cut after card.json may leave no report, or after an extension the one before."""
    options, done = trained
    report = done.run / "report.html"
    os.utime(report, (0, 0))
    train(cohort, done.model, options)
    written = report.stat().st_mtime_ns
    assert written >= (done.run / "card.json").stat().st_mtime_ns
    train(cohort, done.model, options)
    assert report.stat().st_mtime_ns == written  # it is not written again
    report.unlink()
    assert not train(cohort, done.model, options).failures and report.is_file()


@pytest.mark.usefixtures("empty_figures")
def test_folds_become_members_and_each_case_is_scored_by_who_never_saw_it(
    cohort, plan_file, tmp_path
):
    done = train(
        cohort, tmp_path / "m", TrainOptions(epochs=1, plan=plan_file, folds=2, device="cpu")
    )
    bundle = Bundle.load(tmp_path / "m")
    assert [m.fold for m in bundle.members] == [0, 1]
    assert done.scores["what"] == "cross-validation" and done.scores["cases"] == 8
    manifest = Manifest.load(done.run / "manifest.jsonl")
    record = json.loads((done.run / "validation/predictions/predictions.json").read_text())
    ids = {fold: record["cases"][c.id]["bundle"] for c in manifest for fold in [c.fold]}
    assert len(set(ids.values())) == 2  # another network for every fold


@pytest.mark.usefixtures("empty_figures")
def test_one_fold_and_starting_weights(trained, cohort, plan_file, tmp_path):
    _, done = trained
    options = TrainOptions(epochs=1, plan=plan_file, folds=4, fold=2, init=done.model, device="cpu")
    second = train(cohort, tmp_path / "m", options)
    assert [m.fold for m in Bundle.load(second.model).members] == [2]
    assert second.scores["what"] == "validation" and second.scores["cases"] == 2
    first = json.loads((second.run / "fold_2/log.jsonl").read_text().splitlines()[0])["loss"]
    cold = json.loads((done.run / "fold_0/log.jsonl").read_text().splitlines()[0])["loss"]
    assert first < cold


def test_a_plan_for_other_structures_is_refused(plan_file, cohort, tmp_path):
    text = Plan.load(plan_file).to_json().replace('"value": 2', '"value": 5')
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UsageError, match=r"\[1, 5\]"):
        train(cohort, tmp_path / "m", TrainOptions(epochs=1, plan=tmp_path / "plan.json"))
    assert not (tmp_path / "m").exists()
    # The mended command needs no --overwrite.
    mended = request_of(cohort, TrainOptions(epochs=1, plan=plan_file))
    assert not open_run(mended, tmp_path / "m").is_finished


def test_overwrite_keeps_the_old_run_when_the_new_words_are_wrong(trained):
    options, done = trained
    before = done.model.read_bytes()
    with pytest.raises(InputError, match="does not exist"):
        train("/nowhere", done.model, replace(options, overwrite=True))
    assert done.model.read_bytes() == before and (done.run / "card.json").is_file()


def test_too_few_patients(tmp_path):
    folder = write_cohort(tmp_path / "one", 1)
    with pytest.raises(LayoutError, match="at least 2"):
        train(folder, tmp_path / "m", TrainOptions(epochs=1))


def test_a_budget_is_kept_and_the_api_predicts(cohort, tmp_path):
    import time

    import delineate as dl

    began = time.monotonic()
    done = train(cohort, tmp_path / "m.model", TrainOptions(budget_s=30, device="cpu"))
    assert time.monotonic() - began < 40
    model = dl.load(done.model)
    prediction = model.predict(dl.read(cohort / "images" / "c0.nii.gz"))
    prediction.save(tmp_path / "c0.nrrd")
    saved = dl.read(tmp_path / "c0.nrrd")
    assert saved.grid.matches(prediction.labels.grid) and np.array_equal(
        saved.array, prediction.labels.array
    )
    assert set(prediction.volumes_ml) == set(model.labels.names)


def test_what_follows_training_is_measured_not_a_share_of_a_long_budget(
    cohort, plan_file, tmp_path
):
    def reserved(budget_s: float | None, plan: str | None = None) -> held_out.TimeReserve:
        request = Request(
            data=str(cohort),
            budget_s=budget_s,
            epochs=None if budget_s else 3,
            plan=plan,
            device="cpu",
        )
        run = open_run(request, tmp_path / "m.model")
        planned = PlannedRun(run, settle_cohort(run)[0], Plan.load(plan_file))
        prepare_cohort(planned.learning, planned.plan, run.store)
        return held_out.reserve(planned, held_out.cases_to_score(planned))

    day, short, given, epochs = (
        reserved(86400.0),
        reserved(40.0),
        reserved(86400.0, str(plan_file)),
        reserved(None),
    )
    assert 0 < day.postprocess_s < 120 and 0.01 * 86400 < day.total_s < 0.02 * 86400
    assert short.postprocess_s == pytest.approx(0.03 * 40)
    assert given.postprocess_s == 0  # a plan that was given is followed as it is
    assert epochs.total_s == 0 and epochs.postprocess_s > 0


def test_the_overlap_of_windows_is_measured_written_and_used(cohort, plan_file, tmp_path, caplog):
    """On untrained weights, whose Dice is low with any overlap: what counts is that the model has
    the overlap that was found, and predicts with it.
    """
    words: list[str] = []

    def chosen(**request: object) -> ModelFile:
        asked = Request(data=str(cohort), epochs=3, device="cpu", **request)
        run = open_run(asked, tmp_path / f"{len(words)}.model", say=words.append)
        # Scans of 20 x 18 x 16 voxels are several windows of 8.
        plan = Plan.load(plan_file).replace(patch=(8, 8, 8))
        planned = PlannedRun(run, settle_cohort(run)[0], plan)
        prepare_cohort(planned.learning, plan, run.store)
        model = ModelFile(planned, planned.jobs)
        weights = weights_of(build(plan.network, seed=0))
        model.add(planned.jobs[0], weights)
        _choose_prediction(planned, model, 60.0)
        return model

    model = chosen()
    found = model.card["overlap"]
    assert set(found["measured"]) == {"0.5", "0.375", "0.25"} and found["cases"] >= 2
    bundle = Bundle.load(model.path)
    assert bundle.plan.inference.overlap == found["chosen"] < 0.5
    assert "windows instead of" in bundle.plan.reasons["inference.overlap"]
    assert any(word.startswith("overlap of windows: ") for word in words)
    asked: dict[float | None, int] = {}
    for overlap in (None, 0.5):
        caplog.clear()
        with caplog.at_level("DEBUG", logger="delineate.inference.engine"):
            options = PredictOptions(device="cpu", overlap=overlap)
            predict(model.path, [cohort / "images" / "c0.nii.gz"], tmp_path / "out", options)
        line = next(m for m in caplog.messages if "windows of 8 x 8 x 8" in m)
        asked[overlap] = int(line.split()[0])
    assert asked[None] < asked[0.5]
    # What the user stated is kept.
    for stated in ({"plan": str(plan_file)}, {"changes": ("inference.overlap=0.5",)}):
        assert "overlap" not in chosen(**stated).card


def test_starting_weights_of_other_structures_are_mixed_with_drawn_ones(
    trained, plan_file, tmp_path
):
    done = trained[1]
    plan = Plan.load(plan_file)
    job = NetworkJob(0)
    other = tmp_path / "other.model"
    given = Bundle.load(done.model)
    renamed = json.loads(given.plan.to_json().replace('"name": "label 2"', '"name": "cyst"'))
    Bundle(Plan.model_validate(renamed), given.members).save(other)
    starts = {}
    for model in (done.model, other):
        starts[model] = starting_weights(str(model), plan, plan.network, "", job.seed(plan))
    drawn, full = weights_of(build(plan.network, seed=job.seed(plan))), given.members[0].weights
    assert "half and half" in starts[other][1] and "half and half" not in starts[done.model][1]
    kernels = [name for name in full if full[name].ndim > 1]
    assert kernels and len(kernels) < len(full)
    for name in full:
        assert np.array_equal(starts[done.model][0][name], full[name])
        expected = (full[name] + drawn[name]) / 2 if name in kernels else full[name]
        np.testing.assert_allclose(starts[other][0][name], expected, rtol=1e-5, atol=1e-7)


def test_only_a_finished_run_with_a_budget_is_extended(tmp_path):
    def opened(budget_s: float | None = 60.0) -> TrainingRun:
        request = Request(data=str(tmp_path), budget_s=budget_s, epochs=None if budget_s else 3)
        return open_run(request, tmp_path / "m.model")

    with pytest.raises(UsageError, match="by epochs"):
        opened(None).extended(30.0)
    run = opened()
    with pytest.raises(UsageError, match="no finished run"):
        run.extended(30.0)
    run.save_json("request.json", vars(run.request))
    for name in ("plan.json", "card.json"):
        (run.folder / name).write_text("{}")
    run.model.write_bytes(b"")
    assert run.is_finished
    run = run.extended(30.0)
    assert not run.is_finished and run.clock.stretch_s == 30.0
    assert 25 < run.clock.remaining_s() <= 30
    killed = opened()
    assert killed.clock.extensions == (30.0,)
    killed = killed.extended(30.0)  # the same command after a kill continues
    assert killed.clock.extensions == (30.0,) and killed.clock.remaining_s() <= 30
    with pytest.raises(UsageError, match="no finished run"):
        killed.extended(50.0)
    (run.folder / "card.json").write_text("{}")
    again = opened().extended(30.0)
    assert again.clock.extensions == (30.0, 30.0) and 25 < again.clock.remaining_s() <= 30


@pytest.mark.usefixtures("empty_figures")
def test_only_what_was_scored_is_counted(cohort, plan_file, tmp_path, monkeypatch):
    """A truth that becomes unreadable while the network trains: two of three are scored, the third
    is named, and the run fails.
    """
    import shutil

    data = shutil.copytree(cohort, tmp_path / "cohort")
    (tmp_path / "split.json").write_text(
        json.dumps({"train": ["c0", "c1", "c2"], "val": ["c3"], "test": ["c4", "c5", "c6"]})
    )
    options = TrainOptions(epochs=1, plan=plan_file, split=tmp_path / "split.json", device="cpu")
    was = held_out.evaluate

    def spoilt(planned, model, evaluation):
        (data / "labels" / "c5.nii.gz").write_bytes(b"")
        return was(planned, model, evaluation)

    monkeypatch.setattr(held_out, "evaluate", spoilt)
    told: list[str] = []
    done = train(data, tmp_path / "m.model", options, say=told.append)
    (line,) = [text for text in told if text.startswith("test Dice on")]
    assert line.startswith("test Dice on 2 of 3 cases (not scored: c5): ")
    assert done.scores["cases"] == 2 and done.scores["not_scored"] == ["c5"]
    # So that the command ends with 1.
    assert len(done.failures) == 1 and "c5" in done.failures[0] and "empty file" in done.failures[0]
    card = json.loads((done.run / "card.json").read_text())
    assert card["scores"]["cases"] == 2 and (done.run / "report.html").is_file()
    # The run names the case, and the model, which is given away, only counts it.
    assert "could not be scored (c5)" in card["verdict"]["words"]
    given_away = Bundle.load(done.model).card
    assert given_away["scores"]["not_scored"] == 1
    assert "could not be scored" in given_away["verdict"]["words"]
    # Hashes of the card may have the same letters.
    assert re.search(r"\bc5\b", json.dumps(given_away)) is None
    # The same command again ends in the same way.
    again = train(data, done.model, options)
    assert again.failures == done.failures and again.verdict == done.verdict
    del card["failed"], card["delineate_checksum"]  # as an earlier version wrote it
    (done.run / "card.json").write_text(json.dumps(card))
    (counted,) = train(data, done.model, options).failures
    assert counted == "of the training, whose messages were not kept: 1"


@pytest.mark.usefixtures("empty_figures")
def test_a_run_whose_truth_is_all_gone_keeps_its_model(cohort, plan_file, tmp_path, monkeypatch):
    import shutil

    data = shutil.copytree(cohort, tmp_path / "cohort")
    (tmp_path / "split.json").write_text(
        json.dumps({"train": ["c0", "c1", "c2"], "val": ["c3"], "test": ["c4", "c5"]})
    )
    options = TrainOptions(epochs=1, plan=plan_file, split=tmp_path / "split.json", device="cpu")
    was = held_out.evaluate

    def spoilt(planned, model, evaluation):
        for name in ("c4", "c5"):
            (data / "labels" / f"{name}.nii.gz").write_bytes(b"")
        return was(planned, model, evaluation)

    monkeypatch.setattr(held_out, "evaluate", spoilt)
    done = train(data, tmp_path / "m.model", options)
    assert (
        done.scores == {"what": "test", "cases": 0, "not_scored": ["c4", "c5"]}
        and Bundle.load(done.model).members
    )
    assert len(done.failures) == 1
    assert "no test case could be scored (c4, c5): " in done.failures[0]
    assert "no held-out case was scored" in done.verdict.words


@pytest.mark.usefixtures("empty_figures")
@pytest.mark.parametrize("lost", [("c5",), ("c4", "c5")])
def test_images_deleted_during_the_training_are_named(
    lost, cohort, plan_file, tmp_path, monkeypatch
):
    import shutil

    data = shutil.copytree(cohort, tmp_path / "cohort")
    (tmp_path / "split.json").write_text(
        json.dumps({"train": ["c0", "c1", "c2"], "val": ["c3"], "test": ["c4", "c5"]})
    )
    options = TrainOptions(epochs=1, plan=plan_file, split=tmp_path / "split.json", device="cpu")
    was = held_out.evaluate

    def spoilt(planned, model, evaluation):
        for name in lost:
            (data / "images" / f"{name}.nii.gz").unlink()
        return was(planned, model, evaluation)

    monkeypatch.setattr(held_out, "evaluate", spoilt)
    done = train(data, tmp_path / "m.model", options)
    assert done.scores["cases"] == 2 - len(lost) and done.scores["not_scored"] == list(lost)
    for name in lost:
        assert any(name in text for text in done.failures)
    assert not any("pairs" in text for text in done.failures)
    if len(lost) == 1:
        assert "1 of 2 held-out cases could not be scored (c5)" in done.verdict.words
    else:
        assert "no test case could be predicted (c4, c5)" in done.failures


def test_a_plan_of_other_channels_or_structures_is_refused(cohort, plan_file, tmp_path):
    def refused(changes, why):
        path = tmp_path / "other.json"
        path.write_text(Plan.load(plan_file).replace(**changes).to_json())
        with pytest.raises(UsageError, match=why):
            options = TrainOptions(epochs=1, plan=path, device="cpu")
            train(cohort, tmp_path / f"{len(why)}.model", options)

    plan = Plan.load(plan_file)
    (cohort / "labels.csv").write_text("value,name\n1,liver\n2,spleen\n")
    try:
        named = [
            s.model_dump() | {"name": name}
            for s, name in zip(plan.structures, ("spleen", "liver"), strict=True)
        ]
        refused({"structures": named}, "1 is 'spleen' in the plan and 'liver' in the cohort")
    finally:
        (cohort / "labels.csv").unlink()
