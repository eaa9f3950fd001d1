"""Where the images of a series are along the axis of its slices, to find objects with labels whose
positions and references contradict each other.

Positions in patient space count: that of a contour is its ContourData (PS3.3 C.8.8.6), that of a
frame its ImagePositionPatient (C.7.6.16.2.3). The image that one of them names is a help to find
it, and may be another one; this module measures by how much, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.grid import Grid
from .geometry import LPS_TO_RAS
from .header.file import Plane
from .header.marks import items_in, numbers, text

SAME_SLICE = 0.5 + 1e-3  # gaps: what is at most so far from a slice is in it

Named = tuple[str, tuple[int, ...]]  # SOPInstanceUID, and the numbers of frames from 1; () for all


@dataclass(frozen=True)
class Places:
    """SOPInstanceUID -> number of each frame (from 1; 0 of a single image), and its heights: the
    third index in a grid. An image of a mosaic has several.
    """

    heights: Mapping[str, Mapping[int, Sequence[float]]]

    @classmethod
    def of(cls, grid: Grid, planes: Iterable[Plane]) -> Places:
        """Of the planes of a series that have a position; none of those between them that were
        interpolated.
        """
        found: dict[str, dict[int, list[float]]] = {}
        for one in planes:
            if one.position and not one.interpolated:
                height = grid.to_index(np.asarray(one.position) @ LPS_TO_RAS[:3, :3])[2]
                frame = 0 if one.frame is None else one.frame + 1
                found.setdefault(one.instance, {}).setdefault(frame, []).append(float(height))
        return cls(found)

    def knows(self, named: Iterable[Named]) -> bool:
        """Whether one of the images is of the series."""
        return any(instance in self.heights for instance, _ in named)

    def away(self, named: Iterable[Named], height: float) -> float:
        """The distance in gaps between a height and the nearest image that is named; 0 if it is in
        the slice of one of them, or if none of them is known.
        """
        heights = [
            known
            for instance, wanted in named
            for frame, own in self.heights.get(instance, {}).items()
            if frame in wanted or not (frame and wanted)
            for known in own
        ]
        nearest = min((abs(height - known) for known in heights), default=0.0)
        return nearest if nearest > SAME_SLICE else 0.0


def named_in(dataset: Any, *sequences: str) -> tuple[Named, ...]:
    """The images that the items of sequences in each other name (PS3.3 table 10-3), without those
    that are no sources of the same place (C.7.6.16.2.6).
    """
    return tuple(
        (
            text(one, "ReferencedSOPInstanceUID"),
            tuple(map(int, numbers(one, "ReferencedFrameNumber"))),
        )
        for one in items_in(dataset, *sequences)
        if text(one, "SpatialLocationsPreserved") in ("", "YES")
    )
