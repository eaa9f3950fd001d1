"""SEG objects read back by pydicom and highdicom: every mask slice stands on its source slice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.formats.dicom.objects import image, write

from delineate.cohorts.phantom import dicom as phantom_dicom
from delineate.cohorts.phantom.cohort import LABELS, PhantomScan, make_scan
from delineate.core.errors import FormatError, GeometryError, LabelError, OutputError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import dicom, files
from delineate.formats.dicom.seg import write_seg
from delineate.formats.label_files import read_label_file

ALGORITHM = {"algorithm_name": "test network", "algorithm_version": "1.0"}


def patient(folder: Path, index: int) -> tuple[PhantomScan, list[Path]]:
    """A small phantom patient as DICOM, its files in an order that means nothing."""
    scan = make_scan(index, seed=3, size=(48, 10))
    phantom_dicom.write_patient(folder, scan.image, scan.label, scan.storage)
    return scan, sorted((folder / "DICOM_anon").iterdir())


def masks_by_place(path: Path) -> dict[tuple[int, tuple[float, ...]], np.ndarray]:
    """(segment number, position LPS mm) -> mask (rows, columns), by nothing but the standard's
    attributes.
    """
    seg = pydicom.dcmread(path)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    out = {}
    for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = (
            groups
            if "SegmentIdentificationSequence" in groups
            else seg.SharedFunctionalGroupsSequence[0]
        )
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = tuple(
            round(float(v), 2) for v in groups.PlanePositionSequence[0].ImagePositionPatient
        )
        out[number, place] = frame
    return out


def check_each_slice(
    path: Path, label_of_file: dict[Path, np.ndarray], segments: dict[int, int]
) -> int:
    """Compare every source slice's mask (by its own ImagePositionPatient) with the SEG's; returns
    how many frames held voxels.
    """
    masks, used = masks_by_place(path), 0
    for file, label in label_of_file.items():
        place = tuple(
            round(float(v), 2)
            for v in pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient
        )
        for number, value in segments.items():
            expected = label == value
            found = masks.get((number, place))
            assert (found is not None) == expected.any()
            if found is not None:
                np.testing.assert_array_equal(found, expected)
                used += 1
    assert used == len(masks)
    return used


def png_labels(
    folder: Path, dicom_files: list[Path], table: dict[int, int]
) -> dict[Path, np.ndarray]:
    from PIL import Image

    pngs = sorted((folder / "Ground").glob("*.png"))
    assert len(pngs) == len(dicom_files)
    return {
        d: np.vectorize(lambda v: table.get(int(v), 0))(np.array(Image.open(p)))
        for d, p in zip(dicom_files, pngs, strict=True)
    }


@pytest.mark.parametrize("index", [0, 1, 3, 5])  # plain, misleading numbers, turned, upside down
def test_every_mask_slice_stands_on_its_source_slice(tmp_path: Path, index: int) -> None:
    scan, dicom_files = patient(tmp_path / "p", index)
    truth = png_labels(tmp_path / "p", dicom_files, {63: 1, 126: 2, 189: 3, 252: 4})
    notes = write_seg(scan.label, LABELS, dicom_files[::-1], tmp_path / "out.dcm", **ALGORITHM)
    assert notes == []
    assert check_each_slice(tmp_path / "out.dcm", truth, {1: 1, 2: 2, 3: 3, 4: 4}) >= 8


def test_any_flip_and_permutation_of_the_volume_gives_the_same_masks(tmp_path: Path) -> None:
    scan, dicom_files = patient(tmp_path / "p", 5)
    write_seg(scan.label, LABELS, dicom_files, tmp_path / "a.dcm", **ALGORITHM)
    write_seg(scan.label.reorient("SRA"), LABELS, dicom_files, tmp_path / "b.dcm", **ALGORITHM)
    a, b = masks_by_place(tmp_path / "a.dcm"), masks_by_place(tmp_path / "b.dcm")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)


def test_it_refers_to_every_slice_and_carries_codes_and_the_real_gap(tmp_path: Path) -> None:
    import highdicom as hd

    scan, dicom_files = patient(tmp_path / "p", 0)
    write_seg(scan.label, LABELS, dicom_files, tmp_path / "out.dcm", **ALGORITHM)
    seg = hd.seg.segread(tmp_path / "out.dcm")
    sources = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in dicom_files}
    assert {str(uid) for _, _, uid in seg.get_source_image_uids()} == sources
    shared = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(shared.SpacingBetweenSlices) == pytest.approx(
        scan.image.grid.spacing_mm[2], abs=1e-6
    )
    assert seg.PatientID == scan.patient
    assert seg.SegmentationType == "BINARY"
    kidney = seg.get_segment_description(3)
    assert (kidney.segment_label, kidney.segmented_property_type.value) == (
        "left kidney",
        "64033007",
    )
    assert (
        kidney.SegmentedPropertyTypeCodeSequence[0]
        .SegmentedPropertyTypeModifierCodeSequence[0]
        .CodeMeaning
        == "Left"
    )
    assert kidney.algorithm_identification.name == "test network"
    colour = hd.color.CIELabColor.from_dicom_value(kidney.RecommendedDisplayCIELabValue)
    assert np.abs(np.array(colour.to_rgb()) - LABELS.named("left kidney").colour).max() <= 2


def test_structures_without_a_voxel_are_left_out_and_told(tmp_path: Path) -> None:
    scan, dicom_files = patient(tmp_path / "p", 0)
    only_spleen = scan.label.with_array(np.where(scan.label.array == 4, 4, 0).astype(np.uint8))
    notes = write_seg(only_spleen, LABELS, dicom_files, tmp_path / "out.dcm", **ALGORITHM)
    assert [note.split(" has")[0] for note in notes] == ["liver", "right kidney", "left kidney"]
    seg = pydicom.dcmread(tmp_path / "out.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["spleen"]
    total = sum(int(m.sum()) for m in masks_by_place(tmp_path / "out.dcm").values())
    assert total == int((scan.label.array == 4).sum())


def test_refusals_leave_no_file(tmp_path: Path) -> None:
    scan, dicom_files = patient(tmp_path / "p", 0)
    out, grid = tmp_path / "out.dcm", scan.label.grid
    empty = scan.label.with_array(np.zeros(grid.shape, np.uint8))
    with pytest.raises(OutputError, match="at least one"):
        write_seg(empty, LABELS, dicom_files, out, **ALGORITHM)
    shifted = grid.affine.copy()
    shifted[2, 3] += 0.3
    with pytest.raises(GeometryError, match=r"0\.30 mm"):
        write_seg(
            Volume(scan.label.array, Grid(grid.shape, shifted), "label"),
            LABELS,
            dicom_files,
            out,
            **ALGORITHM,
        )
    with pytest.raises(GeometryError, match="shape"):
        write_seg(scan.label, LABELS, dicom_files[:1], out, **ALGORITHM)
    with pytest.raises(LabelError, match="9"):
        write_seg(
            scan.label.with_array(np.full(grid.shape, 9, np.uint8)),
            LABELS,
            dicom_files,
            out,
            **ALGORITHM,
        )
    with pytest.raises(FormatError, match="no file"):
        write_seg(scan.label, LABELS, [], out, **ALGORITHM)
    stranger = tmp_path / "notes.txt"
    stranger.write_text("not a scan, though long enough to be looked at")
    with pytest.raises(FormatError, match=r"notes\.txt"):
        write_seg(scan.label, LABELS, [*dicom_files, stranger], out, **ALGORITHM)
    other = patient(tmp_path / "q", 2)[1]
    with pytest.raises(FormatError, match="2 series"):
        write_seg(scan.label, LABELS, [*dicom_files, *other], out, **ALGORITHM)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


def test_real_ct_with_files_against_the_slice_order(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "chaos_ct"
    liver = LabelSet.from_names({1: "liver"})
    ground = files.read(Source(path=str(folder / "Ground"), like=str(folder / "DICOM_anon")))
    mask = ground.with_array((ground.array > 0).astype(np.uint8), unit="label")
    dicom_files = sorted((folder / "DICOM_anon").iterdir())
    write_seg(mask, liver, dicom_files, tmp_path / "liver.dcm", **ALGORITHM)
    assert (
        check_each_slice(
            tmp_path / "liver.dcm", png_labels(folder, dicom_files, {1: 1, 255: 1}), {1: 1}
        )
        > 40
    )
    _no_errors(tmp_path / "liver.dcm")


def test_the_same_content_has_the_same_uid_and_other_content_another(tmp_path: Path) -> None:
    scan, dicom_files = patient(tmp_path / "p", 1)

    def written(name: str, volume: Volume, labels: LabelSet = LABELS, **words: str) -> bytes:
        write_seg(volume, labels, dicom_files, tmp_path / name, **ALGORITHM | words)
        return (tmp_path / name).read_bytes()

    first = written("a.dcm", scan.label)
    assert written("b.dcm", scan.label) == first
    array = scan.label.array.copy()
    array[0, 0, 0] = 1
    renamed = LabelSet.from_names({label.value: f"{label.name} 2" for label in LABELS})
    written("c.dcm", scan.label.with_array(array))
    written("d.dcm", scan.label, renamed)
    written("e.dcm", scan.label, algorithm_version="1.1")
    made = [pydicom.dcmread(tmp_path / f"{name}.dcm") for name in "acde"]
    for field in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({getattr(one, field) for one in made}) == 4
    source = pydicom.dcmread(dicom_files[0])
    assert made[0].ContentDate == (
        source.get("SeriesDate") or source.get("StudyDate") or "19000101"
    )


@pytest.mark.parametrize("index", [0, 3, 5])
def test_the_validator_finds_no_error(tmp_path: Path, index: int) -> None:
    scan, dicom_files = patient(tmp_path / "p", index)
    write_seg(scan.label, LABELS, dicom_files, tmp_path / "out.dcm", **ALGORITHM)
    _no_errors(tmp_path / "out.dcm")


def _no_errors(path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert [
        line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")
    ] == []


def enhanced(folder: Path, order: list[int]) -> Path:
    """An enhanced CT in one file, slices 2.5 mm apart in this order; each frame has its own
    orientation.
    """
    pixels = np.zeros((len(order), 5, 4), np.int16)
    one = image(pixels, sop_class="1.2.840.10008.5.1.4.1.1.2.1", FrameOfReferenceUID="1.2.5")

    def group(name, **values):
        item, inner = pydicom.Dataset(), pydicom.Dataset()
        for key, value in values.items():
            setattr(inner, key, value)
        setattr(item, name, [inner])
        return item

    shared = group("PixelMeasuresSequence", PixelSpacing=[0.8, 0.6], SliceThickness=9)
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = []
    for k in order:
        item = group("PlanePositionSequence", ImagePositionPatient=[1, 2, 2.5 * k])
        own = group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        item.update(own)
        one.PerFrameFunctionalGroupsSequence.append(item)
    (path,) = write(folder, one)
    return path


@pytest.mark.parametrize("missing", [(), (3,)])
def test_frames_of_one_file_are_referred_to_by_number(tmp_path: Path, missing) -> None:
    order = [k for k in (2, 0, 4, 1, 3, 5) if k not in missing]
    path = enhanced(tmp_path / "in", order)
    series = dicom.choose(path, fix_series="fill")
    grid = dicom.layout(series)[0]
    assert grid.shape == (4, 5, 6)
    array = np.zeros(grid.shape, np.uint8)
    array[1:3, 2, :] = 1
    array[0, 0, 2] = 1
    mask = Volume(array, grid, "label")
    write_seg(mask, LabelSet.from_names({1: "liver"}), series, tmp_path / "s.dcm", **ALGORITHM)
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    frames = seg.pixel_array
    assert len(frames) == len(order)
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        k = order[int(source.ReferencedFrameNumber) - 1]
        assert list(groups.PlanePositionSequence[0].ImagePositionPatient) == [1, 2, 2.5 * k]
        assert np.array_equal(frame, array[:, :, k].T)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (float(measures.SpacingBetweenSlices), float(measures.SliceThickness)) == (2.5, 2.5)
    assert list(measures.PixelSpacing) == [0.8, 0.6]
    back = read_label_file(Source(str(tmp_path / "s.dcm"), like=str(path), fix_series="fill"))
    expected = array.copy()
    expected[:, :, list(missing)] = 0
    assert np.array_equal(back.array, expected)
