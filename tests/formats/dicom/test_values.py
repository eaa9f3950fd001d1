"""Values of DICOM pixels: bits, rescale, lookup tables, and what is stated but not applied."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from objects import ct, write

from delineate.core.errors import FormatError
from delineate.formats import files

U16 = np.uint16


def read(folder, *objects):
    write(folder, *objects)
    return files.read(folder)


def row(volume, k=0):
    return volume.array[:, 0, k].tolist()


def test_bits_above_the_stored_ones_are_masked(tmp_path):
    # An overlay in bit 15, and the sign of 12 bits without its extension.
    overlay = ct(np.array([[0x8007, 0x1FFF]], U16), BitsStored=12, HighBit=11)
    assert row(read(tmp_path / "a", overlay)) == [7, 4095]
    signed = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
    negative = ct(np.array([[0x0FFF, 0x7800]], U16), **signed)
    assert row(read(tmp_path / "b", negative)) == [-1, -2048]


def test_values_in_the_highest_bits(tmp_path):
    high = {"BitsStored": 12, "HighBit": 15}
    shifted = ct(np.array([[0x0010, 0xFFFF]], U16), **high)
    assert row(read(tmp_path / "a", shifted)) == [1, 4095]
    negative = ct(np.array([[0xFFF5, 0x8000]], U16), **high, PixelRepresentation=1)
    assert row(read(tmp_path / "b", negative)) == [-1, -2048]
    middle = ct(np.array([[0xF0F7, 0x0018]], U16), BitsStored=8, HighBit=10)
    assert row(read(tmp_path / "c", middle)) == [0x1E, 3]
    with pytest.raises(FormatError, match="HighBit 15 does not fit"):
        read(tmp_path / "d", ct(np.zeros((1, 2), np.uint8), HighBit=15))


def test_rescale_of_each_slice(tmp_path):
    pixels = np.array([[0, 10, 200]], U16)
    first = ct(pixels, RescaleSlope="1", RescaleIntercept="-1024")
    second = ct(pixels, 1, RescaleSlope="2", RescaleIntercept="5")
    volume = read(tmp_path / "a", first, second)
    assert (row(volume), row(volume, 1)) == ([-1024, -1014, -824], [5, 25, 405])
    assert volume.array.dtype == np.int16
    third = ct(pixels, 2, RescaleSlope="0.5", RescaleIntercept="0.25")
    volume = read(tmp_path / "b", first, second, third)
    assert (row(volume, 1), row(volume, 2)) == ([5, 25, 405], [0.25, 5.25, 100.25])
    assert volume.array.dtype == np.float32


def test_modality_lookup_table(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [3, 10, 16], "HU"
    table.LUTData = np.array([100, 250, 60000], U16).tobytes()
    table["LUTData"].VR = "OW"
    # Stored values outside the table get its ends (PS3.3 C.11.1.1.1).
    volume = read(tmp_path, ct(np.array([[9, 10, 11, 12, 13]], U16), ModalityLUTSequence=[table]))
    assert row(volume) == [100, 100, 250, 60000, 60000]


def test_palette_colours_are_no_intensities(tmp_path):
    with pytest.raises(FormatError, match="colour images"):
        read(tmp_path, ct(np.zeros((2, 2), np.uint8), PhotometricInterpretation="PALETTE COLOR"))
