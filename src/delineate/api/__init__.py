"""The Python interface: ``load`` a model, ``read`` a scan, ``predict``, ``save``."""

from .public import Model, Prediction, load, read, write

__all__ = ["Model", "Prediction", "load", "read", "write"]
