"""convert and info on real scans: every voxel stays where it is, every refusal is told."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from tests.formats.dicom.objects import ct, write

from delineate.commands.convert import convert
from delineate.commands.info import info
from delineate.commands.options import ConvertOptions
from delineate.core.errors import FormatError, GeometryError, InputError, OutputError, UsageError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.formats.label_files import names_in
from delineate.preprocessing.parts import merged, split


def test_a_dicom_folder_becomes_one_file(tmp_path, real_data):
    result = convert([real_data / "hippocampus_dicom"], tmp_path / "h.nii.gz")
    assert result.written == (tmp_path / "h.nii.gz",)
    source, back = files.read(real_data / "hippocampus_dicom"), files.read(tmp_path / "h.nii.gz")
    np.testing.assert_array_equal(back.array, source.array)
    assert back.grid.matches(source.grid, 1e-3)
    assert back.array.dtype == source.array.dtype


def test_every_series_of_a_study_gets_a_file(tmp_path, real_data):
    told: list[tuple[str, float, float, str]] = []
    result = convert(
        [real_data / "sarcoma/dicom/STS_008"],
        tmp_path / "out",
        progress=lambda *at: told.append(at),
    )
    assert [at[:3] for at in told] == [("convert", n, 3) for n in range(3)]
    assert len(result.written) == len(told) == 3
    assert not result.refused
    assert all(path.name.endswith(".nii.gz") and "sts_008" in path.name for path in result.written)
    shapes = {files.read_grid(path).shape for path in result.written}
    assert shapes == {(141, 137, 51), (77, 79, 28), (30, 29, 51)}


def test_refused_series_do_not_stop_the_others(tmp_path, real_data):
    for name in ("ct-3slice", "23x38x3"):
        shutil.copytree(real_data / "dicom_seg" / name, tmp_path / "in" / name)
    for path in (tmp_path / "in/23x38x3/multiframe").iterdir():
        scan = pydicom.dcmread(path)
        del scan.PerFrameFunctionalGroupsSequence
        scan.save_as(path)
    result = convert([tmp_path / "in"], tmp_path / "out")
    assert len(result.written) == 2
    assert [reason.split(" (")[0] for _, reason in result.refused] == ["frames without positions"]
    with pytest.raises(FormatError, match=r"(?s)none of 1 series can be converted.*frames without"):
        convert([tmp_path / "in/23x38x3/multiframe"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_volumes_of_one_file_become_files_or_one_4d_file(tmp_path, real_data):
    (path,) = (real_data / "dicom/vendors/philips_enhanced/fmri/001").iterdir()
    parts = convert([path], tmp_path / "out").written
    assert [one.name for one in parts] == [f"701_mr_t00{n}.nii.gz" for n in (1, 2, 3, 4)]
    convert([path], tmp_path / "all.nii.gz", ConvertOptions(joined=True))
    joined = files.read(tmp_path / "all.nii.gz").array
    assert np.array_equal(joined, np.stack([files.read(one).array for one in parts]))


def test_joined_groups_of_unequal_size_have_names_of_their_own(tmp_path):
    # Four points in time, of which the last two lack a slice.
    places = [(k, time) for time in range(4) for k in range(4) if time < 2 or k < 3]
    common = {"Modality": "MR", "SeriesNumber": 4, "SeriesDescription": "dyn"}
    slices = [
        ct(
            np.full((4, 4), 10 * time + k, np.int16),
            k,
            TemporalPositionIdentifier=time + 1,
            **common,
        )
        for k, time in places
    ]
    write(tmp_path / "in", *slices)
    found = convert([tmp_path / "in"], tmp_path / "out", ConvertOptions(joined=True)).written
    assert [one.name for one in found] == ["4_mr_dyn_1_2_3_1.nii.gz", "4_mr_dyn_1_2_3_2.nii.gz"]
    volumes = [files.read(one).array[:, 0, 0] for one in found]
    assert volumes[0].tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert volumes[1].tolist() == [[20, 21, 22], [30, 31, 32]]


def test_a_volume_that_may_lack_an_end_has_a_note(tmp_path, real_data):
    shutil.copytree(real_data / "hippocampus_dicom", tmp_path / "in")
    numbers = {p: int(pydicom.dcmread(p).InstanceNumber) for p in (tmp_path / "in").iterdir()}
    min(numbers, key=numbers.__getitem__).unlink()
    notes = convert([tmp_path / "in"], tmp_path / "out.nii.gz").notes
    assert notes == (
        "ImagesInAcquisition is 32, but 31 images are here: slices may be missing at an end",
        "InstanceNumber begins at 2: slices may be missing at an end",
    )


def test_orientation_moves_axes_and_no_voxel(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    convert([tmp_path / "a.nii"], tmp_path / "b.nrrd", ConvertOptions(orientation="LPS"))
    back = files.read(tmp_path / "b.nrrd")
    assert back.grid.codes == "LPS"
    index = (2, 3, 1)
    there = tuple(np.rint(back.grid.to_index(grid.to_mm(index))).astype(int))
    assert back.array[there] == asymmetric[index]


def test_one_series_can_be_chosen(tmp_path, real_data):
    folder = real_data / "sarcoma/dicom/STS_008"
    uid = next(s["uid"] for s in info(folder)["series"] if s["modality"] == "PT")
    convert([folder], tmp_path / "pet.mha", ConvertOptions(series=uid))
    assert files.read_grid(tmp_path / "pet.mha").shape == (30, 29, 51)
    with pytest.raises(FormatError, match="choose one"):
        convert([folder], tmp_path / "which.nii.gz")


def test_slices_need_a_spacing_and_get_the_stated_one(tmp_path, real_data):
    source = real_data / "em_membrane/label"
    with pytest.raises(InputError, match="carries no spacing"):
        convert([source], tmp_path / "em.nii.gz")
    convert([source], tmp_path / "em.nii.gz", ConvertOptions(spacing_mm=(0.004, 0.004, 0.05)))
    assert files.read_grid(tmp_path / "em.nii.gz").spacing_mm == pytest.approx((0.004, 0.004, 0.05))
    result = convert([tmp_path / "em.nii.gz"], tmp_path / "slices")
    assert len(result.written) == 30
    np.testing.assert_array_equal(
        files.read(tmp_path / "slices", spacing_mm=(1, 1, 1)).array,
        files.read(tmp_path / "em.nii.gz").array,
    )


def test_what_exists_is_kept_unless_it_is_the_same_result(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    (tmp_path / "b.nii").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        convert([tmp_path / "a.nii"], tmp_path / "b.nii")
    assert (tmp_path / "b.nii").read_text() == "mine"
    for overwrite in (True, False):
        convert([tmp_path / "a.nii"], tmp_path / "b.nii", ConvertOptions(overwrite=overwrite))
    assert files.read_grid(tmp_path / "b.nii").matches(grid, 1e-3)


def test_info_tells_of_files_and_series(real_data):
    facts = info(real_data / "chaos_ct/DICOM_anon")
    assert facts["format"] == "DICOM"
    assert facts["series"][0]["spacing_mm"][2] == 2.0
    assert facts["series"][0]["orientation"] == "LPS"
    assert facts["series"][0]["unit"] == "HU"
    assert info(real_data / "ct_small/example_seg.nii.gz")["spacing_mm"] == [3.0, 3.0, 3.0]
    with pytest.raises(InputError):
        info(real_data / "README.md")


# ---- cutting and putting together ----


def cut(
    tmp_path: Path, grid: Grid, array: np.ndarray, slices: int, ending: str = ".nii.gz"
) -> list[Path]:
    files.write(Volume(array, grid), tmp_path / f"whole{ending}")
    return list(
        convert(
            [tmp_path / f"whole{ending}"], tmp_path / "parts", ConvertOptions(split_slices=slices)
        ).written
    )


def test_a_ct_is_cut_into_64_and_14_slices_and_put_together_again(tmp_path, real_data):
    result = convert(
        [real_data / "chaos_ct/DICOM_anon"], tmp_path / "parts", ConvertOptions(split_slices=64)
    )
    assert [p.name for p in result.written] == ["chaos_ct_00.nii.gz", "chaos_ct_01.nii.gz"]
    source = files.read(real_data / "chaos_ct/DICOM_anon")
    first, second = (files.read(p) for p in result.written)
    assert (first.grid.shape[2], second.grid.shape[2]) == (64, 14)
    np.testing.assert_array_equal(second.array, source.array[..., 64:])
    np.testing.assert_allclose(
        second.grid.to_mm((0, 0, 0)), source.grid.to_mm((0, 0, 64)), atol=1e-3
    )
    convert([tmp_path / "parts"], tmp_path / "whole.nii.gz", ConvertOptions(merge=True))
    back = files.read(tmp_path / "whole.nii.gz")
    np.testing.assert_array_equal(back.array, source.array)
    assert back.array.dtype == source.array.dtype == np.int16
    assert back.grid.matches(source.grid, 1e-3)


def test_a_real_mask_survives_cutting_and_merging(tmp_path, real_data):
    path = real_data / "ct_small/example_seg.nii.gz"
    parts = convert([path], tmp_path / "parts", ConvertOptions(split_slices=12)).written
    convert(list(parts), tmp_path / "whole.nii.gz", ConvertOptions(merge=True))
    source, back = files.read(path), files.read(tmp_path / "whole.nii.gz")
    assert len(parts) == -(-source.grid.shape[2] // 12) == 3
    np.testing.assert_array_equal(back.array, source.array)
    assert back.array.dtype == source.array.dtype
    assert back.grid.matches(source.grid, 1e-3)


@pytest.mark.parametrize("slices", [1, 2, 3, 100])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_any_grid_is_put_together_as_it_was(tmp_path, grid, asymmetric, slices, ending):
    written = cut(tmp_path, grid, asymmetric, slices, ending)
    assert len(written) == -(-grid.shape[2] // slices)
    # Geometry decides, not names.
    renamed = [
        p.rename(tmp_path / "parts" / f"{'zyxwvuts'[n]}{n}.nii.gz") for n, p in enumerate(written)
    ]
    convert([tmp_path / "parts"], tmp_path / "again.mha", ConvertOptions(merge=True))
    back = files.read(tmp_path / "again.mha")
    np.testing.assert_array_equal(back.array, asymmetric)
    assert back.array.dtype == asymmetric.dtype
    assert back.grid.matches(grid, 1e-3), len(renamed)


def test_parts_follow_one_another_along_any_axis(grid, asymmetric):
    whole = Volume(asymmetric, grid)
    for codes in ("SAR", "ARS", "LPI"):
        turned = [Volume(p.reorient(codes).array, p.reorient(codes).grid) for p in split(whole, 2)]
        back = merged(turned[::-1])
        np.testing.assert_array_equal(back.array, whole.reorient(codes).array)
        assert back.grid.matches(whole.reorient(codes).grid, 1e-6)


def test_channels_stay_together(tmp_path, grid, asymmetric):
    two = np.stack([asymmetric, -asymmetric])
    parts = cut(tmp_path, grid, two, 2)
    assert files.read(parts[0]).array.shape == (2, *grid.shape[:2], 2)
    convert([tmp_path / "parts"], tmp_path / "again.nii.gz", ConvertOptions(merge=True))
    np.testing.assert_array_equal(files.read(tmp_path / "again.nii.gz").array, two)


def test_names_of_parts_follow_the_output(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    assert [
        p.name
        for p in convert(
            [tmp_path / "a.nii"], tmp_path / "o/knee.nrrd", ConvertOptions(split_slices=3)
        ).written
    ] == ["knee_00.nrrd", "knee_01.nrrd"][: -(-grid.shape[2] // 3)] + ["knee_02.nrrd"] * (
        grid.shape[2] > 6
    )
    assert files.detect(tmp_path / "o/knee_00.nrrd") == "NRRD"
    with pytest.raises(OutputError, match=r"knee_0\d.nrrd from another split"):
        convert([tmp_path / "a.nii"], tmp_path / "o/knee.nrrd", ConvertOptions(split_slices=100))
    (tmp_path / "o/knee_00.nrrd").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        convert([tmp_path / "a.nii"], tmp_path / "o/knee.nrrd", ConvertOptions(split_slices=3))
    for wrong in (0, -64):
        with pytest.raises(UsageError, match=f"must be at least 1, found {wrong}"):
            convert([tmp_path / "a.nii"], tmp_path / "o", ConvertOptions(split_slices=wrong))


def test_every_series_of_a_study_is_cut(tmp_path, real_data):
    result = convert(
        [real_data / "sarcoma/dicom/STS_008"], tmp_path / "out", ConvertOptions(split_slices=40)
    )
    assert sorted(files.read_grid(p).shape[2] for p in result.written) == [11, 11, 28, 40, 40]
    assert sum(p.name.endswith("_01.nii.gz") for p in result.written) == 2


def test_a_missing_part_is_a_gap_in_mm(tmp_path, grid, asymmetric):
    parts = cut(tmp_path, grid, asymmetric, 1)
    parts[2].unlink()
    with pytest.raises(
        GeometryError,
        match=rf"gap of {grid.spacing_mm[2]:.3g} mm \(1 slices\) between .*whole_01.nii.gz and "
        r".*whole_03.nii.gz",
    ):
        convert([tmp_path / "parts"], tmp_path / "again.nii.gz", ConvertOptions(merge=True))
    assert not (tmp_path / "again.nii.gz").exists()


def test_a_part_missing_at_an_end_leaves_no_gap_but_a_note(tmp_path, grid, asymmetric):
    parts = cut(tmp_path, grid, asymmetric, 1)
    assert (
        "begin at number 2; a part missing at an end"
        in convert(parts[2:], tmp_path / "again.nii.gz", ConvertOptions(merge=True)).notes[0]
    )
    assert (
        "only volume"
        in convert(parts[:1], tmp_path / "one.nii.gz", ConvertOptions(merge=True)).notes[0]
    )
    assert convert(parts, tmp_path / "all.nii.gz", ConvertOptions(merge=True)).notes == ()


def test_an_overlap_and_a_part_given_twice_are_refused(tmp_path, grid, asymmetric):
    parts = cut(tmp_path, grid, asymmetric, 2)
    with pytest.raises(
        GeometryError, match=rf"overlap by {2 * grid.spacing_mm[2]:.3g} mm \(2 slices\)"
    ):
        convert([parts[0], *parts], tmp_path / "again.nii.gz", ConvertOptions(merge=True))
    files.write(
        Volume(asymmetric[..., 1:3], grid.crop((0, 0, 1), (*grid.shape[:2], 3))),
        tmp_path / "between.nii.gz",
    )
    with pytest.raises(
        GeometryError, match=rf"overlap by {grid.spacing_mm[2]:.3g} mm \(1 slices\)"
    ):
        convert(
            [parts[0], tmp_path / "between.nii.gz"],
            tmp_path / "again.nii.gz",
            ConvertOptions(merge=True),
        )


def altered(grid: Grid, **change) -> Grid:
    """The second half of ``grid`` (from slice 2), changed."""
    half = grid.crop((0, 0, 2), grid.shape)
    matrix = half.affine.copy()
    if "scale" in change:
        matrix[:3, 2] *= change["scale"]
    if "aside_mm" in change:
        matrix[:3, 3] += change["aside_mm"] * matrix[:3, 0] / np.linalg.norm(matrix[:3, 0])
    if "tilt_deg" in change:
        c, s = np.cos(np.deg2rad(change["tilt_deg"])), np.sin(np.deg2rad(change["tilt_deg"]))
        matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ matrix[:3, :3]
    return Grid(half.shape, matrix)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": 1.02}, "differ in spacing"),
        ({"aside_mm": 0.4}, "0.4 mm apart across"),
        ({"tilt_deg": 0.5}, r"axes are 0\.5\d* degrees apart"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(tmp_path, grid, asymmetric, change, told):
    files.write(
        Volume(asymmetric[..., :2], grid.crop((0, 0, 0), (*grid.shape[:2], 2))),
        tmp_path / "a.nii.gz",
    )
    files.write(Volume(asymmetric[..., 2:], altered(grid, **change)), tmp_path / "b.nii.gz")
    with pytest.raises(GeometryError, match=told) as error:
        convert(
            [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"],
            tmp_path / "again.nii.gz",
            ConvertOptions(merge=True),
        )
    assert "a.nii.gz" in str(error.value) and "b.nii.gz" in str(error.value)


def test_parts_of_another_size_orientation_or_place_are_refused(tmp_path, grid, asymmetric):
    whole = Volume(asymmetric, grid)
    a, b = split(whole, 2)[:2]
    with pytest.raises(GeometryError, match="differ in size across"):
        merged(
            [
                a,
                Volume(
                    b.array[:-1], b.grid.crop((0, 0, 0), (b.grid.shape[0] - 1, *b.grid.shape[1:]))
                ),
            ]
        )
    flipped = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
    with pytest.raises(GeometryError, match="differ in orientation"):
        merged([a, b.reorient(flipped[grid.codes[0]] + grid.codes[1:])])
    with pytest.raises(GeometryError, match="differ in channels"):
        merged([a, Volume(np.stack([b.array, b.array]), b.grid)])
    with pytest.raises(GeometryError, match="does not state the position of its voxels"):
        merged([a, Volume(b.array, b.grid, source="x.img", meta={"place_known": False})])


def test_only_volumes_are_merged_into_one_file(tmp_path, real_data, grid, asymmetric):
    with pytest.raises(FormatError, match="slices of DICOM series"):
        convert(
            [real_data / "chaos_ct/DICOM_anon"], tmp_path / "a.nii.gz", ConvertOptions(merge=True)
        )
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no volumes here"):
        convert([tmp_path / "empty"], tmp_path / "a.nii.gz", ConvertOptions(merge=True))
    parts = cut(tmp_path, grid, asymmetric, 2)
    with pytest.raises(OutputError, match="its name needs an ending"):
        convert(parts, tmp_path / "folder", ConvertOptions(merge=True))
    for _ in range(2):  # again, though the result now stands among the parts
        convert([tmp_path / "parts"], tmp_path / "parts/whole.nii.gz", ConvertOptions(merge=True))
    np.testing.assert_array_equal(files.read(tmp_path / "parts/whole.nii.gz").array, asymmetric)


# ---- Analyze 7.5 as OASIS-1 has it ----


def oasis_analyze(path: Path, array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Path:
    """Big-endian int16 with a fourth axis of one voxel, no origin, and the calibration fields that
    the study's files carry.
    """
    header = bytearray(348)
    struct.pack_into(">i", header, 0, 348)
    header[38:39] = b"r"
    struct.pack_into(">8h", header, 40, 4, *array.shape, 1, 0, 0, 0)
    struct.pack_into(">hh", header, 70, 4, 16)  # signed short, 16 bits
    struct.pack_into(">8f", header, 76, 0, *spacing_mm, 1, 0, 0, 0)
    struct.pack_into(">f", header, 112, 0.0)  # scale factor 0: none
    struct.pack_into(">ii", header, 140, int(array.max()), int(array.min()))
    path.with_suffix(".hdr").write_bytes(header)
    path.write_bytes(array.astype(">i2").tobytes(order="F"))
    return path


def test_oasis_t88_becomes_nifti_the_right_way_round(tmp_path):
    """T88_111 files are stored towards left, front, head: what Analyze readers assume, so left
    stays left.
    """
    array = np.zeros((11, 13, 9), np.int16)
    array[9, 4, 2], array[1, 11, 7] = 1000, 2000  # far along i is the patient's left
    oasis_analyze(tmp_path / "OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.img", array, (1, 1, 1))
    result = convert(
        [tmp_path / "OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.img"], tmp_path / "t88.nii.gz"
    )
    image = nib.load(tmp_path / "t88.nii.gz")
    assert image.shape == (11, 13, 9) and image.header.endianness == "<"
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    left_mm = image.affine @ (9, 4, 2, 1)
    right_mm = image.affine @ (1, 11, 7, 1)
    assert left_mm[0] < 0 < right_mm[0], "x grows to the right"
    np.testing.assert_allclose(image.affine @ (5, 6, 4, 1), (0, 0, 0, 1))
    assert (
        "LAS, centred at the origin, is assumed" in result.notes[0] and "--axes" in result.notes[0]
    )


@pytest.mark.parametrize("suffix", [".img", ".hdr"])
def test_oasis_raw_scans_are_turned_by_saying_where_their_axes_point(tmp_path, suffix):
    """RAW and SUBJ_111 files are stored sagittally, towards front, head, left (Marcus et al. 2007;
    a capsule marks the left side).
    """
    array = (np.arange(8 * 7 * 5).reshape(8, 7, 5) - 100).astype(np.int16)
    oasis_analyze(tmp_path / "OAS1_0001_MR1_mpr-1_anon.img", array, (1.0, 1.0, 1.25))
    source = tmp_path / f"OAS1_0001_MR1_mpr-1_anon{suffix}"
    result = convert([source], tmp_path / "raw.nii.gz", ConvertOptions(axes="ASL"))
    assert result.notes == ()
    image = nib.load(tmp_path / "raw.nii.gz")
    np.testing.assert_allclose(image.affine[:3, :3], [[0, 0, -1.25], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    convert([source], tmp_path / "ras.nii.gz", ConvertOptions(axes="ASL", orientation="RAS"))
    turned = nib.load(tmp_path / "ras.nii.gz")
    np.testing.assert_array_equal(np.asarray(turned.dataobj), array.transpose(2, 0, 1)[::-1])
    np.testing.assert_allclose(turned.affine @ (2, 4, 3, 1), image.affine @ (4, 3, 2, 1), atol=1e-5)


def test_axes_are_for_files_that_do_not_know_theirs(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    with pytest.raises(UsageError, match=f"stores the directions of its axes \\({grid.codes}\\)"):
        convert([tmp_path / "a.nii"], tmp_path / "b.nii", ConvertOptions(axes="RAS"))
    oasis_analyze(tmp_path / "c.img", asymmetric, (1, 1, 1))
    with pytest.raises(GeometryError, match="an orientation is three letters"):
        convert([tmp_path / "c.img"], tmp_path / "c.nii", ConvertOptions(axes="RRS"))
    assert not (tmp_path / "c.nii").exists()


def test_ct_becomes_pictures_by_a_stated_window(real_data, tmp_path):
    (tmp_path / "ct").mkdir()
    for path in sorted((real_data / "chaos_ct/DICOM_anon").iterdir())[30:34]:
        shutil.copy(path, tmp_path / "ct")
    # Without one it is refused, and the sentence names both ways.
    with pytest.raises(OutputError, match=r"--window -200,200.*export-slices"):
        convert([convert([tmp_path / "ct"], tmp_path / "ct.nii.gz").written[0]], tmp_path / "out")
    for bits, top in ((8, 255), (16, 65535)):
        out = tmp_path / f"slices_{bits}"
        options = ConvertOptions(window=(-200, 200), bits=bits)
        done = convert([tmp_path / "ct"], out, options)
        assert [path.name for path in done.written] == [f"slice_{k:04d}.png" for k in range(4)]
        hu = files.read(tmp_path / "ct").array[..., 2].T
        pixels = np.array(Image.open(out / "slice_0002.png"))
        expected = np.rint((np.clip(hu, -200, 200) + 200) * (top / 400))
        assert np.abs(pixels - expected).max() <= 1 and pixels.dtype == f"uint{bits}"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.nii.gz", {"window": (0, 1)}, "--window is for PNG and TIFF"),
        ("parts", {"window": (0, 1), "split_slices": 2}, "--window is for PNG and TIFF"),
        ("a.png", {"window": (0, 1), "bits": 12}, "--bits is 8 or 16"),
    ],
)
def test_a_window_is_for_pictures(tmp_path, name, options, words):
    with pytest.raises(UsageError, match=words):
        convert([tmp_path / "none.nii"], tmp_path / name, ConvertOptions(**options))


def test_arrays_in_and_out(tmp_path):
    """A stack (z, y, x) as other programs save it, with stated spacing and axes; and back."""
    stack = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    np.save(tmp_path / "stack.npy", stack)
    with pytest.raises(GeometryError, match="stores no spacing and no axes"):
        convert([tmp_path / "stack.npy"], tmp_path / "a.nii.gz")
    stated = ConvertOptions(spacing_mm=(2.5, 0.8, 0.9), axes="SPL")
    convert([tmp_path / "stack.npy"], tmp_path / "a.nii.gz", stated)
    placed = files.read(tmp_path / "a.nii.gz")
    assert placed.grid.codes == "SPL" and placed.spacing_mm == pytest.approx((2.5, 0.8, 0.9))
    np.testing.assert_array_equal(placed.array, stack)
    # Named arrays of an archive.
    np.savez(tmp_path / "two.npz", image=stack, other=stack + 1)
    convert([str(tmp_path / "two.npz") + "#other"], tmp_path / "b.nii.gz", stated)
    np.testing.assert_array_equal(files.read(tmp_path / "b.nii.gz").array, stack + 1)
    # An archive keeps the geometry; a plain array is described in a note.
    convert([tmp_path / "a.nii.gz"], tmp_path / "c.npz")
    back = files.read(tmp_path / "c.npz")
    assert back.grid == placed.grid and np.array_equal(back.array, stack)
    done = convert([tmp_path / "a.nii.gz"], tmp_path / "c.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), stack)
    assert "axes SPL and a spacing of 2.5,0.8,0.9 mm" in done.notes[0]


def test_an_archive_is_no_input(tmp_path):
    with pytest.raises(UsageError, match="convert reads files; predict fetches"):
        convert(["dicomweb:http://pacs/studies/1.2"], tmp_path / "a.nii.gz")


def test_names_of_structures_are_kept_or_their_loss_is_noted(tmp_path):
    labels, grid = (
        LabelSet.from_names({1: "liver", 3: "spleen"}),
        Grid.from_spacing((2, 3, 4), (1, 1, 2)),
    )
    source = tmp_path / "a.seg.nrrd"
    files.write(Volume(np.ones(grid.shape, np.uint8), grid, "label"), source, labels=labels)
    for name in ("0.nii.gz", "1.mha", "2.nii", "3.nrrd"):
        report = convert([source], source := tmp_path / name)
        assert names_in(source) == {1: "liver", 3: "spleen"} and not report.notes
    layers = LabelSet.from_names({1: "liver", 2: "tumour"}, overlapping=True)
    both = Volume(np.full(grid.shape, 3, np.uint8), grid, "label")
    files.write(both, tmp_path / "b.seg.nrrd", labels=layers)
    (note,) = convert([tmp_path / "b.seg.nrrd"], tmp_path / "b.nii").notes
    assert "names 2 structures, and b.nii does not" in note
    assert files.read(tmp_path / "b.nii").array.shape == (2, *grid.shape)
