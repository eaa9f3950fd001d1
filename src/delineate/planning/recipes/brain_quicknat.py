"""``brain-quicknat``: QuickNAT (Roy 2019) on T1 brain MR: three 2-D networks, one for each slicing
direction, and their weighted average.

The original: dense blocks of 5 x 5 convolutions with 64 channels, unpooling by index, squeeze and
excitation, dropout 0.2; logistic loss weighted by median frequency and at boundaries, plus Dice;
SGD at 0.1, divided by ten every ten epochs; trained on automatic labels, then on labels by experts
(here: ``train --init``). See ``docs/how-to/recipes/brain-quicknat.md``.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from ...cohorts.discovery.structures import StructureSelection
from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan, View
from ...extend.parts import Recipe
from ..capacity import Triple
from ..class_weights import median_frequency_weights
from ..fingerprint import Fingerprint
from . import shared as parts
from .scaling import planner

NAME = "brain-quicknat"
# Slicing axis in RAS and weight: axial, coronal, sagittal.
VIEWS = (
    (2, 0.4),
    (1, 0.4),
    (0, 0.2),
)
LARGEST_SLICE = 256
BATCH = 5
EPOCHS, DROP_EPOCHS = 30, 10
BOUNDARY_WEIGHT = 2.0

# The structures of the network with 28 classes including background: twelve on both sides and three
# in the middle, with their names in the MICCAI 2012 protocol. The twelfth on both sides is the
# cortex: the sum of its gyri, whose label values start at 100 in the protocol.
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
    """The 27 structures if the cohort is labelled by the MICCAI 2012 protocol. Any other cohort,
    and one with chosen structures, is unchanged.
    """
    names = set(manifest.labels.names)
    wanted = [f"{side} {name}" for name in BOTH_SIDES for side in ("Left", "Right")] + list(MIDDLE)
    # The cortex of each side: all labels of that side from the first gyrus on.
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


def views(
    found: Fingerprint, spacing_mm: tuple[float, float, float | None], divisor: int
) -> list[View]:
    """The three views. Their patches hold whole slices of the largest case, up to
    ``LARGEST_SLICE``.
    """
    whole = parts.patch_over(found, spacing_mm, (LARGEST_SLICE,) * 3, (divisor,) * 3, cropped=True)
    return [
        View(
            axis=axis,
            weight=weight,
            merge_sides=axis == 0,
            patch=_slice_of(whole, axis),
        )
        for axis, weight in VIEWS
    ]


def _slice_of(patch: Triple, axis: int) -> Triple:
    """The patch reduced to one slice along ``axis``."""
    a, b, c = (1 if n == axis else size for n, size in enumerate(patch))
    return a, b, c


def full_plan(found: Fingerprint, manifest: Manifest, seed: int, squeeze: Squeeze = "both") -> Plan:
    """The full setting, with the three views; of cases that are single slices, one network for
    these.
    """
    net = network(manifest, squeeze)
    are_slices = all(c.shape[2] == 1 for c in found.cases)
    spacing = (1.0, 1.0, None if are_slices else 1.0)
    # The plan's own patch is that of the first view; each view has its own.
    three = views(found, spacing, net.divisor[0])
    weights = median_frequency_weights(np.array(parts.class_counts(found, manifest, cropped=True)))
    return Plan(
        recipe=NAME,
        channels=parts.channels(manifest, Normalisation(kind="robust", inside="nonzero")),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        crop="nonzero",
        patch=three[0].patch,
        batch=BATCH,
        network=net,
        views=() if are_slices else tuple(three),
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
        schedule=parts.schedule(
            found,
            manifest,
            BATCH,
            slices=True,
            kind="step",
            epochs=EPOCHS,
            drop_every=DROP_EPOCHS / EPOCHS,
        ),
        augmentation=Augmentation.none(),
        seed=seed,
        reasons={
            "recipe": f"{NAME}: three QuickNATs; full setting: {EPOCHS} epochs each, learning rate "
            f"divided by 10 every {DROP_EPOCHS} epochs",
            "views": "the cases are single slices, of which one network learns"
            if are_slices
            else "axial 0.4, coronal 0.4, sagittal 0.2; left and right look the same in a "
            "sagittal slice, so the sagittal network learns both as one structure",
            "normalise": "each scan separately, inside the brain; the original's minimum and "
            "maximum depend on single voxels",
            "loss.class_weights": "median frequency over all voxels of the cohort, as exact ratios",
        },
    )


RECIPES = (
    Recipe(NAME, "QuickNAT for whole-brain MR: three views, csSE", planner(full_plan), structures),
    Recipe(
        f"{NAME}-cse",
        "the same with channel squeeze and excitation only",
        planner(partial(full_plan, squeeze="channel")),
        structures,
    ),
    Recipe(
        f"{NAME}-sse",
        "the same with spatial squeeze and excitation only",
        planner(partial(full_plan, squeeze="spatial")),
        structures,
    ),
    Recipe(
        f"{NAME}-plain",
        "the same without squeeze and excitation",
        planner(partial(full_plan, squeeze="none")),
        structures,
    ),
)
