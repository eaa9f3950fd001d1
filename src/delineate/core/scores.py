"""Scores: rows of case x label x metric with units, and the summary that can be recomputed from
them.

NaN means "not defined here" (an empty structure against an empty one) and is counted apart, never
taken as 0 or 1.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError

FAR = 1e300  # stands for infinity where values are interpolated
Values = np.ndarray[Any, np.dtype[np.float64]]
COLUMNS = ("case", "label", "metric", "value", "unit")
HIGHER, LOWER, NEARER_ZERO, NO_JUDGEMENT = "higher", "lower", "nearer to zero", "no judgement"
# Which way a metric is better, by its name or by the words with which its name begins; the longest
# entry counts. Every metric that the package measures is here: ``judged`` refuses others at import.
DIRECTIONS: dict[str, str] = {
    "dice": HIGHER,
    "iou": HIGHER,
    "precision": HIGHER,
    "recall": HIGHER,
    "specificity": HIGHER,
    "volume_predicted": NO_JUDGEMENT,
    "volume_truth": NO_JUDGEMENT,
    "volume_difference": NEARER_ZERO,
    "absolute_volume_difference": LOWER,
    "hausdorff": LOWER,
    "hd95": LOWER,
    "assd": LOWER,
    "surface_dice": HIGHER,
    "boundary_iou": HIGHER,
    "cl_dice": HIGHER,
    "lesion_f1": HIGHER,
    "lesion_recall": HIGHER,
    "lesion_precision": HIGHER,
    "lesion_misses": LOWER,
    "lesion_false_alarms": LOWER,
    "ece": LOWER,
    "brier": LOWER,
}


@dataclass(frozen=True)
class Score:
    """One figure: ``value`` of ``metric`` for structure ``label`` of ``case``, in ``unit`` ("" for
    a ratio).
    """

    case: str
    label: str
    metric: str
    value: float
    unit: str = ""


@dataclass(frozen=True)
class Scores:
    """All figures of an evaluation; rows are unique in (case, label, metric)."""

    rows: tuple[Score, ...]

    def __post_init__(self) -> None:
        keys = [(r.case, r.label, r.metric) for r in self.rows]
        if len(set(keys)) != len(keys):
            raise InputError("two scores for the same case, label and metric")

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    def values(self, label: str, metric: str) -> Values:
        """Every case's value, in row order, NaN included."""
        return np.array(
            [r.value for r in self.rows if r.label == label and r.metric == metric],
            dtype=np.float64,
        )

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(r.label for r in self.rows))

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(r.metric for r in self.rows))

    def summary(
        self, more: Callable[[str, Sequence[str], Values], dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """For each label and metric: n, undefined (NaN), infinite, mean, deviation, median,
        quartiles, range.

        ``more`` adds figures of its own from (metric, cases, values).
        """
        found: dict[tuple[str, str], list[Score]] = {}
        for row in self.rows:
            found.setdefault((row.label, row.metric), []).append(row)
        out = []
        for label in self.labels:
            for metric in self.metrics:
                rows = found.get((label, metric))
                if rows:
                    values = np.array([r.value for r in rows], dtype=np.float64)
                    added = {} if more is None else more(metric, [r.case for r in rows], values)
                    out.append(
                        {
                            "label": label,
                            "metric": metric,
                            "unit": rows[0].unit,
                            **describe(values),
                            **added,
                        }
                    )
        return out

    def mean(self, metric: str) -> float:
        """Mean over labels of each label's mean over cases; NaN where nothing is defined."""
        return finite_mean(_nanmean(self.values(label, metric)) for label in self.labels)

    def to_csv(self) -> str:
        """One row a score; full precision, so that the summary can be recomputed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((r.case, r.label, r.metric, repr(r.value), r.unit) for r in self.rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> Scores:
        """The inverse of ``to_csv``."""
        rows: Iterable[list[str]] = csv.reader(io.StringIO(text))
        head, *body = list(rows) or [[]]
        if tuple(head) != COLUMNS:
            raise InputError(
                f"a scores file has the columns {', '.join(COLUMNS)}, found {', '.join(head)}"
            )
        return cls(
            tuple(
                Score(case, label, metric, float(value), unit)
                for case, label, metric, value, unit in body
            )
        )

    def to_json(self, **more: Any) -> str:
        """Rows, summary and whatever else is worth keeping. NaN becomes null, and so does infinity
        but in a row, where it is "inf".
        """
        rows = [
            {
                "case": r.case,
                "label": r.label,
                "metric": r.metric,
                "value": "inf" if r.value == np.inf else r.value,
                "unit": r.unit,
            }
            for r in self.rows
        ]
        return json.dumps(
            without_nan(
                {"summary": more.pop("summary", None) or self.summary(), **more, "rows": rows}
            ),
            indent=1,
        )


def better_is(metric: str) -> str | None:
    """Which way ``metric`` is better; None of one that is no judgement, such as a volume.

    Metrics whose names say how they were measured (``hd95_pooled_of_voxels_mm``) go by how they
    begin. Files that others wrote may hold metrics that are unknown here: None of those too.
    """
    direction = _direction(metric)
    return None if direction == NO_JUDGEMENT else direction


def judged(metrics: Iterable[str]) -> None:
    """Call this where a table of metrics is made, so that none is forgotten in ``DIRECTIONS``.

    Raises:
        TypeError: a metric has no direction.
    """
    forgotten = [metric for metric in metrics if _direction(metric) is None]
    if forgotten:
        rule = "core.scores.DIRECTIONS says of every metric which way is better, or NO_JUDGEMENT"
        raise TypeError(f"{rule}; it says nothing of {', '.join(forgotten)}")


def _direction(metric: str) -> str | None:
    """The entry for ``metric``: its own, else that of the most leading words that have one."""
    name = metric
    while name and name not in DIRECTIONS:
        name = name.rpartition("_")[0]
    return DIRECTIONS.get(name)


def describe(values: np.ndarray[Any, Any]) -> dict[str, float | int]:
    """n, undefined, infinite, mean, std (n - 1), median, q1, q3, min, max of ``values``.

    NaN is counted in ``undefined`` only. Infinite distances, of structures that one side lacks, are
    counted in n and in ``infinite``; they have their rank in median, quartiles and maximum, and
    have no part in mean and deviation.
    """
    kept = values[~np.isnan(values)]
    finite = kept[np.isfinite(kept)]
    base: dict[str, float | int] = {
        "n": len(kept),
        "undefined": len(values) - len(kept),
        "infinite": len(kept) - len(finite),
    }
    if not len(kept):
        return base | dict.fromkeys(
            ("mean", "std", "median", "q1", "q3", "min", "max"), float("nan")
        )
    # Infinity itself times nothing would be NaN.
    ranked = np.percentile(np.where(np.isinf(kept), np.sign(kept) * FAR, kept), (25, 50, 75))
    q1, median, q3 = (
        float(q) if abs(q) < FAR / 1e9 else math.copysign(math.inf, q) for q in ranked
    )
    std = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    mean = float(finite.mean()) if len(finite) else float("inf")
    return base | {
        "mean": mean,
        "std": std,
        "median": median,
        "q1": q1,
        "q3": q3,
        "min": float(kept.min()),
        "max": float(kept.max()),
    }


def without_nan(data: Any) -> Any:
    """The same plain data with every NaN and infinity as None, as strict JSON wants it."""
    if isinstance(data, dict):
        return {k: without_nan(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(v) for v in data]
    if isinstance(data, float | np.floating):
        return float(data) if np.isfinite(data) else None
    return data


def finite_mean(values: Iterable[float]) -> float:
    """Mean of the values that are finite; NaN where none is."""
    kept = [v for v in values if np.isfinite(v)]
    return float(np.mean(kept)) if kept else float("nan")


def _nanmean(values: np.ndarray[Any, Any]) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")
