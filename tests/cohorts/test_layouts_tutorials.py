"""The five published systems' own folders: ``check`` and ``plan --recipe`` read each as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cohorts import tutorial_trees as trees

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_image, read_label
from delineate.commands.check import check
from delineate.commands.options import CheckOptions, PlanOptions
from delineate.commands.plan import plan
from delineate.core.manifest import Manifest
from delineate.core.plan import Plan

ORGANS = ["liver", "right kidney", "left kidney", "spleen"]
TISSUES = ["CSF", "grey matter", "white matter"]
TUMOUR = ["necrotic and non-enhancing tumour core", "oedema", "enhancing tumour"]


def read_by_commands(
    root: Path, make: Callable[[Path], None], layout: str, recipe: str
) -> tuple[Manifest, Plan]:
    """The cohort that ``check`` finds without errors, every mask with its image, and the plan."""
    make(root)
    report = check(root, options=CheckOptions(workers=1))
    errors = [f for f in report.findings if f.severity == "error"]
    manifest = report.manifest
    assert manifest.layout == layout and not errors, errors
    assert len(report.usable) == len(manifest)
    for case in manifest:
        image = read_image(case, manifest)
        if case.label:
            read_label(case, manifest, image.grid)
            assert {s.path for s in case.images} != {s.path for s in case.label}
    return manifest, plan(root, options=PlanOptions(recipe=recipe))


def parts(manifest: Manifest) -> dict[str, int]:
    splits = [case.split or "train" for case in manifest]
    return {split: splits.count(split) for split in dict.fromkeys(splits)}


def test_liver_volumes(tmp_path):
    found, made = read_by_commands(
        tmp_path, trees.liver_volumes, "parallel-folders", "liver-ct-unet3d"
    )
    assert parts(found) == {"test": 2, "train": 4} and len(found.patients) == 6
    assert found.labels.names == [s.name for s in made.structures] == ["liver"]


def test_liver_groups(tmp_path):
    found, made = read_by_commands(
        tmp_path, trees.liver_groups, "parallel-folders", "liver-ct-unet3d"
    )
    assert found.patients == ["liver_1", "liver_2", "liver_3"] and len(found) == 5
    assert found.labels.names == [s.name for s in made.structures] == ["liver"]


def test_brain_volumes(tmp_path):
    found, made = read_by_commands(
        tmp_path, trees.brain_volumes, "parallel-folders", "brain-quicknat"
    )
    assert found.patients == ["OAS1_0001", "OAS1_0002", "OAS1_0003"] and len(found) == 4
    assert found.labels.names == [s.name for s in made.structures] == TISSUES
    assert len(made.views) == 3


@pytest.mark.parametrize("coloured", [True, False])
def test_brain_slices(tmp_path, coloured):
    make = partial(trees.brain_slices, coloured=coloured)
    found, made = read_by_commands(tmp_path, make, "parallel-folders", "brain-quicknat")
    assert parts(found) == {"test": 6, "train": 18, "val": 6} and len(found.patients) == 5
    assert found.labels.names == [s.name for s in made.structures] == TISSUES
    for case in found:
        k, n = int(case.id.rpartition("slice")[2]), int(case.patient[-4:])
        label = read_label(case, found).array[..., 0]
        assert np.array_equal(label, trees.mask(trees.TISSUES, n)[:, :, k])
    # Slices have one network, in their plane.
    assert not made.views and made.patch[2] == 1


@pytest.mark.parametrize("coloured", [True, False])
def test_slices_that_were_scaled_by_their_own_highest_label_are_errors(tmp_path, coloured):
    trees.brain_slices(tmp_path, coloured=coloured)
    folder = tmp_path / "TrainLabels" / "Coronal"
    # Two labels of three, and one: the colours of the second one look like white matter.
    for name, label in (("half", trees.mask((1, 2))), ("one", trees.mask([1]))):
        path = folder / f"{trees.oasis(1)}_slice{'1' if name == 'half' else '2'}.png"
        trees.drawn(path, label[:, :, 2])
        if not coloured:
            Image.open(path).convert("L").save(path)
    found = discover(tmp_path)
    errors = {f.case for f in found.findings if f.severity == "error"}
    assert errors == {f"{trees.oasis(1)}_slice{k}" for k in (1, 2)}
    assert found.manifest.labels.names == TISSUES
    assert not errors & {case.id for case in found.manifest}


@pytest.mark.parametrize("colours", ["jet", "gray"])
def test_slices_in_other_colours(tmp_path, colours):
    trees.brain_slices(tmp_path, coloured=True, colours=colours)
    found = discover(tmp_path).manifest
    case = found.named(f"{trees.oasis(2)}_slice2")
    assert found.labels.names == TISSUES
    label = read_label(case, found).array[..., 0]
    assert np.array_equal(label, trees.mask(trees.TISSUES, 2)[:, :, 2])
    # The greys 0, 128 and 255 of a slice without white matter are not those of the others.
    name = f"{trees.oasis(1)}_slice2"
    path = tmp_path / "TrainLabels" / "Coronal" / f"{name}.png"
    trees.drawn(path, trees.mask((1, 2))[:, :, 2], colours)
    errors = {f.case for f in discover(tmp_path).findings if f.severity == "error"}
    assert errors == {name}


@pytest.mark.parametrize("parts_", [("Train", "Val", "Test"), ("Train",)])
def test_slices_of_several_views_are_of_one_patient(tmp_path, parts_):
    for view in ("Axial", "Coronal", "Sagittal"):
        trees.brain_slices(tmp_path, coloured=False, view=view)
    for folder in list(tmp_path.iterdir()):
        if not folder.name.startswith(parts_):
            shutil.rmtree(folder)
    found = discover(tmp_path).manifest
    people = (1, 2, 3, 4, 5) if len(parts_) > 1 else (1, 2, 3)
    assert found.patients == [f"OAS1_{n:04d}" for n in people]
    assert found.labels.names == TISSUES and len(found) == 18 * len(people)
    assert f"{trees.oasis(1)}_slice0_axial" in {case.id for case in found}


def test_brats_in_one_folder(tmp_path):
    found, _ = read_by_commands(
        tmp_path, trees.brats_one_folder, "suffix-pairs", "brats-vnet-light"
    )
    assert found.channels == ("flair", "t1", "t1ce", "t2") and found.labels.names == TUMOUR
    assert [Path(s.path).name.split("_")[-1] for s in found.cases[0].label] == ["seg.nii.gz"]
    # A case without one of the sequences is an error, and no case of its own.
    (tmp_path / "BraTS20_Training_002_t2.nii.gz").unlink()
    again = discover(tmp_path)
    assert len(again.manifest) == 2
    assert [f.case for f in again.findings if f.severity == "error"] == ["BraTS20_Training_002"]


def test_mr_slices(tmp_path):
    found, made = read_by_commands(tmp_path, trees.mr_slices, "parallel-folders", "liver-mr-unet2d")
    assert parts(found) == {"train": 18, "val": 6}
    assert found.patients == [f"T1_Patient{n}" for n in (1, 2, 3, 5)]
    assert found.labels.names == ORGANS and [s.name for s in made.structures] == ["liver"]
    assert found.channels == ("T1",) and found.modality == "MR"
    # The masks have the place of their slice.
    case = found.named("T1_Patient2_No3")
    assert np.allclose(read_image(case, found).spacing_mm[:2], 0.9)
    assert np.count_nonzero(read_label(case, found).array == 1) == 2 * 5


def test_mr_pictures(tmp_path):
    found, made = read_by_commands(
        tmp_path, trees.mr_pictures, "parallel-folders", "liver-mr-unet2d"
    )
    assert parts(found) == {"train": 18, "val": 6} and len(found.patients) == 4
    assert found.labels.names == [s.name for s in made.structures] == ["liver"]


@pytest.mark.parametrize("original", ["Data", "Data_16bit"])
def test_the_original_pictures_are_used_if_both_are_there(tmp_path, original):
    trees.mr_pictures(tmp_path)
    for part in ("train", "val"):
        for path in (tmp_path / "data" / part / "Data_8bit").iterdir():
            copy = tmp_path / "data" / part / original / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    found = discover(tmp_path).manifest
    assert len(found) == 24 and {Path(c.path).parent.name for c in found} == {original}


def test_chaos_mr(tmp_path):
    found, made = read_by_commands(tmp_path, trees.chaos_mr, "chaos-mr", "liver-mr-unet2d")
    assert found.labels.names == ORGANS and [s.name for s in made.structures] == ["liver"]


def test_ircad(tmp_path):
    found, made = read_by_commands(tmp_path, trees.ircad, "3d-ircadb", "liver-ct-unet2d")
    assert len(found.labels) == 5 and [s.name for s in made.structures] == ["liver"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("ircad_e{:02d}_orig.nii.gz", "ircad_e{:02d}_liver.nii.gz"),
        ("liver-orig{:03d}.nii", "liver-seg{:03d}.nii"),
    ],
)
def test_raw_pairs(tmp_path, image, label):
    make = partial(trees.raw_pairs, image=image, label=label)
    found, made = read_by_commands(tmp_path, make, "suffix-pairs", "liver-ct-unet2d")
    assert parts(found) == {"test": 2, "train": 4} and len(found.patients) == 6
    assert all("orig" in Path(case.path).name for case in found)
    assert found.labels.names == [s.name for s in made.structures] == ["liver"]


def test_slice_arrays(tmp_path):
    found, made = read_by_commands(tmp_path, trees.slice_arrays, "array-stacks", "liver-ct-unet2d")
    assert parts(found) == {"train": 24, "test": 12}
    # Neighbouring slices are of one patient; no block is on both sides.
    blocks = [case.patient for case in found if case.split is None]
    assert blocks == sorted(blocks) and 1 < len(set(blocks)) <= 4
    assert [s.name for s in made.structures] == ["liver"]
    case = found.named("train_07")
    image = read_image(case, found)
    own = trees.ct(2)[:, :, 1].astype(np.uint8)
    assert np.array_equal(image.array[0, ..., 0], own)
    assert read_label(case, found, image.grid).array.any()


@pytest.mark.parametrize(
    ("make", "layout", "structures"),
    [
        (trees.brats_cases, "modality-files", TUMOUR),
        (trees.brats_grades, "modality-files", TUMOUR),
        (
            trees.brats_2015,
            "brats-2015",
            ["necrosis", "oedema", "non-enhancing tumour", "enhancing tumour"],
        ),
        (partial(trees.brats_flat, names="flair t1 t1ce t2"), "parallel-folders", TUMOUR),
        (partial(trees.brats_flat, names="t1"), "parallel-folders", TUMOUR),
        (
            partial(trees.brats_flat, names="t1", images="image/folder", labels="label/folder"),
            "parallel-folders",
            TUMOUR,
        ),
        (trees.brats_arrays, "array-stacks", ["label 1", "label 2", "label 3"]),
    ],
)
def test_brain_tumours(tmp_path, make, layout, structures):
    found, made = read_by_commands(tmp_path, make, layout, "brats-vnet-light")
    assert len(found.patients) == len(found) == (4 if layout == "array-stacks" else 3)
    assert found.labels.names == [s.name for s in made.structures] == structures
    assert len(found.channels) == len(made.channels) in (1, 4)
