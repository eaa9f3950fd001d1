"""Running a function over many cases in several processes. Only ``launch``, whose processes work
together, starts others.

A process that dies (killed, out of memory, crashed library) becomes an error that names its case;
the other cases continue with a new process. With ``Limits`` a case that takes too long or needs too
much memory is ended with its process too, and tried again after the others, as on a cluster; even
a single worker is a process of its own then, which is kept from case to case with all that the
function keeps. Results are in the order of the items, whatever order they finished in. The function
must be at the top level of a module and have one item as its argument. It reads and writes files
and can be repeated without harm; nothing here is shared between processes.

A function with a method ``follow`` learns in a worker which item is next, so that it may read that
one while it works. An item that has ended a worker is alone: nothing is read with it, and it is not
read ahead. So what is read ahead can cost an item its first try, and never its last. With a limit
of memory, which is for one item, nothing is read ahead; a limit of time does not count what was
read before the item's turn.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import re
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import process, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ..core.errors import DelineateError, InputError
from ..core.inputs import limit_allocation, limit_memory
from ..core.machine import cores
from ..core.progress import Progress, silent
from .stopping import withheld

Item = TypeVar("Item")
Value = TypeVar("Value")
Report = Callable[[float, float, str], None]  # a Progress whose stage is fixed
log = logging.getLogger(__name__)
# As C++ libraries, such as PyTorch and OpenVINO, say it.
_NO_MEMORY = re.compile(r"can't allocate memory|bad_alloc|bad allocation|[Oo]ut of memory")
SIGKILL = 9  # Windows lacks the name
SMALL = 8  # fewer items than this run in this process: starting others costs more than it saves
LOOK_EVERY_S = 1.0  # for what is done meanwhile
TRIES = 3  # of a case whose worker dies or is ended, each by a new one
ENDED_S = 5.0  # for a killed process to end; one that waits for a lost network drive does not
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
    N); ``tries`` the workers that it was given to.
    """

    name: str
    value: Value | None
    error: DelineateError | None
    seconds: float
    log: str = ""
    exitcode: int | None = None
    tries: int = 1


@dataclass(frozen=True)
class Limits:
    """What one case may need.

    Args:
        seconds: from the moment when a worker that has started gets it.
        nbytes: that the process of a worker may allocate, all that it keeps included.

    >>> bool(Limits()), bool(Limits(seconds=60.0))
    (False, True)
    """

    seconds: float | None = None
    nbytes: int | None = None

    def __bool__(self) -> bool:
        return self != Limits()

    def apply(self) -> None:
        """Limit the memory of this process, that of a worker."""
        if self.nbytes is not None:
            limit_allocation(self.nbytes)


NO_LIMITS = Limits()


def warm_up(function: object) -> None:
    """Let a function load what it keeps (its method ``begin``), so that this is not time of its
    first case; which reports the error if that fails.
    """
    if begin := getattr(function, "begin", None):
        with contextlib.suppress(Exception):
            begin()


def look_ahead(function: object, item: object, following: Sequence[object]) -> None:
    """Let a function know of the item that it gets after ``item``, if there is one (its method
    ``follow``).
    """
    if following and (follow := getattr(function, "follow", None)):
        follow(item, *following)


def run(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    names: Sequence[str],
    workers: int | None = None,
    limits: Limits = NO_LIMITS,
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
            usable cores); 1 runs in this process, unless there are limits.
        limits: of each case. One that exceeds them, whose process dies, or that fails in an
            unexpected way is tried ``TRIES`` times in all, and after all others.
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
    if not items or (min(count, len(items)) <= 1 and not limits):
        return _run_here(function, items, names, report, each)
    pool = _Pool(function, items, names, min(count, len(items)), report, each)
    pool.limits, pool.meanwhile = limits, meanwhile
    pool.tries = max(tries, TRIES) if limits else tries
    return pool.run()


