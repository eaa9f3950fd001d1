"""DICOM series of single-frame CT, MR and PET slices to a volume, or a refusal with its reason.

Geometry follows PS3.3 C.7.6.2.1.1: a pixel stands where ImagePositionPatient, ImageOrientationPatient and PixelSpacing
(row spacing first) put it. Slices are sorted along the normal of their plane; the gap is measured between positions and
SliceThickness is ignored. After that every slice's corners must lie within 0.05 mm (1 % of gaps above 5 mm) of the grid, or the
series is refused: nothing is interpolated, dropped or guessed. Arrays are (column, row, slice); LPS becomes RAS+ here.

Left to a later version: multi-frame (enhanced) objects, mosaics, several time points, tilted gantry, colour.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError, InputError
from ...core.grid import SHEAR_TOLERANCE, Grid
from ...core.volume import Volume
from ..disk import head_of, natural_key, told

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
TOLERANCE_MM = 0.05
SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription", "SeriesNumber", "PatientID",
        "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "ImageType", "BitsStored", "PixelRepresentation", "ImagePositionPatient",
        "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept",
        "ModalityLUTSequence"]  # fmt: skip
DICOMDIR = "1.2.840.10008.1.3.10"
DAMAGED = "damaged"
# Enhanced and legacy-converted CT, MR and PET: their geometry stands frame by frame, even where there is one frame.
ENHANCED = tuple(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))
IMAGES = (*ENHANCED, *(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128", "20", "7")))  # CT, MR, PET, NM, secondary capture
VRS = b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()


@dataclass(frozen=True)
class Slice:
    """One file's header, as plain data; lengths are 0 where an attribute is missing. Positions are LPS mm, as on disk."""

    path: Path
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
    thickness: float
    slope: float
    intercept: float
    rescaled: bool
    bits: int
    signed: bool
    lookup: bool


@dataclass(frozen=True)
class Series:
    """The image files that share a SeriesInstanceUID, in natural order of their names."""

    uid: str
    modality: str
    description: str
    number: str
    patient_id: str
    study: str
    files: tuple[Path, ...] = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)

    @property
    def title(self) -> str:
        """One line for a person: number, description, modality, files, uid."""
        words = " ".join(word for word in (self.modality, self.number, self.description) if word)
        return f"{words or 'series'} ({len(self.files)} file{'s' if len(self.files) != 1 else ''}, {self.uid})"


# ---- finding ----


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: "DICM" after the preamble, or, without one, a data element of group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    group, element, length = struct.unpack("<HHI", head[:8])
    if group not in (2, 8) or element > 0x100:
        return False
    return head[4:6] in VRS or 0 < length <= 64


def find(folder: str | Path, recursive: bool = True) -> tuple[list[Series], list[tuple[Path, str]]]:
    """All image series in a folder (or of one file), and the DICOM files that hold no image, each with what it is (or ``DAMAGED``)."""
    series: dict[str, list[tuple[Slice, Any]]] = {}
    others: list[tuple[Path, str]] = []
    for path in _files(Path(folder), recursive):
        try:
            dataset = _header(path)
        except FormatError:
            others.append((path, DAMAGED))
            continue
        if dataset is None:
            continue
        what = _no_image(dataset)
        if what:
            others.append((path, what))
            continue
        try:
            one = _slice(path, dataset)
        except FormatError:
            others.append((path, DAMAGED))
            continue
        series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append((one, dataset))
    return [_series(uid, members) for uid, members in series.items()], others


def find_series(folder: str | Path, recursive: bool = True) -> list[Series]:
    """All image series in a folder, in the order met; empty where there is none. Non-image objects are left out."""
    return find(folder, recursive)[0]


def choose(folder: str | Path, uid: str = "") -> Series:
    """The series ``uid`` of a folder, or its only usable one.

    Raises:
        FormatError: none, no such one, or several, which are then listed with how to choose.
    """
    series, others = find(folder)
    damaged = [path.name for path, what in others if what == DAMAGED]
    if damaged:  # it may be a slice of any series here, the last one even, whose absence would leave no gap
        raise FormatError(f"{len(damaged)} DICOM file(s) are damaged or truncated ({', '.join(damaged[:3])})", path=folder)
    if uid:
        chosen = [s for s in series if s.uid == uid]
        if not chosen:
            raise FormatError(f"no series {uid} here; there are: {_listed(series)}", path=folder)
        return chosen[0]
    if not series:
        kinds = sorted({what for _, what in others})
        found = f"only DICOM objects without images ({', '.join(kinds)})" if kinds else "no image that can be read"
        raise FormatError(f"{found} in this folder", path=folder)
    usable = [s for s in series if not problem_of(s)]
    if len(series) == 1 or len(usable) == 1:
        return (usable or series)[0]
    if not usable:
        raise FormatError(f"none of {len(series)} series can be read: {_listed(series)}", path=folder)
    raise FormatError(f"{len(series)} series in one folder, choose one as FOLDER#SERIES_UID: {_listed(series)}", path=folder)


