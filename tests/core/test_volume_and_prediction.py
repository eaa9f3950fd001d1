from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from delineate.core.errors import GeometryError, LabelError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.prediction import Prediction
from delineate.core.volume import Volume, stack_channels


def test_a_volume_stands_on_its_grid(grid, asymmetric):
    volume = Volume(asymmetric, grid)
    assert volume.channels == 1 and volume.channels_array.shape == (1, *grid.shape)
    with pytest.raises(GeometryError, match="does not fit"):
        Volume(asymmetric[:-1], grid)
    with pytest.raises(GeometryError, match="unit"):
        Volume(asymmetric, grid, "mm")
    with pytest.raises(GeometryError, match="real numbers"):
        Volume(asymmetric.astype(complex), grid)


def test_reorienting_a_volume_moves_no_voxel(grid, asymmetric):
    moved = Volume(np.stack([asymmetric, -asymmetric]), grid).reorient("LPI")
    index = (0, moved.grid.shape[1] - 1, 1)
    home = np.rint(grid.to_index(moved.grid.to_mm(index))).astype(int)
    assert moved.array[(0, *index)] == asymmetric[tuple(home)] == -moved.array[(1, *index)]


def test_channels_are_stacked_only_where_they_stand_together(grid, asymmetric):
    one = Volume(asymmetric, grid)
    assert stack_channels([one, one], ["a", "b"]).channels == 2
    shifted = grid.affine.copy()
    shifted[1, 3] += 2
    with pytest.raises(GeometryError, match=r"channel b .* 2\.00 mm away"):
        stack_channels([one, Volume(asymmetric, Grid(grid.shape, shifted))], ["a", "b"])
    with pytest.raises(GeometryError, match="no channels"):
        stack_channels([], [])


def test_a_prediction_knows_its_values_and_volumes(grid):
    labels = LabelSet.from_names({1: "liver", 4: "spleen"})
    array = np.zeros(grid.shape, np.uint8)
    array[:2] = 4
    found = Prediction(Volume(array, grid, "label"), labels)
    assert found.volumes_ml == {
        "liver": 0.0,
        "spleen": pytest.approx(2 * grid.shape[1] * grid.shape[2] * grid.voxel_ml),
    }
    array = array.copy()
    array[0, 0, 0] = 3
    with pytest.raises(LabelError, match="3"):
        Prediction(Volume(array, grid, "label"), labels)


@pytest.mark.parametrize(
    ("meta", "spacing_mm", "fits"),
    [
        ({"place_known": False, "spacing_known": False}, (0.5, 0.2, 1), True),  # the mask has none
        ({"place_known": False}, (1, 1, 1), True),  # the image has none
        ({"place_known": False}, (0.5, 0.2, 1), False),
        ({"place_known": True}, (1, 1, 1), False),
    ],
)
def test_a_mask_without_spacing_gets_that_of_its_picture(meta, spacing_mm, fits):
    axes = np.diag([-1.0, -1.0, 1.0, 1.0])
    mask = Volume(np.ones((4, 3, 1), np.uint8), Grid((4, 3, 1), axes @ np.diag([2, 3, 1, 1])))
    if not meta.get("spacing_known", True):
        mask = replace(mask, grid=Grid((4, 3, 1), axes))
    image = Grid((4, 3, 1), axes * [*spacing_mm, 1])
    placed = replace(mask, meta=meta).on_grid(image)
    assert (placed is not None and placed.grid == image) is fits
    moved = image.affine + np.eye(4, k=3) * 5
    assert replace(mask, meta=meta).on_grid(Grid((4, 3, 1), moved)) is None


def test_voxels_of_a_microscope_have_a_tolerance_of_half_a_voxel():
    one = Grid.from_spacing((4, 3, 2), (0.0003, 0.0003, 0.001))
    shifted = Grid(one.shape, one.affine + np.eye(4, k=3) * 0.0002)
    assert not one.matches(shifted) and one.matches(one)
    assert Grid.from_spacing((4, 3, 2), (1, 1, 3)).tolerance_mm == 0.1
