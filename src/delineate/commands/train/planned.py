"""A run with its cohort and its plan, and the networks that it trains.

A run trains one network for each fold and, if the plan has several views, for each view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.bundle import Member, Weights
from ...core.errors import PlanError, UsageError
from ...core.manifest import Case, Manifest
from ...core.plan import Loss, Plan
from ...core.terms import contradictions, may_be
from ...extend.parts import LossTerm
from ...extend.registers import LOSSES, NETWORKS, parts_of
from ...planning import rules
from ...planning.capacity import steps_wanted
from ...planning.changes import with_changes
from ...planning.fingerprint import Fingerprint
from .run import TrainingRun
from .start import like_its_start, starting_weights

RESERVE_S = 12.0  # of a budget, for the bundle, the report and the end of the process


@dataclass(frozen=True)
class NetworkJob:
    """One network to train.

    Args:
        fold: None if the cohort itself names its validation cases.
        view: "" for a plan without views.
    """

    fold: int | None
    view: str = ""

    @property
    def number(self) -> int:
        return 0 if self.fold is None else self.fold

    @property
    def key(self) -> tuple[int, str]:
        """Fold and view; members are sorted by it."""
        return self.number, self.view

    @property
    def name(self) -> str:
        """The name of its member: fold_0, or fold_0_axial."""
        return f"fold_{self.number}" + (f"_{self.view}" if self.view else "")

    @property
    def words(self) -> str:
        """The name, as messages have it."""
        return self.name.replace("_", " ")

    def folder(self, run: Path) -> Path:
        return run / f"fold_{self.number}" / self.view

    def plan(self, plan: Plan) -> Plan:
        """The plan of its network."""
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
    """Names of the plan's views; one empty name if it has none."""
    return list(plan.named_views()) or [""]


@dataclass(frozen=True)
class PlannedRun:
    """A run whose cohort and plan are settled."""

    run: TrainingRun
    manifest: Manifest
    plan: Plan

    @property
    def learning(self) -> Manifest:
        """Cases with truth that are not test cases."""
        return self.manifest.to_learn_from()

    @property
    def folds(self) -> list[int | None]:
        """The folds to train; [None] if the cohort itself names its validation cases."""
        return folds_of(self.run, self.manifest)

    @property
    def jobs(self) -> list[NetworkJob]:
        return [NetworkJob(fold, view) for fold in self.folds for view in views_of(self.plan)]

    def sides(self, fold: int | None) -> tuple[list[Case], list[Case]]:
        """(training cases, validation cases) of ``fold`` that are in the store."""
        store = self.run.store
        return sides_of([c for c in self.learning if store.has(c.id)], fold)

    def starting_weights(self, job: NetworkJob) -> tuple[Weights | None, str]:
        """The weights of ``--init`` that fit the network of ``job``, and a sentence about them.

        Raises:
            UsageError: see ``start.starting_weights``.
        """
        if not self.run.request.init:
            return None, "weights are drawn"
        network = job.plan(self.plan).network
        return starting_weights(
            self.run.request.init, self.plan, network, job.view, job.seed(self.plan)
        )


def sides_of(cases: Sequence[Case], fold: int | None) -> tuple[list[Case], list[Case]]:
    """(training cases, validation cases) of ``fold``."""
    if fold is None:
        return [c for c in cases if c.split != "val"], [c for c in cases if c.split == "val"]
    return [c for c in cases if c.fold != fold], [c for c in cases if c.fold == fold]


def folds_of(run: TrainingRun, manifest: Manifest) -> list[int | None]:
    """See ``PlannedRun.folds``."""
    if run.request.folds and run.request.fold is None:
        return list(range(run.request.folds))
    if any(c.fold is not None for c in manifest):
        return [run.request.fold or 0]
    return [None]


