"""Measurements of structures as a Structured Report (PS3.3 A.35.13, PS3.16 TID 1500), written by
highdicom.

A measurement group (TID 1411) refers to a segment of a SEG, and repeats its name, codes, side and
tracking UID.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ....core import atomic
from ....core.terms import PRIVATE, Code
from ..derived import by_highdicom, concept, device_of, new_series, prove, with_dates_of
from ..header.file import open_dataset
from ..source import SourceSeries

DIGITS = 6  # of a measurement
ARBITRARY = Code("[arb'U]", "arbitrary unit", "UCUM")
# Unit of ``core.volume``, or modality -> what the intensities are, and their unit.
INTENSITIES = {
    "HU": (
        Code("112031", "Attenuation Coefficient", "DCM"),
        Code("[hnsf'U]", "Hounsfield unit", "UCUM"),
    ),
    "SUV": (
        Code("126401", "SUVbw", "DCM"),
        Code("g/ml{SUVbw}", "Standardized Uptake Value body weight", "UCUM"),
    ),
    "Bq/ml": (
        Code("122093", "Concentration", "DCM"),
        Code("Bq/ml", "Becquerels/milliliter", "UCUM"),
    ),
    "MR": (Code("110852", "MR signal intensity", "DCM"), ARBITRARY),
}
OTHER = Code("intensity", "Image intensity", PRIVATE), ARBITRARY
MEAN, SD = Code("373098007", "Mean"), Code("386136009", "Standard Deviation")
VOLUME = Code("118565006", "Volume"), Code("ml", "milliliter", "UCUM")
MM = Code("mm", "millimeter", "UCUM")
AXES = (Code("103339001", "Long Axis"), MM), (Code("103340004", "Short Axis"), MM)
FLAG, MOST_KIND, MOST_MEANING = Code("flag", "Flag", PRIVATE), 16, 64  # characters of a code
# Modality -> what was reported on (PS3.16 CID 100).
PROCEDURES = {
    "CT": Code("25045-6", "CT unspecified body region", "LN"),
    "MR": Code("25056-3", "MRI unspecified body region", "LN"),
    "PT": Code("44136-0", "PET unspecified body region", "LN"),
    "NM": Code("49118-3", "NM unspecified body region", "LN"),
}
IMAGING = Code("363679005", "Imaging procedure")


@dataclass(frozen=True)
class Measured:
    """The measurements of one structure. ``mean`` and ``sd`` are of the intensities of its voxels,
    NaN if none is known; see ``metrics.diameters`` for the axes. ``flags`` are the kind and the
    sentence of what is implausible about it.
    """

    name: str
    volume_ml: float
    mean: float
    sd: float
    long_axis_mm: float
    short_axis_mm: float
    flags: tuple[tuple[str, str], ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """The measurements, as they are written: to 6 digits, without NaN."""
        own = (getattr(self, one.name) for one in fields(self) if one.type == "float")
        return tuple(float(f"{v:.{DIGITS}g}") for v in own if not math.isnan(v))


def write_sr(
    rows: Sequence[Measured],
    unit: str,
    seg: str | Path,
    series: SourceSeries,
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_description: str = "Measurements",
) -> None:
    """Write one report with a group for each segment.

    Args:
        rows: the measurements of the segments, in their order.
        unit: of the intensities, as of ``core.volume.Volume``.
        seg: the file of the SEG that the groups refer to.
        series: that was measured.
        path: of the new file.
        algorithm_name, algorithm_version: of the algorithm that made the segments.
        series_description: of the new series.

    Raises:
        FormatError: the series or the SEG lack attributes that the report must repeat.
        OutputError: the file cannot be written, or has other numbers when it is read again.
    """
    import highdicom as hd

    algorithm = algorithm_name, algorithm_version
    segments = open_dataset(seg, stop_before_pixels=True)
    words = segments.SOPInstanceUID, str(rows), unit, *algorithm, series_description
    uid = series.uid_with("SR", *words)
    modality = str(series.headers[0].get("Modality", ""))
    kind = INTENSITIES.get(unit) or INTENSITIES.get(modality) or OTHER
    with by_highdicom("structured report", series):
        groups = [
            _group(row, segment, kind, segments, series)
            for row, segment in zip(rows, segments.SegmentSequence, strict=True)
        ]
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(
                observer_device_context=device_of(algorithm)
            ),
            procedure_reported=concept(PROCEDURES.get(modality, IMAGING)),
            imaging_measurements=groups,
        )
        document: Any = hd.sr.Comprehensive3DSR(
            evidence=[segments, *series.headers],
            content=report,
            is_complete=True,
            **new_series(series, "sr", uid, algorithm, series_description),
        )
    with_dates_of(series.headers[0], document)
    with atomic.replacing(path) as temporary:
        document.save_as(temporary)
        written = [(row.values, [one.value for one in _flags(row)]) for row in rows]
        prove(_content(temporary) == written, "measurements", path)


def _content(path: Path) -> list[tuple[tuple[float, ...], list[str]]]:
    """The measurements of each group of a report, and the kinds of its flags."""
    import highdicom as hd

    report: Any = hd.sr.srread(path).content
    return [
        (
            tuple(one.value for one in group.get_measurements()),
            [one.value.value for one in group.get_qualitative_evaluations(name=concept(FLAG))],
        )
        for group in report.get_volumetric_roi_measurement_groups()
    ]


def _flags(row: Measured) -> list[Code]:
    """The flags of a structure as codes, whose meaning is the sentence as far as it fits."""
    return [
        Code(kind[:MOST_KIND].rstrip(), words[:MOST_MEANING].rstrip(), PRIVATE)
        for kind, words in row.flags
    ]


def _group(
    row: Measured, segment: Any, intensity: tuple[Code, Code], seg: Any, series: SourceSeries
) -> Any:
    """The measurements of one segment."""
    import highdicom as hd

    sr, kind = hd.sr, segment.SegmentedPropertyTypeCodeSequence[0]
    # The place of a lesion is its region; that of an organ is the organ itself.
    region = (segment.get("AnatomicRegionSequence") or [kind])[0]
    side = region.get("AnatomicRegionModifierSequence") or kind.get(
        "SegmentedPropertyTypeModifierCodeSequence"
    )
    site = sr.FindingSite(_copied(region), laterality=_copied(side[0]) if side else None)
    known = [] if math.isnan(row.mean) else [(*intensity, MEAN), (*intensity, SD)]
    stated = [(*VOLUME, None), *known, *((*axis, None) for axis in AXES)]
    measured = [
        sr.Measurement(
            concept(name), value, concept(unit), derivation=concept(how) if how else None
        )
        for (name, unit, how), value in zip(stated, row.values, strict=True)
    ]
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=segment.TrackingUID, identifier=segment.TrackingID
        ),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=int(segment.SegmentNumber),
            source_series=sr.SourceSeriesForSegmentation(series.headers[0].SeriesInstanceUID),
        ),
        finding_category=_copied(segment.SegmentedPropertyCategoryCodeSequence[0]),
        finding_type=_copied(kind),
        finding_sites=[site],
        measurements=measured,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(concept(FLAG), concept(one)) for one in _flags(row)
        ]
        or None,
    )


def _copied(item: Any) -> Any:
    """The code of an item of another object, without its modifiers."""
    import highdicom as hd

    own = hd.sr.CodedConcept.from_dataset(item)
    return hd.sr.CodedConcept(own.value, own.scheme_designator, own.meaning, own.scheme_version)
