"""Every way to store pixels, through the reader of series: byte orders, offset tables, fragments,
widths of integers, floating-point numbers.
"""

from __future__ import annotations

import itertools

import numpy as np
import pydicom
import pytest
from objects import at, ct, enhanced, write
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPIPHTJ2KReferenced,
    RLELossless,
)

from delineate.core.errors import FormatError
from delineate.formats import files
from delineate.formats.dicom.values import read as decoding

STACK = [at(0, 0, 2 * k) for k in range(5)]
# Syntax -> pydicom's encoder.
CODECS = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}


def noise(dtype, rows=33, columns=35, frames=5):
    """(frames, rows, columns) over the whole range of ``dtype``, with odd sizes."""
    limits = np.iinfo(dtype)
    values = np.random.default_rng(7).integers(
        limits.min, limits.max, (frames, rows, columns), dtype, endpoint=True
    )
    values[0, 0, :2] = limits.min, limits.max
    return values


def read(folder, *objects):
    write(folder, *objects)
    return files.read(folder).array.T


def encoded(one, syntax):
    """The coded frames of an object, which is compressed."""
    one.compress(syntax, encoding_plugin=CODECS[syntax], generate_instance_uid=False)
    return list(generate_frames(one.PixelData, number_of_frames=int(one.get("NumberOfFrames", 1))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_syntaxes_that_are_not_compressed(tmp_path, syntax, dtype):
    pixels = noise(dtype)
    one = enhanced(pixels, STACK)
    one.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and pixels.itemsize > 1:
        one.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    np.testing.assert_array_equal(read(tmp_path / "a", one), pixels)
    # The same as slices, in files of an odd number of bytes with one of padding.
    slices = [ct(frame, k, InstanceNumber=k) for k, frame in enumerate(pixels)]
    for one, frame in zip(slices, pixels, strict=True):
        one.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and pixels.itemsize > 1:
            one.PixelData = frame.astype(frame.dtype.newbyteorder(">")).tobytes()
        one.PixelData += bytes(len(one.PixelData) % 2)
    np.testing.assert_array_equal(read(tmp_path / "b", *slices), pixels)


@pytest.mark.parametrize("syntax", CODECS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_offset_tables_and_fragments(tmp_path, syntax, dtype):
    pixels = noise(dtype)
    coded = encoded(enhanced(pixels, STACK), syntax)
    for n, (table, fragments) in enumerate(
        itertools.product(("basic", "none", "extended"), (1, 3))
    ):
        one = enhanced(pixels, STACK)
        one.file_meta.TransferSyntaxUID = syntax
        if table == "extended":
            if fragments > 1:
                continue  # a fragment for each frame (PS3.5 A.4)
            extended = encapsulate_extended(coded)
            one.PixelData, one.ExtendedOffsetTable, one.ExtendedOffsetTableLengths = extended
        else:
            fragments = 1 if syntax == RLELossless else fragments
            one.PixelData = encapsulate(coded, fragments, has_bot=table == "basic")
        one["PixelData"].is_undefined_length = True
        np.testing.assert_array_equal(read(tmp_path / str(n), one), pixels)


@pytest.mark.parametrize("syntax", CODECS)
def test_a_single_frame_in_fragments_without_a_table(tmp_path, syntax):
    pixels = noise(np.uint16, frames=1)
    coded = encoded(ct(pixels[0]), syntax)
    one = ct(pixels[0])
    one.file_meta.TransferSyntaxUID = syntax
    one.PixelData = encapsulate(coded, 1 if syntax == RLELossless else 4, has_bot=False)
    one["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(read(tmp_path, one), pixels)


def test_coded_pixels_that_contradict_the_header_are_refused(tmp_path):
    pixels, frames = noise(np.uint16), {}
    for syntax in (RLELossless, JPEGLSLossless):
        frames[syntax] = encoded(enhanced(pixels, STACK), syntax)

    def refused(why, syntax=RLELossless, has_bot=True, entries=None, **fields):
        one = enhanced(pixels, STACK)
        one.file_meta.TransferSyntaxUID = syntax
        if entries is None:
            one.PixelData = encapsulate(frames[syntax], has_bot=has_bot)
        else:
            extended = encapsulate_extended(frames[syntax])
            one.PixelData, one.ExtendedOffsetTable, one.ExtendedOffsetTableLengths = extended
            old = np.frombuffer(one.ExtendedOffsetTable, np.uint64)
            one.ExtendedOffsetTable = old[list(entries)].tobytes()
        one["PixelData"].is_undefined_length = True
        for name, value in fields.items():
            setattr(one, name, value)
        if "NumberOfFrames" in fields:
            del one.PerFrameFunctionalGroupsSequence[fields["NumberOfFrames"] :]
        with pytest.raises(FormatError, match=why):
            read(tmp_path / str(len(list(tmp_path.iterdir()))), one)

    last = len(pixels) - 1
    offsets = "table of offsets .* does not fit"
    refused(offsets, entries=[0] * len(pixels))
    refused(offsets, entries=[1, 0, *range(2, last + 1)])
    for syntax in frames:
        refused(offsets, syntax, NumberOfFrames=last)
        refused(f"{last + 1} coded frames, but", syntax, has_bot=False, NumberOfFrames=last)
    refused("coded are .* pixels, but the header", JPEGLSLossless, Rows=pixels.shape[1] - 1)


def test_signed_streams_of_unsigned_pixels_are_refused(tmp_path):
    one = ct(noise(np.int16, frames=1)[0])
    one.compress(JPEG2000Lossless, generate_instance_uid=False)
    one.PixelRepresentation = 0
    with pytest.raises(FormatError, match="coded are signed pixels"):
        read(tmp_path, one)


@pytest.mark.parametrize("pixels_here", [decoding.RLE_HERE, 0])
def test_fewer_coded_frames_than_stated_are_refused(tmp_path, monkeypatch, pixels_here):
    """RLE of few pixels is decoded by this process, that of many by others."""
    monkeypatch.setattr(decoding, "RLE_HERE", pixels_here)
    pixels = noise(np.uint16)
    for n, has_table in enumerate((True, False)):
        one = enhanced(pixels, STACK)
        coded = encoded(one, RLELossless)
        one.file_meta.TransferSyntaxUID = RLELossless
        one.PixelData = encapsulate(coded, has_bot=has_table)
        one["PixelData"].is_undefined_length = True
        np.testing.assert_array_equal(read(tmp_path / f"all {n}", one), pixels)
        coded = coded[:4]
        one.PixelData = encapsulate(coded, has_bot=has_table)
        one["PixelData"].is_undefined_length = True
        with pytest.raises(FormatError):
            read(tmp_path / str(n), one)


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint32, np.float32), (np.int32, np.int32)])
def test_integers_of_32_bits(tmp_path, dtype, kind):
    pixels = np.array([[0, 1, 70000, 123456789]], dtype)
    found = read(tmp_path / "a", ct(pixels))
    assert found[0].tolist() == pixels.astype(kind).tolist()
    halved = read(tmp_path / "b", ct(pixels, RescaleSlope="0.5", RescaleIntercept="1"))
    np.testing.assert_allclose(halved[0], pixels * 0.5 + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("keyword", "dtype"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)]
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_floating_point_pixels(tmp_path, keyword, dtype, syntax):
    pixels = np.linspace(-1.5, 2.5, 5 * 7 * 9).reshape(5, 7, 9).astype(dtype)
    one = enhanced(pixels.astype(np.int16), STACK, kind="30")
    one.file_meta.TransferSyntaxUID = syntax
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
    one.BitsAllocated = 8 * pixels.itemsize
    setattr(one, keyword, pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())
    np.testing.assert_array_equal(read(tmp_path, one), pixels.astype(np.float32))


def packed(values):
    """12-bit values, two in three bytes (PS3.5 8.1.1)."""
    out = bytearray()
    for low, high in zip(values[::2], values[1::2], strict=True):
        out += bytes([low & 255, low >> 8 | (high & 15) << 4, high >> 4])
    return bytes(out)


def test_twelve_bits_allocated_are_refused(tmp_path):
    one = ct(np.zeros((2, 4), np.uint16), BitsAllocated=12, BitsStored=12, HighBit=11)
    one.PixelData = packed([1, 2, 3, 4095, 5, 6, 7, 8])
    with pytest.raises(FormatError, match="its pixels are packed into 12 bits"):
        read(tmp_path, one)


def test_a_syntax_without_a_decoder_is_refused(tmp_path):
    one = ct(np.zeros((2, 4), np.uint16))
    one.file_meta.TransferSyntaxUID = JPIPHTJ2KReferenced
    one.PixelData = encapsulate([b"1234"])
    one["PixelData"].is_undefined_length = True
    with pytest.raises(FormatError, match=r"decoded \(JPIP HTJ2K Referenced\): not supported"):
        read(tmp_path, one)


def test_deflated_pixels_are_those_of_the_inner_syntax(tmp_path):
    pixels = noise(np.int16)
    one = enhanced(pixels, STACK)
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (path,) = write(tmp_path, one)
    assert pydicom.dcmread(path).pixel_array.tolist() == pixels.tolist()
    np.testing.assert_array_equal(files.read(tmp_path).array.T, pixels)
