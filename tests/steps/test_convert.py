"""convert and info on real scans: every voxel stays where it is, every refusal is told."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import FormatError, InputError, OutputError
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.steps.convert import convert, info


def test_a_dicom_folder_becomes_one_file(tmp_path, real_data):
    result = convert(real_data / "hippocampus_dicom", tmp_path / "h.nii.gz")
    assert result.written == (tmp_path / "h.nii.gz",)
    source, back = files.read(real_data / "hippocampus_dicom"), files.read(tmp_path / "h.nii.gz")
    np.testing.assert_array_equal(back.array, source.array)
    assert back.grid.matches(source.grid, 1e-3)
    assert back.array.dtype == source.array.dtype


def test_every_series_of_a_study_gets_a_file(tmp_path, real_data):
    told: list[str] = []
    result = convert(real_data / "sarcoma/dicom/STS_008", tmp_path / "out", progress=told.append)
    assert len(result.written) == len(told) == 3
    assert not result.refused
    assert all(path.name.endswith(".nii.gz") and "sts_008" in path.name for path in result.written)
    shapes = {files.read_grid(path).shape for path in result.written}
    assert shapes == {(141, 137, 51), (77, 79, 28), (30, 29, 51)}


def test_refused_series_do_not_stop_the_others(tmp_path, real_data):
    result = convert(real_data / "dicom_seg", tmp_path / "out")
    assert len(result.written) == 3
    assert [reason.split(" objects")[0] for _, reason in result.refused] == ["multi-frame (enhanced)"] * 2
    with pytest.raises(FormatError, match=r"none of 1 series can be converted.*mosaics"):
        convert(real_data / "dicom/vendors/siemens/fmri", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_orientation_moves_axes_and_no_voxel(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    convert(tmp_path / "a.nii", tmp_path / "b.nrrd", orientation="LPS")
    back = files.read(tmp_path / "b.nrrd")
    assert back.grid.codes == "LPS"
    index = (2, 3, 1)
    there = tuple(np.rint(back.grid.to_index(grid.to_mm(index))).astype(int))
    assert back.array[there] == asymmetric[index]


def test_one_series_can_be_chosen(tmp_path, real_data):
    folder = real_data / "sarcoma/dicom/STS_008"
    uid = next(s["uid"] for s in info(folder)["series"] if s["modality"] == "PT")
    convert(folder, tmp_path / "pet.mha", series=uid)
    assert files.read_grid(tmp_path / "pet.mha").shape == (30, 29, 51)
    with pytest.raises(FormatError, match="choose one"):
        convert(folder, tmp_path / "which.nii.gz")


def test_slices_need_a_spacing_and_get_the_stated_one(tmp_path, real_data):
    source = real_data / "em_membrane/label"
    with pytest.raises(InputError, match="carries no spacing"):
        convert(source, tmp_path / "em.nii.gz")
    convert(source, tmp_path / "em.nii.gz", spacing_mm=(0.004, 0.004, 0.05))
    assert files.read_grid(tmp_path / "em.nii.gz").spacing_mm == pytest.approx((0.004, 0.004, 0.05))
    result = convert(tmp_path / "em.nii.gz", tmp_path / "slices")
    assert len(result.written) == 30
    np.testing.assert_array_equal(files.read(tmp_path / "slices", spacing_mm=(1, 1, 1)).array, files.read(tmp_path / "em.nii.gz").array)


def test_what_exists_is_kept_when_told_so(tmp_path, grid, asymmetric):
    files.write(Volume(asymmetric, grid), tmp_path / "a.nii")
    (tmp_path / "b.nii").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        convert(tmp_path / "a.nii", tmp_path / "b.nii", overwrite=False)
    assert (tmp_path / "b.nii").read_text() == "mine"
    convert(tmp_path / "a.nii", tmp_path / "b.nii")
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
