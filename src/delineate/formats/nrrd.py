"""NRRD through pynrrd, reading and writing: attached and detached headers, gzip, bzip2, text, raw.

Axes are (x, y, z) in the file and (I, J, K) here. An axis without a place in space (vectors,
colours, layers of segments, time) becomes the channels. Coordinates are left-posterior-superior
unless the header states otherwise; they become RAS+. A header without a space is read as ITK reads
it, as left-posterior-superior. Units of length become mm. Where the header states no length of an
axis it is 1 mm, and ``meta["spacing_known"]`` is False; without a position ``place_known`` is too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.errors import FormatError, OutputError
from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.volume import Volume
from .disk import (
    gzip_into,
    mm_of,
    opened_part,
    other_range,
    read_array,
    read_numbers,
    skip,
    smallest_labels,
    stated_mm,
    told,
    unpacked,
)
from .itk import LPS_TO_RAS, MOST_OF_HEADER, data_files, joined, shape_of_one
from .raster import CHANNEL_NAMES

# Space -> factors that turn its coordinates into RAS+; a space without names of directions is read
# as ITK reads it.
SPACES = {
    "": (-1.0, -1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "scanner-xyz": (-1.0, -1.0, 1.0),
    "3d-right-handed": (-1.0, -1.0, 1.0),
    "3d-left-handed": (-1.0, -1.0, 1.0),
}
SHORT = {
    "lps": "left-posterior-superior",
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
}
DIRECTIONS = tuple(SHORT.values())
DATA_FILE = "data file"
# The fields of NRRD 5; a name may be written without its spaces, and two have another name.
FIELDS = (
    *("content", "number", "type", "block size", "dimension", "space", "space dimension", "sizes"),
    *("spacings", "thicknesses", "axis mins", "axis maxs", "space directions", "centerings"),
    *("kinds", "labels", "units", "min", "max", "old min", "old max", "endian", "encoding"),
    *("line skip", "byte skip", "sample units", "space units", "space origin"),
    *("measurement frame", DATA_FILE),
)
NAMES = {
    **{name.replace(" ", ""): name for name in FIELDS},
    **{name: name for name in FIELDS},
    **{"centers": "centerings", "dim": "dimension"},
}
# Fields with one value for each axis.
OF_AXES = (
    *("spacings", "thicknesses", "axis mins", "axis maxs", "space directions", "centerings"),
    *("kinds", "labels", "units"),
)
# Kinds of axes with independent positions; all others hold several values of one voxel.
COLOUR_KINDS = ("rgb-color", "rgba-color", "3-color", "4-color")
DOMAIN_KINDS = ("domain", "space", "none", "???")
PLAIN_KINDS = ("list", "vector", "time", "scalar", "stub", "point", *COLOUR_KINDS)
SIZES = {  # of kinds whose names state it
    **{"scalar": 1, "stub": 1, "complex": 2, "rgb-color": 3, "rgba-color": 4, "hsv-color": 3},
    **{"xyz-color": 3, "quaternion": 4, "2d-symmetric-matrix": 3, "2d-masked-symmetric-matrix": 4},
    **{"2d-matrix": 4, "2d-masked-matrix": 5, "3d-symmetric-matrix": 6, "3d-matrix": 9},
    **{"3d-masked-symmetric-matrix": 7, "3d-masked-matrix": 10},
    **{f"{n}-{name}": n for n in (2, 3, 4) for name in ("vector", "color", "gradient", "normal")},
}
SAME_SPACING = 0.01  # relative difference of spacings that state the same twice
_DIRECTION = re.compile(r"none|\([^)]*\)")


@dataclass(frozen=True)
class _Header:
    """The fields of a header, as pynrrd parses them, by their names in ``FIELDS``.

    Args:
        pairs: key -> value, which are no fields, even where a key is the name of one.
        unknown: fields that NRRD does not have.
    """

    fields: dict[str, Any]
    pairs: dict[str, str]
    unknown: tuple[str, ...] = ()

    @property
    def sizes(self) -> list[int]:
        return [int(n) for n in self.fields["sizes"]]

    @property
    def channel_axis(self) -> int | None:
        """The axis that holds the channels; None without one.

        Raises:
            FormatError: more than three spatial axes and one of channels, or kinds and directions
            that contradict each other.
        """
        kinds = [str(k).lower() for k in self.fields.get("kinds", ["domain"] * len(self.sizes))]
        directions = self.fields.get("space directions")
        found = [axis for axis, kind in enumerate(kinds) if kind not in DOMAIN_KINDS]
        # Where no kind tells, it is the axis without a direction, or the fourth one.
        if directions is not None:
            bare = [axis for axis, vector in enumerate(directions) if vector is None]
            # Time may have a direction, in a space of four axes.
            placed = [one for one in found if one not in bare and kinds[one] != "time"]
            if found and (placed or not set(bare) <= set(found)):
                raise FormatError(
                    f"its kinds ({' '.join(kinds)}) and its space directions contradict each "
                    f"other: an axis has a direction unless it holds the values of one voxel"
                )
            found = found or bare
        if not found and len(self.sizes) == 4:
            found = [3]
        if "complex" in kinds:
            raise FormatError("complex numbers; allowed are integers and real numbers")
        if len(found) > 1 or not 2 <= len(self.sizes) - len(found) <= 3:
            raise FormatError(
                f"{len(self.sizes)} axes ({' '.join(kinds)}); allowed: two or three spatial axes "
                "and one of channels"
            )
        return found[0] if found else None

    @property
    def skipped(self) -> tuple[int, int]:
        """Lines and bytes before the first voxel; -1 bytes: the voxels end the file."""
        lines, nbytes = (int(self.fields.get(f"{word} skip", 0)) for word in ("line", "byte"))
        if lines < 0 or nbytes < -1:
            raise FormatError(f"{lines} lines and {nbytes} bytes to skip; at least 0, or -1 bytes")
        return lines, nbytes

    @property
    def is_coloured(self) -> bool:
        """Whether the channels are red, green and blue, with or without alpha."""
        return any(str(k).lower() in COLOUR_KINDS for k in self.fields.get("kinds", ()))

    @property
    def space_mm(self) -> NDArray[np.float64]:
        """(3,) millimetres in the units of the space's coordinates."""
        stated = [stated_mm(str(unit)) for unit in self.fields.get("space units") or ()]
        return np.array([*stated[:3], 1.0, 1.0, 1.0][:3])

    def axis_mm(self, axis: int) -> float:
        """Millimetres in the unit of an axis outside a space."""
        units = self.fields.get("units") or ()
        return stated_mm(str(units[axis])) if axis < len(units) else 1.0

    def spacing_mm(self, axis: int) -> float | None:
        """The distance of voxels along one axis, as stated without a space: by its spacing, or its
        ends (NRRD 5.3, "axis mins"); None if the header states neither.
        """
        unit = self.axis_mm(axis)
        if (spacing := self.of_axis("spacings", axis)) is not None:
            return spacing * unit
        low, high = self.of_axis("axis mins", axis), self.of_axis("axis maxs", axis)
        parts = self.sizes[axis] - (self.centring(axis) == "node")
        return None if low is None or high is None or not parts else (high - low) / parts * unit

    def centring(self, axis: int) -> str:
        """Where the positions of an axis are: "cell", unless it is stated otherwise."""
        return str(self.fields.get("centerings", ["cell"] * len(self.sizes))[axis]).lower()

    def of_axis(self, field: str, axis: int) -> float | None:
        """A number of one axis; None if the header lacks it."""
        values = self.fields.get(field)
        value = None if values is None else float(values[axis])
        return value if value is not None and np.isfinite(value) else None


