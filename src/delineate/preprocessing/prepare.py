"""prepare() and restore(): from a scan to the network's input, and from its output back onto the
scan's grid.

    scan  --reorient-->  --crop-->  --normalise, resample-->  prepared grid       prepare()
    scan  <--reorient--  <--uncrop--  <--resample, argmax---  class scores        restore()

Both are in this module because each must undo the other exactly; the ``PreprocessingRecord``
carries what happened. ``restore`` takes class scores in slabs, in order along one axis, and keeps
one slab and one label volume: its memory does not depend on the number of classes. Shapes: image
(C, I, J, K), slabs (L, d, A, B) with the marching axis first after the classes. It knows plans and
grids, no files and no networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import GeometryError, InputError
from ..core.grid import ANISOTROPY, AxisMap, Grid
from ..core.plan import Plan
from ..core.volume import BODY_HU, Volume, background_of
from .intensity import measure
from .resample import (
    Bands,
    Kernel,
    apply_axis,
    axis_weights,
    memory_order,
    resample_image,
    resample_labels,
    scale_positions,
)

# output voxels of one class that restore() works on at a time: each copy of them is 10 MB
CHUNK_VOXELS = 2_400_000
TIE = 1e-6  # of a score: equal ones go to the class that comes first, however they are rounded
PROBABILITY_ONE = 65535  # what 1 is written as
MASK_PLANES = 16  # planes in which the crop is looked for at once

# Weights along the two axes of a plane; None where an axis is as it was.
InPlane = Sequence[Bands | None]
Planes = TypeVar("Planes")


@dataclass(frozen=True)
class PreprocessingRecord:
    """What prepare() did, enough to undo it.

    ``source`` is the scan's grid, ``axes`` moved its arrays to ``oriented``, of which the box
    ``start``..``stop`` was kept and resampled to ``prepared``. ``nearest`` is the axis of thick
    slices, if any, along which ``restore`` takes the nearest one.
    """

    source: Grid
    oriented: Grid
    axes: AxisMap
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    prepared: Grid
    nearest: int | None = None

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Shape of the kept box."""
        a, b, c = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return a, b, c


def prepare(
    volume: Volume, plan: Plan, present: Sequence[int] | None = None
) -> tuple[Tensor, PreprocessingRecord]:
    """A scan as the network sees it.

    Args:
        volume: any orientation; (I, J, K) or (C, I, J, K) with the plan's number of channels.
        present: which of the plan's channels the volume has, in its order; None: all. The others
            become 0, which is what training's ``drop_channel_p`` gives for them.

    Returns:
        (C, I, J, K) float32 on ``record.prepared``, C the plan's, and the record.

    Raises:
        InputError: another number of channels than the plan has, or than are ``present``.
    """
    here = range(len(plan.channels)) if present is None else present
    if volume.channels != len(here):
        names = ", ".join(plan.channels[n].name for n in here)
        raise InputError(
            f"found {volume.channels} channel(s), the plan takes {len(here)} ({names})",
            path=volume.source or None,
        )
    record = trace(volume, plan)
    kernels = kernels_for(record, plan.resampling)
    shape = (len(plan.channels), *record.prepared.shape)
    out = (
        torch.empty(shape, dtype=torch.float32)
        if present is None
        else torch.zeros(shape, dtype=torch.float32)
    )
    for index, channel in zip(here, volume.channels_array, strict=True):
        box = _boxed(record.axes.apply(channel), record)
        out[index] = resample_image(
            box,
            record.prepared.shape,
            kernels,
            transform=measure(box, plan.channels[index].normalise),
        )
    return out, record


