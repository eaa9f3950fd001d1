"""Volumes as plain data and arrays, which a child process sends (``apart``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.grid import Grid
from ..core.volume import Volume
from .apart import Found


def from_volume(volume: Volume) -> Found:
    """Facts that JSON keeps, and the array; the inverse of ``to_volume``."""
    facts = {
        "grid": volume.grid.to_json(),
        "unit": volume.unit,
        "source": volume.source,
        "meta": packed(volume.meta),
    }
    return facts, [volume.array]


def to_volume(found: Found) -> Volume:
    """The volume that ``from_volume`` made facts of."""
    facts, (array,) = found
    grid = Grid.from_json(facts["grid"])
    return Volume(array, grid, facts["unit"], facts["source"], unpacked(facts["meta"]))


def packed(value: Any) -> Any:
    """Plain data in a form in which JSON keeps tuples, and keys that are no text.

    >>> unpacked(packed({1: ("liver", [0.5])}))
    {1: ('liver', [0.5])}
    """
    if isinstance(value, dict):
        return ["dict", [[packed(key), packed(one)] for key, one in value.items()]]
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [packed(one) for one in value]]
    return ["", value.item() if isinstance(value, np.generic) else value]


def unpacked(value: Any) -> Any:
    """The inverse of ``packed``."""
    kind, content = value
    if kind == "dict":
        return {unpacked(key): unpacked(one) for key, one in content}
    if kind in ("list", "tuple"):
        found = [unpacked(one) for one in content]
        return found if kind == "list" else tuple(found)
    return content
