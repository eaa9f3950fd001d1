"""The header of NIfTI-1 and -2: fields, geometry, scaling and extensions, as nifti1.h and nifti2.h
define them.

It is read and written without nibabel, whose import takes longer than reading a small scan. A
header has the names of nibabel's methods, so that those of other formats are asked in the same way.
Sizes and offsets are in voxels and bytes, spacing in the header's own unit.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError
from ...core.grid import Grid


def _affines(number: str, code: str) -> list[Any]:
    """The fields of the two affines, of floats ``number`` and codes of the type ``code``."""
    codes = [("qform_code", code), ("sform_code", code)]
    return [*codes, ("quatern", number, 3), ("qoffset", number, 3), ("srow", number, (3, 4))]


# Some neighbouring fields of which each alone is not used here are one.
_WORDS = [("descrip", "S80"), ("aux_file", "S24")]
_FIELDS_1 = [
    *[("sizeof_hdr", "i4"), ("analyze", "S35"), ("dim_info", "u1"), ("dim", "i2", 8)],
    *[("intent_p", "f4", 3), ("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2")],
    *[("slice_start", "i2"), ("pixdim", "f4", 8), ("vox_offset", "f4"), ("scl_slope", "f4")],
    *[("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"), ("xyzt_units", "u1")],
    *[("cal", "f4", 2), ("slice_duration", "f4"), ("toffset", "f4"), ("gl", "i4", 2)],
    *[*_WORDS, *_affines("f4", "i2"), ("intent_name", "S16"), ("magic", "S4")],
]
_FIELDS_2 = [
    *[("sizeof_hdr", "i4"), ("magic", "S4"), ("eol_check", "i1", 4), ("datatype", "i2")],
    *[("bitpix", "i2"), ("dim", "i8", 8), ("intent_p", "f8", 3), ("pixdim", "f8", 8)],
    *[("vox_offset", "i8"), ("scl_slope", "f8"), ("scl_inter", "f8"), ("cal", "f8", 2)],
    *[("slice_duration", "f8"), ("toffset", "f8"), ("slices", "i8", 2), *_WORDS],
    *[*_affines("f8", "i4"), ("slice_code", "i4"), ("xyzt_units", "i4"), ("intent_code", "i4")],
    *[("intent_name", "S16"), ("dim_info", "u1"), ("unused", "S15")],
]
FIELDS = {1: np.dtype(_FIELDS_1), 2: np.dtype(_FIELDS_2)}
EOL = (13, 10, 26, 10)  # of NIfTI-2, damaged by transfers as text
MOST_SIZE = 32767  # voxels along an axis of NIfTI-1
# Code of a datatype -> its voxels; None for those that no reader here supports.
_RGB = [(name, "u1") for name in "RGBA"]
TYPES: dict[int, Any] = {0: None, 1: None, 255: None, 1536: None, 2048: None}
TYPES |= {2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 128: _RGB[:3], 256: "i1"}
TYPES |= {512: "u2", 768: "u4", 1024: "i8", 1280: "u8", 1792: "c16", 2304: _RGB}
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_MM, _SPATIAL = 2, 7  # code of mm; the bits of the spatial unit
COMMENT = 6  # code of an extension of text
# A quaternion of which the square of the first part is this near to 0 is half a turn.
HALF_TURN = {1: 3 * float(np.finfo(np.float32).eps), 2: 3 * float(np.finfo(np.float64).eps)}


@dataclass(frozen=True)
class Extension:
    """A block of bytes that follows the header, without the zeros at its end."""

    code: int
    content: bytes


@dataclass(frozen=True, eq=False)
class Header:
    """A header as it is in a file.

    Args:
        version: 1 or 2.
        fields: a structured array without axes, in the byte order of the file.
        extensions: in the order of the file.
    """

    version: int
    fields: NDArray[Any]
    extensions: tuple[Extension, ...] = ()

    @classmethod
    def of(cls, start: bytes, version: int) -> Header:
        """That of the first bytes of a file; its byte order is the one in which its number of axes
        is possible, or its length if there are no axes.
        """
        native = np.frombuffer(start, FIELDS[version], 1).reshape(())
        axes, size = int(native["dim"][0]), native["sizeof_hdr"]
        other = size.byteswap() == FIELDS[version].itemsize if axes == 0 else not 1 <= axes <= 7
        dtype = FIELDS[version].newbyteorder("S") if other else FIELDS[version]
        return cls(version, np.frombuffer(start, dtype, 1).reshape(()).copy())

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __contains__(self, name: str) -> bool:
        return name in (self.fields.dtype.names or ())

    @property
    def order(self) -> str:
        """The byte order, "<" or ">"."""
        native = self.fields.dtype["dim"].base.isnative
        return "<" if native == (sys.byteorder == "little") else ">"

    def get_data_shape(self) -> tuple[int, ...]:
        axes = int(self["dim"][0])
        shape = tuple(int(n) for n in self["dim"][1 : axes + 1])
        # FreeSurfer's surfaces of 163,842 points, which are more than an axis can have.
        return (163842, 1, 1, *shape[3:]) if shape[:3] == (27307, 1, 6) else shape

    def get_data_dtype(self) -> np.dtype[Any]:
        found = TYPES[int(self["datatype"])]
        return np.dtype("V") if found is None else np.dtype(found).newbyteorder(self.order)

    def get_zooms(self) -> tuple[Any, ...]:
        """The spacing along each axis."""
        return tuple(self["pixdim"][1 : int(self["dim"][0]) + 1])

    def get_slope_inter(self) -> tuple[float | None, float | None]:
        """Slope and intercept; None if the values are not scaled."""
        slope, intercept = float(self["scl_slope"]), float(self["scl_inter"])
        if slope == 0 or not np.isfinite(slope):
            return None, None
        if not np.isfinite(intercept):
            raise FormatError(f"its slope is {slope:g}, but its intercept is {intercept:g}")
        return slope, intercept

    def get_xyzt_units(self) -> tuple[str]:
        """The spatial unit; KeyError for a code that is not defined."""
        return (_UNITS[int(self["xyzt_units"]) & _SPATIAL],)

    def get_sform(self) -> NDArray[np.float64]:
        return np.vstack([_floats(self["srow"]), [0, 0, 0, 1]])

    def get_qform(self) -> NDArray[np.float64]:
        """The affine of the quaternion.

        Raises:
            GeometryError: it is no rotation, or the spacing is negative.
        """
        spacing, side = _floats(self["pixdim"])[1:4], float(self["pixdim"][0])
        if (spacing < 0).any() or side not in (-1, 1):
            raise GeometryError(f"a qform of spacing {spacing.tolist()} and side {side:g}")
        affine = np.eye(4)
        affine[:3, :3] = _rotation(self["quatern"], HALF_TURN[self.version])
        affine[:3, :3] *= [*spacing[:2], side * spacing[2]]
        affine[:3, 3] = _floats(self["qoffset"])
        return affine

    def get_best_affine(self) -> NDArray[np.float64]:
        """The affine of a header without a place: centred, the first axis towards the left."""
        sizes, spacing = (
            np.array([*values, 1, 1, 1][:3], np.float64)
            for values in (self.get_data_shape(), self.get_zooms())
        )
        spacing[0] *= -1
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -(sizes - 1) / 2 * spacing
        return affine


def _floats(values: NDArray[Any]) -> NDArray[np.float64]:
    # Some NaN warn when they are cast; all are refused later, by what they are needed for.
    with np.errstate(invalid="ignore"):
        return np.asarray(values, np.float64)


def _rotation(quaternion: Sequence[float], half_turn: float) -> NDArray[np.float64]:
    """(3, 3) rotation of the last three parts of a unit quaternion, whose first is at least 0.

    Raises:
        GeometryError: they are longer than 1.
    """
    b, c, d = (float(part) for part in quaternion)
    square = 1 - (b * b + c * c + d * d)
    if not square > -half_turn:
        raise GeometryError(f"a quaternion of {b:g}, {c:g} and {d:g} is no rotation")
    a = np.sqrt(square) if square >= half_turn else 0.0
    # Scaled, so that rounded parts give a rotation too.
    s = 2 / (a * a + b * b + c * c + d * d)
    return np.array(
        [
            [1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
            [s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)],
            [s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)],
        ]
    )


def _quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) the last three parts of the quaternion of a rotation, whose first is at least 0: an
    eigenvector (Bar-Itzhack 2000).
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = rotation
    matrix = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, yz - zy],
            [yx + xy, yy - xx - zz, zy + yz, zx - xz],
            [zx + xz, zy + yz, zz - xx - yy, xy - yx],
            [yz - zy, zx - xz, xy - yx, xx + yy + zz],
        ]
    )
    found = np.linalg.eigh(matrix)[1][:, -1]
    return np.asarray(found[:3] if found[3] >= 0 else -found[:3], np.float64)


def read_extensions(file: IO[bytes], size: int | None, order: str) -> tuple[Extension, ...]:
    """Those in the next ``size`` bytes of a file, or until it ends; a remainder of fewer than 16
    bytes is no extension.

    Raises:
        FormatError: one ends early.
    """
    found = []
    while size is None or size >= 16:
        start = file.read(8)
        if not start and size is None:
            break
        if len(start) < 8:
            raise FormatError("truncated: an extension of its header has no length")
        length, code = (int(n) for n in np.frombuffer(start, f"{order}i4"))
        content = file.read(max(0, length - 8))
        if length < 8 or len(content) < length - 8:
            raise FormatError(
                f"truncated: an extension of its header has {8 + len(content)} of {length} bytes"
            )
        size = None if size is None else size - length
        found.append(Extension(code, content.rstrip(b"\0")))
    return tuple(found)


def made(shape: Sequence[int], dtype: np.dtype[Any], grid: Grid, step: float) -> NDArray[Any]:
    """The fields of a new header (see ``Header``) for voxels of ``shape`` in ``dtype``, whose unit
    is ``step``.

    sform and qform have the same affine and code 1; a sheared grid has only the sform, because a
    qform cannot hold it.
    """
    version = 1 if max(shape) <= MOST_SIZE else 2
    fields = np.zeros((), FIELDS[version])
    fields["sizeof_hdr"] = FIELDS[version].itemsize
    fields["magic"] = b"n+1" if version == 1 else b"n+2"
    if version == 2:
        fields["eol_check"] = EOL
    fields["dim"] = [len(shape), *shape, *(1 for _ in range(7 - len(shape)))]
    fields["datatype"], fields["bitpix"] = _codes()[dtype.newbyteorder("=")], 8 * dtype.itemsize
    fields["scl_slope"], fields["xyzt_units"] = step, _MM
    # The nearest rotation, of axes of which none is mirrored; the last one is, by the side.
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    directions = grid.affine[:3, :3] / spacing
    side = 1 if np.linalg.det(directions) > 0 else -1
    directions[:, -1] *= side
    left, _, right = np.linalg.svd(directions)
    fields["pixdim"] = [side, *spacing, 1, 1, 1, 1]
    fields["quatern"], fields["qoffset"] = _quaternion(left @ right), grid.affine[:3, 3]
    fields["srow"] = grid.affine[:3]
    fields["sform_code"], fields["qform_code"] = 1, 0 if grid.is_sheared else 1
    return fields


@functools.cache
def _codes() -> dict[np.dtype[Any], int]:
    """Voxels -> code of their datatype."""
    return {np.dtype(kind): code for code, kind in TYPES.items() if kind is not None}


def packed(fields: NDArray[Any], extensions: Sequence[Extension] = ()) -> bytes:
    """The bytes of a file up to its voxels; the offset of these is set."""
    parts = []
    for one in extensions:
        size = -(-(8 + len(one.content)) // 16) * 16
        start = np.array([size, one.code], np.int32).tobytes()
        parts.append((start + one.content).ljust(size, b"\0"))
    rest = bytes([bool(parts), 0, 0, 0]) + b"".join(parts)
    whole = fields.copy()
    whole["vox_offset"] = fields.dtype.itemsize + len(rest)
    return whole.tobytes() + rest
