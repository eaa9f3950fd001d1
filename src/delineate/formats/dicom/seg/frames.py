"""The pixels of a Segmentation object, frame by frame, so that memory holds one frame at a time.

Pixels that are not compressed are read from their place in the file: bits run on from one frame to
the next without padding (PS3.5 8.1.1). RLE is decoded here, other syntaxes in a child process
(``formats.apart``). Palettes are not applied: a pixel of a label map is the number of its segment.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError
from ....core.inputs import refuse_large
from ....extras import require_extra
from ... import apart, archive
from ...disk import told
from ..header.elements import AFTER_PIXELS
from ..header.file import lenient, open_dataset
from ..values import DECODERS
from ..values.coded import ITEM_TAG, STARTS
from .header import SegHeader

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
RLE, DEFLATED_FRAMES = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"
MOST_PADDING = 16  # bytes behind the last frame
CHUNK_BYTES = 64 << 20  # of frames that the child decodes in one call


def frames(header: SegHeader) -> Iterator[NDArray[Any]]:
    """Yield the stored pixels of each frame, (rows, columns) uint8 or uint16; bits as 0 and 1.

    Raises:
        FormatError: truncated pixels, or ones that cannot be decoded.
    """
    with told(header.path, "DICOM SEG"):
        if header.syntax == BIG_ENDIAN:
            raise FormatError("a segmentation with bytes in big-endian order")
        if _is_encapsulated(header):
            _refuse_more(header)
        if header.syntax == DEFLATED_FRAMES:
            found = _inflated(header)
        elif not _is_encapsulated(header):
            found = _plain(header)
        elif header.syntax == RLE:
            found = _decoded(header.path, "pydicom", range(header.frames))
        else:
            found = _in_child(header)
        shape, count = (header.rows, header.columns), 0
        for frame in found:
            if frame.shape != shape:
                raise FormatError(f"a frame of shape {frame.shape}, but {shape} is stated")
            count += 1
            yield frame
        if count < header.frames:
            raise FormatError(f"{header.frames} frames are stated, but {count} are stored")


def _is_encapsulated(header: SegHeader) -> bool:
    """Whether pixels are in fragments; pydicom does not know all syntaxes."""
    from pydicom.uid import UID

    return header.syntax == DEFLATED_FRAMES or UID(header.syntax).is_encapsulated


def _plain(header: SegHeader) -> Iterator[NDArray[Any]]:
    """The frames of pixels that are not compressed."""
    pixels, bits = header.rows * header.columns, header.bits
    if bits not in (1, 8, 16):
        raise FormatError(f"{bits} bits for each pixel; allowed are 1, 8 and 16")
    source = _Bytes.of(header)
    needed = math.ceil(header.frames * pixels * bits / 8)
    if source.length < needed:
        raise FormatError(
            f"truncated: {header.frames} frames need {needed} bytes of pixels, found "
            f"{source.length}"
        )
    if source.length - needed >= max(pixels * bits // 8, MOST_PADDING):
        raise FormatError(
            f"{header.frames} frames of {header.rows} x {header.columns} pixels have {needed} "
            f"bytes, but there are {source.length}"
        )
    for n in range(header.frames):
        first, last = n * pixels * bits, (n + 1) * pixels * bits
        yield _unpacked(source.read(first // 8, math.ceil(last / 8)), header, first % 8)


def spare_bytes(header: SegHeader) -> tuple[str, ...]:
    """A sentence about bytes of pixels that are not compressed behind the last frame."""
    if _is_encapsulated(header):
        return ()
    source, pixels = _Bytes.of(header), header.rows * header.columns
    needed = math.ceil(header.frames * pixels * header.bits / 8)
    inside, behind = source.length - needed - needed % 2, source.behind
    if inside <= 0 and not behind:
        return ()
    where = "the last frame" if inside > 0 else "the element with the pixels"
    return (f"{max(inside, 0) or behind} bytes follow {where}, which are not read",)


def _refuse_more(header: SegHeader) -> None:
    """Refuse more coded frames than the header states.

    Raises:
        FormatError: there are.
    """
    is_one_each, count = header.syntax in (RLE, DEFLATED_FRAMES), 0
    with archive.opened(header.path) as file:
        file.seek(header.begin + 12)
        at, is_table = header.begin + 12, True
        while (head := file.read(11))[:4] == ITEM_TAG and len(head) > 7:
            count += not is_table and (is_one_each or head[8:] in STARTS)
            is_table = False
            at += 8 + int.from_bytes(head[4:8], "little")
            file.seek(at)
    if count > header.frames:
        raise FormatError(f"{count} coded frames, but NumberOfFrames is {header.frames}")


def _unpacked(raw: bytes, header: SegHeader, skipped: int = 0) -> NDArray[Any]:
    """The pixels of one frame; of bits, the first ``skipped`` belong to the frame before."""
    shape = header.rows, header.columns
    if header.bits == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        return bits[skipped:][: math.prod(shape)].reshape(shape)
    return np.frombuffer(raw, "<u2" if header.bits == 16 else np.uint8).reshape(shape)


class _Bytes:
    """The value of the element with the pixels: in the file, or unpacked in memory."""

    def __init__(
        self, path: Path, begin: int, length: int, held: bytes = b"", behind: int = 0
    ) -> None:
        self._path, self._begin, self.length, self._held = path, begin, length, held
        self.behind = behind  # bytes of the file behind the element
        self._files = ExitStack()
        self._file = None if held else self._files.enter_context(archive.opened(path))

    @classmethod
    def of(cls, header: SegHeader) -> _Bytes:
        if not header.begin:  # the whole file is deflated
            held = open_dataset(header.path).PixelData
            return cls(header.path, 0, len(held), held)
        with archive.opened(header.path) as file:
            file.seek(header.begin)
            head = file.read(12)
            size = archive.nbytes_of(file, header.path)
            # Tag, then the length; or tag, value representation, two reserved bytes and the length.
            at = 4 if header.syntax == IMPLICIT else 8
            length = int.from_bytes(head[at : at + 4], "little")
            begin = header.begin + at + 4
            behind = max(0, size - begin - length) if size is not None else 0
            if behind:
                file.seek(begin + length)
                behind = 0 if file.read(4) in AFTER_PIXELS else behind
        if head[:4] != b"\xe0\x7f\x10\x00":
            raise FormatError("has no pixel data")
        held = length if size is None else min(length, size - begin)
        return cls(header.path, begin, held, behind=behind)

    def read(self, first: int, last: int) -> bytes:
        if self._file is None:
            return self._held[first:last]
        self._file.seek(self._begin + first)
        return self._file.read(last - first)


def _inflated(header: SegHeader) -> Iterator[NDArray[Any]]:
    """The frames of Deflated Image Frame Compression (PS3.5 A.4), which pydicom does not know."""
    from pydicom.encaps import generate_frames

    nbytes = math.ceil(header.rows * header.columns * header.bits / 8)
    with archive.opened(header.path) as file:
        file.seek(header.begin + 12)
        for frame in generate_frames(file, number_of_frames=header.frames):
            # One byte more shows that a frame is longer than stated.
            raw = zlib.decompressobj(-15).decompress(frame, nbytes + 1)
            if not nbytes <= len(raw) <= nbytes + 1:
                raise FormatError(f"a frame of {len(raw)} bytes, but {nbytes} are stated")
            yield _unpacked(raw[:nbytes], header)


def _in_child(header: SegHeader) -> Iterator[NDArray[Any]]:
    """The frames of other syntaxes. Damaged data can crash a codec, so it runs in a child process,
    for a few frames in each call.
    """
    nbytes = header.rows * header.columns * (2 if header.bits == 16 else 1)
    refuse_large(header.frames * nbytes, archive.size_of(header.path))
    step = max(1, CHUNK_BYTES // nbytes)
    for first in range(0, header.frames, step):
        last = min(first + step, header.frames)
        arguments = (str(header.path), first, last)
        found = apart.call("dicom.seg.frames:decoded", *arguments, nbytes=(last - first) * nbytes)
        yield from found[1][0]


def decoded(path: str, first: int, last: int) -> apart.Found:
    """The frames ``first`` to (excluding) ``last`` of a file, for ``apart.call``.

    Raises:
        UsageError: the extra with the decoders is not installed.
        FormatError: no decoder can read them.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    with lenient(path, "DICOM SEG"):
        syntax = UID(str(open_dataset(path, specific_tags=[]).file_meta.TransferSyntaxUID))
        try:
            plugins = sorted(get_decoder(syntax).available_plugins, key=DECODERS.index)
        except NotImplementedError:
            raise FormatError(f"the syntax {syntax.name} is not supported") from None
        why = ""
        for plugin in plugins:
            # The decoders are plug-ins with exceptions of their own.
            try:
                return {}, [np.stack(list(_decoded(path, plugin, range(first, last))))]
            except Exception as error:
                why = why or str(error).strip().splitlines()[0][:150]
        require_extra("dicom", syntax.name)
        raise FormatError(f"the pixels cannot be decoded ({syntax.name}): {why}")


def _decoded(path: str | Path, plugin: str, which: range) -> Iterator[NDArray[Any]]:
    """Frames by one of pydicom's decoders, read one by one from the file."""
    from pydicom.pixels.utils import iter_pixels

    with archive.opened(path) as file:
        readable: Any = file
        yield from iter_pixels(readable, indices=which, raw=True, decoding_plugin=plugin)
