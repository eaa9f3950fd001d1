"""The figures of ``log.jsonl`` as TensorBoard event files, one per network (``--tensorboard``).

``log.jsonl`` is always written, and the report reads it; event files are never read back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOT_FIGURES = ("step", "epoch", "progress")  # the position of a line, not its figures


class EventFile:
    """The log lines of one network as an event file in ``folder``. A run that continues from a
    checkpoint replaces later lines.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def add(self, line: dict[str, Any]) -> None:
        """Add one line of the log at its step; undefined figures are left out."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=line["step"])
        for name, value in figures(line):
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()


def figures(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(tag, value) of every finite figure of a log line; the tag of a structure's figure is
    ``val_dice/liver``.
    """
    for key, value in line.items():
        if isinstance(value, dict):
            yield from figures(value, f"{prefix}{key}/")
        elif (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and key not in NOT_FIGURES
        ):
            yield f"{prefix}{key}", float(value)
