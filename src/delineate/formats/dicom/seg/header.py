"""The header of a DICOM Segmentation object as plain data: its segments, and the plane of each
frame (PS3.3 C.8.20.2, C.7.6.16). Positions are in LPS mm, as on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError
from ....core.labels import Side, side_of
from ....core.terms import names_structure, structure_of
from ... import archive
from ..header.elements import DEFLATED
from ..header.file import SAME_STATED, lenient, open_dataset
from ..header.marks import items_in, text
from ..places import Named, named_in
from .codes import BACKGROUND, GENERAL, SIDE_CODES, rgb_of

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.66."  # followed by 4, or 7 for label maps
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")


@dataclass(frozen=True)
class Segment:
    """One structure of an object.

    Args:
        number: SegmentNumber.
        value: of its voxels in label maps: the number, or the first free one for a segment 0.
        name: SegmentLabel, or the meaning of its code if the label names no structure; with its
            side.
        code: such as "SCT:10200004", "" if there is none.
        side: by the code of its laterality, else by its name.
        colour: sRGB, None if none is recommended.
        is_background: its code is that of the background, or its number is the Pixel Padding Value
            of a label map.
    """

    number: int
    value: int
    name: str
    code: str
    meaning: str
    side: Side
    colour: tuple[int, int, int] | None
    is_background: bool


@dataclass(frozen=True)
class SegHeader:
    """The header of an object; arrays have one row for each of the N frames.

    Args:
        kind: one of ``KINDS``.
        padding: the pixel value of a label map that is background; None if none is stated.
        most: the pixel value of a fraction of 1.
        numbers: (N,) the segment of each frame; 0 in a label map.
        positions, orientations, spacings: (N, 3), (N, 6), (N, 2); (0, ...) if no frame has any.
        gap_mm: SpacingBetweenSlices, 0 if it is not stated; ``thickness_mm`` likewise.
        sources: the images that each frame names; () unless they were asked for.
        begin: the byte at which the element with the pixels begins.
    """

    path: Path
    kind: str
    rows: int
    columns: int
    bits: int
    segments: tuple[Segment, ...]
    padding: int | None
    most: int
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    orientations: NDArray[np.float64]
    spacings: NDArray[np.float64]
    gap_mm: float
    thickness_mm: float
    frame_of_reference: str
    syntax: str
    begin: int
    facts: dict[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()
    sources: tuple[tuple[Named, ...], ...] = field(default=(), repr=False)

    @property
    def frames(self) -> int:
        return len(self.numbers)

    @property
    def is_flat(self) -> bool:
        """Whether these are frames of one 2-D image that has no place in space."""
        return not len(self.positions) and len(np.unique(self.numbers)) == self.frames

    def count(self, number: int) -> int:
        """The number of frames of a segment."""
        return int(np.count_nonzero(self.numbers == number))

    @property
    def structures(self) -> tuple[Segment, ...]:
        """The segments that are no background."""
        return tuple(segment for segment in self.segments if not segment.is_background)


def read_header(path: str | Path, with_sources: bool = False) -> SegHeader:
    """Read the header of a Segmentation object.

    Args:
        with_sources: also read which images the frames name.

    Raises:
        FormatError: not such an object, one of a whole-slide image, one part of several, or frames
            without what they need.
    """
    with lenient(path, "DICOM SEG"):
        dataset, begin = _opened(Path(path))
        _refuse_kinds(dataset)
        groups = _FunctionalGroups.of(dataset)
        kind = str(dataset.SegmentationType)
        padding = dataset.get("PixelPaddingValue") if kind == "LABELMAP" else None
        segments, notes = _segments(dataset, padding)
        facts = {
            "patient": "PatientID",
            "series": "SeriesInstanceUID",
            "study": "StudyInstanceUID",
            "description": "SeriesDescription",
        }
        return SegHeader(
            Path(path),
            kind,
            int(dataset.Rows),
            int(dataset.Columns),
            int(dataset.BitsAllocated),
            segments,
            padding,
            _most(dataset, kind),
            groups.segment_numbers(kind),
            groups.table("PlanePositionSequence", "ImagePositionPatient", 3),
            groups.table("PlaneOrientationSequence", "ImageOrientationPatient", 6),
            groups.table("PixelMeasuresSequence", "PixelSpacing", 2),
            groups.number("PixelMeasuresSequence", "SpacingBetweenSlices"),
            groups.number("PixelMeasuresSequence", "SliceThickness"),
            frame_of_reference=str(dataset.get("FrameOfReferenceUID") or ""),
            syntax=str(dataset.file_meta.TransferSyntaxUID),
            begin=begin,
            facts={name: str(dataset.get(key) or "") for name, key in facts.items()},
            notes=notes,
            sources=groups.sources() if with_sources else (),
        )


def _most(dataset: Any, kind: str) -> int:
    """The pixel value of a fraction of 1; 255 where fractions do not state it.

    Raises:
        FormatError: it is 0 or negative.
    """
    stated = dataset.get("MaximumFractionalValue")
    if kind == "FRACTIONAL" and stated is not None and int(stated) <= 0:
        raise FormatError(f"MaximumFractionalValue is {stated}, so its values are no fractions")
    return int(stated or 255)


def _opened(path: Path) -> tuple[Any, int]:
    """The dataset without pixels, and the byte at which these begin (0 if the whole file is
    deflated).
    """
    import pydicom

    dataset = open_dataset(path, stop_before_pixels=True)
    if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
        # The default transfer syntax if none is stated (PS3.5 10.1).
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    if dataset.file_meta.TransferSyntaxUID == DEFLATED:
        return dataset, 0
    # pydicom stops at the element with the pixels.
    with archive.opened(path) as file:
        pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=[])
        return dataset, file.tell()


def _refuse_kinds(dataset: Any) -> None:
    """Refuse objects that are not read as one stack of slices."""
    if not str(dataset.get("SOPClassUID", "")).startswith(SOP_CLASS):
        raise FormatError("not a DICOM Segmentation object")
    if dataset.get("TotalPixelMatrixColumns") or "TILED" in str(
        dataset.get("DimensionOrganizationType", "")
    ):
        rows, columns = (dataset.get(f"TotalPixelMatrix{n}", "?") for n in ("Rows", "Columns"))
        raise FormatError(
            f"a segmentation of a whole-slide image ({columns} x {rows} pixels in tiles), which is "
            "no volume; highdicom reads it (Segmentation.get_total_pixel_matrix)"
        )
    if (parts := int(dataset.get("InConcatenationTotalNumber") or 1)) > 1:
        raise FormatError(
            f"part {dataset.get('InConcatenationNumber', '?')} of {parts} of one segmentation "
            "(a concatenation); these are not joined yet, and one part alone lacks frames"
        )
    kind = str(dataset.get("SegmentationType", ""))
    if kind not in KINDS:
        raise FormatError(
            f"a segmentation of the type {kind or 'unknown'}; allowed are {', '.join(KINDS)}"
        )
    if kind == "FRACTIONAL" and dataset.get("BitsAllocated") != 8:
        raise FormatError(
            f"fractions in {dataset.get('BitsAllocated', '?')} bits; allowed are 8 (C.8.20.2.3)"
        )
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise FormatError(f"{dataset.SamplesPerPixel} samples for each pixel; allowed is 1")


# ---- frames ----


@dataclass(frozen=True)
class _FunctionalGroups:
    """What the frames state: the groups of each one, and those that all of them share (PS3.3
    C.7.6.16).
    """

    shared: Any
    frames: tuple[Any, ...]

    @classmethod
    def of(cls, dataset: Any) -> _FunctionalGroups:
        """Raises FormatError if the frames are not all described."""
        count = int(dataset.get("NumberOfFrames") or 1)
        frames = tuple(dataset.get("PerFrameFunctionalGroupsSequence") or ())
        if len(frames) != count:
            raise FormatError(f"{count} frames are stated, but {len(frames)} are described")
        return cls(_first(dataset, "SharedFunctionalGroupsSequence"), frames)

    def values(self, group: str, name: str) -> list[Any]:
        """The attribute of each frame, its own before the shared one; None where it is missing."""
        common = _first(self.shared, group).get(name)
        own = (_first(frame, group).get(name) for frame in self.frames)
        return [common if value in (None, "") else value for value in own]

    def agreed(self, group: str, name: str) -> list[Any]:
        """``values`` that must not be stated twice with different numbers.

        Raises:
            FormatError: frames have another one than all of them share.
        """
        values = self.values(group, name)
        common = _first(self.shared, group).get(name)
        if common in (None, ""):
            return values
        differ = sum(value is not common and _far(value, common) for value in values)
        if differ:
            raise FormatError(
                f"{name} of {differ} frames is another one than that which all frames share "
                "(PS3.3 C.7.6.16), so it is not known which one counts"
            )
        return values

    def table(self, group: str, name: str, width: int) -> NDArray[np.float64]:
        """The attribute of all frames, (N, width); (0, width) if no frame has it.

        Raises:
            FormatError: only some have it, or values that are not finite numbers.
        """
        values = self.agreed(group, name)
        missing = sum(value is None for value in values)
        if missing == len(values):
            return np.empty((0, width))
        table = np.array([value for value in values if value is not None], np.float64)
        if missing or table.shape != (len(values), width) or not np.isfinite(table).all():
            raise FormatError(f"{name} is missing or unreadable in some of {len(values)} frames")
        return table

    def number(self, group: str, name: str) -> float:
        """The largest value of the attribute; 0 if no frame has it."""
        return max((float(value) for value in self.values(group, name) if value), default=0.0)

    def sources(self) -> tuple[tuple[Named, ...], ...]:
        """The images that each frame names as its own, or else that all frames name."""
        path = ("DerivationImageSequence", "SourceImageSequence")
        common = named_in(self.shared, *path)
        return tuple(named_in(frame, *path) or common for frame in self.frames)

    def segment_numbers(self, kind: str) -> NDArray[np.int64]:
        """The segment of each frame; 0 if the pixel values are the segments.

        Raises:
            FormatError: a frame has none.
        """
        if kind == "LABELMAP":
            return np.zeros(len(self.frames), np.int64)
        name = "ReferencedSegmentNumber"
        values = self.agreed("SegmentIdentificationSequence", name)
        if None in values:
            raise FormatError(f"{name} is missing in {values.count(None)} of {len(values)} frames")
        return np.array(values, np.int64)


def _far(one: Any, other: Any) -> bool:
    """Whether the numbers of two attributes differ by more than rounding."""
    pair = [np.atleast_1d(np.asarray(value, np.float64)) for value in (one, other)]
    return pair[0].shape != pair[1].shape or bool(np.abs(pair[0] - pair[1]).max() > SAME_STATED)


def _first(dataset: Any, name: str) -> Any:
    """The first item of a sequence; {} if it is missing or empty."""
    items = dataset.get(name)
    return items[0] if items else {}


# ---- segments ----


def _segments(dataset: Any, padding: int | None) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """The segments in the order of their values, with different names; and a sentence for each
    side that label and code contradict. The segment ``padding`` is background.

    Raises:
        FormatError: none, or two with one number.
    """
    found = sorted(
        (_segment(item) for item in dataset.get("SegmentSequence") or ()), key=lambda s: s.number
    )
    numbers = [segment.number for segment in found]
    if not found or len(set(numbers)) < len(numbers):
        raise FormatError(f"segments are described by number, found the numbers {numbers}")
    names = [segment.name for segment in found]
    free = next(n for n in range(1, len(numbers) + 2) if n not in numbers)
    unique = tuple(
        replace(
            s,
            value=s.number or free,
            name=f"{s.name} ({s.number})" if names.count(s.name) > 1 else s.name,
            is_background=s.is_background or s.number == padding,
        )
        for s in found
    )
    notes = (
        f"segment {s.number} is called {s.name!r}, but its code states the {s.side} side"
        for s in unique
        if s.side and side_in(s.name) not in (None, s.side)
    )
    return tuple(sorted(unique, key=lambda s: s.value)), tuple(notes)


def _segment(item: Any) -> Segment:
    kind = _first(item, "SegmentedPropertyTypeCodeSequence")
    code, meaning = _coded(kind), str(kind.get("CodeMeaning") or "").strip()
    name = text(item, "SegmentLabel")
    if not names_structure(name):
        name = meaning if meaning.casefold() not in GENERAL | {""} else name
    number = int(item.SegmentNumber)
    name, side = name or f"segment {number}", _coded_side(item, kind)
    if side and side_in(name) is None:
        name = f"{side} {name}"
    colour = item.get("RecommendedDisplayCIELabValue")
    return Segment(
        number,
        number,
        name,
        code,
        meaning,
        side or side_in(name),
        None if colour is None or len(colour) != 3 else rgb_of((colour[0], colour[1], colour[2])),
        code == BACKGROUND,
    )


def _coded_side(item: Any, kind: Any) -> Side:
    """The side by the modifier of the property type, else by that of the anatomic region, else by a
    code of one side alone.
    """
    modifiers = (
        *items_in(kind, "SegmentedPropertyTypeModifierCodeSequence"),
        *items_in(item, "SegmentedPropertyTypeModifierCodeSequence"),
        *items_in(item, "AnatomicRegionSequence", "AnatomicRegionModifierSequence"),
    )
    sides = (SIDE_CODES.get(str(one.get("CodeValue"))) for one in modifiers)
    return next((side for side in sides if side), None) or side_of(structure_of(_coded(kind)))[0]


def _coded(kind: Any) -> str:
    """The property type such as "SCT:10200004"; "" if there is none."""
    value, scheme = (
        str(kind.get(name) or "").strip() for name in ("CodeValue", "CodingSchemeDesignator")
    )
    return f"{scheme}:{value}" if value else ""


def side_in(name: str) -> Side:
    """The side that a name states, also as a part of an abbreviation such as "LV"."""
    return side_of(name)[0] or side_of(structure_of(name))[0]
