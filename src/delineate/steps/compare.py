"""The compare step: two or more runs on the same cases, side by side and as differences.

A run is a folder of a training (MODEL.run), a model with that folder beside it, the folder of an evaluation, or its
``scores.json`` or ``scores.csv``. Cases pair by id and structure; what not every run has is listed and left out of every
figure, so that all figures of a table speak of the same cases. Differences are to the first run, case by case, and their
interval comes from resampling patients, because cases of one patient are not independent (Efron & Tibshirani, *An
Introduction to the Bootstrap*, 1993, percentile interval). It scores nothing itself and tests no hypothesis.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import make_folder, write_text
from ..core.errors import InputError, LabelError, UsageError
from ..core.scores import describe, without_nan
from .scored_runs import CHOSEN_ON, ScoredRun, load_run, name_runs
from .words import decimals, joined, number_text, spelled

if TYPE_CHECKING:
    from rich.table import Table

RESAMPLES = 10_000
SEED = 0
INTERVAL = (2.5, 97.5)  # percentiles
EQUAL = 1e-9  # differences below are rounding
OVERALL = "mean of structures"
UNITS = ("case", "slice", "patient")
HIGHER, LOWER, NEARER_ZERO = "higher", "lower", "nearer to zero"
BETTER_IS = {**dict.fromkeys(("dice", "iou", "precision", "recall"), HIGHER),
             **dict.fromkeys(("absolute_volume_difference_ml", "absolute_volume_difference_percent"), LOWER),
             **dict.fromkeys(("volume_difference_ml", "volume_difference_percent"), NEARER_ZERO)}  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Args:
        runs: in the order given; the first is what the others are compared with.
        metric, unit, per: what is compared, its unit ("" of a ratio), and whether of cases, slices or patients.
        labels: the structures.
        cases: paired ids, C of them.
        groups: (C,) the patient of each, by which cases are resampled.
        values: structure -> (runs, C), NaN where not defined.
        left_out: id -> the runs that do not have it.
        warnings: what makes the comparison less than fair.
    """

    runs: tuple[ScoredRun, ...]
    metric: str
    unit: str
    per: str
    labels: tuple[str, ...]
    cases: tuple[str, ...]
    groups: tuple[str, ...]
    values: dict[str, Floats]
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [run.name for run in self.runs]

    @functools.cached_property
    def overall(self) -> Floats:
        """(runs, C) each case's mean over the structures that are defined in every run; NaN where none is."""
        every = np.stack([np.where(np.isfinite(v).all(axis=0), v, np.nan) for v in self.values.values()])
        defined = np.isfinite(every).sum(axis=0)
        return np.where(defined > 0, np.nansum(every, axis=0) / np.maximum(defined, 1), np.nan)

    @functools.cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """Structure (and ``OVERALL``) -> figures, see ``_figures``."""
        return {name: _figures(self, v) for name, v in [*self.values.items(), (OVERALL, self.overall)]}

    def to_csv(self) -> str:
        """A row a case and structure, a column a run; "nan" where not defined, nothing where the run lacks the case."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["case", "patient", "label", "metric", "unit", *self.names])
        for label, values in self.values.items():
            for k, case in enumerate(self.cases):
                writer.writerow([case, self.groups[k], label, self.metric, self.unit, *(repr(float(v)) for v in values[:, k])])
        looked_up = [_lookup(run, self.metric) for run in self.runs]
        for case, lacking in self.left_out.items():
            group = _group_of(self.runs, case, self.per)
            for label in self.labels:
                row = [
                    "" if run.name in lacking else repr(found.get((case, label), float("nan")))
                    for run, found in zip(self.runs, looked_up, strict=True)
                ]
                writer.writerow([case, group, label, self.metric, self.unit, *row])
        return text.getvalue()

    def to_json(self) -> str:
        """The text of ``compare.json``."""
        runs = [{"name": r.name, "path": str(r.path), "what": r.what, "cases": len(r.cases)} for r in self.runs]
        results = dict(self.results)
        overall = results.pop(OVERALL)
        return json.dumps(without_nan({
            "metric": self.metric, "unit": self.unit, "per": self.per, "better_is": BETTER_IS.get(self.metric), "runs": runs,
            "paired": len(self.cases), "left_out": {case: list(names) for case, names in self.left_out.items()}, "warnings": list(self.warnings),
            "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "interval": "percentiles 2.5 to 97.5 of the mean difference", "over": "patients"},
            "labels": results, "overall": overall}), indent=1)  # fmt: skip


def compare(runs: Sequence[str | Path], out: str | Path | None = None, *, names: Sequence[str] | None = None, metric: str = "dice",
            labels: Sequence[str] | None = None, per: str = "case") -> Compared:  # fmt: skip
    """Compare runs on the cases they share.

    Args:
        runs: two or more; the first is what the others are compared with.
        out: folder for ``compare.csv``, ``compare.json``, ``boxplot.png`` and ``boxplot.svg``; None writes nothing.
        names: of the runs; None takes them from the paths.
        metric: a metric of the scores.
        labels: the structures; None takes all, which must be the same in all runs.
        per: "case", "slice" or "patient".

    Raises:
        UsageError: fewer than two runs, names that do not fit, an unknown metric or unit of comparison.
        InputError: a run without scores, units that differ, or no common case.
        LabelError: the runs do not have the same structures.
        OutputError: ``out`` cannot be written.
    """
    if len(runs) < 2:
        raise UsageError(f"a comparison needs at least two runs, found {len(runs)}")
    if per not in UNITS:
        raise UsageError(f"runs are compared per {', '.join(UNITS)}, not per {per!r}")
    found = tuple(load_run(Path(path), name, per) for path, name in zip(runs, name_runs(runs, names), strict=True))
    compared = _pair(found, metric, _common_labels(found, labels), per)
    if out is not None:
        write(compared, out)
    return compared


def write(compared: Compared, out: str | Path) -> None:
    """Write the tables and the box plots into the folder ``out``.

    Raises:
        OutputError: it cannot be written.
    """
    from .box_plot import box_plot

    folder = make_folder(out)
    write_text(folder / "compare.csv", compared.to_csv())
    write_text(folder / "compare.json", compared.to_json())
    groups = dict(compared.values) | ({OVERALL: compared.overall} if len(compared.labels) > 1 else {})
    box_plot(groups, compared.names, _metric_words(compared), compared.per, (folder / "boxplot.png", folder / "boxplot.svg"))


def table(compared: Compared) -> Table:
    """A table for the terminal: of each structure a row a run, with its difference to the first."""
    from rich.table import Table

    many = f"{len(compared.cases)} {compared.per}{'s' * (len(compared.cases) != 1)}"
    shown = Table(title=f"{_metric_words(compared)} of {many} that all runs have", caption="\n".join(_caption(compared)))
    shown.add_column("structure")
    shown.add_column("run")
    for name in ("n", "mean", "median", "quartiles", "min", "max", f"difference to {compared.names[0]}", "better", "worse", "equal"):
        shown.add_column(name, justify="right")
    shown_results = {k: v for k, v in compared.results.items() if k != OVERALL or len(compared.labels) > 1}
    for label, figures in shown_results.items():
        shown.add_section()
        for number, run in enumerate(compared.names):
            shown.add_row(label if number == 0 else "", run, *_row(figures, run, _digits(compared)))
    return shown


# ---- pairing ----


def _common_labels(runs: Sequence[ScoredRun], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The structures to compare.

    Raises:
        LabelError: a run lacks one that is wanted, or the runs do not have the same ones.
    """
    for run in runs:
        lacking = [label for label in wanted or () if label not in run.labels]
        if lacking:
            raise LabelError(f"run {run.name} has no structure {joined(lacking, 4)}; it has {joined(list(run.labels), 8)}", path=run.path)
    if wanted:
        return tuple(dict.fromkeys(wanted))
    first = runs[0]
    for run in runs[1:]:
        only = [[x for x in a.labels if x not in b.labels] for a, b in ((first, run), (run, first))]
        if any(only):
            words = [f"only {r.name} has {joined(names, 6)}" for r, names in zip((first, run), only, strict=True) if names]
            raise LabelError(f"the runs do not have the same structures: {' and '.join(words)}; choose common ones with --label", path=run.path)
    return first.labels


