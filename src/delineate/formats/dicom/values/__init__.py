"""The voxels of a series.

read.py    planes to volumes, rescaled       pixels.py  pixels that are not compressed
stated.py  padding and scales, as ``meta``   suv.py     standardised uptake values
"""

from .read import DECODERS, fixed_in, read_joined, read_series, same_values

__all__ = ["DECODERS", "fixed_in", "read_joined", "read_series", "same_values"]
