"""NIfTI, Analyze and MGH as others write them: made by nibabel, read by us."""

from __future__ import annotations

import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from delineate.core.errors import FormatError, GeometryError
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files


def save(path, array, affine, kind=nib.Nifti1Image, **codes):
    image = kind(array, affine)
    for name, code in codes.items():
        image.header[name] = code
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.MGHImage])
@pytest.mark.parametrize("packed", [False, True])
def test_nibabels_files_are_read_as_nibabel_reads_them(tmp_path, grid, asymmetric, kind, packed):
    endings = {nib.Nifti1Pair: ".img", nib.MGHImage: ".mgh"}
    path = tmp_path / f"a{endings.get(kind, '.nii')}"
    path = (
        path.with_suffix(".mgz")
        if packed and kind is nib.MGHImage
        else path.with_name(path.name + ".gz")
        if packed
        else path
    )
    save(path, asymmetric, grid.affine, kind)
    volume = files.read(path)
    np.testing.assert_array_equal(volume.array, asymmetric)
    assert volume.array.dtype == asymmetric.dtype
    assert volume.grid.distance_mm(grid) < 1e-3
    assert files.read_grid(path) == volume.grid


def test_either_file_of_a_pair_will_do_and_a_missing_twin_is_named(tmp_path, grid, asymmetric):
    save(tmp_path / "a.img", asymmetric, grid.affine, nib.Nifti1Pair)
    np.testing.assert_array_equal(
        files.read(tmp_path / "a.hdr").array, files.read(tmp_path / "a.img").array
    )
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(FormatError, match=r"a\.hdr is missing"):
        files.read(tmp_path / "a.img")


def test_big_endian_analyze_with_a_fourth_axis_of_one(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    image = nib.AnalyzeImage(array, None, header)
    image.header.set_zooms((1.5, 2.0, 3.0, 1.0))
    nib.save(image, tmp_path / "oasis.img")
    assert (tmp_path / "oasis.hdr").read_bytes()[:4] == b"\x00\x00\x01\x5c"
    for name in ("oasis.img", "oasis.hdr"):
        volume = files.read(tmp_path / name)
        np.testing.assert_array_equal(volume.array, array[..., 0])
        assert volume.array.dtype == np.int16
        assert volume.array.dtype.isnative
        assert volume.grid.codes == "LAS"
        assert volume.grid.spacing_mm == (1.5, 2.0, 3.0)
        assert volume.meta["place_known"] is False
    assert files.describe(tmp_path / "oasis.img")["format"] == "Analyze 7.5"


def test_big_endian_nifti_becomes_native(tmp_path, grid, asymmetric):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(asymmetric, grid.affine, header), tmp_path / "a.nii.gz")
    volume = files.read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, asymmetric)
    assert volume.array.dtype.isnative


def test_scaling_gives_float32_as_nibabel_would(tmp_path, grid, asymmetric):
    image = nib.Nifti1Image(asymmetric, grid.affine)
    image.header.set_slope_inter(0.25, -1000)
    nib.save(image, tmp_path / "a.nii")
    # Nibabel undoes the slope on writing, so it is put in by hand.
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]))
    header["scl_slope"], header["scl_inter"] = 0.25, -1000
    raw[:348] = header.binaryblock
    (tmp_path / "a.nii").write_bytes(raw)
    volume = files.read(tmp_path / "a.nii")
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, nib.load(tmp_path / "a.nii").get_fdata())
    assert volume.array.min() < -900


def test_fourth_axis_becomes_channels_and_a_fifth_is_refused(tmp_path, grid):
    array = np.arange(np.prod(grid.shape) * 3, dtype=np.float32).reshape(*grid.shape, 3)
    volume = files.read(save(tmp_path / "a.nii", array, grid.affine))
    np.testing.assert_array_equal(volume.array, np.moveaxis(array, 3, 0))
    vector = files.read(save(tmp_path / "v.nii", array[..., None, :], grid.affine))
    np.testing.assert_array_equal(vector.array, volume.array)
    with pytest.raises(FormatError, match="5 axes"):
        files.read(save(tmp_path / "b.nii", np.stack([array, array], axis=3), grid.affine))


def test_a_single_slice_and_a_flat_image_have_k_1(tmp_path):
    assert files.read(
        save(tmp_path / "a.nii", np.zeros((5, 4), np.uint8), np.eye(4))
    ).array.shape == (5, 4, 1)


def test_units_of_metres_and_micrometres_become_mm(tmp_path):
    for unit, scale in (("meter", 1000.0), ("micron", 0.001)):
        image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.diag([2.0, 3.0, 4.0, 1.0]))
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / "a.nii")
        np.testing.assert_allclose(
            files.read_grid(tmp_path / "a.nii").spacing_mm, np.array([2.0, 3.0, 4.0]) * scale
        )


