"""What is stored with pixels and is none: bytes behind the last one, and comments in compressed
frames. Every pixel stays as it is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

from ..values.coded import items
from ..values.read import RLE

_SOI, _SOC, _SOS, _SOT, _EOI = b"\xff\xd8", b"\xff\x4f", 0xDA, 0x90, b"\xff\xd9"
_COMMENT, _COMMENT_2000 = 0xFE, 0x64  # of JPEG and JPEG-LS, and of JPEG 2000
RLE_HEAD, NOTHING = 64, b"\x80"  # bytes of the header of a frame; a run of no byte
_APP = range(0xE0, 0xF0)
# Segments of applications that say how colours are to be read: JFIF, SPIFF and HP, Adobe.
_COLOURS = (0xE0, 0xE8, 0xEE)
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def without_rest(dataset: Any) -> None:
    """Cut off what follows the pixels, and set comments and other texts in compressed frames to 0,
    in place; the lengths of compressed frames stay.
    """
    if "PixelData" not in dataset:
        return
    content = bytes(dataset.PixelData or b"")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        found = _blanked(content, syntax == RLE, dataset)
    else:
        nbytes = _nbytes(dataset)
        found = content[: nbytes + nbytes % 2] if 0 < nbytes < len(content) else content
        if len(found) > nbytes > 0:
            found = found[:nbytes] + bytes(len(found) - nbytes)
    if found != content:
        dataset.PixelData = found


def _nbytes(dataset: Any) -> int:
    """The bytes of all pixels that are not compressed; 0 if they are not known."""
    counts = [int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")]
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if "422" in str(dataset.get("PhotometricInterpretation") or ""):
        samples = 2  # two colours for each pair of pixels
    return -(-counts[0] * counts[1] * counts[2] * samples * frames // 8)


def _blanked(content: bytes, is_rle: bool, dataset: Any) -> bytes:
    found, fragments = bytearray(content), list(_fragments(content))
    plane = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
    # Each frame with RLE is one fragment; others are not known from pixels.
    if is_rle and len(fragments) != int(dataset.get("NumberOfFrames") or 1):
        return content
    for start, end in fragments:
        if is_rle:
            for low, high in _rest_of_segments(content, start, end, plane):
                blank = b"\0" if low < start + RLE_HEAD else NOTHING
                found[low:high] = blank * (high - low)
        else:
            for low, high in _texts(content, start, end):
                found[low:high] = bytes(high - low)
    return bytes(found)


def _rest_of_segments(
    content: bytes, start: int, end: int, plane: int
) -> Iterator[tuple[int, int]]:
    """The bytes of a fragment with RLE (PS3.5, annex G) that are no part of a segment: those
    of its header behind the offsets, and those between and behind the segments, which have a byte
    for each of the ``plane`` pixels.
    """
    if end - start < RLE_HEAD:
        return
    count, *offsets = struct.unpack_from("<16I", content, start)
    offsets = sorted(offset for offset in offsets[:count] if RLE_HEAD <= offset < end - start)
    yield start + 4 * min(1 + count, 16), start + RLE_HEAD
    at = start + RLE_HEAD
    for offset, after in pairwise([*offsets, end - start]):
        yield at, start + offset
        at = _end_of_segment(content, start + offset, start + after, plane)
    yield at, end


def _end_of_segment(content: bytes, at: int, end: int, plane: int) -> int:
    """Where the runs of a segment end that give ``plane`` bytes."""
    left = plane
    while left > 0 and at < end:
        head = content[at]
        if head < 128:
            at, left = at + 2 + head, left - head - 1
        elif head > 128:
            at, left = at + 2, left + head - 257
        else:  # nothing
            at += 1
    return min(at, end)


def _fragments(content: bytes) -> Iterator[tuple[int, int]]:
    """Where each whole fragment begins and ends."""
    for _, start, end in islice(items(content), 1, None):
        if end <= len(content):
            yield start, end


def _texts(content: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The bytes of a fragment that are no part of an image: comments and segments of applications
    in front of the image, and what follows its end.

    Source: ITU-T T.81, annex B; T.87, annex C; T.800, annex A.
    """
    first = content[start : start + 2]
    if first not in (_SOI, _SOC):
        return
    at = start + 2
    while at + 4 <= end and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (_SOS, _SOT):
            last = content.rfind(_EOI, at, end)
            if last >= 0:
                yield last + 2, end
            return
        stop = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if first == _SOI and (marker == _COMMENT or (marker in _APP and marker not in _COLOURS)):
            yield at + 4, min(stop, end)
        elif first == _SOC and marker == _COMMENT_2000:
            yield at + 6, min(stop, end)
        at = stop
