"""Export slices and merge them: real and synthetic cohorts, bad cases, and predicted masks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.calls import run
from tests.scans import mask, scan, write_cohort
from typer.testing import CliRunner

from delineate.cli import app
from delineate.cohorts.discovery.layouts import find
from delineate.cohorts.reading import read_image, read_label
from delineate.commands.check import check
from delineate.commands.options import ExportSlicesOptions, MergeSlicesOptions
from delineate.commands.slices.export_slices import export_slices
from delineate.commands.slices.merge_slices import merge_slices
from delineate.core.errors import InputError, LabelError, OutputError, UsageError
from delineate.formats import files
from delineate.formats.slices.record import VIEWS, SliceSet

ALL = tuple(VIEWS)


def assert_rebuilt(data: Path, slices: Path, out: Path, views=ALL) -> None:
    """Volumes merged from each view equal those of the cohort."""
    cohort = find(data)
    for view in views:
        merge_slices(slices, out, MergeSlicesOptions(view=view, overwrite=True, workers=1))
        for case in cohort:
            image = read_image(case, cohort)
            several = len(cohort.channels) > 1
            names = [f"{case.id}_{name}" for name in cohort.channels] if several else [case.id]
            for channel, name in zip(image.channels_array, names, strict=True):
                again = files.read(out / "images" / f"{name}.nii.gz")
                assert np.array_equal(again.array, channel)
                assert again.array.dtype == channel.dtype
                # NIfTI stores an affine in single precision.
                assert np.allclose(again.affine, image.affine, rtol=1e-6, atol=1e-6)
            label = files.read(out / "labels" / f"{case.id}.nii.gz")
            assert np.array_equal(label.array, read_label(case, cohort, image.grid).array)
            assert label.meta["names"] == dict(
                zip(cohort.labels.values, cohort.labels.names, strict=True)
            )


def whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int16)


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Three oblique anisotropic scans of two structures, of two visits of p0 and one of p1."""
    turn = np.array([[-0.96, 0.28, 0, 30], [0.42, 1.44, 0, -9], [0, 0, 3, 4], [0, 0, 0, 1.0]])
    for n, name in enumerate(("p0_1", "p0_2", "p1_1")):
        values = whole(np.random.default_rng(n).normal(0, 300, (20, 18, 16)))
        scan(tmp_path / "data/images" / f"{name}.nii.gz", values, turn)
        scan(tmp_path / "data/labels" / f"{name}.nii.gz", mask(n), turn)
    return tmp_path / "data"


def test_one_bad_case_does_not_stop_the_others(cohort, tmp_path):
    (cohort / "images/p0_2.nii.gz").write_bytes(b"\x1f\x8bnothing")
    words = ["export-slices", cohort, "-o", tmp_path / "s", "--view", "axial,sagittal"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 1 and "p0_2" in done.stderr
    rows = list(csv.DictReader((tmp_path / "s/index.csv").open()))
    assert {row["case"] for row in rows} == {"p0_1", "p1_1"}
    assert len(rows) == 2 * (16 + 20)
    first = rows[0]
    assert (first["view"], first["slice"], first["patient"]) == ("axial", "0", "p0")
    assert float(rows[1]["position_mm"]) - float(first["position_mm"]) == pytest.approx(3)
    for row in rows:
        assert (tmp_path / "s" / row["image"]).is_file()
        assert (tmp_path / "s" / row["mask"]).is_file()
    merged = CliRunner().invoke(
        app, ["merge-slices", str(tmp_path / "s"), "-o", str(tmp_path / "v")]
    )
    assert merged.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "v/images").iterdir()) == [
        "p0_1.nii.gz",
        "p1_1.nii.gz",
    ]


def test_oblique_volumes_are_rebuilt(cohort, tmp_path):
    export_slices(cohort, tmp_path / "s", ExportSlicesOptions(views=ALL, masks="colour"))
    assert_rebuilt(cohort, tmp_path / "s", tmp_path / "v")


def test_real_ct_series(real_data, tmp_path):
    for part in ("DICOM_anon", "Ground"):
        (tmp_path / "ct" / part).mkdir(parents=True)
        for path in sorted((real_data / "chaos_ct" / part).iterdir())[30:38]:
            shutil.copy(path, tmp_path / "ct" / part)
    done = export_slices(tmp_path / "ct", tmp_path / "s")
    assert done.slices == 8 and done.notes == ("merge-slices rebuilds every voxel exactly",)
    assert_rebuilt(tmp_path / "ct", tmp_path / "s", tmp_path / "v", ("axial",))


