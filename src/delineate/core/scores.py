"""Scores: rows of case x label x metric with units, and the summary computed from them.

NaN means that a metric is not defined (both structures are empty). It is counted separately and
never treated as 0 or 1.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .errors import InputError, optional_package
from .inputs import json_text, refuse_special

if TYPE_CHECKING:
    import pandas

FAR = 1e300  # replaces infinity when values are interpolated
Values = np.ndarray[Any, np.dtype[np.float64]]
OVERALL = "mean of structures"  # a structure of tables that have it
COLUMNS = ("case", "label", "metric", "value", "unit")
HIGHER, LOWER, NEARER_ZERO, NO_JUDGEMENT = "higher", "lower", "nearer to zero", "no judgement"
BETTER = (HIGHER, LOWER, NEARER_ZERO, NO_JUDGEMENT)
# Which values of a metric are better, by its name or by the leading words of its name; the longest
# entry decides. Registered metrics add themselves with ``declare``; the others are listed, and
# ``judged`` refuses one that is not at import.
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
    "ece": LOWER,
    "brier": LOWER,
}


@dataclass(frozen=True)
class Score:
    """One measured value: ``value`` of ``metric`` for structure ``label`` of ``case``, in ``unit``
    ("" for a ratio).
    """

    case: str
    label: str
    metric: str
    value: float
    unit: str = ""


@dataclass(frozen=True)
class Scores:
    """All values of an evaluation; rows are unique in (case, label, metric).

    >>> rows = [Score("a", "liver", "dice", 0.9), Score("b", "liver", "dice", float("nan"))]
    >>> scores = Scores(tuple(rows))
    >>> scores.labels, scores.metrics, scores.values("liver", "dice"), scores.mean("dice")
    (['liver'], ['dice'], array([0.9, nan]), 0.9)
    >>> [(row["n"], row["undefined"], row["mean"]) for row in scores.summary()]
    [(1, 1, 0.9)]
    >>> print(scores.to_csv().splitlines()[1])
    a,liver,dice,0.9,
    >>> from delineate.core.inputs import parse_json
    >>> sorted(parse_json(scores.to_json()))
    ['rows', 'summary']
    """

    rows: tuple[Score, ...]

    def __post_init__(self) -> None:
        keys = [(r.case, r.label, r.metric) for r in self.rows]
        if len(set(keys)) != len(keys):
            raise InputError("two scores for the same case, label and metric")

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    def values(self, label: str, metric: str) -> Values:
        """The values of all cases in row order, NaN included."""
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
        """For each label and metric: n, undefined (NaN), infinite, mean, standard deviation,
        median, quartiles, range.

        ``more`` is called with (metric, cases, values); its result is added.
        """
        # Group the rows once: a search per label and metric would be quadratic.
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
        """Mean over labels of each label's mean over cases; NaN if nothing is defined."""
        return finite_mean(_nanmean(self.values(label, metric)) for label in self.labels)

    def to_csv(self) -> str:
        """One row per score, in full precision, so that the summary can be recomputed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((r.case, r.label, r.metric, repr(r.value), r.unit) for r in self.rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, path: str | Path) -> Scores:
        """The scores in a file that holds the text of ``to_csv``, such as ``scores.csv``; NaN and
        infinity too.

        Raises:
            InputError: the file cannot be read, has other columns or a row that is not a score, or
                has two rows for the same case, label and metric.

        >>> Scores.from_csv("scores/scores.csv").mean("dice")
        1.0
        """
        refuse_special(path)
        try:
            lines = list(csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8"))))
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"cannot be read as scores ({error})", path=path) from error
        head, *body = lines or [[]]
        if tuple(head) != COLUMNS:
            raise InputError(
                f"a scores file needs the columns {', '.join(COLUMNS)}, found {', '.join(head)}",
                path=path,
            )
        rows: list[Score] = []
        try:
            for case, label, metric, value, unit in body:
                rows.append(Score(case, label, metric, float(value), unit))
        except ValueError as error:
            raise InputError(f"line {len(rows) + 2} is not a score ({error})", path=path) from error
        try:
            return cls(tuple(rows))
        except InputError as error:
            raise InputError(error.message, path=path) from error

    def to_frame(self) -> pandas.DataFrame:
        """One row per score, with the columns ``COLUMNS``.

        Raises:
            UsageError: pandas is not installed.

        >>> scores = Scores((Score("a", "liver", "dice", 0.9), Score("b", "liver", "dice", 0.7)))
        >>> float(scores.to_frame()["value"].mean())
        0.8
        """
        rows = [[getattr(row, column) for column in COLUMNS] for row in self.rows]
        frame = optional_package("pandas", "to_frame").DataFrame(rows, columns=list(COLUMNS))
        return cast("pandas.DataFrame", frame)

    def to_json(self, **more: Any) -> str:
        """Summary, rows and the entries of ``more`` as JSON text.

        NaN becomes null. Infinity becomes "inf" in a row and null elsewhere.
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
        return json_text(
            without_nan(
                {"summary": more.pop("summary", None) or self.summary(), **more, "rows": rows}
            ),
            indent=1,
        )


