"""Label volumes as RT structure sets (PS3.3 A.19), for planning systems.

Each part of a structure in a slice is one contour. Its corners lie halfway between pixels inside
and outside, so that the pixel-centre rule gives the voxels back exactly; a hole is joined to the
outline around it by a keyhole (PS3.3 C.8.8.6.3). The file is in Implicit VR, because in Explicit VR
a contour may have at most 64 kB (PS3.5 7.1.2). It has its name only after its voxels were drawn
again and were equal.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core import atomic
from ....core.errors import OutputError
from ....core.grid import Grid
from ....core.labels import Label, LabelSet
from ....core.terms import STRUCTURE, Code, coding_of
from ....core.volume import Volume
from ...polygons import Points, outlines, signed_area
from ..geometry import LPS_TO_RAS
from ..header.file import Plane, Series
from ..identity import uid_of
from ..source import (
    STUDY,
    SourceSeries,
    date_of,
    inside,
    on_series,
    present_labels,
    source_of,
)
from .draw import draw
from .read import RTSTRUCT, read_rois

COPIED = (*STUDY, "FrameOfReferenceUID", "PositionReferenceIndicator")
TAGS = {
    "ReferencedSOPClassUID": (0x0008, 0x1150),
    "ReferencedSOPInstanceUID": (0x0008, 0x1155),
    "ReferencedFrameNumber": (0x0008, 0x1160),
    "ContourImageSequence": (0x3006, 0x0016),
    "ContourGeometricType": (0x3006, 0x0042),
    "NumberOfContourPoints": (0x3006, 0x0046),
    "ContourData": (0x3006, 0x0050),
    "Item": (0xFFFE, 0xE000),
}
WHAT = "structure set"  # in messages
DECIMALS = 4  # of coordinates in mm; a decimal string has at most 16 bytes


def structure_set_source(series: Series | Sequence[str | Path]) -> SourceSeries:
    """Read what a structure set needs from a series; errors as for ``write_rtstruct``."""
    return source_of(series, WHAT)


def write_rtstruct(
    labels_volume: Volume,
    labels: LabelSet,
    series: SourceSeries | Series | Sequence[str | Path],
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_description: str = "Structures",
    smallest_mm2: float = 0.0,
) -> list[str]:
    """Write one structure set that refers to the slices of its series, with one ROI per structure.

    The same content gets the same SOPInstanceUID, other content another one (``uid_of``).

    Args:
        labels_volume, labels, series, path: as for ``write_seg``.
        algorithm_name, algorithm_version: of the algorithm that made the masks; without a name it
            is not stated how they were made.
        series_description: of the new series.
        smallest_mm2: contours of a smaller area are left out.

    Returns:
        One sentence for each structure that has no voxel, and for each with contours left out.

    Raises:
        GeometryError, FormatError, LabelError, OutputError: as for ``write_seg``.
    """
    source = series if isinstance(series, SourceSeries) else structure_set_source(series)
    array = on_series(labels_volume, source, labels)
    present = present_labels(array, labels, path, WHAT)
    notes = source.notes_about(labels, present, WHAT)
    contours: list[list[tuple[int, bytes]]] = []
    for label in present:
        own, small = _contours(inside(array, labels, label), source, smallest_mm2)
        contours.append(own)
        if small:
            words = f"{small} contours of less than {smallest_mm2:g} mm2 are left out"
            notes.append(f"{label.name}: {words}")
    dataset = _structure_set(source, present, (algorithm_name, algorithm_version))
    dataset.SeriesNumber = source.number_of("rtstruct")
    dataset.SeriesDescription = dataset.StructureSetName = series_description[:64]
    _add(dataset, contours, present, [_image(one) for one in source.planes])
    with atomic.replacing(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
        if not smallest_mm2:
            _prove(temporary, source.grid, array, labels, present, source.slices)
    return notes


# ---- contours ----


def _contours(
    inside: NDArray[np.bool_], source: SourceSeries, smallest_mm2: float
) -> tuple[list[tuple[int, bytes]], int]:
    """Number of the plane and coordinates of each contour, and how many were too small.

    Args:
        inside: (I, J, planes) of a structure.
    """
    column, row, _ = source.grid.affine[:3, :3].T
    pixel_mm2 = float(np.linalg.norm(np.cross(column, row)))
    found, small = [], 0
    for number in np.flatnonzero(inside.any(axis=(0, 1))):
        for polygon in outlines(inside[:, :, number].T):
            if abs(signed_area(polygon)) * pixel_mm2 < smallest_mm2:
                small += 1
                continue
            points = _patient_mm(polygon, source.slices[number], source.grid)
            found.append((int(number), _decimal_strings(points)))
    return found, small


def _patient_mm(polygon: Points, k: int, grid: Grid) -> NDArray[np.float64]:
    """(corners, 3) LPS mm of corners in pixels, whose (0.5, 0.5) is the centre of the first one."""
    index = np.column_stack([polygon - 0.5, np.full(len(polygon), float(k))])
    return np.asarray(grid.to_mm(index) @ LPS_TO_RAS[:3, :3])


def _decimal_strings(points_mm: NDArray[np.float64]) -> bytes:
    """The value of ContourData."""
    form = f"%.{DECIMALS}f"
    return "\\".join([form % value for value in points_mm.ravel().tolist()]).encode("ascii")


# ---- the object ----


def _structure_set(
    source: SourceSeries, present: Sequence[Label], algorithm: tuple[str, str]
) -> Any:
    """The object without contours and UID."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ImplicitVRLittleEndian

    first = source.headers[0]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ImplicitVRLittleEndian, UID(RTSTRUCT)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name in COPIED:
        if name in first:
            dataset[name] = first[name]
    dataset.SOPClassUID, dataset.Modality = RTSTRUCT, "RTSTRUCT"
    name, version = algorithm
    dataset.Manufacturer, dataset.ManufacturerModelName = "delineate", name[:64] or "delineate"
    dataset.SoftwareVersions = version[:64]
    dataset.OperatorsName = ""
    date, time = date_of(first)
    dataset.SeriesDate = dataset.StructureSetDate = date
    dataset.SeriesTime = dataset.StructureSetTime = time
    dataset.InstanceNumber, dataset.StructureSetLabel = 1, "delineate"
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_references(source)]
    dataset.StructureSetROISequence = [
        _item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=dataset.FrameOfReferenceUID,
            ROIName=label.name[:64],
            ROIGenerationAlgorithm="AUTOMATIC" if name else "",
            ROIGenerationDescription=f"{name}, {version}"[:64] if name else "",
        )
        for number, label in enumerate(present, start=1)
    ]
    dataset.RTROIObservationsSequence = [
        _observation(number, label) for number, label in enumerate(present, start=1)
    ]
    return dataset


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _references(source: SourceSeries) -> Any:
    first = source.headers[0]
    images = dict.fromkeys((one.sop_class, one.instance) for one in source.planes)
    series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[
            _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=instance)
            for sop_class, instance in images
        ],
    )
    study = _item(
        # The retired class of a study, which the standard asks for (PS3.3 C.8.8.5).
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _observation(number: int, label: Label) -> Any:
    coding = coding_of(label)
    kind = _code(coding.kind)
    if coding.side is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_code(coding.side)]
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        SegmentedPropertyCategoryCodeSequence=[_code(coding.category)],
        RTROIIdentificationCodeSequence=[kind],
        # A lesion is not a target before a physician says so.
        RTROIInterpretedType="ORGAN" if coding.category == STRUCTURE else "",
        ROIInterpreter="",
    )


