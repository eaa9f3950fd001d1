"""The scores of an evaluation as a table for the terminal.

The module formats numbers that ``evaluation.scoring`` computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.scores import OVERALL
from ..core.words import decimals, mean_distance, spelled
from ..metrics.overlap import MEASURES
from .text_table import WIDTH, Column, blocks, wrapped

if TYPE_CHECKING:
    from ..evaluation.scoring import EvaluationResult
    from ..metrics.selection import MetricSelection

# Columns without --columns, as far as they were measured; and the first of each further metric.
USUAL = ("n", "empty", "dice", "min", "precision", "recall", "hd95", "surface_dice")
# Columns that are no metric: name -> (heading, key of the summary of the Dice).
OF_DICE = {
    "n": ("n", "n"),
    "empty": ("empty", "undefined"),
    "median": ("Dice, median", "median"),
    "min": ("Dice, min", "min"),
}
POOLED = "pooled"


def chosen_columns(asked: Sequence[str], selection: MetricSelection) -> list[str]:
    """The columns of the table, each the name of a metric or one of ``OF_DICE`` and "pooled".

    Args:
        asked: their names, or the beginnings of metrics' names, such as hd95; () chooses the usual
            ones.
        selection: what is measured in addition to the overlap.

    Raises:
        UsageError: a name that was not measured; all names are listed.
    """
    measured = (*MEASURES, *selection.metrics())
    allowed = (*OF_DICE, POOLED, *measured)

    def found(name: str) -> str | None:
        return next((one for one in allowed if one == name), None) or next(
            (one for one in measured if one.startswith(name)), None
        )

    if not asked:
        firsts = [next(iter(metric.columns)) for metric in selection.also.values()]
        return [one for name in (*USUAL, *firsts) if (one := found(name)) is not None]
    for name in asked:
        if found(name) is None:
            nearest = get_close_matches(name, allowed, 1, cutoff=0.0)[0]
            raise UsageError(
                f"no column {name}; the nearest is {nearest}, allowed are {', '.join(allowed)}"
            )
    return [one for name in asked if (one := found(name)) is not None]


def table(evaluated: EvaluationResult, columns: Sequence[str] = (), width: int = WIDTH) -> str:
    """A table with one row per structure, then the mean over structures.

    Args:
        columns: see ``chosen_columns``.
        width: columns of text; a wider table is divided into blocks.
    """
    unit = "slice" if evaluated.planar else "case"
    names, is_mean = evaluated.labels.names, len(evaluated.labels) > 1
    made = [
        _column(evaluated, name, unit, is_mean)
        for name in chosen_columns(columns, evaluated.chosen)
    ]
    structures = Column("structure", (*names, *([OVERALL] if is_mean else [])), is_name=True)
    parts = [f"{len(evaluated.cases)} {unit}{'s' * (len(evaluated.cases) != 1)}"]
    for block in blocks([structures], made, width, sections=[len(names)]):
        parts += [block, ""]
    return "\n".join([*parts, wrapped(_caption(evaluated), width)])


def _column(evaluated: EvaluationResult, name: str, unit: str, is_mean: bool) -> Column:
    """One column, with the mean over structures in the last row if ``is_mean``; see
    ``chosen_columns`` for its name.
    """
    summary = {(s["label"], s["metric"]): s for s in evaluated.summary}
    labels = evaluated.labels.names

    def cells(
        metric: str, text: Callable[[dict[str, Any]], str], mean: str = ""
    ) -> tuple[str, ...]:
        # Pictures without a pixel size have no volumes and no distances.
        is_there = metric in evaluated.scores.metrics
        own = tuple(text(summary[label, metric]) if is_there else "–" for label in labels)
        return (*own, mean) if is_mean else own

    if name in OF_DICE:
        heading, key = OF_DICE[name]
        digits = str if key in ("n", "undefined") else decimals
        return Column(heading, cells("dice", lambda s: digits(s[key])))
    if name == POOLED:
        values = evaluated.means().items()
        overall = next(value for one, value in values if one.startswith("dice_pooled"))
        pooled = [decimals(evaluated.pooled[label]["dice"]) for label in labels]
        return Column("Dice, pooled", (*pooled, *([decimals(overall)] if is_mean else [])))
    mean = decimals(evaluated.scores.mean(name)) if name in evaluated.scores.metrics else "–"
    if name == "dice":
        heading = f"Dice, mean per {unit} [95 %]"
        return Column(heading, cells("dice", _interval, mean))
    heading = re.sub(r"(\d)mm", r"\1 mm", spelled(name))
    return Column(heading, cells(name, mean_distance, mean))


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
