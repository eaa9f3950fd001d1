"""Confusion between structures and the rates of one, against counting voxel by voxel and tables
written out by hand.
"""

import numpy as np
import pytest

from delineate.core.errors import GeometryError, LabelError
from delineate.metrics import overlap
from delineate.metrics.confusion import RATES, Confusion, confusion, pool
from delineate.metrics.overlap import Counts

NAN = float("nan")


def maps(seed, shape=(7, 9, 11), values=(0, 0, 3, 7, 200), dtype=np.uint8):
    rng = np.random.default_rng(seed)
    truth = rng.choice(values, shape).astype(dtype)
    return np.where(rng.random(shape) < 0.5, truth, rng.choice(values, shape)).astype(dtype), truth


def by_voxels(prediction, truth, values):
    order = [0, *values]
    out = np.zeros((len(order),) * 2, np.int64)
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        out[order.index(t), order.index(p)] += 1
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("shape", [(7, 9, 11), (13, 8), (1, 1, 5), (4, 1, 3)])
def test_it_counts_every_pair(dtype, shape):
    prediction, truth = maps(1, shape, dtype=dtype)
    values = [200, 3, 7]  # in the order asked for
    np.testing.assert_array_equal(
        confusion(prediction, truth, values).voxels, by_voxels(prediction, truth, values)
    )
    found = confusion(prediction, truth)
    assert list(found.values) == sorted(
        set(np.unique([*prediction.ravel(), *truth.ravel()]).astype(int).tolist()) - {0}
    )
    np.testing.assert_array_equal(found.voxels, by_voxels(prediction, truth, found.values))


def test_truth_is_along_the_rows():
    found = confusion(np.array([[[0, 2, 2, 2]]]), np.array([[[0, 1, 1, 2]]]))
    assert found.voxels.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 1]]
    np.testing.assert_array_equal(found.shares(), [[1, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert np.isnan(confusion(np.array([[1]]), np.array([[2]])).shares()[:2]).all()


def test_memory_order_chunks_and_mixed_dtypes_do_not_matter(monkeypatch):
    prediction, truth = maps(2)
    expected = by_voxels(prediction, truth, [3, 7, 200])
    monkeypatch.setattr(overlap, "CHUNK_VOXELS", 50)
    for p, t in (
        (np.asfortranarray(prediction), truth),
        (prediction[::-1], truth[::-1]),
        (prediction.T, np.asfortranarray(truth.T)),
        (prediction.astype(np.int64), truth),
        (prediction, truth.astype(np.uint16)),
    ):
        np.testing.assert_array_equal(confusion(p, t).voxels, expected)


def test_its_counts_are_those_of_overlap():
    prediction, truth = maps(3)
    found, counted = (
        confusion(prediction, truth).counts(0.5),
        overlap.count(prediction, truth, voxel_ml=0.5),
    )
    for name in ("tp", "fp", "fn", "tn", "predicted_ml", "truth_ml"):
        np.testing.assert_array_equal(getattr(found, name), getattr(counted, name))
    assert found.values == counted.values and found.scan_voxels == counted.scan_voxels == truth.size
    with_background = confusion(prediction, truth).counts(background=True)
    assert with_background.values == (0, 3, 7, 200)
    assert (
        with_background.tp[0] == ((prediction == 0) & (truth == 0)).sum()
        and with_background.fn[0] == ((prediction != 0) & (truth == 0)).sum()
    )


def test_empty_maps_and_pooling():
    nothing = np.zeros((3, 4, 5), np.uint8)
    assert confusion(nothing, nothing).voxels.tolist() == [[60]] and confusion(
        nothing[:0], nothing[:0], [1]
    ).voxels.tolist() == [[0, 0], [0, 0]]
    a, b = (confusion(*maps(n), [3, 7, 200]) for n in (4, 5))
    np.testing.assert_array_equal(pool([a, b]).voxels, a.voxels + b.voxels)
    for cases in ([], [a, Confusion((3,), np.zeros((2, 2), np.int64))]):
        with pytest.raises(ValueError):
            pool(cases)


def test_what_does_not_fit_is_refused():
    prediction, truth = maps(6)
    with pytest.raises(GeometryError):
        confusion(prediction[1:], truth)
    with pytest.raises(LabelError, match="values 7, 200 in the prediction; declared are 3"):
        confusion(prediction, np.minimum(truth, 3), [3])
    with pytest.raises(LabelError, match="values 200 in the truth"):
        confusion(np.zeros_like(truth), truth, [3, 7])
    for bad in (-1, 70000, 0.5, NAN):
        with pytest.raises(LabelError):
            confusion(np.array([[bad]]), np.zeros((1, 1), np.uint8))


def table(tp, fp, fn, tn):
    one = [np.array([n], np.int64) for n in (tp, fp, fn)]
    return Counts((1,), *one, np.array([NAN]), np.array([NAN]), tp + fp + fn + tn)


def test_rates_by_hand():
    """TP 20, FP 5, FN 10, TN 65."""
    expected = {
        "negative_predictive_value": 65 / 75,
        "miss_rate": 10 / 30,
        "fall_out": 5 / 70,
        "false_discovery_rate": 5 / 25,
        "false_omission_rate": 10 / 75,
        "accuracy": 0.85,
        "balanced_accuracy": (20 / 30 + 65 / 70) / 2,
        "informedness": 20 / 30 + 65 / 70 - 1,
        "markedness": 20 / 25 + 65 / 75 - 1,
        "matthews": (20 * 65 - 5 * 10) / np.sqrt(25 * 30 * 70 * 75),
        "fowlkes_mallows": np.sqrt(20 / 25 * 20 / 30),
        "prevalence_threshold": (np.sqrt(20 / 30 * 5 / 70) + 65 / 70 - 1) / (20 / 30 + 65 / 70 - 1),
    }
    assert expected.keys() == RATES.keys()
    for name, value in expected.items():
        assert RATES[name](table(20, 5, 10, 65))[0] == pytest.approx(value), name


TN_FREE = {"miss_rate", "false_discovery_rate", "fowlkes_mallows"}


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        (
            table(0, 5, 0, 9),
            {
                "miss_rate",
                "balanced_accuracy",
                "informedness",
                "prevalence_threshold",
                "fowlkes_mallows",
                "matthews",
            },
        ),
        (
            table(4, 0, 5, 0),
            {"fall_out", "balanced_accuracy", "informedness", "prevalence_threshold", "matthews"},
        ),
        (
            table(0, 0, 5, 9),
            {
                "false_discovery_rate",
                "markedness",
                "fowlkes_mallows",
                "matthews",
                "prevalence_threshold",
            },
        ),
        (
            table(4, 5, 0, 0),
            {"negative_predictive_value", "false_omission_rate", "markedness", "matthews"},
        ),
        (table(4, 5, 6, NAN), RATES.keys() - TN_FREE),
    ],
)
def test_where_a_rate_is_not_defined(counts, undefined):
    assert {name for name, rate in RATES.items() if np.isnan(rate(counts)[0])} == undefined


def test_the_product_of_large_counts_does_not_overflow():
    assert RATES["matthews"](table(10**8, 0, 0, 10**8))[0] == pytest.approx(1)
    # Recall equals fall-out.
    assert RATES["prevalence_threshold"](table(2, 2, 2, 2))[0] == pytest.approx(0.5)
