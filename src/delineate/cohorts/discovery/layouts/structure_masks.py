"""Layouts with one mask per structure: TotalSegmentator and 3D-IRCADb."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ....core.labels import LabelMapping, LabelSet
from ....core.manifest import Case, Split
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats.files import stem
from ..tables import rows_of
from ..tree import Tree, most, source


@layout("totalsegmentator", definition="ID/ct.*, ID/segmentations/", tier="challenge")
def totalsegmentator(tree: Tree, root: Path) -> Draft | None:
    """TotalSegmentator: ``CASE/ct.nii.gz`` (or ``mri.nii.gz``) with
    ``CASE/segmentations/STRUCTURE.nii.gz``, and optionally ``meta.csv`` with a split.

    The structures are those of all cases together; a missing file is an absent structure.
    """
    folders = [f for f in tree.folders(root) if tree.folder(f, "segmentations")]
    if not most(tree, root, folders):
        return None
    draft = Draft("totalsegmentator", [], ("CT",), modality="CT")
    splits = _totalsegmentator_splits(root)
    rows = []
    for folder in folders:
        # The image is found by name; other images in the folder are ignored.
        image = next(
            (p for p in tree.images(folder) if stem(p).lower() in ("ct", "mri", "mr", "image")),
            None,
        )
        if image is None:
            draft.problem(folder.name, "missing", f"no ct.nii.gz or mri.nii.gz in {folder}")
            continue
        # The MR edition has the same layout.
        if stem(image).lower().startswith("mr"):
            draft.channels, draft.modality = ("MR",), "MR"
        rows.append(
            (
                folder.name,
                source(image),
                tree.images(tree.folder(folder, "segmentations") or folder),
            )
        )
    if not rows:
        return None
    # The label values need the masks of all cases, so the cases are added in a second pass.
    structures = sorted({stem(p) for _, _, masks in rows for p in masks})
    set_masks(draft, structures)
    for case, image_source, masks in rows:
        draft.cases.append(
            Case(case, "", (image_source,), tuple(source(p) for p in masks), splits.get(case))
        )
    return draft


def _totalsegmentator_splits(root: Path) -> dict[str, Split]:
    """Case -> split from ``meta.csv`` (separated by commas or semicolons); {} without the file."""
    path = root / "meta.csv"
    if not path.is_file():
        return {}
    known: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
    return {
        row["image_id"]: known[row["split"]]
        for row in rows_of(path)
        if row.get("split") in known and row.get("image_id")
    }


def set_masks(draft: Draft, structures: list[str]) -> None:
    """Set one structure per mask: values 1, 2, ... in the order of ``structures``."""
    draft.labels = LabelSet.from_names(
        {v: _with_side(n) for v, n in enumerate(structures, start=1)}
    )
    draft.mapping = LabelMapping(files=tuple((n, v) for v, n in enumerate(structures, start=1)))


def _with_side(name: str) -> str:
    """A file stem as a name with a separate side ("leftkidney" -> "left kidney")."""
    return re.sub(r"^(left|right)(?=[a-z])", r"\1 ", name)


@layout("3d-ircadb", definition="ID/PATIENT_DICOM, ID/MASKS_DICOM", tier="challenge")
def ircad(tree: Tree, root: Path) -> Draft | None:
    """3D-IRCADb: ``PATIENT_DICOM`` with ``MASKS_DICOM/ORGAN``, in numbered folders or directly in
    the root.
    """
    alone = tree.folder(root, "PATIENT_DICOM") is not None
    # One patient per folder, or the patient in the root itself.
    folders = [
        f for f in ([root] if alone else tree.folders(root)) if tree.folder(f, "PATIENT_DICOM")
    ]
    if not (alone or most(tree, root, folders)):
        return None
    draft = Draft("3d-ircadb", [], ("CT",), modality="CT")
    rows = []
    for folder in folders:
        name = Path(os.path.abspath(folder)).name
        # Image and masks are DICOM series, possibly one folder deeper after unpacking.
        image = _inner(tree, tree.folder(folder, "PATIENT_DICOM"))
        masks = _inner(tree, tree.folder(folder, "MASKS_DICOM"))
        if image is None or not tree.is_dicom(image):
            draft.problem(name, "missing", f"no DICOM files in {folder / 'PATIENT_DICOM'}")
            continue
        organs = [f for f in tree.folders(masks) if tree.is_dicom(f)] if masks else []
        if not organs:
            draft.problem(
                name, "unpaired", "no folder MASKS_DICOM with one mask folder per organ", "warning"
            )
        rows.append((name, image, organs))
    # Patients have different organs, so all masks together define the structures.
    set_masks(draft, sorted({organ.name for _, _, organs in rows for organ in organs}))
    for name, image, organs in rows:
        draft.cases.append(Case(name, name, (source(image),), tuple(source(o) for o in organs)))
    return draft


def _inner(tree: Tree, folder: Path | None) -> Path | None:
    """The folder of the same name inside ``folder``, as unpacked archives often have; else
    ``folder``.
    """
    again = tree.folder(folder, folder.name) if folder else None
    return again or folder
