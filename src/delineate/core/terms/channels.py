"""Channels: match the names of a scan to those of a model, by identity (``reading``).

Two channels are the same image if their identities are equal. A name that is in no table is its own
identity, without case and separators. An image may also be one of those that another name means:
"CT, arterial phase" is a CT. Nothing is guessed from a position or a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .reading import read
from .sequences import ANY_IMAGE, ANY_MR

_NUMBERED = re.compile(r"(?:channel|modality|image)?\s*_?0*(\d+)")


def channel_of(name: str) -> str:
    """The identity of a channel name; a name without one is its own, without case and separators.

    >>> channel_of("t1ce"), channel_of("AX T1 SE POST GAD"), channel_of("T1 FLAIR")
    ('T1 post-contrast', 'T1 post-contrast', 'T1')
    >>> channel_of("Portalvenös"), channel_of("my_Image")
    ('CT, portal venous phase', 'myimage')
    """
    return read(name).identity or compact(name)


def compact(name: str) -> str:
    """The name without case and separators."""
    return re.sub(r"[^\w*+]|_", "", name.lower())


def is_known_channel(name: str) -> bool:
    """Whether ``name`` names a sequence or modality in the tables."""
    return bool(read(name).identity)


def number_of_channel(name: str) -> int | None:
    """The number in a name that is only a number ("channel 2", "0002"); None for any other name."""
    found = _NUMBERED.fullmatch(name.strip().lower())
    return None if found is None else int(found[1])


def is_kind_of(one: str, other: str) -> bool:
    """Whether every image with the identity ``one`` is also one of ``other``, which says less.

    >>> is_kind_of("CT, arterial phase", "CT"), is_kind_of("CT", "CT, arterial phase")
    (True, False)
    """
    base, *more = one.split(", ")
    other_base, *less = other.split(", ")
    return base == other_base and set(less) < set(more)


def may_be(given: str, wanted: str) -> bool:
    """Whether the only channel of a scan, named ``given``, can be the one that a model names
    ``wanted``: their identities are equal, or one name is less specific ("image", "MR", "CT").
    """
    one, other = channel_of(given), channel_of(wanted)
    if one == other or is_kind_of(one, other) or is_kind_of(other, one):
        return True
    # The less specific name may be on either side.
    for a, b in ((one, wanted), (other, given)):
        if a in ANY_IMAGE or number_of_channel(a) is not None:
            return True
        if a in ANY_MR and read(b).modality in ("", "MR"):
            return True
    return False


def contradicts_modality(modality: str, channel: str) -> bool:
    """Whether a scan of the DICOM ``modality`` ("CT", "MR", "PT") cannot be the ``channel``; False
    if either is unknown.
    """
    stated = "MR" if compact(channel) in ANY_MR else read(channel).modality
    kind = {"CT": "CT", "PT": "PET", "MR": "MR"}.get(modality, "")
    return bool(stated and kind) and stated != kind


def match_channels(given: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """For each name in ``wanted``, the index in ``given`` of its channel; None if there is none, or
    if several could be it.

    Channels have equal names, else equal identities, else the given one is a kind of the wanted
    one. A name or identity that occurs twice on either side is not matched, unless both lists are
    equal.

    >>> match_channels(["t1c", "t1n", "t2f", "t2w"], ["flair", "t1", "t1ce", "t2"])
    [2, 1, 0, 3]
    >>> match_channels(["T1 +C ax", "T1 +C sag", "T1"], ["t1", "t1ce"])
    [2, None]
    """
    if [n.lower() for n in given] == [n.lower() for n in wanted]:
        return list(range(len(given)))
    candidates = _candidates(given, wanted)
    held = [at for places in candidates.values() for at in places]
    return [
        places[0] if len(places) == 1 and held.count(places[0]) == 1 else None
        for places in candidates.values()
    ]


def candidates_of(given: Sequence[str], wanted: Sequence[str]) -> dict[int, list[int]]:
    """For each channel of ``wanted``, by index, that several of ``given`` could be, or one that
    could be several channels: these, by index.

    >>> candidates_of(["T1 +C ax", "T1 +C sag", "T1"], ["t1", "t1ce"])
    {1: [0, 1]}
    """
    matched = match_channels(given, wanted)
    return {n: at for n, at in _candidates(given, wanted).items() if at and matched[n] is None}


def _candidates(given: Sequence[str], wanted: Sequence[str]) -> dict[int, list[int]]:
    """For each channel of ``wanted`` those of ``given`` with the strongest evidence for it that are
    not the only ones of another channel by stronger evidence.
    """
    mine, theirs = [channel_of(name) for name in wanted], [channel_of(name) for name in given]
    tests: tuple[Callable[[int, int], bool], ...] = (
        lambda n, k: wanted[n].lower() == given[k].lower(),
        lambda n, k: mine[n] == theirs[k],
        lambda n, k: is_kind_of(theirs[k], mine[n]),
    )
    found: dict[int, list[int]] = {n: [] for n in range(len(wanted))}
    for test in tests:
        used = {at[0] for at in found.values() if len(at) == 1}
        for n in (n for n, at in found.items() if not at):
            found[n] = [k for k in range(len(given)) if k not in used and test(n, k)]
    return found
