"""The one door for work over many cases: a top-level function of one item, run in processes, never
losing a name.

A process that dies (killed, out of memory, crashed library) becomes an error that names its case;
the others go on with a fresh process. Results come back in the order of the items, whatever order
they finished in. The function reads and writes files and can be run again without harm; nothing
here is shared between processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ..core.errors import DelineateError, InputError
from ..core.progress import Progress, silent, under

Item = TypeVar("Item")
Value = TypeVar("Value")
SMALL = 8  # fewer items than this run in this process: starting others costs more than it saves
SECONDS_A_START = 2.0  # roughly what a fresh process costs before its first item


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What became of one item: ``value``, or ``error`` (then value is None); ``log`` is the
    traceback of an unforeseen error.
    """

    name: str
    value: Value | None
    error: DelineateError | None
    seconds: float
    log: str = ""


def run(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    names: Sequence[str],
    workers: int | None = None,
    ram_bytes: int | None = None,
    stage: str = "cases",
    progress: Progress = silent,
) -> list[Outcome[Value]]:
    """Call ``function`` on every item.

    Args:
        function: importable by name (defined at the top of a module); its items and values can be
            pickled.
        items: one a case; an empty list gives an empty list.
        names: of the cases, for errors and progress; as many as items.
        workers: processes; None decides (one where there are fewer than ``SMALL`` items, else the
            usable cores); 1 runs in this process.
        ram_bytes: memory each process may take beyond what it holds at the start, where the system
            can hold it to that; None sets no limit.
        stage: what ``progress`` is called with.
        progress: called after each case with (stage, done, total, name of the case that ended).

    Returns:
        One outcome an item, in the order of the items. Errors are kept in them, not raised.
    """
    if len(names) != len(items):
        raise ValueError(f"{len(items)} items have {len(names)} names")
    count = (1 if len(items) < SMALL else cores()) if workers is None else workers
    tell = under(stage, progress)
    if min(count, len(items)) <= 1:
        return _run_here(function, items, names, tell)
    return _Pool(function, items, names, min(count, len(items)), ram_bytes, tell).run()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(seconds: float, items: int) -> int:
    """How many processes to start for ``items`` that take about ``seconds`` together: 1 unless the
    start pays.
    """
    return max(1, min(cores(), items, int(seconds / SECONDS_A_START)))


def attempt(function: Callable[[Item], Value], item: Item, name: str) -> Outcome[Value]:
    """Call ``function`` once; any exception becomes an error that names the case."""
    start = time.perf_counter()
    value, error, log = None, None, ""
    try:
        value = function(item)
    except DelineateError as known:
        error = known.of_case(name)
    except MemoryError:
        error, log = (
            InputError("needs more memory than a process may take; use fewer workers", case=name),
            traceback.format_exc(),
        )
    except Exception as unforeseen:
        error = DelineateError(f"unforeseen {type(unforeseen).__name__}: {unforeseen}", case=name)
        log = traceback.format_exc()
    return Outcome(name, value, error, time.perf_counter() - start, log)


def _run_here(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    names: Sequence[str],
    tell: Progress,
) -> list[Outcome[Value]]:
    outcomes: list[Outcome[Value]] = []
    for item, name in zip(items, names, strict=True):
        outcomes.append(attempt(function, item, name))
        tell("", len(outcomes), len(items), name)
    return outcomes


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes that start inside compute with ``count`` threads, so that all of them together do
    not ask for more cores than there are.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


def _serve(pipe: Connection, function: Callable[[Any], Any], ram_bytes: int | None) -> None:
    """A worker's life: items in, outcomes out, until the pipe says None."""
    if ram_bytes is not None:
        _limit_memory(ram_bytes)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (task := pipe.recv()) is not None:
            item, name = task
            outcome = attempt(function, item, name)
            try:
                pipe.send(outcome)
            except (
                TypeError,
                AttributeError,
                ValueError,
            ) as error:  # a value that cannot be pickled
                pipe.send(
                    Outcome(
                        name,
                        None,
                        DelineateError(f"its result cannot be sent back ({error})", case=name),
                        outcome.seconds,
                    )
                )


def _limit_memory(ram_bytes: int) -> None:
    """Hold this process's address space to what it has now plus ``ram_bytes``; best effort."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        import psutil

        now = psutil.Process().memory_info().vms
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = now + ram_bytes
        resource.setrlimit(
            resource.RLIMIT_AS,
            (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard),
        )


class _Pool:
    """Processes with a pipe each, so that a death is seen at once and its case is known."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        names: Sequence[str],
        workers: int,
        ram_bytes: int | None,
        tell: Progress,
    ):
        self.function, self.items, self.names, self.ram_bytes, self.tell = (
            function,
            items,
            names,
            ram_bytes,
            tell,
        )
        # A fork of a process with threads (torch, BLAS) may hang.
        self.context = multiprocessing.get_context("spawn")
        self.outcomes: dict[int, Outcome[Any]] = {}
        self.waiting = list(reversed(range(len(items))))
        self.busy: dict[
            Connection, tuple[Any, int, float]
        ] = {}  # pipe -> process, index, when it began
        self.workers = workers

    def run(self) -> list[Outcome[Any]]:
        try:
            for _ in range(self.workers):
                self._give(*self._start())
            while self.busy:
                for pipe in wait(list(self.busy)):
                    self._take(pipe)  # type: ignore[arg-type]
        finally:
            for pipe, (process, _, _) in self.busy.items():
                process.terminate()
                process.join()
                pipe.close()
        return [self.outcomes[index] for index in range(len(self.items))]

    def _start(self) -> tuple[Connection, Any]:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, self.function, self.ram_bytes), daemon=True
        )
        with _threads(max(1, cores() // self.workers)):
            process.start()
        theirs.close()  # so that a dead worker ends the pipe
        return ours, process

    def _give(self, pipe: Connection, process: Any) -> None:
        """The next item to this worker, or its leave."""
        if not self.waiting:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
            process.join()
            return
        index = self.waiting.pop()
        self.busy[pipe] = (process, index, time.perf_counter())
        with contextlib.suppress(BrokenPipeError):  # it died: _take sees the end of the pipe
            pipe.send((self.items[index], self.names[index]))

    def _take(self, pipe: Connection) -> None:
        process, index, begun = self.busy.pop(pipe)
        name = self.names[index]
        try:
            self.outcomes[index] = pipe.recv()
            alive = True
        except (EOFError, OSError):
            process.join()
            alive = False
            self.outcomes[index] = Outcome(
                name,
                None,
                DelineateError(_death(process.exitcode), case=name),
                time.perf_counter() - begun,
            )
        self.tell("", len(self.outcomes), len(self.items), name)
        if alive:
            self._give(pipe, process)
        else:
            pipe.close()
            if self.waiting:
                self._give(*self._start())


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return (
            f"its process was killed (signal {-exitcode}); most often the machine ran out of "
            "memory: use fewer workers"
        )
    return f"its process ended without a result (exit code {exitcode})"
