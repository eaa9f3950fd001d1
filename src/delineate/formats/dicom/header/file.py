"""The header of one DICOM file as plain data, and the names of objects that hold no image
slices.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ....core.errors import FormatError, GeometryError
from ... import archive
from ...disk import HEAD_BYTES, told
from . import nuclear
from .elements import DEFLATED, ELSEWHERE, VRS, Header, Pixels, keyword_of
from .enhanced import Frame, flattened, frames_of
from .flat import FLAT, MOST_FRAMES, spacing_of
from .marks import Marks, kind_of, marks_of, number, numbers, text
from .mosaic import Tile, are_slices, is_mosaic, tiles_of

DICOMDIR = "1.2.840.10008.1.3.10"
DAMAGED = "damaged"
SAME_STATED = 1e-3  # mm, or of direction cosines
# Enhanced and legacy-converted CT, MR and PET: their geometry is stored per frame, even if there is
# only one frame.
ENHANCED = tuple(
    f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2.1", "2.2", "4.1", "4.4", "130", "128.1")
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# With CT, MR, PET and NM.
IMAGES = (
    *ENHANCED,
    *(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128", "20")),
    SECONDARY_CAPTURE,
)
SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"
# Beginnings of transfer syntaxes (PS3.5 A.4.5 to A.4.9).
VIDEO = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (100, 101)), "MPEG-2"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in range(102, 107)), "MPEG-4"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (107, 108)), "HEVC"),
}
# A part of a concatenation: its UID, number and first frame, and the number of parts; the numbers
# are None if they are not stated (PS3.3 C.7.6.16.2.2.4).
PART = (
    "ConcatenationUID",
    "InConcatenationNumber",
    "ConcatenationFrameOffsetNumber",
    "InConcatenationTotalNumber",
)
NUMBERS = ("RescaleSlope", "RescaleIntercept", "NumberOfFrames", "SamplesPerPixel")
# Groups of what is used of a header: how it was acquired, where it is, its pixels, its frames.
USED = (0x0018, 0x0020, 0x0028, 0x5200)
PET_UNITS = {"BQML": "Bq/ml", "GML": "SUV"}  # PS3.3 C.8.9.1.1.3; g/ml is SUV by body weight


@dataclass(frozen=True)
class Plane:
    """One plane of pixels and its header as plain data. Lengths are 0 if the attribute is missing
    (BitsStored in floating-point images); vectors are empty. Positions are in LPS mm, as on disk.

    ``frame`` is its index in a multi-frame file, from 0, or None; ``tile`` its rectangle (top,
    bottom, left, right) in the image of a mosaic, or None.
    """

    path: Path
    frame: int | None
    tile: tuple[int, int, int, int] | None
    instance: str
    sop_class: str
    rows: int
    columns: int
    frames: int
    samples: int
    kind: tuple[str, ...]  # ImageType
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]  # between rows, between columns
    between: float  # SpacingBetweenSlices
    thick: float  # SliceThickness
    slope: float
    intercept: float
    rescaled: bool
    bits: int
    signed: bool
    lookup: bool
    photometric: str
    marks: Marks
    problem: str = ""  # why it is no plane in space
    units: str = ""  # see ``_units``
    unread: str = ""  # why a value that is stated cannot be used
    interpolated: bool = False  # a missing plane between its neighbours, see ``fix``
    concatenation: tuple[str, float | None, float | None, float | None] | None = None  # ``PART``
    spacing_by: str = "PixelSpacing"  # what states the spacing; "" if nothing does
    is_projection: bool = False  # of nuclear medicine, see ``nuclear``
    in_patient: bool = True  # whether positions are those of the patient, or of the volume alone
    overruled: tuple[str, ...] = ()  # attributes of the file that its frames state differently
    is_unmapped: bool = False  # see ``enhanced.Frame``
    pixels: Pixels | None = field(default=None, compare=False)
    stated: Mapping[str, Any] = field(default_factory=dict, compare=False)  # ``values.stated``

    @property
    def thickness(self) -> float:
        """What the header states about the distance of slices, in mm."""
        return self.between or self.thick

    @property
    def is_flat(self) -> bool:
        """Whether it is a 2-D image (``flat``): its class has no position, and it has none."""
        may_be = self.sop_class in FLAT or self.is_projection
        return may_be and not (self.position and self.orientation)

    @property
    def is_colour(self) -> bool:
        return self.samples != 1 or self.photometric == "PALETTE COLOR"


@dataclass(frozen=True)
class SeriesFacts:
    """What a file states about its series; the description is that of the protocol if the series
    has none.
    """

    uid: str
    modality: str
    description: str
    number: str
    patient_id: str
    study: str
    contrast_agent: str


@dataclass(frozen=True)
class Series(SeriesFacts):
    """One volume of the files that share a SeriesInstanceUID, with its planes in natural order of
    their files.

    ``part`` is the name of the volume if the series has several ("echo2"), else "". Volumes of one
    ``family`` repeat the same positions. ``notes`` are sentences about how it was read;
    ``set_aside`` are files of the series that are no part of any volume, each with the reason;
    ``problem`` is why the planes are no volume, or ""; ``is_damaged`` if files were lost.
    """

    files: tuple[Path, ...] = field(repr=False)
    planes: tuple[Plane, ...] = field(repr=False)
    part: str = ""
    notes: tuple[str, ...] = ()
    set_aside: tuple[tuple[Path, str], ...] = ()
    family: str = ""
    problem: str = ""
    is_damaged: bool = False
    fixed: str = ""  # how it became even, see ``fix``

    @property
    def unit(self) -> str:
        """The unit of ``core.volume`` that its values have after the rescale."""
        units = {one.units for one in self.planes}
        if self.modality == "CT" and all(one.rescaled for one in self.planes):
            # Other types are maps of iodine, atomic numbers ... (PS3.3 C.11.1.1.2).
            return "HU" if units <= {"", "HU", "HU_MOD", "US"} else "a.u."
        return PET_UNITS.get("".join(units), "a.u.") if self.modality == "PT" else "a.u."

    @property
    def id(self) -> str:
        """What chooses the volume in its folder: the UID, and the part if there are several."""
        return f"{self.uid}/{self.part}" if self.part else self.uid

    def is_chosen_by(self, name: str) -> bool:
        """Whether ``name`` is the UID, or the UID and part, of the volume."""
        return name in (self.uid, self.id)

    @property
    def title(self) -> str:
        """One line for a person: modality, number, description, part, number of files, UID."""
        named = (self.modality, self.number, self.description, self.part)
        words = " ".join(word for word in named if word)
        return (
            f"{words or 'series'} ({len(self.files)} "
            f"file{'s' if len(self.files) != 1 else ''}, {self.uid})"
        )


def is_dicom(head: bytes) -> bool:
    """Return whether a file starts as DICOM does: "DICM" after the preamble or, without a preamble,
    a data element of group 2 or 8.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    # Old files lack the preamble and begin with an element, in explicit VR (two letters) or
    # implicit VR (a small length).
    group, element, length = struct.unpack("<HHI", head[:8])
    if group not in (2, 8) or element > 0x100:
        return False
    return head[4:6] in VRS or 0 < length <= 64


