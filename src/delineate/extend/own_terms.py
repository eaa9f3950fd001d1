"""The package's own terms as parts: the tables of ``core.terms``, which has them already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.terms import anatomy, sequences
from .parts import Names
from .registering import terms


def _listed(table: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    return {
        identity: [name.strip() for name in names.split(",")] for identity, names in table.items()
    }


@terms("images", definition="Sequences, modalities and maps of public collections and hospitals.")
def images() -> Names:
    return Names(channels=_listed(sequences.WORDS))


@terms("organs", definition="Organs, vessels and bones of public collections.")
def organs() -> Names:
    return Names(structures=_listed(anatomy.ORGANS | anatomy.HEART | anatomy.LEVELS))


@terms("brain", definition="Structures of the brain: FreeSurfer, MALC, MRBrainS.")
def brain() -> Names:
    return Names(structures=_listed(anatomy.BRAIN))


@terms("lesions", definition="Tumours and their parts: BraTS, the Decathlon, KiTS, HECKTOR.")
def lesions() -> Names:
    return Names(structures=_listed(anatomy.LESIONS))
