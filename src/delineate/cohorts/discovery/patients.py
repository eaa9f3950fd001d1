"""Derive the patient from the id of a case with a regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ...core.errors import LayoutError, UsageError
from ...core.manifest import Case


def by_pattern(cases: Iterable[Case], pattern: str) -> tuple[Case, ...]:
    """The cases with the patient set to the text that the group of ``pattern`` matches in the id.

    The pattern is searched anywhere in the id.

    Raises:
        UsageError: ``pattern`` is not a regular expression, or does not have exactly one group.
        LayoutError: ``pattern`` does not match an id, or its group is empty.
    """
    compiled = _compiled(pattern)
    return tuple(replace(case, patient=_patient(case.id, compiled)) for case in cases)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"the patient pattern {pattern!r} is not a regular expression ({error})"
        ) from error
    if compiled.groups != 1:
        raise UsageError(
            f"the patient pattern {pattern!r} has {compiled.groups} groups but needs exactly "
            "one, such as '^(P[0-9]+)_'"
        )
    return compiled


def _patient(case: str, compiled: re.Pattern[str]) -> str:
    found = compiled.search(case)
    if not found or not found.group(1):
        raise LayoutError(
            f"the patient pattern {compiled.pattern!r} does not match this id", case=case
        )
    return found.group(1)
