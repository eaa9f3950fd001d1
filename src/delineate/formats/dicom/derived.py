"""What all DICOM objects made of a series by highdicom share: the images as it needs them, its
objects with dates and UIDs that follow from their content, and its failures as errors of ours.

A frame of a multi-frame source is referred to by its number. highdicom reads the geometry of these
from functional groups in forms of its own, so it gets a header with what ``Plane`` knows in them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import FormatError, OutputError
from ...core.terms import PRIVATE, Code
from .deidentify.pseudonyms import STANDARD_ROOT
from .header.file import Plane
from .header.marks import items_in
from .identity import uid_of
from .source import SourceSeries, date_of

# Of the making of an object; all are those of its scan.
DATES = ("ContentDate", "SeriesDate", "InstanceCreationDate", "DateOfSecondaryCapture")
FRAMES = "PerFrameFunctionalGroupsSequence"
TIMES = ("ContentTime", "SeriesTime", "InstanceCreationTime", "TimeOfSecondaryCapture")


@contextmanager
def by_highdicom(what: str, series: SourceSeries) -> Iterator[None]:
    """Its refusals of the headers of a series as errors; its warnings about their values, which
    cannot be changed here, are not printed.

    Raises:
        FormatError: it rejects them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            kind = series.planes[0].sop_class
            if isinstance(error, KeyError) and not kind.startswith(STANDARD_ROOT):
                raise FormatError(
                    f"a {what} cannot refer to images of a private class ({kind})",
                    path=series.planes[0].path.parent,
                ) from error
            raise FormatError(
                f"a {what} cannot refer to this series ({type(error).__name__}: {error})",
                path=series.planes[0].path.parent,
            ) from error


def source_images(series: SourceSeries) -> list[Any]:
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
    if not first.position:
        raise FormatError("a frame without a place in space, to which only key objects refer")
    shared = group("PlaneOrientationSequence", ImageOrientationPatient=first.orientation)
    shared.update(group("PixelMeasuresSequence", PixelSpacing=first.spacing, SliceThickness=1.0))
    out = Dataset(header)
    out.SharedFunctionalGroupsSequence = [shared]
    out.PerFrameFunctionalGroupsSequence = [
        group("PlanePositionSequence", ImagePositionPatient=one.position) for one in planes
    ]
    out.NumberOfFrames = len(planes)
    return out


def pixel_measures(series: SourceSeries) -> Any:
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


def new_series(
    series: SourceSeries, kind: str, uid: str, algorithm: tuple[str, str], description: str
) -> dict[str, Any]:
    """The arguments of highdicom for an object that is a series of its own.

    Args:
        series: that the object refers to.
        kind: one of ``source.OBJECTS``.
        uid: of the object.
        algorithm: name and version.
        description: of the new series.
    """
    return {
        "series_instance_uid": uid_of("series", uid),
        "series_number": series.number_of(kind),
        "series_description": description[:64],
        "sop_instance_uid": uid,
        "instance_number": 1,
        "manufacturer": "delineate",
        "manufacturer_model_name": algorithm[0][:64],
        "software_versions": algorithm[1][:64],
        "device_serial_number": "1",
    }


def as_measured(seg: Any, series: SourceSeries, measures: Any) -> Any:
    """The object with these measures, of which highdicom repeats those of the source if the pixels
    have one size; the numbers of the frames of ``_with_frames`` become those of the file, from 1.
    """
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = measures
    derived = "DerivationImageSequence", "SourceImageSequence"
    frames = items_in(seg, "PerFrameFunctionalGroupsSequence", *derived)
    # highdicom puts one item into the frames of all segments.
    different = {id(item): item for item in frames}
    for item in different.values() if series.of_frames else ():
        frame = series.planes[int(item.ReferencedFrameNumber) - 1].frame
        assert frame is not None  # of all, as of the first
        item.ReferencedFrameNumber = frame + 1
    return seg


def with_dates_of(source: Any, made: Any) -> Any:
    """The object with the dates of its scan and UIDs that follow from its own, where highdicom puts
    the time of this call and new ones.
    """
    date, time = date_of(source)
    for name in filter(made.__contains__, DATES):
        setattr(made, name, date)
    for name in filter(made.__contains__, TIMES):
        setattr(made, name, time)
    for item in made.get("ContributingEquipmentSequence") or ():
        item.ContributionDateTime = date + time
    organisation = uid_of("dimensions", made.SOPInstanceUID)
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(name) or ():
            item.DimensionOrganizationUID = organisation
    return with_scheme(made)


def with_scheme(made: Any) -> Any:
    """The object with the responsible organisation of our own codes, if it has any (SOP Common
    module, PS3.3 C.12.1).
    """
    from pydicom.dataset import Dataset

    # Frames repeat the codes of the first one.
    frames = list(made.get(FRAMES) or ())[:1]
    whole = [item for one in made if one.VR == "SQ" and one.keyword != FRAMES for item in one.value]
    if any(map(_is_coded, [*whole, *frames])):
        scheme = Dataset()
        scheme.CodingSchemeDesignator = PRIVATE
        scheme.CodingSchemeName = "Structures and quantities without a code in another scheme"
        scheme.CodingSchemeResponsibleOrganization = "delineate"
        made.CodingSchemeIdentificationSequence = [scheme]
    return made


def _is_coded(item: Any) -> bool:
    """Whether an item, or one within it, is a code of our own scheme."""
    if item.get("CodingSchemeDesignator") == PRIVATE:
        return True
    return any(_is_coded(inner) for one in item if one.VR == "SQ" for inner in one.value)


def algorithm_of(name: str, version: str) -> Any:
    """The identification of an algorithm; DICOM limits these strings (LO) to 64 characters."""
    import highdicom as hd

    family = concept(Code("123110", "Artificial Intelligence", "DCM"))
    return hd.AlgorithmIdentificationSequence(name=name[:64], version=version[:64], family=family)


def device_of(algorithm: tuple[str, str]) -> Any:
    """The algorithm, by name and version, as the observer of a report (PS3.16 TID 1002)."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    name, version = algorithm
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", name, version),
        name=f"{name}, {version}",
        manufacturer_name="delineate",
        model_name=name,
    )
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=attributes
    )


def prove(is_equal: bool, what: str, path: str | Path) -> None:
    """Refuse an object that is not what was to be written when it is read again.

    Raises:
        OutputError: it is not.
    """
    if not is_equal:
        raise OutputError(f"has other {what} when it is read again, and is not kept", path=path)


def concept(code: Code) -> Any:
    """Make highdicom's coded concept."""
    import highdicom as hd

    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)
