"""Progress of a run, and the learning rate at that progress: by steps, or by the clock.

By the clock, the schedule is complete exactly at the deadline, however fast the machine is: a
learning rate that falls to zero always reaches zero, and one that falls in steps takes all of them.
A resumed run continues with the seconds it had left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from ..core.plan import Schedule


@dataclass
class Clock:
    """The training time: ``spent_s`` of earlier runs plus the seconds since this run began;
    ``deadline`` is a ``time.monotonic`` instant or None.

    ``origin_s``: seconds that had been spent when the schedule began; an extension starts the
    schedule again.
    """

    schedule: Schedule
    spent_s: float = 0.0
    deadline: float | None = None
    origin_s: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, all runs together."""
        return self.spent_s + time.monotonic() - self._began

    @property
    def total_s(self) -> float:
        """Total seconds allowed for this training, including earlier runs; infinite if epochs end
        it.
        """
        if self.deadline is not None:
            return self.spent_s + self.deadline - self._began
        return float("inf") if self.schedule.budget_s is None else self.schedule.budget_s

    def progress(self, step: int) -> float:
        """Progress after ``step`` steps: 0 at the start, 1 at the end."""
        if self.schedule.epochs is not None:
            return min(1.0, step / (self.schedule.epochs * self.schedule.steps_per_epoch))
        time = (self.elapsed_s - self.origin_s) / max(self.total_s - self.origin_s, 1e-9)
        # An extension has its own time alone: the steps were done before.
        by_steps = self.schedule.steps is not None and not self.origin_s
        return min(1.0, max(time, step / (self.schedule.steps or 1) if by_steps else 0.0))


def rate(schedule: Schedule, progress: float) -> float:
    """Factor of the learning rate at ``progress`` in 0..1: a linear warm-up, then the shape of the
    schedule.

    ``cosine`` (Loshchilov 2017) and ``poly`` (power 0.9, Chen 2018) fall to 0 at the end;
    ``constant`` stays 1; ``step`` is multiplied by ``drop_to`` after every fraction ``drop_every``
    of the run, counted from the start of the warm-up.
    """
    # The warm-up starts at 2 %: a step with learning rate 0 would train nothing.
    if progress < schedule.warmup:
        return max(0.02, progress / schedule.warmup)
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "step":
        drops = int(progress / schedule.drop_every + 1e-9)  # 0.3 / 0.1 is slightly below 3
        return float(schedule.drop_to**drops)
    # Progress after the warm-up, from 0 to 1.
    rest = (progress - schedule.warmup) / max(1 - schedule.warmup, 1e-9)
    return (
        float(0.5 * (1 + np.cos(np.pi * rest)))
        if schedule.kind == "cosine"
        else float((1 - rest) ** 0.9)
    )
