"""One case in the viewer: an image, label maps on its grid with their names, and its description
for the page.

Shapes: an image is (I, J, K) or (C, I, J, K), a mask is (I, J, K). Volumes in ml are counted here,
on the mask as it was read, before any resampling for display. The module knows no server and no
page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import LabelError
from ..core.grid import rounded_mm
from ..core.labels import (
    IGNORED,
    Label,
    LabelSet,
    as_whole_numbers,
    default_colour,
    unique_values,
)
from ..core.volume import Volume
from ..preprocessing import intensity
from ..reporting.colours import on_dark
from ..reporting.pictures import check_place, is_placed

GREY = (128, 128, 128)  # of ignored voxels
# Of the bands of a map, from the second lowest to the highest.
BAND_COLOURS = ((120, 28, 109), (188, 55, 84), (237, 105, 37), (252, 255, 164))
ONLY = "structure"  # name of a mask's only structure if it has no other name
# Size of the largest colour table that every WebGL2 device supports, less 1; masks with a higher
# label value are renumbered for the page.
MOST_INDEX = 2047
WINDOWS_HU = {
    "soft tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "bone": (-500.0, 1300.0),
    "brain": (0.0, 80.0),
    "liver": (-45.0, 105.0),
}


@dataclass(frozen=True, eq=False)
class Mask:
    """A label map to show over an image.

    Args:
        name: its name on the page, such as "truth".
        volume: (I, J, K) whole numbers from 0.
        labels: names of the values; a value without a name is shown as "value 7".
        dice: structure -> its Dice, if the mask was scored.
    """

    name: str
    volume: Volume
    labels: LabelSet = field(default_factory=lambda: LabelSet(()))
    dice: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scene:
    """One case in memory, with all masks on exactly the image's grid.

    Raises:
        GeometryError: a mask has another geometry.
        LabelError: a mask has several different channels, or values that are not whole numbers from
            0 to 65535.
    """

    id: str
    image: Volume
    masks: tuple[Mask, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        masks = [one for mask in self.masks for one in _apart(mask)]
        object.__setattr__(self, "masks", _alike([_placed(self.image, mask) for mask in masks]))


@dataclass(frozen=True)
class ViewerCase:
    """A case in the list: its id and note, and a function that reads it when it is shown."""

    id: str
    load: Callable[[], Scene]
    note: str = ""


def banded(name: str, volume: Volume, top: float) -> Mask:
    """A map of values from 0 as a mask of bands: each fifth of ``top`` is one, the lowest is not
    shown.
    """
    limits = [top * n / (len(BAND_COLOURS) + 1) for n in range(1, len(BAND_COLOURS) + 1)]
    labels = LabelSet(
        tuple(
            Label(n, f"{name} from {limit:.2f}", colour)
            for n, (limit, colour) in enumerate(zip(limits, BAND_COLOURS, strict=True), start=1)
        )
    )
    bands = np.digitize(volume.channels_array[0], limits).astype(np.uint8)
    return Mask(name, volume.with_array(bands, "label"), labels)


def described(scene: Scene) -> dict[str, Any]:
    """Everything the page needs except the voxels, as plain data.

    ``look`` is the initial crosshair position, as fractions along R, A and S.
    """
    image = scene.image
    names = [str(n) for n in image.meta.get("channels") or ()]
    channels = [_channel(array, image.unit) for array in image.channels_array]
    return {
        "id": scene.id,
        "note": scene.note,
        "unit": image.unit if image.unit == "HU" else "",
        "placed": is_placed(image),
        "shape": list(image.grid.shape),
        "spacing_mm": [rounded_mm(s) for s in image.grid.spacing_mm],
        "channels": [
            {"name": names[n] if len(names) == len(channels) else f"channel {n + 1}", **one}
            for n, one in enumerate(channels)
        ],
        "look": _look(scene),
        "masks": [_mask(mask) for mask in scene.masks],
    }


def shown_values(labels: LabelSet) -> dict[int, int]:
    """Label value -> its value in the mask that the page receives.

    The values stay the same, unless the highest one exceeds ``MOST_INDEX``: then each value is
    replaced by its rank.
    """
    return {
        v: n if max(labels.values) > MOST_INDEX else v for n, v in enumerate(labels.values, start=1)
    }


def shown_array(mask: Mask) -> NDArray[Any]:
    """(I, J, K) mask with the values that the page receives, in the smallest unsigned dtype."""
    table = shown_values(mask.labels)
    if all(v == shown for v, shown in table.items()):
        return mask.volume.array.astype(mask.labels.dtype, copy=False)
    lookup = np.zeros(max(table) + 1, np.uint16)
    lookup[list(table)] = list(table.values())
    return np.asarray(lookup[mask.volume.array])


# ---- masks ----


def _apart(mask: Mask) -> list[Mask]:
    """One mask for each of the structures that overlap; else the mask itself."""
    labels = mask.labels
    if not labels.overlapping:
        return [mask]
    array = mask.volume.array
    return [
        Mask(
            f"{mask.name}: {label.name}",
            mask.volume.with_array(labels.inside(array, label).astype(np.uint8), "label"),
            LabelSet((replace(label, value=1, parts=()),)),
            {label.name: mask.dice[label.name]} if label.name in mask.dice else {},
        )
        for label in labels
    ]


def _placed(image: Volume, mask: Mask) -> Mask:
    """The mask on exactly the image's grid, as unsigned integers, with a name for every value."""
    volume = mask.volume
    check_place(image, f"mask {mask.name}", volume)
    try:
        array = as_whole_numbers(_one_channel(volume), volume.source or None)
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 65535:
            raise LabelError(f"label values must be in 0..65535, found {low} to {high}")
    except LabelError as error:
        raise LabelError(f"{error.message} ({mask.name})", path=volume.source or None) from error
    array, labels = _named(
        array.astype(np.uint16 if high > 255 else np.uint8, copy=False), mask.labels
    )
    return replace(
        mask, volume=Volume(array, image.grid, "label", volume.source, volume.meta), labels=labels
    )