def settle_plan(run: TrainingRun, manifest: Manifest) -> PlannedRun:
    """The run with its plan; a run that continues keeps the plan it began with.

    Raises:
        UsageError: a given plan does not fit the cohort, or ``--init`` fits no network.
        PlanError: the plan cannot be trained.
    """
    kept = run.folder / "plan.json"
    if kept.is_file():
        return PlannedRun(run, manifest, Plan.load(kept))
    plan, found = new_plan(run, manifest)
    if found is not None:
        run.save_json("fingerprint.json", found.to_json())
    for key, reason in plan.reasons.items():
        run.say(f"plan: {key}: {reason}")
    plan.save(kept)
    return PlannedRun(run, manifest, plan)


def new_plan(run: TrainingRun, manifest: Manifest) -> tuple[Plan, Fingerprint | None]:
    """The plan of a new run, and the fingerprint from which it was derived; None for a plan that is
    given. Writes nothing.

    Raises:
        UsageError: a given plan does not fit the cohort, or ``--init`` fits no network.
        PlanError: the plan cannot be trained.
    """
    request = run.request
    found: Fingerprint | None = None
    if request.plan:
        plan = _given_plan(run, manifest, Plan.load(request.plan, run.say))
    else:
        plan, found = _derived_plan(run, manifest)
    plan = with_changes(plan, request.changes)
    if plan.cascade:
        raise PlanError(
            "a plan of a cascade can be imported and used to predict, but not be trained"
        )
    _refuse_other_overlap(run, plan, manifest)
    plan = _with_steps(run, with_loss(plan, request.loss))
    # Whether voxels are ignored is a property of the cohort, whatever plan is given.
    ignore = bool(manifest.mapping.ignore)
    plan = plan.replace(loss=plan.loss.model_dump() | {"ignore": ignore})
    refuse_unfit_parts(plan)
    planned = PlannedRun(run, manifest, plan)
    # Starting weights that fit no network are refused before anything is written.
    for view in views_of(plan):
        planned.starting_weights(NetworkJob(None, view))
    return plan, found


def _refuse_other_overlap(run: TrainingRun, plan: Plan, manifest: Manifest) -> None:
    """Check that network and loss of a plan are for structures that overlap if those of the cohort
    do.

    Raises:
        PlanError: they are not.
    """
    if plan.network.overlapping != manifest.labels.overlapping:
        words = ("may overlap", "exclude each other")
        cohort, own = words if manifest.labels.overlapping else words[::-1]
        made = "recipe" if run.recipe is not None else "plan"
        raise PlanError(
            f"the cohort's structures {cohort}, those of the {made} {own} (network.overlapping); "
            "use the plan of the rules, or select structures with --labels"
        )
    if plan.network.overlapping and (unfit := plan.loss.unfit_for_overlaps()):
        raise PlanError(
            f"structures that overlap have the loss terms {', '.join(Loss.OF_OVERLAPS)}; found "
            f"{', '.join(unfit)}"
        )


def _with_steps(run: TrainingRun, plan: Plan) -> Plan:
    """With ``--at-most``, a plan that ends after the steps wanted for the budget, or at that
    time.
    """
    request, schedule = run.request, plan.schedule
    if request.at_most_s is None or schedule.budget_s is None or request.budget_s is None:
        return plan
    steps = round(steps_wanted(schedule.budget_s, rules.FEWEST_STEPS))
    longest_s = max(1.0, 0.9 * run.clock.remaining_s() - RESERVE_S)
    words = (
        f"{steps} steps, as many as are wanted in {schedule.budget_s:.0f} s of training, or "
        f"{longest_s:.0f} s, whichever is first; the learning rate ends at zero"
    )
    reasons = plan.reasons | {"schedule": words}
    changed = schedule.model_dump() | {"budget_s": longest_s, "steps": steps}
    return plan.replace(schedule=changed, reasons=reasons)


