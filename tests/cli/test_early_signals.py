"""Signals while modules are loaded and while Python ends: an exit code, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from delineate.cli.exits import exit_codes
from delineate.execution.stopping import StopSignal

# The program; it prints a line once it handles signals. Before that Python itself answers them.
PROGRAM = """
from delineate.cli import main
from delineate.execution import stopping

handle = stopping.leave_at_once
def leave_at_once():
    handle()
    print("begun", flush=True)
stopping.leave_at_once = leave_at_once
main()
"""
# Two workers that are busy; the program ends as the command line does.
POOL = """
import time
from delineate.cli.exits import exit_codes
from delineate.execution import local

if __name__ == "__main__":
    with exit_codes():
        print("begun", flush=True)
        local.run(time.sleep, [60, 60], names=["a", "b"], workers=2)
"""


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    """A shell lets its background jobs ignore Ctrl-C, and their processes too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _begun(program: str, *words: str) -> subprocess.Popen[str]:
    # Where coverage is measured, it answers signals itself.
    own = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def _after(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Exit code and errors after a signal to the process and its children."""
    if process.poll() is None:
        os.killpg(process.pid, number)
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


@pytest.mark.parametrize(
    "delays_s",
    [(0.0, 0.1, 0.3), pytest.param([n * 0.025 for n in range(40)], marks=pytest.mark.rounds)],
)
def test_signals_at_early_and_late_moments(delays_s):
    for number in (signal.SIGINT, signal.SIGTERM):
        for delay_s in delays_s:
            process = _begun(PROGRAM, "recipes")
            time.sleep(delay_s)
            code, errors = _after(process, number)
            assert code in (0, 128 + number), (number, delay_s, code, errors)
            assert "Traceback" not in errors and "Exception" not in errors, errors


@pytest.mark.parametrize("delay_s", [0.05, 0.4])
def test_workers_do_not_answer_ctrl_c_themselves(delay_s):
    process = _begun(POOL)
    time.sleep(delay_s)
    assert _after(process, signal.SIGINT) == (130, "stopped; finished work is kept\n")


def test_a_signal_that_an_extension_turns_into_another_error_is_one():
    with pytest.raises(SystemExit) as end, exit_codes():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except StopSignal:
            raise ImportError("initialization failed") from None
    assert end.value.code == 128 + signal.SIGTERM