def test_real_mr(real_data, tmp_path):
    """A scan of whole numbers is exact; of one with fractions the loss is stated."""
    for name in ("hippocampus_001", "hippocampus_003"):
        for part in ("images", "labels"):
            path = real_data / "hippocampus" / f"{part}Tr" / f"{name}.nii.gz"
            (tmp_path / name / part).mkdir(parents=True)
            shutil.copy(path, tmp_path / name / part)
    fractions, exact = tmp_path / "hippocampus_003", tmp_path / "hippocampus_001"
    export_slices(exact, tmp_path / "s", ExportSlicesOptions(views=ALL))
    assert_rebuilt(exact, tmp_path / "s", tmp_path / "v")
    done = export_slices(fractions, tmp_path / "lossy")
    assert "the intensities of 1 of 1 cases cannot be rebuilt exactly" in done.notes[0]
    merge_slices(tmp_path / "lossy", tmp_path / "lossy_v")
    name = "hippocampus_003.nii.gz"
    again = files.read(tmp_path / "lossy_v/images" / name).array
    scan_array = files.read(fractions / "images" / name).array
    change = np.abs(again - scan_array).max()
    # Half of a step of 2777 / 65535.
    assert 0 < change == pytest.approx(done.cases[0].max_error, rel=1e-3) and change < 0.0213
    # Arrays keep the values.
    export_slices(fractions, tmp_path / "n", ExportSlicesOptions(form="npy"))
    assert_rebuilt(fractions, tmp_path / "n", tmp_path / "nv", ("axial",))


def test_140_structures(real_data, tmp_path):
    name = sorted(p.name for p in (real_data / "malc/images").iterdir())[0]
    for part in ("images", "labels"):
        source = nib.load(real_data / "malc" / part / name)
        block = np.asarray(source.dataobj)[70:150, 60:140, 90:110]
        scan(tmp_path / "data" / part / name, block, source.affine)
    for masks in ("index", "grey"):
        options = ExportSlicesOptions(views=("coronal",), masks=masks, bits=8, overwrite=True)
        export_slices(tmp_path / "data", tmp_path / "s", options)
        merge_slices(tmp_path / "s", tmp_path / "v", MergeSlicesOptions(overwrite=True))
        again = files.read(tmp_path / "v/labels" / name)
        truth = files.read(tmp_path / "data/labels" / name)
        assert np.array_equal(again.array, truth.array) and len(np.unique(again.array)) > 30


def test_channels_and_pictures(tmp_path):
    for n in range(3):
        for channel, seed in (("t1", n), ("flair", n + 9)):
            values = whole(np.random.default_rng(seed).normal(900, 90, (20, 18, 16)))
            scan(tmp_path / f"mr/c{n}/c{n}_{channel}.nii.gz", values)
        scan(tmp_path / f"mr/c{n}/c{n}_seg.nii.gz", mask(n))
    export_slices(tmp_path / "mr", tmp_path / "s", ExportSlicesOptions(views=("coronal",)))
    assert_rebuilt(tmp_path / "mr", tmp_path / "s", tmp_path / "v", ("coronal",))
    again = find(tmp_path / "s")
    assert len(again.channels) == 2 and len(again) == 3 * 18
    # The merged volumes keep the names of the channels.
    assert find(tmp_path / "v").channels == again.channels == ("flair", "t1")
    # Pictures have one view.
    for n in range(3):
        for part, values in (("images", np.arange(48) * 5), ("masks", np.arange(48) % 2 * 255)):
            (tmp_path / "pictures" / part).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(values.reshape(6, 8).astype(np.uint8))
            picture.save(tmp_path / "pictures" / part / f"i{n}.png")
    done = export_slices(tmp_path / "pictures", tmp_path / "p", ExportSlicesOptions(views=ALL))
    assert done.slices == 3 and "3 cases have a single slice" in done.notes[1]
    first = np.array(Image.open(tmp_path / "p/axial/images/i0_axial_0000.png"))
    assert np.array_equal(first, (np.arange(48) * 5).reshape(6, 8))


