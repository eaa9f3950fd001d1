"""MetaImage (.mha, .mhd), read as ITK reads it; ``formats.itk`` writes it.

ITK's LPS becomes RAS+ here, and other units of length become mm, which ITK ignores. Channels of a
voxel and a fourth axis become channels. Where the header states no spacing it is 1 mm, and
``meta["spacing_known"]`` is False. ITK's own reader accepts voxels that are damaged or too few and
can end the process on a damaged header, so this module reads the format itself and checks every
field. A header finds its data file in its folder.

Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import FormatError
from ..core.grid import Grid
from ..core.inputs import refuse_special
from ..core.volume import Volume
from .disk import (
    GZIP_MAGIC,
    Inflated,
    opened_part,
    other_range,
    read_array,
    read_numbers,
    skip,
    stated_mm,
    told,
)
from .itk import (
    LPS_TO_RAS,
    MOST_OF_HEADER,
    data_files,
    joined,
    modality_of,
    segment_fields,
    shape_of_one,
)

DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
# What names the position and the directions: each means the same.
POSITION = ("Offset", "Position", "Origin", "ImagePosition")
DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
SPACING = ("ElementSpacing", "ElementSize")  # the distance of voxels, else their size
# Where an axis begins, by its letter of AnatomicalOrientation -> its direction (LPS).
BEGINS = {
    **{"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0)},
    **{"P": (0, -1, 0), "I": (0, 0, 1), "S": (0, 0, -1)},
}
OPPOSITE = str.maketrans("RLAPIS", "LRPASI")
SAME_AXIS = 0.25  # least cosine of an axis and its letter; ITK names an oblique one by the nearest
# Other names that are read here; ITK also knows them in these letters only.
NAMES = (
    *("ObjectType", "NDims", "DimSize", "ElementNumberOfChannels", "ElementType", "HeaderSize"),
    *("BinaryData", "CompressedData", "CompressedDataSize", "DistanceUnits", "Modality"),
    *("AnatomicalOrientation", "CenterOfRotation", "ElementMin", "ElementMax"),
)
COMMENT = "Comment"  # the field that may be there several times
DATA_FILE = "ElementDataFile"  # the last field; the voxels follow it if its value is LOCAL


class _Header:
    """The fields of a header, checked when they are asked for.

    Args:
        fields: name -> value as text.

    Raises:
        FormatError: a field that is needed is missing, or has an impossible value.
    """

    def __init__(self, fields: dict[str, str]):
        self.fields = fields
        axes = self.numbers("NDims", 1, int)[0]
        if not 2 <= axes <= 4:
            raise FormatError(f"{axes} axes; allowed: 2 to 4")
        self.sizes = self.numbers("DimSize", axes, int)
        self.components = self.numbers("ElementNumberOfChannels", 1, int, (1,))[0]
        if min(*self.sizes, self.components) < 1:
            raise FormatError(
                f"sizes must be at least 1, found {self.sizes} and {self.components} channel(s)"
            )
        if axes == 4 and self.components > 1:
            raise FormatError(f"four axes of {self.components} channels; allowed: one of both")
        kind = fields.get("ElementType", "")
        if kind not in DTYPES:
            raise FormatError(f"voxels of type {kind!r}; allowed: {', '.join(DTYPES)}")
        stated = {self.is_true(name) for name in ORDER if name in fields}
        if len(stated) > 1:
            raise FormatError(f"{' and '.join(ORDER)} state two byte orders")
        order = ">" if stated == {True} else "<"
        self.dtype = np.dtype(order + DTYPES[kind])

    def numbers(
        self, name: str, count: int, kind: type = float, default: Sequence[Any] | None = None
    ) -> tuple[Any, ...]:
        """The ``count`` numbers of a field."""
        if name not in self.fields and default is not None:
            return tuple(default)
        words = self.fields.get(name, "").split()
        try:
            found = tuple(kind(word) for word in words)
        except ValueError:
            found = ()
        if len(found) != count:
            raise FormatError(f"{name} must have {count} number(s), found {' '.join(words)[:80]!r}")
        return found

    def first(self, *names: str) -> str:
        """The first of several names of a field that the header has; else the last one."""
        return next((name for name in names if name in self.fields), names[-1])

    def one_of(self, *names: str) -> str:
        """As ``first``, of names that state the same; refuses values that differ."""
        found = {name: self.fields[name].split() for name in names if name in self.fields}
        values = list(found.values())
        if any(value != values[0] for value in values):
            raise FormatError(f"{' and '.join(found)} state the same with different values")
        return self.first(*names)

    def is_true(self, name: str, default: str = "False") -> bool:
        """A field by its first letter, as ITK reads it."""
        value = self.fields.get(name, default)
        if value[:1].lower() not in ("t", "1", "f", "0"):
            raise FormatError(f"{name} is {value[:40]!r}; allowed: True, False")
        return value[:1].lower() in ("t", "1")

    def grid(self) -> Grid:
        """Origin, spacing and directions (LPS) as a grid (RAS+); a 2-D image becomes one slice, and
        a fourth axis has no geometry.
        """
        axes = len(self.sizes)
        space = min(axes, 3)
        spacing = np.array(self.numbers(self.first(*SPACING), axes, float, [1] * axes))
        origin = self.numbers(self.one_of(*POSITION), axes, float, [0] * axes)
        directions = self.numbers(
            self.one_of(*DIRECTIONS),
            axes**2,
            float,
            np.eye(axes).ravel().tolist(),
        )
        if not np.isfinite(spacing).all() or spacing[:space].min() <= 0:
            raise FormatError(f"ElementSpacing must be positive, found {spacing.tolist()}")
        matrix = np.eye(3)
        # Each row of the field is the direction of one axis.
        rows = np.array(directions).reshape(axes, axes)[:space, :space]
        matrix[:space, :space] = rows.T * spacing[:space]
        affine = np.eye(4)
        affine[:3, :3] = LPS_TO_RAS @ matrix
        affine[:space, 3] = origin[:space]
        affine[:3, 3] = LPS_TO_RAS @ affine[:3, 3]
        shape = [*self.sizes[:space], 1][:3]
        # Of origin and spacing.
        affine[:3] *= stated_mm(self.fields.get("DistanceUnits", ""))
        return Grid((shape[0], shape[1], shape[2]), affine, allow_shear=True)

    def notes(self, grid: Grid, array: NDArray[Any]) -> list[str]:
        """What the header states of these voxels and is not applied, as in ITK."""
        found = (
            self._of_intensities(),
            self._of_axes(grid),
            self._of_centre(grid),
            self._of_range(array),
            self._of_names(),
            self._of_kind(),
        )
        return [note for note in found if note]

    def _of_intensities(self) -> str:
        slope, intercept = (
            self.numbers(f"ElementToIntensityFunction{name}", 1, float, (default,))[0]
            for name, default in (("Slope", 1), ("Offset", 0))
        )
        if (slope, intercept) in ((1, 0), (0, 0)):
            return ""
        return (
            f"its header states that intensities are {slope:g} times the values, and {intercept:g} "
            "more (ElementToIntensityFunction); the values are read as they are stored, as by ITK"
        )

    def _of_axes(self, grid: Grid) -> str:
        """AnatomicalOrientation names where each axis begins; ITK writes and ignores it."""
        stated = (
            self.fields.get("AnatomicalOrientation", "").strip().upper()[: min(len(self.sizes), 3)]
        )
        columns = (LPS_TO_RAS @ grid.affine[:3, :3] / np.array(grid.spacing_mm)).T
        cosines = [
            float(np.dot(BEGINS[letter], column)) if letter in BEGINS else 1.0
            for letter, column in zip(stated, columns, strict=False)
        ]
        if min(cosines, default=1.0) >= SAME_AXIS:
            return ""
        found = next((name for name in DIRECTIONS if name in self.fields), "")
        begins = grid.codes.translate(OPPOSITE)[: len(stated)]
        return (
            f"its header states that the axes begin at {stated} (AnatomicalOrientation); they are "
            f"read as {begins}, "
            + (f"which {found} states" if found else "as by ITK, since no TransformMatrix is there")
        )

    def _of_centre(self, grid: Grid) -> str:
        """CenterOfRotation would move a turned image; ITK ignores it."""
        centre = self.fields.get("CenterOfRotation", "").split()
        is_turned = any(name in self.fields for name in DIRECTIONS) and not np.allclose(
            LPS_TO_RAS @ grid.affine[:3, :3], np.diag(grid.spacing_mm)
        )
        if not is_turned or not any(word.strip("+-0.") for word in centre):
            return ""
        return (
            f"its header states a CenterOfRotation of {' '.join(centre)[:80]}, which is not "
            "applied: the position of the first voxel is the one that is stated, as by ITK"
        )

    def _of_range(self, array: NDArray[Any]) -> str:
        """ElementMin and ElementMax of these voxels; 0 and 0 mean nothing (MetaIO's default)."""
        low, high = (
            self.numbers(f"Element{name}", 1, float, (np.nan,))[0] for name in ("Min", "Max")
        )
        return "" if low == high == 0 else other_range(low, high, array, "ElementMin, ElementMax")

    def _of_kind(self) -> str:
        """MetaIO has other objects than images; ITK reads voxels of any."""
        kind = self.fields.get("ObjectType", "Image")
        if kind.lower() == "image":
            return ""
        return f"its header states an object of the type {kind[:40]!r}; it is read as an image"

    def _of_names(self) -> str:
        """A field whose name has other capital letters is none of ITK's."""
        known = (*POSITION, *DIRECTIONS, *ORDER, *SPACING, *NAMES)
        small = {name.lower(): name for name in known}
        odd = [name for name in self.fields if name not in known and name.lower() in small]
        if not odd:
            return ""
        meant = ", ".join(small[name.lower()] for name in odd)
        return f"its header has {', '.join(odd)}, which is not read: it is no {meant}"


def read(path: str | Path) -> Volume:
    """Read the volume in ``path``; unit "a.u.", modality as it states (``Modality``), else "".

    Raises:
        FormatError: truncated, damaged, or more than four axes.
        GeometryError: impossible directions.
    """
    where = Path(path)
    with told(path, "MetaImage file"):
        refuse_special(where)
        with where.open("rb") as file:
            header = _header(file)
            grid = header.grid()
            array = _voxels(header, where, file)
    # Components come first in memory, a fourth axis last.
    channels = np.moveaxis(array, 3, 0) if len(header.sizes) == 4 else array
    channels = channels[..., None] if len(header.sizes) == 2 else channels
    is_known = not set(SPACING).isdisjoint(header.fields)
    known = {"spacing_known": is_known, "place_known": is_known}
    modality, notes = modality_of(header.fields.get("Modality", "")), header.notes(grid, array)
    if modality is None:
        notes.append(
            f"its header states the modality {header.fields['Modality'][:40]!r}, which is not known"
        )
    meta: dict[str, Any] = {"modality": modality or "", "patient": "", **known}
    if notes:
        meta["notes"] = notes
    # Names and colours of segments, as other viewers write them, are kept as they are.
    if names := segment_fields(header.fields):
        meta["segments"] = names
    one = channels[0] if channels.ndim == 4 and len(channels) == 1 else channels
    return Volume(one, grid, source=str(path), meta=meta)


def read_segments(path: str | Path) -> dict[str, str]:
    """Read only the fields of segments in the header, such as ``Segment0_Name``."""
    return segment_fields(_header_of(path).fields)


def read_grid(path: str | Path) -> Grid:
    """Read only the grid, from the header."""
    with told(path, "MetaImage file"):
        return _header_of(path).grid()


def describe(path: str | Path) -> dict[str, Any]:
    """Read format, dtype, size and number of components from the header."""
    header = _header_of(path)
    return {
        "format": "MetaImage",
        "dtype": header.dtype.name,
        "disk_shape": [*header.sizes],
        "components": header.components,
    }


def _header_of(path: str | Path) -> _Header:
    with told(path, "MetaImage file"):
        refuse_special(path)
        with Path(path).open("rb") as file:
            return _header(file)


def _header(file: IO[bytes]) -> _Header:
    """Parse the header; the next byte of ``file`` is the first after it."""
    fields: dict[str, str] = {}
    while DATA_FILE not in fields:
        line = file.readline(MOST_OF_HEADER)
        if not line or file.tell() > MOST_OF_HEADER:
            raise FormatError(f"the header has no field {DATA_FILE} in its first bytes")
        name, _, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if fields.get(name, value) != value and name != COMMENT:
            raise FormatError(f"{name[:40]} is stated twice, with different values")
        fields[name] = value
    return _Header(fields)


def _voxels(header: _Header, path: Path, file: IO[bytes]) -> NDArray[Any]:
    """(x, y[, z[, t]]), or with several components (component, x, y[, z])."""
    shape = (header.components, *header.sizes) if header.components > 1 else header.sizes
    files = data_files(path)
    if not files:
        return _array(header, shape, file, header.fields[DATA_FILE].upper() == "LOCAL")
    one, parts = shape_of_one(shape, len(files)), []
    for name in files:
        with opened_part(name) as part:
            parts.append(_array(header, one, part, False))
    return joined(parts, shape)


def _array(
    header: _Header, shape: tuple[int, ...], file: IO[bytes], is_local: bool
) -> NDArray[Any]:
    """The voxels in one file, which is at its first byte, or after the header (``is_local``)."""
    is_packed = header.is_true("CompressedData")
    skipped = header.numbers("HeaderSize", 1, int, (0,))[0]
    size = os.fstat(file.fileno()).st_size
    if skipped < -1 or (is_local and skipped > 0) or (is_packed and skipped < 0):
        raise FormatError(
            f"HeaderSize {skipped}; allowed: 0 or more of a data file, 0 after a header, and -1 "
            "(the voxels end the file) unless they are compressed"
        )
    if not header.is_true("BinaryData", default="True"):
        if is_packed:
            raise FormatError("CompressedData of numbers that are written as text")
        skip(file, max(skipped, 0))
        return read_numbers(file, shape, header.dtype)
    if is_packed:
        skip(file, skipped)
        packed = header.numbers("CompressedDataSize", 1, float, (0,))[0]
        if packed > size:
            raise FormatError(f"truncated: {packed:.0f} compressed bytes are stated, it has {size}")
        magic = file.read(2)
        file.seek(-len(magic), os.SEEK_CUR)
        plain: Any = Inflated(file, 31 if magic == GZIP_MAGIC else 15)
        return read_array(plain, shape, header.dtype)
    if skipped == -1:
        file.seek(max(file.tell(), size - int(np.prod(shape, dtype=float)) * header.dtype.itemsize))
    skip(file, max(skipped, 0))
    return read_array(file, shape, header.dtype)
