"""Areas with text are made black in every way in which pixels are stored, and the rest stays."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLSLossless

from delineate.core.errors import FormatError
from delineate.formats.dicom.deidentify.pixels import blacken, text_in

RECTANGLE = (1, 2, 4, 5)  # columns 1 to 3, rows 2 to 4
DARK = np.zeros((6, 5), bool)
DARK[2:5, 1:4] = True


def stored(array: np.ndarray, colours: str, syntax=ExplicitVRLittleEndian, **more) -> Dataset:
    """An image of (frames, 6, 5, samples), stored as its values are."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.NumberOfFrames, made.Rows, made.Columns, made.SamplesPerPixel = array.shape
    made.PhotometricInterpretation = colours
    made.BitsAllocated = made.BitsStored = 8 * array.itemsize
    made.PixelData = array.tobytes()
    for name, value in more.items():
        setattr(made, name, value)
    return made


def image(dtype: str, samples: int) -> np.ndarray:
    count = 2 * 6 * 5 * samples
    return (np.arange(count) % 97 + 20).astype(dtype).reshape(2, 6, 5, samples)


@pytest.mark.parametrize(
    ("dtype", "colours", "more", "black"),
    [
        ("u1", "RGB", {}, (0, 0, 0)),
        ("u1", "YBR_FULL", {}, (0, 128, 128)),
        ("u1", "MONOCHROME2", {}, (0,)),
        ("<u2", "MONOCHROME1", {"BitsStored": 12}, (4095,)),
        ("<u2", "MONOCHROME1", {"BitsStored": 12, "PixelRepresentation": 1}, (2047,)),
        (">u2", "MONOCHROME1", {"syntax": ExplicitVRBigEndian}, (65535,)),
    ],
)
def test_an_area_is_black_and_the_rest_as_before(dtype, colours, more, black):
    array = image(dtype, len(black))
    made = stored(array, colours, **more)
    blacken(made, [RECTANGLE])
    found = np.frombuffer(made.PixelData, dtype).reshape(array.shape)
    assert (found[:, DARK] == black).all() and (found[:, ~DARK] == array[:, ~DARK]).all()
    assert made.BurnedInAnnotation == "NO"


def test_colours_in_planes_are_black_too():
    array = image("u1", 3)
    made = stored(array, "YBR_FULL", PlanarConfiguration=1)
    made.PixelData = np.moveaxis(array, -1, 1).tobytes()
    blacken(made, [RECTANGLE])
    found = np.moveaxis(np.frombuffer(made.PixelData, "u1").reshape(2, 3, 6, 5), 1, -1)
    assert (found[:, DARK] == (0, 128, 128)).all() and (found[:, ~DARK] == array[:, ~DARK]).all()


def test_an_overlay_in_unused_bits_is_removed_and_counts_as_text():
    values = image("<u2", 1)
    made = stored(values | 0x8000, "MONOCHROME2", BitsStored=12, HighBit=11, Modality="CT")
    made.add_new((0x6000, 0x0010), "US", 6)
    assert text_in(made) == "an overlay is stored within its pixels"
    blacken(made, [])
    assert (np.frombuffer(made.PixelData, "<u2").reshape(values.shape) == values).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"syntax": JPEGLSLossless}, "cannot be made black as they are stored"),
        # Two pixels share a colour, so that there are two samples for each.
        ({"PhotometricInterpretation": "YBR_FULL_422"}, "cannot be made black"),
        ({"BitsAllocated": 12}, r"\(RGB, 12 bits\) cannot be made black"),
        ({"Rows": 60}, "cannot be made black"),
    ],
)
def test_pixels_that_are_no_whole_samples_are_refused(more, message):
    pixels = image("u1", 2 if "PhotometricInterpretation" in more else 3)
    with pytest.raises(FormatError, match=message):
        blacken(stored(pixels, "RGB", **{"SamplesPerPixel": 3, **more}), [RECTANGLE])


def test_an_overlay_in_compressed_pixels_and_text_without_a_place_are_refused():
    made = stored(image("u1", 1), "MONOCHROME2", JPEGLSLossless)
    with pytest.raises(FormatError, match="nothing says where its text is"):
        blacken(made, [])
    made.add_new((0x6000, 0x0010), "US", 6)
    with pytest.raises(FormatError, match="an overlay within compressed pixels"):
        blacken(made, [])
