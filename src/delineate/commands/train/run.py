"""A training's run: its folder beside the model, and what is decided once at its beginning and read
again after a kill.

    clock.json                              seconds spent so far, so that a budget spans kills
    request.json manifest.jsonl             what was asked for, who trains and who tests
    findings.json fingerprint.json plan.json   what was found, and the plan

A different request for the same model is refused until it is started anew. Knows nothing of
networks but which starting weights fit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...cohorts.discovery.originals import files_of
from ...core import atomic
from ...core.bundle import Bundle, Member, Weights
from ...core.errors import DelineateError, LayoutError, OutputError, PlanError, UsageError
from ...core.manifest import Case, Manifest
from ...core.outputs import Originals
from ...core.plan import Plan
from ...core.progress import Progress, Say
from ...core.schema import migrate
from ...core.scores import without_nan
from ...core.store import Store
from ...core.terms import contradictions, may_be
from ...planning import rules as plan_step
from ...planning.rules import VALIDATION_FOLDS
from .. import check as check_step
from .request import Request, read_split

# of a first stage's kernels, where the second has other structures (benchmarks/warm_start.py)
OTHER_TASK = 0.5
# patients, where others are held out to test: more would be lost to training, and only choose a
# checkpoint
ENOUGH_TO_VALIDATE = 16
RESERVE_S = 12.0  # of a budget, for bundling, the report and leaving


@dataclass
class Run:
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
    tensorboard: bool = False  # event files beside the logs
    card: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    # Seconds that the run was given after it had ended.
    extensions: list[float] = field(default_factory=list)

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
        return (
            float("inf")
            if self.request.budget_s is None
            else self.request.budget_s + sum(self.extensions) - self.elapsed_s
        )

    def tick(self) -> None:
        """Remember the time spent, for a start after a kill."""
        atomic.write_text(
            self.folder / "clock.json",
            json.dumps({"spent_s": round(self.elapsed_s, 1), "extensions_s": self.extensions}),
        )

    @property
    def stretch_s(self) -> float | None:
        """Seconds that the run was given, or last given; None without a budget."""
        return self.extensions[-1] if self.extensions else self.request.budget_s

    @property
    def is_finished(self) -> bool:
        return (self.folder / "card.json").is_file() and self.model.is_file()

    def extend(self, seconds: float) -> None:
        """Give a finished run more time; one that was killed in an extension of this length goes on
        with it.

        Raises:
            UsageError: the run has not ended yet, or is not one by the clock.
        """
        if self.request.budget_s is None:
            raise UsageError(
                "--extend gives more time to a run with a --budget; this one goes by epochs",
                path=self.folder,
            )
        if not self.is_finished:
            if self.extensions and self.extensions[-1] == seconds:
                return
            raise UsageError(
                "there is no finished run to extend here; give its command without --extend first",
                path=self.folder,
            )
        self.extensions.append(seconds)
        # What was left over is not given twice.
        self.spent_s = max(self.spent_s, self.request.budget_s + sum(self.extensions[:-1]))
        self.tick()
        (self.folder / "card.json").unlink()


@dataclass(frozen=True)
class NetworkJob:
    """One network to train: of a fold (None where the cohort itself says who validates) and, where
    the plan has views, of a view.
    """

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
        return plan.seed + 1000 * self.number + 100 * (views_of(plan).index(self.view))

    def member(self, plan: Plan, weights: Weights) -> Member:
        return Member(
            self.name,
            weights,
            self.fold,
            plan.named_views()[self.view].weight if self.view else 1.0,
            self.view,
        )


def views_of(plan: Plan) -> list[str]:
    """Names of the plan's views; one without a name where it is a plan of a single network."""
    return list(plan.named_views()) or [""]


def _reached(request: Request, run: Path) -> set[str]:
    """What the training reads, as far as can be told without knowing its layout: the data, where
    the links in it lead, and what manifests in it name. The run's own files do not count.
    """
    found = {request.data, *request.files}
    for given in tuple(found):
        for path in (Path(given), *_below(Path(given), run)):
            if path.is_symlink():
                found.add(os.path.realpath(path))
            if path.suffix == ".jsonl" and path.is_file():
                with contextlib.suppress(DelineateError):
                    found.update(files_of(Manifest.load(path)))
    return found


