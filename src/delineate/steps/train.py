"""Training, the whole verb: check, plan, prepare, train, evaluate, bundle, report.

``MODEL`` is the bundle, one file; ``MODEL.run/`` beside it keeps how it came about and all that is needed to go on:

    clock.json                                                                 seconds spent so far, so that a budget spans kills
    request.json  manifest.jsonl  findings.json  fingerprint.json  plan.json   decided once, read again after a kill
    store/                         prepared cases
    fold_K/                        log.jsonl, last.safetensors, best.safetensors; fold_K/VIEW/ where the plan has views
    test/ or validation/           predictions and scores on original grids
    card.json  report.html

The bundle is rewritten whenever a better network is found, so a valid model exists from the first validation on.
The same command after a kill goes on where it stopped; a different one is refused until ``--overwrite``.
Only this step imports ``learn``.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..core import atomic
from ..core.bundle import Bundle, Member, Weights
from ..core.errors import DelineateError, LayoutError, OutputError, UsageError
from ..core.manifest import Case, Manifest
from ..core.plan import Plan
from ..core.request import DEFAULT_EPOCHS, VALIDATION_FOLDS, Request, read_split
from ..core.scores import describe, without_nan
from ..core.store import Store, StoredCase
from . import check as check_step
from . import evaluate as evaluate_step
from . import plan as plan_step
from . import predict as predict_step
from . import prepare as prepare_step
from . import report as report_step

RESERVE_S = 12.0  # of a budget, for bundling, the report and leaving
RESERVE_SHARE = 0.02
POSTPROCESS_SHARE = 0.03  # of a budget may go into choosing postprocessing
PICTURES = 12  # cases drawn side by side with their truth, where the budget has time for it
PICTURE_S = 1.0
PICTURES_SHARE = 0.03
RAM_SHARE = 0.35  # prepared cases are held in memory up to this share of it

Say = Callable[[str], None]
Progress = Callable[[str, float, float, str], None]  # stage, done, total, note


@dataclass
class Trained:
    """What came out."""

    model: Path
    run: Path
    scores: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass
class _Run:
    """One training as it goes through its stations."""

    request: Request
    model: Path
    folder: Path
    say: Say
    progress: Progress
    began: float
    spent_s: float = 0.0  # by earlier starts of this run
    recipe: plan_step.Recipe | None = None
    manifest: Manifest = field(default_factory=lambda: Manifest((), ()))
    plan: Plan | None = None
    members: dict[tuple[int, str], Member] = field(default_factory=dict)  # by fold and view
    card: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def planned(self) -> Plan:
        assert self.plan is not None
        return self.plan

    def made(self) -> tuple[Member, ...]:
        """The members that there are, by fold, then view."""
        return tuple(self.members[key] for key in sorted(self.members))

    @property
    def elapsed_s(self) -> float:
        """Seconds of work, all starts together."""
        return self.spent_s + time.monotonic() - self.began

    def remaining_s(self) -> float:
        """Seconds of the budget that are left; infinite without one."""
        return float("inf") if self.request.budget_s is None else self.request.budget_s - self.elapsed_s

    def tick(self) -> None:
        """Remember the time spent, for a start after a kill."""
        atomic.write_text(self.folder / "clock.json", json.dumps({"spent_s": round(self.elapsed_s, 1)}))


@dataclass(frozen=True)
class _Job:
    """One network to train: of a fold (None where the cohort itself says who validates) and, where the plan has views, of a view."""

    fold: int | None
    view: str = ""

    @property
    def number(self) -> int:
        return 0 if self.fold is None else self.fold

    @property
    def key(self) -> tuple[int, str]:
        return self.number, self.view

    @property
    def name(self) -> str:
        """What its member is called: fold_0, or fold_0_axial."""
        return f"fold_{self.number}" + (f"_{self.view}" if self.view else "")

    def folder(self, run: Path) -> Path:
        return run / f"fold_{self.number}" / self.view

    def plan(self, plan: Plan) -> Plan:
        """The plan that its network follows."""
        return plan.seen(plan.named_views()[self.view]) if self.view else plan

    def seed(self, plan: Plan) -> int:
        return plan.seed + 1000 * self.number + 100 * (_views(plan).index(self.view))

    def member(self, plan: Plan, weights: Weights) -> Member:
        return Member(self.name, weights, self.fold, plan.named_views()[self.view].weight if self.view else 1.0, self.view)


def _views(plan: Plan) -> list[str]:
    """Names of the plan's views; one without a name where it is a plan of a single network."""
    return list(plan.named_views()) or [""]


