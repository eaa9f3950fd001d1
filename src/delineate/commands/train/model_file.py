"""The model of a training run on disk, rewritten whenever a network or its card changes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...cohorts.discovery.channels import numbered
from ...cohorts.licence import licence_of_data, stated_licences
from ...core.bundle import Bundle, Member, Weights, load_weights
from ...core.plan import Plan
from ...evaluation.training_verdict import Verdict
from ...extend.registers import custom_parts
from ...inference.engine import with_topology
from .planned import NetworkJob, PlannedRun

# Of each network, and what was chosen on validation cases; a run that continues keeps them.
KEPT = ("training", "validation", "training_s", "overlap", "coarse_choice", "int8_choice")
UNFINISHED = Verdict(summary="the training has not ended")


class ModelFile:
    """A bundle that grows: the members trained so far, and its card.

    Args:
        planned: the run; its plan is the bundle's until ``replan``.
        jobs: the networks of the run. Members that earlier starts left on disk are read, so that a
            model is never replaced by one with fewer members.
    """

    def __init__(self, planned: PlannedRun, jobs: Sequence[NetworkJob]):
        run = planned.run
        self.path: Path = run.model
        self.plan = planned.plan
        # Replaced at the end; a model of a run that is stopped before has no other verdict.
        self.card: dict[str, Any] = {"verdict": UNFINISHED.to_json()}
        self._provenance = _provenance(planned)
        self._members: dict[tuple[int, str], Member] = {}
        # What finds where structures are, if the plan uses it.
        self._finder: tuple[Member, ...] = ()
        finder = finder_folder(run.folder) / "best.safetensors"
        if self.plan.inference.coarse and finder.is_file():
            self._finder = (finder_of(load_weights(finder, run.say)),)
        elif self.plan.inference.coarse:
            self.plan = without_coarse(self.plan)
        for job in jobs:
            best = job.folder(run.folder) / "best.safetensors"
            if best.is_file():
                self._members[job.key] = job.member(self.plan, load_weights(best, run.say))
        if self._members and self.path.is_file():
            card = Bundle.load(self.path).card
            self.card |= {key: card[key] for key in KEPT if key in card}

    @property
    def members(self) -> tuple[Member, ...]:
        """The members trained so far, by fold, then view."""
        return tuple(self._members[key] for key in sorted(self._members))

    def add(self, job: NetworkJob, weights: Weights) -> None:
        """Add the network of ``job``, or replace its weights; ``save`` writes them."""
        self._members[job.key] = job.member(self.plan, weights)

    def note(self, key: str, name: str, value: Any) -> None:
        """Record a value of one network in the card, such as ``validation`` of ``fold_0``."""
        self.card.setdefault(key, {})[name] = value

    def replan(self, plan: Plan, finder: Member | None = None) -> None:
        """Use a plan that differs from the run's in how it predicts alone, with what finds where
        structures are, if the plan has a coarse pass.
        """
        self.plan = plan
        self._finder = () if finder is None or not plan.inference.coarse else (finder,)

    @property
    def bundle(self) -> Bundle:
        """All members, without a card."""
        return Bundle(self.plan, (*self.members, *self._finder), {})

    def bound(self, bounds: Mapping[str, Weights]) -> None:
        """Store the bounds of the layers' inputs for INT8; member name -> bounds."""
        self._members = {
            key: replace(member, bounds=bounds[member.name])
            for key, member in self._members.items()
        }

    def complete(self) -> None:
        """Add what the networks need to be compiled without torch, or tracing them again."""
        members = with_topology(self.bundle).members
        count = len(self._members)
        self._members = dict(zip(sorted(self._members), members[:count], strict=True))
        self._finder = members[count:]

    def save(self) -> None:
        """Write the model as it is now."""
        bundle = replace(self.bundle, card=self.card | self._provenance)
        bundle.save(self.path, overwrite=True)


def finder_folder(run: Path) -> Path:
    """Where a run trains what finds where structures are."""
    return run / "finder"


def finder_of(weights: Weights) -> Member:
    """The member that finds where structures are."""
    return Member("finder", weights, first_stage=True)


def without_coarse(plan: Plan) -> Plan:
    """The plan with all windows."""
    return plan.replace(inference=plan.inference.model_dump() | {"coarse": 0.0})


def _provenance(planned: PlannedRun) -> dict[str, Any]:
    manifest, learning = planned.manifest, planned.learning
    return {
        "delineate": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        # A model is given away: the path would name the user, and folders above may name more.
        "data": Path(manifest.root).resolve().name,
        "layout": manifest.layout,
        "channels_numbered": numbered(manifest),
        "cases": len(learning),
        "patients": len(learning.patients),
        "manifest_sha256": hashlib.sha256(manifest.to_jsonl().encode()).hexdigest(),
        "seed": planned.run.request.seed,
        "licence": stated_licences(planned.run.request.licence, licence_of_data(manifest.root)),
        "parts": custom_parts(planned.plan),
        "limits": "For research. Not a medical device.",
    }
