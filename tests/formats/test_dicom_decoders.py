"""Compressed DICOM: every transfer syntax gives exactly the pixels that were encoded.

The encoders of this module are written from the standard (ITU T.81), so that a decoder is not
compared with its own library. The other syntaxes are encoded by pydicom's plug-ins.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    HTJ2K,
    MPEG2MPML,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from delineate.core.errors import FormatError
from delineate.formats.dicom.values import read as values

DEPTHS = [(8, 0), (12, 0), (12, 1), (16, 0), (16, 1)]  # bits stored, signed


def pixels(bits: int, signed: int, seed: int = 0) -> np.ndarray:
    """(40, 35) smooth values over most of the range, with noise and both extremes."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    y, x = np.mgrid[:40, :35]
    wave = (np.sin(x / 5) * np.cos(y / 7) + 1) / 2 * (high - low) + low
    noisy = wave + np.random.default_rng(seed).normal(0, (high - low) / 100, wave.shape)
    out = np.clip(np.rint(noisy), low, high).astype(np.int16 if signed else np.uint16)
    out[0, 0], out[-1, -1] = low, high
    return out.astype(np.int8 if signed else np.uint8) if bits <= 8 else out


def dataset(array: np.ndarray, bits: int, signed: int) -> pydicom.Dataset:
    out = pydicom.Dataset()
    out.file_meta = pydicom.dataset.FileMetaDataset()
    out.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    out.SOPClassUID, out.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
    out.Rows, out.Columns, out.SamplesPerPixel = *array.shape, 1
    out.PhotometricInterpretation, out.PixelRepresentation = "MONOCHROME2", signed
    out.BitsAllocated, out.BitsStored, out.HighBit = 8 * array.itemsize, bits, bits - 1
    out.PixelData = array.tobytes()
    out["PixelData"].VR = "OW"
    return out


def with_stream(out: pydicom.Dataset, syntax: UID, stream: bytes) -> pydicom.Dataset:
    out.file_meta.TransferSyntaxUID = syntax
    out.PixelData = encapsulate([stream])
    out["PixelData"].is_undefined_length = True
    return out


class Bits:
    """Bits of an entropy-coded segment; a byte of ones is followed by a zero byte (T.81, F.1.2)."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def add(self, value: int, count: int) -> None:
        self.text.append(format(value, f"0{count}b") if count else "")

    def difference(self, value: int) -> None:
        """A difference: its category in a code of 5 bits, then its bits (T.81, tables H.2, F.1)."""
        size = abs(value).bit_length()
        self.add(size, 5)
        if size < 16:
            self.add(value if value > 0 else value + (1 << size) - 1, size)

    def coefficients(self, line: list[int]) -> None:
        """The coefficients of a block after the first (T.81, F.1.2.2)."""
        run, last = 0, max((n for n, value in enumerate(line) if value), default=-1)
        for value in line[: last + 1]:
            if value == 0:
                run += 1
                continue
            while run > 15:
                self.add(SYMBOLS.index(0xF0), 8)
                run -= 16
            size = abs(value).bit_length()
            self.add(SYMBOLS.index(run << 4 | size), 8)
            self.add(value if value > 0 else value + (1 << size) - 1, size)
            run = 0
        if last < len(line) - 1:
            self.add(SYMBOLS.index(0x00), 8)

    def bytes(self) -> bytes:
        text = "".join(self.text)
        text += "1" * (-len(text) % 8)
        out = bytes(int(text[n : n + 8], 2) for n in range(0, len(text), 8))
        return out.replace(b"\xff", b"\xff\x00")


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def frame(marker: int, array: np.ndarray, bits: int) -> bytes:
    rows, columns = array.shape
    size = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    return segment(marker, bytes([bits]) + size + bytes([1, 1, 0x11, 0]))


# Categories 0 to 16, all with codes of 5 bits: a category is its own code.
CATEGORIES = segment(0xC4, bytes([0x00, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]))


def jpeg_lossless(array: np.ndarray, bits: int, predictor: int = 1) -> bytes:
    """Process 14 with one of the seven predictors (T.81, table H.1)."""
    values, coded = array.astype(np.int64) & ((1 << bits) - 1), Bits()
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            a, b = (row[x - 1] if x else 0), (values[y - 1, x] if y else 0)
            c = values[y - 1, x - 1] if x and y else 0
            inside = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
            guess = inside[predictor - 1] if x and y else a if x else b if y else 1 << bits - 1
            step = (int(value) - int(guess)) & 0xFFFF
            coded.difference(step - 0x10000 if step > 0x8000 else step)
    scan = segment(0xDA, bytes([1, 1, 0x00, predictor, 0, 0]))
    head = b"\xff\xd8" + CATEGORIES + frame(0xC3, array, bits)
    return head + scan + coded.bytes() + b"\xff\xd9"


# Run of zeros and category of the next coefficient; the code of a symbol is its place, in 8 bits.
SYMBOLS = [0x00, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 15))]
# Horizontal and vertical frequency of each coefficient in the order of a stream (T.81, figure 5).
ZIGZAG = sorted(np.ndindex(8, 8), key=lambda uv: (sum(uv), uv[0] if sum(uv) % 2 else -uv[0], uv[1]))
COSINES = np.array(
    [[np.cos((2 * x + 1) * u * np.pi / 16) / 2 for x in range(8)] for u in range(8)]
) * np.array([[0.5**0.5], *[[1.0]] * 7])


def jpeg_extended(array: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Process 4 with 12 bits and a quantisation of 1: the stream, and the pixels it stands for
    before they are rounded.
    """
    coded, before, stood_for = Bits(), 0, np.zeros(array.shape)
    for y in range(0, array.shape[0], 8):
        for x in range(0, array.shape[1], 8):
            block = array[y : y + 8, x : x + 8].astype(float) - 2048
            levels = np.rint(COSINES @ block @ COSINES.T).astype(int)
            stood_for[y : y + 8, x : x + 8] = COSINES.T @ levels @ COSINES + 2048
            line = [int(levels[uv]) for uv in ZIGZAG]
            coded.difference(line[0] - before)
            before = line[0]
            coded.coefficients(line[1:])
    tables = segment(0xDB, bytes([0, *[1] * 64])) + frame(0xC1, array, 12) + CATEGORIES
    tables += segment(0xC4, bytes([0x10, *[0] * 7, len(SYMBOLS), *[0] * 8, *SYMBOLS]))
    scan = segment(0xDA, bytes([1, 1, 0x00, 0, 63, 0]))
    return b"\xff\xd8" + tables + scan + coded.bytes() + b"\xff\xd9", stood_for


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_syntaxes(syntax, bits, signed):
    array = pixels(bits, signed)
    coded = dataset(array, bits, signed)
    coded.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(values._decoded(coded), array)


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("predictor", range(1, 8))
def test_jpeg_lossless(bits, signed, predictor):
    array = pixels(bits, signed)
    syntax = JPEGLosslessSV1 if predictor == 1 else JPEGLossless
    coded = with_stream(dataset(array, bits, signed), syntax, jpeg_lossless(array, bits, predictor))
    np.testing.assert_array_equal(values._decoded(coded), array)


