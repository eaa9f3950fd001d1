"""The interface to all formats: reading, writing and describing the file or folder at a path.

The format is recognised by content, never by name alone. A folder is a DICOM series or a stack of
2-D slices in natural order of their names. Axes and units follow the conventions of ``core.grid``
and ``core.volume``; the docstring of each format's module says how they are reached from that
format. Files that are not trusted are read in a child process (``apart.untrusted``); only their
first bytes are read here. This module knows no cohort.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FormatError, GeometryError, OutputError, PartError
from ..core.grid import Grid, rounded_mm
from ..core.inputs import expected_bytes, reading_at_most, stated_limit
from ..core.labels import LabelSet
from ..core.manifest import Source
from ..core.volume import ReadAs, Volume
from ..extend.parts import Format
from ..extend.registers import FORMATS, running
from . import apart, archive, arrays, dicom, itk, metaimage, nifti, nrrd, raster, transfer
from .dicom import rtstruct, seg
from .disk import head_of, natural_key, smallest_labels, stem, told

__all__ = [
    "companions",
    "files_of",
    "holds_dicom",
    "describe",
    "detect",
    "is_folder",
    "is_image",
    "is_slice_of",
    "natural_key",
    "place_and_series",
    "place_of",
    "read",
    "read_grid",
    "smallest_labels",
    "stem",
    "writable",
    "write",
]

log = logging.getLogger(__name__)
RASTER = raster.KINDS
VOLUMES: dict[str, Any] = {"NRRD": nrrd, "MetaImage": metaimage}  # all other volumes: nifti
ARCHIVE = "DICOM archive"  # a .zip, .tar or .tar.gz that holds DICOM files
READABLE = (
    "NIfTI, Analyze 7.5, MGH, NRRD, MetaImage, PNG, TIFF, JPEG, GIF, BMP, PNM, DICOM, and .zip, "
    ".tar and .tar.gz archives of DICOM"
)


# ---- recognising ----


def detect(path: str | Path) -> str:
    """Recognise the format by content: one of ``nifti.KINDS``, "NRRD", "MetaImage", "PNG", "JPEG",
    "TIFF", "DICOM", ``ARCHIVE``, one of ``arrays.KINDS``, the name of another registered format, or
    "" if it is none of them.

    Raises:
        FormatError: missing, empty or unreadable file.
    """
    with told(path):
        head = head_of(path)
        if not head:
            raise FormatError("empty file", path=path)
        # Formats with clear signatures come first; DICOM without a preamble is the weakest sign and
        # comes last.
        kind = (
            "DICOM"
            if head[128:132] == b"DICM"
            else nifti.kind_of(head)
            or itk.kind_of(head)
            or raster.kind_of(head)
            or arrays.kind_of(head, path)
        )
        # An .img file of raw voxels has its header in the .hdr file.
        if not kind and Path(path).name.lower().endswith((".img", ".img.gz")):
            kind = nifti.kind_of(head_of(nifti.pair_of(Path(path))[0]))
        kind = kind or _added_kind(head) or ("DICOM" if dicom.is_dicom(head) else "")
        if not kind and archive.kind_of(head) and archive.holds(Path(path), dicom.is_dicom):
            return ARCHIVE
        return kind


def _added_kind(head: bytes) -> str:
    """The registered format that is not the package's own and recognises the file, or ""."""
    added = [name for name in FORMATS.names() if name not in OWN]
    return next((name for name in added if FORMATS[name].detect(head)), "")


def is_image(path: str | Path) -> bool:
    """Return whether the file starts like a format that is supported; False also for folders and
    missing files.
    """
    with contextlib.suppress(FormatError):
        return Path(path).is_file() and detect(path) != ""
    return False


def is_folder(path: str | Path) -> bool:
    """Return whether ``path`` may hold several scans: a folder, or an archive of DICOM files."""
    place = Path(path)
    return place.is_dir() or (place.is_file() and _detect_or_none(place) == ARCHIVE)


def holds_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or an archive of DICOM files.

    Raises:
        FormatError: missing, empty or unreadable file.
    """
    return detect(path) in ("DICOM", ARCHIVE)


def place_of(path: str | Path) -> Path:
    """Return the file or folder itself, without the series of ``FOLDER#SERIES_UID``."""
    return place_and_series(path)[0]


