"""How far a run is, and what learning rate that means: by steps, or by the clock.

By the clock the rate has gone all its way exactly at the deadline, however fast the machine is: a
schedule that falls to zero always ends annealed, one that falls by steps takes all of them. A
resumed run goes on with the seconds it had left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from ..core.plan import Schedule


@dataclass
class Clock:
    """``spent_s`` of earlier runs and the seconds since this one began; ``deadline`` is a
    ``time.monotonic`` instant or None.

    ``origin_s``: seconds that had been spent when the schedule began; an extension begins it anew.
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
        """Seconds that this training may take in all, earlier runs included; infinite where epochs
        end it.
        """
        if self.deadline is not None:
            return self.spent_s + self.deadline - self._began
        return float("inf") if self.schedule.budget_s is None else self.schedule.budget_s

    def progress(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        if self.schedule.epochs is not None:
            return min(1.0, step / (self.schedule.epochs * self.schedule.steps_per_epoch))
        return min(1.0, (self.elapsed_s - self.origin_s) / max(self.total_s - self.origin_s, 1e-9))


def rate(schedule: Schedule, progress: float) -> float:
    """Factor of the learning rate at ``progress`` in 0..1: a linear warm-up, then the schedule's
    shape.

    ``cosine`` (Loshchilov 2017) and ``poly`` (power 0.9, Chen 2018) fall to 0 at the end;
    ``constant`` stays 1; ``step`` is multiplied by ``drop_to`` each time another ``drop_every`` of
    the run, counted from its very start, has passed.
    """
    if progress < schedule.warmup:
        return max(0.02, progress / schedule.warmup)
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "step":
        drops = int(progress / schedule.drop_every + 1e-9)  # 0.3 / 0.1 is a hair below 3
        return float(schedule.drop_to**drops)
    rest = (progress - schedule.warmup) / max(1 - schedule.warmup, 1e-9)
    return (
        float(0.5 * (1 + np.cos(np.pi * rest)))
        if schedule.kind == "cosine"
        else float((1 - rest) ** 0.9)
    )
