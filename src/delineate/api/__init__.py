"""The Python interface: typed classes and functions, re-exported by ``delineate``."""

from .functions import read, write
from .model import Model, load
from .prediction import Prediction
from .volume import ImageLike, Volume

__all__ = ["ImageLike", "Model", "Prediction", "Volume", "load", "read", "write"]