def place_and_series(path: str | Path) -> tuple[Path, str]:
    """Return the file or folder of ``FOLDER#SERIES_UID`` and the series, "" without one."""
    # "#" may be part of a real name, so the path is split only if it does not exist as it is.
    whole = str(path)
    if "#" not in whole or Path(whole).exists():
        return Path(whole), ""
    folder, _, series = whole.rpartition("#")
    return Path(folder), series


def companions(path: str | Path) -> list[Path]:
    """List the other files that reading ``path`` opens: a separate data file (.mhd, .nhdr), or the
    other half of .hdr and .img.

    Missing files and headers that cannot be understood are left out: the list shows which files
    belong together, not whether they are complete.
    """
    where = Path(path)
    name = where.name.lower().removesuffix(".gz")
    with contextlib.suppress(FormatError, OSError, ValueError, TypeError):
        if name.endswith((".hdr", ".img")):
            return [p for p in nifti.pair_of(where) if p != where]
        if name.endswith((".mhd", ".nhdr", ".mha", ".nrrd")):
            return [p for p in itk.data_files(where) if p.is_file()]
    return []


def files_of(source: Source) -> list[Path]:
    """The files that hold the voxels of ``source``: one with its companions, the slices of its
    DICOM series, or the pictures of a folder.

    Raises:
        FormatError: see ``read``.
    """
    found = _source(source, None)
    where = Path(found.path)
    if where.is_file():
        return [where, *companions(where)]
    stack = _bare_files(found) if found.like else _stack_files(found)
    return list(_series_of(found).files) if stack is None else stack


def is_slice_of(path: str | Path, folder: str | Path) -> bool:
    """Return whether the file forms a scan together with others in ``folder``: a DICOM image or an
    archive of them there or in a subfolder, or an image file directly in it.
    """
    kind = _detect_or_none(Path(path))
    if kind == "DICOM":
        return dicom.is_image(Path(path))
    if kind == ARCHIVE:
        return True
    return kind in RASTER and Path(path).parent == Path(folder)


# ---- reading ----


def read(
    path: str | Path | Source,
    *,
    spacing_mm: Sequence[float] | None = None,
    by_index: bool = False,
    unit: ReadAs = "",
) -> Volume:
    """Read the volume at ``path``: a file, a DICOM folder (``FOLDER#SERIES_UID`` names one series),
    or a folder of 2-D slices.

    Args:
        path: the file or folder. A ``Source`` may also name the series, a glob of slices, a
            spacing, a single channel to read, or ``like``, the image whose geometry the slices get.
        spacing_mm: (column, row, slice) of images that store none. A file that stores a different
            one is refused.
        by_index: read pictures with a palette by index, as for masks (see ``formats.raster``).
        unit: "suv" for a DICOM PET series as SUV by body weight (``dicom.values.suv``), which a
            ``Source`` may state too.

    Returns:
        (I, J, K) or (C, I, J, K), with the ``meta`` keys modality, patient, spacing_known, and
        series and channels if known.

    Raises:
        FormatError: an unknown, damaged or empty file, or several series if one is needed.
        GeometryError: the geometry is unknown, contradictory or not supported.
    """
    source = _source(path, spacing_mm)
    source = replace(source, unit=unit or source.unit)
    if is_for_child(source):
        return transfer.to_volume(in_child("files:sent_volume", source, by_index))
    volume = _read(source, by_index)
    if source.unit and volume.unit != "SUV":
        raise FormatError(
            "SUV needs a PET series in DICOM, or a NIfTI file of one by `convert --unit suv`",
            path=source.path,
        )
    log.debug("read %s: %s voxels", source.path, " x ".join(map(str, volume.array.shape)))
    return volume if source.channel is None else _one_channel(volume, source.channel)


def _series_of(source: Source) -> dicom.Series:
    return dicom.choose(source.path, source.series, source.fix_series)


def _one_channel(volume: Volume, channel: int) -> Volume:
    """Pick one channel; the channel names are removed."""
    if not 0 <= channel < volume.channels:
        raise FormatError(
            f"has {volume.channels} channel(s), counted from 0; channel {channel} was requested",
            path=volume.source or None,
        )
    return replace(
        volume.with_array(volume.channels_array[channel]),
        meta={k: v for k, v in volume.meta.items() if k != "channels"},
    )


