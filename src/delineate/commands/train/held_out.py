"""Scoring what a run held out, and keeping enough of the budget for it: predictions, scores and
pictures on original grids.

Test cases are predicted by the whole bundle; validation cases each by the members that never saw
it. Nothing is chosen here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import InputError
from ...core.manifest import Case, Manifest
from ...core.progress import under
from ...core.scores import describe
from ...evaluation.scoring import SURFACES, EvaluationResult
from .. import evaluate as evaluate_step
from .. import predict as predict_step
from . import run as run_step
from .run import NetworkJob, Run

RESERVE_SHARE = (
    0.012  # of a budget, beside ``run.RESERVE_S``: the last validation may take a hundredth
)
POSTPROCESS_SHARE = (
    0.03  # of a budget, at most, goes into choosing postprocessing; ``POSTPROCESS_S`` without one
)
POSTPROCESS_S = 60.0
PICTURES = 12  # cases drawn side by side with their truth, where the budget has time for it
PICTURE_S = 1.0
WARM_UP_S, SLOWER = (
    4.0,
    2.0,
    # of a network, and a case beyond what was rehearsed: what is kept of each structure is counted
    # too
)
FARTHER = 3.0  # times as long as for surfaces that coincide
PICTURES_SHARE = 0.03


def cases_to_score(run: Run) -> Manifest:
    """Test cases with truth where there are any, else the validation cases of the folds that
    train.
    """
    test = tuple(c for c in run.manifest.with_truth() if c.split == "test")
    if test:
        return run.manifest.only(test)
    return run.manifest.only(
        case for fold in run_step.folds_of(run) for case in run_step.sides(run, fold)[1]
    )


@dataclass(frozen=True)
class TimeReserve:
    """What is kept of a budget for what follows training, ``postprocess_s`` of it for choosing
    postprocessing; and the cases to score in it.
    """

    evaluation: Manifest
    total_s: float = 0.0
    postprocess_s: float = POSTPROCESS_S


def reserve(run: Run, evaluation: Manifest) -> TimeReserve:
    """Time for what follows training, from one rehearsed prediction; fewer cases are scored where
    all would take too long.

    Every second of it that is not needed in the end is one that training lacked: a share of the
    budget alone would be an hour of a day.
    """
    budget_s = run.stretch_s
    if budget_s is None or not evaluation.cases:
        return TimeReserve(evaluation)
    middle = evaluation.cases[len(evaluation) // 2]
    predict_s, folds = _rehearse(run, middle), run_step.folds_of(run)
    validating = len(run_step.sides(run, folds[0])[1])
    postprocess_s = (
        min(POSTPROCESS_SHARE * budget_s, WARM_UP_S + SLOWER * predict_s * validating)
        if chooses_postprocessing(run)
        else 0.0
    )
    base = (
        run_step.RESERVE_S
        + RESERVE_SHARE * budget_s
        + postprocess_s
        + PICTURE_S * min(_pictures(run), len(evaluation))
    )
    each = predict_s * len(folds) * 1.3 + _distances_s(run, middle) + 0.05
    most = max(1, int(0.3 * budget_s / each))
    if len(evaluation) > most:
        run.say(
            f"only {most} of {len(evaluation)} cases can be scored within the budget ({each:.1f} "
            "s each); `predict` and `evaluate` score all"
        )
        evaluation = evaluation.only(evaluation.cases[:most])
    return TimeReserve(evaluation, base + each * len(evaluation), postprocess_s)


def chooses_postprocessing(run: Run) -> bool:
    """Whether postprocessing is chosen once training is done: a plan that was given is followed as
    it is, and so are 2-D networks.
    """
    return not (
        run.request.plan or run.recipe is not None or run.planned().views or run.planned().dims == 2
    )


def _pictures(run: Run) -> int:
    """How many cases are drawn."""
    budget_s = run.stretch_s
    return (
        PICTURES if budget_s is None else min(PICTURES, int(PICTURES_SHARE * budget_s / PICTURE_S))
    )


def _rehearse(run: Run, case: Case) -> float:
    """Seconds that predicting ``case`` with one fold's networks takes, measured with untrained
    weights.
    """
    import numpy as np

    from ...cohorts.reading import read_image
    from ...inference.devices import choose_device
    from ...inference.engine import Engine
    from ...inference.predictor import predict
    from ...networks.build import build, weights_of

    plan, jobs = (
        run.planned(),
        [NetworkJob(None, view) for view in run_step.views_of(run.planned())],
    )
    members = tuple(job.member(plan, weights_of(build(job.plan(plan).network, 0))) for job in jobs)
    engine = Engine.from_bundle(Bundle(plan, members), choose_device(run.request.device))
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        predict(read_image(case, run.manifest), engine)
        seconds.append(time.monotonic() - began)
        if seconds[0] > 5:
            break
    return float(np.min(seconds))


def _distances_s(run: Run, case: Case) -> float:
    """Seconds that measuring distances between surfaces may take: those of the truth to itself,
    which are found soonest, several times over.
    """
    from ...cohorts.reading import read_label
    from ...metrics import surface

    truth = read_label(case, run.manifest)
    for _ in range(2):  # the first time something has to be imported, and may have to be compiled
        began = time.monotonic()
        surface.measure(
            truth.array, truth.array, run.manifest.labels.values, truth.grid.spacing_mm, SURFACES
        )
    return FARTHER * (time.monotonic() - began)


def evaluate(run: Run, evaluation: Manifest) -> dict[str, Any]:
    """Predict and score on original grids: test cases by the whole bundle, validation cases each by
    the members that never saw it.
    """
    if not evaluation.cases:
        return {}
    is_test = evaluation.cases[0].split == "test"
    folder = atomic.make_folder(run.folder / ("test" if is_test else "validation"))
    groups: list[tuple[Bundle, Manifest]] = [(Bundle(run.planned(), run.made(), {}), evaluation)]
    folds = list(dict.fromkeys(m.fold for m in run.made()))
    if not is_test and len(folds) > 1:
        of_fold = {fold: tuple(m for m in run.made() if m.fold == fold) for fold in folds}
        groups = [
            (
                Bundle(run.planned(), mine, {}),
                evaluation.only(c for c in evaluation if c.fold == fold),
            )
            for fold, mine in of_fold.items()
        ]
    for part, cases in groups:
        # What is compiled of it serves the model's first user.
        whole = len(part.members) == len(run.made())
        outcomes = predict_step.predict_cases(
            part,
            cases,
            folder / "predictions",
            device=run.request.device,
            model=run.model if whole else "",
            progress=under("evaluate", run.progress),
        )
        run.failures += [str(o.error) for o in outcomes if o.error is not None]
    atomic.write_text(folder / "manifest.jsonl", evaluation.to_jsonl())
    what = "test" if is_test else ("cross-validation" if len(groups) > 1 else "validation")
    try:
        evaluated = evaluate_step.evaluate(
            folder / "predictions",
            folder / "manifest.jsonl",
            folder,
            pictures=_pictures(run),
            montages=True,
        )
    except InputError as error:  # not one of them: the model is there all the same
        run.failures.append(f"no {what} case could be scored: {error}")
        return {"what": what, "cases": 0, "not_scored": [case.id for case in evaluation]}
    return _scored(run, what, evaluation, evaluated)


def _scored(
    run: Run, what: str, evaluation: Manifest, evaluated: EvaluationResult
) -> dict[str, Any]:
    """What the card keeps; the count is of the cases that were scored, and each that was not is a
    failure of the run.
    """
    run.failures += [
        f"{what} case {name} could not be scored: {why}" for name, why in evaluated.failures.items()
    ]
    done = {c.case for c in evaluated.cases}
    lost = [case.id for case in evaluation if case.id not in done]
    figures = {
        label: describe(evaluated.scores.values(label, "dice")) for label in evaluated.scores.labels
    }
    words = [
        f"{k} {f['mean']:.3f}" + (f" ({f['n']} of {len(done)})" if f["n"] < len(done) else "")
        for k, f in figures.items()
    ]
    of = (
        f"{len(done)} of {len(evaluation)} cases (not scored: {', '.join(lost)})"
        if lost
        else f"{len(done)} cases"
    )
    run.say(f"{what} Dice on {of}: {', '.join(words)}")
    scores: dict[str, Any] = {
        "what": what,
        "cases": len(done),
        "dice_mean": evaluated.scores.mean("dice"),
        "dice": {label: float(f["mean"]) for label, f in figures.items()},
    }
    return scores | ({"not_scored": lost} if lost else {})
