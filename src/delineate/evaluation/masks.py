"""One pair of label maps, read and given common label values: the part that counting and drawing
share.

The grids of prediction and truth must agree within ``Grid.tolerance_mm``. If the task has one
structure and a mask has one other value, the mask is treated as that structure; pictures of 0/255
masks with smoothed edges are thresholded at half. Voxels that the truth ignores are removed from
both masks. Notes report each. The module counts nothing and writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from ..core.grid import Grid
from ..core.labels import IGNORED, LabelMapping, as_whole_numbers, marked
from ..core.manifest import Source
from ..core.volume import Volume
from ..formats.label_files import dicom_labels_in, read_label_file, without_alpha
from ..metrics import overlap
from .overlapping import prediction_codes, truth_codes
from .pairing import Pair

HALF = 128  # half of 255: the threshold for masks with smoothed edges
SOFT_VALUES = 8  # more values than this, up to 255, are grey levels and not labels
# How prediction and truth are read as one structure, each: values of at least ``HALF`` (True) or
# all non-zero values (False).
Reading = tuple[bool, bool]


@dataclass(frozen=True)
class Masks:
    """A pair that was read: two label maps (I, J, K) on one grid.

    Args:
        prediction, truth: the label maps.
        is_picture: whether one of them has no position in a patient, such as a plain 2-D picture.
        notes: what was assumed while reading.
        ignored: (I, J, K) voxels that are not scored, where both maps are 0; None without any.
    """

    prediction: Volume
    truth: Volume
    is_picture: bool
    notes: tuple[str, ...] = ()
    ignored: NDArray[np.bool_] | None = None

    @property
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Prediction and truth, (I, J, K) each."""
        return self.prediction.array, self.truth.array

    def read_as(self, reading: Reading) -> Masks:
        """Both masks as one structure with value 1."""
        p, t = (as_foreground(a, soft) for a, soft in zip(self.arrays, reading, strict=True))
        return Masks(
            self.prediction.with_array(p, "label"),
            self.truth.with_array(t, "label"),
            self.is_picture,
            self.notes,
            self.ignored,
        )


def read_masks(item: Pair, values: Collection[int] | None) -> Masks:
    """Read one pair; ``values`` are the task's label values, None if unknown.

    Raises:
        GeometryError: the grids of the two differ.
        LabelError: a mask has several different channels, or values that are not whole numbers.
        InputError: a file cannot be read.
    """
    prediction, truth = _read(item) if item.structures is None else _read_codes(item)
    same_size = sorted(prediction.grid.shape) == sorted(truth.grid.shape)
    if same_size and _is_placed(prediction) and _is_placed(truth):
        # The same voxels, with axes in another order or direction.
        prediction = prediction.on_grid(truth.grid) or prediction
    _check_grids(prediction, truth)
    p, t = _one_channel(prediction), _one_channel(truth)
    notes = [note for mask in (prediction, truth) for note in mask.meta.get("notes", ())]
    if item.renumber is not None:
        p = _renumbered(p, item.renumber, prediction.source)
    # Ignored voxels belong to no structure on either side.
    marks = (IGNORED,) if item.cohort is not None or item.structures is not None else item.ignore
    ignored = np.isin(t, marks)
    if anywhere := bool(ignored.any()):
        p, t = np.where(ignored, 0, p), np.where(ignored, 0, t)
        notes.append("voxels that the truth ignores were removed from both masks before scoring")
    # With one structure in the task, a mask with another value (255) means that structure. A
    # cohort's truth is exempt, because its label mapping has already been applied.
    if values is not None and len(values) == 1 and item.structures is None:
        only = next(iter(values))
        p = _as_structure(p, only, "prediction", notes)
        t = t if item.cohort is not None else _as_structure(t, only, "truth", notes)
    picture = not (_is_placed(prediction) and _is_placed(truth))
    return Masks(
        prediction.with_array(p),
        truth.with_array(t),
        picture,
        tuple(notes),
        ignored if anywhere else None,
    )


def as_foreground(array: NDArray[Any], soft: bool) -> NDArray[np.uint8]:
    """A mask as one structure with value 1: values of at least ``HALF`` if its edges are soft,
    otherwise all non-zero values.
    """
    return (array >= HALF if soft else array != 0).astype(np.uint8)