def _read(source: Source, by_index: bool) -> Volume:
    """Read the whole volume with all its channels."""
    where = Path(source.path)
    if source.like:
        return _read_like(source, by_index)
    if where.is_dir():
        return _read_folder(source, by_index)
    kind = _known(where)
    if kind in arrays.KINDS:
        item = source.item or source.series  # FILE.npz#NAME
        return arrays.read(where, kind, item, source.axes, source.spacing_mm)
    if source.axes:
        raise GeometryError(
            f"axes {source.axes} are stated, but the file stores its own; omit them", path=where
        )
    if kind == "DICOM" and dicom.kind_of(where) == "SEG":
        return seg.read_seg(where, only=[source.item] if source.item else None)
    if kind in ("DICOM", ARCHIVE):
        volume = dicom.read_series(_series_of(source), source.unit)
    elif kind in RASTER:
        volume = raster.read(where, kind, by_index)
    else:
        volume = _read_registered(where, kind)
    return replace(_with_stated_spacing(volume, source), source=str(where))


def _read_registered(path: Path, kind: str) -> Volume:
    """Read a file with the part that is registered for its format."""
    try:
        with running(FORMATS, kind):
            return FORMATS[kind].read(path)
    except PartError as error:
        raise FormatError(error.message, path=path) from error


def read_grid(source: str | Path | Source) -> Grid:
    """Read only the grid, from headers alone if the format allows it. Arguments and errors are
    those of ``read``.
    """
    source = _source(source, None)
    if is_for_child(source):
        return Grid.from_json(in_child("files:sent_grid", source)[0])
    where = Path(source.path)
    if source.like:
        return _like(source, _bare_files(source))[0] if where.is_dir() else read_grid(source.like)
    # A folder is a DICOM series, or a stack whose size follows from its first image and the number
    # of files.
    if where.is_dir():
        files = _stack_files(source)
        if files is None:
            with told(where):
                return dicom.layout(_series_of(source))[0]
        i, j, _ = raster.size_of(files[0], _known(files[0]))
        return raster.grid_of((i, j, len(files)), _needed_spacing(source))
    kind = _known(where)
    if kind == "DICOM" and dicom.kind_of(where) == "SEG":
        return seg.read_grid(where)
    if kind in ("DICOM", ARCHIVE):
        with told(where):
            return dicom.layout(_series_of(source))[0]
    if kind in arrays.KINDS:
        return _read(source, False).grid
    if kind in RASTER:
        grid = raster.read_grid(where, kind, source.spacing_mm or None)
    else:
        part = FORMATS[kind]
        grid = _read_registered(where, kind).grid if part.grid is None else part.grid(where)
    # Whether the file states its spacing, only reading it shows.
    return grid if _has_stated_spacing(grid, source) else _read(source, False).grid


def _source(path: str | Path | Source, spacing_mm: Sequence[float] | None) -> Source:
    """Normalise the path to a ``Source``: split ``FOLDER#SERIES_UID`` and check that the path
    exists.
    """
    source = path if isinstance(path, Source) else Source(str(path))
    if spacing_mm is not None:
        source = replace(source, spacing_mm=tuple(float(v) for v in spacing_mm))
    # A parent folder may be closed to this user: that error is reported with the path.
    with told(source.path):
        if "#" in source.path and not Path(source.path).exists():
            folder, _, series = source.path.rpartition("#")
            source = replace(source, path=folder, series=series)
        if not Path(source.path).exists():
            raise FormatError("no such file or folder", path=source.path)
    return source


def _known(path: Path) -> str:
    """Recognise the format, or raise ``FormatError`` with the supported ones."""
    kind = detect(path)
    if not kind and archive.is_archive(path):
        archive.members(path)  # refuses what is damaged
        raise FormatError("an archive without DICOM files; unpack it first", path=path)
    if not kind:
        raise FormatError(f"unrecognised format; supported formats: {READABLE}", path=path)
    return kind


