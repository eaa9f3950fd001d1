"""Training, the whole verb: check, plan, prepare, train, evaluate, bundle, report.

``MODEL`` is the bundle, one file; ``MODEL.run/`` beside it keeps how it came about and all that is
needed to go on (see ``run.py``), and

    store/                         prepared cases
    fold_K/                        log.jsonl, last.safetensors, best.safetensors; fold_K/VIEW/ where
                                   the plan has views
    test/ or validation/           predictions and scores on original grids
    card.json  report.html

The bundle is rewritten whenever a better network is found, so a valid model exists from the first
validation on. The same command after a kill goes on where it stopped; a different one is refused
until ``--overwrite``. Only this step imports ``learn``.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...cohorts.discovery.channels import numbered
from ...cohorts.discovery.originals import originals, originals_in
from ...core import atomic
from ...core.bundle import Bundle, Weights, graphs_beside
from ...core.errors import DelineateError, OutputError
from ...core.manifest import Case
from ...core.progress import Progress, Say, silent, unsaid
from ...core.schema import SCHEMAS
from ...core.scores import without_nan
from ...core.store import StoredCase
from ...planning import rules as plan_step
from .. import predict as predict_step
from .. import report as report_step
from . import event_files as scalars
from . import held_out
from . import prepare as prepare_step
from . import run as run_step
from .request import Request
from .run import NetworkJob, Run

RAM_SHARE = 0.35  # prepared cases are held in memory up to this share of it


@dataclass
class TrainingResult:
    """What came out."""

    model: Path
    run: Path
    scores: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def train(
    request: Request,
    model: str | Path,
    *,
    recipe: plan_step.Recipe | None = None,
    overwrite: bool = False,
    extend_s: float | None = None,
    tensorboard: bool = False,
    say: Say = unsaid,
    progress: Progress = silent,
) -> TrainingResult:
    """Train a model, or go on with one.

    Args:
        request: data and settings.
        recipe: who plans, where ``request.recipe`` names one; the rules of ``planning.rules``
            otherwise.
        model: the bundle to write; its run's folder is ``model`` + ".run".
        extend_s: so many more seconds for a run with a budget that has ended.
        tensorboard: write event files beside each network's log too.
        overwrite: start anew where a run or model stands already; the old model stays until a new
            one replaces it.

    Raises:
        UsageError, InputError, PlanError, TrainingError, OutputError: see their sentences.
    """
    from ...inference.devices import choose_device

    choose_device(request.device)  # refused before anything is written
    if tensorboard:
        scalars.refuse_unless_installed()
    originals_in(request.data, request.files).refuse([model])
    run = run_step.open_run(request.validated(), Path(model), overwrite, say, progress)
    run.recipe, run.tensorboard = recipe, tensorboard
    if extend_s is not None:
        run.extend(extend_s)
    if run.is_finished:
        say(
            f"this run is finished: {run.model}; to train on, add --extend 30m; to train anew, "
            "--overwrite"
        )
        return TrainingResult(
            run.model,
            run.folder,
            json.loads((run.folder / "card.json").read_text(encoding="utf-8")).get("scores", {}),
        )
    run_step.save_json(
        run,
        "request.json",
        {"delineate_run": SCHEMAS["delineate_run"], "delineate": __version__, **vars(request)},
    )
    run_step.settle_cohort(run)
    with originals([run.manifest], request.files).kept([run.model]):
        return _train(run)


def _train(run: Run) -> TrainingResult:
    """From the cohort to the report."""
    for station in (run_step.settle_plan, _prepare):
        run.tick()
        station(run)
    run.tick()
    evaluation = held_out.cases_to_score(run)
    reserve = held_out.reserve(run, evaluation)
    jobs = [
        NetworkJob(fold, view)
        for fold in run_step.folds_of(run)
        for view in run_step.views_of(run.planned())
    ]
    _recall(run, jobs)
    for number, job in enumerate(jobs):
        share = (run.remaining_s() - reserve.total_s) / (len(jobs) - number)
        _fit(run, job, None if run.request.budget_s is None else time.monotonic() + max(1.0, share))
    _postprocess(run, reserve.postprocess_s)
    scores = held_out.evaluate(run, reserve.evaluation)
    _finish(run, scores)
    return TrainingResult(run.model, run.folder, scores, run.failures)


def _prepare(run: Run) -> None:
    outcomes = prepare_step.prepare_cohort(
        run_step.to_learn_from(run.manifest),
        run.planned(),
        run.store,
        progress=run.progress,
    )
    broken = [o for o in outcomes if o.error is not None]
    if broken and len(broken) == len(outcomes):
        raise broken[0].error  # type: ignore[misc]
    for outcome in broken:
        if isinstance(outcome.error, OutputError):
            raise outcome.error
        run.failures.append(str(outcome.error))


def _recall(run: Run, jobs: Sequence[NetworkJob]) -> None:
    """The members that earlier starts of this run left, so that a model on disk is never replaced
    by one with fewer of them.
    """
    from safetensors.numpy import load_file

    for job in jobs:
        best = job.folder(run.folder) / "best.safetensors"
        if best.is_file():
            run.members[job.key] = job.member(run.planned(), load_file(best))
    if run.members and run.model.is_file():
        card = Bundle.load(run.model).card
        run.card = {key: card[key] for key in ("validation", "training_s") if key in card}


def _fit(run: Run, job: NetworkJob, deadline: float | None) -> None:
    import torch

    from ...inference.devices import choose_device
    from ...training import loop

    folder, words = atomic.make_folder(job.folder(run.folder)), job.name.replace("_", " ")
    training, validating = run_step.sides(run, job.fold)
    began, finished = time.monotonic(), job.name in run.card.get("training_s", {})
    events = scalars.EventFile(folder / "tensorboard") if run.tensorboard else None

    def listen(line: dict[str, Any]) -> None:
        share = f"loss {line['loss']:.3f}, Dice {line['train_dice_mean']:.3f}"
        if "val_dice_mean" in line:
            share += f"; validation loss {line['val_loss']:.3f}, Dice {line['val_dice_mean']:.3f}"
            run.say(f"{words}, epoch {line['epoch']:.0f}, step {line['step']}: {share}")
        run.progress(f"train {words}", line["progress"], 1.0, share)
        if events is not None:
            events.add(line)
        run.tick()

    def keep(weights: Weights, line: dict[str, Any]) -> None:
        run.members[job.key] = job.member(run.planned(), weights)
        run.card.setdefault("validation", {})[job.name] = without_nan(
            {k: v for k, v in line.items() if k.startswith("val") or k == "step"}
        )
        _bundle(run)

    begun = (folder / "last.safetensors").is_file()
    init, start = (
        (None, "goes on from its own checkpoint") if begun else run_step.starting_weights(run, job)
    )
    run.say(f"{words}: {len(training)} cases train, {len(validating)} validate; {start}")
    device = choose_device(run.request.device)
    # On a CPU the cores are busy training.
    threads = 1 if device.type == "cpu" else max(2, plan_step.Machine.here("cpu").cores - 2)
    weights = loop.fit(
        loop.TrainingJob(
            job.plan(run.planned()),
            _opened(run, training, job.view),
            _opened(run, validating, job.view),
            folder,
            device,
            job.seed(run.planned()),
            deadline,
            init,
            listen,
            keep,
            threads=threads,
            extension=len(run.extensions),
        )
    )
    run.members[job.key] = job.member(run.planned(), weights)
    if not finished:
        run.card.setdefault("training_s", {})[job.name] = round(time.monotonic() - began, 1)
    run.card["torch"] = torch.__version__
    _bundle(run)


def _postprocess(run: Run, limit_s: float) -> None:
    """Choose, on the validation cases of the first fold, which structures keep only their largest
    piece.
    """
    from ...inference.devices import choose_device
    from ...inference.engine import Engine
    from ...training import postprocessing as postprocess

    if not run.members or not held_out.chooses_postprocessing(run):
        return
    first = run.made()[0]
    engine = Engine.from_bundle(
        Bundle(run.planned(), (first,)),
        choose_device(run.request.device),
        graphs=graphs_beside(run.model),
    )
    names = postprocess.choose(engine, _opened(run, run_step.sides(run, first.fold)[1]), limit_s)
    if names:
        run.plan = run.planned().replace(postprocessing={"keep_largest": names})
        run.say(
            f"postprocessing: only the largest piece of {', '.join(names)} is kept: better on "
            "the validation cases"
        )
        atomic.write_text(run.folder / "plan.json", run.plan.to_json())
        _bundle(run)


def _opened(run: Run, cases: Sequence[Case], view: str = "") -> list[StoredCase]:
    """The prepared cases as ``view`` sees them, in memory where all of them fit well."""
    import numpy as np
    import psutil

    ids = [c.id for c in cases]
    fits = run.store.nbytes(ids) < RAM_SHARE * psutil.virtual_memory().available
    opened = [run.store.open(case).loaded() if fits else run.store.open(case) for case in ids]
    if not view:
        return opened
    seen, labels = run.planned().named_views()[view], run.planned().labels
    table = labels.merge_table() if seen.merge_sides else np.arange(len(labels) + 1)
    return [case.seen(seen.order, table) for case in opened]


def _bundle(run: Run) -> None:
    """Write the model as it now is."""
    Bundle(run.planned(), run.made(), run.card | _provenance(run)).save(run.model)


def _provenance(run: Run) -> dict[str, Any]:
    import hashlib

    return {
        "delineate": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        "data": run.manifest.root,
        "layout": run.manifest.layout,
        "channels_numbered": numbered(run.manifest),
        "cases": len(run_step.to_learn_from(run.manifest)),
        "patients": len(run_step.to_learn_from(run.manifest).patients),
        "manifest_sha256": hashlib.sha256(run.manifest.to_jsonl().encode()).hexdigest(),
        "seed": run.request.seed,
        "licence": "of the weights: not stated; of the data: see its source",
        "limits": "For research. Not a medical device.",
    }


def _finish(run: Run, scores: dict[str, Any]) -> None:
    run.card |= {
        "scores": without_nan(scores),
        "seconds": round(run.elapsed_s, 1),
        "peak_memory_mb": predict_step.peak_memory_mb(),
    }
    _bundle(run)
    bundle = Bundle.load(run.model)
    run_step.save_json(run, "card.json", bundle.card | {"id": bundle.id})
    try:
        report_step.report(run.folder)
    except DelineateError as error:
        run.failures.append(f"the report could not be written: {error}")
    run.say(f"model {bundle.id} in {run.model}; report in {run.folder / 'report.html'}")
