"""``brats-vnet``: V-Net (Milletari 2016) on multi-modal brain tumours (BraTS), and a light variant.

The original: four modalities as channels, four classes, 5 x 5 x 5 convolutions in residual stages,
PReLU, strided down- and transposed up-convolutions, softmax cross-entropy or Dice, Adam at 1e-4,
patches of 128 cubed, the best by validation loss. Ours learns to do without a modality as well. See
``docs/recipes/brats-vnet.md``.
"""

from __future__ import annotations

from functools import partial

from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan, Schedule
from ..fingerprint import Fingerprint
from ..rules import Machine, Recipe
from . import shared as parts
from .scaling import scaled

NAME = "brats-vnet"
WIDTHS = (16, 32, 64, 128, 256)
CONVS = (1, 2, 3, 3, 3)
PATCH = (128, 128, 128)
EPOCHS = 200
DROP_CHANNEL_P = 0.1


def network(manifest: Manifest, light: bool) -> Network:
    """V-Net, or the light variant: double 3 x 3 x 3 convolutions and pooling, which is a U-Net."""
    if light:
        return parts.unet(3, manifest, WIDTHS)
    return Network(
        kind="vnet",
        dims=3,
        channels=len(manifest.channels),
        classes=len(manifest.labels) + 1,
        widths=WIDTHS,
        strides=parts.same_in_all(3, 4, 2),
        kernels=parts.same_in_all(3, 5, 5),
        convs=CONVS,
        norm="batch",
        activation="prelu",
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
    light: bool = False,
) -> Plan:
    """The plan for any number of modalities."""
    net = network(manifest, light)
    name, spacing = f"{NAME}-light" if light else NAME, (1.0, 1.0, 1.0)
    several = len(manifest.channels) > 1
    mirror = {
        "mirror": parts.mirror_axes(manifest, "RAS"),
        "drop_channel_p": DROP_CHANNEL_P if several else 0.0,
    }
    full = Plan(
        recipe=name,
        channels=parts.channels(manifest, Normalisation(kind="robust", inside="nonzero")),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        crop="nonzero",
        patch=parts.patch_over(found, spacing, PATCH, net.divisor, cropped=True),
        batch=1,
        network=net,
        # With several classes Dice alone has dead ends: a voxel given to a class whose own Dice is
        # near 0 costs next to nothing, and once the
        # softmax is sure nothing pulls it back. A short run filled all that is outside the head so
        # (seen); cross-entropy pulls.
        loss=Loss(dice=0, cross_entropy=1)
        if light
        else Loss(dice=1, cross_entropy=1, squared=True),
        optimiser=Optimiser(kind="adam", learning_rate=1e-4, weight_decay=0),
        schedule=Schedule(
            kind="constant",
            epochs=EPOCHS,
            steps_per_epoch=parts.epoch_steps(found, manifest, 1),
            warmup=0,
            ema=0,
            best_by="loss",
            validate_every=1,
        ),
        augmentation=Augmentation.model_validate(Augmentation.none().model_dump() | mirror),
        seed=seed,
        reasons={
            "recipe": f"{name}: {EPOCHS} epochs in full, best by validation loss",
            "normalise": "each modality of each patient by itself, inside the head",
            "augmentation": f"flips; each modality is blanked in {100 * DROP_CHANNEL_P:.0f} % of "
            "the samples: one may be missing at prediction"
            if several
            else "flips",
        },
    )
    return scaled(full, machine, budget_s=budget_s, epochs=epochs)


RECIPES = (
    Recipe(NAME, "V-Net for multi-modal brain tumours", plan),
    Recipe(
        f"{NAME}-light",
        "a light V-Net: double 3x3x3 convolutions, pooling, cross-entropy",
        partial(plan, light=True),
    ),
)
