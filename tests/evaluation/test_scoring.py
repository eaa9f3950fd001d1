"""The evaluate step on real files: pairing, names, geometry, the named means, and what is
refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delineate.commands.compare import compare
from delineate.commands.evaluate import evaluate, evaluate_cases
from delineate.commands.options import CompareOptions, EvaluateOptions
from delineate.core.errors import (
    DelineateError,
    GeometryError,
    InputError,
    LabelError,
    LayoutError,
    UsageError,
)
from delineate.core.grid import Grid
from delineate.core.labels import LabelMapping, LabelSet, Range
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.scores import Scores
from delineate.core.volume import Volume
from delineate.formats.files import read, write
from delineate.reporting.score_table import table

LABELS = {1: "liver", 2: "spleen"}


def block(shape, value, start, stop) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = value
    return array


def save(array: np.ndarray, path: Path, spacing_mm=(0.8, 1.5, 3.0), shift_mm: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing_mm, 1.0])
    affine[0, 3] = shift_mm
    write(Volume(array, Grid(array.shape, affine), "label"), path)
    return path


def picture(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Two cases: a perfect one, and one in which the liver is half found and the spleen absent from
    both.
    """
    shape = (10, 8, 6)
    a = block(shape, 1, (0, 0, 0), (4, 4, 4)) + block(shape, 2, (6, 0, 0), (8, 2, 2))
    save(a, tmp_path / "pred" / "a.nii.gz")
    save(a, tmp_path / "truth" / "a.nii.gz")
    save(block(shape, 1, (0, 0, 0), (4, 4, 4)), tmp_path / "truth" / "b.nii.gz")
    save(block(shape, 1, (0, 0, 0), (2, 4, 4)), tmp_path / "pred" / "b.nii.gz")
    return tmp_path / "pred", tmp_path / "truth"


def value(scores: Scores, case: str, label: str, metric: str) -> float:
    return next(r.value for r in scores if (r.case, r.label, r.metric) == (case, label, metric))


def test_chaos_slices_in_the_right_order_give_the_published_scores(real_data, tmp_path):
    found = evaluate(
        real_data / "chaos_ct" / "Segmentation",
        real_data / "chaos_ct" / "Ground",
        tmp_path,
        EvaluateOptions(report=False),
    )
    dice = found.pooled["foreground"]
    assert dice["dice"] == pytest.approx(0.978, abs=5e-4)
    assert dice["absolute_volume_difference_percent"] == pytest.approx(0.665, abs=1e-3)
    assert dice["volume_difference_percent"] < 0
    # 1,342,595 voxels of 0.7266 x 0.7266 x 2.0 mm, not x 3.2.
    assert dice["volume_truth_ml"] == pytest.approx(1417.5, abs=0.1)
    assert found.exit_code == 0
    assert any("DICOM_anon" in note for note in found.notes)
    assert any("63" in note and "foreground" in note for note in found.notes)
    assert set(found.means()) == {
        "dice_pooled_over_all_slices",
        "dice_mean_per_case",
        "dice_mean_per_slice",
    }
    assert found.slices.slices == 78
    dice = found.slices.summary()[0]
    assert (dice["n"] + dice["undefined"], dice["n"]) == (78, len({r.case for r in found.slices}))
    sides = [
        sorted((real_data / "chaos_ct" / name).iterdir()) for name in ("Segmentation", "Ground")
    ]
    masks = [
        (np.asarray(Image.open(a)) > 0, np.asarray(Image.open(b)) > 0)
        for a, b in zip(*sides, strict=True)
    ]
    by_hand = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in masks if a.any() or b.any()]
    assert found.means()["dice_mean_per_slice"] == pytest.approx(np.mean(by_hand))


def test_pictures_of_equal_names_are_cases_with_both_means(real_data):
    ground = real_data / "chaos_t1_png" / "val" / "Ground"
    found = evaluate(ground, ground)
    assert found.planar
    assert len(found.cases) == 31
    assert found.labels.names == ["foreground"]  # grey edges are no label values
    assert any("soft edges" in note for note in found.notes)
    assert found.means() == {
        "dice_pooled_over_all_slices": 1.0,
        "dice_mean_per_case": 1.0,
        "dice_mean_per_slice": 1.0,
    }
    assert "volume_truth_ml" not in found.scores.metrics


def test_decathlon_truth_gives_names_and_lists_what_was_not_predicted(real_data):
    found = evaluate(
        real_data / "nnunet_hippocampus" / "predictions_tta", real_data / "hippocampus" / "labelsTr"
    )
    assert found.labels.names == ["Anterior", "Posterior"]
    assert 0.80 < found.scores.mean("dice") < 0.92
    assert len(found.unpaired["truth without prediction"]) == 198
    assert found.exit_code == 0


