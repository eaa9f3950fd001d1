"""Phantom scans as DICOM: a valid CT Image Storage series with PNG masks beside it, in CHAOS's layout.

Owns the modules of PS3.3 A.3 (CT Image IOD) that a phantom fills, deterministic UIDs and the shuffled file names.
A volume's axes are (column, row, slice) in RAS+ mm and become DICOM's LPS here. It knows no anatomy.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core import atomic
from ..core.grid import Grid
from ..core.volume import Volume
from .phantom_anatomy import LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.uid import UID

GREY_VALUES = {LIVER: 63, RIGHT_KIDNEY: 126, LEFT_KIDNEY: 189, SPLEEN: 252}  # label value -> grey value of a mask's PNG, as in CHAOS MR
_LPS = np.diag([-1.0, -1.0, 1.0])


def write_patient(folder: Path, image: Volume, label: Volume, *, patient: str, unusual: str, thickness_mm: float, seed: int) -> None:
    """Write ``folder``/DICOM_anon/*.dcm and ``folder``/Ground/*.png; a slice and its mask have the same stem.

    Args:
        folder: of the patient.
        image: HU, int16 (I, J, K).
        label: label values on the same grid.
        patient: PatientID.
        unusual: see ``phantom.Scan``.
        thickness_mm: what SliceThickness says.
        seed: of the file names and UIDs.

    Raises:
        OutputError: it cannot be written.
    """
    if unusual == "upside down":  # rows run to the front and the normal points to the feet: the same voxels
        image, label = image.reorient("LAI"), label.reorient("LAI")
    rng = np.random.default_rng(seed)
    count = image.grid.shape[2]
    stems = [f"IMG-0001-{n:05d}" for n in rng.permutation(count) + 1]
    numbers = _instance_numbers(image.grid, unusual, rng)
    steps = 2 if unusual == "half steps" else 1
    dataset = _template(_common(patient, seed, thickness_mm, image.grid), steps=steps, signed=seed % 2 == 0)
    atomic.make_folder(folder / "DICOM_anon")
    atomic.make_folder(folder / "Ground")
    for k in range(count):
        _fill(dataset, image.array[:, :, k], _LPS @ image.grid.to_mm((0, 0, k)), int(numbers[k]), _uid(patient, seed, "instance", k))
        _save(dataset, folder / "DICOM_anon" / f"{stems[k]}.dcm")
        atomic.write_bytes(folder / "Ground" / f"{stems[k]}.png", _png(label.array[:, :, k]))


def _instance_numbers(grid: Grid, unusual: str, rng: np.random.Generator) -> NDArray[np.intp]:
    """From the head downwards, as scanners count; else upwards, or in no order at all."""
    count = grid.shape[2]
    if unusual == "misleading numbers":
        return rng.permutation(count) + 1
    upwards = np.arange(count) + 1 if grid.affine[2, 2] > 0 else np.arange(count, 0, -1)
    return upwards if unusual == "numbered upwards" else count + 1 - upwards


def _uid(*words: object) -> UID:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["delineate phantom", *map(str, words)])


def _common(patient: str, seed: int, thickness_mm: float, grid: Grid) -> dict[str, Any]:
    """Attributes that all slices share: Patient, Study, Series, Frame of Reference, Equipment, and the acquisition."""
    rotation = _LPS @ grid.affine[:3, :3] / np.array(grid.spacing_mm)
    return {
        "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Modality": "CT",
        "InstanceCreationDate": "20240101", "InstanceCreationTime": "120000",
        "StudyDate": "20240101", "SeriesDate": "20240101", "AcquisitionDate": "20240101", "ContentDate": "20240101",
        "StudyTime": "120000", "SeriesTime": "120000", "AcquisitionTime": "120000", "ContentTime": "120000",
        "AccessionNumber": "", "Manufacturer": "delineate", "ManufacturerModelName": "phantom", "SoftwareVersions": "1",
        "DeviceSerialNumber": "1", "ReferringPhysicianName": "", "StudyDescription": "Synthetic abdomen", "SeriesDescription": "Abdomen phantom",
        "PatientName": patient.replace("_", "^"), "PatientID": patient, "PatientBirthDate": "", "PatientSex": "O",
        "PatientIdentityRemoved": "YES", "DeidentificationMethod": "synthetic: there is no person", "BurnedInAnnotation": "NO",
        "BodyPartExamined": "ABDOMEN", "PatientPosition": "HFS", "KVP": "120", "ConvolutionKernel": "STANDARD",
        "SliceThickness": _number(thickness_mm), "StudyInstanceUID": _uid(patient, seed, "study"),
        "SeriesInstanceUID": _uid(patient, seed, "series"), "FrameOfReferenceUID": _uid(patient, seed, "frame"), "PositionReferenceIndicator": "",
        "StudyID": "1", "SeriesNumber": 1, "AcquisitionNumber": 1, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": grid.shape[1], "Columns": grid.shape[0], "PixelSpacing": [_number(grid.spacing_mm[1]), _number(grid.spacing_mm[0])],
        "ImageOrientationPatient": [_number(v) for v in (*rotation[:, 0], *rotation[:, 1])],
        "WindowCenter": "40", "WindowWidth": "400", "RescaleType": "HU", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
    }  # fmt: skip


def _template(common: dict[str, Any], *, steps: int, signed: bool) -> FileDataset:
    """An image without place and pixels; filled again for each slice, as building one is slower than writing it."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in common.items():
        setattr(dataset, name, value)
    dataset.SOPClassUID, dataset.PixelRepresentation = CTImageStorage, int(signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = _number(1 / steps), _number(0 if signed else -1024)
    return dataset


def _fill(dataset: FileDataset, hu: NDArray[np.int16], position_lps_mm: NDArray[np.float64], number: int, uid: UID) -> None:
    """Place, number and pixels of one slice; ``hu`` (I, J) is stored by the dataset's own slope and intercept."""
    stored = (hu.astype(np.int32) - int(dataset.RescaleIntercept)) * round(1 / float(dataset.RescaleSlope))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [_number(v) for v in position_lps_mm]
    dataset.PixelData = np.ascontiguousarray(stored.T).astype("<i2" if dataset.PixelRepresentation else "<u2").tobytes()


def _number(value: float) -> str:
    """A decimal string of at most 16 characters."""
    text = f"{round(float(value), 9) + 0.0:.9f}".rstrip("0").rstrip(".")
    return text if len(text) <= 16 else f"{float(value):.8g}"


def _save(dataset: Dataset, path: Path) -> None:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    atomic.write_bytes(path, buffer.getvalue())


def _png(label: NDArray[np.uint8]) -> bytes:
    """(I, J) label values as a grey picture, rows downwards."""
    from PIL import Image

    table = np.zeros(256, np.uint8)
    for value, grey in GREY_VALUES.items():
        table[value] = grey
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(table[label].T)).save(buffer, format="PNG")
    return buffer.getvalue()
