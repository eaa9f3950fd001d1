"""Overlap measures against sets of voxels, counted the slow and obvious way."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from delineate.core.errors import GeometryError, LabelError
from delineate.metrics import overlap
from delineate.metrics.overlap import MEASURES, count, count_foreground, found_values, pool


def voxels(array: np.ndarray, value: int) -> set[tuple[int, ...]]:
    return {tuple(int(n) for n in index) for index in np.argwhere(array == value)}


def array_size(array: np.ndarray) -> int:
    return int(np.prod(array.shape))


def by_sets(
    prediction: np.ndarray, truth: np.ndarray, value: int, voxel_ml: float
) -> dict[str, float]:
    """Every measure from sets of voxel positions; NaN for 0/0."""
    p, t = voxels(prediction, value), voxels(truth, value)

    def ratio(a: float, b: float) -> float:
        return a / b if b else float("nan")

    difference = ratio(100 * (len(p) - len(t)), len(t))
    elsewhere = array_size(prediction) - len(t)
    return {
        "dice": ratio(2 * len(p & t), len(p) + len(t)),
        "iou": ratio(len(p & t), len(p | t)),
        "precision": ratio(len(p & t), len(p)),
        "recall": ratio(len(p & t), len(t)),
        "specificity": ratio(elsewhere - len(p - t), elsewhere),
        "volume_predicted_ml": len(p) * voxel_ml,
        "volume_truth_ml": len(t) * voxel_ml,
        "volume_difference_ml": (len(p) - len(t)) * voxel_ml,
        "volume_difference_percent": difference,
        "absolute_volume_difference_ml": abs(len(p) - len(t)) * voxel_ml,
        "absolute_volume_difference_percent": abs(difference),
    }


def measured(
    prediction: np.ndarray, truth: np.ndarray, value: int, voxel_ml: float
) -> dict[str, float]:
    counts = count(prediction, truth, [value], voxel_ml)
    return {name: float(function(counts)[0]) for name, (_, function) in MEASURES.items()}


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.uint64, np.float32, np.float64]
)
def test_every_measure_equals_sets_of_voxels_on_many_labels(dtype, grid):
    rng = np.random.default_rng(3)
    values = [1, 2, 3, 7, 41, 200]
    truth = rng.choice([0, 0, *values], size=grid.shape).astype(dtype)
    prediction = np.where(
        rng.random(grid.shape) < 0.6, truth, rng.choice([0, *values], size=grid.shape)
    ).astype(dtype)
    counts = count(prediction, truth, values, grid.voxel_ml)
    for i, value in enumerate(values):
        expected = by_sets(prediction, truth, value, grid.voxel_ml)
        for name, (_, function) in MEASURES.items():
            assert function(counts)[i] == pytest.approx(expected[name], nan_ok=True), (name, value)


def test_memory_order_and_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 5, (17, 11, 13), dtype=np.uint8)
    prediction = rng.integers(0, 5, truth.shape, dtype=np.uint8)
    expected = count(prediction, truth, [1, 2, 3, 4], 1.0)
    monkeypatch.setattr(overlap, "CHUNK_VOXELS", 50)
    for p, t in (
        (prediction, truth),
        (np.asfortranarray(prediction), truth),
        (prediction[::-1], truth[::-1]),
        (prediction.transpose(2, 0, 1), np.asfortranarray(truth).transpose(2, 0, 1)),
    ):
        found = count(p, t, [1, 2, 3, 4], 1.0)
        np.testing.assert_array_equal(
            [found.tp, found.fp, found.fn], [expected.tp, expected.fp, expected.fn]
        )


EMPTY, SOME = np.zeros((3, 4, 2), np.uint8), np.ones((3, 4, 2), np.uint8)
NAN = float("nan")


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (
            EMPTY,
            EMPTY,
            {
                "dice": NAN,
                "iou": NAN,
                "precision": NAN,
                "recall": NAN,
                "volume_difference_percent": NAN,
                "volume_difference_ml": 0.0,
            },
        ),
        (
            SOME,
            EMPTY,
            {
                "dice": 0.0,
                "iou": 0.0,
                "precision": 0.0,
                "recall": NAN,
                "volume_difference_percent": NAN,
                "volume_difference_ml": 12.0,
            },
        ),
        (
            EMPTY,
            SOME,
            {
                "dice": 0.0,
                "iou": 0.0,
                "precision": NAN,
                "recall": 0.0,
                "volume_difference_percent": -100.0,
                "volume_difference_ml": -12.0,
            },
        ),
        (
            SOME,
            SOME,
            {
                "dice": 1.0,
                "iou": 1.0,
                "precision": 1.0,
                "recall": 1.0,
                "volume_difference_percent": 0.0,
                "volume_difference_ml": 0.0,
            },
        ),
    ],
)
def test_empty_structures(prediction, truth, expected):
    found = measured(prediction, truth, 1, 0.5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, nan_ok=True), name
    assert found["volume_predicted_ml"] == (12.0 if prediction.any() else 0.0)


def test_unknown_voxel_size_leaves_ratios_and_drops_volumes():
    found = measured(SOME, np.where(np.arange(24).reshape(3, 4, 2) < 20, 1, 0), 1, NAN)
    assert np.isnan(found["volume_predicted_ml"])
    assert np.isnan(found["absolute_volume_difference_ml"])
    assert found["volume_difference_percent"] == pytest.approx(20.0)
    assert found["dice"] == pytest.approx(40 / 44)


def test_undeclared_values_are_refused_and_listed():
    truth = np.array([[[0, 1, 2]]])
    with pytest.raises(LabelError, match=r"undeclared label values 2 in the truth; declared are 1"):
        count(np.zeros_like(truth), truth, [1])
    with pytest.raises(LabelError, match=r"5, 9 in the prediction"):
        count(np.array([[[9, 5, 0]]]), truth, [1, 2])


@pytest.mark.parametrize(
    "bad",
    [
        np.array([[[-1, 0]]]),
        np.array([[[70000, 0]]]),
        np.array([[[0.5, 0]]]),
        np.array([[[np.nan, 0]]]),
    ],
)
def test_what_is_no_label_is_refused(bad):
    with pytest.raises(LabelError):
        count(bad, np.zeros((1, 1, 2), np.uint8))


def test_different_shapes_are_refused():
    with pytest.raises(GeometryError, match=r"\(1, 2, 3\).*\(3, 2, 1\)"):
        count(np.zeros((1, 2, 3)), np.zeros((3, 2, 1)))


def test_values_none_counts_what_occurs():
    counts = count(np.array([[[0, 3, 3]]]), np.array([[[8, 3, 0]]]))
    assert counts.values == (3, 8)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([1, 0], [1, 0], [0, 1])
    assert counts.of([8, 5, 3]).fn.tolist() == [1, 0, 0]


def test_foreground_ignores_the_values():
    counts = count_foreground(np.array([[[0, 63, 63, 0]]]), np.array([[[0, 255, 0, 255]]]))
    assert (counts.tp[0], counts.fp[0], counts.fn[0]) == (1, 1, 1)
    assert found_values(np.array([[[0, 63, 255, 63]]])) == [63, 255]


def test_pooled_is_of_the_sums_not_the_mean_of_the_cases():
    big_t, big_p = np.ones((10, 10, 1), np.uint8), np.ones((10, 10, 1), np.uint8)
    small_t, small_p = np.zeros((10, 10, 1), np.uint8), np.zeros((10, 10, 1), np.uint8)
    small_t[0, :2], small_p[0, 1:3] = 1, 1
    cases = [count(big_p, big_t, [1], 0.1), count(small_p, small_t, [1], 0.3)]
    pooled = pool(cases)
    assert overlap.dice(pooled)[0] == pytest.approx(2 * 101 / (102 + 102))
    assert np.mean([overlap.dice(c)[0] for c in cases]) == pytest.approx(0.75)
    assert pooled.truth_ml[0] == pytest.approx(100 * 0.1 + 2 * 0.3)
    with pytest.raises(ValueError):
        pool([])


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_grows_neither_with_size_nor_with_labels(order):
    peaks = []
    for side, labels in ((128, 2), (128, 4000), (256, 4000)):
        truth = np.zeros((side, side, 128), np.uint16, order=order)
        truth[8:-8, 8:-8, 8:-8] = np.random.default_rng(0).integers(
            0, labels + 1, truth[8:-8, 8:-8, 8:-8].shape
        )
        tracemalloc.start()
        count(truth, truth, range(1, labels + 1))
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    assert max(peaks) < 40, peaks  # MB; one full int64 copy of the last would be 67 MB
    assert peaks[2] < 1.5 * peaks[0] + 2, peaks


def test_a_large_scan_with_many_labels_takes_seconds():
    truth = np.zeros((512, 512, 300), np.uint8)
    truth[100:400, 100:400, 20:280] = (np.arange(300)[:, None, None] // 8) % 42
    started = time.perf_counter()
    counts = count(np.roll(truth, 2, axis=0), truth, range(1, 42), 0.001)
    assert time.perf_counter() - started < 10
    assert (counts.tp + counts.fn).sum() == (truth > 0).sum()


def test_specificity_knows_the_whole_scan_and_not_only_the_block_with_foreground():
    prediction, truth = np.zeros((2, 10, 20, 30), np.uint8)
    truth[2:4, 3, 5], prediction[3:6, 3, 5] = 1, 1
    found = count(prediction, truth)
    assert found.tn.tolist() == [6000 - 4] and overlap.specificity(found)[0] == pytest.approx(
        5996 / 5998
    )
    assert overlap.specificity(count(prediction[2:6, 3:4, 5:6], truth[2:6, 3:4, 5:6]))[
        0
    ] == pytest.approx(0.0)  # the same masks in a tight frame


def test_specificity_where_a_structure_is_absent_unknown_or_everywhere():
    assert overlap.specificity(count(EMPTY, EMPTY, [1])).tolist() == [1.0]
    assert overlap.specificity(count(EMPTY, SOME)).tolist() == pytest.approx([NAN], nan_ok=True)
    assert overlap.specificity(count(SOME, EMPTY)).tolist() == [0.0]
    half = count(np.where(np.arange(24).reshape(3, 4, 2) < 12, 7, 0), EMPTY, [7, 9])
    assert overlap.specificity(half).tolist() == [0.5, 1.0] and overlap.specificity(
        half.of([5, 7])
    ).tolist() == [1.0, 0.5]
    unknown = overlap.Counts(
        (1,), half.tp[:1], half.fp[:1], half.fn[:1], half.predicted_ml[:1], half.truth_ml[:1]
    )
    assert np.isnan(overlap.specificity(unknown)).all() and np.isnan(unknown.tn).all()


def test_pooled_specificity_adds_the_scans():
    one = count(np.array([[[1, 0, 0]]]), np.array([[[0, 0, 0]]]), [1])
    other = count(np.array([[[0, 0, 0, 0, 1]]]), np.array([[[0, 1, 0, 0, 1]]]), [1])
    assert pool([one, other]).scan_voxels == 8 and overlap.specificity(pool([one, other]))[
        0
    ] == pytest.approx(5 / 6)


def two_structures() -> overlap.Counts:
    """Structure 1: TP 6, FP 2, FN 4 (10 voxels); structure 2: TP 1, FP 1, FN 1 (2 voxels)."""
    truth, prediction = np.zeros((2, 1, 5, 6), np.uint8)
    truth[0, :2, :5] = prediction[0, :2, :3] = 1
    prediction[0, 2, :2] = 1
    truth[0, 3, :2] = prediction[0, 3, 1:3] = 2
    return count(prediction, truth, [1, 2])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("square", 2 * (6 / 100 + 1 / 4) / (18 / 100 + 4 / 4)),
        ("simple", 2 * (6 / 10 + 1 / 2) / (18 / 10 + 4 / 2)),
        ("uniform", 2 * 7 / 22),
    ],
)
def test_generalised_dice_by_hand(weights, expected):
    assert overlap.generalised_dice(two_structures(), weights) == pytest.approx(expected)


def test_generalised_dice_where_the_truth_lacks_a_structure():
    """It weighs as much as the heaviest that is there, which is the smallest."""
    truth, prediction = np.zeros((2, 1, 4, 6), np.uint8)
    truth[0, 0, :4] = prediction[0, 0, :4] = 1
    prediction[0, 2, :3] = 2
    counts = count(prediction, truth, [1, 2])
    assert overlap.generalised_dice(counts) == pytest.approx((2 * 4 / 16) / (8 / 16 + 3 / 16))
    # A structure in neither says nothing.
    assert overlap.generalised_dice(count(truth, truth, [1, 2])) == 1.0
    assert overlap.generalised_dice(counts.of([2])) == 0.0 and np.isnan(
        overlap.generalised_dice(count(EMPTY, EMPTY, [1, 2]))
    )
    assert overlap.generalised_dice(count(EMPTY, SOME)) == 0.0


def test_counting_loads_no_compiler():
    """A start of the command line that only counts should not wait for numba or SciPy."""
    code = (
        "import delineate.metrics.overlap, sys; assert not {'numba', 'scipy', 'torch'} & "
        "sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
