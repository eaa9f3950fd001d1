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
from collections.abc import Mapping
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
    opened_part,
    read_array,
    read_numbers,
    skip,
    smallest_labels,
    stated_mm,
    told,
    unpacked,
)
from .itk import LPS_TO_RAS, MOST_OF_HEADER, data_files
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
# Kinds of axes with independent positions; all others hold several values of one voxel.
DATA_FILE = ("data file", "datafile")  # a field's two spellings
COLOUR_KINDS = ("rgb-color", "rgba-color", "3-color", "4-color")
DOMAIN_KINDS = ("domain", "space", "none", "???")
SAME_SPACING = 0.01  # relative difference of spacings that state the same twice
_DIRECTION = re.compile(r"none|\([^)]*\)")


@dataclass(frozen=True)
class _Header:
    """The fields of a header, as pynrrd parses them."""

    fields: dict[str, Any]

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
        lines, nbytes = (
            int(self.fields.get(f"{word} skip", self.fields.get(f"{word}skip", 0)))
            for word in ("line", "byte")
        )
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
    if notes := _notes(header):
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
    return {k: _unescaped(v) for k, v in header.fields.items() if k.startswith("Segment")}


def _notes(header: _Header) -> list[str]:
    """What the header states about the values and is not applied, as other readers do not."""

    def stated(field: str) -> str:
        found = header.fields.get(field, header.fields.get(field.replace(" ", ""), ""))
        return str(found).strip('" ')

    low, high, unit = stated("old min"), stated("old max"), stated("sample units")
    notes = []
    if low or high:
        notes.append(
            f"its header states that the values stand for {low or '?'} to {high or '?'} (old min, "
            "old max); they are read as they are stored"
        )
    if unit:
        notes.append(f"its header states the unit {unit!r} of its values, which is not read")
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

    lines, nbytes = [], 0
    while line := file.readline(MOST_OF_HEADER):
        nbytes += len(line)
        text = line.decode("utf-8", errors="replace").rstrip()
        # pynrrd knows the names of fields in small letters only, as nearly all files have them.
        name, colon, value = text.partition(":")
        lines.append(text if value.startswith("=") else f"{name.lower()}{colon}{value}")
        # After LIST, the rest of the header is names of files.
        if not text or (name.lower() in DATA_FILE and value.split()[:1] == ["LIST"]):
            break
        if nbytes > MOST_OF_HEADER:
            raise FormatError(f"the header has more than {MOST_OF_HEADER} bytes")
    lines[0] = lines[0].upper()
    fields = dict(nrrd.read_header(iter(lines)))
    for needed in ("type", "dimension", "sizes", "encoding"):
        if needed not in fields:
            raise FormatError(f"the header has no field {needed!r}")
    fields["encoding"] = str(fields["encoding"]).lower()
    if len(fields["sizes"]) != fields["dimension"] or min(fields["sizes"]) < 1:
        raise FormatError(
            f"sizes must be at least 1, one for each of {fields['dimension']} axes, found "
            f"{fields['sizes'].tolist()}"
        )
    _refuse_other_counts(fields)
    if fields.get("space directions") is not None:
        stated = next((one for one in lines if one.startswith("space directions:")), "")
        fields["space directions"] = _directions(fields["space directions"], stated)
    found = _Header(fields)
    _refuse_other_spacings(found)
    return found


def _refuse_other_counts(fields: Mapping[str, Any]) -> None:
    """Refuse fields that have not one value for each axis."""
    for name in ("space directions", "kinds", "centerings"):
        values = fields.get(name)
        if values is not None and len(values) != fields["dimension"]:
            raise FormatError(f"{len(values)} {name} for {fields['dimension']} axes")


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
    is_detached = any(name in header.fields for name in DATA_FILE)
    files = data_files(path) if is_detached else []
    if not files:
        return _array(header, tuple(header.sizes), dtype, file)
    # Several files divide the slowest axis between them.
    slices, rest = divmod(header.sizes[-1], len(files))
    if rest:
        raise FormatError(f"{len(files)} data files cannot share {header.sizes[-1]} slices")
    parts = []
    for one in files:
        with opened_part(one) as part:
            parts.append(_array(header, (*header.sizes[:-1], slices), dtype, part))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


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
    if nbytes < 0 and encoding == "raw":  # the voxels end the file
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
    is_placed = known and not {"space", "space dimension", "space origin"}.isdisjoint(fields)
    grid = Grid((shape[0], shape[1], shape[2]), affine, allow_shear=True)
    return grid, {"spacing_known": known, "place_known": is_placed}


def _to_ras(space: str) -> NDArray[np.float64]:
    """(3,) factors that turn coordinates of the space into RAS+.

    Raises:
        FormatError: an unknown space.
    """
    name = space.lower().removesuffix("-time")
    name = SHORT.get(name.removesuffix("t") if len(name) == 4 else name, name)
    if name not in SPACES:
        raise FormatError(f"unknown space {space!r}; allowed: {', '.join(filter(None, SPACES))}")
    return np.array(SPACES[name])


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
