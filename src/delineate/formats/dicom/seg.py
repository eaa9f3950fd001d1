"""Label volumes to DICOM Segmentation objects (PS3.3 A.51), written by highdicom.

Owns how a structure's name becomes a coded segment, and the proof that every mask slice stands on
its source slice. Type BINARY, as it is the most widely read; frames without a voxel are left out.
Reading SEG is left to a later version. The mask's own thickness is the measured gap between slices:
what SliceThickness says of the scan need not fill the space.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core import atomic
from ...core.errors import FormatError, GeometryError, LabelError, OutputError
from ...core.grid import GRID_TOLERANCE_MM, Grid
from ...core.labels import Label, LabelMapping, LabelSet, side_of
from ...core.volume import Volume
from ..disk import told
from .find import find_series
from .geometry import layout


@dataclass(frozen=True)
class _Code:
    """A SNOMED CT concept: its number and meaning."""

    value: str
    meaning: str


STRUCTURE = _Code("91723000", "Anatomical Structure")
ABNORMAL = _Code("49755003", "Morphologically Abnormal Structure")
SIDES = {"left": _Code("7771000", "Left"), "right": _Code("24028007", "Right")}
# Structure's name without its side -> type of PS3.16 CID 7192 and others; names that are not here
# are "Anatomical Structure".
TYPES = {
    "liver": _Code("10200004", "Liver"),
    "spleen": _Code("78961009", "Spleen"),
    "kidney": _Code("64033007", "Kidney"),
    "pancreas": _Code("15776009", "Pancreas"),
    "gallbladder": _Code("28231008", "Gallbladder"),
    "stomach": _Code("69695003", "Stomach"),
    "adrenal gland": _Code("23451007", "Adrenal gland"),
    "lung": _Code("39607008", "Lung"),
    "heart": _Code("80891009", "Heart"),
    "aorta": _Code("15825003", "Aorta"),
    "brain": _Code("12738006", "Brain"),
    "hippocampus": _Code("5366008", "Hippocampus"),
    "prostate": _Code("41216001", "Prostate"),
    "urinary bladder": _Code("89837001", "Bladder"),
    "esophagus": _Code("32849002", "Esophagus"),
}
TUMOUR = _Code("108369006", "Neoplasm")
TUMOURS = ("tumour", "tumor", "neoplasm", "lesion", "metastasis", "cancer")
# Attributes of type 2 (may be empty, must be there) that anonymised series often lack.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "Manufacturer",
)


@dataclass(frozen=True)
class SegSource:
    """A series that a SEG can refer to: its grid, its files in the order of k, and their
    headers.
    """

    grid: Grid
    files: tuple[Path, ...]
    headers: tuple[Any, ...]


def seg_source(
    series_files: Sequence[str | Path],
    labels: LabelSet,
    *,
    algorithm_name: str,
    algorithm_version: str,
) -> SegSource:
    """Read what a SEG needs of a series, and make one of a single voxel, so that a series without
    what it takes is known before any work.

    Args:
        series_files: all files of one DICOM series, in any order.
        labels, algorithm_name, algorithm_version: as for ``write_seg``.

    Raises:
        GeometryError, FormatError: no SEG can refer to this series; the file and what it lacks are
            named.
    """
    grid, files = _series_of(series_files)
    source = SegSource(grid, tuple(files), tuple(_source(file) for file in files))
    frames = np.zeros((grid.shape[2], grid.shape[1], grid.shape[0]), np.uint8)
    frames[0, 0, 0] = 1
    _segmentation(
        frames, list(labels)[:1], source, (algorithm_name, algorithm_version), 900, "Segmentation"
    )
    return source


def write_seg(
    labels_volume: Volume,
    labels: LabelSet,
    series: SegSource | Sequence[str | Path],
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_number: int = 900,
    series_description: str = "Segmentation",
) -> list[str]:
    """Write one SEG object that refers to every slice of its series, one segment a structure.

    Args:
        labels_volume: (I, J, K) label values; its grid is the series' own, or that one flipped and
            permuted.
        labels: names, colours, sides and codes ("10200004" or "SCT:10200004"); values of the volume
            must be in it.
        series: all files of one DICOM series, in any order; or what ``seg_source`` made of them.
        path: of the new file.
        algorithm_name, algorithm_version: what drew the masks, written into every segment.
        series_number, series_description: of the new series.

    Returns:
        One sentence for each structure that has no voxel and is therefore left out.

    Raises:
        GeometryError: the volume does not stand on the series within 0.1 mm, or the series is not
            one even stack.
        FormatError: a file is no image, the files are of several series, or lack what a SEG must
            repeat.
        LabelError: values that ``labels`` does not have.
        OutputError: no structure has a voxel (a SEG has at least one segment and frame), or the
            disk says no.
    """
    if not isinstance(series, SegSource):
        grid, files = _series_of(series)
        series = SegSource(grid, tuple(files), tuple(_source(file) for file in files))
    array = _on_series(labels_volume, series.grid, labels)
    present = [label for label in labels if (array == label.value).any()]
    if not present:
        raise OutputError(
            f"none of {', '.join(labels.names) or 'no structures'} has a voxel; a DICOM SEG "
            "needs at least one",
            path=path,
        )
    frames = _segment_numbers(array, present)
    segmentation = _segmentation(
        frames,
        present,
        series,
        (algorithm_name, algorithm_version),
        series_number,
        series_description,
    )
    with atomic.replacing(path) as temporary:
        segmentation.save_as(temporary)
    return [
        f"{label.name} has no voxel and is left out of the SEG"
        for label in labels
        if label not in present
    ]


# ---- geometry ----


def _series_of(series_files: Sequence[str | Path]) -> tuple[Grid, list[Path]]:
    """The grid of the series and its files in the order of k."""
    if not series_files:
        raise FormatError("a DICOM SEG refers to the slices of a series, no file was given")
    found = []
    for file in series_files:
        series = find_series(file)
        if not series or not Path(file).is_file():
            raise FormatError("is not a DICOM image that a SEG could refer to", path=file)
        found.append(series[0])
    uids = {one.uid for one in found}
    if len(uids) > 1:
        raise FormatError(
            f"the files are of {len(uids)} series, a SEG is written for one",
            path=Path(series_files[0]).parent,
        )
    first = found[0]
    slices = tuple(one for series in found for one in series.slices)
    whole = replace(first, files=tuple(one.path for one in slices), slices=slices)
    with told(Path(series_files[0]).parent, "DICOM series"):
        grid, ordered = layout(whole)
    return grid, [one.path for one in ordered]


def _on_series(volume: Volume, grid: Grid, labels: LabelSet) -> NDArray[Any]:
    """The label values on the series' own grid, only flipped and permuted."""
    if volume.array.ndim != 3:
        raise LabelError(
            f"a SEG is written from one label volume, found {volume.channels} channels",
            path=volume.source or None,
        )
    moved = volume.reorient(grid.codes)
    if not moved.grid.matches(grid):
        distance = moved.grid.distance_mm(grid)
        found = (
            f"shape {moved.grid.shape} against {grid.shape}"
            if np.isinf(distance)
            else f"voxels up to {distance:.2f} mm away"
        )
        raise GeometryError(
            f"the masks are not on the series' slices: {found}; allowed: {GRID_TOLERANCE_MM} mm",
            path=volume.source or None,
        )
    return LabelMapping().apply(moved.array, labels)


