"""The scores of an evaluation as a table for the terminal.

The module formats numbers that ``evaluation.scoring`` computed.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.words import decimals, mean_distance, spelled
from ..metrics.overlap import MEASURES
from ..metrics.selection import GROUPS

if TYPE_CHECKING:
    from rich.console import Group

    from ..evaluation.scoring import EvaluationResult

WIDTH = 100  # columns of text; more columns of the table continue in a second block
NAME_WIDTH = 30  # a longer name of a structure continues on the next line
# Columns without --columns, as far as they were measured; the first of each optional group too.
USUAL = ("n", "empty", "dice", "min", "precision", "recall", "hd95", "surface_dice")
# Columns that are no metric: name -> (heading, key of the summary of the Dice).
OF_DICE = {
    "n": ("n", "n"),
    "empty": ("empty", "undefined"),
    "median": ("Dice, median", "median"),
    "min": ("Dice, min", "min"),
}
POOLED = "pooled"
MEAN = "mean of structures"


@dataclass(frozen=True)
class _Column:
    """A column: its heading, a cell per structure, and the cell of the mean over structures."""

    heading: str
    cells: tuple[str, ...]
    mean: str = ""

    @property
    def lines(self) -> list[str]:
        """The heading, broken at spaces to the width of the cells if its words allow it."""
        longest = max(map(len, (*self.cells, self.mean, *self.heading.split())))
        return textwrap.wrap(self.heading, longest, break_long_words=False)

    @property
    def width(self) -> int:
        return max(map(len, (*self.lines, *self.cells, self.mean)))


def chosen_columns(asked: Sequence[str], metrics: Iterable[str]) -> list[str]:
    """The columns of the table, each the name of a metric or one of ``OF_DICE`` and "pooled".

    Args:
        asked: their names, or the beginnings of metrics' names, such as hd95; () chooses the usual
            ones.
        metrics: the metrics beyond those of overlap, which are always measured.

    Raises:
        UsageError: a name that was not measured; all names are listed.
    """
    measured = (*MEASURES, *metrics)
    allowed = (*OF_DICE, POOLED, *measured)

    def found(name: str) -> str | None:
        return next((one for one in allowed if one == name), None) or next(
            (one for one in measured if one.startswith(name)), None
        )

    if not asked:
        firsts = [next(iter(group.metrics)) for group in GROUPS.values()]
        return [one for name in (*USUAL, *firsts) if (one := found(name)) is not None]
    for name in asked:
        if found(name) is None:
            nearest = get_close_matches(name, allowed, 1, cutoff=0.0)[0]
            raise UsageError(
                f"no column {name}; the nearest is {nearest}, allowed are {', '.join(allowed)}"
            )
    return [one for name in asked if (one := found(name)) is not None]


def table(evaluated: EvaluationResult, columns: Sequence[str] = (), width: int = WIDTH) -> Group:
    """A table with one row per structure, then the mean over structures.

    Args:
        columns: see ``chosen_columns``.
        width: columns of text; a wider table is divided into blocks.
    """
    from rich.console import Group
    from rich.text import Text

    unit = "slice" if evaluated.planar else "case"
    names = evaluated.labels.names
    is_mean = len(names) > 1
    made = [
        _column(evaluated, name, unit) for name in chosen_columns(columns, evaluated.scores.metrics)
    ]
    first = min(NAME_WIDTH, max(map(len, (*names, *([MEAN] if is_mean else []), "structure"))))
    title = f"{len(evaluated.cases)} {unit}{'s' * (len(evaluated.cases) != 1)}"
    parts: list[Any] = [Text(title, style="bold")]
    for block in _blocks(made, width - first):
        parts += [_block(block, names, first, is_mean), Text("")]
    return Group(*parts, Text(_caption(evaluated)))


def _blocks(columns: Sequence[_Column], width: int) -> Iterator[list[_Column]]:
    """The columns in groups, each as wide as allowed; two spaces are before each column."""
    block: list[_Column] = []
    for column in columns:
        if block and sum(one.width + 2 for one in (*block, column)) > width:
            yield block
            block = []
        block.append(column)
    yield block


def _block(columns: Sequence[_Column], names: Sequence[str], first: int, is_mean: bool) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    shown.add_column("structure", width=first, overflow="fold")
    for column in columns:
        heading = "\n".join(escape(line) for line in column.lines)
        shown.add_column(heading, justify="right", no_wrap=True)
    for row, name in enumerate(names):
        shown.add_row(escape(name), *(escape(one.cells[row]) for one in columns))
    if is_mean:
        shown.add_section()
        shown.add_row(MEAN, *(one.mean for one in columns))
    return shown


def _column(evaluated: EvaluationResult, name: str, unit: str) -> _Column:
    """One column; see ``chosen_columns`` for its name."""
    summary = {(s["label"], s["metric"]): s for s in evaluated.summary}
    labels = evaluated.labels.names

    def cells(metric: str, text: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
        return tuple(text(summary[label, metric]) for label in labels)

    if name in OF_DICE:
        heading, key = OF_DICE[name]
        digits = str if key in ("n", "undefined") else decimals
        return _Column(heading, cells("dice", lambda s: digits(s[key])))
    if name == POOLED:
        values = evaluated.means().items()
        overall = next(value for one, value in values if one.startswith("dice_pooled"))
        pooled = tuple(decimals(evaluated.pooled[label]["dice"]) for label in labels)
        return _Column("Dice, pooled", pooled, decimals(overall))
    mean = decimals(evaluated.scores.mean(name))
    if name == "dice":
        heading = f"Dice, mean per {unit} [95 %]"
        return _Column(heading, cells("dice", _interval), mean)
    heading = re.sub(r"(\d)mm", r"\1 mm", spelled(name))
    return _Column(heading, cells(name, mean_distance), mean)


def _interval(summary: dict[str, Any]) -> str:
    low, high = decimals(summary["low95"]), decimals(summary["high95"])
    return f"{decimals(summary['mean'])} [{low}, {high}]"


def _caption(evaluated: EvaluationResult) -> str:
    """The lines below the table: means, unmatched files, failures, empty slices, notes."""
    hidden = "per_case" if evaluated.planar else ""  # for planar masks it equals the mean per slice
    lines = [
        f"{name.replace('_', ' ')}: {decimals(value)}"
        for name, value in evaluated.means().items()
        if not hidden or hidden not in name
    ]
    lines += [
        f"{what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in evaluated.unpaired.items()
        if names
    ]
    lines += [
        f"failed: {name}: {why}"
        for name, why in evaluated.failures.items()
        if why != "prediction without truth"
    ]
    if evaluated.slices is not None:
        empty = sum(d["undefined"] for d in evaluated.slices.summary() if d["metric"] == "dice")
        lines.append(
            f"{evaluated.slices.slices} slices; a structure was absent from both truth and "
            f"prediction {empty} times; these are left out of the mean per slice"
        )
    return "\n".join([*lines, *evaluated.notes])
