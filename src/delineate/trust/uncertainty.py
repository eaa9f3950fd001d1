"""Agreement of several samples of one segmentation: the spread of each structure's volume, and the
overlap of all samples.

The measures are those of Roy et al. (Bayesian QuickNAT, NeuroImage 195, 2019, section 2.4) for
Monte-Carlo dropout. They apply to any label maps of one scan (from several networks or raters). Let
s_1 ... s_N be the voxels of a structure in samples 1 ... N:

    cv    coefficient of variation: standard deviation of the volumes |s_n| / their mean
    iou   |s_1 ∩ ... ∩ s_N| / |s_1 ∪ ... ∪ s_N|    1 if all agree; low if the segmentation is likely
                                                   to be poor

If no sample has the structure, both are undefined and NaN, never 0 or 1. It knows no files, grids
or names of structures. Shapes: samples (I, J, K) each. Legend: N samples; V = largest value + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from ..core.labels import as_whole_numbers

# Voxels of each sample that are compared at once: copies stay small for any scan size.
CHUNK_VOXELS = 1 << 18


@dataclass(frozen=True)
class SampleAgreement:
    """Agreement of the samples on the structure with label ``value``.

    ``samples_ml`` is the volume in each sample, with its mean ``mean_ml`` and standard deviation
    ``std_ml`` (n - 1), in ml; NaN if the voxel size is unknown. ``found_in`` is the number of
    samples with the structure; if it is 0, ``cv`` and ``iou`` are NaN.
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
    """The agreement of the samples on each structure, in the order of ``values``.

    Voxels are compared in chunks. The time grows with the square of the number of samples, not with
    the number of structures.

    Args:
        samples: at least two label maps (I, J, K) of one scan, whole numbers >= 0.
        values: the structures' label values, each above 0.
        voxel_ml: volume of a voxel in ml; NaN if unknown.

    Raises:
        ValueError: fewer than two samples.
        GeometryError: the shapes differ.
        LabelError: a value is neither 0 nor one of ``values``, or is not a whole number.
    """
    if len(samples) < 2:
        raise ValueError(f"agreement needs at least two samples, found {len(samples)}")
    if len({s.shape for s in samples}) > 1:
        raise GeometryError(
            "samples of one scan must have the same shape, found "
            f"{', '.join(str(s.shape) for s in samples)}"
        )
    sizes, together, anywhere = _counts([s.reshape(-1) for s in samples], values)
    return [_row(v, sizes[:, v], int(together[v]), int(anywhere[v]), voxel_ml) for v in values]


def _counts(
    flat: list[NDArray[Any]], values: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number of voxels of each value in each sample (N, V), in the intersection of all samples (V,)
    and in their union (V,).
    """
    length = max(values, default=0) + 1
    sizes = np.zeros((len(flat), length), dtype=np.int64)
    together, anywhere = np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.int64)
    for start in range(0, flat[0].size, CHUNK_VOXELS):
        chunk = np.stack([as_whole_numbers(s[start : start + CHUNK_VOXELS]) for s in flat])
        chunk = chunk[:, chunk.any(axis=0)]  # skip voxels that are background in all samples
        _refuse_undeclared(chunk, values)
        for n, sample in enumerate(chunk):
            # A voxel joins the union once, when the first sample has this value there.
            new = ~(chunk[:n] == sample).any(axis=0)
            sizes[n] += np.bincount(sample, minlength=length)
            anywhere += np.bincount(sample[new], minlength=length)
        # The intersection: voxels with the same value in all samples.
        together += np.bincount(chunk[0][(chunk == chunk[0]).all(axis=0)], minlength=length)
    return sizes, together, anywhere


def _refuse_undeclared(chunk: NDArray[Any], values: Sequence[int]) -> None:
    """Raise LabelError if a sample has a value that is neither 0 nor one of ``values``."""
    known = np.array([0, *values])
    if not np.isin(chunk, known).all():
        undeclared = sorted(set(np.unique(chunk).tolist()) - set(known.tolist()))
        raise LabelError(
            f"undeclared label values {undeclared[:10]} in the samples; declared are "
            f"{sorted(values)[:10]}"
        )


def _row(
    value: int, sizes: NDArray[np.int64], together: int, anywhere: int, voxel_ml: float
) -> SampleAgreement:
    """The measures of one structure from its voxel counts."""
    mean, std = float(sizes.mean()), float(sizes.std(ddof=1))
    volumes = tuple(float(size) * voxel_ml for size in sizes)
    cv, iou = (std / mean, together / anywhere) if anywhere else (float("nan"), float("nan"))
    return SampleAgreement(
        value, volumes, mean * voxel_ml, std * voxel_ml, cv, iou, int((sizes > 0).sum())
    )
