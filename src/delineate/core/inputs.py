"""What may be opened: regular files. A named pipe, a socket or a device would block a reader or
never end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import InputError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_kind(path: str | Path) -> str:
    """The kind of a special file ("a named pipe", "a socket", "a device"); "" for a regular file, a
    folder or a path that does not exist.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    return next((words for test, words in _KINDS if test(mode)), "")


def refuse_special(path: str | Path) -> None:
    """Refuse a special file before it is opened.

    Raises:
        InputError: ``path`` is a named pipe, a socket or a device.
    """
    if kind := special_kind(path):
        raise InputError(f"is {kind}; only regular files are opened", path=path)
