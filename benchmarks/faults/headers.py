"""Mutants of image files, field by field: the fuzzer's ``--kind structure`` of headers.

A header of fixed places (NIfTI, Analyze, MGH, BMP, GIF, NumPy's first bytes), a list (tags of TIFF,
chunks of PNG, segments of JPEG, members of .npz) or a text (NRRD, MetaImage, the dictionary of
NumPy) is divided into its fields. A few get another value that fits them, so that what reads the
values is reached, and not only what checks the beginning. Packed pixels of PNG are changed before
they are packed.
"""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

INTEGERS = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 20, 24, 64, 127, 128, 255, 256, 512, 1024, 2304, 32767)
INTEGERS += (-32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1)
REALS = (0.0, 1.0, -1.0, 2.0, 0.5, 1e-30, 1e30, 352.0, float("nan"), float("inf"), -float("inf"))
WORDS = (
    *("", "0", "1", "-1", "2", "3", "4", "3 4 5", "1 2 3 4", "1 0 0 0 1 0 0 0 1", "nan", "inf"),
    *("1e308", "1e-300", "9" * 30, "true", "false", "none", "none none none", "(1,0,0)", "(0,0,0)"),
    *("(1,0,0) (0,1,0) (0,0,1)", "(nan,0,0)", "short", "float", "uint8", "block", "MET_UCHAR"),
    *("MET_FLOAT", "LOCAL", "LIST", "a%d.raw 1 3 1", "../x", "gzip", "raw", "text", "bzip2", "big"),
    *("domain", "vector", "time", "complex", "RAS", "LPS", "scanner-xyz-time", "x" * 3000, '"um"'),
)
PNG = b"\x89PNG\r\n\x1a\n"
TIFFS = (b"II*\0", b"MM\0*")
NUMPY = b"\x93NUMPY"
# Offset and format of each field (nifti1.h, nifti2.h, FreeSurfer's mgh, BMP, GIF89a).
NIFTI = [
    *((40 + 2 * n, "h") for n in range(8)),
    *((76 + 4 * n, "f") for n in range(8)),
    *((0, "i"), (68, "h"), (70, "h"), (72, "h"), (108, "f"), (112, "f"), (116, "f"), (123, "b")),
    *((252, "h"), (254, "h")),
    *((256 + 4 * n, "f") for n in range(18)),
    *((344, "b"), (345, "b"), (348, "b"), (352, "i"), (356, "i")),
]
NIFTI_2 = [
    *((16 + 8 * n, "q") for n in range(8)),
    *((104 + 8 * n, "d") for n in range(8)),
    *((12, "h"), (14, "h"), (168, "q"), (176, "d"), (184, "d"), (344, "i"), (348, "i")),
    *((352 + 8 * n, "d") for n in range(18)),
    *((500, "i"), (504, "i"), (540, "b"), (544, "i")),
]
MGH = [
    *((4 * n, "i") for n in range(7)),
    (28, "h"),
    *((30 + 4 * n, "f") for n in range(15)),
]
BMP = [(10, "i"), (14, "i"), (18, "i"), (22, "i"), (26, "h"), (28, "h"), (30, "i"), (46, "i")]
GIF = [(6, "h"), (8, "h"), (10, "b"), (11, "b"), (12, "b")]
Fields = Sequence[tuple[int, str]]


def mutant(data: bytes, chance: random.Random) -> bytes | None:
    """The file with a few fields changed; None if it is of none of these formats."""
    for divides, change in FORMS:
        if divides(data):
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                with suppress(struct.error, ValueError, IndexError, zlib.error):
                    data = change(data, chance) or data
            return data
    return None


# ---- fields at fixed places ----


def _fields(fields: Fields, order: str) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, chance: random.Random) -> bytes:
        offset, form = chance.choice(fields)
        out = bytearray(data)
        struct.pack_into(order + form, out, offset, _number(form, chance))
        return bytes(out)

    return change


