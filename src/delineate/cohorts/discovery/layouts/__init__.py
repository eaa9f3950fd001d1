"""The layouts of cohorts, a module for each family, and their recognition (``recognition.py``).

Each layout is one function ``(tree, root) -> Draft | None`` that registers itself in
``extend.LAYOUTS``. Layouts are grouped in tiers, from specific to general (``extend.parts.TIERS``).
"""

from . import (
    array_stacks,
    bids,
    case_folders,
    collections,
    dataset_json,
    exported,
    hospital,
    parallel,
    pictures,
    scans_only,
    structure_masks,
    suffix_pairs,
)
from .recognition import discover, find

__all__ = [
    "array_stacks",
    "bids",
    "case_folders",
    "collections",
    "dataset_json",
    "discover",
    "exported",
    "find",
    "hospital",
    "parallel",
    "pictures",
    "scans_only",
    "structure_masks",
    "suffix_pairs",
]
