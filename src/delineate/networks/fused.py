"""Instance norm and leaky ReLU in one operation on a CPU, forward and backward, on channels-last
memory.

As separate operations the two read or write a tensor thirteen times in a training step, together
eight times. Tensors with few channels are as fast as those with many. The loops are compiled on
first use and kept in numba's cache. They run on the threads of torch's own OpenMP library: a second
thread pool would compete with it for the cores, because its threads spin for milliseconds after
each operation. If that library is not found, ``fits`` returns False.

Shapes: x (B, C, *size) whose memory is (B, V, C), V voxels. Values are float32, or bfloat16 viewed
as uint16; all sums end in float64. The loops process rows of at least ``ROW`` values, always whole
voxels, so that the inner loops are long for any C. It knows no network.

The table (B, 6, C) holds the coefficients of each sample and channel, by row:

    0, 1   factor and addend from x to the norm's output:  z = x * factor + addend
    2, 3   factor and addend from x to the normalised x
    4, 5   factor and constant in the backward pass:  dx = dz * table[0] + x * table[4] + table[5]
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from torch import Tensor

ROW = 512
BLOCK = 64  # rows summed in float32 before they are added to the float64 sums
LEAST = 1 << 15  # values from which several threads are faster than one
SUM_FORWARD, WRITE_FORWARD, SUM_BACKWARD, WRITE_BACKWARD = range(4)  # the loops' numbers
DTYPES = (torch.float32, torch.bfloat16)


def fits(x: Tensor) -> bool:
    """Whether ``norm_act`` supports ``x``: on a CPU, float32 or bfloat16, channels-last."""
    return (
        x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.movedim(1, -1).is_contiguous()
        and _openmp() is not None
    )


def norm_act(x: Tensor, weight: Tensor, bias: Tensor, slope: float, epsilon: float) -> Tensor:
    """``leaky_relu(instance_norm(x) * weight + bias, slope)``; slope 1 is no activation, 0 is ReLU.

    Args:
        x: (B, C, *size) for which ``fits`` is true.
        weight: (C,) float32.
        bias: (C,) float32.

    Returns:
        (B, C, *size) in the dtype and memory order of ``x``.
    """
    apply: Any = _NormAct.apply
    result: Tensor = apply(x, weight, bias, slope, epsilon)
    return result


class _NormAct(torch.autograd.Function):
    """Each pass runs two loops: one sums over the voxels, one writes the result.

    Between them the sums become the table of coefficients.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, slope: float, epsilon: float
    ) -> Tensor:
        # Sum over the voxels, turn the sums into coefficients, then write y.
        threads = _threads(x)
        sums = np.zeros((threads, x.shape[0], 2, x.shape[1]))
        _run(SUM_FORWARD, threads, x, x, x, sums, sums, slope)
        table = _forward_table(
            sums,
            _shift(x),
            x[0, 0].numel(),
            weight.detach().numpy(),
            bias.detach().numpy(),
            epsilon,
        )
        y = torch.empty_like(x)
        _run(WRITE_FORWARD, threads, x, x, y, table, sums, slope)
        ctx.save_for_backward(x, weight, torch.from_numpy(table))
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, kept = ctx.saved_tensors
        # The loops need dy in the dtype and memory order of x.
        dy = gradients[0].to(x.dtype).contiguous(memory_format=_memory_format(x))
        threads, table = _threads(x), kept.numpy()
        sums = np.zeros((threads, x.shape[0], 2, x.shape[1]))
        _run(SUM_BACKWARD, threads, x, dy, x, table, sums, ctx.slope)
        table, d_weight, d_bias = _backward_table(table, sums, x[0, 0].numel())
        dx = torch.empty_like(x)
        _run(WRITE_BACKWARD, threads, x, dy, dx, table, sums, ctx.slope)
        return (
            dx,
            torch.from_numpy(d_weight).to(weight.dtype),
            torch.from_numpy(d_bias).to(weight.dtype),
            None,
            None,
        )


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


def _threads(x: Tensor) -> int:
    return torch.get_num_threads() if x.numel() >= LEAST else 1


