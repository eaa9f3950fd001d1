"""Damaged NIfTI files, alone and as pairs, packed and not; and Analyze pairs."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from .made import AFFINE, BASE, MB, add, edited, flipped, inflating

NAN, INF = float("nan"), float("inf")
_image = nib.Nifti1Image(BASE, AFFINE)
_image.header.set_xyzt_units("mm")
SOUND: bytes = _image.to_bytes()
HEADER, START = 348, 352
VOXELS = SOUND[START:]
DIM, TYPE, PIXDIM, OFFSET, SLOPE, CODES, QUATERNION, SFORM = 40, 70, 76, 108, 112, 252, 256, 280


def _nifti(
    what: str,
    *edits: tuple[int, str, *tuple[float, ...]],
    accepted: bool = False,
    extra: bytes = b"",
    data: bytes = SOUND,
    packed: bool = False,
) -> None:
    content = edited(data, *edits) + extra
    name = "a.nii.gz" if packed else "a.nii"
    add("NIfTI", what, name, gzip.compress(content) if packed else content, accepted)


def _dims(*sizes: int) -> tuple[int, str, *tuple[int, ...]]:
    return (DIM, "8h", *sizes, *([1] * (8 - len(sizes))))


def _streamed(head: bytes, megabytes: int) -> Callable[[Path], object]:
    """Writes a packed file of ``head`` and zeros."""

    return lambda path: path.write_bytes(inflating(head, megabytes))


def _headers() -> None:
    _nifti("sound", accepted=True)
    big = _image.__class__(BASE, AFFINE, _image.header.as_byteswapped(">"))
    _nifti("sound, big endian", data=big.to_bytes(), accepted=True)
    second = nib.Nifti2Image(BASE, AFFINE).to_bytes()
    _nifti("sound, NIfTI-2", data=second, accepted=True)
    _nifti("the header's size is 0", (0, "i", 0))
    _nifti("no magic number", (344, "4s", b"\0\0\0\0"))  # type: ignore[arg-type]
    _nifti("the magic number of a pair", (344, "4s", b"ni1\0"))  # type: ignore[arg-type]
    _nifti("sizes of 32767 in a file of 15 kB", _dims(3, 32767, 32767, 32767))
    _nifti("a negative size", _dims(3, -24, 20, 16))
    _nifti("a size of 0", _dims(3, 24, 0, 16))
    _nifti("number of axes 0", (DIM, "h", 0))
    _nifti("number of axes 9", (DIM, "h", 9))
    _nifti("number of axes -3", (DIM, "h", -3))
    _nifti("a fourth axis of 0", _dims(4, 24, 20, 16, 0))
    _nifti("a fifth axis of 0", _dims(5, 24, 20, 16, 1, 0))
    _nifti("a fourth axis of -1", _dims(4, 24, 20, 16, -1))
    _nifti("an unused fourth axis of 0", (DIM, "8h", 3, 24, 20, 16, 0, 0, 0, 0), accepted=True)
    _nifti("five axes of more than one voxel", _dims(5, 6, 20, 16, 2, 2))
    _nifti("one row more than the file holds", _dims(3, 24, 21, 16))
    _nifti("half of the slices that the file holds", _dims(3, 24, 20, 8))
    _nifti("half of the columns that the file holds", _dims(3, 12, 20, 16))
    _nifti("datatype 999", (TYPE, "2h", 999, 16))
    _nifti("datatype 0", (TYPE, "2h", 0, 0))
    _nifti("complex voxels", (TYPE, "2h", 32, 64), _dims(3, 6, 20, 16))
    _nifti("bits of a voxel that contradict the datatype", (TYPE, "2h", 4, 8), accepted=True)
    _nifti("datatype of 4 bytes, voxels of 2", (TYPE, "2h", 8, 32))
    _nifti("datatype of 1 byte, voxels of 2", (TYPE, "2h", 2, 8))


def _offsets() -> None:
    _nifti("voxels at byte -100", (OFFSET, "f", -100))
    _nifti("voxels at byte 1e9", (OFFSET, "f", 1e9))
    _nifti("voxels at byte NaN", (OFFSET, "f", NAN))
    _nifti("voxels at byte infinity", (OFFSET, "f", INF))
    _nifti("voxels at byte 0, inside the header", (OFFSET, "f", 0))
    _nifti("voxels at byte 200, inside the header", (OFFSET, "f", 200))
    _nifti("voxels at byte 348, over the flag of extensions", (OFFSET, "f", 348))
    _nifti("voxels at a byte that ends the file too early", (OFFSET, "f", 368))
    flag = SOUND[:HEADER] + b"\1\0\0\0"
    _nifti("the flag of extensions without one", data=flag + VOXELS, accepted=True)

    def with_extension(size: int, offset: int, room: int) -> bytes:
        extension = struct.pack("<2i", size, 6).ljust(room, b"\0")
        return edited(flag + extension + VOXELS, (OFFSET, "f", offset))

    _nifti("sound, with an extension", data=with_extension(32, 384, 32), accepted=True)
    _nifti("an extension that runs over the voxels", data=with_extension(64, 384, 32))
    _nifti("an extension that begins where the voxels do", data=with_extension(32, 352, 32))
    _nifti("an extension of 2 GB", data=with_extension(2**31 - 16, 384, 32))
    _nifti("an extension of -16 bytes", data=with_extension(-16, 384, 32))
    _nifti("an extension of 0 bytes", data=with_extension(0, 384, 32))


def _geometry() -> None:
    _nifti("pixdim 0, with a valid sform", (PIXDIM, "4f", 1, 0, 0, 0), accepted=True)
    _nifti("pixdim NaN, with a valid sform", (PIXDIM, "4f", 1, NAN, 2, 3), accepted=True)
    none = (CODES, "2h", 0, 0)
    _nifti("pixdim 0, neither sform nor qform", (PIXDIM, "4f", 1, 0, 0, 0), none)
    _nifti("pixdim NaN, neither sform nor qform", (PIXDIM, "4f", 1, NAN, 2, 3), none)
    _nifti("pixdim negative, neither sform nor qform", (PIXDIM, "4f", 1, -2, 2, 3), none)
    _nifti("neither sform nor qform, valid pixdim", none, accepted=True)
    _nifti("sform of zeros", (SFORM, "12f", *([0] * 12)))
    _nifti("sform with NaN", (SFORM, "f", NAN))
    _nifti("sform with infinity", (SFORM + 12, "f", INF))
    _nifti("sform with two parallel axes", (SFORM, "12f", 2, 2, 0, 0, 2, 2, 0, 0, 0, 0, 3, 0))
    _nifti("sform with a voxel of 1e30 mm", (SFORM, "f", 1e30))
    _nifti("sform with a voxel of 1e-30 mm", (SFORM, "f", 1e-30))
    q_only = (CODES, "2h", 1, 0)
    _nifti("qform with NaN, no sform", q_only, (QUATERNION, "f", NAN))
    _nifti("qform with a quaternion longer than 1", q_only, (QUATERNION, "3f", 1.2, 1.1, 0.9))
    _nifti(
        "qform with NaN, valid sform", (CODES, "2h", 1, 2), (QUATERNION, "f", NAN), accepted=True
    )
    _nifti("sform and qform of one code, 100 mm apart", (CODES, "2h", 1, 1), (268, "f", 100))
    _nifti("an unknown code of units", (123, "B", 5), accepted=True)


def _values() -> None:
    _nifti("slope NaN: no scaling", (SLOPE, "2f", NAN, 0), accepted=True)
    _nifti("slope 0: no scaling", (SLOPE, "2f", 0, 5), accepted=True)
    _nifti("slope infinity", (SLOPE, "2f", INF, 0))
    _nifti("slope 1, intercept NaN", (SLOPE, "2f", 1, NAN))
    _nifti("slope 3e38, which no voxel survives", (SLOPE, "2f", 3e38, 0))


def _sizes() -> None:
    _nifti("cut in the middle", data=SOUND[: len(SOUND) // 2])
    _nifti("the header alone", data=SOUND[:START])
    _nifti("half of the header", data=SOUND[:174])
    _nifti("empty", data=b"")
    _nifti("1,000 more bytes behind the voxels", extra=b"\xff" * 1000, accepted=True)
    _nifti("1 MB behind the voxels", extra=bytes(MB))
    packed = gzip.compress(SOUND)

    def put(what: str, data: bytes, accepted: bool = False, name: str = "a.nii.gz") -> None:
        add("NIfTI", what, name, data, accepted)

    put("gzip: sound", packed, True)
    put("gzip: under the name of an unpacked file", packed, True, "a.nii")
    put("gzip: not packed, under the name of a packed file", SOUND, True)
    cut = len(SOUND) // 2
    put("gzip: two members", gzip.compress(SOUND[:cut]) + gzip.compress(SOUND[cut:]), True)
    put("gzip: zeros behind the end", packed + bytes(512), True)
    put("gzip: packed twice", gzip.compress(packed))
    put("gzip: cut in the middle", packed[: len(packed) // 2])
    put("gzip: cut before the checksum", packed[:-8])
    put("gzip: cut within the checksum", packed[:-3])
    put("gzip: wrong checksum", flipped(packed, len(packed) - 6))
    put("gzip: wrong length at the end", flipped(packed, len(packed) - 1))
    put("gzip: a changed byte in the middle", flipped(packed, len(packed) // 2))
    put("gzip: an unknown method", flipped(packed, 2))
    put("gzip: reserved flags, whole data", edited(packed, (3, "B", 0xE0)), True)
    put("gzip: a name without an end", edited(packed, (3, "B", 8))[:10] + b"x" * 5000)
    put("gzip: ten bytes", packed[:10])
    put("zlib instead of gzip", zlib.compress(SOUND))
    huge = edited(SOUND[:START], _dims(3, 1024, 1024, 2000), (TYPE, "2h", 2, 8))
    add("NIfTI", "gzip: 2 MB that unpack to 2.1 GB", "a.nii.gz", _streamed(huge, 2000))
    add("NIfTI", "gzip: 2 GB behind the voxels", "a.nii.gz", _streamed(SOUND, 2000))
    far = edited(SOUND[:START], (OFFSET, "f", 2e9))
    add("NIfTI", "gzip: voxels at byte 2e9 of as many", "a.nii.gz", _streamed(far, 2000))
    long = edited(SOUND[:HEADER] + b"\1\0\0\0", (OFFSET, "f", 2e9)) + struct.pack(
        "<2i", 2**31 - 16, 6
    )
    add("NIfTI", "gzip: an extension of 2 GB that is there", "a.nii.gz", _streamed(long, 2000))


def _pairs() -> None:
    image = nib.Nifti1Pair(BASE, AFFINE)
    spm = nib.Spm2AnalyzeImage(BASE, AFFINE)

    def pair(
        form: str,
        what: str,
        change: Callable[[bytes, bytes], tuple[bytes, bytes | None]],
        made: nib.spatialimages.SpatialImage = image,
        accepted: bool = False,
    ) -> None:
        def write(path: Path) -> None:
            path.mkdir()
            made.to_filename(path / "a.img")
            head, voxels = change((path / "a.hdr").read_bytes(), (path / "a.img").read_bytes())
            (path / "a.hdr").write_bytes(head)
            (path / "a.img").unlink()
            if voxels is not None:
                (path / "a.img").write_bytes(voxels)

        add(form, what, "pair", write, accepted, "pair")

    for form, made in (("NIfTI pair", image), ("Analyze 7.5", spm)):
        pair(form, "sound", lambda head, voxels: (head, voxels), made, True)
        pair(form, "voxels missing", lambda head, voxels: (head, None), made)
        pair(form, "voxels cut", lambda head, voxels: (head, voxels[:5000]), made)
        pair(form, "no voxels", lambda head, voxels: (head, b""), made)
        pair(form, "header cut", lambda head, voxels: (head[:200], voxels), made)
        pair(form, "header empty", lambda head, voxels: (b"", voxels), made)
        pair(form, "a size of 0", lambda head, v: (edited(head, _dims(3, 24, 0, 16)), v), made)
        pair(
            form,
            "a fourth axis of 0",
            lambda head, v: (edited(head, _dims(4, 24, 20, 16, 0)), v),
            made,
        )
        pair(
            form, "sizes of 32767", lambda head, v: (edited(head, _dims(3, *[32767] * 3)), v), made
        )
        pair(form, "datatype 999", lambda head, v: (edited(head, (TYPE, "2h", 999, 16)), v), made)
        pair(
            form,
            "voxels at byte -100",
            lambda head, v: (edited(head, (OFFSET, "f", -100)), v),
            made,
        )
        pair(
            form, "voxels at byte 1e9", lambda head, v: (edited(head, (OFFSET, "f", 1e9)), v), made
        )
    pair(
        "Analyze 7.5",
        "voxel sizes of 0",
        lambda head, v: (edited(head, (PIXDIM, "4f", 0, 0, 0, 0)), v),
        spm,
    )
    pair(
        "Analyze 7.5",
        "voxel sizes of NaN",
        lambda head, v: (edited(head, (PIXDIM, "4f", 0, NAN, 1, 1)), v),
        spm,
    )


def _mgh() -> None:
    sound = nib.MGHImage(BASE, AFFINE).to_bytes()

    def put(what: str, data: bytes, accepted: bool = False, name: str = "a.mgh") -> None:
        add("MGH", what, name, data, accepted)

    def change(*edits: tuple[int, str, *tuple[float, ...]]) -> bytes:
        return edited(sound, *edits, order=">")

    put("sound", sound, True)
    put("sound, packed", gzip.compress(sound), True, "a.mgz")
    put("version 2", change((0, "i", 2)))
    put("a size of 0", change((4, "i", 0)))
    put("a negative size", change((4, "i", -24)))
    put("sizes of 2 147 483 647", change((4, "3i", *[2**31 - 1] * 3)))
    put("a fourth axis of 0", change((16, "i", 0)))
    put("an unknown type", change((20, "i", 99)))
    put("a type of 4 bytes, voxels of 2", change((20, "i", 3)))
    put("cut in the middle", sound[: len(sound) // 2])
    put("the header alone", sound[:284])
    put("packed, cut in the middle", gzip.compress(sound)[:5000], name="a.mgz")
    put("voxel sizes of 0", change((30, "3f", 0, 0, 0)))
    put("voxel sizes of NaN", change((30, "3f", NAN, 1, 1)))
    put("directions of NaN", change((42, "9f", *[NAN] * 9)))
    put("directions of zeros", change((42, "9f", *[0] * 9)))
    big = edited(sound[:284], (4, "4i", 1024, 1024, 2000, 1), (20, "i", 0), order=">")
    add("MGH", "packed, 2 MB that unpack to 2.1 GB", "a.mgz", _streamed(big, 2000))


_headers()
_offsets()
_geometry()
_values()
_sizes()
_pairs()
_mgh()
assert np.array_equal(np.frombuffer(VOXELS, "<i2"), BASE.ravel(order="F"))
