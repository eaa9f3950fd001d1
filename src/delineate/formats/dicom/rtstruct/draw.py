"""The contours of RT structure sets as voxels on the grid of a scan.

A contour counts for the slice that it lies in, at most half a gap away; of contours at several
heights within one slice, the nearest ones count. It is projected along the normal of the slice, and
its corners become columns and rows by the affine of the grid, so that oblique, tilted and sheared
grids need nothing of their own. Contours of one slice are combined by exclusive or (PS3.3
C.8.8.6.3): one inside another is a hole, and so is what a keyhole encloses. Nothing is interpolated
between contours. What is left out is counted in ``meta["contours"]`` and said in ``meta["notes"]``.

This module finds no image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError, GeometryError
from ....core.grid import Grid
from ....core.inputs import refuse_large
from ....core.volume import Volume
from ...disk import told
from ...polygons import Points, Rule, area_of, inside_polygons, windings
from ..places import Places
from .read import AREAS, Contour, Roi, may_enclose, read_rois

TILTED, TILTED_MM = 0.1, 0.05  # a contour may leave its plane by this share of the gap, or by this
SAME_PLANE = 0.1  # contours of one plane differ by at most this share of the gap
SAME_SLAB = 0.02  # a slab is as thick as the gap if it differs by at most this share
BEYOND = 0.5  # pixels by which a contour may leave the image without loss of a pixel's centre
SAME_POINT_MM = 1e-3


@dataclass
class RoiDrawing:
    """The voxels of an ROI on a grid, and what became of its contours.

    Args:
        name: of the ROI.
        box: the part of the grid that holds all its voxels.
        inside: the voxels in the box.
        counts: number of contours: "used", and those left out, by the reason.
        most_mm: the largest distance of the contours of a reason, in mm.
        empty_slices: slices without a contour between the first and the last one.
        crossed_slices: slices with contours that cross each other.
        contour_ml: volume by the areas of the contours and the gap between their planes.
        voxel_ml: volume of the voxels.
    """

    name: str
    box: tuple[slice, slice, slice]
    inside: NDArray[np.bool_]
    counts: Counter[str]
    most_mm: dict[str, float]
    empty_slices: int
    crossed_slices: int
    contour_ml: float
    voxel_ml: float

    def to_json(self) -> dict[str, Any]:
        """All but the voxels, as plain data."""
        return {
            "contours": dict(self.counts),
            "most_mm": {reason: round(mm, 3) for reason, mm in self.most_mm.items()},
            "empty_slices": self.empty_slices,
            "crossed_slices": self.crossed_slices,
            "contour_ml": round(self.contour_ml, 4),
            "voxel_ml": round(self.voxel_ml, 4),
        }

    def notes(self) -> Iterator[str]:
        """One sentence for each thing that the voxels do not show."""
        for reason, words in REASONS.items():
            if count := self.counts[reason]:
                mm = f" (up to {self.most_mm[reason]:.2f} mm)" if reason in self.most_mm else ""
                yield f"{self.name}: {count} contour(s) {words}{mm}"
        if self.crossed_slices:
            yield (
                f"{self.name}: contours cross each other in {self.crossed_slices} slice(s); what "
                "two of them share is outside"
            )
        if self.counts["used"] and not self.inside.any():
            yield f"{self.name}: has no voxel, as no pixel's centre is inside its contours"
        if self.empty_slices:
            yield (
                f"{self.name}: {self.empty_slices} slice(s) between its first and last one have no "
                "contour and stay empty"
            )


# Reason that a contour is left out, or was changed, and its words.
REASONS = {
    "open": "are open and left out",
    "points": "are points and left out",
    "short": "have fewer than 3 different points and are left out",
    "tilted": "are not parallel to the slices and are left out",
    "outside": "are above or below the slices and are left out",
    "between": "are between slices that have nearer ones and are left out",
    "repeated": "repeat others and count once",
    "untyped": "state no known ContourGeometricType and are drawn as closed",
    "miscounted": "have another number of points than they state, and are drawn as they are",
    "attached": "are attached to others (AttachedContours), and are drawn by themselves",
    "moved": "are moved by their ContourOffsetVector",
    "unmoved": (
        "state a ContourOffsetVector without a ContourSlabThickness, and are drawn where they are"
    ),
    "misplaced": "name another image than that of the slice at their position, which counts",
    "slab": (
        "state a ContourSlabThickness that is not the gap of the slices, and are drawn in their "
        "own slice alone"
    ),
    "off": "are between slices and are drawn in the nearest one",
    "twisted": "cross themselves; both sides of the crossing are inside",
    "wound": (
        "run around a part of their area more than once; what they run around twice is outside"
    ),
    "clipped": "reach beyond the image and are cut off",
}


# ---- drawing ----


def draw(roi: Roi, grid: Grid, rule: Rule = "centre", places: Places | None = None) -> RoiDrawing:
    """The voxels of an ROI on a grid; k must count the slices that its contours are in.

    Args:
        roi: its contours.
        grid: of the image.
        rule: of ``polygons.inside_polygons``.
        places: of the images of the series; None does not look at which ones the contours name.
    """
    counts: Counter[str] = Counter()
    most_mm: dict[str, float] = {}

    def leave(reason: str, distance_mm: float | None = None) -> None:
        counts[reason] += 1
        if distance_mm is not None:
            most_mm[reason] = max(most_mm.get(reason, 0.0), distance_mm)

    planes = _Planes(grid)
    placed: list[_Placed] = []
    for contour in roi.contours:
        if reason := _no_area(contour):
            leave(reason)
            continue
        for doubt, mm in contour.doubts:
            leave(doubt, mm)
        if contour.kind not in AREAS:
            leave("untyped")
        one = planes.place(contour)
        if one.tilt_mm > max(TILTED * planes.gap_mm, TILTED_MM):
            leave("tilted", one.tilt_mm)
            continue
        if places and (gaps := places.away(contour.images, one.height)):
            leave("misplaced", gaps * planes.gap_mm)
        if off := planes.off_slab_mm(contour.slab_mm):
            leave("slab", off)
        if not 0 <= one.k < grid.shape[2]:
            leave("outside", one.off_mm)
        else:
            placed.append(one)
    every = list(_once(placed, leave))
    used = list(_nearest(every, planes, leave))
    for one in used:
        for doubt, mm in planes.doubts_of(one):
            leave(doubt, mm)
    counts["used"] = len(used)
    box, inside, crossed = _rasterised(used, grid, rule)
    slices = {one.k for one in used}
    return RoiDrawing(
        roi.name,
        box,
        inside,
        counts,
        most_mm,
        max(slices) - min(slices) + 1 - len(slices) if slices else 0,
        crossed,
        planes.volume_ml(every),
        int(inside.sum()) * grid.voxel_ml,
    )


def _no_area(contour: Contour) -> str:
    """Why a contour encloses nothing, as a key of ``REASONS``; "" if it does."""
    if not may_enclose(contour.kind):
        return "points" if contour.kind == "POINT" else "open"
    different = np.unique(np.rint(contour.points_mm / SAME_POINT_MM), axis=0)
    return "short" if len(different) < 3 else ""


@dataclass(frozen=True)
class _Placed:
    """A contour in a slice: its polygon in pixels, the slice, its height in slices, the distance
    from the slice, and by how much it leaves its own plane.
    """

    polygon: Points
    k: int
    height: float
    off_mm: float
    tilt_mm: float


class _Planes:
    """The planes of the slices of a grid."""

    def __init__(self, grid: Grid):
        self.grid = grid
        across, down, step = grid.affine[:3, :3].T
        normal = np.cross(across, down)
        self.pixel_mm2 = float(np.linalg.norm(normal))
        normal = normal / self.pixel_mm2
        self.gap_mm = abs(float(step @ normal))
        self.pixel_mm = np.array(grid.spacing_mm[:2])
        # The way in voxels of one gap along the normal; not (0, 0, 1) if the grid is sheared.
        way = np.linalg.inv(grid.affine[:3, :3]) @ normal
        self._across = way[:2] / way[2]

    def place(self, contour: Contour) -> _Placed:
        index = self.grid.to_index(contour.points_mm)
        heights = index[:, 2]
        height = float(heights.mean())
        # A contour halfway between two slices must not depend on rounding.
        k = int(np.floor(round(height, 4) + 0.5))
        polygon = index[:, :2] + (k - heights)[:, None] * self._across + 0.5
        nearest = min(max(k, 0), self.grid.shape[2] - 1)
        return _Placed(
            polygon,
            k,
            height,
            abs(height - nearest) * self.gap_mm,
            float(np.abs(heights - height).max()) * self.gap_mm,
        )

    def doubts_of(self, placed: _Placed) -> Iterator[tuple[str, float | None]]:
        """What is odd about a contour in its slice, as keys of ``REASONS``. It crosses itself if it
        runs around pixels in both directions, or more than once.
        """
        if placed.off_mm > max(SAME_PLANE * self.gap_mm, TILTED_MM):
            yield "off", placed.off_mm
        polygon = placed.polygon
        limits = np.array(self.grid.shape[:2])
        beyond = np.maximum(-polygon, polygon - limits).max(axis=0)
        if beyond.max() > BEYOND:
            yield "clipped", float((beyond * self.pixel_mm).max())
        low = np.clip(np.floor(polygon.min(axis=0)), 0, limits)
        columns, rows = (np.clip(np.ceil(polygon.max(axis=0)), low, limits) - low).astype(int)
        around = windings(polygon - low, int(rows), int(columns))
        least, most = int(around.min(initial=0)), int(around.max(initial=0))
        if least < 0 < most:
            yield "twisted", None
        if max(-least, most) > 1:
            yield "wound", None

    def off_slab_mm(self, slab_mm: float) -> float:
        """By how much a slab is thicker or thinner than the gap; 0 if it fits or is not known."""
        off = abs(slab_mm - self.gap_mm)
        is_known = slab_mm > 0 and self.grid.shape[2] > 1
        return off if is_known and off > max(SAME_SLAB * self.gap_mm, TILTED_MM) else 0.0

    def volume_ml(self, placed: Sequence[_Placed]) -> float:
        """The areas of the contours times the usual gap between their planes."""
        groups = _groups(placed)
        heights = sorted(group[0].height for group in groups)
        gap_mm = float(np.median(np.diff(heights))) * self.gap_mm if heights[1:] else self.gap_mm
        pixels = sum(area_of([one.polygon for one in group]) for group in groups)
        return pixels * self.pixel_mm2 * gap_mm / 1000


def _groups(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """The contours by the plane they are in."""
    groups: list[list[_Placed]] = []
    for one in sorted(placed, key=lambda one: one.height):
        if groups and one.height - groups[-1][0].height <= SAME_PLANE:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _once(placed: Sequence[_Placed], leave: Any) -> Iterator[_Placed]:
    """The contours without exact repetitions, which would cancel each other."""
    seen = set()
    for one in placed:
        points = np.unique(np.rint(one.polygon * 1000).astype(np.int64), axis=0)
        key = (round(one.height, 3), points.tobytes())
        if key in seen:
            leave("repeated")
        else:
            seen.add(key)
            yield one


def _nearest(placed: Sequence[_Placed], planes: _Planes, leave: Any) -> Iterator[_Placed]:
    """Of the planes of contours within one slice the nearest one to it."""
    by_slice: dict[int, list[list[_Placed]]] = {}
    for group in _groups(placed):
        by_slice.setdefault(group[0].k, []).append(group)
    for k, groups in by_slice.items():
        nearest = min(groups, key=lambda group: abs(group[0].height - k))
        yield from nearest
        for group in groups:
            for one in group if group is not nearest else ():
                leave("between", one.off_mm)


def _rasterised(
    used: Sequence[_Placed], grid: Grid, rule: Rule
) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_], int]:
    """The box of all polygons, the voxels in it, and the slices in which contours cross."""
    shape = np.array(grid.shape)
    if not used:
        return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool), 0
    corners = np.concatenate([one.polygon for one in used])
    ks = [one.k for one in used]
    low = np.array([*np.floor(corners.min(axis=0)), min(ks)])
    high = np.array([*np.ceil(corners.max(axis=0)), max(ks) + 1])
    low = np.clip(low, 0, shape).astype(int)
    high = np.clip(high, low, shape).astype(int)
    inside = np.zeros(tuple(high - low), bool)
    crossed = 0
    for k in sorted(set(ks)):
        polygons = [one.polygon - low[:2] for one in used if one.k == k]
        columns, rows = inside.shape[:2]
        inside[..., k - low[2]] = inside_polygons(polygons, rows, columns, rule).T
        crossed += _cross(polygons, rows, columns)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (box[0], box[1], box[2]), inside, crossed


def _cross(polygons: Sequence[Points], rows: int, columns: int) -> bool:
    """Whether two of the polygons have common pixels although none is inside the other."""
    limits = np.array([columns, rows])
    boxes: list[tuple[int, ...]] = []
    for polygon in polygons:
        corners = [np.floor(polygon.min(axis=0)), np.ceil(polygon.max(axis=0))]
        boxes.append(tuple(np.clip(corners, 0, limits).astype(int).ravel().tolist()))
    for n, one in enumerate(polygons):
        for m, other in enumerate(polygons[:n]):
            # Most of many do not touch.
            left, top = max(boxes[n][0], boxes[m][0]), max(boxes[n][1], boxes[m][1])
            right, bottom = min(boxes[n][2], boxes[m][2]), min(boxes[n][3], boxes[m][3])
            if left >= right or top >= bottom:
                continue
            low, high = (
                np.minimum(boxes[n][:2], boxes[m][:2]),
                np.maximum(boxes[n][2:], boxes[m][2:]),
            )
            width, height = (high - low).tolist()
            masks = [inside_polygons([polygon - low], height, width) for polygon in (one, other)]
            both, *sizes = (int(mask.sum()) for mask in (masks[0] & masks[1], *masks))
            if 0 < both < min(sizes):
                return True
    return False


# ---- label maps ----


def read_rtstruct(
    path: str | Path,
    grid: Grid,
    *,
    frame_of_reference: str = "",
    rule: Rule = "centre",
    only: Collection[str] | None = None,
    places: Places | None = None,
) -> Volume:
    """The ROIs with contours as one label map (I, J, K) uint16, or as one channel (N, I, J, K)
    uint8 each if they overlap; ``meta["names"]`` has value (or number of the channel, from 1) ->
    name.

    Args:
        path: the structure set.
        grid: of the image.
        frame_of_reference: UID of that of the image; ROIs of another one are left out. "" draws
            all.
        rule: of ``polygons.inside_polygons``.
        only: names of the ROIs to read, in any case of letters; None reads all.
        places: of the images of the series, to note contours that name another one than that of
            their slice.

    Raises:
        FormatError: see ``read_rois``; or no ROI has a closed contour.
        GeometryError: all ROIs are in another frame of reference, or outside the image.
    """
    wanted = None if only is None else {name.casefold() for name in only}
    every = read_rois(path, with_images=places is not None)
    rois = [one for one in every if wanted is None or one.name.casefold() in wanted]
    notes = []
    with told(path, "RT structure set"):
        drawn_rois = []
        for roi in rois:
            if not any(may_enclose(one.kind) for one in roi.contours):
                notes.append(f"{roi.name}: has no closed contour and is left out")
            elif _is_elsewhere(roi, frame_of_reference):
                notes.append(f"{roi.name}: is in another frame of reference and is left out")
            else:
                notes += [f"{roi.name}: {note}" for note in roi.notes]
                drawn_rois.append(roi)
        if rois and not drawn_rois:
            raise _nothing(rois)
        drawings = [draw(roi, grid, rule, places) for roi in drawn_rois]
        _refuse_outside(drawings)
        refuse_large(2 * int(np.prod(grid.shape)))
        array = _label_map(drawings, grid)
    meta = {
        "modality": "",
        "patient": "",
        "spacing_known": True,
        "place_known": True,
        "names": {n: one.name for n, one in enumerate(drawings, start=1)},
        "contours": {one.name: one.to_json() for one in drawings},
        "notes": (*notes, *(sentence for one in drawings for sentence in one.notes())),
    }
    return Volume(array, grid, "label", str(path), meta)


def _is_elsewhere(roi: Roi, frame_of_reference: str) -> bool:
    own = roi.frame_of_reference
    return bool(own and frame_of_reference and own != frame_of_reference)


def _nothing(rois: Sequence[Roi]) -> FormatError | GeometryError:
    if not any(may_enclose(one.kind) for roi in rois for one in roi.contours):
        return FormatError(f"none of its {len(rois)} ROIs has a closed contour")
    return GeometryError(
        "all its contours are in another frame of reference than the image, so their place in the "
        "image is not known"
    )


def _refuse_outside(drawings: Sequence[RoiDrawing]) -> None:
    """Refuse contours none of which is in the image."""
    if not drawings or any(one.counts["used"] for one in drawings):
        return
    reasons = sum((one.counts for one in drawings), Counter[str]())
    most = max((mm for one in drawings for mm in one.most_mm.values()), default=0.0)
    words = "; ".join(f"{n} {REASONS[reason]}" for reason, n in reasons.items() if n)
    raise GeometryError(
        f"no contour is in a slice of the image: {words}" + (f" (up to {most:.2f} mm)" * (most > 0))
    )


def _label_map(drawings: Sequence[RoiDrawing], grid: Grid) -> NDArray[Any]:
    """(I, J, K) uint16 if no voxel is in two ROIs, else (N, I, J, K) uint8."""
    out = np.zeros(grid.shape, np.uint16)
    overlap = False
    for number, one in enumerate(drawings, start=1):
        part = out[one.box]
        overlap |= bool(part[one.inside].any())
        part[one.inside] = number
    if not overlap:
        return out
    refuse_large(len(drawings) * out.size)
    channels = np.zeros((len(drawings), *grid.shape), np.uint8)
    for channel, one in zip(channels, drawings, strict=True):
        channel[one.box] = one.inside
    return channels