def _number(form: str, chance: random.Random) -> float:
    if form in "fd":
        return chance.choice(REALS)
    size = 8 * struct.calcsize(form)
    return (chance.choice(INTEGERS) + (1 << size - 1)) % (1 << size) - (1 << size - 1)


# ---- lists ----


def _png(data: bytes, chance: random.Random) -> bytes:
    """A chunk changed, removed, doubled or moved; checksums are right."""
    chunks, at = [], len(PNG)
    while at + 12 <= len(data):
        nbytes = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + nbytes]))
        at += 12 + nbytes
    n = chance.randrange(len(chunks))
    name, content = chunks[n]
    what = chance.randrange(8)
    if what == 0:
        del chunks[n]
    elif what == 1:
        chunks.insert(chance.randrange(len(chunks)), chunks[n])
    elif what == 2:
        chunks.insert(chance.randrange(len(chunks)), chunks.pop(n))
    elif what == 3:
        name = chance.choice(
            (b"PLTE", b"tRNS", b"eXIf", b"iTXt", b"zTXt", b"acTL", b"fdAT", b"IDAT")
        )
        chunks.insert(n, (name, chance.randbytes(chance.choice((0, 1, 3, 40)))))
    elif name == b"IHDR" and len(content) == 13:
        at = chance.randrange(4, 13)
        values = (0, 1, 2, 3, 4, 6, 8, 16, 24, 20, 255)
        chunks[n] = name, content[:at] + bytes([chance.choice(values)]) + content[at + 1 :]
    elif name == b"IDAT":
        pixels = bytearray(zlib.decompress(content))
        for _ in range(chance.choice((1, 4, 20))):
            pixels[chance.randrange(len(pixels))] = chance.randrange(256)
        cut = chance.choice((len(pixels), len(pixels), chance.randrange(len(pixels))))
        chunks[n] = name, zlib.compress(bytes(pixels[:cut]), 1)
    elif content:
        at = chance.randrange(len(content))
        chunks[n] = name, content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    return PNG + b"".join(
        struct.pack(">I", len(one)) + tag + one + struct.pack(">I", zlib.crc32(tag + one))
        for tag, one in chunks
    )


def _tiff(data: bytes, chance: random.Random) -> bytes:
    """Type, count or value of a tag of the first page (TIFF 6.0, section 2)."""
    order = "<" if data[:1] == b"I" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    one = at + 2 + 12 * chance.randrange(count)
    out = bytearray(data)
    what = chance.randrange(6)
    tag, form, length = struct.unpack_from(order + "HHI", data, one)
    if what == 0:
        struct.pack_into(
            order + "H", out, one + 2, chance.choice((0, 1, 2, 3, 4, 5, 7, 12, 13, 99))
        )
    elif what == 1:
        struct.pack_into(order + "I", out, one + 4, chance.choice((0, 1, 2, 3, length + 1, 2**31)))
    elif what == 2:
        tags = (256, 258, 259, 262, 274, 277, 284, 317, 320, 322, 323, 338, 339, 347, 270, 330, tag)
        struct.pack_into(order + "H", out, one, chance.choice(tags))
    elif what == 3:
        struct.pack_into(order + "I", out, at + 2 + 12 * count, chance.choice((at, 8, 2**31, 9)))
    else:
        value = chance.choice((*INTEGERS, 5, 6, 7, 9, 34892, 8, 50000, 32773, 32946, 34925))
        size, kind = (2, "H") if form == 3 else (4, "I")
        struct.pack_into(order + kind, out, one + 8, value % (1 << 8 * size))
    return bytes(out)


def _jpeg(data: bytes, chance: random.Random) -> bytes:
    """A byte of the head of a segment, or a segment removed or doubled."""
    places, at = [], 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:
        nbytes = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        places.append((at, nbytes))
        at += nbytes
    begin, nbytes = chance.choice(places)
    what = chance.randrange(6)
    if what == 0:
        return data[:begin] + data[begin + nbytes :]
    if what == 1:
        return data[:begin] + data[begin : begin + nbytes] * 2 + data[begin + nbytes :]
    at = begin + chance.randrange(1, min(nbytes, 20))
    return data[:at] + bytes([chance.choice((0, 1, 2, 3, 8, 255, 192, 194, 195))]) + data[at + 1 :]


