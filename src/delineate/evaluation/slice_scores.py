"""Scores per slice of a cohort of volumes: the counts of each case's slices, and the measures that
follow.

The slices are those along the axis in which the truth's slices are stacked (``Grid.slice_axis``).
If neither truth nor prediction has a structure in a slice, its measures are not defined there: such
slices are counted in ``undefined`` and are not part of any mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.labels import LabelSet
from ..core.scores import Score, Scores, describe
from ..metrics.by_slice import SliceCounts
from ..metrics.overlap import Floats

METRICS = ("dice", "iou")
AXIS_WORDS = (
    "slices along the truth's axis whose spacing is at least 10 % coarser than that of both "
    "others, else along its last axis"
)


@dataclass(frozen=True)
class SliceScores:
    """The counts of the slices of each case.

    Args:
        cases: case -> counts of its slices.
        labels: the structures.
    """

    cases: dict[str, SliceCounts]
    labels: LabelSet

    @property
    def slices(self) -> int:
        """Number of slices of all cases together."""
        return sum(c.slices for c in self.cases.values())

    def values(self, label: str, metric: str) -> Floats:
        """(n,) the metric in every slice of every case in which the truth or the prediction has
        the structure.
        """
        value = self.labels.named(label).value
        return np.concatenate([c.of([value]).measure(metric) for c in self.cases.values()])

    def mean(self, metric: str) -> float:
        """Mean over structures of each structure's mean over slices; NaN if nothing is defined."""
        means = [
            float(v.mean())
            for v in (self.values(name, metric) for name in self.labels.names)
            if len(v)
        ]
        return float(np.mean(means)) if means else float("nan")

    def summary(self) -> list[dict[str, Any]]:
        """As ``Scores.summary``; ``undefined`` counts the slices in which neither truth nor
        prediction has the structure.
        """
        out = []
        for name in self.labels.names:
            for metric in METRICS:
                values = self.values(name, metric)
                out.append(
                    {
                        "label": name,
                        "metric": metric,
                        "unit": "",
                        **describe(values),
                        "undefined": self.slices - len(values),
                    }
                )
        return out

    def __iter__(self) -> Iterator[Score]:
        """One row per slice, structure and metric, if defined; the case is CASE#0012, with slices
        counted from 0.
        """
        names = {label.value: label.name for label in self.labels}
        for case, counts in self.cases.items():
            counts = counts.of(names)
            columns = zip(
                counts.index.tolist(),
                counts.value.tolist(),
                *(counts.measure(m).tolist() for m in METRICS),
                strict=True,
            )
            for index, value, *measured in columns:
                for metric, number in zip(METRICS, measured, strict=True):
                    yield Score(f"{case}#{index:04d}", names[value], metric, number)

    def to_csv(self) -> str:
        """The text of ``slices.csv``, with the columns of ``scores.csv``."""
        return Scores(tuple(self)).to_csv()
