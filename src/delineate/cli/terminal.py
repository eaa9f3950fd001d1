"""What a command prints: results on standard output; comments, warnings and progress on standard
error.

``set_up`` applies the global options: ``--quiet`` prints only results and errors, ``--verbose``
also prints the debug lines that the package's modules send to their loggers, and ``--log FILE``
appends everything with its time to a file, printed or not. With ``--log-format json`` the log is
one JSON object per line (``JsonLines``); without a file it replaces what is printed on standard
error. Colours follow ``NO_COLOR`` and ``FORCE_COLOR`` (rich reads both).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from ..commands.options import LOG_FORMATS
from ..core.errors import OutputError, UsageError
from ..core.progress import Progress

FORM = "%(asctime)s %(levelname)s %(message)s"  # of a log in text
PIPED_WIDTH = 100  # columns of a table that no terminal shows
STAGE_WIDTH = 24  # columns of the name of a stage in front of its bar
_REST_WIDTH = 26  # columns of a bar, the time left and the spaces around them
_package = logging.getLogger("delineate")  # the parent of the loggers of all modules
_package.addHandler(logging.NullHandler())  # without it, logging prints errors a second time
_log = logging.getLogger("delineate.cli")

_console: Any = None  # of the progress bar that is running; None without one
_quiet = False
_silent = False  # standard error has the lines of the log
_handlers: list[logging.Handler] = []  # of this call's global options


# ---- global options ----


def set_up(
    *,
    quiet: bool = False,
    verbose: bool = False,
    log: Path | None = None,
    log_format: str = "text",
) -> None:
    """Apply the global options of one call; ``reset`` undoes it.

    Raises:
        UsageError: both quiet and verbose, or an unknown format.
        OutputError: the log file cannot be written.
    """
    global _quiet, _silent
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    if log_format not in LOG_FORMATS:
        raise UsageError(f"--log-format must be text or json, found {log_format!r}")
    as_json = log_format == "json"
    reset()
    _quiet, _silent = quiet, as_json and log is None
    form = JsonLines() if as_json else logging.Formatter(FORM)
    if _silent:
        printed = _Lines()
        printed.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
        _add_handler(printed, form)
    elif verbose:
        _add_handler(_DebugLines(), logging.Formatter("debug: %(message)s"))
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(
                log, mode="a", encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror})", path=log) from error
        _add_handler(handler, form)


def reset() -> None:
    """Close the log file and print as without global options."""
    global _quiet, _silent
    _quiet = _silent = False
    _package.setLevel(logging.NOTSET)
    while _handlers:
        handler = _handlers.pop()
        _package.removeHandler(handler)
        handler.close()


@contextmanager
def another_call() -> Iterator[None]:
    """Inside the block a call with global options of its own may run; those of this call are as
    before at its end.
    """
    global _quiet, _silent
    before, handlers, level = (_quiet, _silent), _handlers[:], _package.level
    for handler in handlers:
        _package.removeHandler(handler)
    _handlers.clear()
    try:
        yield
    finally:
        reset()
        _quiet, _silent = before
        _handlers.extend(handlers)
        for handler in handlers:
            _package.addHandler(handler)
        _package.setLevel(level)


def log_file() -> Path | None:
    """The file of ``--log``; None without it."""
    files = (h for h in _handlers if isinstance(h, logging.FileHandler))
    return next((Path(handler.baseFilename) for handler in files), None)


def is_verbose() -> bool:
    """Whether debug lines are printed."""
    return any(isinstance(handler, _DebugLines) for handler in _handlers)


def _add_handler(handler: logging.Handler, form: logging.Formatter) -> None:
    handler.setFormatter(form)
    _package.addHandler(handler)
    _handlers.append(handler)
    _package.setLevel(logging.DEBUG)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, event, message, and the fields that its
    caller states (case, stage, state, seconds, ...). Events are case, progress, result, and
    otherwise the level. Nothing is added that names the machine, the user or the process.
    """

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when.replace("+00:00", "Z"), "level": level, "event": level}
        line |= {"message": record.getMessage()} | getattr(record, "fields", {})
        return json.dumps(line, ensure_ascii=False, default=str)


class _Lines(logging.Handler):
    """Prints the log on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(self.format(record), err=True)


class _DebugLines(logging.Handler):
    """Prints the debug lines of the package; everything else is printed by ``say`` and others."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno <= logging.DEBUG:
            _print(self.format(record))


# ---- lines ----


def say(text: str) -> None:
    """Print a comment on standard error, above the progress bar if there is one."""
    _log.info(text)
    if not _quiet:
        _print(text)


def fail(text: str, case: str | None = None) -> None:
    """Print an error on standard error, whatever the global options; ``case`` is for the log."""
    _log.error(text, extra={"fields": {} if case is None else {"case": case}})
    _print(text)


def debug(text: str) -> None:
    """Print a line only with ``--verbose``."""
    _log.debug(text)


