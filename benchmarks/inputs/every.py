"""All inputs: importing this module fills ``INPUTS``."""

from __future__ import annotations

from . import labels, pictures, trees
from .made import INPUTS

__all__ = ["INPUTS", "labels", "pictures", "trees"]
