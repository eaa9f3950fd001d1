"""Words for modalities in the names of files and channels."""

from __future__ import annotations

import re
from collections.abc import Iterable

# First words of a file's key, in lower case, that mark an MR sequence, and any modality.
MR_NAMES = {
    "flair",
    "t1",
    "t1ce",
    "t1c",
    "t1gd",
    "t1n",
    "t1w",
    "t1post",
    "t2",
    "t2w",
    "t2f",
    "pd",
    "dwi",
    "adc",
    "mr",
    "mri",
    "swi",
    "t2star",
}
KNOWN_CHANNELS = MR_NAMES | {
    "ct",
    "pet",
    "cta",
    "ctp",
    "image",
    "img",
    "imaging",
    "orig",
    "volume",
    "cbf",
    "cbv",
    "mtt",
    "tmax",
}


def first_word(key: str) -> str:
    """The first word of a key, in lower case; for a channel it is the modality."""
    return re.split(r"[_.-]", key.lower())[0]


def modality_of(channels: Iterable[object]) -> str:
    """CT or MR if the channel names show it, else ""."""
    kinds = {first_word(str(c).replace(" ", "_")) for c in channels}
    if kinds <= {"ct", "cta"}:
        return "CT"
    return "MR" if kinds & MR_NAMES else ""