def _pair(runs: tuple[ScoredRun, ...], metric: str, labels: tuple[str, ...], per: str) -> Compared:
    unit = _unit(runs, metric)
    looked_up = [_lookup(run, metric) for run in runs]
    ids = [_ids(run, per) for run in runs]
    everything = dict.fromkeys(i for found in ids for i in found)
    covered = [set(found) if per != "slice" else set(run.cases) for found, run in zip(ids, runs, strict=True)]

    def lacking(one: str) -> tuple[str, ...]:
        key = one if per != "slice" else one.rpartition("#")[0] or one  # a slice without a row is not defined there, its volume was scored
        return tuple(run.name for run, cases in zip(runs, covered, strict=True) if key not in cases)

    left_out = {one: names for one in everything if (names := lacking(one))}
    common = tuple(one for one in everything if one not in left_out)
    if not common:
        raise InputError(
            f"the runs have no {per} in common: {'; '.join(f'{r.name} has {joined(list(i)[:6], 4)}' for r, i in zip(runs, ids, strict=True))}"
        )
    nothing = float("nan")
    values = {label: np.array([[found.get((one, label), nothing) for one in common] for found in looked_up]) for label in labels}
    groups = tuple(_group_of(runs, one, per) for one in common)
    return Compared(runs, metric, unit, per, labels, common, groups, values, left_out, tuple(_warnings(runs, per)))


