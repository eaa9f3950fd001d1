"""Scans without masks: DICOM folders and plain images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ....core.errors import LayoutError
from ....core.manifest import Case, Source
from ....extend.findings import Draft
from ....extend.registering import layout
from ....extend.registers import LAYOUTS
from ....formats import dicom
from ....formats.files import stem
from ..tree import Tree, group_channels, source
from .dicom_labels import labelled_in

# Folder names that are the same for every patient.
NAMELESS = {
    "dicom_anon",
    "patient_dicom",
    "dicom",
    "dcm",
    "image",
    "images",
    "series",
    "scan",
}


@layout("dicom", definition="a tree of DICOM series", tier="files")
def dicom_folder(tree: Tree, root: Path) -> Draft | None:
    """A folder of DICOM files: each readable series is a case."""
    if not tree.is_dicom(root):
        return None
    # The case gets the folder's name, or the parent's if the folder's name is a general one.
    place = Path(os.path.abspath(root))
    is_nameless = place.name.lower() in NAMELESS and place.parent.name
    draft = Draft("dicom", [])
    _series(tree, draft, root, place.parent.name if is_nameless else place.name)
    # Nothing else is here: the reasons are those for which no series can be read.
    is_alone = not tree.folders(root) and not tree.images(root)
    return draft if draft.cases or is_alone else None


def series_in(tree: Tree, place: Path, name: str) -> Draft:
    """The series of an archive as cases: those with labels, or else all; see ``_series``."""
    if (labelled := labelled_in(tree, place)) is not None:
        return labelled
    draft = Draft("dicom", [])
    _series(tree, draft, place, name)
    unused = [path for path, _ in tree.dicom_objects(place)[1] if dicom.kind_of(path)]
    if unused:
        words = (
            f"{len(unused)} DICOM objects with labels are not used, because less than half of the "
            f"patients have one that belongs to a series (such as {unused[0]})"
        )
        draft.note("unused", words, names=[str(path) for path in unused])
    return draft


@layout("plain-images", definition="images without masks", tier="files")
def plain_images(tree: Tree, root: Path) -> Draft | None:
    """Images without ground truth, for prediction: each image file or DICOM folder is a case."""
    draft = Draft("plain-images", [])
    entries = entries_of(tree, root) if tree.images(root) else {}
    for name, paths in entries.items():
        draft.cases.append(Case(name, "", tuple(source(p) for p in paths)))
    # Image files come first. DICOM folders count only if they are most of the folders.
    series = [f for f in tree.folders(root) if tree.is_dicom(f)]
    # Folders of an image and its mask each.
    if not entries and any(LAYOUTS["suffix-pairs"].find(tree, folder) for folder in series[:1]):
        return None
    if not entries and 2 * len(series) >= len(tree.folders(root)):
        for folder in series:
            _series(tree, draft, folder, folder.name)
    if not draft.cases:
        return None
    # More than one file per case means channels without names.
    counts = {len(c.images) for c in draft.cases}
    draft.channels = (
        tuple(f"channel {n}" for n in range(max(counts))) if max(counts) > 1 else ("image",)
    )
    return draft


def _series(tree: Tree, draft: Draft, folder: Path, name: str) -> None:
    """Add each readable series of a DICOM folder as a case called ``name`` (with a number if there
    are several); report the others.
    """
    found, others = tree.dicom_objects(folder)
    if not found:
        kinds = ", ".join(sorted({what for _, what in others})) or "no DICOM image"
        draft.problem(name, "refused", f"no series can be read in {folder} (found: {kinds})")
    for path, what in others:
        if what.startswith(dicom.DAMAGED):
            draft.note("skipped", f"{path} is left out: {what}", path=str(path))
    judged = [(one, dicom.problem_of(one)) for one in found]
    usable = [one for one, problem in judged if not problem]
    _refused([(one, problem) for one, problem in judged if problem], draft, name, bool(usable))
    for n, series in enumerate(usable):
        case = name if len(usable) == 1 else _case_of(series, name, n)
        case = case if case not in {c.id for c in draft.cases} else f"{case}_{n + 1}"
        # A folder with a single series needs no series id to be read.
        uid = "" if len(found) == 1 else series.id
        draft.cases.append(
            Case(case, series.patient_id, (Source(os.path.abspath(folder), series=uid),))
        )
        draft.modality = (
            series.modality if series.modality in ("CT", "MR", "PT") else draft.modality
        )


def _case_of(series: dicom.Series, name: str, n: int) -> str:
    """The id of one of several series: ``name`` with its number, or its position if it has none; of
    a 2-D image the name of its file, which a person knows.
    """
    if series.planes[0].is_flat and len(series.files) == 1:
        return "_".join(filter(None, (stem(series.files[0]), series.part)))
    return "_".join(filter(None, (name, series.number or f"{n + 1}", series.part)))


def _refused(
    refused: Sequence[tuple[dicom.Series, str]], draft: Draft, name: str, has_usable: bool
) -> None:
    """Report series that cannot be read. A damaged one is an error by itself; others are only if
    they leave the folder without a case, as localisers and reports share it with scans.
    """
    left = []
    for one, problem in refused:
        if one.is_damaged and has_usable:
            message = f"series {one.title} cannot be read: {problem}"
            draft.problem(f"{name}_{one.number or one.uid}", "refused", message)
        else:
            left.append((one.title, problem))
    if left:
        message = f"{len(left)} series cannot be read: {dicom.table(left)}"
        draft.problem(name, "refused", message, "warning" if has_usable else "error")


def entries_of(tree: Tree, folder: Path | None, known: Iterable[str] = ()) -> dict[str, list[Path]]:
    """Name -> files (one per channel): image files, or else folders of slices.

    Args:
        tree: the folders.
        folder: the folder of images; None gives {}.
        known: the names of the labels; empty if there are none.

    Raises:
        LayoutError: two image files differ only in their extension.
    """
    if folder is None:
        return {}
    images = tree.images(folder)
    # First choice: several files per case, numbered by channel.
    groups = _channel_groups(images, set(known))
    if groups:
        return groups
    # Second choice: one file per case. Third choice: one folder of slices per case.
    entries = {stem(p): [p] for p in images}
    if len(entries) < len(images):
        raise LayoutError("two image files differ only in their extension", path=folder)
    return entries or {
        f.name: [f] for f in tree.folders(folder) if tree.is_dicom(f) or tree.images(f)
    }


def _channel_groups(images: Sequence[Path], known: set[str]) -> dict[str, list[Path]]:
    """Files ``CASE_0000``, ``CASE_0001`` ... as case -> channels, if the numbers count channels and
    not cases; else {}.

    The numbers count channels if every case has the same ones, including 0000, and a label is named
    CASE. If there are no labels, every CASE must contain a digit (otherwise "case_0000",
    "case_0001" ... are cases).
    """
    groups = group_channels(images)
    # Every case must have the same channel numbers, including 0000.
    alike = len({tuple(g) for g in groups.values()}) == 1 and all(
        "0000" in g for g in groups.values()
    )
    # The labels decide: CASE.nii.gz next to CASE_0000.nii.gz shows that the number is a channel.
    count_channels = (
        bool(known & set(groups)) if known else all(re.search(r"\d", case) for case in groups)
    )
    return (
        {case: list(channels.values()) for case, channels in groups.items()}
        if groups and alike and count_channels
        else {}
    )
