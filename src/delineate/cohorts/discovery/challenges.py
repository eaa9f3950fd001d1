"""Layouts of known collections, one small function each: ``(tree, root) -> Draft | None``.

Decathlon, nnU-Net raw, TotalSegmentator, BraTS-like folders, 3D-IRCADb, OASIS-1. They go by names;
a ``dataset.json`` is the only content that is read. CHAOS is in ``chaos.py``, layouts without a
name of their own in ``folders.py``.
"""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

from ...core.errors import LayoutError
from ...core.labels import LabelMapping, LabelSet
from ...core.manifest import Case, Split
from ...formats.files import stem
from ..findings import Draft
from .tree import Tree, group_channels, is_raster, most, source

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
_TRUTH = re.compile(
    r"(?i)^(?:.*[^a-z])?(ot|otmulticlass|seg|segmentation|label|labels|mask|truth|gt|ground_?truth|annotation|manual)(?:[^a-z].*)?$"
)


# ---- with a dataset.json ----


def decathlon(tree: Tree, root: Path) -> Draft | None:
    """Medical Segmentation Decathlon: ``dataset.json`` with a training list, ``imagesTr``,
    ``labelsTr``, perhaps ``imagesTs``.
    """
    data = _dataset_json(tree, root)
    if (
        data is None
        or "training" not in data
        or "channel_names" in data
        or _has_channel_suffixes(tree, root)
    ):
        return None
    names = {int(v): str(n) for v, n in data.get("labels", {}).items()}
    channels = tuple(
        n
        for _, n in sorted(
            (int(k), str(v)) for k, v in data.get("modality", {"0": "image"}).items()
        )
    )
    draft = Draft(
        "decathlon", [], channels, LabelSet.from_names(names), modality=_modality(channels)
    )
    for entry in data["training"]:
        image, label = root / entry["image"], root / entry["label"]
        _listed_case(tree, draft, image, label, None)
    for entry in data.get("test", []):
        image = root / (entry["image"] if isinstance(entry, dict) else entry)
        if _exists(tree, image):
            draft.cases.append(Case(stem(image), "", (source(image),), (), "test"))
    return draft


def _listed_case(tree: Tree, draft: Draft, image: Path, label: Path, split: Split) -> None:
    case = stem(image)
    missing = [p for p in (image, label) if not _exists(tree, p)]
    for path in missing:
        draft.problem(
            case, "missing", f"{path} is listed in dataset.json but does not exist", path=str(path)
        )
    if image not in missing:
        draft.cases.append(
            Case(case, "", (source(image),), () if missing else (source(label),), split)
        )


def nnunet_raw(tree: Tree, root: Path) -> Draft | None:
    """nnU-Net raw, versions 1 and 2: ``dataset.json``, ``imagesTr/CASE_0000.END``,
    ``labelsTr/CASE.END``, perhaps ``imagesTs``, ``labelsTs``.
    """
    data = _dataset_json(tree, root)
    if (
        data is None
        or not ("channel_names" in data or _has_channel_suffixes(tree, root))
        or tree.folder(root, "imagesTr") is None
    ):
        return None
    named = data.get("channel_names", data.get("modality", {"0": "image"}))
    channels = tuple(n for _, n in sorted((int(k), str(v)) for k, v in named.items()))
    draft = Draft("nnunet-raw", [], channels, modality=_modality(channels))
    _nnunet_labels(draft, data.get("labels", {}))
    for images, labels, split in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        _nnunet_folder(tree, draft, tree.folder(root, images), tree.folder(root, labels), split)  # type: ignore[arg-type]
    return draft


def _nnunet_labels(draft: Draft, labels: dict[str, Any]) -> None:
    """Version 2 has name -> value, version 1 value -> name; regions (lists of values) overlap and
    are refused.
    """
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        draft.refusal = (
            f"dataset.json names regions that overlap ({', '.join(regions)}); one voxel has one "
            "structure here: "
            "choose plain values with --labels, such as 'enhancing tumour: 3'"
        )
        return
    pairs = (
        {int(k): str(v) for k, v in labels.items()}
        if all(str(k).isdigit() for k in labels)
        else {int(v): str(k) for k, v in labels.items()}
    )
    draft.labels = LabelSet.from_names(pairs)


