"""All damaged files: importing this module fills ``FAULTS``."""

from __future__ import annotations

from . import arrays, dicom, nifti, objects, pictures, places, records, texts, volumes
from .made import FAULTS, Fault

__all__ = [
    "FAULTS",
    "Fault",
    "arrays",
    "dicom",
    "nifti",
    "objects",
    "pictures",
    "places",
    "records",
    "texts",
    "volumes",
]
