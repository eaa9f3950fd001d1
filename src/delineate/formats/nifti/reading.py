"""NIfTI-1 and -2 through our own header, Analyze 7.5 and MGH/MGZ through nibabel's.

Geometry: the sform if its code is above 0, else the qform if its code is above 0 (NIfTI-1 standard,
"method 3" before "method 2"). If both codes have the same value, the two must place every corner
within half a voxel and within 1 mm of each other. If the codes differ (scanner and standard space)
the sform is used and the distance is recorded. A sheared sform is kept as it is; a qform can only
hold its nearest rotation, which is no contradiction. Metres and micrometres are converted to mm.
Analyze 7.5, and NIfTI with both codes 0, have a spacing but no position: they get nibabel's
convention (first axis towards the left, radiological; centred, or SPM's origin) and
``meta["place_known"] = False``. The unit of Analyze's ``vox_units`` is converted too.

Values: slope 1 and intercept 0 keep the dtype on disk; any other scaling gives float32. The fourth
axis on disk becomes channels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError
from ...core.grid import Grid
from ...core.machine import import_without
from ...core.volume import Volume
from ..disk import (
    MOST_REST,
    MOST_SKIPPED,
    head_of,
    is_348,
    mm_of,
    names_in_text,
    opened,
    read_array,
    skip,
    told,
)
from ..raster import CHANNEL_NAMES, COLOURS
from . import header as own

MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
SAME_PLACE_MM = 1.0
SAME_SIZE = 0.01  # relative difference of voxel sizes that are stated twice
MGH_OFFSET = 284
MGH_FLAG = slice(28, 30)  # goodRASFlag: above 0 if spacing, directions and centre hold
MGH_TYPES = (0, 1, 3, 4, 10)
RGB_VECTOR = 2003  # intent: red, green and blue (NIFTI_INTENT_RGB_VECTOR)
# What values are by their intent (nifti1.h), if they are neither intensities nor labels.
INTENTS: dict[Sequence[int], str] = {
    range(2, 25): "those of a statistic",
    (1004, 1005): "matrices",
    (1006,): "displacements",
    (1008, 1009): "points or triangles",
    (1010,): "quaternions",
}
SLICES = {b"\1": "coronal", b"\2": "sagittal", b"\3": "flipped transverse"}  # orient of Analyze
SLICES |= {b"\4": "flipped coronal", b"\5": "flipped sagittal"}
FLAG = {"NIfTI": 348, "NIfTI-2": 540}  # the byte that announces extensions
SUV = b"SUV"  # intent_name of values that are SUV by body weight
KINDS = ("NIfTI", "NIfTI-2", "NIfTI pair", "Analyze 7.5", "MGH")
VERSIONS = {"NIfTI": 1, "NIfTI pair": 1, "NIfTI-2": 2}


def nibabel() -> Any:
    """Import nibabel on first use; its functions have no types. It imports pydicom if it finds it,
    for DICOM in extensions of NIfTI, which are not used here: that takes longer than the rest.
    """
    return import_without("nibabel", "pydicom")


def kind_of(head: bytes) -> str:
    """Return the format (one of ``KINDS``) from a file's first bytes after unpacking, or ""."""
    if is_348(head):
        return {b"n+1": "NIfTI", b"ni1": "NIfTI pair"}.get(head[344:347], "Analyze 7.5")
    if head[4:7] in (b"n+2", b"ni2"):
        return "NIfTI-2"
    # MGH has no magic number: version 1, positive dimensions and a known type, all big-endian.
    dims = np.frombuffer(head[:24], ">i4") if len(head) >= 284 else np.zeros(6, int)
    return "MGH" if dims[0] == 1 and dims[1:5].min() > 0 and dims[5] in MGH_TYPES else ""


def read(path: str | Path) -> Volume:
    """Read the volume in ``path``; unit "a.u.", or "SUV" if ``write`` stored that, modality "".

    Raises:
        FormatError: truncated, damaged, complex values, or more than four axes.
        GeometryError: unusable or contradictory geometry.
    """
    with told(path, "NIfTI, Analyze or MGH file"):
        header, kind, voxels = _header(Path(path))
        grid, meta = _geometry(header, kind)
        place = voxels.with_name(voxels.name.removesuffix(".gz")).with_suffix(".mat")
        if kind == "Analyze 7.5" and place.is_file():
            _add_note(meta, f"its place in space may be in {place.name} (SPM), which is not read")
        for note in _notes_of_values(header, kind):
            _add_note(meta, note)
        if names := _names(header):
            meta["names"] = names
        if fields := header.get_data_dtype().names:
            meta["channels"] = list(CHANNEL_NAMES[len(fields)])
        with opened(voxels) as file:
            array = _array(file, header, kind)
        if "intent_code" in header and header["intent_code"].item() == RGB_VECTOR:
            meta |= {"channels": list(COLOURS)} if array.shape[:-3] == (len(COLOURS),) else {}
        return Volume(array, grid, _unit(header), str(path), meta)