def _one_channel(volume: Volume) -> NDArray[Any]:
    """(I, J, K) of a mask; a colour picture whose channels are equal counts as one channel."""
    channels = volume.channels_array
    if not all(np.array_equal(channels[0], other) for other in channels[1:3]):
        raise LabelError(f"a mask must have one channel, found {len(channels)} different channels")
    first: NDArray[Any] = channels[0]
    return first


def _named(array: NDArray[Any], labels: LabelSet) -> tuple[NDArray[Any], LabelSet]:
    """The mask, and labels that name all its values.

    If mask and ``labels`` have only one value each, they mean the same structure, whatever the
    values are (for example in a 0/255 picture).
    """
    found = [v for v in unique_values(array) if v]
    unknown = [v for v in found if v not in labels.values]
    if len(labels) == 1 and len(found) == 1 and unknown:
        return np.where(array != 0, labels.values[0], 0).astype(labels.dtype), labels
    more = [
        Label(v, "ignored", GREY)
        if v == IGNORED
        else Label(v, f"value {v}", default_colour(len(labels) + n))
        for n, v in enumerate(unknown)
        if f"value {v}" not in labels.names
    ]
    return array, LabelSet((*labels.labels, *more))


def _alike(masks: list[Mask]) -> tuple[Mask, ...]:
    """Give the masks one common structure if each has a single value without a name.

    Masks with the values 0/1, 0/63 and 0/255 then count as masks of the same structure.
    """
    if not all(
        len(mask.labels) == 1 and mask.labels.names == [f"value {mask.labels.values[0]}"]
        for mask in masks
    ):
        return tuple(masks)
    return tuple(
        replace(mask, labels=LabelSet((replace(mask.labels.labels[0], name=ONLY),)))
        for mask in masks
    )


def _mask(mask: Mask) -> dict[str, Any]:
    """Name and structures of a mask, with voxel counts, volumes and Dice.

    The volume is None if the voxel size is unknown.
    """
    counts = np.bincount(mask.volume.array.ravel(order="K"), minlength=1)
    measured, voxel_ml = mask.volume.meta.get("spacing_known", True), mask.volume.grid.voxel_ml
    shown, rows = shown_values(mask.labels), []
    for label in mask.labels:
        voxels = int(counts[label.value]) if label.value < len(counts) else 0
        dice = mask.dice.get(label.name)
        rows.append(
            {
                "value": label.value,
                "index": shown[label.value],
                "name": label.name,
                "colour": list(on_dark(label.colour)),
                "voxels": voxels,
                "ml": round(voxels * voxel_ml, 4) if measured else None,
                "dice": dice if dice is not None and math.isfinite(dice) else None,
            }
        )
    return {"name": mask.name, "structures": rows}


# ---- the image ----


def _channel(array: NDArray[Any], unit: str) -> dict[str, Any]:
    """The intensity windows that can be chosen; the page starts with the first."""
    values = intensity.sample(array)
    least, most = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    measured = {
        "{:g}–{:g} %".format(*intensity.SHOWN): intensity.shown_range(values),
        "full range": (least, most if most > least else least + 1),
    }
    windows = {**WINDOWS_HU, **measured} if unit == "HU" else measured
    return {
        "windows": [
            {"name": name, "low": low, "high": high} for name, (low, high) in windows.items()
        ]
    }


def _look(scene: Scene) -> list[float]:
    """The initial crosshair position: the fullest slice of the first mask that is not empty.

    Fractions along R, A and S; the middle if all masks are empty.
    """
    for mask in scene.masks:
        array = mask.volume.reorient("RAS").array
        if array.any():
            fullest = [
                int(np.count_nonzero(array, axis=tuple(a for a in range(3) if a != axis)).argmax())
                for axis in range(3)
            ]
            return [(k + 0.5) / n for k, n in zip(fullest, array.shape, strict=True)]
    return [0.5, 0.5, 0.5]