def _nnunet_folder(
    tree: Tree, draft: Draft, images: Path | None, labels: Path | None, split: Split
) -> None:
    if images is None:
        return
    truth = {stem(p): p for p in tree.images(labels)} if labels else {}
    groups = group_channels(tree.images(images))
    wanted = [f"{n:04d}" for n in range(len(draft.channels))]
    for case, files in groups.items():
        lacking = [n for n in wanted if n not in files]
        if lacking:
            have = {draft.channels[int(n)]: os.path.abspath(files[n]) for n in wanted if n in files}
            draft.problem(
                case,
                "missing",
                f"channel {draft.channels[int(lacking[0])]} (ending _{lacking[0]}) is missing in "
                f"{images}",
                have=have,
            )
            continue
        if case not in truth and split != "test":
            draft.problem(
                case,
                "unpaired",
                f"no label {case} in {labels or images.parent / 'labelsTr'}",
                "warning",
            )
        label = (source(truth[case]),) if case in truth else ()
        draft.cases.append(Case(case, "", tuple(source(files[n]) for n in wanted), label, split))
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
    """Whether every image is called CASE_0000 while its label is called CASE."""
    images, labels = tree.folder(root, "imagesTr"), tree.folder(root, "labelsTr")
    if images is None:
        return False
    groups = group_channels(tree.images(images))
    return bool(groups) and (labels is None or any(stem(p) in groups for p in tree.images(labels)))


def _exists(tree: Tree, path: Path) -> bool:
    path = Path(os.path.normpath(path))
    return path.parent.is_dir() and path.name in {p.name for p in tree.files(path.parent)}


# ---- one folder a case ----


def totalsegmentator(tree: Tree, root: Path) -> Draft | None:
    """``CASE/ct.nii.gz`` (or ``mri.nii.gz``) with ``CASE/segmentations/STRUCTURE.nii.gz``; perhaps
    ``meta.csv`` with a split.
    """
    folders = [f for f in tree.folders(root) if tree.folder(f, "segmentations")]
    if not most(tree, root, folders):
        return None
    draft = Draft("totalsegmentator", [], ("CT",), modality="CT")
    splits = _totalsegmentator_splits(root)
    rows = []
    for folder in folders:
        image = next(
            (p for p in tree.images(folder) if stem(p).lower() in ("ct", "mri", "mr", "image")),
            None,
        )
        if image is None:
            draft.problem(folder.name, "missing", f"no ct.nii.gz or mri.nii.gz in {folder}")
            continue
        if stem(image).lower().startswith("mr"):
            draft.channels, draft.modality = ("MR",), "MR"
        rows.append(
            (
                folder.name,
                source(image),
                tree.images(tree.folder(folder, "segmentations") or folder),
            )
        )
    structures = sorted({stem(p) for _, _, masks in rows for p in masks})
    _masks(draft, structures)
    for case, image_source, masks in rows:
        draft.cases.append(
            Case(case, "", (image_source,), tuple(source(p) for p in masks), splits.get(case))
        )
    return draft


def _totalsegmentator_splits(root: Path) -> dict[str, Split]:
    path = root / "meta.csv"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8-sig", errors="replace")
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
    """One mask a structure: values 1.. in order of the files' names."""
    draft.labels = LabelSet.from_names({v: _spoken(n) for v, n in enumerate(structures, start=1)})
    draft.mapping = LabelMapping(files=tuple((n, v) for v, n in enumerate(structures, start=1)))


def _spoken(name: str) -> str:
    """A file's stem as a name whose side can be told ("leftkidney" -> "left kidney")."""
    return re.sub(r"^(left|right)(?=[a-z])", r"\1 ", name)


def modality_files(tree: Tree, root: Path) -> Draft | None:
    """One folder a case with a file a modality and one of truth, such as BraTS
    (``CASE/CASE_flair.nii.gz`` or ``CASE/Flair_….nii.gz``).
    """
    folders = {f: _keys(tree, f) for f in tree.folders(root)}
    folders = {f: keys for f, keys in folders.items() if keys}
    if not most(tree, root, list(folders)):
        return None
    held = [k for keys in folders.values() for k in keys]
    common = [k for k in dict.fromkeys(held) if held.count(k) >= max(1, len(folders) / 2)]
    truths = [k for k in common if _TRUTH.match(k)]
    channels = [k for k in common if _kind(k) in KNOWN_CHANNELS and k not in truths]
    if not channels or len(truths) > 1:
        return None
    draft = Draft("modality-files", [], tuple(channels), modality=_modality(channels))
    unused = [k for k in common if k not in channels and k not in truths]
    if unused:
        draft.note(
            "unused",
            f"files {', '.join(unused)} of each case are neither channel nor truth and were not "
            "used",
            names=unused,
        )
    for folder, keys in folders.items():
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
            continue
        label = tuple(source(keys[k]) for k in truths if k in keys)
        if truths and not label:
            draft.problem(
                folder.name,
                "unpaired",
                f"no {truths[0]} (the truth of the other cases) in {folder}",
                "warning",
            )
        draft.cases.append(Case(folder.name, "", tuple(source(keys[k]) for k in channels), label))
    if {"flair"} <= {_kind(c) for c in channels} or {"t2f"} <= {_kind(c) for c in channels}:
        draft.names = _brats_names("t2f" in {_kind(c) for c in channels})
    return draft if draft.cases else None


