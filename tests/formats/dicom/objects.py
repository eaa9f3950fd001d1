"""Small DICOM objects for tests."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
UPRIGHT = [1, 0, 0, 0, 1, 0]


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
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
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


def write(folder, *objects):
    """Write objects as a.dcm, b.dcm ..., and return their paths."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{chr(ord('a') + n)}.dcm" for n in range(len(objects))]
    for path, one in zip(paths, objects, strict=True):
        one.save_as(path, enforce_file_format=True)
    return paths
