"""The layouts of cohorts, a module for each family, and their recognition (``recognition.py``).

Each layout is one function ``(tree, root) -> Draft | None`` that registers itself in
``extend.LAYOUTS``. Layouts are grouped in tiers, from specific to general (``extend.parts.TIERS``).
"""

from . import (
    abdomen,
    bids,
    bodies,
    brains,
    case_folders,
    chaos,
    dataset_json,
    freesurfer,
    heart,
    lesions,
    parallel_folders,
    scans_only,
    structure_masks,
    suffix_pairs,
    thorax,
)
from .recognition import discover, find

__all__ = [
    "abdomen",
    "bids",
    "bodies",
    "brains",
    "case_folders",
    "chaos",
    "dataset_json",
    "discover",
    "find",
    "freesurfer",
    "heart",
    "lesions",
    "parallel_folders",
    "scans_only",
    "structure_masks",
    "suffix_pairs",
    "thorax",
]
