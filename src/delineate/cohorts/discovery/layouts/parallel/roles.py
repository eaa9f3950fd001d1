"""Roles of folders: which hold images and which labels, and the split that their names state.

A name is a role, with a split before or after it ("imagesTr"); or it has a word for a role among
other words ("Oasis_Labels_Processed"), which the folder on the other side must have too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .....core.manifest import Split
from ...splits import SPLITS, split_in, without_split, words_of
from ...tree import Tree, is_raster
from ..siblings import meaning_of

# A folder name gives a role (images or labels) and, as a prefix or suffix, a split: "imagesTr".
_AFFIX = "|".join(sorted(SPLITS, key=len, reverse=True))
# Words that mark a folder of images, and a folder of labels.
_IMAGES = r"images?|imgs?|data|scans?|volumes?|inputs?|ct|mri?|raw|originals?"
_LABELS = (
    r"labels?|masks?|ground|ground[ _-]?truths?|gts?|seg|segs|segmentations?|annotations?|truths?"
    r"|targets?|(?:1st_?|first_?)?manuals?"
)
# DRIVE and CHASE have the field of view in mask/ and the vessels in 1st_manual/.
MANUAL = re.compile(r"(?i)(?:1st_?|first_?)?manuals?$")
_ROLE = re.compile(
    rf"(?i)^(?:(?P<before>{_AFFIX})[_-]?)?(?:(?P<image>{_IMAGES})|(?P<label>{_LABELS}))"
    rf"(?:[_-]?(?P<after>{_AFFIX}))?$"
)
# Among other words, only these mark a folder of images.
_IMAGE_WORD = re.compile(r"(?i)(?:images?|imgs?|ims?|data|scans?|volumes?)$")
LABEL_WORD = re.compile(rf"(?i)(?:{_LABELS})$")
# The form of the files, such as "8bit": these are copies if there is a folder without it.
_FORM = re.compile(r"(?i)[_-]?(?:(\d+)[_-]?bits?|png|jpe?g|tiff?|dicom|dcm|nii|nifti)(?=[_-]|$)")
# At the beginning or the end of a name.
_LABEL_AFFIX = re.compile(rf"(?i)^(?:{_LABELS})[ _-]+|[ _-]+(?:{_LABELS})$")
_DIGIT = re.compile(r"\d")
VIEWS = ("axial", "coronal", "sagittal", "transverse", "transversal")


@dataclass(frozen=True)
class SideFolder:
    """A folder of images or of labels.

    Args:
        folder: the folder.
        is_label: whether it holds labels.
        split: as its name or that of its parent states.
        rest: what else the name states; images and labels with the same rest belong together.
        form: the form of its files, if the name states one ("8bit").
        is_guess: the role is one word among others, so only names that pair show it.
        group, patient: of all its cases, if it is one of several folders that state them.
    """

    folder: Path
    is_label: bool
    split: Split
    rest: str = ""
    form: str = ""
    is_guess: bool = False
    group: str = ""
    patient: str = ""

    @property
    def view(self) -> str:
        """The view of its slices, if it is one of several folders of views; else ""."""
        last = self.rest.rpartition("/")[2]
        return last if last in VIEWS else ""

    def belongs_to(self, other: SideFolder) -> bool:
        return (self.split, self.rest) == (other.split, other.rest)


def sides_of(tree: Tree, root: Path) -> list[SideFolder]:
    """Folders of images and labels in the root and in folders named train, val or test; [] unless
    there are both.
    """
    places = _places(tree, root)
    # Names that are a role come first: other words may mean anything.
    for role in (_plain_role, _role_among_words):
        sides = [
            place.with_its_split(side)
            for place in places
            for folder in tree.folders(place.folder)
            if (side := role(folder)) is not None
        ]
        if role is _role_among_words:
            sides = [side for side in sides if _has_partner(side, sides)]
        if {side.is_label for side in sides} == {True, False}:
            return _with_inner_folders(tree, _without_copies(sides))
    return _with_inner_folders(tree, _named_after_images(tree.folders(root)))


@dataclass(frozen=True)
class _Place:
    """A folder with folders of images and labels, and what its name states."""

    folder: Path
    split: Split = None
    rest: str = ""

    def with_its_split(self, side: SideFolder) -> SideFolder:
        rest = "/".join(filter(None, (self.rest.lower(), side.rest)))
        return replace(side, split=self.split or side.split, rest=rest, group=self.rest)


def is_image_folder(folder: Path) -> bool:
    """Whether the name of a folder is a word for images."""
    side = _plain_role(folder)
    return side is not None and not side.is_label


def _places(tree: Tree, root: Path) -> list[_Place]:
    """The root and the folders that are named after a split: by one word (train/images), or by
    several (TrainDataset/images), if no other is named after the same split. Their parts may be one
    folder deeper (TestDataset/CVC-300/images).
    """
    inner = tree.folders(root)
    found = [
        _Place(root),
        *(_Place(f, SPLITS[n]) for f in inner if (n := f.name.lower()) in SPLITS),
    ]
    named = [(f, split_in(f.name)) for f in inner if f.name.lower() not in SPLITS]
    stated = Counter(place.split for place in found) + Counter(split for _, split in named)
    for folder, split in named:
        has_role = _plain_role(folder) or _role_among_words(folder)
        if split and stated[split] == 1 and not has_role and not _DIGIT.search(folder.name):
            found.append(_Place(folder, split))
    for place in found[1:]:
        parts = [f for f in tree.folders(place.folder) if any(map(_plain_role, tree.folders(f)))]
        if not any(map(_plain_role, tree.folders(place.folder))):
            found += [_Place(part, place.split, part.name) for part in parts]
    return found


def _named_after_images(folders: Sequence[Path]) -> list[SideFolder]:
    """Folders called like another one with a word for labels (``train`` and ``train_gt``): that one
    holds the images. A folder for another split may have no labels. [] if there are none.
    """
    by_name = {folder.name.lower(): folder for folder in folders}
    sides = {}
    for folder in folders:
        name = _LABEL_AFFIX.sub("", folder.name).lower()
        if name != folder.name.lower() and (images := by_name.get(name)):
            for one, is_label in ((images, False), (folder, True)):
                rest = without_split(images.name).lower()
                sides[one] = SideFolder(one, is_label, split_in(images.name), rest, is_guess=True)
    if sides and all(
        SPLITS.get(one.folder.name.lower()) for one in sides.values() if not one.is_label
    ):
        for name, folder in by_name.items():
            if name in SPLITS and folder not in sides:
                sides[folder] = SideFolder(folder, False, SPLITS[name], is_guess=True)
    return list(sides.values())


def _has_partner(side: SideFolder, sides: Sequence[SideFolder]) -> bool:
    return any(one.belongs_to(side) and one.is_label != side.is_label for one in sides)


def _plain_role(folder: Path) -> SideFolder | None:
    form = _FORM.search(folder.name)
    found = _ROLE.match(_FORM.sub("", folder.name))
    if found is None:
        return None
    split = SPLITS.get((found["before"] or found["after"] or "").lower())
    label = found["label"] is not None
    return SideFolder(folder, label, split, form=form[0].strip("_-") if form else "")


def _role_among_words(folder: Path) -> SideFolder | None:
    words = words_of(folder.name)
    label, image = (any(map(one.match, words)) for one in (LABEL_WORD, _IMAGE_WORD))
    if not label and not image:
        return None
    split = split_in(folder.name)
    rest = [
        word
        for word in words
        if not (LABEL_WORD.match(word) or _IMAGE_WORD.match(word) or (split and word in SPLITS))
    ]
    return SideFolder(folder, label, split, "_".join(rest), is_guess=True)


def _without_copies(sides: Sequence[SideFolder]) -> list[SideFolder]:
    """The folders without those that hold copies: of the folders for the same images or labels that
    state the form of their files, the one without a form counts, else that of most bits.
    """
    best: dict[tuple[bool, Split, str], SideFolder] = {}
    for side in sides:
        key = side.is_label, side.split, side.rest
        if key not in best or _rank(side) > _rank(best[key]):
            best[key] = side
    kept = set(best.values())
    return [side for side in sides if side in kept or not side.form]


def _rank(side: SideFolder) -> tuple[bool, int]:
    digits = re.search(r"\d+", side.form)
    return not side.form, int(digits[0]) if digits else 0


def _with_inner_folders(tree: Tree, sides: Sequence[SideFolder]) -> list[SideFolder]:
    """The folders, each replaced by those inside it if these hold several cases each: views,
    classes or patients with slices of their own. Otherwise a folder inside is one case.
    """
    empty = [s for s in sides if not tree.images(s.folder) and not tree.is_dicom(s.folder)]
    inner = [f for side in empty if not side.is_label for f in tree.folders(side.folder)]
    if not any(_holds_cases(tree, folder) for folder in inner):
        return list(sides)
    meaning = meaning_of({folder.name for folder in inner})
    # One folder inside each side has no meaning, whatever its name.
    alone = all(len(tree.folders(side.folder)) == 1 for side in empty)
    found = [side for side in sides if side not in empty]
    for side in empty:
        for folder in tree.folders(side.folder):
            name = folder.name
            found.append(
                replace(
                    side,
                    folder=folder,
                    rest=side.rest if alone else f"{side.rest}/{name.lower()}",
                    group=name if meaning == "group" and not alone else side.group,
                    patient=name if meaning == "patient" else "",
                )
            )
    return found


def _holds_cases(tree: Tree, folder: Path) -> bool:
    """Whether a folder of images holds several cases: pictures, which have no geometry as a stack,
    or several volumes; or is named after a view.
    """
    images = tree.images(folder)
    return (
        folder.name.lower() in VIEWS or len(images) > 1 or any(is_raster(path) for path in images)
    )