def read(path: str | Path) -> Volume:
    """Read the volume in ``path``; unit "a.u.", modality "".

    Raises:
        FormatError: truncated, damaged, complex values or blocks, or more than four axes.
        GeometryError: impossible directions.
    """
    where = Path(path)
    with told(path, "NRRD file"), where.open("rb") as file:
        header = _header(file)
        axis, (grid, known) = header.channel_axis, _grid(header)
        array = _voxels(header, where, file)
    channels = array[None] if axis is None else np.moveaxis(array, axis, 0)
    channels = channels[..., None] if channels.ndim == 3 else channels
    meta: dict[str, Any] = {"modality": "", "patient": "", **known}
    if notes := _notes(header, array):
        meta["notes"] = notes
    # Names and colours of segments, as other viewers write them, are kept as they are.
    if names := _segment_fields(header):
        meta["segments"] = names
    if header.is_coloured:
        meta["channels"] = list(CHANNEL_NAMES[len(channels)])
    one = channels[0] if len(channels) == 1 else channels
    return Volume(one, grid, source=str(path), meta=meta)


def read_segments(path: str | Path) -> dict[str, str]:
    """Read only the fields of segments in the header, such as ``Segment0_Name``."""
    with told(path, "NRRD file"), Path(path).open("rb") as file:
        return _segment_fields(_header(file))


