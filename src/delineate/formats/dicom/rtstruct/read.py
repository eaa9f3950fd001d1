"""RT structure sets (PS3.3 A.19): the ROIs of an object and their contours.

Positions are LPS mm on disk and RAS+ mm in ``Contour``. ``draw`` makes voxels of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError
from ....core.inputs import refuse_large
from ... import archive
from ..geometry import LPS_TO_RAS
from ..header.file import lenient, open_dataset
from ..header.marks import items_in, numbers, text
from ..header.marks import number as number_in
from ..places import Named, named_in

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"  # SOP class
MOST_POINTS = 50_000_000  # of all contours of one file
AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")  # types of contours with an area
IN_MEMORY = 4  # bytes in memory for each byte of the file, about
SAME_MM = 0.05  # a vector that leaves its direction by less is rounded


@dataclass(frozen=True)
class Contour:
    """One contour: (N, 3) RAS+ mm and its geometric type as in the file.

    Args:
        doubts: keys of ``draw.REASONS``, with a distance in mm if the reason has one.
        slab_mm: ContourSlabThickness, 0 if it is not stated.
        images: that it names; () unless they were asked for.
    """

    points_mm: NDArray[np.float64] = field(repr=False)
    kind: str
    doubts: tuple[tuple[str, float | None], ...] = ()
    slab_mm: float = 0.0
    images: tuple[Named, ...] = ()


@dataclass(frozen=True)
class Roi:
    """A region of interest: its number and name, the UID of its frame of reference ("" if none or
    several are possible), its contours, and sentences about it. Names are unique within a file:
    others get their number.
    """

    number: int
    name: str
    frame_of_reference: str
    contours: tuple[Contour, ...]
    notes: tuple[str, ...] = ()


def read_rois(path: str | Path, with_images: bool = False) -> tuple[Roi, ...]:
    """The ROIs of a structure set, in its order.

    Args:
        with_images: also read which images its contours name.

    Raises:
        FormatError: it is no structure set, is damaged, or has more than ``MOST_POINTS`` points.
    """
    with lenient(path, "RT structure set"):
        with archive.opened(path) as file:
            refuse_large(IN_MEMORY * (archive.nbytes_of(file, Path(path)) or 0))
        dataset = open_dataset(path)
        if str(dataset.get("SOPClassUID", "")) != RTSTRUCT:
            raise FormatError("is no RT structure set")
        stated = list(dataset.get("StructureSetROISequence") or ())
        items, contours = _contours(dataset, with_images)
        names = [_name(one) for one in stated]
        numbers = [_whole(one, "ROINumber") for one in stated]
        if not numbers:
            raise FormatError("defines no ROI; it is empty or truncated")
        if len(set(numbers)) < len(numbers):
            raise FormatError("two ROIs have the same number")
        if strange := sorted(set(contours) - set(numbers)):
            raise FormatError(f"has contours of ROI {strange[0]}, which it does not define")
        listed = _frames_listed(dataset)
        rois = []
        for one, name, number in zip(stated, names, numbers, strict=True):
            frame = text(one, "ReferencedFrameOfReferenceUID")
            notes = []
            if not frame and len(listed) > 1:
                notes.append(
                    f"states none of the {len(listed)} frames of reference of the object, and is "
                    "drawn in that of the image"
                )
            if items[number] > 1:
                notes.append(f"has {items[number]} items in ROIContourSequence; all are drawn")
            rois.append(
                Roi(
                    number,
                    _unique(name, number, names),
                    frame or (listed[0] if len(listed) == 1 else ""),
                    contours.get(number, ()),
                    tuple(notes),
                )
            )
        return tuple(rois)


def _frames_listed(dataset: Any) -> list[str]:
    """The UIDs of the frames of reference of the whole object."""
    items = [*items_in(dataset, "ReferencedFrameOfReferenceSequence"), dataset]
    return [uid for uid in dict.fromkeys(text(one, "FrameOfReferenceUID") for one in items) if uid]


def describe(path: str | Path) -> dict[str, Any]:
    """The ROIs of a structure set with their contours by geometric type, as plain data. Errors are
    those of ``read_rois``.
    """
    rois = read_rois(path)
    return {
        "format": "DICOM RTSTRUCT",
        "rois": [
            {
                "number": one.number,
                "name": one.name,
                "contours": dict(Counter(contour.kind for contour in one.contours)),
                "points": sum(len(contour.points_mm) for contour in one.contours),
            }
            for one in rois
        ],
        "frames_of_reference": sorted({one.frame_of_reference for one in rois} - {""}),
        "unit": "label",
    }


def read_roi_names(path: str | Path) -> tuple[str, ...]:
    """The names of the ROIs that have a closed contour, as ``read_rois`` gives them; no coordinates
    are converted.
    """
    with lenient(path, "RT structure set"):
        wanted = ["StructureSetROISequence", "ROIContourSequence"]
        dataset = open_dataset(path, specific_tags=wanted)
        stated = list(dataset.get(wanted[0]) or ())
        closed = {
            int(one.ReferencedROINumber)
            for one in dataset.get(wanted[1]) or ()
            if any(may_enclose(_kind(item)) for item in one.get("ContourSequence") or ())
        }
        names = [_name(one) for one in stated]
        return tuple(
            _unique(name, int(one.ROINumber), names)
            for one, name in zip(stated, names, strict=True)
            if int(one.ROINumber) in closed
        )


def _whole(item: Any, name: str) -> int:
    """The number of an ROI.

    Raises:
        FormatError: it is missing, or no number.
    """
    found = number_in(item, name)
    if found is None:
        raise FormatError(f"has an ROI without {name}, so its contours have no name")
    return int(found)


def _name(item: Any) -> str:
    return text(item, "ROIName")


def _kind(item: Any) -> str:
    return str(item.get("ContourGeometricType") or "").strip().upper()


def may_enclose(kind: str) -> bool:
    """Whether contours of a geometric type have an area; a type that is not stated may."""
    return kind != "POINT" and not kind.startswith("OPEN")


def _unique(name: str, number: int, names: Sequence[str]) -> str:
    if not name:
        return f"ROI {number}"
    same = sum(other.casefold() == name.casefold() for other in names)
    return name if same == 1 else f"{name} (ROI {number})"


def _contours(
    dataset: Any, with_images: bool
) -> tuple[Counter[int], dict[int, tuple[Contour, ...]]]:
    """Number of the ROI -> the items that it has, and its contours."""
    items: Counter[int] = Counter()
    found: dict[int, tuple[Contour, ...]] = {}
    points = 0
    for one in dataset.get("ROIContourSequence") or ():
        number = _whole(one, "ReferencedROINumber")
        items[number] += 1
        own = []
        for item in one.get("ContourSequence") or ():
            own.append(_contour(item, with_images))
            points += len(own[-1].points_mm)
            if points > MOST_POINTS:
                raise FormatError(f"has more than {MOST_POINTS} points of contours")
        found[number] = (*found.get(number, ()), *own)
    return items, found


def _contour(item: Any, with_images: bool) -> Contour:
    """An item of ContourSequence.

    Raises:
        FormatError: coordinates or vectors that are not what the standard has.
    """
    points, doubts = _points(item), list[tuple[str, float | None]]()
    if number_in(item, "NumberOfContourPoints") not in (None, len(points)):
        doubts.append(("miscounted", None))
    if item.get("AttachedContours"):
        doubts.append(("attached", None))
    slab = max(number_in(item, "ContourSlabThickness") or 0.0, 0.0)
    if item.get("ContourOffsetVector") not in (None, ""):
        points, more = _moved(points, item, slab)
        doubts += more
    images = named_in(item, "ContourImageSequence") if with_images else ()
    return Contour(points, _kind(item), tuple(doubts), slab, images)


def _moved(
    points_mm: NDArray[np.float64], item: Any, slab_mm: float
) -> tuple[NDArray[np.float64], list[tuple[str, float | None]]]:
    """The points in the central plane of a slab (PS3.3 C.8.8.6.2, retired in 2021): off those of
    the file by ContourOffsetVector, which is 0 without a ContourSlabThickness.

    Raises:
        FormatError: the vector is not three numbers along the normal of the contour.
    """
    stated = numbers(item, "ContourOffsetVector")
    if len(stated) != 3:
        raise FormatError(
            f"has a contour with the ContourOffsetVector {text(item, 'ContourOffsetVector')!r}; "
            "allowed are three numbers in mm"
        )
    offset = np.array(stated) @ LPS_TO_RAS[:3, :3]
    length = float(np.linalg.norm(offset))
    if not length:
        return points_mm, []
    if not slab_mm:
        return points_mm, [("unmoved", length)]
    if len(points_mm) > 2:
        centred = points_mm - points_mm.mean(axis=0)
        _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
        # Of points on a line, one axis alone is known.
        along = np.abs(axes[:2][sizes[:2] > SAME_MM] @ offset).max(initial=0)
        if along > max(SAME_MM, 0.01 * length):
            raise FormatError(
                f"has a contour whose ContourOffsetVector {list(stated)} is not along the normal "
                "of its plane (PS3.3 C.8.8.6), so its place is not known"
            )
    return points_mm + offset, [("moved", length)]


def _points(item: Any) -> NDArray[np.float64]:
    """(N, 3) RAS+ mm.

    Raises:
        FormatError: no triples of finite numbers.
    """
    if "ContourData" not in item:
        return np.zeros((0, 3))
    raw = item.get_item("ContourData").value
    # The numbers are text; one conversion of all is far quicker than one for each.
    values = raw.strip(b" \0").split(b"\\") if isinstance(raw, bytes) else raw or []
    if isinstance(raw, bytes) and values == [b""]:
        values = []
    try:
        numbers = np.array(list(values)).astype(np.float64)
    except ValueError as error:
        raise FormatError("has a contour whose coordinates are not numbers") from error
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise FormatError(
            f"has a contour of {len(numbers)} numbers, which are not triples of finite coordinates"
        )
    return np.asarray(numbers.reshape(-1, 3) @ LPS_TO_RAS[:3, :3])
