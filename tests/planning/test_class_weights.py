from __future__ import annotations

import numpy as np
import pytest

from delineate.planning.class_weights import inverse_frequency_weights, median_frequency_weights


def test_median_frequency_is_a_true_ratio():
    """The original's integer division gives 0, 0, 1, 2, 10 here: background and the largest
    structure would not be learnt.
    """
    weights = median_frequency_weights(np.array([100_000, 400, 200, 80, 20]))
    assert weights == pytest.approx([0.002, 0.5, 1.0, 2.5, 10.0]) and weights.dtype == np.float64


def test_median_of_an_even_number_of_classes_lies_between_two():
    assert median_frequency_weights([10, 30]) == pytest.approx([2.0, 2 / 3])


def test_inverse_frequency_has_mean_one():
    weights = inverse_frequency_weights([900, 90, 10])
    assert weights.mean() == pytest.approx(1)
    assert weights * [900, 90, 10] == pytest.approx(weights[0] * 900 * np.ones(3))


@pytest.mark.parametrize("rule", [median_frequency_weights, inverse_frequency_weights])
def test_only_the_ratio_of_counts_matters(rule):
    counts = np.array([7_000_000_000, 30_000, 11, 2_000])  # more voxels than 32 bits hold
    assert rule(counts) == pytest.approx(rule(counts / counts.sum()))


@pytest.mark.parametrize("rule", [median_frequency_weights, inverse_frequency_weights])
def test_an_absent_class_weighs_as_the_rarest_present(rule):
    weights = rule([500, 0, 20, 100, 0])
    assert np.isfinite(weights).all() and weights[1] == weights[4] == weights[2] == weights.max()


def test_absent_classes_do_not_move_the_median():
    assert median_frequency_weights([100, 0, 0, 0, 25, 50])[[0, 4, 5]] == pytest.approx(
        median_frequency_weights([100, 25, 50])
    )


@pytest.mark.parametrize("rule", [median_frequency_weights, inverse_frequency_weights])
@pytest.mark.parametrize("wrong", [[], [0, 0], [3, -1], [1, float("nan")], [[1, 2], [3, 4]], 5])
def test_what_is_no_count_is_refused(rule, wrong):
    with pytest.raises(ValueError, match=r"voxel"):
        rule(wrong)
