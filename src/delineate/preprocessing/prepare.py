"""prepare() and restore(): from a scan to the network's input, and from the network's output to the
grid of the scan.

    scan  --reorient-->  --crop-->  --normalise, resample-->  prepared grid       prepare()
    scan  <--reorient--  <--uncrop--  <--resample, argmax---  class scores        restore()

A sheared scan is first resampled to the orthogonal grid around it, and labels are brought back from
that grid (``shear``).
Both are in this module because ``restore`` must undo exactly what ``prepare`` did, which is stored
in a ``PreprocessingRecord``. ``restore`` receives class scores in slabs, in order along one axis,
and keeps one slab and one label volume, so its memory does not depend on the number of classes.
Shapes: image (C, I, J, K); slabs (L, d, A, B), where the marching axis follows the classes. This
module knows plans and grids, but no files and no networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, InputError
from ..core.grid import ANISOTROPY, AxisMap, Grid
from ..core.plan import Plan
from ..core.prediction import PROBABILITY_ONE
from ..core.volume import (
    BODY_HU,
    Volume,
    background_of,
    with_finite_voxels,
    without_padding,
)
from . import arrays, shear
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

# Output voxels of one class that restore() processes at once; each copy of them has 10 MB.
CHUNK_VOXELS = 2_400_000
# Output voxels times classes from which the compiled comparison is used.
CELLS_FROM = 500_000_000
TIE = 1e-6  # scores closer than this are equal: the class that comes first wins, despite rounding
MASK_PLANES = 16  # planes that are searched for the crop at once

if TYPE_CHECKING:
    from torch import Tensor

    from .arrays import Array

# Weights along the two axes of a plane; None for an axis that is not resampled.
InPlane = Sequence[Bands | None]
Planes = TypeVar("Planes")


@dataclass(frozen=True)
class PreprocessingRecord:
    """The steps of ``prepare``, with all that is needed to undo them.

    ``source`` is the grid of the scan. ``axes`` moved the arrays on ``source.orthogonal()`` to the
    grid ``oriented``; the box ``start``..``stop`` of that grid was kept and resampled to the grid
    ``prepared``. ``nearest`` is the axis of thick slices, if any, along which ``restore`` uses the
    nearest slice.
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
        """The shape of the box that was kept."""
        a, b, c = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return a, b, c


def prepare(
    volume: Volume, plan: Plan, present: Sequence[int] | None = None
) -> tuple[Tensor, PreprocessingRecord]:
    """As ``prepare_array``, with the scan as a tensor, computed by torch."""
    return _prepared(volume, plan, present, "torch")


def prepare_array(
    volume: Volume, plan: Plan, present: Sequence[int] | None = None
) -> tuple[NDArray[np.float32], PreprocessingRecord]:
    """Preprocess a scan: reorient, crop, normalise and resample it. Voxels that are NaN or infinite
    count as background (``core.volume.with_finite_voxels``), and so does padding
    (``without_padding``). A sheared scan is first resampled to
    an orthogonal grid, once (``shear.image_on``).

    Args:
        volume: any orientation; (I, J, K) or (C, I, J, K) with the plan's number of channels.
        present: indices of the plan's channels that the volume has, in the order of the volume;
            None means all. The others become 0, as with ``drop_channel_p`` in training.

    Returns:
        (C, I, J, K) float32 on ``record.prepared``, with all channels of the plan, and the record.

    Raises:
        InputError: the number of channels differs from the plan, or from ``present``; the scan is
            not in the unit of the plan's only channel, or too large at the plan's spacing.
    """
    return _prepared(volume, plan, present, "numpy")


