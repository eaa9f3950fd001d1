"""The series that a written label object refers to: its slices, their headers, and the masks on
them.

Masks are only flipped and permuted, never resampled: every mask slice coincides with a slice of the
series, or the object is refused. Slices that were interpolated (``fix``) have no image to refer to.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError, LabelError, OutputError
from ...core.grid import GRID_TOLERANCE_MM, Grid
from ...core.labels import Label, LabelMapping, LabelSet, unique_values
from ...core.volume import Volume
from .. import archive
from ..disk import told
from .find import find_series
from .geometry import layout
from .group import volumes
from .header.file import Plane, Series, SeriesFacts, lenient, open_dataset
from .identity import uid_of

# Attributes of type 2 (must be present, may be empty) that anonymised series often lack.
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


# Attributes of the patient and the study, which all objects of a study repeat.
STUDY = (
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
# The most characters of a value, by its VR (PS3.5 6.2), of attributes that objects copy.
_MOST = {"SH": 16, "LO": 64, "PN": 64}
_DATES = {  # the form of a value, PS3.5 6.2; what follows it is optional
    "StudyDate": r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])",
    "StudyTime": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?",
}
_DATES |= {
    f"{name}{kind}": _DATES[f"Study{kind}"]
    for name in ("Series", "Acquisition", "Content", "PatientBirth")
    for kind in ("Date", "Time")
}
# The objects that are made of a series, in the order of their series numbers.
OBJECTS = ("seg", "rtstruct", "sr", "pm", "kos", "sc")
UNNUMBERED = 9  # instead of the number of a series that has none that can be used
MOST_NUMBER = 20_000_000  # a number has at most 31 bits
_COPIED = ("StudyID", "AccessionNumber", "PatientID", "StudyDescription")


@dataclass(frozen=True)
class SourceSeries:
    """A series that a label object can refer to: its grid, the slices k with a plane of their own,
    these planes, the header of each, or a single one if they are frames, and notes about values
    that were changed to be valid.
    """

    grid: Grid
    slices: tuple[int, ...]
    planes: tuple[Plane, ...]
    headers: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    @property
    def of_frames(self) -> bool:
        return self.planes[0].frame is not None

    def number_of(self, kind: str) -> int:
        """The series number of an object of a kind of ``OBJECTS``: 100 times that of this series,
        plus 90 and the place of the kind there.
        """
        text = str(self.headers[0].get("SeriesNumber") or "")
        own = int(text) if text.isdecimal() and 0 < int(text) <= MOST_NUMBER else UNNUMBERED
        return 100 * own + 90 + OBJECTS.index(kind)

    def uid_with(self, *content: str | bytes | memoryview) -> str:
        """The SOPInstanceUID of an object with this content about the series (``uid_of``)."""
        planes = ((p.instance, p.frame, p.position, p.orientation, p.spacing) for p in self.planes)
        references = str([*planes])
        stated = self.headers[0].to_json(suppress_invalid_tags=True)
        return uid_of(stated, references, *content)

    def notes_about(self, labels: LabelSet, present: Sequence[Label], what: str) -> list[str]:
        """One sentence for each value that was cut, and for each structure without a voxel."""
        empty = [label.name for label in labels if label not in present]
        return [*self.notes, *(f"{n} has no voxel and is left out of the {what}" for n in empty)]


def source_of(given: Series | Sequence[str | Path], what: str = "SEG") -> SourceSeries:
    """Read the grid and the headers of a series.

    Args:
        given: as found, or all files of one DICOM series, in any order.
        what: the object that will refer to it, for the messages.

    Raises:
        FormatError: a file is not an image, the files belong to several series, their slices are
            tiles of mosaics or frames of several files, or an attribute is missing.
        GeometryError: they are no evenly spaced stack.
    """
    series = given if isinstance(given, Series) else series_of(given, what)
    folder = series.files[0].parent
    with told(folder, "DICOM series"):
        grid, ordered = layout(series)
        if any(one.tile is not None for one in ordered):
            raise FormatError(
                f"a {what} cannot refer to the tiles of a mosaic, whose slices are no images of "
                "their own"
            )
        kept = [k for k, one in enumerate(ordered) if not one.interpolated]
        planes = tuple(ordered[k] for k in kept)
        files = tuple(dict.fromkeys(one.path for one in planes))
        if planes[0].frame is not None and len(files) > 1:
            raise FormatError(
                f"a {what} refers to the frames of one file; the frames of this series are in "
                f"{len(files)}"
            )
    headers = tuple(_header(file, what) for file in files)
    # What objects repeat of the patient and the study is that of the first slice.
    to_unicode(headers[0])
    notes = dict.fromkeys(
        note
        for one in headers
        for note in (*_framed(one, planes), *_aged(one), *_dated(one), *shortened(one))
    )
    return SourceSeries(grid, tuple(kept), planes, headers, tuple(notes))


def series_of(series_files: Sequence[str | Path], what: str) -> Series:
    """The series that the files are."""
    if not series_files:
        raise FormatError(f"a DICOM {what} refers to the slices of a series, but no file was given")
    found: list[Series] = []
    # Read each file on its own: a folder may hold files that were not given.
    for file in series_files:
        series = find_series(file)
        if not series or not archive.is_file(Path(file)):
            raise FormatError(f"is not a DICOM image, so a {what} cannot refer to it", path=file)
        found += series
    uids = {one.uid for one in found}
    folder = Path(series_files[0]).parent
    if len(uids) > 1:
        raise FormatError(
            f"the files belong to {len(uids)} series; a {what} refers to one", path=folder
        )
    # Put the planes back together, so that they are checked and sorted as one volume.
    planes = [one for series in found for one in series.planes]
    facts = [getattr(found[0], one.name) for one in fields(SeriesFacts)]
    whole = volumes(planes, SeriesFacts(*facts))
    if len(whole) > 1:
        raise FormatError(
            f"the files are {len(whole)} volumes of one series; a {what} refers to one", path=folder
        )
    return whole[0]


def _header(file: Path, what: str) -> Any:
    """Read the header of a source slice; attributes of type 2 that are missing are added empty."""
    with lenient(file, "DICOM image"):
        dataset = open_dataset(file, stop_before_pixels=True)
    missing = [
        name
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        if not dataset.get(name)
    ]
    if missing:
        raise FormatError(
            f"a {what} cannot refer to this series: {' and '.join(missing)} missing", path=file
        )
    for name in _MAY_BE_EMPTY:
        if name not in dataset:
            setattr(dataset, name, "")
    if not dataset.get("SliceThickness"):
        dataset.SliceThickness = 1  # highdicom needs one; ``_segmentation`` states the measured gap
    return dataset


def _framed(header: Any, planes: Sequence[Plane]) -> list[str]:
    """Give a header without a frame of reference one, and say so: the same for all objects made of
    the series, and no other series', of which it is not known whether positions can be compared.
    """
    if header.get("FrameOfReferenceUID"):
        return []
    header.FrameOfReferenceUID = uid_of("frame of reference", str(header.SeriesInstanceUID))
    if len(planes) == 1 and not planes[0].position:
        return ["the image has no place in space; the object is tied to it by its SOPInstanceUID"]
    return [
        "the series has no FrameOfReferenceUID; the object has one of its own for its positions, "
        "and is tied to the images by their SOPInstanceUIDs"
    ]


def to_unicode(header: Any) -> None:
    """Make UTF-8 the character set of a header, because names of structures may have characters
    that its own lacks. Texts in a set that is not stated keep their bytes.
    """
    if header.get("SpecificCharacterSet") == "ISO_IR 192":
        return  # names of persons would be decoded twice
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about texts that violate their set
        texts = (str(header.get(name) or "") for name in (*_MAY_BE_EMPTY, *_COPIED))
        if header.get("SpecificCharacterSet") or all(map(str.isascii, texts)):
            header.decode()
            header.SpecificCharacterSet = "ISO_IR 192"
        else:
            header.pop("SpecificCharacterSet", None)  # one without a value


def _aged(header: Any) -> list[str]:
    """Write the age of a patient with three digits (AS, PS3.5 6.2), and leave out other texts; a
    sentence if it was changed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about this text
        text = str(header.get("PatientAge") or "")
    if not text or re.fullmatch(r"\d{3}[DWMY]", text):
        return []
    if found := re.fullmatch(r"(\d{1,2})([DWMY])", text):
        header.PatientAge = f"{int(found[1]):03d}{found[2]}"
        return [f"PatientAge {text} is written as {header.PatientAge}"]
    del header.PatientAge
    return [f"PatientAge {text} is no age and is left out"]


