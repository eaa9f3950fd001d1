"""Parts that several recipes share: the fields of a plan that follow from the cohort, and the
selection of structures by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ...cohorts.discovery.structures import StructureSelection
from ...core.errors import PlanError
from ...core.manifest import Manifest
from ...core.plan import Channel, Network, Normalisation, Schedule, Structure
from ...core.terms import names_structure
from ..capacity import Triple
from ..fingerprint import Fingerprint

_TUMOURS = ("cancer", "tumour", "tumor", "lesion")


def structures(manifest: Manifest) -> tuple[Structure, ...]:
    """The structures of the cohort in the form of a plan."""
    return tuple(Structure(**d) for d in manifest.labels.to_json())


def channels(manifest: Manifest, rule: Normalisation) -> tuple[Channel, ...]:
    """All channels, with the same normalisation."""
    units = zip(manifest.channels, manifest.units, strict=True)
    return tuple(Channel(name=name, unit=unit, normalise=rule) for name, unit in units)


def same_in_all(dims: int, stages: int, size: int) -> tuple[Triple, ...]:
    """``stages`` equal kernels or strides of ``size``; 1 along the slice axis of a 2-D network."""
    return ((size, size, 1 if dims == 2 else size),) * stages


def unet(
    dims: Literal[2, 3], manifest: Manifest, widths: Sequence[int], **changes: object
) -> Network:
    """A classic U-Net: kernels of 3, resolution halved at every stage, max pooling, batch norm,
    ReLU, one output; ``changes`` replace fields of the network.
    """
    given: dict[str, object] = {
        "dims": dims,
        "channels": len(manifest.channels),
        "classes": len(manifest.labels) + 1,
        "widths": tuple(widths),
        "strides": same_in_all(dims, len(widths) - 1, 2),
        "kernels": same_in_all(dims, len(widths), 3),
        "down": "pool",
        "norm": "batch",
        "activation": "relu",
        "deep_supervision": False,
    }
    return Network.model_validate(given | changes)


def schedule(
    found: Fingerprint, manifest: Manifest, batch: int, *, slices: bool = False, **changes: object
) -> Schedule:
    """The schedule of the originals: constant learning rate without warm-up, no weight averaging,
    validation after every epoch; ``changes`` replace fields of the schedule. An epoch has
    ``epoch_steps`` steps.
    """
    given: dict[str, object] = {
        "kind": "constant",
        "steps_per_epoch": epoch_steps(found, manifest, batch, slices),
        "warmup": 0,
        "ema": 0,
        "validate_every": 1,
    }
    return Schedule.model_validate(given | changes)


def patch_over(
    found: Fingerprint,
    plan_like: Sequence[float | None],
    most: Triple,
    divisor: Triple,
    *,
    cropped: bool,
) -> Triple:
    """A patch that holds the largest case at the spacing of the plan, up to ``most``; divisible by
    ``divisor``. An axis with ``most`` 1 stays 1.

    Args:
        plan_like: the spacing of the plan along R, A, S; None: the spacing of each case.
        cropped: whether the plan crops cases to their bodies.
    """
    # The size of each case in voxels of the plan's spacing.
    sizes = []
    for case in found.cases:
        shape = case.body_shape if cropped else case.shape
        sizes.append(
            [
                n * own / (own if target is None else target)
                for n, own, target in zip(shape, case.spacing_mm, plan_like, strict=True)
            ]
        )
    # The crop keeps a margin of two voxels on each side.
    largest = np.max(sizes, axis=0) + (4 if cropped else 0)
    a, b, c = (
        m if m == 1 else min(m, int(np.ceil(n / d)) * d)
        for n, m, d in zip(largest, most, divisor, strict=True)
    )
    return a, b, c


def slice_over(
    found: Fingerprint, spacing_mm: Sequence[float | None], most: int, network: Network
) -> Triple:
    """The patch of a 2-D network that holds the largest uncropped axial slice, up to ``most`` per
    axis.
    """
    divisor = (network.divisor[0], network.divisor[1], 1)
    return patch_over(found, spacing_mm, (most, most, 1), divisor, cropped=False)


def class_counts(found: Fingerprint, manifest: Manifest, *, cropped: bool) -> list[int]:
    """Voxels of each class over the cohort, background first; with ``cropped`` only background
    inside the bodies is counted.
    """
    # The remaining voxels are background; at least 1, even if the labels fill the boxes.
    inside = [found.voxels(value) for value in manifest.labels.values]
    total = sum(int(np.prod(c.body_shape if cropped else c.shape)) for c in found.cases)
    return [max(1, total - sum(inside)), *inside]


def epoch_steps(found: Fingerprint, manifest: Manifest, batch: int, slices: bool = False) -> int:
    """Steps in which every case is drawn about once; with ``slices`` every slice, whose number per
    case is estimated by the mean size along S of the examined cases.
    """
    each = float(np.mean([c.shape[2] for c in found.cases])) if slices else 1.0
    return max(1, round(each * len(manifest.with_truth()) / batch))


def mirror_axes(manifest: Manifest, orientation: str) -> tuple[int, ...]:
    """The left-right axis if it may be flipped: no structure has a side, or all sides can be
    swapped.
    """
    # A flipped left structure without a right counterpart would have a wrong label.
    if manifest.labels.is_sided and not manifest.labels.can_mirror_sides:
        return ()
    return (next(axis for axis, letter in enumerate(orientation) if letter in "LR"),)


def ct_window(
    found: Fingerprint, recipe: str, window_hu: tuple[float, float]
) -> tuple[float, float, str]:
    """The window of a recipe for CT and its unit: ``window_hu`` in "HU"; 0 to 255 for scans that
    name no modality and were converted to 8 bits ("of 255").

    Raises:
        PlanError: the scans are not CT: a window in HU has no meaning for other modalities.
    """
    modalities = sorted({c.modality for c in found.cases if c.modality})
    if found.is_ct:
        return *window_hu, "HU"
    if not modalities and found.is_8_bit:
        return 0.0, 255.0, "of 255"
    shown = (
        f"found {', '.join(modalities)}"
        if modalities
        else "these intensities are neither Hounsfield units nor 8-bit"
    )
    raise PlanError(
        f"{recipe} needs CT, because its intensity window is in HU; {shown}; `delineate train` "
        "without a recipe plans for any modality"
    )


def only_liver(manifest: Manifest, has_choice: bool) -> Manifest:
    """The liver including its tumours as the only structure. A single structure without a name is
    the liver, because the recipe segments nothing else. The cohort is unchanged if no structure is
    named liver, if it has one structure with a name, or if the user chose structures.
    """
    if len(manifest.labels) == 1 and not has_choice:
        (name,) = manifest.labels.names
        if not names_structure(name):
            return with_choice(manifest, StructureSelection({"liver": (name,)}))
    names = [n for n in manifest.labels.names if "liver" in n.lower() or n.lower() in _TUMOURS]
    if not any("liver" in n.lower() for n in names) or len(manifest.labels) == 1 or has_choice:
        return manifest
    return with_choice(manifest, StructureSelection({"liver": tuple(names)}))


def with_choice(manifest: Manifest, choice: StructureSelection) -> Manifest:
    """The manifest with the chosen structures."""
    labels, mapping = choice.apply(manifest.labels, manifest.mapping)
    return replace(manifest, labels=labels, mapping=mapping)
