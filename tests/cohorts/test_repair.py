"""Mending: nearest neighbour through affines, defaults, overlap, and copies that leave originals
alone.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.cohorts.imitate import AFFINE, SHAPE, box

from delineate.cohorts.checks.repair import (
    COPY_AFFINE,
    RESAMPLE,
    is_default,
    nearest,
    share_inside,
    way_to_mend,
)
from delineate.core.grid import Grid


def test_nearest_gives_back_what_a_reordering_of_axes_moved(grid, asymmetric):
    other, axes = grid.reorient("LIP")
    assert np.array_equal(
        nearest(np.ascontiguousarray(axes.apply(asymmetric)), other, grid), asymmetric
    )


def test_nearest_moves_by_whole_voxels_and_fills_outside_with_background(grid):
    label = np.zeros(grid.shape, np.uint8)
    label[1:3, 2:4, 1:3] = 5
    moved = grid.crop((1, 1, 1), tuple(n + 3 for n in grid.shape))
    out = nearest(label, grid, moved)
    assert out.dtype == np.uint8
    assert np.array_equal(out[0:2, 1:3, 0:2], np.full((2, 2, 2), 5))
    assert int((out == 5).sum()) == 8


def test_nearest_from_coarse_to_fine_keeps_the_place():
    fine, coarse = Grid((20, 20, 8), AFFINE), Grid((20, 20, 8), AFFINE).respace((2.4, 2.2, 2.5))
    label = np.zeros(coarse.shape, np.uint8)
    label[2:4, 3:6, 2:5] = 1
    out = nearest(label, coarse, fine)

    def centre(array, grid):
        return grid.to_mm(np.argwhere(array)).mean(axis=0)

    assert np.abs(centre(out, fine) - centre(label, coarse)).max() < 0.7
    assert out.sum() * fine.voxel_ml == pytest.approx(label.sum() * coarse.voxel_ml, rel=0.25)


def test_share_inside():
    grid = Grid(SHAPE, AFFINE)
    assert share_inside(grid, grid, box(1)) == 1
    assert share_inside(grid, grid, np.zeros(SHAPE)) == 0
    assert share_inside(grid.crop((3, 0, 0), SHAPE), grid, box(1)) == pytest.approx(2 / 3)


def test_ways():
    image = Grid(SHAPE, AFFINE)
    default = Grid(SHAPE, np.diag([0.8, 1.1, 2.5, 1]))
    assert is_default(default)
    assert not is_default(image)
    assert way_to_mend(image, default, box(1))[0] == COPY_AFFINE
    # The image's own place is the one that is missing.
    assert way_to_mend(default, image, box(1))[0] is None
    bigger = Grid((12, 10, 9), image.crop((0, 0, -2), (12, 10, 7)).affine)
    assert way_to_mend(image, bigger, box(1, (12, 10, 9), (2, 2, 4)))[0] == RESAMPLE
    assert way_to_mend(image, bigger, box(1, (12, 10, 9), (2, 2, 0)))[0] is None
