"""Damaged DICOM objects other than series of slices (segmentations, structure sets, enhanced
multi-frame images, mosaics), archives of DICOM files and DICOMDIR.
"""

from __future__ import annotations

import io
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from tests.formats.dicom.siemens import csa

from .dicom import ROOT, bytes_of, nested, slice_
from .made import BASE, MASK, MB, SPACING_MM, add, edited, inflating

SEG, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
ENHANCED_MR, MR = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4"
DIRECTORY = "1.2.840.10008.1.3.10"
SLICES = BASE.shape[2]
Change = Callable[[FileDataset], object]


def _item(**values: Any) -> Dataset:
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


def _object(sop_class: str, modality: str) -> FileDataset:
    """A slice without what only a slice has, as an object of another class."""
    one = slice_(0)
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = sop_class
    one.Modality, one.FrameOfReferenceUID = modality, f"{ROOT}3000"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(one, name)
    return one


def _framed(one: FileDataset) -> FileDataset:
    """The object with a frame for each slice, each with its position."""
    one.NumberOfFrames = SLICES
    spacing = {"PixelSpacing": list(SPACING_MM[:2]), "SpacingBetweenSlices": SPACING_MM[2]}
    one.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(**spacing, SliceThickness=SPACING_MM[2])],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        )
    ]
    one.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[0, 0, SPACING_MM[2] * k])],
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1)],
        )
        for k in range(SLICES)
    ]
    return one


def enhanced() -> FileDataset:
    one = _framed(_object(ENHANCED_MR, "MR"))
    one.PixelData = BASE.T.tobytes()
    return one


def segmentation() -> FileDataset:
    one = _framed(_object(SEG, "SEG"))
    one.SegmentationType, one.BitsAllocated, one.BitsStored, one.HighBit = "BINARY", 1, 1, 0
    one.PixelRepresentation = 0
    code = _item(CodeValue="10200004", CodingSchemeDesignator="SCT", CodeMeaning="Liver")
    segment = _item(SegmentNumber=1, SegmentLabel="liver", SegmentAlgorithmType="MANUAL")
    segment.SegmentedPropertyTypeCodeSequence = [code]
    one.SegmentSequence = [segment]
    for frame in one.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=1)]
    one.PixelData = np.packbits(MASK.T.reshape(-1), bitorder="little").tobytes()
    one["PixelData"].VR = "OB"
    return one


def structure_set() -> FileDataset:
    """A box in the slices 2 to 13, as in ``MASK``'s ``BOX``."""
    one = _object(RTSTRUCT, "RTSTRUCT")
    for name in ("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"):
        delattr(one, name)
    one.StructureSetLabel = "S"
    image = _item(ReferencedSOPClassUID=MR, ReferencedSOPInstanceUID=f"{ROOT}1")
    series = _item(SeriesInstanceUID=f"{ROOT}2000", ContourImageSequence=[image])
    study = _item(RTReferencedSeriesSequence=[series])
    frame = _item(FrameOfReferenceUID=f"{ROOT}3000", RTReferencedStudySequence=[study])
    one.ReferencedFrameOfReferenceSequence = [frame]
    roi = _item(ROINumber=1, ROIName="liver", ReferencedFrameOfReferenceUID=f"{ROOT}3000")
    one.StructureSetROISequence = [roi]
    corners = ((9, 7), (31, 7), (31, 25), (9, 25))  # mm; the box is 5 to 15, 4 to 12
    contours = []
    for k in range(2, 14):
        data = [v for x, y in corners for v in (x, y, SPACING_MM[2] * k)]
        contours.append(_item(ContourGeometricType="CLOSED_PLANAR", ContourData=data))
    one.ROIContourSequence = [_item(ReferencedROINumber=1, ContourSequence=contours)]
    return one


