"""DICOM segmentations in convert, info, evaluate and view."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.calls import run
from tests.segmentations import COLUMNS, ROWS, SLICES, saved, segmentation, series

from delineate.cohorts.discovery.layouts.recognition import discover
from delineate.cohorts.reading import read_image, read_label
from delineate.commands.evaluate import evaluate
from delineate.commands.info import info
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.formats.label_files import names_in, read_label_file
from delineate.viewer.sources import find

pytest.importorskip("highdicom")
SHAPE = (SLICES, ROWS, COLUMNS)


def dice(prediction: Path, truth: Path) -> dict[str, float]:
    rows = evaluate(prediction, truth, None).scores.rows
    return {row.label: row.value for row in rows if row.metric == "dice"}


@pytest.fixture
def scan(tmp_path):
    """A series, a segmentation of two structures with gaps, and one whose segments overlap."""
    source = series(tmp_path / "CT")
    pixels = np.zeros(SHAPE, np.uint8)
    pixels[1, 3:20, 4:30], pixels[3, 5:9, 6:11] = 1, 2
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[2, 3:20, 4:30, 0] = masks[2, 10:25, 4:30, 1] = 1
    names = ["left kidney", "liver"]
    saved(segmentation(source, pixels, names=names), tmp_path / "seg" / "plain.dcm")
    saved(segmentation(source, masks, names=names), tmp_path / "seg" / "overlap.dcm")
    return tmp_path, pixels.transpose(2, 1, 0), masks.transpose(3, 2, 1, 0)


def test_labels_are_converted_on_the_grid_of_their_series(scan):
    folder, pixels, _ = scan
    code, text = run("convert", folder / "seg/plain.dcm", folder / "plain.nii.gz")
    assert code == 0, text
    found = files.read(folder / "plain.nii.gz")
    assert np.array_equal(found.array, pixels)
    assert found.grid.matches(files.read_grid(folder / "CT"), 1e-3)
    assert names_in(folder / "plain.nii.gz") == {1: "left kidney", 2: "liver"}
    # The same again replaces the result.
    assert run("convert", folder / "seg/plain.dcm", folder / "plain.nii.gz")[0] == 0


def test_segments_that_overlap_become_layers_or_files(scan):
    folder, _, masks = scan
    place = folder / "seg/overlap.dcm"
    code, text = run("convert", place, folder / "one.nii.gz")
    assert code == 2 and "left kidney, liver may overlap" in text
    assert run("convert", place, folder / "layers.seg.nrrd")[0] == 0
    layers = read_label_file(folder / "layers.seg.nrrd")
    assert np.array_equal(layers.array, masks)
    assert layers.meta["names"] == {1: "left kidney", 2: "liver"}
    assert run("convert", place, folder / "masks")[0] == 0
    for n, name in enumerate(("left kidney", "liver")):
        assert np.array_equal(files.read(folder / f"masks/{name}.nii.gz").array, masks[n])
    assert run("convert", place, folder / "liver.nii.gz", "--segment", "liver")[0] == 0
    assert np.array_equal(files.read(folder / "liver.nii.gz").array == 2, masks[1] == 1)


def test_another_frame_of_reference_needs_a_word(scan, tmp_path):
    folder, pixels, _ = scan
    series(tmp_path / "other", frame="1.2.3")
    words = ("convert", folder / "seg/plain.dcm", folder / "out.nii.gz")
    code, text = run(*words, "--like", tmp_path / "other")
    assert code == 2 and "another frame of reference" in text
    assert run(*words, "--like", tmp_path / "other", "--register-by", "position")[0] == 0
    assert np.array_equal(files.read(folder / "out.nii.gz").array, pixels)


def test_shares_of_a_fractional_segmentation(deep_path):
    shares = np.zeros((*SHAPE, 1), np.float32)
    shares[2, 3, 4], shares[3, 4, 5] = 0.25, 0.75
    path = saved(segmentation(series(), shares, "FRACTIONAL", ["liver"]), deep_path / "x.dcm")
    for words, values in (
        ((), [0, 1]),
        (("--threshold", "0.2"), [0, 1]),
        (("--shares",), [0, 64 / 255, 191 / 255]),
    ):
        code, text = run("convert", path, deep_path / f"{len(words)}.nii.gz", *words)
        assert code == 0, text
        array = files.read(deep_path / f"{len(words)}.nii.gz").array
        assert np.allclose(np.unique(array), values)
    assert np.count_nonzero(files.read(deep_path / "0.nii.gz").array) == 1
    assert np.count_nonzero(files.read(deep_path / "2.nii.gz").array) == 2


def test_info_lists_the_segments(scan):
    found = info(scan[0] / "seg/overlap.dcm")
    assert (found["format"], found["type"], found["overlap"]) == ("DICOM SEG", "BINARY", True)
    assert [(s["number"], s["name"], s["voxels"], s["frames"]) for s in found["segments"]] == [
        (1, "left kidney", 442, 1),
        (2, "liver", 390, 1),
    ]
    assert found["segments"][0]["side"] == "left" and found["unit"] == "label"


@pytest.mark.parametrize("kind", ["plain", "overlap"])
def test_evaluate_on_either_side(scan, kind):
    folder = scan[0]
    grid = files.read_grid(folder / "CT")
    mask = folder / f"seg/{kind}.dcm"
    other = folder / (f"{kind}.nii.gz" if kind == "plain" else f"{kind}.seg.nrrd")
    assert run("convert", mask, other)[0] == 0
    for one, two in ((mask, other), (other, mask), (mask, mask)):
        assert dice(one, two) == {"left kidney": 1.0, "liver": 1.0}
    assert files.read_grid(other).matches(grid, 1e-3)


def test_two_segmentations_of_different_slices_are_compared(tmp_path):
    """Frames without a voxel are left out, so the two files hold different slices."""
    source = series()
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[1:4, 5:15, 5:15], second[3:6, 5:15, 5:15] = 1, 1
    for name, pixels in (("first", first), ("second", second)):
        saved(segmentation(source, pixels, names=["liver"]), tmp_path / f"{name}.dcm")
    found = dice(tmp_path / "first.dcm", tmp_path / "second.dcm")
    assert found == {"liver": pytest.approx(1 / 3)}


def test_view_puts_segments_on_the_image(scan):
    folder, pixels, _ = scan
    places = [folder / "CT", folder / "seg/plain.dcm", folder / "seg/overlap.dcm"]
    shown = find(places).entries[0].load()
    plain, *layers = shown.masks
    assert np.array_equal(plain.volume.array, pixels)
    assert plain.labels.names == ["left kidney", "liver"]
    assert [np.count_nonzero(layer.volume.array) for layer in layers] == [442, 390]
    assert isinstance(plain.volume, Volume)


def test_a_cohort_whose_masks_are_segmentations(scan, tmp_path):
    """Images as NIfTI, masks as SEG: names and voxels as in the objects, on the images' grids."""
    folder, pixels, _ = scan
    cohort = tmp_path / "cohort"
    for place in ("images", "labels"):
        (cohort / place).mkdir(parents=True)
    image = files.read(folder / "CT")
    for n in (1, 2):
        changed = image.with_array(image.array + n)
        files.write(changed, cohort / f"images/p{n}.nii.gz")
        shutil.copy(folder / "seg/plain.dcm", cohort / f"labels/p{n}.dcm")
    found = discover(cohort).manifest
    assert found.labels.names == ["left kidney", "liver"] and len(found) == 2
    for case in found:
        label = read_label(case, found, read_image(case, found).grid)
        assert np.array_equal(label.array, pixels)
