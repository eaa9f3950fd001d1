"""Scoring of predictions against truths: every metric with its definition.

``score`` counts and measures each pair once (``counting.count_pair``), decides what the label
values of all cases mean, and gathers the result: one row per case, structure and metric, a summary,
means under their full names, pooled values, and everything that was left out.
``EvaluationResult.to_json`` is the text of ``scores.json``. ``commands.evaluate`` pairs the files
and writes the results.

The means of one cohort can differ much, so each is always named: *pooled* is computed from the
voxels of all cases together; *mean per case*, *per slice* and *per patient* are averages of the
values of all cases, slices and patients.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..core.errors import DelineateError, InputError, LabelError, UsageError
from ..core.labels import FOREGROUND, LabelSet
from ..core.progress import Progress, silent
from ..core.scores import HIGHER, LOWER, NEARER_ZERO, Score, Scores, better_is, finite_mean, judged
from ..execution.executor import LOCALLY, Work
from ..execution.kept import Kept
from ..execution.local import Outcome, workers_for
from ..metrics import overlap, statistics
from ..metrics.by_slice import SliceCounts
from ..metrics.confusion import Confusion, pool
from ..metrics.overlap import MEASURES, Counts, Floats
from ..metrics.selection import NOTHING, MetricSelection
from ..metrics.surface import Elements, How, SurfaceSettings
from .counting import MOST_CONFUSED, NEAR_MM, CaseCounts, count_pair, files_beside
from .declared import prediction_records, recorded_flags
from .masks import HALF, Reading, is_soft
from .pairing import Pair, Pairing, source_of
from .slice_scores import AXIS_WORDS, SliceScores

if TYPE_CHECKING:
    from ..trust.calibration import Calibration, Reliability

WITHOUT_TRUTH = "prediction without truth"  # a reason, and a key of what is not paired
SURFACES = SurfaceSettings()
STANDARD = MetricSelection(SURFACES)
CALIBRATED = {
    "ece": "Expected calibration error (ECE) of the structure's probability: mean absolute gap "
    "between accuracy and confidence (15 bins), within "
    f"{NEAR_MM:g} mm of the bounding box of the true structures (Guo 2017).",
    "brier": "Brier score: mean squared difference between the structure's probability and the "
    f"truth (0 or 1), within {NEAR_MM:g} mm of the bounding box of the true structures "
    "(Brier 1950).",
}
judged(CALIBRATED)
CALIBRATION_WORDS = (
    f"over the voxels of all cases within {NEAR_MM:g} mm of the bounding box of the true "
    "structures; together: for the most probable class; 15 bins of equal width"
)
CONFUSION_WORDS = (
    "number of voxels of all cases together; rows: reference labels; columns: predicted labels; "
    "the background comes first in both"
)
WORST = 3  # worst cases that the summary of a structure names
BYTES_PER_SECOND = 3e5  # compressed label maps that one core reads and counts


@dataclass(frozen=True)
class CaseScores:
    """One scored case: its files, its patient ("" if unknown), the SHA-256 of the truth's voxels
    (see ``masks.digest``), and the flags of its prediction (see ``trust.plausibility``; None if
    nothing records them).
    """

    case: str
    prediction: str
    truth: str
    patient: str = ""
    truth_sha256: str = ""
    flags: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation.

    Args:
        scores: case x structure x metric.
        pooled: structure -> metric -> value, from the summed counts of all cases.
        labels: the structures.
        slices: the scores per slice of the cases that are volumes; None if every case is a 2-D
            image.
        patients: patient x structure x metric, pooled over each patient's cases; None if no patient
            has several cases, or a patient is unknown.
        planar: whether every case is a 2-D image, so that each case is a slice.
        stacked: whether every case is a folder of 2-D slices, read as one volume.
        cases: the scored cases.
        unpaired: "prediction without truth" and "truth without prediction" -> names.
        failures: name -> why it could not be scored, including predictions without truth.
        pictures: the files that were drawn.
        montages: for the best, the median and the worst case: which of them, case, Dice, and file
            (None with the reason if it could not be drawn).
        generalised_dice: mean over cases of the generalised Dice (Sudre 2017); NaN if it is defined
            for none.
        calibration: of the probabilities next to the predictions, for all cases together; None
            without probabilities.
        confusion: the confusion matrix of all cases: (structures + 1)² voxels, truth x prediction,
            the background first.
        notes: what was assumed.
        chosen: what was measured in addition to the overlap.
        learned: "training" and "validation" -> structure -> Dice of the cases from which the model
            learned, if the predictions record it (``learned.learned_dice``).
    """

    scores: Scores
    pooled: dict[str, dict[str, float]]
    labels: LabelSet
    slices: SliceScores | None = None
    patients: Scores | None = None
    planar: bool = False
    stacked: bool = False
    cases: tuple[CaseScores, ...] = ()
    unpaired: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    montages: tuple[dict[str, Any], ...] | None = None
    generalised_dice: float = float("nan")
    calibration: Calibration | None = None
    confusion: Confusion | None = None
    notes: tuple[str, ...] = ()
    chosen: MetricSelection = NOTHING
    learned: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if every prediction was scored, else 1."""
        return 1 if self.failures else 0

    def means(self, metric: str = "dice") -> dict[str, float]:
        """Every mean of ``metric`` ("dice" or "iou") over the structures, under its full name, such
        as "dice_mean_per_slice".

        The pooled mean and the means per case and per slice are always included, the mean per
        patient only if the patients are known.
        """
        units = "slices" if self.planar or self.stacked else "cases"
        per_case = self.scores.mean(metric)
        found = {
            f"{metric}_pooled_over_all_{units}": finite_mean(
                [m[metric] for m in self.pooled.values() if metric in m]
            ),
            f"{metric}_mean_per_case": per_case,
            f"{metric}_mean_per_slice": per_case
            if self.slices is None
            else self.slices.mean(metric),
        }
        if self.patients is not None:
            found[f"{metric}_mean_per_patient"] = self.patients.mean(metric)
        elif all(c.patient for c in self.cases):  # each patient has one case
            found[f"{metric}_mean_per_patient"] = per_case
        return found

    @functools.cached_property
    def summary(self) -> list[dict[str, Any]]:
        """One row per structure and metric: ``core.scores.describe``, the 95 % interval of the mean
        by patient (``low95``, ``high95``), and the worst cases.
        """
        return self.scores.summary(self._interval_and_worst)

    def _interval_and_worst(
        self, metric: str, cases: Sequence[str], values: Floats
    ) -> dict[str, Any]:
        """What ``summary`` adds to the statistics of one structure and metric."""
        patients = {c.case: c.patient or c.case for c in self.cases}
        finite = np.flatnonzero(np.isfinite(values))
        low, high = statistics.interval(
            values[finite], [patients.get(cases[k], cases[k]) for k in finite.tolist()]
        )
        # NaN has no rank: a case without a value is never among the worst.
        badness = {HIGHER: -values, LOWER: values, NEARER_ZERO: np.abs(values)}.get(
            better_is(metric) or ""
        )
        worst = (
            []
            if badness is None
            else [
                cases[k]
                for k in np.argsort(-badness, kind="stable").tolist()
                if not np.isnan(values[k])
            ][:WORST]
        )
        return {"low95": low, "high95": high, "worst": worst}

    def to_json(self) -> str:
        """The text of ``scores.json``."""
        more: dict[str, Any] = {}
        if self.slices is not None:
            more["slices"] = {
                "definition": AXIS_WORDS,
                "slices": self.slices.slices,
                "rows": "slices.csv",
                "summary": self.slices.summary(),
            }
        if self.patients is not None:
            more["patients"] = {"summary": self.patients.summary(), "rows": _plain(self.patients)}
        if self.montages is not None:
            more["montages"] = list(self.montages)
        if self.calibration is not None:
            more["calibration"] = _calibration_json(self.calibration, self.labels)
        if self.confusion is not None:
            more["confusion"] = {
                "definition": CONFUSION_WORDS,
                "names": ["background", *self.labels.names],
                "voxels": self.confusion.voxels.tolist(),
            }
        if self.learned:
            more["learned_dice"] = self.learned
        means = {k: v for m in ("dice", "iou") for k, v in self.means(m).items()} | {
            "generalised_dice_mean_per_case": self.generalised_dice
        }
        return self.scores.to_json(
            summary=self.summary,
            means=means,
            pooled=self.pooled,
            labels=self.labels.to_json(),
            planar=self.planar,
            cases=[vars(c) for c in self.cases],
            unpaired={k: list(v) for k, v in self.unpaired.items()},
            failures=self.failures,
            notes=list(self.notes),
            pictures=[f"pictures/{Path(p).name}" for p in self.pictures],
            definitions=definitions(self.chosen),
            **more,
        )


def counted_cases(
    pairing: Pairing,
    known: LabelSet | None,
    chosen: MetricSelection = STANDARD,
    *,
    work: Work = LOCALLY,
    folder: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[Outcome[CaseCounts]]:
    """Count every pair of the shard of ``work``; arguments as for ``score``."""
    pairs = [one for one in pairing.pairs if work.shard.has(one.case)]
    if workers is None and work.is_local:
        workers = workers_for(_seconds(pairs), len(pairs))
    values = None if known is None else tuple(known.values)
    return kept_counts(folder, values, chosen).run(
        work,
        functools.partial(count_pair, values=values, chosen=chosen),
        pairs,
        names=[p.case for p in pairs],
        workers=workers,
        stage="evaluate",
        progress=progress,
    )


def kept_counts(
    folder: Path | None,
    values: tuple[int, ...] | None = None,
    chosen: MetricSelection = STANDARD,
) -> Kept:
    """The counts that shards keep in ``folder``."""
    from ..trust.calibration import Calibration, Reliability

    return Kept(
        folder,
        "counts.jsonl",
        (CaseCounts, Counts, SliceCounts, Confusion, Calibration, Reliability),
        [values, repr(chosen.surfaces), sorted(chosen.also)],
        files_beside,
    )


def score(
    pairing: Pairing,
    known: LabelSet | None,
    notes: list[str],
    chosen: MetricSelection = STANDARD,
    *,
    work: Work = LOCALLY,
    folder: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[EvaluationResult, Reading | None]:
    """Count and measure every pair.

    Args:
        pairing: which prediction belongs to which truth (``pairing.pair``).
        known: the structures (see ``declared.declared_labels``); None uses every value of the
            truths.
        notes: what was assumed so far; further assumptions are appended.
        chosen: what is measured in addition to the overlap.
        work: where pairs are counted.
        folder: of the results, where shards may have kept counts; None has none.
        workers, progress: see ``execution.local.run``.

    Returns:
        The result, and how the masks were read if they are masks of one structure (else None).

    Raises:
        InputError: no case could be scored (with the first reason).
        LabelError: the predictions have values that no truth has, and no names declare them.
    """
    outcomes = counted_cases(
        pairing, known, chosen, work=work, folder=folder, workers=workers, progress=progress
    )
    # A failed case does not stop the others; only if all fail is the first error raised.
    failures = {o.name: str(o.error) for o in outcomes if o.error is not None}
    counted = [o.value for o in outcomes if o.value is not None]
    if not counted:
        _give_up(outcomes)
    resolved = _resolve(counted, known, notes)
    return _gather(counted, pairing, resolved, failures, notes, chosen), resolved.reading


def surface_choices(elements: str, how: str, tolerance_mm: float) -> SurfaceSettings | None:
    """The surface settings for the options of the command line; None for no distances.

    Raises:
        UsageError: an unknown choice, or a tolerance that is not positive.
    """
    for word, allowed in (
        (elements, ("surfels", "voxels", "inner_voxels", "none")),
        (how, ("directed", "pooled")),
    ):
        if word not in allowed:
            raise UsageError(f"found {word!r}, allowed are {', '.join(allowed)}")
    if not tolerance_mm > 0:
        raise UsageError(f"the tolerance must be positive, found {tolerance_mm:g} mm")
    if elements == "none":
        return None
    return SurfaceSettings(cast(Elements, elements), cast(How, how), tolerance_mm)


def definitions(chosen: MetricSelection = STANDARD) -> dict[str, str]:
    """Metric -> its definition, as the report prints it."""
    by_overlap = {
        name: " ".join((function.__doc__ or "").split()) for name, (_, function) in MEASURES.items()
    }
    by_choice = {name: definition for name, (_, definition) in chosen.metrics().items()}
    return by_overlap | by_choice | CALIBRATED


def _seconds(pairs: Sequence[Pair]) -> float:
    """The approximate time of reading and counting in one process, from the predictions' file
    sizes.
    """
    files = [Path(source_of(p.prediction)) for p in pairs]
    return sum(f.stat().st_size for f in files if f.is_file()) / BYTES_PER_SECOND + 0.01 * len(
        files
    )


# ---- all cases together ----


@dataclass(frozen=True)
class _ResolvedCases:
    """The structures, and the counts and measures of each case for them.

    Args:
        labels: the structures.
        cases: case -> counts.
        slices: case -> counts per slice, for volumes.
        measured: case -> measure -> values, in the order of ``labels``.
        confusion: of all cases; None for masks of one structure, where the counts say the same, or
            if there are too many structures.
        calibration: of all cases; None without probabilities.
        reading: how masks of one structure were read; None for labels.
    """

    labels: LabelSet
    cases: dict[str, Counts]
    slices: dict[str, SliceCounts]
    measured: dict[str, dict[str, Floats]]
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    reading: Reading | None = None

    @property
    def is_sized(self) -> bool:
        """Whether the voxel size is known for any case."""
        return any(not np.isnan(c.truth_ml).any() for c in self.cases.values())

    @property
    def metrics(self) -> list[str]:
        """The overlap measures; without volumes in ml if no voxel size is known."""
        return [m for m in MEASURES if self.is_sized or MEASURES[m][0] != "ml"]

    def pooled(self) -> dict[str, dict[str, float]]:
        """Structure -> metric -> value, from the summed counts of all cases."""
        counts = overlap.pool(self.cases.values())
        values = {m: MEASURES[m][1](counts) for m in self.metrics}
        return {
            name: {m: float(values[m][i]) for m in values}
            for i, name in enumerate(self.labels.names)
        }


def _gather(
    counted: list[CaseCounts],
    pairing: Pairing,
    found: _ResolvedCases,
    failures: dict[str, str],
    notes: list[str],
    chosen: MetricSelection,
) -> EvaluationResult:
    """The result of the evaluation, from the counts, the pairing and the assumptions."""
    if not found.is_sized:
        distances = "" if chosen.surfaces is None else " and no distances in mm"
        notes.append(f"the voxel size is unknown: no volumes in ml{distances}")
    # Only cases that could be counted are in the result, in the order of the pairing.
    digests = {c.case: c.truth_sha256 for c in counted}
    done = [p for p in pairing.pairs if p.case in digests]
    records = prediction_records({source_of(p.prediction) for p in done})
    flags = recorded_flags(records)
    case_notes = dict.fromkeys(note for c in counted for note in c.notes)
    return EvaluationResult(
        scores=_scores(found.cases, found.labels, found.metrics, found.measured, chosen),
        pooled=found.pooled(),
        labels=found.labels,
        slices=SliceScores(found.slices, found.labels) if found.slices else None,
        patients=_by_patient(counted, found),
        planar=all(c.planar for c in counted),
        stacked=all(p.stacked for p in done),
        cases=tuple(
            CaseScores(
                p.case,
                source := source_of(p.prediction),
                _truth_path(p),
                p.patient,
                digests[p.case],
                flags.get(source),
            )
            for p in done
        ),
        unpaired={
            WITHOUT_TRUTH: pairing.without_truth,
            "truth without prediction": pairing.without_prediction,
        },
        failures=failures | dict.fromkeys(pairing.without_truth, WITHOUT_TRUTH),
        notes=(*pairing.notes, *notes, *case_notes),
        chosen=chosen,
        calibration=found.calibration,
        generalised_dice=finite_mean(overlap.generalised_dice(c) for c in found.cases.values()),
        confusion=found.confusion,
        learned=next((r["learned_dice"] for r in records.values() if r.get("learned_dice")), {}),
    )


def _by_patient(counted: list[CaseCounts], found: _ResolvedCases) -> Scores | None:
    """The scores of each patient's cases together; None if no patient has several cases, or a
    patient is unknown.
    """
    patients: dict[str, list[Counts]] = {}
    for c in counted:
        patients.setdefault(c.patient, []).append(found.cases[c.case])
    if "" in patients or len(patients) == len(counted):
        return None
    pooled = {patient: overlap.pool(counts) for patient, counts in patients.items()}
    return _scores(pooled, found.labels, found.metrics)


def _resolve(counted: list[CaseCounts], known: LabelSet | None, notes: list[str]) -> _ResolvedCases:
    """Decide what the values of all cases mean: the declared structures, masks of one structure, or
    one structure per value.

    Raises:
        LabelError: nothing declares the structures, and the predictions have values that no truth
            has.
    """
    predicted = {v for c in counted for v in c.predicted}
    true = {v for c in counted for v in c.true}
    # Without declared structures, one value per side (0/63 and 0/255) or soft edges mean one mask.
    soft = is_soft(predicted), is_soft(true)
    if known is None and _is_one_structure(counted, predicted, true, soft):
        notes.extend(_foreground_notes(predicted, true, soft))
        return _as_foreground(counted, soft)
    if known is None:
        _refuse_unknown_values(counted, predicted, true)
    # Every case gets the same structures in the same order; a structure it lacks counts as empty.
    labels = known if known is not None else LabelSet.from_names({v: f"label {v}" for v in true})
    return _ResolvedCases(
        labels,
        {c.case: c.counts.of(labels.values) for c in counted},
        {c.case: c.slices for c in counted if c.slices is not None},
        {c.case: _in_order(c, labels.values) for c in counted},
        _pooled_confusion(counted, labels),
        _pooled_calibration([c.calibration for c in counted if c.calibration is not None]),
    )


def _is_one_structure(
    counted: list[CaseCounts], predicted: set[int], true: set[int], soft: Reading
) -> bool:
    """Whether each side has at most one value, or the grey levels of a mask with smoothed edges."""
    sides = zip(soft, (predicted, true), strict=True)
    # The whole cohort must have counts for this reading: a 3-D mask has no soft reading.
    one_each = all(is_one or len(values) <= 1 for is_one, values in sides)
    return one_each and all(soft in c.foreground for c in counted)


def _as_foreground(counted: list[CaseCounts], soft: Reading) -> _ResolvedCases:
    """The counts of the chosen reading, with ``FOREGROUND`` as the only structure."""
    return _ResolvedCases(
        LabelSet.from_names({1: FOREGROUND}),
        {c.case: c.foreground[soft] for c in counted},
        {c.case: c.foreground_slices[soft] for c in counted if soft in c.foreground_slices},
        {c.case: c.foreground_measured[soft] for c in counted},
        reading=soft,
    )


def _refuse_unknown_values(counted: list[CaseCounts], predicted: set[int], true: set[int]) -> None:
    """Refuse predictions with values that no truth has, if nothing names the structures.

    Raises:
        LabelError: there are such values.
    """
    unknown = sorted(predicted - true)
    if unknown:
        raise LabelError(
            f"the predictions have the values {unknown}, which no truth has (the truths have "
            f"{sorted(true)}); name the structures (--labels) if this is intended",
            case=next(c.case for c in counted if unknown[0] in c.predicted),
        )


def _pooled_confusion(counted: list[CaseCounts], labels: LabelSet) -> Confusion | None:
    """The confusion matrix of all cases; None if there are too many structures."""
    if len(labels) > MOST_CONFUSED:
        return None
    found = [c.confusion.of(labels.values) for c in counted if c.confusion is not None]
    return pool(found) if found else None


def _pooled_calibration(found: list[Calibration]) -> Calibration | None:
    from ..trust.calibration import pool

    return pool(found) if found else None


def _in_order(counted: CaseCounts, values: Sequence[int]) -> dict[str, Floats]:
    """The case's measures of ``values``, in that order; NaN for a value that the case does not
    have.
    """
    place = {value: n for n, value in enumerate(counted.counts.values)}
    return {
        name: np.array([found[place[v]] if v in place else np.nan for v in values])
        for name, found in counted.measured.items()
    }


def _foreground_notes(predicted: set[int], true: set[int], soft: tuple[bool, bool]) -> list[str]:
    """What was assumed to read both sides as masks of one structure."""
    notes = [
        f"the {name} have {len(values)} grey levels up to 255: read as masks with soft edges, "
        f"values of at least {HALF} are {FOREGROUND}"
        for name, values, is_soft in (
            ("predictions", predicted, soft[0]),
            ("truths", true, soft[1]),
        )
        if is_soft
    ]
    if not any(soft) and predicted and true and predicted != true:
        notes.append(
            f"value {min(predicted)} of the predictions and {min(true)} of the truths were "
            f"compared as one structure, {FOREGROUND}"
        )
    return notes


def _calibration_json(found: Calibration, labels: LabelSet) -> dict[str, Any]:
    """The figures and the table of the reliability diagram, for all classes together and for each
    structure.
    """

    def one(part: Reliability) -> dict[str, Any]:
        return {
            "ece": part.ece,
            "brier": part.brier,
            "voxels": part.voxels,
            "count": part.count.tolist(),
            "mean_confidence": part.mean_confidence.tolist(),
            "right": part.accuracy.tolist(),
        }

    return {
        "definition": CALIBRATION_WORDS,
        "together": one(found.together),
        "structures": {
            name: one(part) for name, part in zip(labels.names, found.structures, strict=True)
        },
    }


def _scores(
    rows: dict[str, Counts],
    labels: LabelSet,
    metrics: list[str],
    measured: dict[str, dict[str, Floats]] | None = None,
    chosen: MetricSelection = NOTHING,
) -> Scores:
    """Counts and measures as rows of case x structure x metric; a row may be a patient."""
    out = []
    units = (
        {m: MEASURES[m][0] for m in metrics}
        | {m: unit for m, (unit, _) in chosen.metrics().items()}
        | dict.fromkeys(CALIBRATED, "")
    )
    for case, counts in rows.items():
        values = {m: MEASURES[m][1](counts) for m in metrics} | (measured or {}).get(case, {})
        out += [
            Score(case, name, m, float(values[m][i]), units[m])
            for i, name in enumerate(labels.names)
            for m in values
        ]
    return Scores(tuple(out))


def _truth_path(item: Pair) -> str:
    """The file or files of the truth, as text."""
    return (
        source_of(item.truth)
        if item.truth is not None
        else ", ".join(s.path for s in item.cohort.cases[0].label)
        if item.cohort
        else ""
    )


def _give_up(outcomes: list[Any]) -> None:
    """Raise the first case's error, with the number of further failures."""
    first = outcomes[0]
    more = f" (and {len(outcomes) - 1} more cases failed)" if len(outcomes) > 1 else ""
    if isinstance(first.error, DelineateError):
        first.error.message += more
        raise first.error
    raise InputError(f"{first.error}{more}", case=first.name)


def _plain(scores: Scores) -> list[dict[str, Any]]:
    """The rows as plain data for JSON."""
    return [
        {"case": r.case, "label": r.label, "metric": r.metric, "value": r.value, "unit": r.unit}
        for r in scores
    ]
