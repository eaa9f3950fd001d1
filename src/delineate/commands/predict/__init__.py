"""Predict: a model on scans.

options.py  how                         predict.py  the command
session.py  one scan after the other    results.py  what is written
"""

from .options import BACKENDS, FORMATS, MONTAGES, PRECISIONS, Options
from .predict import PredictionReport, gather, predict, predict_cases
from .results import peak_memory_mb, read_scan
from .session import measured

__all__ = [
    "BACKENDS",
    "FORMATS",
    "MONTAGES",
    "PRECISIONS",
    "Options",
    "PredictionReport",
    "gather",
    "measured",
    "peak_memory_mb",
    "predict",
    "predict_cases",
    "read_scan",
]
