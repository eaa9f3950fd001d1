"""The number of threads of a training step on a CPU that other programs use too.

The threads of a convolution wait for each other, so on two cores next to one busy program a step
with two threads takes 1.4 s and with one thread 0.6 s; on the idle machine it is 0.3 s with either
(16 base channels, patches of 48 voxels). Which number is best changes with the load, so it is
measured on the steps themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

TRIAL = 3  # steps in each way, of which the first is not counted
AGAIN_S = 60.0  # until the next trial; twice as long after each that changed nothing
LONGEST_S = 480.0
SLOWER = 1.5  # a way whose step is this much slower than another's is not tried further
STRANGE = 3  # steps in a row that are this much slower or faster: the load has changed


class WayChoice(Generic[T]):
    """Tries several ways to compute the steps of a training, and uses the fastest.

    Args:
        ways: those to try; with a single one nothing is measured.
        use: begins to use a way.
        now: seconds of a clock.

    >>> used = []
    >>> choice = WayChoice(["two threads", "one thread"], used.append)
    >>> for _ in range(2 * TRIAL):
    ...     choice.step_ended()
    >>> used[:2], len(used)
    (['two threads', 'one thread'], 3)
    """

    def __init__(
        self,
        ways: Sequence[T],
        use: Callable[[T], object],
        now: Callable[[], float] = time.monotonic,
    ):
        self._ways, self._use, self._now = list(ways), use, now
        self._seconds: dict[T, list[float]] = {}  # of the current trial
        self._trying, self._expected_s, self._decided = 0, float("inf"), 0.0
        self._wait_s, self._strange = AGAIN_S, 0
        self._last = now()
        if len(self._ways) > 1:
            self._try(0)
        else:
            use(self._ways[0])

    def step_ended(self) -> None:
        """To be called after every step."""
        if len(self._ways) < 2:
            return
        now = self._now()
        seconds, self._last = now - self._last, now
        if self._trying < len(self._ways):
            mine = self._seconds.setdefault(self._ways[self._trying], [])
            mine.append(seconds)
            # The first step in a way starts threads and prepares operations, so it decides nothing.
            if len(mine) == TRIAL or (len(mine) > 1 and seconds > SLOWER * self._fastest_s()):
                self._try(self._trying + 1)
            return
        usual = self._expected_s / SLOWER < seconds < SLOWER * self._expected_s
        self._strange = 0 if usual else self._strange + 1
        if self._strange == STRANGE or now - self._decided > self._wait_s:
            if self._strange == STRANGE:
                self._wait_s = AGAIN_S
            self._seconds = {}
            self._try(0)

    def paused(self) -> None:
        """To be called after other work than steps, such as validation, which is not counted."""
        self._last = self._now()

    def _fastest_s(self) -> float:
        """The fastest counted step of the ways tried before this one; infinite before the first."""
        done = self._ways[: self._trying]
        return min((min(_counted(self._seconds[way])) for way in done), default=float("inf"))

    def _try(self, index: int) -> None:
        """Begin with the next way; after the last one, use the fastest."""
        self._trying, self._strange = index, 0
        if index < len(self._ways):
            self._use(self._ways[index])
            return
        fastest = min(self._ways, key=lambda way: min(_counted(self._seconds[way])))
        # The slower of its steps, so that ordinary variation begins no new trial.
        self._expected_s = max(_counted(self._seconds[fastest]))
        self._decided = self._now()
        self._wait_s = min(LONGEST_S, 2 * self._wait_s) if fastest == self._ways[0] else AGAIN_S
        # The next trial begins with it, so that it measures the others against it.
        self._ways.remove(fastest)
        self._ways.insert(0, fastest)
        self._use(fastest)


def _counted(seconds: Sequence[float]) -> Sequence[float]:
    """The steps that count: all but the first, which also starts threads; that if it is alone."""
    return seconds[1:] or seconds


@contextmanager
def fastest(measure: Callable[[], float], use: Callable[[int], None], most: int) -> Iterator[None]:
    """Use the number of threads, at most ``most``, with which a step takes the fewest seconds;
    ``most`` again at the end, because the load changes.
    """
    seconds = {}
    for count in counts_to_try(most):
        use(count)
        seconds[count] = measure()
    use(min(seconds, key=lambda count: seconds[count]))
    try:
        yield
    finally:
        use(most)


def counts_to_try(most: int) -> list[int]:
    """All threads, one fewer, and half of them.

    >>> counts_to_try(16), counts_to_try(2), counts_to_try(1)
    ([16, 15, 8], [2, 1], [1])
    """
    return sorted({most, max(1, most - 1), max(1, most // 2)}, reverse=True)
