"""RT structure sets for tests, from contours in RAS+ mm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from delineate.core.grid import Grid

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
CLOSED = "CLOSED_PLANAR"


def write_structure_set(
    path: Path,
    rois: Mapping[str, Sequence[tuple[np.ndarray, str]]] | Sequence[tuple[str, Sequence]],
    *,
    patient: str = "P1",
    frame: str = "1.2.3",
    series: str = "",
    instances: Sequence[str] = (),
) -> Path:
    """``rois`` is name -> contours, each (N, 3) RAS+ mm and a geometric type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = RTSTRUCT
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Modality, ds.PatientID, ds.StructureSetLabel = "RTSTRUCT", patient, "S"
    ds.SeriesInstanceUID, ds.StudyInstanceUID = generate_uid(), generate_uid()
    reference, study, inner = Dataset(), Dataset(), Dataset()
    reference.FrameOfReferenceUID = frame
    if series:
        inner.SeriesInstanceUID = series
        inner.ContourImageSequence = [_image(one) for one in instances]
        study.RTReferencedSeriesSequence = [inner]
        reference.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [reference]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(
        rois.items() if isinstance(rois, Mapping) else rois, start=1
    ):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        ds.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points, kind in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{v:.4f}" for v in (points * (-1, -1, 1)).ravel()]
            drawn.ContourSequence.append(item)
        ds.ROIContourSequence.append(drawn)
    ds.save_as(path, enforce_file_format=True)
    return path


def _image(instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    item.ReferencedSOPInstanceUID = instance
    return item


def polygon_on(grid: Grid, corners: Sequence[Sequence[float]], k: float) -> np.ndarray:
    """(N, 3) RAS+ mm of corners (column, row) as voxel indices, in the slice ``k``."""
    return grid.to_mm(np.array([(*corner, k) for corner in corners], float))


def circle_on(grid: Grid, centre: Sequence[float], radius_mm: float, k: float, corners=360):
    """(N, 3) RAS+ mm of a circle around a voxel index (column, row) in the slice ``k``."""
    across, down = grid.affine[:3, 0], grid.affine[:3, 1]
    across = across / np.linalg.norm(across)
    down = down - (down @ across) * across
    down = down / np.linalg.norm(down)
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)[:, None]
    middle = grid.to_mm((*centre, k))
    return middle + radius_mm * (np.cos(angles) * across + np.sin(angles) * down)
