"""Comparison of two or more runs on the same cases, side by side and as differences.

A run is a training folder (MODEL.run), a model with that folder next to it, an evaluation folder,
or its ``scores.json`` or ``scores.csv``. Cases are paired by id and structure. If a run lacks a
case, an error names it; if only the common cases are requested, such cases are listed and left out,
so that all values of a table are of the same cases. Differences are to the first run, case by case;
``verdicts.py`` interprets them. The module computes no scores itself.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, LabelError, UsageError
from ..core.inputs import json_text
from ..core.scores import OVERALL, better_is, without_nan
from ..core.words import joined, spelled
from ..metrics.statistics import RESAMPLES, SEED, Floats
from .scored_runs import CHOSEN_ON, ScoredRun, load_run, name_runs
from .verdicts import adjust, figures, sentences

UNITS = ("case", "slice", "patient")
MOST_NAMED = 5  # cases that a message lists by name


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Args:
        runs: in the order given; the others are compared with the first.
        metric, unit, per: the metric, its unit ("" for a ratio), and "case", "slice" or "patient".
        labels: the structures.
        cases: the C paired ids.
        groups: (C,) the patient of each case, for resampling by patient.
        values: structure -> (runs, C), NaN where not defined.
        left_out: id -> the runs that lack it.
        warnings: what limits the fairness of the comparison.
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
        """The names of the runs, in order."""
        return [run.name for run in self.runs]

    @functools.cached_property
    def overall(self) -> Floats:
        """(runs, C) each case's mean over the structures that are defined in every run; NaN if no
        structure is, infinite if a value is infinite.
        """
        every = np.stack(
            [np.where(np.isnan(v).any(axis=0), np.nan, v) for v in self.values.values()]
        )
        defined = (~np.isnan(every)).sum(axis=0)
        return np.where(defined > 0, np.nansum(every, axis=0) / np.maximum(defined, 1), np.nan)

    @functools.cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """Structure (and ``OVERALL``) -> figures (see ``verdicts.figures``). For the Holm
        adjustment all structures are one family of tests, and their mean is another.
        """
        found = {
            name: figures(v, self.names, self.groups, self.metric)
            for name, v in self.values.items()
        }
        overall = {OVERALL: figures(self.overall, self.names, self.groups, self.metric)}
        adjust(found)
        adjust(overall)
        return found | overall

    @property
    def sentences(self) -> list[str]:
        """The result in words, one sentence per run after the first."""
        shown = {k: v for k, v in self.results.items() if k != OVERALL}
        return sentences(shown, self.names, self.metric, self.unit, self.per)

    def to_csv(self) -> str:
        """The text of ``compare.csv``: one row per case and structure, one column per run; "nan" if
        not defined, empty if the run lacks the case.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["case", "patient", "label", "metric", "unit", *self.names])
        for label, values in self.values.items():
            for k, case in enumerate(self.cases):
                writer.writerow(
                    [
                        case,
                        self.groups[k],
                        label,
                        self.metric,
                        self.unit,
                        *(repr(float(v)) for v in values[:, k]),
                    ]
                )
        # Left-out cases come last, with the values of the runs that have them.
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
        runs = [
            {"name": r.name, "path": str(r.path), "what": r.what, "cases": len(r.cases)}
            for r in self.runs
        ]
        results = dict(self.results)
        overall = results.pop(OVERALL)
        return json_text(
            without_nan(
                {
                    "metric": self.metric,
                    "unit": self.unit,
                    "per": self.per,
                    "better_is": better_is(self.metric),
                    "runs": runs,
                    "sentences": self.sentences,
                    "paired": len(self.cases),
                    "left_out": {case: list(names) for case, names in self.left_out.items()},
                    "warnings": list(self.warnings),
                    "bootstrap": {
                        "resamples": RESAMPLES,
                        "seed": SEED,
                        "interval": "percentiles 2.5 to 97.5 of the mean difference",
                        "over": "patients",
                    },
                    "tests": "Wilcoxon signed-rank test, two-sided, of each patient's mean gain; "
                    "p_holm: adjusted over all structures and runs, for the mean over runs; "
                    "effect: matched-pairs rank-biserial correlation; ranks: within each "
                    "patient, then averaged",
                    "labels": results,
                    "overall": overall,
                }
            ),
            indent=1,
        )