def _shift(x: Tensor) -> Any:
    """(B, C) the first voxel of each sample. Summing differences from it loses no digits if the
    mean is far from 0.
    """
    return x.detach().movedim(1, -1).flatten(1, -2)[:, 0].float().numpy()


@njit(cache=True)
def _forward_table(sums, shift, voxels, weight, bias, epsilon):  # type: ignore[no-untyped-def]
    """The table (B, 6, C) float32 from ``_sum_forward``'s sums (T, B, 2, C) of T threads; rows 0 to
    3 are filled.
    """
    _, samples, _, channels = sums.shape
    table = np.empty((samples, 6, channels), np.float32)
    for b in range(samples):
        for c in range(channels):
            # Add up the threads' sums.
            total, squares = 0.0, 0.0
            for t in range(sums.shape[0]):
                total += sums[t, b, 0, c]
                squares += sums[t, b, 1, c]
            # Mean and variance, both from differences to ``shift``.
            difference = total / voxels
            inverse = 1 / np.sqrt(max(squares / voxels - difference * difference, 0.0) + epsilon)
            mean = shift[b, c] + difference
            table[b, 0, c] = weight[c] * inverse
            table[b, 1, c] = bias[c] - mean * weight[c] * inverse
            table[b, 2, c] = inverse
            table[b, 3, c] = -mean * inverse
    return table


@njit(cache=True)
def _backward_table(table, sums, voxels):  # type: ignore[no-untyped-def]
    """(The table with rows 4 and 5, the gradient of weight (C,), that of bias (C,)) from
    ``_sum_backward``'s sums (T, B, 2, C).
    """
    _, samples, _, channels = sums.shape
    d_weight, d_bias = np.zeros(channels), np.zeros(channels)
    full = table.copy()
    for b in range(samples):
        for c in range(channels):
            # Add up the threads' sums.
            total, along = 0.0, 0.0
            for t in range(sums.shape[0]):
                total += sums[t, b, 0, c]
                along += sums[t, b, 1, c]
            d_weight[c] += along
            d_bias[c] += total
            # x also changes the mean and the variance, which adds two terms to dx.
            factor = float(table[b, 0, c]) / voxels
            full[b, 4, c] = -factor * along * table[b, 2, c]
            full[b, 5, c] = -factor * (total + along * table[b, 3, c])
    return full, d_weight, d_bias


