"""What figures of several cases are worth: intervals, paired tests, effect sizes, ranks.

Cases of one patient are not independent. So whatever is resampled or tested here is the patient:
intervals draw patients with all their cases (Efron & Tibshirani, *An Introduction to the
Bootstrap*, 1993, percentile interval), and a test takes of each patient the mean over his cases.
Where nobody knows whose the cases are, give each a patient of its own.

An interval of few patients is too narrow (a percentile bootstrap covers about 88 % instead of 95 %
of ten normal values), and a signed-rank test of fewer than six cannot reach 0.05 whatever it sees:
``Test.can_tell`` says so.

Array legend: n cases, P patients, R runs. It knows no file, no metric and no name of a structure.
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
MOST_EXACT = 200  # pairs up to which the signed-rank distribution is computed exactly: 30 ms
EQUAL = 1e-9  # differences below are rounding

Floats = NDArray[np.float64]


# ---- intervals ----


def interval(values: Floats, groups: Sequence[str]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, from ``RESAMPLES`` resamplings of patients with all
    their cases.

    Args:
        values: (n,) of cases; finite.
        groups: (n,) the patient of each.

    Returns:
        Lower and upper end; NaN where there are fewer than two patients.
    """
    index, count = _patients(groups)
    if count < 2:
        return float("nan"), float("nan")
    sums, cases = np.bincount(index, weights=values), np.bincount(index).astype(float)
    drawn = draws(count)
    low, high = np.percentile((drawn @ sums) / (drawn @ cases), INTERVAL)
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def draws(patients: int) -> NDArray[np.float32]:
    """(RESAMPLES, P) how often each patient is drawn in each resampling; always the same ones."""
    rng, rows = np.random.default_rng(SEED), 500  # so many at a time, to hold memory down
    out = np.empty((RESAMPLES, patients), np.float32)
    for start in range(0, RESAMPLES, rows):
        picks = rng.integers(0, patients, (rows, patients)) + patients * np.arange(rows)[:, None]
        out[start : start + rows] = np.bincount(picks.ravel(), minlength=rows * patients).reshape(
            rows, patients
        )
    return out


def by_patient(values: Floats, groups: Sequence[str]) -> Floats:
    """(..., P) means of (..., n) over each patient's cases, in the order in which patients first
    occur.

    An infinite value makes its patient's mean infinite; infinite ones of both signs make it NaN.
    """
    index, count = _patients(groups)
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
    numbers = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[g] for g in groups], dtype=np.intp), len(numbers)


# ---- tests ----


@dataclass(frozen=True)
class PairedTest:
    """A two-sided Wilcoxon signed-rank test (Wilcoxon 1945).

    Args:
        p: the chance of signed ranks as far from balance as these, or farther, if each difference
            were as likely of either sign. 1 where no difference is left; NaN where there was
            nothing to test.
        statistic: the smaller of the sums of ranks of positive and of negative differences.
        n: differences that are not zero; zeros say nothing and are dropped, as Wilcoxon did.
        exact: from the distribution itself; else from the normal approximation with the correction
            for ties.
        effect: the matched-pairs rank-biserial correlation (Kerby 2014), from -1 (every difference
            negative) to 1; 0 where none is left.
    """

    p: float
    statistic: float
    n: int
    exact: bool
    effect: float

    __test__ = False  # no test of pytest's

    @property
    def can_tell(self) -> bool:
        """Whether so many differences could be significant at all: five of one sign still have p =
        2 / 32.
        """
        return 2.0 ** (1 - self.n) < LEVEL


def signed_rank(differences: Floats) -> PairedTest:
    """Whether differences lie around zero.

    Up to ``MOST_EXACT`` differences the distribution of the sum of ranks over all choices of signs
    is computed exactly, with ties too: midranks doubled are whole numbers, so it is a product of
    polynomials.

    Args:
        differences: (n,) independent ones, of one patient each; infinite ones have the largest
            ranks, NaN is left out.
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
    """(n,) ranks from 1; values equal up to rounding share the mean of theirs."""
    _, place, counts = np.unique(np.round(values / EQUAL), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place.ravel()], dtype=np.float64)


def _exact(ranks: Floats, smaller: float) -> float:
    doubled = np.rint(2 * ranks).astype(int)
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:  # each has either sign with chance one half
        chance[rank:] = (chance[rank:] + chance[:-rank]) / 2
        chance[:rank] /= 2
    return min(1.0, 2 * float(chance[: round(2 * smaller) + 1].sum()))


def _normal(ranks: Floats, smaller: float) -> float:
    """The sum's variance under the null is a quarter of the sum of squared ranks, which holds with
    ties.
    """
    away = (smaller - float(ranks.sum()) / 2) / math.sqrt(float((ranks**2).sum()) / 4)
    return min(1.0, math.erfc(-away / math.sqrt(2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p adjusted for how many were looked at (Holm 1979): below a level, the chance of even
    one false finding is below it.

    NaN, where nothing was tested, stays NaN and counts as no test.
    """
    order = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    out, largest = [float("nan")] * len(p_values), 0.0
    for place, (p, k) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p))
        out[k] = largest
    return out


def effect_interval(differences: Floats) -> tuple[float, float]:
    """The 95 % interval of ``Test.effect``, from the same resamplings.

    Args:
        differences: (P,) one of each patient; NaN is left out.

    Returns:
        Lower and upper end; NaN where there are fewer than two patients.
    """
    kept = differences[~np.isnan(differences)]
    if len(kept) < 2:
        return float("nan"), float("nan")
    sizes, group = np.unique(np.round(np.abs(kept) / EQUAL), return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    of, signs = (
        group.ravel()[order],
        np.where(sizes[group.ravel()[order]] > 0, np.sign(kept[order]), 0.0),
    )
    drawn = draws(len(kept))[:, order].astype(np.float64) * (signs != 0)
    # ranks in a resampling: those drawn with a smaller size come before, those of the same size
    # share their mean
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
    """Which run is best, and how sure that is (Wiesenfarth et al., Scientific Reports 11, 2021).

    Args:
        mean_rank: (R,) the mean over patients of each run's rank, 1 is best; equal runs share.
        place: (R,) the place by mean rank, from 1; equal runs share the better one.
        chance: (R, R) the share of resamplings of patients in which run r (row) has place k + 1
            (column).
    """

    mean_rank: Floats
    place: NDArray[np.int64]
    chance: Floats


def rank(values: Floats) -> Ranking:
    """Rank runs in each patient and average ("rank, then aggregate"), so that no single case
    decides.

    Args:
        values: (R, P) higher is better; defined in every run (infinite is allowed). P may be 0: all
            NaN then.
    """
    runs, patients = values.shape
    if not patients:
        return Ranking(
            np.full(runs, np.nan), np.zeros(runs, np.int64), np.full((runs, runs), np.nan)
        )
    # (R, P) than each; equal runs share the mean of their ranks.
    better = (values[None] > values[:, None] + EQUAL).sum(axis=1)
    worse = (values[None] < values[:, None] - EQUAL).sum(axis=1)
    ranks = 1 + (better + (runs - 1 - worse)) / 2
    means = ranks.mean(axis=1)
    drawn = draws(patients).astype(np.float64) @ ranks.T / patients if patients > 1 else means[None]
    places = 1 + (drawn[:, None, :] < drawn[:, :, None] - EQUAL).sum(axis=-1)  # (resamples, R)
    chance = np.stack([(places == k + 1).mean(axis=0) for k in range(runs)], axis=1)
    return Ranking(means, 1 + (means[None, :] < means[:, None] - EQUAL).sum(axis=-1), chance)