def with_loss(plan: Plan, text: str) -> Plan:
    """The plan with a registered loss term added: "NAME" or "NAME=WEIGHT"; "" adds none.

    Raises:
        UsageError: another form.
    """
    name, _, weight = text.partition("=")
    try:
        custom = plan.loss.custom | ({name: float(weight or 1)} if name else {})
        return plan.replace(loss=plan.loss.model_dump() | {"custom": custom})
    except ValueError as error:
        raise UsageError(
            f"--loss is NAME or NAME=WEIGHT with a weight from 0, found {text!r}"
        ) from error


def refuse_unfit_parts(plan: Plan) -> None:
    """Check that all parts of a plan are registered, and try a registered network once.

    Raises:
        PartError: a part is not registered. PlanError: the network does not fit the plan, or a
            registered loss term cannot leave out the cohort's ignored voxels.
    """
    from ...networks.build import refuse_misshapen

    for register, name in parts_of(plan):
        register[name]
    whole = [name for name in plan.loss.custom if isinstance(LOSSES[name], LossTerm)]
    if plan.loss.ignore and whole:
        raise PlanError(
            f"the loss term {', '.join(whole)} cannot leave out voxels, and the cohort ignores "
            "some; register a term over voxels or over structures"
        )
    if not NETWORKS.is_own(plan.network.kind):
        refuse_misshapen(plan.network, plan.patch)


def _derived_plan(run: TrainingRun, manifest: Manifest) -> tuple[Plan, Fingerprint]:
    """The plan that the rules, or the recipe, make of the training cases."""
    request, learning = run.request, manifest.to_learn_from()
    found = rules.fingerprint(learning, progress=run.progress)
    budget_s = None
    if request.budget_s is not None:
        # A tenth of the time is for everything but training.
        # With --at-most, steps and network are those of the budget, however slow the machine is.
        whole_s = run.clock.remaining_s() if request.at_most_s is None else request.budget_s
        left_s = max(5.0, 0.9 * whole_s - RESERVE_S)
        budget_s = left_s / len(folds_of(run, manifest))
    plan = rules.plan_with(
        run.recipe,
        found,
        learning,
        request.device,
        budget_s=budget_s,
        epochs=request.epochs,
        seed=request.seed,
        dims=request.dims,
        kind=request.network,
    )
    return like_its_start(plan, request.init), found


def _given_plan(run: TrainingRun, manifest: Manifest, plan: Plan) -> Plan:
    """A plan from a file, checked against the cohort; time and seed of the request replace those
    of the file.
    """
    request, labels = run.request, manifest.labels
    names, own = [c.name for c in plan.channels], manifest.channels
    if plan.labels.values != labels.values:
        raise _unfit_plan(
            run, f"the plan has the label values {plan.labels.values}, the cohort {labels.values}"
        )
    if wrong := contradictions(plan.labels, labels, "the plan", "the cohort"):
        raise _unfit_plan(
            run, f"the plan's structures differ from the cohort's: {'; '.join(wrong[:3])}"
        )
    if len(names) != len(own):
        raise _unfit_plan(run, f"the plan has {len(names)} channel(s), the cohort has {len(own)}")
    if not all(may_be(there, wanted) for there, wanted in zip(own, names, strict=True)):
        raise _unfit_plan(
            run,
            f"the plan's channels are, in this order, {', '.join(names)}, the cohort's are "
            f"{', '.join(own)}; write them in the cohort's order",
        )
    if (units := tuple(c.unit for c in plan.channels)) != manifest.units:
        raise _unfit_plan(
            run,
            f"the plan's channels are read as {_shown(units)}, the cohort's as "
            f"{_shown(manifest.units)}; --unit suv reads PET channels as SUV",
        )
    if request.budget_s is not None or request.epochs is not None:
        time = {"budget_s": request.budget_s, "epochs": request.epochs}
        plan = plan.replace(schedule=plan.schedule.model_dump() | time)
    return plan.replace(seed=request.seed)


def _shown(units: Sequence[str]) -> str:
    return ", ".join(unit.upper() or "stored" for unit in units)


def _unfit_plan(run: TrainingRun, message: str) -> UsageError:
    return UsageError(message, path=run.request.plan)
