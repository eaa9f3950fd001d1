"""Label volumes from DICOM Segmentation objects (PS3.3 A.51).

Segments keep their numbers as values, and their names are in ``meta["names"]``. Segments that
overlap become one channel each; names then have the number of the channel, from 1. Background is 0:
pixels of no segment, frames that are missing, the Pixel Padding Value of a label map, and segments
that are coded as background.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError, GeometryError, LabelError
from ....core.grid import GRID_TOLERANCE_MM, Grid
from ....core.inputs import refuse_large
from ....core.labels import Label, LabelSet, default_colour
from ....core.volume import Volume
from ...disk import told
from ..places import Places
from .frames import frames, spare_bytes
from .header import SegHeader, Segment, read_header
from .planes import misplaced, overruled_gap, planes, strangers

HALF = 0.5  # of the maximum: voxels of a fractional segmentation from here on are inside
SAME_VOXEL_MM = 1e-3  # largest difference of the sizes of equal voxels
MOST_SAMPLES = 17  # along each axis, of the distances that a transfer to another grid is judged by


def read_seg(
    path: str | Path,
    like: Grid | None = None,
    *,
    frame_of_reference: str = "",
    threshold: float | None = HALF,
    only: Collection[str] | None = None,
    places: Places | None = None,
) -> Volume:
    """Read the labels of a Segmentation object.

    Args:
        like: the grid of the image. The labels are put there by position; if no flips and whole
            voxels lead there, by nearest neighbour, and ``meta["notes"]`` states the distance. None
            gives the grid of the frames themselves.
        frame_of_reference: UID of that of the image, which the object must have; "" accepts all.
        threshold: share of the maximum from which a voxel of a fractional segmentation is inside;
            None keeps the shares, (C, I, J, K) float32 with a channel for each segment.
        only: numbers, names or codes ("SCT:10200004") of the segments to read; None reads all.
        places: of the images of the series with the grid ``like``, to note frames that name another
            one than that of their slice.

    Returns:
        (I, J, K) uint8 or uint16 of unit "label", or (C, I, J, K) uint8 if segments overlap;
        ``meta`` has names, labels (``LabelSet.to_json``), and notes.

    Raises:
        FormatError: not a Segmentation object, or one that is damaged or not supported.
        GeometryError: frames that form no evenly spaced stack, or are in another frame of
            reference.
        LabelError: pixel values or frames of segments that are not described.
    """
    header = read_header(path, with_sources=places is not None)
    with told(path):
        own = header.frame_of_reference
        if own and frame_of_reference and own != frame_of_reference:
            raise GeometryError(
                f"the segmentation is in another frame of reference ({own}) than the image "
                f"({frame_of_reference}), so their positions cannot be compared; if they can, "
                "state --register-by position"
            )
        volume = _read(header, like, threshold, only)
        if like is None:
            return volume
        found = (
            () if places is None else (misplaced(header, like, places), strangers(header, places))
        )
        if notes := [note for note in found if note]:
            volume = replace(
                volume, meta=volume.meta | {"notes": [*volume.meta.get("notes", ()), *notes]}
            )
        return _placed(volume, like)


def read_grid(path: str | Path) -> Grid:
    """The grid of the frames of a Segmentation object, from its header. Errors are those of
    ``read_seg``.
    """
    header = read_header(path)
    with told(path):
        return planes(header)[0]


def names_in(path: str | Path) -> dict[int, str]:
    """Number -> name of the segments of an object, without the background. Errors are those of
    ``read_seg``.
    """
    header = read_header(path)
    with told(path):
        return {label.value: label.name for label in label_set(header.structures)}


def describe(path: str | Path) -> tuple[dict[str, Any], Grid]:
    """The segments of an object with their numbers of frames and voxels as plain data, and the grid
    of its frames. Errors are those of ``read_seg``.
    """
    header = read_header(path)
    with told(path):
        volume = _read(header)
    channels = {segment: n for n, segment in enumerate(header.structures)}

    def voxels(segment: Segment) -> int:
        if volume.array.ndim == 4:
            return int(np.count_nonzero(volume.array[channels[segment]]))
        return int(np.count_nonzero(volume.array == segment.value))

    segments = [
        {
            "number": one.number,
            "name": one.name,
            "code": one.code,
            "meaning": one.meaning,
            **({"side": one.side} if one.side else {}),
            "voxels": voxels(one),
            **({} if header.kind == "LABELMAP" else {"frames": header.count(one.number)}),
        }
        for one in header.structures
    ]
    facts = {
        "format": "DICOM SEG",
        "type": header.kind,
        "overlap": volume.array.ndim == 4,
        "segments": segments,
        **{name: volume.meta[name] for name in ("patient", "series", "description")},
        "frame_of_reference": header.frame_of_reference,
        "notes": volume.meta.get("notes", []),
    }
    return facts, volume.grid


def label_set(segments: Sequence[Segment]) -> LabelSet:
    """The segments as labels with their names, codes, colours and sides."""
    return LabelSet(
        tuple(
            Label(s.value, s.name, s.colour or default_colour(n), s.code, s.side)
            for n, s in enumerate(segments)
        )
    )


def _chosen(header: SegHeader, only: Collection[str] | None) -> list[Segment]:
    """The segments with one of these numbers, names or codes.

    Raises:
        LabelError: there is none.
    """
    if only is None:
        return list(header.structures)
    wanted = {one.casefold() for one in only}
    found = [
        s
        for s in header.structures
        if wanted & {str(s.number), s.name.casefold(), s.code.casefold()}
    ]
    if not found:
        listed = ", ".join(f"{s.number} {s.name}" for s in header.structures)
        raise LabelError(f"has no segment {', '.join(only)}; its segments are {listed}")
    return found


# ---- voxels ----


def _read(
    header: SegHeader,
    like: Grid | None = None,
    threshold: float | None = HALF,
    only: Collection[str] | None = None,
) -> Volume:
    """The labels on the grid of the frames."""
    grid, k = planes(header, like)
    _refuse_repeated(header, k)
    segments = _chosen(header, only)
    frames_in = _Frames(header, grid, k, segments)
    notes, unit = [*header.notes, *overruled_gap(header, grid), *spare_bytes(header)], "label"
    if header.kind == "LABELMAP":
        array: NDArray[Any] = frames_in.looked_up()
    elif header.kind == "BINARY":
        array = frames_in.labels(1)
    elif threshold is None:
        array = frames_in.channels(np.float32, lambda frame: frame / np.float32(header.most))
        unit = "a.u."
    else:
        array = frames_in.labels(threshold * header.most)
        notes.append(f"voxels of at least {threshold:g} of the maximum are inside")
    labels = label_set(segments)
    numbers = labels.values if array.ndim == 3 else range(1, len(labels) + 1)
    meta = {
        "modality": "SEG",
        "spacing_known": len(header.spacings) > 0,
        "place_known": not header.is_flat,
        **header.facts,
        "names": dict(zip(numbers, (s.name for s in segments), strict=True)),
        "labels": labels.to_json(),
        **({"notes": notes} if notes else {}),
    }
    return Volume(array, grid, unit, str(header.path), meta)


def _refuse_repeated(header: SegHeader, k: NDArray[np.intp]) -> None:
    """Refuse several frames of one segment in one plane: they are points in time, or one of them is
    wrong.
    """
    pairs = np.stack([header.numbers, k], axis=1)
    repeated = header.frames - len(np.unique(pairs, axis=0))
    if repeated:
        raise FormatError(
            f"{repeated} of {header.frames} frames repeat a plane of the same segment; several "
            "points in time in one segmentation?"
        )


@dataclass(frozen=True)
class _Frames:
    """The frames of an object, collected in one array; ``k`` is the plane of each of them."""

    header: SegHeader
    grid: Grid
    k: NDArray[np.intp]
    segments: Sequence[Segment]

    def _empty(self, dtype: Any, *channels: int) -> NDArray[Any]:
        """(..., slice, row, column), so that a frame is one block of memory."""
        columns, rows, count = self.grid.shape
        shape = (*channels, count, rows, columns)
        refuse_large(math.prod(shape) * np.dtype(dtype).itemsize)
        return np.zeros(shape, dtype)

    @property
    def _dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint8 if max((s.value for s in self.segments), default=0) < 256 else np.uint16

    def looked_up(self) -> NDArray[Any]:
        """The label map (I, J, K) of pixels that are segment numbers.

        Raises:
            LabelError: pixel values that are not described.
        """
        described = {0, *(segment.number for segment in self.header.segments)}
        known = np.zeros(1 << 16, bool)
        known[[*described, *([] if self.header.padding is None else [self.header.padding])]] = True
        table = np.zeros(1 << 16, self._dtype)
        for segment in self.segments:
            table[segment.number] = segment.value
        out = self._empty(self._dtype)
        for k, frame in zip(self.k, frames(self.header), strict=True):
            if not known[frame].all():
                _refuse_unknown(np.unique(frame[~known[frame]]), described)
            out[k] = table[frame]
        return out.transpose(2, 1, 0)

    def labels(self, least: float) -> NDArray[Any]:
        """The label map (I, J, K) of pixels from ``least`` on, or masks (C, I, J, K) if segments
        overlap.
        """
        values = {segment.number: segment.value for segment in self.segments}
        dtype = self._dtype
        out = self._empty(dtype)
        for k, number, frame in self._of_segments():
            if number not in values:
                continue
            # All bits of the pixels inside, to find values that are already there.
            inside = np.multiply(frame >= least, np.iinfo(dtype).max, dtype=dtype)
            if (out[k] & inside).any():
                return self.channels(np.uint8, lambda frame: frame >= least)
            out[k] |= inside & dtype(values[number])
        return out.transpose(2, 1, 0)

    def channels(self, dtype: Any, of: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        """A channel for each segment, (C, I, J, K), with ``of`` its frames."""
        at = {segment.number: n for n, segment in enumerate(self.segments)}
        out = self._empty(dtype, len(at))
        for k, number, frame in self._of_segments():
            if number in at:
                out[at[number], k] = of(frame)
        return out.transpose(0, 3, 2, 1)

    def _of_segments(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Plane, segment number and pixels of each frame, in the order of the file.

        Raises:
            LabelError: a frame of a segment that is not described.
        """
        described = {segment.number for segment in self.header.segments}
        _refuse_unknown(set(self.header.numbers.tolist()) - described, described)
        for k, number, frame in zip(self.k, self.header.numbers, frames(self.header), strict=True):
            yield int(k), int(number), frame


