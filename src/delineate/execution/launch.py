"""Processes of this machine that do one piece of work together, such as the ranks of a training.

All run the same function; the first one leads: what it reports is passed on, and its value is the
result. An error of one ends all, as if it had been raised here. If one dies (killed, crashed), or
loses the connection to the others, all are ended and started again, at most ``RESTARTS`` times: the
function must continue where it stopped. A signal is passed on to the first one, which stops the
others. The processes end with this one, even if it is killed.

They find each other by the variables that lightning-fabric and torch read.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ..core.errors import DelineateError, LostRankError
from ..core.machine import cores
from ..core.progress import Progress, Say, silent, unsaid
from ..preprocessing import arrays
from . import stopping

# A variable: the threads of torch in a process that has the machine for itself.
THREADS_ALONE = "DELINEATE_THREADS_ALONE"
RESTARTS = 3
# After a process was lost, seconds in which another may state why, and after the first one has
# stopped, seconds in which the others may stop; then all are ended.
GRACE_S = 3.0
POLL_S = 0.2
END_S = 30.0  # for the others, once the first one has its result


@dataclass(frozen=True)
class Work:
    """What the processes do.

    Args:
        function: (argument, restarts so far, say, progress) -> value, importable by name.
        argument: can be pickled.
        count: number of processes here.
        node, nodes: the number of this machine from 0, and how many there are; with several, the
            first one's address and a free port of it are in MASTER_ADDR and MASTER_PORT.
    """

    function: Callable[[Any, int, Say, Progress], Any]
    argument: Any
    count: int
    node: int = 0
    nodes: int = 1

    def environment(self, number: int, port: int) -> dict[str, str]:
        """The variables of process ``number``."""
        found = {
            THREADS_ALONE: str(arrays.threads_of_new_process()),
            "LOCAL_RANK": str(number),
            "NODE_RANK": str(self.node),
            "WORLD_SIZE": str(self.count * self.nodes),
        }
        if self.nodes == 1:
            found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return found


def run(work: Work, *, say: Say = unsaid, progress: Progress = silent) -> Any:
    """The value of the first process.

    Raises:
        LostRankError: a process died more than ``RESTARTS`` times.
        StopSignal: a signal arrived; the processes have stopped.
        RuntimeError: an error that nobody foresaw, with its traceback as cause.
        DelineateError: that of a process.
    """
    with stopping.at_steps():
        for restarts in range(RESTARTS + 1):
            team = _Team(work, restarts, say, progress)
            try:
                team.follow()
            finally:
                team.end()
            if team.stopped is not None:
                raise stopping.StopSignal(team.stopped)
            if team.done or not team.lost:
                return team.value
            reason = team.reason
            if restarts < RESTARTS:
                say(
                    f"{reason}; all start again from the last checkpoint ({restarts + 1} of "
                    f"{RESTARTS} restarts)"
                )
                # Until the first machine has ended its old processes.
                time.sleep(2 * GRACE_S if work.node else 0)
    raise LostRankError(
        f"{reason}, after {RESTARTS} restarts; the same command continues from the last checkpoint"
    )


@dataclass
class _Team:
    """One start of all processes."""

    work: Work
    restarts: int
    say: Say
    progress: Progress
    value: Any = None
    done: bool = False  # whether there is the value
    stopped: int | None = None
    lost: dict[str, bool] = field(default_factory=dict)  # sentence -> whether its process died

    def __post_init__(self) -> None:
        context, port = multiprocessing.get_context("spawn"), _free_port()
        self.pipes: dict[Connection, tuple[int, Any]] = {}
        if os.name != "nt":
            resource_tracker.ensure_running()
        for number in range(self.work.count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_serve,
                args=(
                    theirs,
                    self.work,
                    number,
                    self.restarts,
                    self.work.environment(number, port),
                ),
            )
            with stopping.withheld():
                process.start()
            theirs.close()
            self.pipes[ours] = (number, process)
        self.first = next(iter(self.pipes.values()))[1]

    @property
    def reason(self) -> str:
        """Why the team was lost: a death explains lost connections."""
        return max(self.lost, key=lambda sentence: self.lost[sentence])

    def follow(self) -> None:
        """Pass on what is reported until all have ended, or one is lost."""
        passed_on, until = False, float("inf")
        while self.pipes and time.monotonic() < until:
            if stopping.requested() and not passed_on:
                self.first.terminate()
                passed_on = True
            for pipe in wait(list(self.pipes), POLL_S):
                if self._receive(pipe):  # type: ignore[arg-type]
                    until = min(until, time.monotonic() + END_S)
            if self.lost or self.stopped is not None:
                until = min(until, time.monotonic() + GRACE_S)
        if self.stopped is not None or passed_on:
            self.lost.clear()  # the others of one that has stopped

    def end(self) -> None:
        """End the processes that are left."""
        for pipe, (_, process) in self.pipes.items():
            process.kill()
            process.join()
            pipe.close()
        self.pipes.clear()

    def _receive(self, pipe: Connection) -> bool:
        """Handle one message; whether the first process has ended."""
        number, process = self.pipes[pipe]
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            process.join()
            self._forget(pipe)
            self.lost[_death(number, process.exitcode)] = True
            return False
        if kind == "say":
            self.say(content)
        elif kind == "progress":
            self.progress(*content)
        else:
            process.join(END_S)
            self._forget(pipe)
            self._ended(number, kind, content)
            return number == 0
        return False

    def _forget(self, pipe: Connection) -> None:
        del self.pipes[pipe]
        pipe.close()

    def _ended(self, number: int, kind: str, content: Any) -> None:
        if kind == "value" and number == 0:
            self.value, self.done = content, True
        elif kind == "stopped" and number == 0:
            self.stopped = content
        elif kind == "lost":
            self.lost.setdefault(str(content), False)
        elif kind == "error":
            raise content
        elif kind == "unforeseen":
            line, text = content
            raise RuntimeError(f"in rank {number}, {line}") from RuntimeError(text)


def _serve(
    pipe: Connection, work: Work, number: int, restarts: int, environment: dict[str, str]
) -> None:
    """One process: the last message has the value, or why there is none."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= environment
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // work.count)))
    leads = number == 0 and work.node == 0

    def say(text: str) -> None:
        pipe.send(("say", text))

    def progress(stage: str, done: float, total: float, note: str) -> None:
        pipe.send(("progress", (stage, done, total, note)))

    last: tuple[str, Any]
    try:
        with stopping.stoppable(say if leads else unsaid):
            value = work.function(
                work.argument, restarts, say if leads else unsaid, progress if leads else silent
            )
        last = ("value", value)
    except stopping.StopSignal as stop:
        last = ("stopped", stop.number)
    except LostRankError as error:
        last = ("lost", error)
    except DelineateError as error:
        last = ("error", error)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        last = ("unforeseen", (f"{type(error).__name__}: {error}", text))
    with contextlib.suppress(OSError):
        pipe.send(last)
        pipe.close()
    os._exit(0)  # threads that wait for a lost process would hold the end up


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _death(number: int, exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"rank {number} was killed ({signal.Signals(-exitcode).name})"
    return f"rank {number} ended without a result (exit code {exitcode})"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
