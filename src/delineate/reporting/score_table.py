"""Scores as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.words import decimals, mean_distance
from ..metrics.overlap import MEASURES

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation.scoring import EvaluationResult


def table(evaluated: EvaluationResult) -> Table:
    """A table for the terminal: a row a structure, then the mean over structures."""
    from rich.table import Table

    unit = "slice" if evaluated.planar else "case"
    shown = Table(
        title=f"{len(evaluated.cases)} {unit}{'s' * (len(evaluated.cases) != 1)}",
        caption=_caption(evaluated),
    )
    shown.add_column("structure")
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
    for name in columns:
        shown.add_column(name, justify="right")
    summary = {(s["label"], s["metric"]): s for s in evaluated.summary}
    for name in evaluated.labels.names:
        d = summary[name, "dice"]
        others = [
            summary[name, m]["mean"]
            for m in ("precision", "recall", "absolute_volume_difference_percent")
        ]
        shown.add_row(
            name,
            str(d["n"]),
            str(d["undefined"]),
            f"{decimals(d['mean'])} [{decimals(d['low95'])}, {decimals(d['high95'])}]",
            *(decimals(d[k]) for k in ("median", "min")),
            decimals(evaluated.pooled[name]["dice"]),
            *map(decimals, others[:2]),
            decimals(others[2], 2),
            *(mean_distance(summary[name, m]) for m in distances),
        )
    if len(evaluated.labels) > 1:
        shown.add_section()
        pooled = next(
            value for name, value in evaluated.means().items() if name.startswith("dice_pooled")
        )
        shown.add_row(
            "mean of structures",
            "",
            "",
            decimals(evaluated.scores.mean("dice")),
            "",
            "",
            decimals(pooled),
            *(decimals(evaluated.scores.mean(m)) for m in ("precision", "recall")),
            decimals(evaluated.scores.mean("absolute_volume_difference_percent"), 2),
            *(decimals(evaluated.scores.mean(m), 2) for m in distances),
        )
    return shown


def _caption(evaluated: EvaluationResult) -> str:
    hidden = "per_case" if evaluated.planar else ""  # it is the mean per slice
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
            f"{evaluated.slices.slices} slices; {empty} times one held a structure in neither "
            "truth nor prediction: left out of the mean per slice"
        )
    return "\n".join([*lines, *evaluated.notes])
