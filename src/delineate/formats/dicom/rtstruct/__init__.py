"""RT structure sets (PS3.3 A.19): contours of structures, drawn on the grid of a scan.

read.py   the ROIs of an object and their contours     draw.py   their voxels on a grid
write.py  label volumes as contours
"""

from .draw import read_rtstruct
from .read import describe, read_roi_names
from .write import structure_set_source, write_rtstruct

__all__ = ["describe", "read_roi_names", "read_rtstruct", "structure_set_source", "write_rtstruct"]