def _with_stated_spacing(volume: Volume, source: Source) -> Volume:
    """The volume with the spacing that is stated, if its file states none.

    Raises:
        GeometryError: the file has another spacing, or the stated one is not valid.
    """
    if not source.spacing_mm or volume.meta.get("spacing_known", True):
        _refuse_other_spacing(volume.grid, source)
        return volume
    with told(source.path):
        stated = raster.grid_of(volume.grid.shape, source.spacing_mm).spacing_mm
    affine = volume.grid.affine * [*np.divide(stated, volume.spacing_mm), 1.0]
    grid = Grid(volume.grid.shape, affine, allow_shear=True)
    return replace(volume, grid=grid, meta={**volume.meta, "spacing_known": True})


def _has_stated_spacing(grid: Grid, source: Source) -> bool:
    """Whether the grid's spacing is within 1 % of the one that is stated, if one is."""
    stated = source.spacing_mm or grid.spacing_mm
    if len(stated) == 2 and grid.shape[2] == 1:
        stated = (*stated, grid.spacing_mm[2])
    return len(stated) == 3 and bool(np.allclose(stated, grid.spacing_mm, rtol=0.01))


def _refuse_other_spacing(grid: Grid, source: Source) -> None:
    """Raise ``GeometryError`` if a stated spacing differs from the file's own by over 1 %."""
    if not _has_stated_spacing(grid, source):
        own = " x ".join(f"{v:g}" for v in grid.spacing_mm)
        raise GeometryError(
            f"a spacing of {list(source.spacing_mm)} mm is stated, but the file carries its own, "
            f"{own} mm; omit the stated one",
            path=source.path,
        )


# ---- in a child process ----


def is_for_child(source: Source) -> bool:
    """Whether the source is not trusted, or an archive, as others send them. A format that only
    this process knows is read here.
    """
    if apart.is_child():
        return False
    place = Path(source.path)
    if archive.around(place) is not None:
        return True
    kind = _detect_or_none(place) if place.is_file() else ""
    is_known = kind in OWN or kind in arrays.KINDS or not kind
    return kind == ARCHIVE or (apart.is_untrusted() and is_known)


def in_child(function: str, source: Source, *arguments: Any) -> apart.Found:
    """Call a function of this package in the child: with the source, the limit of memory and
    ``arguments``.
    """
    where = Path(source.path)
    with told(where):
        paths = where.rglob("*") if where.is_dir() else [where, *companions(where)]
        size = sum(archive.size_of(path) for path in paths if archive.is_file(path))
        nbytes = expected_bytes(size)
        return apart.call(function, source.to_json(), stated_limit(), *arguments, nbytes=nbytes)


def sent_volume(source: dict[str, Any], limit: int | None, by_index: bool) -> apart.Found:
    """``read`` for ``apart.call``."""
    with reading_at_most(limit):
        return transfer.from_volume(read(Source.from_json(source), by_index=by_index))


def sent_grid(source: dict[str, Any], limit: int | None) -> apart.Found:
    """``read_grid`` for ``apart.call``."""
    with reading_at_most(limit):
        return read_grid(Source.from_json(source)).to_json(), ()


def sent_description(source: dict[str, Any], limit: int | None) -> apart.Found:
    """``describe`` for ``apart.call``."""
    found = Source.from_json(source)
    with reading_at_most(limit):
        return describe(f"{found.path}#{found.series}" if found.series else found.path), ()


# ---- folders ----


def _read_folder(source: Source, by_index: bool) -> Volume:
    """Read a folder: one DICOM series, or a stack of slices."""
    files = _stack_files(source)
    if files is None:
        volume = dicom.read_series(_series_of(source), source.unit)
        _refuse_other_spacing(volume.grid, source)
        return replace(volume, source=source.path)
    return raster.read_stack(files, _needed_spacing(source), source.path, by_index)


