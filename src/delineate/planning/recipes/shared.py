"""What the recipes share: the parts of a plan that follow from the cohort, and the choice of
structures by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ...cohorts.discovery.structures import StructureSelection
from ...core.errors import PlanError
from ...core.manifest import Manifest
from ...core.plan import Channel, Network, Normalisation, Structure
from ..fingerprint import Fingerprint
from ..rules import Triple

_TUMOURS = ("cancer", "tumour", "tumor", "lesion")


def structures(manifest: Manifest) -> tuple[Structure, ...]:
    """The cohort's structures as a plan holds them."""
    return tuple(Structure(**d) for d in manifest.labels.to_json())


def channels(manifest: Manifest, rule: Normalisation) -> tuple[Channel, ...]:
    """Every channel by the same rule."""
    return tuple(Channel(name=name, normalise=rule) for name in manifest.channels)


def same_in_all(dims: int, stages: int, size: int) -> tuple[Triple, ...]:
    """``stages`` kernels or strides of ``size`` along every axis that a network of ``dims``
    sees.
    """
    return ((size, size, 1 if dims == 2 else size),) * stages


def unet(
    dims: Literal[2, 3], manifest: Manifest, widths: Sequence[int], **changes: object
) -> Network:
    """A classic U-Net: kernels of 3, halving at every stage, max pooling, batch norm, ReLU, one
    output.
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


def patch_over(
    found: Fingerprint,
    plan_like: Sequence[float | None],
    most: Triple,
    divisor: Triple,
    *,
    cropped: bool,
) -> Triple:
    """A patch that holds the largest case at the plan's spacing where ``most`` allows it; divisible
    by ``divisor``; ``most`` 1 stays 1.

    Args:
        plan_like: the plan's spacing along R, A, S; None keeps each case's own.
        cropped: whether the plan cuts cases to their bodies.
    """
    sizes = []
    for case in found.cases:
        shape = case.body_shape if cropped else case.shape
        sizes.append(
            [
                n * own / (own if wanted is None else wanted)
                for n, own, wanted in zip(shape, case.spacing_mm, plan_like, strict=True)
            ]
        )
    # The crop keeps two voxels on each side.
    largest = np.max(sizes, axis=0) + (4 if cropped else 0)
    a, b, c = (
        m if m == 1 else min(m, int(np.ceil(n / d)) * d)
        for n, m, d in zip(largest, most, divisor, strict=True)
    )
    return a, b, c


def class_counts(found: Fingerprint, manifest: Manifest, *, cropped: bool) -> list[int]:
    """Voxels of each class over the cohort, background first; with ``cropped`` only the background
    inside the bodies.
    """
    inside = [found.voxels(value) for value in manifest.labels.values]
    total = sum(int(np.prod(c.body_shape if cropped else c.shape)) for c in found.cases)
    return [max(1, total - sum(inside)), *inside]


def epoch_steps(found: Fingerprint, manifest: Manifest, batch: int, slices: bool = False) -> int:
    """Steps in which every case, or every slice (by the mean of the examined cases' sides along S),
    is drawn about once.
    """
    each = float(np.mean([c.shape[2] for c in found.cases])) if slices else 1.0
    return max(1, round(each * len(manifest.with_truth()) / batch))


def mirror_axes(manifest: Manifest, orientation: str) -> tuple[int, ...]:
    """The left-right axis, where a flip keeps every structure's meaning."""
    if manifest.labels.is_sided and not manifest.labels.can_mirror_sides:
        return ()
    return (next(axis for axis, letter in enumerate(orientation) if letter in "LR"),)


def refuse_other_than_ct(found: Fingerprint, recipe: str) -> None:
    """Raises PlanError where the scans are not CT: a window in HU means nothing elsewhere."""
    if not found.is_ct:
        modalities = sorted({c.modality for c in found.cases if c.modality})
        shown = (
            f"found {', '.join(modalities)}"
            if modalities
            else "these intensities are no Hounsfield units"
        )
        raise PlanError(
            f"{recipe} is for CT, whose window is in HU; {shown}; `delineate train` without a "
            "recipe plans for any modality"
        )


def only_liver(manifest: Manifest, has_choice: bool) -> Manifest:
    """The liver with its tumours as the one structure; a cohort that names no liver, or nothing
    else, or whose structures were chosen, stays.
    """
    names = [n for n in manifest.labels.names if "liver" in n.lower() or n.lower() in _TUMOURS]
    if not any("liver" in n.lower() for n in names) or len(manifest.labels) == 1 or has_choice:
        return manifest
    return with_choice(manifest, StructureSelection({"liver": tuple(names)}))


def with_choice(manifest: Manifest, choice: StructureSelection) -> Manifest:
    """The manifest with the chosen structures."""
    labels, mapping = choice.apply(manifest.labels, manifest.mapping)
    return replace(manifest, labels=labels, mapping=mapping)
