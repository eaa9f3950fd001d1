"""Sums of class scores, plane by plane. Windows and views add to them, in memory or, if there is
not enough, in a temporary file.

Shapes: planes (P, L, A, B). Planes are counted along the marching axis, which comes first, so that
consecutive planes are contiguous in a file. Along a long axis, only the P planes that are still
being added to are kept: plane p is stored at p modulo P. This module knows no windows and no
networks.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import OutputError
from ..preprocessing import arrays

# If float32 sums need more, half precision is used; the error of a probability is 1e-3.
HALF_ABOVE_BYTES = 2**30
# If half-precision sums need more, a temporary file is used (the default limit).
MEMORY_BYTES = 2**31
SLAB_BYTES = 2**27  # sums that are processed at once


@dataclass(frozen=True)
class Planes:
    """``count`` planes of sums. ``mapped(low, high)`` returns the stored planes low..high as a
    tensor (n, L, A, B) to modify in place.
    """

    count: int
    plane_bytes: int
    dtype: Any  # float32 or float16, of NumPy or torch
    mapped: Callable[[int, int], Any]

    def walk(self, low: int, high: int, most_bytes: int | None = None) -> Iterator[tuple[int, Any]]:
        """Planes low..high in parts of at most ``most_bytes`` (default ``SLAB_BYTES``): (first
        plane, tensor (n, L, A, B) to modify in place).
        """
        step = max(1, (SLAB_BYTES if most_bytes is None else most_bytes) // self.plane_bytes)
        while low < high:
            # A part ends where the storage wraps around.
            at = low % self.count
            stop = min(low + step, high, low + self.count - at)
            yield low, self.mapped(at, at + stop - low)
            low = stop


@contextlib.contextmanager
def planes(
    count: int,
    classes: int,
    plane: tuple[int, int],
    device: Any,
    memory_bytes: int | None = None,
    kind: arrays.Kind = "torch",
) -> Iterator[Planes]:
    """``count`` planes of zeros; freed at the end, also after an error.

    They are kept on the network's device in float32. If that needs more than ``HALF_ABOVE_BYTES``
    or ``memory_bytes``, half precision is used. If that also needs more than ``memory_bytes``, they
    are in a temporary file (in TMPDIR), mapped a part at a time, so that they use no resident
    memory.

    Args:
        kind: of the arrays.
        memory_bytes: the memory limit. None: ``MEMORY_BYTES``, or on a GPU half of the free memory.

    Raises:
        OutputError: the disk has no room for the file.
    """
    values = count * classes * plane[0] * plane[1]
    if memory_bytes is None:
        memory_bytes = MEMORY_BYTES if device.type != "cuda" else _free_bytes(device) // 2
    # Float32 if it fits, else half precision; then memory if that fits, else a file.
    is_half = 4 * values > min(memory_bytes, HALF_ABOVE_BYTES)
    dtype = np.dtype(np.float16 if is_half else np.float32)
    plane_bytes = dtype.itemsize * classes * plane[0] * plane[1]
    if plane_bytes * count <= memory_bytes:
        sums = _zeros((count, classes, *plane), dtype, device, kind)
        yield Planes(count, plane_bytes, sums.dtype, lambda low, high: sums[low:high])
        return
    # On Windows a mapped file cannot be deleted; leaving it behind is not an error.
    with tempfile.TemporaryDirectory(prefix="delineate_", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "scores"
        _reserve(path, plane_bytes * count)

        def mapped(low: int, high: int) -> Any:
            shape = (high - low, classes, *plane)
            file = np.memmap(path, np.float16, "r+", low * plane_bytes, shape)
            return arrays.made(file, kind)

        yield Planes(count, plane_bytes, mapped(0, 1).dtype, mapped)


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any], device: Any, kind: arrays.Kind) -> Any:
    if kind == "numpy":
        return np.zeros(shape, dtype)
    import torch

    return torch.zeros(shape, dtype=getattr(torch, dtype.name), device=str(device))


def _free_bytes(device: Any) -> int:
    """Free memory of a GPU."""
    import torch

    return int(torch.cuda.mem_get_info(str(device))[0])


def _reserve(path: Path, nbytes: int) -> None:
    """Create a file of zeros with its disk space reserved: writing through a memory map to a full
    disk would kill the process.
    """
    try:
        with path.open("wb") as file:
            file.truncate(nbytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)
    except OSError as error:
        raise OutputError(
            f"class scores need {nbytes / 2**30:.1f} GiB of space here ({error.strerror}); set "
            "TMPDIR to a folder on a larger disk",
            path=path.parent.parent,
        ) from error
