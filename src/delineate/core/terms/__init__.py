"""Terms: names of channels and structures in files, matched to identities.

``sequences`` and ``anatomy`` are the tables; ``extend.TERMS`` adds names and codes to them. Two
names mean the same if their identities are equal.
"""

from .adding import add, load_more_with
from .channels import (
    candidates_of,
    channel_of,
    contradicts_modality,
    is_kind_of,
    is_known_channel,
    match_channels,
    may_be,
    number_of_channel,
)
from .codes import (
    ABNORMAL_STRUCTURE,
    PRIVATE,
    SIDES,
    STRUCTURE,
    Code,
    Coding,
    add_code,
    coding_of,
)
from .reading import Reading, read
from .structures import (
    contradictions,
    identity_of,
    is_known_structure,
    names_structure,
    structure_of,
    values_by_identity,
)

__all__ = [
    "ABNORMAL_STRUCTURE",
    "Code",
    "Coding",
    "PRIVATE",
    "Reading",
    "SIDES",
    "STRUCTURE",
    "add",
    "add_code",
    "candidates_of",
    "channel_of",
    "coding_of",
    "contradictions",
    "contradicts_modality",
    "identity_of",
    "is_kind_of",
    "is_known_channel",
    "is_known_structure",
    "load_more_with",
    "match_channels",
    "may_be",
    "names_structure",
    "number_of_channel",
    "read",
    "structure_of",
    "values_by_identity",
]
