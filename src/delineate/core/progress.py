"""How long work reports to its caller: one protocol for progress, one type for messages.

Every function that takes a while has ``progress=`` and names its own stage, so that a command
passes the same object to all of its stations. Knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Say = Callable[[str], None]  # one line of text for the person who waits


class Progress(Protocol):
    """Called whenever a part of the work is done.

    ``stage`` is what is being done ("check"), ``done`` of ``total`` in any unit, ``note`` what was
    done last (a case, a loss). Calls of different stages may alternate.
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
