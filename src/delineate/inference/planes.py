"""Sums of class scores, plane by plane: what windows and views add to, in memory or, where that has
no room, in a file.

Planes are counted along the marching axis and stored first, (P, L, A, B), so that a run of planes
is one piece of a file. Of a long axis only as many as are still being added to are held: plane p
stands at p modulo P. It knows nothing of windows and networks.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import OutputError

# Sums beyond this in float32 are kept in half precision: an error of 1e-3 of a probability.
HALF_ABOVE_BYTES = 2**30
# Sums beyond this in half precision lie in a temporary file, where nothing else is asked for.
MEMORY_BYTES = 2**31
SLAB_BYTES = 2**27  # of sums handed over at once


@dataclass(frozen=True)
class Planes:
    """``count`` planes of sums; ``mapped`` gives the tensor (n, L, A, B) of stored planes
    low..high, to be worked on in place.
    """

    count: int
    plane_bytes: int
    dtype: torch.dtype
    mapped: Callable[[int, int], Tensor]

    def walk(
        self, low: int, high: int, most_bytes: int | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Planes low..high in pieces of at most ``most_bytes`` (``SLAB_BYTES``): (first plane, (n,
        L, A, B) to work on in place).
        """
        step = max(1, (SLAB_BYTES if most_bytes is None else most_bytes) // self.plane_bytes)
        while low < high:
            at = low % self.count
            stop = min(low + step, high, low + self.count - at)
            yield low, self.mapped(at, at + stop - low)
            low = stop


@contextlib.contextmanager
def planes(
    count: int,
    classes: int,
    plane: tuple[int, int],
    device: torch.device,
    memory_bytes: int | None = None,
) -> Iterator[Planes]:
    """``count`` planes of zeros; gone at the end, on errors too.

    They are held where the network runs, in float32, in half precision where that is more than
    ``HALF_ABOVE_BYTES`` or than may be used, and in a temporary file (in TMPDIR) beyond: it is
    mapped a piece at a time, so that resident memory stays as it is.

    Args:
        memory_bytes: that may be used; None: ``MEMORY_BYTES``, on a GPU half of what is free.

    Raises:
        OutputError: no room for the file.
    """
    values = count * classes * plane[0] * plane[1]
    if memory_bytes is None:
        memory_bytes = (
            MEMORY_BYTES if device.type == "cpu" else torch.cuda.mem_get_info(device)[0] // 2
        )
    dtype = torch.float32 if 4 * values <= min(memory_bytes, HALF_ABOVE_BYTES) else torch.float16
    plane_bytes = dtype.itemsize * classes * plane[0] * plane[1]
    if plane_bytes * count <= memory_bytes:
        sums = torch.zeros((count, classes, *plane), dtype=dtype, device=device)
        yield Planes(count, plane_bytes, dtype, lambda low, high: sums[low:high])
        return
    with tempfile.TemporaryDirectory(prefix="delineate_", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "scores"
        _reserve(path, plane_bytes * count)

        def mapped(low: int, high: int) -> Tensor:
            return torch.from_numpy(
                np.memmap(path, np.float16, "r+", low * plane_bytes, (high - low, classes, *plane))
            )

        yield Planes(count, plane_bytes, dtype, mapped)


def _reserve(path: Path, nbytes: int) -> None:
    """A file of zeros whose room on the disk is certain: writing through a map into a full disk
    would end the process.
    """
    try:
        with path.open("wb") as file:
            file.truncate(nbytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)
    except OSError as error:
        raise OutputError(
            f"class scores need {nbytes / 2**30:.1f} GiB there ({error.strerror}); set TMPDIR to "
            "a folder with room",
            path=path.parent.parent,
        ) from error
