"""Statistics over cases: confidence intervals, paired tests, effect sizes and rankings.

Cases of one patient are not independent, so the unit of resampling and testing is the patient: the
bootstrap draws patients with all their cases (percentile interval; Efron & Tibshirani, *An
Introduction to the Bootstrap*, 1993), and a test uses each patient's mean over cases. If the
patients are unknown, the caller gives each case a patient of its own.

The interval of few patients is too narrow (with ten normal values a percentile bootstrap covers
about 88 % instead of 95 %). A signed-rank test with fewer than six differences cannot reach
p < 0.05 for any data; ``PairedTest.can_tell`` reports this.

Array legend: n cases, P patients, R runs. The module reads no files and knows no metrics and no
structure names.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 0
INTERVAL = (2.5, 97.5)  # percentiles
LEVEL = 0.05
MOST_EXACT = 200  # largest n with an exact signed-rank distribution (30 ms)
EQUAL = 1e-9  # smaller differences are rounding errors

Floats = NDArray[np.float64]


# ---- intervals ----


def interval(values: Floats, groups: Sequence[str]) -> tuple[float, float]:
    """The 95 % bootstrap percentile interval of the mean over cases, from ``RESAMPLES`` resamples
    of patients with all their cases.

    Args:
        values: (n,) one value per case; finite.
        groups: (n,) the patient of each case.

    Returns:
        Lower and upper limit; NaN if there are fewer than two patients.
    """
    index, count = _patients(groups)
    if count < 2:
        return float("nan"), float("nan")
    # The mean of a resample is the sum over its cases divided by their number.
    sums, cases = np.bincount(index, weights=values), np.bincount(index).astype(float)
    drawn = draws(count)
    low, high = np.percentile((drawn @ sums) / (drawn @ cases), INTERVAL)
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def draws(patients: int) -> NDArray[np.float32]:
    """(RESAMPLES, P) how often each patient is drawn in each resample; the seed is fixed."""
    rng, rows = np.random.default_rng(SEED), 500  # resamples at a time, to limit memory
    out = np.empty((RESAMPLES, patients), np.float32)
    for start in range(0, RESAMPLES, rows):
        # Each row counts in its own range of numbers, so that one bincount serves all rows.
        picks = rng.integers(0, patients, (rows, patients)) + patients * np.arange(rows)[:, None]
        out[start : start + rows] = np.bincount(picks.ravel(), minlength=rows * patients).reshape(
            rows, patients
        )
    return out


def by_patient(values: Floats, groups: Sequence[str]) -> Floats:
    """Each patient's mean over cases: (..., n) -> (..., P), in the order in which patients first
    occur.

    An infinite value makes its patient's mean infinite; infinite values of both signs make it NaN.
    """
    index, count = _patients(groups)
    # Sort the cases by patient, so that each patient's cases are one contiguous run.
    order = np.argsort(index, kind="stable")
    with np.errstate(invalid="ignore"):
        sums = (
            np.add.reduceat(
                values[..., order], np.searchsorted(index[order], np.arange(count)), axis=-1
            )
            if count
            else values
        )
    return np.asarray(
        sums / np.bincount(index, minlength=count) if count else values, dtype=np.float64
    )


def _patients(groups: Sequence[str]) -> tuple[NDArray[np.intp], int]:
    """(n,) each case's patient as a number from 0, and the number of patients."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[g] for g in groups], dtype=np.intp), len(numbers)


# ---- tests ----


@dataclass(frozen=True)
class PairedTest:
    """A two-sided Wilcoxon signed-rank test (Wilcoxon 1945).

    Args:
        p: the two-sided p value; under the null hypothesis each difference is equally likely to be
            positive or negative. 1 if all differences are zero; NaN if there are none.
        statistic: the smaller of the rank sums of the positive and the negative differences.
        n: the number of non-zero differences; zeros are dropped (Wilcoxon's method).
        exact: whether p is from the exact distribution, or else from the normal approximation with
            the correction for ties.
        effect: the matched-pairs rank-biserial correlation (Kerby 2014), from -1 (every difference
            negative) to 1; 0 if all differences are zero.
    """

    p: float
    statistic: float
    n: int
    exact: bool
    effect: float

    __test__ = False  # keeps pytest from collecting the class

    @property
    def can_tell(self) -> bool:
        """Whether this number of differences can be significant at all: five differences of one
        sign have p = 2 / 32.
        """
        return 2.0 ** (1 - self.n) < LEVEL


def signed_rank(differences: Floats) -> PairedTest:
    """Test whether differences are symmetric about zero.

    Up to ``MOST_EXACT`` differences the null distribution of the rank sum over all assignments of
    signs is computed exactly, also with ties: doubled midranks are whole numbers, so the
    distribution is a product of polynomials.

    Args:
        differences: (n,) independent differences, one per patient; infinite ones have the largest
            ranks, and NaN is left out.
    """
    kept = differences[~np.isnan(differences) & (np.abs(differences) > EQUAL)]
    if not len(kept):
        return PairedTest(1.0 if len(differences) else float("nan"), 0.0, 0, True, 0.0)
    ranks = midranks(np.abs(kept))
    total, above = float(ranks.sum()), float(ranks[kept > 0].sum())
    smaller = min(above, total - above)
    exact = len(kept) <= MOST_EXACT
    p = _exact(ranks, smaller) if exact else _normal(ranks, smaller)
    return PairedTest(p, smaller, len(kept), exact, (2 * above - total) / total)


