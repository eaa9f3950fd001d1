"""The report's sections on scores: tables with intervals, box plots, volumes, confusion matrix,
Dice against size, calibration.

It reads ``scores.json``, already parsed, and computes no score of its own, only what a plot needs:
quartiles, limits of agreement and a rank correlation. Every function returns None if the run has no
data for its section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.words import decimals, hex_colour, joined, mean_distance, number_text, spelled
from ..evaluation.learned import learned_dice
from ..metrics.statistics import midranks
from .plots import INK, BlandAltman, agreement_svg, plot_svg

if TYPE_CHECKING:
    from .reported_run import ReportedRun

# The metrics next to Dice in the second table, by the beginning of their names.
BESIDE_DICE = (
    "iou",
    "precision",
    "recall",
    "hd95",
    "assd",
    "surface_dice",
    "boundary_iou",
    "cl_dice",
    "lesion_f1",
)
COLUMNS = 4  # metrics in one table: more do not fit on a printed page
MOST_PANELS = 30  # structures with a Bland-Altman plot
MOST_COLUMNS = 12  # structures in the confusion matrix; with more, only sentences are shown
MOST_CONFUSIONS = 6  # sentences on confused structures
LEAST_CONFUSION = 0.005  # share of the true structure; a smaller confusion gets no sentence
FAR_APART = 5.0  # ratio of largest to smallest volume above which the axis is logarithmic
LEAST_VOXELS = 50  # of a calibration bin that is drawn
LEAST_CASES = 8  # for a correlation
LIMITS = 1.96  # standard deviations between bias and limit of agreement
FLOORS = (0.0, 0.5, 0.8)  # possible lower ends of the Dice axis; the highest one below all cases
WORST = 2  # worst cases named per structure
GREY = "#888888"


def scores(run: ReportedRun) -> dict[str, Any] | None:
    """Tables and texts of the section on scores; None if the run has no scores."""
    found = run.scores
    if not found:
        return None
    unit = "slice" if found.get("planar") else "case"
    summary, colours, means = _summary(found), _colours(run), found.get("means", {})
    names = list(dict.fromkeys(s["label"] for s in found["summary"]))
    rows = [_row(name, summary[name, "dice"], found, colours.get(name, GREY)) for name in names]
    others = [m for m in dict.fromkeys(m for _, m in summary) if m.startswith(BESIDE_DICE)]
    return {
        "unit": unit,
        "rows": rows,
        "floor": _floor(rows),
        "total": _total(means, unit) if len(rows) > 1 else None,
        "set": run.scored,
        "words": f"Over {len(found.get('cases', []))} {unit}s, {_unseen(run)}on the original "
        f"grids. Mean over structures: {_dice_means(means, unit)}.",
        "sides": _sides_table(run, names),
        "others": [
            _metric_table(names, summary, others[k : k + COLUMNS])
            for k in range(0, len(others), COLUMNS)
        ],
        "remarks": _remarks(found),
        "definitions": [(spelled(k), v) for k, v in (found.get("definitions") or {}).items()],
    }


def _sides_table(run: ReportedRun, names: list[str]) -> dict[str, Any] | None:
    """The Dice of training, validation and scored cases, one row per structure; None if the model's
    Dice on the cases it learned from is not recorded.
    """
    found = run.scores or {}
    learned = learned_dice(run.card or {}) or found.get("learned_dice") or {}
    if not learned:
        return None
    scored = {name: (found.get("pooled") or {}).get(name, {}).get("dice") for name in names}
    title = {"validation": "validation, original grids", "evaluation": "these cases"}
    columns = {**learned, title.get(run.scored, run.scored): scored}
    rows = [(name, [decimals(column.get(name)) for column in columns.values()]) for name in names]
    return {"headings": list(columns), "rows": rows}


def _metric_table(
    names: list[str], summary: dict[tuple[str, str], dict[str, Any]], metrics: list[str]
) -> dict[str, Any]:
    """Heading of each metric, and for each structure the mean and the interval of each metric."""
    return {
        "headings": [spelled(m) for m in metrics],
        "rows": [(name, [_with_interval(summary[name, m]) for m in metrics]) for name in names],
    }


def _floor(rows: list[dict[str, Any]]) -> float:
    """The lower end of the Dice axis: the highest of ``FLOORS`` that is below all cases."""
    lowest = min((value for row in rows for value, _ in row["points"]), default=0.0)
    return max(f for f in FLOORS if f <= lowest)


def _total(means: dict[str, Any], unit: str) -> dict[str, str]:
    """The last row of the table: means over structures."""
    pooled = next((v for k, v in means.items() if k.startswith("dice_pooled")), None)
    return {"mean": decimals(means.get(f"dice_mean_per_{unit}")), "pooled": decimals(pooled)}


def _dice_means(means: dict[str, Any], unit: str) -> str:
    """Each mean of Dice with its full name; for slices without the mean per case."""
    return "; ".join(
        f"{spelled(k)} {decimals(v)}"
        for k, v in means.items()
        if k.startswith("dice") and not (unit == "slice" and k.endswith("case"))
    )


def _remarks(found: dict[str, Any]) -> list[str]:
    """Failed cases with their reasons, then the notes of the evaluation."""
    failures = [f"{name}: {why}" for name, why in (found.get("failures") or {}).items()]
    return failures + list(found.get("notes") or [])


def volumes(run: ReportedRun) -> dict[str, Any] | None:
    """The table of volumes and their Bland-Altman plots; None if no volume in ml is known."""
    summary = _summary(run.scores or {})
    names = [
        label
        for label, metric in summary
        if metric == "volume_truth_ml" and summary[label, metric]["mean"] is not None
    ]
    if not names:
        return None
    columns = (
        ("volume_truth_ml", "mean"),
        ("volume_predicted_ml", "mean"),
        ("volume_difference_ml", "mean"),
        ("absolute_volume_difference_ml", "mean"),
        ("absolute_volume_difference_percent", "mean"),
    )
    value, colours = _values(run.scores or {}), _colours(run)
    panels = {
        name: panel
        for name in names
        if (panel := _agreement(value, name, colours.get(name, INK))) is not None
    }
    rows = []
    for name in names:
        cells = [number_text(summary[name, metric][key]) for metric, key in columns]
        limits = (
            f"{number_text(panels[name].low)} to {number_text(panels[name].high)}"
            if name in panels
            else "–"
        )
        rows.append((name, [*cells[:3], limits, *cells[3:]]))
    shown = list(panels.values())[:MOST_PANELS]
    left = (
        f" The first {MOST_PANELS} of {len(panels)} structures are drawn."
        if len(panels) > MOST_PANELS
        else ""
    )
    caption = (
        "Predicted minus true volume against the mean of both, one point per scored case (Bland & "
        "Altman 1986). Thick line: mean difference. Dashed lines: limits of agreement, which "
        f"include 95 % of such differences if they are normally distributed.{left}"
    )
    return {
        "words": "A positive difference means that the predicted volume is too large.",
        "rows": rows,
        "plots": [agreement_svg(panel, "ml") for panel in shown],
        "caption": caption,
    }


def confusions(run: ReportedRun) -> dict[str, Any] | None:
    """The confusion matrix in percent of each true structure, and its largest entries as sentences.

    None if the run has no confusion matrix.
    """
    found = (run.scores or {}).get("confusion")
    if not found:
        return None
    names, voxels = found["names"], np.array(found["voxels"], dtype=np.float64)
    # Each row is divided by the voxels of its true structure; an absent structure has NaN.
    true = voxels.sum(axis=1)
    shares = np.divide(
        voxels, true[:, None], out=np.full_like(voxels, np.nan), where=true[:, None] > 0
    )
    # The largest confusions between two structures; index 0, the background, is left out.
    pairs = sorted(
        (
            (float(shares[t, p]), names[t], names[p])
            for t in range(1, len(names))
            for p in range(1, len(names))
            if t != p and shares[t, p] >= LEAST_CONFUSION
        ),
        reverse=True,
    )[:MOST_CONFUSIONS]
    words = [
        f"{100 * share:.1f} % of the true {true_name} was labelled {name}."
        for share, true_name, name in pairs
    ]
    if not words and len(names) > 2:
        words = [
            f"No structure was labelled as another structure in {100 * LEAST_CONFUSION:g} % or "
            "more of its volume."
        ]
    # The background column comes last.
    order = [*range(1, len(names)), 0]
    rows = [
        (names[t], [_cell(float(shares[t, p]), t == p) for p in order])
        for t in range(1, len(names))
    ]
    return {
        "words": words,
        "columns": [*names[1:], "background"],
        "rows": rows if len(names) - 1 <= MOST_COLUMNS else [],
    }


def sizes(run: ReportedRun) -> dict[str, Any] | None:
    """Dice against true volume, for all cases and structures; None if no volume in ml is known."""
    points = _dice_by_volume(run.scores or {})
    if not points:
        return None
    colours, few = _colours(run), len(points) <= 8
    dots = [
        (name if few else "", [x for x, _ in p], [y for _, y in p], colours.get(name, INK), "o")
        for name, p in points.items()
    ]
    every = [pair for p in points.values() for pair in p]
    volumes_ml, dices = zip(*every, strict=True)
    spread = max(volumes_ml) > FAR_APART * min(volumes_ml)
    limits = (max(-0.02, min(dices) - 0.05), 1.02)
    plot = plot_svg(dots, "Dice", limits, "true volume, ml", x_log=spread)
    return {
        "words": f"{_correlations(points, few)}A wrong edge voxel lowers the Dice of a small "
        "structure more than that of a large one. For small structures, see the distances.",
        "plots": [("Dice against the true volume, one point per scored case.", plot)],
    }


def _dice_by_volume(scores: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Structure -> (true volume in ml, Dice) of each case that has both.

    Structures without such a case are left out.
    """
    value = _values(scores)
    found: dict[str, list[tuple[float, float]]] = {
        summary["label"]: [] for summary in scores.get("summary", [])
    }
    for (case, name, metric), dice in value.items():
        volume = value.get((case, name, "volume_truth_ml")) or 0
        if metric == "dice" and dice is not None and volume > 0 and name in found:
            found[name].append((volume, dice))
    return {name: points for name, points in found.items() if points}