def read_header(path: Path) -> Header | None:
    """The elements of a file in front of its pixels, or None if the file is not DICOM."""
    with told(path, "DICOM file"), archive.opened(path) as file:
        if not is_dicom(file.read(HEAD_BYTES)):
            return None
        return Header(file, archive.nbytes_of(file, path), path)


@contextlib.contextmanager
def lenient(path: str | Path, what: str) -> Iterator[None]:
    """As ``told``, without the warnings of pydicom about values that violate the standard: readers
    check those that matter.
    """
    with told(path, what), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_dataset(path: str | Path, *, force: bool = True, **options: Any) -> Any:
    """pydicom's dataset of a file; deflated data are measured first, as pydicom unpacks them whole.

    Raises:
        FormatError: they would unpack to more than ``elements.MOST_DEFLATED`` bytes.
    """
    with archive.opened(path) as file:
        return dataset_in(file, force=force, **options)


def dataset_in(file: Any, *, force: bool = True, **options: Any) -> Any:
    """``open_dataset`` of an open file, from its beginning."""
    import pydicom

    file.seek(0)
    if DEFLATED.encode() in file.read(HEAD_BYTES):
        file.seek(0)
        Header(file, None)
    file.seek(0)
    return pydicom.dcmread(file, force=force, **options)


def is_image(path: Path) -> bool:
    """Return whether the DICOM file is an image of a series; False for segmentations, reports and
    unreadable files.
    """
    dataset = read_header(path)
    return dataset is not None and not not_an_image(dataset)


def is_flat_image(path: Path, without_spacing: bool = False) -> bool:
    """Whether the DICOM file is a 2-D image (``flat``), and no slice of a volume; only one that
    states no spacing if so wanted.
    """
    header = read_header(path)
    return (
        header is not None
        and not not_an_image(header)
        and all(
            one.is_flat and not (without_spacing and one.spacing) for one in planes_of(path, header)
        )
    )


