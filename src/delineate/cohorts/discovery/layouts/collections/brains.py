"""Layouts of brain collections: OASIS-1."""

from __future__ import annotations

import re
from pathlib import Path

from .....core.labels import LabelSet
from .....core.manifest import Case
from .....extend.findings import Draft
from .....extend.registering import layout
from .....formats.files import stem
from ...masks.published import TISSUES
from ...tree import Tree, source


@layout("oasis-1", definition="OAS1_ID/PROCESSED, OAS1_ID/FSL_SEG", tier="challenge")
def oasis1(tree: Tree, root: Path) -> Draft | None:
    """OASIS-1: ``OAS1_nnnn_MRm/PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img`` with
    ``FSL_SEG/*_fseg.img``, optionally in folders ``disc1`` ...
    """
    shape = re.compile(r"^OAS1_\d{4}_MR\d+$")
    # The archive has one folder per disc; the sessions may also be directly in the root.
    places = [
        root,
        *(f for f in tree.folders(root) if re.match(r"(?i)^(oasis_cross.*_)?disc\d+$", f.name)),
    ]
    folders = [f for place in places for f in tree.folders(place) if shape.match(f.name)]
    if not folders:
        return None
    draft = Draft(
        "oasis-1",
        [],
        ("T1",),
        LabelSet.from_names(TISSUES),
        modality="MR",
    )
    for folder in folders:
        # Image and label are both in Talairach space (T88), so they have the same grid.
        image = _image_ending(tree, folder / "PROCESSED" / "MPRAGE" / "T88_111", "_t88_masked_gfc")
        label = _image_ending(tree, folder / "FSL_SEG", "_fseg")
        if image is None:
            draft.problem(
                folder.name, "missing", "no PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img"
            )
            continue
        if label is None:
            draft.problem(folder.name, "unpaired", "no FSL_SEG/*_fseg.img", "warning")
        # The patient is the id without the session: MR1 and MR2 are the same person.
        draft.cases.append(
            Case(
                folder.name,
                folder.name.rsplit("_", 1)[0],
                (source(image),),
                (source(label),) if label else (),
            )
        )
    return draft


def _image_ending(tree: Tree, folder: Path, ending: str) -> Path | None:
    """The first image in ``folder`` whose stem ends with ``ending``; None if there is none."""
    return (
        next((p for p in tree.images(folder) if stem(p).endswith(ending)), None)
        if folder.is_dir()
        else None
    )
