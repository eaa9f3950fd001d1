"""The time of a training run over all its starts, kept in ``clock.json`` of its folder, so that a
budget includes the time before a kill.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...core import atomic
from ...core.errors import UsageError
from ...core.inputs import read_json_if_any


@dataclass(frozen=True)
class RunClock:
    """The budget of a run and what is left of it.

    Args:
        path: ``clock.json``.
        budget_s: seconds for the whole run; None without a budget.
        spent_s: seconds of work in earlier starts.
        extensions: seconds that the run was given after it had finished, one entry each time.
        began: ``time.monotonic()`` of this start.
    """

    path: Path
    budget_s: float | None
    spent_s: float = 0.0
    extensions: tuple[float, ...] = ()
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def load(cls, path: Path, budget_s: float | None) -> RunClock:
        """The clock as the last start left it; a new one if there is no file."""
        kept = read_json_if_any(path) or {}
        return cls(
            path,
            budget_s,
            float(kept.get("spent_s", 0.0)),
            tuple(float(s) for s in kept.get("extensions_s", [])),
        )

    @property
    def elapsed_s(self) -> float:
        """Seconds of work in all starts together."""
        return self.spent_s + time.monotonic() - self.began

    def remaining_s(self) -> float:
        """Seconds of the budget that are left; infinite without a budget."""
        if self.budget_s is None:
            return float("inf")
        return self.budget_s + sum(self.extensions) - self.elapsed_s

    @property
    def stretch_s(self) -> float | None:
        """The budget, or the last extension; None without a budget."""
        return self.extensions[-1] if self.extensions else self.budget_s

    def save(self) -> None:
        """Record the time spent, for a start after a kill."""
        atomic.write_json(
            self.path,
            {"spent_s": round(self.elapsed_s, 1), "extensions_s": list(self.extensions)},
        )

    def extended(self, seconds: float, finished: bool) -> RunClock:
        """The clock with another extension; itself if the run was killed during an extension of
        the same length, which then continues.

        Raises:
            UsageError: the run has not finished, or has no budget.
        """
        folder = self.path.parent
        if self.budget_s is None:
            raise UsageError(
                "--extend gives more time to a run with a --budget; this one goes by epochs",
                path=folder,
            )
        if finished:
            # Time left over from the budget is not given twice.
            spent_s = max(self.spent_s, self.budget_s + sum(self.extensions))
            return replace(self, spent_s=spent_s, extensions=(*self.extensions, seconds))
        if self.extensions and self.extensions[-1] == seconds:
            return self
        raise UsageError(
            "there is no finished run to extend here; run the command without --extend first",
            path=folder,
        )
