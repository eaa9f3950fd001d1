"""Scores of every slice of a cohort of volumes: case -> what was counted in its slices, and the
figures that follow.

The slices are those along the axis by which the truth's slices are stacked (``Grid.slice_axis``). A
structure that neither truth nor prediction has in a slice is not defined there: such slices are
counted in ``undefined`` and enter no mean.
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
    "slices along the truth's axis that is at least 10 % coarser than both others, else "
    "along its last axis"
)


@dataclass(frozen=True)
class SliceScores:
    """Case -> the counts of its slices, and the structures."""

    cases: dict[str, SliceCounts]
    labels: LabelSet

    @property
    def slices(self) -> int:
        """How many slices all cases have."""
        return sum(c.slices for c in self.cases.values())

    def values(self, label: str, metric: str) -> Floats:
        """(n,) the metric in every slice of every case where the structure is in truth or
        prediction.
        """
        value = self.labels.named(label).value
        return np.concatenate([c.of([value]).measure(metric) for c in self.cases.values()])

    def mean(self, metric: str) -> float:
        """Mean over structures of each one's mean over slices; NaN where nothing is defined."""
        means = [
            float(v.mean())
            for v in (self.values(name, metric) for name in self.labels.names)
            if len(v)
        ]
        return float(np.mean(means)) if means else float("nan")

    def summary(self) -> list[dict[str, Any]]:
        """As ``Scores.summary``; ``undefined`` are the slices without the structure in truth and
        prediction.
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
        """A row a slice, structure and metric where it is defined; the case is CASE#0012, counted
        from 0.
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
