"""Instance norm and leaky ReLU in one operation on a CPU, forward and backward, over channels-last
memory.

Apart, the two read and write a tensor thirteen times in a training step; together eight times, and
narrow tensors as fast as wide ones. Compiled on first use and kept in numba's cache. The loops run
on the threads of torch's own OpenMP library: a second pool would fight with those for the cores,
since they go on spinning for milliseconds after each operation. Where that library is not found,
``fits`` says no.

Shapes: x (B, C, *size) whose memory is (B, V, C), V voxels. Values are float32, or bfloat16 seen as
uint16; all sums are float64 in the end. A tensor's voxels are walked through in rows of ``ROW``
values or a little more, always whole voxels, whatever C is.
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
BLOCK = 64  # rows whose sums are kept in float32
LEAST = 1 << 15  # values for which a second thread pays
SUM_FORWARD, WRITE_FORWARD, SUM_BACKWARD, WRITE_BACKWARD = range(4)  # the loops
DTYPES = (torch.float32, torch.bfloat16)


def fits(x: Tensor) -> bool:
    """Whether ``norm_act`` can take ``x``."""
    return (
        x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.movedim(1, -1).is_contiguous()
        and _openmp() is not None
    )


def norm_act(x: Tensor, weight: Tensor, bias: Tensor, slope: float, epsilon: float) -> Tensor:
    """``leaky_relu(instance_norm(x) * weight + bias, slope)``; slope 1 is no activation, 0 is ReLU.

    Args:
        x: (B, C, *size), one that ``fits``.
        weight: (C,) float32.
        bias: (C,) float32.

    Returns:
        As ``x``, in its dtype and memory order.
    """
    return _NormAct.apply(x, weight, bias, slope, epsilon)  # type: ignore[no-any-return, no-untyped-call]


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, slope: float, epsilon: float
    ) -> Tensor:
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
    """(B, C) the first voxel of each sample: sums of what differs from it lose no digits where the
    mean is far from 0.
    """
    return x.detach().movedim(1, -1).flatten(1, -2)[:, 0].float().numpy()


@njit(cache=True)
def _forward_table(sums, shift, voxels, weight, bias, epsilon):  # type: ignore[no-untyped-def]
    """(B, 4, C) float32: what turns x into y (factor, addend) and x into the normalised x."""
    _, samples, _, channels = sums.shape
    table = np.empty((samples, 6, channels), np.float32)
    for b in range(samples):
        for c in range(channels):
            total, squares = 0.0, 0.0
            for t in range(sums.shape[0]):
                total += sums[t, b, 0, c]
                squares += sums[t, b, 1, c]
            apart = total / voxels
            inverse = 1 / np.sqrt(max(squares / voxels - apart * apart, 0.0) + epsilon)
            mean = shift[b, c] + apart
            table[b, 0, c] = weight[c] * inverse
            table[b, 1, c] = bias[c] - mean * weight[c] * inverse
            table[b, 2, c] = inverse
            table[b, 3, c] = -mean * inverse
    return table


@njit(cache=True)
def _backward_table(table, sums, voxels):  # type: ignore[no-untyped-def]
    """The table with what turns x and dy into dx (rows 4 and 5), and the gradients of weight and
    bias.
    """
    _, samples, _, channels = sums.shape
    d_weight, d_bias = np.zeros(channels), np.zeros(channels)
    full = table.copy()
    for b in range(samples):
        for c in range(channels):
            total, along = 0.0, 0.0
            for t in range(sums.shape[0]):
                total += sums[t, b, 0, c]
                along += sums[t, b, 1, c]
            d_weight[c] += along
            d_bias[c] += total
            factor = float(table[b, 0, c]) / voxels
            full[b, 4, c] = -factor * along * table[b, 2, c]
            full[b, 5, c] = -factor * (total + along * table[b, 3, c])
    return full, d_weight, d_bias


# ---- the loops, each over one thread's share of the voxels ----


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """The pointer that a whole number is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), codegen


@njit
def _read(values, bits, row):  # type: ignore[no-untyped-def]
    """All ``values`` into ``row``, which ``bits`` are the bits of."""
    if values.itemsize == 4:
        for i in range(values.size):
            row[i] = values[i]
    else:
        for i in range(values.size):
            bits[i] = np.uint32(values[i]) << np.uint32(16)


