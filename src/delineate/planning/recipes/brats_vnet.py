"""``brats-vnet``: V-Net (Milletari 2016) on multi-modal brain tumours (BraTS), and a light variant.

The original: four modalities as channels, four classes, 5 x 5 x 5 convolutions in residual stages,
PReLU, strided down- and transposed up-convolutions, softmax cross-entropy or Dice, Adam at 1e-4,
patches of 128 cubed, the best checkpoint by validation loss. In addition, our network learns to
segment without one of the modalities. See ``docs/how-to/recipes/brats-vnet.md``.
"""

from __future__ import annotations

from functools import partial

from ...core.manifest import Manifest
from ...core.plan import Augmentation, Loss, Network, Normalisation, Optimiser, Plan
from ...extend.parts import Recipe
from ..fingerprint import Fingerprint
from . import shared as parts
from .scaling import planner

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


def full_plan(found: Fingerprint, manifest: Manifest, seed: int, light: bool = False) -> Plan:
    """The full setting, for any number of modalities."""
    net = network(manifest, light)
    name, spacing = f"{NAME}-light" if light else NAME, (1.0, 1.0, 1.0)
    several = len(manifest.channels) > 1
    mirror = {
        "mirror": parts.mirror_axes(manifest, "RAS"),
        "drop_channel_p": DROP_CHANNEL_P if several else 0.0,
    }
    return Plan(
        recipe=name,
        channels=parts.channels(manifest, Normalisation(kind="robust", inside="nonzero")),
        structures=parts.structures(manifest),
        spacing_mm=spacing,
        crop="nonzero",
        patch=parts.patch_over(found, spacing, PATCH, net.divisor, cropped=True),
        batch=1,
        network=net,
        # With several classes, Dice alone can get stuck: a false positive of a class whose Dice is
        # near 0 costs almost nothing, and once the softmax is saturated its gradient vanishes. A
        # short run filled everything outside the head in this way; cross-entropy corrects it.
        loss=Loss(dice=0, cross_entropy=1)
        if light
        else Loss(dice=1, cross_entropy=1, squared=True),
        optimiser=Optimiser(kind="adam", learning_rate=1e-4, weight_decay=0),
        schedule=parts.schedule(found, manifest, 1, epochs=EPOCHS, best_by="loss"),
        augmentation=Augmentation.model_validate(Augmentation.none().model_dump() | mirror),
        seed=seed,
        reasons={
            "recipe": f"{name}: full setting: {EPOCHS} epochs, best checkpoint by validation loss",
            "normalise": "each modality of each patient separately, inside the head",
            "augmentation": "mirroring; each modality is set to zero in "
            f"{100 * DROP_CHANNEL_P:.0f} % of the samples, because one may be missing at "
            "prediction"
            if several
            else "mirroring",
        },
    )


RECIPES = (
    Recipe(NAME, "V-Net for multi-modal brain tumours", planner(full_plan)),
    Recipe(
        f"{NAME}-light",
        "a light V-Net: double 3x3x3 convolutions, pooling, cross-entropy",
        planner(partial(full_plan, light=True)),
    ),
)
