"""Compare: runs case by case (``evaluation.comparing``), written as tables, JSON and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.atomic import recording, write_text
from ..core.outputs import Originals
from ..core.scores import OVERALL
from ..evaluation.comparing import Comparison, compare_runs, metric_words
from ..extend.registers import METRICS
from ..reporting.box_plot import box_plot, difference_plot
from .options import CompareOptions

WRITTEN = (
    "compare.csv",
    "compare.json",
    "boxplot.png",
    "boxplot.svg",
    "differences.png",
    "differences.svg",
)


def compare(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    options: CompareOptions = CompareOptions(),
) -> Comparison:
    """Compare runs and write the result.

    Args:
        runs, options: see ``evaluation.comparing.compare_runs``, also for its errors.
        out: folder for ``compare.csv``, ``compare.json``, and ``boxplot`` and ``differences`` as
            .png and .svg; None writes nothing.

    Raises:
        OutputError: ``out`` cannot be written, or an output is a file that was read.
    """
    # Registered metrics declare which of their values are better.
    tuple(METRICS.values())
    chosen = {key: value for key, value in vars(options).items() if key != "overwrite"}
    targets = [Path(out) / name for name in WRITTEN] if out is not None else []
    compared = compare_runs(runs, **chosen)
    if out is not None:
        read = [
            run.path.parent / name
            for run in compared.runs
            for name in ("scores.json", "scores.csv", "slices.csv")
        ]
        kept = Originals([*read, *(run.path for run in compared.runs)])
        with kept.kept(targets), recording(out, targets, options.overwrite):
            write(compared, out)
    return compared


def write(compared: Comparison, out: str | Path) -> None:
    """Write the tables and the plots to the folder ``out``.

    Raises:
        OutputError: it cannot be written.
    """
    table, data, *pictures = (Path(out) / name for name in WRITTEN)
    write_text(table, compared.to_csv())
    write_text(data, compared.to_json())
    groups = dict(compared.values) | (
        {OVERALL: compared.overall} if len(compared.labels) > 1 else {}
    )
    box_plot(groups, compared.names, metric_words(compared), compared.per, pictures[:2])
    intervals = {
        name: [(d["mean"], d["low95"], d["high95"]) for d in compared.results[name]["differences"]]
        for name in groups
    }
    difference_plot(
        groups, intervals, compared.names, metric_words(compared), compared.per, pictures[2:]
    )
