"""DICOM: reading series of single-frame CT, MR and PET slices, writing segmentations.

headers.py   one file's planes as plain data        find.py    series in folders; choosing one
geometry.py  positions of a series' slices          values.py  their voxels
seg.py       label volumes as DICOM Segmentation objects
"""

from .find import choose, find, find_series, problem_of
from .geometry import layout, tolerance_mm
from .headers import DAMAGED, Plane, Series, is_dicom, is_image
from .values import read_series

__all__ = [
    "DAMAGED",
    "Plane",
    "Series",
    "choose",
    "find",
    "find_series",
    "is_dicom",
    "is_image",
    "layout",
    "problem_of",
    "read_series",
    "tolerance_mm",
]
