"""Label volumes as DICOM Segmentation objects (PS3.3 A.51), written by highdicom.

The type is BINARY, the most widely supported one; frames without a voxel are omitted. The slice
thickness of the masks is the measured gap between slices, because the scan's SliceThickness need
not fill the space.

A frame of a multi-frame source is referred to by its number. highdicom reads the geometry of these
from functional groups in forms of its own, so it gets a header with what ``Plane`` knows in them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core import atomic
from ....core.errors import FormatError
from ....core.labels import Label, LabelSet
from ....core.volume import Volume
from ..header.file import Plane, Series
from ..header.marks import items_in
from ..identity import uid_of
from ..source import SourceSeries, date_of, on_series, present_labels, source_of
from .codes import SIDES, Code, coded


def seg_source(
    series: Series | Sequence[str | Path],
    labels: LabelSet,
    *,
    algorithm_name: str,
    algorithm_version: str,
) -> SourceSeries:
    """Read what a SEG needs from a series, and test it with a SEG of one voxel.

    A series that lacks a required attribute is so found before any work is done.

    Args:
        series: as found, or all files of one DICOM series, in any order.
        labels, algorithm_name, algorithm_version: as for ``write_seg``.

    Raises:
        GeometryError, FormatError: no SEG can refer to this series; the message names the file and
            the missing attribute.
    """
    source = source_of(series)
    # highdicom checks the headers when it builds the object, so one voxel is enough.
    columns, rows, _ = source.grid.shape
    frames = np.zeros((len(source.slices), rows, columns), np.uint8)
    frames[0, 0, 0] = 1
    _segmentation(
        frames, list(labels)[:1], source, (algorithm_name, algorithm_version), 900, "Segmentation"
    )
    return source


def write_seg(
    labels_volume: Volume,
    labels: LabelSet,
    series: SourceSeries | Series | Sequence[str | Path],
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_number: int = 900,
    series_description: str = "Segmentation",
) -> list[str]:
    """Write one SEG object that refers to every slice of its series, with one segment per
    structure.

    Args:
        labels_volume: (I, J, K) label values, or codes of structures that overlap (``LabelSet``),
            on the grid of the series, or on that grid flipped and permuted.
        labels: names, colours, sides and codes ("10200004" or "SCT:10200004"); every value of the
            volume must be in it.
        series: as for ``seg_source``, or its result.
        path: of the new file.
        algorithm_name, algorithm_version: the algorithm that made the masks, written into every
            segment.
        series_number, series_description: of the new series.

    Returns:
        One sentence for each structure that has no voxel and is therefore omitted, and for each
        value of the series that was cut to be valid.

    Raises:
        GeometryError: the volume differs from the grid of the series by more than 0.1 mm, or the
            series is not an evenly spaced stack.
        FormatError: a file is not an image, the files belong to several series, or they lack an
            attribute that a SEG must repeat.
        LabelError: values that ``labels`` does not have.
        OutputError: no structure has a voxel (a SEG has at least one segment and frame), or the
            file cannot be written.
    """
    if not isinstance(series, SourceSeries):
        series = source_of(series)
    array = on_series(labels_volume, series, labels)
    present = present_labels(array, labels, path)
    frames = _segment_numbers(array, present, labels)
    algorithm = algorithm_name, algorithm_version
    segmentation = _segmentation(
        frames, present, series, algorithm, series_number, series_description
    )
    with atomic.replacing(path) as temporary:
        segmentation.save_as(temporary)
    return series.notes_about(labels, present, "SEG")


def _source_images(series: SourceSeries) -> list[Any]:
    """The headers as highdicom needs them."""
    if not series.of_frames:
        return list(series.headers)
    return [_with_frames(series.headers[0], series.planes)]


def _with_frames(header: Any, planes: Sequence[Plane]) -> Any:
    """The header with these planes as its frames, in this order."""
    from pydicom.dataset import Dataset

    def group(name: str, **values: Any) -> Any:
        item, inner = Dataset(), Dataset()
        for key, value in values.items():
            setattr(inner, key, list(value) if isinstance(value, tuple) else value)
        setattr(item, name, [inner])
        return item

    first = planes[0]
    shared = group("PlaneOrientationSequence", ImageOrientationPatient=first.orientation)
    shared.update(group("PixelMeasuresSequence", PixelSpacing=first.spacing, SliceThickness=1.0))
    out = Dataset(header)
    out.SharedFunctionalGroupsSequence = [shared]
    out.PerFrameFunctionalGroupsSequence = [
        group("PlanePositionSequence", ImagePositionPatient=one.position) for one in planes
    ]
    out.NumberOfFrames = len(planes)
    return out


def _segment_numbers(
    array: NDArray[Any], present: Sequence[Label], labels: LabelSet
) -> NDArray[Any]:
    """Convert label values to segment numbers 1..N, 0 for none: (K, rows, columns); codes of
    structures that overlap to masks (K, rows, columns, N).
    """
    if labels.overlapping:
        masks = [labels.inside(array, label).transpose(2, 1, 0) for label in present]
        return np.stack(masks, axis=-1).astype(np.uint8)
    # Segment numbers have no gaps, whatever the label values are.
    table = np.zeros(int(array.max()) + 1, np.uint8 if len(present) < 256 else np.uint16)
    for number, label in enumerate(present, start=1):
        table[label.value] = number
    return np.ascontiguousarray(table[array].transpose(2, 1, 0))


# ---- the object ----


def _segmentation(
    frames: NDArray[Any],
    present: Sequence[Label],
    series: SourceSeries,
    algorithm: tuple[str, str],
    series_number: int,
    series_description: str,
) -> Any:
    """Build the SEG object.

    Args:
        frames: (K, rows, columns) segment numbers, or (K, rows, columns, segments) masks.
        present: the structures, in the order of the segment numbers.
        series: the series it refers to.
        algorithm: name and version.
        series_number, series_description: of the new series.

    Raises:
        FormatError: highdicom rejects the headers of the series.
    """
    import highdicom as hd

    identity = _algorithm(*algorithm)
    measures = _pixel_measures(series)
    uid = _uid(frames, present, series, (*algorithm, str(series_number), series_description))
    with warnings.catch_warnings():
        # The warnings are about values of the source series, which cannot be changed here.
        warnings.simplefilter("ignore")
        try:
            seg = hd.seg.Segmentation(
                source_images=_source_images(series),
                pixel_array=frames,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(n, label, identity, uid)
                    for n, label in enumerate(present, start=1)
                ],
                # Each SEG is a new series.
                series_instance_uid=uid_of("series", uid),
                series_number=series_number,
                sop_instance_uid=uid,
                instance_number=1,
                manufacturer="delineate",
                manufacturer_model_name=algorithm[0][:64],
                software_versions=algorithm[1][:64],
                device_serial_number="1",
                pixel_measures=measures,
                content_label="SEGMENTATION",
                content_description=series_description[:64],
                series_description=series_description[:64],
                omit_empty_frames=True,
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise FormatError(
                f"a SEG cannot refer to this series ({type(error).__name__}: {error})",
                path=series.planes[0].path.parent,
            ) from error
    return _with_dates_of(series.headers[0], _as_measured(seg, series, measures))


def _algorithm(name: str, version: str) -> Any:
    """The identification of an algorithm; DICOM limits these strings (LO) to 64 characters."""
    import highdicom as hd

    family = _concept(Code("123110", "Artificial Intelligence"), "DCM")
    return hd.AlgorithmIdentificationSequence(name=name[:64], version=version[:64], family=family)


def _uid(
    frames: NDArray[Any], present: Sequence[Label], series: SourceSeries, words: Sequence[str]
) -> str:
    """The SOPInstanceUID, which follows from all that the object states (``uid_of``)."""
    references = str([(one.instance, one.frame) for one in series.planes])
    stated = series.headers[0].to_json(suppress_invalid_tags=True)
    return uid_of(
        *("SEG", stated, references, str(present), str(frames.shape), *words),
        np.packbits(frames).tobytes() if frames.ndim == 4 else frames.tobytes(),
    )


def _with_dates_of(source: Any, seg: Any) -> Any:
    """The object with the dates of its scan and UIDs that follow from its own, where highdicom puts
    the time of this call and new ones.
    """
    date, time = date_of(source)
    for name in filter(seg.__contains__, ("ContentDate", "SeriesDate", "InstanceCreationDate")):
        setattr(seg, name, date)
    for name in filter(seg.__contains__, ("ContentTime", "SeriesTime", "InstanceCreationTime")):
        setattr(seg, name, time)
    for item in seg.get("ContributingEquipmentSequence") or ():
        item.ContributionDateTime = date + time
    organisation = uid_of("dimensions", seg.SOPInstanceUID)
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in seg.get(name) or ():
            item.DimensionOrganizationUID = organisation
    return seg


def _as_measured(seg: Any, series: SourceSeries, measures: Any) -> Any:
    """The object with these measures, of which highdicom repeats those of the source if the pixels
    have one size; the numbers of the frames of ``_with_frames`` become those of the file, from 1.
    """
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = measures
    derived = "DerivationImageSequence", "SourceImageSequence"
    frames = items_in(seg, "PerFrameFunctionalGroupsSequence", *derived)
    for item in frames if series.of_frames else ():
        frame = series.planes[int(item.ReferencedFrameNumber) - 1].frame
        assert frame is not None  # of all, as of the first
        item.ReferencedFrameNumber = frame + 1
    return seg


def _pixel_measures(series: SourceSeries) -> Any:
    """State the pixel spacing of the scan and the measured gap between its slices."""
    import highdicom as hd

    # The gap is that across the planes, also if the gantry was tilted.
    column, row, gap = series.grid.orthogonal().spacing_mm
    return hd.PixelMeasuresSequence(
        pixel_spacing=_spacing(series.headers[0], row, column),
        slice_thickness=gap,
        spacing_between_slices=gap,
    )


def _spacing(source: Any, row_mm: float, column_mm: float) -> tuple[float, float]:
    """Return PixelSpacing exactly as in the source header."""
    # Viewers compare it with the scan, and computed spacings differ in the last digit.
    given = source.get("PixelSpacing")
    return (float(given[0]), float(given[1])) if given else (row_mm, column_mm)


def _description(number: int, label: Label, identity: Any, uid: str) -> Any:
    """Describe one segment: its codes, colour and algorithm."""
    import highdicom as hd

    category, kind = coded(label)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_concept(category),
        segmented_property_type=_concept(kind),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identity,
        tracking_uid=uid_of("tracking", uid, label.name),
        tracking_id=label.name[:64],
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    # The side is a modifier of the property type (laterality).
    if label.side is not None:
        description.SegmentedPropertyTypeCodeSequence[
            0
        ].SegmentedPropertyTypeModifierCodeSequence = [_concept(SIDES[label.side])]
    return description


def _concept(code: Code, scheme: str = "SCT") -> Any:
    """Make highdicom's coded concept."""
    import highdicom as hd

    return hd.sr.CodedConcept(code.value, scheme, code.meaning)