def better_is(metric: str) -> str | None:
    """Which values of ``metric`` are better; None if neither direction is, such as for a volume.

    A metric whose name states how it was measured (``hd95_pooled_of_voxels_mm``) has the direction
    of the longest known beginning of its name. The result is also None for an unknown metric, which
    files from other software may contain.
    """
    direction = _direction(metric)
    return None if direction == NO_JUDGEMENT else direction


def declare(metric: str, better: str) -> None:
    """Add a registered metric to ``DIRECTIONS``.

    Args:
        better: one of ``BETTER``.

    Raises:
        TypeError: another word, or the metric has another direction already.
    """
    if better not in BETTER:
        raise TypeError(f"better must be one of {', '.join(BETTER)}; found {better!r}")
    if DIRECTIONS.setdefault(metric, better) != better:
        raise TypeError(f"{metric} is declared as {DIRECTIONS[metric]} already, not as {better}")


def judged(metrics: Iterable[str]) -> None:
    """Check that ``DIRECTIONS`` has all ``metrics``; call this where a table of metrics is defined.

    Raises:
        TypeError: a metric has no direction.
    """
    forgotten = [metric for metric in metrics if _direction(metric) is None]
    if forgotten:
        rule = "core.scores.DIRECTIONS needs a direction or NO_JUDGEMENT for every metric"
        raise TypeError(f"{rule}; missing: {', '.join(forgotten)}")


def _direction(metric: str) -> str | None:
    """The direction of ``metric``: its own entry, else that of its longest leading words."""
    # Remove trailing words until an entry matches.
    name = metric
    while name and name not in DIRECTIONS:
        name = name.rpartition("_")[0]
    return DIRECTIONS.get(name)


def describe(values: np.ndarray[Any, Any]) -> dict[str, float | int]:
    """n, undefined, infinite, mean, std (n - 1), median, q1, q3, min, max of ``values``.

    NaN is counted only in ``undefined``. Infinite distances (a structure is missing on one side)
    are counted in n and in ``infinite``. They have a rank in the median, quartiles and maximum, but
    are not part of mean and standard deviation. Without values, all but the counts are NaN.
    """
    # ``kept`` includes infinite values, ``finite`` does not.
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
    # Interpolation would multiply infinity by 0 and return NaN, so a huge number replaces it.
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
    """The same plain data with every NaN and infinity as None, as strict JSON requires; parts
    without any are not copied.

    >>> without_nan({"mean": float("nan"), "n": 3})
    {'mean': None, 'n': 3}
    """
    if isinstance(data, dict):
        found = {k: without_nan(v) for k, v in data.items()}
        return data if all(found[k] is v for k, v in data.items()) else found
    if isinstance(data, list | tuple):
        items = [without_nan(v) for v in data]
        return data if all(a is b for a, b in zip(items, data, strict=True)) else items
    if isinstance(data, float | np.floating):
        if not np.isfinite(data):
            return None
        return data if type(data) is float else float(data)
    return data


def finite_mean(values: Iterable[float]) -> float:
    """Mean of the finite values; NaN if there are none."""
    kept = [v for v in values if np.isfinite(v)]
    return float(np.mean(kept)) if kept else float("nan")


def _nanmean(values: np.ndarray[Any, Any]) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")