def _notes_of_values(header: Any, kind: str) -> list[str]:
    """What a header states about its values and is not applied, as by other readers."""
    if kind == "MGH":
        return []
    notes, bits = [], 8 * header.get_data_dtype().itemsize
    if int(header["bitpix"]) not in (0, bits):
        notes.append(
            f"its datatype has {bits} bits, which counts; bitpix states {header['bitpix']}"
        )
    if kind == "Analyze 7.5":
        if unit := _word(header["cal_units"]):
            notes.append(f"its header states the unit {unit!r} of its values, which is not read")
        if plane := SLICES.get(bytes(header["orient"])[:1]):
            notes.append(f"its header states {plane} slices (orient), which is not read")
        return notes
    code = int(header["intent_code"])
    if meaning := next((text for codes, text in INTENTS.items() if code in codes), ""):
        notes.append(
            f"its header states that its values are {meaning} (intent_code {code}); they are read "
            "as they are stored"
        )
    return notes


def _word(field: Any) -> str:
    """The text of a field of bytes."""
    return bytes(field).split(b"\0")[0].decode("latin-1").strip()


def _unit(header: Any) -> str:
    """The unit that ``write`` stored; NIfTI has no field for other units than those of its axes."""
    named = "intent_name" in header and header["intent_name"].item() == SUV
    return "SUV" if named else "a.u."


def read_names(path: str | Path) -> dict[int, str]:
    """Value -> name of the structures that ``write`` stored in the header; {} for other files."""
    with told(path, "NIfTI, Analyze or MGH file"):
        return _names(_header(Path(path))[0])


def _names(header: Any) -> dict[int, str]:
    for extension in getattr(header, "extensions", ()):
        if names := names_in_text(extension.content.decode(errors="replace")):
            return names
    return {}


def read_grid(path: str | Path) -> Grid:
    """Read only the grid; only the beginning of a compressed file is unpacked."""
    with told(path, "NIfTI, Analyze or MGH file"):
        header, kind, _ = _header(Path(path))
        return _geometry(header, kind)[0]


def describe(path: str | Path) -> dict[str, Any]:
    """Read format, dtype, shape on disk, and the codes of sform and qform."""
    with told(path, "NIfTI, Analyze or MGH file"):
        header, kind, _ = _header(Path(path))
        out: dict[str, Any] = {
            "format": kind,
            "dtype": str(header.get_data_dtype()),
            "disk_shape": [int(n) for n in header.get_data_shape()],
        }
        if kind.startswith("NIfTI"):
            out |= {
                "sform_code": int(header["sform_code"]),
                "qform_code": int(header["qform_code"]),
            }
        return out


def _header(path: Path) -> tuple[Any, str, Path]:
    """Return the header, the format, and the file that holds the voxels (another file for
    .hdr/.img pairs).
    """
    kind = kind_of(head_of(path))
    holder, voxels = path, path
    # The header of a pair is in the .hdr file, whichever of the two was given.
    if not kind or kind in ("NIfTI pair", "Analyze 7.5"):
        holder, voxels = pair_of(path)
        kind = kind_of(head_of(holder))
    readers = {"Analyze 7.5": _analyze_header, "MGH": _mgh_header}
    if kind not in KINDS:
        raise FormatError("not a NIfTI, Analyze or MGH file", path=path)
    with opened(holder) as file:
        header = readers[kind](file) if kind in readers else _nifti_header(file, kind)
    _refuse_impossible(header, kind)
    return header, kind, voxels


def _nifti_header(file: IO[bytes], kind: str) -> own.Header:
    """The header of NIfTI, of which no more than the header is read.

    Raises:
        FormatError: it ends early, or the voxels begin inside the header, or nowhere.
    """
    version = VERSIONS[kind]
    length = own.FIELDS[version].itemsize
    start = file.read(length + 4)
    if len(start) < length:
        raise FormatError(f"truncated: the header has {len(start)} of {length + 4} bytes")
    header = own.Header.of(start, version)
    # Extensions: those of a single file end where its voxels begin.
    least = 0 if kind == "NIfTI pair" else length + 4
    _refuse_offset(float(header["vox_offset"]), least)
    if start[length:][:1] in (b"", b"\0"):
        return header
    room = int(header["vox_offset"]) - least if least else None
    content = io.BytesIO(file.read(MOST_SKIPPED if room is None else room))
    return replace(header, extensions=own.read_extensions(content, room, header.order))