def _segment_fields(header: _Header) -> dict[str, str]:
    return {k: _unescaped(v) for k, v in header.pairs.items() if k.startswith("Segment")}


def _notes(header: _Header, array: NDArray[Any]) -> list[str]:
    """What the header states about the values and is not applied, as other readers do not."""

    def stated(field: str) -> str:
        return str(header.fields.get(field, "")).strip('" ')

    low, high, unit = stated("old min"), stated("old max"), stated("sample units")
    notes = []
    if low or high:
        notes.append(
            f"its header states that the values stand for {low or '?'} to {high or '?'} (old min, "
            "old max); they are read as they are stored"
        )
    if unit:
        notes.append(f"its header states the unit {unit!r} of its values, which is not read")
    least, most = (float(header.fields.get(name, math.nan)) for name in ("min", "max"))
    if found := other_range(least, most, array, "min, max"):
        notes.append(found)
    if header.unknown:
        words = ", ".join(header.unknown)[:200]
        notes.append(f"its header has lines that are no fields of NRRD and are not read: {words}")
    return notes + _notes_of_place(header) + _notes_of_channels(header)


def _notes_of_place(header: _Header) -> list[str]:
    """Where a place in three dimensions is stated, but not what is left, front and up."""
    space, origin = str(header.fields.get("space", "")), header.fields.get("space origin")
    vectors = [*(header.fields.get("space directions") or ()), origin]
    is_stated = any(one is not None and len(one) > 2 for one in vectors)
    if not is_stated or _name_of(space) in DIRECTIONS:
        return []
    named = f"the space {space!r}" if space else "no space"
    return [
        f"its header names {named}, which does not say where left, front and up are; its place is "
        "read as left-posterior-superior, as ITK reads it"
    ]


def _notes_of_channels(header: _Header) -> list[str]:
    """What the values of one voxel are, where they are no plain numbers."""
    axis, notes = header.channel_axis, []
    if axis is None:
        return []
    kind = str(header.fields.get("kinds", ["???"] * (axis + 1))[axis]).lower()
    if kind not in (*PLAIN_KINDS, *DOMAIN_KINDS) and not kind.endswith("-vector"):
        notes.append(
            f"its header states that the values of a voxel are of the kind {kind!r}; they are read "
            "as channels, as they are stored"
        )
    frame = header.fields.get("measurement frame")
    if frame is not None and not np.array_equal(np.nan_to_num(frame), np.eye(*np.shape(frame))):
        notes.append(
            "its header states that vectors have axes of their own (measurement frame); the "
            "channels are read as they are stored"
        )
    if "DWMRI_b-value" in header.pairs or header.pairs.get("modality", "").strip() == "DWMRI":
        notes.append(
            "its channels are diffusion-weighted (DWMRI); directions and b-values are not read"
        )
    return notes


