"""Which measures are computed for every structure in addition to the overlap: surface distances,
and registered metrics (``extend.METRICS``). Those of the package are

    lesions      lesion-wise sensitivity, precision, F1, misses and false alarms, with connected
                 components as lesions (``lesions.py``)
    centreline   clDice, for tubular structures (``centreline.py``)
    boundary     boundary IoU, for structures so large that Dice is always high (``boundary.py``)

They are optional because they take time and suit only some structures. The module reads no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from ..core.scores import HIGHER, LOWER
from ..extend.parts import Mask, Metric, MetricColumn
from ..extend.registers import METRICS, running
from . import surface
from .overlap import MEASURES, Floats, foreground_box, whole_numbers

BOUNDARY_MM = 2.0

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


METRICS.add(
    "lesions",
    Metric(
        {
            "lesion_f1": MetricColumn(
                "",
                HIGHER,
                "Lesion-wise F1, with connected components (26-connectivity) as lesions: a true "
                "component is detected if any of its voxels is in the prediction; a predicted "
                "component is a false alarm if it has no voxel in the truth. No component in "
                "either: undefined.",
            ),
            "lesion_recall": MetricColumn(
                "",
                HIGHER,
                "Lesion-wise sensitivity: detected true components / all true components. No true "
                "component: undefined.",
            ),
            "lesion_precision": MetricColumn(
                "",
                HIGHER,
                "Lesion-wise precision: predicted components with a voxel in the truth / all "
                "predicted components. No predicted component: undefined.",
            ),
            "lesion_misses": MetricColumn(
                "count", LOWER, "True components without a voxel in the prediction."
            ),
            "lesion_false_alarms": MetricColumn(
                "count", LOWER, "Predicted components without a voxel in the truth."
            ),
        },
        _lesion_measures,
    ),
)
METRICS.add(
    "centreline",
    Metric(
        {
            "cl_dice": MetricColumn(
                "",
                HIGHER,
                "Centreline Dice (clDice): harmonic mean of the shares of each mask's skeleton "
                "inside the other mask (Shit 2021). Both empty: undefined; one empty: 0.",
            )
        },
        _centreline_measures,
    ),
)
METRICS.add(
    "boundary",
    Metric(
        {
            f"boundary_iou_{BOUNDARY_MM:g}mm": MetricColumn(
                "",
                HIGHER,
                "Boundary IoU: IoU of the voxels of each mask within "
                f"{BOUNDARY_MM:g} mm of its own boundary, or within one pixel if that is more "
                "(Cheng 2021). Both empty: undefined; one empty: 0.",
            )
        },
        _boundary_measures,
    ),
)


@dataclass(frozen=True)
class MetricSelection:
    """What is measured in addition to the overlap.

    Args:
        surfaces: the definition of the surface distances; None measures none.
        also: registered metrics by name. The parts themselves are kept, because a process that
            measures may not know the register of the one that started it.

    Raises:
        UsageError: two metrics have a column of the same name.
    """

    surfaces: surface.SurfaceSettings | None = None
    also: Mapping[str, Metric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = [*MEASURES, *(name for metric in self.also.values() for name in metric.columns)]
        if self.surfaces is not None:
            columns += self.surfaces.measures()
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise UsageError(f"two metrics are called {', '.join(twice)}; rename one of them")

    @classmethod
    def of(cls, surfaces: surface.SurfaceSettings | None, also: Sequence[str]) -> MetricSelection:
        """The selection of registered metrics by name.

        Raises:
            PartError: a metric is not registered. UsageError: see the class.
        """
        return cls(surfaces, {name: METRICS[name] for name in also})

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
        for metric in self.also.values():
            found |= {name: (c.unit, c.definition) for name, c in metric.columns.items()}
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
        # Registered metrics measure one structure at a time, as a pair of masks.
        found |= {
            name: np.full(len(values), np.nan)
            for metric in self.also.values()
            for name in metric.columns
        }
        for n, (p, t) in enumerate(_masks(prediction, truth, values)):
            for title, metric in self.also.items():
                with running(METRICS, title):
                    for name, value in metric.measure(p, t, spacing_mm).items():
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
