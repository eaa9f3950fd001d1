"""Boundary IoU against the definition written out, against an exact distance transform, and against
the original's erosion.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from scipy import ndimage

from delineate.core.errors import GeometryError, UsageError
from delineate.metrics.boundary import boundary_iou, near_boundary, two_percent_mm

SPACING = (0.8, 1.3, 4.0)


def blobs(seed, shape=(13, 11, 9), share=0.6):
    field = np.random.default_rng(seed).random(shape)
    for axis in [a for a in range(len(shape)) if shape[a] > 1] * 2:
        field = field + np.roll(field, 1, axis)
    return field > np.quantile(field, 1 - share)


def by_hand(mask, spacing, distance):
    """Every voxel inside against every voxel outside, the rim beyond the array too."""
    wide = np.pad(mask, 1)
    outside = np.argwhere(~wide) * spacing
    out = np.zeros(wide.shape, bool)
    for at in np.argwhere(wide):
        out[tuple(at)] = np.linalg.norm(outside - at * spacing, axis=1).min() <= distance + 1e-6
    return out[(slice(1, -1),) * mask.ndim]


@settings(max_examples=60, deadline=None)
@given(
    mask=some.arrays(
        bool,
        st.sampled_from([(5, 6, 4), (3, 9, 2), (7, 8), (1, 9)]),
        elements=st.sampled_from([True, True, True, True, False]),
    ),
    distance=st.sampled_from([0.8, 1.3, 1.7, 2.6, 4.0, 4.3, 9.0]),
)
def test_it_is_what_the_definition_says(mask, distance):
    spacing = np.array(SPACING[: mask.ndim])
    np.testing.assert_array_equal(
        near_boundary(mask, spacing, distance), by_hand(mask, spacing, distance)
    )


@pytest.mark.parametrize("distance", [0.8, 1.31, 2.6, 4.05, 6.5])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_it_is_the_exact_distance_transform_cut_off(distance, share):
    p, t = blobs(1, (30, 25, 12), share), blobs(2, (30, 25, 12), share)
    near = [
        m
        & (
            ndimage.distance_transform_edt(np.pad(m, 1), SPACING)[1:-1, 1:-1, 1:-1]
            <= distance + 1e-6
        )
        for m in (p, t)
    ]
    expected = (near[0] & near[1]).sum() / (near[0] | near[1]).sum()
    assert boundary_iou(p, t, SPACING, distance) == pytest.approx(expected)
    for turn in itertools.permutations(range(3)):
        turned = boundary_iou(
            p.transpose(turn), t.transpose(turn), [SPACING[a] for a in turn], distance
        )
        assert turned == pytest.approx(expected)
    assert boundary_iou(np.asfortranarray(p), t, SPACING, distance) == pytest.approx(expected)


@pytest.mark.parametrize("pixels", [1, 2])
def test_of_a_square_grid_it_is_the_original_where_both_are_the_same(pixels):
    """One erosion by 3 x 3 takes what is within a diagonal step; of boxes, whose inside knows no
    corners, any number takes as much.
    """
    p, t = blobs(3, (40, 33)), blobs(4, (40, 33))
    if pixels == 2:
        p, t = np.zeros((40, 33), bool), np.zeros((40, 33), bool)
        p[5:30, 4:20], t[8:33, 6:24] = True, True
    eroded = [ndimage.binary_erosion(m, np.ones((3, 3)), iterations=pixels) for m in (p, t)]
    near = [m & ~e for m, e in zip((p, t), eroded, strict=True)]
    expected = (near[0] & near[1]).sum() / (near[0] | near[1]).sum()
    assert boundary_iou(p, t, (1, 1), np.sqrt(2) if pixels == 1 else 2) == pytest.approx(expected)


def test_counted_by_hand():
    """In each slice a box of 6 x 8 voxels of 1 x 2 mm: 2 mm are two rows at either end and one
    column at either side, all but 2 x 6 voxels.
    """
    box = np.zeros((12, 14, 9), bool)
    box[3:9, 3:11, 3:6] = True
    assert near_boundary(box, (1, 2, 5), 2.0).sum() == 3 * 36
    # The ends along the third axis, and of the middle slice all is within 3 rows.
    assert near_boundary(box, (1, 2, 5), 5.0).sum() == 3 * 48
    assert near_boundary(box, (2, 4, 5), 5.0).sum() == 2 * 48 + 36
    moved = np.roll(box, 1, 0)  # its rows 4, 5, 8 and 9 are near, of the box rows 3, 4, 7 and 8
    shared = 8 + 2 + 2 + 2 + 8  # rows 4 to 8
    assert boundary_iou(moved, box, (1, 2, 5), 2.0) == pytest.approx(shared / (2 * 36 - shared))


def test_it_sees_what_a_large_body_hides():
    at = np.ogrid[:60, :60, :30]
    ball = (at[0] - 30) ** 2 + (at[1] - 30) ** 2 + (2 * (at[2] - 15)) ** 2 <= 26**2
    smaller = ndimage.binary_erosion(ball, np.ones((3, 3, 1)))
    assert (smaller & ball).sum() / ball.sum() > 0.8 and boundary_iou(
        smaller, ball, (1, 1, 2), 2.0
    ) < 0.6
    assert boundary_iou(ball, ball, (1, 1, 2), 2.0) == 1
    # All is near: plain IoU.
    assert boundary_iou(smaller, ball, (1, 1, 2), 100.0) == pytest.approx(
        (smaller & ball).sum() / (smaller | ball).sum()
    )


def test_where_the_scan_ends_is_a_boundary():
    mask = np.zeros((9, 9, 9), bool)
    mask[:5] = True
    near = near_boundary(mask, (1, 1, 1), 1.0)
    assert near[0].all() and near[4].all() and not near[2, 2:7, 2:7].any()


def test_a_single_slice_of_a_volume_has_boundaries_above_and_below_and_a_flat_image_has_none():
    volume, image = np.zeros((9, 9, 5), bool), np.zeros((9, 9, 1), bool)
    volume[1:8, 1:8, 2] = image[1:8, 1:8, 0] = True
    hole_v, hole_i = volume.copy(), image.copy()
    hole_v[4, 4, 2] = hole_i[4, 4, 0] = False
    assert boundary_iou(hole_v, volume, (1, 1, 1), 1.0) == pytest.approx(48 / 49)
    assert (
        boundary_iou(hole_i, image, (1, 1, 1), 1.0)
        == boundary_iou(hole_i[..., 0], image[..., 0], (1, 1), 1.0)
        == pytest.approx(24 / 28)
    )
    assert boundary_iou(hole_v, volume, (1, 1, 5), 1.0) == pytest.approx(24 / 28)


@pytest.mark.parametrize("shape", [(6, 7, 8), (6, 7, 1), (6, 7)])
def test_empty_masks_and_single_voxels(shape):
    nothing, something = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    something[2, 3] = 9
    spacing = SPACING[: len(shape)]
    assert np.isnan(boundary_iou(nothing, nothing, spacing))
    assert (
        boundary_iou(something, nothing, spacing) == boundary_iou(nothing, something, spacing) == 0
    )
    assert boundary_iou(something, something, spacing, 0.8) == 1
    assert not near_boundary(nothing, spacing, 2.0).any()


def test_what_does_not_fit_is_refused():
    mask = np.ones((3, 4, 5), bool)
    for other, spacing in ((mask[:2], SPACING), (mask, (1, 1)), (mask, (1, 1, 0))):
        with pytest.raises(GeometryError):
            boundary_iou(mask, other, spacing)
    for distance in (0.79, float("nan")):
        with pytest.raises(UsageError, match=r"at least the smallest spacing, 0\.8 mm"):
            boundary_iou(mask, mask, SPACING, distance)
    with pytest.raises(UsageError, match=r"1\.3 mm"):
        boundary_iou(mask[:, :, :1], mask[:, :, :1], (1.3, 1.5, 0.1), 1.0)


def test_two_percent_of_the_diagonal():
    assert two_percent_mm((30, 40), (1, 1)) == pytest.approx(1.0) and two_percent_mm(
        (10, 10, 5), (2, 1, 4)
    ) == pytest.approx(0.02 * np.sqrt(900))