def train(request: Request, model: str | Path, *, recipe: plan_step.Recipe | None = None, overwrite: bool = False, say: Say = lambda text: None,
          progress: Progress = lambda stage, done, total, note: None) -> Trained:  # fmt: skip
    """Train a model, or go on with one.

    Args:
        request: data and settings.
        recipe: who plans, where ``request.recipe`` names one; the rules of ``steps.plan`` otherwise.
        model: the bundle to write; its run's folder is ``model`` + ".run".
        overwrite: start anew where a run or model stands already; the old model stays until a new one replaces it.

    Raises:
        UsageError, InputError, PlanError, TrainingError, OutputError: see their sentences.
    """
    run = _open_run(request.validated(), Path(model), overwrite, say, progress)
    run.recipe = recipe
    if (run.folder / "card.json").is_file() and run.model.is_file():
        say(f"this run is finished: {run.model}; to train anew, add --overwrite")
        return Trained(run.model, run.folder, json.loads((run.folder / "card.json").read_text(encoding="utf-8")).get("scores", {}))
    _save_json(run, "request.json", vars(request) | {"delineate": __version__})
    for station in (_check, _plan, _prepare):
        station(run)
        run.tick()
    evaluation = _evaluation_cases(run)
    reserve_s, evaluation = _reserve(run, evaluation)
    jobs = [_Job(fold, view) for fold in _folds(run) for view in _views(run.planned())]
    _recall(run, jobs)
    for number, job in enumerate(jobs):
        share = (run.remaining_s() - reserve_s) / (len(jobs) - number)
        _fit(run, job, None if request.budget_s is None else time.monotonic() + max(1.0, share))
    _postprocess(run)
    scores = _evaluate(run, evaluation)
    _finish(run, scores)
    return Trained(run.model, run.folder, scores, run.failures)


# ---- the stations, in order ----


def _open_run(request: Request, model: Path, overwrite: bool, say: Say, progress: Progress) -> _Run:
    folder = model.with_name(model.name + ".run")
    if model.is_dir():
        raise OutputError("is a folder; a model is one file, name it so", path=model)
    earlier = folder / "request.json"
    if overwrite or (earlier.is_file() and not (folder / "plan.json").is_file()):  # a run that never got a plan has nothing to go on with
        shutil.rmtree(folder, ignore_errors=True)
    if earlier.is_file():
        asked = {k: v for k, v in json.loads(earlier.read_text(encoding="utf-8")).items() if k != "delineate"}
        wanted = json.loads(json.dumps(vars(request)))
        changed = [key for key in wanted if asked.get(key) != wanted[key]]
        if changed:
            detail = ", ".join(f"{key}: {asked.get(key)!r} then, {wanted[key]!r} now" for key in changed)
            raise UsageError(
                f"a run with other settings stands here ({detail}); give the same command to go on, or --overwrite to start anew", path=folder
            )
        say(f"going on with the run in {folder}")
    elif model.exists() and not overwrite:
        raise UsageError("exists already, and its run is not beside it; name another file, or start anew with --overwrite", path=model)
    atomic.make_folder(folder)
    clock = folder / "clock.json"
    spent_s = float(json.loads(clock.read_text(encoding="utf-8"))["spent_s"]) if clock.is_file() else 0.0
    return _Run(request, model, folder, say, progress, time.monotonic(), spent_s)


