from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import InputError, StoreError
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
    box = (slice(5, 9), slice(2, 20), slice(3, 7))
    half_a_step = np.abs(image).max(axis=(1, 2, 3)).astype(float) / 32767 / 2
    assert (
        np.abs(case.values(*box) - image[(slice(None), *box)]).max(axis=(1, 2, 3))
        <= 1.01 * half_a_step
    ).all()
    loaded = case.loaded()
    assert (
        loaded.image.dtype == np.int16
        and loaded.step == case.step
        and np.array_equal(loaded.values(), case.values())
    )
    assert np.array_equal(loaded.label, label)
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


def test_a_damaged_chunk_is_refused_where_it_is_read(tmp_path):
    image, label = scene((40, 40, 40))
    store = Store(tmp_path)
    store.add("a", image, label, 4, (16, 16, 16), notes={"volume_ml": 2.5})
    assert store.notes("a") == {"volume_ml": 2.5}
    path = tmp_path / "a" / "image.b2nd"
    raw, case = path.read_bytes(), store.open("a")
    ends = case.image.checksums.ends
    damaged = bytearray(raw)
    damaged[(ends[1] + ends[2]) // 2] ^= 1
    path.write_bytes(damaged)
    case = store.open("a")
    # The second chunk is (0, 0:16, 0:16, 16:32).
    assert np.array_equal(case.image[0:1, 16:40], store.open("a").image[0:1, 16:40])
    assert case.image[0:1, 0:16, 0:16, 0:16].size == 16**3
    for box in ((slice(0, 1), slice(0, 2), slice(3, 4), slice(15, 17)), slice(None)):
        with pytest.raises(StoreError, match=r"case a: .*damaged"):
            case.image[box]
    for place in (12, 60, ends[-1] + 3, len(raw) - 2):  # in the header, the index, the trailer
        damaged = bytearray(raw)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            store.open("a")


def test_steps_keep_zero_and_give_way_where_they_would_be_coarse(tmp_path):
    label = np.zeros((4, 5, 6), np.uint8)
    image = np.zeros((3, 4, 5, 6), np.float32)
    image[0, 0, 0] = [0, 1, -2, 3, 0.001, 0]
    image[1] = 7
    Store(tmp_path).add("a", image, label, 2, (4, 4, 4))
    case = Store(tmp_path).open("a")
    assert case.image.dtype == np.int16 and (case.values()[image == 0] == 0).all()
    assert np.abs(case.values() - image).max() < 1e-4
    image[2, 0, 0, 0] = 5000  # a step of int16 would be 0.15
    Store(tmp_path).add("b", image, label, 2, (4, 4, 4))
    case = Store(tmp_path).open("b")
    assert (
        case.image.dtype == np.float32
        and np.array_equal(case.values(), image)
        and set(case.steps) == {1.0}
    )


def test_a_case_of_an_earlier_version_is_read(tmp_path):
    import blosc2

    image, label = scene()
    store = Store(tmp_path)
    store.add("a", image, label, 4, (16, 16, 8))
    (tmp_path / "a/image.b2nd").unlink()
    blosc2.asarray(image, urlpath=str(tmp_path / "a/image.b2nd"), mode="w")
    with np.load(tmp_path / "a/case.npz") as kept:
        arrays = {name: kept[name] for name in ("spacing_mm", "1", "3")}
    np.savez(tmp_path / "a/case.npz", **arrays)
    assert np.array_equal(store.open("a").values(), image.astype(np.float32))
