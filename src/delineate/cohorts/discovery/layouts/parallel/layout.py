"""Folders of images next to folders of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .....core.errors import LayoutError
from .....core.manifest import Case, Source
from .....extend.findings import Draft
from .....extend.registering import layout
from ...drafts.content import content_of
from ...drafts.pairing import MOST_STRUCTURES, may_name_structure
from ...masks.tables import set_names_of_tables
from ...splits import SPLITS, with_free_training, words_of
from ...tree import (
    Tree,
    case_ids,
    is_raster,
    match_names,
    patient_from_id,
    patients_of_parts,
    source,
)
from ..modalities import modality_of
from ..structure_masks import set_masks
from .entries import Entries, image_entries, label_entries
from .roles import LABEL_WORD, MANUAL, SideFolder, is_image_folder, sides_of
from .several import masks_in, several_masks
from .volumes import volumes_of

FEW = 3  # files of a folder whose content is examined


@dataclass(frozen=True)
class _Row:
    """One case before its id is made unique; ``side`` is its folder of images."""

    name: str
    side: SideFolder
    images: tuple[Source, ...]
    label: tuple[Source, ...]


@layout("parallel-folders", definition="images/ID.*, labels/ID.*", tier="folders")
def parallel_folders(tree: Tree, root: Path) -> Draft | None:
    """``images|imagesTr|Data|TrainVolumes …`` next to ``labels|masks|Ground|TrainSegmentation …``,
    optionally in folders ``train``, ``val``, ``test``.
    """
    sides = sides_of(tree, root)
    images, labels = [s for s in sides if not s.is_label], [s for s in sides if s.is_label]
    # Both sides must exist; otherwise another layout may match.
    if not images or not labels:
        return _with_named_structures(tree, root)
    draft = Draft("parallel-folders", [])
    rows: list[_Row] = []
    # Images and labels belong together if their folders state the same.
    for side in images:
        partners = [one for one in labels if one.belongs_to(side)]
        partner = _only_partner(tree, partners, side, root, draft)
        rows += _paired(tree, draft, side, partner)
    if any(s.is_guess for s in sides) and 2 * sum(bool(row.label) for row in rows) < len(rows):
        return None
    _add_rows(draft, rows)
    # Other folders may contain further masks or channels, so a note lists them.
    used = {folder for s in sides for folder in (s.folder, *s.folder.parents)}
    others = [f.name for f in tree.folders(root) if f not in used]
    if others:
        draft.note(
            "unused",
            f"folder {', '.join(others)} was not used; name it in a description to use it",
            names=others,
        )
    set_names_of_tables(tree, root, draft)
    return draft if draft.cases else None


def _with_named_structures(tree: Tree, root: Path) -> Draft | None:
    """A folder of images next to folders that are named after structures (images, disc, cup)."""
    folders = [f for f in tree.folders(root) if tree.images(f)]
    images = [f for f in folders if is_image_folder(f)]
    structures = [f for f in folders if f not in images and _holds_structure(tree, f)]
    if len(images) != 1 or not structures:
        return None
    side = SideFolder(images[0], False, None)
    entries = image_entries(tree, side.folder, {})
    several = masks_in(tree, structures, entries.files)
    if several is None:
        return None
    draft = Draft("parallel-folders", [])
    _add_rows(draft, _with_several(draft, side, entries, *several))
    others = [f.name for f in tree.folders(root) if f not in (*images, *structures)]
    if others:
        draft.note("unused", f"folder {', '.join(others)} was not used", names=others)
    return draft if draft.cases else None


def _holds_structure(tree: Tree, folder: Path) -> bool:
    """Whether a folder is named after a structure, without a word for masks, and its first files
    are masks of one structure.
    """
    has_role = any(map(LABEL_WORD.match, words_of(folder.name))) or folder.name.lower() in SPLITS
    if has_role or not may_name_structure(folder.name):
        return False
    found = [content_of(path) for path in tree.images(folder)[:FEW]]
    are_binary = all(one.values <= 2 or one.values > MOST_STRUCTURES for one in found)
    return are_binary and {one.kind for one in found} - {""} == {"mask"}


def _add_rows(draft: Draft, rows: Sequence[_Row]) -> None:
    """Add the cases of all folders; an id that occurs in several gets what these state. The slices
    of a name in several views are of one patient.
    """
    held = Counter((row.side.split, row.name) for row in rows)
    views = [row.side.view if held[row.side.split, row.name] > 1 else "" for row in rows]
    stated = [
        "_".join(filter(None, (row.side.split, *([] if view else row.side.rest.split("/")))))
        for row, view in zip(rows, views, strict=True)
    ]
    names = [
        "_".join(filter(None, (row.name, view))) for row, view in zip(rows, views, strict=True)
    ]
    ids = case_ids(names, stated)
    parts = patients_of_parts(sorted({row.name for row in rows}))
    volumes = _volumes(rows)
    cases = []
    for case, name, row, view in zip(ids, names, rows, views, strict=True):
        patient = row.side.patient or volumes.get(row.side.folder, "")
        if view and not patient:
            own = patient_from_id(row.name) or parts.get(row.name, row.name)
            # A name that is in training and in test may be of two patients.
            patient = own if case == name else f"{row.side.split}_{own}"
        side = row.side
        cases.append(Case(case, patient, row.images, row.label, side.split, group=side.group))
    draft.cases = with_free_training(cases)


def _volumes(rows: Sequence[_Row]) -> dict[Path, str]:
    """The folders of images that are volumes of slices; {} if their patients are known."""
    images: dict[Path, list[Source]] = {}
    for row in rows:
        if row.side.patient or row.side.view or len(row.images) != 1:
            return {}
        images.setdefault(row.side.folder, []).append(row.images[0])
    return volumes_of(images)


def _only_partner(
    tree: Tree, partners: list[SideFolder], half: SideFolder, root: Path, draft: Draft
) -> SideFolder | None:
    """The label folder of ``half``; None if there is none.

    Raises:
        LayoutError: there are several, and none of them is named as manual outlines.
    """
    # A folder of outlines or tables next to one with masks contains no labels that are read here.
    partners = [p for p in partners if tree.images(p.folder)] or partners
    specific = [p for p in partners if MANUAL.match(p.folder.name)]
    if len(partners) > 1 and len(specific) == 1:
        others = [p.folder for p in partners if p is not specific[0]]
        draft.note(
            "unused",
            f"folder {', '.join(map(str, others))} was not used: the labels are in "
            f"{specific[0].folder.name}, so these are probably masks of the field of view; name it "
            "in a description to use it",
            names=[f.name for f in others],
        )
        return specific[0]
    if len(partners) > 1:
        names = ", ".join(p.folder.name for p in partners)
        raise LayoutError(
            f"several folders could contain the labels of {half.folder.name}: {names}; write a "
            "description (check --draft) that names one",
            path=root,
        )
    return partners[0] if partners else None


def _paired(tree: Tree, draft: Draft, half: SideFolder, partner: SideFolder | None) -> list[_Row]:
    """The cases of one folder of images and its folder of labels, if any."""
    labels = label_entries(tree, partner.folder) if partner else {}
    images = image_entries(tree, half.folder, labels)
    # Pair by name. If nothing matches, one error reports it for the whole folder.
    if partner and (several := several_masks(tree, partner.folder, images.files)):
        return _with_several(draft, half, images, *several)
    match = match_names(list(images.files), list(labels))
    if len(images.files) == len(labels) == 1:
        match = dict(zip(images.files, labels, strict=True))
    if labels and images.files and not match:
        draft.problem(
            "",
            "unpaired",
            f"no label in {partner and partner.folder} matches an image in {half.folder} by name",
        )
    _set_channels(draft, images)
    if partner and not labels:
        _report_unreadable(tree, draft, partner.folder)
    rows = []
    # An image without a label remains a case, without ground truth.
    for name, paths in images.files.items():
        # A missing label is normal in a test split, elsewhere it is a warning.
        label = labels.get(match.get(name, ""))
        if label is None and half.split != "test":
            draft.problem(
                name,
                "unpaired",
                f"no label in {partner.folder if partner else 'any folder'} belongs to "
                f"{paths[0].name}",
                "warning",
            )
        truth = _truth(tree, label, paths[0])
        rows.append(_Row(name, half, tuple(source(p) for p in paths), truth))
    _report_unmatched(draft, half.folder, labels, set(match.values()))
    return rows


def _report_unreadable(tree: Tree, draft: Draft, folder: Path) -> None:
    """Report a folder of labels whose files have no format of a mask."""
    endings = Counter(path.suffix or "no ending" for path in tree.files(folder))
    if endings:
        shown = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(3))
        words = f"no file in {folder} is a mask that can be read ({shown}); convert them to PNG, "
        draft.problem("", "unpaired", f"{words}TIFF or NIfTI", path=str(folder))


def _with_several(
    draft: Draft,
    half: SideFolder,
    images: Entries,
    masks: Mapping[str, tuple[Source, ...]],
    structures: Sequence[str],
) -> list[_Row]:
    """The cases of a folder of images that have a mask of each structure."""
    _set_channels(draft, images)
    known = [name for name, _ in draft.mapping.files]  # of another side of the split
    set_masks(draft, list(dict.fromkeys([*known, *structures])))
    rows = []
    for name, paths in images.files.items():
        if name not in masks and half.split != "test":
            words = f"no label belongs to {paths[0].name}"
            draft.problem(name, "unpaired", words, "warning")
        rows.append(_Row(name, half, tuple(map(source, paths)), masks.get(name, ())))
    return rows


def _set_channels(draft: Draft, images: Entries) -> None:
    """Set the channels: named by the files, or numbered; the largest number counts."""
    for name, lacking in images.incomplete.items():
        draft.problem(name, "missing", f"channel {', '.join(lacking)} is missing")
    most = max((len(paths) for paths in images.files.values()), default=0)
    if images.channels and draft.channels in (("image",), images.channels):
        draft.channels = images.channels
        draft.modality = modality_of(images.channels)
    elif most > len(draft.channels):
        draft.channels = tuple(f"channel {n}" for n in range(most))


def _report_unmatched(
    draft: Draft, images: Path, labels: Mapping[str, Path], matched: set[str]
) -> None:
    """Report each label that belongs to no image in the folder ``images``."""
    for name in labels:
        if name not in matched:
            draft.problem(
                name,
                "unpaired",
                f"label {labels[name].name} has no image in {images}",
                path=str(labels[name]),
            )


def _truth(tree: Tree, label: Path | None, image: Path) -> tuple[Source, ...]:
    """The label's source. Slices without geometry get that of the image: a folder's that of the
    folder, a picture's that of the DICOM file.
    """
    if label is None:
        return ()
    # Without DICOM headers, the slices have no position of their own.
    is_stack = label.is_dir() and not tree.is_dicom(label) and image.is_dir()
    is_slice = is_raster(label) and image.is_file() and tree.is_dicom(image.parent)
    return (source(label, like=image if is_stack or (is_slice and not is_raster(image)) else ""),)
