"""Names of structures on both sides of an evaluation: paired by identity in any spelling, refused
where they contradict the values and cannot pair.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.scans import scan

from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.core.errors import LabelError
from delineate.evaluation.declared import chooses_structures

PREDICTED = {1: "necrosis", 2: "oedema", 3: "enhancing tumour"}
DECATHLON = {1: "edema", 2: "necrotic core", 3: "enhancing tumor"}


def anatomy(*values: int) -> np.ndarray:
    """(20, 18, 16): three structures in three places, with these values."""
    array = np.zeros((20, 18, 16), np.uint8)
    for n, value in enumerate(values):
        array[3 + 5 * n : 6 + 5 * n, 4:10, 5:11] = value
    return array


def predictions(folder: Path, names: dict[int, str] | None, values=(1, 2, 3)) -> Path:
    for case in ("B_001", "B_002"):
        scan(folder / f"{case}.nii.gz", anatomy(*values))
    if names is not None:
        (folder / "predictions.json").write_text(
            json.dumps({"labels": [{"value": v, "name": n} for v, n in names.items()], "cases": {}})
        )
    return folder


def decathlon(folder: Path, names: dict[int, str], values=(1, 2, 3)) -> Path:
    for case in ("B_001", "B_002"):
        scan(folder / "imagesTr" / f"{case}.nii.gz")
        scan(folder / "labelsTr" / f"{case}.nii.gz", anatomy(*values))
    listed = [
        {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
        for c in ("B_001", "B_002")
    ]
    data = {
        "modality": {"0": "FLAIR"},
        "labels": {"0": "background"} | {str(v): n for v, n in names.items()},
        "training": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(data))
    return folder


def dices(evaluated) -> dict[str, float]:
    return {
        label: float(evaluated.scores.values(label, "dice").mean())
        for label in evaluated.scores.labels
    }


@pytest.mark.parametrize("side", ["the cohort", "its folder of labels"])
def test_structures_with_other_values_are_paired_by_name(tmp_path, side):
    """The same anatomy, values exchanged: by value a perfect mask would score 0."""
    pred = predictions(tmp_path / "pred", PREDICTED)
    truth = decathlon(tmp_path / "truth", DECATHLON, values=(2, 1, 3))
    found = evaluate(
        pred,
        truth if side == "the cohort" else truth / "labelsTr",
        tmp_path / "out",
        EvaluateOptions(report=False, pictures=True),
    )
    assert dices(found) == dict.fromkeys(DECATHLON.values(), 1.0)
    (note,) = [text for text in found.notes if "paired by name" in text]
    assert "necrosis 1 with necrotic core 2" in note and "oedema 2 with edema 1" in note
    # A value that the predictions do not declare is not another structure's.
    scan(pred / "B_001.nii.gz", anatomy(1, 2, 7))
    ((case, why),) = evaluate(pred, truth).failures.items()
    assert case == "B_001" and "undeclared label values 7" in why


@pytest.mark.parametrize("side", ["the cohort", "its folder of labels"])
def test_names_that_contradict_the_values_are_refused_with_both_tables(tmp_path, side):
    """The truth has another structure: names cannot pair them all."""
    pred = predictions(tmp_path / "pred", PREDICTED)
    names = {1: "edema", 2: "necrotic core", 3: "cyst"}
    truth = decathlon(tmp_path / "truth", names, values=(2, 1, 3))
    with pytest.raises(LabelError, match="contradict the values") as refused:
        evaluate(
            pred,
            truth if side == "the cohort" else truth / "labelsTr",
            tmp_path / "out",
            EvaluateOptions(report=False),
        )
    said = str(refused.value)
    assert (
        "1 necrosis, 2 oedema, 3 enhancing tumour" in said
        and "1 edema, 2 necrotic core, 3 cyst" in said
    )
    assert "--labels" in said and "predictions.json" in said and not (tmp_path / "out").exists()


def test_a_user_states_what_the_values_mean(tmp_path):
    pred = predictions(tmp_path / "pred", PREDICTED)
    truth = decathlon(tmp_path / "truth", DECATHLON, values=(2, 1, 3))
    (tmp_path / "choice.yaml").write_text(
        "necrosis: necrotic core\noedema: edema\nenhancing tumour: enhancing tumor\n"
    )
    assert dices(
        evaluate(pred, truth, options=EvaluateOptions(labels=tmp_path / "choice.yaml"))
    ) == {
        "necrosis": 1,
        "oedema": 1,
        "enhancing tumour": 1,
    }
    # In another order.
    (tmp_path / "wrong.yaml").write_text(
        "oedema: edema\nnecrosis: necrotic core\nenhancing tumour: enhancing tumor\n"
    )
    found = evaluate(pred, truth, options=EvaluateOptions(labels=tmp_path / "wrong.yaml"))
    assert set(dices(found).values()) == {1.0}
    # For both sides: by value, as the user says.
    (tmp_path / "by_value.yaml").write_text("1: a\n2: b\n3: c\n")
    assert dices(
        evaluate(pred, truth, options=EvaluateOptions(labels=tmp_path / "by_value.yaml"))
    ) == {
        "a": 0,
        "b": 0,
        "c": 1,
    }
    assert (
        dices(evaluate(pred, truth, options=EvaluateOptions(labels={1: "a", 2: "b", 3: "c"})))["c"]
        == 1
    )


def test_other_spellings_are_the_same_structures(tmp_path):
    pred = predictions(tmp_path / "pred", {1: "Oedema", 2: "NCR", 3: "enhancing_tumour"})
    found = evaluate(pred, decathlon(tmp_path / "truth", DECATHLON))
    assert dices(found) == dict.fromkeys(DECATHLON.values(), 1.0)


def test_names_on_one_side_name_the_values(tmp_path):
    pred, named = predictions(tmp_path / "pred", PREDICTED), predictions(tmp_path / "plain", None)
    assert list(dices(evaluate(pred, named))) == list(PREDICTED.values())
    assert list(dices(evaluate(named, decathlon(tmp_path / "truth", DECATHLON)))) == list(
        DECATHLON.values()
    )
    generic = decathlon(tmp_path / "generic", {1: "label 1", 2: "label 2", 3: "class 3"})
    assert list(dices(evaluate(pred, generic))) == list(PREDICTED.values())


def test_two_folders_of_predictions_are_held_against_each_other(tmp_path):
    one = predictions(tmp_path / "one", PREDICTED)
    other = predictions(
        tmp_path / "other", {1: "oedema", 2: "necrosis", 3: "enhancing tumour"}, values=(2, 1, 3)
    )
    assert set(dices(evaluate(one, other)).values()) == {1.0}
    (other / "predictions.json").unlink()
    (other / "labels.csv").write_text("value,name\n1,oedema\n2,necrosis\n3,enhancing tumour\n")
    assert set(dices(evaluate(one, other)).values()) == {1.0}
    (other / "labels.csv").write_text("value,name\n1,oedema\n2,cyst\n3,enhancing tumour\n")
    with pytest.raises(
        LabelError, match=r"1 is 'necrosis' in the predictions and 'oedema' in the truth"
    ):
        evaluate(one, other)


def test_a_structure_with_another_value_is_paired_unless_others_differ(tmp_path):
    pred = predictions(tmp_path / "pred", {1: "liver", 2: "spleen", 3: "pancreas"})
    truth = predictions(tmp_path / "truth", None, values=(4, 2, 3))
    (truth / "labels.json").write_text(json.dumps({"4": "liver", "2": "spleen", "3": "pancreas"}))
    assert dices(evaluate(pred, truth)) == {"spleen": 1.0, "pancreas": 1.0, "liver": 1.0}
    (truth / "labels.json").write_text(json.dumps({"4": "liver", "2": "spleen", "3": "colon"}))
    with pytest.raises(LabelError, match="'liver' is 1 in the predictions and 4 in the truth"):
        evaluate(pred, truth)


def test_which_files_choose_structures(tmp_path):
    for name, text, chooses in (
        ("a.yaml", "liver: 48\n", True),
        ("b.yaml", "labels:\n  liver: liver\n", True),
        ("c.yaml", "1: liver\n", False),
        ("d.yaml", "labels:\n  1: liver\n", False),
        ("e.json", '{"liver": 1}', False),
        ("f.yaml", "labels:\n- value: 1\n  name: liver\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert chooses_structures(tmp_path / name) == chooses, name
