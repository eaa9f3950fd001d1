"""De-identification by the Basic Application Level Confidentiality Profile (PS3.15 Annex E).

table.py    what happens to an attribute        pseudonyms.py  new UIDs, patient ids and dates
texts.py    names and ids in free text          pixels.py      images that may show text
objects.py  one object                          rest.py        what is stored behind pixels
"""

from .objects import Profile, deidentify
from .pixels import Rectangle, text_in
from .pseudonyms import Patient, Pseudonyms
from .rest import without_rest
from .table import OPTIONS
from .texts import Identities

__all__ = [
    "OPTIONS",
    "Identities",
    "Patient",
    "Profile",
    "Pseudonyms",
    "Rectangle",
    "deidentify",
    "text_in",
    "without_rest",
]