def _stack_files(source: Source) -> list[Path] | None:
    """List the 2-D images of a folder in natural order; None if it holds DICOM or no images."""
    folder = Path(source.path)
    if source.series:
        return None
    kinds: dict[Path, str] = {}
    for path in _members(folder, source.glob):
        kind = _detect_or_none(path)
        # Images next to a DICOM series are previews.
        if kind == "DICOM":
            return None
        if kind and kind != ARCHIVE:
            kinds[path] = kind
    # Several volumes, or volumes mixed with slices, are ambiguous: the user must choose.
    flat_images = [path for path, kind in kinds.items() if kind in RASTER]
    others = [path.name for path, kind in kinds.items() if kind not in RASTER]
    if others and not flat_images:
        raise FormatError(
            f"a folder of {len(others)} volumes "
            f"({', '.join(others[:3])}{' ...' if len(others) > 3 else ''}), but one is needed; "
            "name the file",
            path=folder,
        )
    if others:
        raise FormatError(
            f"slices ({flat_images[0].name} ...) and volumes ({others[0]} ...) are mixed in one "
            "folder; select the files with a glob",
            path=folder,
        )
    return flat_images or None


def _members(folder: Path, glob: str) -> list[Path]:
    """List the visible files of a folder (or those that match ``glob``) in natural order."""
    with told(folder):
        # Hidden files, such as .DS_Store, are not data.
        found = [
            p
            for p in (folder.glob(glob) if glob else folder.iterdir())
            if p.is_file() and not p.name.startswith(".")
        ]
    if glob and not found:
        raise FormatError(f"no file matches {glob!r}", path=folder)
    return sorted(found, key=lambda p: natural_key(p.relative_to(folder)))


def _detect_or_none(path: Path) -> str:
    """Recognise the format, with "" for empty and unreadable files: a folder may hold anything."""
    try:
        return detect(path)
    except FormatError:
        return ""


def _needed_spacing(source: Source) -> tuple[float, ...]:
    """Return the stated spacing, or raise ``GeometryError`` with the ways to state it."""
    if not source.spacing_mm:
        raise GeometryError(
            "a folder of slices carries no spacing; state it as column, row and slice distance "
            "in mm (such as 0.7 0.7 2.0), or name the image whose geometry the slices have",
            path=source.path,
        )
    return source.spacing_mm


# ---- geometry of another image ----


def _bare_files(source: Source) -> list[Path]:
    """List the slices that get the geometry of another image."""
    files = _stack_files(replace(source, series=""))
    if not files:
        raise FormatError(
            "no 2-D images here that could take the geometry of another image", path=source.path
        )
    return files


def _like(source: Source, files: Sequence[Path]) -> tuple[Grid, list[int]]:
    """Read the grid of ``source.like`` and match the slices to it.

    Returns:
        The grid, and for each of its slices k the index of the file that belongs there.
    """
    like, named = place_and_series(source.like)
    if not like.is_dir() or _stack_files(Source(str(like))) is not None:
        # A volume or a stack: the slices are in the order of k.
        grid, order = read_grid(source.like), list(range(len(files)))
    else:
        with told(like):
            series = dicom.choose(like, source.series or named, source.fix_series)
            grid, slices = dicom.layout(series)
        # The n-th file by name belongs to the n-th DICOM file by name, wherever that is in space.
        rank = {path: n for n, path in enumerate(sorted(series.files, key=natural_key))}
        order = [rank[one.path] for one in slices]
    if len(files) != grid.shape[2]:
        raise GeometryError(
            f"{len(files)} slices cannot take the geometry of the {grid.shape[2]} slices of "
            f"{source.like}",
            path=source.path,
        )
    return grid, order


def _read_like(source: Source, by_index: bool) -> Volume:
    """Read slices or a volume, and give it the grid of ``source.like``."""
    # A single file is a 2-D image, or a volume whose own geometry is not trusted.
    if not Path(source.path).is_dir():
        bare = replace(source, like="", series="")
        volume, grid = read(bare, by_index=by_index), read_grid(source.like)
    else:
        files = _bare_files(source)
        grid, order = _like(source, files)
        volume = raster.read_stack([files[n] for n in order], None, source.path, by_index)
    if volume.grid.shape != grid.shape:
        raise GeometryError(
            f"shape {volume.grid.shape} cannot take the geometry of {source.like}, whose shape "
            f"is {grid.shape}",
            path=source.path,
        )
    return Volume(
        volume.array,
        grid,
        volume.unit,
        source.path,
        {**volume.meta, "spacing_known": True, "place_known": True},
    )


# ---- writing ----