def _code(code: Code) -> Any:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme, CodeMeaning=code.meaning)


def _add(
    dataset: Any,
    contours: Sequence[Sequence[tuple[int, bytes]]],
    present: Sequence[Label],
    images: Sequence[bytes],
) -> None:
    """Put the contours into the object, with UIDs that follow from all of it."""
    data = (data for own in contours for _, data in own)
    places = str([[plane for plane, _ in own] for own in contours])
    dataset.SOPInstanceUID = uid_of(dataset.to_json(), places, *data)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = uid_of("series", dataset.SOPInstanceUID)
    dataset.ROIContourSequence = [
        _drawn(number, label, [_contour(images[plane], data) for plane, data in own])
        for number, (label, own) in enumerate(zip(present, contours, strict=True), start=1)
    ]


# ---- contours as bytes ----
# As objects of pydicom, the thousands of contours of a file would take many times as long to write.


def _drawn(number: int, label: Label, contours: Sequence[bytes]) -> Any:
    """An item of ROIContourSequence."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    item = _item(ROIDisplayColor=list(label.colour), ReferencedROINumber=number)
    value = b"".join(_encoded("Item", one) for one in contours)
    tag = Tag("ContourSequence")
    item[tag] = RawDataElement(tag, "SQ", len(value), value, 0, True, True)
    # So that the bytes are written as they are.
    item.set_original_encoding(True, True, "iso8859")
    return item


def _image(plane: Plane) -> bytes:
    """ContourImageSequence with the image of a plane (PS3.3 table 10-3)."""
    item = _encoded("ReferencedSOPClassUID", plane.sop_class.encode("ascii"), b"\0")
    item += _encoded("ReferencedSOPInstanceUID", plane.instance.encode("ascii"), b"\0")
    if plane.frame is not None:
        item += _encoded("ReferencedFrameNumber", b"%d" % (plane.frame + 1))
    return _encoded("ContourImageSequence", _encoded("Item", item))


def _contour(image: bytes, data: bytes) -> bytes:
    return (
        image
        + _encoded("ContourGeometricType", b"CLOSED_PLANAR")
        + _encoded("NumberOfContourPoints", b"%d" % ((data.count(b"\\") + 1) // 3))
        + _encoded("ContourData", data)
    )


def _encoded(name: str, value: bytes, padding: bytes = b" ") -> bytes:
    """An element in Implicit VR Little Endian (PS3.5 7.1.3)."""
    value += padding * (len(value) % 2)
    return struct.pack("<HHI", *TAGS[name], len(value)) + value


# ---- proof ----


def _prove(
    path: Path,
    grid: Grid,
    array: NDArray[Any],
    labels: LabelSet,
    present: Sequence[Label],
    slices: Sequence[int],
) -> None:
    """Draw the file's contours again.

    Raises:
        OutputError: a voxel differs.
    """
    for label, roi in zip(present, read_rois(path), strict=True):
        drawing = draw(roi, grid)
        again = np.zeros(grid.shape, bool)
        again[drawing.box] = drawing.inside
        differ = int((again[:, :, list(slices)] != inside(array, labels, label)).sum())
        if differ:
            raise OutputError(
                f"{label.name}: {differ} voxels differ when its contours are drawn again",
                path=path,
            )
