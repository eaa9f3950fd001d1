"""Generic layouts: ``(tree, root) -> Draft | None``.

Parallel folders of images and labels, pairs in one folder that differ by a suffix, DICOM folders,
and plain images without ground truth. File names decide. Only a few images are opened, to count
their channels (``with_channels``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...core.errors import DelineateError, LayoutError
from ...core.manifest import Case, Source, Split
from ...extend.findings import Draft
from ...formats import dicom, files
from ...formats.files import stem
from ...formats.label_files import without_alpha
from ..reading import is_grey
from .names import read_label_colours, read_label_names
from .tree import Tree, case_ids, group_channels, is_raster, match_names, source

# Folder name, or prefix or suffix of one -> split.
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
# A folder name gives a role (images or labels) and, as a prefix or suffix, a split: "imagesTr".
_AFFIX = "|".join(sorted(_SPLITS, key=len, reverse=True))
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
# Words that mark a file as a label or an image, if both are in one folder. They must be separate
# words: "gt" does not count in "length".
_LABEL_WORD = re.compile(
    r"(?i)(?<![a-z])(seg|segs|segmentation|mask|masks|label|labels|gt|truth|ground_?truth"
    r"|annotation)(?![a-z])"
)
_IMAGE_WORD = re.compile(r"(?i)(?<![a-z])(orig|image|img|volume|scan)(?![a-z])")


@dataclass(frozen=True)
class _SideFolder:
    """A folder of images or of labels, with the split given by its name or its parent's name."""

    folder: Path
    is_label: bool
    split: Split


# Name, split, images and label of one case.
_Row = tuple[str, Split, tuple[Source, ...], tuple[Source, ...]]


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
        partner = _only_partner([h for h in labels if h.split == half.split], half, root, draft)
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
    # Without a validation split, the training cases are later divided into folds.
    free = not any(split == "val" for _, split, *_ in rows)
    for case, (_, split, image, label) in zip(ids, rows, strict=True):
        draft.cases.append(
            Case(case, "", image, label, None if split == "train" and free else split)
        )


def _halves(tree: Tree, root: Path) -> list[_SideFolder]:
    """Folders of images and labels in the root and in folders named train, val or test."""
    found = []
    # The split is given by the parent folder (train/images) or by the name (imagesTr).
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


def _only_partner(
    partners: list[_SideFolder], half: _SideFolder, root: Path, draft: Draft
) -> _SideFolder | None:
    """The label folder of ``half``; None if there is none.

    Raises:
        LayoutError: there are several, and none of them is named as manual outlines.
    """
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
    images = _entries(tree, half.folder, labels)
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


def _entries(tree: Tree, folder: Path | None, known: Iterable[str] = ()) -> dict[str, list[Path]]:
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


def suffix_pairs(tree: Tree, root: Path) -> Draft | None:
    """Image and label in one folder, marked by a word in the name: ``*orig*`` and ``*liver*``, or
    ``X`` and ``X_seg``, ``X_mask``, ``X_label``.
    """
    images, labels = _images_and_labels(tree.images(root))
    if not labels or not images:
        return None
    # The key is the name without the words that mark image or label.
    keyed = {_bare(p): p for p in images}
    truth = {_bare(p): p for p in labels}
    # Two files with the same key are ambiguous, so this is another layout.
    if len(keyed) < len(images) or len(truth) < len(labels):
        return None
    if len(images) == len(labels) == 1:  # a single image and a single label belong together
        truth = {next(iter(keyed)): labels[0]}
    # Without a single pair the names have another meaning.
    if not set(keyed) & set(truth):
        return None
    draft = Draft("suffix-pairs", [])
    # An image without a label remains a case; a label without an image is an error.
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


