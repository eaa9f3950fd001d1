"""``liver-ct-unet2d``: a 2-D U-Net on axial slices of 3D-IRCADb, 32 to 512 wide, rebuilt into
volumes and scored in 3-D.

The original: slices at half resolution, those with liver only, the cohort's mean and deviation;
soft Dice, Adam at 1e-3, batch 10, 20 epochs. Ours adds what its author left open: predictions stand
on the scan's own grid, and training slices are also cut along oblique planes. See
``docs/recipes/liver-ct-unet2d.md``.
"""

from __future__ import annotations

from functools import partial

from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Normalisation, Optimiser, Plan, Schedule
from ..fingerprint import Fingerprint
from ..rules import Machine, Recipe
from . import shared as parts
from .scaling import scaled

NAME = "liver-ct-unet2d"
WIDTHS = (32, 64, 128, 256, 512)
LARGEST_SLICE = 256
# What twelve bits hold; padding outside the scanner's circle lies below.
RANGE_HU = (
    -1024.0,
    3071.0,
)
BATCH = 10
EPOCHS = 20
OBLIQUE_P, OBLIQUE_DEG = 0.5, 30.0
FOLDS = 3  # 13 patients train and 7 validate, of 20


def plan(
    found: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    *,
    budget_s: float | None,
    epochs: int | None,
    seed: int,
    dims: int | None = None,
    oblique: bool = True,
) -> Plan:
    """The plan; without ``oblique`` only axial slices are learnt, as in the original.

    Raises:
        PlanError: the scans are not CT.
    """
    parts.refuse_other_than_ct(found, NAME)
    net = parts.unet(2, manifest, WIDTHS)
    in_plane = found.median_spacing()
    spacing = (round(2 * float(in_plane[0]), 4), round(2 * float(in_plane[1]), 4), None)
    patch = parts.patch_over(
        found,
        spacing,
        (LARGEST_SLICE, LARGEST_SLICE, 1),
        (net.divisor[0], net.divisor[1], 1),
        cropped=False,
    )
    low, high = RANGE_HU
    mean, std = found.moments(0)
    tilts = {"oblique_p": OBLIQUE_P, "oblique_deg": OBLIQUE_DEG} if oblique else {}
    full = Plan(
        recipe=NAME,
        channels=parts.channels(
            manifest, Normalisation(kind="window", low=low, high=high, mean=mean, std=max(std, 1.0))
        ),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        patch=patch,
        batch=BATCH,
        foreground=1.0,
        network=net,
        loss=Loss(dice=1, cross_entropy=0),
        optimiser=Optimiser(kind="adam", learning_rate=1e-3, weight_decay=0),
        schedule=Schedule(
            kind="constant",
            epochs=EPOCHS,
            steps_per_epoch=parts.epoch_steps(found, manifest, BATCH, slices=True),
            warmup=0,
            ema=0,
            validate_every=1,
        ),
        augmentation=Augmentation.model_validate(Augmentation.none().model_dump() | tilts),
        seed=seed,
        reasons={
            "recipe": f"{NAME}: axial slices at half resolution, {EPOCHS} epochs in full",
            "normalise": f"the cohort's mean {mean:.0f} and deviation {std:.0f} HU",
            "foreground": "every training slice holds a structure",
            "augmentation": f"half of the slices are tilted by up to {OBLIQUE_DEG:.0f} degrees"
            if oblique
            else "none, as in the original",
        },
    )
    return scaled(full, machine, budget_s=budget_s, epochs=epochs)


RECIPES = (
    Recipe(
        NAME,
        "2-D U-Net for liver CT slices, axial and oblique, rebuilt into volumes",
        plan,
        parts.only_liver,
        FOLDS,
    ),
    Recipe(
        f"{NAME}-axial",
        "the same from axial slices alone",
        partial(plan, oblique=False),
        parts.only_liver,
        FOLDS,
    ),
)
