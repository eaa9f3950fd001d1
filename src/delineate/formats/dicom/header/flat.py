"""2-D images: radiographs, ultrasound, photographs and captures, and the frames of clips and runs.

These objects have no position in space. Each image, and each frame of a clip, is a volume with one
slice on the grid of a picture (``formats.raster``): columns towards the left, rows towards the
back, place not known. Its spacing is that of the patient (PixelSpacing), of the detector
(ImagerPixelSpacing, larger than that of the patient by the magnification), of a scanned film
(NominalScannedPixelSpacing) or of the region of an ultrasound image; ``Plane.spacing_by`` says
which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....core.grid import Grid
from ... import raster
from .marks import number, numbers

_ROOT = "1.2.840.10008.5.1.4.1.1."
_CLASSES = {
    "radiography": ("1", "1.1", "1.1.1", "1.3", "1.3.1"),
    "mammography": ("1.2", "1.2.1"),
    "ultrasound": ("3", "3.1", "6", "6.1"),
    "secondary capture": ("7", "7.1", "7.2", "7.3", "7.4"),
    "angiography and fluoroscopy": ("12.1", "12.2", "12.1.1", "12.2.1"),
    "endoscopy and microscopy": ("77.1.1", "77.1.1.1", "77.1.2", "77.1.2.1"),
    "photography": ("77.1.4", "77.1.4.1"),
    "ophthalmic photography": ("77.1.5.1", "77.1.5.2", "77.1.5.5", "77.1.5.7"),
}
FLAT = frozenset(_ROOT + one for several in _CLASSES.values() for one in several)
MOST_FRAMES = 1 << 16
CENTIMETRES, TISSUE = 3, 1  # of an ultrasound region: its units, and its kind of data


def grid_of(columns: int, rows: int, spacing: Sequence[float]) -> Grid:
    """The grid of a 2-D image with ``spacing`` (between rows, between columns); 1 mm for ()."""
    return raster.grid_of((columns, rows, 1), (spacing[1], spacing[0], 1.0) if spacing else None)


def spacing_of(dataset: Any) -> tuple[tuple[float, ...], str]:
    """The spacing (between rows, between columns) in mm, and where it stands; () and "" if the
    image states none.
    """
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers(dataset, name)
        if len(found) == 2 and min(found) > 0:
            return found, name
    regions = dataset.get("SequenceOfUltrasoundRegions") or ()
    scales = {
        (round(10 * abs(down), 6), round(10 * abs(across), 6))
        for one in regions
        if number(one, "RegionDataType") == TISSUE
        and number(one, "PhysicalUnitsXDirection") == CENTIMETRES
        and number(one, "PhysicalUnitsYDirection") == CENTIMETRES
        and (down := number(one, "PhysicalDeltaY"))
        and (across := number(one, "PhysicalDeltaX"))
    }
    # Two images of tissue at different scales in one picture have no common spacing.
    return (scales.pop(), "ultrasound region") if len(scales) == 1 else ((), "")