@pytest.mark.parametrize(("form", "masks"), [("png", "index"), ("npy", "colour"), ("tiff", "grey")])
def test_the_tree_is_a_cohort_of_whole_patients(cohort, tmp_path, form, masks):
    options = ExportSlicesOptions(views=("axial", "coronal"), masks=masks, form=form, workers=1)
    export_slices(cohort, tmp_path / "s", options)
    checked = check(tmp_path / "s" / "coronal", None)
    assert not [f.message for f in checked.findings if f.severity == "error"]
    found = checked.usable
    assert (found.layout, len(found), found.patients) == ("exported-slices", 3 * 18, ["p0", "p1"])
    folds = {(case.patient, case.fold) for case in found.with_folds(2)}
    assert len(folds) == 2
    # Spacing, intensities up to an offset, and structures are those of the scan.
    whole_cohort = find(cohort)
    image = read_image(whole_cohort.named("p1_1"), whole_cohort).reorient(VIEWS["coronal"])
    label = read_label(whole_cohort.named("p1_1"), whole_cohort).reorient(VIEWS["coronal"])
    one = found.named("p1_1_coronal_0007")
    pixels, structures = read_image(one, found), read_label(one, found)
    order = slice(None, None, -1 if form == "npy" else 1)  # an array has its rows first
    assert pixels.spacing_mm[:2][order] == pytest.approx(image.spacing_mm[:2])
    turned = (0, 1)[order]
    difference = pixels.array[0, :, :, 0].transpose(turned).astype(int) - image.array[0, :, :, 7]
    assert len(np.unique(difference)) == 1
    assert np.array_equal(structures.array[..., 0].transpose(turned), label.array[..., 7])
    # A mask that is predicted on a slice is merged again, whatever the order of its axes.
    for case in found:
        files.write(read_label(case, found), tmp_path / "masks" / f"{case.id}.nii.gz")
    merge_slices(tmp_path / "s", tmp_path / "v", MergeSlicesOptions(masks=tmp_path / "masks"))
    truth = read_label(whole_cohort.named("p1_1"), whole_cohort).array
    assert np.array_equal(files.read(tmp_path / "v/p1_1.nii.gz").array, truth)
    assert found.labels.names == whole_cohort.labels.names
    assert len(find(tmp_path / "s")) == 3 * (16 + 18)


def predicted(slices: Path, out: Path, change=lambda pixels: pixels, skip=()) -> Path:
    """Masks as a 2-D network leaves them: those of the export, changed."""
    out.mkdir()
    for path in sorted((slices / "axial/masks").iterdir()):
        if path.name not in skip:
            Image.fromarray(change(np.array(Image.open(path)))).save(out / path.name)
    return out


def test_predicted_masks_are_merged(cohort, tmp_path):
    export_slices(cohort, tmp_path / "s", ExportSlicesOptions(masks="grey"))
    truth = files.read(cohort / "labels/p1_1.nii.gz").array

    def index(pixels):
        return np.searchsorted([0, 128, 255], pixels).astype(np.uint8)

    for name, change in (("grey", lambda pixels: pixels), ("index", index)):
        given = predicted(tmp_path / "s", tmp_path / name, change)
        merge_slices(tmp_path / "s", tmp_path / f"{name}_v", MergeSlicesOptions(masks=given))
        assert np.array_equal(files.read(tmp_path / f"{name}_v/p1_1.nii.gz").array, truth)
    # Masks of some patients only, one of them incomplete.
    part = predicted(tmp_path / "s", tmp_path / "part", skip=("p0_1_axial_0003.png",))
    for path in part.glob("p1_1_*"):
        path.unlink()
    done = merge_slices(tmp_path / "s", tmp_path / "part_v", MergeSlicesOptions(masks=part))
    assert [path.name for path in done.written] == ["p0_2.nii.gz"]
    assert done.failures == (
        f"p0_1: 1 of 16 axial masks are missing in {part}, such as p0_1_axial_0003",
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: p[:9], InputError, "has 20 x 9 pixels"),
        (lambda p: p + 3, LabelError, "pixel values 3, 4, 5 are no structures"),
        (lambda p: np.stack([p, p * 0, p], -1), LabelError, "the masks have colours"),
    ],
)
def test_masks_that_do_not_fit_are_refused(cohort, tmp_path, change, error, words):
    export_slices(cohort, tmp_path / "s")
    given = predicted(tmp_path / "s", tmp_path / "given", change)
    with pytest.raises(error, match=words):
        merge_slices(tmp_path / "s", tmp_path / "v", MergeSlicesOptions(masks=given))


