"""Planning: from the properties of a cohort and a machine to a plan, with a reason for each choice.

    manifest --fingerprint()--> Fingerprint --make_plan()--> Plan (plan.json)

The rules are few and are listed in the order in which they are applied. Most follow nnU-Net
(Isensee 2021). The difference is that a time budget is a constraint like memory: the measured
training step of a candidate network decides how large a network and patch can be. The module trains
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np

from ..core.errors import DelineateError, LabelError, PlanError
from ..core.grid import ANISOTROPY, rounded_mm
from ..core.manifest import Manifest
from ..core.plan import (
    Augmentation,
    Channel,
    Loss,
    Network,
    Normalisation,
    Optimiser,
    Plan,
    Schedule,
    Structure,
)
from ..core.progress import Progress, silent
from ..execution import local
from ..extend.parts import Recipe
from .candidates import as_kind, candidates
from .capacity import (
    LEAST_EPOCHS,
    Machine,
    Triple,
    largest_that_fits,
    measure_step,
    steps_wanted,
)
from .fingerprint import Fingerprint, examine
from .first_stage import first_stage

__all__ = [
    "DEFAULT_EPOCHS",
    "VALIDATION_FOLDS",
    "Machine",
    "Planner",
    "fingerprint",
    "make_plan",
    "plan_with",
]

DEFAULT_EPOCHS = 1000  # if neither a budget nor epochs are given, and there is no recipe
# Without folds or a split, one fifth of the patients is for validation.
VALIDATION_FOLDS = Recipe.folds
MOST_CASES = 64  # more cases would not change a fingerprint
# Fewer steps are too few to learn left from right with mirrored images. Phantom kidneys, 635 steps,
# mirrored and swapped: one kidney never found, mean Dice 0.706; not mirrored: 0.953.
STEPS_TO_MIRROR_SIDES = 4000
# Phantom, 5 minutes: 370 steps on large patches never found a kidney, mean Dice 0.669; 928 steps on
# small patches: 0.963.
FEWEST_STEPS = 600
LEARNING_RATE = 3e-3  # of Muon
# Learning rate x weight decay x steps: length of the training in decay time constants. Tried: 2, 6
# and 19 with 40 hippocampi, 630 steps.
TOTAL_DECAY = 6.0
ORIENTATION_BY_SLICE_AXIS = ("ASR", "RSA", "RAS")  # the slice axis (x, y or z) comes last


def fingerprint(
    manifest: Manifest,
    *,
    workers: int | None = None,
    progress: Progress = silent,
    failed: Callable[[DelineateError], object] | None = None,
) -> Fingerprint:
    """Read up to ``MOST_CASES`` cases with a reference segmentation, evenly spread over the cohort.

    Args:
        manifest: the cohort.
        workers: number of processes; None chooses it.
        progress: see ``core.progress``.
        failed: receives the error of each case that cannot be read, which is left out; None raises
            the first one.

    Raises:
        LabelError: no case has a reference segmentation.
        DelineateError: the error of the first case that cannot be read, or no case can be read.
    """
    with_truth = manifest.with_truth().cases
    if not with_truth:
        raise LabelError(
            "no case has a reference segmentation to train on", path=manifest.root or None
        )
    # Evenly spaced indices; ``unique`` removes the duplicates of a small cohort.
    chosen = [
        with_truth[int(i)]
        for i in np.unique(np.linspace(0, len(with_truth) - 1, min(MOST_CASES, len(with_truth))))
    ]
    one, (first, *others) = partial(examine, manifest=manifest), chosen
    # The time of the first case decides how many workers are worth starting.
    outcomes = [local.attempt(one, first, first.id)]
    progress("read", 1, len(chosen), first.id)
    workers = (
        local.workers_for(outcomes[0].seconds * len(others), len(others))
        if workers is None
        else workers
    )
    # The other cases, in parallel; ``done`` does not count the first one.
    outcomes += local.run(
        one,
        others,
        names=[c.id for c in others],
        workers=workers,
        stage="read",
        progress=lambda stage, done, _, name: progress(stage, done + 1, len(chosen), name),
    )
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors and (failed is None or len(errors) == len(outcomes)):
        raise errors[0]
    if failed is not None:
        for error in errors:
            failed(error)
    return Fingerprint(tuple(o.value for o in outcomes if o.value is not None), manifest.channels)


class Planner(Protocol):
    """Makes a plan: ``make_plan`` by rules, or a recipe. With neither budget nor epochs a recipe
    uses its own full setting.
    """

    def __call__(
        self,
        found: Fingerprint,
        manifest: Manifest,
        machine: Machine,
        *,
        budget_s: float | None,
        epochs: int | None,
        seed: int,
        dims: int | None,
    ) -> Plan: ...


def plan_with(
    recipe: Recipe | None,
    found: Fingerprint,
    manifest: Manifest,
    device: str,
    *,
    budget_s: float | None,
    epochs: int | None,
    seed: int,
    dims: int | None,
    kind: str = "",
) -> Plan:
    """The plan of ``recipe`` for this machine; if it is None, the plan of the rules with a network
    of ``kind`` ("" for their own), with ``DEFAULT_EPOCHS`` if neither budget nor epochs are given.

    Raises:
        PlanError: as for ``make_plan`` or the recipe.
    """
    if recipe is None and budget_s is None and epochs is None:
        epochs = DEFAULT_EPOCHS
    planner: Planner = partial(make_plan, kind=kind or "unet") if recipe is None else recipe.plan
    return planner(
        found,
        manifest,
        Machine.here(device),
        budget_s=budget_s,
        epochs=epochs,
        seed=seed,
        dims=dims,
    )


@dataclass
class _Draft:
    """An unfinished plan: the rules below complete it one after the other, and each adds its
    reason.
    """

    found: Fingerprint
    manifest: Manifest
    machine: Machine
    reasons: dict[str, str] = field(default_factory=dict)
    dims: int = 3
    orientation: str = "RAS"
    order: tuple[int, int, int] = (0, 1, 2)  # preprocessed axis -> R, A, S axis
    crop: Literal["none", "nonzero", "body"] = "none"
    spacing_mm: tuple[float | None, ...] = ()
    shape: tuple[int, ...] = ()  # median preprocessed shape


def make_plan(
    found: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    *,
    budget_s: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    dims: int | None = None,
    kind: str = "unet",
    probe: Callable[[Network, Triple, int], float] | None = None,
) -> Plan:
    """Derive a plan.

    Args:
        budget_s: seconds of training alone; give exactly one of this and ``epochs``.
        dims: 2 or 3 instead of the rule's choice.
        kind: of the network; a registered one gets the stages and base channels of a U-Net.
        probe: (network, patch, batch) -> seconds of one training step; if None, the step is
            measured on this machine.

    Raises:
        PlanError: neither or both of budget and epochs are given; the cases are too small for a
            U-Net; or not even the smallest network fits the memory.
    """
    if (budget_s is None) == (epochs is None):
        raise PlanError(
            "give exactly one of a time budget and a number of epochs, found "
            f"{'neither' if epochs is None else 'both'}"
        )
    draft = _choose_grid(_Draft(found, manifest, machine), budget_s, dims)
    channels = tuple(_channel(draft, index, name) for index, name in enumerate(manifest.channels))
    network, patch, batch_size, step_s = _choose_network(
        draft, budget_s, kind, probe or partial(measure_step, device=machine.device)
    )
    per_epoch = _steps_per_epoch(draft, patch, batch_size, budget_s and budget_s / step_s)
    schedule = Schedule(budget_s=budget_s, epochs=epochs, steps_per_epoch=per_epoch)
    steps = _expected_steps(schedule, step_s)
    augmentation = _choose_augmentation(draft, steps)
    draft.reasons["schedule"] = _schedule_reason(schedule, step_s)
    optimiser = _choose_optimiser(draft, steps)
    loss, output = _choose_loss(draft)
    plan = Plan(
        channels=channels,
        structures=tuple(Structure(**d) for d in manifest.labels.to_json()),
        orientation=draft.orientation,
        spacing_mm=(draft.spacing_mm[0], draft.spacing_mm[1], draft.spacing_mm[2]),
        crop=draft.crop,
        patch=patch,
        batch=batch_size,
        network=network,
        output=output,
        loss=loss,
        optimiser=optimiser,
        schedule=schedule,
        augmentation=augmentation,
        seed=seed,
        reasons=draft.reasons,
    )
    return _with_low_resolution(plan, draft)


# ---- the rules, in order ----


def _choose_grid(draft: _Draft, budget_s: float | None, dims: int | None) -> _Draft:
    """The preprocessed grid; each rule uses the results of those before it."""
    _choose_dims(draft, dims)
    _choose_crop(draft)
    _choose_spacing(draft, budget_s)
    return draft


def _choose_dims(draft: _Draft, requested: int | None) -> None:
    """2-D for single slices and for stacks of a few thick slices, else 3-D."""
    # The slice axis is the coarsest one, or S if the voxels are nearly isotropic.
    depth = np.median([min(c.shape) for c in draft.found.cases])
    spacing = draft.found.median_spacing()
    slice_axis = int(np.argmax(spacing)) if spacing.max() / spacing.min() > 1.5 else 2
    if requested is not None:
        draft.dims, why = requested, "as requested"
    elif all(c.shape[2] == 1 for c in draft.found.cases):
        draft.dims, slice_axis, why = 2, 2, "every case is a single slice"
    elif depth < 8:
        # The axis with the fewest voxels is the slice axis, whatever its spacing.
        draft.dims, slice_axis = (
            2,
            int(np.argmin(np.median([c.shape for c in draft.found.cases], axis=0))),
        )
        why = f"the median case has only {depth:.0f} slices"
    else:
        draft.dims, why = 3, "the cases are volumes"
    # A 2-D plan slices the last axis, so the slice axis moves there.
    if draft.dims == 2:
        draft.orientation = ORIENTATION_BY_SLICE_AXIS[slice_axis]
        draft.order = ((1, 2, 0), (0, 2, 1), (0, 1, 2))[slice_axis]
    draft.reasons["network.dims"] = f"{draft.dims}-D: {why}"
    draft.reasons["orientation"] = f"{draft.orientation}" + (
        ": the last axis is perpendicular to the slices" if draft.dims == 2 else ""
    )


def _choose_crop(draft: _Draft) -> None:
    """Crop to the subject if that removes more than 15 % of a scan."""
    shape = np.array([c.shape for c in draft.found.cases], float)
    body = np.array([c.body_shape for c in draft.found.cases], float)
    kept = float(np.median(body.prod(1) / shape.prod(1)))
    if kept < 0.85 and (draft.found.is_ct or draft.found.zero_share > 0.25):
        draft.crop = "body" if draft.found.is_ct else "nonzero"
        draft.reasons["crop"] = (
            f"{draft.crop}: the box around the "
            f"{'body' if draft.found.is_ct else 'non-zero voxels'} is {100 * kept:.0f} % of a scan"
        )
    else:
        draft.reasons["crop"] = f"none: a crop would keep {100 * kept:.0f} % of a scan"


def _choose_spacing(draft: _Draft, budget_s: float | None) -> None:
    """The median spacing, but the 10th percentile along a coarse axis, so that scans with thin
    slices keep their detail; coarser if time or memory requires it.
    """
    # Spacings and extents in mm along the preprocessed axes, after the crop.
    spacings = np.array([c.spacing_mm for c in draft.found.cases])[:, draft.order]
    bodies = [c.body_shape if draft.crop != "none" else c.shape for c in draft.found.cases]
    extents = np.median(
        [np.array(b)[list(draft.order)] * s for b, s in zip(bodies, spacings, strict=True)], axis=0
    )
    target = np.median(spacings, axis=0)
    why = "median of the cohort"
    # A coarse axis never becomes finer than the others.
    coarse = int(np.argmax(target))
    if target[coarse] > ANISOTROPY * np.delete(target, coarse).max():
        target[coarse] = max(
            float(np.percentile(spacings[:, coarse], 10)), float(np.delete(target, coarse).max())
        )
        why += ", 10th percentile along the coarse axis"
    # Compare the median case, or its median slice, with what time and memory allow.
    most = _most_voxels(draft.machine, budget_s, draft.dims)
    free = [0, 1] if draft.dims == 2 else [0, 1, 2]
    voxels = float(np.prod([extents[a] / target[a] for a in free]))
    if voxels > most:
        # Coarsen the finest axis first, so that the voxels become more isotropic.
        while np.prod([extents[a] / target[a] for a in free]) > most:
            finest = min(free, key=lambda a: target[a])
            target[finest] *= 1.02
        why += _coarsening_reason(draft.machine, budget_s, voxels, most)
    # A 2-D network does not resample across slices.
    spacing: list[float | None] = [rounded_mm(float(t)) for t in target]
    if draft.dims == 2:
        spacing[2] = None
    draft.spacing_mm = tuple(spacing)
    shape = np.maximum(1, np.rint(extents / target)).astype(int)
    draft.shape = tuple(int(n) for n in (shape if draft.dims == 3 else (*shape[:2], 1)))
    shown = " x ".join("own" if s is None else f"{s:g}" for s in spacing)
    draft.reasons["spacing_mm"] = (
        f"{shown} mm: {why}; a median case has {' x '.join(map(str, draft.shape))} voxels"
    )


def _most_voxels(machine: Machine, budget_s: float | None, dims: int) -> float:
    """Maximum number of voxels of the median preprocessed case (or slice)."""
    if dims == 2:
        return 1024.0**2
    # A fixed limit for the memory; with a budget, also a limit in proportion to the time.
    most = 48e6 if machine.gpu_bytes else 16e6
    if budget_s is not None:
        most = min(most, (20_000 if machine.gpu_bytes else 1_200) * budget_s + 2e5)
    return most


def _coarsening_reason(machine: Machine, budget_s: float | None, voxels: float, most: float) -> str:
    """The reason for fewer voxels. The numbers have as many decimals as make them differ."""
    digits = 1
    while digits < 9 and f"{voxels / 1e6:.{digits}f}" == f"{most / 1e6:.{digits}f}":
        digits += 1
    time = "" if budget_s is None else f"{budget_s:.0f} s of "
    return (
        f"; coarsened so that a median case has at most {most / 1e6:.{digits}f} million voxels "
        f"instead of {voxels / 1e6:.{digits}f} million, the limit for {time}training on {machine}"
    )


def _channel(draft: _Draft, index: int, name: str) -> Channel:
    """CT and SUV: one fixed window from the intensities inside the labels. Everything else: each
    image separately, robust to extreme values.
    """
    key, unit = f"normalise.{name}", draft.manifest.units[index]
    if draft.found.is_ct or unit:
        values = np.concatenate(
            [np.asarray(c.inside[index]) for c in draft.found.cases if index < len(c.inside)]
        )
        if len(values):
            # Mean and standard deviation are those after clipping, as the network gets them.
            low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
            low = min(low, 0.0) if unit else low  # no uptake at all is the air of PET
            clipped = np.clip(values, low, high)
            rule = Normalisation(
                kind="window",
                low=low,
                high=max(high, low + 1),
                mean=float(clipped.mean()),
                std=max(float(clipped.std()), 1.0),
            )
            draft.reasons[key] = (
                f"window {low:.1f}..{high:.1f} SUV: from no uptake to the 99.5 percentile inside "
                "the structures; SUV are comparable between scans"
                if unit
                else f"window {low:.0f}..{high:.0f} HU: the 0.5 and 99.5 percentiles inside the "
                "structures; HU are comparable between scans"
            )
            return Channel(name=name, unit=unit, normalise=rule)
    # A large constant background would dominate mean and standard deviation.
    inside: Literal["all", "nonzero"] = "nonzero" if draft.found.zero_share > 0.25 else "all"
    draft.reasons[key] = (
        "each image separately: clipped at its 0.5 and 99.5 percentiles, then zero mean and unit "
        f"standard deviation over {'all' if inside == 'all' else 'the non-zero'} voxels; "
        "intensities are not quantitative (no HU), and clipping limits the effect of a few extreme "
        "voxels"
    )
    return Channel(name=name, unit=unit, normalise=Normalisation(kind="robust", inside=inside))


def _choose_network(
    draft: _Draft, budget_s: float | None, kind: str, probe: Callable[[Network, Triple, int], float]
) -> tuple[Network, Triple, int, float]:
    """The largest network, patch and batch for which memory and time allow enough training steps,
    and the seconds of one step.
    """
    overlapping = draft.manifest.labels.overlapping
    unets = candidates(
        draft.shape,
        [1.0 if s is None else s for s in draft.spacing_mm],
        draft.dims,
        len(draft.manifest.channels),
        len(draft.manifest.labels) + (not overlapping),
        draft.machine,
        light=budget_s is not None,
    )
    choices = [
        (as_kind(network, kind).model_copy(update={"overlapping": overlapping}), patch, size)
        for network, patch, size in unets
    ]
    (network, patch, batch_size), step_s, why = largest_that_fits(
        choices, budget_s, draft.machine, probe, steps_wanted(budget_s, FEWEST_STEPS)
    )
    covers = min(1.0, float(np.prod(np.minimum(patch, draft.shape)) / np.prod(draft.shape)))
    draft.reasons["patch"] = (
        f"{' x '.join(map(str, patch))}, batch {batch_size}: covers {100 * covers:.0f} % of a "
        "median case"
    )
    draft.reasons["network"] = (
        f"{'U-Net' if kind == 'unet' else kind} with {len(network.widths)} stages and "
        f"{network.widths[0]} to {network.widths[-1]} channels, pooled until about 4 voxels per "
        "axis remain"
        + (
            "; one convolution instead of two at full resolution and at each level of the decoder: "
            "more accurate after the same training time"
            if budget_s
            else ""
        )
        + why
    )
    return network, patch, batch_size, step_s


def _steps_per_epoch(draft: _Draft, patch: Triple, batch_size: int, steps: float | None) -> int:
    """Steps in which patches cover every case about once, between 20 and 250; of a training by the
    clock, with ``steps`` in all, at most one of ``LEAST_EPOCHS`` parts.
    """
    covering = (
        len(draft.manifest.with_truth())
        * max(1.0, np.prod(draft.shape) / np.prod(patch))
        / batch_size
    )
    most = 250 if steps is None else min(250.0, max(1.0, steps / LEAST_EPOCHS))
    return int(min(most, max(20, covering)))


def _expected_steps(schedule: Schedule, step_s: float) -> float:
    """Number of steps of the whole training, estimated under a time budget."""
    if schedule.budget_s is not None:
        return schedule.budget_s / step_s
    return float((schedule.epochs or 0) * schedule.steps_per_epoch)


def _schedule_reason(schedule: Schedule, step_s: float) -> str:
    if schedule.budget_s is None:
        return (
            f"{schedule.epochs} epochs of {schedule.steps_per_epoch} steps, about {step_s:.2f} s "
            "per step"
        )
    return (
        f"{schedule.budget_s:.0f} s of training at about {step_s:.2f} s per step: about "
        f"{_expected_steps(schedule, step_s):.0f} steps; the learning rate follows the clock and "
        "ends at zero"
    )


def _choose_augmentation(draft: _Draft, steps: float) -> Augmentation:
    """All augmentations; if slices are thick, rotation only in their plane; mirroring by
    ``_choose_mirror``.
    """
    spacing = [s for s in draft.spacing_mm if s is not None]
    # Rotation out of the plane of thick slices would mix voxels of different size.
    flat = draft.dims == 3 and max(spacing) > ANISOTROPY * min(spacing)
    coarse = int(np.argmax(spacing)) if flat else -1
    angles = tuple(15.0 if not flat or a == coarse else 0.0 for a in range(3))
    mirror, why = _choose_mirror(draft, steps)
    draft.reasons["augmentation.mirror"] = why
    draft.reasons["augmentation"] = (
        "rotation, scaling and mirroring in one resampling pass; noise, blur, brightness, "
        "contrast, gamma, low resolution"
        + ("; rotation only in the plane of the thick slices" if flat else "")
    )
    return Augmentation(rotation_deg=angles, mirror=mirror)  # type: ignore[arg-type]


def _choose_mirror(draft: _Draft, steps: float) -> tuple[tuple[int, ...], str]:
    """Axes to mirror, and the reason: left-right if the anatomy stays plausible and there is time
    to learn the sides; every axis of microscopy images.
    """
    labels = draft.manifest.labels
    sided_axis = next(a for a, letter in enumerate(draft.orientation) if letter in "LR")
    if draft.manifest.modality in ("EM", "microscopy", "photo"):
        axes: tuple[int, ...] = (0, 1) if draft.dims == 2 else (0, 1, 2)
        return axes, "all axes: the image has no preferred direction"
    if draft.dims == 2 and sided_axis == 2:
        return (), "none: the left-right axis is perpendicular to the slices"
    if labels.is_sided and not labels.can_mirror_sides:
        return (), "none: a structure has a side but no counterpart on the other side"
    if labels.is_sided and steps < STEPS_TO_MIRROR_SIDES:
        return (), (
            "none: with mirrored images it takes longer to learn left from right, and about "
            f"{steps:.0f} steps are too few"
        )
    if not labels.is_sided:
        return (sided_axis,), "left-right: no structure has a side"
    swapped = f"{len(labels.pairs)} pair{'' if len(labels.pairs) == 1 else 's'}"
    return (sided_axis,), f"left-right, with the labels of {swapped} of sided structures swapped"


def _choose_loss(draft: _Draft) -> tuple[Loss, Literal["label map", "structures"]]:
    """The loss, and the form of the output: of structures that overlap a mask of each, unless the
    data set states how one label map holds them.
    """
    labels = draft.manifest.labels
    if not labels.overlapping:
        return Loss(), "label map"
    draft.reasons["loss"] = (
        "Dice and binary cross-entropy of each structure: a voxel may belong to several"
    )
    output: Literal["label map", "structures"] = (
        "label map" if labels.can_be_painted else "structures"
    )
    draft.reasons["output"] = (
        "one label map: the data set states a value for each region"
        if labels.can_be_painted
        else "a mask of each structure: a voxel may belong to several"
    )
    return Loss(cross_entropy=0, binary_cross_entropy=1), output


def _choose_optimiser(draft: _Draft, steps: float) -> Optimiser:
    """Muon, with a weight decay that depends on the number of steps."""
    decay = float(f"{TOTAL_DECAY / (LEARNING_RATE * max(steps, FEWEST_STEPS)):.2g}")
    draft.reasons["optimiser"] = (
        f"Muon with learning rate {LEARNING_RATE:g}, cosine schedule and averaged weights: after "
        "the same number of steps more accurate than AdamW on every cohort tried; the average "
        "needs no tuning"
    )
    draft.reasons["optimiser.weight_decay"] = (
        f"{decay:g}: with learning rate {LEARNING_RATE:g} and about {steps:.0f} steps, the decay "
        f"time constant is 1/{TOTAL_DECAY:g} of the training, whatever its length"
    )
    return Optimiser(kind="muon", learning_rate=LEARNING_RATE, weight_decay=decay)


def _with_low_resolution(plan: Plan, draft: _Draft) -> Plan:
    """Add a first stage that finds the part of a scan that has structures, if a patch covers a
    small part of a median case.
    """
    stage = first_stage(plan, draft.shape)
    covers = np.prod(plan.patch) / np.prod(draft.shape)
    if stage is None:
        plan.reasons["low_resolution"] = "none: a patch covers enough of a case"
        return plan
    plan.reasons["low_resolution"] = (
        f"a first stage at {' x '.join(f'{s:g}' for s in stage.spacing_mm if s is not None)} mm "
        f"may find where structures are: a patch covers {100 * covers:.0f} % of a median case"
    )
    return plan.replace(low_resolution=stage)
