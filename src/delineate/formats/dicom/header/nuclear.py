"""Multi-frame nuclear medicine: the frames of a reconstruction as planes, and which objects are
projections.

These objects have no functional groups. Vectors give each frame its slice, time slot, energy window
and so on (PS3.3 C.8.4.8); the detector states the place of the first slice (C.8.4.11), and
SpacingBetweenSlices with its sign where the next ones lie along the normal (C.8.4.15). Projections
(static, dynamic, whole-body and tomographic views) have no slice in space: they are 2-D images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....core.errors import FormatError, GeometryError
from .enhanced import Frame
from .marks import Marks, items_in, number, numbers

CLASSES = ("1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.5")  # and the retired one
RECONSTRUCTED = ("RECON TOMO", "RECON GATED TOMO")
SLICES, DETECTORS, SLOTS = "SliceVector", "DetectorVector", "TimeSlotVector"
# What else a vector may count: frames with other values are other volumes.
OTHERS = ("EnergyWindowVector", "PhaseVector", "RotationVector", "RRIntervalVector", DETECTORS)
PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
SAME = 1e-3  # largest difference of numbers that are stated twice


def is_projection(dataset: Any, kind: tuple[str, ...]) -> bool:
    """Whether an object of these classes with the ImageType ``kind`` is no reconstruction."""
    return not _is_reconstruction(dataset, kind) and len(kind) > 2


def frames_of(dataset: Any, kind: tuple[str, ...], marks: Marks, count: int) -> list[Frame]:
    """The frames of a reconstruction with more than one; [] of any other object.

    Args:
        dataset: the header.
        kind: ImageType.
        marks: what it states for all its frames.
        count: NumberOfFrames.

    Raises:
        FormatError: a vector has another number of values than frames.
        GeometryError: the place of the slices is not stated, or twice and differently.
    """
    if count <= 1 or not _is_reconstruction(dataset, kind):
        return []
    slices = _vector(dataset, SLICES, count)
    if not slices and any(_vector(dataset, name, count) for name in (SLOTS, *OTHERS)):
        raise FormatError(f"{count} frames without {SLICES}, which numbers their slices")
    slots = _vector(dataset, SLOTS, count)
    others = [values for name in OTHERS if (values := _vector(dataset, name, count))]
    detectors = _vector(dataset, DETECTORS, count) or [1] * count
    places = {n: _place(dataset, n) for n in dict.fromkeys(detectors)}
    spacing = number(dataset, "SpacingBetweenSlices")
    if not spacing:
        raise GeometryError(
            f"{count} frames of a reconstruction without SpacingBetweenSlices, which places them"
        )
    found = []
    for n in range(count):
        position, orientation = places[detectors[n]]
        normal = np.cross(orientation[:3], orientation[3:])
        steps = (slices[n] if slices else n + 1) - 1
        own: dict[str, Any] = {
            "temporal": slots[n] if slots else marks.temporal,
            "dimensions": tuple(values[n] for values in others),
            "number": n,
        }
        found.append(
            Frame(
                kind=(),
                position=tuple((np.array(position) + normal * spacing * steps).tolist()),
                orientation=orientation,
                spacing=(),
                between=abs(spacing),
                thick=0.0,
                slope=None,
                intercept=0.0,
                units="",
                is_mosaic=False,
                marks=replace(marks, **own),
            )
        )
    return found


def _is_reconstruction(dataset: Any, kind: tuple[str, ...]) -> bool:
    return any(word in RECONSTRUCTED for word in kind[2:]) or bool(numbers(dataset, SLICES))


def _vector(dataset: Any, name: str, count: int) -> list[int]:
    """The values of a vector, one for each frame; [] if it is not there.

    Raises:
        FormatError: it has another number of values.
    """
    values = [int(one) for one in numbers(dataset, name)]
    if values and len(values) != count:
        raise FormatError(f"{count} frames, but {name} has {len(values)} values")
    return values


def _place(dataset: Any, detector: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Position and orientation of the first slice: those of the object and of its detector, which
    must be equal if both state them.

    Raises:
        GeometryError: neither states them, or they differ.
    """
    detectors: Sequence[Any] = list(items_in(dataset, "DetectorInformationSequence"))
    found = []
    for name, length in zip(PLACE, (3, 6), strict=True):
        own = detectors[detector - 1 : detector] if detector > 0 else []
        stated = [numbers(one, name) for one in (dataset, *own)]
        stated = [one for one in stated if len(one) == length]
        if not stated:
            raise GeometryError(f"{name} is missing in the detector and in the object")
        if np.abs(np.subtract(stated[0], stated[-1])).max() > SAME:
            raise GeometryError(f"the detector has one {name}, and the object another")
        found.append(stated[0])
    return found[0], found[1]