def test_values_that_mean_two_things_are_refused(tmp_path):
    for name in ("a", "b"):
        scan(tmp_path / "data/images" / f"{name}.nii.gz", whole(mask() * 100.0))
        values = np.array([0, 64, 128], np.uint8)[mask()]
        scan(tmp_path / "data/labels" / f"{name}.nii.gz", values)
    # 64 is shown as 128, and 128 as 255: a mask with only 128 can be either.
    export_slices(tmp_path / "data", tmp_path / "s", ExportSlicesOptions(masks="grey"))
    given = predicted(tmp_path / "s", tmp_path / "given", lambda p: p * (p == 128))
    with pytest.raises(LabelError, match="can be those of grey and of index masks"):
        merge_slices(tmp_path / "s", tmp_path / "v", MergeSlicesOptions(masks=given))
    for kind, value in (("index", 128), ("grey", 64)):
        out = tmp_path / kind
        merge_slices(tmp_path / "s", out, MergeSlicesOptions(masks=given, kind=kind))
        assert set(np.unique(files.read(out / "a.nii.gz").array)) == {0, value}


def test_what_is_there_is_not_replaced(cohort, tmp_path):
    out = tmp_path / "s"
    export_slices(cohort, out)
    with pytest.raises(OutputError, match="--overwrite replaces them"):
        export_slices(cohort, out)
    (out / "mine.txt").write_text("kept")
    # The record of a call that was killed names the cases that it was writing.
    record = SliceSet.load(out)
    killed = {**record.to_json(), "cases": [], "writing": list(record.cases)}
    (out / "slices.json").write_text(json.dumps(killed))
    options = ExportSlicesOptions(views=("coronal",), overwrite=True)
    export_slices(cohort, out, options)
    assert not list((out / "axial/images").iterdir()) and (out / "mine.txt").is_file()
    with pytest.raises(OutputError, match=r"holds .* which this command reads"):
        export_slices(out / "coronal", out, ExportSlicesOptions(overwrite=True))
    with pytest.raises(OutputError, match="holds other files"):
        export_slices(cohort, cohort)
    merge_slices(out, tmp_path / "v")
    with pytest.raises(OutputError, match="exists already"):
        merge_slices(out, tmp_path / "v")
    with pytest.raises(InputError, match="export-slices did not write it"):
        merge_slices(cohort, tmp_path / "w")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"views": ()}, "--view is one of axial, coronal, sagittal, found none"),
        ({"views": ("oblique",)}, "--view is one of axial, coronal, sagittal, found oblique"),
        ({"bits": 12}, "--bits is 8 or 16"),
        ({"form": "jpg"}, "--format is one of"),
        ({"form": "npy", "window": (0, 1)}, "for npy add --bits"),
        ({"split": "5/1"}, "adds up to 6, but there are 2 patients"),
    ],
)
def test_wrong_options(cohort, tmp_path, given, words):
    with pytest.raises(UsageError, match=words):
        export_slices(cohort, tmp_path / "s", ExportSlicesOptions(**given))
    assert not (tmp_path / "s").exists()


def test_a_split_is_kept_for_training(tmp_path):
    write_cohort(tmp_path / "data", 4)
    export_slices(tmp_path / "data", tmp_path / "s", ExportSlicesOptions(split="50/25/25"))
    found = find(tmp_path / "s")
    sides = {case.patient: case.split for case in found}
    assert sorted(map(str, sides.values())) == ["test", "train", "train", "val"]


@pytest.mark.rounds
def test_a_model_of_exported_slices_gives_volumes_again(cohort, tmp_path):
    """Export, train, predict, merge and evaluate, each by its command."""
    slices, model = tmp_path / "s", tmp_path / "m.model"
    assert run("export-slices", cohort, "-o", slices, "--view", "axial")[0] == 0
    few = ("--epochs", 1, "--set", "schedule.steps_per_epoch=2")
    code, printed = run("train", slices, "-o", model, *few, "--device", "cpu")
    # Two steps give no useful model, and the verdict states it.
    assert code == 3 and "not usable" in printed, printed
    assert run("predict", model, slices, "-o", tmp_path / "masks", "--device", "cpu")[0] == 0
    words = ("--masks", tmp_path / "masks", "-o", tmp_path / "volumes")
    assert run("merge-slices", slices, *words)[0] == 0
    volumes = {path.name for path in (tmp_path / "volumes").iterdir()}
    assert volumes == {"p0_1.nii.gz", "p0_2.nii.gz", "p1_1.nii.gz"}
    code, printed = run("evaluate", tmp_path / "volumes", cohort, "-o", tmp_path / "e")
    assert code == 0 and "3 cases" in printed, printed
