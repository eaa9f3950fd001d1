"""One case of an evaluation: read its pair of masks once, count and measure it, and compute the
calibration if probabilities are next to the prediction.

``count_pair`` handles one case and can run in any process. It knows no other cases. How masks of
one structure must be read depends on the values of the whole cohort, so every reading is counted
here and ``scoring`` chooses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DelineateError, GeometryError
from ..core.labels import LabelSet
from ..core.volume import Volume
from ..metrics import overlap
from ..metrics.by_slice import SliceCounts, count_slices
from ..metrics.confusion import Confusion, confusion
from ..metrics.overlap import Counts, Floats
from ..metrics.selection import NOTHING, MetricSelection
from ..preprocessing.shear import labels_on
from . import overlapping as each
from .masks import Masks, Reading, digest, read_masks
from .pairing import Pair

if TYPE_CHECKING:
    from ..trust.calibration import Calibration

PROBABILITIES = "probabilities"  # folder next to the predictions; its files have the same names
MOST_CONFUSED = 1000  # largest number of structures of a confusion matrix: 8 MB per case
# Margin around the true structures for the calibration: the air in a scan is predicted with high
# confidence and would hide errors near the structures.
NEAR_MM = 20.0


@dataclass(frozen=True)
class CaseCounts:
    """The counts and measures of one case.

    Args:
        case, patient: their ids; the patient is "" if unknown.
        counts: of all structures.
        predicted, true: the label values that occur on each side.
        foreground: counts of one structure for each reading of prediction and truth; the values of
            the whole cohort decide which reading is correct.
        slices, foreground_slices: counts per slice; None and {} for a 2-D image, which is itself a
            slice.
        measured, foreground_measured: the measures of ``metrics.selection``, for ``counts.values``
            and for each reading; empty if the voxel size is unknown.
        confusion: None if there are more than ``MOST_CONFUSED`` structures.
        calibration: None without probabilities.
        planar: whether the case is a 2-D image.
        truth_sha256: see ``masks.digest``.
        notes: what was assumed while reading.
    """

    case: str
    patient: str
    counts: Counts
    predicted: tuple[int, ...]
    true: tuple[int, ...]
    foreground: dict[Reading, Counts] = field(default_factory=dict)
    slices: SliceCounts | None = None
    foreground_slices: dict[Reading, SliceCounts] = field(default_factory=dict)
    measured: dict[str, Floats] = field(default_factory=dict)
    foreground_measured: dict[Reading, dict[str, Floats]] = field(default_factory=dict)
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    planar: bool = False
    truth_sha256: str = ""
    notes: tuple[str, ...] = ()


def count_pair(
    item: Pair, values: tuple[int, ...] | None, chosen: MetricSelection = NOTHING
) -> CaseCounts:
    """Read one pair, count it and compute the chosen measures.

    Args:
        item: prediction and truth.
        values: the declared label values; None counts every value that occurs.
        chosen: what is measured in addition to the overlap.

    Raises:
        GeometryError: the two grids differ by more than 0.1 mm.
        LabelError: a mask has undeclared values.
    """
    try:
        if item.structures is not None:
            return _count_overlapping(item, item.structures, chosen)
        return _count_pair(item, values, chosen)
    except DelineateError as error:
        raise error.of_case(item.case) from error


def _count_pair(item: Pair, values: tuple[int, ...] | None, chosen: MetricSelection) -> CaseCounts:
    masks = read_masks(item, values)
    p, t = masks.arrays
    grid = masks.truth.grid
    known_size = item.spacing_known and masks.truth.meta.get("spacing_known", True)
    voxel_ml = grid.voxel_ml if known_size else float("nan")
    counts, matrix = _without(masks.ignored, *_counted(p, t, values, voxel_ml))
    # A value occurs on one side if it has true positives or errors of that side.
    predicted, true = (
        [v for v, n in zip(counts.values, counts.tp + wrong, strict=True) if n]
        for wrong in (counts.fp, counts.fn)
    )
    planar, axis = p.shape[2] == 1, 2 if item.stacked else grid.slice_axis
    # Distances need voxels at right angles: both masks of a sheared scan are resampled.
    straight = grid.orthogonal()

    def measured(a: NDArray[Any], b: NDArray[Any], of: Sequence[int]) -> dict[str, Floats]:
        a, b = (labels_on(one, grid, straight) for one in (a, b))
        return chosen.measure(a, b, of, straight.spacing_mm) if known_size else {}

    found = CaseCounts(
        item.case,
        item.patient,
        counts,
        tuple(predicted),
        tuple(true),
        slices=None if planar else count_slices(p, t, axis),
        measured=measured(p, t, counts.values),
        confusion=matrix,
        planar=planar,
        truth_sha256=digest(t),
        notes=masks.notes,
    )
    if values is not None:
        calibration = calibrated(item, masks, values)
        return (
            found
            if calibration is None
            else replace(
                found,
                calibration=calibration,
                measured=found.measured | _calibration_rows(calibration),
            )
        )
    # Nothing declares the structures: also count both masks as one structure. The values of a
    # picture may be the grey levels of a mask with smoothed edges, so it has two readings.
    both = (False, True) if masks.is_picture or item.stacked else (False,)
    as_one = {(a, b): masks.read_as((a, b)).arrays for a in both for b in both}
    return replace(
        found,
        foreground=_foreground(as_one, masks, voxel_ml),
        foreground_measured={r: measured(a, b, [1]) for r, (a, b) in as_one.items()},
        foreground_slices={}
        if planar
        else {r: count_slices(a, b, axis) for r, (a, b) in as_one.items()},
    )


def _foreground(
    as_one: dict[Reading, tuple[NDArray[Any], NDArray[Any]]], masks: Masks, voxel_ml: float
) -> dict[Reading, Counts]:
    """The counts of one structure for each reading of prediction and truth."""
    counted = {r: overlap.count(a, b, [1], voxel_ml) for r, (a, b) in as_one.items()}
    return {r: _without(masks.ignored, one, None)[0] for r, one in counted.items()}


def _count_overlapping(item: Pair, structures: LabelSet, chosen: MetricSelection) -> CaseCounts:
    """The counts and measures of structures that overlap, each by itself."""
    masks = read_masks(item, structures.values)
    p, t = masks.arrays
    grid = masks.truth.grid
    known_size = item.spacing_known and masks.truth.meta.get("spacing_known", True)
    found = each.count(p, t, structures, grid.voxel_ml if known_size else float("nan"))
    counts, _ = _without(masks.ignored, found, None)
    planar, axis = p.shape[2] == 1, 2 if item.stacked else grid.slice_axis
    straight = grid.orthogonal()
    a, b = (labels_on(one, grid, straight) for one in (p, t))
    spacing_mm = straight.spacing_mm
    return CaseCounts(
        item.case,
        item.patient,
        counts,
        tuple(v for v, n in zip(counts.values, counts.tp + counts.fp, strict=True) if n),
        tuple(v for v, n in zip(counts.values, counts.tp + counts.fn, strict=True) if n),
        slices=None if planar else each.slices(p, t, structures, axis),
        measured=each.measure(chosen, a, b, structures, spacing_mm) if known_size else {},
        planar=planar,
        truth_sha256=digest(t),
        notes=masks.notes,
    )


def _counted(
    p: NDArray[Any], t: NDArray[Any], values: tuple[int, ...] | None, voxel_ml: float
) -> tuple[Counts, Confusion | None]:
    """The counts and the confusion matrix from one compiled pass; without the matrix if there are
    so many structures that it would take much memory.
    """
    if values is None:
        values = tuple(sorted({*overlap.found_values(p), *overlap.found_values(t)}))
    if len(values) > MOST_CONFUSED:
        return overlap.count(p, t, values, voxel_ml), None
    matrix = confusion(p, t, values)
    return matrix.counts(voxel_ml), matrix


def _without(
    ignored: NDArray[np.bool_] | None, counts: Counts, matrix: Confusion | None
) -> tuple[Counts, Confusion | None]:
    """Counts and confusion matrix without the ignored voxels, which were counted as background."""
    if ignored is None:
        return counts, matrix
    away = int(np.count_nonzero(ignored))
    if matrix is not None:
        voxels = matrix.voxels.copy()
        voxels[0, 0] -= away
        matrix = replace(matrix, voxels=voxels)
    return replace(counts, scan_voxels=counts.scan_voxels - away), matrix


def files_beside(item: Pair) -> tuple[Path, ...]:
    """The file of the probabilities of a prediction, whether it exists or not; () for a prediction
    in memory.
    """
    if isinstance(item.prediction, Volume):
        return ()
    path = Path(item.prediction.path)
    return (path.parent / PROBABILITIES / path.name,)


def calibrated(item: Pair, masks: Masks, values: tuple[int, ...]) -> Calibration | None:
    """The calibration of the probabilities next to a prediction, ``probabilities/CASE.nii.gz``,
    within ``NEAR_MM`` of the true structures; None without such a file, and for a prediction in
    memory.

    Raises:
        GeometryError: they are not on the truth's grid, or not of these structures.
        InputError: the values are not probabilities.
    """
    from ..formats.files import read
    from ..trust.calibration import calibration, near_foreground

    if not (places := files_beside(item)):
        return None
    (file,) = places
    if item.stacked or item.structures is not None or not file.is_file():
        return None
    found, truth = read(file), masks.truth
    if not found.grid.matches(truth.grid):
        raise GeometryError("the probabilities are not on the truth's grid", path=file)
    region: Any = near_foreground(masks.arrays[1], truth.grid.spacing_mm, NEAR_MM)
    if masks.ignored is not None:
        near = np.zeros(truth.grid.shape, dtype=bool)
        near[region] = True
        region = near & ~masks.ignored
    return calibration(found.channels_array, masks.arrays[1], values, region=region)


def _calibration_rows(found: Calibration) -> dict[str, Floats]:
    """ECE and Brier score as measures of the structures, (L,) each."""
    return {
        "ece": np.array([s.ece for s in found.structures]),
        "brier": np.array([s.brier for s in found.structures]),
    }
