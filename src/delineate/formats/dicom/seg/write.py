"""Label volumes as DICOM Segmentation objects (PS3.3 A.51), written by highdicom.

The type is BINARY by default, the most widely supported one; frames without a voxel are omitted.
The slice thickness of the masks is the measured gap between slices, because the scan's
SliceThickness need not fill the space. An object has its name only after it was read back and every
frame was equal, in its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core import atomic
from ....core.errors import OutputError
from ....core.labels import Label, LabelSet
from ....core.prediction import PROBABILITY_ONE
from ....core.terms import coding_of
from ....core.volume import Volume
from ..derived import (
    algorithm_of,
    as_measured,
    by_highdicom,
    concept,
    new_series,
    pixel_measures,
    source_images,
    with_dates_of,
)
from ..geometry import LPS_TO_RAS, tolerance_mm
from ..header.file import Series
from ..header.marks import items_in
from ..identity import uid_of
from ..source import SourceSeries, is_flat, on_planes, on_series, present_labels, source_of
from .encoding import BINARY, MOST, SYNTAXES, SegEncoding
from .frames import frames as frames_of
from .header import read_header

UNKNOWN = "not stated"  # the name of the algorithm of masks of which it is not known


@dataclass(frozen=True, eq=False)
class _Content:
    """What a SEG states about its series.

    Args:
        stored: (planes, rows, columns) segment numbers, 0 for none; or (planes, rows, columns,
            segments) masks of structures that may overlap, or shares of ``MOST`` if the type is
            FRACTIONAL.
        present: the structures in the order of their segment numbers.
        algorithm: name and version.
        description: of the new series.
        encoding: type and syntax.
        is_probability: whether shares are probabilities, not parts of the voxel.
    """

    stored: NDArray[Any]
    present: Sequence[Label]
    algorithm: tuple[str, str]
    description: str
    encoding: SegEncoding
    is_probability: bool = False

    def frame(self, plane: int, number: int) -> NDArray[Any]:
        """(rows, columns) the pixels of a segment in a plane; of a label map, of all segments."""
        pixels: NDArray[Any] = self.stored[plane]
        if self.encoding.kind == "LABELMAP":
            return pixels
        if pixels.ndim == 3:
            return pixels[:, :, number - 1]
        most = MOST if self.encoding.kind == "FRACTIONAL" else 1
        return np.asarray(pixels == number, np.uint8) * np.uint8(most)

    def words(self) -> tuple[str | bytes, ...]:
        """All of it, for a UID."""
        import highdicom as hd

        binary = self.stored.ndim == 4 and self.encoding.kind == "BINARY"
        return (
            *("SEG", hd.__version__, str(self.encoding), str(self.is_probability)),
            *(str(self.present), str([coding_of(label) for label in self.present])),
            *(*self.algorithm, self.description, str(self.stored.shape)),
            (np.packbits(self.stored) if binary else self.stored).tobytes(),
        )


def seg_source(
    series: Series | Sequence[str | Path],
    labels: LabelSet,
    *,
    algorithm_name: str,
    algorithm_version: str,
    encoding: SegEncoding = BINARY,
) -> SourceSeries:
    """Read what a SEG needs from a series, and test it with a SEG of one voxel.

    A series that lacks a required attribute is so found before any work is done.

    Args:
        series: as found, or all files of one DICOM series, in any order.
        labels, algorithm_name, algorithm_version, encoding: as for ``write_seg``.

    Raises:
        GeometryError, FormatError: no SEG can refer to this series; the message names the file and
            the missing attribute.
        UsageError: the type cannot hold these structures.
    """
    encoding.refuse_unfit(labels)
    source = source_of(series)
    # highdicom checks the headers when it builds the object, so one voxel is enough.
    columns, rows, _ = source.grid.shape
    stored = np.zeros((len(source.slices), rows, columns), np.uint8)
    stored[0, 0, 0] = 1
    algorithm = algorithm_name, algorithm_version
    _segmentation(_Content(stored, list(labels)[:1], algorithm, "", BINARY), source)
    return source


def write_seg(
    labels_volume: Volume,
    labels: LabelSet,
    series: SourceSeries | Series | Sequence[str | Path],
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_description: str = "Segmentation",
    encoding: SegEncoding = BINARY,
    probabilities: NDArray[np.uint16] | None = None,
) -> list[str]:
    """Write one SEG object that refers to every slice of its series, with one segment per
    structure.

    The same content gets the same SOPInstanceUID, other content another one (``uid_of``).

    Args:
        labels_volume: (I, J, K) label values, or codes of structures that overlap (``LabelSet``),
            on the grid of the series, or on that grid flipped and permuted.
        labels: names, colours, sides and codes ("10200004" or "SCT:10200004"); every value of the
            volume must be in it.
        series: as for ``seg_source``, or its result.
        path: of the new file.
        algorithm_name, algorithm_version: what made the masks; no name if it is not known.
        series_description: of the new series.
        encoding: type and transfer syntax.
        probabilities: (structures + 1, I, J, K) as in ``Prediction``, on the grid of the labels:
            of which a FRACTIONAL object is made, else of the masks.

    Returns:
        One sentence for each structure without a voxel, which is omitted, and for each value of
        the series that was changed to be valid.

    Raises:
        GeometryError: the volume differs from the grid of the series by more than 0.1 mm, or the
            series is not an evenly spaced stack.
        FormatError: a file is not an image, the files belong to several series, or they lack an
            attribute that a SEG must repeat.
        LabelError, UsageError: values that ``labels`` does not have; structures may overlap in a
            label map.
        OutputError: no structure has a voxel (a SEG has at least one segment and frame), the file
            cannot be written, or it differs when it is read back.
    """
    encoding.refuse_unfit(labels)
    if not isinstance(series, SourceSeries):
        series = source_of(series)
    array = on_series(labels_volume, series, labels)
    present = present_labels(array, labels, path)
    chances = probabilities if encoding.kind == "FRACTIONAL" else None
    if chances is None:
        stored = _segment_numbers(array, present, labels, encoding)
    else:
        moved = on_planes(labels_volume.with_array(chances), series)
        stored = _shares(moved, [labels.values.index(one.value) for one in present])
    made = algorithm_name or UNKNOWN, algorithm_version
    content = _Content(stored, present, made, series_description, encoding, chances is not None)
    del array, stored  # an object of many slices needs the memory
    _save(content, series, path)
    return series.notes_about(labels, present, "SEG")


def _save(content: _Content, series: SourceSeries, path: str | Path) -> None:
    """Write the file, and give it its name after it was read back."""
    segmentation = _segmentation(content, series)
    _check_references(segmentation, series)
    with atomic.replacing(path) as temporary:
        segmentation.save_as(temporary)
        del segmentation
        _prove(temporary, content, series)


def _segment_numbers(
    array: NDArray[Any], present: Sequence[Label], labels: LabelSet, encoding: SegEncoding
) -> NDArray[Any]:
    """Convert label values to segment numbers 1..N, 0 for none: (K, rows, columns); codes of
    structures that overlap to masks or shares (K, rows, columns, N).
    """
    if labels.overlapping:
        masks = [labels.inside(array, label).transpose(2, 1, 0) for label in present]
        stored = np.stack(masks, axis=-1).astype(np.uint8)
        return stored * np.uint8(MOST) if encoding.kind == "FRACTIONAL" else stored
    # Segment numbers have no gaps, whatever the label values are.
    table = np.zeros(int(array.max()) + 1, np.uint8 if len(present) < 256 else np.uint16)
    for number, label in enumerate(present, start=1):
        table[label.value] = number
    return np.ascontiguousarray(table[array].transpose(2, 1, 0))


def _shares(chances: NDArray[np.uint16], structures: Sequence[int]) -> NDArray[np.uint8]:
    """(K, rows, columns, N) the shares of structures.

    Args:
        chances: (structures + 1, I, J, K) in steps of 1 / ``PROBABILITY_ONE``, of the background
            first.
        structures: the numbers of N of them, from 0.
    """
    step = PROBABILITY_ONE // MOST
    shares = np.empty((*chances.shape[:0:-1], len(structures)), np.uint8)
    for at, n in enumerate(structures):
        for k, plane in enumerate(chances[n + 1].T):
            # In 32 bits, because half a step more than the most does not fit into 16.
            shares[k, :, :, at] = (plane.astype(np.uint32) + step // 2) // step
    return shares


# ---- the object ----


def _segmentation(content: _Content, series: SourceSeries) -> Any:
    """Build the SEG object.

    Raises:
        FormatError: highdicom rejects the headers of the series.
    """
    import highdicom as hd

    name, version = content.algorithm
    identity, maker = algorithm_of(name, version), (name.replace(UNKNOWN, "delineate"), version)
    measures = pixel_measures(series)
    kind, stored = content.encoding.kind, content.stored
    uid = series.uid_with(*content.words())
    with by_highdicom("SEG", series):
        seg = hd.seg.Segmentation(
            source_images=source_images(series),
            # It accepts shares as floating-point numbers alone, and changes segment numbers in
            # place if there is one segment.
            pixel_array=stored > 0 if stored.ndim == 4 or len(content.present) == 1 else stored,
            # Shares replace masks, which need an eighth of the memory.
            segmentation_type="BINARY" if kind == "FRACTIONAL" else kind,
            segment_descriptions=[
                _description(n, label, identity, uid)
                for n, label in enumerate(content.present, start=1)
            ],
            pixel_measures=measures,
            content_label="SEGMENTATION",
            content_description=content.description[:64],
            omit_empty_frames=True,
            **new_series(series, "seg", uid, maker, content.description),
        )
    for item in seg.SegmentSequence if name == UNKNOWN else ():
        item.pop("SegmentationAlgorithmIdentificationSequence", None)
    if is_flat(series):
        # Without positions there is no frame of reference (PS3.3 A.51.5.1), but a side.
        seg.pop("FrameOfReferenceUID", None)
        seg.PatientOrientation = series.headers[0].get("PatientOrientation", "")
    if kind == "LABELMAP":
        # Some viewers read item n as segment n, and highdicom describes the background first.
        seg.SegmentSequence = [*seg.SegmentSequence[1:], seg.SegmentSequence[0]]
    if kind == "FRACTIONAL":
        _put_shares(seg, content, series)
    return _encoded(with_dates_of(series.headers[0], as_measured(seg, series, measures)), content)


def _planes_of(seg: Any, series: SourceSeries) -> NDArray[np.intp]:
    """The plane of the series of each frame, from 0; see ``_planes``."""
    groups = seg.PerFrameFunctionalGroupsSequence
    if is_flat(series):
        return np.zeros(len(groups), np.intp)
    places = [one.PlanePositionSequence[0].ImagePositionPatient for one in groups]
    return _planes(np.array(places, np.float64), series)


def _put_shares(seg: Any, content: _Content, series: SourceSeries) -> None:
    """Make an object of masks one of shares, with one frame in memory at a time."""
    groups = seg.PerFrameFunctionalGroupsSequence
    named = (one.get("SegmentIdentificationSequence") for one in groups)
    # All frames of a single segment share its number.
    numbers = [one[0].ReferencedSegmentNumber if one else 1 for one in named]
    pairs = zip(_planes_of(seg, series), numbers, strict=True)
    frames = (content.frame(int(k), int(n)).tobytes() for k, n in pairs)
    seg.SegmentationType = "FRACTIONAL"
    seg.SegmentationFractionalType = "PROBABILITY" if content.is_probability else "OCCUPANCY"
    seg.MaximumFractionalValue = MOST
    seg.BitsAllocated, seg.BitsStored, seg.HighBit = 8, 8, 7
    if content.is_probability:
        seg.SegmentsOverlap = "UNDEFINED"
    if content.encoding.syntax == "rle":
        _encapsulate(seg, frames)
        return
    # pydicom copies a file to the file that it writes, in parts.
    pixels = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
    size = sum(map(pixels.write, frames))
    pixels.write(b"\0" * (size % 2))
    pixels.seek(0)
    seg.PixelData = pixels


def _encapsulate(seg: Any, frames: Iterable[bytes]) -> None:
    """Put frames of bytes into an object in RLE."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.encoders.base import get_encoder
    from pydicom.uid import RLELossless

    stored: dict[str, Any] = {
        "rows": seg.Rows,
        "columns": seg.Columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": seg.BitsAllocated,
        "bits_stored": seg.BitsStored,
        "pixel_representation": 0,
        "photometric_interpretation": seg.PhotometricInterpretation,
    }
    # Other encoders of RLE can end the process (GDCM).
    encoder = get_encoder(RLELossless)
    seg.PixelData = encapsulate(
        [encoder.encode(frame, encoding_plugin="pydicom", **stored) for frame in frames]
    )
    seg["PixelData"].VR, seg["PixelData"].is_undefined_length = "OB", True


