"""Planning: from what the cohort is and what the machine can do to a plan, with the reason for each
choice.

    manifest --fingerprint()--> Fingerprint --make_plan()--> Plan (plan.json)

The rules are few and stand here in the order in which they are applied. Most follow nnU-Net
(Isensee 2021); what differs is that a time budget is a constraint like memory: one measured
training step of a candidate network decides how large a network and patch the time allows. It
trains nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from ..core.errors import LabelError, PlanError
from ..core.grid import ANISOTROPY
from ..core.manifest import Manifest
from ..core.plan import (
    Augmentation,
    Channel,
    Inference,
    Loss,
    Network,
    Normalisation,
    Optimiser,
    Plan,
    Schedule,
    Structure,
)
from ..core.progress import Progress, silent
from ..execution import local as batch
from .fingerprint import Fingerprint, examine

Triple = tuple[int, int, int]
NetworkChoice = tuple[Network, Triple, int]  # network, patch, batch
DEFAULT_EPOCHS = (
    1000  # where neither a budget nor epochs are asked for and no recipe says otherwise
)
VALIDATION_FOLDS = 5  # without folds or a split, one fifth of the patients validates
MOST_CASES = 64  # a fingerprint from more cases would say the same
# after 635 the phantom's kidneys, mirrored and swapped: one never found, mean Dice 0.706; not
# mirrored: 0.953
STEPS_TO_MIRROR_SIDES = 4000
# the phantom in 5 minutes: 370 steps on large patches never found a kidney, mean Dice 0.669; 928 on
# small ones: 0.963
FEWEST_STEPS = 600
FEW_CLASSES = 8  # of which as many feature maps can tell each from all others
LEARNING_RATE = 3e-3  # Muon's
# how often a training's decay, at the full rate, could forget all it learnt: 2, 6 and 19 tried with
# 40 hippocampi, 630 steps
TOTAL_DECAY = 6.0
ORIENTATION_BY_SLICE_AXIS = ("ASR", "RSA", "RAS")  # the sliced axis (x, y or z) last


@dataclass(frozen=True)
class Machine:
    """What there is to compute with."""

    device: str = "cpu"
    cores: int = 1
    ram_bytes: int = 8 << 30
    gpu_bytes: int = 0
    matrix_units: bool = True  # multiplies half-precision matrices in hardware

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """This machine."""
        import psutil
        import torch

        from ..inference.devices import choose_device
        from ..inference.engine import fast_dtype

        chosen = choose_device(device)
        gpu = torch.cuda.get_device_properties(chosen).total_memory if chosen.type == "cuda" else 0
        return cls(
            chosen.type,
            batch.cores(),
            int(psutil.virtual_memory().total),
            gpu,
            fast_dtype(chosen) != torch.float32,
        )

    def __str__(self) -> str:
        gpu = f", GPU with {self.gpu_bytes / 2**30:.0f} GiB" if self.gpu_bytes else ""
        return (
            f"{self.cores} cores{'' if self.matrix_units else ' without matrix units'}, "
            f"{self.ram_bytes / 2**30:.0f} GiB{gpu}"
        )


def fingerprint(
    manifest: Manifest,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> Fingerprint:
    """Read up to ``MOST_CASES`` cases with truth, evenly spread over the cohort.

    Raises:
        LabelError: no case has truth.
        DelineateError: of the first case that cannot be read.
    """
    with_truth = manifest.with_truth().cases
    if not with_truth:
        raise LabelError("no case has truth to learn from", path=manifest.root or None)
    chosen = [
        with_truth[int(i)]
        for i in np.unique(np.linspace(0, len(with_truth) - 1, min(MOST_CASES, len(with_truth))))
    ]
    one, (first, *others) = partial(examine, manifest=manifest), chosen
    outcomes = [batch.attempt(one, first, first.id)]  # tells how long a case takes
    progress("read", 1, len(chosen), first.id)
    workers = (
        batch.workers_for(outcomes[0].seconds * len(others), len(others))
        if workers is None
        else workers
    )
    outcomes += batch.run(
        one,
        others,
        names=[c.id for c in others],
        workers=workers,
        stage="read",
        progress=lambda stage, done, _, name: progress(stage, done + 1, len(chosen), name),
    )
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return Fingerprint(tuple(o.value for o in outcomes if o.value is not None), manifest.channels)


class Planner(Protocol):
    """What makes a plan: ``make_plan`` by rules, or a recipe. With neither budget nor epochs a
    recipe takes its own full setting.
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


