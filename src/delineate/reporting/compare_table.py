"""The comparison of runs as a table for a terminal.

Each structure has one row per run, with the difference of that run to the first run. The module
formats numbers that ``evaluation.comparing`` computed, and computes no statistic of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.scores import OVERALL, better_is
from ..core.words import decimals, number_text
from ..evaluation.comparing import Comparison, lacking_words, metric_words
from ..metrics.statistics import RESAMPLES
from .text_table import WIDTH, Column, blocks, wrapped


def table(compared: Comparison, width: int = WIDTH) -> str:
    """A table with one row per structure and run, and each run's difference to the first run; one
    wider than ``width`` columns of text is divided into blocks.
    """
    headings = (
        "n",
        "mean",
        "median",
        "quartiles",
        "min",
        "max",
        f"difference to {compared.names[0]}",
        "better / worse / equal",
        "p (Holm)",
        "effect",
        "rank (first in)",
    )
    # The mean over structures repeats the only structure if there is just one.
    shown = {k: v for k, v in compared.results.items() if k != OVERALL or len(compared.labels) > 1}
    runs, digits = compared.names, _digits(compared)
    rows = [_row(found, run, digits) for found in shown.values() for run in runs]
    names = [
        Column("structure", tuple(k if r == runs[0] else "" for k in shown for r in runs), True),
        Column("run", tuple(runs) * len(shown), is_name=True),
    ]
    columns = [Column(heading, tuple(row[n] for row in rows)) for n, heading in enumerate(headings)]
    many = f"{len(compared.cases)} {compared.per}{'s' * (len(compared.cases) != 1)}"
    title = f"{metric_words(compared)} of {many} present in all runs"
    parts = [wrapped(title, width)]
    for block in blocks(names, columns, width, range(len(runs), len(rows), len(runs))):
        parts += [block, ""]
    return "\n".join([*parts, wrapped("\n".join(_caption(compared)), width)])


def _digits(compared: Comparison) -> int | None:
    """Decimals of a ratio; None, for a metric with a unit, means three significant digits."""
    return None if compared.unit else 3


def _row(found: dict[str, Any], run: str, digits: int | None) -> list[str]:
    """The cells of one structure and one run; the first run has no difference."""

    def text(value: Any, sign: bool = False) -> str:
        words = number_text(value) if digits is None else decimals(value, digits)
        return f"+{words}" if sign and words[0].isdigit() else words

    d = found["runs"][run]
    difference = next((x for x in found["differences"] if x["run"] == run), None)
    cells = [
        str(d["n"]),
        text(d["mean"]),
        text(d["median"]),
        f"{text(d['q1'])} to {text(d['q3'])}",
        text(d["min"]),
        text(d["max"]),
    ]
    rank = found.get("ranks", {}).get(run)
    place = (
        f"{rank['mean_rank']:.2f} ({100 * rank['chance_of_place'][0]:.0f} %)"
        if rank and found["n"]
        else ""
    )
    if difference is None:
        return [*cells, "", "", "", "", place]
    interval = (
        f" [{text(difference['low95'], True)}, {text(difference['high95'], True)}]"
        if np.isfinite(difference["low95"])
        else " [one patient]"
    )
    counts = " / ".join(
        "–" if difference[k] is None else str(difference[k]) for k in ("better", "worse", "equal")
    )
    test = decimals(difference["p_holm"]) if difference["can_tell"] else "too few"
    return [
        *cells,
        text(difference["mean"], True) + interval,
        counts,
        test,
        decimals(difference["effect"], 2),
        place,
    ]


def _caption(compared: Comparison) -> list[str]:
    better = better_is(compared.metric)
    lines = [
        *compared.sentences,
        f"differences: mean, 95 % interval from {RESAMPLES} bootstrap resamples of patients"
        + (f"; {better} is better" if better else ""),
    ]
    lines.append(
        "p: Wilcoxon signed-rank test over patients, Holm-adjusted; effect: rank-biserial "
        "correlation, -1 to 1; first in: share of resamples in which the run ranks first"
    )
    if compared.left_out:
        lines.append(f"left out, {len(compared.left_out)}: {lacking_words(compared.left_out)}")
    undefined = {
        name: sum(v["runs"][name]["undefined"] for k, v in compared.results.items() if k != OVERALL)
        for name in compared.names
    }
    if any(undefined.values()):
        lines.append(
            "undefined and left out: "
            + ", ".join(f"{n} in {name}" for name, n in undefined.items())
        )
    return [*lines, *(f"warning: {w}" for w in compared.warnings)]
