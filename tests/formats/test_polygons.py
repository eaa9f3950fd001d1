"""Outlines of masks, and the pixels inside them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from delineate.formats.polygons import area_of, inside_polygons, outlines


def drawn(mask: np.ndarray) -> np.ndarray:
    return inside_polygons(outlines(mask), *mask.shape)


@pytest.mark.parametrize("sigma", [0, 0.7, 1.5, 4])
def test_outlines_give_any_mask_back(sigma):
    rng = np.random.default_rng(int(10 * sigma))
    for share in (0.1, 0.5, 0.9):
        noise = ndimage.gaussian_filter(rng.normal(size=(40, 57)), sigma)
        mask = noise > np.quantile(noise, share)
        np.testing.assert_array_equal(drawn(mask), mask)


def test_parts_holes_and_islands():
    mask = np.zeros((12, 20), bool)
    mask[1:11, 1:11] = True
    mask[3:9, 3:9] = False
    mask[5:7, 5:7] = True
    mask[2, 15] = True
    found = outlines(mask)
    # The frame with its hole, the island in it, and one pixel.
    assert len(found) == 3
    # At each corner an eighth of a pixel is cut off, and left in the hole.
    assert area_of(found) == (100 - 4 / 8) - (36 - 4 / 8) + (4 - 4 / 8) + 0.5
    np.testing.assert_array_equal(drawn(mask), mask)


def test_a_pixel_is_a_diamond_and_an_empty_mask_nothing():
    one = np.zeros((3, 4), bool)
    assert outlines(one) == []
    one[1, 2] = True
    assert {tuple(corner) for corner in outlines(one)[0]} == {
        (2.5, 1.0),
        (3.0, 1.5),
        (2.5, 2.0),
        (2.0, 1.5),
    }


def test_a_mask_up_to_the_border():
    assert drawn(np.ones((3, 2), bool)).all()


def test_many_holes_are_joined_to_one_outline():
    mask = np.ones((31, 31), bool)
    mask[1::2, 1::2] = False
    assert len(outlines(mask)) == 1
    np.testing.assert_array_equal(drawn(mask), mask)