def read_grid(path: str | Path) -> Grid:
    """Read only the grid, from the header."""
    with told(path, "NRRD file"), Path(path).open("rb") as file:
        return _grid(_header(file))[0]


def describe(path: str | Path) -> dict[str, Any]:
    """Read format, type, size and number of components from the header."""
    with told(path, "NRRD file"), Path(path).open("rb") as file:
        header = _header(file)
        axis = header.channel_axis
        return {
            "format": "NRRD",
            "dtype": header.fields["type"],
            "disk_shape": header.sizes,
            "components": 1 if axis is None else header.sizes[axis],
        }


def _header(file: IO[bytes]) -> _Header:
    """Parse the header up to its empty line; the next byte of ``file`` is the first after it."""
    import nrrd

    lines, pairs, unknown = _lines(file)
    fields = dict(nrrd.read_header(iter(lines)))
    for needed in ("type", "dimension", "sizes", "encoding"):
        if needed not in fields:
            raise FormatError(f"the header has no field {needed!r}")
    for word in ("type", "encoding", "endian"):
        if word in fields:
            fields[word] = str(fields[word]).lower()
    if len(fields["sizes"]) != fields["dimension"] or min(fields["sizes"]) < 1:
        raise FormatError(
            f"sizes must be at least 1, one for each of {fields['dimension']} axes, found "
            f"{fields['sizes'].tolist()}"
        )
    _refuse_other_counts(fields)
    if fields.get("space directions") is not None:
        stated = next((one for one in lines if one.startswith("space directions:")), "")
        fields["space directions"] = _directions(fields["space directions"], stated)
    found = _Header(fields, pairs, unknown)
    _refuse_other_spaces(found)
    _refuse_other_spacings(found)
    return found


def _lines(file: IO[bytes]) -> tuple[list[str], dict[str, str], tuple[str, ...]]:
    """The lines of a header with its fields by their names in ``FIELDS``, its pairs of key and
    value, and the fields that are unknown.
    """
    lines: list[str] = []
    pairs: dict[str, str] = {}
    unknown, nbytes = [], 0
    while line := file.readline(MOST_OF_HEADER):
        nbytes += len(line)
        text = line.decode("utf-8", errors="replace").rstrip()
        name, colon, value = text.partition(":")
        field = NAMES.get(name.strip().lower(), name)
        if not lines or not colon or text.startswith("#"):
            lines.append(text)
        elif value.startswith("="):
            if pairs.setdefault(name.strip(), value[1:].strip()) != value[1:].strip():
                raise FormatError(f"the key {name[:80]!r} is stated twice, with different values")
        elif field in FIELDS:
            lines.append(f"{field}:{value}")
        else:
            unknown.append(name[:80])
        # After LIST, the rest of the header is names of files.
        if not text or (field == DATA_FILE and value.split()[:1] == ["LIST"]):
            break
        if nbytes > MOST_OF_HEADER:
            raise FormatError(f"the header has more than {MOST_OF_HEADER} bytes")
    lines[0] = lines[0].upper()
    return lines, pairs, tuple(unknown)


def _refuse_other_counts(fields: Mapping[str, Any]) -> None:
    """Refuse fields that have not one value for each axis, and kinds of another number of values
    than their axis.
    """
    for name in OF_AXES:
        values = fields.get(name)
        if values is not None and len(values) != fields["dimension"]:
            raise FormatError(f"{len(values)} {name} for {fields['dimension']} axes")
    for kind, size in zip(fields.get("kinds") or (), fields["sizes"], strict=False):
        if SIZES.get(str(kind).lower(), size) != size:
            raise FormatError(
                f"an axis of the kind {kind} has {size} values, which contradict each other"
            )