def problem_of(series: Series) -> str:
    """Why the series cannot be read as one volume, judged by its headers; "" where it can."""
    try:
        layout(series)
    except InputError as error:
        return error.message
    return ""


def _listed(series: Iterable[Series]) -> str:
    return "; ".join(s.title + (f" - refused: {why}" if (why := problem_of(s)) else "") for s in series) or "none"


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    with told(folder):
        entries = sorted(folder.rglob("*") if recursive else folder.iterdir(), key=natural_key)
    yield from (p for p in entries if p.is_file() and not p.name.startswith("."))


def _header(path: Path) -> Any | None:
    """The dataset without pixels, or None where the file is no DICOM."""
    import pydicom

    with told(path, "DICOM file"):
        head = head_of(path)
        if not is_dicom(head):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, force=head[128:132] != b"DICM", specific_tags=TAGS)


def _no_image(dataset: Any) -> str:
    """What an object without slices of a scan is called, "" for an image."""
    name = str(dataset.get("Modality", ""))
    if name in ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG"):
        return name
    if not dataset.get("Rows") or not dataset.get("Columns"):
        kind = str(dataset.get("SOPClassUID", "") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID", ""))
        if not kind or kind in IMAGES:
            return DAMAGED
        return "DICOMDIR" if kind == DICOMDIR else name or "no image"
    return ""


def _numbers(dataset: Any, name: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in dataset.get(name) or ())
    except (TypeError, ValueError):
        return ()
    return values if len(values) == count and np.isfinite(values).all() else ()


def _number(dataset: Any, name: str, default: float) -> float:
    value = dataset.get(name)
    try:
        return default if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return default


def _slice(path: Path, dataset: Any) -> Slice:
    with told(path, "DICOM file"):
        kind = dataset.get("ImageType") or ()
        return Slice(
            path, str(dataset.get("SOPInstanceUID", "")), str(dataset.get("SOPClassUID", "")), int(dataset.Rows), int(dataset.Columns),
            int(_number(dataset, "NumberOfFrames", 1)), int(_number(dataset, "SamplesPerPixel", 1)),
            (kind,) if isinstance(kind, str) else tuple(map(str, kind)), _numbers(dataset, "ImagePositionPatient", 3),
            _numbers(dataset, "ImageOrientationPatient", 6), _numbers(dataset, "PixelSpacing", 2),
            _number(dataset, "SpacingBetweenSlices", 0) or _number(dataset, "SliceThickness", 0), _number(dataset, "RescaleSlope", 1) or 1.0,
            _number(dataset, "RescaleIntercept", 0), "RescaleSlope" in dataset, int(_number(dataset, "BitsStored", 16)),
            bool(dataset.get("PixelRepresentation", 0)), "ModalityLUTSequence" in dataset)  # fmt: skip


def _series(uid: str, members: Sequence[tuple[Slice, Any]]) -> Series:
    ordered = tuple(sorted((one for one, _ in members), key=lambda one: natural_key(one.path)))
    first = members[0][1]

    def text(name: str) -> str:
        value = first.get(name)
        return "" if value is None else str(value).strip()

    return Series(
        uid,
        text("Modality"),
        text("SeriesDescription"),
        text("SeriesNumber"),
        text("PatientID"),
        text("StudyInstanceUID"),
        tuple(one.path for one in ordered),
        ordered,
    )


# ---- geometry ----


def layout(series: Series) -> tuple[Grid, list[Slice]]:
    """The grid of a series and its slices in the order of k.

    Raises:
        FormatError: objects this version does not read (multi-frame, mosaic, colour, localiser, mixed kinds, lookup table).
        GeometryError: missing, mixed, uneven, doubled or tilted positions.
    """
    slices = series.slices
    _refuse_kinds(slices)
    _refuse_mixtures(slices)
    first = slices[0]
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if abs(np.linalg.norm(across) - 1) > 1e-3 or abs(np.linalg.norm(down) - 1) > 1e-3 or abs(across @ down) > SHEAR_TOLERANCE:
        raise GeometryError(f"ImageOrientationPatient {list(first.orientation)} is not two unit vectors at right angles")
    normal = np.cross(across, down)
    ordered = sorted(slices, key=lambda one: float(np.array(one.position) @ normal))
    step = _step(ordered, normal)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([across * first.spacing[1], down * first.spacing[0], step], axis=1)
    affine[:3, 3] = ordered[0].position
    _prove(ordered, affine)
    return Grid((first.columns, first.rows, len(ordered)), LPS_TO_RAS @ affine), ordered


def _refuse_kinds(slices: Sequence[Slice]) -> None:
    def count(chosen: Sequence[bool]) -> str:
        return "" if all(chosen) else f" ({sum(chosen)} of {len(chosen)} files)"

    reasons = {
        "multi-frame (enhanced) objects are read by a later version": [s.frames > 1 or s.sop_class in ENHANCED for s in slices],
        "mosaics (many slices in one picture) are refused": ["MOSAIC" in s.kind or "VFRAME" in s.kind for s in slices],
        "colour pictures (secondary captures, reports) are no scan": [s.samples != 1 for s in slices],
        "localisers (scout views) are no volume": ["LOCALIZER" in s.kind for s in slices],
        "a modality lookup table is not supported": [s.lookup for s in slices],
    }
    for reason, chosen in reasons.items():
        if any(chosen):
            raise FormatError(reason + count(chosen))


def _refuse_mixtures(slices: Sequence[Slice]) -> None:
    for name, values in (
        ("ImagePositionPatient", [s.position for s in slices]),
        ("ImageOrientationPatient", [s.orientation for s in slices]),
        ("PixelSpacing", [s.spacing for s in slices]),
    ):
        missing = [s.path.name for s, value in zip(slices, values, strict=True) if not value]
        if missing:
            raise GeometryError(f"{name} is missing or unreadable in {len(missing)} of {len(slices)} files ({missing[0]} ...)")
    sizes = sorted({(s.columns, s.rows) for s in slices})
    if len(sizes) > 1:
        raise GeometryError(f"mixed: slices of {' and '.join(f'{c}x{r}' for c, r in sizes)} pixels in one series")
    for name, table, tolerance in (
        ("orientations", np.array([s.orientation for s in slices]), SAME_DIRECTION),
        ("pixel spacings", np.array([s.spacing for s in slices]), 1e-3),
    ):
        if np.abs(table - table[0]).max() > tolerance:
            kinds = len({tuple(np.round(row, 2)) for row in table})
            raise GeometryError(f"mixed: slices with {max(kinds, 2)} different {name} in one series")
    if min(slices[0].spacing) <= 0:
        raise GeometryError(f"PixelSpacing {list(slices[0].spacing)} is not positive")


def _step(ordered: Sequence[Slice], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) LPS mm from one slice to the next; refused where there is no single one."""
    if len(ordered) == 1:
        return normal * (ordered[0].thickness if ordered[0].thickness > 0 else 1.0)
    positions = np.array([s.position for s in ordered])
    heights = positions @ normal
    gaps = np.diff(heights)
    _refuse_doubles(ordered, gaps)
    gap = float(np.median(gaps))
    allowed = tolerance_mm(gap)
    uneven = [n for n, value in enumerate(gaps) if abs(value - gap) > max(2 * allowed, 0.02 * gap)]
    if uneven:
        where = "; ".join(f"{gaps[n]:.2f} mm between {ordered[n].path.name} and {ordered[n + 1].path.name}" for n in uneven[:3])
        missing = f", {round(gaps[uneven[0]] / gap) - 1} slice(s) missing?" if gaps[uneven[0]] > 1.5 * gap else ""
        more = " ..." if len(uneven) > 3 else ""
        raise GeometryError(f"uneven gaps: {len(uneven)} of {len(gaps)} differ from {gap:.2f} mm: {where}{more}{missing}")
    whole = positions[-1] - positions[0]
    drift = whole - (whole @ normal) * normal
    if np.linalg.norm(drift) <= TOLERANCE_MM:
        return np.asarray(normal * (whole @ normal) / (len(ordered) - 1))
    if np.linalg.norm(drift) / np.linalg.norm(whole) > SHEAR_TOLERANCE:
        degrees = np.degrees(np.arctan2(np.linalg.norm(drift), abs(whole @ normal)))
        raise GeometryError(f"tilted gantry: the slices are stacked {degrees:.2f} degrees off the normal of their planes")
    return np.asarray(whole / (len(ordered) - 1))


def _refuse_doubles(ordered: Sequence[Slice], gaps: NDArray[np.float64]) -> None:
    doubled = [n for n, gap in enumerate(gaps) if gap < 0.01]
    if not doubled:
        return
    names = f"{ordered[doubled[0]].path.name} and {ordered[doubled[0] + 1].path.name}"
    if len({s.instance for s in ordered}) < len(ordered):
        raise GeometryError(f"duplicate slices: {len(doubled)} files are copies of others or stand where another does ({names})")
    places = len(ordered) - len(doubled)
    count = str(len(ordered) // places) if len(ordered) % places == 0 else "several"
    raise GeometryError(
        f"duplicate slices: {len(ordered)} slices at {places} positions ({names} stand at the same place); "
        f"{count} time points, echoes or phases in one series?"
    )


def tolerance_mm(gap_mm: float) -> float:
    """How far a slice may stand from its place on the grid."""
    return max(TOLERANCE_MM, 0.01 * gap_mm)


def _prove(ordered: Sequence[Slice], affine: NDArray[np.float64]) -> None:
    """Every slice's four corners, by its own header, must stand where the grid puts them."""
    columns, rows = ordered[0].columns, ordered[0].rows
    allowed = tolerance_mm(float(np.linalg.norm(affine[:3, 2])))
    for k, one in enumerate(ordered):
        across, down = np.array(one.orientation[:3]) * one.spacing[1], np.array(one.orientation[3:]) * one.spacing[0]
        for i, j in ((0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)):
            distance = float(np.linalg.norm(np.array(one.position) + i * across + j * down - (affine @ (i, j, k, 1))[:3]))
            if distance > allowed:
                raise GeometryError(
                    f"uneven positions: {one.path.name} stands {distance:.2f} mm from its place in an even stack (allowed {allowed:.2f} mm)"
                )


# ---- values ----


def read_series(series: Series) -> Volume:
    """The volume (I, J, K) = (column, row, slice): int16 where rescaled values are whole and fit (else uint16, int32), or float32.

    Unit "HU" for CT with a rescale, else "a.u."; meta has modality, patient, series, study and description.

    Raises:
        FormatError: an object that is refused, or pixels that cannot be decoded.
        GeometryError: positions that do not make an even stack.
    """
    with told(series.files[0].parent, "DICOM series"):
        grid, ordered = layout(series)
    array = np.empty((grid.shape[2], grid.shape[1], grid.shape[0]), _dtype(ordered))  # (slice, row, column): each file is one block of memory
    for k, one in enumerate(ordered):
        array[k] = _pixels(one, array.dtype)
    volume = _shrunk(array).transpose(2, 1, 0)
    unit = "HU" if series.modality == "CT" and all(s.rescaled for s in ordered) else "a.u."
    meta = {
        "modality": series.modality,
        "patient": series.patient_id,
        "series": series.uid,
        "study": series.study,
        "description": series.description,
        "spacing_known": True,
        "place_known": True,
    }
    source = series.files[0].parent if len({p.parent for p in series.files}) == 1 else series.files[0].parents[1]
    return Volume(volume, grid, unit, str(source), meta)


def _dtype(ordered: Sequence[Slice]) -> type[np.generic]:
    """int16 or int32 where every rescaled value is whole, else float32."""
    low = high = 0.0
    for one in ordered:
        if one.slope != round(one.slope) or one.intercept != round(one.intercept):
            return np.float32
        ends = (-(2 ** (one.bits - 1)), 2 ** (one.bits - 1) - 1) if one.signed else (0, 2**one.bits - 1)
        low = min(low, *(e * one.slope + one.intercept for e in ends))
        high = max(high, *(e * one.slope + one.intercept for e in ends))
    if low >= -32768 and high <= 32767:
        return np.int16
    return np.int32 if low >= -(2**31) and high < 2**31 else np.float32


def _pixels(one: Slice, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(rows, columns) rescaled."""
    import pydicom

    with told(one.path, "DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(one.path, force=True)
        if "PixelData" not in dataset:
            raise FormatError("a DICOM image without pixel data")
        if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian  # PS3.5 10.1: the default where none is stated
        try:
            pixels = dataset.pixel_array
        except Exception as error:
            name = dataset.file_meta.TransferSyntaxUID.name
            raise FormatError(f"the pixels cannot be decoded ({name}): {str(error).strip().splitlines()[0][:150]}") from error
    if pixels.shape[-2:] != (one.rows, one.columns) or pixels.size != one.rows * one.columns:
        raise FormatError(f"pixels of shape {pixels.shape} where the header says {one.rows} rows and {one.columns} columns", path=one.path)
    pixels = pixels.reshape(one.rows, one.columns)
    if dtype.kind == "f":
        return (pixels * one.slope + one.intercept).astype(dtype)
    return pixels.astype(np.int64 if dtype.itemsize > 2 else np.int32) * int(one.slope) + int(one.intercept)


def _shrunk(array: NDArray[Any]) -> NDArray[Any]:
    """int32 in the two bytes that hold it, where any do."""
    if array.dtype != np.int32:
        return array
    low, high = int(array.min()), int(array.max())
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array
