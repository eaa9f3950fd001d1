from __future__ import annotations

import gc
import json
import pickle
import weakref

import numpy as np
import pytest
from tests.plans import small_network, small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import BundleError, InputError, OutputError, PlanError
from delineate.core.plan import Loss, Normalisation, Plan, Postprocessing, Schedule


def test_plan_round_trip():
    plan = small_plan(low_resolution=small_plan(patch=(32, 16, 16)))
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"batch"', '"bach"', "bach"),
        ('"epochs": 2', '"epochs": 2, "budget_s": 5', "exactly one"),
        ('"classes": 3', '"classes": 4', "background"),
        ('"orientation": "RAS"', '"orientation": "RAA"', "orientation"),
        ('"orientation": "RAS"', '"orientation": "ijj"', "orientation"),
        ('"orientation": "RAS"', '"orientation": "kAS"', "orientation"),
        ('"decoder_convs": null', '"decoder_convs": [1, 2, 3]', "decoder_convs"),
        ('"channels": 1', '"channels": 2', "channels"),
        ("{", "[", "plan"),
    ],
)
def test_wrong_plans_are_refused_with_the_reason(old, new, word):
    text = json.dumps(json.loads(small_plan().to_json()))
    text = text.replace('"epochs": 2, "budget_s": null', '"epochs": 2')
    assert old in text
    with pytest.raises(PlanError, match=word):
        Plan.from_json(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"patch": (17, 16, 16)}, "divisible"),
        ({"postprocessing": Postprocessing(keep_largest=("heart",))}, "heart"),
        ({"loss": Loss(class_weights=(1.0, 2.0))}, "3 classes need as many class weights"),
        ({"output": "structures"}, "one label map"),
        ({"network": small_network(channels=2)}, "2 input channels"),
        ({"network": small_network(classes=4)}, "2 structures and background need 3"),
        ({"cascade": True, "network": small_network(channels=3)}, "low_resolution"),
        ({"names": {n: f"s{n}" for n in range(1, 18)}, "overlapping": True}, "at most 15"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, word):
    if changes.pop("overlapping", False):
        changes["network"] = small_network(classes=len(changes["names"]), overlapping=True)
    with pytest.raises(ValueError, match=word):
        small_plan(**changes)


@pytest.mark.parametrize(
    ("part", "settings", "word"),
    [
        (Normalisation, {"kind": "window", "low": 5, "high": 5}, "low < high"),
        (small_network, {"strides": ((2, 2, 2),)}, "3 widths need 2 strides"),
        (small_network, {"kernels": ((2, 3, 3),) * 3}, "kernels odd"),
        (small_network, {"strides": ((0, 2, 2), (2, 2, 2))}, "strides must be 1"),
        (small_network, {"dims": 2, "strides": ((2, 2, 2),) * 2}, "along the last axis"),
        (small_network, {"kind": "denseunet"}, "denseunet"),
        (small_network, {"classes": 1}, "at least two classes"),
        (Loss, {"dice": 0, "cross_entropy": 0}, "all loss weights are zero"),
        (
            Loss,
            {"tversky": 1, "tversky_false_positives": 0, "tversky_false_negatives": 0},
            "found 0 for both",
        ),
        (Schedule, {"epochs": 2, "steps": 5}, "steps end a schedule early"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(part, settings, word):
    with pytest.raises(ValueError, match=word):
        part(**settings)


def test_a_plan_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Plan.load(tmp_path / "absent.json")


def bundle() -> Bundle:
    rng = np.random.default_rng(0)
    return Bundle(
        small_plan(),
        (Member("fold_0", {"a.weight": rng.normal(size=(3, 4)).astype(np.float32)}, fold=0),),
        {"note": "x"},
    )


def test_bundle_round_trip(tmp_path):
    bundle().save(tmp_path / "m.model")
    loaded = Bundle.load(tmp_path / "m.model")
    assert (
        loaded.id == bundle().id and loaded.plan == bundle().plan and loaded.card == {"note": "x"}
    )
    assert np.array_equal(
        loaded.members[0].weights["a.weight"], bundle().members[0].weights["a.weight"]
    )
    assert Bundle.is_bundle(tmp_path / "m.model")


def test_equal_content_gives_equal_bytes(tmp_path):
    bundle().save(tmp_path / "a")
    bundle().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_changed_byte_is_seen(tmp_path):
    bundle().save(tmp_path / "m.model")
    raw = (tmp_path / "m.model").read_bytes()
    for position in range(0, len(raw), 41):
        changed = bytearray(raw)
        changed[position] ^= 1
        (tmp_path / "bad").write_bytes(changed)
        with pytest.raises(BundleError):
            Bundle.load(tmp_path / "bad")
    (tmp_path / "bad").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BundleError):
        Bundle.load(tmp_path / "bad")


def test_released_weights_are_read_again(tmp_path):
    weights = {"w": np.arange(6, dtype=np.float32)}
    made = Bundle(small_plan(), (Member("one", weights), Member("two", {"w": np.ones(2)})))
    made.release_weights()  # has no file
    assert made.members[0].weights is weights
    made.save(tmp_path / "m.model")
    bundle = Bundle.load(tmp_path / "m.model")
    arrays = weakref.ref(bundle.members[0].weights["w"])
    bundle.release_weights()
    gc.collect()
    assert arrays() is None

    # Another process may have no such file.
    sent = pickle.loads(pickle.dumps(bundle.members[0].weights))
    assert type(sent) is dict
    for found in (sent, bundle.members[0].weights):
        assert list(found) == ["w"]
        np.testing.assert_array_equal(found["w"], weights["w"])

    # The file is read once for all members.
    (tmp_path / "m.model").rename(tmp_path / "away")
    np.testing.assert_array_equal(bundle.members[1].weights["w"], np.ones(2))
    (tmp_path / "away").rename(tmp_path / "m.model")

    # A file that was replaced is not used.
    bundle.release_weights()
    Bundle(small_plan(), (Member("one", {"w": np.zeros(6, np.float32)}),)).save(
        tmp_path / "m.model"
    )
    with pytest.raises(BundleError, match=r"m\.model: has changed while it was used: its id was"):
        len(bundle.members[0].weights)
    (tmp_path / "m.model").unlink()
    with pytest.raises(InputError, match=r"no such file|cannot be read"):
        dict(bundle.members[1].weights)


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(InputError):
        Bundle.load(tmp_path / "absent")
    with pytest.raises(BundleError, match="folder"):
        Bundle.load(tmp_path)
    (tmp_path / "x").write_text("hello")
    with pytest.raises(BundleError, match="not a delineate model"):
        Bundle.load(tmp_path / "x")
    assert not Bundle.is_bundle(tmp_path / "x")


def test_a_failed_write_leaves_the_old_model(tmp_path, monkeypatch):
    bundle().save(tmp_path / "m.model")
    before = (tmp_path / "m.model").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        bundle().save(tmp_path / "m.model")
    assert (tmp_path / "m.model").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.model"]


def test_scalars_stay_scalars(tmp_path):
    """Batch norm counts its batches in one; an array of one element in its place would not load."""
    bundle = Bundle(
        small_plan(), (Member("a", {"n": np.array(7), "w": np.ones((2, 3), np.float32).T}),)
    )
    bundle.save(tmp_path / "m")
    back = Bundle.load(tmp_path / "m")
    assert {k: v.shape for k, v in back.members[0].weights.items()} == {
        "n": (),
        "w": (3, 2),
    } and back.id == bundle.id
