"""Image volumes as DICOM images that are derived from them (PS3.3 C.7.6.1).

Slices are the planes k of the volume, only flipped and permuted: their rows and columns run as
those of the series ``like``, else as radiologists look at them (``slices.record.VIEWS``), and k
along the normal. Without ``like`` patient and study are anonymous. UIDs follow from the content
(``identity``). Files have their names only after they were read again: every voxel is where it
was, and the largest change of an intensity is known.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .... import __version__
from ....core import atomic
from ....core.errors import FormatError, GeometryError, InputError, OutputError, UsageError
from ....core.grid import CODES, SHEAR_TOLERANCE, Grid
from ....core.volume import Volume, with_finite_voxels
from ....extras import require_extra
from ...disk import refuse_others
from ...raster import COLOURS
from ...slices.record import VIEWS
from ..derived import with_dates_of
from ..geometry import LPS_TO_RAS, MOST_TILT_DEG, layout
from ..header.file import SECONDARY_CAPTURE, Series, lenient, open_dataset
from ..identity import uid_of
from ..source import STUDY, date_of, series_of, shortened
from ..values import read_series
from .modules import MULTI_FRAME, OTHER, attributes_of, class_of
from .stored import StoredPixels

BACK_MM = 1e-3  # largest distance of a voxel that was read again from its place
_MODALITIES = {"HU": "CT", "Bq/ml": "PT", "SUV": "PT"}  # by the unit of the volume


@dataclass(frozen=True)
class WrittenImages:
    """The files of ``write_images``, and notes, one sentence each."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def write_images(
    volume: Volume,
    target: str | Path,
    *,
    like: Series | None = None,
    modality: str = "",
    orientation: str = "",
    overwrite: bool = False,
) -> WrittenImages:
    """Write a volume as a DICOM series.

    Args:
        volume: (I, J, K); (C, I, J, K) becomes a series for each channel, uint8 colours one of
            colours.
        target: a folder for ``slice_0000.dcm`` ..., or NAME.dcm: the only slice, or all as frames
            of one object (legacy converted enhanced CT, MR or PET).
        like: a series of the same patient and study, whose attributes are repeated; its frame of
            reference too, if the volume lies inside the series.
        modality: "CT", "MR", "PT" or another one of the standard; "" is that of the volume, of its
            unit or of ``like``.
        orientation: axis codes of rows, columns and slices, instead of those of ``like``.
        overwrite: replace files that differ from these.

    Raises:
        GeometryError: slices that are no rectangles, or stacked at more than 45 degrees; an image
            without a position whose class needs one.
        UsageError: channels or a class that cannot be frames of one object; no such modality.
        FormatError: ``like`` states no study.
        OutputError: other files are there, or a file cannot be written.
    """
    place, (kind, notes) = Path(target), _modality(volume, like, modality)
    channels = [_turned(one, like, orientation) for one in _channels(volume)]
    _refuse_unfit(channels, kind)
    common, base, more = _common(channels, like, kind)
    series = [
        _slices(one, common, uid_of("series", base, str(n)), n)
        for n, one in enumerate(channels, start=1)
    ]
    slopes = [float(one[0].get("RescaleSlope", 1)) for one in series]
    if place.suffix.lower() == ".dcm":
        names, series = [place], [[_as_one(series, kind, place)]]
    else:
        names = [place / name for name in _names(series)]
        refuse_others(atomic.make_folder(place), [path.name for path in names])
    files = list(zip(names, (dataset for one in series for dataset in one), strict=True))
    with atomic.together():
        temporaries = [_saved(path, dataset, overwrite) for path, dataset in files]
        count = len(series[0])
        errors = [
            _largest_error(temporaries[n * count : (n + 1) * count], one, slope, place)
            for n, (one, slope) in enumerate(zip(channels, slopes, strict=True))
        ]
    return WrittenImages(tuple(names), (*notes, *more, *_lost(volume, max(errors))))


