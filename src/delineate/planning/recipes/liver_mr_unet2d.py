"""``liver-mr-unet2d``: 2-D networks on T1 in-phase liver MR of the CHAOS challenge: a U-Net 64 to
1024 wide, DenseUNet-65 and DenseUNet-167.

The original: slices as 8- or 16-bit grey values, the liver by its grey range, patients split 16 to
4; binary cross-entropy with logits, Adam, batch 4, rotation by 10 degrees, flips and zooms. See
``docs/recipes/liver-mr-unet2d.md``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan, Schedule
from ..fingerprint import Fingerprint
from ..rules import Machine, Recipe
from . import shared as parts
from .scaling import scaled

NAME = "liver-mr-unet2d"
WIDTHS = (64, 128, 256, 512, 1024)
LARGEST_SLICE = 256
BATCH = 4
EPOCHS = 100
KEEP_EVERY = 20
DROPOUT = 0.2
# layers of each dense block, growth, widths of the decoder from full resolution down, the stem's
# last
DENSE = {
    "liver-mr-denseunet65": ((3, 4, 12, 8), 32, (64, 96, 192, 224, 504, 96)),
    "liver-mr-denseunet167": ((6, 12, 36, 24), 48, (64, 96, 96, 384, 768, 96)),
}


def in_phase_liver(manifest: Manifest, has_choice: bool) -> Manifest:
    """The in-phase images alone where both phases are channels, and the liver alone."""
    phases = [
        n
        for n, name in enumerate(manifest.channels)
        if "inphase" in name.lower().replace(" ", "").replace("-", "")
    ]
    if (
        len(phases) == 1
        and len(manifest.channels) > 1
        and all(len(c.images) == len(manifest.channels) for c in manifest)
    ):
        cases = tuple(replace(c, images=(c.images[phases[0]],)) for c in manifest)
        manifest = replace(manifest, cases=cases, channels=(manifest.channels[phases[0]],))
    return parts.only_liver(manifest, has_choice)


def network(manifest: Manifest, dense: str = "") -> Network:
    """The U-Net, or the DenseUNet called ``dense``."""
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


def plan(
    found: Fingerprint,
    manifest: Manifest,
    machine: Machine,
    *,
    budget_s: float | None,
    epochs: int | None,
    seed: int,
    dims: int | None = None,
    dense: str = "",
) -> Plan:
    """The plan for whole slices."""
    net = network(manifest, dense)
    in_plane = found.median_spacing()
    spacing = (round(float(in_plane[0]), 4), round(float(in_plane[1]), 4), None)
    divisor = (net.divisor[0], net.divisor[1], 1)
    patch = parts.patch_over(
        found, spacing, (LARGEST_SLICE, LARGEST_SLICE, 1), divisor, cropped=False
    )
    name = dense or NAME
    full = Plan(
        recipe=name,
        channels=parts.channels(manifest, Normalisation(kind="robust")),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        patch=patch,
        batch=BATCH,
        network=net,
        loss=Loss(dice=0, cross_entropy=0, binary_cross_entropy=1),
        optimiser=Optimiser(kind="adam", learning_rate=1e-3, weight_decay=0),
        schedule=Schedule(
            kind="constant",
            epochs=EPOCHS,
            steps_per_epoch=parts.epoch_steps(found, manifest, BATCH, slices=True),
            warmup=0,
            ema=0,
            best_by="loss",
            validate_every=1,
            keep_every=KEEP_EVERY,
        ),
        augmentation=augmentation(manifest),
        seed=seed,
        reasons={
            "recipe": f"{name}: {EPOCHS} epochs in full, the weights kept every {KEEP_EVERY}",
            "normalise": "each scan by itself, clipped at its 0.5 and 99.5 percentiles, zero "
            "mean, unit deviation: so 16 bits are as good as 8",
            "spacing_mm": "in the plane the cohort's median, across it each scan's own",
            "loss": "binary cross-entropy of each structure against the rest; for one structure "
            "that of the two logits' difference",
        },
    )
    return scaled(full, machine, budget_s=budget_s, epochs=epochs)


def augmentation(manifest: Manifest) -> Augmentation:
    """Rotation by up to 10 degrees in four of five samples, flips in half, and in three of ten a
    zoom into 85 % of the side.
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
    Recipe(NAME, "2-D U-Net for liver MR", plan, in_phase_liver),
    *(
        Recipe(
            name, f"DenseUNet-{name[18:]} for liver MR", partial(plan, dense=name), in_phase_liver
        )
        for name in DENSE
    ),
)