def _below(folder: Path, but: Path) -> Iterator[Path]:
    """Everything in a folder and the folders in it but one, links to folders followed once."""
    walked = {os.path.realpath(but)}
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in walked:
            folders.clear()
            continue
        walked.add(real)
        yield from (Path(place, name) for name in (*folders, *names))


def open_run(request: Request, model: Path, overwrite: bool, say: Say, progress: Progress) -> Run:
    """The run of ``model``: a new one, or the one that stands there under the same request.

    Raises:
        UsageError: a run with other settings, or a model without its run, stands there.
        OutputError: a folder stands there, or none can be made.
    """
    folder = model.with_name(model.name + ".run")
    if model.is_dir():
        raise OutputError("is a folder; a model is one file, name it so", path=model)
    earlier = folder / "request.json"
    # A run that never got a plan has nothing to go on with.
    if overwrite or (earlier.is_file() and not (folder / "plan.json").is_file()):
        Originals(_reached(request, folder)).refuse_removing(folder)
        shutil.rmtree(folder, ignore_errors=True)
    if earlier.is_file():
        asked = migrate(
            "delineate_run", json.loads(earlier.read_text(encoding="utf-8")), path=str(folder)
        )
        wanted = json.loads(json.dumps(vars(request)))
        changed = [key for key in wanted if asked.get(key) != wanted[key]]
        if changed:
            detail = ", ".join(
                f"{key}: {asked.get(key)!r} then, {wanted[key]!r} now" for key in changed
            )
            raise UsageError(
                f"a run with other settings stands here ({detail}); give the same command to go "
                "on, or --overwrite to start anew",
                path=folder,
            )
        say(f"going on with the run in {folder}")
    elif model.exists() and not overwrite:
        raise UsageError(
            "exists already, and its run is not beside it; name another file, or start anew with "
            "--overwrite",
            path=model,
        )
    atomic.make_folder(folder)
    clock = folder / "clock.json"
    kept = json.loads(clock.read_text(encoding="utf-8")) if clock.is_file() else {}
    extensions = [float(s) for s in kept.get("extensions_s", [])]
    return Run(
        request,
        model,
        folder,
        say,
        progress,
        time.monotonic(),
        float(kept.get("spent_s", 0.0)),
        extensions=extensions,
    )


def settle_cohort(run: Run) -> None:
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
        progress=run.progress,
    )
    run.failures += sorted(
        {f"{f.case or 'cohort'}: {f.message}" for f in checked.findings if f.severity == "error"}
    )
    manifest = checked.usable
    if not manifest.with_truth().cases:
        raise LayoutError(
            "no usable case with truth to learn from"
            + (f"; first: {run.failures[0]}" if run.failures else ""),
            path=r.data,
        )
    if run.recipe is not None:
        manifest = run.recipe.adapt(manifest, bool(r.labels))
    run.manifest = _with_sides(
        manifest, r, VALIDATION_FOLDS if run.recipe is None else run.recipe.folds
    )
    shutil.copyfile(run.folder / "check" / "findings.json", run.folder / "findings.json")
    atomic.write_text(kept, run.manifest.to_jsonl())
    sides = {side: sum(c.split == side for c in run.manifest) for side in ("train", "val", "test")}
    run.say(
        f"{len(run.manifest)} cases of {len(run.manifest.patients)} patients ({manifest.layout}): "
        f"{sides['test']} to test, the others to train and validate"
    )


