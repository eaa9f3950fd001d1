"""What the paths of a cohort state about its structures: a word in the names of the masks, or the
names that a published data set gives to its files.

A name of a region that images and masks share ("lung_001") states none: the mask may be of a tumour
in it. ``rules.derive`` decides whether the values of the masks fit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ....core.terms import is_known_structure, structure_of
from ....extend.findings import Draft
from ....formats.files import stem
from ..tree import Tree
from .published import CHAOS_LIVER, chaos_mr_labels, tables_for
from .tables import set_names_of_tables

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")
_MASK_WORD = re.compile(
    r"(?i)(?:seg|segs|segm|segmentations?|masks?|labels?|gt|ground|truths?|annotations?|manual"
    r"|contours?|rois?)$"
)
# Folders of images and of labels of published trees whose masks have one structure.
_TREES = (
    (re.compile(r"(?:Train|Test)Volumes"), re.compile(r"(?:Train|Test)Segmentation"), "liver"),
    (re.compile(r"Data(?:_?\d+bit)?"), re.compile(r"Ground"), "liver"),
)


def set_stated_names(draft: Draft, root: Path) -> None:
    """Set what the paths state about the structures of a draft that has no names: ``only`` and
    ``editions``, and the value ranges of a tree made of CHAOS.
    """
    pairs = [(case.images[0].path, case.label[0].path) for case in draft.cases if case.label]
    if draft.names or draft.colours or draft.called or not pairs:
        return
    for folder in _folders_above([path for pair in pairs for path in pair], root):
        set_names_of_tables(Tree(), folder, draft)
    if not (draft.names or draft.colours or any(len(case.label) > 1 for case in draft.cases)):
        _set_names_of_paths(draft, pairs, root)


def _set_names_of_paths(draft: Draft, pairs: Sequence[tuple[str, str]], root: Path) -> None:
    """Set what the names of images and masks state."""
    draft.editions = draft.editions or tables_for([case.id for case in draft.cases])
    images, masks = ([_parts(Path(one), root) for one in side] for side in zip(*pairs, strict=True))
    draft.only = _name_in_masks(images, masks)
    if draft.only:
        draft.editions = ()
    elif draft.editions:
        draft.only = _only_in_all(draft.editions)
    elif tree := _published_tree(images, masks):
        draft.only = tree
        if all("Ground" in parts for parts in masks):
            draft.ranges, draft.names = chaos_mr_labels(), dict(CHAOS_LIVER)


def _folders_above(paths: Sequence[str], root: Path) -> list[Path]:
    """The folder that holds all files, and those above it up to the root."""
    top, folder = Path(os.path.abspath(root)), Path(os.path.commonpath(paths))
    folders = [folder, *folder.parents] if folder.is_dir() else list(folder.parents)
    return [one for one in folders if one == top or top in one.parents]


def _parts(path: Path, root: Path) -> tuple[str, ...]:
    """The folders below the root and the name without its ending."""
    try:
        parts = path.relative_to(Path(root).absolute()).parts
    except ValueError:
        return (stem(path),)
    return (*parts[:-1], stem(path) if path.is_file() else parts[-1])


def _name_in_masks(images: Sequence[tuple[str, ...]], masks: Sequence[tuple[str, ...]]) -> str:
    """The structure that the paths of all masks name and those of the images do not; or that is
    next to a word for masks ("liver-seg001"); "" if there is none, or several.
    """
    found: set[str] | None = None
    for image, mask in zip(images, masks, strict=True):
        elsewhere = {word for part in image for word in _words(part)}
        own = {
            name
            for part in mask
            for name, next_to_mask in _structures_in(_words(part))
            if next_to_mask or not set(name.split()) <= elsewhere
        }
        found = own if found is None else found & own
    longest = sorted(found or (), key=len)
    # "liver tumour" contains "liver" and "tumour", and says more.
    if longest and all(set(one.split()) <= set(longest[-1].split()) for one in longest):
        return longest[-1]
    return ""


def _words(part: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(part)]


def _structures_in(words: Sequence[str]) -> Iterable[tuple[str, bool]]:
    """The runs of words that are names of structures, and whether a word for masks is next to
    each.
    """
    for start in range(len(words)):
        for stop in range(start + 1, min(start + 4, len(words)) + 1):
            name = " ".join(words[start:stop])
            around = [*words[max(0, start - 1) : start], *words[stop : stop + 1]]
            if len(name) > 3 and is_known_structure(name):
                yield name, any(map(_MASK_WORD.match, around))


def _only_in_all(tables: Sequence[Mapping[int, str]]) -> str:
    """The name of value 1 if every table has it and all other names are parts of it."""
    firsts = {table.get(1, "") for table in tables}
    first = firsts.pop()
    parts = all(structure_of(first) in structure_of(n) for t in tables for n in t.values())
    return first if first and not firsts and parts else ""


def _published_tree(images: Sequence[tuple[str, ...]], masks: Sequence[tuple[str, ...]]) -> str:
    """The structure of a published tree, by its folders; "" for any other tree."""
    for of_images, of_masks, name in _TREES:
        if all(
            any(one.fullmatch(part) for part in parts[:-1])
            for one, side in ((of_images, images), (of_masks, masks))
            for parts in side
        ):
            return name
    return ""