def test_scores_and_summary_stand_on_disk(folders, tmp_path):
    found = evaluate(*folders, tmp_path / "out", EvaluateOptions(labels=LABELS, report=False))
    scores = Scores.from_csv(tmp_path / "out" / "scores.csv")
    assert value(scores, "a", "liver", "dice") == 1.0
    assert value(scores, "b", "liver", "dice") == pytest.approx(2 * 32 / (32 + 64))
    assert value(scores, "b", "liver", "recall") == 0.5
    assert value(scores, "b", "liver", "volume_difference_ml") == pytest.approx(
        -32 * 0.8 * 1.5 * 3 / 1000
    )
    assert np.isnan(value(scores, "b", "spleen", "dice"))
    data = json.loads(
        (tmp_path / "out" / "scores.json").read_text(), parse_constant=lambda c: pytest.fail(c)
    )
    spleen = next(s for s in data["summary"] if s["label"] == "spleen" and s["metric"] == "dice")
    assert (spleen["n"], spleen["undefined"], spleen["mean"]) == (1, 1, 1.0)
    assert data["pooled"]["liver"]["dice"] == pytest.approx(2 * 96 / (96 + 128))
    assert data["means"]["dice_mean_per_case"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert data["means"]["dice_pooled_over_all_cases"] == pytest.approx((2 * 96 / 224 + 1) / 2)
    assert "2 TP" in data["definitions"]["dice"]
    assert found.pooled["liver"]["volume_truth_ml"] == pytest.approx(128 * 3.6 / 1000)


def test_slices_of_volumes_by_hand_with_empty_ones_apart(folders, tmp_path):
    found = evaluate(*folders, tmp_path / "out", EvaluateOptions(labels=LABELS, report=False))
    dice = {(d["label"], d["metric"]): d for d in found.slices.summary()}
    # along the coarsest axis (6 slices a case) the liver is in 4 of each case: four of Dice 1, four
    # of 2 * 8 / (8 + 16)
    assert (dice["liver", "dice"]["n"], dice["liver", "dice"]["undefined"]) == (8, 4)
    assert dice["liver", "dice"]["mean"] == pytest.approx((4 + 4 * 2 / 3) / 8)
    assert (
        dice["spleen", "dice"]["n"],
        dice["spleen", "dice"]["undefined"],
        dice["spleen", "iou"]["mean"],
    ) == (2, 10, 1.0)
    assert found.means()["dice_mean_per_slice"] == pytest.approx(((4 + 8 / 3) / 8 + 1) / 2)
    rows = Scores.from_csv(tmp_path / "out" / "slices.csv")
    assert value(rows, "b#0003", "liver", "dice") == pytest.approx(2 / 3)
    assert value(rows, "b#0003", "liver", "iou") == pytest.approx(1 / 2)
    assert len([r for r in rows if r.metric == "dice"]) == 10  # empty against empty has no row
    data = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert data["slices"]["slices"] == 12
    assert "coarser" in data["slices"]["definition"]


def test_slices_lie_along_the_axis_by_which_a_scan_was_stacked(tmp_path):
    truth, prediction = (
        block((4, 7, 6), 1, (1, 0, 0), (3, 2, 2)),
        block((4, 7, 6), 1, (1, 0, 0), (2, 2, 2)),
    )
    save(truth, tmp_path / "t.nii.gz", spacing_mm=(5.0, 1.0, 0.8))
    save(prediction, tmp_path / "p.nii.gz", spacing_mm=(5.0, 1.0, 0.8))
    found = evaluate(tmp_path / "p.nii.gz", tmp_path / "t.nii.gz")
    assert [(r.case, r.value) for r in found.slices if r.metric == "dice"] == [
        ("p#0001", 1.0),
        ("p#0002", 0.0),
    ]
    assert found.means()["dice_mean_per_slice"] == 0.5
    assert found.means()["dice_mean_per_case"] == pytest.approx(2 * 4 / (4 + 8))


def test_something_drawn_in_an_empty_slice_is_zero_there_and_not_left_out(tmp_path):
    save(block((4, 4, 5), 1, (0, 0, 1), (2, 2, 2)), tmp_path / "t.nii.gz")
    save(block((4, 4, 5), 1, (0, 0, 1), (2, 2, 3)), tmp_path / "p.nii.gz")
    found = evaluate(tmp_path / "p.nii.gz", tmp_path / "t.nii.gz")
    assert found.slices.values(
        "label 1" if "label 1" in found.labels.names else "foreground", "dice"
    ).tolist() == [1.0, 0.0]


def test_the_table_has_a_row_a_structure_and_their_mean(folders):
    text = table(evaluate(*folders, options=EvaluateOptions(labels=LABELS)))
    rows = {
        cells[0]: cells[1:]
        for line in text.splitlines()
        if len(cells := re.split(r"  +", line.strip())) > 1
    }
    assert rows["liver"][:3] == ["2", "0", "0.833 [0.667, 1.000]"]
    assert rows["spleen"][:3] == ["1", "1", "1.000 [–, –]"]  # one case: no interval
    assert rows["mean of structures"][0] == "0.917"
    assert "Dice" in text


def test_summaries_have_intervals_by_patient_and_name_the_worst(folders, tmp_path):
    evaluate(*folders, tmp_path / "out", EvaluateOptions(labels=LABELS, report=False))
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())
    summary = {(s["label"], s["metric"]): s for s in rows["summary"]}
    dice = summary["liver", "dice"]
    assert (dice["low95"], dice["high95"]) == pytest.approx((2 / 3, 1.0))
    of = {
        r["case"]: r["value"]
        for r in rows["rows"]
        if (r["label"], r["metric"]) == ("liver", "dice")
    }
    assert dice["worst"] == sorted(of, key=lambda case: of[case])
    assert summary["liver", "volume_truth_ml"]["worst"] == []  # no judgement