def _encoded(seg: Any, content: _Content) -> Any:
    """The object in its transfer syntax."""
    from pydicom.uid import UID

    syntax = UID(SYNTAXES[content.encoding.syntax])
    if syntax.is_encapsulated and content.encoding.kind == "LABELMAP":
        # Other encoders of RLE can end the process (GDCM).
        seg.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    seg.file_meta.TransferSyntaxUID = syntax
    return seg


def _description(number: int, label: Label, identity: Any, uid: str) -> Any:
    """Describe one segment: its codes, colour and algorithm."""
    import highdicom as hd

    coding, stated = coding_of(label), identity[0].AlgorithmName != UNKNOWN
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=concept(coding.category),
        segmented_property_type=concept(coding.kind),
        anatomic_regions=[concept(coding.region)] if coding.region else None,
        # Manual or automatic would be a claim about masks of which it is not known.
        algorithm_type="AUTOMATIC" if stated else "SEMIAUTOMATIC",
        algorithm_identification=identity,
        tracking_uid=uid_of("tracking", uid, label.name),
        tracking_id=label.name[:64],
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    if coding.side is None:
        return description
    # The side is a modifier of the region, else of the property type (laterality).
    if coding.region:
        item = description.AnatomicRegionSequence[0]
        item.AnatomicRegionModifierSequence = [concept(coding.side)]
    else:
        item = description.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [concept(coding.side)]
    return description