def _with_sides(manifest: Manifest, request: Request, folds: int) -> Manifest:
    """Test cases by the split or the layout; folds, grouped by patient, over the others where no
    validation side is given.
    """
    if request.split:
        manifest = manifest.with_split(read_split(request.split))
    has_val = any(c.split == "val" and c.label for c in manifest)
    if has_val and not request.folds and request.fold is None:
        return manifest
    learning = [c for c in manifest if c.split != "test" and c.label]
    patients = len({c.patient for c in learning})
    if patients < 2:
        raise LayoutError(
            f"found {patients} patient(s) to learn from; at least 2 are needed, one to train and "
            "one to validate",
            path=request.data,
        )
    tested = any(c.split == "test" and c.label for c in manifest)
    # Validation then has one use, choosing a checkpoint.
    if tested and not request.folds and request.fold is None:
        folds = max(folds, patients // ENOUGH_TO_VALIDATE)
    return manifest.with_folds(min(request.folds or folds, patients), request.seed)


def settle_plan(run: Run) -> None:
    """Plan once; the plan a run began with is the plan it ends with."""
    kept = run.folder / "plan.json"
    if kept.is_file():
        run.plan = Plan.load(kept)
        return
    r = run.request
    if r.plan:
        run.plan = _own_plan(run, Plan.load(r.plan))
    else:
        learning = to_learn_from(run.manifest)
        found = plan_step.fingerprint(learning, progress=run.progress)
        save_json(run, "fingerprint.json", found.to_json())
        budget_s = (
            None
            if r.budget_s is None
            else max(5.0, 0.9 * run.remaining_s() - RESERVE_S) / len(folds_of(run))
        )
        run.plan = plan_step.plan_with(
            run.recipe,
            found,
            learning,
            r.device,
            budget_s=budget_s,
            epochs=r.epochs,
            seed=r.seed,
            dims=r.dims,
        )
        run.plan = _like_its_start(run.plan, r.init)
    for is_so, what in (
        (run.plan.network.overlapping, "structures that overlap (network.overlapping)"),
        (run.plan.cascade, "a cascade"),
    ):
        if is_so:
            raise PlanError(
                f"a plan of {what} can be imported and predict, but not be trained here"
            )
    for key, reason in run.plan.reasons.items():
        run.say(f"plan: {key}: {reason}")
    for view in views_of(run.plan):
        # Starting weights that fit nowhere are refused before anything is kept.
        starting_weights(run, NetworkJob(None, view))
    atomic.write_text(kept, run.plan.to_json())


def _own_plan(run: Run, plan: Plan) -> Plan:
    """A plan from a file, held against the cohort; the request's time and seed stand above the
    file's.
    """
    labels, names = run.manifest.labels, [c.name for c in plan.channels]
    if plan.labels.values != labels.values:
        raise UsageError(
            f"the plan knows label values {plan.labels.values}, the cohort has {labels.values}",
            path=run.request.plan,
        )
    if wrong := contradictions(plan.labels, labels, "the plan", "the cohort"):
        raise UsageError(
            f"the plan's structures are not the cohort's: {'; '.join(wrong[:3])}",
            path=run.request.plan,
        )
    if len(names) != len(run.manifest.channels):
        raise UsageError(
            f"the plan takes {len(names)} channel(s), the cohort has {len(run.manifest.channels)}",
            path=run.request.plan,
        )
    if not all(
        may_be(given, wanted) for given, wanted in zip(run.manifest.channels, names, strict=True)
    ):
        found = f"{', '.join(names)}, the cohort has {', '.join(run.manifest.channels)}"
        raise UsageError(
            f"the plan's channels are, in this order, {found}; write them in the cohort's order",
            path=run.request.plan,
        )
    r = run.request
    if r.budget_s is not None or r.epochs is not None:
        plan = plan.replace(
            schedule=plan.schedule.model_dump() | {"budget_s": r.budget_s, "epochs": r.epochs}
        )
    return plan.replace(seed=r.seed)


def _like_its_start(plan: Plan, init: str) -> Plan:
    """The plan with the network of the model it starts from, but for channels and classes, where
    both are of one family and the patches allow it.

    A second stage of the same recipe keeps the first's resolution too: filters know structures at
    the size at which they learnt them.
    """
    if not init:
        return plan
    first = Bundle.load(init).plan
    own, given = plan.network, first.network
    if (given.kind, given.dims, given.divisor) != (own.kind, own.dims, own.divisor):
        return plan
    wanted = given.model_copy(
        update={"channels": own.channels, "classes": own.classes, "dropout": own.dropout}
    )
    changes: dict[str, Any] = {"network": wanted.model_dump()} if wanted != own else {}
    if plan.recipe and first.recipe == plan.recipe and first.spacing_mm != plan.spacing_mm:
        changes |= {
            "spacing_mm": first.spacing_mm,
            "patch": first.patch,
            "views": [view.model_dump() for view in first.views],
        }
    if not changes:
        return plan
    reasons = plan.reasons | {
        "network": f"the {given.kind} of the model it starts from, {given.widths[0]} to "
        f"{given.widths[-1]} wide, at its resolution"
    }
    return plan.replace(**changes, reasons=reasons)


def starting_weights(run: Run, job: NetworkJob) -> tuple[Weights | None, str]:
    """What of ``--init`` fits the network of ``job``, of the member of the same view, else of the
    first; and what that is, in words.

    For the same structures it is taken as it is. For others every kernel is the mean of the given
    and the drawn one: a network that has settled on one task learns another more slowly than a
    fresh one, a half-way one does not (shrink and perturb, Ash & Adams 2020).

    Raises:
        UsageError: no convolution fits: that would be no start at all.
    """
    if not run.request.init:
        return None, "weights are drawn"
    from ...networks.build import build, load_weights, weights_of

    bundle = Bundle.load(run.request.init)
    giver = next((m for m in bundle.members if m.view == job.view), bundle.members[0])
    plan = run.planned()
    module = build(job.plan(plan).network, seed=job.seed(plan))
    drawn = weights_of(module)
    left = load_weights(module, giver.weights, strict=False)
    taken = [name for name in drawn if name not in left]
    if not any(drawn[name].ndim > 1 for name in taken):
        network = bundle.plan.network
        raise UsageError(
            f"nothing of the {network.dims}-D {network.kind} in it fits the {plan.dims}-D "
            f"{plan.network.kind} of this plan; "
            "start from a model of the same family and widths",
            path=run.request.init,
        )
    rest = (
        f"; left as drawn: {', '.join(left[:6])}"
        + (f" and {len(left) - 6} more" if len(left) > 6 else "")
        if left
        else ""
    )
    same = [x.name for x in bundle.plan.labels] == [x.name for x in plan.labels]
    half = (
        ""
        if same
        else ", and are mixed half and half with drawn ones because the structures are others"
    )
    words = (
        f"starts from {giver.name} of {run.request.init}: {len(taken)} of {len(drawn)} "
        f"tensors fit{half}{rest}"
    )
    return {
        name: _start(giver.weights[name], drawn[name], 1.0 if same else OTHER_TASK)
        for name in taken
    }, words


def _start(given: NDArray[Any], drawn: NDArray[Any], share: float) -> NDArray[Any]:
    """Kernels mixed; what norms have learnt and counted as it is."""
    return (
        given
        if share == 1 or given.ndim < 2
        else (share * given + (1 - share) * drawn).astype(given.dtype)
    )


def to_learn_from(manifest: Manifest) -> Manifest:
    """Cases with truth that are not test cases: nothing of a test case may shape the plan."""
    return manifest.only(c for c in manifest.with_truth() if c.split != "test")


def folds_of(run: Run) -> list[int | None]:
    """Which folds to train; None where the cohort itself says who validates."""
    if run.request.folds and run.request.fold is None:
        return list(range(run.request.folds))
    if any(c.fold is not None for c in run.manifest):
        return [run.request.fold or 0]
    return [None]


def sides(run: Run, fold: int | None) -> tuple[list[Case], list[Case]]:
    """(training cases, validation cases) of ``fold``, those that are in the store."""
    cases = [c for c in to_learn_from(run.manifest) if run.store.has(c.id)]
    if fold is None:
        return [c for c in cases if c.split != "val"], [c for c in cases if c.split == "val"]
    return [c for c in cases if c.fold != fold], [c for c in cases if c.fold == fold]


def save_json(run: Run, name: str, data: dict[str, Any]) -> None:
    atomic.write_text(run.folder / name, json.dumps(without_nan(data), indent=1))
