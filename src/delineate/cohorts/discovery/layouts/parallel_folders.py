"""Folders of images next to folders of labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....core.errors import DelineateError, LayoutError
from ....core.manifest import Case, Source, Split
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats.files import stem
from ..names import read_label_colours, read_label_names
from ..splits import SPLITS, with_free_training
from ..tree import Tree, case_ids, match_names, source
from .scans_only import entries_of

# A folder name gives a role (images or labels) and, as a prefix or suffix, a split: "imagesTr".
_AFFIX = "|".join(sorted(SPLITS, key=len, reverse=True))
# Words that mark a folder of images, and a folder of labels.
_IMAGES = r"images?|imgs?|data|scans?|volumes?|inputs?|ct|mri?|raw"
_LABELS = (
    r"labels?|masks?|ground|ground_?truths?|gt|seg|segs|segmentations?|annotations?|truths?"
    r"|targets?|(?:1st_?|first_?)?manuals?"
)
# DRIVE and CHASE have the field of view in mask/ and the vessels in 1st_manual/.
_MANUAL = re.compile(r"(?i)(?:1st_?|first_?)?manuals?$")
_ROLE = re.compile(
    rf"(?i)^(?:(?P<before>{_AFFIX})[_-]?)?(?:(?P<image>{_IMAGES})|(?P<label>{_LABELS}))"
    rf"(?:[_-]?(?P<after>{_AFFIX}))?$"
)


@dataclass(frozen=True)
class _SideFolder:
    """A folder of images or of labels, with the split given by its name or its parent's name."""

    folder: Path
    is_label: bool
    split: Split


# Name, split, images and label of one case.
_Row = tuple[str, Split, tuple[Source, ...], tuple[Source, ...]]


@layout("parallel-folders", definition="images/ID.*, labels/ID.*", tier="folders")
def parallel_folders(tree: Tree, root: Path) -> Draft | None:
    """``images|imagesTr|Data|TrainVolumes …`` next to ``labels|masks|Ground|TrainSegmentation …``,
    optionally in folders ``train``, ``val``, ``test``.
    """
    halves = _halves(tree, root)
    images, labels = [h for h in halves if not h.is_label], [h for h in halves if h.is_label]
    # Both sides must exist; otherwise another layout may match.
    if not images or not labels:
        return None
    draft = Draft("parallel-folders", [])
    rows: list[_Row] = []
    # Images and labels belong together if their folders have the same split.
    for half in images:
        partners = [h for h in labels if h.split == half.split]
        partner = _only_partner(tree, partners, half, root, draft)
        rows += _paired(tree, draft, half, partner)
    _add_rows(draft, rows)
    # Other folders may contain further masks or channels, so a note lists them.
    used = {h.folder for h in halves} | {h.folder.parent for h in halves}
    others = [f.name for f in tree.folders(root) if f not in used]
    if others:
        draft.note(
            "unused",
            f"folder {', '.join(others)} was not used; name it in a description to use it",
            names=others,
        )
    draft.names = _value_names(tree, root, draft)
    draft.colours = _colour_names(tree, root, draft)
    return draft if draft.cases else None


def _add_rows(draft: Draft, rows: Sequence[_Row]) -> None:
    """Add the cases of all folders; an id that occurs in several splits gets the split's name."""
    ids = case_ids([name for name, *_ in rows], [str(split or "") for _, split, *_ in rows])
    draft.cases = with_free_training(
        Case(case, "", image, label, split)
        for case, (_, split, image, label) in zip(ids, rows, strict=True)
    )


def _halves(tree: Tree, root: Path) -> list[_SideFolder]:
    """Folders of images and labels in the root and in folders named train, val or test."""
    found = []
    # The split is given by the parent folder (train/images) or by the name (imagesTr).
    places: list[tuple[Path, Split]] = [
        (root, None),
        *((f, SPLITS[f.name.lower()]) for f in tree.folders(root) if f.name.lower() in SPLITS),
    ]
    for place, split in places:
        for folder in tree.folders(place):
            role = _ROLE.match(folder.name)
            if role:
                affix = role["before"] or role["after"]
                found.append(
                    _SideFolder(
                        folder,
                        role["label"] is not None,
                        split or SPLITS.get((affix or "").lower()),
                    )
                )
    return found


