"""The number of threads of a training step on a CPU that other programs use too.

The threads of a convolution wait for each other, so on two cores next to one busy program a step
with two threads takes 1.4 s and with one thread 0.6 s; on the idle machine it is 0.3 s with either
(16 base channels, patches of 48 voxels). Which number is best changes with the load, so it is
measured on the steps themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

TRIAL = 3  # steps with each number of threads, of which the first is not counted
AGAIN_S = 60.0  # until the next trial
SLOWER = 1.5  # a step this much slower than in the trial: the load has changed


class ThreadChoice:
    """Tries several numbers of threads on the steps of a training, and uses the fastest.

    Args:
        counts: the numbers to try; with a single one nothing is done.
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
        use: Callable[[int], None],
        now: Callable[[], float] = time.monotonic,
    ):
        self._counts, self._use, self._now = tuple(counts), use, now
        self._seconds: dict[int, list[float]] = {}  # of the current trial
        self._trying, self._expected_s, self._decided = 0, float("inf"), 0.0
        self._last = now()
        if len(self._counts) > 1:
            self._try(0)

    def step_ended(self) -> None:
        """To be called after every step."""
        if len(self._counts) < 2:
            return
        now = self._now()
        seconds, self._last = now - self._last, now
        if self._trying < len(self._counts):
            mine = self._seconds.setdefault(self._counts[self._trying], [])
            mine.append(seconds)
            if len(mine) == TRIAL:
                self._try(self._trying + 1)
        elif seconds > SLOWER * self._expected_s or now - self._decided > AGAIN_S:
            self._seconds = {}
            self._try(0)

    def paused(self) -> None:
        """To be called after other work than steps, such as validation, which is not counted."""
        self._last = self._now()

    def _try(self, index: int) -> None:
        """Begin with the next number; after the last one, use the fastest."""
        self._trying = index
        if index < len(self._counts):
            self._use(self._counts[index])
            return
        fastest = min(self._counts, key=lambda count: min(self._seconds[count][1:]))
        # The slower of its steps, so that ordinary variation begins no new trial.
        self._expected_s = max(self._seconds[fastest][1:])
        self._decided = self._now()
        self._use(fastest)


def use_fastest(measure: Callable[[], float], use: Callable[[int], None], most: int) -> None:
    """Use the number of threads, at most ``most``, with which a step takes the fewest seconds."""
    seconds = {}
    for count in counts_to_try(most):
        use(count)
        seconds[count] = measure()
    use(min(seconds, key=lambda count: seconds[count]))


def counts_to_try(most: int) -> list[int]:
    """All threads, one fewer, and half of them.

    >>> counts_to_try(16), counts_to_try(2), counts_to_try(1)
    ([16, 15, 8], [2, 1], [1])
    """
    return sorted({most, max(1, most - 1), max(1, most // 2)}, reverse=True)