def _refuse_other_spaces(header: _Header) -> None:
    """Refuse a space, its units, its origin and its directions of different numbers of axes."""
    fields = header.fields
    space, vectors = str(fields.get("space", "")), fields.get("space directions") or ()
    counts = {"space": _axes_of(space)} if space else {}
    counts |= {"space dimension": fields["space dimension"]} if "space dimension" in fields else {}
    for name in ("space units", "space origin"):
        counts |= {name: len(fields[name])} if fields.get(name) is not None else {}
    placed = [vector for vector in vectors if vector is not None]
    counts |= {"space directions": len(placed[0])} if placed else {}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name} has {count} axes" for name, count in counts.items())
        raise FormatError(f"{words}, which contradict each other")
    _refuse_other_units(header, vectors)


def _refuse_other_units(header: _Header, vectors: Iterable[NDArray[Any] | None]) -> None:
    """Refuse a unit or ends of an axis with a direction, whose unit is that of its space."""
    units = header.fields.get("units") or ()
    of_space = {stated_mm(str(unit)) for unit in header.fields.get("space units") or ("mm",)}
    for axis, vector in enumerate(vectors):
        unit = str(units[axis]) if axis < len(units) else ""
        stated = [unit] if unit.strip(" ?") and {mm_of(unit)} != of_space else []
        stated += [
            one for one in ("axis mins", "axis maxs") if header.of_axis(one, axis) is not None
        ]
        if vector is not None and stated:
            raise FormatError(
                f"axis {axis} has a direction in space and {stated[0][:40]!r} of its own, which "
                "contradict each other"
            )


def _axes_of(space: str) -> int:
    """The number of axes of a space that NRRD names."""
    name = space.lower()
    return 4 if name.endswith("-time") or name in ("rast", "last", "lpst") else 3


def _directions(vectors: NDArray[Any], stated: str) -> list[NDArray[Any] | None]:
    """The vectors of a line; None for "none", for which pynrrd gives NaN."""
    words = _DIRECTION.findall(stated.lower())
    if len(words) != len(vectors):
        raise FormatError(f"space directions must be vectors or 'none', found {stated[:80]!r}")
    return [None if word == "none" else vector for word, vector in zip(words, vectors, strict=True)]


def _refuse_other_spacings(header: _Header) -> None:
    """Refuse an axis with a direction and another spacing (NRRD 5.3 allows one of both only)."""
    for axis, vector in enumerate(header.fields.get("space directions") or ()):
        spacing = header.of_axis("spacings", axis)
        if vector is None or spacing is None:
            continue
        length = float(np.linalg.norm(vector))
        if abs(length - abs(spacing)) > SAME_SPACING * max(length, abs(spacing)):
            raise FormatError(
                f"axis {axis} has a direction of length {length:g}, and a spacing of {spacing:g}, "
                "which contradict each other"
            )


def _voxels(header: _Header, path: Path, file: IO[bytes]) -> NDArray[Any]:
    """Read the voxels in the axes of the file, in native byte order."""
    dtype = _dtype(header)
    files = data_files(path) if DATA_FILE in header.fields else []
    if not files:
        return _array(header, tuple(header.sizes), dtype, file)
    one, parts = shape_of_one(tuple(header.sizes), len(files)), []
    for name in files:
        with opened_part(name) as part:
            parts.append(_array(header, one, dtype, part))
    return joined(parts, tuple(header.sizes))


def _dtype(header: _Header) -> np.dtype[Any]:
    from nrrd.reader import _determine_datatype

    try:
        dtype: np.dtype[Any] = _determine_datatype(header.fields)
    except KeyError:
        dtype = np.dtype("V")
    if dtype.kind not in "iuf":
        raise FormatError(
            f"voxels of type {header.fields['type']!r}; allowed are integers, float and double"
        )
    return dtype


