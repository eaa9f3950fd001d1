"""The grid of the frames of a Segmentation object: evenly spaced planes, of which any may be
missing.

Frames without a voxel are often left out, so neighbouring frames may be several planes apart. The
gap between planes is SpacingBetweenSlices if all distances are multiples of it, else the gap of the
image if it is known and has the same pixels, else the largest gap that fits; SliceThickness is
ignored unless there is only one plane.
As in ``dicom.geometry``, the corners of every frame must then be where the grid puts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....core.errors import GeometryError
from ....core.grid import SHEAR_TOLERANCE, Grid
from ...raster import grid_of
from ..geometry import LPS_TO_RAS, SAME_DIRECTION, tolerance_mm
from ..places import Places
from .header import SegHeader

SAME_PLANE_MM, SAME_SHARE = 0.01, 0.1  # and of the gap that is stated, if that is less
MOST_MISSING = 10  # planes between two frames, if nothing states the gap
PARALLEL = 1 - 1e-4  # cosine between the normals of the frames and of the image's planes
SAME_SIZE = 1e-3  # largest relative difference between pixels of the image and of the frames


def planes(header: SegHeader, like: Grid | None = None) -> tuple[Grid, NDArray[np.intp]]:
    """The grid of the frames, and the plane k of each frame (N,).

    Args:
        like: the grid of the image.

    Raises:
        GeometryError: frames without position, orientation or spacing, or in planes that are not
            parallel and evenly spaced.
    """
    if header.is_flat:
        return _flat(header, like), np.zeros(header.frames, np.intp)
    _refuse_mixtures(header)
    across, down = header.orientations[0].reshape(2, 3)
    normal = np.cross(across, down)
    heights = header.positions @ normal
    order = np.argsort(heights, kind="stable")
    # Frames of several segments are in one plane; their positions may differ by rounding.
    steps = np.diff(heights[order])
    same = _same_plane_mm(header)
    starts = np.concatenate([[True], steps > same])
    gaps = np.diff(heights[order][starts])
    plane = np.empty(header.frames, np.intp)
    plane[order] = np.cumsum(starts) - 1
    counts = _multiples(gaps, _candidates(gaps, header, normal, like))
    k = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)[plane]
    # One step along k: the mean over all planes, which also holds a tilt.
    first, last = header.positions[order[0]], header.positions[order[-1]]
    if len(gaps):
        step = (last - first) / k.max()
        along = normal * (step @ normal)
        # A tiny sideways drift is rounding of positions.
        if np.linalg.norm(step - along) * k.max() <= tolerance_mm(0):
            step = along
    else:
        gaps_mm = (header.gap_mm, _gap_of_image(header, normal, like), header.thickness_mm, 1.0)
        step = normal * next(gap for gap in gaps_mm if gap > 0)
    affine = np.eye(4)
    row_mm, column_mm = header.spacings[0]
    affine[:3, :3] = np.stack([across * column_mm, down * row_mm, step], axis=1)
    affine[:3, 3] = first
    _check_corners(header, affine, k)
    shape = (header.columns, header.rows, int(k.max()) + 1)
    return Grid(shape, LPS_TO_RAS @ affine, allow_shear=True), k


def overruled_gap(header: SegHeader, own: Grid) -> tuple[str, ...]:
    """A sentence about a SpacingBetweenSlices that is not the gap of the frames' grid ``own``."""
    across, down, step = own.affine[:3, :3].T
    gap = abs(float(step @ np.cross(across, down))) / float(np.linalg.norm(np.cross(across, down)))
    is_far = abs(header.gap_mm - gap) > tolerance_mm(gap)
    if own.shape[2] < 2 or not header.gap_mm or not is_far:
        return ()
    return (
        f"SpacingBetweenSlices is {header.gap_mm:.4g} mm, but its planes are {gap:.4g} mm apart, "
        "which counts",
    )


def misplaced(header: SegHeader, like: Grid, places: Places) -> str:
    """A sentence about frames that name another image than that of the slice which they are in; ""
    if there is none, or if they are not parallel to the slices of the image.
    """
    if not len(header.positions):
        return ""
    across, down, step = like.affine[:3, :3].T
    normal = np.cross(across, down)
    normal = normal / np.linalg.norm(normal)
    own = np.cross(header.orientations[0, :3], header.orientations[0, 3:]) @ LPS_TO_RAS[:3, :3]
    if abs(own @ normal) < PARALLEL:
        return ""
    heights = like.to_index(header.positions @ LPS_TO_RAS[:3, :3])[:, 2]
    away = [
        gaps
        for named, height in zip(header.sources, heights.tolist(), strict=True)
        if (gaps := places.away(named, height))
    ]
    if not away:
        return ""
    return (
        f"{len(away)} of {header.frames} frames name another image than that of the slice at their "
        f"position, which counts (up to {max(away) * abs(step @ normal):.2f} mm)"
    )


def strangers(header: SegHeader, places: Places) -> str:
    """A sentence about frames that name images, none of which is of the series; "" if there is
    none, or if the series has none of all: then one of the two got new UIDs.
    """
    named = [one for one in header.sources if one]
    count = sum(not places.knows(one) for one in named)
    if count in (0, len(named)):
        return ""
    return (
        f"{count} of {header.frames} frames name an image that is no slice of this one; their "
        "positions count"
    )