@njit
def _write(values, bits, row):  # type: ignore[no-untyped-def]
    """The reverse; to bfloat16 it rounds to the nearest, halves to even."""
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
def _rows(channels):  # type: ignore[no-untyped-def]
    """Values of a row: whole voxels, at least ``ROW``."""
    return channels * max(1, (ROW + channels - 1) // channels)


@njit
def _spread(table, b, n, row):  # type: ignore[no-untyped-def]
    """One line of the table, repeated for every voxel of a row."""
    channels = table.shape[2]
    for i in range(row.size):
        row[i] = table[b, n, i % channels]


@njit
def _pour(row, sums):  # type: ignore[no-untyped-def]
    """Add a row of float32 sums to the float64 ones of its channels, and empty it."""
    channels = sums.size
    for i in range(row.size):
        sums[i % channels] += row[i]
        row[i] = 0


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _sum_forward(x, sums, begin, end):  # type: ignore[no-untyped-def]
    """Sums and sums of squares of what differs from the sample's first voxel."""
    channels = sums.shape[2]
    length = _rows(channels)
    bits, first = np.empty(length, np.uint32), np.empty(length, np.uint32)
    row, shift = bits.view(np.float32), first.view(np.float32)
    total, squares = np.zeros(length, np.float32), np.zeros(length, np.float32)
    for b in range(x.shape[0]):
        for n in range(length // channels):
            _read(x[b, :channels], first[n * channels :], shift[n * channels :])
        at, stop, done = begin * channels, end * channels, 0
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            for i in range(count):
                apart = row[i] - shift[i]
                total[i] += apart
                squares[i] += apart * apart
            at, done = at + count, done + 1
            if done % BLOCK == 0 or at >= stop:
                _pour(total, sums[b, 0])
                _pour(squares, sums[b, 1])


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _write_forward(x, y, table, slope, begin, end):  # type: ignore[no-untyped-def]
    channels = table.shape[2]
    length, flat_slope = _rows(channels), np.float32(slope)
    bits = np.empty(length, np.uint32)
    row, factor, addend = (
        bits.view(np.float32),
        np.empty(length, np.float32),
        np.empty(length, np.float32),
    )
    for b in range(x.shape[0]):
        _spread(table, b, 0, factor)
        _spread(table, b, 1, addend)
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
    """Sums of the gradient before the activation, and of that times the normalised x."""
    channels = table.shape[2]
    length, flat_slope = _rows(channels), np.float32(slope)
    bits, other_bits = np.empty(length, np.uint32), np.empty(length, np.uint32)
    row, gradient = bits.view(np.float32), other_bits.view(np.float32)
    lines = np.empty((4, length), np.float32)
    factor, addend, inverse, offset = lines[0], lines[1], lines[2], lines[3]
    total, along = np.zeros(length, np.float32), np.zeros(length, np.float32)
    for b in range(x.shape[0]):
        for n in range(4):
            _spread(table, b, n, lines[n])
        at, stop, done = begin * channels, end * channels, 0
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            _read(dy[b, at : at + count], other_bits, gradient)
            for i in range(count):
                g = gradient[i] if row[i] * factor[i] + addend[i] > 0 else gradient[i] * flat_slope
                total[i] += g
                along[i] += g * (row[i] * inverse[i] + offset[i])
            at, done = at + count, done + 1
            if done % BLOCK == 0 or at >= stop:
                _pour(total, sums[b, 0])
                _pour(along, sums[b, 1])


@njit(nogil=True, error_model="numpy", fastmath={"nsz", "contract"})
def _write_backward(x, dy, dx, table, slope, begin, end):  # type: ignore[no-untyped-def]
    channels = table.shape[2]
    length, flat_slope = _rows(channels), np.float32(slope)
    bits, other_bits = np.empty(length, np.uint32), np.empty(length, np.uint32)
    row, gradient = bits.view(np.float32), other_bits.view(np.float32)
    lines = np.empty((4, length), np.float32)
    factor, addend, along, constant = lines[0], lines[1], lines[2], lines[3]
    for b in range(x.shape[0]):
        for n, line in enumerate((0, 1, 4, 5)):
            _spread(table, b, line, lines[n])
        at, stop = begin * channels, end * channels
        while at < stop:
            count = min(length, stop - at)
            _read(x[b, at : at + count], bits, row)
            _read(dy[b, at : at + count], other_bits, gradient)
            for i in range(count):
                g = gradient[i] if row[i] * factor[i] + addend[i] > 0 else gradient[i] * flat_slope
                row[i] = g * factor[i] + row[i] * along[i] + constant[i]
            _write(dx[b, at : at + count], bits, row)
            at += count


# ---- on torch's own threads ----

_thread_number = types.ExternalFunction("omp_get_thread_num", types.int32())


@lru_cache(maxsize=1)
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library that torch itself loaded; None where there is none to be found."""
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
    """The four loops for values kept as ``kept``, as one C function of a pointer to what ``_run``
    lays out.
    """
    import llvmlite.binding

    library = _openmp()
    assert library is not None
    llvmlite.binding.add_symbol(
        "omp_get_thread_num", ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value
    )

    @cfunc("void(voidptr)", cache=True)
    def body(data):  # type: ignore[no-untyped-def]
        told = carray(data, (11,), np.int64)
        threads, samples, voxels, channels, loop = told[5], told[6], told[7], told[8], told[10]
        slope = carray(_pointer(told[9]), (1,), np.float64)[0]  # type: ignore[call-arg]
        flat = (samples, voxels * channels)
        x, dy, out = (
            carray(_pointer(told[0]), flat, kept),
            carray(_pointer(told[1]), flat, kept),
            carray(_pointer(told[2]), flat, kept),
        )
        table = carray(_pointer(told[3]), (samples, 6, channels), np.float32)
        sums = carray(_pointer(told[4]), (threads, samples, 2, channels), np.float64)
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
    library = _openmp()
    assert library is not None
    told = np.array(
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
    factor = np.array([slope])
    told[9] = factor.ctypes.data
    body = _compiled(np.float32 if x.dtype == torch.float32 else np.uint16)
    library.GOMP_parallel(body.address, told.ctypes.data, threads, 0)
