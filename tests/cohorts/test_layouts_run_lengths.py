"""Pictures with tables of run lengths, as competitions publish masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tests.cohorts.test_layouts_volumes import names, rows, says

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_label
from delineate.core.errors import DelineateError
from delineate.formats import outlines, run_lengths


def scene(seed: int, height: int = 36, width: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """A picture (rows, columns) with a bright box, and the box."""
    noise = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    top, left = noise.integers(3, 12, 2)
    mask[top : top + 14, left : left + 6] = True
    return (mask * 120 + noise.integers(0, 40, mask.shape)).astype(np.uint8), mask


def encoded(mask: np.ndarray, order: str = "F", relative: bool = False) -> str:
    """The runs of a mask, from 1 down the columns ("F") or along the rows ("C"); or distances."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.flatten(order), [0]])))
    starts, stops = edges[::2], edges[1::2]
    before = np.concatenate([[0], stops[:-1]]) if relative else -1
    pairs = zip(starts - before, stops - starts, strict=True)
    return " ".join(f"{start} {length}" for start, length in pairs)


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def cohort(root: Path):
    found = discover(root)
    assert found.manifest.layout == "annotated"
    assert not [one for one in found.findings if one.severity == "error"]
    return found


def masks(found) -> dict[str, np.ndarray]:
    """Case -> labels (rows, columns)."""
    manifest = found.manifest
    return {case.id: read_label(case, manifest).array[..., 0].T for case in manifest}


@pytest.mark.parametrize(("order", "numbering"), [("F", "columns"), ("C", "rows")])
@pytest.mark.parametrize("width", [30, 36])
def test_the_numbering_is_derived_from_the_masks_and_pictures(tmp_path, order, numbering, width):
    lines = ["ImageId,EncodedPixels"]
    for n in range(6):
        picture, mask = scene(n, width=width)
        save(picture, tmp_path / "train_v2" / f"{n}a.png")
        lines += [f"{n}a.png,{encoded(mask, order)}"]
    write(tmp_path / "train.csv", *lines)
    write(tmp_path / "sample_submission.csv", "ImageId,EncodedPixels", "0a.png,1 2")
    found = cohort(tmp_path)
    assert says(found, "numbering", f"along the {numbering}")
    for n in range(6):
        assert np.array_equal(masks(found)[f"{n}a"], scene(n, width=width)[1])


def test_instances_are_united_and_an_empty_cell_is_an_empty_mask(tmp_path):
    one, other = scene(0)[1], scene(1)[1]
    lines = ["ImageId,EncodedPixels", f"0.jpg,{encoded(one)}", f"0.jpg,{encoded(other)}", "1.jpg,"]
    for n in range(3):
        save(scene(n)[0], tmp_path / "train" / f"{n}.jpg")
    save(scene(9)[0], tmp_path / "test" / "9.jpg")
    write(tmp_path / "train.csv", *lines)
    found = cohort(tmp_path)
    assert np.array_equal(masks(found)["0"], one | other) and not masks(found)["1"].any()
    assert names(found) == {1: "foreground"} and len(found.manifest) == 2
    assert says(found, "unused", "2 pictures that no annotation file lists")


def test_classes_in_a_column_or_in_the_name_of_the_picture(tmp_path):
    for n in range(2):
        save(scene(n)[0], tmp_path / "joined" / "images" / f"{n}.jpg")
        save(scene(n)[0], tmp_path / "apart" / "images" / f"{n}.jpg")
    runs = [encoded(scene(n)[1]) for n in range(2)]
    write(
        tmp_path / "joined" / "train.csv",
        "ImageId_ClassId,EncodedPixels",
        *(f"{n}.jpg_1,{runs[n]}\n{n}.jpg_3," for n in range(2)),
    )
    write(
        tmp_path / "apart" / "train.csv",
        "ImageId,ClassId,EncodedPixels",
        *(f"{n}.jpg,{n + 2},{runs[n]}" for n in range(2)),
    )
    joined = cohort(tmp_path / "joined")
    assert names(joined) == {1: "class 1"} and masks(joined)["1"].sum() == 84
    apart = cohort(tmp_path / "apart")
    assert names(apart) == {1: "class 2", 2: "class 3"}
    assert [masks(apart)[one].max() for one in "01"] == [1, 2]


