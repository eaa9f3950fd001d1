"""DICOM: series of images as volumes, labels in segmentations and structure sets, both ways.

header/      one file's planes as plain data        dicomdir.py  the index of a medium
find.py      series in folders; choosing one        damage.py    the series that damaged files cost
group.py     the volumes of a series                geometry.py  positions of a series' slices
fix.py       series with uneven gaps                values/      their voxels
seg/         segmentations: written from label volumes, and read as such
rtstruct/    contours of structure sets as voxels, and label volumes as contours
references.py  the series that a segmentation or structure set belongs to
places.py    whether contours and frames are in the slices that they name
source.py    the series that a written object refers to
derived.py   what all objects written by highdicom share
report/      measurements, parametric maps, key objects and overview pages of a prediction
images/      image volumes as series
identity.py  UIDs that follow from content
deidentify/  objects without what identifies a person
remote/      archives on the network (PACS)
"""

from .find import Headers, choose, files_in, find, find_series, place_of, problem_of, table
from .fix import FIXES
from .geometry import at_same_positions, layout, tilt_of, tolerance_mm
from .header.file import DAMAGED, Plane, Series, is_dicom, is_flat_image, is_image
from .places import Places
from .references import LABEL_KINDS, References, kind_of, references, series_of_label
from .rtstruct import read_roi_names, read_rtstruct
from .source import SourceSeries
from .values import fixed_in, read_joined, read_series

__all__ = [
    "DAMAGED",
    "FIXES",
    "Headers",
    "LABEL_KINDS",
    "Places",
    "Plane",
    "References",
    "Series",
    "SourceSeries",
    "at_same_positions",
    "choose",
    "files_in",
    "find",
    "fixed_in",
    "find_series",
    "is_dicom",
    "is_flat_image",
    "is_image",
    "kind_of",
    "layout",
    "place_of",
    "problem_of",
    "read_joined",
    "read_roi_names",
    "read_rtstruct",
    "read_series",
    "references",
    "series_of_label",
    "table",
    "tilt_of",
    "tolerance_mm",
]
