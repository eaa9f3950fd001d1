"""``liver-ct-unet3d``: a residual 3-D U-Net on liver CT, as a widely followed tutorial builds it on
the Decathlon's liver task.

The original: RAS, 1.5 x 1.5 x 1.0 mm, -200..200 HU to 0..1, foreground crop, every volume squeezed
to 128 x 128 x 64; residual units 16 to 256 wide, batch norm, Dice loss (or Dice with class-weighted
cross-entropy), Adam at 1e-5 with AMSGrad, 600 epochs. Ours takes patches of that size instead of
squeezing the patient. See ``docs/recipes/liver-ct-unet3d.md``.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan, Schedule
from ..class_weights import inverse_frequency_weights
from ..fingerprint import Fingerprint
from ..rules import Machine, Recipe
from . import shared as parts
from .scaling import scaled

NAME = "liver-ct-unet3d"
SPACING_MM = (1.5, 1.5, 1.0)
PATCH = (128, 128, 64)
WIDTHS = (16, 32, 64, 128, 256)
WINDOW_HU = (-200.0, 200.0)
EPOCHS = 600


def network(manifest: Manifest) -> Network:
    """The residual U-Net: strided, two convolutions a unit, batch norm, PReLU."""
    return parts.unet(3, manifest, WIDTHS, encoder="residual", down="stride", activation="prelu")


def plan(
    found: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    *,
    budget_s: float | None,
    epochs: int | None,
    seed: int,
    dims: int | None = None,
    weighted: bool = False,
) -> Plan:
    """The plan; ``weighted`` adds cross-entropy whose class weights come from voxel counts.

    Raises:
        PlanError: the scans are not CT.
    """
    parts.refuse_other_than_ct(found, NAME)
    low, high = WINDOW_HU
    net = network(manifest)
    patch = parts.patch_over(found, SPACING_MM, PATCH, net.divisor, cropped=True)
    counts = parts.class_counts(found, manifest, cropped=True)
    weights = (
        tuple(float(w) for w in inverse_frequency_weights(np.array(counts))) if weighted else ()
    )
    full = Plan(
        recipe=NAME,
        channels=parts.channels(
            manifest, Normalisation(kind="window", low=low, high=high, mean=low, std=high - low)
        ),
        structures=parts.structures(manifest),
        spacing_mm=SPACING_MM,
        crop="body",
        patch=patch,
        batch=1,
        network=net,
        loss=Loss(dice=1, cross_entropy=1 if weighted else 0, class_weights=weights, squared=True),
        optimiser=Optimiser(kind="adam", learning_rate=1e-5, weight_decay=1e-5, amsgrad=True),
        schedule=Schedule(
            kind="constant",
            epochs=EPOCHS,
            steps_per_epoch=parts.epoch_steps(found, manifest, 1),
            warmup=0,
            ema=0,
            validate_every=1,
        ),
        augmentation=Augmentation.none(),
        seed=seed,
        reasons={
            "recipe": f"{NAME}: residual 3-D U-Net, "
            f"Dice{' and class-weighted cross-entropy' if weighted else ''}, {EPOCHS} "
            "epochs in full",
            "normalise": "-200..200 HU to 0..1, the same in every scan",
            "crop": "the box of the body, above -400 HU",
            "patch": f"{'x'.join(map(str, patch))} at {'x'.join(f'{s:g}' for s in SPACING_MM)} "
            "mm, cut and not squeezed",
        },
    )
    return scaled(full, machine, budget_s=budget_s, epochs=epochs)


RECIPES = (
    Recipe(NAME, "residual 3-D U-Net for liver CT", plan, parts.only_liver),
    Recipe(
        f"{NAME}-weighted",
        "the same with class-weighted cross-entropy beside Dice",
        partial(plan, weighted=True),
        parts.only_liver,
    ),
)
