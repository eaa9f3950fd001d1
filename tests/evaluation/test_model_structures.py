"""``evaluate --model``: a model of few structures against truths with many."""

from __future__ import annotations

import numpy as np
import pytest
from tests.cohorts.imitate import box, nifti, noise
from tests.plans import small_network, small_plan

from delineate.cohorts.discovery.layouts import find
from delineate.cohorts.reading import read_label
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import LabelError, UsageError
from delineate.core.labels import LabelSet
from delineate.core.plan import Structure
from delineate.extend.registers import RECIPES
from delineate.networks.build import build, weights_of

LIVER, SPLEEN, KIDNEY = box(), box(at=(7, 5, 2)), box(at=(2, 6, 2), size=2)


@pytest.fixture
def model(tmp_path):
    """A model of the left kidney (value 2) and the liver (value 5)."""
    labels = LabelSet.from_names({2: "left kidney", 5: "liver"})
    network = small_network(classes=3)
    plan = small_plan(structures=tuple(Structure(**d) for d in labels.to_json()), network=network)
    path = tmp_path / "organs.model"
    Bundle(plan, (Member("fold_0", weights_of(build(network, 0))),)).save(path)
    return path


def predictions(folder):
    for n in range(3):
        nifti(folder / f"c{n}.nii.gz", 5 * LIVER + 2 * KIDNEY)
    return folder


def cohort(root, names, mask):
    """Three scans with the same mask, and the names of its values."""
    (root / "labels").mkdir(parents=True)
    (root / "labels.csv").write_text(names)
    for n in range(3):
        nifti(root / "images" / f"c{n}.nii.gz", noise(n, mask.shape))
        nifti(root / "labels" / f"c{n}.nii.gz", mask)
    return root


def perfect(found):
    assert sorted(found.scores.labels) == ["left kidney", "liver"]
    assert found.scores.mean("dice") == 1.0


def test_a_cohort_of_many_organs_under_other_values_and_spellings(model, tmp_path):
    names = "1,spleen\n2,Liver\n3,Kidney_Left\n"
    root = cohort(tmp_path / "cohort", names, SPLEEN + 2 * LIVER + 3 * KIDNEY)
    pred = predictions(tmp_path / "pred")
    perfect(evaluate(pred, root, None, EvaluateOptions(model=model, workers=1)))
    with pytest.raises(LabelError, match="--labels FILE"):
        nifti(pred / "c0.nii.gz", 5 * LIVER)  # names are unknown without the model
        (pred / "labels.csv").write_text("2,left kidney\n5,liver\n")
        evaluate(pred, root, None, EvaluateOptions(workers=1))


def test_one_file_per_structure(model, tmp_path):
    root = tmp_path / "cohort"
    for n in range(3):
        nifti(root / f"c{n}" / "ct.nii.gz", noise(n))
        for name, mask in (("liver", LIVER), ("kidney_left", KIDNEY), ("spleen", SPLEEN)):
            nifti(root / f"c{n}" / "segmentations" / f"{name}.nii.gz", mask)
    pred = predictions(tmp_path / "pred")
    perfect(evaluate(pred, root, None, EvaluateOptions(model=model, workers=1)))


def test_a_structure_that_the_truth_lacks_is_named(model, tmp_path):
    root = cohort(tmp_path / "cohort", "1,spleen\n2,liver\n", SPLEEN + 2 * LIVER)
    with pytest.raises(LabelError, match="no structure called 'left kidney'"):
        evaluate(predictions(tmp_path / "p"), root, None, EvaluateOptions(model=model, workers=1))


def test_masks_with_other_values_are_paired_by_name_or_refused(model, tmp_path):
    truth, pred = tmp_path / "truth", predictions(tmp_path / "pred")
    for n in range(3):
        nifti(truth / f"c{n}.nii.gz", 2 * LIVER + 5 * KIDNEY)
    (truth / "labels.csv").write_text("2,liver\n5,left kidney\n")
    perfect(evaluate(pred, truth, None, EvaluateOptions(model=model, workers=1)))
    (truth / "labels.csv").write_text("2,liver\n5,spleen\n")
    with pytest.raises(LabelError, match="names of predictions and truth contradict"):
        evaluate(pred, truth, None, EvaluateOptions(model=model, workers=1))


def test_model_and_labels_exclude_each_other(model, tmp_path):
    pred = predictions(tmp_path / "pred")
    with pytest.raises(UsageError, match="--model and --labels exclude each other"):
        evaluate(pred, pred, None, EvaluateOptions(model=model, labels={1: "liver"}))


def model_of_recipe(path, recipe, labels):
    plan = small_plan(
        recipe=recipe,
        structures=tuple(Structure(**d) for d in labels.to_json()),
        network=small_network(classes=len(labels) + 1),
    )
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(path)
    return path


def test_structures_that_a_recipe_merged(tmp_path):
    """The liver of a recipe has its tumours; the truth has two values."""
    path = model_of_recipe(
        tmp_path / "m.model", "liver-ct-unet3d", LabelSet.from_names({1: "liver"})
    )
    tumour = box(size=1)
    root = cohort(tmp_path / "cohort", "1,liver\n2,cancer\n3,spleen\n", LIVER + tumour + 3 * SPLEEN)
    for n in range(3):
        nifti(tmp_path / "pred" / f"c{n}.nii.gz", LIVER)
    found = evaluate(tmp_path / "pred", root, None, EvaluateOptions(model=path, workers=1))
    assert found.scores.labels == ["liver"] and found.scores.mean("dice") == 1.0


def test_the_140_values_of_malc_by_the_mapping_of_quicknat(tmp_path, real_data):
    """The cortex of the model is the sum of its gyri, which have a value each in the truth."""
    names = (real_data / "malc" / "labels.csv").read_text()
    values = [int(line.split(",")[0]) for line in names.splitlines() if line[:1].isdigit()]
    mask = np.zeros((30, 20, 20), np.int16)
    mask.reshape(-1)[: 40 * len(values)] = np.repeat(values, 40)
    root = cohort(tmp_path / "cohort", names, mask)
    adapted = RECIPES["brain-quicknat"].adapt(find(root), False)
    assert len(adapted.labels) == 27
    path = model_of_recipe(tmp_path / "m.model", "brain-quicknat", adapted.labels)
    for n in range(3):
        own = read_label(adapted.cases[n], adapted)
        nifti(tmp_path / "pred" / f"c{n}.nii.gz", own.array)
    found = evaluate(tmp_path / "pred", root, None, EvaluateOptions(model=path, workers=1))
    assert len(found.scores.labels) == 27 and found.scores.mean("dice") == 1.0
