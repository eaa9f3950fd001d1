"""Which measures of two masks are taken of every structure, beside the overlaps: distances between
surfaces, and groups that are asked for by name.

    lesions      misses, false alarms, sensitivity, precision, F1 of connected pieces
                 (``lesions.py``)
    centreline   clDice, for what is long and thin (``centreline.py``)
    boundary     IoU near the contour, for what is so large that Dice is always high
                 (``boundary.py``)

They are groups because they cost time and answer questions that most structures do not pose. It
knows no file.
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


def _lesions(prediction: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Measured:
    from .lesions import lesions

    found = lesions(prediction, truth, spacing_mm)
    return {
        "lesion_f1": found.f1,
        "lesion_recall": found.sensitivity,
        "lesion_precision": found.precision,
        "lesion_misses": found.misses,
        "lesion_false_alarms": found.false_alarms,
    }


def _centreline(prediction: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Measured:
    from .centreline import cl_dice

    return {"cl_dice": cl_dice(prediction, truth).dice}


def _boundary(prediction: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Measured:
    from .boundary import boundary_iou

    return {
        f"boundary_iou_{BOUNDARY_MM:g}mm": boundary_iou(
            prediction, truth, spacing_mm, max(BOUNDARY_MM, *spacing_mm[:2])
        )
    }


@dataclass(frozen=True)
class MetricGroup:
    """How a group is measured, and unit and definition of each of its metrics.

    Raises:
        TypeError: ``core.scores`` does not say which way one of them is better.
    """

    measure: Callable[[Mask, Mask, Sequence[float]], Measured]
    metrics: dict[str, tuple[str, str]]

    def __post_init__(self) -> None:
        judged(self.metrics)


GROUPS = {
    "lesions": MetricGroup(
        _lesions,
        {
            "lesion_f1": (
                "",
                "F1 of connected pieces: a true one is found where any of it is covered, a "
                "predicted one is false if it covers none.",
            ),
            "lesion_recall": (
                "",
                "True pieces of which any is covered, over all true pieces. No true piece: "
                "undefined.",
            ),
            "lesion_precision": (
                "",
                "Predicted pieces that cover any of a true one, over all predicted pieces. No "
                "predicted piece: undefined.",
            ),
            "lesion_misses": ("count", "True pieces of which nothing is covered."),
            "lesion_false_alarms": ("count", "Predicted pieces that cover nothing of the truth."),
        },
    ),
    "centreline": MetricGroup(
        _centreline,
        {
            "cl_dice": (
                "",
                "Centreline Dice: how much of each mask's skeleton lies in the other mask (Shit "
                "2021).",
            )
        },
    ),
    "boundary": MetricGroup(
        _boundary,
        {
            f"boundary_iou_{BOUNDARY_MM:g}mm": (
                "",
                f"IoU of what lies within {BOUNDARY_MM:g} mm (or a pixel) of each mask's own "
                "boundary (Cheng 2021).",
            )
        },
    ),
}


@dataclass(frozen=True)
class MetricSelection:
    """What is measured: distances as ``surfaces`` says (None measures none), and the groups named
    in ``also``.
    """

    surfaces: surface.SurfaceSettings | None = None
    also: tuple[str, ...] = ()

    def metrics(self) -> dict[str, tuple[str, str]]:
        """Name -> (unit, definition), in the order in which they are told."""
        found = (
            {}
            if self.surfaces is None
            else {
                name: (unit, words) for name, (unit, words, _) in self.surfaces.measures().items()
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
        """Every measure of every structure: name -> (L,), in the order of ``values``.

        Args:
            prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535.
            spacing_mm: of each axis.

        Raises:
            LabelError: a value is not a whole number, or lies outside 0..65535.
        """
        prediction, truth = whole_numbers(prediction, "prediction"), whole_numbers(truth, "truth")
        found = (
            {}
            if self.surfaces is None
            else surface.measure(prediction, truth, values, spacing_mm, self.surfaces)
        )
        if not self.also:
            return found
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
    """Both masks of each structure, within the block that holds any of them and a voxel more on
    each side.
    """
    box = tuple(
        slice(max(0, b.start - 1), min(n, b.stop + 1))
        for b, n in zip(foreground_box(prediction, truth), truth.shape, strict=True)
    )
    p, t = np.ascontiguousarray(prediction[box]), np.ascontiguousarray(truth[box])
    for value in values:
        yield p == value, t == value
