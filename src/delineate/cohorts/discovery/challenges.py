"""Layouts of known collections, one function each: ``(tree, root) -> Draft | None``.

Decathlon, nnU-Net raw, TotalSegmentator, BraTS-like folders, 3D-IRCADb and OASIS-1. They are
recognised by file and folder names; the only files that are read are ``dataset.json`` and
``meta.csv``. CHAOS is in ``chaos.py``, generic layouts are in ``folders.py``.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import LayoutError
from ...core.labels import LabelMapping, LabelSet
from ...core.manifest import Case, Split
from ...extend.findings import Draft
from ...formats.files import stem
from .tree import Tree, group_channels, is_raster, most, source

# First words of a file's key, in lower case, that mark an MR sequence, and any modality.
MR_NAMES = {
    "flair",
    "t1",
    "t1ce",
    "t1c",
    "t1gd",
    "t1n",
    "t1w",
    "t1post",
    "t2",
    "t2w",
    "t2f",
    "pd",
    "dwi",
    "adc",
    "mr",
    "mri",
    "swi",
    "t2star",
}
KNOWN_CHANNELS = MR_NAMES | {
    "ct",
    "pet",
    "cta",
    "ctp",
    "image",
    "img",
    "imaging",
    "orig",
    "volume",
    "cbf",
    "cbv",
    "mtt",
    "tmax",
}
# A word for ground truth anywhere in a file's key ("OT" is the ground truth of BraTS 2013).
_TRUTH = re.compile(
    r"(?i)^(?:.*[^a-z])?(ot|otmulticlass|seg|segmentation|label|labels|mask|truth|gt|ground_?truth"
    r"|annotation|manual)(?:[^a-z].*)?$"
)


# ---- with a dataset.json ----


def decathlon(tree: Tree, root: Path) -> Draft | None:
    """Medical Segmentation Decathlon: ``dataset.json`` with a training list, ``imagesTr``,
    ``labelsTr`` and optionally ``imagesTs``.
    """
    data = _dataset_json(tree, root)
    # "channel_names" or the suffix _0000 mark nnU-Net, whose dataset.json is similar.
    if (
        data is None
        or "training" not in data
        or "channel_names" in data
        or _has_channel_suffixes(tree, root)
    ):
        return None
    names = {int(v): str(n) for v, n in data.get("labels", {}).items()}
    # The modality table has the channel index as key; several modalities are one 4-D file.
    channels = tuple(
        n
        for _, n in sorted(
            (int(k), str(v)) for k, v in data.get("modality", {"0": "image"}).items()
        )
    )
    draft = Draft(
        "decathlon", [], channels, LabelSet.from_names(names), modality=_modality(channels)
    )
    # Each listed file must exist.
    for entry in data["training"]:
        image, label = root / entry["image"], root / entry["label"]
        _listed_case(tree, draft, image, label, None)
    # Training entries are pairs of image and label; test entries are usually only a path.
    for entry in data.get("test", []):
        image = root / (entry["image"] if isinstance(entry, dict) else entry)
        if _exists(tree, image):
            draft.cases.append(Case(stem(image), "", (source(image),), (), "test"))
    return draft


def _listed_case(tree: Tree, draft: Draft, image: Path, label: Path, split: Split) -> None:
    """Add a case listed in ``dataset.json``; a missing file is an error of that case."""
    case = stem(image)
    missing = [p for p in (image, label) if not _exists(tree, p)]
    for path in missing:
        draft.problem(
            case, "missing", f"{path} is listed in dataset.json but does not exist", path=str(path)
        )
    # Without its image there is no case; without its label it has no ground truth.
    if image not in missing:
        draft.cases.append(
            Case(case, "", (source(image),), () if missing else (source(label),), split)
        )


def nnunet_raw(tree: Tree, root: Path) -> Draft | None:
    """nnU-Net raw, versions 1 and 2: ``dataset.json``, ``imagesTr/CASE_0000.END``,
    ``labelsTr/CASE.END``, and optionally ``imagesTs`` and ``labelsTs``.
    """
    data = _dataset_json(tree, root)
    if (
        data is None
        or not ("channel_names" in data or _has_channel_suffixes(tree, root))
        or tree.folder(root, "imagesTr") is None
    ):
        return None
    # Version 2 calls the channels "channel_names", version 1 "modality".
    named = data.get("channel_names", data.get("modality", {"0": "image"}))
    channels = tuple(n for _, n in sorted((int(k), str(v)) for k, v in named.items()))
    draft = Draft("nnunet-raw", [], channels, modality=_modality(channels))
    _nnunet_labels(draft, data.get("labels", {}))
    parts: tuple[tuple[str, str, Split], ...] = (
        ("imagesTr", "labelsTr", None),
        ("imagesTs", "labelsTs", "test"),
    )
    for images, labels, split in parts:
        _nnunet_folder(tree, draft, tree.folder(root, images), tree.folder(root, labels), split)
    return draft


def _nnunet_labels(draft: Draft, labels: dict[str, Any]) -> None:
    """Set the structures from ``labels`` of ``dataset.json``.

    Version 2 has name -> value, version 1 value -> name. Regions (lists of values) overlap, so they
    are refused unless the user selects plain values.
    """
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        draft.refusal = (
            f"dataset.json defines overlapping regions ({', '.join(regions)}), but a voxel can "
            "have only one structure; select plain values with --labels, such as "
            "'enhancing tumour: 3'"
        )
        return
    # Numeric keys show version 1.
    pairs = (
        {int(k): str(v) for k, v in labels.items()}
        if all(str(k).isdigit() for k in labels)
        else {int(v): str(k) for k, v in labels.items()}
    )
    draft.labels = LabelSet.from_names(pairs)


def _nnunet_folder(
    tree: Tree, draft: Draft, images: Path | None, labels: Path | None, split: Split
) -> None:
    """Add the cases of one folder of images; a case without one of its channels is left out."""
    if images is None:
        return
    # Images are grouped by case; labels are found by the name of the case.
    truth = {stem(p): p for p in tree.images(labels)} if labels else {}
    groups = group_channels(tree.images(images))
    wanted = [f"{n:04d}" for n in range(len(draft.channels))]
    for case, files in groups.items():
        # A case without one of its channels cannot be used. The files it has are recorded, because
        # prediction may still use them.
        lacking = [n for n in wanted if n not in files]
        if lacking:
            have = {draft.channels[int(n)]: os.path.abspath(files[n]) for n in wanted if n in files}
            draft.problem(
                case,
                "missing",
                f"channel {draft.channels[int(lacking[0])]} (file ending _{lacking[0]}) is missing "
                f"in {images}",
                have=have,
            )
            continue
        # Without a label, a training case has no ground truth; test cases may lack one.
        if case not in truth and split != "test":
            draft.problem(
                case,
                "unpaired",
                f"no label {case} in {labels or images.parent / 'labelsTr'}",
                "warning",
            )
        label = (source(truth[case]),) if case in truth else ()
        draft.cases.append(Case(case, "", tuple(source(files[n]) for n in wanted), label, split))
    # Labels without an image.
    for case in sorted(set(truth) - set(groups)):
        draft.problem(
            case,
            "unpaired",
            f"label {truth[case].name} has no image in {images}",
            path=str(truth[case]),
        )


def _dataset_json(tree: Tree, root: Path) -> dict[str, Any] | None:
    path = root / "dataset.json"
    if path not in tree.files(root):
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(f"dataset.json cannot be read ({error})", path=path) from error
    return data if isinstance(data, dict) and "labels" in data else None


def _has_channel_suffixes(tree: Tree, root: Path) -> bool:
    """Whether every image is named CASE_0000 and the labels are named CASE."""
    images, labels = tree.folder(root, "imagesTr"), tree.folder(root, "labelsTr")
    if images is None:
        return False
    # With labels named CASE, "_0000" is a channel. In the Decathlon it would be part of the name.
    groups = group_channels(tree.images(images))
    return bool(groups) and (labels is None or any(stem(p) in groups for p in tree.images(labels)))


def _exists(tree: Tree, path: Path) -> bool:
    # Paths in dataset.json begin with "./" and may contain "..".
    path = Path(os.path.normpath(path))
    return path.parent.is_dir() and path.name in {p.name for p in tree.files(path.parent)}


# ---- one folder per case ----


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
    # The label values need the masks of all cases, so the cases are added in a second pass.
    structures = sorted({stem(p) for _, _, masks in rows for p in masks})
    _masks(draft, structures)
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
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    # The header shows whether commas or semicolons separate the columns.
    rows = csv.DictReader(
        text.splitlines(), delimiter=";" if ";" in text.partition("\n")[0] else ","
    )
    known: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
    return {
        row["image_id"]: known[row["split"]]
        for row in rows
        if row.get("split") in known and row.get("image_id")
    }


def _masks(draft: Draft, structures: list[str]) -> None:
    """Set one structure per mask: values 1, 2, ... in the order of ``structures``."""
    draft.labels = LabelSet.from_names(
        {v: _with_side(n) for v, n in enumerate(structures, start=1)}
    )
    draft.mapping = LabelMapping(files=tuple((n, v) for v, n in enumerate(structures, start=1)))


def _with_side(name: str) -> str:
    """A file stem as a name with a separate side ("leftkidney" -> "left kidney")."""
    return re.sub(r"^(left|right)(?=[a-z])", r"\1 ", name)


def modality_files(tree: Tree, root: Path) -> Draft | None:
    """One folder per case with one file per modality and one of ground truth, such as BraTS
    (``CASE/CASE_flair.nii.gz`` or ``CASE/Flair_….nii.gz``).

    A file belongs to the cohort if at least half of the cases have one with its key. Keys that are
    neither a modality nor ground truth are reported as unused.
    """
    folders = {f: _keys(tree, f) for f in tree.folders(root)}
    folders = {f: keys for f, keys in folders.items() if keys}
    if not most(tree, root, list(folders)):
        return None
    # Find out which keys are channels, ground truth or neither.
    common = _common_keys(folders.values())
    truths = [k for k in common if _TRUTH.match(k)]
    channels = [k for k in common if _kind(k) in KNOWN_CHANNELS and k not in truths]
    # With several ground truths it is not clear which one counts.
    if not channels or len(truths) > 1:
        return None
    draft = Draft("modality-files", [], tuple(channels), modality=_modality(channels))
    unused = [k for k in common if k not in channels and k not in truths]
    if unused:
        draft.note(
            "unused",
            f"files {', '.join(unused)} of each case are neither a channel nor ground truth and "
            "were not used",
            names=unused,
        )
    for folder, keys in folders.items():
        _add_modality_case(draft, folder, keys, truths)
    # A cohort with FLAIR is assumed to have the BraTS classes; its key is "t2f" since BraTS 2023.
    kinds = {_kind(c) for c in channels}
    if kinds & {"flair", "t2f"}:
        draft.names = _brats_names("t2f" in kinds)
    return draft if draft.cases else None


def _common_keys(of_folders: Iterable[dict[str, Path]]) -> list[str]:
    """The keys that at least half of the case folders have, in the order of their first use."""
    of_cases = list(of_folders)
    held = [k for keys in of_cases for k in keys]
    return [k for k in dict.fromkeys(held) if held.count(k) >= max(1, len(of_cases) / 2)]


def _add_modality_case(
    draft: Draft, folder: Path, keys: dict[str, Path], truths: Sequence[str]
) -> None:
    """Add the case in ``folder``, or a problem if it lacks a channel of ``draft``.

    Args:
        draft: the draft with its channels.
        folder: the case's folder; its name is the case's id.
        keys: key -> file, from ``_keys``.
        truths: the key of the ground truth, at most one.
    """
    channels = draft.channels
    lacking = [k for k in channels if k not in keys]
    if lacking:
        message = (
            f"channel {', '.join(lacking)} is missing in {folder}; the cohort has "
            f"{', '.join(channels)}"
        )
        draft.problem(
            folder.name,
            "missing",
            message,
            have={k: os.path.abspath(keys[k]) for k in channels if k in keys},
        )
        return
    label = tuple(source(keys[k]) for k in truths if k in keys)
    if truths and not label:
        draft.problem(
            folder.name,
            "unpaired",
            f"no {truths[0]} (the ground truth of the other cases) in {folder}",
            "warning",
        )
    draft.cases.append(Case(folder.name, "", tuple(source(keys[k]) for k in channels), label))


def _keys(tree: Tree, folder: Path) -> dict[str, Path]:
    """Key -> file for the images of a case folder (2-D images are left out).

    The key is the file stem without the folder's name and without a suffix that several files
    share: ``P1/P1_flair_reg``, ``P1/P1_t1_reg`` have the keys ``flair`` and ``t1``.
    """
    # Remove the folder name, which most files repeat.
    files = {
        re.sub(rf"^{re.escape(folder.name)}[_.-]?", "", stem(p)) or "image": p
        for p in tree.images(folder)
        if not is_raster(p)
    }
    # Remove a suffix that several files share, such as a processing step.
    endings = [name.split("_", 1)[1] for name in files if "_" in name]
    shared = {e for e in endings if endings.count(e) > 1}
    short = {
        (name.split("_", 1)[0] if "_" in name and name.split("_", 1)[1] in shared else name): p
        for name, p in files.items()
    }
    return short if len(short) == len(files) else files  # CT_image and CT_mask stay apart


def _kind(key: str) -> str:
    """The first word of a key, in lower case; for a channel it is the modality."""
    return re.split(r"[_.-]", key.lower())[0]


def _brats_names(since_2023: bool) -> dict[int, str]:
    """Tumour classes of BraTS: four until 2013; from 2014 without 3; from 2023 with 3 as the
    enhancing tumour.
    """
    if since_2023:
        return {1: "necrosis", 2: "oedema", 3: "enhancing tumour", 4: "resection cavity"}
    return {1: "necrosis", 2: "oedema", 3: "non-enhancing tumour", 4: "enhancing tumour"}


# ---- deeper trees ----


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
    _masks(draft, sorted({organ.name for _, _, organs in rows for organ in organs}))
    for name, image, organs in rows:
        draft.cases.append(Case(name, name, (source(image),), tuple(source(o) for o in organs)))
    return draft


def _inner(tree: Tree, folder: Path | None) -> Path | None:
    """The folder of the same name inside ``folder``, as unpacked archives often have; else
    ``folder``.
    """
    again = tree.folder(folder, folder.name) if folder else None
    return again or folder


def oasis1(tree: Tree, root: Path) -> Draft | None:
    """OASIS-1: ``OAS1_nnnn_MRm/PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img`` with
    ``FSL_SEG/*_fseg.img``, optionally in folders ``disc1`` ...
    """
    shape = re.compile(r"^OAS1_\d{4}_MR\d+$")
    # The archive has one folder per disc; the sessions may also be directly in the root.
    places = [
        root,
        *(f for f in tree.folders(root) if re.match(r"(?i)^(oasis_cross.*_)?disc\d+$", f.name)),
    ]
    folders = [f for place in places for f in tree.folders(place) if shape.match(f.name)]
    if not folders:
        return None
    draft = Draft(
        "oasis-1",
        [],
        ("T1",),
        LabelSet.from_names({1: "CSF", 2: "grey matter", 3: "white matter"}),
        modality="MR",
    )
    for folder in folders:
        # Image and label are both in Talairach space (T88), so they have the same grid.
        image = _image_ending(tree, folder / "PROCESSED" / "MPRAGE" / "T88_111", "_t88_masked_gfc")
        label = _image_ending(tree, folder / "FSL_SEG", "_fseg")
        if image is None:
            draft.problem(
                folder.name, "missing", "no PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img"
            )
            continue
        if label is None:
            draft.problem(folder.name, "unpaired", "no FSL_SEG/*_fseg.img", "warning")
        # The patient is the id without the session: MR1 and MR2 are the same person.
        draft.cases.append(
            Case(
                folder.name,
                folder.name.rsplit("_", 1)[0],
                (source(image),),
                (source(label),) if label else (),
            )
        )
    return draft


def _image_ending(tree: Tree, folder: Path, ending: str) -> Path | None:
    """The first image in ``folder`` whose stem ends with ``ending``; None if there is none."""
    return (
        next((p for p in tree.images(folder) if stem(p).endswith(ending)), None)
        if folder.is_dir()
        else None
    )


def _modality(channels: Any) -> str:
    """CT or MR if the channel names show it, else ""."""
    kinds = {_kind(str(c).replace(" ", "_")) for c in channels}
    if kinds <= {"ct", "cta"}:
        return "CT"
    return "MR" if kinds & MR_NAMES else ""
