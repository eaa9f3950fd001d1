"""Structures: compare names by identity (``anatomy``), and tables of names with each other.

The identity of a structure is its side and its name. A name that is in no table is its own
identity, without case, accents, separators, the order of words and plurals, in American spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..labels import Label, LabelSet, side_of
from .anatomy import ABBREVIATIONS, CODES, FREESURFER, IRREGULAR, TABLES
from .channels import compact
from .reading import load_more, plain

_SIDE_IN_WORD = re.compile(r"(?i)^(left|right)(?=[a-z]{4})|(?<=[a-z]{4})(left|right)$")
_NAMELESS = re.compile(
    r"(?i)(label|class|value|structure|segment|region|mask|foreground|object)?[\s_.-]*\d*"
)
_CODE = re.compile(r"(?i)(?:(?:sct|snomed(?:[ -]?ct)?|srt)[ :_-]*)?(\d{6,18})")
_FREESURFER = re.compile(r"(?i)(?:freesurfer|aseg)[ :_-]*(\d+)")
_AMERICAN_END = re.compile(r"(?<=tum)our$|(?<=col)our$|(?<=[nbt])re$")
_NO_WORDS = {"of", "the", "a"}


def structure_of(name: str) -> str:
    """The identity of a structure name: its side, then its name in one spelling.

    >>> structure_of("Left_Kidney"), structure_of("kidney left"), structure_of("linke Niere")
    ('left kidney', 'left kidney', 'left kidney')
    >>> structure_of("SCT:10200004"), structure_of("freesurfer 17"), structure_of("oedema")
    ('liver', 'left hippocampus', 'edema')
    >>> structure_of("left lung upper lobe") == structure_of("left lung")
    False
    """
    load_more()
    if numbered := _of_number(name):
        return numbered
    # Abbreviations whose letters include the side, such as "LV", before the general rule.
    whole = ABBREVIATIONS.get(compact(name))
    if whole is not None:
        return whole
    side, rest = side_of(_SIDE_IN_WORD.sub(r" \1\2 ", name).strip())
    found = _named(rest) or _key(_words(rest))
    return f"{side or ''} {found}".strip()


def is_known_structure(name: str) -> bool:
    """Whether ``name``, without a side, is in the tables."""
    return bool(_of_number(name) or ABBREVIATIONS.get(compact(name)) or _named(name))


def _named(name: str) -> str:
    """The structure of a name without a side; "" if it is in no table."""
    words = _words(name)
    return _NAMES.get("".join(words)) or _NAMES.get(_key(words), "")


def _of_number(name: str) -> str:
    """The structure of a code of SNOMED CT or a number of FreeSurfer; "" for any other name."""
    if found := _CODE.fullmatch(name.strip()):
        return _CODES.get(found[1], "")
    if found := _FREESURFER.fullmatch(name.strip()):
        return FREESURFER.get(int(found[1]), "")
    return ""


def names_structure(name: str) -> bool:
    """Whether ``name`` describes a structure; "label 3", "foreground" and numbers do not."""
    return bool(_of_number(name)) or _NAMELESS.fullmatch(name.strip()) is None


def identity_of(label: Label) -> str:
    """The identity of a label: of its name, else of its code; "" if neither describes a
    structure.
    """
    if names_structure(label.name):
        return structure_of(label.name)
    coded = _of_number(label.code)
    return f"{label.side} {coded}" if coded and label.side else coded


def values_by_identity(one: LabelSet, other: LabelSet) -> dict[int, int] | None:
    """Value in ``one`` -> value in ``other`` of the same structure; None unless both have the same
    structures, each named and named once.

    >>> mine = LabelSet.from_names({1: "liver", 2: "oedema"})
    >>> values_by_identity(mine, LabelSet.from_names({1: "edema", 2: "liver"}))
    {1: 2, 2: 1}
    """
    mine, theirs = ([identity_of(label) for label in labels] for labels in (one, other))
    if "" in mine or len(set(mine)) < len(mine) or sorted(mine) != sorted(theirs):
        return None
    places = dict(zip(theirs, other.values, strict=True))
    return {value: places[what] for value, what in zip(one.values, mine, strict=True)}


def contradictions(one: LabelSet, other: LabelSet, of_one: str, of_other: str) -> list[str]:
    """Contradictions between the names and values of two tables, one sentence each: a value with
    two names, or a structure with two values.

    Names that do not describe a structure ("label 3") contradict nothing.
    """
    # Compare by value (two names) and by structure (two values).
    mine = {label.value: (label.name, what) for label in one if (what := identity_of(label))}
    theirs = {label.value: (label.name, what) for label in other if (what := identity_of(label))}
    places = {what: value for value, (_, what) in theirs.items()}
    found = []
    for value, (name, what) in mine.items():
        place = places.get(what, value)
        if value in theirs and what != theirs[value][1]:
            found.append(f"{value} is {name!r} in {of_one} and {theirs[value][0]!r} in {of_other}")
        elif place != value:
            found.append(f"{name!r} is {value} in {of_one} and {place} in {of_other}")
    return found


def _words(text: str) -> list[str]:
    """The words of a name in American spelling and without plural; only for comparison."""
    found = []
    for word in re.sub(r"[\W_]+", " ", plain(text)).split():
        if word in IRREGULAR:
            found.append(IRREGULAR[word])
            continue
        spelled = _AMERICAN_END.sub(
            lambda m: {"our": "or", "re": "er"}[m[0]], word.replace("oe", "e").replace("ae", "e")
        )
        # A final "s" is a plural, except in short words and after another "s".
        is_plural = len(spelled) > 4 and spelled.endswith("s") and not spelled.endswith("ss")
        found.append(spelled[:-1] if is_plural else spelled)
    return found


def _key(words: Iterable[str]) -> str:
    """The words in alphabetical order, so that their order makes no difference."""
    return " ".join(sorted(word.lstrip("0") or word for word in words if word not in _NO_WORDS))


def add(name: str, identity: str) -> None:
    """Make ``name`` a name of ``identity``, both without a side."""
    words = _words(name)
    _NAMES["".join(words)] = _NAMES[_key(words)] = identity


def add_code_of(code: str, identity: str) -> None:
    """Make a code of SNOMED CT one of ``identity``, if it is none yet."""
    _CODES.setdefault(code, identity)


_CODES = dict(CODES)
_NAMES: dict[str, str] = {}
for _table in TABLES:
    for _identity, _names in _table.items():
        for _name in (_identity, *_names.split(",")):
            add(_name, _identity)
