"""Intervals, tests and ranks: against SciPy's own, against every possible sign and resampling, and
by hand.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from delineate.metrics.statistics import (
    by_patient,
    effect_interval,
    holm,
    interval,
    midranks,
    rank,
    signed_rank,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("n", [3, 6, 11, 25, 50])
def test_without_ties_the_test_is_scipys_exact_one(n):
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    found, peer = signed_rank(differences), stats.wilcoxon(differences, method="exact")
    assert found.p == pytest.approx(peer.pvalue, abs=1e-12)
    assert (found.statistic, found.n, found.exact) == (peer.statistic, n, True)


def test_beyond_the_exact_range_it_is_scipys_approximation_with_ties():
    differences = np.round(np.random.default_rng(1).normal(0.1, 1.0, 500), 1)
    kept = differences[differences != 0]
    found = signed_rank(differences)
    peer = stats.wilcoxon(
        kept,
        method="asymptotic" if "asymptotic" in str(stats.wilcoxon.__doc__) else "approx",
        correction=False,
    )
    assert not found.exact
    assert found.p == pytest.approx(peer.pvalue, rel=1e-9)
    assert found.n == len(kept)


def test_at_the_border_exact_and_approximate_agree():
    differences = np.random.default_rng(3).normal(0.12, 1.0, 200)
    exact = signed_rank(differences)
    assert exact.exact
    assert exact.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=1e-6)
    assert exact.p == pytest.approx(
        stats.wilcoxon(differences, correction=False, method="approx").pvalue, rel=0.02
    )


@pytest.mark.parametrize(
    "differences",
    [
        [1, 1, 1, -1, 2],
        [0.5, 0.5, -0.5, 0.5, 0.5, 0.0, 3],
        [1, -1, 2, -2],
        [0.1 + 0.2, 0.3, -0.3, 0.3, 0.3, 0.3],
    ],
)
def test_ties_are_exact_over_every_choice_of_signs(differences):
    values = np.array(differences, float)
    kept = values[values != 0]
    ranks = stats.rankdata(np.round(np.abs(kept), 9))
    sums = np.array(
        [
            ranks[np.array(signs)].sum()
            for signs in itertools.product([False, True], repeat=len(kept))
        ]
    )
    mine = ranks[kept > 0].sum()
    low = min(mine, ranks.sum() - mine)
    expected = min(1.0, 2 * float(np.mean(sums <= low + 1e-9)))
    assert signed_rank(values).p == pytest.approx(expected, abs=1e-12)


def test_what_a_test_can_tell_at_all():
    five, six = signed_rank(np.arange(1.0, 6)), signed_rank(np.arange(1.0, 7))
    assert five.p == pytest.approx(2 / 32)
    assert not five.can_tell
    assert six.p == pytest.approx(2 / 64)
    assert six.can_tell
    assert signed_rank(np.zeros(8)).p == 1.0
    assert np.isnan(signed_rank(np.zeros(0)).p)
    infinite = signed_rank(np.array([INF, INF, 1.0, -2.0, 3.0, NAN]))
    assert infinite.n == 5
    assert infinite.statistic == 2  # of 1, 2, 3 and two infinite ones, the -2 has rank 2


def test_the_effect_is_the_balance_of_ranks():
    assert signed_rank(np.array([1.0, 2, 3])).effect == 1.0
    assert signed_rank(-np.array([1.0, 2, 3])).effect == -1.0
    assert signed_rank(np.array([1.0, 2, -3])).effect == 0.0
    assert signed_rank(np.array([1.0, -2, 3])).effect == pytest.approx((4 - 2) / 6)


def test_the_effects_interval_is_that_of_every_resampling():
    differences = np.array([0.3, -0.1, 0.3, 0.2, 0.0])
    every = [
        signed_rank(differences[list(drawn)]).effect
        for drawn in itertools.product(range(5), repeat=5)
    ]
    assert effect_interval(differences) == pytest.approx(
        np.percentile(every, (2.5, 97.5)), abs=0.03
    )
    assert np.isnan(effect_interval(np.array([0.1]))).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    adjusted = holm([0.02, NAN, 0.03])
    assert np.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.04, 0.04])
    assert holm([]) == []


def test_equal_values_share_their_ranks():
    values = np.array([0.3, 0.1, 0.1 + 0.2, INF, 0.1, INF])
    assert midranks(values).tolist() == [3.5, 1.5, 3.5, 5.5, 1.5, 5.5]


def test_means_of_patients_keep_their_order():
    assert by_patient(np.array([1.0, 2, 3, 5]), ["B", "A", "B", "A"]).tolist() == [2.0, 3.5]
    two = by_patient(np.array([[1.0, 2, 3], [INF, 2, 3]]), ["A", "A", "C"])
    assert two.tolist() == [[1.5, 3.0], [INF, 3.0]]
    assert by_patient(np.zeros((2, 0)), []).shape == (2, 0)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        of_patient = rng.normal(0.0, 1.0, 30)
        low, high = interval(
            np.repeat(of_patient, 2), [f"P{k}" for k in range(30) for _ in range(2)]
        )
        inside += low <= 0 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_ranks_and_how_stable_they_are():
    values = np.array([[0.9, 0.8, 0.7, 0.9], [0.5, 0.4, 0.3, 0.5], [0.9, 0.2, 0.2, 0.95]])
    found = rank(values)
    assert found.mean_rank.tolist() == pytest.approx(
        [(1.5 + 1 + 1 + 2) / 4, (3 + 2 + 2 + 3) / 4, (1.5 + 3 + 3 + 1) / 4]
    )
    assert found.place.tolist() == [1, 3, 2]
    assert found.chance.sum(axis=1) == pytest.approx([1, 1, 1])
    assert found.chance[0, 0] > 0.6
    every = [rank_of(values[:, list(d)]) for d in itertools.product(range(4), repeat=4)]
    assert found.chance[0, 0] == pytest.approx(
        np.mean([places[0] == 1 for places in every]), abs=0.02
    )
    assert np.isnan(rank(np.zeros((2, 0))).mean_rank).all()
    infinite = rank(-np.array([[INF, 1.0], [5.0, INF], [INF, 3.0]]))
    assert infinite.mean_rank.tolist() == [1.75, 2.0, 2.25]


def rank_of(values):
    ranks = stats.rankdata(-values, axis=0).mean(axis=1)
    return 1 + (ranks[None, :] < ranks[:, None] - 1e-9).sum(axis=1)