def compare_runs(
    runs: Sequence[str | Path],
    *,
    names: Sequence[str] = (),
    metric: str = "dice",
    labels: Sequence[str] = (),
    per: str = "case",
    common: bool = False,
) -> Comparison:
    """Compare runs case by case.

    Args:
        runs: two or more; the others are compared with the first.
        names: of the runs; () derives them from the paths.
        metric: a metric of the scores.
        labels: the structures; () uses all, which must be the same in all runs.
        per: "case", "slice" or "patient".
        common: compare only the cases that all runs have.

    Raises:
        UsageError: fewer than two runs, an invalid list of names, or an unknown ``metric`` or
            ``per``.
        InputError: a run has no scores, units differ, no case is common to all runs, or (without
            ``common``) a run lacks a case.
        LabelError: the runs do not have the same structures.
    """
    if len(runs) < 2:
        raise UsageError(f"a comparison needs at least two runs, found {len(runs)}")
    if per not in UNITS:
        raise UsageError(f"runs can be compared per {', '.join(UNITS)}, not per {per!r}")
    found = tuple(
        load_run(Path(path), name, per)
        for path, name in zip(runs, name_runs(runs, names), strict=True)
    )
    compared = _pair(found, metric, _common_labels(found, labels), per)
    if compared.left_out and not common:
        raise InputError(
            f"not every run has every {per}: {lacking_words(compared.left_out)}; evaluate the "
            f"missing ones, or compare only the {len(compared.cases)} that all runs have (--common)"
        )
    return compared


# ---- pairing ----


def lacking_words(left_out: dict[str, tuple[str, ...]]) -> str:
    """The left-out cases, each with the runs that lack it; the first few by name."""
    words = [
        f"{one} (not in {joined(list(names), 4)})"
        for one, names in list(left_out.items())[:MOST_NAMED]
    ]
    return ", ".join(words) + (
        f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
    )


def _common_labels(runs: Sequence[ScoredRun], requested: Sequence[str]) -> tuple[str, ...]:
    """The structures to compare.

    Raises:
        LabelError: a run lacks a requested structure, or the runs do not have the same ones.
    """
    for run in runs:
        lacking = [label for label in requested if label not in run.labels]
        if lacking:
            raise LabelError(
                f"run {run.name} has no structure {joined(lacking, 4)}; it has "
                f"{joined(list(run.labels), 8)}",
                path=run.path,
            )
    if requested:
        return tuple(dict.fromkeys(requested))
    # None requested: every run must have the structures of the first.
    first = runs[0]
    for run in runs[1:]:
        only = [[x for x in a.labels if x not in b.labels] for a, b in ((first, run), (run, first))]
        if any(only):
            words = [
                f"only {r.name} has {joined(names, 6)}"
                for r, names in zip((first, run), only, strict=True)
                if names
            ]
            raise LabelError(
                f"the runs do not have the same structures: {' and '.join(words)}; choose "
                "common ones with --label",
                path=run.path,
            )
    return first.labels


def _pair(
    runs: tuple[ScoredRun, ...], metric: str, labels: tuple[str, ...], per: str
) -> Comparison:
    """The comparison of the cases that all runs have; the other cases are in ``left_out``.

    Raises:
        UsageError: a run does not have the metric.
        InputError: the units differ, or no case is common to all runs.
    """
    unit = _unit(runs, metric)
    looked_up = [_lookup(run, metric) for run in runs]
    ids = [_ids(run, per) for run in runs]
    common, left_out = _in_common(runs, ids, per)
    if not common:
        each = [f"{r.name} has {joined(list(i)[:6], 4)}" for r, i in zip(runs, ids, strict=True)]
        raise InputError(f"the runs have no {per} in common: {'; '.join(each)}")
    undefined = float("nan")
    values = {
        label: np.array(
            [[found.get((one, label), undefined) for one in common] for found in looked_up]
        )
        for label in labels
    }
    groups = tuple(_group_of(runs, one, per) for one in common)
    return Comparison(
        runs,
        metric,
        unit,
        per,
        labels,
        common,
        groups,
        values,
        left_out,
        tuple(_warnings(runs, per)),
    )


