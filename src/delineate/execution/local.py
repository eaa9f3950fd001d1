"""Running a function over many cases in several processes. Only ``launch``, whose processes work
together, starts others.

A process that dies (killed, out of memory, crashed library) becomes an error that names its case;
the other cases continue with a new process. Results are in the order of the items, whatever order
they finished in. The function must be at the top level of a module and have one item as its
argument. It reads and writes files and can be repeated without harm; nothing here is shared between
processes.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ..core.errors import DelineateError, InputError
from ..core.inputs import limit_memory
from ..core.machine import cores
from ..core.progress import Progress, silent
from .stopping import withheld

Item = TypeVar("Item")
Value = TypeVar("Value")
Report = Callable[[float, float, str], None]  # a Progress whose stage is fixed
log = logging.getLogger(__name__)
SIGKILL = 9  # Windows lacks the name
SMALL = 8  # fewer items than this run in this process: starting others costs more than it saves
LOOK_EVERY_S = 1.0  # for what is done meanwhile
SECONDS_A_START = 2.0  # approximate time that a new process needs before its first item


def ignored(outcome: object) -> None:
    """Does nothing with an outcome."""


def logged(
    stage: str, each: Callable[[Outcome[Value]], object]
) -> Callable[[Outcome[Value]], object]:
    """``each``, after an event of the log for every outcome: its case, stage, state and seconds."""

    def ended(outcome: Outcome[Value]) -> object:
        state = "done" if outcome.error is None else "failed"
        fields: dict[str, Any] = {
            "event": "case",
            "stage": stage,
            "case": outcome.name,
            "state": state,
        }
        fields["seconds"] = round(outcome.seconds, 3)
        words = f"{stage}: case {outcome.name} {state}"
        if outcome.error is None:
            log.info("%s in %.1f s", words, outcome.seconds, extra={"fields": fields})
        else:
            fields["error"] = str(outcome.error)
            log.error("%s: %s", words, outcome.error, extra={"fields": fields})
        return each(outcome)

    return ended


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """The result of one item: ``value``, or ``error`` (then value is None). ``log`` is the
    traceback of an unexpected error; ``exitcode`` that of its process, if that died (-N by signal
    N).
    """

    name: str
    value: Value | None
    error: DelineateError | None
    seconds: float
    log: str = ""
    exitcode: int | None = None


def run(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    names: Sequence[str],
    workers: int | None = None,
    ram_bytes: int | None = None,
    stage: str = "cases",
    progress: Progress = silent,
    each: Callable[[Outcome[Value]], object] = ignored,
    tries: int = 1,
    meanwhile: Callable[[], object] | None = None,
) -> list[Outcome[Value]]:
    """Call ``function`` on every item.

    Args:
        function: importable by name (defined at the top level of a module); its items and values
            can be pickled.
        items: one per case; an empty list gives an empty list.
        names: of the cases, for errors and progress; as many as items.
        workers: number of processes. None chooses it (1 for fewer than ``SMALL`` items, else the
            usable cores); 1 runs in this process.
        ram_bytes: memory that each process may allocate in addition to what it holds at the start,
            if the system can enforce it; None sets no limit.
        stage: the stage for ``progress``.
        progress: called after each case with (stage, done, total, name of the finished case).
        each: called in this process with each outcome, in the order in which they come.
        tries: of an item whose process dies, each in a new process.
        meanwhile: called in this process about once a second while others work.

    Returns:
        One outcome per item, in the order of the items. Errors are stored in them, not raised.
    """
    if len(names) != len(items):
        raise ValueError(f"{len(items)} items but {len(names)} names")
    count = (1 if len(items) < SMALL else cores()) if workers is None else workers
    report, each = partial(progress, stage), logged(stage, each)
    if min(count, len(items)) <= 1:
        return _run_here(function, items, names, report, each)
    pool = _Pool(function, items, names, min(count, len(items)), ram_bytes, report, each)
    pool.tries, pool.meanwhile = tries, meanwhile
    return pool.run()


def run_apart(
    function: Callable[[Item], Value], item: Item, name: str, ram_bytes: int | None = None
) -> Outcome[Value]:
    """Call ``function`` on one item in a process of its own, whose death is an error of the case;
    arguments as for ``run``.
    """
    pool = _Pool(function, [item], [name], 1, ram_bytes, lambda done, total, note: None, ignored)
    return pool.run()[0]


def workers_for(seconds: float, items: int) -> int:
    """Return the number of processes for ``items`` that take about ``seconds`` together; 1 unless
    starting more saves time.
    """
    return max(1, min(cores(), items, int(seconds / SECONDS_A_START)))


def attempt(function: Callable[[Item], Value], item: Item, name: str) -> Outcome[Value]:
    """Call ``function`` once; any exception becomes an error that names the case."""
    start = time.perf_counter()
    # Errors of this package have a message for the user; all others also keep their traceback.
    value, error, log = None, None, ""
    try:
        value = function(item)
    except DelineateError as expected:
        error = expected.of_case(name)
    except MemoryError:
        error, log = (
            InputError("needs more memory than a process may use; use fewer workers", case=name),
            traceback.format_exc(),
        )
    except Exception as unexpected:
        error = DelineateError(f"unexpected {type(unexpected).__name__}: {unexpected}", case=name)
        log = traceback.format_exc()
    if error is not None:
        # Its frames would keep the data of the failed case until the end of the batch.
        error.__traceback__ = error.__cause__ = error.__context__ = None
    return Outcome(name, value, error, time.perf_counter() - start, log)


def _run_here(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    names: Sequence[str],
    report: Report,
    each: Callable[[Outcome[Value]], object],
) -> list[Outcome[Value]]:
    """Run all items in this process."""
    outcomes: list[Outcome[Value]] = []
    for item, name in zip(items, names, strict=True):
        outcomes.append(attempt(function, item, name))
        each(outcomes[-1])
        report(len(outcomes), len(items), name)
    return outcomes


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Limit processes that are started inside to ``count`` threads each, so that together they do
    not use more threads than there are cores.
    """
    # Libraries read the variable when a process starts. A value that the user has set wins.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