@dataclass(frozen=True)
class Recipe:
    """A named planner that reproduces a known system.

    ``adapt`` takes from a cohort what the system takes: its structures, unless the user chose some
    (second argument), and its channels.
    """

    name: str
    summary: str
    plan: Planner
    adapt: Callable[[Manifest, bool], Manifest] = lambda manifest, has_choice: manifest
    folds: int = VALIDATION_FOLDS  # one of so many parts of the patients validates


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
) -> Plan:
    """The plan of ``recipe`` for this machine, or of the rules where it is None; these take
    ``DEFAULT_EPOCHS`` where no end is asked for.

    Raises:
        PlanError: as of ``make_plan`` or the recipe.
    """
    if recipe is None and budget_s is None and epochs is None:
        epochs = DEFAULT_EPOCHS
    planner = make_plan if recipe is None else recipe.plan
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
    """A plan in the making: the rules below fill it in, one after the other, each leaving its
    reason.
    """

    found: Fingerprint
    manifest: Manifest
    machine: Machine
    reasons: dict[str, str] = field(default_factory=dict)
    dims: int = 3
    orientation: str = "RAS"
    order: tuple[int, int, int] = (0, 1, 2)  # prepared axis -> R, A, S axis
    crop: Literal["none", "nonzero", "body"] = "none"
    spacing_mm: tuple[float | None, ...] = ()
    shape: tuple[int, ...] = ()  # median prepared shape


def make_plan(
    found: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    *,
    budget_s: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    dims: int | None = None,
    probe: Callable[[Network, Triple, int], float] | None = None,
) -> Plan:
    """Derive a plan.

    Args:
        budget_s: seconds that training itself may take; exactly one of this and ``epochs`` is
            given.
        dims: 2 or 3 instead of the rule's choice.
        probe: (network, patch, batch) -> seconds of one training step; measured on this machine
            where it is None.

    Raises:
        PlanError: neither or both of budget and epochs.
    """
    if (budget_s is None) == (epochs is None):
        raise PlanError(
            "training ends after a budget or after a number of epochs: give exactly one of the two"
        )
    draft = _Draft(found, manifest, machine)
    _choose_dims(draft, dims)
    _choose_crop(draft)
    _choose_spacing(draft, budget_s)
    channels = tuple(_channel(draft, index, name) for index, name in enumerate(manifest.channels))
    network, patch, batch_size, step_s = _choose_network(
        draft, budget_s, probe or partial(measure_step, device=machine.device)
    )
    steps_per_epoch = int(
        np.clip(
            len(manifest.with_truth())
            * max(1.0, np.prod(draft.shape) / np.prod(patch))
            / batch_size,
            20,
            250,
        )
    )
    steps = budget_s / step_s if budget_s is not None else float((epochs or 0) * steps_per_epoch)
    decay = float(f"{TOTAL_DECAY / (LEARNING_RATE * max(steps, FEWEST_STEPS)):.2g}")
    augmentation = _choose_augmentation(draft, steps)
    draft.reasons["schedule"] = (
        f"{budget_s:.0f} s of training at about {step_s:.2f} s a step: about {steps:.0f} steps; "
        "the rate follows the clock and ends at zero"
        if budget_s is not None
        else f"{epochs} epochs of {steps_per_epoch} steps, about {step_s:.2f} s each"
    )
    draft.reasons["optimiser"] = (
        f"Muon at {LEARNING_RATE:g} with a cosine and averaged weights: after the same steps "
        "better than AdamW on every cohort tried; "
        "the average needs no tuning"
    )
    draft.reasons["optimiser.weight_decay"] = (
        f"{decay:g}: at {LEARNING_RATE:g} and about {steps:.0f} steps weights keep what the last "
        "sixth of a training said, however long it is"
    )
    plan = Plan(
        channels=channels,
        structures=tuple(Structure(**d) for d in manifest.labels.to_json()),
        orientation=draft.orientation,
        spacing_mm=(draft.spacing_mm[0], draft.spacing_mm[1], draft.spacing_mm[2]),
        crop=draft.crop,
        patch=patch,
        batch=batch_size,
        network=network,
        loss=Loss(),
        optimiser=Optimiser(kind="muon", learning_rate=LEARNING_RATE, weight_decay=decay),
        schedule=Schedule(budget_s=budget_s, epochs=epochs, steps_per_epoch=steps_per_epoch),
        augmentation=augmentation,
        inference=Inference(),
        seed=seed,
        reasons=draft.reasons,
    )
    return _with_low_resolution(plan, draft)