def write(volume: Volume, path: str | Path, *, labels: LabelSet | None = None) -> None:
    """Write in the format of the path's ending: .nii, .nii.gz, .nrrd, .mha, .mhd, .png (one slice),
    .npz (with its geometry), .npy (the voxels alone), that of another registered format, or a
    folder of PNG slices if there is no ending.

    A volume of unit "label" is written in the smallest unsigned dtype. ``labels`` are stored in the
    file (NIfTI comment, NRRD key/values, MetaImage fields, PNG text). An existing file at
    ``path`` stays until the new one is complete.

    Raises:
        OutputError: an unknown ending, values that the format cannot store, structures that overlap
            in another format than NRRD, or a write error.
        LabelError: label values that are not whole numbers from 0.
    """
    name = Path(path).name.lower()
    if labels is not None and labels.overlapping and not name.endswith(".nrrd"):
        raise OutputError(
            f"{', '.join(labels.names[:5])} may overlap, and one label map has one value for each "
            "voxel; write a .seg.nrrd file, which has layers, or one file for each structure",
            path=path,
        )
    for format_name, part in FORMATS.items():
        if part.write is not None and name.endswith(part.writes):
            with running(FORMATS, format_name):
                part.write(volume, Path(path), labels)
            return
    if name.endswith(".npy"):
        arrays.write(volume, path)
        return
    if "." in name:
        raise OutputError(
            f"cannot write {Path(path).suffix!r}; allowed endings are "
            f"{', '.join(writable())}, or none for a folder of PNG slices",
            path=path,
        )
    raster.write_slices(volume, path, labels)


def writable() -> tuple[str, ...]:
    """The endings of the files that can be written, such as ".nii.gz"."""
    return tuple(ending for part in FORMATS.values() for ending in part.writes)


# ---- describing ----


def describe(path: str | Path) -> dict[str, Any]:
    """Describe the file or folder at ``path`` as plain data: format, shape, spacing, orientation,
    dtype; for a DICOM folder its series, for DICOM labels their structures.

    Raises:
        FormatError: unknown or unreadable.
        GeometryError: the geometry is unknown or not supported.
    """
    where = Path(path)
    source = _source(path, None)
    if is_for_child(source):
        return in_child("files:sent_description", source)[0]
    if where.is_dir():
        return _describe_folder(where)
    labelled = dicom.kind_of(where)
    if labelled == "RTSTRUCT":
        return {"path": str(path), **rtstruct.describe(where)}
    if labelled == "SEG":
        segments, grid = seg.describe(where)
        return {"path": str(path), **segments, **_facts(grid), "unit": "label"}
    # A folder was handled above; this is a single file, or FOLDER#SERIES_UID.
    if source.series or _known(where) in ("DICOM", ARCHIVE):
        return _describe_dicom(Path(source.path), source.series)
    kind = _known(where)
    if kind in RASTER:
        volume = raster.read(where, kind)
        facts = {
            "format": kind,
            "dtype": str(volume.array.dtype),
            "channels": volume.channels,
            "spacing_known": volume.meta["spacing_known"],
        }
        return {"path": str(path), **facts, **_facts(volume.grid)}
    if kind in arrays.KINDS:
        stated: dict[str, Any] = {"spacing_known": False}
        if arrays.is_placed(where, kind):
            stated = _facts(read_grid(where))
        return {"path": str(path), **arrays.describe(where, kind), **stated}
    # The header is enough: no voxels are read.
    if kind not in OWN:
        volume = read(where)
        facts = {"format": kind, "dtype": str(volume.array.dtype), "channels": volume.channels}
        return {"path": str(path), **facts, **_facts(volume.grid)}
    facts = VOLUMES.get(kind, nifti).describe(where)
    return {"path": str(path), **facts, **_facts(read_grid(where))}


def _facts(grid: Grid) -> dict[str, Any]:
    """List the geometry of a grid as plain data."""
    return {
        "shape": list(grid.shape),
        "spacing_mm": [rounded_mm(v) for v in grid.spacing_mm],
        "orientation": grid.codes,
        "centre_mm": [round(float(v), 2) for v in grid.centre_mm],
        "unit": "a.u.",
    }