def not_an_image(dataset: Any) -> str:
    """Return the name of an object without image slices; "" for an image."""
    name = str(dataset.get("Modality", ""))
    # These classes may have Rows and Columns, but they are not slices of a scan.
    if name in ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG"):
        return name
    # An image class without Rows and Columns is damaged; any other class without them is not an
    # image.
    if not dataset.get("Rows") or not dataset.get("Columns"):
        kind = str(
            dataset.get("SOPClassUID", "")
            or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID", "")
        )
        if not kind or kind in IMAGES:
            return DAMAGED
        return "DICOMDIR" if kind == DICOMDIR else name or "no image"
    return ""


def planes_of(path: Path, dataset: Any, stated: Mapping[str, Any] | None = None) -> list[Plane]:
    """The planes of an image file with what is ``stated`` of them; missing attributes get their
    defaults.
    """
    with told(path, "DICOM file"):
        kind = kind_of(dataset.get("ImageType"))
        one = Plane(
            path=path,
            frame=None,
            tile=None,
            instance=str(dataset.get("SOPInstanceUID", "")),
            sop_class=str(dataset.get("SOPClassUID", "")),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            frames=int(_number(dataset, "NumberOfFrames", 1)),
            samples=int(_number(dataset, "SamplesPerPixel", 1)),
            kind=kind,
            position=_vector(dataset, "ImagePositionPatient", 3),
            orientation=_vector(dataset, "ImageOrientationPatient", 6),
            spacing=_vector(dataset, "PixelSpacing", 2),
            between=_number(dataset, "SpacingBetweenSlices", 0),
            thick=_number(dataset, "SliceThickness", 0),
            slope=_number(dataset, "RescaleSlope", 1) or 1.0,
            intercept=_number(dataset, "RescaleIntercept", 0),
            rescaled="RescaleSlope" in dataset,
            bits=int(_number(dataset, "BitsStored", 0)),
            signed=bool(dataset.get("PixelRepresentation", 0)),
            lookup=dataset.has("ModalityLUTSequence"),
            photometric=text(dataset, "PhotometricInterpretation").upper(),
            marks=marks_of(dataset, kind),
            units=_units(dataset),
            unread=_unread(dataset),
            pixels=dataset.pixels(),
            stated=stated or {},
        )
        if uid := text(dataset, PART[0]):
            first, second, third = (number(dataset, name) for name in PART[1:])
            one = replace(one, concatenation=(uid, first, second, third))
        if problem := _problem(dataset):
            return [replace(one, problem=problem)]
        try:
            return _planes(one, dataset)
        except (FormatError, GeometryError) as error:
            return [replace(one, problem=error.message)]


def _planes(one: Plane, header: Header) -> list[Plane]:
    """The planes of an image.

    Raises:
        FormatError, GeometryError: they have no known place.
    """
    frames = frames_of(header, one.marks, one.frames)
    if not frames and one.sop_class in nuclear.CLASSES:
        frames = nuclear.frames_of(header, one.kind, one.marks, one.frames)
        if one.frames > 1 and nuclear.is_projection(header, one.kind):
            one = replace(one, is_projection=True, position=(), orientation=())
    if is_mosaic(header) or any(frame.is_mosaic for frame in frames):
        whole = flattened(header.as_dataset())
        if one.frames <= 1:
            image = _frame(one, 0, frames[0]) if frames else one
            return [_tile(image, tile) for tile in tiles_of(whole, bool(frames))]
        if not are_slices(whole, [frame.position for frame in frames]):
            raise FormatError(f"{one.frames} frames that are mosaics, or slices of one in part")
    planes = [_frame(one, n, frame) for n, frame in enumerate(frames)]
    if names := _overruled(one, frames):
        planes = [replace(plane, overruled=names) for plane in planes]
    if one.is_flat and not any(plane.position for plane in planes):
        return _pictures(one, header)
    return planes or [one]


def _frame(one: Plane, n: int, frame: Frame) -> Plane:
    """The plane of a frame; what its functional groups lack is as in the whole object ``one``."""
    return replace(
        one,
        frame=n,
        kind=frame.kind or one.kind,
        position=frame.position if len(frame.position) == 3 else (),
        orientation=frame.orientation if len(frame.orientation) == 6 else one.orientation,
        spacing=frame.spacing if len(frame.spacing) == 2 else one.spacing,
        between=frame.between or one.between,
        thick=frame.thick or one.thick,
        slope=one.slope if frame.slope is None else frame.slope,
        intercept=one.intercept if frame.slope is None else frame.intercept,
        rescaled=one.rescaled or frame.slope is not None,
        units=frame.units or one.units,
        marks=frame.marks,
        in_patient=frame.in_patient,
        is_unmapped=frame.is_unmapped,
    )


