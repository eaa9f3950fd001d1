"""The training command: check, plan, prepare, train, evaluate, bundle, report.

``MODEL`` is the bundle, one file. ``MODEL.run/`` next to it keeps all that is needed to continue
(see ``run.py``), and

    store/                         prepared cases
    fold_K/                        log.jsonl, last.safetensors, best.safetensors; fold_K/VIEW/ for
                                   a plan with views
    test/ or validation/           predictions and scores on original grids
    card.json  report.html

The bundle is rewritten whenever a better network is found, so there is a valid model from the
first validation on. The same command after a kill continues the run; a different one is refused
without ``--overwrite``. Only this module imports ``training``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ... import __version__
from ...cohorts.discovery.originals import originals, originals_in
from ...core import atomic
from ...core.bundle import Bundle, Member, Weights, graphs_beside, load_weights
from ...core.errors import (
    DelineateError,
    LostRankError,
    OutputError,
    RankError,
    StoreError,
    TrainingError,
)
from ...core.inputs import read_json, read_json_if_any, read_json_lines
from ...core.manifest import Case, Manifest
from ...core.outputs import RECORD
from ...core.plan import Network, Plan
from ...core.progress import Progress, Say, silent, unsaid
from ...core.schema import SCHEMAS
from ...core.scores import without_nan
from ...core.store import Store, StoredCase
from ...evaluation.training_verdict import Verdict
from ...execution import launch
from ...execution.claims import claimed
from ...execution.shards import Shard, claimed_by
from ...execution.stopping import StopSignal
from ...extend.parts import FollowedRun
from ...extend.registers import RECIPES
from ...extras import require_extra
from ...planning import capacity
from ...planning import rules as plan_step
from ...trust.plausibility import Ranges
from .. import predict as predict_step
from .. import report as report_step
from ..options import ReportOptions, TrainOptions, reads_images
from . import held_out, judging, parallel, preparation, together
from .listeners import LogLines, Recorders, find_listeners
from .model_file import ModelFile, finder_folder, finder_of, without_coarse
from .planned import NetworkJob, PlannedRun, settle_plan
from .request import request_of
from .run import TrainingRun, folder_of, open_run
from .sides import settle_cohort
from .start import starting_weights

if TYPE_CHECKING:
    import torch

    from ...inference.engine import Engine
    from ...training import loop
    from ...training.ranks import Ranks

T = TypeVar("T")

SETTLING = "settling.json"  # the claim of the shard that checks and plans
SETTLED_S = 7 * 86400.0  # for so long the others wait; one that dies is noticed at once
LOST = 3  # exit code of a rank that lost the others, as of a training that cannot continue
MOST_SCORED = 16  # training cases that are scored, for comparison with the others


@dataclass(frozen=True)
class TrainingResult:
    """The model, the folder of its run, its scores on held-out cases, the failures, and the
    verdict.
    """

    model: Path
    run: Path
    scores: dict[str, Any] = field(default_factory=dict)
    failures: Sequence[str] = ()
    verdict: Verdict = field(default_factory=Verdict)


@reads_images
def train(
    data: str | Path,
    model: str | Path,
    options: TrainOptions = TrainOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
) -> TrainingResult:
    """Train a model, or continue its training.

    Args:
        data: a folder of scans with masks, or a manifest.
        model: the bundle to write; the folder of its run is ``model`` + ".run".
        options: see ``commands.options``. With ``overwrite`` the old model stays until a new one
            replaces it; ``extend_s`` is for a finished run with a budget.
        say, progress: see ``core.progress``.

    Raises:
        UsageError, InputError, PlanError, TrainingError, OutputError: see their messages.
    """
    together.refuse_unfit(options)
    if options.devices * options.nodes == 1:
        return _train_alone(Path(data), Path(model), options, say, progress)
    restarts, asked_at = together.restarts()
    asked = (Path(data), Path(model), options, asked_at)
    if together.started_outside(options):
        return _train_as_rank(asked, restarts, say, progress, own=False)
    work = launch.Work(_train_as_rank, asked, options.devices, together.node(), options.nodes)
    found: TrainingResult = launch.run(work, say=say, progress=progress)
    return found


def _train_as_rank(
    asked: tuple[Path, Path, TrainOptions, float],
    restarts: int,
    say: Say,
    progress: Progress,
    own: bool = True,
) -> TrainingResult:
    """The part of one of several processes; the result is that of the first.

    Args:
        asked: data, model, options, and when they were asked for.
        restarts: so far; what was overwritten then is kept.
        own: whether ``execution.launch`` has started this process.
    """
    from ...inference.devices import choose_device
    from ...training import ranks

    data, model, options, asked_at = asked
    begun = folder_of(model) / "request.json"
    if restarts and begun.is_file() and begun.stat().st_mtime > asked_at:
        options = replace(options, overwrite=False)
    require_extra("train", "train")
    device = choose_device(options.device)
    with ranks.joined(device, options.devices, options.nodes, own) as found:
        if not found.leads:
            request_of(data, options)  # registers the parts that it names
            _follow(found, own)
            return _found_result(model)
        leader = together.Leader(found, options.devices)
        try:
            return _train_alone(data, model, options, say, progress, leader)
        finally:
            leader.dismiss()


def _follow(ranks: Ranks, own: bool) -> None:
    """The part of a rank that does not lead."""
    try:
        together.follow(ranks, partial(_join, ranks=ranks))
    except LostRankError:
        if own:
            raise
        raise SystemExit(LOST) from None  # the one that was lost states why, or who started it


def _found_result(model: Path) -> TrainingResult:
    """The result that rank 0 has written."""
    card = read_json_if_any(folder_of(model) / "card.json") or {}
    verdict = Verdict.from_json(card.get("verdict"))
    return TrainingResult(model, folder_of(model), card.get("scores", {}), (), verdict)


def _train_alone(
    data: Path,
    model: Path,
    options: TrainOptions,
    say: Say,
    progress: Progress,
    leader: together.Leader | None = None,
) -> TrainingResult:
    """A training in this process, or that which ``leader`` leads."""
    from ...inference.devices import choose_device

    request = request_of(data, options)
    # What cannot be used is refused before anything is written.
    require_extra("train", "train")
    work = options.work
    tensorboard = ("tensorboard",) if options.tensorboard else ()
    listeners = find_listeners((*options.listeners, *tensorboard))
    choose_device(options.device)
    recipe = None if options.recipe is None else RECIPES[options.recipe]
    originals_in(request.data, request.files).refuse([model])
    opened = partial(
        open_run,
        request,
        model,
        options.overwrite,
        recipe=recipe,
        listeners=listeners,
        work=work,
        say=say,
        progress=progress,
    )
    if not work.shard.is_whole:
        return _prepare_part(opened, folder_of(model), work.shard)
    run = opened()
    if options.extend_s is not None:
        run = run.extended(options.extend_s)
    if run.is_finished:
        return _finished(run)
    with claimed_by(run.folder, work.shard) as claim:
        run = replace(run, claim=claim, leader=leader, workers=options.workers)
        atomic.remove_temporaries_of(run.model)
        _save_request(run)
        manifest, failures = settle_cohort(run)
        try:
            with originals([manifest], request.files).kept([run.model]):
                return _train(run, manifest, failures)
        except StopSignal:
            say("everything is saved; the same command continues this run")
            raise


def _save_request(run: TrainingRun) -> None:
    versions = {"delineate_run": SCHEMAS["delineate_run"], "delineate": __version__}
    run.save_json("request.json", versions | vars(run.request))


def _prepare_part(opened: Callable[[], TrainingRun], folder: Path, shard: Shard) -> TrainingResult:
    """Prepare the cases of a shard; the first one checks and plans, and the others wait for it."""
    with claimed_by(atomic.make_folder(folder), shard) as claim:
        with claimed(folder / SETTLING, SETTLED_S):
            run = replace(opened(), claim=claim)
            if run.is_finished:
                return _finished(run)
            _save_request(run)
            manifest, found = settle_cohort(run)
            with _fastest_threads(run):
                planned = settle_plan(run, manifest)
        failures = [*found, *_prepare(planned)]
        own = [case.id for case in planned.learning.with_truth() if shard.has(case.id)]
    done = sum(run.store.has(case) for case in own)
    run.say(
        f"{shard}: {done} of its {len(own)} cases are prepared; the same command without --shard "
        "trains, and prepares what is missing"
    )
    return TrainingResult(run.model, run.folder, {}, failures)


def _finished(run: TrainingRun) -> TrainingResult:
    """The result of a run that ended before. One that was killed before its report was written gets
    it now; after an extension there may be the report of the time before.
    """
    card_file, page = run.folder / "card.json", run.folder / "report.html"
    for path in (page, run.folder / RECORD):
        atomic.remove_temporaries_of(path)
    is_reported = page.is_file() and page.stat().st_mtime_ns >= card_file.stat().st_mtime_ns
    unreported = [] if is_reported else _write_report(run)
    cleaned = "" if run.store.folder.is_dir() else ", which prepares its cases again"
    run.say(
        f"this run is finished: {run.model}; add --extend 30m to train on{cleaned}, or "
        "--overwrite to start from scratch"
    )
    card = read_json(card_file)
    verdict = Verdict.from_json(card.get("verdict"))
    run.say(f"verdict: {verdict.words}")
    failures = [*_failures_in(card), *unreported]
    return TrainingResult(run.model, run.folder, card.get("scores", {}), failures, verdict)


def _failures_in(card: dict[str, Any]) -> list[str]:
    """The failures that the card of a finished run lists; an earlier version only counted them."""
    count = card.get("failures", 0)
    counted = [f"of the training, whose messages were not kept: {count}"] if count else []
    return list(card.get("failed", counted))


def _train(run: TrainingRun, manifest: Manifest, failures: Sequence[str]) -> TrainingResult:
    """From the cohort to the report."""
    run.clock.save()
    with _fastest_threads(run):
        planned = settle_plan(run, manifest)
    run.clock.save()
    failures = [*failures, *_prepare(planned)]
    sound = _SoundCases(planned, failures)
    sound.for_work(lambda: judging.record_baseline(planned))
    run.clock.save()
    evaluation = held_out.cases_to_score(planned)
    reserve = sound.for_work(lambda: held_out.reserve(planned, evaluation))
    # Networks share the time that the reserve leaves; one that ends early leaves its rest to the
    # others.
    jobs = planned.jobs
    model = ModelFile(planned, jobs)
    model.card["plausibility"] = sound.for_work(lambda: _ranges(planned)).to_json()
    if parallel.applies(run, jobs):
        sound.for_work(lambda: _fit_at_once(planned, model, jobs, reserve.total_s))
    for number, job in enumerate(() if parallel.applies(run, jobs) else jobs):
        share = (run.clock.remaining_s() - reserve.total_s) / (len(jobs) - number)
        limited = run.request.budget_s is not None
        deadline = time.monotonic() + max(1.0, share) if limited else None
        sound.for_work(partial(_fit, planned, model, job, deadline))
    model.complete()
    sound.for_work(
        lambda: _choose_prediction(planned, model, reserve.postprocess_s, reserve.finder_s)
    )
    scores, unscored = held_out.evaluate(planned, model, reserve.evaluation)
    verdict = judging.verdict_of(planned, model.card, scores)
    failures = [*failures, *unscored]
    # Counted, not named: the messages have paths and names of patients, and a model is passed on.
    model.card["failures"] = len(failures)
    failures += _finish(run, model, scores, verdict, failures)
    return TrainingResult(run.model, run.folder, scores, failures, verdict)


@contextmanager
def _fastest_threads(run: TrainingRun) -> Iterator[None]:
    """On a CPU and with a budget, plan with as many threads as the load of the machine leaves
    useful.
    """
    import torch

    from ...inference.devices import choose_device
    from ...training.threads import fastest

    if run.request.budget_s is None or choose_device(run.request.device).type != "cpu":
        yield
        return
    widths, kernel = (16, 32), (3, 3, 3)
    small = Network(
        dims=3, channels=1, classes=2, widths=widths, strides=((2, 2, 2),), kernels=(kernel, kernel)
    )
    one, most = partial(capacity.measure_step, small, (32, 32, 32), 2), torch.get_num_threads()
    with fastest(one, torch.set_num_threads, most):
        yield


@dataclass(frozen=True)
class _SoundCases:
    """Prepares a damaged case of the store again when work meets it; adds to ``failures``."""

    planned: PlannedRun
    failures: list[str]

    def for_work(self, work: Callable[[], T]) -> T:
        """The result of ``work``, which is repeated after each damaged case: it must be a function
        that continues where it stopped.

        Raises:
            StoreError: a case is damaged again.
        """
        run, again = self.planned.run, set[str]()
        while True:
            try:
                return work()
            except StoreError as error:
                if error.case is None or error.case in again:
                    raise
                again.add(error.case)
                run.say(f"case {error.case}: its prepared arrays are damaged; prepared again")
                run.store.remove(error.case)
                self.failures.extend(_prepare(self.planned))


def _ranges(planned: PlannedRun) -> Ranges:
    """What the training cases measure, for comparison with predictions."""
    store = planned.run.store
    learned = [case.id for case in planned.learning if store.has(case.id)]
    return preparation.ranges_in(store, learned)


def _prepare(planned: PlannedRun) -> list[str]:
    """Preprocess the cases into the store; the failures.

    Raises:
        OutputError: the store cannot be written.
        DelineateError: no case can be prepared.
    """
    run = planned.run
    outcomes = preparation.prepare_cohort(
        planned.learning, planned.plan, run.store, work=run.work, progress=run.progress
    )
    errors = [o.error for o in outcomes if o.error is not None]
    if errors and len(errors) == len(outcomes) and run.work.shard.is_whole:
        raise errors[0]
    for error in errors:
        if isinstance(error, OutputError):
            raise error
    return [str(error) for error in errors]


def _fit(planned: PlannedRun, model: ModelFile, job: NetworkJob, deadline: float | None) -> None:
    """Train one network; the model on disk gets its best weights as they are found."""

    from ...inference.devices import choose_device
    from ...training import loop

    run, plan = planned.run, planned.plan
    folder = atomic.make_folder(job.folder(run.folder))
    training, validating = planned.sides(job.fold)
    began = time.monotonic()
    followed = FollowedRun(folder, job.name, run.model, job.plan(plan))
    recorders = Recorders(run.listeners, followed, run.say)
    spoken = LogLines(job.words, run.say, run.progress)

    def report(line: dict[str, Any]) -> None:
        run.confirm_claim()
        spoken.add(line)
        recorders.add(line)
        run.clock.save()

    def keep(weights: Weights, line: dict[str, Any]) -> None:
        model.add(job, weights)
        model.note("validation", job.name, _validation_in(line))
        model.save()

    init = _announced(planned, job)
    device = choose_device(run.request.device)
    fitted = loop.TrainingJob(
        job.plan(plan),
        _opened(planned, training, job.view),
        _opened(planned, validating, job.view),
        folder,
        device,
        job.seed(plan),
        deadline,
        init,
        report,
        keep,
        say=run.say,
        threads=_reading_threads(device, 1 if run.leader is None else run.leader.copies),
        extension=len(run.clock.extensions),
        by_sample=run.request.deterministic,
    )
    with closing(recorders):
        weights, diverged = _fitted(run, fitted, model, job)
    learned: dict[str, Any] = {}
    if job.name not in model.card.get("training", {}) or run.clock.extensions:
        learned = _on_training_cases(fitted, weights, held_out.training_cases_s(run))
    trained = parallel.Trained(learned, diverged)
    _note_network(model, job, folder, weights, trained, time.monotonic() - began)


def _validation_in(line: dict[str, Any]) -> dict[str, Any]:
    """The part of a log line that a model's card has."""
    found: dict[str, Any] = without_nan(
        {k: v for k, v in line.items() if k.startswith("val") or k == "step"}
    )
    return found


