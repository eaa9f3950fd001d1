"""Sibling folders of one layout as one cohort: grades, classes, batches, sites, visits or patients.

The folder's name becomes the group of its cases, which stratifies the folds, or their patient, or
their split. Names decide; which it was is a note. Folders that may hold different data sets are not
joined.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ....core.manifest import Case, Split
from ....core.terms import is_known_channel
from ....extend.findings import Draft
from ....extend.registers import LAYOUTS
from ....formats.files import stem
from ..splits import split_in, with_free_training, without_split
from ..tree import MOST_SCANS, case_ids, is_raster

MOST_GROUPS = 20
# Words of folder names that state a group, also if the folders have numbers.
_GROUP_WORDS = re.compile(
    r"(?i)(?<![a-z])(batch|sub ?set|set|part|fold|site|cent(?:er|re)|hospital|clinic|institution"
    r"|vendor|scanner|manufacturer|class|grade|group|cohort|stage|type|domain|disc|disk)s?"
    r"(?![a-z])|^\d(?:\.\d)? ?t$|^\d+ ?- ?\d+$"
)
_DATA_SET = re.compile(r"(?i)^(?:task|dataset)_?\d+")


@dataclass(frozen=True)
class Sibling:
    """A folder below the root with the cohort that was found in it.

    Args:
        folder: the folder.
        draft: its cohort.
        names: of the folders on the way to it, without the part that all siblings share and without
            words for a split; "" where nothing is left.
        split: what the words for a split state.
    """

    folder: Path
    draft: Draft
    names: tuple[str, ...]
    split: Split

    @property
    def name(self) -> str:
        return "_".join(filter(None, self.names)) or self.folder.name


def siblings_of(root: Path, found: Sequence[tuple[Path, Draft]]) -> list[Sibling]:
    """The folders with their names relative to ``root`` and the split that these state."""
    paths = [folder.relative_to(root).parts for folder, _ in found]
    shared = 0
    while len({parts[: shared + 1] for parts in paths}) == 1 and shared + 1 < max(map(len, paths)):
        shared += 1
    siblings = []
    for (folder, draft), parts in zip(found, paths, strict=True):
        splits = [split for part in parts[shared:] if (split := split_in(part))]
        names = tuple(map(without_split, parts[shared:]))
        siblings.append(Sibling(folder, draft, names, splits[-1] if splits else None))
    return siblings


def difference(siblings: Sequence[Sibling]) -> str:
    """Why the siblings may be different data sets, as a clause; "" if they are one cohort."""
    drafts = [one.draft for one in siblings]
    if len({draft.layout for draft in drafts}) > 1:
        return "their layouts differ"
    is_described = LAYOUTS[drafts[0].layout].tier == "described"
    if is_described or any(_DATA_SET.match(one.folder.name) for one in siblings):
        return "each is a data set of its own"
    if len({draft.channels for draft in drafts}) > 1:
        return "their channels differ"
    if any(draft.labels != drafts[0].labels or draft.refusal for draft in drafts):
        return "their structures differ"
    if len({_endings(draft) for draft in drafts}) > 1:
        return "their file formats differ"
    if any(is_known_channel(name) for one in siblings for name in one.names):
        return "their names are modalities"
    return "the same names of cases occur in several of them" if _are_copies(siblings) else ""


def _are_copies(siblings: Sequence[Sibling]) -> bool:
    """Whether the same ids occur in folders whose names are words that state no group, such as
    "resampled": they may hold the same scans. Ids that only count cases show nothing.
    """
    if siblings[0].draft.counted:
        return False
    ids = Counter(case.id for one in siblings for case in one.draft.cases)
    names = [name for one in siblings for name in one.names if name]
    are_stated = all(_GROUP_WORDS.search(name) for name in names)
    meanings = set(_meanings(siblings))
    return max(ids.values()) > 1 and "group" in meanings <= {"group", "nothing"} and not are_stated


def _endings(draft: Draft) -> frozenset[str]:
    """The endings of the images, without compression (.nii and .nii.gz are one format)."""
    names = (Path(image.path).name for case in draft.cases for image in case.images)
    return frozenset(name[len(stem(name)) :].lower().removesuffix(".gz") for name in names)


def _meanings(siblings: Sequence[Sibling]) -> list[Literal["group", "patient", "nothing"]]:
    """What the names mean at each level below the shared folder."""
    depth = max(len(one.names) for one in siblings)
    meanings = [
        meaning_of({one.names[level] for one in siblings if len(one.names) > level})
        for level in range(depth)
    ]
    # Nobody has so many scans: such folders are parts of the cohort.
    fewest = min(len(one.draft.cases) for one in siblings)
    images = [image.path for one in siblings for case in one.draft.cases for image in case.images]
    if fewest > MOST_SCANS and not any(is_raster(Path(path)) for path in images):
        return ["group" if one == "patient" else one for one in meanings]
    return meanings


def meaning_of(names: set[str]) -> Literal["group", "patient", "nothing"]:
    """What sibling folders are: groups, patients, or nothing apart from splits.

    Names with a word for a group ("site 2") and names without digits (HGG, benign, COVID-19 and
    normal) are groups; many names, and names most of which have numbers, are patients.
    """
    names = names - {""}
    if len(names) < 2:
        return "nothing"
    if all(_GROUP_WORDS.search(name) for name in names):
        return "group"
    has_numbers = 2 * sum(bool(re.search(r"\d", name)) for name in names) > len(names)
    return "patient" if has_numbers or len(names) > MOST_GROUPS else "group"


def joined(siblings: Sequence[Sibling]) -> Draft:
    """One draft of all siblings, which must not have a ``difference``."""
    meanings = _meanings(siblings)
    first = siblings[0].draft
    draft = replace(first, cases=[], findings=[], names={}, colours={}, settings=[], called={})
    for one, ids in zip(siblings, _new_ids(siblings), strict=True):
        levels = list(zip(one.names, meanings, strict=False))
        group = "/".join(name for name, meaning in levels if meaning == "group")
        patient = _patient(levels)
        new_id = dict(zip([case.id for case in one.draft.cases], ids, strict=True))
        draft.cases += [
            replace(
                case,
                id=new_id[case.id],
                group=case.group or group,
                patient=_own_patient(one, case) or patient,
                split=case.split or one.split,
            )
            for case in one.draft.cases
        ]
        draft.findings += [
            replace(finding, case=new_id.get(finding.case, finding.case))
            for finding in one.draft.findings
        ]
        draft.names.update(one.draft.names)
        draft.colours.update(one.draft.colours)
        draft.called.update(one.draft.called)
        draft.settings += one.draft.settings
    draft.cases = with_free_training(draft.cases)
    _report(draft, siblings, meanings)
    return draft


def _patient(levels: Sequence[tuple[str, str]]) -> str:
    """The names as far as the first one of a patient: folders inside are visits or parts; "" if
    there is none.
    """
    for n, (name, meaning) in enumerate(levels, start=1):
        if name and meaning == "patient":
            return "_".join(filter(None, (one for one, _ in levels[:n])))
    return ""


def _own_patient(one: Sibling, case: Case) -> str:
    """The patient that the layout found; with the folder's name if it only counts patients."""
    return f"{one.folder.name}_{case.patient}" if one.draft.counted else case.patient


def _report(draft: Draft, siblings: Sequence[Sibling], meanings: Sequence[str]) -> None:
    words = [word for word in ("group", "patient") if word in meanings] or ["split"]
    counted = [f"{one.name} ({len(one.draft.cases)})" for one in siblings]
    draft.note(
        "siblings",
        f"{len(siblings)} folders of one layout are one cohort; their names are the "
        f"{' and the '.join(words)} of the cases: {', '.join(counted[:6])}"
        f"{' ...' if len(counted) > 6 else ''}",
        folders=[str(one.folder) for one in siblings],
    )


def _new_ids(siblings: Sequence[Sibling]) -> list[list[str]]:
    """The ids of the cases of each sibling. Those that occur in several get the folder's name, or
    are the folder's name if each folder has one case.
    """
    cases = [(case.id, one.name) for one in siblings for case in one.draft.cases]
    if len(cases) == len(siblings) and len({name for name, _ in cases}) < len(cases):
        return [[one.name] for one in siblings]
    rest = iter(case_ids([name for name, _ in cases], [prefix for _, prefix in cases]))
    return [[next(rest) for _ in one.draft.cases] for one in siblings]
