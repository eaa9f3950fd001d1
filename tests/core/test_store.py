from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import InputError
from delineate.core.store import POINTS, Store, class_points


def scene(shape=(30, 21, 13)):
    rng = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    label[3:20, 4:15, 2:9] = 1
    label[22:24, 2:5, 3:4] = 3
    return rng.normal(size=(2, *shape)).astype(np.float16), label


def test_round_trip_and_slices(tmp_path):
    image, label = scene()
    store = Store(tmp_path / "store")
    assert not store.has("a")
    store.add("a", image, label, classes=4, chunk=(16, 16, 8))
    case = store.open("a")
    assert store.has("a") and case.shape == label.shape
    assert np.array_equal(case.image[:, 5:9, 2:20, 3:7], image[:, 5:9, 2:20, 3:7])
    loaded = case.loaded()
    assert np.array_equal(loaded.image, image) and np.array_equal(loaded.label, label)
    assert store.nbytes(["a"]) == image.nbytes + label.nbytes


def test_points_lie_in_their_class():
    _, label = scene()
    points = class_points(label, 4, np.random.default_rng(0))
    assert set(points) == {1, 3} and len(points[1]) == POINTS and len(points[3]) == 6
    assert all((label[tuple(p.T)] == c).all() for c, p in points.items())
    assert class_points(np.zeros((3, 3, 3), np.uint8), 4, np.random.default_rng(0)) == {}


def test_a_half_written_case_is_not_there(tmp_path):
    image, label = scene()
    store = Store(tmp_path)
    store.add("a", image, label, 4, (16, 16, 8))
    (tmp_path / "a" / "case.npz").unlink()
    assert not store.has("a")
    with pytest.raises(InputError, match="case a"):
        store.open("a")
    store.add("a", image, label, 4, (16, 16, 8))
    assert store.has("a")