# ---- the loops, each over one thread's part of the voxels ----


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """An integer address as a pointer."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), codegen


@njit
def _read(values, bits, row):  # type: ignore[no-untyped-def]
    """Copy ``values`` to ``row`` as float32; ``bits`` is the memory of ``row`` as uint32."""
    if values.itemsize == 4:
        for i in range(values.size):
            row[i] = values[i]
    else:
        # bfloat16 is the upper half of a float32.
        for i in range(values.size):
            bits[i] = np.uint32(values[i]) << np.uint32(16)


@njit
def _write(values, bits, row):  # type: ignore[no-untyped-def]
    """Copy ``row`` to ``values``, the reverse of ``_read``. bfloat16 is rounded to nearest, ties to
    even.
    """
    if values.itemsize == 4:
        for i in range(values.size):
            values[i] = row[i]
    else:
        for i in range(values.size):
            u = bits[i]
            values[i] = np.uint16(
                (u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            )


@njit
def _row_length(channels):  # type: ignore[no-untyped-def]
    """Number of values in a row: whole voxels, at least ``ROW``."""
    return channels * max(1, (ROW + channels - 1) // channels)


@njit
def _repeat(table, b, n, row):  # type: ignore[no-untyped-def]
    """Fill ``row`` with row n of the table, repeated for every voxel."""
    channels = table.shape[2]
    for i in range(row.size):
        row[i] = table[b, n, i % channels]


@njit
def _flush(row, sums):  # type: ignore[no-untyped-def]
    """Add a row of float32 sums to the float64 sums (C,) of its channels, and set it to 0."""
    channels = sums.size
    for i in range(row.size):
        sums[i % channels] += row[i]
        row[i] = 0


@njit(inline="always")
def _before_activation(gradient, x, factor, addend, slope):  # type: ignore[no-untyped-def]
    """The gradient before the leaky ReLU: times ``slope`` if its input was not above 0."""
    return gradient if x * factor + addend > 0 else gradient * slope


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _sum_forward(x, sums, begin, end):  # type: ignore[no-untyped-def]
    """Add to ``sums`` (B, 2, C) the differences from the sample's first voxel, and their squares,
    over voxels begin..end.
    """
    channels = sums.shape[2]
    length = _row_length(channels)
    bits, first = np.empty(length, np.uint32), np.empty(length, np.uint32)
    row, shift = bits.view(np.float32), first.view(np.float32)
    total, squares = np.zeros(length, np.float32), np.zeros(length, np.float32)
    for b in range(x.shape[0]):
        # Repeat the first voxel over a row, as the shift.
        for n in range(length // channels):
            _read(x[b, :channels], first[n * channels :], shift[n * channels :])
        at, stop, done = begin * channels, end * channels, 0
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            for i in range(count):
                difference = row[i] - shift[i]
                total[i] += difference
                squares[i] += difference * difference
            at, done = at + count, done + 1
            # Move short float32 sums to float64 before they lose digits.
            if done % BLOCK == 0 or at >= stop:
                _flush(total, sums[b, 0])
                _flush(squares, sums[b, 1])


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _write_forward(x, y, table, slope, begin, end):  # type: ignore[no-untyped-def]
    """Write y, normalised and activated, for voxels begin..end."""
    channels = table.shape[2]
    length, flat_slope = _row_length(channels), np.float32(slope)
    bits = np.empty(length, np.uint32)
    row, factor, addend = (
        bits.view(np.float32),
        np.empty(length, np.float32),
        np.empty(length, np.float32),
    )
    for b in range(x.shape[0]):
        _repeat(table, b, 0, factor)
        _repeat(table, b, 1, addend)
        at, stop = begin * channels, end * channels
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            for i in range(count):
                z = row[i] * factor[i] + addend[i]
                row[i] = z if z > 0 else z * flat_slope
            _write(y[b, at : at + count], bits, row)
            at += count


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _sum_backward(x, dy, table, sums, slope, begin, end):  # type: ignore[no-untyped-def]
    """Add to ``sums`` (B, 2, C) the gradient before the activation, and that times the normalised
    x, over voxels begin..end.
    """
    channels = table.shape[2]
    length, flat_slope = _row_length(channels), np.float32(slope)
    bits, other_bits = np.empty(length, np.uint32), np.empty(length, np.uint32)
    row, gradient = bits.view(np.float32), other_bits.view(np.float32)
    lines = np.empty((4, length), np.float32)
    factor, addend, inverse, offset = lines[0], lines[1], lines[2], lines[3]
    total, along = np.zeros(length, np.float32), np.zeros(length, np.float32)
    for b in range(x.shape[0]):
        for n in range(4):
            _repeat(table, b, n, lines[n])
        at, stop, done = begin * channels, end * channels, 0
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            _read(dy[b, at : at + count], other_bits, gradient)
            for i in range(count):
                g = _before_activation(gradient[i], row[i], factor[i], addend[i], flat_slope)
                total[i] += g
                along[i] += g * (row[i] * inverse[i] + offset[i])
            at, done = at + count, done + 1
            if done % BLOCK == 0 or at >= stop:
                _flush(total, sums[b, 0])
                _flush(along, sums[b, 1])


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _write_backward(x, dy, dx, table, slope, begin, end):  # type: ignore[no-untyped-def]
    """Write dx, the gradient of the input, for voxels begin..end."""
    channels = table.shape[2]
    length, flat_slope = _row_length(channels), np.float32(slope)
    bits, other_bits = np.empty(length, np.uint32), np.empty(length, np.uint32)
    row, gradient = bits.view(np.float32), other_bits.view(np.float32)
    lines = np.empty((4, length), np.float32)
    factor, addend, along, constant = lines[0], lines[1], lines[2], lines[3]
    for b in range(x.shape[0]):
        for n, line in enumerate((0, 1, 4, 5)):
            _repeat(table, b, line, lines[n])
        at, stop = begin * channels, end * channels
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            _read(dy[b, at : at + count], other_bits, gradient)
            for i in range(count):
                g = _before_activation(gradient[i], row[i], factor[i], addend[i], flat_slope)
                row[i] = g * factor[i] + row[i] * along[i] + constant[i]
            _write(dx[b, at : at + count], bits, row)
            at += count


# ---- on torch's own threads ----

_thread_number = types.ExternalFunction("omp_get_thread_num", types.int32())


@lru_cache(maxsize=1)
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library that torch itself loaded; None if it is not found."""
    # Builds of torch include one of these; loading it again returns the same library.
    folder = Path(torch.__file__).parent / "lib"
    for path in sorted(
        p for pattern in ("libgomp*", "libiomp5*", "libomp*") for p in folder.glob(pattern)
    ):
        try:
            library = ctypes.CDLL(str(path))
            library.GOMP_parallel.argtypes = [
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_uint,
                ctypes.c_uint,
            ]
            library.omp_get_thread_num.argtypes = []
        except (OSError, AttributeError):
            continue
        return library
    return None


