"""Small files in the forms of known collections, for layouts whose real data is not at hand."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

AFFINE = np.array([[-0.8, 0, 0, 40.0], [0, 1.1, 0, -30.0], [0, 0, 2.5, 12.0], [0, 0, 0, 1]])
SHAPE = (12, 10, 6)


def noise(seed: int, shape=SHAPE, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def box(value: int = 1, shape=SHAPE, at=(2, 3, 1), size=3) -> np.ndarray:
    out = np.zeros(shape, np.uint8)
    out[at[0] : at[0] + size, at[1] : at[1] + size, at[2] : at[2] + size] = value
    return out


def nifti(path: Path, array: np.ndarray, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def analyze_big_endian_4d(path: Path, array: np.ndarray) -> Path:
    """OASIS-1 files are big-endian Analyze 7.5 with a fourth axis of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    image = nib.AnalyzeImage(array[..., None].astype(">i2"), np.diag([1, 1, 1, 1]), header)
    nib.save(image, path)
    return path


def png(path: Path, array: np.ndarray) -> Path:
    """(I, J) or (C, I, J) uint8 as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array.transpose(*range(array.ndim)[::-1]))).save(path)
    return path


def dicom_series(
    folder: Path,
    array: np.ndarray,
    *,
    modality="CT",
    patient="",
    name="i{n:04d}.dcm",
    origin=(0.0, 0.0, 0.0),
    gap=3.0,
    uid="",
    frame="",
) -> Path:
    """(I, J, K) as a series whose slice k stands at z = k * gap."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = uid or generate_uid(), generate_uid()
    sop = CTImageStorage if modality == "CT" else MRImageStorage
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = (
            sop,
            generate_uid(),
            ExplicitVRLittleEndian,
        )
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = (
            sop,
            meta.MediaStorageSOPInstanceUID,
            series,
            study,
        )
        ds.Modality, ds.PatientID, ds.SeriesNumber, ds.InstanceNumber = modality, patient, 1, k + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Rows, ds.Columns = array.shape[1], array.shape[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [origin[0], origin[1], origin[2] + k * gap]
        ds.PixelSpacing, ds.SliceThickness = [0.9, 0.9], gap
        if modality == "CT":
            ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        if frame:
            ds.FrameOfReferenceUID = frame
        ds.PixelData = np.ascontiguousarray(array[:, :, k].T.astype("<i2")).tobytes()
        ds.save_as(folder / name.format(n=k), enforce_file_format=True)
    return folder


def slices(folder: Path, array: np.ndarray) -> Path:
    """(I, J, K) as PNG slices in natural order of names."""
    for k in range(array.shape[2]):
        png(folder / f"slice_{k:03d}.png", array[:, :, k])
    return folder


_MET = {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "int8": "MET_CHAR", "float32": "MET_FLOAT"}


def mhd(path: Path, array: np.ndarray, *, packed=False, spacing=(0.6, 0.6, 3.0)) -> Path:
    """MetaImage with its voxels in a file next to it, as .zraw if they are compressed; or with both
    in one .mha file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data, own = array.tobytes("F"), path.suffix == ".mha"
    kept = "LOCAL" if own else f"{path.stem}.{'zraw' if packed else 'raw'}"
    voxels = zlib.compress(data) if packed else data
    size = f"CompressedDataSize = {len(voxels)}\n" if packed else ""
    head = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {packed}\n{size}TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        f"CenterOfRotation = 0 0 0\nElementSpacing = {' '.join(map(str, spacing))}\n"
        f"DimSize = {' '.join(map(str, array.shape))}\nElementType = {_MET[array.dtype.name]}\n"
        f"ElementDataFile = {kept}\n"
    ).encode()
    path.write_bytes(head + voxels if own else head)
    if not own:
        (path.parent / kept).write_bytes(voxels)
    return path


def volume(path: Path, array: np.ndarray) -> Path:
    """A volume in the format of the path's ending."""
    name = path.name.lower()
    if name.endswith((".mhd", ".mha")):
        return mhd(path, array)
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".mgz"):
        nib.save(
            nib.MGHImage(array.astype(np.int32 if array.max() > 255 else array.dtype), AFFINE), path
        )
    elif name.endswith(".nrrd"):
        nrrd.write(
            str(path),
            array,
            {
                "space": "left-posterior-superior",
                "space directions": np.diag([0.8, 1.1, 2.5]),
                "space origin": [0.0, 0.0, 0.0],
            },
        )
    else:
        nifti(path, array)
    return path


def grow(root: Path, images: str, labels: str = "", values=(1,), like=np.int16) -> Path:
    """Small volumes at the paths in ``images`` and masks with ``values`` at those in ``labels``:
    paths below ``root``, one a word.
    """
    for n, name in enumerate(images.split()):
        volume(root / name, noise(n, dtype=like))
    for n, name in enumerate(labels.split()):
        mask = np.zeros(SHAPE, np.uint8 if max(values) < 256 else np.int16)
        for place, value in enumerate(values):
            mask[2 + place % 8, 2 + n % 4 : 6, 1:4] = value
        volume(root / name, mask)
    return root