def _in_common(
    runs: tuple[ScoredRun, ...], ids: Sequence[Sequence[str]], per: str
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The ids that all runs have, and of the others the runs that lack them."""
    covered = [
        set(found) if per != "slice" else set(run.cases)
        for found, run in zip(ids, runs, strict=True)
    ]

    def lacking(one: str) -> tuple[str, ...]:
        # A slice without a row is "not defined" and not missing if its volume was scored.
        key = one if per != "slice" else one.rpartition("#")[0] or one
        return tuple(run.name for run, cases in zip(runs, covered, strict=True) if key not in cases)

    # All ids in the order in which the runs first have them.
    all_ids = dict.fromkeys(i for found in ids for i in found)
    left_out = {one: names for one in all_ids if (names := lacking(one))}
    return tuple(one for one in all_ids if one not in left_out), left_out


def _ids(run: ScoredRun, per: str) -> list[str]:
    """The ids of a run: all scored cases, or the slices or patients with a row."""
    return list(
        dict.fromkeys(
            [*run.cases, *(r.case for r in run.scores)]
            if per == "case"
            else [r.case for r in run.scores]
        )
    )


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
            raise UsageError(
                f"run {run.name} has no {metric!r}; it has "
                f"{', '.join(run.scores.metrics) or 'no metrics'}",
                path=run.path,
            )
        units[run.name] = unit
    if len(set(units.values())) > 1:
        raise InputError(
            f"the unit of {metric} differs between runs: "
            f"{', '.join(f'{u or chr(39) * 2} in {n}' for n, u in units.items())}"
        )
    return next(iter(units.values()))


def _lookup(run: ScoredRun, metric: str) -> dict[tuple[str, str], float]:
    """(case, structure) -> the run's value of the metric."""
    return {(r.case, r.label): r.value for r in run.scores if r.metric == metric}


def _group_of(runs: Sequence[ScoredRun], one: str, per: str) -> str:
    """The patient of a case or slice; the case itself if the patient is unknown."""
    case = one.rpartition("#")[0] or one if per == "slice" else one
    return next((run.patients[case] for run in runs if case in run.patients), case)


def _warnings(runs: Sequence[ScoredRun], per: str) -> list[str]:
    """Warnings about optimistic scores, different truths and unknown patients."""
    out = [
        f"the scores of {run.name} are {run.what} scores: its checkpoint was chosen on these "
        "cases, so they are optimistic"
        for run in runs
        if run.what in CHOSEN_ON
    ]
    first = runs[0]
    for run in runs[1:]:
        # Masks are compared by hash, so a moved folder of truths gives no warning.
        both = [c for c in first.truths if c in run.truths]
        other = [c for c in both if _differ(first.truths[c], run.truths[c])]
        if other:
            out.append(
                f"{run.name} and {first.name} were scored against different truths in "
                f"{len(other)} of {len(both)} cases, such as {other[0]}"
            )
    common = set(first.cases).intersection(*(run.cases for run in runs[1:]))
    if per != "patient" and not any(c in run.patients for run in runs for c in common):
        out.append(
            "the patients of the cases are not known: intervals treat each case as a separate "
            "patient, and are too narrow if a patient has several cases"
        )
    return out


def _differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two (file, SHA-256) pairs are known to be different truths; compared by file if a
    hash is missing.
    """
    if one[1] and other[1]:
        return one[1] != other[1]
    return bool(one[0] and other[0]) and Path(one[0]).absolute() != Path(other[0]).absolute()


# ---- words ----


def metric_words(compared: Comparison) -> str:
    """The metric and its unit, as the title of a plot or table."""
    name = spelled(compared.metric.removesuffix("_ml").removesuffix("_percent"))
    return f"{name[0].upper()}{name[1:]}" + (f", {compared.unit}" if compared.unit else "")
