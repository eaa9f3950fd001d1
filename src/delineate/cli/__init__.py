"""The command line: ``delineate COMMAND``; each command is one function in ``command_line``.

``main`` is the program. It loads the commands itself, once signals are handled, and if no resident
engine does the call (``served``).
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False  # type checkers read it as true; to import ``typing`` needs 20 ms
if TYPE_CHECKING:
    from typing import NoReturn

    from .command_line import app
else:

    def __getattr__(name):
        if name != "app":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .command_line import app

        return app


GARBAGE_AFTER = 10_000  # objects


def main() -> None:
    """Entry point of the process: runs the app; an error becomes one sentence and an exit code, and
    so does a signal, also while modules are loaded and while Python ends.
    """
    from ..execution.stopping import leave_at_once

    leave_at_once()
    from .served import served

    if (done := served(sys.argv[1:])) is not None:
        _leave(done)
    # Modules make many objects, and none of them is garbage: to look for it after each 700, as
    # Python does, takes 5 % of a short call.
    gc.set_threshold(GARBAGE_AFTER)
    # Else pydantic searches all installed packages for plugins, which are for servers' logs.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from . import command_line

    code: object = 0
    try:
        command_line.main()
    except SystemExit as end:
        code = end.code
    if not isinstance(code, int):
        raise SystemExit(code)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process once all that Python registered has run. The files are complete and the
    output is printed: what the libraries in C do with their threads and objects while Python ends
    could only hang or crash, and it takes time.
    """
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


__all__ = ["app", "main"]
