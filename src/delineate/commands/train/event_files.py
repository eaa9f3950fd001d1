"""A training's figures for TensorBoard, where somebody asked for it: the same that stand in
``log.jsonl``, one event file a network.

``log.jsonl`` is always written and is what the report reads; nothing here is read back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import UsageError

NOT_FIGURES = ("step", "epoch", "progress")  # where a line stands, not what it says


def refuse_unless_installed() -> None:
    """Before anything begins.

    Raises:
        UsageError: the package tensorboard is not there.
    """
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'delineate[tensorboard]'; "
            "log.jsonl is written without it"
        )


class EventFile:
    """What one network's log lines say, in an event file of ``folder``. A run that goes on replaces
    what is newer than where it goes on from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def add(self, line: dict[str, Any]) -> None:
        """Add one line of the log, at its step; what is undefined is left out."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=line["step"])
        for name, value in figures(line):
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()


def figures(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(tag, value) of every finite figure of a log line; a structure's stands below its measure, as
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