def test_an_infinite_distance_is_kept_and_counted(tmp_path):
    truth = block((6, 6, 6), 1, (1, 1, 1), (4, 4, 4))
    save(truth, tmp_path / "t" / "a.nii.gz")
    save(np.zeros_like(truth), tmp_path / "p" / "a.nii.gz")
    evaluate(
        tmp_path / "p",
        tmp_path / "t",
        tmp_path / "out",
        EvaluateOptions(labels={1: "liver"}, report=False),
    )
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    hd95 = next(r for r in found["rows"] if r["metric"] == "hd95_mm")
    assert hd95["value"] == "inf"
    assert Scores.from_csv(tmp_path / "out" / "scores.csv").values("liver", "hd95_mm").tolist() == [
        np.inf
    ]
    again = compare(
        [tmp_path / "out", tmp_path / "out" / "scores.csv"],
        options=CompareOptions(names=("json", "csv"), metric="hd95_mm"),
    ).results["liver"]
    assert [again["runs"][n]["infinite"] for n in ("json", "csv")] == [1, 1]


def test_probabilities_beside_predictions_are_judged(tmp_path):
    """A network that says 0.75 of the left half and is right in half of it, and is sure and right
    elsewhere.
    """
    truth = np.zeros((8, 8, 8), np.uint8)
    truth[:4, :4] = 1
    sure = np.zeros((3, 8, 8, 8), np.float32)
    sure[1, :4], sure[2, :4] = 0.75, 0.25
    sure[0, 4:] = 1
    said = np.where(sure[1] > 0.5, 1, 0).astype(np.uint8)
    grid = Grid.from_spacing(truth.shape, (1.0, 2.0, 2.5))
    for name in ("a", "b"):
        write(Volume(truth, grid, "label"), tmp_path / "t" / f"{name}.nii.gz")
        write(Volume(said, grid, "label"), tmp_path / "p" / f"{name}.nii.gz")
        write(Volume(sure, grid), tmp_path / "p" / "probabilities" / f"{name}.nii.gz")
    names = {1: "liver", 4: "spleen"}
    found = evaluate(
        tmp_path / "p",
        tmp_path / "t",
        tmp_path / "out",
        EvaluateOptions(labels=names, report=False),
    )
    of = {(r.case, r.label, r.metric): r.value for r in found.scores}
    # Half of the voxels are wrong by a quarter.
    assert of["a", "liver", "ece"] == pytest.approx(0.5 * 0.25)
    assert of["b", "liver", "brier"] == pytest.approx(0.5 * (0.5 * 0.25**2 + 0.5 * 0.75**2))
    kept = json.loads((tmp_path / "out" / "scores.json").read_text())["calibration"]
    assert kept["structures"]["liver"]["voxels"] == 2 * 512
    assert kept["structures"]["spleen"]["ece"] == pytest.approx(0.5 * 0.25)
    assert sum(kept["together"]["count"]) == 2 * 512
    (tmp_path / "p" / "probabilities" / "b.nii.gz").unlink()
    assert (
        evaluate(
            tmp_path / "p", tmp_path / "t", options=EvaluateOptions(labels=names)
        ).calibration.together.voxels
        == 512
    )
    write(Volume(sure[:2], grid), tmp_path / "p" / "probabilities" / "b.nii.gz")
    assert (
        "2 structures with background"
        in evaluate(tmp_path / "p", tmp_path / "t", options=EvaluateOptions(labels=names)).failures[
            "b"
        ]
    )


