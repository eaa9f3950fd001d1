"""One pair of label maps, read and brought to the same values: what counting and drawing share.

Prediction and truth must stand at the same place within ``GRID_TOLERANCE_MM``. A mask whose only
value is not that of the task's only structure is taken as that structure, and pictures of 0/255
masks with smoothed edges are cut at half; both are told. It counts nothing and writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from ..core.grid import GRID_TOLERANCE_MM
from ..core.labels import as_whole_numbers
from ..core.volume import Volume
from ..metrics import overlap
from .pairing import Pair

HALF = 128  # of 255: where the smoothed edge of a mask lies
SOFT_VALUES = 8  # more greys than this, up to 255, are no label values
Reading = tuple[
    bool, bool
    # prediction and truth as one structure: each "at least half of 255" (True) or "above zero"
    # (False)
]


@dataclass(frozen=True)
class Masks:
    """A pair, read: two label maps (I, J, K) at one place, and what was assumed on the way.

    ``is_picture``: one of them has no place in a patient, as plain 2-D pictures have none.
    """

    prediction: Volume
    truth: Volume
    is_picture: bool
    notes: tuple[str, ...] = ()

    @property
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Prediction and truth, (I, J, K) each."""
        return self.prediction.array, self.truth.array

    def read_as(self, reading: Reading) -> Masks:
        """Both as one structure of value 1."""
        p, t = (as_foreground(a, soft) for a, soft in zip(self.arrays, reading, strict=True))
        return Masks(
            self.prediction.with_array(p, "label"),
            self.truth.with_array(t, "label"),
            self.is_picture,
            self.notes,
        )


def read_masks(item: Pair, values: Collection[int] | None) -> Masks:
    """Read one pair; ``values`` are the task's, None where they are not known.

    Raises:
        GeometryError: the two do not stand at the same place.
        LabelError: a mask of several channels that differ.
        InputError: a file that cannot be read.
    """
    prediction, truth = _read(item)
    _check_place(prediction, truth)
    p, t = _one_channel(prediction), _one_channel(truth)
    notes: list[str] = []
    if values is not None and len(values) == 1:
        only = next(iter(values))
        p = _as_structure(p, only, "prediction", notes)
        t = t if item.cohort is not None else _as_structure(t, only, "truth", notes)
    picture = not (_is_placed(prediction) and _is_placed(truth))
    return Masks(prediction.with_array(p), truth.with_array(t), picture, tuple(notes))


def as_foreground(array: NDArray[Any], soft: bool) -> NDArray[np.uint8]:
    """A mask as one structure of value 1: values from ``HALF`` where its edges are soft, else
    whatever is not zero.
    """
    return (array >= HALF if soft else array != 0).astype(np.uint8)


def is_soft(values: Collection[int]) -> bool:
    """Whether these are the greys of a 0/255 mask whose edges were smoothed, rather than label
    values.
    """
    return len(values) > SOFT_VALUES and max(values) == 255


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of a label map (I, J, K): its shape, and each slice along K that holds anything; the
    same whatever its dtype and order.
    """
    found = hashlib.sha256(str(array.shape).encode())
    for k in range(array.shape[2]):
        one = array[..., k]
        if one.any():
            found.update(
                k.to_bytes(4, "little") + np.ascontiguousarray(one, dtype=np.uint16).tobytes()
            )
    return found.hexdigest()


def _read(item: Pair) -> tuple[Volume, Volume]:
    from ..formats.files import read

    prediction = read(item.prediction)
    if item.cohort is not None:
        from ..cohorts.reading import read_label

        return prediction, read_label(item.cohort.cases[0], item.cohort)
    assert item.truth is not None  # a pair has a truth or a cohort
    return prediction, read(item.truth)


def _check_place(prediction: Volume, truth: Volume) -> None:
    if prediction.grid.shape != truth.grid.shape:
        raise GeometryError(
            f"the prediction has {prediction.grid.shape} voxels, the truth {truth.grid.shape}",
            path=prediction.source or None,
        )
    if not (_is_placed(prediction) and _is_placed(truth)):
        return  # plain pictures have no place: the number of pixels is all that can be compared
    distance = prediction.grid.distance_mm(truth.grid)
    if distance > GRID_TOLERANCE_MM:
        raise GeometryError(
            f"prediction and truth stand {distance:.2f} mm apart, allowed are "
            f"{GRID_TOLERANCE_MM} mm; "
            "the prediction must be on the truth's grid",
            path=prediction.source or None,
        )


def _is_placed(volume: Volume) -> bool:
    return bool(volume.meta.get("place_known", volume.meta.get("spacing_known", True)))


def _one_channel(volume: Volume) -> NDArray[Any]:
    """The mask (I, J, K) as whole numbers, so that every metric counts the same voxels.

    Raises:
        LabelError: several channels that differ, or values that are no whole numbers; the file is
            named.
    """
    array = volume.array
    if array.ndim == 4:
        if array.shape[0] > 1 and not all(np.array_equal(array[0], c) for c in array[1:3]):
            raise LabelError(
                f"a mask has one channel, found {array.shape[0]} that differ",
                path=volume.source or None,
            )
        array = array[0]
    return as_whole_numbers(array, volume.source or None)


def _as_structure(array: NDArray[Any], value: int, name: str, notes: list[str]) -> NDArray[Any]:
    """A mask whose only value is another one than that of the task's only structure, as that
    structure.
    """
    found = overlap.found_values(array)
    if is_soft(found):
        notes.append(
            f"the {name} has {len(found)} grey values up to 255; values from {HALF} were taken "
            f"as the only structure (value {value})"
        )
        return np.where(array >= HALF, value, 0).astype(np.uint16)
    if len(found) != 1 or found[0] == value:
        return array
    notes.append(f"value {found[0]} of the {name} was taken as the only structure (value {value})")
    return np.where(array != 0, value, 0).astype(np.uint16)
