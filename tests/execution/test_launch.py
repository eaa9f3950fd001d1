"""Processes that do one piece of work together end together, and start again if one is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from delineate.core.errors import InputError, LostRankError
from delineate.execution import launch
from delineate.execution.stopping import StopSignal, stoppable

FOREVER_S = 60.0


def work(asked: tuple[str, Path], restarts: int, say: Any, progress: Any) -> Any:
    """What each process does: all note that they began."""
    what, folder = asked
    rank = int(os.environ["LOCAL_RANK"])
    (folder / f"{rank}.{restarts}").write_text(str(os.getpid()))
    if what == "killed once" and rank == 1 and not restarts:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "killed always" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "error" and rank == 1:
        raise InputError("is empty", case="c3")
    if what == "unforeseen" and rank == 1:
        raise KeyError("c3")
    if what == "lost" and rank == 0 and not restarts:
        raise LostRankError("rank 0 lost the connection to another")
    if not restarts or what == "killed always":
        time.sleep(FOREVER_S)
    say(f"from {rank}")
    progress("steps", 1, 2, "half")
    return rank, restarts


def run(what: str, folder: Path, **how: Any) -> Any:
    return launch.run(launch.Work(work, (what, folder), 2), **how)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(launch, "GRACE_S", 0.2)


@pytest.fixture
def no_process_is_left(tmp_path):
    yield
    for path in tmp_path.iterdir():
        assert not Path(f"/proc/{path.read_text()}").exists()


pytestmark = pytest.mark.usefixtures("no_process_is_left")


@pytest.mark.parametrize(
    ("what", "words"), [("killed once", "rank 1 was killed (SIGKILL)"), ("lost", "rank 0 lost the")]
)
def test_a_lost_process_starts_all_again(tmp_path, what, words):
    said, shown = [], []
    found = run(what, tmp_path, say=said.append, progress=lambda *all: shown.append(all))
    assert found == (0, 1) and shown == [("steps", 1, 2, "half")]
    assert said[0].startswith(words) and "1 of 3 restarts" in said[0] and said[1:] == ["from 0"]


def test_a_process_that_dies_again_and_again_ends_all(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "RESTARTS", 1)
    said: list[str] = []
    with pytest.raises(
        LostRankError, match=r"rank 1 was killed.*after 1 restarts; the same command"
    ):
        run("killed always", tmp_path, say=said.append)
    assert len(said) == 1


def test_an_error_of_one_is_the_error_of_all(tmp_path):
    with pytest.raises(InputError, match="is empty") as found:
        run("error", tmp_path)
    assert found.value.case == "c3"
    with pytest.raises(RuntimeError, match="in rank 1, KeyError: 'c3'") as unforeseen:
        run("unforeseen", tmp_path)
    assert "test_launch.py" in str(unforeseen.value.__cause__)


def test_a_signal_stops_all(tmp_path):
    def send() -> None:
        while not (tmp_path / "0.0").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    with stoppable(), pytest.raises(StopSignal) as found:
        threading.Thread(target=send).start()
        run("signal", tmp_path)
    assert found.value.number == signal.SIGTERM
