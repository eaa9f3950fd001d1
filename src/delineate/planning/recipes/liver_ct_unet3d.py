"""``liver-ct-unet3d``: a residual 3-D U-Net on liver CT, as built in a widely followed tutorial on
the Decathlon liver task.

The original: RAS, 1.5 x 1.5 x 1.0 mm, -200..200 HU to 0..1, foreground crop, every volume resized
to 128 x 128 x 64; residual units with 16 to 256 channels, batch norm, Dice loss (or Dice with
class-weighted cross-entropy), Adam at 1e-5 with AMSGrad, 600 epochs. Ours uses patches of that size
instead of resizing the patient. See ``docs/how-to/recipes/liver-ct-unet3d.md``.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan
from ...extend.parts import Recipe
from ..class_weights import inverse_frequency_weights
from ..fingerprint import Fingerprint
from . import shared as parts
from .scaling import planner

NAME = "liver-ct-unet3d"
SPACING_MM = (1.5, 1.5, 1.0)
PATCH = (128, 128, 64)
WIDTHS = (16, 32, 64, 128, 256)
WINDOW_HU = (-200.0, 200.0)
EPOCHS = 600


def network(manifest: Manifest) -> Network:
    """The residual U-Net: strided, two convolutions per unit, batch norm, PReLU."""
    return parts.unet(3, manifest, WIDTHS, encoder="residual", down="stride", activation="prelu")


def full_plan(found: Fingerprint, manifest: Manifest, seed: int, weighted: bool = False) -> Plan:
    """The full setting; ``weighted`` adds cross-entropy with class weights from voxel counts.

    Raises:
        PlanError: the scans are not CT.
    """
    low, high, unit = parts.ct_window(found, NAME, WINDOW_HU)
    net = network(manifest)
    patch = parts.patch_over(found, SPACING_MM, PATCH, net.divisor, cropped=True)
    # Class weights count only the background inside the body, where the patches are cut.
    counts = parts.class_counts(found, manifest, cropped=True)
    weights = (
        tuple(float(w) for w in inverse_frequency_weights(np.array(counts))) if weighted else ()
    )
    return Plan(
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
        schedule=parts.schedule(found, manifest, 1, epochs=EPOCHS),
        augmentation=Augmentation.none(),
        seed=seed,
        reasons={
            "recipe": f"{NAME}: residual 3-D U-Net, "
            f"Dice{' and class-weighted cross-entropy' if weighted else ''}; full setting: "
            f"{EPOCHS} epochs",
            "normalise": f"{low:.0f}..{high:.0f} {unit} to 0..1, the same in every scan",
            "crop": "the box around the body, above -400 HU",
            "patch": f"{'x'.join(map(str, patch))} at {'x'.join(f'{s:g}' for s in SPACING_MM)} "
            "mm, cut out of the scan; the scan is not resized",
        },
    )


RECIPES = (
    Recipe(NAME, "residual 3-D U-Net for liver CT", planner(full_plan), parts.only_liver),
    Recipe(
        f"{NAME}-weighted",
        "the same with class-weighted cross-entropy in addition to Dice",
        planner(partial(full_plan, weighted=True)),
        parts.only_liver,
    ),
)
