"""The formats of this program's own files: their numbers, and the way from every older one.

Each kind of file carries a schema number that rises with every change of what is written. A file
with an older number is migrated in memory, step by step; what stands on disk is never changed. A
newer file is refused, naming the version that wrote it. ``docs/formats.md`` states what may change
when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import DelineateError, InputError

Data = dict[str, Any]
# Kind -> the number that this version writes. The number stands in the file under its kind.
SCHEMAS = {
    "delineate_plan": 1,
    "delineate_bundle": 1,
    "delineate_manifest": 2,
    "delineate_store": 1,
    "delineate_predictions": 2,
    "delineate_run": 1,
}


def _as_it_is(data: Data) -> Data:
    """A step whose newer form only allows more: 2 of a manifest lets a source name one channel of
    its file, 2 of predictions lists the inputs of each channel.
    """
    return data


# Kind -> old number -> what makes data of the next number of it.
STEPS: dict[str, dict[int, Callable[[Data], Data]]] = {
    "delineate_manifest": {1: _as_it_is},
    "delineate_predictions": {1: _as_it_is},
}
for _kind, _number in SCHEMAS.items():
    if sorted(STEPS.get(_kind, {})) != list(range(1, _number)):
        raise TypeError(f"{_kind} has schema {_number}, and needs a step from each older one")


def number_of(kind: str, data: Data) -> int:
    """The schema number in a file of ``kind``; 1 where it has none, as files had before numbers."""
    found = data.get(kind, 1)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def migrate(
    kind: str, data: Data, *, path: str | None = None, error: type[DelineateError] = InputError
) -> Data:
    """Data of an older schema as data of today's; other data are returned as they are.

    Args:
        kind: a key of ``SCHEMAS``.
        data: the content of the file; it is not changed.
        path: of the file, for the error.
        error: what is raised.

    Raises:
        DelineateError: of the type ``error``: the file is newer than this program, or its number
            is none.
    """
    found, known = number_of(kind, data), SCHEMAS[kind]
    if found > known:
        writer = data.get("delineate") or "a newer version"
        by = f"delineate {writer}" if data.get("delineate") else writer
        raise error(
            f"was written by {by} (schema {found}); this version reads up to {known}", path=path
        )
    if found < 1:
        raise error(f"has the schema {data.get(kind)!r}, which is no number from 1", path=path)
    for number in range(found, known):
        data = STEPS[kind][number](data)
    return {**data, kind: known} if found < known else data
