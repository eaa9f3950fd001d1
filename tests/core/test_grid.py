from __future__ import annotations

import itertools

import numpy as np
import pytest

from delineate.core.errors import GeometryError
from delineate.core.grid import Grid

CODES = [
    "".join(p)
    for pair in itertools.permutations(("RL", "AP", "SI"))
    for p in itertools.product(*pair)
]


@pytest.mark.parametrize("codes", CODES)
def test_reorienting_moves_no_voxel(grid, asymmetric, codes):
    moved, axes = grid.reorient(codes)
    array = axes.apply(asymmetric)
    assert moved.codes == codes
    assert array.shape == moved.shape
    for index in itertools.product(*[(0, n // 2, n - 1) for n in moved.shape]):
        home = np.rint(grid.to_index(moved.to_mm(index))).astype(int)
        assert array[index] == asymmetric[tuple(home)]
    assert np.array_equal(axes.inverse().apply(array), asymmetric)


@pytest.mark.parametrize("own", ["ijk", "kji", "jik", "kij"])
def test_a_grids_own_axes_change_their_order_and_nothing_else(grid, asymmetric, own):
    moved, axes = grid.reorient(own)
    assert axes.flips == (False, False, False) and np.array_equal(
        axes.apply(asymmetric), asymmetric.transpose(["ijk".index(a) for a in own])
    )
    for index in itertools.product(*[(0, n - 1) for n in moved.shape]):
        home = [index[own.index(a)] for a in "ijk"]
        assert np.allclose(moved.to_mm(index), grid.to_mm(home), atol=1e-9)


def test_reorienting_keeps_channels_first(grid, asymmetric):
    _, axes = grid.reorient("LPI")
    both = np.stack([asymmetric, asymmetric + 1])
    assert np.array_equal(axes.apply(both)[1], axes.apply(asymmetric) + 1)


def test_cropping_moves_no_voxel(grid):
    part = grid.crop((1, 2, 1), (4, 4, 3))
    assert np.allclose(part.to_mm((0, 0, 0)), grid.to_mm((1, 2, 1)))
    assert part.shape == (3, 2, 2)


def test_respacing_keeps_the_outer_faces(grid):
    new = grid.respace((1.7, 0.6, 2.1))
    for corner in itertools.product((0, 1), repeat=3):
        old_face = grid.to_mm([(-0.5, n - 0.5)[c] for c, n in zip(corner, grid.shape, strict=True)])
        new_face = new.to_mm([(-0.5, n - 0.5)[c] for c, n in zip(corner, new.shape, strict=True)])
        assert np.allclose(old_face, new_face)


def test_voxel_volume_is_right_under_shear():
    affine = np.array([[2.0, 0.5, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    assert Grid((2, 2, 2), affine, allow_shear=True).voxel_ml == pytest.approx(0.024)
    with pytest.raises(GeometryError, match="right angles"):
        Grid((2, 2, 2), affine)


def test_distance_is_that_of_the_worst_corner(grid):
    shifted = grid.affine.copy()
    shifted[0, 3] += 0.3
    assert grid.distance_mm(Grid(grid.shape, shifted)) == pytest.approx(0.3)
    assert not grid.matches(Grid(grid.shape, shifted), tolerance_mm=0.2)
    assert grid.distance_mm(Grid((*grid.shape[:2], grid.shape[2] + 1), grid.affine)) == float("inf")


@pytest.mark.parametrize("wrong", ["nan", "flat", "row", "shape"])
def test_unreal_grids_are_refused(wrong):
    affine, shape = np.diag([1.0, 2, 3, 1]), (2, 3, 4)
    if wrong == "nan":
        affine[0, 0] = np.nan
    elif wrong == "flat":
        affine[2, 2] = 0
    elif wrong == "row":
        affine[3] = (0, 0, 1, 1)
    else:
        shape = (2, 0, 4)
    with pytest.raises(GeometryError):
        Grid(shape, affine)


def test_the_affine_cannot_be_changed(grid):
    with pytest.raises(ValueError):
        grid.affine[0, 0] = 5


def test_json_round_trip(grid):
    assert Grid.from_json(grid.to_json()) == grid


@pytest.mark.parametrize(
    ("spacing_mm", "axis"),
    [
        ((0.8, 1.5, 3.0), 2),
        ((3.0, 0.8, 1.5), 0),
        ((0.9, 1.2, 0.9), 1),
        ((1.0, 1.05, 1.0), 2),
        ((2.0, 2.0, 1.0), 2),
    ],
)
def test_slices_are_stacked_along_the_coarsest_axis_or_else_the_last(spacing_mm, axis):
    assert Grid.from_spacing((5, 6, 7), spacing_mm).slice_axis == axis
