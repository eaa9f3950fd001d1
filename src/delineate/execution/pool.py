"""Workers of a cluster and the cases that they have: every case once, with failures by name.

A worker has one case at a time, so that a death is that of its case, and no more cases are sent
than are worked on; and one more if the function reads ahead (``follow``, see ``local``), which is
that worker's next case unless another worker has nothing to do. A case whose worker dies, that
takes too long or that fails in an unexpected way is tried again by a new worker, ``TRIES`` times in
all, and then is a failure as any other. An error of this package (a damaged scan) is the same
everywhere and is not tried again. A machine that is lost (a spot node) is not the fault of its
case, which then is tried ``MOST_TRIES`` times.

Cases that need hardly more time than a message (a list of which most is done, a small file) are
sent several together, as many as need about ``TOGETHER_S``, unless there is a limit of time, which
is that of one case. If their worker ends, each is tried alone, and none has lost a try.

With several stages each has its own workers, and a value waits in the object store for the next
one. No further case is begun while the values that wait, and those that are expected, need more
than the spool may have, or while enough cases wait for the stage in the middle. A case that is
tried again begins with the first stage. Ray is a parameter, and not imported here.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ..core.errors import DelineateError
from .local import LOOK_EVERY_S, TRIES, Outcome, given_up

NODE_DIED = "its node has died"  # in what Ray reports about a worker
MOST_TRIES = 20  # with those that ended with their machine
TOGETHER_S, MOST_TOGETHER = 0.05, 100  # time and number of cases that are sent together
AHEAD = 2  # cases that wait for each worker of the second stage, or are being read


@dataclass(frozen=True)
class Stages:
    """A function of one case in steps: the first one gets the item, the others the item and the
    value of the step before.

    >>> Stages((abs, pow))(-3)
    -27
    """

    steps: tuple[Callable[..., Any], ...]

    def __call__(self, item: Any) -> Any:
        value = self.steps[0](item)
        for step in self.steps[1:]:
            value = step(item, value)
        return value


@dataclass(frozen=True)
class Stage:
    """How a worker of a stage is started, and how many there are."""

    start: Callable[[], Any]
    count: int


@dataclass(frozen=True)
class _Job:
    """What a worker does: a case, or None while it starts; since when; where its value will be; the
    cases after it.
    """

    worker: Any
    stage: int
    index: int | None
    since: float
    value: Any = None
    more: tuple[int, ...] = ()


@dataclass
class Pool:
    """The workers of one call."""

    ray: Any
    stages: Sequence[Stage]
    items: Sequence[Any]
    names: Sequence[str]
    seconds: float | None
    report: Callable[[float, float, str], Any]
    each: Callable[[Outcome[Any]], Any]
    meanwhile: Callable[[], object] | None = None
    spool_bytes: int = 0
    reads_ahead: bool = False  # with one stage only
    ahead: dict[Any, int] = field(default_factory=dict)  # worker -> the case that it reads ahead
    alone: set[int] = field(default_factory=set)  # cases that are not with others in a worker again
    pace_s: float | None = None  # of the last cases, each
    outcomes: dict[int, Outcome[Any]] = field(default_factory=dict)
    busy: dict[Any, _Job] = field(default_factory=dict)  # what is awaited -> who does it
    values: dict[int, tuple[Any, int]] = field(default_factory=dict)  # that wait, with their bytes
    spent: Counter[int] = field(default_factory=Counter)  # seconds of the stages before
    tries: Counter[int | None] = field(default_factory=Counter)
    excused: Counter[int | None] = field(default_factory=Counter)  # tries that a machine ended
    largest: int = 0  # bytes of a value

    def run(self) -> list[Outcome[Any]]:
        """All cases, in the order of the items."""
        self.queues = [deque(range(len(self.items))), *(deque[int]() for _ in self.stages[1:])]
        self.idle: list[list[Any]] = [[] for _ in self.stages]
        try:
            for number, stage in enumerate(self.stages):
                for _ in range(stage.count):
                    self._start(number)
            while self.busy:
                ready, _ = self.ray.wait(list(self.busy), timeout=LOOK_EVERY_S)
                for reference in ready:
                    self._receive(reference)
                self._end_overdue()
                self._assign()
                if self.meanwhile:
                    self.meanwhile()
        finally:
            for worker in [*(job.worker for job in self.busy.values()), *chain(*self.idle)]:
                self.ray.kill(worker)
        return [self.outcomes[index] for index in range(len(self.items))]

    def _start(self, stage: int) -> None:
        worker = self.stages[stage].start()
        self.busy[worker.ready.remote()] = _Job(worker, stage, None, time.perf_counter())

    # ---- giving cases to workers ----

    def _assign(self) -> None:
        """Give idle workers their next cases, the last stage first; end those without work."""
        for stage in reversed(range(len(self.stages))):
            queue, idle = self.queues[stage], self.idle[stage]
            if stage == 0:
                self._send_ahead()
            while queue and idle and (stage or self._has_room()):
                self._send(idle.pop(), stage, queue.popleft())
            is_needed = self._may_come(stage)
            if is_needed and not idle and all(job.stage != stage for job in self.busy.values()):
                self._start(stage)
            while idle and not is_needed:
                self.ray.kill(idle.pop())

    def _send_ahead(self) -> None:
        """Give idle workers the cases that they have read; if no other cases are left, also those
        that others have.
        """
        for worker in [one for one in self.idle[0] if one in self.ahead]:
            self.idle[0].remove(worker)
            self._send(worker, 0, self.ahead.pop(worker))
        spare = len(self.idle[0]) - len(self.queues[0])
        for worker in [*self.ahead][: max(0, spare)]:
            self.queues[0].append(self.ahead.pop(worker))

    def _may_come(self, stage: int) -> bool:
        """Whether a case waits for this stage or comes to it, unless it is tried again."""
        waiting = any(self.queues[: stage + 1])
        return waiting or any(
            job.stage < stage for job in self.busy.values() if job.index is not None
        )

    def _has_room(self) -> bool:
        """Whether another case may be begun."""
        reading = sum(job.stage == 0 and job.index is not None for job in self.busy.values())
        if len(self.stages) == 1 or not (reading or self.values):
            return True
        expected = sum(nbytes for _, nbytes in self.values.values()) + (reading + 1) * self.largest
        waiting = reading + len(self.queues[1])
        return waiting < AHEAD * self.stages[1].count and expected <= self.spool_bytes

    def _send(self, worker: Any, stage: int, index: int) -> None:
        given = (self.values[index][0],) if stage else ()
        call, value = worker.call, None
        if more := self._together(index):
            these = [index, *more]
            listed = [self.items[one] for one in these], [self.names[one] for one in these]
            job = _Job(worker, stage, index, time.perf_counter(), None, more)
            self.busy[worker.call_each.remote(*listed)] = job
            return
        if (following := self._following(index)) is not None:
            self.ahead[worker] = following
            call, given = worker.call_ahead, (self.items[following],)
        if stage + 1 < len(self.stages):
            call = worker.pass_on.options(num_returns=2)
        found = call.remote(self.items[index], self.names[index], *given)
        reference, value = found if stage + 1 < len(self.stages) else (found, None)
        self.busy[reference] = _Job(worker, stage, index, time.perf_counter(), value)

    def _together(self, index: int) -> tuple[int, ...]:
        """The cases that are sent with this one, which wait no longer."""
        queue, pace_s = self.queues[0], self.pace_s
        if len(self.stages) > 1 or self.reads_ahead or self.seconds is not None:
            return ()
        if pace_s is None or index in self.alone:
            return ()
        # No worker may have much left when the others have nothing to do.
        most = min(MOST_TOGETHER, len(queue) // (2 * self.stages[0].count))
        if pace_s > 0:
            most = min(most, int(TOGETHER_S / pace_s))
        found: list[int] = []
        while len(found) + 1 < most and queue[0] not in self.alone:
            found.append(queue.popleft())
        return tuple(found)

    def _following(self, index: int) -> int | None:
        """The case that the worker of this one reads ahead, which waits no longer."""
        if not self.reads_ahead or self.tries[index]:
            return None
        queue, starting = self.queues[0], sum(job.index is None for job in self.busy.values())
        if len(queue) <= len(self.idle[0]) + starting or queue[0] in self.alone:
            return None
        return queue.popleft()

    # ---- what comes back ----

    def _receive(self, reference: Any) -> None:
        job = self.busy.pop(reference)
        outcome: Any
        try:
            outcome = self.ray.get(reference)
        except (self.ray.exceptions.RayError, OSError) as error:
            if job.more:
                self._apart(job)
                return
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = said[-1 if job.index is None else 0] if said else type(error).__name__
            # A worker that is out of reach is that of a machine whose end is not known yet; so is
            # one that kept a value.
            away = self.ray.exceptions.ActorUnavailableError, self.ray.exceptions.ObjectLostError
            self.excused[job.index] += isinstance(error, away) or NODE_DIED in str(error)
            self._lost(job, f"its worker ended without a result ({why})")
            return
        if job.index is None:
            self.tries[None] = self.excused[None] = 0
        elif job.more:
            self._receive_each(job, outcome)
            return
        elif outcome.log:  # unexpected: perhaps of this process or machine alone
            self._lost(job, "", outcome)
            return
        elif outcome.error is None and job.stage + 1 < len(self.stages):
            self.spent[job.index] += outcome.seconds
            self.values[job.index] = job.value, outcome.value
            self.largest = max(self.largest, outcome.value)
            self.queues[job.stage + 1].append(job.index)
        else:
            self._finish(job.index, replace(outcome, tries=self.tries[job.index] + 1))
        self.idle[job.stage].append(job.worker)

    def _receive_each(self, job: _Job, outcomes: Sequence[Outcome[Any]]) -> None:
        """Of cases that were sent together, as many as were done; the last may be unexpected."""
        assert job.index is not None
        these = (job.index, *job.more)
        self.queues[0].extendleft(reversed(these[len(outcomes) :]))
        for index, outcome in zip(these, outcomes, strict=False):
            if outcome.log:
                self._lost(replace(job, index=index, more=()), "", outcome)
                return
            self._finish(index, outcome)
        self.idle[job.stage].append(job.worker)

    def _apart(self, job: _Job) -> None:
        """The worker of several cases has ended: each is tried alone."""
        assert job.index is not None
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(job.worker)
        these = (job.index, *job.more)
        self.alone.update(these)
        self.queues[0].extendleft(reversed(these))
        self._start(job.stage)

    def _end_overdue(self) -> None:
        if self.seconds is None:
            return
        now = time.perf_counter()
        for reference, job in list(self.busy.items()):
            if job.index is None:
                continue
            if now - job.since + self.spent[job.index] > self.seconds:
                del self.busy[reference]
                self._lost(job, f"took longer than {self.seconds:g} s")

    def _lost(self, job: _Job, why: str, outcome: Outcome[Any] | None = None) -> None:
        """Try the case of a worker again with a new one, or finish it after its last try."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(job.worker)
        index = job.index
        if (read := self.ahead.pop(job.worker, None)) is not None:
            self.alone.add(read)
            self.queues[0].appendleft(read)
        self.tries[index] += 1
        counted = self.tries[index] - self.excused[index]
        is_last = counted == TRIES or self.tries[index] == MOST_TRIES
        if index is None and is_last:
            raise DelineateError(f"no case can begin on the Ray cluster: {why}")
        if index is not None and is_last:
            name, spent = self.names[index], time.perf_counter() - job.since
            made = outcome or Outcome(name, None, DelineateError(why, case=name), spent)
            self._finish(index, given_up(made, self.tries[index]))
        elif index is not None:
            self.values.pop(index, None)
            self.spent.pop(index, None)
            self.alone.add(index)
            self.queues[0].append(index)
        if self._may_come(job.stage):
            self._start(job.stage)

    def _finish(self, index: int, outcome: Outcome[Any]) -> None:
        outcome = replace(outcome, seconds=outcome.seconds + self.spent.pop(index, 0.0))
        if outcome.error is not None:
            outcome = replace(outcome, value=None)  # of a stage before the last, its bytes
        self.values.pop(index, None)
        pace_s = outcome.seconds if self.pace_s is None else self.pace_s
        self.pace_s = pace_s + (outcome.seconds - pace_s) / 10
        self.outcomes[index] = outcome
        self.each(outcome)
        self.report(len(self.outcomes), len(self.items), outcome.name)