def _analyze_header(file: IO[bytes]) -> Any:
    """nibabel's header of Analyze 7.5; errors as for NIfTI."""
    maker = nibabel().spm2analyze.Spm2AnalyzeHeader
    length = maker.template_dtype.itemsize
    start = file.read(length)
    if len(start) < length:
        raise FormatError(f"truncated: the header has {len(start)} of {length} bytes")
    header = maker(start, check=False)
    _refuse_offset(float(header["vox_offset"]), 0)
    return header


def _refuse_offset(offset: float, least: int) -> None:
    if not (offset.is_integer() and least <= offset <= MOST_SKIPPED):
        raise FormatError(
            f"the voxels would begin at byte {offset:g}; allowed: from {least}, after the header, "
            f"to {MOST_SKIPPED}"
        )


def _mgh_header(file: IO[bytes]) -> Any:
    """nibabel's header of MGH. A file may end after its voxels, without the values that nibabel
    reads from its end. Of flags that are not valid, it knows only 0.
    """
    start = file.read(MGH_OFFSET)
    is_placed = int.from_bytes(start[MGH_FLAG], "big", signed=True) > 0
    if not is_placed:
        start = start[: MGH_FLAG.start] + bytes(2) + start[MGH_FLAG.stop :]
    header = nibabel().freesurfer.mghformat.MGHHeader(start, check=True)
    header.is_placed = is_placed
    return header