# ---- the rules, in order ----


def _choose_dims(draft: _Draft, wanted: int | None) -> None:
    """2-D for single slices and for stacks of a few thick slices, else 3-D."""
    depth = np.median([min(c.shape) for c in draft.found.cases])
    spacing = draft.found.median_spacing()
    slice_axis = int(np.argmax(spacing)) if spacing.max() / spacing.min() > 1.5 else 2
    if wanted is not None:
        draft.dims, why = wanted, "as asked"
    elif all(c.shape[2] == 1 for c in draft.found.cases):
        draft.dims, slice_axis, why = 2, 2, "every case is a single slice"
    elif depth < 8:
        draft.dims, slice_axis = (
            2,
            int(np.argmin(np.median([c.shape for c in draft.found.cases], axis=0))),
        )
        why = f"the median case has only {depth:.0f} slices"
    else:
        draft.dims, why = 3, "cases are volumes"
    if draft.dims == 2:
        draft.orientation = ORIENTATION_BY_SLICE_AXIS[slice_axis]
        draft.order = ((1, 2, 0), (0, 2, 1), (0, 1, 2))[slice_axis]
    draft.reasons["network.dims"] = f"{draft.dims}-D: {why}"
    draft.reasons["orientation"] = f"{draft.orientation}" + (
        ", sliced across its coarsest axis" if draft.dims == 2 else ""
    )


def _choose_crop(draft: _Draft) -> None:
    """Cut off what is empty where that is much."""
    shape = np.array([c.shape for c in draft.found.cases], float)
    body = np.array([c.body_shape for c in draft.found.cases], float)
    kept = float(np.median(body.prod(1) / shape.prod(1)))
    if kept < 0.85 and (draft.found.is_ct or draft.found.zero_share > 0.25):
        draft.crop = "body" if draft.found.is_ct else "nonzero"
        draft.reasons["crop"] = (
            f"{draft.crop}: the box of the {'body' if draft.found.is_ct else 'non-zero voxels'} "
            f"is {100 * kept:.0f} % of a scan"
        )
    else:
        draft.reasons["crop"] = f"none: a crop would keep {100 * kept:.0f} % of a scan"


def _choose_spacing(draft: _Draft, budget_s: float | None) -> None:
    """The median, but a coarse axis at its 10th percentile (so that thin-slice scans keep their
    detail); coarser where time or memory asks for it.
    """
    spacings = np.array([c.spacing_mm for c in draft.found.cases])[:, draft.order]
    bodies = [c.body_shape if draft.crop != "none" else c.shape for c in draft.found.cases]
    extents = np.median(
        [np.array(b)[list(draft.order)] * s for b, s in zip(bodies, spacings, strict=True)], axis=0
    )
    target = np.median(spacings, axis=0)
    why = "the cohort's median"
    coarse = int(np.argmax(target))
    if target[coarse] > ANISOTROPY * np.delete(target, coarse).max():
        target[coarse] = max(
            float(np.percentile(spacings[:, coarse], 10)), float(np.delete(target, coarse).max())
        )
        why += ", the 10th percentile along the coarse axis"
    most = _most_voxels(draft.machine, budget_s, draft.dims)
    free = [0, 1] if draft.dims == 2 else [0, 1, 2]
    voxels = float(np.prod([extents[a] / target[a] for a in free]))
    if voxels > most:
        # The finest axes give way first.
        while np.prod([extents[a] / target[a] for a in free]) > most:
            finest = min(free, key=lambda a: target[a])
            target[finest] *= 1.02
        why += (
            f"; coarsened so that a median case has {most / 1e6:.1f} instead of "
            f"{voxels / 1e6:.1f} million voxels, which {draft.machine} can "
            + (
                f"work through in {budget_s:.0f} s of training"
                if budget_s is not None
                else "hold and learn from"
            )
        )
    spacing: list[float | None] = [round(float(t), 4) for t in target]
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
    """How many voxels the median prepared case (or slice) may have."""
    if dims == 2:
        return 1024.0**2
    most = 48e6 if machine.gpu_bytes else 16e6
    if budget_s is not None:
        most = min(most, (20_000 if machine.gpu_bytes else 1_200) * budget_s + 2e5)
    return most