def _only_partner(
    tree: Tree, partners: list[_SideFolder], half: _SideFolder, root: Path, draft: Draft
) -> _SideFolder | None:
    """The label folder of ``half``; None if there is none.

    Raises:
        LayoutError: there are several, and none of them is named as manual outlines.
    """
    # A folder of outlines or tables next to one with masks contains no labels that are read here.
    partners = [p for p in partners if tree.images(p.folder)] or partners
    specific = [p for p in partners if _MANUAL.match(p.folder.name)]
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


def _paired(tree: Tree, draft: Draft, half: _SideFolder, partner: _SideFolder | None) -> list[_Row]:
    """The cases of one folder of images and its folder of labels, if any."""
    labels = _label_entries(tree, partner.folder) if partner else {}
    images = entries_of(tree, half.folder, labels)
    # Pair by name. If nothing matches, one error reports it for the whole folder.
    match = match_names(list(images), list(labels))
    if labels and images and not match:
        draft.problem(
            "",
            "unpaired",
            f"no label in {partner and partner.folder} matches an image in {half.folder} by name",
        )
    rows = []
    # An image without a label remains a case, without ground truth.
    for name, paths in images.items():
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
        rows.append(
            (name, half.split, tuple(source(p) for p in paths), _truth(tree, label, paths[0]))
        )
    _report_unmatched(draft, half.folder, labels, set(match.values()))
    # Cases may have different numbers of channels; the largest number counts.
    counts = {len(r[2]) for r in rows}
    if counts and (most := max(counts)) > 1:
        draft.channels = tuple(f"channel {n}" for n in range(most))
    return rows


def _label_entries(tree: Tree, folder: Path) -> dict[str, Path]:
    """Name -> label: the image files in ``folder``, or else its folders of slices."""
    return {stem(p): p for p in tree.images(folder)} or {
        f.name: f for f in tree.folders(folder) if tree.is_dicom(f) or tree.images(f)
    }


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
    """The label's source. A folder of slices without geometry gets that of the image's folder."""
    if label is None:
        return ()
    # Without DICOM headers, the slices have no position of their own.
    bare = label.is_dir() and not tree.is_dicom(label) and image.is_dir()
    return (source(label, like=image if bare else ""),)


def _value_names(tree: Tree, root: Path, draft: Draft) -> dict[int, str]:
    """Value -> name from ``labels.csv`` (or .tsv, .yaml, .json) next to the folders; {} if there is
    no such file.
    """
    for path in tree.files(root):
        # A file that cannot be read is a warning; the next one may work.
        if path.name.lower() in (
            "labels.csv",
            "labels.tsv",
            "labels.yaml",
            "labels.yml",
            "labels.json",
        ):
            try:
                names = {
                    label.value: " ".join(label.name.split()) for label in read_label_names(path)
                }
            except DelineateError as error:
                if not (path.suffix == ".csv" and read_label_colours(path)):
                    draft.problem("", "names", str(error), "warning")
                continue
            draft.note("names", f"structure names are read from {path.name}", path=str(path))
            return names
    return {}


def _colour_names(tree: Tree, root: Path, draft: Draft) -> dict[int, str]:
    """Colour code -> name from ``labels.csv`` or ``class_dict.csv`` next to the folders; {} if
    neither names colours.
    """
    for path in tree.files(root):
        if path.name.lower() in ("labels.csv", "class_dict.csv", "classes.csv"):
            try:
                if found := read_label_colours(path):
                    draft.note("names", f"colours of structures are read from {path.name}")
                    return found
            except DelineateError as error:
                draft.problem("", "names", str(error), "warning")
    return {}