def test_slices_named_by_patient_day_and_number(tmp_path):
    lines = ["id,class,segmentation"]
    for patient in (101, 102):
        place = tmp_path / "train" / f"case{patient}" / f"case{patient}_day20" / "scans"
        for n in range(3):
            picture, mask = scene(patient + n)
            save(picture.astype(np.uint16) * 90, place / f"slice_{n:04d}_30_36_1.50_1.50.png")
            for name in ("large_bowel", "stomach"):
                runs = encoded(mask, "C") if n and name == "stomach" else ""
                lines.append(f"case{patient}_day20_slice_{n:04d},{name},{runs}")
    write(tmp_path / "train.csv", *lines)
    found = cohort(tmp_path)
    assert rows(found)[:2] == [
        ("case101_day20_slice_0000", "case101", "", None, 1),
        ("case101_day20_slice_0001", "case101", "", None, 1),
    ]
    assert len(found.manifest) == 6 and names(found) == {1: "stomach"}
    assert np.array_equal(masks(found)["case102_day20_slice_0002"], scene(104)[1])


def test_distances_and_dicom_files(tmp_path):
    lines = ["ImageId, EncodedPixels"]
    for n in range(6):
        uid = f"1.2.3.{n}"
        radiograph(tmp_path / "dicom-images-train" / f"{uid}.8" / f"{uid}.9" / f"{uid}.dcm", n, uid)
        lines.append(f"{uid}, {encoded(scene(n)[1], relative=True) if n else '-1'}")
    write(tmp_path / "train-rle.csv", *lines)
    found = cohort(tmp_path)
    assert [case.patient for case in found.manifest][:2] == ["patient 0", "patient 1"]
    assert not masks(found)["1.2.3.0"].any()
    for n in range(1, 6):
        assert np.array_equal(masks(found)[f"1.2.3.{n}"], scene(n)[1])


def radiograph(path: Path, seed: int, uid: str) -> None:
    picture = scene(seed)[0]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, uid
    one.PatientID, one.Modality = f"patient {seed}", "CR"
    one.SeriesInstanceUID, one.StudyInstanceUID = generate_uid(), generate_uid()
    one.Rows, one.Columns = picture.shape
    one.PixelSpacing = [0.168, 0.168]
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 7, 0, 1
    one.PhotometricInterpretation, one.PixelData = "MONOCHROME2", picture.tobytes()
    path.parent.mkdir(parents=True)
    one.save_as(path, enforce_file_format=True)


def test_a_numbering_that_nothing_shows_is_a_warning(tmp_path):
    for n in range(2):
        save(scene(n, width=36)[0], tmp_path / "train" / f"{n}.png")
    write(
        tmp_path / "train.csv",
        "id,rle_mask",
        *(f"{n},{encoded(scene(n, width=36)[1])}" for n in range(2)),
    )
    found = cohort(tmp_path)
    (warning,) = [one for one in found.findings if one.kind == "numbering"]
    assert warning.severity == "warning" and "columns are assumed" in warning.message


def test_runs_outside_the_picture_are_an_error(tmp_path):
    save(scene(0)[0], tmp_path / "0.png")
    write(tmp_path / "train.csv", "id,rle", "0,1 2 1070 20")
    found = cohort(tmp_path)
    with pytest.raises(DelineateError, match=r"damaged outlines of 0 \(run 1069..1089 in a"):
        read_label(found.manifest.cases[0], found.manifest)


def test_a_table_without_runs_or_with_a_stated_size(tmp_path):
    table = tmp_path / "a.csv"
    write(table, "id,bbox", "0,1 2 3 4")
    assert not outlines.may_hold(table)
    write(table, "id,annotation,width,height", "0,1 2,30,40")
    assert outlines.load(table).pictures[0].size == (30, 40)
    write(table, "id,rle", "0,1 2", "1,1 2 3")
    with pytest.raises(DelineateError, match="the runs of 1 are '1 2 3', not pairs"):
        outlines.load(table)


def test_contiguity_is_highest_at_the_height_of_a_column():
    mask = scene(0)[1]
    shares = [run_lengths.contiguity(encoded(mask), length, False) for length in (30, 36)]
    assert shares == [pytest.approx(0.4762, abs=1e-4), pytest.approx(0.8333, abs=1e-4)]
