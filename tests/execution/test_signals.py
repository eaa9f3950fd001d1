"""Signals: raised where the program is, noted inside ``at_steps``, and handled no longer than the
block.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from delineate.execution.stopping import (
    STOPPING,
    StopSignal,
    at_once,
    at_steps,
    requested,
    stoppable,
)

NUMBERS = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_raises_where_the_program_is(number):
    before = signal.getsignal(number)
    with pytest.raises(StopSignal) as found, stoppable():
        send(number)
        pytest.fail("the work went on")
    assert found.value.number == number and signal.getsignal(number) == before


def test_a_first_signal_is_noted_and_raised_at_the_end_of_the_steps():
    said: list[str] = []
    steps = 0
    with pytest.raises(StopSignal) as found, stoppable(said.append), at_steps():
        while requested() is None:
            steps += 1
            if steps == 3:
                send(signal.SIGTERM)
        steps += 10
    assert found.value.number == signal.SIGTERM and steps == 13
    assert said == ["stopping at the next step; a second signal stops at once"]
    assert requested() is None


def test_a_second_signal_raises_at_once():
    with pytest.raises(StopSignal) as found, stoppable(), at_steps():
        send(signal.SIGTERM)
        send(signal.SIGINT)
        pytest.fail("the work went on")
    assert found.value.number == signal.SIGINT and requested() is None


def test_work_between_steps_is_left_at_once():
    with pytest.raises(StopSignal), stoppable(), at_steps():
        with at_once():
            send(signal.SIGTERM)
            pytest.fail("the work went on")
    # A signal noted before is raised where such work begins.
    with pytest.raises(StopSignal), stoppable(), at_steps():
        send(signal.SIGTERM)
        with at_once():
            pytest.fail("the work went on")


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stoppable():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_handles_no_signal():
    seen: list[bool] = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


def test_a_signal_in_a_finaliser_is_not_lost(capfd):
    """Python ignores what is raised there, and prints its traceback."""

    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass

    with pytest.raises(StopSignal) as stopped, stoppable():
        Finalised()
        time.sleep(5)
    assert stopped.value.number == signal.SIGTERM and "Traceback" not in capfd.readouterr().err
