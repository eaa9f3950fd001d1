"""Single fields of a plan by their paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from delineate.core.errors import PlanError, UsageError
from delineate.core.plan import Plan
from delineate.planning.changes import parse_change, with_changes

PLAN = Plan.load(Path(__file__).parents[1] / "golden/schema_1/plan.json")


def test_fields_are_set_with_a_reason():
    texts = ("loss.focal=1", "augmentation.mirror=[0]", "channels.0.normalise.kind=range")
    plan = with_changes(PLAN, texts)
    assert plan.loss.focal == 1 and plan.augmentation.mirror == (0,)
    assert plan.channels[0].normalise.kind == "range"
    assert plan.reasons["loss.focal"] == "1: given with --set"
    assert plan.reasons["channels.0.normalise.kind"] == '"range": given with --set'
    assert plan.replace(reasons={}, loss=PLAN.loss.model_dump()) != PLAN
    assert with_changes(PLAN, ()) is PLAN
    assert Plan.from_json(plan.to_json()) == plan


def test_values_are_json_or_text():
    assert parse_change("a.b=true") == ("a.b", True)
    assert parse_change("a = x=y") == ("a", "x=y")
    for text in ("a", "=1", "a="):
        with pytest.raises(UsageError, match="--set is written like"):
            parse_change(text)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["loss.focl=1"], UsageError, "a plan has no field loss.focl; the nearest is loss.focal$"),
        (["los.focal=1"], UsageError, "a plan has no field los; the nearest is loss$"),
        (["reasons.x=1"], UsageError, "a plan has no field reasons"),
        (["channels.7.name=x"], UsageError, r"has no field channels.7; the nearest is channels.0"),
        (["seed.x=1"], UsageError, r"--set seed.x: seed is \d+, which has no field x"),
        (["seed=1", "seed=2"], UsageError, "--set gives seed twice"),
        (["loss.focal=-1"], PlanError, r"--set loss.focal=-1: loss.focal: .* equal to 0"),
        (["loss.focal=much"], PlanError, "--set loss.focal=much: loss.focal: .* valid number"),
        (["loss.dice=0", "loss.cross_entropy=0"], PlanError, "all loss weights are zero"),
        (["patch=[5,5,5]"], PlanError, "is not divisible"),
    ],
)
def test_wrong_changes_are_refused_in_one_sentence(texts, error, message):
    with pytest.raises(error, match=message) as refused:
        with_changes(PLAN, texts)
    assert len(str(refused.value).splitlines()) == 1