def mosaic() -> FileDataset:
    """Four by four slices, with a CSA header as Siemens writes it."""
    one = slice_(0)
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MR
    one.Modality, one.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    columns, rows, _ = BASE.shape
    one.Rows, one.Columns, one.SpacingBetweenSlices = 4 * rows, 4 * columns, SPACING_MM[2]
    half_mm = 1.5 * columns * SPACING_MM[0], 1.5 * rows * SPACING_MM[1]
    one.ImagePositionPatient = [-half_mm[0], -half_mm[1], 0]
    header = csa({"NumberOfImagesInMosaic": [SLICES], "SliceNormalVector": ["0.0", "0.0", "1.0"]})
    one.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    one.add_new(0x00291010, "OB", header + bytes(len(header) % 2))
    tiles = BASE.T.reshape(4, 4, rows, columns)
    one.PixelData = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3)).tobytes()
    return one


# ---- objects ----


def _changed(form: str, base: Callable[[], FileDataset], reading: str) -> Callable[..., None]:
    def put(what: str, change: Change = lambda one: None, accepted: bool = False) -> None:
        def write(path: Path) -> None:
            one = base()
            change(one)
            path.write_bytes(bytes_of(one))

        add(form, what, "a.dcm", write, accepted, reading)

    return put


def _set(**values: Any) -> Change:
    def change(one: FileDataset) -> None:
        for name, value in values.items():
            setattr(one, name, value)

    return change


def _without(*names: str) -> Change:
    return lambda one: [delattr(one, name) for name in names]


def _frame(one: FileDataset, n: int = 4) -> Dataset:
    return one.PerFrameFunctionalGroupsSequence[n]  # type: ignore[no-any-return]


def _place(one: FileDataset, position: list[float]) -> None:
    _frame(one).PlanePositionSequence[0].ImagePositionPatient = position


def _frames(put: Callable[..., None]) -> None:
    """The faults of all objects that have frames."""
    put("sound", accepted=True)
    put("no frames stated", _set(NumberOfFrames=0))
    put("-1 frames stated", _set(NumberOfFrames=-1))
    put("10^9 frames stated", _set(NumberOfFrames=10**9))
    put("a frame less is stated", _set(NumberOfFrames=SLICES - 1))
    put("a frame more is stated", _set(NumberOfFrames=SLICES + 1))
    put("a frame is not described", lambda one: one.PerFrameFunctionalGroupsSequence.pop())
    put("no frame is described", _set(PerFrameFunctionalGroupsSequence=[]))
    put("no shared groups", _without("SharedFunctionalGroupsSequence"))
    put("a frame without position", lambda one: delattr(_frame(one), "PlanePositionSequence"))
    put("a frame twice", lambda one: _place(one, [0, 0, 5 * SPACING_MM[2]]))
    put("a frame 1 mm off", lambda one: _place(one, [0, 0, 4 * SPACING_MM[2] + 1]))
    put("a position of 10^30 mm", lambda one: _place(one, [0, 0, 1e30]))
    put("rows and columns of 65535", _set(Rows=65535, Columns=65535))
    put("no rows", _set(Rows=0))
    put("pixels of half the frames", lambda one: _halve(one))
    put("no pixels", _without("PixelData"))


