"""Damaged NRRD and MetaImage files."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path

from .made import BASE, add, flipped, inflating

VOXELS = BASE.tobytes(order="F")
Names = dict[str, str | None]


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _nrrd_head(**changes: str | None) -> bytes:
    """The header of ``BASE``; a change replaces a field, None removes it."""
    fields: Names = {
        "type": "short",
        "dimension": "3",
        "space": "right-anterior-superior",
        "sizes": "24 20 16",
        "space directions": "(2,0,0) (0,2,0) (0,0,3)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    }
    fields |= {name.replace("_", " "): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\n".join(["NRRD0004", *lines]).encode() + b"\n\n"


def _nrrd(what: str, accepted: bool = False, data: bytes = VOXELS, **changes: str | None) -> None:
    add("NRRD", what, "a.nrrd", _nrrd_head(**changes) + data, accepted)


def _nrrd_bomb(path: Path) -> None:
    head = _nrrd_head(encoding="gzip", type="uchar", sizes="1024 1024 2000")
    path.write_bytes(head + inflating(b"", 2000))


def _nrrd_files() -> None:
    packed = gzip.compress(VOXELS)
    _nrrd("sound", True)
    _nrrd("sound, gzip", True, packed, encoding="gzip")
    _nrrd("sound, bzip2", True, bz2.compress(VOXELS), encoding="bzip2")
    text = " ".join(map(str, BASE.ravel(order="F"))).encode()
    _nrrd("sound, text", True, text, encoding="ascii")
    _nrrd("sound, the voxels at the end (byte skip -1)", True, b"x" * 100 + VOXELS, byte_skip="-1")
    _nrrd("sound, a line skipped", True, b"some words\n" + VOXELS, line_skip="1")
    _nrrd("no sizes", sizes=None)
    _nrrd("no type", type=None)
    _nrrd("no encoding", encoding=None)
    _nrrd("no byte order for voxels of 2 bytes", endian=None)
    _nrrd("an unknown type", type="quadruple")
    _nrrd("blocks of bytes as voxels", type="block")
    _nrrd("an unknown encoding", encoding="rar")
    _nrrd("an unknown byte order", endian="middle")
    _nrrd("a size of 0", sizes="24 0 16")
    _nrrd("a negative size", sizes="-24 20 16")
    _nrrd("a size that is no number", sizes="24 20 x")
    _nrrd("sizes of 2 147 483 647", sizes=" ".join(["2147483647"] * 3))
    _nrrd("a size of 30 digits", sizes=f"{'9' * 30} 20 16")
    _nrrd("fewer sizes than axes", sizes="24 20")
    _nrrd("99 axes", dimension="99", sizes=" ".join(["1"] * 99), kinds=None, space_directions=None)
    _nrrd("a dimension that is no number", dimension="three")
    _nrrd("directions of NaN", space_directions="(nan,0,0) (0,2,0) (0,0,3)")
    _nrrd("directions of zeros", space_directions="(0,0,0) (0,2,0) (0,0,3)")
    _nrrd("directions of two numbers in three axes", space_directions="(2,0) (0,2) (0,3)")
    _nrrd("two directions for three axes", space_directions="(2,0,0) (0,2,0)")
    _nrrd("an origin of infinity", space_origin="(inf,0,0)")
    _nrrd("an unknown space", space="martian")
    _nrrd("a negative byte skip", byte_skip="-7")
    _nrrd("a byte skip beyond the end", byte_skip="99999999999")
    _nrrd("a line skip of 2 000 000 000", line_skip="2000000000")
    _nrrd("voxels cut", data=VOXELS[:5000])
    _nrrd("no voxels", data=b"")
    _nrrd("half of the slices that the file holds", sizes="24 20 8")
    _nrrd("gzip: cut in the middle", data=_half(packed), encoding="gzip")
    _nrrd("gzip: wrong checksum", data=flipped(packed, len(packed) - 6), encoding="gzip")
    _nrrd("gzip: not packed", encoding="gzip")
    _nrrd("gzip: half of the voxels", data=gzip.compress(VOXELS[:7000]), encoding="gzip")
    _nrrd("bzip2: cut in the middle", data=_half(bz2.compress(VOXELS)), encoding="bzip2")
    _nrrd("text: words instead of numbers", data=b"one two three", encoding="ascii")
    _nrrd("text: too few numbers", data=text[:9000], encoding="ascii")
    add("NRRD", "gzip: 2 MB that unpack to 2.1 GB", "a.nrrd", _nrrd_bomb)
    add("NRRD", "the magic number alone", "a.nrrd", b"NRRD0004\n")
    add("NRRD", "a header without an end", "a.nrrd", b"NRRD0004\n" + b"# note\n" * 300_000)
    add("NRRD", "a line of 3 MB", "a.nrrd", b"NRRD0004\ncontent: " + b"x" * 3_000_000)
    _nrrd("its voxels in a file that is missing", data=b"", data_file="none.raw")
    _nrrd("its voxels in a device", data=b"", data_file="/dev/zero")
    _nrrd("its voxels in a list of files that are missing", data=b"none.raw\n", data_file="LIST")
    _nrrd("its voxels in a pattern of 10^12 files", data=b"", data_file="a%d.raw 1 1000000000000 1")
    _nrrd("its voxels in itself", data=b"", data_file="a.nrrd")


def _meta_head(**changes: str | None) -> bytes:
    fields: Names = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "2 2 3",
        "DimSize": "24 20 16",
        "ElementType": "MET_SHORT",
    }
    last = changes.pop("ElementDataFile", "LOCAL")
    fields |= changes
    lines = [f"{name} = {value}\n" for name, value in fields.items() if value is not None]
    return "".join([*lines, f"ElementDataFile = {last}\n" if last else ""]).encode()


def _meta(what: str, accepted: bool = False, data: bytes = VOXELS, **changes: str | None) -> None:
    add("MetaImage", what, "a.mha", _meta_head(**changes) + data, accepted)


def _meta_files() -> None:
    packed = zlib.compress(VOXELS)
    zipped: dict[str, str | None] = {
        "CompressedData": "True",
        "CompressedDataSize": str(len(packed)),
    }
    _meta("sound", True)
    _meta("sound, packed", True, packed, **zipped)
    _meta("sound, packed, without its packed size", True, packed, CompressedData="True")
    _meta("no sizes", DimSize=None)
    _meta("no type", ElementType=None)
    _meta("no number of axes", NDims=None)
    _meta("an unknown type", ElementType="MET_QUADRUPLE")
    _meta("99 axes", NDims="99")
    _meta("number of axes 0", NDims="0")
    _meta("number of axes -3", NDims="-3")
    _meta("a number of axes that is a word", NDims="three")
    _meta("a size of 0", DimSize="24 0 16")
    _meta("a negative size", DimSize="-24 20 16")
    _meta("fewer sizes than axes", DimSize="24 20")
    _meta("sizes of 2 147 483 647", DimSize=" ".join(["2147483647"] * 3))
    _meta("a size of 30 digits", DimSize=f"{'9' * 30} 20 16")
    _meta("one slice more than the file holds", DimSize="24 20 17")
    _meta("half of the slices that the file holds", DimSize="24 20 8")
    _meta("spacing of 0", ElementSpacing="0 2 3")
    _meta("spacing of NaN", ElementSpacing="nan 2 3")
    _meta("negative spacing", ElementSpacing="-2 2 3")
    _meta("spacing of words", ElementSpacing="a b c")
    _meta("directions of zeros", TransformMatrix="0 0 0 0 1 0 0 0 1")
    _meta("directions of NaN", TransformMatrix="nan 0 0 0 1 0 0 0 1")
    _meta("eight directions instead of nine", TransformMatrix="1 0 0 0 1 0 0 0")
    _meta("an offset of infinity", Offset="inf 0 0")
    _meta("100 000 channels", ElementNumberOfChannels="100000")
    _meta("-1 channels", ElementNumberOfChannels="-1")
    _meta("a header of -5 bytes", HeaderSize="-5")
    _meta("a header of 10^12 bytes", HeaderSize="1000000000000")
    _meta("voxels cut", data=VOXELS[:5000])
    _meta("no voxels", data=b"")
    _meta("no data file is named", ElementDataFile=None)
    _meta("packed: cut in the middle", data=_half(packed), **zipped)
    _meta("packed: a changed byte", data=flipped(packed, len(packed) // 2), **zipped)
    _meta("packed: not packed", CompressedData="True")
    _meta("packed: half of the voxels", data=zlib.compress(VOXELS[:7000]), CompressedData="True")
    _meta(
        "packed: a size of 10^12",
        data=packed,
        CompressedData="True",
        CompressedDataSize="1000000000000",
    )
    add("MetaImage", "packed: 2 MB that unpack to 2.1 GB", "a.mha", _meta_bomb)
    add("MetaImage", "the first line alone", "a.mha", b"ObjectType = Image\n")
    add("MetaImage", "a line of 3 MB", "a.mha", _meta_head(Comment="x" * 3_000_000) + VOXELS)
    _meta("its voxels in a file that is missing", data=b"", ElementDataFile="none.raw")
    _meta("its voxels in a device", data=b"", ElementDataFile="/dev/zero")
    _meta(
        "its voxels in a list of files that are missing", data=b"none.raw\n", ElementDataFile="LIST"
    )
    _meta(
        "its voxels in a pattern of 10^12 files",
        data=b"",
        ElementDataFile="a%d.raw 1 1000000000000 1",
    )


def _meta_bomb(path: Path) -> None:
    head = _meta_head(ElementType="MET_UCHAR", DimSize="1024 1024 2000", CompressedData="True")
    path.write_bytes(head + inflating(b"", 2000, "zlib"))


_nrrd_files()
_meta_files()
