"""Pictures: axes, colours, bit depths, stacks; made by Pillow and tifffile."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from delineate.core.errors import FormatError, GeometryError, OutputError
from delineate.core.grid import Grid
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import files

ROWS_BY_COLUMNS = np.arange(15, dtype=np.uint8).reshape(3, 5)  # 3 rows, 5 columns


def test_i_is_the_column_and_j_the_row(tmp_path):
    Image.fromarray(ROWS_BY_COLUMNS).save(tmp_path / "a.png")
    volume = files.read(tmp_path / "a.png", spacing_mm=(0.5, 0.8, 3))
    assert volume.grid.shape == (5, 3, 1)
    assert volume.array[4, 1, 0] == ROWS_BY_COLUMNS[1, 4]
    assert volume.grid.codes == "LPS"
    assert volume.grid.spacing_mm == (0.5, 0.8, 3.0)
    assert volume.meta["spacing_known"] is True
    bare = files.read(tmp_path / "a.png")
    assert bare.meta["spacing_known"] is False
    assert bare.grid.spacing_mm == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("spacing", [(1.0,), (0.0, 1.0, 1.0), (np.nan, 1.0, 1.0), (-1.0, 1.0, 2.0)])
def test_impossible_spacings_are_refused(tmp_path, spacing):
    Image.fromarray(ROWS_BY_COLUMNS).save(tmp_path / "a.png")
    with pytest.raises(GeometryError, match="three positive values"):
        files.read(tmp_path / "a.png", spacing_mm=spacing)


def test_sixteen_bits_are_kept_and_one_bit_is_0_and_1(tmp_path):
    deep = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    volume = files.read(tmp_path / "a.png")
    assert volume.array.dtype == np.uint16
    np.testing.assert_array_equal(volume.array[..., 0], deep.T)
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "b.png")
    mask = files.read(tmp_path / "b.png")
    assert mask.array.dtype == np.uint8
    assert mask.array.ravel().tolist() == [1, 0, 1]


def test_colour_becomes_channels_and_only_an_opaque_alpha_is_dropped(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (3, 5, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    volume = files.read(tmp_path / "a.png")
    assert volume.array.shape == (3, 5, 3, 1)
    np.testing.assert_array_equal(volume.array[..., 0], rgb.transpose(2, 1, 0))
    assert volume.meta["channels"] == ["red", "green", "blue"]
    for alpha, channels in ((255, 3), (7, 4)):
        Image.fromarray(np.dstack([rgb, np.full((3, 5), alpha, np.uint8)])).save(tmp_path / "b.png")
        assert files.read(tmp_path / "b.png").channels == channels
    Image.fromarray(np.dstack([ROWS_BY_COLUMNS] * 3)).save(tmp_path / "grey.png")
    assert files.read(tmp_path / "grey.png").channels == 3


def test_a_palette_gives_its_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    assert files.read(tmp_path / "a.png").array[:, 1, 0, 0].tolist() == [200, 100, 50]


def test_jpeg_is_read(tmp_path):
    Image.fromarray(np.full((16, 24), 90, np.uint8)).save(tmp_path / "a.jpg")
    volume = files.read(tmp_path / "a.jpg")
    assert volume.grid.shape == (24, 16, 1)
    assert abs(int(volume.array.mean()) - 90) < 3


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_of_a_tiff_become_k(tmp_path, compression):
    pages = np.arange(4 * 3 * 5, dtype=np.int16).reshape(4, 3, 5) - 20
    tifffile.imwrite(tmp_path / "a.tif", pages, compression=compression, photometric="minisblack")
    volume = files.read(tmp_path / "a.tif")
    assert volume.grid.shape == (5, 3, 4)
    np.testing.assert_array_equal(volume.array, pages.transpose(2, 1, 0))
    assert files.read_grid(tmp_path / "a.tif") == volume.grid


MICRONS = {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (0.5, 0.25, 2), strict=True)}
DAPI_GFP = {"Channel": {"Name": ["DAPI", "GFP"]}}


@pytest.mark.parametrize(
    ("name", "shape", "how", "spacing_mm", "channels"),
    [
        ("a.ome.tif", (4, 3, 5), {"axes": "ZYX", **MICRONS}, (0.0005, 0.00025, 0.002), None),
        ("a.ome.tif", (2, 3, 5), {"axes": "CYX", **MICRONS} | DAPI_GFP, None, ["DAPI", "GFP"]),
        (
            "a.ome.tif",
            (3, 5),
            {"axes": "YX", **MICRONS} | {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"},
            (5e-7, 2.5e-7, 2e-6),
            None,
        ),
        ("a.ome.tif", (4, 3, 5), {"axes": "ZYX", "PhysicalSizeX": 0.5}, (1, 1, 1), None),
        ("a.tif", (4, 3, 5), {"axes": "ZYX", "unit": "um", "spacing": 3}, (5e-4, 2e-4, 3e-3), None),
        ("a.tif", (2, 3, 5), {"axes": "CYX", "unit": "micron"}, (5e-4, 2e-4, 1), None),
        ("a.tif", (4, 3, 5), {"axes": "ZYX", "unit": "pixel", "spacing": 3}, (1, 1, 1), None),
        ("a.tif", (3, 5), {"axes": "YX", "unit": "inch"}, (1, 1, 1), None),
    ],
)
def test_microscopes_state_the_size_of_a_pixel(tmp_path, name, shape, how, spacing_mm, channels):
    pages = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    pages[-1] = 65535  # no channel of a microscope is an opacity
    given = {"ome": True} if ".ome" in name else {"imagej": True, "resolution": (2, 5)}
    tifffile.imwrite(tmp_path / name, pages, metadata=how, **given)
    volume = files.read(tmp_path / name)
    spacing_mm = spacing_mm or (0.0005, 0.00025, 0.002)
    np.testing.assert_allclose(volume.spacing_mm, spacing_mm)
    assert volume.meta["spacing_known"] is (spacing_mm[0] != 1)
    assert volume.meta.get("channels") == channels
    is_stack = how["axes"] == "ZYX"
    expected = pages.transpose(2, 1, 0) if is_stack else np.moveaxis(pages, -1, -2)[..., None]
    np.testing.assert_array_equal(volume.array, expected)
    assert files.read_grid(tmp_path / name) == volume.grid
    assert files.stem(tmp_path / name) == "a"
    assert files.describe(tmp_path / name)["spacing_known"] is volume.meta["spacing_known"]
    if volume.meta["spacing_known"]:
        with pytest.raises(GeometryError, match="the file carries its own"):
            files.read(tmp_path / name, spacing_mm=(1, 2, 3))
    else:
        assert files.read(tmp_path / name, spacing_mm=(1, 2, 3)).spacing_mm == (1, 2, 3)


def test_what_slices_state_is_noted_with_their_number(tmp_path):
    for n in range(3):
        more = {"c0": -32768.0, "c1": 1.0, "cf": 0, "vunit": "Gray Value"} if n == 1 else {}
        how = {"axes": "YX", "unit": "mm", **more}
        picture = ROWS_BY_COLUMNS.astype(np.uint16)
        tifffile.imwrite(
            tmp_path / f"{n}.tif", picture, imagej=True, resolution=(2, 4), metadata=how
        )
    pixels, function = files.read(tmp_path, spacing_mm=(1, 1, 2)).meta["notes"]
    assert pixels == "it states pixels of 0.5 x 0.25 mm; the 1 x 1 mm that were stated count"
    assert function == (
        "1 of 3 slices: it states that intensities are c0 + c1 x value (c0 -32768.0, c1 1.0, vunit "
        "Gray Value; ImageJ); the values are read as they are stored"
    )
    assert len(files.read(tmp_path, spacing_mm=(0.5, 0.25, 2)).meta["notes"]) == 1


def test_tiff_by_another_codec_and_in_colour(tmp_path):
    Image.fromarray(ROWS_BY_COLUMNS).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(files.read(tmp_path / "a.tif").array[..., 0], ROWS_BY_COLUMNS.T)
    rgb = np.random.default_rng(0).integers(0, 255, (3, 5, 3), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", rgb, photometric="rgb")
    np.testing.assert_array_equal(
        files.read(tmp_path / "b.tif").array[..., 0], rgb.transpose(2, 1, 0)
    )


def test_slices_are_stacked_in_the_natural_order_of_numbers(tmp_path):
    for n in (1, 2, 9, 10, 11, 100):
        Image.fromarray(np.full((3, 5), n, np.uint8)).save(tmp_path / f"s{n}.png")
    volume = files.read(tmp_path, spacing_mm=(0.5, 0.5, 2))
    assert volume.array[0, 0].tolist() == [1, 2, 9, 10, 11, 100]
    assert volume.grid == files.read_grid(Source(str(tmp_path), spacing_mm=(0.5, 0.5, 2)))
    some = files.read(Source(str(tmp_path), glob="s1*.png", spacing_mm=(0.5, 0.5, 2)))
    assert some.array[0, 0].tolist() == [1, 10, 11, 100]
    with pytest.raises(GeometryError, match="state it as column, row and slice"):
        files.read(tmp_path)
    with pytest.raises(FormatError, match="no file matches"):
        files.read(Source(str(tmp_path), glob="*.bmp", spacing_mm=(1, 1, 1)))


def test_slices_of_two_sizes_or_kinds_are_refused(tmp_path):
    Image.fromarray(ROWS_BY_COLUMNS).save(tmp_path / "1.png")
    Image.fromarray(ROWS_BY_COLUMNS.T.copy()).save(tmp_path / "2.png")
    with pytest.raises(GeometryError, match="one size"):
        files.read(tmp_path, spacing_mm=(1, 1, 1))
    Image.fromarray(np.dstack([ROWS_BY_COLUMNS] * 3)).save(tmp_path / "2.png")
    with pytest.raises(FormatError, match="same channels and dtype"):
        files.read(tmp_path, spacing_mm=(1, 1, 1))


def test_bare_slices_take_the_geometry_of_a_volume(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "scan.nii.gz")
    files.write(Volume((asymmetric % 3).astype(np.uint8), grid, "label"), tmp_path / "mask")
    source = Source(str(tmp_path / "mask"), like=str(tmp_path / "scan.nii.gz"))
    mask = files.read(source)
    np.testing.assert_array_equal(mask.array, asymmetric % 3)
    assert mask.grid == files.read_grid(tmp_path / "scan.nii.gz") == files.read_grid(source)
    (tmp_path / "mask/slice_0001.png").unlink()
    with pytest.raises(GeometryError, match="cannot take the geometry"):
        files.read(source)


def test_pngs_are_written_and_what_png_cannot_hold_is_refused(tmp_path, grid, asymmetric):
    flat = Volume(
        ROWS_BY_COLUMNS.T[..., None].astype(np.int64), Grid.from_spacing((5, 3, 1), (1, 1, 1))
    )
    files.write(flat, tmp_path / "a.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), ROWS_BY_COLUMNS)
    with pytest.raises(OutputError, match="one slice"):
        files.write(Volume(asymmetric, grid), tmp_path / "b.png")
    with pytest.raises(OutputError, match=r"state a window .* or write NIfTI"):
        files.write(flat.with_array(flat.array - 1000.0), tmp_path / "c.png")
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices/other.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        files.write(flat, tmp_path / "slices")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "slices"]


def test_a_truncated_picture_is_told(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:9000])
    with pytest.raises(FormatError, match=r"a\.png"):
        files.read(tmp_path / "a.png")


def test_real_membranes(real_data):
    images = files.read(real_data / "em_membrane/image", spacing_mm=(0.004, 0.004, 0.05))
    labels = files.read(real_data / "em_membrane/label", spacing_mm=(0.004, 0.004, 0.05))
    assert images.grid == labels.grid
    assert images.grid.shape == (512, 512, 30)
    assert set(np.unique(labels.array)) <= {0, 255}
    tenth = np.array(Image.open(real_data / "em_membrane/image/10.png"))
    np.testing.assert_array_equal(images.array[:, :, 10], tenth.T)
    # Membranes are drawn dark, in 0.
    assert images.array[labels.array == 0].mean() < images.array[labels.array == 255].mean()


@pytest.mark.parametrize(
    ("shape", "options", "note"),
    [
        ((4, 3, 5), {"metadata": {"axes": "TYX"}, "ome": True}, "its 4 time points are read as"),
        ((6, 3, 5), {"metadata": {"axes": "CYX"}, "ome": True}, "its 6 channels are read as"),
        ((3, 5), {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "its palette"),
        ((3, 5), {"photometric": "miniswhite"}, "stands for white"),
    ],
)
def test_tiff_whose_values_mean_more_is_noted(tmp_path, shape, options, note):
    path, voxels = tmp_path / "a.tif", np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    tifffile.imwrite(path, voxels, **{"photometric": "minisblack", **options})
    volume = files.read(path)
    assert note in volume.meta["notes"][0]
    np.testing.assert_array_equal(volume.array.T, voxels.reshape(-1, 3, 5))


def test_four_inks_are_no_red_green_and_blue(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 5, 4), np.uint8), photometric="separated")
    with pytest.raises(FormatError, match="CMYK; allowed: grey levels, palette, RGB"):
        files.read(tmp_path / "a.tif")
