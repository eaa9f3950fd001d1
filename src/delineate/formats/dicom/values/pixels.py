"""Pixels that are not compressed, read from their place in the file into an array.

``Header.stored`` says where they are. Only what one read can give is read here: one value for each
pixel, in whole bytes, little-endian. Everything else is decoded (``values``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError
from ... import archive
from ...disk import read_into
from ..header.elements import EXPLICIT_LITTLE, IMPLICIT, Header

BYTES = (8, 16, 32)  # BitsAllocated of whole numbers


def is_plain(header: Header) -> bool:
    """Whether ``plain_frames`` can read the pixels of a file."""
    stored = header.stored
    return (
        stored is not None
        and stored.nbytes is not None
        and stored.syntax in (IMPLICIT, EXPLICIT_LITTLE)
        and header.get("SamplesPerPixel", 1) == 1
        and header.get("PixelRepresentation") in (0, 1)
        and header.get("BitsAllocated") in BYTES
        and bool(header.get("BitsStored"))
    )


def plain_frames(
    path: Path, header: Header, frames: Sequence[int]
) -> Iterator[NDArray[np.integer]]:
    """The frames of a file as stored, each (rows, columns), with the bits above HighBit.

    Raises:
        FormatError: the file has fewer pixels, or a frame more than it states.
    """
    assert header.stored is not None and header.stored.nbytes is not None
    kind = "i" if header.get("PixelRepresentation") else "u"
    dtype = np.dtype(f"<{kind}{int(header.BitsAllocated) // 8}")
    shape = int(header.Rows), int(header.Columns)
    nbytes, count = shape[0] * shape[1] * dtype.itemsize, int(header.get("NumberOfFrames") or 1)
    there = min(header.stored.nbytes, header.stored.held or header.stored.nbytes)
    if there >= (count + 1) * nbytes:
        raise FormatError(
            f"the header states {count} frame(s) of {nbytes} bytes, but there are {there} bytes of "
            "pixels"
        )
    with archive.opened(path) as file:
        for frame in frames:
            pixels, end = np.empty(shape, dtype), (frame + 1) * nbytes
            file.seek(header.stored.offset + end - nbytes)
            if end > header.stored.nbytes or read_into(file, pixels) < nbytes:
                raise FormatError(
                    f"the pixels are truncated: frame {frame + 1} ends at byte {end} of "
                    f"{header.stored.nbytes}"
                )
            yield pixels
