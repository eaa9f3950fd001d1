"""Phantom scans as DICOM: valid CT and MR Image Storage series, with masks as PNG in a folder next
to them (CHAOS) or as series (3D-IRCADb).

This module owns the modules of PS3.3 A.3 and A.4 (CT and MR Image IOD) that a phantom fills, the
deterministic UIDs and the shuffled file names. The axes of a volume are (column, row, slice) in
RAS+ mm and become DICOM's LPS here. It knows no anatomy.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core import atomic
from ...core.grid import Grid
from ...core.volume import Volume
from .anatomy import LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.uid import UID

# Label value -> grey level in the PNG of a mask, as in CHAOS MR.
GREY_VALUES = {
    LIVER: 63,
    RIGHT_KIDNEY: 126,
    LEFT_KIDNEY: 189,
    SPLEEN: 252,
}
_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SeriesStyle:
    """How the series of one patient are stored; all of this is random or a habit of the scanner.

    Args:
        patient: PatientID.
        unusual: see ``PhantomScan``.
        thickness_mm: the value of SliceThickness.
        seed: of the file names and UIDs.
    """

    patient: str
    unusual: str
    thickness_mm: float
    seed: int


def write_patient(folder: Path, image: Volume, label: Volume, storage: SeriesStyle) -> None:
    """Write ``folder``/DICOM_anon/*.dcm and ``folder``/Ground/*.png; a slice and its mask have the
    same stem.

    Args:
        folder: of the patient.
        image: HU, int16 (I, J, K).
        label: label values on the same grid.
        storage: how the series is stored.

    Raises:
        OutputError: it cannot be written.
    """
    image, label = _reoriented(image, storage), _reoriented(label, storage)
    rng = np.random.default_rng(storage.seed)
    # The file names are shuffled: they give no hint of the order of the slices.
    stems = [f"IMG-0001-{n:05d}" for n in rng.permutation(image.grid.shape[2]) + 1]
    numbers = _instance_numbers(image.grid, storage.unusual, rng)
    # In "half steps" one stored unit is half an HU. Even seeds store signed values, odd seeds
    # unsigned ones with an intercept of -1024.
    steps = 2 if storage.unusual == "half steps" else 1
    dataset = _template(
        _common(storage, image.grid) | CT, steps=steps, signed=storage.seed % 2 == 0
    )
    _write_series(
        folder / "DICOM_anon", dataset, image, [f"{stem}.dcm" for stem in stems], numbers, storage
    )
    _write_masks(folder / "Ground", label, stems)


def write_dual_echo(
    folder: Path, phases: dict[str, Volume], label: Volume, storage: SeriesStyle
) -> None:
    """Write ``folder``/DICOM_anon/PHASE/*.dcm for each phase, and ``folder``/Ground/*.png with the
    names of the first phase.

    Args:
        folder: of the sequence (T1DUAL).
        phases: name -> uint16 (I, J, K), arbitrary units.
        label: label values on the same grid.
        storage: how the series are stored; "half steps" applies only to CT.

    Raises:
        OutputError: it cannot be written.
    """
    label = _reoriented(label, storage)
    rng = np.random.default_rng(storage.seed)
    order = rng.permutation(label.grid.shape[2]) + 1
    numbers = _instance_numbers(label.grid, storage.unusual, rng)
    for n, (name, volume) in enumerate(phases.items()):
        words = {
            **_common(storage, label.grid, n),
            **MR,
            "EchoTime": ("4.6", "2.3")[n % 2],
            "SeriesDescription": f"T1 dual echo {name}",
        }
        # The two echoes of a slice have consecutive numbers.
        stems = [f"IMG-0004-{2 * m - n % 2:05d}" for m in order]
        dataset = _template(words, steps=0, signed=False)
        _write_series(
            folder / "DICOM_anon" / name,
            dataset,
            _reoriented(volume, storage),
            [f"{s}.dcm" for s in stems],
            numbers,
            storage,
            n,
        )
        if n == 0:
            _write_masks(folder / "Ground", label, stems)


def write_with_mask_series(
    folder: Path, image: Volume, masks: dict[str, Volume], storage: SeriesStyle
) -> None:
    """Write ``folder``/PATIENT_DICOM/image_N and ``folder``/MASKS_DICOM/NAME/image_N: every mask is
    a series of 0 and 255 (3D-IRCADb).

    Args:
        folder: of the patient.
        image: HU, int16 (I, J, K).
        masks: structure -> uint8 (I, J, K), 0 or 255, on the same grid.
        storage: how the series are stored.

    Raises:
        OutputError: it cannot be written.
    """
    image = _reoriented(image, storage)
    rng = np.random.default_rng(storage.seed)
    names = [f"image_{n}" for n in rng.permutation(image.grid.shape[2])]
    numbers = _instance_numbers(image.grid, storage.unusual, rng)
    words = _common(storage, image.grid)
    steps = 2 if storage.unusual == "half steps" else 1
    _write_series(
        folder / "PATIENT_DICOM",
        _template(words | CT, steps=steps, signed=storage.seed % 2 == 0),
        image,
        names,
        numbers,
        storage,
    )
    # Every mask is a series of its own in the same frame of reference.
    for n, (structure, mask) in enumerate(masks.items(), start=1):
        dataset = _template(
            {**_common(storage, image.grid, n), **CT, "SeriesDescription": f"mask {structure}"},
            steps=1,
            signed=True,
        )
        _write_series(
            folder / "MASKS_DICOM" / structure,
            dataset,
            _reoriented(mask, storage),
            names,
            numbers,
            storage,
            n,
        )


def _reoriented(volume: Volume, storage: SeriesStyle) -> Volume:
    """Turn the volume if it is stored upside down: rows run to the front and the normal points to
    the feet. The voxels are the same.
    """
    return volume.reorient("LAI") if storage.unusual == "upside down" else volume


def _write_series(
    folder: Path,
    dataset: FileDataset,
    volume: Volume,
    names: Sequence[str],
    numbers: NDArray[np.intp],
    storage: SeriesStyle,
    series: int = 0,
) -> None:
    """Write one file per slice, from one dataset that is filled again for each."""
    atomic.make_folder(folder)
    for k, name in enumerate(names):
        uid = _uid(storage.patient, storage.seed, _suffixed("instance", series), k)
        _fill(
            dataset,
            volume.array[:, :, k],
            _LPS @ volume.grid.to_mm((0, 0, k)),
            int(numbers[k]),
            uid,
        )
        atomic.write_bytes(folder / name, _bytes(dataset))


def _write_masks(folder: Path, label: Volume, stems: Sequence[str]) -> None:
    """Write one PNG per slice."""
    atomic.make_folder(folder)
    for k, stem in enumerate(stems):
        atomic.write_bytes(folder / f"{stem}.png", _png(label.array[:, :, k]))


def _instance_numbers(grid: Grid, unusual: str, rng: np.random.Generator) -> NDArray[np.intp]:
    """Number the slices from the head downwards, as scanners do; upwards or in random order if the
    patient is unusual in this way.
    """
    count = grid.shape[2]
    if unusual == "misleading numbers":
        return rng.permutation(count) + 1
    upwards = np.arange(count) + 1 if grid.affine[2, 2] > 0 else np.arange(count, 0, -1)
    return upwards if unusual == "numbered upwards" else count + 1 - upwards


def _uid(*words: object) -> UID:
    """Make a UID that depends only on the words."""
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["delineate phantom", *map(str, words)])


def _suffixed(word: str, series: int) -> str:
    """Append the number of the series, except for the first."""
    return word if series == 0 else f"{word} {series}"


def _common(storage: SeriesStyle, grid: Grid, series: int = 0) -> dict[str, Any]:
    """Attributes that all slices share: Patient, Study, Series, Frame of Reference, Equipment, and
    the acquisition.
    """
    # Direction cosines of rows and columns, in LPS.
    rotation = _LPS @ grid.affine[:3, :3] / np.array(grid.spacing_mm)
    # All dates and UIDs are fixed, so that equal seeds give equal files.
    patient, seed = storage.patient, storage.seed
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "InstanceCreationDate": "20240101",
        "InstanceCreationTime": "120000",
        "StudyDate": "20240101",
        "SeriesDate": "20240101",
        "AcquisitionDate": "20240101",
        "ContentDate": "20240101",
        "StudyTime": "120000",
        "SeriesTime": "120000",
        "AcquisitionTime": "120000",
        "ContentTime": "120000",
        "AccessionNumber": "",
        "Manufacturer": "delineate",
        "ManufacturerModelName": "phantom",
        "SoftwareVersions": "1",
        "DeviceSerialNumber": "1",
        "ReferringPhysicianName": "",
        "StudyDescription": "Synthetic abdomen",
        "SeriesDescription": "Abdomen phantom",
        "PatientName": patient.replace("_", "^"),
        "PatientID": patient,
        "PatientBirthDate": "",
        "PatientSex": "O",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "synthetic: there is no person",
        "BurnedInAnnotation": "NO",
        "BodyPartExamined": "ABDOMEN",
        "PatientPosition": "HFS",
        "SliceThickness": _number(storage.thickness_mm),
        "StudyInstanceUID": _uid(patient, seed, "study"),
        "SeriesInstanceUID": _uid(patient, seed, _suffixed("series", series)),
        "FrameOfReferenceUID": _uid(patient, seed, "frame"),
        "PositionReferenceIndicator": "",
        "StudyID": "1",
        "SeriesNumber": series + 1,
        "AcquisitionNumber": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": grid.shape[1],
        "Columns": grid.shape[0],
        "PixelSpacing": [_number(grid.spacing_mm[1]), _number(grid.spacing_mm[0])],
        "ImageOrientationPatient": [_number(v) for v in (*rotation[:, 0], *rotation[:, 1])],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
    }


CT: dict[str, Any] = {
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "KVP": "120",
    "ConvolutionKernel": "STANDARD",
    "WindowCenter": "40",
    "WindowWidth": "400",
    "RescaleType": "HU",
}
MR: dict[str, Any] = {
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "FFE"],
    "ScanningSequence": "GR",
    "SequenceVariant": "SP",
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "RepetitionTime": "110",
    "EchoTrainLength": "1",
    "FlipAngle": "80",
    "MagneticFieldStrength": "1.5",
    "BitsStored": 12,
    "HighBit": 11,
}


def _template(common: dict[str, Any], *, steps: int, signed: bool) -> FileDataset:
    """Make an image without position and pixels, to be filled for each slice.

    It is read back from memory: pydicom writes elements that it has not decoded as they are, in a
    third of the time.

    ``steps`` of the stored values make one unit; 0 writes no rescaling at all, as in MR.
    """
    from pydicom import dcmread
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

    # File meta information (PS3.10 7.1), then the dataset.
    kind = CTImageStorage if common["Modality"] == "CT" else MRImageStorage
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in common.items():
        setattr(dataset, name, value)
    dataset.SOPClassUID, dataset.PixelRepresentation = kind, int(signed)
    if steps:
        dataset.RescaleSlope, dataset.RescaleIntercept = (
            _number(1 / steps),
            _number(0 if signed else -1024),
        )
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = _uid("template")
    return dcmread(io.BytesIO(_bytes(dataset)))


def _fill(
    dataset: FileDataset,
    values: NDArray[Any],
    position_lps_mm: NDArray[np.float64],
    number: int,
    uid: UID,
) -> None:
    """Set position, number and pixels of one slice. ``values`` (I, J) are stored with the dataset's
    own slope and intercept, if it has them.
    """
    slope, intercept = (
        float(dataset.get("RescaleSlope", 1)),
        int(dataset.get("RescaleIntercept", 0)),
    )
    # The slope is 1 or 1/2, so its inverse is a whole number and nothing is rounded.
    stored = (values.astype(np.int32) - intercept) * round(1 / slope)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [_number(v) for v in position_lps_mm]
    # DICOM stores rows one after the other: the array is transposed.
    dataset.add_new(
        "PixelData",
        "OW",
        np.ascontiguousarray(stored.T)
        .astype("<i2" if dataset.PixelRepresentation else "<u2")
        .tobytes(),
    )


def _number(value: float) -> str:
    """Format a decimal string (DS) of at most 16 characters."""
    # Adding 0.0 turns -0.0 into 0.0.
    text = f"{round(float(value), 9) + 0.0:.9f}".rstrip("0").rstrip(".")
    return text if len(text) <= 16 else f"{float(value):.8g}"


def _bytes(dataset: Dataset) -> bytes:
    """Encode the dataset as a DICOM file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _png(label: NDArray[np.uint8]) -> bytes:
    """Encode (I, J) label values as a grey-level image, rows downwards."""
    from PIL import Image

    table = np.zeros(256, np.uint8)
    for value, grey in GREY_VALUES.items():
        table[value] = grey
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(table[label].T)).save(buffer, format="PNG")
    return buffer.getvalue()