# ---- geometry that contradicts or is missing ----


def two_forms(path, grid, shift_mm, sform_code, qform_code):
    image = nib.Nifti1Image(np.zeros(grid.shape, np.uint8), None)
    moved = grid.affine.copy()
    moved[0, 3] += shift_mm
    image.header.set_sform(grid.affine, sform_code)
    image.header.set_qform(moved, qform_code, strip_shears=True)
    nib.save(image, path)
    return path


def test_sform_before_qform_and_the_distance_is_recorded(tmp_path, grid):
    volume = files.read(two_forms(tmp_path / "a.nii", grid, 12.5, 4, 1))
    assert volume.grid.matches(grid, 1e-3)
    assert volume.meta["qform_distance_mm"] == pytest.approx(12.5, abs=0.01)
    assert "qform (code 1) places a corner voxel 12.5 mm from there" in volume.meta["notes"][0]
    only_q = files.read(two_forms(tmp_path / "b.nii", grid, 12.5, 0, 1))
    assert only_q.grid.distance_mm(grid) == pytest.approx(12.5, abs=0.01)


def test_other_voxel_sizes_than_those_of_the_sform_are_noted(tmp_path, grid):
    image = nib.Nifti1Image(np.zeros(grid.shape, np.uint8), grid.affine)
    data = bytearray(image.to_bytes())
    assert "notes" not in files.read(save(tmp_path / "a.nii", image.dataobj, grid.affine)).meta
    data[80:92] = np.full(3, 9, "<f4").tobytes()
    (tmp_path / "b.nii").write_bytes(data)
    volume = files.read(tmp_path / "b.nii")
    assert volume.grid.matches(grid, 1e-3)
    assert "by the sform; its pixdim states 9 x 9 x 9 mm" in volume.meta["notes"][0]


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (68, np.int16(1002), ""),  # labels
        (68, np.int16(5), "its values are those of a statistic (intent_code 5)"),
        (68, np.int16(1006), "its values are displacements"),
        (72, np.int16(16), "its datatype has 8 bits, which counts; bitpix states 16"),
        (88, np.float32(-3), "its pixdim states"),
        (256, np.float32(2), "its qform has an impossible rotation"),
    ],
)
def test_what_a_header_states_besides_is_noted(tmp_path, place, value, found):
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    image = nib.Nifti1Image(np.zeros((4, 3, 2), np.uint8), affine)
    image.set_qform(affine, 1)
    data = bytearray(image.to_bytes())
    data[place : place + value.nbytes] = value.tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    volume = files.read(tmp_path / "a.nii")
    notes = volume.meta.get("notes", [])
    assert any(found in one for one in notes) if found else not notes
    np.testing.assert_allclose(volume.grid.affine[:3, :3], affine[:3, :3])


def test_units_and_planes_of_analyze(tmp_path):
    image = nib.Spm2AnalyzeImage(np.zeros((4, 3, 2), np.int16), np.diag([-1.0, 2.0, 3.0, 1.0]))
    nib.save(image, tmp_path / "a.img")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    data = bytearray((tmp_path / "a.hdr").read_bytes())
    data[56:60], data[60:62], data[252] = b"um\0\0", b"HU", 1
    (tmp_path / "a.hdr").write_bytes(data)
    volume = files.read(tmp_path / "a.img")
    np.testing.assert_allclose(volume.spacing_mm, (0.001, 0.002, 0.003))
    unit, plane = volume.meta["notes"]
    assert "the unit 'HU' of its values" in unit and "states coronal slices (orient)" in plane


def test_a_matrix_of_spm_is_noted(tmp_path, grid):
    nib.save(nib.Spm99AnalyzeImage(np.zeros(grid.shape, np.int16), grid.affine), tmp_path / "a.img")
    assert "may be in a.mat (SPM)" in files.read(tmp_path / "a.hdr").meta["notes"][0]
    (tmp_path / "a.mat").unlink()
    assert "notes" not in files.read(tmp_path / "a.img").meta


@pytest.mark.parametrize("flag", [0, -1])
def test_mgh_without_its_flag_has_no_place(tmp_path, grid, flag):
    data = bytearray(nib.MGHImage(np.zeros(grid.shape, np.uint8), grid.affine).to_bytes())
    data[28:30] = flag.to_bytes(2, "big", signed=True)
    (tmp_path / "a.mgh").write_bytes(data)
    volume = files.read(tmp_path / "a.mgh")
    assert volume.grid.spacing_mm == (1, 1, 1)
    assert not volume.meta["spacing_known"] and not volume.meta["place_known"]