def _ids(run: ScoredRun, per: str) -> list[str]:
    """Of cases all that were scored; of slices and patients those with a row."""
    return list(dict.fromkeys([*run.cases, *(r.case for r in run.scores)] if per == "case" else [r.case for r in run.scores]))


def _unit(runs: Sequence[ScoredRun], metric: str) -> str:
    """The metric's unit.

    Raises:
        UsageError: a run does not have the metric.
        InputError: the units differ.
    """
    units: dict[str, str] = {}
    for run in runs:
        unit = next((r.unit for r in run.scores if r.metric == metric), None)
        if unit is None:
            raise UsageError(f"run {run.name} has no {metric!r}; it has {', '.join(run.scores.metrics) or 'no metric at all'}", path=run.path)
        units[run.name] = unit
    if len(set(units.values())) > 1:
        raise InputError(f"{metric} has not one unit: {', '.join(f'{u or chr(39) * 2} in {n}' for n, u in units.items())}")
    return next(iter(units.values()))


def _lookup(run: ScoredRun, metric: str) -> dict[tuple[str, str], float]:
    return {(r.case, r.label): r.value for r in run.scores if r.metric == metric}


def _group_of(runs: Sequence[ScoredRun], one: str, per: str) -> str:
    """The patient of a case or slice, or the case where nobody knows."""
    case = one.rpartition("#")[0] or one if per == "slice" else one
    return next((run.patients[case] for run in runs if case in run.patients), case)


def _warnings(runs: Sequence[ScoredRun], per: str) -> list[str]:
    out = [f"{run.name} shows {run.what} scores: these cases chose its checkpoint, so its figures are optimistic"
           for run in runs if run.what in CHOSEN_ON]  # fmt: skip
    first = runs[0]
    for run in runs[1:]:
        both = [c for c in first.truths if c in run.truths]
        other = [c for c in both if _differ(first.truths[c], run.truths[c])]
        if other:
            out.append(f"{run.name} was scored against other truths than {first.name} in {len(other)} of {len(both)} cases, such as {other[0]}")
    common = set(first.cases).intersection(*(run.cases for run in runs[1:]))
    if per != "patient" and not any(c in run.patients for run in runs for c in common):
        out.append("whose the cases are is not known: intervals take each case as a patient of its own, too narrow where patients have several")
    return out


