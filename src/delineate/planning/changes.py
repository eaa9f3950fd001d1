"""Single fields of a plan that the user sets, such as ``loss.focal=1``.

The plan's own schema checks the value, so that every field can be set and none is listed here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from ..core.errors import PlanError, UsageError
from ..core.inputs import parse_json
from ..core.plan import Plan

# Facts about a plan, and not settings.
_NOT_SETTINGS = ("delineate_plan", "reasons", "recipe")


def parse_change(text: str) -> tuple[str, Any]:
    """The dotted path and the value of "PATH=VALUE"; the value is JSON, else text.

    Raises:
        UsageError: another form.

    >>> parse_change("loss.focal=1"), parse_change("network.norm=batch")
    (('loss.focal', 1), ('network.norm', 'batch'))
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip() or not value.strip():
        raise UsageError(f"--set is written like loss.focal=1, found {text!r}")
    try:
        return path.strip(), parse_json(value)
    except ValueError:
        return path.strip(), value.strip()


def with_changes(plan: Plan, texts: Sequence[str]) -> Plan:
    """The plan with these fields set, and with a reason for each.

    Args:
        plan: of any planner.
        texts: such as ("loss.focal=1",); () returns the plan as it is. An element of a list is
            named by its number, from 0, such as ``channels.0.normalise.kind``.

    Raises:
        UsageError: another form, a field that is set twice, or an unknown one; the nearest is
            named.
        PlanError: the schema refuses a value.
    """
    if not texts:
        return plan
    changes: dict[str, Any] = {}
    for text in texts:
        path, value = parse_change(text)
        if path in changes:
            raise UsageError(f"--set gives {path} twice")
        changes[path] = value
    data = plan.model_dump(mode="json")
    for path, value in changes.items():
        _set(data, path, value)
        data["reasons"][path] = f"{json.dumps(value)}: given with --set"
    try:
        return Plan.from_json(json.dumps(data))
    except PlanError as error:
        raise PlanError(f"--set {' '.join(texts)}: {error.message}") from error


def _set(data: Any, path: str, value: Any) -> None:
    """Set the field of plain data at a dotted path."""
    parts, here = path.split("."), data
    for depth, part in enumerate(parts):
        if isinstance(here, list):
            known = [str(number) for number in range(len(here))]
        elif isinstance(here, dict):
            known = [name for name in here if depth or name not in _NOT_SETTINGS]
        else:
            raise UsageError(
                f"--set {path}: {'.'.join(parts[:depth])} is {json.dumps(here)}, which has no "
                f"field {part}"
            )
        if part not in known:
            before = "".join(f"{name}." for name in parts[:depth])
            near = get_close_matches(part, known, 1, cutoff=0.0)
            nearest = f"; the nearest is {before}{near[0]}" if near else ""
            raise UsageError(f"--set {path}: a plan has no field {before}{part}{nearest}")
        key: Any = int(part) if isinstance(here, list) else part
        if depth == len(parts) - 1:
            here[key] = value
        else:
            here = here[key]