def _channel(draft: _Draft, index: int, name: str) -> Channel:
    """CT: one fixed window from intensities inside the labels. Everything else: each image by
    itself, robust to extremes.
    """
    key = f"normalise.{name}"
    if draft.found.is_ct:
        values = np.concatenate(
            [np.asarray(c.inside[index]) for c in draft.found.cases if index < len(c.inside)]
        )
        if len(values):
            low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
            clipped = np.clip(values, low, high)
            rule = Normalisation(
                kind="window",
                low=low,
                high=max(high, low + 1),
                mean=float(clipped.mean()),
                std=max(float(clipped.std()), 1.0),
            )
            draft.reasons[key] = (
                f"window {low:.0f}..{high:.0f} HU: the 0.5 and 99.5 percentiles inside the "
                "structures; HU mean the same in every scan"
            )
            return Channel(name=name, normalise=rule)
    inside: Literal["all", "nonzero"] = "nonzero" if draft.found.zero_share > 0.25 else "all"
    draft.reasons[key] = (
        "each image by itself, clipped at its 0.5 and 99.5 percentiles, zero mean, unit "
        f"deviation over {inside} voxels: "
        "intensities are not quantitative (no HU), and a few extreme voxels must not set the scale"
    )
    return Channel(name=name, normalise=Normalisation(kind="robust", inside=inside))


def _choose_network(
    draft: _Draft, budget_s: float | None, probe: Callable[[Network, Triple, int], float]
) -> tuple[Network, Triple, int, float]:
    """The largest U-Net, patch and batch that memory and time allow: shrunk step by step until
    enough training steps fit.
    """
    spacing = [1.0 if s is None else s for s in draft.spacing_mm]
    choices: list[NetworkChoice] = []
    for width, voxels, batch_size in _ladder(
        draft.dims, draft.machine, classes=len(draft.manifest.labels) + 1
    ):
        patch, strides, kernels = topology(draft.shape, spacing, voxels, draft.dims)
        choice = (
            _unet(draft, width, strides, kernels, light=budget_s is not None),
            patch,
            batch_size,
        )
        if choice not in choices:  # a small case is whole in several sizes of patch
            choices.append(choice)
    (network, patch, batch_size), step_s, why = largest_that_fits(
        choices, budget_s, draft.machine, probe, steps_wanted(budget_s, FEWEST_STEPS)
    )
    covers = min(1.0, float(np.prod(np.minimum(patch, draft.shape)) / np.prod(draft.shape)))
    draft.reasons["patch"] = (
        f"{' x '.join(map(str, patch))}, batch {batch_size}: covers {100 * covers:.0f} % of a "
        "median case"
    )
    draft.reasons["network"] = (
        f"U-Net with {len(network.widths)} stages, {network.widths[0]} to {network.widths[-1]} "
        "wide: pooled until about 4 voxels an axis remain"
        + (
            ", one convolution at full resolution and at each level of the decoder: better after "
            "the same time than two"
            if budget_s
            else ""
        )
        + why
    )
    return network, patch, batch_size, step_s


