"""Mosaics of Siemens and United Imaging: where each tile lies, and every refusal."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from objects import image as any_image
from objects import item, write
from siemens import csa, mosaic, protocol

from delineate.core.errors import FormatError, GeometryError
from delineate.formats.dicom import find_series, problem_of, read_series
from delineate.formats.dicom.header.mosaic import are_slices, is_mosaic, tiles_of
from delineate.formats.dicom.header.mosaic.csa import fields_of, protocol_of, read_csa

UP = [(10, 20, 30 + 2.5 * k) for k in range(5)]  # centres of the slices
BOXES = [(0, 3, 0, 4), (0, 3, 4, 8), (0, 3, 8, 12), (3, 6, 0, 4), (3, 6, 4, 8)]


def image(number=5, normal=(0, 0, 1), second=True):
    tags = {"NumberOfImagesInMosaic": [number]} if number else {"EchoLinePosition": [32]}
    return csa(tags | ({"SliceNormalVector": normal} if normal else {}), second)


def positions(dataset):
    return [one.position for one in tiles_of(dataset)]


@pytest.mark.parametrize("second", [True, False])
def test_tiles_by_the_header_of_the_image(second):
    tiles = tiles_of(mosaic(image=image(second=second)))
    assert [one.box for one in tiles] == BOXES
    # The first voxel is half a slice (4 x 3 mm, 3 x 2 mm) before its centre.
    assert [one.position for one in tiles] == [
        (4, 17, 30),
        (4, 17, 32.5),
        (4, 17, 35),
        (4, 17, 37.5),
        (4, 17, 40),
    ]
    against = positions(mosaic(image=image(normal=(0, 0, -1), second=second)))
    assert against[1] == (4, 17, 27.5)
    assert against[4] == (4, 17, 20)


def test_tiles_by_the_protocol_alone():
    forwards = mosaic(series=protocol(UP))
    assert positions(forwards)[4] == (4, 17, 40)
    # The first tile lies at the last slice of the protocol: the images are numbered backwards.
    backwards = mosaic(series=protocol(UP[::-1]))
    assert positions(backwards)[4] == (4, 17, 40)
    descending = mosaic(series=protocol([(10, 20, 30 - 2.5 * k) for k in range(5)]))
    assert positions(descending)[4] == (4, 17, 20)
    # The creator of the private block may be lost, and the gap may be in the protocol alone.
    bare = mosaic(series=protocol(UP), creator=False)
    del bare.SpacingBetweenSlices
    assert positions(bare)[4] == (4, 17, 40)
    # Newer software has the protocol elsewhere.
    newer = mosaic()
    newer.add_new(0x00211019, "OB", protocol(UP))
    assert positions(newer)[4] == (4, 17, 40)


def test_slab_of_a_protocol():
    slab = {
        "sKSpace__lImagesPerSlab": 5,
        "sKSpace__ucDimension": "0x4",
        "sSliceArray__asSlice[0]__dThickness": 12.5,
        "sSliceArray__asSlice[0]__sNormal__dTra": 1.0,
    }
    assert positions(mosaic(series=protocol([(10, 20, 35)], **slab)))[4] == (4, 17, 40)
    assert positions(mosaic(series=protocol([(10, 20, 25)], **slab)))[4] == (4, 17, 20)


def test_oblique_mosaic():
    # Rows run along y and z, columns against x.
    across, down = np.array([0, 0.8, 0.6]), np.array([-1.0, 0, 0])
    normal = np.cross(across, down)
    corner = np.array([10, 20, 30]) - across * 18 - down * 9
    one = mosaic(
        image=image(normal=(-normal).tolist()),
        ImageOrientationPatient=[*across, *down],
        ImagePositionPatient=corner.tolist(),
    )
    first = np.array([10, 20, 30]) - across * 6 - down * 3
    np.testing.assert_allclose(positions(one)[0], first, atol=1e-9)
    np.testing.assert_allclose(positions(one)[3], first - normal * 7.5, atol=1e-9)
    np.testing.assert_allclose(first, [13, 15.2, 26.4])


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({}, FormatError, "does not state its number of slices"),
        ({"image": image(number=0)}, FormatError, "does not state its number of slices"),
        ({"image": image(number=17)}, FormatError, r"17 slices has 5 x 5 tiles.*12 x 9 pixels"),
        ({"image": image(number=-1)}, FormatError, "a mosaic of -1 slices"),
        ({"image": image(normal=())}, GeometryError, "without the order of its slices"),
        ({"image": image(normal=(0, 1, 0))}, GeometryError, "not the normal of"),
        (
            {"image": image(normal=(0, 0, -1)), "series": protocol(UP)},
            GeometryError,
            "two orders of its slices",
        ),
        (
            {"image": image(), "SpacingBetweenSlices": None},
            GeometryError,
            "without the distance of its slices",
        ),
        (
            {"image": image(), "series": protocol(UP), "SpacingBetweenSlices": 2.6},
            GeometryError,
            r"2\.6 mm by SpacingBetweenSlices, 2\.5 mm by the positions in the protocol",
        ),
        (
            {"series": protocol(UP), "ImagePositionPatient": [50, 17, 30]},
            GeometryError,
            "without the order",
        ),
        ({"image": image(), "PixelSpacing": None}, GeometryError, "PixelSpacing .* is missing"),
        ({"image": image()[:300]}, FormatError, "CSA header is damaged"),
    ],
)
def test_refused(fields, kind, reason):
    with pytest.raises(kind, match=reason):
        tiles_of(mosaic(**fields))


def test_position_of_the_first_slice_instead_of_the_image_is_refused():
    stated = {"ImagePositionPatient": [4, 17, 30]}
    with pytest.raises(GeometryError, match="is that of its first slice"):
        tiles_of(mosaic(image=image(), series=protocol(UP), **stated))


def test_two_numbers_of_slices_are_refused():
    one = mosaic(image=image())
    one.add_new(0x0019100A, "US", 6)
    with pytest.raises(FormatError, match="states both 5 and 6 slices"):
        tiles_of(one)


def test_grid_of_united_imaging():
    one = mosaic(ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"], Rows=6, Columns=12)
    items = []
    for k in range(5):
        item = pydicom.Dataset()
        item.ImagePositionPatient = [4, 17, 40 - 2.5 * k]
        items.append(item)
    one.add_new(0x00650010, "LO", "Image Private Header")
    one.add_new(0x00651050, "DS", "5")
    one.add_new(0x00651051, "SQ", items)
    # 5 slices: 3 columns and 2 rows of tiles, where Siemens has 3 rows.
    tiles = tiles_of(one)
    assert [one.box for one in tiles] == BOXES
    assert [t.position[2] for t in tiles] == [40, 37.5, 35, 32.5, 30]
    one[0x00651050].value = "6"
    with pytest.raises(FormatError, match="6 slices with the positions of 5"):
        tiles_of(one)
    one[0x00651050].value = "5"
    del items[2].ImagePositionPatient
    with pytest.raises(GeometryError, match="ImagePositionPatient of a mosaic is missing"):
        tiles_of(one)


def test_which_images_are_mosaics():
    assert is_mosaic(mosaic())
    assert is_mosaic(mosaic(ImageType=["DERIVED", "VFRAME"]))
    assert not is_mosaic(mosaic(ImageType=["ORIGINAL", "PRIMARY"]))
    # Software XA: the slices are frames already, unless these lie at one place apart from motion.
    assert are_slices(mosaic(image=image()), UP * 3)
    assert are_slices(mosaic(), UP) and not are_slices(mosaic(), UP[:2])
    assert not are_slices(mosaic(image=image()), UP[:4])
    moved = [(10 + 0.01 * n, 20, 30 - 0.02 * n) for n in range(5)]
    assert not are_slices(mosaic(), moved) and not are_slices(mosaic(image=image()), moved)
    stated = mosaic(ImageType=["ORIGINAL", "PRIMARY"])
    stated.add_new(0x0019100A, "US", 5)
    assert is_mosaic(stated)


def newer(words="ORIGINAL\\PRIMARY\\M\\MOSAIC", count=5, normal=None, block=0x11):
    """What software XA writes of an image in group 0021."""
    one = pydicom.Dataset()
    one.add_new(0x00210000 | block, "LO", "SIEMENS MR SDI 02")
    if count is not None:
        one.add_new(0x00210001 | block << 8, "US", count)
    if normal is not None:
        one.add_new(0x00210002 | block << 8, "FD", normal)
    one.add_new(0x00210075 | block << 8, "CS", words)
    return one


TILED = np.arange(9 * 12, dtype=np.uint16).reshape(9, 12)


def enhanced_mosaic(pixels=TILED, series=None, frame_type="M", private=None):
    """An object of one frame for each image of ``pixels``, with the place of ``mosaic``."""
    frame = item(
        MRImageFrameTypeSequence=item(FrameType=["ORIGINAL", "PRIMARY", frame_type]),
        PlanePositionSequence=item(ImagePositionPatient=[10 - 18, 20 - 9, 30]),
    )
    if private is not None:
        frame.add_new(0x00210010, "LO", "SIEMENS MR SDI 02")
        frame.add_new(0x002110FE, "SQ", [private])
    shared = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[2, 3], SpacingBetweenSlices=2.5),
    )
    if series is not None:
        more = item()
        more.add_new(0x00210010, "LO", "SIEMENS MR SDS 01")
        more.add_new(0x00211019, "OB", series)
        shared.add_new(0x00210010, "LO", "SIEMENS MR SDS 01")
        shared.add_new(0x002110FE, "SQ", [more])
    one = any_image(pixels, sop_class="1.2.840.10008.5.1.4.1.1.4.1", modality="MR")
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = [frame] * (pixels.shape[0] if pixels.ndim > 2 else 1)
    return one


def only(folder, one):
    write(folder, one)
    (series,) = find_series(folder)
    return series


MARKED = [
    {"private": newer()},
    {"private": newer("ORIGINAL\\PRIMARY\\M")},  # the number of tiles alone
    {"private": newer(count=None)},
    {"private": newer(block=0x17)},
    {"frame_type": "MOSAIC"},
]


@pytest.mark.parametrize("marked", MARKED)
def test_a_mosaic_in_functional_groups_is_unfolded_by_the_protocol(tmp_path, marked):
    volume = read_series(only(tmp_path, enhanced_mosaic(series=protocol(UP), **marked)))
    expected = [[-3, 0, 0, -4], [0, -2, 0, -17], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)
    for k, (top, bottom, left, right) in enumerate(BOXES):
        assert volume.array[..., k].T.tolist() == TILED[top:bottom, left:right].tolist()


@pytest.mark.parametrize("marked", MARKED)
def test_a_mosaic_in_functional_groups_is_never_one_slice(tmp_path, marked):
    reason = problem_of(only(tmp_path, enhanced_mosaic(**marked)))
    assert reason in (
        "a mosaic without the order of its slices: the positions in the protocol do not prove it",
        "a mosaic that does not state its number of slices",
    )


def test_a_normal_does_not_prove_the_position_in_functional_groups(tmp_path):
    made = enhanced_mosaic(private=newer(normal=[0.0, 0.0, 1.0]))
    assert "the protocol do not prove it" in problem_of(only(tmp_path, made))
    other = enhanced_mosaic(private=newer(normal=[0.0, 0.0, -1.0]), series=protocol(UP))
    assert "two orders of its slices" in problem_of(only(tmp_path, other))


@pytest.mark.parametrize("marked", MARKED)
def test_frames_that_are_mosaics_are_refused(tmp_path, marked):
    """A series in time: all frames lie at one place."""
    made = enhanced_mosaic(np.stack([TILED] * 5), protocol(UP), **marked)
    assert problem_of(only(tmp_path, made)) == "5 frames that are mosaics, or slices of one in part"


def test_a_mosaic_that_only_its_private_header_states(tmp_path):
    """A former mosaic whose ImageType was changed."""
    one = any_image(TILED, modality="MR")
    one.update(mosaic(image=image()))
    one.ImageType = ["DERIVED", "PRIMARY"]
    assert read_series(only(tmp_path / "a", one)).shape == (4, 3, 5)
    one[0x00291010].value = image(normal=())
    assert "without the order" in problem_of(only(tmp_path / "b", one))
    newest = any_image(TILED, modality="MR")
    newest.update(mosaic(ImageType=["DERIVED", "PRIMARY"], creator=False))
    newest.update(newer(normal=[0.0, 0.0, -1.0]))
    volume = read_series(only(tmp_path / "c", newest))
    assert volume.shape == (4, 3, 5) and volume.affine[2, 3] == 20
    # An ordinary slice has the tag too, without a value.
    one[0x00291010].value = csa({"NumberOfImagesInMosaic": [], "SliceNormalVector": (0, 0, 1)})
    assert read_series(only(tmp_path / "d", one)).shape == (12, 9, 1)


def test_damaged_csa_headers():
    data = image()
    for length in range(0, len(data) - 4, 3):
        with pytest.raises(FormatError, match="CSA header is damaged"):
            read_csa(data[:length])
    with pytest.raises(FormatError, match=r"4294967295 tags"):
        read_csa(b"SV10\4\3\2\1\xff\xff\xff\xff\x4d\0\0\0")


def test_real_mosaics(real_data):
    """The first and the last slice as dcm2niix places them (``Ref``, converted to LPS)."""
    twelve = pydicom.dcmread(
        real_data / "dicom/dcm_qa_12bit/In/12bitUnsigned.dcm", stop_before_pixels=True
    )
    assert fields_of(twelve)["NumberOfImagesInMosaic"] == ("35",)
    assert protocol_of(twelve)["sSliceArray.asSlice[0].sPosition.dCor"] == "-15.99276195"
    tiles = tiles_of(twelve)
    assert len(tiles) == 35
    np.testing.assert_allclose(tiles[0].position, (-108.8405, -119.5649, -25.6271), atol=1e-4)
    np.testing.assert_allclose(tiles[34].position, (-108.6507, -129.6148, 82.7076), atol=1e-4)
    # No header of the image, no creators: the protocol has 40 slices, and the first tile is the
    # last of them, at (-1.463, -2.710, 61.478).
    header = pydicom.dcmread(
        real_data / "dicom/vendors/siemens/dti/001/IM-0001-0001.dcm", stop_before_pixels=True
    )
    tiles = tiles_of(header)
    assert len(tiles) == 40
    assert tiles[39].box == (960, 1152, 768, 960)
    np.testing.assert_allclose(tiles[0].position, (-121.4632, -120.5750, 84.0147), atol=1e-4)
    np.testing.assert_allclose(tiles[39].position, (-121.5062, -138.8442, -11.7584), atol=1e-4)


def test_real_mosaics_equal_the_reference(real_data):
    """Every voxel of dcm2niix's result (``Ref``) is at the same place with the same value."""
    folder = real_data / "dicom/dcm_qa_12bit"
    for path in sorted((folder / "In").iterdir()):
        (series,) = find_series(path)
        image = nibabel.load(folder / "Ref" / f"{series.number}.nii")
        volume = read_series(series)
        assert volume.shape == (64, 64, 35)
        # dcm2niix reverses the rows.
        np.testing.assert_allclose(
            volume.affine[:3, 3], (image.affine @ (0, 63, 0, 1))[:3], atol=1e-4
        )
        np.testing.assert_array_equal(volume.array, np.asanyarray(image.dataobj)[:, ::-1])
