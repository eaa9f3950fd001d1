"""Schemas of this program's own files: their numbers, and the migration from all older ones.

Each kind of file has a schema number, which increases with every change of its content. A file with
an older number is migrated in memory, step by step; the file on disk is never changed. A newer file
is refused with the version that wrote it. ``docs/reference/formats.md`` states what may change and
when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import DelineateError, InputError

Data = dict[str, Any]
# Kind -> the number that this version writes. In a file, the kind is the key of its number.
SCHEMAS = {
    "delineate_plan": 5,
    "delineate_bundle": 2,
    "delineate_manifest": 5,
    "delineate_store": 2,
    "delineate_predictions": 5,
    "delineate_run": 5,
    "delineate_slices": 1,
    "delineate_outputs": 1,
}


def _unchanged(data: Data) -> Data:
    """A step whose newer schema only allows more. Manifest 2: a source may name one channel of
    its file. Manifest 3: masks by channel and by segment name, and an account of files. Manifest
    4: a case has a group, a source may name its structure and its picture in a file of outlines,
    values may be ignored, and structures may overlap. Plan 2: registered networks, optimisers, loss
    terms and augmentations. Plan 3: ignored voxels, and the output of structures that overlap.
    Predictions 2: the inputs of each channel are listed. Predictions 3: the options that differ
    from their defaults are listed. Predictions 4: structures may overlap, with one file each,
    the model's verdict, its Dice on the cases it learned from, and flags. Run 2: registered parts,
    and single fields of the plan (``--set``). Run 3: ignored values. Plan 4: steps that end a
    budget early. Run 4: the longest time. Run 5: a split by ratio, checksums. Store 2, plan 5,
    manifest 5 and predictions 5: checksums. Bundle 2: topologies of networks.
    """
    return data


# Kind -> old number -> function that converts data to the next number.
STEPS: dict[str, dict[int, Callable[[Data], Data]]] = {
    "delineate_bundle": {1: _unchanged},
    "delineate_manifest": {1: _unchanged, 2: _unchanged, 3: _unchanged, 4: _unchanged},
    "delineate_plan": {1: _unchanged, 2: _unchanged, 3: _unchanged, 4: _unchanged},
    "delineate_predictions": {1: _unchanged, 2: _unchanged, 3: _unchanged, 4: _unchanged},
    "delineate_run": {1: _unchanged, 2: _unchanged, 3: _unchanged, 4: _unchanged},
    "delineate_store": {1: _unchanged},
}
for _kind, _number in SCHEMAS.items():
    if sorted(STEPS.get(_kind, {})) != list(range(1, _number)):
        raise TypeError(f"{_kind} has schema {_number} and needs a step from each older one")


def number_of(kind: str, data: Data) -> int:
    """The schema number in a file of ``kind``.

    Returns:
        1 if there is none (files had no numbers at first), 0 if it is not an integer.
    """
    found = data.get(kind, 1)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def migrate(
    kind: str, data: Data, *, path: str | None = None, error: type[DelineateError] = InputError
) -> Data:
    """Convert data of an older schema to the current one; current data are returned unchanged.

    Args:
        kind: a key of ``SCHEMAS``.
        data: the content of the file; it is not changed.
        path: the file, for the error message.
        error: the type of error to raise.

    Raises:
        DelineateError: of the type ``error``; the file is newer than this program, or its schema
            number is not valid.
    """
    found, known = number_of(kind, data), SCHEMAS[kind]
    if found > known:
        writer = data.get("delineate") or "a newer version"
        by = f"delineate {writer}" if data.get("delineate") else writer
        raise error(
            f"was written by {by} (schema {found}); this version reads up to {known}", path=path
        )
    if found < 1:
        raise error(f"has the schema {data.get(kind)!r}, expected a number from 1", path=path)
    for number in range(found, known):
        data = STEPS[kind][number](data)
    return {**data, kind: known} if found < known else data