@lru_cache(maxsize=2)
def _compiled(kept: type) -> Any:
    """The four loops for values stored as ``kept``, as one C function. Its argument is a pointer to
    the array of arguments that ``_run`` fills.
    """
    import llvmlite.binding

    # Let compiled code call into torch's OpenMP library by name.
    library = _openmp()
    assert library is not None
    llvmlite.binding.add_symbol(
        "omp_get_thread_num", ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value
    )

    @cfunc("void(voidptr)", cache=True)
    def body(data):  # type: ignore[no-untyped-def]
        # Rebuild the arrays from their addresses.
        args = carray(data, (11,), np.int64)
        threads, samples, voxels, channels, loop = args[5], args[6], args[7], args[8], args[10]
        slope = carray(_pointer(args[9]), (1,), np.float64)[0]  # type: ignore[call-arg]
        flat = (samples, voxels * channels)
        x, dy, out = (
            carray(_pointer(args[0]), flat, kept),
            carray(_pointer(args[1]), flat, kept),
            carray(_pointer(args[2]), flat, kept),
        )
        table = carray(_pointer(args[3]), (samples, 6, channels), np.float32)
        sums = carray(_pointer(args[4]), (threads, samples, 2, channels), np.float64)
        # Run this thread's part of the voxels.
        n = _thread_number()
        begin, end = voxels * n // threads, voxels * (n + 1) // threads
        if loop == SUM_FORWARD:
            _sum_forward(x, sums[n], begin, end)
        elif loop == WRITE_FORWARD:
            _write_forward(x, out, table, slope, begin, end)
        elif loop == SUM_BACKWARD:
            _sum_backward(x, dy, table, sums[n], slope, begin, end)
        else:
            _write_backward(x, dy, out, table, slope, begin, end)

    return body


def _run(
    loop: int, threads: int, x: Tensor, dy: Tensor, out: Tensor, table: Any, sums: Any, slope: float
) -> None:
    """Run one of the four loops on ``threads`` of torch's threads; the order of the arguments is
    that of ``_compiled``.
    """
    library = _openmp()
    assert library is not None
    args = np.array(
        [
            x.data_ptr(),
            dy.data_ptr(),
            out.data_ptr(),
            table.ctypes.data,
            sums.ctypes.data,
            threads,
            x.shape[0],
            x[0, 0].numel(),
            x.shape[1],
            0,
            loop,
        ],
        np.int64,
    )
    # A float does not fit among integers, so its address is passed; ``factor`` must stay alive.
    factor = np.array([slope])
    args[9] = factor.ctypes.data
    # numba has no bfloat16; its values are passed as uint16.
    body = _compiled(np.float32 if x.dtype == torch.float32 else np.uint16)
    library.GOMP_parallel(body.address, args.ctypes.data, threads, 0)
