"""Calibration of probabilities against its definitions written out voxel by voxel, and against
tables counted by hand.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.core.errors import GeometryError, InputError, LabelError
from delineate.trust import calibration as module
from delineate.trust.calibration import calibration, near_foreground, pool


def made(seed, shape=(7, 6, 5), classes=4, sharp=1.0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    scores = np.exp(sharp * rng.standard_normal((classes, *shape)))
    return (scores / scores.sum(0)).astype(dtype), rng.integers(0, classes, shape).astype(np.uint8)


def by_bins(confidence, right, bins):
    """(count, confidence, right) of each bin, by asking each value of which it is."""
    out = np.zeros((3, bins))
    for c, r in zip(confidence.ravel().tolist(), right.ravel().tolist(), strict=True):
        at = next(n for n in range(bins) if c <= (n + 1) / bins or n == bins - 1)
        out[:, at] += (1, c, r)
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([1, 5, 10, 15]),
    st.sampled_from([0.3, 3.0]),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_it_is_what_the_definitions_say(seed, bins, sharp, dtype):
    p, truth = made(seed, (4, 3, 5), 3, sharp, dtype)
    found = calibration(p, truth, bins=bins)
    exact = p.astype(np.float64)
    cases = [
        (
            found.together,
            exact.max(0),
            exact.argmax(0) == truth,
            sum((exact[c] - (truth == c)) ** 2 for c in range(3)),
        )
    ]
    cases += [
        (one, exact[c], truth == c, (exact[c] - (truth == c)) ** 2)
        for c, one in enumerate(found.structures, start=1)
    ]
    for one, confidence, right, squares in cases:
        count, total, good = by_bins(confidence, right, bins)
        np.testing.assert_array_equal(one.count, count)
        np.testing.assert_array_equal(one.right, good)
        np.testing.assert_allclose(one.confidence, total)
        filled = count > 0
        gaps = np.abs(good[filled] / count[filled] - total[filled] / count[filled])
        assert one.ece == pytest.approx(
            (gaps * count[filled]).sum() / count.sum()
        ) and one.mce == pytest.approx(gaps.max())
        assert one.brier == pytest.approx(squares.mean())


def test_counted_by_hand():
    """Four voxels, two classes: confident and right, unsure and right, unsure and wrong, confident
    and wrong.
    """
    foreground = np.array([[[0.95, 0.65, 0.35, 0.05]]])
    truth = np.array([[[1, 1, 1, 1]]])
    found = calibration(np.stack([1 - foreground, foreground]), truth, bins=10)
    together, one = found.together, found.structures[0]
    assert together.count.tolist() == [0] * 6 + [2, 0, 0, 2] and together.right.tolist() == [
        0
    ] * 6 + [1, 0, 0, 1]
    assert together.ece == pytest.approx(
        0.5 * abs(0.5 - 0.65) + 0.5 * abs(0.5 - 0.95)
    ) and together.mce == pytest.approx(0.45)
    assert one.count.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1] and one.right.tolist() == [
        1,
        0,
        0,
        1,
        0,
        0,
        1,
        0,
        0,
        1,
    ]
    assert one.ece == pytest.approx((0.05 + 0.35 + 0.65 + 0.95) / 4) and one.mce == pytest.approx(
        0.95
    )
    assert one.brier == pytest.approx(
        (0.05**2 + 0.35**2 + 0.65**2 + 0.95**2) / 4
    ) and together.brier == pytest.approx(2 * one.brier)
    rows = together.rows()
    assert rows[6] == {
        "above": 0.6,
        "up_to": 0.7,
        "voxels": 2,
        "mean_confidence": pytest.approx(0.65),
        "accuracy": 0.5,
    }
    assert len(rows) == 10 and rows[0]["voxels"] == 0 and np.isnan(rows[0]["accuracy"])


def test_the_ends_of_brier_and_what_calibrated_means():
    truth = np.array([[[0, 1, 2]]])
    right = np.stack([truth == c for c in range(3)]).astype(np.float32)
    assert (
        calibration(right, truth).together.brier == 0
        and calibration(np.roll(right, 1, 0), truth).together.brier == 2
    )
    rng = np.random.default_rng(0)
    p = rng.random((60, 50, 40))
    drawn = rng.random(p.shape) < p
    assert calibration(np.stack([1 - p, p]), drawn).structures[0].ece < 0.01
    assert calibration(np.stack([1 - p, p]), np.ones_like(drawn)).structures[
        0
    ].ece == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bins", [3, 10, 15, 49])
def test_a_value_between_two_bins_is_in_the_lower(bins):
    """Products of such values with the number of bins are rounded up now and then."""
    for n in range(1, bins + 1):
        for value, at in (
            (n / bins, n - 1),
            (np.nextafter(n / bins, 2), min(n, bins - 1)),
            (np.nextafter(n / bins, 0), n - 1),
        ):
            assert module._bin(value, bins) == module._bin.py_func(value, bins) == at, (value, bins)
    assert (
        module._bin(0.0, bins) == 0
        and module._bin(-0.001, bins) == 0
        and module._bin(1.001, bins) == bins - 1
    )


def test_slabs_memory_order_and_labels_do_not_matter(monkeypatch):
    p, truth = made(1)
    expected = calibration(p, truth)
    monkeypatch.setattr(module, "SLAB_VOXELS", 40)
    relabelled = np.array([0, 300, 7, 9], np.uint16)[truth]
    for found in (
        calibration(np.asfortranarray(p), np.asfortranarray(truth)),
        calibration(p, relabelled, [300, 7, 9]),
        calibration(p.transpose(0, 3, 1, 2), truth.transpose(2, 0, 1).astype(np.float32)),
    ):
        for one, other in zip(
            (found.together, *found.structures),
            (expected.together, *expected.structures),
            strict=True,
        ):
            np.testing.assert_array_equal(one.count, other.count)
            assert one.ece == pytest.approx(other.ece) and one.brier == pytest.approx(other.brier)


def test_a_region_is_all_that_is_judged():
    p, truth = made(2)
    box = (slice(1, 5), slice(0, 4), slice(2, 5))
    mask = np.zeros(truth.shape, bool)
    mask[box] = True
    cut = calibration(np.ascontiguousarray(p[(slice(None), *box)]), truth[box])
    for found in (calibration(p, truth, region=box), calibration(p, truth, region=mask)):
        np.testing.assert_array_equal(found.together.count, cut.together.count)
        assert (
            found.structures[2].ece == pytest.approx(cut.structures[2].ece)
            and found.together.voxels == 48
        )
    ragged = np.random.default_rng(0).random(truth.shape) < 0.3
    assert calibration(p, truth, region=ragged).together.brier == pytest.approx(
        np.mean(sum((p[c].astype(float) - (truth == c)) ** 2 for c in range(4))[ragged])
    )


def test_empty_regions_and_absent_structures():
    p, truth = made(3)
    for region in (np.zeros(truth.shape, bool), (slice(0, 0),) * 3):
        found = calibration(p, truth, region=region)
        assert found.together.voxels == 0 and all(
            np.isnan(
                [
                    found.together.ece,
                    found.together.mce,
                    found.together.brier,
                    found.structures[1].ece,
                ]
            )
        )
    absent = calibration(p, np.zeros_like(truth)).structures[1]
    assert absent.ece == pytest.approx(p[2].mean(dtype=float)) and absent.brier == pytest.approx(
        (p[2].astype(float) ** 2).mean()
    )


def test_pooled_is_of_all_voxels_together():
    (p, t), (q, u) = made(4), made(5)
    found, both = (
        pool([calibration(p, t), calibration(q, u)]),
        calibration(np.concatenate([p, q], 1), np.concatenate([t, u])),
    )
    for one, other in zip(
        (found.together, *found.structures), (both.together, *both.structures), strict=True
    ):
        np.testing.assert_array_equal(one.count, other.count)
        assert one.ece == pytest.approx(other.ece) and one.brier == pytest.approx(other.brier)
    for cases in (
        [],
        [calibration(p, t), calibration(p, t, bins=3)],
        [calibration(p, t), calibration(p[:2] / p[:2].sum(0), t > 0)],
    ):
        with pytest.raises(ValueError):
            pool(cases)


def test_near_foreground():
    truth = np.zeros((20, 30, 9), np.uint8)
    truth[3:6, 10:12, 4] = 2
    assert near_foreground(truth, (1, 2, 5), 6.0) == (slice(0, 12), slice(7, 15), slice(2, 7))
    assert truth[near_foreground(truth * 0, (1, 2, 5))].size == 0


def test_flat_images_and_views():
    p, truth = made(6, (8, 9))
    assert calibration(p, truth).together.ece == pytest.approx(
        calibration(p[..., None], truth[..., None]).together.ece
    )


def test_what_does_not_fit_is_refused():
    p, truth = made(7)
    for call in (
        lambda: calibration(p[:, 1:], truth),
        lambda: calibration(p, truth, [1, 2]),
        lambda: calibration(p, truth, region=truth[1:] > 0),
    ):
        with pytest.raises(GeometryError):
            call()
    with pytest.raises(LabelError, match="values 3 in the truth"):
        calibration(p, truth, [1, 2, 4])
    nan = p.copy()
    nan[1, 2, 3, 4] = np.nan
    for bad in (p * 1.1, np.log(p), nan, p - 0.1):
        with pytest.raises(InputError, match="add up to 1"):
            calibration(bad, truth)
    with pytest.raises(ValueError):
        calibration(p, truth, bins=0)


def test_memory_does_not_grow_with_the_scan():
    peaks = []
    for side in (64, 128):
        p = np.full((3, side, side, 64), 1 / 3, np.float16)
        truth = np.zeros(p.shape[1:], np.uint8)
        calibration(p[:, :1], truth[:1])
        tracemalloc.start()
        calibration(p, truth)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    # A float32 copy of the larger would be 12.6 MB.
    assert peaks[1] < 1.2 * peaks[0] + 1 and peaks[1] < 12, peaks
