"""Pictures: the sides are right, the planes are where the truth is, the aspect is that of the
voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from delineate.core.errors import GeometryError, OutputError
from delineate.core.grid import Grid
from delineate.core.labels import Label, LabelSet, default_colour
from delineate.core.volume import Volume
from delineate.reporting.colours import contrast, on_dark
from delineate.reporting.pictures import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    draw_outlines,
    montage,
    outline,
    side_by_side,
    spread,
)
from delineate.reporting.plots import plot_svg

LABELS = LabelSet.from_names({1: "left kidney", 2: "spleen"})


def patient(codes: str, spacing_mm=(1.0, 2.0, 4.0)) -> Grid:
    """A grid of 24 x 20 x 10 voxels in RAS, reoriented to ``codes``."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-12, 7, 30)
    return Grid((24, 20, 10), affine).reorient(codes)[0]


def bright_at(grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """Boolean ball around a point in the patient, whatever the voxels' order."""
    where = grid.to_mm(np.stack(np.indices(grid.shape), axis=-1))
    return np.linalg.norm(where - np.array(centre_mm), axis=-1) <= radius_mm


def colour_columns(path, colour) -> np.ndarray:
    """(n, 2) row and column of the pixels close to ``colour``."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.argwhere(np.abs(pixels - np.array(colour)).sum(axis=-1) < 60)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIR"])
def test_the_patients_left_is_on_the_right_of_the_picture(codes, tmp_path):
    grid = patient(codes, (2.0, 2.0, 2.0))
    # RAS+: x grows towards the right, and this block spans -12..34.
    left = bright_at(grid, (-8, 20, 40), 4.5)
    scan = Volume(np.where(left, 100, 0).astype(np.int16), grid)
    montage(
        scan, {"truth": scan.with_array(left.astype(np.uint8), "label")}, LABELS, tmp_path / "m.png"
    )
    image = Image.open(tmp_path / "m.png")
    drawn = colour_columns(tmp_path / "m.png", LABELS.labels[0].colour)
    drawn = drawn[drawn[:, 0] < image.height * 0.8]  # without the legend
    axial = drawn[drawn[:, 1] < image.width * 48 / (48 + 48 + 40)]
    assert axial[:, 1].mean() > image.width * 48 / 136 * 0.7


@pytest.mark.parametrize("codes", ["RAS", "LPI", "ASL"])
def test_every_order_of_voxels_gives_the_same_picture(codes, tmp_path):
    scan = Volume(
        np.random.default_rng(1).normal(size=(24, 20, 10)).astype(np.float32), patient("RAS")
    )
    mask = scan.with_array(bright_at(scan.grid, (0, 25, 45), 9).astype(np.uint8), "label")
    montage(scan, {"truth": mask}, LABELS, tmp_path / "a.png")
    montage(scan.reorient(codes), {"truth": mask.reorient(codes)}, LABELS, tmp_path / "b.png")
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "b.png"))
    )


def test_planes_cut_the_right_axes_and_stand_upright():
    array = np.zeros((4, 5, 6))  # LPS: to the left, to the back, upwards
    array[0, 0, 5] = 1  # right, front, top
    assert AXIAL.cut(array, 5)[0, 0] == 1
    assert CORONAL.cut(array, 0)[0, 0] == 1
    assert SAGITTAL.cut(array, 0)[0, 0] == 1
    assert AXIAL.cut(array, 0).shape == (5, 4)
    assert CORONAL.cut(array, 0).shape == (6, 4)
    assert SAGITTAL.cut(array, 0).shape == (6, 5)
    assert CORONAL.aspect((0.5, 3.0, 2.0)) == 4.0
    assert SAGITTAL.extent_mm(SAGITTAL.cut(array, 0), (0.5, 3.0, 2.0)) == (15.0, 12.0)


def test_the_picture_is_as_wide_and_high_as_the_body(tmp_path):
    flat = Volume(
        np.random.default_rng(0).random((100, 10, 1)).astype(np.float32),
        Grid.from_spacing((100, 10, 1), (1.0, 10.0, 5.0)),
    )
    montage(flat, {}, LABELS, tmp_path / "m.png")
    # Without the line of words below.
    lit = np.asarray(Image.open(tmp_path / "m.png").convert("L"))[:-40]
    rows, columns = (np.flatnonzero((lit > 20).mean(axis=axis) > 0.3) for axis in (1, 0))
    # 100 mm by 100 mm.
    assert (rows[-1] - rows[0]) / (columns[-1] - columns[0]) == pytest.approx(1.0, abs=0.05)


def test_truth_chooses_the_planes_and_prediction_where_there_is_none(tmp_path):
    grid = patient("LPS")
    scan = Volume(np.zeros(grid.shape, np.int16), grid)
    mask = np.zeros(grid.shape, np.uint8)
    mask[3:8, 4:9, 7] = 1
    empty, full = scan.with_array(np.zeros_like(mask), "label"), scan.with_array(mask, "label")
    montage(scan, {"truth": full, "prediction": full}, LABELS, tmp_path / "a.png")
    montage(scan, {"truth": empty, "prediction": full}, LABELS, tmp_path / "b.png")
    montage(scan, {"truth": empty}, LABELS, tmp_path / "c.png")
    kidney = LABELS.labels[0].colour
    assert (
        len(colour_columns(tmp_path / "a.png", kidney))
        > len(colour_columns(tmp_path / "b.png", kidney))
        > 20
    )
    assert len(colour_columns(tmp_path / "c.png", kidney)) == 0


def test_structures_are_filled_on_request_and_masks_can_stand_alone(tmp_path):
    grid = patient("LPS", (2.0, 2.0, 2.0))
    inside = bright_at(grid, (-8, 20, 40), 4.5)
    mask = Volume(inside.astype(np.uint8), grid, "label")
    scan = Volume(np.full(grid.shape, 100, np.int16), grid)
    colour = np.array(LABELS.labels[0].colour)
    tinted = {}
    for name, image, filled in (
        ("outlined", scan, False),
        ("filled", scan, True),
        ("alone", None, True),
    ):
        montage(
            image,
            {"truth": mask},
            LABELS,
            tmp_path / f"{name}.png",
            window=(0.0, 200.0),
            filled=filled,
        )
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(float)
        # Half-transparent over what lies below.
        mixed = 0.4 * colour + 0.6 * (127 if image is not None else 0.4 * 255)
        tinted[name] = int((np.abs(pixels - mixed).sum(axis=-1) < 12).sum())
    # Of which a few are the outline's soft edge.
    assert min(tinted["filled"], tinted["alone"]) > tinted["outlined"] + 1000


def test_a_plain_picture_stands_as_it_is_stored(tmp_path):
    array = np.zeros((40, 30, 1), np.uint8)
    array[:10, :10] = 200  # the first columns and rows: top left
    known = Grid((40, 30, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))
    meta = {"spacing_known": False, "place_known": False}
    scan = Volume(array, known, meta=meta)
    # Means nothing for pictures, so it is no reason to refuse.
    other_place = Grid.from_spacing((40, 30, 1), (1, 1, 1))
    montage(
        scan,
        {"truth": Volume((array > 0).astype(np.uint8), other_place, "label", meta=meta)},
        LABELS,
        tmp_path / "m.png",
    )
    pixels = np.asarray(Image.open(tmp_path / "m.png").convert("L"))
    height, width = pixels.shape
    lit = np.argwhere(pixels[: height - 60] > 220)
    assert len(lit) > 0.05 * pixels.size
    assert lit[:, 0].max() < height * 0.4
    assert lit[:, 1].max() < width * 0.4


def test_what_does_not_fit_is_refused(tmp_path):
    grid = patient("RAS")
    scan = Volume(np.zeros(grid.shape, np.int16), grid)
    moved = np.array(grid.affine)
    moved[0, 3] += 2
    with pytest.raises(GeometryError, match=r"truth is not on the image's grid: 2\.00 mm away"):
        montage(
            scan,
            {"truth": Volume(np.zeros(grid.shape, np.uint8), Grid(grid.shape, moved), "label")},
            LABELS,
            tmp_path / "m.png",
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        montage(scan, {}, LABELS, tmp_path / "file" / "m.png")
    assert not list(tmp_path.glob("*.png"))


def test_constant_and_nan_images_are_drawn(tmp_path):
    grid = patient("RAS")
    for name, array in (
        ("constant", np.full(grid.shape, 7.0)),
        ("nan", np.full(grid.shape, np.nan)),
    ):
        assert (
            montage(Volume(array, grid), {}, LABELS, tmp_path / f"{name}.png").stat().st_size > 1000
        )


# ---- side by side ----

ONE = LabelSet.from_names({1: "liver"})


def yellow(path) -> np.ndarray:
    """(n, 2) row and column of the yellow pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.argwhere((pixels[..., 0] > 180) & (pixels[..., 1] > 180) & (pixels[..., 2] < 90))


def test_an_outline_runs_between_the_pixels_inside_and_outside():
    mask = np.zeros((7, 9), bool)
    mask[2:5, 3:8] = True
    mask[3, 5] = False  # a hole has an outline of its own
    outer, inner = sorted(outline(mask), key=len, reverse=True)
    for line, (left, right, top, bottom) in (
        (outer, (2.5, 7.5, 1.5, 4.5)),
        (inner, (4.5, 5.5, 2.5, 3.5)),
    ):
        assert (line[:, 0].min(), line[:, 0].max(), line[:, 1].min(), line[:, 1].max()) == (
            left,
            right,
            top,
            bottom,
        )
        assert np.array_equal(line[0], line[-1])
    full = outline(np.ones((3, 4), bool))[0]  # it closes at the picture's edge too
    assert (full.min(axis=0).tolist(), full.max(axis=0).tolist()) == ([-0.5, -0.5], [3.5, 2.5])
    assert outline(np.zeros((3, 4), bool)) == []


@pytest.mark.parametrize("index", [0, 2, 4, 5, 7, 9, 20])
def test_every_outline_has_a_dark_casing_on_both_sides(index, tmp_path):
    """On the grey at which the colour itself has no contrast."""
    colour = default_colour(index)
    labels = LabelSet((Label(1, "liver", colour),))
    drawn, shape = np.array(on_dark(colour)), (40, 40, 1)
    grey = min(range(256), key=lambda g: contrast((g, g, g), colour))
    scan = Volume(np.full(shape, grey, np.uint8), Grid.from_spacing(shape, (1, 1, 5)))
    mask = np.zeros(shape, np.uint8)
    mask[10:30, 10:30] = 1
    path = tmp_path / "m.png"
    for masks in ({"truth": mask}, {"truth": mask, "prediction": mask}):
        volumes = {name: scan.with_array(one, "label") for name, one in masks.items()}
        montage(scan, volumes, labels, path, window=(0.0, 255.0))
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        # A row through the middle of the square crosses its left and right edge.
        row = pixels[pixels.shape[0] // 2 - 40]
        is_casing = row.sum(axis=-1) < 120
        is_line = np.abs(row - drawn).sum(axis=-1) < 100
        first, last = np.flatnonzero(is_line)[[0, -1]]
        assert last - first > 100
        for outer, inner in ((first - 4, first + 1), (last - 4, last + 1)):
            assert is_casing[outer : outer + 4].any() and is_casing[inner : inner + 4].any()


def test_outlines_have_a_contrast_of_three_to_their_casing():
    for index in range(140):
        assert contrast(on_dark(default_colour(index)), (0, 0, 0)) >= 3
    assert on_dark((0, 0, 0)) == (92, 92, 92) and on_dark((0, 114, 178)) == (0, 114, 178)


def test_masks_that_overlap_can_be_outlined():
    figure = Figure()
    ax = figure.subplots()
    mask = np.ones((5, 5), bool)
    draw_outlines(ax, [(mask, LABELS.labels[0]), (mask[::-1], LABELS.labels[1])], "dashed")
    casing, lines = ax.collections
    assert len(casing.get_paths()) == len(lines.get_paths()) == 2
    assert casing.get_zorder() < lines.get_zorder()
    assert casing.get_linewidth()[0] > lines.get_linewidth()[0] + 1


def test_slices_are_spread_over_the_structure():
    amounts = np.zeros(20, np.int64)
    amounts[4:16] = [1, 1, 10, 10, 10, 10, 10, 10, 10, 10, 1, 1]
    assert spread(amounts, 3) == [7, 9, 12]  # a sixth, a half and five sixths of 84 lie at or below
    assert spread(amounts, 1) == [6]
    assert spread(amounts * (np.arange(20) == 9), 3) == [9]
    assert spread(np.zeros(7, np.int64), 3) == [3]


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAR"])
def test_boundaries_stand_on_the_masks_edge_at_true_aspect(codes, tmp_path):
    grid = Grid.from_spacing((40, 20, 1), (1.0, 2.0, 6.0)).reorient("LPS")[0]
    mask = np.zeros(grid.shape, np.uint8)
    mask[10:30, 5:15] = 1  # the middle half of 40 mm by 40 mm
    # 0 HU is grey in the window.
    scan = Volume(np.zeros(grid.shape, np.float32), grid, "HU").reorient(codes)
    truth = Volume(mask, grid, "label").reorient(codes)
    side_by_side(scan, truth, truth.with_array(np.zeros_like(truth.array)), ONE, tmp_path / "m.png")
    pixels = np.asarray(Image.open(tmp_path / "m.png").convert("RGB")).astype(int)
    drawn = yellow(tmp_path / "m.png")
    width = pixels.shape[1]
    grey = np.abs(pixels - 102).max(axis=-1) < 4
    grey[:, : width // 3], grey[:, 2 * width // 3 :] = False, False
    # Titles have fewer grey pixels than the panel.
    rows, columns = (np.flatnonzero(grey.sum(axis=axis) > 50) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    assert (bottom - top) / (right - left) == pytest.approx(1.0, abs=0.02)
    assert drawn[:, 1].min() > width / 3
    assert drawn[:, 1].max() < 2 * width / 3
    for axis, (low, high) in enumerate(((top, bottom), (left, right))):
        quarter = (high - low) / 4
        assert drawn[:, axis].min() == pytest.approx(low + quarter, abs=2.5)
        assert drawn[:, axis].max() == pytest.approx(high - quarter, abs=2.5)


def test_the_right_of_the_patient_is_left_in_every_panel_and_slices_are_those_that_were_stacked(
    tmp_path,
):
    grid = patient("RAS", (1.0, 4.0, 1.0))  # stacked from the back to the front: coronal slices
    right = bright_at(grid, (8, 40, 34), 3)
    scan = Volume(np.zeros(grid.shape, np.int16), grid, "HU")
    mask = scan.with_array(right.astype(np.uint8), "label")
    side_by_side(scan, mask, mask, ONE, tmp_path / "m.png", slices=1)
    image, drawn = Image.open(tmp_path / "m.png"), yellow(tmp_path / "m.png")
    third = image.width / 3
    assert drawn[:, 1].min() > third
    assert (drawn[:, 1] % third).mean() < 0.4 * third
    assert image.height < image.width  # 24 mm by 10 mm a panel


def test_several_structures_have_their_colours_and_not_yellow(tmp_path):
    grid = patient("LPS")
    mask = np.zeros(grid.shape, np.uint8)
    mask[3:9, 3:9, 2:8], mask[14:20, 8:16, 2:8] = 1, 2
    scan = Volume(np.zeros(grid.shape, np.int16), grid, "HU")
    truth = scan.with_array(mask, "label")
    side_by_side(
        scan,
        truth,
        scan.with_array(np.where(mask == 2, mask, 0), "label"),
        LABELS,
        tmp_path / "m.png",
    )
    assert len(yellow(tmp_path / "m.png")) == 0
    third = Image.open(tmp_path / "m.png").width / 3
    height = Image.open(tmp_path / "m.png").height
    for label, panels in ((LABELS.labels[0], {1}), (LABELS.labels[1], {1, 2})):
        drawn = colour_columns(tmp_path / "m.png", label.colour)
        drawn = drawn[drawn[:, 0] < 0.9 * height]  # without the legend
        assert {int(c // third) for c in drawn[:, 1]} == panels


def test_masks_alone_and_what_does_not_fit(tmp_path):
    grid = patient("LPS")
    mask = Volume(bright_at(grid, (0, 25, 45), 9).astype(np.uint8), grid, "label")
    side_by_side(None, mask, mask, ONE, tmp_path / "m.png")
    half = Image.open(tmp_path / "m.png").width / 2
    columns = yellow(tmp_path / "m.png")[:, 1]
    assert np.sum(columns < half) == pytest.approx(np.sum(columns > half), rel=0.1)
    other = Volume(np.zeros((24, 20, 10), np.int16), Grid.from_spacing((24, 20, 10), (1, 1, 1)))
    with pytest.raises(GeometryError, match="truth is not on the image's grid"):
        side_by_side(other, mask, mask, ONE, tmp_path / "n.png")
    assert not (tmp_path / "n.png").exists()


def test_plots_follow_the_pages_colour():
    svg = plot_svg([("a", [0.0, 1.0], [0.2, 0.4], "#e69f00", "-")], "Dice", (0, 1))
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#123457" not in svg
    assert "#e69f00" in svg
    assert ">Dice<" in svg
