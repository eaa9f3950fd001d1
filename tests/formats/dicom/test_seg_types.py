"""SEG objects of every type and transfer syntax: read back by two readers, with UIDs that follow
from all that they state.
"""

from __future__ import annotations

import gzip
import warnings
import zlib
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from tests.formats.dicom.objects import ct, image
from tests.formats.dicom.objects import write as write_objects
from tests.formats.test_dicom_seg import _no_errors, enhanced
from tests.segmentations import series

from delineate.core.errors import FormatError, OutputError, UsageError
from delineate.core.labels import LabelSet
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import dicom
from delineate.formats.dicom.seg import SegEncoding, read_seg, seg_source, write, write_seg
from delineate.formats.dicom.seg import frames as seg_frames
from delineate.formats.label_files import read_label_file

ALGORITHM = {"algorithm_name": "network", "algorithm_version": "1.0"}
LABELS = LabelSet.from_names({2: "liver", 5: "left kidney", 9: "cyst of the right kidney"})
NESTED = LabelSet.from_names({1: "whole tumor", 2: "edema"}, overlapping=True)
ENCODINGS = [
    SegEncoding(kind, syntax)
    for kind in ("BINARY", "LABELMAP", "FRACTIONAL")
    for syntax in ("explicit", "deflated", "rle")
    if (kind, syntax) != ("BINARY", "rle")
]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """An oblique CT, what is read of it, and labels on its grid."""
    folder = tmp_path_factory.mktemp("ct")
    series(folder)
    (found,) = dicom.find_series(folder)
    grid, _ = dicom.layout(found)
    rng = np.random.default_rng(0)
    array = rng.choice([0, 0, 2, 5, 9], grid.shape).astype(np.uint8)
    array[:, :, 3] = 0
    array[:, :, 4] = 2
    return found, Volume(array, grid, "label")


