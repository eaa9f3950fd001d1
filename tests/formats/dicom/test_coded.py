"""Streams written byte by byte from ITU-T T.81 and T.800: the size and the sign in their headers.

Whole files of the codecs are read in ``test_syntaxes``; there another process looks at them.
"""

from __future__ import annotations

import struct

import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate

from delineate.core.errors import FormatError
from delineate.formats.dicom.values.coded import items, refuse_contradictions

ROWS, COLUMNS = 5, 7


def jpeg(rows: int = ROWS, columns: int = COLUMNS, marker: int = 0xC3, fill: bytes = b"") -> bytes:
    """SOI, a comment, and a frame header (T.81 B.2.2) with one component of 8 bits."""
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 4) + b"\xff\xc3ab"
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, 8, rows, columns, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + comment + fill + frame + b"\xff\xd9"


def jpeg_2000(right: int, bottom: int, left: int = 0, top: int = 0, depth: int = 11) -> bytes:
    """SOC and SIZ (T.800 A.5.1) with one component; ``depth`` is Ssiz."""
    size = struct.pack(">HH8IH3B", 41, 0, right, bottom, left, top, 9, 9, 0, 0, 1, depth, 1, 1)
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


def check(
    *streams: bytes, is_rle: bool = False, frames: int | None = None, signed: int = 0
) -> None:
    one = Dataset()
    one.Rows, one.Columns, one.PixelRepresentation = ROWS, COLUMNS, signed
    one.NumberOfFrames = len(streams) if frames is None else frames
    one.PixelData = encapsulate(list(streams), has_bot=False) if streams else b""
    refuse_contradictions(one, is_rle)


@pytest.mark.parametrize(
    "stream",
    [
        jpeg(),
        jpeg(marker=0xC0),
        jpeg(marker=0xF7),  # JPEG-LS
        jpeg(fill=b"\xff\xff"),  # bytes of fill before a marker, T.81 B.1.1.2
        jpeg(rows=0),  # the number of rows follows the scan, T.81 B.2.5
        jpeg_2000(COLUMNS, ROWS),
        jpeg_2000(COLUMNS + 3, ROWS + 2, left=3, top=2),
    ],
)
def test_sizes_as_the_header_states_are_accepted(stream):
    check(stream)
    check(stream, stream)


@pytest.mark.parametrize(
    ("stream", "size"),
    [
        (jpeg(rows=6), "7x6"),
        (jpeg(columns=8, marker=0xC1), "8x5"),
        (jpeg(rows=7, columns=5, fill=b"\xff"), "5x7"),
        (jpeg(rows=300, marker=0xF7), "7x300"),
        (jpeg_2000(COLUMNS + 1, ROWS), "8x5"),
        (jpeg_2000(COLUMNS, ROWS, left=1, top=2), "6x3"),
    ],
)
def test_another_size_is_refused(stream, size):
    with pytest.raises(FormatError, match=f"^coded are {size} pixels, but the header states 7x5$"):
        check(jpeg(), stream)


def test_signed_values_of_unsigned_pixels_are_refused():
    signed = jpeg_2000(COLUMNS, ROWS, depth=0x80 | 11)
    check(signed, signed=1)
    with pytest.raises(
        FormatError, match=r"^coded are signed pixels, but PixelRepresentation is 0"
    ):
        check(signed)


@pytest.mark.parametrize(
    "stream",
    [
        b"\xff\xd8\xff\xd9",  # ends at once
        jpeg(marker=0xDA),  # a scan without a frame
        jpeg()[:14],  # ends before the frame
        b"\xff\x4f\xff\x52" + bytes(40),  # no SIZ behind SOC
        jpeg_2000(9, 9)[:16],  # ends inside SIZ
    ],
)
def test_streams_without_a_size_are_left_to_the_decoder(stream):
    check(stream)


def test_frames_are_counted_unless_a_stream_begins_in_several_fragments():
    check()
    check(jpeg(), b"\x01\x02\x03\x04", frames=1)
    check(jpeg(), frames=2)  # fewer may be a stream of several frames
    with pytest.raises(FormatError, match=r"^2 coded frames, but NumberOfFrames is 1$"):
        check(jpeg(), jpeg(), frames=1)
    check(bytes(64), is_rle=True)
    with pytest.raises(FormatError, match=r"^1 coded frames, but NumberOfFrames is 2$"):
        check(bytes(64), is_rle=True, frames=2)


def test_the_last_item_may_end_behind_the_content():
    content = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" + b"\xfe\xff\x00\xe0\x10\x00\x00\x00" + b"ab"
    assert [*items(content)] == [(0, 8, 8), (8, 16, 32)]
    assert [*items(b"ab")] == []