def _refuse_impossible(header: Any, kind: str) -> None:
    """Refuse a number of axes, or a number of voxels along one, that no image has."""
    if kind == "MGH":
        sizes = [int(n) for n in header["dims"]]
    else:
        axes = int(header["dim"][0])
        if not 1 <= axes <= 7:
            raise FormatError(f"{axes} axes; allowed: 1 to 7")
        sizes = [int(n) for n in header["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise FormatError(f"sizes must be at least 1, found {sizes}")
    if kind == "MGH":
        return
    known = own.TYPES if kind in VERSIONS else _analyze_types(header)
    if (code := int(header["datatype"])) not in known:
        read = {n: np.dtype(one) for n, one in sorted(known.items()) if one is not None}
        names = (f"{n} ({one.name})" for n, one in read.items() if one.kind in "iuf")
        raise FormatError(
            f"its voxels have the unknown datatype {code}; allowed: {', '.join(names)}, and RGB"
        )


def _analyze_types(header: Any) -> dict[int, Any]:
    """Code of a datatype -> its voxels."""
    codes = header._data_type_codes
    return {int(code): codes.dtype[code] for code in codes.value_set()}


def pair_of(path: Path) -> tuple[Path, Path]:
    """Find the .hdr and the .img file of a pair from either of them.

    Raises:
        FormatError: the other file is missing, or the name does not end in .hdr or .img.
    """
    name = path.name
    # Both letter cases and both forms of compression: the two files need not agree in the latter.
    for one, other in ((".img", ".hdr"), (".IMG", ".HDR")):
        for ending, twin in ((one, other), (other, one)):
            for packed in ("", ".gz"):
                if name.endswith(ending + packed):
                    base = name[: -len(ending + packed)]
                    found = [
                        path.with_name(base + twin + gz)
                        for gz in ("", ".gz")
                        if path.with_name(base + twin + gz).exists()
                    ]
                    if not found:
                        raise FormatError(
                            f"a pair of files is needed, but {base + twin} is missing",
                            path=path,
                        )
                    return (path, found[0]) if ending.lower() == ".hdr" else (found[0], path)
    raise FormatError(
        "the header of a .hdr/.img pair in a file whose name does not end in .hdr or .img",
        path=path,
    )


# ---- geometry ----


def _geometry(header: Any, kind: str) -> tuple[Grid, dict[str, Any]]:
    """Build the grid and the metadata of a header."""
    disk = [int(n) for n in header.get_data_shape()]
    shape = tuple([*disk, 1, 1, 1][:3])
    meta: dict[str, Any] = {
        "modality": "",
        "patient": "",
        "spacing_known": True,
        "place_known": True,
    }
    if kind == "MGH":
        # Without its flag, the header's spacing and position do not hold: nibabel gives 1 mm.
        is_placed = header.is_placed
        meta |= {"spacing_known": is_placed, "place_known": is_placed}
        affine = np.asarray(header.get_affine(), float)
    elif kind == "Analyze 7.5":
        unit_mm = mm_of(_word(header["vox_units"])) or 1.0
        affine = np.diag([unit_mm] * 3 + [1.0]) @ _spacing_only(header)
        meta["place_known"] = False
    else:
        affine = _nifti_affine(header, shape, meta)
    return Grid((shape[0], shape[1], shape[2]), affine, allow_shear=True), meta


def _nifti_affine(
    header: own.Header, shape: tuple[int, ...], meta: dict[str, Any]
) -> NDArray[np.float64]:
    """Choose sform or qform (see the module docstring), in mm; sets ``place_known`` in ``meta``."""
    scale = np.diag([MM.get(_units(header), 1.0)] * 3 + [1.0])
    sform = np.asarray(header.get_sform(), float) if int(header["sform_code"]) > 0 else None
    qform = _qform(header) if int(header["qform_code"]) > 0 else None
    # Neither is valid: only the voxel sizes are known.
    if sform is None and qform is None:
        meta["place_known"] = False
        return scale @ _spacing_only(header)
    if sform is None:
        return scale @ _finite(qform, "qform")
    _note_sizes(scale @ sform, scale, header, meta)
    # Both are valid: the sform is used, and the qform must not contradict it.
    if qform is not None and not np.isfinite(qform).all():
        _add_note(meta, "its sform is used; its qform has an impossible rotation or spacing")
    elif qform is not None:
        _compare(scale @ _finite(sform, "sform"), scale @ qform, shape, header, meta)
    return scale @ _finite(sform, "sform")


def _qform(header: own.Header) -> NDArray[np.float64]:
    """Compute the qform's affine. It is NaN if its quaternion or spacing is impossible, so that it
    is never used.
    """
    # 0 means 1 (NIfTI-1 standard).
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1
    try:
        return np.asarray(header.get_qform(), float)
    except GeometryError:
        return np.full((4, 4), np.nan)


def _finite(affine: NDArray[np.float64] | None, name: str) -> NDArray[np.float64]:
    """Return the affine, or refuse it if a value is NaN or infinite."""
    if affine is None or not np.isfinite(affine).all():
        raise GeometryError(
            f"the {name} has values that are not finite (NaN or infinite), so the position of the "
            "voxels is unknown"
        )
    return affine


def _compare(
    sform: NDArray[np.float64],
    qform: NDArray[np.float64],
    shape: tuple[int, ...],
    header: Any,
    meta: dict[str, Any],
) -> None:
    """Record the distance between sform and qform in ``meta``; refuse a large one if both claim the
    same space.
    """
    # The difference of two affine maps is largest at a corner of the volume.
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, 8).T
    # Programs that store shear in the sform write the nearest rotation into the qform.
    differences = [one - qform for one in (sform, _without_shear(sform))]
    distance_mm = min(
        float(np.linalg.norm(corners @ d[:3, :3].T + d[:3, 3], axis=1).max()) for d in differences
    )
    if distance_mm > 1e-3:
        meta["qform_distance_mm"] = round(distance_mm, 3)
    # The limit is the smaller of 1 mm and half the shortest voxel edge.
    allowed_mm = min(SAME_PLACE_MM, 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()))
    if distance_mm > allowed_mm and int(header["sform_code"]) == int(header["qform_code"]):
        raise GeometryError(
            f"sform and qform contradict each other: both have code {int(header['sform_code'])}, "
            f"but they place a corner voxel {distance_mm:.1f} mm apart; set the code of the wrong "
            "one to 0"
        )
    if distance_mm > allowed_mm:
        _add_note(
            meta,
            f"its sform (code {int(header['sform_code'])}) is used; its qform (code "
            f"{int(header['qform_code'])}) places a corner voxel {distance_mm:.1f} mm from there",
        )


def _note_sizes(
    sform: NDArray[np.float64], scale: NDArray[np.float64], header: Any, meta: dict[str, Any]
) -> None:
    """Note voxel sizes of the header that are not those of the sform, which is used."""
    stated = scale[0, 0] * np.array([*header.get_zooms(), 1.0, 1.0, 1.0][:3], float)
    used = np.linalg.norm(sform[:3, :3], axis=0)
    axes = min(len(header.get_zooms()), 3)
    is_valid = np.isfinite(stated).all() and stated[:axes].all() and np.isfinite(used).all()
    if is_valid and not np.allclose(stated[:axes], used[:axes], rtol=SAME_SIZE):
        _add_note(
            meta,
            f"voxels of {_sizes(used)} mm, by the sform; its pixdim states {_sizes(stated)} mm",
        )


