"""What every format that writes masks must satisfy: values and names are equal after a round trip,
for us and for nibabel, SimpleITK, pynrrd and Pillow.
"""

from __future__ import annotations

import json

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from tests.conftest import GRIDS

from delineate.core.errors import OutputError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.formats.label_files import names_in, read_label_file

ODD = {
    1: 'foie "droit", lobe: n°1',
    2: "肝臓 — ßüé 🫀",
    3: "it's; a=b := c | d",
    4: "very long " + "x" * 1000,
    5: "back\\slash \\n is no line end",
    6: "# <tag> & {braces}",
    7: "two  spaces",
    9: "Segment0_Name:=liver",
}
DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "bool")
SHEARED = GRIDS["oblique"].affine @ np.array(
    [[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)


def grid_for(ending: str, name: str) -> Grid:
    """A grid on which the format can write; a PNG holds one slice."""
    grid = GRIDS["oblique"] if name != "sheared" else Grid((6, 7, 5), SHEARED, allow_shear=True)
    flat = name == "slice" or ending == ".png"
    return grid.crop((0, 0, 0), (*grid.shape[:2], 1)) if flat else grid


def mask_on(grid: Grid, values: list[int], dtype: str) -> np.ndarray:
    ordered = np.array([0, *values])
    flat = ordered[np.arange(np.prod(grid.shape)) * 5 % len(ordered)]
    return flat.reshape(grid.shape).astype(dtype)


@pytest.mark.parametrize("ending", files.writable())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", ["volume", "slice", "sheared"])
def test_values_and_names_come_back(tmp_path, ending, dtype, place):
    grid, labels = grid_for(ending, place), LabelSet.from_names(ODD)
    array = mask_on(grid, list(ODD), dtype)
    path = tmp_path / f"mask{ending}"
    files.write(Volume(array, grid, "label"), path, labels=labels)
    back = read_label_file(path)
    np.testing.assert_array_equal(back.array, array)
    assert back.array.dtype.kind == "u"
    assert back.meta["names"] == names_in(path) == ODD
    if ending != ".png":
        np.testing.assert_allclose(back.affine, grid.affine, atol=1e-5)


@pytest.mark.parametrize("ending", files.writable())
def test_more_than_255_structures(tmp_path, ending):
    grid = grid_for(ending, "volume")
    names = {n: f"structure {n}" for n in range(1, 301)} | {40000: "the last"}
    array = mask_on(grid, [1, 17, 255, 256, 300, 40000], "int32")
    path = tmp_path / f"mask{ending}"
    files.write(Volume(array, grid, "label"), path, labels=LabelSet.from_names(names))
    back = read_label_file(path)
    np.testing.assert_array_equal(back.array, array)
    assert back.meta["names"] == names


def test_other_readers_find_the_same_values_and_names(tmp_path):
    grid, labels = GRIDS["oblique"], LabelSet.from_names(ODD)
    array = mask_on(grid, list(ODD), "uint8")
    volume = Volume(array, grid, "label")
    for ending in (".nii.gz", ".nrrd", ".mha"):
        files.write(volume, tmp_path / f"m{ending}", labels=labels)
        image = sitk.ReadImage(str(tmp_path / f"m{ending}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, array)
        last = image.TransformIndexToPhysicalPoint([n - 1 for n in grid.shape])
        ours = grid.to_mm(np.array(grid.shape) - 1) * (-1, -1, 1)
        np.testing.assert_allclose(last, ours, atol=1e-3)
    image = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)
    content = json.loads(image.header.extensions[0].get_content())
    assert {one["value"]: one["name"] for one in content["delineate_labels"]} == ODD
    values, header = nrrd.read(str(tmp_path / "m.nrrd"))
    np.testing.assert_array_equal(values, array)
    # pynrrd drops all but ASCII from a header; SimpleITK keeps it.
    assert header["Segment0_Name"] == ODD[1].replace("°", "")
    assert header["Segment7_Name"] == ODD[9]
    flat = grid_for(".png", "slice")
    files.write(Volume(array[..., :1], flat, "label"), tmp_path / "m.png", labels=labels)
    with Image.open(tmp_path / "m.png") as picture:
        np.testing.assert_array_equal(np.array(picture).T, array[..., 0])


def test_segments_have_the_keys_of_3d_slicer(tmp_path):
    grid = GRIDS["anisotropic"]
    array = np.zeros(grid.shape, np.uint8)
    array[1:3, 2:5, 1] = 3
    labels = LabelSet.from_names({1: "absent", 3: "liver"})
    path = tmp_path / "a.seg.nrrd"
    files.write(Volume(array, grid, "label"), path, labels=labels)
    header = nrrd.read_header(str(path))
    assert header["Segment1_Name"] == "liver" and header["Segment1_LabelValue"] == "3"
    assert header["Segment1_Extent"] == "1 2 2 4 1 1"
    assert header["Segment0_Extent"] == "0 -1 0 -1 0 -1"
    assert header["Segment1_Layer"] == "0" and header["Segment1_ID"]
    assert [0 <= float(c) <= 1 for c in header["Segment1_Color"].split()] == [True] * 3
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"


def test_keys_that_were_read_are_written_again(tmp_path):
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([1.0, 2.0, 3.0]),
        "space origin": [0.0, 0.0, 0.0],
        "Segment0_ID": "Segment_7",
        "Segment0_Name": "Milz: spleen",
        "Segment0_LabelValue": "2",
        "Segment0_Layer": "0",
        "Segment0_Extent": "0 3 0 4 0 2",
        "Segment0_Color": "0.615686 0.423529 0.635294",
        "Segment0_Tags": "TerminologyEntry:Segmentation category~SCT^123037004^Anatomical|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    array = np.zeros((4, 5, 3), np.uint8)
    array[1:, 2:, 1] = 2
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header)
    files.write(files.read(tmp_path / "a.seg.nrrd"), tmp_path / "b.seg.nrrd")
    again = nrrd.read_header(str(tmp_path / "b.seg.nrrd"))
    assert {k: again[k] for k in header if k.startswith("Segment")} == {
        k: v for k, v in header.items() if k.startswith("Segment")
    }
    assert names_in(tmp_path / "b.seg.nrrd") == {2: "Milz: spleen"}


def test_a_name_that_metaimage_cannot_hold_is_refused(tmp_path):
    grid = GRIDS["oblique"]
    volume = Volume(np.zeros(grid.shape, np.uint8), grid, "label")
    with pytest.raises(OutputError, match="names of at most 4096 characters"):
        files.write(volume, tmp_path / "a.mha", labels=LabelSet.from_names({1: "x" * 5000}))
    assert list(tmp_path.iterdir()) == []