def _prepared(
    volume: Volume, plan: Plan, present: Sequence[int] | None, kind: arrays.Kind
) -> tuple[Any, PreprocessingRecord]:
    """As ``prepare_array``, as an array of ``kind``."""
    here = range(len(plan.channels)) if present is None else present
    if volume.channels != len(here):
        names = ", ".join(plan.channels[n].name for n in here)
        raise InputError(
            f"found {volume.channels} channel(s), the plan needs {len(here)} ({names})",
            path=volume.source or None,
        )
    # Arrays and many files state no unit, and of several channels only the first one's is known.
    if [plan.channels[n].unit for n in here] == ["suv"] and volume.unit not in ("SUV", "a.u."):
        raise InputError(
            f"is in {volume.unit}, the model needs SUV by body weight", path=volume.source or None
        )
    # Geometry first, then the voxels of the kept box.
    channels = _channels(volume)
    record = _record(volume, channels, plan)
    kernels = kernels_for(record, plan.resampling)
    shape = (len(plan.channels), *record.prepared.shape)
    out = arrays.made((np.empty if present is None else np.zeros)(shape, np.float32), kind)
    # Channel by channel, so that only one channel at a time is partly resampled.
    for index, channel in zip(here, channels, strict=True):
        box = _boxed(record.axes.apply(channel), record)
        out[index] = resample_image(
            box,
            record.prepared.shape,
            kernels,
            transform=measure(box, plan.channels[index].normalise),
            kind=kind,
        )
    return out, record


def prepare_label(
    label: Volume,
    record: PreprocessingRecord,
    table: dict[int, int],
    kind: arrays.Kind = "torch",
) -> NDArray[Any]:
    """The reference segmentation on the prepared grid, as class indices.

    Args:
        label: (I, J, K) values on the grid of the scan.
        record: of the scan, from ``prepare``.
        table: value -> class index (``LabelSet.compact``).
        kind: of the arrays to compute with.

    Returns:
        (I, J, K) uint8 or uint16.

    Raises:
        GeometryError: the label volume is not on the grid of the scan.
    """
    if not label.grid.matches(record.source):
        raise GeometryError(
            "the label volume is not on the grid of the scan: "
            f"{label.grid.distance_mm(record.source):.2f} mm away",
            path=label.source or None,
        )
    # A table from label value to class index; undeclared values become background.
    lookup = np.zeros(
        max([*table, int(label.array.max(initial=0))]) + 1,
        dtype=np.uint8 if len(table) < 256 else np.uint16,
    )
    for value, index in table.items():
        lookup[value] = index
    values = shear.labels_on(label.array, record.source, record.source.orthogonal())
    classes = lookup[_boxed(record.axes.apply(values), record)]
    return resample_labels(classes, record.prepared.shape, kind)


def trace(volume: Volume, plan: Plan) -> PreprocessingRecord:
    """The record of preprocessing ``volume``; reads voxels only to find the crop.

    Raises:
        InputError: the scan would have more than 2**31 voxels at the plan's spacing.
    """
    return _record(volume, _channels(volume), plan)


def _channels(volume: Volume) -> list[NDArray[Any]]:
    """The channels (I, J, K) with finite voxels, on the orthogonal grid of the volume."""
    target = volume.grid.orthogonal()
    return [
        shear.image_on(with_finite_voxels(channel), volume.grid, target)
        for channel in without_padding(volume).channels_array
    ]


