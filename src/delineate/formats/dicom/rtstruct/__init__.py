"""RT structure sets (PS3.3 A.19): contours of structures, drawn on the grid of a scan."""

from .read import read_roi_names, read_rtstruct

__all__ = ["read_roi_names", "read_rtstruct"]