def largest_that_fits(
    choices: Sequence[NetworkChoice],
    budget_s: float | None,
    machine: Machine,
    probe: Callable[[Network, Triple, int], float],
    wanted: float,
) -> tuple[NetworkChoice, float, str]:
    """The first of ``choices`` (network, patch, batch; from large to small) that memory holds and
    of which enough steps fit into the budget.

    Args:
        wanted: so many steps are enough; without a budget it says nothing.

    Returns:
        The choice, its measured seconds a step, and what was tried in words ("" without a budget).

    Raises:
        PlanError: not even the last fits the memory.
    """
    choices = [choice for choice in choices if _fits_memory(*choice, machine)]
    if not choices:
        raise PlanError(
            f"not even the smallest network fits the memory of this machine ({machine})"
        )
    tried = []
    # The smallest is cheap to measure and tells which others are worth measuring.
    least_s = probe(*choices[-1])
    chosen, step_s = choices[-1], least_s
    for choice in choices:
        guess_s = least_s * _work(*choice) / _work(*choices[-1])
        if budget_s is not None and budget_s / guess_s < 0.8 * wanted and choice != choices[-1]:
            continue
        chosen, step_s = choice, probe(*choice)
        network, patch, batch_size = choice
        tried.append(
            f"{network.widths[0]} wide, patch {'x'.join(map(str, patch))}, batch {batch_size}: "
            f"{step_s:.2f} s a step"
        )
        if budget_s is None or budget_s / step_s >= wanted:
            break
    return (
        chosen,
        step_s,
        ""
        if budget_s is None
        else f"; tried: {'; '.join(tried)}; {wanted:.0f} steps were wanted in {budget_s:.0f} s",
    )


def steps_wanted(budget_s: float | None, fewest: float) -> float:
    """How many steps are enough: a longer training is given more of them and larger networks
    alike.
    """
    return fewest + 0.6 * (budget_s or 0.0)


def _ladder(dims: int, machine: Machine, classes: int) -> Sequence[tuple[int, int, int]]:
    """(first width, patch voxels, batch), from large to small.

    Matrix units handle less than 16 maps no faster than 16 (measured), so there the patch shrinks;
    without them time follows the width, and what a patch sees is worth more: 8 wide comes before a
    smaller patch. Many classes are not told apart by few maps, so there the width is what is kept:
    a brain's 29 reached a Dice of 0.29 in 6 minutes with 8 maps and a patch of 48³, 0.70 with 16,
    0.73 with 24 and 40³, 0.82 with 24 and 32³.
    """
    gpu, narrow, many = bool(machine.gpu_bytes), not machine.matrix_units, classes > FEW_CLASSES
    large: tuple[tuple[int, int, int], ...]
    small: tuple[tuple[int, int, int], ...]
    if dims == 2:
        large = ((32, 512**2, 24), (32, 512**2, 12)) if gpu else ((32, 384**2, 12),)
        small = (
            ((12, 256**2, 6), (8, 256**2, 6), (8, 192**2, 6))
            if narrow
            else ((16, 192**2, 6), (16, 160**2, 6), (16, 128**2, 4))
        )
        return (*large, (32, 320**2, 8), (24, 256**2, 8), (16, 256**2, 6), *small)
    large = ((32, 128**3, 2), (32, 112**3, 2), (32, 96**3, 2)) if gpu else ((32, 96**3, 2),)
    small = ((16, 64**3, 2), (16, 56**3, 2), (16, 48**3, 2), (16, 40**3, 2), (16, 32**3, 2))
    if many:
        return (
            *large,
            *((32, edge**3, 2) for edge in (80, 64, 56, 48, 40, 32)),
            (24, 32**3, 2),
            (16, 32**3, 2),
        )
    if narrow:
        small = (
            (16, 64**3, 2),
            (12, 64**3, 2),
            (8, 64**3, 2),
            (8, 56**3, 2),
            (8, 48**3, 2),
            (8, 40**3, 2),
        )
    return (*large, (32, 80**3, 2), (32, 64**3, 2), (24, 64**3, 2), (24, 56**3, 2), *small)


