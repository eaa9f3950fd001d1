"""NIfTI-1 and -2, Analyze 7.5 and MGH/MGZ as volumes; NIfTI is also written.

``header``: NIfTI's header; ``reading``: geometry and values of all of them; ``writing``: volumes as
NIfTI files, and as images of nibabel.
"""

from .reading import KINDS, describe, kind_of, pair_of, read, read_grid, read_names
from .writing import from_image, to_image, write

__all__ = [
    "KINDS",
    "describe",
    "from_image",
    "kind_of",
    "pair_of",
    "read",
    "read_grid",
    "read_names",
    "to_image",
    "write",
]
