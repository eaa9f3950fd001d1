"""Scoring what a run held out, and keeping enough of the budget for it: predictions, scores and
pictures on original grids.

Test cases are predicted by the whole bundle; validation cases each by the members that never saw
it. Nothing is chosen here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import InputError, OutputError
from ...core.manifest import Case, Manifest
from ...core.progress import under
from ...core.scores import describe
from ...evaluation.learned import SIDES
from ...evaluation.scoring import SURFACES, EvaluationResult
from ...execution import local as batch
from ...inference import placement
from ...planning import capacity
from ...planning.changes import parse_change
from .. import evaluate as evaluate_step
from .. import predict as predict_step
from ..options import EvaluateOptions, PredictOptions
from .model_file import ModelFile, without_coarse
from .planned import RESERVE_S, NetworkJob, PlannedRun, views_of
from .run import TrainingRun

# Of a budget, in addition to ``planned.RESERVE_S``: the last validation may take a hundredth.
RESERVE_SHARE = 0.012
# Of a budget, at most, for scoring training cases.
TRAINING_SHARE = 0.005
# Of a budget, at most, for choosing how to predict; ``POSTPROCESS_S`` without a budget.
POSTPROCESS_SHARE = 0.03
POSTPROCESS_S = 60.0
# Of that time, for the overlap, a coarse pass, and INT8; the rest is for postprocessing.
OVERLAP_SHARE, COARSE_SHARE, INT8_SHARE = 0.4, 0.2, 0.2
# Training cases whose structures tell where windows are needed.
POINTED = 32
# Cases drawn next to their truth, if the budget has time for it.
PICTURES = 12
PICTURE_S = 1.0
PICTURES_SHARE = 0.03
# The first use of a network, and how much slower than rehearsed a case may be: the components of
# each structure are counted too.
WARM_UP_S, SLOWER = 4.0, 2.0
# Distances of real surfaces take this many times as long as those of surfaces that coincide.
FARTHER = 3.0


def cases_to_score(planned: PlannedRun) -> Manifest:
    """Test cases with truth if there are any, else the validation cases of the trained folds."""
    manifest = planned.manifest
    test = tuple(c for c in manifest.with_truth() if c.split == "test")
    if test:
        return manifest.only(test)
    return manifest.only(case for fold in planned.folds for case in planned.sides(fold)[1])


def training_cases_s(run: TrainingRun) -> float | None:
    """Seconds for scoring training cases of a network; None without a budget."""
    budget_s = run.clock.stretch_s
    return None if budget_s is None else TRAINING_SHARE * budget_s


@dataclass(frozen=True)
class TimeReserve:
    """The part of a budget that is kept for what follows training, ``postprocess_s`` of it for
    choosing how to predict, ``finder_s`` for training what finds where structures are (None: no
    limit); and the cases that can be scored in it.
    """

    evaluation: Manifest
    total_s: float = 0.0
    postprocess_s: float = POSTPROCESS_S
    finder_s: float | None = None


def reserve(planned: PlannedRun, evaluation: Manifest) -> TimeReserve:
    """The time for what follows training, from one rehearsed prediction; fewer cases are scored if
    all would take too long.

    Training loses every second that is reserved and not needed, so the time is measured: a fixed
    share would be an hour of a day.
    """
    run = planned.run
    budget_s = run.clock.stretch_s
    if budget_s is None:
        return TimeReserve(evaluation)
    if not evaluation.cases:
        return TimeReserve(evaluation, finder_s=0.0)
    rehearsed = _rehearsed(planned, evaluation)
    if rehearsed is None:  # no case can be read any more; ``evaluate`` names them
        return TimeReserve(
            evaluation, RESERVE_S + (RESERVE_SHARE + TRAINING_SHARE) * budget_s, 0.0, 0.0
        )
    predict_s, distances_s, folds = *rehearsed, planned.folds
    postprocess_s = 0.0
    if passes := _passes(planned):
        postprocess_s = min(POSTPROCESS_SHARE * budget_s, WARM_UP_S + SLOWER * predict_s * passes)
    finder_s = _finder_s(planned, budget_s)
    base = (
        RESERVE_S
        + (RESERVE_SHARE + TRAINING_SHARE) * budget_s
        + postprocess_s
        + finder_s
        + PICTURE_S * min(_pictures(planned), len(evaluation))
    )
    each = predict_s * len(folds) * 1.3 + distances_s + 0.05
    most = max(1, int(0.3 * budget_s / each))
    if len(evaluation) > most:
        run.say(
            f"only {most} of {len(evaluation)} cases can be scored within the budget ({each:.1f} "
            "s each); `predict` and `evaluate` score all"
        )
        evaluation = evaluation.only(evaluation.cases[:most])
    return TimeReserve(evaluation, base + each * len(evaluation), postprocess_s, finder_s)


def _finder_s(planned: PlannedRun, budget_s: float) -> float:
    """The time for training what finds where structures are; 0 if that is of no use."""
    from ...inference.devices import choose_device

    stage = planned.plan.low_resolution
    if stage is None or not finder_may_save(planned):
        return 0.0
    most = stage.schedule.budget_s or budget_s
    step_s = capacity.measure_step(
        stage.network, stage.patch, stage.batch, choose_device(planned.run.request.device).type
    )
    return min(most, SLOWER * step_s * (stage.schedule.steps or 1))


def finder_may_save(planned: PlannedRun) -> bool:
    """Whether a coarse pass may be chosen, and the structures of the training cases fill so small a
    part of them that it can save windows.
    """
    if not choices_of(planned).coarse:
        return False
    from ...inference.coarse import may_save

    store = planned.run.store
    training = planned.sides(planned.folds[0])[0][:POINTED]
    return may_save(planned.plan, [store.open(case.id) for case in training])


@dataclass(frozen=True)
class Choices:
    """What is chosen on validation cases after training."""

    overlap: bool
    coarse: bool
    int8: bool
    postprocessing: bool


def choices_of(planned: PlannedRun) -> Choices:
    """What is chosen after training. A given plan, a recipe's plan and views are used as they are;
    so are an overlap that the user set, and 2-D plans apart from their overlap.
    """
    from ...inference.engine import gains_by_int8

    run, plan = planned.run, planned.plan
    is_free = not (run.request.plan or run.recipe is not None or plan.views)
    is_set = any(parse_change(text)[0].startswith("inference") for text in run.request.changes)
    overlap = is_free and not is_set
    int8, coarse = overlap and gains_by_int8(plan), overlap and plan.has_finder
    return Choices(overlap, coarse, int8, is_free and plan.dims == 3)


def _passes(planned: PlannedRun) -> float:
    """The number of predictions that choosing needs, each as long as one with the plan's overlap;
    0 if nothing is chosen.
    """
    plan, store, chosen = planned.plan, planned.run.store, choices_of(planned)
    validating = planned.sides(planned.folds[0])[1]
    passes = float(len(validating)) if chosen.postprocessing else 0.0
    for case in validating if chosen.overlap else ():
        # An overlap that leaves the windows as they are is not measured again.
        shape = store.open(case.id).shape
        counts = [placement.count(shape, plan.patch, overlap) for overlap in placement.OVERLAPS]
        if len(set(counts)) > 1:
            passes += sum(set(counts)) / counts[0]
    if chosen.coarse:
        passes += 1.5 * len(validating)  # all windows, and those of a part
    if chosen.int8:
        passes += 2.0 * len(validating)  # float and INT8
    return passes


def _pictures(planned: PlannedRun) -> int:
    """The number of cases to draw."""
    budget_s = planned.run.clock.stretch_s
    if budget_s is None:
        return PICTURES
    return min(PICTURES, int(PICTURES_SHARE * budget_s / PICTURE_S))


def _rehearsed(planned: PlannedRun, evaluation: Manifest) -> tuple[float, float] | None:
    """Seconds to predict and to measure the middle case, or the next one that can still be read;
    None if there is none.
    """
    middle = len(evaluation) // 2
    for case in (*evaluation.cases[middle:], *evaluation.cases[:middle]):
        try:
            return _rehearse(planned, case), _distances_s(planned, case)
        except InputError:
            continue
    return None


def _rehearse(planned: PlannedRun, case: Case) -> float:
    """Seconds to predict ``case`` with one fold's networks, measured with untrained weights."""
    import numpy as np

    from ...cohorts.reading import read_image
    from ...inference.devices import choose_device
    from ...inference.engine import Engine
    from ...inference.predictor import predict
    from ...networks.build import build, weights_of

    plan = without_coarse(planned.plan)
    jobs = [NetworkJob(None, view) for view in views_of(plan)]
    members = tuple(job.member(plan, weights_of(build(job.plan(plan).network, 0))) for job in jobs)
    engine = Engine.from_bundle(Bundle(plan, members), choose_device(planned.run.request.device))
    seconds = []
    # The first prediction compiles; the second is measured, unless the first took long.
    for _ in range(2):
        began = time.monotonic()
        predict(read_image(case, planned.manifest), engine)
        seconds.append(time.monotonic() - began)
        if seconds[0] > 5:
            break
    return float(np.min(seconds))