def _serve(pipe: Connection, function: Callable[[Any], Any], ram_bytes: int | None) -> None:
    """Main loop of a worker: receive items and send outcomes until None arrives."""
    if ram_bytes is not None:
        limit_memory(ram_bytes)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (task := pipe.recv()) is not None:
            item, name = task
            outcome = attempt(function, item, name)
            try:
                pipe.send(outcome)
            except (TypeError, AttributeError, ValueError) as error:
                # The value cannot be pickled.
                pipe.send(
                    Outcome(
                        name,
                        None,
                        DelineateError(f"its result cannot be sent back ({error})", case=name),
                        outcome.seconds,
                    )
                )


class _Pool:
    """Worker processes with one pipe each, so that a death is noticed at once and its case is
    known.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        names: Sequence[str],
        workers: int,
        ram_bytes: int | None,
        report: Report,
        each: Callable[[Outcome[Any]], object],
    ):
        self.function, self.items, self.names, self.ram_bytes = function, items, names, ram_bytes
        self.report, self.each = report, each
        # A forked copy of a process with threads (torch, BLAS) may hang.
        self.context = multiprocessing.get_context("spawn")
        self.outcomes: dict[int, Outcome[Any]] = {}
        # The list is reversed because items are popped from its end.
        self.waiting = list(reversed(range(len(items))))
        # pipe -> process, index of its item, start time
        self.busy: dict[Connection, tuple[Any, int, float]] = {}
        self.workers = workers
        self.tries, self.deaths = 1, Counter[int]()
        self.meanwhile: Callable[[], object] | None = None

    def run(self) -> list[Outcome[Any]]:
        """Run all items and return their outcomes in the order of the items."""
        try:
            # Every worker gets a first item; each outcome is answered with the next item.
            for _ in range(self.workers):
                self._send_next(*self._start())
            while self.busy:
                for pipe in wait(list(self.busy), self.meanwhile and LOOK_EVERY_S):
                    self._receive(pipe)  # type: ignore[arg-type]
                if self.meanwhile:
                    self.meanwhile()
        finally:
            # Reached with busy workers only after an exception, such as a stop from the keyboard.
            for pipe, (process, _, _) in self.busy.items():
                process.terminate()
                process.join()
                pipe.close()
        return [self.outcomes[index] for index in range(len(self.items))]

    def _start(self) -> tuple[Connection, Any]:
        """Start a worker; return the pipe to it and the process."""
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, self.function, self.ram_bytes), daemon=True
        )
        if os.name != "nt":
            # The first start starts this process too, which ends ``withheld``.
            resource_tracker.ensure_running()
        with _threads(max(1, cores() // self.workers)), withheld():
            process.start()
        # With this end closed here, the death of the worker closes the pipe.
        theirs.close()
        return ours, process

    def _send_next(self, pipe: Connection, process: Any) -> None:
        """Send the next item to this worker, or shut it down if none is left."""
        if not self.waiting:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
            process.join()
            return
        index = self.waiting.pop()
        self.busy[pipe] = (process, index, time.perf_counter())
        # If the worker has died, _receive notices the end of the pipe.
        with contextlib.suppress(BrokenPipeError):
            pipe.send((self.items[index], self.names[index]))

    def _receive(self, pipe: Connection) -> None:
        """Store the outcome of a worker, or its death as an error of its case; then send the next
        item.
        """
        process, index, begun = self.busy.pop(pipe)
        name = self.names[index]
        # A pipe that ends without an outcome means that the worker has died.
        try:
            self.outcomes[index] = pipe.recv()
            alive = True
        except (EOFError, OSError):
            process.join()
            alive = False
            self.deaths[index] += 1
            if self.deaths[index] < self.tries:
                pipe.close()
                self.waiting.append(index)
                self._send_next(*self._start())
                return
            self.outcomes[index] = Outcome(
                name,
                None,
                DelineateError(_death(process.exitcode), case=name),
                time.perf_counter() - begun,
                exitcode=process.exitcode,
            )
        # A dead worker is replaced only if items are left.
        if alive:
            self._send_next(pipe, process)
        else:
            pipe.close()
            if self.waiting:
                self._send_next(*self._start())
        # Last, because a stop raises here, and ends the workers that are busy.
        self.each(self.outcomes[index])
        self.report(len(self.outcomes), len(self.items), name)


def _death(exitcode: int | None) -> str:
    """Describe why a process ended without a result."""
    if exitcode == -SIGKILL:
        return (
            f"its process was killed (signal {SIGKILL}); most often the machine ran out of memory: "
            "use fewer workers"
        )
    if exitcode is not None and exitcode < 0:
        return f"its process crashed (signal {-exitcode})"
    return f"its process ended without a result (exit code {exitcode})"
