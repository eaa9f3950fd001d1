"""Predict: apply a model to scans.

predict.py   the command               session.py  one scan after another
refusals.py  options that do not fit   results.py  the files written
kept.py      models between calls
"""

from .predict import PredictionReport, gather, predict, predict_cases
from .results import peak_memory_mb, read_scan
from .session import measured

__all__ = [
    "PredictionReport",
    "gather",
    "measured",
    "peak_memory_mb",
    "predict",
    "predict_cases",
    "read_scan",
]
