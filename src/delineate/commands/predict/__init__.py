"""Predict: apply a model to scans.

predict.py   the command               session.py  one scan after another
work_lists.py   of lists of any length   starting.py  the model, the engine, what is reported
refusals.py  options that do not fit   results.py  the files written
kept.py      models between calls
"""

from .predict import gather, predict, predict_cases
from .results import peak_memory_mb, read_scan
from .session import measured
from .starting import ListReport, PredictionReport

__all__ = [
    "ListReport",
    "PredictionReport",
    "gather",
    "measured",
    "peak_memory_mb",
    "predict",
    "predict_cases",
    "read_scan",
]