def _check(run: _Run) -> None:
    """Find and examine the cohort once; fix who trains, validates and tests."""
    kept = run.folder / "manifest.jsonl"
    if kept.is_file():
        run.manifest = Manifest.load(kept)
        return
    r = run.request
    checked = check_step.check(
        r.data,
        out=run.folder / "check",
        layout=r.layout or None,
        description=r.description or None,
        labels=r.labels or None,
        patient=r.patient or None,
        progress=lambda done, total, name: run.progress("check", done, total, name),
    )
    run.failures += sorted({f"{f.case or 'cohort'}: {f.message}" for f in checked.findings if f.severity == "error"})
    manifest = checked.usable
    if not manifest.with_truth().cases:
        raise LayoutError("no usable case with truth to learn from" + (f"; first: {run.failures[0]}" if run.failures else ""), path=r.data)
    if run.recipe is not None:
        manifest = run.recipe.adapt(manifest, bool(r.labels))
    run.manifest = _with_sides(manifest, r, VALIDATION_FOLDS if run.recipe is None else run.recipe.folds)
    shutil.copyfile(run.folder / "check" / "findings.json", run.folder / "findings.json")
    atomic.write_text(kept, run.manifest.to_jsonl())
    sides = {side: sum(c.split == side for c in run.manifest) for side in ("train", "val", "test")}
    run.say(
        f"{len(run.manifest)} cases of {len(run.manifest.patients)} patients ({manifest.layout}): "
        f"{sides['test']} to test, the others to train and validate"
    )


def _with_sides(manifest: Manifest, request: Request, folds: int) -> Manifest:
    """Test cases by the split or the layout; folds, grouped by patient, over the others where no validation side is given."""
    if request.split:
        manifest = manifest.with_split(read_split(request.split))
    has_val = any(c.split == "val" and c.label for c in manifest)
    if has_val and not request.folds and request.fold is None:
        return manifest
    learning = [c for c in manifest if c.split != "test" and c.label]
    patients = len({c.patient for c in learning})
    if patients < 2:
        raise LayoutError(f"found {patients} patient(s) to learn from; at least 2 are needed, one to train and one to validate", path=request.data)
    return manifest.with_folds(min(request.folds or folds, patients), request.seed)


def _plan(run: _Run) -> None:
    """Plan once; the plan a run began with is the plan it ends with."""
    kept = run.folder / "plan.json"
    if kept.is_file():
        run.plan = Plan.load(kept)
        return
    r = run.request
    if r.plan:
        run.plan = _own_plan(run, Plan.load(r.plan))
    else:
        learning = _learning(run.manifest)
        found = plan_step.fingerprint(learning, progress=lambda done, total, name: run.progress("plan", done, total, name))
        _save_json(run, "fingerprint.json", found.to_json())
        budget_s = None if r.budget_s is None else max(5.0, 0.9 * run.remaining_s() - RESERVE_S) / len(_folds(run))
        epochs = r.epochs if r.epochs is not None or budget_s is not None or run.recipe is not None else DEFAULT_EPOCHS
        planner = plan_step.make_plan if run.recipe is None else run.recipe.plan
        run.plan = planner(found, learning, plan_step.Machine.here(r.device), budget_s=budget_s, epochs=epochs, seed=r.seed, dims=r.dims)
        run.plan = _like_its_start(run.plan, r.init)
    for key, reason in run.plan.reasons.items():
        run.say(f"plan: {key}: {reason}")
    for view in _views(run.plan):
        _start(run, _Job(None, view))  # starting weights that fit nowhere are refused before anything is kept
    atomic.write_text(kept, run.plan.to_json())


def _own_plan(run: _Run, plan: Plan) -> Plan:
    """A plan from a file, held against the cohort; the request's time and seed stand above the file's."""
    labels, names = run.manifest.labels, [c.name for c in plan.channels]
    if plan.labels.values != labels.values:
        raise UsageError(f"the plan knows label values {plan.labels.values}, the cohort has {labels.values}", path=run.request.plan)
    if len(names) != len(run.manifest.channels):
        raise UsageError(f"the plan takes {len(names)} channel(s), the cohort has {len(run.manifest.channels)}", path=run.request.plan)
    r = run.request
    if r.budget_s is not None or r.epochs is not None:
        plan = plan.replace(schedule=plan.schedule.model_dump() | {"budget_s": r.budget_s, "epochs": r.epochs})
    return plan.replace(seed=r.seed)


