"""Counting slice by slice: by hand, along each axis, and the same sum as counting the whole."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import GeometryError
from delineate.metrics import overlap
from delineate.metrics.by_slice import count_slices


def test_slices_by_hand():
    truth, prediction = np.zeros((4, 3, 5), np.uint8), np.zeros((4, 3, 5), np.uint8)
    truth[:4, 0, 1] = 1  # slice 1: 4 pixels, half of them found
    prediction[:2, 0, 1] = 1
    prediction[0, 0, 3] = 1  # slice 3: drawn where nothing is
    truth[1, 1, 1] = prediction[1, 1, 1] = 7
    found = count_slices(prediction, truth)
    assert found.slices == 5
    assert list(zip(found.index, found.value, found.tp, found.fp, found.fn, strict=True)) == [
        (1, 1, 2, 0, 2),
        (1, 7, 1, 0, 0),
        (3, 1, 0, 1, 0),
    ]
    assert found.measure("dice").tolist() == [pytest.approx(4 / 6), 1.0, 0.0]
    assert found.measure("iou").tolist() == [0.5, 1.0, 0.0]
    assert found.of([7]).tp.tolist() == [1]
    assert found.of([7]).slices == 5


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
def test_slices_along_any_axis_add_up_to_the_whole(axis, order):
    rng = np.random.default_rng(3)
    truth = np.asarray(
        rng.integers(0, 4, (6, 5, 9)) * (rng.random((6, 5, 9)) < 0.3), np.uint16, order=order
    )
    prediction = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, 4, truth.shape), truth)
    found, whole = (
        count_slices(prediction, truth, axis),
        overlap.count(prediction, truth, [1, 2, 3]),
    )
    assert found.slices == truth.shape[axis]
    for position, value in enumerate(whole.values):
        part = found.of([value])
        assert (part.tp.sum(), part.fp.sum(), part.fn.sum()) == (
            whole.tp[position],
            whole.fp[position],
            whole.fn[position],
        )
        k = int(part.index[0])
        assert part.tp[0] == np.sum(
            (np.take(prediction, k, axis) == value) & (np.take(truth, k, axis) == value)
        )


def test_nothing_anywhere_and_shapes_that_differ():
    empty = count_slices(np.zeros((3, 4, 5)), np.zeros((3, 4, 5)))
    assert (empty.slices, len(empty.tp), len(empty.measure("dice"))) == (5, 0, 0)
    with pytest.raises(GeometryError, match=r"\(3, 4, 5\)"):
        count_slices(np.zeros((3, 4, 5)), np.zeros((3, 4, 6)))