def _announced(planned: PlannedRun, job: NetworkJob) -> Weights | None:
    """Say with which cases a network is trained; the weights it starts from, if they are given."""
    # A network with a checkpoint continues from it, not from the weights of --init.
    run, (training, validating) = planned.run, planned.sides(job.fold)
    begun = (job.folder(run.folder) / "last.safetensors").is_file()
    init, start = (
        (None, "continues from its checkpoint") if begun else planned.starting_weights(job)
    )
    run.say(
        f"{job.words}: {len(training)} training cases, {len(validating)} validation cases; {start}"
    )
    return init


def _note_network(
    model: ModelFile,
    job: NetworkJob,
    folder: Path,
    weights: Weights,
    trained: parallel.Trained,
    seconds: float,
) -> None:
    """Write the model with a network whose training has ended."""
    import torch

    model.add(job, weights)
    model.card["torch"] = torch.__version__
    if job.name not in model.card.get("training_s", {}):
        model.note("training_s", job.name, round(seconds, 1))
    if trained.training:
        model.note("training", job.name, dict(trained.training))
    if trained.diverged:
        model.note("diverged", job.name, trained.diverged)
    _note_log(model, job, folder / "log.jsonl")
    model.save()


def _fit_at_once(
    planned: PlannedRun, model: ModelFile, jobs: Sequence[NetworkJob], reserve_s: float
) -> None:
    """Train all networks by the workers of the engine; the model on disk gets their best weights
    as they are found.
    """
    import torch

    from ...inference.devices import choose_device

    run, request = planned.run, planned.run.request
    extension = len(run.clock.extensions)
    spent = [_spent_s(job.folder(run.folder), extension) for job in jobs]
    share_s = parallel.share_s(run, reserve_s, spent)
    assert run.claim is not None
    claim = replace(run.claim, path=run.claim.path.absolute())
    device = choose_device(request.device).type
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    for job in jobs:
        _announced(planned, job)
    tasks = [
        parallel.Task(
            claim,
            job,
            planned.plan,
            tuple(case.id for case in planned.sides(job.fold)[0]),
            tuple(case.id for case in planned.sides(job.fold)[1]),
            parallel.device_of(number, request.device, gpus, run.work.is_local),
            run.workers or 1,
            torch.get_num_threads() if request.deterministic else None,
            request.deterministic,
            extension,
            share_s,
            time.time() + run.clock.remaining_s() - reserve_s,
            request.init,
            held_out.training_cases_s(run),
            parallel.custom_parts(planned.plan),
        )
        for number, job in enumerate(jobs)
    ]

    def finished(task: parallel.Task, trained: parallel.Trained, seconds: float) -> None:
        weights = load_weights(task.folder / "best.safetensors", run.say)
        _note_network(model, task.job, task.folder, weights, trained, seconds)

    parallel.train_all(planned, model, tasks, _train_apart, finished)