def _dated(header: Any) -> list[str]:
    """Leave out dates and times that are none (PS3.5 6.2); a sentence for each."""
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about these texts
        for name, form in _DATES.items():
            value = str(header.get(name) or "").strip()
            if value and not re.fullmatch(form, value):
                setattr(header, name, "")
                kind = "date" if name.endswith("Date") else "time"
                # That of a birth is no one's business.
                shown = "" if name.startswith("Patient") else f" {value}"
                notes.append(f"{name}{shown} is no {kind} of DICOM and is left out")
    return notes


def shortened(header: Any) -> list[str]:
    """Cut values that are longer than their VR allows; a sentence for each."""
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about the values that are cut
        if header.get("PatientName") and (name := _of_groups(header.PatientName)):
            header.PatientName = name
            notes.append(f"PatientName is cut to the {_MOST['PN']} characters allowed")
        for name in filter(header.__contains__, _COPIED):
            value, most = str(header[name].value or ""), _MOST[header[name].VR]
            if len(value) > most:
                setattr(header, name, value[:most].rstrip())
                notes.append(f"{name} has {len(value)} characters and is cut to the {most} allowed")
    return notes


def _of_groups(name: Any) -> str:
    """A name whose groups are cut to their length (PS3.5 6.2.1.2); "" if they fit."""
    groups = str(name).split("=")
    most = _MOST["PN"]
    return "" if max(map(len, groups)) <= most else "=".join(one[:most] for one in groups[:3])


