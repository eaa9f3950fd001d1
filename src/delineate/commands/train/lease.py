"""Which process trains a run: ``running.json`` in the run's folder while it does.

A process that was killed leaves the file; it then counts as stopped, because no process with this
number and start time exists.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from ...core import atomic

NAME = "running.json"
# A run of another machine counts as running if its clock was saved this recently.
RECENT_S = 900.0
SAME_START_S = 2.0  # start times of one process may differ by rounding


@contextlib.contextmanager
def leased(run: Path) -> Iterator[None]:
    """State that this process trains the run in the folder ``run`` while the block runs."""
    import psutil

    process = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    atomic.write_text(run / NAME, json.dumps(process | {"host": platform.node()}))
    try:
        yield
    finally:
        (run / NAME).unlink(missing_ok=True)


def is_running(run: Path) -> bool:
    """Whether a process trains the run in the folder ``run`` now."""
    import psutil

    try:
        holder = json.loads((run / NAME).read_text(encoding="utf-8"))
        if holder["host"] != platform.node():
            return time.time() - (run / "clock.json").stat().st_mtime < RECENT_S
        started = psutil.Process(int(holder["pid"])).create_time()
        return bool(abs(started - float(holder["started"])) < SAME_START_S)
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False
