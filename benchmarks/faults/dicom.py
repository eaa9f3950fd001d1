"""Damaged DICOM series of 16 slices: a fault in one slice, or in all."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from .made import BASE, MB, SPACING_MM, add, inflating

ROOT = "1.2.826.0.1.3680043.8.498."
CT = "1.2.840.10008.5.1.4.1.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
Change = Callable[[FileDataset], object]


def slice_(number: int, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    """One sound slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = f"{ROOT}{number + 1}"
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CT, f"{ROOT}{number + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{ROOT}1000", f"{ROOT}2000"
    data.Modality, data.PatientID, data.SeriesNumber = "CT", "P1", 2
    data.Rows, data.Columns, data.SamplesPerPixel = BASE.shape[1], BASE.shape[0], 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelSpacing, data.SliceThickness = list(SPACING_MM[:2]), SPACING_MM[2]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, SPACING_MM[2] * number]
    data.PixelData = BASE[:, :, number].T.tobytes()
    return data


def packed(data: FileDataset, syntax: str) -> FileDataset:
    """The slice with its pixels compressed."""
    if syntax != JPEG2000Lossless:
        data.compress(syntax, generate_instance_uid=False)
        return data
    # The encoder of pydicom's plug-in refuses pictures as small as these.
    out = io.BytesIO()
    pixels = np.frombuffer(data.PixelData, "<u2").reshape(data.Rows, data.Columns)
    Image.fromarray(pixels).save(out, "JPEG2000", no_jp2=True, irreversible=False)
    data.PixelData = pydicom.encaps.encapsulate([out.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return data


def bytes_of(data: FileDataset) -> bytes:
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


@cache
def _sound(number: int) -> bytes:
    return bytes_of(slice_(number))


def _series(what: str, one: Callable[[], bytes] | bytes | None, accepted: bool = False) -> None:
    """A sound series in which the fifth slice is replaced; ``None`` leaves it out."""

    def write(path: Path) -> None:
        path.mkdir()
        for number in range(BASE.shape[2]):
            content = _sound(number)
            if number == 4:
                content = one() if callable(one) else one  # type: ignore[assignment]
            if content is not None:
                (path / f"{number:03d}.dcm").write_bytes(content)

    add("DICOM", what, "series", write, accepted)


def _changed(what: str, change: Change, accepted: bool = False) -> None:
    def one() -> bytes:
        data = slice_(4)
        change(data)
        return bytes_of(data)

    _series(what, one, accepted)


def _set(**values: Any) -> Change:
    def change(data: FileDataset) -> None:
        for name, value in values.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)

    return change


def _raw(data: bytes, name: str, change: Callable[[bytes, int], bytes]) -> bytes:
    """The file with the element of explicit VR changed, from its tag on."""
    tag = pydicom.tag.Tag(name)
    at = data.index(struct.pack("<2H", tag.group, tag.element), 132)
    return data[:at] + change(data[at:], at)


def _all(what: str, change: Callable[[FileDataset], bytes], accepted: bool = False) -> None:
    """A series in which every slice is changed."""

    def write(path: Path) -> None:
        path.mkdir()
        for number in range(BASE.shape[2]):
            (path / f"{number:03d}.dcm").write_bytes(change(slice_(number)))

    add("DICOM", what, "series", write, accepted)


def _files() -> None:
    sound = _sound(4)
    _series("sound", sound, True)
    _series("a slice is missing", None)
    _series("a slice is empty", b"")
    _series("a slice is a text", b"hello world\n" * 50)
    _series("a slice twice", _sound(5))
    _series("cut in the header", sound[:400])
    _series("cut in the pixels", sound[:-500])
    _series("cut before the pixels", sound[: -BASE[:, :, 0].nbytes - 12])
    _series("the preamble alone", sound[:132])
    _series("no letters DICM behind the preamble", bytes(128) + b"DISC" + sound[132:])
    _all("no preamble, implicit VR", _bare, True)
    _all("big endian", lambda d: _saved_as(d, ExplicitVRBigEndian), True)
    _all("deflated", lambda d: _saved_as(d, DEFLATED), True)


def _bare(data: FileDataset) -> bytes:
    out = io.BytesIO()
    del data.file_meta
    pydicom.dcmwrite(out, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
    raw = out.getvalue()
    return raw[132:] if raw[128:132] == b"DICM" else raw


def _saved_as(data: FileDataset, syntax: str) -> bytes:
    if syntax == ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        out = io.BytesIO()
        pydicom.dcmwrite(
            out, data, implicit_vr=False, little_endian=False, enforce_file_format=True
        )
        return out.getvalue()
    data.file_meta.TransferSyntaxUID = syntax
    return bytes_of(data)


def _attributes() -> None:
    _changed("Rows 0", _set(Rows=0))
    _changed("Rows missing", _set(Rows=None))
    _changed("Rows doubled", _set(Rows=40))
    _changed("Rows halved", _set(Rows=10))
    _changed("rows and columns of 65535", _set(Rows=65535, Columns=65535))
    _changed("PixelData missing", _set(PixelData=None))
    _changed("PixelData empty", _set(PixelData=b""))
    _changed("PixelData of half the slice", _set(PixelData=BASE[:, :10, 4].tobytes()))
    _changed("PixelData of two slices", _set(PixelData=BASE[:, :, 4].T.tobytes() * 2))
    _changed("BitsAllocated 32, pixels of 16", _set(BitsAllocated=32))
    _changed("BitsAllocated 7", _set(BitsAllocated=7))
    _changed("BitsStored 99", _set(BitsStored=99))
    _changed("PixelRepresentation 7", _set(PixelRepresentation=7))
    _changed("three colours stated, one stored", _set(SamplesPerPixel=3))
    _changed("99 frames stated, one stored", _set(NumberOfFrames=99))
    _changed("PixelSpacing 0", _set(PixelSpacing=[0, 0]))
    _changed("PixelSpacing missing", _set(PixelSpacing=None))
    _changed("ImagePositionPatient missing", _set(ImagePositionPatient=None))
    _changed("ImageOrientationPatient of zeros", _set(ImageOrientationPatient=[0] * 6))
    _changed("a slice of another orientation", _set(ImageOrientationPatient=[0, 1, 0, 1, 0, 0]))
    _changed("a slice 1 mm off", _set(ImagePositionPatient=[0, 0, 13]))
    _changed(
        "an unknown transfer syntax", lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.3")
    )
    _changed("no transfer syntax", lambda d: d.file_meta.__delattr__("TransferSyntaxUID"), True)

    def text(what: str, name: str, value: bytes) -> None:
        def change(element: bytes, _: int) -> bytes:
            length = struct.unpack_from("<H", element, 6)[0]
            return element[:6] + struct.pack("<H", len(value)) + value + element[8 + length :]

        _series(what, _raw(_sound(4), name, change))

    text("ImagePositionPatient with NaN", "ImagePositionPatient", b"nan\\0\\12 ")
    text("ImagePositionPatient with words", "ImagePositionPatient", b"a\\b\\c ")
    text("ImagePositionPatient of 1e400", "ImagePositionPatient", b"0\\0\\1e400 ")
    text("PixelSpacing of words", "PixelSpacing", b"one\\two ")


def _elements() -> None:
    sound = _sound(4)

    def vr(letters: bytes, name: str = "Modality") -> bytes:
        return _raw(sound, name, lambda e, _: e[:4] + letters + e[6:])

    def length(value: int, name: str = "Modality") -> bytes:
        return _raw(sound, name, lambda e, _: e[:6] + struct.pack("<H", value) + e[8:])

    for letters in (b"ZZ", b"\0\0", b"\xff\xff"):
        for name in ("Modality", "Rows", "PixelSpacing"):
            _series(f"the unknown VR {letters!r} of {name}", vr(letters, name))
    _series("the VR of a sequence for Modality", vr(b"SQ"))
    _series("a text of 65 535 bytes stated", length(65535))
    _series("a text of an odd length", length(1, "PatientID"))
    _series(
        "pixels of 4 GB stated",
        _raw(sound, "PixelData", lambda e, _: e[:8] + struct.pack("<I", 0xFFFFFFF0) + e[12:]),
        True,
    )
    _series(
        "pixels of undefined length",
        _raw(sound, "PixelData", lambda e, _: e[:8] + b"\xff" * 4 + e[12:]),
    )
    at = sound.index(struct.pack("<2H", 0x28, 2))
    deep = nested(2000)
    _series("sequences nested 2,000 times", sound[:at] + deep + sound[at:])
    endless = struct.pack("<2H2s2xI", 0x08, 0x1140, b"SQ", 0xFFFFFFFF)
    _series("a sequence without an end", sound[:132] + sound[132:at] + endless + b"\0" * 64)
    group = struct.pack("<2H2sHI", 2, 0, b"UL", 4, 2**31)
    _series("a file meta group of 2 GB stated", bytes(128) + b"DICM" + group + sound[144:], True)


def nested(depth: int) -> bytes:
    start = struct.pack("<2H2s2xI", 0x27, 0x1140, b"SQ", 0xFFFFFFFF)
    item = struct.pack("<2HI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<2HI", 0xFFFE, 0xE00D, 0) + struct.pack("<2HI", 0xFFFE, 0xE0DD, 0)
    return (start + item) * depth + ends * depth


def _compressed() -> None:
    for syntax, name in (
        (RLELossless, "RLE"),
        (JPEGLSLossless, "JPEG-LS"),
        (JPEG2000Lossless, "JPEG 2000"),
    ):
        _all(f"{name}: sound", lambda d, s=syntax: bytes_of(packed(d, s)), True)

        def slice_of(change: Callable[[bytes], bytes], syntax: str = syntax) -> bytes:
            data = packed(slice_(4), syntax)
            # Offset table (8 bytes), then the frame as one item (8 bytes and its data).
            raw = data.PixelData
            at = raw.index(b"\xfe\xff\x00\xe0", 4)
            size = struct.unpack_from("<I", raw, at + 4)[0]
            frame = change(raw[at + 8 : at + 8 + size])
            frame += b"\0" * (len(frame) % 2)
            data.PixelData = (
                b"\xfe\xff\x00\xe0\0\0\0\0"
                + b"\xfe\xff\x00\xe0"
                + struct.pack("<I", len(frame))
                + frame
                + b"\xfe\xff\xdd\xe0\0\0\0\0"
            )
            data["PixelData"].is_undefined_length = True
            return bytes_of(data)

        _series(f"{name}: cut in the middle", lambda f=slice_of: f(lambda b: b[: len(b) // 2]))
        _series(f"{name}: no data", lambda f=slice_of: f(lambda b: b""))
        _series(f"{name}: zeros", lambda f=slice_of: f(lambda b: bytes(len(b))))
        _series(f"{name}: another image size within", lambda f=slice_of, s=syntax: f(_resized(s)))
    _series("JPEG: no JPEG", lambda: _fake("1.2.840.10008.1.2.4.70"))
    _series("deflated: 2 MB that unpack to 2.1 GB", _bomb)
    _series("deflated: not packed", _not_deflated)


def _resized(syntax: str) -> Callable[[bytes], bytes]:
    """The image data of a slice of 10 rows."""

    def change(_: bytes) -> bytes:
        data = slice_(4)
        data.Rows, data.PixelData = 10, BASE[:, :10, 4].T.tobytes()
        raw = packed(data, syntax).PixelData
        at = raw.index(b"\xfe\xff\x00\xe0", 4)
        return raw[at + 8 : at + 8 + struct.unpack_from("<I", raw, at + 4)[0]]

    return change


def _fake(syntax: str) -> bytes:
    data = slice_(4)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff" + b"no image at all " * 20])
    data["PixelData"].is_undefined_length = True
    return bytes_of(data)


def _bomb() -> bytes:
    start = bytes_of(slice_(4))
    head = _meta(DEFLATED)
    body = start[start.index(struct.pack("<2H", 8, 0x16), 132) :]
    body += struct.pack("<2H2s2xI", 0xFFFC, 0xFFFC, b"OB", 2000 * MB)
    return head + inflating(body, 2000, "deflate")


def _not_deflated() -> bytes:
    start = bytes_of(slice_(4))
    return _meta(DEFLATED) + start[start.index(struct.pack("<2H", 8, 0x16), 132) :]


def _meta(syntax: str) -> bytes:
    raw = bytes_of(slice_(4, syntax))
    length = struct.unpack_from("<I", raw, 140)[0]
    return raw[: 144 + length]


_files()
_attributes()
_elements()
_compressed()