def _overruled(one: Plane, frames: Sequence[Frame]) -> tuple[str, ...]:
    """What a file states outside of its functional groups and no frame, or not every one, does."""
    slopes = [f for f in frames if f.slope is not None]
    wrong = {
        "RescaleSlope": one.rescaled and any(f.slope != one.slope for f in slopes),
        "RescaleIntercept": one.rescaled and any(f.intercept != one.intercept for f in slopes),
        "ImageOrientationPatient": _differ(one.orientation, [f.orientation for f in frames]),
        "PixelSpacing": _differ(one.spacing, [f.spacing for f in frames]),
    }
    return tuple(name for name, is_wrong in wrong.items() if is_wrong)


def _differ(stated: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    return bool(stated) and any(
        abs(a - b) > SAME_STATED
        for other in others
        if other
        for a, b in zip(stated, other, strict=False)
    )


def _tile(one: Plane, tile: Tile) -> Plane:
    """The plane of a tile of a mosaic."""
    top, bottom, left, right = tile.box
    return replace(
        one, tile=tile.box, rows=bottom - top, columns=right - left, position=tile.position
    )


def _units(dataset: Header) -> str:
    """Units of PET, g/ml of SUV by another rule than body weight with that rule, or RescaleType."""
    units = text(dataset, "Units") or text(dataset, "RescaleType")
    rule = text(dataset, "SUVType") if units == "GML" else ""
    return units if rule in ("", "BW") else f"{units} {rule}"


def _problem(dataset: Header) -> str:
    """Why an image cannot be read at all; "" if nothing in its header says so."""
    if str(dataset.get("SOPClassUID", "")) == SLIDES:
        return "a whole-slide image; OpenSlide and wsidicom read these"
    syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", ""))
    if dataset.stored is None and not dataset.is_inflated:
        return next((why for name, why in ELSEWHERE.items() if name in dataset), "")
    allocated = number(dataset, "BitsAllocated")
    if allocated and allocated != 1 and allocated % 8:
        return (
            f"its pixels are packed into {allocated:g} bits; whole bytes are read, and single bits"
        )
    name = next((name for start, name in VIDEO.items() if syntax.startswith(start)), "")
    return f"a video ({name}); FFmpeg extracts its pictures" if name else ""


def _unread(dataset: Header) -> str:
    """Why a value that is stated cannot be used, whose default or first value would be wrong."""
    if twice := sorted(tag for tag in dataset.repeated if tag >> 16 in USED):
        return f"{keyword_of(twice[0])} is stated twice, with different values"
    for one in NUMBERS:
        if dataset.has(one) and len(numbers(dataset, one)) != 1:
            return f"{one} is not a number"
    return ""


def _pictures(one: Plane, dataset: Any) -> list[Plane]:
    """The planes of a 2-D object, one a frame."""
    spacing, by = spacing_of(dataset)
    one = replace(one, spacing=spacing, spacing_by=by)
    if one.frames > MOST_FRAMES:
        return [replace(one, problem=f"{one.frames} frames; allowed are {MOST_FRAMES}")]
    return [one] if one.frames <= 1 else [replace(one, frame=n) for n in range(one.frames)]


def facts_of(dataset: Any) -> SeriesFacts:
    """What the header of a file states about its series."""

    return SeriesFacts(
        str(dataset.get("SeriesInstanceUID", "")),
        text(dataset, "Modality"),
        text(dataset, "SeriesDescription") or text(dataset, "ProtocolName"),
        text(dataset, "SeriesNumber"),
        text(dataset, "PatientID"),
        text(dataset, "StudyInstanceUID"),
        text(dataset, "ContrastBolusAgent"),
    )


def _vector(dataset: Any, name: str, count: int) -> tuple[float, ...]:
    """Return ``count`` finite numbers, or () if the attribute does not hold exactly these."""
    values = numbers(dataset, name)
    return values if len(values) == count else ()


def _number(dataset: Any, name: str, default: float) -> float:
    """Return a number, or ``default`` if the attribute is missing, empty or not a number."""
    found = number(dataset, name)
    return default if found is None else found