def _print(text: str) -> None:
    if _silent:
        return
    if _console is not None:
        _console.print(text, highlight=False, markup=False)
    else:
        typer.echo(text, err=True)


def ask(question: str) -> bool:
    """The answer to a question on a terminal; no elsewhere."""
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def end_with(failures: Sequence[str], unusable: int = 0) -> None:
    """List failed cases; exit code ``unusable`` if it is given, else 1 if there are failures."""
    for text in failures:
        fail(f"failed: {text}")
    if failures or unusable:
        raise typer.Exit(unusable or 1)


# ---- results ----


def result(text: str) -> None:
    """Print a line of the result on standard output."""
    _log.info(text, extra={"fields": {"event": "result"}})
    typer.echo(text)


def table_width() -> int:
    """Columns of text that a table may have: those of the terminal, or of the variable COLUMNS;
    ``PIPED_WIDTH`` elsewhere.
    """
    wide = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if wide else PIPED_WIDTH


def show(renderable: Any) -> None:
    """Print a table: text as it is, one of rich at most as wide as ``table_width``."""
    if isinstance(renderable, str):
        sys.stdout.write(f"{renderable}\n")
        _log.info("\n%s", renderable)
        return
    from rich.console import Console

    def text(**how: Any) -> str:
        console = Console(**how)
        with console.capture() as printed:
            console.print(renderable)
        return printed.get()

    # Not printed by rich, which would end the process if the reader of a pipe has ended.
    sys.stdout.write(text(width=table_width()))
    if log_file() is not None:
        plain = text(width=PIPED_WIDTH, no_color=True, force_terminal=False)
        _log.info("\n%s", plain.rstrip())


def show_json(data: Any) -> None:
    """Print JSON: text as it is, other data indented; NaN becomes null."""
    if not isinstance(data, str):
        from ..core.scores import without_nan

        data = json.dumps(without_nan(data), indent=1, default=str)
    result(data)


def show_facts(facts: dict[str, Any], indent: int = 0) -> None:
    """Print plain data for people: one fact per line, nested facts indented."""
    for key, value in facts.items():
        name = f"{'  ' * indent}{str(key).replace('_', ' ')}"
        if isinstance(value, dict) and value:
            result(f"{name}:")
            show_facts(value, indent + 1)
        elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
            for number, one in enumerate(value, 1):
                result(f"{name} {number}:")
                show_facts(one if isinstance(one, dict) else {"": one}, indent + 1)
        elif isinstance(value, list | tuple) and value:
            result(f"{name}: {', '.join(map(str, value))}")
        elif value not in (None, "", {}, [], ()):
            result(f"{name}: {value}")


# ---- progress ----


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A ``Progress`` that draws a bar on a terminal, and prints every tenth elsewhere; the log file
    has every tenth too.
    """
    global _console
    if _quiet or _silent or not sys.stderr.isatty():
        yield _tenths(printed=not _quiet)
        return
    import rich.progress as bars
    from rich.console import Console

    _console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None),
        bars.TextColumn("{task.fields[note]}"),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.fields[time]}"),
    )
    logged = _tenths(printed=False)
    with bars.Progress(*columns, console=_console, expand=True) as bar:
        tasks: dict[str, bars.TaskID] = {}
        notes: dict[str, str] = {}

        def report(stage: str, done: float, total: float, note: str) -> None:
            logged(stage, done, total, note)
            notes[stage] = str(note)
            # Every note is cut again, because a longer stage leaves less room for all of them.
            longest = max(min(len(one), STAGE_WIDTH) for one in notes)
            short = {
                one: _shortened(text, _console.width - _REST_WIDTH - longest)
                for one, text in notes.items()
            }
            for one, task in tasks.items():
                bar.update(task, note=short[one])
            if stage not in tasks:
                name = _shortened(stage, STAGE_WIDTH)
                tasks[stage] = bar.add_task(name, total=total, note=short[stage], time="left")
            time = "left" if done < total else ""
            bar.update(tasks[stage], completed=done, total=total, time=time)

        try:
            yield report
        finally:
            _console = None


def _shortened(text: str, most: int) -> str:
    """The text with at most ``most`` characters, the last one "…" if it is cut.

    >>> _shortened("validation", 6)
    'valid…'
    """
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"


def _tenths(printed: bool) -> Progress:
    """A ``Progress`` that writes a line at the start and after every tenth of a stage, to the log
    and, if it is ``printed``, to standard error.
    """
    shown: dict[str, int] = {}

    def report(stage: str, done: float, total: float, note: str) -> None:
        tenth = int(10 * done / total) if total else 10
        if tenth > shown.get(stage, -1):
            shown[stage] = tenth
            amount = f"{done:g} of {total:g}" if total > 1 else f"{100 * done:.0f} %"
            text = f"{stage}: {amount} {note}".rstrip()
            fields = {"event": "progress", "stage": stage, "done": done, "total": total}
            _log.info(text, extra={"fields": fields})
            if printed:
                _print(text)

    return report