def test_contradicting_forms_of_one_space_are_refused_with_the_distance(tmp_path, grid):
    path = two_forms(tmp_path / "a.nii", grid, 12.5, 1, 1)
    with pytest.raises(GeometryError, match=r"contradict.*12\.5 mm"):
        files.read(path)
    assert files.read(two_forms(tmp_path / "b.nii", grid, 0.05, 1, 1)).grid.matches(grid, 1e-3)


def test_without_forms_the_spacing_is_kept_and_the_place_unknown(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), None)
    image.header.set_zooms((0.5, 0.6, 3.0))
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii")
    volume = files.read(tmp_path / "a.nii")
    assert volume.meta["place_known"] is False
    np.testing.assert_allclose(volume.grid.spacing_mm, (0.5, 0.6, 3.0), rtol=1e-6)


def raw_header(path, **fields):
    """Change header fields that nibabel itself would not write."""
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(raw)
    return path


def test_no_forms_and_no_spacing_are_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    raw_header(path, sform_code=0, qform_code=0, pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(GeometryError, match="no usable geometry"):
        files.read(path)


def test_nan_affines_are_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8), np.eye(4))
    with pytest.raises(GeometryError, match="not finite"):
        files.read(raw_header(path, sform_code=1, srow_x=[np.nan, 0, 0, 0]))


@pytest.mark.parametrize("qform_code", [0, 1])
def test_a_sheared_sform_is_kept_beside_the_rotation_nearest_to_it(tmp_path, qform_code):
    sheared = np.diag([2.0, 2.0, 3.0, 1.0])
    sheared[0, 2] = 0.8
    image = nib.Nifti1Image(np.zeros((30, 40, 50), np.uint8), None)
    image.header.set_sform(sheared, 1)
    image.header.set_qform(sheared, qform_code, strip_shears=True)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(files.read(tmp_path / "a.nii").affine, np.float32(sheared))
    # A qform elsewhere still contradicts it.
    sheared[0, 3] = 20
    image.header.set_qform(sheared, 1, strip_shears=True)
    nib.save(image, tmp_path / "b.nii")
    with pytest.raises(GeometryError, match=r"contradict.*20\.0 mm"):
        files.read(tmp_path / "b.nii")


# ---- damage ----


def test_truncated_and_damaged_gzip(tmp_path, grid):
    array = np.random.default_rng(1).integers(0, 1000, grid.shape).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", array, grid.affine)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(FormatError, match="truncated"):
        files.read(path)
    damaged = bytearray(whole)
    damaged[-6] ^= 0xFF  # the stored checksum
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match="cannot be unpacked"):
        files.read(path)


def test_complex_values_are_refused(tmp_path):
    with pytest.raises(FormatError, match="real numbers"):
        files.read(save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.complex64), np.eye(4)))


# ---- writing ----


def test_others_read_what_we_write(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), asymmetric)
    assert image.get_data_dtype() == np.int16
    for affine, code in (image.header.get_sform(coded=True), image.header.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, grid.affine, atol=1e-4)
    assert len(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())) == 352 + asymmetric.nbytes


def test_label_names_stand_in_a_comment(tmp_path, grid):
    labels = LabelSet.from_names({1: "liver", 5: "spleen"})
    files.write(
        Volume(np.zeros(grid.shape, np.uint8), grid, "label"), tmp_path / "a.nii.gz", labels=labels
    )
    extension = nib.load(tmp_path / "a.nii.gz").header.extensions[0]
    text = extension.get_content()
    assert LabelSet.from_json(json.loads(text)["delineate_labels"]) == labels
    assert files.read(tmp_path / "a.nii.gz").grid.matches(grid, 1e-3)


# ---- real scans ----


def test_real_brains_match_nibabel(real_data):
    image = nib.load(real_data / "malc/images/1000.nii.gz")
    volume = files.read(real_data / "malc/images/1000.nii.gz")
    np.testing.assert_array_equal(volume.array, np.asanyarray(image.dataobj))
    np.testing.assert_allclose(volume.grid.affine, image.affine)
    label = files.read(real_data / "malc/labels/1000.nii.gz")
    assert label.grid.matches(volume.grid)
    assert label.array.max() == 207


def test_all_hippocampus_pairs_stand_on_one_grid(real_data):
    images = sorted((real_data / "hippocampus/imagesTr").glob("*.nii.gz"))
    dtypes = set()
    for path in images:
        volume, label = files.read(path), files.read(real_data / "hippocampus/labelsTr" / path.name)
        assert label.grid.matches(volume.grid, 0.1)
        assert set(np.unique(label.array)) == {0, 1, 2}
        dtypes.add(volume.array.dtype.name)
    assert len(images) == 208
    assert dtypes == {"uint8", "float32"}