def _segment_numbers(array: NDArray[Any], present: Sequence[Label]) -> NDArray[Any]:
    """(K, rows, columns): segment number 1..N of every pixel, 0 for none."""
    table = np.zeros(int(array.max()) + 1, np.uint8 if len(present) < 256 else np.uint16)
    for number, label in enumerate(present, start=1):
        table[label.value] = number
    return np.ascontiguousarray(table[array].transpose(2, 1, 0))


# ---- the object ----


def _segmentation(
    frames: NDArray[Any],
    present: Sequence[Label],
    series: SegSource,
    algorithm: tuple[str, str],
    series_number: int,
    series_description: str,
) -> Any:
    import highdicom as hd

    sources = list(series.headers)
    family = _concept(_Code("123110", "Artificial Intelligence"), "DCM")
    identity = hd.AlgorithmIdentificationSequence(
        name=algorithm[0][:64], version=algorithm[1][:64], family=family
    )
    column, row, gap = series.grid.spacing_mm
    measures = hd.PixelMeasuresSequence(
        pixel_spacing=_spacing(sources[0], row, column),
        slice_thickness=gap,
        spacing_between_slices=gap,
    )
    with warnings.catch_warnings():
        # About values of the source series, which are not ours to mend.
        warnings.simplefilter("ignore")
        try:
            seg = hd.seg.Segmentation(
                source_images=sources,
                pixel_array=frames,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(n, label, identity) for n, label in enumerate(present, start=1)
                ],
                series_instance_uid=hd.UID(),
                series_number=series_number,
                sop_instance_uid=hd.UID(),
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
                path=series.files[0].parent,
            ) from error
    return seg


def _source(file: Path) -> Any:
    """The header of a source slice, with the attributes that must be there though empty."""
    import pydicom

    with told(file, "DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    missing = [
        name
        for name in ("FrameOfReferenceUID", "StudyInstanceUID", "SOPInstanceUID", "SOPClassUID")
        if not dataset.get(name)
    ]
    if missing:
        raise FormatError(
            f"a SEG cannot refer to this series: {' and '.join(missing)} missing", path=file
        )
    for name in _MAY_BE_EMPTY:
        if name not in dataset:
            setattr(dataset, name, "")
    return dataset


def _spacing(source: Any, row_mm: float, column_mm: float) -> tuple[float, float]:
    """The source's own PixelSpacing, digit by digit."""
    given = source.get("PixelSpacing")
    return (float(given[0]), float(given[1])) if given else (row_mm, column_mm)


def _description(number: int, label: Label, identity: Any) -> Any:
    import highdicom as hd

    category, kind = coded(label)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_concept(category),
        segmented_property_type=_concept(kind),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identity,
        tracking_uid=hd.UID(),
        tracking_id=label.name[:64],
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    if label.side is not None:
        description.SegmentedPropertyTypeCodeSequence[
            0
        ].SegmentedPropertyTypeModifierCodeSequence = [_concept(SIDES[label.side])]
    return description


def coded(label: Label) -> tuple[_Code, _Code]:
    """Category and type of a structure: its own code, else by its name without the side, else
    "Anatomical Structure".
    """
    name = side_of(label.name)[1]
    if any(word in TUMOURS for word in name.split()):
        return ABNORMAL, TUMOUR
    own = label.code.removeprefix("SCT:").strip()
    if own.isdigit():
        return STRUCTURE, _Code(own, label.name[:64])
    return STRUCTURE, TYPES.get(name) or TYPES.get(name.removesuffix("s")) or STRUCTURE


def _concept(code: _Code, scheme: str = "SCT") -> Any:
    import highdicom as hd

    return hd.sr.CodedConcept(code.value, scheme, code.meaning)
