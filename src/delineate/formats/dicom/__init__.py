"""DICOM: series of images as volumes, labels in segmentations and structure sets, both ways.

elements.py  the elements of a header               dicomdir.py the index of a medium
headers.py   one file's planes as plain data        find.py    series in folders; choosing one
damage.py    the series that damaged files cost     pixels.py  pixels that are not compressed
geometry.py  positions of a series' slices          values.py  their voxels
flat.py      2-D images, clips and captures         mosaic/    many slices in one image
stated.py    what is stated about the values        suv.py     standardised uptake values
enhanced.py  frames of multi-frame objects          marks.py   what distinguishes volumes
group.py     the volumes of a series                fix.py     series with uneven gaps
rtstruct.py  contours of structure sets as voxels
references.py  the series that a segmentation or structure set belongs to
seg/         segmentations: written from label volumes, and read as such
"""

from .find import choose, find, find_series, problem_of, table
from .fix import fixed
from .geometry import layout, tolerance_mm
from .headers import DAMAGED, Plane, Series, is_dicom, is_image
from .references import LABEL_KINDS, References, kind_of, references, series_of_label
from .rtstruct import read_roi_names, read_rtstruct
from .values import read_joined, read_series

__all__ = [
    "DAMAGED",
    "LABEL_KINDS",
    "Plane",
    "References",
    "Series",
    "choose",
    "find",
    "find_series",
    "fixed",
    "is_dicom",
    "is_image",
    "kind_of",
    "layout",
    "problem_of",
    "read_joined",
    "read_roi_names",
    "read_rtstruct",
    "read_series",
    "references",
    "series_of_label",
    "table",
    "tolerance_mm",
]
