"""The geometry of a DICOM series: one evenly spaced grid, or a refusal with its reason.

It follows PS3.3 C.7.6.2.1.1: ImagePositionPatient, ImageOrientationPatient and PixelSpacing (row
spacing first) give the position of a pixel. Slices are sorted along the normal of their plane. The
gap is measured between positions; SliceThickness is ignored. Then the corners of every slice must
lie within 0.05 mm (1 % of the gap for gaps above 5 mm) of the grid, or the series is refused:
nothing is interpolated, dropped or guessed. Arrays are (column, row, slice). LPS becomes RAS+ here.

Slices that are stacked at an angle to the normal of their planes (a tilted gantry) give a sheared
grid, exactly as positioned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError, InputError
from ...core.grid import SHEAR_TOLERANCE, Grid
from .header import flat
from .header.file import Plane, Series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SLICE_TOLERANCE_MM = 0.05
MOST_TILT_DEG = 45.0  # gantries tilt up to 30 degrees; beyond this the positions are wrong
ROUNDING_DEG = 0.05  # of a stack; larger angles are reported
SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series


def layout(series: Series) -> tuple[Grid, list[Plane]]:
    """Compute the grid of a series and sort its planes in the order of k. A single image without
    position and orientation has the grid of a picture (``flat``).

    Raises:
        FormatError: localisers, mixed kinds, mosaics without what gives their slices a place, or
            planes that ``group`` found to be no volume.
        GeometryError: missing, mixed, uneven or duplicate positions, or a tilt above
            ``MOST_TILT_DEG``.
    """
    if series.problem:
        raise FormatError(series.problem)
    return grid_of(series.planes)


def at_same_positions(series: Sequence[Series]) -> list[list[Series]]:
    """The volumes of each series and patient that are on one grid, in their order; what cannot be
    read is alone.
    """
    groups: list[list[Series]] = []
    grids: dict[tuple[str, ...], list[tuple[Grid, list[Series]]]] = {}
    for one in series:
        try:
            grid = layout(one)[0]
        except InputError:
            groups.append([one])
            continue
        own = grids.setdefault((one.uid, one.family, one.patient_id), [])
        for other, members in own:
            if other.matches(grid):
                members.append(one)
                break
        else:
            own.append((grid, [one]))
            groups.append(own[-1][1])
    return groups


def grid_of(planes: Sequence[Plane]) -> tuple[Grid, list[Plane]]:
    """``layout`` of any planes."""
    _refuse_kinds(planes)
    if len(planes) == 1 and not planes[0].position and not planes[0].orientation:
        one = planes[0]
        return flat.grid_of(one.columns, one.rows, one.spacing), [one]
    _refuse_mixtures(planes)
    # The direction cosines must be orthonormal.
    first = planes[0]
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if (
        abs(np.linalg.norm(across) - 1) > 1e-3
        or abs(np.linalg.norm(down) - 1) > 1e-3
        or abs(across @ down) > SHEAR_TOLERANCE
    ):
        raise GeometryError(
            f"ImageOrientationPatient {list(first.orientation)} is not two unit vectors at right "
            "angles"
        )
    # Sort by position along the normal: file names and instance numbers prove nothing.
    normal = np.cross(across, down)
    ordered = sorted(planes, key=lambda one: float(np.array(one.position) @ normal))
    step = _step(ordered, normal)
    # Column i is one step along a row, so it uses the column spacing (PixelSpacing[1]).
    affine = np.eye(4)
    affine[:3, :3] = np.stack([across * first.spacing[1], down * first.spacing[0], step], axis=1)
    affine[:3, 3] = ordered[0].position
    # The grid comes from a few headers; now every slice is checked against it.
    _check_corners(ordered, affine)
    shape = (first.columns, first.rows, len(ordered))
    return Grid(shape, LPS_TO_RAS @ affine, allow_shear=True), ordered


def _refuse_kinds(slices: Sequence[Plane]) -> None:
    """Refuse objects of a kind that is not read as a stack of slices."""

    def count(chosen: Sequence[bool]) -> str:
        return "" if all(chosen) else f" ({sum(chosen)} of {len(chosen)} files)"

    reasons = {
        problem: [s.problem == problem for s in slices]
        for problem in dict.fromkeys(s.problem for s in slices if s.problem)
    }
    reasons |= {
        "frames without positions (no plane position in functional groups)": [
            s.frames > 1 and not s.is_flat and (s.frame is None or not s.position) for s in slices
        ],
        f"pixels of {slices[0].samples} samples are not supported": [
            s.samples not in (1, 3) for s in slices
        ],
        "localisers (scout views) cannot be read as a volume": [
            "LOCALIZER" in s.kind for s in slices
        ],
    }
    for why in dict.fromkeys(s.unread for s in slices if s.unread):
        reasons[why] = [s.unread == why for s in slices]
    colour = [s.is_colour for s in slices]
    if not all(colour):
        reasons["mixed: colour images in a series of grey ones"] = colour
    for reason, chosen in reasons.items():
        if any(chosen):
            raise FormatError(reason + count(chosen))


def _refuse_mixtures(slices: Sequence[Plane]) -> None:
    """Refuse slices without geometry, and slices that differ in size, orientation or pixel
    spacing.
    """
    # Every slice needs the three attributes that define its position.
    for name, values in (
        ("ImagePositionPatient", [s.position for s in slices]),
        ("ImageOrientationPatient", [s.orientation for s in slices]),
        ("PixelSpacing", [s.spacing for s in slices]),
    ):
        missing = [s.path.name for s, value in zip(slices, values, strict=True) if not value]
        if missing:
            raise GeometryError(
                f"{name} is missing or unreadable in {len(missing)} of {len(slices)} files "
                f"({missing[0]} ...)"
            )
    # All slices must share one image size, one orientation and one pixel spacing.
    sizes = sorted({(s.columns, s.rows) for s in slices})
    if len(sizes) > 1:
        raise GeometryError(
            f"mixed: slices of {' and '.join(f'{c}x{r}' for c, r in sizes)} pixels in one series"
        )
    for name, table, tolerance in (
        ("orientations", np.array([s.orientation for s in slices]), SAME_DIRECTION),
        ("pixel spacings", np.array([s.spacing for s in slices]), 1e-3),
    ):
        if np.abs(table - table[0]).max() > tolerance:
            kinds = len({tuple(np.round(row, 2)) for row in table})
            raise GeometryError(
                f"mixed: slices with {max(kinds, 2)} different {name} in one series"
            )
    if min(slices[0].spacing) <= 0:
        raise GeometryError(f"PixelSpacing {list(slices[0].spacing)} is not positive")


def _step(ordered: Sequence[Plane], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the vector (3,) in LPS mm from one slice to the next; refuse the series if it is not
    constant.
    """
    # A single slice has no gap; only then is the stated spacing or thickness used.
    if len(ordered) == 1:
        return normal * (ordered[0].thickness if ordered[0].thickness > 0 else 1.0)
    positions = np.array([s.position for s in ordered])
    heights = positions @ normal
    gaps = np.diff(heights)
    _refuse_doubles(ordered, gaps)
    # The median gap is not changed by a few missing slices.
    gap = float(np.median(gaps))
    allowed = tolerance_mm(gap)
    # Two neighbours may each be off by the tolerance, so a gap may differ by twice as much.
    uneven = [n for n, value in enumerate(gaps) if abs(value - gap) > max(2 * allowed, 0.02 * gap)]
    if uneven:
        where = "; ".join(
            f"{gaps[n]:.2f} mm between {ordered[n].path.name} and {ordered[n + 1].path.name}"
            for n in uneven[:3]
        )
        missing = (
            f", {round(gaps[uneven[0]] / gap) - 1} slice(s) missing?"
            if gaps[uneven[0]] > 1.5 * gap
            else ""
        )
        more = " ..." if len(uneven) > 3 else ""
        raise GeometryError(
            f"uneven gaps: {len(uneven)} of {len(gaps)} differ from {gap:.2f} mm: "
            f"{where}{more}{missing}"
        )
    extent = positions[-1] - positions[0]
    # A tiny sideways drift is rounding of positions: the step then follows the normal. A larger one
    # is kept: the gantry was tilted.
    drift = extent - (extent @ normal) * normal
    if np.linalg.norm(drift) <= SLICE_TOLERANCE_MM:
        return np.asarray(normal * (extent @ normal) / (len(ordered) - 1))
    tilt_deg = float(np.degrees(np.arctan2(np.linalg.norm(drift), abs(extent @ normal))))
    if tilt_deg > MOST_TILT_DEG:
        raise GeometryError(
            f"the slices are stacked {tilt_deg:.2f} degrees off the normal of their planes; a "
            f"tilted gantry explains at most {MOST_TILT_DEG:g}"
        )
    return np.asarray(extent / (len(ordered) - 1))


