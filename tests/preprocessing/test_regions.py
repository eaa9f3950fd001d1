"""What lies far outside a body, in phantoms whose anatomy is known and in a real scan; boxes and
connected components of label maps.
"""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from delineate.cohorts.discovery.layouts import find
from delineate.cohorts.phantom.cohort import make_scan
from delineate.formats import files
from delineate.preprocessing import regions
from delineate.preprocessing.regions import (
    boxes,
    component_sizes,
    connected_components,
    far_from_body,
    keep_largest,
)


def ellipsoid(shape, centre, radii):
    at = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((a - c) / r) ** 2 for a, c, r in zip(at, centre, radii, strict=True)) <= 1


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 1.5, 5.0), (8.0, 8.0, 10.0)])
def test_lungs_are_inside_and_what_is_beyond_the_margin_is_not(spacing):
    extent = np.array([300.0, 240.0, 300.0])
    shape = tuple(int(n) for n in np.ceil(extent / spacing))

    def scaled(mm):
        return np.array(mm) / spacing

    hu = np.random.default_rng(0).normal(-1000, 20, shape)
    body = ellipsoid(shape, scaled((150, 120, 150)), scaled((90, 60, 400)))
    # Cut open by the end of the scan.
    lungs = ellipsoid(shape, scaled((150, 120, 290)), scaled((60, 40, 100)))
    hu[body], hu[lungs] = 40, -850
    far = far_from_body(hu, -300, spacing, 30)
    assert not far[body | lungs].any()
    wider, widest = (
        ellipsoid(shape, scaled((150, 120, 150)), scaled((90 + m, 60 + m, 1e4)))
        for m in (25, 30 + 3 * max(spacing) + 10)
    )
    assert (
        not far[wider].any() and far[:, :, shape[2] // 2][~widest[:, :, shape[2] // 2]].mean() > 0.5
    )


def test_where_there_is_no_body_nothing_is_far_from_it():
    assert not far_from_body(np.full((9, 8, 7), -1000.0), -300, (1, 1, 1), 30).any()


def test_a_speck_is_no_body_and_arms_are():
    hu = np.full((160, 60, 40), -1000.0)
    hu[60:100, 20:40] = hu[10:20, 25:35] = 40  # trunk, arm
    hu[150, 50, 20] = 1000
    far = far_from_body(hu, -300, (5, 5, 5), 30)
    assert far[150, 50, 20] and not far[10:20, 25:35].any()


def test_a_phantom_keeps_its_organs():
    scan = make_scan(1)
    far = far_from_body(scan.image.array, -300, scan.image.grid.spacing_mm, 30)
    assert (
        not far[scan.label.array > 0].any()
        and far.mean() > 0.05
        and (scan.image.array[far] > -200).mean() < 0.02
    )


def test_a_real_liver_is_not_far_from_the_body(real_data):
    case = next(iter(find(real_data / "chaos_ct")))
    volume = files.read(case.images[0].path)
    far = far_from_body(volume.array, -300, volume.grid.spacing_mm, 30)
    assert 0.02 < far.mean() < 0.6
    assert (volume.array[far] > -300).mean() < 0.02  # a table


@pytest.mark.parametrize("by_voxels", [0, regions.VOXELS_OF_A_RUN])
@pytest.mark.parametrize("slab", [1, 40, 2**22])
def test_boxes_and_components_are_those_of_scipy(monkeypatch, slab, by_voxels):
    monkeypatch.setattr(regions, "SLAB_VOXELS", slab)
    monkeypatch.setattr(regions, "VOXELS_OF_A_RUN", by_voxels)
    monkeypatch.setattr(regions, "FEWEST_VOXELS", 0)
    rng = np.random.default_rng(0)
    for _ in range(25):
        shape = tuple(rng.integers(1, 9, 3))
        labels = (rng.integers(0, 4, shape) * (rng.random(shape) < rng.random())).astype(np.uint8)
        # As it is, as NIfTI lies in memory, and as part of a larger array.
        for array in (labels, np.asfortranarray(labels), np.pad(labels, 1)[1:-1, 1:-1, 1:-1]):
            found = ndimage.find_objects(array)
            assert boxes(array) == {n: box for n, box in enumerate(found, 1) if box}
            numbered, count = ndimage.label(array == 1, np.ones((3, 3, 3)))
            sizes = np.bincount(numbered.ravel(), minlength=1)[1:]
            assert sorted(component_sizes(array == 1)) == sorted(sizes)
            kept = array.copy(order="K")
            removed = keep_largest(kept, 1)
            expected = array * (array != 1)
            if count:
                expected[numbered == 1 + sizes.argmax()] = 1
            assert (kept == expected).all() and removed == (array != expected).sum()
            assert connected_components(array == 1)[1] == count


def test_noise_needs_little_memory(monkeypatch):
    monkeypatch.setattr(regions, "SLAB_VOXELS", 2**16)
    noise = np.random.default_rng(0).random((64, 128, 128)) < 0.25
    tracemalloc.start()
    try:
        for found in (component_sizes, lambda mask: keep_largest(mask, True), boxes):
            tracemalloc.reset_peak()
            held, _ = tracemalloc.get_traced_memory()
            found(noise)
            assert tracemalloc.get_traced_memory()[1] - held < 8 * noise.nbytes
    finally:
        tracemalloc.stop()


def test_of_nothing_there_are_no_boxes_and_no_components():
    assert boxes(np.zeros((0, 3, 3), np.uint8)) == {} == boxes(np.zeros((2, 2, 2), np.int64))
    assert not len(component_sizes(np.zeros((2, 0, 2), bool)))
    assert keep_largest(np.zeros((2, 2, 2), np.uint8), 1) == 0
