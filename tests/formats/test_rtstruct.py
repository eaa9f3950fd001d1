"""RT structure sets: contours as voxels, exactly, and everything that is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from tests import structure_sets
from tests.formats.test_dicom import write_series
from tests.structure_sets import CLOSED, circle_on, polygon_on, write_structure_set

from delineate.core.errors import FormatError, GeometryError
from delineate.core.grid import Grid
from delineate.core.manifest import Source
from delineate.formats import dicom, files
from delineate.formats.dicom.rtstruct.draw import draw, read_rtstruct
from delineate.formats.dicom.rtstruct.read import read_rois
from delineate.formats.label_files import read_label_file
from delineate.formats.polygons import area_of, inside_polygon, inside_polygons

UPRIGHT = Grid((10, 8, 6), np.array([[-2.0, 0, 0, 30], [0, -1, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1]]))
SQUARE = [(1.5, 1.5), (6.5, 1.5), (6.5, 5.5), (1.5, 5.5)]  # columns 2 to 6, rows 2 to 5


def square(k, corners=SQUARE, grid=UPRIGHT, kind=CLOSED):
    return polygon_on(grid, corners, k), kind


def read(tmp_path, rois, grid=UPRIGHT, **more):
    return read_rtstruct(write_structure_set(tmp_path / "RS.dcm", rois), grid, **more)


def turned(shear=0.0):
    """An oblique grid of 0.5 x 0.8 x 2 mm, whose slices are shifted by ``shear`` mm down each."""
    a, b = np.radians(20), np.radians(-35)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.array([[0.5, 0, 0], [0, 0.8, shear], [0, 0, 2]])
    affine[:3, 3] = (-20, 7, 300)
    return Grid((120, 90, 9), affine, allow_shear=True)


# ---- voxels ----


def test_a_pixel_counts_if_its_centre_is_inside(tmp_path):
    volume = read(tmp_path, {"GTV": [square(2), square(3)]})
    expected = np.zeros(UPRIGHT.shape, int)
    expected[2:7, 2:6, 2:4] = 1
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.grid == UPRIGHT and volume.meta["names"] == {1: "GTV"}
    assert volume.meta["contours"]["GTV"] == {
        "contours": {"used": 2},
        "most_mm": {},
        "empty_slices": 0,
        "crossed_slices": 0,
        "contour_ml": 0.24,  # 10 mm x 4 mm x 6 mm
        "voxel_ml": 0.24,
    }
    assert volume.meta["notes"] == ()


def test_a_contour_inside_another_is_a_hole_and_one_inside_that_is_not(tmp_path):
    hole = [(2.5, 2.5), (5.5, 2.5), (5.5, 4.5), (2.5, 4.5)]
    island = [(3.5, 2.6), (4.5, 2.6), (4.5, 4.4), (3.5, 4.4)]
    volume = read(tmp_path, {"wall": [square(1), square(1, hole), square(1, island)]})
    assert volume.array[..., 1].T[2:6, 2:7].tolist() == [
        [1, 1, 1, 1, 1],
        [1, 0, 1, 0, 1],
        [1, 0, 1, 0, 1],
        [1, 1, 1, 1, 1],
    ]
    facts = volume.meta["contours"]["wall"]
    assert facts["voxel_ml"] == 0.096  # 16 voxels of 6 mm3
    assert facts["contour_ml"] == pytest.approx((20 - 6 + 1.8) * 6 / 1000, abs=1e-4)


def test_a_keyhole_is_a_hole(tmp_path):
    keyhole = [
        *((1.5, 1.5), (4, 1.5), (4, 2.5), (2.5, 2.5), (2.5, 4.5), (5.5, 4.5), (5.5, 2.5), (4, 2.5)),
        *((4, 1.5), (6.5, 1.5), (6.5, 5.5), (1.5, 5.5)),
    ]
    volume = read(tmp_path, {"wall": [square(1, keyhole)]})
    expected = np.zeros((10, 8), int)
    expected[2:7, 2:6] = 1
    expected[3:6, 3:5] = 0
    np.testing.assert_array_equal(volume.array[..., 1], expected)
    assert volume.meta["contours"]["wall"]["contour_ml"] == 0.084  # 14 pixels of 2 mm2, 3 mm high


def test_rois_with_a_common_border_share_no_voxel_and_leave_none_out(tmp_path):
    border = [(4, 1), (3.3, 2), (5.1, 3.7), (4, 6)]  # through centres and between them
    left = [*border, (1, 6), (1, 1)]
    right = [*reversed(border), (8, 1), (8, 6)]
    volume = read(tmp_path, {"a": [square(0, left)], "b": [square(0, right)]})
    assert volume.array.ndim == 3  # they do not overlap
    whole = read(tmp_path, {"a": [square(0, [(1, 1), (8, 1), (8, 6), (1, 6)])]})
    np.testing.assert_array_equal(volume.array > 0, whole.array > 0)
    assert (volume.array == 1).any() and (volume.array == 2).any()


def test_several_contours_a_slice_are_parts_of_one_roi(tmp_path):
    far = [(7.5, 0.5), (8.5, 0.5), (8.5, 2.5), (7.5, 2.5)]
    volume = read(tmp_path, {"nodes": [square(4), square(4, far)]})
    assert (volume.array == 1).sum() == 22 and volume.array[8, 1:3, 4].tolist() == [1, 1]


@pytest.mark.parametrize("rule", ["centre", "area"])
@pytest.mark.parametrize("shear", [0.0, 0.7], ids=["oblique", "tilted"])
def test_volumes_on_oblique_and_tilted_slices(tmp_path, rule, shear):
    grid = turned(shear)
    ring = {"ring": []}
    for k in range(1, 8):
        middle = (60, 45 - shear * (k - 4) / 0.8)
        ring["ring"] += [
            (circle_on(grid, middle, 25.0, k), CLOSED),
            (circle_on(grid, middle, 10.0, k), CLOSED),
        ]
    volume = read(tmp_path, ring, grid, rule=rule)
    analytic_ml = np.pi * (25**2 - 10**2) * 2 * 7 / 1000
    facts = volume.meta["contours"]["ring"]
    assert facts["voxel_ml"] == pytest.approx(analytic_ml, rel=0.005)
    assert facts["contour_ml"] == pytest.approx(analytic_ml, rel=0.0005)
    assert facts["voxel_ml"] == pytest.approx((volume.array > 0).sum() * 0.8 / 1000)
    # The middle of the ring runs along the normal, not along the tilted stack.
    points = grid.to_mm(np.argwhere(volume.array > 0))
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    moved = points - grid.to_mm((60, 45, 4))
    off = moved - np.outer(moved @ normal, normal) / (normal @ normal)
    assert np.abs(off.mean(axis=0)).max() < 0.05


def test_the_area_rule_counts_pixels_that_are_half_covered():
    half = np.array([[0.0, 0.0], [1.5, 0.0], [1.5, 1.0], [0.0, 1.0]])
    less = half * (0.95, 1)
    assert inside_polygons([half], 1, 3, "area").tolist() == [[True, True, False]]
    assert inside_polygons([less], 1, 3, "area").tolist() == [[True, False, False]]
    corner = np.array([[0.0, 0.0], [0.6, 0.0], [0.6, 0.6], [0.0, 0.6]])  # 36 % around the centre
    assert inside_polygon(corner, 1, 1).all()
    assert not inside_polygons([corner], 1, 1, "area").any()
    assert area_of([half, corner]) == pytest.approx(1.5 - 0.36)


def test_overlapping_rois_are_channels(tmp_path):
    volume = read(
        tmp_path,
        {"GTV": [square(2)], "PTV": [square(2, [(0.5, 0.5), (8.5, 0.5), (8.5, 6.5), (0.5, 6.5)])]},
    )
    assert volume.array.shape == (2, *UPRIGHT.shape)
    assert volume.array.sum(axis=(1, 2, 3)).tolist() == [20, 48]
    assert volume.meta["names"] == {1: "GTV", 2: "PTV"}


# ---- what is left out ----


def test_contours_without_an_area_are_counted(tmp_path):
    line = polygon_on(UPRIGHT, SQUARE[:2], 1)
    volume = read(
        tmp_path,
        {
            "GTV": [
                square(1),
                (polygon_on(UPRIGHT, SQUARE, 2), "OPEN_PLANAR"),
                (polygon_on(UPRIGHT, SQUARE, 2), "OPEN_NONPLANAR"),
                (polygon_on(UPRIGHT, SQUARE[:1], 2), "POINT"),
                (line, CLOSED),
                (np.concatenate([line, line]), CLOSED),
            ],
            "isocentre": [(polygon_on(UPRIGHT, SQUARE[:1], 2), "POINT")],
        },
    )
    assert (volume.array > 0).sum() == 20 and volume.meta["names"] == {1: "GTV"}
    assert volume.meta["contours"]["GTV"]["contours"] == {
        "used": 1,
        "open": 2,
        "points": 1,
        "short": 2,
    }
    assert volume.meta["notes"] == (
        "isocentre: has no closed contour and is left out",
        "GTV: 2 contour(s) are open and left out",
        "GTV: 1 contour(s) are points and left out",
        "GTV: 2 contour(s) have fewer than 3 different points and are left out",
    )


def test_contours_off_the_slices(tmp_path):
    volume = read(tmp_path, {"GTV": [square(k) for k in (1.4, 2, 2.4, 4, 5.6, -2)]})
    # 1.4 counts for slice 1, 2.4 is nearer to 2 than to 3, but 2 is nearer.
    assert (volume.array > 0).sum(axis=(0, 1)).tolist() == [0, 20, 20, 0, 20, 0]
    assert volume.meta["notes"] == (
        "GTV: 2 contour(s) are above or below the slices and are left out (up to 6.00 mm)",
        "GTV: 1 contour(s) are between slices that have nearer ones and are left out "
        "(up to 1.20 mm)",
        "GTV: 1 contour(s) are between slices and are drawn in the nearest one (up to 1.20 mm)",
        "GTV: 1 slice(s) between its first and last one have no contour and stay empty",
    )


def test_contours_that_leave_the_image_or_the_plane(tmp_path):
    wide = [(-4.5, 1.5), (6.5, 1.5), (6.5, 9.5), (-4.5, 9.5)]
    steep = polygon_on(UPRIGHT, SQUARE, 3) + [(0, 0, z) for z in (0, 0, 2, 2)]
    volume = read(tmp_path, {"GTV": [square(1, wide), (steep, CLOSED)]})
    assert (volume.array > 0).sum() == 7 * 6
    assert volume.meta["notes"] == (
        "GTV: 1 contour(s) are not parallel to the slices and are left out (up to 1.00 mm)",
        "GTV: 1 contour(s) reach beyond the image and are cut off (up to 8.00 mm)",
    )


def test_repeated_and_crossing_contours_are_reported(tmp_path):
    again = [*SQUARE[2:], *SQUARE[:2]]
    shifted = [(x + 2, y + 1) for x, y in SQUARE]
    volume = read(
        tmp_path, {"a": [square(1), square(1, again)], "b": [square(3), square(3, shifted)]}
    )
    assert (volume.array == 1).sum() == 20  # exclusive or would leave nothing
    assert (volume.array == 2).sum() == 22
    assert volume.meta["notes"] == (
        "a: 1 contour(s) repeat others and count once",
        "b: contours cross each other in 1 slice(s); what two of them share is outside",
    )


def test_contours_that_cross_themselves_are_reported(tmp_path):
    x0, y0, x1, y1 = SQUARE[0][0], SQUARE[0][1], SQUARE[2][0], SQUARE[2][1]
    twice = [*SQUARE, *SQUARE]
    bow_tie = [(x0, y0), (x1, y1), (x1, y0), (x0, y1)]
    rois = {"bow": [square(1, bow_tie)], "plain": [square(1)], "twice": [square(1, twice)]}
    volume = read(tmp_path, rois)
    assert volume.meta["notes"] == (
        "bow: 1 contour(s) cross themselves; both sides of the crossing are inside",
        "twice: 1 contour(s) run around a part of their area more than once; what they run around "
        "twice is outside",
        "twice: has no voxel, as no pixel's centre is inside its contours",
    )


def test_contours_between_slices_and_rois_without_a_voxel_are_reported(tmp_path):
    points, kind = square(1)
    tiny = [(2.1, 2.1), (2.3, 2.1), (2.3, 2.3)]
    volume = read(
        tmp_path, {"off": [(points + np.array([0, 0, 1.2]), kind)], "tiny": [square(3, tiny)]}
    )
    assert volume.array[..., 1].any() and not (volume.array == 2).any()
    assert volume.meta["notes"] == (
        "off: 1 contour(s) are between slices and are drawn in the nearest one (up to 1.20 mm)",
        "tiny: has no voxel, as no pixel's centre is inside its contours",
    )


def test_names_in_utf_8_without_a_character_set(tmp_path):
    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [square(1)]})
    dataset = pydicom.dcmread(path)
    raw = "肝臓".encode()
    tag = pydicom.tag.Tag(0x30060026)
    name = pydicom.dataelem.RawDataElement(tag, "LO", len(raw), raw, 0, False, True)
    dataset.StructureSetROISequence[0][tag] = name
    dataset.save_as(path)
    assert [one.name for one in read_rois(path)] == ["肝臓"]


def test_contours_that_state_another_number_of_points_are_reported(tmp_path):
    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [square(1)]})
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 9
    dataset.save_as(path)
    (note,) = read_rtstruct(path, UPRIGHT).meta["notes"]
    assert note == (
        "GTV: 1 contour(s) have another number of points than they state, and are drawn as they are"
    )


def test_contours_of_no_known_type_are_reported(tmp_path):
    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [square(k) for k in (1, 2, 3, 4)]})
    dataset = pydicom.dcmread(path)
    first, second, third, _ = dataset.ROIContourSequence[0].ContourSequence
    del first.ContourGeometricType
    second.ContourGeometricType, third.ContourGeometricType = "PLANAR", "open_planar"
    dataset.save_as(path)
    volume = read_rtstruct(path, UPRIGHT)
    assert volume.array.any((0, 1)).tolist() == [False, True, True, False, True, False]
    assert volume.meta["notes"][:2] == (
        "GTV: 1 contour(s) are open and left out",
        "GTV: 2 contour(s) state no known ContourGeometricType and are drawn as closed",
    )


def test_files_that_are_refused(tmp_path):
    with pytest.raises(
        GeometryError, match=r"no contour is in a slice .* 1 are above or below.*42.00"
    ):
        read(tmp_path, {"GTV": [square(19)]})
    with pytest.raises(FormatError, match="none of its 1 ROIs has a closed contour"):
        read(tmp_path, {"GTV": []})
    with pytest.raises(GeometryError, match="another frame of reference"):
        read(tmp_path, {"GTV": [square(1)]}, frame_of_reference="9.9")
    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [square(1)]})
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]
    dataset.save_as(path)
    with pytest.raises(FormatError, match="contour of 4 numbers"):
        read_rois(path)
    write_series(tmp_path / "ct", np.zeros(UPRIGHT.shape, np.int16), UPRIGHT)
    with pytest.raises(FormatError, match="no RT structure set"):
        read_rois(next((tmp_path / "ct").iterdir()))


def test_equal_names_get_the_number_of_their_roi(tmp_path):
    rois = [("GTV", [square(1)]), ("gtv", [square(3)]), ("", [square(4)])]
    path = write_structure_set(tmp_path / "RS.dcm", rois)
    assert [roi.name for roi in read_rois(path)] == ["GTV (ROI 1)", "gtv (ROI 2)", "ROI 3"]
    assert dicom.read_roi_names(path) == ("GTV (ROI 1)", "gtv (ROI 2)", "ROI 3")
    assert read_rtstruct(path, UPRIGHT, only=["ROI 3"]).meta["names"] == {1: "ROI 3"}


# ---- the series ----


@pytest.fixture
def scans(tmp_path) -> Path:
    """Two series in one frame of reference, the second one shorter."""
    for name, slices, uid in (("ct", 6, "1.2.8.1"), ("pet", 4, "1.2.8.2")):
        grid = Grid((10, 8, slices), UPRIGHT.affine)
        array = np.zeros(grid.shape, np.int16)
        write_series(tmp_path / name, array, grid, uid=uid, FrameOfReferenceUID="1.2.3")
    return tmp_path


def test_the_series_of_a_structure_set_is_found(scans):
    rois = {"GTV": [square(2)]}
    by_series = write_structure_set(scans / "rs" / "a.dcm", rois, series="1.2.8.2")
    assert dicom.series_of_label(by_series).uid == "1.2.8.2"
    instance = dicom.find_series(scans / "ct")[0].planes[2].instance
    # A series UID that no longer exists, or of another series: the instances count.
    other = write_structure_set(
        scans / "rs" / "b.dcm", rois, series="1.2.8.2", instances=[instance]
    )
    assert dicom.series_of_label(other).uid == "1.2.8.1"
    unnamed = write_structure_set(scans / "rs" / "c.dcm", rois)
    with pytest.raises(FormatError, match="could belong to 2 series"):
        dicom.series_of_label(unnamed)
    assert dicom.kind_of(unnamed) == "RTSTRUCT"
    assert dicom.kind_of(next((scans / "ct").iterdir())) == "" == dicom.kind_of(scans)


def test_a_structure_set_is_a_label_file(scans):
    path = write_structure_set(
        scans / "pet" / "RS" / "RS.dcm", {"GTV": [square(2)]}, series="1.2.8.2"
    )
    volume = read_label_file(path)
    assert volume.grid.shape == (10, 8, 4) and (volume.array > 0).sum() == 20
    assert read_label_file(path.parent).array.sum() == 20
    placed = read_label_file(Source(str(path), like=str(scans / "ct")))
    assert placed.grid.shape == (10, 8, 6) and placed.meta["patient"] == "P1"
    files.write(placed, scans / "like.nii.gz")
    again = read_label_file(Source(str(path), like=str(scans / "like.nii.gz")))
    np.testing.assert_array_equal(again.array, placed.array)
    alone = write_structure_set(scans / "other" / "x" / "y" / "RS.dcm", {"GTV": [square(2)]})
    with pytest.raises(FormatError, match="the series that it belongs to is not in"):
        read_label_file(alone)


def changed(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset, dataset.ROIContourSequence[0].ContourSequence)
    dataset.save_as(path)
    return path


def test_contours_that_name_another_slice_are_noted_and_their_position_counts(scans):
    rois = {"GTV": [square(k) for k in (1, 2, 3, 4)]}
    images = [one.instance for one in dicom.layout(dicom.find_series(scans / "ct")[0])[1]]

    def name(dataset, contours):
        # The second one is on the border of two slices, the last one names no frame that is there.
        for contour, named in zip(contours, ([1], [1, 2], [4, 3], [1]), strict=True):
            contour.ContourImageSequence = [structure_sets._image(images[k]) for k in named]
        contours[3].ContourImageSequence[0].ReferencedFrameNumber = [7]

    path = changed(write_structure_set(scans / "RS.dcm", rois), name)
    volume = read_label_file(Source(str(path), like=str(scans / "ct")))
    assert volume.array.any((0, 1)).tolist() == [False, True, True, True, True, False]
    assert volume.meta["notes"] == (
        "GTV: 1 contour(s) name another image than that of the slice at their position, which "
        "counts (up to 9.00 mm)",
    )


def test_slabs_and_attached_contours(tmp_path):
    def change(dataset, contours):
        contours[0].ContourSlabThickness, contours[0].ContourOffsetVector = 3, [0, 0, 3]
        contours[1].ContourSlabThickness, contours[1].AttachedContours = 5, [1]
        contours[2].ContourOffsetVector = [0, 0, 3]

    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [square(k) for k in (0, 3, 5)]})
    volume = read_rtstruct(changed(path, change), UPRIGHT)
    assert volume.array.any((0, 1)).tolist() == [False, True, False, True, False, True]
    assert volume.meta["notes"][:4] == (
        "GTV: 1 contour(s) are attached to others (AttachedContours), and are drawn by themselves",
        "GTV: 1 contour(s) are moved by their ContourOffsetVector (up to 3.00 mm)",
        "GTV: 1 contour(s) state a ContourOffsetVector without a ContourSlabThickness, and are "
        "drawn where they are (up to 3.00 mm)",
        "GTV: 1 contour(s) state a ContourSlabThickness that is not the gap of the slices, and are "
        "drawn in their own slice alone (up to 2.00 mm)",
    )
    line = write_structure_set(tmp_path / "line.dcm", {"GTV": [square(1)] * 3})
    changed(line, lambda _, c: setattr(c[0], "ContourData", [0, 0, 8, 1, 1, 8, 2, 2, 8]))
    changed(line, lambda _, c: setattr(c[0], "ContourSlabThickness", 3))
    changed(line, lambda _, c: setattr(c[0], "ContourOffsetVector", [0, 0, 3]))
    changed(line, lambda _, c: setattr(c[1], "ContourOffsetVector", None))
    assert read_rtstruct(line, UPRIGHT).array.any((0, 1)).tolist() == [False, True] + [False] * 4
    changed(line, lambda d, _: delattr(d.ROIContourSequence[0], "ReferencedROINumber"))
    with pytest.raises(FormatError, match="an ROI without ReferencedROINumber"):
        read_rtstruct(line, UPRIGHT)
    for vector, words in ([1, 0, 3], "not along the normal"), ([1, 2], "allowed are three numbers"):
        changed(path, lambda _, c, v=vector: setattr(c[0], "ContourOffsetVector", v))
        with pytest.raises(FormatError, match=words):
            read_rtstruct(path, UPRIGHT)


def test_an_roi_in_two_items_and_without_a_frame_of_reference(tmp_path):
    def change(dataset, contours):
        first = dataset.ROIContourSequence[0]
        second = Dataset()
        second.ReferencedROINumber, second.ContourSequence = 1, [contours.pop()]
        dataset.ROIContourSequence = [first, second]
        del dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID

    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [square(1), square(2)]})
    volume = read_rtstruct(changed(path, change), UPRIGHT, frame_of_reference="1.2.3")
    assert volume.array.any((0, 1)).sum() == 2
    assert volume.meta["notes"] == ("GTV: has 2 items in ROIContourSequence; all are drawn",)
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_rtstruct(path, UPRIGHT, frame_of_reference="9.9")  # that of the whole object

    def list_another(dataset, _):
        dataset.ReferencedFrameOfReferenceSequence.append(Dataset())
        dataset.ReferencedFrameOfReferenceSequence[1].FrameOfReferenceUID = "9.9"

    notes = read_rtstruct(changed(path, list_another), UPRIGHT).meta["notes"]
    assert notes[0].startswith("GTV: states none of the 2 frames of reference")


def test_real_contours_equal_their_independent_masks(real_data):
    folder = real_data / "sarcoma"
    found = sorted((folder / "dicom").glob("*/*/mask/RS.dcm"))
    assert len(found) == 12
    for rs in found:
        patient, modality = rs.parts[-4:-2]
        volume = read_label_file(Source(str(rs), like=str(rs.parents[1] / "image")))
        truth = files.read(folder / "nifti" / patient / f"{modality}_mask.nii.gz")
        np.testing.assert_array_equal(volume.array > 0, truth.on_grid(volume.grid).array > 0)
        assert volume.meta["notes"] == ()


def test_many_points_are_read_quickly_and_exactly(tmp_path):
    circle = circle_on(UPRIGHT, (4, 3), 3.0, 1, corners=5000)
    path = write_structure_set(tmp_path / "RS.dcm", {"GTV": [(circle, CLOSED)]})
    (roi,) = read_rois(path)
    np.testing.assert_allclose(roi.contours[0].points_mm, circle, atol=1e-4)
    assert draw(roi, UPRIGHT).counts == {"used": 1}
