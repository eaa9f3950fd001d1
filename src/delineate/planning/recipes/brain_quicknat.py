"""``brain-quicknat``: QuickNAT (Roy 2019) on T1 brain MR: three 2-D networks, one for each
direction of slicing, and their weighted average.

The original: dense blocks of 5 x 5 convolutions 64 wide, unpooling by index, squeeze and
excitation, dropout 0.2; logistic loss weighted by median frequency and at boundaries, plus Dice;
SGD at 0.1, a tenth of it every ten epochs; trained on automatic labels, then on experts' (here:
``train --init``). See ``docs/recipes/brain-quicknat.md``.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from ...cohorts.discovery.structures import StructureSelection
from ...core.errors import PlanError
from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan, Schedule, View
from ..class_weights import median_frequency_weights
from ..fingerprint import Fingerprint
from ..rules import Machine, Recipe
from . import shared as parts
from .scaling import scaled

NAME = "brain-quicknat"
# Axis of RAS that is sliced, weight: axial, coronal, sagittal.
VIEWS = (
    (2, 0.4),
    (1, 0.4),
    (0, 0.2),
)
LARGEST_SLICE = 256
BATCH = 5
EPOCHS, DROP_EPOCHS = 30, 10
BOUNDARY_WEIGHT = 2.0

# The structures of the 28-class network, background being the first: twelve on both sides and three
# in the middle, by their names in
# the MICCAI 2012 protocol. The cortex is the sum of its gyri, which the protocol numbers from 100.
BOTH_SIDES = (
    "Cerebral White Matter",
    "Lateral Ventricle",
    "Cerebellum White Matter",
    "Cerebellum Exterior",
    "Thalamus Proper",
    "Caudate",
    "Putamen",
    "Pallidum",
    "Hippocampus",
    "Amygdala",
    "Ventral DC",
)
MIDDLE = ("3rd Ventricle", "4th Ventricle", "Brain Stem")
FIRST_GYRUS = 100

Squeeze = Literal["none", "channel", "spatial", "both"]


def structures(manifest: Manifest, has_choice: bool) -> Manifest:
    """The 27 structures where the cohort is labelled by the MICCAI 2012 protocol; any other cohort
    keeps its own.
    """
    names = set(manifest.labels.names)
    wanted = [f"{side} {name}" for name in BOTH_SIDES for side in ("Left", "Right")] + list(MIDDLE)
    gyri: dict[str, tuple[int | str, ...]] = {
        f"{side} Cerebral Cortex": tuple(
            b.value for b in manifest.labels if b.value >= FIRST_GYRUS and b.side == side.lower()
        )
        for side in ("Left", "Right")
    }
    if has_choice or not names.issuperset(wanted) or not all(gyri.values()):
        return manifest
    return parts.with_choice(
        manifest, StructureSelection({name: (name,) for name in wanted} | gyri)
    )


def network(manifest: Manifest, squeeze: Squeeze = "both", width: int = 64) -> Network:
    """The 2-D network of one view: four dense stages, a bottleneck, 5 x 5 kernels."""
    return Network(
        kind="quicknat",
        dims=2,
        channels=len(manifest.channels),
        classes=len(manifest.labels) + 1,
        widths=(width,) * 5,
        strides=parts.same_in_all(2, 4, 2),
        kernels=parts.same_in_all(2, 5, 5),
        squeeze=squeeze,
        norm="batch",
        activation="prelu",
        dropout=0.2,
        deep_supervision=False,
    )


def plan(
    found: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    *,
    budget_s: float | None,
    epochs: int | None,
    seed: int,
    dims: int | None = None,
    squeeze: Squeeze = "both",
) -> Plan:
    """The plan, with the three views.

    Raises:
        PlanError: the cases are single slices.
    """
    if all(min(c.shape) == 1 for c in found.cases):
        raise PlanError(
            f"{NAME} looks at volumes from three directions; these cases are single slices"
        )
    net = network(manifest, squeeze)
    spacing = (1.0, 1.0, 1.0)
    whole = parts.patch_over(
        found, spacing, (LARGEST_SLICE,) * 3, (net.divisor[0],) * 3, cropped=True
    )
    views = [
        View(
            axis=axis,
            weight=weight,
            merge_sides=axis == 0,
            patch=tuple(1 if a == axis else n for a, n in enumerate(whole)),  # type: ignore[arg-type]
        )
        for axis, weight in VIEWS
    ]
    weights = median_frequency_weights(np.array(parts.class_counts(found, manifest, cropped=True)))
    full = Plan(
        recipe=NAME,
        channels=parts.channels(manifest, Normalisation(kind="robust", inside="nonzero")),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        crop="nonzero",
        patch=views[0].patch,
        batch=BATCH,
        network=net,
        views=tuple(views),
        loss=Loss(
            dice=1,
            cross_entropy=1,
            background=True,
            class_weights=tuple(float(w) for w in weights),
            boundary=BOUNDARY_WEIGHT,
        ),
        optimiser=Optimiser(
            kind="sgd", learning_rate=0.1, momentum=0.95, nesterov=False, weight_decay=1e-4
        ),
        schedule=Schedule(
            kind="step",
            epochs=EPOCHS,
            steps_per_epoch=parts.epoch_steps(found, manifest, BATCH, slices=True),
            drop_every=DROP_EPOCHS / EPOCHS,
            warmup=0,
            ema=0,
            validate_every=1,
        ),
        augmentation=Augmentation.none(),
        seed=seed,
        reasons={
            "recipe": f"{NAME}: three QuickNATs, {EPOCHS} epochs each in full, the rate a tenth "
            f"every {DROP_EPOCHS}",
            "views": "axial 0.4, coronal 0.4, sagittal 0.2; a sagittal slice cannot tell left "
            "from right, so its network learns both as one",
            "normalise": "each scan by itself inside the brain; the original's minimum and "
            "maximum hang on single voxels",
            "loss.class_weights": "median frequency over the voxels of the whole cohort, as true "
            "ratios",
        },
    )
    return scaled(full, machine, budget_s=budget_s, epochs=epochs)


RECIPES = (
    Recipe(NAME, "QuickNAT for whole-brain MR: three views, csSE", plan, structures),
    Recipe(
        f"{NAME}-cse",
        "the same with channel squeeze and excitation alone",
        partial(plan, squeeze="channel"),
        structures,
    ),
    Recipe(
        f"{NAME}-sse",
        "the same with spatial squeeze and excitation alone",
        partial(plan, squeeze="spatial"),
        structures,
    ),
    Recipe(
        f"{NAME}-plain",
        "the same without squeeze and excitation",
        partial(plan, squeeze="none"),
        structures,
    ),
)
