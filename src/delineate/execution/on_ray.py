"""The engine of a Ray cluster: Ray places and starts workers, here cases are given to them.

A worker is an actor that keeps the function, and with it what the function keeps (a compiled
model). It has one case at a time, so that a death is that of its case, and no more cases are sent
than are worked on. A case whose worker dies, that takes too long or that fails in an unexpected way
is tried again by a new worker, ``TRIES`` times in all, and then is a failure as any other. An error
of this package (a damaged scan) is the same everywhere and is not tried again. A machine that is
lost (a spot node) is not the fault of its case, which then is tried ``MOST_TRIES`` times.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..core.errors import DelineateError, UsageError
from ..core.inputs import limit_memory
from ..core.progress import Progress, silent
from ..formats.apart import UNTRUSTED, is_untrusted
from .local import Outcome, attempt, ignored
from .stopping import STOPPING

TRIES = 3
NODE_DIED = "its node has died"  # in what Ray reports about a worker
MOST_TRIES = 20  # with those that ended with their machine
LOOK_EVERY_S = 1.0  # for cases that take too long


def run(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    names: Sequence[str],
    address: str = "",
    workers: int | None = None,
    ram_bytes: int | None = None,
    seconds: float | None = None,
    whole_node: bool = False,
    stage: str = "cases",
    progress: Progress = silent,
    each: Callable[[Outcome[Any]], Any] = ignored,
) -> list[Outcome[Any]]:
    """Call ``function`` on every item; see ``executor.Engine.run``. A cluster that this process is
    connected to already is used and stays.

    Raises:
        DelineateError: no worker can start.
    """
    if len(names) != len(items):
        raise ValueError(f"{len(items)} items but {len(names)} names")
    if not items:
        return []
    with _connected(address) as ray:
        cpus, gpus, most = _share(ray, whole_node)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
        options |= {} if ram_bytes is None else {"memory": ram_bytes}
        start = ray.remote(_Worker).options(**options).remote
        pool = _Pool(
            ray,
            partial(start, ray.put(function), ram_bytes, is_untrusted(), os.getcwd()),
            items,
            names,
            min(most if workers is None else workers, len(items)),
            seconds,
            partial(progress, stage),
            each,
        )
        return pool.run()


class _Worker:
    """An actor. ``ready`` returns when it has started."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        ram_bytes: int | None,
        untrusted: bool,
        folder: str,
    ):
        try:
            os.chdir(folder)  # relative paths mean the same files here
        except OSError as error:
            raise UsageError(
                f"the folder {folder} of the call is not on the machine {platform.node()}; call "
                "the command in a folder that all machines see"
            ) from error
        self.function = function
        if untrusted:
            os.environ[UNTRUSTED] = "1"
        if ram_bytes is not None:
            limit_memory(ram_bytes)

    def ready(self) -> None:
        pass

    def call(self, item: Any, name: str) -> Outcome[Any]:
        return attempt(self.function, item, name)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The module of Ray, connected to a cluster. Signals stay with this program."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    kept = {one: signal.getsignal(one) for name in STOPPING if (one := getattr(signal, name, None))}
    try:
        ray.init(
            address=address or None,
            include_dashboard=None if address else False,
            configure_logging=False,
            log_to_driver=False,
        )
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DelineateError(f"no Ray cluster at {address or 'this machine'}: {said[0]}") from error
    try:
        for number, handler in kept.items():
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()


