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
    read_array,
    read_numbers,
    skip,
    stated_mm,
    told,
)
from .itk import LPS_TO_RAS, MOST_OF_HEADER, data_files, segment_fields

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
        order = ">" if self.is_true("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
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

    def is_true(self, *names: str, default: str = "False") -> bool:
        """A field by its first letter, as ITK reads it."""
        value = self.fields.get(self.first(*names), default)
        if value[:1].lower() not in ("t", "1", "f", "0"):
            raise FormatError(f"{names[0]} is {value[:40]!r}; allowed: True, False")
        return value[:1].lower() in ("t", "1")

    def grid(self) -> Grid:
        """Origin, spacing and directions (LPS) as a grid (RAS+); a 2-D image becomes one slice, and
        a fourth axis has no geometry.
        """
        axes = len(self.sizes)
        space = min(axes, 3)
        spacing = np.array(
            self.numbers(self.first("ElementSpacing", "ElementSize"), axes, float, [1] * axes)
        )
        origin = self.numbers(self.one_of("Offset", "Position", "Origin"), axes, float, [0] * axes)
        directions = self.numbers(
            self.one_of("TransformMatrix", "Rotation", "Orientation"),
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

    def notes(self) -> list[str]:
        """What the header states about the values and is not applied, as in ITK."""
        slope, intercept = (
            self.numbers(f"ElementToIntensityFunction{name}", 1, float, (default,))[0]
            for name, default in (("Slope", 1), ("Offset", 0))
        )
        if (slope, intercept) in ((1, 0), (0, 0)):
            return []
        return [
            f"its header states that intensities are {slope:g} times the values, and {intercept:g} "
            "more (ElementToIntensityFunction); the values are read as they are stored, as by ITK"
        ]


def read(path: str | Path) -> Volume:
    """Read the volume in ``path``; unit "a.u.", modality "".

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
    is_known = not {"ElementSpacing", "ElementSize"}.isdisjoint(header.fields)
    known = {"spacing_known": is_known, "place_known": is_known}
    meta: dict[str, Any] = {"modality": "", "patient": "", **known}
    if notes := header.notes():
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
    # Several files divide the slowest axis between them.
    slices, rest = divmod(shape[-1], len(files))
    if rest:
        raise FormatError(f"{len(files)} data files cannot share {shape[-1]} slices")
    parts = []
    for one in files:
        with opened_part(one) as part:
            parts.append(_array(header, (*shape[:-1], slices), part, False))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _array(
    header: _Header, shape: tuple[int, ...], file: IO[bytes], is_local: bool
) -> NDArray[Any]:
    """The voxels in one file, which is at its first byte, or after the header (``is_local``)."""
    if not header.is_true("BinaryData", default="True"):
        return read_numbers(file, shape, header.dtype)
    skipped = header.numbers("HeaderSize", 1, int, (0,))[0]
    size = os.fstat(file.fileno()).st_size
    if skipped < -1 or (is_local and skipped > 0):
        raise FormatError(f"HeaderSize {skipped}; allowed: -1 or more, and 0 after a header")
    if header.is_true("CompressedData"):
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
