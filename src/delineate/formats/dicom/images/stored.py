"""Intensities as the pixels of DICOM images, and the rescale that gives them back (PS3.3 C.11.1).

Whole numbers whose range fits 16 bits are exact. All other intensities are scaled linearly to 16
bits with one slope for the whole volume. A slope and an intercept are decimal strings of at most 16
bytes: pixels are computed with the numbers that the strings have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.volume import with_finite_voxels

_LOWEST, _HIGHEST, _TOP = -(2**15), 2**15 - 1, 2**16 - 1


@dataclass(frozen=True)
class StoredPixels:
    """An intensity is ``pixels * slope + intercept``; ``pixels`` has the shape of the intensities
    and is int16 or uint16.
    """

    pixels: NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def of(cls, array: NDArray[Any], *, offset: bool = True) -> StoredPixels:
        """The pixels of intensities; voxels that are not finite get the background.

        Args:
            array: (I, J, K).
            offset: whether the intercept may differ from 0, which PET does not allow.

        >>> StoredPixels.of(np.array([[[-1024, 3071]]], np.int32)).pixels.dtype
        dtype('int16')
        >>> far = StoredPixels.of(np.array([[[70000, 70255]]]))
        >>> far.pixels, far.slope, far.intercept
        (array([[[  0, 255]]], dtype=uint16), 1.0, 70000.0)
        >>> StoredPixels.of(np.array([[[0.0, 0.5, 1.0]]])).slope
        1.5259021897e-05
        """
        array = with_finite_voxels(array)
        low, high = float(array.min()), float(array.max())
        # Whole numbers that fit.
        if array.dtype.kind in "biu" or bool((array == np.rint(array)).all()):
            if low >= _LOWEST and high <= _HIGHEST:
                return cls(array.astype(np.int16))
            if low >= 0 and high <= _TOP:
                return cls(array.astype(np.uint16))
            if offset and high - low <= _TOP and max(abs(low), abs(high)) < 2**53:
                base = array.dtype.type(low)
                return cls((array - base).astype(np.uint16), 1.0, low)
        # Others: the whole range of 16 bits, from the lowest value or, without offset, from 0.
        if offset or low >= 0:
            start = _decimal(low) if offset else 0.0
            slope = _decimal((high - start) / _TOP or 1.0)
            levels = np.rint((array.astype(np.float64) - start) / slope)
            return cls(np.clip(levels, 0, _TOP).astype(np.uint16), slope, start)
        slope = _decimal(max(-low, high) / _HIGHEST)
        levels = np.rint(array.astype(np.float64) / slope)
        return cls(np.clip(levels, _LOWEST, _HIGHEST).astype(np.int16), slope)


def _decimal(value: float) -> float:
    """The number of the decimal string (VR DS) of ``value``."""
    from pydicom.valuerep import format_number_as_ds

    return float(format_number_as_ds(value))