def _saved(path: Path, dataset: Any, overwrite: bool) -> Path:
    """Save an image within ``atomic.together``; its temporary file.

    Raises:
        OutputError: another file is there.
    """
    with atomic.replacing(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    if path.exists() and not overwrite and path.read_bytes() != temporary.read_bytes():
        raise OutputError("exists already; --overwrite replaces it", path=path)
    return temporary


# ---- what is written ----


def _modality(volume: Volume, like: Series | None, given: str) -> tuple[str, list[str]]:
    """The modality, and a note if neither the caller nor the volume states it."""
    if given:
        if not re.fullmatch("[A-Z]{2,16}", given):
            raise UsageError(f"a modality is a term such as CT, MR, PT or US, found {given}")
        return given, []
    if stated := volume.meta.get("modality") or _MODALITIES.get(volume.unit):
        return str(stated), []
    if like is not None and like.modality:
        return like.modality, [f"the modality is that of the series, {like.modality}"]
    return OTHER, [
        "the intensities have no unit, so the images are Secondary Captures with positions; "
        "--modality CT, MR or PT names their class"
    ]


def _unit(volume: Volume, kind: str) -> str:
    """The unit of the intensities; an image that others say to be a CT is in HU."""
    return "HU" if kind == "CT" and not volume.meta.get("modality") else volume.unit


def _channels(volume: Volume) -> list[Volume]:
    """The volume of each series."""
    if volume.array.ndim == 3 or _is_colour(volume):
        return [volume]
    return [volume.with_array(one) for one in volume.array]


def _is_colour(volume: Volume) -> bool:
    names = tuple(volume.meta.get("channels", ()))
    return volume.array.dtype == np.uint8 and volume.channels == 3 and names == COLOURS


def _turned(volume: Volume, like: Series | None, orientation: str) -> Volume:
    """The volume with its axes as columns, rows and slices along the normal of their planes."""
    if not _is_placed(volume):
        return volume
    codes = orientation or (_grid_of(like) or volume.grid).codes
    if not orientation and like is None:
        codes = next(v for v in VIEWS.values() if {v[2], _opposite(v[2])} & {codes[2]})
    turned = volume.reorient(codes)
    if np.linalg.det(turned.affine[:3, :3]) < 0:
        turned = turned.reorient(turned.grid.codes[:2] + _opposite(turned.grid.codes[2]))
    return turned


def _opposite(code: str) -> str:
    pair = next("".join(pair) for pair in CODES if code in pair)
    return pair.replace(code, "")


def _is_placed(volume: Volume) -> bool:
    """Whether slices have a position; a single picture has none."""
    return bool(volume.meta.get("place_known", True)) or volume.grid.shape[2] > 1


def _grid_of(series: Series | None) -> Grid | None:
    """The grid of a series; None if it is no stack."""
    if series is None:
        return None
    try:
        return layout(series)[0]
    except InputError:
        return None


def _refuse_unfit(channels: Sequence[Volume], modality: str) -> None:
    one, is_capture = channels[0], class_of(modality) == SECONDARY_CAPTURE
    if not _is_placed(one) and not is_capture:
        raise GeometryError(
            f"a picture has no position, which images of modality {modality} need; --axes states "
            f"one, and modality {OTHER} needs none",
            path=one.source or None,
        )
    if one.array.ndim == 4 and not is_capture:
        raise UsageError(f"images of modality {modality} have no colours; modality {OTHER} has")
    across, down, step = (one.affine[:3, :3] / np.linalg.norm(one.affine[:3, :3], axis=0)).T
    if abs(across @ down) > SHEAR_TOLERANCE:
        raise GeometryError(
            f"the slices are no rectangles: their axes have a cosine of {across @ down:.4f}, and "
            f"{SHEAR_TOLERANCE:g} is allowed; resample the image first",
            path=one.source or None,
        )
    tilt_deg = float(np.degrees(np.arccos(min(1.0, abs(step @ np.cross(across, down))))))
    if tilt_deg > MOST_TILT_DEG:
        raise GeometryError(
            f"the slices are stacked {tilt_deg:.1f} degrees off the normal of their planes; "
            f"{MOST_TILT_DEG:g} are allowed",
            path=one.source or None,
        )


def _common(
    channels: Sequence[Volume], like: Series | None, kind: str
) -> tuple[Any, str, list[str]]:
    """The attributes that all images share, a UID from which those of the series follow, and
    notes.
    """
    from pydicom.dataset import Dataset

    header, notes = (Dataset(), []) if like is None else _header(like)
    common = Dataset()
    for name in STUDY:
        if name in header:
            common[name] = header[name]
        elif name != "SpecificCharacterSet":
            setattr(common, name, "")
    content = [
        uid_of(one.affine.tobytes(), str(one.array.dtype), str(one.shape), one.array.tobytes())
        for one in channels
    ]
    grid, frame = _grid_of(like), str(header.get("FrameOfReferenceUID") or "")
    if grid is None or not _lies_in(channels[0].grid, grid):
        frame = ""
    first, date = channels[0], date_of(header)
    unit, is_placed = _unit(first, kind), str(_is_placed(first))
    stated = (kind, unit, is_placed, frame, *date, __version__, common.to_json())
    base = uid_of("images", *stated, *content)
    if like is None:
        common.StudyInstanceUID = uid_of("study", base)
        common.PatientName, common.PatientID = "Anonymous^", f"anonymous-{base[-8:]}"
    common.FrameOfReferenceUID = frame or uid_of("frame", base)
    if like is not None and not frame:
        notes.append(
            "the image is not inside the series, so it has a frame of reference of its own"
        )
    common.Modality, common.SOPClassUID = kind, class_of(kind)
    common.PositionReferenceIndicator = common.Laterality = ""
    common.Manufacturer, common.SoftwareVersions = "delineate", __version__
    common.ManufacturerModelName = "delineate"
    common.DerivationDescription = "Converted from another format"
    common.SeriesDate, common.SeriesTime = date
    common.ContentDate, common.ContentTime = common.SeriesDate, common.SeriesTime
    return common, base, notes


def _header(like: Series) -> tuple[Any, list[str]]:
    """The header of a series, and notes about values that were cut."""
    with lenient(like.files[0], "DICOM image"):
        header = open_dataset(like.files[0], stop_before_pixels=True)
    if not header.get("StudyInstanceUID"):
        raise FormatError("it states no StudyInstanceUID", path=like.files[0])
    return header, shortened(header)


def _lies_in(grid: Grid, other: Grid) -> bool:
    """Whether the corner voxels of a grid are in the box of another one, or at most a voxel off."""
    index = other.to_index(grid.corners_mm())
    margin = max(1.0, max(grid.spacing_mm) / min(other.spacing_mm))
    return bool((index > -1 - margin).all() and (index < np.array(other.shape) + margin).all())


# ---- single slices ----


def _slices(volume: Volume, common: Any, uid: str, number: int) -> list[Any]:
    """The images of a volume, in the order of k."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DSfloat

    def decimals(values: Any) -> list[Any]:
        return [DSfloat(float(value), auto_format=True) for value in values]

    series = Dataset()
    series.update(common)
    series.SeriesInstanceUID, kind = uid, str(common.Modality)
    series.SeriesNumber, series.SeriesDescription = number, "Converted image"
    for name, value in attributes_of(kind, _unit(volume, kind), volume.grid.shape[2]).items():
        setattr(series, name, value)
    affine, (column, row, _) = LPS_TO_RAS @ volume.affine, volume.spacing_mm
    series.PixelSpacing = decimals((row, column))
    if is_placed := _is_placed(volume):
        series.ImageOrientationPatient = decimals((affine[:3, :2] / (column, row)).T.ravel())
        normal = np.cross(*(affine[:3, :2] / (column, row)).T)
        series.SliceThickness = decimals([abs(affine[:3, 2] @ normal)])[0]
    pixels = _with_pixels(series, volume, kind)
    found = []
    for k in range(volume.grid.shape[2]):
        one = Dataset()
        one.update(series)
        one.SOPInstanceUID = uid_of("image", uid, str(k))
        one.InstanceNumber = k + 1
        if is_placed:
            one.ImagePositionPatient = decimals(affine[:3, 3] + k * affine[:3, 2])
        if kind == "PT":
            one.ImageIndex = k + 1
        one.PixelData = np.ascontiguousarray(pixels[k]).tobytes()
        one["PixelData"].VR = "OB" if one.BitsAllocated == 8 else "OW"
        found.append(_as_file(one))
    return found


def _with_pixels(series: Any, volume: Volume, kind: str) -> NDArray[Any]:
    """State in ``series`` what its pixels are; returns them, (K, rows, columns) or (K, rows,
    columns, 3).
    """
    from pydicom.valuerep import DSfloat

    series.Columns, series.Rows = volume.grid.shape[:2]
    if volume.array.ndim == 4:
        series.SamplesPerPixel, series.PhotometricInterpretation = 3, "RGB"
        series.PlanarConfiguration = 0
        pixels = volume.array.transpose(3, 2, 1, 0)
    else:
        stored = StoredPixels.of(volume.array, offset=kind != "PT")
        series.SamplesPerPixel, series.PhotometricInterpretation = 1, "MONOCHROME2"
        rescaled = (stored.slope, stored.intercept) != (1, 0)
        if rescaled or kind in ("CT", "PT"):
            series.RescaleIntercept = DSfloat(stored.intercept, auto_format=True)
            series.RescaleSlope = DSfloat(stored.slope, auto_format=True)
        if rescaled and class_of(kind) == SECONDARY_CAPTURE:
            series.RescaleType = "US"
        if kind != "CT":  # which has windows that people know
            low, high = (
                float(v) * stored.slope + stored.intercept
                for v in (stored.pixels.min(), stored.pixels.max())
            )
            series.WindowCenter = DSfloat((low + high) / 2, auto_format=True)
            series.WindowWidth = DSfloat(max(high - low, 1.0), auto_format=True)
        pixels = stored.pixels.transpose(2, 1, 0)
    bits = 8 * pixels.itemsize
    series.BitsAllocated, series.BitsStored, series.HighBit = bits, bits, bits - 1
    series.PixelRepresentation = int(pixels.dtype.kind == "i")
    return pixels


def _as_file(dataset: Any) -> Any:
    """The dataset with the meta information of a file."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _names(series: Sequence[Sequence[Any]]) -> list[str]:
    """The names of the files, those of several series with their number."""
    heads = [f"{n}_" for n in range(1, len(series) + 1)] if len(series) > 1 else [""]
    return [
        f"{head}slice_{k:04d}.dcm"
        for head, one in zip(heads, series, strict=True)
        for k in range(len(one))
    ]


# ---- frames of one object ----


def _as_one(series: Sequence[Sequence[Any]], kind: str, place: Path) -> Any:
    """The only slice, or all slices as the frames of one object."""
    if len(series) > 1:
        raise UsageError(
            f"{place} is one file, and each of the {len(series)} channels is a series; choose a "
            "folder"
        )
    (slices,) = series
    if len(slices) == 1:
        return slices[0]
    if kind not in MULTI_FRAME:
        raise UsageError(
            f"several slices in one file are of modality {', '.join(MULTI_FRAME)}, found {kind}; "
            "choose a folder, or state --modality"
        )
    require_extra("dicom", "multi-frame DICOM")
    import highdicom

    first = slices[0]
    uid = uid_of("frames", first.SeriesInstanceUID)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about attributes that are not known
        whole = getattr(highdicom.legacy, MULTI_FRAME[kind])(
            slices,
            series_instance_uid=uid_of("series", uid),
            series_number=int(first.SeriesNumber),
            sop_instance_uid=uid,
            instance_number=1,
        )
    whole.SeriesDescription, whole.Laterality = first.SeriesDescription, ""
    # The single slices that it is made of are not kept.
    del whole.ReferencedSeriesSequence
    for frame in whole.PerFrameFunctionalGroupsSequence:
        del frame.ConversionSourceAttributesSequence
    # The class has no attribute of its own for the unit of PET.
    if "Units" in first:
        (shared,) = whole.SharedFunctionalGroupsSequence
        shared.PixelValueTransformationSequence[0].RescaleType = first.Units
    return with_dates_of(first, whole)


# ---- proof ----


def _largest_error(files: Sequence[Path], volume: Volume, slope: float, place: Path) -> float:
    """Read images again; the largest difference of an intensity.

    Raises:
        OutputError: a voxel is elsewhere, or an intensity differs by more than half a step.
    """
    again = read_series(series_of(files, "DICOM series"))
    if again.shape != volume.shape:
        raise OutputError(f"read again, it has the shape {again.shape}", path=place)
    if _is_placed(volume) and not again.grid.matches(volume.grid, BACK_MM):
        distance = again.grid.distance_mm(volume.grid)
        raise OutputError(f"read again, voxels are up to {distance:.3g} mm away", path=place)
    values = volume.array
    if values.ndim == 3:
        values = with_finite_voxels(values)
    error = np.abs(again.array.astype(np.float64) - values).max()
    is_exact = slope == 1 and bool((values == np.rint(values)).all())
    # Half a step, and the rounding of float32.
    if error > (0 if is_exact else 0.51 * slope + 1e-6 * float(np.abs(values).max())):
        raise OutputError(f"read again, intensities differ by up to {error:.3g}", path=place)
    return float(error)


def _lost(volume: Volume, error: float) -> Iterator[str]:
    """What the images do not have of the volume."""
    if error:
        yield (f"the intensities are scaled to 16 bits, which changes them by at most {error:.3g}")
    if volume.array.dtype.kind == "f" and (count := int((~np.isfinite(volume.array)).sum())):
        yield f"{count} voxels that are not finite have the value of the background"