def run_apart(
    function: Callable[[Item], Value], item: Item, name: str, ram_bytes: int | None = None
) -> Outcome[Value]:
    """Call ``function`` on one item in a process of its own, whose death is an error of the case.

    Args:
        function, item, name: see ``run``.
        ram_bytes: memory that the process may allocate in addition to what it holds at the start,
            if the system can enforce it; None sets no limit.
    """
    pool = _Pool(function, [item], [name], 1, lambda done, total, note: None, ignored)
    pool.more_bytes = ram_bytes
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
    except Exception as unexpected:
        words = f"unexpected {type(unexpected).__name__}: {unexpected}"
        error, log = DelineateError(words, case=name), traceback.format_exc()
        if isinstance(unexpected, MemoryError) or _NO_MEMORY.search(str(unexpected)):
            words = "needs more memory than a process may use; use fewer workers, or allow more"
            error = InputError(words, case=name)
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
    for number, (item, name) in enumerate(zip(items, names, strict=True), start=1):
        look_ahead(function, item, items[number : number + 1])
        outcomes.append(attempt(function, item, name))
        each(outcomes[-1])
        report(len(outcomes), len(items), name)
    return outcomes


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Limit processes that are started inside to ``count`` threads each, so that together they do
    not use more threads than there are cores; None limits nothing.
    """
    # Libraries read the variable when a process starts. A value that the user has set wins.
    if count is None or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@dataclass(frozen=True)
class _Start:
    """What a worker gets at its start; ``folder`` is that of its temporary files."""

    function: Callable[[Any], Any]
    limits: Limits
    more_bytes: int | None
    folder: str


def _serve(pipe: Connection, start: _Start) -> None:
    """Main loop of a worker: send None when it is ready, then receive items and send outcomes until
    None arrives.
    """
    if start.more_bytes is not None:
        limit_memory(start.more_bytes)
    start.limits.apply()
    if start.folder:
        tempfile.tempdir = os.environ["TMPDIR"] = start.folder
    if start.limits:
        warm_up(start.function)
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        pipe.send(None)
        while (task := pipe.recv()) is not None:
            item, name, following = task
            look_ahead(start.function, item, following)
            outcome = attempt(start.function, item, name)
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


@dataclass(frozen=True)
class _Job:
    """A worker with the item that it has; ``since`` is when it began, None until it has started."""

    process: Any
    folder: str
    index: int = -1
    since: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self.since is None else time.perf_counter() - self.since


class _Pool:
    """Worker processes with one pipe each, so that a death is noticed at once and its case is
    known.
    """

    limits, tries = NO_LIMITS, 1
    more_bytes: int | None = None
    meanwhile: Callable[[], object] | None = None

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        names: Sequence[str],
        workers: int,
        report: Report,
        each: Callable[[Outcome[Any]], object],
    ):
        self.function, self.items, self.names = function, items, names
        self.report, self.each = report, each
        # A forked copy of a process with threads (torch, BLAS) may hang.
        self.context = multiprocessing.get_context("spawn")
        self.outcomes: dict[int, Outcome[Any]] = {}
        # The list is reversed because items are popped from its end.
        self.waiting = list(reversed(range(len(items))))
        self.busy: dict[Connection, _Job] = {}
        self.workers = workers
        self.lost = Counter[int]()  # index -> its tries that were lost

    def run(self) -> list[Outcome[Any]]:
        """Run all items and return their outcomes in the order of the items."""
        try:
            # Every worker gets a first item; each outcome is answered with the next item.
            for _ in range(self.workers):
                self._send_next(*self._start())
            while self.busy:
                for pipe in wait(list(self.busy), self._patience_s()):
                    self._receive(pipe)  # type: ignore[arg-type]
                self._end_overdue()
                if self.meanwhile:
                    self.meanwhile()
        finally:
            # Reached with busy workers only after an exception, such as a stop from the keyboard.
            for pipe, job in self.busy.items():
                job.process.terminate()
                _bury(job)
                pipe.close()
        return [self.outcomes[index] for index in range(len(self.items))]

    def _patience_s(self) -> float | None:
        """For how long to wait for outcomes; None for any time."""
        found = [LOOK_EVERY_S] if self.meanwhile else []
        if self.limits.seconds is not None:
            left = (self.limits.seconds - job.seconds for job in self.busy.values() if job.since)
            found += [max(0.0, one) for one in left]
        return min(found, default=None)

    def _start(self) -> tuple[Connection, _Job]:
        """Start a worker; return the pipe to it and the worker."""
        ours, theirs = self.context.Pipe()
        folder = tempfile.mkdtemp(prefix="delineate-") if self.limits else ""
        start = _Start(self.function, self.limits, self.more_bytes, folder)
        child = self.context.Process(target=_serve, args=(theirs, start), daemon=True)
        if os.name != "nt":
            # The first start starts this process too, which ends ``withheld``.
            resource_tracker.ensure_running()
        # One worker has all cores, and the threads that its libraries choose.
        with _threads(max(1, cores() // self.workers) if self.workers > 1 else None), withheld():
            child.start()
        # With this end closed here, the death of the worker closes the pipe.
        theirs.close()
        return ours, _Job(child, folder)

    def _send_next(self, pipe: Connection, job: _Job) -> None:
        """Send the next item to this worker, or shut it down if none is left."""
        if not self.waiting:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
            job.process.join(ENDED_S if self.limits else None)
            _bury(job)
            return
        index = self.waiting.pop()
        since = None if job.since is None else time.perf_counter()
        self.busy[pipe] = replace(job, index=index, since=since)
        # If the worker has died, _receive notices the end of the pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.send((self.items[index], self.names[index], self._following(index)))

    def _following(self, index: int) -> list[Any]:
        """The item that the worker of this one gets after it, if that is known and both may be at
        work in one process.
        """
        if not self.waiting or self.workers > 1 or self.limits.nbytes is not None:
            return []
        following = self.waiting[-1]
        return [] if self.lost[index] or self.lost[following] else [self.items[following]]

    def _receive(self, pipe: Connection) -> None:
        """Store the outcome of a worker, or note its death; then send the next item."""
        job = self.busy.pop(pipe)
        # A pipe that ends without an outcome means that the worker has died.
        try:
            outcome = pipe.recv()
        except (EOFError, OSError):
            job.process.join()
            self._lost(pipe, job, _death(job.process.exitcode))
            return
        if outcome is None:  # it has started
            self.busy[pipe] = replace(job, since=time.perf_counter())
        elif outcome.log and self.limits:
            # Unexpected, or too little memory: perhaps the fault of this process.
            self._lost(pipe, job, "", outcome)
        else:
            self._send_next(pipe, job)
            self._finish(job.index, replace(outcome, tries=self.lost[job.index] + 1))

    def _end_overdue(self) -> None:
        if self.limits.seconds is None:
            return
        for pipe, job in list(self.busy.items()):
            if job.seconds > self.limits.seconds:
                del self.busy[pipe]
                self._lost(pipe, job, f"took longer than {self.limits.seconds:g} s")

    def _lost(
        self, pipe: Connection, job: _Job, why: str, outcome: Outcome[Any] | None = None
    ) -> None:
        """End a worker, and replace it if items are left; its item is one of them until its last
        try.
        """
        pipe.close()
        _bury(job)
        index = job.index
        self.lost[index] += 1
        is_last = self.lost[index] >= self.tries
        if not is_last:
            # Under limits after all others, which then do not wait for it.
            self.waiting.insert(0 if self.limits else len(self.waiting), index)
        if self.waiting:
            self._send_next(*self._start())
        if not is_last:
            return
        name, code = self.names[index], job.process.exitcode
        found = outcome or Outcome(
            name, None, DelineateError(why, case=name), job.seconds, exitcode=code
        )
        if self.tries > 1:
            found = given_up(found, self.tries)
        self._finish(index, found)

    def _finish(self, index: int, outcome: Outcome[Any]) -> None:
        """Store an outcome. Last of all, because a stop raises here, and ends the workers that are
        busy.
        """
        self.outcomes[index] = outcome
        self.each(outcome)
        self.report(len(self.outcomes), len(self.items), outcome.name)


def given_up(outcome: Outcome[Any], tries: int) -> Outcome[Any]:
    """The failure of a case that was tried so often."""
    assert outcome.error is not None
    words = f"{outcome.error.message} (given up after {tries} tries)"
    return replace(outcome, error=DelineateError(words, case=outcome.name), tries=tries)


def _bury(job: _Job) -> None:
    """End a process, and remove its temporary files. One that waits for a lost network drive cannot
    be ended: it is left, so that the other cases do not wait for it.
    """
    job.process.kill()
    job.process.join(ENDED_S)
    if job.process.exitcode is None:
        log.warning(
            "process %d does not end, as if it waited for a disk that is away; it is left",
            job.process.pid,
        )
        # Else Python would wait for it at its own end.
        getattr(process, "_children", set()).discard(job.process)
    if job.folder:
        shutil.rmtree(job.folder, ignore_errors=True)


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
