from __future__ import annotations

import json

import numpy as np
import pytest
from tests.plans import small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import BundleError, InputError, OutputError, PlanError
from delineate.core.plan import Plan


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


def test_patch_must_be_divisible():
    with pytest.raises(ValueError, match="divisible"):
        small_plan(patch=(17, 16, 16))


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
