"""What a training would do (``train --dry-run``): its cases, its plan, and the time, disk and
memory it would take. Nothing is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...cohorts.discovery.originals import originals_in
from ...core.errors import DelineateError
from ...core.manifest import ABSENT, Manifest
from ...core.plan import Plan
from ...core.progress import Progress, silent
from ...core.words import data_size, duration
from ...extend.registers import RECIPES
from ...extras import require_extra
from ...formats import files
from ...planning.capacity import measure_step, training_bytes
from ..options import TrainOptions, reads_images
from .clock import RunClock
from .listeners import find_listeners
from .planned import PlannedRun, new_plan, sides_of
from .request import request_of
from .run import TrainingRun, continues, folder_of
from .sides import found_cohort

# Copies of the weights in float32: a network's checkpoint has them, their average and the state of
# the optimiser; the best weights are a file of their own.
CHECKPOINT_COPIES = 5
MOST_CASES = 64  # whose headers are read; the others are assumed to be as large on average


@dataclass(frozen=True)
class TrainingOutlook:
    """What a training would do.

    Args:
        state: of the run: "new", "continues", or "finished", which trains no more.
        manifest: its cases with their sides.
        plan: with reasons.
        training, validation, testing: numbers of cases; of the first fold, if there are several.
        networks: number of networks to train.
        seconds: for everything with a budget, else for training alone.
        store_bytes: of the prepared cases before compression and cropping, so at most.
        checkpoint_bytes: of all networks; ``model_bytes`` of the model.
        memory_bytes: of a training step, on the GPU if there is one.
        free_bytes: of the disk.
        failures: one sentence per case that cannot be used.
    """

    state: Literal["new", "continues", "finished"]
    manifest: Manifest
    plan: Plan
    training: int
    validation: int
    testing: int
    networks: int
    seconds: float
    store_bytes: int
    checkpoint_bytes: int
    model_bytes: int
    memory_bytes: int
    free_bytes: int
    failures: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; the plan as in plan.json."""
        numbers = {name: value for name, value in vars(self).items() if name != "manifest"}
        return {
            **numbers,
            "patients": len(self.manifest.patients),
            "structures": self.plan.labels.names,
            "plan": self.plan.model_dump(mode="json"),
        }

    def facts(self) -> dict[str, Any]:
        """The same for people."""
        schedule = self.plan.schedule
        of = "for everything" if schedule.budget_s is not None else "for training, measured here"
        parts = {
            "prepared cases": self.store_bytes,
            "checkpoints": self.checkpoint_bytes,
            "the model": self.model_bytes,
        }
        listed = ", ".join(f"{data_size(size)} for {what}" for what, size in parts.items())
        return {
            "run": {
                "new": "new",
                "continues": "continues an earlier start",
                "finished": "finished; nothing would be trained without --extend or --overwrite",
            }[self.state],
            "cases": f"{self.training} for training, {self.validation} for validation, "
            f"{self.testing} for testing, of {len(self.manifest.patients)} patients",
            "not usable": list(self.failures),
            "structures": self.plan.labels.names,
            "networks": self.networks,
            "plan": dict(self.plan.reasons),
            "time": f"{duration(self.seconds)} {of}",
            "disk": f"at most {data_size(sum(parts.values()))} ({listed}); "
            f"{data_size(self.free_bytes)} are free",
            "memory": f"about {data_size(self.memory_bytes)} for a training step",
        }


@reads_images
def outlook(
    data: str | Path,
    model: str | Path,
    options: TrainOptions,
    *,
    progress: Progress = silent,
) -> TrainingOutlook:
    """What ``train`` would do with these arguments; the cases are checked, the step is measured,
    and nothing is written.

    Raises:
        UsageError, InputError, PlanError, OutputError: as ``train``.
    """
    from ...inference.devices import choose_device

    request, target = request_of(data, options), Path(model)
    require_extra("train", "train")
    find_listeners(options.listeners)
    choose_device(options.device)
    originals_in(request.data, request.files).refuse([model])
    going_on, folder = continues(request, target, options.overwrite), folder_of(target)
    clock = RunClock.load(folder / "clock.json", request.limit_s)
    if not going_on:
        clock = RunClock(clock.path, request.limit_s)
    recipe = None if options.recipe is None else RECIPES[options.recipe]
    run = TrainingRun(request, target, clock, recipe, progress=progress)
    if going_on:
        manifest = Manifest.load(folder / "manifest.jsonl")
        planned = PlannedRun(run, manifest, Plan.load(folder / "plan.json"))
        is_finished = run.is_finished and options.extend_s is None
        return _estimated(planned, "finished" if is_finished else "continues", (), options)
    manifest, failures = found_cohort(run, None)
    planned = PlannedRun(run, manifest, new_plan(run, manifest)[0])
    return _estimated(planned, "new", failures, options)


def _estimated(
    planned: PlannedRun, state: Any, failures: Sequence[str], options: TrainOptions
) -> TrainingOutlook:
    """The outlook of a planned run."""
    plan, jobs = planned.plan, planned.jobs
    training, validating = sides_of(planned.learning.cases, planned.folds[0])
    weights = sum(_weight_bytes(job.plan(plan)) for job in jobs)
    own = jobs[0].plan(plan)
    place = next(folder for folder in planned.run.folder.absolute().parents if folder.is_dir())
    return TrainingOutlook(
        state,
        planned.manifest,
        plan,
        len(training),
        len(validating),
        sum(case.split == "test" for case in planned.manifest),
        len(jobs),
        _seconds(planned, options),
        _store_bytes(planned.learning, plan),
        CHECKPOINT_COPIES * weights,
        weights,
        int(training_bytes(own.network, own.patch, own.batch)),
        shutil.disk_usage(place).free,
        failures,
    )


def _seconds(planned: PlannedRun, options: TrainOptions) -> float:
    """With a budget what is left of it, or the extension; else the measured time of all steps."""
    clock = planned.run.clock
    if clock.budget_s is not None:
        return options.extend_s or max(0.0, clock.budget_s + sum(clock.extensions) - clock.spent_s)
    total = 0.0
    for job in planned.jobs:
        own = job.plan(planned.plan)
        steps = (own.schedule.epochs or 0) * own.schedule.steps_per_epoch
        total += steps * measure_step(own.network, own.patch, own.batch, planned.run.request.device)
    return total


def _weight_bytes(plan: Plan) -> int:
    """Bytes of a network's weights in float32."""
    from ...networks.build import build

    return sum(4 * tensor.numel() for tensor in build(plan.network, seed=0).state_dict().values())


def _store_bytes(learning: Manifest, plan: Plan) -> int:
    """Bytes of all prepared cases: int16 for each channel, and one or two bytes for the label of
    each voxel. Cases whose header cannot be read count as the others.
    """
    from ...inference.memory_limits import prepared_shape

    cases = learning.cases
    chosen = [cases[int(n)] for n in np.unique(np.linspace(0, len(cases) - 1, MOST_CASES))]
    voxels = []
    for case in chosen:
        try:
            source = next(image for image in case.images if image != ABSENT)
            voxels.append(float(np.prod(prepared_shape(files.read_grid(source), plan))))
        except DelineateError:
            continue
    each = 2 * len(plan.channels) + (1 if plan.network.classes <= 256 else 2)
    return int(np.mean(voxels or [0.0]) * each * len(cases))