def _like_its_start(plan: Plan, init: str) -> Plan:
    """The plan with the network of the model it starts from, but for channels and classes, where both are of one family and the patches allow it."""
    if not init:
        return plan
    own, given = plan.network, Bundle.load(init).plan.network
    wanted = given.model_copy(update={"channels": own.channels, "classes": own.classes})
    same = (given.kind, given.dims, given.divisor) == (own.kind, own.dims, own.divisor)
    if wanted == own or not same:
        return plan
    reasons = plan.reasons | {"network": f"the {given.kind} of the model it starts from, {given.widths[0]} to {given.widths[-1]} wide"}
    return plan.replace(network=wanted.model_dump(), reasons=reasons)


def _learning(manifest: Manifest) -> Manifest:
    """Cases with truth that are not test cases: nothing of a test case may shape the plan."""
    return manifest.only(c for c in manifest.with_truth() if c.split != "test")


def _prepare(run: _Run) -> None:
    outcomes = prepare_step.prepare_cohort(
        _learning(run.manifest), run.planned(), run.store, progress=lambda done, total, name: run.progress("prepare", done, total, name)
    )
    broken = [o for o in outcomes if o.error is not None]
    if broken and len(broken) == len(outcomes):
        raise broken[0].error  # type: ignore[misc]
    for outcome in broken:
        if isinstance(outcome.error, OutputError):
            raise outcome.error
        run.failures.append(str(outcome.error))


def _folds(run: _Run) -> list[int | None]:
    """Which folds to train; None where the cohort itself says who validates."""
    if run.request.folds and run.request.fold is None:
        return list(range(run.request.folds))
    if any(c.fold is not None for c in run.manifest):
        return [run.request.fold or 0]
    return [None]


def _sides(run: _Run, fold: int | None) -> tuple[list[Case], list[Case]]:
    """(training cases, validation cases) of ``fold``, those that are in the store."""
    cases = [c for c in _learning(run.manifest) if run.store.has(c.id)]
    if fold is None:
        return [c for c in cases if c.split != "val"], [c for c in cases if c.split == "val"]
    return [c for c in cases if c.fold != fold], [c for c in cases if c.fold == fold]


def _recall(run: _Run, jobs: Sequence[_Job]) -> None:
    """The members that earlier starts of this run left, so that a model on disk is never replaced by one with fewer of them."""
    from safetensors.numpy import load_file

    for job in jobs:
        best = job.folder(run.folder) / "best.safetensors"
        if best.is_file():
            run.members[job.key] = job.member(run.planned(), load_file(best))
    if run.members and run.model.is_file():
        card = Bundle.load(run.model).card
        run.card = {key: card[key] for key in ("validation", "training_s") if key in card}


def _fit(run: _Run, job: _Job, deadline: float | None) -> None:
    import torch

    from ..learn import loop
    from ..nets.infer import choose_device

    folder, words = atomic.make_folder(job.folder(run.folder)), job.name.replace("_", " ")
    training, validating = _sides(run, job.fold)
    began, finished = time.monotonic(), job.name in run.card.get("training_s", {})

    def listen(line: dict[str, Any]) -> None:
        share = f"loss {line['loss']:.3f}, Dice {line['train_dice_mean']:.3f}"
        if "val_dice_mean" in line:
            share += f"; validation loss {line['val_loss']:.3f}, Dice {line['val_dice_mean']:.3f}"
            run.say(f"{words}, epoch {line['epoch']:.0f}, step {line['step']}: {share}")
        run.progress(f"train {words}", line["progress"], 1.0, share)
        run.tick()

    def keep(weights: Weights, line: dict[str, Any]) -> None:
        run.members[job.key] = job.member(run.planned(), weights)
        run.card.setdefault("validation", {})[job.name] = without_nan({k: v for k, v in line.items() if k.startswith("val") or k == "step"})
        _bundle(run)

    begun = (folder / "last.safetensors").is_file()
    init, start = (None, "goes on from its own checkpoint") if begun else _start(run, job)
    run.say(f"{words}: {len(training)} cases train, {len(validating)} validate; {start}")
    device = choose_device(run.request.device)
    threads = 1 if device.type == "cpu" else max(2, plan_step.Machine.here("cpu").cores - 2)  # on a CPU the cores are busy training
    weights = loop.fit(
        loop.Training(
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
        )
    )
    run.members[job.key] = job.member(run.planned(), weights)
    if not finished:
        run.card.setdefault("training_s", {})[job.name] = round(time.monotonic() - began, 1)
    run.card["torch"] = torch.__version__
    _bundle(run)


