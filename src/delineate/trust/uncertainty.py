"""How far samples of one segmentation agree: the spread of each structure's volume, and the overlap
of all samples at once.

The measures are those of Roy et al. (Bayesian QuickNAT, NeuroImage 195, 2019, section 2.4) for
Monte-Carlo dropout; any set of label maps of one scan will do (other networks, other raters). With
s_1 ... s_N the voxels that sample 1 ... N
gives a structure:

    cv    deviation of the volumes |s_n| over their mean
    iou   |s_1 n ... n s_N| / |s_1 u ... u s_N|    1 where all agree; low where the segmentation is
                                                   likely poor

Where no sample has the structure both are NaN, "not defined here", and never 0 or 1. It knows no
file, no grid and no name of a structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from ..core.labels import as_whole_numbers

# Of each sample, compared at a time: the copies stay small whatever the scan's size.
CHUNK_VOXELS = 1 << 18


@dataclass(frozen=True)
class SampleAgreement:
    """What the samples say of the structure ``value``.

    ``samples_ml`` volume in each sample, with ``mean_ml`` and ``std_ml`` (n - 1); NaN where the
    voxel size is unknown. ``found_in`` counts the samples that have it; where that is 0, ``cv`` and
    ``iou`` are NaN.
    """

    value: int
    samples_ml: tuple[float, ...]
    mean_ml: float
    std_ml: float
    cv: float
    iou: float
    found_in: int


def agreement(
    samples: Sequence[NDArray[Any]], values: Sequence[int], voxel_ml: float = float("nan")
) -> list[SampleAgreement]:
    """One row a structure, in the order of ``values``.

    Voxels are compared a chunk at a time; the work grows with the square of the number of samples,
    and not with the number of structures.

    Args:
        samples: at least two label maps (I, J, K) of one scan, whole numbers >= 0.
        values: the structures' values, each above 0.
        voxel_ml: volume of a voxel in ml; NaN where unknown.

    Raises:
        ValueError: fewer than two samples.
        GeometryError: the shapes differ.
        LabelError: a value that is neither 0 nor one of ``values``, or no whole number.
    """
    if len(samples) < 2:
        raise ValueError(f"agreement is between at least two samples, found {len(samples)}")
    if len({s.shape for s in samples}) > 1:
        raise GeometryError(
            f"samples of one scan have one shape, found {', '.join(str(s.shape) for s in samples)}"
        )
    sizes, together, anywhere = _counts([s.reshape(-1) for s in samples], values)
    return [_row(v, sizes[:, v], int(together[v]), int(anywhere[v]), voxel_ml) for v in values]


def _counts(
    flat: list[NDArray[Any]], values: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Voxels of each value in each sample (N, V), in all samples at once (V,), and in any of them
    (V,); V is the largest value + 1.
    """
    length = max(values, default=0) + 1
    sizes = np.zeros((len(flat), length), dtype=np.int64)
    together, anywhere = np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.int64)
    for start in range(0, flat[0].size, CHUNK_VOXELS):
        chunk = np.stack([as_whole_numbers(s[start : start + CHUNK_VOXELS]) for s in flat])
        chunk = chunk[:, chunk.any(axis=0)]  # where all say background there is nothing to count
        _refuse_strangers(chunk, values)
        for n, sample in enumerate(chunk):
            # No earlier sample gave the voxel this value: it joins the union.
            new = ~(chunk[:n] == sample).any(axis=0)
            sizes[n] += np.bincount(sample, minlength=length)
            anywhere += np.bincount(sample[new], minlength=length)
        together += np.bincount(chunk[0][(chunk == chunk[0]).all(axis=0)], minlength=length)
    return sizes, together, anywhere


def _refuse_strangers(chunk: NDArray[Any], values: Sequence[int]) -> None:
    known = np.array([0, *values])
    if not np.isin(chunk, known).all():
        strange = sorted(set(np.unique(chunk).tolist()) - set(known.tolist()))
        raise LabelError(
            f"undeclared label values {strange[:10]} in the samples; declared are "
            f"{sorted(values)[:10]}"
        )


def _row(
    value: int, sizes: NDArray[np.int64], together: int, anywhere: int, voxel_ml: float
) -> SampleAgreement:
    mean, std = float(sizes.mean()), float(sizes.std(ddof=1))
    volumes = tuple(float(size) * voxel_ml for size in sizes)
    cv, iou = (std / mean, together / anywhere) if anywhere else (float("nan"), float("nan"))
    return SampleAgreement(
        value, volumes, mean * voxel_ml, std * voxel_ml, cv, iou, int((sizes > 0).sum())
    )