def _array(
    header: _Header, shape: tuple[int, ...], dtype: np.dtype[Any], file: IO[bytes]
) -> NDArray[Any]:
    """The voxels of one file, from its current position on, which is after the header."""
    encoding = header.fields["encoding"]
    lines, nbytes = header.skipped
    for _ in range(lines):
        if not file.readline(MOST_OF_HEADER):
            raise FormatError(f"truncated: it has fewer than {lines} lines to skip")
    if encoding in ("ascii", "text", "txt"):
        return read_numbers(file, shape, dtype)
    if encoding not in ("raw", "gzip", "gz", "bzip2", "bz2"):
        raise FormatError(f"unknown encoding {encoding!r}; allowed: raw, gzip, bzip2, text")
    if nbytes < 0 and encoding != "raw":
        raise FormatError("byte skip -1 (the voxels end the file) of packed voxels; allowed: raw")
    if nbytes < 0:  # the voxels end the file
        size = os.fstat(file.fileno()).st_size
        file.seek(max(file.tell(), size - math.prod(shape) * dtype.itemsize))
    with unpacked(file, encoding) as plain:
        skip(plain, max(nbytes, 0))
        return read_array(plain, shape, dtype)


def _grid(header: _Header) -> tuple[Grid, dict[str, bool]]:
    """Convert directions and origin into a grid (RAS+); a 2-D image becomes one slice. With what is
    known, for ``Volume.meta``.
    """
    fields, channel = header.fields, header.channel_axis
    axes = [axis for axis in range(len(header.sizes)) if axis != channel]
    to_ras = _to_ras(str(fields.get("space", "")))
    matrix, origin = np.eye(3), np.zeros(3)
    directions, stated = fields.get("space directions"), fields.get("space origin")
    unit_mm, known = header.space_mm, True
    for column, axis in enumerate(axes):
        vector = None if directions is None else directions[axis]
        if vector is not None:
            matrix[:, column] = 0
            matrix[: min(3, len(vector)), column] = vector[:3] * unit_mm[: len(vector)]
        elif (spacing := header.spacing_mm(axis)) is not None:
            matrix[column, column] = spacing
        else:
            known = False
    if stated is not None:
        origin[: min(3, len(stated))] = stated[:3] * unit_mm[: len(stated)]
    elif directions is None:
        origin[: len(axes)] = _origin_of_minima(header, axes)
    affine = np.eye(4)
    affine[:3, :3] = to_ras[:, None] * matrix
    affine[:3, 3] = to_ras * origin
    shape = [*(header.sizes[axis] for axis in axes), 1][:3]
    is_placed = known and stated is not None
    grid = Grid((shape[0], shape[1], shape[2]), affine, allow_shear=True)
    return grid, {"spacing_known": known, "place_known": is_placed}


def _to_ras(space: str) -> NDArray[np.float64]:
    """(3,) factors that turn coordinates of the space into RAS+.

    Raises:
        FormatError: an unknown space.
    """
    name = _name_of(space)
    if name not in SPACES:
        raise FormatError(f"unknown space {space!r}; allowed: {', '.join(filter(None, SPACES))}")
    return np.array(SPACES[name])


def _name_of(space: str) -> str:
    """The long name of a space, without its axis of time."""
    name = space.lower().removesuffix("-time")
    return SHORT.get(name.removesuffix("t") if len(name) == 4 else name, name)


def _origin_of_minima(header: _Header, axes: list[int]) -> list[float]:
    """Centre of the first voxel along each axis, from the minima of the axes; zeros without them.

    The minimum of an axis is the edge of its first voxel, unless its centring is "node".
    """
    out = []
    for axis in axes:
        low, spacing = header.of_axis("axis mins", axis), header.spacing_mm(axis)
        if low is None or spacing is None:
            return [0.0] * len(axes)
        low *= header.axis_mm(axis)
        out.append(low if header.centring(axis) == "node" else low + spacing / 2)
    return out