def topology(
    shape: Sequence[int], spacing: Sequence[float], voxels: int, dims: int
) -> tuple[Triple, tuple[Triple, ...], tuple[Triple, ...]]:
    """Patch, strides and kernels for a median shape and a patch of about ``voxels``.

    The patch has the median's proportions in voxels where it must be smaller, never exceeds it by
    more than divisibility asks. An axis is pooled while at least 8 voxels of it remain and it is
    not much coarser than the finest (Isensee 2021); a coarse axis has kernel 1 until then.

    Raises:
        PlanError: no axis can be pooled even once.
    """
    axes = [0, 1] if dims == 2 else [0, 1, 2]
    size = _patch_size(axes, shape, spacing, voxels)
    strides, kernels = _stages(axes, size, spacing, most=5 if dims == 3 else 6)
    if not strides:
        raise PlanError(
            f"cases of {tuple(shape)} voxels are too small for a U-Net: an axis needs at least 8"
        )
    divisor = np.prod(np.array(strides), axis=0)
    patch = [1, 1, 1]
    for a in axes:
        # An axis that is whole stays whole; others are rounded to the nearest size that divides.
        whole = size[a] >= shape[a]
        steps = np.ceil(size[a] / divisor[a]) if whole else np.rint(size[a] / divisor[a])
        patch[a] = max(1, int(steps)) * int(divisor[a])
    return _triple(patch), strides, kernels


def _patch_size(
    axes: Sequence[int], shape: Sequence[int], spacing: Sequence[float], voxels: int
) -> dict[int, float]:
    """Axis -> voxels of a patch of about ``voxels``: the median shape, its widest axis (in mm)
    shrunk again and again.
    """
    size = {a: float(shape[a]) for a in axes}
    narrowest = max(1e-6, min(float(shape[a] * spacing[a]) for a in axes))

    def width(a: int) -> float:
        return size[a] * spacing[a] / narrowest if size[a] > 16 else 0.0

    while np.prod([size[a] for a in axes]) > voxels * 1.1:
        size[max(axes, key=width)] *= 0.97
    return size