def _refuse_unknown(found: Iterable[int], described: Iterable[int]) -> None:
    if strange := sorted(map(int, found)):
        raise LabelError(
            f"has voxels of segments {', '.join(map(str, strange[:10]))}, but only "
            f"{', '.join(map(str, sorted(described)))} are described"
        )


# ---- another grid ----


def _placed(volume: Volume, like: Grid) -> Volume:
    """The labels on the grid of the image.

    Raises:
        GeometryError: no labelled voxel is inside the image.
    """
    exact = volume.on_grid(like)
    if exact is not None:
        return exact
    from scipy import ndimage

    away, outside = _distance_mm(volume.grid, like), _outside(volume, like)
    if outside == np.count_nonzero(volume.array):
        raise GeometryError("no voxel of the segmentation is inside the image")
    matrix = np.linalg.inv(volume.grid.affine) @ like.affine
    array = np.zeros((volume.channels, *like.shape), volume.array.dtype)
    for source, target in zip(volume.channels_array, array, strict=True):
        ndimage.affine_transform(
            source,
            matrix[:3, :3],
            matrix[:3, 3],
            like.shape,
            output=target,
            order=0,
            mode="grid-constant",
        )
    notes = list(volume.meta.get("notes", []))
    if away > GRID_TOLERANCE_MM:
        notes.append(
            "the labels are on another grid than the image; they were brought there by nearest "
            f"neighbour, from voxels up to {away:.2f} mm away"
        )
    elif not np.allclose(np.sort(volume.spacing_mm), np.sort(like.spacing_mm), atol=SAME_VOXEL_MM):
        stated = (" x ".join(f"{mm:.3g}" for mm in one.spacing_mm) for one in (volume.grid, like))
        notes.append(
            "the labels have voxels of {} mm and the image of {} mm; each voxel of the image has "
            "the label at its centre".format(*stated)
        )
    if outside:
        notes.append(f"{outside} labelled voxels are outside the image")
    array = array if volume.array.ndim == 4 else array[0]
    return replace(volume, array=array, grid=like, meta=volume.meta | {"notes": notes})


def _distance_mm(own: Grid, like: Grid) -> float:
    """The largest distance of a voxel of ``like`` from the nearest one of ``own``, where they
    overlap, of evenly spaced samples.
    """
    ends = (np.linspace(0, n - 1, min(n, MOST_SAMPLES)) for n in like.shape)
    points = like.to_mm(np.stack(np.meshgrid(*(np.rint(e) for e in ends)), -1).reshape(-1, 3))
    index = own.to_index(points)
    nearest = np.rint(index)
    inside = ((nearest >= 0) & (nearest < own.shape)).all(axis=1)
    away = np.linalg.norm(own.to_mm(nearest) - points, axis=1)[inside]
    return float(away.max(initial=0))


def _outside(volume: Volume, like: Grid) -> int:
    """The number of labelled voxels whose centre is outside the voxels of ``like``."""
    found = 0
    for channel in volume.channels_array:
        for k in np.flatnonzero(channel.any(axis=(0, 1))):
            i, j = np.nonzero(channel[:, :, k])
            index = np.rint(like.to_index(volume.grid.to_mm(np.stack([i, j, i * 0 + k], -1))))
            found += int((~((index >= 0) & (index < like.shape)).all(axis=1)).sum())
    return found
