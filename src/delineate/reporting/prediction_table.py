"""The table that ``predict`` prints: the volumes and the flags of each case, and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.words import number_text
from .text_table import WIDTH, Column, blocks, wrapped

MOST_VOLUMES = 6  # structures with a column of their own; of more, those found are counted


def table(cases: Mapping[str, Mapping[str, Any]], width: int = WIDTH) -> str:
    """One row per case, then the sentences of the flags and the notes about how scans were read.

    Args:
        cases: case -> its entry of ``predictions.json``.
        width: columns of text; a wider table is divided into blocks.
    """
    flags = {case: entry.get("flags") or () for case, entry in cases.items()}
    kinds = tuple(", ".join(flag["kind"] for flag in found) or "–" for found in flags.values())
    names = [Column("case", tuple(cases), is_name=True)]
    shown = blocks(names, [*_volumes(cases), Column("flags", kinds, is_name=True)], width)
    words = [
        f"{case}: {flag['kind']}: {flag['words']}"
        for case, found in flags.items()
        for flag in found
    ]
    words += [
        f"{case}: note: {note}"
        for case, entry in cases.items()
        for note in entry.get("notes") or ()
    ]
    return "\n".join([*shown, *(wrapped(one, width) for one in words)])


def _volumes(cases: Mapping[str, Mapping[str, Any]]) -> list[Column]:
    """The volume of each structure, or how many structures were found."""
    found = [entry.get("volumes_ml") or {} for entry in cases.values()]
    structures = list(dict.fromkeys(name for volumes in found for name in volumes))
    if len(structures) > MOST_VOLUMES:
        counts = [sum(value > 0 for value in volumes.values()) for volumes in found]
        return [Column("structures", tuple(f"{n} of {len(structures)}" for n in counts))]
    return [
        Column(f"{name}, ml", tuple(number_text(volumes.get(name, 0.0)) for volumes in found))
        for name in structures
    ]
