"""The list of damaged files, and what each one must give: the voxels of ``BASE``, or a refusal.

A module for each group of formats adds its files here when it is imported (see ``every``). A file
is made by this program from a sound one, with one fault. ``Fault.accepted`` is what the table in
docs/reference/damaged-files.md states.
"""

from __future__ import annotations

import functools
import operator
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BASE = (np.arange(24 * 20 * 16) % 4000).astype(np.int16).reshape(24, 20, 16)
MASK = (BASE % 5 == 0).astype(np.uint8)  # the voxels of a segmentation
BOX = np.zeros_like(MASK)  # those of a structure set
BOX[5:16, 4:13, 2:14] = 1
SPACING_MM = (2.0, 2.0, 3.0)
AFFINE = np.diag([*SPACING_MM, 1.0])
MB = 1 << 20
ONES, ADLER = 0xFFFFFFFF, 65521  # of the checksums of gzip and zlib


@dataclass(frozen=True)
class Fault:
    """A file with one fault.

    Args:
        form: the format, a heading of the table.
        what: what is wrong with it, or odd about it.
        name: of the file or folder.
        make: writes it at a path.
        accepted: read with the right values; else refused.
        reading: how it is read, "image", "picture", "pair", "array", "labels" (a list of
            names), "segments", "contours", "archive", or a key of ``records.READ``, maybe with "/"
            and the name of the file in its folder.
    """

    form: str
    what: str
    name: str
    make: Callable[[Path], None]
    accepted: bool = False
    reading: str = "image"


FAULTS: list[Fault] = []


def add(
    form: str,
    what: str,
    name: str,
    content: bytes | Callable[[Path], None],
    accepted: bool = False,
    reading: str = "image",
) -> None:
    """Add a file; ``content`` is its bytes, or writes it."""

    def write(path: Path) -> None:
        path.write_bytes(content)  # type: ignore[arg-type]

    make = content if callable(content) else write
    number = sum(one.form == form for one in FAULTS)
    FAULTS.append(Fault(form, what, f"{number:02d}_{name}", make, accepted, reading))


def edited(data: bytes, *edits: tuple[int, str, *tuple[float, ...]], order: str = "<") -> bytes:
    """``data`` with values packed at places: (offset, format of ``struct``, values)."""
    out = bytearray(data)
    for offset, form, *values in edits:
        struct.pack_into(order + form, out, offset, *values)
    return bytes(out)


def flipped(data: bytes, at: int) -> bytes:
    """``data`` with all bits of one byte changed."""
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


@functools.cache
def _bits_through_a_megabyte() -> tuple[int, ...]:
    """What each bit of the register of a CRC becomes by a megabyte of zeros."""
    return tuple(zlib.crc32(bytes(MB), (1 << n) ^ ONES) ^ ONES for n in range(32))


def crc_through_zeros(check: int, megabytes: int) -> int:
    """The CRC ``check`` continued by zeros, which are not read: the register is linear."""
    register = check ^ ONES
    for _ in range(megabytes):
        bits = (one for n, one in enumerate(_bits_through_a_megabyte()) if register >> n & 1)
        register = functools.reduce(operator.xor, bits, 0)
    return register ^ ONES


def inflating(head: bytes, megabytes: int, form: str = "gzip") -> bytes:
    """``head`` and zeros, compressed to a thousandth: "gzip", "zlib" or "deflate"."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers to earlier bytes, so that the block can be repeated.
    block = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = start + megabytes * block + packer.flush()
    if form == "deflate":
        return data
    if form == "zlib":
        low, high = zlib.adler32(head) & 0xFFFF, zlib.adler32(head) >> 16
        total = (high + megabytes * MB * low) % ADLER << 16 | low
        return b"\x78\xda" + data + struct.pack(">I", total)
    total = crc_through_zeros(zlib.crc32(head), megabytes)
    size = (len(head) + megabytes * MB) % 2**32
    return b"\x1f\x8b\x08" + bytes(7) + data + struct.pack("<2I", total, size)