def prepare_label(
    label: Volume, record: PreprocessingRecord, table: dict[int, int]
) -> NDArray[Any]:
    """The truth on the prepared grid, as class indices.

    Args:
        label: (I, J, K) values on the scan's grid.
        table: value -> class index (``LabelSet.compact``).

    Returns:
        (I, J, K) uint8 or uint16.

    Raises:
        GeometryError: the truth does not stand on the scan's grid.
    """
    if not label.grid.matches(record.source):
        raise GeometryError(
            f"the truth stands {label.grid.distance_mm(record.source):.2f} mm from the scan's grid",
            path=label.source or None,
        )
    lookup = np.zeros(
        max([*table, int(label.array.max(initial=0))]) + 1,
        dtype=np.uint8 if len(table) < 256 else np.uint16,
    )
    for value, index in table.items():
        lookup[value] = index
    return resample_labels(
        lookup[_boxed(record.axes.apply(label.array), record)], record.prepared.shape
    )


def trace(volume: Volume, plan: Plan) -> PreprocessingRecord:
    """Where the scan will stand after preparing; reads voxels only to find the crop."""
    oriented, axes = volume.grid.reorient(plan.orientation)
    start, stop = _crop_box(axes.apply(volume.channels_array), plan.crop)
    kept = oriented.crop(start, stop)
    spacing = [
        own if wanted is None else wanted
        for own, wanted in zip(kept.spacing_mm, plan.spacing_mm, strict=True)
    ]
    prepared = kept.respace(spacing)
    if np.prod(prepared.shape) > 2**31:
        raise InputError(
            f"would become {prepared.shape} voxels at the plan's spacing; the scan spans "
            f"{kept.shape} voxels of {kept.spacing_mm} mm",
            path=volume.source or None,
        )
    nearest = (
        thick_axis(prepared.spacing_mm, kept.spacing_mm) if plan.resampling == "spline" else None
    )
    return PreprocessingRecord(volume.grid, oriented, axes, start, stop, prepared, nearest)


def kernels_for(
    record: PreprocessingRecord, resampling: str = "cubic"
) -> tuple[Kernel, Kernel, Kernel]:
    """Cubic along fine axes, linear along an axis much coarser than the finest; with "spline"
    splines, and the nearest slice there.

    As in nnU-Net the slices of a "spline" are thick if they are so before or else after resampling,
    and along one axis only.
    """
    spacing = record.oriented.spacing_mm
    if resampling == "spline":
        thick = thick_axis(spacing, record.prepared.spacing_mm)
        i, j, k = ("nearest" if n == thick else "spline" for n in range(3))
        return i, j, k  # type: ignore[return-value]
    a, b, c = ("linear" if s > ANISOTROPY * min(spacing) else "cubic" for s in spacing)
    return a, b, c  # type: ignore[return-value]


def thick_axis(*spacings: tuple[float, float, float]) -> int | None:
    """The one axis that the first anisotropic of ``spacings`` is much coarser along than its
    finest; None where there is none, or several.
    """
    for step in spacings:
        if max(step) > ANISOTROPY * min(step):
            return step.index(max(step)) if step.count(max(step)) == 1 else None
    return None


