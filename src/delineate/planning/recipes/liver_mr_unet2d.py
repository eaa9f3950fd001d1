"""``liver-mr-unet2d``: 2-D networks on T1 in-phase liver MR of the CHAOS challenge: a U-Net with 64
to 1024 channels, DenseUNet-65 and DenseUNet-167.

The original: slices as 8- or 16-bit intensities, the liver by its intensity range, patients split
16 to 4; binary cross-entropy with logits, Adam, batch 4, rotation by 10 degrees, flips and zooms.
See ``docs/how-to/recipes/liver-mr-unet2d.md``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...core.grid import rounded_mm
from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan
from ...extend.parts import Recipe
from ..fingerprint import Fingerprint
from . import shared as parts
from .scaling import planner

NAME = "liver-mr-unet2d"
WIDTHS = (64, 128, 256, 512, 1024)
LARGEST_SLICE = 256
BATCH = 4
EPOCHS = 100
KEEP_EVERY = 20
DROPOUT = 0.2
# Layers of each dense block; growth; channels of the decoder from full resolution down, then those
# of the stem.
DENSE = {
    "liver-mr-denseunet65": ((3, 4, 12, 8), 32, (64, 96, 192, 224, 504, 96)),
    "liver-mr-denseunet167": ((6, 12, 36, 24), 48, (64, 96, 96, 384, 768, 96)),
}


def in_phase_liver(manifest: Manifest, has_choice: bool) -> Manifest:
    """Only the in-phase images if both phases are channels, and only the liver."""
    phases = [
        n
        for n, name in enumerate(manifest.channels)
        if "inphase" in name.lower().replace(" ", "").replace("-", "")
    ]
    # A case without all of its images cannot be indexed by channel.
    if (
        len(phases) == 1
        and len(manifest.channels) > 1
        and all(len(c.images) == len(manifest.channels) for c in manifest)
    ):
        cases = tuple(replace(c, images=(c.images[phases[0]],)) for c in manifest)
        manifest = replace(manifest, cases=cases, channels=(manifest.channels[phases[0]],))
    return parts.only_liver(manifest, has_choice)


def network(manifest: Manifest, dense: str = "") -> Network:
    """The U-Net, or the DenseUNet named ``dense``."""
    if not dense:
        return parts.unet(2, manifest, WIDTHS, dropout=DROPOUT)
    layers, growth, widths = DENSE[dense]
    return Network(
        kind="denseunet",
        dims=2,
        channels=len(manifest.channels),
        classes=len(manifest.labels) + 1,
        widths=widths,
        strides=parts.same_in_all(2, 5, 2),
        kernels=parts.same_in_all(2, 5, 3) + parts.same_in_all(2, 1, 7),
        convs=layers,
        growth=growth,
        norm="batch",
        activation="relu",
        dropout=DROPOUT,
        deep_supervision=False,
    )


def full_plan(found: Fingerprint, manifest: Manifest, seed: int, dense: str = "") -> Plan:
    """The full setting, for whole slices."""
    net = network(manifest, dense)
    # The median resolution in the plane; across it, each scan keeps its slices.
    in_plane = found.median_spacing()
    spacing = (rounded_mm(float(in_plane[0])), rounded_mm(float(in_plane[1])), None)
    name = dense or NAME
    return Plan(
        recipe=name,
        channels=parts.channels(manifest, Normalisation(kind="robust")),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        patch=parts.slice_over(found, spacing, LARGEST_SLICE, net),
        batch=BATCH,
        network=net,
        loss=Loss(dice=0, cross_entropy=0, binary_cross_entropy=1),
        optimiser=Optimiser(kind="adam", learning_rate=1e-3, weight_decay=0),
        schedule=parts.schedule(
            found,
            manifest,
            BATCH,
            slices=True,
            epochs=EPOCHS,
            best_by="loss",
            keep_every=KEEP_EVERY,
        ),
        augmentation=augmentation(manifest),
        seed=seed,
        reasons={
            "recipe": f"{name}: full setting: {EPOCHS} epochs, weights kept every {KEEP_EVERY}",
            "normalise": "each scan separately: clipped at its 0.5 and 99.5 percentiles, then zero "
            "mean and unit standard deviation, so that 8-bit and 16-bit images are equivalent",
            "spacing_mm": "median of the cohort in the plane, the scan's own spacing across it",
            "loss": "binary cross-entropy of each structure against the rest; for one structure, "
            "that of the difference of the two logits",
        },
    )


def augmentation(manifest: Manifest) -> Augmentation:
    """Rotation by up to 10 degrees in 80 % of the samples, flips in 50 %, and a zoom to 85 % of the
    side length in 30 %.
    """
    spatial = {
        "rotation_p": 0.8,
        "rotation_deg": (0.0, 0.0, 10.0),
        "mirror": parts.mirror_axes(manifest, "RAS"),
        "scale_p": 0.3,
        "scale": (0.85, 0.85),
    }
    return Augmentation.model_validate(Augmentation.none().model_dump() | spatial)


RECIPES = (
    Recipe(NAME, "2-D U-Net for liver MR", planner(full_plan), in_phase_liver),
    *(
        Recipe(
            name,
            f"DenseUNet-{name.removeprefix('liver-mr-denseunet')} for liver MR",
            planner(partial(full_plan, dense=name)),
            in_phase_liver,
        )
        for name in DENSE
    ),
)
