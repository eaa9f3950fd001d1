"""What DICOM objects with labels refer to, and the series that they belong to.

An object belongs to the series with the instances (SOPInstanceUID) that it names; if no series has
one of them, to the series that it names; else to the only series in its frame of reference. Copies
of a series often have new instance UIDs, and all series of one examination may share their frame of
reference, so the order matters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from .. import archive
from ..disk import told
from .find import Headers, find_series, problem_of
from .header.file import Series, is_dicom, open_dataset
from .header.marks import items_in

LABEL_KINDS = {
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",  # label maps
}
FOLDERS_ABOVE = 3  # in which the series of an object is searched, its own included
MOST_FILES = 20_000  # in a folder that is searched


@dataclass(frozen=True)
class References:
    """The SeriesInstanceUIDs and SOPInstanceUIDs that an object names, and the UIDs of its frames
    of reference. If contours name instances, these alone count: an object may list further series.
    """

    series: frozenset[str]
    instances: frozenset[str]
    frames_of_reference: frozenset[str]

    def names(self, series: Series) -> bool:
        """Whether the object names the series itself or an instance of it."""
        return series.uid in self.series or any(p.instance in self.instances for p in series.planes)

    def choose(self, series: Sequence[Series]) -> list[Series]:
        """The series that the object belongs to: one, none, or several that fit equally well."""
        named = [sum(p.instance in self.instances for p in one.planes) for one in series]
        if any(named):
            return [one for one, count in zip(series, named, strict=True) if count == max(named)]
        if found := [one for one in series if one.uid in self.series]:
            return found
        if len(self.frames_of_reference) != 1:
            return []
        return [one for one in series if _frame_of(one) in self.frames_of_reference]

    def frame_for(self, series: Series) -> str:
        """The frame of reference that the parts of the object must have for a series, "" if any: an
        object in one frame of reference that names the series belongs to it, even if a copy of the
        series got another one.
        """
        is_own = len(self.frames_of_reference) <= 1 and self.names(series)
        return "" if is_own else _frame_of(series)

    def note_about_frame(self, series: Series) -> str:
        """A sentence if the object names the series and is in another frame of reference; else
        "".
        """
        own = _frame_of(series)
        if not own or not self.frames_of_reference or own in self.frames_of_reference:
            return ""
        if self.frame_for(series):
            return ""
        return "it names the series of the image, and states another frame of reference"

    def note_about_images(self, series: Series) -> str:
        """A sentence if some of the images that the object refers to are no slices of the series;
        else "". If none is, it is another series in the same frame of reference, or one of the two
        got new UIDs.
        """
        lost = len(self.instances - {one.instance for one in series.planes})
        if lost and lost == len(self.instances):
            is_other = self.series and series.uid not in self.series
            if not is_other or _frame_of(series) not in self.frames_of_reference:
                return ""
            return (
                f"it refers to {lost} images of another series in the frame of reference of this "
                "one, and to none of this one; positions count"
            )
        if not lost:
            return ""
        return (
            f"it refers to {len(self.instances)} images, of which {lost} are no slices of this one"
        )


def _frame_of(series: Series) -> str:
    return series.planes[0].marks.frame_of_reference


def kind_of(path: str | Path) -> str:
    """ "RTSTRUCT" or "SEG" by the SOP class of a DICOM file; "" for all else and what cannot be
    read.
    """
    try:
        with told(path, "DICOM file"):
            if not archive.is_file(Path(path)) or not is_dicom(archive.head_of(path)):
                return ""
            return LABEL_KINDS.get(str(_dataset(path, "SOPClassUID").get("SOPClassUID")), "")
    except FormatError:
        return ""


def references(path: str | Path) -> References:
    """What a structure set (PS3.3 C.8.8.5) or a segmentation (C.12.4, C.7.6.16.2.6) refers to.

    Raises:
        FormatError: it cannot be read.
    """
    with told(path, "DICOM file"):
        dataset = _dataset(path)
        if (
            dataset.get("SOPClassUID") in LABEL_KINDS
            and LABEL_KINDS[dataset.SOPClassUID] == "RTSTRUCT"
        ):
            return _of_structure_set(dataset)
        return _of_segmentation(dataset)


def series_of_label(path: str | Path, fix_series: str = "") -> Series:
    """The series that an object belongs to, from its own folder or those above it; for
    ``fix_series`` see ``find``.

    Raises:
        FormatError: there is none, or several fit.
    """
    named = references(path)
    place, headers = Path(path).absolute(), Headers()
    for folder in list(place.parents)[:FOLDERS_ABOVE]:
        with told(folder):  # other programs may work there
            if sum(1 for _ in islice(folder.rglob("*"), MOST_FILES + 1)) > MOST_FILES:
                break
        every = find_series(folder, fix_series, headers)
        found = named.choose([one for one in every if not problem_of(one)])
        if len(found) == 1:
            return found[0]
        if found:
            raise FormatError(
                f"could belong to {len(found)} series here: "
                f"{'; '.join(one.title for one in found)}; name one with --like",
                path=path,
            )
    raise FormatError(
        "the series that it belongs to is not in its folder or those above; name it with --like",
        path=path,
    )


def _dataset(path: str | Path, *tags: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more: dict[str, Any] = {"specific_tags": list(tags)} if tags else {}
        return open_dataset(path, stop_before_pixels=True, **more)


def _of_structure_set(dataset: Any) -> References:
    frames = "ReferencedFrameOfReferenceSequence"
    studies, inside = "RTReferencedStudySequence", "RTReferencedSeriesSequence"
    series = [*items_in(dataset, frames, studies, inside)]
    drawn_on = [*items_in(dataset, "ROIContourSequence", "ContourSequence", "ContourImageSequence")]
    listed = (image for one in series for image in items_in(one, "ContourImageSequence"))
    rois = list(items_in(dataset, "StructureSetROISequence"))
    stated = _uids(rois, "ReferencedFrameOfReferenceUID") or _uids(
        list(items_in(dataset, frames)), "FrameOfReferenceUID"
    )
    return References(
        _uids(series, "SeriesInstanceUID"),
        _uids(drawn_on or [*listed], "ReferencedSOPInstanceUID"),
        stated,
    )


def _of_segmentation(dataset: Any) -> References:
    studies = "StudiesContainingOtherReferencedInstancesSequence"
    series = [
        *items_in(dataset, "ReferencedSeriesSequence"),
        *items_in(dataset, studies, "ReferencedSeriesSequence"),
    ]
    instances = [one for item in series for one in items_in(item, "ReferencedInstanceSequence")]
    instances += items_in(dataset, "SourceImageSequence")
    if not instances:
        per_frame = ("DerivationImageSequence", "SourceImageSequence")
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            instances += items_in(dataset, groups, *per_frame)
    return References(
        _uids(series, "SeriesInstanceUID"),
        _uids(instances, "ReferencedSOPInstanceUID"),
        _uids([dataset], "FrameOfReferenceUID"),
    )


def _uids(items: Sequence[Any], name: str) -> frozenset[str]:
    return frozenset(str(one.get(name)) for one in items if one.get(name))
