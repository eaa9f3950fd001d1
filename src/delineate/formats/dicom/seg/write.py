"""Label volumes as DICOM Segmentation objects (PS3.3 A.51), written by highdicom.

The type is BINARY, the most widely supported one; frames without a voxel are omitted. The slice
thickness of the masks is the measured gap between slices, because the scan's SliceThickness need
not fill the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core import atomic
from ....core.labels import Label, LabelSet
from ....core.terms import coding_of
from ....core.volume import Volume
from ..derived import (
    algorithm_of,
    as_measured,
    by_highdicom,
    concept,
    new_series,
    pixel_measures,
    source_images,
    with_dates_of,
)
from ..header.file import Series
from ..identity import uid_of
from ..source import SourceSeries, on_series, present_labels, source_of


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
        frames, list(labels)[:1], source, (algorithm_name, algorithm_version), "Segmentation"
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
        series_description: of the new series.

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
    segmentation = _segmentation(frames, present, series, algorithm, series_description)
    with atomic.replacing(path) as temporary:
        segmentation.save_as(temporary)
    return series.notes_about(labels, present, "SEG")


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
    series_description: str,
) -> Any:
    """Build the SEG object.

    Args:
        frames: (K, rows, columns) segment numbers, or (K, rows, columns, segments) masks.
        present: the structures, in the order of the segment numbers.
        series: the series it refers to.
        algorithm: name and version.
        series_description: of the new series.

    Raises:
        FormatError: highdicom rejects the headers of the series.
    """
    import highdicom as hd

    identity = algorithm_of(*algorithm)
    measures = pixel_measures(series)
    packed = np.packbits(frames).tobytes() if frames.ndim == 4 else frames.tobytes()
    codes = str([coding_of(label) for label in present])
    words = "SEG", str(present), codes, str(frames.shape), *algorithm, series_description
    uid = series.uid_with(*words, packed)
    with by_highdicom("SEG", series):
        seg = hd.seg.Segmentation(
            source_images=source_images(series),
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(n, label, identity, uid) for n, label in enumerate(present, start=1)
            ],
            pixel_measures=measures,
            content_label="SEGMENTATION",
            content_description=series_description[:64],
            omit_empty_frames=True,
            **new_series(series, "seg", uid, algorithm, series_description),
        )
    return with_dates_of(series.headers[0], as_measured(seg, series, measures))


def _description(number: int, label: Label, identity: Any, uid: str) -> Any:
    """Describe one segment: its codes, colour and algorithm."""
    import highdicom as hd

    coding = coding_of(label)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=concept(coding.category),
        segmented_property_type=concept(coding.kind),
        anatomic_regions=[concept(coding.region)] if coding.region else None,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identity,
        tracking_uid=uid_of("tracking", uid, label.name),
        tracking_id=label.name[:64],
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    if coding.side is None:
        return description
    # The side is a modifier of the region, else of the property type (laterality).
    if coding.region:
        item = description.AnatomicRegionSequence[0]
        item.AnatomicRegionModifierSequence = [concept(coding.side)]
    else:
        item = description.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [concept(coding.side)]
    return description
