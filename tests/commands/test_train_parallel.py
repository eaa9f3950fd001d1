"""Networks of one run that are trained at the same time: the model is that of a training in
sequence, killed workers and stops cost nothing but time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.plans import small_plan
from tests.scans import write_cohort

from delineate.commands.options import PlanOptions, TrainOptions
from delineate.commands.plan import plan as make_plan
from delineate.commands.train import parallel, together
from delineate.commands.train.planned import NetworkJob
from delineate.commands.train.train import train
from delineate.core.bundle import Bundle
from delineate.core.errors import OutputError, UsageError
from delineate.execution import stopping
from delineate.execution.claims import CLAIM, claimed
from delineate.execution.executor import LOCALLY

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

ASKED = TrainOptions(device="cpu", folds=3, deterministic=True)


@pytest.fixture(scope="module")
def sequence(tmp_path_factory) -> SimpleNamespace:
    """A cohort, a plan of four epochs, and the model of three folds trained in sequence."""
    folder = tmp_path_factory.mktemp("sequence")
    cohort = write_cohort(folder / "cohort", 6)
    made = make_plan(cohort, options=PlanOptions(device="cpu", epochs=4))
    made = made.replace(
        network=made.network.model_dump() | {"widths": (8,) * len(made.network.widths)},
        schedule=made.schedule.model_dump() | {"epochs": 4, "steps_per_epoch": 4},
    )
    (folder / "plan.json").write_text(made.to_json())
    asked = replace(ASKED, plan=folder / "plan.json", epochs=4)
    done = train(cohort, folder / "a.model", asked)
    return SimpleNamespace(cohort=cohort, asked=asked, model=done.model, run=done.run)


def refuse_difference(sequence: SimpleNamespace, model: Path) -> None:
    """The weights are equal to the bit, and so is what the cards say of them."""
    one, other = Bundle.load(sequence.model), Bundle.load(model)
    assert [m.name for m in other.members] == [m.name for m in one.members] == NAMES
    for mine, theirs in zip(one.members, other.members, strict=True):
        assert mine.weights.keys() == theirs.weights.keys()
        assert all(mine.weights[k].tobytes() == theirs.weights[k].tobytes() for k in mine.weights)
    for key in ("training", "validation", "log_lines", "plausibility", "overlap", "verdict"):
        assert other.card.get(key) == one.card.get(key), key
    assert other.plan == one.plan
    logs = [sequence.run, model.with_name(model.name + ".run")]
    for name in NAMES:
        mine, theirs = (
            [
                {k: v for k, v in json.loads(line).items() if k not in CLOCKED}
                for line in (run / name / "log.jsonl").read_text().splitlines()
            ]
            for run in logs
        )
        assert mine == theirs
        assert not (logs[1] / name / CLAIM).exists()
    assert not (logs[1] / parallel.STOP).exists()


NAMES = ["fold_0", "fold_1", "fold_2"]
CLOCKED = ("seconds", "epoch_s", "delineate_checksum")


class Killer:
    """Kills the first worker of a fold when it was reported and its first checkpoint is there."""

    def __init__(self, run: Path, fold: str):
        self.run, self.fold, self.said, self.killed = run, fold, list[str](), 0

    def __call__(self, text: str) -> None:
        self.said.append(text)

    def progress(self, stage: str, done: float, total: float, note: str) -> None:
        claim, checkpoint = (self.run / self.fold / n for n in (CLAIM, "last.safetensors"))
        words = self.fold.replace("_", " ")
        is_known = any(text.startswith(f"{words}: trained by") for text in self.said)
        if not self.killed and is_known and checkpoint.exists():
            with suppress(OSError, ValueError, KeyError):
                self.killed = int(json.loads(claim.read_text())["pid"])
                assert self.killed != os.getpid()
                os.kill(self.killed, signal.SIGKILL)


@pytest.mark.rounds
def test_folds_at_once_are_those_of_a_sequence_though_a_worker_is_killed(sequence, tmp_path):
    watch = Killer(tmp_path / "b.model.run", "fold_1")
    asked = replace(sequence.asked, workers=2)
    train(sequence.cohort, tmp_path / "b.model", asked, say=watch, progress=watch.progress)
    assert watch.killed
    again = [text for text in watch.said if text.endswith("continues from the last checkpoint")]
    assert len(again) == 1 and again[0].startswith("fold 1: trained by process")
    refuse_difference(sequence, tmp_path / "b.model")


@pytest.mark.rounds
def test_a_stop_saves_all_folds_and_the_same_command_continues(sequence, tmp_path):
    run, model = tmp_path / "b.model.run", tmp_path / "b.model"
    asked = replace(sequence.asked, workers=2)
    sent: list[float] = []

    def stop(stage: str, done: float, total: float, note: str) -> None:
        if not sent and stage == "train fold 0":
            sent.append(done)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(stopping.StopSignal), stopping.stoppable():
        train(sequence.cohort, model, asked, progress=stop)
    assert not list(run.rglob(CLAIM)) and not (run / parallel.STOP).exists()
    assert (run / "fold_0" / "last.safetensors").is_file() and not (run / "card.json").exists()
    # In sequence, which is a continuation too.
    train(sequence.cohort, model, replace(asked, workers=None))
    refuse_difference(sequence, model)


@pytest.mark.rounds
def test_folds_on_a_ray_cluster_are_those_of_a_sequence(sequence, tmp_path):
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        watch = Killer(tmp_path / "b.model.run", "fold_2")
        asked = replace(sequence.asked, workers=2, engine="ray")
        train(sequence.cohort, tmp_path / "b.model", asked, say=watch, progress=watch.progress)
    finally:
        ray.shutdown()
    assert watch.killed and sum("continues from the last" in text for text in watch.said) == 1
    refuse_difference(sequence, tmp_path / "b.model")


def a_task(claim: Any, **changes: Any) -> parallel.Task:
    given = {"share_s": None, "ends_at": 0.0, "init": "", "scoring_s": None} | changes
    rest = {"device": "cpu", "copies": 1, "threads": None, "deterministic": False, "extension": 0}
    return parallel.Task(claim, NetworkJob(0), small_plan(), (), (), **rest, **given)


def test_a_worker_needs_the_folder_of_the_run_and_that_nobody_else_trains(tmp_path, monkeypatch):
    with claimed(tmp_path / CLAIM) as claim:
        task = a_task(claim)
        elsewhere = replace(claim, path=tmp_path / "other" / CLAIM)
        with pytest.raises(OutputError, match="on a disk that all workers see"):
            with parallel.taken(replace(task, claim=elsewhere)):
                pass
        with parallel.taken(task):
            assert (tmp_path / "fold_0" / CLAIM).is_file()
            monkeypatch.setattr(parallel, "PATIENCE_S", 0.0)
            with pytest.raises(OutputError, match="works here now"):
                with parallel.taken(task):
                    pass
    with pytest.raises(OutputError, match="all workers see"):  # without a leader
        with parallel.taken(task):
            pass


def test_a_worker_stops_if_it_is_asked_or_has_no_leader_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "LOOK_S", 0.01)
    stop = tmp_path / parallel.STOP

    def noted() -> bool:
        until = time.monotonic() + 0.3
        while time.monotonic() < until and stopping.requested() is None:
            time.sleep(0.01)
        return stopping.requested() is not None

    with claimed(tmp_path / CLAIM) as claim:
        stop.write_text(json.dumps({"token": "of an earlier leader"}))
        with parallel.taken(a_task(claim)):
            assert not noted()
            stop.write_text(json.dumps({"token": claim.token}))
            assert noted()
        assert stopping.requested() is None
        stop.unlink()
        with parallel.taken(a_task(claim)):
            (tmp_path / CLAIM).rename(tmp_path / "lost")
            assert noted()
        (tmp_path / "lost").rename(tmp_path / CLAIM)


def test_networks_have_the_time_that_they_have_in_sequence(tmp_path):
    clock = SimpleNamespace(remaining_s=lambda: 500.0, extensions=())
    run: Any = SimpleNamespace(
        request=SimpleNamespace(budget_s=600.0),
        clock=clock,
        folder=tmp_path,
        save_json=lambda name, data: (tmp_path / name).write_text(json.dumps(data)),
    )
    assert parallel.share_s(run, 50.0, [30.0, 0.0, 0.0]) == pytest.approx(160.0)
    clock.remaining_s = lambda: 100.0
    assert parallel.share_s(run, 50.0, [160.0, 90.0, 0.0]) == pytest.approx(160.0)  # kept
    clock.extensions = (60.0,)
    assert parallel.share_s(run, 10.0, [0.0, 0.0, 0.0]) == pytest.approx(30.0)
    run.request.budget_s = None
    assert parallel.share_s(run, 10.0, [0.0]) is None

    at = time.time()
    assert a_task(None).left_s(9.0) is None
    task = a_task(None, share_s=160.0, ends_at=at + 1000)
    assert task.left_s(60.0) == pytest.approx(100.0)
    assert replace(task, ends_at=at + 20).left_s(60.0) == pytest.approx(20.0, abs=1)
    assert task.left_s(500.0) == 1.0


def test_when_networks_are_trained_by_workers():
    jobs = [NetworkJob(0), NetworkJob(1)]
    far = replace(LOCALLY, engine=SimpleNamespace(name="ray"))
    for workers, work, leader, expected in (
        (None, LOCALLY, None, False),
        (2, LOCALLY, None, True),
        (None, far, None, True),
        (1, far, None, False),
        (2, LOCALLY, "ranks", False),
    ):
        run: Any = SimpleNamespace(workers=workers, work=work, leader=leader)
        assert parallel.applies(run, jobs) is expected
        assert not parallel.applies(run, jobs[:1])
    with pytest.raises(UsageError, match=re.escape("--workers trains networks apart")):
        together.refuse_unfit(TrainOptions(device="cpu", devices=2, workers=2))