def restore(
    slabs: Iterable[Tensor],
    record: PreprocessingRecord,
    axis: int,
    values: NDArray[Any],
    above: float | None = None,
    sum_to_one: bool = False,
    probabilities: NDArray[np.uint16] | None = None,
) -> NDArray[Any]:
    """Class scores on the prepared grid to label values on the scan's own grid, slab by slab.

    Args:
        slabs: (L, d, A, B) scores (probabilities or logits, any float dtype, any device), in order
            along prepared axis ``axis``; the depths d add up to that axis' length. A and B are the
            other two axes in their order.
        record: from ``prepare``.
        axis: 0, 1 or 2, the marching axis.
        values: (L,) label value of each class; values[0] is the background's, 0.
        above: classes that may overlap, without a background among them: values is then (L + 1,),
            and a voxel gets the last class whose score is above this.
        sum_to_one: the scores of a voxel are probabilities that add up to 1. Then a class is looked
            at only where it could win, which changes nothing but the time.
        probabilities: (L, I, J, K) on ``record.source``, to be filled with the classes'
            probabilities in steps of 1 / ``PROBABILITY_ONE``; outside the kept box all is
            background. Logits become probabilities at each voxel. Not for classes that may overlap.

    Returns:
        (I, J, K) of ``values.dtype`` on ``record.source``, in Fortran order, as most scans lie; 0
        outside the kept box.
    """
    out = np.zeros(record.source.shape, dtype=values.dtype, order="F")
    # A view: writing into it fills the volume.
    box = np.moveaxis(_boxed(record.axes.apply(out), record), axis, 0)
    as_they_are = np.array_equal(values, np.arange(len(values)))
    if probabilities is not None:
        probabilities[:] = 0
        probabilities[0] = PROBABILITY_ONE
        shares = np.moveaxis(_boxed(record.axes.apply(probabilities), record), 1 + axis, 1)

    def planes(near: list[Tensor], along: Bands, in_plane: InPlane) -> tuple[Tensor, Tensor | None]:
        winner = (
            _largest(near, along, in_plane, sum_to_one)
            if above is None
            else _last_above(near, along, in_plane, above)
        )
        return winner, None if probabilities is None else _shares(
            near, along, in_plane, logits=not sum_to_one
        )

    for start, (winners, share) in _by_plane(slabs, record, axis, planes):
        found = winners.cpu().numpy()
        box[start : start + len(found)] = found if as_they_are else values[found]
        if share is not None:
            shares[:, start : start + len(found)] = share.cpu().numpy()
    return out


