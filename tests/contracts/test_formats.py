"""What every writable format must satisfy: written and read again, each voxel has its value at its
place in mm.
"""

from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import LabelError, OutputError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files

PLACED = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".npz")
DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")


def same_at_every_place(a: Volume, b: Volume) -> None:
    """Every voxel of ``a`` is found in ``b`` at its place in mm, with its value."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in a.grid.shape], indexing="ij"), axis=-1)
    found = b.grid.to_index(a.grid.to_mm(index))
    assert np.abs(found - np.rint(found)).max() < 1e-3
    i, j, k = np.moveaxis(np.rint(found).astype(int), -1, 0)
    np.testing.assert_array_equal(b.channels_array[:, i, j, k], a.channels_array)


@pytest.mark.parametrize("ending", PLACED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_written_and_read_again_every_voxel_stands_where_it_stood(
    tmp_path, grid: Grid, asymmetric, ending, dtype
):
    values = asymmetric.astype(dtype) if dtype != "float32" else asymmetric.astype(dtype) / 3
    volume = Volume(values, grid)
    path = tmp_path / f"scan{ending}"
    files.write(volume, path)
    back = files.read(path)
    same_at_every_place(volume, back)
    assert back.array.dtype == values.dtype
    assert back.grid.matches(grid, tolerance_mm=1e-3)
    assert files.read_grid(path) == back.grid
    assert back.meta["spacing_known"] is True
    assert sorted(p.name for p in tmp_path.iterdir()) == (
        ["scan.mhd", "scan.raw"] if ending == ".mhd" else [path.name]
    )


@pytest.mark.parametrize("ending", PLACED)
def test_channels_come_back_first(tmp_path, grid, asymmetric, ending):
    volume = Volume(np.stack([asymmetric, asymmetric[::-1], -asymmetric]), grid)
    files.write(volume, tmp_path / f"scan{ending}")
    back = files.read(tmp_path / f"scan{ending}")
    assert back.array.shape == volume.array.shape
    same_at_every_place(volume, back)


@pytest.mark.parametrize("ending", PLACED)
@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 1, 255], "uint8"), ([0, 2, 300], "uint16"), ([0.0, 3.0, 70000.0], "uint32")],
)
def test_labels_take_the_smallest_unsigned_dtype(tmp_path, grid, ending, values, dtype):
    array = np.array(values)[np.arange(np.prod(grid.shape)).reshape(grid.shape) % 3]
    files.write(
        Volume(array, grid, "label"),
        tmp_path / f"mask{ending}",
        labels=LabelSet.from_names({1: "liver", 2: "left kidney"}),
    )
    back = files.read(tmp_path / f"mask{ending}")
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, array)


@pytest.mark.parametrize("ending", PLACED)
@pytest.mark.parametrize("wrong", [-1.0, 0.5, np.nan])
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, grid, ending, wrong):
    with pytest.raises(LabelError, match="whole numbers"):
        files.write(Volume(np.full(grid.shape, wrong), grid, "label"), tmp_path / f"mask{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", PLACED)
def test_a_failed_write_leaves_the_old_file(tmp_path, grid, asymmetric, ending):
    path = tmp_path / f"scan{ending}"
    files.write(Volume(asymmetric, grid), path)
    before = path.read_bytes()
    with pytest.raises(LabelError):
        files.write(Volume(-np.ones(grid.shape), grid, "label"), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("ending", [*PLACED, ".png"])
def test_the_format_is_told_from_content_under_a_foreign_name(tmp_path, ending):
    volume = Volume(
        np.arange(35, dtype=np.uint8).reshape(7, 5, 1),
        Grid((7, 5, 1), np.diag([-0.7, -0.9, 2.0, 1.0])),
    )
    files.write(volume, tmp_path / f"a{ending}")
    renamed = tmp_path / "renamed.dat"
    (tmp_path / f"a{ending}").rename(renamed)
    assert files.is_image(renamed)
    np.testing.assert_array_equal(files.read(renamed).array, volume.array)


@pytest.mark.parametrize("ending", PLACED)
@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_truncated_files_are_refused_in_one_sentence(tmp_path, ending, keep):
    rng = np.random.default_rng(0)
    path = tmp_path / f"scan{ending}"
    files.write(
        Volume(
            rng.integers(0, 4000, (40, 30, 20), np.int16),
            Grid.from_spacing((40, 30, 20), (1, 1, 2)),
        ),
        path,
    )
    cut = path.with_suffix(".raw") if ending == ".mhd" else path
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * keep)])
    with pytest.raises(files.FormatError) as caught:
        files.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".jpg", ".tif", ".dcm", ".nii.bz2"])
def test_an_unknown_ending_names_the_allowed_ones(tmp_path, grid, asymmetric, ending):
    with pytest.raises(OutputError, match=r"allowed endings are \.nii, \.nii\.gz"):
        files.write(Volume(asymmetric, grid), tmp_path / f"scan{ending}")


def test_equal_volumes_give_equal_files(tmp_path, grid, asymmetric):
    for name in ("a", "b"):
        files.write(Volume(asymmetric, grid), tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
