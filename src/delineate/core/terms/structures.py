"""Structures: compare names by identity."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..labels import LabelSet, side_of
from .anatomy import _WHOLE, STRUCTURES
from .channels import compact as _compact

_SIDE_IN_WORD = re.compile(r"(?i)^(left|right)(?=[a-z]{4})")  # such as leftkidney
_NAMELESS = re.compile(
    r"(?i)(label|class|value|structure|segment|region|mask|foreground|object)?[\s_.-]*\d*"
)


def structure_of(name: str) -> str:
    """The identity of a structure name: its side, then its name in one spelling ("Left_Kidney",
    "kidney left" -> "left kidney").
    """
    # Abbreviations whose letters include the side, such as "LV", before the general rule.
    whole = _WHOLE.get(_compact(name))
    if whole is not None:
        return whole
    side, rest = side_of(_SIDE_IN_WORD.sub(r"\1 ", name))
    words = re.sub(r"[\W_]+", " ", rest.lower()).split()
    return f"{side or ''} {_STRUCTURES.get(_unified(words), _unified(words))}".strip()


def names_structure(name: str) -> bool:
    """Whether ``name`` describes a structure; "label 3", "foreground" and numbers do not."""
    return _NAMELESS.fullmatch(name.strip()) is None


def contradictions(one: LabelSet, other: LabelSet, of_one: str, of_other: str) -> list[str]:
    """Contradictions between the names and values of two tables, one sentence each: a value with
    two names, or a structure with two values.

    Names that do not describe a structure ("label 3") contradict nothing.
    """
    # Compare by value (two names) and by structure (two values).
    mine = {label.value: label.name for label in one if names_structure(label.name)}
    theirs = {label.value: label.name for label in other if names_structure(label.name)}
    places = {structure_of(name): value for value, name in theirs.items()}
    found = []
    for value, name in mine.items():
        place = places.get(structure_of(name), value)
        if value in theirs and structure_of(name) != structure_of(theirs[value]):
            found.append(f"{value} is {name!r} in {of_one} and {theirs[value]!r} in {of_other}")
        elif place != value:
            found.append(f"{name!r} is {value} in {of_one} and {place} in {of_other}")
    return found


def _unified(words: Sequence[str]) -> str:
    """The words as one, in American spelling and without plural; only for comparison."""
    spelled = [
        _AMERICAN_END.sub(
            lambda m: {"our": "or", "re": "er"}[m[0]], word.replace("oe", "e").replace("ae", "e")
        )
        for word in words
    ]
    # A final "s" is a plural, except in short words and after another "s".
    text = "".join("gray" if word == "grey" else word for word in spelled)
    return text[:-1] if len(text) > 4 and text.endswith("s") and not text.endswith("ss") else text


_AMERICAN_END = re.compile(r"(?<=tum)our$|(?<=col)our$|(?<=[nbt])re$")
_STRUCTURES = {
    _unified(name.split()): _unified(names[0].split()) for names in STRUCTURES for name in names
}
