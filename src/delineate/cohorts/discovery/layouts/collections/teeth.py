"""Layouts of dental collections: ToothFairy, whose arrays state no spacing."""

from __future__ import annotations

import re
from pathlib import Path

from .....core.labels import LabelSet
from .....core.manifest import Case
from .....extend.findings import Draft
from .....extend.registering import layout
from ...tree import Tree, source

SPACING_MM = (0.3, 0.3, 0.3)  # of all its cone-beam CT, as published
AXES = "SPL"  # slices first, as the publishers' own programs read them
_PATIENT = re.compile(r"P\d+$")


@layout(
    "toothfairy", definition="Dataset/PN/data.npy, PN/gt_alpha.npy, gt_sparse.npy", tier="challenge"
)
def toothfairy(tree: Tree, root: Path) -> Draft | None:
    """ToothFairy 2023: an array of the scan in each folder, dense masks of some (``gt_alpha``) and
    sparse ones of all (``gt_sparse``), which are no truth of whole scans.
    """
    folders = [
        folder
        for place in (root, *(f for f in tree.folders(root) if f.name.lower() == "dataset"))
        for folder in tree.folders(place)
        if _PATIENT.match(folder.name) and (folder / "data.npy").is_file()
    ]
    dense = {folder: folder / "gt_alpha.npy" for folder in folders}
    if not any(path.is_file() for path in dense.values()):
        return None
    draft = Draft("toothfairy", [], ("CT",), LabelSet.from_names({1: "inferior alveolar canal"}))
    draft.modality = "CT"
    for folder, path in dense.items():
        label = (source(path, spacing_mm=SPACING_MM, axes=AXES),) if path.is_file() else ()
        image = source(folder / "data.npy", spacing_mm=SPACING_MM, axes=AXES)
        draft.cases.append(Case(folder.name, "", (image,), label))
    draft.problem(
        "",
        "spacing",
        "the arrays state neither spacing nor axes: the published 0.3 mm and the order (z, y, x) "
        "are used; state others in a description",
        "warning",
    )
    draft.note("unused", "sparse masks (gt_sparse.npy) mark some slices and were not used")
    return draft
