"""The Brain Imaging Data Structure: raw images, and masks in derivatives or next to the images.

A name such as ``sub-01_ses-2_run-1_T1w`` has entities (key-value pairs) and a suffix. A mask
belongs to the image of the same subject and session if no entity that both have differs. Names of
label values come from ``dseg.tsv`` files, groups and splits from ``participants.tsv``.
Source: BIDS 1.10, https://bids-specification.readthedocs.io.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ....core.errors import DelineateError, LayoutError
from ....core.manifest import Case
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats import files
from ....formats.files import stem
from ..completion import FEW
from ..splits import SPLITS, with_free_training
from ..tables import rows_of
from ..tree import Tree, is_raster, source
from .modalities import modality_of
from .structure_masks import set_masks

_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+$")
_MASK = re.compile(r"(?i)(dseg|mask|msk|seg|label|lesion|roi|tumou?r|gmseg)(-[A-Za-z0-9]+)?$")
# Time series, field maps and the like are no channels of an anatomical image.
_NO_CHANNEL = {"bold", "sbref", "asl", "m0scan", "epi", "fieldmap", "phasediff", "probseg", "meg"}
# Entities that name a mask, not the image that it belongs to.
_OF_MASK = {"desc", "label", "seg", "res", "den", "atlas", "space"}
# Entities that separate images of one kind, so that they are part of a channel's name.
_OF_CHANNEL = ("acq", "ce", "rec", "dir", "echo", "part", "inv", "mod", "desc")
# Values of the entity "space" that mean the raw image itself.
_RAW_SPACES = {"", "orig", "native", "individual", "scanner", "raw", "subject"}
_GROUPS = (
    "group",
    "diagnosis",
    "dx",
    "pathology",
    "disease",
    "site",
    "centre",
    "center",
    "scanner",
)


@dataclass(frozen=True)
class _File:
    """A file with its entities and its suffix; ``of`` is the image suffix that a mask names."""

    path: Path
    entities: dict[str, str]
    suffix: str
    pipeline: str = ""
    of: str = ""

    @property
    def session(self) -> tuple[str, str]:
        return self.entities.get("sub", ""), self.entities.get("ses", "")

    @property
    def space(self) -> str:
        space = self.entities.get("space", "")
        return "" if space.lower() in _RAW_SPACES or space == self.of else space

    @property
    def channel(self) -> str:
        parts = [f"{k}-{self.entities[k]}" for k in _OF_CHANNEL if k in self.entities]
        return "_".join([*parts, self.suffix])

    @property
    def kind(self) -> str:
        """What masks of different subjects have in common, apart from one structure's label."""
        parts = [f"{k}-{v}" for k, v in self.entities.items() if k in ("desc", "seg", "atlas")]
        return "/".join(filter(None, [self.pipeline, "_".join([*parts, self.suffix])]))


@layout(
    "bids",
    definition="sub-ID/ses-N/anat/*_T1w.nii.gz, derivatives/NAME/sub-ID/*_dseg.nii.gz",
    tier="folders",
)
def bids(tree: Tree, root: Path) -> Draft | None:
    """BIDS: subjects in the root or in ``rawdata``; masks in ``derivatives`` or next to the images.

    Raises:
        LayoutError: there are masks of several kinds, and none of them is called manual.
    """
    raw = tree.folder(root, "rawdata") or root
    images, masks = _sorted(_files(tree, raw, ""))
    derivatives = tree.folder(root, "derivatives")
    if derivatives is not None:
        for pipeline in _pipelines(tree, derivatives):
            name = "" if pipeline == derivatives else pipeline.name
            derived, found = _sorted(_files(tree, pipeline, name))
            masks += found
            images += [one for one in derived if one.space]
    if not images or not masks:
        return None
    masks = _of_one_kind(masks, root)
    draft = Draft("bids", [])
    _add_cases(draft, images, masks)
    if not draft.cases:
        return None
    draft.modality = modality_of(draft.channels)
    _name_values(tree, root, draft, masks)
    _read_participants(root, raw, draft)
    return draft


# ---- files and their entities ----


def _files(tree: Tree, base: Path, pipeline: str) -> Iterator[_File]:
    """The images below the subjects of one folder, at most four folders deep."""
    for subject in tree.folders(base):
        if not _SUBJECT.match(subject.name):
            continue
        level = [subject]
        for _ in range(4):
            for folder in level:
                for path in tree.images(folder):
                    if not is_raster(path):
                        yield _parsed(path, subject.name.removeprefix("sub-"), pipeline)
            level = [inner for folder in level for inner in tree.folders(folder)]


