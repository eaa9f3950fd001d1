from __future__ import annotations

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