def _images_and_labels(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide the files of one folder into images and labels by the words in their names.

    If any name contains "orig", the images are exactly the files with "orig", and "liver" also
    marks a label. Files that are neither are left out.
    """
    by_orig = any(_has(p, "orig") for p in paths)
    if by_orig:
        images = [p for p in paths if _has(p, "orig")]
        labels = [p for p in paths if not _has(p, "orig") and (_is_label(p) or _has(p, "liver"))]
    else:
        # Without "orig", every file that is not a label is an image.
        labels = [p for p in paths if _is_label(p)]
        images = [p for p in paths if p not in labels]
    return images, labels


def _is_label(path: Path) -> bool:
    """Whether the name marks a label: by a word, or the ending of 3D Slicer's segmentations."""
    return path.name.lower().endswith(".seg.nrrd") or bool(_LABEL_WORD.search(stem(path)))


def _has(path: Path, word: str) -> bool:
    """Whether the file's stem contains ``word``, ignoring case."""
    return word in stem(path).lower()


def _bare(path: Path) -> str:
    """The name without the words that mark an image or a label, so that a pair has one key."""
    # Each marking word becomes a separator, and then repeated separators become one.
    name = re.sub(r"(?i)orig", "_", stem(path)) if "orig" in stem(path).lower() else stem(path)
    name = _IMAGE_WORD.sub("_", _LABEL_WORD.sub("_", name))
    name = re.sub(r"(?i)liver", "_", name)
    return re.sub(r"[_.-]{2,}", "_", name).strip("_.- ")


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


def dicom_folder(tree: Tree, root: Path) -> Draft | None:
    """A folder of DICOM files: each readable series is a case."""
    if not tree.is_dicom(root):
        return None
    draft = Draft("dicom", [])
    # The case gets the folder's name, or the parent's if the folder's name is a general one.
    place = Path(os.path.abspath(root))
    _series(
        draft,
        root,
        place.parent.name if place.name.lower() in NAMELESS and place.parent.name else place.name,
    )
    return draft if draft.cases else None


def plain_images(tree: Tree, root: Path) -> Draft | None:
    """Images without ground truth, for prediction: each image file or DICOM folder is a case."""
    draft = Draft("plain-images", [])
    entries = _entries(tree, root) if tree.images(root) else {}
    for name, paths in entries.items():
        draft.cases.append(Case(name, "", tuple(source(p) for p in paths)))
    # Image files come first. DICOM folders count only if they are most of the folders.
    series = [f for f in tree.folders(root) if tree.is_dicom(f)]
    if not entries and 2 * len(series) >= len(tree.folders(root)):
        for folder in series:
            _series(draft, folder, folder.name)
    if not draft.cases:
        return None
    # More than one file per case means channels without names.
    counts = {len(c.images) for c in draft.cases}
    draft.channels = (
        tuple(f"channel {n}" for n in range(max(counts))) if max(counts) > 1 else ("image",)
    )
    return draft


def _series(draft: Draft, folder: Path, name: str) -> None:
    """Add each readable series of a DICOM folder as a case called ``name`` (with a number if there
    are several); report the others.
    """
    found, others = dicom.find(folder)
    if not found:
        kinds = ", ".join(sorted({what for _, what in others})) or "no DICOM image"
        draft.problem(name, "refused", f"no series can be read in {folder} (found: {kinds})")
    # A series that cannot be read is an error only if it leaves the folder without a case.
    usable = [s for s in found if not dicom.problem_of(s)]
    for series in found:
        if series not in usable:
            draft.problem(
                name,
                "refused",
                f"series {series.title} cannot be read: {dicom.problem_of(series)}",
                "warning" if usable else "error",
            )
    # The series number makes the id unique, or its position if there is no number.
    for n, series in enumerate(usable):
        case = name if len(usable) == 1 else f"{name}_{series.number or n + 1}"
        case = case if case not in {c.id for c in draft.cases} else f"{case}_{n + 1}"
        # A folder with a single series needs no series id to be read.
        uid = "" if len(found) == 1 else series.uid
        draft.cases.append(
            Case(case, series.patient_id, (Source(os.path.abspath(folder), series=uid),))
        )
        draft.modality = (
            series.modality if series.modality in ("CT", "MR", "PT") else draft.modality
        )


def with_channels(draft: Draft) -> Draft:
    """The draft with one channel name per channel of its single-file images.

    Up to four evenly spaced cases are opened to count the channels.
    """
    if not draft.cases or len(draft.channels) > 1:
        return draft
    # Cases may differ (grey and colour), so several are opened, not only the first.
    spread = draft.cases[:: max(1, len(draft.cases) // 4)][:4]
    counted = [names for case in spread if (names := _channels_of(case)) is not None]
    # None of them can be read (each is reported later), so the first readable case counts.
    if not counted:
        counted = list(
            islice((names for case in draft.cases if (names := _channels_of(case)) is not None), 1)
        )
    if not counted:
        return draft
    if is_raster(Path(draft.cases[0].images[0].path)):
        # A grey image can be read as colour, but not the other way round.
        names = max(counted, key=len)
    else:
        names = max(counted, key=counted.count)
    if len(names) > 1:
        draft.channels = tuple(names)
    return draft


def _channels_of(case: Case) -> list[str] | None:
    """Names of the channels in a case's first file; [] for one channel, None if unreadable."""
    path = Path(case.images[0].path)
    try:
        if path.is_dir():
            return []
        if is_raster(path):
            return _colours(path)
        # The header is enough: axes after the third are channels.
        shape = files.describe(path).get("disk_shape", [])
    except DelineateError:
        return None
    return [f"channel {n}" for n in range(int(max(shape[3:], default=1)))]


def _colours(path: Path) -> list[str]:
    """Names of the channels of a 2-D image; [] if it is grey, even if stored as RGB."""
    volume = without_alpha(files.read(path))
    return (
        []
        if volume.channels == 1 or is_grey(volume.array)
        else list(volume.meta.get("channels", []))
    )