def _flat(header: SegHeader, like: Grid | None) -> Grid:
    """The grid of the frames of a 2-D image without a place in space: they have its pixels (PS3.3
    A.51.1).

    Raises:
        GeometryError: the image has another size.
    """
    shape = (header.columns, header.rows, 1)
    if like is not None and like.shape != shape:
        raise GeometryError(
            f"the frames have no position, and {shape[0]} x {shape[1]} pixels; the image has the "
            f"shape {like.shape}"
        )
    spacing = header.spacings[0][::-1].tolist() if len(header.spacings) else None
    return like or grid_of(shape, spacing)


def _refuse_mixtures(header: SegHeader) -> None:
    """Refuse frames without geometry, or with different orientations or pixel spacings."""
    for name, table, tolerance in (
        ("ImagePositionPatient", header.positions, np.inf),
        ("ImageOrientationPatient", header.orientations, SAME_DIRECTION),
        ("PixelSpacing", header.spacings, 1e-3),
    ):
        if not len(table):
            raise GeometryError(f"the frames have no {name}, so they have no place in space")
        if np.abs(table - table[0]).max() > tolerance:
            raise GeometryError(f"mixed: frames with different {name} in one segmentation")
    across, down = header.orientations[0].reshape(2, 3)
    lengths = np.linalg.norm([across, down], axis=1)
    if np.abs(lengths - 1).max() > 1e-3 or abs(across @ down) > SHEAR_TOLERANCE:
        raise GeometryError(
            f"ImageOrientationPatient {header.orientations[0].tolist()} is not two unit vectors at "
            "right angles"
        )
    if header.spacings.min() <= 0:
        raise GeometryError(f"PixelSpacing {header.spacings[0].tolist()} is not positive")


def _gap_of_image(header: SegHeader, normal: NDArray[np.float64], like: Grid | None) -> float:
    """The distance of the image's planes along ``normal`` (LPS); 0 if no axis is across them, or
    if its pixels have another size.
    """
    if like is None:
        return 0.0
    columns = (LPS_TO_RAS[:3, :3] @ like.affine[:3, :3]).T
    for axis, column in enumerate(columns):
        inside = np.delete(columns, axis, axis=0)
        across = np.cross(*inside)
        sizes = np.sort(np.linalg.norm(inside, axis=1)), np.sort(header.spacings[0])
        parallel = abs(across @ normal) >= PARALLEL * np.linalg.norm(across)
        if parallel and np.allclose(*sizes, rtol=SAME_SIZE):
            return abs(float(column @ normal))
    return 0.0


def _candidates(
    gaps: NDArray[np.float64], header: SegHeader, normal: NDArray[np.float64], like: Grid | None
) -> list[float]:
    """The gaps between planes that are possible, in the order in which they are tried."""
    stated = [header.gap_mm, _gap_of_image(header, normal, like)]
    # A frame that is off its place would fit a part of the stated gap.
    most = 1 if header.gap_mm > 0 else MOST_MISSING
    common = [float(gaps.min()) / n for n in range(1, most + 1)] if len(gaps) else []
    return [gap for gap in (*stated, *common) if gap > _same_plane_mm(header)]


def _same_plane_mm(header: SegHeader) -> float:
    """The largest distance of frames in one plane: less for the thin slices of microscopes."""
    thin = SAME_SHARE * (header.gap_mm or header.thickness_mm)
    return min(SAME_PLANE_MM, thin) if thin else SAME_PLANE_MM


def _multiples(gaps: NDArray[np.float64], candidates: Sequence[float]) -> NDArray[np.float64]:
    """The number of planes of each distance, for the first candidate that fits all.

    Raises:
        GeometryError: none does.
    """
    for gap in candidates:
        counts = np.rint(gaps / gap)
        if not len(gaps) or (counts.min() > 0 and _fits(gaps, counts, gap)):
            return counts
    if not len(gaps):
        return gaps
    shown = ", ".join(f"{gap:.2f}" for gap in np.unique(np.round(gaps, 2))[:6])
    raise GeometryError(
        f"uneven gaps: the frames are {shown} mm apart, which are no multiples of one gap"
    )


def _fits(gaps: NDArray[np.float64], counts: NDArray[np.float64], gap_mm: float) -> bool:
    """Whether all planes are within the tolerance of evenly spaced ones, about ``gap_mm`` apart."""
    places = np.concatenate([[0], np.cumsum(counts)])
    heights = np.concatenate([[0], np.cumsum(gaps)])
    gap = heights[-1] / places[-1]
    allowed = tolerance_mm(gap)
    return bool(abs(gap - gap_mm) <= allowed and np.abs(heights - places * gap).max() <= allowed)


def _check_corners(header: SegHeader, affine: NDArray[np.float64], k: NDArray[np.intp]) -> None:
    """Check that the four corners of every frame are where the grid puts them."""
    allowed = tolerance_mm(float(np.linalg.norm(affine[:3, 2])))
    across = header.orientations[:, :3] * header.spacings[:, 1:]
    down = header.orientations[:, 3:] * header.spacings[:, :1]
    planes_mm = affine[:3, 3] + k[:, None] * affine[:3, 2]
    for i in (0, header.columns - 1):
        for j in (0, header.rows - 1):
            own = header.positions + i * across + j * down
            grid = planes_mm + i * affine[:3, 0] + j * affine[:3, 1]
            away = np.linalg.norm(own - grid, axis=1)
            if away.max() > allowed:
                worst = int(away.argmax())
                raise GeometryError(
                    f"uneven positions: frame {worst + 1} is {away[worst]:.2f} mm from its place "
                    f"in evenly spaced planes (allowed: {allowed:.2f} mm)"
                )
