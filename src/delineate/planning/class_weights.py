"""Class weights from voxel counts, for cohorts in which structures differ in size by orders of
magnitude.

Counts and weights have one number per class, background first. The module knows neither losses nor
networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weights = NDArray[np.float64]


def median_frequency_weights(counts: ArrayLike) -> Weights:
    """Median class frequency divided by the frequency of the class (Eigen & Fergus 2015; QuickNAT:
    Roy 2019). Classes that are rarer than the median get a weight above 1.

    The ratio is exact. If it were rounded down, every class more frequent than the median would get
    weight 0 and would not be learnt. The frequency counts all voxels of the cohort. The 2015 paper
    counts only the images that contain the class; the two agree if every scan contains every class.

    Args:
        counts: (L,) voxels of each class, of any real dtype.

    Returns:
        (L,) float64, above 0. The median is taken over the classes that occur. A class that does
        not occur gets the largest weight of the others, so that all weights are finite.

    Raises:
        ValueError: the counts are not one finite number of 0 or more per class, or all are 0.
    """
    numbers = _counts(counts)
    # Classes without a voxel would pull the median down.
    return float(np.median(numbers[numbers > 0])) / _never_empty(numbers)


def inverse_frequency_weights(counts: ArrayLike) -> Weights:
    """Weights inversely proportional to the number of voxels of each class, scaled to a mean of 1.

    Args, Returns, Raises: as ``median_frequency_weights``.
    """
    # The relative weights first; dividing by their mean fixes the scale.
    inverse = 1 / _never_empty(_counts(counts))
    return np.asarray(inverse / inverse.mean())


def _counts(counts: ArrayLike) -> Weights:
    numbers = np.asarray(counts, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError(
            "voxel counts must be one number of 0 or more per class, found "
            f"{np.asarray(counts).tolist()}"
        )
    if not numbers.any():
        raise ValueError("all classes have 0 voxels: class weights are undefined")
    return numbers


def _never_empty(numbers: Weights) -> Weights:
    """The counts, with the smallest count above 0 in place of every 0."""
    return np.where(numbers > 0, numbers, numbers[numbers > 0].min())
