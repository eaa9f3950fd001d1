"""Which way each metric is better: none may lack it, and a forgotten one raises at import."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from typing import get_args

import numpy as np
import pytest

from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.core import scores
from delineate.core.grid import Grid
from delineate.core.scores import HIGHER, LOWER, NEARER_ZERO, better_is, judged
from delineate.core.volume import Volume
from delineate.evaluation import scoring as step
from delineate.extend import METRICS, Metric, MetricColumn
from delineate.formats.files import write
from delineate.metrics import overlap, surface
from delineate.metrics.surface import SurfaceSettings

# Written out, so that a direction cannot change unseen.
KNOWN = {
    "dice": HIGHER,
    "iou": HIGHER,
    "precision": HIGHER,
    "recall": HIGHER,
    "specificity": HIGHER,
    "volume_predicted_ml": None,
    "volume_truth_ml": None,
    "volume_difference_ml": NEARER_ZERO,
    "volume_difference_percent": NEARER_ZERO,
    "absolute_volume_difference_ml": LOWER,
    "absolute_volume_difference_percent": LOWER,
    "hausdorff_mm": LOWER,
    "hausdorff_of_voxels_mm": LOWER,
    "hausdorff_of_inner_voxels_mm": LOWER,
    "hd95_mm": LOWER,
    "hd95_of_voxels_mm": LOWER,
    "hd95_of_inner_voxels_mm": LOWER,
    "hd95_pooled_mm": LOWER,
    "hd95_pooled_of_voxels_mm": LOWER,
    "hd95_pooled_of_inner_voxels_mm": LOWER,
    "assd_mm": LOWER,
    "assd_of_voxels_mm": LOWER,
    "assd_of_inner_voxels_mm": LOWER,
    "surface_dice_2mm": HIGHER,
    "surface_dice_2mm_of_voxels": HIGHER,
    "surface_dice_2mm_of_inner_voxels": HIGHER,
    "lesion_f1": HIGHER,
    "lesion_recall": HIGHER,
    "lesion_precision": HIGHER,
    "lesion_misses": LOWER,
    "lesion_false_alarms": LOWER,
    "cl_dice": HIGHER,
    "boundary_iou_2mm": HIGHER,
    "ece": LOWER,
    "brier": LOWER,
}
OWN = {name: part for name, part in METRICS.items() if METRICS.is_own(name)}
EVERY_WORD = itertools.product(get_args(surface.Elements), get_args(surface.How))
EVERY_CHOICE = [SurfaceSettings(*words) for words in EVERY_WORD]


def imported_anew(module, monkeypatch):
    """The source of ``module`` once more, as a module of another name."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_anew", module.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, again)
    spec.loader.exec_module(again)


def test_every_metric_that_there_is_has_its_direction():
    of_groups = [name for metric in OWN.values() for name in metric.columns]
    of_surfaces = [name for choices in EVERY_CHOICE for name in choices.measures()]
    every = {*overlap.MEASURES, *of_surfaces, *of_groups, *step.CALIBRATED}
    assert {name: better_is(name) for name in every} == KNOWN
    judged(every)


@pytest.mark.parametrize("tolerance_mm", [1e-5, 0.5, 2.0, 12.5, 1e7])
def test_a_surface_dice_of_any_tolerance_has_a_direction(tolerance_mm):
    judged(SurfaceSettings("voxels", "pooled", tolerance_mm).measures())


@pytest.mark.parametrize(
    ("module", "direction", "metric"),
    [
        (overlap, "iou", "iou"),
        (overlap, "volume_truth", "volume_truth_ml"),
        (overlap, "absolute_volume_difference", "absolute_volume_difference_ml"),
        (surface, "assd", "assd_mm"),
        (surface, "surface_dice", "surface_dice_2mm"),
        (step, "brier", "brier"),
    ],
)
def test_importing_a_metric_without_a_direction_raises(module, direction, metric, monkeypatch):
    imported_anew(module, monkeypatch)
    monkeypatch.delitem(scores.DIRECTIONS, direction)
    with pytest.raises(TypeError, match=f"missing: {metric}"):
        imported_anew(module, monkeypatch)


def test_a_name_that_only_one_choice_of_surfaces_gives_is_asked_for_too(monkeypatch):
    others = {k: v for k, v in scores.DIRECTIONS.items() if k != "hd95"}
    names = [name for choices in EVERY_CHOICE[:-1] for name in choices.measures()]
    monkeypatch.setattr(scores, "DIRECTIONS", others | dict.fromkeys(names, LOWER))
    with pytest.raises(TypeError, match=r"missing: hd95_pooled_of_inner_voxels_mm$"):
        imported_anew(surface, monkeypatch)


def test_a_metric_needs_a_known_direction_and_keeps_it():
    with pytest.raises(TypeError, match=r"better must be one of .* found 'more'"):
        Metric({"dicey": MetricColumn("", "more", "Of unknown worth.")}, lambda *_: {})
    with pytest.raises(TypeError, match="cl_dice is declared as higher already"):
        Metric({"cl_dice": MetricColumn("", LOWER, "The other way round.")}, lambda *_: {})
    with pytest.raises(TypeError, match="definition"):
        MetricColumn("", LOWER, " ")


@pytest.mark.parametrize("choices", EVERY_CHOICE)
def test_what_an_evaluation_emits_has_a_direction_and_worst_cases(choices, tmp_path):
    truth = np.zeros((8, 8, 8), np.uint8)
    truth[1:5, 1:5, 1:5] = 1
    said = np.roll(truth, 1, 0)
    grid = Grid.from_spacing(truth.shape, (1.0, 1.0, 2.0))
    sure = np.stack([said == 0, said == 1]).astype(np.float32)
    write(Volume(truth, grid, "label"), tmp_path / "t" / "a.nii.gz")
    write(Volume(said, grid, "label"), tmp_path / "p" / "a.nii.gz")
    write(Volume(sure, grid), tmp_path / "p" / "probabilities" / "a.nii.gz")
    folders = tmp_path / "p", tmp_path / "t"
    found = evaluate(
        *folders,
        options=EvaluateOptions(
            labels={1: "liver"},
            surface=choices.elements,
            percentile=choices.how,
            also=tuple(OWN),
            workers=1,
        ),
    )
    emitted = found.scores.metrics
    expected = {*overlap.MEASURES, *choices.measures(), *step.CALIBRATED}
    assert {*emitted} == expected.union(*(metric.columns for metric in OWN.values()))
    judged(emitted)
    worst = {row["metric"]: row["worst"] for row in found.summary}
    assert worst == {metric: [] if KNOWN[metric] is None else ["a"] for metric in emitted}
