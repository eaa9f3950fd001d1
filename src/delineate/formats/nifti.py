"""NIfTI-1 and -2, Analyze 7.5 and MGH/MGZ, read through nibabel's headers; NIfTI written.

Geometry: the sform where its code is above 0, else the qform where its code is above 0 (NIfTI-1
standard, "method 3" before "method 2"). Both codes with the same value must put every corner within
half a voxel and 1 mm of each other; with different codes (scanner against standard space) the sform
is taken and the distance recorded. Units of metres and micrometres become mm. Analyze 7.5 and NIfTI
with both codes 0 have a spacing but no place: they get nibabel's convention (first axis towards the
left, radiological; centred, or SPM's origin) and ``meta["place_known"] = False``.

Values: slope 1 and intercept 0 keep the dtype on disk; any other scaling gives float32. The fourth
axis on disk becomes channels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.errors import FormatError, GeometryError
from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.volume import Volume
from .disk import head_of, is_348, opened, packing, read_array, smallest_labels, told

MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
SAME_PLACE_MM = 1.0
MGH_OFFSET = 284
MGH_TYPES = (0, 1, 3, 4, 10)
KINDS = ("NIfTI", "NIfTI-2", "NIfTI pair", "Analyze 7.5", "MGH")


def _nibabel() -> Any:
    """nibabel, loaded when first needed; its functions are not typed."""
    import nibabel

    return nibabel


def kind_of(head: bytes) -> str:
    """Which of ``KINDS`` a file with this (unpacked) beginning is, or ""."""
    if is_348(head):
        return {b"n+1": "NIfTI", b"ni1": "NIfTI pair"}.get(head[344:347], "Analyze 7.5")
    if head[4:7] in (b"n+2", b"ni2"):
        return "NIfTI-2"
    dims = np.frombuffer(head[:24], ">i4") if len(head) >= 284 else np.zeros(6, int)
    return "MGH" if dims[0] == 1 and dims[1:5].min() > 0 and dims[5] in MGH_TYPES else ""


def read(path: str | Path) -> Volume:
    """The volume in ``path``; unit "a.u.", modality "".

    Raises:
        FormatError: truncated, damaged, complex values, or more than four axes.
        GeometryError: unusable, contradicting or sheared geometry.
    """
    with told(path, "NIfTI, Analyze or MGH file"):
        header, kind, voxels = _header(Path(path))
        grid, meta = _geometry(header, kind)
        with opened(voxels) as file:
            array = _array(file, header, kind)
        return Volume(array, grid, source=str(path), meta=meta)


def read_grid(path: str | Path) -> Grid:
    """The grid alone; of a packed file only the beginning is unpacked."""
    with told(path, "NIfTI, Analyze or MGH file"):
        header, kind, _ = _header(Path(path))
        return _geometry(header, kind)[0]


def describe(path: str | Path) -> dict[str, Any]:
    """Kind, disk dtype, disk shape, scaling and the codes of sform and qform."""
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
    """nibabel's header, the kind, and the file that holds the voxels (another one for .hdr/.img
    pairs).
    """
    kind = kind_of(head_of(path))
    holder, voxels = path, path
    if not kind or kind in ("NIfTI pair", "Analyze 7.5"):
        holder, voxels = pair_of(path)
        kind = kind_of(head_of(holder))
    nib = _nibabel()
    makers = {
        "NIfTI": nib.Nifti1Header,
        "NIfTI-2": nib.Nifti2Header,
        "NIfTI pair": nib.nifti1.Nifti1PairHeader,
        "Analyze 7.5": nib.spm2analyze.Spm2AnalyzeHeader,
        "MGH": nib.freesurfer.mghformat.MGHHeader,
    }
    if kind not in makers:
        raise FormatError("not a NIfTI, Analyze or MGH file", path=path)
    with opened(holder) as file:
        return makers[kind].from_fileobj(file, check=kind == "MGH"), kind, voxels


def pair_of(path: Path) -> tuple[Path, Path]:
    """The .hdr and the .img that belong to either of them."""
    name = path.name
    for one, other in ((".img", ".hdr"), (".IMG", ".HDR")):
        for ending, twin in ((one, other), (other, one)):
            for packed in ("", ".gz"):
                if name.endswith(ending + packed):
                    stump = name[: -len(ending + packed)]
                    found = [
                        path.with_name(stump + twin + gz)
                        for gz in ("", ".gz")
                        if path.with_name(stump + twin + gz).exists()
                    ]
                    if not found:
                        raise FormatError(
                            f"a pair of files is needed, but {stump + twin} is missing beside it",
                            path=path,
                        )
                    return (path, found[0]) if ending.lower() == ".hdr" else (found[0], path)
    raise FormatError("a header of a pair of files (.hdr and .img) under another ending", path=path)


# ---- geometry ----


def _geometry(header: Any, kind: str) -> tuple[Grid, dict[str, Any]]:
    disk = [int(n) for n in header.get_data_shape()]
    shape = tuple([*disk, 1, 1, 1][:3])
    meta: dict[str, Any] = {
        "modality": "",
        "patient": "",
        "spacing_known": True,
        "place_known": True,
    }
    if kind == "MGH":
        affine = np.asarray(header.get_affine(), float)
    elif kind == "Analyze 7.5":
        affine, meta["place_known"] = _spacing_only(header), False
    else:
        affine = _nifti_affine(header, shape, meta)
    return Grid((shape[0], shape[1], shape[2]), affine), meta


def _nifti_affine(header: Any, shape: tuple[int, ...], meta: dict[str, Any]) -> NDArray[np.float64]:
    scale = np.diag([MM.get(_units(header), 1.0)] * 3 + [1.0])
    sform = np.asarray(header.get_sform(), float) if int(header["sform_code"]) > 0 else None
    qform = _qform(header) if int(header["qform_code"]) > 0 else None
    if sform is None and qform is None:
        meta["place_known"] = False
        return scale @ _spacing_only(header)
    if sform is None:
        return scale @ _finite(qform, "qform")
    if qform is not None and np.isfinite(qform).all():
        _compare(scale @ _finite(sform, "sform"), scale @ qform, shape, header, meta)
    return scale @ _finite(sform, "sform")


def _qform(header: Any) -> NDArray[np.float64]:
    """The qform's affine; NaN where its quaternion or spacing is impossible, so that it never
    counts.
    """
    try:
        return np.asarray(header.get_qform(), float)
    except (_nibabel().spatialimages.HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)


def _finite(affine: NDArray[np.float64] | None, name: str) -> NDArray[np.float64]:
    if affine is None or not np.isfinite(affine).all():
        raise GeometryError(
            f"the {name} has values that are not finite (NaN or infinite), so nobody knows where "
            "the voxels stand"
        )
    return affine


def _compare(
    sform: NDArray[np.float64],
    qform: NDArray[np.float64],
    shape: tuple[int, ...],
    header: Any,
    meta: dict[str, Any],
) -> None:
    """Record how far the qform stands from the sform; refuse where both claim the same kind of
    space.
    """
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, 8).T
    difference = sform - qform
    distance_mm = float(
        np.linalg.norm(ends @ difference[:3, :3].T + difference[:3, 3], axis=1).max()
    )
    if distance_mm > 1e-3:
        meta["qform_distance_mm"] = round(distance_mm, 3)
    allowed_mm = min(SAME_PLACE_MM, 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()))
    if distance_mm > allowed_mm and int(header["sform_code"]) == int(header["qform_code"]):
        raise GeometryError(
            f"sform and qform contradict: both have code {int(header['sform_code'])}, but put a "
            "corner voxel "
            f"{distance_mm:.1f} mm apart; set one of the codes to 0 to say which one is right"
        )


def _spacing_only(header: Any) -> NDArray[np.float64]:
    zooms = np.array([*header.get_zooms(), 1.0, 1.0, 1.0][:3], float)
    if not np.isfinite(zooms).all() or zooms.min() <= 0:
        raise GeometryError(
            f"no usable geometry: no sform, no qform, and voxel sizes of {zooms.tolist()} mm"
        )
    return np.asarray(header.get_best_affine(), float)


def _units(header: Any) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:  # an undefined code says nothing
        return "unknown"


# ---- values ----


def _array(file: IO[bytes], header: Any, kind: str) -> NDArray[Any]:
    """(I, J, K) or (C, I, J, K): voxels in native byte order, scaled."""
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) > 4:  # an axis of one voxel says nothing; the first three are always space
        shape = shape[:3] + tuple(n for n in shape[3:] if n > 1)
    if len(shape) > 4:
        raise FormatError(
            f"{len(shape)} axes of shape {shape}; at most three of space and one of channels are "
            "allowed"
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "biufV" or (dtype.kind == "V" and not dtype.names):
        raise FormatError(f"voxels of type {dtype} are refused; real numbers and RGB are allowed")
    file.read(MGH_OFFSET if kind == "MGH" else int(header["vox_offset"]))
    array = read_array(file, shape, dtype)
    if array.dtype.names:
        return np.stack([_cube(array[name]) for name in array.dtype.names])
    array = _scaled(_cube(array), header, kind)
    if array.ndim == 4:
        return array[..., 0] if array.shape[3] == 1 else np.moveaxis(array, 3, 0)
    return array


def _cube(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape((*array.shape, 1, 1, 1)[:3]) if array.ndim < 3 else array


def _scaled(array: NDArray[Any], header: Any, kind: str) -> NDArray[Any]:
    slope, intercept = (None, None) if kind == "MGH" else header.get_slope_inter()
    slope, intercept = (
        (1.0 if slope is None else float(slope)),
        (0.0 if intercept is None else float(intercept)),
    )
    if (slope, intercept) == (1.0, 0.0):
        return array
    precise = array.dtype.itemsize > 2  # two bytes survive float32, four do not
    scaled: NDArray[Any] = array.astype(np.float64 if precise else np.float32)
    np.multiply(scaled, slope, out=scaled)
    np.add(scaled, intercept, out=scaled)
    return scaled.astype(np.float32, copy=False)


# ---- writing ----


def write(
    volume: Volume, path: str | Path, labels: LabelSet | None = None, step: float = 1.0
) -> None:
    """Write NIfTI-1 (NIfTI-2 where an axis exceeds 32767 voxels), packed where the name ends in
    .gz.

    sform and qform are both written with code 1; the dtype stays (bool becomes uint8, float16
    float32, labels the smallest unsigned one). ``labels`` go into a comment extension as JSON.
    ``step`` is what a 1 in the file stands for; readers multiply by it.
    """
    array = np.moveaxis(volume.array, 0, 3) if volume.array.ndim == 4 else volume.array
    if volume.unit == "label":
        array = (
            np.moveaxis(smallest_labels(volume), 0, 3)
            if volume.array.ndim == 4
            else smallest_labels(volume)
        )
    array = array.astype(
        {"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype), copy=False
    )
    nib = _nibabel()
    maker, head = (
        (nib.Nifti1Image, nib.Nifti1Header)
        if max(array.shape) <= 32767
        else (nib.Nifti2Image, nib.Nifti2Header)
    )
    header = head()
    header.set_data_dtype(array.dtype)
    image = maker(array, volume.grid.affine, header, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(step, 0)
    image.set_sform(volume.grid.affine, code=1)
    image.set_qform(volume.grid.affine, code=1, strip_shears=True)
    if labels is not None and len(labels):
        text = json.dumps({"delineate_labels": labels.to_json()})
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text.encode()))
    with (
        replacing(path) as temporary,
        packing(temporary, str(path).lower().endswith(".gz")) as file,
    ):
        image.to_file_map({"image": nib.fileholders.FileHolder(fileobj=file)})
