"""Resampling between axis-aligned grids, one axis at a time, as small matrix products.

Each axis has a weight matrix (n_out, n_in), so interpolation, anti-aliasing (the kernel is widened
by the downsampling factor), edges (replicated) and half-voxel shifts are all in ``axis_weights``
and are exact. The sampling theorem requires the widening: without it, downsampling turns fine
detail into false coarse detail (aliasing). The matrix is a narrow band, and ``Bands`` multiplies
only with the blocks along it. Volumes are processed in memory order, independent of the order of
their axes. All is computed with ndarrays or tensors (``arrays``): the ``kind`` that is asked
for, or that of the input. Shapes: x (..., n_in, ...) -> (..., n_out, ...). This module knows no
grids; ``prepare`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import arrays

if TYPE_CHECKING:
    from .arrays import Array

Kernel = Literal["cubic", "linear", "nearest", "spline"]
BLOCK = 64  # outputs per block of a band: enough for a matrix product at full speed
# Smaller weights are lost in float32. Spline weights never become exactly 0.
NEGLIGIBLE = 2.0**-30
# Input voxels converted to float32 at once: they stay in the cache until they are resampled.
BLOCK_VOXELS = 1_000_000
# Edge values before and after a row, so that the end of the spline coefficients has no effect (its
# influence falls to 0.27 to the 12th).
SPLINE_PAD = 12


def axis_weights(
    positions: NDArray[np.float64], n_in: int, kernel: Kernel = "cubic", shrink: float = 1.0
) -> NDArray[np.float32]:
    """(n_out, n_in) weights that sample a row of ``n_in`` values at ``positions``; every row sums
    to 1.

    Args:
        positions: (n_out,) fractional indices of the input; outside 0..n_in-1 the edge value is
            repeated.
        n_in: length of the input.
        kernel: "cubic" (Catmull-Rom, Keys 1981, a = -0.5), "linear", "nearest", or "spline"
            (interpolating cubic B-spline, Unser 1999).
        shrink: distance between neighbouring positions in input voxels; if it is above 1, the
            kernels "cubic" and "linear" are widened by it.
    """
    if kernel == "spline":
        return _spline_weights(positions, n_in)
    if kernel == "nearest":
        nearest = np.clip(np.floor(positions + 0.5), 0, n_in - 1).astype(int)
        out = np.zeros((len(positions), n_in), np.float32)
        out[np.arange(len(positions)), nearest] = 1
        return out
    # Distances from each position to all inputs within reach of the (widened) kernel.
    width = max(1.0, shrink)
    reach = int(np.ceil((2 if kernel == "cubic" else 1) * width))
    taps = np.floor(positions)[:, None].astype(int) + np.arange(-reach + 1, reach + 1)[None]
    weights = _kernel(np.abs(positions[:, None] - taps) / width, kernel)
    # Inputs beyond the edge add their weight to the edge value.
    out64 = np.zeros((len(positions), n_in))
    np.add.at(out64, (np.arange(len(positions))[:, None], np.clip(taps, 0, n_in - 1)), weights)
    return np.asarray(out64 / out64.sum(axis=1, keepdims=True), dtype=np.float32)


def _spline_weights(positions: NDArray[np.float64], n_in: int) -> NDArray[np.float32]:
    """(n_out, n_in) weights: repeat the edge values, solve for the B-spline coefficients, evaluate
    the spline at ``positions``.
    """
    # (padded, n_in) repeats the edge values; (padded, padded) maps coefficients to values.
    padded = n_in + 2 * SPLINE_PAD
    repeat = np.eye(n_in)[np.clip(np.arange(padded) - SPLINE_PAD, 0, n_in - 1)]
    knots = np.eye(padded) * 4 + np.eye(padded, k=1) + np.eye(padded, k=-1)
    knots[0, 1] = knots[-1, -2] = 2  # mirrored at the ends
    at = np.clip(positions + SPLINE_PAD, 0, padded - 1)
    distance = np.abs(at[:, None] - np.arange(padded)[None])
    # The factor 6 of the basis is in ``knots`` too and cancels.
    basis = np.where(
        distance < 1, 4 - 6 * distance**2 + 3 * distance**3, np.clip(2 - distance, 0, None) ** 3
    )
    return np.asarray(basis @ np.linalg.solve(knots, repeat), dtype=np.float32)


def _kernel(distance: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    if kernel == "linear":
        return np.asarray(np.maximum(0.0, 1.0 - distance), dtype=np.float64)
    # Keys' two polynomials with a = -0.5, for distances below 1 and from 1 to 2.
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.asarray(
        np.where(distance < 1, near, np.where(distance < 2, far, 0.0)), dtype=np.float64
    )


def scale_positions(n_in: int, n_out: int) -> NDArray[np.float64]:
    """(n_out,) positions of the centres of ``n_out`` voxels, as indices of ``n_in`` voxels over the
    same extent.
    """
    return np.asarray((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, dtype=np.float64)


@dataclass(frozen=True)
class Bands:
    """The weights of one axis, as a full matrix and as dense blocks along its diagonal.

    ``dense`` is (n_out, n_in) float32. ``blocks`` are (first output, first input, (m, k) weights),
    in order; together they contain all outputs.
    """

    dense: Any
    blocks: tuple[tuple[int, int, Any], ...]

    @classmethod
    def of(cls, weights: NDArray[np.float32], kind: arrays.Kind = "torch") -> Bands:
        """From (n_out, n_in) weights, without an empty row, as arrays of ``kind``."""
        blocks = []
        for start in range(0, len(weights), BLOCK):
            # The inputs that the rows of this block need.
            rows = weights[start : start + BLOCK]
            used = np.flatnonzero((np.abs(rows) > NEGLIGIBLE).any(axis=0))
            low, high = int(used[0]), int(used[-1]) + 1
            block = arrays.made(np.ascontiguousarray(rows[:, low:high]), kind)
            blocks.append((start, low, block))
        return cls(arrays.made(np.ascontiguousarray(weights), kind), tuple(blocks))

    def like(self, x: Array) -> Bands:
        """The same weights as arrays of the kind of ``x``, on its device; without blocks on a GPU,
        which does not use them.
        """
        if arrays.kind_of(x) == arrays.kind_of(self.dense) and arrays.on_cpu(x):
            return self
        dense = arrays.like(x, arrays.to_numpy(self.dense))
        blocks = self.blocks if arrays.on_cpu(x) else ()
        return Bands(dense, tuple((a, b, arrays.like(x, arrays.to_numpy(c))) for a, b, c in blocks))

    def touching(self, low: int, high: int) -> tuple[Bands, slice, slice]:
        """The blocks that read an input in low..high (at least one block must), with the ranges of
        their outputs and inputs.
        """
        # Outputs and inputs of the remaining blocks are counted from their first ones.
        mine = [b for b in self.blocks if b[1] < high and b[1] + b[2].shape[1] > low]
        first, stop = mine[0][0], mine[-1][0] + len(mine[-1][2])
        begin, end = min(b[1] for b in mine), max(b[1] + b[2].shape[1] for b in mine)
        moved = tuple((b[0] - first, b[1] - begin, b[2]) for b in mine)
        return (
            Bands(self.dense[first:stop, begin:end], moved),
            slice(first, stop),
            slice(begin, end),
        )


def scale_weights(
    n_in: int,
    n_out: int,
    kernel: Kernel = "cubic",
    backwards: bool = False,
    kind: arrays.Kind = "torch",
) -> Bands | None:
    """Weights that resample ``n_in`` voxels to ``n_out`` over the same extent, as arrays of
    ``kind``; None for equal lengths.

    With ``backwards``, the weights for a row whose values are in reverse order.
    """
    if n_in == n_out:
        return None
    weights = axis_weights(scale_positions(n_in, n_out), n_in, kernel, n_in / n_out)
    return Bands.of(weights[:, ::-1] if backwards else weights, kind)


def apply_axis(x: Any, weights: Bands | None, axis: int) -> Any:
    """Apply ``weights``, of the kind of ``x``, along ``axis`` of float32 ``x``; returns x itself if
    weights is None.
    """
    if weights is None:
        return x
    axis = axis % x.ndim
    n_out, n_in = weights.dense.shape
    rest = int(np.prod(x.shape[axis + 1 :]))
    # Blocks pay off only on a CPU, for several blocks, and for products that are not too thin.
    if not arrays.on_cpu(x) or len(weights.blocks) == 1 or 1 < rest < BLOCK:
        return _dense(x, weights.dense, axis)
    # Along the last axis rows are multiplied from the right, else planes from the left.
    if rest == 1:
        rows = x.reshape(-1, n_in)
        out = arrays.empty(x, (len(rows), n_out))
        for start, low, block in weights.blocks:
            made = out[:, start : start + len(block)]
            arrays.multiply(rows[:, low : low + block.shape[1]], block.T, made)
    else:
        planes = x.reshape(-1, n_in, rest)
        out = arrays.empty(x, (len(planes), n_out, rest))
        for plane, whole in zip(planes, out, strict=True):
            for start, low, block in weights.blocks:
                made = whole[start : start + len(block)]
                arrays.multiply(block, plane[low : low + block.shape[1]], made)
    return out.reshape(*x.shape[:axis], n_out, *x.shape[axis + 1 :])


def _dense(x: Any, weights: Any, axis: int) -> Any:
    if axis == x.ndim - 1:
        return x @ weights.T
    if axis == x.ndim - 2:
        return weights @ x
    # The axis comes first, the others are one.
    first = arrays.axis_moved(x, axis, 0)
    made = weights @ first.reshape(len(first), -1)
    return arrays.axis_moved(made.reshape(len(weights), *first.shape[1:]), 0, axis)


def resample_image(
    array: NDArray[Any],
    shape: tuple[int, int, int],
    kernels: tuple[Kernel, Kernel, Kernel],
    transform: Any = None,
    kind: arrays.Kind = "torch",
) -> Any:
    """Resample an (I, J, K) array to ``shape`` over the same extent.

    The volume is processed in blocks of planes, so that in addition to input and output only one
    partly resampled volume exists. Splines overshoot: their result is clipped to the lowest and
    highest value of the volume, or of the slice if one axis uses the nearest slice.

    Args:
        array: (I, J, K), any real dtype and memory order.
        shape: of the output.
        kernels: the kernel along each axis.
        transform: applied to each block before resampling (an array of ``kind`` to one such,
            elementwise, such as a normalisation).
        kind: of the result and of the arrays to compute with.

    Returns:
        float32 of ``shape``, with any strides.
    """
    # Process the axes from the slowest to the fastest in memory. Flipped axes (negative strides)
    # are read in memory order too, with reversed weights; splines use a copy instead.
    order = memory_order(array)
    turned = array.transpose(order)
    backwards = [stride < 0 for stride in turned.strides]
    if "spline" in kernels and any(backwards):
        turned, backwards = np.ascontiguousarray(turned), [False] * 3
    turned = turned[tuple(slice(None, None, -1) if back else slice(None) for back in backwards)]
    made = _in_memory_order(
        turned, [shape[a] for a in order], [kernels[a] for a in order], backwards, transform, kind
    )
    return arrays.transposed(made, [order.index(a) for a in range(3)])


def memory_order(array: NDArray[Any]) -> list[int]:
    """The axes of an array from the largest stride to the smallest."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))