def _share(ray: Any, whole_node: bool) -> tuple[float, float, int]:
    """Cores and GPUs of one worker, and how many workers there are at most. A worker with a GPU has
    one, and its share of the cores of the machine.
    """
    nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    cores = [int(one.get("CPU", 0)) for one in nodes]
    if not whole_node:
        return 1, 0, max(1, sum(cores))
    if with_gpu := [one for one in nodes if one.get("GPU", 0) >= 1]:
        cpus = min(int(one.get("CPU", 0) // one["GPU"]) for one in with_gpu)
        return cpus, 1, sum(int(one["GPU"]) for one in with_gpu)
    cpus = max(1, min((count for count in cores if count), default=1))
    return cpus, 0, max(1, sum(count // cpus for count in cores))


@dataclass
class _Pool:
    """The workers of one call, and which case each of them has."""

    ray: Any
    start: Callable[[], Any]
    items: Sequence[Any]
    names: Sequence[str]
    most: int
    seconds: float | None
    report: Callable[[float, float, str], Any]
    each: Callable[[Outcome[Any]], Any]
    outcomes: dict[int, Outcome[Any]] = field(default_factory=dict)
    # What is awaited of a worker -> the worker, its case (None while it starts), since when.
    busy: dict[Any, tuple[Any, int | None, float]] = field(default_factory=dict)
    tries: Counter[int | None] = field(default_factory=Counter)
    excused: Counter[int | None] = field(default_factory=Counter)  # tries that a machine ended

    def run(self) -> list[Outcome[Any]]:
        """All cases, in the order of the items."""
        self.waiting = deque(range(len(self.items)))
        try:
            for _ in range(self.most):
                self._start()
            while self.busy:
                ready, _ = self.ray.wait(list(self.busy), timeout=LOOK_EVERY_S)
                for reference in ready:
                    self._receive(reference)
                self._end_overdue()
        finally:
            for worker, _, _ in self.busy.values():
                self.ray.kill(worker)
        return [self.outcomes[index] for index in range(len(self.items))]

    def _start(self) -> None:
        worker = self.start()
        self.busy[worker.ready.remote()] = (worker, None, time.perf_counter())

    def _next(self, worker: Any) -> None:
        """Give a worker its next case; it ends if there is none."""
        if not self.waiting:
            self.ray.kill(worker)
            return
        index = self.waiting.popleft()
        reference = worker.call.remote(self.items[index], self.names[index])
        self.busy[reference] = (worker, index, time.perf_counter())

    def _receive(self, reference: Any) -> None:
        worker, index, since = self.busy.pop(reference)
        outcome: Any
        try:
            outcome = self.ray.get(reference)
        except (self.ray.exceptions.RayError, OSError) as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = said[-1 if index is None else 0] if said else type(error).__name__
            # A worker that is out of reach is that of a machine whose end is not known yet.
            is_away = isinstance(error, self.ray.exceptions.ActorUnavailableError)
            self.excused[index] += is_away or NODE_DIED in str(error)
            self._lost(worker, index, since, f"its worker ended without a result ({why})")
            return
        if index is None:
            self.tries[None] = self.excused[None] = 0
        elif outcome.log:  # unexpected: perhaps of this process or machine alone
            self._lost(worker, index, since, "", outcome)
            return
        else:
            self._finish(index, outcome)
        self._next(worker)

    def _end_overdue(self) -> None:
        if self.seconds is None:
            return
        for reference, (worker, index, since) in list(self.busy.items()):
            if index is not None and time.perf_counter() - since > self.seconds:
                del self.busy[reference]
                self._lost(worker, index, since, f"took longer than {self.seconds:g} s")

    def _lost(
        self,
        worker: Any,
        index: int | None,
        since: float,
        why: str,
        outcome: Outcome[Any] | None = None,
    ) -> None:
        """Try the case of a worker again with a new one, or finish it after its last try."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(worker)
        self.tries[index] += 1
        counted = self.tries[index] - self.excused[index]
        is_last = counted == TRIES or self.tries[index] == MOST_TRIES
        if index is None and is_last:
            raise DelineateError(f"no case can begin on the Ray cluster: {why}")
        if index is not None and is_last:
            name, spent = self.names[index], time.perf_counter() - since
            made = outcome or Outcome(name, None, DelineateError(why, case=name), spent)
            assert made.error is not None
            words = f"{made.error.message} (given up after {self.tries[index]} tries)"
            self._finish(index, replace(made, error=DelineateError(words, case=name)))
        elif index is not None:
            self.waiting.append(index)
        if self.waiting:
            self._start()

    def _finish(self, index: int, outcome: Outcome[Any]) -> None:
        self.outcomes[index] = outcome
        self.each(outcome)
        self.report(len(self.outcomes), len(self.items), outcome.name)
