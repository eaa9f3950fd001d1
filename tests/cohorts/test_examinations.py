"""The DICOM series of a patient as the channels of one scan, by their descriptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from delineate.cohorts.discovery.scans import collect
from delineate.core.errors import InputError
from delineate.core.labels import LabelSet
from delineate.core.manifest import ABSENT
from delineate.formats import files

LABELS = LabelSet.from_names({1: "x"})
MODEL = ("flair", "t1", "t1ce", "t2")
STUDY = ("AX T1 SE", "AX T1 SE POST GAD", "sag T2 TSE", "Ax T2 FLAIR fs", "3-plane Loc")


def series(folder: Path, description: str, number: int, study: str, **attributes) -> None:
    """Three slices whose intensity is the number of the series."""
    uid = generate_uid()
    for n in range(3):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
            MRImageStorage,
            ExplicitVRLittleEndian,
        )
        meta.MediaStorageSOPInstanceUID = instance = generate_uid()
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, instance
        one.SeriesInstanceUID, one.StudyInstanceUID = uid, study
        one.Modality, one.PatientID = "MR", study[-4:]
        one.SeriesDescription, one.SeriesNumber = description, number
        one.Rows = one.Columns = 4
        one.SamplesPerPixel, one.BitsAllocated, one.BitsStored, one.HighBit = 1, 16, 16, 15
        one.PixelRepresentation, one.PhotometricInterpretation = 0, "MONOCHROME2"
        one.ImagePositionPatient, one.PixelSpacing = [0, 0, 2.0 * n], [1, 1]
        one.ImageOrientationPatient, one.SliceThickness = [1, 0, 0, 0, 1, 0], 2
        one.PixelData = np.full((4, 4), number, np.uint16).tobytes()
        for name, value in attributes.items():
            setattr(one, name, value)
        folder.mkdir(parents=True, exist_ok=True)
        one.save_as(folder / f"s{number:02d}_{n}.dcm", enforce_file_format=True)


def study(folder: Path, descriptions, **attributes) -> Path:
    uid = generate_uid()
    for number, description in enumerate(descriptions, start=1):
        series(folder, description, number, uid, **attributes)
    return folder


def intensities(case) -> list[int]:
    return [0 if i == ABSENT else int(files.read(i).array.max()) for i in case.images]


@pytest.mark.parametrize("order", [STUDY, STUDY[::-1]])
def test_the_series_of_a_patient_are_channels_by_their_descriptions(tmp_path, order):
    study(tmp_path / "P1", order)
    (case,) = collect([tmp_path / "P1"], MODEL, LABELS).manifest.cases
    wanted = [order.index(STUDY[n]) + 1 for n in (3, 0, 1, 2)]
    assert case.id == "P1" and intensities(case) == wanted


def test_each_patient_of_a_folder_is_a_scan(tmp_path):
    for name in ("P1", "P2"):
        study(tmp_path / name, STUDY)
    scans = collect([tmp_path], MODEL, LABELS)
    assert [case.id for case in scans.manifest] == ["P1", "P2"]
    assert [intensities(case) for case in scans.manifest] == [[4, 1, 2, 3]] * 2


def test_a_folder_for_each_series(tmp_path):
    uid = generate_uid()
    for number, name in enumerate(STUDY[:4], start=1):
        series(tmp_path / "P1" / f"SE{number}", name, number, uid)
    (case,) = collect([tmp_path / "P1"], MODEL, LABELS).manifest.cases
    assert case.id == "P1" and intensities(case) == [4, 1, 2, 3]


def test_two_series_for_one_channel_are_refused_with_both(tmp_path):
    study(tmp_path / "P1", [*STUDY, "SAG T1 POST GAD"])
    with pytest.raises(InputError, match=r"t1ce could be AX T1 SE POST GAD or SAG T1 POST GAD"):
        collect([tmp_path / "P1"], MODEL, LABELS)
    said = {"flair": STUDY[3], "t1": STUDY[0], "t1ce": "SAG T1 POST GAD", "t2": STUDY[2]}
    (case,) = collect([tmp_path / "P1"], MODEL, LABELS, stated=said).manifest.cases
    assert intensities(case) == [4, 1, 6, 3]


def test_an_agent_in_the_header_leaves_contrast_unknown(tmp_path):
    study(tmp_path / "P1", ["AX T1 SE", "AX T2"], ContrastBolusAgent="Gadovist")
    (case,) = collect([tmp_path / "P1"], ("t1", "t2"), LABELS).manifest.cases
    assert intensities(case) == [0, 2]  # refused later, because a channel is missing


def test_a_model_of_one_channel_takes_only_series_that_may_be_it(tmp_path):
    study(tmp_path / "P1", [*STUDY[:3], "T1 SUB", "unnamed"])
    scans = collect([tmp_path / "P1"], ("T1",), LABELS)
    assert [intensities(case) for case in scans.manifest] == [[1], [5]]
    assert len(scans.failures) == 3
    said = {"T1": "AX T1 SE POST GAD"}
    (case,) = collect([tmp_path / "P1"], ("T1",), LABELS, stated=said).manifest.cases
    assert intensities(case) == [2]


def test_the_files_of_a_series_are_listed(tmp_path):
    study(tmp_path / "P1", STUDY)
    (case,) = collect([tmp_path / "P1"], MODEL, LABELS).manifest.cases
    assert [p.name for p in files.files_of(case.images[0])] == [f"s04_{n}.dcm" for n in range(3)]
    assert pydicom.dcmread(files.files_of(case.images[0])[0]).SeriesDescription == STUDY[3]


@pytest.mark.parametrize(
    ("modality", "description", "wanted", "other"),
    [
        ("CT", "T2SPIR", "CT", "t2"),
        ("PT", "CT attenuation corrected", "PET", "CT"),
    ],
)
def test_the_code_of_the_modality_counts_more_than_the_text(
    tmp_path, modality, description, wanted, other
):
    series(tmp_path / "P1", description, 1, generate_uid(), Modality=modality)
    assert len(collect([tmp_path / "P1"], [wanted], LABELS).manifest) == 1
    with pytest.raises(InputError, match="do not match"):
        collect([tmp_path / "P1"], [other], LABELS)


def test_a_real_ct_whose_protocol_names_a_sequence_of_mr(real_data):
    scans = collect([real_data / "chaos_ct" / "DICOM_anon"], ["CT"], LABELS)
    assert len(scans.manifest) == 1 and not scans.failures
