"""Words for modalities in the names of files and channels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ....core.terms import is_known_channel, read
from ....core.terms.sequences import ANY_IMAGE, ANY_MR


def names_channel(key: str) -> bool:
    """Whether the key of a file names a sequence or modality, or begins with "image"."""
    return is_known_channel(key) or first_word(key) in ANY_IMAGE | ANY_MR


def first_word(key: str) -> str:
    """The first word of a key, in lower case."""
    return re.split(r"[_.-]", key.lower())[0]


def modality_of(channels: Iterable[object]) -> str:
    """CT or MR if the channel names show it, else ""."""
    names = [str(channel) for channel in channels]
    found = {"MR" if name.lower() in ANY_MR else read(name).modality for name in names}
    return "CT" if found == {"CT"} else "MR" if "MR" in found else ""
