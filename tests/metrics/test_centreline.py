"""Thinning against topology counted independently, lines that are known, and clDice by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from scipy import ndimage

from delineate.core.errors import GeometryError
from delineate.metrics import centreline
from delineate.metrics.centreline import cl_dice, skeleton

ALL = np.ones((3, 3, 3), bool)


def topology(mask):
    """(components, cavities, tunnels) of a mask whose voxels are closed boxes: corners - edges +
    faces - boxes is components - tunnels + cavities.
    """
    solid = np.pad(np.atleast_3d(mask) if mask.ndim == 3 else mask[..., None], 1).astype(bool)
    components = ndimage.label(solid, ALL)[1]
    cavities = ndimage.label(~solid)[1] - 1
    euler = 0
    # Along which axes a cell is a boundary between voxels.
    for kind in itertools.product((False, True), repeat=3):
        cells = solid
        for axis, between in enumerate(kind):
            if between:
                cells = np.logical_or(
                    np.take(cells, range(cells.shape[axis] - 1), axis),
                    np.take(cells, range(1, cells.shape[axis]), axis),
                )
        euler += (-1) ** (3 - sum(kind)) * int(cells.sum())
    return components, cavities, components + cavities - euler


def blobs(seed, shape, share, smooth=2):
    field = np.random.default_rng(seed).random(shape)
    for axis in [a for a in range(len(shape)) if shape[a] > 1] * smooth:
        field = field + np.roll(field, 1, axis)
    return field > np.quantile(field, 1 - share)


def ring(shape=(9, 24, 20), thick=2.6):
    i, j, k = np.ogrid[tuple(slice(0, n) for n in shape)]
    return (np.hypot(j - 11, (k - 9) * 1.2) - 7) ** 2 + (i - 4) ** 2 <= thick**2


def shell():
    i, j, k = np.ogrid[:16, :15, :14]
    r = (i - 7) ** 2 + (j - 7) ** 2 + (k - 6) ** 2
    return (r <= 36) & (r >= 10)


def comb():
    """A tree of tubes of uneven thickness, touching the border."""
    out = np.zeros((12, 30, 18), bool)
    out[4:8, :, 7:11] = True
    out[5:7, 4:7, :] = out[:, 14:18, 8:10] = out[2:10, 24:27, 2:16] = True
    return out


def masks():
    yield from (
        (f"blob {n} {share}", blobs(n, (12, 11, 13), share))
        for n in range(4)
        for share in (0.1, 0.3, 0.7)
    )
    yield from ((f"noise {n}", blobs(n, (9, 10, 8), 0.4, 0)) for n in range(4))
    yield from (
        (f"flat {n} {share}", blobs(n, (25, 21), share)) for n in range(4) for share in (0.2, 0.6)
    )
    yield from ((f"slice {n}", blobs(n, (18, 21, 1), 0.5)) for n in range(2))
    yield from (
        ("ring", ring()),
        ("shell", shell()),
        ("comb", comb()),
        ("full", np.ones((7, 6, 5), bool)),
        ("full flat", np.ones((7, 6), bool)),
    )
    plate = np.ones((3, 9, 11), bool)
    plate[:, 1::2, 1::2] = False
    yield from (("plate with holes", plate), ("linked rings", linked_rings()))


def linked_rings():
    """Two rings, each through the other."""
    out = np.zeros((26, 26, 28), bool)
    out[8:17, 1:25, 1:21] = ring()
    out[1:25, 8:17, 7:27] |= np.moveaxis(ring(), 0, 1)
    return out


def test_topology_is_counted_as_it_is():
    assert (
        topology(ring()) == (1, 0, 1)
        and topology(shell()) == (1, 1, 0)
        and topology(linked_rings()) == (2, 0, 2)
    )
    assert topology(dict(masks())["plate with holes"]) == (1, 0, 20) and topology(
        np.eye(3, dtype=bool)
    ) == (1, 0, 0)


@pytest.mark.parametrize("mask", [pytest.param(m, id=name) for name, m in masks()])
def test_topology_is_kept_and_nothing_more_can_go(mask):
    line = skeleton(mask)
    assert line.dtype == bool and line.shape == mask.shape and not (line & ~mask).any()
    assert topology(line) == topology(mask)
    assert not list(could_go(line))


@settings(max_examples=100, deadline=None)
@given(
    some.arrays(
        bool,
        some.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
        elements=st.booleans(),
    )
)
def test_topology_is_kept_on_any_mask(mask):
    line = skeleton(mask)
    assert (
        topology(line) == topology(mask) and not (line & ~mask).any() and not list(could_go(line))
    )


def could_go(line):
    """Voxels that are no end of a line, and whose loss would leave the topology of the whole as it
    is.
    """
    solid = np.pad(line if line.ndim == 3 else line[..., None], 1)
    for at in np.argwhere(solid):
        block = solid[tuple(slice(n - 1, n + 2) for n in at)].copy()
        block[1, 1, 1] = False
        if block.sum() > 1 and is_point_like(block):
            yield tuple(at - 1)


def is_point_like(block):
    """Whether the neighbours inside, as closed boxes, can be shrunk to a point: one piece, no
    tunnel, no cavity. Then the voxel is simple.
    """
    return topology(block) == (1, 0, 0)


def test_what_is_simple():
    rng = np.random.default_rng(0)
    blocks = [
        rng.random((3, 3, 3)) < share
        for share in (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
        for _ in range(300)
    ] + [
        ALL.copy(),
        np.zeros((3, 3, 3), bool),
    ]
    found = set()
    for block in blocks:
        block[1, 1, 1] = True
        word = sum(1 << n for n, inside in enumerate(block.ravel()) if inside)
        without = block.copy()
        without[1, 1, 1] = False
        said = bool(centreline._is_simple.py_func(word))
        assert said == bool(centreline._is_simple(word)) == is_point_like(without)
        assert bool(centreline._is_end(word)) == (without.sum() == 1)
        found.add(said)
    assert found == {True, False}


def test_thin_lines_stay_as_they_are():
    diagonal = np.zeros((9, 9, 9), bool)
    diagonal[range(1, 8), range(1, 8), range(1, 8)] = True
    flat = np.eye(7, dtype=bool)
    single, pair = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    single[0, 3, 4] = pair[1, 1, 2:4] = True
    for line in (diagonal, flat, single, pair):
        np.testing.assert_array_equal(skeleton(line), line)


def test_a_straight_tube_becomes_its_axis():
    j, k = np.ogrid[:15, :15]
    tube = np.zeros((40, 15, 15), bool)
    tube[:] = np.hypot(j - 7, k - 7) <= 4.2
    for turned in (tube, tube.transpose(1, 0, 2), tube.transpose(2, 1, 0)):
        axis = turned.shape.index(40)
        line = np.argwhere(skeleton(turned))
        inner = line[(line[:, axis] > 8) & (line[:, axis] < 31)]
        assert sorted(inner[:, axis].tolist()) == list(range(9, 31))  # one voxel in each slice
        assert (np.abs(np.delete(inner, axis, 1) - 7) <= 1).all()


def test_a_ring_becomes_a_closed_line():
    line = skeleton(ring())
    neighbours = ndimage.convolve(line.astype(int), ALL.astype(int), mode="constant")[line] - 1
    assert (neighbours == 2).all() and 35 < line.sum() < 60  # a circle of radius 7 has 44 steps


@pytest.mark.parametrize("shape", [(6, 7, 8), (6, 7, 1), (6, 7)])
def test_empty_masks(shape):
    nothing, something = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    something[2:5, 3:6] = 200
    assert not skeleton(nothing).any() and skeleton(nothing).shape == shape
    both, alarm, miss = (
        cl_dice(nothing, nothing),
        cl_dice(something, nothing),
        cl_dice(nothing, something),
    )
    assert np.isnan([both.precision, both.sensitivity, both.dice]).all()
    assert alarm.precision == alarm.dice == 0 and np.isnan(alarm.sensitivity)
    assert miss.sensitivity == miss.dice == 0 and np.isnan(miss.precision)


def test_cl_dice_by_hand():
    """Truth a line of 20, prediction one of 12 of which 8 lie on it."""
    truth, prediction = np.zeros((5, 30, 5), bool), np.zeros((5, 30, 5), bool)
    truth[2, 5:25, 2] = True
    prediction[2, 17:29, 2] = True
    found = cl_dice(prediction, truth)
    assert (found.precision, found.sensitivity) == (
        pytest.approx(8 / 12),
        pytest.approx(8 / 20),
    ) and found.dice == pytest.approx(2 * 8 / 32)
    turned = cl_dice(truth, prediction)
    assert (turned.precision, turned.sensitivity, turned.dice) == (
        found.sensitivity,
        found.precision,
        found.dice,
    )
    apart = cl_dice(np.roll(truth, 2, 0), truth)
    assert (apart.precision, apart.sensitivity, apart.dice) == (0, 0, 0)


def test_cl_dice_asks_whether_it_hangs_together_and_not_how_thick_it_is():
    tree = comb()
    thicker = ndimage.binary_dilation(tree, ALL)
    assert cl_dice(thicker, tree).sensitivity == 1 and cl_dice(tree, tree).dice == 1
    cut = tree.copy()
    cut[:, 8:20] = False
    assert cl_dice(cut, tree).precision == 1 and cl_dice(cut, tree).sensitivity < 0.8


def test_memory_order_type_and_place_do_not_matter():
    mask = blobs(3, (12, 11, 13), 0.3)
    line = skeleton(mask)
    np.testing.assert_array_equal(skeleton(np.asfortranarray(mask)), line)
    np.testing.assert_array_equal(skeleton(mask.astype(np.float32) * -3), line)
    wide = np.pad(mask, ((3, 0), (1, 9), (0, 5)))
    np.testing.assert_array_equal(skeleton(wide), np.pad(line, ((3, 0), (1, 9), (0, 5))))


def test_what_does_not_fit_is_refused():
    mask = np.zeros((3, 4, 5), bool)
    for call in (
        lambda: cl_dice(mask, mask[1:]),
        lambda: skeleton(mask[None]),
        lambda: cl_dice(mask[0, 0], mask[0, 0]),
    ):
        with pytest.raises(GeometryError):
            call()


def test_it_is_the_skeleton_of_scikit_image_but_for_what_that_does_to_the_topology():
    """Where theirs (also Lee 1994) keeps the topology, it is the same voxel by voxel."""
    morphology = pytest.importorskip("skimage.morphology")
    same = 0
    for _, mask in masks():
        flat = mask[..., 0] if mask.shape[-1] == 1 else mask
        theirs = morphology.skeletonize(flat, method="lee") > 0
        if topology(theirs) == topology(flat):
            np.testing.assert_array_equal(skeleton(flat), theirs)
            same += 1
    assert same > 20