@pytest.mark.rounds
def test_further_groups_of_measures_are_taken_where_asked_for(tmp_path):
    # Two pieces.
    truth = block((20, 12, 10), 3, (1, 1, 1), (6, 5, 5)) + block(
        (20, 12, 10), 3, (12, 6, 6), (15, 9, 9)
    )
    # One found, one missed, one false.
    wrong = block((20, 12, 10), 3, (2, 1, 1), (6, 5, 5)) + block(
        (20, 12, 10), 3, (17, 1, 1), (18, 2, 2)
    )
    for name, mask in (("t", truth), ("p", wrong)):
        save(mask, tmp_path / name / "a.nii.gz")
    names = {3: "lesion"}
    plain = evaluate(tmp_path / "p", tmp_path / "t", options=EvaluateOptions(labels=names))
    assert not [m for m in plain.scores.metrics if m.startswith(("lesion", "cl_", "boundary"))]
    found = evaluate(
        tmp_path / "p",
        tmp_path / "t",
        tmp_path / "out",
        EvaluateOptions(labels=names, also=("lesions", "centreline", "boundary"), report=False),
    )
    of = {r.metric: r.value for r in found.scores}
    assert [
        of[m]
        for m in (
            "lesion_f1",
            "lesion_recall",
            "lesion_precision",
            "lesion_misses",
            "lesion_false_alarms",
        )
    ] == [0.5, 0.5, 0.5, 1, 1]
    from delineate.metrics.boundary import boundary_iou
    from delineate.metrics.centreline import cl_dice

    grid = read(tmp_path / "t" / "a.nii.gz").grid
    assert of["cl_dice"] == cl_dice(wrong, truth).dice
    assert of["boundary_iou_2mm"] == boundary_iou(
        wrong, truth, grid.spacing_mm, max(2.0, *grid.spacing_mm[:2])
    )
    said = json.loads((tmp_path / "out" / "scores.json").read_text())["definitions"]
    assert "Shit 2021" in said["cl_dice"]
    with pytest.raises(UsageError, match="unknown metric 'beauty'; available: lesions"):
        evaluate(tmp_path / "p", tmp_path / "t", options=EvaluateOptions(also=("beauty",)))


def test_confusion_is_pooled_over_cases_in_the_order_of_the_structures(tmp_path):
    for k in range(2):
        truth = block((4, 4, 4), 2, (0, 0, 0), (2, 2, 2))  # 8 voxels of value 2
        wrong = truth.copy()
        wrong[0, 0, 0], wrong[1, 1, 1], wrong[3, 3, 3] = 5, 0, 5
        save(truth, tmp_path / "t" / f"c{k}.nii.gz")
        save(wrong, tmp_path / "p" / f"c{k}.nii.gz")
    found = evaluate(
        tmp_path / "p", tmp_path / "t", options=EvaluateOptions(labels={5: "five", 2: "two"})
    )
    names = ["background", *found.labels.names]
    at = {
        (t, p): int(found.confusion.voxels[i, j])
        for i, t in enumerate(names)
        for j, p in enumerate(names)
    }
    assert (
        at["two", "two"],
        at["two", "five"],
        at["two", "background"],
        at["background", "five"],
    ) == (12, 2, 2, 2)
    assert sum(at.values()) == 2 * 64
    # The structure that is nowhere true weighs as the other: 2 voxels of it are false.
    assert found.generalised_dice == pytest.approx(2 * 6 / (6 + 8 + 2))


