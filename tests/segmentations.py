"""DICOM segmentations for tests: small CT series, and highdicom's objects of all kinds on them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS, SLICES = 37, 33, 6
SPACING, GAP = (0.8, 0.6), 2.5  # of rows and columns; of slices
# An oblique plane: rows run along (0.6, 0.8, 0).
ORIENTATION = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


def series(folder: Path | None = None, frame: str = "", slices: int = SLICES) -> list[Dataset]:
    """The slices of a CT in the order of k; written to ``folder`` if it is given."""
    study, uid, frame = generate_uid(), generate_uid(), frame or generate_uid()
    normal = np.cross(ORIENTATION[:3], ORIENTATION[3:])
    found = []
    for n in range(slices):
        one = Dataset()
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, uid, frame
        one.PatientID, one.PatientName, one.PatientBirthDate, one.PatientSex = "p1", "A^B", "", ""
        one.StudyDate, one.StudyTime, one.AccessionNumber = "20240101", "101010", ""
        one.StudyID, one.ReferringPhysicianName, one.Manufacturer = "1", "", "test"
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", 2, n + 1
        one.PositionReferenceIndicator = ""
        one.ImagePositionPatient = [float(v) for v in np.array([10, -20, 30]) + n * GAP * normal]
        one.ImageOrientationPatient, one.PixelSpacing = list(ORIENTATION), list(SPACING)
        one.SliceThickness = 4.0  # wrong on purpose
        one.Rows, one.Columns, one.SamplesPerPixel = ROWS, COLUMNS, 1
        one.PhotometricInterpretation, one.PixelRepresentation = "MONOCHROME2", 1
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.RescaleSlope, one.RescaleIntercept = 15, 1, 0
        pixels = np.arange(ROWS * COLUMNS, dtype="<i2").reshape(ROWS, COLUMNS) + n
        one.PixelData = pixels.tobytes()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            one.save_as(folder / f"{n:03d}.dcm", enforce_file_format=True)
        found.append(one)
    return found


def describe(number: int, name: str, code: tuple[str, str] = ("10200004", "Liver")) -> Any:
    """The description of one segment."""
    import highdicom as hd

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure"),
        segmented_property_type=hd.sr.CodedConcept(code[0], "SCT", code[1]),
        algorithm_type="MANUAL",
        display_color=hd.color.CIELabColor.from_rgb(10 * number % 256, 200, 30),
    )


def segmentation(
    source: Sequence[Dataset],
    pixels: np.ndarray,
    kind: str = "BINARY",
    names: Sequence[str] | None = None,
    *,
    numbers: Sequence[int] | None = None,
    **options: Any,
) -> Any:
    """highdicom's object of ``pixels``: (K, rows, columns) segment numbers, or (..., segments)."""
    import highdicom as hd

    count = pixels.shape[-1] if pixels.ndim == 4 else int(pixels.max())
    numbers = list(numbers or range(1, count + 1))
    names = names or [f"blob {chr(96 + n)}" for n in numbers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hd.seg.Segmentation(
            source_images=list(source),
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=[describe(n, s) for n, s in zip(numbers, names, strict=True)],
            series_instance_uid=generate_uid(),
            series_number=9,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="test",
            manufacturer_model_name="test",
            software_versions="1",
            device_serial_number="1",
            **options,
        )


def saved(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def shuffled(dataset: Dataset, seed: int = 0) -> Dataset:
    """The object with its frames in another order."""
    order = np.random.default_rng(seed).permutation(int(dataset.NumberOfFrames))
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)[order]
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence([groups[n] for n in order])
    packed = pixels.reshape(-1).astype(np.uint8)
    if dataset.BitsAllocated == 1:
        packed = np.packbits(packed, bitorder="little")
    raw = packed.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    return dataset