def _correlations(points: dict[str, list[tuple[float, float]]], few: bool) -> str:
    """A sentence on the correlation of Dice with size.

    If there are few structures, each has its own figure; otherwise all are taken together.
    """
    every = [pair for p in points.values() for pair in p]
    groups = points if few else {"all structures together": every}
    words = [f"{name} {_correlation(p):.2f}" for name, p in groups.items() if len(p) >= LEAST_CASES]
    return f"Spearman rank correlation of Dice with size: {joined(words, 9)}. " if words else ""


def calibration(run: ReportedRun) -> dict[str, Any] | None:
    """The reliability diagram, and ECE and Brier score of each structure.

    None if the run has no calibration figures.
    """
    found = (run.scores or {}).get("calibration")
    if not found:
        return None
    colours = _colours(run)
    parts = {name: part for name, part in found["structures"].items() if part["voxels"]}
    named = len(parts) <= MOST_COLUMNS
    # One line per structure, and a dashed one for the most probable class of every voxel. Bins with
    # few voxels are not drawn; with many structures, only the dashed line is in the legend.
    lines = [("perfect calibration", [0.0, 1.0], [0.0, 1.0], INK, ":")]
    for name, part in [*parts.items(), ("most probable class", found["together"])]:
        bins = [
            (x, y)
            for x, y, n in zip(part["mean_confidence"], part["right"], part["count"], strict=True)
            if n >= LEAST_VOXELS
        ]
        look = (
            name,
            [x for x, _ in bins],
            [y for _, y in bins],
            colours.get(name, INK),
            "-" if name in parts else "--",
        )
        lines.append(look if named or name not in parts else ("", *look[1:]))
    rows = [
        (name, [f"{part[m]:.4f}" for m in ("ece", "brier")])
        for name, part in [*parts.items(), ("most probable class", found["together"])]
    ]
    caption = (
        "Reliability diagram: accuracy against confidence (predicted probability) of each "
        f"structure. Bins with fewer than {LEAST_VOXELS} voxels are left out."
    )
    return {
        "words": f"Computed {found['definition']}.",
        "rows": rows,
        "plots": [(caption, plot_svg(lines, "accuracy", (-0.02, 1.02), "confidence"))],
    }


