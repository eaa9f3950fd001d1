"""The Python interface: typed classes and functions, re-exported by ``delineate``."""

from .check_report import CheckReport
from .cohort import Cohort
from .functions import (
    check,
    compare,
    download,
    evaluate,
    plan,
    predict,
    read,
    report,
    train,
    view,
    write,
)
from .model import Model, load
from .prediction import Prediction
from .run import Run
from .volume import ImageLike, Volume

__all__ = [
    "CheckReport",
    "Cohort",
    "ImageLike",
    "Model",
    "Prediction",
    "Run",
    "Volume",
    "check",
    "compare",
    "download",
    "evaluate",
    "load",
    "plan",
    "predict",
    "read",
    "report",
    "train",
    "view",
    "write",
]
