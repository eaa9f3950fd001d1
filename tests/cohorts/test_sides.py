"""Structures on the wrong side: distances by hand, in arrays of any order in memory."""

import tracemalloc

import numpy as np
import pytest
from tests.conftest import affine

from delineate.cohorts.checks.sides import wrong_sides
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume

LABELS = LabelSet.from_names({1: "left lung", 2: "right lung", 700: "left kidney"})


@pytest.mark.parametrize("order", ["C", "F"])
def test_distances_are_those_of_centroids(order):
    grid = Grid((20, 12, 9), affine((2.0, 1.0, 3.0), degrees=(10, -20, 30)))
    array = np.zeros(grid.shape, np.uint16, order)
    array[14:18, 2:5, 1:4], array[2:6, 6:9, 2:7], array[18, 10, 8] = 1, 2, 700

    def x(value):
        return float(grid.to_mm(np.argwhere(array == value))[:, 0].mean())

    wrong = wrong_sides(Volume(array, grid, "label"), LABELS, middle_mm=x(2), width_mm=20.0)
    assert wrong == pytest.approx({1: x(1) - x(2), 2: x(1) - x(2), 700: x(700) - x(2)}, abs=1e-9)


def test_many_voxels_need_little_memory():
    array = np.ones((64, 128, 128), np.uint8)
    volume = Volume(array, Grid(array.shape, np.eye(4)), "label")
    tracemalloc.start()
    try:
        assert wrong_sides(volume, LABELS, middle_mm=0.0, width_mm=64.0) == {1: 31.5}
        assert tracemalloc.get_traced_memory()[1] < array.nbytes
    finally:
        tracemalloc.stop()