def counts_by_highdicom(path: Path) -> list[int]:
    """The voxels of each segment above half."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = hd.seg.segread(path)
        pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
        if seg.SegmentationType == "LABELMAP":
            return [int((pixels == n).sum()) for n in range(1, int(pixels.max()) + 1)]
        most = int(seg.get("MaximumFractionalValue") or 1)
        volume = seg.get_volume(rescale_fractional=False).array
        return [int((volume[..., n] > most / 2).sum()) for n in range(volume.shape[-1])]


def written(path: Path, encoding: SegEncoding, scan, labels=LABELS, volume=None, **more) -> Path:
    found, masks = scan
    write_seg(volume or masks, labels, found, path, encoding=encoding, **ALGORITHM, **more)
    return path


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_every_type_is_read_back_by_two_readers(tmp_path: Path, scan, encoding) -> None:
    _, volume = scan
    path = written(tmp_path / "a.dcm", encoding, scan)
    back = read_seg(path, volume.grid)
    expected = np.zeros_like(volume.array)
    for n, value in enumerate(LABELS.values, start=1):
        expected[volume.array == value] = n
    np.testing.assert_array_equal(back.array, expected)
    assert list(back.meta["names"].values()) == LABELS.names
    packed = tmp_path / "a.dcm.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_seg(packed, volume.grid).array, expected)
    assert counts_by_highdicom(path) == [int((volume.array == v).sum()) for v in LABELS.values]
    seg = pydicom.dcmread(path)
    assert (seg.SegmentationType, seg.SOPInstanceUID) == (
        encoding.kind,
        seg.file_meta.MediaStorageSOPInstanceUID,
    )
    # The background of a label map is described last.
    background = [0] if encoding.kind == "LABELMAP" else []
    assert [one.SegmentNumber for one in seg.SegmentSequence] == [1, 2, 3, *background]
    # The plane without a voxel has no frame.
    assert seg.NumberOfFrames == (5 if encoding.kind == "LABELMAP" else 4 * 3 + 1)
    if encoding.kind != "LABELMAP" and encoding.syntax != "deflated":
        _no_errors(path)  # dciodvfy knows neither
    assert written(tmp_path / "b.dcm", encoding, scan).read_bytes() == path.read_bytes()


def repacked(path: Path, target: Path, syntax: str, frames: list[bytes]) -> Path:
    """A file with other pixels, one encapsulated part for each frame."""
    made = pydicom.dcmread(path)
    assert len(syntax) <= 22
    made.PixelData = pydicom.encaps.encapsulate(frames)
    made["PixelData"].is_undefined_length = True
    # pydicom writes no syntax that it does not know; this one has as many characters.
    made.file_meta.TransferSyntaxUID = known = "1.2.840.10008.1.2.4.50"
    made.save_as(target)
    content = target.read_bytes().replace(known.encode(), syntax.ljust(22, "\0").encode(), 1)
    target.write_bytes(content)
    return target


def test_frames_that_are_deflated_one_by_one_are_read(tmp_path: Path, scan) -> None:
    """Deflated Image Frame Compression, which another program writes."""
    path = written(tmp_path / "a.dcm", SegEncoding("LABELMAP", "explicit"), scan)
    expected = read_seg(path, scan[1].grid).array
    seg = pydicom.dcmread(path)
    pixels = seg.pixel_array.reshape(seg.NumberOfFrames, -1)

    def deflated(frame: bytes) -> bytes:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(frame) + packer.flush()
        return packed + b"\0" * (len(packed) % 2)

    frames = [deflated(frame.tobytes()) for frame in pixels]
    target = repacked(path, tmp_path / "b.dcm", seg_frames.DEFLATED_FRAMES, frames)
    np.testing.assert_array_equal(read_seg(target, scan[1].grid).array, expected)
    frames[1] = deflated(pixels[1].tobytes()[:-9])
    repacked(path, target, seg_frames.DEFLATED_FRAMES, frames)
    with pytest.raises(FormatError, match=r"a frame of \d+ bytes, but \d+ are stated"):
        read_seg(target, scan[1].grid)


def test_frames_of_a_codec_are_read_in_a_process_and_damage_is_named(tmp_path: Path, scan) -> None:
    path = written(tmp_path / "a.dcm", SegEncoding("LABELMAP", "explicit"), scan)
    expected = read_seg(path, scan[1].grid).array
    packed, damaged = tmp_path / "b.dcm", tmp_path / "c.dcm"
    seg = pydicom.dcmread(path)
    pixels = seg.pixel_array
    seg.compress(pydicom.uid.JPEG2000Lossless, generate_instance_uid=False)
    seg.save_as(packed)
    np.testing.assert_array_equal(read_seg(packed, scan[1].grid).array, expected)
    # As the process calls it.
    facts, found = seg_frames.decoded(str(packed), 1, 3)
    assert facts == {} and (found[0] == pixels[1:3]).all()
    repacked(packed, damaged, "1.2.840.10008.1.2.4.90", [b"no code stream"] * len(pixels))
    with pytest.raises(FormatError, match=r"cannot be decoded \(JPEG 2000"):
        seg_frames.decoded(str(damaged), 0, 1)
    repacked(packed, damaged, seg_frames.DEFLATED_FRAMES, [b"no codec's"] * len(pixels))
    with pytest.raises(FormatError, match=r"the syntax .* is not supported"):
        seg_frames.decoded(str(damaged), 0, 1)


def test_each_type_syntax_and_content_has_its_own_uid(tmp_path: Path, scan) -> None:
    _, volume = scan
    paths = [written(tmp_path / f"{n}.dcm", one, scan) for n, one in enumerate(ENCODINGS)]
    changed = volume.array.copy()
    changed[0, 0, 3] = 5
    binary, fractional = ENCODINGS[0], ENCODINGS[-1]
    for encoding in (binary, fractional):
        other = written(
            tmp_path / f"{encoding.kind}.dcm", encoding, scan, volume=volume.with_array(changed)
        )
        paths.append(other)
    chances = probabilities(volume)
    paths.append(written(tmp_path / "p.dcm", fractional, scan, probabilities=chances))
    chances[1, 0, 0, 0] = 65535
    paths.append(written(tmp_path / "q.dcm", fractional, scan, probabilities=chances))
    made = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({getattr(one, name) for one in made}) == len(paths) == 12
    tracking = {
        item.TrackingUID for one in made for item in one.SegmentSequence if item.get("TrackingUID")
    }
    assert len(tracking) == 3 * 12


def probabilities(volume: Volume) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 65536, (4, *volume.grid.shape), dtype=np.uint16)


def test_fractions_are_the_probabilities(tmp_path: Path, scan) -> None:
    _, volume = scan
    chances = probabilities(volume)
    chances[1, :5, 0, 0] = 0, 128, 129, 65407, 65535
    # In any orientation, and for structures with a voxel alone.
    array = np.where(volume.array == 5, 2, volume.array).astype(np.uint8)
    turned = Volume(array, volume.grid, "label").reorient("SRA")
    rolled = Volume(chances, volume.grid).reorient("SRA").array
    path = written(tmp_path / "a.dcm", ENCODINGS[-3], scan, volume=turned, probabilities=rolled)
    shares = read_seg(path, volume.grid, threshold=None)
    expected = np.rint(chances[[1, 3]] / 257.0)
    np.testing.assert_array_equal(np.rint(shares.array * 255), expected)
    assert expected[0, :5, 0, 0].tolist() == [0, 0, 1, 255, 255]
    seg = pydicom.dcmread(path)
    assert (seg.SegmentationFractionalType, seg.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert seg.SegmentsOverlap == "UNDEFINED"
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["liver", "cyst of the right kidney"]
    _no_errors(path)


def test_structures_that_overlap(tmp_path: Path, scan) -> None:
    found, volume = scan
    codes = np.random.default_rng(2).integers(0, 4, volume.grid.shape).astype(np.uint8)
    nested = Volume(codes, volume.grid, "label")
    expected = np.stack([codes & 1, codes >> 1 & 1])
    for n, encoding in enumerate((ENCODINGS[0], ENCODINGS[1], ENCODINGS[-1])):
        path = written(tmp_path / f"{n}.dcm", encoding, scan, NESTED, nested)
        np.testing.assert_array_equal(read_seg(path, volume.grid).array, expected)
    label_map = SegEncoding("LABELMAP")
    with pytest.raises(UsageError, match="these structures may overlap; give --seg-type BINARY"):
        seg_source(found, NESTED, encoding=label_map, **ALGORITHM)
    with pytest.raises(UsageError, match="may overlap"):
        written(tmp_path / "m.dcm", label_map, scan, NESTED, nested)
    assert not (tmp_path / "m.dcm").exists()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_single_structure(tmp_path: Path, scan, kind) -> None:
    _, volume = scan
    only = volume.with_array(np.where(volume.array == 5, 5, 0).astype(np.uint8))
    path = written(tmp_path / "a.dcm", SegEncoding(kind), scan, volume=only)
    np.testing.assert_array_equal(read_seg(path, volume.grid).array, only.array == 5)


def test_what_an_encoding_is_not() -> None:
    with pytest.raises(UsageError, match="one bit for each pixel, and RLE encodes bytes"):
        SegEncoding("BINARY", "rle")
    with pytest.raises(UsageError, match="--seg-type is one of BINARY, FRACTIONAL, LABELMAP"):
        SegEncoding("binary")
    with pytest.raises(UsageError, match="--seg-syntax is one of explicit, deflated, rle"):
        SegEncoding("BINARY", "jpeg")


def test_segments_say_what_they_are(tmp_path: Path, scan) -> None:
    seg = pydicom.dcmread(written(tmp_path / "a.dcm", ENCODINGS[0], scan))
    cyst = seg.SegmentSequence[2]
    assert cyst.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert cyst.SegmentedPropertyTypeCodeSequence[0].CodeValue == "367643001"
    (region,) = cyst.AnatomicRegionSequence
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeMeaning) == (
        "64033007",
        "Right",
    )
    assert (cyst.TrackingID, cyst.SegmentAlgorithmType) == ("cyst of the right kidney", "AUTOMATIC")
    assert cyst.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.0"
    found, volume = scan
    plain = ALGORITHM | {"algorithm_name": ""}
    write_seg(volume, LABELS, found, tmp_path / "b.dcm", **plain)
    one = pydicom.dcmread(tmp_path / "b.dcm").SegmentSequence[0]
    assert (one.SegmentAlgorithmType, one.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "not stated")
    assert "SegmentationAlgorithmIdentificationSequence" not in one
    _no_errors(tmp_path / "b.dcm")


def test_every_image_is_referred_to(tmp_path: Path, scan) -> None:
    found, _ = scan
    seg = pydicom.dcmread(written(tmp_path / "a.dcm", ENCODINGS[0], scan))
    (listed,) = seg.ReferencedSeriesSequence
    assert listed.SeriesInstanceUID == found.uid
    instances = [one.ReferencedSOPInstanceUID for one in listed.ReferencedInstanceSequence]
    assert sorted(instances) == sorted(one.instance for one in found.planes)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_frames_of_one_file_in_any_order_with_several_structures(tmp_path: Path, kind) -> None:
    order = [2, 0, 4, 1, 3, 5]
    path = enhanced(tmp_path / "in", order)
    found = dicom.choose(path)
    grid, _ = dicom.layout(found)
    array = np.random.default_rng(0).choice([0, 2, 5, 9], grid.shape).astype(np.uint8)
    scan = found, Volume(array, grid, "label")
    seg = pydicom.dcmread(written(tmp_path / "s.dcm", SegEncoding(kind), scan))
    for groups in seg.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        k = order[int(source.ReferencedFrameNumber) - 1]
        assert list(groups.PlanePositionSequence[0].ImagePositionPatient) == [1, 2, 2.5 * k]
    back = read_label_file(Source(str(tmp_path / "s.dcm"), like=str(path)))
    np.testing.assert_array_equal(back.array > 0, array > 0)


def test_a_series_without_frame_of_reference(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    for path in (tmp_path / "ct").iterdir():
        one = pydicom.dcmread(path)
        del one.FrameOfReferenceUID
        one.save_as(path)
    (found,) = dicom.find_series(tmp_path / "ct")
    grid, _ = dicom.layout(found)
    array = np.random.default_rng(0).choice([0, 2, 5], grid.shape).astype(np.uint8)
    notes = write_seg(Volume(array, grid, "label"), LABELS, found, tmp_path / "s.dcm", **ALGORITHM)
    assert sum("no FrameOfReferenceUID; the object has one of its own" in n for n in notes) == 1
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    assert seg.FrameOfReferenceUID.startswith("2.25.")
    assert seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    back = read_label_file(Source(str(tmp_path / "s.dcm"), like=str(tmp_path / "ct")))
    np.testing.assert_array_equal(back.array > 0, array > 0)
    _no_errors(tmp_path / "s.dcm")


def test_a_2d_image_without_a_place_and_values_that_break_their_form(tmp_path: Path) -> None:
    one = image(np.zeros((12, 16), np.uint8), sop_class="1.2.840.10008.5.1.4.1.1.1", modality="CR")
    one.PatientName, one.PatientBirthDate, one.StudyDate = "A" * 70, "unknown", "2024-01-01"
    one.SeriesNumber = one.InstanceNumber = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_objects(tmp_path / "cr", one)
        (found,) = dicom.find_series(tmp_path / "cr")
        grid, _ = dicom.layout(found)
        array = np.zeros(grid.shape, np.uint8)
        array[2:6, 3:5], array[9:12, 4:11] = 2, 5
        path = tmp_path / "s.dcm"
        notes = write_seg(Volume(array, grid, "label"), LABELS, found, path, **ALGORITHM)
    assert [note for note in notes if "voxel" not in note] == [
        "the image has no place in space; the object is tied to it by its SOPInstanceUID",
        "StudyDate 2024-01-01 is no date of DICOM and is left out",
        "PatientBirthDate is no date of DICOM and is left out",
        "PatientName is cut to the 64 characters allowed",
    ]
    assert "FrameOfReferenceUID" not in pydicom.dcmread(path)
    back = read_label_file(Source(str(path), like=str(tmp_path / "cr")))
    assert np.array_equal(back.array == 1, array == 2) and np.array_equal(
        back.array == 2, array == 5
    )
    _no_errors(path)


def test_slices_of_a_microscope(tmp_path: Path) -> None:
    thin = {"PixelSpacing": [0.001, 0.001], "FrameOfReferenceUID": "1.2.5"}
    slices = [
        ct(np.zeros((5, 6), np.int16), 0.001 * k, InstanceNumber=k + 1, **thin) for k in range(3)
    ]
    write_objects(tmp_path / "ct", *slices)
    (found,) = dicom.find_series(tmp_path / "ct")
    grid, _ = dicom.layout(found)
    array = np.random.default_rng(0).choice([0, 2, 5], grid.shape).astype(np.uint8)
    path = tmp_path / "s.dcm"
    write_seg(Volume(array, grid, "label"), LABELS, found, path, **ALGORITHM)
    back = read_label_file(Source(str(path), like=str(tmp_path / "ct")))
    assert np.array_equal(back.array > 0, array > 0)


def test_what_differs_when_it_is_read_back_has_no_name(tmp_path: Path, scan, monkeypatch) -> None:
    real = write.frames_of

    def damaged(header):
        for n, frame in enumerate(real(header)):
            yield 1 - frame if n == 3 else frame

    monkeypatch.setattr(write, "frames_of", damaged)
    with pytest.raises(OutputError, match="1221 pixels differ"):
        written(tmp_path / "a.dcm", ENCODINGS[0], scan)
    assert not list(tmp_path.iterdir())