def _distances_s(planned: PlannedRun, case: Case) -> float:
    """Seconds that distances between surfaces may take: a multiple of the time for the truth
    against itself, which is the fastest case.
    """
    from ...cohorts.reading import read_label
    from ...metrics import surface

    labels = planned.manifest.labels
    truth = read_label(case, planned.manifest)
    # The first time imports and compiles.
    for _ in range(2):
        began = time.monotonic()
        surface.measure(truth.array, truth.array, labels.values, truth.grid.spacing_mm, SURFACES)
    return FARTHER * (time.monotonic() - began)


def evaluate(
    planned: PlannedRun, model: ModelFile, evaluation: Manifest
) -> tuple[dict[str, Any], list[str]]:
    """Predict and score on original grids: test cases with all members, validation cases each with
    the members that were not trained on it.

    Returns:
        The scores for the card, and the failures.
    """
    if not evaluation.cases:
        return {}, []
    run, is_test = planned.run, evaluation.cases[0].split == "test"
    folder = atomic.make_folder(run.folder / ("test" if is_test else "validation"))
    groups = _groups(model, evaluation, is_test)
    outcomes = _predict(planned, model, groups, folder / "predictions")
    failures = [str(o.error) for o in outcomes if o.error is not None]
    predicted = {o.name: o.seconds for o in outcomes if o.value is not None}
    scorable = evaluation.only(case for case in evaluation if case.id in predicted)
    scorable.save_record(folder / "manifest.jsonl")
    what = "test" if is_test else ("cross-validation" if len(groups) > 1 else "validation")
    unscored = {"what": what, "cases": 0, "not_scored": [case.id for case in evaluation]}
    if not predicted:
        names = ", ".join(case.id for case in evaluation)
        return unscored, [*failures, f"no {what} case could be predicted ({names})"]
    try:
        pictures = _pictures(planned)
        evaluated = evaluate_step.evaluate_cases(
            folder / "predictions",
            folder / "manifest.jsonl",
            folder,
            EvaluateOptions(pictures=pictures > 0, overwrite=True),
            most_pictures=pictures,
        )
    except InputError as error:  # no case could be scored; the model exists all the same
        names = ", ".join(case.id for case in scorable)
        return unscored, [*failures, f"no {what} case could be scored ({names}): {error}"]
    failures += [
        f"{what} case {name} could not be scored: {why}" for name, why in evaluated.failures.items()
    ]
    scores = _summary(planned, what, evaluation, evaluated)
    # Of one case, on the device of the training; ``predict --dry-run`` uses it.
    return scores | {"predict_s": round(median(predicted.values()), 2)}, failures


