"""Compressed pixels as they are stored: fragments, tables of offsets, and the size in each stream.

A table that does not fit its fragments, another number of frames or another size than the header
states would give pixels of another frame, or of another place in it, without an error of the
decoder. Nothing is decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ....core.errors import FormatError

ITEM_TAG = struct.pack("<HH", 0xFFFE, 0xE000)  # of a fragment, PS3.5 A.4
STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff")  # of JPEG and JPEG-LS, and of JPEG 2000
# Markers of frame headers: ITU-T T.81 table B.1 without DHT, JPG and DAC, and T.87.
SIZES = (*(n for n in range(0xC0, 0xD0) if n not in (0xC4, 0xC8, 0xCC)), 0xF7)


def refuse_contradictions(dataset: Any, is_rle: bool) -> None:
    """Refuse encapsulated pixels whose tables, number of frames or size contradict the header.

    Raises:
        FormatError: they do.
    """
    content = bytes(dataset.get("PixelData") or b"")
    if not content:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    (_, begin, end), *fragments = [*items(content)] or [(0, 0, 0)]
    places = {at - end for at, _, _ in fragments}
    extended = bytes(dataset.get("ExtendedOffsetTable") or b"")
    for table in (_numbers(content[begin:end], "I"), _numbers(extended, "Q")):
        if table and (len(table) != count or table[0] or not _fits(table, places)):
            raise FormatError(
                f"the table of offsets ({len(table)} entries) does not fit {count} frame(s) in "
                f"{len(fragments)} fragments"
            )
    coded = [
        (a, min(b, len(content))) for _, a, b in fragments if is_rle or content[a : a + 3] in STARTS
    ]
    if (is_rle and len(coded) != count) or len(coded) > count:
        raise FormatError(f"{len(coded)} coded frames, but NumberOfFrames is {count}")
    if not is_rle:
        for begin, end in coded:
            _refuse_stream(dataset, content, begin, end)


def _refuse_stream(dataset: Any, content: bytes, begin: int, end: int) -> None:
    """Refuse a stream of another size or sign than the header states."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if _is_signed(content, begin, end) and not dataset.get("PixelRepresentation"):
        raise FormatError("coded are signed pixels, but PixelRepresentation is 0")
    size = _size_of(content, begin, end)
    if size is not None and size != (rows, columns):
        raise FormatError(
            f"coded are {size[1]}x{size[0]} pixels, but the header states {columns}x{rows}"
        )


def _numbers(raw: bytes, form: str) -> tuple[int, ...]:
    count = len(raw) // struct.calcsize(form)
    return struct.unpack_from(f"<{count}{form}", raw)


def _fits(table: tuple[int, ...], places: set[int]) -> bool:
    """Whether offsets rise, each to the beginning of a fragment."""
    return list(table) == sorted(set(table)) and places.issuperset(table)


def items(content: bytes) -> Iterator[tuple[int, int, int]]:
    """The place of each item of encapsulated pixels, and where its value begins and ends; the last
    one may end behind ``content``. The first item is the table of offsets.
    """
    at = 0
    while content[at : at + 4] == ITEM_TAG and at + 8 <= len(content):
        nbytes = int.from_bytes(content[at + 4 : at + 8], "little")
        yield at, at + 8, at + 8 + nbytes
        at += 8 + nbytes


def _is_signed(content: bytes, at: int, end: int) -> bool:
    """Whether a stream of JPEG 2000 states signed values (Ssiz, T.800 A.5.1); others cannot."""
    is_2000 = content[at : at + 4] == b"\xff\x4f\xff\x51"
    return is_2000 and at + 42 < end and content[at + 42] >= 0x80


def _size_of(content: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Rows and columns in the header of a stream; None if it has none that can be read."""
    if content[at : at + 2] == b"\xff\x4f":
        # SIZ is the first segment (T.800 A.5.1): marker, length, capabilities, extent, offset.
        if content[at + 2 : at + 4] != b"\xff\x51" or at + 24 > end:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", content, at + 8)
        return bottom - top, right - left
    at += 2
    while at + 9 <= end and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in SIZES:
            rows, columns = struct.unpack_from(">HH", content, at + 5)
            return (rows, columns) if rows else None  # DNL states the rows later
        at += 1 if marker == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
