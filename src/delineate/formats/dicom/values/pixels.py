"""Pixels that are not compressed, read from their place in the file into an array.

``Pixels.stored`` says where they are. Only what one read can give is read here: one value for each
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
from ..header.elements import EXPLICIT_LITTLE, IMPLICIT, Pixels

BYTES = (8, 16, 32)  # BitsAllocated of whole numbers


def is_plain(pixels: Pixels) -> bool:
    """Whether ``plain_frames`` can read the pixels of a file."""
    stored = pixels.stored
    return (
        stored is not None
        and stored.nbytes is not None
        and stored.syntax in (IMPLICIT, EXPLICIT_LITTLE)
        and pixels.samples == 1
        and pixels.signed in (0, 1)
        and pixels.allocated in BYTES
        and bool(pixels.bits)
    )


def refuse_more(pixels: Pixels) -> None:
    """Refuse pixels that are not compressed of a frame more than the header states.

    Raises:
        FormatError: there are.
    """
    stored = pixels.stored
    if stored is None or stored.nbytes is None:
        return
    bits = pixels.rows * pixels.columns * pixels.samples * (pixels.allocated or 0)
    there, needed = min(stored.nbytes, stored.held or stored.nbytes), -(-bits * pixels.frames // 8)
    if bits and 8 * (there - needed - needed % 2) >= bits:
        raise FormatError(
            f"the header states {pixels.frames} frame(s) of {-(-bits // 8)} bytes, but there are "
            f"{there} bytes of pixels"
        )


def plain_frames(
    path: Path, pixels: Pixels, frames: Sequence[int]
) -> Iterator[NDArray[np.integer]]:
    """The frames of a file as stored, each (rows, columns), with the bits above HighBit.

    Raises:
        FormatError: the file has fewer pixels, or has changed.
    """
    stored = pixels.stored
    assert stored is not None and stored.nbytes is not None and pixels.allocated
    dtype = np.dtype(f"<{'i' if pixels.signed else 'u'}{pixels.allocated // 8}")
    shape = pixels.rows, pixels.columns
    nbytes = shape[0] * shape[1] * dtype.itemsize
    with archive.opened(path) as file:
        if archive.nbytes_of(file, path) != pixels.nbytes:
            raise FormatError("the file was changed while it was read")
        for frame in frames:
            found, end = np.empty(shape, dtype), (frame + 1) * nbytes
            file.seek(stored.offset + end - nbytes)
            if end > stored.nbytes or read_into(file, found) < nbytes:
                raise FormatError(
                    f"the pixels are truncated: frame {frame + 1} ends at byte {end} of "
                    f"{stored.nbytes}"
                )
            yield found
