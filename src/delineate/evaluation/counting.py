"""One case of an evaluation: its pair of masks read once, counted and measured, and its
probabilities judged where they lie beside the prediction.

A top-level function of one case that can run in any process. It knows nothing of other cases: how
masks of one structure are to be read, only the whole cohort's values tell, so every way is counted
and ``evaluate`` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DelineateError, GeometryError
from ..metrics import overlap
from ..metrics.by_slice import SliceCounts, count_slices
from ..metrics.confusion import Confusion, confusion
from ..metrics.overlap import Counts, Floats
from ..metrics.selection import NOTHING, MetricSelection
from .masks import Masks, Reading, digest, read_masks
from .pairing import Pair

if TYPE_CHECKING:
    from ..trust.calibration import Calibration

PROBABILITIES = (
    "probabilities"  # the folder beside predictions that holds them, by the predictions' names
)
MOST_CONFUSED = 1000  # structures of a confusion matrix: eight megabytes a case
# around the true structures, where probabilities are judged: of all the air in a scan everybody is
# sure
NEAR_MM = 20.0


@dataclass(frozen=True)
class CaseCounts:
    """One pair, counted.

    ``foreground`` holds the counts of one structure for each way to read prediction and truth:
    which is right, only the whole cohort's values tell. ``slices`` is None of a 2-D image, which is
    a slice itself. ``measured`` are those of ``metrics.selection`` for ``counts.values``, none
    where the voxel size is unknown.
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
    """Read one pair, count it and measure what is chosen; ``values`` None counts whatever occurs.

    Raises:
        GeometryError: the two do not stand at the same place within 0.1 mm.
        LabelError: values that were not declared.
    """
    try:
        return _count_pair(item, values, chosen)
    except DelineateError as error:
        raise error.of_case(item.case) from error


def _count_pair(item: Pair, values: tuple[int, ...] | None, chosen: MetricSelection) -> CaseCounts:
    masks = read_masks(item, values)
    p, t = masks.arrays
    grid = masks.truth.grid
    known_size = item.spacing_known and masks.truth.meta.get("spacing_known", True)
    voxel_ml = grid.voxel_ml if known_size else float("nan")
    counts, matrix = _counted(p, t, values, voxel_ml)
    predicted, true = (
        [v for v, n in zip(counts.values, counts.tp + wrong, strict=True) if n]
        for wrong in (counts.fp, counts.fn)
    )
    planar, axis = p.shape[2] == 1, 2 if item.stacked else grid.slice_axis

    def measured(a: NDArray[Any], b: NDArray[Any], of: Sequence[int]) -> dict[str, Floats]:
        return chosen.measure(a, b, of, grid.spacing_mm) if known_size else {}

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
        beside = calibrated(item, masks, values)
        return (
            found
            if beside is None
            else replace(
                found, calibration=beside, measured=found.measured | _calibration_rows(beside)
            )
        )
    both = (False, True) if masks.is_picture or item.stacked else (False,)
    as_one = {(a, b): masks.read_as((a, b)).arrays for a in both for b in both}
    return replace(
        found,
        foreground={r: overlap.count(a, b, [1], voxel_ml) for r, (a, b) in as_one.items()},
        foreground_measured={r: measured(a, b, [1]) for r, (a, b) in as_one.items()},
        foreground_slices={}
        if planar
        else {r: count_slices(a, b, axis) for r, (a, b) in as_one.items()},
    )


def _counted(
    p: NDArray[Any], t: NDArray[Any], values: tuple[int, ...] | None, voxel_ml: float
) -> tuple[Counts, Confusion | None]:
    """Both from one compiled pass, where there are not so many structures that their square would
    be a matter of memory.
    """
    if values is None:
        values = tuple(sorted({*overlap.found_values(p), *overlap.found_values(t)}))
    if len(values) > MOST_CONFUSED:
        return overlap.count(p, t, values, voxel_ml), None
    matrix = confusion(p, t, values)
    return matrix.counts(voxel_ml), matrix


def calibrated(item: Pair, masks: Masks, values: tuple[int, ...]) -> Calibration | None:
    """How far the probabilities beside a prediction, ``probabilities/CASE.nii.gz``, agree with the
    truth around its structures; None without them.

    Raises:
        GeometryError: they do not stand on the truth's grid, or are not of these structures.
        InputError: they are no probabilities.
    """
    from ..formats.files import read
    from ..trust.calibration import calibration, near_foreground

    path = Path(item.prediction.path)
    beside = path.parent / PROBABILITIES / path.name
    if item.stacked or not beside.is_file():
        return None
    found, truth = read(beside), masks.truth
    if not found.grid.matches(truth.grid):
        raise GeometryError("the probabilities do not stand on the truth's grid", path=beside)
    return calibration(
        found.channels_array,
        masks.arrays[1],
        values,
        region=near_foreground(masks.arrays[1], truth.grid.spacing_mm, NEAR_MM),
    )


def _calibration_rows(found: Calibration) -> dict[str, Floats]:
    return {
        "ece": np.array([s.ece for s in found.structures]),
        "brier": np.array([s.brier for s in found.structures]),
    }
