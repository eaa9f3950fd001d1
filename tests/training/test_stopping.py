"""A training that a signal stops at any step or validation ends bit for bit as without the stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.plans import small_network
from tests.training import test_loop
from tests.training.test_loop import job, logged, same

from delineate.core.bundle import load_tensors
from delineate.core.plan import Schedule
from delineate.execution.stopping import StopSignal, stoppable
from delineate.training import loop
from delineate.training.loop import fit

STEPS = 6
cases = test_loop.cases  # the fixture
CHANGES = {
    "network": small_network(2, norm="batch", dropout=0.2),
    "schedule": Schedule(epochs=2, steps_per_epoch=3, keep_every=1),
}


def signalling(monkeypatch, place, name: str, number: int, count: int) -> None:
    """Let the ``number``-th call of ``place.name`` receive ``count`` signals first."""
    real, calls = getattr(place, name), []

    def call(*args, **keywords):
        calls.append(1)
        if len(calls) == number:
            for _ in range(count):
                signal.raise_signal(signal.SIGTERM)
        return real(*args, **keywords)

    monkeypatch.setattr(place, name, call)


def stopped(folder: Path, cases, monkeypatch, name: str, number: int, count: int = 1) -> StopSignal:
    place = loop if hasattr(loop, name) else loop.scoring
    with monkeypatch.context() as patch, stoppable():
        signalling(patch, place, name, number, count)
        with pytest.raises(StopSignal) as found:
            fit(job(folder, cases, **CHANGES))
    return found.value


@pytest.mark.parametrize(
    "moments",
    [
        [("_step_stats", 2), ("_step_stats", STEPS), ("evaluate", 1), ("_log", 1)],
        pytest.param(
            [
                *(("_step_stats", n) for n in range(1, STEPS + 1)),
                *((name, n) for name in ("evaluate", "calibrate", "_log") for n in (1, 2)),
            ],
            marks=pytest.mark.rounds,
        ),
    ],
    ids=["some", "all"],
)
def test_a_stop_at_any_step_or_validation_changes_nothing(tmp_path, cases, monkeypatch, moments):
    fit(job(tmp_path / "whole", cases, **CHANGES))
    for name, number in moments:
        folder = tmp_path / f"{name}{number}"
        stop = stopped(folder, cases, monkeypatch, name, number)
        assert stop.number == signal.SIGTERM
        fit(job(folder, cases, **CHANGES))
        # Which checkpoint was the one before depends on the stop.
        files = {
            p.name for p in (tmp_path / "whole").glob("*.safetensors") if p.stem[-7:] != "_before"
        }
        for file in sorted(files):
            assert same(tmp_path / "whole" / file, folder / file), (name, number, file)
        assert logged(tmp_path / "whole") == logged(folder), (name, number)


@pytest.mark.parametrize("number", [1, 2])
def test_a_stop_while_statistics_are_read_loses_no_step(tmp_path, cases, monkeypatch, number):
    monkeypatch.setattr(loop, "WATCHED", 1)
    stopped(tmp_path, cases, monkeypatch, "_flush_step_stats", number)
    metadata = load_tensors(tmp_path / "last.safetensors", pytest.fail)[1]
    assert json.loads(metadata["state"])["step"] == number


def test_a_second_signal_stops_at_once(tmp_path, cases, monkeypatch):
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, stoppable(said.append):
        signalling(patch, loop, "_update_ema", 1, count=2)
        with pytest.raises(StopSignal):
            fit(job(tmp_path / "run", cases, **CHANGES))
    assert len(said) == 1 and "a second signal stops at once" in said[0]
    assert not (tmp_path / "run" / "last.safetensors").exists()
    assert signal.getsignal(signal.SIGTERM) == before
