"""Every field of the plan has a name, and every value of a choice is a word."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from tests.plans import small_plan

from delineate.core.plan import Part, Plan
from delineate.reporting.plan_names import FIELDS, GROUPS, VALUES, field_name, field_value
from delineate.reporting.plan_section import _ONLY_WITH, plan_rows


def leaves(part: type[Part], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, annotation) of every field that is not itself a part, except ``low_resolution``."""
    for name, field in part.model_fields.items():
        path, inner = f"{prefix}{name}", part_in(field.annotation)
        if inner is None or inner is Plan:
            yield path, field.annotation
        else:
            yield from leaves(inner, f"{path}.")


def part_in(annotation: Any) -> type[Part] | None:
    """The part that a field holds, one or several of it."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((p for a in typing.get_args(annotation) if (p := part_in(a))), None)


def choices(annotation: Any) -> Iterator[str]:
    if typing.get_origin(annotation) is typing.Literal:
        yield from (value for value in typing.get_args(annotation) if isinstance(value, str))
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation):
        for inner in typing.get_args(annotation):
            yield from choices(inner)


def test_every_field_has_a_name_and_no_name_has_lost_its_field():
    paths = [path for path, _ in leaves(Plan)]
    assert set(paths) == set(FIELDS)
    assert {field for name, (other, _) in _ONLY_WITH.items() for field in (name, other)} <= set(
        paths
    )
    assert {path.split(".")[0] for path in paths if "." in path} == set(GROUPS)
    for path in paths:
        assert not any(sign in field_name(path) for sign in "._"), path


@pytest.mark.parametrize(("path", "annotation"), leaves(Plan))
def test_every_value_of_a_choice_is_a_word(path, annotation):
    for value in choices(annotation):
        assert "_" not in field_value(path, value)
    assert not any("_" in word for word in VALUES.values())


def test_the_rows_of_a_plan_have_names_and_units():
    plan = small_plan(3)
    name = plan.channels[0].name
    plan = plan.replace(reasons={f"normalise.{name}": "one scale", "loss.dice": "usual"})
    rows = {row.name: row for row in plan_rows(plan.model_dump(mode="json"))}
    assert rows["weight of Dice"].values == (("", "1"),)
    assert rows["weight of Dice"].reason == "usual"
    assert "weight of Dice" not in dict(rows["loss"].values)
    assert rows[f"intensity normalisation, {name}"].reason == "one scale"
    labels = [label for row in rows.values() for label, _ in row.values]
    assert labels and not any("_" in label for label in (*labels, *rows))
    assert dict(rows["network"].values)["architecture"] == "U-Net"
    # Settings of what is switched off are left out.
    assert not {"growth per dense layer", "focal exponent", "learning rate drops to"} & set(labels)
    assert plan_rows(None) == []
