"""The door: telling formats, names, folders, errors that teach."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from delineate.core.errors import FormatError, GeometryError
from delineate.core.grid import Grid
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import files


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"),
        ("a.b.nii", "a.b"),
        ("IM1.DCM", "IM1"),
        ("x.seg.nrrd", "x"),
        ("s.tar.gz", "s"),
        ("plain", "plain"),
        (".gz", ".gz"),
        ("liver.v2", "liver.v2"),
        ("/data/x.y/scan.mgz", "scan"),
    ],
)
def test_stem(name, expected):
    assert files.stem(name) == expected


def test_natural_key_counts_numbers():
    names = ["s10", "s2", "S1", "a", "s2b", "s02", "10", "9"]
    assert sorted(names, key=files.natural_key) == ["9", "10", "a", "S1", "s02", "s2", "s2b", "s10"]


def test_what_cannot_be_read_is_told_with_the_path(tmp_path):
    (tmp_path / "empty.nii").touch()
    (tmp_path / "text.nii.gz").write_text("no image at all")
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("empty.nii", "empty file"),
        ("text.nii.gz", "unrecognised format"),
        ("missing.png", "no such file"),
        ("folder", "no image that can be read"),
    ):
        with pytest.raises(FormatError, match=reason) as caught:
            files.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert not files.is_image(tmp_path / name)


HEADS = [
    b"\x5c\x01\x00\x00",
    b"\x1f\x8b",
    b"\x1f\x8b\x08\x00garbage",
    b"NRRD0004\n",
    b"\x89PNG\r\n\x1a\n",
    b"II*\x00",
    b"\xff\xd8\xff",
    bytes(128) + b"DICM",
    b"\x00\x00\x00\x01",
    b"NDims = 3\nDimSize = 2 2 2\n",
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [0, 400])
def test_a_head_without_a_body_never_escapes_as_a_traceback(tmp_path, head, size):
    path = tmp_path / "a"
    path.write_bytes(head + bytes(size))
    with pytest.raises((FormatError, GeometryError)) as caught:
        files.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_volumes_is_no_volume(tmp_path, grid, asymmetric):
    for name in ("a.nii", "b.nii"):
        files.write(Volume(asymmetric, grid), tmp_path / name)
    with pytest.raises(FormatError, match=r"folder of 2 volumes \(a\.nii, b\.nii\).*name the file"):
        files.read(tmp_path)
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(FormatError, match="mixed in one folder"):
        files.read(tmp_path, spacing_mm=(1, 1, 1))


def test_a_stated_spacing_must_not_contradict_the_file(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    with pytest.raises(GeometryError, match="carries its own"):
        files.read(tmp_path / "a.nii", spacing_mm=(9, 9, 9))
    assert files.read(tmp_path / "a.nii", spacing_mm=grid.spacing_mm).grid.matches(grid, 1e-3)


def test_like_lends_its_place_to_one_file(tmp_path):
    placed = Grid((4, 3, 1), np.diag([-0.5, -0.6, 2.0, 1.0]))
    files.write(Volume(np.zeros((4, 3, 1), np.int16), placed), tmp_path / "scan.nii")
    Image.fromarray(np.ones((3, 4), np.uint8)).save(tmp_path / "mask.png")
    mask = files.read(Source(str(tmp_path / "mask.png"), like=str(tmp_path / "scan.nii")))
    assert mask.grid.matches(placed)
    assert mask.meta["spacing_known"] is True
    Image.fromarray(np.ones((4, 3), np.uint8)).save(tmp_path / "turned.png")
    with pytest.raises(GeometryError, match="cannot take the geometry"):
        files.read(Source(str(tmp_path / "turned.png"), like=str(tmp_path / "scan.nii")))


def test_describe_tells_what_a_person_asks(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii.gz")
    facts = files.describe(tmp_path / "a.nii.gz")
    assert facts["format"] == "NIfTI"
    assert facts["shape"] == list(grid.shape)
    assert facts["orientation"] == grid.codes
    assert facts["dtype"] == "int16"
    np.testing.assert_allclose(facts["spacing_mm"], grid.spacing_mm, atol=1e-3)
    files.write(Volume(asymmetric, grid), tmp_path / "a.nrrd")
    assert files.describe(tmp_path / "a.nrrd")["format"] == "NRRD"
    files.write(Volume(abs(asymmetric).astype(np.uint16), grid), tmp_path / "slices")
    stack = files.describe(tmp_path / "slices")
    assert stack["format"] == "stack of PNG"
    assert stack["shape"] == list(grid.shape)


@pytest.mark.parametrize(
    ("sizes", "voxels", "said"),
    [
        ("2 3 4", "1 " * 24, ""),
        ("2 3 4", "1 " * 23, "the header states 24 numbers, the file has 23"),
        ("2 0 4", "", "sizes must be at least 1, one for each of 3 axes, found"),
    ],
)
def test_voxels_as_text_are_as_many_as_stated(tmp_path, sizes, voxels, said):
    fields = f"type: uint8\ndimension: 3\nsizes: {sizes}\nspacings: 1 1 2\nencoding: text"
    path = tmp_path / "a.nrrd"
    path.write_text(f"NRRD0004\n{fields}\n\n{voxels}\n")
    if said:
        with pytest.raises(FormatError, match=said):
            files.read(path)
    else:
        assert files.read(path).array.sum() == 24


def test_a_file_that_ends_before_its_first_voxel_is_truncated(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((2, 3, 4))
    header["vox_offset"] = 4000
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(1000))
    with pytest.raises(FormatError, match=r"truncated: it ends \d+ bytes before the first voxel"):
        files.read(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("a.png", {"format": "PNG", "shape": [9, 8, 1], "channels": 1, "spacing_known": False}),
        ("a.npy", {"format": "NumPy", "spacing_known": False}),
        ("a.mha", {"format": "MetaImage", "shape": [4, 5, 6], "components": 1}),
    ],
)
def test_the_process_that_reads_describes_files_without_a_place(tmp_path, name, stated):
    path = tmp_path / name
    volume = Volume(np.ones((1, 4, 5, 6), np.int16), Grid((4, 5, 6), np.eye(4)))
    if name == "a.mha":
        files.write(volume, path)
    elif name == "a.npy":
        np.save(path, np.zeros((4, 5, 6), np.int16))
    else:
        Image.fromarray(np.zeros((8, 9), np.uint8)).save(path)
    found, arrays = files.sent_description(Source(str(path)).to_json(), None)
    assert arrays == () and found["path"] == str(path)
    assert {key: found.get(key) for key in stated} == stated