def _in_memory_order(
    array: NDArray[Any],
    shape: list[int],
    kernels: list[Kernel],
    backwards: list[bool],
    transform: Any,
    kind: arrays.Kind,
) -> Any:
    """``resample_image`` of an array in memory order; axes marked in ``backwards`` are to be
    reversed.
    """
    w_a, w_b, w_c = (
        scale_weights(*each, kind)
        for each in zip(array.shape, shape, kernels, backwards, strict=True)
    )
    planes = max(1, BLOCK_VOXELS // max(1, array.shape[1] * array.shape[2]))
    partly = arrays.made(np.empty((array.shape[0], shape[1], shape[2]), np.float32), kind)
    thick = kernels.index("nearest") if "nearest" in kernels else None
    # Lowest and highest value of each block, or of each of its slices along ``thick``.
    ranges: list[tuple[Any, Any]] = []
    # Resample within the planes, block by block.
    for start in range(0, array.shape[0], planes):
        block = arrays.made(
            np.array(array[start : start + planes], dtype=np.float32, order="C"), kind
        )
        if transform is not None:
            block = transform(block)
        if "spline" in kernels:
            rest = tuple(a for a in range(3) if a != thick)
            ends = (arrays.lowest, arrays.highest)
            ranges.append(tuple(end(block, rest, keepdims=True) for end in ends))
        partly[start : start + planes] = apply_axis(apply_axis(block, w_c, 2), w_b, 1)
    # Then resample across the planes.
    partly = apply_axis(partly, w_a, 0)
    # Axes of unchanged length have no weights that could reverse them.
    not_reversed = [a for a in range(3) if backwards[a] and array.shape[a] == shape[a]]
    partly = arrays.flipped(partly, not_reversed) if not_reversed else partly
    return _clipped(partly, ranges, thick, array.shape) if "spline" in kernels else partly


def _clipped(
    out: Any, ranges: list[tuple[Any, Any]], thick: int | None, shape: tuple[int, ...]
) -> Any:
    """Clip ``out`` in place to the lowest and highest value in ``ranges``, or to those of the slice
    along ``thick`` from which each plane comes.
    """
    # Blocks divide the first axis: their ranges are joined if that is the thick axis, else merged.
    lows, highs = zip(*ranges, strict=True)
    low, high = (
        (arrays.concatenated(lows), arrays.concatenated(highs))
        if thick == 0
        else (arrays.lowest(arrays.stacked(lows), 0), arrays.highest(arrays.stacked(highs), 0))
    )
    # Each output plane takes the range of the slice that is nearest to it.
    if thick is not None and out.shape[thick] != shape[thick]:
        positions = scale_positions(shape[thick], out.shape[thick])
        nearest = axis_weights(positions, shape[thick], "nearest").argmax(1)
        low, high = (arrays.chosen(ends, nearest, thick) for ends in (low, high))
    arrays.clip(out, low, high)
    return out


def resample_labels(
    array: NDArray[Any], shape: tuple[int, int, int], kind: arrays.Kind = "torch"
) -> NDArray[Any]:
    """Resample (I, J, K) class indices to ``shape``: each voxel gets the class with the largest
    linear weight.

    Classes are compared one by one with a running maximum, each only inside its bounding box, so no
    one-hot volume is needed. The result has the dtype of ``array``; ``kind`` is that of the arrays
    to compute with.
    """
    if tuple(array.shape) == tuple(shape):
        return np.ascontiguousarray(array)
    out = np.zeros(shape, dtype=array.dtype)
    # The background starts as the best class, with the weight that the foreground leaves.
    best = 1.0 - _interpolated(array > 0, shape, [(0, n) for n in array.shape], kind)[0]
    target = arrays.made(out, kind)
    for value in np.unique(array):
        if value == 0:
            continue
        mask = array == value
        boxes = [_extent(mask, axis) for axis in range(3)]
        weight, region = _interpolated(mask, shape, boxes, kind)
        # On equal weights the smaller class keeps the voxel.
        here = best[region]
        wins = weight > here
        here[wins] = weight[wins]
        target[region][wins] = int(value)
    return out


def _extent(mask: NDArray[Any], axis: int) -> tuple[int, int]:
    """First and one-past-last index of ``mask`` along ``axis``, widened by one voxel on both
    sides.
    """
    hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return max(0, int(hit[0]) - 1), min(mask.shape[axis], int(hit[-1]) + 2)


def _interpolated(
    mask: NDArray[Any],
    shape: tuple[int, int, int],
    boxes: list[tuple[int, int]],
    kind: arrays.Kind,
) -> tuple[Any, tuple[slice, ...]]:
    """The linear weight of ``mask`` in the part of the output that its box reaches, and the slices
    of that part.
    """
    part = arrays.made(
        np.ascontiguousarray(mask[tuple(slice(a, b) for a, b in boxes)], dtype=np.float32), kind
    )
    region = []
    for axis, (start, stop) in enumerate(boxes):
        n_in, n_out = mask.shape[axis], shape[axis]
        positions = scale_positions(n_in, n_out)
        reach = max(1.0, n_in / n_out)
        # Outputs farther away than the kernel's reach get no weight from the box.
        hit = np.flatnonzero((positions > start - reach) & (positions < stop - 1 + reach))
        weights = axis_weights(positions[hit], n_in, "linear", n_in / n_out)[:, start:stop]
        part = apply_axis(part, Bands.of(weights, kind), axis)
        region.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return part, tuple(region)