def _refuse_doubles(ordered: Sequence[Plane], gaps: NDArray[np.float64]) -> None:
    """Refuse planes at the same position, which ``group`` could not tell apart."""
    doubled = [n for n, gap in enumerate(gaps) if gap < 1e-4]
    if doubled:
        names = f"{ordered[doubled[0]].path.name} and {ordered[doubled[0] + 1].path.name}"
        raise GeometryError(
            f"duplicate slices: {len(ordered)} slices at {len(ordered) - len(doubled)} positions "
            f"({names} have the same position)"
        )


def tilt_of(grid: Grid) -> tuple[str, ...]:
    """A sentence about the angle of the stack, if it is more than rounding."""
    if grid.shear_deg <= ROUNDING_DEG:
        return ()
    return (f"the slices are stacked {grid.shear_deg:.2f} degrees off the normal of their planes",)


def tolerance_mm(gap_mm: float) -> float:
    """Return the largest allowed distance of a slice from its position on the grid."""
    return max(SLICE_TOLERANCE_MM, 0.01 * gap_mm)


def _check_corners(ordered: Sequence[Plane], affine: NDArray[np.float64]) -> None:
    """Check that the four corners of every slice, from its own header, are where the grid puts
    them.
    """
    allowed = tolerance_mm(float(np.linalg.norm(affine[:3, 2])))
    position = np.array([one.position for one in ordered])
    orientation = np.array([one.orientation for one in ordered])
    spacing = np.array([one.spacing for one in ordered])
    across, down = orientation[:, :3] * spacing[:, 1:], orientation[:, 3:] * spacing[:, :1]
    far_i, far_j = ordered[0].columns - 1, ordered[0].rows - 1
    k = np.arange(len(ordered))[:, None]
    # The position of each corner by the header of its plane, compared with the grid.
    for i, j in ((0, 0), (far_i, 0), (0, far_j), (far_i, far_j)):
        stated = position + i * across + j * down
        expected = affine[:3, 3] + i * affine[:3, 0] + j * affine[:3, 1] + k * affine[:3, 2]
        distances = np.linalg.norm(stated - expected, axis=1)
        worst = int(np.argmax(distances))
        if distances[worst] > allowed:
            raise GeometryError(
                f"uneven positions: {ordered[worst].path.name} is {distances[worst]:.2f} mm from "
                f"its place in an evenly spaced stack (allowed: {allowed:.2f} mm)"
            )
