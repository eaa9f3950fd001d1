"""Which measures are computed for every structure in addition to the overlap: surface distances,
and optional groups.

    lesions      lesion-wise sensitivity, precision, F1, misses and false alarms, with connected
                 components as lesions (``lesions.py``)
    centreline   clDice, for tubular structures (``centreline.py``)
    boundary     boundary IoU, for structures so large that Dice is always high (``boundary.py``)

The groups are optional because they take time and suit only some structures. The module reads no
files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.scores import judged
from . import surface
from .overlap import Floats, foreground_box, whole_numbers

BOUNDARY_MM = 2.0

Mask = NDArray[np.bool_]
Measured = dict[str, float]


def _lesion_measures(prediction: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Measured:
    from .lesions import lesions

    found = lesions(prediction, truth, spacing_mm)
    return {
        "lesion_f1": found.f1,
        "lesion_recall": found.sensitivity,
        "lesion_precision": found.precision,
        "lesion_misses": found.misses,
        "lesion_false_alarms": found.false_alarms,
    }


def _centreline_measures(prediction: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Measured:
    from .centreline import cl_dice

    return {"cl_dice": cl_dice(prediction, truth).dice}


def _boundary_measures(prediction: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Measured:
    from .boundary import boundary_iou

    return {
        f"boundary_iou_{BOUNDARY_MM:g}mm": boundary_iou(
            prediction, truth, spacing_mm, max(BOUNDARY_MM, *spacing_mm[:2])
        )
    }


@dataclass(frozen=True)
class MetricGroup:
    """The function that measures a group, and the unit and definition of each of its metrics.

    Raises:
        TypeError: ``core.scores`` has no direction (higher or lower is better) for a metric.
    """

    measure: Callable[[Mask, Mask, Sequence[float]], Measured]
    metrics: dict[str, tuple[str, str]]

    def __post_init__(self) -> None:
        judged(self.metrics)


GROUPS = {
    "lesions": MetricGroup(
        _lesion_measures,
        {
            "lesion_f1": (
                "",
                "Lesion-wise F1, with connected components (26-connectivity) as lesions: a true "
                "component is detected if any of its voxels is in the prediction; a predicted "
                "component is a false alarm if it has no voxel in the truth. No component in "
                "either: undefined.",
            ),
            "lesion_recall": (
                "",
                "Lesion-wise sensitivity: detected true components / all true components. No true "
                "component: undefined.",
            ),
            "lesion_precision": (
                "",
                "Lesion-wise precision: predicted components with a voxel in the truth / all "
                "predicted components. No predicted component: undefined.",
            ),
            "lesion_misses": ("count", "True components without a voxel in the prediction."),
            "lesion_false_alarms": ("count", "Predicted components without a voxel in the truth."),
        },
    ),
    "centreline": MetricGroup(
        _centreline_measures,
        {
            "cl_dice": (
                "",
                "Centreline Dice (clDice): harmonic mean of the shares of each mask's skeleton "
                "inside the other mask (Shit 2021). Both empty: undefined; one empty: 0.",
            )
        },
    ),
    "boundary": MetricGroup(
        _boundary_measures,
        {
            f"boundary_iou_{BOUNDARY_MM:g}mm": (
                "",
                "Boundary IoU: IoU of the voxels of each mask within "
                f"{BOUNDARY_MM:g} mm of its own boundary, or within one pixel if that is more "
                "(Cheng 2021). Both empty: undefined; one empty: 0.",
            )
        },
    ),
}


@dataclass(frozen=True)
class MetricSelection:
    """What is measured in addition to the overlap.

    Args:
        surfaces: the definition of the surface distances; None measures none.
        also: names of the ``GROUPS`` to measure.
    """

    surfaces: surface.SurfaceSettings | None = None
    also: tuple[str, ...] = ()

    def metrics(self) -> dict[str, tuple[str, str]]:
        """Name -> (unit, definition), in the order in which they are reported."""
        found = (
            {}
            if self.surfaces is None
            else {
                name: (unit, definition)
                for name, (unit, definition, _) in self.surfaces.measures().items()
            }
        )
        for name in self.also:
            found |= GROUPS[name].metrics
        return found

    def measure(
        self,
        prediction: NDArray[Any],
        truth: NDArray[Any],
        values: Sequence[int],
        spacing_mm: Sequence[float],
    ) -> dict[str, Floats]:
        """Every chosen measure of every structure: name -> (L,), in the order of ``values``.

        Args:
            prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535.
            values: the structures' label values.
            spacing_mm: voxel size along each axis.

        Raises:
            LabelError: a value is not a whole number or is outside 0..65535.
        """
        prediction, truth = whole_numbers(prediction, "prediction"), whole_numbers(truth, "truth")
        found = (
            {}
            if self.surfaces is None
            else surface.measure(prediction, truth, values, spacing_mm, self.surfaces)
        )
        if not self.also:
            return found
        # The groups measure one structure at a time, as a pair of masks.
        found |= {
            name: np.full(len(values), np.nan)
            for group in self.also
            for name in GROUPS[group].metrics
        }
        for n, (p, t) in enumerate(_masks(prediction, truth, values)):
            for group in self.also:
                for name, value in GROUPS[group].measure(p, t, spacing_mm).items():
                    found[name][n] = value
        return found


NOTHING = MetricSelection()


def _masks(
    prediction: NDArray[Any], truth: NDArray[Any], values: Sequence[int]
) -> Iterator[tuple[Mask, Mask]]:
    """The two masks of each structure, cropped to the bounding box of all foreground and one voxel
    more on each side.
    """
    box = tuple(
        slice(max(0, b.start - 1), min(n, b.stop + 1))
        for b, n in zip(foreground_box(prediction, truth), truth.shape, strict=True)
    )
    p, t = np.ascontiguousarray(prediction[box]), np.ascontiguousarray(truth[box])
    for value in values:
        yield p == value, t == value
