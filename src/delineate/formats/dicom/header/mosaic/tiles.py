"""Mosaics: many slices of a volume as tiles of one image, with the position of each slice.

Siemens (ImageType has MOSAIC): a square of tiles, row by row from the top left. The number of
tiles is in the CSA header of the image, in (0019,100A), in group 0021, or in the protocol. The
position of the image is that of a mosaic-sized plane around the centre of the first slice, so the
first slice begins half the difference of both sizes further. The gap is SpacingBetweenSlices.
Whether the slices follow the normal of the image or run against it is proved: by SliceNormalVector
of the CSA header, and by the protocol, one of whose two outer slices lies where the first tile
does. United
Imaging (ImageType has VFRAME): the sequence (0065,1051) has the position of each tile.

An image is a mosaic if anything in its header says so, in functional groups too. Whatever does not
fit together, or cannot be proved, is refused. Positions are in LPS mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....core.errors import FormatError, GeometryError
from . import csa

Vector = NDArray[np.float64]
NUMBER_OF_IMAGES = 0x0019100A  # Siemens, group "SIEMENS MR HEADER"
NUMBER_IN_GRID, GRID_SEQUENCE = 0x00651050, 0x00651051  # United Imaging
SAME_GAP_MM, PARALLEL = 0.05, 0.999
SAME_PLACE_MM = 0.5  # motion between two images of a series; slices are farther apart
FEWEST = 3  # places that are no motion
PROTOCOL = "the protocol"  # as a proof
NEAR = 0.25  # of the stack: a slice as near to one of its ends as this belongs to that end


@dataclass(frozen=True)
class Tile:
    """A slice in the image of a mosaic: its rectangle (top, bottom, left, right) in pixels, and the
    position of the centre of its first pixel in LPS mm.
    """

    box: tuple[int, int, int, int]
    position: tuple[float, float, float]


@dataclass(frozen=True)
class _Protocol:
    """The first and the last slice of a Siemens protocol: their centres in LPS mm."""

    count: int
    first: Vector
    last: Vector


def is_mosaic(dataset: Any) -> bool:
    """Return whether anything in a header says that the image is a mosaic."""
    kind = dataset.get("ImageType") or ()
    words = (kind,) if isinstance(kind, str) else tuple(map(str, kind))
    return has_tiles(words) or (_stated(dataset) or 0) > 1 or csa.states_mosaic(dataset)


def has_tiles(kind: Sequence[str]) -> bool:
    """Whether the words of an ImageType or FrameType say that the image is a mosaic."""
    return not {"MOSAIC", "VFRAME"}.isdisjoint(kind)


def are_slices(dataset: Any, positions: Sequence[Sequence[float]]) -> bool:
    """Whether the frames of an object that states to be a mosaic are its slices: software XA stores
    these as frames and leaves MOSAIC in ImageType. Frames that are mosaics themselves lie at one
    place, apart from motion.
    """
    places = {tuple(round(v / SAME_PLACE_MM) for v in one) for one in positions}
    stated = _counts(dataset, csa.fields_of(dataset))
    return stated == [len(places)] or (len(places) >= FEWEST and max(stated, default=1) == 1)


def tiles_of(dataset: Any, has_groups: bool = False) -> tuple[Tile, ...]:
    """The tiles of a mosaic in the order of their slices.

    Args:
        dataset: with its private elements; pixels are not needed.
        has_groups: it is an enhanced object, with the elements of its functional groups. Whether
            these state the position of the image or of its first slice is not known, so that only
            the protocol proves it.

    Raises:
        FormatError: the number of tiles is not known, or does not fit the image.
        GeometryError: the positions, the gap or the order of the slices are not known, or
            contradict each other.
    """
    if GRID_SEQUENCE in dataset:
        return _tiles_of_grid(dataset)
    across, down, spacing, corner = _plane(dataset)
    protocol = _protocol(csa.protocol_of(dataset))
    header = csa.fields_of(dataset)
    count = _count(dataset, header, protocol)
    boxes = _boxes(dataset, count, square=True)
    # The mosaic-sized plane and the slice have the same centre.
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    top, bottom, left, right = boxes[0]
    to_centre = across * columns / 2 * spacing[1] + down * rows / 2 * spacing[0]
    half = across * (right - left) / 2 * spacing[1] + down * (bottom - top) / 2 * spacing[0]
    normal = np.cross(across, down)
    proofs = _proofs(normal, corner + to_centre, corner + half, count, header, protocol)
    if count > 1 and (PROTOCOL not in proofs if has_groups else not proofs):
        named = "" if has_groups else "neither the CSA header of the image nor "
        raise GeometryError(
            f"a mosaic without the order of its slices: {named}the positions in the protocol "
            f"{'do not ' if has_groups else ''}prove it"
        )
    signs = next(iter(proofs.values()), 1.0)
    step = normal * _gap(dataset, count, protocol) * signs
    first = corner + to_centre - half
    return tuple(_tile(box, first + k * step) for k, box in enumerate(boxes))


def _tiles_of_grid(dataset: Any) -> tuple[Tile, ...]:
    """The tiles of a mosaic of United Imaging."""
    items = list(dataset[GRID_SEQUENCE].value)
    stated = dataset.get(NUMBER_IN_GRID)
    if stated is not None and int(float(stated.value)) != len(items):
        raise FormatError(
            f"a mosaic of {int(float(stated.value))} slices with the positions of {len(items)}"
        )
    positions = [_floats(item, "ImagePositionPatient", 3) for item in items]
    boxes = _boxes(dataset, len(items), square=False)
    return tuple(_tile(box, place) for box, place in zip(boxes, positions, strict=True))


def _tile(box: tuple[int, int, int, int], position: Vector) -> Tile:
    return Tile(box, (float(position[0]), float(position[1]), float(position[2])))


def _boxes(dataset: Any, count: int, square: bool) -> list[tuple[int, int, int, int]]:
    """The rectangles (top, bottom, left, right) of ``count`` tiles, row by row."""
    if count < 1:
        raise FormatError(f"a mosaic of {count} slices")
    across = math.ceil(math.sqrt(count))
    down = across if square else math.ceil(count / across)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows % down or columns % across:
        raise FormatError(
            f"a mosaic of {count} slices has {across} x {down} tiles, which do not fit an image "
            f"of {columns} x {rows} pixels"
        )
    height, width = rows // down, columns // across
    starts = [(k // across * height, k % across * width) for k in range(count)]
    return [(top, top + height, left, left + width) for top, left in starts]


def _plane(dataset: Any) -> tuple[Vector, Vector, Vector, Vector]:
    """The directions of a row and of a column, the spacing, and the position of the image."""
    orientation = _floats(dataset, "ImageOrientationPatient", 6)
    spacing = _floats(dataset, "PixelSpacing", 2)
    corner = _floats(dataset, "ImagePositionPatient", 3)
    return orientation[:3], orientation[3:], spacing, corner


def _count(dataset: Any, header: dict[str, tuple[str, ...]], protocol: _Protocol | None) -> int:
    """The number of tiles."""
    stated = _counts(dataset, header)
    if len(stated) > 1:
        raise FormatError(f"a mosaic that states both {stated[0]} and {stated[1]} slices")
    if stated:
        return stated[0]
    if protocol is None:
        raise FormatError("a mosaic that does not state its number of slices")
    return protocol.count


def _counts(dataset: Any, header: dict[str, tuple[str, ...]]) -> list[int]:
    """The different numbers of tiles that are stated."""
    stated = [int(float(v)) for v in header.get(csa.COUNT, ())[:1]]
    if (own := _stated(dataset)) is not None:
        stated.append(own)
    return sorted(set(stated))


def _stated(dataset: Any) -> int | None:
    found = dataset.get(NUMBER_OF_IMAGES)
    return found.value if found is not None and isinstance(found.value, int) else None


def _protocol(lines: dict[str, str]) -> _Protocol | None:
    """The outer slices of a protocol; None if it has none, or several stacks.

    A slab of a 3-D sequence is one slice of the protocol; its images divide it evenly.
    """

    def number(name: str) -> float:
        try:
            return float(lines.get(name, 0))
        except ValueError:
            return float(int(lines[name], 0))  # 0x4

    def vector(name: str) -> Vector:
        # Values of zero are left out.
        return np.array([number(f"{name}.d{axis}") for axis in ("Sag", "Cor", "Tra")])

    count = int(number("sSliceArray.lSize"))
    if not 1 <= count <= csa.MOST_TAGS:
        return None
    slices = [f"sSliceArray.asSlice[{n}]" for n in range(count)]
    centres = np.array([vector(f"{one}.sPosition") for one in slices])
    images = int(number("sKSpace.lImagesPerSlab"))
    if count == 1 and images > 1 and int(number("sKSpace.ucDimension")) == 4:
        half = vector(f"{slices[0]}.sNormal") * number(f"{slices[0]}.dThickness") / images
        half = half * (images - 1) / 2
        return _Protocol(images, centres[0] - half, centres[0] + half)
    even = centres[0] + np.linspace(0, 1, count)[:, None] * (centres[-1] - centres[0])
    if np.abs(centres - even).max() > SAME_GAP_MM:
        return None
    return _Protocol(count, centres[0], centres[-1])


def _proofs(
    normal: Vector,
    centre: Vector,
    other: Vector,
    count: int,
    header: dict[str, tuple[str, ...]],
    protocol: _Protocol | None,
) -> dict[str, float]:
    """What proves the order of the slices, each with 1 if they follow ``normal`` or -1 if they run
    against it.

    Args:
        normal: of the image.
        centre: of the first slice, in LPS mm.
        other: its centre if the position of the image were that of the slice.
    """
    proofs: dict[str, float] = {}
    # The normal of the header of the image.
    stated = np.array([float(v) for v in header.get("SliceNormalVector", ())])
    if stated.shape == (3,) and np.linalg.norm(stated) > 0:
        cosine = float(stated @ normal / np.linalg.norm(stated))
        if abs(cosine) < PARALLEL:
            raise GeometryError(
                "SliceNormalVector of the CSA header is not the normal of ImageOrientationPatient"
            )
        proofs["SliceNormalVector"] = math.copysign(1.0, cosine)
    # The end of the protocol's stack at which the first tile lies.
    if count > 1 and protocol is not None and protocol.count == count:
        extent = protocol.last - protocol.first
        most = NEAR * float(np.linalg.norm(extent))
        near = [float(np.linalg.norm(centre - end)) <= most for end in _ends(protocol)]
        if not any(near) and any(np.linalg.norm(other - end) <= most for end in _ends(protocol)):
            raise GeometryError(
                "a mosaic whose ImagePositionPatient is that of its first slice; that of the "
                "whole image was expected"
            )
        if any(near):
            direction = extent if near[0] else -extent
            proofs[PROTOCOL] = math.copysign(1.0, float(direction @ normal))
    if len(set(proofs.values())) > 1:
        raise GeometryError(
            "a mosaic with two orders of its slices: that of SliceNormalVector and that of the "
            "positions in the protocol"
        )
    return proofs


def _ends(protocol: _Protocol) -> tuple[Vector, Vector]:
    return protocol.first, protocol.last


def _gap(dataset: Any, count: int, protocol: _Protocol | None) -> float:
    """The distance of two slices in mm, by SpacingBetweenSlices and by the protocol."""
    try:
        stated = float(dataset.get("SpacingBetweenSlices") or 0)
    except (TypeError, ValueError):
        stated = 0.0
    planned = 0.0
    if protocol is not None and protocol.count == count > 1:
        planned = float(np.linalg.norm(protocol.last - protocol.first)) / (count - 1)
    if stated > 0 and planned > 0 and abs(stated - planned) * (count - 1) > SAME_GAP_MM:
        raise GeometryError(
            f"a mosaic with two distances of its slices: {stated:g} mm by SpacingBetweenSlices, "
            f"{planned:g} mm by the positions in the protocol"
        )
    if stated <= 0 and planned <= 0 and count > 1:
        raise GeometryError(
            "a mosaic without the distance of its slices: neither SpacingBetweenSlices nor the "
            "positions in the protocol give it"
        )
    return stated if stated > 0 else planned


def _floats(dataset: Any, name: str, count: int) -> Vector:
    """``count`` finite numbers of an attribute.

    Raises:
        GeometryError: it is missing, or holds something else.
    """
    try:
        values = np.array([float(v) for v in dataset.get(name) or ()])
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise GeometryError(f"{name} of a mosaic is missing or unreadable")
    return values
