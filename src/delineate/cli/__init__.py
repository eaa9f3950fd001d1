"""The command line: ``delineate COMMAND``; each command is one function in ``command_line``.

``main`` is the program. It loads the commands itself, once signals are handled.
"""

TYPE_CHECKING = False  # type checkers read it as true; to import ``typing`` needs 20 ms
if TYPE_CHECKING:
    from .command_line import app
else:

    def __getattr__(name):
        if name != "app":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .command_line import app

        return app


def main() -> None:
    """Entry point of the process: runs the app; an error becomes one sentence and an exit code, and
    so does a signal, also while modules are loaded and while Python ends.
    """
    from ..execution.stopping import leave_at_once

    leave_at_once()
    from . import command_line

    command_line.main()


__all__ = ["app", "main"]
