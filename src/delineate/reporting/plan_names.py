"""The names of the plan's fields and of its values, as a person reads them.

``FIELDS`` has a name and a unit for every field of ``core.plan.Plan``, by its path without list
numbers; a test holds it complete. Fields that depend on an extension (settings and weights by the
names that were registered) are named by what was registered.
"""

from __future__ import annotations

import re
from typing import Any

from ..core.words import value_text

# Groups of fields, by the first part of their path.
GROUPS = {
    "channels": "input channels",
    "network": "network",
    "views": "views",
    "loss": "loss",
    "optimiser": "optimiser",
    "schedule": "training schedule",
    "augmentation": "augmentation",
    "inference": "prediction",
    "postprocessing": "postprocessing",
    "structures": "structures",
}

# Path -> (name, unit). A name inside a group is read after the name of the group.
FIELDS: dict[str, tuple[str, str]] = {
    "delineate_plan": ("version of the plan", ""),
    "recipe": ("recipe", ""),
    "orientation": ("axis directions", ""),
    "spacing_mm": ("voxel size", "mm"),
    "crop": ("crop", ""),
    "resampling": ("resampling", ""),
    "patch": ("patch size", "voxels"),
    "batch": ("batch size", "patches"),
    "foreground": ("patches centred on a structure", "%"),
    "seed": ("random seed", ""),
    "output": ("form of the result", ""),
    "reasons": ("reasons", ""),
    "low_resolution": ("first stage at low resolution", ""),
    "cascade": ("second stage sees the first", ""),
    "channels.name": ("name", ""),
    "channels.unit": ("read as", ""),
    "channels.normalise.kind": ("intensity normalisation", ""),
    "channels.normalise.low": ("lowest intensity", ""),
    "channels.normalise.high": ("highest intensity", ""),
    "channels.normalise.mean": ("mean intensity", ""),
    "channels.normalise.std": ("standard deviation of intensity", ""),
    "channels.normalise.low_percentile": ("lower percentile", "%"),
    "channels.normalise.high_percentile": ("upper percentile", "%"),
    "channels.normalise.inside": ("statistics of", ""),
    "structures.value": ("value", ""),
    "structures.name": ("name", ""),
    "structures.colour": ("colour", ""),
    "structures.code": ("code", ""),
    "structures.side": ("side", ""),
    "structures.parts": ("parts", ""),
    "network.kind": ("architecture", ""),
    "network.dims": ("dimensions", ""),
    "network.channels": ("input channels", ""),
    "network.classes": ("classes", ""),
    "network.widths": ("channels of the stages", ""),
    "network.strides": ("strides between stages", ""),
    "network.kernels": ("kernel sizes", ""),
    "network.convs": ("convolutions per stage", ""),
    "network.decoder_convs": ("convolutions per decoder stage", ""),
    "network.encoder": ("encoder", ""),
    "network.down": ("downsampling", ""),
    "network.growth": ("growth per dense layer", "channels"),
    "network.squeeze": ("squeeze and excitation", ""),
    "network.norm": ("normalisation", ""),
    "network.activation": ("activation", ""),
    "network.dropout": ("dropout", "%"),
    "network.overlapping": ("structures may overlap", ""),
    "network.deep_supervision": ("deep supervision", ""),
    "network.settings": ("own settings", ""),
    "views.axis": ("sliced axis", ""),
    "views.patch": ("patch size", "voxels"),
    "views.weight": ("weight", ""),
    "views.merge_sides": ("left and right learned as one", ""),
    "loss.dice": ("weight of Dice", ""),
    "loss.generalised_dice": ("weight of generalised Dice", ""),
    "loss.tversky": ("weight of Tversky", ""),
    "loss.cross_entropy": ("weight of cross-entropy", ""),
    "loss.binary_cross_entropy": ("weight of binary cross-entropy", ""),
    "loss.focal": ("weight of focal loss", ""),
    "loss.batch_dice": ("Dice summed over the batch", ""),
    "loss.squared": ("squared denominator", ""),
    "loss.background": ("background included", ""),
    "loss.class_weights": ("class weights", ""),
    "loss.boundary": ("extra weight at boundaries", ""),
    "loss.ignore": ("ignored voxels in the masks", ""),
    "loss.focal_gamma": ("focal exponent", ""),
    "loss.tversky_false_positives": ("Tversky weight of false positives", ""),
    "loss.tversky_false_negatives": ("Tversky weight of false negatives", ""),
    "loss.custom": ("weight of", ""),
    "optimiser.kind": ("method", ""),
    "optimiser.learning_rate": ("highest learning rate", ""),
    "optimiser.momentum": ("momentum", ""),
    "optimiser.nesterov": ("Nesterov momentum", ""),
    "optimiser.amsgrad": ("AMSGrad", ""),
    "optimiser.weight_decay": ("weight decay", ""),
    "optimiser.clip_norm": ("largest gradient norm", ""),
    "optimiser.settings": ("own settings", ""),
    "schedule.steps": ("wanted steps", ""),
    "schedule.kind": ("learning rate", ""),
    "schedule.epochs": ("length", "epochs"),
    "schedule.budget_s": ("length", "s"),
    "schedule.steps_per_epoch": ("steps per epoch", ""),
    "schedule.warmup": ("warm-up", "% of the training"),
    "schedule.drop_every": ("learning rate drops every", "% of the training"),
    "schedule.drop_to": ("learning rate drops to", "%"),
    "schedule.ema": ("decay of the averaged weights", ""),
    "schedule.best_by": ("best weights chosen by", ""),
    "schedule.validate_every": ("validation every", "epochs"),
    "schedule.keep_every": ("weights kept every", "epochs"),
    "augmentation.rotation_p": ("rotation, probability", "%"),
    "augmentation.rotation_deg": ("rotation up to", "°"),
    "augmentation.scale_p": ("scaling, probability", "%"),
    "augmentation.scale": ("scaling range", ""),
    "augmentation.oblique_p": ("tilted plane, probability", "%"),
    "augmentation.oblique_deg": ("tilt up to", "°"),
    "augmentation.elastic_p": ("elastic deformation, probability", "%"),
    "augmentation.elastic_mm": ("elastic displacement", "mm"),
    "augmentation.mirror": ("mirrored axes", ""),
    "augmentation.noise_p": ("noise, probability", "%"),
    "augmentation.noise_std": ("noise, standard deviation", ""),
    "augmentation.blur_p": ("blur, probability", "%"),
    "augmentation.blur_voxels": ("blur", "voxels"),
    "augmentation.brightness_p": ("brightness, probability", "%"),
    "augmentation.brightness": ("brightness change", ""),
    "augmentation.contrast_p": ("contrast, probability", "%"),
    "augmentation.contrast": ("contrast range", ""),
    "augmentation.gamma_p": ("gamma, probability", "%"),
    "augmentation.gamma": ("gamma range", ""),
    "augmentation.low_resolution_p": ("low resolution, probability", "%"),
    "augmentation.low_resolution": ("low resolution, factor", ""),
    "augmentation.drop_channel_p": ("blank channel, probability", "%"),
    "augmentation.custom": ("probability of", "%"),
    "inference.average": ("averaged", ""),
    "inference.overlap": ("overlap of windows", "%"),
    "inference.mirror": ("mirrored axes", ""),
    "inference.coarse": ("windows where a first stage finds structures, probability from", ""),
    "inference.int8": ("8-bit integers where a CPU has units for them", ""),
    "postprocessing.keep_largest": ("only the largest component of", ""),
}
# Values that are words of the plan file.
VALUES = {
    "unet": "U-Net",
    "denseunet": "dense U-Net",
    "vnet": "V-Net",
    "quicknat": "QuickNAT",
    "resnet": "ResNet",
    "leaky_relu": "leaky ReLU",
    "relu": "ReLU",
    "prelu": "PReLU",
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "muon": "Muon",
    "dice": "validation Dice",
    "loss": "validation loss",
    "poly": "polynomial decay",
    "cosine": "cosine decay",
    "step": "falls in steps",
    "stride": "strided convolution",
    "pool": "pooling",
    "window": "fixed window",
    "robust": "between percentiles, per image",
    "standard": "zero mean, unit standard deviation, per image",
    "range": "lowest to highest value, per image",
    "nonzero": "voxels that differ from the background",
    "not_zero": "voxels that are not 0",
    "all": "all voxels",
    "body": "the body",
    "both": "channel and spatial",
}
_DIRECTIONS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "top", "I": "bottom"}
_AXES = "ijk"


