"""Progress reports of long work to its caller: one protocol for progress, one type for messages.

Every function that takes long has the parameter ``progress=`` and names its own stage, so that a
command passes the same object to all of its stages. This module knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Say = Callable[[str], None]  # called with one line of text for the user


class Progress(Protocol):
    """Called whenever a part of the work is done.

    ``stage`` names the current work ("check"), ``done`` of ``total`` is in any unit, and ``note``
    names the last finished item (a case, a loss). Calls of different stages may alternate.
    """

    def __call__(self, stage: str, done: float, total: float, note: str, /) -> None: ...


def silent(stage: str, done: float, total: float, note: str, /) -> None:
    """A ``Progress`` that reports nothing."""


def unsaid(text: str) -> None:
    """A ``Say`` that prints nothing."""


def under(stage: str, progress: Progress) -> Progress:
    """A ``Progress`` that reports everything under one stage.

    >>> under("int8", lambda *call: print(call))("predict", 1, 2, "liver_01")
    ('int8', 1, 2, 'liver_01')
    """

    def report(_: str, done: float, total: float, note: str, /) -> None:
        progress(stage, done, total, note)

    return report