def midranks(values: Floats) -> Floats:
    """(n,) ranks from 1; values that are equal up to rounding share their mean rank."""
    _, place, counts = np.unique(np.round(values / EQUAL), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place.ravel()], dtype=np.float64)


def _exact(ranks: Floats, smaller: float) -> float:
    """The exact two-sided p value of the smaller rank sum."""
    doubled = np.rint(2 * ranks).astype(int)
    # probability[s]: of a doubled rank sum s; each rank is added with probability one half.
    probability = np.zeros(int(doubled.sum()) + 1)
    probability[0] = 1.0
    for rank in doubled:
        probability[rank:] = (probability[rank:] + probability[:-rank]) / 2
        probability[:rank] /= 2
    return min(1.0, 2 * float(probability[: round(2 * smaller) + 1].sum()))


def _normal(ranks: Floats, smaller: float) -> float:
    """The two-sided p value by the normal approximation. Under the null hypothesis the variance of
    the rank sum is a quarter of the sum of squared ranks, also with ties.
    """
    z = (smaller - float(ranks.sum()) / 2) / math.sqrt(float((ranks**2).sum()) / 4)
    return min(1.0, math.erfc(-z / math.sqrt(2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for multiple tests (Holm 1979): at a level, the probability of one or more
    false positives in the family is at most that level.

    NaN (nothing was tested) stays NaN and does not count as a test.
    """
    order = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    out, largest = [float("nan")] * len(p_values), 0.0
    # From the smallest p on: multiply by the number of remaining tests, and never decrease.
    for place, (p, k) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p))
        out[k] = largest
    return out


def effect_interval(differences: Floats) -> tuple[float, float]:
    """The 95 % bootstrap interval of ``PairedTest.effect``, from the same resamples.

    Args:
        differences: (P,) one per patient; NaN is left out.

    Returns:
        Lower and upper limit; NaN if there are fewer than two patients.
    """
    kept = differences[~np.isnan(differences)]
    if len(kept) < 2:
        return float("nan"), float("nan")
    # Sort the differences by size; equal sizes form a group of ties. Zeros get no sign and no draw.
    sizes, group = np.unique(np.round(np.abs(kept) / EQUAL), return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    of, signs = (
        group.ravel()[order],
        np.where(sizes[group.ravel()[order]] > 0, np.sign(kept[order]), 0.0),
    )
    drawn = draws(len(kept))[:, order].astype(np.float64) * (signs != 0)
    # Midranks within each resample: the number drawn with a smaller size, plus the mean position
    # among those drawn with the same size.
    starts = np.searchsorted(of, np.arange(len(sizes)))
    each = np.add.reduceat(drawn, starts, axis=1)
    rank = (np.cumsum(each, axis=1) - each + (each + 1) / 2)[:, of] * drawn
    total = rank.sum(axis=1)
    found = np.divide(rank @ signs, total, out=np.zeros_like(total), where=total > 0)
    low, high = np.percentile(found, INTERVAL)
    return float(low), float(high)


# ---- ranks ----


@dataclass(frozen=True)
class Ranking:
    """A ranking of runs and its stability (Wiesenfarth et al., Scientific Reports 11, 2021).

    Args:
        mean_rank: (R,) each run's mean rank over patients; 1 is best, and equal runs share ranks.
        place: (R,) the place by mean rank, from 1; equal runs share the better place.
        chance: (R, R) the share of bootstrap resamples of patients in which run r (row) has place
            k + 1 (column).
    """

    mean_rank: Floats
    place: NDArray[np.int64]
    chance: Floats


def rank(values: Floats) -> Ranking:
    """Rank the runs within each patient and average the ranks ("rank, then aggregate"), so that no
    single case decides.

    Args:
        values: (R, P) higher is better; defined in every run (infinite is allowed). With P = 0 the
            mean ranks and chances are NaN and the places 0.
    """
    runs, patients = values.shape
    if not patients:
        return Ranking(
            np.full(runs, np.nan), np.zeros(runs, np.int64), np.full((runs, runs), np.nan)
        )
    # (R, P) number of runs better and worse than each; equal runs share their mean rank.
    better = (values[None] > values[:, None] + EQUAL).sum(axis=1)
    worse = (values[None] < values[:, None] - EQUAL).sum(axis=1)
    ranks = 1 + (better + (runs - 1 - worse)) / 2
    means = ranks.mean(axis=1)
    # Mean ranks and places in every bootstrap resample of patients.
    drawn = draws(patients).astype(np.float64) @ ranks.T / patients if patients > 1 else means[None]
    places = 1 + (drawn[:, None, :] < drawn[:, :, None] - EQUAL).sum(axis=-1)  # (resamples, R)
    chance = np.stack([(places == k + 1).mean(axis=0) for k in range(runs)], axis=1)
    return Ranking(means, 1 + (means[None, :] < means[:, None] - EQUAL).sum(axis=-1), chance)
