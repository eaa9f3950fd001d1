"""Structures that overlap: written in each form, read back, scored and drawn one by one."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from tests.cohorts.imitate import AFFINE, SHAPE, nifti, noise
from tests.plans import small_network, small_plan

from delineate.cohorts.checks.doctor import examine
from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.reading import read_label
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.commands.predict.overlapping_masks import mask_files, write_mask
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import LabelError, OutputError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.plan import Structure
from delineate.core.prediction import Prediction
from delineate.core.volume import Volume
from delineate.evaluation.overlapping import prediction_codes
from delineate.formats import files
from delineate.formats.label_files import read_label_file
from delineate.reporting.pictures import montage
from delineate.viewer.scenes import Mask, Scene

WHOLE, CORE = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
WHOLE[2:8, 2:7, 1:5], CORE[4:9, 3:6, 2:4] = True, True  # the core leaves the whole
CODES = (WHOLE + 2 * CORE).astype(np.uint8)
LABELS = LabelSet.from_names({1: "whole tumour", 2: "core"}, overlapping=True)
EXPECTED = {"whole tumour": int(WHOLE.sum()), "core": int(CORE.sum())}


def prediction(codes=CODES) -> Prediction:
    return Prediction(Volume(codes, Grid(SHAPE, AFFINE), "label"), LABELS, "id")


def written(folder, form, codes=CODES, cases=3):
    """Predictions of some cases with their record, as ``predict`` writes them."""
    entries = {}
    for n in range(cases):
        folder.mkdir(parents=True, exist_ok=True)
        entries[f"c{n}"] = write_mask(prediction(codes), folder, f"c{n}", form)
    record = {"labels": LABELS.to_json(), "overlapping": True, "cases": entries}
    (folder / "predictions.json").write_text(json.dumps(record))
    return folder


def cohort(root, cases=3):
    """Masks with one channel for each structure."""
    for n in range(cases):
        nifti(root / "images" / f"c{n}.nii.gz", noise(n))
        both = np.stack([WHOLE, CORE], -1).astype(np.uint8)
        nifti(root / "labels" / f"c{n}.nii.gz", both)
    (root / "labels.csv").write_text("value,name\n1,whole tumour\n2,core\n")
    return root


def test_one_file_for_each_structure(tmp_path):
    entry = write_mask(prediction(), tmp_path, "c0", "nii.gz")
    assert entry == {
        "file": "c0",
        "files": {"whole tumour": "c0/whole tumour.nii.gz", "core": "c0/core.nii.gz"},
    }
    for mask, file in zip((WHOLE, CORE), entry["files"].values(), strict=True):
        image = nib.load(tmp_path / file)
        assert np.array_equal(np.asarray(image.dataobj), mask)
        assert np.allclose(image.affine, AFFINE, atol=1e-5)
    assert read_label_file(tmp_path / "c0/core.nii.gz").meta["names"] == {1: "core"}
    # Names that no file can have, and names that would become one.
    odd = LabelSet.from_names({1: "a/b", 2: "A:b", 3: "c"}, overlapping=True)
    names = [path.name for path in mask_files(tmp_path, "c", "nii", odd)]
    assert names == ["a_b (1).nii", "A_b (2).nii", "c (3).nii"]
    assert mask_files(tmp_path, "c", "nii", LabelSet.from_names({1: "a"})) == [tmp_path / "c.nii"]


def test_codes_are_never_written_as_values(tmp_path):
    """Not by a Python user, and not by ``check --fix``."""
    with pytest.raises(OutputError, match="may overlap, and one label map has one value"):
        files.write(prediction().labels, tmp_path / "flat.nii.gz", labels=LABELS)
    assert not list(tmp_path.iterdir())


def test_layers_of_one_file_as_other_programs_read_them(tmp_path):
    import nrrd

    assert write_mask(prediction(), tmp_path, "c0", "nrrd") == {"file": "c0.seg.nrrd"}
    array, header = nrrd.read(str(tmp_path / "c0.seg.nrrd"))
    assert np.array_equal(array, [WHOLE, CORE]) and header["kinds"][0] == "list"
    fields = [(f"Segment{n}_Name", f"Segment{n}_Layer", f"Segment{n}_LabelValue") for n in (0, 1)]
    found = [[header[key] for key in keys] for keys in fields]
    assert found == [["whole tumour", "0", "1"], ["core", "1", "1"]]
    again = read_label_file(tmp_path / "c0.seg.nrrd")
    assert again.meta["names"] == {1: "whole tumour", 2: "core"}
    assert again.grid.matches(Grid(SHAPE, AFFINE))


@pytest.mark.parametrize("form", ["nii.gz", "nrrd"])
def test_each_form_is_read_back_and_scored(tmp_path, form):
    truth, mine = cohort(tmp_path / "c"), written(tmp_path / "p", form)
    found = evaluate(mine, truth, tmp_path / "out", EvaluateOptions(workers=1, pictures=True))
    assert not found.failures and found.labels.overlapping and found.confusion is None
    values = {(r.label, r.metric): r.value for r in found.scores if r.case == "c1"}
    for name, voxels in EXPECTED.items():
        assert values[name, "dice"] == 1 and values[name, "hd95_mm"] == 0
        volume = voxels * Grid(SHAPE, AFFINE).voxel_ml
        assert values[name, "volume_truth_ml"] == pytest.approx(volume)
    assert found.slices is not None and found.slices.mean("dice") == 1
    assert len(found.pictures) == 3 and not found.notes
    assert all((tmp_path / "out" / "pictures" / f"c{n}.png").is_file() for n in range(3))
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_mistake_in_one_structure_is_its_own(tmp_path):
    wrong = (WHOLE + 2 * (CORE & WHOLE)).astype(np.uint8)
    truth, mine = cohort(tmp_path / "c"), written(tmp_path / "p", "nii.gz", wrong)
    found = evaluate(mine, truth, None, EvaluateOptions(workers=1))
    both = int((CORE & WHOLE).sum())
    dice = 2 * both / (both + int(CORE.sum()))
    assert found.scores.mean("dice") == pytest.approx((1 + dice) / 2)
    assert found.pooled["core"]["dice"] == pytest.approx(dice)
    assert found.pooled["whole tumour"]["dice"] == 1


REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}


def regions(root, mask, order=(1, 2)):
    for n in range(3):
        nifti(root / "imagesTr" / f"c{n}_0000.nii.gz", noise(n))
        nifti(root / "labelsTr" / f"c{n}.nii.gz", mask)
    meta = {"channel_names": {"0": "MR"}, "labels": REGIONS, "file_ending": ".nii.gz"}
    meta |= {"regions_class_order": list(order)} if order else {}
    (root / "dataset.json").write_text(json.dumps(meta))
    return root


@pytest.mark.parametrize("truth", ["cohort", "folder"])
def test_regions_of_label_maps_are_unions_and_ignored_voxels_are_left_out(tmp_path, truth):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 2:7, 1:5], mask[4:7, 3:6, 2:4], mask[7, 2:7, 1:5] = 1, 2, 3
    root = regions(tmp_path / "c", mask)
    cohort = find(root)
    assert cohort.labels.overlapping and cohort.labels.can_be_painted
    assert examine((cohort.cases[0], cohort)).voxels == {1: int((mask == 1).sum() + 18), 2: 18}
    mine = mask.copy()
    mine[mask == 3] = 2  # junk where the truth is unknown
    mine[4, 3:6, 2:4] = 1  # a part of the core is missing
    for n in range(3):
        nifti(tmp_path / "p" / f"c{n}.nii.gz", mine)
    there = root if truth == "cohort" else root / "labelsTr"
    found = evaluate(tmp_path / "p", there, None, EvaluateOptions(workers=1))
    assert found.pooled["whole"]["dice"] == 1
    assert found.pooled["core"]["dice"] == pytest.approx(2 * 12 / (12 + 18))
    assert any("ignores" in note for note in found.notes)


def test_regions_without_class_order_have_masks_of_their_own(tmp_path):
    cohort = find(regions(tmp_path / "c", np.ones(SHAPE, np.uint8), order=()))
    assert cohort.labels.overlapping and not cohort.labels.can_be_painted
    with pytest.raises(LabelError, match="as many different values of regions_class_order"):
        find(regions(tmp_path / "d", np.ones(SHAPE, np.uint8), order=(1, 1)))


def test_what_does_not_say_which_structure_is_where_is_refused(tmp_path):
    nifti(tmp_path / "flat.nii.gz", CODES)
    with pytest.raises(LabelError, match="one label map without names"):
        prediction_codes(read_label_file(tmp_path / "flat.nii.gz"), LABELS)
    nifti(tmp_path / "three.nii.gz", np.stack([CODES] * 3, -1))
    with pytest.raises(LabelError, match="3 channels for 2 structures"):
        prediction_codes(read_label_file(tmp_path / "three.nii.gz"), LABELS)
    write_mask(prediction(), tmp_path, "c0", "nrrd")
    other = LabelSet.from_names({1: "whole tumour", 2: "spot"}, overlapping=True)
    with pytest.raises(LabelError, match="no structure is called 'core'"):
        prediction_codes(read_label_file(tmp_path / "c0.seg.nrrd"), other)


def test_predictions_in_memory_and_the_viewer(tmp_path):
    found = evaluate(prediction(), prediction(), None, EvaluateOptions(workers=1))
    assert found.scores.mean("dice") == 1 and found.labels.names == LABELS.names
    assert prediction().volumes_ml["core"] == pytest.approx(
        CORE.sum() * Grid(SHAPE, AFFINE).voxel_ml
    )
    image = Volume(noise(0), Grid(SHAPE, AFFINE))
    scene = Scene("c", image, (Mask("truth", prediction().labels, LABELS),))
    assert [mask.name for mask in scene.masks] == ["truth: whole tumour", "truth: core"]
    assert np.array_equal(scene.masks[1].volume.array, CORE)
    montage(image, {"truth": prediction().labels}, LABELS, tmp_path / "m.png", filled=True)
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_a_dicom_seg_with_segments_that_overlap(real_data, tmp_path):
    pytest.importorskip("highdicom")
    import pydicom

    from delineate.formats.dicom.find import find_series
    from delineate.formats.dicom.seg import write_seg

    folder = real_data / "hippocampus_dicom"
    (series,) = find_series(folder)
    scan = files.read(folder)
    codes = np.zeros(scan.grid.shape, np.uint8)
    codes[5:15, 5:15, 5:15] |= 1
    codes[10:20, 10:20, 10:20] |= 2
    mask = Volume(codes, scan.grid, "label")
    about = {"algorithm_name": "test", "algorithm_version": "1"}
    assert not write_seg(mask, LABELS, series.files, tmp_path / "s.dcm", **about)
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    numbers = [
        f.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for f in seg.PerFrameFunctionalGroupsSequence
    ]
    frames = {n: seg.pixel_array[np.array(numbers) == n].sum() for n in (1, 2)}
    assert frames == {1: 1000, 2: 1000}
    assert [s.SegmentLabel for s in seg.SegmentSequence] == LABELS.names


def test_real_segments_that_overlap_become_a_cohort(real_data, tmp_path):
    """The five segments of a real segmentation as the channels of one file."""
    paths = sorted((real_data / "dicom_seg").rglob("partial_overlaps*.nrrd"))
    if len(paths) < 2:
        pytest.skip("no masks of partial_overlaps")
    maps = [read_label_file(path) for path in paths]
    grid, masks = maps[0].grid, [m.array == v for m in maps for v in np.unique(m.array) if v]
    array = np.stack(masks, -1).astype(np.uint8)
    for n in range(2):
        nifti(tmp_path / "images" / f"c{n}.nii.gz", np.zeros(grid.shape, np.int16), grid.affine)
        nifti(tmp_path / "labels" / f"c{n}.nii.gz", array, grid.affine)
    found = discover(tmp_path).manifest
    label = read_label(found.cases[0], found).array
    voxels = [int(found.labels.inside(label, b).sum()) for b in found.labels]
    assert found.labels.overlapping and sorted(voxels) == [4713, 6693, 9602, 10743, 11888]


def test_a_model_states_its_output(tmp_path):
    from delineate.networks.build import build, weights_of

    plan = small_plan(
        names={1: "a", 2: "b"},
        network=small_network(classes=2, overlapping=True),
        structures=tuple(Structure(**d) for d in LABELS.to_json()),
        output="structures",
    )
    bundle = Bundle(plan, (Member("m", weights_of(build(plan.network, 0))),))
    bundle.save(tmp_path / "m.model")
    again = Bundle.load(tmp_path / "m.model")
    assert again.plan.output_labels == LABELS and again.id == bundle.id
