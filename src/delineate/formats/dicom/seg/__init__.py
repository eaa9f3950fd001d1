"""DICOM Segmentation objects (PS3.3 A.51): label volumes written as SEG, and SEG read as labels.

codes.py    codes of sides, and colours               header.py   one object's header as plain data
frames.py   the pixels of its frames                  planes.py   the grid of its frames
read.py     label volumes from objects                write.py    objects from label volumes
encoding.py types and transfer syntaxes of objects
"""

from .encoding import SYNTAXES, SegEncoding
from .header import SegHeader, Segment, read_header
from .read import HALF, describe, label_set, names_in, read_grid, read_seg
from .write import seg_source, write_seg

__all__ = [
    "HALF",
    "describe",
    "label_set",
    "SYNTAXES",
    "SegEncoding",
    "SegHeader",
    "Segment",
    "names_in",
    "read_grid",
    "read_header",
    "read_seg",
    "seg_source",
    "write_seg",
]