def _keys(tree: Tree, folder: Path) -> dict[str, Path]:
    """What each image of a case folder is: its name without the folder's name and without the
    ending that several share.
    """
    files = {
        re.sub(rf"^{re.escape(folder.name)}[_.-]?", "", stem(p)) or "image": p
        for p in tree.images(folder)
        if not is_raster(p)
    }
    endings = [name.split("_", 1)[1] for name in files if "_" in name]
    shared = {e for e in endings if endings.count(e) > 1}
    short = {
        (name.split("_", 1)[0] if "_" in name and name.split("_", 1)[1] in shared else name): p
        for name, p in files.items()
    }
    return short if len(short) == len(files) else files  # CT_image and CT_mask are two things


def _kind(key: str) -> str:
    return re.split(r"[_.-]", key.lower())[0]


def _brats_names(since_2023: bool) -> dict[int, str]:
    """Tumour classes of BraTS: until 2013 four, from 2014 without 3, from 2023 with 3 as the
    enhancing part.
    """
    if since_2023:
        return {1: "necrosis", 2: "oedema", 3: "enhancing tumour", 4: "resection cavity"}
    return {1: "necrosis", 2: "oedema", 3: "non-enhancing tumour", 4: "enhancing tumour"}


# ---- deeper trees ----


def ircad(tree: Tree, root: Path) -> Draft | None:
    """3D-IRCADb: ``PATIENT_DICOM`` with ``MASKS_DICOM/ORGAN``, in numbered folders or in the root
    itself.
    """
    alone = tree.folder(root, "PATIENT_DICOM") is not None
    folders = [
        f for f in ([root] if alone else tree.folders(root)) if tree.folder(f, "PATIENT_DICOM")
    ]
    if not (alone or most(tree, root, folders)):
        return None
    draft = Draft("3d-ircadb", [], ("CT",), modality="CT")
    rows = []
    for folder in folders:
        name = Path(os.path.abspath(folder)).name
        image = _inner(tree, tree.folder(folder, "PATIENT_DICOM"))
        masks = _inner(tree, tree.folder(folder, "MASKS_DICOM"))
        if image is None or not tree.is_dicom(image):
            draft.problem(name, "missing", f"no DICOM files in {folder / 'PATIENT_DICOM'}")
            continue
        organs = [f for f in tree.folders(masks) if tree.is_dicom(f)] if masks else []
        if not organs:
            draft.problem(
                name, "unpaired", "no folder MASKS_DICOM with a folder of masks an organ", "warning"
            )
        rows.append((name, image, organs))
    _masks(draft, sorted({organ.name for _, _, organs in rows for organ in organs}))
    for name, image, organs in rows:
        draft.cases.append(Case(name, name, (source(image),), tuple(source(o) for o in organs)))
    return draft


def _inner(tree: Tree, folder: Path | None) -> Path | None:
    """Unpacked archives often hold a folder of the same name once more."""
    again = tree.folder(folder, folder.name) if folder else None
    return again or folder


def oasis1(tree: Tree, root: Path) -> Draft | None:
    """OASIS-1: ``OAS1_nnnn_MRm/PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img`` with
    ``FSL_SEG/*_fseg.img``, perhaps under ``disc1`` ...
    """
    shape = re.compile(r"^OAS1_\d{4}_MR\d+$")
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
        image = _ending(tree, folder / "PROCESSED" / "MPRAGE" / "T88_111", "_t88_masked_gfc")
        label = _ending(tree, folder / "FSL_SEG", "_fseg")
        if image is None:
            draft.problem(
                folder.name, "missing", "no PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img"
            )
            continue
        if label is None:
            draft.problem(folder.name, "unpaired", "no FSL_SEG/*_fseg.img", "warning")
        draft.cases.append(
            Case(
                folder.name,
                folder.name.rsplit("_", 1)[0],
                (source(image),),
                (source(label),) if label else (),
            )
        )
    return draft


def _ending(tree: Tree, folder: Path, ending: str) -> Path | None:
    return (
        next((p for p in tree.images(folder) if stem(p).endswith(ending)), None)
        if folder.is_dir()
        else None
    )


def _modality(channels: Any) -> str:
    """CT or MR where the channels' names tell, else ""."""
    kinds = {_kind(str(c).replace(" ", "_")) for c in channels}
    if kinds <= {"ct", "cta"}:
        return "CT"
    return "MR" if kinds & MR_NAMES else ""