# ---- parts ----


def _summary(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(structure, metric) -> its summary over cases."""
    return {(s["label"], s["metric"]): s for s in found.get("summary", [])}


def _values(found: dict[str, Any]) -> dict[tuple[str, str, str], Any]:
    """(case, structure, metric) -> its value."""
    return {(r["case"], r["label"], r["metric"]): r["value"] for r in found.get("rows", [])}


def _colours(run: ReportedRun) -> dict[str, str]:
    """Structure -> its colour, as "#rrggbb"."""
    return {b.name: hex_colour(b.colour) for b in run.labels}


def _unseen(run: ReportedRun) -> str:
    """A clause on the scored cases: test cases of the split, or not; "" without a manifest."""
    if run.scored == "validation":
        return "which were used to choose the checkpoint, "
    splits = {c.id: c.split for c in run.manifest} if run.manifest else {}
    scored = [splits.get(c["case"]) for c in (run.scores or {}).get("cases", [])]
    if scored and all(s == "test" for s in scored):
        return "none of which was used for training, "
    return (
        f"of which {sum(s != 'test' for s in scored)} are not marked as test cases, "
        if splits
        else ""
    )


def _row(name: str, dice: dict[str, Any], found: dict[str, Any], colour: str) -> dict[str, Any]:
    """The row of one structure in the table of Dice, with its box plot."""
    rows = [
        r
        for r in found["rows"]
        if r["label"] == name and r["metric"] == "dice" and r["value"] is not None
    ]
    points = sorted((r["value"], r["case"]) for r in rows)
    empty = f" (+{dice['undefined']} empty)" if dice["undefined"] else ""
    pooled = ((found.get("pooled") or {}).get(name) or {}).get("dice")
    return {
        "name": name,
        "colour": colour,
        "n": f"{dice['n']}{empty}",
        **{k: decimals(dice[k]) for k in ("mean", "median", "std", "min")},
        "interval": _interval(dice),
        "pooled": decimals(pooled),
        "points": points,
        "at": dice["mean"],
        "box": _box([v for v, _ in points]),
        "worst": [f"{case} {value:.3f}" for value, case in points[:WORST]],
    }


def _box(values: list[float]) -> dict[str, float] | None:
    """Quartiles, median and whiskers, which reach the last case within 1.5 times the interquartile
    range (Tukey 1977); None for fewer than four values.
    """
    if len(values) < 4:
        return None
    q1, median, q3 = (float(q) for q in np.percentile(values, (25, 50, 75)))
    reach = 1.5 * (q3 - q1)
    return {
        "q1": q1,
        "median": median,
        "q3": q3,
        "low": min(v for v in values if v >= q1 - reach),
        "high": max(v for v in values if v <= q3 + reach),
    }


def _interval(summary: dict[str, Any]) -> str:
    """The 95 % interval as text, "–" if there is none."""
    low, high = summary.get("low95"), summary.get("high95")
    return "–" if low is None or high is None else f"{decimals(low)} to {decimals(high)}"


def _with_interval(summary: dict[str, Any]) -> tuple[str, str]:
    """Mean and 95 % interval as text, "" for an interval that is not known."""
    interval = _interval(summary)
    return mean_distance(summary), "" if interval == "–" else interval


def _agreement(
    value: dict[tuple[str, str, str], Any], name: str, colour: str
) -> BlandAltman | None:
    """The Bland-Altman figures of the structure ``name``; None for fewer than two cases."""
    both = [
        (value.get((c, n, "volume_truth_ml")), v)
        for (c, n, m), v in value.items()
        if n == name and m == "volume_predicted_ml"
    ]
    kept = np.array([(t, p) for t, p in both if t is not None and p is not None])
    if len(kept) < 2:
        return None
    difference = kept[:, 1] - kept[:, 0]
    bias, spread = float(difference.mean()), LIMITS * float(difference.std(ddof=1))
    return BlandAltman(
        name,
        colour,
        kept.mean(axis=1).tolist(),
        difference.tolist(),
        bias,
        bias - spread,
        bias + spread,
    )


def _cell(share: float, right: bool) -> dict[str, Any]:
    """A share as text, and the strength of its cell's tint, 0..1.

    Shares of wrong labels are tinted four times as strongly, so that small errors are visible.
    """
    known = share == share
    return {
        "text": f"{100 * share:.1f}" if known else "–",
        "strength": round(min(1.0, share if right else 4 * share), 3) if known else 0,
        "right": right,
    }


def _correlation(points: list[tuple[float, float]]) -> float:
    """Spearman's rank correlation; 0 if all volumes or all Dice values are equal."""
    x, y = (midranks(np.array(side, dtype=np.float64)) for side in zip(*points, strict=True))
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else 0.0
