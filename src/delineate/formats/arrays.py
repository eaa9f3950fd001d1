"""Plain arrays: .npy, .npz and HDF5 files.

They store no geometry. Spacing and axes must be stated: ``axes`` has a letter for each axis of the
array, the direction in which its index grows (R or L, A or P, S or I), and C for channels. An array
(z, y, x) made by SimpleITK has the axes SPL. The position in space stays unknown.

An archive that this package wrote states everything: the array ``voxels`` in the order (I, J, K),
``affine`` (4, 4), voxel index to RAS+ mm, and for masks ``labels``, the structures as JSON text.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import write_bytes
from ..core.errors import FormatError, GeometryError
from ..core.grid import Grid
from ..core.inputs import expected_bytes, reading_at_most, refuse_large, stated_limit
from ..core.labels import LabelSet
from ..core.volume import Volume
from ..extras import require_extra
from . import apart
from .disk import labels_as_text, names_in_text, smallest_labels, told

KINDS = ("NumPy", "NumPy archive", "HDF5")
ENDINGS = (".npy", ".npz", ".h5", ".hdf5")
CHANNELS = "C"
VOXELS, AFFINE, LABELS = "voxels", "affine", "labels"  # arrays of an archive with its geometry
# Letter -> axis in RAS+ and direction.
_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_ENTRY = re.compile(r"(.*)\[(\d*)\]")
_UNSTATED = (
    "an array stores no spacing and no axes; state both in a description, such as spacing_mm: "
    "[2.5, 0.8, 0.8] and axes: SPL for an array (z, y, x) made by SimpleITK, or of one file with "
    "convert --spacing 2.5,0.8,0.8 --axes SPL"
)


def kind_of(head: bytes, path: str | Path) -> str:
    """One of ``KINDS``, or "". Archives that this package did not write are recognised by their
    ending too, because other programs write ZIP files.
    """
    if head[:6] == b"\x93NUMPY":
        return "NumPy"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "HDF5"
    is_named = str(path).lower().endswith(".npz") or head[30:].startswith(f"{VOXELS}.npy".encode())
    return "NumPy archive" if head[:4] == b"PK\x03\x04" and is_named else ""


def read(path: Path, kind: str, item: str, axes: str, spacing_mm: Sequence[float]) -> Volume:
    """Read one array.

    Args:
        path: the file.
        kind: one of ``KINDS``.
        item: name of the array in an archive or HDF5 file; "" if it has only one; NAME[INDEX] for
            one case of many, NAME[] for all of an array. These two need no spacing.
        axes: see the module; in any case of letters.
        spacing_mm: along the axes of the array, without that of channels.

    Returns:
        (I, J, K) or (C, I, J, K) in the order of ``axes``; a 2-D array has K = 1.

    Raises:
        FormatError: damaged, objects instead of numbers, or no such array (with those there are).
        GeometryError: no axes or spacing is stated, or they do not fit the array.
        UsageError: h5py is not installed.
    """
    entry = _ENTRY.fullmatch(item)
    if not axes and item in ("", VOXELS) and is_placed(path, kind):
        return _placed(path)
    if not axes or not (spacing_mm or entry):
        raise GeometryError(_UNSTATED, path=path)
    with told(path):
        array = _entry(path, kind, entry[1], entry[2]) if entry else load(path, kind, item)
    if array.dtype.kind not in "biuf":
        raise FormatError(f"the array has {array.dtype}, but numbers are needed", path=path)
    letters = axes.upper()
    spatial = letters.replace(CHANNELS, "", 1)
    planes = {_DIRECTIONS[letter][0] for letter in spatial if letter in _DIRECTIONS}
    if len(letters) != array.ndim or len(planes) != len(spatial) or len(spatial) not in (2, 3):
        raise GeometryError(
            f"axes {axes!r} do not fit an array of shape {array.shape}: one letter for each axis, "
            "of R or L, A or P, S or I, and C for channels",
            path=path,
        )
    is_known = bool(spacing_mm)
    spacing_mm = spacing_mm or (1.0,) * len(spatial)
    if len(spacing_mm) != len(spatial):
        raise GeometryError(
            f"a spacing of {list(spacing_mm)} mm is stated for {len(spatial)} axes", path=path
        )
    if CHANNELS in letters:
        array = np.moveaxis(array, letters.index(CHANNELS), 0)
    if len(spatial) == 2:
        array, spatial, spacing_mm = _with_third_axis(array, spatial, planes, spacing_mm)
    array = np.ascontiguousarray(array.astype(np.uint8) if array.dtype == bool else array)
    with told(path):
        grid = _grid(array.shape[-3:], spatial, spacing_mm)
    meta = {"modality": "", "patient": "", "spacing_known": is_known, "place_known": False}
    return Volume(array, grid, source=str(path), meta=meta)


def _with_third_axis(
    array: NDArray[Any], spatial: str, planes: set[int], spacing_mm: Sequence[float]
) -> tuple[NDArray[Any], str, Sequence[float]]:
    """A 2-D array with K = 1 along the direction that is left."""
    missing = next(axis for axis in range(3) if axis not in planes)
    return array[..., None], spatial + "RAS"[missing], (*spacing_mm, 1.0)


def _grid(shape: tuple[int, ...], axes: str, spacing_mm: Sequence[float]) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for n, (letter, size) in enumerate(zip(axes, spacing_mm, strict=True)):
        row, sign = _DIRECTIONS[letter]
        affine[row, n] = sign * size
    return Grid((shape[0], shape[1], shape[2]), affine)


def _entry(path: Path, kind: str, item: str, number: str) -> NDArray[Any]:
    """One case of an array that holds many, or all of it if ``number`` is ""."""
    if not number:
        return load(path, kind, item)
    index = int(number)
    state = path.stat()
    whole = (
        load(path, kind, item)
        if kind == "NumPy"
        else _kept(path, kind, item, state.st_mtime_ns, state.st_size)
    )
    if index >= len(whole):
        raise FormatError(f"has {len(whole)} cases, counted from 0; found {index}", path=path)
    return np.array(whole[index])


@functools.lru_cache(maxsize=2)
def _kept(path: Path, kind: str, item: str, changed_ns: int, size: int) -> NDArray[Any]:
    """An array of an archive, kept for its next case: an image and its labels at a time."""
    return load(path, kind, item)


def names_in(path: Path, kind: str) -> list[str]:
    """The names of the arrays in an archive or HDF5 file; [""] for a file with one array.

    Raises:
        FormatError: damaged. UsageError: h5py is not installed.
    """
    if kind == "HDF5":
        nbytes = expected_bytes(path.stat().st_size)
        return list(apart.call("arrays:sent_hdf5_names", str(path), nbytes=nbytes)[0]["names"])
    if kind != "NumPy archive":
        return [""]
    with told(path), np.load(path, allow_pickle=False) as loaded:
        return list(loaded.files)


def describe(path: Path, kind: str) -> dict[str, Any]:
    """What a file of arrays states as plain data: the shape and dtype of each array.

    Raises:
        FormatError: damaged. UsageError: h5py is not installed.
    """
    found = {name: load(path, kind, name) for name in names_in(path, kind)}
    listed = {
        name or "array": f"{'x'.join(map(str, array.shape)) or 'one value'}, {array.dtype}"
        for name, array in found.items()
    }
    return {"format": kind, "arrays": listed}


def write(volume: Volume, path: str | Path, labels: LabelSet | None = None) -> None:
    """Write a .npz file with the voxels and their geometry, or a .npy file with the voxels alone.

    A volume of unit "label" is written in the smallest unsigned dtype.

    Raises:
        LabelError: label values that are not whole numbers from 0.
    """
    array = smallest_labels(volume) if volume.unit == "label" else volume.array
    if str(path).lower().endswith(".npy"):
        save(array, path)
        return
    parts = {VOXELS: array, AFFINE: volume.affine}
    if labels is not None:
        parts[LABELS] = np.array(labels_as_text(labels))
    data = io.BytesIO()
    np.savez_compressed(data, **parts)  # type: ignore[arg-type,unused-ignore]
    write_bytes(path, data.getvalue())


def read_names(path: str | Path, kind: str) -> dict[int, str]:
    """Value -> name of the structures that ``write`` stored; {} for other files."""
    if kind != "NumPy archive" or LABELS not in names_in(Path(path), kind):
        return {}
    return names_in_text(str(load(Path(path), kind, LABELS)))


def is_placed(path: Path, kind: str) -> bool:
    """Whether a file is an archive that states its geometry."""
    return kind == "NumPy archive" and {VOXELS, AFFINE} <= set(names_in(path, kind))


def _placed(path: Path) -> Volume:
    """The volume of an archive with its geometry."""
    kind = "NumPy archive"
    with told(path):
        array, affine = load(path, kind, VOXELS), load(path, kind, AFFINE)
        i, j, k = array.shape[-3:]
        grid = Grid((i, j, k), affine, allow_shear=True)
        meta: dict[str, Any] = {"modality": "", "patient": "", "spacing_known": True}
        meta |= {"names": names} if (names := read_names(path, kind)) else {}
        return Volume(array, grid, source=str(path), meta=meta)


def save(array: NDArray[Any], path: str | Path) -> None:
    """Write a .npy file, which has no geometry."""
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    write_bytes(path, data.getvalue())


def load(path: Path, kind: str, item: str) -> NDArray[Any]:
    """The whole array; of a file with one array, mapped into memory.

    Raises:
        FormatError: see ``read``.
    """
    if kind == "HDF5":
        # Damaged files can make its library, in C, hang or use all memory.
        nbytes = expected_bytes(path.stat().st_size)
        return apart.call("arrays:sent_hdf5", str(path), item, stated_limit(), nbytes=nbytes)[1][0]
    try:
        if kind == "NumPy":
            # Mapped: a size that the file does not have is an error and costs no memory.
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as loaded:
            name = _only(list(loaded.files), item, path)
            for member in loaded.zip.infolist():
                if member.filename.removesuffix(".npy") == name:
                    refuse_large(member.file_size, member.compress_size)
            return np.asarray(loaded[name])
    except ValueError as error:
        # The parser of a header explains itself in several lines.
        words = " ".join(str(error).split())
        raise FormatError(f"cannot be read as an array of numbers ({words})", path=path) from error


def sent_hdf5_names(name: str) -> apart.Found:
    """The names of the arrays in an HDF5 file, for ``apart.call``."""
    require_extra("hdf5", "reading HDF5")
    import h5py

    with told(Path(name)), h5py.File(name, "r") as file:
        return {"names": _hdf5_names(file)}, []


def _hdf5_names(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, one: names.append(name) if hasattr(one, "shape") else None)
    return names


def sent_hdf5(name: str, item: str, limit: int | None) -> apart.Found:
    """The array of an HDF5 file, for ``apart.call``."""
    require_extra("hdf5", "reading HDF5")
    import h5py

    path = Path(name)
    with told(path), reading_at_most(limit), h5py.File(path, "r") as file:
        found = file[_only(_hdf5_names(file), item, path)]
        # Text is not even read: where its length varies, damage is worst.
        if found.dtype.kind not in "biuf":
            raise FormatError(f"the array has {found.dtype}, but numbers are needed")
        # Other files would be opened whatever they are.
        if found.external or found.is_virtual:
            raise FormatError("its array is in other files; one file is read", path=path)
        refuse_large(int(found.nbytes), path.stat().st_size)
        return {}, [np.asarray(found)]


def _only(names: Sequence[str], item: str, path: Path) -> str:
    """The array ``item``, or the only one.

    Raises:
        FormatError: there is none of this name, or no name is stated for several.
    """
    name = item or (names[0] if len(names) == 1 else "")
    if name in names:
        return name
    missing = f"has no array {item!r}" if item else "has several arrays"
    raise FormatError(
        f"{missing}; it has {', '.join(names[:8]) or 'none'}. Name one after the pattern, such as "
        f"{path.suffix}#{names[0] if names else 'image'}",
        path=path,
    )