def _halve(one: FileDataset) -> None:
    one.PixelData = one.PixelData[: len(one.PixelData) // 2]


def _objects() -> None:
    _frames(_changed("DICOM enhanced", enhanced, "image"))
    put = _changed("DICOM segmentation", segmentation, "segments")
    _frames(put)
    put("no segment is described", _set(SegmentSequence=[]))
    put("a segment twice", lambda one: one.SegmentSequence.append(one.SegmentSequence[0]))
    put("a type that is unknown", _set(SegmentationType="OTHER"))
    put("a frame of a segment that is not described", _other_segment)
    put("8 bits stated, 1 stored", _set(BitsAllocated=8, BitsStored=8, HighBit=7))
    put = _changed("DICOM mosaic", mosaic, "image")
    put("sound", accepted=True)
    put("no CSA header", lambda one: one.pop(0x00291010))
    put("a CSA header that is cut", lambda one: _csa(one, lambda data: data[:150]))
    put("10^9 tags in the CSA header", lambda one: _csa(one, _many_tags))
    put("an item of -4 bytes in the CSA header", lambda one: _csa(one, _negative_item))
    put("17 slices in 16 tiles", lambda one: _csa(one, lambda data: _tiles(17)))
    put("-1 slices", lambda one: _csa(one, lambda data: _tiles(-1)))
    put("10^9 slices", lambda one: _csa(one, lambda data: _tiles(10**9)))
    put("a normal along the rows", lambda one: _csa(one, lambda data: _tiles(16, "1 0 0")))
    put("a normal of NaN", lambda one: _csa(one, lambda data: _tiles(16, "nan nan nan")))
    put("a gap of 0", _set(SpacingBetweenSlices=0))
    put("a gap of -3 mm", _set(SpacingBetweenSlices=-3))


def _other_segment(one: FileDataset) -> None:
    _frame(one).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def _csa(one: FileDataset, change: Callable[[bytes], bytes]) -> None:
    data = change(one[0x00291010].value)
    one.add_new(0x00291010, "OB", data + bytes(len(data) % 2))


def _many_tags(data: bytes) -> bytes:
    return edited(data, (8, "I", 10**9))


def _negative_item(data: bytes) -> bytes:
    return edited(data, (16 + 84 + 4, "i", -4))


def _tiles(count: int, normal: str = "0 0 1") -> bytes:
    return csa({"NumberOfImagesInMosaic": [count], "SliceNormalVector": normal.split()})


def _contours() -> None:
    put = _changed("DICOM structure set", structure_set, "contours")

    put("sound", accepted=True)
    put("a coordinate too many", _one_more)
    put("no contours", _set(ROIContourSequence=[]))
    put("contours of an ROI that is not defined", _other_roi)
    put("an ROI twice", lambda one: one.StructureSetROISequence.append(_first_roi(one)))
    put("no ROI", _set(StructureSetROISequence=[]))
    put("all contours outside the image", _far)


def _one_more(one: FileDataset) -> None:
    one.ROIContourSequence[0].ContourSequence[0].ContourData.append(1)


def _first_roi(one: FileDataset) -> Dataset:
    return one.StructureSetROISequence[0]  # type: ignore[no-any-return]


def _other_roi(one: FileDataset) -> None:
    one.ROIContourSequence[0].ReferencedROINumber = 7


def _far(one: FileDataset) -> None:
    for contour in one.ROIContourSequence[0].ContourSequence:
        contour.ContourData = [float(v) + 5000 for v in contour.ContourData]


# ---- raw elements ----


def _raw(form: str, base: Callable[[], FileDataset], reading: str) -> None:
    """Faults of the encoding, in front of the sequences."""

    def put(what: str, change: Callable[[bytes], bytes], accepted: bool = False) -> None:
        add(
            form,
            what,
            "a.dcm",
            lambda p: p.write_bytes(change(bytes_of(base()))),
            accepted,
            reading,
        )

    put("cut in the middle", lambda data: data[: len(data) // 2])
    put("cut after 400 bytes", lambda data: data[:400])

    def deep(data: bytes) -> bytes:
        at = data.index(struct.pack("<2H", 0x10, 0x20))
        return data[:at] + nested(1000) + data[at:]

    put("sequences nested 1,000 times", deep)


# ---- archives ----


@cache
def _slices() -> tuple[bytes, ...]:
    return tuple(bytes_of(slice_(k)) for k in range(SLICES))


def _zip(
    names: Callable[[int], str] = "ct/{:03d}.dcm".format, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names may repeat
        for k, data in enumerate(_slices()):
            file.writestr(zipfile.ZipInfo(names(k)), data, method)
    return out.getvalue()


def _with_member(name: str, data: bytes, attributes: int = 0) -> bytes:
    out = io.BytesIO(_zip())
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = attributes << 16
        file.writestr(info, data)
    return out.getvalue()


def _zip_bomb() -> bytes:
    """A member that states, and has, 2 GB of zeros in 2 MB."""
    data = inflating(b"", 2000, "deflate")
    head = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0, 0, len(data), 2000 * MB)
    local = b"PK\3\4" + head + struct.pack("<HH", 5, 0) + b"a.dcm" + data
    entry = b"PK\1\2" + struct.pack("<H", 20) + head
    entry += struct.pack("<HHHHHII", 5, 0, 0, 0, 0, 0, 0) + b"a.dcm"
    end = b"PK\5\6" + struct.pack("<4HIIH", 0, 0, 1, 1, len(entry), len(local), 0)
    return local + entry + end


def _entry(data: bytes, *edits: tuple[int, str, int]) -> bytes:
    """The zip with values packed into its first entry of the list, and into its local header."""
    at = data.index(b"PK\1\2")
    return edited(data, *((at + offset, form, value) for offset, form, value in edits))


def _zips() -> None:
    def put(what: str, data: Callable[[], bytes], accepted: bool = False) -> None:
        add(
            "DICOM archive",
            f"zip: {what}",
            "a.zip",
            lambda p: p.write_bytes(data()),
            accepted,
            "archive",
        )

    put("sound", _zip, True)
    put("sound, not packed", lambda: _zip(method=zipfile.ZIP_STORED), True)
    put("absolute paths", lambda: _zip("/etc/cron.d/{:03d}.dcm".format), True)
    put("paths that lead out", lambda: _zip("../../../{:03d}.dcm".format), True)
    put("all members of one name", lambda: _zip(lambda k: "a.dcm"), True)
    put("a link to /etc/passwd", lambda: _with_member("b.dcm", b"/etc/passwd", 0o120777), True)
    put("another archive inside", lambda: _with_member("more.zip", _zip()), True)
    put("a page of the web inside", lambda: _with_member("a.html", b"<html>" * 100), True)
    put("cut in the middle", lambda: _zip()[: len(_zip()) // 2])
    put("a changed byte", lambda: edited(_zip(), (300, "Q", 0)))
    put("encrypted, by its list", lambda: _entry(_zip(), (8, "H", 1)))
    put("a member of 4 GB, by its list", lambda: _entry(_zip(), (24, "I", 2**32 - 2)))
    put("a member behind the end", lambda: _entry(_zip(), (42, "I", 2**31)))
    put("a compression that is unknown", lambda: _entry(_zip(), (10, "H", 77)))
    put("a wrong checksum", lambda: _entry(_zip(), (16, "I", 1)))
    put("10^9 members stated", _many_members)
    put("2 MB that unpack to 2.1 GB", _zip_bomb)


def _many_members() -> bytes:
    data = _zip()
    return edited(data, (data.rindex(b"PK\5\6") + 12, "I", 2**31))


def _tar(mode: str = "w", *more: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:  # type: ignore[call-overload]
        for one in more:
            file.addfile(one, io.BytesIO(bytes(one.size)))
        for k, data in enumerate(_slices()):
            info = tarfile.TarInfo(f"ct/{k:03d}.dcm")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _special(kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("ct/special.dcm")
    info.type, info.linkname, info.devmajor, info.devminor = kind, link, 1, 5
    return info


def _tars() -> None:
    def put(what: str, data: Callable[[], bytes], accepted: bool = False) -> None:
        add(
            "DICOM archive",
            f"tar: {what}",
            "a.tar",
            lambda p: p.write_bytes(data()),
            accepted,
            "archive",
        )

    put("sound", _tar, True)
    put("sound, gzip", lambda: _tar("w:gz"), True)
    put("a device inside", lambda: _tar("w", _special(tarfile.CHRTYPE)), True)
    put("a named pipe inside", lambda: _tar("w", _special(tarfile.FIFOTYPE)), True)
    put("a link to /etc/passwd", lambda: _tar("w", _special(tarfile.SYMTYPE, "/etc/passwd")), True)
    put(
        "a hard link to itself",
        lambda: _tar("w", _special(tarfile.LNKTYPE, "ct/special.dcm")),
        True,
    )
    put("cut in the middle", lambda: _tar()[:20_000])
    put("a header of zeros in the middle", lambda: _second_header(b"\0" * 512))
    put("a header of 0xff in the middle", lambda: _second_header(b"\xff" * 512))
    put("gzip, cut in the middle", lambda: _tar("w:gz")[:3000])
    put("gzip, 2 MB that unpack to 2.1 GB", lambda: inflating(_tar()[:-1024], 2100))


def _second_header(header: bytes) -> bytes:
    data = _tar()
    at = data.index(b"ct/001.dcm")
    return data[:at] + header + data[at + 512 :]


# ---- DICOMDIR ----


def _record(kind: str, **values: Any) -> Dataset:
    return _item(
        OffsetOfTheNextDirectoryRecord=0,
        RecordInUseFlag=0xFFFF,
        OffsetOfReferencedLowerLevelDirectoryEntity=0,
        DirectoryRecordType=kind,
        **values,
    )


def _index(change: Change = lambda one: None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.mkdir()
        for k, data in enumerate(_slices()):
            (path / f"I{k:03d}").write_bytes(data)
        one = slice_(0)
        one.file_meta.MediaStorageSOPClassUID = DIRECTORY
        for element in list(one):
            del one[element.tag]
        one.FileSetID = "X"
        one.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
        series = _record("SERIES", SeriesInstanceUID=f"{ROOT}2000", Modality="CT")
        images = [
            _record(
                "IMAGE",
                ReferencedFileID=f"I{k:03d}",
                ReferencedSOPInstanceUIDInFile=f"{ROOT}{k + 1}",
            )
            for k in range(SLICES)
        ]
        one.DirectoryRecordSequence = [series, *images]
        _link(one)
        change(one)
        (path / "DICOMDIR").write_bytes(bytes_of(one))

    return write


def _link(one: FileDataset) -> None:
    """Set the offsets of all records: the series first, and its images one after the other."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import dcmread

    places = [
        record.seq_item_tell
        for record in dcmread(DicomBytesIO(bytes_of(one)), force=True).DirectoryRecordSequence
    ]
    records = one.DirectoryRecordSequence
    one.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = places[0]
    records[0].OffsetOfReferencedLowerLevelDirectoryEntity = places[1]
    for n in range(1, len(records) - 1):
        records[n].OffsetOfTheNextDirectoryRecord = places[n + 1]


def _circle(one: FileDataset) -> None:
    records = one.DirectoryRecordSequence
    records[-1].OffsetOfTheNextDirectoryRecord = records[1].OffsetOfTheNextDirectoryRecord
    records[
        0
    ].OffsetOfTheNextDirectoryRecord = one.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity


def _directories() -> None:
    def put(what: str, change: Change = lambda one: None) -> None:
        add("DICOMDIR", what, "medium", _index(change), True)

    put("sound")
    put("records in a circle", _circle)
    put("no first record", _set(OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity=10**9))
    put("no records", _set(DirectoryRecordSequence=[]))
    put("a file that is missing", lambda one: _file(one, "I999"))
    put("a file outside the folder", lambda one: _file(one, ["..", "..", "I999"]))


def _file(one: FileDataset, name: str | list[str]) -> None:
    one.DirectoryRecordSequence[5].ReferencedFileID = name


_objects()
_raw("DICOM enhanced", enhanced, "image")
_raw("DICOM segmentation", segmentation, "segments")
_contours()
_raw("DICOM structure set", structure_set, "contours")
_raw("DICOM mosaic", mosaic, "image")
_zips()
_tars()
_directories()
