"""Maps of probabilities and of uncertainty as a Parametric Map (PS3.3 A.75), written by highdicom.

Values are stored in 65535 equal steps from 0, with a Real World Value Mapping (PS3.3 C.7.6.16.2.11)
for each map. All maps are in one object, whose frames are on the slices of the series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core import atomic
from ....core.errors import FormatError, OutputError
from ....core.terms import Code
from ....core.volume import Volume
from ..derived import (
    as_measured,
    by_highdicom,
    concept,
    new_series,
    pixel_measures,
    prove,
    source_images,
    with_dates_of,
)
from ..source import SourceSeries, is_flat, on_planes

STEPS = 65535
MAPPINGS = "RealWorldValueMappingSequence"
# Uncompressed pixels have at most 2^32 - 2 bytes (PS3.5 7.1.1); larger maps are compressed.
MOST_BYTES = 2**32 - 2


@dataclass(frozen=True, eq=False)
class ParametricMap:
    """One quantity in every voxel of a scan.

    Args:
        name: such as "liver" or "entropy".
        explanation: such as "Probability of liver".
        stored: (I, J, K) uint16, on the grid of the labels.
        top: the value of the highest step; that of each step is ``top / STEPS`` times its number.
        quantity: its code, if there is one.
    """

    name: str
    explanation: str
    stored: Volume
    top: float
    quantity: Code | None = None

    @classmethod
    def of(
        cls, name: str, explanation: str, values: Volume, top: float, quantity: Code | None = None
    ) -> ParametricMap:
        """A map of values from 0, stored in steps up to ``top``, or to the highest value."""
        top = max(top, float(values.array.max()))
        steps = np.rint(values.array.clip(0) * (STEPS / top)).astype(np.uint16)
        return cls(name, explanation, values.with_array(steps), top, quantity)


def write_pm(
    maps: Sequence[ParametricMap],
    series: SourceSeries,
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_description: str = "Maps",
) -> None:
    """Write all maps as one object, with a frame for each map and slice.

    Args:
        maps: at least one, on the grid of the series, or on that grid flipped and permuted.
        series: that the object refers to.
        path: of the new file.
        algorithm_name, algorithm_version: of the algorithm that made the maps.
        series_description: of the new series.

    Raises:
        GeometryError: a map is not on the grid of the series.
        FormatError: the series lacks attributes that the object must repeat.
        OutputError: there is no map, or the file cannot be written.
    """
    import highdicom as hd
    from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

    if is_flat(series):
        raise FormatError(
            "a parametric map of an image without a place in space is not written; its SEG is",
            path=series.planes[0].path.parent,
        )
    if not maps:
        raise OutputError("there is no map: neither probabilities nor uncertainty", path=path)
    algorithm = algorithm_name, algorithm_version
    planes = [on_planes(one.stored, series).transpose(2, 1, 0) for one in maps]
    frames = np.stack(planes, out=np.empty((len(maps), *planes[0].shape), np.uint16))
    stated = [(one.name, one.explanation, one.top, one.quantity) for one in maps]
    words = "PM", str(stated), str(frames.shape), *algorithm, series_description
    uid, measures = series.uid_with(*words, frames.data), pixel_measures(series)
    with by_highdicom("parametric map", series):
        made: Any = hd.pm.ParametricMap(
            source_images=source_images(series),
            pixel_array=frames.transpose(1, 2, 3, 0),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[[_mapping(n, one)] for n, one in enumerate(maps, start=1)],
            voi_lut_transformations=[
                hd.VOILUTTransformation(window_center=STEPS / 2, window_width=STEPS)
            ],
            transfer_syntax_uid=ExplicitVRLittleEndian
            if frames.nbytes <= MOST_BYTES
            else JPEGLSLossless,
            pixel_measures=measures,
            content_description=series_description[:64],
            **new_series(series, "pm", uid, algorithm, series_description),
        )
    made.Laterality = series.headers[0].get("Laterality", "")
    made = with_dates_of(series.headers[0], as_measured(made, series, measures))
    with atomic.replacing(path) as temporary:
        made.save_as(temporary)
        prove(_equal(temporary, made, frames, series), "values", path)


def _mapping(number: int, one: ParametricMap) -> Any:
    """The mapping of the stored values of a map; its label is unique by its number."""
    import highdicom as hd

    return hd.pm.RealWorldValueMapping(
        lut_label=f"{number} {one.name}"[:16].strip(),
        lut_explanation=one.explanation[:64],
        unit=concept(Code("1", "no units", "UCUM")),
        value_range=(0, STEPS),
        slope=one.top / STEPS,
        intercept=0.0,
        quantity_definition=concept(one.quantity) if one.quantity else None,
    )


def _equal(path: Path, made: Any, frames: NDArray[np.uint16], series: SourceSeries) -> bool:
    """Whether the file has the values (map, plane, rows, columns), each on its plane."""
    from pydicom.pixels.utils import iter_pixels

    places = {one.position: number for number, one in enumerate(series.planes)}
    groups, left = made.PerFrameFunctionalGroupsSequence, frames.shape[0] * frames.shape[1]
    # The mapping of a single map is that of all frames.
    (shared,) = made.SharedFunctionalGroupsSequence
    for group, pixels in zip(groups, iter_pixels(path), strict=True):
        mapping = (group if MAPPINGS in group else shared)[MAPPINGS][0]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        plane = places[tuple(float(v) for v in position)]
        if not np.array_equal(pixels, frames[int(mapping.LUTLabel.split()[0]) - 1, plane]):
            return False
        left -= 1
    return not left