@pytest.mark.rounds
def test_very_many_structures_are_counted_without_their_square(tmp_path, monkeypatch):
    from delineate.evaluation import counting as count_case
    from delineate.evaluation import scoring as step

    truth = np.arange(3 * 3 * 3).reshape(3, 3, 3).astype(np.uint16)
    for name in ("t", "p"):
        save(truth, tmp_path / name / "a.nii.gz")
    few = evaluate(tmp_path / "p", tmp_path / "t")
    for module in (count_case, step):
        monkeypatch.setattr(module, "MOST_CONFUSED", 20)
    many = evaluate(tmp_path / "p", tmp_path / "t", options=EvaluateOptions(workers=1))
    assert few.confusion is not None and many.confusion is None
    assert [(r.label, r.metric, r.value) for r in few.scores if r.metric == "dice"] == [
        (r.label, r.metric, r.value) for r in many.scores if r.metric == "dice"
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_make_no_difference(folders, workers):
    assert evaluate(*folders, options=EvaluateOptions(labels=LABELS, workers=workers)).scores.mean(
        "dice"
    ) == pytest.approx(0.9167, abs=1e-4)


def test_dicom_objects_of_a_mask_are_no_second_truth(folders, tmp_path):
    """Also results of `predict --format nii.gz,rtstruct` may be the truth."""
    _, truth = folders
    for mask in [*truth.iterdir()]:
        (truth / mask.name.replace(".nii.gz", ".rtstruct.dcm")).write_bytes(b"")
    assert len(evaluate(truth, truth, tmp_path / "scored").scores.values("label 1", "dice")) == 2


def test_without_names_every_value_of_the_truths_is_a_structure(folders):
    assert evaluate(*folders).labels.names == ["label 1", "label 2"]


def test_values_no_truth_has_are_refused_with_the_case(folders):
    save(block((10, 8, 6), 7, (0, 0, 0), (2, 2, 2)), folders[0] / "b.nii.gz")
    with pytest.raises(LabelError, match=r"case b: the predictions have the values \[7\]"):
        evaluate(*folders)
    found = evaluate(
        *folders, options=EvaluateOptions(labels=LABELS)
    )  # with names it is that case's fault alone
    assert "undeclared label values 7 in the prediction" in found.failures["b"]
    assert found.exit_code == 1
    assert [c.case for c in found.cases] == ["a"]


def test_predictions_without_truth_fail_and_truths_without_prediction_are_listed(folders):
    save(np.zeros((3, 3, 3), np.uint8), folders[0] / "extra.nii.gz")
    save(np.zeros((3, 3, 3), np.uint8), folders[1] / "unseen.nii.gz")
    found = evaluate(*folders, options=EvaluateOptions(labels=LABELS))
    assert found.failures == {"extra": "prediction without truth"}
    assert found.unpaired["truth without prediction"] == ("unseen",)
    assert found.exit_code == 1
    assert len(found.cases) == 2


@pytest.mark.parametrize(("ending", "pairs"), [("_0000", True), ("_seg", True), ("_x", False)])
def test_endings_are_taken_off_only_where_known(folders, ending, pairs):
    (folders[0] / "b.nii.gz").rename(folders[0] / f"b{ending}.nii.gz")
    found = evaluate(*folders, options=EvaluateOptions(labels=LABELS))
    assert ("b" in {c.case for c in found.cases}) is pairs
    assert bool(found.failures) is not pairs


def test_an_ambiguous_ending_is_not_guessed(folders):
    (folders[0] / "b.nii.gz").rename(folders[0] / "b_seg.nii.gz")
    save(np.zeros((10, 8, 6), np.uint8), folders[0] / "b_mask.nii.gz")
    assert set(evaluate(*folders, options=EvaluateOptions(labels=LABELS)).failures) == {
        "b_seg",
        "b_mask",
    }


def test_grids_that_differ_are_an_error_with_the_distance(folders):
    save(block((10, 8, 6), 1, (0, 0, 0), (2, 4, 4)), folders[0] / "b.nii.gz", shift_mm=5.0)
    found = evaluate(*folders, options=EvaluateOptions(labels=LABELS))
    assert "case b" in found.failures["b"]
    assert "differ by 5.00 mm" in found.failures["b"]
    save(block((10, 8, 6), 1, (0, 0, 0), (2, 4, 4)), folders[0] / "b.nii.gz", shift_mm=0.05)
    assert not evaluate(*folders, options=EvaluateOptions(labels=LABELS)).failures


def test_when_nothing_can_be_scored_the_first_reason_is_raised(tmp_path):
    pred, truth = (
        save(np.ones((4, 4, 4), np.uint8), tmp_path / "p.nii.gz"),
        save(np.ones((4, 4, 5), np.uint8), tmp_path / "t.nii.gz"),
    )
    with pytest.raises(GeometryError, match=r"case p: .*\(4, 4, 4\) voxels, the truth \(4, 4, 5\)"):
        evaluate(pred, truth)
    with pytest.raises(InputError, match="does not exist"):
        evaluate(pred, tmp_path / "nowhere")


def test_no_pair_at_all_is_an_error(tmp_path):
    save(np.ones((4, 4, 4), np.uint8), tmp_path / "pred" / "x.nii.gz")
    save(np.ones((4, 4, 4), np.uint8), tmp_path / "truth" / "y.nii.gz")
    with pytest.raises(LayoutError):
        evaluate(tmp_path / "pred", tmp_path / "truth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DelineateError, match="no image"):
        evaluate(tmp_path / "empty", tmp_path / "truth")


def test_masks_of_one_value_on_each_side_are_one_structure(tmp_path):
    for name, value_of in (("pred", 63), ("truth", 255)):
        picture(np.array([[0, value_of, value_of], [0, 0, 0]]), tmp_path / name / "s1.png")
        picture(np.zeros((2, 3)), tmp_path / name / "s2.png")
    found = evaluate(tmp_path / "pred", tmp_path / "truth")
    assert value(found.scores, "s1", "foreground", "dice") == 1.0
    assert np.isnan(value(found.scores, "s2", "foreground", "dice"))
    assert found.scores.summary()[0]["undefined"] == 1


def test_a_stack_without_geometry_has_no_ml_and_says_so(tmp_path):
    for k in range(12):  # slice 2 comes before slice 10: the picture grows with the number
        mask = np.zeros((16, 16))
        mask[: k + 1] = 255
        picture(mask, tmp_path / "pred" / f"r{k}.png")
        picture(mask, tmp_path / "truth" / f"liver_{k:03d}.png")
    found = evaluate(tmp_path / "pred", tmp_path / "truth")
    assert found.pooled["foreground"]["dice"] == 1.0
    assert "volume_truth_ml" not in found.pooled["foreground"]
    assert any("spacing unknown" in note for note in found.notes)
    with pytest.raises(LayoutError):
        evaluate(tmp_path / "pred", tmp_path / "truth", options=EvaluateOptions(as_stack=False))


def test_names_come_from_predictions_json_beside_the_predictions(folders):
    (folders[0] / "predictions.json").write_text(
        json.dumps({"labels": LabelSet.from_names(LABELS).to_json(), "cases": {}})
    )
    assert evaluate(*folders).labels.names == ["liver", "spleen"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"labels": {"background": 0, "liver": 1, "spleen": 2}}'),
        ("a.json", '{"0": "background", "1": "liver", "2": "spleen"}'),
        ("a.yaml", "1: liver\n2: spleen\n"),
        ("a.yaml", "liver: 1\nspleen: 2\n"),
        ("a.csv", "Label Number,Label Name,Class\n0,nothing,\n1,liver,None\n2,spleen,x\n"),
    ],
)
def test_names_come_from_files_of_several_shapes(folders, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert evaluate(*folders, options=EvaluateOptions(labels=tmp_path / name)).labels.names == [
        "liver",
        "spleen",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("a.yaml", "just words"), ("a.csv", "x,y\nliver,1\n"), ("a.json", "[]")],
)
def test_a_file_that_names_nothing_is_refused(folders, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        evaluate(*folders, options=EvaluateOptions(labels=tmp_path / name))


def manifest_of(folder: Path, cases: list[tuple[str, str]]) -> Path:
    labels, mapping = (
        LabelSet.from_names({1: "liver"}),
        LabelMapping(ranges=(Range(55, 70, 1),), rest="background"),
    )
    entries = tuple(
        Case(c, p, (Source(str(folder / f"{c}.nii.gz")),), (Source(str(folder / f"{c}.nii.gz")),))
        for c, p in cases
    )
    path = folder.parent / "manifest.jsonl"
    path.write_text(Manifest(entries, ("MR",), labels, mapping).to_jsonl())
    return path


def test_a_manifest_gives_the_mapping_and_pools_by_patient(tmp_path):
    for k, (hit, truth) in enumerate([(2, 4), (4, 4), (1, 1)]):
        save(
            block((6, 6, 1), 63, (0, 0, 0), (truth, 6, 1))
            + block((6, 6, 1), 240, (5, 0, 0), (6, 6, 1)),
            tmp_path / "data" / f"c{k}.nii.gz",
        )
        save(block((6, 6, 1), 1, (0, 0, 0), (hit, 6, 1)), tmp_path / "pred" / f"c{k}.nii.gz")
    manifest = manifest_of(tmp_path / "data", [("c0", "P1"), ("c1", "P1"), ("c2", "P2")])
    found = evaluate(tmp_path / "pred", manifest)
    assert found.labels.names == ["liver"]
    assert value(found.scores, "c0", "liver", "dice") == pytest.approx(2 * 2 / (2 + 4))
    assert value(found.patients, "P1", "liver", "dice") == pytest.approx(2 * 6 / (6 + 8))
    assert found.means()["dice_mean_per_patient"] == pytest.approx((12 / 14 + 1) / 2)
    assert (
        found.means()["dice_mean_per_slice"]
        == found.means()["dice_mean_per_case"]
        == pytest.approx((4 / 6 + 1 + 1) / 3)
    )
    assert {c.case: c.patient for c in found.cases} == {"c0": "P1", "c1": "P1", "c2": "P2"}
    (tmp_path / "pred" / "c1.nii.gz").unlink()
    assert evaluate(tmp_path / "pred", manifest).unpaired["truth without prediction"] == ("c1",)


def test_a_recognised_cohort_is_a_truth(real_data):
    found = evaluate(
        real_data / "nnunet_hippocampus" / "predictions_tta", real_data / "hippocampus"
    )
    assert found.labels.names == ["Anterior", "Posterior"]
    assert len(found.cases) == 10
    ct = evaluate(real_data / "chaos_ct" / "Segmentation", real_data / "chaos_ct")
    assert ct.means()["dice_mean_per_case"] == pytest.approx(0.978, abs=5e-4)


def test_where_every_patient_has_one_case_the_means_agree(real_data):
    means = evaluate(
        real_data / "nnunet_hippocampus" / "predictions_tta", real_data / "hippocampus"
    ).means()
    assert set(means) == {
        "dice_pooled_over_all_cases",
        "dice_mean_per_case",
        "dice_mean_per_slice",
        "dice_mean_per_patient",
    }
    assert (
        means["dice_mean_per_patient"] == means["dice_mean_per_case"] > means["dice_mean_per_slice"]
    )


# ---- pictures ----


def yellow(path: Path) -> np.ndarray:
    """(n, 2) row and column of the yellow pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.argwhere((pixels[..., 0] > 180) & (pixels[..., 1] > 180) & (pixels[..., 2] < 90))


def one_structure(folder: Path, names=("a", "b")) -> tuple[Path, Path, Path]:
    """Predictions, truths and images of cases with one structure, in which the prediction of the
    last one is empty.
    """
    shape, rng = (30, 24, 8), np.random.default_rng(0)
    for name in names:
        truth = block(shape, 1, (4, 4, 2), (12, 12, 6))
        save(truth, folder / "truth" / f"{name}.nii.gz")
        save(truth * (name != names[-1]), folder / "pred" / f"{name}.nii.gz")
        scan = rng.normal(40, 10, shape).astype(np.float32)
        write(
            Volume(scan, read(folder / "truth" / f"{name}.nii.gz").grid),
            folder / "images" / f"{name}_0000.nii.gz",
        )
    return folder / "pred", folder / "truth", folder / "images"


def test_pictures_show_source_truth_and_prediction_with_yellow_boundaries(tmp_path):
    pred, truth, images = one_structure(tmp_path)
    found = evaluate(
        pred, truth, tmp_path / "out", EvaluateOptions(pictures=True, images=images, report=False)
    )
    assert [Path(p).name for p in found.pictures] == ["a.png", "b.png"]
    assert found.exit_code == 0
    thirds = {}
    for name in "ab":
        width = Image.open(tmp_path / "out" / "pictures" / f"{name}.png").width
        columns = yellow(tmp_path / "out" / "pictures" / f"{name}.png")[:, 1]
        thirds[name] = np.histogram(columns, [0, width / 3, 2 * width / 3, width])[0]
    assert thirds["a"][0] == 0
    assert thirds["a"][1] > 200
    assert thirds["a"][2] == pytest.approx(thirds["a"][1], rel=0.25)
    assert thirds["b"].tolist()[::2] == [0, 0]  # nothing was predicted
    assert thirds["b"][1] == pytest.approx(thirds["a"][1], rel=0.25)
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["pictures"] == [
        "pictures/a.png",
        "pictures/b.png",
    ]


def test_a_cohorts_images_are_known_and_a_few_cases_can_be_asked_for(tmp_path):
    pred, truth, images = one_structure(tmp_path, tuple(f"c{k}" for k in range(5)))
    entries = [
        Case(
            p.name[:2],
            p.name[:2],
            (Source(str(images / f"{p.name[:2]}_0000.nii.gz")),),
            (Source(str(p)),),
        )
        for p in sorted(truth.iterdir())
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(
        Manifest(tuple(entries), ("CT",), LabelSet.from_names({1: "liver"})).to_jsonl()
    )
    found = evaluate_cases(
        pred,
        manifest,
        tmp_path / "out",
        EvaluateOptions(pictures=True, report=False),
        most_pictures=2,
    )
    assert {Path(p).stem for p in found.pictures} >= {"c4"}  # the worst is among them
    assert len(found.pictures) == len(list((tmp_path / "out" / "pictures").iterdir())) == 2
    assert not any("only the masks are drawn" in note for note in found.notes)


def test_without_images_masks_alone_are_drawn_and_it_is_said(tmp_path):
    pred, truth, _ = one_structure(tmp_path)
    found = evaluate(pred, truth, tmp_path / "out", EvaluateOptions(pictures=True, report=False))
    assert len(found.pictures) == 2
    assert any("only the masks are drawn" in note and "a, b" in note for note in found.notes)
    assert len(yellow(Path(found.pictures[0]))) > 200


def test_what_cannot_be_drawn_never_costs_a_score(tmp_path):
    pred, truth, images = one_structure(tmp_path)
    save(np.zeros((30, 24, 8), np.uint8), images / "b_0000.nii.gz", shift_mm=40.0)
    (images / "a_0000.nii.gz").write_bytes((images / "a_0000.nii.gz").read_bytes()[:2000])
    found = evaluate(
        pred, truth, tmp_path / "out", EvaluateOptions(pictures=True, images=images, report=False)
    )
    assert found.pictures == ()
    assert found.exit_code == 0
    told = json.loads((tmp_path / "out" / "scores.json").read_text())["notes"]
    assert any("case b" in note and "40.00 mm" in note for note in told)
    assert any("no picture" in note and "case a" in note for note in told)
    assert len(Scores.from_csv(tmp_path / "out" / "scores.csv").values("foreground", "dice")) == 2
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "pictures").write_text("in the way")
    assert (
        evaluate(
            pred, truth, tmp_path / "blocked", EvaluateOptions(pictures=True, report=False)
        ).pictures
        == ()
    )
    assert (tmp_path / "blocked" / "scores.json").is_file()


def test_pictures_without_a_folder_are_refused(folders):
    with pytest.raises(UsageError, match="-o"):
        evaluate(*folders, options=EvaluateOptions(labels=LABELS, pictures=True))
    with pytest.raises(UsageError, match="--pictures"):
        evaluate(*folders, options=EvaluateOptions(labels=LABELS, images=folders[1]))


def test_images_of_other_names_are_told(tmp_path):
    pred, truth, images = one_structure(tmp_path)
    for path in list(images.iterdir()):
        path.rename(images / f"scan-{path.name}")
    found = evaluate(
        pred, truth, tmp_path / "out", EvaluateOptions(pictures=True, images=images, report=False)
    )
    assert any("no image has the name of a case" in note for note in found.notes)


def test_a_stack_of_slices_is_drawn_on_the_scan_whose_geometry_it_takes(real_data, tmp_path):
    found = evaluate(
        real_data / "chaos_ct" / "Segmentation",
        real_data / "chaos_ct" / "Ground",
        tmp_path,
        EvaluateOptions(pictures=True, report=False),
    )
    drawn = yellow(Path(found.pictures[0]))
    picture = Image.open(found.pictures[0])
    per_column = [
        np.sum((drawn[:, 1] >= k * picture.width / 3) & (drawn[:, 1] < (k + 1) * picture.width / 3))
        for k in range(3)
    ]
    assert per_column[0] == 0
    assert min(per_column[1:]) > 1000
    inside = drawn[:, 1] % (picture.width / 3)
    # The liver is on the patient's right: the left of each panel.
    assert inside.mean() < picture.width / 6


def test_a_yaml_file_chooses_structures_of_a_cohort(real_data, tmp_path):
    (tmp_path / "labels.yaml").write_text("hippocampus: [1, 2]\n")
    for path in sorted((real_data / "nnunet_hippocampus" / "predictions_tta").glob("*.nii.gz"))[:2]:
        truth = read(real_data / "hippocampus" / "labelsTr" / path.name)
        write(
            truth.with_array((truth.array > 0).astype(np.uint8), "label"),
            tmp_path / "pred" / path.name,
        )
    found = evaluate(
        tmp_path / "pred",
        real_data / "hippocampus",
        options=EvaluateOptions(labels=tmp_path / "labels.yaml"),
    )
    assert found.labels.names == ["hippocampus"]
    assert found.means()["dice_mean_per_case"] == 1.0


def test_soft_edges_are_cut_alike_from_folder_and_cohort(real_data):
    ground = real_data / "chaos_t1_png" / "val" / "Ground"
    found = evaluate(ground, real_data / "chaos_t1_png")
    assert found.means()["dice_pooled_over_all_slices"] == 1.0
    assert len(found.cases) == 31