def _archive(data: bytes, chance: random.Random) -> bytes | None:
    """One member of an archive changed, and packed again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as found:
            members = [(one, found.read(one)) for one in found.namelist()]
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError):
        return None
    n = chance.randrange(len(members))
    name, content = members[n]
    what = chance.randrange(6)
    if what == 0:
        members[n] = chance.choice(("a", "a.npy", "voxels.npy", "../a.npy", "")), content
    elif what == 1:
        del members[n]
    elif changed := _numpy(content, chance):
        members[n] = name, changed
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", chance.choice((0, zipfile.ZIP_DEFLATED))) as made:
        for one in members:
            made.writestr(*one)
    return out.getvalue()


# ---- texts ----


def _numpy(data: bytes, chance: random.Random) -> bytes:
    """A value in the dictionary of an array; its length is right."""
    start = 10 if data[6:7] == b"\1" else 12
    end = start + int.from_bytes(data[8:start], "little")
    text = data[start:end].decode("latin-1")
    found = chance.choice(list(re.finditer(r"'[^']*'|\d+|True|False|\(|\)|,", text)))
    words = ("'<i2'", "'>f8'", "'|O'", "'<c8'", "'|S3'", "'|V2'", "'<M8[s]'", "'|b1'", "True", "0")
    words += ("-1", "24", "2", str(2**40), "()", "None", "'shape'", "'descr'", "[('a','<i2')]", "")
    text = text[: found.start()] + chance.choice(words) + text[found.end() :]
    head = text.encode("latin-1")
    return data[:8] + len(head).to_bytes(start - 8, "little") + head + data[end:]


def _lines(data: bytes, chance: random.Random) -> bytes:
    """A line of NRRD or MetaImage: its value, one of its numbers, its name, or its place."""
    is_nrrd = data[:4] == b"NRRD"
    end = data.find(b"\n\n") if is_nrrd else data.find(b"\n", data.find(b"ElementDataFile"))
    end = len(data) if end < 0 else end
    lines = data[:end].decode("latin-1").split("\n")
    n, mark = chance.randrange(len(lines)), ":" if is_nrrd else "="
    name, _, value = lines[n].partition(mark)
    what = chance.randrange(9)
    if what < 3:
        lines[n] = f"{name}{mark} {chance.choice(WORDS)}"
    elif what < 6:
        words = value.split() or [""]
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        lines[n] = f"{name}{mark} {' '.join(words)}"
    elif what == 6:
        del lines[n]
    elif what == 7:
        lines.insert(chance.randrange(1, len(lines) + 1), lines[n])
    else:
        lines[n] = f"{chance.choice(lines).partition(mark)[0]}{mark}{value}"
    return "\n".join(lines).encode("latin-1", "replace") + data[end:]


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(magics)


FORMS: tuple[
    tuple[Callable[[bytes], bool], Callable[[bytes, random.Random], bytes | None]], ...
] = (
    (_starts(struct.pack("<i", 348)), _fields(NIFTI, "<")),
    (_starts(struct.pack(">i", 348)), _fields(NIFTI, ">")),
    (_starts(struct.pack("<i", 540)), _fields(NIFTI_2, "<")),
    (_starts(struct.pack(">i", 1)), _fields(MGH, ">")),
    (_starts(b"BM"), _fields(BMP, "<")),
    (_starts(b"GIF8"), _fields(GIF, "<")),
    (_starts(PNG), _png),
    (_starts(*TIFFS), _tiff),
    (_starts(b"\xff\xd8\xff"), _jpeg),
    (_starts(NUMPY), _numpy),
    (_starts(b"PK"), _archive),
    (lambda data: data[:4] == b"NRRD" or b"ElementDataFile" in data[:4096], _lines),
)
