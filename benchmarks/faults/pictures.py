"""Damaged PNG, JPEG, TIFF, GIF and BMP files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from .made import MB, add, edited, flipped, inflating

Content = bytes | Callable[[Path], object]
SIDE = 46_000  # of a picture of 2.1 GB
PIXELS = np.add.outer(3 * np.arange(30), 4 * np.arange(40)).astype(np.uint8)  # rows, columns


def _saved(kind: str, **more: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind, **more)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def _png(width: int, height: int, packed: bytes, depth: int = 8, colour: int = 0) -> bytes:
    size = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    parts = [_chunk(b"IHDR", size), _chunk(b"IDAT", packed), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _rows(pixels: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def _zeros() -> bytes:
    """The rows of a PNG, or the strip of a TIFF, packed."""
    return inflating(b"", SIDE * (SIDE + 1) // MB + 1, "zlib")


def _png_files() -> None:
    sound = _saved("PNG")

    def put(what: str, data: Content, accepted: bool = False) -> None:
        add("PNG", what, "a.png", data, accepted, "picture")

    put("sound", sound, True)
    put("the magic number alone", sound[:8])
    put("cut in the header", sound[:20])
    put("cut in the middle", sound[: len(sound) // 2])
    put("cut before its end", sound[:-30])
    put("a changed byte of the pixels", flipped(sound, len(sound) // 2))
    put("a wrong checksum of the header", flipped(sound, 29))
    put("width 0", _png(0, 30, _rows(PIXELS)))
    put("width 2 147 483 647", _png(2**31 - 1, 30, _rows(PIXELS)))
    put("sizes of 2 147 483 647", _png(2**31 - 1, 2**31 - 1, _rows(PIXELS)))
    put("more rows than pixels", _png(40, 60, _rows(PIXELS)))
    put("16-bit colours, of which half would be lost", _png(10, 30, _rows(PIXELS), 16, 2))
    put("a depth of 3 bits", _png(40, 30, _rows(PIXELS), 3))
    put("an unknown kind of colours", _png(40, 30, _rows(PIXELS), 8, 5))
    put("a palette that is missing", _png(40, 30, _rows(PIXELS), 8, 3))
    put("no pixels", _png(40, 30, b""))
    put("a chunk of 2 GB", sound[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(100))
    put("2 MB that unpack to 2.1 GB", lambda path: path.write_bytes(_png(SIDE, SIDE, _zeros())))

    def long_text(path: Path) -> None:
        text = _chunk(b"zTXt", b"delineate_labels\0\0" + inflating(b"", 500, "zlib"))
        path.write_bytes(sound[:33] + text + sound[33:])

    put("a text of 500 MB", long_text)


def _jpeg_files() -> None:
    sound = _saved("JPEG", quality=95)
    sizes = sound.index(b"\xff\xc0") + 5

    def put(what: str, data: bytes, accepted: bool = False) -> None:
        add("JPEG", what, "a.jpg", data, accepted, "picture")

    put("sound", sound, True)
    put("the magic number alone", sound[:4])
    put("cut in the header", sound[: sizes - 3])
    put("cut in the middle", sound[: len(sound) // 2])
    put("width 0", edited(sound, (sizes + 2, "H", 0), order=">"))
    put("sizes of 65535 in a file of 1 kB", edited(sound, (sizes, "2H", 65535, 65535), order=">"))
    put("17 components", edited(sound, (sizes + 4, "B", 17)))
    put("no tables", sound.replace(b"\xff\xdb", b"\xff\xfe"))
    put(
        "EXIF that is cut",
        b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM\0\x2a\xff\xff\xff\xff" + sound[2:500],
    )


def _tiff(*arrays: np.ndarray, **more: object) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        for one in arrays:
            file.write(one, **more)
    return out.getvalue()


def _tiff_files() -> None:
    sound = _tiff(PIXELS)

    def put(what: str, data: Content, accepted: bool = False) -> None:
        add("TIFF", what, "a.tif", data, accepted, "picture")

    def tag(code: int, *values: int, kind: str = "I", of: bytes = sound) -> bytes:
        """A TIFF with the value of a tag (its first number) changed."""
        where = of.index(struct.pack("<H", code), struct.unpack_from("<I", of, 4)[0] + 2)
        return edited(of, (where + 8, kind, *values))

    put("sound", sound, True)
    put("sound, packed", _tiff(PIXELS, compression="zlib"), True)
    put("the magic number alone", sound[:4])
    put("no first page", edited(sound, (4, "I", 0)))
    put("a first page beyond the end", edited(sound, (4, "I", 10**9)))
    circle = _circle(_tiff(PIXELS, PIXELS))
    put("pages in a circle", circle)
    unknown = tag(262, 960_051_457, of=circle)  # the kind of colours of the first page
    at = unknown.index(struct.pack("<H", 270), 8)
    put("pages in a circle, of unknown colours", edited(unknown, (at, "H", 313)))
    put("cut in the middle of the pixels", sound[:-600])
    put("60 000 tags", edited(sound, (struct.unpack_from("<I", sound, 4)[0], "H", 60_000)))
    put("width 0", tag(256, 0))
    put("width 4 294 967 295", tag(256, 2**32 - 1))
    put("sizes of 60 000 in a file of 1 kB", tag(256, 60_000, of=tag(257, 60_000)))
    put("more rows than pixels", tag(257, 3000))
    put("7 bits a pixel of an unknown kind", tag(258, 7, kind="H"))
    put("an unknown compression", tag(259, 12345, kind="H"))
    put("pixels beyond the end", tag(273, 10**9))
    put("pages of different sizes", _tiff(PIXELS, PIXELS[:20]))
    put("complex pixels", _tiff(PIXELS.astype(np.complex64)))
    put("packed pixels that are cut", _tiff(PIXELS, compression="zlib")[:-300])
    put("2 MB that unpack to 2.1 GB", _tiff_bomb)


def _tiff_bomb(path: Path) -> None:
    """One strip of ``_zeros``, whose size and rows are stated afterwards."""
    small = _tiff(np.zeros((7, 7), np.uint8), compression="zlib", rowsperstrip=7)
    packed = _zeros()
    first = struct.unpack_from("<I", small, 4)[0]
    for code, value in (
        (256, SIDE),
        (257, SIDE),
        (273, len(small)),
        (278, SIDE),
        (279, len(packed)),
    ):
        where = small.index(struct.pack("<H", code), first + 2)
        small = edited(small, (where + 2, "H", 4), (where + 8, "I", value))
    path.write_bytes(small + packed)


def _circle(data: bytes) -> bytes:
    """Two pages, the second of which names the first as the next."""
    first = struct.unpack_from("<I", data, 4)[0]
    second = _next(data, first)
    count = struct.unpack_from("<H", data, second)[0]
    return edited(data, (second + 2 + 12 * count, "I", first))


def _next(data: bytes, page: int) -> int:
    count = struct.unpack_from("<H", data, page)[0]
    return int(struct.unpack_from("<I", data, page + 2 + 12 * count)[0])


def _others() -> None:
    for kind, cuts in (("GIF", (7, 400)), ("BMP", (20, 900))):
        sound = _saved(kind)
        name = f"a.{kind.lower()}"
        add(kind, "sound", name, sound, True, "picture")
        for cut in cuts:
            add(kind, f"cut after {cut} bytes", name, sound[:cut], False, "picture")
    add(
        "GIF",
        "sizes of 65535",
        "a.gif",
        edited(_saved("GIF"), (6, "2H", 65535, 65535)),
        False,
        "picture",
    )
    frames: Sequence[Image.Image] = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    add("GIF", "two frames", "a.gif", out.getvalue(), False, "picture")
    huge = edited(_saved("BMP"), (18, "2i", 2**30, 2**30))
    add("BMP", "sizes of 1 073 741 824", "a.bmp", huge, False, "picture")


_png_files()
_jpeg_files()
_tiff_files()
_others()