def _parsed(path: Path, subject: str, pipeline: str) -> _File:
    words = stem(path).split("_")
    entities = {"sub": subject}
    plain = []
    for word in words[:-1]:
        key, dash, value = word.partition("-")
        if dash:
            entities[key] = value
        else:
            plain.append(word)
    return _File(path, entities, words[-1], pipeline, plain[-1] if plain else "")


def _sorted(found: Iterable[_File]) -> tuple[list[_File], list[_File]]:
    """Images and masks. A mask of the brain that a program made is neither."""
    images, masks = [], []
    for one in found:
        if not _MASK.match(one.suffix):
            if one.suffix not in _NO_CHANNEL:
                images.append(one)
        elif not (one.entities.get("desc") == "brain" and one.suffix == "mask"):
            masks.append(one)
    return images, masks


def _pipelines(tree: Tree, derivatives: Path) -> list[Path]:
    """The folders with subjects: ``derivatives`` itself, or those in it."""
    if any(_SUBJECT.match(folder.name) for folder in tree.folders(derivatives)):
        return [derivatives]
    return tree.folders(derivatives)


def _of_one_kind(masks: Sequence[_File], root: Path) -> list[_File]:
    """The masks of the kind to use: the only one, else the only manual one.

    Raises:
        LayoutError: there are several.
    """
    kinds = Counter(one.kind for one in masks)
    usable = [kind for kind in kinds if len(kinds) == 1 or "manual" in kind.lower()]
    if len(usable) != 1:
        shown = ", ".join(f"{kind} ({count} files)" for kind, count in kinds.most_common(6))
        raise LayoutError(
            f"the derivatives have masks of several kinds: {shown}; write a description that names "
            "one, such as label: derivatives/NAME/sub-*/**/{id}_desc-manual_dseg.nii.gz",
            path=root,
        )
    return [one for one in masks if one.kind == usable[0]]


# ---- cases ----


def _add_cases(draft: Draft, images: Sequence[_File], masks: Sequence[_File]) -> None:
    """A case for each session, or for each mask of a session with several (runs)."""
    structures = sorted({m.entities["label"] for m in masks if "label" in m.entities})
    one_each = len(structures) > 1
    cases = [
        case
        for session in dict.fromkeys(one.session for one in [*images, *masks])
        for case in _of_session(
            session,
            [one for one in images if one.session == session],
            [one for one in masks if one.session == session],
            one_each,
        )
    ]
    draft.channels = _channels(draft, [(one.images, one.masks) for one in cases if one.masks])
    for one in cases:
        _add_case(draft, one)
    if one_each:
        _name_by_label(draft, masks)
    elif structures:
        draft.names = {1: structures[0]}
    draft.cases = with_free_training(draft.cases)


@dataclass(frozen=True)
class _Scan:
    """The masks of one case, and all images that they could belong to."""

    case: str
    patient: str
    images: list[_File]
    masks: list[_File]


def _of_session(
    session: tuple[str, str], images: list[_File], masks: list[_File], one_each: bool
) -> list[_Scan]:
    """One scan with the masks of all structures, or one for each mask."""
    groups = [masks] if one_each or not masks else [[mask] for mask in masks]
    return [
        _Scan(
            _case_id(session, group, len(groups)),
            f"sub-{session[0]}",
            [image for image in images if all(_belongs(mask, image) for mask in group)],
            group,
        )
        for group in groups
    ]


def _belongs(mask: _File, image: _File) -> bool:
    """Whether the mask can be of this image: the same space, no entity differs, and its suffix if
    the mask names one.
    """
    if mask.space != image.space or (mask.of and mask.of != image.suffix):
        return False
    both = (set(mask.entities) & set(image.entities)) - _OF_MASK
    return all(mask.entities[k] == image.entities[k] for k in both)


def _case_id(session: tuple[str, str], masks: Sequence[_File], count: int) -> str:
    """Subject and session, with the entities that separate the masks if a session has several."""
    name = f"sub-{session[0]}" + (f"_ses-{session[1]}" if session[1] else "")
    if count < 2:
        return name
    rest = [f"{k}-{v}" for k, v in masks[0].entities.items() if k not in _OF_MASK | {"sub", "ses"}]
    return "_".join([name, *rest])


def _channels(draft: Draft, labelled: Sequence[tuple[list[_File], list[_File]]]) -> tuple[str, ...]:
    """The channels that at least half of the cases with a mask have, once each, and that are on the
    grid of the mask; the others are noted.
    """
    counts = Counter(c for found, _ in labelled for c in dict.fromkeys(i.channel for i in found))
    common = [channel for channel in sorted(counts) if 2 * counts[channel] >= len(labelled)]
    other = [
        channel
        for channel in common
        if not _on_grid_of_mask([(found, own) for found, own in labelled[:FEW]], channel)
    ]
    # If none is on the grid, the checks report by how much they differ.
    kept = [channel for channel in common if channel not in other] or common[:1]
    if other and kept != other:
        draft.note(
            "unused",
            f"{', '.join(other)} of each session has another grid than its mask",
            names=other,
        )
    return tuple(kept)


