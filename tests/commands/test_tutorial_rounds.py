"""Each recipe once from its tutorial's own folder: train, predict, and evaluate with the structures
of the model against the folder's own truth.
"""

from __future__ import annotations

import json
from functools import partial

import pytest
from tests.calls import call
from tests.cohorts import tutorial_trees as trees

pytestmark = pytest.mark.rounds
TUMOUR = ["necrotic and non-enhancing tumour core", "oedema", "enhancing tumour"]


@pytest.mark.parametrize(
    ("recipe", "make", "structures"),
    [
        ("liver-ct-unet3d", trees.liver_volumes, ["liver"]),
        (
            "brain-quicknat",
            partial(trees.brain_slices, coloured=True),
            ["CSF", "grey matter", "white matter"],
        ),
        # The truth has four organs, or a mask of each of many structures, or no name.
        ("liver-mr-unet2d", trees.chaos_mr, ["liver"]),
        ("liver-ct-unet2d", trees.ircad, ["liver"]),
        ("liver-ct-unet2d", trees.slice_arrays, ["liver"]),
        ("brats-vnet-light", partial(trees.brats_flat, names="flair t1 t1ce t2"), TUMOUR),
    ],
)
def test_train_predict_and_evaluate(tmp_path, recipe, make, structures):
    make(tmp_path / "data")
    place = tmp_path / "data" / "MR" if recipe == "liver-mr-unet2d" else tmp_path / "data"
    model, out = tmp_path / "my.model", tmp_path / "out"
    # Exit code 3: one epoch gives no usable model.
    done = call("train", place, "--recipe", recipe, "--epochs", 1, "-o", model)
    assert done.returncode in (0, 3), done.stderr
    done = call("predict", model, place, "-o", out)
    assert done.returncode == 0, done.stderr
    done = call("evaluate", out, place, "--model", model, "-o", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert {row["label"] for row in scores["rows"]} == set(structures)
