"""The other DICOM objects of a prediction: maps, measurements, key slices and an overview page.

sc.py    an overview page as a Secondary Capture
kos.py   the slices that a person should look at as a Key Object Selection
sr.py    measurements of the segments of a SEG as a Structured Report
pm.py    probabilities and uncertainty as a Parametric Map
"""

from .kos import write_kos
from .pm import ParametricMap, write_pm
from .sc import write_sc
from .sr import Measured, write_sr

__all__ = ["Measured", "ParametricMap", "write_kos", "write_pm", "write_sc", "write_sr"]
