"""How structures are coded in DICOM objects (PS3.3 C.8.20.4): by the tables of ``anatomy`` and the
codes that ``extend.TERMS`` adds.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from ..labels import Label, Side, side_of
from .anatomy import ABNORMAL, CODED
from .structures import add_code_of, names_structure, structure_of

PRIVATE = "99DELINEATE"  # the scheme of structures without a code
_OWN = re.compile(r"(?:(SCT|DCM|FMA|NCIt|RADLEX|UMLS|99[A-Z0-9_]{1,14}):)?([A-Za-z0-9._-]{1,16})")


@dataclass(frozen=True)
class Code:
    """A coded concept: its value and meaning in a coding scheme of PS3.16 chapter 8, by default
    SNOMED CT; a private scheme begins with "99".
    """

    value: str
    meaning: str
    scheme: str = "SCT"

    def __post_init__(self) -> None:
        for name, most in (("value", 16), ("scheme", 16), ("meaning", 64)):
            text = getattr(self, name)
            if not 0 < len(text.strip()) <= most or "\\" in text:
                raise ValueError(f"the {name} of a code has 1 to {most} characters: {text!r}")


STRUCTURE = Code("91723000", "Anatomical Structure")
ABNORMAL_STRUCTURE = Code("49755003", "Morphologically Abnormal Structure")
SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}


@dataclass(frozen=True)
class Coding:
    """The codes of a structure.

    Args:
        kind: what it is.
        category: of PS3.16 CID 7150.
        region: where it is, of an abnormal structure.
        side: the laterality of the region, or of the structure if there is none; None also if
            ``kind`` includes it.
    """

    kind: Code
    category: Code = STRUCTURE
    region: Code | None = None
    side: Code | None = None


def coding_of(label: Label) -> Coding:
    """The codes of a structure: abnormal ones by their name, others by their own code, else by
    their name. A name in no table has a private code, which follows from its identity; one that
    describes no structure ("label 3") is an anatomical structure.

    >>> coding_of(Label(1, "kidney_left", (0, 0, 0))).side
    Code(value='7771000', meaning='Left', scheme='SCT')
    >>> coding_of(Label(1, "liver tumour", (0, 0, 0))).region
    Code(value='10200004', meaning='Liver', scheme='SCT')
    """
    stated, name = side_of(structure_of(label.name))
    side = label.side or stated
    named = _by_name(name, side)
    if named is not None and named.category == ABNORMAL_STRUCTURE:
        return named
    modifier = SIDES[side] if side else None
    if own := _own_code(label):
        return Coding(own, side=modifier)
    if named is not None:
        return named
    if not name or not names_structure(label.name):
        return Coding(STRUCTURE, side=modifier)
    value = hashlib.sha256(name.encode()).hexdigest()[:16].upper()
    return Coding(Code(value, _meaning(label), PRIVATE), side=modifier)


def add_code(identity: str, coding: Coding) -> None:
    """Add the codes of a structure.

    Raises:
        ValueError: it has others already.
    """
    identity = structure_of(identity)
    if _TABLE.setdefault(identity, coding) != coding:
        raise ValueError(f"{identity!r} has the code {_TABLE[identity].kind.value} already")
    if coding.kind.scheme == "SCT":
        add_code_of(coding.kind.value, identity)


def _by_name(name: str, side: Side) -> Coding | None:
    """The codes of a name without its side; None if it is in no table."""
    if found := _TABLE.get(f"{side} {name}"):
        return found
    modifier = SIDES[side] if side else None
    if found := _TABLE.get(name):
        return replace(found, side=found.side or modifier)
    words = name.split()
    kinds = [_code(ABNORMAL[word]) for word in words if word in ABNORMAL]
    if not kinds:
        return None
    # What remains of "kidney cyst" is where it is.
    region = _TABLE.get(structure_of(" ".join(w for w in words if w not in ABNORMAL)))
    return Coding(kinds[0], ABNORMAL_STRUCTURE, region.kind if region else None, modifier)


def _own_code(label: Label) -> Code | None:
    """The code of the label itself, if it is one of a known scheme."""
    found = _OWN.fullmatch(label.code.strip())
    if found is None or (found[1] in (None, "SCT") and not found[2].isdigit()):
        return None
    return Code(found[2], _meaning(label), found[1] or "SCT")


def _meaning(label: Label) -> str:
    """The name without its side, because the codes of both sides are the same."""
    return (side_of(label.name)[1] or label.name)[:64]


def _code(text: str) -> Code:
    """A code of a table: its value, after its scheme if that is not SNOMED CT, and its meaning."""
    value, meaning = text.split(maxsplit=1)
    scheme, _, number = value.rpartition(":")
    return Code(number, meaning, scheme or "SCT")


_TABLE = {identity: Coding(_code(text)) for identity, text in CODED.items()}
