"""Mosaics of Siemens and United Imaging: where each tile lies, and every refusal."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from siemens import csa, mosaic, protocol

from delineate.core.errors import FormatError, GeometryError
from delineate.formats.dicom import find_series, read_series
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
