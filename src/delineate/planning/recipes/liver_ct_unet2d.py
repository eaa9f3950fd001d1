"""``liver-ct-unet2d``: a 2-D U-Net with 32 to 512 channels on axial slices of 3D-IRCADb, rebuilt
into volumes and evaluated in 3-D.

The original: slices at half resolution, only those with liver, mean and standard deviation of the
cohort; soft Dice, Adam at 1e-3, batch 10, 20 epochs. Ours adds what its author left open:
predictions are on the original grid of the scan, and training slices are also cut along oblique
planes. See ``docs/how-to/recipes/liver-ct-unet2d.md``.
"""

from __future__ import annotations

from functools import partial

from ...core.grid import rounded_mm
from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Normalisation, Optimiser, Plan
from ...extend.parts import Recipe
from ..fingerprint import Fingerprint
from . import shared as parts
from .scaling import planner

NAME = "liver-ct-unet2d"
WIDTHS = (32, 64, 128, 256, 512)
LARGEST_SLICE = 256
# The range of twelve bits; the padding outside the scanner's circle is below it.
RANGE_HU = (
    -1024.0,
    3071.0,
)
BATCH = 10
EPOCHS = 20
OBLIQUE_P, OBLIQUE_DEG = 0.5, 30.0
FOLDS = 3  # of 20 patients, 13 are for training and 7 for validation


def full_plan(found: Fingerprint, manifest: Manifest, seed: int, oblique: bool = True) -> Plan:
    """The full setting; without ``oblique`` the network learns only axial slices, as in the
    original.

    Raises:
        PlanError: the scans are not CT.
    """
    low, high, unit = parts.ct_window(found, NAME, RANGE_HU)
    net = parts.unet(2, manifest, WIDTHS)
    # Half the resolution in the plane; across it, each scan keeps its slices.
    in_plane = found.median_spacing()
    spacing = (rounded_mm(2 * float(in_plane[0])), rounded_mm(2 * float(in_plane[1])), None)
    mean, std = found.moments(0)
    tilts = {"oblique_p": OBLIQUE_P, "oblique_deg": OBLIQUE_DEG} if oblique else {}
    return Plan(
        recipe=NAME,
        channels=parts.channels(
            manifest, Normalisation(kind="window", low=low, high=high, mean=mean, std=max(std, 1.0))
        ),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        patch=parts.slice_over(found, spacing, LARGEST_SLICE, net),
        batch=BATCH,
        foreground=1.0,
        network=net,
        loss=Loss(dice=1, cross_entropy=0),
        optimiser=Optimiser(kind="adam", learning_rate=1e-3, weight_decay=0),
        schedule=parts.schedule(found, manifest, BATCH, slices=True, epochs=EPOCHS),
        augmentation=Augmentation.model_validate(Augmentation.none().model_dump() | tilts),
        seed=seed,
        reasons={
            "recipe": f"{NAME}: axial slices at half resolution; full setting: {EPOCHS} epochs",
            "normalise": f"mean {mean:.0f} {unit} and standard deviation {std:.0f} of the cohort",
            "foreground": "every training slice contains a structure",
            "augmentation": f"half of the slices are tilted by up to {OBLIQUE_DEG:.0f} degrees"
            if oblique
            else "none, as in the original",
        },
    )


RECIPES = (
    Recipe(
        NAME,
        "2-D U-Net for liver CT slices, axial and oblique, rebuilt into volumes",
        planner(full_plan),
        parts.only_liver,
        FOLDS,
    ),
    Recipe(
        f"{NAME}-axial",
        "the same from axial slices only",
        planner(partial(full_plan, oblique=False)),
        parts.only_liver,
        FOLDS,
    ),
)
