"""The verdict on a training run, from the files that its steps left in its folder.

The rules are in ``evaluation.training_verdict``. Here their facts are gathered: the logs, the
scores of the held-out cases, the findings of the check, and the trivial baseline, which is measured
once on the prepared cases (``baseline.json``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...core.inputs import read_json_if_any
from ...core.manifest import Case
from ...core.scores import Scores
from ...core.store import Store
from ...evaluation.baseline import trivial_dice
from ...evaluation.training_verdict import (
    NetworkFacts,
    StructureFacts,
    TrainingFacts,
    Verdict,
    judge,
)
from ...planning.capacity import steps_wanted
from ...planning.rules import FEWEST_STEPS
from ...reporting.reported_run import ReportedRun
from .planned import NetworkJob, PlannedRun, views_of

BASELINE = "baseline.json"
COPIED = "same mask"
DOUBTS = ("order", "shifted", COPIED, "channels")  # findings about truths or channels of some cases
MOST_CASES = 64  # on each side; more would not change a baseline


def record_baseline(planned: PlannedRun) -> None:
    """Measure the trivial baseline of each structure on the prepared cases, mean over the folds;
    does nothing if an earlier start has done it.
    """
    run = planned.run
    if (run.folder / BASELINE).is_file():
        return
    found: dict[str, list[float]] = defaultdict(list)
    for fold in planned.folds:
        training, validating = (_labels(cases, run.store) for cases in planned.sides(fold))
        # Without validation cases the baseline is that of the training cases themselves.
        held_out = validating or training
        for name, dice in trivial_dice(training, held_out, planned.plan.labels).items():
            found[name].append(dice)
    run.save_json(BASELINE, {name: float(np.mean(dice)) for name, dice in found.items()})


def _labels(cases: Sequence[Case], store: Store) -> list[Any]:
    """The prepared label maps (I, J, K) of at most ``MOST_CASES``, evenly chosen."""
    chosen = np.unique(np.linspace(0, len(cases) - 1, min(MOST_CASES, len(cases))).astype(int))
    return [np.asarray(store.open(cases[int(n)].id).label[:]) for n in chosen]


def verdict_of(planned: PlannedRun, card: Mapping[str, Any], scores: Mapping[str, Any]) -> Verdict:
    """The verdict on a run whose held-out cases have been scored.

    Args:
        card: of the model so far; ``diverged`` has the networks whose loss was not finite.
        scores: of the card; empty if nothing was scored.
    """
    from ...inference.devices import choose_device

    run = planned.run
    recorded = ReportedRun.load(run.folder)
    scored = str(scores.get("what", "")) if scores.get("cases") else ""
    findings = recorded.findings or []
    return judge(
        TrainingFacts(
            networks=tuple(_networks(planned, recorded, card)),
            structures=tuple(_structures(planned, recorded, scored)),
            scored=scored,
            cases=int(scores.get("cases", 0)),
            not_scored=tuple(scores.get("not_scored", ())),
            exchanged=_exchanged(planned, recorded) if scored else {},
            sides_in_labels=_of_cohort(findings, "side"),
            drawn=_of_cohort(findings, "drawn"),
            copied=next((_unnamed(f) for f in findings if _are_mostly_copied(f)), ""),
            doubts=tuple(_unnamed(f) for f in findings if f["kind"] in DOUBTS),
            leaks=tuple(_leaks(planned, findings)),
            has_budget=run.request.budget_s is not None,
            on_cpu=choose_device(run.request.device).type == "cpu",
        )
    )


def _networks(
    planned: PlannedRun, recorded: ReportedRun, card: Mapping[str, Any]
) -> Iterator[NetworkFacts]:
    """The facts of each network that has a log."""
    for job in planned.jobs:
        log = recorded.logs.get(job.name, [])
        if not log:
            continue
        last, kept = log[-1], card.get("validation", {}).get(job.name, {})
        learned = card.get("training", {}).get(job.name, {})
        yield NetworkFacts(
            job.name,
            int(last["step"]),
            _wanted(planned, job),
            FEWEST_STEPS,
            last["seconds"] / max(1, last["step"]),
            job.name in card.get("diverged", {}) or last.get("loss") is None,
            _number(learned.get("train_dice_mean")),
            _number(kept.get("val_dice_mean")),
            tuple((ln["step"], ln["val_dice_mean"]) for ln in log if ln.get("val_dice_mean")),
        )


def _wanted(planned: PlannedRun, job: NetworkJob) -> float:
    """The number of steps that a network should be trained for: those of its schedule; by the
    clock, as many as planning looked for.
    """
    schedule = job.plan(planned.plan).schedule
    if schedule.epochs is not None:
        return float(schedule.epochs * schedule.steps_per_epoch)
    if schedule.steps is not None:
        return float(schedule.steps)
    return steps_wanted(schedule.budget_s, FEWEST_STEPS) / len(views_of(planned.plan))


def _structures(
    planned: PlannedRun, recorded: ReportedRun, scored: str
) -> Iterator[StructureFacts]:
    """The scores of each structure."""
    file = recorded.where / "scores.csv"
    rows = Scores.from_csv(file) if scored and file.is_file() else Scores(())
    values: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        if math.isfinite(row.value):
            values[row.label, row.metric].append((row.case, row.value))
    cases = (recorded.scores or {}).get("cases", [])
    patients = {case["case"]: case.get("patient") or case["case"] for case in cases}
    baseline = read_json_if_any(planned.run.folder / BASELINE) or {}
    for name in planned.plan.labels.names:
        dice, recall = values[name, "dice"], values[name, "recall"]
        yield StructureFacts(
            name,
            tuple(value for _, value in dice),
            tuple(patients.get(case, case) for case, _ in dice),
            len(recall),
            sum(value > 0 for _, value in recall),
            _number(baseline.get(name)),
        )


def _exchanged(planned: PlannedRun, recorded: ReportedRun) -> dict[tuple[str, str], float]:
    """Pairs of sided structures -> share of their voxels that have the name of the other side."""
    confusion = (recorded.scores or {}).get("confusion")
    if not confusion:
        return {}
    at = {name: n for n, name in enumerate(confusion["names"])}
    voxels, labels = np.array(confusion["voxels"], float), planned.plan.labels
    names = {label.value: label.name for label in labels}
    found = {}
    for left, right in labels.pairs:
        pair = names[left], names[right]
        if not all(name in at for name in pair):
            continue
        both = voxels[np.ix_([at[name] for name in pair], [at[name] for name in pair])]
        if both.sum():
            found[pair] = float((both[0, 1] + both[1, 0]) / both.sum())
    return found


def _of_cohort(findings: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The sentence of a finding about the whole cohort; "" if there is none of the kind."""
    return next((f["message"] for f in findings if f["kind"] == kind and not f["case"]), "")