def _start(run: _Run, job: _Job) -> tuple[Weights | None, str]:
    """What of ``--init`` fits the network of ``job``, of the member of the same view, else of the first; and what that is, in words.

    Raises:
        UsageError: no convolution fits: that would be no start at all.
    """
    if not run.request.init:
        return None, "weights are drawn"
    from ..nets.build import build, load_weights

    bundle = Bundle.load(run.request.init)
    giver = next((m for m in bundle.members if m.view == job.view), bundle.members[0])
    module = build(job.plan(run.planned()).network)
    left = load_weights(module, giver.weights, strict=False)
    own = {name: tensor.ndim for name, tensor in module.state_dict().items()}
    taken = [name for name in own if name not in left]
    if not any(own[name] > 1 for name in taken):
        network = bundle.plan.network
        raise UsageError(
            f"nothing of the {network.dims}-D {network.kind} in it fits the {run.planned().dims}-D {run.planned().network.kind} of this plan; "
            "start from a model of the same family and widths",
            path=run.request.init,
        )
    rest = f"; left as drawn: {', '.join(left[:6])}" + (f" and {len(left) - 6} more" if len(left) > 6 else "") if left else ""
    words = f"starts from {giver.name} of {run.request.init}: {len(taken)} of {len(own)} tensors fit{rest}"
    return {name: giver.weights[name] for name in taken}, words


def _postprocess(run: _Run) -> None:
    """Choose, on the validation cases of the first fold, which structures keep only their largest piece."""
    from ..learn import postprocess
    from ..nets.build import build, load_weights
    from ..nets.infer import choose_device

    if run.request.plan or run.recipe is not None or run.planned().views or not run.members:
        return  # a plan that was given is followed as it is
    first, device = run.made()[0], choose_device(run.request.device)
    module = build(run.planned().network).to(device)
    load_weights(module, first.weights)
    limit_s = 60.0 if run.request.budget_s is None else POSTPROCESS_SHARE * run.request.budget_s
    cases = _opened(run, _sides(run, first.fold)[1])
    names = postprocess.choose(run.planned(), module.eval(), cases, device, limit_s)
    if names:
        run.plan = run.planned().replace(postprocessing={"keep_largest": names})
        run.say(f"postprocessing: only the largest piece of {', '.join(names)} is kept: better on the validation cases")
        atomic.write_text(run.folder / "plan.json", run.plan.to_json())
        _bundle(run)


def _opened(run: _Run, cases: Sequence[Case], view: str = "") -> list[StoredCase]:
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


def _evaluation_cases(run: _Run) -> Manifest:
    """Test cases with truth where there are any, else the validation cases of the folds that train."""
    test = tuple(c for c in run.manifest.with_truth() if c.split == "test")
    if test:
        return run.manifest.only(test)
    return run.manifest.only(case for fold in _folds(run) for case in _sides(run, fold)[1])