def _predict(
    planned: PlannedRun, model: ModelFile, groups: Sequence[tuple[Bundle, Manifest]], out: Path
) -> list[batch.Outcome[dict[str, Any]]]:
    """Segment the cases of each group with its members; the outcomes.

    Raises:
        OutputError: a mask or the journal could not be written.
    """
    run = planned.run
    # Masks of an earlier start must not be scored instead of those that cannot be made any more.
    shutil.rmtree(out, ignore_errors=True)
    outcomes: list[batch.Outcome[dict[str, Any]]] = []
    for part, cases in groups:
        # Graphs compiled for all members are kept for the model's first user.
        whole = len(part.members) == len(model.bundle.members)
        outcomes += predict_step.predict_cases(
            part,
            cases,
            out,
            PredictOptions(device=run.request.device, overwrite=True),
            model=run.model if whole else "",
            progress=under("evaluate", run.progress),
        )
    # A disk that failed is no fault of a case: the same command, given again, scores it.
    for outcome in outcomes:
        if isinstance(outcome.error, OutputError):
            raise outcome.error
    return outcomes


def _groups(model: ModelFile, evaluation: Manifest, is_test: bool) -> list[tuple[Bundle, Manifest]]:
    """Which members predict which cases."""
    folds = list(dict.fromkeys(m.fold for m in model.members))
    # The ranges of the training cases flag their predictions, as those of any other scan.
    keys = ("plausibility", *SIDES)
    card = {key: model.card[key] for key in keys if key in model.card}
    if is_test or len(folds) < 2:
        return [(replace(model.bundle, card=card), evaluation)]
    # What finds where structures are has seen cases of other folds than its own, so each is
    # segmented with all windows.
    plan = without_coarse(model.plan)
    return [
        (
            Bundle(plan, tuple(m for m in model.members if m.fold == fold), card),
            evaluation.only(c for c in evaluation if c.fold == fold),
        )
        for fold in folds
    ]


def _summary(
    planned: PlannedRun, what: str, evaluation: Manifest, evaluated: EvaluationResult
) -> dict[str, Any]:
    """The scores for the card, which are printed too; cases without scores are named."""
    done = {c.case for c in evaluated.cases}
    lost = [case.id for case in evaluation if case.id not in done]
    figures = {
        label: describe(evaluated.scores.values(label, "dice")) for label in evaluated.scores.labels
    }
    words = [
        f"{k} {f['mean']:.3f}" + (f" ({f['n']} of {len(done)})" if f["n"] < len(done) else "")
        for k, f in figures.items()
    ]
    count = (
        f"{len(done)} of {len(evaluation)} cases (not scored: {', '.join(lost)})"
        if lost
        else f"{len(done)} cases"
    )
    planned.run.say(f"{what} Dice on {count}: {', '.join(words)}")
    scores: dict[str, Any] = {
        "what": what,
        "cases": len(done),
        "dice_mean": evaluated.scores.mean("dice"),
        "dice": {label: float(f["mean"]) for label, f in figures.items()},
    }
    return scores | ({"not_scored": lost} if lost else {})
