"""Slices out and back: every voxel, every affine, every mask, in three views and three formats."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import GRIDS

from delineate.core.errors import LabelError
from delineate.core.grid import Grid
from delineate.core.labels import IGNORED, LabelSet
from delineate.core.manifest import Case, Source
from delineate.core.volume import Volume
from delineate.formats.slices.cases import read_images, read_masks, read_slice, write_case
from delineate.formats.slices.pixels import MASKS, MaskCodes, Scale
from delineate.formats.slices.record import (
    MASKS_FOLDER,
    VIEWS,
    SliceSet,
    folders_of,
    positions_mm,
    seen,
)

LABELS = LabelSet.from_names({1: "liver", 3: "left kidney", 4: "right kidney"})
CASE = Case("p1", "p1", (Source("p1.nii"),), (Source("m.nii"),))


def head_of(form="png", bits=16, masks="index", window=None, channels=("CT",)) -> SliceSet:
    codes = MaskCodes.of(LABELS, masks, True)
    return SliceSet(form, bits, window, folders_of(channels), LABELS, codes)


def mask_on(grid: Grid) -> Volume:
    values = np.array([0, 1, 3, 4, IGNORED], np.uint16)
    return Volume(values[np.arange(np.prod(grid.shape)).reshape(grid.shape) * 7 % 5], grid, "label")


def both_ways(image, label, head, folder, view):
    """The image and the mask after they were written and read again, and the record's case."""
    case = write_case(CASE, image, label, head, (view,), folder)
    head = SliceSet(**{**vars(head), "cases": {"p1": case}})
    names = [head.name("p1", view, k) for k in range(seen(case.grid, view)[0].shape[2])]
    masks = [folder / view / MASKS_FOLDER / name for name in names]
    again = read_images(case, head, view, folder)
    return again, read_masks(case, head, view, masks, [head.codes]), case


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("form", ["png", "npy", "tiff"])
def test_every_voxel_comes_back(grid, asymmetric, view, form, tmp_path):
    label = mask_on(grid)
    head = head_of(form, masks=MASKS[list(VIEWS).index(view)])
    image, mask, case = both_ways(Volume(asymmetric, grid, "HU"), label, head, tmp_path, view)
    assert np.array_equal(image.array, asymmetric) and image.array.dtype == asymmetric.dtype
    assert np.array_equal(mask.array, label.array)
    assert image.grid == grid == mask.grid and image.unit == "HU"
    assert case.is_exact


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("bits", [8, 16])
def test_masks_are_exact_at_8_and_16_bits(masks, bits, tmp_path):
    grid = GRIDS["oblique"]
    label, image = mask_on(grid), Volume(np.zeros(grid.shape, np.int16), grid)
    again = both_ways(image, label, head_of(bits=bits, masks=masks), tmp_path, "coronal")[1]
    assert np.array_equal(again.array, label.array)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "exact"),
    [
        (np.int16, -32768, 32767, True),
        (np.uint16, 0, 65535, True),
        (np.int16, -1200, 3000, True),
        (np.float32, -1000, 2000, True),  # whole numbers, as many programs store them
        (np.int32, 0, 70000, False),
        (np.float32, 0.0, 0.7, False),
        (np.float64, -5.0, -5.0, True),
    ],
)
def test_16_bits_are_exact_if_the_range_fits(dtype, low, high, exact):
    array = np.linspace(low, high, 1000).astype(dtype).reshape(10, 10, 10)
    if high - low > 1:
        array = np.rint(array).astype(dtype)
    scale = Scale.of(array, 16)
    pixels = scale.to_pixels(array)
    again, (error, clipped) = scale.to_values(pixels), scale.loss(array, pixels)
    assert pixels.dtype == np.uint16 and again.dtype == dtype and not clipped
    assert np.array_equal(again, array) == exact == (error == 0)
    # Half a step, and what the rounding of whole numbers adds.
    assert np.abs(again.astype(float) - array).max() <= (high - low) / 65535 / 2 + 0.5


def test_scans_of_one_cohort_share_an_offset():
    found = {Scale.of(np.array([[[low, 900]]], np.int16), 16).low for low in (-1024, -1000, -3)}
    assert found == {-1024}


def test_a_window_clips_and_says_so():
    array = np.arange(-500, 500, dtype=np.int16).reshape(10, 10, 10)
    for bits, most in ((8, 1.0), (16, 0.0)):
        scale = Scale.of(array, bits, (-200, 200))
        pixels = scale.to_pixels(array)
        error, clipped = scale.loss(array, pixels)
        assert pixels.min() == 0 and pixels.max() == 2**bits - 1
        assert error <= most and clipped == pytest.approx(0.599)


def test_voxels_that_are_not_finite_are_a_loss():
    array = np.array([[[0.0, 1.0, np.nan, 2.0]]], np.float32)
    scale = Scale.of(array, 16)
    assert scale.loss(array, scale.to_pixels(array))[1] == 0.25


def test_rows_and_columns_are_radiological(tmp_path):
    """A bright voxel at the patient's right, front and head."""
    grid = Grid.from_spacing((5, 6, 7), (1, 1, 2))  # RAS
    array = np.zeros(grid.shape, np.uint8)
    array[4, 5, 6] = 200
    head = head_of(bits=8)
    write_case(CASE, Volume(array, grid), None, head, tuple(VIEWS), tmp_path)
    for view, k in (("axial", 6), ("coronal", 5), ("sagittal", 4)):
        pixels = read_slice(tmp_path / view / "images" / head.name("p1", view, k), view)
        assert pixels[0, 0] == 200  # top left: right, front and head come first


def test_positions_are_along_the_normal():
    axial = seen(Grid.from_spacing((4, 4, 3), (1, 1, 2.5)), "axial")[0]
    assert positions_mm(axial) == [0, 2.5, 5]
    grid = seen(GRIDS["oblique"], "axial")[0]
    steps = np.diff(positions_mm(grid))
    assert steps == pytest.approx(grid.spacing_mm[2])


def test_channels_have_folders(tmp_path):
    grid = GRIDS["flipped"]
    array = np.stack([np.full(grid.shape, n, np.uint8) for n in (3, 7)])
    head = head_of(channels=("T1 post", "masks"))
    assert list(head.channels.values()) == ["T1_post", "masks_"]
    again = both_ways(Volume(array, grid), mask_on(grid), head, tmp_path, "sagittal")[0]
    assert np.array_equal(again.array, array)


def test_grey_and_colour_masks_have_a_pixel_for_every_structure():
    many = LabelSet.from_names({n: f"part {n}" for n in range(1, 301)})
    for kind in MASKS:
        codes = MaskCodes.of(many, kind, ignoring=True)
        assert len(set(codes.table.values())) == 302
        values = np.array([*many.values, 0, IGNORED], np.uint16).reshape(2, 151, 1)
        assert np.array_equal(codes.to_values(codes.to_pixels(values), np.uint16), values)
        assert MaskCodes.from_json(codes.to_json()) == codes


def test_pixels_that_are_no_structure_are_refused():
    codes = MaskCodes.of(LABELS, "grey", False)
    with pytest.raises(LabelError, match="pixel values 7 are no structures; known are 0, 85, 170"):
        codes.to_values(np.array([[[0, 7, 85]]]), np.uint8)