def test_jpeg_extended_with_12_bits():
    array = pixels(12, 0)[:40, :32]
    stream, stood_for = jpeg_extended(array)
    coded = with_stream(dataset(array, 12, 0), JPEGExtended12Bit, stream)
    # Decoders may round the inverse transform differently (T.81, annex A.3.3).
    assert np.abs(values._decoded(coded) - stood_for).max() <= 1
    assert np.abs(stood_for - array).max() < 3


def test_jpeg_ls_with_a_bounded_error():
    array = pixels(12, 0)
    coded = dataset(array, 12, 0)
    coded.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    error = values._decoded(coded).astype(int) - array
    assert 0 < np.abs(error).max() <= 3


# 6 rows and 8 columns of 83 n modulo 4096, coded by OpenJPH without loss.
HIGH_THROUGHPUT = (
    r"|4;u>04YEK0000800006000000000000008000060000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{"
    r"@0smY86Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000TL1z7lfVEb&+`"
    r"QbbN~PVzyK3K022W8{sISd01Ea4hjakI024p}699B{0fKY@rKJEuGyuQ=DqsK=fFu&>ph7VMb^tDQsY_k@z*"
    r"2#}wgCUx"
)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000_is_decoded(syntax):
    array = (np.arange(48, dtype=np.uint16).reshape(6, 8) * 83) % 4096
    coded = with_stream(dataset(array, 12, 0), syntax, base64.b85decode(HIGH_THROUGHPUT))
    np.testing.assert_array_equal(values._decoded(coded), array)


def test_the_core_decodes_first_so_that_the_extra_changes_no_pixel(monkeypatch):
    array, used = pixels(12, 0), []
    coded = dataset(array, 12, 0)
    coded.compress(JPEG2000Lossless, generate_instance_uid=False)
    real = Decoder.as_array
    monkeypatch.setattr(
        Decoder,
        "as_array",
        lambda self, *src, **how: (used.append(how["decoding_plugin"]), real(self, *src, **how))[1],
    )
    values._decoded(coded)
    assert used == ["pillow"]
    for uid in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, HTJ2K, RLELossless):
        assert set(get_decoder(uid).available_plugins) <= set(values.DECODERS)


def test_what_no_decoder_reads_is_refused():
    broken = with_stream(dataset(pixels(12, 0), 12, 0), JPEGLosslessSV1, b"\xff\xd8nothing")
    with pytest.raises(FormatError, match=r"cannot be decoded \(JPEG Lossless"):
        values._decoded(broken)
    film = with_stream(dataset(pixels(8, 0), 8, 0), MPEG2MPML, b"nothing")
    with pytest.raises(FormatError, match=r"MPEG2 .* not supported"):
        values._decoded(film)


def test_real_files_of_five_codecs_hold_the_same_pixels(real_data):
    folders = ("rle", "jpegls", "j2k", "jpeg")
    at = real_data / "dicom" / "vendors" / "generic"
    stacks = [_frames(at / "compressed" / "001")]
    stacks += [_frames(at / f"compressed_{name}" / "001") for name in folders]
    for other in stacks[1:]:
        np.testing.assert_array_equal(other, stacks[0])
    assert stacks[0].std() > 50


def _frames(folder: Path) -> np.ndarray:
    return np.stack([values._decoded(pydicom.dcmread(path)) for path in sorted(folder.iterdir())])
