"""The layouts of cohorts, a module for each family, and their recognition (``recognition.py``).

Each layout is one function ``(tree, root) -> Draft | None`` that registers itself in
``extend.LAYOUTS``. Layouts are grouped in tiers, from specific to general (``extend.parts.TIERS``).
"""

from . import (
    bids,
    case_folders,
    collections,
    dataset_json,
    hospital,
    parallel_folders,
    pictures,
    scans_only,
    structure_masks,
    suffix_pairs,
)
from .recognition import discover, find

__all__ = [
    "bids",
    "case_folders",
    "collections",
    "dataset_json",
    "discover",
    "find",
    "hospital",
    "parallel_folders",
    "pictures",
    "scans_only",
    "structure_masks",
    "suffix_pairs",
]