def _spent_s(folder: Path, extension: int, say: Say = unsaid) -> float:
    """Seconds of training that the checkpoint in a network's folder has had since the budget, or
    the extension, began.
    """
    from ...training import checkpoint

    if not (folder / "last.safetensors").is_file():
        return 0.0
    state = checkpoint.state_in(folder / "last.safetensors", say)
    is_same = state.get("extension", 0) == extension
    return float(state["spent_s"] - state.get("origin_s", 0.0)) if is_same else 0.0


def _train_apart(task: parallel.Task) -> parallel.Trained:
    """Train one network as a worker of an engine."""
    said: list[str] = []
    try:
        with parallel.taken(task):
            return _trained(task, said)
    except StopSignal:
        return parallel.Trained(said=tuple(said), stopped=True)
    except DelineateError as error:
        return parallel.Trained(said=tuple(said), error=error)


def _trained(task: parallel.Task, said: list[str]) -> parallel.Trained:
    import torch

    from ...inference.devices import choose_device
    from ...training import loop

    plan, job, folder = task.plan, task.job, task.folder
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    device = choose_device(task.device)
    training, validating = (
        preparation.opened(task.store, plan, ids, job.view, task.copies)
        for ids in (task.training, task.validating)
    )
    init = None
    if task.init and not (folder / "last.safetensors").is_file():
        network, seed = job.plan(plan).network, job.seed(plan)
        init, _ = starting_weights(task.init, plan, network, job.view, seed)
    left_s = task.left_s(_spent_s(folder, task.extension, said.append))
    fitted = loop.TrainingJob(
        job.plan(plan),
        training,
        validating,
        folder,
        device,
        job.seed(plan),
        None if left_s is None else time.monotonic() + left_s,
        init,
        on_best=lambda weights, line: task.keep(_validation_in(line)),
        say=said.append,
        threads=_reading_threads(device, task.copies),
        extension=task.extension,
        by_sample=task.deterministic,
    )
    with _deterministic_if(task.deterministic, device):
        weights, diverged = _weights_of(fitted, partial(loop.fit, fitted))
    learned = _on_training_cases(fitted, weights, task.scoring_s)
    return parallel.Trained(learned, diverged, tuple(said))


