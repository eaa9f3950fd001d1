"""How a call of the command line ends: one sentence for every error, and the exit code.

0 done; 1 some cases of a batch failed; 2 unusable input or usage; 3 a model that cannot be used, or
a training whose verdict is "not usable"; 70 an error that nobody foresaw, with its traceback in a
file; 128 + N stopped by signal N, as shells report it (130 is Ctrl-C).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.core

from ..core.errors import BundleError, DelineateError, TrainingError
from ..execution.stopping import StopSignal, last_raised, stoppable
from . import terminal

UNUSABLE, UNUSABLE_MODEL, UNFORESEEN = 2, 3, 70
SIGPIPE = 13  # Windows lacks the name


class Commands(typer.core.TyperGroup):
    """The commands; Ctrl-C and a closed pipe leave them as a ``StopSignal``, because typer would
    end the process itself.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StopSignal(signal.SIGINT) from None
        except BrokenPipeError:
            raise StopSignal(SIGPIPE) from None


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Run the block, and end the process with the exit code of the error that it raises."""
    last_raised()
    try:
        with stoppable(terminal.say):
            yield from _flushed()
    except DelineateError as error:
        terminal.fail(f"error: {error}", error.case)
        of_model = isinstance(error, BundleError | TrainingError)
        sys.exit(UNUSABLE_MODEL if of_model else UNUSABLE)
    except StopSignal as stop:
        if stop.number == SIGPIPE:  # what is left in the buffer has no reader
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            terminal.fail("stopped; finished work is kept")
        sys.exit(128 + stop.number)
    except Exception as error:
        if (number := last_raised()) is not None:
            terminal.fail("stopped; finished work is kept")
            sys.exit(128 + number)
        terminal.fail(_unforeseen(error))
        sys.exit(UNFORESEEN)
    finally:
        terminal.reset()


def _flushed() -> Iterator[None]:
    """Print the last output before the end, while a closed pipe can still be handled."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise StopSignal(SIGPIPE) from None


def _unforeseen(error: Exception) -> str:
    """A sentence about an error that nobody foresaw; its traceback is printed with --verbose, else
    it is in the log file, or in a new file.
    """
    text = "".join(traceback.format_exception(error))
    terminal.debug(text)
    if (log := terminal.log_file()) is not None:
        place = f"is in {log}"
    elif terminal.is_verbose():
        place = "is above"
    else:
        place = f"is in {_written(text)}"
    kind = f"{type(error).__name__}: {error}".strip(": ")
    return f"error: unforeseen {kind}; this is a fault of delineate: its traceback {place}"


def _written(text: str) -> Path:
    handle, name = tempfile.mkstemp(prefix="delineate-", suffix=".log", text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
