"""Layouts without a name of their own: ``(tree, root) -> Draft | None``.

Parallel folders of images and labels, pairs in one folder told by a suffix, plain images without
truth. Names of files decide; of the pictures themselves only a few are opened, to count channels
(``with_channels``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...core.errors import DelineateError, LayoutError
from ...core.manifest import Case, Source, Split
from ...formats import dicom, files
from ...formats.files import stem
from ..findings import Draft
from ..reading import is_grey
from .names import read_label_names
from .tree import Tree, case_ids, group_channels, is_raster, match_names, source

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "va": "val",
    "test": "test",
    "testing": "test",
    "ts": "test",
    "te": "test",
}
_AFFIX = "|".join(sorted(_SPLITS, key=len, reverse=True))
_IMAGES = r"images?|imgs?|data|scans?|volumes?|inputs?|ct|mri?|raw"
_LABELS = (
    r"labels?|masks?|ground|ground_?truths?|gt|seg|segs|segmentations?|annotations?|truths?"
    r"|targets?"
)
_ROLE = re.compile(
    rf"(?i)^(?:(?P<before>{_AFFIX})[_-]?)?(?:(?P<image>{_IMAGES})|(?P<label>{_LABELS}))(?:[_-]?(?P<after>{_AFFIX}))?$"
)
_LABEL_WORD = re.compile(
    r"(?i)(?<![a-z])(seg|segs|segmentation|mask|masks|label|labels|gt|truth|ground_?truth|annotation)(?![a-z])"
)
_IMAGE_WORD = re.compile(r"(?i)(?<![a-z])(orig|image|img|volume|scan)(?![a-z])")


@dataclass(frozen=True)
class _SideFolder:
    """A folder of images or of labels, with the part of the cohort its name or its parent's name
    tells.
    """

    folder: Path
    is_label: bool
    split: Split


def parallel_folders(tree: Tree, root: Path) -> Draft | None:
    """``images|imagesTr|Data|TrainVolumes …`` beside ``labels|masks|Ground|TrainSegmentation …``,
    perhaps under ``train``, ``val``, ``test``.
    """
    halves = _halves(tree, root)
    images, labels = [h for h in halves if not h.is_label], [h for h in halves if h.is_label]
    if not images or not labels:
        return None
    draft = Draft("parallel-folders", [])
    rows: list[tuple[str, Split, tuple[Source, ...], tuple[Source, ...]]] = []
    for half in images:
        partner = _only([h for h in labels if h.split == half.split], half, root)
        rows += _paired(tree, draft, half, partner)
    ids = case_ids([name for name, *_ in rows], [str(split or "") for _, split, *_ in rows])
    # Without a validation part the folds decide.
    free = not any(split == "val" for _, split, *_ in rows)
    for case, (_, split, image, label) in zip(ids, rows, strict=True):
        draft.cases.append(
            Case(case, "", image, label, None if split == "train" and free else split)
        )
    others = [
        f.name
        for f in tree.folders(root)
        if f not in {h.folder for h in halves} | {h.folder.parent for h in halves}
    ]
    if others:
        draft.note(
            "unused",
            f"folder {', '.join(others)} was not used; name it in a description to use it",
            names=others,
        )
    draft.names = _names_beside(tree, root, draft)
    return draft if draft.cases else None


def _halves(tree: Tree, root: Path) -> list[_SideFolder]:
    """Folders of images and labels in the root and in folders that are called train, val or
    test.
    """
    found = []
    places: list[tuple[Path, Split]] = [
        (root, None),
        *((f, _SPLITS[f.name.lower()]) for f in tree.folders(root) if f.name.lower() in _SPLITS),
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
                        split or _SPLITS.get((affix or "").lower()),
                    )
                )
    return found


def _only(partners: list[_SideFolder], half: _SideFolder, root: Path) -> _SideFolder | None:
    if len(partners) > 1:
        names = ", ".join(p.folder.name for p in partners)
        raise LayoutError(
            f"several folders could be the truth of {half.folder.name}: {names}; write a "
            "description (check --draft) that names one",
            path=root,
        )
    return partners[0] if partners else None


def _paired(
    tree: Tree, draft: Draft, half: _SideFolder, partner: _SideFolder | None
) -> list[tuple[str, Split, tuple[Source, ...], tuple[Source, ...]]]:
    """(case, split, images, label) of one folder of images and the folder of its labels."""
    labels = {stem(p): p for p in tree.images(partner.folder)} if partner else {}
    if partner and not labels:
        labels = {
            f.name: f for f in tree.folders(partner.folder) if tree.is_dicom(f) or tree.images(f)
        }
    images = _entries(tree, half.folder, labels)
    match = match_names(list(images), list(labels))
    if labels and images and not match:
        draft.problem(
            "",
            "unpaired",
            f"no label in {partner and partner.folder} belongs by name to an image in "
            f"{half.folder}",
        )
    rows = []
    for name, paths in images.items():
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
    for name in labels:
        if name not in set(match.values()):
            draft.problem(
                name,
                "unpaired",
                f"label {labels[name].name} has no image in {half.folder}",
                path=str(labels[name]),
            )
    counts = {len(r[2]) for r in rows}
    if counts and (most := max(counts)) > 1:
        draft.channels = tuple(f"channel {n}" for n in range(most))
    return rows


def _truth(tree: Tree, label: Path | None, image: Path) -> tuple[Source, ...]:
    """The label's source; a folder of bare slices takes the geometry of the image's folder."""
    if label is None:
        return ()
    bare = label.is_dir() and not tree.is_dicom(label) and image.is_dir()
    return (source(label, like=image if bare else ""),)


def _entries(tree: Tree, folder: Path | None, known: Iterable[str] = ()) -> dict[str, list[Path]]:
    """Name -> its files (one a channel): image files, or folders that hold slices; ``known`` are
    names of labels, where there are some.
    """
    if folder is None:
        return {}
    images = tree.images(folder)
    groups = _channel_groups(images, set(known))
    if groups:
        return groups
    entries = {stem(p): [p] for p in images}
    if len(entries) < len(images):
        raise LayoutError("two image files have the same name but for the ending", path=folder)
    return entries or {
        f.name: [f] for f in tree.folders(folder) if tree.is_dicom(f) or tree.images(f)
    }


def _channel_groups(images: Sequence[Path], known: set[str]) -> dict[str, list[Path]]:
    """Files ``CASE_0000``, ``CASE_0001`` ... as case -> channels, where the numbers count channels
    and not cases; else {}.

    They count channels where every case has the same ones from 0000 on, and labels are called CASE;
    without labels, where CASE has a number of its own ("case_0000", "case_0001" ... are cases).
    """
    groups = group_channels(images)
    alike = len({tuple(g) for g in groups.values()}) == 1 and all(
        "0000" in g for g in groups.values()
    )
    count_channels = (
        bool(known & set(groups)) if known else all(re.search(r"\d", case) for case in groups)
    )
    return (
        {case: list(channels.values()) for case, channels in groups.items()}
        if groups and alike and count_channels
        else {}
    )


def _names_beside(tree: Tree, root: Path, draft: Draft) -> dict[int, str]:
    """Names of values from ``labels.csv`` and the like beside the folders, or {}."""
    for path in tree.files(root):
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
                draft.problem("", "names", str(error), "warning")
                continue
            draft.note("names", f"structures are named by {path.name}", path=str(path))
            return names
    return {}


def suffix_pairs(tree: Tree, root: Path) -> Draft | None:
    """Image and label in one folder, told by a word in the name: ``*orig*``/``*liver*``, ``X`` and
    ``X_seg``, ``_mask``, ``_label``.
    """
    paths = tree.images(root)
    by_orig = any("orig" in stem(p).lower() for p in paths)
    labels = [
        p
        for p in paths
        if (_LABEL_WORD.search(stem(p)) or (by_orig and "liver" in stem(p).lower()))
        and not (by_orig and "orig" in stem(p).lower())
    ]
    images = [p for p in paths if p not in labels and (not by_orig or "orig" in stem(p).lower())]
    if not labels or not images:
        return None
    keyed = {_bare(p): p for p in images}
    truth = {_bare(p): p for p in labels}
    if len(keyed) < len(images) or len(truth) < len(labels):
        return None
    if len(images) == len(labels) == 1:  # one of each can only belong together
        truth = {next(iter(keyed)): labels[0]}
    if not set(keyed) & set(truth):
        return None
    draft = Draft("suffix-pairs", [])
    for key, path in keyed.items():
        if key not in truth:
            draft.problem(
                key or stem(path), "unpaired", f"no label belongs to {path.name}", "warning"
            )
        draft.cases.append(
            Case(
                key or stem(path),
                "",
                (source(path),),
                (source(truth[key]),) if key in truth else (),
            )
        )
    for key in sorted(set(truth) - set(keyed)):
        draft.problem(
            key, "unpaired", f"label {truth[key].name} has no image", path=str(truth[key])
        )
    return draft


def _bare(path: Path) -> str:
    """The name without the words that tell image from label."""
    name = re.sub(r"(?i)orig", "_", stem(path)) if "orig" in stem(path).lower() else stem(path)
    name = _IMAGE_WORD.sub("_", _LABEL_WORD.sub("_", name))
    name = re.sub(r"(?i)liver", "_", name)
    return re.sub(r"[_.-]{2,}", "_", name).strip("_.- ")


# Folders called like every other patient's.
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


def dicom_folder(tree: Tree, root: Path) -> Draft | None:
    """A folder of DICOM files: each series that can be read is a case."""
    if not tree.is_dicom(root):
        return None
    draft = Draft("dicom", [])
    place = Path(os.path.abspath(root))
    _series(
        draft,
        root,
        place.parent.name if place.name.lower() in NAMELESS and place.parent.name else place.name,
    )
    return draft if draft.cases else None


def plain_images(tree: Tree, root: Path) -> Draft | None:
    """Images without truth, to predict on: each image file, or each folder of DICOM, is a case."""
    draft = Draft("plain-images", [])
    entries = _entries(tree, root) if tree.images(root) else {}
    for name, paths in entries.items():
        draft.cases.append(Case(name, "", tuple(source(p) for p in paths)))
    series = [f for f in tree.folders(root) if tree.is_dicom(f)]
    if not entries and 2 * len(series) >= len(tree.folders(root)):
        for folder in series:
            _series(draft, folder, folder.name)
    if not draft.cases:
        return None
    counts = {len(c.images) for c in draft.cases}
    draft.channels = (
        tuple(f"channel {n}" for n in range(max(counts))) if max(counts) > 1 else ("image",)
    )
    return draft


def _series(draft: Draft, folder: Path, name: str) -> None:
    found, others = dicom.find(folder)
    if not found:
        kinds = ", ".join(sorted({what for _, what in others})) or "no DICOM image"
        draft.problem(name, "refused", f"no series can be read in {folder} (found: {kinds})")
    usable = [s for s in found if not dicom.problem_of(s)]
    for series in found:
        if series not in usable:
            draft.problem(
                name,
                "refused",
                f"series {series.title} cannot be read: {dicom.problem_of(series)}",
                "warning" if usable else "error",
            )
    for n, series in enumerate(usable):
        case = name if len(usable) == 1 else f"{name}_{series.number or n + 1}"
        case = case if case not in {c.id for c in draft.cases} else f"{case}_{n + 1}"
        uid = "" if len(found) == 1 else series.uid
        draft.cases.append(
            Case(case, series.patient_id, (Source(os.path.abspath(folder), series=uid),))
        )
        draft.modality = (
            series.modality if series.modality in ("CT", "MR", "PT") else draft.modality
        )


def with_channels(draft: Draft) -> Draft:
    """The draft with a channel's name for each channel of a single-file image; the first cases are
    opened to count them.
    """
    if not draft.cases or len(draft.channels) > 1:
        return draft
    spread = draft.cases[:: max(1, len(draft.cases) // 4)][:4]
    counted = [names for case in spread if (names := _channels_of(case)) is not None]
    if not counted:  # those can none of them be read, which is found out with each of them
        counted = list(
            islice((names for case in draft.cases if (names := _channels_of(case)) is not None), 1)
        )
    if not counted:
        return draft
    if is_raster(Path(draft.cases[0].images[0].path)):
        names = max(counted, key=len)  # grey pictures are read as colours, not the other way round
    else:
        names = max(counted, key=counted.count)
    if len(names) > 1:
        draft.channels = tuple(names)
    return draft


def _channels_of(case: Case) -> list[str] | None:
    """Names of the channels in a case's first file, [] where it has one; None where it cannot be
    read.
    """
    path = Path(case.images[0].path)
    try:
        if path.is_dir():
            return []
        if is_raster(path):
            return _colours(path)
        shape = files.describe(path).get("disk_shape", [])
    except DelineateError:
        return None
    return [f"channel {n}" for n in range(int(max(shape[3:], default=1)))]


def _colours(path: Path) -> list[str]:
    """Names of the channels of a picture; [] where it is grey, though stored as colours."""
    volume = files.read(path)
    return (
        []
        if volume.channels == 1 or is_grey(volume.array)
        else list(volume.meta.get("channels", []))
    )