# ---- proof ----


def _planes(positions: NDArray[np.float64], series: SourceSeries) -> NDArray[np.intp]:
    """The planes of the series, from 0, at these positions (N, 3) in LPS mm.

    Raises:
        OutputError: a position is that of no plane.
    """
    grid = series.grid
    points = positions @ LPS_TO_RAS[:3, :3]
    index = np.rint(grid.to_index(points))
    away = np.linalg.norm(grid.to_mm(index) - points, axis=1)
    numbers = np.full(grid.shape[2], -1, np.intp)
    numbers[list(series.slices)] = np.arange(len(series.slices))
    k = index[:, 2].astype(np.intp)
    inside = (k >= 0) & (k < len(numbers)) & ~index[:, :2].any(axis=1)
    planes = np.where(inside, numbers[k.clip(0, len(numbers) - 1)], -1)
    if (planes < 0).any() or away.max(initial=0) > tolerance_mm(grid.spacing_mm[2]):
        raise OutputError("a frame of the segmentation is not on a slice of its series")
    return planes


def _check_references(seg: Any, series: SourceSeries) -> None:
    """Check that each frame refers to the image at its own position.

    Raises:
        OutputError: one refers to another, or to none.
    """
    groups = seg.PerFrameFunctionalGroupsSequence
    for k, group in zip(_planes_of(seg, series), groups, strict=True):
        plane = series.planes[k]
        frame = None if plane.frame is None else plane.frame + 1
        images = items_in(group, "DerivationImageSequence", "SourceImageSequence")
        stated = [
            (one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber")) for one in images
        ]
        if stated != [(plane.instance, frame)]:
            raise OutputError(f"a frame of the segmentation refers to {stated}, not {plane.path}")


def _prove(path: Path, content: _Content, series: SourceSeries) -> None:
    """Read the file back, and compare its frames with what they should be, in their places.

    Raises:
        OutputError: a pixel differs, or a frame is missing or elsewhere.
    """
    header = read_header(path)
    none = np.zeros(header.frames, np.intp)
    planes = none if is_flat(series) else _planes(header.positions, series)
    differ, total, seen = 0, 0, set[tuple[int, int]]()
    for plane, number, frame in zip(planes, header.numbers, frames_of(header), strict=True):
        differ += int(np.count_nonzero(frame != content.frame(int(plane), int(number))))
        total += int(np.count_nonzero(frame))
        seen.add((int(plane), int(number)))
    # Frames are different, and hold all voxels: none is missing.
    missing = int(np.count_nonzero(content.stored)) - total
    if differ or missing or len(seen) < header.frames:
        raise OutputError(
            f"{differ} pixels differ and {missing} are missing when the segmentation is read back",
            path=path,
        )