def is_soft(values: Collection[int]) -> bool:
    """Whether these are the grey levels of a 0/255 mask with smoothed edges, and not label
    values.
    """
    return len(values) > SOFT_VALUES and max(values) == 255


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of a label map (I, J, K): of its shape and each non-empty slice along K; independent
    of dtype and memory order.
    """
    found = hashlib.sha256(str(array.shape).encode())
    for k in range(array.shape[2]):
        one = array[..., k]
        if one.any():
            found.update(
                k.to_bytes(4, "little") + np.ascontiguousarray(one, dtype=np.uint16).tobytes()
            )
    return found.hexdigest()


def _volume(mask: Source | Volume, grid: Grid | None = None) -> Volume:
    return mask if isinstance(mask, Volume) else read_label_file(mask, grid=grid)


def _read(
    item: Pair, read: Callable[[Source | Volume, Grid | None], Volume] = _volume
) -> tuple[Volume, Volume]:
    """Prediction and truth; a cohort's truth with its label mapping applied.

    DICOM labels are put on the grid of the other mask. A segmentation lacks the slices without a
    voxel, so two of them are put on a grid that holds both.
    """
    if item.cohort is not None:
        from ..cohorts.reading import read_label

        truth = read_label(item.cohort.cases[0], item.cohort)
        return read(item.prediction, truth.grid), truth
    assert item.truth is not None  # a pair has a truth or a cohort
    if not _is_dicom(item.truth):
        truth = read(item.truth, None)
        return read(item.prediction, truth.grid), truth
    prediction = read(item.prediction, None)
    if not _is_dicom(item.prediction):
        return prediction, read(item.truth, prediction.grid)
    return _on_one_grid(prediction, read(item.truth, None))


def _is_dicom(mask: Source | Volume) -> bool:
    """Whether these are labels of a DICOM object whose image is not known."""
    if isinstance(mask, Volume) or mask.like:
        return False
    return dicom_labels_in(Path(mask.path)) is not None


def _on_one_grid(one: Volume, other: Volume) -> tuple[Volume, Volume]:
    """Both volumes on a grid that holds both, if there is one; else as they are."""
    grid = other.grid
    own = one.reorient(grid.codes).grid
    start = np.rint(grid.to_index(own.to_mm((0, 0, 0)))).astype(int)
    stop = np.maximum(start + own.shape, grid.shape)
    whole = grid.crop(np.minimum(start, 0).tolist(), stop.tolist())
    first, second = one.on_grid(whole), other.on_grid(whole)
    return (one, other) if first is None or second is None else (first, second)


def _read_codes(item: Pair) -> tuple[Volume, Volume]:
    """Prediction and truth as codes of structures that overlap; ignored voxels are ``IGNORED``."""
    structures = item.structures
    assert structures is not None

    def codes(mask: Source | Volume, grid: Grid | None = None) -> Volume:
        if not item.ignore or mask is item.prediction:
            return prediction_codes(mask, structures, item.cohort, grid)
        raw = _volume(mask, grid)
        ignored = LabelMapping(ignore=item.ignore).ignored_in(raw.array)
        known = prediction_codes(raw.with_array(np.where(ignored, 0, raw.array)), structures)
        return known.with_array(marked(known.array, ignored), "label")

    prediction, truth = _read(item, codes)
    if item.cohort is not None:
        truth = truth_codes(truth, item.cohort.labels, structures)
    return prediction, truth


def _check_grids(prediction: Volume, truth: Volume) -> None:
    """Refuse grids of different shapes, or more than ``Grid.tolerance_mm`` apart.

    Raises:
        GeometryError: the grids differ.
    """
    if prediction.grid.shape != truth.grid.shape:
        raise GeometryError(
            f"the prediction has {prediction.grid.shape} voxels, the truth {truth.grid.shape}; "
            "the prediction must be on the truth's grid",
            path=prediction.source or None,
        )
    if not (_is_placed(prediction) and _is_placed(truth)):
        return  # plain pictures have no position: only the number of pixels can be compared
    distance = prediction.grid.distance_mm(truth.grid)
    if distance > truth.grid.tolerance_mm:
        raise GeometryError(
            f"the grids of prediction and truth differ by {distance:.2f} mm, allowed are "
            f"{truth.grid.tolerance_mm:g} mm; the prediction must be on the truth's grid",
            path=prediction.source or None,
        )


def _is_placed(volume: Volume) -> bool:
    """Whether the position in the patient is known."""
    return bool(volume.meta.get("place_known", volume.meta.get("spacing_known", True)))


def _one_channel(volume: Volume) -> NDArray[Any]:
    """The mask (I, J, K) as whole numbers, so that every metric counts the same voxels.

    Raises:
        LabelError: several different channels, or values that are not whole numbers; the message
            names the file.
    """
    array = volume.array
    if array.ndim == 4:
        # Pictures store a mask as three equal colour channels, perhaps with transparency.
        array = without_alpha(volume).channels_array
        if any(not np.array_equal(array[0], other) for other in array[1:]):
            raise LabelError(
                f"a mask must have one channel, found {array.shape[0]} different channels",
                path=volume.source or None,
            )
        array = array[0]
    return as_whole_numbers(array, volume.source or None)


def _renumbered(array: NDArray[Any], values: Mapping[int, int], path: str) -> NDArray[Any]:
    """The mask with new values; 0 stays.

    Raises:
        LabelError: it has a value that is not in ``values``.
    """
    present = [value for value in overlap.found_values(array) if value]
    if stray := [value for value in present if value not in values]:
        raise LabelError(
            f"undeclared label values {overlap.listed(stray)}; declared are "
            f"{overlap.listed(sorted(values))}",
            path=path or None,
        )
    out = np.zeros(array.shape, np.uint16)
    for value in present:
        out[array == value] = values[value]
    return out


def _as_structure(array: NDArray[Any], value: int, name: str, notes: list[str]) -> NDArray[Any]:
    """The mask with ``value`` for the task's only structure, if it has one other value or soft
    edges; else unchanged. ``notes`` gets what was assumed.
    """
    found = overlap.found_values(array)
    if is_soft(found):
        notes.append(
            f"the {name} has {len(found)} grey levels up to 255; values of at least {HALF} were "
            f"treated as the only structure (value {value})"
        )
        return np.where(array >= HALF, value, 0).astype(np.uint16)
    if len(found) != 1 or found[0] == value:
        return array
    notes.append(
        f"value {found[0]} of the {name} was treated as the only structure (value {value})"
    )
    return np.where(array != 0, value, 0).astype(np.uint16)
