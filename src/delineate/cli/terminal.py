"""What a command shows: a progress bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from ..core.progress import Progress

_console: Any = None  # of the progress bar that is running; None without one


def say(text: str) -> None:
    """Print one line, above the progress bar if there is one."""
    if _console is not None:
        _console.print(text, highlight=False, markup=False)
    else:
        typer.echo(text)


def show(renderable: Any) -> None:
    """Print a table."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(renderable)


def show_json(data: Any) -> None:
    """Print JSON: text as it is, other data indented; NaN becomes null."""
    if not isinstance(data, str):
        import json

        from ..core.scores import without_nan

        data = json.dumps(without_nan(data), indent=1, default=str)
    typer.echo(data)


def show_facts(facts: dict[str, Any], indent: int = 0) -> None:
    """Print plain data for people: one fact per line, nested facts indented."""
    for key, value in facts.items():
        name = f"{'  ' * indent}{str(key).replace('_', ' ')}"
        if isinstance(value, dict) and value:
            typer.echo(f"{name}:")
            show_facts(value, indent + 1)
        elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
            for number, one in enumerate(value, 1):
                typer.echo(f"{name} {number}:")
                show_facts(one if isinstance(one, dict) else {"": one}, indent + 1)
        elif isinstance(value, list | tuple):
            typer.echo(f"{name}: {', '.join(map(str, value))}")
        elif value not in (None, "", {}):
            typer.echo(f"{name}: {value}")


def end_with(failures: Sequence[str]) -> None:
    """List failed cases; exit code 1 if there are any."""
    if failures:
        for text in failures:
            typer.echo(f"failed: {text}", err=True)
        raise typer.Exit(1)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A ``Progress`` that draws a bar on a terminal, and prints every tenth elsewhere."""
    global _console
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    import rich.progress as bars
    from rich.console import Console

    _console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description:12}"),
        bars.BarColumn(),
        bars.TextColumn("{task.fields[note]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=_console) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def report(stage: str, done: float, total: float, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, note=note)
            bar.update(tasks[stage], completed=done, total=total, note=str(note)[:40])

        try:
            yield report
        finally:
            _console = None


def _plain_progress() -> Progress:
    shown: dict[str, int] = {}

    def report(stage: str, done: float, total: float, note: str) -> None:
        tenth = int(10 * done / total) if total else 10
        if tenth > shown.get(stage, -1):
            shown[stage] = tenth
            amount = f"{done:g} of {total:g}" if total > 1 else f"{100 * done:.0f} %"
            print(f"{stage}: {amount} {note}".rstrip(), file=sys.stderr, flush=True)

    return report