def field_name(path: str) -> str:
    """The name of a field without its unit; a group itself has a name too.

    >>> field_name("augmentation.low_resolution_p"), field_name("loss.custom.my_term")
    ('low resolution, probability', 'weight of my term')
    >>> field_name("channels.2.normalise.kind"), field_name("network")
    ('channel 2, intensity normalisation', 'network')
    """
    plain, number, rest = _found(path)
    if plain in GROUPS:
        return GROUPS[plain]
    name = FIELDS[plain][0] if plain in FIELDS else plain.replace("_", " ").replace(".", " ")
    name = f"{name} {rest.replace('_', ' ')}" if rest else name
    return f"{plain.partition('.')[0].removesuffix('s')} {number}, {name}" if number else name


def field_value(path: str, value: Any) -> str:
    """The value of a field as text, with its unit.

    >>> field_value("spacing_mm", [1.0, 1.0, 3.0]), field_value("network.kind", "unet")
    ('1 × 1 × 3 mm', 'U-Net')
    >>> field_value("orientation", "RAS"), field_value("augmentation.rotation_p", 0.3)
    ('RAS (towards right, front, top)', '30 %')
    """
    plain, _, _ = _found(path)
    unit = FIELDS[plain][1] if plain in FIELDS else ""
    if plain == "orientation" and isinstance(value, str) and value.isupper():
        return f"{value} (towards {', '.join(_DIRECTIONS.get(letter, '?') for letter in value)})"
    if plain.endswith((".mirror", ".axis")):
        axes = [value] if isinstance(value, int) else value
        return ", ".join(_AXES[axis] for axis in axes) or "none"
    if unit.startswith("%") and isinstance(value, int | float) and "percentile" not in plain:
        value = 100 * value
    text = VALUES.get(value, value.replace("_", " ")) if isinstance(value, str) else ""
    text = text or value_text(value)
    return f"{text} {unit}" if unit and value not in (None, []) else text


def _found(path: str) -> tuple[str, str, str]:
    """(path without numbers, the number of its list entry or "", what follows a known field)."""
    number = next(iter(re.findall(r"\.(\d+)(?=\.|$)", path)), "")
    plain = re.sub(r"\.\d+(?=\.|$)", "", path)
    known = next((k for k in FIELDS if plain.startswith(f"{k}.")), None)
    return (plain, number, "") if known is None else (known, number, plain[len(known) + 1 :])
