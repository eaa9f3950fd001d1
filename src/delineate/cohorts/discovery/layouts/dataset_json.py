"""Layouts with a ``dataset.json``: the Medical Segmentation Decathlon and nnU-Net raw."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....core.errors import LayoutError
from ....core.inputs import read_json
from ....core.labels import LabelMapping, LabelSet
from ....core.manifest import Case, Split
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats.files import stem
from ..names import regions_of, without_ignored
from ..splits import with_free_training
from ..tree import Tree, group_channels, source
from .modalities import modality_of

LAST_CT_OF_AMOS = 500


@layout(
    "amos",
    definition="dataset.json of AMOS, imagesTr/, labelsTr/, imagesVa/, labelsVa/",
    tier="described",
)
def amos(tree: Tree, root: Path) -> Draft | None:
    """AMOS: as ``decathlon``; ``dataset.json`` calls all scans CT, but those with numbers above 500
    are MR. The modality is the group of a case.
    """
    draft = decathlon(tree, root)
    numbers = [re.fullmatch(r"(?i)amos_(\d{4})", case.id) for case in draft.cases] if draft else []
    if draft is None or not numbers or not all(numbers):
        return None
    draft.layout = "amos"
    kinds = ["MR" if found and int(found[1]) > LAST_CT_OF_AMOS else "CT" for found in numbers]
    draft.cases = [replace(c, group=kind) for c, kind in zip(draft.cases, kinds, strict=True)]
    draft.modality = kinds[0] if len(set(kinds)) == 1 else ""
    if draft.modality == "MR":
        draft.channels = ("MR",)
    if not draft.modality:
        draft.problem(
            "",
            "modality",
            f"{kinds.count('CT')} scans are CT and {kinds.count('MR')} are MR (numbers above "
            f"{LAST_CT_OF_AMOS}); their intensities have different meanings",
            "warning",
        )
    return draft


@layout("decathlon", definition="dataset.json, imagesTr/, labelsTr/", tier="described")
def decathlon(tree: Tree, root: Path) -> Draft | None:
    """Medical Segmentation Decathlon: ``dataset.json`` with a training list, ``imagesTr``,
    ``labelsTr`` and optionally ``imagesTs`` and a validation list.
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
        "decathlon", [], channels, LabelSet.from_names(names), modality=modality_of(channels)
    )
    # Each listed file must exist.
    lists: tuple[tuple[str, Split], ...] = (
        ("training", "train"),
        ("validation", "val"),
        ("val", "val"),
    )
    for key, split in lists:
        for entry in data.get(key, []):
            _listed_case(tree, draft, root / entry["image"], root / entry["label"], split)
    # Test entries are usually only a path; a label is rarely published, and then next to it.
    for entry in data.get("test", []):
        pair = entry if isinstance(entry, dict) else {"image": entry}
        image = root / pair["image"]
        label = root / pair.get("label", f"labelsTs/{image.name}")
        if _exists(tree, image):
            truth = (source(label),) if _exists(tree, label) else ()
            draft.cases.append(Case(stem(image), "", (source(image),), truth, "test"))
    draft.cases = with_free_training(draft.cases)
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


@layout("nnunet-raw", definition="imagesTr/ID_0000.*, labelsTr/ID.*", tier="described")
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
    draft = Draft("nnunet-raw", [], channels, modality=modality_of(channels))
    _nnunet_labels(draft, data.get("labels", {}), data.get("regions_class_order"))
    parts: tuple[tuple[str, str, Split], ...] = (
        ("imagesTr", "labelsTr", None),
        ("imagesTs", "labelsTs", "test"),
    )
    for images, labels, split in parts:
        _nnunet_folder(tree, draft, tree.folder(root, images), tree.folder(root, labels), split)
    return draft


def _nnunet_labels(draft: Draft, labels: dict[str, Any], order: Any) -> None:
    """Set the structures and the ignored value from ``labels`` of ``dataset.json``.

    Version 2 has name -> value, or several values of a region; version 1 value -> name. Regions
    that overlap state their parts, so they need no mapping.
    """
    labels, draft.ignore = without_ignored(labels)
    if any(isinstance(value, list) for value in labels.values()):
        found = regions_of(labels, order)
        if not found.overlapping:
            # Regions that exclude each other are values that are merged.
            merged = tuple((part, label.value) for label in found for part in label.parts)
            found = LabelSet(tuple(replace(label, parts=()) for label in found))
            draft.mapping = LabelMapping(values=merged)
        draft.labels = found
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
    groups = group_channels(tree.images(images))
    truth = _truth(tree, draft, labels, groups)
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


def _truth(
    tree: Tree, draft: Draft, labels: Path | None, cases: Collection[str]
) -> dict[str, Path]:
    """Case -> its label; labels that all have the number of the first channel in their names, and
    would fit no case with it, are read without it.
    """
    truth = {stem(path): path for path in tree.images(labels)} if labels else {}
    bare = {name.removesuffix("_0000"): path for name, path in truth.items()}
    if set(truth) & set(cases) or len(bare) < len(truth) or not set(bare) & set(cases):
        return truth
    draft.note("names", f"labels in {labels} are named after the first channel (_0000)")
    return bare


def _dataset_json(tree: Tree, root: Path) -> dict[str, Any] | None:
    path = root / "dataset.json"
    if path not in tree.files(root):
        return None
    data = read_json(path, error=LayoutError)
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