def _differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two (file, SHA-256) are known to be of different truths; by the file alone where a hash is missing."""
    if one[1] and other[1]:
        return one[1] != other[1]
    return bool(one[0] and other[0]) and Path(one[0]).absolute() != Path(other[0]).absolute()


# ---- figures ----


def _figures(compared: Compared, values: Floats) -> dict[str, Any]:
    """Of one structure: each run's description over the cases defined in every run, and each later run's difference to the first.

    Args:
        values: (runs, C).
    """
    defined = np.flatnonzero(np.isfinite(values).all(axis=0))
    kept = values[:, defined]
    groups = [compared.groups[k] for k in defined]
    runs = {name: describe(v) | {"undefined": int(np.isnan(row).sum())} for name, v, row in zip(compared.names, kept, values, strict=True)}
    differences = [_difference(kept[0], kept[k], groups, compared.metric) | {"run": compared.names[k], "to": compared.names[0]}
                   for k in range(1, len(kept))]  # fmt: skip
    return {"n": len(defined), "patients": len(set(groups)), "runs": runs, "differences": differences}


def _difference(first: Floats, other: Floats, groups: Sequence[str], metric: str) -> dict[str, Any]:
    """``other`` minus ``first``, both (n,): mean, median, the interval of the mean, and how often which is better (null where neither is)."""
    found = describe(other - first)
    low, high = bootstrap(other - first, groups)
    gain = {HIGHER: other - first, LOWER: first - other, NEARER_ZERO: np.abs(first) - np.abs(other)}.get(BETTER_IS.get(metric, ""))
    counts = {"better": None, "worse": None, "equal": int((np.abs(other - first) <= EQUAL).sum())}
    if gain is not None:
        counts = {"better": int((gain > EQUAL).sum()), "worse": int((gain < -EQUAL).sum()), "equal": int((np.abs(gain) <= EQUAL).sum())}
    return {"n": found["n"], "mean": found["mean"], "median": found["median"], "low95": low, "high95": high, **counts}


def bootstrap(differences: Floats, groups: Sequence[str]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean difference, from ``RESAMPLES`` resamplings of patients with all their cases.

    Args:
        differences: (n,) of cases; finite.
        groups: (n,) the patient of each.

    Returns:
        Lower and upper end; NaN where there are fewer than two patients.
    """
    patients = {p: k for k, p in enumerate(dict.fromkeys(groups))}
    if len(patients) < 2:
        return float("nan"), float("nan")
    index = np.array([patients[g] for g in groups])
    sums, counts = np.bincount(index, weights=differences), np.bincount(index).astype(float)
    drawn = _drawn(len(patients))
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), INTERVAL)
    return float(low), float(high)


@functools.lru_cache(maxsize=2)
def _drawn(patients: int) -> NDArray[np.float32]:
    """(RESAMPLES, patients) how often each is drawn in each resampling; the same for every structure."""
    rng, rows = np.random.default_rng(SEED), 500  # so many at a time, to hold memory down
    out = np.empty((RESAMPLES, patients), np.float32)
    for start in range(0, RESAMPLES, rows):
        picks = rng.integers(0, patients, (rows, patients)) + patients * np.arange(rows)[:, None]
        out[start : start + rows] = np.bincount(picks.ravel(), minlength=rows * patients).reshape(rows, patients)
    return out


# ---- words ----


def _metric_words(compared: Compared) -> str:
    name = spelled(compared.metric.removesuffix("_ml").removesuffix("_percent"))
    return f"{name[0].upper()}{name[1:]}" + (f", {compared.unit}" if compared.unit else "")


def _digits(compared: Compared) -> int | None:
    """Digits after the point of a ratio; None writes three that matter."""
    return None if compared.unit else 3


def _row(figures: dict[str, Any], run: str, digits: int | None) -> list[str]:
    def text(value: Any, sign: bool = False) -> str:
        words = number_text(value) if digits is None else decimals(value, digits)
        return f"+{words}" if sign and words[0].isdigit() else words

    d = figures["runs"][run]
    found = next((x for x in figures["differences"] if x["run"] == run), None)
    cells = [str(d["n"]), text(d["mean"]), text(d["median"]), f"{text(d['q1'])} to {text(d['q3'])}", text(d["min"]), text(d["max"])]
    if found is None:
        return [*cells, "", "", "", ""]
    interval = f" [{text(found['low95'], True)}, {text(found['high95'], True)}]" if np.isfinite(found["low95"]) else " [one patient]"
    return [*cells, text(found["mean"], True) + interval, *("–" if found[k] is None else str(found[k]) for k in ("better", "worse", "equal"))]


def _caption(compared: Compared) -> list[str]:
    better = BETTER_IS.get(compared.metric)
    lines = [f"differences: mean, 95 % interval from {RESAMPLES} resamplings of patients" + (f"; better is {better}" if better else "")]
    if compared.left_out:
        first = [f"{one} (not in {joined(list(names), 4)})" for one, names in list(compared.left_out.items())[:5]]
        lines.append(f"left out, {len(compared.left_out)}: {', '.join(first)}{' ...' if len(compared.left_out) > 5 else ''}")
    undefined = {name: sum(v["runs"][name]["undefined"] for k, v in compared.results.items() if k != OVERALL) for name in compared.names}
    if any(undefined.values()):
        lines.append("not defined and left out: " + ", ".join(f"{n} in {name}" for name, n in undefined.items()))
    return [*lines, *(f"warning: {w}" for w in compared.warnings)]