def _are_mostly_copied(finding: Mapping[str, Any]) -> bool:
    """Whether half of the cases or more have one mask."""
    data = finding.get("data") or {}
    return finding["kind"] == COPIED and 2 * len(data["cases"]) >= int(data["of"])


def _unnamed(finding: Mapping[str, Any]) -> str:
    """The sentence of a finding about several cases without their ids."""
    if unnamed := (finding.get("data") or {}).get("unnamed"):
        return str(unnamed)
    before, _, rest = str(finding["message"]).partition(" (")
    return before + rest.partition(")")[2]


def _leaks(planned: PlannedRun, findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A clause for each finding of one patient under several names, on several sides."""
    folds = planned.folds

    def side(case: Case) -> Any:
        if case.split in ("test", "val"):
            return case.split
        return case.fold if len(folds) > 1 else case.fold is not None and case.fold == folds[0]

    sides = {case.id: side(case) for case in planned.manifest}
    for finding in findings:
        if finding["kind"] not in ("duplicate", "patient"):
            continue
        data = finding.get("data") or {}
        by_patient = data.get("patients")
        listed = data.get("cases") or (
            [case for cases in by_patient.values() for case in cases]
            if isinstance(by_patient, dict)
            else []
        )
        if len({sides[case] for case in listed if case in sides}) > 1:
            yield f"{finding['case']} {finding['message']}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