def _unescaped(value: str) -> str:
    """A key's value, in which a line end is written as backslash and n."""
    return "\\".join(part.replace("\\n", "\n") for part in value.split("\\\\"))


# ---- writing ----


def write(volume: Volume, path: str | Path, labels: LabelSet | None = None) -> None:
    """Write .nrrd, compressed with gzip; channels are the fastest axis, as ITK writes vectors.

    ``labels`` become key/value pairs, named as in the segmentation files of common viewers
    (``Segment0_Name`` ...). Without them, those that the volume was read with are written again.
    Structures that overlap become layers, one each with value 1.
    """
    if labels is not None and labels.overlapping:
        layers = np.stack([labels.inside(volume.array, label) for label in labels])
        volume = volume.with_array(layers.astype(np.uint8), "label")
    array = smallest_labels(volume) if volume.unit == "label" else volume.array
    # NRRD has no boolean and no half-precision numbers.
    array = array.astype(
        {"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype), copy=False
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        pairs = segment_fields(array, labels) if labels else volume.meta.get("segments", {})
        file.write(_header_text(array, volume.grid, pairs).encode("utf-8"))
        with gzip_into(file) as packed:
            # Slice by slice: no second copy of the volume in memory.
            for k in range(array.shape[-1]):
                packed.write(array[..., k].tobytes(order="F"))


def _header_text(array: NDArray[Any], grid: Grid, pairs: Mapping[str, str]) -> str:
    """The header with its empty line and key/value ``pairs``. pynrrd would add the date, and equal
    volumes would give different files.

    Raises:
        OutputError: NRRD has no such numbers.
    """
    name = array.dtype.name
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise OutputError(f"NRRD stores numbers of 8 to 64 bits, found {name}")
    affine = LPS_TO_RAS @ grid.affine[:3]
    vectors = [f"({','.join(repr(float(v)) for v in affine[:, axis])})" for axis in range(4)]
    channels = array.ndim == 4
    axis = "list " if "Segment0_Layer" in pairs else "vector "
    lines = [
        "NRRD0005",
        f"type: {({'float32': 'float', 'float64': 'double'}).get(name, name)}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {'none ' * channels}{' '.join(vectors[:3])}",
        f"kinds: {axis * channels}domain domain domain",
        f"endian: {'big' if array.dtype.str[0] == '>' else 'little'}",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
        *(f"{key}:={_escaped(value)}" for key, value in pairs.items()),
    ]
    return "\n".join(lines) + "\n\n"


def segment_fields(array: NDArray[Any], labels: LabelSet) -> dict[str, str]:
    """The key/value pairs that describe labels as 3D Slicer writes and reads them; the extent of a
    segment is the box of its voxels, first and last index of each axis. Structures that overlap
    have the value 1 in a layer each, ``array`` (L, I, J, K).
    """
    from scipy import ndimage

    layered = labels.overlapping
    if layered:
        boxes = [next(iter(ndimage.find_objects(layer)), None) for layer in array]
    else:
        boxes = ndimage.find_objects(array) if array.ndim == 3 and array.dtype.kind in "iu" else []
    out = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, label in enumerate(labels):
        place = n if layered else label.value - 1
        box = boxes[place] if place < len(boxes) else None
        extent = (
            "0 -1 0 -1 0 -1"
            if box is None
            else " ".join(f"{one.start} {one.stop - 1}" for one in box)
        )
        out |= {
            f"Segment{n}_ID": f"Segment_{label.value}",
            f"Segment{n}_Name": label.name,
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_LabelValue": "1" if layered else str(label.value),
            f"Segment{n}_Layer": str(n) if layered else "0",
            f"Segment{n}_Extent": extent,
            f"Segment{n}_Color": " ".join(f"{c / 255:.6f}" for c in label.colour),
            f"Segment{n}_ColorAutoGenerated": "0",
        }
    return out


def _escaped(value: str) -> str:
    """The inverse of ``_unescaped``."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
