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

TRIAL = 3  # steps with each number, of which the first is not counted
AGAIN_S = 60.0  # until the next trial; twice as long after each that changed nothing
LONGEST_S = 480.0
SLOWER = 1.5  # a number whose step is this much slower than another's is not tried further
STRANGE = 3  # steps in a row that are this much slower or faster: the load has changed


class ThreadChoice:
    """Tries several numbers of threads on the steps of a training, and uses the fastest.

    Args:
        counts: the numbers to try; with a single one nothing is measured.
        use: sets the number of threads.
        now: seconds of a clock.

    >>> used = []
    >>> choice = ThreadChoice([2, 1], used.append)
    >>> for _ in range(2 * TRIAL):
    ...     choice.step_ended()
    >>> used[:2], len(used)
    ([2, 1], 3)
    """

    def __init__(
        self,
        counts: Sequence[int],
        use: Callable[[int], object],
        now: Callable[[], float] = time.monotonic,
    ):
        self._counts, self._use, self._now = list(counts), use, now
        self._seconds: dict[int, list[float]] = {}  # of the current trial
        self._trying, self._expected_s, self._decided = 0, float("inf"), 0.0
        self._wait_s, self._strange = AGAIN_S, 0
        self._last = now()
        if len(self._counts) > 1:
            self._try(0)
        else:
            use(self._counts[0])

    def step_ended(self) -> None:
        """To be called after every step."""
        if len(self._counts) < 2:
            return
        now = self._now()
        seconds, self._last = now - self._last, now
        if self._trying < len(self._counts):
            mine = self._seconds.setdefault(self._counts[self._trying], [])
            mine.append(seconds)
            # The first step starts threads and prepares operations, so it decides nothing.
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
        """The fastest counted step of the numbers tried before this one; infinite for the first."""
        done = self._counts[: self._trying]
        return min((min(_measured(self._seconds[count])) for count in done), default=float("inf"))

    def _try(self, index: int) -> None:
        """Begin with the next number; after the last one, use the fastest."""
        self._trying, self._strange = index, 0
        if index < len(self._counts):
            self._use(self._counts[index])
            return
        fastest = min(self._counts, key=lambda count: min(_measured(self._seconds[count])))
        # The slower of its steps, so that ordinary variation begins no new trial.
        self._expected_s = max(_measured(self._seconds[fastest]))
        self._decided = self._now()
        self._wait_s = min(LONGEST_S, 2 * self._wait_s) if fastest == self._counts[0] else AGAIN_S
        # The next trial begins with it, so that it measures the others against it.
        self._counts.remove(fastest)
        self._counts.insert(0, fastest)
        self._use(fastest)


def _measured(seconds: Sequence[float]) -> Sequence[float]:
    """The steps that count: all but the first, which also starts threads."""
    return seconds[1:]


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
