"""Placement: where the sliding windows of a scan lie.

Windows have one size and are spread evenly over the scan, so that neighbours share at least a given
fraction of their size; there are as few as that allows (the rule of nnU-Net, Isensee 2021). Sizes
are in voxels of the preprocessed grid. This module knows no networks and no plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Overlaps that are measured after a training, the first one by default; see
# ``training.window_overlap``.
OVERLAPS = (0.5, 0.375, 0.25)


def starts(length: int, window: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows that cover ``length`` and share at least the fraction
    ``overlap`` with their neighbours.

    >>> starts(200, 128, 0.5), starts(200, 128, 0.375)
    ([0, 36, 72], [0, 72])
    >>> starts(100, 128, 0.5)
    [0]
    """
    if length <= window:
        return [0]
    # The overlap limits the step; the windows are then spread evenly over the length.
    count = math.ceil((length - window) / max(1.0, window * (1 - overlap))) + 1
    return [int(v) for v in np.rint(np.linspace(0, length - window, count))]


def grid(shape: Sequence[int], window: Sequence[int], overlap: float) -> tuple[list[int], ...]:
    """The first voxels of the windows along each axis; an axis that is shorter than a window has
    one.
    """
    return tuple(starts(n, w, overlap) for n, w in zip(shape, window, strict=True))


def count(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """The number of windows of a scan.

    >>> [count((272, 272, 200), (128, 128, 128), overlap) for overlap in OVERLAPS]
    [48, 18, 18]
    """
    return math.prod(map(len, grid(shape, window, overlap)))