def _sizes(sizes: NDArray[np.float64]) -> str:
    return " x ".join(f"{one:.4g}" for one in sizes)


def _add_note(meta: dict[str, Any], note: str) -> None:
    meta["notes"] = [*meta.get("notes", ()), note]


def _without_shear(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine with the rotation nearest to its axes, and its spacing: what a qform can hold."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / np.maximum(spacing, np.finfo(float).tiny))
    out = affine.copy()
    out[:3, :3] = u @ v * spacing
    return out


def _spacing_only(header: Any) -> NDArray[np.float64]:
    """Make nibabel's affine for a header without position; refuse impossible voxel sizes."""
    # A header of fewer than three axes has fewer voxel sizes.
    zooms = np.array([*header.get_zooms(), 1.0, 1.0, 1.0][:3], float)
    if not np.isfinite(zooms).all() or zooms.min() <= 0:
        raise GeometryError(
            f"no usable geometry: no sform, no qform, and voxel sizes of {zooms.tolist()} mm"
        )
    return np.asarray(header.get_best_affine(), float)


def _units(header: Any) -> str:
    """Return the spatial unit by nibabel's name."""
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:  # the code is not defined by the standard
        return "unknown"


# ---- values ----


def _array(file: IO[bytes], header: Any, kind: str) -> NDArray[Any]:
    """Read (I, J, K) or (C, I, J, K): voxels in native byte order, scaled."""
    shape = tuple(int(n) for n in header.get_data_shape())
    # Further axes of length 1 carry no information. The first three are always spatial.
    if len(shape) > 4:
        shape = shape[:3] + tuple(n for n in shape[3:] if n > 1)
    if len(shape) > 4:
        raise FormatError(
            f"{len(shape)} axes of shape {shape}; allowed: at most three spatial axes and one of "
            "channels"
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "biufV" or (dtype.kind == "V" and not dtype.names):
        raise FormatError(
            f"voxels of type {dtype} are not supported; allowed: real numbers and RGB"
        )
    # The stream may be compressed and unable to seek: read up to the first voxel.
    start = file.read(FLAG.get(kind, -1) + 1)
    skip(file, (MGH_OFFSET if kind == "MGH" else int(header["vox_offset"])) - len(start))
    # MGH keeps notes behind its voxels. An extension that is announced, but has no room before the
    # voxels, would be read as voxels.
    is_shifted = start[-1:] > b"\0" and not header.extensions
    rest = MOST_SKIPPED if kind == "MGH" else 0 if is_shifted else MOST_REST
    array = read_array(file, shape, dtype, rest)
    # RGB is a structured dtype: each of its fields becomes a channel.
    if array.dtype.names:
        return np.stack([cube(array[name]) for name in array.dtype.names])
    array = _scaled(cube(array), header, kind)
    if array.ndim == 4:
        return array[..., 0] if array.shape[3] == 1 else np.moveaxis(array, 3, 0)
    return array


def cube(array: NDArray[Any]) -> NDArray[Any]:
    """Append axes of length 1 up to three axes."""
    return array.reshape((*array.shape, 1, 1, 1)[:3]) if array.ndim < 3 else array


def _scaled(array: NDArray[Any], header: Any, kind: str) -> NDArray[Any]:
    """Apply slope and intercept; the dtype is kept if they are 1 and 0."""
    # nibabel gives None for "no scaling" (slope 0 or NaN in the file). MGH has no scaling.
    slope, intercept = (None, None) if kind == "MGH" else header.get_slope_inter()
    slope, intercept = (
        (1.0 if slope is None else float(slope)),
        (0.0 if intercept is None else float(intercept)),
    )
    if kind != "MGH" and np.isinf(float(header["scl_slope"])):
        raise FormatError("its slope is infinite, so the values are unknown")
    if array.dtype.kind in "iu" and not np.isfinite(
        np.float32(abs(slope) * np.iinfo(array.dtype).max + abs(intercept))
    ):
        raise FormatError(f"a slope of {slope:g} gives values beyond all numbers")
    if (slope, intercept) == (1.0, 0.0):
        return array
    # float32 holds integers of two bytes exactly, but not of four: these are scaled in float64.
    precise = array.dtype.itemsize > 2
    scaled: NDArray[Any] = array.astype(np.float64 if precise else np.float32)
    np.multiply(scaled, slope, out=scaled)
    np.add(scaled, intercept, out=scaled)
    return scaled.astype(np.float32, copy=False)
