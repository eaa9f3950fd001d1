"""The scores of an evaluation as a table for the terminal.

The module formats numbers that ``evaluation.scoring`` computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.words import decimals, mean_distance
from ..metrics.overlap import MEASURES

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation.scoring import EvaluationResult


def table(evaluated: EvaluationResult) -> Table:
    """A table with one row per structure, then the mean over structures."""
    from rich.table import Table

    unit = "slice" if evaluated.planar else "case"
    shown = Table(
        title=f"{len(evaluated.cases)} {unit}{'s' * (len(evaluated.cases) != 1)}",
        caption=_caption(evaluated),
    )
    # Metrics beyond those of overlap have a column each; the maximum Hausdorff distance has none.
    distances = {
        m: m.replace("_", " ")
        for m in evaluated.scores.metrics
        if m not in MEASURES and not m.startswith("hausdorff")
    }
    columns = [
        "n",
        "empty",
        f"Dice, mean per {unit} [95 %]",
        "median",
        "min",
        "pooled",
        "precision",
        "recall",
        "|volume error| %",
        *distances.values(),
    ]
    shown.add_column("structure")
    for name in columns:
        shown.add_column(name, justify="right")
    summary = {(s["label"], s["metric"]): s for s in evaluated.summary}
    for name in evaluated.labels.names:
        pooled = evaluated.pooled[name]["dice"]
        shown.add_row(name, *_structure_cells(summary, name, pooled, list(distances)))
    if len(evaluated.labels) > 1:
        shown.add_section()
        shown.add_row("mean of structures", *_mean_cells(evaluated, list(distances)))
    return shown


def _structure_cells(
    summary: dict[tuple[str, str], dict[str, Any]], name: str, pooled: Any, distances: list[str]
) -> list[str]:
    """The cells of one structure, without its name."""
    d = summary[name, "dice"]
    others = [
        summary[name, m]["mean"]
        for m in ("precision", "recall", "absolute_volume_difference_percent")
    ]
    return [
        str(d["n"]),
        str(d["undefined"]),
        f"{decimals(d['mean'])} [{decimals(d['low95'])}, {decimals(d['high95'])}]",
        *(decimals(d[k]) for k in ("median", "min")),
        decimals(pooled),
        *map(decimals, others[:2]),
        decimals(others[2], 2),
        *(mean_distance(summary[name, m]) for m in distances),
    ]


def _mean_cells(evaluated: EvaluationResult, distances: list[str]) -> list[str]:
    """The cells of the mean over structures; columns without a mean are empty."""
    pooled = next(
        value for name, value in evaluated.means().items() if name.startswith("dice_pooled")
    )
    return [
        "",
        "",
        decimals(evaluated.scores.mean("dice")),
        "",
        "",
        decimals(pooled),
        *(decimals(evaluated.scores.mean(m)) for m in ("precision", "recall")),
        decimals(evaluated.scores.mean("absolute_volume_difference_percent"), 2),
        *(decimals(evaluated.scores.mean(m), 2) for m in distances),
    ]


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