def _reading_threads(device: torch.device, processes: int) -> int:
    """Threads that draw patches. On a CPU the cores are busy with the network."""
    if device.type == "cpu":
        return 1
    return max(2, plan_step.Machine.here("cpu").cores // processes - 2)


def _note_log(model: ModelFile, job: NetworkJob, log: Path) -> None:
    """Note the number of lines, by which a report recognises a log that has lost some (0 for a
    training whose time was over before its first step), the parts of a batch where memory ran out,
    and the batches that were left out.
    """
    lines = read_json_lines(log) if log.is_file() else []
    model.note("log_lines", job.name, len(lines))
    parts = max((line.get("batch_parts", 1) for line in lines), default=1)
    if parts > 1:
        model.note("batch_parts", job.name, parts)
    if left_out := max((line.get("left_out", 0) for line in lines), default=0):
        model.note("left_out", job.name, left_out)


def _on_training_cases(
    fitted: loop.TrainingJob, weights: Weights, limit_s: float | None
) -> dict[str, Any]:
    """Dice and loss of some training cases, measured as those of the validation cases."""
    import numpy as np

    from ...networks.build import build
    from ...networks.build import load_weights as fill
    from ...training import validation

    network = build(fitted.plan.network, fitted.seed).to(fitted.device).eval()
    fill(network, weights)
    most = min(len(fitted.train), max(1, len(fitted.validate)), MOST_SCORED)
    chosen = np.unique(np.linspace(0, len(fitted.train) - 1, most).astype(int))
    cases = [fitted.train[int(n)] for n in chosen]
    found = validation.evaluate(fitted.plan, network, cases, fitted.device, limit_s)
    return {key.replace("val_", "train_"): without_nan(value) for key, value in found.items()}


def _fitted(
    run: TrainingRun, fitted: loop.TrainingJob, model: ModelFile, job: NetworkJob
) -> tuple[Weights, str]:
    """See ``_weights_of``; of a network that this process trains, alone or with other ranks."""
    from ...training import loop

    fit = partial(loop.fit, fitted)
    if run.leader is not None:
        shared = replace(fitted, ranks=run.leader.ranks)
        order = _order(run, fitted, model.plan, job.view)
        fit = partial(run.leader.fit, order, partial(loop.fit, shared), run.say)
    with _deterministic_if(run.request.deterministic, fitted.device):
        return _weights_of(fitted, fit)


@contextmanager
def _deterministic_if(asked: bool, device: torch.device) -> Iterator[None]:
    """``inference.devices.deterministic``, if it is asked for."""
    from ...inference.devices import deterministic

    with deterministic(device) if asked else nullcontext():
        yield


def _weights_of(fitted: loop.TrainingJob, fit: Callable[[], Weights]) -> tuple[Weights, str]:
    """The best weights; of a training that cannot continue, those before, and why.

    Raises:
        TrainingError: there are none.
    """
    try:
        return fit(), ""
    except RankError:
        raise
    except TrainingError as error:
        best = fitted.folder / "best.safetensors"
        if not best.is_file():
            raise
        return load_weights(best, fitted.say), error.message


def _order(run: TrainingRun, fitted: loop.TrainingJob, plan: Plan, view: str) -> together.Order:
    """The training of a network as the other ranks are asked to join it."""
    return together.Order(
        fitted.plan,
        plan,
        view,
        run.store.folder.resolve(),
        tuple(case.id for case in fitted.train),
        tuple(case.id for case in fitted.validate),
        fitted.folder.resolve(),
        fitted.seed,
        None if fitted.deadline is None else fitted.deadline - time.monotonic(),
        fitted.init,
        fitted.threads,
        fitted.extension,
        run.request.deterministic,
        1 if run.leader is None else run.leader.copies,
    )


def _join(order: together.Order, ranks: Ranks) -> None:
    """Train a network as a rank that does not lead."""
    from ...training import loop

    store, device = Store(order.store), ranks.device
    training, validating = (
        preparation.opened(store, order.whole, ids, order.view, order.copies)
        for ids in (order.training, order.validating)
    )
    job = loop.TrainingJob(
        order.plan,
        training,
        validating,
        order.folder,
        device,
        order.seed,
        None if order.left_s is None else time.monotonic() + order.left_s,
        order.init,
        threads=order.threads,
        extension=order.extension,
        ranks=ranks,
        by_sample=order.deterministic,
    )
    with _deterministic_if(order.deterministic, device):
        loop.fit(job)


def _adopted(plan: Plan, name: str, value: Any, reason: str) -> Plan:
    """The plan with a setting of inference that was measured."""
    return plan.replace(
        inference=plan.inference.model_dump() | {name: value},
        reasons=plan.reasons | {f"inference.{name}": reason},
    )


def _choose_prediction(
    planned: PlannedRun, model: ModelFile, limit_s: float, finder_s: float | None = None
) -> None:
    """Choose, on the validation cases of the first fold, the overlap of windows, a coarse pass that
    leaves windows out, INT8 where a CPU has units for it, and the structures of which only the
    largest connected component is kept.
    """
    from ...inference.devices import choose_device
    from ...inference.engine import Engine
    from ...training import int8_choice, postprocessing, window_overlap

    run, spent_s = planned.run, 0.0
    began, chosen = time.monotonic(), held_out.choices_of(planned)
    if not model.members or not any(vars(chosen).values()):
        return
    first, device = model.members[0], choose_device(run.request.device)
    # A run that is extended chooses again.
    plan = without_coarse(planned.plan) if chosen.coarse else planned.plan
    engine = Engine.from_bundle(Bundle(plan, (first,)), device, graphs=graphs_beside(run.model))
    cases, finder = _opened(planned, planned.sides(first.fold)[1]), None
    if chosen.overlap:
        # The rest of the time is for postprocessing.
        found = window_overlap.choose(engine, cases, limit_s * held_out.OVERLAP_SHARE)
        if found.measured:
            plan = _adopted(plan, "overlap", found.overlap, found.reason)
            model.card["overlap"] = found.to_json()
            run.say(f"overlap of windows: {found.reason}")
    if chosen.int8:
        bundle = Bundle(plan, model.members)
        eight = int8_choice.choose(bundle, device, cases, limit_s * held_out.INT8_SHARE)
        if eight.bounds:
            plan = _adopted(plan, "int8", eight.chosen, eight.reason)
            model.bound(eight.bounds)
            model.card["int8_choice"] = eight.to_json()
            run.say(f"integers: {eight.reason}")
    if chosen.coarse:
        before_s = time.monotonic()
        limits_s = (finder_s, limit_s * held_out.COARSE_SHARE)
        passed = _coarse_pass(replace(planned, plan=plan), model, engine, cases, limits_s)
        if passed is not None:
            plan, finder = passed
        # Its training has a time of its own.
        spent_s = min(time.monotonic() - before_s, finder_s or float("inf"))
    if chosen.postprocessing:
        left_s = limit_s - (time.monotonic() - began - spent_s)
        names = postprocessing.choose(replace(engine, plan=plan), cases, left_s)
        if names:
            plan = plan.replace(postprocessing={"keep_largest": names})
            run.say(
                f"postprocessing: only the largest connected component of {', '.join(names)} is "
                "kept, which is better on the validation cases"
            )
    if plan != planned.plan:
        plan.save(run.folder / "plan.json")
        model.replan(plan, finder)
        model.complete()
        model.save()


def _coarse_pass(
    planned: PlannedRun,
    model: ModelFile,
    engine: Engine,
    cases: Sequence[StoredCase],
    limits_s: tuple[float | None, float],
) -> tuple[Plan, Member] | None:
    """The plan with the coarse pass, if it is chosen, and the network of the coarse pass; None if
    there is nothing to choose. ``limits_s``: of its training and of the choice.
    """
    from ...inference import coarse
    from ...inference.devices import choose_device
    from ...training import coarse_choice

    run, plan, first = planned.run, planned.plan, model.members[0]
    training = _opened(planned, planned.sides(first.fold)[0])
    if limits_s[0] == 0 or not coarse.may_save(plan, training[: held_out.POINTED]):
        return None
    folder, device = finder_folder(run.folder), choose_device(run.request.device)
    weights = coarse_choice.fit(plan, training, cases, folder, device, limits_s[0], run.say)
    own = coarse_choice.with_finder(engine, plan, weights)
    choice = coarse_choice.choose(own, cases, limits_s[1])
    if not choice.cases:
        return None
    model.card["coarse_choice"] = choice.to_json()
    run.say(f"windows: {choice.reason}")
    threshold = choice.threshold if choice.chosen else 0.0
    return _adopted(plan, "coarse", threshold, choice.reason), finder_of(weights)


def _opened(planned: PlannedRun, cases: Sequence[Case], view: str = "") -> list[StoredCase]:
    run, ids = planned.run, [case.id for case in cases]
    copies = 1 if run.leader is None else run.leader.copies
    return preparation.opened(run.store, planned.plan, ids, view, copies)


def _finish(
    run: TrainingRun,
    model: ModelFile,
    scores: dict[str, Any],
    verdict: Verdict,
    failed: Sequence[str],
) -> list[str]:
    """Write the last bundle with its compiled networks, the card with the failures so far, and the
    report; its failure.
    """
    from ...inference.engine import keep_graphs

    recorded = {"verdict": verdict.to_json(), "scores": without_nan(scores)}
    # Ids of cases may be names of patients: a model has none, only the run that stays here.
    lost = scores.get("not_scored", ())
    model.card |= {
        "verdict": verdict.unnamed.to_json(),
        "scores": recorded["scores"] | ({"not_scored": len(lost)} if lost else {}),
        "seconds": round(run.clock.elapsed_s, 1),
        "peak_memory_mb": predict_step.peak_memory_mb(),
    }
    model.save()
    bundle = Bundle.load(run.model)
    keep_graphs(bundle, graphs_beside(run.model))
    run.save_json("card.json", bundle.card | recorded | {"id": bundle.id, "failed": list(failed)})
    failures = _write_report(run)
    run.say(f"model {bundle.id} in {run.model}; report in {run.folder / 'report.html'}")
    run.say(f"verdict: {verdict.words}")
    return failures


def _write_report(run: TrainingRun) -> list[str]:
    """Write the report of the finished run; the failure."""
    try:
        report_step.report(run.folder, options=ReportOptions(overwrite=True))
    except DelineateError as error:
        return [f"the report could not be written: {error}"]
    return []
