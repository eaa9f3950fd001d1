"""Series with uneven gaps or missing slices, made even on request.

Without a request they are refused: an even grid would put slices where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError, UsageError
from .geometry import grid_of, layout, tolerance_mm
from .header.file import Plane, Series

FIXES = ("run", "fill", "split")


def fixed(series: Series, how: str) -> list[Series]:
    """The even volumes of a series that is refused for its gaps; any other stays as it is.

    Args:
        series: as found.
        how: "run" keeps the largest even run of slices; "split" gives a volume for each run; "fill"
            interpolates the missing slices of a regular grid; "" changes nothing.

    Returns:
        The series with another ``problem`` if no even volume can be made of it in this way.

    Raises:
        UsageError: another word for ``how``.
    """
    if how not in ("", *FIXES):
        raise UsageError(f"series with uneven gaps are fixed by {', '.join(FIXES)}, found {how}")
    if not how or series.problem or not all(one.position for one in series.planes):
        return [series]
    try:
        layout(series)
    except GeometryError:
        pass
    except FormatError:
        return [series]
    else:
        return [series]
    try:
        return _made_even(series, how)
    except GeometryError as error:
        return [replace(series, problem=error.message)]


def _made_even(series: Series, how: str) -> list[Series]:
    ordered, heights = _along_normal(series.planes)
    runs = _runs(heights)
    if len(runs) < 2:
        return [series]
    if how == "fill":
        planes, missing = _filled(ordered, heights, runs)
        places = ", ".join(f"{place:.2f}" for place in missing)
        note = f"fixed by fill: the slices at {places} mm along the normal are interpolated"
        return [_checked(series, planes, series.part, note)]
    kept = [max(runs, key=len)] if how == "run" else runs
    out = []
    for n, run in enumerate(kept, start=1):
        note = f"fixed by {how}: {len(run)} of {len(ordered)} slices, an even run"
        word = f"run{n}" if how == "split" else ""
        part = "_".join(one for one in (series.part, word) if one)
        out.append(_checked(series, [ordered[k] for k in run], part, note))
    return out


def _checked(series: Series, planes: Sequence[Plane], part: str, note: str) -> Series:
    grid_of(planes)
    files = tuple(dict.fromkeys(one.path for one in planes))
    notes = (note, *series.notes)
    return replace(series, planes=tuple(planes), files=files, part=part, notes=notes, fixed=note)


def _along_normal(planes: Sequence[Plane]) -> tuple[list[Plane], NDArray[np.float64]]:
    """The planes in the order of their positions along the normal, and these in mm."""
    orientation = planes[0].orientation
    heights = np.array([one.position for one in planes]) @ np.cross(
        orientation[:3], orientation[3:]
    )
    order = np.argsort(heights, kind="stable")
    return [planes[n] for n in order], heights[order]


def _runs(heights: NDArray[np.float64]) -> list[list[int]]:
    """The slices of each even run; one between two runs belongs to the longer."""
    gaps = np.diff(heights)
    spans: list[list[int]] = []
    for n, gap in enumerate(gaps):
        if spans and abs(gap - gaps[spans[-1][0]]) <= tolerance_mm(float(gap)):
            spans[-1].append(n)
        else:
            spans.append([n])
    left = set(range(len(heights)))
    runs = []
    for span in sorted(spans, key=lambda one: (-len(one), gaps[one[0]])):
        run = [n for n in range(span[0], span[-1] + 2) if n in left]
        left -= set(run)
        runs += [run] if run else []
    return sorted(runs)


def _filled(
    ordered: Sequence[Plane], heights: NDArray[np.float64], runs: Sequence[Sequence[int]]
) -> tuple[list[Plane], list[float]]:
    """The planes with those that are missing, and the positions of these.

    Raises:
        GeometryError: gaps are no multiples of the gap in the largest run.
    """
    longest = max(runs, key=len)
    gap = (heights[longest[-1]] - heights[longest[0]]) / max(len(longest) - 1, 1)
    steps = np.rint(np.diff(heights) / gap) if gap > 0 else np.zeros(len(heights) - 1)
    wrong = np.abs(np.diff(heights) - steps * gap) > tolerance_mm(gap)
    if wrong.any() or (steps < 1).any():
        raise GeometryError(
            f"cannot be filled: its gaps are no multiples of {gap:.2f} mm; use run or split"
        )
    planes, missing = [ordered[0]], []
    for n, count in enumerate(steps.astype(int)):
        start, end = np.array(ordered[n].position), np.array(ordered[n + 1].position)
        for k in range(1, count):
            place = tuple((start + (end - start) * k / count).tolist())
            planes.append(replace(ordered[n], position=place, interpolated=True))
            missing.append(float(heights[n] + k * gap))
        planes.append(ordered[n + 1])
    return planes, missing