def _by_plane(
    slabs: Iterable[Tensor],
    record: PreprocessingRecord,
    axis: int,
    planes: Callable[[list[Tensor], Bands, InPlane], Planes],
) -> Iterator[tuple[int, Planes]]:
    """For consecutive planes of the kept box: the first one's index, and what ``planes`` makes of
    the prepared planes around them.
    """
    source, prepared = (
        _axis_first(shape, axis) for shape in (record.cropped_shape, record.prepared.shape)
    )
    positions = np.clip(scale_positions(prepared[0], source[0]), 0, prepared[0] - 1)
    if record.nearest == axis:
        positions = np.floor(positions + 0.5)
    kernels: list[Kernel] = [
        "nearest" if record.nearest == a else "linear" for a in range(3) if a != axis
    ]
    in_plane = [
        _interpolation(n_in, n_out, kernel)
        for n_in, n_out, kernel in zip(prepared[1:], source[1:], kernels, strict=True)
    ]
    done, first = 0, 0  # planes written; prepared index of the first plane at hand
    pieces: list[
        Tensor
        # the planes at hand: what an earlier slab left, and the slab; never joined, which would
        # copy
        # the slab
    ] = []
    for slab in slabs:
        pieces.append(slab)
        last = first + sum(piece.shape[1] for piece in pieces) - 1
        final = last == prepared[0] - 1
        # Planes that need nothing beyond ``last``.
        ready = source[0] if final else int(np.searchsorted(positions, last, side="right"))
        step = max(1, CHUNK_VOXELS // (source[1] * source[2]))
        for begin in range(done, ready, step):
            here = positions[begin : min(begin + step, ready)] - first
            low, high = int(np.floor(here[0])), min(last - first + 1, int(np.floor(here[-1])) + 2)
            along = Bands.of(axis_weights(here - low, high - low, "linear"))
            near = list(_between(pieces, low, high))
            made = planes(near, along, in_plane)
            del near  # views: the slab must be gone before the next one is made
            yield begin, made
            del made
        done = max(done, ready)
        keep_from = last if done >= source[0] else min(last, int(np.floor(positions[done])))
        # A copy: the slab's memory is let go.
        pieces = [torch.cat(list(_between(pieces, keep_from - first, last + 1 - first)), dim=1)]
        first = keep_from
        del slab
    if done < source[0]:
        raise ValueError(f"slabs ended at plane {done} of {source[0]}")


def _between(pieces: list[Tensor], low: int, high: int) -> Iterator[Tensor]:
    """Of each piece the planes among low..high, counted from the first piece's first plane;
    views.
    """
    offset = 0
    for piece in pieces:
        a, b = max(low - offset, 0), min(high - offset, piece.shape[1])
        if b > a:
            yield piece[:, a:b]
        offset += piece.shape[1]


def _shares(near: list[Tensor], along: Bands, in_plane: InPlane, logits: bool) -> Tensor:
    """(L, d', A', B') uint16 probabilities in steps of 1 / ``PROBABILITY_ONE``."""
    each = torch.stack(
        [
            _interpolated(torch.cat([part[index] for part in near]).float(), along, *in_plane)
            for index in range(near[0].shape[0])
        ]
    )
    each = each.softmax(dim=0) if logits else each.clamp_(min=0).div_(each.sum(dim=0, keepdim=True))
    return each.mul_(PROBABILITY_ONE).round_().to(torch.int32).to(torch.uint16)


def _largest(near: list[Tensor], along: Bands, in_plane: InPlane, sum_to_one: bool) -> Tensor:
    """(d', A', B') class with the largest score, one class after the other with a running maximum.

    The background's scores are taken off the others', so that it need not be interpolated. Of
    probabilities the largest of L is at least 1 / L, and interpolating exceeds nothing that it
    interpolates: a class is looked at only in the box where it reaches half of that.
    """
    classes, device = near[0].shape[0], near[0].device
    size = [near[0].shape[n + 2] if w is None else len(w.dense) for n, w in enumerate(in_plane)]
    best = torch.zeros((len(along.dense), *size), device=device)
    winner = torch.zeros(
        best.shape, dtype=torch.uint8 if classes <= 256 else torch.int16, device=device
    )
    background = torch.cat([part[0] for part in near]).float()
    boxes = _boxes(near, 0.5 / classes) if sum_to_one else None
    for index in range(1, classes):
        if boxes is not None and boxes[index] is None:
            continue
        (w_a, out_a, in_a), (w_b, out_b, in_b) = (
            _touching(w, None if boxes is None else boxes[index][n])  # type: ignore[index]
            for n, w in enumerate(in_plane)
        )
        planes = (
            torch.cat([part[index, :, in_a, in_b] for part in near]).float()
            - background[:, in_a, in_b]
        ).sub_(index * TIE)
        score, top = _interpolated(planes, along, w_a, w_b), best[:, out_a, out_b]
        wins, so_far = (score > top).view(torch.uint8).to(winner.dtype), winner[:, out_a, out_b]
        # Later classes have larger numbers; several times as fast as filling where it wins.
        torch.maximum(so_far, wins.mul_(index), out=so_far)
        torch.maximum(top, score, out=top)
    return winner


def _last_above(near: list[Tensor], along: Bands, in_plane: InPlane, above: float) -> Tensor:
    """(d', A', B') 1 + the last class whose score is above ``above``, or 0."""
    winner = None
    for index in range(near[0].shape[0]):
        score = _interpolated(torch.cat([part[index] for part in near]).float(), along, *in_plane)
        winner = (
            torch.zeros(score.shape, dtype=torch.int16, device=score.device)
            if winner is None
            else winner
        )
        winner.masked_fill_(score > above, index + 1)
    assert winner is not None
    return winner


def _interpolated(planes: Tensor, along: Bands, w_a: Bands | None, w_b: Bands | None) -> Tensor:
    """(d, A, B) to (d', A', B'); along the marching axis first where that leaves fewer planes."""
    along, w_a, w_b = (None if w is None else w.to(planes.device) for w in (along, w_a, w_b))  # type: ignore[assignment]
    if len(along.dense) < len(planes):
        return apply_axis(apply_axis(apply_axis(planes, along, 0), w_b, 2), w_a, 1)
    return apply_axis(apply_axis(apply_axis(planes, w_b, 2), w_a, 1), along, 0)


def _boxes(
    near: list[Tensor], floor: float
) -> list[tuple[tuple[int, int], tuple[int, int]] | None]:
    """Of each class the box in the plane, low and high along A and B, around all scores above
    ``floor``; None where there is none.
    """
    peak = torch.stack([part.amax(dim=1) for part in near]).amax(dim=0) > floor  # (L, A, B)
    hits = [peak.any(dim=axis).cpu().numpy() for axis in (2, 1)]
    return [_span(a, b) for a, b in zip(*hits, strict=True)]


def _span(
    hit_a: NDArray[np.bool_], hit_b: NDArray[np.bool_]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    if not hit_a.any():
        return None
    (a, b), (c, d) = (np.flatnonzero(hit)[[0, -1]].tolist() for hit in (hit_a, hit_b))
    return (a, b + 1), (c, d + 1)


def _touching(
    weights: Bands | None, span: tuple[int, int] | None
) -> tuple[Bands | None, slice, slice]:
    """Weights, outputs and inputs that have to do with the inputs of ``span``; everything where it
    is None.
    """
    if span is None:
        return weights, slice(None), slice(None)
    return (None, slice(*span), slice(*span)) if weights is None else weights.touching(*span)


def _interpolation(n_in: int, n_out: int, kernel: Kernel) -> Bands | None:
    """Weights without widening: scores are smooth, and a label is asked for at a point."""
    return (
        None
        if n_in == n_out
        else Bands.of(axis_weights(scale_positions(n_in, n_out), n_in, kernel))
    )


def _axis_first(shape: tuple[int, int, int], axis: int) -> tuple[int, ...]:
    return (shape[axis], *(n for a, n in enumerate(shape) if a != axis))


def _boxed(array: NDArray[Any], record: PreprocessingRecord) -> NDArray[Any]:
    i, j, k = (slice(a, b) for a, b in zip(record.start, record.stop, strict=True))
    return array[..., i, j, k]


def _crop_box(
    channels: NDArray[Any], rule: str
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The box to keep of (C, I, J, K); the whole where nothing stands out."""
    shape = channels.shape[1:]
    whole = (0, 0, 0), (shape[0], shape[1], shape[2])
    if rule == "none":
        return whole
    start, stop = [0, 0, 0], list(shape)
    share = 0.01 if rule == "body" else 0.0  # a table's or a cable's thin plane is no body
    margin = 0 if rule == "not_zero" else 2
    for axis, filled in enumerate(_filled(channels, rule)):
        hit = np.flatnonzero(filled > share)
        if not len(hit):
            return whole
        start[axis], stop[axis] = (
            max(0, int(hit[0]) - margin),
            min(shape[axis], int(hit[-1]) + 1 + margin),
        )
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _filled(channels: NDArray[Any], rule: str) -> list[NDArray[np.float64]]:
    """For each axis, each plane's share of voxels that stand out; a few planes at a time, in the
    order in which they lie in memory.
    """
    used = channels[:1] if rule == "body" else channels
    empty = [
        BODY_HU if rule == "body" else background_of(channel) if rule == "nonzero" else 0.0
        for channel in used
    ]
    order = memory_order(channels[0])
    turned = used.transpose(0, *(1 + axis for axis in order))
    a, b, c = turned.shape[1:]
    by_plane, across = np.zeros(a), np.zeros((b, c), np.int64)
    for first in range(0, a, MASK_PLANES):
        planes = slice(first, first + MASK_PLANES)
        stands_out = np.zeros((min(MASK_PLANES, a - first), b, c), bool)
        for channel, value in zip(turned[:, planes], empty, strict=True):
            np.logical_or(
                stands_out, channel > value if rule == "body" else channel != value, out=stands_out
            )
        by_plane[planes] = [np.count_nonzero(plane) for plane in stands_out]
        # At most MASK_PLANES: no overflow.
        across += stands_out.view(np.uint8).sum(axis=0, dtype=np.uint8)
    counts = by_plane / (b * c), across.sum(axis=1) / (a * c), across.sum(axis=0) / (a * b)
    return [counts[order.index(axis)] for axis in range(3)]