def _record(volume: Volume, channels: Sequence[NDArray[Any]], plan: Plan) -> PreprocessingRecord:
    """As ``trace``; ``channels`` are those of ``_channels``."""
    # Orientation, crop and spacing, in this order: the spacing is that of the oriented axes.
    oriented, axes = volume.grid.orthogonal().reorient(plan.orientation)
    start, stop = _crop_box([axes.apply(channel) for channel in channels], plan.crop)
    kept = oriented.crop(start, stop)
    spacing = [
        own if planned is None else planned
        for own, planned in zip(kept.spacing_mm, plan.spacing_mm, strict=True)
    ]
    prepared = kept.respace(spacing)
    if np.prod(prepared.shape) > 2**31:
        raise InputError(
            f"would have the shape {prepared.shape} at the plan's spacing; the scan has "
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
    """The kernel of each axis: cubic, or linear along axes much coarser than the finest.

    With "spline": splines, and the nearest slice along a thick axis. As in nnU-Net, slices count as
    thick if they are thick before resampling or, if those are isotropic, after it, and along one
    axis only.
    """
    spacing = record.oriented.spacing_mm
    if resampling == "spline":
        thick = thick_axis(spacing, record.prepared.spacing_mm)
        i, j, k = ("nearest" if n == thick else "spline" for n in range(3))
        return i, j, k  # type: ignore[return-value]
    a, b, c = ("linear" if s > ANISOTROPY * min(spacing) else "cubic" for s in spacing)
    return a, b, c  # type: ignore[return-value]


def thick_axis(*spacings: tuple[float, float, float]) -> int | None:
    """The axis along which the first anisotropic one of ``spacings`` is much coarser.

    None if all are isotropic, or if the largest spacing is that of several axes.
    """
    for step in spacings:
        if max(step) > ANISOTROPY * min(step):
            return step.index(max(step)) if step.count(max(step)) == 1 else None
    return None


def restore(
    slabs: Iterable[Array],
    record: PreprocessingRecord,
    axis: int,
    values: NDArray[Any],
    above: float | None = None,
    sum_to_one: bool = False,
    probabilities: NDArray[np.uint16] | None = None,
) -> NDArray[Any]:
    """Convert class scores on the prepared grid to label values on the grid of the scan, slab by
    slab.

    Args:
        slabs: (L, d, A, B) scores (probabilities or logits, any float dtype, any device), in order
            along prepared axis ``axis``; the depths d add up to the length of that axis. A and B
            are the other two axes in their order.
        record: from ``prepare``.
        axis: 0, 1 or 2, the marching axis.
        values: (L,) label value of each class; values[0] is the background, 0.
        above: threshold for classes that may overlap and have no background class. Then bit n of a
            voxel is set if the score of class n is above it, and ``values`` gives only the dtype.
        sum_to_one: the scores of a voxel are probabilities that add up to 1. Then a class is
            evaluated only where it could win, which changes only the time.
        probabilities: (L, I, J, K) on ``record.source``, filled with the probabilities of the
            classes in steps of 1 / ``PROBABILITY_ONE``; outside the kept box all is background.
            Logits are converted at each voxel. Not for classes that may overlap.

    Returns:
        (I, J, K) of ``values.dtype`` on ``record.source``, in Fortran order, like most scans; 0
        outside the kept box.

    Raises:
        ValueError: the slabs end before the last plane.
    """
    grid = record.source.orthogonal()
    if grid == record.source:
        return _restore(slabs, record, axis, values, above, sum_to_one, probabilities)
    # The scan is sheared: fill its orthogonal grid, then bring labels and probabilities back.
    shares = (
        None if probabilities is None else np.empty((len(probabilities), *grid.shape), np.uint16)
    )
    labels = _restore(slabs, record, axis, values, above, sum_to_one, shares)
    if probabilities is not None and shares is not None:
        for index, (one, share) in enumerate(zip(probabilities, shares, strict=True)):
            outside = 0 if index else PROBABILITY_ONE
            one[:] = np.rint(shear.image_on(share, grid, record.source, order=1, outside=outside))
    return shear.labels_on(labels, grid, record.source)


def _restore(
    slabs: Iterable[Array],
    record: PreprocessingRecord,
    axis: int,
    values: NDArray[Any],
    above: float | None,
    sum_to_one: bool,
    probabilities: NDArray[np.uint16] | None,
) -> NDArray[Any]:
    """As ``restore``, on the orthogonal grid of the scan."""
    out = np.zeros(record.source.orthogonal().shape, dtype=values.dtype, order="F")
    # A view with the marching axis first: writing to it fills the volume.
    box = np.moveaxis(_boxed(record.axes.apply(out), record), axis, 0)
    same_values = above is not None or np.array_equal(values, np.arange(len(values)))
    # Outside the kept box all is background.
    if probabilities is not None:
        probabilities[:] = 0
        probabilities[0] = PROBABILITY_ONE
        shares = np.moveaxis(_boxed(record.axes.apply(probabilities), record), 1 + axis, 1)

    # Many classes on a CPU are compared cell by cell. The code for that is compiled, and loading it
    # pays off for large scans only.
    by_cells = above is None and (len(values) - 1) * box.size >= CELLS_FROM

    def planes(near: list[Array], along: Bands, in_plane: InPlane) -> tuple[Any, Any | None]:
        if above is not None:
            winner = _codes_above(near, along, in_plane, above)
        elif by_cells and arrays.on_cpu(near[0]):
            winner = _largest_by_cells(near, along, in_plane)
        else:
            winner = _largest(near, along, in_plane, sum_to_one)
        return winner, None if probabilities is None else _shares(
            near, along, in_plane, logits=not sum_to_one
        )

    for start, (winners, share) in _by_plane(slabs, record, axis, planes):
        found = arrays.to_numpy(winners)
        box[start : start + len(found)] = found if same_values else values[found]
        if share is not None:
            shares[:, start : start + len(found)] = arrays.to_numpy(share)
    return out


def restore_maps(
    slabs: Iterable[Array], record: PreprocessingRecord, axis: int, count: int
) -> NDArray[np.float32]:
    """Interpolate ``count`` maps on the prepared grid to the grid of the scan, slab by slab.

    Args:
        slabs: (count, d, A, B), in order along prepared axis ``axis``, as for ``restore``.

    Returns:
        (count, I, J, K) on ``record.source``; 0 outside the kept box.
    """
    grid = record.source.orthogonal()
    out = np.zeros((count, *grid.shape), np.float32)
    box = np.moveaxis(_boxed(record.axes.apply(out), record), 1 + axis, 1)

    def planes(near: list[Array], along: Bands, in_plane: InPlane) -> Any:
        joined = (_joined([part[index] for part in near]) for index in range(count))
        return arrays.stacked([_interpolated(one, along, *in_plane) for one in joined])

    for start, found in _by_plane(slabs, record, axis, planes):
        box[:, start : start + found.shape[1]] = arrays.to_numpy(found)
    if grid == record.source:
        return out
    on = [shear.image_on(one, grid, record.source, order=1, outside=0.0) for one in out]
    return np.stack(on)


def _by_plane(
    slabs: Iterable[Array],
    record: PreprocessingRecord,
    axis: int,
    planes: Callable[[list[Array], Bands, InPlane], Planes],
) -> Iterator[tuple[int, Planes]]:
    """For consecutive planes of the kept box: the index of the first plane, and the result of
    ``planes`` for the prepared planes around them.

    Only the current slab, and the few planes of earlier slabs that it still needs, are in memory.
    """
    # The position of each output plane among the prepared planes, and the weights in a plane.
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
    done, first = 0, 0  # output planes that are done; prepared index of the first available plane
    # The available planes: the rest of earlier slabs, and the current slab. They are never joined,
    # which would copy the slab.
    parts: list[Array] = []
    for slab in slabs:
        parts.append(slab)
        last = first + sum(part.shape[1] for part in parts) - 1
        final = last == prepared[0] - 1
        # Output planes that need no prepared plane beyond ``last``.
        ready = source[0] if final else int(np.searchsorted(positions, last, side="right"))
        step = max(1, CHUNK_VOXELS // (source[1] * source[2]))
        for begin in range(done, ready, step):
            # The prepared planes around this chunk, and its weights along the marching axis.
            here = positions[begin : min(begin + step, ready)] - first
            low, high = int(np.floor(here[0])), min(last - first + 1, int(np.floor(here[-1])) + 2)
            along = Bands.of(axis_weights(here - low, high - low, "linear"), "numpy")
            near = list(_between(parts, low, high))
            result = planes(near, along, in_plane)
            del near  # views: the slab must be freed before the next one is computed
            yield begin, result
            del result
        # Keep only the planes that the next output plane needs.
        done = max(done, ready)
        keep_from = last if done >= source[0] else min(last, int(np.floor(positions[done])))
        # A copy, so that the memory of the slab is freed.
        rest = list(_between(parts, keep_from - first, last + 1 - first))
        parts = [arrays.concatenated(rest, 1)]
        del rest
        first = keep_from
        del slab
    if done < source[0]:
        raise ValueError(f"slabs ended at plane {done} of {source[0]}")


def _joined(parts: Sequence[Any]) -> Any:
    """(d, A, B) float32: consecutive planes of one class."""
    return arrays.float32(arrays.concatenated(parts))


def _between(parts: list[Array], low: int, high: int) -> Iterator[Array]:
    """The planes low..high of consecutive ``parts``, counted from the first plane of the first
    part, as one view per part.
    """
    offset = 0
    for part in parts:
        a, b = max(low - offset, 0), min(high - offset, part.shape[1])
        if b > a:
            yield part[:, a:b]
        offset += part.shape[1]


def _shares(near: list[Array], along: Bands, in_plane: InPlane, logits: bool) -> Any:
    """(L, d', A', B') uint16 probabilities in steps of 1 / ``PROBABILITY_ONE``."""
    each = arrays.stacked(
        [
            _interpolated(_joined([part[index] for part in near]), along, *in_plane)
            for index in range(near[0].shape[0])
        ]
    )
    if logits:
        each = arrays.softmax(each, 0)
    else:
        arrays.clip(each, 0, None)
        each /= each.sum(0)[None]
    each *= PROBABILITY_ONE
    return arrays.cast(arrays.cast(arrays.rounded(each), "int32"), "uint16")


def _largest(near: list[Array], along: Bands, in_plane: InPlane, sum_to_one: bool) -> Any:
    """(d', A', B') class with the largest score, found class by class with a running maximum.

    The background score is subtracted from all others, so that it need not be interpolated. With
    ``sum_to_one``, the largest of L probabilities is at least 1 / L, and interpolated values never
    exceed the values around them. So a class is evaluated only in the box where it reaches half of
    1 / L.
    """
    classes = near[0].shape[0]
    size = [near[0].shape[n + 2] if w is None else len(w.dense) for n, w in enumerate(in_plane)]
    # The background has score 0 after subtraction, so the maximum starts there.
    best = arrays.zeros(near[0], (len(along.dense), *size))
    winner = arrays.zeros(near[0], best.shape, "uint8" if classes <= 256 else "int16")
    background = _joined([part[0] for part in near])
    boxes = _boxes(near, 0.5 / classes) if sum_to_one else None
    for index in range(1, classes):
        if boxes is not None and boxes[index] is None:
            continue
        # Restrict weights, outputs and inputs to the box of this class.
        (w_a, out_a, in_a), (w_b, out_b, in_b) = (
            _touching(w, None if boxes is None else boxes[index][n])  # type: ignore[index]
            for n, w in enumerate(in_plane)
        )
        # Lower each class by a small amount, so that on equal scores the first class wins.
        planes = _joined([part[index, :, in_a, in_b] for part in near])
        planes = planes - background[:, in_a, in_b]
        planes -= index * TIE
        # Interpolate, and compare with the best score so far in the box.
        score, top = _interpolated(planes, along, w_a, w_b), best[:, out_a, out_b]
        wins, so_far = arrays.counts(score > top, winner), winner[:, out_a, out_b]
        # Later classes have larger numbers, so a maximum sets the winners; this is several times
        # faster than a masked fill.
        wins *= index
        arrays.keep_larger(so_far, wins)
        arrays.keep_larger(top, score)
    return winner


def _largest_by_cells(near: list[Array], along: Bands, in_plane: InPlane) -> Any:
    """As ``_largest``, for scores of any kind on a CPU."""
    from .cells import largest  # loads the compiler

    return largest(near, [None if w is None else w.dense for w in (along, *in_plane)], TIE)


def _codes_above(near: list[Array], along: Bands, in_plane: InPlane, above: float) -> Any:
    """(d', A', B') int32 with bit n set where the score of class n is above ``above``."""
    codes = None
    for index in range(near[0].shape[0]):
        score = _interpolated(_joined([part[index] for part in near]), along, *in_plane)
        bit = arrays.cast(score > above, "int32") << index
        codes = bit if codes is None else codes | bit
    assert codes is not None
    return codes


def _interpolated(planes: Array, along: Bands, w_a: Bands | None, w_b: Bands | None) -> Any:
    """(d, A, B) to (d', A', B'); along the marching axis first if that leaves fewer planes."""
    along, w_a, w_b = (  # type: ignore[assignment]
        None if w is None else w.like(planes) for w in (along, w_a, w_b)
    )
    # Both orders give the same result up to rounding; the first axis should leave fewer planes.
    if len(along.dense) < len(planes):
        return apply_axis(apply_axis(apply_axis(planes, along, 0), w_b, 2), w_a, 1)
    return apply_axis(apply_axis(apply_axis(planes, w_b, 2), w_a, 1), along, 0)


def _boxes(near: list[Array], floor: float) -> list[tuple[tuple[int, int], tuple[int, int]] | None]:
    """For each class, the box in the plane (low and high along A and B) around all scores above
    ``floor``; None if there are none.
    """
    # The largest score of each column along the marching axis, then of each row and column.
    peaks = arrays.stacked([arrays.highest(part, 1) for part in near])
    peak = arrays.highest(peaks, 0) > floor  # (L, A, B)
    hits = [arrays.to_numpy(peak.any(axis)) for axis in (2, 1)]
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
    """The weights, outputs and inputs that are affected by the inputs in ``span``; all of them if
    it is None.
    """
    if span is None:
        return weights, slice(None), slice(None)
    return (None, slice(*span), slice(*span)) if weights is None else weights.touching(*span)


def _interpolation(n_in: int, n_out: int, kernel: Kernel) -> Bands | None:
    """Weights without widening, because scores are smooth and a label belongs to a point."""
    return (
        None
        if n_in == n_out
        else Bands.of(axis_weights(scale_positions(n_in, n_out), n_in, kernel), "numpy")
    )


def _axis_first(shape: tuple[int, int, int], axis: int) -> tuple[int, ...]:
    return (shape[axis], *(n for a, n in enumerate(shape) if a != axis))


def _boxed(array: NDArray[Any], record: PreprocessingRecord) -> NDArray[Any]:
    i, j, k = (slice(a, b) for a, b in zip(record.start, record.stop, strict=True))
    return array[..., i, j, k]


def _crop_box(
    channels: Sequence[NDArray[Any]], rule: str
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The box of the channels (I, J, K) that is kept; the whole array if there is no foreground."""
    shape = channels[0].shape
    whole = (0, 0, 0), (shape[0], shape[1], shape[2])
    if rule == "none":
        return whole
    start, stop = [0, 0, 0], list(shape)
    share = 0.01 if rule == "body" else 0.0  # ignores planes with only a table or a cable
    margin = 0 if rule == "not_zero" else 2
    # Along each axis: from the first to the last plane with foreground, with a margin.
    for axis, filled in enumerate(_filled(channels, rule)):
        hit = np.flatnonzero(filled > share)
        if not len(hit):
            return whole
        start[axis], stop[axis] = (
            max(0, int(hit[0]) - margin),
            min(shape[axis], int(hit[-1]) + 1 + margin),
        )
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _filled(channels: Sequence[NDArray[Any]], rule: str) -> list[NDArray[np.float64]]:
    """For each axis, the fraction of foreground voxels in each plane.

    Foreground is what differs from the background, by ``rule``, in any used channel. A few planes
    are processed at a time, in memory order.
    """
    # The body is searched in the first channel (CT); the background value differs by channel.
    used = channels[:1] if rule == "body" else channels
    empty = [
        BODY_HU if rule == "body" else background_of(channel) if rule == "nonzero" else 0.0
        for channel in used
    ]
    # Count per plane along the slowest axis, and per line along it for the other two axes.
    order = memory_order(channels[0])
    turned = [channel.transpose(order) for channel in used]
    a, b, c = turned[0].shape
    by_plane, across = np.zeros(a), np.zeros((b, c), np.int64)
    for first in range(0, a, MASK_PLANES):
        planes = slice(first, first + MASK_PLANES)
        foreground = np.zeros((min(MASK_PLANES, a - first), b, c), bool)
        for channel, value in zip(turned, empty, strict=True):
            part = channel[planes]
            np.logical_or(
                foreground, part > value if rule == "body" else part != value, out=foreground
            )
        by_plane[planes] = [np.count_nonzero(plane) for plane in foreground]
        # The sum is at most MASK_PLANES, so uint8 does not overflow.
        across += foreground.view(np.uint8).sum(axis=0, dtype=np.uint8)
    # Fractions along the axes in memory order, then in the order of the array.
    counts = by_plane / (b * c), across.sum(axis=1) / (a * c), across.sum(axis=0) / (a * b)
    return [counts[order.index(axis)] for axis in range(3)]
