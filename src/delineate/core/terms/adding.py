"""Add names to the tables: those of ``extend.TERMS``, which this module does not know."""

from __future__ import annotations

from . import reading, structures


def add(name: str, identity: str, *, is_channel: bool) -> None:
    """Make ``name`` a name of ``identity``, of a channel or of a structure.

    Raises:
        ValueError: the name has another meaning already, or no letter.
    """
    reading.load_more()
    if "," in name or not any(letter.isalpha() for letter in name):
        raise ValueError(f"{name!r} is no name")
    if is_channel:
        # A longer name than those of the tables may mean something else ("T1 MARS").
        known = reading.read(name).identity if reading.is_phrase(name) else ""
        same = known in ("", identity, reading.read(identity).identity)
    else:
        known = structures.structure_of(name)
        same = not structures.is_known_structure(name) or known == structures.structure_of(identity)
    if not same:
        raise ValueError(f"{name!r} means {known} already, not {identity}")
    (reading if is_channel else structures).add(name, identity)


load_more_with = reading.load_more_with