def _describe_folder(folder: Path) -> dict[str, Any]:
    """Describe a folder of slices by its first image, or its DICOM series."""
    files = _stack_files(Source(str(folder)))
    if files is None:
        return _describe_dicom(folder, "")
    volume = raster.read(files[0], _known(files[0]))
    shape = [*volume.grid.shape[:2], len(files)]
    return {
        "path": str(folder),
        "format": f"stack of {_known(files[0])}",
        "shape": shape,
        "dtype": str(volume.array.dtype),
        "channels": volume.channels,
        "spacing_known": False,
        "first": files[0].name,
        "last": files[-1].name,
    }


def _describe_dicom(path: Path, uid: str) -> dict[str, Any]:
    """Describe the series of a folder (or only ``uid``) and its other DICOM objects."""
    series, others = dicom.find(path)
    if not series and not others:
        raise FormatError(
            f"nothing here that can be read; supported formats: {READABLE}", path=path
        )
    chosen = [s for s in series if not uid or s.is_chosen_by(uid)]
    return {
        "path": str(path),
        "format": "DICOM",
        "series": [_describe_series(s) for s in chosen],
        "others": [{"file": p.name, "kind": what} for p, what in others],
    }


def _describe_series(series: dicom.Series) -> dict[str, Any]:
    """Describe one series, or give the reason why it cannot be read."""
    facts = {
        "uid": series.uid,
        "modality": series.modality,
        "number": series.number,
        "description": series.description,
        "patient": series.patient_id,
        "files": len(series.files),
    }
    problem = dicom.problem_of(series)
    if problem:
        return {**facts, "refused": problem}
    grid = dicom.layout(series)[0]
    return {
        **facts,
        **_facts(grid),
        "unit": series.unit,
    }


# ---- registering ----


def _is(kind: str, kind_of: Callable[[bytes], str], head: bytes) -> bool:
    return kind_of(head) == kind


# The package's own formats. Pictures and DICOM are read with more arguments than a path, see
# ``_read``.
OWN: dict[str, Format] = {
    kind: Format(
        partial(_is, kind, nifti.kind_of),
        nifti.read,
        f"{kind} by its header; see formats.nifti",
        (".nii", ".nii.gz") if kind == "NIfTI" else (),
        nifti.write if kind == "NIfTI" else None,
        (".nii", ".nii.gz") if kind == "NIfTI" else (),
        nifti.read_grid,
    )
    for kind in nifti.KINDS
}
OWN["NRRD"] = Format(
    partial(_is, "NRRD", itk.kind_of),
    nrrd.read,
    "NRRD; see formats.nrrd",
    (".nrrd", ".nhdr"),
    nrrd.write,
    (".nrrd",),
    nrrd.read_grid,
)
OWN["MetaImage"] = Format(
    partial(_is, "MetaImage", itk.kind_of),
    metaimage.read,
    "MetaImage as ITK reads and writes it",
    (".mha", ".mhd"),
    itk.write,
    (".mha", ".mhd"),
    metaimage.read_grid,
)
OWN |= {
    kind: Format(
        partial(_is, kind, raster.kind_of),
        partial(raster.read, kind=kind),
        f"{kind} pictures",
        endings,
        raster.write_png if kind == "PNG" else None,
        endings if kind == "PNG" else (),
    )
    for kind, endings in (
        ("PNG", (".png",)),
        ("JPEG", (".jpg", ".jpeg")),
        ("TIFF", (".tif", ".tiff")),
        ("GIF", (".gif",)),
        ("BMP", (".bmp",)),
        ("PNM", (".ppm", ".pgm", ".pbm", ".pnm", ".ppm.gz", ".pgm.gz", ".pbm.gz")),
    )
}
OWN["NumPy archive"] = Format(
    lambda head: False,  # by its ending too, see ``arrays.kind_of``
    lambda path: arrays.read(path, "NumPy archive", "", "", ()),
    "NumPy archive with its geometry; see formats.arrays",
    (".npz",),
    arrays.write,
    (".npz",),
)
OWN["DICOM"] = Format(
    dicom.is_dicom,
    lambda path: dicom.read_series(dicom.choose(path, "")),
    "DICOM series",
    (".dcm",),
)
for _name, _part in OWN.items():
    FORMATS.add(_name, _part)
