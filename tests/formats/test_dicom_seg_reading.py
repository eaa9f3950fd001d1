"""Segmentations of other programs read as labels: every voxel where its frame puts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from tests.segmentations import COLUMNS, ROWS, SLICES, saved, segmentation, series, shuffled

from delineate.core.errors import FormatError, GeometryError, LabelError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.manifest import Source
from delineate.formats import files
from delineate.formats.dicom import seg
from delineate.formats.label_files import names_in, read_label_file

hd = pytest.importorskip("highdicom")
SHAPE = (SLICES, ROWS, COLUMNS)


def labels(most: int, seed: int = 1) -> np.ndarray:
    """Random segment numbers (K, rows, columns); the first and the last slice are empty."""
    found = np.random.default_rng(seed).integers(0, most + 1, SHAPE).astype(np.uint8)
    found[[0, -1]] = 0
    return found


def image_grid(source) -> Grid:
    """The grid of the series, from its headers."""
    first, last = source[0], source[-1]
    across, down = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    affine = np.eye(4)
    row, column = (float(v) for v in first.PixelSpacing)
    begin, end = (np.array(one.ImagePositionPatient, float) for one in (first, last))
    affine[:3, :3] = np.stack([across * column, down * row, (end - begin) / (SLICES - 1)], axis=1)
    affine[:3, 3] = begin
    return Grid((COLUMNS, ROWS, SLICES), np.diag([-1, -1, 1, 1]) @ affine)


# ---- published files ----


def test_published_segmentations_equal_their_nrrd(real_data):
    folder = real_data / "dicom_seg"
    for name, twin, count in (
        ("liver.dcm", "liver_seg.nrrd", 107_098),
        ("sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd", 630),
        ("sparse-labelmap-ppv5.dcm", "sparse_labelmap_ppv5_seg.nrrd", 630),
        ("23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd", 322),
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd", 315),
    ):
        found, expected = seg.read_seg(folder / name), files.read(folder / twin)
        assert found.meta["names"] == {1: "Liver"}
        assert found.grid.matches(expected.grid, 1e-3)
        # The NRRD of the padded label map has the padding value 5 as a label.
        assert np.array_equal(found.array == 1, expected.array == 1)
        assert np.count_nonzero(found.array) == count


def test_segments_that_overlap_are_channels(real_data):
    folder = real_data / "dicom_seg"
    found = read_label_file(folder / "partial_overlaps.dcm")
    assert found.array.reshape(5, -1).sum(axis=1).tolist() == [9602, 11888, 10743, 6693, 4713]
    names = {1: "GREEN", 2: "ORANGE", 3: "PURPLE", 4: "LIGHT_BLUE", 5: "DARK_BLUE"}
    assert found.meta["names"] == names
    for n, values in ((1, (1, 4, 5)), (2, (2,)), (3, (3,))):
        twin = files.read(folder / f"partial_overlaps-{n}.nrrd")
        assert found.grid.matches(twin.grid, 1e-3)
        for value in values:
            assert np.array_equal(found.array[value - 1] == 1, twin.array == value)


def test_frames_are_put_on_the_slices_of_the_image(real_data):
    folder = real_data / "dicom_seg"
    image = files.read(folder / "ct-3slice")
    source = Source(str(folder / "liver.dcm"), like=str(folder / "ct-3slice"))
    found = read_label_file(source)
    assert found.grid == image.grid
    assert np.count_nonzero(found.array) == 107_098


# ---- all kinds, written by highdicom ----


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_kind_is_read_exactly(tmp_path, kind, sparse):
    source, pixels = series(), labels(3)
    dataset = segmentation(source, pixels, kind, omit_empty_frames=sparse)
    path = saved(dataset, tmp_path / "x.dcm")
    alone = seg.read_seg(path)
    kept = slice(1, -1) if sparse else slice(None)
    assert np.array_equal(alone.array, pixels[kept].transpose(2, 1, 0))
    assert alone.array.dtype == np.uint8 and alone.unit == "label"
    placed = seg.read_seg(path, image_grid(source))
    assert placed.grid == image_grid(source)
    assert np.array_equal(placed.array, pixels.transpose(2, 1, 0))
    assert "nearest" not in str(placed.meta.get("notes", ""))
    assert placed.meta["names"] == {1: "blob a", 2: "blob b", 3: "blob c"}


def test_voxels_are_where_highdicom_puts_them(tmp_path):
    path = saved(shuffled(segmentation(series(), labels(3))), tmp_path / "x.dcm")
    ours, theirs = seg.read_seg(path), hd.seg.segread(path).get_volume(combine_segments=True)
    for value in (1, 2, 3):
        index = np.argwhere(theirs.array == value)
        lps = index @ theirs.affine[:3, :3].T + theirs.affine[:3, 3]
        found = np.rint(ours.grid.to_index(lps * (-1, -1, 1))).astype(int)
        assert (ours.array[tuple(found.T)] == value).all()
        assert len(index) == np.count_nonzero(ours.array == value)


@pytest.mark.parametrize(
    ("syntax", "plugin"),
    [(RLELossless, "pydicom"), (JPEGLSLossless, "pyjpegls"), (JPEG2000Lossless, "pylibjpeg")],
)
@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_frames(tmp_path, kind, syntax, plugin):
    pixels = labels(3)
    dataset = segmentation(series(), pixels, kind, omit_empty_frames=False)
    dataset.compress(syntax, encoding_plugin=plugin)
    found = seg.read_seg(saved(dataset, tmp_path / "x.dcm"))
    assert np.array_equal(found.array, pixels.transpose(2, 1, 0))


def test_frames_in_any_order(tmp_path):
    source, pixels = series(), labels(3)
    found = seg.read_seg(
        saved(shuffled(segmentation(source, pixels)), tmp_path / "x.dcm"), image_grid(source)
    )
    assert np.array_equal(found.array, pixels.transpose(2, 1, 0))


def test_the_source_in_any_order(tmp_path):
    source, pixels = series(), labels(2)
    order = [3, 0, 5, 1, 4, 2]
    dataset = segmentation([source[n] for n in order], pixels[order])
    found = seg.read_seg(saved(dataset, tmp_path / "x.dcm"), image_grid(source))
    assert np.array_equal(found.array, pixels.transpose(2, 1, 0))


def test_numbers_with_gaps_and_above_255(tmp_path):
    pixels = (labels(3) * np.uint16(300)).astype(np.uint16)
    dataset = segmentation(series(), pixels, "LABELMAP", ["a", "b", "c"], numbers=(300, 600, 900))
    found = seg.read_seg(saved(dataset, tmp_path / "x.dcm"))
    assert found.meta["names"] == {300: "a", 600: "b", 900: "c"}
    assert np.array_equal(found.array, pixels[1:-1].transpose(2, 1, 0))
    one = seg.read_seg(tmp_path / "x.dcm", only=["b"])
    assert one.meta["names"] == {600: "b"}
    assert np.array_equal(one.array, np.where(found.array == 600, 600, 0))


def test_overlapping_segments_by_highdicom(tmp_path):
    masks = np.random.default_rng(2).integers(0, 2, (*SHAPE, 3)).astype(np.uint8)
    found = seg.read_seg(saved(segmentation(series(), masks), tmp_path / "x.dcm"))
    assert np.array_equal(found.array, masks.transpose(3, 2, 1, 0))
    assert found.meta["names"] == {1: "blob a", 2: "blob b", 3: "blob c"}


def test_shares_are_kept_or_cut_at_a_stated_share(tmp_path):
    shares = np.zeros((*SHAPE, 2), np.float32)
    shares[2, 3, 1] = (0.5, 0.25)
    shares[3, 4, 2] = (0.75, 0.0)
    shares[4, 0, 0] = (0.0, 1.0)
    dataset = segmentation(series(), shares, "FRACTIONAL", max_fractional_value=200)
    path = saved(dataset, tmp_path / "x.dcm")
    half = seg.read_seg(path)
    assert [np.count_nonzero(half.array == v) for v in (1, 2)] == [2, 1]
    assert half.meta["notes"] == ["voxels of at least 0.5 of the maximum are inside"]
    # At a quarter, one voxel is in both segments.
    quarter = seg.read_seg(path, threshold=0.25)
    assert quarter.array.reshape(2, -1).sum(axis=1).tolist() == [2, 2]
    kept = seg.read_seg(path, threshold=None)
    assert kept.array.dtype == np.float32 and kept.unit == "a.u."
    assert np.unique(kept.array).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_deflated_files(tmp_path):
    pixels = labels(3)
    path = saved(segmentation(series(), pixels), tmp_path / "plain.dcm")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm")
    assert np.array_equal(seg.read_seg(tmp_path / "deflated.dcm").array, seg.read_seg(path).array)


# ---- names, codes, colours ----


def test_names_codes_sides_and_colours(tmp_path):
    dataset = segmentation(series(), labels(4), names=["Kidney", "Kidney", "Segment_3", "spot"])
    for item, code in zip(dataset.SegmentSequence, ("7771000", "24028007"), strict=False):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [pydicom.Dataset()]
        kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue = code
    path = saved(dataset, tmp_path / "x.dcm")
    found = LabelSet.from_json(seg.read_seg(path).meta["labels"])
    assert found.names == ["left Kidney", "right Kidney", "Liver", "spot"]
    assert [label.side for label in found] == ["left", "right", None, None]
    assert [label.colour for label in found] == [
        (10, 200, 30),
        (20, 200, 30),
        (30, 200, 30),
        (40, 200, 30),
    ]
    assert {label.code for label in found} == {"SCT:10200004"}
    assert names_in(path) == {1: "left Kidney", 2: "right Kidney", 3: "Liver", 4: "spot"}


def test_a_side_that_label_and_code_contradict_is_noted(tmp_path):
    dataset = segmentation(series(), labels(1), names=["left kidney"])
    kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [pydicom.Dataset()]
    kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue = "24028007"
    found = seg.read_seg(saved(dataset, tmp_path / "x.dcm"))
    assert found.meta["notes"] == [
        "segment 1 is called 'left kidney', but its code states the right side"
    ]


@pytest.mark.parametrize("padding", [0, 2, None])
def test_background_of_a_label_map(tmp_path, padding):
    """The padding value and the coded background are no structures; a segment 0 can be one."""
    pixels = labels(2)
    dataset = segmentation(series(), pixels, "LABELMAP", ["a", "b"], omit_empty_frames=False)
    background = dataset.SegmentSequence[0]
    assert background.SegmentNumber == 0 and dataset.PixelPaddingValue == 0
    del dataset.PixelPaddingValue
    if padding is not None:
        dataset.PixelPaddingValue = padding
    if padding == 2:
        background.SegmentedPropertyTypeCodeSequence[0].CodeValue = "123"
        background.SegmentLabel = "fluid"
    found = seg.read_seg(saved(dataset, tmp_path / "x.dcm"))
    if padding == 2:
        assert found.meta["names"] == {3: "fluid", 1: "a"}
        expected = np.array([3, 1, 0])[pixels]
    else:
        assert found.meta["names"] == {1: "a", 2: "b"}
        expected = pixels
    assert np.array_equal(found.array, expected.transpose(2, 1, 0))


# ---- grids ----


def only_planes(pixels: np.ndarray, planes: list[int]) -> np.ndarray:
    out = np.zeros_like(pixels)
    out[planes] = np.maximum(pixels[planes], 1)
    return out


@pytest.mark.parametrize(
    ("planes", "stated", "count"),
    [([0, 2, 5], True, 6), ([0, 2, 5], False, 6), ([0, 2, 4], False, 3), ([1], True, 1)],
)
def test_gaps_between_sparse_frames(tmp_path, planes, stated, count):
    """The stated gap if it fits, else the largest common one; that of the image if it is known."""
    source, pixels = series(), only_planes(labels(1), planes)
    dataset = segmentation(source, pixels)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if stated:
        measures.SpacingBetweenSlices = 2.5
    elif "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices
    path = saved(dataset, tmp_path / "x.dcm")
    assert seg.read_seg(path).grid.shape[2] == count
    placed = seg.read_seg(path, image_grid(source))
    assert np.array_equal(placed.array, pixels.transpose(2, 1, 0))


def test_a_wrong_stated_gap_is_ignored(tmp_path):
    source, pixels = series(), np.maximum(labels(1), 1)
    dataset = segmentation(source, pixels)
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1.5
    found = seg.read_seg(saved(dataset, tmp_path / "x.dcm"))
    assert found.grid.shape[2] == SLICES and round(found.grid.spacing_mm[2], 6) == 2.5
    assert found.meta["notes"] == [
        "SpacingBetweenSlices is 1.5 mm, but its planes are 2.5 mm apart, which counts"
    ]


def test_uneven_frames_are_refused(tmp_path):
    dataset = segmentation(series(), np.maximum(labels(1), 1))
    place = dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    place.ImagePositionPatient = [float(v) + 0.7 for v in place.ImagePositionPatient]
    with pytest.raises(GeometryError, match="uneven"):
        seg.read_seg(saved(dataset, tmp_path / "x.dcm"))


def test_another_grid_is_reached_once_by_the_nearest_voxel(tmp_path):
    source, pixels = series(), labels(2)
    path = saved(segmentation(source, pixels), tmp_path / "x.dcm")
    own = image_grid(source)
    fine = own.respace((0.3, 0.4, 1.25))
    found = seg.read_seg(path, fine)
    assert found.grid == fine
    expected = pixels.transpose(2, 1, 0).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(found.array, expected)
    assert found.meta["notes"] == [
        "the labels are on another grid than the image; they were brought there by nearest "
        "neighbour, from voxels up to 0.67 mm away"
    ]
    # Every voxel has one at its centre, and most of the labels are lost.
    doubled = Grid((16, 18, 3), own.affine @ np.diag([2, 2, 2, 1]), allow_shear=True)
    found = seg.read_seg(path, doubled)
    assert np.array_equal(found.array, pixels.transpose(2, 1, 0)[:32:2, :36:2, ::2])
    assert (
        "voxels of 0.6 x 0.8 x 2.5 mm and the image of 1.2 x 1.6 x 5 mm" in found.meta["notes"][0]
    )


def test_labels_outside_the_image_are_counted(tmp_path):
    source, pixels = series(), np.ones(SHAPE, np.uint8)
    path = saved(segmentation(source, pixels), tmp_path / "x.dcm")
    part = image_grid(source).crop((0, 0, 1), (COLUMNS, ROWS, 4))
    found = seg.read_seg(path, part)
    assert found.grid == part and found.array.all()
    assert found.meta["notes"] == [f"{3 * ROWS * COLUMNS} labelled voxels are outside the image"]
    elsewhere = image_grid(source).crop((0, 0, 50), (COLUMNS, ROWS, 60))
    with pytest.raises(GeometryError, match="no voxel of the segmentation is inside the image"):
        seg.read_seg(path, elsewhere)


def test_images_that_are_gone_are_noted(tmp_path):
    path = saved(segmentation(series(tmp_path / "ct"), labels(2)), tmp_path / "x.dcm")
    sorted((tmp_path / "ct").iterdir())[-1].unlink()
    notes = read_label_file(Source(str(path), like=str(tmp_path / "ct"))).meta["notes"]
    assert f"it refers to {SLICES} images, of which 1 are no slices of this one" in notes


def test_frames_that_contradict_their_sources_or_each_other(tmp_path):
    dataset = segmentation(series(tmp_path / "ct"), np.maximum(labels(1), 1))
    own = dataset.PerFrameFunctionalGroupsSequence
    sources = [one.DerivationImageSequence[0].SourceImageSequence[0] for one in own]
    uids = [one.ReferencedSOPInstanceUID for one in sources]
    for n, uid in ((0, uids[2]), (3, uids[4]), (5, uids[0])):
        sources[n].ReferencedSOPInstanceUID = uid
    sources[5].SpatialLocationsPreserved = "NO"
    label = Source(str(saved(dataset, tmp_path / "x.dcm")), like=str(tmp_path / "ct"))
    found = read_label_file(label)
    assert found.meta["notes"] == [
        f"2 of {SLICES} frames name another image than that of the slice at their position, which "
        "counts (up to 5.00 mm)"
    ]
    assert np.array_equal(found.array, np.ones(found.grid.shape, found.array.dtype))
    own[0].PlaneOrientationSequence = [pydicom.Dataset()]
    own[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    with pytest.raises(FormatError, match="ImageOrientationPatient of 1 frames is another one"):
        seg.read_seg(saved(dataset, tmp_path / "y.dcm"))


def test_frames_of_images_outside_the_series_are_noted(tmp_path):
    dataset = segmentation(series(tmp_path / "ct"), np.maximum(labels(1), 1))
    for one in dataset.PerFrameFunctionalGroupsSequence[:2]:
        one.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    label = Source(str(saved(dataset, tmp_path / "x.dcm")), like=str(tmp_path / "ct"))
    assert read_label_file(label).meta["notes"] == [
        f"2 of {SLICES} frames name an image that is no slice of this one; their positions count"
    ]


def test_another_series_in_the_same_frame_of_reference_is_noted(tmp_path):
    other = series(tmp_path / "ct", frame="1.2.3.4")
    path = saved(segmentation(series(frame="1.2.3.4"), labels(1)), tmp_path / "x.dcm")
    found = read_label_file(Source(str(path), like=str(tmp_path / "ct")))
    assert found.meta["notes"] == [
        f"it refers to {SLICES} images of another series in the frame of reference of this one, "
        "and to none of this one; positions count"
    ]
    assert found.grid.matches(image_grid(other), 1e-6)


@pytest.mark.parametrize(
    ("behind", "more", "found"),
    [
        (b"", b"", []),
        (b"", b"rest of another file", ["20 bytes follow the element with the pixels"]),
        (b"", b"\xfc\xff\xfc\xffOB\0\0\2\0\0\0\0\0", []),  # Data Set Trailing Padding
        (b"12345678", b"", ["8 bytes follow the last frame, which"]),
    ],
)
def test_bytes_behind_the_pixels_are_noted(tmp_path, behind, more, found):
    dataset = segmentation(series(), labels(1))
    dataset.PixelData += bytes(len(dataset.PixelData) % 2) + behind
    path = saved(dataset, tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes() + more)
    notes = seg.read_seg(path).meta.get("notes", [])
    assert len(notes) == len(found) and all(a in b for a, b in zip(found, notes, strict=True))


def test_more_coded_frames_than_stated_are_refused(tmp_path):
    dataset = segmentation(series(), labels(1), "FRACTIONAL")
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    dataset.NumberOfFrames -= 1
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(FormatError, match="4 coded frames, but NumberOfFrames is 3"):
        seg.read_seg(saved(dataset, tmp_path / "x.dcm"))


def test_another_frame_of_reference_is_refused(tmp_path):
    source, pixels = series(tmp_path / "CT"), labels(2)
    other = series(frame="1.2.3.4")
    path = saved(segmentation(other, pixels), tmp_path / "x.dcm")
    label = Source(str(path), like=str(tmp_path / "CT"))
    with pytest.raises(GeometryError, match=r"another frame of reference \(1\.2\.3\.4\)"):
        read_label_file(label)
    label = Source(str(path), like=str(tmp_path / "CT"), register_by="position")
    assert Source.from_json(label.to_json()) == label
    found = read_label_file(label)
    assert found.grid.matches(image_grid(source), 1e-6)
    assert np.array_equal(found.array, pixels.transpose(2, 1, 0))
    # One that names the series belongs to it.
    own = segmentation(source, pixels)
    own.FrameOfReferenceUID = "1.2.3.4"
    label = replace(label, path=str(saved(own, tmp_path / "y.dcm")), register_by="")
    assert "states another frame of reference" in read_label_file(label).meta["notes"][0]


def test_frames_of_a_2d_image_without_a_place(tmp_path):
    pixels = only_planes(labels(1), [2])
    dataset = segmentation(series(), pixels)
    del dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    path = saved(dataset, tmp_path / "x.dcm")
    found = seg.read_seg(path)
    assert np.array_equal(found.array[..., 0], pixels[2].T)
    assert found.meta["spacing_known"] and not found.meta["place_known"]
    assert found.spacing_mm[:2] == (0.6, 0.8)
    image = Grid.from_spacing((COLUMNS, ROWS, 1), (2, 2, 2))
    assert seg.read_seg(path, image).grid == image
    with pytest.raises(GeometryError, match=r"no position, and 33 x 37 pixels; the image has"):
        seg.read_seg(path, Grid.from_spacing((COLUMNS, ROWS, 2), (2, 2, 2)))


def test_frames_without_a_place_are_refused(tmp_path):
    dataset = segmentation(series(), np.maximum(labels(1), 1))
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    with pytest.raises(GeometryError, match="have no ImagePositionPatient, so they have no place"):
        seg.read_seg(saved(dataset, tmp_path / "x.dcm"))


# ---- refused ----


def test_frames_at_several_points_in_time_are_refused(tmp_path):
    dataset = segmentation(series(), np.maximum(labels(1), 1))
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
    with pytest.raises(FormatError, match="1 of 6 frames repeat a plane of the same segment"):
        seg.read_seg(saved(dataset, tmp_path / "x.dcm"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TotalPixelMatrixColumns": 1000, "TotalPixelMatrixRows": 500}, "whole-slide image"),
        ({"InConcatenationTotalNumber": 3, "InConcatenationNumber": 2}, "part 2 of 3"),
        ({"SegmentationType": "VECTOR"}, "type VECTOR; allowed are BINARY"),
        ({"NumberOfFrames": 3}, "3 frames are stated, but 4 are described"),
        ({"Rows": ROWS // 2}, r"bytes, but there are \d+"),
        ({"SegmentationType": "FRACTIONAL"}, "fractions in 1 bits"),
    ],
)
def test_objects_that_are_refused(tmp_path, change, message):
    dataset = segmentation(series(), labels(1))
    for name, value in change.items():
        setattr(dataset, name, value)
    with pytest.raises(FormatError, match=message):
        seg.read_seg(saved(dataset, tmp_path / "x.dcm"))


def test_fractions_of_0_are_refused(tmp_path):
    dataset = segmentation(series(), labels(1), "FRACTIONAL")
    dataset.MaximumFractionalValue = 0
    with pytest.raises(FormatError, match="MaximumFractionalValue is 0"):
        seg.read_seg(saved(dataset, tmp_path / "x.dcm"))


def test_truncated_pixels_are_refused(tmp_path):
    path = saved(segmentation(series(), labels(3)), tmp_path / "x.dcm")
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="truncated"):
        seg.read_seg(tmp_path / "cut.dcm")


def test_segments_that_are_not_described_are_refused(tmp_path):
    dataset = segmentation(series(), labels(2), "LABELMAP")
    del dataset.SegmentSequence[2]
    path = saved(dataset, tmp_path / "x.dcm")
    with pytest.raises(LabelError, match="voxels of segments 2, but only 0, 1 are described"):
        seg.read_seg(path)


def test_a_segment_that_is_not_there(tmp_path):
    path = saved(segmentation(series(), labels(2)), tmp_path / "x.dcm")
    with pytest.raises(LabelError, match="no segment spleen; its segments are 1 blob a, 2"):
        seg.read_seg(path, only=["spleen"])
