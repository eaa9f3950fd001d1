"""Small DICOM objects for tests."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
UPRIGHT = [1, 0, 0, 0, 1, 0]
HALF_LIFE_S = 6588.0  # F-18: 1 h 49 min 48 s
PET = np.array([[50, 100]], np.int16)


def image(pixels, *, sop_class=CT, modality="CT", **fields):
    """A DICOM object with ``pixels``, (rows, columns), (frames, rows, columns) or, in uint8,
    (rows, columns, 3); ``fields`` override its attributes, None removes one.
    """
    one = pydicom.Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = sop_class
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.Modality, one.PatientID, one.ImageType = modality, "P1", ["ORIGINAL", "PRIMARY"]
    one.SeriesInstanceUID = one.StudyInstanceUID = "1.2.3"
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim > 2 + colour:
        one.NumberOfFrames = pixels.shape[0]
    one.Rows, one.Columns, one.SamplesPerPixel = rows, columns, 3 if colour else 1
    one.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        one.PlanarConfiguration = 0
    bits = 8 * pixels.itemsize
    one.BitsAllocated, one.BitsStored, one.HighBit = bits, bits, bits - 1
    one.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in fields.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    one.PixelData = np.ascontiguousarray(pixels).tobytes()
    one["PixelData"].VR = "OB" if bits == 8 else "OW"
    return one


def ct(pixels, k=0, **fields):
    """A CT slice 2.5 ``k`` mm above the origin, with pixels of 1 mm and no rescale."""
    place = {
        "ImagePositionPatient": [0, 0, 2.5 * k],
        "ImageOrientationPatient": UPRIGHT,
        "PixelSpacing": [1, 1],
    }
    return image(pixels, **place | fields)


def item(**fields):
    """A dataset with ``fields``; those that are datasets become a sequence of one item."""
    one = pydicom.Dataset()
    for name, value in fields.items():
        setattr(one, name, [value] if isinstance(value, pydicom.Dataset) else value)
    return one


def at(*position):
    """The functional group of a position."""
    return {"PlanePositionSequence": item(ImagePositionPatient=list(position))}


def rescale(slope, intercept, kind="US"):
    """The functional group of a rescale."""
    values = item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType=kind)
    return {"PixelValueTransformationSequence": values}


# Functional groups of upright frames with rows of 1.5 mm and columns of 2 mm.
MEASURES = {"PixelMeasuresSequence": item(PixelSpacing=[1.5, 2], SliceThickness=9)}
PLANE = {"PlaneOrientationSequence": item(ImageOrientationPatient=UPRIGHT)}


def enhanced(pixels, each, shared=None, *, kind="2.1", **fields):
    """An object with functional groups: ``each`` has those of every frame, ``shared`` those of all;
    both are name -> dataset.
    """
    one = image(pixels, sop_class="1.2.840.10008.5.1.4.1.1." + kind, **fields)
    one.SharedFunctionalGroupsSequence = [item(**MEASURES | PLANE if shared is None else shared)]
    one.PerFrameFunctionalGroupsSequence = [item(**groups) for groups in each]
    return one


def pet(k=0, dose=None, pixels=PET, **fields):
    """A slice with 5000 and 10000 Bq/ml of a patient of 70 kg who was given 350 MBq at 10:00:00,
    one half life before the scan.
    """
    item = pydicom.Dataset()
    item.RadiopharmaceuticalStartTime = "100000.00"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = "350000000", str(HALF_LIFE_S)
    for name, value in (dose or {}).items():
        if value is None:
            delattr(item, name)
        else:
            setattr(item, name, value)
    own = {
        "Modality": "PT",
        "Units": "BQML",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "DecayCorrection": "START",
        "PatientWeight": "70",
        "SeriesDate": "20240102",
        "SeriesTime": "114948",
        "AcquisitionDate": "20240102",
        "AcquisitionTime": "114948",
        "RescaleSlope": "100",
        "RescaleIntercept": "0",
        "RadiopharmaceuticalInformationSequence": [item],
    }
    merged = {name: value for name, value in (own | fields).items() if value is not None}
    return ct(pixels, k, **merged)


def write(folder, *objects):
    """Write objects as a.dcm, b.dcm ..., and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{chr(ord('a') + n)}.dcm" for n in range(len(objects))]
    for path, one in zip(paths, objects, strict=True):
        one.save_as(path, enforce_file_format=True)
    return paths