def _stages(
    axes: Sequence[int], size: Mapping[int, float], spacing: Sequence[float], most: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Strides into each later stage, and the kernels of every stage: at most ``most`` strides."""
    left, step = dict(size), {a: float(spacing[a]) for a in axes}
    strides: list[Triple] = []
    kernels: list[Triple] = []
    while len(strides) < most:
        # A coarse axis is neither pooled nor convolved until the others are as coarse.
        wide = [a for a in axes if left[a] >= 8]
        finest = min((step[a] for a in wide), default=0.0)
        pooled = [a for a in wide if step[a] < 2 * finest]
        near = [a for a in axes if step[a] < 2 * min(step.values())]
        kernels.append(_triple(3 if a in near else 1 for a in range(3)))
        if not pooled:
            break
        strides.append(_triple(2 if a in pooled else 1 for a in range(3)))
        for a in pooled:
            left[a], step[a] = left[a] / 2, step[a] * 2
    else:
        kernels.append(_triple(3 if a in axes else 1 for a in range(3)))
    return tuple(strides), tuple(kernels[: len(strides) + 1])


def _triple(values: Any) -> Triple:
    a, b, c = values
    return int(a), int(b), int(c)


def _unet(
    draft: _Draft, width: int, strides: tuple[Triple, ...], kernels: tuple[Triple, ...], light: bool
) -> Network:
    """``light``: one convolution where there were two, at full resolution and at each level of the
    decoder, where they take half of the time.
    """
    cap = 512 if draft.dims == 2 else 320
    widths = tuple(min(width * 2**n, cap) for n in range(len(strides) + 1))
    return Network(
        dims=2 if draft.dims == 2 else 3,
        channels=len(draft.manifest.channels),
        classes=len(draft.manifest.labels) + 1,
        widths=widths,
        strides=strides,
        kernels=kernels,
        convs=(1, *(2 for _ in strides)) if light else 2,
        decoder_convs=1 if light else None,
    )


def _work(network: Network, patch: Triple, batch_size: int) -> float:
    """Work of a step up to a factor: voxels times width. Too little for wide networks, so that none
    is ruled out unmeasured that might fit.
    """
    return batch_size * float(np.prod(patch)) * network.widths[0]


def _fits_memory(network: Network, patch: Triple, batch_size: int, machine: Machine) -> bool:
    """About 24 feature maps of full resolution are alive in a training step, and the class scores,
    several times, in float32.
    """
    voxels = batch_size * float(np.prod(patch))
    need = voxels * (24 * network.widths[0] * 2 + 6 * 4 * network.classes)
    return need < 0.6 * (machine.gpu_bytes or machine.ram_bytes)


def measure_step(network: Network, patch: Triple, batch_size: int, device: str = "cpu") -> float:
    """Seconds of one training step (forward, backward, update) on ``device``: the least of three
    after a warm-up.
    """
    import torch

    from ..inference.devices import choose_device
    from ..inference.engine import fast_dtype
    from ..networks.build import build

    where = choose_device(device)
    module = build(network, seed=0).to(where).train()
    optimiser = torch.optim.AdamW(module.parameters())
    space = patch[: network.dims]
    x = torch.randn(batch_size, network.channels, *space, device=where)
    dtype, seconds = fast_dtype(where), []
    for _ in range(4):
        began = time.perf_counter()
        with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
            out = module(x)
        logs = (out[0] if isinstance(out, list) else out).float().movedim(1, -1).log_softmax(-1)
        (logs.exp().mean() - logs.mean()).backward()  # about what a training's loss costs
        optimiser.step()
        optimiser.zero_grad()
        if where.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        if seconds[0] > 20:
            break
    return float(min(seconds[1:] or seconds)) * 1.1  # reading and augmenting


def _choose_augmentation(draft: _Draft, steps: float) -> Augmentation:
    """Rotation in the plane only where slices are thick; mirroring only where anatomy stays
    plausible, with time to learn sides.
    """
    labels, spacing = draft.manifest.labels, [s for s in draft.spacing_mm if s is not None]
    flat = draft.dims == 3 and max(spacing) > ANISOTROPY * min(spacing)
    coarse = int(np.argmax(spacing)) if flat else -1
    angles = tuple(15.0 if not flat or a == coarse else 0.0 for a in range(3))
    sided_axis = next(a for a, letter in enumerate(draft.orientation) if letter in "LR")
    microscopy = draft.manifest.modality in ("EM", "microscopy", "photo")
    if microscopy:
        mirror: tuple[int, ...] = (0, 1) if draft.dims == 2 else (0, 1, 2)
        why = "both axes: a micrograph has no up"
    elif draft.dims == 2 and sided_axis == 2:
        mirror, why = (), "none: left and right lie across the slices"
    elif labels.is_sided and not labels.can_mirror_sides:
        mirror, why = (), "none: some structures have a side and no partner to swap with"
    elif labels.is_sided and steps < STEPS_TO_MIRROR_SIDES:
        mirror, why = (
            (),
            "none: which side is which takes longer to learn from mirror images, and about "
            f"{steps:.0f} steps are few",
        )
    else:
        mirror = (sided_axis,)
        why = "left to right" + (
            f", swapping {len(labels.pairs)} pairs of sided structures"
            if labels.is_sided
            else ", no structure has a side"
        )
    draft.reasons["augmentation.mirror"] = why
    draft.reasons["augmentation"] = (
        "rotation, scaling and mirroring in one resampling pass; noise, blur, brightness, "
        "contrast, gamma, low resolution"
        + ("; rotation only within the thick slices" if flat else "")
    )
    return Augmentation(rotation_deg=angles, mirror=mirror)  # type: ignore[arg-type]


def _with_low_resolution(plan: Plan, draft: _Draft) -> Plan:
    """Add a first stage at a coarser spacing where a patch sees less than an eighth of a median
    case (Isensee 2021, cascade).
    """
    covers = np.prod(plan.patch) / np.prod(draft.shape)
    if plan.dims == 2 or covers >= 1 / 8:
        plan.reasons["low_resolution"] = "none: a patch sees enough of a case"
        return plan
    factor = float(np.cbrt(1 / (4 * covers)))
    spacing = tuple(round(float(s) * factor, 4) for s in plan.spacing_mm if s is not None)
    stage = plan.replace(
        spacing_mm=spacing,
        reasons={
            "spacing_mm": f"{factor:.1f} times coarser, so that a patch sees a quarter of a case"
        },
    )
    plan.reasons["low_resolution"] = (
        f"a first stage at {' x '.join(f'{s:g}' for s in spacing)} mm: a patch sees "
        f"{100 * covers:.0f} % of a median case"
    )
    return plan.replace(low_resolution=stage)