def _reserve(run: _Run, evaluation: Manifest) -> tuple[float, Manifest]:
    """Seconds to keep for what follows training, from one rehearsed prediction; fewer validation cases are scored where all would take too long."""
    budget_s = run.request.budget_s
    if budget_s is None or not evaluation.cases:
        return 0.0, evaluation
    base = RESERVE_S + (RESERVE_SHARE + POSTPROCESS_SHARE) * budget_s + PICTURE_S * min(_pictures(run), len(evaluation))
    each = _rehearse(run, evaluation.cases[len(evaluation) // 2]) * 1.3 + 0.05
    most = max(1, int(0.3 * budget_s / each))
    if len(evaluation) > most:
        run.say(f"only {most} of {len(evaluation)} cases can be scored within the budget ({each:.1f} s each); `predict` and `evaluate` score all")
        evaluation = evaluation.only(evaluation.cases[:most])
    return base + each * len(evaluation), evaluation


def _pictures(run: _Run) -> int:
    """How many cases are drawn."""
    budget_s = run.request.budget_s
    return PICTURES if budget_s is None else min(PICTURES, int(PICTURES_SHARE * budget_s / PICTURE_S))


def _rehearse(run: _Run, case: Case) -> float:
    """Seconds that predicting ``case`` takes, measured with untrained weights."""
    import numpy as np

    from ..cohort.cases import read_image
    from ..nets.build import build
    from ..nets.infer import Engine, choose_device, fast_dtype
    from ..nets.predictor import predict

    device = choose_device(run.request.device)
    plan, names = run.planned(), _views(run.planned())
    members = tuple((build(_Job(None, view).plan(plan).network, 0).to(device).eval(), 1.0) for view in names)
    engine = Engine(plan, members, device, fast_dtype(device), tuple(names) if plan.views else ())
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        predict(read_image(case, run.manifest), engine)
        seconds.append(time.monotonic() - began)
        if seconds[0] > 5:
            break
    return float(np.min(seconds)) * len(_folds(run))


def _evaluate(run: _Run, evaluation: Manifest) -> dict[str, Any]:
    """Predict and score on original grids: test cases by the whole bundle, validation cases each by the members that never saw it."""
    if not evaluation.cases:
        return {}
    is_test = evaluation.cases[0].split == "test"
    folder = atomic.make_folder(run.folder / ("test" if is_test else "validation"))
    groups: list[tuple[Bundle, Manifest]] = [(Bundle(run.planned(), run.made(), {}), evaluation)]
    folds = list(dict.fromkeys(m.fold for m in run.made()))
    if not is_test and len(folds) > 1:
        of_fold = {fold: tuple(m for m in run.made() if m.fold == fold) for fold in folds}
        groups = [(Bundle(run.planned(), mine, {}), evaluation.only(c for c in evaluation if c.fold == fold)) for fold, mine in of_fold.items()]
    for part, cases in groups:
        outcomes = predict_step.predict_cases(
            part,
            cases,
            folder / "predictions",
            device=run.request.device,
            progress=lambda done, total, name: run.progress("evaluate", done, total, name),
        )
        run.failures += [str(o.error) for o in outcomes if o.error is not None]
    atomic.write_text(folder / "manifest.jsonl", evaluation.to_jsonl())
    evaluated = evaluate_step.evaluate(folder / "predictions", folder / "manifest.jsonl", folder, pictures=_pictures(run))
    what = "test" if is_test else ("cross-validation" if len(groups) > 1 else "validation")
    dice = {label: float(describe(evaluated.scores.values(label, "dice"))["mean"]) for label in evaluated.scores.labels}
    run.say(f"{what} Dice on {len(evaluation)} cases: " + ", ".join(f"{k} {v:.3f}" for k, v in dice.items()))
    return {"what": what, "cases": len(evaluation), "dice_mean": evaluated.scores.mean("dice"), "dice": dice}


def _bundle(run: _Run) -> None:
    """Write the model as it now is."""
    Bundle(run.planned(), run.made(), run.card | _provenance(run)).save(run.model)


def _provenance(run: _Run) -> dict[str, Any]:
    import hashlib

    return {
        "delineate": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        "data": run.manifest.root,
        "layout": run.manifest.layout,
        "cases": len(_learning(run.manifest)),
        "patients": len(_learning(run.manifest).patients),
        "manifest_sha256": hashlib.sha256(run.manifest.to_jsonl().encode()).hexdigest(),
        "seed": run.request.seed,
        "licence": "of the weights: not stated; of the data: see its source",
        "limits": "For research. Not a medical device.",
    }


def _finish(run: _Run, scores: dict[str, Any]) -> None:
    run.card |= {"scores": without_nan(scores), "seconds": round(run.elapsed_s, 1), "peak_memory_mb": predict_step.peak_memory_mb()}
    _bundle(run)
    bundle = Bundle.load(run.model)
    _save_json(run, "card.json", bundle.card | {"id": bundle.id})
    try:
        report_step.report(run.folder)
    except DelineateError as error:
        run.failures.append(f"the report could not be written: {error}")
    run.say(f"model {bundle.id} in {run.model}; report in {run.folder / 'report.html'}")


def _save_json(run: _Run, name: str, data: dict[str, Any]) -> None:
    atomic.write_text(run.folder / name, json.dumps(without_nan(data), indent=1))