def _on_grid_of_mask(labelled: Sequence[tuple[list[_File], list[_File]]], channel: str) -> bool:
    """Whether a channel has three axes and the grid of the mask wherever both can be read; only
    headers are read.
    """
    for found, own in labelled:
        image = next((one for one in found if one.channel == channel), None)
        if image is None:
            continue
        try:
            several = files.describe(image.path).get("disk_shape", [])[3:]
            same = files.read_grid(image.path).matches(files.read_grid(own[0].path))
        except DelineateError:
            continue
        if not same or any(n > 1 for n in several):
            return False
    return True


def _add_case(draft: Draft, scan: _Scan) -> None:
    case, masks = scan.case, scan.masks
    by_channel: dict[str, list[_File]] = {}
    for one in scan.images:
        by_channel.setdefault(one.channel, []).append(one)
    lacking = [channel for channel in draft.channels if channel not in by_channel]
    twice = [c for c in draft.channels if len(by_channel.get(c, ())) > 1]
    if lacking:
        have = {c: str(by_channel[c][0].path.absolute()) for c in draft.channels if c in by_channel}
        draft.problem(case, "missing", f"no image {', '.join(lacking)} of this session", have=have)
        return
    if twice:
        names = ", ".join(one.path.name for one in by_channel[twice[0]])
        draft.problem(case, "unpaired", f"the mask could belong to several images: {names}")
        return
    if not masks:
        draft.problem(case, "unpaired", "no mask of this session", "warning")
    draft.cases.append(
        Case(
            case,
            scan.patient,
            tuple(source(by_channel[channel][0].path) for channel in draft.channels),
            tuple(source(one.path) for one in masks),
        )
    )


# ---- tables ----


def _name_by_label(draft: Draft, masks: Sequence[_File]) -> None:
    """One structure for each entity ``label``: the names of its masks contain the subject."""
    labels = sorted({m.entities.get("label", m.suffix) for m in masks})
    value = {name: n for n, name in enumerate(labels, start=1)}
    set_masks(draft, labels)
    pairs = sorted({(stem(m.path), value[m.entities.get("label", m.suffix)]) for m in masks})
    draft.mapping = replace(draft.mapping, files=tuple(pairs))


def _name_values(tree: Tree, root: Path, draft: Draft, masks: Sequence[_File]) -> None:
    """Set the names of values from the nearest ``*dseg.tsv``: columns index and name."""
    folder = masks[0].path.parent
    while True:
        tables = [p for p in tree.files(folder) if p.name.lower().endswith("dseg.tsv")]
        desc = masks[0].entities.get("desc", "")
        fitting = [p for p in tables if desc and f"desc-{desc}" in p.name] or tables
        if len(fitting) == 1 and (names := _names_in(fitting[0])):
            draft.names = names
            draft.settings.append(fitting[0])
            draft.note("names", f"structure names are read from {fitting[0].relative_to(root)}")
            return
        if folder == root or root not in folder.parents:
            return
        folder = folder.parent


def _names_in(path: Path) -> dict[int, str]:
    found = {}
    for row in rows_of(path):
        value = row.get("index") or row.get("value") or ""
        if value.strip().isdigit() and int(value) and (name := (row.get("name") or "").strip()):
            found[int(value)] = name
    return found


def _read_participants(root: Path, raw: Path, draft: Draft) -> None:
    """Set groups and splits from ``participants.tsv``."""
    path = next((p for f in (root, raw) if (p := f / "participants.tsv").is_file()), None)
    if path is None:
        return
    rows = {str(row.get("participant_id")): row for row in rows_of(path)}
    draft.settings.append(path)
    columns = {str(name) for row in rows.values() for name in row}
    column = next((name for name in _GROUPS if name in columns), "")
    split_column = next((name for name in ("split", "fold", "partition") if name in columns), "")
    cases = []
    for case in draft.cases:
        row = rows.get(case.patient, {})
        group = (row.get(column) or "") if column else ""
        split = SPLITS.get((row.get(split_column) or "").lower()) if split_column else None
        cases.append(replace(case, group="" if group == "n/a" else group, split=split))
    draft.cases = with_free_training(cases)
    if column:
        draft.note("groups", f"the groups are the column {column} of {path.name}")
