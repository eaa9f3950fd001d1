"""Class weights from voxel counts, for cohorts in which structures differ in size by orders of
magnitude.

Counts and weights are one number a class, background first. Nothing here knows of losses or
networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weights = NDArray[np.float64]


def median_frequency_weights(counts: ArrayLike) -> Weights:
    """Median frequency over the class's own (Eigen & Fergus 2015; QuickNAT: Roy 2019): above 1 for
    what is rarer than the median class.

    A true ratio: with a rounded-down one every class more frequent than the median would weigh 0
    and not be learnt. The frequency is that over all voxels counted; the 2015 paper's, over the
    images that hold the class, is the same where every scan holds every class.

    Args:
        counts: (L,) voxels of each class, of any real dtype.

    Returns:
        (L,) float64, above 0. The median is over the classes that occur; one that does not gets the
        largest weight of those that do, so that the weights stay finite.

    Raises:
        ValueError: not one finite count of 0 or more a class, or no voxel at all.
    """
    numbers = _counts(counts)
    return float(np.median(numbers[numbers > 0])) / _never_empty(numbers)


def inverse_frequency_weights(counts: ArrayLike) -> Weights:
    """Weights in inverse proportion to the voxels of each class, scaled so that their mean over the
    classes is 1.

    Args, Returns, Raises: as ``median_frequency_weights``.
    """
    inverse = 1 / _never_empty(_counts(counts))
    return np.asarray(inverse / inverse.mean())


def _counts(counts: ArrayLike) -> Weights:
    numbers = np.asarray(counts, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError(
            "voxel counts are one number of 0 or more for each class, found "
            f"{np.asarray(counts).tolist()}"
        )
    if not numbers.any():
        raise ValueError("no class has a voxel: there is nothing to weigh")
    return numbers


def _never_empty(numbers: Weights) -> Weights:
    """The counts, a class without voxels being counted as the rarest that has some."""
    return np.where(numbers > 0, numbers, numbers[numbers > 0].min())