def date_of(header: Any) -> tuple[str, str]:
    """Date and time of a scan, for objects made of it: they state no time of their own, so that the
    same content is the same object. The first day of DICOM's calendar if the scan has none.
    """
    for name in ("Series", "Acquisition", "Content", "Study"):
        if date := str(header.get(f"{name}Date") or ""):
            return date, str(header.get(f"{name}Time") or "000000")
    return "19000101", "000000"


def is_flat(source: SourceSeries) -> bool:
    """Whether the source is a 2-D image without a place in space."""
    return len(source.planes) == 1 and not source.planes[0].position


def on_series(volume: Volume, source: SourceSeries, labels: LabelSet) -> NDArray[Any]:
    """(I, J, planes) the label values on the planes of a series.

    Raises:
        GeometryError: the volume differs from the grid by more than ``GRID_TOLERANCE_MM``.
        LabelError: it has channels, or values that ``labels`` does not have.
    """
    if volume.array.ndim != 3:
        raise LabelError(
            f"it must be a single label volume, found {volume.channels} channels",
            path=volume.source or None,
        )
    array = on_planes(volume, source)
    return array if labels.overlapping else LabelMapping().apply(array, labels)


def on_planes(volume: Volume, source: SourceSeries) -> NDArray[Any]:
    """(..., I, J, planes) the values on the planes of a series.

    Raises:
        GeometryError: the volume differs from the grid by more than ``GRID_TOLERANCE_MM``.
    """
    grid = source.grid
    # Flips and permutations do not change a voxel. Masks are never resampled here.
    moved = volume.reorient(grid.codes)
    if not moved.grid.matches(grid):
        distance = moved.grid.distance_mm(grid)
        found = (
            f"shape {moved.grid.shape} instead of {grid.shape}"
            if np.isinf(distance)
            else f"voxels up to {distance:.2f} mm away"
        )
        raise GeometryError(
            f"the voxels are not on the slices of the series: {found}; allowed: "
            f"{GRID_TOLERANCE_MM} mm",
            path=volume.source or None,
        )
    return moved.array[..., list(source.slices)]


def inside(array: NDArray[Any], labels: LabelSet, label: Label) -> NDArray[np.bool_]:
    """The voxels of a structure in what ``on_series`` gives: those of its own value, or code."""
    return labels.inside(array, label) if labels.overlapping else array == label.value


def present_labels(
    array: NDArray[Any], labels: LabelSet, path: str | Path, what: str = "SEG"
) -> list[Label]:
    """List the structures that have a voxel.

    Raises:
        OutputError: none has one.
    """
    values = np.array(unique_values(array), np.intp)
    present = [label for label in labels if inside(values, labels, label).any()]
    if not present:
        raise OutputError(
            f"no structure has a voxel ({', '.join(labels.names) or 'none declared'}); a DICOM "
            f"{what} needs at least one",
            path=path,
        )
    return present
