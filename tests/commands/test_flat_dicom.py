"""2-D DICOM images with PNG masks in check, plan and predict; their spacing and colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid
from tests.calls import run
from tests.formats.dicom.objects import image, item
from tests.plans import small_network, small_plan

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_image, read_label
from delineate.commands.check import check
from delineate.commands.options import CheckOptions
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import LayoutError
from delineate.core.plan import Channel
from delineate.formats import files
from delineate.formats.raster import COLOURS
from delineate.networks.build import build, weights_of
from delineate.planning.fingerprint import examine

ROOT = "1.2.840.10008.5.1.4.1.1."
MASK = np.zeros((20, 24), np.uint8)
MASK[3:9, 5:20] = 255
REGION = item(
    PhysicalUnitsXDirection=3,
    PhysicalUnitsYDirection=3,
    PhysicalDeltaX=0.03,
    PhysicalDeltaY=0.05,
    RegionDataType=1,
)
# SOP class, modality, whether it has colours, what states its spacing, and the spacing.
KINDS = {
    "CR": ("1", False, {"ImagerPixelSpacing": [0.2, 0.1]}, (0.1, 0.2, 1)),
    "DX": (
        "1.1",
        False,
        {"PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.2, 0.2]},
        (0.15, 0.15, 1),
    ),
    "MG": ("1.2", False, {"ImagerPixelSpacing": [0.07, 0.07]}, (0.07, 0.07, 1)),
    "US": ("6.1", True, {"SequenceOfUltrasoundRegions": [REGION]}, (0.3, 0.5, 1)),
    "XC": ("77.1.4", True, {}, (1, 1, 1)),
    "OT": ("7", True, {}, (1, 1, 1)),
    "OP": ("77.1.5.1", True, {"PixelSpacing": [0.01, 0.02]}, (0.02, 0.01, 1)),
}


def write_images(folder, kind, **fields):
    """Four images of four patients, bright inside the mask."""
    sop_class, colour, spacing, _ = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(4):
        pixels = rng.integers(0, 99, (*MASK.shape, 3) if colour else MASK.shape)
        pixels[MASK > 0] += 120
        own = {"PatientID": f"P{n}", "SeriesInstanceUID": generate_uid()} | spacing | fields
        one = image(
            pixels.astype(np.uint8 if colour else np.uint16),
            sop_class=ROOT + sop_class,
            modality=kind,
            **own,
        )
        one.save_as(folder / f"p{n}.dcm", enforce_file_format=True)


def write_masks(folder, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(4):
        Image.fromarray(MASK).save(folder / f"p{n}{ending}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("images", "masks", "ending", "layout"),
    [
        ("images", "labels", ".png", "parallel-folders"),
        ("", "", ".png", "ending-pairs"),
        ("", "", "_mask.png", "suffix-pairs"),
    ],
)
def test_images_with_masks_are_a_cohort(tmp_path, kind, images, masks, ending, layout):
    write_images(tmp_path / images, kind)
    write_masks(tmp_path / masks, ending)
    manifest = discover(tmp_path).manifest
    assert (manifest.layout, manifest.modality) == (layout, kind)
    assert manifest.channels == (tuple(COLOURS) if KINDS[kind][1] else ("image",))
    assert [case.id for case in manifest] == ["p0", "p1", "p2", "p3"]
    assert manifest.patients == ["P0", "P1", "P2", "P3"]
    scan = read_image(manifest.cases[0], manifest)
    assert scan.spacing_mm == pytest.approx(KINDS[kind][3])
    mask = read_label(manifest.cases[0], manifest, scan.grid)
    assert np.array_equal(mask.array[..., 0].T, MASK // 255)
    assert scan.array[0, ..., 0].T[MASK > 0].min() >= 120
    # What the rules of a plan start from.
    found = examine(manifest.cases[0], manifest)
    assert found.voxels == {0: 390, 1: 90} and len(found.moments) == len(manifest.channels)


def test_slices_of_a_volume_are_no_pictures(tmp_path):
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    write_images(tmp_path, "CR", ImagePositionPatient=[0, 0, 0], **place)
    write_masks(tmp_path)
    with pytest.raises(LayoutError, match="more than one layout matches"):
        discover(tmp_path)


def test_check_of_radiographs_with_low_values_bright(tmp_path):
    write_images(tmp_path / "images", "CR", PhotometricInterpretation="MONOCHROME1")
    write_masks(tmp_path / "labels")
    checked = check(tmp_path, options=CheckOptions(workers=1))
    assert len(checked.usable) == 4
    told = [one.message for one in checked.findings if one.kind == "series"]
    assert told == ["MONOCHROME1: low values are bright; the stored values are kept"] * 4


@pytest.mark.parametrize("kind", ["DX", "US"])
def test_predict_names_and_grids_are_those_of_the_images(tmp_path, kind):
    write_images(tmp_path / "scans", kind, **({"SeriesNumber": 1} if kind == "DX" else {}))
    names = COLOURS if KINDS[kind][1] else ("DX",)
    plan = small_plan(
        2,
        channels=tuple(Channel(name=name) for name in names),
        network=small_network(2, channels=len(names)),
    )
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 3)), 0),)).save(
        tmp_path / "m.model"
    )
    words = ("-o", tmp_path / "out", "--device", "cpu", "--backend", "torch")
    code, text = run("predict", tmp_path / "m.model", tmp_path / "scans", *words)
    assert code == 0, text
    for n in range(4):
        grid = files.read_grid(tmp_path / f"out/p{n}.nii.gz")
        assert grid.matches(files.read_grid(tmp_path / f"scans/p{n}.dcm"))
        assert grid.spacing_mm == pytest.approx(KINDS[kind][3])
    code, text = run("info", tmp_path / "scans" / "p0.dcm", "--json")
    assert code == 0 and json.loads(text)["series"][0]["modality"] == kind
